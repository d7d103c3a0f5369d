//! What waits on each core, laid out for all: a window on the head of every lane, and words that say which windows hold
//! something. Any core takes from any window, without asking and without a lock. What a request is, and which one a credit
//! should take, never enters.
//!
//! One core lays out in a window (its home), everybody takes. A request in a window is taken once: popping it is the claim
//! among takers, and one state decides between the taker and a client that leaves ([`Parcel::claim`]).

use super::bell::ones;
use super::sync::{ArrayQueue, AtomicU32, AtomicU64, Ordering, fence};
use crate::ids::{CoreId, PoolId};
use crate::limits::WINDOW_REQUESTS;
use crossbeam_utils::CachePadded;
use std::sync::{Arc, OnceLock};

/// Requests that one window holds. loom walks few.
const WINDOW: usize = if cfg!(loom) { 2 } else { WINDOW_REQUESTS };

/// Words of one pool and kind of lane: one for each class, all in one cache line.
const CLASSES: usize = 8;

/// A waiting request as every core may hold it.
pub struct Parcel<T> {
    /// Partners: the compare-exchanges of the taker and of the home, each from `WAITS`. AcqRel: whoever wins sees all that
    /// was written before; the payload itself was published by the window's queue.
    state: AtomicU32,
    /// The home core, and the request's number there.
    pub home: CoreId,
    pub number: u64,
    /// Nanoseconds: its first arrival, and when it was offered this time.
    pub stamp_ns: u64,
    pub offered_ns: u64,
    pub what: T,
}

const WAITS: u32 = 0;
const CLAIMED: u32 = 1;
const LEFT: u32 = 2;

impl<T> Parcel<T> {
    #[must_use]
    pub fn new(home: CoreId, number: u64, stamp_ns: u64, offered_ns: u64, what: T) -> Parcel<T> {
        Parcel { state: AtomicU32::new(WAITS), home, number, stamp_ns, offered_ns, what }
    }

    /// A core takes it for its link. False: its client has left. Once for each pop.
    #[must_use]
    pub fn claim(&self) -> bool {
        self.leave_waiting(CLAIMED)
    }

    /// Its client leaves. False: a core has claimed it.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.leave_waiting(LEFT)
    }

    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITS
    }

    fn leave_waiting(&self, to: u32) -> bool {
        self.state.compare_exchange(WAITS, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// All windows of all cores. One for the whole edge.
pub struct Shelf<T> {
    cores: usize,
    pools: Box<[PoolShelf<T>]>,
}

struct PoolShelf<T> {
    /// For each kind of lane a line of words, one for each class, a bit in it for each core whose window may hold
    /// something. Written on transitions only: while a pool has waiting requests its bits stand, and while it has none
    /// every core reads a line that nobody writes.
    ///
    /// Partners, in the manner of Dekker: `lay_out` pushes, fences and looks at the bit; `tidy` clears the bit, fences and
    /// looks at the queue. One of the two sees the other. Whoever looks for work reads the words behind a fence of its own
    /// (`Board::publish_idle`).
    words: [CachePadded<[AtomicU64; CLASSES]>; 2],
    /// By core, made when it first lays something out.
    windows: Box<[OnceLock<Windows<T>>]>,
}

/// One core's windows of one pool, by class and kind.
type Windows<T> = Box<[Window<T>]>;

struct Window<T> {
    queue: ArrayQueue<Arc<Parcel<T>>>,
    /// Stamps of what is in the queue, by the number of its push; a hint for whoever compares heads. Partners: written by
    /// the home before the push, read by everybody. Relaxed: a stale stamp costs one wrong choice among equals.
    stamps: Box<[AtomicU64]>,
    /// Pushes, counted before they happen (by the home), and pops, counted after (by everybody). Relaxed, as the stamps.
    pushes: AtomicU64,
    pops: CachePadded<AtomicU64>,
}

/// Which kind of lane: requests that every link can serve, or those that only some can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Any = 0,
    Upgrade = 1,
}

/// The head of a window, as far as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub class: usize,
    pub kind: Kind,
    pub core: CoreId,
    pub stamp_ns: u64,
}

impl<T> Shelf<T> {
    #[must_use]
    pub fn new(pools: usize, cores: usize) -> Arc<Shelf<T>> {
        assert!(cores <= 64, "a word has a bit for each core");
        let pools = (0..pools).map(|_| PoolShelf::new(cores)).collect();
        Arc::new(Shelf { cores, pools })
    }

    // ---- at home ----

    /// There is room in a window. Its home alone asks, and alone fills it.
    #[must_use]
    pub fn has_room(&self, pool: PoolId, class: usize, kind: Kind, home: CoreId) -> bool {
        !self.window_of(pool, class, kind, home).queue.is_full()
    }

    /// Puts a request behind what its home's window holds; there is room, and it is younger than all of that. The caller
    /// looks for idle credits afterwards, its own and on the board.
    pub fn lay_out(&self, pool: PoolId, class: usize, kind: Kind, parcel: Arc<Parcel<T>>) {
        let home = parcel.home;
        let window = self.window_of(pool, class, kind, home);
        let number = window.pushes.load(Ordering::Relaxed);
        window.stamps[slot(number)].store(parcel.stamp_ns, Ordering::Relaxed);
        window.pushes.store(number + 1, Ordering::Relaxed);
        let pushed = window.queue.push(parcel);
        assert!(pushed.is_ok(), "one core fills a window, and it saw room");
        publish(); // partner: the fence in `tidy`, and the one between an idle bit and the look that follows it
        let word = &self.word(pool, class, kind);
        if word.load(Ordering::Relaxed) & bit(home) == 0 {
            word.fetch_or(bit(home), Ordering::AcqRel);
            publish(); // partner: as above; the bit is before whatever the caller looks at next
        }
    }

    // ---- everywhere ----

    /// Takes the oldest request of a window. `None`: the window was empty, or its oldest one had been withdrawn and is dropped.
    /// What lies behind that may be younger than what other windows hold, so the caller looks at the heads again; each
    /// time a window holds one less.
    #[must_use]
    pub fn take(&self, pool: PoolId, class: usize, kind: Kind, core: CoreId) -> Option<Arc<Parcel<T>>> {
        let parcel = self.window(pool, class, kind, core)?.pop()?;
        parcel.claim().then_some(parcel)
    }

    /// Takes everything out of a window of one's own, oldest first, whether it still waits or not.
    pub fn recall(&self, pool: PoolId, class: usize, kind: Kind, home: CoreId) -> impl Iterator<Item = Arc<Parcel<T>>> {
        let window = self.window(pool, class, kind, home);
        std::iter::from_fn(move || window?.pop())
    }

    /// The most urgent, and among equals the oldest, request that waits on any core; `here` first among equal stamps.
    /// `upgrades`: those that need a link which carries them, too. `None`: nothing was there, or what was there is being
    /// taken. `tidied` hears of windows whose bit was cleared and had to be set again: whoever has an idle credit may have
    /// looked in between.
    pub fn head(&self, pool: PoolId, upgrades: bool, here: CoreId, mut tidied: impl FnMut()) -> Option<Head> {
        for class in 0..CLASSES {
            let mut oldest: Option<Head> = None;
            for kind in kinds(upgrades) {
                let cores = self.word(pool, class, *kind).load(Ordering::Relaxed); // partner: `lay_out`, `tidy`
                for core in ones(cores).map(core_id) {
                    let Some(stamp_ns) = self.head_stamp(pool, class, *kind, core) else {
                        if self.tidy(pool, class, *kind, core) {
                            tidied();
                        }
                        continue;
                    };
                    let head = Head { class, kind: *kind, core, stamp_ns };
                    if oldest.is_none_or(|other| (stamp_ns, core != here) < (other.stamp_ns, other.core != here)) {
                        oldest = Some(head);
                    }
                }
            }
            if oldest.is_some() {
                return oldest;
            }
        }
        None
    }

    /// Something at least as urgent as `class` seems to wait somewhere.
    #[must_use]
    pub fn waits(&self, pool: PoolId, class: usize, upgrades: bool) -> bool {
        let any = |kind: &Kind| {
            self.pool(pool).words[*kind as usize][..=class].iter().any(|word| word.load(Ordering::Relaxed) != 0)
        };
        kinds(upgrades).iter().any(any)
    }

    /// Some request of this kind lies in a window, though its client may have left. Looks into the windows, because a bit
    /// stands until a core with a credit finds nothing there.
    #[must_use]
    pub fn waits_for(&self, pool: PoolId, kind: Kind) -> bool {
        (0..CLASSES).any(|class| {
            let cores = ones(self.word(pool, class, kind).load(Ordering::Relaxed)).map(core_id);
            cores.filter_map(|core| self.window(pool, class, kind, core)).any(|window| !window.queue.is_empty())
        })
    }

    /// Something more urgent than `class` has waited somewhere since `before_ns`.
    #[must_use]
    pub fn waited(&self, pool: PoolId, class: usize, upgrades: bool, before_ns: u64) -> bool {
        (0..class).any(|class| {
            kinds(upgrades).iter().any(|kind| {
                ones(self.word(pool, class, *kind).load(Ordering::Relaxed))
                    .any(|core| self.head_stamp(pool, class, *kind, core_id(core)).is_some_and(|ns| ns < before_ns))
            })
        })
    }

    // ---- helpers ----

    fn pool(&self, pool: PoolId) -> &PoolShelf<T> {
        &self.pools[usize::from(pool.0)]
    }

    fn word(&self, pool: PoolId, class: usize, kind: Kind) -> &AtomicU64 {
        &self.pool(pool).words[kind as usize][class]
    }

    fn window(&self, pool: PoolId, class: usize, kind: Kind, core: CoreId) -> Option<&Window<T>> {
        debug_assert!(usize::from(core.0) < self.cores, "no such core");
        let windows = self.pool(pool).windows.get(usize::from(core.0))?.get()?;
        windows.get(class * 2 + kind as usize)
    }

    /// A window of its home, made if there is none.
    fn window_of(&self, pool: PoolId, class: usize, kind: Kind, home: CoreId) -> &Window<T> {
        let windows = self.pool(pool).windows[usize::from(home.0)].get_or_init(Window::of_all_lanes);
        &windows[class * 2 + kind as usize]
    }

    fn head_stamp(&self, pool: PoolId, class: usize, kind: Kind, core: CoreId) -> Option<u64> {
        let window = self.window(pool, class, kind, core)?;
        if window.queue.is_empty() {
            return None;
        }
        Some(window.stamps[slot(window.pops.load(Ordering::Relaxed))].load(Ordering::Relaxed))
    }

    /// Clears the bit of a window that was found empty. True: it was not empty any more, and the bit stands again.
    fn tidy(&self, pool: PoolId, class: usize, kind: Kind, core: CoreId) -> bool {
        let word = self.word(pool, class, kind);
        if word.fetch_and(!bit(core), Ordering::AcqRel) & bit(core) == 0 {
            return false; // another core was faster, and looks behind itself
        }
        fence(Ordering::SeqCst); // partner: the fence in `lay_out`
        let Some(window) = self.window(pool, class, kind, core) else { return false };
        if window.queue.is_empty() {
            return false;
        }
        word.fetch_or(bit(core), Ordering::AcqRel);
        fence(Ordering::SeqCst); // partner: the fence behind an idle bit; the caller looks for idle credits next
        true
    }
}

impl<T> PoolShelf<T> {
    fn new(cores: usize) -> PoolShelf<T> {
        let line = || CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let windows: Box<[OnceLock<Windows<T>>]> = (0..cores).map(|_| OnceLock::new()).collect();
        if cfg!(loom) {
            windows.iter().for_each(|core| _ = core.set(Window::of_all_lanes())); // loom knows nothing of OnceLock
        }
        PoolShelf { words: [line(), line()], windows }
    }
}

impl<T> Window<T> {
    fn new() -> Window<T> {
        Window {
            queue: ArrayQueue::new(WINDOW),
            stamps: (0..WINDOW).map(|_| AtomicU64::new(0)).collect(),
            pushes: AtomicU64::new(0),
            pops: CachePadded::new(AtomicU64::new(0)),
        }
    }

    fn of_all_lanes() -> Windows<T> {
        (0..CLASSES * 2).map(|_| Window::new()).collect()
    }

    fn pop(&self) -> Option<Arc<Parcel<T>>> {
        let parcel = self.queue.pop()?;
        self.pops.fetch_add(1, Ordering::Relaxed);
        Some(parcel)
    }
}

/// The fence between what a home lays out and what it looks at next. loom is shown what happens without it.
fn publish() {
    if !cfg!(ptth_broken_fence) {
        fence(Ordering::SeqCst);
    }
}

fn kinds(upgrades: bool) -> &'static [Kind] {
    if upgrades { &[Kind::Any, Kind::Upgrade] } else { &[Kind::Any] }
}

/// Where the stamp of the push (or pop) with this number stands.
fn slot(number: u64) -> usize {
    usize::try_from(number % WINDOW as u64).expect("smaller than a window")
}

fn bit(core: CoreId) -> u64 {
    1 << core.0
}

fn core_id(core: usize) -> CoreId {
    CoreId(u16::try_from(core).expect("fewer cores than numbers"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId(1);

    fn parcel(home: u16, stamp_ns: u64) -> Arc<Parcel<()>> {
        Arc::new(Parcel::new(CoreId(home), stamp_ns, stamp_ns, stamp_ns, ()))
    }

    fn head(shelf: &Shelf<()>, upgrades: bool, here: u16) -> Option<(usize, u16, u64)> {
        let head = shelf.head(POOL, upgrades, CoreId(here), || panic!("nobody else is here"))?;
        Some((head.class, head.core.0, head.stamp_ns))
    }

    #[test]
    fn the_most_urgent_head_is_found_then_the_oldest_then_ones_own() {
        let shelf = Shelf::new(2, 3);
        assert_eq!(head(&shelf, true, 0), None);
        shelf.lay_out(POOL, 5, Kind::Any, parcel(0, 10));
        shelf.lay_out(POOL, 5, Kind::Any, parcel(1, 9));
        shelf.lay_out(POOL, 5, Kind::Any, parcel(2, 9));
        assert_eq!(head(&shelf, true, 0), Some((5, 1, 9)));
        assert_eq!(head(&shelf, true, 2), Some((5, 2, 9)), "its own among equals");
        shelf.lay_out(POOL, 2, Kind::Upgrade, parcel(0, 20));
        assert_eq!(head(&shelf, false, 0), Some((5, 1, 9)), "no link here carries it");
        assert_eq!(head(&shelf, true, 0), Some((2, 0, 20)));
        assert!(shelf.waits(POOL, 2, true) && !shelf.waits(POOL, 2, false) && !shelf.waits(POOL, 1, true));
        assert!(shelf.waits(POOL, 5, false) && !shelf.waits(PoolId(0), 7, true));
        assert!(
            shelf.waited(POOL, 5, true, 21) && !shelf.waited(POOL, 5, true, 20) && !shelf.waited(POOL, 2, true, 99)
        );
    }

    #[test]
    fn what_was_withdrawn_is_passed_over_and_leaves_no_bit() {
        let shelf = Shelf::new(2, 1);
        let (gone, stays) = (parcel(0, 1), parcel(0, 2));
        shelf.lay_out(POOL, 3, Kind::Any, gone.clone());
        shelf.lay_out(POOL, 3, Kind::Any, stays.clone());
        assert!(gone.withdraw() && !gone.claim() && !gone.withdraw());
        assert!(
            shelf.take(POOL, 3, Kind::Any, CoreId(0)).is_none(),
            "whoever is behind it may not be the oldest of all"
        );
        let taken = shelf.take(POOL, 3, Kind::Any, CoreId(0)).expect("one waits");
        assert_eq!(taken.stamp_ns, 2);
        assert!(!stays.withdraw(), "it was claimed");
        assert!(shelf.waits(POOL, 3, false), "the bit stands until somebody looks");
        assert_eq!(head(&shelf, false, 0), None);
        assert!(!shelf.waits(POOL, 7, true));
    }

    #[test]
    fn a_window_holds_so_many_in_order_and_gives_them_back() {
        let shelf = Shelf::new(2, 1);
        for round in 0..3 {
            let mut stamp = round * 1000;
            while shelf.has_room(POOL, 0, Kind::Any, CoreId(0)) {
                shelf.lay_out(POOL, 0, Kind::Any, parcel(0, stamp));
                assert_eq!(head(&shelf, false, 0), Some((0, 0, round * 1000)));
                stamp += 1;
            }
            assert_eq!(stamp, round * 1000 + WINDOW_REQUESTS as u64);
            let first = shelf.take(POOL, 0, Kind::Any, CoreId(0)).expect("a full window");
            assert_eq!(first.stamp_ns, round * 1000);
            let back: Vec<u64> = shelf.recall(POOL, 0, Kind::Any, CoreId(0)).map(|parcel| parcel.stamp_ns).collect();
            assert_eq!(back, (round * 1000 + 1..stamp).collect::<Vec<_>>());
        }
    }
}
