//! Fields that end at this hop, and fields that begin here. Framing fields are written by `write`, never from here.

use std::cell::RefCell;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, FORWARDED, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::priority::{PRIORITY, priority_value};
use super::token::{is_token, list};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
    const STAY: [&str; 24] = [
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
    ];
    STAY.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("sec-") || name.starts_with("if-")
}

/// What the fields say about one client. Made once for each connection; it remembers the host that was asked last, for
/// that is the next one's, too.
#[derive(Debug)]
pub struct ForwardedFor {
    address: HeaderValue,
    /// `for=…;proto=`
    parameter: Box<str>,
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
    pub fn new(client: IpAddr) -> ForwardedFor {
        let client = client.to_canonical();
        let parameter = match client {
            IpAddr::V4(client) => format!("for={client};proto="),
            IpAddr::V6(client) => format!("for=\"[{client}]\";proto="),
        };
        let address = HeaderValue::try_from(client.to_string()).expect("an address is visible ASCII");
        ForwardedFor { address, parameter: parameter.into(), last: RefCell::new(None) }
    }

    /// The client's address, for log lines.
    #[must_use]
    pub fn address(&self) -> &str {
        self.address.to_str().unwrap_or_default()
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
        for part in [&*self.parameter, proto, ";host="] {
            forwarded.extend_from_slice(part.as_bytes());
        }
        put_value(&mut forwarded, host.as_bytes());
        Some(Last {
            proto,
            host: HeaderValue::from_str(host).ok()?,
            forwarded: HeaderValue::from_maybe_shared(Bytes::from(forwarded)).ok()?,
        })
    }
}

/// What a worker is told about a request's first hop.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    pub client: &'a ForwardedFor,
    /// `http` or `https`.
    pub proto: &'static str,
    /// `Host` as the client wrote it: host, and port if there was one.
    pub host: &'a str,
    /// The class that was decided, and the client's `i`.
    pub urgency: u8,
    pub incremental: bool,
    /// In which the request was received.
    pub version: http::Version,
}

/// Sets `Forwarded` (RFC 7239), `X-Forwarded-For/-Host/-Proto` and `Priority`, and adds to `Via`. A client is not
/// trusted: whatever it sent of the first two kinds is gone, other `X-Forwarded-*` and `X-Real-IP` too, and names that
/// become one of these where a server reads `_` as `-` (CGI, WSGI).
pub fn set_forwarding(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    if headers.keys().any(claims_forwarding) {
        remove_claims(headers);
    }
    headers.insert(&X_FORWARDED_FOR, forwarding.client.address.clone());
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(forwarding.proto));
    if let Some((host, forwarded)) = forwarding.client.values(forwarding.proto, forwarding.host) {
        headers.insert(&X_FORWARDED_HOST, host);
        headers.insert(FORWARDED, forwarded);
    }
    headers.insert(&PRIORITY, priority_value(forwarding.urgency, forwarding.incremental));
    let via = match forwarding.version {
        http::Version::HTTP_10 => "1.0 ptth",
        http::Version::HTTP_2 => "2.0 ptth",
        _ => "1.1 ptth",
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

fn claims_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is = |wanted: &[u8]| {
        name.len() >= wanted.len()
            && name.iter().zip(wanted).all(|(byte, wanted)| byte == wanted || (*byte == b'_' && *wanted == b'-'))
    };
    match name.first() {
        Some(b'x') => is(b"x-forwarded-") || (name.len() == 9 && is(b"x-real-ip")),
        Some(b'f') => name == b"forwarded",
        _ => false,
    }
}

#[cold]
fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| claims_forwarding(name)).cloned().collect();
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
