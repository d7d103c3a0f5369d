//! TLS at an edge: what a client finds that speaks it, with the certificates of a test's own authority. The clients are
//! rustls over a blocking socket; an independent implementation is asked in `tests/interop`.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::tls::{Authority, Client, Files, Stream, TLS12, TLS13};
use common::{HOST, ORIGIN, Peer, TestEdge, get, ok, pattern, setting, setup};
use rcgen::{CertificateParams, KeyPair};
use rustls::HandshakeKind;

/// An edge with one certificate, for [`HOST`] and everything below `example.net`.
struct Site {
    authority: Authority,
    files: Files,
    edge: TestEdge,
}

fn site() -> Site {
    site_of(1, "")
}

fn site_of(cores: u16, more: &str) -> Site {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST, "*.example.net"]);
    let listen = format!("tls = {}\n{more}", files.entry("edge"));
    let workers = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]";
    let edge = setting().cores(cores).listen(&listen).more(workers).start();
    Site { authority, files, edge }
}

/// A link that a test scripts, without TLS.
fn link_of(site: &Site) -> Peer {
    let before = common::setups(&site.edge.status());
    let mut link = Peer::connect(site.edge.addresses[1]);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    site.edge.until(|status| common::setups(status) > before);
    link
}

/// A worker behind a link that was set up over TLS; it answers every request with what it saw.
fn worker_over_tls(site: &Site) -> thread::JoinHandle<Vec<String>> {
    let before = common::setups(&site.edge.status());
    let mut link = Client::new(&site.authority).connect(&site.edge, HOST);
    link.send(setup(ORIGIN, "http%2F1.1"));
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        link.0.read_exact(&mut byte).expect("an answer");
        seen.push(byte[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));
    site.edge.until(|status| common::setups(status) > before);
    thread::spawn(move || {
        let mut heads = Vec::new();
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match link.0.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return heads,
                }
            }
            heads.push(String::from_utf8(head).unwrap());
            link.send(ok("from a worker over TLS"));
        }
    })
}

// ---- HTTP over TLS ----

#[test]
fn a_request_over_either_version_of_tls_reaches_a_worker_that_learns_of_it() {
    let site = site();
    let mut link = link_of(&site);
    for versions in [TLS13, TLS12] {
        let mut client = Client::of(&site.authority, versions).connect(&site.edge, HOST);
        assert_eq!(client.0.conn.protocol_version().unwrap(), versions[0].version);
        for _ in 0..3 {
            client.send(get("/over-tls"));
            let request = link.serve("hello");
            assert_eq!(request.field("x-forwarded-proto"), Some("https"));
            assert!(request.field("forwarded").unwrap().contains("proto=https"), "{request:?}");
            assert_eq!(client.answer().1, b"hello");
        }
    }
    let status = site.edge.status();
    assert_eq!(status["counters"]["tls_handshakes"]["done"], 2);
    assert_eq!(status["counters"]["tls_handshakes"]["failed"], 0);
}

#[test]
fn large_bodies_pass_both_ways_whatever_the_sizes_of_reads_and_writes() {
    let site = site();
    let mut link = link_of(&site);
    let body = pattern(5_000_000);
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    let sent = body.clone();
    let worker = thread::spawn(move || {
        let request = link.request();
        assert_eq!(request.body.len(), sent.len());
        assert!(request.body == sent, "the upload was changed");
        link.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()));
        for piece in sent.chunks(70_001) {
            link.send(piece);
        }
    });
    client.send(format!("POST /up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len()));
    let mut sizes = [1, 100, 16_383, 16_384, 16_385, 90_000].iter().cycle();
    let mut left = &body[..];
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(*sizes.next().unwrap()));
        client.send(piece);
        left = rest;
    }
    let (_, down) = client.answer();
    assert!(down == body, "the download was changed");
    worker.join().unwrap();
}

#[test]
fn a_connection_ends_with_a_word() {
    let site = site();
    let mut link = link_of(&site);
    for body in ["length", "until close"] {
        let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
        let version = if body == "length" { "HTTP/1.1" } else { "HTTP/1.0" };
        client.send(format!("GET / {version}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
        link.request();
        match body {
            "length" => link.ok(body),
            _ => link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nuntil close\r\n0\r\n\r\n"),
        }
        let mut answer = String::new();
        client.0.read_to_string(&mut answer).expect("close_notify before the FIN");
        assert!(answer.ends_with(body), "{answer}");
    }
}

#[test]
fn the_word_comes_behind_all_that_a_full_socket_could_not_take() {
    let site = site();
    let mut link = link_of(&site);
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    link.request();
    let bytes = 16 << 20;
    let sends = thread::spawn(move || {
        link.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        link.send(pattern(bytes));
    });
    thread::sleep(Duration::from_millis(100)); // meanwhile every buffer on the way is filled
    let mut answer = Vec::new();
    client.0.read_to_end(&mut answer).expect("close_notify before the FIN");
    assert!(answer.ends_with(&pattern(bytes)), "{} bytes came", answer.len());
    sends.join().unwrap();
}

#[test]
fn a_client_that_ends_with_a_word_and_listens_on_is_answered() {
    let site = site();
    let mut link = link_of(&site);
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    client.send(get("/a") + &get("/b"));
    for body in ["a", "b"] {
        link.serve(body);
        assert_eq!(client.answer().1, body.as_bytes());
    }
    client.0.conn.send_close_notify();
    client.0.flush().unwrap();
    assert_eq!(client.0.read(&mut [0; 1]).expect("the edge says goodbye, too"), 0);
}

#[test]
fn both_versions_of_http_are_negotiated_and_http2_first() {
    let site = site();
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = Client::new(&site.authority).offering(offered).connect(&site.edge, HOST);
        assert_eq!(client.0.conn.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
    }
    let mut client = Client::new(&site.authority).offering(&["spdy/3"]).dial(&site.edge, HOST);
    let error = client.0.flush().expect_err("nothing in common");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

// ---- names ----

#[test]
fn the_certificate_follows_the_name_that_is_asked_for() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "first", &["first.example"]);
    files.issue(&authority, "wild", &["*.wild.example", "wild.example"]);
    files.issue(&authority, "second", &["Second.Example", "deep.wild.example"]);
    let listen = format!("tls = [{}, {}, {}]", files.entry("first"), files.entry("wild"), files.entry("second"));
    let edge = setting().listen(&listen).start();
    let client = Client::new(&authority);
    let shown = |name: &str| client.connect(&edge, name).shown();
    let (first, wild, second) = (shown("first.example"), shown("wild.example"), shown("second.example"));
    assert!(first != wild && wild != second && first != second);
    assert_eq!(shown("a.wild.example"), wild);
    assert_eq!(shown("deep.wild.example"), second, "the exact name wins");
    // One that no certificate has gets the first, and the client decides.
    let mut stranger = client.dial(&edge, "a.b.wild.example");
    let error = stranger.0.flush().expect_err("it is for another name");
    assert!(error.to_string().contains("first.example"), "{error}");
}

#[test]
fn a_wrong_name_on_a_connection_for_another_is_misdirected() {
    let site = site();
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    let ask = |client: &mut Stream, host: &str| client.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let (status, text) = ask(&mut client, "elsewhere.example");
    assert_eq!(status, 421, "{text}");
    let mut client = Client::new(&site.authority).connect(&site.edge, "a.example.net");
    assert_eq!(ask(&mut client, "a.example.net").0, 404, "the name is right, but nobody serves it");
    let edge = common::edge();
    let mut plain = edge.client();
    plain.send("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
    assert_eq!(plain.response().status(), 404);
}

// ---- sessions ----

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    for versions in [TLS13, TLS12] {
        let site = site_of(2, ""); // whichever core made the ticket
        let _worker = worker_over_tls(&site);
        let client = Client::of(&site.authority, versions);
        for round in 0..6 {
            let mut stream = client.connect(&site.edge, HOST);
            assert_eq!(stream.ask(&get("/")).0, 200); // the ticket comes with it
            let resumed = stream.0.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "{versions:?}, round {round}");
        }
    }
}

#[test]
fn a_session_outlives_a_reload() {
    for versions in [TLS13, TLS12] {
        let site = site_of(2, "");
        site.edge.reload(|_| {}); // from any port to the one that was chosen
        let _worker = worker_over_tls(&site);
        let client = Client::of(&site.authority, versions);
        assert_eq!(client.connect(&site.edge, HOST).ask(&get("/")).0, 200); // the ticket comes with it
        for retries_max in 5..7 {
            site.edge.until_alone();
            site.edge.reload(|config| config.pools[0].retries_max = retries_max);
            let _worker = worker_over_tls(&site);
            let mut stream = client.connect(&site.edge, HOST);
            assert_eq!(stream.ask(&get("/")).0, 200);
            assert_eq!(stream.0.conn.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
        }
    }
}

#[test]
fn certificates_are_read_again_and_what_runs_goes_on() {
    let site = site();
    let mut link = link_of(&site);
    let client = Client::new(&site.authority);
    let mut old = client.connect(&site.edge, HOST);
    let before = old.shown();
    site.files.issue(&site.authority, "edge", &[HOST]);
    assert_eq!(client.connect(&site.edge, HOST).shown(), before, "nobody said so yet");
    site.edge.reload_files();
    let fresh = Client::new(&site.authority).connect(&site.edge, HOST).shown();
    assert_ne!(fresh, before);
    old.send(get("/"));
    link.serve("goes on");
    assert_eq!(old.answer().1, b"goes on");

    site.files.write("edge.pem", "no certificate at all");
    site.edge.reload_files();
    assert_eq!(Client::new(&site.authority).connect(&site.edge, HOST).shown(), fresh, "a mistake changes nothing");
}

#[test]
fn sighup_reads_the_certificates_again() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    let (mut program, address) = start_program(&files);
    let shown = || {
        let mut stream = Client::new(&authority).dial_to(address, HOST);
        stream.0.flush().expect("a handshake");
        stream.shown()
    };
    let before = shown();
    files.issue(&authority, "edge", &[HOST]);
    let pid = rustix::process::Pid::from_child(&program);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    common::peer::until(|| shown() != before);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(program.wait().unwrap().success());
}

/// The edge in a process of its own.
fn start_program(files: &Files) -> (Child, SocketAddr) {
    // Somebody else may take the port between our look and its bind; then it says so and ends.
    for _ in 0..20 {
        let address = common::closed_port();
        let text = format!(
            "[edge]\ncores = 1\n[[listen]]\naddress = \"{address}\"\naccept = [\"clients\", \"workers\"]\ntls = {}\n\
             [[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n\
             [[credential]]\nid = \"w\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n",
            files.entry("edge"),
            common::secret_hash("s")
        );
        files.write("edge.toml", &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
        command.args(["edge", "--config", &files.path("edge.toml")]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(address).is_ok() {
                return (child, address);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("no port is free");
}

// ---- certificates of workers ----

#[test]
fn a_certificate_is_asked_of_everybody_demanded_of_nobody_and_checked() {
    let (authority, workers, files) = (Authority::new(), Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    files.write("workers-ca.pem", &workers.pem());
    let entry = files.entry("edge").replace(" }", &format!(", worker_ca = \"{}\" }}", files.path("workers-ca.pem")));
    let edge = setting().listen(&format!("tls = {entry}")).start();
    let request = "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n";
    assert_eq!(Client::new(&authority).connect(&edge, HOST).ask(request).0, 421);
    let known = Client::with_certificate(&authority, workers.issue(&["web-1.workers"]));
    assert_eq!(known.connect(&edge, HOST).ask(request).0, 421);
    let mut stranger = Client::with_certificate(&authority, authority.issue(&["web-1.workers"])).dial(&edge, HOST);
    let refused = stranger.0.write_all(request.as_bytes()).and_then(|()| stranger.0.read(&mut [0; 1]));
    let error = refused.expect_err("an authority that nobody named");
    assert!(error.to_string().contains("UnknownCA") || error.to_string().contains("DecryptError"), "{error}");
    edge.until(|status| status["counters"]["tls_handshakes"]["failed"] == 1);
}

#[test]
fn a_link_that_was_set_up_over_tls_lives_on_either_core() {
    let site = site_of(2, "");
    let workers: Vec<_> = (0..2).map(|_| worker_over_tls(&site)).collect();
    let homes =
        site.edge.status()["links"].as_array().unwrap().iter().map(|link| link["core"].clone()).collect::<Vec<_>>();
    assert_eq!(homes.len(), 2);
    assert_ne!(homes[0], homes[1], "they are spread, so one of them has moved with its session");
    for _ in 0..20 {
        let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
        assert_eq!(client.ask(&get("/")), (200, "from a worker over TLS".into()));
    }
    let Site { edge, .. } = site;
    edge.drain();
    assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap().len()).sum::<usize>(), 20);
    assert!(edge.wait());
}

// ---- whoever does not speak TLS ----

#[test]
fn bytes_that_are_no_tls_get_an_alert_and_harm_nobody() {
    let site = site();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 64]] {
        let mut stray = Peer::connect(site.edge.address);
        // What follows is read and thrown away: a reset would take the alert back.
        stray.send([bytes, &[1; 300_000]].concat());
        let _ = stray.stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        stray.stream.read_to_end(&mut answer).expect("no reset");
        assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    }
    site.edge.until(|status| status["counters"]["tls_handshakes"]["failed"] == 3);
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n").0, 421, "others are served");
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let site = site();
    let mut stalled: Vec<Peer> = (0..20).map(|_| Peer::connect(site.edge.address)).collect();
    for (at, peer) in stalled.iter_mut().enumerate() {
        peer.send(&[0x16, 3, 1, 1, 0][..at % 6]);
    }
    let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n").0, 421);
    site.edge.until(|status| status["counters"]["tls_handshakes"]["timed_out"] == 20);
    for peer in &mut stalled {
        assert_eq!(peer.stream.read(&mut [0; 16]).unwrap(), 0);
    }
}

// ---- what is wrong with the files ----

/// The mistakes of an edge with this `tls`, without the folder's path.
fn mistakes(files: &Files, tls: &str) -> Vec<String> {
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:8443\"\naccept = [\"clients\", \"workers\"]\ntls = {tls}\n\
         [[pool]]\nname = \"app\"\norigins = [\"*\"]\n\
         [[credential]]\nid = \"w\"\nsecret_hash = \"{}\"\norigins = [\"*\"]\n",
        common::secret_hash("s")
    );
    let file = Path::new(&files.0).join("edge.toml").display().to_string();
    let now = common::unix_seconds();
    let (config, mut mistakes) = ptth::edge::config::EdgeConfig::parse(&file, &text, now).expect("good TOML");
    ptth::edge::tls::load(&config, now, &mut mistakes);
    mistakes.lines().map(|line| line.replace(&format!("{}/", files.0.display()), "")).collect()
}

#[test]
fn every_mistake_in_a_certificate_file_says_which_and_why() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "good", &[HOST]);
    files.issue(&authority, "other", &[HOST]);
    files.write("empty.pem", "");
    files.write("text.pem", "this is not a PEM file\n");
    files.write("torn.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    files.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let check = |certificate: &str, key: &str, wants: &str| {
        let tls = format!("{{ certificate = \"{certificate}\", key = \"{key}\" }}");
        let lines = mistakes(&files, &tls);
        assert!(lines.len() == 1 && lines[0].contains(wants), "{certificate} {key}: {lines:#?}");
        assert!(lines[0].starts_with("edge.toml:4:"), "{lines:?}");
    };
    assert_eq!(mistakes(&files, "{ certificate = \"good.pem\", key = \"good.key\" }"), Vec::<String>::new());
    check("missing.pem", "good.key", "missing.pem cannot be read: ");
    check("good.pem", "missing.key", "missing.key cannot be read: ");
    check("empty.pem", "good.key", "empty.pem: no certificate in it");
    check("text.pem", "good.key", "text.pem: no certificate in it");
    check("torn.pem", "good.key", "torn.pem: not a PEM file");
    check("junk.pem", "good.key", "junk.pem: the ");
    check("good.pem", "good.pem", "good.pem: no private key in it");
    check("good.pem", "other.key", "other.key: the key does not fit the certificate in good.pem");
    let tls = "{ certificate = \"good.pem\", key = \"good.key\", worker_ca = \"empty.pem\" }";
    assert!(mistakes(&files, tls)[0].contains("empty.pem: no certificate in it"));
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning() {
    let files = Files::new();
    let write = |name: &str, from: i64, to: i64| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let now = common::unix_seconds().cast_signed();
        let at = |s: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs((now + s).cast_unsigned());
        (params.not_before, params.not_after) = (at(from), at(to));
        files.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        files.write(&format!("{name}.key"), &key.serialize_pem());
    };
    const DAY: i64 = 24 * 3600;
    write("expired", -20 * DAY, -2 * DAY);
    write("early", 2 * DAY, 90 * DAY);
    write("soon", -80 * DAY, 5 * DAY);
    write("good", -DAY, 60 * DAY);
    for (name, wants) in [
        ("expired", "expired.pem: the certificate expired at "),
        ("early", "early.pem: the certificate is not valid before "),
        ("soon", "soon.pem: the certificate expires at "),
        ("good", ""),
    ] {
        let lines = mistakes(&files, &files.entry(name));
        assert_eq!(lines.len(), usize::from(!wants.is_empty()), "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("warning: ") && line.contains(wants)), "{lines:?}");
    }
}
