//! The reading half of a connection: bytes in, with a buffer that exists only while something is read. What the bytes
//! mean never enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use monoio::io::{CancelableAsyncReadRent, Canceller};

use super::socket::Socket;
use super::tls::Session;
use crate::limits::{READ_BYTES_LARGE, READ_BYTES_SMALL, TAKE_COPY_BYTES_MAX, TAKE_SHARE_PART};

/// Reads go through io_uring into a buffer of their own, and become visible when they end. A relayed request costs
/// 6.0 us of CPU that way, and 6.5 with a poll for readiness and recv(2) (64 connections, nothing but relaying).
pub struct Reader {
    socket: Socket,
    /// Arrived and not consumed.
    visible: BytesMut,
    /// Size of the allocation behind `visible`.
    visible_alloc: usize,
    feed: Rc<Feed>,
    /// Made by the first read.
    pump: Option<Pin<Box<dyn Future<Output = Infallible>>>>,
    size: Size,
    bytes_in: u64,
    /// What arrives is TLS.
    session: Option<Session>,
}

#[derive(Clone, Copy)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Size::Small => READ_BYTES_SMALL,
            Size::Large => READ_BYTES_LARGE,
        }
    }
}

/// Idle --fill--> Ordered --pump--> Reading --bytes, end, failure--> Idle;   Reading --halt, cancelled--> Idle
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Ordered,
    Reading,
}

/// Between a reader and its pump. The buffer goes out with the order and comes back with the result.
struct Feed {
    phase: Cell<Phase>,
    buffer: Cell<Option<BytesMut>>,
    result: Cell<Option<io::Result<usize>>>,
    canceller: RefCell<Canceller>,
}

impl Reader {
    pub(super) fn new(socket: Socket) -> Reader {
        Reader {
            socket,
            visible: BytesMut::new(),
            visible_alloc: 0,
            feed: Rc::new(Feed {
                phase: Cell::new(Phase::Idle),
                buffer: Cell::new(None),
                result: Cell::new(None),
                canceller: RefCell::new(Canceller::new()),
            }),
            pump: None,
            size: Size::Small,
            bytes_in: 0,
            session: None,
        }
    }

    /// What has arrived and not been consumed, and all that comes from now on, is TLS.
    pub(super) fn secure(&mut self, session: Session) -> io::Result<()> {
        let mut early = std::mem::take(&mut self.visible);
        let n = early.len();
        self.session = Some(session.clone());
        let opened = session.open(&mut early, n);
        session.push(&self.socket)?; // what went wrong is said, too
        self.visible = early;
        opened
    }

    pub(super) fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// What arrived and was not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.visible
    }

    /// Drops the first `n` bytes of [`Reader::buffer`]; there must be as many.
    pub fn consume(&mut self, n: usize) {
        self.visible.advance(n);
    }

    /// Takes the first `n` bytes of [`Reader::buffer`]; there must be as many. A small piece is copied, so that it does not
    /// hold a whole read buffer while it waits somewhere; a large one shares the buffer.
    pub fn take(&mut self, n: usize) -> Bytes {
        if n < TAKE_COPY_BYTES_MAX || n < self.visible_alloc / TAKE_SHARE_PART {
            let piece = Bytes::copy_from_slice(&self.visible[..n]);
            self.visible.advance(n);
            piece
        } else {
            self.visible.split_to(n).freeze()
        }
    }

    pub(super) fn take_all(&mut self) -> Bytes {
        std::mem::take(&mut self.visible).freeze()
    }

    /// Waits for more bytes and puts them behind [`Reader::buffer`]; how many may wait there is for the caller to bound.
    /// `Ok(0)` says that the peer ended its side; with TLS, that it said so, and a stream that ends without a word is an
    /// error. Wakes the task that polled last. The read in flight belongs to the reader: a caller that gives up and comes back
    /// later goes on with it.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if self.session.as_ref().is_some_and(Session::is_ended) {
                return Poll::Ready(Ok(0));
            }
            let had = self.visible.len();
            let read = ready!(self.poll_read(cx))?;
            let now = self.visible.len() - had;
            if read == 0 || now > 0 {
                return Poll::Ready(Ok(now));
            }
            // A part of a record, or one that is TLS's own.
        }
    }

    /// One read: the bytes that came, whatever they became.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.feed.phase.get() == Phase::Idle {
            match self.feed.result.take() {
                Some(result) => return Poll::Ready(self.finish(result)),
                None => self.order(),
            }
        }
        let pump = self.pump.get_or_insert_with(|| Box::pin(pump(self.socket.clone(), Rc::clone(&self.feed))));
        match pump.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(never) => match never {},
        }
        match self.feed.result.take() {
            Some(result) => Poll::Ready(self.finish(result)),
            None => Poll::Pending,
        }
    }

    /// As [`Reader::poll_fill`].
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// A read is in flight, or has ended and nobody has looked.
    pub(super) fn is_reading(&self) -> bool {
        self.feed.phase.get() != Phase::Idle || self.has_result()
    }

    fn has_result(&self) -> bool {
        let result = self.feed.result.take();
        let is_there = result.is_some();
        self.feed.result.set(result);
        is_there
    }

    /// Whether the next reads ask for much, because a body flows.
    pub fn large(&mut self, on: bool) {
        self.size = if on { Size::Large } else { Size::Small };
    }

    /// Puts bytes back in front of [`Reader::buffer`].
    pub fn unread(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut joined = BytesMut::with_capacity(bytes.len() + self.visible.len());
        joined.extend_from_slice(&bytes);
        joined.extend_from_slice(&self.visible);
        self.visible_alloc = joined.capacity();
        self.visible = joined;
    }

    /// Bytes that came from the socket.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Whether the peer is gone, or ended its side (half-closed), though unread bytes may wait before its FIN. A system
    /// call; it reads nothing.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        self.socket.peer_gone()
    }

    /// Ends the read in flight. What it brought is in the buffer; the end of the stream, if it brought that, is met again
    /// by whoever reads next.
    pub(super) async fn halt(&mut self) -> io::Result<()> {
        if self.feed.phase.get() == Phase::Reading {
            self.feed.cancel();
            if let Err(error) = poll_fn(|cx| self.poll_read(cx)).await
                && error.raw_os_error() != Some(libc::ECANCELED)
            {
                return Err(error);
            }
        } else if let Some(result) = self.feed.result.take() {
            self.finish(result)?;
        }
        self.pump = None;
        self.feed.phase.set(Phase::Idle);
        Ok(())
    }

    /// As [`Reader::halt`], and gives every buffer back. False: something has arrived that nobody has consumed, or the end.
    pub(super) async fn park(&mut self) -> io::Result<bool> {
        self.halt().await?;
        if !self.visible.is_empty() || self.session.as_ref().is_some_and(Session::is_ended) {
            return Ok(false);
        }
        self.visible = BytesMut::new();
        self.visible_alloc = 0;
        Ok(true)
    }

    /// Gives the pump a buffer to read into: the visible one if nothing is in it, else a fresh one.
    fn order(&mut self) {
        let feed = &self.feed;
        feed.phase.set(Phase::Ordered);
        let want = self.size.bytes();
        if !self.visible.is_empty() {
            feed.buffer.set(Some(BytesMut::with_capacity(want)));
            return;
        }
        let mut buffer = std::mem::take(&mut self.visible);
        // An idle connection must not keep a large buffer. And a large one whose front still lives in a piece somewhere
        // is good for another read while half of it is free.
        let fits = self.visible_alloc <= want && (buffer.try_reclaim(want) || buffer.capacity() >= want / 2);
        if !fits {
            buffer = BytesMut::with_capacity(want);
            self.visible_alloc = buffer.capacity();
        }
        feed.buffer.set(Some(buffer));
    }

    /// Makes visible what a read brought.
    fn finish(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        let mut buffer = self.feed.buffer.take().unwrap_or_default();
        let n = result?;
        self.bytes_in += n as u64;
        if let Some(session) = &self.session {
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let opened = session.open(&mut buffer, n);
            // What TLS itself has to say does not wait for somebody who writes. What the socket does not take now goes out
            // with the next bytes.
            session.push(&self.socket)?;
            opened?;
        }
        if self.visible.is_empty() {
            self.visible_alloc = self.visible_alloc.max(buffer.capacity());
            self.visible = buffer;
        } else {
            self.visible.extend_from_slice(&buffer);
            self.visible_alloc = self.visible_alloc.max(self.visible.capacity());
        }
        Ok(n)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.feed.phase.get() == Phase::Reading {
            self.socket.shutdown_both();
        }
    }
}

impl Feed {
    fn cancel(&self) {
        let canceller = self.canceller.take().cancel();
        self.canceller.replace(canceller);
    }
}

/// Owns the read in flight: dropping a read of monoio's loses what it brings, so a reader keeps one future for all of
/// them, and a caller that goes away leaves it in flight.
async fn pump(socket: Socket, feed: Rc<Feed>) -> Infallible {
    let mut half = socket.half();
    loop {
        poll_fn(|_| if feed.phase.get() == Phase::Ordered { Poll::Ready(()) } else { Poll::Pending }).await;
        let mut buffer = feed.buffer.take().unwrap_or_default();
        feed.phase.set(Phase::Reading);
        let result = loop {
            let handle = feed.canceller.borrow().handle();
            let (result, filled) = half.cancelable_read(buffer, handle).await;
            buffer = filled;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        feed.buffer.set(Some(buffer));
        feed.phase.set(Phase::Idle);
        feed.result.set(Some(result));
    }
}
