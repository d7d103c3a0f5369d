//! Heads of requests and responses.

use bytes::Bytes;
use ptth::fault::Fault;
use ptth::limits::{EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, LINE_BYTES_MAX};
use ptth::wire::{
    Asked, BodyPlan, HeadScan, RequestHead, ResponseHead, Version, is_h2_preface, parse_request, parse_response,
};

/// What a buffer is: not yet a head, or a head's verdict in words.
#[derive(Debug, PartialEq)]
enum Fed {
    NeedMore,
    Done(Result<String, Fault>),
}

/// One kind of head: how it is scanned, and how it is read and put in words.
type Kind<'a> = (fn() -> HeadScan, &'a dyn Fn(Bytes) -> Result<String, Fault>);

fn feed(input: &[u8], (scan, parse): Kind) -> Fed {
    match scan().scan(input) {
        Ok(None) => Fed::NeedMore,
        Ok(Some(range)) => Fed::Done(parse(Bytes::copy_from_slice(&input[range]))),
        Err(fault) => Fed::Done(Err(fault)),
    }
}

/// The same with one scan that sees the buffer grow by `step` bytes at a time.
fn feed_slowly(input: &[u8], step: usize, (scan, parse): Kind) -> Fed {
    let mut scan = scan();
    let mut end = 0;
    loop {
        match scan.scan(&input[..end]) {
            Ok(None) if end == input.len() => return Fed::NeedMore,
            Ok(None) => end = (end + step).min(input.len()),
            Ok(Some(range)) => return Fed::Done(parse(Bytes::copy_from_slice(&input[range]))),
            Err(fault) => {
                assert_eq!(scan.scan(&input[..end]), Err(fault), "a fault stays");
                return Fed::Done(Err(fault));
            }
        }
    }
}

/// `want` is a status for a fault, else the words.
#[track_caller]
fn check(input: &[u8], want: &str, kind: Kind) {
    let shown = String::from_utf8_lossy(&input[..input.len().min(300)]);
    let whole = feed(input, kind);
    let words = match &whole {
        Fed::NeedMore => "more".to_owned(),
        Fed::Done(Ok(words)) => words.clone(),
        Fed::Done(Err(fault)) => fault.status().to_string(),
    };
    assert_eq!(words, want, "whole {shown:?} gave {whole:?}");
    // a long input is cut at each byte by the growing scan below; from its beginning only here and there
    let ends = |cut: &usize| input.len() < 1024 || cut.is_multiple_of(97) || input.len() - cut < 64;
    for cut in (0..input.len()).filter(ends) {
        let early = feed(&input[..cut], kind);
        assert!(early == Fed::NeedMore || early == whole, "cut {cut} of {shown:?}: {early:?}, not {whole:?}");
    }
    for step in [1, 7, 4096] {
        assert_eq!(feed_slowly(input, step, kind), whole, "{shown:?} by {step}");
    }
}

fn plan(body: BodyPlan) -> String {
    match body {
        BodyPlan::Empty => String::new(),
        BodyPlan::Exact { bytes } => format!(" exact={bytes}"),
        BodyPlan::Chunked => " chunked".to_owned(),
        BodyPlan::UntilClose => " until-close".to_owned(),
    }
}

fn request_words(head: &RequestHead) -> String {
    let mut words = format!("{} {}", head.method, head.uri);
    words += &head.authority.as_ref().map_or(" -".to_owned(), |authority| format!(" {authority}"));
    words += if head.version == Version::H10 { " 1.0" } else { "" };
    words += &plan(head.body);
    words += if head.keep_alive { "" } else { " close" };
    words += if head.expect_continue { " expect" } else { "" };
    if let Some(upgrade) = &head.upgrade {
        words += &format!(" upgrade={}", upgrade.to_str().unwrap());
    }
    words
}

fn response_words(head: &ResponseHead) -> String {
    let mut words = head.status.as_str().to_owned();
    words += &plan(head.body);
    words += if head.keep_alive { "" } else { " close" };
    if let Some(upgrade) = &head.upgrade {
        words += &format!(" upgrade={}", upgrade.to_str().unwrap());
    }
    words
}

#[track_caller]
fn check_request(input: &[u8], want: &str) {
    check(input, want, (HeadScan::request, &|head| parse_request(head).map(|head| request_words(&head))));
}

/// A fault of a worker's head is always a `WorkerMalformed`, so `502` here.
#[track_caller]
fn check_response(input: &[u8], asked: Asked, want: &str) {
    let parse = |head| parse_response(head, asked).map(|head| response_words(&head));
    if let Fed::Done(Err(fault)) = feed(input, (HeadScan::response, &parse)) {
        assert!(matches!(fault, Fault::WorkerMalformed(_)), "{fault:?}");
    }
    check(input, want, (HeadScan::response, &parse));
}

const REQUESTS: &[(&[u8], &str)] = &[
    // ---- lines and their ends ----
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    (b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", "GET / a"),
    (b"GET / HTTP/1.1\r\nhOST: \t a \t \r\n\r\n", "GET / a"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", "GET / a"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", "GET / a"),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    (b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"", "more"),
    (b"\r\n", "more"),
    (b"\r\n\r", "more"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n", "more"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r", "more"),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", "400"),
    (b"GET / HTTP/1.1\nHost: a\n\n", "400"),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\rX\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", "400"),
    (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"), // a TLS ClientHello on a plain port
    // ---- the request line ----
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", "400"),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / X HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\r\n\r\n", "400"),
    (b"GET\r\n\r\n", "400"),
    (b"GET \r\n\r\n", "400"),
    (b"GET / \r\nHost: a\r\n\r\n", "400"),
    (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    // ---- versions ----
    (b"GET / HTTP/1.0\r\n\r\n", "GET / - 1.0 close"),
    (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / a 1.0 close"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "505"),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
    (b"GET / HTTP/9.9\r\n\r\n", "505"),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / Http/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/11\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP /1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/2\r\nHost: a\r\n\r\n", "400"),
    (b"GET / ICY/1.1\r\nHost: a\r\n\r\n", "400"),
    // ---- methods ----
    (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / a"),
    (b"PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE / a"),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / a"),
    (b"M-SEARCH!# / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH!# / a"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "405"),
    (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    // ---- targets ----
    (b"GET /a/b;c=d?e=f&g=%20#h HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /a/b;c=d?e=f&g=%20 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a/b;c=d?e=f&g=%20 a"),
    (b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? a"),
    (b"GET // HTTP/1.1\r\nHost: a\r\n\r\n", "GET // a"),
    (b"GET //evil/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET //evil/ a"),
    (b"GET /../%2e%2E/%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET /../%2e%2E/%zz a"),
    (b"GET /[a]|^{b}?\\{c} HTTP/1.1\r\nHost: a\r\n\r\n", "GET /[a]|^{b}?\\{c} a"),
    (b"GET /?a=/b?c:@d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?a=/b?c:@d a"),
    (b"GET # HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /# HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET \\ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /\x0b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a"),
    (b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / a"),
    (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"OPTIONS */ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a"),
    (b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / a"),
    (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    (b"GET HTTP://A/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    (b"GET https://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b?c a"),
    (b"GET http://a?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?c a"),
    (b"GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a:80"),
    (b"GET http://a/ HTTP/1.1\r\nHost: A:80\r\n\r\n", "GET / a"),
    (b"GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET / a"),
    (b"GET http://a/ HTTP/1.0\r\n\r\n", "GET / a 1.0 close"),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", "400"),
    (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", "400"),
    (b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n", "400"),
    (b"GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n", "400"),
    (b"GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", "400"),
    (b"GET http://a:8080/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://a:/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    (b"GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    // ---- names ----
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\"Y: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\xef\xbb\xbfX: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX/Y: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX!#$%&'*+-.^_`|~0: b\r\n\r\n", "GET / a"),
    // ---- more than one Host, or none ----
    (b"GET / HTTP/1.1\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n", "GET / a"),
    // ---- HTTP/1.0 ----
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / - 1.0"),
    (b"GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n", "GET / - 1.0 close"),
    (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "POST / - 1.0 exact=3 close"),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", "400"),
    (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", "POST / - 1.0 exact=3 close"),
    (b"GET / HTTP/1.0\r\nExpect: nonsense\r\n\r\n", "GET / - 1.0 close"),
    (b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / - 1.0 close"),
];

#[test]
fn requests_are_read_as_the_rfc_says_or_refused() {
    for (input, want) in REQUESTS {
        check_request(input, want);
    }
}

/// The value of `Host`, and what it is.
const HOSTS: &[(&[u8], &str)] = &[
    (b"example.com", "example.com"),
    (b"EXAMPLE.com:8080", "example.com:8080"),
    (b"example.com.", "example.com."),
    (b"a_b-c.d", "a_b-c.d"),
    (b"127.0.0.1:1", "127.0.0.1:1"),
    (b"[::1]", "[::1]"),
    (b"[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
    (b"", "400"),
    (b" ", "400"),
    (b":80", "400"),
    (b"a:", "400"),
    (b"a:0", "400"),
    (b"a:080", "400"),
    (b"a:65536", "400"),
    (b"a:99999999999999999999", "400"),
    (b"a:+80", "400"),
    (b"a: 80", "400"),
    (b"a :80", "400"),
    (b"a:80:80", "400"),
    (b"a:80a", "400"),
    (b"a b", "400"),
    (b"a,b", "400"),
    (b"a, a", "400"),
    (b"u@a", "400"),
    (b"u:p@a", "400"),
    (b"a/b", "400"),
    (b"a?b", "400"),
    (b"a#b", "400"),
    (b"a\\b", "400"),
    (b"http://a", "400"),
    (b"a..b", "400"),
    (b".a", "400"),
    (b".", "400"),
    (b"a%20b", "400"),
    (b"*", "400"),
    (b"*.a", "400"),
    (b"(a)", "400"),
    (b"a'b", "400"),
    (b"\xc3\xa9", "400"),
    (b"a\x01b", "400"),
    (b"a\tb", "400"),
    (b"::1", "400"),
    (b"[::1", "400"),
    (b"[::1]80", "400"),
    (b"[::1]:", "400"),
    (b"[::g]", "400"),
    (b"[fe80::1%25eth0]", "400"),
    (b"[v1.a]", "400"),
    (b"[]", "400"),
    (b"[127.0.0.1]", "400"),
];

#[test]
fn a_host_is_a_name_or_an_address_and_a_possible_port() {
    for (host, want) in HOSTS {
        let want = if *want == "400" { "400".to_owned() } else { format!("GET / {want}") };
        check_request(&[b"GET / HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat(), &want);
    }
}

/// Fields of a `POST / HTTP/1.1` to `a`, and what follows `POST / a`.
const FIELDS: &[(&[u8], &str)] = &[
    // ---- Content-Length ----
    (b"Content-Length: 0", " exact=0"),
    (b"Content-Length: 5", " exact=5"),
    (b"Content-Length:5", " exact=5"),
    (b"Content-Length: 005", " exact=5"),
    (b"Content-Length: \t5\t ", " exact=5"),
    (b"Content-Length: 9223372036854775807", " exact=9223372036854775807"),
    (b"Content-Length: 9223372036854775808", "400"),
    (b"Content-Length: 10000000000000000000", "400"),
    (b"Content-Length: 18446744073709551615", "400"),
    (b"Content-Length: 18446744073709551616", "400"),
    (b"Content-Length: 99999999999999999999999", "400"),
    (b"Content-Length: 5\r\nContent-Length: 5", " exact=5"),
    (b"Content-Length: 5\r\nContent-Length: 05", " exact=5"),
    (b"Content-Length: 5\r\nContent-Length: 6", "400"),
    (b"Content-Length: 5\r\nX: y\r\ncontent-length: 6", "400"),
    (b"Content-Length: 5, 5", "400"),
    (b"Content-Length: 5,6", "400"),
    (b"Content-Length: 5,", "400"),
    (b"Content-Length: ,5", "400"),
    (b"Content-Length:", "400"),
    (b"Content-Length: ", "400"),
    (b"Content-Length: \r\nContent-Length: 5", "400"),
    (b"Content-Length: +5", "400"),
    (b"Content-Length: -5", "400"),
    (b"Content-Length: -0", "400"),
    (b"Content-Length: 5 5", "400"),
    (b"Content-Length: 5 ;", "400"),
    (b"Content-Length: 0x5", "400"),
    (b"Content-Length: 5.0", "400"),
    (b"Content-Length: 1e3", "400"),
    (b"Content-Length: 1_000", "400"),
    (b"Content-Length: \"5\"", "400"),
    (b"Content-Length: five", "400"),
    (b"Content-Length: 5\x0b", "400"),
    (b"Content-Length: \xd9\xa5", "400"),
    (b"Content_Length: 5", ""),
    (b"Content-Length : 5", "400"),
    (b"X-Content-Length: x", ""),
    // ---- Transfer-Encoding ----
    (b"Transfer-Encoding: chunked", " chunked"),
    (b"transfer-encoding:CHUNKED", " chunked"),
    (b"Transfer-Encoding: \t chunked \t", " chunked"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked", "400"),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding: identity", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding: gzip", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding:", "400"),
    (b"Transfer-Encoding: chunked, chunked", "400"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400"),
    (b"Transfer-Encoding: chunked, gzip", "400"),
    (b"Transfer-Encoding: chunked, identity", "400"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "400"),
    (b"Transfer-Encoding: gzip, chunked, gzip", "400"),
    (b"Transfer-Encoding: gzip, chunked", "501"),
    (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "501"),
    (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "501"),
    (b"Transfer-Encoding: identity, chunked", "501"),
    (b"Transfer-Encoding: gzip", "501"),
    (b"Transfer-Encoding: identity", "501"),
    (b"Transfer-Encoding: xchunked", "501"),
    (b"Transfer-Encoding: x;q=1, chunked", "501"),
    (b"Transfer-Encoding: chunked-but-not", "501"),
    (b"Transfer-Encoding: 'chunked'", "501"),
    (b"Transfer-Encoding: chunked;q=1", "400"),
    (b"Transfer-Encoding: chunked;", "400"),
    (b"Transfer-Encoding: chunked ;", "400"),
    (b"Transfer-Encoding:", "400"),
    (b"Transfer-Encoding: ,", "400"),
    (b"Transfer-Encoding: , chunked", "400"),
    (b"Transfer-Encoding: chunked,", "400"),
    (b"Transfer-Encoding: chunked, ", "400"),
    (b"Transfer-Encoding: \"chunked\"", "400"),
    (b"Transfer-Encoding: chunked chunked", "400"),
    (b"Transfer-Encoding: chun ked", "400"),
    (b"Transfer-Encoding: \x0bchunked", "400"),
    (b"Transfer-Encoding: chunked\x0c", "400"),
    (b"Transfer-Encoding: chunked\xa0", "400"),
    (b"Transfer-Encoding: \xef\xbc\xa3hunked", "400"),
    (b"Transfer-Encoding : chunked", "400"),
    (b"Transfer-Encoding\r\n: chunked", "400"),
    (b"Transfer-Encoding:\r\n chunked", "400"),
    (b"Transfer_Encoding: chunked", ""),
    // ---- Expect ----
    (b"Expect: 100-continue\r\nContent-Length: 5", " exact=5 expect"),
    (b"Expect: 100-Continue\r\nTransfer-Encoding: chunked", " chunked expect"),
    (b"Expect: 100-continue", ""),
    (b"Expect: 100-continue\r\nContent-Length: 0", " exact=0"),
    (b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5", " exact=5 expect"),
    (b"Expect: 200-ok", "417"),
    (b"Expect:", "417"),
    (b"Expect: 100-continue, x", "417"),
    (b"Expect: 100-continue\r\nExpect: x", "417"),
    // ---- Connection and Upgrade ----
    (b"Connection: close", " close"),
    (b"Connection: CLOSE", " close"),
    (b"Connection: keep-alive", ""),
    (b"Connection: keep-alive\r\nConnection: close", " close"),
    (b"Connection: x, close,", " close"),
    (b"Connection:", ""),
    (b"Connection: , ,", ""),
    (b"Connection: not-close", ""),
    (b"Connection: clo se", "400"),
    (b"Connection: \"close\"", "400"),
    (b"Connection: close;x", "400"),
    (b"Proxy-Connection: close", ""),
    (b"Connection: Upgrade\r\nUpgrade: websocket", " upgrade=websocket"),
    (b"Connection: keep-alive, upgrade\r\nUpgrade: websocket", " upgrade=websocket"),
    (b"Upgrade: a\r\nUpgrade: b\r\nConnection: upgrade", " upgrade=a"),
    (b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0", " exact=0 upgrade=websocket"),
    (b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5", " exact=5"),
    (b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked", " chunked"),
    (b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA", ""),
    (b"Connection: upgrade", ""),
    (b"Upgrade: websocket", ""),
    (b"Connection: close\r\nUpgrade: websocket", " close"),
    // ---- values ----
    (b"X: a\tb \x80\xff~", ""),
    (b"X:", ""),
    (b"X: \t ", ""),
    (b"X: a\x01b", "400"),
    (b"X: a\x7fb", "400"),
    (b"X: a\x1bb", "400"),
    (b"X: a\x0bb", "400"),
    (b"X: :::", ""),
    (b"X: a\r\nX: b\r\nx: c", ""),
];

#[test]
fn fields_frame_a_request_in_one_way_or_not_at_all() {
    for (fields, want) in FIELDS {
        let want = if want.len() == 3 && *want > "4" { (*want).to_owned() } else { format!("POST / a{want}") };
        check_request(&[b"POST / HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n\r\n"].concat(), &want);
    }
}

/// `n` times `byte`.
fn run(byte: u8, n: usize) -> Vec<u8> {
    vec![byte; n]
}

#[test]
fn bounds_of_a_request_are_kept_to_the_byte() {
    let line_extra = "GET / HTTP/1.1".len();
    let path = |bytes: usize| [b"GET /", &run(b'a', bytes)[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let longest = String::from_utf8(run(b'a', LINE_BYTES_MAX - line_extra)).unwrap();
    check_request(&path(LINE_BYTES_MAX - line_extra), &format!("GET /{longest} a"));
    check_request(&path(LINE_BYTES_MAX - line_extra + 1), "414");
    check_request(&path(2 * HEAD_BYTES_MAX), "414");

    let field = |bytes: usize| [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &run(b'a', bytes)[..], b"\r\n\r\n"].concat();
    check_request(&field(LINE_BYTES_MAX - 3), "GET / a");
    check_request(&field(LINE_BYTES_MAX - 2), "431");
    check_request(&field(2 * HEAD_BYTES_MAX), "431");

    let name = |bytes: usize| [b"GET / HTTP/1.1\r\nHost: a\r\n", &run(b'x', bytes)[..], b":\r\n\r\n"].concat();
    check_request(&name(LINE_BYTES_MAX - 1), "GET / a");
    check_request(&name(LINE_BYTES_MAX), "431");
    check_request(&name(LINE_BYTES_MAX + 1), "431");
    check_request(&name(70_000), "431");

    let start = b"GET / HTTP/1.1\r\nHost: a\r\n";
    let fields = |count: usize| [&start[..], &b"X: y\r\n".repeat(count), b"\r\n"].concat();
    check_request(&fields(HEAD_FIELDS_MAX - 1), "GET / a");
    check_request(&fields(HEAD_FIELDS_MAX), "431");

    let head = |bytes: usize| {
        let value = run(b'a', 7_000);
        let last = bytes - start.len() - 2 * (3 + 7_000 + 2) - (3 + 2) - 2;
        [&start[..], b"X: ", &value, b"\r\nY: ", &value, b"\r\nZ: ", &run(b'b', last), b"\r\n\r\n"].concat()
    };
    assert_eq!(head(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
    check_request(&head(HEAD_BYTES_MAX), "GET / a");
    check_request(&head(HEAD_BYTES_MAX + 1), "431");
    check_request(&head(HEAD_BYTES_MAX + 2), "431");
    check_request(&head(HEAD_BYTES_MAX + 3), "431");

    let empty = |lines: usize| [&b"\r\n".repeat(lines)[..], start, b"\r\n"].concat();
    check_request(&empty(EMPTY_LINES_MAX), "GET / a");
    check_request(&empty(EMPTY_LINES_MAX + 1), "400");
    check_request(&[b"\r\n", &head(HEAD_BYTES_MAX)[..]].concat(), "GET / a"); // skipped lines are no part of it
}

#[test]
fn a_scan_that_was_reset_finds_the_next_head() {
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut scan = HeadScan::request();
    assert!(!scan.has_begun());
    let first = scan.scan(input).unwrap().unwrap();
    assert_eq!(scan.scan(input), Ok(Some(first.clone())));
    scan.reset();
    let second = scan.scan(&input[first.end..]).unwrap().unwrap();
    assert_eq!(second.start, 2);
    assert!(input[first.end..][second].starts_with(b"GET /2 "));
}

#[test]
fn an_empty_line_is_not_the_beginning_of_a_head() {
    let mut scan = HeadScan::request();
    assert_eq!(scan.scan(b"\r\n"), Ok(None));
    assert!(!scan.has_begun());
    assert_eq!(scan.scan(b"\r\nG"), Ok(None));
    assert!(scan.has_begun());
}

#[test]
fn values_are_slices_of_the_head() {
    let head = Bytes::from_static(b"GET /path HTTP/1.1\r\nHost: a.example\r\nX: 0123456789\r\n\r\n");
    let within = |bytes: &[u8]| head.as_ptr_range().contains(&bytes.as_ptr());
    let request = parse_request(head.clone()).unwrap();
    assert!(within(request.headers["x"].as_bytes()));
    assert!(within(request.uri.path().as_bytes()));
    assert!(within(request.authority.as_ref().unwrap().host().as_bytes()));
}

#[test]
fn bytes_that_no_scan_has_passed_do_not_panic() {
    for head in [&b""[..], b"\r\n", b"\n", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\nHost: a\n\n"] {
        assert!(parse_request(Bytes::from_static(head)).is_err());
        assert!(parse_response(Bytes::from_static(head), Asked::Other).is_err());
    }
    let many = [b"GET / HTTP/1.1\r\nHost: a\r\n", &b"x:y\r\n".repeat(40_000)[..], b"\r\n"].concat();
    let _ = parse_request(Bytes::from(many));
    assert!(parse_response(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\nmore"), Asked::Other).is_err());
}

use Asked::{Connect, Head, Other};

const RESPONSES: &[(&[u8], Asked, &str)] = &[
    // ---- status lines ----
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Other, "200 exact=5"),
    (b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", Other, "200 exact=5"),
    (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", Other, "200 exact=5"),
    (b"HTTP/1.1 200 N\xc3\xa9 \t ok\r\nContent-Length: 5\r\n\r\n", Other, "200 exact=5"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Other, "200 exact=5 close"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Other, "200 exact=5"),
    (b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n", Other, "599 exact=0"),
    (b"HTTP/1.1 299 X\r\n\r\n", Other, "299 until-close close"),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 099 X\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 000 X\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 20 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 2x0 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 +20 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1  200 OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200OK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 \r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200\tOK\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 O\x01K\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 O\x7fK\r\n\r\n", Other, "502"),
    (b"HTTP/2.0 200 OK\r\n\r\n", Other, "502"),
    (b"HTTP/2 200\r\n\r\n", Other, "502"),
    (b"http/1.1 200 OK\r\n\r\n", Other, "502"),
    (b"ICY 200 OK\r\n\r\n", Other, "502"),
    (b"200 OK\r\n\r\n", Other, "502"),
    (b"<html>\r\n\r\n", Other, "502"),
    (b" HTTP/1.1 200 OK\r\n\r\n", Other, "502"),
    // ---- lines ----
    (b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n", Other, "502"),
    (b"HTTP/1.1 200 OK\n\nbody", Other, "502"),
    (b"HTTP/1.1 200 OK\rX: y\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX: a\x00\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX: a\x08\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nX: a", Other, "more"),
    (b"HTTP/1.1 200 OK\r\n\r", Other, "more"),
    // ---- where the body ends (RFC 9112 6.3) ----
    (b"HTTP/1.1 200 OK\r\n\r\n", Other, "200 until-close close"),
    (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", Other, "200 until-close close"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "200 chunked"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n", Other, "200 chunked close"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Other, "200 exact=5"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", Other, "502"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.0 200 OK\r\n\r\n", Other, "200 until-close close"),
    (b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", Other, "205 exact=0"),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", Connect, "404 exact=9"),
    // ---- HEAD ----
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Head, "200"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Head, "200"),
    (b"HTTP/1.1 200 OK\r\n\r\n", Head, "200"),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", Head, "200 close"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Head, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", Head, "502"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Head, "502"),
    // ---- 1xx, 204, 304 ----
    (b"HTTP/1.1 100 Continue\r\n\r\n", Other, "100"),
    (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Other, "103"),
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", Other, "100"),
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", Other, "204"),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Other, "204"),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", Other, "304"),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Other, "304"),
    (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Other, "304"),
    // ---- 101 ----
    (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Connect, "101 upgrade=websocket"),
    (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Head, "502"),
    (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n", Connect, "502"),
    (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", Connect, "502"),
    (b"HTTP/1.0 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Connect, "502"),
    (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n\r\n", Connect, "502"),
    (b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nContent-Length: 0\r\n\r\n", Other, "200 exact=0"),
    // ---- connections ----
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: a b\r\n\r\n", Other, "502"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nHost: x y\r\nHost: z\r\nExpect: q\r\n\r\n", Other, "200 exact=0"),
];

#[test]
fn responses_are_read_as_the_rfc_says_or_refused() {
    for (input, asked, want) in RESPONSES {
        check_response(input, *asked, want);
    }
}

#[test]
fn bounds_of_a_response_are_the_workers_fault() {
    let start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    let fields = |count: usize| [&start[..], &b"X: y\r\n".repeat(count), b"\r\n"].concat();
    check_response(&fields(HEAD_FIELDS_MAX - 1), Other, "200 exact=0");
    check_response(&fields(HEAD_FIELDS_MAX), Other, "502");
    check_response(&[&start[..], b"X: ", &run(b'a', LINE_BYTES_MAX), b"\r\n\r\n"].concat(), Other, "502");
    check_response(&[&b"HTTP/1.1 200 "[..], &run(b'a', LINE_BYTES_MAX), b"\r\n\r\n"].concat(), Other, "502");
    let big = [&b"X: "[..], &run(b'a', 8_000), b"\r\n"].concat().repeat(3);
    check_response(&[&start[..], &big, b"\r\n"].concat(), Other, "502");
}

#[test]
fn the_tables_are_long_enough() {
    assert!(REQUESTS.len() + HOSTS.len() + FIELDS.len() + RESPONSES.len() > 300);
}

#[test]
fn the_preface_of_http2_is_known_at_its_last_byte_and_anything_else_at_its_first_wrong_one() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for cut in 0..preface.len() {
        assert_eq!(is_h2_preface(&preface[..cut]), None, "cut {cut}");
        let mut wrong = preface[..=cut].to_vec();
        wrong[cut] ^= 1;
        assert_eq!(is_h2_preface(&wrong), Some(false), "wrong at {cut}");
    }
    assert_eq!(is_h2_preface(preface), Some(true));
    assert_eq!(is_h2_preface(&[&preface[..], b"\0\0\0\x04"].concat()), Some(true), "frames behind it");
    assert_eq!(is_h2_preface(b"GET / HTTP/1.1\r\n"), Some(false));
}
