//! What a worker says about itself: in its setup, and where an edge shows it.

mod common;

use common::origin::serving;
use common::{CORES, ORIGIN, SECRET, basic, ok, setting, setup};
use ptth::wire::About;

#[test]
fn an_edge_shows_what_its_workers_say_about_themselves() {
    let origin = serving(|request| ok(request.target()));
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let _worker = edge.worker_of(origin, |config| {
            config.about = About { id: Some("host-1".into()), labels: vec![("zone".into(), "a \"b\"".into())] };
        });
        let status = edge.status();
        let link = &status["links"][0];
        assert_eq!((link["worker"].as_str(), link["worker_id"].as_str()), (Some("web-1"), Some("host-1")), "{link}");
        assert_eq!(link["labels"], serde_json::json!({ "zone": "a \"b\"" }));
        // One that says nothing.
        let _link = edge.h1_link();
        let status = edge.status();
        let silent = status["links"].as_array().expect("a list").iter().find(|link| link["protocol"] == "http/1.1");
        let silent = silent.expect("it is there");
        assert_eq!((&silent["worker_id"], &silent["labels"]), (&serde_json::json!(""), &serde_json::json!({})));
    }
}

#[test]
fn what_is_malformed_or_too_long_is_refused_before_the_credential_is_looked_at() {
    let edge = common::edge();
    let with = |fields: &str, secret: &str| {
        let setup = setup(ORIGIN, "http%2F1.1").replace(&basic("web-1", SECRET), &basic("web-1", secret));
        let (_link, answer) = edge.set_up(&setup.replace("ALPN:", &format!("{fields}\r\nALPN:")));
        answer.status()
    };
    for (fields, status) in [
        ("PTTH-Worker-Id: host-1", 101),
        ("PTTH-Worker-Labels: zone=\"a\", rack=\"b\"", 101),
        ("PTTH-Worker-Id: host 1", 400),
        ("PTTH-Worker-Id: a\r\nPTTH-Worker-Id: b", 400),
        ("PTTH-Worker-Labels: zone=a", 400),
        ("PTTH-Worker-Labels: zone=\"a", 400),
    ] {
        assert_eq!(with(fields, SECRET), status, "{fields}");
        assert_eq!(with(fields, "wrong"), if status == 101 { 401 } else { status }, "{fields}");
    }
}
