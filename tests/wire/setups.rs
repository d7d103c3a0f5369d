//! Setups of links: what a worker sends, and what an edge answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ptth::fault::Fault;
use ptth::wire::setup::{
    basic_authorization, is_stream_setup, parse_setup_answer, put_old_setup_accept, put_setup_accept, put_setup_request,
};
use ptth::wire::{
    About, ChannelVersion, Dialect, HeadScan, OldSetup, Origin, Presented, RequestHead, Scope, Setup, SetupAnswer,
    inverted, is_old_setup, is_setup, parse_old_setup, parse_request, parse_setup, parse_stream_setup,
};

fn head(input: &[u8]) -> RequestHead {
    let mut scan = HeadScan::request();
    for cut in 0..input.len() {
        assert_eq!(scan.scan(&input[..cut]), Ok(None), "cut {cut}");
    }
    assert_eq!(scan.scan(input), Ok(Some(0..input.len())));
    parse_request(Bytes::copy_from_slice(input)).unwrap()
}

fn words(setup: &Setup) -> String {
    let mut words = setup.dialect.token().to_owned();
    match &setup.scope {
        None => words += " own",
        Some(Scope::Origins(origins)) => origins.iter().for_each(|origin| words += &format!(" {origin}")),
        Some(Scope::Pool(name)) => words += &format!(" pool={name}"),
    }
    match &setup.presented {
        None => {}
        Some(Presented::Basic { id, secret }) => words += &format!(" {id}:{}", String::from_utf8_lossy(secret)),
        Some(Presented::Bearer(token)) => words += &format!(" bearer={}", String::from_utf8_lossy(token)),
    }
    for version in &setup.versions {
        words += &format!(" {version:?}");
    }
    words
}

/// `want` is a status for a fault, `no` for what is no setup, else the setup in words.
#[track_caller]
fn check(input: &str, want: &str) {
    let head = head(input.as_bytes());
    let got = if !is_setup(&head) {
        "no".to_owned()
    } else {
        parse_setup(&head).map_or_else(|fault| fault.status().to_string(), |setup| words(&setup))
    };
    assert_eq!(got, want, "{input:?} gave {:?}", parse_setup(&head));
}

/// A target after `/.well-known/ptth/`, and the scope in words.
const TARGETS: &[(&str, &str)] = &[
    ("https%3A%2F%2Fapp.example.com/", "https://app.example.com"),
    ("https%3a%2f%2fapp.example.com/", "https://app.example.com"),
    ("https%3A%2F%2FAPP.example.com%3A443/", "https://app.example.com"),
    ("https%3A%2F%2Fapp.example.com%3A8443/", "https://app.example.com:8443"),
    ("https:%2F%2Fapp.example.com/", "https://app.example.com"),
    ("http%3A%2F%2F%5B%3A%3A1%5D%3A3000/", "http://[::1]:3000"),
    ("https%3A%2F%2Fa,http%3A%2F%2Fb%3A81/", "https://a http://b:81"),
    ("https%3A%2F%2Fa%2Chttp%3A%2F%2Fb/", "https://a http://b"),
    ("https%3A%2F%2Fa,https%3A%2F%2Fa%3A443/", "https://a"),
    ("%68ttps%3A%2F%2Fa/", "https://a"),
    ("https%3A%2F%2Fa", "400"),
    ("https%3A%2F%2Fa//", "400"),
    ("https%3A%2F%2Fa/x", "400"),
    ("https%3A%2F%2Fa%2F/", "400"),
    ("https%3A%2F%2Fa,/", "400"),
    (",https%3A%2F%2Fa/", "400"),
    ("https%3A%2F%2Fa,,https%3A%2F%2Fb/", "400"),
    ("https%3A%2F%2Fa,%20https%3A%2F%2Fb/", "400"),
    ("https%3A%2F%2Fa,null/", "400"),
    ("null/", "400"),
    ("", "400"),
    ("/", "400"),
    (",/", "400"),
    ("*/", "400"),
    ("https%3A%2F%2F*/", "400"),
    ("https%3A%2F%2F*.example.com/", "400"),
    ("https%3A%2F%2Fu%40a/", "400"),
    ("https%3A%2F%2Fa%3A/", "400"),
    ("https%3A%2F%2Fa%3A0/", "400"),
    ("https%3A%2F%2Fa%3A65536/", "400"),
    ("https%3A%2F%2F/", "400"),
    ("https://a/", "400"),
    ("https%3A%2F%2Fa%/", "400"),
    ("https%3A%2F%2Fa%4/", "400"),
    ("https%3A%2F%2Fa%zz/", "400"),
    ("https%3A%2F%2Fa%00/", "400"),
    ("https%3A%2F%2F%C3%A9/", "400"),
    ("https%3A%2F%2F%FF/", "400"),
    ("https%253A%252F%252Fa/", "400"),
    ("app.example.com/", "400"),
    ("https%3A%2F%2Fa/?x", "400"),
    ("https%3A%2F%2Fa/?", "400"),
    ("pool/app", "pool=app"),
    ("pool/app/", "pool=app"),
    ("pool/a%20b", "pool=a b"),
    ("pool/%C3%A9", "pool=\u{e9}"),
    ("pool", "400"),
    ("pool/", "400"),
    ("pool//", "400"),
    ("pool/a/b", "400"),
    ("pool/a//", "400"),
    ("pool/a%2Fb", "400"),
    ("pool/a%0Ab", "400"),
    ("pool/%FF", "400"),
    ("pool/%", "400"),
    ("Pool/app", "400"),
];

#[test]
fn a_target_names_origins_or_a_pool() {
    for (target, want) in TARGETS {
        let want = if *want == "400" { "400".to_owned() } else { format!("ptth {want} H2") };
        let start = "HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n";
        check(&format!("GET /.well-known/ptth/{target} {start}"), &want);
    }
}

#[test]
fn a_target_means_the_same_over_http2() {
    let headers = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    };
    for (target, want) in TARGETS {
        let path = format!("/.well-known/ptth/{target}");
        let setup = parse_stream_setup(&headers(&[("alpn", "h2")]), &path);
        let got = setup.map_or_else(|fault| fault.status().to_string(), |setup| words(&setup));
        assert_eq!(got, if *want == "400" { "400".to_owned() } else { format!("ptth {want} H2") }, "{target}");
    }
    for (path, fields, want) in [
        ("/any?thing", &[("alpn", "h2, http%2F1.1")][..], "ptth own H2 H1"),
        ("/", &[("alpn", "h2"), ("authorization", "Bearer abc")], "ptth own bearer=abc H2"),
        ("/", &[], "400"),
        ("/", &[("alpn", "http/1.1")], "400"),
        ("/", &[("alpn", "h2"), ("content-length", "0")], "400"),
        ("/", &[("alpn", "h2"), ("authorization", "Basic !")], "400"),
    ] {
        let setup = parse_stream_setup(&headers(fields), path);
        assert_eq!(setup.map_or_else(|fault| fault.status().to_string(), |setup| words(&setup)), want, "{fields:?}");
    }
    for (protocol, want) in [("ptth", true), ("PTTH", true), ("reverse", false), ("ptth/1.0", false), ("", false)] {
        assert_eq!(is_stream_setup(protocol), want, "{protocol}");
    }
}

/// Fields after those of a good setup, its own `ALPN` left out.
const FIELDS: &[(&str, &str)] = &[
    // ---- ALPN ----
    ("ALPN: h2, http%2F1.1", "ptth https://a H2 H1"),
    ("ALPN: http%2f1.1,h2", "ptth https://a H1 H2"),
    ("ALPN: h2\r\nAlpn: http%2F1.1", "ptth https://a H2 H1"),
    ("ALPN: h3qx, h2", "ptth https://a H2"),
    ("ALPN: h2, h2, %68%32", "ptth https://a H2"),
    ("ALPN: , h2,", "ptth https://a H2"),
    ("ALPN: h3qx", "ptth https://a"),
    ("ALPN: H2", "ptth https://a"),
    ("ALPN: %FF", "ptth https://a"),
    ("X: y", "400"),
    ("ALPN:", "400"),
    ("ALPN: ,", "400"),
    ("ALPN: http/1.1", "400"),
    ("ALPN: h2 http%2F1.1", "400"),
    ("ALPN: \"h2\"", "400"),
    ("ALPN: h2; q=1", "400"),
    ("ALPN: h2, %", "400"),
    ("ALPN: h2, %4", "400"),
    ("ALPN: h2, %gg", "400"),
    // ---- Authorization ----
    ("ALPN: h2\r\nAuthorization: Basic d2ViLTE6czNjcmV0", "ptth https://a web-1:s3cret H2"),
    ("ALPN: h2\r\nAuthorization: bASIC  d2ViLTE6czNjcmV0", "ptth https://a web-1:s3cret H2"),
    ("ALPN: h2\r\nAuthorization: Basic YTpiOmM=", "ptth https://a a:b:c H2"),
    ("ALPN: h2\r\nAuthorization: Basic Og==", "ptth https://a : H2"),
    ("ALPN: h2\r\nAuthorization: Bearer abc.DEF-_~+/=", "ptth https://a bearer=abc.DEF-_~+/= H2"),
    ("ALPN: h2\r\nAuthorization: Digest x", "ptth https://a H2"),
    ("ALPN: h2\r\nAuthorization:", "ptth https://a H2"),
    ("ALPN: h2\r\nAuthorization: Basic", "400"),
    ("ALPN: h2\r\nAuthorization: Basic d2ViLTE=", "400"),
    ("ALPN: h2\r\nAuthorization: Basic d2ViLTE6czNjcmV0=", "400"),
    ("ALPN: h2\r\nAuthorization: Basic d2Vi LTE6czNjcmV0", "400"),
    ("ALPN: h2\r\nAuthorization: Basic !", "400"),
    ("ALPN: h2\r\nAuthorization: Basic /zph", "400"),
    ("ALPN: h2\r\nAuthorization: Bearer", "400"),
    ("ALPN: h2\r\nAuthorization: Bearer a b", "400"),
    ("ALPN: h2\r\nAuthorization: Bearer a,b", "400"),
    ("ALPN: h2\r\nAuthorization: Bearer a\r\nAuthorization: Bearer a", "400"),
    // ---- a body ----
    ("ALPN: h2\r\nContent-Length: 0", "ptth https://a H2"),
    ("ALPN: h2\r\nContent-Length: 1", "400"),
    ("ALPN: h2\r\nTransfer-Encoding: chunked", "400"),
];

#[test]
fn the_fields_of_a_setup_are_read_strictly() {
    for (fields, want) in FIELDS {
        let start =
            "GET /.well-known/ptth/https%3A%2F%2Fa/ HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\nUpgrade: ptth";
        check(&format!("{start}\r\n{fields}\r\n\r\n"), want);
    }
}

/// Whole requests; `@` is the target of a good setup.
const REQUESTS: &[(&str, &str)] = &[
    ("GET @ HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: PTTH\r\nALPN: h2\r\n\r\n", "ptth https://a H2"),
    (
        "GET @ HTTP/1.1\r\nHost: e\r\nConnection: x, upgrade\r\nUpgrade: x, ptth\r\nALPN: h2\r\n\r\n",
        "ptth https://a H2",
    ),
    (
        "GET @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: reverse\r\nALPN: h2\r\n\r\n",
        "reverse https://a H2",
    ),
    (
        "GET @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: reverse, ptth\r\nALPN: h2\r\n\r\n",
        "reverse https://a H2",
    ),
    (
        "GET http://e@ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n",
        "ptth https://a H2",
    ),
    // 405, then 426, then 400
    ("POST @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n", "405"),
    ("POST @ HTTP/1.0\r\n\r\n", "405"),
    ("HEAD @ HTTP/1.1\r\nHost: e\r\n\r\n", "405"),
    ("GET @ HTTP/1.1\r\nHost: e\r\n\r\n", "426"),
    ("GET @ HTTP/1.1\r\nHost: e\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n", "426"),
    ("GET @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nALPN: h2\r\n\r\n", "426"),
    ("GET @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "426"),
    ("GET @ HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: PTTH/1.0\r\nALPN: h2\r\n\r\n", "426"),
    ("GET @ HTTP/1.1\r\nHost: e\r\nConnection: close\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n", "426"),
    ("GET @ HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n", "426"),
    ("GET @? HTTP/1.1\r\nHost: e\r\n\r\n", "426"),
    // a token without the target is a setup of an earlier draft; a target without the token lacks it
    ("GET / HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n", "ptth own H2"),
    (
        "GET /tunnel?a=b HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: Reverse\r\nALPN: h2\r\n\r\n",
        "reverse own H2",
    ),
    ("GET /tunnel HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: reverse\r\n\r\n", "400"),
    ("POST /tunnel HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: reverse\r\nALPN: h2\r\n\r\n", "405"),
    (
        "GET /tunnel HTTP/1.1\r\nHost: e\r\nContent-Length: 1\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n",
        "400",
    ),
    ("GET / HTTP/1.1\r\nHost: e\r\nUpgrade: ptth\r\n\r\n", "426"),
    // no setups at all
    ("GET / HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "no"),
    ("POST /id HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: PTTH/1.0\r\n\r\n", "no"),
    ("GET /.well-known/ptth HTTP/1.1\r\nHost: e\r\n\r\n", "426"),
    ("GET /.well-known/ptthx/ HTTP/1.1\r\nHost: e\r\n\r\n", "no"),
    ("GET /?/.well-known/ptth/ HTTP/1.1\r\nHost: e\r\n\r\n", "no"),
    ("OPTIONS * HTTP/1.1\r\nHost: e\r\n\r\n", "no"),
];

#[test]
fn what_is_checked_first_is_answered_first() {
    for (input, want) in REQUESTS {
        check(&input.replace('@', "/.well-known/ptth/https%3A%2F%2Fa/"), want);
    }
}

/// Setups from before the drafts, `no` where there is none, and the id and what was presented.
#[test]
fn a_setup_from_before_the_drafts_is_read_as_strictly() {
    let upgrade = "Connection: upgrade\r\nUpgrade: PTTH/1.0\r\n";
    for (line, fields, want) in [
        ("POST /web-1 HTTP/1.1", upgrade, "web-1"),
        ("POST /web%2D1 HTTP/1.1", upgrade, "web-1"),
        ("POST /web-1 HTTP/1.1", "Connection: x, Upgrade\r\nUpgrade: x, ptth/1.0\r\nContent-Length: 0\r\n", "web-1"),
        (
            "POST /web-1 HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: PTTH/1.0\r\nAuthorization: Basic d2ViLTE6czNjcmV0\r\n",
            "web-1 web-1:s3cret",
        ),
        ("POST / HTTP/1.1", upgrade, "400"),
        ("POST /a/b HTTP/1.1", upgrade, "400"),
        ("POST /a%2Fb HTTP/1.1", upgrade, "400"),
        ("POST /a/ HTTP/1.1", upgrade, "400"),
        ("POST /a?b HTTP/1.1", upgrade, "400"),
        ("POST /a%0A HTTP/1.1", upgrade, "400"),
        ("POST /a% HTTP/1.1", upgrade, "400"),
        ("POST /a%FF HTTP/1.1", upgrade, "400"),
        ("POST /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: PTTH/1.0\r\nContent-Length: 1\r\n", "400"),
        ("POST /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: PTTH/1.0\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("POST /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: PTTH/1.0\r\nAuthorization: Basic !\r\n", "400"),
        ("POST /a HTTP/1.1", "Upgrade: PTTH/1.0\r\n", "426"),
        ("POST /a HTTP/1.0", upgrade, "426"),
        ("GET /a HTTP/1.1", upgrade, "no"),
        ("PUT /a HTTP/1.1", upgrade, "no"),
        ("POST /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: PTTH/1.1\r\n", "no"),
        ("POST /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: ptth\r\n", "no"),
        ("POST /a HTTP/1.1", "", "no"),
    ] {
        let head = head(format!("{line}\r\nHost: e\r\n{fields}\r\n").as_bytes());
        let got = match (is_old_setup(&head), parse_old_setup(&head)) {
            (false, _) => "no".to_owned(),
            (true, Err(fault)) => fault.status().to_string(),
            (true, Ok(OldSetup { id, presented: None })) => id,
            (true, Ok(OldSetup { id, presented: Some(Presented::Basic { id: own, secret }) })) => {
                format!("{id} {own}:{}", String::from_utf8_lossy(&secret))
            }
            (true, Ok(other)) => panic!("{other:?}"),
        };
        assert_eq!(got, want, "{line} {fields}");
    }
    let mut out = Vec::new();
    put_old_setup_accept(&mut out);
    assert_eq!(out, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: PTTH/1.0\r\n\r\n");
}

#[test]
fn each_id_of_inverted_http_is_its_version_and_nothing_near_it_is_any() {
    use ChannelVersion::{H1, H2};
    for (id, want) in [
        (&b"rh1"[..], Some(H1)),
        (b"rh2", Some(H2)),
        (b"ph1", Some(H1)),
        (b"ph2", Some(H2)),
        (b"\xc6\x96\xc9\xa5", Some(H1)),
        (b"\xd5\x87\xc9\xa5", Some(H2)),
        (b"h2-reverse", Some(H2)),
        (b"h2", None),
        (b"http/1.1", None),
        (b"PH2", None),
        (b"ph3", None),
        (b"ph", None),
        (b"", None),
        (b"\xc6\x96\xc9", None),
    ] {
        assert_eq!(inverted(id), want, "{id:?}");
    }
}

#[test]
fn a_secret_is_never_printed() {
    let basic = Presented::Basic { id: "web-1".to_owned(), secret: b"s3cret".to_vec() };
    let bearer = Presented::Bearer(b"s3cret".to_vec());
    let printed = format!("{basic:?} {bearer:?} {basic:#?}");
    assert!(printed.contains("web-1"));
    assert!(!printed.contains("s3cret") && !printed.contains("115"), "{printed}");
}

#[test]
fn an_edge_reads_what_a_worker_writes() {
    use ChannelVersion::{H1, H2};
    let origins = |texts: &[&str]| Scope::Origins(texts.iter().map(|text| Origin::parse(text).unwrap()).collect());
    let scopes = [
        origins(&["https://app.example.com"]),
        origins(&["http://[::1]:3000", "https://a-b_c.example:8443"]),
        Scope::Pool("app".to_owned()),
        Scope::Pool("a b/\u{e9}%,".replace('/', ":")),
    ];
    for scope in scopes {
        for dialect in [Dialect::Ptth, Dialect::Reverse] {
            for versions in [vec![H2], vec![H2, H1], vec![H1, H2]] {
                let mut out = Vec::new();
                let authorization = basic_authorization("web-1", "s3:cret");
                put_setup_request(
                    &mut out,
                    "edge.example:8443",
                    &scope,
                    Some(&authorization),
                    &About::default(),
                    &versions,
                    dialect,
                );
                let presented = Some(Presented::Basic { id: "web-1".to_owned(), secret: b"s3:cret".to_vec() });
                let want = Setup { dialect, scope: Some(scope.clone()), presented, versions };
                let head = head(&out);
                assert_eq!(parse_setup(&head), Ok(want));
                assert_eq!(head.authority.unwrap().to_string(), "edge.example:8443");
            }
        }
    }
    let mut out = Vec::new();
    put_setup_request(
        &mut out,
        "edge",
        &origins(&["https://app.example.com"]),
        None,
        &About::default(),
        &[H2, H1],
        Dialect::Ptth,
    );
    let want = "GET /.well-known/ptth/https%3A%2F%2Fapp.example.com/ HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\n\
                Upgrade: ptth\r\nALPN: h2, http%2F1.1\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

#[test]
fn a_worker_reads_what_an_edge_answers() {
    for dialect in [Dialect::Ptth, Dialect::Reverse] {
        for version in [ChannelVersion::H2, ChannelVersion::H1] {
            let mut out = Vec::new();
            put_setup_accept(&mut out, dialect, version);
            assert_eq!(HeadScan::response().scan(&out), Ok(Some(0..out.len())));
            assert_eq!(parse_setup_answer(Bytes::from(out)), Ok(SetupAnswer::Accepted(version)));
        }
    }
    let mut out = Vec::new();
    put_setup_accept(&mut out, Dialect::Ptth, ChannelVersion::H2);
    let want = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

/// `want` is the chosen version, `refused` with what came with it, or `fault`.
#[track_caller]
fn check_answer(input: &'static str, want: &str) {
    let got = match parse_setup_answer(Bytes::from_static(input.as_bytes())) {
        Ok(SetupAnswer::Accepted(version)) => format!("{version:?}"),
        Ok(SetupAnswer::Refused { status, retry_after_s, reason }) => format!("{status} {retry_after_s:?} {reason}"),
        Err(Fault::SetupMalformed(_) | Fault::WorkerMalformed(_)) => "fault".to_owned(),
        Err(fault) => panic!("{fault:?}"),
    };
    assert_eq!(got, want, "{input:?}");
}

#[test]
fn an_answer_accepts_one_known_version_or_refuses() {
    check_answer("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: PTTH\r\nalpn: http%2f1.1\r\n\r\n", "H1");
    check_answer("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: reverse\r\nALPN: h2\r\n\r\n", "H2");
    for wrong in [
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2, http%2F1.1\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h3qx\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ptth\r\nSelected-ALPN: h2\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nALPN: h2\r\n\r\n",
        "HTTP/1.1 101 S\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nALPN: h2\r\n\r\n",
        "HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "nonsense\r\n\r\n",
        "",
    ] {
        check_answer(wrong, "fault");
    }
    check_answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "401 None Unauthorized");
    check_answer("HTTP/1.1 503 Busy \x09now\r\nRetry-After: 7\r\n\r\n", "503 Some(7) Busy now");
    check_answer("HTTP/1.1 429\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n", "429 None ");
    check_answer("HTTP/1.1 200 OK\r\n\r\n", "200 None OK");
}

#[test]
fn the_tables_are_long_enough() {
    assert!(TARGETS.len() + FIELDS.len() + REQUESTS.len() > 100);
}
