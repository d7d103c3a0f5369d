//! An edge in a process of its own, as its user runs it: a file, signals, an admin address. What a test claims never enters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{HANG, HOST, Peer, SECRET, closed_port, secret_hash};

/// Links of the credential that every such edge has.
pub const LINKS_MAX: usize = 4;

/// Dropping it ends the process without a word.
pub struct Program {
    child: Child,
    file: PathBuf,
    log: PathBuf,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// What a configuration has beside its addresses: lines of `[edge]`, lines of the pool `app`, more tables.
#[derive(Clone, Copy, Default)]
pub struct Text<'a> {
    pub edge: &'a str,
    pub pool: &'a str,
    pub more: &'a str,
}

impl Program {
    pub fn start(name: &str, text: Text<'_>) -> Program {
        Program::start_by(name, text, |_| {})
    }

    /// `change` sees the command before it runs.
    pub fn start_by(name: &str, text: Text<'_>, change: impl Fn(&mut Command)) -> Program {
        Program::start_as(name, text, |_, file| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
            command.args(["--log", "text", "edge", "--config", file]);
            change(&mut command);
            command
        })
    }

    /// `command` has the edge's address, and its file.
    pub fn start_as(name: &str, text: Text<'_>, command: impl Fn(SocketAddr, &str) -> Command) -> Program {
        let folder = std::env::temp_dir();
        // Somebody else may take a port between our look and its bind; then it says so and ends.
        for round in 0..20 {
            let file = folder.join(format!("ptth-{name}-{}-{round}.toml", std::process::id()));
            let log = file.with_extension("log");
            let (address, admin) = (closed_port(), closed_port());
            std::fs::write(&file, written(address, admin, text)).expect("a temporary file");
            let mut command = command(address, file.to_str().expect("text"));
            let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a temporary file");
            command.env_remove("RUST_LOG").env("NO_COLOR", "1");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
            let child = command.spawn().expect("the program");
            let mut program = Program { child, file, log, address, admin };
            if program.is_up() {
                program.status(); // its cores have started
                return program;
            }
        }
        panic!("no port is free");
    }

    /// Starts it without a look whether it has: `command` also says what its standard input is.
    pub fn start_unready(
        name: &str,
        text: Text<'_>,
        command: impl FnOnce(SocketAddr, &str) -> (Command, Stdio),
    ) -> Program {
        let file = std::env::temp_dir().join(format!("ptth-{name}-{}.toml", std::process::id()));
        let log = file.with_extension("log");
        let (address, admin) = (closed_port(), closed_port());
        std::fs::write(&file, written(address, admin, text)).expect("a temporary file");
        let (mut command, stdin) = command(address, file.to_str().expect("text"));
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a temporary file");
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(stdin).stdout(Stdio::null()).stderr(stderr);
        Program { child: command.spawn().expect("the program"), file, log, address, admin }
    }

    fn is_up(&mut self) -> bool {
        let from = Instant::now();
        while self.child.try_wait().expect("it can be waited for").is_none() {
            if std::net::TcpStream::connect(self.admin).is_ok() {
                return true;
            }
            assert!(from.elapsed() < HANG, "it neither starts nor ends");
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that answers now: upgrades change it.
    pub fn newest(&self) -> u32 {
        let pid = self.status()["pid"].as_u64().expect("a number");
        u32::try_from(pid).expect("a process id")
    }

    /// Processes that run with this file, but for the first one.
    pub fn successors(&self) -> Vec<u32> {
        let file = self.file.to_str().expect("text");
        let pids = std::fs::read_dir("/proc").expect("Linux has it").filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            (pid != self.pid() && line.split(|byte| *byte == 0).any(|word| word == file.as_bytes())).then_some(pid)
        });
        pids.collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    /// Replaces the file's text. Nobody has told the program.
    pub fn write(&self, text: Text<'_>) {
        self.write_raw(&written(self.address, self.admin, text));
    }

    /// Whoever reads it meanwhile finds one text or the other.
    pub fn write_raw(&self, text: &str) {
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, text).expect("a temporary file");
        std::fs::rename(&fresh, &self.file).expect("a temporary file");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    #[track_caller]
    pub fn admin_get(&self, path: &str) -> super::Message {
        let mut admin = Peer::connect(self.admin);
        admin.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"));
        admin.response()
    }

    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.admin_get("/status").body).expect("/status is JSON")
    }

    #[track_caller]
    pub fn until(&self, mut wanted: impl FnMut(&serde_json::Value) -> bool) -> serde_json::Value {
        let from = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(from.elapsed() < HANG, "never came: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until it has ended, and its exit code.
    pub fn end(&mut self) -> Option<i32> {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(from.elapsed() < HANG, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Open descriptors of a process, as what they lead to.
pub fn descriptors(pid: u32) -> Vec<String> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    // One may be closed while it is looked at.
    all.filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.display().to_string())).collect()
}

/// Until a process has no more descriptors than it once had.
#[track_caller]
pub fn until_no_more_than(pid: u32, before: &[String]) {
    let from = Instant::now();
    while descriptors(pid).len() > before.len() {
        assert!(from.elapsed() < HANG, "too many:\n{:#?}\nnot as before:\n{before:#?}", descriptors(pid));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn written(address: SocketAddr, admin: SocketAddr, text: Text<'_>) -> String {
    let Text { edge, pool, more } = text;
    format!(
        "[edge]\n{edge}\n[[listen]]\naddress = \"{address}\"\naccept = [\"clients\", \"workers\"]\nh2c = true\n\
         [admin]\naddress = \"{admin}\"\nnames = [\"admin\"]\n[[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n{pool}\n\
         [[credential]]\nid = \"web-1\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\nlinks_max = {LINKS_MAX}\n{more}\n",
        secret_hash(SECRET)
    )
}

impl Drop for Program {
    fn drop(&mut self) {
        // Upgrades leave others behind.
        for pid in self.successors() {
            let _ = kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_file(&self.log);
    }
}
