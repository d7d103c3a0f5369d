//! Hot. `traceparent` and `tracestate` (W3C Trace Context, level 2): whether they may pass. Nothing is added to them: the edge
//! is no participant of a trace.

use http::{HeaderMap, HeaderName};

use super::request_id::never_indexed;
use super::token::trim_ows;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// §3.3.1.1: "There can be a maximum of 32 list-members in a list."
const MEMBERS_MAX: usize = 32;

/// Whether a field is one of the two.
#[must_use]
pub fn is_trace(name: &HeaderName) -> bool {
    match name.as_str().len() {
        11 => *name == TRACEPARENT,
        10 => *name == TRACESTATE,
        _ => false,
    }
}

/// Removes what nobody can read. Without a `traceparent` there is no `tracestate` (§3.3: "If the vendor failed to parse
/// traceparent, it MUST NOT attempt to parse tracestate").
pub fn drop_malformed_trace(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    let is_parent = lines.next().is_some_and(|value| is_traceparent(value.as_bytes())) && lines.next().is_none();
    if !is_parent {
        headers.remove(&TRACEPARENT);
        headers.remove(&TRACESTATE);
        return;
    }
    if let Some(parent) = headers.get_mut(&TRACEPARENT) {
        *parent = never_indexed(parent.clone());
    }
    let lines = headers.get_all(&TRACESTATE).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(trim_ows);
    let mut count = 0;
    let is_state = members.filter(|member| !member.is_empty()).all(|member| {
        count += 1;
        count <= MEMBERS_MAX && is_member(member)
    });
    if !is_state {
        headers.remove(&TRACESTATE);
    }
}

/// §3.2.2: version, trace, parent and flags, in lower-case hex. A later version may have more behind them.
fn is_traceparent(value: &[u8]) -> bool {
    let Some((&[v, w, b'-', ref ids @ ..], more)) = value.split_first_chunk::<55>() else { return false };
    let (trace, parent, flags) = (&ids[..32], &ids[33..49], &ids[50..]);
    let is_some = |id: &[u8]| id.iter().any(|byte| *byte != b'0');
    let is_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_end = match (&[v, w], more) {
        (b"ff", _) => false,
        (b"00", more) => more.is_empty(),
        (_, more) => more.first().is_none_or(|byte| *byte == b'-'),
    };
    is_end
        && is_hex(&[v, w])
        && (ids[32], ids[49]) == (b'-', b'-')
        && [trace, parent, flags].into_iter().all(is_hex)
        && is_some(trace)
        && is_some(parent)
}

/// §3.3.1.3: `key=value`, both at most 256 characters.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', member) else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let is_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_value = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && key.len() <= 256
        && key.iter().all(is_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(is_value)
}
