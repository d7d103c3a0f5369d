//! One end of a TCP connection that a test scripts byte by byte, with a reader for HTTP/1.1 that accepts nothing
//! doubtful. Whoever is at the other end never enters.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{HANG, HOST, QUIET, stream_to};

/// How the other side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// A message as it stood on the wire.
#[derive(Clone, Debug)]
pub struct Message {
    /// Request line or status line.
    pub line: String,
    /// In their order, names as they were written.
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// Bytes of each chunk.
    pub chunks: Vec<usize>,
    pub trailers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Message {
    #[track_caller]
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    pub fn method(&self) -> &str {
        self.line.split(' ').next().expect("a request line")
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request line")
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that may be there once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is there {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Whether `Connection` has this option.
    pub fn connection(&self, option: &str) -> bool {
        let values = self.all("connection");
        values.iter().flat_map(|value| value.split(',')).any(|own| own.trim().eq_ignore_ascii_case(option))
    }
}

pub struct Peer {
    pub stream: TcpStream,
    /// Read and not yet used.
    seen: Vec<u8>,
    ended: Option<End>,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::new(stream_to(address))
    }

    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(HANG)).expect("a timeout");
        stream.set_write_timeout(Some(HANG)).expect("a timeout");
        Peer { stream, seen: Vec::new(), ended: None }
    }

    /// A second handle to the same connection, for another thread. What one has read, the other has not.
    pub fn twin(&self) -> Peer {
        Peer::new(self.stream.try_clone().expect("a descriptor"))
    }

    // ---- writing ----

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the other side reads");
    }

    /// As far as the other side wants it; an end is met by whoever reads.
    pub fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) {
        self.send(super::get(path));
    }

    /// Sends a GET and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, path: &str) -> Message {
        self.get(path);
        self.response()
    }

    /// A plain answer.
    #[track_caller]
    pub fn ok(&mut self, body: &str) {
        self.send(super::ok(body));
    }

    /// Reads a request and gives it a plain answer.
    #[track_caller]
    pub fn serve(&mut self, body: &str) -> Message {
        let request = self.request();
        self.ok(body);
        request
    }

    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both ways, for its twins too: what still comes is refused by the kernel.
    pub fn leave(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    // ---- reading ----

    /// Reads once; false at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = Some(End::Fin),
                Ok(n) => {
                    self.seen.extend_from_slice(&buffer[..n]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing comes; so far {:?}", self.shown())
                }
                Err(_) => self.ended = Some(End::Reset),
            }
            return false;
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen[..self.seen.len().min(600)]).into_owned()
    }

    /// Exactly the next bytes.
    #[track_caller]
    pub fn read(&mut self, bytes: usize) -> Vec<u8> {
        while self.seen.len() < bytes {
            assert!(self.fill(), "ended after {} of {bytes} bytes: {:?}", self.seen.len(), self.shown());
        }
        self.seen.drain(..bytes).collect()
    }

    /// As [`Peer::read`]; `None` where the other side ended before it.
    #[track_caller]
    pub fn try_read(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.seen.len() < bytes {
            if !self.fill() {
                return None;
            }
        }
        Some(self.seen.drain(..bytes).collect())
    }

    /// Some of the next bytes, at most so many; `None` at the end.
    #[track_caller]
    pub fn read_up_to(&mut self, bytes: usize) -> Option<Vec<u8>> {
        if self.seen.is_empty() && !self.fill() {
            return None;
        }
        let bytes = bytes.min(self.seen.len());
        Some(self.seen.drain(..bytes).collect())
    }

    /// Up to and with `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.seen.windows(end.len()).position(|window| window == end) {
                return self.seen.drain(..at + end.len()).collect();
            }
            assert!(self.fill(), "ended before {end:?}: {:?}", self.shown());
        }
    }

    /// Whether something is there to read, or the end. Does not wait.
    pub fn has_some(&mut self) -> bool {
        if !self.seen.is_empty() || self.ended.is_some() {
            return true;
        }
        self.stream.set_nonblocking(true).expect("nonblocking");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("blocking");
        !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// As [`Peer::has_some`], after a moment.
    pub fn has_some_soon(&mut self) -> bool {
        let until = Instant::now() + QUIET;
        while !self.has_some() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// The other side has ended, and all that it said was read. Does not wait.
    pub fn is_over(&mut self) -> bool {
        self.seen.is_empty() && self.has_some() && !self.fill()
    }

    /// Until something is there to read, or the end.
    #[track_caller]
    pub fn wait_for_some(&mut self) {
        until(|| self.has_some());
    }

    /// The socket, ready for tokio, and what was read of it.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.stream.set_nonblocking(true).expect("nonblocking");
        (self.stream, self.seen)
    }

    /// Whatever comes next, at least one byte; `None` at the end.
    #[track_caller]
    pub fn read_some(&mut self) -> Option<Vec<u8>> {
        if self.seen.is_empty() && !self.fill() {
            return None;
        }
        Some(std::mem::take(&mut self.seen))
    }

    /// All that is left, and how the other side ended.
    #[track_caller]
    pub fn end(&mut self) -> (Vec<u8>, End) {
        while self.fill() {}
        (std::mem::take(&mut self.seen), self.ended.expect("it ended"))
    }

    /// Nothing more comes, only the end.
    #[track_caller]
    pub fn ends(&mut self) {
        let (rest, _) = self.end();
        assert!(rest.is_empty(), "then came {:?}", String::from_utf8_lossy(&rest));
    }

    /// For a moment nothing comes, not even the end.
    #[track_caller]
    pub fn is_quiet(&mut self) {
        assert!(self.seen.is_empty(), "came: {:?}", self.shown());
        assert_eq!(self.ended, None);
        self.stream.set_read_timeout(Some(QUIET)).expect("a timeout");
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the other side ended"),
            Ok(n) => panic!("came: {:?}", String::from_utf8_lossy(&buffer[..n])),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            }
        }
        self.stream.set_read_timeout(Some(HANG)).expect("a timeout");
    }

    // ---- HTTP/1.1 ----

    /// The next head; `None` at the end before its first byte.
    #[track_caller]
    pub fn try_head(&mut self) -> Option<Message> {
        let end = loop {
            if let Some(at) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.fill() {
                assert!(self.seen.is_empty(), "cut in a head: {:?}", self.shown());
                return None;
            }
        };
        let head: Vec<u8> = self.seen.drain(..end + 4).take(end).collect();
        let head: String = head.iter().map(|byte| char::from(*byte)).collect(); // Latin-1: nothing is lost
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("a first line").to_owned();
        let fields: Vec<_> = lines.map(field_of).collect();
        let mut message = Message {
            line,
            fields,
            framing: Framing::None,
            body: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
        };
        message.framing = framing_of(&message);
        Some(message)
    }

    /// As [`Peer::try_head`], where the head itself may be cut.
    #[track_caller]
    pub fn try_head_or_cut(&mut self) -> Option<Message> {
        while !self.seen.windows(4).any(|four| four == b"\r\n\r\n") {
            if !self.fill() {
                return None;
            }
        }
        self.try_head()
    }

    /// As [`Peer::try_head_or_cut`], if it comes in a moment.
    #[track_caller]
    pub fn try_head_soon(&mut self) -> Option<Message> {
        if self.has_some_soon() { self.try_head_or_cut() } else { None }
    }

    #[track_caller]
    pub fn head(&mut self) -> Message {
        self.try_head().unwrap_or_else(|| panic!("ended ({:?}) before a head", self.ended))
    }

    /// The body behind a head. `Err`: it was cut, and so much of it had come.
    #[track_caller]
    pub fn body(&mut self, message: &mut Message) -> Result<(), End> {
        match message.framing {
            Framing::None => Ok(()),
            Framing::Length(bytes) => {
                while (self.seen.len() as u64) < bytes {
                    if !self.fill() {
                        message.body = std::mem::take(&mut self.seen);
                        return Err(self.ended.expect("it ended"));
                    }
                }
                message.body = self.seen.drain(..bytes as usize).collect();
                Ok(())
            }
            Framing::UntilClose => {
                let (body, end) = self.end();
                message.body = body;
                if end == End::Fin { Ok(()) } else { Err(end) }
            }
            Framing::Chunked => self.chunks(message),
        }
    }

    #[track_caller]
    fn chunks(&mut self, message: &mut Message) -> Result<(), End> {
        loop {
            let size = self.line()?;
            let bytes = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a chunk size: {size:?}"));
            if bytes == 0 {
                break;
            }
            while self.seen.len() < bytes + 2 {
                if !self.fill() {
                    message.body.append(&mut self.seen);
                    return Err(self.ended.expect("it ended"));
                }
            }
            message.body.extend(self.seen.drain(..bytes));
            message.chunks.push(bytes);
            let end: Vec<u8> = self.seen.drain(..2).collect();
            assert_eq!(end, b"\r\n", "a chunk's end");
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            message.trailers.push(field_of(&line));
        }
    }

    #[track_caller]
    fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = self.seen.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.seen.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill() {
                return Err(self.ended.expect("it ended"));
            }
        }
    }

    /// The next complete request.
    #[track_caller]
    pub fn request(&mut self) -> Message {
        let mut request = self.head();
        assert!(request.line.ends_with(" HTTP/1.1"), "{request:?}");
        if let Err(end) = self.body(&mut request) {
            panic!("cut ({end:?}) in the body of {request:?}");
        }
        request
    }

    /// The next complete response, interim ones included.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        let mut response = self.head();
        assert!(response.line.starts_with("HTTP/1.1 "), "{response:?}");
        if let Err(end) = self.body(&mut response) {
            panic!("cut ({end:?}) in the body of {response:?}");
        }
        response
    }

    /// The response to a HEAD request.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Message {
        self.head()
    }
}

#[track_caller]
fn field_of(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field: {line:?}"));
    assert!(!name.is_empty() && !name.contains(' '), "a field's name: {line:?}");
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}

/// RFC 9112 §6.3, for one who trusts nobody.
#[track_caller]
fn framing_of(message: &Message) -> Framing {
    let lengths = message.all("content-length");
    let codings = message.all("transfer-encoding");
    assert!(lengths.len() + codings.len() <= 1, "framed twice: {message:?}");
    let is_response = message.line.starts_with("HTTP/");
    if is_response && matches!(message.status(), 100..=199 | 204 | 304) {
        assert!(codings.is_empty(), "{message:?}");
        assert!(lengths.is_empty() || message.status() == 304, "{message:?}");
        return Framing::None;
    }
    match (lengths.first(), codings.first()) {
        (Some(bytes), _) => Framing::Length(bytes.parse().expect("a number")),
        (None, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case("chunked"), "{message:?}");
            Framing::Chunked
        }
        (None, None) if is_response => Framing::UntilClose,
        (None, None) => Framing::None,
    }
}

/// Waits for all of several answers, each on its own connection.
#[track_caller]
pub fn statuses(clients: &mut [Peer]) -> Vec<u16> {
    clients.iter_mut().map(|client| client.response().status()).collect()
}

/// Polls `ready` until it says yes.
#[track_caller]
pub fn until(mut ready: impl FnMut() -> bool) {
    let from = Instant::now();
    while !ready() {
        assert!(from.elapsed() < HANG, "never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The request line and the Host, without the blank line.
pub fn start(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n")
}
