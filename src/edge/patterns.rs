//! How two origin patterns relate: do they share an origin, does one hold all of the other. Requests never enter.

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

/// As [`includes`], with schemes and ports left out: whether `a` covers every host that `b` covers.
#[must_use]
pub fn includes_hosts(a: &OriginPattern, b: &OriginPattern) -> bool {
    let hosts = |pattern: &OriginPattern| match pattern {
        Origin(origin) => Host(origin.host.clone()),
        other => other.clone(),
    };
    includes(&hosts(a), &hosts(b))
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
}
