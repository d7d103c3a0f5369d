//! The two ends of a WebSocket handshake that an edge has to compute itself (RFC 6455 §4.2), for clients in HTTP/1.1
//! before links in HTTP/2 (RFC 8441). No frame enters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use sha1::{Digest as _, Sha1};

use super::token::list;

/// Whether an `Upgrade` field offers WebSocket.
#[must_use]
pub fn is_websocket(upgrade: &HeaderValue) -> bool {
    list(upgrade.as_bytes()).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Whether `key` is a `Sec-WebSocket-Key`: 16 bytes in base64.
#[must_use]
pub fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The `Sec-WebSocket-Accept` that answers `key`.
#[must_use]
pub fn accept_of(key: &[u8]) -> HeaderValue {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::try_from(STANDARD.encode(hash.finalize())).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455_is_reproduced() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        for key in ["", "dGhl", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25jZR==", "?"] {
            assert!(!is_key(key.as_bytes()), "{key:?}");
        }
    }

    #[test]
    fn the_token_is_compared_without_case() {
        assert!(is_websocket(&HeaderValue::from_static("WebSocket")));
        assert!(is_websocket(&HeaderValue::from_static("foo, websocket")));
        assert!(!is_websocket(&HeaderValue::from_static("websocket2")));
    }
}
