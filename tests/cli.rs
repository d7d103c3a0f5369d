//! The built program, from outside: exit codes, what goes to stdout, and one line of stderr for each mistake.

use ptth::edge::config::{EdgeConfig, Proof, SecretHash};
use ptth::edge::report::{LinkReport, PoolReport, Report};
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn ptth(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    outcome(&mut command)
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Fails with `code`, says one line on stderr and nothing on stdout.
#[track_caller]
fn check_refused(arguments: &[&str], code: i32, want: &str) {
    let got = ptth(arguments);
    assert_eq!(got.code, code, "{arguments:?}: {}", got.err);
    assert_eq!(got.out, "", "{arguments:?}");
    assert!(got.err.ends_with('\n') && got.err.lines().count() == 1, "{arguments:?}: {}", got.err);
    assert!(got.err.contains(want), "{arguments:?}: {}", got.err);
}

/// A directory of its own; gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("ptth-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sample(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).display().to_string()
}

#[test]
fn help_names_every_command_and_shows_an_example() {
    let help = ptth(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    for word in [
        "demo",
        "edge",
        "worker",
        "check",
        "doctor",
        "credential",
        "status",
        "top",
        "drain",
        "--log",
        "RUST_LOG",
        "Example",
    ] {
        assert!(help.out.contains(word), "no {word} in\n{}", help.out);
    }
    let same = ptth(&["help"]);
    assert_eq!((same.code, same.out), (0, help.out));
    for command in ["demo", "edge", "worker", "check", "doctor", "credential", "status", "top", "drain"] {
        let own = ptth(&[command, "--help"]);
        assert!(own.code == 0 && own.out.contains("Usage:") && own.err.is_empty(), "{command}");
    }
    let worker = ptth(&["worker", "--help"]).out;
    for flag in [
        "--config",
        "--edge",
        "--serve",
        "--pool",
        "--to",
        "--credential-file",
        "--bearer-file",
        "--links",
        "--concurrency",
    ] {
        assert!(worker.contains(flag), "no {flag} in\n{worker}");
    }
    let version = ptth(&["--version"]);
    assert_eq!((version.code, version.out), (0, format!("ptth {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_arguments_are_one_line_and_exit_code_2() {
    for (arguments, want) in [
        (&[][..], "no command; try `ptth demo`"),
        (&["credential"], "no command"),
        (&["serve"], "unrecognized subcommand 'serve'"),
        (&["wrker"], "a similar subcommand exists: 'worker'"),
        (&["edge"], "required arguments were not provided: --config <FILE>"),
        (&["edge", "--confg", "x"], "a similar argument exists: '--config'"),
        (&["edge", "edge.toml"], "unexpected argument 'edge.toml'"),
        (&["worker", "--links", "x"], "invalid value 'x' for '--links <N>'"),
        (&["worker", "--serve", "http://a", "--pool", "b"], "cannot be used with"),
        (&["check"], "required arguments were not provided: --config <FILE>"),
        (&["--log", "xml", "demo"], "possible values: text, json"),
        (&["credential", "new"], "required arguments were not provided: <NAME>"),
        (&["credential", "new", "a:b"], "NAME has a character other than letters"),
        (&["credential", "new", "a\nb"], "NAME has a character other than letters"),
        (&["credential", "new", ""], "NAME is empty"),
        (&["credential", "new", "web-1", "--origin", "http://a/b"], "--origin is not an origin"),
        (&["status"], "required arguments were not provided: --admin <ADDR>"),
        (&["top"], "required arguments were not provided: --admin <ADDR>"),
        (&["status", "--admin", "nowhere"], "--admin is not an address; write host:port"),
        (&["status", "--admin", "http://127.0.0.1:1/status"], "--admin is not an address"),
        (&["drain", "--admin", "127.0.0.1:x"], "--admin is not an address"),
        (&["doctor", "--admin", "nowhere"], "--admin is not an address; write host:port"),
    ] {
        check_refused(arguments, 2, want);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
    let got = outcome(command.args(["worker"]).env("RUST_LOG", "ptth=nonsense=x"));
    assert_eq!((got.code, got.err.lines().count()), (2, 1), "{}", got.err);
    assert!(got.err.contains("RUST_LOG is not a list of levels"), "{}", got.err);
}

#[test]
fn a_bad_configuration_stops_each_program_with_exit_code_2() {
    let directory = Directory::new("bad");
    let edge = directory.write("edge.toml", "[edge]\ncores = 0\n[[pools]]\n");
    let missing = directory.0.join("none.toml").display().to_string();
    for command in ["edge", "check"] {
        let got = ptth(&[command, "--config", &edge]);
        assert_eq!((got.code, got.out.as_str()), (2, ""));
        let lines: Vec<_> = got.err.lines().collect();
        assert_eq!(lines.len(), 5, "{}", got.err);
        assert!(
            lines.contains(&format!("{edge}:2:9: `cores` is 0; write a number from 1 to 64").as_str()),
            "{lines:?}"
        );
        let want = format!("{edge}:3:3: unknown key `pools` in the top level; did you mean `pool`?");
        assert!(lines.contains(&want.as_str()), "{lines:?}");
        check_refused(&[command, "--config", &missing], 2, "none.toml: cannot be read: no such file or directory");
    }
    let worker =
        ["worker", "--edge", "http://a", "--serve", "http://b", "--to", "http://c", "--credential-file", &missing];
    check_refused(&worker, 2, "--credential-file: ");
    let got = ptth(&["worker"]);
    assert_eq!((got.code, got.err.lines().count()), (2, 4), "{}", got.err);
}

#[test]
fn check_knows_both_kinds_of_files() {
    for good in ["edge.toml", "worker.toml"] {
        let got = ptth(&["check", "--config", &sample(good)]);
        assert_eq!((got.code, got.out.as_str(), got.err.as_str()), (0, "", ""), "{good}");
    }
    let directory = Directory::new("check");
    let edge = std::fs::read_to_string(sample("edge.toml")).unwrap();
    let worker = std::fs::read_to_string(sample("worker.toml")).unwrap();
    directory.write("web-1.secret", "web-1:s3cret\n");
    for (name, text, code, want) in [
        ("a", edge.replace("drain_max = \"30s\"", "drain_max = 30"), 2, ":5:13: `drain_max` is an integer"),
        ("b", edge.replace("per_link_max", "per_link"), 2, ":20:1: unknown key `per_link`"),
        ("c", edge.replace("127.0.0.1:9090", "0.0.0.0:9090"), 2, ":12:11: [admin] at 0.0.0.0:9090 can be reached"),
        (
            "k",
            edge.replace("\"127.0.0.1:9090\"", "\"127.0.0.1:9090\"\ntoken_file = \"no.token\""),
            2,
            "cannot be read: no such",
        ),
        ("d", edge.replace("2099", "2019"), 0, ":45:15: warning: credential `web-1` has expired"),
        ("e", edge.replace("[edge]", "[edge"), 2, ":3:6: not TOML: "),
        ("f", worker.replace("http://localhost", "ftp://localhost"), 2, ":3:10: not an edge's address"),
        ("g", worker.replace("web-1.secret", "web-2.secret"), 2, ":6:19: "),
        ("h", worker.replace("serve =", "pool = \"app\"\nserve ="), 2, "both `serve` and `pool`"),
        ("i", String::new(), 2, ":1:1: this is neither an edge's file nor a worker's"),
        ("j", "title = \"x\"\n".into(), 2, ":1:1: this is neither an edge's file nor a worker's"),
    ] {
        let path = directory.write(name, &text);
        let got = ptth(&["check", "--config", &path]);
        assert_eq!((got.code, got.out.as_str()), (code, ""), "{name}: {}", got.err);
        let lines: Vec<_> = got.err.lines().filter(|line| line.contains(want)).collect();
        assert_eq!(lines.len(), if name == "b" { 1 } else { got.err.lines().count() }, "{name}: {}", got.err);
        assert!(!lines.is_empty() && lines[0].starts_with(&path), "{name}: {}", got.err);
    }
}

#[test]
fn a_new_credential_fits_both_files() {
    let got = ptth(&["credential", "new", "web-1", "--origin", "http://App.example:80", "--origin", "b.example"]);
    assert_eq!((got.code, got.err.as_str()), (0, ""));
    let (line, block) = got.out.split_once("\n\n").unwrap();
    let (id, secret) = line.split_once(':').unwrap();
    assert_eq!((id, secret.len()), ("web-1", 43), "{line}");
    assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{line}");

    let rest = "[[listen]]\naddress = \"127.0.0.1:80\"\naccept = [\"clients\", \"workers\"]\n\
        [[pool]]\nname = \"p\"\norigins = [\"app.example\", \"b.example\"]\n";
    let (config, warnings) =
        EdgeConfig::parse("edge.toml", &format!("{rest}{block}"), 0).unwrap_or_else(|m| panic!("{m}"));
    assert_eq!(warnings.lines().count(), 0, "{warnings}");
    assert_eq!(config.credentials.len(), 1);
    assert_eq!(config.credentials[0].id, "web-1");
    let hash = SecretHash(Sha256::digest(secret).into());
    assert_eq!(config.credentials[0].proof, Proof::Secrets(vec![hash]));
    let origins: Vec<_> = config.credentials[0].origins.iter().map(ToString::to_string).collect();
    assert_eq!(origins, ["http://app.example", "b.example"]);

    let directory = Directory::new("credential");
    directory.write("web-1.secret", &format!("{line}\n"));
    let worker = std::fs::read_to_string(sample("worker.toml")).unwrap();
    let path = directory.write("worker.toml", &worker);
    let got = ptth(&["check", "--config", &path]);
    assert_eq!((got.code, got.err.as_str()), (0, ""));

    let other = ptth(&["credential", "new", "web-1"]);
    assert!(other.code == 0 && !other.out.contains(secret) && other.out.contains("origins     = ["), "{}", other.out);
}

/// Answers one connection with `response`, and gives what it was asked.
fn admin(response: String) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        stream.write_all(response.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, served)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn status_shows_tables_or_the_json() {
    let report = Report {
        version: "1.2.3".into(),
        pools: vec![PoolReport { name: "app".into(), queued: 17, ..PoolReport::default() }],
        links: vec![LinkReport { id: "0-1".into(), worker: "web-1".into(), ..LinkReport::default() }],
        ..Report::default()
    };
    let json = serde_json::to_string(&report).unwrap();
    let (address, served) = admin(ok(&json));
    let got = ptth(&["status", "--admin", &address.to_string()]);
    assert_eq!((got.code, got.err.as_str()), (0, ""));
    for word in ["ptth 1.2.3", "POOL", "app", "17", "LINK", "web-1"] {
        assert!(got.out.contains(word), "no {word} in\n{}", got.out);
    }
    assert!(served.join().unwrap().starts_with("GET /status HTTP/1.1\r\nHost: 127.0.0.1:"));

    let (address, _served) = admin(ok(&json));
    let got = ptth(&["status", "--json", "--admin", &format!("http://{address}/")]);
    assert_eq!((got.code, got.out, got.err.as_str()), (0, format!("{json}\n"), ""));
}

#[test]
fn drain_asks_the_edge_with_post() {
    let (address, served) = admin("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".into());
    let got = ptth(&["drain", "--admin", &address.to_string()]);
    assert_eq!((got.code, got.err.as_str()), (0, ""));
    let request = served.join().unwrap();
    assert!(request.starts_with("POST /drain HTTP/1.1\r\n") && request.contains("Content-Length: 0\r\n"), "{request}");
}

#[test]
fn what_is_no_edge_is_exit_code_1() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    check_refused(&["status", "--admin", &closed], 1, "no answer from 127.0.0.1:");
    check_refused(&["drain", "--admin", &closed], 1, "connection refused");
    for (response, want) in [
        (ok("not json"), "not an edge's status"),
        (ok("[1, 2]"), "not an edge's status"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nno\u{1b}[2J".into(), "with 404 no\\u{1b}[2J; is it"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{}".into(), "cut off"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n".into(), "no answer from"),
        (String::new(), "ended before its answer"),
    ] {
        let (address, _served) = admin(response);
        check_refused(&["status", "--admin", &address.to_string()], 1, want);
    }
}

#[test]
fn nobody_reading_the_output_is_no_panic() {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_ptth");
    let got =
        outcome(command.args(["-c", &format!("'{program}' --help | true; '{program}' credential new web-1 | true")]));
    assert!(!got.err.contains("panic"), "{}", got.err);
}

/// What `ptth doctor --json` found about one thing.
#[track_caller]
fn found(got: &Outcome, about: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(&got.out).expect("JSON");
    let findings = all["findings"].as_array().expect("a list");
    let wrong = findings.iter().filter(|finding| finding["grade"] == "wrong").count();
    assert_eq!((all["wrong"].as_u64(), got.code), (Some(wrong as u64), i32::from(wrong > 0)), "{}", got.out);
    let one = findings.iter().find(|finding| finding["about"] == about);
    one.unwrap_or_else(|| panic!("nothing about {about}: {}", got.out)).clone()
}

#[test]
fn the_doctor_tells_an_address_that_is_taken_and_one_that_is_free() {
    let directory = Directory::new("doctor-edge");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "[[listen]]\naddress = \"{address}\"\naccept = [\"clients\", \"workers\"]\n[[pool]]\nname = \"app\"\n\
         origins = [\"*\"]\n[[credential]]\nid = \"web-1\"\norigins = [\"*\"]\nsecret_hash = \"sha256:{}\"\n",
        "0a".repeat(32)
    );
    let config = directory.write("edge.toml", &text);
    let arguments = ["doctor", "--json", "--config", config.as_str()];
    let got = ptth(&arguments);
    let about = format!("address {address}");
    let finding = found(&got, &about);
    assert_eq!(finding["grade"], "wrong", "{finding}");
    let saw = finding["saw"].as_str().unwrap();
    assert!(saw.starts_with("taken by ") && saw.ends_with(&format!("({})", std::process::id())), "{saw}");
    assert!(finding["mend"].as_str().unwrap().contains("ss -ltnp"), "{finding}");
    drop(taken);
    let got = ptth(&arguments);
    assert_eq!((&found(&got, &about)["saw"], got.err.as_str()), (&"free".into(), ""));
    assert_eq!(found(&got, "configuration")["grade"], "good");
    assert_eq!(found(&got, "io_uring")["grade"], "good");
    // The same in words: one line for what is good.
    let words = ptth(&["doctor", "--config", &config]);
    assert!(words.out.contains(&format!("ok      {about}: free\n")), "{}", words.out);
}

#[test]
fn the_doctor_looks_for_a_workers_edges_and_its_server() {
    let directory = Directory::new("doctor-worker");
    directory.write("web-1.secret", "web-1:secret\n");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = |edge: SocketAddr, server: SocketAddr| {
        let text = format!(
            "edges = [\"http://{edge}\"]\nserve = [\"http://app.example\"]\nto = \"http://{server}\"\n\
             credential_file = \"web-1.secret\"\n"
        );
        directory.write("worker.toml", &text)
    };
    let got = ptth(&["doctor", "--json", "--config", &config(open, closed)]);
    assert_eq!(found(&got, &format!("edge {open}"))["saw"], "it takes connections");
    let server = found(&got, &format!("server http://{closed}"));
    assert_eq!((&server["grade"], &server["saw"]), (&"wrong".into(), &"Connection refused".into()));
    let got = ptth(&["doctor", "--json", "--config", &config(closed, open)]);
    assert_eq!(found(&got, &format!("edge {closed}"))["grade"], "wrong");
    assert_eq!(found(&got, &format!("server http://{open}"))["grade"], "good");
}

#[test]
fn the_doctor_counts_a_configurations_mistakes() {
    let directory = Directory::new("doctor-bad");
    let config = directory.write("edge.toml", "[edge]\ncores = 0\n");
    let got = ptth(&["doctor", "--json", "--config", &config]);
    let finding = found(&got, "configuration");
    assert_eq!(finding["grade"], "wrong");
    assert_eq!((got.code, got.err.as_str()), (1, ""));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let got = ptth(&["doctor", "--json", "--admin", &closed.to_string()]);
    assert_eq!(found(&got, &format!("edge {closed}"))["grade"], "wrong");
}
