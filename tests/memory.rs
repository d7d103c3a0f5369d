//! An edge that holds nearly all that it may: what it refuses, what it leaves in the kernel, and that it comes back. One
//! test, alone in its binary, for the memory that is measured is the process's.

#![allow(clippy::disallowed_methods)] // peers are no cores: they may sleep

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::origin::serving;
use common::peer::End;
use common::{Message, Peer, assert_own, get, ok, setting};

/// Far above what this binary holds, and small against any machine.
const MEMORY_MAX: u64 = 256 << 20;

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).expect("a second number").parse().expect("a number");
    pages * rustix::param::page_size() as u64
}

/// Memory that is held for nothing, until the process has so much in all.
fn ballast_to(bytes: u64) -> Vec<u8> {
    let missing = bytes.checked_sub(resident_bytes()).expect("this process is small");
    vec![1; usize::try_from(missing).expect("it fits")]
}

#[test]
fn a_nearly_full_edge_refuses_requests_then_connections_and_takes_both_again() {
    let edge = setting().more("[limits]\nmemory_max = \"256MiB\"\nbody_stall_max = \"1h\"").start();
    // Whoever asks first does not read what comes, and nothing else ends that within an hour.
    let mut link = edge.h1_link();
    let mut hoarder = edge.sent(get("/large"));
    link.request();
    let pours = |mut link: Peer| {
        link.send("HTTP/1.1 200 OK\r\n\r\n");
        std::thread::spawn(move || while link.try_send([b'x'; 65_536]).is_ok() {});
    };
    pours(link);
    // Another one reads all the time, at its own pace.
    let mut link = edge.h1_link();
    let mut steady = edge.sent(get("/large"));
    link.request();
    pours(link);
    let is_over = Arc::new(AtomicBool::new(false));
    let stops = is_over.clone();
    let reader = std::thread::spawn(move || {
        let mut read = 0;
        while !stops.load(Ordering::Relaxed) {
            read += steady.read(100_000).len();
            std::thread::sleep(Duration::from_millis(100));
        }
        read
    });
    let _worker = edge.worker(serving(|request: &Message| ok(request.target())));
    let mut client = edge.client();
    assert_eq!(client.ask("/before").text(), "/before");
    let limits = edge.until(|status| status["limits"]["resident_bytes"].as_u64() > Some(0))["limits"].clone();
    assert_eq!(limits["memory_max_bytes"], MEMORY_MAX);

    // Between 95 and 98 %.
    let ballast = ballast_to(MEMORY_MAX * 965 / 1000);
    common::peer::until(|| client.ask("/tight").status() == 503);
    for _ in 0..3 {
        let refused = client.ask("/tight"); // the connection stays
        assert_own(&refused, 503, "connection_limit_reached");
        assert!(!refused.connection("close"), "{refused:?}");
    }
    assert_own(&edge.client().ask("/tight"), 503, "connection_limit_reached");
    let told = edge.admin_get("/explain?url=http%3A%2F%2Fapp.example%2Ftight");
    assert!(told.text().contains("the edge has no memory left"), "{told:?}");
    // Whoever does not read is ended; whoever does is not.
    edge.until_links(2);
    assert_eq!(hoarder.end().1, End::Reset, "what came is not all");
    is_over.store(true, Ordering::Relaxed);
    let read = reader.join().expect("a steady reader is not ended");
    assert!(read > 0, "it had read something");
    edge.until_links(1);
    let status = edge.status();
    assert!(status["counters"]["refusals"]["memory_full"].as_u64() >= Some(4), "{status:#}");
    assert_eq!(status["counters"]["accept_pauses"]["memory_max"], 0, "connections are still taken");

    // Above 98 %.
    let more = ballast_to(MEMORY_MAX * 995 / 1000);
    let pauses = |status: &serde_json::Value| status["counters"]["accept_pauses"]["memory_max"].as_u64();
    edge.until(|status| status["limits"]["resident_bytes"].as_u64() >= Some(MEMORY_MAX * 98 / 100));
    // The accept that was on its way takes one more; then nobody looks at the backlog.
    let _taken = edge.client();
    edge.until(|status| pauses(status) == Some(1));
    let mut waits = edge.sent(get("/waits"));
    waits.is_quiet();
    // Between the two it goes on waiting: a listener that opened at once would be closed again at once.
    drop(more);
    edge.until(|status| status["limits"]["resident_bytes"].as_u64() < Some(MEMORY_MAX * 98 / 100));
    waits.is_quiet();
    assert_eq!(client.ask("/full").status(), 503);

    drop(ballast);
    assert_eq!(waits.response().text(), "/waits");
    assert_eq!(client.ask("/after").text(), "/after");
    assert_eq!(edge.client().ask("/new").text(), "/new");
    assert_eq!(pauses(&edge.status()), Some(1), "it was one pause");
    println!("memory: {} KiB resident without the ballast", resident_bytes() / 1024);
}
