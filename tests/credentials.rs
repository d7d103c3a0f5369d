//! Who may serve what, and what becomes of links when that changes: secrets that are rotated, certificates, files that come
//! and go. What a setup answers beside that is in `links.rs`.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use std::io::Read as _;

use common::frames::{self, Frames};
use common::h2_worker::H2Worker;
use common::program::Text;
use common::tls::{Authority, Client, Files, Stream};
use common::worker::{PlayedEdge, Program};
use common::{CORES, HOST, ORIGIN, Peer, SECRET, TestEdge, basic, get, ok, secret_hash, setting, setups};

/// A setup as `authorization` wants it.
fn setup_as(authorization: Option<&str>, origins: &str, alpn: &str) -> String {
    let authorization = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    format!(
        "GET /.well-known/ptth/{origins}/ HTTP/1.1\r\nHost: edge.example\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\
         {authorization}ALPN: {alpn}\r\n\r\n"
    )
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

/// A turned HTTP/1.1 link, up.
#[track_caller]
fn link_as(edge: &TestEdge, authorization: &str) -> Peer {
    let before = setups(&edge.status());
    let (link, answer) = edge.set_up(&setup_as(Some(authorization), ORIGIN, "http%2F1.1"));
    assert_eq!(answer.status(), 101, "{answer:?}");
    edge.until(|status| setups(status) > before);
    link
}

#[track_caller]
fn status_as(edge: &TestEdge, authorization: &str) -> u16 {
    edge.set_up(&setup_as(Some(authorization), ORIGIN, "h2")).1.status()
}

/// The workers of all links.
fn workers(edge: &TestEdge) -> Vec<String> {
    let status = edge.status();
    let links = status["links"].as_array().expect("a list");
    let mut ids: Vec<String> = links.iter().map(|link| link["worker"].as_str().expect("a name").to_owned()).collect();
    ids.sort();
    ids
}

// ---- secrets ----

#[test]
fn every_secret_of_a_list_opens_the_credential() {
    let more = format!(
        "[[credential]]\nid = \"both\"\nsecret_hash = [\"{}\", \"{}\"]\norigins = [\"{HOST}\"]\n",
        secret_hash("old"),
        secret_hash("new")
    );
    let edge = setting().more(&more).start();
    for secret in ["old", "new"] {
        assert_eq!(status_as(&edge, &basic("both", secret)), 101);
        assert_eq!(status_as(&edge, &bearer(secret)), 101);
        assert_eq!(status_as(&edge, &basic("web-1", secret)), 401);
    }
    assert_eq!(status_as(&edge, &basic("both", SECRET)), 401);
}

#[test]
fn no_spelling_of_a_list_of_origins_reaches_another_pool() {
    const OTHER: &str = "http%3A%2F%2Fother.example";
    let edge = setting().more("[[pool]]\nname = \"other\"\norigins = [\"http://other.example\"]\n").start();
    let mut waiting = edge.sent("GET /for-another HTTP/1.1\r\nHost: other.example\r\n\r\n");
    edge.until(|status| status["pools"][1]["queued"] == 1);
    for (list, status) in [
        (OTHER.to_owned(), 403),
        (format!("{ORIGIN},{OTHER}"), 403),
        (format!("{OTHER},{ORIGIN}"), 403),
        (format!("{ORIGIN}%2C{OTHER}"), 403),
        (format!("{ORIGIN}%2c{OTHER}"), 403),
        (format!("{ORIGIN},{ORIGIN},{OTHER}"), 403),
        ("http%3A%2F%2FOTHER.example".into(), 403),
        (format!("{OTHER}%3A80"), 403),
        ("%68ttp%3A%2F%2Foth%65r.example".into(), 403),
        ("https%3A%2F%2Fother.example".into(), 403),
        ("pool/other".into(), 403),
        // What could be read in two ways is nobody's origin.
        (format!("{ORIGIN}%252C{OTHER}"), 400),
        ("http%253A%252F%252Fother.example".into(), 400),
        (format!("{ORIGIN}%40other.example"), 400),
        (format!("{ORIGIN}%2F..%2F..%2Fother.example"), 400),
        (format!("{ORIGIN}%23other.example"), 400),
        (format!("{ORIGIN}%3F,{OTHER}"), 400),
        (format!("{ORIGIN}%00.other.example"), 400),
        (format!("{ORIGIN}%0D%0A,{OTHER}"), 400),
        (format!("{ORIGIN}%20,{OTHER}"), 400),
        (format!("{ORIGIN},,{OTHER}"), 400),
        (format!("{ORIGIN},"), 400),
        (format!(",{ORIGIN}"), 400),
        (",".into(), 400),
        (String::new(), 400),
        ("%".into(), 400),
        (format!("{ORIGIN}%2"), 400),
        (format!("{ORIGIN}%FF"), 400),
        ("null".into(), 400),
        ("NULL".into(), 400),
        ("%6Eull".into(), 400),
        (format!("null,{ORIGIN}"), 400),
        (format!("{ORIGIN},null"), 400),
        ("*".into(), 400),
        ("http%3A%2F%2F*".into(), 400),
        ("http%3A%2F%2F*.example".into(), 400),
        ("http://other.example".into(), 400),
        ("pool%2Fother".into(), 400),
        ("pool/app%2F..%2Fother".into(), 400),
    ] {
        for alpn in ["h2", "http%2F1.1"] {
            let (mut link, answer) = edge.set_up(&setup_as(Some(&basic("web-1", SECRET)), &list, alpn));
            assert_eq!(answer.status(), status, "{list}");
            assert_eq!(link.end().0, b"", "{list}");
        }
    }
    let status = edge.status();
    assert_eq!((&status["links"], &status["pools"][1]["queued"]), (&serde_json::json!([]), &1.into()));
    waiting.is_quiet();
    // What means the same is the same.
    for list in [format!("{ORIGIN},{ORIGIN}%3A80"), "http%3a%2f%2fAPP.example".into(), "pool/app".into()] {
        assert_eq!(edge.set_up(&setup_as(Some(&basic("web-1", SECRET)), &list, "h2")).1.status(), 101, "{list}");
    }
}

/// The least time that each of several does take, over many turns in which they follow each other.
fn least_of<const N: usize>(turns: usize, mut each: [&mut dyn FnMut(); N]) -> [std::time::Duration; N] {
    let mut least = [std::time::Duration::MAX; N];
    for _ in 0..turns {
        for (own, least) in each.iter_mut().zip(&mut least) {
            let began = std::time::Instant::now();
            (0..20).for_each(|_| own());
            *least = began.elapsed().min(*least);
        }
    }
    least
}

/// Compared with each other, in one process and in turns, never with a clock: what a wrong credential costs must not tell what
/// is wrong with it, nor where in a long list the right one stands.
#[test]
fn a_wrong_guess_takes_as_long_whatever_is_wrong_with_it() {
    use ptth::edge::config::{Credential, Proof, SecretHash};
    use ptth::edge::credentials::{Credentials, Shown};
    use ptth::wire::Presented;
    let credential = |n: usize| Credential {
        id: format!("web-{n:04}"),
        proof: Proof::Secrets(vec![SecretHash::of(format!("the secret of {n:04}").as_bytes())]),
        origins: vec!["*".parse().unwrap()],
        links_max: 1,
        expires_unix: None,
        legacy: false,
    };
    let list: Vec<Credential> = (0..ptth::limits::CREDENTIALS_MAX).map(credential).collect();
    let credentials = Credentials::new(&list, None, Default::default(), Default::default());
    let presented = |id: &str, secret: &str| Presented::Basic { id: id.into(), secret: secret.into() };
    let wrong = [
        presented("web-0000", "the secret of nobody"),
        presented("web-4095", "the secret of nobody"),
        presented("web-nine", "the secret of nobody"),
        presented("web-0000", "the secret of 4095"),
        presented("web-4095", "the secret of 0000"),
    ];
    let check = |presented: &Presented| {
        let shown = Shown { presented: Some(presented), certificate: None };
        assert!(credentials.check(shown, 0, || true).is_err());
    };
    let [a, b, c, d, e] = &wrong;
    let ratio = || {
        let (mut a, mut b, mut c) = (|| check(a), || check(b), || check(c));
        let (mut d, mut e) = (|| check(d), || check(e));
        let least = least_of(200, [&mut a, &mut b, &mut c, &mut d, &mut e]);
        let (low, high) = (least.iter().min().unwrap(), least.iter().max().unwrap());
        (high.as_secs_f64() / low.as_secs_f64(), least)
    };
    // A machine that is busy with others can make one round look so, and not each of many.
    let seen: Vec<_> = std::iter::repeat_with(ratio).take(20).take_while(|(ratio, _)| *ratio > 1.5).collect();
    assert!(seen.len() < 20, "one of them takes longer than the others: {seen:?}");
}

#[test]
fn no_secret_is_in_a_log_or_in_what_the_admin_address_tells() {
    const GUESS: &str = "gu3ssed-s0-wr0ng";
    const TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    let files = Files::new();
    files.write("jwks.json", "{ \"keys\": [] }");
    files.write("right", &format!("web-1:{SECRET}\n"));
    files.write("wrong", &format!("web-1:{GUESS}\n"));
    files.write("token", &format!("{TOKEN}\n"));
    let tokens =
        format!("tokens = {{ jwks_file = \"{}\", issuer = \"i\", audience = \"a\" }}", files.path("jwks.json"));
    let everything = |address: std::net::SocketAddr, file: &str| {
        let mut command = std::process::Command::new("env"); // the program's own variables are taken away
        command.args(["RUST_LOG=trace", env!("CARGO_BIN_EXE_ptth"), "--log", "text", "edge", "--config", file]);
        let _ = address;
        command
    };
    let edge = common::program::Program::start_as("secrets", Text { edge: &tokens, ..Text::default() }, everything);
    let all =
        [basic("web-1", SECRET), bearer(SECRET), basic("web-1", GUESS), bearer(GUESS), bearer(TOKEN), "Basic !".into()];
    let mut held = Vec::new();
    for authorization in &all {
        let mut peer = Peer::connect(edge.address);
        peer.send(setup_as(Some(authorization), ORIGIN, "h2"));
        peer.response();
        held.push(peer);
        let mut client = common::h2_client::H2Client::connect(edge.address);
        common::peer::until(|| client.send.is_extended_connect_protocol_enabled());
        let setup = http::Request::builder().method("CONNECT").header("authorization", authorization);
        let setup = setup.header("alpn", "h2").uri(format!("http://edge.example/.well-known/ptth/{ORIGIN}/"));
        let setup = setup.extension(h2::ext::Protocol::from("ptth")).body(()).unwrap();
        client.start(setup, false).begun();
    }
    // And our own worker, with each of them.
    let mut logs = Vec::new();
    for (flag, name) in [("--credential-file", "right"), ("--credential-file", "wrong"), ("--bearer-file", "token")] {
        let log = files.0.join(format!("{name}.log"));
        let (address, path) = (format!("http://{}", edge.address), files.path(name));
        let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_ptth"))
            .args(["--log", "text", "worker"])
            .args(worker_for(&address, [flag, &path]))
            .env("RUST_LOG", "trace")
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("the program");
        let wanted = if name == "right" { "link up" } else { "no link" };
        common::peer::until(|| std::fs::read_to_string(&log).unwrap().contains(wanted));
        worker.kill().unwrap();
        worker.wait().unwrap();
        logs.push(std::fs::read_to_string(&log).unwrap());
    }
    for path in ["/status", "/metrics", "/"] {
        logs.push(String::from_utf8(edge.admin_get(path).body).unwrap());
    }
    let log = edge.log();
    for told in ["TRACE", "link up", "setup refused", "a worker is not known", "web-1"] {
        assert!(log.contains(told), "the log should have {told:?}:\n{log}");
    }
    logs.push(log);
    let after = |value: &str| value.split_once(' ').unwrap().1.to_owned();
    let secrets = [
        SECRET.to_owned(),
        GUESS.into(),
        TOKEN.into(),
        TOKEN.rsplit_once('.').unwrap().1.into(),
        after(&basic("web-1", SECRET)),
        after(&basic("web-1", GUESS)),
        secret_hash(SECRET)["sha256:".len()..].into(),
    ];
    for text in &logs {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret}");
        }
    }
}

// ---- files ----

/// A folder of credentials for an edge.
struct Folder {
    files: Files,
    edge: TestEdge,
}

impl Folder {
    fn start(cores: u16, files: &[(&str, &str)]) -> Folder {
        let folder = Files::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let line = format!("credentials_dir = \"{}\"", folder.0.display());
        Folder { edge: setting().cores(cores).edge(&line).start(), files: folder }
    }

    /// Replaces a file at once.
    fn put(&self, name: &str, text: &str) {
        self.files.write(".new", text);
        std::fs::rename(self.files.0.join(".new"), self.files.0.join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.files.0.join(name)).unwrap();
    }
}

fn file(id: &str, secrets: &[&str], more: &str) -> String {
    let hashes: Vec<String> = secrets.iter().map(|secret| format!("\"{}\"", secret_hash(secret))).collect();
    format!("id = \"{id}\"\nsecret_hash = [{}]\norigins = [\"{HOST}\"]\n{more}\n", hashes.join(", "))
}

#[test]
fn a_file_that_comes_is_a_credential_and_one_that_goes_ends_its_links_alone() {
    for cores in CORES {
        let folder = Folder::start(cores, &[("a.toml", &file("a", &["aaa"], ""))]);
        let edge = &folder.edge;
        let mut gone: Vec<Peer> = (0..3).map(|_| link_as(edge, &bearer("aaa"))).collect();
        assert_eq!(status_as(edge, &bearer("bbb")), 401);
        folder.put("b.toml", &file("b", &["bbb"], ""));
        edge.reload_files();
        let mut stays = link_as(edge, &bearer("bbb"));

        folder.remove("a.toml");
        edge.reload_files();
        gone.iter_mut().for_each(Peer::ends);
        edge.until_links(1);
        assert_eq!(workers(edge), ["b"]);
        assert_eq!(status_as(edge, &bearer("aaa")), 401);
        let mut client = edge.sent(get("/"));
        stays.serve("served by the other one");
        assert_eq!(client.response().text(), "served by the other one");
    }
}

#[test]
fn a_change_is_found_without_being_asked_for() {
    let folder = Folder::start(2, &[("a.toml", &file("a", &["aaa"], ""))]);
    let mut link = link_as(&folder.edge, &bearer("aaa"));
    folder.put("a.toml", &file("a", &["bbb"], ""));
    link.ends();
    assert_eq!(status_as(&folder.edge, &bearer("aaa")), 401);
    assert_eq!(status_as(&folder.edge, &bearer("bbb")), 101);
}

#[test]
fn what_runs_on_a_withdrawn_link_is_finished_and_nothing_new_begins() {
    let folder = Folder::start(1, &[("a.toml", &file("a", &["aaa"], "")), ("b.toml", &file("b", &["bbb"], ""))]);
    let edge = &folder.edge;
    let (link, answer) = edge.set_up(&setup_as(Some(&bearer("aaa")), ORIGIN, "h2"));
    assert_eq!(answer.status(), 101);
    let old = H2Worker::on(link, h2::server::Builder::new().max_concurrent_streams(10));
    edge.until_credits(10);
    let mut first = edge.sent(get("/first"));
    let running = old.accept();

    folder.remove("a.toml");
    edge.reload_files();
    edge.until_credits(0);
    let mut second = edge.sent(get("/second"));
    edge.until_queued(1);
    old.is_quiet();
    let mut other = link_as(edge, &bearer("bbb"));
    assert_eq!(other.serve("by another").target(), "/second");
    assert_eq!(second.response().text(), "by another");

    running.ok("finished");
    assert_eq!(first.response().text(), "finished");
    assert_eq!(old.end(), Ok(()), "GOAWAY, and a close after the last stream");
    edge.until_links(1);
}

#[test]
fn a_withdrawn_link_hears_goaway() {
    let folder = Folder::start(1, &[("a.toml", &file("a", &["aaa"], ""))]);
    let (link, answer) = folder.edge.set_up(&setup_as(Some(&bearer("aaa")), ORIGIN, "h2"));
    assert_eq!(answer.status(), 101);
    let mut frames = Frames::on(link, &[(frames::MAX_CONCURRENT_STREAMS, 10)]);
    folder.edge.until_credits(10);
    folder.remove("a.toml");
    folder.edge.reload_files();
    let goaway = frames.next(|frame| frame.kind == frames::GOAWAY);
    assert_eq!(goaway.goaway_code(), frames::NO_ERROR);
    frames.ends();
}

#[test]
fn a_request_that_does_not_end_ends_with_the_drain_time() {
    let files = Files::new();
    files.write("a.toml", &file("a", &["aaa"], ""));
    let line = format!("credentials_dir = \"{}\"", files.0.display());
    let edge = setting().drain_max("300ms").edge(&line).start();
    let mut link = link_as(&edge, &bearer("aaa"));
    let mut client = edge.sent("POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 0\r\n\r\n");
    link.request();
    std::fs::remove_file(files.0.join("a.toml")).unwrap();
    edge.reload_files();
    assert_eq!(client.response().status(), 502);
    link.ends();
    edge.until_links(0);
}

#[test]
fn a_credential_that_changes_ends_the_links_that_the_change_concerns() {
    let two = |secrets: &[&str], more: &str| file("a", secrets, more);
    let folder = Folder::start(2, &[("a.toml", &two(&["old"], ""))]);
    let edge = &folder.edge;
    let mut old = link_as(edge, &bearer("old"));
    folder.put("a.toml", &two(&["old", "new"], ""));
    edge.reload_files();
    let mut new = link_as(edge, &bearer("new"));
    assert_eq!(workers(edge), ["a", "a"]);
    // The old secret is taken out of use: who came with it has to come again.
    folder.put("a.toml", &two(&["new"], ""));
    edge.reload_files();
    old.ends();
    edge.until_links(1);
    // Fewer links, a date far away: nothing that a link has to end for.
    folder.put("a.toml", &two(&["new"], "links_max = 1\nexpires = \"2099-01-01T00:00:00Z\""));
    edge.reload_files();
    assert_eq!(status_as(edge, &bearer("new")), 429);
    // A file that cannot be read changes nothing.
    folder.put("a.toml", "id = ");
    edge.reload_files();
    assert_eq!(workers(edge), ["a"]);
    let mut client = edge.sent(get("/"));
    new.serve("still here");
    assert_eq!(client.response().text(), "still here");
    // Other origins.
    folder.put("a.toml", &two(&["new"], "").replace(HOST, "http://app.example"));
    edge.reload_files();
    new.ends();
    edge.until_links(0);
    assert_eq!(status_as(edge, &bearer("new")), 101);
}

#[test]
fn a_date_that_is_moved_moves_the_end_of_the_links_that_are_up() {
    let folder = Folder::start(1, &[("a.toml", &file("a", &["aaa"], ""))]);
    let mut link = link_as(&folder.edge, &bearer("aaa"));
    folder.put("a.toml", &file("a", &["aaa"], "expires = \"2099-01-01T00:00:00Z\""));
    folder.edge.reload_files();
    folder.put("a.toml", &file("a", &["aaa"], "expires = \"2001-01-01T00:00:00Z\""));
    folder.edge.reload_files();
    link.ends();
    assert_eq!(status_as(&folder.edge, &bearer("aaa")), 401);
}

#[test]
fn a_credential_that_is_withdrawn_while_its_worker_sets_up_has_no_link() {
    let text = file("a", &["aaa"], "");
    let folder = Folder::start(2, &[("a.toml", &text)]);
    for _ in 0..30 {
        let (mut link, answer) = folder.edge.set_up(&setup_as(Some(&bearer("aaa")), ORIGIN, "http%2F1.1"));
        assert_eq!(answer.status(), 101);
        folder.remove("a.toml"); // while the link goes to its core, as often as not
        folder.edge.reload_files();
        link.ends();
        folder.put("a.toml", &text);
        folder.edge.reload_files();
    }
    folder.edge.until_links(0);
}

#[test]
fn a_credential_that_may_not_set_up_as_before_the_drafts_any_more_loses_those_links_alone() {
    let text = |legacy: bool| {
        file("dev", &["ddd"], &format!("legacy = {legacy}"))
            .replace(&format!("[\"{HOST}\"]"), "[\"http://app.example\"]")
    };
    let folder = Folder::start(2, &[("dev.toml", &text(true))]);
    let edge = &folder.edge;
    let (mut old, answer) = edge.set_up(&format!(
        "POST /dev HTTP/1.1\r\nHost: edge.example\r\nConnection: Upgrade\r\nUpgrade: PTTH/1.0\r\nContent-Length: 0\r\n\
         Authorization: {}\r\n\r\n",
        bearer("ddd")
    ));
    assert_eq!(answer.status(), 101, "{answer:?}");
    edge.until_links(1);
    let _new = link_as(edge, &bearer("ddd"));
    folder.put("dev.toml", &text(false));
    edge.reload_files();
    old.ends();
    edge.until_links(1);
}

/// How many clients' connections the edge takes, by its own account.
fn connections_max(edge: &TestEdge) -> u64 {
    edge.status()["limits"]["connections_max"].as_u64().expect("a number")
}

#[test]
fn descriptors_are_kept_for_links_whose_credentials_come_later() {
    let files = Files::new();
    files.write("jwks.json", "{ \"keys\": [] }");
    let folder = format!("credentials_dir = \"{}\"", files.0.display());
    let tokens =
        format!("tokens = {{ jwks_file = \"{}\", issuer = \"i\", audience = \"a\" }}", files.path("jwks.json"));
    let (fixed, folder, tokens) = (setting().start(), setting().edge(&folder).start(), setting().edge(&tokens).start());
    // A quarter of all, where 32 are enough for the one credential that there is.
    let quarter = connections_max(&fixed) / 4;
    for edge in [&folder, &tokens] {
        assert!(connections_max(edge) <= connections_max(&fixed) - quarter + 64, "{}", connections_max(edge));
    }
    assert_eq!(connections_max(&folder), connections_max(&tokens));
}

// ---- certificates ----

/// An edge with TLS that knows the workers of one authority, a plain address beside it, and the credential `web-2` for the
/// name `web-2.workers.internal`.
struct Mutual {
    authority: Authority,
    workers: Authority,
    files: Files,
    edge: TestEdge,
}

fn mutual(drain_max: &str) -> Mutual {
    mutual_with(drain_max, "")
}

fn mutual_with(drain_max: &str, tables: &str) -> Mutual {
    let (authority, workers, files) = (Authority::new(), Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    files.write("workers.pem", &workers.pem());
    let entry = files.entry("edge").replace(" }", &format!(", worker_ca = \"{}\" }}", files.path("workers.pem")));
    let more = format!(
        "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"workers\"]\n[[credential]]\nid = \"web-2\"\n\
         certificate_name = \"Web-2.Workers.internal\"\norigins = [\"{HOST}\"]\nlinks_max = 2\n{tables}"
    );
    let edge = setting().drain_max(drain_max).listen(&format!("tls = {entry}")).more(&more).start();
    Mutual { authority, workers, files, edge }
}

impl Mutual {
    fn client(&self, names: &[&str]) -> Client {
        Client::with_certificate(&self.authority, self.workers.issue(names))
    }

    /// Sets up over TLS, and says what was answered.
    #[track_caller]
    fn set_up(&self, client: &Client, authorization: Option<&str>) -> (Stream, u16) {
        let mut link = client.connect(&self.edge, HOST);
        link.send(setup_as(authorization, ORIGIN, "http%2F1.1"));
        let head = read_head(&mut link);
        (link, head.split(' ').nth(1).unwrap().parse().unwrap())
    }
}

#[track_caller]
fn read_head(link: &mut Stream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        link.0.read_exact(&mut byte).expect("a head");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

/// What comes until the edge ends the connection.
fn rest(link: &mut Stream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = link.0.read_to_end(&mut said); // FIN without a word of TLS is an error here
    said
}

#[test]
fn a_certificate_with_the_credentials_name_is_enough() {
    let site = mutual("20s");
    for names in
        [&["web-2.workers.internal"][..], &["WEB-2.workers.internal"], &["x.example", "web-2.workers.internal"]]
    {
        let (mut link, status) = site.set_up(&site.client(names), None);
        assert_eq!(status, 101, "{names:?}");
        site.edge.until_links(1);
        assert_eq!(workers(&site.edge), ["web-2"]);
        let mut client = Client::new(&site.authority).connect(&site.edge, HOST);
        client.send(get("/"));
        assert!(read_head(&mut link).starts_with("GET / "));
        link.send(ok("over mutual TLS"));
        assert_eq!(client.answer().1, b"over mutual TLS");
        drop(link);
        site.edge.until_links(0);
    }
}

#[test]
fn other_names_open_nothing_and_a_wrong_secret_is_not_healed_by_a_certificate() {
    let site = mutual("20s");
    for names in [
        &["*.workers.internal"][..],
        &["web-1"],
        &["web-22.workers.internal"],
        &["x.web-2.workers.internal"],
        &["workers.internal"],
    ] {
        assert_eq!(site.set_up(&site.client(names), None).1, 401, "{names:?}");
    }
    let right = site.client(&["web-2.workers.internal"]);
    for (authorization, status) in [
        (basic("web-1", SECRET), 101),
        (basic("web-1", "wrong"), 401),
        (basic("web-2", ""), 401),
        (basic("web-2", SECRET), 401),
        (bearer("web-2.workers.internal"), 401),
    ] {
        assert_eq!(site.set_up(&right, Some(&authorization)).1, status, "{authorization}");
    }
    // Without a certificate, and where none can be shown.
    assert_eq!(site.set_up(&Client::new(&site.authority), None).1, 401);
    let mut plain = Peer::connect(site.edge.addresses[1]);
    plain.send(setup_as(None, ORIGIN, "h2"));
    assert_eq!(plain.response().status(), 401);
}

#[test]
fn a_credential_with_a_certificate_holds_so_many_links_and_no_more() {
    let site = mutual("20s");
    let client = site.client(&["web-2.workers.internal"]);
    let held: Vec<_> = (0..2).map(|_| site.set_up(&client, None)).collect();
    assert!(held.iter().all(|(_, status)| *status == 101));
    assert_eq!(site.set_up(&client, None).1, 429);
}

#[test]
fn a_session_that_is_resumed_brings_no_certificate_whose_authority_is_gone() {
    let site = mutual("20s");
    let client = site.client(&["web-2.workers.internal"]);
    let (mut link, status) = site.set_up(&client, None);
    assert_eq!(status, 101);
    // The ticket has come with it.
    assert_eq!(link.0.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
    site.edge.until_links(1);
    let mut asks = Client::new(&site.authority).connect(&site.edge, HOST);
    asks.send(get("/"));
    read_head(&mut link);
    link.send(ok(""));
    let (link, status) = site.set_up(&client, None);
    assert_eq!((status, link.0.conn.handshake_kind()), (101, Some(rustls::HandshakeKind::Resumed)));
    site.files.write("workers.pem", &Authority::new().pem());
    site.edge.reload_files();
    let (link, status) = site.set_up(&client, None);
    assert_eq!((status, link.0.conn.handshake_kind()), (401, Some(rustls::HandshakeKind::Resumed)));
}

#[test]
fn links_end_when_nobody_vouches_for_their_certificates_any_more() {
    let site = mutual("20s");
    let client = site.client(&["web-2.workers.internal"]);
    let (link, status) = site.set_up(&client, None);
    assert_eq!(status, 101);
    let nameless = Client::new(&site.authority);
    let (mut by_secret, status) = site.set_up(&nameless, Some(&basic("web-1", SECRET)));
    assert_eq!(status, 101);
    site.edge.until_links(2);
    // One more authority takes nothing from anybody.
    let other = Authority::new();
    site.files.write("workers.pem", &(other.pem() + &site.workers.pem()));
    site.edge.reload_files();
    let (held, status) = site.set_up(&client, None);
    assert_eq!(status, 101);
    site.edge.until_links(3);
    // Both have to go, the one that came before as well as the one that came after.
    site.files.write("workers.pem", &other.pem());
    site.edge.reload_files();
    site.edge.until_links(1);
    assert_eq!(workers(&site.edge), ["web-1"]);
    for mut gone in [link, held] {
        assert_eq!(rest(&mut gone), b"");
    }
    let mut asks = nameless.connect(&site.edge, HOST);
    asks.send(get("/"));
    assert!(read_head(&mut by_secret).starts_with("GET / "));
    by_secret.send(ok("a secret needs no authority"));
    assert_eq!(asks.answer().1, b"a secret needs no authority");
}

#[test]
fn a_setup_on_an_old_connection_is_held_against_the_authorities_of_now() {
    let site = mutual("20s");
    let client = site.client(&["web-2.workers.internal"]);
    let mut old: Vec<Stream> = (0..3).map(|_| client.connect(&site.edge, HOST)).collect();
    let mut answer = |authorization: Option<&str>| {
        let mut link = old.pop().expect("one more");
        link.send(setup_as(authorization, ORIGIN, "http%2F1.1"));
        let status = read_head(&mut link).split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        (status, link)
    };
    assert_eq!(answer(None).0, 101);
    site.files.write("workers.pem", &Authority::new().pem());
    site.edge.reload_files();
    assert_eq!(answer(None).0, 401);
    assert_eq!(answer(Some(&basic("web-1", SECRET))).0, 101);
}

#[test]
fn an_address_that_loses_its_worker_ca_loses_the_links_that_came_by_it() {
    let site = mutual("20s");
    let client = site.client(&["web-2.workers.internal"]);
    let (mut link, status) = site.set_up(&client, None);
    assert_eq!(status, 101);
    site.edge.until_links(1);
    let mut old = client.connect(&site.edge, HOST);
    site.edge.reload(|config| {
        config.listens[0].tls[0].worker_ca = None;
        config.credentials.retain(|credential| credential.id != "web-2");
    });
    old.send(setup_as(None, ORIGIN, "http%2F1.1"));
    let answer = rest(&mut old); // none, where it is closed already
    assert!(!answer.starts_with(b"HTTP/1.1 101"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(rest(&mut link), b"");
    site.edge.until_alone();
    site.edge.until_links(0);
    assert_eq!(site.set_up(&client, None).1, 401);
}

/// Two addresses with an authority each, and a third with both; the credentials `a` and `b` for the same name, each from one.
#[test]
fn a_name_from_another_authority_opens_nothing() {
    let (authority, files, workers_of) = (Authority::new(), Files::new(), [Authority::new(), Authority::new()]);
    files.issue(&authority, "edge", &[HOST]);
    files.write("a.pem", &workers_of[0].pem());
    files.write("b.pem", &workers_of[1].pem());
    let entry = |ca: &str| files.entry("edge").replace(" }", &format!(", worker_ca = \"{}\" }}", files.path(ca)));
    let credential = |id: &str| {
        format!(
            "[[credential]]\nid = \"{id}\"\ncertificate_name = \"same.internal\"\ncertificate_ca = \"{}\"\n\
             origins = [\"{HOST}\"]\n",
            files.path(&format!("{id}.pem"))
        )
    };
    let listen = |port: u16, tls: &str| {
        format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\naccept = [\"workers\"]\ntls = {tls}\n")
    };
    let both = format!("[{}, {}]", entry("a.pem"), entry("b.pem"));
    let more = listen(3, &entry("b.pem")) + &listen(4, &both) + &credential("a");
    let check = |edge: &TestEdge, address: usize, by: usize, want: Option<&str>| {
        let shown = workers_of[by].issue(&["same.internal"]);
        let mut link = Client::with_certificate(&authority, shown).connect_to(edge.addresses[address], HOST);
        link.send(setup_as(None, ORIGIN, "http%2F1.1"));
        let head = read_head(&mut link);
        match want {
            Some(id) => {
                assert!(head.starts_with("HTTP/1.1 101 "), "{address} {by} {head}");
                edge.until_links(1);
                assert_eq!(workers(edge), [id], "{address} {by}");
                drop(link);
                edge.until_links(0);
            }
            None => assert!(head.starts_with("HTTP/1.1 401 "), "{address} {by} {head}"),
        }
    };
    let edge = setting().listen(&format!("tls = {}", entry("a.pem"))).more(&more).start();
    check(&edge, 0, 0, Some("a"));
    check(&edge, 1, 1, None);
    check(&edge, 2, 0, Some("a"));
    check(&edge, 2, 1, None);
    let edge = setting().listen(&format!("tls = {}", entry("a.pem"))).more(&(more + &credential("b"))).start();
    check(&edge, 0, 0, Some("a"));
    check(&edge, 1, 1, Some("b"));
    check(&edge, 2, 0, Some("a"));
    check(&edge, 2, 1, Some("b"));
}

// ---- what our own worker makes of it ----

const SERVER: &str = "http://127.0.0.1:1"; // nobody asks it

/// The arguments of a worker for `edge`, and one more.
fn worker_for<'a>(edge: &'a str, file: [&'a str; 2]) -> Vec<&'a str> {
    let mut arguments = vec!["--edge", edge, "--serve", "http://app.example", "--to", SERVER, "--links", "1"];
    arguments.extend(file);
    arguments
}

/// The next setup of a worker, refused with `answer`; what it presented.
#[track_caller]
fn refuse(edge: &PlayedEdge, answer: &str) -> String {
    let mut peer = edge.accept_raw();
    let presented = peer.request().field("authorization").expect("a secret").to_owned();
    peer.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"));
    presented
}

#[test]
fn a_worker_reads_its_secret_again_before_each_dial() {
    for (flag, texts, wants) in [
        ("--credential-file", ["web-1:old\n", "web-1:new\n"], [basic("web-1", "old"), basic("web-1", "new")]),
        ("--bearer-file", ["old.token.x\n", "new.token.y\n"], [bearer("old.token.x"), bearer("new.token.y")]),
    ] {
        let (edge, files) = (PlayedEdge::start(), Files::new());
        files.write("secret", texts[0]);
        let (address, path) = (format!("http://{}", edge.address), files.path("secret"));
        let program = Program::start(&worker_for(&address, [flag, &path]), None);
        assert_eq!(refuse(&edge, "401 Unauthorized"), wants[0]);
        files.write("new", texts[1]);
        // One more dial may be on its way with what was there before.
        std::fs::rename(files.0.join("new"), files.0.join("secret")).unwrap();
        let presented = [refuse(&edge, "401 Unauthorized"), refuse(&edge, "401 Unauthorized")];
        assert_eq!(presented[1], wants[1], "{flag}");
        // What cannot be read, or is no secret, leaves the one that was there, and is told.
        files.write("secret", "two\nlines\n");
        refuse(&edge, "401 Unauthorized");
        assert_eq!(refuse(&edge, "401 Unauthorized"), wants[1]);
        program.says("the secret's file cannot be used; what it held before is");
        std::fs::remove_file(files.0.join("secret")).unwrap();
        refuse(&edge, "401 Unauthorized");
        assert_eq!(refuse(&edge, "401 Unauthorized"), wants[1]);
    }
}

#[test]
fn a_worker_leaves_an_edge_alone_for_as_long_as_a_429_says() {
    for (answer, redial) in [
        ("429 Too Many Requests\r\nRetry-After: 7", "redial_ms=71"),
        ("429 Too Many Requests\r\nRetry-After: 86400", "redial_ms=601"), // a minute is enough
        ("429 Too Many Requests\r\nRetry-After: tomorrow", "redial_ms=1"),
        ("429 Too Many Requests", "redial_ms=1"),
        ("503 Service Unavailable\r\nRetry-After: 7", "redial_ms=1"), // another edge may be there at once
    ] {
        let (edge, files) = (PlayedEdge::start(), Files::new());
        files.write("secret", "web-1:s3cret\n");
        let (address, path) = (format!("http://{}", edge.address), files.path("secret"));
        let program = Program::start(&worker_for(&address, ["--credential-file", &path]), None);
        refuse(&edge, answer);
        program.says(redial); // the first pause is 100 to 200 ms
    }
}

// ---- before it is known who somebody is ----

/// A connection that comes from this address of loopback.
fn connect_from(edge: &TestEdge, from: &str) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: std::net::SocketAddr = format!("{from}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&edge.address.into()).unwrap();
    Peer::new(socket.into())
}

#[track_caller]
fn set_up_from(edge: &TestEdge, from: &str, authorization: &str) -> common::Message {
    let mut link = connect_from(edge, from);
    link.send(setup_as(Some(authorization), ORIGIN, "http%2F1.1"));
    link.response()
}

/// An edge that counts what comes from loopback, too.
fn counting(limits: &str) -> TestEdge {
    setting().cores(2).credential("links_max = 2").more(&format!("[limits]\nsources_exempt = []\n{limits}\n")).start()
}

#[test]
fn a_thousand_wrong_guesses_from_one_address_are_slowed() {
    let edge = counting("setup_failures_per_source_max = 20");
    let began = std::time::Instant::now();
    let mut refused = 0;
    for n in 0..1_000 {
        let answer = set_up_from(&edge, "127.0.0.2", &basic("web-1", &format!("guess {n}")));
        match answer.status() {
            401 => refused += 1,
            429 => {
                let after: u64 = answer.field("retry-after").expect("it says when").parse().unwrap();
                assert!((1..=3).contains(&after), "one in three seconds: {after}");
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    // Twenty at once, and one more for every three seconds that the test took.
    let allowed = 20 + began.elapsed().as_secs() / 3 + 1;
    assert!((20..=allowed).contains(&refused), "{refused} guesses were looked at, {allowed} may be");
    let status = edge.status();
    assert_eq!(status["counters"]["setups_refused"]["unauthorized"], refused);
    assert_eq!(status["counters"]["setups_refused"]["rate"], 1_000 - refused);
    // Others are not concerned.
    assert_eq!(set_up_from(&edge, "127.0.0.3", &basic("web-1", SECRET)).status(), 101);
}

#[test]
fn only_a_wrong_credential_and_a_wrong_origin_count_as_failures() {
    let edge = counting("setup_failures_per_source_max = 2\nsetups_per_source_max = 1000");
    let right = basic("web-1", SECRET);
    // 429 for too many links, again and again.
    let held: Vec<Peer> = (0..2)
        .map(|_| {
            let mut link = connect_from(&edge, "127.0.0.2");
            link.send(setup_as(Some(&right), ORIGIN, "http%2F1.1"));
            assert_eq!(link.response().status(), 101);
            link
        })
        .collect();
    edge.until_links(2);
    for _ in 0..5 {
        let answer = set_up_from(&edge, "127.0.0.2", &right);
        assert!(answer.status() == 429 && answer.text().contains("links"), "{answer:?}");
    }
    drop(held);
    edge.until_links(0);
    let answer_to = |setup: &str| {
        let mut peer = connect_from(&edge, "127.0.0.2");
        peer.send(setup);
        peer.response()
    };
    let good = setup_as(Some(&right), ORIGIN, "h2");
    for _ in 0..3 {
        for (setup, status) in [
            (setup_as(Some(&right), "null", "h2"), 400),
            (setup_as(Some("Basic !"), ORIGIN, "h2"), 400),
            (good.replace("GET ", "POST "), 405),
            (good.replace("Upgrade: ptth\r\n", ""), 426),
            (setup_as(Some(&right), ORIGIN, "h3"), 406),
        ] {
            assert_eq!(answer_to(&setup).status(), status, "{setup}");
        }
    }
    assert_eq!(answer_to(&setup_as(Some(&right), "http%3A%2F%2Fother.example", "h2")).status(), 403);
    let wrong = setup_as(Some(&basic("web-1", "wrong")), ORIGIN, "h2");
    assert_eq!(answer_to(&wrong).status(), 401);
    let answer = answer_to(&wrong);
    assert!(answer.status() == 429 && answer.text().contains("too many setups"), "{answer:?}");
}

#[test]
fn a_right_credential_passes_while_its_neighbours_fail() {
    let edge = counting("setup_failures_per_source_max = 3");
    let neighbour = |want: u16| {
        for guess in ["wrong", "", "web-1"] {
            let answer = set_up_from(&edge, "127.0.0.2", &basic("web-1", guess));
            assert_eq!(answer.status(), want, "{answer:?}");
        }
    };
    neighbour(401);
    for authorization in [basic("web-1", SECRET), bearer(SECRET)] {
        neighbour(429);
        let mut link = connect_from(&edge, "127.0.0.2");
        link.send(setup_as(Some(&authorization), ORIGIN, "http%2F1.1"));
        assert_eq!(link.response().status(), 101, "{authorization}");
        edge.until_links(1);
        drop(link);
        edge.until_links(0);
    }
    // It opens nothing else, and to nobody else.
    neighbour(429);
    let mut forbidden = connect_from(&edge, "127.0.0.2");
    forbidden.send(setup_as(Some(&basic("web-1", SECRET)), "http%3A%2F%2Fother.example", "h2"));
    assert_eq!(forbidden.response().status(), 403);
}

#[test]
fn a_certificate_passes_while_its_neighbours_fail() {
    let site = mutual_with("20s", "[limits]\nsources_exempt = []\nsetup_failures_per_source_max = 2\n");
    let (right, wrong) = (site.client(&["web-2.workers.internal"]), site.client(&["web-9.workers.internal"]));
    let statuses = |client: &Client| -> Vec<u16> { (0..3).map(|_| site.set_up(client, None).1).collect() };
    assert_eq!(statuses(&wrong), [401, 401, 429]);
    let (link, status) = site.set_up(&right, None);
    assert_eq!(status, 101);
    drop(link);
    assert_eq!(statuses(&wrong), [429, 429, 429]);
}

#[test]
fn a_right_credential_has_the_bound_of_its_source_for_itself() {
    let limits = "[limits]\nsources_exempt = []\nsetups_per_source_max = 3\nsetup_failures_per_source_max = 0\n";
    let other = format!("[[credential]]\nid = \"o\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n", secret_hash("o"));
    let edge = setting().more(&format!("{limits}{other}")).start();
    let statuses = |authorization: &str| -> Vec<u16> {
        (0..4).map(|_| set_up_from(&edge, "127.0.0.2", authorization).status()).collect()
    };
    assert_eq!(statuses(&basic("web-1", "wrong")), [401, 401, 401, 429]);
    assert_eq!(statuses(&basic("web-1", SECRET)), [101, 101, 101, 429]);
    assert_eq!(statuses(&basic("o", "o")), [101, 101, 101, 429]);
    assert_eq!(set_up_from(&edge, "127.0.0.3", &basic("web-1", SECRET)).status(), 101);
}

#[test]
fn what_comes_to_an_address_for_clients_alone_is_held_against_nobody() {
    let clients = "[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]\n";
    let limits = "[limits]\nsources_exempt = []\nsetups_per_source_max = 3\nsetup_failures_per_source_max = 2\n";
    let edge = setting().more(&format!("{clients}{limits}")).start();
    for _ in 0..5 {
        let mut lost = Peer::connect(edge.addresses[1]);
        lost.send(setup_as(Some(&basic("web-1", "wrong")), ORIGIN, "h2"));
        assert_eq!(lost.response().status(), 404);
    }
    let status = edge.set_up(&setup_as(Some(&basic("web-1", "wrong")), ORIGIN, "h2")).1.status();
    assert_eq!(status, 401, "its source has tried nothing yet");
}

#[test]
fn an_address_has_so_many_setups_and_exempt_ones_have_as_many_as_they_like() {
    let edge = counting("setups_per_source_max = 3\nsetup_failures_per_source_max = 0");
    let statuses = |from: &str| -> Vec<u16> {
        (0..4).map(|_| set_up_from(&edge, from, &basic("web-1", "wrong")).status()).collect()
    };
    assert_eq!(statuses("127.0.0.2"), [401, 401, 401, 429]);
    assert_eq!(statuses("127.0.0.3"), [401, 401, 401, 429]);
    let limits = "[limits]\nsources_exempt = [\"127.0.0.2\"]\nsetups_per_source_max = 1\n";
    let exempt = setting().more(limits).start();
    for _ in 0..5 {
        assert_eq!(set_up_from(&exempt, "127.0.0.2", &basic("web-1", "wrong")).status(), 401);
    }
}

#[test]
fn nobody_gets_a_byte_of_a_request_before_it_is_known_who_it_is() {
    let edge = common::edge();
    const SIGN: &str = "/what-nobody-may-see";
    let mut clients: Vec<Peer> = (0..5).map(|_| edge.sent(get(SIGN))).collect();
    edge.until_queued(5);
    let whole = setup_as(Some(&basic("web-1", "wrong")), ORIGIN, "h2");
    let right = setup_as(Some(&basic("web-1", SECRET)), ORIGIN, "h2");
    let half = right[..right.len() - 2].to_owned();
    let mut peers: Vec<Peer> = [
        whole.clone(),
        whole.replace("h2", "http%2F1.1"),
        setup_as(None, ORIGIN, "h2"),
        setup_as(Some("Basic"), ORIGIN, "h2"),
        setup_as(Some(&basic("web-1", SECRET)), "null", "h2"),
        setup_as(Some(&basic("web-1", SECRET)), "http%3A%2F%2Fother.example", "h2"),
        setup_as(Some(&basic("web-1", SECRET)), ORIGIN, "h3"),
        right.replace("GET ", "POST "),
        right.replace("HTTP/1.1", "HTTP/1.0"),
        format!("{right}\0\0\0"),
    ]
    .iter()
    .map(|text| edge.sent(text))
    .collect();
    for peer in &mut peers {
        let (said, _) = peer.end();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains(SIGN) && !said.contains("PRI *") && !said.contains("101 "), "{said}");
    }
    // Who has not finished, or has said nothing, hears nothing.
    for begun in [half, "GET ".to_owned(), String::new()] {
        edge.sent(&begun).is_quiet();
    }
    edge.until_queued(5);
    let mut link = edge.h1_link();
    for _ in 0..5 {
        assert_eq!(link.serve("seen").target(), SIGN);
    }
    assert!(clients.iter_mut().all(|client| client.response().text() == "seen"));
}
