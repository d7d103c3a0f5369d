//! How often each source has tried something lately, over all cores, and how often it failed; and how often somebody there who
//! has proved who he is. What was tried never enters.

use super::crowd::Source;
use crate::clock::Now;
use crate::limits::{ATTEMPT_PROOFS_MAX, ATTEMPT_ROWS_MAX, ATTEMPT_WINDOW_MS, SOURCE_SHARDS};
use crossbeam_utils::CachePadded;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Rows = HashMap<Who, Row>;

/// Whose attempts are counted together: all that come from a source, or those of one who has proved who he is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    source: Source,
    /// A hash of his name. 0: nobody has proved anything.
    proved: u64,
}

impl From<Source> for Who {
    fn from(source: Source) -> Who {
        Who { source, proved: 0 }
    }
}

/// Asked by whoever connects to become a worker, never by a request: so the table is one of locks, held for some 50 ns, or for
/// some microseconds when a row has to make room.
pub struct Attempts {
    all: Pace,
    failures: Pace,
    proofs: Pace,
    shards: Box<[CachePadded<Mutex<Rows>>]>,
    /// Random, so that nobody can choose addresses that meet in one place.
    hasher: RandomState,
}

/// So many at once, and again so many spread over each window. 0: no bound.
#[derive(Clone, Copy)]
struct Pace {
    interval_ns: u64,
}

/// Up to when the attempts of a source are paid for by time. A row whose moments have passed says nothing.
#[derive(Clone, Copy, Default)]
struct Row {
    all: Now,
    failures: Now,
    proofs: Now,
}

const WINDOW_NS: u64 = ATTEMPT_WINDOW_MS * 1_000_000;

impl Pace {
    fn new(per_window_max: u32) -> Pace {
        Pace { interval_ns: WINDOW_NS.checked_div(u64::from(per_window_max)).unwrap_or(0) }
    }

    /// Nanoseconds until one more is allowed; 0: now.
    fn wait_ns(self, paid: Now, now: Now) -> u64 {
        if self.interval_ns == 0 {
            return 0;
        }
        (paid.max(now).0 + self.interval_ns).saturating_sub(now.0 + WINDOW_NS)
    }

    /// One more.
    fn after(self, paid: Now, now: Now) -> Now {
        Now((paid.max(now).0 + self.interval_ns).min(now.0 + WINDOW_NS))
    }
}

impl Row {
    fn last(self) -> Now {
        self.all.max(self.failures).max(self.proofs)
    }
}

impl Attempts {
    /// So many for each source in each window, and so many of them that fail. 0: no bound.
    #[must_use]
    pub fn new(per_window_max: u32, failures_per_window_max: u32) -> Attempts {
        Attempts {
            all: Pace::new(per_window_max),
            failures: Pace::new(failures_per_window_max),
            proofs: Pace::new(ATTEMPT_PROOFS_MAX),
            shards: (0..SOURCE_SHARDS).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// One more attempt. Whoever makes it says so by [`Attempts::failed`] if it fails.
    ///
    /// # Errors
    /// Milliseconds until the source may try again; it has tried, or failed, too often.
    pub fn begin(&self, source: Source, now: Now) -> Result<(), u64> {
        let rows = &mut *self.shard(source);
        let row = rows.get(&source.into()).copied().unwrap_or_default();
        let wait_ns = self.all.wait_ns(row.all, now).max(self.failures.wait_ns(row.failures, now));
        if wait_ns > 0 {
            return Err(wait_ns.div_ceil(1_000_000));
        }
        put(rows, source.into(), Row { all: self.all.after(row.all, now), ..row }, now);
        Ok(())
    }

    pub fn failed(&self, source: Source, now: Now) {
        let rows = &mut *self.shard(source);
        let row = rows.get(&source.into()).copied().unwrap_or_default();
        put(rows, source.into(), Row { failures: self.failures.after(row.failures, now), ..row }, now);
    }

    /// An attempt that [`Attempts::begin`] did not let through was somebody's who is known by this name. What others at his
    /// source do is not his doing: he has its number once more, for himself.
    ///
    /// # Errors
    /// As [`Attempts::begin`].
    pub fn proved(&self, source: Source, name: &str, now: Now) -> Result<(), u64> {
        let who = Who { source, proved: self.hasher.hash_one(name) | 1 };
        let rows = &mut *self.shard(source);
        let row = rows.get(&who).copied().unwrap_or_default();
        let wait_ns = self.all.wait_ns(row.all, now);
        if wait_ns > 0 {
            return Err(wait_ns.div_ceil(1_000_000));
        }
        put(rows, who, Row { all: self.all.after(row.all, now), ..row }, now);
        Ok(())
    }

    /// Whether a proof that costs something may be looked at for an attempt that [`Attempts::begin`] did not let through; it
    /// counts as looked at then.
    #[must_use]
    pub fn may_look(&self, source: Source, now: Now) -> bool {
        let rows = &mut *self.shard(source);
        let row = rows.get(&source.into()).copied().unwrap_or_default();
        let may_look = self.proofs.wait_ns(row.proofs, now) == 0;
        if may_look {
            put(rows, source.into(), Row { proofs: self.proofs.after(row.proofs, now), ..row }, now);
        }
        may_look
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, Rows> {
        // The map inside takes the hash's other bits: its own hasher has other keys.
        let index = self.hasher.hash_one(source) as usize % SOURCE_SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In a full table the rows go that say nothing any more; if all do, the one that says the least.
fn put(rows: &mut Rows, who: Who, row: Row, now: Now) {
    if rows.len() >= ATTEMPT_ROWS_MAX / SOURCE_SHARDS && !rows.contains_key(&who) {
        rows.retain(|_, row| row.last() > now);
        if rows.len() >= ATTEMPT_ROWS_MAX / SOURCE_SHARDS
            && let Some(least) = rows.iter().min_by_key(|(_, row)| row.last()).map(|(who, _)| *who)
        {
            rows.remove(&least);
        }
    }
    rows.insert(who, row);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ONE: Source = Source::V4(1);

    fn at(ms: u64) -> Now {
        Now(1_000_000_000_000).plus_ms(ms)
    }

    /// How many attempts are let through at one moment, failing or not.
    fn let_through(attempts: &Attempts, source: Source, now: Now, fails: bool) -> u32 {
        let mut count = 0;
        while attempts.begin(source, now).is_ok() {
            count += 1;
            assert!(count < 1_000_000, "there is no bound");
            if fails {
                attempts.failed(source, now);
            }
        }
        count
    }

    #[test]
    fn a_source_has_its_number_at_once_and_again_over_each_window() {
        let attempts = Attempts::new(60, 10);
        assert_eq!(let_through(&attempts, ONE, at(0), false), 60);
        assert_eq!(let_through(&attempts, Source::V4(2), at(0), false), 60, "another one has its own");
        assert_eq!(attempts.begin(ONE, at(0)), Err(1_000));
        assert_eq!(attempts.begin(ONE, at(400)), Err(600));
        assert_eq!(let_through(&attempts, ONE, at(10_000), false), 10);
        assert_eq!(let_through(&attempts, ONE, at(10_000 + ATTEMPT_WINDOW_MS), false), 60);
        assert_eq!(
            let_through(&attempts, ONE, at(100 * ATTEMPT_WINDOW_MS), false),
            60,
            "time that passed is not saved"
        );
    }

    #[test]
    fn who_fails_is_let_through_less_often_and_those_that_were_refused_cost_nothing() {
        let attempts = Attempts::new(1_000, 10);
        assert_eq!(let_through(&attempts, ONE, at(0), true), 10);
        for _ in 0..1_000 {
            assert_eq!(attempts.begin(ONE, at(0)), Err(6_000));
        }
        assert_eq!(attempts.begin(ONE, at(5_999)), Err(1));
        assert_eq!(let_through(&attempts, ONE, at(6_000), true), 1);
        assert_eq!(let_through(&attempts, ONE, at(7_000), true), 0, "a good one has to wait as long");
        assert_eq!(let_through(&attempts, ONE, at(13_000), false), 1_000, "whoever stops to fail is as others are");
    }

    #[test]
    fn who_is_known_has_a_number_of_his_own_beside_those_who_fail() {
        let attempts = Attempts::new(60, 10);
        let proved = |source, name: &str, now| {
            let mut count = 0;
            while attempts.proved(source, name, now).is_ok() {
                count += 1;
                assert!(count < 1_000_000, "there is no bound");
            }
            count
        };
        assert_eq!(let_through(&attempts, ONE, at(0), true), 10);
        assert_eq!(proved(ONE, "web-1", at(0)), 60);
        assert_eq!(attempts.proved(ONE, "web-1", at(0)), Err(1_000));
        assert_eq!(proved(ONE, "web-2", at(0)), 60, "another one has his own");
        assert_eq!(proved(Source::V4(2), "web-1", at(0)), 60, "and so has he elsewhere");
        assert_eq!(let_through(&attempts, ONE, at(0), true), 0, "which opens nothing to those who fail");
        assert_eq!(proved(ONE, "web-1", at(10_000)), 10);
    }

    #[test]
    fn proofs_that_cost_something_are_looked_at_so_often_and_no_more() {
        let attempts = Attempts::new(60, 10);
        let looked = |source, now| (0..10_000).filter(|_| attempts.may_look(source, now)).count() as u32;
        assert_eq!(looked(ONE, at(0)), ATTEMPT_PROOFS_MAX);
        assert_eq!(looked(Source::V4(2), at(0)), ATTEMPT_PROOFS_MAX, "another one has its own");
        assert_eq!(looked(ONE, at(ATTEMPT_WINDOW_MS / 2)), ATTEMPT_PROOFS_MAX / 2);
        assert_eq!(let_through(&attempts, ONE, at(0), false), 60, "they are no attempts of their own");
    }

    #[test]
    fn without_a_bound_everybody_is_let_through() {
        let attempts = Attempts::new(0, 0);
        for _ in 0..10_000 {
            assert_eq!(attempts.begin(ONE, at(0)), Ok(()));
            attempts.failed(ONE, at(0));
            assert_eq!(attempts.proved(ONE, "web-1", at(0)), Ok(()));
        }
    }

    #[test]
    fn the_table_has_its_bound_and_forgets_who_says_the_least() {
        let attempts = Attempts::new(60, 10);
        let rows = |attempts: &Attempts| attempts.shards.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>();
        assert_eq!(let_through(&attempts, ONE, at(0), true), 10);
        for n in 0..ATTEMPT_ROWS_MAX as u64 + 5_000 {
            attempts.begin(Source::V6(n), at(1)).unwrap();
        }
        assert!(rows(&attempts) <= ATTEMPT_ROWS_MAX, "{}", rows(&attempts));
        assert_eq!(let_through(&attempts, ONE, at(2), true), 0, "a crowd does not wash away who has failed");
        // What is over makes room.
        let later = at(2 * ATTEMPT_WINDOW_MS);
        for shard in &attempts.shards {
            let rows = &mut *shard.lock().unwrap();
            put(rows, Source::V4(7).into(), Row { all: later.plus_ms(1), ..Row::default() }, later);
        }
        assert!(rows(&attempts) <= ATTEMPT_ROWS_MAX);
    }

    #[test]
    fn many_threads_are_let_through_as_often_as_one() {
        let attempts = Attempts::new(1_000, 0);
        let counts: Vec<u32> = std::thread::scope(|scope| {
            let one = || (0..1_000).filter(|_| attempts.begin(ONE, at(0)).is_ok()).count() as u32;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(counts.iter().sum::<u32>(), 1_000);
    }
}
