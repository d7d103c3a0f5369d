//! Hot. Finds where a head ends in a buffer that grows, looking at each byte once, and refuses what can never
//! become a head as soon as it is seen. What the lines mean never enters.

use std::ops::Range;

use memchr::memchr3;

use super::token::{CR, HTAB, LF, SP, is_tchar};
use crate::fault::Fault;
use crate::limits::{EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Whose bytes are read, and so who is to blame for them: requests come from clients, responses from workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

impl Side {
    #[cold]
    pub(super) fn malformed(self, what: &'static str) -> Fault {
        match self {
            Side::Request => Fault::ClientMalformed(what),
            Side::Response => Fault::WorkerMalformed(what),
        }
    }

    #[cold]
    pub(super) fn too_large(self) -> Fault {
        match self {
            Side::Request => Fault::HeadTooLarge,
            Side::Response => Fault::WorkerMalformed("the head or the trailers of the response are too large"),
        }
    }
}

/// `EmptyLf` and `Before` alternate over empty lines, then:
/// `FirstLine --CR--> Lf --LF--> LineStart --name--> Name --:--> Value --CR--> Lf`, and from `LineStart` with
/// `CR` to `LastLf --LF--> Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Where a request line or an empty line begins.
    Before,
    /// After the CR of an empty line before the request line.
    EmptyLf,
    FirstLine,
    /// After the CR of the first line or of a field line.
    Lf,
    LineStart,
    Name,
    Value,
    /// After the CR of the blank line.
    LastLf,
    Done,
}

/// The search for one head. A verdict depends on the bytes alone, never on how they were cut into calls.
#[derive(Clone, Debug)]
pub struct HeadScan {
    side: Side,
    bytes_max: usize,
    begin: At,
    at: At,
    /// Index of the first byte that was not looked at.
    next: usize,
    /// Index of the head's first byte.
    start: usize,
    /// Index of the current line's first byte.
    line: usize,
    empty_lines: usize,
    fields: usize,
}

impl HeadScan {
    /// For the heads of requests, setups included.
    #[must_use]
    pub fn request() -> Self {
        Self::new(Side::Request, At::Before, HEAD_BYTES_MAX)
    }

    /// For the heads of responses.
    #[must_use]
    pub fn response() -> Self {
        Self::new(Side::Response, At::FirstLine, HEAD_BYTES_MAX)
    }

    /// For a trailer section: field lines and the blank line, no first line.
    pub(super) fn trailers(side: Side) -> Self {
        Self::new(side, At::LineStart, TRAILER_BYTES_MAX)
    }

    fn new(side: Side, begin: At, bytes_max: usize) -> Self {
        Self { side, bytes_max, begin, at: begin, next: 0, start: 0, line: 0, empty_lines: 0, fields: 0 }
    }

    /// Looks at what `input` has gained since the last call; `input` is the whole unconsumed buffer and only grows.
    ///
    /// `None`: no end yet. A range: the head is `input[range]`, its blank line included; the range begins after 0
    /// where empty lines were skipped (RFC 9112 §2.2). Safe to repeat: after a range or a fault the same input
    /// gives the same answer, until [`reset`](Self::reset).
    ///
    /// # Errors
    /// Bare CR or LF, NUL, folded lines (RFC 9112 §5.2), field lines without a name, with a space before the colon
    /// (§5.1) or without a colon, and whatever goes beyond the bounds of `limits`.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, Fault> {
        debug_assert!(self.next <= input.len(), "the input of a scan only grows");
        while self.at != At::Done {
            let Some(&byte) = input.get(self.next) else { return Ok(None) };
            if self.next >= self.start + self.bytes_max {
                return Err(self.side.too_large());
            }
            match self.at {
                At::Before => self.before(byte)?,
                At::EmptyLf => {
                    self.expect_lf(byte)?;
                    self.empty_lines += 1;
                    self.start = self.next;
                    self.line = self.next;
                    self.at = At::Before;
                }
                At::FirstLine | At::Value => {
                    if !self.rest_of_line(input)? {
                        return Ok(None);
                    }
                }
                At::Lf => {
                    self.expect_lf(byte)?;
                    self.line = self.next;
                    self.at = At::LineStart;
                }
                At::LineStart => self.line_start(byte)?,
                At::Name => {
                    if !self.rest_of_name(input)? {
                        return Ok(None);
                    }
                }
                At::LastLf => {
                    self.expect_lf(byte)?;
                    self.at = At::Done;
                }
                At::Done => {}
            }
        }
        Ok(Some(self.start..self.next))
    }

    /// For the next head, whose first byte will be at index 0.
    pub fn reset(&mut self) {
        *self = Self::new(self.side, self.begin, self.bytes_max);
    }

    /// Whether anything of a head was seen; empty lines do not count.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.next > self.start
    }

    fn before(&mut self, byte: u8) -> Result<(), Fault> {
        match byte {
            CR if self.empty_lines < EMPTY_LINES_MAX => {
                self.next += 1;
                self.at = At::EmptyLf;
                Ok(())
            }
            CR => Err(self.side.malformed("too many empty lines before the request")),
            _ if is_tchar(byte) => {
                self.at = At::FirstLine;
                Ok(())
            }
            _ => Err(self.side.malformed("the request does not begin with a method")),
        }
    }

    fn expect_lf(&mut self, byte: u8) -> Result<(), Fault> {
        if byte != LF {
            return Err(self.side.malformed("a CR without its LF in the head"));
        }
        self.next += 1;
        Ok(())
    }

    fn line_start(&mut self, byte: u8) -> Result<(), Fault> {
        match byte {
            CR => {
                self.next += 1;
                self.at = At::LastLf;
                Ok(())
            }
            _ if is_tchar(byte) => {
                if self.fields >= HEAD_FIELDS_MAX {
                    return Err(self.side.too_large());
                }
                self.fields += 1;
                self.at = At::Name;
                Ok(())
            }
            SP | HTAB => Err(self.side.malformed("a folded field line")),
            b':' => Err(self.side.malformed("a field line without a name")),
            _ => Err(self.side.malformed("a field line that does not begin with a name")),
        }
    }

    /// Index after the last byte that may still be looked at in this line: one byte more than the line may have,
    /// because that byte may be the CR, but none beyond the head's bound.
    fn line_limit(&self) -> usize {
        (self.line + LINE_BYTES_MAX + 1).min(self.start + self.bytes_max)
    }

    #[cold]
    fn line_too_long(&self) -> Fault {
        match (self.side, self.at) {
            (Side::Request, At::FirstLine) => Fault::LineTooLong,
            _ => self.side.too_large(),
        }
    }

    /// Moves to the colon; false if it is not there yet.
    fn rest_of_name(&mut self, input: &[u8]) -> Result<bool, Fault> {
        let limit = self.line_limit();
        let end = limit.min(input.len());
        match input[self.next..end].iter().position(|byte| !is_tchar(*byte)) {
            Some(offset) => {
                self.next += offset;
                match input[self.next] {
                    b':' => {
                        self.next += 1;
                        self.at = At::Value;
                        Ok(true)
                    }
                    SP | HTAB => Err(self.side.malformed("a space in a field name or before its colon")),
                    CR | LF => Err(self.side.malformed("a field line without a colon")),
                    _ => Err(self.side.malformed("a field name that is not a token")),
                }
            }
            None if end == limit => Err(self.line_too_long()),
            None => {
                self.next = end;
                Ok(false)
            }
        }
    }

    /// Moves behind the CR that ends the line; false if it is not there yet.
    fn rest_of_line(&mut self, input: &[u8]) -> Result<bool, Fault> {
        let limit = self.line_limit();
        let end = limit.min(input.len());
        match memchr3(CR, LF, 0, &input[self.next..end]) {
            Some(offset) => {
                self.next += offset;
                match input[self.next] {
                    CR => {
                        self.next += 1;
                        self.at = At::Lf;
                        Ok(true)
                    }
                    LF => Err(self.side.malformed("an LF without its CR in the head")),
                    _ => Err(self.side.malformed("a NUL in the head")),
                }
            }
            None if end == limit => Err(self.line_too_long()),
            None => {
                self.next = end;
                Ok(false)
            }
        }
    }
}

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins with HTTP/2's preface; `None` while that is not known. No request of HTTP/1.1 begins so: PRI
/// is no method.
#[must_use]
pub fn is_h2_preface(input: &[u8]) -> Option<bool> {
    let n = input.len().min(PREFACE.len());
    match input[..n] == PREFACE[..n] {
        true if n < PREFACE.len() => None,
        same => Some(same),
    }
}
