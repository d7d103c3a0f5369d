//! The generator: sends each request at its due time, whatever became of those before it, and writes down when its
//! answer came. What the answers mean never enters.
//!
//! As an open loop it has a connection for every request that is out, so nothing waits for one. As a central queue it is
//! the floor: the requests wait here, and go straight to a worker that is free.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::book::{Book, Fate};
use super::clock::now_ns;
use super::http::{AnswerHead, answer, head_len, write_request};
use super::limits::{CONNECTING_MAX, CONNECTIONS_LOW, HEAD_BYTES_MAX, READ_BYTES};
use super::poll::{Interest, Poll, Token};
use super::trace::Class;

pub struct Generator {
    order: Order,
    /// An index is used once only.
    lines: Vec<Option<Line>>,
    /// Connections without a request, the one that was used longest ago first: so all of them, and all cores of an edge
    /// behind them, have their share. Some may have been closed since.
    free: VecDeque<u32>,
    connecting: usize,
    open: usize,
    scratch: Box<[u8]>,
    request: Vec<u8>,
    pub troubles: Troubles,
}

/// What should not happen. A pass with any of it is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Connections that were opened only when their request was due, which was sent late.
    pub opened_late: u64,
    /// Connections that ended, or said something that is no answer, while a request was out.
    pub broken: u64,
}

enum Order {
    OpenLoop { to: SocketAddr, connections_max: usize },
    CentralQueue { waiting: [VecDeque<u64>; Class::ALL.len()], count: usize, waiting_max: usize },
}

struct Line {
    stream: TcpStream,
    state: State,
    /// An answer that is not complete.
    seen: Vec<u8>,
}

/// Connecting --connected--> Free --request--> Asked --answer--> Free;   every state --end, error--> gone
enum State {
    /// With the request that waits for it, if it was opened too late.
    Connecting {
        number: Option<u64>,
    },
    Free,
    Asked {
        number: u64,
    },
}

/// What a read brought.
enum Came {
    /// More must come.
    Part,
    Answer(AnswerHead),
    /// The end, an error, or bytes that are no answer.
    Nonsense,
}

impl Generator {
    pub fn open_loop(to: SocketAddr, connections_max: usize) -> Generator {
        Generator::new(Order::OpenLoop { to, connections_max })
    }

    /// One connection to each worker, and a queue before them that holds at most `waiting_max`.
    pub fn central_queue(workers: &[SocketAddr], waiting_max: usize, poll: &Poll) -> io::Result<Generator> {
        let order = Order::CentralQueue { waiting: Default::default(), count: 0, waiting_max };
        let mut generator = Generator::new(order);
        for &worker in workers {
            generator.connect(worker, None, poll)?;
        }
        Ok(generator)
    }

    fn new(order: Order) -> Generator {
        Generator {
            order,
            lines: Vec::new(),
            free: VecDeque::new(),
            connecting: 0,
            open: 0,
            scratch: vec![0; READ_BYTES].into(),
            request: Vec::new(),
            troubles: Troubles::default(),
        }
    }

    /// Opens connections towards `wanted` in all, a few at a time; true when they stand. Call it again after events.
    pub fn grow(&mut self, wanted: usize, poll: &Poll) -> io::Result<bool> {
        if let Order::OpenLoop { to, connections_max } = self.order {
            while self.open < wanted.min(connections_max) && self.connecting < CONNECTING_MAX {
                self.connect(to, None, poll)?;
            }
            return Ok(self.connecting == 0 && self.open >= wanted.min(connections_max));
        }
        Ok(self.connecting == 0)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// A request is due.
    pub fn offer(&mut self, number: u64, poll: &Poll, book: &mut Book) -> io::Result<()> {
        let Some(planned) = book.planned(number) else { return Ok(()) };
        let free = self.take_free();
        if let Order::CentralQueue { waiting, count, waiting_max } = &mut self.order {
            let now = now_ns();
            book.sent(number, now);
            match free {
                Some(index) => self.ask(index, number, book),
                None if count < waiting_max => {
                    waiting[planned.class.index()].push_back(number);
                    *count += 1;
                }
                None => book.settle(number, Fate::Answered { at_ns: now, status: 503 }),
            }
            return Ok(());
        }
        let Order::OpenLoop { to, connections_max } = self.order else { return Ok(()) };
        let may_grow = self.open < connections_max;
        match free {
            Some(index) => self.ask(index, number, book),
            None if may_grow => {
                self.troubles.opened_late += 1;
                return self.connect(to, Some(number), poll);
            }
            None => book.settle(number, Fate::Unsent),
        }
        if self.free.len() < CONNECTIONS_LOW && may_grow && self.connecting < CONNECTING_MAX {
            self.connect(to, None, poll)?;
        }
        Ok(())
    }

    /// A connection has something to say.
    pub fn ready(&mut self, index: u32, poll: &Poll, book: &mut Book) -> io::Result<()> {
        let Some(line) = &mut self.lines[index as usize] else { return Ok(()) };
        match line.state {
            State::Connecting { number } => {
                self.connecting -= 1;
                if line.stream.take_error()?.is_some() {
                    self.close(index, book);
                    if let Some(number) = number {
                        book.settle(number, Fate::Lost);
                    }
                    return Ok(());
                }
                poll.change(&line.stream, Token::Client(index), Interest::Read)?;
                line.state = State::Free;
                match number {
                    Some(number) => self.ask(index, number, book),
                    None => self.is_free(index, book),
                }
            }
            State::Free => self.close(index, book), // closed from there, or a word that nobody asked for
            State::Asked { number } => match line.read(&mut self.scratch) {
                Came::Part => {}
                Came::Answer(head) => {
                    let at_ns = now_ns();
                    book.settle(number, Fate::Answered { at_ns, status: head.status });
                    line.state = State::Free;
                    if head.closes {
                        self.close(index, book);
                    } else {
                        self.is_free(index, book);
                    }
                }
                Came::Nonsense => self.close(index, book),
            },
        }
        Ok(())
    }

    fn connect(&mut self, to: SocketAddr, number: Option<u64>, poll: &Poll) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let index = self.lines.len() as u32;
        let stream = TcpStream::from(socket);
        poll.add(&stream, Token::Client(index), Interest::Write)?;
        self.lines.push(Some(Line { stream, state: State::Connecting { number }, seen: Vec::new() }));
        self.connecting += 1;
        self.open += 1;
        Ok(())
    }

    fn take_free(&mut self) -> Option<u32> {
        while let Some(index) = self.free.pop_front() {
            if self.lines[index as usize].is_some() {
                return Some(index);
            }
        }
        None
    }

    /// A connection came free: it takes the most urgent of those that wait here, or waits itself.
    fn is_free(&mut self, index: u32, book: &mut Book) {
        if let Order::CentralQueue { waiting, count, .. } = &mut self.order
            && let Some(number) = waiting.iter_mut().find_map(VecDeque::pop_front)
        {
            *count -= 1;
            return self.ask(index, number, book);
        }
        self.free.push_back(index);
    }

    fn ask(&mut self, index: u32, number: u64, book: &mut Book) {
        let Some(line) = &mut self.lines[index as usize] else { return };
        let Some(planned) = book.planned(number) else {
            return self.is_free(index, book); // it waited here since a pass that is over
        };
        write_request(&mut self.request, number, &planned);
        line.state = State::Asked { number };
        if matches!(self.order, Order::OpenLoop { .. }) {
            book.sent(number, now_ns());
        }
        // One request is out at a time, so the socket has room; if it takes less, it is no good.
        if line.stream.write(&self.request).ok() != Some(self.request.len()) {
            self.close(index, book);
        }
    }

    fn close(&mut self, index: u32, book: &mut Book) {
        let Some(line) = self.lines[index as usize].take() else { return };
        self.open -= 1;
        if let State::Asked { number } = line.state {
            self.troubles.broken += 1;
            book.settle(number, Fate::Lost);
        }
    }
}

impl Line {
    fn read(&mut self, scratch: &mut [u8]) -> Came {
        let read = match self.stream.read(scratch) {
            Ok(0) => return Came::Nonsense,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Came::Part,
            Err(_) => return Came::Nonsense,
        };
        self.seen.extend_from_slice(&scratch[..read]);
        let Some(len) = head_len(&self.seen) else {
            return if self.seen.len() > HEAD_BYTES_MAX { Came::Nonsense } else { Came::Part };
        };
        let Some(head) = answer(&self.seen[..len]) else { return Came::Nonsense };
        match self.seen.len() - len {
            body if body < head.body_bytes && head.body_bytes <= HEAD_BYTES_MAX => Came::Part,
            body if body == head.body_bytes => {
                self.seen.clear();
                Came::Answer(head)
            }
            _ => Came::Nonsense,
        }
    }
}
