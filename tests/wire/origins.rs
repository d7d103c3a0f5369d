//! Origins, and the patterns that cover them.

use ptth::wire::{Origin, OriginPattern};

/// `want` is the origin's serialization, or nothing for a refusal.
#[track_caller]
fn check(text: &str, want: &str) {
    match Origin::parse(text) {
        Ok(origin) => {
            assert_eq!(origin.to_string(), want, "{text:?}");
            assert_eq!(Origin::parse(want), Ok(origin), "what is written is read");
        }
        Err(what) => assert_eq!("", want, "{text:?}: {what}"),
    }
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    check("https://app.example.com", "https://app.example.com");
    check("HTTPS://App.Example.COM", "https://app.example.com");
    check("https://app.example.com:443", "https://app.example.com");
    check("http://app.example.com:80", "http://app.example.com");
    check("http://app.example.com:443", "http://app.example.com:443");
    check("https://app.example.com:8443", "https://app.example.com:8443");
    check("http://127.0.0.1:3000", "http://127.0.0.1:3000");
    check("http://[::1]:3000", "http://[::1]:3000");
    check("http://[2001:DB8::1]", "http://[2001:db8::1]");
    check("http://localhost", "http://localhost");
    check("http://a_b", "http://a_b");
    for wrong in [
        "",
        "null",
        "*",
        "app.example.com",
        "//app.example.com",
        "app.example.com:443",
        "https:app.example.com",
        "https:/app.example.com",
        "https://",
        "https:///",
        "https://app.example.com/",
        "https://app.example.com/a",
        "https://app.example.com?a",
        "https://app.example.com#a",
        "https://user@app.example.com",
        "https://user:pass@app.example.com",
        "https://@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:0443",
        "https://app.example.com:65536",
        "https://app.example.com:x",
        "https://app.example.com:+1",
        "https://app.example.com:1:1",
        "https://:443",
        "https://*",
        "https://*.example.com",
        "https://app..example.com",
        "https://.example.com",
        "https://app.example.com,https://b",
        "https://app example",
        " https://app.example.com",
        "https://app.example.com ",
        "https://\u{e9}.example",
        "https://a%2eb",
        "https://[::1",
        "https://[::1]x",
        "https://::1",
        "ftp://app.example.com",
        "ws://app.example.com",
        "file:///",
    ] {
        check(wrong, "");
    }
}

#[track_caller]
fn check_pattern(pattern: &str, covered: &[&str], not: &[&str]) {
    let parsed = OriginPattern::parse(pattern).unwrap_or_else(|what| panic!("{pattern:?}: {what}"));
    assert_eq!(OriginPattern::parse(&parsed.to_string()), Ok(parsed.clone()), "what is written is read");
    for (origins, want) in [(covered, true), (not, false)] {
        for origin in origins {
            assert_eq!(parsed.covers(&Origin::parse(origin).unwrap()), want, "{pattern:?} and {origin:?}");
        }
    }
}

#[test]
fn a_pattern_covers_what_it_says() {
    check_pattern(
        "https://app.example.com",
        &["https://app.example.com", "https://app.example.com:443", "HTTPS://APP.example.com"],
        &[
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://b.example.com",
            "https://x.app.example.com",
        ],
    );
    check_pattern("http://a:8080", &["http://a:8080"], &["http://a", "https://a:8080"]);
    check_pattern(
        "App.example.com",
        &["https://app.example.com", "http://app.example.com:1"],
        &["https://x.app.example.com", "https://example.com", "https://xapp.example.com"],
    );
    check_pattern("[::1]", &["http://[::1]:3000"], &["http://127.0.0.1"]);
    check_pattern(
        "*.Example.com",
        &["https://app.example.com", "http://a.b.example.com:81"],
        &["https://example.com", "https://notexample.com", "https://example.com.evil", "https://a.example.org"],
    );
    check_pattern("*", &["https://app.example.com", "http://[::1]"], &[]);
}

#[test]
fn a_pattern_that_says_nothing_is_refused() {
    for wrong in [
        "",
        "*.",
        "**",
        "*example.com",
        "a.*.example.com",
        "*.*.example.com",
        "app.example.com:443",
        "app.example.com/",
        "https://*.example.com",
        "https://*",
        "*.[::1]",
        "https://app.example.com/",
        "null://",
        "a b",
        "u@a",
        "a,b",
    ] {
        assert!(OriginPattern::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_more_exact_pattern_stands_higher() {
    let exactness = |text: &str| OriginPattern::parse(text).unwrap().exactness();
    let long = format!("*.{}.com", "a".repeat(250));
    let falling = ["https://a.b.c", "a.b.c", &long, "*.b.c", "*.c", "*"];
    for pair in falling.windows(2) {
        assert!(exactness(pair[0]) > exactness(pair[1]), "{pair:?}");
    }
    assert!(OriginPattern::parse("*.example.com").unwrap().matches("https", "a.example.com", 443));
}

#[test]
fn an_authority_leaves_the_default_port_out() {}
