//! A switch of one core that is set once and wakes everybody who waits for it: "drain now". Nothing that crosses cores
//! enters.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Set once; whoever waits is woken.
#[derive(Default)]
pub struct Latch {
    set: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// One place among those who wait. Leaving is dropping it.
pub struct LatchWait<'a> {
    latch: &'a Latch,
    place: Option<usize>,
}

impl Latch {
    /// Wakes everybody, now and for all time. Safe to repeat.
    pub fn set(&self) {
        self.set.set(true);
        // Taken out first: a woken task may look at this latch at once.
        let waiting = self.waiting.take();
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// A place to wait in.
    #[must_use]
    pub fn wait(&self) -> LatchWait<'_> {
        LatchWait { latch: self, place: None }
    }
}

impl LatchWait<'_> {
    /// Ready once the latch is set.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.latch.is_set() {
            self.place = None;
            return Poll::Ready(());
        }
        let mut waiting = self.latch.waiting.borrow_mut();
        match self.place {
            Some(place) => waiting[place].clone_from(cx.waker()),
            None => self.place = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for LatchWait<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.latch.waiting.borrow_mut().try_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_waiter_leaves() {
        let latch = Latch::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(latch.wait().poll(&mut cx).is_pending());
        }
        assert_eq!(latch.waiting.borrow().len(), 0);
    }

    #[test]
    fn a_set_latch_is_ready_for_old_and_new_waiters() {
        let latch = Latch::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut old = latch.wait();
        assert!(old.poll(&mut cx).is_pending());
        latch.set();
        assert!(old.poll(&mut cx).is_ready());
        assert!(latch.wait().poll(&mut cx).is_ready());
    }
}
