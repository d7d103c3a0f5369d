//! Clients that ask without a pause and take nothing but a 200: over HTTP/1.1 with keep-alive and without, and over HTTP/2. They
//! go where they are told to go, and count whatever else happens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::h2_client::H2Client;
use super::{Peer, get};

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    answers: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Clients under way.
pub struct Load {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients of each kind, all of which ask for `path`.
    pub fn start(address: SocketAddr, each: usize, path: &'static str) -> Load {
        let seen = Arc::new(Seen::default());
        let kinds: [fn(SocketAddr, &str, &Seen); 3] = [keeps_alive, asks_once, h2];
        let threads = (0..3 * each).map(|index| {
            let (seen, kind) = (seen.clone(), kinds[index % 3]);
            std::thread::spawn(move || kind(address, path, &seen))
        });
        Load { threads: threads.collect(), seen }
    }

    pub fn answers(&self) -> u64 {
        self.seen.answers.load(Ordering::Relaxed)
    }

    /// Until as many more answers have come.
    #[track_caller]
    pub fn wait_for(&self, answers: u64) {
        let wanted = self.answers() + answers;
        super::peer::until(|| self.answers() >= wanted || self.has_failed());
    }

    pub fn has_failed(&self) -> bool {
        !self.seen.failures.lock().unwrap().is_empty()
    }

    /// Stops all clients: how many answers came, and what else happened.
    pub fn end(self) -> (u64, Vec<String>) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                self.seen.fails("a client panicked".into());
            }
        }
        let failures = std::mem::take(&mut *self.seen.failures.lock().unwrap());
        (self.seen.answers.load(Ordering::Relaxed), failures)
    }
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn fails(&self, why: String) {
        self.failures.lock().unwrap().push(why);
    }
}

/// One request; whether the connection may have another.
fn ask(client: &mut Peer, request: &str, seen: &Seen) -> bool {
    if let Err(error) = client.try_send(request) {
        seen.fails(format!("HTTP/1.1: not sent: {error}"));
        return false;
    }
    let Some(mut head) = client.try_head() else {
        seen.fails(format!("HTTP/1.1: no answer, but {:?}", client.end().1));
        return false;
    };
    match (head.status(), client.body(&mut head)) {
        (200, Ok(())) => seen.answered(),
        (status, body) => seen.fails(format!("HTTP/1.1: {status} {body:?} {:?}", head.text())),
    }
    !head.connection("close")
}

fn keeps_alive(address: SocketAddr, path: &str, seen: &Seen) {
    let request = get(path);
    while seen.goes_on() {
        let mut client = Peer::connect(address);
        while seen.goes_on() && ask(&mut client, &request, seen) {}
    }
}

fn asks_once(address: SocketAddr, path: &str, seen: &Seen) {
    let request = get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    while seen.goes_on() {
        ask(&mut Peer::connect(address), &request, seen);
    }
}

fn h2(address: SocketAddr, path: &str, seen: &Seen) {
    while seen.goes_on() {
        let mut client = H2Client::connect(address);
        while seen.goes_on() {
            // Refused by its own engine: it was told to open no more.
            let Ok(mut sent) = client.try_start(super::h2_client::asking("GET", path), true) else { break };
            match sent.try_begun().and_then(|begun| begun.whole()) {
                Ok(whole) if whole.status() == 200 => seen.answered(),
                Ok(whole) => seen.fails(format!("HTTP/2: {} {:?}", whole.status(), whole.text())),
                // Its head crossed the last GOAWAY: certainly not processed (RFC 9113 §6.8), and asked again elsewhere.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => seen.fails(format!("HTTP/2: {error}")),
            }
        }
    }
}
