//! Malformed and ambiguous requests, over real sockets, in front of a worker that records: each whole, cut at every byte,
//! and byte by byte. Behind each stands a valid request that must never be answered, nor reach anybody.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::time::Duration;

use common::h2_worker::H2Worker;
use common::peer::{Framing, start};
use common::{CORES, HOST, Peer, TestEdge, assert_own, edge, get, setting};

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: app.example\r\n\r\n";

/// What is sent, and the status that answers it.
struct Case {
    bytes: Vec<u8>,
    status: u16,
}

fn case(bytes: impl AsRef<[u8]>, status: u16) -> Case {
    Case { bytes: bytes.as_ref().to_vec(), status }
}

impl Case {
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(200)]).escape_debug().to_string()
    }
}

/// Request lines in front of a good Host.
const LINES: &[(&[u8], u16)] = &[
    (b"GET  / HTTP/1.1", 400),
    (b"GET /  HTTP/1.1", 400),
    (b"GET\t/ HTTP/1.1", 400),
    (b"GET /\tHTTP/1.1", 400),
    (b"GET / HTTP/1.1 ", 400),
    (b"GET / HTTP/1.1\t", 400),
    (b" GET / HTTP/1.1", 400),
    (b"\tGET / HTTP/1.1", 400),
    (b"GET /a b HTTP/1.1", 400),
    (b"GET / X HTTP/1.1", 400),
    (b"GET /", 400),
    (b"GET", 400),
    (b"GET HTTP/1.1", 400),
    (b"GET  HTTP/1.1", 400),
    (b"HTTP/1.1 200 OK", 400),
    (b"GET / http/1.1", 400),
    (b"GET / HTTP/1.10", 400),
    (b"GET / HTTP/11", 400),
    (b"GET / HTTP/1.", 400),
    (b"GET / HTTP/01.1", 400),
    (b"GET / HTTP/1.1,HTTP/1.1", 400),
    (b"GET / HTTP/+1.1", 400),
    (b"GET / ICY/1.1", 400),
    (b"GET / HTTP/2", 400),
    (b"GET / HTTP/0.9", 505),
    (b"GET / HTTP/1.2", 505),
    (b"GET / HTTP/2.0", 505),
    (b"GET / HTTP/3.0", 505),
    (b"CONNECT app.example:80 HTTP/1.1", 405),
    (b"CONNECT / HTTP/1.1", 405),
    (b"TRACE / HTTP/1.1", 405),
    (b"TRACE /.well-known/ptth/x/ HTTP/1.1", 405),
    (b"G(T / HTTP/1.1", 400),
    (b"GET: / HTTP/1.1", 400),
    (b"\"GET\" / HTTP/1.1", 400),
    (b"G\x80T / HTTP/1.1", 400),
    (b"G\x00T / HTTP/1.1", 400),
    (b"GET /\x00 HTTP/1.1", 400),
    (b"GET /\x0b HTTP/1.1", 400),
    (b"GET /\x7f HTTP/1.1", 400),
    (b"GET /\xc3\xa9 HTTP/1.1", 400),
    (b"GET /a#b HTTP/1.1", 400),
    (b"GET # HTTP/1.1", 400),
    (b"GET ?a HTTP/1.1", 400),
    (b"GET a HTTP/1.1", 400),
    (b"GET * HTTP/1.1", 400),
    (b"POST * HTTP/1.1", 400),
    (b"OPTIONS ** HTTP/1.1", 400),
    (b"OPTIONS */ HTTP/1.1", 400),
    (b"GET \\ HTTP/1.1", 400),
    (b"GET http://other.example/ HTTP/1.1", 400),
    (b"GET http://app.example:81/ HTTP/1.1", 400),
    (b"GET http://app.example@other.example/ HTTP/1.1", 400),
    (b"GET http://u:p@app.example/ HTTP/1.1", 400),
    (b"GET http:///a HTTP/1.1", 400),
    (b"GET http:/a HTTP/1.1", 400),
    (b"GET http://app.example:/ HTTP/1.1", 400),
    (b"GET http://app.example:99999/ HTTP/1.1", 400),
    (b"GET http://app.example#/ HTTP/1.1", 400),
    (b"GET ftp://app.example/ HTTP/1.1", 400),
    (b"GET app.example:80 HTTP/1.1", 400),
    (b"GET / HTTP/1.1\r", 400),
    (b"GET /\r HTTP/1.1", 400),
    (b"GET / HTTP/1.1\nX: y", 400),
    (b"GET / HTTP/1.1\n", 400),
    (b"GET /\nHTTP/1.1", 400),
    (b"GET / HTTP/1.1\r\n\tX: y", 400),
    (b"GET / HTTP/1.1\r\n X: y", 400),
    (b"GET / HTTP/1.1\r\n : y", 400),
    (b"\r\n\r\n\r\nGET / HTTP/1.1", 400),
    (b"\nGET / HTTP/1.1", 400),
    (b"\r GET / HTTP/1.1", 400),
    (b"\xef\xbb\xbfGET / HTTP/1.1", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"\x00", 400),
    (b"{}", 400),
];

/// Fields of a POST that has a good Host before them.
const FIELDS: &[(&[u8], u16)] = &[
    // two framings, or one that can be read in two ways
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
    (b"Content-Length: 5\r\nTransfer-Encoding: identity", 400),
    (b"Content-Length: 5\r\nTransfer-Encoding: gzip", 400),
    (b"Content-Length: 5\r\nContent-Length: 6", 400),
    (b"Content-Length: 6\r\nX: y\r\ncontent-length: 5", 400),
    (b"Content-Length: 0\r\nContent-Length: 44", 400),
    (b"Content-Length: 5, 5", 400),
    (b"Content-Length: 5,6", 400),
    (b"Content-Length: 5,", 400),
    (b"Content-Length:", 400),
    (b"Content-Length: \r\nContent-Length: 5", 400),
    (b"Content-Length: +5", 400),
    (b"Content-Length: -5", 400),
    (b"Content-Length: -0", 400),
    (b"Content-Length: 5 5", 400),
    (b"Content-Length: 0x5", 400),
    (b"Content-Length: 5.0", 400),
    (b"Content-Length: 1e1", 400),
    (b"Content-Length: 1_0", 400),
    (b"Content-Length: \"5\"", 400),
    (b"Content-Length: five", 400),
    (b"Content-Length: 5\x0b", 400),
    (b"Content-Length: 5\x00", 400),
    (b"Content-Length: \xd9\xa5", 400),
    (b"Content-Length: 18446744073709551616", 400),
    (b"Content-Length: 99999999999999999999999999", 400),
    (b"Content-Length : 5", 400),
    (b"Content-Length\t: 5", 400),
    (b"Content-Length\x0b: 5", 400),
    (b"Content-Length\x00: 5", 400),
    (b"Content-Length: 5\r\n 5", 400),
    (b"Content-Length:\r\n 5", 400),
    (b"Transfer-Encoding: chunked, chunked", 400),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    (b"Transfer-Encoding: chunked, gzip", 400),
    (b"Transfer-Encoding: chunked, identity", 400),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
    (b"Transfer-Encoding: chunked;q=1", 400),
    (b"Transfer-Encoding: chunked;", 400),
    (b"Transfer-Encoding: chunked,", 400),
    (b"Transfer-Encoding: ,chunked", 400),
    (b"Transfer-Encoding:", 400),
    (b"Transfer-Encoding: \"chunked\"", 400),
    (b"Transfer-Encoding: chun ked", 400),
    (b"Transfer-Encoding: \x0bchunked", 400),
    (b"Transfer-Encoding: chunked\x00", 400),
    (b"Transfer-Encoding: chunked\x0b", 400),
    (b"Transfer-Encoding: chunke\xe4", 400),
    (b"Transfer-Encoding : chunked", 400),
    (b"Transfer-Encoding\t: chunked", 400),
    (b" Transfer-Encoding: chunked", 400),
    (b"Transfer-Encoding:\r\n chunked", 400),
    (b"Transfer-Encoding\r\n : chunked", 400),
    (b"X: y\nTransfer-Encoding: chunked", 400),
    (b"X: y\rTransfer-Encoding: chunked", 400),
    (b"Transfer-Encoding: chunked\n", 400),
    (b"Transfer-Encoding: identity", 501),
    (b"Transfer-Encoding: gzip", 501),
    (b"Transfer-Encoding: gzip, chunked", 501),
    (b"Transfer-Encoding: xchunked", 501),
    (b"Transfer-Encoding: 'chunked'", 501),
    (b"Transfer-Encoding: chunked-x", 501),
    (b"Transfer-Encoding: identity, chunked", 501),
    (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
    // hosts
    (b"Host: app.example", 400),
    (b"Host: other.example", 400),
    (b"HOST: app.example", 400),
    // field lines
    (b"X", 400),
    (b"X Y: z", 400),
    (b": z", 400),
    (b"X(: z", 400),
    (b"X\"Y: z", 400),
    (b"X/Y: z", 400),
    (b"X\x80: z", 400),
    (b"X\x00: z", 400),
    (b"\xef\xbb\xbfX: z", 400),
    (b"X: a\x00b", 400),
    (b"X: a\x01b", 400),
    (b"X: a\x7fb", 400),
    (b"X: a\rb", 400),
    (b"X: a\nb: c", 400),
    (b"X: a\r\n b", 400),
    (b"X: a\r\n\tb", 400),
    (b"X: a\r\n ", 400),
    (b"X: a\r\r", 400),
    (b"Connection: a b", 400),
    (b"Connection: \"close\"", 400),
    // expectations
    (b"Content-Length: 1\r\nExpect: x", 417),
    (b"Content-Length: 1\r\nExpect: 100-continue=x", 417),
];

/// `Host` of a GET.
const HOSTS: &[&[u8]] = &[
    b"",
    b" ",
    b":80",
    b"app.example:",
    b"app.example:0",
    b"app.example:080",
    b"app.example:65536",
    b"app.example:+80",
    b"app.example: 80",
    b"app.example :80",
    b"app.example:80:80",
    b"app.example:80a",
    b"app.example other.example",
    b"app.example, other.example",
    b"app.example@other.example",
    b"u@app.example",
    b"app.example/",
    b"app.example?",
    b"app.example#",
    b"app.example\\",
    b"http://app.example",
    b"app..example",
    b".app.example",
    b"app.example%20",
    b"*",
    b"*.example",
    b"(app)",
    b"app.ex\xc3\xa4mple",
    b"app\x01.example",
    b"app\t.example",
    b"::1",
    b"[::1",
    b"[::1]80",
    b"[::g]",
    b"[fe80::1%25eth0]",
    b"[]",
    b"[127.0.0.1]",
];

/// Heads in full that fit into no table.
const HEADS: &[(&[u8], u16)] = &[
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nX: app.example\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : app.example\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n Host: app.example\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: app.example\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: app.example\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: app.example\r\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\r\n", 400),
    (b"GET / HTTP/1.1\rHost: app.example\r\r", 400),
    (b"GET http://app.example/ HTTP/1.1\r\n\r\n", 400),
    (b"GET http://app.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", 400),
    (b"GET http://other.example/ HTTP/1.0\r\nHost: app.example\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nHost: app.example\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET /.well-known/ptth/a/ HTTP/1.1\r\nHost: e\r\nUpgrade: ptth\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
];

fn heads() -> Vec<Case> {
    let mut cases: Vec<Case> = HEADS.iter().map(|(bytes, status)| case(bytes, *status)).collect();
    for (line, status) in LINES {
        cases.push(case([line, &b"\r\nHost: app.example\r\n\r\n"[..]].concat(), *status));
    }
    for (fields, status) in FIELDS {
        cases.push(case([start("POST", "/").as_bytes(), fields, b"\r\n\r\n"].concat(), *status));
    }
    for host in HOSTS {
        cases.push(case([b"GET / HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat(), 400));
    }
    assert!(cases.len() >= 120);
    cases
}

/// One answer, then the end.
#[track_caller]
fn check_refused(client: &mut Peer, case: &Case, how: &str) {
    let answer = client.response();
    assert_eq!(answer.status(), case.status, "{how} {}: {answer:?}", case.shown());
    let error = if case.status == 404 { "destination_not_found" } else { "http_request_error" };
    assert_own(&answer, case.status, error);
    assert!(answer.connection("close"), "{how} {}: {answer:?}", case.shown());
    let (rest, _) = client.end();
    assert!(rest.is_empty(), "{how} {}: then came {:?}", case.shown(), String::from_utf8_lossy(&rest));
}

#[track_caller]
fn check_unseen(link: &mut Peer, case: &Case) {
    if link.has_some() {
        panic!(
            "{} reached the worker: {:?}",
            case.shown(),
            link.read_some().map(|b| String::from_utf8_lossy(&b).into_owned())
        );
    }
}

#[test]
fn malformed_heads_are_refused_and_reach_nobody() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        for case in heads() {
            let mut client = edge.client();
            client.send_if_open([&case.bytes, HIDDEN.as_bytes()].concat());
            check_refused(&mut client, &case, "whole");
            check_unseen(&mut link, &case);
        }
        link.is_quiet();
    }
}

#[test]
fn malformed_heads_are_refused_wherever_they_are_cut() {
    let edge = edge();
    let mut link = edge.h1_link();
    for case in heads() {
        let mut clients: Vec<Peer> = Vec::new();
        for cut in 1..case.bytes.len() {
            clients.push(edge.sent(&case.bytes[..cut]));
        }
        pause();
        for (client, cut) in clients.iter_mut().zip(1..) {
            client.send_if_open([&case.bytes[cut..], HIDDEN.as_bytes()].concat());
        }
        for (client, cut) in clients.iter_mut().zip(1..) {
            check_refused(client, &case, &format!("cut at {cut}:"));
        }
        check_unseen(&mut link, &case);
    }
    link.is_quiet();
}

#[test]
fn malformed_heads_are_refused_byte_by_byte() {
    let edge = edge();
    let mut link = edge.h1_link();
    let cases = heads();
    let mut clients: Vec<Peer> = cases.iter().map(|_| edge.client()).collect();
    for at in 0..cases.iter().map(|case| case.bytes.len()).max().expect("cases") {
        for (case, client) in cases.iter().zip(&mut clients) {
            if let Some(byte) = case.bytes.get(at) {
                client.send_if_open([*byte]);
            }
        }
        pause();
    }
    for (case, client) in cases.iter().zip(&mut clients) {
        client.send_if_open(HIDDEN);
        check_refused(client, case, "byte by byte");
    }
    link.is_quiet();
}

/// Lets the edge see what was sent so far, most of the time.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

#[test]
fn a_head_that_is_refused_gets_no_body_if_it_asked_for_none() {
    let edge = edge();
    for (fields, status) in [
        ("Expect: x", 417),
        ("Transfer-Encoding: gzip", 501),
        ("Host: app.example", 400),
        ("Connection: upgrade\r\nUpgrade: ptth", 405),
    ] {
        let mut client = edge.sent(start("HEAD", "/") + fields + "\r\n\r\n" + HIDDEN);
        let answer = client.response_to_head();
        assert_eq!(answer.status(), status, "{answer:?}");
        assert!(answer.connection("close") && answer.field("content-length").is_some(), "{answer:?}");
        let (rest, _) = client.end();
        assert!(rest.is_empty(), "{fields}: then came {:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_malformed_request_behind_a_good_one_is_refused_in_its_turn() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        for case in heads() {
            let mut client = edge.client();
            client.send_if_open([get("/good").as_bytes(), &case.bytes, HIDDEN.as_bytes()].concat());
            assert_eq!(link.serve("good").target(), "/good");
            assert_eq!(client.response().text(), "good", "{}", case.shown());
            // What looks like an empty line behind a message is one.
            if case.bytes.starts_with(b"\r\n") {
                continue;
            }
            check_refused(&mut client, &case, "behind a good one");
            check_unseen(&mut link, &case);
        }
    }
}

#[test]
fn what_is_too_large_is_refused_however_it_is_cut() {
    let edge = edge();
    let mut link = edge.h1_link();
    let fields: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "y".repeat(8 * 1024);
    for case in [
        case(format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 414),
        case(format!("{long} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 414),
        case(format!("{}X: {long}\r\n\r\n", start("GET", "/")), 431),
        case(format!("{}{long}: y\r\n\r\n", start("GET", "/")), 431),
        case(start("GET", "/") + &fields + "\r\n", 431),
        case(format!("{}X: {2}\r\nY: {2}\r\nZ: {2}\r\n{1}", start("GET", "/"), "\r\n", &long[..6000]), 431),
        case(start("GET", "/") + &"X: y\r\n".repeat(5000) + "\r\n", 431),
    ] {
        for step in [usize::MAX, 1024, 97] {
            let mut client = edge.client();
            for piece in case.bytes.chunks(step.min(case.bytes.len())) {
                client.send_if_open(piece);
                if step == 1024 {
                    pause();
                }
            }
            client.send_if_open(HIDDEN);
            check_refused(&mut client, &case, &format!("by {step}:"));
            check_unseen(&mut link, &case);
        }
    }
    link.is_quiet();
}

// ---- bodies: found after the dispatch ----

/// Chunked bodies that break, and what answers them.
const BODIES: &[(&[u8], u16)] = &[
    (b"\r\n", 400),
    (b"\n", 400),
    (b"x\r\n", 400),
    (b" 5\r\nhello\r\n0\r\n\r\n", 400),
    (b"5 \r\nhello\r\n0\r\n\r\n", 400),
    (b"5\t\r\nhello\r\n0\r\n\r\n", 400),
    (b"+5\r\nhello\r\n0\r\n\r\n", 400),
    (b"-5\r\nhello\r\n0\r\n\r\n", 400),
    (b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    (b"5\nhello\r\n0\r\n\r\n", 400),
    (b"5\rhello\r\n0\r\n\r\n", 400),
    (b"5\r\rhello\r\n0\r\n\r\n", 400),
    (b"5h\r\nhello\r\n0\r\n\r\n", 400),
    (b"5,\r\nhello\r\n0\r\n\r\n", 400),
    (b"5\x00\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;a\nhello\r\n0\r\n\r\n", 400),
    (b"5;\nhello\r\n0\r\n\r\n", 400),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;a=\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;a=\"b\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;a=b c\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;=b\r\nhello\r\n0\r\n\r\n", 400),
    (b"00000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    (b"10000000000000000\r\nhello\r\n0\r\n\r\n", 400),
    (b"5\r\nhelloX\r\n0\r\n\r\n", 400),
    (b"5\r\nhello\n0\r\n\r\n", 400),
    (b"5\r\nhello\r0\r\n\r\n", 400),
    (b"5\r\nhello0\r\n\r\n", 400),
    (b"5\r\nhello\r\r\n0\r\n\r\n", 400),
    (b"5\r\nhello\r\n\r\n0\r\n\r\n", 400),
    (b"4\r\nhello\r\n0\r\n\r\n", 400),
    (b"6\r\nhello\r\n0\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\r\n", 400),
    (b"5\r\nhello\r\n0\r\n\n", 400),
    (b"5\r\nhello\r\n0\r\n\rX", 400),
    (b"5\r\nhello\r\n0 \r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\n: y\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX: y\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX: y\r\n\n", 400),
    (b"5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nX\x80: y\r\n\r\n", 400),
    (b"5\r\nhello\r\n0\r\nGET /trailer HTTP/1.1\r\n\r\n", 400),
];

fn bodies() -> Vec<Case> {
    let head = start("POST", "/bad") + "Transfer-Encoding: chunked\r\n\r\n";
    let mut cases: Vec<Case> =
        BODIES.iter().map(|(body, status)| case([head.as_bytes(), body].concat(), *status)).collect();
    let extension = "e".repeat(255);
    cases.push(case(format!("{head}5;{extension}\r\nhello\r\n0\r\n\r\n"), 400));
    cases
}

/// A chunked body's trailers may be too large as well.
fn large_trailers() -> [Case; 2] {
    let head = start("POST", "/bad") + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    [case(format!("{head}X: {}\r\n\r\n", "y".repeat(5000)), 431), case(head + &"X: y\r\n".repeat(200) + "\r\n", 431)]
}

#[test]
fn a_malformed_body_is_never_completed_on_an_http1_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for case in bodies().iter().chain(&large_trailers()) {
            let mut link = edge.h1_link();
            let mut client = edge.client();
            client.send_if_open([&case.bytes, HIDDEN.as_bytes()].concat());
            check_refused(&mut client, case, "whole");
            check_incomplete(&mut link, case);
            edge.until_links(0);
        }
    }
}

/// The link saw at most the beginning of one request, and then its end.
#[track_caller]
fn check_incomplete(link: &mut Peer, case: &Case) {
    if let Some(mut request) = link.try_head() {
        assert_eq!((request.target(), request.framing), ("/bad", Framing::Chunked), "{}", case.shown());
        assert!(link.body(&mut request).is_err(), "{} was completed: {request:?}", case.shown());
    }
    link.ends();
}

#[test]
fn a_body_that_breaks_later_is_never_completed_on_an_http1_link() {
    let edge = edge();
    for case in bodies() {
        let mut link = edge.h1_link();
        let head_bytes = case.bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let mut client = edge.sent(&case.bytes[..head_bytes]);
        let mut request = link.head();
        client.send_if_open([&case.bytes[head_bytes..], HIDDEN.as_bytes()].concat());
        check_refused(&mut client, &case, "after its head");
        assert!(link.body(&mut request).is_err(), "{} was completed: {request:?}", case.shown());
        link.ends();
        edge.until_links(0);
    }
}

#[test]
fn a_malformed_body_resets_its_stream_wherever_it_is_cut() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("per_link_max = 1000").start();
        // Its default takes 20 resets in one burst for an attack.
        let mut builder = h2::server::Builder::new();
        let builder = builder.max_concurrent_streams(1000).max_pending_accept_reset_streams(10_000);
        let worker = H2Worker::with(&edge, builder);
        for case in bodies().iter().chain(&large_trailers()) {
            let step = 1 + case.bytes.len() / 100;
            let cuts: Vec<usize> = (1..case.bytes.len()).step_by(step).collect();
            let mut clients: Vec<Peer> = cuts.iter().map(|&cut| edge.sent(&case.bytes[..cut])).collect();
            pause();
            for (client, &cut) in clients.iter_mut().zip(&cuts) {
                client.send_if_open([&case.bytes[cut..], HIDDEN.as_bytes()].concat());
            }
            for (client, cut) in clients.iter_mut().zip(&cuts) {
                check_refused(client, case, &format!("cut at {cut}:"));
            }
            while let Some(mut asked) = worker.try_accept() {
                assert_eq!(asked.path(), "/bad", "{}", case.shown());
                assert!(asked.read_body().is_err(), "{} was completed", case.shown());
            }
        }
        edge.until_credits(1000);
    }
}

#[test]
fn a_body_that_breaks_after_the_answer_began_closes_the_connection() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        for (body, _) in BODIES {
            let mut client = edge.sent(start("POST", "/bad") + "Transfer-Encoding: chunked\r\n\r\n2\r\nup\r\n");
            let mut asked = worker.accept();
            let mut stream = asked.begin(http::Response::new(()));
            stream.send_data("down".into(), false).expect("open");
            let mut answer = client.head();
            assert_eq!(client.read(9), b"4\r\ndown\r\n");
            client.send_if_open([body, HIDDEN.as_bytes()].concat());
            let shown = String::from_utf8_lossy(body).into_owned();
            assert!(client.body(&mut answer).is_err(), "{shown:?}: complete {answer:?}");
            assert!(answer.body.is_empty(), "{shown:?}: {answer:?}");
            assert!(asked.read_body().is_err(), "{shown:?} was completed");
        }
        worker.is_quiet();
    }
}

// ---- smuggling ----

#[test]
fn a_request_inside_a_body_is_a_body() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        let hidden = HIDDEN.len();
        for (request, framing) in [
            (format!("{}Content-Length: {hidden}\r\n\r\n{HIDDEN}", start("GET", "/")), Framing::Length(hidden as u64)),
            (format!("{}Content-Length: {hidden}\r\n\r\n{HIDDEN}", start("POST", "/")), Framing::Length(hidden as u64)),
            (
                format!("{}Content-Length: 00{hidden}\r\n\r\n{HIDDEN}", start("HEAD", "/")),
                Framing::Length(hidden as u64),
            ),
            (
                format!("{}Content-Length: {hidden}\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}", start("DELETE", "/")),
                Framing::Length(hidden as u64),
            ),
            (
                format!(
                    "{}Transfer-Encoding: CHUNKED\r\n\r\n{hidden:x};a=\"\\\"0\"\r\n{HIDDEN}\r\n000\r\n\r\n",
                    start("POST", "/")
                ),
                Framing::Chunked,
            ),
            (
                format!(
                    "{}transfer-encoding:\t chunked \t\r\n\r\n{hidden:X} ; a\r\n{HIDDEN}\r\n0\r\n\r\n",
                    start("OPTIONS", "/")
                ),
                Framing::Chunked,
            ),
        ] {
            client.send(&request);
            let seen = link.serve("");
            assert_eq!((seen.framing, seen.text()), (framing, HIDDEN), "{request:?}");
            assert_eq!(client.response().status(), 200);
        }
        client.is_quiet();
        link.is_quiet();
    }
}

#[test]
fn a_request_inside_an_upgrades_body_is_a_body() {
    let edge = edge();
    let mut link = edge.h1_link();
    let hidden = HIDDEN.len();
    let mut client = edge.sent(format!(
        "{}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}",
        start("POST", "/")
    ));
    let seen = link.serve("plain");
    assert_eq!((seen.text(), seen.field("upgrade")), (HIDDEN, None));
    assert_eq!(client.response().text(), "plain");
}

#[test]
fn bytes_behind_an_unanswered_upgrade_are_not_a_request() {
    // A client may only speak the new protocol once it has its 101; until then its bytes are the next request.
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(start("GET", "/up") + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN);
    let seen = link.request();
    assert_eq!(seen.target(), "/up");
    link.is_quiet();
    link.ok("no upgrade");
    assert_eq!(client.response().text(), "no upgrade");
    // Refused: so it was the next request, openly.
    assert_eq!(link.serve("next").target(), "/hidden");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn an_expectation_hides_nothing() {
    let edge = edge();
    let mut link = edge.h1_link();
    // The worker refuses without the body; whether the body comes, nobody knows, so the connection ends.
    let mut client = edge.sent(format!(
        "{}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n{HIDDEN}",
        start("POST", "/"),
        HIDDEN.len()
    ));
    let mut request = link.head();
    let whole = link.body(&mut request);
    assert!(whole.is_ok() && request.text() == HIDDEN, "{request:?}");
    link.ok("done");
    assert_eq!(client.response().status(), 100);
    assert_eq!(client.response().text(), "done");
    client.is_quiet();
}

// ---- the same from the other side: setups ----

#[test]
fn malformed_setups_make_no_link() {
    let edge = edge();
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: twice\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "X: a\nb: c\r\n",
    ] {
        let setup = common::setup(common::ORIGIN, "h2").replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
        let (mut link, answer) = edge.set_up(&setup);
        assert_eq!(answer.status(), 400, "{fields:?}: {answer:?}");
        link.ends();
    }
    assert_eq!(edge.status()["links"], serde_json::json!([]));
}

// ---- noise ----

/// A small generator, so that a failure can be repeated from its seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Bytes are changed, dropped, doubled and moved at random in good requests. Whatever comes of it, what reaches the
/// worker is a request that can be read in one way only, and the edge lives.
#[test]
fn noise_never_reaches_the_worker_in_a_form_that_can_be_read_twice() {
    let seed = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(std::process::id());
    let edge = edge();
    let (tell, told) = std::sync::mpsc::channel();
    let recorder = recorder(&edge, tell);
    let mut noise = Noise(seed);
    let good = [
        get("/a"),
        common::post("/b", "hello"),
        start("POST", "/c") + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
        start("PUT", "/d") + "Content-Length: 3\r\nConnection: close\r\nX: y\r\n\r\nabc",
        format!("GET http://{HOST}/e HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\n\r\n"),
    ];
    let spice: [&[u8]; 14] = [
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b"0",
        b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 7\r\n",
        b"\xff",
        b";",
    ];
    for _ in 0..600 {
        let mut bytes = good[noise.below(good.len())].clone().into_bytes();
        for _ in 0..1 + noise.below(4) {
            let at = noise.below(bytes.len());
            match noise.below(4) {
                0 => drop(bytes.splice(at..at, spice[noise.below(spice.len())].iter().copied())),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = noise.next() as u8,
                _ => {
                    let end = (at + 1 + noise.below(20)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = noise.below(bytes.len());
                    drop(bytes.splice(to..to, piece));
                }
            }
        }
        let mut client = edge.client();
        client.send_if_open(&bytes);
        client.finish();
        client.end();
    }
    drop(edge);
    recorder.join().unwrap_or_else(|_| panic!("seed {seed:#x}"));
    drop(told);
}

/// Links that answer every request, one after the other, and read them strictly.
fn recorder(edge: &TestEdge, tell: std::sync::mpsc::Sender<()>) -> std::thread::JoinHandle<()> {
    let first = edge.h1_link();
    let address = edge.address;
    std::thread::spawn(move || {
        let mut link = first;
        loop {
            while let Some(mut request) = link.try_head() {
                assert!(request.line.ends_with(" HTTP/1.1") && request.line.matches(' ').count() == 2, "{request:?}");
                assert_eq!(request.all("host").len(), 1, "{request:?}");
                if link.body(&mut request).is_err() {
                    break;
                }
                link.send_if_open(common::ok("seen"));
            }
            let _ = tell.send(());
            let Ok(stream) = std::net::TcpStream::connect(address) else { return };
            link = Peer::new(stream);
            link.send_if_open(common::setup(common::ORIGIN, "http%2F1.1"));
            match link.try_head() {
                Some(answer) if answer.status() == 101 => {}
                _ => return,
            }
        }
    })
}
