//! What an HTTP/1.1 or HTTP/1.0 client sees of the edge, and what the worker sees of the client. Refusals of malformed
//! requests are in `malformed.rs`, what links do in `links.rs`.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::time::Duration;

use common::h2_worker::H2Worker;
use common::origin::{Origin, serving};
use common::peer::{End, Framing, start};
use common::{CORES, HOST, Message, Peer, assert_own, edge, get, ok, pattern, post, setting};
use ptth::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, LINE_BYTES_MAX};

// ---- one connection, many requests ----

#[test]
fn a_connection_carries_one_request_after_the_other() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for round in 0..20 {
            client.get(&format!("/{round}"));
            assert_eq!(link.serve(&format!("answer {round}")).target(), format!("/{round}"));
            let answer = client.response();
            assert_eq!((answer.status(), answer.text()), (200, &*format!("answer {round}")));
            assert!(!answer.connection("close"), "{answer:?}");
        }
        client.is_quiet();
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let workers = [edge.h1_link(), edge.h1_link()];
        edge.until_credits(2);
        let threads = workers.map(|mut link| {
            std::thread::spawn(move || {
                while let Some(request) = link.try_head() {
                    if request.target() == "/slow" {
                        std::thread::sleep(Duration::from_millis(200));
                    }
                    link.send_if_open(ok(request.target()));
                }
            })
        });
        let mut client = edge.sent([get("/slow"), get("/b"), post("/c", ""), get("/d?e=f")].concat());
        for path in ["/slow", "/b", "/c", "/d?e=f"] {
            assert_eq!(client.response().text(), path);
        }
        client.is_quiet();
        drop(client);
        drop(edge); // ends the links
        for thread in threads {
            thread.join().expect("a worker");
        }
    }
}

#[test]
fn a_pipelined_request_waits_for_the_first_ones_answer() {
    let edge = edge();
    let (mut one, mut two) = (edge.h1_link(), edge.h1_link());
    edge.until_credits(2);
    let mut client = edge.sent([get("/a"), get("/b")].concat());
    // Which link got it is the edge's choice.
    let (first, second) = match one_of(&mut one, &mut two) {
        0 => (&mut one, &mut two),
        _ => (&mut two, &mut one),
    };
    assert_eq!(first.head().target(), "/a");
    second.is_quiet();
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhal");
    second.is_quiet();
    first.send("ves");
    assert_eq!(client.response().text(), "halves");
    let other = one_of(first, second);
    let link = if other == 0 { first } else { second };
    assert_eq!(link.serve("b").target(), "/b");
    assert_eq!(client.response().text(), "b");
}

/// On which of two links something came.
fn one_of(a: &mut Peer, b: &mut Peer) -> usize {
    let mut which = 0;
    common::peer::until(|| {
        if a.has_some() {
            which = 0;
            true
        } else {
            which = 1;
            b.has_some()
        }
    });
    which
}

#[test]
fn a_hundred_pipelined_requests_are_all_answered() {
    let edge = edge();
    let origin = serving(|request| ok(request.target()));
    let _worker = edge.worker(origin);
    let mut client = edge.client();
    let all: String = (0..100).map(|n| get(&format!("/{n}"))).collect();
    client.send(all);
    for n in 0..100 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
}

#[test]
fn an_empty_line_between_two_requests_is_skipped() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(post("/a", "xyz") + "\r\n" + &get("/b"));
    assert_eq!(link.serve("a").text(), "xyz");
    assert_eq!(link.serve("b").target(), "/b");
    assert_eq!((client.response().text(), client.response().text()), ("a", "b"));
}

#[test]
fn a_connection_with_an_empty_line_behind_its_last_request_is_idle() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(post("/a", "xyz") + "\r\n");
    link.serve("a");
    assert_eq!(client.response().text(), "a");
    // A drain ends idle connections without a word. A head that had begun would be waited for, and answered 408.
    edge.drain();
    client.ends();
}

#[test]
fn a_client_that_says_close_is_answered_and_closed() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent([&start("GET", "/a"), "Connection: close\r\n\r\n", &get("/b")].concat());
    assert_eq!(link.serve("a").target(), "/a");
    let answer = client.response();
    assert!(answer.connection("close") && answer.text() == "a", "{answer:?}");
    client.ends();
    link.is_quiet();
    // The link is not the client's connection: it stays.
    let mut other = edge.sent(get("/c"));
    assert_eq!(link.serve("c").target(), "/c");
    assert_eq!(other.response().text(), "c");
}

// ---- bodies and trailers ----

#[test]
fn request_bodies_arrive_as_they_were_sent() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for bytes in [0, 1, 4095, 4096, 4097, 16_384, 65_536, 300_000] {
            let body = pattern(bytes);
            let head = format!("{}Content-Length: {bytes}\r\n\r\n", start("POST", "/exact"));
            client.send([head.as_bytes(), &body].concat());
            let seen = link.serve("exact");
            assert_eq!(seen.body, body, "{bytes} bytes");
            assert_eq!(seen.framing, Framing::Length(bytes as u64));
            assert_eq!(client.response().text(), "exact");

            client.send(start("PUT", "/chunked") + "Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(10_000) {
                client.send(format!("{:X};name=\"va;lue\"\r\n", piece.len()));
                client.send(piece);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
            let seen = link.serve("chunked");
            assert_eq!(seen.body, body, "{bytes} bytes in chunks");
            assert_eq!(seen.framing, Framing::Chunked);
            assert_eq!(client.response().text(), "chunked");
        }
    }
}

#[test]
fn a_request_body_flows_before_it_is_complete() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        assert_eq!(link.head().field("transfer-encoding"), Some("chunked"));
        assert_eq!(link.read(10), b"5\r\nfirst\r\n");
        client.send("6\r\nsecond\r\n");
        assert_eq!(link.read(11), b"6\r\nsecond\r\n");
        link.is_quiet();
        client.send("0\r\n\r\n");
        assert_eq!(link.read(5), b"0\r\n\r\n");
        link.ok("both");
        assert_eq!(client.response().text(), "both");
    }
}

#[test]
fn a_response_body_flows_before_it_is_complete() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(get("/"));
        link.request();
        link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        assert_eq!(client.head().field("transfer-encoding"), Some("chunked"));
        assert_eq!(client.read(10), b"5\r\nfirst\r\n");
        link.send("6\r\nsecond\r\n");
        assert_eq!(client.read(11), b"6\r\nsecond\r\n");
        client.is_quiet();
        link.send("0\r\n\r\n");
        assert_eq!(client.read(5), b"0\r\n\r\n");
        client.is_quiet();
    }
}

#[test]
fn a_response_head_arrives_before_its_body() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    let mut answer = client.head();
    assert_eq!(answer.framing, Framing::Length(3));
    link.send("abc");
    client.body(&mut answer).expect("whole");
    assert_eq!(answer.text(), "abc");
}

#[test]
fn response_bodies_arrive_as_they_were_sent() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for bytes in [0, 1, 4095, 4097, 65_536, 300_000] {
            let body = pattern(bytes);
            client.get("/exact");
            link.request();
            link.send([format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes(), &body].concat());
            let answer = client.response();
            assert_eq!((answer.framing, answer.body), (Framing::Length(bytes as u64), body.clone()));

            client.get("/chunked");
            link.request();
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(7_000) {
                link.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            link.send("0\r\n\r\n");
            let answer = client.response();
            assert_eq!((answer.framing, answer.body), (Framing::Chunked, body));
        }
    }
}

#[test]
fn trailers_pass_both_ways() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(
            start("POST", "/")
                + "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 900150983cd24fb0\r\nX-Two: 2\r\n\r\n",
        );
        let seen = link.request();
        assert_eq!(seen.text(), "abc");
        assert_eq!(trailers(&seen), "x-sum=900150983cd24fb0 x-two=2");
        link.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n\
             2\r\nok\r\n0\r\nX-Down: yes\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\n",
        );
        let answer = client.response();
        assert_eq!(answer.text(), "ok");
        assert_eq!(trailers(&answer), "x-down=yes", "what frames or authenticates is no trailer (RFC 9110 §6.5.1)");
        client.is_quiet();
    }
}

fn trailers(message: &common::Message) -> String {
    let mut all: Vec<_> =
        message.trailers.iter().map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect();
    all.sort();
    all.join(" ")
}

#[test]
fn trailers_of_a_request_cannot_claim_who_asks() {
    let edge = edge();
    let mut link = edge.h1_link();
    let _client = edge.sent(
        start("POST", "/")
            + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         Authorization: Basic eDp5\r\nHost: evil\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\nX-Ok: 1\r\n\r\n",
    );
    assert_eq!(trailers(&link.serve("")), "x-ok=1");
}

#[test]
fn trailers_pass_through_http2_links() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 4);
        let mut client =
            edge.sent(start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
        let mut asked = worker.accept();
        let (body, trailers_up) = asked.read_body().expect("whole");
        assert_eq!(body, b"abc");
        assert_eq!(trailers_up.expect("trailers")["x-sum"], "1");
        let mut stream = asked.begin(http::Response::new(()));
        stream.send_data("down".into(), false).expect("open");
        let mut trailers_down = http::HeaderMap::new();
        trailers_down.insert("x-down", "yes".parse().expect("a value"));
        stream.send_trailers(trailers_down).expect("open");
        let answer = client.response();
        assert_eq!((answer.text(), trailers(&answer)), ("down", "x-down=yes".to_owned()));
    }
}

#[test]
fn a_close_delimited_response_becomes_chunked() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(get("/"));
        link.request();
        link.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
        link.finish();
        let answer = client.response();
        assert_eq!((answer.framing, answer.text()), (Framing::Chunked, "until the end"));
        edge.until_links(0);
        client.is_quiet();
        // The client's connection outlives the link.
        client.get("/again");
        let mut link = edge.h1_link();
        link.serve("again");
        assert_eq!(client.response().text(), "again");
    }
}

// ---- responses without a body ----

#[test]
fn an_answer_to_head_has_no_body_and_keeps_its_length() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for (fields, length) in [
            ("Content-Length: 1000\r\n", Some("1000")),
            ("Content-Length: 7\r\nContent-Length: 7\r\n", Some("7")),
            ("Transfer-Encoding: chunked\r\n", None),
            ("", None),
        ] {
            client.send(start("HEAD", "/") + "\r\n");
            assert_eq!(link.request().method(), "HEAD");
            link.send(format!("HTTP/1.1 200 OK\r\nX-A: b\r\n{fields}\r\n"));
            let answer = client.response_to_head();
            assert_eq!(answer.field("content-length"), length, "{fields}: {answer:?}");
            assert_eq!(answer.field("x-a"), Some("b"));
            // The next answer begins right behind it.
            client.get("/next");
            link.serve("next");
            assert_eq!(client.response().text(), "next");
        }
    }
}

#[test]
fn an_answer_to_head_over_http2_keeps_its_length() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 4);
    let mut client = edge.sent(start("HEAD", "/") + "\r\n");
    let mut asked = worker.accept();
    let response = http::Response::builder().header("content-length", 1000).body(()).expect("a response");
    asked.respond.send_response(response, true).expect("open");
    assert_eq!(client.response_to_head().field("content-length"), Some("1000"));
    client.get("/next");
    worker.accept().ok("next");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn answers_204_and_304_have_no_body() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for (head, status, length) in [
            ("204 No Content\r\n", 204, None),
            ("204 No Content\r\nContent-Length: 0\r\n", 204, None),
            ("304 Not Modified\r\nETag: \"a\"\r\n", 304, None),
            ("304 Not Modified\r\nContent-Length: 1234\r\n", 304, Some("1234")),
        ] {
            client.get("/");
            link.request();
            link.send(format!("HTTP/1.1 {head}\r\n"));
            let answer = client.response();
            assert_eq!((answer.status(), answer.field("content-length")), (status, length), "{answer:?}");
            client.get("/next");
            link.serve("next");
            assert_eq!(client.response().text(), "next");
        }
    }
}

#[test]
fn methods_pass_as_they_are() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    for method in ["DELETE", "PATCH", "PUT", "PROPFIND", "get", "M-SEARCH"] {
        client.send(start(method, "/x") + "\r\n");
        assert_eq!(link.serve("").method(), method);
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn every_final_status_passes() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    for status in [200, 201, 202, 206, 299, 300, 301, 307, 400, 401, 404, 408, 418, 421, 429, 431, 499, 500, 503, 599] {
        client.get("/");
        link.request();
        link.send(format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 1\r\n\r\n!"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (status, "!"));
        assert_eq!(answer.field("proxy-status"), None, "it is the worker's own: {answer:?}");
    }
}

// ---- interim responses ----

#[test]
fn interim_responses_pass_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(get("/"));
        link.request();
        link.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n");
        let hints = client.response();
        assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>; rel=preload")));
        assert_eq!(hints.field("x-hop"), None);
        link.send("HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(client.response().status(), 102);
        link.ok("final");
        assert_eq!(client.response().text(), "final");
    }
}

#[test]
fn interim_responses_pass_from_http2_links() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 4);
        let mut client = edge.sent(get("/"));
        let mut asked = worker.accept();
        let hints = http::Response::builder().status(103).header("link", "</a.css>").body(()).expect("a response");
        asked.respond.send_informational(hints).expect("open");
        let hints = client.response();
        assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>")));
        asked.ok("final");
        assert_eq!(client.response().text(), "final");
    }
}

#[test]
fn an_http_1_0_client_gets_no_interim_response() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    link.request();
    link.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    client.is_quiet();
    link.ok("final");
    assert_eq!(client.response().text(), "final");
}

#[test]
fn a_workers_own_100_stops_at_the_edge() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    link.send([&"HTTP/1.1 100 Continue\r\n\r\n".repeat(3), &*ok("final")].concat());
    let answer = client.response();
    assert_eq!((answer.status(), answer.text()), (200, "final"));
}

#[test]
fn sixteen_interim_responses_pass_and_one_more_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for (count, code) in [(16, 103), (17, 103), (17, 100), (1000, 102)] {
            let mut link = edge.h1_link();
            let mut client = edge.sent(get("/"));
            link.request();
            link.send_if_open(format!("HTTP/1.1 {code} X\r\n\r\n").repeat(count) + &ok("final"));
            let mut answer = client.response();
            while answer.status() < 200 {
                answer = client.response();
            }
            if count <= 16 {
                assert_eq!(answer.text(), "final");
            } else {
                assert_own(&answer, 502, "http_protocol_error");
            }
            drop(link);
            edge.until_links(0);
        }
    }
}

// ---- Expect ----

#[test]
fn a_100_comes_only_once_a_worker_has_the_request() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut client = edge.sent(start("POST", "/") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        edge.until_queued(1);
        client.is_quiet();
        let (mut link, answer) = edge.set_up(&common::setup(common::ORIGIN, "http%2F1.1"));
        assert_eq!(answer.status(), 101);
        let head = link.head();
        assert_eq!((head.target(), head.field("content-length")), ("/", Some("5")));
        assert_eq!(client.response().status(), 100);
        client.send("hello");
        assert_eq!(link.read(5), b"hello");
        link.ok("got it");
        assert_eq!(client.response().text(), "got it");
        client.is_quiet();
    }
}

#[test]
fn a_100_comes_only_once_a_busy_worker_is_free() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 1);
    let mut first = edge.sent(get("/first"));
    let busy = worker.accept();
    let mut client = edge.sent(start("POST", "/") + "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    edge.until_queued(1);
    client.is_quiet();
    busy.ok("first");
    assert_eq!(first.response().text(), "first");
    assert_eq!(client.response().status(), 100);
    client.send("hi");
    let mut asked = worker.accept();
    assert_eq!(asked.read_body().expect("whole").0, b"hi");
    asked.ok("hi too");
    assert_eq!(client.response().text(), "hi too");
}

#[test]
fn a_request_that_is_sent_again_asks_its_client_for_the_body_once() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 1);
    let mut client = edge.sent(start("POST", "/") + "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status(), 100);
    worker.accept().reset(h2::Reason::REFUSED_STREAM);
    let mut asked = worker.accept();
    client.send("hi");
    assert_eq!(asked.read_body().expect("whole").0, b"hi");
    asked.ok("served");
    let answer = client.response();
    assert_eq!((answer.status(), answer.text()), (200, "served"));
}

#[test]
fn a_client_that_does_not_wait_for_its_100_is_served() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(start("POST", "/") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(link.serve("fine").text(), "hello");
    assert_eq!(client.response().status(), 100);
    assert_eq!(client.response().text(), "fine");
    client.get("/next");
    link.serve("next");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn no_100_for_a_request_without_a_body_or_in_http_1_0() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    for request in [
        start("GET", "/") + "Expect: 100-continue\r\n\r\n",
        start("POST", "/") + "Content-Length: 0\r\nExpect: 100-continue\r\n\r\n",
        format!(
            "POST / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"
        ),
    ] {
        client.send(&request);
        link.serve("final");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (200, "final"), "{request}");
    }
}

#[test]
fn a_refused_expectation_is_not_asked_for_its_body() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(start("POST", "/") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    link.head();
    link.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let mut answer = client.response();
    if answer.status() == 100 {
        answer = client.response();
    }
    assert_eq!((answer.status(), answer.text()), (403, "no"));
}

#[test]
fn an_unknown_expectation_is_a_417() {
    let edge = edge();
    let mut link = edge.h1_link();
    for expect in ["200-ok", "100-continue, x", "100-continue;q=1", "", "100-continue\r\nExpect: x"] {
        let mut client = edge.sent(format!("{}Content-Length: 2\r\nExpect: {expect}\r\n\r\nhi", start("POST", "/")));
        assert_own(&client.response(), 417, "http_request_error");
        client.ends();
    }
    link.is_quiet();
}

// ---- HTTP/1.0 ----

#[test]
fn an_http_1_0_connection_closes_unless_the_client_keeps_it() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(format!("GET /a HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    link.serve("a");
    let answer = client.response();
    assert!(answer.connection("close") && answer.text() == "a", "{answer:?}");
    client.ends();

    let mut client = edge.client();
    for path in ["/b", "/c"] {
        client.send(format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\nConnection: Keep-Alive\r\n\r\n"));
        link.serve(path);
        let answer = client.response();
        assert!(answer.connection("keep-alive") && answer.text() == path, "{answer:?}");
    }
    client.is_quiet();
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for keep in ["", "Connection: keep-alive\r\n"] {
            let mut link = edge.h1_link();
            let mut client = edge.sent(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n{keep}\r\n"));
            link.request();
            link.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nX-T: 1\r\n\r\n",
            );
            let answer = client.response();
            assert_eq!((answer.framing, answer.text()), (Framing::UntilClose, "abcdef"), "{answer:?}");
            assert!(!answer.connection("keep-alive"), "{answer:?}");
            drop(link);
            edge.until_links(0);
        }
    }
}

#[test]
fn a_chunked_response_that_breaks_off_is_not_ended_for_http_1_0() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut answer = client.head();
    assert_eq!(client.read(3), b"abc");
    drop(link);
    assert_eq!(client.body(&mut answer), Err(End::Reset), "a FIN would be the end of the body");
}

#[test]
fn http_1_0_without_a_host_belongs_to_nobody() {
    let edge = edge();
    let mut client = edge.sent("GET / HTTP/1.0\r\n\r\n");
    assert_own(&client.response(), 404, "destination_not_found");
    client.ends();
}

#[test]
fn http_1_0_without_a_host_reaches_the_pool_that_takes_everything() {
    let edge = setting().more(&any_pool()).start();
    let (mut link, answer) = edge.set_up(&any_setup("http%2F1.1"));
    assert_eq!(answer.status(), 101, "{answer:?}");
    let mut client = edge.sent("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(link.serve("old").target(), "/old");
    assert_eq!(client.response().text(), "old");
}

/// A pool for whatever no other pool takes, and who may serve it.
fn any_pool() -> String {
    format!(
        "[[pool]]\nname = \"any\"\norigins = [\"*\"]\n\
         [[credential]]\nid = \"any\"\nsecret_hash = \"{}\"\norigins = [\"*\"]\n",
        common::secret_hash("any secret")
    )
}

fn any_setup(alpn: &str) -> String {
    format!(
        "GET /.well-known/ptth/pool/any HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\
         Authorization: {}\r\nALPN: {alpn}\r\n\r\n",
        common::basic("any", "any secret")
    )
}

// ---- targets ----

#[test]
fn targets_and_hosts_reach_the_worker_as_they_mean() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    for (request, target, host) in [
        (format!("GET http://{HOST}/a?b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/a?b", HOST),
        (format!("GET http://{HOST} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/", HOST),
        (format!("GET http://{HOST}?q HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/?q", HOST),
        (format!("GET HTTP://APP.example/c HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/c", HOST),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "*", HOST),
        (format!("OPTIONS http://{HOST} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "*", HOST),
        (format!("OPTIONS /o HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/o", HOST),
        (format!("GET //evil/%2e%2e/a;b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "//evil/%2e%2e/a;b", HOST),
        (format!("GET /d HTTP/1.1\r\nHost: {HOST}:8080\r\n\r\n"), "/d", "app.example:8080"),
        (format!("GET http://{HOST}/e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), "/e", HOST),
    ] {
        client.send(&request);
        assert_eq!(one_of(&mut client, &mut link), 1, "{request:?} was answered {:?}", client.response());
        let seen = link.serve("");
        assert_eq!((seen.target(), seen.field("host")), (target, Some(host)), "{request}");
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn a_host_is_compared_without_its_case() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent("GET / HTTP/1.1\r\nHost: APP.Example\r\n\r\n");
    assert_eq!(client_or_link(&mut client, &mut link), 200);
}

/// Serves the request if it reaches the worker; its status.
fn client_or_link(client: &mut Peer, link: &mut Peer) -> u16 {
    if one_of(client, link) == 1 {
        link.serve("");
    }
    client.response().status()
}

#[test]
fn targets_reach_http2_workers_as_they_mean() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 4);
    let mut client = edge.client();
    for (request, path, authority) in [
        (format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "*", HOST),
        (format!("GET /a?b HTTP/1.1\r\nHost: {HOST}:81\r\n\r\n"), "/a?b", "app.example:81"),
        (format!("GET http://{HOST}/c HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "/c", HOST),
    ] {
        client.send(&request);
        let asked = worker.accept();
        assert_eq!(asked.path(), path, "{request}");
        assert_eq!(asked.head.uri.authority().map(|authority| authority.as_str()), Some(authority), "{request}");
        assert_eq!(asked.head.uri.scheme_str(), Some("http"));
        assert_eq!(asked.field("host"), None, "it is :authority there");
        asked.ok("");
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn options_for_the_whole_server_passes_through_our_worker() {
    let edge = edge();
    let origin = Origin::start();
    let _worker = edge.worker(origin.address);
    let mut client = edge.sent(format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let seen = origin.accept().serve("");
    assert_eq!((seen.line.as_str(), seen.field("host")), ("OPTIONS * HTTP/1.1", Some(HOST)));
    assert_eq!(client.response().status(), 200);
}

#[test]
fn an_unknown_origin_is_a_404_and_the_connection_stays() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        for request in [
            "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x.app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: x\r\n\r\n",
        ] {
            client.send(request);
            let answer = client.response();
            assert_own(&answer, 404, "destination_not_found");
            assert!(!answer.connection("close"), "{answer:?}");
        }
        client.send("HEAD / HTTP/1.1\r\nHost: other.example\r\n\r\n");
        let answer = client.response_to_head();
        assert!(answer.status() == 404 && answer.field("proxy-status").is_some(), "{answer:?}");
        client.get("/");
        link.serve("still here");
        assert_eq!(client.response().text(), "still here");
    }
}

#[test]
fn a_404_closes_where_the_body_is_not_read_to_its_end() {
    let edge = edge();
    let mut link = edge.h1_link();
    for request in [
        "POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: other.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 100000000\r\n\r\n",
    ] {
        let mut client = edge.sent(request);
        client.send_if_open(vec![b'x'; 200_000]);
        client.send_if_open(get("/hidden"));
        let answer = client.response();
        assert_own(&answer, 404, "destination_not_found");
        // Of chunks nobody knows how many come.
        assert_eq!(answer.connection("close"), request.contains("Content-Length"), "{request}: {answer:?}");
        let (rest, _) = client.end();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
    link.is_quiet();
}

#[test]
fn paths_divide_pools_of_one_host() {
    let more =
        format!("[[pool]]\nname = \"api\"\norigins = [\"{HOST}\"]\npaths = [\"/api\"]\nhold_without_workers = false\n");
    let edge = setting().more(&more).pool("queue = { wait_max = \"60s\" }").start();
    for (path, to_api) in [("/api", true), ("/api/x", true), ("/api?x", true), ("/apix", false), ("/", false)] {
        let mut client = edge.sent(get(path));
        if to_api {
            assert_own(&client.response(), 503, "destination_unavailable");
        } else {
            edge.until_queued(1);
            drop(client);
            edge.until_queued(0);
        }
    }
}

// ---- fields ----

#[test]
fn what_the_worker_learns_about_the_first_hop() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(start("GET", "/").replace(HOST, "app.example:8080") + "\r\n");
        let seen = link.serve("");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.field("x-forwarded-host"), Some("app.example:8080"));
        assert_eq!(seen.field("forwarded"), Some("for=127.0.0.1;proto=http;host=\"app.example:8080\""));
        assert_eq!(seen.field("via"), Some("1.1 ptth"));
        assert_eq!(seen.field("priority"), Some("u=3"));
        client.response();
    }
}

#[test]
fn an_http_1_0_client_is_so_named_in_via() {
    let edge = edge();
    let mut link = edge.h1_link();
    let _client = edge.sent(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(link.serve("").field("via"), Some("1.0 ptth"), "RFC 9110 §7.6.3: the version that was received");
}

#[test]
fn a_client_cannot_claim_who_it_is() {
    let edge = edge();
    let mut link = edge.h1_link();
    let _client = edge.sent(
        start("GET", "/")
            + "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX_Forwarded_For: 8.8.8.8\r\n\
               X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Server: evil\r\n\
               Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nVia: 1.0 before\r\n\
               Priority: u=0, i\r\n\r\n",
    );
    let seen = link.serve("");
    let claims: Vec<_> =
        seen.fields.iter().filter(|(_, value)| value.contains("6.6.6.6") || value.contains("evil")).collect();
    assert!(claims.is_empty(), "{claims:?}");
    assert_eq!(seen.all("x_forwarded_for"), [""; 0]);
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-port"), None);
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.all("via").join(", "), "1.0 before, 1.1 ptth");
    assert_eq!(seen.field("priority"), Some("u=3, i"), "the class is the edge's, `i` the client's");
}

#[test]
fn connection_cannot_name_away_what_the_edge_adds() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let _client = edge.sent(
            start("POST", "/")
                + "Connection: x-forwarded-for, X-Forwarded-Proto, x-forwarded-host, host, forwarded\r\n\
                   Connection: via, priority, content-length, transfer-encoding, authorization, cookie, x-gone, keep-alive\r\n\
                   Authorization: Basic eDp5\r\nCookie: a=b\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nhi",
        );
        let seen = link.serve("");
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "forwarded",
            "via",
            "priority",
            "host",
            "content-length",
            "authorization",
            "cookie",
        ] {
            assert!(seen.field(name).is_some(), "{name} is gone: {seen:?}");
        }
        assert_eq!(seen.field("x-gone"), None);
        assert_eq!(seen.field("connection"), None, "{seen:?}");
        assert_eq!(seen.text(), "hi");
    }
}

#[test]
fn hop_by_hop_fields_of_a_request_stop_at_the_edge() {
    let edge = edge();
    let mut link = edge.h1_link();
    let worker_fields = "Connection: keep-alive, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
        TE: gzip, trailers;q=0.5\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nX-B: 2\r\n\r\n";
    let _client = edge.sent(start("GET", "/") + worker_fields);
    let seen = link.serve("");
    for name in ["x-a", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(seen.field(name), None, "{seen:?}");
    }
    assert_eq!(seen.field("te"), Some("trailers"));
    assert!(seen.connection("te") && !seen.connection("keep-alive") && !seen.connection("upgrade"), "{seen:?}");
    assert_eq!(seen.field("x-b"), Some("2"));
}

#[test]
fn hop_by_hop_fields_stop_before_an_http2_worker() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 4);
    let _client = edge.sent(
        start("POST", "/")
            + "Connection: close, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
               TE: trailers\r\nContent-Length: 2\r\nContent-Length: 02\r\nCookie: a=b\r\nCookie: c=d\r\n\r\nhi",
    );
    let mut asked = worker.accept();
    for name in ["connection", "x-a", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "host"] {
        assert_eq!(asked.field(name), None, "{name}");
    }
    assert_eq!(asked.field("te"), Some("trailers"));
    let lengths: Vec<_> = asked.head.headers.get_all("content-length").iter().collect();
    assert_eq!(lengths, ["2"], "RFC 9110 §8.6: one valid value");
    let (body, _) = asked.read_body().expect("whole");
    assert_eq!(body, b"hi");
    asked.ok("");
}

#[test]
fn hop_by_hop_fields_of_a_response_stop_at_the_edge() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    link.send(
        "HTTP/1.1 200 OK\r\nConnection: x-internal, keep-alive\r\nX-Internal: secret\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nUpgrade: h2c\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Public: 1\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    let answer = client.response();
    for name in ["x-internal", "keep-alive", "proxy-connection", "upgrade", "connection"] {
        assert_eq!(answer.field(name), None, "{answer:?}");
    }
    assert_eq!(answer.all("set-cookie"), ["a=b", "c=d"]);
    assert_eq!(answer.field("x-public"), Some("1"));
}

#[test]
fn a_workers_close_ends_its_link_and_not_the_clients_connection() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let answer = client.response();
    assert!(!answer.connection("close"), "{answer:?}");
    link.ends();
    edge.until_links(0);
    let mut link = edge.h1_link();
    client.get("/next");
    link.serve("next");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn values_that_are_not_ascii_pass_untouched() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    client.send([start("GET", "/").as_bytes(), b"X-Latin: caf\xe9\r\nX-Utf: \xc3\xa9\r\n\r\n"].concat());
    let head = link.read_until(b"\r\n\r\n");
    assert!(
        contains(&head, b"caf\xe9\r\n") && contains(&head, b"\xc3\xa9\r\n"),
        "{:?}",
        String::from_utf8_lossy(&head)
    );
    link.send(b"HTTP/1.1 200 OK\r\nX-Latin: caf\xe9\r\nContent-Length: 0\r\n\r\n");
    assert!(contains(&client.read_until(b"\r\n\r\n"), b"caf\xe9\r\n"));
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_largest_head_passes_and_the_next_is_refused() {
    let edge = edge();
    let mut link = edge.h1_link();
    // Beyond 16 KiB, 100 fields, or 8 KiB in one line.
    let fields = |count: usize| -> String { (0..count).map(|n| format!("X-{n}: y\r\n")).collect() };
    let mut client = edge.client();
    for (request, fits) in [
        (start("GET", "/") + &fields(99) + "\r\n", true),
        (format!("{}X: {}\r\n\r\n", start("GET", "/"), "y".repeat(8 * 1024 - 3)), true),
        (start("GET", &format!("/{}", "p".repeat(8 * 1024 - 14))) + "\r\n", true),
    ] {
        client.send(&request);
        assert_eq!(client_or_link(&mut client, &mut link) == 200, fits, "{} bytes", request.len());
    }
    for (request, status) in [
        (start("GET", "/") + &fields(100) + "\r\n", 431),
        (format!("{}X: {}\r\n\r\n", start("GET", "/"), "y".repeat(8 * 1024 - 2)), 431),
        (format!("{}X: {}\r\nY: {}\r\n\r\n", start("GET", "/"), "y".repeat(8000), "z".repeat(8000)), 200),
        (
            format!(
                "{}X: {}\r\nY: {}\r\nZ: {}\r\n\r\n",
                start("GET", "/"),
                "y".repeat(8000),
                "z".repeat(8000),
                "z".repeat(500)
            ),
            431,
        ),
        (start("GET", &format!("/{}", "p".repeat(8 * 1024 - 13))) + "\r\n", 414),
    ] {
        let mut client = edge.sent(&request);
        if status == 200 {
            assert_eq!(client_or_link(&mut client, &mut link), 200);
            continue;
        }
        assert_own(&client.response(), status, "http_request_error");
        client.ends();
    }
    link.is_quiet();
}

/// Largest heads: as many fields as may be, the longest line, and as many bytes as may be in as many fields.
fn largest_heads(first: &str) -> Vec<String> {
    let fields = |count: usize| -> String { (0..count).map(|n| format!("X-{n}: y\r\n")).collect() };
    let begun = first.matches("\r\n").count() - 1; // fields in `first`
    let many = format!("{first}{}\r\n", fields(HEAD_FIELDS_MAX - begun));
    let long = format!("{first}X-Long: {}\r\n\r\n", "y".repeat(LINE_BYTES_MAX - "X-Long: ".len()));
    let full = format!("{first}{}X-Long: {}\r\n", fields(HEAD_FIELDS_MAX - begun - 2), "y".repeat(LINE_BYTES_MAX - 8));
    let left = HEAD_BYTES_MAX - full.len() - "X-Rest: \r\n\r\n".len();
    let full = format!("{full}X-Rest: {}\r\n\r\n", "z".repeat(left));
    assert_eq!((full.len(), full.matches("\r\n").count()), (HEAD_BYTES_MAX, HEAD_FIELDS_MAX + 2));
    vec![many, long, full]
}

/// The fields of [`largest_heads`], in an order of their own.
fn filling(fields: &[(String, String)]) -> Vec<String> {
    let own = fields.iter().filter(|(name, _)| name.len() > 2 && !name.to_lowercase().starts_with("x-forwarded"));
    let own =
        own.filter(|(name, _)| name.to_lowercase().starts_with("x-") && !name.eq_ignore_ascii_case("x-request-id"));
    let mut own: Vec<_> = own.map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
    own.sort();
    own
}

fn filling_of(head: &str) -> Vec<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    filling(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
}

#[test]
fn the_largest_heads_pass_through_our_own_worker() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let mut client = edge.client();
        let mut requests = largest_heads(&start("GET", "/"));
        requests.push(start("GET", &format!("/{}", "p".repeat(LINE_BYTES_MAX - "GET / HTTP/1.1".len()))) + "\r\n");
        let mut server = None;
        for request in requests {
            client.send(&request);
            let server = server.get_or_insert_with(|| origin.accept());
            let seen = server.request();
            assert!(request.starts_with(&format!("{}\r\n", seen.line)), "{}", seen.line);
            assert_eq!(filling(&seen.fields), filling_of(&request));
            server.ok("took it");
            assert_eq!(client.response().text(), "took it");
        }
        let server = server.as_mut().expect("it was asked");
        for head in largest_heads("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n") {
            client.get("/");
            server.request();
            server.send(format!("{head}ok"));
            let answer = client.response();
            assert_eq!((answer.status(), answer.text()), (200, "ok"), "{} bytes: {answer:?}", head.len());
            assert_eq!(filling(&answer.fields), filling_of(&head));
        }
    }
}

// ---- an answer before the end of the request ----

#[test]
fn an_early_answer_passes_while_the_upload_still_runs() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(start("POST", "/") + "Content-Length: 1000000\r\n\r\nfirst");
        link.head();
        assert_eq!(link.read(5), b"first");
        link.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (413, "big"));
        // The upload was not sent to its end, so the link cannot carry another request.
        let (rest, _) = link.end();
        assert!(!contains(&rest, b"HTTP/1.1"), "a request behind half a body");
        edge.until_links(0);
    }
}

#[test]
fn an_answer_begun_early_streams_while_the_upload_goes_on() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n2\r\nup\r\n");
        link.head();
        assert_eq!(link.read(7), b"2\r\nup\r\n");
        link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n");
        client.head();
        assert_eq!(client.read(9), b"4\r\ndown\r\n");
        for _ in 0..10 {
            client.send("2\r\nup\r\n");
            assert_eq!(link.read(7), b"2\r\nup\r\n");
            link.send("4\r\ndown\r\n");
            assert_eq!(client.read(9), b"4\r\ndown\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(link.read(5), b"0\r\n\r\n");
        link.send("0\r\n\r\n");
        assert_eq!(client.read(5), b"0\r\n\r\n");
        client.get("/next");
        link.serve("next");
        assert_eq!(client.response().text(), "next");
    }
}

#[test]
fn an_early_answer_over_http2_resets_the_rest_of_the_upload() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        let mut client = edge.sent(start("POST", "/") + "Content-Length: 1000000\r\n\r\nfirst");
        let mut asked = worker.accept();
        assert_eq!(asked.read_some().expect("data").expect("open"), "first");
        let response = http::Response::builder().status(403).header("content-length", 2).body(()).expect("a response");
        let mut stream = asked.begin(response);
        stream.send_data("no".into(), true).expect("open");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (403, "no"));
        // Its credit is free again.
        let mut other = edge.sent(get("/other"));
        worker.accept().ok("other");
        assert_eq!(other.response().text(), "other");
    }
}

// ---- clients that leave ----

#[test]
fn a_client_that_leaves_leaves_the_queue() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let busy = H2Worker::dial(&edge, 1);
        let mut first = edge.sent(get("/first"));
        let asked = busy.accept();
        for request in [
            get("/gone"),
            post("/gone", "with a body"),
            post("/gone", &"x".repeat(100_000)),
            start("POST", "/gone") + "Content-Length: 10\r\n\r\nhalf",
            start("POST", "/gone") + "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
            start("POST", "/gone") + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
            [get("/gone"), get("/pipelined")].concat(),
        ] {
            for resets in [false, true] {
                let client = edge.sent(&request);
                edge.until_queued(1);
                if resets {
                    client.reset()
                } else {
                    drop(client)
                }
                edge.until_queued(0);
            }
        }
        let mut last = edge.sent(get("/last"));
        edge.until_queued(1);
        asked.ok("first");
        assert_eq!(first.response().text(), "first");
        let asked = busy.accept();
        assert_eq!(asked.path(), "/last", "a request whose client has left");
        asked.ok("last");
        assert_eq!(last.response().text(), "last");
        busy.is_quiet();
    }
}

#[test]
fn many_clients_that_leave_at_once_leave_nothing_behind() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let clients: Vec<_> = (0..200).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until_queued(200);
        drop(clients);
        let status = edge.until(|status| status["pools"][0]["queued"] == 0);
        assert_eq!(status["pools"][0]["queued_bytes"], 0);
        let worker = H2Worker::dial(&edge, 100);
        let mut client = edge.sent(get("/after"));
        let asked = worker.accept();
        assert_eq!(asked.path(), "/after");
        asked.ok("after");
        assert_eq!(client.response().text(), "after");
    }
}

#[test]
fn a_client_that_leaves_before_the_response_resets_the_stream() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        for request in [get("/"), post("/", "body"), start("POST", "/") + "Content-Length: 10\r\n\r\nhalf"] {
            let client = edge.sent(&request);
            let mut asked = worker.accept();
            drop(client);
            asked.reset_by_edge();
            edge.until_credits(1);
        }
    }
}

#[test]
fn a_client_that_leaves_during_the_response_resets_the_stream() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        let mut client = edge.sent(get("/"));
        let mut asked = worker.accept();
        let mut stream = asked.begin(http::Response::new(()));
        stream.send_data("some".into(), false).expect("open");
        assert_eq!(client.head().status(), 200);
        drop(client);
        let mut writer = stream;
        let reason = common::h2_worker::block_on(std::future::poll_fn(|cx| writer.poll_reset(cx))).expect("a reset");
        assert_eq!(reason, h2::Reason::CANCEL);
        edge.until_credits(1);
        // The link goes on.
        let mut other = edge.sent(get("/other"));
        worker.accept().ok("other");
        assert_eq!(other.response().text(), "other");
    }
}

#[test]
fn a_client_that_leaves_ends_its_http1_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for begins in [false, true] {
            let mut link = edge.h1_link();
            let client = edge.sent(get("/"));
            link.request();
            if begins {
                link.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
            }
            drop(client);
            link.ends();
            edge.until_links(0);
        }
    }
}

#[test]
fn a_body_that_breaks_off_is_never_completed() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for request in [
            start("POST", "/") + "Content-Length: 10\r\n\r\nhalf",
            start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-T: 1\r\n",
        ] {
            let mut link = edge.h1_link();
            let client = edge.sent(&request);
            link.head();
            drop(client);
            let (rest, _) = link.end();
            assert!(!contains(&rest, b"0\r\n"), "{request:?} became {:?}", String::from_utf8_lossy(&rest));
            assert!(rest.len() <= 9, "{:?}", String::from_utf8_lossy(&rest));
            edge.until_links(0);
        }
    }
}

// ---- connections that rest ----

/// Longer than a connection waits with its buffers.
fn rest() {
    std::thread::sleep(Duration::from_millis(ptth::limits::PARK_MS + 300));
}

#[test]
fn a_connection_that_rested_is_served_as_before() {
    let edge = edge();
    let _worker = edge.worker(serving(|request: &Message| ok(request.target())));
    let mut clients: Vec<Peer> = (0..5).map(|_| edge.client()).collect();
    for round in 0..2 {
        rest();
        for (index, client) in clients.iter_mut().enumerate() {
            let path = format!("/{round}/{index}");
            assert_eq!(client.ask(&path).text(), path);
        }
    }
    // A head in two parts, one of them before the rest would begin; an empty line alone is no head.
    clients[0].send("GET /parts HTTP/1.1\r\nHo");
    clients[1].send("\r\n");
    rest();
    clients[0].send("st: app.example\r\n\r\n");
    assert_eq!(clients[0].response().text(), "/parts");
    assert_eq!(clients[1].ask("/after").text(), "/after");
    // One that leaves while it rests leaves nothing behind.
    rest();
    clients.truncate(2);
    edge.until(|status| {
        let cores = status["cores"].as_array().expect("an array");
        cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum::<u64>() == 2
    });
    drop(clients);
}

#[test]
fn a_connection_that_rests_ends_after_its_time_and_with_a_drain() {
    let edge = setting().more("[limits]\nidle_max_wait = \"3s\"").start();
    let mut fresh = edge.client();
    let mut used = edge.sent("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
    assert_eq!(used.response().status(), 404);
    rest();
    fresh.is_quiet();
    let mut line = edge.sent("\r\n"); // no request
    fresh.ends();
    used.ends();
    line.ends();

    let edge = setting().more("[limits]\nidle_max_wait = \"1h\"").drain_max("1h").start();
    let mut resting: Vec<Peer> = (0..5).map(|_| edge.client()).collect();
    rest();
    edge.drain();
    for client in &mut resting {
        client.ends();
    }
    assert!(edge.wait());
}
