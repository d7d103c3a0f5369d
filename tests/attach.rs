//! Every way to attach beside the setup over HTTP/1.1: earlier drafts, inverted HTTP, HAProxy's reverse HTTP, and devices from
//! before the drafts; and that each asks for the same rights. Foreign workers only, scripted or by other engines.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::io::{Read as _, Write as _};

use common::frames::{self, Frames, PREFACE};
use common::h2_client::{self, Begun, H2Client, Sent};
use common::h2_worker::H2Worker;
use common::tls::{Authority, Client, Files, Stream};
use common::{CORES, HOST, ORIGIN, Peer, SECRET, TestEdge, basic, edge, get, ok, secret_hash, setting, setups};

/// Another pool, and credentials with whole origins: `own` for the pool `app`, `both` for it and for the other one.
fn tables() -> String {
    format!(
        r#"
        [[pool]]
        name = "api"
        origins = ["https://api.example", "*.api.example"]
        [[credential]]
        id = "own"
        secret_hash = "{}"
        origins = ["http://app.example", "app.example"]
        legacy = true
        [[credential]]
        id = "both"
        secret_hash = "{}"
        origins = ["http://app.example", "https://api.example"]
        [[credential]]
        id = "patterns"
        secret_hash = "{}"
        origins = ["app.example"]
        legacy = true
        "#,
        secret_hash("own secret"),
        secret_hash("both secret"),
        secret_hash("patterns secret"),
    )
}

/// What is served over links now, by pool.
fn links(edge: &TestEdge) -> Vec<u64> {
    let status = edge.status();
    status["pools"].as_array().expect("a list").iter().map(|pool| pool["links"].as_u64().expect("a number")).collect()
}

#[track_caller]
fn serves_h1(edge: &TestEdge, link: &mut Peer) {
    let mut client = edge.sent(get("/asked"));
    assert_eq!(link.serve("answered").target(), "/asked");
    assert_eq!(client.response().text(), "answered");
}

// ---- earlier drafts ----

fn old_draft(target: &str, token: &str, authorization: &str, alpn: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: edge.example\r\nConnection: upgrade\r\nUpgrade: {token}\r\n\
         Authorization: {authorization}\r\nALPN: {alpn}\r\n\r\n"
    )
}

#[test]
fn a_target_of_an_earlier_draft_serves_the_credentials_own_origins() {
    let edge = setting().more(&tables()).start();
    for (token, field) in [("ptth", "alpn"), ("reverse", "selected-alpn")] {
        for target in ["/", "/tunnel", "/a/b?c=d"] {
            let (mut link, answer) = edge.set_up(&old_draft(target, token, &basic("own", "own secret"), "http%2F1.1"));
            assert_eq!((answer.status(), answer.field(field)), (101, Some("http%2F1.1")), "{answer:?}");
            edge.until_credits(1);
            assert_eq!(links(&edge), [1, 0]);
            serves_h1(&edge, &mut link);
            link.leave();
            edge.until_links(0);
        }
    }
    let (link, answer) = edge.set_up(&old_draft("/tunnel", "reverse", &basic("both", "both secret"), "h2"));
    assert_eq!((answer.status(), answer.field("selected-alpn")), (101, Some("h2")));
    edge.until(|status| status["pools"][1]["links"] == 1);
    assert_eq!(links(&edge), [1, 1]);
    drop(link);
    for (authorization, status) in [
        (basic("own", "wrong"), 401),
        (basic("patterns", "patterns secret"), 403),
        (basic("web-1", SECRET), 403),
        ("Digest x".to_owned(), 401),
    ] {
        assert_eq!(edge.set_up(&old_draft("/tunnel", "reverse", &authorization, "h2")).1.status(), status);
    }
}

// ---- before the drafts ----

fn before_the_drafts(target: &str, authorization: Option<&str>) -> String {
    let authorization = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    format!(
        "POST {target} HTTP/1.1\r\nHost: edge.example\r\nConnection: Upgrade\r\nUpgrade: PTTH/1.0\r\n\
         Content-Length: 0\r\n{authorization}\r\n"
    )
}

#[test]
fn a_device_from_before_the_drafts_serves_where_its_credential_allows_it() {
    let edge = setting().cores(2).more(&tables()).start();
    let own = basic("own", "own secret");
    let (mut link, answer) = edge.set_up(&before_the_drafts("/own", Some(&own)));
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("PTTH/1.0")), "{answer:?}");
    assert!(answer.connection("upgrade") && answer.field("alpn").is_none(), "{answer:?}");
    edge.until_credits(1);
    assert_eq!(links(&edge), [1, 0]);
    serves_h1(&edge, &mut link);
    serves_h1(&edge, &mut link);
    link.leave();
    edge.until_links(0);
    for (target, authorization, status) in [
        ("/own", None, 401),
        ("/own", Some(basic("own", "wrong")), 401),
        ("/own", Some(basic("own", "")), 401),
        ("/OWN", Some(own.clone()), 403),
        ("/both", Some(own.clone()), 403),
        ("/own", Some(basic("both", "both secret")), 403),
        ("/both", Some(basic("both", "both secret")), 403),
        ("/web-1", Some(basic("web-1", SECRET)), 403),
        ("/patterns", Some(basic("patterns", "patterns secret")), 403),
        ("/own/", Some(own.clone()), 400),
        ("/own,both", Some(own.clone()), 403),
        ("/own%2Cboth", Some(own.clone()), 403),
        ("/%6Fwn", Some(own.clone()), 101),
        ("/null", Some(own.clone()), 403),
        ("/", Some(own.clone()), 400),
    ] {
        let answer = edge.set_up(&before_the_drafts(target, authorization.as_deref())).1;
        assert_eq!(answer.status(), status, "{target} {answer:?}");
    }
}

#[test]
fn without_such_a_credential_it_is_a_request_like_any_other() {
    let edge = edge();
    let mut link = edge.h1_link();
    let mut client = edge.sent(before_the_drafts("/web-1", None).replace("edge.example", HOST));
    let request = link.serve("not a setup");
    assert_eq!((request.method(), request.target(), request.field("upgrade")), ("POST", "/web-1", Some("PTTH/1.0")));
    assert_eq!(client.response().text(), "not a setup");
}

// ---- inverted HTTP ----

/// An edge with TLS that knows the workers of one authority, a plain address for clients beside it, and credentials for
/// names in certificates.
struct Site {
    authority: Authority,
    workers: Authority,
    files: Files,
    edge: TestEdge,
}

/// `listen` is what the address with TLS accepts.
fn site(cores: u16, accept: &str, tables: &str) -> Site {
    let (authority, workers, files) = (Authority::new(), Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    files.write("workers.pem", &workers.pem());
    let entry = files.entry("edge").replace(" }", &format!(", worker_ca = \"{}\" }}", files.path("workers.pem")));
    let more = format!("[[listen]]\naddress = \"127.0.0.1:3\"\naccept = {accept}\ntls = {entry}\n{tables}");
    let edge = setting().cores(cores).more(&more).start();
    Site { authority, workers, files, edge }
}

/// `web-2` may serve the pool `app`, `web-3` has no whole origin, `old` is over.
const NAMED: &str = r#"
    [[credential]]
    id = "web-2"
    certificate_name = "web-2.internal"
    origins = ["http://app.example", "app.example"]
    links_max = 2
    [[credential]]
    id = "web-3"
    certificate_name = "web-3.internal"
    origins = ["app.example"]
    [[credential]]
    id = "old"
    certificate_name = "old.internal"
    origins = ["http://app.example"]
    expires = "2001-01-01T00:00:00Z"
"#;

const H2_IDS: [&[u8]; 4] = [b"rh2", b"ph2", b"\xd5\x87\xc9\xa5", b"h2-reverse"];
const H1_IDS: [&[u8]; 3] = [b"rh1", b"ph1", b"\xc6\x96\xc9\xa5"];

impl Site {
    fn named(&self, name: &str) -> Client {
        Client::with_certificate(&self.authority, self.workers.issue(&[name]))
    }

    fn nameless(&self) -> Client {
        Client::new(&self.authority)
    }

    /// A connection that offers these; whether its handshake ended, and with what.
    fn dial(&self, mut client: Client, ids: &[&[u8]]) -> Result<(Stream, Option<Vec<u8>>), std::io::Error> {
        client.config.alpn_protocols = ids.iter().map(|id| id.to_vec()).collect();
        let mut stream = client.dial_to(self.edge.addresses[1], HOST);
        stream.0.flush()?;
        let chosen = stream.0.conn.alpn_protocol().map(<[u8]>::to_vec);
        Ok((stream, chosen))
    }
}

/// What comes until the edge ends the connection.
fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = stream.0.read_to_end(&mut said); // an alert is an error here
    said
}

fn read_head(link: &mut Stream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        link.0.read_exact(&mut byte).expect("a head");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

fn read_exact(link: &mut Stream, bytes: usize) -> Vec<u8> {
    let mut seen = vec![0; bytes];
    link.0.read_exact(&mut seen).expect("so many bytes");
    seen
}

/// The next frame: its kind, flags, stream and payload.
fn read_frame(link: &mut Stream) -> (u8, u8, u32, Vec<u8>) {
    let head = read_exact(link, 9);
    let bytes = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    (head[3], head[4], stream, read_exact(link, bytes))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&bytes[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// SETTINGS with so many streams.
fn settings(streams: u32) -> Vec<u8> {
    frame(frames::SETTINGS, 0, 0, &[&[0, 3][..], &streams.to_be_bytes()].concat())
}

/// Serves one request over HTTP/2, as a server that has sent its SETTINGS; what comes first is read already.
#[track_caller]
fn serves_h2(edge: &TestEdge, link: &mut Stream) {
    edge.until(|status| common::credits(status) > 0);
    let mut client = edge.sent(get("/asked"));
    let stream = loop {
        match read_frame(link) {
            (frames::HEADERS, _, stream, _) => break stream,
            (frames::SETTINGS, 0, ..) => link.send(frame(frames::SETTINGS, frames::ACK, 0, &[])),
            (frames::PING, 0, _, payload) => link.send(frame(frames::PING, frames::ACK, 0, &payload)),
            _ => {}
        }
    };
    assert_eq!(stream % 2, 1, "the edge opens odd streams");
    link.send(frame(frames::HEADERS, frames::END_HEADERS, stream, &[0x88])); // :status 200
    link.send(frame(frames::DATA, frames::END_STREAM, stream, b"answered"));
    assert_eq!(client.response().text(), "answered");
}

#[test]
fn every_id_turns_the_roles_as_soon_as_the_handshake_ends() {
    for cores in CORES {
        let site = site(cores, "[\"clients\", \"workers\"]", NAMED);
        for id in H1_IDS {
            let (mut link, chosen) = site.dial(site.named("web-2.internal"), &[id]).unwrap();
            assert_eq!(chosen.as_deref(), Some(id));
            site.edge.until_credits(1);
            let mut client = site.edge.sent(get("/asked"));
            assert!(read_head(&mut link).starts_with("GET /asked HTTP/1.1\r\n"));
            link.send(ok("inverted"));
            assert_eq!(client.response().text(), "inverted");
            assert_eq!(site.edge.status()["links"][0]["worker"], "web-2");
            drop(link);
            site.edge.until_links(0);
        }
        for id in H2_IDS {
            let (mut link, chosen) = site.dial(site.named("web-2.internal"), &[id]).unwrap();
            assert_eq!(chosen.as_deref(), Some(id));
            assert_eq!(read_exact(&mut link, 24), PREFACE, "the edge is the client");
            link.send(settings(10));
            serves_h2(&site.edge, &mut link);
            drop(link);
            site.edge.until_links(0);
        }
    }
}

#[test]
fn of_several_ids_the_latest_for_http2_is_chosen_and_clients_have_their_own() {
    let site = site(1, "[\"clients\", \"workers\"]", NAMED);
    let mut all: Vec<&[u8]> = vec![b"http/1.1", b"h2"];
    all.extend(H1_IDS);
    all.extend(H2_IDS);
    let chosen = |ids: &[&[u8]]| site.dial(site.nameless(), ids).unwrap().1;
    assert_eq!(chosen(&all).as_deref(), Some(&b"\xd5\x87\xc9\xa5"[..]));
    assert_eq!(chosen(&[b"rh1", b"ph2"]).as_deref(), Some(&b"ph2"[..]));
    assert_eq!(chosen(&[b"http/1.1", b"h2"]).as_deref(), Some(&b"h2"[..]));
    assert_eq!(chosen(&[b"http/1.1"]).as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(chosen(&[]), None);
    // An ordinary client goes on without a certificate.
    let (mut client, _) = site.dial(site.nameless(), &[b"http/1.1"]).unwrap();
    let mut link = site.edge.h1_link();
    client.send(get("/"));
    link.serve("for everybody");
    assert_eq!(client.answer().1, b"for everybody");
}

#[test]
fn who_may_not_turn_a_connection_hears_nothing_on_it() {
    let site = site(1, "[\"clients\", \"workers\"]", NAMED);
    let _waiting = site.edge.sent(get("/what-nobody-may-see"));
    site.edge.until_queued(1);
    let strangers = Authority::new();
    for (client, why) in [
        (site.nameless(), "no certificate"),
        (site.named("web-9.internal"), "a name of nobody"),
        (site.named("*.internal"), "a wildcard"),
        (site.named("web-3.internal"), "no whole origin"),
        (site.named("old.internal"), "expired"),
        (site.named("web-1"), "an id is no name"),
    ] {
        for id in [&b"ph1"[..], b"ph2"] {
            let (mut link, _) = site.dial(client_of(&client), &[id]).unwrap();
            assert_eq!(rest(&mut link), b"", "{why}");
        }
    }
    let stranger = Client::with_certificate(&site.authority, strangers.issue(&["web-2.internal"]));
    if let Ok((mut link, _)) = site.dial(stranger, &[b"ph2"]) {
        assert_eq!(rest(&mut link), b"", "of another authority");
    }
    let refused = &site.edge.status()["counters"]["setups_refused"];
    assert_eq!((&refused["unauthorized"], &refused["forbidden"]), (&10.into(), &2.into()));
    // More than it may have.
    let held: Vec<_> = (0..2).map(|_| site.dial(site.named("web-2.internal"), &[b"ph2"]).unwrap()).collect();
    site.edge.until(|status| setups(status) == 2);
    let (mut third, _) = site.dial(site.named("web-2.internal"), &[b"ph2"]).unwrap();
    assert_eq!(rest(&mut third), b"");
    drop(held);
}

fn client_of(client: &Client) -> Client {
    Client { config: client.config.clone() }
}

#[test]
fn without_a_credential_for_it_inverted_http_is_not_offered() {
    let no_origin = "[[credential]]\nid = \"x\"\ncertificate_name = \"x.internal\"\norigins = [\"app.example\"]\n";
    // Nobody is known by a certificate; nobody who is could register anything.
    for tables in ["", no_origin] {
        let site = site(1, "[\"clients\", \"workers\"]", tables);
        for id in H1_IDS.iter().chain(&H2_IDS) {
            assert!(site.dial(site.named("x.internal"), &[id]).is_err(), "{id:?} is chosen");
        }
        let (_, chosen) = site.dial(site.nameless(), &[b"ph2", b"h2"]).unwrap();
        assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    }
}

#[test]
fn a_credential_that_is_withdrawn_ends_its_inverted_links() {
    let (authority, workers, files) = (Authority::new(), Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    files.write("workers.pem", &workers.pem());
    std::fs::create_dir(files.0.join("credentials")).unwrap();
    let text = "id = \"web-2\"\ncertificate_name = \"web-2.internal\"\norigins = [\"http://app.example\"]\n";
    files.write("credentials/web-2.toml", text);
    let entry = files.entry("edge").replace(" }", &format!(", worker_ca = \"{}\" }}", files.path("workers.pem")));
    let more = format!("[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]\ntls = {entry}\n");
    let line = format!("credentials_dir = \"{}\"", files.path("credentials"));
    let edge = setting().edge(&line).more(&more).start();
    let site = Site { authority, workers, files, edge };
    let (mut link, _) = site.dial(site.named("web-2.internal"), &[b"ph1"]).unwrap();
    site.edge.until_links(1);
    std::fs::remove_file(site.files.0.join("credentials/web-2.toml")).unwrap();
    site.edge.reload_files();
    assert_eq!(rest(&mut link), b"");
    site.edge.until_links(0);
    assert!(site.dial(site.named("web-2.internal"), &[b"ph1"]).is_err(), "nobody can turn a connection any more");
}

#[test]
fn a_link_whose_authority_is_gone_hears_goaway_and_finishes_what_it_has() {
    for cores in CORES {
        let site = site(cores, "[\"workers\"]", NAMED);
        let (mut link, _) = site.dial(site.named("web-2.internal"), &[b"ph2"]).unwrap();
        assert_eq!(read_exact(&mut link, 24), PREFACE);
        link.send(settings(10));
        site.edge.until_credits(10);
        let mut client = site.edge.sent(get("/running"));
        let next = |link: &mut Stream, kind: u8| loop {
            match read_frame(link) {
                (own, _, stream, payload) if own == kind => break (stream, payload),
                (frames::SETTINGS, 0, ..) => link.send(frame(frames::SETTINGS, frames::ACK, 0, &[])),
                _ => {} // PING, too: who waits for something that never comes is not kept up by it
            }
        };
        let (stream, _) = next(&mut link, frames::HEADERS);
        site.files.write("workers.pem", &Authority::new().pem());
        site.edge.reload_files();
        let (_, goaway) = next(&mut link, frames::GOAWAY);
        assert_eq!(goaway[4..8], frames::NO_ERROR.to_be_bytes());
        let _waits = site.edge.sent(get("/not-for-it"));
        site.edge.until_queued(1);
        link.send(frame(frames::HEADERS, frames::END_HEADERS, stream, &[0x88])); // :status 200
        link.send(frame(frames::DATA, frames::END_STREAM, stream, b"finished"));
        assert_eq!(client.response().text(), "finished");
        let said = rest(&mut link);
        let mut left = &said[..];
        while let [a, b, c, kind, ..] = *left {
            assert_ne!(kind, frames::HEADERS, "it gets something new");
            left = &left[9 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))..];
        }
        site.edge.until_links(0);
    }
}

// ---- HAProxy's reverse HTTP ----

fn device_tables(credential: &str) -> String {
    format!(
        "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"haproxy-workers\"]\ncredential = \"{credential}\"\n{}",
        tables()
    )
}

/// A device that has begun as a client of HTTP/2.
fn device(edge: &TestEdge, streams: u32) -> Frames {
    let mut peer = Peer::connect(edge.addresses[1]);
    peer.send([PREFACE, &settings(streams)].concat());
    Frames { peer }
}

#[test]
fn a_device_is_answered_like_a_client_and_then_asked() {
    for cores in CORES {
        let edge = setting().cores(cores).more(&device_tables("own")).start();
        let mut device = device(&edge, 10);
        // No preface: the first thing is SETTINGS, as from a server.
        let first = device.frame().expect("SETTINGS");
        assert_eq!((first.kind, first.flags, first.stream), (frames::SETTINGS, 0, 0), "{first:?}");
        device.settled();
        edge.until_credits(10);
        assert_eq!(links(&edge), [1, 0]);
        let status = edge.status();
        assert_eq!((&status["links"][0]["worker"], &status["links"][0]["protocol"]), (&"own".into(), &"h2".into()));
        let mut clients: Vec<Peer> = (0..3).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        for _ in 0..3 {
            let asked = device.next(|frame| frame.kind == frames::HEADERS);
            assert_eq!(asked.stream % 2, 1);
            device.ok(asked.stream, "from a device");
        }
        assert!(clients.iter_mut().all(|client| client.response().text() == "from a device"));
    }
}

#[test]
fn an_engine_that_is_a_device_serves_bodies_both_ways() {
    let edge = setting().cores(2).more(&device_tables("own")).start();
    let mut peer = Peer::connect(edge.addresses[1]);
    peer.send(PREFACE);
    // A server's engine waits for a preface that no edge sends.
    let (stream, _) = peer.into_parts();
    let worker = H2Worker::on_with(stream, PREFACE.to_vec(), h2::server::Builder::new().max_concurrent_streams(5));
    edge.until_credits(5);
    let body = common::pattern(600_000);
    let mut client = edge.sent(format!("POST /up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len()));
    let sent = body.clone();
    let writer = {
        let mut twin = client.twin();
        std::thread::spawn(move || twin.send(&sent))
    };
    let mut asked = worker.accept();
    assert!(asked.read_body().unwrap().0 == body, "the upload was changed");
    asked.ok("taken");
    assert_eq!(client.response().text(), "taken");
    writer.join().unwrap();
}

#[test]
fn a_device_that_says_something_else_or_nothing_is_no_link() {
    let edge = setting().more(&device_tables("own")).start();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"\0"] {
        let mut peer = Peer::connect(edge.addresses[1]);
        peer.send(bytes);
        assert_eq!(peer.end().0, b"");
    }
    // A setup has no place there either, and what a client asks is not served.
    let mut peer = Peer::connect(edge.addresses[1]);
    peer.send(common::setup(ORIGIN, "h2"));
    assert_eq!(peer.end().0, b"");
    let mut partly = Peer::connect(edge.addresses[1]);
    partly.send(&PREFACE[..20]);
    partly.is_quiet();
    assert_eq!(edge.status()["links"], serde_json::json!([]));
    // Cut anywhere, it is a preface all the same.
    for cut in [1, 3, 16, 23] {
        let mut peer = Peer::connect(edge.addresses[1]);
        peer.send(&PREFACE[..cut]);
        std::thread::sleep(std::time::Duration::from_millis(5));
        peer.send([&PREFACE[cut..], &settings(1)].concat());
        edge.until_links(1);
        drop(peer);
        edge.until_links(0);
    }
}

#[test]
fn devices_hold_as_many_links_as_their_credential_and_serve_what_it_names() {
    let edge = setting().more(&device_tables("both").replace("id = \"both\"", "id = \"both\"\nlinks_max = 2")).start();
    let held: Vec<Frames> = (0..2).map(|_| device(&edge, 1)).collect();
    edge.until(|status| status["pools"][1]["links"] == 2);
    assert_eq!(links(&edge), [2, 2]);
    assert_eq!(device(&edge, 1).peer.end().0, b"");
    assert_eq!(edge.status()["counters"]["setups_refused"]["limit"], 1);
    drop(held);
}

#[test]
fn a_device_with_tls_is_known_by_its_certificate() {
    let site = site(1, "[\"haproxy-workers\"]", NAMED);
    for ids in [&[][..], &[&b"h2"[..]]] {
        let (mut link, _) = site.dial(site.named("web-2.internal"), ids).unwrap();
        link.send([PREFACE, &settings(10)].concat());
        serves_h2(&site.edge, &mut link);
        assert_eq!(site.edge.status()["links"][0]["worker"], "web-2");
        drop(link);
        site.edge.until_links(0);
    }
    for client in
        [site.nameless(), site.named("web-3.internal"), site.named("old.internal"), site.named("web-9.internal")]
    {
        let (mut link, _) = site.dial(client, &[b"h2"]).unwrap();
        link.send([PREFACE, &settings(10)].concat());
        assert_eq!(rest(&mut link), b"");
    }
}

#[test]
fn a_listeners_credential_that_is_withdrawn_ends_its_devices() {
    let files = Files::new();
    let hash = secret_hash("unused");
    let text = format!("id = \"dev\"\nsecret_hash = \"{hash}\"\norigins = [\"http://app.example\"]\n");
    files.write("dev.toml", &text);
    let more = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"haproxy-workers\"]\ncredential = \"dev\"\n";
    let edge = setting().edge(&format!("credentials_dir = \"{}\"", files.0.display())).more(more).start();
    let mut first = device(&edge, 3);
    edge.until_credits(3);
    std::fs::remove_file(files.0.join("dev.toml")).unwrap();
    edge.reload_files();
    first.next(|frame| frame.kind == frames::GOAWAY);
    first.ends();
    edge.until_links(0);
    assert_eq!(device(&edge, 3).peer.end().0, b"", "nobody has this credential now");
    files.write("dev.toml", &text);
    edge.reload_files();
    let _second = device(&edge, 3);
    edge.until_credits(3);
}

// ---- setups over HTTP/2 ----

/// A setup: an extended CONNECT (RFC 8441).
fn connect(path: &str, authorization: Option<&str>, alpn: Option<&str>) -> http::Request<()> {
    let mut request = http::Request::builder().method("CONNECT").uri(format!("http://edge.example{path}"));
    for (name, value) in [("authorization", authorization), ("alpn", alpn)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    request.extension(h2::ext::Protocol::from("ptth")).body(()).expect("a request")
}

fn target(origins: &str) -> String {
    format!("/.well-known/ptth/{origins}/")
}

fn worker_connection(edge: &TestEdge) -> H2Client {
    let client = H2Client::connect(edge.address);
    common::peer::until(|| client.send.is_extended_connect_protocol_enabled());
    client
}

/// Sends a setup and reads its answer.
#[track_caller]
fn asks_to_turn(client: &mut H2Client, setup: http::Request<()>) -> (Sent, Begun) {
    let mut sent = client.start(setup, false);
    let begun = sent.begun();
    (sent, begun)
}

/// A stream whose setup was accepted, as a connection: what is written to it goes out in DATA, and what comes in DATA is read
/// from it.
#[track_caller]
fn channel(client: &mut H2Client, setup: http::Request<()>, alpn: &str) -> Peer {
    let (sent, begun) = asks_to_turn(client, setup);
    let chosen = begun.head.headers.get("alpn").map(|value| value.to_str().unwrap());
    assert_eq!((begun.head.status.as_u16(), chosen), (200, Some(alpn)), "{:?}", begun.head);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    h2_client::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut from, mut to) = tokio::net::TcpStream::from_std(far).unwrap().into_split();
        let (mut up, mut down) = (sent.body, begun.body);
        let upwards = async {
            let mut piece = vec![0; 30_000];
            while let Ok(bytes) = from.read(&mut piece).await {
                let ends = bytes == 0;
                if h2_client::send(&mut up, piece[..bytes].to_vec().into(), ends).await.is_err() || ends {
                    break;
                }
            }
        };
        let downwards = async {
            while let Some(Ok(bytes)) = h2_client::next(&mut down).await {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = to.shutdown().await;
        };
        tokio::join!(upwards, downwards);
    });
    Peer::new(own)
}

fn web_1() -> String {
    basic("web-1", SECRET)
}

#[test]
fn a_stream_becomes_a_link_of_either_version_beside_ordinary_requests() {
    for cores in CORES {
        let edge = setting().cores(cores).listen("h2c = true").start();
        let mut client = worker_connection(&edge);
        for protocol in ["ptth", "PTTH"] {
            let mut setup = connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1"));
            setup.extensions_mut().insert(h2::ext::Protocol::from(protocol));
            let mut link = channel(&mut client, setup, "http%2F1.1");
            edge.until_credits(1);
            serves_h1(&edge, &mut link);
            let mut asked = client.get("/on-the-same-connection");
            assert_eq!(link.serve("both").target(), "/on-the-same-connection");
            assert_eq!(asked.whole().text(), "both");
            link.leave();
            edge.until_links(0);
        }
        let setup = connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1, h2"));
        let link = channel(&mut client, setup, "h2");
        let worker = H2Worker::on(link, h2::server::Builder::new().max_concurrent_streams(7));
        edge.until_credits(7);
        let status = edge.status();
        assert_eq!((&status["links"][0]["worker"], &status["links"][0]["protocol"]), (&"web-1".into(), &"h2".into()));
        let mut clients: Vec<Peer> = (0..7).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        let asked: Vec<_> = (0..7).map(|_| worker.accept()).collect();
        asked.into_iter().for_each(|asked| asked.ok("over a stream"));
        assert!(clients.iter_mut().all(|client| client.response().text() == "over a stream"));
    }
}

#[test]
fn large_bodies_pass_both_ways_over_a_stream() {
    let edge = setting().cores(2).listen("h2c = true").start();
    let mut client = worker_connection(&edge);
    let body = common::pattern(3_000_000);
    for alpn in ["h2", "http%2F1.1"] {
        let link = channel(&mut client, connect(&target(ORIGIN), Some(&web_1()), Some(alpn)), alpn);
        let sent = body.clone();
        let head = format!("POST /up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let worker = match alpn {
            "h2" => {
                let worker = H2Worker::on(link, h2::server::Builder::new().max_concurrent_streams(7));
                Either::H2(std::thread::spawn(move || {
                    let mut asked = worker.accept();
                    assert!(asked.read_body().unwrap().0 == sent, "the upload was changed");
                    let response = http::Response::builder().header("content-length", sent.len()).body(()).unwrap();
                    let mut stream = asked.begin(response);
                    common::h2_worker::block_on(h2_client::send(&mut stream, sent.into(), true)).unwrap();
                    worker
                }))
            }
            _ => {
                let mut link = link;
                let thread = std::thread::spawn(move || {
                    assert!(link.request().body == sent, "the upload was changed");
                    link.send(answer);
                    link.send(&sent);
                    link
                });
                Either::H1(thread)
            }
        };
        let mut asks = edge.sent(head);
        let twin_body = body.clone();
        let mut twin = asks.twin();
        let writer = std::thread::spawn(move || twin.send(&twin_body));
        assert!(asks.response().body == body, "the download was changed");
        writer.join().unwrap();
        match worker {
            Either::H1(thread) => drop(thread.join().unwrap()),
            Either::H2(thread) => thread.join().unwrap().lose(),
        }
        edge.until_links(0);
    }
}

/// The end of a channel that serves on a thread of its own.
enum Either {
    H1(std::thread::JoinHandle<Peer>),
    H2(std::thread::JoinHandle<H2Worker>),
}

#[test]
fn a_setup_over_http2_is_answered_as_its_parts_deserve() {
    let more = format!(
        "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]\nh2c = true\n{}",
        tables().replace("id = \"both\"", "id = \"both\"\nlinks_max = 1")
    );
    let edge = setting().listen("h2c = true").more(&more).start();
    let own = web_1();
    let both = basic("both", "both secret");
    let good = target(ORIGIN);
    let mut client = worker_connection(&edge);
    let mut held = Vec::new();
    for (path, authorization, alpn, status) in [
        (good.clone(), Some(&own), Some("h2"), 200),
        (target("http%3A%2F%2Fapp.example,http%3A%2F%2Fapp.example%3A80"), Some(&own), Some("h2"), 200),
        ("/.well-known/ptth/pool/app".into(), Some(&own), Some("http%2F1.1"), 200),
        ("/elsewhere?a=b".into(), Some(&both), Some("h2"), 200),
        // the last one is still there
        (good.clone(), Some(&both), Some("h2"), 429),
        (good.clone(), None, Some("h2"), 401),
        (good.clone(), Some(&basic("web-1", "wrong")), Some("h2"), 401),
        (good.clone(), Some(&"Digest x".to_owned()), Some("h2"), 401),
        (good.clone(), Some(&"Basic !".to_owned()), Some("h2"), 400),
        (good.clone(), Some(&own), None, 400),
        (good.clone(), Some(&own), Some("h2;q=1"), 400),
        (good.clone(), Some(&own), Some("h3"), 406),
        (format!("{good}?q"), Some(&own), Some("h2"), 400),
        (target("null"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example,null"), Some(&own), Some("h2"), 400),
        (target(""), Some(&own), Some("h2"), 400),
        (target(","), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example,"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example,%20http%3A%2F%2Fapp.example"), Some(&own), Some("h2"), 400),
        (target("http%253A%252F%252Fapp.example"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example%00"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example%2F"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2F*"), Some(&own), Some("h2"), 400),
        (target("http%3A%2F%2Fapp.example%2Chttps%3A%2F%2Fapi.example"), Some(&own), Some("h2"), 403),
        (target("http%3A%2F%2Fapp.example,https%3A%2F%2Fapi.example"), Some(&own), Some("h2"), 403),
        (target("https%3A%2F%2Fapi.example"), Some(&own), Some("h2"), 403),
        (target("http%3A%2F%2Fapp.example.evil"), Some(&own), Some("h2"), 403),
        ("/.well-known/ptth/pool/api".into(), Some(&own), Some("h2"), 403),
        ("/elsewhere".into(), Some(&own), Some("h2"), 403),
    ] {
        let shown = format!("{path} {authorization:?} {alpn:?}");
        let (sent, begun) = asks_to_turn(&mut client, connect(&path, authorization.map(String::as_str), alpn));
        assert_eq!(begun.head.status.as_u16(), status, "{shown}");
        let has = |name: &str| begun.head.headers.contains_key(name);
        assert_eq!(
            (has("www-authenticate"), has("retry-after"), has("alpn")),
            (status == 401, status == 429, status == 200)
        );
        match status {
            200 => held.push((sent, begun)),
            _ => assert!(!begun.whole().unwrap().body.is_empty(), "{shown}"),
        }
    }
    // With a length, and with an end, it is no channel.
    let mut with_length = connect(&good, Some(&own), Some("h2"));
    with_length.headers_mut().insert("content-length", "0".parse().unwrap());
    assert_eq!(client.start(with_length, false).whole().status(), 400);
    assert_eq!(client.start(connect(&good, Some(&own), Some("h2")), true).whole().status(), 400);
    // The connection is none the worse for all that; and where workers are not taken, none of it is there.
    assert_eq!(asks_to_turn(&mut client, connect(&good, Some(&own), Some("h2"))).1.head.status.as_u16(), 200);
    let mut elsewhere = H2Client::connect(edge.addresses[1]);
    common::peer::until(|| elsewhere.send.is_extended_connect_protocol_enabled());
    assert_eq!(elsewhere.start(connect(&good, Some(&own), Some("h2")), false).whole().status(), 404);
}

#[test]
fn a_request_for_a_setups_target_reaches_no_worker() {
    let more = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]\nh2c = true\n\
                [[listen]]\naddress = \"127.0.0.1:4\"\naccept = [\"workers\"]\nh2c = true\n";
    let edge = setting().listen("h2c = true").more(more).start();
    let worker = H2Worker::dial(&edge, 100);
    let asking = |method: &str, path: &str| {
        let mut request = h2_client::asking(method, path);
        request.headers_mut().insert("authorization", web_1().parse().expect("a value"));
        if method == "CONNECT" {
            request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
        }
        request
    };
    for (address, get_status, other_status) in [(0, 426, 405), (1, 404, 404), (2, 426, 405)] {
        let mut client = H2Client::connect(edge.addresses[address]);
        common::peer::until(|| client.send.is_extended_connect_protocol_enabled());
        for path in
            [&target(ORIGIN)[..], &target("x"), "/.well-known/ptth/pool/app", "/.well-known/ptth/", "/.well-known/ptth"]
        {
            for (method, status) in
                [("GET", get_status), ("POST", other_status), ("HEAD", other_status), ("CONNECT", get_status)]
            {
                let whole = client.start(asking(method, path), method != "CONNECT").whole();
                assert_eq!(whole.status(), status, "{address} {method} {path}");
            }
            // And over HTTP/1.1, without the words of a setup.
            for (method, status) in [("GET", get_status), ("POST", other_status)] {
                let mut client = Peer::connect(edge.addresses[address]);
                client.send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\nContent-Length: 0\r\n\r\n",
                    web_1()
                ));
                assert_eq!(client.response().status(), status, "{address} {method} {path}");
            }
        }
    }
    worker.is_quiet();
    // What only looks like it is a request like any other.
    let mut client = H2Client::connect(edge.address);
    for path in ["/.well-known/ptthx", "/.well-known/", "/x/.well-known/ptth/"] {
        let mut asked = client.start(asking("GET", path), true);
        let seen = worker.accept();
        assert_eq!(seen.path(), path);
        seen.ok("like any other");
        assert_eq!(asked.whole().text(), "like any other");
    }
}

#[test]
fn a_link_over_a_stream_ends_with_its_credential_and_its_connection_goes_on() {
    let files = Files::new();
    let text = format!("id = \"s\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n", secret_hash("sss"));
    files.write("s.toml", &text);
    let line = format!("credentials_dir = \"{}\"", files.0.display());
    let edge = setting().cores(2).edge(&line).listen("h2c = true").start();
    let mut client = worker_connection(&edge);
    let setup = |secret: &str| connect(&target(ORIGIN), Some(&format!("Bearer {secret}")), Some("http%2F1.1"));
    let mut first = channel(&mut client, setup("sss"), "http%2F1.1");
    let mut second = channel(&mut client, connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1")), "http%2F1.1");
    edge.until_links(2);
    std::fs::remove_file(files.0.join("s.toml")).unwrap();
    edge.reload_files();
    first.ends();
    edge.until_links(1);
    assert_eq!(asks_to_turn(&mut client, setup("sss")).1.head.status.as_u16(), 401);
    serves_h1(&edge, &mut second);
}

#[test]
fn links_over_streams_end_with_their_connection() {
    let edge = setting().cores(2).listen("h2c = true").start();
    let mut client = worker_connection(&edge);
    let links: Vec<Peer> = (0..3)
        .map(|_| channel(&mut client, connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1")), "http%2F1.1"))
        .collect();
    edge.until_links(3);
    drop(links); // all streams end, and then the connection
    drop(client);
    edge.until_links(0);
    // A connection that vanishes takes its streams along.
    let mut raw = Frames::client(&edge, &[]);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "ptth"),
        (":scheme", "http"),
        (":authority", "edge.example"),
        (":path", "/.well-known/ptth/http%3A%2F%2Fapp.example/"),
        ("alpn", "http%2F1.1"),
        ("authorization", &web_1()),
    ];
    raw.head(1, &fields, false);
    assert_eq!(raw.next(|frame| frame.kind == frames::HEADERS && frame.stream == 1).status(), 200);
    edge.until_links(1);
    raw.peer.leave();
    edge.until_links(0);
}

/// Connections that a drain would wait for.
fn connections(status: &serde_json::Value) -> u64 {
    let cores = status["cores"].as_array().expect("a list");
    cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum()
}

#[test]
fn a_connection_whose_streams_are_links_counts_as_one_from_its_source() {
    let limits = "[limits]\nsources_exempt = []\nconnections_per_source_max = 1\n";
    let edge = setting().cores(2).listen("h2c = true").more(limits).start();
    let mut client = worker_connection(&edge);
    let setup = || connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1"));
    let mut links: Vec<Peer> = (0..2).map(|_| channel(&mut client, setup(), "http%2F1.1")).collect();
    edge.until_links(2);
    // No drain waits for it while it carries links, but it is the one connection that this address has.
    edge.until(|status| connections(status) == 0);
    for _ in 0..3 {
        assert_eq!(Peer::connect(edge.address).end().0, b"");
    }
    links.pop().expect("two").leave();
    edge.until_links(1);
    assert_eq!(connections(&edge.status()), 0);
    links.pop().expect("one").leave();
    edge.until_links(0);
    // Without a link it is a client's again; and when it has gone another one may come.
    edge.until(|status| connections(status) == 1);
    drop(client);
    edge.until(|status| connections(status) == 0);
    let mut next = worker_connection(&edge);
    let _link = channel(&mut next, setup(), "http%2F1.1");
}

#[test]
fn a_stream_that_takes_nothing_ends_soon_after_its_link() {
    let files = Files::new();
    let text = format!("id = \"s\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n", secret_hash("sss"));
    files.write("s.toml", &text);
    let line = format!("credentials_dir = \"{}\"", files.0.display());
    let limits = "[limits]\nbody_stall_max = \"100ms\"\n";
    let edge = setting().drain_max("100ms").edge(&line).listen("h2c = true").more(limits).start();
    let mut raw = Frames::client(&edge, &[(frames::INITIAL_WINDOW_SIZE, 0)]);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "ptth"),
        (":scheme", "http"),
        (":authority", "edge.example"),
        (":path", "/.well-known/ptth/http%3A%2F%2Fapp.example/"),
        ("alpn", "http%2F1.1"),
        ("authorization", "Bearer sss"),
    ];
    raw.head(1, &fields, false);
    assert_eq!(raw.next(|frame| frame.kind == frames::HEADERS && frame.stream == 1).status(), 200);
    edge.until_credits(1);
    let mut client = edge.sent("POST /never-taken HTTP/1.1\r\nHost: app.example\r\nContent-Length: 0\r\n\r\n");
    edge.until(|status| common::credits(status) == 0);
    std::fs::remove_file(files.0.join("s.toml")).unwrap();
    edge.reload_files();
    assert_eq!(client.response().status(), 502);
    drop(client);
    edge.until_links(0);
    raw.next(|frame| frame.kind == frames::RST_STREAM && frame.stream == 1);
    edge.until(|status| connections(status) == 1);
}

#[test]
fn a_connection_that_stays_when_its_links_have_ended_does_not_hold_a_drain() {
    let edge = setting().cores(2).listen("h2c = true").start();
    let mut raw = Frames::client(&edge, &[]);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "ptth"),
        (":scheme", "http"),
        (":authority", "edge.example"),
        (":path", "/.well-known/ptth/http%3A%2F%2Fapp.example/"),
        ("alpn", "http%2F1.1"),
        ("authorization", &web_1()),
    ];
    raw.head(1, &fields, false);
    assert_eq!(raw.next(|frame| frame.kind == frames::HEADERS && frame.stream == 1).status(), 200);
    edge.until_links(1);
    edge.drain();
    raw.next(|frame| frame.kind == frames::DATA && frame.stream == 1 && frame.ends_stream());
    raw.data(1, b"", true);
    assert!(edge.wait(), "it does not close, but nothing runs on it and nothing was cut");
    drop(raw);
}

#[test]
fn an_edge_that_drains_ends_links_over_streams_and_ends() {
    let edge = setting().cores(2).listen("h2c = true").start();
    let mut client = worker_connection(&edge);
    let mut link = channel(&mut client, connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1")), "http%2F1.1");
    edge.until_credits(1);
    let mut asks = edge.sent(get("/last"));
    link.request();
    edge.drain();
    link.ok("finished");
    assert_eq!(asks.response().text(), "finished");
    link.ends();
    assert!(edge.wait(), "nothing was left when it ended");
}

#[test]
fn a_drain_waits_for_ordinary_requests_beside_links() {
    for cores in CORES {
        let edge = setting().cores(cores).listen("h2c = true").start();
        let mut client = worker_connection(&edge);
        let mut link = channel(&mut client, connect(&target(ORIGIN), Some(&web_1()), Some("http%2F1.1")), "http%2F1.1");
        edge.until_credits(1);
        edge.until(|status| connections(status) == 0);
        let mut runs = client.get("/runs");
        link.request();
        let mut waits = client.get("/waits");
        edge.until_queued(1);
        assert_eq!(connections(&edge.status()), 1, "there is a request on it beside its link");
        edge.drain();
        link.is_quiet();
        link.ok("ran");
        assert_eq!(runs.whole().text(), "ran");
        assert_eq!(link.serve("waited").target(), "/waits");
        assert_eq!(waits.whole().text(), "waited");
        link.ends();
        assert!(edge.wait(), "nothing was left when it ended");
    }
}

#[test]
fn a_drain_waits_for_a_request_beside_a_link_that_crosses_goaway() {
    for cores in CORES {
        let edge = setting().cores(cores).listen("h2c = true").start();
        let mut raw = Frames::client(&edge, &[]);
        let setup = [
            (":method", "CONNECT"),
            (":protocol", "ptth"),
            (":scheme", "http"),
            (":authority", "edge.example"),
            (":path", "/.well-known/ptth/http%3A%2F%2Fapp.example/"),
            ("alpn", "http%2F1.1"),
            ("authorization", &web_1()),
        ];
        raw.head(1, &setup, false);
        assert_eq!(raw.next(|frame| frame.kind == frames::HEADERS && frame.stream == 1).status(), 200);
        edge.until_credits(1);
        edge.drain();
        raw.peer.wait_for_some(); // GOAWAY, which it does not read yet, nor the PING behind it
        std::thread::sleep(common::QUIET);
        let request = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/crosses")];
        raw.head(3, &request, true);
        let asked = raw.next(|frame| frame.kind == frames::DATA && frame.stream == 1);
        assert!(asked.payload.starts_with(b"GET /crosses HTTP/1.1\r\n"), "{asked:?}");
        raw.data(1, ok("served").as_bytes(), false);
        assert_eq!(
            raw.next(|frame| frame.kind == frames::HEADERS && frame.stream == 3).payload[0],
            0x88,
            ":status 200"
        );
        assert_eq!(raw.body(3), b"served");
        raw.next(|frame| frame.stream == 1 && frame.ends_stream());
        raw.data(1, b"", true);
        raw.ends();
        drop(raw);
        assert!(edge.wait(), "nothing was left when it ended");
    }
}

#[test]
fn a_certificate_is_enough_over_http2_too() {
    let site = site(1, "[\"clients\", \"workers\"]", NAMED);
    let (mut link, chosen) = site.dial(site.named("web-2.internal"), &[b"h2"]).unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "ptth"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/.well-known/ptth/http%3A%2F%2Fapp.example/"),
        ("alpn", "http%2F1.1"),
    ];
    let head = frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::block(&fields));
    link.send([PREFACE, &frame(frames::SETTINGS, 0, 0, b""), &head].concat());
    let next = |link: &mut Stream, kind: u8| loop {
        let (own, _, stream, payload) = read_frame(link);
        if own == kind && stream == 1 {
            break payload;
        }
    };
    assert_eq!(next(&mut link, frames::HEADERS)[0], 0x88, ":status 200");
    site.edge.until_credits(1);
    assert_eq!(site.edge.status()["links"][0]["worker"], "web-2");
    let mut client = site.edge.sent(get("/asked"));
    assert!(next(&mut link, frames::DATA).starts_with(b"GET /asked HTTP/1.1\r\n"));
    link.send(frame(frames::DATA, 0, 1, ok("in a stream").as_bytes()));
    assert_eq!(client.response().text(), "in a stream");
}
