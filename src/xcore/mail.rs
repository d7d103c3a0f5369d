//! A place in which one core leaves one thing for a task of another. What it is never enters.

use super::sync::{AtomicBool, AtomicWaker, Ordering, Slot, fence};
use super::wakers::{HomeWakers, Portable};
use std::task::{Context, Poll};

/// Left once, taken once. It belongs to a waiting task, which may give up ([`Mail::leave`]) at any time.
pub struct Mail<T> {
    letter: Slot<T>,
    /// Partners, in the manner of Dekker: `leave` stores true, fences and empties the box; `put` fills it, fences and loads
    /// this. One of the two sees the other, so no letter stays in a box that nobody looks into.
    left: AtomicBool,
    waker: AtomicWaker,
}

impl<T: Send> Mail<T> {
    #[must_use]
    pub fn new() -> Mail<T> {
        Mail { letter: Slot::new(), left: AtomicBool::new(false), waker: AtomicWaker::new() }
    }

    /// Leaves a letter and wakes whoever waits for it. It comes back where nobody does any more. Once only.
    pub fn put(&self, letter: T) -> Result<(), T> {
        let before = self.letter.swap(Some(Box::new(letter)));
        debug_assert!(before.is_none(), "one letter for each mail");
        fence(Ordering::SeqCst); // partner: the fence in `leave`
        if self.left.load(Ordering::Relaxed)
            && let Some(letter) = self.letter.swap(None)
        {
            return Err(*letter);
        }
        self.waker.wake();
        Ok(())
    }

    /// Ready with the letter. `wakers` are those of the core that polls, `kept` the waiting task's, empty at first.
    pub fn poll_take(&self, cx: &mut Context<'_>, wakers: &HomeWakers, kept: &mut Option<Portable>) -> Poll<T> {
        if let Some(letter) = self.letter.swap(None) {
            return Poll::Ready(*letter);
        }
        self.waker.register(wakers.refresh(cx.waker(), kept));
        self.letter.swap(None).map_or(Poll::Pending, |letter| Poll::Ready(*letter))
    }

    /// Nobody waits any more. A letter that was left is dropped, here or by whoever leaves it.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // partner: the fence in `put`
        drop(self.letter.swap(None));
        drop(self.waker.take());
    }
}

impl<T: Send> Default for Mail<T> {
    fn default() -> Self {
        Mail::new()
    }
}
