//! The workers: each serves one request at a time, holds it for the time that it names, and answers. They dial a PTTH
//! edge, or listen for an ordinary proxy. Who decides which worker gets what never enters.
//!
//! A worker that listens may be given more than one request; they wait in its own line, the oldest first, as they would
//! before a server with one thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Waker};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use h2::server::SendResponse;
use slab::Slab;

use super::book::Book;
use super::clock::now_ns;
use super::h2_link::H2Link;
use super::http::{ANSWER, HOST, Order, REFUSAL, head_len, order};
use super::limits::{HEAD_BYTES_MAX, READ_BYTES, START_MS_MAX, WORKER_LINES_MAX};
use super::poll::{Interest, Poll, Token};

/// How workers are tied to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// One link for each worker; a link over HTTP/1.1 is one credit.
    H1,
    /// So many links; the workers are their credits, shared as evenly as it goes.
    H2(u32),
}

pub struct Workers {
    seats: Vec<Seat>,
    lines: Vec<Option<Line>>,
    doors: Vec<Door>,
    jobs: Slab<Job>,
    /// When each job is done, and its key.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    scratch: Box<[u8]>,
    pub troubles: Troubles,
}

/// What should not happen. A pass with any of it is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Links that ended while they should have stood.
    pub links_lost: u64,
    /// Requests on a link beyond its credits.
    pub over_credit: u64,
    /// Requests that are not the generator's.
    pub no_orders: u64,
}

/// One worker.
#[derive(Default)]
struct Seat {
    is_busy: bool,
    waiting: VecDeque<(u32, Order)>,
}

struct Door {
    listener: TcpListener,
    seat: u32,
}

enum Line {
    H1 { stream: TcpStream, seat: u32, seen: Vec<u8>, is_link: bool },
    H2 { link: H2Link, seats: std::ops::Range<u32> },
}

/// A request that is being held.
struct Job {
    number: u64,
    line: u32,
    seat: Option<u32>,
    reply: Reply,
}

enum Reply {
    H1,
    H2(SendResponse<Bytes>),
}

impl Workers {
    /// `count` servers on loopback, each with a port of its own.
    pub fn listening(count: u32, poll: &Poll) -> io::Result<Workers> {
        let mut workers = Workers::new(count);
        for seat in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            poll.add(&listener, Token::Door(seat), Interest::Read)?;
            workers.doors.push(Door { listener, seat });
        }
        Ok(workers)
    }

    /// `count` workers behind links to `edge`. `credential` is `id:secret`.
    pub fn dialed(count: u32, links: Links, edge: SocketAddr, credential: &str, poll: &Poll) -> io::Result<Workers> {
        let mut workers = Workers::new(count);
        match links {
            Links::H1 => {
                for seat in 0..count {
                    let (stream, seen) = set_up(edge, credential, "http%2F1.1")?;
                    workers.add(Line::H1 { stream, seat, seen, is_link: true }, poll)?;
                }
            }
            Links::H2(links) => {
                let mut first = 0;
                for link in 0..links {
                    let credits = (count - first).div_ceil(links - link);
                    let (stream, seen) = set_up(edge, credential, "h2")?;
                    let line = H2Link::new(stream, seen, credits);
                    let index = workers.add(Line::H2 { link: line, seats: first..first + credits }, poll)?;
                    workers.drive_h2(index, None); // its SETTINGS are the first word
                    first += credits;
                }
            }
        }
        Ok(workers)
    }

    fn new(count: u32) -> Workers {
        Workers {
            seats: (0..count).map(|_| Seat::default()).collect(),
            lines: Vec::new(),
            doors: Vec::new(),
            jobs: Slab::new(),
            timers: BinaryHeap::new(),
            scratch: vec![0; READ_BYTES].into(),
            troubles: Troubles::default(),
        }
    }

    /// Where the workers listen, one address each.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.doors.iter().map(|door| door.listener.local_addr()).collect()
    }

    /// When the next answer is due.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Gives the answer that is due first. Its worker begins with the next in its own line, if any.
    pub fn answer_next(&mut self, book: &mut Book) {
        let Some(Reverse((_, key))) = self.timers.pop() else { return };
        let job = self.jobs.remove(key);
        let now = now_ns();
        book.ended(job.number, now);
        // Free first: while the link is driven, the next request may be there already.
        let next = job.seat.and_then(|seat| {
            let seat = &mut self.seats[seat as usize];
            seat.is_busy = false;
            seat.waiting.pop_front()
        });
        match job.reply {
            Reply::H1 => self.write(job.line, ANSWER),
            Reply::H2(respond) => {
                H2Link::answer(respond);
                self.drive_h2(job.line, Some(book));
            }
        }
        if let Some((line, order)) = next {
            self.begin(line, order, job.seat, Reply::H1, now, book);
        }
    }

    /// Takes in the connections that wait at a door.
    pub fn accept(&mut self, door: u32, poll: &Poll) -> io::Result<()> {
        loop {
            let Door { listener, seat } = &self.doors[door as usize];
            let seat = *seat;
            match listener.accept() {
                Ok((stream, _)) => {
                    self.add(Line::H1 { stream, seat, seen: Vec::new(), is_link: false }, poll)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what came on a connection.
    pub fn ready(&mut self, index: u32, book: &mut Book) {
        match &self.lines[index as usize] {
            Some(Line::H1 { .. }) => self.read_h1(index, book),
            Some(Line::H2 { .. }) => self.drive_h2(index, Some(book)),
            None => {}
        }
    }

    fn add(&mut self, line: Line, poll: &Poll) -> io::Result<u32> {
        if self.lines.len() >= WORKER_LINES_MAX {
            return Err(io::Error::other(format!("the workers were given more than {WORKER_LINES_MAX} connections")));
        }
        let index = self.lines.len() as u32;
        let stream = match &line {
            Line::H1 { stream, .. } => stream,
            Line::H2 { link, .. } => link.stream(),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poll.add(stream, Token::Worker(index), Interest::Read)?;
        self.lines.push(Some(line));
        Ok(index)
    }

    fn read_h1(&mut self, index: u32, book: &mut Book) {
        let Some(Line::H1 { stream, seat, seen, .. }) = &mut self.lines[index as usize] else { return };
        let seat = *seat;
        let read = match stream.read(&mut self.scratch) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        if read == 0 {
            return self.close(index);
        }
        let now = now_ns();
        let mut orders = VecDeque::new();
        seen.extend_from_slice(&self.scratch[..read]);
        while let Some(len) = head_len(seen) {
            orders.push_back(order(&seen[..len]));
            seen.drain(..len);
        }
        if seen.len() > HEAD_BYTES_MAX {
            return self.close(index);
        }
        for order in orders {
            match order {
                Some(order) if self.seats[seat as usize].is_busy => {
                    let Some(Line::H1 { is_link, .. }) = &self.lines[index as usize] else { return };
                    self.troubles.over_credit += u64::from(*is_link);
                    self.seats[seat as usize].waiting.push_back((index, order));
                }
                Some(order) => self.begin(index, order, Some(seat), Reply::H1, now, book),
                None => {
                    self.troubles.no_orders += 1;
                    self.write(index, REFUSAL);
                }
            }
        }
    }

    /// Lets the h2 engine read and write all that it can, and begins with what came out of it.
    fn drive_h2(&mut self, index: u32, book: Option<&mut Book>) {
        let Some(Line::H2 { link, seats }) = &mut self.lines[index as usize] else { return };
        let seats = seats.clone();
        // Nobody is woken by the engine: it is asked again whenever its socket or one of its answers is ready.
        let asked = link.drive(&mut Context::from_waker(Waker::noop()));
        let now = now_ns();
        let is_over = link.is_over();
        if let Some(book) = book {
            for (order, respond) in asked {
                let Some(order) = order else {
                    self.troubles.no_orders += 1;
                    continue; // dropping the stream resets it
                };
                let seat = seats.clone().find(|&seat| !self.seats[seat as usize].is_busy);
                self.troubles.over_credit += u64::from(seat.is_none());
                self.begin(index, order, seat, Reply::H2(respond), now, book);
            }
        }
        if is_over {
            self.close(index);
        }
    }

    fn begin(&mut self, line: u32, order: Order, seat: Option<u32>, reply: Reply, now_ns: u64, book: &mut Book) {
        book.started(order.number, seat, now_ns);
        if let Some(seat) = seat {
            self.seats[seat as usize].is_busy = true;
        }
        let key = self.jobs.insert(Job { number: order.number, line, seat, reply });
        self.timers.push(Reverse((now_ns + u64::from(order.service_us) * 1_000, key)));
    }

    /// A small answer always fits into the socket of somebody who waits for it; who does not take it is gone.
    fn write(&mut self, index: u32, bytes: &[u8]) {
        if let Some(Line::H1 { stream, .. }) = &mut self.lines[index as usize]
            && stream.write(bytes).ok() != Some(bytes.len())
        {
            self.close(index);
        }
    }

    fn close(&mut self, index: u32) {
        if let Some(Line::H1 { is_link: true, .. } | Line::H2 { .. }) = self.lines[index as usize].take() {
            self.troubles.links_lost += 1;
        }
    }
}

/// Turns a connection (draft-kazuho-ptth-ptth-01): the stream, and what the edge said behind its 101.
fn set_up(edge: SocketAddr, credential: &str, alpn: &str) -> io::Result<(TcpStream, Vec<u8>)> {
    let wait_max = Duration::from_millis(START_MS_MAX);
    let mut stream = TcpStream::connect_timeout(&edge, wait_max)?;
    stream.set_read_timeout(Some(wait_max))?;
    let credential = BASE64_STANDARD.encode(credential);
    let request = format!(
        "GET /.well-known/ptth/http%3A%2F%2F{HOST}/ HTTP/1.1\r\nHost: {edge}\r\nConnection: upgrade\r\n\
         Upgrade: ptth\r\nALPN: {alpn}\r\nAuthorization: Basic {credential}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer)?;
        seen.extend_from_slice(&buffer[..read]);
        if let Some(len) = head_len(&seen) {
            let head: Vec<u8> = seen.drain(..len).collect();
            if !head.starts_with(b"HTTP/1.1 101 ") {
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                return Err(io::Error::other(format!("the edge answered a setup with {line:?}")));
            }
            stream.set_read_timeout(None)?;
            return Ok((stream, seen));
        }
        if read == 0 || seen.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the edge closed a connection instead of turning it"));
        }
    }
}
