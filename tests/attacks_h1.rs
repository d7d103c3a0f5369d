//! Clients over HTTP/1.1 that are slow, greedy or broken on purpose, and beside each kind of them a bystander: a client that
//! asks all the time and must see no error. What it had to wait for is printed, not asserted; only a hang fails. The limits
//! are shortened where a test has to wait for one of them, and never those that the bystander lives by.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::fmt;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::origin::serving;
use common::peer::start;
use common::tls::{Authority, Client, Files};
use common::{HANG, HOST, Message, Peer, TestEdge, TestWorker, assert_own, get, ok, post, setting};
use http::{HeaderMap, StatusCode};
use ptth::client::{Clocks, Service, h1};
use ptth::exchange::{Answer, Ask, Latch, Length, Piece, Reply, RequestBody};
use ptth::fault::Fault;
use ptth::io::{self, Listener, Timer};
use ptth::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, LINE_BYTES_MAX, LISTEN_BACKLOG};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Socket, Type};

// ---- who attacks, and who must not feel it ----

/// A client that asks all the time.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What it saw.
struct Seen {
    requests: u64,
    slowest: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bystander: {} requests, slowest {} ms", self.requests, self.slowest.as_millis())
    }
}

impl Bystander {
    /// On a connection of its own, which stays.
    fn start(address: SocketAddr) -> Bystander {
        let mut client = connect_from(Ipv4Addr::new(127, 0, 0, 2), address, None);
        Bystander::asking(move || {
            let answer = client.ask("/bystander");
            (answer.status(), answer.text().to_owned())
        })
    }

    fn asking(mut ask: impl FnMut() -> (u16, String) + Send + 'static) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = Seen { requests: 0, slowest: Duration::ZERO };
            loop {
                let is_last = stopped.load(Ordering::Relaxed);
                let from = Instant::now();
                assert_eq!(ask(), (200, "/bystander".to_owned()), "after {} requests", seen.requests);
                seen.requests += 1;
                seen.slowest = seen.slowest.max(from.elapsed());
                if is_last {
                    return seen;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Bystander { stop, thread }
    }

    /// One more request, after the attack, and then what it saw.
    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the bystander saw an error")
    }
}

/// A connection from another address of loopback, with a small receive buffer if one is wanted.
fn connect_from(from: Ipv4Addr, to: SocketAddr, receive_bytes: Option<usize>) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).expect("a receive buffer");
    }
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127.0.0.0/8 is here");
    socket.connect_timeout(&to.into(), HANG).expect("the edge listens");
    socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
    Peer::new(TcpStream::from(socket))
}

/// An edge of two cores with these `[limits]`, and our own worker before a server that answers with the path.
fn under_attack(limits: &str) -> (TestEdge, TestWorker) {
    let edge = setting()
        .cores(2)
        .pool("queue = { requests_max = 20000, wait_max = \"10m\" }")
        .more(&format!("[limits]\n{limits}"))
        .start();
    let worker = edge.worker(serving(|request: &Message| ok(request.target())));
    (edge, worker)
}

/// As many as asked for, or as descriptors allow: two for each, and those of the other tests of this binary.
fn clients(wanted: usize) -> usize {
    io::raise_fd_limit();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit.saturating_sub(2_000) / 2).unwrap_or(usize::MAX))
}

fn refusals(edge: &TestEdge, reason: &str) -> u64 {
    edge.status()["counters"]["refusals"][reason].as_u64().expect("a number")
}

/// Until only so many connections are left.
#[track_caller]
fn until_connections(edge: &TestEdge, left: u64) {
    edge.until(|status| status["limits"]["connections"] == left);
}

// ---- the attacks ----

#[test]
fn heads_that_never_end_are_answered_408_and_harm_nobody() {
    let (edge, _worker) = under_attack("head_max_wait = \"3s\"");
    let bystander = Bystander::start(edge.address);
    let count = clients(2_000);
    let from = Instant::now();
    let mut slow: Vec<Peer> = (0..count).map(|_| edge.sent(start("GET", "/slow") + "X-Slow: ")).collect();
    let mut answered = 0;
    while !slow.is_empty() {
        slow.retain_mut(|client| {
            if !client.has_some() {
                client.send_if_open("a");
                return true;
            }
            assert_own(&client.response(), 408, "http_request_error");
            answered += 1;
            false
        });
        assert!(from.elapsed() < 4 * HANG, "{} of {count} are still there", slow.len());
        thread::sleep(Duration::from_millis(100));
    }
    let took = from.elapsed();
    assert_eq!((answered, refusals(&edge, "head_timeout")), (count, count as u64));
    until_connections(&edge, 1);
    println!("slowloris: {count} connections, all answered 408 after {} ms; {}", took.as_millis(), bystander.end());
}

#[test]
fn bodies_that_drip_are_answered_408_and_what_may_drip_goes_on() {
    const SLOW: usize = 100;
    // More than the worker takes at once: the others wait for the first ones to be thrown out.
    let (edge, _worker) = under_attack("body_stall_max = \"3s\"\nbody_rate_min = \"240B\"");
    let bystander = Bystander::start(edge.address);
    let head = |path: &str, more: &str| start("POST", path) + more + "Content-Length: 100000\r\n\r\n";
    let mut slow: Vec<Peer> = (0..SLOW).map(|_| edge.sent(head("/slow", ""))).collect();
    // What a call of gRPC sends, and when, is for the application to say.
    let grpc = "POST /grpc HTTP/1.1\r\nHost: app.example\r\nContent-Type: application/grpc+proto\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut calls = edge.sent(grpc);
    let from = Instant::now();
    while !slow.is_empty() {
        slow.retain_mut(|client| {
            if !client.has_some() {
                client.send_if_open("ten bytes."); // 50 a second
                return true;
            }
            assert_own(&client.response(), 408, "http_request_error");
            client.ends();
            false
        });
        calls.send("1\r\na\r\n");
        assert!(from.elapsed() < 4 * HANG, "{} of {SLOW} are still there", slow.len());
        thread::sleep(Duration::from_millis(200));
    }
    let took = from.elapsed();
    assert_eq!(refusals(&edge, "body_too_slow"), SLOW as u64);
    calls.send("0\r\n\r\n");
    assert_eq!(calls.response().text(), "/grpc");
    println!(
        "slow POST: {SLOW} uploads of 50 B/s, all answered 408 after {} ms; {}",
        took.as_millis(),
        bystander.end()
    );
}

/// 20 downloads, of which each client reads `sip` bytes ten times a second: all of them are cut.
fn check_readers(what: &str, limits: &str, sip: usize) {
    const STUCK: usize = 20;
    const BYTES: usize = 8 << 20;
    let edge = setting().cores(2).more(&format!("[limits]\n{limits}")).start();
    let large =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").into_bytes(), vec![b'x'; BYTES]].concat();
    let origin = serving(move |request: &Message| match request.target() {
        "/large" => large.clone(),
        path => ok(path).into_bytes(),
    });
    let _worker = edge.worker(origin);
    let bystander = Bystander::start(edge.address);
    let from = Instant::now();
    let mut stuck: Vec<Peer> = (0..STUCK)
        .map(|_| {
            let mut client = connect_from(Ipv4Addr::LOCALHOST, edge.address, Some(4 * 1024));
            client.get("/large");
            client
        })
        .collect();
    while edge.status()["counters"]["clients_gone"] != STUCK as u64 {
        assert!(from.elapsed() < 4 * HANG, "some are still there");
        for client in &mut stuck {
            client.stream.set_nonblocking(true).unwrap();
            let _ = client.stream.read(&mut vec![0; sip]); // nothing there, or the end
            client.stream.set_nonblocking(false).unwrap();
        }
        thread::sleep(Duration::from_millis(100));
    }
    let took = from.elapsed();
    until_connections(&edge, 1);
    for client in &mut stuck {
        // What the kernels hold may still come, but never all of it.
        let (seen, _) = client.end();
        assert!(seen.len() < BYTES, "{} bytes came", seen.len());
    }
    println!("{what}: {STUCK} downloads of 8 MiB, all cut after {} ms; {}", took.as_millis(), bystander.end());
}

#[test]
fn clients_that_do_not_read_are_cut_and_their_credits_come_back() {
    check_readers("no reading", "body_stall_max = \"2s\"", 0);
}

#[test]
fn clients_that_sip_are_cut_and_their_credits_come_back() {
    check_readers("sipping 5 kB/s", "body_stall_max = \"2s\"\nbody_rate_min = \"64KiB\"", 500);
}

#[test]
fn one_source_gets_its_share_of_connections_and_another_is_served() {
    const SHARE: usize = 50;
    const ALL: usize = 500;
    let (edge, _worker) = under_attack(&format!("connections_per_source_max = {SHARE}\nsources_exempt = []"));
    let bystander = Bystander::start(edge.address);
    let from = Instant::now();
    let mut greedy: Vec<Peer> = (0..ALL).map(|_| edge.client()).collect();
    let refused = (ALL - SHARE) as u64;
    edge.until(|status| status["counters"]["connections_refused"]["connections_per_source_max"] == refused);
    let took = from.elapsed();
    until_connections(&edge, 1 + SHARE as u64);
    // Their ends are on the way.
    common::peer::until(|| greedy.iter_mut().map(Peer::has_some).filter(|some| *some).count() == ALL - SHARE);
    let mut kept = Vec::new();
    for mut client in greedy {
        if client.has_some() {
            client.ends();
        } else {
            kept.push(client);
        }
    }
    assert_eq!(kept[0].ask("/kept").text(), "/kept");
    kept.truncate(1);
    until_connections(&edge, 2);
    assert_eq!(edge.client().ask("/again").text(), "/again", "a place came back");
    println!(
        "one source: {ALL} connections, {SHARE} kept and {refused} closed after {} ms; {}",
        took.as_millis(),
        bystander.end()
    );
}

#[test]
fn at_its_bound_of_connections_the_edge_waits_and_goes_on() {
    let workers = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]";
    let edge = setting().cores(2).more(&format!("{workers}\n[limits]\nconnections_max = 10")).start();
    let address = edge.addresses[1];
    let worker = || {
        edge.worker_of(serving(|request: &Message| ok(request.target())), |config| {
            config.edges[0].port = address.port()
        })
    };
    let first = worker();
    let mut held: Vec<Peer> = (0..10).map(|_| edge.client()).collect();
    assert_eq!(held[0].ask("/in").text(), "/in");
    until_connections(&edge, 10);
    // Each of the two listeners may have taken one more before it looked.
    let mut late: Vec<Peer> = (0..10).map(|n| edge.sent(get(&format!("/late/{n}")))).collect();
    edge.until(|status| status["counters"]["accept_pauses"]["connections_max"].as_u64() >= Some(1));
    let open = edge.status()["limits"]["connections"].as_u64().expect("a number");
    assert!((10..=12).contains(&open), "{open} connections");
    drop(first);
    let _second = worker(); // on an address of their own they still come in
    assert_eq!(held[0].ask("/still").text(), "/still");
    drop(held);
    for (n, client) in late.iter_mut().enumerate() {
        assert_eq!(client.response().text(), format!("/late/{n}"));
    }
}

#[test]
fn handshakes_that_stall_are_given_up_and_others_are_done() {
    const STALLED: usize = 600;
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    let workers = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]";
    let more = format!("{workers}\n[limits]\nhandshake_max_wait = \"3s\"");
    let edge = setting().cores(2).listen(&format!("tls = {}", files.entry("edge"))).more(&more).start();
    let address = edge.addresses[1];
    let _worker = edge.worker_of(serving(|request: &Message| ok(request.target())), |config| {
        config.edges[0].port = address.port();
    });
    let speaks = Arc::new(Client::new(&authority));
    // Each request with a handshake of its own.
    let (dials, tls) = (edge.address, speaks.clone());
    let bystander = Bystander::asking(move || tls.connect_to(dials, HOST).ask(&get("/bystander")));
    let hello = hello_of(&speaks, &edge);
    let from = Instant::now();
    let mut stalled: Vec<Peer> = (0..STALLED).map(|_| edge.client()).collect();
    for (n, client) in stalled.iter_mut().enumerate() {
        match n % 3 {
            0 => {}
            1 => client.send(&hello[..hello.len() / 2]),
            _ => client.send(&hello), // and no answer to what the edge says
        }
    }
    edge.until(|status| status["counters"]["tls_handshakes"]["timed_out"] == STALLED as u64);
    let took = from.elapsed();
    for client in &mut stalled {
        client.end();
    }
    println!("TLS: {STALLED} handshakes stalled, all given up after {} ms; {}", took.as_millis(), bystander.end());
}

/// The first flight of a TLS client.
fn hello_of(client: &Client, edge: &TestEdge) -> Vec<u8> {
    let mut hello = Vec::new();
    client.dial(edge, HOST).0.conn.write_tls(&mut hello).expect("into memory");
    hello
}

#[test]
fn floods_of_pipelined_requests_are_answered_one_after_the_other() {
    const CLIENTS: usize = 20;
    const REQUESTS: usize = 500;
    let (edge, _worker) = under_attack("");
    let bystander = Bystander::start(edge.address);
    let from = Instant::now();
    let floods: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = edge.client();
            let mut writer = client.twin();
            let writes = thread::spawn(move || {
                writer.send((0..REQUESTS).map(|n| get(&format!("/{n}"))).collect::<String>());
            });
            let reads = thread::spawn(move || {
                for n in 0..REQUESTS {
                    assert_eq!(client.response().text(), format!("/{n}"));
                }
            });
            [writes, reads]
        })
        .collect();
    floods.into_iter().flatten().for_each(|thread| thread.join().expect("all was answered in order"));
    println!(
        "pipelining: {CLIENTS} x {REQUESTS} requests, all answered after {} ms; {}",
        from.elapsed().as_millis(),
        bystander.end()
    );
}

#[test]
fn huge_heads_are_served_or_refused_by_their_size() {
    const EACH: usize = 200;
    let (edge, _worker) = under_attack("");
    let bystander = Bystander::start(edge.address);
    let head = |fields: String| start("GET", "/huge") + &fields + "\r\n";
    let fields = |count: usize, bytes: usize| (0..count).map(|n| format!("X-{n}: {}\r\n", "v".repeat(bytes))).collect();
    let kinds: [(&str, String, u16); 5] = [
        ("just good", head(fields(2, LINE_BYTES_MAX - 600)), 200),
        ("many fields", head(fields(HEAD_FIELDS_MAX - 2, 100)), 200),
        ("too large", head(fields(3, HEAD_BYTES_MAX / 3)), 431),
        ("too many fields", head(fields(HEAD_FIELDS_MAX, 1)), 431),
        ("a long line", head(fields(1, LINE_BYTES_MAX)), 431),
    ];
    let from = Instant::now();
    for (what, bytes, status) in &kinds {
        let mut client = edge.client();
        for _ in 0..EACH {
            client.send_if_open(bytes);
            let answer = client.response();
            assert_eq!(answer.status(), *status, "{what}: {answer:?}");
            if answer.connection("close") {
                client = edge.client();
            }
        }
    }
    assert_eq!(refusals(&edge, "head_too_large"), 3 * EACH as u64);
    println!(
        "huge heads: {} requests, each answered as its size wants after {} ms; {}",
        kinds.len() * EACH,
        from.elapsed().as_millis(),
        bystander.end()
    );
}

#[test]
fn uploads_to_nowhere_are_refused_and_not_read_for_long() {
    const UPLOADS: usize = 20; // each is read for 16 MiB (LINGER_BYTES_MAX)
    let (edge, _worker) = under_attack("");
    let bystander = Bystander::start(edge.address);
    let from = Instant::now();
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|_| {
            let mut client = edge.client();
            thread::spawn(move || {
                let nowhere = post("/", "").replace(HOST, "nowhere.example").replace(": 0", ": 1000000000");
                client.send(nowhere);
                let answer = client.response();
                assert_eq!(answer.status(), 404, "{answer:?}");
                // It sends on all the same, until the edge has enough.
                while client.try_send([b'x'; 64 * 1024]).is_ok() {}
            })
        })
        .collect();
    uploads.into_iter().for_each(|thread| thread.join().expect("it was cut off"));
    until_connections(&edge, 1);
    println!(
        "uploads to nowhere: {UPLOADS} of 1 GB, all cut off after {} ms; {}",
        from.elapsed().as_millis(),
        bystander.end()
    );
}

// ---- defects of our own ----

/// Answers with the path, and has a defect: a path that it panics on, in the middle of its work.
struct Defective;

impl Service for Defective {
    async fn serve(
        &self,
        ask: Ask,
        _body: &mut impl RequestBody,
        answer: &mut impl Answer,
        _timer: &mut Timer,
    ) -> Result<(), Fault> {
        if ask.path.path() == "/defect" {
            io::sleep_ms(1).await; // others run meanwhile
            std::panic::resume_unwind(Box::new("an injected panic")); // without its backtrace
        }
        let body = Bytes::from(ask.path.path().to_owned());
        let length = Length::Exact(body.len() as u64);
        answer.head(Reply { status: StatusCode::OK, headers: HeaderMap::new(), length })?;
        answer.put(Piece::Data { bytes: body, last: true })
    }
}

#[test]
fn a_panic_in_every_hundredth_request_ends_its_own_connection_only() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 500;
    let (told, tells) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    // A core as the edge has it: a task for each connection, serving HTTP/1.1 with a service of this test's own.
    let core = thread::spawn(move || {
        let panics = io::run(|| async move {
            let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG).expect("a port");
            told.send(listener.local_addr().expect("an address")).expect("the test waits");
            let never = Rc::new(Latch::default());
            while !stopped.load(Ordering::Relaxed) {
                let Some(accepted) = io::timeout(50, listener.accept()).await else { continue };
                let (conn, _) = accepted.expect("a connection");
                let never = never.clone();
                io::spawn(async move {
                    h1::serve(Box::new(conn), &Defective, &never, &Clocks::USUAL).await;
                });
            }
            io::panics()
        });
        panics.expect("io_uring")
    });
    let address = tells.recv_timeout(HANG).expect("it listens");
    let bystander = Bystander::start(address);
    let from = Instant::now();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Peer::connect(address);
                for n in 1..=REQUESTS {
                    if n % 100 == 0 {
                        client.get("/defect");
                        client.ends();
                        client = Peer::connect(address);
                    } else {
                        let path = format!("/{n}");
                        assert_eq!(client.ask(&path).text(), path);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("all others were answered"));
    let took = from.elapsed();
    let seen = bystander.end();
    stop.store(true, Ordering::Relaxed);
    let panics = core.join().expect("the core itself is well");
    assert_eq!(panics, (CLIENTS * REQUESTS / 100) as u64);
    println!("panics: {panics} in {} requests, {} ms; {seen}", CLIENTS * REQUESTS, took.as_millis());
}
