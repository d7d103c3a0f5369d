//! Who asked, over real sockets: what a client claims, what a trusted proxy tells, the PROXY protocol, and what a request is
//! called. The forms that the fields can have are tables in `tests/wire`.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Instant;

use common::h2_worker::{H2Worker, block_on};
use common::peer::{Message, Peer, until};
use common::tls::{Authority, Client, Files};
use common::{CORES, HOST, ORIGIN, QUIET, TestEdge, get, setting, setup, setups};
use ptth::limits::PROXY_MS_MAX;

/// Fields that a client has no say in.
const FORGED: &str = "Forwarded: for=198.51.100.66;proto=https;host=evil\r\nX-Forwarded-For: 198.51.100.66\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\n\
    X-Forwarded-Server: evil\r\nX-Real-IP: 198.51.100.66\r\nX_Forwarded_For: 198.51.100.66\r\nX-Request-Id: evil\r\n";

/// The same for HTTP/2.
fn forged() -> Vec<(String, String)> {
    let pairs = FORGED.lines().map(|line| line.split_once(": ").expect("a field"));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

/// A `GET` with more lines in its head.
fn get_with(lines: &str) -> String {
    get("/").replace("\r\n\r\n", &format!("\r\n{lines}\r\n"))
}

/// A connection from this address of loopback.
fn connect_from(address: &str, to: SocketAddr) -> Peer {
    let from = SocketAddr::new(address.parse().expect("an address"), 0);
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("all of 127.0.0.0/8 is loopback");
    socket.connect(&to.into()).expect("the listener takes connections");
    socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
    Peer::new(socket.into())
}

/// Sends a request and answers it at the link; what the worker saw, and what the client got.
#[track_caller]
fn through(client: &mut Peer, link: &mut Peer, request: &str) -> (Message, Message) {
    client.send(request);
    let seen = link.serve("hello");
    (seen, client.response())
}

/// Each of these fields once, with this value; `None` is nowhere.
#[track_caller]
fn assert_fields(seen: &Message, wanted: &[(&str, Option<&str>)]) {
    for (name, want) in wanted {
        assert_eq!(seen.field(name), *want, "{name} of {seen:?}");
    }
}

#[track_caller]
fn assert_is_new(id: &str) {
    assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
}

/// Nothing of [`FORGED`] has come through, and this address has.
#[track_caller]
fn assert_honest(seen: &Message, client: &str) {
    let quoted = if client.contains(':') { format!("\"[{client}]\"") } else { client.to_owned() };
    assert_fields(
        seen,
        &[
            ("forwarded", Some(&format!("for={quoted};proto=http;host={HOST}"))),
            ("x-forwarded-for", Some(client)),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-host", Some(HOST)),
            ("x-forwarded-port", None),
            ("x-forwarded-prefix", None),
            ("x-forwarded-server", None),
            ("x-real-ip", None),
            ("x_forwarded_for", None),
        ],
    );
    assert_is_new(seen.field("x-request-id").expect("a name"));
}

/// One request over HTTP/2 without TLS: the worker's side is for the caller; the answer's head.
fn ask_h2(stream: std::net::TcpStream, host: &str, fields: &[(String, String)]) -> http::response::Parts {
    stream.set_nonblocking(true).expect("nonblocking");
    block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        let (mut send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("http://{host}/"));
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let (response, _) = send.send_request(request.body(()).expect("a request"), true).expect("it is taken");
        response.await.expect("an answer").into_parts().0
    })
}

// ---- clients ----

#[test]
fn what_an_untrusted_client_claims_reaches_no_worker() {
    for cores in CORES {
        // Nobody is trusted, or somebody else is.
        for trusted in ["", "trusted_proxies = [\"127.0.0.2\", \"2001:db8::/32\"]"] {
            let rule = "[[pool.rule]]\nmatch = { client = \"198.51.100.66\" }\nurgency = 0";
            let edge = setting().cores(cores).edge(trusted).pool(rule).listen("h2c = true").start();
            let mut link = edge.h1_link();
            let (seen, answer) = through(&mut edge.client(), &mut link, &get_with(FORGED));
            assert_honest(&seen, "127.0.0.1");
            assert_eq!(seen.field("priority"), Some("u=3"), "the rule is for another address");
            assert_eq!(answer.field("x-request-id"), seen.field("x-request-id"));

            let stream = std::net::TcpStream::connect(edge.address).expect("it listens");
            let worker = thread::spawn(move || link.serve("hello"));
            let answer = ask_h2(stream, HOST, &forged());
            let seen = worker.join().expect("it was asked");
            assert_honest(&seen, "127.0.0.1");
            assert_eq!(seen.field("priority"), Some("u=3"));
            assert_eq!(answer.headers["x-request-id"].to_str().ok(), seen.field("x-request-id"));
        }
    }
}

#[test]
fn a_client_over_ipv6_is_told_in_brackets() {
    let edge = setting().more("[[listen]]\naddress = \"[::1]:3\"\naccept = [\"clients\"]").start();
    let mut link = edge.h1_link();
    let (seen, _) = through(&mut Peer::connect(edge.addresses[1]), &mut link, &get_with(FORGED));
    assert_honest(&seen, "::1");
}

// ---- proxies ----

const TRUST: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]";
/// The class tells whom the edge takes for the client.
const RULES: &str = "[[pool.rule]]\nmatch = { client = \"192.0.2.7\" }\nurgency = 0\n\
    [[pool.rule]]\nmatch = { client = \"2001:db8::/32\" }\nurgency = 1\n\
    [[pool.rule]]\nmatch = { client = \"10.0.0.0/8\" }\nurgency = 5\n\
    [[pool.rule]]\nmatch = { client = \"127.0.0.1\" }\nurgency = 6";

#[test]
fn the_client_behind_trusted_proxies_is_the_client_for_rules_and_for_the_worker() {
    let edge = setting().edge(TRUST).pool(RULES).start();
    let mut link = edge.h1_link();
    let mut proxy = edge.client();
    let own = format!("for=127.0.0.1;proto=http;host={HOST}");
    for (lines, urgency, forwarded, x_forwarded_for) in [
        // two of them in a row, with a client's own words in front
        (
            "X-Forwarded-For: 198.51.100.66, 192.0.2.7, 10.0.0.1",
            "u=0",
            format!("for=192.0.2.7, for=10.0.0.1, {own}"),
            "198.51.100.66, 192.0.2.7, 10.0.0.1, 127.0.0.1",
        ),
        (
            "X-Forwarded-For: 2001:db8::7, fd00::1\r\nX-Forwarded-For: 10.0.0.1",
            "u=1",
            format!("for=\"[2001:db8::7]\", for=\"[fd00::1]\", for=10.0.0.1, {own}"),
            "2001:db8::7, fd00::1, 10.0.0.1, 127.0.0.1",
        ),
        (
            "Forwarded: for=\"[2001:db8::1]:4711\", for=\"[fd00::1]\"",
            "u=1",
            format!("for=\"[2001:db8::1]:4711\", for=\"[fd00::1]\", {own}"),
            "2001:db8::1, fd00::1, 127.0.0.1",
        ),
        (
            "Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.7",
            "u=0",
            format!("for=192.0.2.7, {own}"),
            "192.0.2.7, 127.0.0.1",
        ),
        // nobody but proxies: the first of them
        (
            "X-Forwarded-For: 10.0.0.2, 10.0.0.1",
            "u=5",
            format!("for=10.0.0.2, for=10.0.0.1, {own}"),
            "10.0.0.2, 10.0.0.1, 127.0.0.1",
        ),
        // hidden: the last one that is known
        ("Forwarded: for=unknown", "u=6", format!("for=unknown, {own}"), "127.0.0.1"),
        ("Forwarded: for=_hidden", "u=6", format!("for=_hidden, {own}"), "127.0.0.1"),
        (
            "Forwarded: for=_hidden, for=10.0.0.1",
            "u=5",
            format!("for=_hidden, for=10.0.0.1, {own}"),
            "10.0.0.1, 127.0.0.1",
        ),
        // garbage is not there
        ("Forwarded: for=192.0.2.7, garbage", "u=6", own.clone(), "127.0.0.1"),
        // whoever contradicts his proxy is neither of the two, and not the proxy either
        ("Forwarded: for=192.0.2.8\r\nX-Forwarded-For: 192.0.2.7", "u=3", own.clone(), "127.0.0.1"),
        ("Accept: */*", "u=6", own.clone(), "127.0.0.1"),
    ] {
        let (seen, _) = through(&mut proxy, &mut link, &get_with(&format!("{lines}\r\n")));
        assert_fields(
            &seen,
            &[("priority", Some(urgency)), ("forwarded", Some(&forwarded)), ("x-forwarded-for", Some(x_forwarded_for))],
        );
    }
    let lines = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.example:8443\r\n\
        X-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /app\r\nX-Forwarded-Server: front\r\nX-Real-IP: 198.51.100.66\r\n";
    let (seen, _) = through(&mut proxy, &mut link, &get_with(lines));
    assert_fields(
        &seen,
        &[
            ("host", Some(HOST)),
            ("forwarded", Some("for=192.0.2.7, for=127.0.0.1;proto=https;host=\"www.example:8443\"")),
            ("x-forwarded-for", Some("192.0.2.7, 127.0.0.1")),
            ("x-forwarded-proto", Some("https")),
            ("x-forwarded-host", Some("www.example:8443")),
            ("x-forwarded-port", Some("8443")),
            ("x-forwarded-prefix", Some("/app")),
            ("x-forwarded-server", Some("front")),
            ("x-real-ip", Some("192.0.2.7")),
            ("via", Some("1.1 ptth")),
        ],
    );
    // From another address the same words are worth nothing.
    let (seen, _) = through(&mut connect_from("127.0.0.2", edge.address), &mut link, &get_with(FORGED));
    assert_honest(&seen, "127.0.0.2");
}

#[test]
fn a_trusted_proxy_over_http2_is_believed() {
    let edge = setting().edge(TRUST).pool(RULES).listen("h2c = true").start();
    let mut link = edge.h1_link();
    let worker = thread::spawn(move || link.serve("hello"));
    let fields = [("x-forwarded-for", "2001:db8::7"), ("x-forwarded-proto", "https"), ("x-request-id", "of-the-proxy")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let stream = std::net::TcpStream::connect(edge.address).expect("it listens");
    let answer = ask_h2(stream, HOST, &fields);
    let seen = worker.join().expect("it was asked");
    assert_fields(
        &seen,
        &[
            ("priority", Some("u=1")),
            ("x-forwarded-for", Some("2001:db8::7, 127.0.0.1")),
            ("x-forwarded-proto", Some("https")),
            ("x-request-id", Some("of-the-proxy")),
            ("via", Some("2.0 ptth")),
        ],
    );
    assert_eq!(answer.headers["x-request-id"], "of-the-proxy");
}

#[test]
fn an_edge_behind_an_edge_knows_the_client_and_the_request_by_its_name() {
    let rule = "[[pool.rule]]\nmatch = { client = \"127.0.0.2\" }\nurgency = 0";
    let inner = setting().edge("trusted_proxies = [\"127.0.0.1\"]").pool(rule).start();
    let mut link = inner.h1_link();
    let outer = setting().start();
    let _worker = outer.worker(inner.address);
    let mut client = connect_from("127.0.0.2", outer.address);
    let (seen, answer) = through(&mut client, &mut link, &get_with(FORGED));
    assert_fields(
        &seen,
        &[
            ("priority", Some("u=0")),
            ("forwarded", Some(&format!("for=127.0.0.2;proto=http;host={HOST}, for=127.0.0.1;proto=http;host={HOST}"))),
            ("x-forwarded-for", Some("127.0.0.2, 127.0.0.1")),
            ("x-real-ip", None),
        ],
    );
    assert_is_new(seen.field("x-request-id").expect("a name"));
    assert_eq!(answer.field("x-request-id"), seen.field("x-request-id"));
}

/// A pool for https and none for http: 503 says that it was found, 404 that it was not.
#[test]
fn a_proxy_that_ends_tls_makes_a_request_one_for_https() {
    let pool = "[[pool]]\nname = \"secure\"\norigins = [\"https://secure.example\"]\nhold_without_workers = false\n\
        [[pool]]\nname = \"port\"\norigins = [\"https://secure.example:8443\"]\nhold_without_workers = false\n\
        [[pool]]\nname = \"plain\"\norigins = [\"http://plain.example\"]\nhold_without_workers = false";
    let edge = setting().edge(TRUST).more(pool).start();
    let mut proxy = edge.client();
    let mut client = connect_from("127.0.0.2", edge.address);
    for (lines, host, want) in [
        ("X-Forwarded-Proto: https", "secure.example", 503),
        ("X-Forwarded-Proto: https", "secure.example:8443", 503),
        ("X-Forwarded-Proto: https", "secure.example:8444", 404),
        ("X-Forwarded-Proto: wss", "secure.example", 503),
        ("Forwarded: proto=https", "secure.example", 503),
        ("Forwarded: for=192.0.2.7;proto=https", "secure.example", 503),
        ("X-Forwarded-Proto: http", "secure.example", 404),
        ("X-Forwarded-Proto: https, http", "secure.example", 404),
        ("Forwarded: proto=https\r\nX-Forwarded-Proto: http", "secure.example", 404),
        ("Accept: */*", "secure.example", 404),
        // an http origin is not for those who asked for https
        ("X-Forwarded-Proto: https", "plain.example", 404),
        ("X-Forwarded-Proto: http", "plain.example", 503),
        ("Accept: */*", "plain.example", 503),
        // the host that is told routes nothing
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: secure.example", "other.example", 404),
    ] {
        let request = get_with(&format!("{lines}\r\n")).replace(HOST, host);
        proxy.send(&request);
        assert_eq!(proxy.response().status(), want, "{lines} for {host}");
        let without = if host == "plain.example" { 503 } else { 404 };
        client.send(&request);
        assert_eq!(client.response().status(), without, "{lines} for {host}, of a client");
    }
}

// ---- names ----

#[test]
fn a_request_has_one_name_for_the_worker_and_the_client() {
    for cores in CORES {
        let edge = setting().cores(cores).edge(TRUST).start();
        let mut link = edge.h1_link();
        let (mut proxy, mut client) = (edge.client(), connect_from("127.0.0.2", edge.address));
        let mut names = std::collections::HashSet::new();
        let long = "x".repeat(128);
        for (id, is_kept) in [
            ("7f1d6a2e-4b3c-4e5f-8a9b-0c1d2e3f4a5b", true),
            ("A.b_c~d:e+f/g=h@i", true),
            (&long, true),
            (&format!("{long}x"), false),
            ("a b", false),
            ("a;b", false),
            ("a,b", false),
            ("\"a\"", false),
            ("", false),
            ("a\r\nX-Request-Id: a", false),
        ] {
            let request = get_with(&format!("X-Request-Id: {id}\r\n"));
            for (peer, is_kept) in [(&mut proxy, is_kept), (&mut client, false)] {
                let (seen, answer) = through(peer, &mut link, &request);
                let name = seen.field("x-request-id").expect("a name");
                assert_eq!(answer.field("x-request-id"), Some(name));
                if is_kept {
                    assert_eq!(name, id);
                } else {
                    assert_is_new(name);
                    assert!(names.insert(name.to_owned()), "{name} came before");
                }
            }
        }
        // more of them than are made at once
        for _ in 0..40 {
            let (seen, _) = through(&mut client, &mut link, &get("/"));
            let name = seen.field("x-request-id").expect("a name").to_owned();
            assert_is_new(&name);
            assert!(names.insert(name.clone()), "{name} came before");
        }
    }
}

#[test]
fn the_edges_own_answers_and_a_workers_name_tell_the_edges_name() {
    let edge = setting().edge(TRUST).pool("hold_without_workers = false").listen("h2c = true").start();
    let mut client = edge.client();
    for (request, status) in [(get("/"), 503), (get("/").replace(HOST, "elsewhere.example"), 404)] {
        client.send(&request);
        let answer = client.response();
        assert_eq!(answer.status(), status);
        assert_is_new(answer.field("x-request-id").expect("a name"));
        client.send(request.replace("\r\n\r\n", "\r\nX-Request-Id: of-the-proxy\r\n\r\n"));
        assert_eq!(client.response().field("x-request-id"), Some("of-the-proxy"));
    }
    let stream = std::net::TcpStream::connect(edge.address).expect("it listens");
    let answer = ask_h2(stream, "elsewhere.example", &[("x-request-id".to_owned(), "of-the-proxy".to_owned())]);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.headers["x-request-id"], "of-the-proxy");
    // What is no request has no name.
    client.send("GET / HTTP/1.1\r\nHost: a b\r\nX-Request-Id: of-the-proxy\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status(), answer.field("x-request-id")), (400, None));
    // A worker that names it, too, is not heard: a client could not tell two of them apart.
    let mut link = edge.h1_link();
    let mut client = edge.client();
    client.get("/");
    let seen = link.request();
    link.send("HTTP/1.1 200 OK\r\nX-Request-Id: of-the-worker\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().field("x-request-id"), seen.field("x-request-id"));
}

#[test]
fn a_request_that_another_core_serves_keeps_its_name_and_its_client() {
    let edge = setting().cores(2).edge(TRUST).pool(RULES).start();
    let worker = H2Worker::dial(&edge, 100);
    worker.serve_all(|head| {
        let field = |name: &str| head.headers[name].to_str().expect("text").to_owned();
        format!("{} {} {}", field("x-request-id"), field("x-forwarded-for"), field("priority"))
    });
    // Connections spread over both cores by the kernel's hash of their ports; 16 of them hardly ever all meet the link's.
    for n in 0..16 {
        let mut client = edge.client();
        client.send(get_with(&format!("X-Request-Id: n{n}\r\nX-Forwarded-For: 192.0.2.7\r\n")));
        let answer = client.response();
        assert_eq!(answer.text(), format!("n{n} 192.0.2.7, 127.0.0.1 u=0"));
        assert_eq!(answer.field("x-request-id"), Some(&*format!("n{n}")));
    }
}

#[test]
fn a_trace_passes_if_it_can_be_read() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let edge = setting().start();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    for (lines, parent, state) in [
        (format!("Traceparent: {PARENT}\r\nTracestate: a=b,c=d\r\n"), Some(PARENT), Some("a=b,c=d")),
        (format!("Traceparent: {PARENT}\r\nTracestate: garbage\r\n"), Some(PARENT), None),
        (format!("Traceparent: {PARENT}0\r\nTracestate: a=b\r\n"), None, None),
        ("Tracestate: a=b\r\n".to_owned(), None, None),
    ] {
        let (seen, _) = through(&mut client, &mut link, &get_with(&lines));
        assert_fields(&seen, &[("traceparent", parent), ("tracestate", state)]);
    }
}

// ---- the PROXY protocol ----

const PROXY: &str = "proxy_protocol = true";
const WORKERS: &str = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]";

/// A header of version 2: IPv4 and IPv6 by the address.
fn version_2(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (family, mut addresses) = match client.ip() {
        IpAddr::V4(address) => (0x11, [address.octets(), [192, 0, 2, 1]].concat()),
        IpAddr::V6(address) => (0x21, [address.octets(), [0; 16]].concat()),
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(443_u16.to_be_bytes());
    addresses.extend(b"\x04\0\x02no"); // a TLV that says nothing
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.push(family);
    header.extend(u16::try_from(addresses.len()).expect("few").to_be_bytes());
    header.extend(addresses);
    header
}

fn version_1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (kind, own) = if client.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "::1") };
    format!("PROXY {kind} {} {own} {} 443\r\n", client.ip(), client.port()).into_bytes()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn proxy_headers(edge: &TestEdge, result: &str) -> u64 {
    edge.status()["counters"]["proxy_headers"][result].as_u64().expect("a number")
}

/// A link over the second address, which speaks no PROXY protocol.
#[track_caller]
fn plain_link(edge: &TestEdge) -> Peer {
    let before = setups(&edge.status());
    let mut link = Peer::connect(edge.addresses[1]);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    edge.until(|status| setups(status) > before);
    link
}

#[test]
fn the_address_in_a_proxy_header_is_the_clients() {
    for cores in CORES {
        let edge = setting().cores(cores).pool(RULES).listen(&format!("{PROXY}\nh2c = true")).more(WORKERS).start();
        let mut link = plain_link(&edge);
        for (header, client, urgency) in [
            (version_1("192.0.2.7:4711"), "192.0.2.7", "u=0"),
            (version_1("[2001:db8::7]:4711"), "2001:db8::7", "u=1"),
            (version_2("192.0.2.7:4711"), "192.0.2.7", "u=0"),
            (version_2("[2001:db8::7]:4711"), "2001:db8::7", "u=1"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "u=6"),
            (LOCAL.to_vec(), "127.0.0.1", "u=6"),
        ] {
            // in one piece with the request, and byte by byte before it
            let mut at_once = edge.sent([&header[..], get_with(FORGED).as_bytes()].concat());
            let seen = link.serve("hello");
            assert_honest(&seen, client);
            assert_eq!(seen.field("priority"), Some(urgency));
            assert_eq!(at_once.response().status(), 200);
            let mut slow = edge.client();
            header.iter().for_each(|byte| slow.send([*byte]));
            for _ in 0..2 {
                let (seen, _) = through(&mut slow, &mut link, &get_with(FORGED));
                assert_honest(&seen, client);
            }
            let mut h2c = edge.client();
            h2c.send(&header);
            let mut lent = link.twin();
            let worker = thread::spawn(move || lent.serve("hello"));
            assert_eq!(ask_h2(h2c.into_parts().0, HOST, &forged()).status, 200);
            assert_honest(&worker.join().expect("it was asked"), client);
        }
        assert_eq!((proxy_headers(&edge, "client"), proxy_headers(&edge, "itself")), (12, 6));
    }
}

#[test]
fn a_connection_without_a_proxy_header_is_closed_without_a_word() {
    let edge = setting().listen(PROXY).start();
    let too_long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\x01".to_vec(), vec![0; 4_000]].concat();
    let mut malformed = 0;
    for bytes in [
        get("/").into_bytes(),
        setup(ORIGIN, "h2").into_bytes(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\n".to_vec(),
        vec![b'P'; 200],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec(),
        too_long,
    ] {
        let mut client = edge.client();
        client.send_if_open(&bytes);
        client.ends();
        malformed += 1;
        edge.until(|status| status["counters"]["proxy_headers"]["malformed"] == malformed);
    }
    let mut client = edge.sent("PROXY TCP4 192.0.2.7");
    client.finish();
    client.ends();
    edge.until(|status| status["counters"]["proxy_headers"]["malformed"] == malformed + 1);
    assert_eq!(proxy_headers(&edge, "client"), 0);
}

/// Waits for the real timer: nothing else shows that a silent connection is not kept.
#[test]
fn a_proxy_header_that_does_not_come_in_time_ends_the_connection() {
    let edge = setting().listen(PROXY).start();
    let began = Instant::now();
    let (mut silent, mut slow) = (edge.client(), edge.sent("PROXY TCP4 "));
    silent.is_quiet();
    silent.ends();
    slow.ends();
    assert!(began.elapsed().as_millis() >= u128::from(PROXY_MS_MAX), "too soon: {:?}", began.elapsed());
    assert_eq!(proxy_headers(&edge, "timed_out"), 2);
}

#[test]
fn only_a_trusted_peer_may_speak_the_proxy_protocol() {
    let edge = setting().edge(TRUST).pool(RULES).listen(PROXY).more(WORKERS).start();
    let mut link = plain_link(&edge);
    let request = [version_1("192.0.2.7:4711"), get("/").into_bytes()].concat();
    for n in 1..=3 {
        let mut stranger = connect_from("127.0.0.2", edge.address);
        stranger.send_if_open(&request);
        stranger.ends();
        edge.until(|status| status["counters"]["proxy_headers"]["untrusted"] == n);
    }
    // The address in the header is the peer's: it is believed further only if it is trusted itself.
    for (header, x_forwarded_for, urgency) in [
        (version_1("192.0.2.7:4711"), "192.0.2.7", "u=0"),
        (version_1("10.0.0.1:4711"), "2001:db8::7, 10.0.0.1", "u=1"),
        (version_2("[fd00::1]:4711"), "2001:db8::7, fd00::1", "u=1"),
        (version_2("198.51.100.66:1"), "198.51.100.66", "u=3"),
        // Nobody is named, and the fields are of whoever sent the bytes.
        (LOCAL.to_vec(), "127.0.0.1", "u=6"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "u=6"),
    ] {
        let mut client = edge.sent(&header);
        let (seen, _) = through(&mut client, &mut link, &get_with("X-Forwarded-For: 2001:db8::7\r\n"));
        assert_fields(&seen, &[("x-forwarded-for", Some(x_forwarded_for)), ("priority", Some(urgency))]);
    }
}

#[test]
fn tls_and_the_setup_of_a_link_come_behind_a_proxy_header() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    let more = format!("{WORKERS}\n{PROXY}");
    let edge = setting().listen(&format!("tls = {}\n{PROXY}", files.entry("edge"))).more(&more).start();
    // a worker whose load balancer tells where it is
    let mut link = Peer::connect(edge.addresses[1]);
    link.send([version_2("[2001:db8::9]:5000"), setup(ORIGIN, "http%2F1.1").into_bytes()].concat());
    assert_eq!(link.response().status(), 101);
    edge.until(|status| status["links"][0]["address"] == "[2001:db8::9]:5000");
    for (header, who) in [(version_1("192.0.2.7:4711"), "192.0.2.7"), (version_2("[2001:db8::7]:4711"), "2001:db8::7")]
    {
        let mut client = Client::new(&authority).dial(&edge, HOST);
        client.0.sock.write_all(&header).expect("the edge reads");
        client.send(get_with(FORGED));
        let seen = link.serve("hello");
        assert_eq!(client.answer().1, b"hello");
        assert_fields(&seen, &[("x-forwarded-proto", Some("https")), ("x-real-ip", None)]);
        assert_eq!(seen.field("x-forwarded-for"), Some(who));
    }
    // TLS without a header is none.
    let mut client = edge.sent(b"\x16\x03\x01\x02\0\x01\0");
    client.ends();
    until(|| proxy_headers(&edge, "malformed") == 1);
}

#[test]
fn connections_are_counted_by_the_address_in_their_header_and_not_by_a_trusted_proxys() {
    let limits = "[limits]\nconnections_per_source_max = 2\nsources_exempt = []";
    let edge = setting().edge(TRUST).listen(PROXY).more(limits).start();
    // The answer is the edge's own; `None` where the connection was closed instead.
    let connect = |client: &str| {
        let mut peer = edge.sent(version_1(client));
        peer.send_if_open(get("/").replace(HOST, "elsewhere.example"));
        let answer = peer.try_head_or_cut()?;
        assert_eq!(answer.status(), 404);
        Some(peer)
    };
    let mut kept = vec![connect("192.0.2.7:1").expect("one"), connect("192.0.2.7:2").expect("two")];
    assert!(connect("192.0.2.7:3").is_none(), "a third");
    assert_eq!(edge.status()["counters"]["connections_refused"]["connections_per_source_max"], 1);
    for other in ["192.0.2.8:1", "[2001:db8::7]:1", "10.0.0.9:1", "10.0.0.9:2", "10.0.0.9:3"] {
        kept.push(connect(other).expect(other));
    }
    // Who leaves makes room.
    drop(kept.remove(0));
    until(|| connect("192.0.2.7:4").is_some());
}

#[test]
fn a_connection_that_waits_for_its_proxy_header_does_not_hold_up_the_others() {
    let edge = setting().listen(PROXY).more(WORKERS).start();
    let mut link = plain_link(&edge);
    let mut waiting = edge.sent("PROXY UNK");
    thread::sleep(QUIET);
    let (seen, _) = through(&mut edge.sent(version_1("192.0.2.7:1")), &mut link, &get("/"));
    assert_honest(&seen, "192.0.2.7");
    waiting.send("NOWN\r\n");
    let (seen, _) = through(&mut waiting, &mut link, &get("/"));
    assert_honest(&seen, "127.0.0.1");
}
