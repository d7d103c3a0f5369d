//! Counts the allocations of what a worker is told about who asked: one test, alone in its binary.

mod counting;

use std::net::IpAddr;

use bytes::Bytes;
use ptth::wire::{ForwardedFor, Forwarding, RequestIds, parse_request, set_forwarding, told};

/// A head as it comes, with these lines.
fn head(lines: &str) -> http::HeaderMap {
    let head = format!("GET / HTTP/1.1\r\nHost: app.example\r\nAccept: */*\r\n{lines}\r\n");
    parse_request(Bytes::from(head)).expect("a head").headers
}

#[test]
fn a_name_and_the_fields_of_forwarding_cost_what_they_are_said_to() {
    let peer = ForwardedFor::new(IpAddr::from([10, 0, 0, 1]));
    let mut ids = RequestIds::new([1, 2]);
    let mut allocations_of = |lines: &str, is_trusted: bool| {
        let mut headers = head(lines);
        let before = counting::allocations();
        let told = is_trusted.then(|| told(&headers, |address| address == IpAddr::from([10, 0, 0, 2])));
        let id = ids.next_id();
        let forwarding = Forwarding {
            peer: &peer,
            told: told.as_ref(),
            proto: "http",
            host: "app.example",
            urgency: 3,
            incremental: false,
            version: http::Version::HTTP_11,
            id: &id,
        };
        set_forwarding(&mut headers, &forwarding);
        let answers = id.clone(); // the client's answer has it, too
        let count = counting::allocations() - before;
        assert_eq!(headers["x-request-id"], answers);
        count
    };
    allocations_of("", false); // the first of a connection makes what the others use
    let trace = "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\n";
    for lines in ["", trace, "X-Request-Id: a-clients-own\r\n"] {
        let counts: Vec<u64> = (0..160).map(|_| allocations_of(lines, false)).collect();
        assert_eq!(counts.iter().sum::<u64>(), 20, "two for every sixteen names: {lines:?} {counts:?}");
        assert!(counts.iter().all(|count| *count <= 2), "{counts:?}");
    }
    for (lines, want) in [
        ("", 0),
        ("X-Forwarded-For: 192.0.2.7\r\n", 4),
        ("X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: app.example\r\n", 4),
        ("Forwarded: for=\"[2001:db8::7]:4711\", for=10.0.0.2\r\nX-Forwarded-For: 2001:db8::7, 10.0.0.2\r\n", 4),
    ] {
        for _ in 0..160 {
            let count = allocations_of(lines, true);
            assert!(count <= want + 2, "{count} allocations for {lines:?}");
        }
        let sum: u64 = (0..160).map(|_| allocations_of(lines, true)).sum();
        assert_eq!(sum, 160 * want + 20, "for 160 of {lines:?}");
    }
}
