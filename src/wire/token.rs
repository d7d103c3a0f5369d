//! Hot. The character classes and lists that HTTP fields are made of (RFC 9110 §5.6). No field has a meaning here.

use http::HeaderName;

pub const SP: u8 = b' ';
pub const HTAB: u8 = b'\t';
pub const CR: u8 = b'\r';
pub const LF: u8 = b'\n';

/// `tchar` of RFC 9110 §5.6.2, indexed by byte.
pub const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

#[inline]
#[must_use]
pub fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

/// Whether `text` is a `token`: at least one `tchar` and nothing else.
#[inline]
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_tchar(*byte))
}

/// Whether a name that came by HTTP/2 is one over HTTP/1.1, too. The crates for both let a quotation mark pass (http 1.5.0), which
/// is no `tchar`.
#[inline]
#[must_use]
pub fn is_field_name(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_none()
}

/// `text` without the SP and HTAB around it (`OWS`, RFC 9110 §5.6.3).
#[inline]
#[must_use]
pub fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [SP | HTAB, rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., SP | HTAB] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list without the whitespace around them. Empty elements are given as they
/// are: RFC 9110 §5.6.1.2 lets them pass in most fields, and a caller that is stricter has to see them. Not for
/// fields with quoted strings.
#[inline]
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_ows)
}

/// The number that `text` is: decimal digits only, no sign, no space, no overflow.
#[inline]
#[must_use]
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    Some(number)
}
