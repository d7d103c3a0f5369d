//! The atomics and queues of this wing: the real ones, or loom's under `--cfg loom`. No logic enters here.

#[cfg(not(loom))]
mod chosen {
    /// A place for one thing, taken and left by swaps.
    pub struct Slot<T>(crossbeam_utils::atomic::AtomicCell<Option<Box<T>>>);

    // A pointer's worth: without this the cell would be a lock.
    const _: () = assert!(crossbeam_utils::atomic::AtomicCell::<Option<Box<u64>>>::is_lock_free());

    impl<T> Slot<T> {
        pub fn new() -> Slot<T> {
            Slot(crossbeam_utils::atomic::AtomicCell::new(None))
        }

        /// AcqRel.
        pub fn swap(&self, item: Option<Box<T>>) -> Option<Box<T>> {
            self.0.swap(item)
        }
    }

    pub use atomic_waker::AtomicWaker;
    pub use crossbeam_queue::ArrayQueue;
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub use std::thread_local;
}

#[cfg(loom)]
mod chosen {
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub use loom::thread_local;

    use loom::sync::Mutex;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// As weak as crossbeam's queue may be: what the lock orders is hidden behind a count that is only released and
    /// acquired, so a stale look finds the queue empty (or full) unless the caller's own fences say otherwise.
    pub struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        count: AtomicUsize,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub fn new(capacity: usize) -> ArrayQueue<T> {
            ArrayQueue { items: Mutex::new(VecDeque::new()), count: AtomicUsize::new(0), capacity }
        }

        pub fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            drop(items);
            self.count.fetch_add(1, Ordering::Release);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            if self.is_empty() {
                return None;
            }
            let item = self.items.lock().unwrap().pop_front();
            if item.is_some() {
                self.count.fetch_sub(1, Ordering::Release);
            }
            item
        }

        pub fn is_empty(&self) -> bool {
            self.count.load(Ordering::Acquire) == 0
        }

        pub fn is_full(&self) -> bool {
            self.count.load(Ordering::Acquire) >= self.capacity
        }
    }

    /// As weak as a swap that acquires and releases: the lock orders more, but only the flag beside it is looked at first.
    pub struct Slot<T> {
        item: Mutex<Option<Box<T>>>,
        is_full: AtomicBool,
    }

    impl<T> Slot<T> {
        pub fn new() -> Slot<T> {
            Slot { item: Mutex::new(None), is_full: AtomicBool::new(false) }
        }

        pub fn swap(&self, item: Option<Box<T>>) -> Option<Box<T>> {
            if item.is_none() && !self.is_full.load(Ordering::Acquire) {
                return None;
            }
            let mut slot = self.item.lock().unwrap();
            self.is_full.swap(item.is_some(), Ordering::AcqRel);
            std::mem::replace(&mut slot, item)
        }
    }

    /// The promise of the real one: a wake either finds what was registered before, or what was written before it is
    /// visible after the registration.
    pub struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub fn new() -> AtomicWaker {
            AtomicWaker(Mutex::new(None))
        }

        pub fn register(&self, waker: &Waker) {
            *self.0.lock().unwrap() = Some(waker.clone());
        }

        pub fn take(&self) -> Option<Waker> {
            self.0.lock().unwrap().take()
        }

        pub fn wake(&self) {
            if let Some(waker) = self.take() {
                waker.wake();
            }
        }
    }
}

pub(super) use chosen::*;
