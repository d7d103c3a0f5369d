//! Listening sockets: connections in, one at a time. What a connection is for never enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::io::Canceller;
use monoio::net::TcpListener;
use socket2::{Domain, Protocol, Type};

use super::conn::Conn;
use super::socket::{Socket, accept_waiting, has_waiting, stop_listening};
use super::timer::{sleep_ms, timeout};
use crate::limits::{ACCEPT_BACKOFF_MS, LEAVE_ACCEPTS_MAX, LISTEN_BACKLOG, TICK_MS};

thread_local! {
    static BACKOFFS: Cell<u64> = const { Cell::new(0) };
}

/// Times that an accept of this core waited for want of descriptors or memory.
#[must_use]
pub fn accept_backoffs() -> u64 {
    BACKOFFS.get()
}

/// Opens a listening socket that any thread may hand to [`Listener::from_std`] on its core, with `backlog` connections not yet
/// accepted. As [`bind_listener`].
pub fn open_listener(addr: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let listener = bind_listener(addr)?;
    start_listening(&listener, backlog)?;
    Ok(listener)
}

/// A socket that has its address, and takes no connection before [`start_listening`]: SO_REUSEPORT and SO_REUSEADDR, CLOEXEC, and
/// nothing but IPv6 on an IPv6 address.
pub fn bind_listener(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// From now on the kernel takes connections for it, `backlog` of them before they are accepted. Safe to repeat.
pub fn start_listening(listener: &std::net::TcpListener, backlog: i32) -> io::Result<()> {
    socket2::SockRef::from(listener).listen(backlog)
}

/// A listening socket of this core. Give it up with [`Listener::close`]: a drop stops it as well, but a connection that the
/// kernel accepts in that moment stays open until the process ends.
pub struct Listener {
    socket: Rc<TcpListener>,
    pump: Pin<Box<dyn Future<Output = Infallible>>>,
    post: Rc<Post>,
    /// Somebody else has the same socket, and it listens on.
    lives_on: bool,
}

/// Idle --accept--> Wanted --pump--> Accepting --connection, failure--> Idle;   Accepting --no descriptors--> Backoff
/// --time--> Accepting;   Accepting --close--> Closing --cancelled, connection--> Idle
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Wanted,
    Accepting,
    Backoff,
    Closing,
}

/// Between the listener and its pump.
struct Post {
    phase: Cell<Phase>,
    arrived: Cell<Option<io::Result<(Conn, SocketAddr)>>>,
    canceller: RefCell<Canceller>,
}

impl Listener {
    /// [`open_listener`] for this core.
    pub fn bind(addr: SocketAddr, backlog: i32) -> io::Result<Listener> {
        Listener::from_std(open_listener(addr, backlog)?)
    }

    /// Takes over a socket that listens already.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(false)?; // else io_uring would answer EAGAIN instead of waiting
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?; // accepted sockets inherit it
        let socket = Rc::new(TcpListener::from_std(listener)?);
        let post = Rc::new(Post {
            phase: Cell::new(Phase::Idle),
            arrived: Cell::new(None),
            canceller: RefCell::new(Canceller::new()),
        });
        let pump = Box::pin(pump(Rc::clone(&socket), Rc::clone(&post)));
        Ok(Listener { socket, pump, post, lives_on: false })
    }

    /// The address with the port that was chosen for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection, CLOEXEC and TCP_NODELAY set. May be dropped and called again: the accept in flight belongs
    /// to the listener and loses nothing. Failures that concern one connection are passed over; for want of
    /// descriptors or memory it waits [`ACCEPT_BACKOFF_MS`] and tries again; an error means that the socket is no good.
    pub async fn accept(&mut self) -> io::Result<(Conn, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Conn, SocketAddr)>> {
        if let Some(arrived) = self.post.arrived.take() {
            return Poll::Ready(arrived);
        }
        if self.post.phase.get() == Phase::Idle {
            self.post.phase.set(Phase::Wanted);
        }
        match self.pump.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(never) => match never {},
        }
        self.post.arrived.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Stops listening, now. What had already arrived comes back: the connection that an accept in flight took, and those
    /// that wait in the backlog, which the kernel would reset. Bounded by [`LISTEN_BACKLOG`] and by the descriptors that are
    /// left; it waits for nobody.
    pub async fn close(mut self) -> Vec<(Conn, SocketAddr)> {
        let mut last = Vec::from_iter(self.halt().await);
        for _ in 0..LISTEN_BACKLOG {
            match accept_waiting(&self.socket) {
                Ok((socket, peer)) => last.push((Conn::new(socket, Some(peer)), peer)),
                // One that has gone again while it waited, or a signal.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(_) => break,
            }
        }
        last
    }

    /// Leaves the socket to whoever holds another descriptor of it: it listens on, and what comes from now on is theirs. What
    /// accepts in flight took comes back.
    ///
    /// The kernel wakes one accept for each connection (`poll_exclusive` of io_uring's accept), and a cancelled one does not pass
    /// that on: the connection would wait in the backlog until another one comes. So nothing may wait there behind the last
    /// cancel. Where it does all the same, others come too, and wake whoever accepts.
    pub async fn leave(mut self) -> Vec<(Conn, SocketAddr)> {
        self.lives_on = true;
        let was_accepting = self.post.phase.get() == Phase::Accepting;
        let mut last = Vec::from_iter(self.halt().await);
        for _ in 0..LEAVE_ACCEPTS_MAX {
            if !was_accepting || !has_waiting(&self.socket) {
                break;
            }
            match timeout(TICK_MS, self.accept()).await {
                Some(Ok(accepted)) => last.push(accepted),
                Some(Err(_)) => break,
                None => {} // somebody else took it
            }
            last.extend(self.halt().await);
        }
        last
    }

    /// No accept is in flight afterwards. What the last one brought.
    async fn halt(&mut self) -> Option<(Conn, SocketAddr)> {
        if self.post.phase.get() == Phase::Accepting {
            self.post.phase.set(Phase::Closing);
            let canceller = self.post.canceller.take().cancel();
            self.post.canceller.replace(canceller);
            if let Ok(arrived) = poll_fn(|cx| self.poll_accept(cx)).await {
                return Some(arrived);
            }
        }
        self.post.arrived.take().and_then(Result::ok)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A close alone would leave it listening while an accept is in flight.
        if !self.lives_on {
            stop_listening(&self.socket);
        }
    }
}

/// Owns the accept in flight.
async fn pump(socket: Rc<TcpListener>, post: Rc<Post>) -> Infallible {
    loop {
        poll_fn(|_| if post.phase.get() == Phase::Wanted { Poll::Ready(()) } else { Poll::Pending }).await;
        post.phase.set(Phase::Accepting);
        let arrived = accept_one(&socket, &post).await;
        post.phase.set(Phase::Idle);
        post.arrived.set(Some(arrived));
    }
}

/// Until a connection arrives, the listener is closed, or its socket is no good.
async fn accept_one(socket: &TcpListener, post: &Post) -> io::Result<(Conn, SocketAddr)> {
    loop {
        let handle = post.canceller.borrow().handle();
        let error = match socket.cancelable_accept(handle).await {
            Ok((stream, peer)) => {
                let socket = Socket::from_tcp(stream);
                socket.set_cloexec()?; // monoio accepts without
                return Ok((Conn::new(socket, Some(peer)), peer));
            }
            Err(error) => error,
        };
        if post.phase.get() == Phase::Closing {
            return Err(error);
        }
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                BACKOFFS.set(BACKOFFS.get() + 1);
                post.phase.set(Phase::Backoff);
                sleep_ms(ACCEPT_BACKOFF_MS).await;
                post.phase.set(Phase::Accepting);
            }
            // accept(2): errors of the new connection; the next one may be well.
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => {}
            _ => return Err(error),
        }
    }
}
