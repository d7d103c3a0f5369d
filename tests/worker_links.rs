//! The links of our own worker: replaced before an edge that leaves closes them, and offering at any time what the worker takes.
//! The edge is played frame by frame, or is h2's client half, or is our own.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::frames::{ACK, Frames, GOAWAY, HEADERS, NO_ERROR, PING, RST_STREAM, SETTINGS};
use common::h2_worker::{Prefixed, block_on};
use common::origin::{Origin, serving};
use common::tls::Files;
use common::worker::{PlayedEdge, Program, ask, offer};
use common::{CORES, HANG, HOST, SECRET, get, ok, setting, worker_config};
use ptth::worker::Worker;
use ptth::worker::config::{Adaptive, Health, Secret, Services, WorkerConfig};

fn config(edge: &PlayedEdge, origin: SocketAddr) -> WorkerConfig {
    worker_config(edge.address, origin, Secret::bearer("token"))
}

/// The link answers a PING: it lives, and has read all that was sent before.
#[track_caller]
fn lives(link: &mut Frames) {
    link.put(PING, 0, 0, b"liveness");
    link.next(|frame| frame.kind == PING && frame.flags & ACK != 0);
}

#[track_caller]
fn answered(link: &mut Frames, stream: u32) -> u16 {
    let head = link.next(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
    assert_eq!(head.kind, HEADERS, "it was reset: {head:?}");
    200 // its head may be coded against the table of earlier ones; who answered is seen at the server
}

// ---- an edge that leaves ----

#[test]
fn a_link_is_replaced_as_soon_as_its_edge_says_that_it_leaves() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let worker = Worker::start(config(&edge, origin.address)).expect("a worker");
    let (mut old, _) = edge.link();
    ask(&mut old, 1, "/runs");
    let mut server = origin.accept();
    assert_eq!(server.request().target(), "/runs");
    old.goaway(0, NO_ERROR);
    // The new one is there while the old one still works.
    let (mut new, _) = edge.link();
    ask(&mut new, 1, "/new");
    origin.accept().serve("new");
    answered(&mut new, 1);
    // RFC 9113 §6.8: whoever said GOAWAY may go on asking; nothing of it is lost.
    ask(&mut old, 3, "/waited");
    origin.accept().serve("waited");
    answered(&mut old, 3);
    server.ok("at last");
    answered(&mut old, 1);
    // Idle, it ends by itself, in order: it takes everything up to its own last word.
    let goaway = old.next(|frame| frame.kind == GOAWAY);
    assert_eq!(goaway.goaway_code(), NO_ERROR);
    old.ends();
    lives(&mut new);
    edge.is_alone();
    worker.drain();
    new.next(|frame| frame.kind == GOAWAY);
    new.ends();
    assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
}

#[test]
fn an_edge_that_leaves_and_is_gone_at_once_is_dialed_again() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let worker = Worker::start(config(&edge, origin.address)).expect("a worker");
    for _ in 0..3 {
        let (mut link, _) = edge.link();
        link.goaway(0, NO_ERROR);
        link.peer.finish();
    }
    let (mut link, _) = edge.link();
    lives(&mut link);
    worker.drain();
}

#[test]
fn a_link_over_http1_is_replaced_too() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let worker = Worker::start(config(&edge, origin.address)).expect("a worker");
    let mut first = edge.accept("http%2F1.1");
    first.send(format!("GET /last HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    let mut server = origin.accept();
    assert_eq!(server.request().target(), "/last");
    let mut second = edge.accept("http%2F1.1"); // before the last request was answered
    second.send(get("/second"));
    let mut other = origin.accept();
    other.serve("second");
    assert_eq!(second.response().text(), "second");
    server.ok("last");
    assert_eq!(first.response().text(), "last");
    first.ends();
    // An end while it is idle is a word, too.
    second.finish();
    let mut third = edge.accept("http%2F1.1");
    third.send(get("/third"));
    server.serve("third"); // the connection that was used last
    assert_eq!(third.response().text(), "third");
    worker.drain();
    third.ends();
}

#[test]
fn a_restarted_edge_has_its_links_again() {
    let origin = serving(|request| ok(request.target()));
    let edge = setting().start();
    let address = edge.address;
    let _worker = edge.worker(origin);
    drop(edge);
    let edge = setting().at(address).start();
    let mut client = edge.sent(get("/back"));
    assert_eq!(client.response().text(), "/back");
}

/// An edge in a process of its own. It is killed when the test is over, or sooner.
struct EdgeProcess(std::process::Child);

impl EdgeProcess {
    fn start(files: &Files, address: SocketAddr) -> EdgeProcess {
        let text = format!(
            "[edge]\ncores = 1\n[[listen]]\naddress = \"{address}\"\naccept = [\"clients\", \"workers\"]\n\
             [[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n\
             [[credential]]\nid = \"web-1\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n",
            common::secret_hash(SECRET)
        );
        files.write("edge.toml", &text);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ptth"));
        command.args(["edge", "--config", &files.path("edge.toml")]).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        EdgeProcess(command.spawn().expect("the program"))
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }
}

impl Drop for EdgeProcess {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_edge_that_was_killed_and_is_started_again_has_its_links_again() {
    let (files, origin) = (Files::new(), serving(|request| ok(request.target())));
    let address = common::closed_port();
    let worker = Worker::start(worker_config(address, origin, Secret::basic("web-1", SECRET))).expect("a worker");
    for path in ["/one", "/two", "/three"] {
        let from = std::time::Instant::now();
        let mut edge = EdgeProcess::start(&files, address);
        // The kernel takes connections for a killed process a moment longer, and resets them then.
        let answer = loop {
            assert!(from.elapsed() < HANG, "no answer comes");
            if edge.has_ended() {
                edge = EdgeProcess::start(&files, address); // its port was not free yet
            }
            let Ok(stream) = std::net::TcpStream::connect(address) else {
                std::thread::sleep(std::time::Duration::from_millis(5));
                continue;
            };
            let mut client = common::Peer::new(stream);
            // It waits in the edge until the worker is there.
            client.send_if_open(get(path));
            if let Some(mut answer) = client.try_head_or_cut() {
                client.body(&mut answer).expect("all of it");
                break answer;
            }
        };
        assert_eq!(answer.text(), path);
    }
    worker.drain();
    assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
}

// ---- what is offered ----

#[test]
fn a_change_of_concurrency_is_told_to_a_link_that_lives() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let with = |concurrency| WorkerConfig { concurrency, ..config(&edge, origin.address) };
    let worker = Worker::start(with(5)).expect("a worker");
    let (mut link, streams) = edge.link();
    assert_eq!(streams, 5);
    for concurrency in [7, 1, 65_536, 3] {
        worker.change(with(concurrency)).expect("it hears");
        assert_eq!(offer(&mut link), concurrency);
        lives(&mut link); // and so the ACK did not reach the engine, which had not asked for one
    }
    worker.change(with(3)).expect("it hears");
    lives(&mut link);
    edge.is_alone();
    worker.drain();
}

#[test]
fn a_device_of_haproxys_begins_without_a_setup_and_tells_its_offer_again() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let with = WorkerConfig { concurrency: 5, haproxy: true, authorization: None, ..config(&edge, origin.address) };
    let worker = Worker::start(with).expect("a worker");
    // Like any client, and nothing is asked of it before its SETTINGS are acknowledged.
    let mut link = Frames { peer: edge.accept_raw() };
    assert_eq!(link.peer.read(24), common::frames::PREFACE);
    link.put(SETTINGS, 0, 0, &[]);
    let first = link.next(|frame| frame.kind == SETTINGS && frame.flags == 0); // and acknowledges it
    assert!(first.payload.windows(6).any(|setting| setting == [0, 3, 0, 0, 0, 5]), "{first:?}");
    assert_eq!(offer(&mut link), 5, "once more, for an edge that takes no notice before the roles turn");
    lives(&mut link);
    ask(&mut link, 1, "/asked");
    origin.accept().serve("served");
    answered(&mut link, 1);
    edge.is_alone();
    worker.drain();
}

#[test]
fn one_change_waits_for_the_answer_to_the_last_and_the_newest_counts() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let with = |concurrency| WorkerConfig { concurrency, ..config(&edge, origin.address) };
    let worker = Worker::start(with(5)).expect("a worker");
    let mut link = Frames { peer: edge.accept("h2") };
    link.peer.send(common::frames::PREFACE);
    link.settings(&[]);
    // Nothing is acknowledged here by itself.
    let mut seen = Vec::new();
    let mut next = |link: &mut Frames| {
        let head = link.peer.read(9);
        let bytes = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = link.peer.read(bytes);
        seen.push(head[3]);
        (head[3], head[4], payload)
    };
    assert_eq!(next(&mut link).0, SETTINGS);
    for concurrency in [6, 7, 8] {
        worker.change(with(concurrency)).expect("it hears");
    }
    let mut settings = 0;
    link.put(PING, 0, 0, b"01234567");
    loop {
        match next(&mut link) {
            (PING, ACK, _) => break,
            (SETTINGS, 0, _) => settings += 1,
            _ => {}
        }
    }
    assert_eq!(settings, 0, "the first was not answered yet");
    // Byte by byte: the answer, a PING behind it, and the answer to the change.
    let drip = |link: &mut Frames, bytes: Vec<u8>| {
        for byte in bytes {
            link.peer.send([byte]);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let frame = common::frames::bytes_of;
    drip(&mut link, [frame(SETTINGS, ACK, 0, &[]), frame(PING, 0, 0, b"12345678")].concat());
    let mut told = None;
    let mut is_answered = false;
    while told.is_none() || !is_answered {
        match next(&mut link) {
            (SETTINGS, 0, payload) => told = Some(payload),
            (PING, ACK, payload) => is_answered |= payload == b"12345678",
            _ => {}
        }
    }
    assert_eq!(told.expect("it came"), [0, 3, 0, 0, 0, 8], "the newest, and nothing else");
    drip(&mut link, [frame(SETTINGS, ACK, 0, &[]), frame(PING, 0, 0, b"23456789")].concat());
    loop {
        if let (PING, ACK, payload) = next(&mut link)
            && payload == b"23456789"
        {
            break;
        }
    }
    // GOAWAY in pieces.
    drip(&mut link, frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, b'w', b'h', b'y']));
    edge.link();
    worker.drain();
}

#[test]
fn what_runs_above_a_lowered_concurrency_is_finished() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let with = |concurrency| WorkerConfig { concurrency, ..config(&edge, origin.address) };
    let worker = Worker::start(with(3)).expect("a worker");
    let (mut link, _) = edge.link();
    let mut servers = Vec::new();
    for stream in [1, 3, 5] {
        ask(&mut link, stream, "/");
        servers.push(origin.accept());
    }
    worker.change(with(1)).expect("it hears");
    assert_eq!(offer(&mut link), 1);
    // One that was on its way when the edge heard of it waits for its turn.
    ask(&mut link, 7, "/late");
    lives(&mut link);
    servers.iter_mut().for_each(|server| drop(server.serve("done")));
    for stream in [1, 3, 5] {
        link.next(|frame| frame.stream == stream && frame.ends_stream());
    }
    let mut late =
        servers.into_iter().find_map(|mut server| server.try_head_soon().map(|_| server)).unwrap_or_else(|| {
            let mut server = origin.accept();
            server.request();
            server
        });
    late.ok("late");
    link.next(|frame| frame.stream == 7 && frame.ends_stream());
    worker.drain();
}

#[test]
fn links_share_the_concurrency_also_when_it_changes() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let with = |concurrency| WorkerConfig { links: 2, concurrency, ..config(&edge, origin.address) };
    let worker = Worker::start(with(9)).expect("a worker");
    let (mut one, first) = edge.link();
    let (mut two, second) = edge.link();
    assert_eq!(first + second, 9);
    worker.change(with(4)).expect("it hears");
    assert_eq!((offer(&mut one), offer(&mut two)), (2, 2));
    worker.drain();
}

#[test]
fn the_h2_crates_client_and_our_own_edge_follow() {
    let origin = serving(|request| ok(request.target()));
    // h2's client half.
    let edge = PlayedEdge::start();
    let with = |concurrency| WorkerConfig { concurrency, ..config(&edge, origin) };
    let worker = Worker::start(with(2)).expect("a worker");
    let peer = edge.accept("h2");
    block_on(async {
        let (stream, left) = peer.into_parts();
        let handshake = h2::client::Builder::new()
            .initial_max_send_streams(0)
            .handshake::<_, bytes::Bytes>(Prefixed::new(stream, left));
        let (mut send, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        for concurrency in [2, 9, 1, 4] {
            worker.change(with(concurrency)).expect("it hears");
            while send.current_max_send_streams() != concurrency as usize {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let request = http::Request::get(format!("http://{HOST}/{concurrency}")).body(()).expect("a request");
            send = send.ready().await.expect("a stream is free");
            let (response, _) = send.send_request(request, true).expect("it is open");
            assert_eq!(response.await.expect("a response").status(), 200);
        }
    });
    worker.drain();
    // Ours.
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut own = worker_config(edge.address, origin, Secret::basic("web-1", SECRET));
        own.links = 2;
        let with = |concurrency| WorkerConfig { concurrency, ..own.clone() };
        let worker = Worker::start(with(6)).expect("a worker");
        for concurrency in [6, 10, 2, 31] {
            worker.change(with(concurrency)).expect("it hears");
            edge.until_credits(u64::from(concurrency));
        }
        let mut client = edge.sent(get("/served"));
        assert_eq!(client.response().text(), "/served");
        worker.drain();
        assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
    }
}

#[test]
fn an_adaptive_concurrency_is_told_as_it_moves_and_stays_in_its_bounds() {
    let origin = serving(|request| ok(request.target()));
    let edge = setting().pool("per_link_max = 1000").start();
    let worker = edge.worker_of(origin, |config| {
        config.concurrency = 8;
        config.adaptive = Some(Adaptive { min: 4, max: 12 });
    });
    // A server that answers at once has no knee here: what is offered rises, and falls to a half for each probe.
    let mut client = edge.client();
    let mut seen = std::collections::BTreeSet::new();
    let from = std::time::Instant::now();
    let mut clients: Vec<_> = (0..7).map(|_| edge.client()).collect();
    while seen.len() < 2 && from.elapsed() < HANG {
        for _ in 0..10 {
            clients.iter_mut().for_each(|client| client.get("/"));
            client.get("/");
            assert!(clients.iter_mut().all(|client| client.response().status() == 200));
            assert_eq!(client.response().status(), 200);
        }
        seen.insert(edge.until(|status| status["pools"][0]["in_flight"] == 0)["pools"][0]["credits"].as_u64());
    }
    assert!(seen.len() > 1, "it never moves: {seen:?}");
    assert!(seen.iter().all(|credits| (4..=12).contains(&credits.expect("a number"))), "{seen:?}");
    worker.drain();
    assert!(worker.wait());
}

// ---- whether the server is well ----

#[test]
fn an_unwell_server_is_offered_to_nobody_and_costs_nobody_an_error() {
    for cores in CORES {
        let is_well = Arc::new(AtomicBool::new(false));
        let looks = is_well.clone();
        let origin = serving(move |request| match (request.target(), looks.load(Ordering::Relaxed)) {
            ("/healthz", false) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
            (path, _) => ok(path),
        });
        let edge = setting().cores(cores).start();
        let path = http::uri::PathAndQuery::from_static("/healthz");
        let health = Health { path, every_ms: 100, timeout_ms: 5_000, rise: 1, fall: 2 };
        let worker = edge.worker_at_once(origin, |config| {
            config.health = Some(health);
            config.concurrency = 8;
        });
        edge.until_links(1);
        for _ in 0..2 {
            let mut clients: Vec<_> = (0..3).map(|n| edge.sent(get(&format!("/{n}")))).collect();
            edge.until_queued(3);
            assert_eq!(common::credits(&edge.status()), 0);
            is_well.store(true, Ordering::Relaxed);
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.response().text(), format!("/{n}"));
            }
            edge.until_credits(8);
            is_well.store(false, Ordering::Relaxed);
            edge.until_credits(0);
        }
        worker.drain();
        assert!(worker.wait());
    }
}

#[test]
fn over_http1_an_unwell_servers_link_ends_and_comes_back() {
    let is_well = Arc::new(AtomicBool::new(true));
    let looks = is_well.clone();
    let origin = serving(move |request| match (request.target(), looks.load(Ordering::Relaxed)) {
        ("/healthz", false) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
        (path, _) => ok(path),
    });
    let edge = PlayedEdge::start();
    let path = http::uri::PathAndQuery::from_static("/healthz");
    let health = Some(Health { path, every_ms: 100, timeout_ms: 5_000, rise: 1, fall: 1 });
    let worker = Worker::start(WorkerConfig { health, ..config(&edge, origin) }).expect("a worker");
    let mut link = edge.accept("http%2F1.1");
    link.send(get("/one"));
    assert_eq!(link.response().text(), "/one");
    is_well.store(false, Ordering::Relaxed);
    link.ends();
    edge.is_alone();
    is_well.store(true, Ordering::Relaxed);
    let mut link = edge.accept("http%2F1.1");
    link.send(get("/two"));
    assert_eq!(link.response().text(), "/two");
    worker.drain();
}

// ---- a configuration that changes ----

#[test]
fn links_to_another_pool_are_there_before_the_old_ones_end() {
    let (edge, origin) = (PlayedEdge::start(), Origin::start());
    let worker = Worker::start(config(&edge, origin.address)).expect("a worker");
    let (mut old, _) = edge.link();
    ask(&mut old, 1, "/runs");
    let mut server = origin.accept();
    server.request();
    let other = Origin::start();
    let changed = WorkerConfig {
        serve: ptth::wire::Scope::Pool("other".into()),
        to: config(&edge, other.address).to,
        ..config(&edge, origin.address)
    };
    worker.change(changed).expect("it hears");
    let (mut new, _) = edge.link();
    ask(&mut new, 1, "/new");
    other.accept().serve("new");
    answered(&mut new, 1);
    // The old one finishes what it has.
    old.next(|frame| frame.kind == GOAWAY);
    server.ok("done");
    old.next(|frame| frame.stream == 1 && frame.ends_stream());
    old.ends();
    lives(&mut new);
    worker.drain();
}

#[test]
fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let (edge, files) = (setting().start(), Files::new());
    let origin = serving(|request| ok(request.target()));
    files.write("web-1.secret", &format!("web-1:{SECRET}\n"));
    let write = |lines: &str| {
        let text = format!(
            "edges = [\"http://{}\"]\nserve = [\"http://{HOST}\"]\nto = \"http://{origin}\"\n\
             credential_file = \"web-1.secret\"\nlinks = 1\n{lines}\n",
            edge.address
        );
        files.write("worker.toml", &text);
    };
    write("concurrency = 3");
    let program = Program::start(&["--config", &files.path("worker.toml")], None);
    edge.until_credits(3);
    write("concurrency = 8");
    program.signal(rustix::process::Signal::HUP);
    program.says("the configuration was read again");
    edge.until_credits(8);
    write("concurrency = 0");
    program.signal(rustix::process::Signal::HUP);
    program.says("worker.toml:6:15: `concurrency` is 0; write a number");
    program.says("the configuration stays as it was");
    assert_eq!(common::credits(&edge.status()), 8);
    // A wrong secret is no mistake in the file: the old link goes on, as long as there is no other.
    files.write("web-1.secret", "web-1:wrong\n");
    write("concurrency = 8");
    program.signal(rustix::process::Signal::HUP);
    program.says("the edge refused the setup with 401");
    let mut client = edge.sent(get("/still"));
    assert_eq!(client.response().text(), "/still");
}

// ---- several services ----

#[test]
fn one_worker_serves_several_servers_each_with_its_own_terms() {
    for cores in CORES {
        let more = format!(
            r#"
            [[pool]]
            name = "other"
            origins = ["other.example"]
            [[credential]]
            id = "both"
            secret_hash = "{}"
            origins = ["*"]
            "#,
            common::secret_hash("both secret")
        );
        let edge = setting().cores(cores).more(&more).start();
        let (first, second) = (serving(|_| ok("first")), Origin::start());
        let secret = || Secret::basic("both", "both secret");
        let one = WorkerConfig { concurrency: 3, ..worker_config(edge.address, first, secret()) };
        let other = WorkerConfig {
            serve: ptth::wire::Scope::Pool("other".into()),
            concurrency: 1,
            ..worker_config(edge.address, second.address, secret())
        };
        let credits = |status: &serde_json::Value| {
            (status["pools"][0]["credits"].as_u64().unwrap(), status["pools"][1]["credits"].as_u64().unwrap())
        };
        let worker = Worker::start(Services(vec![one.clone(), other.clone()])).expect("a worker");
        edge.until(|status| credits(status) == (3, 1));
        let to_other = "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n";
        let mut waits = edge.sent(to_other);
        let mut server = second.accept();
        server.request();
        // One that is busy does not hold up the other.
        let mut client = edge.sent(get("/"));
        assert_eq!(client.response().text(), "first");
        // What changes of one is nothing to the other; and one that goes finishes what it has.
        worker.change(Services(vec![WorkerConfig { concurrency: 5, ..one.clone() }, other])).expect("it hears");
        edge.until(|status| credits(status) == (5, 0));
        worker.change(WorkerConfig { concurrency: 5, ..one }).expect("it hears");
        server.ok("second");
        assert_eq!(waits.response().text(), "second");
        edge.until(|status| status["pools"][1]["links"] == 0);
        let mut client = edge.sent(get("/"));
        assert_eq!(client.response().text(), "first");
        worker.drain();
        assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
    }
}
