//! Counts the allocations of a direct handoff: one test, alone in its binary.

mod counting;

use std::sync::Arc;

use ptth::clock::Now;
use ptth::dispatch::{Dispatcher, Granted, Host, PoolRules, Shared};
use ptth::ids::{Class, CoreId, PoolId};
use ptth::sched::{Facts, LinkFacts, Needs};

struct Nobody;

impl Host<(), ()> for Nobody {
    fn granted(&mut self, _: Granted<(), ()>) {
        panic!("nothing waits");
    }
    fn ring(&mut self, _: CoreId) {
        panic!("nothing waits");
    }
    fn last_link_left(&mut self, _: PoolId) {}
}

#[test]
fn a_direct_handoff_allocates_nothing() {
    let rules = PoolRules { per_link_max: 100, concurrency_max: 0, ageing: None };
    let shared = Arc::new(Shared::new(vec![rules.clone(), rules], 2));
    let mut dispatcher: Dispatcher<(), ()> = Dispatcher::new(CoreId(0), shared);
    let pools = [PoolId(0), PoolId(1)];
    for _ in 0..3 {
        let link = dispatcher.link_up(LinkFacts { pools: pools.to_vec(), carries_upgrades: true }, &mut Nobody);
        dispatcher.link_credits(link, 2, true, Now(0), &mut Nobody);
    }
    let before = counting::allocations();
    for turn in 0..1_000 {
        for needs in [Needs::Any, Needs::Upgrade] {
            let facts = Facts { pool: pools[turn % 2], class: Class::of(3), needs, stamp: Now(turn as u64) };
            let grant = dispatcher.offer(facts).expect("a credit is free");
            dispatcher.release(grant.link, grant.pool, grant.permit, || panic!("nothing waits"), &mut Nobody);
        }
    }
    assert_eq!(counting::allocations() - before, 0);
}
