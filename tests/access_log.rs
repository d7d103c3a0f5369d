//! The access log, seen by whoever reads it: what its lines say, what they never say, and that nobody waits for them.
#![allow(clippy::disallowed_methods)] // readers of a file have a clock of their own

mod common;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use common::h2_client::H2Client;
use common::h2_worker::H2Worker;
use common::load::Load;
use common::peer::until;
use common::program::{Program, Text};
use common::{CORES, HOST, Peer, SECRET, get, origin, post, setting, worker_config};
use ptth::limits::{ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_LONG_BYTES_MAX, ACCESS_LOG_RECORDS_MAX};
use ptth::worker::Worker;
use ptth::worker::config::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ptth-access-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a temporary folder");
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `[access_log]` with this file, and more lines.
    fn table(&self, name: &str, lines: &str) -> String {
        format!("[access_log]\nfile = \"{}\"\n{lines}\n", self.path(name).display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The whole lines of a file; one that is not there has none.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8(text).expect("lines are UTF-8");
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()).collect()
}

/// Until a file has so many lines, and no more.
#[track_caller]
fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    until(|| lines(path).len() >= count);
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[track_caller]
fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A line, but for what differs from run to run; those are looked at.
#[track_caller]
fn steady(line: &str) -> Value {
    let mut line = json(line);
    let fields = line.as_object_mut().expect("an object");
    let time = fields.remove("time").expect("a time");
    let time: stamp::Stamp = stamp::Stamp::read(time.as_str().expect("text"));
    assert!(time.is_lately(), "{time:?}");
    let parts: u64 =
        ["route_us", "queue_us", "worker_us", "send_us"].iter().filter_map(|part| fields.get(*part)?.as_u64()).sum();
    let total = fields.remove("total_us").expect("a total");
    assert_eq!(Some(parts), total.as_u64(), "{fields:?}");
    for name in ["route_us", "queue_us", "worker_us", "send_us"] {
        if let Some(value) = fields.get_mut(name) {
            *value = "some".into();
        }
    }
    line
}

/// A time stamp, read without the program's own code.
mod stamp {
    #[derive(Debug)]
    pub struct Stamp(u64);

    impl Stamp {
        /// `2026-11-26T04:12:31.123Z`: only the shape and the day are looked at.
        #[track_caller]
        pub fn read(text: &str) -> Stamp {
            let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
            let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits");
            let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
            let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
            let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
            Stamp(days * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19))
        }

        pub fn is_lately(&self) -> bool {
            let now = super::common::unix_seconds();
            self.0 <= now && now - self.0 < 600
        }
    }
}

fn worker(edge: SocketAddr, server: SocketAddr) -> Worker {
    let mut config = worker_config(edge, server, Secret::basic("web-1", SECRET));
    config.serve = ptth::wire::Scope::Origins(vec![format!("http://{HOST}").parse().expect("an origin")]);
    config.links = 2;
    config.concurrency = 16;
    Worker::start(config).expect("a worker on loopback")
}

fn dropped(status: &Value) -> [u64; 2] {
    let dropped = &status["counters"]["access_log_dropped_lines"];
    ["slow", "failed"].map(|reason| dropped[reason].as_u64().expect("a number"))
}

fn written(status: &Value) -> u64 {
    status["counters"]["access_log_lines"].as_u64().expect("a number")
}

// ---- what lines say ----

#[test]
fn a_line_tells_how_a_request_went() {
    let folder = Folder::new("tells");
    let edge = setting().more(&folder.table("access.log", "")).start();
    let mut link = edge.h1_link();
    let mut client = edge.client();
    client.send(get("/a/b?token=hidden").replace(
        "\r\n\r\n",
        "\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nAuthorization: Basic aGlkZGVu\r\n\
         Cookie: sid=hidden\r\nUser-Agent: hidden/1\r\n\r\n",
    ));
    let request = link.serve("served");
    let answer = client.response();
    let line = wait_for_lines(&folder.path("access.log"), 1).remove(0);
    assert!(!line.contains("hidden") && !line.contains("aGlkZGVu"), "{line}");
    let want = serde_json::json!({
        "client": "127.0.0.1", "method": "GET", "scheme": "http", "host": HOST, "path": "/a/b", "protocol": "HTTP/1.1",
        "status": 200, "bytes_up": 0, "bytes_down": 6, "route_us": "some", "queue_us": "some", "worker_us": "some",
        "send_us": "some", "pool": "app", "class": 3, "class_by": "default", "link": "0-0", "worker": "web-1",
        "dispatch": "local", "attempts": 1, "core": 0, "generation": 1, "request_id": answer.field("x-request-id"),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    assert_eq!(request.field("x-request-id"), answer.field("x-request-id"));
    let mut told = steady(&line);
    let link_id = edge.status()["links"][0]["id"].clone();
    assert_eq!(told["link"], link_id);
    told["link"] = "0-0".into();
    assert_eq!(told, want);
}

#[test]
fn a_request_that_waited_was_classified_and_came_back_says_so() {
    for cores in CORES {
        let folder = Folder::new(&format!("waited-{cores}"));
        let pool = "rule = [{ match = { path = \"/x\" }, urgency = 5 }, { match = { path = \"/w\" }, urgency = 1 }]\n\
                    priority = { client_header = \"trust\" }";
        let edge = setting().cores(cores).pool(pool).more(&folder.table("access.log", "")).start();
        let mut client = edge.sent(post("/w", "12345"));
        edge.until_queued(1);
        let mut first = edge.h1_link();
        assert_eq!(first.request().target(), "/w");
        first.reset(); // sent, and a POST: it is not sent again
        assert_eq!(client.response().status(), 502);
        let file = folder.path("access.log");
        let line = steady(&wait_for_lines(&file, 1)[0]);
        let told = ["status", "fault", "proxy_error", "class", "class_by", "attempts", "bytes_up", "method", "worker"];
        let want = serde_json::json!([502, "link_lost", "connection_terminated", 1, "rule:2", 1, 5, "POST", "web-1"]);
        assert_eq!(Value::from_iter(told.map(|name| line[name].clone())), want, "{line}");
        assert_eq!((&line["queue_us"], line.get("send_us")), (&"some".into(), None), "{line}");

        let urgent = get("/").replace("\r\n\r\n", "\r\nPriority: u=6\r\n\r\n");
        let mut client = edge.sent(urgent);
        edge.until_queued(1);
        let mut second = edge.h1_link();
        assert_eq!(second.request().target(), "/");
        second.reset(); // a GET may be sent again
        edge.until_queued(1);
        let mut third = edge.h1_link();
        third.serve("late");
        assert_eq!(client.response().status(), 200);
        let line = steady(&wait_for_lines(&file, 2)[1]);
        let told = ["status", "class", "class_by", "attempts", "bytes_down"];
        let want = serde_json::json!([200, 6, "header", 2, 4]);
        assert_eq!(Value::from_iter(told.map(|name| line[name].clone())), want, "{line}");
        assert!(["local", "cross_awake", "cross_asleep"].map(Value::from).contains(&line["dispatch"]), "{line}");
        let core = line["link"].as_str().and_then(|link| link.split_once('-')).expect("a link").0;
        let is_local = core == line["core"].as_u64().expect("a core").to_string();
        assert_eq!(is_local, line["dispatch"] == "local", "{line}");
    }
}

#[test]
fn what_the_edge_answers_itself_has_a_line_too() {
    let folder = Folder::new("own");
    let edge = setting().pool("hold_without_workers = false").more(&folder.table("access.log", "")).start();
    let cases = [
        (get("/"), "503", Some("no_worker"), Some("app")),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".into(), "404", Some("no_pool"), None),
        ("GET / HTTP/1.1\nHost: app.example\r\n\r\n".into(), "400", Some("client_malformed"), None),
        (format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "x".repeat(9_000)), "414", Some("line_too_long"), None),
    ];
    for (index, (request, status, fault, pool)) in cases.iter().enumerate() {
        let answer = edge.sent(request).response();
        assert_eq!(answer.status().to_string(), *status);
        let line = steady(&wait_for_lines(&folder.path("access.log"), index + 1)[index]);
        assert_eq!(line["status"].to_string(), *status, "{line}");
        assert_eq!(
            (line.get("fault"), line.get("pool")),
            (fault.map(Value::from).as_ref(), pool.map(Value::from).as_ref())
        );
        assert_eq!((line.get("link"), &line["attempts"]), (None, &0.into()), "{line}");
        assert_eq!(line.get("method").is_some(), index < 2, "{line}");
        assert!(answer.text().contains(line["fault_detail"].as_str().expect("text")), "{line} {answer:?}");
    }
}

#[test]
fn a_client_that_leaves_and_an_answer_that_is_cut_are_told_as_they_were() {
    let folder = Folder::new("cut");
    let edge = setting().more(&folder.table("access.log", "")).start();
    let file = folder.path("access.log");
    let waits = edge.sent(get("/waits"));
    edge.until_queued(1);
    waits.leave();
    let line = steady(&wait_for_lines(&file, 1)[0]);
    assert_eq!((&line["status"], &line["fault"], line.get("link")), (&499.into(), &"client_gone".into(), None));

    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/cut"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!");
    client.read_until(b"ten bytes!");
    link.reset();
    client.end();
    let line = steady(&wait_for_lines(&file, 2)[1]);
    let told = ["status", "fault", "bytes_down", "send_us", "path"].map(|name| line[name].clone());
    assert_eq!(Value::from_iter(told), serde_json::json!([200, "link_lost", 10, "some", "/cut"]), "{line}");
    let bytes = &edge.status()["counters"]["bytes"];
    assert_eq!(bytes["response"], 10, "what was cut is counted as far as it came");
}

#[test]
fn lines_of_http_2_and_of_upgrades() {
    let folder = Folder::new("h2");
    let edge =
        setting().listen("h2c = true").more(&folder.table("access.log", "query = true\nuser_agent = true")).start();
    let worker = H2Worker::dial(&edge, 10);
    let file = folder.path("access.log");
    let mut client = H2Client::connect(edge.address);
    let mut request = common::h2_client::asking("GET", "/q?a=b%22&c");
    request.headers_mut().insert("user-agent", "curl/8 \"x\"".parse().expect("a value"));
    let mut sent = client.start(request, true);
    worker.accept().ok("two");
    assert_eq!(sent.whole().status(), 200);
    let line = steady(&wait_for_lines(&file, 1)[0]);
    let told = ["protocol", "path", "user_agent", "status", "bytes_down"].map(|name| line[name].clone());
    assert_eq!(Value::from_iter(told), serde_json::json!(["HTTP/2", "/q?a=b%22&c", "curl/8 \"x\"", 200, 3]));

    let mut link = edge.h1_link();
    let mut client = edge.sent(get("/ws").replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"));
    link.request();
    link.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client.read_until(b"\r\n\r\n");
    client.send("up!");
    assert_eq!(link.read(3), b"up!");
    link.send("down");
    assert_eq!(client.read(4), b"down");
    assert_eq!(lines(&file).len(), 1, "it runs");
    client.finish();
    link.finish();
    client.end();
    let line = steady(&wait_for_lines(&file, 2)[1]);
    let told = ["status", "bytes_up", "bytes_down", "path"].map(|name| line[name].clone());
    assert_eq!(Value::from_iter(told), serde_json::json!([101, 3, 4, "/ws"]), "{line}");
}

#[test]
fn text_lines_are_what_their_format_says_and_no_client_writes_one() {
    let folder = Folder::new("text");
    let format = r#"format = '{client} {{"{method} {host}{path}"}} {status} [{user_agent}] {fault} {class}'"#;
    let edge = setting().more(&folder.table("access.log", format)).start();
    let mut link = edge.h1_link();
    let mut clients = Vec::new();
    let agent = b"a\"b\\c \xe9\xff]\t127.0.0.1 {\"GET forged/\"} 200 - - -";
    let begin = format!("GET /p'q HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: ");
    let request = [begin.as_bytes(), agent, b"\r\n\r\n"];
    clients.push(edge.sent(request.concat()));
    link.serve("");
    assert_eq!(clients[0].response().status(), 200);
    assert_eq!(edge.sent("GET /\x01 HTTP/1.1\r\nHost: app.example\r\n\r\n").response().status(), 400);
    let lines = wait_for_lines(&folder.path("access.log"), 2);
    let agent = r#"a\x22b\x5cc \xe9\xff]\x09127.0.0.1 {\x22GET forged/\x22} 200 - - -"#;
    assert_eq!(lines[0], format!("127.0.0.1 {{\"GET app.example/p'q\"}} 200 [{agent}] - 3"));
    assert_eq!(lines[1], "127.0.0.1 {\"- --\"} 400 [-] client_malformed -");
}

// ---- files ----

#[test]
fn a_file_that_was_renamed_is_left_at_sighup_and_no_line_is_lost() {
    const RENAMES: usize = 5;
    let folder = Folder::new("rotation");
    let table = folder.table("access.log", "");
    let mut program = Program::start("log-rotation", Text { edge: "cores = 2", more: &table, ..Text::default() });
    let workers = [worker(program.address, origin::serving(|_| common::ok("served")))];
    program.until(|status| status["pools"][0]["links"] == 2);
    let file = folder.path("access.log");
    let load = Load::start(program.address, 2, "/");
    for rename in 0..RENAMES {
        load.wait_for(100);
        std::fs::rename(&file, folder.path(&format!("access.log.{rename}"))).expect("it is there");
        if rename == 3 {
            program.write_raw("[edge]\ncores = \"some\"\n"); // a bad file is no reason to keep the old log
        }
        program.signal(Signal::HUP);
        until(|| file.exists() || load.has_failed());
    }
    load.wait_for(100);
    let (answers, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {answers}\n{}", program.log());
    assert_eq!(file.metadata().expect("it is there").mode() & 0o777, 0o640 & !umask());
    program.signal(Signal::TERM);
    assert_eq!(program.end(), Some(0), "{}", program.log());
    let files = (0..RENAMES).map(|rename| folder.path(&format!("access.log.{rename}"))).chain([file]);
    let counts: Vec<usize> = files.map(|file| lines(&file).iter().map(|line| drop(steady(line))).count()).collect();
    assert_eq!(counts.iter().sum::<usize>() as u64, answers, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    workers.into_iter().for_each(|worker| worker.drain());
}

fn umask() -> u32 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix("Umask:")).expect("a line");
    u32::from_str_radix(line.trim(), 8).expect("octal digits")
}

#[test]
fn lines_go_on_over_reloads_and_upgrades() {
    let folder = Folder::new("over");
    let (one, two) = (folder.table("one.log", ""), folder.table("two.log", "format = \"{status} {generation}\""));
    let text = |more| Text { edge: "cores = 2", more, ..Text::default() };
    let program = Program::start("log-over", text(&one));
    let workers = [worker(program.address, origin::serving(|_| common::ok("served")))];
    program.until(|status| status["pools"][0]["links"] == 2);
    let load = Load::start(program.address, 2, "/");
    load.wait_for(50);
    for (round, table) in [&two, &one, &two].into_iter().enumerate() {
        program.write(text(table));
        program.signal(Signal::HUP);
        program.until(|status| status["generation"] == round as u64 + 2);
        load.wait_for(50);
    }
    let before = program.newest();
    kill_process(Pid::from_raw(before as i32).expect("a pid"), Signal::USR2).expect("it lives");
    until(|| program.log().contains("has been replaced") || load.has_failed());
    load.wait_for(50);
    let (answers, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {answers}\n{}", program.log());
    until(|| lines(&folder.path("one.log")).len() + lines(&folder.path("two.log")).len() == answers as usize);
    let generations = |file: &str| {
        let mut seen = std::collections::BTreeSet::new();
        for line in lines(&folder.path(file)) {
            let generation = match line.strip_prefix("200 ") {
                Some(generation) => generation.parse().expect("a number"),
                None => json(&line)["generation"].as_u64().expect("a number"),
            };
            seen.insert(generation);
        }
        Vec::from_iter(seen)
    };
    assert_eq!(generations("one.log"), [1, 3]);
    assert_eq!(generations("two.log"), [1, 2, 4], "the newer process begins anew");
    workers.into_iter().for_each(|worker| worker.drain());
}

#[test]
fn standard_output_has_the_lines_and_nothing_else() {
    let table = "[access_log]\nfile = \"stdout\"\nformat = \"{path} {status}\"\n";
    let folder = Folder::new("stdout");
    let path = folder.path("out");
    let text = Text { more: table, pool: "hold_without_workers = false", ..Text::default() };
    let mut program = Program::start_as("log-stdout", text, |_, file| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" --log text edge --config \"$1\" > \"$2\"", env!("CARGO_BIN_EXE_ptth"), file]);
        shell.arg(&path);
        shell
    });
    assert_eq!(Peer::connect(program.address).ask("/x").status(), 503);
    program.signal(Signal::TERM);
    assert_eq!(program.end(), Some(0));
    assert_eq!(lines(&path), ["/x 503"]);
}

// ---- trouble ----

/// Reads nothing of it until it is asked to.
fn fifo(path: &Path) -> File {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("its reading end")
}

#[test]
fn nobody_waits_for_a_log_that_nobody_reads() {
    let folder = Folder::new("stalled");
    let mut reader = fifo(&folder.path("access.log"));
    let edge = setting().pool("hold_without_workers = false").more(&folder.table("access.log", "")).start();
    // More than its spool, the thread's batch and a pipe hold together.
    const REQUESTS: u64 = 6_000;
    let mut client = edge.client();
    for _ in 0..REQUESTS / 100 {
        client.send(get("/stalled").repeat(100));
        for _ in 0..100 {
            assert_eq!(client.response().status(), 503);
        }
    }
    let status = edge.status();
    assert_eq!(status["counters"]["refusals"]["no_worker"], REQUESTS);
    let [slow, failed] = dropped(&status);
    assert!(slow > 0 && failed == 0, "{slow} {failed} of {REQUESTS}");
    // Whoever reads it finally has all others, whole and in their order.
    let mut text = Vec::new();
    until(|| {
        let _ = reader.read_to_end(&mut text); // it would wait for more
        let status = edge.status();
        written(&status) + dropped(&status)[0] == REQUESTS
    });
    let _ = reader.read_to_end(&mut text);
    let status = edge.status();
    let text = String::from_utf8(text).expect("UTF-8");
    assert_eq!(text.lines().map(|line| assert_eq!(json(line)["path"], "/stalled")).count() as u64, written(&status));
    assert_eq!(dropped(&status), [slow, 0], "nothing is lost while somebody reads");
    let metrics = edge.admin_get("/metrics");
    assert!(metrics.text().contains(&format!("ptth_access_log_dropped_lines_total{{reason=\"slow\"}} {slow}\n")));
    // Its reader goes, and another one comes.
    drop(reader);
    assert_eq!(edge.client().ask("/lost").status(), 503);
    edge.until(|status| dropped(status)[1] == 1);
    let path = folder.path("access.log");
    let mut again = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("its reading end");
    let mut text = String::new();
    until(|| {
        assert_eq!(edge.client().ask("/again").status(), 503);
        let mut bytes = Vec::new();
        let _ = again.read_to_end(&mut bytes);
        text += std::str::from_utf8(&bytes).expect("UTF-8");
        text.contains("/again")
    });
    assert!(!text.contains("/lost"));
}

#[test]
fn long_paths_that_nobody_takes_are_bounded_and_short_ones_find_their_places() {
    let folder = Folder::new("long");
    let mut reader = fifo(&folder.path("access.log"));
    let text = folder.table("access.log", "format = \"{path}\"");
    let edge = setting().pool("hold_without_workers = false").more(&text).start();
    let mut client = edge.client();
    let long = format!("/{}", "x".repeat(7_000));
    // Less than its records, and more than their long texts may take.
    const REQUESTS: u64 = 1_000;
    const _: () = assert!((REQUESTS as usize) < ACCESS_LOG_RECORDS_MAX);
    assert!(REQUESTS as usize * long.len() > ACCESS_LOG_LONG_BYTES_MAX * 3 / 2);
    for _ in 0..REQUESTS {
        assert_eq!(client.ask(&long).status(), 503);
    }
    let [slow, _] = dropped(&edge.status());
    assert!(slow > 0, "all of {REQUESTS} were kept");
    assert_eq!(client.ask("/short").status(), 503);
    let mut text = Vec::new();
    until(|| {
        let _ = reader.read_to_end(&mut text); // it would wait for more
        let status = edge.status();
        written(&status) + dropped(&status)[0] == REQUESTS + 1
    });
    let _ = reader.read_to_end(&mut text);
    assert_eq!(dropped(&edge.status()), [slow, 0], "the short one is not lost");
    let lines = String::from_utf8(text).expect("UTF-8");
    let kept = lines.lines().filter(|line| **line == *long).count();
    assert_eq!((kept as u64, lines.lines().last()), (REQUESTS - slow, Some("/short")));
    // A pipe and the thread's batch, with the line that fills it, had some of them already.
    let elsewhere = (64 << 10) + ACCESS_LOG_BATCH_BYTES + long.len();
    let bytes = kept * long.len();
    assert!(bytes <= ACCESS_LOG_LONG_BYTES_MAX + elsewhere, "{bytes}");
    assert!(bytes > ACCESS_LOG_LONG_BYTES_MAX / 2, "{bytes}");
}

#[test]
fn a_full_disk_is_counted_and_told_once() {
    let table = "[access_log]\nfile = \"/dev/full\"\n";
    let text = Text { more: table, pool: "hold_without_workers = false", ..Text::default() };
    let mut program = Program::start("log-full", text);
    for _ in 0..3 {
        assert_eq!(Peer::connect(program.address).ask("/").status(), 503);
        program.until(|status| dropped(status)[1] > 0);
    }
    let status = program.until(|status| dropped(status) == [0, 3]);
    assert_eq!(written(&status), 0);
    program.signal(Signal::TERM);
    assert_eq!(program.end(), Some(0));
    assert_eq!(program.log().matches("the access log cannot be written").count(), 1, "{}", program.log());
}

#[test]
fn a_log_that_cannot_be_opened_anew_goes_on_where_it_was_and_is_tried_again() {
    let folder = Folder::new("gone");
    std::fs::create_dir(folder.path("log")).expect("a folder");
    let text = folder.table("log/access.log", "format = \"{path}\"");
    let edge = setting().pool("hold_without_workers = false").more(&text).start();
    let ask = |path: &str| assert_eq!(edge.client().ask(path).status(), 503);
    ask("/1");
    wait_for_lines(&folder.path("log/access.log"), 1);
    std::fs::rename(folder.path("log"), folder.path("moved")).expect("it is there");
    edge.reload_files();
    ask("/2");
    assert_eq!(wait_for_lines(&folder.path("moved/access.log"), 2), ["/1", "/2"]);
    std::fs::create_dir(folder.path("log")).expect("a folder");
    until(|| folder.path("log/access.log").exists());
    ask("/3");
    assert_eq!(wait_for_lines(&folder.path("log/access.log"), 1), ["/3"]);
    assert_eq!(dropped(&edge.status()), [0, 0]);
}

#[test]
fn a_log_that_cannot_be_written_is_a_mistake_in_the_configuration() {
    let folder = Folder::new("unwritable");
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a FIFO");
    std::fs::create_dir(folder.path("folder")).expect("a folder");
    for (name, wanted, is_seen_by_check) in [
        ("none/access.log", "cannot be written: No such file or directory", true),
        ("folder", "cannot be written: Is a directory", true),
        ("fifo", "nobody reads the FIFO", false),
    ] {
        let file = folder.path("edge.toml");
        let text = format!(
            "[[listen]]\naddress = \"{}\"\naccept = [\"clients\", \"workers\"]\n[[pool]]\nname = \"app\"\n\
             origins = [\"{HOST}\"]\n{}\n[[credential]]\nid = \"web-1\"\nsecret_hash = \"{}\"\norigins = [\"{HOST}\"]\n",
            common::closed_port(),
            folder.table(name, ""),
            common::secret_hash(SECRET)
        );
        std::fs::write(&file, text).expect("a file");
        let run = |command: &str| {
            let mut ptth = std::process::Command::new(env!("CARGO_BIN_EXE_ptth"));
            let ended = ptth.args([command, "--config", file.to_str().expect("text")]).output().expect("it runs");
            (ended.status.code(), String::from_utf8(ended.stderr).expect("UTF-8"))
        };
        let place = format!("{}:8:8: ", file.display());
        let (code, told) = run("edge");
        assert_eq!(code, Some(if is_seen_by_check { 2 } else { 1 }), "{name}: {told}");
        assert!(told.contains(&place) && told.contains(wanted), "{name}: {told}");
        let (code, told) = run("check");
        assert_eq!(code, Some(if is_seen_by_check { 2 } else { 0 }), "{name}: {told}");
        assert_eq!(told.contains(&place), is_seen_by_check, "{name}: {told}");
        assert!(!folder.path("none").exists());
    }
}

// ---- the page ----

#[test]
fn every_field_is_listed_on_the_page_in_its_order() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).expect("the page");
    let (_, table) = page.split_once("| field | |\n|---|---|\n").expect("the table of fields");
    let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: Vec<&str> = rows.flat_map(|(names, _)| names.split("`, `")).collect();
    let known: Vec<&str> = ptth::edge::log::rules::Field::ALL.iter().map(|field| field.name()).collect();
    assert_eq!(listed, known);
}
