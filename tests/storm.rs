//! Storms on real sockets: clients and workers that come, misbehave and go at random, all at once. What each of them does
//! follows from a seed; what meets what does not. Afterwards the books must balance: nobody waits, every request got one
//! answer that it may get, nothing ran twice that must not.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::h2_worker::{Asked, H2Worker};
use common::origin::serving;
use common::peer::start;
use common::{CORES, Message, ORIGIN, Peer, TestEdge, pattern, setting, setup};
use ptth::limits::REPLAY_BYTES_MAX;

/// Another storm: `STORM_SEED=7 cargo test --test storm`.
const SEEDS: [u64; 3] = [1, 2, 3];
const CLIENTS: u64 = 24;
const REQUESTS: u64 = 24;
/// So many that a request which may be sent again is never lost by bad luck alone.
const RETRIES_MAX: u32 = 10;

#[test]
fn a_storm_leaves_nothing_behind_and_runs_nothing_twice() {
    let asked_for = std::env::var("STORM_SEED").map(|seed| vec![seed.parse().expect("STORM_SEED is a number")]);
    for seed in asked_for.unwrap_or(SEEDS.to_vec()) {
        for cores in CORES {
            let _shown = Shown { seed, cores };
            storm(seed, cores);
        }
    }
}

/// Tells what to ask for again, if this storm fails.
struct Shown {
    seed: u64,
    cores: u16,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see it again: STORM_SEED={} (it was on {} cores)", self.seed, self.cores);
        }
    }
}

fn storm(seed: u64, cores: u16) {
    let pool =
        format!("retries_max = {RETRIES_MAX}\nqueue = {{ wait_max = \"10m\" }}\nresponse_head_max_wait = \"0s\"");
    let edge = setting().cores(cores).pool(&pool).credential("links_max = 1000").start();
    let ledger = Ledger::default();
    let over = AtomicBool::new(false);
    let dice = |who: u64| Dice(seed.wrapping_mul(1_000_003) ^ who.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    std::thread::scope(|scope| {
        let stop = Stop(&over);
        for n in 0..2 {
            let (edge, ledger, over) = (&edge, &ledger, &over);
            scope.spawn(move || h1_workers(edge, ledger, over, dice(100 + n)));
            scope.spawn(move || h2_workers(edge, ledger, over, dice(200 + n)));
        }
        scope.spawn(|| own_workers(&edge, &ledger, &over, dice(300)));
        let (edge, ledger) = (&edge, &ledger);
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || client(edge, ledger, n, dice(n)))).collect();
        let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        drop(stop);
        for end in ends {
            if let Err(panic) = end {
                std::panic::resume_unwind(panic);
            }
        }
    });
    ledger.check();
    edge.until(|status| {
        let pool = &status["pools"][0];
        let is_empty = ["queued", "queued_bytes", "in_flight", "links"].iter().all(|name| pool[name] == 0);
        let cores = status["cores"].as_array().expect("a list");
        is_empty && cores.iter().all(|core| core["connections"] == 0)
    });
}

/// The storm is over when this goes, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Numbers that look random and follow from the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.roll(many) == 0
    }

    fn nap(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(self.roll(ms)));
    }
}

// ---- what happened to each request ----

#[derive(Default)]
struct Ledger {
    next: AtomicU64,
    entries: Mutex<HashMap<u64, Entry>>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    method: &'static str,
    body_bytes: usize,
    /// Workers that took it, and did not give it back.
    ran: u32,
    /// A worker answered it in part, or with what is no answer, or its link broke while the answer may have been under way.
    was_spoilt: bool,
    end: Option<Outcome>,
}

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    /// The connection ended before the answer did.
    Cut,
    Left,
}

impl Ledger {
    fn open(&self, method: &'static str, body_bytes: usize) -> u64 {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let entry = Entry { method, body_bytes, ..Entry::default() };
        self.entries.lock().expect("no panic").insert(id, entry);
        id
    }

    fn note(&self, id: u64, note: impl FnOnce(&mut Entry)) {
        note(self.entries.lock().expect("no panic").get_mut(&id).expect("only what was asked comes"));
    }

    fn ran(&self, id: u64) {
        self.note(id, |entry| entry.ran += 1);
    }

    fn spoils(&self, id: u64) {
        self.note(id, |entry| entry.was_spoilt = true);
    }

    fn end(&self, id: u64, end: Outcome) {
        self.note(id, |entry| assert_eq!(entry.end.replace(end), None, "{id} ended twice"));
    }

    fn check(&self) {
        let entries = self.entries.lock().expect("no panic");
        assert_eq!(entries.len() as u64, CLIENTS * REQUESTS);
        let mut served = 0;
        for (id, entry) in entries.iter() {
            let is_idempotent = entry.method != "POST";
            let ran_max = if is_idempotent { 1 + RETRIES_MAX } else { 1 };
            assert!(entry.ran <= ran_max, "it ran too often: {id} {entry:?}");
            let is_allowed = match entry.end.expect("every client has ended") {
                Outcome::Answered(200) => entry.ran >= 1,
                // Lost with a worker that may have begun it, or given back when its body was gone.
                Outcome::Answered(502) => !is_idempotent || entry.was_spoilt || entry.body_bytes > REPLAY_BYTES_MAX,
                Outcome::Answered(_) => false,
                Outcome::Cut => entry.was_spoilt,
                Outcome::Left => true,
            };
            assert!(is_allowed, "{id} {entry:?}");
            served += u32::from(entry.end == Some(Outcome::Answered(200)));
        }
        assert!(served > 0, "a storm in which nobody is served shows nothing");
    }
}

/// Who is asked for, and how much padding its answer has.
fn parts_of(target: &str) -> (u64, usize) {
    let (id, pad) = target.trim_start_matches('/').split_once('/').expect("/id/pad");
    (id.parse().expect("a number"), pad.parse().expect("a number"))
}

/// What the right answer says: whom it answers, what came, and padding.
fn answer_of(target: &str, method: &str, body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut text = format!("{method} {target} {} {sum}\n", body.len()).into_bytes();
    text.extend(pattern(parts_of(target).1));
    text
}

// ---- clients ----

fn client(edge: &TestEdge, ledger: &Ledger, n: u64, mut dice: Dice) {
    let mut kept: Option<Peer> = None;
    for _ in 0..REQUESTS {
        let mut peer = kept.take().unwrap_or_else(|| edge.client());
        let method = ["GET", "HEAD", "POST", "POST", "PUT", "DELETE"][dice.roll(6) as usize];
        let has_body = matches!(method, "POST" | "PUT");
        let body_bytes = if !has_body { 0 } else { [0, 10, 5_000, 40_000, 150_000][dice.roll(5) as usize] };
        let body = pattern(body_bytes);
        let pad = [0, 100, 20_000, 300_000][dice.roll(4) as usize];
        let id = ledger.open(method, body_bytes);
        let target = format!("/{id}/{pad}");
        let mut bytes = start(method, &target).into_bytes();
        if has_body && dice.one_in(2) {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(7_000) {
                bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            let length = if has_body { format!("Content-Length: {body_bytes}\r\n") } else { String::new() };
            bytes.extend([length.as_bytes(), b"\r\n", &body].concat());
        }

        let leaves = dice.roll(12);
        if leaves == 0 {
            // In the middle of its head or its upload.
            bytes.truncate(1 + dice.roll(bytes.len() as u64) as usize);
        }
        peer.send_if_open(&bytes); // an early 502 may end it; the answer tells
        if leaves <= 1 {
            dice.nap(20); // waits, or is on its way
            leave(peer, &mut dice);
            ledger.end(id, Outcome::Left);
            continue;
        }
        let Some(mut answer) = peer.try_head_or_cut() else {
            ledger.end(id, Outcome::Cut);
            continue;
        };
        if leaves == 2 && method != "HEAD" {
            peer.read_up_to(1 + dice.roll(10_000) as usize); // some of its body
            leave(peer, &mut dice);
            ledger.end(id, Outcome::Left);
            continue;
        }
        if method != "HEAD" && peer.body(&mut answer).is_err() {
            ledger.end(id, Outcome::Cut);
            continue;
        }
        let status = answer.status();
        if status == 200 {
            let want = answer_of(&target, method, &body);
            match method {
                "HEAD" => assert_eq!(answer.field("content-length"), Some(&*want.len().to_string()), "client {n}"),
                _ => assert!(answer.body == want, "client {n}, request {id}: another answer: {}", shown(&answer)),
            }
        } else {
            assert!(answer.field("proxy-status").is_some(), "client {n}, request {id}: {}", shown(&answer));
        }
        ledger.end(id, Outcome::Answered(status));
        // After an early answer the rest of its upload may cost it the connection.
        if status == 200 && !answer.connection("close") && !dice.one_in(8) {
            kept = Some(peer);
        } else {
            ends_clean(peer);
        }
    }
    if let Some(peer) = kept {
        ends_clean(peer);
    }
}

fn shown(answer: &Message) -> String {
    format!(
        "{} {:?} {}",
        answer.line,
        answer.fields,
        String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)])
    )
}

/// After its last answer a connection brings nothing more.
fn ends_clean(mut peer: Peer) {
    peer.finish();
    let (rest, _) = peer.end();
    assert!(rest.is_empty(), "a second answer: {:?}", String::from_utf8_lossy(&rest[..rest.len().min(200)]));
}

fn leave(peer: Peer, dice: &mut Dice) {
    if dice.one_in(2) {
        peer.reset();
    }
}

// ---- workers ----

/// HTTP/1.1 links, one after the other.
fn h1_workers(edge: &TestEdge, ledger: &Ledger, over: &AtomicBool, mut dice: Dice) {
    dice.nap(300); // the first requests wait for somebody
    while !over.load(Ordering::SeqCst) {
        let (mut link, answer) = edge.set_up(&setup(ORIGIN, "http%2F1.1"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        let serves = 1 + dice.roll(20);
        let mut last = None;
        for _ in 0..serves {
            if !comes(over, || link.has_some()) {
                break;
            }
            let Some(mut request) = link.try_head_or_cut() else { break };
            let (id, _) = parts_of(request.target());
            ledger.ran(id);
            last = Some(id);
            if dice.one_in(20) {
                break; // in the middle of the upload, if there is one
            }
            if link.body(&mut request).is_err() || !h1_answer(&mut link, &request, ledger, &mut dice) {
                break;
            }
        }
        // A reset overtakes what was sent before it; so does an end while unread bytes wait here.
        last.iter().for_each(|id| ledger.spoils(*id));
        leave(link, &mut dice);
    }
}

/// False: that was the last one.
fn h1_answer(link: &mut Peer, request: &Message, ledger: &Ledger, dice: &mut Dice) -> bool {
    let (target, method) = (request.target(), request.method());
    let (id, _) = parts_of(target);
    let body = answer_of(target, method, &request.body);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    match dice.roll(24) {
        0 => return false,
        1 => {
            ledger.spoils(id);
            link.send_if_open("nonsense\r\n\r\n");
            return false;
        }
        2 => {
            ledger.spoils(id);
            let whole = [head.as_bytes(), &body].concat();
            link.send_if_open(&whole[..dice.roll(whole.len() as u64) as usize]);
            return false;
        }
        3 => {
            dice.nap(100); // stalls, and then goes, or goes on
            if dice.one_in(2) {
                return false;
            }
        }
        _ => {}
    }
    if method == "HEAD" {
        link.send_if_open(head);
    } else if dice.one_in(2) {
        link.send_if_open([head.as_bytes(), &body].concat());
    } else {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(30_000) {
            bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        bytes.extend(b"0\r\n\r\n");
        link.send_if_open(bytes);
    }
    true
}

/// HTTP/2 links, one after the other.
fn h2_workers(edge: &TestEdge, ledger: &Ledger, over: &AtomicBool, mut dice: Dice) {
    dice.nap(300);
    while !over.load(Ordering::SeqCst) {
        let (link, answer) = edge.set_up(&setup(ORIGIN, "h2"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        let resets = dice.one_in(3);
        if resets {
            let socket = socket2::SockRef::from(&link.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        }
        let mut builder = h2::server::Builder::new();
        // What is stalled must not hold up the others.
        builder.max_concurrent_streams(1 + dice.roll(4) as u32).initial_connection_window_size(16 << 20);
        let worker = H2Worker::on(link, &builder);
        let (mut stalled, mut all) = (Vec::new(), Vec::new());
        let serves = 1 + dice.roll(40);
        for _ in 0..serves {
            let mut next = None;
            let mut patience = dice.roll(200);
            if !comes(over, || {
                next = worker.try_accept();
                patience = patience.saturating_sub(u64::from(!stalled.is_empty()));
                next.is_some() || patience == 0 || worker.has_ended()
            }) {
                break;
            }
            let Some(asked) = next else { break };
            all.push(parts_of(asked.path()).0);
            stalled.extend(h2_answer(asked, ledger, &mut dice));
        }
        if !resets && dice.one_in(2) {
            // What still comes was sent before it heard of the end.
            worker.goaway();
            drop(stalled);
            while !worker.has_ended() {
                if let Some(asked) = worker.try_accept() {
                    drop(h2_answer(asked, ledger, &mut dice));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            all.iter().for_each(|id| ledger.spoils(*id));
            worker.lose();
        }
    }
}

/// A request that is held until its link goes, if it is to be stalled.
fn h2_answer(mut asked: Asked, ledger: &Ledger, dice: &mut Dice) -> Option<Asked> {
    let (id, _) = parts_of(asked.path());
    let what = dice.roll(24);
    if what == 0 {
        asked.reset(h2::Reason::REFUSED_STREAM);
        return None;
    }
    ledger.ran(id);
    if what == 1 {
        return Some(asked);
    }
    if what == 2 {
        asked.reset(h2::Reason::INTERNAL_ERROR); // in the middle of the upload, if there is one
        return None;
    }
    // Its client may leave in the middle.
    let Ok((body, _)) = asked.read_body() else { return None };
    if what == 3 {
        asked.reset(h2::Reason::REFUSED_STREAM); // late, and not true: but it says so
        ledger.note(id, |entry| entry.ran -= 1);
        return None;
    }
    let (target, method) = (asked.path().to_owned(), asked.head.method.as_str().to_owned());
    let text = answer_of(&target, &method, &body);
    let response = http::Response::builder().header("content-length", text.len()).body(()).expect("a response");
    let Ok(mut stream) = asked.respond.send_response(response, method == "HEAD") else { return None };
    if method == "HEAD" {
        return None;
    }
    if what == 4 {
        ledger.spoils(id);
        let _ = stream.send_data(text[..text.len() / 2].to_vec().into(), false);
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
        return None;
    }
    let _ = stream.send_data(text.into(), true);
    None
}

/// Our own worker, in front of a server that behaves; it is drained and started again.
fn own_workers(edge: &TestEdge, ledger: &Ledger, over: &AtomicBool, mut dice: Dice) {
    let (told, tells) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let origin = serving(move |request| {
        let _ = told.lock().expect("no panic").send(parts_of(request.target()).0);
        let body = answer_of(request.target(), request.method(), &request.body);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if request.method() == "HEAD" { head.into_bytes() } else { [head.as_bytes(), &body].concat() }
    });
    dice.nap(300);
    while !over.load(Ordering::SeqCst) {
        let worker = edge.worker_at_once(origin, |config| (config.links, config.concurrency) = (2, 2));
        dice.nap(400);
        worker.drain();
        assert!(worker.wait(), "a worker that drains finishes what runs");
    }
    tells.try_iter().for_each(|id| ledger.ran(id));
}

/// Waits for something; false when the storm is over first.
fn comes(over: &AtomicBool, mut some: impl FnMut() -> bool) -> bool {
    while !some() {
        if over.load(Ordering::SeqCst) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
