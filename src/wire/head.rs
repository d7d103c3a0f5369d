//! Hot. Reads a complete head: request line or status line, fields, and where the body ends. Bytes that `HeadScan`
//! has not passed, and the bytes of bodies, never enter.
//!
//! We stand between two parsers. Whatever two of them could read in two ways is refused (RFC 9112 §11.2), and
//! nothing is repaired.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use memchr::{memchr, memchr_iter};

use super::authority::{Authority, Scheme};
use super::scan::Side;
use super::token::{CR, LF, SP, decimal, is_token, list, trim_ows};
use crate::fault::Fault;
use crate::limits::CONTENT_LENGTH_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    H10,
    H11,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// There is none, and no field says so.
    Empty,
    /// `Content-Length`, 0 included.
    Exact {
        bytes: u64,
    },
    Chunked,
    /// Responses only: where the connection ends.
    UntilClose,
}

impl BodyPlan {
    /// Whether no byte of a body follows the head.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, BodyPlan::Empty | BodyPlan::Exact { bytes: 0 })
    }
}

/// A request as it was received; its hop-by-hop fields are still in.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query only, or `*` for OPTIONS.
    pub uri: Uri,
    /// From an absolute-form target, else from `Host`. `None` only in HTTP/1.0 without either.
    pub authority: Option<Authority>,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: BodyPlan,
    /// Whether the connection may carry another request after this one (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for a 100 before it sends the body; never set where there is no body.
    pub expect_continue: bool,
    /// The `Upgrade` field, in HTTP/1.1, if `Connection` names it and it can be honoured: an upgrade with a body or
    /// to `h2c` is a plain request here (RFC 9110 §7.8 lets a server ignore it; Java and curl send both).
    pub upgrade: Option<HeaderValue>,
}

/// A response as it was received; its hop-by-hop fields are still in.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: BodyPlan,
    /// Whether the connection may carry another request after this response.
    pub keep_alive: bool,
    /// The `Upgrade` field of a 101.
    pub upgrade: Option<HeaderValue>,
}

/// What the request was, as far as it decides how its response is read (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Head,
    /// The request asked for an upgrade, so a 101 may come.
    Connect,
    Other,
}

/// Reads what [`HeadScan::request`](super::scan::HeadScan::request) found. Values are slices of `head`.
///
/// # Errors
/// 400 for whatever is malformed or ambiguous, 405 for CONNECT and TRACE, 417 for an unknown expectation, 501 for an
/// unknown transfer coding, 505 for another version.
pub fn parse_request(head: Bytes) -> Result<RequestHead, Fault> {
    let malformed = Fault::ClientMalformed;
    let line = next_line(&head, 0).ok_or(malformed("a head without a line"))?;

    // RFC 9112 §3: single spaces, so the version holds whatever is too much.
    let method_end = memchr(SP, line).ok_or(malformed("a request line without a target"))?;
    let target_start = method_end + 1;
    let target_bytes = memchr(SP, &line[target_start..]).ok_or(malformed("a request line without a version"))?;
    let target_end = target_start + target_bytes;
    let version = match &line[target_end + 1..] {
        b"HTTP/1.1" => Version::H11,
        b"HTTP/1.0" => Version::H10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Fault::UnknownVersion);
        }
        _ => return Err(malformed("a request line that does not end with its version")),
    };
    let method = Method::from_bytes(&line[..method_end]).map_err(|_| malformed("a method that is not a token"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(Fault::MethodRefused);
    }
    let target = target(&head.slice(target_start..target_end), &method)?;

    let fields_start = line.len() + 2;
    let mut seen = Seen::default();
    let mut headers = fields(&head, fields_start, Side::Request, |name, value| seen.note(name, value, Side::Request))?;
    seen.tidy(&mut headers);

    let authority = authority(target.authority, target.scheme, seen.host.as_ref(), version)?;
    let body = match seen.transfer(version, Side::Request)? {
        Transfer::None => BodyPlan::Empty,
        Transfer::Length(bytes) => BodyPlan::Exact { bytes },
        Transfer::Chunked => BodyPlan::Chunked,
        Transfer::Unknown => return Err(Fault::UnknownCoding),
    };
    if version == Version::H11 && seen.expects_other {
        return Err(Fault::UnknownExpectation);
    }
    let upgrade = match version {
        Version::H11 if seen.names_upgrade && seen.upgraded => headers.get(UPGRADE).cloned(),
        _ => None,
    };
    Ok(RequestHead {
        method,
        uri: Uri::from(target.path),
        authority,
        version,
        headers,
        body,
        keep_alive: seen.keeps_alive(version),
        expect_continue: version == Version::H11 && seen.expects_continue && !body.is_empty(),
        upgrade: upgrade.filter(|value| body.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"h2c")),
    })
}

/// Reads what [`HeadScan::response`](super::scan::HeadScan::response) found. Values are slices of `head`.
///
/// # Errors
/// [`Fault::WorkerMalformed`] for whatever is malformed or ambiguous, and for a 101 that nobody asked for.
pub fn parse_response(head: Bytes, asked: Asked) -> Result<ResponseHead, Fault> {
    let malformed = Fault::WorkerMalformed;
    let line = next_line(&head, 0).ok_or(malformed("a head without a line"))?;
    let (version, rest) = match line.split_at_checked(9) {
        Some((b"HTTP/1.1 ", rest)) => (Version::H11, rest),
        Some((b"HTTP/1.0 ", rest)) => (Version::H10, rest),
        _ => return Err(malformed("a status line without a known version")),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(malformed("a status that is not three digits"))?;
    if !reason_is_fine(reason) {
        return Err(malformed("a status line with something odd behind its status"));
    }
    // Above 599 nothing is defined and RFC 9110 §15 has such a status read as a 5xx: it becomes our 502.
    let status = match code {
        [b'1'..=b'5', _, _] => StatusCode::from_bytes(code).ok(),
        _ => None,
    };
    let status = status.ok_or(malformed("an impossible status"))?;

    let mut seen = Seen::default();
    let mut headers =
        fields(&head, line.len() + 2, Side::Response, |name, value| seen.note(name, value, Side::Response))?;
    seen.tidy(&mut headers);

    // RFC 9112 §6.3, in its order. What must not be there (RFC 9112 §6.1, RFC 9110 §8.6) but changes nothing, like
    // the Content-Length: 0 that many servers send with a 204, passes; what could be read in two ways does not.
    let transfer = seen.transfer(version, Side::Response)?;
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let body = match transfer {
        Transfer::Unknown => return Err(malformed("a transfer coding that is not known")),
        Transfer::Chunked if bodiless => return Err(malformed("a body where the status allows none")),
        Transfer::Length(1..) if bodiless => return Err(malformed("a body where the status allows none")),
        _ if bodiless || asked == Asked::Head || status == StatusCode::NOT_MODIFIED => BodyPlan::Empty,
        Transfer::Chunked => BodyPlan::Chunked,
        Transfer::Length(bytes) => BodyPlan::Exact { bytes },
        Transfer::None => BodyPlan::UntilClose,
    };
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if switches {
        if asked != Asked::Connect {
            return Err(malformed("a 101 that nobody asked for"));
        }
        if version == Version::H10 || !seen.upgraded || !seen.names_upgrade {
            return Err(malformed("a 101 that does not say to what"));
        }
    }
    let upgrade = if switches { headers.get(UPGRADE).cloned() } else { None };
    Ok(ResponseHead {
        status,
        headers,
        body,
        keep_alive: seen.keeps_alive(version) && body != BodyPlan::UntilClose,
        upgrade,
    })
}

/// Reads field lines from `at` to the blank line that ends `head`, and shows each to `note`.
pub(super) fn fields(
    head: &Bytes,
    mut at: usize,
    side: Side,
    mut note: impl FnMut(&[u8], &Bytes) -> Result<(), Fault>,
) -> Result<HeaderMap, Fault> {
    /// Fields that the edge adds: room for them now is cheaper than a second table later.
    const FIELDS_ADDED: usize = 7;
    let lines = memchr_iter(LF, head.get(at..).unwrap_or_default()).count();
    let mut map = HeaderMap::try_with_capacity(lines + FIELDS_ADDED).map_err(|_| side.too_large())?;
    loop {
        let line = next_line(head, at).ok_or_else(|| side.malformed("a head without its blank line"))?;
        at += line.len() + 2;
        if line.is_empty() {
            break;
        }
        let colon = memchr(b':', line).ok_or_else(|| side.malformed("a field line without a colon"))?;
        let name = &line[..colon];
        let value = trim_ows(&line[colon + 1..]);
        let value = head.slice_ref(value);
        note(name, &value)?;
        let name = HeaderName::from_bytes(name).map_err(|_| side.malformed("a field name that is not a token"))?;
        let value =
            HeaderValue::from_maybe_shared(value).map_err(|_| side.malformed("a control character in a field"))?;
        map.try_append(name, value).map_err(|_| side.too_large())?;
    }
    if at != head.len() {
        return Err(side.malformed("something behind the head"));
    }
    Ok(map)
}

/// The line that begins at `at`, without its CR LF.
fn next_line(head: &[u8], at: usize) -> Option<&[u8]> {
    let rest = head.get(at..)?;
    rest[..memchr(LF, rest)?].strip_suffix(&[CR])
}

/// `reason` is what follows the three digits. The space is required even without a reason (RFC 9112 §4), but many
/// servers forget it, and nothing can be read into that.
fn reason_is_fine(reason: &[u8]) -> bool {
    match reason {
        [] => true,
        [SP, text @ ..] => text.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t'),
        _ => false,
    }
}

struct Target {
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: PathAndQuery,
}

/// Reads a request target (RFC 9112 §3.2): origin-form, absolute-form, and `*` for OPTIONS.
fn target(text: &Bytes, method: &Method) -> Result<Target, Fault> {
    let malformed = Fault::ClientMalformed;
    // `PathAndQuery` would cut a fragment off in silence and let UTF-8 pass.
    if !text.iter().all(|byte| matches!(byte, 0x21..=0x7E) && *byte != b'#') {
        return Err(malformed("a character that no request target has"));
    }
    let path = |text: Bytes| {
        PathAndQuery::from_maybe_shared(text).map_err(|_| malformed("a character that no request target has"))
    };
    match &text[..] {
        [b'/', ..] => Ok(Target { scheme: None, authority: None, path: path(text.clone())? }),
        b"*" if *method == Method::OPTIONS => {
            Ok(Target { scheme: None, authority: None, path: PathAndQuery::from_static("*") })
        }
        _ => {
            let (scheme, rest) = Scheme::split(text).ok_or(malformed("a request target of an unknown form"))?;
            let authority_bytes = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            let authority_start = text.len() - rest.len();
            let path_start = authority_start + authority_bytes;
            let authority = Authority::parse(&text.slice(authority_start..path_start)).map_err(malformed)?;
            let path = match &rest[authority_bytes..] {
                // RFC 9112 §3.2.4.
                [] if *method == Method::OPTIONS => PathAndQuery::from_static("*"),
                [] => PathAndQuery::from_static("/"),
                [b'/', ..] => path(text.slice(path_start..))?,
                query => path(slash_before(query))?,
            };
            Ok(Target { scheme: Some(scheme), authority: Some(authority), path })
        }
    }
}

/// The path of `http://host?query` is `/`. The one allocation of this file beyond the table of fields: no client that
/// we know sends such a target.
#[cold]
fn slash_before(query: &[u8]) -> Bytes {
    [b"/", query].concat().into()
}

/// RFC 9112 §3.2: one `Host` in HTTP/1.1. Where the target names a host too, RFC 9112 §3.2.2 would believe the
/// target; we refuse them when they disagree, for the worker sees both.
fn authority(
    in_target: Option<Authority>,
    scheme: Option<Scheme>,
    host: Option<&Bytes>,
    version: Version,
) -> Result<Option<Authority>, Fault> {
    let malformed = Fault::ClientMalformed;
    let in_host = match host {
        Some(host) => Some(Authority::parse(host).map_err(malformed)?),
        None if version == Version::H11 => return Err(malformed("a request without Host")),
        None => None,
    };
    match (in_target, scheme, in_host) {
        (Some(target), Some(scheme), Some(host))
            if target.host() != host.host() || target.port_for(scheme) != host.port_for(scheme) =>
        {
            Err(malformed("a request target and a Host that disagree"))
        }
        (Some(target), ..) => Ok(Some(target)),
        (None, _, host) => Ok(host),
    }
}

/// What the framing fields say together.
enum Transfer {
    None,
    Length(u64),
    Chunked,
    /// A transfer coding that is not known here; well-formed.
    Unknown,
}

/// What the fields of one head say about its framing and its connection, gathered while they are read.
#[derive(Default)]
struct Seen {
    host: Option<Bytes>,
    length: Option<u64>,
    /// It was there more than once, or with leading zeros.
    length_is_odd: bool,
    /// `Transfer-Encoding` was there, with `chunked` at its end, or with something that is not known.
    coded: bool,
    chunked: bool,
    coded_otherwise: bool,
    close: bool,
    keep_alive: bool,
    names_upgrade: bool,
    upgraded: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl Seen {
    fn note(&mut self, name: &[u8], value: &Bytes, side: Side) -> Result<(), Fault> {
        // The length first: most fields are none of these.
        match name.len() {
            4 if side == Side::Request && name.eq_ignore_ascii_case(b"host") => self.note_host(value, side)?,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    self.expects_continue = true;
                } else {
                    self.expects_other = true;
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgraded = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.note_connection(value, side)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).filter(|length| *length <= CONTENT_LENGTH_MAX);
                let length = length.ok_or_else(|| side.malformed("an impossible Content-Length"))?;
                let before = self.length.replace(length);
                if before.is_some_and(|before| before != length) {
                    return Err(side.malformed("two values of Content-Length"));
                }
                self.length_is_odd |= before.is_some() || (value.len() > 1 && value.first() == Some(&b'0'));
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_coding(value, side)?,
            _ => {}
        }
        Ok(())
    }

    fn note_host(&mut self, value: &Bytes, side: Side) -> Result<(), Fault> {
        match self.host.replace(value.clone()) {
            Some(_) => Err(side.malformed("more than one Host")),
            None => Ok(()),
        }
    }

    fn note_connection(&mut self, value: &[u8], side: Side) -> Result<(), Fault> {
        for option in list(value).filter(|option| !option.is_empty()) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.names_upgrade = true;
            } else if !is_token(option) {
                return Err(side.malformed("a connection option that is not a token"));
            }
        }
        Ok(())
    }

    /// RFC 9112 §6.1. Stricter than its list rule: an empty element is refused, as parsers disagree about it.
    fn note_coding(&mut self, value: &[u8], side: Side) -> Result<(), Fault> {
        self.coded = true;
        for coding in list(value) {
            let name = coding.split(|byte| *byte == b';').next().map(trim_ows).unwrap_or_default();
            if !is_token(name) {
                return Err(side.malformed("a transfer coding that is not a token"));
            }
            if self.chunked {
                return Err(side.malformed("a transfer coding after chunked"));
            }
            if !name.eq_ignore_ascii_case(b"chunked") {
                self.coded_otherwise = true;
            } else if name.len() != coding.len() {
                return Err(side.malformed("chunked with a parameter"));
            } else {
                self.chunked = true;
            }
        }
        Ok(())
    }

    /// RFC 9112 §6.3, without the cases that depend on the request's method or the response's status.
    fn transfer(&self, version: Version, side: Side) -> Result<Transfer, Fault> {
        match (self.coded, self.length) {
            (false, None) => Ok(Transfer::None),
            (false, Some(bytes)) => Ok(Transfer::Length(bytes)),
            (true, Some(_)) => Err(side.malformed("both Transfer-Encoding and Content-Length")),
            (true, None) if version == Version::H10 => Err(side.malformed("Transfer-Encoding in HTTP/1.0")),
            (true, None) if self.coded_otherwise => Ok(Transfer::Unknown),
            (true, None) => Ok(Transfer::Chunked),
        }
    }

    /// RFC 9110 §8.6: a length that was said twice goes on once, in the one form that nobody reads differently.
    fn tidy(&self, headers: &mut HeaderMap) {
        if let (true, Some(length)) = (self.length_is_odd, self.length) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }

    /// RFC 9112 §9.3.
    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::H11 || self.keep_alive)
    }
}
