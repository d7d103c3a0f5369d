//! A foreign worker, or a client, over HTTP/2 whose every frame a test writes and reads itself. What it says is encoded by
//! hand; heads that come are only counted, never decoded, but for the status of a response.

use super::{ORIGIN, Peer, TestEdge, setup};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The number that RST_STREAM carries.
    #[track_caller]
    pub fn code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }

    /// The number that GOAWAY carries behind its last stream.
    #[track_caller]
    pub fn goaway_code(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().expect("four bytes"))
    }

    /// The `:status` of a head that is the first of its kind on its connection.
    #[track_caller]
    pub fn status(&self) -> u16 {
        match self.payload[..] {
            // RFC 7541, appendix A.
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            // §6.2: a literal with the name of entry 8, in digits as they are or by appendix B.
            [0x48 | 0x08, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
            [0x48 | 0x08, bytes @ (0x82 | 0x83), ..] => digits(&self.payload[2..2 + usize::from(bytes & 0x7f)]),
            _ => panic!("no status comes first: {self:?}"),
        }
    }
}

/// RFC 7541, appendix B, as far as it codes digits.
fn digits(coded: &[u8]) -> u16 {
    let bits = coded.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut left, mut number) = (coded.len() * 8, 0);
    for _ in 0..3 {
        let next = |n: usize| (bits >> (left - n)) & ((1 << n) - 1);
        let (digit, n) = match next(5) {
            digit @ 0..=2 => (digit, 5),
            _ => (next(6) - 0b01_1001 + 3, 6),
        };
        left -= n;
        number = number * 10 + digit as u16;
    }
    number
}

pub struct Frames {
    pub peer: Peer,
}

impl Frames {
    /// Turns a connection, exchanges SETTINGS, and has `streams` credits.
    #[track_caller]
    pub fn dial(edge: &TestEdge, streams: u32) -> Frames {
        let mut frames = Frames::dial_with(edge, &[(MAX_CONCURRENT_STREAMS, streams)]);
        frames.settled();
        frames
    }

    #[track_caller]
    pub fn dial_with(edge: &TestEdge, settings: &[(u16, u32)]) -> Frames {
        let (peer, answer) = edge.set_up(&setup(ORIGIN, "h2"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        Frames::on(peer, settings)
    }

    /// On a connection that was turned.
    #[track_caller]
    pub fn on(mut peer: Peer, settings: &[(u16, u32)]) -> Frames {
        assert_eq!(peer.read(24), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Frames { peer };
        let first = frames.frame_raw().expect("SETTINGS come first");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "{first:?}");
        frames.settings(settings);
        frames.put(SETTINGS, ACK, 0, &[]);
        frames
    }

    /// A client of a listener with `h2c`, after SETTINGS went both ways.
    #[track_caller]
    pub fn client(edge: &TestEdge, settings: &[(u16, u32)]) -> Frames {
        let mut frames = Frames { peer: edge.sent(PREFACE) };
        frames.settings(settings);
        frames.settled();
        frames
    }

    // ---- writing ----

    #[track_caller]
    pub fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.peer.send(bytes_of(kind, flags, stream, payload));
    }

    #[track_caller]
    pub fn settings(&mut self, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.put(SETTINGS, 0, 0, &payload);
    }

    /// Changes the credits, and waits until the edge has taken notice.
    #[track_caller]
    pub fn credits(&mut self, streams: u32) {
        self.settings(&[(MAX_CONCURRENT_STREAMS, streams)]);
        self.settled();
    }

    /// Until the edge has acknowledged our last SETTINGS.
    #[track_caller]
    pub fn settled(&mut self) {
        let ack = self.next(|frame| frame.kind == SETTINGS && frame.flags & ACK != 0);
        assert!(ack.payload.is_empty());
    }

    #[track_caller]
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.put(HEADERS, flags, stream, &block(fields));
    }

    #[track_caller]
    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.put(DATA, u8::from(ends), stream, bytes);
    }

    /// A 200 with this body.
    #[track_caller]
    pub fn ok(&mut self, stream: u32, body: &str) {
        self.head(stream, &[(":status", "200")], body.is_empty());
        if !body.is_empty() {
            self.data(stream, body.as_bytes(), true);
        }
    }

    #[track_caller]
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.put(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    #[track_caller]
    pub fn goaway(&mut self, last: u32, code: u32) {
        self.put(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    }

    // ---- reading ----

    #[track_caller]
    fn frame_raw(&mut self) -> Option<Frame> {
        let head = self.peer.try_read(9)?;
        let bytes = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload: self.peer.read(bytes) })
    }

    /// The next frame; SETTINGS and PING are answered on the way. `None` at the end of the connection.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        let frame = self.frame_raw()?;
        match (frame.kind, frame.flags & ACK) {
            (SETTINGS, 0) => self.peer.send_if_open(bytes_of(SETTINGS, ACK, 0, &[])),
            (PING, 0) => self.peer.send_if_open(bytes_of(PING, ACK, 0, &frame.payload)),
            _ => {}
        }
        Some(frame)
    }

    /// Skips frames until one is as wanted.
    #[track_caller]
    pub fn next(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut skipped = Vec::new();
        let from = std::time::Instant::now();
        loop {
            // PING keeps coming: a read alone would not time out.
            assert!(from.elapsed() < super::HANG, "never came, but {skipped:?}");
            match self.frame() {
                Some(frame) if wanted(&frame) => return frame,
                Some(frame) => skipped.push(frame),
                None => panic!("the link ended; before that came {skipped:?}"),
            }
        }
    }

    /// Nothing but the end of the connection.
    #[track_caller]
    pub fn ends(&mut self) {
        let from = std::time::Instant::now();
        while let Some(frame) = self.frame() {
            assert!(from.elapsed() < super::HANG && frame.kind != HEADERS, "no end, but {frame:?}");
        }
    }

    /// The next request's stream.
    #[track_caller]
    pub fn request(&mut self) -> u32 {
        self.next(|frame| frame.kind == HEADERS).stream
    }

    /// A request's body to its end.
    #[track_caller]
    pub fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.next(|frame| frame.stream == stream && matches!(frame.kind, DATA | HEADERS));
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if frame.ends_stream() {
                return body;
            }
        }
    }
}

pub fn bytes_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// RFC 7541 §6.2.2: each field in full, nothing indexed, nothing compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 §5.1 with a prefix of seven bits.
fn put_length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return out.push(length as u8);
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}
