//! Requests and credits of two cores that meet in every order that the memory model allows. `ptth_broken_fence` takes one
//! fence out, and shows that these walks would notice:
//! `RUSTFLAGS="--cfg ptth_broken_fence" cargo test --release --manifest-path loom/Cargo.toml --test dispatch`.

#![cfg_attr(ptth_broken_fence, allow(dead_code, unused_imports))]

use loom::sync::{Condvar, Mutex};
use loom::thread;
use ptth_loom::clock::Now;
use ptth_loom::dispatch::{Dispatcher, Grant, Granted, Host, PoolRules, Shared};
use ptth_loom::ids::{Class, CoreId, PoolId};
use ptth_loom::sched::{Facts, LinkFacts, Needs};
use ptth_loom::xcore::{Home, Kind, Mail, Parcel, Post, Shelf, at_once};
use std::sync::Arc;

const POOL: PoolId = PoolId(0);

/// Walks up to so many preemptions; see the other file.
fn walk(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut walk = loom::model::Builder::new();
    walk.preemption_bound = walk.preemption_bound.or(Some(preemptions));
    walk.check(test);
}

fn parcel(home: u16, stamp_ns: u64) -> Arc<Parcel<()>> {
    Arc::new(Parcel::new(CoreId(home), stamp_ns, stamp_ns, stamp_ns, ()))
}

// ---- the shelf alone ----

#[cfg(not(ptth_broken_fence))]
#[test]
fn two_homes_and_two_takers_lose_nothing_and_take_nothing_twice() {
    walk(4, || {
        let shelf: Arc<Shelf<()>> = Shelf::new(1, 2);
        let homes = [0, 1].map(|home| {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || shelf.lay_out(POOL, 3, Kind::Any, parcel(home, u64::from(home))))
        });
        let taker = |shelf: &Shelf<()>, here: u16| {
            let head = shelf.head(POOL, false, CoreId(here), || ())?;
            shelf.take(POOL, head.class, head.kind, head.core).map(|parcel| parcel.stamp_ns)
        };
        let other = thread::spawn({
            let shelf = Arc::clone(&shelf);
            move || taker(&shelf, 1)
        });
        let mut taken: Vec<u64> = taker(&shelf, 0).into_iter().collect();
        taken.extend(other.join().unwrap());
        for home in homes {
            home.join().unwrap();
        }
        while let Some(stamp) = taker(&shelf, 0) {
            taken.push(stamp);
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_window_that_is_found_empty_while_it_fills_keeps_its_bit() {
    walk(4, || {
        let shelf: Arc<Shelf<()>> = Shelf::new(1, 2);
        shelf.lay_out(POOL, 0, Kind::Any, parcel(0, 1));
        let taker = thread::spawn({
            let shelf = Arc::clone(&shelf);
            move || {
                let mut taken = 0;
                for _ in 0..2 {
                    taken += u32::from(shelf.take(POOL, 0, Kind::Any, CoreId(0)).is_some());
                    let _ = shelf.head(POOL, false, CoreId(1), || ()); // clears the bit of an empty window
                }
                taken
            }
        });
        shelf.lay_out(POOL, 0, Kind::Any, parcel(0, 2));
        let taken = taker.join().unwrap();
        let left = u32::from(shelf.head(POOL, false, CoreId(1), || ()).is_some());
        assert_eq!(taken + left, 2, "what is left is seen");
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_client_that_leaves_while_its_request_is_taken_leaves_no_letter_behind() {
    walk(4, || {
        let shelf: Arc<Shelf<Mail<Arc<()>>>> = Shelf::new(1, 2);
        let letter = Arc::new(());
        let request = Arc::new(Parcel::new(CoreId(0), 1, 1, 1, Mail::new()));
        shelf.lay_out(POOL, 0, Kind::Any, Arc::clone(&request));
        let taker = thread::spawn({
            let (shelf, letter) = (Arc::clone(&shelf), Arc::clone(&letter));
            move || match shelf.take(POOL, 0, Kind::Any, CoreId(0)) {
                // The taker keeps the parcel as long as the request runs.
                Some(parcel) => (true, Some((parcel.what.put(letter).is_ok(), parcel))),
                None => (false, None),
            }
        });
        let has_left = request.withdraw();
        if !has_left {
            request.what.leave();
        }
        let (was_taken, run) = taker.join().unwrap();
        assert!(has_left != was_taken, "one of the two");
        assert_eq!(Arc::strong_count(&letter), 1, "nobody holds what nobody reads");
        drop(run);
    });
}

// ---- dispatch ----

/// A core with a home to sleep in, a dispatcher, and the keys and parcels that its links got.
struct Core {
    dispatcher: Dispatcher<(), u32>,
    hands: Hands,
    home: Home<()>,
    bell: Arc<Bell>,
}

struct Hands {
    posts: Arc<[Post<()>]>,
    grants: Vec<Grant>,
    served: u32,
}

impl Host<(), u32> for Hands {
    fn granted(&mut self, granted: Granted<(), u32>) {
        let (Granted::Own { grant, .. } | Granted::Foreign { grant, .. }) = granted;
        self.grants.push(grant);
        self.served += 1;
    }

    fn ring(&mut self, core: CoreId) {
        self.posts[usize::from(core.0)].look();
    }

    fn last_link_left(&mut self, _: PoolId) {}
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

struct Plan {
    shared: Arc<Shared<()>>,
    posts: Arc<[Post<()>]>,
    bells: Vec<Arc<Bell>>,
}

fn plan(cores: usize, concurrency_max: usize) -> Plan {
    let rules = vec![PoolRules { per_link_max: 9, concurrency_max, ageing: None }];
    let bells: Vec<Arc<Bell>> = (0..cores).map(|_| Arc::new(Bell::default())).collect();
    let ring = |bell: &Arc<Bell>| {
        let bell = Arc::clone(bell);
        let ring = move || {
            *bell.rung.lock().unwrap() = true;
            bell.changed.notify_one();
        };
        Post::new(1, Arc::new(ring), at_once)
    };
    Plan { shared: Arc::new(Shared::new(rules, cores)), posts: bells.iter().map(ring).collect(), bells }
}

impl Plan {
    fn core(&self, core: u16) -> impl FnOnce() -> Core + Send + use<> {
        let (shared, posts) = (Arc::clone(&self.shared), Arc::clone(&self.posts));
        let bell = Arc::clone(&self.bells[usize::from(core)]);
        move || Core {
            dispatcher: Dispatcher::new(CoreId(core), shared),
            home: posts[usize::from(core)].move_in(),
            hands: Hands { posts, grants: Vec::new(), served: 0 },
            bell,
        }
    }
}

impl Core {
    fn link(&mut self, credits: u32) {
        self.link_that_carries(credits, false);
    }

    fn link_that_carries(&mut self, credits: u32, upgrades: bool) {
        let facts = LinkFacts { pools: vec![POOL], carries_upgrades: upgrades };
        let link = self.dispatcher.link_up(facts, &mut self.hands);
        self.dispatcher.link_credits(link, credits, upgrades, Now(0), &mut self.hands);
    }

    /// Offers a request, which goes straight to a link or waits.
    fn request(&mut self, class: u8) {
        let facts = Facts { pool: POOL, class: Class::of(class), needs: Needs::Any, stamp: Now(1) };
        match self.dispatcher.offer(facts) {
            Some(grant) => {
                self.hands.grants.push(grant);
                self.hands.served += 1;
            }
            None => _ = self.dispatcher.wait(facts, (), 0, Now(1), &mut self.hands),
        }
    }

    fn release_all(&mut self) {
        while let Some(Grant { link, pool, permit, .. }) = self.hands.grants.pop() {
            self.dispatcher.release(link, pool, permit, || Now(2), &mut self.hands);
        }
    }

    /// The bell task of this core until its links have served so many. Sleeps when nothing is there; loom calls it a
    /// deadlock if nobody rings.
    fn serve_until(&mut self, served: u32) {
        loop {
            if self.home.take_look() {
                self.dispatcher.look(Now(3), &mut self.hands);
            }
            if self.hands.served >= served {
                return;
            }
            if self.home.prepare_to_sleep() {
                self.bell.wait();
            }
            self.home.awake();
        }
    }
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_request_and_a_credit_that_come_at_the_same_moment_meet() {
    walk(6, meet);
}

#[cfg(ptth_broken_fence)]
#[test]
#[should_panic(expected = "deadlock")]
fn without_its_fence_a_request_and_a_credit_pass_each_other() {
    walk(6, meet);
}

/// One core gets a request, the other a credit; nobody else wakes either of them.
fn meet() {
    let plan = plan(2, 0);
    let home = plan.core(0);
    let other = thread::spawn(move || home().request(3));
    let mut core = plan.core(1)();
    core.link(1);
    core.serve_until(1);
    other.join().unwrap();
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_core_with_two_credits_serves_both_requests_of_one_home() {
    walk(4, || {
        let plan = plan(2, 0);
        let home = plan.core(0);
        let other = thread::spawn(move || {
            let mut core = home();
            core.request(3);
            core.request(3); // while the other core finds the first one's window empty
        });
        let mut core = plan.core(1)();
        core.link(2);
        core.serve_until(2);
        other.join().unwrap();
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_credit_that_comes_back_takes_what_has_just_come_on_another_core() {
    walk(4, || {
        let plan = plan(2, 0);
        let home = plan.core(0);
        let mut core = plan.core(1)();
        core.link(1);
        core.request(3);
        let other = thread::spawn(move || home().request(2));
        core.release_all();
        core.serve_until(2);
        other.join().unwrap();
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_permit_that_comes_back_is_not_slept_over() {
    walk(4, || {
        let plan = plan(2, 1);
        let home = plan.core(0);
        let mut core = plan.core(1)();
        core.link(2);
        core.request(3); // takes the only permit; a credit is left over
        let other = thread::spawn(move || home().request(2));
        core.release_all();
        core.serve_until(2);
        other.join().unwrap();
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_permit_that_was_taken_for_nothing_is_not_slept_over() {
    walk(3, || {
        let plan = plan(3, 1);
        let facts = Facts { pool: POOL, class: Class::of(3), needs: Needs::Any, stamp: Now(1) };
        // A request whose client has left lies there when a plain credit comes, and takes the only permit for it.
        let dead = parcel(0, 1);
        assert!(dead.withdraw());
        plan.shared.shelf.lay_out(POOL, 3, Kind::Any, dead);
        let plain = plan.core(0);
        let plain = thread::spawn(move || plain().link(1));
        // In this moment core 1 gets an upgrade, which only the credit of core 2 can carry.
        let home = plan.core(1);
        let home = thread::spawn(move || {
            let mut core = home();
            let facts = Facts { needs: Needs::Upgrade, ..facts };
            core.dispatcher.wait(facts, (), 0, Now(1), &mut core.hands);
        });
        let mut carrier = plan.core(2)();
        carrier.link_that_carries(1, true);
        carrier.serve_until(1);
        plain.join().unwrap();
        home.join().unwrap();
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn two_homes_and_one_core_that_sleeps_with_two_credits() {
    walk(3, || {
        let plan = plan(3, 0);
        let homes = [0, 1].map(|core| plan.core(core)).map(|home| thread::spawn(move || home().request(3)));
        let mut core = plan.core(2)();
        core.link(2);
        core.serve_until(2);
        for home in homes {
            home.join().unwrap();
        }
    });
}

#[cfg(not(ptth_broken_fence))]
#[test]
fn a_core_that_was_asked_in_vain_asks_the_other() {
    walk(3, || {
        let plan = plan(3, 0);
        // Core 1 has a credit, says so, and uses it up: its bit is stale when core 0 asks it.
        let mut stale = plan.core(1)();
        stale.link(1);
        stale.request(3);
        let home = plan.core(0);
        let home = thread::spawn(move || home().request(3));
        let idle = plan.core(2);
        let idle = thread::spawn(move || {
            let mut core = idle();
            core.link(1);
            core.serve_until(1);
        });
        // Core 1 turns as long as somebody may still ask it.
        home.join().unwrap();
        if stale.home.take_look() {
            stale.dispatcher.look(Now(3), &mut stale.hands);
        }
        idle.join().unwrap();
    });
}
