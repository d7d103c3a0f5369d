//! Our own worker seen from outside: in a process of its own, and before an edge that a test plays. The program's edge never
//! enters.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::frames::{ACK, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, MAX_CONCURRENT_STREAMS, PREFACE, SETTINGS};
use super::{HANG, HOST, Peer};

/// The worker in a process of its own; its log comes line by line.
pub struct Program {
    pub child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    pub fn start(arguments: &[&str], trusts: Option<&str>) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
        command.args(["worker", "--log", "text"]);
        command.args(arguments).env_remove("RUST_LOG").env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        if let Some(file) = trusts {
            command.env("SSL_CERT_FILE", file);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program");
        let (told, lines) = mpsc::channel();
        let log = child.stderr.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Program { child, lines }
    }

    /// Until a line with `words` is logged.
    #[track_caller]
    pub fn says(&self, words: &str) {
        let (mut seen, from) = (Vec::new(), std::time::Instant::now());
        loop {
            match self.lines.recv_timeout(HANG.saturating_sub(from.elapsed())) {
                Ok(line) if line.contains(words) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("it never says {words:?}, but {seen:#?}"),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    #[track_caller]
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it runs");
    }
}

/// An edge that a test plays.
pub struct PlayedEdge {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl PlayedEdge {
    pub fn start() -> PlayedEdge {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        PlayedEdge { listener, address }
    }

    /// The next connection, as it comes.
    #[track_caller]
    pub fn accept_raw(&self) -> Peer {
        let (told, tells) = mpsc::channel();
        let listener = self.listener.try_clone().expect("a descriptor");
        std::thread::spawn(move || told.send(listener.accept()));
        let (stream, _) = tells.recv_timeout(HANG).expect("nobody dials").expect("a connection");
        let _ = stream.set_nodelay(true);
        Peer::new(stream)
    }

    /// The next connection, turned: its worker speaks the version `alpn` from here on.
    #[track_caller]
    pub fn accept(&self, alpn: &str) -> Peer {
        let mut peer = self.accept_raw();
        let setup = peer.request();
        assert!(setup.connection("upgrade"), "{setup:?}");
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: {alpn}\r\n\r\n"
        ));
        peer
    }

    /// The next link over HTTP/2, and what its worker offers.
    #[track_caller]
    pub fn link(&self) -> (Frames, u32) {
        let mut frames = Frames { peer: self.accept("h2") };
        frames.peer.send(PREFACE);
        frames.settings(&[]);
        let first = frames.frame().expect("SETTINGS come first");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "{first:?}");
        let streams = streams_of(&first).expect("a worker offers something, or nothing");
        frames.settled();
        (frames, streams)
    }

    /// Nobody dials for a moment.
    #[track_caller]
    pub fn is_alone(&self) {
        self.listener.set_nonblocking(true).expect("nonblocking");
        std::thread::sleep(super::QUIET);
        let accepted = self.listener.accept();
        self.listener.set_nonblocking(false).expect("blocking");
        assert!(accepted.is_err(), "somebody dialed");
    }
}

/// SETTINGS_MAX_CONCURRENT_STREAMS, if a frame tells it.
pub fn streams_of(settings: &Frame) -> Option<u32> {
    settings.payload.chunks(6).find_map(|setting| {
        let (id, value) = setting.split_at(2);
        (id == MAX_CONCURRENT_STREAMS.to_be_bytes()).then(|| u32::from_be_bytes(value.try_into().expect("four bytes")))
    })
}

/// The next SETTINGS of a worker, and what they offer; they are acknowledged.
#[track_caller]
pub fn offer(link: &mut Frames) -> u32 {
    let frame = link.next(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0);
    streams_of(&frame).expect("nothing else is told later")
}

/// Asks for `path` on a stream.
#[track_caller]
pub fn ask(link: &mut Frames, stream: u32, path: &str) {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", path)];
    let flags = END_HEADERS | END_STREAM;
    link.put(HEADERS, flags, stream, &super::frames::block(&fields));
}
