//! Who asked, as the proxies in front of the edge tell it: `Forwarded` (RFC 7239), `X-Forwarded-For`, `-Proto` and `-Host`.
//! Whom to trust, and what is told on, never enter.
//!
//! A chain is read from its right end, where the proxies that are trusted wrote, and never further than to the first one that
//! is not: everything on the left of that is a client's own words, and may be any bytes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::authority::{Scheme, split_host_port};
use super::token::{HTAB, SP, is_tchar, is_token, list, trim_ows};
use crate::limits::{FORWARDED_BYTES_MAX, FORWARDED_HOPS_MAX};

pub(super) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What trusted proxies say about a request. Where `Forwarded` and the `X-Forwarded-*` fields contradict each other about the
/// client, the scheme or the host, one of them is a client's that the proxy let pass, and nobody can tell which: about that,
/// neither is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Who asked the last proxy, who asked that one, and so on, up to the client. `FORWARDED_HOPS_MAX` at most.
    pub(super) hops: Vec<IpAddr>,
    /// The fields name two clients, so nobody knows which of them it is.
    pub contradicts: bool,
    /// How the client asked.
    pub scheme: Option<Scheme>,
    /// Whom the client asked: a host, maybe with a port.
    pub host: Option<HeaderValue>,
    /// The field can go on as it is.
    pub(super) keeps_forwarded: bool,
    pub(super) keeps_x_forwarded_for: bool,
}

impl Told {
    /// How many addresses are known.
    #[must_use]
    pub fn hops(&self) -> usize {
        self.hops.len()
    }

    /// The first address from the right that is not trusted, or the leftmost one. `None`: nothing is known, so it is whoever
    /// connected. IPv4 is never in its IPv6 form.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.hops.last().copied()
    }
}

/// What the fields of a request say that came from a trusted proxy. `trusts` knows the others.
pub fn told(headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Told {
    let forwarded = Chain::of_forwarded(headers, &trusts);
    let x_forwarded = Chain::of_x_forwarded(headers, &trusts);
    let contradict =
        forwarded.is_definite && x_forwarded.is_definite && forwarded.hops.last() != x_forwarded.hops.last();
    let keeps_forwarded = !contradict && forwarded.may_be_kept();
    let keeps_x_forwarded_for = !contradict && x_forwarded.may_be_kept();
    let is_x_better = match (forwarded.is_definite, x_forwarded.is_definite) {
        (false, true) => true,
        (true, _) => false,
        (false, false) => x_forwarded.hops.len() > forwarded.hops.len(),
    };
    Told {
        hops: match (contradict, is_x_better) {
            (true, _) => Vec::new(),
            (false, true) => x_forwarded.hops,
            (false, false) => forwarded.hops,
        },
        contradicts: contradict,
        scheme: agreed(forwarded.scheme, x_forwarded.scheme, |one, other| one == other),
        host: agreed(forwarded.host, x_forwarded.host, |one, other| {
            one.as_bytes().eq_ignore_ascii_case(other.as_bytes())
        }),
        keeps_forwarded,
        keeps_x_forwarded_for,
    }
}

/// What both say, or the one that says something.
fn agreed<T>(one: Option<T>, other: Option<T>, same: impl Fn(&T, &T) -> bool) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => same(&one, &other).then_some(one),
        (one, other) => one.or(other),
    }
}

/// One field's elements, read from the right.
#[derive(Default)]
struct Chain {
    hops: Vec<IpAddr>,
    /// Its last hop is the client: nothing stands in front of it, or it is not trusted. Else somebody is hidden behind it.
    is_definite: bool,
    is_over: bool,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
    elements: usize,
    /// Something in it, maybe behind its end, cannot be read.
    is_garbage: bool,
    bytes: usize,
}

impl Chain {
    fn of_x_forwarded(headers: &HeaderMap, trusts: &impl Fn(IpAddr) -> bool) -> Chain {
        let mut chain = Chain::default();
        for line in headers.get_all(&X_FORWARDED_FOR).iter().rev() {
            chain.bytes += line.len();
            let elements = line.as_bytes().rsplit(|byte| *byte == b',').map(trim_ows);
            for element in elements.filter(|element| !element.is_empty()) {
                let node = node(element);
                chain.is_garbage |= node.is_none();
                chain.step(node, trusts);
            }
        }
        if let Some((_, proto)) = single(headers, &X_FORWARDED_PROTO) {
            chain.scheme = scheme(proto);
        }
        if let Some((line, host)) = single(headers, &X_FORWARDED_HOST)
            && split_host_port(host).is_ok()
        {
            chain.host = if line.len() == host.len() { Some(line.clone()) } else { HeaderValue::from_bytes(host).ok() };
        }
        chain
    }

    fn of_forwarded(headers: &HeaderMap, trusts: &impl Fn(IpAddr) -> bool) -> Chain {
        let mut chain = Chain::default();
        for line in headers.get_all(FORWARDED).iter().rev() {
            chain.bytes += line.len();
            for text in elements(line.as_bytes()).filter(|text| !text.is_empty()) {
                let Some(element) = Element::parse(text) else {
                    chain.is_garbage = true;
                    chain.step(None, trusts);
                    continue;
                };
                // Whoever wrote this element was asked that way: it is the client's, if the chain ends here.
                if !chain.is_over {
                    chain.scheme = element.scheme;
                    chain.host = element.host.and_then(|host| HeaderValue::from_bytes(&host).ok());
                }
                chain.step(element.node, trusts);
            }
        }
        chain
    }

    /// One element further to the left.
    fn step(&mut self, node: Option<Node>, trusts: &impl Fn(IpAddr) -> bool) {
        self.elements += 1;
        if self.is_over {
            return;
        }
        match node {
            Some(Node::Address(address)) => {
                self.hops.push(address);
                let is_client = !trusts(address);
                self.is_over = is_client || self.hops.len() == FORWARDED_HOPS_MAX;
                self.is_definite = is_client || !self.is_over;
            }
            Some(Node::Hidden) | None => {
                self.is_over = true;
                self.is_definite = false;
            }
        }
    }

    /// It is there, small, and readable from either end: an element behind it will be read as an element.
    fn may_be_kept(&self) -> bool {
        self.elements > 0 && !self.is_garbage && self.bytes <= FORWARDED_BYTES_MAX
    }
}

/// Who asked, in one element.
enum Node {
    Address(IpAddr),
    /// `unknown`, or a name that starts with `_` (RFC 7239 §6.2, §6.3).
    Hidden,
}

/// RFC 7239 §6, and what else stands in `X-Forwarded-For`: an IPv6 address without its brackets.
fn node(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Node::Address(address.to_canonical()));
    }
    let (node, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']')?;
            let address = IpAddr::from(address.parse::<Ipv6Addr>().ok()?);
            let port = match behind {
                "" => None,
                behind => Some(behind.strip_prefix(':')?),
            };
            (Node::Address(address.to_canonical()), port)
        }
        None => {
            let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
            let node = match name.parse() {
                Ok(address) => Node::Address(IpAddr::V4(address)),
                Err(_) if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => Node::Hidden,
                Err(_) => return None,
            };
            (node, port)
        }
    };
    let is_number = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    port.is_none_or(|port| is_number(port) || is_obfuscated(port)).then_some(node)
}

fn is_obfuscated(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_part))
}

/// A proxy's word for how it was asked; a WebSocket's is that of the request that it begins with. `None` for any other.
fn scheme(proto: &[u8]) -> Option<Scheme> {
    let is = |names: [&[u8]; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
    match proto {
        proto if proto.len() > 5 => None,
        _ if is([b"https", b"wss"]) => Some(Scheme::Https),
        _ if is([b"http", b"ws"]) => Some(Scheme::Http),
        _ => None,
    }
}

/// The one thing that a field says, with the line where it first stands. Some proxies append where others replace: a list
/// counts if all of it is the same.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<(&'h HeaderValue, &'h [u8])> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| list(line.as_bytes()).map(move |element| (line, element)));
    let mut elements = elements.filter(|(_, element)| !element.is_empty());
    let (line, first) = elements.next()?;
    elements.all(|(_, other)| other.eq_ignore_ascii_case(first)).then_some((line, first))
}

/// One element of `Forwarded`, as far as it is of use.
#[derive(Default)]
struct Element<'a> {
    node: Option<Node>,
    scheme: Option<Scheme>,
    host: Option<Cow<'a, [u8]>>,
    has_proto: bool,
}

impl<'a> Element<'a> {
    /// RFC 7239 §4. Spaces around a semicolon are let pass, as many write them.
    fn parse(text: &'a [u8]) -> Option<Element<'a>> {
        let mut element = Element::default();
        let mut rest = trim_ows(text);
        while !rest.is_empty() {
            if rest[0] != b';' {
                let name_bytes = rest.iter().position(|byte| !is_tchar(*byte))?;
                let (name, [b'=', behind @ ..]) = rest.split_at(name_bytes) else { return None };
                let (value, behind) = value(behind)?;
                element.put(name, value)?;
                rest = trim_ows(behind);
            }
            match rest {
                [] => {}
                [b';', behind @ ..] => rest = trim_ows(behind),
                _ => return None,
            }
        }
        Some(element)
    }

    /// `None` for what is there twice, or cannot be.
    fn put(&mut self, name: &[u8], value: Cow<'a, [u8]>) -> Option<()> {
        if name.eq_ignore_ascii_case(b"for") {
            let before = self.node.replace(node(&value)?);
            before.is_none().then_some(())
        } else if name.eq_ignore_ascii_case(b"proto") {
            self.scheme = scheme(&value);
            (!std::mem::replace(&mut self.has_proto, true)).then_some(())
        } else if name.eq_ignore_ascii_case(b"host") {
            split_host_port(&value).ok()?;
            self.host.replace(value).is_none().then_some(())
        } else {
            is_token(name).then_some(())
        }
    }
}

/// A token or a quoted string at the front, and what is behind it.
fn value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let [b'"', inside @ ..] = text else {
        let bytes = text.iter().position(|byte| !is_tchar(*byte)).unwrap_or(text.len());
        let (token, behind) = text.split_at(bytes);
        return is_token(token).then_some((Cow::Borrowed(token), behind));
    };
    let mut unescaped: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        let byte = match inside.get(at)? {
            b'"' => break,
            b'\\' => {
                unescaped.get_or_insert_with(|| inside[..at].to_vec());
                at += 1;
                inside.get(at)?
            }
            byte => byte,
        };
        if !matches!(*byte, HTAB | SP..=b'~' | 0x80..) {
            return None;
        }
        if let Some(unescaped) = &mut unescaped {
            unescaped.push(*byte);
        }
        at += 1;
    }
    let value = unescaped.map_or(Cow::Borrowed(&inside[..at]), Cow::Owned);
    Some((value, &inside[at + 1..]))
}

/// The elements of a list with quoted strings, the last one first. From the right, because a quote that a client left open
/// must not swallow what stands behind it.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        for (at, byte) in text.iter().enumerate().rev() {
            match byte {
                b'"' if !(is_quoted && is_escaped(&text[..at])) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    rest = Some(&text[..at]);
                    return Some(trim_ows(&text[at + 1..]));
                }
                _ => {}
            }
        }
        rest = None;
        Some(trim_ows(text))
    })
}

/// Whether a byte inside a quoted string, behind these, is one of its text.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}
