//! `name=value&…` as queries and forms carry it (application/x-www-form-urlencoded), and a form in a request's body. What the
//! names mean never enters.

use std::future::poll_fn;

use http::StatusCode;
use percent_encoding::percent_decode;

use crate::exchange::{Answer, Ask, Length, Piece, RequestBody};
use crate::io;
use crate::limits::{FORM_BYTES_MAX, FORM_MS_MAX};

/// Every pair, decoded, in order.
pub fn pairs(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let decoded = |part: &[u8]| {
        let spaced: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_decode(&spaced).collect::<Vec<u8>>()
    };
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (decoded(&pair[..at]), decoded(&pair[at + 1..])),
            None => (decoded(pair), Vec::new()),
        })
        .collect()
}

/// The whole body; `None` where it is longer than `FORM_BYTES_MAX`, later than `FORM_MS_MAX`, or broken.
pub async fn body_of(ask: &Ask, body: &mut impl RequestBody, answer: &mut impl Answer) -> Option<Vec<u8>> {
    if ask.length == Length::None {
        return Some(Vec::new());
    }
    if ask.expects_continue {
        answer.interim(StatusCode::CONTINUE, &http::HeaderMap::new()).ok()?;
        io::timeout(FORM_MS_MAX, poll_fn(|cx| answer.poll_flush(cx))).await?.ok()?;
    }
    let mut all = Vec::new();
    let whole = poll_fn(|cx| {
        loop {
            match std::task::ready!(body.poll_piece(cx)) {
                Ok(Piece::Data { bytes, last }) if all.len() + bytes.len() <= FORM_BYTES_MAX => {
                    all.extend_from_slice(&bytes);
                    if last {
                        return std::task::Poll::Ready(true);
                    }
                }
                Ok(Piece::End { .. }) => return std::task::Poll::Ready(true),
                Ok(Piece::Data { .. }) | Err(_) => return std::task::Poll::Ready(false),
            }
        }
    });
    io::timeout(FORM_MS_MAX, whole).await?.then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_pair_by_pair() {
        let check = |text: &str, want: &[(&str, &str)]| {
            let want: Vec<_> = want.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            assert_eq!(pairs(text.as_bytes()), want, "{text:?}");
        };
        check("", &[]);
        check("a=1&b=2", &[("a", "1"), ("b", "2")]);
        check("a=1&a=2&&a", &[("a", "1"), ("a", "2"), ("a", "")]);
        check("a=x%3a+y%2By&%61b=%", &[("a", "x: y+y"), ("ab", "%")]);
        check("a==b", &[("a", "=b")]);
    }
}
