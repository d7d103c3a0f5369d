//! `ptth top` on a terminal of its own: the built program on one end of a pseudo-terminal, a screen that understands what it writes on the
//! other. What its tables look like in every size is the unit tests' of `src/cli/top`.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::program::{Program, Text};
use common::{HANG, HOST, closed_port, edge};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const WIDE: usize = 80;
const HIGH: usize = 24;

/// What a terminal shows of what was written to it, as far as the program uses it.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Bytes that are not whole yet.
    rest: Vec<u8>,
    is_alternate: bool,
    was_alternate: bool,
}

impl Screen {
    fn new() -> Screen {
        let cells = vec![vec![' '; WIDE]; HIGH];
        Screen { cells, row: 0, column: 0, rest: Vec::new(), is_alternate: false, was_alternate: false }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(self.rest[..whole].to_vec()).expect("it was looked at");
        let mut left = text.as_str();
        while let Some(c) = left.chars().next() {
            if c != '\u{1b}' {
                self.print(c);
                left = &left[c.len_utf8()..];
                continue;
            }
            let Some(sequence) = left.strip_prefix("\u{1b}[") else {
                if left.len() > 1 {
                    panic!("what is this? {left:?}");
                }
                break; // the rest is to come
            };
            let Some(end) = sequence.find(|c: char| c.is_ascii_alphabetic()) else { break };
            self.obey(&sequence[..end], &sequence[end..=end]);
            left = &sequence[end + 1..];
        }
        let done = whole - left.len();
        self.rest.drain(..done);
    }

    fn print(&mut self, c: char) {
        match c {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            c => {
                if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
                    *cell = c;
                }
                self.column += 1;
            }
        }
    }

    fn obey(&mut self, parameters: &str, what: &str) {
        match (parameters, what) {
            ("?1049", "h") => (self.is_alternate, self.was_alternate) = (true, true),
            ("?1049", "l") => self.is_alternate = false,
            (_, "J") => self.cells = vec![vec![' '; WIDE]; HIGH],
            (place, "H") => {
                let (row, column) = place.split_once(';').unwrap_or(("1", "1"));
                let number = |text: &str| text.parse::<usize>().expect("a number") - 1;
                (self.row, self.column) = (number(row), number(column));
            }
            _ => {} // colours, the cursor
        }
    }

    fn rows(&self) -> Vec<String> {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

/// `ptth top` on a pseudo-terminal.
struct Top {
    child: Child,
    ours: File,
    /// Held open, so that the terminal can be looked at when the program has gone.
    theirs: OwnedFd,
    screen: Arc<Mutex<Screen>>,
    modes: LocalModes,
}

impl Top {
    fn start(admin: SocketAddr) -> Top {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let theirs = theirs.expect("its other end");
        let size = Winsize { ws_row: HIGH as u16, ws_col: WIDE as u16, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).expect("a terminal has a size");
        let modes = tcgetattr(&theirs).expect("a terminal has modes").local_modes;
        let end = || Stdio::from(theirs.try_clone().expect("one more descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
        command.args(["top", "--admin", &admin.to_string()]).env("TERM", "xterm").env_remove("RUST_LOG");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program");
        let ours = File::from(ours);
        let screen = Arc::new(Mutex::new(Screen::new()));
        let (mut from, written) = (ours.try_clone().expect("one more descriptor"), screen.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = from.read(&mut piece) {
                written.lock().unwrap_or_else(PoisonError::into_inner).write(&piece[..bytes]);
            }
        });
        Top { child, ours, theirs, screen, modes }
    }

    fn looked_at<T>(&self, look: impl FnOnce(&Screen) -> T) -> T {
        look(&self.screen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Until the screen is as wanted.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let from = Instant::now();
        loop {
            let rows = self.looked_at(Screen::rows);
            if wanted(&rows) {
                return rows;
            }
            let ended = self.child.try_wait().expect("it can be waited for");
            assert!(ended.is_none() && from.elapsed() < HANG, "never came ({ended:?}):\n{}", rows.join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Until it has ended: its exit code, and the terminal is as it was.
    #[track_caller]
    fn end(&mut self) -> Option<i32> {
        let from = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status.code();
            }
            assert!(from.elapsed() < HANG, "it does not end:\n{}", self.looked_at(Screen::rows).join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        };
        while self.looked_at(|screen| screen.is_alternate) {
            assert!(from.elapsed() < HANG, "the alternate screen was not left");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(tcgetattr(&self.theirs).expect("a terminal has modes").local_modes, self.modes);
        code
    }

    fn was_alternate(&self) -> bool {
        self.looked_at(|screen| screen.was_alternate)
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words of the first row that begins so.
fn words<'r>(rows: &'r [String], first: &str) -> Option<Vec<&'r str>> {
    rows.iter().find(|row| row.starts_with(first)).map(|row| row.split_whitespace().collect())
}

#[test]
fn it_shows_a_running_edge_until_q() {
    let edge = edge();
    let _link = edge.h1_link();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let _clients: Vec<_> = (0..3).map(|_| edge.sent(&request)).collect();
    edge.until_queued(2);
    let mut top = Top::start(edge.admin);
    let rows = top.until(|rows| words(rows, "app ").is_some() && words(rows, "LINK ").is_some());
    assert_eq!(words(&rows, "POOL ").expect("titles")[..4], ["POOL", "QUEUED", "MINUTE", "IN"]);
    let pool = words(&rows, "app ").expect("the pool");
    assert_eq!((pool[1], &pool[3..6]), ("2", &["1", "0", "1"][..]), "{rows:#?}"); // in flight, credits, links
    let link = words(&rows, "0-").expect("the link");
    assert_eq!((link[1], link[4]), ("web-1", "http/1.1"), "{rows:#?}");
    // One more waits: seen by itself.
    let _one_more = edge.sent(&request);
    top.until(|rows| words(rows, "app ").is_some_and(|words| words[1] == "3"));
    assert!(rows[HIGH - 1].contains("s order: as told"), "{rows:#?}");
    top.press("s");
    top.until(|rows| rows[HIGH - 1].contains("s order: queued"));
    top.press("\tss");
    top.until(|rows| rows[HIGH - 1].contains("s order: credits"));
    top.press("q");
    assert_eq!(top.end(), Some(0));
    assert!(top.was_alternate());
}

#[test]
fn it_goes_on_over_a_reload_an_upgrade_and_an_edge_that_went_away() {
    let program = Program::start("top", Text::default());
    let mut top = Top::start(program.admin);
    let generation = |rows: &[String], number: &str| rows[0].contains(&format!("generation {number}"));
    top.until(|rows| generation(rows, "1") && words(rows, "app ").is_some());
    program.write(Text { pool: "retries_max = 3", ..Text::default() });
    program.signal(Signal::HUP);
    top.until(|rows| generation(rows, "2"));
    program.signal(Signal::USR2);
    program.until(|status| status["pid"] != program.pid());
    top.until(|rows| generation(rows, "1") && words(rows, "app ").is_some());
    drop(program);
    top.until(|rows| rows[1].starts_with("NO ANSWER for ") && words(rows, "app ").is_some());
    kill_process(Pid::from_child(&top.child), Signal::TERM).expect("it lives");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn ctrl_c_ends_it() {
    let edge = edge();
    let mut top = Top::start(edge.admin);
    top.until(|rows| words(rows, "app ").is_some());
    top.press("\u{3}");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn an_edge_that_was_never_there_is_told_without_a_screen() {
    let mut top = Top::start(closed_port());
    assert_eq!(top.end(), Some(1));
    let from = Instant::now();
    while !top.looked_at(|screen| screen.rows()[0].starts_with("ptth: no answer from 127.0.0.1:")) {
        assert!(from.elapsed() < HANG, "{:#?}", top.looked_at(Screen::rows));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!top.was_alternate());
}

#[test]
fn without_a_terminal_it_says_so() {
    let edge = edge();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
    command.args(["top", "--admin", &edge.admin.to_string()]).env_remove("RUST_LOG").stdin(Stdio::null());
    let output = command.output().expect("the program");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said, "ptth: top needs a terminal; `ptth status` prints the same once, and --json for programs\n");
}
