//! What a drain does to clients that nobody has looked at yet. What it does to those that are served is in `dispatch.rs`.
#![allow(clippy::disallowed_methods)] // the program under test is another process, and is waited for

mod common;

use std::process::Command;

use common::program::{Program, Text};
use common::{Peer, assert_own, get, setting};

/// Descriptors of the edge: so few that its listener stops at a number of connections that a test can open.
const DESCRIPTORS: usize = 200;

/// An edge in a process of its own, on one core, without workers.
fn start() -> Program {
    Program::start_as("drain", Text { edge: "cores = 1", ..Text::default() }, |_, file| {
        let mut command = Command::new("sh");
        let line = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" --log text edge --config \"$1\"");
        command.arg("-c").arg(line).arg(env!("CARGO_BIN_EXE_ptth")).arg(file);
        command
    })
}

#[track_caller]
fn connections(edge: &Program) -> usize {
    edge.status()["cores"][0]["connections"].as_u64().expect("a number") as usize
}

#[test]
fn clients_in_the_backlog_are_answered_when_a_drain_begins() {
    let mut edge = start();
    let connections_max = edge.status()["limits"]["connections_max"].as_u64().expect("a number") as usize;
    assert!(connections_max < DESCRIPTORS);
    let sent = || {
        let mut client = Peer::connect(edge.address);
        client.get("/");
        client
    };
    // They wait for a worker, and are as many as the edge takes.
    let mut waiting: Vec<_> = (0..connections_max).map(|_| sent()).collect();
    common::peer::until(|| connections(&edge) == connections_max);
    let mut late: Vec<_> = (0..20).map(|_| sent()).collect();
    let silent: Vec<_> = (0..3).map(|_| Peer::connect(edge.address)).collect();
    late.push({
        let mut client = Peer::connect(edge.address);
        client.send(get("/1") + &get("/2"));
        client
    });
    assert_eq!(connections(&edge), connections_max, "nobody has taken them");

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
