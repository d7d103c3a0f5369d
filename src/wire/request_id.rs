//! Hot. Names of requests, for log lines here and there (`X-Request-Id`): which of a proxy's may be kept, and new ones. An
//! identifier, not a secret: whoever has seen one can compute others.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::REQUEST_ID_BYTES_MAX;

/// `X-Request-Id`.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const ID_BYTES: usize = 32;
/// They share one allocation, which lives as long as the last of their requests: 512 bytes.
const MADE_AT_ONCE: usize = 16;

/// Makes identifiers, each 128 bits as 32 hex digits. One for each core; no two of one are the same, those of two differ
/// as long as their keys were random.
#[derive(Debug)]
pub struct RequestIds {
    keys: [u64; 2],
    made: u64,
    /// Those that nobody has yet.
    ready: Bytes,
}

impl RequestIds {
    /// `keys` are random.
    #[must_use]
    pub fn new(keys: [u64; 2]) -> RequestIds {
        RequestIds { keys, made: 0, ready: Bytes::new() }
    }

    /// The next one. Two allocations for every sixteen of them, and no system call.
    pub fn next_id(&mut self) -> HeaderValue {
        if self.ready.is_empty() {
            self.make();
        }
        let id = self.ready.split_to(ID_BYTES);
        never_indexed(HeaderValue::from_maybe_shared(id).expect("hex digits are visible ASCII"))
    }

    #[cold]
    fn make(&mut self) {
        let mut block = Vec::with_capacity(MADE_AT_ONCE * ID_BYTES);
        for _ in 0..MADE_AT_ONCE {
            for half in self.halves() {
                let digit = |shift: u32| b"0123456789abcdef"[((half >> shift) & 15) as usize];
                block.extend((0..16).rev().map(|index| digit(4 * index)));
            }
            self.made += 1;
        }
        self.ready = Bytes::from(block);
    }

    /// A counter in a random disguise: each half runs through all 2^64 values before one comes again, because a step that is
    /// odd visits all, and the mix can be turned round. The steps are the first digits of the golden ratio and of the
    /// square root of 2.
    fn halves(&self) -> [u64; 2] {
        let [first, second] = self.keys;
        [
            mix(first.wrapping_add(self.made.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
            mix(second.wrapping_add(self.made.wrapping_mul(0x6A09_E667_F3BC_C909))),
        ]
    }
}

/// Spreads every bit over all others: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A proxy's own identifier that can go into every log line as it is: one, of letters, digits and `-._~:+/=@`, at most
/// `REQUEST_ID_BYTES_MAX`.
#[must_use]
pub fn kept_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(&X_REQUEST_ID).iter();
    let id = lines.next().filter(|_| lines.next().is_none())?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(byte);
    let is_kept = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_plain);
    is_kept.then(|| never_indexed(id.clone()))
}

/// A value that no other request has, kept out of HPACK's table (RFC 7541 §7.1.3): there it would push out what all have in
/// common, and an encoder would compare each with those of the last fifty.
pub(super) fn never_indexed(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// For log lines: what a request is called. Empty before it has a name.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> &str {
    headers.get(&X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}
