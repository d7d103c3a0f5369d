//! The PROXY protocol, versions 1 and 2: what a load balancer writes in front of a connection's own bytes about whose they
//! are. The bytes behind it never enter, nor does whether the load balancer may be believed.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, called "the document" below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use memchr::memchr2;

use super::token::{CR, LF, SP, decimal};
use crate::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of what follows.
const HEAD_BYTES: usize = 16;
const NO_HEADER: &str = "it does not begin with a PROXY header";

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// The load balancer's own (it looks whether somebody is there), or it does not know: the socket's address counts.
    Itself,
    /// A client's. IPv4 is never in its IPv6 form.
    From(SocketAddr),
}

/// Reads the header at the front of `input`: how many bytes it has, and what it says. `None` asks for more bytes; a verdict
/// may come before the header's end and does not change with more of it. Bounded: with `PROXY_V2_BYTES_MAX` and 16 bytes
/// there is a verdict.
///
/// # Errors
/// Says what is wrong, for a log line.
pub fn parse_proxy(input: &[u8]) -> Result<Option<(usize, Introduced)>, &'static str> {
    match input.first() {
        None => Ok(None),
        Some(b'P') => version_1(input),
        Some(&CR) => version_2(input),
        Some(_) => Err(NO_HEADER),
    }
}

/// The document, §2.1: one line of at most 107 bytes, single spaces.
fn version_1(input: &[u8]) -> Result<Option<(usize, Introduced)>, &'static str> {
    const START: &[u8] = b"PROXY ";
    const TOO_LONG: &str = "its PROXY line is longer than 107 bytes";
    let begins = START.len().min(input.len());
    if input[..begins] != START[..begins] {
        return Err(NO_HEADER);
    }
    let line = &input[..input.len().min(PROXY_V1_BYTES_MAX)];
    let Some(end) = memchr2(CR, LF, line) else {
        return if line.len() == PROXY_V1_BYTES_MAX { Err(TOO_LONG) } else { Ok(None) };
    };
    match (line[end], line.get(end + 1)) {
        (CR, Some(&LF)) => {}
        (CR, None) if line.len() < PROXY_V1_BYTES_MAX => return Ok(None),
        (CR, None) => return Err(TOO_LONG),
        _ => return Err("its PROXY line ends with something else than CR LF"),
    }
    let mut words = line[START.len()..end].split(|byte| *byte == SP);
    let introduced = match words.next() {
        Some(b"TCP4") => Introduced::From(source::<Ipv4Addr>(words)?),
        Some(b"TCP6") => Introduced::From(source::<Ipv6Addr>(words)?),
        // "The receiver must ignore anything presented before the CRLF."
        Some(b"UNKNOWN") => Introduced::Itself,
        _ => return Err("its PROXY line names an unknown protocol"),
    };
    Ok(Some((end + 2, introduced)))
}

/// The four words behind `TCP4` or `TCP6`, all of which must be right, though only the source is of use.
fn source<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<SocketAddr, &'static str> {
    let mut address = || -> Option<IpAddr> {
        let text = std::str::from_utf8(words.next()?).ok()?;
        text.parse::<A>().ok().map(Into::into)
    };
    let addresses = (address(), address());
    let (Some(source), Some(_)) = addresses else { return Err("its PROXY line has an impossible address") };
    let ports = (words.next().and_then(port), words.next().and_then(port));
    let (Some(port), Some(_)) = ports else { return Err("its PROXY line has an impossible port") };
    match words.next() {
        None => Ok(SocketAddr::new(source.to_canonical(), port)),
        Some(_) => Err("its PROXY line has something behind its ports"),
    }
}

/// Without leading zeros, for they could be octal.
fn port(digits: &[u8]) -> Option<u16> {
    match digits {
        [b'0', _, ..] => None,
        digits => decimal(digits).and_then(|port| u16::try_from(port).ok()),
    }
}

/// The document, §2.2. What stands behind the addresses (TLVs) is passed over.
fn version_2(input: &[u8]) -> Result<Option<(usize, Introduced)>, &'static str> {
    let begins = SIGNATURE.len().min(input.len());
    if input[..begins] != SIGNATURE[..begins] {
        return Err(NO_HEADER);
    }
    let Some(head) = input.get(..HEAD_BYTES) else { return Ok(None) };
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        0x22..=0x2F => return Err("its PROXY header has an unknown command"),
        _ => return Err("its PROXY header has an unknown version"),
    };
    // Of a LOCAL one "the receiver must … discard the protocol block including the family which is ignored".
    let addresses_bytes = match head[13] {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        0x12 | 0x22 | 0x32 => return Err("its PROXY header speaks of datagrams"),
        _ => return Err("its PROXY header names an unknown family or protocol"),
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length < addresses_bytes {
        return Err("its PROXY header is too short for its addresses");
    }
    if length > PROXY_V2_BYTES_MAX {
        return Err("its PROXY header is too long");
    }
    let Some(block) = input.get(HEAD_BYTES..HEAD_BYTES + length) else { return Ok(None) };
    let introduced = match (head[13], block) {
        _ if is_local => Introduced::Itself,
        (0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            let port = u16::from_be_bytes([*high, *low]);
            Introduced::From(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port))
        }
        (0x21, block) => match (block.first_chunk::<16>(), block.get(32..34)) {
            (Some(source), Some(&[high, low])) => {
                let source = IpAddr::from(Ipv6Addr::from(*source)).to_canonical();
                Introduced::From(SocketAddr::new(source, u16::from_be_bytes([high, low])))
            }
            _ => Introduced::Itself, // its length was checked
        },
        // Nobody knows, or a Unix socket of the load balancer's own machine.
        _ => Introduced::Itself,
    };
    Ok(Some((HEAD_BYTES + length, introduced)))
}
