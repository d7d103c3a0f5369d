//! One socket and what is asked of it directly. The only file with `unsafe`, but for the call to the allocator in main.rs; buffers and waiting never enter.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use monoio::io::OwnedReadHalf;
use monoio::net::{TcpListener, TcpStream, UnixStream};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// A connected stream socket, shared by its reader and its writer. monoio closes it when the last of them, and the last
/// operation in flight, is gone. TCP or Unix: monoio's `TcpStream` reads and writes both.
#[derive(Clone)]
pub(super) struct Socket {
    stream: Rc<UnsafeCell<TcpStream>>,
    raw: RawFd,
}

impl Socket {
    pub(super) fn from_tcp(stream: TcpStream) -> Socket {
        let raw = stream.as_raw_fd();
        Socket { stream: Rc::new(UnsafeCell::new(stream)), raw }
    }

    pub(super) fn from_unix(stream: UnixStream) -> io::Result<Socket> {
        // SAFETY: `into_raw_fd` gives up the descriptor, so this is its only owner.
        Socket::from_fd(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) })
    }

    /// Refuses what is not a TCP or Unix stream socket.
    pub(super) fn from_fd(fd: OwnedFd) -> io::Result<Socket> {
        use rustix::net::sockopt::{socket_domain, socket_type};
        let family = socket_domain(&fd)?;
        let known = family == AddressFamily::INET || family == AddressFamily::INET6 || family == AddressFamily::UNIX;
        if !known || socket_type(&fd)? != rustix::net::SocketType::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a TCP nor a Unix stream socket"));
        }
        // io_uring waits on a blocking socket; a non-blocking one would answer EAGAIN.
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(Socket::from_tcp(TcpStream::from_std(std::net::TcpStream::from(fd))?))
    }

    /// For reading only; the writer's half of monoio's pair would send a FIN when dropped.
    pub(super) fn half(&self) -> OwnedReadHalf<TcpStream> {
        OwnedReadHalf(Rc::clone(&self.stream))
    }

    /// Waits until the socket takes bytes, or failed. Dropping it loses nothing.
    pub(super) async fn writable(self) -> io::Result<()> {
        self.stream().writable(true).await
    }

    /// Waits until something has arrived, the peer has ended, or the socket failed. Dropping it loses nothing. Never while a
    /// read is in flight.
    pub(super) async fn readable(self) -> io::Result<()> {
        self.stream().readable(true).await
    }

    fn stream(&self) -> &TcpStream {
        // SAFETY: the only `&mut` to the stream is made by monoio's read half when a read starts; its last use is the
        // clone of the descriptor in the first poll, which follows in the same call of the reader's pump. Nothing here
        // runs in between, and nothing ever leaves this thread (`Rc`).
        unsafe { &*self.stream.get() }
    }

    /// What the kernel takes now; `WouldBlock` when that is nothing.
    pub(super) fn send(&self, slices: &[io::IoSlice<'_>]) -> rustix::io::Result<usize> {
        const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
        match slices {
            [one] => rustix::net::send(self, one, FLAGS),
            many => rustix::net::sendmsg(self, many, &mut SendAncillaryBuffer::default(), FLAGS),
        }
    }

    /// A FIN goes out; what was sent before it still arrives.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self, Shutdown::Write)?)
    }

    /// Ends every operation in flight and sends a FIN: while an operation is in flight, a close alone does neither.
    pub(super) fn shutdown_both(&self) {
        let _ = rustix::net::shutdown(self, Shutdown::Both); // fails only where there is nothing left to shut down
    }

    /// Whether the peer ended its side, reset the connection, or it failed; unread bytes do not hide it.
    pub(super) fn peer_gone(&self) -> bool {
        let mut polled = [PollFd::new(self, PollFlags::RDHUP)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut polled, Some(&now)) {
            Ok(_) => {
                polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
            }
            Err(_) => false,
        }
    }

    /// Milliseconds since the kernel received the last byte, read or not. `None` where there is no TCP that could tell.
    pub(super) fn silent_ms(&self) -> Option<u64> {
        let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
        let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes into `info`, which is as large, and keeps neither pointer.
        let got = unsafe {
            libc::getsockopt(self.raw, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut bytes)
        };
        // SAFETY: `tcp_info` is plain numbers; all zero is one of its values.
        let info = unsafe { info.assume_init() };
        let is_told = got == 0 && bytes as usize >= std::mem::offset_of!(libc::tcp_info, tcpi_last_ack_recv);
        is_told.then_some(u64::from(info.tcpi_last_data_recv))
    }

    /// Bytes that the kernel took and the peer has not acknowledged; a Unix socket counts their buffers.
    pub(super) fn unacknowledged(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (SIOCOUTQ) writes one int where the pointer says.
        let got = unsafe { libc::ioctl(self.raw, libc::TIOCOUTQ, &raw mut bytes) };
        if got == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// Nothing has arrived, and the peer has not ended its side. Reads nothing; never while a read is in flight.
    pub(super) fn is_silent(&self) -> bool {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self, &mut [0u8; 1], look), Err(Errno::AGAIN))
    }

    /// A second descriptor of the same socket.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(self, 3)?) // above stdin, stdout and stderr
    }

    pub(super) fn set_cloexec(&self) -> io::Result<()> {
        Ok(rustix::io::fcntl_setfd(self, rustix::io::FdFlags::CLOEXEC)?)
    }

    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(rustix::net::getpeername(self).ok()??).ok()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.stream` owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.raw) }
    }
}

/// The next connection of the backlog, CLOEXEC set; `WouldBlock` where none waits. Only while no accept is in flight, and for
/// the last ones: the listener does not block any more afterwards.
pub(super) fn accept_waiting(listener: &TcpListener) -> io::Result<(Socket, SocketAddr)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    // SAFETY: the listener owns the descriptor and outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    rustix::io::ioctl_fionbio(fd, true)?;
    let (accepted, peer) = acceptfrom_with(fd, SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((Socket::from_fd(accepted)?, peer.ok_or(io::ErrorKind::AddrNotAvailable)?))
}

/// A connection waits in the backlog.
pub(super) fn has_waiting(listener: &TcpListener) -> bool {
    // SAFETY: the listener owns the descriptor and outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..)) && polled[0].revents().contains(PollFlags::IN)
}

/// Stops listening at once; an accept in flight ends.
pub(super) fn stop_listening(listener: &TcpListener) {
    // SAFETY: the listener owns the descriptor and outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    let _ = rustix::net::shutdown(fd, Shutdown::Both); // fails only where it does not listen any more
}

/// Takes over the descriptors `first..first + count`, which whoever started this process left open for it, CLOEXEC set; those
/// that are no listening TCP sockets are closed. Each comes with its place among them. Once in the life of a process, for
/// descriptors that nobody else here knows.
pub fn inherited_listeners(first: RawFd, count: usize) -> Vec<(usize, std::net::TcpListener)> {
    use rustix::net::sockopt::{socket_acceptconn, socket_domain};
    let mut listeners = Vec::new();
    for (place, raw) in (first..).take(count).enumerate() {
        // SAFETY: only looked at; a descriptor that is not open is an error of fcntl, not a fault.
        if rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(raw) }, rustix::io::FdFlags::CLOEXEC).is_err() {
            continue;
        }
        // SAFETY: it is open, and by the caller's promise nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let is_internet = matches!(socket_domain(&fd), Ok(AddressFamily::INET | AddressFamily::INET6));
        if is_internet && matches!(socket_acceptconn(&fd), Ok(true)) {
            listeners.push((place, fd.into()));
        }
    }
    listeners
}

/// The program that `command` starts gets standard input, output and error, and no other descriptor. Without this it would
/// now and then hold a connection open for ever: monoio accepts without CLOEXEC, which is set a moment later.
pub fn only_standard_descriptors(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    let close_others = || {
        // SAFETY: a system call that touches no memory; CLOSE_RANGE_CLOEXEC (Linux 5.11) closes nothing before the exec.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(close_others) };
}
