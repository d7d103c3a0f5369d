//! Hosts and ports as `Host`, request targets and origins write them (RFC 3986 §3.2). No name is resolved here.

use std::fmt;
use std::net::Ipv6Addr;

use bytes::Bytes;

/// The schemes that are served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// Splits `http://` or `https://` off, in any case.
    #[must_use]
    pub fn split(text: &[u8]) -> Option<(Scheme, &[u8])> {
        let cut = |prefix: &[u8]| {
            let (head, rest) = text.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        };
        if let Some(rest) = cut(b"http://") {
            return Some((Scheme::Http, rest));
        }
        Some((Scheme::Https, cut(b"https://")?))
    }
}

/// A host in lower case, IPv6 with its brackets, and a port if one was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// ASCII only; `parse` saw to it.
    host: Bytes,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host` or `host:port`. The host stays a slice of `text` unless it has to be lower-cased.
    ///
    /// # Errors
    /// Says what is wrong: empty, userinfo, a character that no host name has, a port that is empty or 0 or above
    /// 65,535. Stricter than RFC 3986: `reg-name` may hold `%` and sub-delims, no name that is served here does.
    pub fn parse(text: &Bytes) -> Result<Authority, &'static str> {
        let (host, port) = split_host_port(text)?;
        let host = if host.iter().any(u8::is_ascii_uppercase) {
            Bytes::from(host.to_ascii_lowercase())
        } else {
            text.slice(..host.len()) // the host is at the front
        };
        Ok(Authority { host, port })
    }

    #[must_use]
    pub fn host(&self) -> &str {
        std::str::from_utf8(&self.host).expect("a host is ASCII")
    }

    #[must_use]
    pub fn port_for(&self, scheme: Scheme) -> u16 {
        self.port.unwrap_or_else(|| scheme.default_port())
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host())?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({self})")
    }
}

/// Splits and checks `host[:port]`; the host is a prefix of `text`, in the case that was written.
pub(super) fn split_host_port(text: &[u8]) -> Result<(&[u8], Option<u16>), &'static str> {
    let host_bytes = match text {
        [] => return Err("an empty host"),
        [b'[', ..] => text.iter().position(|byte| *byte == b']').ok_or("an IPv6 address without its bracket")? + 1,
        _ => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_bytes);
    check_host(host)?;
    let port = match rest {
        [] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err("something between host and port"),
    };
    Ok((host, port))
}

/// Checks a host without a port: a DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn check_host(host: &[u8]) -> Result<(), &'static str> {
    /// RFC 1035 §2.3.4, and the dot that may follow.
    const NAME_BYTES_MAX: usize = 254;
    if let [b'[', inner @ .., b']'] = host {
        let address = std::str::from_utf8(inner).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        return address.map(|_| ()).ok_or("an impossible IPv6 address");
    }
    if host.is_empty() {
        return Err("an empty host");
    }
    if host.len() > NAME_BYTES_MAX {
        return Err("a host that is too long");
    }
    if !host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        return Err("a character that no host has");
    }
    let labels = host.strip_suffix(b".").unwrap_or(host);
    if labels.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err("a host with an empty label");
    }
    Ok(())
}

fn port(digits: &[u8]) -> Result<u16, &'static str> {
    match digits {
        [] => return Err("an empty port"),
        [b'0', ..] => return Err("a port that begins with 0"),
        _ => {}
    }
    let port = super::token::decimal(digits).and_then(|number| u16::try_from(number).ok());
    port.ok_or("an impossible port")
}
