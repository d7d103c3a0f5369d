//! Our own worker over TLS: to its edge, and to a server behind it; and servers that speak HTTP/2. Certificates come from a
//! test's own authority; edges and servers that are played here are rustls and h2, not the program.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, mpsc};

use common::h2_worker::H2Worker;
use common::origin::serving;
use common::peer::start;
use common::tls::{Authority, Files};
use common::worker::Program;
use common::{CORES, HANG, HOST, Peer, SECRET, TestEdge, get, ok, pattern, setting, worker_config};
use ptth::settings::{At, Place};
use ptth::wire::Scheme;
use ptth::worker::Worker;
use ptth::worker::config::{Identity, Secret, Target, WorkerConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// A server that nobody asks.
const NOWHERE: &str = "http://127.0.0.1:1";

fn at<T>(value: T) -> At<T> {
    At { value, place: Place::File }
}

/// An edge whose certificate names `name`.
fn edge_named(files: &Files, authority: &Authority, cores: u16, name: &str) -> TestEdge {
    files.issue(authority, "edge", &[name]);
    files.write("ca.pem", &authority.pem());
    setting().cores(cores).listen(&format!("tls = {}", files.entry("edge"))).start()
}

/// For `edge`, called by the name `localhost`.
fn over_tls(files: &Files, edge: SocketAddr, origin: SocketAddr) -> WorkerConfig {
    let mut config = worker_config(edge, origin, Secret::basic("web-1", SECRET));
    (config.edges[0].scheme, config.edges[0].host) = (Scheme::Https, "localhost".into());
    config.tls.ca_file = Some(at(files.path("ca.pem").into()));
    config
}

// ---- to the edge ----

#[test]
fn a_worker_over_tls_serves_its_edge_whichever_core_has_the_link() {
    for cores in CORES {
        let (authority, files) = (Authority::new(), Files::new());
        files.issue(&authority, "edge", &["localhost"]);
        files.write("ca.pem", &authority.pem());
        let plain = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]";
        let edge = setting().cores(cores).listen(&format!("tls = {}", files.entry("edge"))).more(plain).start();
        let origin = serving(|request| ok(std::str::from_utf8(&request.body).expect("text")));
        let worker = Worker::start(over_tls(&files, edge.address, origin)).expect("a worker");
        let text = String::from_utf8(pattern(300_000).iter().map(|byte| b'a' + byte % 26).collect()).expect("ASCII");
        for body in ["short", &text] {
            let mut client = Peer::connect(edge.addresses[1]);
            client.send(common::post("/echo", body));
            assert_eq!(client.response().text(), body);
        }
        worker.drain();
        assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
    }
}

#[test]
fn why_there_is_no_link_is_said_in_words() {
    let (authority, files) = (Authority::new(), Files::new());
    files.write("other.pem", &Authority::new().pem());
    files.write("web-1.secret", &format!("web-1:{SECRET}\n"));
    let good = edge_named(&files, &authority, 1, "localhost");
    let other = edge_named(&files, &authority, 1, "other.example");
    let plain = setting().start();
    let check = |edge: &TestEdge, ca: &str, words: &str| {
        let url = format!("https://localhost:{}", edge.address.port());
        let (ca, secret) = (files.path(ca), files.path("web-1.secret"));
        Program::start(
            &["--pool", "app", "--to", NOWHERE, "--edge", &url, "--ca-file", &ca, "--credential-file", &secret],
            None,
        )
        .says(words);
    };
    check(&good, "ca.pem", "link up");
    check(&good, "other.pem", "an authority that is not known here; name the authority's PEM file in `ca_file`");
    check(&other, "ca.pem", "its certificate is for another name");
    check(&plain, "ca.pem", "no TLS");
}

#[test]
fn without_ca_file_the_systems_authorities_are_believed() {
    let (authority, files) = (Authority::new(), Files::new());
    let edge = edge_named(&files, &authority, 1, "localhost");
    files.write("web-1.secret", &format!("web-1:{SECRET}\n"));
    files.write("other.pem", &Authority::new().pem());
    let url = format!("https://localhost:{}", edge.address.port());
    let secret = files.path("web-1.secret");
    let arguments = ["--pool", "app", "--to", NOWHERE, "--edge", &url, "--credential-file", &secret];
    Program::start(&arguments, Some(&files.path("ca.pem"))).says("link up");
    Program::start(&arguments, Some(&files.path("other.pem"))).says("an authority that is not known here");
    files.write("empty.pem", "");
    let empty = Program::start(&arguments, Some(&files.path("empty.pem")));
    empty.says("--edge: this system has no certificates of authorities; install the package ca-certificates");
}

/// A server with TLS that a test scripts; it wants a certificate of `workers`, if that is there.
fn server_config(authority: &Authority, name: &str, workers: Option<RootCertStore>) -> Arc<ServerConfig> {
    let (certificate, key) = authority.issue(&[name]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = match workers {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

type Tls = StreamOwned<ServerConnection, std::net::TcpStream>;

#[track_caller]
fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> Tls {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(HANG)).expect("a timeout");
    StreamOwned::new(ServerConnection::new(config.clone()).expect("a session"), stream)
}

fn head(stream: &mut Tls) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

#[test]
fn a_worker_shows_its_certificate_and_needs_no_other_credential() {
    let (authority, workers, files) = (Authority::new(), Authority::new(), Files::new());
    files.write("ca.pem", &authority.pem());
    files.issue(&workers, "web-1", &["web-1.workers.example"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut config = over_tls(&files, address, common::closed_port());
    config.authorization = None;
    config.tls.identity =
        Some(Identity { certificate: at(files.path("web-1.pem").into()), key: at(files.path("web-1.key").into()) });
    let shown = std::fs::read(files.path("web-1.pem")).expect("the file");
    let worker = Worker::start(config).expect("a worker");
    let server = server_config(&authority, "localhost", Some(workers.roots()));
    let mut edge = accept(&listener, &server);
    let setup = head(&mut edge).to_ascii_lowercase();
    assert!(setup.starts_with("get /.well-known/ptth/pool/app http/1.1\r\n"), "{setup}");
    assert!(!setup.contains("authorization"), "{setup}");
    let peer = &edge.conn.peer_certificates().expect("a certificate")[0];
    assert_eq!(*peer, CertificateDer::from_pem_slice(&shown).expect("a certificate"));
    assert_eq!(edge.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(edge.conn.server_name(), Some("localhost"));
    worker.drain();
}

#[test]
fn every_mistake_in_a_file_says_where_it_is_named() {
    let (authority, files) = (Authority::new(), Files::new());
    files.write("web-1.secret", "web-1:s\n");
    files.write("ca.pem", &authority.pem());
    files.write("empty.pem", "");
    files.issue(&authority, "web-1", &["web-1"]);
    files.issue(&authority, "other", &["other"]);
    let check = |lines: &str, want: &str| {
        let text = format!(
            "edges = [\"https://localhost:1\"]\npool = \"app\"\nto = \"https://localhost:2\"\n\
             credential_file = \"web-1.secret\"\n{lines}\n"
        );
        files.write("worker.toml", &text);
        let output = Command::new(env!("CARGO_BIN_EXE_ptth"))
            .args(["check", "--config", &files.path("worker.toml")])
            .env("SSL_CERT_FILE", files.path("ca.pem"))
            .output()
            .expect("the program");
        let told = String::from_utf8(output.stderr).expect("text");
        if want.is_empty() {
            assert!(output.status.success() && told.is_empty(), "{lines}: {told}");
        } else {
            assert_eq!(output.status.code(), Some(2), "{lines}: {told}");
            let place = format!("{}{want}", files.path("worker.toml"));
            assert!(told.replace(&format!("{}/", files.0.display()), "").contains(want), "{place}\n{told}");
        }
    };
    let both = "certificate = \"web-1.pem\"\nkey = \"web-1.key\"";
    check("", "");
    check(&format!("ca_file = \"ca.pem\"\nto_ca_file = \"ca.pem\"\n{both}"), "");
    check("ca_file = \"gone.pem\"", ":5:11: gone.pem cannot be read: no such file or directory");
    check("ca_file = \"empty.pem\"", ":5:11: empty.pem: no certificate in it");
    check("to_ca_file = \"web-1.key\"", ":5:14: web-1.key: no certificate in it");
    check(
        "certificate = \"web-1.pem\"\nkey = \"other.key\"",
        ":6:7: other.key: the key does not fit the certificate in",
    );
    check("certificate = \"web-1.pem\"", ":5:15: `certificate` without `key`; add key = ");
    check("key = \"web-1.key\"", ":5:7: `key` without `certificate`; add certificate = ");
}

// ---- to the server ----

/// A request through an edge and our worker, whose server is `to`.
fn worker_before(edge: &TestEdge, to: Target, ca: Option<&Files>) -> common::TestWorker {
    edge.worker_of(common::closed_port(), |config| {
        config.to = to;
        config.tls.to_ca_file = ca.map(|files| at(files.path("ca.pem").into()));
    })
}

#[test]
fn a_server_behind_the_worker_speaks_tls() {
    for (name, works) in [("localhost", true), ("other.example", false)] {
        let (authority, files, edge) = (Authority::new(), Files::new(), setting().start());
        files.write("ca.pem", &authority.pem());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = server_config(&authority, name, None);
        let _worker = worker_before(&edge, Target::Https { host: "localhost".into(), port }, Some(&files));
        let mut client = edge.sent(get("/one") + &get("/two"));
        let mut origin = accept(&listener, &server);
        if !works {
            assert!(origin.read(&mut [0]).is_err(), "it goes on with a wrong name");
            drop(origin);
            assert_eq!(client.response().status(), 502);
            continue;
        }
        // Both over one connection.
        for path in ["/one", "/two"] {
            let head = head(&mut origin);
            assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
            assert!(head.to_ascii_lowercase().contains(&format!("\r\nhost: {HOST}\r\n")), "{head}");
            origin.write_all(ok(path).as_bytes()).expect("it reads");
            origin.flush().expect("it reads");
            assert_eq!(client.response().text(), path);
        }
        assert_eq!(origin.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

/// A server that speaks HTTP/2 from the first byte; each of its connections is the test's.
struct H2Origin(TcpListener);

impl H2Origin {
    fn start() -> H2Origin {
        H2Origin(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn target(&self) -> Target {
        Target::H2c { host: "127.0.0.1".into(), port: self.0.local_addr().expect("an address").port() }
    }

    /// The next connection, on which the server takes `streams` at once.
    fn accept(&self, streams: u32) -> H2Worker {
        let (stream, _) = self.0.accept().expect("a connection");
        H2Worker::on(Peer::new(stream), h2::server::Builder::new().max_concurrent_streams(streams))
    }
}

#[test]
fn requests_share_a_connection_to_an_http2_server_as_far_as_it_takes_them() {
    for cores in CORES {
        let (edge, origin) = (setting().cores(cores).start(), H2Origin::start());
        let worker = worker_before(&edge, origin.target(), None);
        let mut clients: Vec<_> = (0..3).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        let first = origin.accept(2);
        let mut asked = vec![first.accept(), first.accept()];
        let second = origin.accept(2); // the third request needs one more
        asked.push(second.accept());
        let mut paths = Vec::new();
        for asked in asked {
            let head = &asked.head;
            assert_eq!(head.uri.scheme_str(), Some("http"));
            assert_eq!(head.uri.authority().map(|authority| authority.as_str()), Some(HOST));
            paths.push(head.uri.path().to_owned());
            let path = head.uri.path().to_owned();
            asked.ok(&path);
        }
        paths.sort();
        assert_eq!(paths, ["/0", "/1", "/2"]);
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        // Later ones find room.
        let mut client = edge.sent(get("/again"));
        first.accept().ok("again");
        assert_eq!(client.response().text(), "again");
        worker.drain();
        assert!(worker.wait());
    }
}

#[test]
fn what_an_http2_server_refuses_is_asked_again() {
    let (edge, origin) = (setting().start(), H2Origin::start());
    let _worker = worker_before(&edge, origin.target(), None);
    let mut client = edge.sent(common::post("/", "a body"));
    let first = origin.accept(10);
    first.accept().reset(h2::Reason::REFUSED_STREAM);
    first.goaway();
    // On the same connection, or on a new one if the GOAWAY was there first.
    let again = first.try_accept();
    let (_second, asked) = match again {
        Some(asked) => (None, asked),
        None => {
            let (told, tells) = mpsc::channel();
            let listener = origin.0.try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                let (stream, _) = listener.accept().expect("a connection");
                let _ = told.send(Peer::new(stream));
            });
            loop {
                if let Some(asked) = first.try_accept() {
                    break (None, asked);
                }
                if let Ok(peer) = tells.try_recv() {
                    let second = H2Worker::on(peer, h2::server::Builder::new().max_concurrent_streams(10));
                    let asked = second.accept();
                    break (Some(second), asked);
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    };
    asked.ok("answered");
    assert_eq!(client.response().text(), "answered");
}

#[test]
fn an_upgrade_goes_to_an_http2_server_only_if_it_said_that_it_takes_them() {
    let (edge, origin) = (setting().start(), H2Origin::start());
    let _worker = worker_before(&edge, origin.target(), None);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut client = edge.sent(start("GET", "/chat") + upgrade);
    let _first = origin.accept(10);
    assert_eq!(client.response().status(), 502);
}

#[test]
fn a_server_that_does_not_speak_http2_is_a_502_and_not_a_wait() {
    let (edge, listener) = (setting().start(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let port = listener.local_addr().expect("an address").port();
    let _worker = worker_before(&edge, Target::H2c { host: "127.0.0.1".into(), port }, None);
    let mut client = edge.sent(get("/"));
    let mut origin = Peer::new(listener.accept().expect("a connection").0);
    origin.read(24);
    origin.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().status(), 502);
}
