//! The admin address: what it tells, in which form, and the order to drain.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::h2_worker::H2Worker;
use common::peer::start;
use common::{CORES, Message, Peer, TestEdge, assert_own, edge, get, post, setting};

// ---- /status ----

#[test]
fn status_tells_of_every_link() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let before = common::unix_seconds();
        let mut h1 = edge.h1_link();
        let h2 = H2Worker::dial(&edge, 7);
        edge.until_credits(8);
        let _one = edge.sent(get("/"));
        let _two = edge.sent(get("/"));
        let _three = edge.sent(get("/"));
        // One is on the HTTP/1.1 link at the latest when the third came; h2 has seven credits.
        // Cores are asked one after the other: what has just gone to another one can be in both their answers.
        let status = edge.until(|status| {
            let links = status["links"].as_array().expect("a list").iter();
            let in_flight: u64 = links.map(|link| link["in_flight"].as_u64().expect("a number")).sum();
            in_flight == 3 && status["pools"][0]["queued"] == 0
        });
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["draining"], false);
        assert!(status["uptime_seconds"].is_u64());
        let links = status["links"].as_array().expect("a list");
        assert_eq!(links.len(), 2, "{status:#}");
        let mut ids = BTreeSet::new();
        for link in links {
            assert!(ids.insert(link["id"].as_str().expect("text").to_owned()));
            assert_eq!(link["worker"], "web-1");
            assert_eq!(link["pools"], serde_json::json!(["app"]));
            let address: std::net::SocketAddr = link["address"].as_str().expect("text").parse().expect("an address");
            assert!(address.ip().is_loopback() && address.port() > 0);
            assert!(link["core"].as_u64() < Some(u64::from(cores)));
            let since = link["since_unix"].as_u64().expect("a number");
            assert!((before..=common::unix_seconds()).contains(&since), "{since}");
            let (credits, in_flight) = (link["credits"].as_u64(), link["in_flight"].as_u64());
            let all = credits.zip(in_flight).map(|(credits, in_flight)| credits + in_flight);
            match link["protocol"].as_str() {
                Some("h2") => assert_eq!(all, Some(7)),
                Some("http/1.1") => assert_eq!(all, Some(1)),
                other => panic!("{other:?}"),
            }
        }
        let pool = &status["pools"][0];
        assert_eq!((&pool["name"], &pool["queued"]), (&"app".into(), &0.into()));
        assert_eq!((&pool["links"], &pool["credits"], &pool["in_flight"]), (&2.into(), &5.into(), &3.into()));
        assert_eq!(pool["cores"].as_array().map(Vec::len), Some(usize::from(cores)));
        let h1_address = h1.stream.local_addr().expect("an address").to_string();
        assert!(links.iter().any(|link| link["address"] == *h1_address && link["protocol"] == "http/1.1"));
        if h1.has_some() {
            h1.serve("");
        }
        drop(h2);
    }
}

#[test]
fn a_pool_without_workers_shows_in_status_and_not_in_readiness() {
    let edge = setting().more("[[pool]]\nname = \"lonely\"\norigins = [\"lonely.example\"]\n").start();
    let status = edge.status();
    assert_eq!(status["pools"][1]["name"], "lonely");
    assert_eq!(status["pools"][1]["links"], 0);
    assert_eq!(edge.admin_get("/health/ready").status(), 200);
    assert_eq!(edge.admin_get("/health/live").status(), 200);
}

#[test]
fn status_counts_clients_and_not_links_or_itself() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let clients: Vec<_> = (0..5).map(|_| edge.client()).collect();
        let _link = edge.h1_link();
        let connections = |status: &serde_json::Value| -> u64 {
            let cores = status["cores"].as_array().expect("a list");
            cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum()
        };
        edge.until(|status| connections(status) == 5);
        drop(clients);
        edge.until(|status| connections(status) == 0);
    }
}

// ---- /metrics ----

/// One sample of the page: its metric, its labels, its value.
#[derive(Debug)]
struct Sample {
    metric: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the page as strictly as Prometheus' text format 0.0.4 is written.
#[track_caller]
fn metrics(page: &str) -> (Vec<Sample>, BTreeMap<String, String>) {
    assert!(page.ends_with('\n'), "the last line has its end");
    let mut kinds = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples: Vec<Sample> = Vec::new();
    let mut family = String::new();
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (metric, text) = help.split_once(' ').expect("a sentence");
            assert!(helped.insert(metric.to_owned()) && !text.is_empty(), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = kind.split_once(' ').expect("a type");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(kinds.insert(metric.to_owned(), kind.to_owned()).is_none(), "{line} is there twice");
            assert!(helped.contains(metric), "{line}: HELP comes first");
            family = metric.to_owned();
            continue;
        }
        assert!(!line.starts_with('#') && !line.is_empty(), "{line:?}");
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(seen.insert(series.to_owned()), "{series} is there twice");
        let (metric, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((metric, labels)) => {
                let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
                let read = |pair: &str| {
                    let (key, text) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
                    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                    (key.to_owned(), text.unwrap_or_else(|| panic!("{line}")).to_owned())
                };
                (metric, labels.split(',').map(read).collect())
            }
        };
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
        let own = if kinds.get(&family).is_some_and(|kind| kind == "histogram") { base } else { Some(metric) };
        assert_eq!(own, Some(&*family), "{line} stands in its family");
        assert!(["ptth_", "process_"].iter().any(|own| metric.starts_with(own)), "{line}");
        let legal =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        assert!(legal(metric) && labels.keys().all(|key| legal(key)), "{line}");
        samples.push(Sample { metric: metric.to_owned(), labels, value: value.parse().expect("a number") });
    }
    (samples, kinds)
}

#[track_caller]
fn value(samples: &[Sample], metric: &str, labels: &[(&str, &str)]) -> f64 {
    let matching: Vec<_> = samples
        .iter()
        .filter(|sample| sample.metric == metric)
        .filter(|sample| labels.iter().all(|(key, text)| sample.labels.get(*key).is_some_and(|own| own == text)))
        .collect();
    assert!(!matching.is_empty(), "{metric} {labels:?} is missing");
    matching.iter().map(|sample| sample.value).sum()
}

#[track_caller]
fn page(edge: &TestEdge) -> Message {
    let page = edge.admin_get("/metrics");
    assert_eq!(page.status(), 200);
    assert!(page.field("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")), "{page:?}");
    page
}

#[test]
fn metrics_count_what_happened() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("retries_max = 1\nqueue = { requests_max = 1 }").start();
        let mut client = edge.client();
        // A queue of one, and one too many.
        let mut waits = edge.sent(get("/waits"));
        edge.until_queued(1);
        assert_own(&client.ask("/too-many"), 503, "connection_limit_reached");
        let mut link = edge.h1_link();
        link.serve("12345");
        assert_eq!(waits.response().text(), "12345");
        // Served, refused by the worker, not for us, malformed.
        for answer in ["200 OK", "404 Not Found", "301 Moved", "500 Broken"] {
            client.send(post("/", "abc"));
            link.request();
            link.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"));
            client.response();
        }
        client.send("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
        assert_eq!(client.response().status(), 404);
        client.send("BAD\r\n\r\n");
        assert_eq!(client.response().status(), 400);
        // Lost once, and again.
        let mut lost = edge.sent(get("/lost"));
        link.request();
        drop(link);
        edge.until_queued(1);
        let mut link = edge.h1_link();
        link.request();
        drop(link);
        assert_own(&lost.response(), 502, "connection_terminated");
        // One leaves.
        edge.until_links(0);
        drop(edge.sent(get("/leaves")));
        edge.until(|status| status["counters"]["clients_gone"] == 1);

        let page = page(&edge);
        let (samples, kinds) = metrics(page.text());
        let app = ("pool", "app");
        for (metric, labels, want) in [
            ("ptth_requests_total", &[app, ("status", "2xx")][..], 2.0),
            ("ptth_requests_total", &[app, ("status", "3xx")], 1.0),
            ("ptth_requests_total", &[app, ("status", "5xx")], 3.0),
            ("ptth_requests_total", &[app, ("status", "4xx")], 2.0), // a 404, and 499 for who left
            ("ptth_requests_total", &[("pool", ""), ("status", "4xx")], 2.0), // no pool; and one that was no request
            ("ptth_refusals_total", &[("reason", "queue_full")], 1.0),
            ("ptth_refusals_total", &[("reason", "no_pool")], 1.0),
            ("ptth_refusals_total", &[("reason", "link_lost")], 1.0),
            ("ptth_requeues_total", &[("reason", "retried")], 1.0),
            ("ptth_dispatches_total", &[app], 7.0),
            ("ptth_queue_wait_seconds_count", &[app], 7.0),
            ("ptth_queue_depth", &[app], 0.0),
            ("ptth_queue_bytes", &[app], 0.0),
            ("ptth_links", &[app], 0.0),
            ("ptth_credits", &[app], 0.0),
            ("ptth_in_flight", &[app], 0.0),
            ("ptth_setups_total", &[], 2.0),
            ("ptth_clients_gone_total", &[], 1.0),
            ("ptth_draining", &[], 0.0),
            ("ptth_connection_panics_total", &[], 0.0),
        ] {
            assert_eq!(value(&samples, metric, labels), want, "{metric} {labels:?}");
        }
        assert!(value(&samples, "ptth_bytes_total", &[("direction", "request")]) >= 12.0);
        assert!(value(&samples, "ptth_bytes_total", &[("direction", "response")]) >= 5.0);
        assert_eq!(kinds["ptth_queue_wait_seconds"], "histogram");
        check_histogram(&samples, "ptth_queue_wait_seconds");
        for (metric, kind) in &kinds {
            assert_eq!(metric.ends_with("_total"), kind == "counter", "{metric} is a {kind}");
        }
    }
}

/// Buckets grow, and the last one holds all.
#[track_caller]
fn check_histogram(samples: &[Sample], metric: &str) {
    let buckets: Vec<_> = samples.iter().filter(|sample| sample.metric == format!("{metric}_bucket")).collect();
    let bounds: Vec<f64> =
        buckets
            .iter()
            .map(|bucket| {
                if bucket.labels["le"] == "+Inf" {
                    f64::INFINITY
                } else {
                    bucket.labels["le"].parse().expect("a bound")
                }
            })
            .collect();
    assert!(bounds.windows(2).all(|two| two[0] < two[1]), "{bounds:?}");
    assert!(buckets.windows(2).all(|two| two[0].value <= two[1].value), "{buckets:?}");
    assert_eq!(bounds.last(), Some(&f64::INFINITY));
    assert_eq!(buckets.last().map(|bucket| bucket.value), Some(value(samples, &format!("{metric}_count"), &[])));
    assert!(value(samples, &format!("{metric}_sum"), &[]) >= 0.0);
}

#[test]
fn metrics_tell_of_malformed_requests() {
    // interface.md: refusals by reason; a head that cannot be read is one.
    let edge = edge();
    for (bytes, status) in
        [("BAD\r\n\r\n", 400), ("GET / HTTP/2.0\r\n\r\n", 505), ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405)]
    {
        assert_eq!(edge.sent(bytes).response().status(), status);
    }
    let page = page(&edge);
    let (samples, _) = metrics(page.text());
    for reason in ["client_malformed", "unknown_version", "method_refused"] {
        assert_eq!(value(&samples, "ptth_refusals_total", &[("reason", reason)]), 1.0, "{reason}");
    }
}

#[test]
fn metrics_tell_of_refused_setups() {
    let edge = setting().credential("links_max = 1").start();
    let _link = edge.h1_link();
    let good = common::setup(common::ORIGIN, "h2");
    for (setup, status) in [
        (good.clone(), 429),
        (good.replace("ALPN: h2", "ALPN: h3"), 406),
        (good.replace("app.example", "other.example"), 403),
        (good.replace("Basic ", "Basic AAAA"), 401),
        (good.replace("ALPN: h2\r\n", ""), 400),
        (good.replace("GET", "POST"), 405),
        (good.replace("Upgrade: ptth\r\n", ""), 426),
    ] {
        assert_eq!(edge.set_up(&setup).1.status(), status, "{setup}");
    }
    let page = page(&edge);
    let (samples, _) = metrics(page.text());
    for reason in ["limit", "versions", "forbidden", "unauthorized", "malformed", "method", "upgrade_required"] {
        assert_eq!(value(&samples, "ptth_setups_refused_total", &[("reason", reason)]), 1.0, "{reason}");
    }
    assert_eq!(value(&samples, "ptth_setups_total", &[]), 1.0);
}

// ---- the rest ----

#[test]
fn the_admin_address_answers_what_it_knows_and_nothing_else() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut admin = Peer::connect(edge.admin);
        for (method, path, status) in [
            ("GET", "/", 200),
            ("GET", "/status", 200),
            ("GET", "/status?pretty", 200),
            ("GET", "/metrics", 200),
            ("GET", "/health/live", 200),
            ("GET", "/health/ready", 200),
            ("GET", "/health", 404),
            ("GET", "/health/", 404),
            ("GET", "/statuss", 404),
            ("GET", "/status/", 404),
            ("GET", "/%73tatus", 404),
            ("GET", "//status", 404),
            ("GET", "/drain", 405),
            ("DELETE", "/status", 405),
            ("POST", "/metrics", 405),
            ("PUT", "/health/live", 405),
            ("PUT", "/drain", 405),
        ] {
            admin.send(start(method, path) + "Content-Length: 0\r\n\r\n");
            let answer = admin.response();
            assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
            assert!(answer.field("content-type").is_some() && !answer.body.is_empty(), "{answer:?}");
            if status == 405 {
                let allow = answer.field("allow").unwrap_or_else(|| panic!("RFC 9110 §15.5.6: {answer:?}"));
                assert!(allow.contains(if path == "/drain" { "POST" } else { "GET" }), "{answer:?}");
            }
            assert_eq!(edge.status()["draining"], false);
        }
        for path in ["/status", "/metrics", "/health/live"] {
            admin.send(start("HEAD", path) + "\r\n");
            let answer = admin.response_to_head();
            assert!(answer.status() == 200 && answer.field("content-length") != Some("0"), "{answer:?}");
        }
        assert_eq!(admin.ask("/health/live").status(), 200);
        assert_eq!(edge.admin_get("/status").field("content-type"), Some("application/json"));
    }
}

#[test]
fn the_admin_address_takes_neither_workers_nor_proxied_requests() {
    let edge = edge();
    let mut link = Peer::connect(edge.admin);
    link.send(common::setup(common::ORIGIN, "h2").replace("edge.example", "127.0.0.1"));
    assert_eq!(link.response().status(), 404);
    let mut bad = Peer::connect(edge.admin);
    bad.send("GET /status HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(bad.response().status(), 400);
    bad.ends();
    assert_eq!(edge.status()["links"], serde_json::json!([]));
}

#[test]
fn many_ask_at_once() {
    let edge = setting().cores(2).start();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let admin = edge.admin;
            std::thread::spawn(move || {
                let mut admin = Peer::connect(admin);
                for _ in 0..50 {
                    let answer = admin.ask(if n % 2 == 0 { "/status" } else { "/metrics" });
                    assert_eq!(answer.status(), 200);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("all were answered");
    }
}

#[test]
fn the_order_to_drain_drains() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.sent(get("/"));
        link.request();
        let mut admin = Peer::connect(edge.admin);
        admin.send(start("POST", "/drain") + "Content-Length: 0\r\n\r\n");
        let answer = admin.response();
        assert_eq!(answer.status(), 202, "{answer:?}");
        // While it drains it lives, and is not ready.
        let mut ready = edge.admin_get("/health/ready");
        assert_eq!(ready.status(), 503);
        assert_eq!(edge.admin_get("/health/live").status(), 200);
        assert_eq!(edge.status()["draining"], true);
        let page = page(&edge);
        assert_eq!(value(&metrics(page.text()).0, "ptth_draining", &[]), 1.0);
        ready = admin.ask("/health/ready");
        assert_eq!(ready.status(), 503);
        link.ok("finished");
        assert_eq!(client.response().text(), "finished");
        assert!(edge.wait(), "an open admin connection holds nothing up");
    }
}

#[test]
fn an_order_to_drain_may_come_again() {
    let edge = edge();
    let mut link = edge.h1_link();
    let _client = edge.sent(get("/"));
    link.request();
    for _ in 0..3 {
        let mut admin = Peer::connect(edge.admin);
        admin.send("POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nnow!\n");
        assert_eq!(admin.response().status(), 202);
    }
    link.ok("");
    assert!(edge.wait());
}
