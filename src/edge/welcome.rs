//! A new connection until it is known whose it is and what it speaks: the PROXY protocol, TLS, and the version of HTTP. What is
//! said in it never enters.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::core::{Core, Counted};
use super::links;
use super::service::EdgeService;
use super::tls::{Certificate, Tls};
use super::until_over;
use crate::client;
use crate::events::{Handshake, Introduction};
use crate::exchange::Latch;
use crate::io::{self, Conn, Secured};
use crate::limits::PROXY_MS_MAX;
use crate::wire::{self, ForwardedFor, Introduced};

/// One address of one core.
#[derive(Clone)]
pub struct Door {
    pub clients: bool,
    pub workers: bool,
    /// Devices that speak HAProxy's reverse HTTP, and nobody else.
    pub devices: Option<Devices>,
    /// HTTP/2 without TLS, for clients that begin with its preface.
    pub h2c: bool,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    pub tls: Option<Arc<Tls>>,
}

/// Who the devices are that come to an address for them.
#[derive(Clone)]
pub struct Devices {
    /// All of them this one; `None`: whom their certificates name.
    pub credential: Option<String>,
}

/// Which version a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    H1,
    H2,
}

/// A connection from a client or a worker; which of the two, its first request tells.
pub async fn welcome(core: Rc<Core>, mut conn: Conn, mut peer: SocketAddr, door: Rc<Door>, mut counted: Counted) {
    // Who speaks the PROXY protocol passes bytes on: if it names no client, the fields in them are still that client's own.
    let mut passes_bytes = false;
    if door.proxy_protocol {
        let Some(introduced) = Box::pin(introduce(&core, &mut conn, peer)).await else { return };
        passes_bytes = introduced == peer;
        peer = introduced;
        conn.set_peer_addr(peer);
    }
    // Closed by the drop: an answer, or a handshake, would cost more than the connection did.
    if !counted.comes_from(peer.ip()) {
        return;
    }
    let mut server_name = None;
    let mut visitor = links::Visitor { accepts_workers: door.workers, certificate: None };
    let mut speaks = Speaks::H1;
    if let Some(tls) = &door.tls {
        // Boxed, as what follows: each connection's task is as large as the largest part of its life.
        let inverts = door.workers && core.shared.register.now().inverts();
        let secured;
        (conn, secured) = match Box::pin(shake_hands(&core, conn, tls, inverts)).await {
            Some(shaken) => shaken,
            None => return,
        };
        if secured.protocol.as_deref() == Some(b"h2") {
            speaks = Speaks::H2;
        }
        if door.workers || door.devices.is_some() {
            visitor.certificate = Certificate::shown(secured.certificates, tls).map(Arc::new);
        }
        if let Some(version) = secured.protocol.as_deref().and_then(wire::inverted) {
            io::spawn(links::invert(core, conn, version, visitor, counted));
            return;
        }
        server_name = Some(secured.server_name.unwrap_or_default().into_boxed_str());
    } else if door.h2c && door.devices.is_none() {
        match Box::pin(first_bytes(&mut conn, core.shared.clocks.head_ms, &core.drain)).await {
            Some(spoken) => speaks = spoken,
            None => return conn.close().await,
        }
    }
    if let Some(devices) = &door.devices {
        io::spawn(links::attach(core, conn, devices.clone(), visitor, counted));
        return;
    }
    let service = EdgeService {
        core: core.clone(),
        address: peer.ip(),
        peer_addr: peer,
        is_trusted: !passes_bytes && core.shared.config.trusts(peer.ip()),
        peer: ForwardedFor::new(peer.ip()),
        accepts_clients: door.clients,
        visitor,
        counted: Cell::new(Some(counted)),
        server_name,
    };
    // Tasks of their own: each is as large as the largest part of its life, and this one has welcomed.
    match speaks {
        Speaks::H1 => {
            let speaks = speak_h1(core.clone(), Box::new(conn), Box::new(service));
            io::spawn(until_over(core, speaks));
        }
        Speaks::H2 => io::spawn(until_over(core.clone(), speak_h2(core, conn, service))),
    }
}

async fn speak_h1(core: Rc<Core>, conn: Box<Conn>, service: Box<EdgeService>) {
    match client::h1::serve(conn, &*service, &core.drain, &core.shared.clocks).await {
        client::h1::Ended::Closed => {}
        client::h1::Ended::TakenOver(taken) => {
            let EdgeService { visitor, counted, .. } = *service;
            if let Some(counted) = counted.into_inner() {
                io::spawn(until_over(core.clone(), links::set_up(core, *taken, visitor, counted)));
            }
        }
    }
}

async fn speak_h2(core: Rc<Core>, conn: Conn, service: EdgeService) {
    let service = Rc::new(service);
    let profile = client::h2::Profile::client(core.shared.config.limits.streams_max, core.shared.clocks);
    let served = client::h2::serve(conn, service.clone(), profile, &core.leave).await;
    // It is over, whether or not a task of one of its requests has seen that.
    service.counted.set(None);
    if let client::h2::Ended::Broken(why) = served {
        tracing::debug!(peer = %service.address, why, "an HTTP/2 connection broke");
    }
}

/// Whose connection it is, by its PROXY header. `None`: there is no such header, or nobody who may speak so; the connection
/// ends without a word, for neither is anything known of its language.
async fn introduce(core: &Core, conn: &mut Conn, peer: SocketAddr) -> Option<SocketAddr> {
    let config = &core.shared.config;
    let (result, who, why) = if !config.trusted_proxies.is_empty() && !config.trusts(peer.ip()) {
        (Introduction::Untrusted, None, "it is not in `trusted_proxies`")
    } else {
        match io::timeout(PROXY_MS_MAX, proxy_header(conn)).await {
            Some(Ok(Introduced::From(client))) => (Introduction::Client, Some(client), ""),
            Some(Ok(Introduced::Itself)) => (Introduction::Itself, Some(peer), ""),
            Some(Err(why)) => (Introduction::Malformed, None, why),
            None => (Introduction::TimedOut, None, "its PROXY header did not come in time"),
        }
    };
    core.counters.borrow_mut().core.proxy_headers.one(result);
    if who.is_none() {
        tracing::debug!(%peer, why, "a connection without a PROXY header was closed");
    }
    who
}

async fn proxy_header(conn: &mut Conn) -> Result<Introduced, &'static str> {
    loop {
        if let Some((bytes, introduced)) = wire::parse_proxy(conn.reader.buffer())? {
            conn.reader.consume(bytes);
            return Ok(introduced);
        }
        if !matches!(conn.reader.fill().await, Ok(1..)) {
            return Err("it ended before its PROXY header did");
        }
    }
}

/// `None`: it failed, and the peer was told why as far as TLS can say it.
pub(super) async fn shake_hands(core: &Core, mut conn: Conn, tls: &Tls, inverts: bool) -> Option<(Conn, Secured)> {
    let session = match tls.session(inverts) {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "no TLS session could be made");
            return None;
        }
    };
    let secured = io::timeout(core.shared.config.limits.handshake_ms_max, conn.secure(session)).await;
    let result = match &secured {
        Some(Ok(_)) => Handshake::Done,
        Some(Err(error)) => {
            tracing::debug!(peer = ?conn.peer_addr(), %error, "a TLS handshake failed");
            Handshake::Failed
        }
        None => Handshake::TimedOut,
    };
    core.counters.borrow_mut().core.tls_handshakes.one(result);
    match secured {
        Some(Ok(secured)) => Some((conn, secured)),
        Some(Err(_)) => {
            conn.close().await; // with time for its alert to arrive
            None
        }
        None => None,
    }
}

/// Whether the connection begins with HTTP/2's preface (RFC 9113 §3.4). One that says nothing in time is HTTP/1.1's to time
/// out. `None`: it had said nothing when the drain began.
async fn first_bytes(conn: &mut Conn, max_ms: u64, drain: &Latch) -> Option<Speaks> {
    // Out of a listener's backlog: what it has sent already is answered.
    let is_last = drain.is_set() && !conn.is_silent();
    let mut drained = drain.wait();
    let seen = std::future::poll_fn(|cx| {
        loop {
            match wire::is_h2_preface(conn.reader.buffer()) {
                Some(true) => return Poll::Ready(Some(Speaks::H2)),
                Some(false) => return Poll::Ready(Some(Speaks::H1)),
                None => {}
            }
            match conn.reader.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Some(Speaks::H1)),
                Poll::Pending => {
                    let says_nothing = conn.reader.buffer().is_empty() && !is_last;
                    return match says_nothing && drained.poll(cx).is_ready() {
                        true => Poll::Ready(None),
                        false => Poll::Pending,
                    };
                }
            }
        }
    });
    io::timeout(max_ms, seen).await.unwrap_or(Some(Speaks::H1))
}
