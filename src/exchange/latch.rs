//! A switch of one core that is set once and wakes everybody who waits for it: "drain now". It may be announced before. Nothing
//! that crosses cores enters.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Set once; whoever waits is woken.
#[derive(Default)]
pub struct Latch {
    stage: Cell<Stage>,
    waiting: RefCell<Slab<Waker>>,
}

/// ```text
/// Open --announce--> Announced --set--> Set;   Open --set--> Set
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Open,
    Announced,
    Set,
}

/// One place among those who wait. Leaving is dropping it.
pub struct LatchWait<'a> {
    latch: &'a Latch,
    place: Option<usize>,
}

impl Latch {
    /// Wakes everybody, now and for all time. Safe to repeat.
    pub fn set(&self) {
        self.stage.set(Stage::Set);
        // Taken out first: a woken task may look at this latch at once.
        let waiting = self.waiting.take();
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// It will be set: what begins now should be the last. Wakes those who wait, so that they can say so; they wait on.
    pub fn announce(&self) {
        if self.is_announced() {
            return;
        }
        self.stage.set(Stage::Announced);
        let waiting: Vec<Waker> = self.waiting.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.stage.get() == Stage::Set
    }

    /// It was announced, or set.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.stage.get() >= Stage::Announced
    }

    /// A place for whoever cannot borrow the latch, and looks himself whether it is set. To be given back by
    /// [`Latch::leave`].
    #[must_use]
    pub fn enter(&self, waker: &Waker) -> usize {
        self.waiting.borrow_mut().insert(waker.clone())
    }

    /// After the latch was set there are no places any more, and none is left.
    pub fn leave(&self, place: usize) {
        if !self.is_set() {
            self.waiting.borrow_mut().try_remove(place);
        }
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
    fn a_place_may_be_held_by_its_number() {
        let latch = Latch::default();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let places = [latch.enter(&waker), latch.enter(&waker)];
        latch.leave(places[0]);
        assert_eq!(latch.waiting.borrow().len(), 1);
        latch.set();
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        latch.leave(places[1]);
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

    #[test]
    fn an_announced_latch_wakes_those_who_wait_and_keeps_them() {
        let latch = Latch::default();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut wait = latch.wait();
        assert!(wait.poll(&mut cx).is_pending() && !latch.is_announced());
        latch.announce();
        latch.announce();
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1, "once");
        assert!(wait.poll(&mut cx).is_pending() && latch.is_announced() && !latch.is_set());
        latch.set();
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 2);
        latch.announce();
        assert!(wait.poll(&mut cx).is_ready() && latch.is_set(), "what was set stays set");
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Woken>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
