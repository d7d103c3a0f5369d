//! Workers that come, serve, misbehave and go: setups and their answers, credits, GOAWAY, lost links, malformed
//! responses, upgrades. Foreign workers only; our own is in `dispatch.rs`.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::time::{Duration, Instant};

use common::frames::{self, Frames};
use common::h2_worker::{H2Worker, block_on};
use common::peer::{End, start, statuses};
use common::{
    CORES, HANG, HOST, Message, ORIGIN, Peer, SECRET, TestEdge, assert_own, basic, edge, get, ok, pattern, post,
    setting, setup,
};
use ptth::limits::RETRY_PAUSE_MS;

// ---- setups ----

/// A second listener for each kind alone, and a pool and a credential that `web-1` has nothing to do with.
fn crowded() -> TestEdge {
    let more = format!(
        r#"
        [[listen]]
        address = "127.0.0.1:3"
        accept = ["clients"]
        [[listen]]
        address = "127.0.0.1:4"
        accept = ["workers"]
        [[pool]]
        name = "api"
        origins = ["https://api.example"]
        [[pool]]
        name = "both"
        origins = ["http://a.example", "https://b.example:8443"]
        [[credential]]
        id = "all"
        secret_hash = "{}"
        origins = ["*"]
        [[credential]]
        id = "old"
        secret_hash = "{}"
        origins = ["*"]
        expires = "2001-01-01T00:00:00Z"
        "#,
        common::secret_hash("all secret"),
        common::secret_hash("old secret"),
    );
    setting().more(&more).start()
}

/// A setup whose every part can be changed.
#[derive(Clone)]
struct Parts<'a> {
    line: &'a str,
    connection: &'a str,
    upgrade: &'a str,
    authorization: String,
    alpn: &'a str,
}

fn good() -> Parts<'static> {
    Parts {
        line: "GET /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1",
        connection: "Connection: upgrade\r\n",
        upgrade: "Upgrade: ptth\r\n",
        authorization: format!("Authorization: {}\r\n", basic("web-1", SECRET)),
        alpn: "ALPN: h2\r\n",
    }
}

impl Parts<'_> {
    fn text(&self) -> String {
        let Parts { line, connection, upgrade, authorization, alpn } = self;
        format!("{line}\r\nHost: edge.example\r\n{connection}{upgrade}{authorization}{alpn}\r\n")
    }
}

#[track_caller]
fn check_setup(edge: &TestEdge, parts: &Parts, status: u16) -> Message {
    let (mut link, answer) = edge.set_up(&parts.text());
    assert_eq!(answer.status(), status, "{}\n{answer:?}", parts.text());
    if status != 101 {
        assert!(answer.connection("close") && !answer.body.is_empty(), "{answer:?}");
        link.ends();
    }
    answer
}

#[test]
fn a_setup_is_answered_as_its_parts_deserve() {
    let edge = crowded();
    let as_all = || format!("Authorization: {}\r\n", basic("all", "all secret"));
    for (line, status) in [
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3a%2f%2fapp.example/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3A%2F%2FAPP.Example%3A80/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/https%3A%2F%2Fapp.example%3A8443/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example,https%3A%2F%2Fapp.example/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example,http%3A%2F%2Fapp.example/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/pool/app HTTP/1.1", 101),
        ("GET /.well-known/ptth/pool/app/ HTTP/1.1", 101),
        // syntax
        ("GET /.well-known/ptth/ HTTP/1.1", 400),
        ("GET /.well-known/ptth// HTTP/1.1", 400),
        ("GET /.well-known/ptth/null/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/,/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example,/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example,null/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%2F/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%2Fpath/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%3A/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%3A0/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%3A65536/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fu%40app.example/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2F*/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2F*.example/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/*/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/app.example/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/ftp%3A%2F%2Fapp.example/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2F/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%zz/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example%FF/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example/?q HTTP/1.1", 400),
        ("GET /.well-known/ptth/pool/ HTTP/1.1", 400),
        ("GET /.well-known/ptth/pool// HTTP/1.1", 400),
        // who may serve what
        ("GET /.well-known/ptth/https%3A%2F%2Fapi.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fnobody.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fx.app.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example.evil/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example,https%3A%2F%2Fapi.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/pool/api HTTP/1.1", 403),
        ("GET /.well-known/ptth/pool/nobody HTTP/1.1", 403),
        ("GET /.well-known/ptth/pool/APP HTTP/1.1", 403),
        // a target of an earlier draft: the credential has to say what is served, and this one has no whole origin
        ("GET /elsewhere HTTP/1.1", 403),
        // methods and versions of the setup itself
        ("POST /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1", 405),
        ("HEAD /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1", 405),
        ("get /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1", 405),
        ("GET /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.0", 426),
    ] {
        // A 405 to HEAD has no body; it is looked at below.
        if line.starts_with("HEAD") {
            let (mut link, answer) = (edge.client(), Parts { line, ..good() }.text());
            link.send(answer);
            assert_eq!(link.response_to_head().status(), status);
            continue;
        }
        check_setup(&edge, &Parts { line, ..good() }, status);
    }
    // A credential for everything is still bound to what some pool takes.
    for (line, status) in [
        ("GET /.well-known/ptth/https%3A%2F%2Fapi.example/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/https%3A%2F%2Fapi.example%3A443/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/https%3A%2F%2Fapi.example%3A444/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fapi.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/http%3A%2F%2Fnobody.example/ HTTP/1.1", 403),
        ("GET /.well-known/ptth/pool/both HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3A%2F%2Fa.example%2Chttps%3A%2F%2Fb.example%3A8443/ HTTP/1.1", 101),
        ("GET /.well-known/ptth/http%3A%2F%2Fa.example,https%3A%2F%2Fb.example/ HTTP/1.1", 403),
    ] {
        check_setup(&edge, &Parts { line, authorization: as_all(), ..good() }, status);
    }
    assert_eq!(edge.status()["counters"]["setups_refused"]["limit"], 0);
}

#[test]
fn a_setup_needs_its_upgrade_and_says_how() {
    let edge = crowded();
    for (connection, upgrade, status) in [
        ("Connection: Upgrade\r\n", "Upgrade: PTTH\r\n", 101),
        ("Connection: keep-alive, UPGRADE\r\n", "Upgrade: Ptth\r\n", 101),
        ("Connection: keep-alive\r\nConnection: upgrade\r\n", "Upgrade: ptth\r\n", 101),
        ("", "Upgrade: ptth\r\n", 426),
        ("Connection: close\r\n", "Upgrade: ptth\r\n", 426),
        ("Connection: upgrade\r\n", "", 426),
        ("Connection: upgrade\r\n", "Upgrade: websocket\r\n", 426),
        ("Connection: upgrade\r\n", "Upgrade: ptth2\r\n", 426),
        ("Connection: upgrade\r\n", "Upgrade: PTTH/1.0\r\n", 426),
    ] {
        let answer = check_setup(&edge, &Parts { connection, upgrade, ..good() }, status);
        if status == 426 {
            assert_eq!(answer.field("upgrade"), Some("ptth"), "RFC 9110 §15.5.22: {answer:?}");
        }
    }
    let answer = check_setup(&edge, &Parts { line: "PUT /.well-known/ptth/pool/app HTTP/1.1", ..good() }, 405);
    assert_eq!(answer.field("allow"), Some("GET"));
}

#[test]
fn a_setup_needs_a_credential() {
    let edge = crowded();
    for (authorization, status) in [
        (basic("web-1", SECRET), 101),
        (basic("web-1", SECRET).replace("Basic", "bASIC"), 101),
        (format!("Bearer {SECRET}"), 101),
        (String::new(), 401),
        (basic("web-1", "wrong"), 401),
        (basic("web-1", ""), 401),
        (basic("", SECRET), 401),
        (basic("web-2", SECRET), 401),
        (basic("web-1", "all secret"), 401),
        (basic("old", "old secret"), 401),
        ("Bearer wrong".to_owned(), 401),
        ("Bearer web-1".to_owned(), 401),
        (format!("Digest username=\"web-1\", response=\"{SECRET}\""), 401),
        (SECRET.to_owned(), 401),
    ] {
        let authorization =
            if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
        let answer = check_setup(&edge, &Parts { authorization, ..good() }, status);
        assert_eq!(!answer.all("www-authenticate").is_empty(), status == 401, "{answer:?}");
    }
}

#[test]
fn a_setup_needs_a_version_in_common() {
    let edge = crowded();
    for (alpn, status, chosen) in [
        ("ALPN: h2\r\n", 101, "h2"),
        ("ALPN: h2, http%2F1.1\r\n", 101, "h2"),
        ("ALPN: http%2F1.1, h2\r\n", 101, "h2"),
        ("ALPN: http%2F1.1\r\nALPN: h2\r\n", 101, "h2"),
        ("ALPN: http%2F1.1\r\n", 101, "http%2F1.1"),
        ("ALPN: http%2f1.1\r\n", 101, "http%2F1.1"),
        ("alpn: h3qx,http%2F1.1\r\n", 101, "http%2F1.1"),
        ("ALPN: h3qx, spdy%2F3, h2\r\n", 101, "h2"),
        ("ALPN: h3qx\r\n", 406, ""),
        ("ALPN: h3\r\n", 406, ""),
        ("ALPN: H2\r\n", 406, ""),
        ("ALPN: http%2F1.0\r\n", 406, ""),
        ("", 400, ""),
        ("ALPN: \r\n", 400, ""),
        ("ALPN: ,\r\n", 400, ""),
        ("ALPN: http/1.1\r\n", 400, ""),
        ("ALPN: h2;q=1\r\n", 400, ""),
        ("ALPN: h%2\r\n", 400, ""),
        ("ALPN: %zz\r\n", 400, ""),
        ("ALPN: \"h2\"\r\n", 400, ""),
    ] {
        let answer = check_setup(&edge, &Parts { alpn, ..good() }, status);
        match status {
            101 => {
                assert_eq!(answer.field("alpn"), Some(chosen), "{alpn}");
                assert_eq!(answer.field("upgrade"), Some("ptth"));
                assert!(answer.connection("upgrade"), "{answer:?}");
                assert_eq!(answer.field("selected-alpn"), None);
            }
            406 => assert!(answer.text().contains("h2") && answer.text().contains("http%2F1.1"), "{answer:?}"),
            _ => {}
        }
    }
}

#[test]
fn the_predecessor_is_answered_in_its_own_terms() {
    let edge = edge();
    for token in ["reverse", "Reverse"] {
        let upgrade = format!("Upgrade: {token}\r\n");
        let answer = check_setup(&edge, &Parts { upgrade: &upgrade, alpn: "ALPN: http%2F1.1, h2\r\n", ..good() }, 101);
        assert_eq!((answer.field("selected-alpn"), answer.field("alpn")), (Some("h2"), None), "{answer:?}");
        assert_eq!(answer.field("upgrade"), Some("reverse"));
    }
    let setup = setup(ORIGIN, "http%2F1.1").replace("Upgrade: ptth", "Upgrade: reverse");
    let (mut link, answer) = edge.set_up(&setup);
    assert_eq!(answer.field("selected-alpn"), Some("http%2F1.1"));
    edge.until(|status| status["pools"][0]["credits"].as_u64() > Some(0));
    let mut client = edge.sent(get("/"));
    link.serve("turned");
    assert_eq!(client.response().text(), "turned");
}

#[test]
fn the_checks_of_a_setup_have_their_order() {
    let edge = setting().credential("links_max = 1").start();
    let (_link, answer) = edge.set_up(&good().text());
    assert_eq!(answer.status(), 101);
    let forbidden = "GET /.well-known/ptth/http%3A%2F%2Fnobody.example/ HTTP/1.1";
    let wrong = || format!("Authorization: {}\r\n", basic("web-1", "wrong"));
    let malformed = "GET /.well-known/ptth/null/ HTTP/1.1";
    for (parts, status) in [
        (Parts { line: malformed, authorization: wrong(), alpn: "ALPN: h3\r\n", ..good() }, 400),
        (Parts { line: forbidden, authorization: wrong(), alpn: "", ..good() }, 400),
        (Parts { line: forbidden, authorization: wrong(), alpn: "ALPN: h3\r\n", ..good() }, 401),
        (Parts { line: forbidden, alpn: "ALPN: h3\r\n", ..good() }, 403),
        (Parts { alpn: "ALPN: h3\r\n", ..good() }, 406),
        (good(), 429),
        (Parts { line: "POST /.well-known/ptth/null/ HTTP/1.1", authorization: wrong(), upgrade: "", ..good() }, 405),
    ] {
        check_setup(&edge, &parts, status);
    }
}

#[test]
fn a_credential_holds_only_so_many_links() {
    for cores in CORES {
        let edge = setting().cores(cores).credential("links_max = 2").start();
        let first = edge.h1_link();
        let _second = edge.h1_link();
        for alpn in ["h2", "http%2F1.1"] {
            let (mut third, answer) = edge.set_up(&setup(ORIGIN, alpn));
            assert_eq!(answer.status(), 429, "{answer:?}");
            assert!(answer.field("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{answer:?}");
            third.ends();
        }
        drop(first);
        edge.until_links(1);
        // The seat is free a moment after the link is gone.
        let from = Instant::now();
        let link = loop {
            let (link, answer) = edge.set_up(&setup(ORIGIN, "http%2F1.1"));
            if answer.status() == 101 {
                break link;
            }
            assert!(answer.status() == 429 && from.elapsed() < HANG, "{answer:?}");
        };
        edge.until_links(2);
        drop(link);
    }
}

#[test]
fn an_address_serves_only_whom_it_accepts() {
    let edge = crowded();
    let (for_clients, for_workers) = (edge.addresses[1], edge.addresses[2]);
    let mut link = Peer::connect(for_clients);
    link.send(good().text());
    assert_eq!(link.response().status(), 404);
    link.ends();
    let mut client = Peer::connect(for_workers);
    assert_own(&client.ask("/"), 404, "destination_not_found");
    let mut link = Peer::connect(for_workers);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    let mut client = Peer::connect(for_clients);
    client.get("/");
    assert_eq!(link.serve("both").target(), "/");
    assert_eq!(client.response().text(), "both");
}

#[test]
fn bytes_behind_a_setup_close_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for alpn in ["h2", "http%2F1.1"] {
            for behind in ["x", "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &get("/")] {
                let mut link = edge.client();
                link.send_if_open(setup(ORIGIN, alpn) + behind);
                link.ends();
            }
        }
        assert_eq!(edge.status()["links"], serde_json::json!([]));
    }
}

#[test]
fn a_setup_behind_a_request_is_a_setup() {
    let edge = edge();
    let mut link = edge.sent("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(link.response().status(), 404);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    let mut client = edge.sent(get("/"));
    link.serve("turned");
    assert_eq!(client.response().text(), "turned");
}

#[test]
fn a_setup_while_the_edge_drains_is_a_503() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let _busy = edge.sent(get("/"));
        link.request();
        let text = setup(ORIGIN, "h2");
        let mut late = edge.sent(&text[..40]);
        common::peer::until(|| {
            edge.status()["cores"].as_array().is_some_and(|cores| {
                cores.iter().map(|core| core["connections"].as_u64().unwrap_or(0)).sum::<u64>() == 2
            })
        });
        edge.drain();
        edge.until(|status| status["draining"] == true);
        late.send(&text[40..]);
        let answer = late.response();
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
        late.ends();
        link.ok("done");
    }
}

#[test]
fn a_link_that_expires_is_drained() {
    let expires = jiff::Timestamp::from_second(common::unix_seconds() as i64 + 3).expect("a time");
    let edge = setting().credential(&format!("expires = \"{expires}\"")).start();
    let mut link = Frames::dial(&edge, 5);
    let mut h1 = edge.h1_link();
    let mut client = edge.sent(get("/"));
    let (on_h2, stream) = if link.peer.has_some_soon() { (true, link.request()) } else { (false, 0) };
    if !on_h2 {
        h1.request();
    }
    // wire-formats §7: in-flight requests finish, then GOAWAY and the end. (h2's client half has no GOAWAY of its own
    // while a stream is open.)
    if on_h2 {
        h1.ends();
        link.ok(stream, "finished");
    }
    let goaway = link.next(|frame| frame.kind == frames::GOAWAY);
    assert_eq!(u32::from_be_bytes(goaway.payload[4..8].try_into().expect("a code")), frames::NO_ERROR);
    if !on_h2 {
        h1.ok("finished");
        h1.ends();
    }
    assert_eq!(client.response().text(), "finished");
    link.ends();
    edge.until_links(0);
    assert_eq!(edge.set_up(&setup(ORIGIN, "h2")).1.status(), 401);
}

// ---- credits ----

#[test]
fn requests_never_exceed_the_credits_of_a_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = Frames::dial(&edge, 3);
        let mut clients: Vec<_> = (0..12).map(|n| edge.sent(post("/", &n.to_string()))).collect();
        let mut open: Vec<u32> = (0..3).map(|_| link.request()).collect();
        edge.until_queued(9);
        link.is_quiet();

        link.ok(open.remove(0), "");
        open.push(link.request());
        link.is_quiet();

        link.credits(5);
        open.push(link.request());
        open.push(link.request());
        link.is_quiet();
        edge.until_queued(6);

        // Fewer than are open: no new one before enough have ended.
        link.credits(2);
        for stream in open.drain(..3) {
            link.ok(stream, "");
            link.is_quiet();
        }
        link.ok(open.remove(0), "");
        open.push(link.request());
        link.is_quiet();

        link.credits(0);
        for stream in open.drain(..) {
            link.ok(stream, "");
        }
        link.is_quiet();
        assert_eq!(common::credits(&edge.status()), 0);

        link.credits(100);
        let rest: Vec<u32> = (0..5).map(|_| link.request()).collect();
        for stream in rest {
            link.ok(stream, "");
        }
        link.is_quiet();
        assert!(statuses(&mut clients).iter().all(|status| *status == 200));
        edge.until_credits(100);
    }
}

impl Frames {
    /// For a moment no request comes.
    #[track_caller]
    fn is_quiet(&mut self) {
        // The end of a body, window updates and the like may still come.
        let until = Instant::now() + common::QUIET;
        while Instant::now() < until {
            if self.peer.has_some() {
                let frame = self.frame().expect("the link stays");
                assert_ne!(frame.kind, frames::HEADERS, "a request came: {frame:?}");
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_pool_bounds_what_one_link_gets() {
    let edge = setting().pool("per_link_max = 2").start();
    let mut link = Frames::dial(&edge, 100);
    let mut clients: Vec<_> = (0..3).map(|_| edge.sent(get("/"))).collect();
    let (a, b) = (link.request(), link.request());
    link.is_quiet();
    link.ok(a, "");
    let c = link.request();
    link.ok(b, "");
    link.ok(c, "");
    assert_eq!(statuses(&mut clients), [200; 3]);
}

#[test]
fn a_worker_that_names_no_bound_gets_what_the_pool_allows() {
    let edge = setting().pool("per_link_max = 2").start();
    let mut link = Frames::dial_with(&edge, &[]);
    let mut clients: Vec<_> = (0..2).map(|_| edge.sent(get("/"))).collect();
    let (a, b) = (link.request(), link.request());
    link.ok(a, "");
    link.ok(b, "");
    assert_eq!(statuses(&mut clients), [200; 2]);
}

#[test]
fn no_request_before_the_workers_settings() {
    let edge = edge();
    let mut client = edge.sent(get("/"));
    let (mut peer, answer) = edge.set_up(&setup(ORIGIN, "h2"));
    assert_eq!(answer.status(), 101);
    assert_eq!(peer.read(24), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    edge.until_links(1);
    edge.until_queued(1);
    let mut link = Frames { peer };
    link.next(|frame| frame.kind == frames::SETTINGS);
    link.is_quiet();
    link.settings(&[(frames::MAX_CONCURRENT_STREAMS, 1)]);
    let stream = link.request();
    link.ok(stream, "now");
    assert_eq!(client.response().text(), "now");
}

#[test]
fn two_workers_of_one_origin_both_serve_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let (mut a, mut b) = (edge.h1_link(), Frames::dial(&edge, 1));
        edge.until_credits(2);
        let mut clients = [edge.sent(get("/1")), edge.sent(get("/2"))];
        a.request();
        let stream = b.request();
        a.ok("from a");
        b.ok(stream, "from b");
        assert_eq!(statuses(&mut clients), [200; 2]);
    }
}

// ---- foreign libraries ----

#[test]
fn hyper_serves_as_a_worker_over_both_versions() {
    use http_body_util::{BodyExt as _, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    async fn echo(
        request: hyper::Request<hyper::body::Incoming>,
    ) -> Result<hyper::Response<Full<bytes::Bytes>>, hyper::Error> {
        let line = format!("{} {} ", request.method(), request.uri().path());
        let body = request.into_body().collect().await?.to_bytes();
        Ok(hyper::Response::new(Full::new([line.into_bytes(), body.to_vec()].concat().into())))
    }

    for cores in CORES {
        for alpn in ["h2", "http%2F1.1"] {
            let edge = setting().cores(cores).start();
            let (link, answer) = edge.set_up(&setup(ORIGIN, alpn));
            assert_eq!(answer.status(), 101);
            let (stream, left) = link.into_parts();
            assert!(left.is_empty() || alpn == "h2");
            common::h2_worker::runtime().spawn(async move {
                let io = TokioIo::new(common::h2_worker::Prefixed::new(stream, left));
                if alpn == "h2" {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service_fn(echo))
                        .await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(echo)).await;
                }
            });
            edge.until(|status| common::credits(status) > 0);
            let mut client = edge.client();
            for round in 0..20 {
                let body = "x".repeat(round * 5_000);
                client.send(post(&format!("/{round}"), &body));
                assert_eq!(client.response().text(), format!("POST /{round} {body}"));
            }
        }
    }
}

// ---- GOAWAY and REFUSED_STREAM ----

#[test]
fn after_goaway_what_runs_finishes_and_what_is_new_goes_elsewhere() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut old = Frames::dial(&edge, 10);
        let mut first = edge.sent(get("/first"));
        let stream = old.request();
        old.goaway(stream, frames::NO_ERROR);
        edge.until_credits(0);
        let mut second = edge.sent(get("/second"));
        edge.until_queued(1);
        let mut new = Frames::dial_with(&edge, &[(frames::MAX_CONCURRENT_STREAMS, 10)]);
        let other = new.request();
        new.ok(other, "new");
        assert_eq!(second.response().text(), "new");
        old.ok(stream, "old");
        assert_eq!(first.response().text(), "old");
        // The edge has no more use for it.
        old.ends();
    }
}

#[test]
fn streams_above_the_last_id_are_served_by_another_worker_exactly_once() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 0").start();
        let mut old = Frames::dial(&edge, 10);
        let mut first = edge.sent(post("/", "first"));
        let a = old.request();
        assert_eq!(old.body(a), b"first");
        let mut clients = vec![edge.sent(post("/", "second"))];
        old.request();
        clients.push(edge.sent(get("/third")));
        old.request();
        old.goaway(a, frames::NO_ERROR);
        edge.until_queued(2);
        let new = H2Worker::dial(&edge, 10);
        for _ in 0..2 {
            let mut asked = new.accept();
            let (body, _) = asked.read_body().expect("whole");
            let answer = if asked.path() == "/third" { "third" } else { "second" };
            assert_eq!(body, if answer == "third" { &b""[..] } else { b"second" });
            asked.ok(answer);
        }
        assert_eq!(clients[0].response().text(), "second");
        assert_eq!(clients[1].response().text(), "third");
        new.is_quiet();
        old.ok(a, "first");
        assert_eq!(first.response().text(), "first");
    }
}

#[test]
fn a_refused_stream_is_served_by_another_worker_exactly_once() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 0").start();
        for request in [get("/"), post("/", "hello"), post("/", &"x".repeat(60_000))] {
            let mut refuses = Frames::dial(&edge, 1);
            let mut client = edge.sent(&request);
            let stream = refuses.request();
            refuses.settings(&[(frames::MAX_CONCURRENT_STREAMS, 0)]);
            refuses.reset(stream, frames::REFUSED_STREAM);
            edge.until_queued(1);
            let serves = H2Worker::dial(&edge, 10);
            let mut asked = serves.accept();
            let (body, _) = asked.read_body().expect("whole");
            assert!(request.as_bytes().ends_with(&body) && body.is_empty() == request.starts_with("GET"));
            asked.ok("served");
            assert_eq!(client.response().text(), "served");
            serves.is_quiet();
            drop(refuses);
            serves.lose();
            edge.until_links(0);
        }
    }
}

#[test]
fn a_refused_body_is_told_from_its_start() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = Frames::dial(&edge, 1);
        let mut client = edge.sent(start("POST", "/") + "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        let stream = link.request();
        assert_eq!(link.next(|frame| frame.kind == frames::DATA).payload, b"first");
        link.reset(stream, frames::REFUSED_STREAM);
        let again = link.request();
        assert!(again > stream);
        assert_eq!(link.next(|frame| frame.kind == frames::DATA).payload, b"first");
        client.send("6\r\nsecond\r\n0\r\n\r\n");
        assert_eq!(link.body(again), b"second");
        link.ok(again, "both");
        assert_eq!(client.response().text(), "both");
    }
}

#[test]
fn a_refused_request_whose_body_is_gone_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        let body = pattern(70_000);
        let mut client = edge.client();
        client.send([start("PUT", "/").as_bytes(), b"Content-Length: 70000\r\n\r\n", &body].concat());
        let mut asked = worker.accept();
        assert_eq!(asked.read_body().expect("whole").0, body);
        asked.reset(h2::Reason::REFUSED_STREAM);
        assert_own(&client.response(), 502, "connection_terminated");
        worker.is_quiet();
        // The connection goes on.
        client.get("/next");
        worker.accept().ok("next");
        assert_eq!(client.response().text(), "next");
    }
}

#[test]
fn a_body_of_64_kib_is_still_at_hand() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 1);
        let body = pattern(64 * 1024);
        let mut client = edge.client();
        client.send([start("POST", "/").as_bytes(), b"Content-Length: 65536\r\n\r\n", &body].concat());
        for _ in 0..5 {
            let mut asked = worker.accept();
            assert_eq!(asked.read_body().expect("whole").0, body);
            asked.reset(h2::Reason::REFUSED_STREAM);
        }
        let mut asked = worker.accept();
        assert_eq!(asked.read_body().expect("whole").0, body);
        asked.ok("at last");
        assert_eq!(client.response().text(), "at last");
    }
}

#[test]
fn a_worker_that_refuses_everything_is_not_asked_for_ever() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"1s\" }").start();
        let worker = H2Worker::dial(&edge, 10);
        std::thread::spawn(move || {
            loop {
                worker.accept().reset(h2::Reason::REFUSED_STREAM);
            }
        });
        let mut client = edge.sent(get("/"));
        assert_own(&client.response(), 503, "connection_timeout");
        assert_own(&client.ask("/again"), 503, "connection_timeout");
    }
}

#[test]
fn a_request_that_comes_back_has_its_old_place() {
    // One queue for each core: between cores the order is only about that of arrival.
    for cores in [1] {
        let edge = setting().cores(cores).start();
        let old = H2Worker::dial(&edge, 1);
        let mut clients = vec![edge.sent(get("/0"))];
        let asked = old.accept();
        for n in 1..5 {
            clients.push(edge.sent(get(&format!("/{n}"))));
            edge.until_queued(n);
        }
        old.lose();
        drop(asked);
        edge.until_queued(5);
        let new = H2Worker::dial(&edge, 1);
        for n in 0..5 {
            let asked = new.accept();
            assert_eq!(asked.path(), format!("/{n}"));
            asked.ok("");
        }
        assert_eq!(statuses(&mut clients), [200; 5]);
    }
}

// ---- lost links ----

#[test]
fn an_idempotent_request_whose_link_is_lost_is_sent_again() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let request = start(method, "/") + "Content-Length: 5\r\n\r\nhello";
            for version in ["h1", "h1 reset", "h2", "h2 reset"] {
                eprintln!("{cores} cores, {method}, {version}"); // shown where it hangs
                let mut client = edge.client();
                match version {
                    "h2" => {
                        let lost = H2Worker::dial(&edge, 1);
                        client.send(&request);
                        let _asked = lost.accept();
                        lost.lose();
                    }
                    "h2 reset" => {
                        let mut lost = Frames::dial(&edge, 1);
                        client.send(&request);
                        let stream = lost.request();
                        lost.settings(&[(frames::MAX_CONCURRENT_STREAMS, 0)]);
                        lost.reset(stream, frames::INTERNAL_ERROR);
                        edge.until_queued(1);
                    }
                    _ => {
                        let mut lost = edge.h1_link();
                        client.send(&request);
                        lost.request();
                        if version == "h1" { drop(lost) } else { lost.reset() }
                    }
                }
                edge.until_queued(1);
                let mut link = edge.h1_link();
                let seen = link.request();
                assert_eq!((seen.method(), seen.text()), (method, "hello"), "{version}");
                link.send("HTTP/1.1 204 No Content\r\n\r\n");
                assert_eq!(client.response().status(), 204, "{method} {version}");
                drop(link);
                edge.until_links(0);
            }
        }
    }
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for method in ["POST", "PATCH", "PROPFIND", "get"] {
            let request = start(method, "/") + "Content-Length: 5\r\n\r\nhello";
            for version in ["h1", "h2", "h2 reset"] {
                eprintln!("{cores} cores, {method}, {version}");
                let mut client = edge.client();
                match version {
                    "h2" => {
                        let lost = H2Worker::dial(&edge, 1);
                        client.send(&request);
                        let _asked = lost.accept();
                        lost.lose();
                    }
                    "h2 reset" => {
                        let mut lost = Frames::dial(&edge, 1);
                        client.send(&request);
                        let stream = lost.request();
                        lost.reset(stream, frames::CANCEL);
                        edge.until_credits(1);
                    }
                    _ => {
                        let mut lost = edge.h1_link();
                        client.send(&request);
                        lost.request();
                    }
                }
                let answer = client.response();
                assert_own(&answer, 502, "connection_terminated");
                assert_eq!(edge.status()["pools"][0]["queued"], 0);
                // The client's connection is none the worse.
                client.get("/next");
                edge.until(|status| status["pools"][0]["queued"] == 1);
                let mut link = edge.h1_link();
                assert_eq!(link.serve("next").target(), "/next");
                assert_eq!(client.response().text(), "next", "{method} {version}");
                drop(link);
                edge.until_links(0);
            }
        }
    }
}

#[test]
fn a_request_is_sent_again_so_often_and_no_more() {
    for cores in CORES {
        for retries_max in [0, 1, 2] {
            let edge = setting().cores(cores).pool(&format!("retries_max = {retries_max}")).start();
            let worker = H2Worker::dial(&edge, 1);
            let mut client = edge.sent(get("/"));
            for _ in 0..=retries_max {
                worker.accept().reset(h2::Reason::INTERNAL_ERROR);
            }
            assert_own(&client.response(), 502, "connection_terminated");
            worker.is_quiet();
        }
    }
}

#[test]
fn what_was_refused_leaves_its_retries_as_they_were() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 1").start();
        let worker = H2Worker::dial(&edge, 1);
        let mut client = edge.sent(get("/"));
        for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::REFUSED_STREAM, h2::Reason::INTERNAL_ERROR] {
            worker.accept().reset(reason);
        }
        worker.accept().ok("after all");
        assert_eq!(client.response().text(), "after all");
        worker.is_quiet();
    }
}

#[test]
fn what_was_lost_twice_pauses_before_it_is_sent_again() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 3").start();
        let worker = H2Worker::dial(&edge, 1);
        let mut client = edge.sent(get("/"));
        worker.accept().reset(h2::Reason::INTERNAL_ERROR);
        let mut asked = worker.accept();
        for _ in 0..2 {
            let since = Instant::now();
            asked.reset(h2::Reason::INTERNAL_ERROR);
            asked = worker.accept();
            assert!(since.elapsed() >= Duration::from_millis(RETRY_PAUSE_MS), "{:?}", since.elapsed());
        }
        asked.ok("at last");
        assert_eq!(client.response().text(), "at last");
    }
}

#[test]
fn all_requests_of_a_lost_link_move() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let old = H2Worker::dial(&edge, 50);
        let mut clients: Vec<_> = (0..50).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        let asked: Vec<_> = (0..50).map(|_| old.accept()).collect();
        old.lose();
        drop(asked);
        edge.until_queued(50);
        let new = H2Worker::dial(&edge, 50);
        let mut paths: Vec<String> = (0..50)
            .map(|_| {
                let asked = new.accept();
                let path = asked.path().to_owned();
                asked.ok(&path);
                path
            })
            .collect();
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 50);
        new.is_quiet();
    }
}

#[test]
fn a_link_lost_while_a_large_body_goes_up_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for alpn in ["h1", "h2"] {
            let mut client = edge.client();
            let head = start("PUT", "/") + "Content-Length: 10000000\r\n\r\n";
            if alpn == "h1" {
                let mut link = edge.h1_link();
                client.send(head);
                client.send(vec![b'x'; 100_000]);
                link.head();
                link.read(100_000);
                drop(link);
            } else {
                let worker = H2Worker::dial(&edge, 1);
                client.send(head);
                client.send(vec![b'x'; 100_000]);
                let mut asked = worker.accept();
                let mut seen = 0;
                while seen < 100_000 {
                    seen += asked.read_some().expect("data").expect("open").len();
                }
                worker.lose();
            }
            assert_own(&client.response(), 502, "connection_terminated");
            edge.until_links(0);
        }
    }
}

#[test]
fn a_link_whose_worker_falls_silent_is_given_up_and_its_request_moves() {
    let edge = edge();
    let mut silent = Frames::dial(&edge, 1);
    let mut client = edge.sent(get("/"));
    silent.request();
    silent.peer.end(); // reads the PING, answers nothing
    edge.until_queued(1);
    let mut link = edge.h1_link();
    link.serve("moved");
    assert_eq!(client.response().text(), "moved");
}

// ---- responses that break off ----

#[test]
fn a_response_that_breaks_off_is_never_ended_as_complete() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for (head, body) in [
            ("Content-Length: 100\r\n", "some"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n3\r\nhal"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n0\r\n"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n0\r\nX-T: 1\r\n"),
            ("", "some"),
        ] {
            for resets in [false, true] {
                if head.is_empty() && !resets {
                    continue; // that is its end
                }
                let mut link = edge.h1_link();
                let mut client = edge.sent(get("/"));
                link.request();
                link.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"));
                let mut answer = client.head();
                assert_eq!(answer.status(), 200);
                client.read_until(b"some");
                if resets {
                    link.reset()
                } else {
                    drop(link)
                }
                let chunked = answer.framing == common::peer::Framing::Chunked;
                if chunked {
                    // What is left of the chunk that was read above.
                    let (rest, _) = client.end();
                    assert!(!common_ends(&rest), "{head}{body}: {:?}", String::from_utf8_lossy(&rest));
                } else {
                    assert!(client.body(&mut answer).is_err(), "{head}{body}: {answer:?}");
                }
                edge.until_links(0);
            }
        }
    }
}

/// Whether this ends a chunked body.
fn common_ends(rest: &[u8]) -> bool {
    rest.windows(3).any(|three| three == b"0\r\n")
}

#[test]
fn a_response_reset_in_the_middle_is_cut() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        for length in [Some(100), None] {
            for reason in
                [h2::Reason::INTERNAL_ERROR, h2::Reason::REFUSED_STREAM, h2::Reason::NO_ERROR, h2::Reason::CANCEL]
            {
                let mut client = edge.sent(get("/"));
                let mut asked = worker.accept();
                let mut response = http::Response::builder();
                if let Some(length) = length {
                    response = response.header("content-length", length);
                }
                let mut stream = asked.begin(response.body(()).expect("a response"));
                stream.send_data("some".into(), false).expect("open");
                client.head();
                client.read_until(b"some");
                stream.send_reset(reason);
                let (rest, _) = client.end();
                assert!(rest.len() <= 2 && !common_ends(&rest), "{reason:?}: {:?}", String::from_utf8_lossy(&rest));
                worker.is_quiet();
            }
        }
        edge.until_credits(10);
    }
}

#[test]
fn an_answer_without_an_end_is_cut_with_its_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut client = edge.sent(get("/"));
            let mut asked = worker.accept();
            let mut stream = asked.begin(http::Response::new(()));
            stream.send_data("some".into(), false).expect("open");
            client.head();
            assert_eq!(client.read(9), b"4\r\nsome\r\n");
            clients.push(client);
            streams.push(stream);
        }
        worker.lose();
        for mut client in clients {
            client.ends();
        }
    }
}

// ---- malformed responses ----

/// A worker's bytes that can be no response's head.
const RESPONSES: &[&[u8]] = &[
    b"garbage\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    b"\x15\x03\x01\x00\x02\x02\x46",
];

fn malformed_responses() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = RESPONSES.iter().map(|bytes| bytes.to_vec()).collect();
    let long = "y".repeat(9_000);
    all.push(format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 0\r\n\r\n").into());
    all.push(
        format!("HTTP/1.1 200 OK\r\nX: {0}\r\nY: {0}\r\nZ: {0}\r\nContent-Length: 0\r\n\r\n", &long[..7000]).into(),
    );
    all.push(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(100)).into());
    all
}

#[test]
fn a_malformed_response_is_a_502_and_ends_its_link_alone() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for bytes in malformed_responses() {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            let mut bad = edge.h1_link();
            let mut client = edge.sent(get("/"));
            bad.request();
            let other = edge.h1_link();
            bad.send_if_open(&bytes);
            let answer = client.response();
            assert_eq!(answer.status(), 502, "{shown:?}: {answer:?}");
            assert_own(&answer, 502, "http_protocol_error");
            bad.ends();
            edge.until_links(1);
            // The client goes on, over the other link.
            let mut other = other;
            client.get("/next");
            other.serve("next");
            assert_eq!(client.response().text(), "next", "{shown:?}");
            drop(other);
            edge.until_links(0);
        }
    }
}

#[test]
fn a_malformed_response_is_a_502_wherever_it_is_cut() {
    let edge = edge();
    for bytes in RESPONSES {
        let step = 1 + bytes.len() / 8;
        for cut in (1..bytes.len()).step_by(step) {
            let mut bad = edge.h1_link();
            let mut client = edge.sent(get("/"));
            bad.request();
            bad.send_if_open(&bytes[..cut]);
            std::thread::sleep(Duration::from_millis(1));
            bad.send_if_open(&bytes[cut..]);
            let answer = client.response();
            assert_eq!(answer.status(), 502, "cut at {cut} {:?}: {answer:?}", String::from_utf8_lossy(bytes));
            bad.ends();
            edge.until_links(0);
        }
    }
}

#[test]
fn a_malformed_response_body_is_never_ended_as_complete() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for body in [
            "x\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "10000000000000000\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
            "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            &format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(5000)),
        ] {
            for with_head in [true, false] {
                let mut link = edge.h1_link();
                let mut client = edge.sent(get("/"));
                link.request();
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                if with_head {
                    link.send_if_open(format!("{head}{body}"));
                } else {
                    link.send(head);
                    client.wait_for_some();
                    link.send_if_open(body);
                }
                // Found together with its head it may still become a 502; else there is the head, and then the cut: a client
                // that sees neither might send its request again.
                let mut answer = client.head();
                if answer.status() == 502 {
                    assert!(with_head);
                    client.body(&mut answer).expect("whole");
                    assert_own(&answer, 502, "http_protocol_error");
                } else {
                    assert!(client.body(&mut answer).is_err(), "{body:?}: {answer:?}");
                }
                link.ends();
                edge.until_links(0);
            }
        }
    }
}

#[test]
fn a_response_that_nobody_asked_for_ends_its_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        link.send(ok("unasked"));
        link.ends();
        edge.until_links(0);
        let mut client = edge.sent(get("/"));
        edge.until_queued(1);
        let mut link = edge.h1_link();
        link.serve("asked");
        assert_eq!(client.response().text(), "asked");
    }
}

#[test]
fn a_second_response_never_answers_the_next_request() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for pipelined in [true, false] {
            let mut link = edge.h1_link();
            // Two of one connection, or one that waits on another: both come at once when the link is free.
            let mut first = edge.sent(if pipelined { [get("/1"), get("/2")].concat() } else { get("/1") });
            assert_eq!(link.request().target(), "/1");
            let mut second = if pipelined { None } else { Some(edge.sent(get("/2"))) };
            if !pipelined {
                edge.until_queued(1);
            }
            link.send(ok("one") + &ok("poison"));
            assert_eq!(first.response().text(), "one");
            let from = Instant::now();
            while edge.status()["pools"][0]["queued"] != 1 {
                assert!(from.elapsed() < HANG, "the second request does not wait for an honest link");
            }
            let mut honest = edge.h1_link();
            assert_eq!(honest.serve("two").target(), "/2");
            assert_eq!(second.as_mut().unwrap_or(&mut first).response().text(), "two");
            drop((link, honest));
            edge.until_links(0);
        }
    }
}

#[test]
fn a_body_behind_a_bodiless_answer_never_answers_the_next_request() {
    let edge = edge();
    for (request, answer) in [
        (start("HEAD", "/1") + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 63\r\n\r\n"),
        (get("/1"), "HTTP/1.1 204 No Content\r\n\r\n"),
        (get("/1"), "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (get("/1"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut link = edge.h1_link();
        let mut client = edge.sent([&*request, &*get("/2")].concat());
        link.request();
        link.send(format!("{answer}{}", ok("poison")));
        client.response_to_head();
        edge.until_queued(1);
        let mut honest = edge.h1_link();
        assert_eq!(honest.serve("two").target(), "/2");
        assert_eq!(client.response().text(), "two");
        drop((link, honest));
        edge.until_links(0);
    }
}

#[test]
fn an_http2_response_that_breaks_its_stream_is_a_502_and_hurts_no_other() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut bystander_link = edge.h1_link();
        let mut bystander = edge.sent(get("/bystander"));
        bystander_link.request();
        let long = "y".repeat(20_000);
        let cases: &[&[(&str, &str)]] = &[
            &[("x", "y")],
            &[(":status", "20")],
            &[(":status", "abc")],
            &[(":status", "")],
            &[(":status", "200"), (":status", "200")],
            &[("x", "y"), (":status", "200")],
            &[(":status", "200"), ("X-Upper", "y")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("transfer-encoding", "chunked")],
            &[(":status", "200"), ("x y", "z")],
            &[(":status", "200"), ("x\"y", "z")],
            &[(":status", "200"), ("x", "a\r\nset-cookie: b")],
            &[(":status", "200"), ("x", "a\0b")],
            &[(":status", "200"), ("content-length", "x")],
            &[(":status", "200"), ("content-length", "5"), ("content-length", "6")],
            &[(":status", "101")],
            &[(":status", "200"), ("x", &long)],
        ];
        for fields in cases {
            // Whether the engine ends the stream or the whole link, it is this link alone.
            let mut link = Frames::dial(&edge, 10);
            let mut client = edge.sent(post("/", "not idempotent"));
            let stream = link.request();
            link.big_head(stream, fields);
            let answer = client.response();
            assert_eq!(answer.status(), 502, "{:?}: {answer:?}", shown(fields));
            assert_own(&answer, 502, "http_protocol_error");
            drop(link);
            edge.until_links(1);
        }
        let mut link = Frames::dial(&edge, 10);
        // A body that is not what its length said.
        for (length, bytes) in [("5", "hell"), ("5", "hello!")] {
            let mut client = edge.sent(get("/"));
            let stream = link.request();
            link.head(stream, &[(":status", "200"), ("content-length", length)], false);
            let mut answer = client.head();
            link.data(stream, bytes.as_bytes(), true);
            assert!(client.body(&mut answer).is_err(), "{length} {bytes}: {answer:?}");
        }
        // DATA before any HEADERS.
        let mut client = edge.sent(post("/", ""));
        let stream = link.request();
        link.data(stream, b"hello", true);
        assert_own(&client.response(), 502, "http_protocol_error");

        bystander_link.ok("unharmed");
        assert_eq!(bystander.response().text(), "unharmed");
    }
}

/// What may and what may not come behind a head that has no body, in frames; `true` ends the stream.
const NOTHING_BEHIND: &[&[(&str, bool)]] = &[&[("", true)], &[("", false), ("", false), ("", true)]];
const BODY_BEHIND: &[&[(&str, bool)]] =
    &[&[("x", true)], &[("x", false)], &[("", false), ("body", false)], &[("", false), ("body", true)]];

#[test]
fn an_http2_head_that_has_no_body_is_held_until_none_came() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = Frames::dial(&edge, 1);
        let mut client = edge.client();
        for (method, status, length) in
            [("HEAD", "200", "5"), ("HEAD", "404", ""), ("GET", "204", ""), ("GET", "304", ""), ("POST", "204", "0")]
        {
            let request = start(method, "/") + if method == "POST" { "Content-Length: 0\r\n\r\n" } else { "\r\n" };
            let mut head = vec![(":status", status), ("x-worker", "yes")];
            if !length.is_empty() {
                head.push(("content-length", length));
            }
            let trailers: &[(&str, bool)] = &[("", false)];
            for behind in NOTHING_BEHIND.iter().copied().chain([trailers]) {
                client.send(&request);
                let stream = link.request();
                link.head(stream, &[(":status", "103"), ("link", "</x>")], false);
                assert_eq!(client.response().status(), 103);
                link.head(stream, &head, false);
                client.is_quiet();
                for (bytes, ends) in behind {
                    link.data(stream, bytes.as_bytes(), *ends);
                }
                if behind == trailers {
                    link.head(stream, &[("x-trailer", "yes")], true);
                }
                let answer = client.response_to_head();
                assert_eq!(answer.status().to_string(), status, "{method} {behind:?}: {answer:?}");
                assert_eq!((answer.field("x-worker"), answer.field("x-trailer")), (Some("yes"), None), "{answer:?}");
                assert!(length != "5" || answer.field("content-length") == Some("5"), "{answer:?}");
            }
            for behind in BODY_BEHIND {
                client.send(&request);
                let stream = link.request();
                link.head(stream, &head, false);
                for (bytes, ends) in *behind {
                    link.data(stream, bytes.as_bytes(), *ends);
                }
                let answer = if method == "HEAD" { client.response_to_head() } else { client.response() };
                assert_eq!(answer.status(), 502, "{method} {status} {behind:?}: {answer:?}");
                assert!(answer.field("proxy-status").is_some_and(|value| value.contains("http_protocol_error")));
                assert_eq!(answer.field("x-worker"), None, "{answer:?}");
                edge.until_credits(1);
            }
        }
        // Neither link nor client is the worse for it.
        client.get("/next");
        let stream = link.request();
        link.ok(stream, "next");
        assert_eq!(client.response().text(), "next");
    }
}

#[test]
fn a_held_head_whose_stream_breaks_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for code in [frames::NO_ERROR, frames::CANCEL, frames::REFUSED_STREAM] {
            let mut link = Frames::dial(&edge, 1);
            let mut client = edge.sent(get("/"));
            let stream = link.request();
            link.head(stream, &[(":status", "204"), ("x-worker", "yes")], false);
            link.reset(stream, code);
            let answer = client.response();
            assert_own(&answer, 502, "connection_terminated");
            assert_eq!(answer.field("x-worker"), None);
            client.get("/lost");
            let stream = link.request();
            link.head(stream, &[(":status", "304")], false);
            drop(link);
            assert_own(&client.response(), 502, "connection_terminated");
            edge.until_links(0);
        }
    }
}

fn shown(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.chars().take(30).collect())).collect()
}

impl Frames {
    /// A head that may need CONTINUATION; the stream ends with it.
    #[track_caller]
    fn big_head(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let block = frames::block(fields);
        let mut pieces = block.chunks(16_000).peekable();
        let mut kind = frames::HEADERS;
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { frames::END_HEADERS } else { 0 };
            let ends = if kind == frames::HEADERS { frames::END_STREAM } else { 0 };
            self.put(kind, end | ends, stream, piece);
            kind = frames::CONTINUATION;
        }
    }
}

#[test]
fn a_worker_that_breaks_http2_loses_its_link_and_nothing_else() {
    // Each break takes a second or so, of waiting.
    let with = |cores: u16| {
        let edge = setting().cores(cores).start();
        let breaks: &[(&str, &[u8])] = &[
            ("garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("a header block that is none", &frames::bytes_of(frames::HEADERS, 4, 1, &[0xff; 20])),
            ("HEADERS on a stream of its own", &frames::bytes_of(frames::HEADERS, 5, 2, &[0x88])),
            ("HEADERS on stream 0", &frames::bytes_of(frames::HEADERS, 5, 0, &[0x88])),
            ("DATA on an idle stream", &frames::bytes_of(frames::DATA, 1, 99, b"x")),
            ("a push", &frames::bytes_of(5, 4, 1, &[0, 0, 0, 2, 0x82, 0x86, 0x84, 0x41, 1, b'a'])),
            ("a frame over 16 KiB", &frames::bytes_of(frames::DATA, 0, 1, &[0; 20_000])),
            ("SETTINGS of a wrong size", &frames::bytes_of(frames::SETTINGS, 0, 0, &[0; 5])),
            ("a window of 2^31", &frames::bytes_of(frames::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
            ("a window update of 0", &frames::bytes_of(frames::WINDOW_UPDATE, 0, 0, &[0; 4])),
            ("CONTINUATION without HEADERS", &frames::bytes_of(frames::CONTINUATION, 4, 1, &[0x88])),
            ("a PING of a wrong size", &frames::bytes_of(frames::PING, 0, 0, &[0; 7])),
        ];
        for (what, bytes) in breaks {
            eprintln!("{cores} cores, {what}");
            let mut bad = Frames::dial(&edge, 2);
            let mut clients = [edge.sent(get("/get")), edge.sent(post("/post", ""))];
            bad.request();
            bad.request();
            bad.peer.send_if_open(bytes);
            let answer = clients[1].response();
            assert_eq!(answer.status(), 502, "{what}: {answer:?}");
            assert!(answer.field("proxy-status").is_some(), "{what}: {answer:?}");
            bad.ends();
            edge.until_links(0);
            let mut link = edge.h1_link();
            assert_eq!(link.serve("served").target(), "/get", "{what}");
            assert_eq!(clients[0].response().text(), "served", "{what}");
            drop(link);
            edge.until_links(0);
        }
    };
    std::thread::scope(|scope| {
        for cores in CORES {
            scope.spawn(move || with(cores));
        }
    });
}

#[test]
fn a_worker_that_floods_does_not_stop_the_edge() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut flood = Frames::dial(&edge, 1);
        let mut first = edge.sent(get("/first"));
        flood.request(); // its only credit is in use: what follows is for the other link
        let mut link = edge.h1_link();
        let mut noise = Vec::new();
        for _ in 0..20_000 {
            noise.extend(frames::bytes_of(frames::PING, 0, 0, &[0; 8]));
            noise.extend(frames::bytes_of(frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]));
            noise.extend(frames::bytes_of(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
        }
        let mut flooding = flood.peer.twin();
        // It reads none of the answers: it is stuck as soon as the edge, and both kernels, hold as many as they will.
        let flooder = std::thread::spawn(move || flooding.send_if_open(&noise));
        let mut client = edge.client();
        for turn in 0..50 {
            client.get(&format!("/{turn}"));
            assert_eq!(link.serve("served").target(), format!("/{turn}"));
            assert_eq!(client.response().text(), "served");
        }
        flood.peer.leave();
        flooder.join().expect("the flood ends with its connection");
        assert_eq!(link.serve("again").target(), "/first");
        assert_eq!(first.response().text(), "again");
    }
}

// ---- time ----

#[test]
fn a_response_head_that_takes_too_long_is_a_504() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("response_head_max_wait = \"300ms\"").start();
        let h2 = H2Worker::dial(&edge, 1);
        for interim in [false, true] {
            let mut client = edge.sent(get("/"));
            let mut asked = h2.accept();
            if interim {
                let hints = http::Response::builder().status(103).body(()).expect("a response");
                asked.respond.send_informational(hints).expect("open");
                assert_eq!(client.response().status(), 103);
            }
            assert_own(&client.response(), 504, "http_response_timeout");
            assert_eq!(asked.reset_by_edge(), h2::Reason::CANCEL);
            client.get("/next");
            h2.accept().ok("next");
            assert_eq!(client.response().text(), "next");
        }
        h2.lose();
        edge.until_links(0);

        for drips in ["", "HTTP/1.1 103 Hints\r\n\r\n", "HTTP/1.1 200 OK\r\nX: "] {
            let mut link = edge.h1_link();
            let mut client = edge.sent(get("/"));
            link.request();
            let from = Instant::now();
            link.send(drips);
            let drip = link.twin();
            let dripping = std::thread::spawn(move || {
                let mut drip = drip;
                while from.elapsed() < HANG {
                    let piece = if drips.ends_with(' ') { "y" } else { drips };
                    if drip.try_send(piece).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(40));
                    if drips.is_empty() {
                        return;
                    }
                }
            });
            let mut answer = client.response();
            while answer.status() == 103 {
                answer = client.response();
            }
            assert_own(&answer, 504, "http_response_timeout");
            link.end();
            dripping.join().expect("it drips");
            edge.until_links(0);
        }
    }
}

fn mutes(status: &serde_json::Value) -> u64 {
    status["counters"]["links_mute"].as_u64().expect("a count")
}

fn mute_links(status: &serde_json::Value) -> usize {
    status["links"].as_array().expect("links").iter().filter(|link| link["mute"] == true).count()
}

#[test]
fn a_worker_that_takes_work_and_never_answers_comes_last_until_it_answers() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("response_head_max_wait = \"2s\"").start();
        let mute = H2Worker::dial(&edge, 4);
        let mut clients: Vec<Peer> = (0..4).map(|_| edge.sent(get("/hangs"))).collect();
        let hung: Vec<_> = (0..4).map(|_| mute.accept()).collect();
        for client in &mut clients {
            assert_own(&client.response(), 504, "http_response_timeout");
        }
        drop(hung);
        edge.until(|status| mute_links(status) == 1 && mutes(status) == 1);

        // Whoever else has a credit serves, and the mute one sees none of it.
        let good = H2Worker::dial(&edge, 1);
        edge.until_links(2);
        for turn in 0..20 {
            let mut client = edge.sent(get("/served"));
            good.accept().ok(&turn.to_string());
            assert_eq!(client.response().text(), turn.to_string());
        }
        mute.is_quiet();

        // What nobody else takes goes there, one at a time; also beside a response that streams.
        let mut served = edge.sent(get("/held"));
        let held = good.accept();
        let mut waiting = [edge.sent(get("/waits")), edge.sent(get("/waits"))];
        let trial = mute.accept();
        mute.is_quiet();
        trial.ok("at last");
        // It has answered: all its credits are back.
        mute.accept().ok("at last");
        for client in &mut waiting {
            assert_eq!(client.response().text(), "at last");
        }
        held.ok("held");
        assert_eq!(served.response().text(), "held");
        edge.until(|status| mute_links(status) == 0 && common::credits(status) == 5);
    }
}

#[test]
fn a_mute_link_recovers_beside_a_response_that_still_streams() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("response_head_max_wait = \"1s\"").start();
        let link = H2Worker::dial(&edge, 4);
        let mut stream = edge.sent(get("/events"));
        let mut events = link.accept().begin(http::Response::new(()));
        stream.head();
        let mut client = edge.sent(get("/hangs"));
        let _hung = link.accept();
        assert_own(&client.response(), 504, "http_response_timeout");
        edge.until(|status| mute_links(status) == 1);
        let mut client = edge.sent(get("/"));
        link.accept().ok("again");
        assert_eq!(client.response().text(), "again");
        edge.until(|status| mute_links(status) == 0);
        events.send_data(bytes::Bytes::new(), true).expect("open");
    }
}

#[test]
fn a_worker_is_not_mute_for_what_its_clients_keep_back_or_for_heavy_work() {
    let more = r#"
        [[pool]]
        name = "heavy"
        origins = ["http://heavy.example"]
        response_head_max_wait = "0s"
        [[credential]]
        id = "both"
        secret_hash = "HASH"
        origins = ["*"]
        "#
    .replace("HASH", &common::secret_hash("both secret"));
    let edge = setting().pool("response_head_max_wait = \"500ms\"").more(&more).start();
    let origins = "http%3A%2F%2Fapp.example,http%3A%2F%2Fheavy.example";
    let text = setup(origins, "h2").replace(&basic("web-1", SECRET), &basic("both", "both secret"));
    let (peer, answer) = edge.set_up(&text);
    assert_eq!(answer.status(), 101);
    let mut builder = h2::server::Builder::new();
    let link = H2Worker::on(peer, builder.max_concurrent_streams(8));
    edge.until_credits(8);

    // A body that does not come.
    let mut slow = edge.sent(format!("{}Content-Length: 100\r\n\r\nsome", start("POST", "/slow")));
    let _slow = link.accept();
    assert_own(&slow.response(), 504, "http_response_timeout");
    // Work that has no bound, beside a client of the other pool that leaves.
    let mut heavy = edge.sent(get("/").replace(HOST, "heavy.example"));
    let working = link.accept();
    std::thread::sleep(Duration::from_millis(600));
    let hasty = edge.sent(get("/"));
    let mut asked = link.accept();
    hasty.leave();
    asked.reset_by_edge();
    let status = edge.status();
    assert_eq!((mute_links(&status), mutes(&status)), (0, 0), "{status}");
    working.ok("done");
    assert_eq!(heavy.response().text(), "done");
}

#[test]
fn a_worker_whose_clients_leave_before_it_answers_is_found() {
    let edge = setting().pool("response_head_max_wait = \"400ms\"").start();
    let link = H2Worker::dial(&edge, 4);
    let leave_one = || {
        let client = edge.sent(get("/"));
        let mut asked = link.accept();
        std::thread::sleep(Duration::from_millis(50));
        client.leave();
        asked.reset_by_edge();
    };
    let from = Instant::now();
    while mutes(&edge.status()) == 0 {
        assert!(from.elapsed() < HANG, "never found");
        leave_one();
    }
    let mut client = edge.sent(get("/"));
    link.accept().ok("again");
    assert_eq!(client.response().text(), "again");
    edge.until(|status| mute_links(status) == 0);
}

#[test]
fn a_response_that_began_in_time_may_take_its_time() {
    let edge = setting().pool("response_head_max_wait = \"100ms\"").start();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    std::thread::sleep(Duration::from_millis(400));
    link.send("slow");
    assert_eq!(client.response().text(), "slow");
}

#[test]
fn no_time_is_no_bound() {
    let edge = setting().pool("response_head_max_wait = \"0s\"").start();
    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/"));
    link.request();
    client.is_quiet();
    link.ok("heavy");
    assert_eq!(client.response().text(), "heavy");
}

// ---- upgrades ----

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn websocket(path: &str) -> String {
    start("GET", path)
        + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
           Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: "
        + KEY
        + "\r\n\r\n"
}

#[test]
fn a_websocket_runs_through_an_http1_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(websocket("/chat"));
        let seen = link.request();
        assert!(seen.connection("upgrade"), "{seen:?}");
        assert_eq!((seen.field("upgrade"), seen.field("sec-websocket-key")), (Some("websocket"), Some(KEY)));
        assert_eq!(seen.field("sec-websocket-protocol"), Some("chat"));
        link.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: chat\r\n\r\nfirst"
        ));
        let answer = client.head();
        assert_eq!((answer.status(), answer.field("sec-websocket-accept")), (101, Some(ACCEPT)), "{answer:?}");
        assert!(answer.connection("upgrade") && answer.field("upgrade") == Some("websocket"), "{answer:?}");
        assert_eq!(answer.field("sec-websocket-protocol"), Some("chat"));
        assert_eq!(client.read(5), b"first");
        check_tunnel(&mut client, &mut link);
        // One side ends, the other may go on.
        client.finish();
        let (rest, end) = (link.end(), ());
        assert_eq!((rest.0.len(), rest.1, end), (0, End::Fin, ()));
        link.send("last");
        assert_eq!(client.read(4), b"last");
        drop(link);
        client.ends();
        edge.until_links(0);
    }
}

/// Bytes that look like anything pass both ways.
fn check_tunnel(a: &mut Peer, b: &mut Peer) {
    for bytes in [1, 100, 70_000] {
        let up = [b"0\r\n\r\nHTTP/1.1 ".to_vec(), pattern(bytes)].concat();
        a.send(&up);
        assert_eq!(b.read(up.len()), up);
        b.send(&up);
        assert_eq!(a.read(up.len()), up);
    }
}

#[test]
fn bytes_behind_an_upgrade_reach_the_other_side_after_the_101() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(websocket("/") + "early");
    link.request();
    link.is_quiet();
    link.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    assert_eq!(link.read(5), b"early");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(websocket("/"));
        link.request();
        link.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (403, "no"));
        client.get("/next");
        link.serve("next");
        assert_eq!(client.response().text(), "next");
    }
}

#[test]
fn an_upgrade_that_ends_frees_its_link_and_its_client() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for worker_leaves in [true, false] {
            let mut link = edge.h1_link();
            let mut client = edge.sent(websocket("/"));
            link.request();
            link.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            client.head();
            if worker_leaves {
                link.reset();
                client.ends();
            } else {
                client.reset();
                link.ends();
            }
            let status = edge.until(|status| status["pools"][0]["links"] == 0);
            assert_eq!(status["pools"][0]["in_flight"], 0);
            edge.until(|status| status["cores"][0]["connections"] == 0);
        }
    }
}

fn with_connect(edge: &TestEdge) -> H2Worker {
    let mut builder = h2::server::Builder::new();
    H2Worker::with(edge, builder.max_concurrent_streams(10).enable_connect_protocol())
}

#[test]
fn a_websocket_runs_through_an_http2_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = with_connect(&edge);
        let mut client = edge.sent(websocket("/chat?x"));
        let mut asked = worker.accept();
        assert_eq!(asked.head.method, "CONNECT");
        let protocol = asked.head.extensions.get::<h2::ext::Protocol>().expect("RFC 8441");
        assert_eq!((protocol.as_str(), asked.path()), ("websocket", "/chat?x"));
        assert_eq!(asked.head.uri.scheme_str(), Some("http"));
        assert_eq!(asked.head.uri.authority().map(|authority| authority.as_str()), Some(HOST));
        for gone in ["connection", "upgrade", "sec-websocket-key", "sec-websocket-accept", "host", "content-length"] {
            assert_eq!(asked.field(gone), None, "{gone}");
        }
        assert_eq!(asked.field("sec-websocket-version"), Some("13"));
        assert_eq!(asked.field("sec-websocket-protocol"), Some("chat"));
        let response = http::Response::builder().header("sec-websocket-protocol", "chat").body(()).expect("a response");
        let mut stream = asked.begin(response);
        let answer = client.head();
        assert_eq!((answer.status(), answer.field("sec-websocket-accept")), (101, Some(ACCEPT)), "{answer:?}");
        assert_eq!(answer.field("upgrade"), Some("websocket"));
        assert_eq!(answer.field("sec-websocket-protocol"), Some("chat"));
        for round in 0..20 {
            let bytes = pattern(1 + round * 500);
            client.send(&bytes);
            let mut seen = Vec::new();
            while seen.len() < bytes.len() {
                seen.extend_from_slice(&asked.read_some().expect("data").expect("open"));
            }
            assert_eq!(seen, bytes);
            stream.send_data(bytes.clone().into(), false).expect("open");
            assert_eq!(client.read(bytes.len()), bytes);
        }
        client.finish();
        assert!(asked.read_some().is_none(), "the client's end is the stream's");
        stream.send_data("bye".into(), true).expect("open");
        let (rest, end) = client.end();
        assert_eq!((&*rest, end), (&b"bye"[..], End::Fin));
        edge.until_credits(10);
    }
}

#[test]
fn an_upgrade_of_another_method_keeps_it_over_http1_and_is_a_502_over_http2() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        for length in ["", "Content-Length: 0\r\n"] {
            let attach = start("POST", "/attach") + "Connection: Upgrade\r\nUpgrade: tcp\r\n" + length + "\r\n";
            let worker = with_connect(&edge);
            let mut client = edge.sent(&attach);
            assert_own(&client.response(), 502, "http_protocol_error");
            worker.is_quiet();
            // It is not the link's fault, nor the connection's.
            client.get("/next");
            worker.accept().ok("next");
            assert_eq!(client.response().text(), "next");
            edge.until_credits(10);
            worker.lose();
            edge.until_links(0);

            let mut link = edge.h1_link();
            client.send(&attach);
            let seen = link.request();
            assert_eq!((seen.method(), seen.target(), seen.field("upgrade")), ("POST", "/attach", Some("tcp")));
            link.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n");
            assert_eq!(client.head().status(), 101);
            check_tunnel(&mut client, &mut link);
            drop((client, link));
            edge.until_links(0);
        }
    }
}

#[test]
fn an_http2_link_may_refuse_an_upgrade() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = with_connect(&edge);
        let mut client = edge.sent(websocket("/"));
        let mut asked = worker.accept();
        let response = http::Response::builder().status(403).header("content-length", 2).body(()).expect("a response");
        asked.begin(response).send_data("no".into(), true).expect("open");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (403, "no"));
        edge.until_credits(10);
    }
}

#[test]
fn a_client_that_leaves_its_websocket_resets_the_stream() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = with_connect(&edge);
        let mut client = edge.sent(websocket("/"));
        let mut asked = worker.accept();
        let mut stream = asked.begin(http::Response::new(()));
        client.head();
        client.reset();
        // Reset, or ended and then reset: in any case it is over and its credit is free.
        stream.send_data("x".into(), false).expect("open");
        block_on(std::future::poll_fn(|cx| stream.poll_reset(cx))).expect("a reset");
        edge.until_credits(10);
    }
}

#[test]
fn an_upgrade_that_no_link_can_carry_is_a_502() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let worker = H2Worker::dial(&edge, 10);
        // On both cores' connections.
        for _ in 0..8 {
            let mut client = edge.sent(websocket("/"));
            assert_own(&client.response(), 502, "http_protocol_error");
        }
        worker.is_quiet();
        // An ordinary request can go over it.
        let mut client = edge.sent(get("/"));
        worker.accept().ok("plain");
        assert_eq!(client.response().text(), "plain");
    }
}

#[test]
fn an_upgrade_that_waits_for_a_link_learns_that_it_cannot_carry_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut clients: Vec<_> = (0..4).map(|_| edge.sent(websocket("/"))).collect();
        edge.until_queued(4);
        let _worker = H2Worker::dial(&edge, 10);
        for client in &mut clients {
            assert_own(&client.response(), 502, "http_protocol_error");
        }
    }
}

#[test]
fn an_upgrade_finds_the_link_that_can_carry_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let plain = H2Worker::dial(&edge, 10);
        let mut h1 = edge.h1_link();
        let mut client = edge.sent(websocket("/"));
        h1.request();
        h1.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.head().status(), 101);
        // It is busy for good; the next one waits for another.
        let mut second = edge.sent(websocket("/second"));
        edge.until_queued(1);
        let capable = with_connect(&edge);
        let mut asked = capable.accept();
        assert_eq!(asked.path(), "/second");
        let _stream = asked.begin(http::Response::new(()));
        assert_eq!(second.head().status(), 101);
        plain.is_quiet();
    }
}

#[test]
fn a_101_to_an_http2_request_is_malformed() {
    let edge = edge();
    let mut link = Frames::dial(&edge, 1);
    let mut client = edge.sent(get("/"));
    let stream = link.request();
    link.head(stream, &[(":status", "101")], false);
    assert_own(&client.response(), 502, "http_protocol_error");
}

// ---- two links, one credential, many cores ----

#[test]
fn links_that_come_and_go_lose_no_request() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 10").start();
        let address = edge.address;
        let clients: Vec<_> = (0..4)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut client = Peer::connect(address);
                    for round in 0..50 {
                        let path = format!("/{n}/{round}");
                        let answer = client.ask(&path);
                        assert_eq!((answer.status(), answer.text()), (200, &*path), "{answer:?}");
                    }
                })
            })
            .collect();
        let mut round = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            round += 1;
            let mut link = edge.h1_link();
            // Each link serves a few requests and goes away, sometimes with one in its hands.
            for _ in 0..round % 5 {
                let Some(request) = link.try_head_soon() else { break };
                link.send_if_open(ok(request.target()));
            }
            if round % 2 == 0 {
                link.try_head_soon();
            }
        }
        for client in clients {
            client.join().expect("every request was answered");
        }
    }
}
