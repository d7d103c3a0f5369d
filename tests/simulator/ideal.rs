//! The ideal: one central queue in front of all workers, strict classes, the oldest first, nobody interrupted. The same
//! requests go through it and through dispatch, and their waits are compared.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use ptth::clock::Now;
use ptth::dispatch::PoolRules;
use ptth::ids::{Class, PoolId};
use ptth::sched::{Facts, Needs};

use super::chance::Chance;
use super::world::{Pace, World};

const POOL: PoolId = PoolId(0);
const CORES: usize = 4;
/// Requests that the workers serve at once, all in all.
const CREDITS: usize = 16;
const SERVICE_NS_MEAN: f64 = 1e6;
const LOAD: f64 = 0.9;
/// A message from core to core: some 1 % of a service.
const MESSAGE_NS: (u64, u64) = (2_000, 15_000);
const REQUESTS: usize = 6_000;
/// The first ones find an empty house.
const WARM_UP: usize = 500;

/// Where the credits are: by core, the links and the credits of each.
pub type Layout = [(usize, u32); CORES];
pub const LAYOUTS: [Layout; 3] = [
    [(4, 1); CORES],                  // links of one credit, spread
    [(1, 4); CORES],                  // one link of four on each core
    [(8, 1), (1, 8), (0, 0), (0, 0)], // two cores have none
];

struct Arrival {
    at_ns: u64,
    class: Class,
    core: usize,
    service_ns: u64,
}

/// Waits in nanoseconds, by class.
#[derive(Default)]
pub struct Waits(Vec<(Class, u64)>);

impl Waits {
    pub fn p99_ns(&self, class: Option<Class>) -> u64 {
        let of_class = self.0.iter().filter(|(its, _)| class.is_none_or(|class| class == *its));
        let mut waits: Vec<u64> = of_class.map(|&(_, wait)| wait).collect();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }

    pub fn mean_ns(&self) -> u64 {
        self.0.iter().map(|(_, wait)| wait).sum::<u64>() / self.0.len() as u64
    }
}

/// What both queues made of the same requests.
#[derive(Default)]
pub struct Both {
    pub central: Waits,
    pub ours: Waits,
}

fn trace(chance: &mut Chance) -> Vec<Arrival> {
    let pause_ns = SERVICE_NS_MEAN / (CREDITS as f64 * LOAD);
    let mut at_ns = 1_000_000;
    let arrival = |_| {
        at_ns += chance.exponential(pause_ns);
        let class = Class::of(chance.of(&[1, 1, 3, 3, 3, 3, 3, 5, 5, 5]));
        let service_ns = 1 + chance.exponential(SERVICE_NS_MEAN);
        Arrival { at_ns, class, core: chance.below(CORES), service_ns }
    };
    (0..REQUESTS).map(arrival).collect()
}

fn central(trace: &[Arrival]) -> Vec<u64> {
    let mut waits = vec![0; trace.len()];
    let mut waiting: BTreeSet<(Class, usize)> = BTreeSet::new();
    // When each worker is free again.
    let mut ends: BinaryHeap<Reverse<u64>> = (0..CREDITS).map(|_| Reverse(0)).collect();
    let mut arrivals = trace.iter().enumerate().peekable();
    loop {
        let Reverse(free_ns) = *ends.peek().expect("some worker");
        match arrivals.peek() {
            Some((_, next)) if waiting.is_empty() || next.at_ns <= free_ns => {
                let (name, next) = arrivals.next().expect("looked at");
                waiting.insert((next.class, name));
            }
            _ => {
                let Some((_, name)) = waiting.pop_first() else { return waits };
                let begins_ns = free_ns.max(trace[name].at_ns);
                waits[name] = begins_ns - trace[name].at_ns;
                ends.pop();
                ends.push(Reverse(begins_ns + trace[name].service_ns));
            }
        }
    }
}

fn ours(trace: &[Arrival], chance: Chance, layout: &Layout, is_traced: bool) -> Vec<u64> {
    let rules = vec![PoolRules { per_link_max: 100, concurrency_max: 0, ageing: None }];
    let service_ns = |_: &mut Chance| unreachable!("all are in the trace");
    let pace = Pace { message_ns: Some(MESSAGE_NS), service_ns, refused_one_in: 0, age_look_ns: 0 };
    let mut world = World::new(CORES, rules, pace, chance, is_traced);
    for (core, &(links, streams_max)) in layout.iter().enumerate() {
        (0..links).for_each(|_| _ = world.link(core, vec![POOL], streams_max, false));
    }
    world.services_ns = trace.iter().map(|arrival| arrival.service_ns).collect();
    for arrival in trace {
        let facts = Facts { pool: POOL, class: arrival.class, needs: Needs::Any, stamp: Now(0) };
        world.request(Now(arrival.at_ns), arrival.core, facts);
    }
    assert!(!world.run_until(Now(u64::MAX)), "all is served");
    assert_eq!(world.ledger.inversions, 0, "a queue shorter than a window is seen whole");
    world.ledger.requests.iter().map(|request| request.first_wait_ns.expect("served")).collect()
}

pub fn compare(seed: u64, is_traced: bool, layout: &Layout, both: &mut Both) {
    let mut chance = Chance::new(seed);
    let trace = trace(&mut chance);
    let waits = central(&trace).into_iter().zip(ours(&trace, chance, layout, is_traced));
    for (arrival, (central_ns, ours_ns)) in trace.iter().zip(waits).skip(WARM_UP) {
        both.central.0.push((arrival.class, central_ns));
        both.ours.0.push((arrival.class, ours_ns));
    }
}
