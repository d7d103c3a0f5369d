//! A bounded pipe from one core to another: pieces of a body, each passed on once and in order. What the pieces are never
//! enters.
//!
//! One sender, one receiver, each with one task that polls it. A full pipe stops its sender and nobody else.

use super::sync::{ArrayQueue, AtomicBool, AtomicWaker, Ordering};
use super::wakers::{HomeWakers, Portable};
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The other side is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why a piece came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<T> {
    Full(T),
    Closed(T),
}

/// The end that gives. Dropping it ends the pipe once all was taken.
pub struct PipeTx<T> {
    shared: Arc<Shared<T>>,
    portable: Option<Portable>,
}

/// The end that takes. Dropping it closes the pipe; what was not taken is dropped.
pub struct PipeRx<T> {
    shared: Arc<Shared<T>>,
    portable: Option<Portable>,
}

struct Shared<T> {
    /// Partners: `try_send` pushes, `poll_recv` pops. Each then wakes the other side's waker; the other side registers
    /// its waker and looks again. [`AtomicWaker`] makes one of the two see the other.
    pieces: ArrayQueue<T>,
    tx: CachePadded<Side>,
    rx: CachePadded<Side>,
}

struct Side {
    /// The task that polls this side.
    waker: AtomicWaker,
    /// This side was dropped. Stored with release behind its last push or pop; the other side loads it with acquire
    /// before it looks into the queue, so whoever sees it also sees the last piece.
    gone: AtomicBool,
}

/// A pipe that holds up to `pieces_max` pieces.
#[must_use]
pub fn pipe<T: Send>(pieces_max: usize) -> (PipeTx<T>, PipeRx<T>) {
    let shared = Arc::new(Shared {
        pieces: ArrayQueue::new(pieces_max),
        tx: CachePadded::new(Side::new()),
        rx: CachePadded::new(Side::new()),
    });
    (PipeTx { shared: Arc::clone(&shared), portable: None }, PipeRx { shared, portable: None })
}

impl<T: Send> PipeTx<T> {
    /// Ready when there is room for a piece. `wakers` are those of the core that polls.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>, wakers: &HomeWakers) -> Poll<Result<(), Closed>> {
        if let Poll::Ready(ready) = self.look() {
            return Poll::Ready(ready);
        }
        self.shared.tx.waker.register(wakers.refresh(cx.waker(), &mut self.portable));
        self.look()
    }

    /// Ready when the receiver is gone, whether there is room or not. Shares its one waker with
    /// [`poll_ready`](Self::poll_ready), so both are polled by the same task.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>, wakers: &HomeWakers) -> Poll<()> {
        if !self.is_closed() {
            self.shared.tx.waker.register(wakers.refresh(cx.waker(), &mut self.portable));
        }
        if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Gives a piece, if there is room. After [`poll_ready`](Self::poll_ready) said so there is, until a piece is sent.
    pub fn try_send(&mut self, piece: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError::Closed(piece));
        }
        self.shared.pieces.push(piece).map_err(SendError::Full)?;
        self.shared.rx.waker.wake();
        Ok(())
    }

    /// The receiver is gone: nothing that is sent will be read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.rx.is_gone()
    }

    fn look(&self) -> Poll<Result<(), Closed>> {
        if self.is_closed() {
            Poll::Ready(Err(Closed))
        } else if self.shared.pieces.is_full() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<T: Send> PipeRx<T> {
    /// The next piece; `None` when the sender is gone and all was taken. `wakers` are those of the core that polls.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, wakers: &HomeWakers) -> Poll<Option<T>> {
        if let Poll::Ready(ready) = self.look() {
            return Poll::Ready(ready);
        }
        self.shared.rx.waker.register(wakers.refresh(cx.waker(), &mut self.portable));
        self.look()
    }

    /// The sender is gone. Pieces may be left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.tx.is_gone()
    }

    fn look(&mut self) -> Poll<Option<T>> {
        let closed = self.is_closed(); // before the queue: what came before the end is taken first
        match self.shared.pieces.pop() {
            Some(piece) => {
                self.shared.tx.waker.wake();
                Poll::Ready(Some(piece))
            }
            None if closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for PipeTx<T> {
    fn drop(&mut self) {
        self.shared.tx.leave();
        self.shared.rx.waker.wake();
    }
}

impl<T> Drop for PipeRx<T> {
    fn drop(&mut self) {
        self.shared.rx.leave();
        self.shared.tx.waker.wake();
        // What waits is given up now, not when the sender notices. A piece sent at this very moment stays until then.
        while self.shared.pieces.pop().is_some() {}
    }
}

impl Side {
    fn new() -> Side {
        Side { waker: AtomicWaker::new(), gone: AtomicBool::new(false) }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn leave(&self) {
        drop(self.waker.take()); // nobody is left to wake: give the slot back
        self.gone.store(true, Ordering::Release);
    }
}
