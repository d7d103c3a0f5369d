//! Storms: requests of all kinds, and everything that can go wrong with links, credits, clients and cores; then calm.

use ptth::clock::Now;
use ptth::dispatch::{Ageing, PoolRules};
use ptth::ids::{Class, PoolId};
use ptth::limits::WINDOW_REQUESTS;
use ptth::sched::{Facts, Needs};

use super::chance::Chance;
use super::ledger::{Request, State};
use super::world::{Event, Pace, World};

const POOLS: usize = 3;
const MS: u64 = 1_000_000;
const SERVICE_NS_MAX: u64 = 4 * MS;
const STALL_NS_MAX: u64 = 6 * MS;

/// Credits of each core's link in the calm: what one call sees of a lane at least, because less than half of a window may be
/// dead.
const CALM_STREAMS: u32 = WINDOW_REQUESTS as u32 / 2;

/// How bad the weather is.
#[derive(Clone, Copy)]
pub struct Weather {
    /// Three of four storms are so many mixed events, the fourth is so many floods.
    pub steps: usize,
    pub floods: usize,
    /// Messages between cores take time, and cores are slow now and then.
    pub has_delays: bool,
}

/// What a storm saw.
#[derive(Default)]
pub struct Seen {
    pub requests: u64,
    pub all_inversions: u64,
    /// Of those storms that are no floods.
    pub grants: u64,
    pub inversions: u64,
    pub idle_looks: u64,
    pub taken: u64,
    pub returned: u64,
    pub cancelled: u64,
}

pub fn storm(seed: u64, weather: Weather, is_traced: bool, seen: &mut Seen) {
    let mut chance = Chance::new(seed);
    let is_flood = seed % 4 == 3;
    let cores = if is_flood { 2 + chance.below(3) } else { 1 + chance.below(6) };
    let rules = (0..POOLS).map(|_| rules(&mut chance, is_flood)).collect();
    let delays_ns = if is_flood { [100_000, MS, 3 * MS, 3 * MS] } else { [1, 1_000, 100_000, 3 * MS] };
    let message_ns = weather.has_delays.then(|| (0, chance.of(&delays_ns)));
    let pace = Pace {
        message_ns,
        service_ns: |chance| chance.between(1, SERVICE_NS_MAX),
        refused_one_in: chance.of(&[0, 4, 20]),
        age_look_ns: 2 * MS,
    };
    let mut world = World::new(cores, rules, pace, chance, is_traced);
    if is_flood {
        (0..weather.floods).for_each(|_| flood(&mut world, weather));
    } else {
        for _ in 0..weather.steps {
            step(&mut world, weather);
            pass(&mut world, MS);
        }
    }
    calm(&mut world);
    seen.add(&world);
    if !is_flood {
        seen.grants += world.ledger.log.len() as u64;
        seen.inversions += world.ledger.inversions;
    }
}

fn rules(chance: &mut Chance, is_flood: bool) -> PoolRules {
    let ageing = Ageing { step_ms: 5, most_urgent: Class::of(2) };
    PoolRules {
        per_link_max: if is_flood { 200 } else { chance.of(&[1, 2, 5, 100]) },
        concurrency_max: if is_flood { 0 } else { chance.of(&[0, 0, 3, 20]) },
        ageing: chance.one_in(2).then_some(ageing),
    }
}

/// Some time passes, or none.
fn pass(world: &mut World, ns_max: u64) {
    let ns_max = world.chance.of(&[0, 1_000, ns_max / 3, ns_max]);
    let until = Now(world.now().0 + world.chance.between(0, ns_max));
    world.run_until(until);
}

fn step(world: &mut World, weather: Weather) {
    let core = world.chance.below(world.cores());
    let link = world.chance.below(world.ledger.links.len().max(1));
    let streams_max = world.chance.of(&[0, 1, 1, 2, 4, 16]);
    let carries_upgrades = world.chance.one_in(3);
    match world.chance.below(100) {
        0..=54 => arrivals(world, core),
        55..=64 if !world.ledger.requests.is_empty() => leaves(world),
        65..=74 if world.ledger.links.iter().filter(|link| link.takes_more).count() < 2 * world.cores() => {
            let pools: Vec<PoolId> = pools().filter(|_| world.chance.one_in(2)).collect();
            if !pools.is_empty() {
                world.link(core, pools, streams_max, carries_upgrades);
            }
        }
        75..=86 if !world.ledger.links.is_empty() => {
            let core = world.ledger.links[link].core;
            world.after(0, core, Event::LinkCredits { link, streams_max, carries_upgrades });
        }
        87..=89 if !world.ledger.links.is_empty() => {
            let core = world.ledger.links[link].core;
            world.after(0, core, Event::LinkDrains(link));
        }
        90..=94 if !world.ledger.links.is_empty() => {
            let core = world.ledger.links[link].core;
            world.after(0, core, Event::LinkDown(link));
        }
        95..=99 if weather.has_delays => {
            let ns = world.chance.between(1, STALL_NS_MAX);
            world.stall(core, ns);
        }
        _ => (),
    }
}

/// One request, a few, or more than a window holds.
fn arrivals(world: &mut World, core: usize) {
    let count = if world.chance.one_in(40) { world.chance.below(150) } else { 1 + world.chance.below(3) };
    let is_one_lane = world.chance.one_in(2);
    let mut facts = facts(world);
    for _ in 0..count {
        let at = world.now();
        world.request(at, core, facts);
        if !is_one_lane {
            facts = self::facts(world);
        }
    }
}

/// The client of a request leaves: mostly of one that came lately and is not over.
fn leaves(world: &mut World) {
    let count = world.ledger.requests.len();
    let name = world.chance.below(count);
    let name = if world.chance.one_in(4) { name } else { count - 1 - name.min(20) };
    let home = world.ledger.requests[name].home;
    world.after(0, home, Event::Leaves(name));
}

/// More than a window of one lane waits on a core, another core takes all that it sees of it, and before word of it has come
/// home everything else happens: a credit comes there, clients leave in a crowd, the taker's link breaks.
fn flood(world: &mut World, weather: Weather) {
    let message_ns = world.pace.message_ns.map_or(MS, |(_, last)| last);
    let home = world.chance.below(world.cores());
    let taker = (home + 1 + world.chance.below(world.cores() - 1)) % world.cores();
    let facts = Facts { pool: PoolId(0), needs: Needs::Any, ..facts(world) };
    for _ in 0..world.chance.between(65, 200) {
        let at = world.now();
        world.request(at, home, facts);
    }
    if world.chance.one_in(3) {
        crowd_leaves(world, home);
    }
    pass(world, message_ns);
    // More at once than a call sees of a lane is for storms with delays.
    let streams_max = if weather.has_delays { world.chance.of(&[40, 64, 100, 150]) } else { 24 };
    let link = world.link(taker, vec![PoolId(0)], streams_max, false);
    for _ in 0..world.chance.below(5) {
        pass(world, message_ns);
        let core = world.chance.below(world.cores());
        match world.chance.below(8) {
            0..=2 => {
                let streams_max = world.chance.of(&[1, 4, 16]);
                world.link(home, vec![PoolId(0)], streams_max, false);
            }
            3 => crowd_leaves(world, home),
            4 => arrivals(world, core),
            5 => world.after(0, taker, Event::LinkDown(link)),
            6 => world.after(0, taker, Event::LinkCredits { link, streams_max: 0, carries_upgrades: false }),
            7 if weather.has_delays => world.stall(home, message_ns),
            _ => (),
        }
    }
    pass(world, SERVICE_NS_MAX);
    // All links go, so that the next flood waits again.
    for link in 0..world.ledger.links.len() {
        let core = world.ledger.links[link].core;
        if !world.ledger.links[link].is_gone && world.chance.one_in(2) {
            world.after(0, core, Event::LinkDown(link));
        }
    }
}

/// The oldest requests of a core lose their clients: many of what lies in its windows.
fn crowd_leaves(world: &mut World, home: usize) {
    let mut names = world.ledger.waiting.clone();
    names.retain(|&name| world.ledger.requests[name].home == home);
    names.sort_unstable();
    let count = world.chance.of(&[30, 64, 100]).min(names.len());
    for &name in &names[..count] {
        world.after(0, home, Event::Leaves(name));
    }
}

fn facts(world: &mut World) -> Facts {
    let pool = PoolId(u16::try_from(world.chance.below(POOLS)).expect("few"));
    let class = Class::of(world.chance.of(&[0, 1, 3, 3, 3, 4, 7]));
    let needs = if world.chance.one_in(6) { Needs::Upgrade } else { Needs::Any };
    Facts { pool, class, needs, stamp: world.now() }
}

fn pools() -> impl Iterator<Item = PoolId> {
    (0..).map(PoolId).take(POOLS)
}

/// Links for everything, and no more trouble: all is served in as many rounds as the bounds of the pools and links need.
fn calm(world: &mut World) {
    world.is_calm = true;
    for core in 0..world.cores() {
        world.link(core, pools().collect(), CALM_STREAMS, true);
    }
    let mut rounds = 1; // what is in flight ends first
    for pool in pools() {
        let is_open = |request: &&Request| request.facts.pool == pool && !matches!(request.state, State::Over(_));
        let open = world.ledger.requests.iter().filter(is_open).count();
        let PoolRules { per_link_max, concurrency_max, .. } = world.ledger.rules[usize::from(pool.0)];
        let at_once = world.cores() * usize::try_from(per_link_max.min(CALM_STREAMS)).expect("small");
        rounds += open.div_ceil(if concurrency_max == 0 { at_once } else { at_once.min(concurrency_max) });
    }
    // Between two rounds a permit may have to find its way round all cores, and the word of a window that was emptied its
    // way home.
    let message_ns = world.pace.message_ns.map_or(0, |(_, last)| last);
    let round_ns = SERVICE_NS_MAX + (world.cores() as u64 + 3) * message_ns;
    let until = Now(world.now().0 + STALL_NS_MAX + 2 * world.pace.age_look_ns + rounds as u64 * round_ns);
    let has_more = world.run_until(until);
    assert!(!has_more, "not all is settled after {rounds} rounds");
    world.check_settled();
}

impl Seen {
    fn add(&mut self, world: &World) {
        let ledger = &world.ledger;
        self.requests += ledger.requests.len() as u64;
        self.all_inversions += ledger.inversions;
        self.idle_looks += world.idle_looks;
        self.taken += ledger.counts.iter().map(|counts| counts.taken).sum::<u64>();
        self.cancelled += ledger.counts.iter().map(|counts| counts.cancelled).sum::<u64>();
        self.returned += ledger.requests.iter().filter(|request| request.turn > 1).count() as u64;
    }
}
