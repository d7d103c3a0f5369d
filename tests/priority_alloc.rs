//! Counts the allocations of a classification: one test, alone in its binary.

mod counting;

use std::hint::black_box;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method};
use ptth::edge::config::EdgeConfig;
use ptth::edge::priority::Classifier;
use ptth::exchange::{Ask, Length};

fn allocations_of<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let before = counting::allocations();
    let result = black_box(run());
    (counting::allocations() - before, result)
}

fn classifier(lines: &str) -> Classifier {
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n\
         [[pool]]\nname = \"app\"\norigins = [\"*\"]\n{lines}"
    );
    let (config, _) = EdgeConfig::parse("edge.toml", &text, 0).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Classifier::new(&config.pools[0])
}

fn ask(host: &'static str, path: &'static str, priority: Option<&'static str>) -> Ask {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static(host));
    headers.insert("x-plan", HeaderValue::from_static("gold"));
    if let Some(priority) = priority {
        headers.insert("priority", HeaderValue::from_static(priority));
    }
    Ask {
        method: Method::POST,
        version: http::Version::HTTP_11,
        secure: false,
        authority: Some(host.parse().unwrap()),
        path: path.parse().unwrap(),
        headers,
        length: Length::None,
        expects_continue: false,
        upgrade: None,
    }
}

#[test]
fn a_class_is_decided_without_an_allocation() {
    let client: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    assert_eq!(allocations_of(|| String::from("counted")).0, 1);
    let rules = "[pool.priority]\nclient_header = \"clamp\"\nclamp = [2, 6]\n\
        [[pool.rule]]\nmatch = { method = [\"PUT\", \"A-METHOD-OF-A-LONG-NAME\"] }\nurgency = 0\n\
        [[pool.rule]]\nmatch = { client = [\"10.2.0.0/16\", \"2001:db8::/32\"] }\nurgency = 0\n\
        [[pool.rule]]\nmatch = { header = { x-plan = \"red\", x-user = \"*\" } }\nurgency = 0\n\
        [[pool.rule]]\nmatch = { path = [\"/*/pay/*\", \"*.css\", \"/exact\"] }\nurgency = 7\n\
        [[pool.rule]]\nmatch = { method = \"POST\", host = \"*.EXAMPLE.com\", path = \"*/check*out/*\", \
        client = \"10.0.0.0/8\", header = { X-Plan = \"gold\" } }\nurgency = 1\n";
    let long: &'static str = format!("/{}", "pay/a".repeat(500)).leak();
    for (lines, host, path, priority, want) in [
        ("", "app.example.com", "/", None, 3),
        ("", "app.example.com", "/", Some("u=0, i"), 3),
        (rules, "App.Example.com:8080", "/v1/checkedout/7?x", None, 1),
        (rules, "other.example", "/v1/checkout/7", None, 3),
        (rules, "app.example.com", "/a/pay/b", None, 7),
        (rules, "app.example.com", long, None, 3), // no piece of it is the whole of a segment
        (rules, "app.example.com", "/", Some("u=0, i"), 2),
        (rules, "app.example.com", "/", Some("u=5;x=1, y=(1 2), z=tok, i"), 5),
        (rules, "app.example.com", "/", Some("u=5,,"), 3),
    ] {
        let (classifier, ask) = (classifier(lines), ask(host, path, priority));
        let (count, classified) = allocations_of(|| classifier.classify(&ask, Some(client)));
        assert_eq!((count, classified.urgency), (0, want), "{host} {path} {priority:?}");
    }
}
