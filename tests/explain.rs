//! What `/explain` says about a request, held against what becomes of the same request when it is really sent.

#![allow(clippy::disallowed_methods)] // peers are no cores: they may sleep

mod common;

use common::h2_worker::H2Worker;
use common::peer::start;
use common::{CORES, HOST, Message, Peer, TestEdge, edge, setting};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn query(method: &str, url: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|line| format!("&header={}", encoded(line))).collect();
    format!("method={method}&url={}{headers}", encoded(url))
}

#[track_caller]
fn asked(edge: &TestEdge, query: &str) -> Value {
    let answer = edge.admin_get(&format!("/explain?{query}"));
    assert_eq!((answer.status(), answer.field("content-type")), (200, Some("application/json")), "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[track_caller]
fn explain(edge: &TestEdge, method: &str, path: &str, headers: &[&str]) -> Value {
    asked(edge, &query(method, &format!("http://{HOST}{path}"), headers))
}

/// The refusal of an explanation is the answer that a client gets.
#[track_caller]
fn check_refused(edge: &TestEdge, told: &Value, request: &str, status: u16) {
    assert_eq!((&told["verdict"], &told["refusal"]["status"]), (&json!("refused"), &json!(status)), "{told:#}");
    check_answer(told, &edge.sent(request).response(), status);
}

#[track_caller]
fn check_answer(told: &Value, answer: &Message, status: u16) {
    assert_eq!((&told["refusal"]["status"], answer.status()), (&json!(status), status), "{told:#} {answer:?}");
    let error = answer.field("proxy-status").and_then(|value| value.split_once("error=")).map(|(_, error)| error);
    assert_eq!(told["refusal"]["error"].as_str(), error, "{told:#}");
    assert!(answer.text().contains(told["refusal"]["text"].as_str().expect("text")), "{told:#} {answer:?}");
}

#[test]
fn a_request_with_a_credit_goes_at_once() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("paths = [\"/\", \"/api\"]").start();
        let mut link = edge.h1_link();
        edge.until_credits(1);
        let told = explain(&edge, "GET", "/api/x?y", &[]);
        assert_eq!(told["verdict"], "at_once", "{told:#}");
        assert_eq!((&told["pool"], &told["entry"], &told["path"]), (&json!("app"), &json!(HOST), &json!("/api")));
        assert_eq!((&told["class"], &told["class_by"]), (&json!(3), &json!("default")));
        assert_eq!((&told["queue"]["ahead"], &told["queue"]["queued"]), (&json!(0), &json!(0)));
        let links = told["links"].as_array().expect("a list");
        assert_eq!(links.len(), 1);
        assert_eq!(
            (&links[0]["offers"], &links[0]["credits"], &links[0]["worker"], &links[0]["protocol"]),
            (&json!("credits"), &json!(1), &json!("web-1"), &json!("http/1.1"))
        );
        // Nothing was sent, counted, or taken.
        assert_eq!(edge.status()["pools"][0]["counters"]["dispatches"]["local"], 0);
        let mut client = edge.sent(common::get("/api/x?y"));
        link.request();
        link.ok("served");
        assert_eq!(client.response().text(), "served");
    }
}

#[test]
fn a_class_is_explained_by_whoever_decided_it() {
    let edge = setting()
        .pool(
            "priority = { client_header = \"clamp\", clamp = [2, 6], default = 4 }\n\
             rule = [{ match = { path = \"/pay/*\" }, urgency = 0 }, { match = { client = \"192.0.2.0/24\" }, urgency = 7 }]",
        )
        .start();
    let _link = H2Worker::dial(&edge, 4);
    for (path, header, more, class, by) in [
        ("/pay/1", "Priority: u=5", "", 0, "rule 1"),
        ("/", "Priority: u=5", "&client=192.0.2.7", 7, "rule 2"),
        ("/", "Priority: u=5", "&client=192.0.3.7", 5, "header"),
        ("/", "Priority: u=0", "", 2, "clamp"),
        ("/", "X-Plan: none", "", 4, "default"),
    ] {
        let told = asked(&edge, &(query("GET", &format!("http://{HOST}{path}"), &[header]) + more));
        assert_eq!((&told["class"], &told["class_by"]), (&json!(class), &json!(by)), "{path} {header} {more}");
        assert_eq!(told["verdict"], "at_once");
    }
}

#[test]
fn what_waits_stands_behind_whatever_is_as_urgent() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("priority = { client_header = \"trust\" }").start();
        let mut link = edge.h1_link();
        let mut first = edge.sent(common::get("/first"));
        link.request();
        let urgent = |class: u8| format!("GET /{class} HTTP/1.1\r\nHost: {HOST}\r\nPriority: u={class}\r\n\r\n");
        let mut waiting: Vec<Peer> = [1, 3, 3, 6].map(|class| edge.sent(urgent(class))).into();
        edge.until(|status| status["pools"][0]["queued_by_class"] == json!([0, 1, 0, 2, 0, 0, 1, 0]));
        for (class, ahead) in [(0, 0), (1, 1), (2, 1), (3, 3), (5, 3), (7, 4)] {
            let told = explain(&edge, "GET", "/", &[&format!("Priority: u={class}")]);
            assert_eq!((&told["verdict"], &told["queue"]["ahead"]), (&json!("waits"), &json!(ahead)), "{told:#}");
            assert_eq!(told["links"][0]["offers"], "full");
            assert_eq!(told["queue"]["wait_seconds"], Value::Null, "nothing has left this queue");
        }
        // And there it stands when it is really sent.
        let mut mine = edge.sent(urgent(2));
        edge.until_queued(5);
        link.ok("");
        first.response();
        for path in ["/1", "/2", "/3", "/3", "/6"] {
            assert_eq!(link.request().target(), path);
            link.ok("");
        }
        mine.response();
        waiting.iter_mut().for_each(|client| _ = client.response());
    }
}

#[test]
fn a_wait_is_expected_at_the_pace_of_the_queue() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut clients: Vec<Peer> = (0..40).map(|n| edge.sent(common::get(&format!("/{n}")))).collect();
        edge.until_queued(39);
        // One after the other, until somebody has measured how long that takes.
        let told = loop {
            let told = explain(&edge, "GET", "/", &[]);
            if told["queue"]["wait_seconds"].is_number() {
                break told;
            }
            assert!(told["queue"]["queued"].as_u64() > Some(1), "{told:#}");
            link.request();
            link.ok("");
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        let number = |name: &str| told["queue"][name].as_f64().expect("a number");
        let want = (number("ahead") + 1.0) * number("service_seconds");
        assert!((number("wait_seconds") - want).abs() < 1e-6, "one link, one at a time: {told:#}");
        assert!(number("ahead") >= 1.0 && number("wait_seconds") > 0.0, "{told:#}");
        // Whoever would not wait for so long hears it at once.
        let told = explain(&edge, "GET", "/", &["Prefer: wait=0"]);
        assert_eq!(told["refusal"]["error"], "connection_timeout", "{told:#}");
        clients.clear();
    }
}

#[test]
fn an_upgrade_needs_a_link_that_carries_it() {
    let edge = edge();
    let _link = H2Worker::dial(&edge, 4);
    let websocket = ["Connection: Upgrade", "Upgrade: websocket"];
    let told = explain(&edge, "GET", "/chat", &websocket);
    assert_eq!(told["links"][0]["offers"], "no_upgrades");
    assert_eq!(told["needs_upgrade"], true);
    let request = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n{}\r\n\r\n", websocket[0], websocket[1]);
    check_refused(&edge, &told, &request, 502);
    let _h1 = edge.h1_link();
    edge.until_credits(5);
    assert_eq!(explain(&edge, "GET", "/chat", &websocket)["verdict"], "at_once");
}

#[test]
fn what_no_pool_serves_is_refused() {
    let edge = setting().pool("paths = [\"/only\"]").start();
    let told = asked(&edge, &query("GET", "http://other.example/", &[]));
    assert_eq!((&told["entry"], &told["pool"]), (&Value::Null, &Value::Null));
    check_refused(&edge, &told, "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 404);
    let told = explain(&edge, "GET", "/other", &[]);
    assert_eq!((&told["entry"], &told["path"]), (&json!(HOST), &Value::Null));
    check_refused(&edge, &told, &common::get("/other"), 404);
    // Over TLS, on a connection that was made for another name.
    let url = query("GET", "https://other.example/", &[]);
    assert_eq!(asked(&edge, &url)["refusal"]["status"], 404);
    assert_eq!(asked(&edge, &format!("{url}&server_name=app.example"))["refusal"]["status"], 421);
    assert_eq!(asked(&edge, &query("GET", "https://app.example/only", &[]))["pool"], "app");
}

#[test]
fn a_full_queue_refuses_whatever_finds_no_credit() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { requests_max = 2 }").start();
        let mut clients = vec![edge.sent(common::get("/1")), edge.sent(common::get("/2"))];
        edge.until_queued(2);
        check_refused(&edge, &explain(&edge, "GET", "/", &[]), &common::get("/"), 503);
        let _worker = H2Worker::dial_at_once(&edge, 8);
        edge.until_queued(0);
        assert_eq!(explain(&edge, "GET", "/", &[])["verdict"], "at_once");
        clients.clear();
    }
}

#[test]
fn a_pool_that_does_not_hold_refuses_without_workers() {
    let edge = setting().pool("hold_without_workers = false").start();
    let told = explain(&edge, "GET", "/", &[]);
    assert_eq!(told["links"], json!([]));
    check_refused(&edge, &told, &common::get("/"), 503);
    let holds = common::edge();
    assert_eq!(explain(&holds, "GET", "/", &[])["verdict"], "waits");
}

#[test]
fn what_the_parser_refuses_is_refused() {
    let edge = edge();
    let many: Vec<String> = (0..101).map(|n| format!("a{n}: b")).collect();
    let fields = many.join("\r\n");
    for (told, request, status) in [
        (explain(&edge, "CONNECT", "/", &[]), "CONNECT app.example:80 HTTP/1.1\r\nHost: app.example:80\r\n\r\n", 405),
        (explain(&edge, "TRACE", "/", &[]), &format!("TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 405),
        (
            explain(&edge, "GET", "/", &many.iter().map(String::as_str).collect::<Vec<_>>()),
            &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n"),
            431,
        ),
        (
            explain(&edge, "POST", "/", &["Content-Length: 1", "Transfer-Encoding: chunked"]),
            &format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            explain(&edge, "GET", "/", &["Expect: cake"]),
            &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nExpect: cake\r\n\r\n"),
            417,
        ),
    ] {
        check_refused(&edge, &told, request, status);
    }
}

#[test]
fn a_head_of_any_size_can_be_posted() {
    let edge = edge();
    for (path_bytes, header_bytes, status) in [(9_000, 0, 414), (10, 9_000, 431), (10, 8_000, 0)] {
        let path = format!("/{}", "p".repeat(path_bytes));
        let line = format!("X-Long: {}", "h".repeat(header_bytes));
        let form = query("GET", &format!("http://{HOST}{path}"), &[&line]);
        let mut admin = Peer::connect(edge.admin);
        admin.send(format!("{}Content-Length: {}\r\n\r\n{form}", start("POST", "/explain"), form.len()));
        let told: Value = serde_json::from_slice(&admin.response().body).expect("JSON");
        match status {
            0 => assert_eq!(told["verdict"], "waits", "{told:#}"),
            status => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n\r\n");
                check_refused(&edge, &told, &request, status);
            }
        }
    }
    // A form has its own bound.
    let mut admin = Peer::connect(edge.admin);
    admin.send(format!("{}Content-Length: 70000\r\n\r\n", start("POST", "/explain")));
    admin.send_if_open("x".repeat(70_000));
    assert_eq!(admin.response().status(), 413);
}

#[test]
fn an_edge_that_drains_serves_what_is_on_its_way_and_takes_no_connection() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        H2Worker::dial_at_once(&edge, 4).serve_all(|_| "served".to_owned());
        edge.until_credits(4);
        assert_eq!(explain(&edge, "GET", "/", &[])["draining"], false);
        let request = common::get("/late");
        let (begun, rest) = request.split_at(7);
        let mut client = edge.sent(begun);
        edge.until(|status| status["limits"]["connections"].as_u64() >= Some(1));
        edge.drain();
        // The system answers a new connection, and no HTTP does.
        common::peer::until(|| std::net::TcpStream::connect(edge.address).is_err());
        let told = explain(&edge, "GET", "/late", &[]);
        assert_eq!((&told["draining"], &told["verdict"]), (&json!(true), &json!("at_once")), "{told:#}");
        client.send(rest);
        assert_eq!(client.response().status(), 200);
        assert!(edge.wait());
    }
}

#[test]
fn an_edge_that_drains_has_nobody_come_for_what_has_no_link() {
    let edge = edge();
    let request = common::get("/late");
    let (begun, rest) = request.split_at(7);
    let mut client = edge.sent(begun);
    edge.until(|status| status["limits"]["connections"].as_u64() >= Some(1));
    edge.drain();
    common::peer::until(|| std::net::TcpStream::connect(edge.address).is_err());
    let told = explain(&edge, "GET", "/late", &[]);
    assert_eq!((&told["draining"], &told["verdict"]), (&json!(true), &json!("refused")), "{told:#}");
    client.send(rest);
    check_answer(&told, &client.response(), 503);
    assert!(edge.wait());
}

#[test]
fn a_reload_explains_by_the_new_configuration() {
    let edge = setting().cores(2).start();
    edge.reload(|config| config.pools[0].priority.default = 5);
    assert_eq!(explain(&edge, "GET", "/", &[])["class"], 5);
    edge.until_alone();
}

#[test]
fn a_question_that_cannot_be_read_is_told_so() {
    let edge = edge();
    for (query, what) in [
        ("", "`url` is missing"),
        ("url=nothing", "no URL"),
        ("url=http%3A%2F%2Fa&client=me", "IP address"),
        ("url=http%3A%2F%2Fa&nonsense=1", "known are"),
    ] {
        let answer = edge.admin_get(&format!("/explain?{query}"));
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.text().contains(what), "{query}: {}", answer.text());
    }
}
