//! The `Prefer` field (RFC 7240), as far as an edge needs it: how long its client is willing to wait. Other preferences are
//! the worker's.

use http::{HeaderMap, HeaderName};

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// `wait=N` in seconds. Of several the first counts (RFC 7240 §2); one that is no number, or has none, is as if it were not there.
#[must_use]
pub fn preferred_wait_s(headers: &HeaderMap) -> Option<u32> {
    let fields = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
    // A quoted string may hold a comma, but no word that follows one could be taken for a `wait` that its client did not mean
    // as one: the worst is a bound that the client wrote itself.
    let preferences = fields.flat_map(|field| field.split(','));
    let waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    let value = waits.into_iter().next()?;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(fields: &[&[u8]], want: Option<u32>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(&PREFER, HeaderValue::from_bytes(field).expect("a field"));
        }
        assert_eq!(preferred_wait_s(&headers), want, "{fields:?}");
    }

    #[test]
    fn how_long_a_client_waits_is_the_first_wait_that_it_names() {
        check(&[], None);
        check(&[b"wait=10"], Some(10));
        check(&[b"respond-async, wait=10"], Some(10));
        check(&[b"respond-async", b"handling=lenient; wait=1", b"WAIT = \"20\" ; foo"], Some(20));
        check(&[b"wait=0"], Some(0));
        check(&[b"wait=5, wait=7"], Some(5));
        check(&[b"wait=99999999999"], Some(u32::MAX));
        for garbage in
            ["wait", "wait=", "wait=-1", "wait=+1", "wait=1.5", "wait=ten", "await=3", "wait-for=3", ",,;=,="]
        {
            check(&[garbage.as_bytes()], None);
        }
        check(&[b"wait=\xff"], None);
    }
}
