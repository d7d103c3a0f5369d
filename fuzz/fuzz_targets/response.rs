#![no_main]
//! Bytes of a link in HTTP/1.1, and an edge's answer to a setup. However they are cut, the same responses come out;
//! whatever is accepted means the same to another parser, and again after an edge has written it.

mod stream;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ptth::fault::{Blame, Fault};
use ptth::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use ptth::wire::setup::parse_setup_answer;
use ptth::wire::{
    Asked, BodyPlan, Framing, HeadScan, Persistence, ResponseHead, Side, parse_response, put_response_head,
    strip_hop_by_hop,
};
use stream::{Body, Stream, agree, put_body, read_body};

#[derive(Debug)]
struct Response {
    head_bytes: usize,
    head: ResponseHead,
    body: Body,
}

/// All responses of one link to requests of one kind, interim ones too, and why there is no more of them.
fn read(bytes: &[u8], seed: u8, asked: Asked) -> (Vec<Response>, Result<(), Fault>) {
    let mut stream = Stream::new(bytes, seed);
    let mut responses = Vec::new();
    let mut scan = HeadScan::response();
    loop {
        let range = match scan.scan(&stream.buffer) {
            Ok(Some(range)) => range,
            Ok(None) if stream.more() => continue,
            Ok(None) => return (responses, Ok(())),
            Err(fault) => return (responses, Err(fault)),
        };
        assert_eq!(range.start, 0);
        let bytes = Bytes::copy_from_slice(&stream.buffer[range.clone()]);
        scan.reset();
        stream.consume(range.end);
        let _ = parse_setup_answer(bytes.clone());
        let head = match parse_response(bytes.clone(), asked) {
            Ok(head) => head,
            Err(fault) => return (responses, Err(fault)),
        };
        check_against_httparse(&bytes, &head);
        let body = read_body(&mut stream, head.body, Side::Response);
        let goes_on = body.end == Ok(true) && head.keep_alive && head.upgrade.is_none();
        responses.push(Response { head_bytes: range.len(), head, body });
        if !goes_on {
            return (responses, Ok(()));
        }
    }
}

fn check_against_httparse(bytes: &[u8], head: &ResponseHead) {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut theirs = httparse::Response::new(&mut fields);
    let status = theirs.parse(bytes).expect("whatever we accept is no worse than this");
    assert_eq!(status, httparse::Status::Complete(bytes.len()));
    assert_eq!(theirs.code, Some(head.status.as_u16()));
    agree(&head.headers, theirs.headers);
}

/// An edge forwards what it read; the client must read the same.
fn check_forwarded(response: &Response, asked: Asked) {
    if response.head_bytes > HEAD_BYTES_MAX / 2 || response.head.headers.len() > HEAD_FIELDS_MAX / 2 {
        return; // what the edge adds may not fit
    }
    let head = &response.head;
    let mut headers = head.headers.clone();
    strip_hop_by_hop(&mut headers);
    // To a client in HTTP/1.1 a body of unknown length goes in chunks.
    let (framing, plan) = match head.body {
        BodyPlan::Empty => (Framing::Described, BodyPlan::Empty),
        BodyPlan::Exact { bytes } => (Framing::ContentLength(bytes), head.body),
        BodyPlan::Chunked | BodyPlan::UntilClose => (Framing::Chunked, BodyPlan::Chunked),
    };
    let persistence = head.upgrade.as_ref().map_or(Persistence::Default, Persistence::Upgrade);
    let mut out = Vec::new();
    put_response_head(&mut out, head.status, &headers, framing, persistence);
    put_body(&mut out, plan, &response.body);

    let (responses, end) = read(&out, 0, asked);
    let [again] = &responses[..] else { panic!("{} responses of one: {end:?}", responses.len()) };
    assert_eq!(end, Ok(()));
    assert_eq!((again.head.status, again.head.body), (head.status, plan));
    assert_eq!(again.head.upgrade, head.upgrade);
    assert_eq!(again.body, response.body);
    let mut seen = again.head.headers.clone();
    strip_hop_by_hop(&mut seen);
    if framing != Framing::Described {
        headers.remove("content-length");
        seen.remove("content-length");
    }
    assert_eq!(seen, headers);
}

fuzz_target!(|input: &[u8]| {
    let [seed, bytes @ ..] = input else { return };
    let asked = [Asked::Other, Asked::Head, Asked::Connect, Asked::Other][usize::from(seed >> 6)];
    let (responses, end) = read(bytes, 0, asked);
    let (cut, cut_end) = read(bytes, seed | 1, asked);
    assert_eq!(end, cut_end);
    assert_eq!(responses.len(), cut.len());
    assert!(end.is_ok_and(|()| true) || end.is_err_and(|fault| fault.blame() == Blame::Worker));
    for (response, cut) in responses.iter().zip(&cut) {
        assert_eq!((response.head_bytes, &response.body), (cut.head_bytes, &cut.body));
        assert_eq!(response.head.headers, cut.head.headers);
        if response.body.end == Ok(true) {
            check_forwarded(response, asked);
        }
    }
});
