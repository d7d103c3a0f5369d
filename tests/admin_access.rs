//! Who may ask the admin address, and by which name.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own

mod common;

use common::tls::{Authority, Client, Files};
use common::{ADMIN_TOKEN, Message, Peer, TestEdge, edge, setting};
use std::process::Command;

#[track_caller]
fn asks(edge: &TestEdge, request: &str, host: &str, fields: &str) -> Message {
    let mut admin = Peer::connect(edge.admin);
    let length = if request.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
    admin.send(format!("{request} HTTP/1.1\r\nHost: {host}\r\n{fields}{length}Connection: close\r\n\r\n"));
    admin.response()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn token_file(files: &Files, token: &str) -> String {
    files.write("admin.token", &format!("{token}\n"));
    format!("token_file = \"{}\"\nnames = [\"admin\"]", files.path("admin.token"))
}

#[test]
fn without_a_token_a_name_that_is_led_here_is_told_nothing() {
    let edge = setting().admin("names = [\"admin\"]").start();
    let port = edge.admin.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        ("[::1]:9090".into(), 200),
        ("10.0.0.7".into(), 200),
        ("ADMIN".into(), 200),
        ("rebound.example".into(), 421),
        (format!("rebound.example:{port}"), 421),
        ("127.0.0.1.rebound.example".into(), 421),
    ] {
        for path in ["/status", "/metrics", "/", "/explain", "/health/live"] {
            let got = asks(&edge, &format!("GET {path}"), &host, "").status();
            let want = match path {
                "/health/live" => 200, // to anybody
                "/explain" if status == 200 => 400,
                _ => status,
            };
            assert_eq!(got, want, "{host} {path}");
        }
    }
    assert_eq!(asks(&edge, "POST /drain", "rebound.example", "").status(), 421);
    assert_eq!(edge.status()["draining"], false);
}

#[test]
fn one_connection_too_many_is_closed_and_one_that_leaves_makes_room() {
    let edge = edge();
    let held: Vec<Peer> = (0..ptth::limits::ADMIN_CONNECTIONS_MAX)
        .map(|_| {
            let mut admin = Peer::connect(edge.admin);
            assert_eq!(admin.ask("/health/live").status(), 200);
            admin
        })
        .collect();
    Peer::connect(edge.admin).ends();
    drop(held);
    let from = std::time::Instant::now();
    while {
        let mut admin = Peer::connect(edge.admin);
        admin.send("GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        admin.try_read(12).is_none()
    } {
        assert!(from.elapsed() < common::HANG, "those that left are still counted");
    }
}

#[test]
fn with_a_token_everything_but_health_wants_it() {
    let files = Files::new();
    let edge = setting().admin(&token_file(&files, ADMIN_TOKEN)).start();
    for request in ["GET /status", "GET /metrics", "GET /explain?url=http://a", "GET /nothing", "POST /drain"] {
        for fields in [
            "",
            &bearer("wrong"),
            &bearer(&ADMIN_TOKEN[1..]),
            "Authorization: Basic YTpi\r\n",
            "Cookie: ptth_admin=1.2\r\n",
        ] {
            let refused = asks(&edge, request, "127.0.0.1", fields);
            assert_eq!(refused.status(), 401, "{request} {fields}");
            assert!(refused.field("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{refused:?}");
            assert!(!refused.text().contains("app"), "{refused:?}");
        }
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(asks(&edge, &format!("GET {path}"), "127.0.0.1", "").status(), 200);
    }
    let status = asks(&edge, "GET /status", "any.example", &bearer(ADMIN_TOKEN));
    assert_eq!(status.status(), 200);
    assert!(!status.text().contains(ADMIN_TOKEN));
    assert!(!format!("{:?}", edge.config).contains(ADMIN_TOKEN));
    assert_eq!(edge.status()["draining"], false);
    assert_eq!(asks(&edge, "POST /drain", "127.0.0.1", &bearer(ADMIN_TOKEN)).status(), 202);
}

/// Posts the token as a browser does, and gives what came of it.
fn log_in(edge: &TestEdge, token: &str) -> Message {
    let form = format!("token={token}");
    let mut admin = Peer::connect(edge.admin);
    admin.send(format!(
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    ));
    admin.response()
}

#[test]
fn a_browser_that_has_shown_the_token_has_a_cookie_until_the_token_changes() {
    let files = Files::new();
    let edge = setting().admin(&token_file(&files, ADMIN_TOKEN)).start();
    let refused = log_in(&edge, "wrong");
    assert_eq!((refused.status(), refused.field("set-cookie")), (401, None));
    let answer = log_in(&edge, ADMIN_TOKEN);
    assert_eq!((answer.status(), answer.field("location")), (303, Some("/")));
    let cookie = answer.field("set-cookie").expect("a cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(ADMIN_TOKEN), "{cookie}");
    let pair = format!("Cookie: a=b; {}\r\n", cookie.split(';').next().expect("a pair"));
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &pair).status(), 200);
    // It lives over a reload, and a page cannot drain with it.
    edge.reload(|config| config.pools[0].priority.default = 5);
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &pair).status(), 200);
    let from_page = format!("{pair}Origin: http://127.0.0.1\r\n{}", bearer(ADMIN_TOKEN));
    assert_eq!(asks(&edge, "POST /drain", "127.0.0.1", &from_page).status(), 403);
    assert_eq!(asks(&edge, "POST /drain", "127.0.0.1", &pair).status(), 401, "whoever else may have the cookie");
    let mut news = Peer::connect(edge.admin);
    news.send(format!("GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n{pair}Connection: close\r\n\r\n"));
    assert_eq!(news.head().status(), 200);
    // A file that is wrong changes nothing; another token ends it.
    files.write("admin.token", "short\n");
    edge.reload_files();
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &pair).status(), 200);
    let other = "another-token-of-enough-letters";
    files.write("admin.token", other);
    edge.reload_files();
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &pair).status(), 401);
    news.end();
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &bearer(ADMIN_TOKEN)).status(), 401);
    assert_eq!(asks(&edge, "GET /status", "127.0.0.1", &bearer(other)).status(), 200);
    files.write("admin.token", ADMIN_TOKEN);
    edge.reload_files();
}

fn ptth(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ptth")).args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn commands_speak_tls_and_show_a_token_or_a_certificate() {
    let (files, authority, ops) = (Files::new(), Authority::new(), Authority::new());
    files.issue(&authority, "edge", &["localhost"]);
    files.issue(&ops, "me", &["me.example"]);
    files.write("ca.pem", &authority.pem());
    files.write("ops.pem", &ops.pem());
    let tls = files.entry("edge").replace(" }", &format!(", client_ca = \"{}\" }}", files.path("ops.pem")));
    let edge = setting().admin(&format!("{}\ntls = {tls}", token_file(&files, ADMIN_TOKEN))).start();
    let admin = format!("https://localhost:{}", edge.admin.port());
    let (ca, token) = (files.path("ca.pem"), files.path("admin.token"));
    let (certificate, key) = (files.path("me.pem"), files.path("me.key"));
    let base = ["--admin", &admin, "--ca-file", &ca];
    let run = |command: &[&str], more: &[&str]| ptth(&[command, &base, more].concat());
    let (code, out, err) = run(&["status"], &["--token-file", &token]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("POOL"), "{out}");
    let (code, out, err) = run(&["status", "--json"], &["--certificate", &certificate, "--key", &key]);
    assert!(code == Some(0) && out.contains("\"version\""), "{out}{err}");
    let (code, out, err) = run(&["explain", "GET", "http://app.example/"], &["--token-file", &token]);
    assert!(code == Some(0) && out.contains("verdict  waits"), "{out}{err}");
    let (code, _, err) = run(&["explain", "GET", "nothing"], &["--token-file", &token]);
    assert!(code == Some(2) && err.contains("`url` is no URL") && err.lines().count() == 1, "{err}");
    let (code, _, err) = run(&["status"], &[]);
    assert!(code == Some(1) && err.contains("--token-file FILE") && err.lines().count() == 1, "{err}");
    // Somebody else's authority, or a file that is not there.
    let (code, _, err) =
        ptth(&["status", "--admin", &admin, "--ca-file", &files.path("ops.pem"), "--token-file", &token]);
    assert!(code == Some(1) && err.lines().count() == 1, "{err}");
    let (code, _, err) = run(&["status"], &["--token-file", "/nowhere"]);
    assert!(code == Some(2) && err.contains("cannot be read"), "{err}");
    let (code, _, err) = ptth(&["status", "--admin", &admin, "--ca-file", "/nowhere"]);
    assert!(code == Some(2) && err.contains("cannot be read"), "{err}");
    let (code, out, err) = run(&["drain"], &["--certificate", &certificate, "--key", &key]);
    assert!(code == Some(0) && out.contains("no new work"), "{out}{err}");
    assert!(edge.wait());
}

#[test]
fn over_tls_health_is_told_to_whoever_shows_nothing() {
    let (files, authority, ops) = (Files::new(), Authority::new(), Authority::new());
    files.issue(&authority, "edge", &["localhost"]);
    files.write("ops.pem", &ops.pem());
    let tls = files.entry("edge").replace(" }", &format!(", client_ca = \"{}\" }}", files.path("ops.pem")));
    let edge = setting().admin(&format!("tls = {tls}")).start();
    let client = Client::new(&authority);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stranger = client.connect_to(edge.admin, "localhost");
    assert_eq!(stranger.ask(&get("/health/live")).0, 200);
    assert_eq!(stranger.ask(&get("/status")).0, 401);
    let known = Client::with_certificate(&authority, ops.issue(&["me.example"]));
    assert_eq!(known.connect_to(edge.admin, "localhost").ask(&get("/status")).0, 200);
    // Without TLS nobody is understood.
    let mut plain = Peer::connect(edge.admin);
    plain.send_if_open(get("/status"));
    plain.end();
}

#[test]
fn on_loopback_nothing_is_asked_for() {
    assert_eq!(asks(&edge(), "GET /status", "127.0.0.1", "").status(), 200);
}
