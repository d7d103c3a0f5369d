//! Origins (RFC 6454) and the patterns of the configuration that cover them. No request enters, only its scheme, host
//! and port.

use std::fmt;
use std::str::FromStr;

use super::authority::{Scheme, check_host, split_host_port};

/// Scheme, host and port. The host is in lower case, IPv6 with brackets; the port is always there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`, nothing behind it. Case is folded, a default port may be written.
    ///
    /// # Errors
    /// Says what is wrong: `null`, another scheme, userinfo, a path (a lone slash too), an empty or impossible port,
    /// a wildcard.
    pub fn parse(text: &str) -> Result<Origin, &'static str> {
        let (scheme, rest) =
            Scheme::split(text.as_bytes()).ok_or("an origin begins with http:// or https:// and is never null")?;
        if rest.contains(&b'/') {
            return Err("an origin has no path, not even a slash");
        }
        if rest.contains(&b'@') {
            return Err("an origin has no user");
        }
        let (host, port) = split_host_port(rest)?;
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        Ok(Origin { scheme, host, port: port.unwrap_or_else(|| scheme.default_port()) })
    }
}

/// RFC 6454 §6.2.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Origin, &'static str> {
        Origin::parse(text)
    }
}

/// An entry of `origins` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    Origin(Origin),
    /// Any scheme and port of one host.
    Host(String),
    /// Any scheme and port of every host below this one, at any depth, itself not included. Without `*.`.
    Wildcard(String),
    Any,
}

impl OriginPattern {
    /// Reads an origin, a host, `*.host`, or `*`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<OriginPattern, &'static str> {
        if text == "*" {
            return Ok(OriginPattern::Any);
        }
        if text.contains("://") {
            return Origin::parse(text).map(OriginPattern::Origin);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            if suffix.starts_with('[') {
                return Err("nothing is below an address");
            }
            check_host(suffix.as_bytes())?;
            return Ok(OriginPattern::Wildcard(suffix.to_ascii_lowercase()));
        }
        if text.contains('*') {
            return Err("a wildcard stands alone or as the first label");
        }
        check_host(text.as_bytes()).map_err(|what| {
            if text.contains([':', '/']) {
                "a bare host has no port and no path; an origin begins with its scheme"
            } else {
                what
            }
        })?;
        Ok(OriginPattern::Host(text.to_ascii_lowercase()))
    }

    /// Whether a request for `host`, in lower case, belongs here.
    #[must_use]
    pub fn matches(&self, scheme: &str, host: &str, port: u16) -> bool {
        match self {
            OriginPattern::Origin(origin) => {
                origin.scheme.as_str() == scheme && origin.host == host && origin.port == port
            }
            OriginPattern::Host(wanted) => wanted == host,
            OriginPattern::Wildcard(suffix) => {
                // the last dot before the suffix has a label before it, for no host has an empty one
                host.strip_suffix(suffix.as_str()).is_some_and(|labels| labels.ends_with('.'))
            }
            OriginPattern::Any => true,
        }
    }

    /// Whether a worker that may serve this pattern may register `origin`.
    #[must_use]
    pub fn covers(&self, origin: &Origin) -> bool {
        self.matches(origin.scheme.as_str(), &origin.host, origin.port)
    }

    /// The higher, the more exact. Of two wildcards that match the same host the longer is the more exact.
    #[must_use]
    pub fn exactness(&self) -> u8 {
        match self {
            OriginPattern::Origin(_) => u8::MAX,
            OriginPattern::Host(_) => u8::MAX - 1,
            // a host has at most 254 bytes, so this stays below
            OriginPattern::Wildcard(suffix) => u8::try_from(suffix.len()).unwrap_or(u8::MAX).clamp(1, u8::MAX - 2),
            OriginPattern::Any => 0,
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginPattern::Origin(origin) => origin.fmt(f),
            OriginPattern::Host(host) => f.write_str(host),
            OriginPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            OriginPattern::Any => f.write_str("*"),
        }
    }
}

impl FromStr for OriginPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<OriginPattern, &'static str> {
        OriginPattern::parse(text)
    }
}
