//! Hot. The frames of an HTTP/2 connection as they arrive: where each begins, of what kind it is, and whether a header block
//! is open (RFC 9113 §4.1, §4.3). Payloads are skipped unread; what a frame means, and how many are too many, never enters.

use super::scan::PREFACE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of HEADERS, PUSH_PROMISE and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// Of SETTINGS and PING: an answer.
pub const ACK: u8 = 1;

/// What a client sends before its first frame.
pub const PREFACE_BYTES: usize = PREFACE.len();
/// Before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = 9;
const HEAD_BYTES: usize = FRAME_HEAD_BYTES;

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// At most 2^24 - 1; whether so large a frame is allowed is not looked at.
    pub payload_bytes: u32,
    /// By number: there are more kinds than those that have a name here.
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHead {
    /// The head that `bytes` begin with. `None`: not all of it is there.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<FrameHead> {
        bytes.first_chunk().map(FrameHead::of)
    }

    fn of(bytes: &[u8; HEAD_BYTES]) -> FrameHead {
        let [a, b, c, kind, flags, d, e, f, g] = *bytes;
        FrameHead {
            payload_bytes: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }

    /// A part of a header block.
    fn is_of_block(self) -> bool {
        matches!(self.kind, HEADERS | PUSH_PROMISE | CONTINUATION)
    }
}

/// ```text
/// Preface --24 bytes--> Head --9 bytes--> Payload --its bytes--> Head
///                       Head --9 bytes, none follow--> Head
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Preface { left: usize },
    Head { have: usize },
    Payload { left: u32 },
}

/// One direction of a connection. What it says depends on the bytes alone, never on how they were cut into calls.
#[derive(Clone, Debug)]
pub struct FrameScan {
    at: At,
    /// A frame's first bytes, when a call ended among them.
    head: [u8; HEAD_BYTES],
    /// The last frame belongs to a header block.
    is_block: bool,
    /// The last header block has not ended with its last frame.
    goes_on: bool,
}

impl FrameScan {
    /// For what a client sends, from its preface on.
    #[must_use]
    pub fn client() -> FrameScan {
        let at = At::Preface { left: PREFACE.len() };
        FrameScan { at, head: [0; HEAD_BYTES], is_block: false, goes_on: false }
    }

    /// For what a server sends: it has no preface (RFC 9113 §3.4).
    #[must_use]
    pub fn server() -> FrameScan {
        FrameScan { at: At::Head { have: 0 }, ..FrameScan::client() }
    }

    /// The last frame is over, and so is its header block: another one may stand here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.at == At::Head { have: 0 } && !self.goes_on
    }

    /// Takes bytes off `input` up to the end of the next frame's head. `None`: all of `input` is taken, and no other frame
    /// begins in it. A preface that is none is skipped like one: whoever reads it refuses it.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<FrameHead> {
        loop {
            match &mut self.at {
                At::Preface { left } => {
                    *left -= take(input, *left).len();
                    if *left > 0 {
                        return None;
                    }
                    self.at = At::Head { have: 0 };
                }
                At::Head { have } => {
                    let some = take(input, HEAD_BYTES - *have);
                    self.head[*have..*have + some.len()].copy_from_slice(some);
                    *have += some.len();
                    if *have < HEAD_BYTES {
                        return None;
                    }
                    let head = FrameHead::of(&self.head);
                    self.at = match head.payload_bytes {
                        0 => At::Head { have: 0 },
                        left => At::Payload { left },
                    };
                    self.is_block = head.is_of_block();
                    if self.is_block {
                        self.goes_on = head.flags & END_HEADERS == 0;
                    }
                    return Some(head);
                }
                At::Payload { left } => {
                    // A slice is never longer than what is asked for, so this fits.
                    *left -= take(input, *left as usize).len() as u32;
                    if *left > 0 {
                        return None;
                    }
                    self.at = At::Head { have: 0 };
                }
            }
        }
    }

    /// A header block has begun and has not ended yet.
    #[must_use]
    pub fn is_in_block(&self) -> bool {
        self.goes_on || (self.is_block && matches!(self.at, At::Payload { .. }))
    }
}

/// The first `bytes_max` bytes of `input`, or all of it; they are off `input` then.
fn take<'a>(input: &mut &'a [u8], bytes_max: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(bytes_max.min(input.len()));
    *input = rest;
    taken
}
