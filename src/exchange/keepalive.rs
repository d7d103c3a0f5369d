//! PING on an HTTP/2 connection, the same on both sides of a link. What follows from a dead peer is the caller's.

use crate::io;

/// Sends a PING every `every_ms`, and ends when the peer is dead: it has neither answered the PING nor sent anything else
/// for as long, so that this is known within two intervals of its last byte. `silent_ms` says how long nothing has come.
///
/// The PONG alone does not tell: it stands in line behind whatever fills the link, in either direction, and RFC 9113
/// §6.7 puts no time on it. Any byte that came after the PING is a sign of life.
pub async fn keepalive(ping_pong: Option<h2::PingPong>, every_ms: u64, silent_ms: impl Fn() -> Option<u64>) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        io::sleep_ms(every_ms).await;
        if ping_pong.send_ping(h2::Ping::opaque()).is_err() {
            return std::future::pending().await; // the connection itself tells why it ended
        }
        let mut patience_ms = every_ms;
        loop {
            let pong = std::future::poll_fn(|cx| ping_pong.poll_pong(cx));
            match io::timeout(patience_ms, pong).await {
                Some(Ok(_)) => break,
                Some(Err(_)) => return std::future::pending().await,
                None => {}
            }
            match every_ms.saturating_sub(silent_ms().unwrap_or(u64::MAX)) {
                0 => return,
                left_ms => patience_ms = left_ms,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::io::{Conn, Duplex, Leaves};
    use crate::limits::TICK_MS;

    const HANG_MS: u64 = 30_000;

    /// Runs a keepalive on a connection whose other end is given to `peer`, until the keepalive ends or the peer does.
    fn run(peer: impl FnOnce(UnixStream) + Send + 'static, silent_ms: impl Fn() -> Option<u64> + Sync) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(Duration::from_millis(HANG_MS))).unwrap();
        let peer = std::thread::spawn(move || peer(far));
        let life = || async {
            let conn = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let (_send, mut connection) = h2::client::handshake(Duplex::new(conn, Leaves::Last)).await.unwrap();
            let mut keepalive = std::pin::pin!(keepalive(connection.ping_pong(), TICK_MS, &silent_ms));
            let mut connection = std::pin::pin!(connection);
            std::future::poll_fn(|cx| {
                if connection.as_mut().poll(cx).is_ready() {
                    return std::task::Poll::Ready(());
                }
                keepalive.as_mut().poll(cx)
            })
            .await;
        };
        // A core is a thread: a second one on this would find the first one's timers.
        std::thread::scope(|scope| {
            let core = scope.spawn(|| io::run(|| io::timeout(HANG_MS, life())).unwrap());
            core.join().unwrap().expect("it neither ends nor is ended");
        });
        peer.join().unwrap();
    }

    /// Reads up to the next PING and gives it back as it would be answered.
    fn pong(peer: &mut UnixStream) -> [u8; 17] {
        loop {
            let mut head = [0; 9];
            peer.read_exact(&mut head).unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            peer.read_exact(&mut payload).unwrap();
            if head[3] == 6 {
                let mut pong = [0, 0, 8, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                pong[9..].copy_from_slice(&payload);
                return pong;
            }
        }
    }

    #[test]
    fn a_late_pong_is_waited_for_as_long_as_something_comes() {
        let said = Mutex::new(vec![None, Some(TICK_MS - 1), Some(0), Some(TICK_MS - 1), Some(0)]);
        let never_answers = |mut peer: UnixStream| {
            let _ = peer.read_to_end(&mut Vec::new());
        };
        run(never_answers, || said.lock().unwrap().pop().expect("it goes on after the peer was silent for too long"));
        assert_eq!(*said.lock().unwrap(), [], "it gave up a peer that was alive");
    }

    #[test]
    fn a_peer_that_is_silent_for_a_whole_interval_is_dead() {
        for silent_ms in [TICK_MS, TICK_MS + 1, u64::MAX] {
            run(|mut peer| drop(peer.read_to_end(&mut Vec::new())), || Some(silent_ms));
        }
    }

    #[test]
    fn a_pong_is_followed_by_the_next_ping() {
        let answers_twice = |mut peer: UnixStream| {
            peer.read_exact(&mut [0; 24]).unwrap();
            for _ in 0..2 {
                let pong = pong(&mut peer);
                peer.write_all(&pong).unwrap();
            }
            pong(&mut peer);
        };
        run(answers_twice, || Some(0));
    }
}
