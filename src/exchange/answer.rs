//! The answers that the edge makes up itself: status, `Proxy-Status` (RFC 9209), one sentence of text. Nothing that a
//! worker or a client sent ever enters.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Length, Reply};
use crate::fault::Fault;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An answer with its body.
pub struct FaultAnswer {
    pub reply: Reply,
    pub body: Bytes,
}

/// What whoever asked sees of `fault`. The caller frames it and decides whether the connection stays. `retry_after_s`: where
/// somebody knows better than the fault itself.
#[must_use]
pub fn fault_answer(fault: Fault, retry_after_s: Option<u16>) -> FaultAnswer {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Bytes::from(format!("{} {}: {}\n", status.as_u16(), status.canonical_reason().unwrap_or(""), fault));
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(error) = fault.proxy_error() {
        let value = HeaderValue::from_str(&format!("ptth; error={error}"));
        headers.insert(PROXY_STATUS, value.expect("a token from our own table"));
    }
    if let Some(seconds) = fault.retry_after_s().map(|own| retry_after_s.unwrap_or(own)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault == Fault::SetupUnauthorized {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ptth\""));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ptth\""));
    }
    if matches!(fault, Fault::MethodRefused | Fault::SetupMethod) {
        let allow = match fault {
            Fault::SetupMethod => "GET",
            _ => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        };
        headers.insert(http::header::ALLOW, HeaderValue::from_static(allow));
    }
    if fault == Fault::SetupUpgradeRequired {
        headers.insert(http::header::UPGRADE, HeaderValue::from_static("ptth"));
    }
    let length = Length::Exact(body.len() as u64);
    FaultAnswer { reply: Reply { status, headers, length }, body }
}
