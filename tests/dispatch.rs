//! How requests wait, find their worker, and end: the queue and its bounds, many cores, large bodies, our own worker in
//! front of a raw server, drains and restarts.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use common::frames::Frames;
use common::h2_worker::H2Worker;
use common::origin::{Origin, serving};
use common::peer::{End, Framing, start, statuses};
use common::{
    CORES, HANG, HOST, Message, ORIGIN, Peer, QUIET, assert_own, credits, edge, get, ok, pattern, post, setting, setup,
    worker_config,
};
use ptth::worker::config::{Secret, WorkerConfig};
use sha2::{Digest as _, Sha256};

// ---- waiting ----

#[test]
fn without_a_worker_a_request_waits_for_one() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut clients: Vec<_> = (0..10).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(10);
        H2Worker::dial_at_once(&edge, 100).serve_all(|head| head.uri.path().to_owned());
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        edge.until_queued(0);
        assert_eq!(edge.status()["pools"][0]["queued_bytes"], 0);
    }
}

fn asking(path: &str, wait: &str) -> String {
    start("GET", path) + &format!("Prefer: wait={wait}\r\n\r\n")
}

fn retry_after_s(answer: &Message) -> u64 {
    answer.field("retry-after").expect("a field").parse().expect("seconds")
}

#[test]
fn a_client_that_would_wait_in_vain_hears_so_at_once_and_one_that_has_time_waits() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"10m\" }").start();
        // Nobody knows anything yet: its own time is its bound.
        assert_own(&edge.sent(asking("/", "0")).response(), 503, "connection_timeout");
        assert_own(&edge.sent(asking("/", "1")).response(), 503, "connection_timeout");

        let worker = H2Worker::dial(&edge, 1);
        for _ in 0..2 {
            let mut client = edge.sent(asking("/", "0"));
            let asked = worker.accept();
            std::thread::sleep(Duration::from_millis(1_100));
            asked.ok("a credit was free");
            assert_eq!(client.response().text(), "a credit was free");
        }
        let mut held = edge.sent(get("/held"));
        let asked = worker.accept();
        let status = edge.until(|status| status["pools"][0]["service_seconds"].as_f64().expect("seconds") > 0.5);
        assert!(status["pools"][0]["wait_seconds"].as_f64().expect("seconds") > 0.0, "{status}");
        let mut waiting: Vec<Peer> = (0..20).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(20);
        // 20 wait, and each takes about a second or more.
        let answer = edge.sent(asking("/", "3")).response();
        assert_own(&answer, 503, "connection_timeout");
        assert!(answer.text().contains("prefers to wait"), "{answer:?}");
        assert!((2..=375).contains(&retry_after_s(&answer)), "{answer:?}");
        let mut patient = edge.sent(asking("/patient", "100000"));
        let urgent = start("GET", "/urgent") + "Priority: u=0\r\nPrefer: wait=100000\r\n\r\n";
        let mut urgent = edge.sent(urgent);
        edge.until_queued(22);
        asked.ok("held");
        assert_eq!(held.response().text(), "held");
        worker.serve_all(|head| head.uri.path().to_owned());
        for (n, client) in waiting.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        assert_eq!(patient.response().text(), "/patient");
        assert_eq!(urgent.response().text(), "/urgent");
        let refused = &edge.status()["counters"]["refusals"];
        assert_eq!((&refused["would_wait_too_long"], &refused["waited_too_long"]), (&1.into(), &2.into()));
    }
}

#[test]
fn a_pool_that_does_not_hold_answers_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("hold_without_workers = false").start();
        let mut client = edge.client();
        for request in [get("/"), post("/", "body")] {
            client.send(request);
            assert_own(&client.response(), 503, "destination_unavailable");
        }
        // A link without credit is a link: the request waits.
        let mut link = Frames::dial(&edge, 0);
        client.get("/waits");
        edge.until_queued(1);
        client.is_quiet();
        link.credits(1);
        let stream = link.request();
        link.ok(stream, "served");
        assert_eq!(client.response().text(), "served");
        drop(link);
        edge.until_links(0);
        assert_own(&client.ask("/"), 503, "destination_unavailable");
    }
}

#[test]
fn a_pool_that_does_not_hold_answers_what_waits_when_its_last_link_leaves() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("hold_without_workers = false").start();
        for drains in [false, true] {
            let mut link = Frames::dial(&edge, 0);
            let mut clients: Vec<_> = (0..6).map(|n| edge.sent(get(&format!("/{n}")))).collect();
            edge.until_queued(6);
            if drains {
                link.goaway(0, common::frames::NO_ERROR);
            } else {
                drop(link);
            }
            let from = Instant::now();
            for client in &mut clients {
                assert_own(&client.response(), 503, "destination_unavailable");
            }
            assert!(from.elapsed() < Duration::from_secs(20), "that was wait_max");
            edge.until_links(0);
        }
    }
}

#[test]
fn a_request_waits_so_long_and_no_longer() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"300ms\" }").start();
        let mut client = edge.client();
        let check = |client: &mut Peer, request: &str| {
            let from = Instant::now();
            client.send(request);
            assert_own(&client.response(), 503, "connection_timeout");
            assert!(from.elapsed() >= Duration::from_millis(300), "{:?}", from.elapsed());
        };
        for request in [get("/"), post("/", "body"), start("HEAD", "/") + "Content-Length: 0\r\n\r\n"] {
            if request.starts_with("HEAD") {
                client.send(&request);
                let answer = client.response_to_head();
                assert_eq!(answer.status(), 503);
                assert!(answer.field("proxy-status").is_some_and(|value| value.contains("connection_timeout")));
            } else {
                check(&mut client, &request);
            }
        }
        // A busy worker changes nothing about it.
        let worker = H2Worker::dial(&edge, 1);
        let mut busy = edge.sent(get("/busy"));
        let asked = worker.accept();
        check(&mut client, &get("/late"));
        asked.ok("busy");
        assert_eq!(busy.response().text(), "busy");
        client.get("/in-time");
        let asked = worker.accept();
        assert_eq!(asked.path(), "/in-time");
        asked.ok("in time");
        assert_eq!(client.response().text(), "in time");
    }
}

#[test]
fn a_request_with_a_body_that_waits_leaves_its_connection_usable() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"200ms\" }").start();
        for bytes in [10, 5_000, 50_000] {
            let mut client = edge.sent(post("/", &"x".repeat(bytes)));
            let answer = client.response();
            assert_own(&answer, 503, "connection_timeout");
            assert!(!answer.connection("close"), "{bytes}: read to its end, it stays open: {answer:?}");
            client.get("/");
            assert_own(&client.response(), 503, "connection_timeout");
        }
    }
}

#[test]
fn one_credit_serves_in_the_order_of_arrival() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        let mut clients = vec![edge.sent(get("/0"))];
        let first = worker.accept();
        for n in 1..20 {
            clients.push(edge.sent(get(&format!("/{n}"))));
            edge.until_queued(n);
        }
        first.ok("/0");
        assert_eq!(clients[0].response().text(), "/0");
        for (n, client) in clients.iter_mut().enumerate().skip(1) {
            let asked = worker.accept();
            let path = asked.path().to_owned();
            assert_eq!(path, format!("/{n}"));
            asked.ok(&path);
            assert_eq!(client.response().text(), path);
        }
    }
}

#[test]
fn a_full_queue_refuses_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { requests_max = 3 }").start();
        let mut waiting: Vec<_> = (0..3).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(3);
        let mut client = edge.client();
        for _ in 0..3 {
            let answer = client.ask("/refused");
            assert_own(&answer, 503, "connection_limit_reached");
            assert!(!answer.connection("close"), "{answer:?}");
        }
        // One leaves, one may come.
        drop(waiting.remove(0));
        edge.until_queued(2);
        waiting.push(edge.sent(get("/3")));
        edge.until_queued(3);
        assert_own(&client.ask("/refused"), 503, "connection_limit_reached");
        H2Worker::dial_at_once(&edge, 100).serve_all(|head| head.uri.path().to_owned());
        for (client, path) in waiting.iter_mut().zip(["/1", "/2", "/3"]) {
            assert_eq!(client.response().text(), path);
        }
        assert_eq!(client.ask("/now").text(), "/now");
    }
}

#[test]
fn the_bytes_of_waiting_heads_are_bounded() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { bytes_max = \"16KiB\" }").start();
        let large = format!("{}X: {}\r\n\r\n", start("GET", "/"), "y".repeat(6_000));
        let first = edge.sent(&large);
        edge.until_queued(1);
        let _second = edge.sent(&large);
        let status = edge.until(|status| status["pools"][0]["queued"] == 2);
        let bytes = status["pools"][0]["queued_bytes"].as_u64().expect("a number");
        assert!((12_000..=16 * 1024).contains(&bytes), "{bytes}");
        let mut third = edge.sent(&large);
        assert_own(&third.response(), 503, "connection_limit_reached");
        // A small one still fits.
        let mut small = edge.sent(get("/small"));
        edge.until_queued(3);
        drop(first);
        edge.until_queued(2);
        third.send(&large);
        edge.until_queued(3);
        small.is_quiet();
        third.is_quiet();
    }
}

#[test]
fn the_bytes_of_waiting_bodies_are_bounded() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { bytes_max = \"16KiB\" }").start();
        let mut clients: Vec<_> =
            (0..20).map(|_| edge.sent(start("POST", "/") + "Content-Length: 10000000\r\n\r\n")).collect();
        let status = edge.until(|status| status["pools"][0]["queued"] == 20);
        assert!(status["pools"][0]["queued_bytes"].as_u64() < Some(16 * 1024));
        for client in &mut clients {
            client.send(vec![b'x'; 4_000]);
        }
        // Some of them hold what came, the others are refused.
        let status = edge.until(|status| {
            let (queued, bytes) = (&status["pools"][0]["queued"], &status["pools"][0]["queued_bytes"]);
            queued.as_u64() < Some(5) && bytes.as_u64() > Some(4_000)
        });
        assert!(status["pools"][0]["queued_bytes"].as_u64() <= Some(16 * 1024), "{status:#}");
        let mut refused = 0;
        for client in &mut clients {
            if client.has_some_soon() {
                assert_own(&client.response(), 503, "connection_limit_reached");
                refused += 1;
            }
        }
        assert!(refused > 15, "{refused}");
        drop(clients);
        let status = edge.until(|status| status["pools"][0]["queued"] == 0);
        assert_eq!(status["pools"][0]["queued_bytes"], 0);
    }
}

#[test]
fn a_waiting_body_stays_in_the_socket() {
    let edge = edge();
    let mut client = edge.sent(start("POST", "/") + "Content-Length: 1000000000\r\n\r\n");
    client.stream.set_nonblocking(true).expect("nonblocking");
    let sent = write_until_full(&mut client);
    let status = edge.until(|status| status["pools"][0]["queued"] == 1);
    let held = status["pools"][0]["queued_bytes"].as_u64().expect("a number");
    assert!(held < 80_000, "{held} of {sent} bytes are held");
}

/// As much as the other side takes; until it has taken nothing for a moment.
fn write_until_full(peer: &mut Peer) -> usize {
    let piece = [b'x'; 64 * 1024];
    let mut sent = 0;
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        match peer.stream.write(&piece) {
            Ok(n) => {
                sent += n;
                since = Instant::now();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[test]
fn a_credit_that_is_free_is_never_a_full_queue() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { requests_max = 1 }").start();
        let worker = H2Worker::dial(&edge, 100);
        // All of them fit into the link's credits, on whichever core they arrive.
        let mut clients: Vec<_> = (0..60).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        let asked: Vec<_> = (0..60).map(|_| worker.accept()).collect();
        for asked in asked {
            asked.ok("");
        }
        assert_eq!(statuses(&mut clients), [200; 60]);
    }
}

// ---- many cores ----

#[test]
fn with_two_cores_and_one_link_every_client_is_served() {
    let edge = setting().cores(2).start();
    let origin = serving(|request| ok(&format!("{} {}", request.target(), request.body.len())));
    let _worker = edge.worker(origin);
    let mut clients: Vec<_> = (0..64).map(|_| edge.client()).collect();
    for round in 0..10 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(post(&format!("/{n}"), &"b".repeat(round * 1_000)));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n} {}", round * 1_000));
        }
    }
    let dispatches = &edge.status()["pools"][0]["counters"]["dispatches"];
    let [local, awake, asleep] =
        ["local", "cross_awake", "cross_asleep"].map(|kind| dispatches[kind].as_u64().expect("a count"));
    assert!(local > 0 && awake + asleep > 0, "{dispatches}");
    assert_eq!(local + awake + asleep, 640);
}

#[test]
fn an_idle_link_on_another_core_is_used_at_once() {
    let edge = setting().cores(2).start();
    for _ in 0..12 {
        let (mut a, mut b) = (edge.h1_link(), edge.h1_link());
        edge.until_credits(2);
        let cores: Vec<_> =
            edge.status()["links"].as_array().expect("a list").iter().map(|link| link["core"].clone()).collect();
        assert_ne!(cores[0], cores[1], "links are placed, not hashed");
        let mut clients = [edge.sent(get("/")), edge.sent(get("/"))];
        a.request();
        b.request();
        a.ok("");
        b.ok("");
        assert_eq!(statuses(&mut clients), [200; 2]);
        drop((a, b));
        edge.until_links(0);
    }
}

#[test]
fn requests_that_wait_on_one_core_find_a_link_that_comes_up_on_the_other() {
    for _ in 0..6 {
        let edge = setting().cores(2).start();
        let mut clients: Vec<_> = (0..20).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(20);
        let origin = serving(|request| ok(request.target()));
        let _worker = edge.worker_at_once(origin, |_| {});
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
    }
}

#[test]
fn links_spread_over_the_cores() {
    let edge = setting().cores(2).start();
    let _links: Vec<_> = (0..8).map(|_| edge.h1_link()).collect();
    let status = edge.until(|status| credits(status) == 8);
    for core in status["pools"][0]["cores"].as_array().expect("a list") {
        assert_eq!(core["links"], 4, "{status:#}");
    }
}

// ---- large bodies ----

/// `bytes` of a pattern, in pieces, and their hash.
struct Flow {
    piece: Vec<u8>,
    left: usize,
    hash: Sha256,
}

const MIB: usize = 1024 * 1024;

impl Flow {
    fn new(bytes: usize) -> Flow {
        Flow { piece: pattern(97_003), left: bytes, hash: Sha256::new() }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.left == 0 {
            return None;
        }
        let bytes = self.left.min(self.piece.len());
        self.left -= bytes;
        self.piece.rotate_left(7);
        let piece = self.piece[..bytes].to_vec();
        self.hash.update(&piece);
        Some(piece)
    }

    fn hash(self) -> String {
        format!("{:x}", self.hash.finalize())
    }
}

/// Reads a body of known length and hashes it.
fn hash_of(peer: &mut Peer, bytes: usize) -> String {
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let piece = peer.read_up_to(left).unwrap_or_else(|| panic!("cut with {left} bytes missing"));
        left -= piece.len();
        hash.update(&piece);
    }
    format!("{:x}", hash.finalize())
}

#[test]
fn a_hundred_mebibytes_go_up_and_come_down_unchanged() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let bytes = 100 * MIB;

        let mut client = edge.sent(format!("{}Content-Length: {bytes}\r\n\r\n", start("POST", "/up")));
        let server = std::thread::spawn({
            let mut server = origin.accept();
            move || {
                assert_eq!(server.head().framing, Framing::Length(bytes as u64));
                let hash = hash_of(&mut server, bytes);
                server.ok(&hash);
                server
            }
        });
        let mut flow = Flow::new(bytes);
        while let Some(piece) = flow.next() {
            client.send(piece);
        }
        assert_eq!(client.response().text(), flow.hash(), "up");
        let mut server = server.join().expect("the server");

        client.get("/down");
        let sender = std::thread::spawn(move || {
            server.request();
            server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            let mut flow = Flow::new(bytes);
            while let Some(piece) = flow.next() {
                server.send(piece);
            }
            flow.hash()
        });
        assert_eq!(client.head().framing, Framing::Length(bytes as u64));
        let hash = hash_of(&mut client, bytes);
        assert_eq!(hash, sender.join().expect("the server"), "down");
        // And the connection goes on.
        client.is_quiet();
    }
}

#[test]
fn both_directions_flow_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.sent(start("POST", "/echo") + "Transfer-Encoding: chunked\r\n\r\n");
        let mut server = origin.accept();
        server.head();
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // The server sends back what it reads, byte for byte, chunk framing and all.
        let echo = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !seen.ends_with(b"0\r\n\r\n") {
                let piece = server.read_some().expect("more of the body");
                server.send(&piece);
                seen.extend_from_slice(&piece);
            }
        });
        let mut writer = client.twin();
        let sender = std::thread::spawn(move || {
            let mut flow = Flow::new(20 * MIB);
            while let Some(piece) = flow.next() {
                writer.send([format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat());
            }
            writer.send("0\r\n\r\n");
            flow.hash()
        });
        let answer = client.response();
        assert_eq!(answer.body.len(), 20 * MIB);
        assert_eq!(format!("{:x}", Sha256::digest(&answer.body)), sender.join().expect("the sender"));
        echo.join().expect("the server");
    }
}

#[test]
fn a_reader_that_stops_stops_its_own_stream_alone() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let bytes = 64 * MIB;
        let origin = serving(move |request| match request.target() {
            "/large" => {
                let mut all = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
                let mut flow = Flow::new(bytes);
                while let Some(piece) = flow.next() {
                    all.extend_from_slice(&piece);
                }
                all
            }
            target => ok(target).into(),
        });
        let _worker = edge.worker(origin);
        let mut lazy: Vec<_> = (0..3).map(|_| edge.sent(get("/large"))).collect();
        for client in &mut lazy {
            assert_eq!(client.head().framing, Framing::Length(bytes as u64));
        }
        std::thread::sleep(QUIET);
        // On the same link, the others get theirs.
        let mut clients: Vec<_> = (0..8).map(|_| edge.client()).collect();
        for round in 0..20 {
            for client in &mut clients {
                client.get(&format!("/{round}"));
            }
            for client in &mut clients {
                assert_eq!(client.response().text(), format!("/{round}"));
            }
        }
        let mut flow = Flow::new(bytes);
        while flow.next().is_some() {}
        let want = flow.hash();
        for client in &mut lazy {
            assert_eq!(hash_of(client, bytes), want);
        }
    }
}

#[test]
fn a_reader_that_stops_is_not_buffered_for() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.sent(get("/"));
        let mut server = origin.accept();
        server.request();
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        client.head();
        server.stream.set_nonblocking(true).expect("nonblocking");
        let sent = write_until_full(&mut server);
        // Four sockets' buffers, one stream's window, and what the two programs hold.
        assert!(sent < 48 * MIB, "{} MiB are on their way to a client that does not read", sent / MIB);
    }
}

#[test]
fn a_worker_that_stops_reading_stops_its_own_upload_alone() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        let mut upload = edge.sent(start("POST", "/upload") + "Content-Length: 1000000000\r\n\r\n");
        let asked = worker.accept();
        upload.stream.set_nonblocking(true).expect("nonblocking");
        let sent = write_until_full(&mut upload);
        assert!(sent < 32 * MIB, "{} MiB are on their way to a worker that does not read", sent / MIB);
        let mut client = edge.client();
        for n in 0..10 {
            client.get(&format!("/{n}"));
            worker.accept().ok("fine");
            assert_eq!(client.response().text(), "fine");
        }
        drop(asked);
    }
}

// ---- our own worker ----

#[test]
fn our_worker_shares_its_credits_over_its_links() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = serving(|request| ok(request.target()));
        let _worker = edge.worker_of(origin, |config| (config.links, config.concurrency) = (3, 8));
        let status = edge.until(|status| credits(status) == 8);
        let mut each: Vec<_> =
            status["links"].as_array().expect("a list").iter().map(|link| link["credits"].as_u64()).collect();
        each.sort();
        assert_eq!(each, [Some(2), Some(3), Some(3)]);
    }
}

#[test]
fn our_worker_passes_everything_on() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.sent(
            start("PATCH", "/a?b=c")
                + "Transfer-Encoding: chunked\r\nCookie: a=b\r\nCookie: c=d\r\nX-Up: 1\r\n\
             Connection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n5\r\nhello\r\n0\r\nX-T: up\r\n\r\n",
        );
        let mut server = origin.accept();
        let seen = server.request();
        assert_eq!((seen.line.as_str(), seen.field("host")), ("PATCH /a?b=c HTTP/1.1", Some(HOST)));
        assert_eq!((seen.text(), seen.field("x-up"), seen.field("x-hop")), ("hello", Some("1"), None));
        assert_eq!(seen.all("cookie").join("; "), "a=b; c=d");
        assert_eq!(seen.trailers.len(), 1, "{seen:?}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert!(seen.field("forwarded").is_some() && seen.field("priority") == Some("u=3"), "{seen:?}");
        server.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        let hints = client.response();
        assert_eq!((hints.status(), hints.field("link")), (103, Some("</x>")));
        server.send(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
             Connection: x-hop\r\nX-Hop: 1\r\n\r\n4\r\ndone\r\n0\r\nX-T: down\r\n\r\n",
        );
        let answer = client.response();
        assert_eq!((answer.status(), answer.text(), answer.field("x-hop")), (201, "done", None));
        assert_eq!(answer.all("set-cookie"), ["a=b", "c=d"]);
        assert_eq!(answer.trailers, [("x-t".to_owned(), "down".to_owned())]);

        // HEAD, 204, 304 and nothing at all, over the same connection to the server.
        client.send(start("HEAD", "/") + "\r\n");
        assert_eq!(server.request().method(), "HEAD");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
        assert_eq!(client.response_to_head().field("content-length"), Some("12345"));
        for head in ["204 No Content\r\n", "304 Not Modified\r\nETag: \"x\"\r\n", "200 OK\r\nContent-Length: 0\r\n"] {
            client.get("/");
            server.request();
            server.send(format!("HTTP/1.1 {head}\r\n"));
            let answer = client.response();
            assert_eq!(answer.status().to_string(), head[..3]);
            assert!(answer.body.is_empty());
        }
        origin.is_alone();
    }
}

#[test]
fn a_request_without_a_body_reaches_the_server_without_one() {
    let edge = edge();
    let origin = Origin::start();
    let _worker = edge.worker(origin.address);
    let mut client = edge.sent(get("/"));
    let mut server = origin.accept();
    let seen = server.serve("");
    assert_eq!(seen.framing, Framing::None, "{seen:?}");
    client.response();
    client.send(start("POST", "/") + "Content-Length: 0\r\n\r\n");
    let seen = server.serve("");
    assert_eq!((seen.framing, seen.all("content-length").len()), (Framing::Length(0), 1));
    client.response();
    client.send(start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let seen = server.serve("");
    assert!(seen.body.is_empty());
    client.response();
}

#[test]
fn an_expectation_passes_through_our_worker() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.sent(start("POST", "/") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.response().status(), 100);
        client.send("hello");
        assert_eq!(origin.accept().serve("got it").text(), "hello");
        assert_eq!(client.response().text(), "got it");
        client.is_quiet();
    }
}

#[test]
fn a_stale_connection_to_the_server_is_replaced() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 0").start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.client();
        // Closed while idle, with a FIN or a reset; or at the moment of the next request.
        for how in ["fin", "reset", "at the next"] {
            client.get("/first");
            let mut server = origin.accept();
            server.serve("first");
            assert_eq!(client.response().text(), "first");
            match how {
                "fin" => drop(server),
                "reset" => server.reset(),
                _ => {
                    client.get("/second");
                    assert_eq!(server.request().target(), "/second");
                    drop(server);
                    let mut server = origin.accept();
                    assert_eq!(server.serve("again").target(), "/second", "{how}");
                    assert_eq!(client.response().text(), "again");
                    continue;
                }
            }
            client.get("/second");
            let mut server = origin.accept();
            assert_eq!(server.serve("second").target(), "/second", "{how}");
            assert_eq!(client.response().text(), "second");
            drop(server);
        }
    }
}

#[test]
fn a_server_that_is_away_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let _worker = edge.worker(common::closed_port());
        let mut client = edge.client();
        for request in [get("/"), post("/", "body")] {
            client.send(request);
            assert_own(&client.response(), 502, "connection_refused");
        }
    }
}

#[test]
fn a_server_that_answers_nonsense_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.client();
        for bytes in [
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20_000)),
        ] {
            client.send(post("/", ""));
            let mut server = origin.accept();
            server.request();
            server.send_if_open(bytes);
            let answer = client.response();
            assert_eq!(answer.status(), 502, "{bytes:.60?}: {answer:?}");
            assert_own(&answer, 502, "http_protocol_error");
            server.ends();
        }
        // The server hangs up without an answer.
        client.send(post("/", ""));
        origin.accept().request();
        assert_own(&client.response(), 502, "connection_terminated");
        client.get("/");
        origin.accept().serve("fine");
        assert_eq!(client.response().text(), "fine");
    }
}

#[test]
fn a_server_that_breaks_off_is_never_ended_as_complete() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        for (head, body) in [
            ("Content-Length: 100\r\n", "some"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\nx"),
            ("", "some"),
        ] {
            // Not to be sent again: what comes of it is what its client gets.
            let mut client = edge.sent(post("/", ""));
            let mut server = origin.accept();
            server.request();
            server.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"));
            if body.ends_with('x') {
                // The worker may see the whole of it before the head has left: then it is a 502.
                if client.head().status() == 502 {
                    continue;
                }
            } else {
                client.head();
                client.read_until(b"some");
            }
            server.reset();
            let (rest, _) = client.end();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{head}: {:?}", String::from_utf8_lossy(&rest));
        }
        // Others on the same link are none the worse.
        let mut client = edge.sent(get("/"));
        origin.accept().serve("fine");
        assert_eq!(client.response().text(), "fine");
    }
}

#[test]
fn a_client_that_leaves_ends_its_connection_to_the_server() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        for begins in [false, true] {
            let mut client = edge.sent(get("/"));
            let mut server = origin.accept();
            server.request();
            if begins {
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
                client.head();
            }
            drop(client);
            server.ends();
            edge.until_credits(64);
        }
    }
}

#[test]
fn clients_that_leave_at_once_do_not_cost_others_their_link() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("per_link_max = 1000\nretries_max = 0").start();
        let origin = Origin::start();
        let _worker = edge.worker_of(origin.address, |config| config.concurrency = 1000);
        let mut bystander = edge.sent(post("/bystander", ""));
        let mut server = origin.accept();
        assert_eq!(server.request().target(), "/bystander");
        for _ in 0..5 {
            let bad = start("POST", "/bad") + "Transfer-Encoding: chunked\r\n\r\n";
            let mut bad: Vec<_> = (0..100).map(|_| edge.sent(&bad)).collect();
            for client in &mut bad {
                client.send_if_open("zz\r\n");
            }
            let leaving: Vec<_> = (0..100).map(|_| edge.sent(get("/leaves"))).collect();
            drop((bad, leaving));
        }
        edge.until_credits(999);
        server.ok("unharmed");
        assert_eq!(bystander.response().text(), "unharmed");
        assert_eq!(common::setups(&edge.status()), 1, "the link was lost");
    }
}

#[test]
fn a_websocket_runs_through_our_worker() {
    use base64::Engine as _;
    let accept = |key: &str| {
        use sha1::Digest as _;
        let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        base64::engine::general_purpose::STANDARD.encode(sha1::Sha1::digest(text))
    };
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let upgrade = start("GET", "/ws")
            + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut client = edge.sent(&upgrade);
        let mut server = origin.accept();
        let seen = server.request();
        assert!(seen.connection("upgrade") && seen.field("upgrade") == Some("websocket"), "{seen:?}");
        let key = seen.field("sec-websocket-key").expect("an HTTP/1.1 server wants one").to_owned();
        server.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\nhello",
            accept(&key)
        ));
        let answer = client.head();
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(
            answer.field("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "for the client's own key"
        );
        assert_eq!(client.read(5), b"hello");
        for bytes in [1, 1_000, 300_000] {
            let bytes = pattern(bytes);
            let mut writer = client.twin();
            let up = bytes.clone();
            let sender = std::thread::spawn(move || writer.send(up));
            assert_eq!(server.read(bytes.len()), bytes);
            sender.join().expect("the sender");
            server.send(&bytes);
            assert_eq!(client.read(bytes.len()), bytes);
        }
        server.finish();
        assert_eq!(client.end().1, End::Fin);
        drop(client);
        server.ends();
        edge.until_credits(64);

        // A server that does not know the key has not read the request.
        let mut client = edge.sent(&upgrade);
        let mut server = origin.accept();
        server.request();
        server.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        );
        assert_own(&client.response(), 502, "http_protocol_error");
    }
}

#[test]
fn our_worker_speaks_to_a_unix_socket() {
    let edge = edge();
    let directory = std::env::temp_dir().join(format!("ptth-e2e-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            seen.push(byte[0]);
        }
        stream.write_all(ok("unix").as_bytes()).expect("it reads");
    });
    let _worker = edge.worker_of(common::closed_port(), |config| {
        config.to = ptth::worker::config::Target::Unix(path.clone());
    });
    let mut client = edge.sent(get("/"));
    assert_eq!(client.response().text(), "unix");
    server.join().expect("the server");
    std::fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn our_worker_speaks_http1_where_the_edge_wants_it() {
    // An edge that chooses HTTP/1.1 is played here.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = serving(|request| ok(request.target()));
    let at = listener.local_addr().expect("an address");
    let config = WorkerConfig { concurrency: 1, ..worker_config(at, origin, Secret::bearer("token")) };
    let worker = ptth::worker::Worker::start(config).expect("a worker");
    let mut edge = Peer::new(listener.accept().expect("a connection").0);
    let setup = edge.request();
    assert_eq!(setup.line, "GET /.well-known/ptth/pool/app HTTP/1.1");
    assert_eq!(setup.field("authorization"), Some("Bearer token"));
    assert_eq!(setup.field("upgrade"), Some("ptth"));
    assert!(setup.connection("upgrade") && setup.field("host").is_some(), "{setup:?}");
    assert_eq!(setup.field("alpn"), Some("h2, http%2F1.1"));
    edge.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n\r\n{}",
        get("/in-one-piece")
    ));
    assert_eq!(edge.response().text(), "/in-one-piece");
    for n in 0..5 {
        edge.get(&format!("/{n}"));
        assert_eq!(edge.response().text(), format!("/{n}"));
    }
    worker.drain();
    edge.ends();
    assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
}

#[test]
fn our_worker_tries_again_whatever_the_edge_says() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (at, nobody) = (listener.local_addr().expect("an address"), common::closed_port());
    let config = WorkerConfig { concurrency: 1, ..worker_config(at, nobody, Secret::bearer("token")) };
    let worker = ptth::worker::Worker::start(config).expect("a worker");
    for answer in [
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h3qx\r\n\r\n",
        "nonsense",
        "",
    ] {
        let mut edge = Peer::new(listener.accept().expect("it redials").0);
        edge.request();
        edge.send_if_open(answer);
        edge.finish();
        edge.ends();
    }
    worker.drain();
    assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
}

#[test]
fn many_clients_and_two_workers_mix_nothing_up() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = serving(|request| {
            let body = format!("{} {} {}", request.method(), request.target(), request.text());
            match request.body.len() % 3 {
                0 => ok(&body),
                1 => format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                ),
                _ => format!(
                    "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
            }
        });
        let _workers = [
            edge.worker_of(origin, |config| (config.links, config.concurrency) = (2, 4)),
            edge.worker_of(origin, |config| (config.links, config.concurrency) = (1, 3)),
        ];
        let address = edge.address;
        let clients: Vec<_> = (0..32)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut client = Peer::connect(address);
                    for round in 0..40 {
                        let body = "b".repeat((n * 31 + round * 17) % 3_000);
                        let path = format!("/{n}/{round}");
                        client.send(if round % 2 == 0 {
                            post(&path, &body)
                        } else {
                            format!(
                                "{}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                                start("POST", &path),
                                if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) }
                            )
                        });
                        let answer = client.response();
                        assert_eq!(answer.text(), format!("POST {path} {body}"), "{answer:?}");
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("every answer was its own");
        }
    }
}

#[test]
fn hyper_is_served_as_a_client() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::TokioIo;
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = serving(|request| ok(&format!("{} {}", request.target(), request.text())));
        let _worker = edge.worker(origin);
        let address = edge.address;
        common::h2_worker::block_on(async move {
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let (mut send, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
            tokio::spawn(connection);
            for n in 0..50 {
                let body = "x".repeat(n * 700);
                let request = hyper::Request::post(format!("/{n}")).header("host", HOST);
                let request = request.body(Full::new(bytes::Bytes::from(body.clone()))).expect("a request");
                send.ready().await.expect("kept alive");
                let answer = send.send_request(request).await.expect("an answer");
                assert_eq!(answer.status(), 200);
                let text = answer.into_body().collect().await.expect("whole").to_bytes();
                assert_eq!(text, format!("/{n} {body}"));
            }
        });
    }
}

// ---- drains ----

#[test]
fn a_drain_finishes_what_runs() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        let idle: Vec<_> = (0..4)
            .map(|_| {
                let mut client = edge.sent(get("/before"));
                worker.accept().ok("");
                client.response();
                client
            })
            .collect();
        // One after the other: between cores their order would be left to chance.
        let (mut running, mut asked): (Vec<_>, Vec<_>) =
            (0..4).map(|_| (edge.sent(get("/running")), worker.accept())).unzip();
        let mut upload = edge.sent(start("POST", "/upload") + "Content-Length: 10\r\n\r\nfirst");
        let mut uploaded = worker.accept();
        edge.drain();
        for mut client in idle {
            client.ends();
        }
        // Nobody new.
        common::peer::until(|| std::net::TcpStream::connect_timeout(&edge.address, HANG).is_err());
        let mut stream = asked[0].begin(http::Response::new(()));
        stream.send_data("slow".into(), false).expect("open");
        let mut slow = running[0].head();
        upload.send("later");
        assert_eq!(uploaded.read_body().expect("whole").0, b"firstlater");
        uploaded.ok("uploaded");
        let answer = upload.response();
        assert!(answer.connection("close") && answer.text() == "uploaded", "{answer:?}");
        upload.ends();
        asked.remove(0);
        for (asked, client) in asked.into_iter().zip(&mut running[1..]) {
            asked.ok("finished");
            let answer = client.response();
            assert!(answer.connection("close") && answer.text() == "finished", "{answer:?}");
            client.ends();
        }
        stream.send_data("ly".into(), true).expect("open");
        running[0].body(&mut slow).expect("whole");
        assert_eq!(slow.text(), "slowly");
        worker.end().expect("GOAWAY, and a clean end");
        assert!(edge.wait(), "all was finished");
    }
}

#[test]
fn a_drain_answers_what_waits() {
    for cores in CORES {
        // A worker that could serve them is there: finished means served, not timed out.
        let edge = setting().cores(cores).pool("queue = { wait_max = \"60s\" }").start();
        let worker = H2Worker::dial(&edge, 1);
        let mut first = edge.sent(get("/first"));
        let asked = worker.accept();
        let mut waiting: Vec<_> = (0..4).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(4);
        edge.drain();
        edge.until(|status| status["draining"] == true);
        asked.ok("first");
        assert_eq!(first.response().text(), "first");
        worker.serve_all(|_| "served".into());
        for client in &mut waiting {
            let answer = client.response();
            assert!(matches!(answer.status(), 200 | 503), "{answer:?}");
            if answer.status() == 503 {
                assert_own(&answer, 503, "destination_unavailable");
            }
        }
        assert!(edge.wait());
    }
}

#[test]
fn a_drain_without_a_worker_answers_what_waits() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"60s\" }").start();
        let mut waiting: Vec<_> = (0..4).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(4);
        edge.drain();
        for client in &mut waiting {
            assert_own(&client.response(), 503, "destination_unavailable");
            client.ends();
        }
        assert!(edge.wait());
    }
}

#[test]
fn an_idle_edge_drains_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut h1 = edge.h1_link();
        let mut h2 = Frames::dial(&edge, 3);
        let mut client = edge.client();
        edge.drain();
        edge.drain();
        client.ends();
        h1.ends();
        h2.ends();
        assert!(edge.wait());
    }
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off() {
    for cores in CORES {
        let edge = setting().cores(cores).drain_max("500ms").start();
        let worker = H2Worker::dial(&edge, 1);
        let _client = edge.sent(get("/never"));
        let _asked = worker.accept();
        edge.drain();
        assert!(!edge.wait(), "something was left");
    }
}

#[test]
fn a_websocket_does_not_outlive_the_drain() {
    let edge = setting().drain_max("1s").start();
    let mut link = edge.h1_link();
    let mut client = edge.sent(start("GET", "/") + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    link.request();
    link.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.head();
    edge.drain();
    // Its time is drain_max; what it still says passes.
    client.send("still");
    assert_eq!(link.read(5), b"still");
    edge.wait();
}

#[test]
fn a_worker_that_drains_finishes_what_runs() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let worker = edge.worker(origin.address);
        let mut clients = [edge.sent(get("/a")), edge.sent(post("/b", "body"))];
        let mut servers = [origin.accept(), origin.accept()];
        for server in &mut servers {
            server.request();
        }
        worker.drain();
        edge.until_credits(0);
        let mut late = edge.sent(get("/late"));
        edge.until_queued(1);
        late.is_quiet();
        servers[0].send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo");
        std::thread::sleep(QUIET);
        servers[0].send("ne");
        servers[1].ok("done");
        for client in &mut clients {
            assert_eq!(client.response().text(), "done");
        }
        assert!(worker.wait(), "all was finished");
        edge.until_links(0);
        let mut link = edge.h1_link();
        link.serve("by another");
        assert_eq!(late.response().text(), "by another");
    }
}

#[test]
fn a_worker_dials_again_after_the_edge_has_restarted() {
    for cores in CORES {
        let origin = serving(|request| ok(request.target()));
        let edge = setting().cores(cores).start();
        let address = edge.address;
        let worker = edge.worker_of(origin, |config| config.links = 2);
        assert_eq!(edge.client().ask("/before").text(), "/before");
        edge.drain();
        assert!(edge.wait());

        let edge = setting().cores(cores).at(address).start();
        let mut client = edge.sent(get("/after"));
        assert_eq!(client.response().text(), "/after");
        edge.until_links(2);
        drop(edge);
        worker.drain();
        assert!(worker.wait());
    }
}

#[test]
fn a_worker_that_was_first_finds_the_edge_that_comes_later() {
    let address = common::closed_port();
    let origin = serving(|request| ok(request.target()));
    let mut config = worker_config(address, origin, Secret::basic("web-1", common::SECRET));
    config.edges[0].host = "localhost".into();
    let worker = ptth::worker::Worker::start(config).expect("a worker");
    std::thread::sleep(QUIET);
    let edge = setting().at(address).start();
    let mut client = edge.sent(get("/found"));
    assert_eq!(client.response().text(), "/found");
    worker.drain();
    assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
}

#[test]
fn a_worker_drains_while_it_has_no_edge() {
    let origin = serving(|request| ok(request.target()));
    let edge = edge();
    let worker = edge.worker(origin);
    edge.drain();
    assert!(edge.wait());
    std::thread::sleep(QUIET);
    worker.drain();
    assert!(worker.wait());
}

#[test]
fn a_rolling_restart_of_workers_loses_no_request() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = serving(|request: &Message| ok(request.target()));
        let mut worker = edge.worker_of(origin, |config| config.links = 2);
        let address = edge.address;
        let clients: Vec<_> = (0..8)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut client = Peer::connect(address);
                    let mut round = 0;
                    let from = Instant::now();
                    while from.elapsed() < Duration::from_secs(2) {
                        round += 1;
                        let path = format!("/{n}/{round}");
                        client.send(post(&path, "not idempotent"));
                        let answer = client.response();
                        assert_eq!((answer.status(), answer.text()), (200, &*path), "{answer:?}");
                    }
                })
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            let next = edge.worker_at_once(origin, |config| config.links = 2);
            worker.drain();
            assert!(worker.wait());
            worker = next;
        }
        for client in clients {
            client.join().expect("every request was served");
        }
    }
}

#[test]
fn a_setup_that_never_comes_does_not_hold_a_drain() {
    let edge = edge();
    let mut half = edge.sent(&setup(ORIGIN, "h2")[..30]);
    common::peer::until(|| edge.status()["cores"][0]["connections"] == 1);
    edge.drain();
    half.end();
    assert!(edge.wait());
}
