//! How much to take, found out from how long the server takes: a gradient of its latency, in the manner of Netflix's
//! concurrency-limits. What is taken then, and from whom, never enters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::config::Adaptive;
use super::places::Places;
use super::shares::Shares;
use crate::clock::{self, Now};
use crate::limits::{ADAPT_PROBE_WINDOWS, ADAPT_SAMPLES_MIN, ADAPT_WINDOW_MS};

/// Latency above that of a server with little to do that is no sign of a queue in it.
const TOLERANCE: f64 = 1.2;
/// Of what a window says, so much goes into the limit; what one window says is partly chance.
const SMOOTHING: f64 = 0.2;
/// Of what a probe says, so much goes into the base.
const BASE_SMOOTHING: f64 = 0.3;
/// A probe below this part of the base says that the base was no base yet, and counts for more.
const BASE_FOUND: f64 = 0.8;
const BASE_LOWER: f64 = 0.6;
/// A window in which the server was faster than ever goes into the base, too, but may be chance.
const BASE_FASTER: f64 = 0.1;
/// A probe takes half of the limit: below the knee, if the limit is near it.
const PROBE_SHARE: f64 = 0.5;

/// What a server did for a while.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// From a request's dispatch to its response's head, on average.
    pub mean_ns: f64,
    /// Requests that it had at once, at most.
    pub in_flight_max: u32,
}

/// The limit, from window to window.
///
/// ```text
/// Running --every ADAPT_PROBE_WINDOWS--> Emptying (half of the limit) --one window--> Probing --one window--> Running
/// ```
/// The base is what the server takes when it has little to do, and is measured anew in every probe: a server that became
/// slower for good is not taken for a full one. Where even half of the limit fills the server, the base is too high; but then it
/// is half of what a whole one takes, and the limit falls until it is not.
#[derive(Clone, Debug)]
pub struct Gradient {
    bounds: Adaptive,
    limit: f64,
    base_ns: f64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running { left: u32 },
    Emptying,
    Probing,
}

impl Gradient {
    /// The first probe comes soon: nothing is known yet.
    pub fn new(bounds: Adaptive, start: u32) -> Gradient {
        let limit = f64::from(start.clamp(bounds.min, bounds.max));
        Gradient { bounds, limit, base_ns: 0.0, state: State::Running { left: ADAPT_PROBE_WINDOWS / 10 } }
    }

    /// The limit for the next window.
    pub fn after(&mut self, window: Window) -> u32 {
        if self.base_ns == 0.0 {
            self.base_ns = window.mean_ns;
        }
        self.state = match self.state {
            State::Running { left } => {
                self.run(window);
                match left.checked_sub(1) {
                    Some(left) => State::Running { left },
                    None => State::Emptying,
                }
            }
            State::Emptying => State::Probing, // what was there before was still there
            State::Probing => {
                // Half of the limit filled the server, too, when the base was measured: the next probe comes sooner.
                let is_found = window.mean_ns > BASE_FOUND * self.base_ns;
                let smoothing = if is_found { BASE_SMOOTHING } else { BASE_LOWER };
                self.base_ns += smoothing * (window.mean_ns - self.base_ns);
                State::Running { left: if is_found { ADAPT_PROBE_WINDOWS } else { ADAPT_PROBE_WINDOWS / 5 } }
            }
        };
        let limit = match self.state {
            State::Running { .. } => self.limit,
            State::Emptying | State::Probing => self.limit * PROBE_SHARE,
        };
        // Between bounds that are u32.
        (limit.round() as u32).clamp(self.bounds.min, self.bounds.max)
    }

    fn run(&mut self, window: Window) {
        if window.mean_ns < self.base_ns {
            self.base_ns += BASE_FASTER * (window.mean_ns - self.base_ns);
        }
        // Half of what it may have is no test of all of it.
        if f64::from(window.in_flight_max) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.base_ns / window.mean_ns).clamp(0.5, 1.0);
        // The root is room to find out whether more is better, and the queue that keeps the server busy.
        let wanted = self.limit * gradient + self.limit.sqrt();
        self.limit += SMOOTHING * (wanted - self.limit);
        self.limit = self.limit.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max));
    }
}

/// Measures windows, and has the limit of each one taken.
pub struct Tuner {
    places: Rc<Places>,
    shares: Rc<Shares>,
    gradient: RefCell<Option<Gradient>>,
    since: Cell<Now>,
    sum_ns: Cell<u64>,
    samples: Cell<u32>,
    in_flight_max: Cell<u32>,
}

impl Tuner {
    pub fn new(places: Rc<Places>, shares: Rc<Shares>) -> Tuner {
        Tuner {
            places,
            shares,
            gradient: RefCell::new(None),
            since: Cell::new(Now::default()),
            sum_ns: Cell::new(0),
            samples: Cell::new(0),
            in_flight_max: Cell::new(0),
        }
    }

    /// From now on `concurrency`, and no other, or where it leads from there.
    pub fn set(&self, concurrency: u32, adaptive: Option<Adaptive>) {
        self.gradient.replace(adaptive.map(|bounds| Gradient::new(bounds, concurrency)));
        self.begin();
        self.take(concurrency);
    }

    fn take(&self, concurrency: u32) {
        self.places.set_limit(concurrency);
        self.shares.set_concurrency(concurrency);
    }

    fn begin(&self) {
        self.since.set(clock::now());
        self.sum_ns.set(0);
        self.samples.set(0);
        self.in_flight_max.set(0);
    }

    /// Somebody listens to [`Tuner::answered`].
    pub fn is_on(&self) -> bool {
        self.gradient.borrow().is_some()
    }

    /// A request that was dispatched then has its response's head now.
    pub fn answered(&self, dispatched: Now) {
        let now = clock::now();
        self.sum_ns.set(self.sum_ns.get().saturating_add(now.0.saturating_sub(dispatched.0)));
        self.samples.set(self.samples.get() + 1);
        self.in_flight_max.set(self.in_flight_max.get().max(self.places.taken()));
        let is_over = now.ms_since(self.since.get()) >= ADAPT_WINDOW_MS && self.samples.get() >= ADAPT_SAMPLES_MIN;
        if !is_over {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // a window of more than a hundred days loses nanoseconds
        let mean_ns = self.sum_ns.get() as f64 / f64::from(self.samples.get());
        let window = Window { mean_ns, in_flight_max: self.in_flight_max.get() };
        let limit = self.gradient.borrow_mut().as_mut().map(|gradient| gradient.after(window));
        if let Some(limit) = limit {
            tracing::debug!(limit, mean_ms = mean_ns / 1e6, "concurrency follows the server");
            self.take(limit);
        }
        self.begin();
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    const BOUNDS: Adaptive = Adaptive { min: 1, max: 1_000 };
    const MS: u64 = 1_000_000;

    /// The splitmix64 generator.
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// Exponential.
        fn service_ns(&mut self, mean_ns: f64) -> u64 {
            (-(1.0 - self.next()).ln() * mean_ns) as u64
        }
    }

    /// A server with so many hands, in virtual time, that has as many requests as the limit allows, or as there are.
    struct Server {
        chance: Chance,
        gradient: Gradient,
        limit: u32,
        hands: usize,
        mean_ns: f64,
        /// Requests that clients have at once.
        demand: u32,
        now: u64,
        /// Ends and arrivals of what is worked on.
        busy: BinaryHeap<Reverse<(u64, u64)>>,
        waiting: VecDeque<u64>,
    }

    impl Server {
        fn new(seed: u64, start: u32, hands: usize) -> Server {
            Server {
                chance: Chance(seed),
                gradient: Gradient::new(BOUNDS, start),
                limit: start,
                hands,
                mean_ns: 50.0 * MS as f64,
                demand: u32::MAX,
                now: 0,
                busy: BinaryHeap::new(),
                waiting: VecDeque::new(),
            }
        }

        fn in_flight(&self) -> u32 {
            (self.busy.len() + self.waiting.len()) as u32
        }

        fn fill(&mut self) {
            while self.in_flight() < self.limit.min(self.demand) {
                self.waiting.push_back(self.now);
            }
            while self.busy.len() < self.hands
                && let Some(arrived) = self.waiting.pop_front()
            {
                let ends = self.now + self.chance.service_ns(self.mean_ns);
                self.busy.push(Reverse((ends, arrived)));
            }
        }

        /// Runs so many windows; the limits that came of them.
        fn run(&mut self, windows: usize) -> Vec<u32> {
            let mut limits = Vec::new();
            for _ in 0..windows {
                let (since, mut sum, mut samples, mut most) = (self.now, 0, 0u32, 0);
                while self.now - since < ADAPT_WINDOW_MS * MS || samples < ADAPT_SAMPLES_MIN {
                    self.fill();
                    most = most.max(self.in_flight());
                    let Reverse((ends, arrived)) = self.busy.pop().expect("there is always one");
                    self.now = ends;
                    sum += ends - arrived;
                    samples += 1;
                }
                let window = Window { mean_ns: sum as f64 / f64::from(samples), in_flight_max: most };
                self.limit = self.gradient.after(window);
                limits.push(self.limit);
            }
            limits
        }

        /// The mean of the limits of the last half of so many windows, by the number of hands: 1 is the knee.
        fn settles(&mut self, windows: usize) -> f64 {
            let limits = self.run(windows);
            let last = &limits[windows / 2..];
            last.iter().sum::<u32>() as f64 / last.len() as f64 / self.hands as f64
        }
    }

    #[test]
    fn the_limit_comes_near_the_knee_from_below_and_from_above() {
        for seed in 0..5 {
            for (start, hands) in [(1, 8), (1, 40), (64, 8), (64, 40), (1_000, 40), (10, 200)] {
                let settled = Server::new(seed, start, hands).settles(600);
                assert!((0.9..2.5).contains(&settled), "seed {seed}, from {start}: {settled} times {hands}");
            }
        }
    }

    #[test]
    fn the_limit_follows_a_server_that_loses_hands_and_gets_them_back() {
        for seed in 0..5 {
            let mut server = Server::new(seed, 20, 80);
            server.run(300);
            for hands in [20, 80] {
                server.hands = hands;
                let settled = server.settles(600);
                assert!((0.9..2.5).contains(&settled), "seed {seed}: {settled} times {hands}");
            }
        }
    }

    #[test]
    fn a_server_that_becomes_slower_for_good_is_not_taken_for_a_full_one() {
        for seed in 0..5 {
            let mut server = Server::new(seed, 20, 40);
            server.run(300);
            for slower in [3.0, 1.0 / 3.0] {
                server.mean_ns *= slower;
                let settled = server.settles(1_200);
                assert!((0.9..2.5).contains(&settled), "seed {seed}, times {slower}: {settled} times 40");
            }
        }
    }

    #[test]
    fn a_server_that_is_asked_for_little_keeps_its_limit() {
        let mut server = Server::new(1, 50, 40);
        server.demand = 5;
        let limits = server.run(300);
        assert!(limits.iter().all(|limit| (25..=50).contains(limit)), "{limits:?}");
    }

    #[test]
    fn the_limit_stays_within_its_bounds_whatever_comes() {
        let mut chance = Chance(7);
        let bounds = Adaptive { min: 3, max: 30 };
        let mut gradient = Gradient::new(bounds, 100);
        for _ in 0..100_000 {
            let window = Window { mean_ns: 1.0 + chance.next() * 1e12, in_flight_max: (chance.next() * 1e4) as u32 };
            let limit = gradient.after(window);
            assert!((3..=30).contains(&limit), "{limit}");
        }
    }
}
