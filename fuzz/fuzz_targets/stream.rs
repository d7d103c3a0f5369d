//! What the two targets share: a buffer that is filled in pieces, and a body read from it. No verdict enters.

use http::HeaderMap;
use ptth::fault::Fault;
use ptth::wire::{BodyDecoder, BodyPlan, Found, Side, put_chunk, put_chunk_end, put_last_chunk};

/// Bytes that arrive in pieces. The first byte of the fuzzer's input seeds how they are cut; 0 is one piece.
pub struct Stream<'a> {
    arriving: &'a [u8],
    pub buffer: Vec<u8>,
    seed: u8,
}

impl<'a> Stream<'a> {
    pub fn new(bytes: &'a [u8], seed: u8) -> Self {
        Self { arriving: bytes, buffer: Vec::new(), seed }
    }

    /// Takes the next piece; false if there is none.
    pub fn more(&mut self) -> bool {
        if self.arriving.is_empty() {
            return false;
        }
        self.seed = if self.seed == 0 { 0 } else { self.seed.wrapping_mul(5).wrapping_add(7) };
        let bytes = match self.seed {
            0 => self.arriving.len(),
            seed => usize::from(seed >> 3).max(1).min(self.arriving.len()),
        };
        let (piece, rest) = self.arriving.split_at(bytes);
        self.buffer.extend_from_slice(piece);
        self.arriving = rest;
        true
    }

    pub fn consume(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
    }
}

/// A body that was read: its data, its trailers, and whether it ended.
#[derive(Debug, PartialEq)]
pub struct Body {
    pub data: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    pub end: Result<bool, Fault>,
}

pub fn read_body(stream: &mut Stream, plan: BodyPlan, side: Side) -> Body {
    let mut decoder = BodyDecoder::new(plan, side);
    let mut data = Vec::new();
    loop {
        let step = match decoder.step(&stream.buffer) {
            Ok(step) => step,
            Err(fault) => return Body { data, trailers: None, end: Err(fault) },
        };
        stream.consume(step.skip);
        match step.found {
            Found::Data { bytes } => {
                assert!(bytes > 0);
                data.extend(stream.buffer.drain(..bytes));
            }
            Found::End { trailers } => {
                assert!(decoder.is_ended());
                return Body { data, trailers, end: Ok(true) };
            }
            Found::NeedMore if stream.more() => {}
            Found::NeedMore => return Body { data, trailers: None, end: Ok(decoder.at_eof().is_ok()) },
        }
    }
}

/// Appends a body as an edge would send it on: in chunks of its own choice.
pub fn put_body(out: &mut Vec<u8>, plan: BodyPlan, body: &Body) {
    if plan != BodyPlan::Chunked {
        out.extend_from_slice(&body.data);
        return;
    }
    for chunk in body.data.chunks(11) {
        put_chunk(out, chunk.len());
        out.extend_from_slice(chunk);
        put_chunk_end(out);
    }
    put_last_chunk(out, body.trailers.as_ref());
}

/// Whether another parser sees the fields that we see, in their order for each name.
/// A length that was said twice, or with leading zeros, stands in ours once and in its one form.
pub fn agree(ours: &HeaderMap, theirs: &[httparse::Header]) {
    let is_length = |field: &&httparse::Header| field.name.eq_ignore_ascii_case("content-length");
    let length = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    let lengths = theirs.iter().filter(is_length).count();
    assert_eq!(ours.len(), theirs.len() - lengths.saturating_sub(1));
    for name in ours.keys() {
        if name == http::header::CONTENT_LENGTH {
            let ours = length(ours[name].as_bytes());
            assert!(theirs.iter().filter(is_length).all(|field| length(field.value) == ours), "{name}");
            continue;
        }
        let ours = ours.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let theirs =
            theirs.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_str())).map(|field| field.value);
        assert!(ours.eq(theirs), "{name}");
    }
}
