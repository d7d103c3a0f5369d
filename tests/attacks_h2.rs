//! What the internet does to HTTP/2 servers, done to the edge, each beside a bystander: another connection that asks all the
//! time, and that must see no error. Nothing here is about speed; the figures that are printed are frames.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use common::frames::{self, Frames, block, bytes_of};
use common::h2_client::{H2Client, asking};
use common::h2_worker::H2Worker;
use common::{HOST, TestEdge, pattern, setting};
use http::Response;
use ptth::limits::{
    CLIENT_SMALL_FRAMES_BYTES, CLIENT_STREAMS_MAX, CONTROL_FRAMES_BURST, LOCAL_RESETS_MAX, RESET_FRAMES_BURST,
    STREAM_WINDOW_BYTES,
};

// ---- who is there ----

/// An edge, a worker, and somebody who is served all the time.
struct Scene {
    edge: TestEdge,
    is_over: Arc<AtomicBool>,
    bystander: JoinHandle<()>,
}

impl Scene {
    /// The worker answers every request of the bystander, and of anybody else.
    #[track_caller]
    fn served() -> Scene {
        Scene::with(|edge| H2Worker::dial(edge, 1_000).serve_all(|head| head.uri.path().to_owned()))
    }

    #[track_caller]
    fn with(workers: impl FnOnce(&TestEdge)) -> Scene {
        let more = format!(
            "[[pool]]\nname = \"by\"\norigins = [\"by.example\"]\n\
             [[credential]]\nid = \"web-2\"\nsecret_hash = \"{}\"\norigins = [\"by.example\"]\n",
            common::secret_hash("by")
        );
        let edge = setting().listen("h2c = true").more(&more).start();
        workers(&edge);
        // The bystander's own worker: what an attacker may keep busy is another's.
        let setup = common::setup("http%3A%2F%2Fby.example", "h2")
            .replace(&common::basic("web-1", common::SECRET), &common::basic("web-2", "by"));
        let (link, answer) = edge.set_up(&setup);
        assert_eq!(answer.status(), 101, "{answer:?}");
        H2Worker::on(link, h2::server::Builder::new().max_concurrent_streams(100))
            .serve_all(|head| head.uri.path().to_owned());
        let is_over = Arc::new(AtomicBool::new(false));
        let (stops, address) = (is_over.clone(), edge.address);
        let (tells, told) = mpsc::channel();
        let bystander = std::thread::spawn(move || {
            let mut client = H2Client::connect(address);
            let mut requests = 0;
            while !stops.load(Ordering::Relaxed) {
                let path = format!("/{requests}");
                let request = http::Request::get(format!("http://by.example{path}")).body(()).unwrap();
                let whole = client.start(request, true).whole();
                assert_eq!((whole.status(), whole.text()), (200, &*path), "a bystander was hit");
                requests += 1;
                let _ = tells.send(()); // the first is waited for
            }
        });
        // Before the attack: some are over before a thread has begun.
        told.recv_timeout(common::HANG).expect("the bystander's first answer");
        Scene { edge, is_over, bystander }
    }

    /// The attackers are gone, and everything is as it was before them. `floods`: whose budget ended them.
    #[track_caller]
    fn ends_well(self, floods: &[(&str, u64)]) {
        self.is_over.store(true, Ordering::Relaxed);
        common::within_hang(self.bystander, |bystander| bystander.join().expect("a bystander"));
        let status = self.edge.until(|status| {
            let pool = &status["pools"][0];
            status["cores"][0]["connections"] == 0 && pool["queued"] == 0 && pool["in_flight"] == 0
        });
        for (frame, count) in floods {
            assert_eq!(status["counters"]["client_floods"][frame], *count, "{frame}");
        }
        // Somebody new is served as if nothing had been.
        let mut client = H2Client::connect(self.edge.address);
        let request = http::Request::get("http://by.example/after").body(()).unwrap();
        assert_eq!(client.start(request, true).whole().text(), "/after");
    }
}

/// One who writes what he likes.
struct Attacker {
    frames: Frames,
    sent: usize,
    pings: u64,
}

impl Attacker {
    #[track_caller]
    fn new(scene: &Scene) -> Attacker {
        Attacker { frames: Frames::client(&scene.edge, &[]), sent: 0, pings: 0 }
    }

    /// Sends `bytes`, which are `count` frames, and waits until the edge has read them: a PING behind them is answered. The
    /// reason is given once the edge has ended the connection.
    #[track_caller]
    fn push(&mut self, bytes: &[u8], count: usize) -> Result<(), Option<u32>> {
        self.sent += count;
        self.pings += 1;
        let number = self.pings.to_be_bytes();
        self.frames.peer.send_if_open(bytes);
        self.frames.peer.send_if_open(bytes_of(frames::PING, 0, 0, &number));
        self.read(|frame| frame.kind == frames::PING && frame.payload == number)
    }

    /// Reads until a frame is as wanted, or the connection has ended.
    #[track_caller]
    fn read(&mut self, wanted: impl Fn(&frames::Frame) -> bool) -> Result<(), Option<u32>> {
        loop {
            match self.frames.frame() {
                Some(frame) if wanted(&frame) => return Ok(()),
                Some(frame) if frame.kind == frames::GOAWAY && frame.goaway_code() != frames::NO_ERROR => {
                    let code = frame.goaway_code();
                    self.frames.ends();
                    return Err(Some(code));
                }
                Some(_) => {}
                None => return Err(None),
            }
        }
    }

    /// Pushes one batch after the other until the edge has had enough: with ENHANCE_YOUR_CALM, and after `frames_max` at the
    /// latest.
    #[track_caller]
    fn until_ended(mut self, what: &str, frames_max: usize, mut batch: impl FnMut(usize) -> (Vec<u8>, usize)) {
        for round in 0.. {
            let (bytes, count) = batch(round);
            match self.push(&bytes, count) {
                Ok(()) => assert!(self.sent < frames_max, "{what}: {} frames, and no end", self.sent),
                Err(reason) => {
                    assert!(matches!(reason, None | Some(frames::ENHANCE_YOUR_CALM)), "{what}: {reason:?}");
                    println!("{what}: ended after at most {} frames", self.sent);
                    return;
                }
            }
        }
    }
}

fn head(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", HOST), (":path", path)])
}

fn request(stream: u32, ends: bool) -> Vec<u8> {
    let flags = frames::END_HEADERS | if ends { frames::END_STREAM } else { 0 };
    bytes_of(frames::HEADERS, flags, stream, &head(if ends { "GET" } else { "POST" }, "/"))
}

/// Streams of a client have odd numbers.
fn stream(index: usize) -> u32 {
    2 * u32::try_from(index).unwrap() + 1
}

/// Time refills budgets while a slow machine runs these tests: what bounds a flood is generous, what is printed is not.
const SLOW: usize = 100_000;

// ---- resets ----

#[test]
fn rapid_reset_in_one_read_ends_at_once() {
    let scene = Scene::served();
    let cancel = frames::CANCEL.to_be_bytes();
    Attacker::new(&scene).until_ended("rapid reset (CVE-2023-44487), 100 pairs at once", 400, |round| {
        let pair =
            |index| [request(stream(index), true), bytes_of(frames::RST_STREAM, 0, stream(index), &cancel)].concat();
        ((round * 100..round * 100 + 100).flat_map(pair).collect(), 200)
    });
    scene.ends_well(&[("engine", 1)]);
}

#[test]
fn rapid_reset_one_by_one_ends_with_its_budget() {
    let scene = Scene::served();
    let cancel = frames::CANCEL.to_be_bytes();
    let bound = 4 * RESET_FRAMES_BURST as usize + SLOW;
    Attacker::new(&scene).until_ended("rapid reset, 10 pairs and a look", bound, |round| {
        let pair =
            |index| [request(stream(index), true), bytes_of(frames::RST_STREAM, 0, stream(index), &cancel)].concat();
        ((round * 10..round * 10 + 10).flat_map(pair).collect(), 20)
    });
    scene.ends_well(&[("rst_stream", 1)]);
}

#[test]
fn resets_that_are_provoked_end_with_the_engines_bound() {
    let scene = Scene::served();
    let bound = 2 * LOCAL_RESETS_MAX + 400;
    // A body longer than it was said to be: RFC 9113 §8.1.1 wants a reset.
    Attacker::new(&scene).until_ended("provoked resets (CVE-2025-8671), bodies too long", bound, |round| {
        let fields =
            [(":method", "POST"), (":scheme", "http"), (":authority", HOST), (":path", "/"), ("content-length", "1")];
        let pair = |index| {
            let head = bytes_of(frames::HEADERS, frames::END_HEADERS, stream(index), &block(&fields));
            [head, bytes_of(frames::DATA, 0, stream(index), b"two")].concat()
        };
        ((round * 10..round * 10 + 10).flat_map(pair).collect(), 20)
    });
    // A window that overflows: §6.9.1 wants one, too.
    Attacker::new(&scene).until_ended("provoked resets, windows too large", bound + SLOW, |round| {
        let pair = |index| {
            let update = bytes_of(frames::WINDOW_UPDATE, 0, stream(index), &[0x7f, 0xff, 0xff, 0xff]);
            [request(stream(index), false), update].concat()
        };
        ((round * 10..round * 10 + 10).flat_map(pair).collect(), 20)
    });
    // A stream that depends on itself.
    Attacker::new(&scene).until_ended("provoked resets, streams that depend on themselves", bound + SLOW, |round| {
        let pair = |index| {
            let depends = [&stream(index).to_be_bytes()[..], &[0]].concat();
            [request(stream(index), false), bytes_of(frames::PRIORITY, 0, stream(index), &depends)].concat()
        };
        ((round * 10..round * 10 + 10).flat_map(pair).collect(), 20)
    });
    // More streams than are allowed: those behind the hundredth are refused.
    Attacker::new(&scene).until_ended("streams beyond the limit", 4 * LOCAL_RESETS_MAX, |round| {
        let open = |index| request(stream(index), false);
        ((round * 200..round * 200 + 200).flat_map(open).collect(), 200)
    });
    scene.ends_well(&[("rst_stream", 0)]);
}

// ---- heads ----

#[test]
fn a_head_that_goes_on_and_on_ends_its_connection() {
    let scene = Scene::served();
    for (what, piece) in [("empty CONTINUATION", &[][..]), ("CONTINUATION with fields", &block(&[("x-a", "b")]))] {
        let mut attacker = Attacker::new(&scene);
        attacker.push(&[], 0).expect("it has begun");
        let first = bytes_of(frames::HEADERS, frames::END_STREAM, 1, &head("GET", "/"));
        attacker.frames.peer.send(first);
        // No PING may stand among them: the edge is given time to look instead.
        loop {
            attacker.sent += 1;
            attacker.frames.peer.send_if_open(bytes_of(frames::CONTINUATION, 0, 1, piece));
            if attacker.frames.peer.has_some_soon() {
                break;
            }
            assert!(attacker.sent < 100, "{what}: no end");
        }
        let reason = attacker.read(|_| false).expect_err("its end");
        assert_eq!(reason, Some(frames::ENHANCE_YOUR_CALM));
        println!("{what} (CVE-2024-27316): ended after at most {} frames", attacker.sent);
    }
    scene.ends_well(&[("engine", 2)]);
}

#[test]
fn a_head_that_unpacks_to_megabytes_ends_its_connection() {
    let scene = Scene::served();
    let mut attacker = Attacker::new(&scene);
    // RFC 7541 §6.2.1: a field of 4,000 bytes that is remembered, and then named by one byte each time.
    let mut bomb = head("GET", "/");
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'v'; 4_000]);
    bomb.extend_from_slice(&[0xbe; 12_000]);
    let bytes = bytes_of(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &bomb);
    assert_eq!(attacker.push(&bytes, 1), Err(Some(frames::ENHANCE_YOUR_CALM)));
    println!("HPACK bomb, 16 KiB that stand for 48 MB: ended after 1 frame");
    // One that keeps within four times the bound is refused, and remembered by nobody.
    let mut attacker = Attacker::new(&scene);
    for index in 0..50 {
        let mut bomb = head("GET", "/");
        bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        bomb.extend_from_slice(&[b'v'; 4_000]);
        bomb.extend_from_slice(&[0xbe; 10]);
        let bytes = bytes_of(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, stream(index), &bomb);
        assert_eq!(attacker.push(&bytes, 1), Ok(()), "{index}");
    }
    attacker.frames.peer.leave();
    scene.ends_well(&[("engine", 1)]);
}

// ---- bodies ----

#[test]
fn data_without_data_ends_its_connection() {
    let scene = Scene::served();
    let mut attacker = Attacker::new(&scene);
    attacker.push(&request(1, false), 1).expect("a request");
    attacker.until_ended("empty DATA", 1_000, |_| (bytes_of(frames::DATA, 0, 1, &[]).repeat(10), 10));
    // With padding it is no less empty.
    let mut attacker = Attacker::new(&scene);
    attacker.push(&request(1, false), 1).expect("a request");
    attacker
        .until_ended("DATA of padding alone", 1_000, |_| (bytes_of(frames::DATA, 8, 1, &[3, 0, 0, 0]).repeat(10), 10));
    scene.ends_well(&[]);
}

#[test]
fn small_data_that_nobody_reads_ends_its_connection_and_grpc_lives() {
    let worker = std::cell::OnceCell::new();
    // The other ends are no part of this: their own bounds are out of the way.
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(100).data_frame_budget(1 << 30);
    let scene = Scene::with(|edge| drop(worker.set(H2Worker::with(edge, &mut builder))));
    let worker = worker.into_inner().unwrap();

    // 10,000 messages of 100 bytes each way, as fast as they go.
    const MESSAGES: usize = 10_000;
    let mut client = H2Client::with(scene.edge.address, h2::client::Builder::new().data_frame_budget(1 << 30));
    let mut grpc = client.start(asking("POST", "/grpc"), false);
    let mut asked = worker.accept();
    let mut stream = asked.begin(Response::new(()));
    let mut back = grpc.begun();
    let message = pattern(100);
    let (up, down) = (Bytes::from(message.clone()), Bytes::from(message));
    let mut sends = grpc.body;
    common::h2_client::spawn(async move {
        for index in 0..MESSAGES {
            common::h2_client::send(&mut sends, up.clone(), index + 1 == MESSAGES).await.expect("it lives");
        }
    });
    let (tell, all_has_come) = tokio::sync::oneshot::channel();
    common::h2_client::spawn(async move {
        for _ in 0..MESSAGES {
            common::h2_client::send(&mut stream, down.clone(), false).await.expect("it lives");
        }
        // The end of an answer is the end of its request, too.
        all_has_come.await.expect("whoever reads is there");
        stream.send_data(Bytes::new(), true).expect("it lives");
    });
    async fn read(body: &mut h2::RecvStream) -> usize {
        let mut bytes = 0;
        while let Some(piece) = common::h2_client::next(body).await {
            bytes += piece.expect("it lives").len();
        }
        bytes
    }
    let reads_up = async {
        let bytes = read(&mut asked.body).await;
        tell.send(()).expect("whoever sends is there");
        bytes
    };
    let seen = common::h2_worker::block_on(async { tokio::join!(reads_up, read(&mut back.body)) });
    assert_eq!(seen, (100 * MESSAGES, 100 * MESSAGES));
    drop((client, grpc.response, back));

    // The same small, and nobody reads: the worker holds the request and does not look at its body.
    let mut attacker = Attacker::new(&scene);
    attacker.push(&request(1, false), 1).expect("a request");
    let held = worker.accept();
    // What fills the link's window goes on to the worker, one by one; behind it, the edge's own bound.
    let bound = 65_535 + CLIENT_SMALL_FRAMES_BYTES / 255 + STREAM_WINDOW_BYTES as usize;
    attacker
        .until_ended("DATA of one byte, unread", bound, |_| (bytes_of(frames::DATA, 0, 1, b"x").repeat(1_000), 1_000));
    drop((held, worker));
    scene.ends_well(&[("engine", 1)]);
}

// ---- frames that are about nothing ----

#[test]
fn frames_for_nothing_end_their_connection() {
    let scene = Scene::served();
    let floods: &[(&str, &str, Vec<u8>)] = &[
        ("PING", "ping", bytes_of(frames::PING, 0, 0, &[7; 8])),
        ("PING answers", "ping", bytes_of(frames::PING, frames::ACK, 0, &[7; 8])),
        ("SETTINGS", "settings", bytes_of(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("empty SETTINGS", "settings", bytes_of(frames::SETTINGS, 0, 0, &[])),
        ("PRIORITY", "priority", bytes_of(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 15])),
        ("WINDOW_UPDATE of the connection", "window_update", bytes_of(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", "window_update", bytes_of(frames::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("RST_STREAM of one that is over", "rst_stream", bytes_of(frames::RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("PRIORITY_UPDATE", "unknown", bytes_of(16, 0, 0, b"\0\0\0\x01u=0")),
        ("of no known kind", "unknown", bytes_of(0xee, 0xff, 1, b"?")),
        // The engine takes the first one at its word.
        ("GOAWAY", "", bytes_of(frames::GOAWAY, 0, 0, &[0; 8])),
    ];
    for (what, _, bytes) in floods {
        let mut attacker = Attacker::new(&scene);
        attacker.push(&request(1, true), 1).expect("a request");
        let bound = 4 * CONTROL_FRAMES_BURST as usize + SLOW;
        attacker.until_ended(what, bound, |_| (bytes.repeat(20), 20));
    }
    let count = |label: &str| floods.iter().filter(|(_, own, _)| *own == label).count() as u64;
    let labels = ["ping", "settings", "priority", "window_update", "rst_stream", "unknown"];
    scene.ends_well(&labels.map(|label| (label, count(label))));
}

// ---- hoarders ----

#[test]
fn a_hoarder_without_windows_costs_each_stream_a_window_and_no_more() {
    let worker = std::cell::OnceCell::new();
    let scene = Scene::with(|edge| drop(worker.set(H2Worker::dial(edge, 1_000))));
    let worker = worker.into_inner().unwrap();
    let mut hoarder = Frames::client(&scene.edge, &[(frames::INITIAL_WINDOW_SIZE, 0)]);
    let streams = CLIENT_STREAMS_MAX as usize;
    let went = Arc::new(AtomicUsize::new(0));
    for index in 0..streams {
        hoarder.peer.send(request(stream(index), true));
        let mut asked = worker.accept();
        let mut body = asked.begin(Response::new(()));
        let went = went.clone();
        common::h2_client::spawn(async move {
            let piece = Bytes::from(pattern(10_000));
            for _ in 0..100 {
                if common::h2_client::send(&mut body, piece.clone(), false).await.is_err() {
                    return;
                }
                went.fetch_add(piece.len(), Ordering::Relaxed);
            }
        });
    }
    // Its heads come, and not a byte behind them.
    for _ in 0..streams {
        let frame = hoarder.next(|frame| matches!(frame.kind, frames::HEADERS | frames::DATA));
        assert_eq!(frame.kind, frames::HEADERS);
    }
    let mut before = usize::MAX;
    common::peer::until(|| {
        std::thread::sleep(common::QUIET);
        let now = went.load(Ordering::Relaxed);
        let is_still = now == before;
        before = now;
        is_still
    });
    // A window of the link for each stream, and one piece that is on its way through.
    let most = streams * 2 * STREAM_WINDOW_BYTES as usize;
    assert!(before <= most, "{before} bytes are held for one who reads none of them");
    println!(
        "100 streams without windows: {before} bytes of theirs left the worker, {} were on offer",
        streams * 1_000_000
    );
    hoarder.peer.leave();
    drop(worker);
    scene.ends_well(&[]);
}

#[test]
fn connections_that_say_nothing_cost_nobody_anything() {
    let scene = Scene::served();
    let mut silent: Vec<_> = (0..50).map(|_| scene.edge.sent(&frames::PREFACE[..20])).collect();
    let idle: Vec<_> = (0..50).map(|_| Frames::client(&scene.edge, &[])).collect();
    // A preface that does not end is given up after some seconds, by a real clock (`SETUP_MS_MAX`, `HEAD_MS_MAX`).
    for peer in &mut silent {
        peer.end();
    }
    drop(idle);
    scene.ends_well(&[]);
}
