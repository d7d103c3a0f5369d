//! An edge whose process runs out of descriptors although its own bound should leave some free: it must not spin, and must serve
//! again. The limit belongs to the whole process: one test, alone in its binary.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::fs::File;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::origin::serving;
use common::{Message, Peer, ok, setting};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// How long it is looked at.
const WINDOW: Duration = Duration::from_secs(2);
const CLIENTS: usize = 20;

/// What the process has used of its processors.
fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the struct; all zero is one of its values.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

#[test]
fn an_edge_without_descriptors_waits_for_some_and_serves_again() {
    let edge = setting().start();
    let _worker = edge.worker(serving(|request: &Message| ok(request.target())));
    let mut before = edge.client();
    assert_eq!(before.ask("/before").text(), "/before");
    // Their descriptors are there already; only the edge has none for them.
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let (first, others) = (socket(), std::iter::repeat_with(socket).take(CLIENTS).collect::<Vec<Socket>>());
    let backoffs = |status: &serde_json::Value| status["counters"]["accept_backoffs"].as_u64().expect("a number");

    let old = getrlimit(Resource::Nofile);
    // What is open stays open. Of what is closed meanwhile nothing can be used again: the lowest three are taken for good.
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: old.maximum }).expect("it may be lowered");
    assert!(File::open("/dev/null").is_err());
    // An accept in flight goes by the limit of the moment when it began: the listener takes one more.
    first.connect(&edge.address.into()).expect("the kernel takes it");
    let mut clients: Vec<Peer> = Vec::new();
    for socket in others {
        socket.connect(&edge.address.into()).expect("the kernel takes it");
        clients.push(Peer::new(TcpStream::from(socket)));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/{n}"));
    }
    let (cpu, from) = (cpu_time(), Instant::now());
    std::thread::sleep(WINDOW);
    let (used, took) = (cpu_time() - cpu, from.elapsed());
    assert!(clients.iter_mut().all(|client| !client.has_some()), "there is no descriptor for them");
    assert!(used < took / 2, "{used:?} of CPU in {took:?}: it spins");
    // What has its descriptor is served as before.
    assert_eq!(before.ask("/meanwhile").text(), "/meanwhile");

    setrlimit(Resource::Nofile, old).expect("it may be raised again");
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    let waits = backoffs(&edge.status());
    assert!(waits > 0, "it ran out of descriptors");
    println!(
        "descriptors: {CLIENTS} clients waited, {waits} pauses, {} ms of CPU in {} ms",
        used.as_millis(),
        took.as_millis()
    );
}
