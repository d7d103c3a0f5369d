//! A wire between a worker and its edge that passes every byte on and watches the links: how many are up, and whether they ever
//! became fewer than they should be. What is said on them never enters.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};

/// Lasts as long as the test's process.
pub struct Relay {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Links that are up now, and all that ever were.
    up: usize,
    all: usize,
    /// There have to be so many from now on.
    wanted: usize,
    losses: Vec<String>,
}

/// A worker's connection, and ours to the edge.
struct Wire {
    ends: [TcpStream; 2],
    has_ended: [bool; 2],
    /// What the edge has said, as long as it is not known to be a link.
    head: Vec<u8>,
    is_up: bool,
}

const WORKER: usize = 0;
const EDGE: usize = 1;

impl Relay {
    pub fn start(edge: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = seen.clone();
        std::thread::spawn(move || run(&listener, edge, &told));
        Relay { address, seen }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until so many links are up. From now on there must never be fewer.
    #[track_caller]
    pub fn guard(&self, links: usize) {
        super::peer::until(|| self.seen().up >= links);
        self.seen().wanted = links;
    }

    /// Links that have ever been up.
    pub fn all(&self) -> usize {
        self.seen().all
    }

    /// What must not have happened since [`Relay::guard`]; from now on anything may.
    pub fn losses(&self) -> Vec<String> {
        let mut seen = self.seen();
        seen.wanted = 0;
        std::mem::take(&mut seen.losses)
    }
}

fn run(listener: &TcpListener, edge: SocketAddr, seen: &Mutex<Seen>) {
    let mut wires: Vec<Wire> = Vec::new();
    loop {
        let mut ended = turn(listener, edge, &mut wires, seen, true);
        // Whatever was said before one of them ended is here by now, and counts first: a link that replaces another.
        while !ended.is_empty() {
            let more = turn(listener, edge, &mut wires, seen, false);
            for wire in ended {
                wires[wire].ends_up(seen);
            }
            ended = more;
        }
        wires.retain(|wire| wire.has_ended != [true; 2]);
    }
}

/// Passes on what has come. The wires of which an end has come.
fn turn(
    listener: &TcpListener,
    edge: SocketAddr,
    wires: &mut Vec<Wire>,
    seen: &Mutex<Seen>,
    waits: bool,
) -> Vec<usize> {
    let open: Vec<(usize, usize)> = (0..wires.len())
        .flat_map(|wire| [(wire, WORKER), (wire, EDGE)])
        .filter(|&(wire, end)| !wires[wire].has_ended[end])
        .collect();
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    fds.extend(open.iter().map(|&(wire, end)| PollFd::new(&wires[wire].ends[end], PollFlags::IN)));
    let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let count = poll(&mut fds, (!waits).then_some(&at_once)).expect("poll works");
    if count == 0 {
        return Vec::new();
    }
    let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    drop(fds);
    let mut ended = Vec::new();
    for (&(wire, end), _) in open.iter().zip(&is_ready[1..]).filter(|(_, is_ready)| **is_ready) {
        if wires[wire].pass(end, seen) {
            ended.push(wire);
        }
    }
    if is_ready[0]
        && let Ok((worker, _)) = listener.accept()
    {
        // An edge that does not listen ends a worker's connection.
        if let Ok(edge) = TcpStream::connect(edge) {
            [&worker, &edge].iter().for_each(|end| end.set_nodelay(true).expect("TCP"));
            wires.push(Wire { ends: [worker, edge], has_ended: [false; 2], head: Vec::new(), is_up: false });
        }
    }
    ended
}

impl Wire {
    /// Whether this end has ended.
    fn pass(&mut self, end: usize, seen: &Mutex<Seen>) -> bool {
        let mut bytes = [0; 65_536];
        match self.ends[end].read(&mut bytes) {
            Ok(0) => {}
            Ok(count) => {
                let _ = self.ends[1 - end].write_all(&bytes[..count]); // who has gone is met by a read
                if end == EDGE && !self.is_up {
                    self.head.extend_from_slice(&bytes[..count]);
                    if self.head.starts_with(b"HTTP/1.1 101 ") && self.head.windows(4).any(|four| four == b"\r\n\r\n") {
                        self.is_up = true;
                        let mut seen = seen.lock().unwrap();
                        seen.up += 1;
                        seen.all += 1;
                    }
                }
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return false,
            Err(error) => {
                let who = ["the worker", "the edge"][end];
                let mut seen = seen.lock().unwrap();
                if self.is_up && seen.wanted > 0 {
                    seen.losses.push(format!("{who} reset a link: {error}"));
                }
            }
        }
        self.has_ended[end] = true;
        let _ = self.ends[1 - end].shutdown(Shutdown::Write);
        true
    }

    /// One of its ends has ended, so it is no link any more.
    fn ends_up(&mut self, seen: &Mutex<Seen>) {
        if !std::mem::take(&mut self.is_up) {
            return;
        }
        let mut seen = seen.lock().unwrap();
        seen.up -= 1;
        if seen.up < seen.wanted {
            let who = if self.has_ended[EDGE] { "the edge" } else { "the worker" };
            let (up, wanted) = (seen.up, seen.wanted);
            seen.losses.push(format!("{who} ended a link, and {up} were left of {wanted}"));
        }
    }
}
