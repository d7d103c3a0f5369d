//! TLS on a connection: records that arrived become plaintext, plaintext becomes records on their way. Sockets are only
//! offered bytes here, never waited for; certificates, and who may speak, never enter.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::io::{self, BufRead, IoSlice, Write};
use std::rc::Rc;

use bytes::BytesMut;
use rustls::Connection;
use rustls::pki_types::CertificateDer;

use super::socket::Socket;
use crate::limits::SEALED_BYTES_MAX;

thread_local! {
    /// What a read brought, while its buffer takes the plaintext.
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One connection's session, shared by its reader and its writer. Both only call into it; neither holds it over an await.
#[derive(Clone)]
pub(super) struct Session {
    inner: Rc<Inner>,
}

struct Inner {
    connection: RefCell<Connection>,
    /// The peer said that nothing follows (close_notify).
    is_ended: Cell<bool>,
    /// We have said so.
    has_said_end: Cell<bool>,
    /// Bytes of records that the socket took, whoever offered them.
    bytes_out: Cell<u64>,
}

impl Session {
    pub fn new(mut connection: Connection) -> Session {
        connection.set_buffer_limit(Some(SEALED_BYTES_MAX));
        Session {
            inner: Rc::new(Inner {
                connection: RefCell::new(connection),
                is_ended: Cell::new(false),
                has_said_end: Cell::new(false),
                bytes_out: Cell::new(0),
            }),
        }
    }

    /// The connection back, for another core. `None` while somebody else has the session, too.
    pub fn into_connection(self) -> Option<Connection> {
        Rc::into_inner(self.inner).map(|inner| inner.connection.into_inner())
    }

    pub fn connection(&self) -> RefMut<'_, Connection> {
        self.inner.connection.borrow_mut()
    }

    /// The peer has said so already, on the core where the connection was before.
    pub fn ends(&self) {
        self.inner.is_ended.set(true);
    }

    /// The peer said that nothing follows.
    pub fn is_ended(&self) -> bool {
        self.inner.is_ended.get()
    }

    pub fn is_handshaking(&self) -> bool {
        self.inner.connection.borrow().is_handshaking()
    }

    /// Records wait for the socket.
    pub fn is_sealed(&self) -> bool {
        self.inner.connection.borrow().wants_write()
    }

    /// Makes plaintext of the first `n` bytes of `buffer`, which are records as they arrived; a record may begin in one read
    /// and end in a later one. What has to be said in return waits for [`Session::push`], also after an error.
    pub fn open(&self, buffer: &mut BytesMut, n: usize) -> io::Result<()> {
        RECORDS.with_borrow_mut(|records| {
            records.clear();
            records.extend_from_slice(&buffer[..n]);
            buffer.clear();
            let connection = &mut *self.inner.connection.borrow_mut();
            let mut left = &records[..];
            while !left.is_empty() {
                if connection.read_tls(&mut left)? == 0 {
                    break; // bytes behind a close_notify are nobody's
                }
                let state = connection.process_new_packets().map_err(malformed)?;
                let mut plain = state.plaintext_bytes_to_read();
                let mut reader = connection.reader();
                while plain > 0 {
                    let chunk = reader.fill_buf()?;
                    let bytes = chunk.len();
                    buffer.extend_from_slice(chunk);
                    reader.consume(bytes);
                    plain -= bytes;
                }
                if state.peer_has_closed() {
                    self.ends();
                }
            }
            Ok(())
        })
    }

    /// Makes records of `slices`, and says how many of their bytes it took: a session holds `SEALED_BYTES_MAX` at most.
    pub fn seal(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.connection.borrow_mut().writer().write_vectored(slices)
    }

    /// Bytes of records that the socket took.
    pub fn bytes_out(&self) -> u64 {
        self.inner.bytes_out.get()
    }

    /// Offers the socket what waits. Some may still wait then: the socket is full.
    pub fn push(&self, socket: &Socket) -> io::Result<()> {
        let connection = &mut *self.inner.connection.borrow_mut();
        let mut out = Out { socket, bytes: &self.inner.bytes_out };
        while connection.wants_write() {
            match connection.write_tls(&mut out) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has it said once that nothing follows: [`Session::push`] brings it out. A handshake that failed has said why instead.
    pub fn say_end(&self) {
        if !self.is_handshaking() && !self.inner.has_said_end.replace(true) {
            self.inner.connection.borrow_mut().send_close_notify();
        }
    }
}

#[cold]
fn malformed(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket as rustls wants it.
struct Out<'a> {
    socket: &'a Socket,
    bytes: &'a Cell<u64>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let taken = self.socket.send(slices)?;
        self.bytes.set(self.bytes.get() + taken as u64);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a handshake said.
pub struct Secured {
    /// The protocol that both chose (ALPN).
    pub protocol: Option<Vec<u8>>,
    /// The name that a client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The peer's certificate, checked when this session was made, and those of its authorities behind it. Empty: it has shown
    /// none.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Secured {
    pub(super) fn of(connection: &Connection) -> Secured {
        Secured {
            protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
            server_name: match connection {
                Connection::Server(server) => server.server_name().map(str::to_ascii_lowercase),
                Connection::Client(_) => None,
            },
            certificates: connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        }
    }
}
