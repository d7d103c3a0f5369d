//! The page of the admin address: what it is allowed, and the news that it lives on.

#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use common::peer::start;
use common::tls::Files;
use common::{ADMIN_TOKEN, CORES, HANG, Peer, TestEdge, edge, get, setting};
use ptth::limits::{EVENT_STREAMS_MAX, EVENT_TAKE_MS_MAX, SAMPLE_MS};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// A reader of `/events`: takes chunks apart, and gives the JSON of each event.
struct Events {
    peer: Peer,
    text: String,
}

impl Events {
    #[track_caller]
    fn open(edge: &TestEdge) -> Events {
        let mut peer = Peer::connect(edge.admin);
        peer.send(start("GET", "/events") + "\r\n");
        let mut events = Events { peer, text: String::new() };
        while !events.text.contains("\r\n\r\n") {
            events.more();
        }
        let (head, rest) = events.text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
        assert!(head.to_lowercase().contains("cache-control: no-store"), "{head}");
        events.text = rest.to_owned();
        events
    }

    #[track_caller]
    fn more(&mut self) {
        let mut bytes = vec![0; 65_536];
        let n = self.peer.stream.read(&mut bytes).expect("something comes");
        assert!(n > 0, "the stream ended");
        self.text += std::str::from_utf8(&bytes[..n]).expect("all of it is ASCII here");
    }

    /// Chunks lie between lines of their own, of which none looks like an event.
    #[track_caller]
    fn next(&mut self) -> Value {
        loop {
            if let Some(at) = self.text.find("data: ")
                && let Some(end) = self.text[at..].find("\n\n")
            {
                let event = self.text[at + 6..at + end].to_owned();
                self.text.drain(..at + end + 2);
                return serde_json::from_str(&event).expect("an event is JSON, in one chunk");
            }
            self.more();
        }
    }

    /// Until its end, which is the end of a message: a browser that sees less complains before it comes again.
    #[track_caller]
    fn ends(mut self) {
        let mut rest = self.text.into_bytes();
        self.peer.stream.read_to_end(&mut rest).expect("it ends, and is not cut");
        assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    }

    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let from = Instant::now();
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
            assert!(from.elapsed() < HANG, "never came: {event:#}");
        }
    }
}

#[test]
fn the_page_may_load_its_own_script_and_style_and_nothing_else() {
    let edge = edge();
    let page = edge.admin_get("/");
    let policy = page.field("content-security-policy").expect("a policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text();
    assert!(
        !html.contains("http:") && !html.contains("https:") && !html.contains("<style") && !html.contains(" style=")
    );
    for (path, kind) in [("/page.css", "text/css; charset=utf-8"), ("/page.js", "text/javascript; charset=utf-8")] {
        assert!(html.contains(&format!("\"{path}\"")), "{path}");
        let file = edge.admin_get(path);
        assert_eq!((file.status(), file.field("content-type")), (200, Some(kind)));
        assert_eq!(file.field("x-content-type-options"), Some("nosniff"));
    }
    let script = edge.admin_get("/page.js");
    for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setAttribute(\"style"] {
        assert!(!script.text().contains(word), "{word}: what workers say is only ever text");
    }
}

#[test]
fn news_come_every_second_and_begin_with_what_was() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let _waits = edge.sent(get("/"));
        edge.until_queued(1);
        let mut events = Events::open(&edge);
        let first = events.until(|event| event["report"]["pools"][0]["queued"] == 1);
        assert_eq!(first["report"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(first["report"]["findings"][0]["grade"], "bad", "{first:#}");
        assert_eq!(first["report"]["pools"][0]["counters"], json!({}), "what only machines read stays in /status");
        // One sample more with each event, the last one's time in it.
        let one = events.until(|event| event["history"]["at_unix"].as_array().is_some_and(|at| at.len() == 1));
        assert_eq!(one["history"]["pools"][0]["classes"][0]["queued"], json!([1]));
        let next = events.next();
        assert!(next["history"]["at_unix"][0].as_u64() >= one["history"]["at_unix"][0].as_u64());
        // Whoever comes later gets them all.
        let mut later = Events::open(&edge);
        let all = later.until(|event| event["history"]["at_unix"].as_array().is_some_and(|at| at.len() > 1));
        assert_eq!(all["history"]["pools"][0]["name"], "app");
    }
}

#[test]
fn so_many_may_read_and_one_that_leaves_makes_room() {
    let edge = edge();
    let mut readers: Vec<Events> = (0..EVENT_STREAMS_MAX).map(|_| Events::open(&edge)).collect();
    assert_eq!(edge.admin_get("/events").status(), 503);
    drop(readers.pop());
    let from = Instant::now();
    while {
        let mut peer = Peer::connect(edge.admin);
        peer.send(start("GET", "/events") + "\r\n");
        !peer.read(12).starts_with(b"HTTP/1.1 200")
    } {
        assert!(from.elapsed() < HANG, "the one that left is still counted");
    }
    for reader in &mut readers {
        reader.next();
    }
    let mut head = Peer::connect(edge.admin);
    head.send(start("HEAD", "/events") + "\r\n");
    assert_eq!(head.response_to_head().status(), 405);
}

/// A reader that asks and then never reads, with little room for what comes.
fn sleeper(edge: &TestEdge) -> TcpStream {
    let socket = Socket::new(Domain::for_address(edge.admin), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("less than the kernel's least is that");
    socket.connect(&edge.admin.into()).expect("the edge listens");
    let mut stream = TcpStream::from(socket);
    stream.write_all((start("GET", "/events") + "\r\n").as_bytes()).expect("the edge reads");
    stream
}

/// Bytes that the edge's kernel holds for a peer, as `/proc/net/tcp` shows them (proc_net(5)): little-endian hexadecimal addresses.
fn held_for(edge: &TestEdge, peer: &TcpStream) -> u64 {
    let place = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let ends = format!("{} {}", place(edge.admin), place(peer.local_addr().expect("an address")));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let line = table.lines().find(|line| line.contains(&ends));
    let queue = line.and_then(|line| line.split_whitespace().nth(4)?.split_once(':')).map_or("0", |(sent, _)| sent);
    u64::from_str_radix(queue, 16).expect("a number")
}

#[test]
fn a_reader_that_never_reads_is_cut_and_holds_little_and_the_others_read_on() {
    let edge = edge();
    let mut good = Events::open(&edge);
    let sleeping: Vec<TcpStream> = (1..EVENT_STREAMS_MAX).map(|_| sleeper(&edge)).collect();
    let mut left: Vec<&TcpStream> = sleeping.iter().collect();
    let (mut event_bytes, mut held) = (0, 0);
    let from = Instant::now();
    while !left.is_empty() {
        event_bytes = event_bytes.max(good.next().to_string().len() as u64);
        held = left.iter().map(|peer| held_for(&edge, peer)).max().unwrap_or(0).max(held);
        left.retain(|peer| peer.take_error().expect("a socket").is_none());
        assert!(from.elapsed() < HANG, "{} are not cut, and {held} bytes are held for one", left.len());
    }
    // What is told until it is cut, and what was there before.
    let events = EVENT_TAKE_MS_MAX / SAMPLE_MS + 2;
    assert!(0 < held && held <= events * (event_bytes + 100), "{held} bytes of events of {event_bytes}");
    let mut others: Vec<Events> = (1..EVENT_STREAMS_MAX).map(|_| Events::open(&edge)).collect();
    others.iter_mut().for_each(|other| _ = other.next());
    good.next();
}

#[test]
fn a_stream_ends_where_another_generation_answers_and_that_one_goes_on() {
    let edge = setting().cores(2).start();
    let mut events = Events::open(&edge);
    events.until(|event| event["history"]["at_unix"].as_array().is_some_and(|at| !at.is_empty()));
    let generation = edge.reload(|config| config.pools[0].priority.default = 5);
    // Nothing holds the older generation, and still it says so.
    events.ends();
    let mut again = Events::open(&edge);
    let event = again.until(|event| event["report"]["generation"] == generation);
    assert!(
        event["history"]["at_unix"].as_array().is_some_and(|at| !at.is_empty()),
        "what was before is not forgotten"
    );
}

#[test]
fn a_reader_of_news_holds_no_drain_up() {
    let edge = edge();
    let mut events = Events::open(&edge);
    events.next();
    edge.drain();
    assert!(edge.wait());
    events.ends();
}

#[test]
fn what_is_wrong_is_in_status() {
    let edge = setting().pool("queue = { requests_max = 1 }").start();
    let _one = edge.sent(get("/1"));
    edge.until_queued(1);
    assert_eq!(edge.sent(get("/2")).response().status(), 503);
    let status = edge.until(|status| {
        status["findings"].as_array().is_some_and(|all| all.iter().any(|own| own["about"] == "requests"))
    });
    let findings = status["findings"].as_array().expect("a list");
    let texts: Vec<&str> = findings.iter().filter_map(|own| own["text"].as_str()).collect();
    assert_eq!((&findings[0]["grade"], &findings[0]["about"]), (&json!("bad"), &json!("pool app")));
    assert!(texts[0].contains("no worker is linked, and a request waits: 1"), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("1 of 1 requests")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("queue full 1")), "{texts:?}");
    assert_eq!(status["lately"]["refusals"], json!({ "queue_full": 1 }));
}

#[test]
fn a_browser_without_a_session_is_led_to_where_it_shows_the_token() {
    let files = Files::new();
    files.write("admin.token", ADMIN_TOKEN);
    let edge = setting().admin(&format!("token_file = \"{}\"", files.path("admin.token"))).start();
    let ask = |path: &str| {
        let mut admin = Peer::connect(edge.admin);
        admin.send(start("GET", path) + "Connection: close\r\n\r\n");
        admin.response()
    };
    let led = ask("/");
    assert_eq!((led.status(), led.field("location")), (303, Some("/login")));
    let form = ask("/login");
    assert!(form.status() == 200 && form.text().contains("type=\"password\""), "{form:?}");
    assert!(form.field("content-security-policy").is_some());
    assert_eq!(ask("/page.css").status(), 200);
    for path in ["/page.js", "/events"] {
        assert_eq!(ask(path).status(), 401, "{path}");
    }
}
