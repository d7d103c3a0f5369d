//! What cores tell each other without asking: which of them have links of a pool, and how many. No request and no link enters, only counts and bits.
//!
//! Links come and go rarely, so nothing here is padded but the words that every request without a local link reads.

use super::bell::ones;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::ids::{CoreId, PoolId};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// One for the whole edge.
pub struct Board {
    cores: usize,
    /// For each pool, a bit for each core that has a link of it.
    linked: CoreSets,
    /// For each pool, a bit for each core with a credit that nobody there waits for.
    idle: CoreSets,
    /// For each pool, a bit for each core that has a link of it which carries upgrades.
    carriers: CoreSets,
    /// Links by pool and core. Written by that core alone; partner: the loads of status pages. Relaxed, a number only.
    links: Box<[AtomicU32]>,
    /// Links placed by pool and core, those on their way included. Partner: `place` on other cores; relaxed, and two
    /// cores that place at the same moment may choose the same target.
    placed: Box<[AtomicU32]>,
}

/// A link's place on a core, counted until this is dropped. It travels with the link.
pub struct Placement {
    board: Arc<Board>,
    pools: Box<[PoolId]>,
    core: CoreId,
}

impl Board {
    #[must_use]
    pub fn new(pools: usize, cores: usize) -> Arc<Board> {
        assert!(cores > 0, "an edge has at least one core");
        let zeros = || (0..pools * cores).map(|_| AtomicU32::new(0)).collect();
        let set = || CoreSets::new(pools, cores);
        Arc::new(Board { cores, linked: set(), idle: set(), carriers: set(), links: zeros(), placed: zeros() })
    }

    // ---- links ----

    /// Core `core` now has `links` links of the pool that take requests. That core alone calls this. A core that waits
    /// for one hears of the first by message: it looked at the board before it began to wait.
    pub fn publish_links(&self, core: CoreId, pool: PoolId, links: u32) {
        let before = self.links[self.cell(core, pool)].swap(links, Ordering::Relaxed);
        if (before > 0) != (links > 0) {
            self.linked.publish(pool, core, links > 0);
        }
    }

    /// Links of the pool on that core, as last published.
    #[must_use]
    pub fn links(&self, core: CoreId, pool: PoolId) -> u32 {
        self.links[self.cell(core, pool)].load(Ordering::Relaxed)
    }

    /// Whether some core has a link of the pool.
    #[must_use]
    pub fn any_links(&self, pool: PoolId) -> bool {
        self.linked.iter(pool).next().is_some()
    }

    /// A core that has links of the pool. Different salts spread over all of them.
    #[must_use]
    pub fn core_with_links(&self, pool: PoolId, salt: u64) -> Option<CoreId> {
        let count = u64::try_from(self.linked.iter(pool).count()).expect("fits");
        let nth = usize::try_from(salt.checked_rem(count)?).expect("fewer than cores");
        self.linked.iter(pool).nth(nth).or_else(|| self.linked.iter(pool).next()) // the set may just have shrunk
    }

    /// Whether core `core` has a credit for the pool that it does not need itself. That core alone calls this, and only
    /// when it changes: a core with many credits never writes here.
    pub fn publish_idle(&self, core: CoreId, pool: PoolId, is_idle: bool) {
        self.idle.publish(pool, core, is_idle);
    }

    /// A core other than `here` that had an idle credit for the pool a moment ago.
    #[must_use]
    pub fn core_with_credit(&self, pool: PoolId, here: CoreId) -> Option<CoreId> {
        self.idle.iter(pool).find(|core| *core != here)
    }

    /// Whether core `core` has a link of the pool that carries upgrades. That core alone calls this.
    pub fn publish_carrier(&self, core: CoreId, pool: PoolId, carries: bool) {
        self.carriers.publish(pool, core, carries);
    }

    /// A core other than `here` with a link of the pool that carries upgrades.
    #[must_use]
    pub fn core_that_carries(&self, pool: PoolId, here: CoreId) -> Option<CoreId> {
        self.carriers.iter(pool).find(|core| *core != here)
    }

    // ---- placing links ----

    /// Chooses a core for a new link of these pools and counts it there at once, so that a burst of links spreads. The
    /// fewest placed links win; credits are not known yet (an h2 link announces them in its SETTINGS). Among equals
    /// `here` wins, then the next ones in order.
    #[must_use]
    pub fn place(self: &Arc<Board>, pools: &[PoolId], here: CoreId) -> Placement {
        let core = self.core_with_fewest(pools, here);
        for &pool in pools {
            self.placed[self.cell(core, pool)].fetch_add(1, Ordering::Relaxed);
        }
        Placement { board: Arc::clone(self), pools: pools.into(), core }
    }

    /// The core that [`place`](Self::place) would choose.
    #[must_use]
    pub fn core_with_fewest(&self, pools: &[PoolId], here: CoreId) -> CoreId {
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
}

impl Drop for Placement {
    fn drop(&mut self) {
        for &pool in &self.pools {
            self.board.placed[self.board.cell(self.core, pool)].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A set of cores for each pool.
struct CoreSets {
    words_per_pool: usize,
    /// Partner: the loads of other cores that look for a link. Relaxed accesses; the fence in `publish` orders a change
    /// before the message that tells of it.
    words: Box<[CachePadded<AtomicU64>]>,
}

impl CoreSets {
    fn new(pools: usize, cores: usize) -> CoreSets {
        let words_per_pool = cores.div_ceil(64);
        let words = (0..pools * words_per_pool).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
        CoreSets { words_per_pool, words }
    }

    fn publish(&self, pool: PoolId, core: CoreId, member: bool) {
        let word = &self.words[usize::from(pool.0) * self.words_per_pool + usize::from(core.0) / 64];
        let bit = 1 << (core.0 % 64);
        if member {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst); // partner: the fence in `Bell::nudge`, which sends the word of it
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
    fn salts_spread_over_the_cores_that_have_links() {
        let board = Board::new(3, 130);
        assert!(!board.any_links(POOL));
        assert_eq!(board.core_with_links(POOL, 7), None);
        for core in [0, 64, 129] {
            board.publish_links(CoreId(core), POOL, 2);
        }
        assert!(board.any_links(POOL) && !board.any_links(PoolId(0)) && !board.any_links(PoolId(2)));
        let found: Vec<_> = (0..4).map(|salt| board.core_with_links(POOL, salt).expect("some").0).collect();
        assert_eq!(found, [0, 64, 129, 0]);
        board.publish_links(CoreId(64), POOL, 1);
        assert_eq!(board.links(CoreId(64), POOL), 1);
        for core in [0, 64, 129] {
            board.publish_links(CoreId(core), POOL, 0);
        }
        assert!(!board.any_links(POOL));
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
    fn idle_and_carrying_cores_are_found_from_every_core_but_themselves() {
        let board = Board::new(2, 3);
        board.publish_idle(CoreId(1), POOL, true);
        board.publish_carrier(CoreId(2), POOL, true);
        assert_eq!(board.core_with_credit(POOL, CoreId(0)), Some(CoreId(1)));
        assert_eq!(board.core_with_credit(POOL, CoreId(1)), None);
        assert_eq!(board.core_that_carries(POOL, CoreId(0)), Some(CoreId(2)));
        board.publish_idle(CoreId(1), POOL, false);
        assert_eq!(board.core_with_credit(POOL, CoreId(0)), None);
    }
}
