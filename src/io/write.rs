//! The writing half of a connection: pieces queue in order and go to the kernel in as few calls as it takes. What the
//! bytes mean never enters.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;

use super::socket::Socket;
use super::tls::Session;
use crate::limits::{
    READ_BYTES_SMALL, WRITE_BYTES_HIGH, WRITE_COPY_BYTES_MAX, WRITE_POOL_BUFFERS_MAX, WRITE_SLICES_MAX,
};

thread_local! {
    /// Copy buffers of writers that are empty now. An idle connection holds none, and a busy one does not allocate.
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes are offered to the kernel at once, by send(2) or sendmsg(2), and only a full socket is waited for, by io_uring.
/// A send through io_uring costs the same CPU, but its end wakes the task once more, needs a second buffer, and must be
/// cancelled and awaited before the socket can go anywhere.
pub struct Writer {
    socket: Socket,
    /// What waits, in order. The last copied run is not in it before something else queues behind it.
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces in `pieces`.
    pieces_bytes: usize,
    /// The copied bytes of all pieces, in order.
    copied: Vec<u8>,
    /// Bytes of `copied` that the kernel has.
    copied_sent: usize,
    /// Bytes of `copied` that belong to pieces in `pieces`, or are sent.
    copied_ranged: usize,
    /// A wait for room in the socket.
    wait: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    bytes_out: u64,
    /// What leaves is TLS.
    session: Option<Session>,
}

enum Piece {
    /// So many bytes of `copied`.
    Copied(usize),
    Shared(Bytes),
}

impl Writer {
    pub(super) fn new(socket: Socket) -> Writer {
        Writer {
            socket,
            pieces: VecDeque::new(),
            pieces_bytes: 0,
            copied: Vec::new(),
            copied_sent: 0,
            copied_ranged: 0,
            wait: None,
            bytes_out: 0,
            session: None,
        }
    }

    /// All that is sent from now on is TLS.
    pub(super) fn secure(&mut self, session: Session) {
        debug_assert_eq!(self.queued(), 0, "flush before TLS begins");
        self.session = Some(session);
    }

    pub(super) fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// Queues a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buf().extend_from_slice(bytes);
    }

    /// To write directly behind what waits. Only append: what is in it already is on its way.
    pub fn buf(&mut self) -> &mut Vec<u8> {
        if self.copied.capacity() == 0 {
            self.copied = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(READ_BYTES_SMALL));
        }
        &mut self.copied
    }

    /// Queues a piece: a copy of a small one, a large one as it is.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < WRITE_COPY_BYTES_MAX {
            return self.put(&bytes);
        }
        self.range_copied();
        self.pieces_bytes += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
    }

    /// Bytes that wait: not yet taken by the kernel. Those that TLS has already sealed count as one, how many they are; they
    /// are `SEALED_BYTES_MAX` at most.
    #[must_use]
    pub fn queued(&self) -> usize {
        let sealed = self.session.as_ref().is_some_and(Session::is_sealed);
        self.unsealed() + usize::from(sealed)
    }

    fn unsealed(&self) -> usize {
        self.pieces_bytes + (self.copied.len() - self.copied_ranged)
    }

    /// Whoever fills it should flush now.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.queued() >= WRITE_BYTES_HIGH
    }

    /// The socket was full when it was last written to.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.wait.is_some()
    }

    /// Hands all that waits to the kernel. Ready when nothing waits any more. A caller that gives up and comes back later
    /// goes on with it, and may queue more in between.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued() > 0 {
            ready!(self.poll_room(cx))?;
            self.send(&[])?;
        }
        self.recycle();
        Poll::Ready(Ok(()))
    }

    /// As [`Writer::poll_flush`].
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Queues `slices`, or a part of them, and says how many bytes. Much is handed to the kernel without a copy, behind what
    /// waits. Pending while too much waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            let room = WRITE_BYTES_HIGH.saturating_sub(self.queued());
            if bytes < WRITE_COPY_BYTES_MAX.min(room) || (self.wait.is_some() && room > 0) {
                let mut left = room;
                for slice in slices {
                    let n = slice.len().min(left);
                    self.put(&slice[..n]);
                    left -= n;
                }
                return Poll::Ready(Ok(room - left));
            }
            if room == 0 {
                ready!(self.poll_room(cx))?;
            }
            let sent = self.send(slices)?;
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
    }

    /// Sends a FIN behind all that waits; with TLS, behind a word that this is the end (close_notify). Not before both have
    /// gone: a stream of TLS that ends without a word was cut.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if let Some(session) = &self.session {
            session.say_end();
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(self.socket.shutdown_write())
    }

    /// As [`Writer::poll_shutdown`].
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Bytes that the peer's kernel took, up to a constant; compare it with an earlier one. A system call. What this
    /// kernel took moves in steps of a third of the socket's buffer, which can be a megabyte.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.bytes_out().wrapping_sub(self.socket.unacknowledged())
    }

    /// Bytes that this kernel took.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.session.as_ref().map_or(self.bytes_out, Session::bytes_out)
    }

    /// Gives back what an empty queue keeps.
    pub(super) fn park(&mut self) {
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }

    /// Gives up a wait for room, before the socket goes elsewhere: it may outlast what it was for.
    pub(super) fn halt(&mut self) {
        debug_assert_eq!(self.queued(), 0, "flush before the socket goes");
        self.wait = None;
    }

    /// Ready unless the socket was found full and still is.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(Ok(())) };
        let waited = ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(waited)
    }

    /// One call into the kernel, for what waits and for `more` behind it. Says how many bytes of `more` it took. When
    /// it did not take all, the socket is full, and `wait` is set.
    fn send(&mut self, more: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.pieces.is_empty() && more.is_empty() && self.session.is_none() {
            return self.send_copied().map(|()| 0);
        }
        self.range_copied();
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let mut count = 0;
        let mut offered = 0;
        let mut copied = &self.copied[self.copied_sent..];
        let waiting = self.pieces.iter().map(|piece| match piece {
            Piece::Copied(n) => {
                let (run, rest) = copied.split_at(*n);
                copied = rest;
                run
            }
            Piece::Shared(bytes) => &bytes[..],
        });
        for slice in waiting.chain(more.iter().map(|slice| &slice[..])).take(WRITE_SLICES_MAX) {
            slices[count] = IoSlice::new(slice);
            count += 1;
            offered += slice.len();
        }
        let taken = match &self.session {
            None => {
                let taken = offer(&self.socket, &slices[..count])?;
                self.account(taken, offered);
                taken
            }
            Some(session) => {
                let taken = session.seal(&slices[..count])?;
                session.push(&self.socket)?;
                if session.is_sealed() {
                    self.wait = Some(Box::pin(self.socket.clone().writable()));
                }
                taken
            }
        };
        let of_more = taken.saturating_sub(self.pieces_bytes);
        self.advance(taken - of_more);
        Ok(of_more)
    }

    /// [`Writer::send`] where nothing but copied bytes waits: most heads and small answers.
    fn send_copied(&mut self) -> io::Result<()> {
        let waiting = &self.copied[self.copied_sent..];
        let offered = waiting.len();
        let taken = offer(&self.socket, &[IoSlice::new(waiting)])?;
        self.account(taken, offered);
        self.copied_sent += taken;
        self.copied_ranged = self.copied_sent;
        self.clear_copied();
        Ok(())
    }

    fn account(&mut self, taken: usize, offered: usize) {
        self.bytes_out += taken as u64;
        if taken < offered {
            self.wait = Some(Box::pin(self.socket.clone().writable()));
        }
    }

    /// Forgets the first `n` bytes that wait.
    fn advance(&mut self, mut n: usize) {
        self.pieces_bytes -= n;
        while n > 0 {
            match self.pieces.front_mut().expect("the count agrees with the pieces") {
                Piece::Copied(left) => {
                    let part = n.min(*left);
                    *left -= part;
                    self.copied_sent += part;
                    n -= part;
                    if *left > 0 {
                        break;
                    }
                }
                Piece::Shared(bytes) => {
                    let part = n.min(bytes.len());
                    bytes.advance(part);
                    n -= part;
                    if !bytes.is_empty() {
                        break;
                    }
                }
            }
            self.pieces.pop_front();
        }
        self.clear_copied();
    }

    fn clear_copied(&mut self) {
        if self.copied_sent == self.copied.len() {
            self.copied.clear();
            self.copied_sent = 0;
            self.copied_ranged = 0;
        }
    }

    /// Puts the copied bytes that are in no piece yet into one.
    fn range_copied(&mut self) {
        let n = self.copied.len() - self.copied_ranged;
        if n > 0 {
            self.copied_ranged += n;
            self.pieces_bytes += n;
            self.pieces.push_back(Piece::Copied(n));
        }
    }

    /// Gives the buffers back; nothing waits.
    fn recycle(&mut self) {
        debug_assert!(self.copied.is_empty() && self.pieces.is_empty());
        let buffer = std::mem::take(&mut self.copied);
        if (1..=WRITE_COPY_BYTES_MAX).contains(&buffer.capacity()) {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < WRITE_POOL_BUFFERS_MAX {
                    pool.push(buffer);
                }
            });
        }
    }
}

/// How much the kernel takes now; 0 when the socket is full.
fn offer(socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match socket.send(slices) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.wait.is_some() {
            self.socket.shutdown_both();
        }
    }
}
