//! Counts the allocations of a line of the access log on its core: one test, alone in its binary.

mod counting;

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method};
use ptth::clock;
use ptth::edge::config::EdgeConfig;
use ptth::edge::log::record::{LinkName, Record, Routed, texts_of};
use ptth::edge::log::{AccessLog, Book, open};
use ptth::edge::priority::DecidedBy;
use ptth::events::Dispatch;
use ptth::exchange::{Ask, Length};
use ptth::ids::{Class, CoreId, LinkId, PoolId};
use ptth::limits::{ACCESS_LOG_RECORDS_MAX, ACCESS_LOG_TEXT_BYTES};

fn ask(path: &str) -> Ask {
    let mut headers = HeaderMap::new();
    headers.insert("x-request-id", HeaderValue::from_static("0123456789abcdef0123456789abcdef"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", HeaderValue::from_static(trace));
    Ask {
        method: Method::GET,
        version: http::Version::HTTP_2,
        secure: true,
        authority: Some("app.example.com".parse().unwrap()),
        path: path.parse().unwrap(),
        headers,
        length: Length::None,
        expects_continue: false,
        upgrade: None,
    }
}

fn put(book: &Book, ask: &Ask, link: &LinkName) -> bool {
    let now = clock::now();
    book.put(Record {
        core: CoreId(0),
        client: IpAddr::from([192, 0, 2, 1]),
        received: now,
        left: Some(now),
        granted: Some(now),
        began: Some(now),
        ended: now,
        routed: Some(Routed { pool: PoolId(0), class: Class::of(3), by: Some(DecidedBy::Default) }),
        link: Some((link.generation, link.core, link.link)),
        dispatch: Some(Dispatch::Local),
        attempts: 1,
        status: 200,
        fault: None,
        version: Some(ask.version),
        is_secure: ask.secure,
        bytes_up: 0,
        bytes_down: 1024,
        texts: texts_of(Some(ask), Some(link), book.tells),
    })
}

#[test]
fn a_line_costs_its_core_no_allocation_but_for_long_texts() {
    let text = "[[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n\
                [access_log]\nfile = \"/dev/null\"\n[[pool]]\nname = \"app\"\norigins = [\"*\"]\n";
    let (config, _) = EdgeConfig::parse("edge.toml", text, 0).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let log = AccessLog::default();
    let opened = open(&config).expect("it can be written").expect("it is wanted");
    let books = log.begin(opened, 1, vec!["app".into()], 1).expect("a thread");
    let link = LinkName {
        generation: 1,
        core: CoreId(0),
        link: LinkId(7),
        worker: "web-1".into(),
        worker_id: "host-1.example.com".into(),
    };
    let (short, long) =
        (ask(&format!("/{}", "x".repeat(120))), ask(&format!("/{}", "x".repeat(ACCESS_LOG_TEXT_BYTES))));
    let lines = ACCESS_LOG_RECORDS_MAX / 4;
    for (ask, want) in [(&short, 0), (&long, 1)] {
        let before = counting::allocations();
        let kept = (0..lines).filter(|_| put(&books[0], ask, &link)).count();
        assert_eq!(counting::allocations() - before, want * lines as u64, "{}", ask.path);
        assert_eq!(kept, lines, "there is room for all");
    }
    drop(books);
    log.end();
    assert_eq!((log.tally().written, log.tally().failed), (2 * lines as u64, 0));
}
