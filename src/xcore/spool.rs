//! Hot. Records on their way from one core to a thread that may be slow. What they say never enters.
//!
//! A full spool refuses, so that nobody ever waits for its reader; nobody is woken either: the reader looks by itself.

use super::sync::{ArrayQueue, AtomicBool, Ordering};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// The end that gives. Dropping it tells the reader that nothing will follow.
pub struct SpoolTx<T>(Arc<Shared<T>>);

/// The end that takes.
pub struct SpoolRx<T>(Arc<Shared<T>>);

struct Shared<T> {
    /// Partners: `give` pushes, `take` pops.
    records: ArrayQueue<T>,
    /// Stored with release behind the last push, loaded with acquire by `is_left`: whoever sees it also sees what was given last.
    gone: CachePadded<AtomicBool>,
}

/// A spool that holds up to `records_max` records, all of whose memory is taken now.
#[cold]
#[must_use]
pub fn spool<T: Send>(records_max: usize) -> (SpoolTx<T>, SpoolRx<T>) {
    let gone = CachePadded::new(AtomicBool::new(false));
    let shared = Arc::new(Shared { records: ArrayQueue::new(records_max), gone });
    (SpoolTx(shared.clone()), SpoolRx(shared))
}

impl<T: Send> SpoolTx<T> {
    /// False: there is no room, and the record is lost.
    #[must_use]
    pub fn give(&self, record: T) -> bool {
        self.0.records.push(record).is_ok()
    }
}

impl<T> Drop for SpoolTx<T> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
    }
}

impl<T: Send> SpoolRx<T> {
    /// The oldest record that nobody has taken.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.records.pop()
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

    #[test]
    fn a_full_spool_refuses_and_keeps_the_order_of_the_others() {
        let (tx, rx) = spool(2);
        assert_eq!([1, 2, 3].map(|record| tx.give(record)), [true, true, false]);
        assert_eq!(rx.take(), Some(1));
        assert!(tx.give(4));
        assert_eq!([rx.take(), rx.take(), rx.take()], [Some(2), Some(4), None]);
    }

    #[test]
    fn whoever_sees_that_its_giver_left_sees_all_that_it_gave() {
        for round in 0..200 {
            let (tx, rx) = spool(8);
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
