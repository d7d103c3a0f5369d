//! Connections, listeners, bells, timers and tasks over real sockets on loopback. What counts descriptors of the whole
//! process is in `io_fds.rs`, what lowers its limit in `io_fd_limit.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ptth::clock;
use ptth::io::{self, Conn, Duplex, Leaves, Listener, Timer, Writer};
use ptth::limits::{READ_BYTES_LARGE, READ_BYTES_SMALL, TICK_MS, WRITE_COPY_BYTES_MAX};

/// Runs `main` on this thread; a hang fails instead of lasting.
#[track_caller]
fn on_core<F: Future>(main: impl FnOnce() -> F) -> F::Output {
    io::run(|| io::timeout(30_000, main())).expect("io_uring").expect("the test hangs")
}

/// Polls once and drops the future.
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

/// A connection of this core, and its peer as a blocking socket.
fn pair() -> (Conn, TcpStream) {
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (Conn::from_fd(OwnedFd::from(ours), Bytes::new()).unwrap(), peer)
}

/// Numbers that repeat late, so that a lost, doubled or moved piece shows.
fn pattern(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

async fn fill_to(conn: &mut Conn, bytes: usize) {
    while conn.reader.buffer().len() < bytes {
        assert_ne!(conn.reader.fill().await.unwrap(), 0, "the peer ended early");
    }
}

// ---- reading ----

#[test]
fn a_parked_connection_loses_no_byte_and_no_end() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        for round in 0..100 {
            assert!(once(conn.reader.fill()).await.is_none());
            let early = round % 3 == 0;
            if early {
                peer.write_all(&pattern(round, 1)).unwrap();
            }
            let is_empty = conn.park().await.unwrap();
            assert!(early || is_empty, "nothing was sent");
            if is_empty {
                assert!(early || once(conn.readable()).await.is_none());
                if !early {
                    peer.write_all(&pattern(round, 1)).unwrap();
                }
                conn.readable().await.unwrap();
                conn.reader.fill().await.unwrap();
            }
            assert_eq!(conn.reader.buffer(), pattern(round, 1));
            conn.reader.consume(1);
        }
        assert!(conn.park().await.unwrap());
        drop(peer);
        conn.readable().await.unwrap();
        assert_eq!(conn.reader.fill().await.unwrap(), 0);
    });
}

#[test]
fn a_cancelled_read_loses_no_byte() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        let mut sent = 0;
        for round in 0..300 {
            assert!(once(conn.reader.fill()).await.is_none());
            let n = 1 + round * 7 % 900;
            peer.write_all(&pattern(sent, n)).unwrap();
            sent += n;
            once(conn.reader.fill()).await.transpose().unwrap();
            if round % 3 == 0 {
                fill_to(&mut conn, 1).await;
                let arrived = conn.reader.buffer().len();
                assert_eq!(conn.reader.buffer(), pattern(conn.reader.bytes_in() as usize - arrived, arrived));
                conn.reader.consume(arrived);
            }
        }
        let left = sent - (conn.reader.bytes_in() as usize - conn.reader.buffer().len());
        fill_to(&mut conn, left).await;
        assert_eq!(conn.reader.buffer(), pattern(sent - left, left));
        assert_eq!(conn.reader.bytes_in() as usize, sent);
    });
}

#[test]
fn the_end_of_the_stream_is_told_after_its_bytes_and_again() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        peer.write_all(b"bye").unwrap();
        drop(peer);
        fill_to(&mut conn, 3).await;
        assert_eq!(conn.reader.buffer(), b"bye");
        assert_eq!(conn.reader.fill().await.unwrap(), 0);
        assert_eq!(conn.reader.fill().await.unwrap(), 0);
    });
}

#[test]
fn a_read_behind_unconsumed_bytes_is_appended() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        for part in 0..200 {
            peer.write_all(&pattern(part * 100, 100)).unwrap();
            fill_to(&mut conn, (part + 1) * 100).await;
        }
        assert_eq!(conn.reader.buffer(), pattern(0, 20_000));
        conn.reader.consume(19_990);
        assert_eq!(conn.reader.buffer(), pattern(19_990, 10));
    });
}

#[test]
fn taken_pieces_keep_their_bytes_while_reading_goes_on() {
    on_core(|| async {
        let total = 3_000_000;
        let (mut conn, mut peer) = pair();
        let sender = thread::spawn(move || peer.write_all(&pattern(0, total)).unwrap());
        let mut taken: Vec<Bytes> = Vec::new();
        let mut count = 0;
        let mut turn = 0;
        while count < total {
            turn += 1;
            conn.reader.large(turn % 5 != 0);
            let all_came = conn.reader.bytes_in() == total as u64;
            if conn.reader.buffer().is_empty() || (turn % 7 == 0 && !all_came) {
                assert_ne!(conn.reader.fill().await.unwrap(), 0);
            }
            let n = conn.reader.buffer().len().min([1, 100, 3_000, 20_000, usize::MAX][turn % 5]);
            taken.push(conn.reader.take(n));
            count += n;
            if turn % 11 == 0 {
                let last = taken.pop().unwrap();
                count -= last.len();
                conn.reader.unread(last);
            }
        }
        assert_eq!(taken.concat(), pattern(0, total));
        sender.join().unwrap();
    });
}

#[test]
fn a_small_reader_reads_small_and_a_large_one_large() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        let much = 4 * READ_BYTES_LARGE;
        let sender = thread::spawn(move || {
            peer.write_all(&pattern(0, much)).unwrap();
            peer
        });
        assert!(conn.reader.fill().await.unwrap() <= READ_BYTES_SMALL);
        conn.reader.large(true);
        let mut largest = 0;
        while conn.reader.buffer().len() < much {
            largest = largest.max(conn.reader.fill().await.unwrap());
        }
        assert!(largest > READ_BYTES_SMALL && largest <= READ_BYTES_LARGE, "{largest}");
        assert_eq!(conn.reader.buffer(), pattern(0, much));
        drop(sender.join().unwrap());
    });
}

#[test]
fn a_peer_that_left_is_seen_behind_unread_bytes() {
    on_core(|| async {
        let (conn, mut peer) = pair();
        assert!(!conn.reader.peer_gone());
        peer.write_all(b"unread").unwrap();
        assert!(!conn.reader.peer_gone());
        drop(peer);
        while !conn.reader.peer_gone() {
            io::sleep_ms(1).await;
        }
    });
}

// ---- writing ----

/// A connection whose kernel buffers are small.
fn narrow_pair() -> (Conn, TcpStream) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.set_send_buffer_size(8 * 1024).unwrap();
    listener.bind(&any_port().into()).unwrap();
    listener.listen(1).unwrap();
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    peer.set_recv_buffer_size(8 * 1024).unwrap();
    peer.connect(&listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (Conn::from_fd(OwnedFd::from(ours), Bytes::new()).unwrap(), TcpStream::from(peer))
}

/// Queues `bytes` of the pattern in one of the ways there are.
fn queue(writer: &mut Writer, way: usize, from: usize, bytes: usize) {
    match way % 3 {
        0 => writer.put(&pattern(from, bytes)),
        1 => writer.buf().extend_from_slice(&pattern(from, bytes)),
        _ => writer.put_bytes(Bytes::from(pattern(from, bytes))),
    }
}

#[test]
fn pieces_reach_a_slow_reader_in_order() {
    on_core(|| async {
        let (mut conn, mut peer) = narrow_pair();
        let total = 4_000_000;
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut piece = vec![0; 3_000];
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&piece[..n]),
                }
            }
        });
        let mut sent = 0;
        let mut turn = 0;
        let mut waited = 0;
        while sent < total {
            turn += 1;
            let n = [1, 300, 5_000, WRITE_COPY_BYTES_MAX, 50_000][turn % 5].min(total - sent);
            queue(&mut conn.writer, turn, sent, n);
            sent += n;
            // Given up in the middle, and more put behind it while it waits.
            if once(conn.writer.flush()).await.transpose().unwrap().is_none() {
                waited += 1;
            }
            if conn.writer.is_high() {
                conn.writer.flush().await.unwrap();
                assert_eq!(conn.writer.queued(), 0);
            }
        }
        conn.writer.flush().await.unwrap();
        assert!(waited > 0, "the socket was never full");
        conn.writer.shutdown().await.unwrap();
        assert_eq!(reader.join().unwrap(), pattern(0, total));
    });
}

#[test]
fn many_pieces_go_out_in_order() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        let mut sent = 0;
        for turn in 0..100 {
            let n = if turn % 2 == 0 { 10 } else { WRITE_COPY_BYTES_MAX };
            queue(&mut conn.writer, 2 * (turn % 2), sent, n);
            sent += n;
        }
        assert_eq!(conn.writer.queued(), sent);
        let reader = thread::spawn(move || {
            let mut got = vec![0; sent];
            peer.read_exact(&mut got).unwrap();
            got
        });
        conn.writer.flush().await.unwrap();
        assert_eq!(reader.join().unwrap(), pattern(0, sent));
    });
}

#[test]
fn a_peer_that_reads_is_seen_before_its_socket_takes_more() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        // Until both kernels hold as much as they will. Nothing is flushed any more afterwards.
        let mut put = 0;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while conn.writer.poll_flush(&mut cx).is_ready() {
            conn.writer.put_bytes(Bytes::from(vec![b'x'; WRITE_COPY_BYTES_MAX]));
            put += WRITE_COPY_BYTES_MAX;
        }
        let mut before = conn.writer.delivered();
        let settled = async {
            loop {
                io::sleep_ms(TICK_MS).await;
                match conn.writer.delivered() {
                    now if now == before => return now,
                    now => before = now,
                }
            }
        };
        let full = settled.await;
        let mut read = 0;
        while conn.writer.delivered() == full {
            assert!(read < put, "all was read, and none of it was delivered");
            read += peer.read(&mut [0; 1_024]).unwrap();
        }
    });
}

#[test]
fn writing_to_a_peer_that_reset_is_an_error_and_no_signal() {
    on_core(|| async {
        let (mut conn, peer) = pair();
        drop(peer);
        for _ in 0..1000 {
            conn.writer.put(b"into the void");
            if let Err(error) = conn.writer.flush().await {
                assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
                return;
            }
            io::sleep_ms(1).await;
        }
        panic!("no error");
    });
}

#[test]
fn reader_and_writer_are_used_side_by_side() {
    on_core(|| async {
        let (mut conn, peer) = narrow_pair();
        let total = 1_000_000;
        let mut there = peer.try_clone().unwrap();
        let mut back = peer;
        let echo = thread::spawn(move || {
            std::io::copy(&mut there, &mut back).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
        });
        let Conn { reader, writer, .. } = &mut conn;
        let mut write = pin!(async {
            for part in 0..10 {
                queue(writer, part, part * total / 10, total / 10);
                writer.flush().await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let mut read = pin!(async {
            reader.large(true);
            while reader.fill().await.unwrap() > 0 {}
            assert_eq!(reader.buffer(), pattern(0, total));
        });
        let (mut wrote, mut red) = (false, false);
        poll_fn(|cx| {
            wrote = wrote || write.as_mut().poll(cx).is_ready();
            red = red || read.as_mut().poll(cx).is_ready();
            if wrote && red { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        echo.join().unwrap();
    });
}

// ---- a connection's ways in and out ----

#[test]
fn a_dropped_connection_with_a_read_in_flight_sends_a_fin_at_once() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        assert!(io::timeout(1, conn.reader.fill()).await.is_none());
        drop(conn);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0); // blocks the core: no turn of the loop is needed
    });
}

#[test]
fn a_dropped_connection_with_a_full_socket_ends_for_its_peer_at_once() {
    on_core(|| async {
        let (mut conn, mut peer) = narrow_pair();
        conn.writer.put_bytes(Bytes::from(pattern(0, 1_000_000)));
        assert!(io::timeout(1, conn.writer.flush()).await.is_none());
        drop(conn);
        assert!(std::io::copy(&mut peer, &mut std::io::sink()).unwrap() < 1_000_000);
    });
}

#[test]
fn a_socket_moves_to_another_core_with_a_read_in_flight_and_loses_nothing() {
    for round in 0..40 {
        let (detached, mut peer, sent) = on_core(|| async move {
            let (mut conn, mut peer) = pair();
            let mut sent = 0;
            if round % 2 == 0 {
                peer.write_all(&pattern(0, 50)).unwrap();
                sent += 50;
                fill_to(&mut conn, 50).await;
                conn.reader.consume(10);
            }
            assert!(once(conn.reader.fill()).await.is_none());
            if round % 4 == 3 {
                io::sleep_ms(1).await; // in the kernel now
            }
            if round % 8 < 4 {
                peer.write_all(&pattern(sent, 30)).unwrap(); // meets the cancel
                sent += 30;
            }
            (conn.detach().await.unwrap(), peer, sent)
        });
        thread::spawn(move || {
            on_core(|| async move {
                let mut conn = Conn::attach(detached).unwrap();
                peer.write_all(&pattern(sent, 100)).unwrap();
                let from = if round % 2 == 0 { 10 } else { 0 };
                fill_to(&mut conn, sent + 100 - from).await;
                assert_eq!(conn.reader.buffer(), pattern(from, sent + 100 - from), "round {round}");
                conn.writer.put(b"works");
                conn.writer.flush().await.unwrap();
                let mut got = [0; 5];
                peer.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"works");
                drop(conn);
            });
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_socket_with_unsent_bytes_does_not_move() {
    on_core(|| async {
        let (mut conn, _peer) = pair();
        conn.writer.put(b"not flushed");
        assert!(conn.detach().await.is_err());
    });
}

#[test]
fn a_closed_connection_delivers_its_last_response_to_a_peer_that_still_sends() {
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        peer.write_all(&pattern(0, 100_000)).unwrap(); // nobody will read it
        conn.writer.put(b"the last response");
        conn.writer.flush().await.unwrap();
        let client = thread::spawn(move || {
            #[allow(clippy::disallowed_methods)] // a peer has no core that it could block
            thread::sleep(Duration::from_millis(100));
            peer.write_all(b"and more").unwrap();
            let mut got = Vec::new();
            peer.read_to_end(&mut got).map(|_| got)
        });
        conn.close().await;
        while !client.is_finished() {
            io::sleep_ms(1).await;
        }
        assert_eq!(client.join().unwrap().unwrap(), b"the last response");
    });
}

#[test]
fn connections_open_over_tcp_and_unix() {
    let path = std::env::temp_dir().join(format!("ptth-io-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let tcp = std::net::TcpListener::bind(any_port()).unwrap();
    on_core(|| async {
        let mut conn = Conn::connect(tcp.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = tcp.accept().unwrap();
        assert_eq!(conn.peer_addr(), tcp.local_addr().ok());
        peer.write_all(b"tcp").unwrap();
        fill_to(&mut conn, 3).await;

        let mut conn = Conn::connect_unix(&path).await.unwrap();
        let (mut peer, _) = unix.accept().unwrap();
        assert_eq!(conn.peer_addr(), None);
        peer.write_all(b"unix").unwrap();
        fill_to(&mut conn, 4).await;
        conn.writer.put(b"back");
        conn.writer.flush().await.unwrap();
        let mut got = [0; 4];
        peer.read_exact(&mut got).unwrap();
        assert!(once(conn.reader.fill()).await.is_none());
        drop(peer);
        assert_eq!(conn.reader.fill().await.unwrap(), 0);
        assert!(conn.reader.peer_gone());

        let nobody = std::net::TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
        assert_eq!(Conn::connect(nobody).await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
        let missing = std::path::Path::new("/nonexistent.sock");
        assert_eq!(Conn::connect_unix(missing).await.err().unwrap().kind(), ErrorKind::NotFound);
    });
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_no_stream_socket_is_refused() {
    on_core(|| async {
        let (_a, b) = UnixStream::pair().unwrap();
        assert!(Conn::from_fd(OwnedFd::from(b), Bytes::new()).is_ok());
        let datagrams = std::net::UdpSocket::bind(any_port()).unwrap();
        assert!(Conn::from_fd(OwnedFd::from(datagrams), Bytes::new()).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Conn::from_fd(OwnedFd::from(file), Bytes::new()).is_err());
    });
}

// ---- listening ----

#[test]
fn a_cancelled_accept_loses_no_connection() {
    on_core(|| async {
        let mut listener = Listener::bind(any_port(), 128).unwrap();
        let addr = listener.local_addr().unwrap();
        for round in 0..50 {
            assert!(once(listener.accept()).await.is_none());
            let peer = TcpStream::connect(addr).unwrap();
            if round % 2 == 0 {
                io::sleep_ms(1).await; // it arrives while nobody asks
            }
            let early = once(listener.accept()).await;
            let (conn, from) = match early {
                Some(accepted) => accepted.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            assert_eq!(from, peer.local_addr().unwrap());
            assert_eq!(conn.peer_addr(), Some(from));
        }
    });
}

#[test]
fn a_closed_listener_accepts_no_more() {
    on_core(|| async {
        let mut listener = Listener::bind(any_port(), 128).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(once(listener.accept()).await.is_none());
        assert!(listener.close().await.is_empty());
        assert_eq!(TcpStream::connect(addr).err().unwrap().kind(), ErrorKind::ConnectionRefused);

        let dropped = Listener::bind(any_port(), 128).map(async |mut listener| {
            assert!(once(listener.accept()).await.is_none());
            listener.local_addr().unwrap()
        });
        let addr = dropped.unwrap().await;
        assert_eq!(TcpStream::connect(addr).err().unwrap().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_connection_that_arrived_before_the_close_is_handed_out() {
    on_core(|| async {
        let mut listener = Listener::bind(any_port(), 128).unwrap();
        assert!(once(listener.accept()).await.is_none());
        io::sleep_ms(1).await; // the accept is in the kernel now
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut conn, from) = listener.close().await.pop().expect("the connection");
        assert_eq!(from, peer.local_addr().unwrap());
        peer.write_all(b"alive").unwrap();
        fill_to(&mut conn, 5).await;
    });
}

#[test]
fn a_listener_that_closes_hands_out_its_backlog() {
    on_core(|| async {
        for asks in [false, true] {
            let mut listener = Listener::bind(any_port(), 128).unwrap();
            let addr = listener.local_addr().unwrap();
            if asks {
                assert!(once(listener.accept()).await.is_none());
                io::sleep_ms(1).await; // the accept is in the kernel now, and takes one of them
            }
            let mut peers: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
            drop(peers.remove(7)); // it has left, and is handed out all the same
            let came = listener.close().await;
            assert_eq!(came.len(), 20);
            assert_eq!(TcpStream::connect(addr).err().unwrap().kind(), ErrorKind::ConnectionRefused);
            let mut echoes = 0;
            for (mut conn, from) in came {
                assert_eq!(conn.peer_addr(), Some(from));
                let Some(peer) = peers.iter_mut().find(|peer| peer.local_addr().unwrap() == from) else { continue };
                peer.write_all(b"up").unwrap();
                fill_to(&mut conn, 2).await;
                conn.writer.put(b"down");
                conn.writer.flush().await.unwrap();
                peer.read_exact(&mut [0; 4]).unwrap();
                echoes += 1;
            }
            assert_eq!(echoes, 19);
        }
    });
}

#[test]
fn a_listener_that_is_left_listens_on_for_whoever_else_has_its_socket() {
    on_core(|| async {
        let socket = io::open_listener(any_port(), 128).unwrap();
        let addr = socket.local_addr().unwrap();
        let mut old = Listener::from_std(socket.try_clone().unwrap()).unwrap();
        assert!(once(old.accept()).await.is_none());
        io::sleep_ms(1).await; // the accept is in the kernel now
        let first = TcpStream::connect(addr).unwrap();
        let last = old.leave().await;
        let from: Vec<_> = last.iter().map(|(_, from)| *from).collect();
        assert_eq!(from, [first.local_addr().unwrap()], "the connection that the accept took");
        let waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let idle = Listener::from_std(socket.try_clone().unwrap()).unwrap();
        assert!(idle.leave().await.is_empty());
        let mut new = Listener::from_std(socket).unwrap();
        for peer in &waiting {
            assert_eq!(new.accept().await.unwrap().1, peer.local_addr().unwrap(), "none of its backlog is lost");
        }
    });
}

#[test]
#[allow(clippy::disallowed_methods)] // this thread is no core, and may sleep
fn a_connection_that_woke_who_leaves_waits_for_nobody() {
    const ROUNDS: usize = 60;
    let socket = io::open_listener(any_port(), 128).unwrap();
    let addr = socket.local_addr().unwrap();
    let (accepted, arrivals) = mpsc::channel();
    let heir = {
        let (socket, accepted) = (socket.try_clone().unwrap(), accepted.clone());
        thread::spawn(move || {
            on_core(|| async {
                let mut heir = Listener::from_std(socket).unwrap();
                while accepted.send(heir.accept().await.unwrap().1).is_ok() {}
            });
        })
    };
    /// Whatever happens, the one who waits goes on.
    struct Set<'a>(&'a AtomicBool);
    impl Drop for Set<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let came = || arrivals.recv_timeout(Duration::from_secs(20)).expect("nobody accepts it");
    let settle = || thread::sleep(Duration::from_millis(5));
    for round in 0..ROUNDS {
        settle();
        let connected = AtomicBool::new(false);
        let (armed, is_armed) = mpsc::channel();
        thread::scope(|scope| {
            let leaver = scope.spawn(|| {
                on_core(|| async {
                    let mut leaver = Listener::from_std(socket.try_clone().unwrap()).unwrap();
                    assert!(once(leaver.accept()).await.is_none());
                    io::sleep_ms(1).await; // the accept is in the kernel now
                    armed.send(()).unwrap();
                    while !connected.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                    leaver.leave().await.into_iter().for_each(|(_, from)| accepted.send(from).unwrap());
                });
            });
            let connects = Set(&connected);
            is_armed.recv().unwrap();
            // The heir's turn: its next accept stands behind the other one's, as soon as it is in the kernel. Earlier, it would
            // find the connection by itself.
            let first = TcpStream::connect(addr).unwrap();
            let one = arrivals.recv_timeout(Duration::from_secs(1));
            settle();
            drop(connects);
            // Somewhere in the other one's leaving: the gap is some microseconds wide, and one round of 2,500 falls into it.
            for _ in 0..round * 37 % 400 * 50 {
                std::hint::spin_loop();
            }
            let second = TcpStream::connect(addr).unwrap();
            let mut from = [one.unwrap_or_else(|_| came()), came()];
            let mut to = [&first, &second].map(|peer| peer.local_addr().unwrap());
            from.sort();
            to.sort();
            assert_eq!(from, to);
            leaver.join().unwrap();
        });
    }
    drop(arrivals);
    let _last = TcpStream::connect(addr).unwrap();
    heir.join().unwrap();
}

#[test]
fn listeners_share_a_port_and_ipv6_is_not_ipv4() {
    on_core(|| async {
        let first = Listener::bind(any_port(), 16).unwrap();
        let addr = first.local_addr().unwrap();
        let _second = Listener::bind(addr, 16).unwrap();
        let v6 = Listener::bind((Ipv6Addr::UNSPECIFIED, addr.port()).into(), 16);
        assert!(v6.is_ok() || !std::path::Path::new("/proc/net/if_inet6").exists());
    });
}

// ---- tasks ----

#[test]
fn a_panic_in_one_task_harms_no_other() {
    struct DropsBadly;
    impl Drop for DropsBadly {
        fn drop(&mut self) {
            panic!("the second panic");
        }
    }
    on_core(|| async {
        let (mut conn, mut peer) = pair();
        let before = io::panics();
        let lived = Rc::new(Cell::new(0));
        let count = Rc::clone(&lived);
        io::spawn(async move {
            fill_to(&mut conn, 2).await;
            count.set(count.get() + 1);
        });
        io::spawn(async {
            io::sleep_ms(1).await;
            panic!("the first panic");
        });
        io::spawn(async {
            let held = DropsBadly;
            io::sleep_ms(1).await;
            drop(held);
        });
        io::spawn(std::future::poll_fn(|_| -> Poll<()> { panic!("at once") }));
        peer.write_all(b"1").unwrap();
        io::sleep_ms(1).await;
        peer.write_all(b"2").unwrap();
        while lived.get() == 0 || io::panics() - before < 3 {
            io::sleep_ms(1).await;
        }
        assert_eq!(io::panics() - before, 3);
    });
}

#[test]
fn a_panic_of_the_main_future_reaches_the_caller_and_the_thread_can_run_again() {
    let run = || io::run(|| async { panic!("of main") });
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(on_core(|| async { 7 }), 7);
}

#[test]
fn two_equal_tasks_both_make_progress() {
    on_core(|| async {
        let counts = Rc::new(RefCell::new([0u32; 2]));
        for name in 0..2 {
            let counts = Rc::clone(&counts);
            let (near, far) = UnixStream::pair().unwrap();
            let mut near = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let mut far = Conn::from_fd(far.into(), Bytes::new()).unwrap();
            io::spawn(async move {
                loop {
                    fill_to(&mut far, 1).await;
                    far.reader.consume(1);
                    far.writer.put(b"o");
                    far.writer.flush().await.unwrap();
                }
            });
            io::spawn(async move {
                loop {
                    near.writer.put(b"i");
                    near.writer.flush().await.unwrap();
                    fill_to(&mut near, 1).await;
                    near.reader.consume(1);
                    counts.borrow_mut()[name] += 1;
                }
            });
        }
        while counts.borrow().iter().sum::<u32>() < 2_000 {
            io::sleep_ms(1).await;
        }
        assert!(counts.borrow().iter().all(|&n| n > 500), "{counts:?}");
    });
}

// ---- the bell ----

#[test]
fn a_bell_rung_from_other_threads_wakes_its_core() {
    on_core(|| async {
        let (mut bell, ring) = io::bell().unwrap();
        let (heard, hear) = std::sync::mpsc::channel();
        let ringer = thread::spawn(move || {
            for _ in 0..300 {
                ring.clone().ring();
                hear.recv().unwrap();
            }
        });
        for round in 0..300 {
            if round % 3 == 0 && once(bell.wait()).await.is_some() {
                heard.send(()).unwrap();
                continue;
            }
            bell.wait().await.unwrap(); // a ring that is lost ends it here
            heard.send(()).unwrap();
        }
        ringer.join().unwrap();
    });
}

#[test]
fn many_rings_fold_into_one_and_none_is_lost() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    on_core(|| async {
        let (mut bell, ring) = io::bell().unwrap();
        shared(&ring);
        for _ in 0..1000 {
            ring.ring();
        }
        bell.wait().await.unwrap();
        assert!(once(bell.wait()).await.is_none(), "the thousand counted as more than one");
        ring.ring(); // while a wait that was given up is in flight
        bell.wait().await.unwrap();
        ring.ring();
        io::sleep_ms(1).await; // it is heard while nobody waits
        bell.wait().await.unwrap();
        assert!(io::timeout(1, bell.wait()).await.is_none());
    });
}

// ---- timers ----

#[test]
fn timers_fire_in_order_and_not_before_their_time() {
    on_core(|| async {
        let fired = Rc::new(RefCell::new(Vec::new()));
        let start = clock::now();
        for (name, ms) in [(0, 300), (1, 10), (2, 150), (3, 0)] {
            let fired = Rc::clone(&fired);
            io::spawn(async move {
                io::sleep_ms(ms).await;
                assert!(clock::now().ms_since(start) >= ms);
                fired.borrow_mut().push(name);
            });
        }
        while fired.borrow().len() < 4 {
            io::sleep_ms(1).await;
        }
        let fired = fired.borrow();
        let place = |name| fired.iter().position(|&n| n == name).unwrap();
        assert!(place(1) < place(2) && place(2) < place(0) && place(3) < place(2), "{fired:?}");
    });
}

#[test]
fn a_moved_timer_fires_at_its_new_time_only() {
    on_core(|| async {
        let mut timer = Timer::new();
        let start = clock::now();
        timer.set(start.plus_ms(TICK_MS));
        timer.set(start.plus_ms(5 * TICK_MS)); // later
        timer.expired().await;
        assert!(clock::now().ms_since(start) >= 5 * TICK_MS);

        timer.set(clock::now().plus_ms(3_600_000));
        assert!(once(timer.expired()).await.is_none());
        timer.set(clock::now().plus_ms(1)); // earlier, while a task waits
        timer.expired().await;

        timer.set(clock::now().plus_ms(1));
        timer.clear();
        assert!(io::timeout(3 * TICK_MS, timer.expired()).await.is_none());
        timer.set(clock::now());
        timer.expired().await;
    });
}

#[test]
fn a_timeout_gives_what_is_ready_and_drops_what_is_late() {
    on_core(|| async {
        assert_eq!(io::timeout(0, async { 7 }).await, Some(7));
        let gone = Rc::new(());
        let held = Rc::clone(&gone);
        let late = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        assert_eq!(io::timeout(1, late).await, None);
        assert_eq!(Rc::strong_count(&gone), 1);
        for _ in 0..5 {
            assert_eq!(io::timeout(10_000, io::sleep_ms(1)).await, Some(()));
        }
    });
}

#[test]
fn a_byte_ends_a_peers_silence_before_anybody_reads_it() {
    on_core(|| async {
        let (conn, mut peer) = pair();
        let pulse = conn.pulse();
        for _ in 0..3 {
            let before = loop {
                match pulse.silent_ms().expect("TCP tells") {
                    silent_ms if silent_ms >= 4 * TICK_MS => break silent_ms,
                    _ => io::sleep_ms(TICK_MS).await,
                }
            };
            // Again where this thread was away for as long.
            while pulse.silent_ms().expect("TCP tells") >= before {
                peer.write_all(b"x").unwrap();
                io::sleep_ms(1).await;
            }
        }
        assert_eq!(conn.reader.bytes_in(), 0);
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(Conn::from_fd(near.into(), Bytes::new()).unwrap().pulse().silent_ms(), None);
    });
}

// ---- h2 over a connection ----

#[test]
fn h2_runs_over_a_connection_both_ways() {
    on_core(|| async {
        let total = 2_000_000;
        let (near, far) = UnixStream::pair().unwrap();
        let near = Duplex::new(Conn::from_fd(near.into(), Bytes::new()).unwrap(), Leaves::Last);
        let far = Duplex::new(Conn::from_fd(far.into(), Bytes::new()).unwrap(), Leaves::Last);
        io::spawn(async move {
            let mut server = h2::server::handshake(far).await.unwrap();
            while let Some(request) = server.accept().await {
                let (request, mut answer) = request.unwrap();
                io::spawn(async move {
                    let mut body = request.into_body();
                    let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        let _ = body.flow_control().release_capacity(data.len());
                        stream.send_data(data, false).unwrap(); // what it echoes is bounded by the test
                    }
                    stream.send_data(Bytes::new(), true).unwrap();
                });
            }
        });
        let (client, connection) = h2::client::handshake(near).await.unwrap();
        io::spawn(async move { connection.await.unwrap() });
        for round in 0..3 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut stream) =
                client.send_request(http::Request::post("http://h/").body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from(pattern(round, total)), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            let mut got = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                let _ = body.flow_control().release_capacity(data.len());
                got.extend_from_slice(&data);
            }
            assert_eq!(got, pattern(round, total));
        }
    });
}

#[test]
fn what_is_said_aside_stands_between_two_frames() {
    // Both engines end the connection over a frame that does not begin where the last one ended, or that stands within a block
    // of fields: heads of many frames, and DATA of all lengths, with a PING or an unknown frame after as many as can be.
    const UNKNOWN: &[u8] = &[0, 0, 3, 0xf0, 0, 0, 0, 0, 0, b'a', b'b', b'c'];
    on_core(|| async {
        let (near, far) = UnixStream::pair().unwrap();
        let aside = io::Aside::default();
        let near = Duplex::new(Conn::from_fd(near.into(), Bytes::new()).unwrap(), Leaves::First).beside(&aside);
        let far = Duplex::new(Conn::from_fd(far.into(), Bytes::new()).unwrap(), Leaves::Last);
        io::spawn(async move {
            let mut builder = h2::server::Builder::new();
            let mut server = builder.max_header_list_size(1 << 20).handshake::<_, Bytes>(far).await.unwrap();
            while let Some(request) = server.accept().await {
                let (request, mut answer) = request.unwrap();
                io::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut bytes = head.headers["x-long"].len();
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        let _ = body.flow_control().release_capacity(data.len());
                        bytes += data.len();
                    }
                    let response = http::Response::builder().header("x-bytes", bytes).body(()).unwrap();
                    answer.send_response(response, true).unwrap();
                });
            }
        });
        let (client, mut connection) = h2::client::handshake(near).await.unwrap();
        let said = Rc::new(Cell::new(0));
        let counted = said.clone();
        io::spawn(async move {
            poll_fn(|cx| {
                aside.say(UNKNOWN);
                counted.set(counted.get() + 1);
                std::pin::Pin::new(&mut connection).poll(cx)
            })
            .await
            .unwrap();
        });
        for round in 0..40 {
            let mut client = client.clone().ready().await.unwrap();
            let long = "x".repeat(1 + round * 1_000);
            let request = http::Request::post("http://h/").header("x-long", &long).body(()).unwrap();
            let (response, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data(Bytes::from(pattern(round, round * 700)), true).unwrap();
            let head = response.await.unwrap();
            assert_eq!(head.headers()["x-bytes"], (long.len() + round * 700).to_string());
        }
        assert!(said.get() > 40);
    });
}

#[test]
fn a_connection_on_which_something_came_unasked_is_not_quiet() {
    on_core(|| async {
        for ends in [false, true] {
            let (mut conn, mut peer) = pair();
            assert!(conn.is_silent());
            if ends {
                peer.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                peer.write_all(b"x").unwrap();
            }
            while conn.is_silent() {
                io::sleep_ms(1).await;
            }
            assert!(!conn.is_quiet(), "nobody has read it, and it is there");
        }
        let (mut conn, _peer) = pair();
        assert!(conn.is_quiet() && conn.is_quiet(), "with and without a read in flight");
    });
}
