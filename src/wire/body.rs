//! Hot. Finds the bytes of a body between its framing, and writes chunk framing. The body's own bytes are counted,
//! never read or copied.

use http::HeaderMap;

use super::head::BodyPlan;
pub use super::scan::Side;
use super::token::{CR, HTAB, LF, SP, is_tchar};
use super::trailer::{TrailerSection, may_be_trailer};
use super::write::{put_field, put_hex};
use crate::fault::Fault;
use crate::limits::CHUNK_LINE_BYTES_MAX;

/// Digits of a chunk size: as many as 64 bits have, so none is too many and no size overflows.
const CHUNK_DIGITS_MAX: u8 = 16;

/// What stands at the front of the input. `skip` bytes of framing are consumed first, then what was found.
#[derive(Debug)]
pub struct Step {
    pub skip: usize,
    pub found: Found,
}

#[derive(Debug)]
pub enum Found {
    /// Call again with at least one byte more.
    NeedMore,
    /// The next `bytes` of the input, at least 1, are body; the decoder counts them as consumed.
    Data { bytes: usize },
    /// The body is complete. What follows belongs to the next message.
    End { trailers: Option<HeaderMap> },
}

/// One body being received. Without chunks: `Exact` or `UntilClose` to `Ended`. With:
/// `Line --LF--> Data --all--> DataCr -> DataLf -> Line`, and after the size 0
/// `Line --LF--> Trailers --CR--> LastLf --LF--> Ended`, or `Trailers -> Section -> Ended` if there are any.
#[derive(Debug)]
enum At {
    Exact { left: u64 },
    UntilClose,
    Line { bytes: usize, size: u64, part: Part },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
    LastLf,
    Section(TrailerSection),
    Ended,
}

/// Where in a chunk-size line (RFC 9112 §7.1.1). `Space` and `AfterName` and `AfterValue` are the "bad" whitespace
/// of the grammar: allowed before `;` and `=`, not before CR, where parsers disagree about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size { digits: u8 },
    Space,
    NameStart,
    Name,
    AfterName,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    QuotedEnd,
    AfterValue,
    Lf,
}

/// Not to be called again after a fault.
#[derive(Debug)]
pub struct BodyDecoder {
    side: Side,
    at: At,
}

const LINE: At = At::Line { bytes: 0, size: 0, part: Part::Size { digits: 0 } };

impl BodyDecoder {
    /// `side` says whose fault malformed bytes are.
    #[must_use]
    pub fn new(plan: BodyPlan, side: Side) -> Self {
        let at = match plan {
            BodyPlan::Empty | BodyPlan::Exact { bytes: 0 } => At::Ended,
            BodyPlan::Exact { bytes } => At::Exact { left: bytes },
            BodyPlan::Chunked => LINE,
            BodyPlan::UntilClose => At::UntilClose,
        };
        Self { side, at }
    }

    /// Bytes of the body that have not been counted yet; `None` where only its end will tell.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.at {
            At::Exact { left } => Some(left),
            At::Ended => Some(0),
            _ => None,
        }
    }

    /// Looks at the front of `input`, the unconsumed bytes. The caller consumes `skip` bytes, also with `NeedMore`,
    /// and then those of `Data`, before it calls again. Once the body has ended every call gives `End`.
    ///
    /// # Errors
    /// Malformed or oversized chunk framing and trailers. What was found before stays valid.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Fault> {
        let mut skip = 0;
        loop {
            let rest = &input[skip..];
            if matches!(self.at, At::Ended) {
                return Ok(Step { skip, found: Found::End { trailers: None } });
            }
            let Some(&byte) = rest.first() else { return Ok(Step { skip, found: Found::NeedMore }) };
            match &mut self.at {
                At::UntilClose => return Ok(Step { skip, found: Found::Data { bytes: rest.len() } }),
                At::Exact { left } => {
                    let bytes = take(left, rest.len());
                    if *left == 0 {
                        self.at = At::Ended;
                    }
                    return Ok(Step { skip, found: Found::Data { bytes } });
                }
                At::Data { left } => {
                    let bytes = take(left, rest.len());
                    if *left == 0 {
                        self.at = At::DataCr;
                    }
                    return Ok(Step { skip, found: Found::Data { bytes } });
                }
                At::DataCr if byte == CR => self.at = At::DataLf,
                At::DataLf if byte == LF => self.at = LINE,
                At::DataCr | At::DataLf => return Err(self.side.malformed("a chunk that does not end with CR LF")),
                At::Line { bytes, size, part } => {
                    *bytes += 1;
                    if *bytes > CHUNK_LINE_BYTES_MAX {
                        return Err(self.side.malformed("a chunk line that is too long"));
                    }
                    if *part == Part::Lf {
                        if byte != LF {
                            return Err(self.side.malformed("a CR without its LF in a chunk line"));
                        }
                        self.at = if *size == 0 { At::Trailers } else { At::Data { left: *size } };
                    } else {
                        *part = next_part(*part, byte, size).map_err(|what| self.side.malformed(what))?;
                    }
                }
                At::Trailers if byte == CR => self.at = At::LastLf,
                At::Trailers => {
                    self.at = At::Section(TrailerSection::new(self.side));
                    continue; // the byte is the section's first
                }
                At::LastLf if byte == LF => self.at = At::Ended,
                At::LastLf => return Err(self.side.malformed("a body that does not end with CR LF")),
                At::Section(section) => {
                    let (bytes, trailers) = section.feed(rest)?;
                    skip += bytes;
                    let Some(trailers) = trailers else { return Ok(Step { skip, found: Found::NeedMore }) };
                    self.at = At::Ended;
                    let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                    return Ok(Step { skip, found: Found::End { trailers } });
                }
                At::Ended => {}
            }
            skip += 1;
        }
    }

    /// The peer closed. Fine where the close is the end, or where the end was seen already.
    ///
    /// # Errors
    /// A request that breaks off is malformed (RFC 9112 §8); a response that breaks off is a lost link.
    pub fn at_eof(&mut self) -> Result<(), Fault> {
        match (&self.at, self.side) {
            (At::Ended, _) => Ok(()),
            (At::UntilClose, _) => {
                self.at = At::Ended;
                Ok(())
            }
            (_, Side::Request) => Err(Fault::ClientMalformed("a body that ends too early")),
            (_, Side::Response) => Err(Fault::LinkLost),
        }
    }

    /// Whether nothing of the body is left. With a Content-Length true right after its last byte.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.at, At::Ended)
    }
}

/// Takes at most `at_hand` bytes off `left`.
fn take(left: &mut u64, at_hand: usize) -> usize {
    let bytes = usize::try_from(*left).unwrap_or(usize::MAX).min(at_hand);
    *left -= bytes as u64;
    bytes
}

/// One byte of a chunk line. `size` grows with its digits.
fn next_part(part: Part, byte: u8, size: &mut u64) -> Result<Part, &'static str> {
    use Part::*;
    let extension = "a malformed chunk extension";
    match (part, byte) {
        (Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            if digits == CHUNK_DIGITS_MAX {
                return Err("a chunk size with too many digits");
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                _ => (byte | 0x20) - b'a' + 10,
            };
            *size = *size << 4 | u64::from(digit);
            Ok(Size { digits: digits + 1 })
        }
        (Size { digits: 0 }, _) => Err("a chunk without a size"),
        (Size { .. } | Name | Value | QuotedEnd, CR) => Ok(Lf),
        (Size { .. } | Space | Name | AfterName | Value | QuotedEnd | AfterValue, b';') => Ok(NameStart),
        (Size { .. } | Space, SP | HTAB) => Ok(Space),
        (Size { .. }, _) => Err("a chunk size that is not hexadecimal"),

        (NameStart, SP | HTAB) => Ok(NameStart),
        (NameStart | Name, _) if is_tchar(byte) => Ok(Name),
        (Name | AfterName, SP | HTAB) => Ok(AfterName),
        (Name | AfterName, b'=') => Ok(ValueStart),
        (ValueStart, SP | HTAB) => Ok(ValueStart),
        (ValueStart, b'"') => Ok(Quoted),
        (ValueStart | Value, _) if is_tchar(byte) => Ok(Value),
        (Value | QuotedEnd | AfterValue, SP | HTAB) => Ok(AfterValue),

        (Quoted, b'"') => Ok(QuotedEnd),
        (Quoted, b'\\') => Ok(Escaped),
        (Quoted | Escaped, HTAB | SP..=0x7E | 0x80..) => Ok(Quoted),
        _ => Err(extension),
    }
}

/// The line before a chunk of `data_bytes`.
///
/// # Panics
/// If `data_bytes` is 0: that line would end the body, and whoever writes has to mean it.
pub fn put_chunk(out: &mut Vec<u8>, data_bytes: usize) {
    assert!(data_bytes > 0, "an empty chunk is the end of a body");
    put_hex(out, data_bytes as u64);
    put_chunk_end(out);
}

/// What follows a chunk's data.
pub fn put_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body. Fields that must not be trailers are left out.
pub fn put_last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| may_be_trailer(name)) {
        put_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}
