#![no_main]
//! A head from one version of HTTP into the other and back: whatever is taken arrives as it was sent, over links of both kinds
//! and to clients of every version. The first byte says which way.

use libfuzzer_sys::fuzz_target;
use ptth::translation::{request_from_h1, request_from_h2, response_from_h1};
use ptth::wire::Asked;

fuzz_target!(|input: &[u8]| {
    let [way, bytes @ ..] = input else { return };
    let _ = match way % 6 {
        0 => request_from_h1(bytes),
        1 => request_from_h2(bytes, true),
        2 => request_from_h2(bytes, false),
        3 => response_from_h1(bytes, Asked::Other),
        4 => response_from_h1(bytes, Asked::Head),
        _ => response_from_h1(bytes, Asked::Connect),
    };
});
