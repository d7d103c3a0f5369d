//! What counts the descriptors of the whole process: one test at a time.

use std::future::{Future, poll_fn};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use ptth::io::{self, Conn, Listener};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_core<F: Future>(main: impl FnOnce() -> F) -> F::Output {
    io::run(|| io::timeout(30_000, main())).expect("io_uring").expect("the test hangs")
}

async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn descriptors() -> Vec<i32> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut found: Vec<i32> = listed.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    found
}

/// Closes end when the loop has turned a few times.
async fn falls_to(count: usize) {
    for _ in 0..100 {
        if descriptors().len() <= count {
            return;
        }
        io::sleep_ms(1).await;
    }
    panic!("{} descriptors, not {count}", descriptors().len());
}

#[test]
fn a_cancelled_accept_leaks_no_descriptor() {
    let _alone = alone();
    on_core(|| async {
        let before = descriptors().len();
        let mut listener = Listener::bind(any_port(), 128).unwrap();
        for _ in 0..20 {
            assert!(once(listener.accept()).await.is_none());
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(once(listener.accept()).await.is_none_or(|accepted| accepted.is_ok()));
            drop(peer);
        }
        while io::timeout(1, listener.accept()).await.is_some() {}
        drop(listener.close().await);
        falls_to(before).await;
    });
}

#[test]
fn a_dropped_connection_frees_its_descriptor_whatever_is_in_flight() {
    let _alone = alone();
    on_core(|| async {
        let listener = std::net::TcpListener::bind(any_port()).unwrap();
        let before = descriptors().len();
        for way in 0..3 {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut conn = Conn::from_fd(listener.accept().unwrap().0.into(), Bytes::new()).unwrap();
            match way {
                0 => {}
                1 => assert!(once(conn.reader.fill()).await.is_none()),
                _ => {
                    conn.writer.put_bytes(Bytes::from(vec![1; 16 << 20]));
                    assert!(once(conn.writer.flush()).await.is_none());
                }
            }
            if way > 0 {
                io::sleep_ms(1).await; // in the kernel now
            }
            drop(conn);
            falls_to(before + 1).await;
            std::io::copy(&mut peer, &mut std::io::sink()).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
        falls_to(before).await;
    });
}

#[test]
fn a_given_up_connect_frees_its_descriptor() {
    let _alone = alone();
    // A listener whose backlog is full answers no SYN, so that the connect stays in flight.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&any_port().into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let _fillers: Vec<TcpStream> =
        (0..8).filter_map(|_| TcpStream::connect_timeout(&addr, std::time::Duration::from_millis(50)).ok()).collect();
    on_core(|| async {
        let before = descriptors().len();
        for _ in 0..5 {
            assert!(io::timeout(1, Conn::connect(addr)).await.is_none());
        }
        falls_to(before).await;
    });
}

#[test]
fn a_moved_socket_leaves_nothing_behind() {
    let _alone = alone();
    on_core(|| async {
        let listener = std::net::TcpListener::bind(any_port()).unwrap();
        let before = descriptors().len();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut conn = Conn::from_fd(listener.accept().unwrap().0.into(), Bytes::new()).unwrap();
        assert!(once(conn.reader.fill()).await.is_none());
        let detached = conn.detach().await.unwrap();
        falls_to(before + 2).await;
        drop((detached, peer));
        falls_to(before).await;
    });
}

#[test]
fn no_descriptor_survives_an_exec() {
    let _alone = alone();
    on_core(|| async {
        let before = descriptors();
        let mut listener = Listener::bind(any_port(), 16).unwrap();
        let opened = Conn::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let bell = io::bell().unwrap();
        let new: Vec<i32> = descriptors().into_iter().filter(|fd| !before.contains(fd)).collect();
        assert_eq!(new.len(), 5);
        for fd in new {
            // The list itself was one for a moment.
            let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            assert_ne!(i32::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC, 0, "{fd}");
        }
        for conn in [opened, accepted] {
            let detached = conn.detach().await.unwrap();
            assert!(socket2::SockRef::from(&detached).tcp_nodelay().unwrap());
        }
        drop(bell);
    });
}

#[test]
fn a_core_that_has_ended_gives_back_all_it_had() {
    let _alone = alone();
    let before = descriptors().len();
    for tasks in [0, 20] {
        let core = std::thread::spawn(move || {
            on_core(|| async {
                let mut listener = Listener::bind(any_port(), 16).unwrap();
                let addr = listener.local_addr().unwrap();
                for _ in 0..tasks {
                    let mut opened = Conn::connect(addr).await.unwrap();
                    let (mut accepted, _) = listener.accept().await.unwrap();
                    io::spawn(async move {
                        assert!(io::timeout(1, opened.reader.fill()).await.is_none());
                        drop(opened); // with a read in flight
                    });
                    io::spawn(async move { drop(accepted.reader.fill().await) });
                }
                drop(listener.close().await);
                while io::tasks() > 0 {
                    io::sleep_ms(1).await;
                }
            });
        });
        core.join().unwrap();
        assert_eq!(descriptors().len(), before, "{tasks}");
    }
}

#[test]
fn a_program_that_is_started_gets_no_descriptor_but_three() {
    let _alone = alone();
    let file = std::fs::File::open("/dev/null").unwrap();
    let inherited = rustix::io::dup(&file).unwrap(); // without CLOEXEC
    let listed = |clean: bool| {
        let mut command = std::process::Command::new("ls");
        command.arg("/proc/self/fd").stdin(std::process::Stdio::null());
        if clean {
            io::only_standard_descriptors(&mut command);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap().lines().count()
    };
    assert!(listed(false) >= 5, "the three, the list itself, and ours");
    assert_eq!(listed(true), 4);
    drop(inherited);
}
