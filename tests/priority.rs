//! Which request goes first, seen from outside: classes by rule, by the client's word and by waiting; pools that take few at
//! a time; work that takes long.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use common::frames::Frames;
use common::h2_worker::{Asked, H2Worker};
use common::peer::{statuses, until};
use common::{CORES, Peer, TestEdge, edge, get, post, setting};

const TRUST: &str = "priority = { client_header = \"trust\" }";

fn urgent(path: &str, priority: &str) -> String {
    get(path).replace("\r\n\r\n", &format!("\r\nPriority: {priority}\r\n\r\n"))
}

/// Sends each request when the one before waits; they wait in this order of arrival. `waiting` others do so already; one that
/// another core has just taken counts for a moment more.
#[track_caller]
fn queued(edge: &TestEdge, waiting: u64, requests: &[String]) -> Vec<Peer> {
    edge.until_queued(waiting);
    let mut clients = Vec::new();
    for (request, n) in requests.iter().zip(1..) {
        clients.push(edge.sent(request));
        edge.until_queued(waiting + n);
    }
    clients
}

/// The next request, on whichever link it comes.
#[track_caller]
fn next(workers: &[H2Worker]) -> Asked {
    let mut asked = None;
    until(|| {
        asked = workers.iter().find_map(H2Worker::try_accept);
        asked.is_some()
    });
    asked.expect("until says so")
}

#[test]
fn a_free_credit_takes_the_most_urgent_and_then_the_oldest() {
    for cores in CORES {
        let edge = setting().cores(cores).pool(TRUST).start();
        let worker = H2Worker::dial(&edge, 1);
        let mut clients = vec![edge.sent(get("/first"))];
        let first = worker.accept();
        let order = [(6, "/f"), (3, "/d"), (0, "/a"), (7, "/g"), (3, "/e"), (1, "/b"), (1, "/c")];
        let requests: Vec<String> = order.iter().map(|(u, path)| urgent(path, &format!("u={u}"))).collect();
        clients.extend(queued(&edge, 0, &requests));
        first.ok("");
        for want in ["/a", "/b", "/c", "/d", "/e", "/f", "/g"] {
            let asked = worker.accept();
            assert_eq!(asked.path(), want, "{cores} cores");
            asked.ok("");
        }
        assert_eq!(statuses(&mut clients), [200; 8]);
    }
}

#[test]
fn a_rule_comes_before_the_clients_word_and_the_worker_hears_the_result() {
    let rules = r#"
        priority = { client_header = "clamp", clamp = [2, 6], default = 4 }
        [[pool.rule]]
        match = { method = ["POST"], path = "/checkout/*" }
        urgency = 0
        [[pool.rule]]
        match = { header = { "x-plan" = "gold" } }
        urgency = 1
    "#;
    let edge = setting().pool(rules).start();
    let worker = H2Worker::dial(&edge, 1);
    let gold = urgent("/", "u=7, i").replace("\r\n\r\n", "\r\nX-Plan: gold\r\n\r\n");
    let checkout = post("/checkout/1", "").replace("\r\n\r\n", "\r\nPriority: u=5\r\n\r\n");
    for (request, want) in [
        (get("/"), "u=4"),
        (urgent("/", "u=0, i"), "u=2, i"),
        (urgent("/", "u=7"), "u=6"),
        (urgent("/", "u=5;x, i=?0"), "u=5"),
        (urgent("/", "u=high, i"), "u=4, i"),
        (urgent("/", "u=1,,"), "u=4"),
        (gold, "u=1, i"),
        (checkout, "u=0"),
    ] {
        let mut client = edge.sent(&request);
        let asked = worker.accept();
        assert_eq!(asked.head.headers["priority"], want, "{request}");
        asked.ok("");
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn a_pool_serves_so_many_at_once_over_all_links_and_cores() {
    for cores in CORES {
        let lines = format!("concurrency_max = 2\n{TRUST}");
        let edge = setting().cores(cores).pool(&lines).start();
        let workers = [H2Worker::dial(&edge, 50), H2Worker::dial(&edge, 50)];
        let mut clients = vec![edge.sent(get("/1")), edge.sent(get("/2"))];
        edge.until(|status| status["pools"][0]["in_flight"] == 2);
        clients.extend(queued(&edge, 0, &[urgent("/5", "u=5"), urgent("/4", "u=3"), urgent("/3", "u=0")]));
        let mut running: Vec<_> = (0..2).map(|_| next(&workers)).collect();
        let mut served = Vec::new();
        while let Some(asked) = running.pop() {
            served.push(asked.path().to_owned());
            edge.until(|status| status["pools"][0]["in_flight"] == 1 + running.len());
            asked.ok("");
            if served.len() < 4 {
                running.insert(0, next(&workers));
            }
        }
        served.sort_unstable();
        assert_eq!(served, ["/1", "/2", "/3", "/4", "/5"]);
        assert_eq!(statuses(&mut clients), [200; 5]);
        edge.until(|status| status["pools"][0]["in_flight"] == 0);
    }
}

#[test]
fn a_full_queue_refuses_at_once_also_where_only_a_permit_is_missing() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("concurrency_max = 1\nqueue = { requests_max = 2 }").start();
        let worker = H2Worker::dial(&edge, 50);
        let mut clients = vec![edge.sent(get("/1"))];
        let first = worker.accept();
        clients.extend(queued(&edge, 0, &[get("/2"), get("/3")]));
        for _ in 0..20 {
            common::assert_own(&edge.sent(get("/")).response(), 503, "connection_limit_reached");
        }
        first.ok("");
        worker.accept().ok("");
        worker.accept().ok("");
        assert_eq!(statuses(&mut clients), [200; 3]);
    }
}

#[test]
fn one_at_a_time_takes_them_by_class_and_arrival_and_never_those_who_left() {
    for cores in CORES {
        let lines = format!("concurrency_max = 1\nqueue = {{ wait_max = \"1h\" }}\n{TRUST}");
        let edge = setting().cores(cores).pool(&lines).start();
        let workers = [H2Worker::dial(&edge, 10), H2Worker::dial(&edge, 10)];
        let mut clients = vec![edge.sent(get("/first"))];
        let first = next(&workers);
        let requests = ["/c", "/gone", "/b", "/d", "/a"].map(|path| match path {
            "/a" | "/b" => urgent(path, "u=0"),
            _ => get(path),
        });
        let mut waiting = queued(&edge, 0, &requests);
        drop(waiting.remove(1));
        edge.until_queued(4);
        clients.extend(waiting);
        first.ok("");
        for want in ["/b", "/a", "/c", "/d"] {
            let asked = next(&workers);
            assert_eq!(asked.path(), want, "{cores} cores");
            asked.ok("");
        }
        assert_eq!(statuses(&mut clients), [200; 5]);
    }
}

#[test]
fn a_worker_that_dies_gives_back_what_is_safe_to_repeat_at_its_old_place() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut dying = Frames::dial(&edge, 2);
        let mut clients = vec![edge.sent(get("/old"))];
        dying.request();
        clients.push(edge.sent(post("/once", "body")));
        dying.request();
        clients.extend(queued(&edge, 0, &[get("/young")]));
        dying.peer.leave();
        edge.until_links(0);
        assert_eq!(clients[1].response().status(), 502);
        let worker = H2Worker::dial_at_once(&edge, 1);
        for want in ["/old", "/young"] {
            let asked = worker.accept();
            assert_eq!(asked.path(), want, "{cores} cores");
            asked.ok("");
        }
        assert_eq!(clients[0].response().status(), 200);
        assert_eq!(clients[2].response().status(), 200);
    }
}

#[test]
fn waiting_makes_a_request_more_urgent() {
    for cores in CORES {
        let lines = "priority = { client_header = \"trust\", age_step = \"1s\" }";
        let edge = setting().cores(cores).pool(lines).start();
        let worker = H2Worker::dial(&edge, 1);
        let mut clients = vec![edge.sent(get("/first"))];
        let first = worker.accept();
        clients.extend(queued(&edge, 0, &[urgent("/patient", "u=2")]));
        // Two steps, and the look that notices them.
        std::thread::sleep(std::time::Duration::from_millis(3_500));
        clients.extend(queued(&edge, 1, &[urgent("/late", "u=0"), urgent("/later", "u=1")]));
        first.ok("");
        for want in ["/patient", "/late", "/later"] {
            let asked = worker.accept();
            assert_eq!(asked.path(), want, "{cores} cores");
            assert!(want != "/patient" || asked.head.headers["priority"] == "u=2", "the worker hears what was decided");
            asked.ok("");
        }
        assert_eq!(statuses(&mut clients), [200; 4]);
    }
}

#[test]
fn a_client_hears_how_long_its_request_waited_where_the_pool_wants_that() {
    let edge = setting().pool("server_timing = true").start();
    let mut client = edge.sent(get("/"));
    edge.until_queued(1);
    let worker = H2Worker::dial_at_once(&edge, 1);
    let asked = worker.accept();
    asked.ok("");
    let timing = client.response().field("server-timing").expect("a Server-Timing").to_owned();
    let ms: f64 = timing.strip_prefix("queue;dur=").expect("the queue's").parse().expect("milliseconds");
    assert!(ms > 0.0, "{timing}");
    client.get("/");
    worker.accept().ok("");
    assert_eq!(client.response().field("server-timing"), Some("queue;dur=0.000"), "it did not wait");
}

#[test]
fn the_metrics_tell_who_waited_and_how_requests_were_handed_over() {
    let edge = setting().cores(2).pool(TRUST).start();
    let worker = H2Worker::dial(&edge, 1);
    let mut clients = vec![edge.sent(get("/first"))];
    let first = worker.accept();
    clients.extend(queued(&edge, 0, &[urgent("/low", "u=6"), urgent("/high", "u=1")]));
    first.ok("");
    worker.accept().ok("");
    worker.accept().ok("");
    assert_eq!(statuses(&mut clients), [200; 3]);
    let page = edge.admin_get("/metrics").text().to_owned();
    for line in [
        "ptth_queue_wait_seconds_count{pool=\"app\",class=\"1\"} 1",
        "ptth_queue_wait_seconds_count{pool=\"app\",class=\"6\"} 1",
        "ptth_dispatch_inversions_total{pool=\"app\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    let handoffs: u64 = page
        .lines()
        .filter(|line| line.starts_with("ptth_handoff_seconds_count{pool=\"app\",class=\""))
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count"))
        .sum();
    let idle = page.lines().find(|line| line.starts_with("ptth_idle_while_queued_seconds_total{pool=\"app\"} "));
    let idle: f64 = idle.expect("it is counted").rsplit(' ').next().expect("a value").parse().expect("seconds");
    assert!(handoffs >= 2 && idle > 0.0, "{handoffs} handoffs, {idle} s\n{page}");
}

#[test]
fn a_request_that_finds_a_credit_is_no_handoff() {
    let edge = edge();
    let worker = H2Worker::dial(&edge, 1);
    let mut client = edge.sent(get("/"));
    worker.accept().ok("");
    assert_eq!(client.response().status(), 200);
    let page = edge.admin_get("/metrics").text().to_owned();
    assert!(!page.contains("ptth_handoff_seconds_count"), "{page}");
    assert!(page.contains("ptth_queue_wait_seconds_count{pool=\"app\",class=\"3\"} 1"), "{page}");
}
