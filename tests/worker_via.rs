//! Our own worker behind an HTTP proxy, which is played here: what it is asked, and what comes of its answers.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use common::origin::serving;
use common::tls::{Authority, Files};
use common::worker::Program;
use common::{HANG, HOST, Message, Peer, SECRET, TestEdge, get, ok, setting, worker_config};
use ptth::settings::{At, Place};
use ptth::wire::Scheme;
use ptth::worker::Worker;
use ptth::worker::config::{Secret, Via};

/// Connects to `to`, whatever it is asked for, and tells what it was asked.
struct Proxy {
    address: SocketAddr,
    asked: mpsc::Receiver<Message>,
}

impl Proxy {
    fn start(to: SocketAddr, answer: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut peer = Peer::new(stream);
                let Some(request) = peer.try_head() else { continue };
                let _ = told.send(request);
                peer.send(answer);
                if answer.contains(" 200 ") {
                    relay(peer, to);
                }
            }
        });
        Proxy { address, asked }
    }

    fn via(&self) -> Via {
        let authorization = Some(Secret::basic("me", "pass:word"));
        Via { host: "localhost".into(), port: self.address.port(), authorization }
    }

    #[track_caller]
    fn was_asked(&self) -> Message {
        self.asked.recv_timeout(HANG).expect("nobody asks the proxy")
    }
}

fn relay(peer: Peer, to: SocketAddr) {
    let server = TcpStream::connect(to).expect("the edge");
    let (client, early) = peer.into_parts();
    client.set_nonblocking(false).expect("blocking");
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..bytes]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    (&server).write_all(&early).expect("the edge reads");
    pass(client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
    pass(server, client);
}

fn edge_over_tls(files: &Files) -> TestEdge {
    let authority = Authority::new();
    files.issue(&authority, "edge", &["edge.example"]);
    files.write("ca.pem", &authority.pem());
    let plain = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]";
    setting().listen(&format!("tls = {}", files.entry("edge"))).more(plain).start()
}

#[test]
fn a_worker_reaches_its_edge_through_a_proxy_with_and_without_tls() {
    const FINE: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
    let origin = serving(|request| ok(request.target()));
    for scheme in [Scheme::Http, Scheme::Https] {
        let files = Files::new();
        let (edge, clients) = match scheme {
            Scheme::Http => {
                let edge = setting().start();
                let address = edge.address;
                (edge, address)
            }
            Scheme::Https => {
                let edge = edge_over_tls(&files);
                let address = edge.addresses[1];
                (edge, address)
            }
        };
        let proxy = Proxy::start(edge.address, FINE);
        let mut config = worker_config(edge.address, origin, Secret::basic("web-1", SECRET));
        // A name that only the proxy knows.
        (config.edges[0].scheme, config.edges[0].host, config.edges[0].port) = (scheme, "edge.example".into(), 8443);
        config.tls.ca_file =
            (scheme == Scheme::Https).then(|| At { value: files.path("ca.pem").into(), place: Place::File });
        config.via = Some(proxy.via());
        config.links = 2;
        let worker = Worker::start(config).expect("a worker");
        for _ in 0..2 {
            let asked = proxy.was_asked();
            assert_eq!(asked.line, "CONNECT edge.example:8443 HTTP/1.1");
            assert_eq!(asked.field("host"), Some("edge.example:8443"));
            let want = common::basic("me", "pass:word");
            assert_eq!(asked.field("proxy-authorization"), Some(want.as_str()));
        }
        edge.until_links(2);
        let mut client = Peer::connect(clients);
        client.send(get("/through"));
        assert_eq!(client.response().text(), "/through");
        worker.drain();
        assert!(common::within_hang(worker, |worker| worker.wait().expect("no panic")));
    }
}

#[test]
fn what_a_proxy_refuses_is_said_in_words() {
    let files = Files::new();
    files.write("web-1.secret", "web-1:s3cret\n");
    let secret = files.path("web-1.secret");
    let check = |answer: &'static str, words: &str| {
        let proxy = Proxy::start(common::closed_port(), answer);
        let via = format!("http://{}", proxy.address);
        let serve = format!("http://{HOST}");
        Program::start(
            &[
                "--edge",
                "http://edge.example:8080",
                "--serve",
                &serve,
                "--to",
                "http://127.0.0.1:1",
                "--credential-file",
                &secret,
                "--via",
                &via,
            ],
            None,
        )
        .says(words);
        assert_eq!(proxy.was_asked().field("proxy-authorization"), None);
    };
    check("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "look at via_credential_file");
    check("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "does not connect to edge.example:8080 (403");
    check("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "does not connect to edge.example:8080 (502");
    check("SSH-2.0-OpenSSH_9.6\r\n\r\n", "this is no proxy");
}
