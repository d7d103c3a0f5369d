//! One connected stream socket, TCP or Unix, owned by one task: a reader, a writer, and the ways in and out. What the
//! bytes mean never enters.
#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use monoio::net::{TcpStream, UnixStream};
use rustls::Connection;

use super::read::Reader;
use super::socket::Socket;
use super::timer::timeout;
use super::tls::{Secured, Session};
use super::write::Writer;
use crate::limits::{KEEPALIVE_PROBES, LINGER_BYTES_MAX, LINGER_MS_MAX};

/// The two halves are used independently; dropping either while it waits for the kernel ends the connection for both.
/// Dropped without an operation in flight, it is closed; with one, it is shut down first.
pub struct Conn {
    pub reader: Reader,
    pub writer: Writer,
    socket: Socket,
    peer: Option<SocketAddr>,
}

impl Conn {
    pub(super) fn new(socket: Socket, peer: Option<SocketAddr>) -> Conn {
        Conn { reader: Reader::new(socket.clone()), writer: Writer::new(socket.clone()), socket, peer }
    }

    /// Opens a TCP connection, CLOEXEC and TCP_NODELAY set. Bound it with [`timeout`]; dropping it closes the socket.
    pub async fn connect(addr: SocketAddr) -> io::Result<Conn> {
        let stream = TcpStream::connect_addr(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Conn::new(Socket::from_tcp(stream), Some(addr)))
    }

    /// Opens a connection to a Unix socket, CLOEXEC set. As [`Conn::connect`].
    pub async fn connect_unix(path: &Path) -> io::Result<Conn> {
        Ok(Conn::new(Socket::from_unix(UnixStream::connect(path).await?)?, None))
    }

    /// Takes over a connected stream socket. `leftover` is read before what the socket brings.
    pub fn from_fd(fd: OwnedFd, leftover: Bytes) -> io::Result<Conn> {
        let mut conn = Conn::new(Socket::from_fd(fd)?, None);
        conn.reader.unread(leftover);
        Ok(conn)
    }

    /// Two ends of one connection inside of this process; the second one may go to any core.
    pub fn pair() -> io::Result<(Conn, Detached)> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        let far = Detached { fd: far.into(), leftover: Bytes::new(), tls: None, has_ended: false };
        Ok((Conn::from_fd(near.into(), Bytes::new())?, far))
    }

    /// A connection that another core gave away.
    pub fn attach(detached: Detached) -> io::Result<Conn> {
        let mut conn = Conn::new(Socket::from_fd(detached.fd)?, None);
        if let Some(tls) = detached.tls {
            let session = conn.speak_tls(*tls)?;
            if detached.has_ended {
                session.ends();
            }
        }
        conn.reader.unread(detached.leftover);
        Ok(conn)
    }

    /// Gives the connection away: nothing is in flight on it any more, and what was read and not consumed goes with it. A
    /// read in flight is cancelled, and what it still brought is part of that. Refuses while unsent bytes wait: flush
    /// first. Needs a free descriptor for a moment, because monoio closes its own.
    pub async fn detach(mut self) -> io::Result<Detached> {
        if self.writer.queued() > 0 {
            return Err(io::Error::other("unsent bytes wait"));
        }
        self.reader.halt().await?;
        self.writer.halt();
        drop(self.writer.take_session());
        let session = self.reader.take_session();
        let has_ended = session.as_ref().is_some_and(Session::is_ended);
        let tls = match session.map(Session::into_connection) {
            None => None,
            Some(Some(connection)) => Some(Box::new(connection)),
            // Never on without it: what follows would be readable.
            Some(None) => return Err(io::Error::other("the TLS session is in use")),
        };
        Ok(Detached { fd: self.socket.duplicate()?, leftover: self.reader.take_all(), tls, has_ended })
    }

    /// From now on the connection speaks TLS as `session` wants it: does the handshake and says what came of it. Bound it
    /// with [`timeout`]. A peer that offers nothing usable hears why (an alert) before this fails.
    pub async fn secure(&mut self, session: Connection) -> io::Result<Secured> {
        let session = self.speak_tls(session)?;
        poll_fn(|cx| {
            loop {
                ready!(self.writer.poll_flush(cx))?;
                if !session.is_handshaking() {
                    return Poll::Ready(Ok::<(), io::Error>(()));
                }
                let read = ready!(self.reader.poll_read(cx))?;
                debug_assert!(read > 0, "TLS has no silent end");
            }
        })
        .await?;
        Ok(Secured::of(&session.connection()))
    }

    fn speak_tls(&mut self, session: Connection) -> io::Result<Session> {
        let session = Session::new(session);
        self.writer.secure(session.clone());
        self.reader.secure(session.clone())?;
        Ok(session)
    }

    /// It speaks TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.reader.is_secure()
    }

    /// Where the other end is, or the one that it speaks for; `None` for a Unix socket.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer.or_else(|| self.socket.peer_addr())
    }

    /// Whoever is in front of us spoke for somebody else (the PROXY protocol).
    pub fn set_peer_addr(&mut self, peer: SocketAddr) {
        self.peer = Some(peer);
    }

    /// What tells whether the peer still sends, when somebody else has taken the connection.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse { socket: self.socket.clone() }
    }

    /// Nothing has arrived, and the peer is there, on a connection on which it is our turn to speak. Starts the read that
    /// the answer will need. Without one in flight the kernel is asked first (a system call, some 0.25 us).
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let is_silent = self.reader.is_reading() || self.socket.is_silent();
        is_silent && self.reader.buffer().is_empty() && self.reader.poll_fill(&mut cx).is_pending()
    }

    /// As [`Conn::is_quiet`], for a connection on which no read is in flight: asks the kernel (a system call, some 0.25 us),
    /// and starts nothing. A read that waits on an idle connection costs its next request twice that.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.reader.buffer().is_empty() && self.socket.is_silent()
    }

    /// For a connection that is idle for long: ends the read in flight, which holds a buffer, and gives all buffers back. False:
    /// something has arrived in the meantime. Whoever reads next starts another read.
    pub async fn park(&mut self) -> io::Result<bool> {
        let is_empty = self.reader.park().await?;
        self.writer.park();
        Ok(is_empty)
    }

    /// Waits until something has arrived on a parked connection, or its peer has ended, or it failed. Dropping it loses nothing.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + use<> {
        self.socket.clone().readable()
    }

    /// Ends the connection with a reset: what was sent is not to be taken for complete. Bytes on their way may be lost.
    pub fn abort(self) {
        // Dissolves the association at once and wakes a read in flight, whose shutdown on drop would send a FIN instead.
        // A Unix socket refuses; its peer sees an end.
        let _ = rustix::net::connect_unspec(&self.socket);
    }

    /// Has the kernel probe an idle peer, so that a dead one is found within two times `every_ms`. TCP only.
    pub fn keepalive(&self, every_ms: u64) {
        let every = Duration::from_millis(every_ms);
        let socket = socket2::SockRef::from(&self.socket);
        let probes = socket2::TcpKeepalive::new().with_time(every);
        let probes = probes.with_interval(every / KEEPALIVE_PROBES).with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&probes); // a Unix socket has no need of it
        let _ = socket.set_tcp_user_timeout(Some(every * 2));
    }

    /// Sends a FIN behind what waits, within [`LINGER_MS_MAX`], reads and throws away what still comes, [`LINGER_BYTES_MAX`] and
    /// once more [`LINGER_MS_MAX`] at most, and closes. Without that, bytes that arrive after the close make the kernel send a reset, which can destroy the
    /// last response, or the reason for which TLS failed, on its way (RFC 9112 §9.6).
    pub async fn close(mut self) {
        if !matches!(timeout(LINGER_MS_MAX, self.writer.shutdown()).await, Some(Ok(()))) {
            return; // the connection is gone already, or its peer does not read
        }
        let reader = &mut self.reader;
        drop(reader.take_session()); // what still comes is nobody's, whatever it means
        let mut thrown = reader.buffer().len();
        reader.consume(thrown);
        timeout(LINGER_MS_MAX, async {
            while thrown <= LINGER_BYTES_MAX {
                match reader.fill().await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => {
                        thrown += n;
                        reader.consume(n);
                    }
                }
            }
        })
        .await;
    }
}

/// A connection between two cores.
pub struct Detached {
    fd: OwnedFd,
    leftover: Bytes,
    tls: Option<Box<Connection>>,
    /// The peer said that nothing follows.
    has_ended: bool,
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How long a peer has been silent, and whether it reads; and a way to end the connection under whoever has it. It holds the
/// connection's descriptor: drop it with the connection.
pub struct Pulse {
    socket: Socket,
}

impl Pulse {
    /// Milliseconds since its last byte arrived in the kernel, whether or not somebody has read it. A system call. `None`
    /// where nobody can tell (a Unix socket).
    #[must_use]
    pub fn silent_ms(&self) -> Option<u64> {
        self.socket.silent_ms()
    }

    /// The peer is gone, or ended its side, though unread bytes may wait before its end. A system call.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        self.socket.peer_gone()
    }

    /// Ends the connection both ways: what waits for it finds that.
    pub fn cut(&self) {
        self.socket.shutdown_both();
    }

    /// Bytes that were sent and that the peer's kernel has not taken. A system call.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.socket.unacknowledged()
    }
}
