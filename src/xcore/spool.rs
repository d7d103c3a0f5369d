//! Hot. Records on their way from one core to a thread that may be slow. What they say never enters.
//!
//! It is bounded by their number and by what they own. A full spool refuses, so that nobody ever waits for its reader; nobody is
//! woken either: the reader looks by itself.

use super::sync::{ArrayQueue, AtomicBool, AtomicUsize, Ordering};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// What lies in a spool.
pub trait Spooled: Send {
    /// What it owns beside the place that it takes; 0 for most.
    fn bytes_beside(&self) -> usize;
}

/// The end that gives. Dropping it tells the reader that nothing will follow.
pub struct SpoolTx<T>(Arc<Shared<T>>);

/// The end that takes.
pub struct SpoolRx<T>(Arc<Shared<T>>);

struct Shared<T> {
    /// Partners: `give` pushes, `take` pops.
    records: ArrayQueue<T>,
    /// Of what is in `records`. `give` adds before it pushes, `take` subtracts behind its pop; neither touches it for a record that
    /// owns nothing beside. Relaxed: every addition sees those before it, and the queue puts one before its own
    /// subtraction, so what is kept never passes the bound and the count never goes below 0.
    bytes_beside: CachePadded<AtomicUsize>,
    bytes_beside_max: usize,
    /// Stored with release behind the last push, loaded with acquire by `is_left`: whoever sees it also sees what was given last.
    gone: CachePadded<AtomicBool>,
}

/// A spool that holds up to `records_max` records, all of whose memory is taken now, with up to `bytes_beside_max` that they own.
#[cold]
#[must_use]
pub fn spool<T: Spooled>(records_max: usize, bytes_beside_max: usize) -> (SpoolTx<T>, SpoolRx<T>) {
    let records = ArrayQueue::new(records_max);
    let (bytes_beside, gone) = (CachePadded::new(AtomicUsize::new(0)), CachePadded::new(AtomicBool::new(false)));
    let shared = Arc::new(Shared { records, bytes_beside, bytes_beside_max, gone });
    (SpoolTx(shared.clone()), SpoolRx(shared))
}

impl<T: Spooled> SpoolTx<T> {
    /// False: there is no room, and the record is lost.
    #[must_use]
    pub fn give(&self, record: T) -> bool {
        let bytes = record.bytes_beside();
        if bytes == 0 {
            return self.0.records.push(record).is_ok();
        }
        self.give_heavy(record, bytes)
    }

    #[cold]
    fn give_heavy(&self, record: T, bytes: usize) -> bool {
        let held = self.0.bytes_beside.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let is_kept = held <= self.0.bytes_beside_max && self.0.records.push(record).is_ok();
        if !is_kept {
            self.0.bytes_beside.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_kept
    }
}

impl<T> Drop for SpoolTx<T> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
    }
}

impl<T: Spooled> SpoolRx<T> {
    /// The oldest record that nobody has taken. What it owns does not count any more.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        let record = self.0.records.pop()?;
        let bytes = record.bytes_beside();
        if bytes > 0 {
            self.0.bytes_beside.fetch_sub(bytes, Ordering::Relaxed);
        }
        Some(record)
    }

    /// The other end is gone: what is there now is the last of it.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    impl Spooled for u32 {
        fn bytes_beside(&self) -> usize {
            0
        }
    }

    /// A record, and what it owns.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Heavy(u32, usize);

    impl Spooled for Heavy {
        fn bytes_beside(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn a_full_spool_refuses_and_keeps_the_order_of_the_others() {
        let (tx, rx) = spool(2, 0);
        assert_eq!([1, 2, 3].map(|record| tx.give(record)), [true, true, false]);
        assert_eq!(rx.take(), Some(1));
        assert!(tx.give(4));
        assert_eq!([rx.take(), rx.take(), rx.take()], [Some(2), Some(4), None]);
    }

    #[test]
    fn what_records_own_is_bounded_beside_their_number() {
        let (tx, rx) = spool(3, 10);
        let given = [(1, 6), (2, 5), (3, 4), (4, 1), (5, 0), (6, 0)].map(|(id, bytes)| tx.give(Heavy(id, bytes)));
        assert_eq!(
            given,
            [true, false, true, false, true, false],
            "6 and 4 are 10; one that owns nothing finds the third place"
        );
        assert!(!tx.give(Heavy(7, 0)), "three are there");
        assert_eq!(rx.take(), Some(Heavy(1, 6)));
        assert!(tx.give(Heavy(8, 6)), "there is room again");
        assert_eq!(rx.take(), Some(Heavy(3, 4)));
        assert!(!tx.give(Heavy(9, 5)) && tx.give(Heavy(10, 4)), "one that found no room counts for nothing");
        assert_eq!([rx.take(), rx.take(), rx.take()], [Some(Heavy(5, 0)), Some(Heavy(8, 6)), Some(Heavy(10, 4))]);
        assert_eq!(rx.take(), None);
        assert!(tx.give(Heavy(12, 10)), "nothing is left of the others");
    }

    /// A plain Vec beside it, with the same rules.
    #[test]
    fn a_spool_agrees_with_a_list_that_is_counted() {
        let (tx, rx) = spool(5, 100);
        let (mut list, mut seed) = (std::collections::VecDeque::new(), 1_u64);
        for id in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = (seed >> 33) as usize;
            if draw.is_multiple_of(3) {
                assert_eq!(rx.take(), list.pop_front(), "{id}");
                continue;
            }
            let record = Heavy(id, if draw.is_multiple_of(2) { 0 } else { draw % 61 });
            let held: usize = list.iter().map(|Heavy(_, bytes)| bytes).sum();
            let has_room = list.len() < 5 && (record.1 == 0 || held + record.1 <= 100);
            assert_eq!(tx.give(record), has_room, "{id}: {record:?} beside {list:?}");
            if has_room {
                list.push_back(record);
            }
        }
    }

    #[test]
    fn whoever_sees_that_its_giver_left_sees_all_that_it_gave() {
        for round in 0..200 {
            let (tx, rx) = spool(8, 0);
            let giver = std::thread::spawn(move || (0..round % 9).all(|record| tx.give(record)));
            let mut taken = 0;
            loop {
                let is_left = rx.is_left();
                while rx.take().is_some() {
                    taken += 1;
                }
                if is_left {
                    break;
                }
            }
            assert!(giver.join().unwrap());
            assert_eq!(taken, round % 9);
        }
    }
}
