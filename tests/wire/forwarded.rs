//! What proxies in front tell about who asked, as far as they are trusted, and how it goes on.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ptth::limits::{FORWARDED_BYTES_MAX, FORWARDED_HOPS_MAX};
use ptth::wire::{ForwardedFor, Forwarding, Told, set_forwarding, told};

/// A map of `name: value` lines.
fn map(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), value);
    }
    headers
}

/// The test's proxies: 10.0.0.0/8 and fd00::/8.
fn trusts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xFD,
    }
}

#[track_caller]
fn check_client(lines: &[&str], want: &str) {
    let want = if want == "nobody" { None } else { Some(want.parse().unwrap()) };
    assert_eq!(told(&map(lines), trusts).client(), want, "{lines:?}");
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_trusted() {
    for (chain, want) in [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("192.0.2.7,10.0.0.1,10.0.0.2", "192.0.2.7"),
        ("2001:db8::7, fd00::1, 10.0.0.2", "2001:db8::7"),
        ("198.51.100.66, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("10.0.0.66, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
        // nobody but proxies: the leftmost
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("fd00::3", "fd00::3"),
        // forms
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("192.0.2.7:_port, 10.0.0.1:80", "192.0.2.7"),
        ("::ffff:192.0.2.7, ::ffff:10.0.0.1", "192.0.2.7"),
        (" ,, 192.0.2.7 ,\t10.0.0.1 , ", "192.0.2.7"),
        // somebody hides: who is known last
        ("unknown", "nobody"),
        ("192.0.2.7, unknown", "nobody"),
        ("192.0.2.7, unknown, 10.0.0.1", "10.0.0.1"),
        ("_hidden, 10.0.0.1", "10.0.0.1"),
        // garbage ends the chain where it stands, and on the left of the client it is nobody's business
        ("garbage", "nobody"),
        ("192.0.2.7, garbage", "nobody"),
        ("192.0.2.7, 10.0.0.256, 10.0.0.1", "10.0.0.1"),
        ("\"\\, garbage, \u{e9}, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("192.0.2.7:", "nobody"),
        ("192.0.2.7:123456", "nobody"),
        ("[2001:db8::7]4711", "nobody"),
        ("[192.0.2.7]", "nobody"),
        ("[2001:db8::7", "nobody"),
        ("fe80::1%eth0", "nobody"),
        ("192.0.2.7 10.0.0.1", "nobody"),
        ("_", "nobody"),
        ("", "nobody"),
        (",", "nobody"),
    ] {
        check_client(&[&format!("x-forwarded-for: {chain}")], want);
    }
    check_client(&["x-forwarded-for: 192.0.2.7", "x-forwarded-for: 10.0.0.1, 10.0.0.2"], "192.0.2.7");
    check_client(&["x-forwarded-for: 10.0.0.1", "x-forwarded-for: 192.0.2.7"], "192.0.2.7");
    check_client(&[], "nobody");
}

#[test]
fn forwarded_says_the_same_in_its_own_words() {
    for (chain, want) in [
        ("for=192.0.2.7", "192.0.2.7"),
        ("For=\"192.0.2.7\"", "192.0.2.7"),
        ("for=\"192.0.2.7:4711\"", "192.0.2.7"),
        ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=\"[2001:DB8::1]\"", "2001:db8::1"),
        ("for=\"2001:db8::1\"", "2001:db8::1"),
        ("for=\"\\1\\92.0.2\\.7\"", "192.0.2.7"),
        ("for=192.0.2.7, for=10.0.0.1", "192.0.2.7"),
        ("for=192.0.2.7;proto=http;by=203.0.113.43,for=10.0.0.1;secret=\"a, b\"", "192.0.2.7"),
        ("for=192.0.2.7;x=\"\\\", for=198.51.100.66\", for=10.0.0.1", "192.0.2.7"),
        ("proto=https;for=192.0.2.7", "192.0.2.7"),
        (";;for=192.0.2.7 ; proto=https;", "192.0.2.7"),
        ("for=198.51.100.66, for=192.0.2.7, for=\"[fd00::1]\"", "192.0.2.7"),
        ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3"),
        ("for=unknown", "nobody"),
        ("for=Unknown, for=10.0.0.1", "10.0.0.1"),
        ("for=_hidden", "nobody"),
        ("for=_SEVKISEK, for=10.0.0.1", "10.0.0.1"),
        ("for=192.0.2.7, proto=https", "nobody"),
        ("for=192.0.2.7, proto=https, for=10.0.0.1", "10.0.0.1"),
        // garbage
        ("192.0.2.7", "nobody"),
        ("for=", "nobody"),
        ("for", "nobody"),
        ("for =192.0.2.7", "nobody"),
        ("for= 192.0.2.7", "nobody"),
        ("=192.0.2.7", "nobody"),
        ("for=[2001:db8::1]", "nobody"),
        ("for=192.0.2.7:4711", "nobody"),
        ("for=192.0.2.7;for=192.0.2.8", "nobody"),
        ("for=192.0.2.7;proto=http;proto=https", "nobody"),
        ("for=192.0.2.7;host=a;host=a", "nobody"),
        ("for=192.0.2.7;host=\"a b\"", "nobody"),
        ("for=192.0.2.7 proto=http", "nobody"),
        ("for=\"192.0.2.7", "nobody"),
        ("for=192.0.2.7\"", "nobody"),
        ("for=\"192.0.2.7\"x", "nobody"),
        ("for=\"192.0.2.7\\", "nobody"),
        ("for=192.0.2.7, for=\"10.0.0.1", "nobody"),
        // a client's open quote swallows no proxy's element
        ("for=198.51.100.66;x=\", for=192.0.2.7, for=10.0.0.1", "192.0.2.7"),
        ("for=198.51.100.66;x=\"\\, for=192.0.2.7, for=10.0.0.1", "192.0.2.7"),
        ("\", for=\"192.0.2.7\"", "192.0.2.7"),
        ("for=\"\\\\\\\", for=192.0.2.7;host=\"a:80\", for=10.0.0.1", "192.0.2.7"),
    ] {
        check_client(&[&format!("forwarded: {chain}")], want);
    }
    check_client(&["forwarded: for=192.0.2.7", "forwarded: for=10.0.0.1"], "192.0.2.7");
    check_client(&["forwarded: for=192.0.2.7;x=\"", "forwarded: for=10.0.0.1"], "10.0.0.1");
}

#[test]
fn two_chains_that_contradict_each_other_are_both_not_believed() {
    for (forwarded, x_forwarded_for, want) in [
        ("for=192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("for=\"[2001:db8::7]:1\", for=10.0.0.1", "2001:db8::7, 10.0.0.1", "2001:db8::7"),
        ("for=192.0.2.7, for=10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7", "192.0.2.8", "nobody"),
        ("for=10.0.0.9", "192.0.2.7", "nobody"),
        ("for=192.0.2.7", "10.0.0.9", "nobody"),
        // one of them says nothing that could be contradicted
        ("for=unknown", "192.0.2.7", "192.0.2.7"),
        ("for=_hidden, for=10.0.0.1", "192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("for=192.0.2.7", "unknown", "192.0.2.7"),
        ("garbage", "192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7", "garbage", "192.0.2.7"),
        ("proto=https", "192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("for=unknown, for=10.0.0.1", "unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("for=unknown, for=10.0.0.2, for=10.0.0.1", "unknown, 10.0.0.1", "10.0.0.2"),
    ] {
        check_client(&[&format!("forwarded: {forwarded}"), &format!("x-forwarded-for: {x_forwarded_for}")], want);
    }
}

/// The scheme and the host, each `-` where nothing is known.
#[track_caller]
fn check_asked(lines: &[&str], want: &str) {
    let Told { scheme, host, .. } = told(&map(lines), trusts);
    let scheme = scheme.map_or("-", |scheme| scheme.as_str());
    let host = host.as_ref().map_or("-", |host| host.to_str().unwrap());
    assert_eq!(format!("{scheme} {host}"), want, "{lines:?}");
}

#[test]
fn how_and_whom_the_client_asked_stands_where_its_proxy_wrote() {
    for (lines, want) in [
        (&[][..], "- -"),
        (&["x-forwarded-proto: https"], "https -"),
        (&["x-forwarded-proto: HTTP"], "http -"),
        (&["x-forwarded-proto: wss"], "https -"),
        (&["x-forwarded-proto: ws"], "http -"),
        (&["x-forwarded-proto: https, https"], "https -"),
        (&["x-forwarded-proto: https", "x-forwarded-proto: HTTPS"], "https -"),
        (&["x-forwarded-proto: https, http"], "- -"),
        (&["x-forwarded-proto: https", "x-forwarded-proto: http"], "- -"),
        (&["x-forwarded-proto: ftp"], "- -"),
        (&["x-forwarded-proto: httpsx"], "- -"),
        (&["x-forwarded-proto: "], "- -"),
        (&["x-forwarded-host: a.example"], "- a.example"),
        (&["x-forwarded-host: A.example:8443"], "- A.example:8443"),
        (&["x-forwarded-host: [2001:db8::1]:8443"], "- [2001:db8::1]:8443"),
        (&["x-forwarded-host: a.example, A.example"], "- a.example"),
        (&["x-forwarded-host: a.example, b.example"], "- -"),
        (&["x-forwarded-host: a b"], "- -"),
        (&["x-forwarded-host: https://a.example"], "- -"),
        (&["x-forwarded-host: a.example/x"], "- -"),
        (&["x-forwarded-host: a.example:0"], "- -"),
        (&["x-forwarded-host: \u{e9}"], "- -"),
        (&["forwarded: for=192.0.2.7;proto=https;host=a.example"], "https a.example"),
        (&["forwarded: for=192.0.2.7;proto=HTTPS;host=\"a.example:8443\""], "https a.example:8443"),
        (&["forwarded: proto=https;host=a.example"], "https a.example"),
        (&["forwarded: for=unknown;proto=https"], "https -"),
        (&["forwarded: for=192.0.2.7;proto=https, for=10.0.0.1;proto=http;host=b.example"], "https -"),
        (&["forwarded: for=192.0.2.7;proto=https, for=unknown;proto=http"], "http -"),
        // what a client wrote counts for nothing
        (&["forwarded: proto=https;host=evil, for=192.0.2.7;proto=http"], "http -"),
        (&["forwarded: proto=https;host=evil, for=192.0.2.7"], "- -"),
        (&["forwarded: for=192.0.2.7;proto=https;x=\", for=10.0.0.1;proto=http"], "http -"),
        (&["forwarded: proto=ftp"], "- -"),
        // either may say it, but not two things
        (&["forwarded: for=192.0.2.7", "x-forwarded-proto: https", "x-forwarded-host: a.example"], "https a.example"),
        (&["forwarded: proto=https;host=a.example", "x-forwarded-proto: https"], "https a.example"),
        (&["forwarded: host=a.example", "x-forwarded-host: A.example"], "- a.example"),
        (&["forwarded: proto=https;host=a.example", "x-forwarded-proto: http"], "- a.example"),
        (&["forwarded: proto=https;host=a.example", "x-forwarded-host: b.example"], "https -"),
        (&["forwarded: for=192.0.2.7", "x-forwarded-for: 192.0.2.8", "x-forwarded-proto: https"], "https -"),
    ] {
        check_asked(lines, want);
    }
}

/// What a worker sees of a request that came from the proxy 10.0.0.1 over plain HTTP: all but `Via` and `Priority`.
fn passed_on(lines: &[&str]) -> Vec<String> {
    let mut headers = map(lines);
    let told = told(&headers, trusts);
    let forwarding = Forwarding {
        peer: &ForwardedFor::new(IpAddr::from([10, 0, 0, 1])),
        told: Some(&told),
        proto: "http",
        host: "in.example",
        urgency: 3,
        incremental: false,
        version: http::Version::HTTP_11,
        id: &HeaderValue::from_static("7"),
    };
    set_forwarding(&mut headers, &forwarding);
    assert_eq!(
        (headers.remove("x-request-id"), headers.remove("priority")),
        (Some("7".parse().unwrap()), Some("u=3".parse().unwrap()))
    );
    assert_eq!(headers.remove("via"), Some("1.1 ptth".parse().unwrap()));
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[track_caller]
fn check_passed_on(lines: &[&str], want: &[&str]) {
    assert_eq!(passed_on(lines), want, "{lines:?}");
}

#[test]
fn our_own_element_stands_behind_what_a_trusted_proxy_wrote() {
    check_passed_on(
        &[],
        &[
            "forwarded: for=10.0.0.1;proto=http;host=in.example",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: in.example",
            "x-forwarded-proto: http",
        ],
    );
    check_passed_on(
        &[
            "x-forwarded-for: 198.51.100.66, 192.0.2.7",
            "x-forwarded-proto: https",
            "x-forwarded-host: a.example",
            "x-forwarded-port: 443",
            "x-forwarded-prefix: /app",
            "x-forwarded-server: front",
        ],
        &[
            // the client is told in both chains, or a server that prefers one would see the proxy
            "forwarded: for=192.0.2.7, for=10.0.0.1;proto=https;host=a.example",
            "x-forwarded-for: 198.51.100.66, 192.0.2.7, 10.0.0.1",
            "x-forwarded-host: a.example",
            "x-forwarded-port: 443",
            "x-forwarded-prefix: /app",
            "x-forwarded-proto: https",
            "x-forwarded-server: front",
        ],
    );
    check_passed_on(
        &["forwarded: for=\"[2001:db8::1]:4711\";proto=https", "forwarded: for=10.0.0.2;by=10.0.0.1"],
        &[
            "forwarded: for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2;by=10.0.0.1, \
             for=10.0.0.1;proto=https;host=in.example",
            "x-forwarded-for: 2001:db8::1, 10.0.0.2, 10.0.0.1",
            "x-forwarded-host: in.example",
            "x-forwarded-proto: https",
        ],
    );
    check_passed_on(
        &["x-forwarded-for: 2001:db8::1, fd00::2", "x-forwarded-for: 10.0.0.3"],
        &[
            "forwarded: for=\"[2001:db8::1]\", for=\"[fd00::2]\", for=10.0.0.3, for=10.0.0.1;proto=http;host=in.example",
            "x-forwarded-for: 2001:db8::1, fd00::2, 10.0.0.3, 10.0.0.1",
            "x-forwarded-host: in.example",
            "x-forwarded-proto: http",
        ],
    );
    for hidden in ["unknown", "_hidden"] {
        check_passed_on(
            &[&format!("forwarded: for={hidden};proto=https")],
            &[
                &format!("forwarded: for={hidden};proto=https, for=10.0.0.1;proto=https;host=in.example"),
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: in.example",
                "x-forwarded-proto: https",
            ],
        );
    }
}

#[test]
fn nothing_goes_on_that_the_next_one_could_read_in_another_way() {
    // garbage on a client's side: what was believed goes on, and no byte of the rest
    check_passed_on(
        &["forwarded: for=198.51.100.66;x=\", for=192.0.2.7;proto=https", "x-forwarded-for: evil\", 192.0.2.7"],
        &[
            "forwarded: for=192.0.2.7, for=10.0.0.1;proto=https;host=in.example",
            "x-forwarded-for: 192.0.2.7, 10.0.0.1",
            "x-forwarded-host: in.example",
            "x-forwarded-proto: https",
        ],
    );
    let own = [
        "forwarded: for=10.0.0.1;proto=http;host=in.example",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-host: in.example",
        "x-forwarded-proto: http",
    ];
    check_passed_on(&["forwarded: garbage", "x-forwarded-for: garbage", "x-forwarded-proto: x"], &own);
    check_passed_on(&["forwarded: for=192.0.2.7", "x-forwarded-for: 192.0.2.8"], &own);
    check_passed_on(&["x_forwarded_for: 192.0.2.7", "x-forwarded_host: evil", "x_real_ip: 1", "x_request_id: 2"], &own);
    // a name that a proxy lets pass from clients says what the chains say
    let with = |line: &'static str| own.iter().copied().chain([line]).collect::<Vec<_>>();
    check_passed_on(&["x-real-ip: 198.51.100.66"], &with("x-real-ip: 10.0.0.1"));
    let lines = passed_on(&["x-real-ip: 198.51.100.66", "x-forwarded-for: 2001:db8::7"]);
    assert!(lines.contains(&"x-real-ip: 2001:db8::7".to_owned()), "{lines:?}");
}

#[test]
fn a_chain_grows_no_longer_than_its_bounds() {
    let value = |lines: &[String], name: &str| -> String {
        let name = format!("{name}: ");
        lines.iter().find_map(|line| line.strip_prefix(&name).map(str::to_owned)).unwrap()
    };
    let hop = |n: usize| format!("10.1.{}.{}", n / 256, n % 256);
    // as many trusted proxies as are looked at, with the client behind them, and one more
    for (hops, want) in [(FORWARDED_HOPS_MAX - 1, Some("192.0.2.7".to_owned())), (FORWARDED_HOPS_MAX, Some(hop(0)))] {
        let chain = ["192.0.2.7".to_owned()].into_iter().chain((0..hops).map(hop)).collect::<Vec<_>>().join(", ");
        let told = told(&map(&[&format!("x-forwarded-for: {chain}")]), trusts);
        assert_eq!(told.client().map(|client| client.to_string()), want, "{hops} hops");
    }
    // as long as may be kept, and longer
    let longest = format!("{}, 192.0.2.7", "1".repeat(FORWARDED_BYTES_MAX));
    for (cut, want) in [(11, true), (10, false)] {
        let text = format!("_{}", &longest[cut + 1..]);
        assert_eq!(text.len(), FORWARDED_BYTES_MAX + usize::from(!want));
        let lines = passed_on(&[&format!("x-forwarded-for: {text}")]);
        let kept = value(&lines, "x-forwarded-for");
        assert_eq!(kept, if want { format!("{text}, 10.0.0.1") } else { "192.0.2.7, 10.0.0.1".to_owned() });
        assert_eq!(value(&lines, "forwarded"), "for=192.0.2.7, for=10.0.0.1;proto=http;host=in.example");
    }
    let long = vec!["fd00:1111:2222:3333:4444:5555:6666:7777"; 100].join(", ");
    let lines = passed_on(&[&format!("x-forwarded-for: {long}")]);
    for name in ["forwarded", "x-forwarded-for"] {
        let value = value(&lines, name);
        assert!(value.len() < FORWARDED_BYTES_MAX + 100, "{} bytes", value.len());
        assert_eq!(value.matches("fd00:").count(), FORWARDED_HOPS_MAX);
    }
}

#[test]
fn an_edge_behind_an_edge_sees_the_same_client() {
    for lines in [
        &["x-forwarded-for: 192.0.2.7, 10.0.0.2", "x-forwarded-proto: https"][..],
        &["forwarded: for=\"[2001:db8::7]\";proto=https;host=a.example, for=_x1"],
        &["forwarded: for=_x1, for=10.0.0.3;proto=https"],
        &["forwarded: for=192.0.2.7;proto=https", "x-forwarded-for: 192.0.2.7"],
        &["forwarded: for=unknown", "x-forwarded-for: 192.0.2.7"],
        &["forwarded: for=192.0.2.7", "x-forwarded-for: 192.0.2.9"],
        &["forwarded: \"", "x-forwarded-for: garbage, 2001:db8::7"],
        &[],
    ] {
        let first = told(&map(lines), trusts);
        let passed = passed_on(lines);
        let passed: Vec<&str> = passed.iter().map(String::as_str).collect();
        let second = told(&map(&passed), trusts);
        let peer = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(second.client(), first.client().or(Some(peer)), "{lines:?} and {passed:?}");
        assert_eq!(first.scheme.or(second.scheme), second.scheme, "{lines:?} and {passed:?}");
    }
}
