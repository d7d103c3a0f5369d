#![no_main]
//! Bytes of a client connection, setups included. However they are cut, the same requests come out; whatever is
//! accepted means the same to another parser, and again after an edge has written it.

mod stream;

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ptth::fault::Fault;
use ptth::limits::{FORWARDED_HOPS_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use ptth::wire::setup::put_setup_request;
use ptth::wire::{
    BodyPlan, ForwardedFor, Forwarding, Framing, HeadScan, Persistence, RequestHead, Side, Told, Version, is_setup,
    parse_request, parse_setup, put_request_head, set_forwarding, strip_hop_by_hop, told,
};
use stream::{Body, Stream, agree, put_body, read_body};

#[derive(Debug)]
struct Request {
    head_bytes: usize,
    head: RequestHead,
    body: Body,
}

/// All requests of one connection, and why there is no more of them.
fn read(bytes: &[u8], seed: u8) -> (Vec<Request>, Result<(), Fault>) {
    let mut stream = Stream::new(bytes, seed);
    let mut requests = Vec::new();
    let mut scan = HeadScan::request();
    loop {
        let range = match scan.scan(&stream.buffer) {
            Ok(Some(range)) => range,
            Ok(None) if stream.more() => continue,
            Ok(None) => return (requests, Ok(())),
            Err(fault) => return (requests, Err(fault)),
        };
        let bytes = Bytes::copy_from_slice(&stream.buffer[range.clone()]);
        scan.reset();
        stream.consume(range.end);
        let head = match parse_request(bytes.clone()) {
            Ok(head) => head,
            Err(fault) => return (requests, Err(fault)),
        };
        check_against_httparse(&bytes, &head);
        let body = read_body(&mut stream, head.body, Side::Request);
        let goes_on = body.end == Ok(true) && head.keep_alive && head.upgrade.is_none();
        requests.push(Request { head_bytes: range.len(), head, body });
        if !goes_on {
            return (requests, Ok(()));
        }
    }
}

fn check_against_httparse(bytes: &[u8], head: &RequestHead) {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut theirs = httparse::Request::new(&mut fields);
    let Ok(status) = theirs.parse(bytes) else { return }; // stricter about some targets
    assert_eq!(status, httparse::Status::Complete(bytes.len()));
    assert_eq!(theirs.method, Some(head.method.as_str()));
    assert!(theirs.path.unwrap().ends_with(head.uri.query().unwrap_or_default()));
    agree(&head.headers, theirs.headers);
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Whoever trusts the edge, too, sees the same client behind it; and our own element is the last one.
fn check_told(before: Option<&Told>, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) {
    let behind = told(headers, trusts);
    assert!(headers["x-forwarded-for"].as_bytes().ends_with(b"192.0.2.1"));
    let client = before.and_then(Told::client);
    if client != Some(PEER) && before.is_none_or(|told| told.hops() < FORWARDED_HOPS_MAX - 1) {
        assert_eq!(behind.client(), client.or(Some(PEER)), "{before:?} {headers:?}");
    }
}

/// An edge forwards what it read; the worker must read the same.
fn check_forwarded(request: &Request, is_trusted: bool) {
    if request.head_bytes > HEAD_BYTES_MAX / 2 || request.head.headers.len() > HEAD_FIELDS_MAX / 2 {
        return; // what the edge adds may not fit
    }
    let head = &request.head;
    let mut headers: HeaderMap = head.headers.clone();
    strip_hop_by_hop(&mut headers);
    let host = head.authority.as_ref().map_or("none".to_owned(), |authority| authority.to_string());
    headers.insert(HOST, HeaderValue::from_str(&host).unwrap());
    headers.remove("expect");
    let peer = ForwardedFor::new(PEER);
    let version = match head.version {
        Version::H10 => http::Version::HTTP_10,
        Version::H11 => http::Version::HTTP_11,
    };
    // A proxy may be believed as far as the bits of the address that it names allow.
    let trusts = |address: IpAddr| address == PEER || address.to_string().ends_with(['1', '3', '5']);
    let told = is_trusted.then(|| told(&headers, trusts));
    let id = HeaderValue::from_static("a-name");
    let forwarding = Forwarding {
        peer: &peer,
        told: told.as_ref(),
        proto: "https",
        host: &host,
        urgency: 3,
        incremental: false,
        version,
        id: &id,
    };
    set_forwarding(&mut headers, &forwarding);
    check_told(told.as_ref(), &headers, trusts);
    let framing = match head.body {
        BodyPlan::Empty => Framing::None,
        BodyPlan::Exact { bytes } => Framing::ContentLength(bytes),
        BodyPlan::Chunked => Framing::Chunked,
        BodyPlan::UntilClose => panic!("a request never ends with its connection"),
    };
    let persistence = head.upgrade.as_ref().map_or(Persistence::Default, Persistence::Upgrade);
    let target = head.uri.path_and_query().unwrap().as_str();
    let mut out = Vec::new();
    put_request_head(&mut out, &head.method, target, &headers, framing, persistence);
    put_body(&mut out, head.body, &request.body);

    let (requests, end) = read(&out, 0);
    let [again] = &requests[..] else { panic!("{} requests of one: {end:?}", requests.len()) };
    assert_eq!(end, Ok(()));
    assert_eq!((&again.head.method, &again.head.uri, again.head.body), (&head.method, &head.uri, head.body));
    assert_eq!(again.head.authority.as_ref().map(ToString::to_string), Some(host));
    assert_eq!(again.head.upgrade, head.upgrade);
    assert_eq!(again.body, request.body);
    // the same fields, but for those that frame this hop
    let mut seen = again.head.headers.clone();
    strip_hop_by_hop(&mut seen);
    headers.remove("content-length");
    seen.remove("content-length");
    assert_eq!(seen, headers);
}

fn check_setup(head: &RequestHead) {
    if !is_setup(head) {
        return;
    }
    let Ok(setup) = parse_setup(head) else { return };
    let Some(scope) = &setup.scope else { return }; // a worker of ours writes no other target
    let mut out = Vec::new();
    put_setup_request(&mut out, "edge", scope, None, &ptth::wire::About::default(), &setup.versions, setup.dialect);
    if setup.versions.is_empty() || out.len() > HEAD_BYTES_MAX / 2 {
        return;
    }
    let again = parse_setup(&parse_request(Bytes::from(out)).unwrap()).unwrap();
    assert_eq!((again.scope, again.versions, again.dialect), (setup.scope, setup.versions, setup.dialect));
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, bytes)) = input.split_first() else { return };
    let (requests, end) = read(bytes, 0);
    let (cut, cut_end) = read(bytes, seed | 1);
    assert_eq!(end, cut_end);
    assert_eq!(requests.len(), cut.len());
    for (request, cut) in requests.iter().zip(&cut) {
        assert_eq!((request.head_bytes, &request.body), (cut.head_bytes, &cut.body));
        assert_eq!(request.head.headers, cut.head.headers);
        check_setup(&request.head);
        if request.body.end == Ok(true) {
            check_forwarded(request, false);
            check_forwarded(request, true);
        }
    }
});
