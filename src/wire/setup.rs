//! How a worker's connection is turned: the setup request and its answer (draft-kazuho-ptth-ptth-01, and its
//! predecessor draft-kazuho-httpbis-reverse-tunnel-00). Who may serve what is decided elsewhere.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::about::About;
use super::head::{Asked, RequestHead, Version, parse_response};
use super::origin::Origin;
use super::token::{is_token, list};
use crate::fault::Fault;

static ALPN: HeaderName = HeaderName::from_static("alpn");
static SELECTED_ALPN: HeaderName = HeaderName::from_static("selected-alpn");

const WELL_KNOWN: &str = "/.well-known/ptth/";
const WELL_KNOWN_BARE: &str = "/.well-known/ptth";
/// The upgrade token of devices from before the drafts.
const OLD_TOKEN: &str = "PTTH/1.0";

/// `unreserved` of RFC 3986 stays as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which upgrade token the worker used, and so in which terms it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Ptth,
    Reverse,
}

impl Dialect {
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Dialect::Ptth => "ptth",
            Dialect::Reverse => "reverse",
        }
    }

    fn of(protocol: &[u8]) -> Option<Dialect> {
        [Dialect::Ptth, Dialect::Reverse]
            .into_iter()
            .find(|dialect| protocol.eq_ignore_ascii_case(dialect.token().as_bytes()))
    }
}

/// What a worker offers to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// At least one; each once.
    Origins(Vec<Origin>),
    Pool(String),
}

/// For a log line: the pool, or the first origin and how many more.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Pool(name) => write!(f, "pool {name}"),
            Scope::Origins(origins) => match &origins[..] {
                [] => Ok(()),
                [one] => one.fmt(f),
                [first, more @ ..] => write!(f, "{first} and {} more", more.len()),
            },
        }
    }
}

/// The credential of a setup. Its secret is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    Basic { id: String, secret: Vec<u8> },
    Bearer(Vec<u8>),
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Presented::Basic { id, .. } => f.debug_struct("Basic").field("id", id).finish_non_exhaustive(),
            Presented::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

/// What is spoken on the turned channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelVersion {
    H2,
    H1,
}

impl ChannelVersion {
    /// The ALPN id as the `ALPN` field writes it (RFC 7639).
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            ChannelVersion::H2 => "h2",
            ChannelVersion::H1 => "http%2F1.1",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub dialect: Dialect,
    /// `None`: the target is not this draft's, as in its version -00, and the credential alone says what is served.
    pub scope: Option<Scope>,
    /// `None` also for an authentication scheme that is not known here.
    pub presented: Option<Presented>,
    /// Those that are known here, in the worker's order, each once. Empty: none in common.
    pub versions: Vec<ChannelVersion>,
}

/// A setup from before the drafts: `POST /<id>` with `Upgrade: PTTH/1.0`, and then HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldSetup {
    pub id: String,
    /// As in [`Setup`].
    pub presented: Option<Presented>,
}

/// What an edge answered to a setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupAnswer {
    /// The bytes that follow are this version, roles turned.
    Accepted(ChannelVersion),
    /// `reason` is the status line's, printable ASCII, for a log line.
    Refused { status: u16, retry_after_s: Option<u32>, reason: String },
}

/// Whether a request is a setup at all: it has a setup's upgrade token, or a setup's target.
#[must_use]
pub fn is_setup(head: &RequestHead) -> bool {
    is_setup_target(head.uri.path()) || dialect(&head.headers).is_some()
}

/// Whether a path is a setup's, a whole one or one that lacks its list of origins. Whatever asks for it may have a worker's
/// credential.
#[must_use]
pub fn is_setup_target(path: &str) -> bool {
    path.strip_prefix(WELL_KNOWN_BARE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads a setup.
///
/// # Errors
/// In this order: not GET (405); not HTTP/1.1, or without `Connection: upgrade` or the token in `Upgrade` (426); a
/// body, a target that names nothing, no or a malformed `ALPN`, a malformed `Authorization` (400).
pub fn parse_setup(head: &RequestHead) -> Result<Setup, Fault> {
    let malformed = Fault::SetupMalformed;
    if head.method != Method::GET {
        return Err(Fault::SetupMethod);
    }
    let dialect = match dialect(&head.headers) {
        Some(dialect) if upgrades(&head.headers) && head.version == Version::H11 => dialect,
        _ => return Err(Fault::SetupUpgradeRequired),
    };
    if !head.body.is_empty() {
        return Err(malformed("a setup with a body"));
    }
    setup(dialect, head.uri.path(), head.uri.query(), &head.headers)
}

/// Reads a setup over HTTP/2: an extended CONNECT (RFC 8441) whose `:protocol` is `ptth`. `path` is its `:path`, with a query.
///
/// # Errors
/// 400, in this order: a body with a length, a target that names nothing, no or a malformed `alpn`, a malformed
/// `authorization`.
pub fn parse_stream_setup(headers: &HeaderMap, path: &str) -> Result<Setup, Fault> {
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Fault::SetupMalformed("a setup with a length"));
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    setup(Dialect::Ptth, path, query, headers)
}

/// Whether `:protocol` makes an extended CONNECT a setup.
#[must_use]
pub fn is_stream_setup(protocol: &str) -> bool {
    Dialect::of(protocol.as_bytes()) == Some(Dialect::Ptth)
}

fn setup(dialect: Dialect, path: &str, query: Option<&str>, headers: &HeaderMap) -> Result<Setup, Fault> {
    let malformed = Fault::SetupMalformed;
    let scope = match path.strip_prefix(WELL_KNOWN) {
        Some(_) if query.is_some() => return Err(malformed("a setup with a query")),
        Some(target) => Some(scope(target).map_err(malformed)?),
        None => None,
    };
    let versions = versions(headers, &ALPN).map_err(malformed)?;
    let presented = presented(headers).map_err(malformed)?;
    Ok(Setup { dialect, scope, presented, versions })
}

/// Whether a request is a setup from before the drafts. Requests for something else may look so, too: whoever has no use for
/// such setups leaves them what they are.
#[must_use]
pub fn is_old_setup(head: &RequestHead) -> bool {
    let mut protocols = head.headers.get_all(UPGRADE).iter().flat_map(|value| list(value.as_bytes()));
    head.method == Method::POST && protocols.any(|protocol| protocol.eq_ignore_ascii_case(OLD_TOKEN.as_bytes()))
}

/// Reads a setup from before the drafts.
///
/// # Errors
/// In this order: not HTTP/1.1, or without `Connection: upgrade` (426); a body, a target that is not one segment, a malformed
/// `Authorization` (400).
pub fn parse_old_setup(head: &RequestHead) -> Result<OldSetup, Fault> {
    let malformed = Fault::SetupMalformed;
    if head.version != Version::H11 || !upgrades(&head.headers) {
        return Err(Fault::SetupUpgradeRequired);
    }
    if !head.body.is_empty() {
        return Err(malformed("a setup with a body"));
    }
    let id = head.uri.path().strip_prefix('/').filter(|_| head.uri.query().is_none());
    let id = decoded(id.ok_or(malformed("a setup's target is a slash and an id"))?).map_err(malformed)?;
    if id.is_empty() || id.contains('/') || id.contains(char::is_control) {
        return Err(malformed("a setup's target is a slash and an id"));
    }
    Ok(OldSetup { id, presented: presented(&head.headers).map_err(malformed)? })
}

/// Appends the 101 that accepts a setup from before the drafts.
pub fn put_old_setup_accept(out: &mut Vec<u8>) {
    put(out, &["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ", OLD_TOKEN, "\r\n\r\n"]);
}

/// Appends the 101 that accepts a setup. The channel's first byte follows it.
pub fn put_setup_accept(out: &mut Vec<u8>, dialect: Dialect, version: ChannelVersion) {
    let field = match dialect {
        Dialect::Ptth => "ALPN",
        Dialect::Reverse => "Selected-ALPN",
    };
    put(out, &["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ", dialect.token(), "\r\n"]);
    put(out, &[field, ": ", version.id(), "\r\n\r\n"]);
}

/// The target of a setup for `scope`.
#[must_use]
pub fn setup_target(scope: &Scope) -> String {
    let mut target = String::from(WELL_KNOWN);
    match scope {
        Scope::Origins(origins) => {
            for (index, origin) in origins.iter().enumerate() {
                if index > 0 {
                    target.push(',');
                }
                target.extend(utf8_percent_encode(&origin.to_string(), ENCODED));
            }
            target.push('/');
        }
        Scope::Pool(name) => {
            target.push_str("pool/");
            target.extend(utf8_percent_encode(name, ENCODED));
        }
    }
    target
}

/// The `Authorization` of an id and its secret (RFC 7617).
#[must_use]
pub fn basic_authorization(id: &str, secret: &str) -> String {
    let mut pair = String::with_capacity(id.len() + 1 + secret.len());
    pair.push_str(id);
    pair.push(':');
    pair.push_str(secret);
    let mut value = String::from("Basic ");
    STANDARD.encode_string(pair, &mut value);
    value
}

/// Appends a worker's setup request. `authorization` is the field's whole value, or `None` where a client certificate
/// says who the worker is; what it says `about` itself are fields of our own.
pub fn put_setup_request(
    out: &mut Vec<u8>,
    edge_host: &str,
    scope: &Scope,
    authorization: Option<&str>,
    about: &About,
    versions: &[ChannelVersion],
    dialect: Dialect,
) {
    put(out, &["GET ", &setup_target(scope), " HTTP/1.1\r\nHost: ", edge_host, "\r\n"]);
    put(out, &["Connection: upgrade\r\nUpgrade: ", dialect.token(), "\r\n"]);
    if let Some(authorization) = authorization {
        put(out, &["Authorization: ", authorization, "\r\n"]);
    }
    about.put(out);
    for (index, version) in versions.iter().enumerate() {
        put(out, &[if index == 0 { "ALPN: " } else { ", " }, version.id()]);
    }
    put(out, &["\r\n\r\n"]);
}

/// Reads what an edge answered.
///
/// # Errors
/// [`Fault::WorkerMalformed`] for a head that is none, [`Fault::SetupMalformed`] for a 101 that does not say which known
/// version it chose, and for other 1xx.
pub fn parse_setup_answer(head: Bytes) -> Result<SetupAnswer, Fault> {
    let malformed = Fault::SetupMalformed;
    let reason = reason(&head);
    let answer = parse_response(head, Asked::Connect)?;
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        let field = match dialect(&answer.headers) {
            Some(Dialect::Reverse) if answer.headers.contains_key(&SELECTED_ALPN) => &SELECTED_ALPN,
            Some(_) => &ALPN,
            None => return Err(malformed("the edge switched to another protocol")),
        };
        return match versions(&answer.headers, field).map_err(malformed)?[..] {
            [version] => Ok(SetupAnswer::Accepted(version)),
            _ => Err(malformed("the edge did not choose one known version")),
        };
    }
    if answer.status.is_informational() {
        return Err(malformed("the edge answered a setup with an interim response"));
    }
    let retry_after_s = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(SetupAnswer::Refused { status: answer.status.as_u16(), retry_after_s, reason })
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn dialect(headers: &HeaderMap) -> Option<Dialect> {
    headers.get_all(UPGRADE).iter().flat_map(|value| list(value.as_bytes())).find_map(Dialect::of)
}

fn upgrades(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(|value| list(value.as_bytes()));
    options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// What stands behind the well-known prefix.
fn scope(target: &str) -> Result<Scope, &'static str> {
    if let Some(name) = target.strip_prefix("pool/") {
        let name = decoded(name.strip_suffix('/').unwrap_or(name))?;
        if name.is_empty() || name.contains('/') || name.contains(char::is_control) {
            return Err("a setup for a pool without a name");
        }
        return Ok(Scope::Pool(name));
    }
    let list = target.strip_suffix('/').ok_or("a setup's list of origins ends with a slash")?;
    if list.contains('/') {
        return Err("a setup's list of origins is one path segment, percent-encoded");
    }
    // The comma is not part of any origin, so it means the same encoded and not.
    let mut origins = Vec::new();
    for text in decoded(list)?.split(',') {
        let origin = Origin::parse(text)?;
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    Ok(Scope::Origins(origins))
}

/// `text` without its percent-encoding; what is left of it then is malformed.
fn decoded(text: &str) -> Result<String, &'static str> {
    let bytes: Vec<u8> = decoded_bytes(text.as_bytes()).ok_or("a malformed percent-encoding")?;
    String::from_utf8(bytes).map_err(|_| "a percent-encoding that is not UTF-8")
}

fn decoded_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let well_formed = text
        .split(|byte| *byte == b'%')
        .skip(1)
        .all(|after| matches!(after, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()));
    well_formed.then(|| percent_decode(text).collect())
}

/// Reads an `ALPN` field (RFC 7639): percent-encoded ids.
fn versions(headers: &HeaderMap, field: &HeaderName) -> Result<Vec<ChannelVersion>, &'static str> {
    let mut versions = Vec::new();
    let mut ids = 0;
    for id in headers.get_all(field).iter().flat_map(|value| list(value.as_bytes())).filter(|id| !id.is_empty()) {
        if !is_token(id) {
            return Err("an ALPN id that is not a token");
        }
        let version = match &decoded_bytes(id).ok_or("a malformed percent-encoding in ALPN")?[..] {
            b"h2" => Some(ChannelVersion::H2),
            b"http/1.1" => Some(ChannelVersion::H1),
            _ => None,
        };
        versions.extend(version.filter(|version| !versions.contains(version)));
        ids += 1;
    }
    if ids == 0 { Err("no ALPN") } else { Ok(versions) }
}

/// Reads `Authorization` (RFC 9110 §11.6.2).
fn presented(headers: &HeaderMap) -> Result<Option<Presented>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if more.is_some() {
        return Err("more than one Authorization");
    }
    let value = value.as_bytes();
    let scheme_bytes = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(scheme_bytes);
    let credentials = rest.trim_ascii_start();
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(credentials).map_err(|_| "a Basic credential that is not base64")?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or("a Basic credential without a colon")?;
        let id = std::str::from_utf8(&pair[..colon]).map_err(|_| "a Basic credential whose id is not UTF-8")?;
        return Ok(Some(Presented::Basic { id: id.to_owned(), secret: pair[colon + 1..].to_vec() }));
    }
    if scheme.eq_ignore_ascii_case(b"bearer") {
        // RFC 6750 §2.1.
        let token = credentials.trim_ascii_end();
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if token.is_empty() || !token.iter().all(fine) {
            return Err("a Bearer credential that is not a token");
        }
        return Ok(Some(Presented::Bearer(token.to_vec())));
    }
    Ok(None)
}

/// The reason phrase of a status line, as far as it is short and printable.
fn reason(head: &[u8]) -> String {
    const REASON_BYTES_MAX: usize = 100;
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let reason = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    reason
        .iter()
        .take(REASON_BYTES_MAX)
        .filter(|byte| matches!(byte, 0x20..=0x7E))
        .map(|byte| char::from(*byte))
        .collect()
}
