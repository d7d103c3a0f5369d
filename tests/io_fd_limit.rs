//! What happens at the descriptor limit, which belongs to the whole process: one test, alone in its binary.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};

use ptth::clock;
use ptth::io::{self, Listener};
use ptth::limits::ACCEPT_BACKOFF_MS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn an_accept_at_the_descriptor_limit_does_not_spin_and_recovers() {
    let done = io::run(|| {
        io::timeout(30_000, async {
            let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), 16).unwrap();
            let addr = listener.local_addr().unwrap();
            let _peers = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];

            let old = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: old.maximum }).unwrap();
            let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

            let start = clock::now();
            assert!(io::timeout(5 * ACCEPT_BACKOFF_MS, listener.accept()).await.is_none());
            let most = clock::now().ms_since(start) / ACCEPT_BACKOFF_MS + 1;
            let backoffs = io::accept_backoffs();
            assert!((1..=most).contains(&backoffs), "{backoffs} backoffs, {most} at most");

            held.truncate(held.len() - 2);
            listener.accept().await.unwrap();
            listener.accept().await.unwrap();
            drop(held);
        })
    });
    done.expect("io_uring").expect("the test hangs");
}
