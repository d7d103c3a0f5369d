//! A core's doorbell: other threads ring, the core's loop comes back from the kernel. What the ring is about never enters.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::event::EventfdFlags;

/// Waited for on its core.
pub struct Bell {
    counter: Counter,
}

/// Rings a bell from any thread. Clones ring the same bell.
#[derive(Clone)]
pub struct Ring {
    fd: Arc<OwnedFd>,
}

/// A bell that hangs nowhere yet: made where the cores are planned, hung on the core that will wait for it.
pub struct Doorbell {
    fd: OwnedFd,
}

/// A bell and its ring, on any thread; takes two descriptors.
pub fn doorbell() -> io::Result<(Doorbell, Ring)> {
    // Blocking: io_uring then waits for it instead of answering EAGAIN. A write blocks only at 2^64 - 2 rings unread.
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    Ok((Doorbell { fd: fd.try_clone()? }, Ring { fd: Arc::new(fd) }))
}

impl Doorbell {
    /// On the core that will wait. Rings from before count.
    #[must_use]
    pub fn hang(self) -> Bell {
        Bell { counter: Counter::new(self.fd) }
    }
}

/// A bell for this core, and its ring. Takes two descriptors.
pub fn bell() -> io::Result<(Bell, Ring)> {
    let (doorbell, ring) = doorbell()?;
    Ok((doorbell.hang(), ring))
}

impl Bell {
    /// Ready when it was rung since the last time; all rings until now count as one. Look at what was announced *after*
    /// this returned Ready.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.counter.poll_wait(cx).map_ok(|_| ())
    }

    /// As [`Bell::poll_wait`]. May be dropped and called again; no ring is lost.
    pub async fn wait(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_wait(cx)).await
    }
}

impl Ring {
    /// One write(2) of eight bytes: never blocks, allocates nothing, may be called in a signal handler. Orders memory as
    /// any system call does; publish first, then ring.
    pub fn ring(&self) {
        let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes()); // fails only for a count that cannot be reached
    }
}

/// A kernel counter (eventfd, timerfd) that is read through io_uring. A read is always in flight once it was polled.
pub(super) struct Counter {
    pump: Pin<Box<dyn Future<Output = Infallible>>>,
    done: Rc<Cell<Option<io::Result<u64>>>>,
}

impl Counter {
    pub(super) fn new(fd: OwnedFd) -> Counter {
        let done = Rc::new(Cell::new(None));
        Counter { pump: Box::pin(pump(fd, Rc::clone(&done))), done }
    }

    /// Ready with the count when that was not 0; it is 0 then.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.pump.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(never) => match never {},
        }
        self.done.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Owns the read in flight, so that a wait that is dropped loses no count.
async fn pump(fd: OwnedFd, done: Rc<Cell<Option<io::Result<u64>>>>) -> Infallible {
    // Only here: monoio takes a descriptor inside of its runtime, and nowhere else.
    let file = monoio::fs::File::from_std(std::fs::File::from(fd)).expect("taking a descriptor calls nobody");
    let mut count = Box::new([0u8; 8]);
    loop {
        let (result, buffer) = file.read_at(count, 0).await;
        count = buffer;
        done.set(Some(result.map(|_| u64::from_ne_bytes(*count))));
    }
}
