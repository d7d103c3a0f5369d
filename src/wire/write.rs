//! Hot. Writes heads into a buffer. Which fields pass was decided before; only framing and `Connection` are decided
//! here, so that nothing that came from outside can say where a message ends.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// How the message that follows is framed. `Content-Length` and `Transfer-Encoding` of the map are not written,
/// but for `Described`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No framing field: no body, or one that the end of the connection ends.
    None,
    ContentLength(u64),
    Chunked,
    /// No body, but the map's Content-Length says what it would be: answers to HEAD, and 304.
    Described,
}

/// What `Connection` says. `Connection` and `Upgrade` of the map are not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence<'a> {
    /// Nothing: the version's default.
    Default,
    Close,
    /// In so many words, for HTTP/1.0 clients.
    KeepAlive,
    /// `Connection: upgrade` and this `Upgrade`.
    Upgrade(&'a HeaderValue),
    /// As `Upgrade`, and `close`: this one would have been taken.
    UpgradeNext(&'a HeaderValue),
}

/// Appends a request head in HTTP/1.1. `path_and_query` is `uri.path_and_query()` of a [`Uri`](http::Uri), or `*`.
pub fn put_request_head(
    out: &mut Vec<u8>,
    method: &Method,
    path_and_query: &str,
    headers: &HeaderMap,
    framing: Framing,
    persistence: Persistence<'_>,
) {
    debug_assert!(path_and_query.bytes().all(|byte| byte.is_ascii_graphic()), "a target was checked when it came");
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path_and_query.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9110 §7.2: Host first.
    if let Some(host) = headers.get(HOST) {
        put_field(out, &HOST, host);
    }
    put_fields(out, headers, true, framing, persistence);
}

/// Appends a response head in HTTP/1.1 with the status's own reason phrase.
pub fn put_response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    persistence: Persistence<'_>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    put_fields(out, headers, false, framing, persistence);
}

fn put_fields(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    host_written: bool,
    framing: Framing,
    persistence: Persistence<'_>,
) {
    for (name, value) in headers {
        let ours = *name == TRANSFER_ENCODING
            || *name == CONNECTION
            || *name == UPGRADE
            || (*name == CONTENT_LENGTH && framing != Framing::Described)
            || (*name == HOST && host_written);
        if !ours {
            put_field(out, name, value);
        }
    }
    match framing {
        Framing::None | Framing::Described => {}
        Framing::ContentLength(bytes) => {
            out.extend_from_slice(b"content-length: ");
            put_decimal(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    let option: &[u8] = match persistence {
        Persistence::Default => b"",
        Persistence::Close => b"close",
        Persistence::KeepAlive => b"keep-alive",
        Persistence::Upgrade(protocol) => {
            put_field(out, &UPGRADE, protocol);
            b"upgrade"
        }
        Persistence::UpgradeNext(protocol) => {
            put_field(out, &UPGRADE, protocol);
            b"upgrade, close"
        }
    };
    // RFC 9110 §10.1.4: who sends TE names it in Connection.
    let te: &[u8] = if host_written && headers.contains_key(TE) { b"te" } else { b"" };
    if !option.is_empty() || !te.is_empty() {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(option);
        if !option.is_empty() && !te.is_empty() {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(te);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// One field line.
pub fn put_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub fn put_hex(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
