//! How full memory is: one word that every core reads before each request. Who measures, and what follows from it, never
//! enters.

use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::limits::{MEMORY_FULL_PERCENT, MEMORY_TIGHT_PERCENT};
use crossbeam_utils::CachePadded;
use std::cell::OnceCell;
use std::sync::Arc;

/// ```text
/// Normal --95 %--> Tight --98 %--> Full;   Tight, Full --below 95 %--> Normal
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    Normal,
    /// No new requests.
    Tight,
    /// No new connections either, until it is `Normal` again.
    Full,
}

impl Fill {
    /// What it is with `resident_bytes` of `bytes_max`.
    #[must_use]
    pub fn after(self, resident_bytes: u64, bytes_max: u64) -> Fill {
        let reaches = |percent: u64| resident_bytes >= bytes_max / 100 * percent;
        match self {
            _ if reaches(MEMORY_FULL_PERCENT) => Fill::Full,
            _ if !reaches(MEMORY_TIGHT_PERCENT) => Fill::Normal,
            Fill::Normal | Fill::Tight => Fill::Tight,
            Fill::Full => Fill::Full,
        }
    }

    fn of(word: u32) -> Fill {
        match word {
            0 => Fill::Normal,
            1 => Fill::Tight,
            _ => Fill::Full,
        }
    }
}

thread_local! {
    static HERE: OnceCell<Arc<MemoryGauge>> = const { OnceCell::new() };
}

/// New requests are refused now, on the core that asks. False on a thread that has no gauge.
#[must_use]
pub fn is_memory_tight() -> bool {
    HERE.with(|here| here.get().is_some_and(|gauge| gauge.fill() != Fill::Normal))
}

/// One for the edge. One thread tells it, all cores read it.
pub struct MemoryGauge {
    /// Partner: [`MemoryGauge::tell`], which writes only what is new: the line stays with all cores. Relaxed: nothing is
    /// published with it.
    fill: CachePadded<AtomicU32>,
    resident_bytes: CachePadded<AtomicU64>,
}

impl MemoryGauge {
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // it is of no use to one alone
    pub fn new() -> Arc<MemoryGauge> {
        Arc::new(MemoryGauge {
            fill: CachePadded::new(AtomicU32::new(Fill::Normal as u32)),
            resident_bytes: CachePadded::new(AtomicU64::new(0)),
        })
    }

    /// From now on [`is_memory_tight`] tells it on this thread. Once.
    pub fn settle(self: &Arc<MemoryGauge>) {
        HERE.with(|here| assert!(here.set(Arc::clone(self)).is_ok(), "this thread has a gauge already"));
    }

    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill::of(self.fill.load(Ordering::Relaxed))
    }

    /// What was told last; 0 before.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    /// For one thread only.
    pub fn tell(&self, resident_bytes: u64, bytes_max: u64) -> Fill {
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        let before = self.fill();
        let now = before.after(resident_bytes, bytes_max);
        if now != before {
            self.fill.store(now as u32, Ordering::Relaxed);
        }
        now
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_fill_goes_where_its_bytes_say() {
        use Fill::*;
        for (bytes, from_normal, from_tight, from_full) in [
            (0, Normal, Normal, Normal),
            (949, Normal, Normal, Normal),
            (950, Tight, Tight, Full),
            (979, Tight, Tight, Full),
            (980, Full, Full, Full),
            (u64::MAX, Full, Full, Full),
        ] {
            let found = [Normal, Tight, Full].map(|from| from.after(bytes, 1_000));
            assert_eq!(found, [from_normal, from_tight, from_full], "{bytes} of 1000");
        }
    }

    #[test]
    fn what_is_told_is_what_every_core_reads() {
        let gauge = MemoryGauge::new();
        assert_eq!((gauge.fill(), gauge.resident_bytes()), (Fill::Normal, 0));
        for (bytes, want) in
            [(10, Fill::Normal), (96, Fill::Tight), (99, Fill::Full), (95, Fill::Full), (1, Fill::Normal)]
        {
            assert_eq!(gauge.tell(100 * bytes, 10_000), want);
            assert_eq!((gauge.fill(), gauge.resident_bytes()), (want, 100 * bytes));
        }
    }
}
