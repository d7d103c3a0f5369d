//! Dispatch in a simulation: many cores in one thread, on a virtual clock, in an order drawn from a seed. The code that runs
//! is the edge's own; sockets and threads never enter.
//!
//! `PTTH_SEEDS=10000 cargo test --test simulator` takes more seeds; a failure prints its own, and `PTTH_SEED=7` runs one
//! with a trace of all that happens.

mod ageing;
mod chance;
mod ideal;
mod ledger;
mod storm;
mod world;

use ageing::endless_load;
use chance::{Chance, each_seed};
use ideal::{Both, LAYOUTS, compare};
use ledger::{End, State};
use ptth::clock::Now;
use ptth::dispatch::PoolRules;
use ptth::ids::{Class, PoolId};
use ptth::sched::{Facts, Needs};
use storm::{Seen, Weather, storm};
use world::{Event, Pace, World};

/// Seeds of each test, unless `PTTH_SEEDS` or `PTTH_SEED` say otherwise.
const SEEDS: u64 = 256;

#[test]
fn storms_lose_nothing_and_leave_nothing_behind() {
    let mut seen = Seen::default();
    let weather = Weather { steps: 120, floods: 6, has_delays: true };
    let seeds = each_seed("storms", SEEDS, |seed, is_traced| storm(seed, weather, is_traced, &mut seen));
    if seeds >= SEEDS {
        // The storms were storms.
        let Seen { requests, returned, cancelled, taken, idle_looks, .. } = seen;
        assert!(requests / seeds > 300, "{requests} requests");
        assert!(returned / seeds > 10 && cancelled / seeds > 5, "{returned} returned, {cancelled} cancelled");
        assert!(taken / seeds > 100, "{taken} crossed");
        assert!(idle_looks / seeds > 100, "{idle_looks} times a credit was idle and nobody asked");
        // Each is one that `Ledger::check_order` allows; even with messages as slow as services they are few.
        let Seen { inversions, grants, .. } = seen;
        assert!(inversions > 0 && inversions * 100 < grants, "{inversions} of {grants} were inversions");
    }
}

#[test]
fn without_delays_every_grant_is_the_one_that_a_central_queue_makes() {
    let mut seen = Seen::default();
    let weather = Weather { steps: 120, floods: 6, has_delays: false };
    let seeds = each_seed("without_delays", SEEDS, |seed, is_traced| storm(seed, weather, is_traced, &mut seen));
    assert_eq!(seen.all_inversions, 0);
    assert!(seeds < SEEDS || seen.taken / seeds > 100, "{} crossed", seen.taken);
}

#[test]
fn waits_are_those_of_one_central_queue_within_a_few_percent() {
    for layout in &LAYOUTS {
        let mut both = Both::default();
        let seeds = each_seed("waits_are", 8, |seed, is_traced| compare(seed, is_traced, layout, &mut both));
        if seeds < 8 {
            continue; // the 99th percentile of a few is chance
        }
        let Both { central, ours } = &both;
        let check = |what: &str, ours_ns: u64, central_ns: u64, percent: u64| {
            let is_near = ours_ns.abs_diff(central_ns) * 100 <= central_ns * percent;
            assert!(is_near, "{what}: {ours_ns} ns instead of {central_ns} ns with {layout:?}");
        };
        check("mean", ours.mean_ns(), central.mean_ns(), 2);
        check("p99", ours.p99_ns(None), central.p99_ns(None), 2);
        let urgent = Some(Class::of(1));
        check("p99 of the urgent", ours.p99_ns(urgent), central.p99_ns(urgent), 6);
    }
}

#[test]
fn who_has_waited_long_enough_is_ahead_of_all_that_came_later() {
    let (mut served_with, mut served_without) = (0, 0);
    let seeds = each_seed("who_has_waited", 12, |seed, is_traced| {
        served_with += u64::from(endless_load(seed, true, is_traced));
        served_without += u64::from(endless_load(seed, false, is_traced));
    });
    assert_eq!(served_with, seeds, "the least urgent class starved");
    assert!(served_without * 4 < seeds, "this load would have let it through without ageing: {served_without}");
}

#[test]
fn half_of_ten_thousand_leave_and_their_places_are_free_at_once() {
    let pool = PoolId(0);
    let rules = vec![PoolRules { per_link_max: 100, concurrency_max: 0, ageing: None }];
    let service_ns = |chance: &mut Chance| chance.between(1, 1_000_000);
    let pace = Pace { message_ns: Some((1, 10_000)), service_ns, refused_one_in: 0, age_look_ns: 0 };
    let mut world = World::new(3, rules, pace, Chance::new(1), false);
    for _ in 0..10_000 {
        let (at, home) = (world.now().0 + 1, world.chance.below(3));
        let class = Class::of(world.chance.of(&[2, 3, 3, 3, 6]));
        world.request(Now(at), home, Facts { pool, class, needs: Needs::Any, stamp: Now(0) });
        world.run_until(Now(at));
    }
    // The oldest, which all cores see, and others here and there.
    let mut names: Vec<usize> = (0..10_000).collect();
    for left in 1..=5_000 {
        let name = if left <= 2_000 { names.remove(0) } else { names.swap_remove(world.chance.below(names.len())) };
        let home = world.ledger.requests[name].home;
        world.after(0, home, Event::Leaves(name));
        world.run_until(world.now());
        assert_eq!(world.waiting(pool), 10_000 - left);
    }
    world.link(0, vec![pool], 40, false);
    world.link(2, vec![pool], 20, false);
    assert!(!world.run_until(Now(u64::MAX)), "all is served");
    let ends =
        |end: End| world.ledger.requests.iter().filter(move |one| matches!(one.state, State::Over(its) if its == end));
    assert_eq!(
        (ends(End::Answered).count(), ends(End::Cancelled).count(), world.ledger.log.len()),
        (5_000, 5_000, 5_000)
    );
    assert!(names.iter().all(|&name| world.ledger.requests[name].turn == 1), "each of the others once");
    world.check_settled();
}
