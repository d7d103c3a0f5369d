//! What passes from one version of HTTP into the other says the same afterwards: heads by the four ways between a client and
//! a server behind a link, for tests and for fuzzers. Bodies and sockets never enter.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};

use crate::client;
use crate::exchange::h1::Frame;
use crate::exchange::{Ask, Heard, Length, Reply};
use crate::fault::{Blame, Fault};
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use crate::link;
use crate::link::h2::Switched;
use crate::wire::{self, Asked, BodyPlan, HeadScan, Persistence, Version};

/// What a head may have so that what the other version and an edge add to it still fits.
const BYTES_MAX: usize = HEAD_BYTES_MAX / 4;
const FIELDS_MAX: usize = HEAD_FIELDS_MAX / 2;

/// A request in HTTP/1.1 from a client to servers over links of both kinds. `None`: it is no request, or is refused.
///
/// # Panics
/// Where a server gets another one than the client sent.
pub fn request_from_h1(bytes: &[u8]) -> Option<()> {
    let range = HeadScan::request().scan(bytes).ok()??;
    let head = wire::parse_request(Bytes::copy_from_slice(&bytes[range])).ok()?;
    let sent = Sent {
        method: head.method.clone(),
        path: head.uri.path_and_query()?.as_str().to_owned(),
        fields: end_to_end(&head.headers),
        length: match head.body {
            BodyPlan::Exact { bytes } if bytes > 0 => Length::Exact(bytes),
            BodyPlan::Empty | BodyPlan::Exact { .. } => Length::None,
            BodyPlan::Chunked | BodyPlan::UntilClose => Length::Unknown,
        },
    };
    let ask = client::h1::ask_of(head, &mut client::h1::LastHost::default());
    arrives(&ask, &sent)
}

/// As [`request_from_h1`], over HTTP/2: a line for each field, `name: value`, the pseudo-header fields first. What HTTP/2's
/// engine refuses is none. `ends`: no body follows.
///
/// # Panics
/// As there.
pub fn request_from_h2(text: &[u8], ends: bool) -> Option<()> {
    let mut request = Request::builder().method(Method::GET);
    let (mut scheme, mut authority, mut path) = (None, None, None);
    let mut fields = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        // A colon may be the first byte of a name.
        let colon = line.iter().skip(1).position(|byte| *byte == b':')? + 1;
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]));
        match name {
            b":method" => request = request.method(value),
            b":scheme" => scheme = Some(value.to_vec()),
            b":authority" => authority = Some(value.to_vec()),
            b":path" => path = Some(value.to_vec()),
            b":protocol" => request = request.extension(h2::ext::Protocol::from(std::str::from_utf8(value).ok()?)),
            _ => _ = fields.append(HeaderName::from_lowercase(name).ok()?, HeaderValue::from_bytes(value).ok()?),
        }
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = scheme.map(|scheme| http::uri::Scheme::try_from(&scheme[..])).transpose().ok()?;
    parts.authority = authority.map(|authority| Authority::try_from(&authority[..])).transpose().ok()?;
    let path = path.map(|path| http::uri::PathAndQuery::try_from(&path[..])).transpose().ok()?;
    // The engine drops a scheme where there is no authority, and knows no path without both.
    parts.path_and_query = path;
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    let (mut head, ()) = request.uri(http::Uri::from_parts(parts).ok()?).body(()).ok()?.into_parts();
    let lengths = fields.get_all(CONTENT_LENGTH);
    let is_checked = lengths.iter().all(|value| Some(value) == fields.get(CONTENT_LENGTH) && (!ends || value == "0"));
    if !is_checked || !is_of_h2(&fields) {
        return None; // the engine refuses it
    }
    let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let tunnels = head.method == Method::CONNECT;
    let sent = Sent {
        method: if tunnels { Method::GET } else { head.method.clone() }, // RFC 8441 §4
        path: head.uri.path_and_query()?.as_str().to_owned(),
        fields: end_to_end(&fields),
        length: match length {
            _ if ends || tunnels => Length::None,
            Some(bytes) => Length::Exact(bytes),
            None => Length::Unknown,
        },
    };
    head.headers = fields;
    let known = &mut client::h2::KnownHosts::default();
    let ask = client::h2::ask_of(head, ends, client::h2::Peer::Anybody, known).ok()?;
    arrives(&ask, &sent)
}

/// A response in HTTP/1.1 from a server to clients of every version. `None`: it is no response, or is refused.
///
/// # Panics
/// Where a client gets another one than the server sent.
pub fn response_from_h1(bytes: &[u8], asked: Asked) -> Option<()> {
    let range = HeadScan::response().scan(bytes).ok()??;
    let head = wire::parse_response(Bytes::copy_from_slice(&bytes[range]), asked).ok()?;
    if bytes.len() > BYTES_MAX || head.headers.len() > FIELDS_MAX {
        return None;
    }
    let sent = end_to_end(&head.headers);
    match link::h1::heard_of(head, None).ok()? {
        Heard::Final(reply) => {
            assert_eq!(end_to_end(&reply.headers), sent);
            returns(&reply, asked)
        }
        Heard::Interim(..) | Heard::Dispatched => None,
    }
}

// ---- requests ----

/// A request as its client meant it.
struct Sent {
    method: Method,
    path: String,
    fields: Vec<(String, Vec<u8>)>,
    length: Length,
}

fn arrives(ask: &Ask, sent: &Sent) -> Option<()> {
    assert_eq!((&ask.method, ask.path.as_str(), ask.length), (&sent.method, &*sent.path, sent.length));
    assert_eq!(end_to_end(&ask.headers), sent.fields);
    let bytes: usize = ask.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes + ask.path.as_str().len() > BYTES_MAX || ask.headers.len() > FIELDS_MAX {
        return None;
    }
    over_h1(ask);
    let nameless = Authority::from_static("localhost");
    let (request, _) = match link::h2::request_of(ask, &nameless) {
        Ok(request) => request,
        Err(lost) => {
            // Not every upgrade has a form over HTTP/2.
            let is_told = lost.fault == Fault::NoUpgrade || lost.fault.blame() == Blame::Client;
            assert!(ask.upgrade.is_some() && is_told, "a link over HTTP/2 does not take {ask:?}: {lost:?}");
            return Some(());
        }
    };
    let (head, ()) = request.into_parts();
    assert!(is_of_h2(&head.headers) && !head.headers.contains_key(HOST), "{:?}", head.headers);
    let ends = ask.length == Length::None && ask.upgrade.is_none();
    let known = &mut client::h2::KnownHosts::default();
    let again = client::h2::ask_of(head, ends, client::h2::Peer::Edge, known);
    let again = again.unwrap_or_else(|fault| panic!("a worker refuses {ask:?}: {fault:?}"));
    let told = |ask: &Ask| (ask.method.clone(), ask.path.clone(), ask.length, protocol_of(ask), ask.secure);
    assert_eq!(told(&again), told(ask));
    assert_eq!(again.authority.as_ref(), Some(ask.authority.as_ref().unwrap_or(&nameless)));
    assert_eq!(end_to_end(&again.headers), end_to_end(&ask.headers));
    over_h1(&again);
    Some(())
}

/// What a server reads of `ask` in HTTP/1.1.
fn over_h1(ask: &Ask) {
    let mut out = Vec::new();
    let _ = link::h1::put_head(&mut out, ask);
    let range = HeadScan::request().scan(&out);
    assert_eq!(range, Ok(Some(0..out.len())), "{:?}", String::from_utf8_lossy(&out));
    if ask.authority.is_none() {
        return; // of HTTP/1.0: no server of HTTP/1.1 is asked without a Host
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    let head = wire::parse_request(Bytes::from(out)).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"));
    assert_eq!((&head.method, head.version), (&ask.method, Version::H11));
    let path = head.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    assert_eq!(path, Some(ask.path.as_str()));
    let plan = match ask.length {
        Length::None if head.headers.contains_key(CONTENT_LENGTH) => BodyPlan::Exact { bytes: 0 },
        Length::None => BodyPlan::Empty,
        Length::Exact(bytes) => BodyPlan::Exact { bytes },
        Length::Unknown => BodyPlan::Chunked,
    };
    assert_eq!(head.body, plan, "{text:?}");
    assert_eq!(head.upgrade.as_ref(), ask.upgrade.as_ref().map(|upgrade| &upgrade.protocol));
    assert_eq!(head.headers.get(HOST), ask.headers.get(HOST));
    assert_eq!(end_to_end(&head.headers), end_to_end(&ask.headers), "{text:?}");
}

/// A protocol's name has no case (RFC 9110 §7.8), and over HTTP/2 it is written small.
fn protocol_of(ask: &Ask) -> Option<Vec<u8>> {
    ask.upgrade.as_ref().map(|upgrade| upgrade.protocol.as_bytes().to_ascii_lowercase())
}

/// No field of a connection, as RFC 9113 §8.2.2 wants it.
fn is_of_h2(fields: &HeaderMap) -> bool {
    let own = [&CONNECTION, &TRANSFER_ENCODING, &UPGRADE];
    own.iter().all(|name| !fields.contains_key(*name))
        && ["keep-alive", "proxy-connection"].iter().all(|name| !fields.contains_key(*name))
        && fields.get_all(TE).iter().all(|value| value == "trailers")
}

/// What has to arrive, in one order: all but framing, Host and what belongs to a connection or to a WebSocket's handshake.
/// Over HTTP/2 cookies come in pieces, and go on as one (RFC 9113 §8.2.3).
fn end_to_end(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    // What `Connection` names is its sender's alone (RFC 9110 §7.6.1); of TE only one word goes on.
    let named = fields.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let named: Vec<Vec<u8>> = named.map(|name| name.trim_ascii().to_ascii_lowercase()).collect();
    let takes_trailers = fields.get_all(TE).iter().any(|value| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| {
            word.split(|byte| *byte == b';')
                .next()
                .is_some_and(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        })
    });
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole: Vec<&[u8]> = crumbs.iter().copied().filter(|crumb| !crumb.is_empty()).collect();
    let cookies = (!crumbs.is_empty()).then(|| whole.join(&b"; "[..]));
    let left_out = [
        "host",
        "content-length",
        "cookie",
        "expect",
        "sec-websocket-key",
        "sec-websocket-accept",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ];
    let goes_on = |name: &str| !left_out.contains(&name) && !named.iter().any(|named| named == name.as_bytes());
    let all = fields.iter().filter(|(name, _)| goes_on(name.as_str()));
    let mut all: Vec<_> = all.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    all.extend(takes_trailers.then(|| ("te".to_owned(), b"trailers".to_vec())));
    all.extend(cookies.map(|cookies| ("cookie".to_owned(), cookies)));
    all.sort_by(|(one, _), (other, _)| one.cmp(other)); // stable: lines of one name keep their order
    all
}

// ---- responses ----

fn returns(reply: &Reply, asked: Asked) -> Option<()> {
    to_h1(reply, asked);
    let is_head = asked == Asked::Head;
    let switches = reply.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = reply.headers.get(UPGRADE).cloned().filter(|_| switches);
    let (response, ends) = client::h2::response_of(reply.clone(), is_head);
    let (head, ()) = response.into_parts();
    assert!(is_of_h2(&head.headers) && head.status != StatusCode::SWITCHING_PROTOCOLS, "{head:?}");
    let describes = is_head || head.status == StatusCode::NOT_MODIFIED;
    assert!(!ends || describes || !has_length(&head.headers), "{head:?}");
    let again = link::h2::reply_of(head, ends, Switched { protocol, accept: None }).expect("it was well before");
    assert_eq!(again.status, reply.status);
    assert_eq!(end_to_end(&again.headers), end_to_end(&reply.headers));
    if switches || ends {
        assert_eq!(again.length, if switches { Length::Unknown } else { Length::None });
    } else {
        assert_eq!(again.length, reply.length);
    }
    to_h1(&again, asked);
    Some(())
}

/// A length of something that does not follow.
fn has_length(fields: &HeaderMap) -> bool {
    fields.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// What a client of HTTP/1 reads of `reply`.
fn to_h1(reply: &Reply, asked: Asked) {
    for version in [Version::H11, Version::H10] {
        let is_head = asked == Asked::Head;
        let (frame, framing) = client::h1::frame_of(reply, is_head, version);
        let protocol = reply.headers.get(UPGRADE).filter(|_| reply.status == StatusCode::SWITCHING_PROTOCOLS);
        let (frame, framing, persistence) = match protocol {
            Some(protocol) => (Frame::UntilClose, wire::Framing::None, Persistence::Upgrade(protocol)),
            None => (frame, framing, Persistence::Default),
        };
        let mut out = Vec::new();
        wire::put_response_head(&mut out, reply.status, &reply.headers, framing, persistence);
        let text = String::from_utf8_lossy(&out).into_owned();
        assert_eq!(HeadScan::response().scan(&out), Ok(Some(0..out.len())), "{text:?}");
        let head = wire::parse_response(Bytes::from(out), asked).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"));
        let plan = match frame {
            Frame::Nothing if framing == wire::Framing::ContentLength(0) => BodyPlan::Exact { bytes: 0 },
            Frame::Nothing => BodyPlan::Empty,
            Frame::Exact { left: bytes } => BodyPlan::Exact { bytes },
            Frame::Chunked => BodyPlan::Chunked,
            Frame::UntilClose | Frame::Ended | Frame::Closing | Frame::Shut => BodyPlan::UntilClose,
        };
        assert!(head.body == plan || protocol.is_some(), "{text:?}: {:?}", head.body);
        assert_eq!(head.status, reply.status);
        assert_eq!(end_to_end(&head.headers), end_to_end(&reply.headers), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and with each byte in turn replaced by bytes that mean something: what is refused is refused, and the rest
    /// arrives as it was. Says how many arrived.
    fn mutated(text: &[u8], check: impl Fn(&[u8]) -> Option<()>) -> usize {
        let mut arrived = usize::from(check(text).is_some());
        for at in 0..text.len() {
            for byte in b"\r\n\0 \t:;,/*aZ0\"%\x80\xff" {
                let mut bent = text.to_vec();
                bent[at] = *byte;
                arrived += usize::from(check(&bent).is_some());
                bent.remove(at);
                arrived += usize::from(check(&bent).is_some());
            }
        }
        arrived
    }

    #[test]
    fn a_request_of_http_1_arrives_as_it_was_sent() {
        for text in [
            &b"GET /a?b=c HTTP/1.1\r\nHost: A.example:80\r\nCookie: a=1\r\nX-Y: 1, 2\r\nCookie: b=2\r\n\r\n"[..],
            b"POST http://u.example/p HTTP/1.1\r\nHost: u.example\r\nContent-Length: 5\r\nTE: trailers, gzip\r\nConnection: te, x\r\nX: 1\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nTrailer: x\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 0\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie:\r\nCookie:\r\n\r\n",
            b"DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\n\r\n",
        ] {
            assert!(request_from_h1(text).is_some(), "{:?}", String::from_utf8_lossy(text));
            assert!(mutated(text, request_from_h1) > text.len(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_request_of_http_2_arrives_as_it_was_sent() {
        for (text, ends) in [
            (
                &b":method: GET\n:scheme: http\n:authority: A.example\n:path: /a?b\ncookie: a=1\ncookie: b=2\nx: 1"[..],
                true,
            ),
            (b":method: POST\n:scheme: https\n:authority: a:443\n:path: /\ncontent-length: 5\nte: trailers", false),
            (b":method: POST\n:scheme: https\n:authority: a\n:path: /\nexpect: 100-continue\nhost: a", false),
            (b":method: CONNECT\n:scheme: https\n:authority: a\n:path: /ws\n:protocol: websocket\nx: y", false),
            (b":method: OPTIONS\n:scheme: http\n:authority: a\n:path: *", true),
            (b":method: GET\nhost: a\n:path: /", true),
        ] {
            let check = |text: &[u8]| request_from_h2(text, ends);
            assert!(check(text).is_some(), "{:?}", String::from_utf8_lossy(text));
            assert!(mutated(text, check) > text.len(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_response_returns_as_it_was_sent() {
        for (text, asked) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: close, x\r\nX: 1\r\n\r\n"[..], Asked::Other),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Asked::Head),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", Asked::Other),
            (b"HTTP/1.1 204 No Content\r\nKeep-Alive: 1\r\n\r\n", Asked::Other),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n", Asked::Other),
            (b"HTTP/1.0 200 \r\nX: y\r\n\r\n", Asked::Other),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX: y\r\n\r\n", Asked::Connect),
        ] {
            let check = |text: &[u8]| response_from_h1(text, asked);
            assert!(check(text).is_some(), "{:?}", String::from_utf8_lossy(text));
            assert!(mutated(text, check) > text.len(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
