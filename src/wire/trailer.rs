//! Trailer sections: reading one, and which fields may stand in it. Bodies and heads never enter.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::head::fields;
use super::scan::{HeadScan, Side};
use super::token::is_field_name;
use crate::fault::Fault;
use crate::limits::TRAILER_BYTES_MAX;

/// A trailer section that is being received. It is copied, so that whoever reads the body may consume its bytes
/// as they come: at most `TRAILER_BYTES_MAX` and one byte, and only for bodies that have trailers.
#[derive(Debug)]
pub(super) struct TrailerSection {
    side: Side,
    scan: HeadScan,
    bytes: Vec<u8>,
}

impl TrailerSection {
    pub(super) fn new(side: Side) -> Self {
        Self { side, scan: HeadScan::trailers(side), bytes: Vec::new() }
    }

    /// Takes what `input` holds of the section: how many bytes, and the fields if that was all of it.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<HeaderMap>), Fault> {
        let before = self.bytes.len();
        let bytes = input.len().min(TRAILER_BYTES_MAX + 1 - before);
        self.bytes.extend_from_slice(&input[..bytes]);
        let Some(range) = self.scan.scan(&self.bytes)? else {
            return Ok((bytes, None));
        };
        self.bytes.truncate(range.end);
        let section = Bytes::from(std::mem::take(&mut self.bytes));
        let all = fields(&section, 0, self.side, |_, _| Ok(()))?;
        let mut kept = HeaderMap::with_capacity(all.keys_len());
        for (name, value) in all.iter().filter(|(name, _)| may_be_trailer(name)) {
            kept.append(name.clone(), value.clone());
        }
        Ok((range.end - before, Some(kept)))
    }
}

/// Whether a field may be sent after the body. Not if it frames, routes, authenticates, controls the request or the
/// response, or describes the content (RFC 9110 §6.5.1), and not if the edge writes it.
#[must_use]
pub fn may_be_trailer(name: &HeaderName) -> bool {
    let is_name = is_field_name(name);
    let name = name.as_str();
    is_name && !NEVER_TRAILERS.contains(&name) && !name.starts_with("if-") && !name.starts_with("x-forwarded-")
}

const NEVER_TRAILERS: [&str; 47] = [
    // framing and the connection
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // routing, and what the edge writes
    "forwarded",
    "host",
    "priority",
    "via",
    "x-real-ip",
    "x-request-id",
    // who it is
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
    // what to do with the request
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "expect",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "sec-websocket-accept",
    "sec-websocket-key",
    // what to do with the response
    "age",
    "alt-svc",
    "date",
    "expires",
    "last-modified",
    "location",
    "retry-after",
    "strict-transport-security",
    "vary",
    "warning",
    // what the content is
    "content-encoding",
    "content-language",
    "content-range",
    "content-type",
];
