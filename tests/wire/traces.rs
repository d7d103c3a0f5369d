//! Names of requests and of traces: which pass, and what a new one is.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use ptth::limits::REQUEST_ID_BYTES_MAX;
use ptth::wire::trace::drop_malformed_trace;
use ptth::wire::{RequestIds, kept_request_id, request_id};

/// A map of `name: value` lines.
fn map(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), value);
    }
    headers
}

#[test]
fn a_name_is_kept_if_no_log_line_can_break_on_it() {
    let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
    for id in ["0", "7f1d6a2e-4b3c-4e5f-8a9b-0c1d2e3f4a5b", "A.b_c~d:e+f/g=h@i", &longest] {
        let headers = map(&[&format!("x-request-id: {id}")]);
        assert_eq!(kept_request_id(&headers).as_ref().map(HeaderValue::as_bytes), Some(id.as_bytes()), "{id}");
        assert_eq!(request_id(&headers), id);
    }
    let too_long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
    for id in [
        "", "a b", "a,b", "a;b", "a\"b", "a'b", "a\\b", "a\tb", "a|b", "{a}", "<a>", "a%0ab", "a&b", "(a)", "$a",
        "`a`", "\u{e9}", &too_long,
    ] {
        assert_eq!(kept_request_id(&map(&[&format!("x-request-id: {id}")])), None, "{id}");
    }
    assert_eq!(kept_request_id(&map(&["x-request-id: a", "x-request-id: a"])), None, "two of them");
    assert_eq!(kept_request_id(&map(&["x-request: a"])), None);
    assert_eq!(request_id(&map(&[])), "");
}

#[test]
fn a_new_name_is_32_hex_digits_and_nobody_elses() {
    let mut seen = HashSet::new();
    // Keys that differ in one bit, and the same one in both halves.
    for keys in [[0, 0], [1, 0], [0, 1], [u64::MAX, u64::MAX], [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]] {
        let mut ids = RequestIds::new(keys);
        let mut ones = [0_u32; 128];
        for _ in 0..4_000 {
            let id = ids.next_id();
            assert_eq!(id.len(), 32);
            assert!(id.as_bytes().iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id:?}");
            let bits = u128::from_str_radix(id.to_str().unwrap(), 16).unwrap();
            ones.iter_mut().enumerate().for_each(|(bit, ones)| *ones += (bits >> bit & 1) as u32);
            assert!(seen.insert(bits), "{id:?} of {keys:?} came before");
        }
        // Each bit is set in about half of them: 2,000 of 4,000, and six deviations of 32 to either side.
        assert!(ones.iter().all(|ones| (1_810..2_190).contains(ones)), "{keys:?}: {ones:?}");
    }
    let mut again = RequestIds::new([7, 8]);
    let mut same = RequestIds::new([7, 8]);
    assert!((0..100).all(|_| again.next_id() == same.next_id()), "the keys decide");
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Whether `traceparent` and `tracestate` stay, and that nothing else is touched.
#[track_caller]
fn check(lines: &[&str], want: (bool, bool)) {
    let mut headers = map(lines);
    headers.insert("x-other", HeaderValue::from_static("stays"));
    let before = headers.clone();
    for _ in 0..2 {
        drop_malformed_trace(&mut headers);
        let stays = (headers.contains_key("traceparent"), headers.contains_key("tracestate"));
        assert_eq!(stays, want, "{lines:?}");
        for (name, stays) in [("traceparent", stays.0), ("tracestate", stays.1), ("x-other", true)] {
            let lines = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert!(!stays || lines(&headers) == lines(&before), "{lines:?}", lines = lines(&headers));
        }
    }
}

#[test]
fn a_traceparent_passes_if_it_can_be_read() {
    let good = format!("00-{TRACE}-{PARENT}-01");
    for (value, want) in [
        (good.clone(), true),
        (format!("00-{TRACE}-{PARENT}-00"), true),
        (format!("00-{TRACE}-{PARENT}-ff"), true),
        // later versions may say more
        (format!("01-{TRACE}-{PARENT}-01"), true),
        (format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"), true),
        (format!("cc-{TRACE}-{PARENT}-01-"), true),
        (format!("cc-{TRACE}-{PARENT}-01.x"), false),
        (format!("{good}-x"), false),
        (format!("{good}-"), false),
        (format!("{good}0"), false),
        (format!("ff-{TRACE}-{PARENT}-01"), false),
        (format!("0-{TRACE}-{PARENT}-01"), false),
        (format!("0g-{TRACE}-{PARENT}-01"), false),
        (format!("CC-{TRACE}-{PARENT}-01"), false),
        (good.to_uppercase(), false),
        (format!("00-{}-{PARENT}-01", "0".repeat(32)), false),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
        (format!("00-{TRACE}-{PARENT}-0"), false),
        (format!("00-{TRACE}-{PARENT}-0x"), false),
        (format!("00-{TRACE}-{PARENT}"), false),
        (format!("00_{TRACE}_{PARENT}_01"), false),
        (format!("00-{TRACE}{PARENT}--01"), false),
        (format!("{good}, {good}"), false),
        (String::new(), false),
    ] {
        check(&[&format!("traceparent: {value}")], (want, false));
        check(&[&format!("traceparent: {value}"), "tracestate: a=b"], (want, want));
    }
    let line = format!("traceparent: {good}");
    check(&[&line, &line], (false, false));
    check(&["tracestate: a=b"], (false, false));
    check(&[], (false, false));
    for cut in 0..good.len() {
        check(&[&format!("traceparent: {}", &good[..cut]), "tracestate: a=b"], (false, false));
    }
}

#[test]
fn a_tracestate_passes_if_it_can_be_read() {
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    for (value, want) in [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned(), true),
        ("a=b , c=d".to_owned(), true),
        ("a=b,,c=d,".to_owned(), true),
        (String::new(), true),
        ("fw529a3039@dt=FfAAAA;x:y \"z\"".to_owned(), true),
        ("0a_-*/@=!".to_owned(), true),
        (members(32), true),
        (members(33), false),
        (format!("{}={}", "k".repeat(256), "v".repeat(256)), true),
        (format!("{}=v", "k".repeat(257)), false),
        (format!("k={}", "v".repeat(257)), false),
        ("a".to_owned(), false),
        ("=b".to_owned(), false),
        ("a=".to_owned(), false),
        ("A=b".to_owned(), false),
        ("a=b=c".to_owned(), false),
        ("a =b".to_owned(), false),
        ("_a=b".to_owned(), false),
        ("a=b\u{e9}".to_owned(), false),
        ("a=b,c".to_owned(), false),
    ] {
        check(&[&parent, &format!("tracestate: {value}")], (true, want));
    }
    check(&[&parent, "tracestate: a=b", "tracestate: c=d"], (true, true));
    check(&[&parent, "tracestate: a=b", "tracestate: c"], (true, false));
    check(&[&parent, &format!("tracestate: {}", members(20)), &format!("tracestate: {}", members(13))], (true, false));
}
