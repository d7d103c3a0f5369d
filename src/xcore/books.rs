//! What a pool's waiting requests use, over all cores: one count of requests and one of bytes. The requests never enter.

use super::sync::{AtomicUsize, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// One pool's books, shared by all cores and touched only by requests that have to wait.
///
/// Both counters are relaxed: each bounds itself by compare-exchange, and nothing else is published through them.
/// Partners: the same calls on other cores. The bounds come in with each call, so a reload needs no new books.
pub struct PoolBooks {
    requests: CachePadded<AtomicUsize>,
    bytes: CachePadded<AtomicUsize>,
}

/// One request's entry in its pool's books. It travels with the request; dropping it, on any core, gives all back.
pub struct Held {
    books: Arc<PoolBooks>,
    bytes: usize,
}

impl PoolBooks {
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // books without holders are of no use
    pub fn new() -> Arc<PoolBooks> {
        Arc::new(PoolBooks {
            requests: CachePadded::new(AtomicUsize::new(0)),
            bytes: CachePadded::new(AtomicUsize::new(0)),
        })
    }

    /// Enters a request of `bytes`, or refuses: then the pool is full.
    #[must_use]
    pub fn try_take(self: &Arc<PoolBooks>, bytes: usize, requests_max: usize, bytes_max: usize) -> Option<Held> {
        if !take(&self.requests, 1, requests_max) {
            return None;
        }
        if !take(&self.bytes, bytes, bytes_max) {
            give_back(&self.requests, 1);
            return None;
        }
        Some(Held { books: Arc::clone(self), bytes })
    }

    /// Whether [`try_take`](Self::try_take) would find room now.
    #[must_use]
    pub fn has_room(&self, bytes: usize, requests_max: usize, bytes_max: usize) -> bool {
        self.requests() < requests_max && self.bytes().checked_add(bytes).is_some_and(|all| all <= bytes_max)
    }

    /// Requests that wait now.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes that they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Held {
    /// More of the request was read while it waits. False: the pool is full, and nothing was added.
    #[must_use]
    pub fn add_bytes(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let fits = take(&self.books.bytes, bytes, bytes_max);
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back(&self.books.requests, 1);
        give_back(&self.books.bytes, self.bytes);
    }
}

/// How many requests of a pool may be with its workers at once, over all cores; for pools with `concurrency_max` alone.
pub struct Permits {
    /// Partner: the same counter on other cores. Whoever gives one back fences and looks for waiting requests, whoever
    /// has laid one out fences and tries to take one: one of the two sees the other.
    taken: CachePadded<AtomicUsize>,
}

/// One of them. Dropping it gives it back; see [`Permits::try_take`] for what has to follow.
pub struct Permit(Arc<Permits>);

impl Permits {
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // permits without holders are of no use
    pub fn new() -> Arc<Permits> {
        Arc::new(Permits { taken: CachePadded::new(AtomicUsize::new(0)) })
    }

    /// A permit, if fewer than `concurrency_max` are taken. After one was given back, its core has to look for requests
    /// that wait for it, here and elsewhere.
    #[must_use]
    pub fn try_take(self: &Arc<Permits>, concurrency_max: usize) -> Option<Permit> {
        take(&self.taken, 1, concurrency_max).then(|| Permit(Arc::clone(self)))
    }

    /// Whether one could be taken now.
    #[must_use]
    pub fn any_left(&self, concurrency_max: usize) -> bool {
        self.taken.load(Ordering::Relaxed) < concurrency_max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        give_back(&self.0.taken, 1);
        fence(Ordering::SeqCst); // partner: the fence in `Shelf::lay_out`, before the home tries to take one
    }
}

/// Adds, unless that would pass `max`. Repeats only when another core was faster, so somebody always gets on.
fn take(counter: &AtomicUsize, amount: usize, max: usize) -> bool {
    let add = |now: usize| now.checked_add(amount).filter(|&then| then <= max);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

fn give_back(counter: &AtomicUsize, amount: usize) {
    let before = counter.fetch_sub(amount, Ordering::Relaxed);
    debug_assert!(before >= amount, "gave back more than was taken");
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_full_at_its_count_and_at_its_bytes() {
        let books = PoolBooks::new();
        let a = books.try_take(10, 2, 100).expect("room");
        let mut b = books.try_take(60, 2, 100).expect("room");
        assert!(books.try_take(0, 2, 100).is_none(), "the count is used up");
        assert!(books.try_take(31, 3, 100).is_none(), "the bytes are used up");
        assert_eq!((books.requests(), books.bytes()), (2, 70), "a refusal leaves nothing behind");
        assert!(!b.add_bytes(31, 100));
        assert!(b.add_bytes(30, 100));
        assert!(!b.add_bytes(usize::MAX, usize::MAX), "no overflow");
        drop(b);
        assert_eq!((books.requests(), books.bytes()), (1, 10));
        drop(a);
        assert_eq!((books.requests(), books.bytes()), (0, 0));
    }
}
