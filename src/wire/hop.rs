//! Fields that end at this hop, and fields that begin here. Framing fields are written by `write`, never from here.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, FORWARDED, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::authority::Scheme;
use super::forwarded::{Told, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::priority::{PRIORITY, priority_value};
use super::request_id::X_REQUEST_ID;
use super::token::{is_token, list};
use super::trace::{drop_malformed_trace, is_trace};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Removes what must not pass (RFC 9110 §7.6.1): `Connection` and the fields that it names, `Keep-Alive`,
/// `Proxy-Connection`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings`, and `TE` but for `trailers`.
///
/// `Connection` cannot name away what the edge or the worker relies on: a client could else hide from the worker who
/// it is, or what the edge said about it. Safe to repeat.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads have none of them: one look along the names is cheaper than eight into the table (2 % of an edge's CPU
    // for each request).
    if headers.keys().any(ends_here) {
        strip(headers);
    }
}

fn ends_here(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => *name == TE,
        7 => *name == UPGRADE,
        10 => *name == CONNECTION || *name == KEEP_ALIVE,
        14 => *name == HTTP2_SETTINGS,
        16 => *name == PROXY_CONNECTION,
        17 => *name == TRANSFER_ENCODING,
        _ => false,
    }
}

fn strip(headers: &mut HeaderMap) {
    if headers.get_all(CONNECTION).iter().flat_map(|value| list(value.as_bytes())).any(names_a_field) {
        strip_named(headers);
    }
    if headers.contains_key(TE) {
        let trailers = headers.get_all(TE).iter().flat_map(|value| list(value.as_bytes())).any(is_trailers);
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &TRANSFER_ENCODING, &UPGRADE, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
}

/// Whether a connection option is more than one of those that every client sends, and that are removed anyway.
fn names_a_field(option: &[u8]) -> bool {
    const USUAL: [&[u8]; 6] = [b"keep-alive", b"close", b"upgrade", b"te", b"http2-settings", b""];
    !USUAL.iter().any(|usual| option.eq_ignore_ascii_case(usual))
}

fn is_trailers(element: &[u8]) -> bool {
    let coding = element.split(|byte| *byte == b';').next().unwrap_or_default();
    coding.trim_ascii_end().eq_ignore_ascii_case(b"trailers")
}

#[cold]
fn strip_named(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    for option in values.iter().flat_map(|value| list(value.as_bytes())).filter(|option| names_a_field(option)) {
        if let Ok(name) = HeaderName::from_bytes(option)
            && !stays(name.as_str())
        {
            headers.remove(name);
        }
    }
}

/// Fields that `Connection` cannot remove.
fn stays(name: &str) -> bool {
    const STAY: [&str; 25] = [
        // what says where a message ends and what it is
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "host",
        "range",
        "trailer",
        // who asks
        "authorization",
        "cookie",
        "origin",
        "proxy-authorization",
        "set-cookie",
        "www-authenticate",
        // what may be kept
        "cache-control",
        "date",
        "expires",
        "pragma",
        "vary",
        // what the edge says
        "forwarded",
        "priority",
        "proxy-status",
        "server-timing",
        "via",
        "x-real-ip",
        "x-request-id",
    ];
    STAY.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("sec-") || name.starts_with("if-")
}

/// What the fields say about whoever connected. Made once for each connection; it remembers the host that was asked last, for
/// that is the next one's, too.
#[derive(Debug)]
pub struct ForwardedFor {
    address: HeaderValue,
    /// `for=…;proto=`
    parameter: Box<[u8]>,
    last: RefCell<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    proto: &'static str,
    host: HeaderValue,
    forwarded: HeaderValue,
}

impl ForwardedFor {
    #[must_use]
    pub fn new(peer: IpAddr) -> ForwardedFor {
        let peer = peer.to_canonical();
        let mut parameter = Vec::new();
        put_for(&mut parameter, peer);
        parameter.extend_from_slice(b";proto=");
        ForwardedFor { address: address_value(peer), parameter: parameter.into(), last: RefCell::new(None) }
    }

    /// `X-Forwarded-Host` and `Forwarded`. `None` for a host with a control character: no field, never a broken one.
    fn values(&self, proto: &'static str, host: &str) -> Option<(HeaderValue, HeaderValue)> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(last) if last.host.as_bytes() == host.as_bytes() && last.proto == proto => {}
            _ => *last = Some(self.make(proto, host)?),
        }
        last.as_ref().map(|last| (last.host.clone(), last.forwarded.clone()))
    }

    #[cold]
    fn make(&self, proto: &'static str, host: &str) -> Option<Last> {
        let mut forwarded = Vec::with_capacity(self.parameter.len() + 16 + host.len());
        for part in [&*self.parameter, proto.as_bytes(), b";host="] {
            forwarded.extend_from_slice(part);
        }
        put_value(&mut forwarded, host.as_bytes());
        Some(Last {
            proto,
            host: HeaderValue::from_str(host).ok()?,
            forwarded: HeaderValue::from_maybe_shared(Bytes::from(forwarded)).ok()?,
        })
    }
}

/// What a worker is told about where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// Whoever connected: the client, or the last proxy.
    pub peer: &'a ForwardedFor,
    /// What that proxy says, if it is trusted.
    pub told: Option<&'a Told>,
    /// `http` or `https`, as this connection speaks.
    pub proto: &'static str,
    /// `Host` as it came: host, and port if there was one.
    pub host: &'a str,
    /// The class that was decided, and the client's `i`.
    pub urgency: u8,
    pub incremental: bool,
    /// In which the request was received.
    pub version: http::Version,
    /// What the request is called.
    pub id: &'a HeaderValue,
}

/// Sets `Forwarded` (RFC 7239), `X-Forwarded-For/-Host/-Proto`, `Priority` and `X-Request-Id`, adds to `Via`, and removes a
/// `traceparent` or `tracestate` that nobody can read.
///
/// A client is not trusted: whatever it sent of the first two kinds is gone, other `X-Forwarded-*` and `X-Real-IP` too, and
/// names that become one of these where a server reads `_` as `-` (CGI, WSGI). What a trusted proxy tells stays, with our own
/// element behind it, also in that one of the two chains which it did not write. That takes some four allocations. For clients
/// there are none, unless they claim something, or ask for another host than before.
pub fn set_forwarding(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let (mut claims, mut is_traced) = (false, false);
    for name in headers.keys() {
        claims |= claims_forwarding(name);
        is_traced |= is_trace(name);
    }
    if is_traced {
        drop_malformed_trace(headers);
    }
    match forwarding.told {
        Some(told) if claims => pass_on(headers, told, forwarding),
        _ => {
            if claims {
                remove_claims(headers, |_| true);
            }
            headers.insert(&X_FORWARDED_FOR, forwarding.peer.address.clone());
            headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(forwarding.proto));
            if let Some((host, forwarded)) = forwarding.peer.values(forwarding.proto, forwarding.host) {
                headers.insert(&X_FORWARDED_HOST, host);
                headers.insert(FORWARDED, forwarded);
            }
        }
    }
    headers.insert(&PRIORITY, priority_value(forwarding.urgency, forwarding.incremental));
    headers.insert(&X_REQUEST_ID, forwarding.id.clone());
    let via = match forwarding.version {
        http::Version::HTTP_10 => "1.0 ptth",
        http::Version::HTTP_2 => "2.0 ptth",
        _ => "1.1 ptth",
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// The fields of a trusted proxy, and our own element behind its. What it tells of the scheme and the host is what we tell.
fn pass_on(headers: &mut HeaderMap, told: &Told, forwarding: &Forwarding<'_>) {
    let peer = forwarding.peer;
    let proto = told.scheme.map_or(forwarding.proto, Scheme::as_str);
    let host = told.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(forwarding.host);
    let kept = told.keeps_x_forwarded_for.then_some(&X_FORWARDED_FOR);
    let x_forwarded_for = chained(headers, kept, &told.hops, put_display, &peer.address);
    let forwarded = FORWARDED;
    let own = peer.values(proto, host).map(|(host, own)| {
        let kept = told.keeps_forwarded.then_some(&forwarded);
        (host, chained(headers, kept, &told.hops, put_for, &own))
    });
    // No honest proxy writes the names with `_`.
    remove_claims(headers, |name| name.as_str().contains('_'));
    headers.insert(&X_FORWARDED_FOR, x_forwarded_for);
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    match own {
        Some((host, forwarded)) => {
            headers.insert(&X_FORWARDED_HOST, host);
            headers.insert(FORWARDED, forwarded);
        }
        None => {
            headers.remove(&X_FORWARDED_HOST);
            headers.remove(FORWARDED);
        }
    }
    // Its proxy may have let a client's pass, which the chains would belie.
    if headers.contains_key(&X_REAL_IP) {
        headers.insert(&X_REAL_IP, told.client().map_or_else(|| peer.address.clone(), address_value));
    }
}

/// The lines of the field that is `kept`, or else `hops`, the last one first; then our own element.
fn chained(
    headers: &HeaderMap,
    kept: Option<&HeaderName>,
    hops: &[IpAddr],
    put: impl Fn(&mut Vec<u8>, IpAddr),
    own: &HeaderValue,
) -> HeaderValue {
    /// A hop in either form.
    const HOP_BYTES: usize = "for=\"[2001:db8:1111:2222:3333:4444:5555:6666]\", ".len();
    let lines = || kept.into_iter().flat_map(|name| headers.get_all(name)).filter(|line| !line.is_empty());
    let before_bytes = match kept {
        Some(_) => lines().map(|line| line.len() + 2).sum(),
        None => hops.len() * HOP_BYTES,
    };
    if before_bytes == 0 {
        return own.clone();
    }
    let mut out = Vec::with_capacity(before_bytes + own.len());
    match kept {
        Some(_) => lines().for_each(|line| {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b", ");
        }),
        None => hops.iter().rev().for_each(|hop| {
            put(&mut out, *hop);
            out.extend_from_slice(b", ");
        }),
    }
    out.extend_from_slice(own.as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(out)).unwrap_or_else(|_| own.clone())
}

fn put_for(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(_) => {
            out.extend_from_slice(b"for=");
            put_display(out, address);
        }
        IpAddr::V6(_) => {
            out.extend_from_slice(b"for=\"[");
            put_display(out, address);
            out.extend_from_slice(b"]\"");
        }
    }
}

fn put_display(out: &mut Vec<u8>, address: IpAddr) {
    let _ = write!(out, "{address}"); // a Vec takes everything
}

fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("an address is visible ASCII")
}

fn claims_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is = |wanted: &[u8]| {
        name.len() >= wanted.len()
            && name.iter().zip(wanted).all(|(byte, wanted)| byte == wanted || (*byte == b'_' && *wanted == b'-'))
    };
    match name.first() {
        Some(b'x') => {
            is(b"x-forwarded-")
                || (name.len() == 9 && is(b"x-real-ip"))
                || (name.len() == 12 && is(b"x-request-id") && name.contains(&b'_'))
        }
        Some(b'f') => name == b"forwarded",
        _ => false,
    }
}

/// Removes those of them that `goes` names.
#[cold]
fn remove_claims(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| claims_forwarding(name) && goes(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// A parameter's value: as it is if it is a token, else quoted (a port's colon, the brackets of IPv6).
fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    if is_token(value) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
