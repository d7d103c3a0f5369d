//! Patterns of the configuration: how two origin patterns relate, and which paths, hosts and addresses the pattern of a
//! rule takes. What follows from it never enters.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use memchr::memmem;

use crate::wire::origin::OriginPattern;
use crate::wire::origin::OriginPattern::{Any, Host, Origin, Wildcard};

/// Whether some origin is covered by both.
#[must_use]
pub fn meet(a: &OriginPattern, b: &OriginPattern) -> bool {
    match (a, b) {
        (Origin(a), b) => b.covers(a),
        (a, Origin(b)) => a.covers(b),
        // Without schemes and ports, two patterns that meet are one inside the other.
        (a, b) => includes(a, b) || includes(b, a),
    }
}

/// Whether `a` covers every origin that `b` covers.
#[must_use]
pub fn includes(a: &OriginPattern, b: &OriginPattern) -> bool {
    match (a, b) {
        (Any, _) => true,
        (a, Origin(b)) => a.covers(b),
        (Host(a), Host(b)) => a == b,
        (a @ Wildcard(_), Host(b)) => a.matches("https", b, 443), // a wildcard looks at neither scheme nor port
        (Wildcard(a), Wildcard(b)) => b == a || b.strip_suffix(a.as_str()).is_some_and(|rest| rest.ends_with('.')),
        (Origin(_), _) | (_, Any) | (Host(_), Wildcard(_)) => false,
    }
}

/// Whether who may serve `own` may get what comes for `wanted`, an entry of the same pool. A whole origin has to be covered
/// whole: another scheme or port of its host is another one. Of a pattern, which looks at neither, the hosts are enough.
#[must_use]
pub fn shares(own: &OriginPattern, wanted: &OriginPattern) -> bool {
    match wanted {
        Origin(origin) => own.covers(origin),
        wanted => includes_hosts(own, wanted),
    }
}

/// As [`includes`], with schemes and ports left out: whether `a` covers every host that `b` covers.
fn includes_hosts(a: &OriginPattern, b: &OriginPattern) -> bool {
    let hosts = |pattern: &OriginPattern| match pattern {
        Origin(origin) => Host(origin.host.clone()),
        other => other.clone(),
    };
    includes(&hosts(a), &hosts(b))
}

/// A path as a rule has it: `*` is any run of bytes, also an empty one, also over slashes; all else is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    Exact(Box<str>),
    /// What stands before the first star, between two, and behind the last. Nothing in the middle is empty.
    Starred {
        first: Box<str>,
        middle: Box<[Box<str>]>,
        last: Box<str>,
    },
}

impl PathPattern {
    /// # Errors
    /// Continues "…, which".
    pub fn parse(text: &str) -> Result<PathPattern, &'static str> {
        match text {
            "" => return Err("is empty"),
            text if text.bytes().all(|byte| byte == b'*') => return Err("every path matches, so it is no condition"),
            text if !text.starts_with(['/', '*']) => return Err("begins with neither a slash nor a star"),
            text if text.contains(['?', '#']) => {
                return Err("has a query or a fragment, and paths are compared without");
            }
            text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err("has a character that no request path has");
            }
            _ => {}
        }
        let Some((first, rest)) = text.split_once('*') else { return Ok(PathPattern::Exact(text.into())) };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|piece| !piece.is_empty()).map(Into::into).collect();
        Ok(PathPattern::Starred { first: first.into(), middle, last: last.into() })
    }

    /// `path` has no query. Reads each byte a bounded number of times, whatever the pattern and the path are, and
    /// allocates nothing.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let (first, middle, last) = match self {
            PathPattern::Exact(exact) => return **exact == *path,
            PathPattern::Starred { first, middle, last } => (first, middle, last),
        };
        let Some(rest) = path.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else { return false };
        let mut rest = rest.as_bytes();
        // The leftmost place of a piece leaves the most for those behind it, so no other has to be tried.
        middle.iter().all(|piece| match memmem::find(rest, piece.as_bytes()) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

/// A host as a rule has it: one name or address, or every host below one. In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Exact(Box<str>),
    /// Without `*.`; itself not included.
    Below(Box<str>),
}

impl HostPattern {
    /// # Errors
    /// Continues "…, which".
    pub fn parse(text: &str) -> Result<HostPattern, &'static str> {
        match OriginPattern::parse(text) {
            Ok(Host(host)) => Ok(HostPattern::Exact(host.into())),
            Ok(Wildcard(parent)) => Ok(HostPattern::Below(parent.into())),
            Ok(Any) => Err("every host matches, so it is no condition"),
            Ok(Origin(_)) => Err("is an origin, and hosts have no scheme and no port"),
            Err(_) => Err("is not a host, without scheme and port"),
        }
    }

    /// `host` has no port; its case does not matter. IPv6 has its brackets.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(wanted) => host.eq_ignore_ascii_case(wanted),
            HostPattern::Below(parent) => {
                let labels_bytes = host.len().checked_sub(parent.len());
                let halves = labels_bytes.and_then(|bytes| host.split_at_checked(bytes));
                halves.is_some_and(|(labels, rest)| labels.ends_with('.') && rest.eq_ignore_ascii_case(parent))
            }
        }
    }

    /// Whether a request that `origin` covers can have such a host.
    #[must_use]
    pub fn meets(&self, origin: &OriginPattern) -> bool {
        let own = match self {
            HostPattern::Exact(host) => Host(host.to_string()),
            HostPattern::Below(parent) => Wildcard(parent.to_string()),
        };
        meet(&own, origin)
    }
}

/// An address, or all that begin with the same bits. IPv4 in its IPv6 form is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNetwork {
    /// Continues "…, which".
    Malformed(&'static str),
    /// There are bits behind its prefix; this one was meant, or a longer prefix.
    Loose(Network),
}

impl Network {
    /// Reads `10.0.0.1`, `10.0.0.0/8`, `::1` or `2001:db8::/32`.
    ///
    /// # Errors
    /// When it is none of these, or has bits behind its prefix.
    pub fn parse(text: &str) -> Result<Network, NotNetwork> {
        const NO_ADDRESS: NotNetwork = NotNetwork::Malformed("is neither an IP address nor a network");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NO_ADDRESS)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix_bits| *prefix_bits <= bits)
                .ok_or(NotNetwork::Malformed("has a prefix longer than its address"))?,
            Some(_) => return Err(NotNetwork::Malformed("has a prefix that is not a number")),
        };
        let meant = Network { address: masked(address, prefix_bits), prefix_bits };
        if meant.address != address {
            return Err(NotNetwork::Loose(meant.canonical()));
        }
        Ok(meant.canonical())
    }

    /// As IPv4 where all of it is IPv4.
    fn canonical(self) -> Network {
        match (self.address.to_canonical(), self.prefix_bits.checked_sub(96)) {
            (IpAddr::V4(address), Some(prefix_bits)) if self.address.is_ipv6() => {
                Network { address: address.into(), prefix_bits }
            }
            _ => self,
        }
    }

    /// Every address of its kind.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.prefix_bits == 0
    }

    /// An IPv4 address in its IPv6 form is in IPv4 networks only: a socket for both kinds shows it so.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix_bits) == self.address
    }
}

/// The address with all bits behind its prefix at 0.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::parse(text).unwrap()
    }

    #[track_caller]
    fn check(a: &str, b: &str, want: (bool, bool, bool)) {
        let (x, y) = (pattern(a), pattern(b));
        assert_eq!((meet(&x, &y), includes(&x, &y), includes(&y, &x)), want, "{a} and {b}");
        assert_eq!(meet(&x, &y), meet(&y, &x), "{a} and {b}, turned round");
    }

    #[test]
    fn two_patterns_meet_and_include_as_their_origins_do() {
        for (a, b, meet, a_holds_b, b_holds_a) in [
            ("*", "*", true, true, true),
            ("*", "https://a.example", true, true, false),
            ("*", "*.example", true, true, false),
            ("https://a.example", "https://a.example", true, true, true),
            ("https://a.example", "https://a.example:443", true, true, true),
            ("https://a.example", "http://a.example", false, false, false),
            ("https://a.example", "a.example", true, false, true),
            ("https://b.example", "a.example", false, false, false),
            ("https://a.example", "*.example", true, false, true),
            ("https://example", "*.example", false, false, false),
            ("a.example", "*.example", true, false, true),
            ("example", "*.example", false, false, false),
            ("*.example", "*.b.example", true, true, false),
            ("*.example", "*.anexample", false, false, false),
            ("*.a.example", "*.b.example", false, false, false),
        ] {
            check(a, b, (meet, a_holds_b, b_holds_a));
        }
    }

    #[test]
    fn hosts_are_compared_without_scheme_and_port() {
        for (a, b, want) in [
            ("https://a.example", "http://a.example:8080", true),
            ("https://a.example", "a.example", true),
            ("https://a.example", "*.example", false),
            ("*.example", "http://a.example", true),
            ("a.example", "*", false),
        ] {
            assert_eq!(includes_hosts(&pattern(a), &pattern(b)), want, "{a} and {b}");
        }
    }

    #[test]
    fn who_shares_a_pool_covers_its_whole_origins_whole() {
        for (own, wanted, want) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example:443", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("a.example", "https://a.example:8443", true),
            ("*.example", "https://a.example:8443", true),
            ("*", "http://a.example", true),
            // A pattern has neither scheme nor port.
            ("https://a.example", "a.example", true),
            ("https://a.example", "b.example", false),
            ("https://a.example", "*.example", false),
            ("a.example", "*", false),
            ("*.example", "*.a.example", true),
        ] {
            assert_eq!(shares(&pattern(own), &pattern(wanted)), want, "{own} and {wanted}");
        }
    }

    /// The same by trying every run of bytes for every star.
    fn takes(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', rest @ ..] => (0..=path.len()).any(|run| takes(rest, &path[run..])),
            [byte, rest @ ..] => path.first() == Some(byte) && takes(rest, &path[1..]),
        }
    }

    #[test]
    fn a_star_is_any_run_of_bytes() {
        for (pattern, path, want) in [
            ("/", "/", true),
            ("/", "", false),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/a", true),
            ("/a*", "/ab/c", true),
            ("/a*", "/b", false),
            ("*a", "/b/a", true),
            ("*a", "/ab", false),
            ("*a*", "/bab", true),
            ("*a*", "/b", false),
            ("/a*a", "/a", false),
            ("/a*a", "/aa", true),
            ("/a**a", "/aa", true),
            ("/ab*ba", "/aba", false),
            ("/ab*ba", "/abba", true),
            ("/*/x/*/y", "/1/x/2/y", true),
            ("/*/x/*/y", "/1/x/y", false),
            ("/*ab*ab*ab*", "/abab", false),
            ("/*ab*ab*ab*", "/ababab", true),
            ("/*", "*", false),
            ("*/*", "*", false),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path), want, "{pattern} and {path}");
            assert_eq!(takes(pattern.as_bytes(), path.as_bytes()), want, "{pattern} and {path}, by trying");
        }
    }

    /// Marsaglia's xorshift64*.
    fn next(state: &mut u64, bound: usize) -> usize {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        usize::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }

    #[test]
    fn a_path_pattern_agrees_with_trying_everything() {
        let mut taken = 0;
        for seed in 1..=30_000_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut text = |start: &str, from: &[u8], bytes: usize| -> String {
                let bytes = next(&mut state, bytes + 1);
                start.chars().chain((0..bytes).map(|_| char::from(from[next(&mut state, from.len())]))).collect()
            };
            let pattern = text(if seed % 4 == 0 { "*" } else { "/" }, b"ab/**", 8);
            let path = text("/", b"aab/", 10);
            let Ok(parsed) = PathPattern::parse(&pattern) else {
                assert!(pattern.bytes().all(|byte| byte == b'*'), "seed {seed}: {pattern}");
                continue;
            };
            let want = takes(pattern.as_bytes(), path.as_bytes());
            assert_eq!(parsed.matches(&path), want, "seed {seed}: {pattern} and {path}");
            taken += usize::from(want);
        }
        assert!((1_000..29_000).contains(&taken), "{taken} of all paths are taken, which tells little");
    }

    /// By trying, this would take longer than the world has been there.
    #[test]
    fn no_path_makes_a_pattern_slow() {
        let path = format!("/{}", "a".repeat(8 * 1024));
        for piece in ["a*", "aa*", "*a", "aaaaaaaa*"] {
            let starred = piece.repeat(1_000 / piece.len());
            assert!(!PathPattern::parse(&format!("/{starred}b")).unwrap().matches(&path), "{piece}");
            assert!(!PathPattern::parse(&format!("/{starred}b*")).unwrap().matches(&path), "{piece}");
            assert!(PathPattern::parse(&format!("/{starred}")).unwrap().matches(&path), "{piece}");
        }
    }

    #[test]
    fn a_path_pattern_is_a_path_or_it_is_refused() {
        for (text, want) in [
            ("", "is empty"),
            ("*", "every path matches"),
            ("***", "every path matches"),
            ("a/*", "begins with neither a slash nor a star"),
            ("/a?b", "has a query"),
            ("/a#b", "has a query or a fragment"),
            ("/a b", "has a character that no request path has"),
            ("/\u{e4}", "has a character that no request path has"),
            ("/a\n", "has a character that no request path has"),
        ] {
            let reason = PathPattern::parse(text).expect_err(text);
            assert!(reason.contains(want), "{text}: {reason}");
        }
    }

    #[test]
    fn a_host_pattern_meets_the_origins_whose_hosts_it_can_take() {
        for (host, origin, want) in [
            ("app.example", "app.example", true),
            ("app.example", "http://app.example:8080", true),
            ("app.example", "*.example", true),
            ("app.example", "*", true),
            ("app.example", "example", false),
            ("*.example", "http://app.example", true),
            ("*.example", "*.b.example", true),
            ("*.b.example", "*.example", true),
            ("*.example", "example", false),
            ("*.a.example", "*.b.example", false),
        ] {
            assert_eq!(HostPattern::parse(host).unwrap().meets(&pattern(origin)), want, "{host} and {origin}");
        }
        for (text, want) in [
            ("*", "every host matches"),
            ("http://a.example", "is an origin"),
            ("a.example:80", "is not a host"),
            ("a.*.example", "is not a host"),
            ("", "is not a host"),
            ("a..b", "is not a host"),
            ("::1", "is not a host"),
        ] {
            let reason = HostPattern::parse(text).expect_err(text);
            assert!(reason.contains(want), "{text}: {reason}");
        }
    }

    #[test]
    fn a_network_is_an_address_and_the_length_of_its_prefix() {
        for (text, want) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ] {
            assert_eq!(Network::parse(text).map(|network| network.to_string()), Ok(want.to_owned()), "{text}");
        }
        for (text, want) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.1/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            let Err(NotNetwork::Loose(meant)) = Network::parse(text) else { panic!("{text}") };
            assert_eq!(meant.to_string(), want, "{text}");
        }
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/256",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "[::1]",
            "10.0.0.1:80",
            "localhost",
            " 10.0.0.0/8",
            "fe80::1%eth0",
        ] {
            assert!(matches!(Network::parse(text), Err(NotNetwork::Malformed(_))), "{text}");
        }
    }

    /// A mask against a comparison bit by bit.
    #[test]
    fn a_network_holds_what_begins_with_its_bits() {
        let bit = |bytes: &[u8], index: u8| bytes[usize::from(index / 8)] >> (7 - index % 8) & 1;
        let mut state = 1;
        let mut byte = |of: &[u8]| of[next(&mut state, of.len())];
        for round in 0..2_000 {
            // few values, so that many begin alike; never the form in which IPv6 is IPv4
            let mut four = || [0; 4].map(|_: u8| byte(&[10, 11, 138]));
            let (a, b) = (four(), four());
            let mut sixteen = || [0; 16].map(|_: u8| byte(&[0x20, 0x21, 0xA0]));
            let (c, d) = (sixteen(), sixteen());
            for (one, two, one_bytes, two_bytes) in
                [(IpAddr::from(a), IpAddr::from(b), &a[..], &b[..]), (IpAddr::from(c), IpAddr::from(d), &c[..], &d[..])]
            {
                for prefix_bits in 0..=u8::try_from(one_bytes.len() * 8).unwrap() {
                    let network = Network { address: masked(one, prefix_bits), prefix_bits };
                    let want = (0..prefix_bits).all(|index| bit(one_bytes, index) == bit(two_bytes, index));
                    assert_eq!(network.contains(two), want, "round {round}: {network} and {two}");
                    assert_eq!(Network::parse(&network.to_string()), Ok(network), "round {round}");
                }
            }
        }
    }
}
