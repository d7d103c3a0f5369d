//! Ageing: what a request that waits long is promised, under a load of urgent requests that never ends.
//!
//! With a step of `s` and `m` as the most urgent class that ageing gives, a request of class `c` that has waited
//! `(c - m) * s + AGE_LOOK` is ahead of every request of its pool that came after it, but for those that were more urgent
//! than `m` from the start.

use ptth::clock::Now;
use ptth::dispatch::{Ageing, PoolRules};
use ptth::ids::{Class, PoolId};
use ptth::limits::AGE_LOOK_MS;
use ptth::sched::{Facts, Needs};

use super::chance::Chance;
use super::ledger::Request;
use super::world::{Pace, World};

const POOL: PoolId = PoolId(0);
const MS: u64 = 1_000_000;
const SERVICE_NS_MEAN: u64 = 300 * MS;
const CREDITS: u32 = 4;
const LOAD_NS: u64 = 90_000 * MS;
/// Who came between these is asked about: when the first queue stood, and long before the load ends.
const ASKED_NS: std::ops::Range<u64> = LOAD_NS / 6..LOAD_NS / 3;

/// Whether every request of the least urgent class that is asked about got a link before the load ended.
pub fn endless_load(seed: u64, has_ageing: bool, is_traced: bool) -> bool {
    let mut chance = Chance::new(seed);
    let cores = 1 + chance.below(3);
    let most_urgent = Class::of(u8::try_from(chance.below(4)).expect("small"));
    let step_ms = chance.between(200, 3_000);
    let ageing = Ageing { step_ms, most_urgent };
    let rules = vec![PoolRules { per_link_max: 100, concurrency_max: 0, ageing: has_ageing.then_some(ageing) }];
    let service_ns = |chance: &mut Chance| chance.between(1, 2 * SERVICE_NS_MEAN);
    let pace = Pace { message_ns: None, service_ns, refused_one_in: 0, age_look_ns: AGE_LOOK_MS * MS };
    let mut world = World::new(cores, rules, pace, chance, is_traced);
    for link in 0..2 {
        world.link(link % cores, vec![POOL], CREDITS / 2, false);
    }
    load(&mut world, most_urgent);
    world.run_until(Now(LOAD_NS));
    if has_ageing {
        check_promise(&world, ageing);
    }
    let is_asked =
        |request: &&Request| request.facts.class == Class::of(7) && ASKED_NS.contains(&request.facts.stamp.0);
    let asked: Vec<&Request> = world.ledger.requests.iter().filter(is_asked).collect();
    assert!(asked.len() > 10, "few are asked about");
    asked.iter().all(|request| request.turn > 0)
}

/// More than the links can serve of the most urgent class that ageing gives, in ones and in bursts; a few of all others, and
/// one of the least urgent each second.
fn load(world: &mut World, most_urgent: Class) {
    let facts = |class| Facts { pool: POOL, class, needs: Needs::Any, stamp: Now(0) };
    for at in (0..LOAD_NS).step_by(1_000_000_000) {
        let home = world.chance.below(world.cores());
        world.request(Now(at), home, facts(Class::of(7)));
    }
    let mut at = 0;
    while at < LOAD_NS {
        let pause_ns = SERVICE_NS_MEAN as f64 / f64::from(CREDITS) / 1.2;
        let burst = if world.chance.one_in(400) { world.chance.below(100) } else { 1 };
        at += world.chance.exponential(pause_ns);
        for _ in 0..burst {
            let home = world.chance.below(world.cores());
            let urgency = u8::try_from(world.chance.below(Class::COUNT)).expect("small");
            let class = if world.chance.one_in(20) { Class::of(urgency).max(most_urgent) } else { most_urgent };
            world.request(Now(at), home, facts(class));
        }
    }
}

fn check_promise(world: &World, ageing: Ageing) {
    let requests = &world.ledger.requests;
    let due = |name: usize| {
        let Facts { class, stamp, .. } = requests[name].facts;
        let steps = u64::from(class.urgency().saturating_sub(ageing.most_urgent.urgency()));
        stamp.plus_ms(steps * ageing.step_ms + AGE_LOOK_MS)
    };
    // Who waits at a moment is who got a link later, or none until the end.
    let mut waits: Vec<usize> = world.ledger.waiting.clone();
    for &(name, at) in world.ledger.log.iter().rev() {
        let stamp = requests[name].facts.stamp;
        for &other in &waits {
            let is_ahead = due(other) <= at && requests[other].facts.stamp < stamp;
            assert!(!is_ahead, "request {name} got a link before request {other}, which had waited long enough");
        }
        waits.push(name);
    }
    assert!(world.ledger.log.len() > 500, "few got a link");
}
