//! What an HTTP/2 client sees of the edge, and what the worker sees of it: through links of both versions, beside an
//! HTTP/1.1 client where the two must not differ. Floods and hoarders are in `attacks_h2.rs`.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use common::frames::{self, Frames, block, bytes_of};
use common::h2_client::{H2Client, Sent, asking};
use common::h2_worker::{Asked, H2Worker, block_on};
use common::peer::Framing;
use common::tls::{Authority, Client, Files};
use common::{CORES, HOST, Message, Peer, TestEdge, pattern, setting};
use http::{HeaderMap, Request, Response};
use ptth::limits::{CLIENT_STREAMS_MAX, HEAD_FIELDS_MAX, LINE_BYTES_MAX, STREAM_WINDOW_BYTES};

fn edge_of(cores: u16) -> TestEdge {
    setting().cores(cores).listen("h2c = true").start()
}

fn edge() -> TestEdge {
    edge_of(1)
}

// ---- each version of a client over each version of a link ----

/// A message as neither version frames it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    /// Of a response.
    status: u16,
    interims: Vec<(u16, Fields)>,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    /// Sent or announced by Content-Length.
    length: Option<u64>,
}

type Fields = Vec<(String, String)>;

fn fields(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Said {
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn of_message(message: Message) -> Said {
        let length = match message.framing {
            Framing::Length(bytes) => Some(bytes),
            _ => None,
        };
        let lower = |fields: Fields| fields.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        Said {
            fields: lower(message.fields),
            body: message.body,
            trailers: lower(message.trailers),
            length,
            ..Said::default()
        }
    }
}

fn of_map(map: &HeaderMap) -> Fields {
    map.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect()
}

fn length_of(map: &HeaderMap) -> Option<u64> {
    Some(map.get("content-length")?.to_str().expect("text").parse().expect("a number"))
}

/// Puts a message's fields and body behind its first line.
fn text_of(line: &str, said: &Said, has_body: bool) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for (name, value) in &said.fields {
        text += &format!("{name}: {value}\r\n");
    }
    if !said.trailers.is_empty() {
        text += "transfer-encoding: chunked\r\n";
    } else if let Some(bytes) = said.length {
        text += &format!("content-length: {bytes}\r\n");
    } else if has_body {
        text += &format!("content-length: {}\r\n", said.body.len());
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    if said.trailers.is_empty() {
        bytes.extend_from_slice(&said.body);
        return bytes;
    }
    bytes.extend_from_slice(format!("{:x}\r\n", said.body.len()).as_bytes());
    bytes.extend_from_slice(&said.body);
    bytes.extend_from_slice(b"\r\n0\r\n");
    for (name, value) in &said.trailers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    H1,
    H2,
}
use Version::{H1, H2};

const PAIRS: [(Version, Version); 4] = [(H1, H1), (H1, H2), (H2, H1), (H2, H2)];

/// Asks once, and reads all that comes back.
fn ask(version: Version, address: SocketAddr, method: &str, said: &Said) -> Said {
    match version {
        H1 => ask_h1(address, method, said),
        H2 => ask_h2(address, method, said),
    }
}

fn ask_h1(address: SocketAddr, method: &str, said: &Said) -> Said {
    let mut client = Peer::connect(address);
    let line = format!("{method} /path HTTP/1.1\r\nHost: {HOST}");
    let bytes = text_of(&line, said, !said.body.is_empty());
    let mut writer = client.twin();
    let sends = thread::spawn(move || writer.send(&bytes));
    let mut interims = Vec::new();
    let message = loop {
        let mut head = client.head();
        if head.status() < 200 {
            interims.push((head.status(), head.fields));
            continue;
        }
        if method != "HEAD" {
            client.body(&mut head).expect("the whole body");
        }
        break head;
    };
    sends.join().expect("it was sent");
    Said { status: message.status(), interims, ..Said::of_message(message) }
}

fn ask_h2(address: SocketAddr, method: &str, said: &Said) -> Said {
    let mut client = H2Client::connect(address);
    let mut request = asking(method, "/path");
    put(request.headers_mut(), &said.fields);
    if let Some(bytes) = said.length {
        request.headers_mut().insert("content-length", bytes.into());
    }
    let ends = said.body.is_empty() && said.trailers.is_empty();
    let Sent { mut response, mut body } = client.start(request, ends);
    let (bytes, trailers) = (said.body.clone(), said.trailers.clone());
    if !ends {
        common::h2_client::spawn(async move {
            common::h2_client::send(&mut body, bytes.into(), trailers.is_empty()).await.expect("it was sent");
            if !trailers.is_empty() {
                let mut map = HeaderMap::new();
                put(&mut map, &trailers);
                body.send_trailers(map).expect("they were sent");
            }
        });
    }
    let mut interims = Vec::new();
    while let Some(interim) = block_on(std::future::poll_fn(|cx| response.poll_informational(cx))) {
        let interim = interim.expect("a head");
        interims.push((interim.status().as_u16(), of_map(interim.headers())));
    }
    let (head, body) = block_on(response).expect("a response").into_parts();
    let whole = common::h2_client::Begun { head, body }.whole().expect("all of it");
    Said {
        status: whole.status(),
        interims,
        fields: of_map(&whole.head.headers),
        length: length_of(&whole.head.headers),
        trailers: whole.trailers.as_ref().map(of_map).unwrap_or_default(),
        body: whole.body,
    }
}

fn put(map: &mut HeaderMap, fields: &[(String, String)]) {
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        map.append(name, value.parse().expect("a value"));
    }
}

enum Link {
    H1(Peer),
    H2(H2Worker),
}

impl Link {
    #[track_caller]
    fn dial(edge: &TestEdge, version: Version) -> Link {
        match version {
            H1 => Link::H1(edge.h1_link()),
            H2 => Link::H2(H2Worker::dial(edge, 10)),
        }
    }

    /// Answers one request, and says what it was.
    #[track_caller]
    fn serve(&mut self, reply: &Said) -> (String, Said) {
        match self {
            Link::H1(link) => {
                let request = link.request();
                let method = request.method().to_owned();
                for (status, fields) in &reply.interims {
                    let interim = Said { fields: fields.clone(), ..Said::default() };
                    link.send(text_of(&format!("HTTP/1.1 {status} Interim"), &interim, false));
                }
                let has_body = method != "HEAD" && !matches!(reply.status, 204 | 304);
                let mut bytes = text_of(&format!("HTTP/1.1 {} Status", reply.status), reply, has_body);
                if !has_body {
                    bytes.truncate(bytes.len() - reply.body.len());
                }
                link.send(bytes);
                (method, Said::of_message(request))
            }
            Link::H2(worker) => {
                let mut asked = worker.accept();
                let (body, trailers) = asked.read_body().expect("the whole request");
                let headers = &asked.head.headers;
                let seen = Said {
                    fields: of_map(headers),
                    length: length_of(headers),
                    body,
                    trailers: trailers.as_ref().map(of_map).unwrap_or_default(),
                    ..Said::default()
                };
                let method = asked.head.method.to_string();
                answer_h2(asked, reply);
                (method, seen)
            }
        }
    }
}

fn answer_h2(mut asked: Asked, reply: &Said) {
    for (status, fields) in &reply.interims {
        let mut interim = Response::builder().status(*status).body(()).expect("a head");
        put(interim.headers_mut(), fields);
        asked.respond.send_informational(interim).expect("the stream is open");
    }
    let mut response = Response::builder().status(reply.status).body(()).expect("a head");
    put(response.headers_mut(), &reply.fields);
    if let Some(bytes) = reply.length {
        response.headers_mut().insert("content-length", bytes.into());
    }
    let has_body = asked.head.method != "HEAD" && !(reply.body.is_empty() && reply.trailers.is_empty());
    let mut stream = asked.respond.send_response(response, !has_body).expect("the stream is open");
    if !has_body {
        return;
    }
    let (body, trailers) = (Bytes::from(reply.body.clone()), reply.trailers.clone());
    block_on(common::h2_client::send(&mut stream, body, trailers.is_empty())).expect("it was sent");
    if !trailers.is_empty() {
        let mut map = HeaderMap::new();
        put(&mut map, &trailers);
        stream.send_trailers(map).expect("they were sent");
    }
}

/// What the worker saw and what the client got, for each pair and number of cores.
#[track_caller]
fn in_each_pair(method: &'static str, request: &Said, reply: &Said, check: impl Fn(&str, &Said, &Said)) {
    for (cores, (client, link)) in CORES.into_iter().flat_map(|cores| PAIRS.map(|pair| (cores, pair))) {
        let about = format!("client {client:?}, link {link:?}, {cores} cores, {method}");
        eprintln!("{about}");
        let edge = edge_of(cores);
        let mut link = Link::dial(&edge, link);
        for _ in 0..2 {
            let (address, request) = (edge.address, request.clone());
            let asks = thread::spawn(move || ask(client, address, method, &request));
            let (seen_method, seen) = link.serve(reply);
            let got = common::within_hang(asks, |asks| asks.join().expect("an answer"));
            assert_eq!(seen_method, method, "{about}");
            assert_eq!(got.status, reply.status, "{about}: {got:?}");
            check(&about, &seen, &got);
        }
        let status = edge.until(|status| status["pools"][0]["in_flight"] == 0);
        assert_eq!(status["pools"][0]["queued"], 0, "{about}");
    }
}

fn ok_with(body: &str) -> Said {
    Said { status: 200, body: body.into(), length: Some(body.len() as u64), ..Said::default() }
}

#[test]
fn a_plain_request_is_the_same_in_every_pair() {
    let request = Said { fields: fields(&[("x-client", "yes"), ("accept", "*/*")]), ..Said::default() };
    let reply = Said { fields: fields(&[("x-worker", "too"), ("etag", "\"1\"")]), ..ok_with("the body") };
    in_each_pair("GET", &request, &reply, |about, seen, got| {
        assert_eq!((seen.all("x-client"), seen.all("accept")), (vec!["yes"], vec!["*/*"]), "{about}");
        assert_eq!((&*seen.body, &*got.body), (&b""[..], &b"the body"[..]), "{about}");
        assert_eq!(
            (got.all("x-worker"), got.all("etag"), got.length),
            (vec!["too"], vec!["\"1\""], Some(8)),
            "{about}"
        );
        let host = if about.contains("link H1") { vec![HOST] } else { vec![] };
        assert_eq!(seen.all("host"), host, "{about}: over HTTP/2 it is :authority");
        let version = if about.contains("client H2") { "2.0 ptth" } else { "1.1 ptth" };
        assert_eq!((seen.all("via"), seen.all("x-forwarded-proto")), (vec![version], vec!["http"]), "{about}");
    });
}

#[test]
fn bodies_of_all_sizes_pass_both_ways_in_every_pair() {
    for bytes in [1, 16_384, 3_000_000] {
        let body = pattern(bytes);
        let request = Said { length: Some(bytes as u64), body: body.clone(), ..Said::default() };
        let reply = Said { status: 201, length: Some(bytes as u64), body: body.clone(), ..Said::default() };
        in_each_pair("POST", &request, &reply, |about, seen, got| {
            assert!(seen.body == body && got.body == body, "{about}: {bytes} bytes were changed");
            assert_eq!((seen.length, got.length), (Some(bytes as u64), Some(bytes as u64)), "{about}");
        });
    }
}

#[test]
fn a_body_of_a_get_passes_in_every_pair() {
    let request = Said { length: Some(4), body: b"body".to_vec(), ..Said::default() };
    in_each_pair("GET", &request, &ok_with("answer"), |about, seen, _| assert_eq!(seen.body, b"body", "{about}"));
}

#[test]
fn trailers_pass_both_ways_in_every_pair_and_claim_nothing() {
    let trailers =
        fields(&[("x-checksum", "1"), ("grpc-status", "0"), ("x-forwarded-for", "1.2.3.4"), ("cookie", "a=b")]);
    let request = Said { body: b"up".to_vec(), trailers: trailers.clone(), ..Said::default() };
    let reply = Said { status: 200, body: b"down".to_vec(), trailers, ..Said::default() };
    in_each_pair("POST", &request, &reply, |about, seen, got| {
        for (way, said) in [("up", seen), ("down", got)] {
            assert_eq!(
                (said.trailer("x-checksum"), said.trailer("grpc-status")),
                (Some("1"), Some("0")),
                "{about}, {way}"
            );
            assert_eq!((said.trailer("x-forwarded-for"), said.trailer("cookie")), (None, None), "{about}, {way}");
        }
        assert_eq!((&*seen.body, &*got.body), (&b"up"[..], &b"down"[..]), "{about}");
    });
}

#[test]
fn an_answer_to_head_has_its_length_and_no_body_in_every_pair() {
    let reply = Said { status: 200, length: Some(1_000), ..Said::default() };
    in_each_pair("HEAD", &Said::default(), &reply, |about, _, got| {
        assert_eq!((got.length, got.body.len()), (Some(1_000), 0), "{about}");
    });
}

#[test]
fn a_204_and_a_304_have_no_body_in_every_pair() {
    for status in [204, 304] {
        let reply = Said { status, fields: fields(&[("x-worker", "yes")]), ..Said::default() };
        in_each_pair("GET", &Said::default(), &reply, |about, _, got| {
            assert_eq!((got.body.len(), got.all("x-worker")), (0, vec!["yes"]), "{about}");
            assert!(status != 204 || got.length.is_none(), "{about}: {got:?}");
        });
    }
}

#[test]
fn interim_responses_pass_in_every_pair() {
    let hints = || (103, fields(&[("link", "</style.css>; rel=preload")]));
    let reply = Said { interims: vec![hints(), hints()], ..ok_with("at last") };
    in_each_pair("GET", &Said::default(), &reply, |about, _, got| {
        assert_eq!(got.interims.len(), 2, "{about}");
        for (status, fields) in &got.interims {
            assert_eq!(*status, 103, "{about}");
            assert!(fields.iter().any(|(name, value)| name == "link" && value.contains("preload")), "{about}");
        }
        assert_eq!(got.body, b"at last", "{about}");
    });
}

#[test]
fn cookies_that_http2_took_apart_reach_the_worker_as_one() {
    let request = Said {
        fields: fields(&[("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3")]),
        ..Said::default()
    };
    for cores in CORES {
        for version in [H1, H2] {
            let edge = edge_of(cores);
            let mut link = Link::dial(&edge, version);
            let (address, request) = (edge.address, request.clone());
            let asks = thread::spawn(move || ask(H2, address, "GET", &request));
            let (_, seen) = link.serve(&ok_with("ok"));
            assert_eq!(asks.join().unwrap().status, 200);
            assert_eq!((seen.all("cookie"), seen.all("x-between")), (vec!["a=1; b=2; c=3"], vec!["1"]), "{version:?}");
        }
    }
}

#[test]
fn a_100_comes_once_a_worker_has_the_request_in_every_pair() {
    for (cores, link) in CORES.into_iter().flat_map(|cores| [H1, H2].map(|link| (cores, link))) {
        let edge = edge_of(cores);
        let mut client = H2Client::connect(edge.address);
        let mut request = asking("POST", "/path");
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        request.headers_mut().insert("content-length", 4.into());
        let mut sent = client.start(request, false);
        edge.until_queued(1);
        let mut link = Link::dial(&edge, link);
        assert_eq!(sent.interim().0, 100);
        sent.send(b"body", true);
        let (_, seen) = link.serve(&ok_with("thanks"));
        assert_eq!((&*seen.body, seen.all("expect")), (&b"body"[..], vec![]), "it ends here");
        assert_eq!(sent.whole().text(), "thanks");
    }
}

#[test]
fn a_client_that_cancels_is_heard_by_its_worker_in_every_phase() {
    for cores in CORES {
        for phase in ["no body yet", "body under way", "answer under way"] {
            let edge = edge_of(cores);
            let worker = H2Worker::dial(&edge, 10);
            let mut client = H2Client::connect(edge.address);
            let mut sent = client.start(asking("POST", "/"), phase == "answer under way");
            let mut asked = worker.accept();
            let mut stream = None;
            match phase {
                "body under way" => {
                    sent.send(b"some", false);
                    assert_eq!(asked.read_some().unwrap().unwrap(), "some");
                }
                "answer under way" => {
                    let mut begun = asked.begin(Response::new(()));
                    begun.send_data("some".into(), false).unwrap();
                    stream = Some(begun);
                    assert_eq!(sent.begun().some().unwrap().unwrap(), "some");
                }
                _ => {}
            }
            sent.body.send_reset(h2::Reason::CANCEL);
            let reason = match &mut stream {
                None => asked.reset_by_edge(),
                Some(stream) => block_on(std::future::poll_fn(|cx| stream.poll_reset(cx))).expect("a reset"),
            };
            assert_eq!(reason, h2::Reason::CANCEL, "{phase}");
            edge.until_credits(10);

            // Over HTTP/1.1 there is no other word for it than the connection's end.
            drop(worker);
            edge.until_links(0);
            let mut link = edge.h1_link();
            let mut sent = client.start(asking("POST", "/"), true);
            link.request();
            sent.body.send_reset(h2::Reason::CANCEL);
            link.ends();
        }
    }
}

#[test]
fn a_client_that_cancels_leaves_the_queue() {
    let edge = edge();
    let mut client = H2Client::connect(edge.address);
    let mut sent: Vec<_> = (0..50).map(|index| client.get(&format!("/{index}"))).collect();
    edge.until_queued(50);
    for sent in sent.iter_mut().skip(1) {
        sent.body.send_reset(h2::Reason::CANCEL);
    }
    edge.until_queued(1);
    let mut link = edge.h1_link();
    assert_eq!(link.serve("the first").target(), "/0");
    assert_eq!(sent[0].whole().text(), "the first");
    drop((client, sent));
    edge.until(|status| status["cores"][0]["connections"] == 0);
}

#[test]
fn a_worker_that_breaks_off_is_never_taken_for_complete() {
    for cores in CORES {
        let edge = edge_of(cores);
        let mut client = H2Client::connect(edge.address);
        let mut link = edge.h1_link();
        let mut sent = client.get("/");
        link.request();
        link.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let mut begun = sent.begun();
        assert_eq!(begun.some().unwrap().unwrap(), "half");
        drop(link);
        let error = begun.some().expect("more than an end").expect_err("no complete body");
        assert_eq!((error.is_reset(), error.reason()), (true, Some(h2::Reason::INTERNAL_ERROR)), "{error}");
        // Only that stream.
        let worker = H2Worker::dial(&edge, 1);
        let mut sent = client.get("/next");
        worker.accept().ok("next");
        assert_eq!(sent.whole().text(), "next");
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_leaves_time_to_read_it() {
    let edge = edge();
    let mut frames = Frames::client(&edge, &[]);
    let nobody = |frames: &mut Frames, stream| {
        let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "nobody.example"), (":path", "/")];
        frames.head(stream, &fields, false);
        let head = frames.next(|frame| frame.kind == frames::HEADERS);
        assert_eq!((head.stream, head.status()), (stream, 404));
        frames.next(|frame| frame.ends_stream());
    };
    nobody(&mut frames, 1);
    frames.data(1, b"the rest", true);
    nobody(&mut frames, 3);
    // More than anybody wants to throw away.
    for _ in 0..5 {
        frames.data(3, &[0; 16 * 1024], false);
    }
    let reset = frames.next(|frame| frame.kind == frames::RST_STREAM);
    assert_eq!((reset.stream, reset.code()), (3, frames::NO_ERROR), "the first one was not reset");
}

#[test]
fn the_edges_own_answers_are_those_of_http1() {
    let edge = setting().listen("h2c = true").pool("hold_without_workers = false").start();
    let mut client = H2Client::connect(edge.address);
    let whole = client.get("/").whole();
    assert_eq!(whole.status(), 503);
    assert!(whole.field("retry-after").is_some_and(|seconds| ["1", "2"].contains(&seconds)), "{whole:?}");
    assert_eq!(whole.field("proxy-status"), Some("ptth; error=destination_unavailable"));
    assert!(whole.text().starts_with("503 Service Unavailable"), "{}", whole.text());
    assert_eq!(whole.field("content-length"), Some(&*whole.body.len().to_string()));
    let unknown = Request::get("http://nobody.example/").body(()).unwrap();
    assert_eq!(client.start(unknown, true).whole().status(), 404);
    let head = client.start(asking("HEAD", "/"), true).whole();
    assert_eq!((head.status(), head.body.len()), (503, 0));
    // An upload that nobody wants is answered, too, and the connection goes on.
    let mut upload = client.start(asking("POST", "/"), false);
    assert_eq!(upload.whole().status(), 503);
    assert_eq!(client.get("/").whole().status(), 503);
}

// ---- many at once ----

#[test]
fn streaming_goes_both_ways_at_the_same_time() {
    for cores in CORES {
        let edge = edge_of(cores);
        let worker = H2Worker::dial(&edge, 10);
        let mut client = H2Client::connect(edge.address);
        let mut sent = client.start(asking("POST", "/service/Method"), false);
        let mut asked = worker.accept();
        let mut stream = asked.begin(Response::builder().header("content-type", "application/grpc").body(()).unwrap());
        let mut begun = sent.begun();
        for round in 0..200 {
            let message = pattern(1 + round % 100);
            sent.send(&message, false);
            let mut seen = Vec::new();
            while seen.len() < message.len() {
                seen.extend_from_slice(&asked.read_some().expect("a message").expect("the stream is open"));
            }
            stream.send_data(seen.clone().into(), false).expect("the stream is open");
            let mut back = Vec::new();
            while back.len() < message.len() {
                back.extend_from_slice(&begun.some().expect("a message").expect("the stream is open"));
            }
            assert_eq!((&seen, &back), (&message, &message), "round {round}");
        }
        // Each side ends by itself.
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        stream.send_trailers(trailers).unwrap();
        assert!(begun.some().is_none());
        let trailers = block_on(begun.body.trailers()).expect("the stream is open").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    }
}

#[test]
fn a_hundred_requests_run_at_once_and_the_next_one_waits_at_the_client() {
    for cores in CORES {
        let edge = edge_of(cores);
        let worker = H2Worker::dial(&edge, 1_000);
        let mut client = H2Client::connect(edge.address);
        let mut first = client.get("/first");
        worker.accept().ok("SETTINGS have come with it");
        first.whole();
        let mut sent: Vec<_> = (0..CLIENT_STREAMS_MAX).map(|index| client.get(&format!("/{index}"))).collect();
        let asked: Vec<_> = (0..CLIENT_STREAMS_MAX).map(|_| worker.accept()).collect();
        assert_eq!(client.send.current_max_send_streams(), CLIENT_STREAMS_MAX as usize);
        for asked in asked {
            let path = asked.path().to_owned();
            asked.ok(&path);
        }
        for (index, sent) in sent.iter_mut().enumerate() {
            assert_eq!(sent.whole().text(), format!("/{index}"));
        }
        drop(client);
        edge.until(|status| status["pools"][0]["in_flight"] == 0);
    }
}

#[test]
fn a_slow_client_stops_its_worker_and_nobody_else() {
    for cores in CORES {
        let edge = edge_of(cores);
        let worker = H2Worker::dial(&edge, 10);
        // A connection whose own window is full would stop all of its streams: that is the client's choice.
        let mut builder = h2::client::Builder::new();
        let mut client = H2Client::with(edge.address, builder.initial_connection_window_size(1 << 20));
        let mut slow = client.get("/slow");
        let mut asked = worker.accept();
        let stream = asked.begin(Response::new(()));
        let begun = slow.begun();
        let body = pattern(10_000_000);
        let before = until_still(send_counted(stream, &body));
        // The client's window, and at most a window on the link; the rest is what lies between two threads of this test.
        assert!(before <= 2 * STREAM_WINDOW_BYTES as usize, "{before} bytes were taken for a client that reads none");
        for round in 0..20 {
            let mut other = client.get(&format!("/{round}"));
            worker.accept().ok("others are served");
            assert_eq!(other.whole().text(), "others are served");
        }
        assert!(begun.whole().expect("the rest").body == body, "the body was changed");
    }
}

#[test]
fn an_upload_that_waits_costs_no_more_than_its_window() {
    let edge = edge();
    let mut client = H2Client::connect(edge.address);
    let body = pattern(2_000_000);
    let mut request = asking("POST", "/up");
    request.headers_mut().insert("content-length", body.len().into());
    let Sent { response, body: stream } = client.start(request, false);
    edge.until_queued(1);
    let went = until_still(send_counted(stream, &body));
    assert!(went > 0 && went <= STREAM_WINDOW_BYTES as usize, "{went} bytes went up while nobody read them");
    let queued = edge.status()["pools"][0]["queued"].clone();
    assert_eq!(queued, 1);
    let worker = H2Worker::dial_at_once(&edge, 1);
    let mut asked = worker.accept();
    let (seen, _) = asked.read_body().expect("the whole upload");
    assert!(seen == body, "the upload was changed");
    asked.ok("thanks");
    assert_eq!(block_on(response).unwrap().status(), 200);
}

/// Sends a body as its windows open, to its end. The number says how much has gone.
fn send_counted(mut stream: h2::SendStream<Bytes>, body: &[u8]) -> Arc<AtomicUsize> {
    const STEP: usize = 10_000;
    let (went, bytes) = (Arc::new(AtomicUsize::new(0)), Bytes::copy_from_slice(body));
    let counts = went.clone();
    assert_eq!(bytes.len() % STEP, 0);
    common::h2_client::spawn(async move {
        for from in (0..bytes.len()).step_by(STEP) {
            let piece = bytes.slice(from..from + STEP);
            common::h2_client::send(&mut stream, piece, from + STEP == bytes.len()).await.expect("all is read");
            counts.store(from + STEP, Ordering::Relaxed);
        }
    });
    went
}

/// Until it moves no more. Too early a verdict can only miss a defect.
fn until_still(went: Arc<AtomicUsize>) -> usize {
    let mut before = usize::MAX;
    common::peer::until(|| {
        thread::sleep(common::QUIET);
        let now = went.load(Ordering::Relaxed);
        let is_still = now > 0 && now == before;
        before = now;
        is_still
    });
    before
}

// ---- heads ----

/// What becomes of a request that no library sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered(u16),
    /// The stream is reset.
    Reset,
    /// The connection ends.
    GoneAway,
}
use Fate::{Answered, GoneAway, Reset};

/// The first word about stream 1.
#[track_caller]
fn fate(client: &mut Frames) -> Fate {
    loop {
        match client.frame() {
            Some(frame) if frame.kind == frames::HEADERS && frame.stream == 1 => return Answered(frame.status()),
            Some(frame) if frame.kind == frames::RST_STREAM && frame.stream == 1 => {
                assert_eq!(frame.code(), frames::PROTOCOL_ERROR);
                return Reset;
            }
            Some(frame) if frame.kind == frames::GOAWAY => {
                assert_eq!(frame.goaway_code(), frames::PROTOCOL_ERROR);
                return GoneAway;
            }
            Some(_) => {}
            None => panic!("ended without a word"),
        }
    }
}

/// An edge whose worker answers every request with its path and counts them.
fn counting_edge() -> (TestEdge, Arc<AtomicUsize>) {
    let edge = edge();
    let seen = Arc::new(AtomicUsize::new(0));
    let counts = seen.clone();
    H2Worker::dial(&edge, 100).serve_all(move |head| {
        counts.fetch_add(1, Ordering::Relaxed);
        head.uri.path().to_owned()
    });
    (edge, seen)
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/")];

/// The head of a GET with some of its fields replaced (by their name) and others behind it. A value of `-` removes it.
fn changed(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut head: Vec<_> = GET.to_vec();
    for (name, value) in changes {
        match head.iter().position(|(own, _)| own == name && name.starts_with(':')) {
            Some(at) if *value == "-" => drop(head.remove(at)),
            Some(at) => head[at].1 = value,
            None => head.push((name, value)),
        }
    }
    head
}

#[test]
fn a_head_that_is_malformed_reaches_no_worker() {
    let (edge, seen) = counting_edge();
    type Changes = &'static [(&'static str, &'static str)];
    let cases: &[(Changes, &[Fate])] = &[
        // pseudo-header fields: RFC 9113 §8.3
        (&[(":method", "-")], &[Reset]),
        (&[(":scheme", "-")], &[Reset]),
        (&[(":path", "-")], &[Reset, Answered(400)]),
        (&[(":path", "")], &[Reset]),
        (&[(":path", "no-slash")], &[Reset, Answered(400)]),
        (&[(":path", "http://app.example/")], &[Reset, Answered(400)]),
        (&[(":path", "*")], &[Reset, Answered(400)]),
        (&[(":path", "/a b")], &[Reset, Answered(400)]),
        (&[(":path", "/a\r\nx: y")], &[Reset, Answered(400), GoneAway]),
        (&[(":path", "/a\0")], &[Reset, Answered(400), GoneAway]),
        (&[(":path", "/\u{e4}")], &[Reset, Answered(400)]),
        (&[(":scheme", "ftp")], &[Answered(400)]),
        (&[(":scheme", "ht tp")], &[Reset]),
        (&[(":method", "GE T")], &[Reset, GoneAway]),
        (&[(":method", "")], &[Reset, GoneAway]),
        (&[(":authority", "-")], &[Answered(400)]),
        (&[(":authority", "")], &[Reset, Answered(400)]),
        (&[(":authority", "user@app.example")], &[Answered(400)]),
        (&[(":authority", "user:secret@app.example")], &[Answered(400)]),
        (&[(":authority", "app.example:")], &[Reset, Answered(400)]),
        (&[(":authority", "app.example:0")], &[Reset, Answered(400)]),
        (&[(":authority", "app.example:99999")], &[Reset, Answered(400)]),
        (&[(":authority", "app.example/x")], &[Reset, Answered(400)]),
        (&[(":authority", "app.example\r\nx: y")], &[Reset, Answered(400), GoneAway]),
        (&[(":authority", "app..example")], &[Answered(400)]),
        (&[("host", "other.example")], &[Answered(400)]),
        (&[("host", "app.example:81")], &[Answered(400)]),
        (&[("host", "app.example"), ("host", "app.example")], &[Answered(400)]),
        (&[(":authority", "-"), ("host", "user@app.example")], &[Answered(400)]),
        (&[(":authority", "-"), ("host", "")], &[Answered(400)]),
        (&[("x-before", "1"), (":x", "1")], &[GoneAway, Reset]),
        (&[(":status", "200")], &[Reset, GoneAway]),
        (&[(":protocol", "websocket")], &[Reset]),
        // methods
        (&[(":method", "TRACE")], &[Answered(405)]),
        (&[(":method", "CONNECT"), (":scheme", "-"), (":path", "-")], &[Answered(405)]),
        (&[(":method", "CONNECT")], &[Reset]),
        (&[(":method", "CONNECT"), (":protocol", "h2c")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "web socket")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "other/")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "other/1/2")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "H2C/1")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "websocket, h2c")], &[Answered(400)]),
        (&[(":method", "CONNECT"), (":protocol", "websocket"), ("content-length", "0")], &[Answered(400)]),
        // fields of a connection: §8.2.2
        (&[("connection", "keep-alive")], &[Reset]),
        (&[("keep-alive", "timeout=5")], &[Reset]),
        (&[("proxy-connection", "keep-alive")], &[Reset]),
        (&[("transfer-encoding", "chunked")], &[Reset]),
        (&[("upgrade", "websocket")], &[Reset]),
        (&[("te", "gzip")], &[Reset]),
        (&[("te", "trailers, gzip")], &[Reset]),
        // names and values: §8.2.1
        (&[("X-Upper", "1")], &[Reset, GoneAway]),
        (&[("x space", "1")], &[Reset, GoneAway]),
        (&[("x:colon", "1")], &[Reset, GoneAway]),
        (&[("x\"quote", "1")], &[Answered(400)]), // http and h2 let it pass
        (&[("x-cr", "a\rb")], &[Reset, GoneAway]),
        (&[("x-lf", "a\nb")], &[Reset, GoneAway]),
        (&[("x-nul", "a\0b")], &[Reset, GoneAway]),
        (&[("x-before", " a")], &[Answered(400)]),
        (&[("x-behind", "a\t")], &[Answered(400)]),
        // lengths: §8.1.1
        (&[("content-length", "x")], &[Reset]),
        (&[("content-length", "+1")], &[Reset]),
        (&[("content-length", "")], &[Reset, Answered(400)]),
        (&[("content-length", "5")], &[Reset]),
        (&[("content-length", "0"), ("content-length", "1")], &[Reset]),
        // expectations
        (&[("expect", "a miracle")], &[Answered(417)]),
    ];
    for (changes, fates) in cases {
        let mut client = Frames::client(&edge, &[]);
        client.head(1, &changed(changes), true);
        let fate = fate(&mut client);
        let shown: Vec<_> = changes.iter().map(|(name, value)| (name, &value[..value.len().min(30)])).collect();
        assert!(fates.contains(&fate), "{shown:?}: {fate:?}");
        if fate != GoneAway {
            // The connection is none the worse for it.
            client.head(3, &GET, true);
            client.next(|frame| frame.kind == frames::HEADERS && frame.stream == 3);
        }
        assert_eq!(seen.swap(0, Ordering::Relaxed), usize::from(fate != GoneAway), "{shown:?} reached a worker");
    }
    // Lines that are too long, as over HTTP/1.1.
    let (path, value) = (format!("/{}", "p".repeat(LINE_BYTES_MAX)), "v".repeat(LINE_BYTES_MAX));
    for (head, status) in [
        ([GET[0], GET[1], GET[2], (":path", &*path), ("x-long", "")], 414),
        ([GET[0], GET[1], GET[2], GET[3], ("x-long", &*value)], 431),
    ] {
        let mut client = Frames::client(&edge, &[]);
        client.head(1, &head, true);
        assert_eq!(fate(&mut client), Answered(status));
    }
    // Order, and what comes twice.
    for head in [
        &[("x-field", "1"), GET[0], GET[1], GET[2], GET[3]][..],
        &[GET[0], GET[0], GET[1], GET[2], GET[3]],
        &[GET[0], GET[1], GET[2], GET[3], (":path", "/other")],
        &[GET[0], GET[1], GET[2], (":authority", "other.example"), GET[3]],
    ] {
        let mut client = Frames::client(&edge, &[]);
        client.head(1, head, true);
        assert_eq!(fate(&mut client), Reset, "{head:?}");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    let refusals = &edge.status()["counters"]["refusals"];
    assert!(refusals["client_malformed"].as_u64() > Some(10) && refusals["method_refused"] == 2, "{refusals}");
}

#[test]
fn a_head_that_is_odd_but_right_is_served() {
    let (edge, _) = counting_edge();
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[], 200),
        (&[(":authority", "APP.example")], 200),
        (&[(":authority", "app.example:80")], 200),
        (&[("host", "app.example")], 200),
        (&[("host", "App.Example:80")], 200),
        (&[(":authority", "-"), ("host", "app.example")], 200),
        (&[(":authority", "other.example"), ("host", "other.example")], 404),
        (&[(":scheme", "https")], 200),
        (&[(":scheme", "HTTP")], 200),
        (&[(":method", "OPTIONS"), (":path", "*")], 200),
        (&[(":method", "BREW")], 200),
        (&[(":path", "/a?b=%20&c[]={}")], 200),
        (&[("te", "trailers")], 200),
        (&[("x-empty", "")], 200),
        (&[("x-latin", "\u{e4}")], 200),
        (&[("content-length", "0")], 200),
        (&[("content-length", "00"), ("content-length", "0")], 200),
        (&[("priority", "u=0, i")], 200),
    ];
    for (changes, status) in cases {
        let mut client = Frames::client(&edge, &[]);
        client.head(1, &changed(changes), true);
        assert_eq!(fate(&mut client), Answered(*status), "{changes:?}");
    }
}

#[test]
fn a_body_that_breaks_its_length_is_never_completed() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 10);
    for (body, ends) in [(&b"12345"[..], false), (b"12", true)] {
        let mut client = Frames::client(&edge, &[]);
        let head = changed(&[(":method", "POST"), ("content-length", "4")]);
        client.head(1, &head, false);
        let mut asked = worker.accept();
        client.data(1, body, ends);
        assert_eq!(fate(&mut client), Reset, "{body:?}");
        assert!(asked.read_body().is_err(), "{body:?} looked complete");
        edge.until_credits(10);
    }
}

#[test]
fn the_largest_head_passes_and_the_next_is_refused_as_over_http1() {
    let (edge, _) = counting_edge();
    let status = |fields: &[(String, String)]| {
        let mut client = Frames::client(&edge, &[]);
        let mut head: Vec<_> = GET.to_vec();
        head.extend(fields.iter().map(|(name, value)| (&**name, &**value)));
        let block = block(&head);
        let mut pieces = block.chunks(16_384).peekable();
        let mut kind = frames::HEADERS;
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { frames::END_HEADERS } else { 0 };
            let flags = flags | if kind == frames::HEADERS { frames::END_STREAM } else { 0 };
            client.peer.send_if_open(bytes_of(kind, flags, 1, piece));
            kind = frames::CONTINUATION;
        }
        loop {
            match client.frame().expect("a word") {
                frame if frame.kind == frames::HEADERS => break frame.status(),
                _ => {}
            }
        }
    };
    let some = |count: usize, bytes: usize| -> Vec<_> {
        (0..count).map(|index| (format!("x-{index:03}"), "v".repeat(bytes))).collect()
    };
    assert_eq!(status(&some(HEAD_FIELDS_MAX, 1)), 200);
    assert_eq!(status(&some(HEAD_FIELDS_MAX + 1, 1)), 431);
    assert_eq!(status(&some(2, 8_000)), 200, "16,014 bytes");
    assert_eq!(status(&some(3, 5_460)), 431, "a little over 16 KiB");
    assert_eq!(status(&some(4, 8_000)), 431, "the engine's own bound");
    assert_eq!(status(&some(8, 8_000)), 431);
    // Cookies count as the one that they become.
    let crumbs: Vec<_> = (0..300).map(|index| ("cookie".to_owned(), format!("c{index}=1"))).collect();
    assert_eq!(status(&crumbs), 200);
}

#[test]
fn a_priority_header_counts_as_over_http1() {
    for version in [H1, H2] {
        let setting = setting().listen("h2c = true").pool("[pool.priority]\nclient_header = \"clamp\"\nclamp = [2, 6]");
        let edge = setting.start();
        let mut link = Link::dial(&edge, H1);
        for (sent, want) in [("u=1, i", "u=2, i"), ("u=7", "u=6"), ("u=5", "u=5"), ("nonsense(", "u=3")] {
            let (address, request) = (edge.address, Said { fields: fields(&[("priority", sent)]), ..Said::default() });
            let asks = thread::spawn(move || ask(version, address, "GET", &request));
            let (_, seen) = link.serve(&ok_with(""));
            assert_eq!(asks.join().unwrap().status, 200);
            assert_eq!(seen.all("priority"), [want], "{version:?}: {sent}");
        }
    }
}

#[test]
fn who_asks_is_said_by_the_edge_alone() {
    let claims = fields(&[
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
    ]);
    let request = Said { fields: claims, ..Said::default() };
    in_each_pair("GET", &request, &ok_with(""), |about, seen, _| {
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{about}");
        assert!(seen.all("x-real-ip").is_empty() && seen.all("x_forwarded_for").is_empty(), "{about}");
        assert_eq!(seen.all("forwarded"), ["for=127.0.0.1;proto=http;host=app.example"], "{about}");
    });
}

// ---- tunnels ----

fn websocket(path: &str) -> Request<()> {
    let mut request = asking("CONNECT", path);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    for (name, value) in
        [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("sec-websocket-key", "spoilt")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Bytes that look like anything pass both ways; then the client ends its side, and then the worker.
#[track_caller]
fn check_tunnel(sent: &mut Sent, begun: &mut common::h2_client::Begun, mut echo: impl FnMut(usize) -> Vec<u8>) {
    for bytes in [1, 100, 50_000] {
        let up = [b"0\r\n\r\nHTTP/1.1 ".to_vec(), pattern(bytes)].concat();
        sent.send(&up, false);
        assert!(echo(up.len()) == up, "on the way up");
        let mut down = Vec::new();
        while down.len() < up.len() {
            down.extend_from_slice(&begun.some().expect("bytes").expect("an open tunnel"));
        }
        assert!(down == up, "on the way down");
    }
}

/// What the client that knows extended CONNECT has to wait for.
#[track_caller]
fn settled(client: &mut H2Client) {
    common::peer::until(|| client.send.is_extended_connect_protocol_enabled());
}

#[test]
fn a_websocket_runs_over_an_http1_link_with_a_key_of_the_edges_own() {
    for cores in CORES {
        let edge = edge_of(cores);
        let mut client = H2Client::connect(edge.address);
        settled(&mut client);
        let mut link = edge.h1_link();
        let mut sent = client.start(websocket("/chat?x"), false);
        let seen = link.request();
        assert_eq!((seen.method(), seen.target(), seen.field("upgrade")), ("GET", "/chat?x", Some("websocket")));
        assert!(seen.connection("upgrade"), "{seen:?}");
        assert_eq!(
            (seen.field("sec-websocket-version"), seen.field("sec-websocket-protocol")),
            (Some("13"), Some("chat"))
        );
        let key = seen.field("sec-websocket-key").expect("an HTTP/1.1 server wants one").to_owned();
        assert_ne!(key, "spoilt", "RFC 8441 §5: a client's own is not processed");
        let accept = ptth::wire::websocket::accept_of(key.as_bytes());
        link.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            accept.to_str().unwrap()
        ));
        let mut begun = sent.begun();
        assert_eq!(begun.head.status, 200);
        assert_eq!(begun.head.headers["sec-websocket-protocol"], "chat");
        for gone in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
            assert!(!begun.head.headers.contains_key(gone), "{gone}");
        }
        check_tunnel(&mut sent, &mut begun, |bytes| {
            let up = link.read(bytes);
            link.send(&up);
            up
        });
        sent.send(b"", true);
        assert_eq!(link.end().0, b"", "the stream's end is the connection's");
        link.send("last");
        link.finish();
        assert_eq!(begun.whole().unwrap().body, b"last");
        edge.until_links(0);
    }
}

#[test]
fn a_server_that_has_not_read_the_key_is_no_websocket() {
    let edge = edge();
    let mut client = H2Client::connect(edge.address);
    settled(&mut client);
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let mut link = edge.h1_link();
        let mut sent = client.start(websocket("/"), false);
        link.request();
        link.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
        ));
        let whole = sent.whole();
        assert_eq!((whole.status(), whole.field("proxy-status")), (502, Some("ptth; error=http_protocol_error")));
        drop(link);
        edge.until_links(0);
    }
}

#[test]
fn a_websocket_runs_over_an_http2_link() {
    for cores in CORES {
        let edge = edge_of(cores);
        let mut client = H2Client::connect(edge.address);
        settled(&mut client);
        let mut builder = h2::server::Builder::new();
        let worker = H2Worker::with(&edge, builder.max_concurrent_streams(10).enable_connect_protocol());
        let mut sent = client.start(websocket("/chat"), false);
        let mut asked = worker.accept();
        assert_eq!((asked.head.method.as_str(), asked.path()), ("CONNECT", "/chat"));
        assert_eq!(asked.head.extensions.get::<h2::ext::Protocol>().expect("RFC 8441").as_str(), "websocket");
        assert_eq!((asked.field("sec-websocket-key"), asked.field("sec-websocket-version")), (None, Some("13")));
        let mut stream = asked.begin(Response::new(()));
        let mut begun = sent.begun();
        assert_eq!(begun.head.status, 200);
        assert!(!begun.head.headers.contains_key("sec-websocket-accept"));
        check_tunnel(&mut sent, &mut begun, |bytes| {
            let mut up = Vec::new();
            while up.len() < bytes {
                up.extend_from_slice(&asked.read_some().expect("bytes").expect("an open tunnel"));
            }
            block_on(common::h2_client::send(&mut stream, up.clone().into(), false)).unwrap();
            up
        });
        sent.send(b"", true);
        assert!(asked.read_some().is_none(), "the client's end is the stream's");
        stream.send_data("last".into(), true).unwrap();
        assert_eq!(begun.whole().unwrap().body, b"last");
        edge.until_credits(10);
    }
}

#[test]
fn a_websocket_runs_through_our_own_worker() {
    let edge = edge();
    let origin = common::origin::Origin::start();
    let _worker = edge.worker(origin.address);
    let mut client = H2Client::connect(edge.address);
    settled(&mut client);
    let mut sent = client.start(websocket("/"), false);
    let mut server = origin.accept();
    let seen = server.request();
    let accept = ptth::wire::websocket::accept_of(seen.field("sec-websocket-key").expect("a key").as_bytes());
    server.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept.to_str().unwrap()
    ));
    let mut begun = sent.begun();
    assert_eq!(begun.head.status, 200);
    check_tunnel(&mut sent, &mut begun, |bytes| {
        let up = server.read(bytes);
        server.send(&up);
        up
    });
}

#[test]
fn a_refused_tunnel_is_an_ordinary_answer() {
    let edge = edge();
    let mut client = H2Client::connect(edge.address);
    settled(&mut client);
    let mut link = edge.h1_link();
    let mut sent = client.start(websocket("/"), false);
    link.request();
    link.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let whole = sent.whole();
    assert_eq!((whole.status(), whole.text()), (403, "no"));
    let mut sent = client.get("/next");
    link.serve("next");
    assert_eq!(sent.whole().text(), "next");
}

// ---- how a connection begins and ends ----

#[test]
fn the_preface_decides_where_both_versions_are_spoken() {
    let (edge, _) = counting_edge();
    // As HTTP/1.1, in pieces.
    let mut client = edge.client();
    for byte in common::get("/one").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().text(), "/one");
    // As HTTP/2, in pieces.
    let mut client = edge.client();
    let request = bytes_of(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &block(&GET));
    for byte in [frames::PREFACE, &bytes_of(frames::SETTINGS, 0, 0, &[]), &request].concat() {
        client.send([byte]);
    }
    assert_eq!(fate(&mut Frames { peer: client }), Answered(200));
    // Without h2c it is no HTTP at all.
    let plain = common::edge();
    let answer = plain.sent(frames::PREFACE).response();
    assert!(answer.status() >= 400, "{answer:?}");
    // A preface that goes wrong late.
    let mut client = edge.sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX");
    let (bytes, _) = client.end();
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 4") || bytes.starts_with(b"HTTP/1.1 5"), "{bytes:?}");
}

#[test]
fn a_drain_lets_what_runs_finish_and_closes_what_is_idle() {
    for cores in CORES {
        let edge = edge_of(cores);
        let mut link = edge.h1_link();
        let (mut busy, idle) = (H2Client::connect(edge.address), H2Client::connect(edge.address));
        let mut sent = busy.get("/runs");
        link.request();
        edge.drain();
        assert_eq!(idle.end(), Ok(()));
        common::peer::until(|| busy.try_start(asking("GET", "/late"), true).is_err());
        link.ok("finished");
        assert_eq!(sent.whole().text(), "finished");
        drop(sent);
        assert_eq!(busy.end(), Ok(()));
        link.ends();
        assert!(edge.wait());
    }
}

#[test]
fn a_client_that_ends_leaves_nothing_behind() {
    for cores in CORES {
        let edge = edge_of(cores);
        let worker = H2Worker::dial(&edge, 100);
        let mut client = H2Client::connect(edge.address);
        let sent: Vec<_> = (0..20).map(|_| client.get("/")).collect();
        let asked: Vec<_> = (0..20).map(|_| worker.accept()).collect();
        drop((client, sent));
        for mut asked in asked {
            assert_eq!(asked.reset_by_edge(), h2::Reason::CANCEL);
        }
        edge.until_credits(100);
        edge.until(|status| {
            let connections =
                status["cores"].as_array().unwrap().iter().map(|core| core["connections"].as_u64().unwrap());
            connections.sum::<u64>() == 0
        });
    }
}

#[test]
fn over_tls_a_name_that_the_connection_is_not_for_is_misdirected() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST, "other.example"]);
    let edge = setting().listen(&format!("tls = {}", files.entry("edge"))).start();
    let mut client = Client::new(&authority).offering(&["h2"]).connect(&edge, HOST);
    client.send(frames::PREFACE);
    client.send(bytes_of(frames::SETTINGS, 0, 0, &[]));
    let ask = |stream: u32, host: &str| {
        let head = [GET[0], (":scheme", "https"), (":authority", host), GET[3]];
        bytes_of(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, stream, &block(&head))
    };
    client.send(ask(1, "nobody.example"));
    let mut status = || loop {
        let mut head = [0; 9];
        client.0.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.0.read_exact(&mut payload).expect("its payload");
        if head[3] == frames::HEADERS {
            break frames::Frame { kind: head[3], flags: head[4], stream: 1, payload }.status();
        }
    };
    assert_eq!(status(), 421);
    assert_eq!(edge.status()["counters"]["refusals"]["misdirected"], 1);
}
