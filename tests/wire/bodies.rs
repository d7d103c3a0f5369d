//! Bodies: chunk framing, lengths, trailers, and the encoder against the decoder.

use http::{HeaderMap, HeaderName, HeaderValue};
use ptth::fault::{Blame, Fault};
use ptth::limits::{CHUNK_LINE_BYTES_MAX, HEAD_FIELDS_MAX, TRAILER_BYTES_MAX};
use ptth::wire::{BodyDecoder, BodyPlan, Found, Side, put_chunk, put_chunk_end, put_last_chunk};

#[derive(Clone, Debug, PartialEq)]
enum Fed {
    NeedMore,
    /// How many bytes the message has, and its trailers in words.
    Ended(usize, String),
    Fault(Fault),
}

/// Decodes `input` as it comes in pieces of `piece` bytes; gives the data too.
fn feed(input: &[u8], plan: BodyPlan, side: Side, piece: usize) -> (Vec<u8>, Fed) {
    let mut decoder = BodyDecoder::new(plan, side);
    let mut data = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let step = match decoder.step(&input[start..end]) {
            Ok(step) => step,
            Err(fault) => return (data, Fed::Fault(fault)),
        };
        start += step.skip;
        assert!(start <= end, "no more is skipped than there is");
        match step.found {
            Found::Data { bytes } => {
                assert!(bytes > 0 && start + bytes <= end, "{bytes} of {}", end - start);
                data.extend_from_slice(&input[start..start + bytes]);
                start += bytes;
            }
            Found::End { trailers } => {
                assert!(decoder.is_ended() && decoder.at_eof().is_ok());
                assert!(
                    matches!(decoder.step(b"x"), Ok(step) if step.skip == 0 && matches!(step.found, Found::End { .. }))
                );
                return (data, Fed::Ended(start, words(trailers)));
            }
            Found::NeedMore if end == input.len() => return (data, Fed::NeedMore),
            Found::NeedMore => end = (end + piece).min(input.len()),
        }
    }
}

fn words(trailers: Option<HeaderMap>) -> String {
    let Some(trailers) = trailers else { return String::new() };
    assert!(!trailers.is_empty());
    trailers.iter().map(|(name, value)| format!(" {name}={}", String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// `want` is a status for a fault, `more`, or the data, `|`, the trailers, and `+n` for n bytes left behind the body.
#[track_caller]
fn check(input: &[u8], plan: BodyPlan, want: &str) {
    let shown = String::from_utf8_lossy(&input[..input.len().min(300)]);
    for side in [Side::Request, Side::Response] {
        let (data, whole) = feed(input, plan, side, usize::MAX / 2);
        let got = match &whole {
            Fed::NeedMore => "more".to_owned(),
            Fed::Ended(bytes, trailers) => {
                let left = input.len() - bytes;
                let left = if left > 0 { format!("+{left}") } else { String::new() };
                format!("{}|{trailers}{left}", String::from_utf8_lossy(&data))
            }
            Fed::Fault(fault) => {
                let blame = if side == Side::Request { Blame::Client } else { Blame::Worker };
                assert_eq!(fault.blame(), blame, "{shown:?}");
                if side == Side::Request { fault.status().to_string() } else { want.to_owned() }
            }
        };
        assert_eq!(got, want, "{shown:?} gave {whole:?}");
        for piece in [1, 2, 3, 5, 64] {
            assert_eq!(feed(input, plan, side, piece), (data.clone(), whole.clone()), "{shown:?} by {piece}");
        }
        for cut in 0..input.len() {
            let (early_data, early) = feed(&input[..cut], plan, side, 4096);
            assert!(data.starts_with(&early_data), "cut {cut} of {shown:?}");
            assert!(early == Fed::NeedMore || early == whole, "cut {cut} of {shown:?}: {early:?}, not {whole:?}");
        }
    }
}

const CHUNKED: &[(&[u8], &str)] = &[
    (b"0\r\n\r\n", "|"),
    (b"5\r\nhello\r\n0\r\n\r\n", "hello|"),
    (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world|"),
    (b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1", "hello|+14"),
    (b"a\r\n0123456789\r\n0\r\n\r\n", "0123456789|"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", "0123456789|"),
    (b"0a\r\n0123456789\r\n00\r\n\r\n", "0123456789|"),
    (b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", "x|"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", "\r\n|"),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n|"),
    (b"", "more"),
    (b"5", "more"),
    (b"5\r\nhello", "more"),
    (b"5\r\nhello\r\n0\r\n", "more"),
    (b"5\r\nhello\r\n0\r\n\r", "more"),
    (b"ffffffffffffffff\r\nx", "more"),
    // ---- sizes ----
    (b"10000000000000000\r\nx", "400"),
    (b"00000000000000001\r\nx\r\n0\r\n\r\n", "400"),
    (b"fffffffffffffffff\r\nx", "400"),
    (b"\r\n0\r\n\r\n", "400"),
    (b"\r\n\r\n", "400"),
    (b";a\r\n\r\n", "400"),
    (b" ;a\r\n\r\n", "400"),
    (b"\n", "400"),
    (b";a\r\n0\r\n\r\n", "400"),
    (b"-1\r\nx\r\n0\r\n\r\n", "400"),
    (b"-0\r\n\r\n", "400"),
    (b"+1\r\nx\r\n0\r\n\r\n", "400"),
    (b" 1\r\nx\r\n0\r\n\r\n", "400"),
    (b"\t1\r\nx\r\n0\r\n\r\n", "400"),
    (b"1 \r\nx\r\n0\r\n\r\n", "400"),
    (b"1\t\r\nx\r\n0\r\n\r\n", "400"),
    (b"0x1\r\nx\r\n0\r\n\r\n", "400"),
    (b"0X1\r\nx\r\n0\r\n\r\n", "400"),
    (b"1h\r\nx\r\n0\r\n\r\n", "400"),
    (b"1_0\r\nx\r\n0\r\n\r\n", "400"),
    (b"1,1\r\nx\r\n0\r\n\r\n", "400"),
    (b"1.0\r\nx\r\n0\r\n\r\n", "400"),
    (b"g\r\n", "400"),
    (b"\x00", "400"),
    (b"1\x00\r\nx\r\n0\r\n\r\n", "400"),
    (b"1\x0b\r\nx\r\n0\r\n\r\n", "400"),
    (b"\xef\xbc\x91\r\nx\r\n0\r\n\r\n", "400"),
    (b"\"1\"\r\nx\r\n0\r\n\r\n", "400"),
    // ---- line ends ----
    (b"1\nx\r\n0\r\n\r\n", "400"),
    (b"1\rx\r\n0\r\n\r\n", "400"),
    (b"1\r\r\nx\r\n0\r\n\r\n", "400"),
    (b"1\r\nx\n0\r\n\r\n", "400"),
    (b"1\r\nx\r0\r\n\r\n", "400"),
    (b"1\r\nx0\r\n\r\n", "400"),
    (b"1\r\nxy\r\n0\r\n\r\n", "400"),
    (b"1\r\nx \r\n0\r\n\r\n", "400"),
    (b"2\r\nx\r\n0\r\n\r\n", "400"),
    (b"1\r\nx\r\n\r\n0\r\n\r\n", "400"),
    (b"1\r\nx\r\n0\n\r\n", "400"),
    (b"1\r\nx\r\n0\r\n\n", "400"),
    (b"1\r\nx\r\n0\r\n\rx", "400"),
    (b"1\r\nx\r\n0\r\r\n\r\n", "400"),
    (b"1\r\nx\r\n0 \r\n\r\n", "400"),
    // ---- extensions ----
    (b"1;a\r\nx\r\n0;b\r\n\r\n", "x|"),
    (b"1;a=b\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1;a=\"b c;\\\"=\\\\\"\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1;a=\"\x80\t\"\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1;a=b;c;d=\"\"\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1 ; a = b ; c\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1\t;\ta\t=\t\"b\"\t;c=d\r\nx\r\n0\r\n\r\n", "x|"),
    (b"1;\r\nx\r\n0\r\n\r\n", "400"),
    (b"1; \r\nx\r\n0\r\n\r\n", "400"),
    (b"1;;a\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;=a\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=;b\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a \r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=b \r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"b\" \r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a b\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=b c\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"b\"c\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=b\"c\"\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"b\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"b\n\"\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"b\\\n\"\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a=\"\x7f\"\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a\nx\r\n0\r\n\r\n", "400"),
    (b"1;\nx\r\n0\r\n\r\n", "400"),
    (b"1;a\rx\r\n0\r\n\r\n", "400"),
    (b"1;a\x00\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a\x1b\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;\x80\r\nx\r\n0\r\n\r\n", "400"),
    (b"1;a@b\r\nx\r\n0\r\n\r\n", "400"),
    (b"1 a\r\nx\r\n0\r\n\r\n", "400"),
    // ---- trailers ----
    (b"0\r\nX: y\r\n\r\n", "| x=y"),
    (b"1\r\nx\r\n0\r\nX: y\r\nGrpc-Status:0\r\n\r\nrest", "x| x=y grpc-status=0+4"),
    (b"0\r\nX: y\r\nX: z\r\nx:\r\n\r\n", "| x=y x=z x="),
    (b"0\r\nContent-Length: 5\r\n\r\nhello", "|+5"),
    (b"0\r\nTransfer-Encoding: chunked\r\nHost: b\r\nX: y\r\n\r\n", "| x=y"),
    (b"0\r\nContent-Length: x\r\nConnection: close\r\nAuthorization: a\r\n\r\n", "|"),
    (b"0\r\nIf-Match: a\r\nX-Forwarded-For: b\r\nForwarded: c\r\nPriority: u=0\r\nTE: trailers\r\n\r\n", "|"),
    (b"0\r\nSet-Cookie: a\r\nTrailer: b\r\nContent-Type: c\r\nETag: d\r\n\r\n", "| etag=d"),
    (b"0\r\nX: y\r\n", "more"),
    (b"0\r\nX", "more"),
    (b"0\r\nX\r\n\r\n", "400"),
    (b"0\r\nX : y\r\n\r\n", "400"),
    (b"0\r\n X: y\r\n\r\n", "400"),
    (b"0\r\nX: y\r\n z\r\n\r\n", "400"),
    (b"0\r\n: y\r\n\r\n", "400"),
    (b"0\r\nX: y\n\r\n", "400"),
    (b"0\r\nX: y\r\n\n", "400"),
    (b"0\r\nX: y\rz\r\n\r\n", "400"),
    (b"0\r\nX: \x00\r\n\r\n", "400"),
    (b"0\r\nX: \x01\r\n\r\n", "400"),
    (b"0\r\nX@: y\r\n\r\n", "400"),
    (b"0\r\n\x00", "400"),
    (b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
];

#[test]
fn chunks_are_read_as_the_rfc_says_or_refused() {
    for (input, want) in CHUNKED {
        check(input, BodyPlan::Chunked, want);
    }
}

#[test]
fn bounds_of_chunked_bodies_are_kept_to_the_byte() {
    let line = |bytes: usize| [b"1;", &vec![b'a'; bytes - 4][..], b"\r\nx\r\n0\r\n\r\n"].concat();
    check(&line(CHUNK_LINE_BYTES_MAX), BodyPlan::Chunked, "x|");
    check(&line(CHUNK_LINE_BYTES_MAX + 1), BodyPlan::Chunked, "400");
    check(&line(CHUNK_LINE_BYTES_MAX + 2), BodyPlan::Chunked, "400");
    check(&line(100_000)[..3_000], BodyPlan::Chunked, "400");

    let value = |bytes: usize| "a".repeat(bytes - "X: \r\n\r\n".len());
    let trailers = |bytes: usize| format!("0\r\nX: {}\r\n\r\nrest", value(bytes)).into_bytes();
    check(&trailers(TRAILER_BYTES_MAX), BodyPlan::Chunked, &format!("| x={}+4", value(TRAILER_BYTES_MAX)));
    check(&trailers(TRAILER_BYTES_MAX + 1), BodyPlan::Chunked, "431");
    check(&trailers(TRAILER_BYTES_MAX + 2), BodyPlan::Chunked, "431");
    check(&trailers(3 * TRAILER_BYTES_MAX), BodyPlan::Chunked, "431");

    let fields = |count: usize| [b"0\r\n", &b"te:\r\n".repeat(count)[..], b"\r\n"].concat();
    check(&fields(HEAD_FIELDS_MAX), BodyPlan::Chunked, "|");
    check(&fields(HEAD_FIELDS_MAX + 1), BodyPlan::Chunked, "431");
}

#[test]
fn a_length_is_counted_to_its_last_byte() {
    check(b"", BodyPlan::Empty, "|");
    check(b"abc", BodyPlan::Empty, "|+3");
    check(b"abc", BodyPlan::Exact { bytes: 0 }, "|+3");
    check(b"abc", BodyPlan::Exact { bytes: 3 }, "abc|");
    check(b"abcdef", BodyPlan::Exact { bytes: 3 }, "abc|+3");
    check(b"abc", BodyPlan::Exact { bytes: 4 }, "more");
    check(b"abc", BodyPlan::Exact { bytes: u64::MAX }, "more");
    check(b"0\r\n\r\n", BodyPlan::Exact { bytes: 5 }, "0\r\n\r\n|");
    check(b"abc", BodyPlan::UntilClose, "more");

    let mut decoder = BodyDecoder::new(BodyPlan::Exact { bytes: 3 }, Side::Request);
    assert!(matches!(decoder.step(b"ab").unwrap().found, Found::Data { bytes: 2 }));
    assert!(!decoder.is_ended());
    assert!(matches!(decoder.step(b"cd").unwrap().found, Found::Data { bytes: 1 }));
    assert!(decoder.is_ended());
}

/// What a close means after `input`.
#[track_caller]
fn check_eof(input: &[u8], plan: BodyPlan, fine: bool) {
    for (side, fault) in
        [(Side::Request, Fault::ClientMalformed("a body that ends too early")), (Side::Response, Fault::LinkLost)]
    {
        let mut decoder = BodyDecoder::new(plan, side);
        let mut rest = input;
        loop {
            let step = decoder.step(rest).unwrap();
            rest = &rest[step.skip..];
            match step.found {
                Found::Data { bytes } => rest = &rest[bytes..],
                Found::NeedMore | Found::End { .. } => break,
            }
        }
        assert_eq!(decoder.at_eof(), if fine { Ok(()) } else { Err(fault) }, "{input:?} {plan:?}");
        assert_eq!(decoder.is_ended(), fine);
    }
}

#[test]
fn a_close_ends_a_body_only_where_it_may() {
    check_eof(b"", BodyPlan::Empty, true);
    check_eof(b"", BodyPlan::UntilClose, true);
    check_eof(b"abc", BodyPlan::UntilClose, true);
    check_eof(b"abc", BodyPlan::Exact { bytes: 3 }, true);
    check_eof(b"", BodyPlan::Exact { bytes: 0 }, true);
    check_eof(b"", BodyPlan::Exact { bytes: 3 }, false);
    check_eof(b"ab", BodyPlan::Exact { bytes: 3 }, false);
    let chunked = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for cut in 0..=chunked.len() {
        check_eof(&chunked[..cut], BodyPlan::Chunked, cut == chunked.len());
    }
}

/// What is written is what is read, for pieces of these lengths.
#[track_caller]
fn check_round_trip(pieces: &[usize], trailers: Option<&HeaderMap>, want: &str) {
    let mut wire = Vec::new();
    let mut data = Vec::new();
    for (index, bytes) in pieces.iter().enumerate() {
        let piece: Vec<u8> = (0..*bytes).map(|at| (at * 7 + index * 13) as u8).collect();
        put_chunk(&mut wire, piece.len());
        wire.extend_from_slice(&piece);
        put_chunk_end(&mut wire);
        data.extend_from_slice(&piece);
    }
    put_last_chunk(&mut wire, trailers);
    let message_bytes = wire.len();
    wire.extend_from_slice(b"next");
    for piece in [1, 13, 4096, usize::MAX / 2] {
        let fed = feed(&wire, BodyPlan::Chunked, Side::Response, piece);
        assert_eq!(fed, (data.clone(), Fed::Ended(message_bytes, want.to_owned())), "{pieces:?} by {piece}");
    }
}

#[test]
fn the_decoder_reads_what_the_encoder_writes() {
    check_round_trip(&[], None, "");
    for bytes in (1..40).chain([255, 256, 4095, 4096, 65_535, 65_536, 70_000]) {
        check_round_trip(&[bytes], None, "");
        check_round_trip(&[bytes, 1, bytes], None, "");
    }
    let mut trailers = HeaderMap::new();
    check_round_trip(&[3], Some(&trailers), "");
    trailers.append(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    trailers.append(HeaderName::from_static("content-length"), HeaderValue::from_static("9"));
    trailers.append(HeaderName::from_static("x"), HeaderValue::from_static("y"));
    trailers.append(HeaderName::from_static("x"), HeaderValue::from_static(""));
    check_round_trip(&[3], Some(&trailers), " grpc-status=0 x=y x=");
}

#[test]
#[should_panic(expected = "an empty chunk is the end of a body")]
fn an_empty_chunk_is_never_written() {
    put_chunk(&mut Vec::new(), 0);
}

#[test]
fn the_table_is_long_enough() {
    assert!(CHUNKED.len() > 90);
}
