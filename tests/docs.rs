//! What docs/ says of a running edge is so: exchanges on the wire, which are sent over real sockets; statuses, errors and
//! reasons; names of metrics; lines of the log. Keys of the configuration are tests/config_docs.rs's, commands and links
//! tests/readme.rs's.

mod common;
mod pages;

use std::collections::BTreeSet;
use std::path::Path;

use common::frames::PREFACE;
use common::h2_client::H2Client;
use common::{Message, Peer, TestEdge, edge, secret_hash, setting};
use pages::Block;
use ptth::events::{Label, RefusalReason, SetupRefusal};
use ptth::fault::Fault;

// ---- docs/protocol.md ----

/// Who speaks for a block, and to whom.
const SPEAKERS: [&str; 5] = ["http worker", "http stream", "http edge", "http client", "http answer"];

/// The conversations of the page: the blocks under one heading, with the heading's line first.
fn conversations(page: &str) -> Vec<(String, Vec<Block>)> {
    let text = pages::read(page);
    let headings: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| line.starts_with("## ") || line.starts_with("### ")).collect();
    let mut talks: Vec<(String, Vec<Block>)> = Vec::new();
    for block in pages::blocks(&text).into_iter().filter(|block| SPEAKERS.contains(&block.info.as_str())) {
        let (_, heading) = headings.iter().rev().find(|(line, _)| *line < block.line).expect("a heading");
        match talks.last_mut() {
            Some((last, blocks)) if last == heading => blocks.push(block),
            _ => talks.push(((*heading).to_owned(), vec![block])),
        }
    }
    talks
}

/// As it goes over the wire: the head's lines, a blank one, and the body with its line ends as they are.
fn bytes(block: &Block) -> String {
    let end = block.lines.iter().position(String::is_empty).expect("a head ends with a blank line");
    let head: String = block.lines[..end].iter().map(|line| format!("{line}\r\n")).collect();
    let body: String = block.lines[end + 1..].iter().map(|line| format!("{line}\n")).collect();
    format!("{head}\r\n{body}")
}

/// A head is as the block shows it. One that ends with a blank line is shown whole.
#[track_caller]
fn check(block: &Block, came: &Message) {
    let is_whole = block.lines.last().is_some_and(String::is_empty);
    let mut lines = block.lines.iter().filter(|line| !line.is_empty());
    assert_eq!(Some(&came.line), lines.next(), "{came:?}");
    let mut shown = BTreeSet::new();
    for line in lines {
        let (name, wanted) = line.split_once(": ").expect("a field");
        let value = came.field(name).unwrap_or_else(|| panic!("no {name}: {came:?}"));
        match wanted.split_once('…') {
            Some((before, after)) => assert!(value.starts_with(before) && value.ends_with(after), "{name}: {value}"),
            None => assert_eq!(value, wanted, "{name}"),
        }
        shown.insert(name.to_lowercase());
    }
    if is_whole {
        let all: BTreeSet<String> = came.fields.iter().map(|(name, _)| name.to_lowercase()).collect();
        assert_eq!(shown, all, "{came:?}");
    }
}

/// A setup over HTTP/2, and its answer.
fn play_stream(edge: &TestEdge, setup: &Block, answer: &Block) {
    let fields: Vec<(&str, &str)> = setup.lines.iter().filter_map(|line| line.rsplit_once(": ")).collect();
    let pseudo = |name: &str| fields.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| *value);
    let uri = format!("{}://{}{}", pseudo(":scheme"), pseudo(":authority"), pseudo(":path"));
    let mut request = http::Request::builder().method(pseudo(":method")).uri(uri);
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        request = request.header(*name, *value);
    }
    let request = request.extension(h2::ext::Protocol::from(pseudo(":protocol"))).body(()).expect("a request");
    let mut client = H2Client::connect(edge.address);
    common::peer::until(|| client.send.is_extended_connect_protocol_enabled());
    let mut sent = client.start(request, false);
    let begun = sent.begun();
    let status = (":status".to_owned(), begun.head.status.as_str().to_owned());
    let others = begun
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().expect("text").to_owned()));
    let came: BTreeSet<(String, String)> = std::iter::once(status).chain(others).collect();
    let lines = answer.lines.iter().filter_map(|line| line.rsplit_once(": "));
    let shown: BTreeSet<(String, String)> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(came, shown);
    edge.until_links(1);
}

/// The worker's and the client's connection, as far as the conversation has come.
fn play(edge: &TestEdge, blocks: &[Block]) {
    if let [setup, answer] = blocks
        && setup.info == "http stream"
    {
        return play_stream(edge, setup, answer);
    }
    let (mut worker, mut client): (Option<Peer>, Option<Peer>) = (None, None);
    for block in blocks {
        match block.info.as_str() {
            "http worker" => match &mut worker {
                Some(link) => link.send(bytes(block)),
                None => worker = Some(edge.sent(bytes(block))),
            },
            "http client" => client = Some(edge.sent(bytes(block))),
            "http edge" => {
                let link = worker.as_mut().expect("a worker");
                let came = link.head();
                check(block, &came);
                // "The edge sends the HTTP/2 preface."
                if came.line.contains(" 101 ") && came.all("alpn") == ["h2"] {
                    assert_eq!(link.read(PREFACE.len()), PREFACE);
                }
            }
            "http answer" => check(block, &client.as_mut().expect("a client").response()),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn each_exchange_of_the_protocol_is_as_it_is_shown() {
    let talks = conversations("docs/protocol.md");
    assert!(talks.len() >= 6, "{}", talks.len());
    for (heading, blocks) in talks {
        let own = format!(
            "[[credential]]\nid = \"own\"\nsecret_hash = \"{}\"\norigins = [\"http://app.example\"]\nlegacy = true\n",
            secret_hash("own secret")
        );
        // An edge for each: nobody else's link answers.
        let edge = setting().listen("h2c = true").more(&own).start();
        println!("{heading}");
        play(&edge, &blocks);
    }
}

/// Rows of the page's table of refusals, in the order of the checks: each status is what a setup with this and every
/// later mistake gets.
#[test]
fn setups_are_refused_in_the_order_of_the_table() {
    let rows = pages::rows(&pages::read("docs/protocol.md"), "| the setup | answer |");
    let statuses: Vec<u16> = rows
        .iter()
        .filter_map(|row| row.cells[1].split([',', ' ']).next()?.parse().ok())
        .filter(|status| ![404, 429, 503].contains(status))
        .collect();
    assert_eq!(statuses, [405, 426, 400, 401, 403, 406]);
    let edge = edge();
    // What is right about a setup grows from row to row.
    let good = [
        ("GET", "POST"),
        ("Upgrade: ptth\r\n", ""),
        ("http%3A%2F%2Fapp.example", "null"),
        ("d2ViLTE6czNjcmV0", "d2ViLTE6d3Jvbmc="),
        ("app.example/", "other.example/"),
        ("ALPN: http%2F1.1", "ALPN: h3qx"),
    ];
    let setup = "GET /.well-known/ptth/http%3A%2F%2Fapp.example/ HTTP/1.1\r\nHost: edge.example\r\nConnection: upgrade\r\n\
                 Upgrade: ptth\r\nALPN: http%2F1.1\r\nAuthorization: Basic d2ViLTE6czNjcmV0\r\n\r\n";
    assert_eq!(edge.set_up(setup).1.status(), 101);
    for (first, status) in statuses.iter().enumerate() {
        let wrong = good[first..].iter().fold(setup.to_owned(), |text, (right, wrong)| text.replacen(right, wrong, 1));
        let (_, answer) = edge.set_up(&wrong);
        assert_eq!(answer.status(), *status, "{wrong}\n{answer:?}");
        let field = match status {
            401 => Some("www-authenticate"),
            405 => Some("allow"),
            426 => Some("upgrade"),
            _ => None,
        };
        assert!(field.is_none_or(|name| !answer.all(name).is_empty()), "{answer:?}");
    }
}

/// Tests that a page names, as in `tests/attach.rs`: `a_sentence`, are there.
#[test]
fn tests_that_the_pages_name_exist() {
    let mut seen = 0;
    for page in pages::all() {
        let prose = pages::prose(&pages::read(&page)).replace('\n', " ");
        for rest in prose.split("`tests/").skip(1) {
            let (file, rest) = rest.split_once('`').expect("a span ends");
            if let Some(name) = rest.strip_prefix(": `").and_then(|rest| rest.split('`').next()) {
                let code = pages::read(&format!("tests/{file}"));
                assert!(code.contains(&format!("fn {name}()")), "{page}: {name} in {file}");
                seen += 1;
            } else {
                assert!(pages::root().join("tests").join(file).exists(), "{page}: tests/{file}");
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

// ---- docs/operating.md: statuses ----

const REQUESTS: &str = "| status | error | reason | the body | what it means, and what to do |";
const SETUPS: &str = "| status | reason | the body | what to do |";

/// Every fault with an example of what is wrong, where that is not fixed. A new fault does not compile here until it has a row
/// on the page.
fn faults() -> Vec<(Fault, Option<&'static str>)> {
    use Fault::*;
    let known = |fault: Fault| match fault {
        ClientMalformed(_) => Some("client_malformed"),
        LineTooLong => Some("line_too_long"),
        HeadTooLarge => Some("head_too_large"),
        HeadTimeout => Some("head_timeout"),
        BodyTimeout => Some("body_timeout"),
        BodyTooSlow => Some("body_too_slow"),
        UnknownCoding => Some("unknown_coding"),
        UnknownVersion => Some("unknown_version"),
        MethodRefused => Some("method_refused"),
        UnknownExpectation => Some("unknown_expectation"),
        NoPool => Some("no_pool"),
        Misdirected => Some("misdirected"),
        QueueFull => Some("queue_full"),
        MemoryFull => Some("memory_full"),
        WaitedTooLong => Some("waited_too_long"),
        WouldWaitTooLong => Some("would_wait_too_long"),
        NoWorker => Some("no_worker"),
        Draining => Some("draining"),
        LinkLost => Some("link_lost"),
        NotProcessed => Some("not_processed"),
        WorkerReset => Some("worker_reset"),
        WorkerMalformed(_) => Some("worker_malformed"),
        WorkerStalled => Some("worker_stalled"),
        ResponseTimeout => Some("response_timeout"),
        NoUpgrade => Some("no_upgrade"),
        // No edge counts it; a client that is gone reads nothing.
        OriginUnreachable | ClientGone => None,
        SetupMalformed(_) => Some("malformed"),
        SetupUnauthorized => Some("unauthorized"),
        SetupForbidden => Some("forbidden"),
        SetupMethod => Some("method"),
        SetupUpgradeRequired => Some("upgrade_required"),
        SetupVersions => Some("versions"),
        SetupLimit => Some("limit"),
        SetupsTooMany { .. } => Some("rate"),
    };
    let all = [
        ClientMalformed(""),
        LineTooLong,
        HeadTooLarge,
        HeadTimeout,
        BodyTimeout,
        BodyTooSlow,
        UnknownCoding,
        UnknownVersion,
        MethodRefused,
        UnknownExpectation,
        NoPool,
        Misdirected,
        QueueFull,
        MemoryFull,
        WaitedTooLong,
        WouldWaitTooLong,
        NoWorker,
        Draining,
        LinkLost,
        NotProcessed,
        WorkerReset,
        WorkerMalformed(""),
        WorkerStalled,
        ResponseTimeout,
        NoUpgrade,
        OriginUnreachable,
        SetupMalformed(""),
        SetupUnauthorized,
        SetupForbidden,
        SetupMethod,
        SetupUpgradeRequired,
        SetupVersions,
        SetupLimit,
        SetupsTooMany { retry_after_s: 1 },
    ];
    all.into_iter().map(|fault| (fault, known(fault))).collect()
}

#[test]
fn each_answer_of_the_edge_has_its_row() {
    let page = pages::read("docs/operating.md");
    let (requests, setups) = (pages::rows(&page, REQUESTS), pages::rows(&page, SETUPS));
    let plain = |cell: &str| cell.replace('`', "");
    let mut rows = 0;
    for (fault, reason) in faults() {
        let body = if fault.detail().is_empty() { "says what" } else { fault.detail() };
        let status = fault.status().to_string();
        let found = match fault.proxy_error() {
            Some(error) => requests.iter().any(|row| {
                let cells: Vec<String> = row.cells.iter().map(|cell| plain(cell)).collect();
                cells[..2] == [status.clone(), error.to_owned()]
                    && reason.is_none_or(|reason| cells[2] == reason)
                    && cells[3] == body
            }),
            None => setups.iter().any(|row| {
                let cells: Vec<String> = row.cells.iter().map(|cell| plain(cell)).collect();
                cells[..3] == [status.clone(), reason.unwrap_or_default().to_owned(), body.to_owned()]
            }),
        };
        assert!(found, "no row: {status} {:?} {reason:?} {body}", fault.proxy_error());
        rows += 1;
    }
    assert_eq!(requests.len() + setups.len(), rows, "a row of what is not there");
}

#[test]
fn each_reason_of_the_counts_has_its_row() {
    let page = pages::read("docs/operating.md");
    let reasons = |header: &str, column: usize| -> BTreeSet<String> {
        let rows = pages::rows(&page, header);
        let cells = rows.iter().map(|row| row.cells[column].clone()).filter(|cell| cell.starts_with('`'));
        cells.map(|cell| cell.replace('`', "")).collect()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(reasons(REQUESTS, 2), names(RefusalReason::NAMES));
    let mut setups = reasons(SETUPS, 1);
    // It is a sentence below the table, for it is a request's answer, too.
    assert!(page.contains("A setup is answered 503 while the edge drains"));
    setups.insert("draining".into());
    assert_eq!(setups, names(SetupRefusal::NAMES));
}

// ---- metrics, the log ----

#[test]
fn each_metric_that_the_pages_name_is_exported() {
    let edge = edge();
    let worker = edge.h1_link();
    let mut client = edge.sent(common::get("/"));
    let mut worker = worker;
    worker.serve("here");
    client.response();
    let metrics = edge.admin_get("/metrics");
    let types: BTreeSet<&str> =
        metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut seen = 0;
    for page in pages::all() {
        for span in pages::spans(&pages::read(&page)) {
            let names =
                span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("ptth_"));
            for name in names.filter(|name| *name != "ptth_") {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                let is_there = types.contains(name) || types.contains(base);
                assert!(is_there, "{page}: {name} is not in /metrics");
                seen += 1;
            }
        }
    }
    assert!(seen >= 20, "{seen}");
}

/// The text of all sources below `folder`, string literals joined over their line ends.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &std::fs::read_to_string(&path).expect("a source");
        }
    }
}

const LINES: &str = "| line | level | what it means, and what to do |";

/// The sources as one line, with string literals joined over their line ends.
fn code() -> String {
    let mut code = String::new();
    sources(&pages::root().join("src"), &mut code);
    code.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "")
}

/// What a call writes, given what stands behind its parenthesis: its last string that is no field's value.
fn message(call: &str) -> Option<String> {
    let (mut depth, mut last, mut before) = (0, None, ' ');
    let mut chars = call.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    text.push(if c == '\\' { chars.next()? } else { c });
                }
                if depth == 0 && before != '=' {
                    last = Some(text);
                }
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => return last,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        before = if c == ' ' { before } else { c };
    }
    None
}

/// Lines that say nothing of their own, and what they pass on.
const PASSED_ON: [(&str, &str); 3] = [
    ("{line}", "a mistake or a warning of a configuration, as `ptth check` prints it"),
    ("{warning}", "the same, at the start"),
    ("{why}", "the reason for which SIGUSR2 changes nothing, which the next line says"),
];

#[test]
fn each_warning_and_each_error_of_the_log_is_explained() {
    let rows = pages::rows(&pages::read("docs/operating.md"), LINES);
    let code = code();
    let mut passed_on = BTreeSet::new();
    let mut seen = 0;
    for level in ["warn", "error"] {
        for call in code.split(&format!("tracing::{level}!(")).skip(1) {
            let message = message(call).unwrap_or_else(|| panic!("no message: {:.80}", call));
            seen += 1;
            if let Some((text, _)) = PASSED_ON.iter().find(|(text, _)| *text == message) {
                passed_on.insert(*text);
                continue;
            }
            let is_told =
                rows.iter().any(|row| row.cells[1] == level && message.contains(row.cells[0].trim_matches('`')));
            assert!(is_told, "docs/operating.md does not say what {message:?} ({level}) means, and what to do");
        }
    }
    assert!(seen >= 40, "{seen}");
    assert_eq!(passed_on.len(), PASSED_ON.len(), "one is not written any more");
    assert!(!code.contains(" warn!(") && !code.contains(" error!("), "a macro without its path is not looked at");
}

#[test]
fn each_line_of_the_log_that_is_explained_is_one_that_the_program_writes() {
    let rows = pages::rows(&pages::read("docs/operating.md"), LINES);
    let code = code();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        let line = row.cells[0].trim_matches('`');
        let level = &row.cells[1];
        // The level stands before the text, in the same call.
        let found = code.match_indices(line).any(|(at, _)| {
            let call = code[..at].rfind("tracing::").map_or("", |call| &code[call..at]);
            call.starts_with(&format!("tracing::{level}!(")) && !call.contains("); ")
        });
        assert!(found, "nobody writes {line:?} at {level}");
    }
}

/// What a request and an idle client cost stands in benches/README.md.
#[test]
fn the_figures_of_capacity_are_those_that_were_measured() {
    let (page, benches) = (pages::read("docs/operating.md"), pages::read("benches/README.md"));
    let mut seen = 0;
    for header in ["| one request | CPU of the edge, µs |", "| an idle client | resident bytes |"] {
        for row in pages::rows(&page, header) {
            let figure = &row.cells[1];
            let stands = |end: &str| benches.contains(&format!("| {figure}{end}"));
            assert!(stands(" (") || stands(" |"), "benches/README.md has no {figure}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

// ---- docs/comparison.md ----

/// A figure of our own is one of benches/README.md, and what is said of others has its source on the page.
#[test]
fn the_comparison_claims_nothing_without_a_source() {
    let (page, benches) = (pages::read("docs/comparison.md"), pages::read("benches/README.md"));
    let rows = pages::rows(&page, "| | ptth | HAProxy |");
    assert!(rows.len() >= 5, "{}", rows.len());
    let measured = benches.split("| 26 November, three rounds |").nth(1).expect("the table that is quoted");
    let measured = measured.split("\n\n").next().unwrap_or_default();
    for figure in rows.iter().flat_map(|row| &row.cells[1..]) {
        assert!(measured.contains(&format!("| {figure} (")), "no {figure} in that table of benches/README.md");
    }
    let prose = pages::prose(&page);
    let (text, sources) = prose.split_once("## Sources").expect("sources");
    let is_figure = |word: &&str| word.split_once('.').is_some_and(|(_, part)| part.len() == 3);
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(is_figure).map(str::to_owned);
    let mut seen = 0;
    for figure in words {
        assert!(benches.contains(&figure), "benches/README.md has no {figure}");
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
    let cited: BTreeSet<&str> = text.split('[').filter_map(|rest| rest.split_once(']')).map(|(mark, _)| mark).collect();
    let is_mark = |mark: &&str| mark.len() == 2 && mark.as_bytes()[1].is_ascii_digit();
    let cited: Vec<&str> = cited.into_iter().filter(is_mark).collect();
    assert!(cited.len() >= 8, "{cited:?}");
    for mark in cited {
        assert!(sources.contains(&format!("[{mark}]")), "no source of [{mark}]");
    }
}

// ---- docs/pictures ----

/// A picture is shown by a page, says in words what it shows, and has colours of its own for light and dark.
#[test]
fn every_picture_is_shown_and_can_be_read() {
    let mut shown = BTreeSet::new();
    for page in pages::all() {
        for link in pages::links(&pages::read(&page)).iter().filter(|link| link.ends_with(".svg")) {
            shown.insert(pages::target(&page, link).0.file_name().expect("a file").to_owned());
        }
    }
    let mut drawn = BTreeSet::new();
    for entry in std::fs::read_dir(pages::root().join("docs/pictures")).expect("docs/pictures") {
        let name = entry.expect("a picture").file_name();
        let text = pages::read(&format!("docs/pictures/{}", name.to_str().expect("a name")));
        for needed in ["<title id=", "<desc id=", "viewBox=", "prefers-color-scheme: dark", "class=\"page\"", "</svg>"]
        {
            assert!(text.contains(needed), "{name:?} has no {needed}");
        }
        drawn.insert(name);
    }
    assert!(drawn.len() >= 6 && drawn.is_subset(&shown), "drawn {drawn:?}, shown {shown:?}");
}
