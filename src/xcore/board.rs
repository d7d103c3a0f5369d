//! What cores tell each other without asking: which of them have links of a pool, and how many. No request and no link enters, only counts and bits.
//!
//! Links come and go rarely, so nothing here is padded but the words that every request without a local link reads.

use super::bell::ones;
use super::shelf::Kind;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::ids::{CoreId, PoolId};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// One for the whole edge.
pub struct Board {
    cores: usize,
    /// For each pool, a bit for each core that has a link of it.
    linked: CoreSets,
    /// By [`Kind`], and for each pool: a bit for each core that had an idle credit when it last looked for work.
    idle: [CoreSets; 2],
    /// For each pool, a bit for each core that has a link of it which carries upgrades.
    carriers: CoreSets,
    /// For each pool, a bit for each core that has a link of it which has not said yet what it takes and carries.
    undecided: CoreSets,
    /// Credits by pool and core, idle or not, and 1 for each link that is on its way or has none yet. Written by `place`
    /// and by the link's own core. Partner: `place` on other cores; relaxed, and two cores that place at the same moment
    /// may choose the same target.
    placed: Box<[AtomicU32]>,
}

/// A link's place on a core, counted until this is dropped. It travels with the link.
pub struct Placement {
    board: Arc<Board>,
    pools: Box<[PoolId]>,
    core: CoreId,
    /// What it counts for in each of its pools.
    weight: u32,
}

impl Board {
    #[must_use]
    pub fn new(pools: usize, cores: usize) -> Arc<Board> {
        assert!(cores > 0, "an edge has at least one core");
        let placed = (0..pools * cores).map(|_| AtomicU32::new(0)).collect();
        let set = || CoreSets::new(pools, cores);
        Arc::new(Board { cores, linked: set(), idle: [set(), set()], carriers: set(), undecided: set(), placed })
    }

    // ---- links ----

    /// Whether core `core` has links of the pool that take requests, some that carry upgrades, and some that have not said
    /// yet what they take. That core alone calls this. True: the last link of the pool, over all cores, has just gone.
    pub fn publish_links(&self, core: CoreId, pool: PoolId, any: bool, carriers: bool, undecided: bool) -> bool {
        // Nobody may see a link of which neither is known yet, that it carries nothing or that it has not said: it would be
        // taken for one that cannot. Partner: the fence in `cannot_upgrade`.
        if undecided {
            self.undecided.publish(pool, core, true);
        }
        let was = self.linked.publish(pool, core, any);
        self.carriers.publish(pool, core, carriers);
        if !undecided {
            self.undecided.publish(pool, core, false);
        }
        was && !self.any_links(pool)
    }

    /// Whether some core has a link of the pool.
    #[must_use]
    pub fn any_links(&self, pool: PoolId) -> bool {
        self.linked.iter(pool).next().is_some()
    }

    /// The cores that have links of the pool, lowest first.
    pub fn linked_cores(&self, pool: PoolId) -> impl Iterator<Item = CoreId> {
        self.linked.iter(pool)
    }

    /// The pool has links, all of them have said what they carry, and none carries an upgrade.
    #[must_use]
    pub fn cannot_upgrade(&self, pool: PoolId) -> bool {
        let none = |set: &CoreSets| set.iter(pool).next().is_none();
        if !self.any_links(pool) {
            return false;
        }
        fence(Ordering::Acquire); // partner: the fences between the writes in `publish_links`
        let decided = none(&self.undecided);
        fence(Ordering::Acquire); // as above
        decided && none(&self.carriers)
    }

    // ---- idle credits ----

    /// Core `core` has an idle credit for the pool and kind, or has looked for one and found none. That core alone calls
    /// this, and only when it changes; a set bit may be stale, and costs one look for nothing. Ends with a SeqCst fence:
    /// after saying that it is idle, the core looks once more for what waits.
    pub fn publish_idle(&self, core: CoreId, pool: PoolId, kind: Kind, is_idle: bool) {
        self.idle[kind as usize].publish(pool, core, is_idle);
    }

    /// A core other than `here` that may have an idle credit for the pool: the next one behind `last`, in a circle. Asked for
    /// behind a fence that orders it after whatever the credit is for ([`super::Shelf::lay_out`]).
    #[must_use]
    pub fn idle_core(&self, pool: PoolId, kind: Kind, here: CoreId, last: CoreId) -> Option<CoreId> {
        let idle = || self.idle[kind as usize].iter(pool).filter(|core| *core != here);
        idle().find(|core| *core > last).or_else(|| idle().next())
    }

    // ---- placing links ----

    /// Chooses a core for a new link of these pools and counts it there at once, so that a burst of links spreads. The
    /// fewest credits win, where a link whose credits are not known yet (an h2 link announces them in its SETTINGS) counts
    /// as one. Among equals `here` wins, then the next ones in order.
    #[must_use]
    pub fn place(self: &Arc<Board>, pools: &[PoolId], here: CoreId) -> Placement {
        let core = self.core_with_fewest(pools, here);
        for &pool in pools {
            self.placed[self.cell(core, pool)].fetch_add(1, Ordering::Relaxed);
        }
        Placement { board: Arc::clone(self), pools: pools.into(), core, weight: 1 }
    }

    fn core_with_fewest(&self, pools: &[PoolId], here: CoreId) -> CoreId {
        let placed = |core: CoreId| -> u64 {
            pools.iter().map(|&pool| u64::from(self.placed[self.cell(core, pool)].load(Ordering::Relaxed))).sum()
        };
        let around = (0..self.cores).map(|step| core_id((usize::from(here.0) + step) % self.cores));
        around.min_by_key(|&core| placed(core)).expect("at least one core")
    }

    fn cell(&self, core: CoreId, pool: PoolId) -> usize {
        assert!(usize::from(core.0) < self.cores, "no such core");
        usize::from(pool.0) * self.cores + usize::from(core.0)
    }
}

impl Placement {
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The link has said how many requests it takes at once.
    pub fn credits(&mut self, streams_max: u32) {
        let weight = streams_max.max(1);
        let before = std::mem::replace(&mut self.weight, weight);
        for &pool in &self.pools {
            let placed = &self.board.placed[self.board.cell(self.core, pool)];
            placed.fetch_add(weight, Ordering::Relaxed);
            placed.fetch_sub(before, Ordering::Relaxed);
        }
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        for &pool in &self.pools {
            self.board.placed[self.board.cell(self.core, pool)].fetch_sub(self.weight, Ordering::Relaxed);
        }
    }
}

/// A set of cores for each pool.
struct CoreSets {
    words_per_pool: usize,
    /// Partner: the loads of other cores that look for a link. Relaxed accesses; the fence in `publish` orders a change
    /// before the look, or the message, that follows it.
    words: Box<[CachePadded<AtomicU64>]>,
}

impl CoreSets {
    fn new(pools: usize, cores: usize) -> CoreSets {
        let words_per_pool = cores.div_ceil(64);
        let words = (0..pools * words_per_pool).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
        CoreSets { words_per_pool, words }
    }

    /// Says whether it was one before.
    fn publish(&self, pool: PoolId, core: CoreId, member: bool) -> bool {
        let word = &self.words[usize::from(pool.0) * self.words_per_pool + usize::from(core.0) / 64];
        let bit = 1 << (core.0 % 64);
        let before = if (word.load(Ordering::Relaxed) & bit != 0) == member {
            member // only this core writes its bit
        } else if member {
            word.fetch_or(bit, Ordering::Relaxed);
            false
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
            true
        };
        fence(Ordering::SeqCst); // partner: the fence in `Shelf::lay_out`, and the one in `Bell::nudge`
        before
    }

    fn iter(&self, pool: PoolId) -> impl Iterator<Item = CoreId> {
        let first = usize::from(pool.0) * self.words_per_pool;
        let words = self.words[first..first + self.words_per_pool].iter().enumerate();
        words.flat_map(|(at, word)| ones(word.load(Ordering::Relaxed)).map(move |bit| core_id(at * 64 + bit)))
    }
}

fn core_id(core: usize) -> CoreId {
    CoreId(u16::try_from(core).expect("fewer cores than numbers"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId(1);

    #[test]
    fn the_last_link_of_a_pool_is_noticed_wherever_it_was() {
        let board = Board::new(3, 64);
        assert!(!board.any_links(POOL) && !board.cannot_upgrade(POOL));
        for core in [0, 63] {
            assert!(!board.publish_links(CoreId(core), POOL, true, false, core == 63));
        }
        assert!(board.any_links(POOL) && !board.any_links(PoolId(0)) && !board.any_links(PoolId(2)));
        assert!(!board.cannot_upgrade(POOL), "one has not said yet");
        assert!(!board.publish_links(CoreId(63), POOL, true, false, false));
        assert!(board.cannot_upgrade(POOL));
        assert!(!board.publish_links(CoreId(63), POOL, true, true, false));
        assert!(!board.cannot_upgrade(POOL));
        assert!(!board.publish_links(CoreId(63), POOL, false, false, false));
        assert!(board.publish_links(CoreId(0), POOL, false, false, false), "the last one");
        assert!(!board.publish_links(CoreId(0), POOL, false, false, false), "only once");
    }

    #[test]
    fn a_burst_of_links_spreads_over_all_cores() {
        let board = Board::new(2, 4);
        let placements: Vec<_> = (0..8).map(|_| board.place(&[POOL], CoreId(2))).collect();
        let cores: Vec<_> = placements.iter().map(|placement| placement.core().0).collect();
        assert_eq!(cores, [2, 3, 0, 1, 2, 3, 0, 1]);
        drop(placements.into_iter().nth(3)); // all are dropped, whichever was taken out
        assert_eq!(board.place(&[POOL, PoolId(0)], CoreId(1)).core(), CoreId(1), "nothing is left behind");
    }

    #[test]
    fn links_go_where_the_fewest_credits_are() {
        let board = Board::new(2, 2);
        let mut large = board.place(&[POOL], CoreId(0));
        large.credits(100);
        let small: Vec<_> = (0..3).map(|_| board.place(&[POOL], CoreId(0))).collect();
        assert!(small.iter().all(|placement| placement.core() == CoreId(1)));
        large.credits(0);
        assert_eq!(board.place(&[POOL], CoreId(1)).core(), CoreId(0), "no credit counts as one");
    }

    #[test]
    fn idle_cores_are_found_in_a_circle_and_never_oneself() {
        let board = Board::new(2, 4);
        assert_eq!(board.idle_core(POOL, Kind::Any, CoreId(0), CoreId(0)), None);
        for core in [0, 1, 3] {
            board.publish_idle(CoreId(core), POOL, Kind::Any, true);
        }
        let asked: Vec<_> =
            (0..4).map(|here| board.idle_core(POOL, Kind::Any, CoreId(here), CoreId(here)).expect("some").0).collect();
        assert_eq!(asked, [1, 3, 3, 0]);
        let after = |last| board.idle_core(POOL, Kind::Any, CoreId(2), CoreId(last)).expect("some").0;
        assert_eq!([0, 1, 2, 3].map(after), [1, 3, 3, 0], "whoever asks thrice asks three");
        assert_eq!(board.idle_core(POOL, Kind::Any, CoreId(3), CoreId(1)), Some(CoreId(0)), "and never itself");
        assert_eq!(board.idle_core(POOL, Kind::Upgrade, CoreId(0), CoreId(0)), None, "each kind has its own set");
        board.publish_idle(CoreId(0), POOL, Kind::Any, false);
        board.publish_idle(CoreId(3), POOL, Kind::Any, false);
        assert_eq!(board.idle_core(POOL, Kind::Any, CoreId(1), CoreId(1)), None);
    }
}
