//! What a drain does to clients that nobody has looked at yet. What it does to those that are served is in `dispatch.rs`.
#![allow(clippy::disallowed_methods)] // the program under test is another process, and is waited for

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{HANG, HOST, Peer, assert_own, closed_port, get, setting};

/// Descriptors of the edge: so few that its listener stops at a number of connections that a test can open.
const DESCRIPTORS: usize = 160;
const CONNECTIONS_MAX: usize = DESCRIPTORS - ptth::limits::FDS_RESERVED - ptth::limits::CREDENTIAL_LINKS as usize;

/// An edge in a process of its own, on one core, without workers.
struct Program {
    child: Child,
    file: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    fn start() -> Program {
        // Somebody else may take a port between our look and its bind; then it says so and ends.
        for round in 0..20 {
            let (address, admin) = (closed_port(), closed_port());
            let text = format!(
                "[edge]\ncores = 1\n[[listen]]\naddress = \"{address}\"\naccept = [\"clients\", \"workers\"]\n\
                 [admin]\naddress = \"{admin}\"\n[[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n\
                 [[credential]]\nid = \"w\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n",
                common::secret_hash("s")
            );
            let file = std::env::temp_dir().join(format!("ptth-drain-{}-{round}.toml", std::process::id()));
            std::fs::write(&file, text).expect("a temporary file");
            let mut command = Command::new("sh");
            let line = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" edge --config \"$1\"");
            command.arg("-c").arg(line).arg(env!("CARGO_BIN_EXE_ptth")).arg(&file);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh");
            let mut program = Program { child, file, address, admin };
            if program.is_up() {
                return program;
            }
        }
        panic!("no port is free");
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

    #[track_caller]
    fn connections(&self) -> usize {
        let mut admin = Peer::connect(self.admin);
        admin.send("GET /status HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        let status: serde_json::Value = serde_json::from_slice(&admin.response().body).expect("JSON");
        status["cores"][0]["connections"].as_u64().expect("a number") as usize
    }

    fn end(&mut self) -> Option<i32> {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(from.elapsed() < HANG, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn clients_in_the_backlog_are_answered_when_a_drain_begins() {
    let mut edge = Program::start();
    let sent = || {
        let mut client = Peer::connect(edge.address);
        client.get("/");
        client
    };
    // They wait for a worker, and are as many as the edge takes.
    let mut waiting: Vec<_> = (0..CONNECTIONS_MAX).map(|_| sent()).collect();
    common::peer::until(|| edge.connections() == CONNECTIONS_MAX);
    let mut late: Vec<_> = (0..20).map(|_| sent()).collect();
    let silent: Vec<_> = (0..3).map(|_| Peer::connect(edge.address)).collect();
    late.push({
        let mut client = Peer::connect(edge.address);
        client.send(get("/1") + &get("/2"));
        client
    });
    assert_eq!(edge.connections(), CONNECTIONS_MAX, "nobody has taken them");

    let mut admin = Peer::connect(edge.admin);
    admin.send("POST /drain HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(admin.response().status(), 202);
    for client in waiting.iter_mut().chain(&mut late) {
        let answer = client.response();
        assert_own(&answer, 503, "destination_unavailable");
        assert!(answer.connection("close"), "{answer:?}");
        client.ends();
    }
    for mut client in silent {
        client.ends(); // it has asked for nothing
    }
    assert_eq!(edge.end(), Some(0));
}

#[test]
fn a_client_that_could_speak_either_version_and_says_nothing_holds_up_no_drain() {
    let edge = setting().listen("h2c = true").more("[limits]\nhead_max_wait = \"1h\"").drain_max("1h").start();
    let mut silent = edge.client();
    let mut begun = edge.sent("PRI");
    edge.until(|status| status["cores"][0]["connections"] == 2);
    edge.drain();
    silent.ends();
    begun.is_quiet(); // it is about to ask
    begun.send(" * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    begun.wait_for_some();
    drop(begun);
    assert!(edge.wait());
}
