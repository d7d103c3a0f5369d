//! Fields that end here, fields that begin here, and heads as they are written.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ptth::wire::{
    Asked, BodyPlan, ForwardedFor, Forwarding, Framing, Persistence, parse_request, parse_response, put_request_head,
    put_response_head, set_forwarding, strip_hop_by_hop,
};

/// A map of `name: value` lines.
fn map(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.trim()).unwrap());
    }
    headers
}

fn lines(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}:{}", value.to_str().unwrap())).collect();
    lines.sort();
    lines.join("\n")
}

#[track_caller]
fn check_strip(before: &str, after: &str) {
    let mut headers = map(before);
    for _ in 0..2 {
        strip_hop_by_hop(&mut headers);
        assert_eq!(lines(&headers), after, "{before:?}");
    }
}

#[test]
fn hop_by_hop_fields_end_here() {
    check_strip("", "");
    check_strip("a:b", "a:b");
    check_strip("connection:close", "");
    check_strip("connection:keep-alive\nkeep-alive:timeout=5\na:b", "a:b");
    check_strip("keep-alive:timeout=5", "");
    check_strip("proxy-connection:keep-alive", "");
    check_strip("transfer-encoding:chunked", "");
    check_strip("connection:upgrade\nupgrade:websocket\nsec-websocket-key:x", "sec-websocket-key:x");
    check_strip("upgrade:h2c", "");
    check_strip("connection:upgrade, http2-settings\nupgrade:h2c\nhttp2-settings:AA", "");
    check_strip("http2-settings:AA", "");
    // named by Connection
    check_strip("connection:x\nx:y\na:b", "a:b");
    check_strip("connection:close, X-Secret , ,y\nx-secret:1\nx-secret:2\ny:3\na:b", "a:b");
    check_strip("connection:x\nconnection:y\nx:1\ny:2\nz:3", "z:3");
    check_strip("connection:x", "");
    check_strip("connection:accept-language\naccept-language:de", "");
    check_strip("connection:X-Trace-Id\nX-trace-ID:1", "");
    // what Connection cannot remove
    check_strip("connection:host\nhost:a", "host:a");
    check_strip("connection:content-length\ncontent-length:5", "content-length:5");
    check_strip("connection:authorization, cookie\nauthorization:a\ncookie:b", "authorization:a\ncookie:b");
    check_strip("connection:Forwarded\nforwarded:for=a", "forwarded:for=a");
    check_strip("connection:X-Forwarded-For\nx-forwarded-for:a", "x-forwarded-for:a");
    check_strip("connection:x-forwarded-anything\nx-forwarded-anything:a", "x-forwarded-anything:a");
    check_strip("connection:x-request-id\nx-request-id:a", "x-request-id:a");
    check_strip("connection:x-real-ip,via,priority\nx-real-ip:a\nvia:b\npriority:c", "priority:c\nvia:b\nx-real-ip:a");
    check_strip("connection:content-type\ncontent-type:a", "content-type:a");
    check_strip("connection:sec-websocket-key\nsec-websocket-key:a", "sec-websocket-key:a");
    check_strip("connection:cache-control\ncache-control:no-store", "cache-control:no-store");
    check_strip("connection:set-cookie\nset-cookie:a", "set-cookie:a");
    check_strip("connection:if-match\nif-match:a", "if-match:a");
    check_strip("connection:proxy-status,server-timing\nproxy-status:a", "proxy-status:a");
    // TE
    check_strip("te:trailers", "te:trailers");
    check_strip("connection:te\nte:trailers", "te:trailers");
    check_strip("te:gzip, Trailers;q=0.5", "te:trailers");
    check_strip("te:gzip\nte:trailers", "te:trailers");
    check_strip("te:trailers ;q=1", "te:trailers");
    check_strip("te:gzip", "");
    check_strip("te:", "");
    check_strip("te:xtrailers", "");
    // these two pass: they belong to whoever asked for them
    check_strip("proxy-authorization:a\nproxy-authenticate:b", "proxy-authenticate:b\nproxy-authorization:a");
    check_strip("trailer:x\nexpect:100-continue", "expect:100-continue\ntrailer:x");
}

#[track_caller]
fn check_forwarding(client: &str, host: &str, before: &str, after: &str) {
    let mut headers = map(before);
    let client: IpAddr = client.parse().unwrap();
    let incremental = ptth::wire::priority::client_priority(&headers).incremental;
    set_forwarding(
        &mut headers,
        &Forwarding {
            peer: &ForwardedFor::new(client),
            told: None,
            proto: "https",
            host,
            urgency: 2,
            incremental,
            version: http::Version::HTTP_11,
            id: &HeaderValue::from_static("7"),
        },
    );
    assert_eq!(lines(&headers), after, "{before:?}");
}

#[test]
fn a_worker_sees_what_the_edge_saw_and_nothing_that_a_client_claims() {
    let plain = "forwarded:for=192.0.2.1;proto=https;host=a.example\npriority:u=2\nvia:1.1 ptth\n\
                 x-forwarded-for:192.0.2.1\nx-forwarded-host:a.example\nx-forwarded-proto:https\nx-request-id:7";
    check_forwarding("192.0.2.1", "a.example", "", plain);
    for claim in [
        "forwarded:for=evil",
        "forwarded:for=evil\nforwarded:for=worse",
        "x-forwarded-for:10.0.0.1\nx-forwarded-for:10.0.0.2",
        "x-forwarded-proto:http\nx-forwarded-host:evil",
        "x-forwarded-port:1\nx-forwarded-prefix:/evil\nx-forwarded-server:evil",
        "x-real-ip:10.0.0.1",
        "x_forwarded_for:10.0.0.1",
        "x-forwarded_host:evil",
        "x_real_ip:10.0.0.1",
        "x-request-id:evil\nx-request-id:worse",
        "x_request-id:evil",
    ] {
        check_forwarding("192.0.2.1", "a.example", claim, plain);
        check_forwarding(
            "192.0.2.1",
            "a.example",
            &format!("{claim}\nz:1\nx-real:2"),
            &format!("{}\nz:1", plain.replace("x-request-id", "x-real:2\nx-request-id")),
        );
    }
    check_forwarding("::ffff:192.0.2.1", "a.example", "", plain);
    check_forwarding(
        "2001:db8::1",
        "[::1]:8443",
        "",
        "forwarded:for=\"[2001:db8::1]\";proto=https;host=\"[::1]:8443\"\npriority:u=2\nvia:1.1 ptth\n\
         x-forwarded-for:2001:db8::1\nx-forwarded-host:[::1]:8443\nx-forwarded-proto:https\nx-request-id:7",
    );
    check_forwarding("192.0.2.1", "a.example", "priority:u=0", plain);
    check_forwarding("192.0.2.1", "a.example", "priority:u=0, i", &plain.replace("u=2", "u=2, i"));
    check_forwarding("192.0.2.1", "a.example", "priority:i\npriority:u=9", &plain.replace("u=2", "u=2, i"));
    check_forwarding("192.0.2.1", "a.example", "priority:i,,", plain);
    check_forwarding("192.0.2.1", "a.example", "via:1.0 fred", &plain.replace("via:", "via:1.0 fred\nvia:"));
}

#[test]
fn no_host_can_break_out_of_forwarded() {
    let mut headers = HeaderMap::new();
    let client = IpAddr::from([192, 0, 2, 1]);
    let mut forwarding = Forwarding {
        peer: &ForwardedFor::new(client),
        told: None,
        proto: "http",
        host: "a\";for=\"b\\",
        urgency: 3,
        incremental: false,
        version: http::Version::HTTP_10,
        id: &HeaderValue::from_static("7"),
    };
    set_forwarding(&mut headers, &forwarding);
    assert_eq!(headers["forwarded"], "for=192.0.2.1;proto=http;host=\"a\\\";for=\\\"b\\\\\"");
    assert_eq!(headers["via"], "1.0 ptth");
    forwarding.host = "a\r\nb: c";
    let mut headers = map("x-forwarded-host:evil\nforwarded:evil");
    set_forwarding(&mut headers, &forwarding);
    assert!(!headers.contains_key("x-forwarded-host") && !headers.contains_key("forwarded"));
}

/// Written with this framing and persistence, and read again.
#[track_caller]
fn check_request(fields: &str, framing: Framing, persistence: Persistence, want: &str) {
    let mut out = b"before".to_vec();
    put_request_head(&mut out, &Method::POST, "/a?b", &map(fields), framing, persistence);
    let text = std::str::from_utf8(&out).unwrap();
    assert_eq!(text, format!("beforePOST /a?b HTTP/1.1\r\n{}\r\n\r\n", want.replace('\n', "\r\n")));
    let body = match framing {
        Framing::None | Framing::Described => BodyPlan::Empty,
        Framing::ContentLength(bytes) => BodyPlan::Exact { bytes },
        Framing::Chunked => BodyPlan::Chunked,
    };
    let head = parse_request(Bytes::copy_from_slice(&out[6..])).unwrap();
    assert_eq!(head.body, body);
    assert_eq!(head.keep_alive, persistence != Persistence::Close);
    assert_eq!(head.upgrade.is_some(), matches!(persistence, Persistence::Upgrade(_)));
}

#[test]
fn a_request_is_framed_by_the_edge_alone() {
    use Framing::{Chunked, ContentLength, None};
    let websocket = HeaderValue::from_static("websocket");
    check_request("host:h", None, Persistence::Default, "host: h");
    check_request("x:1\nhost:h\nx:2", None, Persistence::Default, "host: h\nx: 1\nx: 2");
    check_request("host:h\ncontent-length:9", ContentLength(0), Persistence::Default, "host: h\ncontent-length: 0");
    check_request(
        "host:h",
        ContentLength(i64::MAX as u64),
        Persistence::Default,
        "host: h\ncontent-length: 9223372036854775807",
    );
    check_request("host:h\ncontent-length:9", Chunked, Persistence::Default, "host: h\ntransfer-encoding: chunked");
    check_request("host:h\ntransfer-encoding:gzip\nconnection:x", None, Persistence::Default, "host: h");
    check_request("host:h", None, Persistence::Close, "host: h\nconnection: close");
    check_request("host:h", None, Persistence::KeepAlive, "host: h\nconnection: keep-alive");
    check_request("host:h\nte:trailers", None, Persistence::Default, "host: h\nte: trailers\nconnection: te");
    check_request("host:h\nte:trailers", None, Persistence::Close, "host: h\nte: trailers\nconnection: close, te");
    check_request(
        "host:h\nupgrade:x",
        None,
        Persistence::Upgrade(&websocket),
        "host: h\nupgrade: websocket\nconnection: upgrade",
    );
}

#[track_caller]
fn check_response(status: u16, fields: &str, framing: Framing, persistence: Persistence, want: &str) {
    let status = StatusCode::from_u16(status).unwrap();
    let mut out = Vec::new();
    put_response_head(&mut out, status, &map(fields), framing, persistence);
    assert_eq!(std::str::from_utf8(&out).unwrap(), format!("HTTP/1.1 {}\r\n\r\n", want.replace('\n', "\r\n")));
    let asked = if framing == Framing::Described { Asked::Head } else { Asked::Connect };
    assert_eq!(parse_response(Bytes::from(out), asked).unwrap().status, status);
}

#[test]
fn a_response_is_framed_by_the_edge_alone() {
    use Framing::{Chunked, ContentLength, Described, None};
    let websocket = HeaderValue::from_static("websocket");
    check_response(200, "", ContentLength(12), Persistence::Default, "200 OK\ncontent-length: 12");
    check_response(
        200,
        "content-length:9\nx:y",
        Chunked,
        Persistence::Default,
        "200 OK\nx: y\ntransfer-encoding: chunked",
    );
    check_response(200, "content-length:9", Described, Persistence::Default, "200 OK\ncontent-length: 9");
    check_response(200, "content-length:9", None, Persistence::Close, "200 OK\nconnection: close");
    check_response(
        200,
        "te:x",
        ContentLength(0),
        Persistence::KeepAlive,
        "200 OK\nte: x\ncontent-length: 0\nconnection: keep-alive",
    );
    check_response(299, "", ContentLength(0), Persistence::Default, "299 \ncontent-length: 0");
    check_response(304, "etag:x", Described, Persistence::Default, "304 Not Modified\netag: x");
    check_response(
        101,
        "connection:x\nupgrade:y",
        None,
        Persistence::Upgrade(&websocket),
        "101 Switching Protocols\nupgrade: websocket\nconnection: upgrade",
    );
}
