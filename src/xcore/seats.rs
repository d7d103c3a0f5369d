//! How many links a credential holds, over all cores. Who holds them and what they serve never enters.

use super::sync::{AtomicU32, Ordering};
use std::sync::Arc;

/// One for each credential.
pub struct Seats {
    /// Partner: the same counter on other cores. Relaxed: a number, nothing is published with it.
    taken: AtomicU32,
}

/// One link's place, free again when this is dropped. It travels with the link.
pub struct Seat(Arc<Seats>);

impl Seats {
    #[must_use]
    pub fn new() -> Arc<Seats> {
        Arc::new(Seats { taken: AtomicU32::new(0) })
    }

    /// A place, if fewer than `links_max` are taken.
    #[must_use]
    pub fn try_take(self: &Arc<Seats>, links_max: u32) -> Option<Seat> {
        let taken = |taken: u32| (taken < links_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Seat(Arc::clone(self)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_seats_are_taken_than_there_are() {
        let seats = Seats::new();
        let first = seats.try_take(2);
        let second = seats.try_take(2);
        assert!(first.is_some() && second.is_some() && seats.try_take(2).is_none());
        drop(first);
        assert!(seats.try_take(2).is_some());
        assert!(seats.try_take(1).is_none(), "one is still held");
    }
}
