//! PING on an HTTP/2 connection, the same on both sides of a link. What follows from a dead peer is the caller's.

use crate::io;
use crate::limits::LINK_PING_MS;

/// Sends a PING every `LINK_PING_MS`; ends when one was not answered before the next was due, so that a dead peer is
/// found within two intervals.
pub async fn keepalive(ping_pong: Option<h2::PingPong>) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        io::sleep_ms(LINK_PING_MS).await;
        if ping_pong.send_ping(h2::Ping::opaque()).is_err() {
            return std::future::pending().await; // the connection itself tells why it ended
        }
        let pong = std::future::poll_fn(|cx| ping_pong.poll_pong(cx));
        match io::timeout(LINK_PING_MS, pong).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return std::future::pending().await,
            None => return,
        }
    }
}
