//! Ten thousand clients that wait, and half of them leave: one test, alone in its binary, for the descriptors and for the
//! memory that it counts.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use common::h2_worker::H2Worker;
use common::{get, setting};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clients, where the process may have two descriptors for each and some to spare.
const CLIENTS_MAX: u64 = 10_000;
/// What a waiting client may cost the edge.
const CLIENT_BYTES_MAX: u64 = 16 * 1024;

/// As many clients as this process may have. Root may raise the hard limit, too.
fn clients() -> u64 {
    let wanted = Some(2 * CLIENTS_MAX + 1_000);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted });
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit.saturating_sub(1_000) / 2).min(CLIENTS_MAX)
}

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

#[test]
fn half_of_ten_thousand_waiting_clients_leave_and_the_others_are_served() {
    let count = clients();
    let edge = setting().cores(2).pool("queue = { requests_max = 20000, wait_max = \"10m\" }").start();
    let before = resident_bytes();
    let mut waiting: Vec<Option<TcpStream>> = Vec::new();
    for n in 0..count {
        let mut client = TcpStream::connect(edge.address).expect("the edge listens");
        client.write_all(get(&format!("/{n}")).as_bytes()).expect("the edge reads");
        waiting.push(Some(client));
    }
    edge.until_queued(count);
    let each = resident_bytes().saturating_sub(before) / count;
    println!("{count} clients, {each} bytes for each");
    assert!(each <= CLIENT_BYTES_MAX, "{each} bytes for each of {count} clients");
    let held = edge.status()["pools"][0]["queued_bytes"].as_u64().expect("a number");

    waiting.iter_mut().step_by(2).for_each(|client| drop(client.take()));
    edge.until_queued(count / 2);
    let left = edge.status()["pools"][0]["queued_bytes"].as_u64().expect("a number");
    assert!(left < held / 2 + held / 10, "{left} of {held} bytes are still held");

    let (told, targets) = std::sync::mpsc::channel();
    H2Worker::dial_at_once(&edge, 100).serve_all(move |head| {
        told.send(head.uri.path().to_owned()).expect("the test counts");
        head.uri.path().to_owned()
    });
    for (n, client) in waiting.iter_mut().enumerate() {
        let Some(client) = client else { continue };
        client.set_read_timeout(Some(common::HANG)).expect("a bound");
        let mut answer = [0; 1024];
        let mut length = 0;
        while !answer[..length].ends_with(format!("\r\n\r\n/{n}").as_bytes()) {
            let read = client.read(&mut answer[length..]).expect("an answer");
            assert!(read > 0, "cut after {:?}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
    }
    edge.until_queued(0);
    assert_eq!(edge.status()["pools"][0]["queued_bytes"], 0);
    let seen: Vec<String> = targets.try_iter().collect();
    let wanted: BTreeSet<String> = (0..count).filter(|n| n % 2 == 1).map(|n| format!("/{n}")).collect();
    assert_eq!(seen.len(), wanted.len(), "each once");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted, "nobody who left");
}
