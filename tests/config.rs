//! Configuration files, good and bad, and what is said about each mistake. Every `¦` in a text stands before the place
//! of one mistake and is taken out before the text is read; the messages follow in the order of the marks.

use http::{HeaderName, HeaderValue, Method};
use ptth::edge::config::{
    Clamp, ClientHeader, Cores, EdgeConfig, FieldWanted, Limits, Listen, Match, MemoryMax, PoolPriority, Proof,
    QueueBounds, Rule, SecretHash,
};
use ptth::edge::patterns::{HostPattern, Network, PathPattern};
use ptth::limits;
use ptth::settings::{Mistakes, Weight};
use ptth::wire::Scheme;
use ptth::wire::origin::{Origin, OriginPattern};
use ptth::wire::setup::Scope;
use ptth::worker::config::{Adaptive, EdgeAddress, Services, Target, WorkerConfig, WorkerFlags};
use std::path::{Path, PathBuf};

/// 2026-01-01T00:00:00Z.
const NOW_UNIX: u64 = 1_767_225_600;

const LISTEN: &str = "[[listen]]\naddress = \"127.0.0.1:8080\"\naccept = [\"clients\", \"workers\"]\n";
const POOL: &str = "[[pool]]\nname = \"app\"\norigins = [\"app.example\"]\n";
const HASH: &str = "secret_hash = \"sha256:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\"\n";
const HASH_2: &str = "secret_hash = \"sha256:10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n";

fn credential() -> String {
    format!("[[credential]]\nid = \"web-1\"\n{HASH}origins = [\"app.example\"]\n")
}

/// A pool with one more line.
fn pool(line: &str) -> String {
    format!("{LISTEN}{POOL}{line}\n{}", credential())
}

fn edge_section(line: &str) -> String {
    format!("[edge]\n{line}\n{LISTEN}{POOL}{}", credential())
}

/// The text without its marks, and the place of each.
fn unmark(marked: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut places, mut line, mut column) = (String::new(), Vec::new(), 1, 1);
    for c in marked.chars() {
        match c {
            '¦' => places.push((line, column)),
            '\n' => {
                text.push(c);
                (line, column) = (line + 1, 1);
            }
            c => {
                text.push(c);
                column += 1;
            }
        }
    }
    (text, places)
}

#[track_caller]
fn check_lines(file: &str, marked: &str, mistakes: &Mistakes, want: &[&str]) {
    let (_, places) = unmark(marked);
    assert_eq!(places.len(), want.len(), "the case has a message for each mark: {marked}");
    let lines: Vec<String> = mistakes.lines().collect();
    assert_eq!(lines.len(), want.len(), "{marked}\n{}", lines.join("\n"));
    for ((line, place), want) in lines.iter().zip(&places).zip(want) {
        let start = format!("{file}:{}:{}: ", place.0, place.1);
        assert!(line.starts_with(&start), "not at {start}\n{marked}\n{line}");
        assert!(line[start.len()..].contains(want), "no {want:?} in {line}\n{marked}");
        assert!(line.contains("; ") && !line.contains('\n'), "{line}");
    }
}

#[track_caller]
fn edge_bad(marked: &str, want: &[&str]) {
    let mistakes = EdgeConfig::parse("edge.toml", &unmark(marked).0, NOW_UNIX).expect_err(marked);
    check_lines("edge.toml", marked, &mistakes, want);
}

#[track_caller]
fn edge_good(marked: &str, warnings: &[&str]) -> EdgeConfig {
    let (config, mistakes) = match EdgeConfig::parse("edge.toml", &unmark(marked).0, NOW_UNIX) {
        Ok(good) => good,
        Err(mistakes) => panic!("{marked}\n{mistakes}"),
    };
    assert!(mistakes.list().iter().all(|mistake| mistake.weight == Weight::Warning));
    check_lines("edge.toml", marked, &mistakes, warnings);
    config
}

#[test]
fn the_edge_section() {
    let c = |line| edge_good(&edge_section(line), &[]);
    assert_eq!(c("").cores, Cores::All);
    assert_eq!(c("").drain_ms_max, limits::DRAIN_MS_MAX);
    assert_eq!(c("cores = \"all\"").cores, Cores::All);
    assert_eq!(c("cores = 4").cores, Cores::Count(4));
    assert_eq!(c("cores = 0x10").cores, Cores::Count(16));
    assert_eq!(c("cores = [2, 0]").cores, Cores::Cpus(vec![2, 0]));
    assert_eq!(c("drain_max = \"0s\"").drain_ms_max, 0);
    assert_eq!(c("drain_max = \"100ms\"").drain_ms_max, 100);
    assert_eq!(c("drain_max = \"1h\"").drain_ms_max, 3_600_000);
    for (line, want) in [
        ("cores = ¦0", "`cores` is 0; write a number from 1 to 64"),
        ("cores = ¦65", "`cores` is 65; write a number from 1 to 64"),
        ("cores = ¦-1", "`cores` is -1; write a number from 1 to 64"),
        ("cores = ¦99999999999999999999", "write a number from 1 to 64"),
        ("cores = ¦\"some\"", "`cores` is none of the three forms; write \"all\", a number"),
        ("cores = ¦true", "`cores` is none of the three forms"),
        ("cores = ¦[]", "`cores` is empty"),
        ("cores = [1, 2, ¦1]", "`cores` names CPU 1 twice; name each CPU once"),
        ("cores = [¦\"1\"]", "`cores` is a string; write a CPU number such as 0"),
        ("cores = [¦9000]", "`cores` is 9000; write a number from 0 to 8191"),
        ("drain_max = ¦30", "`drain_max` is an integer; write \"30s\""),
        ("drain_max = ¦\"30\"", "`drain_max` has no unit (ms, s, m, h); write \"30s\""),
        ("drain_max = ¦\"30 s\"", "`drain_max` has an unknown unit"),
        ("drain_max = ¦\"1.5s\"", "`drain_max` is not a whole number with a unit"),
        ("drain_max = ¦\"\"", "`drain_max` is not a whole number with a unit"),
        ("drain_max = ¦\"200h\"", "`drain_max` is \"200h\"; write a duration from \"0s\" to \"168h\""),
        ("¦drain = \"1s\"", "unknown key `drain` in [edge]; known are cores, drain_max"),
        ("¦drain_mx = \"1s\"", "unknown key `drain_mx` in [edge]; did you mean `drain_max`?"),
        ("¦address = \"127.0.0.1:80\"", "unknown key `address` in [edge]; it belongs in [[listen]] or [admin]"),
        ("¦\"a\\nb\" = 1", "unknown key `a\\nb` in [edge]"),
    ] {
        edge_bad(&edge_section(line), &[want]);
    }
    let rest = format!("{LISTEN}{POOL}{}", credential());
    edge_bad(&format!("edge = ¦3\n{rest}"), &["`edge` is an integer; write [edge], with single brackets"]);
    edge_bad(&format!("¦[[edge]]\ncores = 1\n{rest}"), &["`edge` is a list; write [edge], with single brackets"]);
    edge_bad(&format!("{rest}[¦edg]\ncores = 1\n"), &["unknown key `edg` in the top level; did you mean `edge`?"]);
    edge_bad(
        &format!("¦worker = 1\n{rest}"),
        &["unknown key `worker` in the top level; known are edge, limits, listen"],
    );
}

#[test]
fn the_limits_section() {
    let text = |line: &str| format!("[limits]\n{line}\n{LISTEN}{POOL}{}", credential());
    let c = |line: &str| edge_good(&text(line), &[]).limits;
    assert_eq!(edge_good(&edge_section(""), &[]).limits, Limits::default());
    assert_eq!(c(""), Limits::default());
    let all =
        c("head_max_wait = \"1s\"\nidle_max_wait = \"2s\"\nhandshake_max_wait = \"3s\"\nbody_stall_max = \"4s\"\n\
                 body_rate_min = \"1KiB\"\nconnections_max = 5\nconnections_per_source_max = 6\n\
                 setups_per_source_max = 8\nsetup_failures_per_source_max = 9\n\
                 sources_exempt = [\"10.0.0.0/8\"]\nstreams_max = 7\nmemory_max = \"1GiB\"");
    let want = Limits {
        head_ms_max: 1_000,
        idle_ms_max: 2_000,
        handshake_ms_max: 3_000,
        body_stall_ms_max: 4_000,
        body_rate_min: 1_024,
        connections_max: 5,
        connections_per_source_max: 6,
        setups_per_source_max: 8,
        setup_failures_per_source_max: 9,
        sources_exempt: vec![Network::parse("10.0.0.0/8").unwrap()],
        streams_max: 7,
        memory_max: MemoryMax::Bytes(1 << 30),
    };
    assert_eq!(all, want);
    assert_eq!(c("body_rate_min = \"0B\"").body_rate_min, 0);
    assert_eq!(c("connections_max = 0\nconnections_per_source_max = 0").connections_per_source_max, 0);
    assert_eq!(c("sources_exempt = []").sources_exempt, []);
    assert_eq!(c("memory_max = \"0\"").memory_max, MemoryMax::Unbounded);
    assert_eq!(c("memory_max = \"50%\"").memory_max, MemoryMax::Share(50));
    assert_eq!(c("memory_max = \"100%\"").memory_max, MemoryMax::Share(100));
    for (line, want) in [
        ("head_max_wait = ¦\"0s\"", "`head_max_wait` is \"0s\"; write a duration from \"50ms\" to \"168h\""),
        ("idle_max_wait = ¦60", "`idle_max_wait` is an integer; write \"60s\""),
        ("handshake_max_wait = ¦\"10\"", "`handshake_max_wait` has no unit (ms, s, m, h); write \"10s\""),
        ("body_stall_max = ¦\"10ms\"", "`body_stall_max` is \"10ms\"; write a duration from \"50ms\""),
        ("body_rate_min = ¦240", "`body_rate_min` is an integer; write \"240B\", for each second"),
        ("body_rate_min = ¦\"1GiB\"", "`body_rate_min` is \"1GiB\"; write a size from \"0B\" to \"1MiB\""),
        ("connections_max = ¦-1", "`connections_max` is -1; write a number from 0 to 4194304"),
        ("setups_per_source_max = ¦-1", "`setups_per_source_max` is -1; write a number from 0 to 1000000"),
        (
            "setup_failures_per_source_max = ¦1000001",
            "`setup_failures_per_source_max` is 1000001; write a number from 0",
        ),
        ("connections_per_source_max = ¦\"many\"", "`connections_per_source_max` is a string; write 1000"),
        ("sources_exempt = ¦1", "`sources_exempt` is an integer; write [\"127.0.0.0/8\", \"::1\"], or []"),
        ("sources_exempt = [¦1]", "`sources_exempt` is an integer"),
        ("sources_exempt = [¦\"here\"]", "`sources_exempt` has \"here\", which is neither an IP address nor a network"),
        (
            "sources_exempt = [¦\"10.0.0.1/8\"]",
            "has \"10.0.0.1/8\", which has bits behind its prefix; write \"10.0.0.0/8\"",
        ),
        ("streams_max = ¦0", "`streams_max` is 0; write a number from 1 to 1024"),
        ("streams_max = ¦1025", "`streams_max` is 1025; write a number from 1 to 1024"),
        ("memory_max = ¦0", "`memory_max` is an integer; write \"75%\", \"2GiB\", or \"0\" for no bound"),
        ("memory_max = ¦\"0%\"", "`memory_max` is not a whole number of percent from 1 to 100"),
        ("memory_max = ¦\"101%\"", "`memory_max` is not a whole number of percent from 1 to 100"),
        ("memory_max = ¦\"+5%\"", "`memory_max` is not a whole number of percent from 1 to 100"),
        ("memory_max = ¦\"1MiB\"", "`memory_max` is \"1MiB\"; write a size from \"64MiB\" to"),
        ("memory_max = ¦\"2GB\"", "`memory_max` has an unknown unit"),
        ("¦memory = \"1GiB\"", "unknown key `memory` in [limits]"),
        ("¦streams_mx = 1", "unknown key `streams_mx` in [limits]; did you mean `streams_max`?"),
        ("¦requests_max = 1", "unknown key `requests_max` in [limits]; it belongs in queue"),
    ] {
        edge_bad(&text(line), &[want]);
    }
    let many: Vec<String> = (0..=limits::SOURCES_EXEMPT_MAX).map(|n| format!("\"10.0.0.{n}\"")).collect();
    edge_bad(&text(&format!("sources_exempt = ¦[{}]", many.join(","))), &["has 65 networks; it takes at most 64"]);
    let rest = format!("{LISTEN}{POOL}{}", credential());
    edge_bad(&format!("limits = ¦3\n{rest}"), &["`limits` is an integer; write [limits], with single brackets"]);
}

#[test]
fn the_trusted_proxies() {
    let networks = |line: &str, warnings: &[&str]| {
        let config = edge_good(&edge_section(line), warnings);
        config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(networks("", &[]).is_empty());
    assert!(networks("trusted_proxies = []", &[]).is_empty());
    assert_eq!(networks("trusted_proxies = \"10.0.0.1\"", &[]), ["10.0.0.1/32"]);
    let both = "trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]";
    assert_eq!(networks(both, &[]), ["10.0.0.0/8", "2001:db8::/32"]);
    let config = edge_good(&edge_section(both), &[]);
    for (address, want) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("11.0.0.1", false),
        ("2001:db8:1::", true),
        ("2001:db9::", false),
    ] {
        assert_eq!(config.trusts(address.parse().unwrap()), want, "{address}");
    }
    for everybody in ["0.0.0.0/0", "::/0"] {
        let want = format!("warning: `trusted_proxies` has {everybody}, so every client may say who it is; name");
        networks(&format!("trusted_proxies = ¦[\"{everybody}\"]"), &[&want]);
    }
    for (line, want) in [
        ("trusted_proxies = ¦1", "`trusted_proxies` is an integer; write [\"10.0.0.0/8\", \"2001:db8::/32\"]"),
        (
            "trusted_proxies = [¦\"proxy.example\"]",
            "which is neither an IP address nor a network; write [\"10.0.0.0/8\"",
        ),
        ("trusted_proxies = [¦\"10.1.0.0/8\"]", "which has bits behind its prefix; write \"10.0.0.0/8\""),
        ("trusted_proxies = [\"10.0.0.0/8\", ¦\"10.0.0.0/8\"]", "has \"10.0.0.0/8\" twice; name it once"),
        ("¦trusted_proxy = []", "unknown key `trusted_proxy` in [edge]; did you mean `trusted_proxies`?"),
    ] {
        edge_bad(&edge_section(line), &[want]);
    }
    let many: Vec<String> =
        (0..=limits::TRUSTED_PROXIES_MAX).map(|n| format!("\"10.0.{}.{}\"", n / 256, n % 256)).collect();
    let line = format!("trusted_proxies = ¦[{}]", many.join(", "));
    edge_bad(&edge_section(&line), &["`trusted_proxies` has 1025 networks; it takes at most 1024"]);
}

#[test]
fn what_is_no_toml_is_said_once_with_its_place() {
    for (marked, want) in [
        ("[edge]\ncores = ¦\n", "not TOML: "),
        ("[edge\n", "not TOML: "),
        ("[edge]\ncores = 1\n¦cores = 2\n", "not TOML: duplicate key"),
        ("[edge]\ndrain_max = \"30s\n", "not TOML: "),
        ("[edge]\ncores = [1, 2\n", "not TOML: "),
        ("just text\n", "not TOML: "),
    ] {
        let mistakes = EdgeConfig::parse("edge.toml", &unmark(marked).0, NOW_UNIX).expect_err(marked);
        assert_eq!(mistakes.list().len(), 1, "{mistakes}");
        assert!(mistakes.to_string().contains(want), "{mistakes}");
        if marked.contains('¦') {
            check_lines("edge.toml", marked, &mistakes, &[want]);
        }
    }
}

#[test]
fn the_listen_tables() {
    let c = |listens: &str, warnings: &[&str]| edge_good(&format!("{listens}{POOL}{}", credential()), warnings).listens;
    let listen = |address: &str, clients, workers| Listen::new(address.parse().unwrap(), clients, workers);
    assert_eq!(c(LISTEN, &[]), [listen("127.0.0.1:8080", true, true)]);
    let two = "[[listen]]\naddress = \"[::]:80\"\naccept = [\"clients\"]\n\
        [[listen]]\naddress = \"127.0.0.1:81\"\naccept = [\"workers\"]\n";
    assert_eq!(c(two, &[]), [listen("[::]:80", true, false), listen("127.0.0.1:81", false, true)]);
    let list = "listen = [{ address = \"127.0.0.1:8080\", accept = [\"workers\", \"clients\"] }]\n";
    assert_eq!(c(list, &[]), [listen("127.0.0.1:8080", true, true)]);

    let proxied = |address| {
        let workers = "[[listen]]\naddress = \"127.0.0.1:9\"\naccept = [\"workers\"]\n";
        format!("[[listen]]\naddress = {address}\naccept = [\"clients\"]\nproxy_protocol = true\n{workers}")
    };
    assert!(!c(&proxied("\"0.0.0.0:8080\"").replace("true", "false"), &[])[0].proxy_protocol);
    assert!(c(&proxied("\"127.0.0.1:8080\""), &[])[0].proxy_protocol);
    assert!(
        c(&format!("[edge]\ntrusted_proxies = \"10.0.0.1\"\n{}", proxied("\"0.0.0.0:8080\"")), &[])[0].proxy_protocol
    );
    c(
        &proxied("¦\"0.0.0.0:8080\""),
        &[
            "warning: whoever reaches 0.0.0.0:8080 can claim any address, for `trusted_proxies` is empty; name the proxies",
        ],
    );

    let both = "accept = [\"clients\", \"workers\"]";
    let address = "address = \"127.0.0.1:8080\"";
    for (listen, want) in [
        (format!("address = ¦\":8080\"\n{both}"), "`address` is not an IP address with a port; write \"0.0.0.0:8080\""),
        (format!("address = ¦\"localhost:8080\"\n{both}"), "`address` is not an IP address with a port"),
        (format!("address = ¦\"127.0.0.1\"\n{both}"), "`address` is not an IP address with a port"),
        (format!("address = ¦\"::1:8080x\"\n{both}"), "`address` is not an IP address with a port"),
        (format!("address = ¦\"0.0.0.0:70000\"\n{both}"), "`address` is not an IP address with a port"),
        (format!("address = ¦\"0.0.0.0:0\"\n{both}"), "`address` has port 0; write a port, as in \"0.0.0.0:8080\""),
        (format!("address = ¦8080\n{both}"), "`address` is an integer; write \"0.0.0.0:8080\""),
        (format!("{address}\naccept = ¦\"clients\""), "`accept` is a string; write [\"clients\", \"workers\"]"),
        (format!("{address}\naccept = ¦[]"), "`accept` is empty"),
        (
            format!("{address}\naccept = [\"clients\", ¦\"worker\"]"),
            "`accept` names \"worker\"; known are \"clients\", \"workers\" and",
        ),
        (format!("{address}\naccept = [\"clients\", ¦\"clients\"]"), "`accept` names clients twice"),
        (
            format!("{address}\n{both}\ncredential = ¦\"web-1\""),
            "`credential` is for addresses that accept haproxy-workers",
        ),
        (format!("{address}\n{both}\ntls = ¦[]"), "`tls` is empty; write { certificate = \"edge.pem\","),
        (format!("{address}\n{both}\ntls = ¦\"edge.pem\""), "`tls` is a string; write { certificate = \"edge.pem\","),
        (format!("{address}\n{both}\ntls = ¦{{ certificate = \"a\" }}"), "`key` is missing; add key = \"edge.key\""),
        (format!("{address}\n{both}\ntls = [{{ certificate = ¦1, key = \"k\" }}]"), "`certificate` is an integer"),
        (
            format!("{address}\n{both}\ntls = {{ certificate = \"a\", key = \"k\", ¦ca = \"c\" }}"),
            "unknown key `ca` in tls; known are certificate, key, worker_ca",
        ),
        (
            format!("{address}\n{both}\nh2c = ¦true\ntls = {{ certificate = \"a\", key = \"k\" }}"),
            "`h2c` is for addresses without TLS; with TLS clients negotiate HTTP/2; write h2c = false",
        ),
        (format!("{address}\n{both}\nh2c = ¦1"), "`h2c` is an integer; write true or false"),
        (format!("{address}\n{both}\nproxy_protocol = ¦1"), "`proxy_protocol` is an integer; write true or false"),
        (format!("{address}\n{both}\n¦acept = []"), "unknown key `acept` in [[listen]]; did you mean `accept`?"),
    ] {
        edge_bad(&format!("[[listen]]\n{listen}\n{POOL}{}", credential()), &[want]);
    }

    let rest = format!("{POOL}{}", credential());
    edge_bad(&format!("¦{rest}"), &["no [[listen]]; add [[listen]] with address ="]);
    edge_bad(
        &format!("[listen]\n{rest}").replacen("[listen]", "¦[listen]", 1),
        &["`listen` is a table; write [[listen]], with double brackets"],
    );
    edge_bad(
        &format!("¦¦[[listen]]\n{rest}"),
        &["`address` is missing; add address = \"0.0.0.0:8080\"", "`accept` is missing; add accept ="],
    );
    let only = |who: &str| format!("¦[[listen]]\naddress = \"127.0.0.1:8080\"\naccept = [\"{who}\"]\n{rest}");
    edge_bad(&only("clients"), &["no [[listen]] accepts workers; add \"workers\" to the `accept` of one"]);
    edge_bad(&only("workers"), &["no [[listen]] accepts clients; add \"clients\""]);
    edge_bad(
        &format!("{LISTEN}{}{rest}", LISTEN.replace("address = ", "address = ¦")),
        &["127.0.0.1:8080 is listened on twice (line 2); put both into one `accept`"],
    );
}

#[test]
fn an_address_for_haproxys_devices() {
    let whole = credential().replace("app.example", "http://app.example");
    let clients = LISTEN.replace(", \"workers\"", "");
    let text = |listen: &str| {
        let listen = format!("[[listen]]\naddress = \"0.0.0.0:81\"\naccept = [\"haproxy-workers\"]\n{listen}\n");
        format!("{clients}{listen}{POOL}{whole}")
    };
    let tls = "tls = { certificate = \"a\", key = \"k\", worker_ca = \"ca\" }";
    let listen = edge_good(&text("credential = \"web-1\""), &[]).listens.remove(1);
    assert!(listen.haproxy_workers && !listen.clients && !listen.workers);
    assert_eq!(listen.credential.unwrap().value, "web-1");
    assert!(edge_good(&text(tls), &[]).listens[1].credential.is_none());
    let plain_tls = tls.replace(", worker_ca = \"ca\"", "");
    edge_good(&text(&format!("credential = \"web-1\"\n{plain_tls}\nproxy_protocol = false")), &[]);
    for (lines, want) in [
        (format!("credential = ¦\"web-1\"\n{tls}"), "both `credential` and a `worker_ca`; keep one"),
        ("credential = ¦\"web-2\"".into(), "there is no credential `web-2`; make one"),
        ("credential = ¦\"a b\"".into(), "`credential` has a character other than letters"),
        ("credential = ¦1".into(), "`credential` is an integer"),
        (
            "credential = \"web-1\"\nh2c = ¦true".into(),
            "`h2c` is for clients, and haproxy-workers speak HTTP/2 without it",
        ),
    ] {
        edge_bad(&text(&lines), &[want]);
    }
    for lines in ["", &plain_tls] {
        let marked =
            text(lines).replacen("[[listen]]\naddress = \"0.0.0.0:81", "¦[[listen]]\naddress = \"0.0.0.0:81", 1);
        edge_bad(&marked, &["haproxy-workers say nothing about who they are; add credential = \"web-1\""]);
    }
    let patterns = text("credential = ¦\"web-1\"").replace("http://app.example", "app.example");
    edge_bad(&patterns, &["credential `web-1` has no whole origin, and these workers name none themselves; write one"]);
    edge_bad(
        &text("credential = \"web-1\"")
            .replace("accept = [\"haproxy-workers\"]", "accept = ¦[\"workers\", \"haproxy-workers\"]"),
        &[
            "`accept` names haproxy-workers and others, who cannot be told apart; give haproxy-workers an address of their own",
        ],
    );
    // In a folder of credentials it may be there later.
    let folder = format!("[edge]\ncredentials_dir = \"c\"\n{}", text("credential = \"web-2\""));
    edge_good(&folder, &[]);
}

#[test]
fn the_admin_section() {
    let rest = format!("{LISTEN}{POOL}{}", credential());
    assert_eq!(edge_good(&rest, &[]).admin, None);
    let admin = edge_good(&format!("[admin]\naddress = \"127.0.0.1:9090\"\n{rest}"), &[]).admin;
    assert_eq!(admin, Some("127.0.0.1:9090".parse().unwrap()));
    edge_good(&format!("[admin]\naddress = \"[::1]:9090\"\n{rest}"), &[]);
    edge_bad(
        &format!("[admin]\naddress = ¦\"0.0.0.0:9090\"\n{rest}"),
        &["[admin] at 0.0.0.0:9090 can be reached from outside, and asks nobody who he is; add token_file"],
    );
    let hash = format!("token_hash = \"sha256:{}\"", "0a".repeat(32));
    let tls = "certificate = \"edge.pem\", key = \"edge.key\"";
    edge_bad(
        &format!("[admin]\naddress = ¦\"0.0.0.0:9090\"\ntls = {{ {tls} }}\n{rest}"),
        &["asks nobody who he is; add token_file"],
    );
    edge_good(
        &format!("[admin]\naddress = ¦\"0.0.0.0:9090\"\n{hash}\n{rest}"),
        &["warning: [admin] at 0.0.0.0:9090 has a token and no tls: whoever listens on the way learns it; add tls ="],
    );
    edge_good(&format!("[admin]\naddress = \"0.0.0.0:9090\"\n{hash}\ntls = {{ {tls} }}\n{rest}"), &[]);
    edge_good(&format!("[admin]\naddress = \"0.0.0.0:9090\"\ntls = {{ {tls}, client_ca = \"ca.pem\" }}\n{rest}"), &[]);
    edge_good(&format!("[admin]\naddress = \"127.0.0.1:9090\"\n{hash}\n{rest}"), &[]);
    edge_bad(
        &format!("[admin]\naddress = \"127.0.0.1:9090\"\ntoken_file = \"t\"\ntoken_hash = ¦{}\n{rest}", &hash[13..]),
        &["both `token_file` and `token_hash`; keep one of them"],
    );
    edge_bad(
        &format!("[admin]\naddress = \"127.0.0.1:9090\"\ntoken_hash = ¦\"hunter2\"\n{rest}"),
        &["`token_hash` does not begin with \"sha256:\"; write \"sha256:\" and the 64 hex digits"],
    );
    edge_bad(
        &format!("[admin]\naddress = \"127.0.0.1:9090\"\nnames = [\"a.example\", ¦\"b.example:9090\", ¦\"*\"]\n{rest}"),
        &["`names` has \"b.example:9090\"; write a host without a port", "`names` has \"*\""],
    );
    edge_bad(&format!("[admin]\naddress = ¦\"9090\"\n{rest}"), &["`address` is not an IP address with a port"]);
    edge_bad(
        &format!("¦[admin]\n¦adress = \"127.0.0.1:9090\"\n{rest}"),
        &["`address` is missing; add address = \"127.0.0.1:9090\"", "unknown key `adress` in [admin]; did you mean"],
    );
    let own = "[[listen]]\naddress = \"127.0.0.1:9090\"\naccept = [\"clients\", \"workers\"]\n";
    edge_bad(
        &format!("[admin]\naddress = ¦\"127.0.0.1:9090\"\n{own}{POOL}{}", credential()),
        &["[admin] and a [[listen]] share 127.0.0.1:9090 (line 4); give [admin] a port of its own"],
    );
}

#[test]
fn the_pool_tables() {
    let c = |line: &str| edge_good(&pool(line), &[]).pools.remove(0);
    let default = c("");
    assert_eq!(default.name, "app");
    assert_eq!(default.origins, [OriginPattern::parse("app.example").unwrap()]);
    assert_eq!(default.paths, ["/"]);
    assert_eq!(default.queue, QueueBounds::default());
    assert_eq!(default.queue.requests_max, 10_000);
    assert_eq!(default.queue.bytes_max, 64 << 20);
    assert_eq!(default.queue.wait_ms_max, 30_000);
    assert!(default.hold_without_workers);
    assert_eq!((default.per_link_max, default.retries_max, default.response_head_ms_max), (100, 2, 60_000));
    let queue = c("queue = { requests_max = 5, bytes_max = \"16KiB\", wait_max = \"100ms\" }").queue;
    assert_eq!(queue, QueueBounds { requests_max: 5, bytes_max: 16 << 10, wait_ms_max: 100 });
    assert_eq!(c("queue.requests_max = 7").queue, QueueBounds { requests_max: 7, ..QueueBounds::default() });
    assert_eq!(c("[pool.queue]\nrequests_max = 7").queue.requests_max, 7);
    assert!(!c("hold_without_workers = false").hold_without_workers);
    assert_eq!(c("per_link_max = 1").per_link_max, 1);
    assert_eq!(c("response_head_max_wait = \"0s\"").response_head_ms_max, 0);
    assert_eq!(c("retries_max = 0").retries_max, 0);
    assert_eq!((default.concurrency_max, default.server_timing), (0, false));
    assert_eq!(c("concurrency_max = 0").concurrency_max, 0);
    assert_eq!(c("concurrency_max = 12").concurrency_max, 12);
    assert!(c("server_timing = true").server_timing && !c("server_timing = false").server_timing);
    for (wait, ms) in [("1h", 3_600_000), ("24h", 86_400_000), ("168h", limits::DURATION_MS_MAX)] {
        assert_eq!(c(&format!("queue = {{ wait_max = \"{wait}\" }}")).queue.wait_ms_max, ms, "{wait}");
    }
    assert_eq!(c("paths = [\"/a\", \"/a/\", \"/b/%20\"]").paths, ["/a", "/a/", "/b/%20"]);

    for (line, want) in [
        ("queue = ¦5", "`queue` is an integer; write { requests_max = 10000"),
        ("queue = { ¦requests = 5 }", "unknown key `requests` in queue; did you mean `requests_max`?"),
        ("queue = { ¦depth = 5 }", "unknown key `depth` in queue; known are requests_max, bytes_max, wait_max"),
        ("queue = { requests_max = ¦0 }", "`requests_max` is 0; write a number from 1 to 1000000"),
        ("queue = { requests_max = ¦1.5 }", "`requests_max` is a float; write 10000"),
        ("queue = { bytes_max = ¦\"64MB\" }", "`bytes_max` has an unknown unit, known are B, KiB, MiB, GiB"),
        ("queue = { bytes_max = ¦64 }", "`bytes_max` is an integer; write \"64MiB\""),
        ("queue = { bytes_max = ¦\"64\" }", "`bytes_max` has no unit"),
        ("queue = { bytes_max = ¦\"1KiB\" }", "`bytes_max` is \"1KiB\"; write a size from \"16KiB\" to \"64GiB\""),
        ("queue = { wait_max = ¦\"0s\" }", "`wait_max` is \"0s\"; write a duration from \"50ms\" to \"168h\""),
        ("queue = { wait_max = ¦true }", "`wait_max` is true or false; write \"30s\""),
        ("hold_without_workers = ¦\"yes\"", "`hold_without_workers` is a string; write true or false"),
        ("per_link_max = ¦0", "`per_link_max` is 0; write a number from 1 to 1024"),
        ("per_link_max = ¦2000", "`per_link_max` is 2000"),
        ("response_head_max_wait = ¦60", "`response_head_max_wait` is an integer; write \"60s\""),
        ("retries_max = ¦11", "`retries_max` is 11; write a number from 0 to 10"),
        ("retries_max = ¦2026-01-01", "`retries_max` is a date; write 2"),
        ("paths = ¦\"/\"", "`paths` is a string; write [\"/\"]"),
        ("paths = ¦[]", "`paths` is empty"),
        ("paths = [¦\"api\"]", "path \"api\" does not begin with a slash; write a prefix"),
        ("paths = [\"/a\", ¦\"/b*\"]", "path \"/b*\" has a star"),
        ("paths = [¦\"/a?b\"]", "path \"/a?b\" has a query or a fragment"),
        ("paths = [¦\"/a b\"]", "path \"/a b\" has a character that no request path has"),
        ("paths = [\"/a\", ¦\"/a\"]", "path \"/a\" is there twice"),
        ("queue = { wait_max = ¦\"169h\" }", "`wait_max` is \"169h\"; write a duration from \"50ms\" to \"168h\""),
        ("concurrency_max = ¦-1", "`concurrency_max` is -1; write a number from 0 to 1000000"),
        ("concurrency_max = ¦1000001", "`concurrency_max` is 1000001; write a number from 0 to 1000000"),
        ("concurrency_max = ¦\"all\"", "`concurrency_max` is a string; write 0"),
        ("server_timing = ¦1", "`server_timing` is an integer; write true or false"),
        ("¦concurrency = 3", "unknown key `concurrency` in [[pool]]; did you mean `concurrency_max`?"),
        ("¦per_link = 3", "unknown key `per_link` in [[pool]]; did you mean `per_link_max`?"),
        ("¦weight = 3", "unknown key `weight` in [[pool]]; known are name, origins, paths"),
        ("¦retrys_max = 3", "unknown key `retrys_max` in [[pool]]; did you mean `retries_max`?"),
        ("¦wait_max = \"1s\"", "unknown key `wait_max` in [[pool]]; it belongs in queue"),
        ("¦links_max = 3", "unknown key `links_max` in [[pool]]; it belongs in [[credential]]"),
    ] {
        edge_bad(&pool(line), &[want]);
    }
    edge_bad(&format!("¦{LISTEN}{}", credential()), &["no [[pool]]; add [[pool]] with name = \"app\""]);
}

#[test]
fn the_priority_section() {
    let with = |lines: &str| pool(&format!("[pool.priority]\n{lines}"));
    let c = |lines: &str| edge_good(&with(lines), &[]).pools.remove(0).priority;
    let default = edge_good(&pool(""), &[]).pools.remove(0).priority;
    let wide = PoolPriority {
        client_header: ClientHeader::Ignore,
        clamp: Clamp { min: 0, max: 7 },
        default: 3,
        age_step_ms: None,
    };
    assert_eq!((default, c("")), (wide, wide));
    assert_eq!(c("client_header = \"ignore\"\nclamp = [0, 7]\ndefault = 3"), wide);
    assert_eq!(
        c("client_header = \"trust\"\ndefault = 7"),
        PoolPriority { client_header: ClientHeader::Trust, default: 7, ..wide }
    );
    let clamped = PoolPriority { client_header: ClientHeader::Clamp, clamp: Clamp { min: 2, max: 6 }, ..wide };
    assert_eq!(c("client_header = \"clamp\"\nclamp = [2, 6]"), clamped);
    assert_eq!(
        c("clamp = [5, 5]\ndefault = 5\nclient_header = \"clamp\""),
        PoolPriority { clamp: Clamp { min: 5, max: 5 }, default: 5, ..clamped }
    );
    assert_eq!(c("client_header = \"clamp\"\nclamp = [0, 7]").clamp, Clamp::WIDE);
    assert_eq!(c("age_step = \"1s\"").age_step_ms, Some(1_000));
    let inline = "priority = { client_header = \"clamp\", clamp = [2, 6], age_step = \"10s\" }";
    let inline = edge_good(&pool(inline), &[]).pools.remove(0).priority;
    assert_eq!(inline, PoolPriority { age_step_ms: Some(10_000), ..clamped });
    assert_eq!(edge_good(&pool("priority.default = 5"), &[]).pools.remove(0).priority.default, 5);
    // Here the clamp bounds ageing, whatever the default is.
    assert_eq!(c("clamp = [2, 6]\ndefault = 7\nage_step = \"10s\"").clamp, Clamp { min: 2, max: 6 });

    let header = "client_header = \"clamp\"";
    for (lines, want) in [
        ("client_header = ¦\"yes\"", "`client_header` is none of the three words; write \"ignore\", \"clamp\" or"),
        ("client_header = ¦\"Trust\"", "`client_header` is none of the three words"),
        ("client_header = ¦true", "`client_header` is true or false; write \"ignore\", \"clamp\" or \"trust\""),
        ("clamp = ¦3", "`clamp` is not a list of two numbers; write [2, 6], the most urgent and the least urgent"),
        ("clamp = ¦[]", "`clamp` is not a list of two numbers"),
        ("clamp = ¦[3]", "`clamp` is not a list of two numbers"),
        ("clamp = ¦[2, 4, 6]", "`clamp` is not a list of two numbers"),
        ("clamp = ¦{ min = 2, max = 6 }", "`clamp` is not a list of two numbers"),
        ("clamp = [¦\"2\", 6]", "`clamp` is a string; write 3"),
        ("clamp = [2, ¦8]", "`clamp` is 8; write a number from 0 to 7"),
        ("clamp = [¦-1, 7]", "`clamp` is -1; write a number from 0 to 7"),
        ("clamp = ¦[6, 2]", "`clamp` [6, 2] has the less urgent class first; write [2, 6]; 0 is the most urgent"),
        ("default = ¦8", "`default` is 8; write a number from 0 to 7"),
        ("default = ¦\"3\"", "`default` is a string; write 3"),
        ("default = ¦3.0", "`default` is a float; write 3"),
        ("age_step = ¦10", "`age_step` is an integer; write \"10s\""),
        ("age_step = ¦\"10\"", "`age_step` has no unit (ms, s, m, h)"),
        ("age_step = ¦\"999ms\"", "`age_step` is \"999ms\"; write a duration from \"1s\" to \"168h\""),
        ("age_step = ¦\"0s\"", "`age_step` is \"0s\"; write a duration from \"1s\" to \"168h\""),
        ("age_step = ¦\"200h\"", "`age_step` is \"200h\""),
        ("¦defualt = 3", "unknown key `defualt` in [pool.priority]; did you mean `default`?"),
        ("¦urgency = 3", "unknown key `urgency` in [pool.priority]; it belongs in [[pool.rule]]"),
        ("¦levels = 3", "unknown key `levels` in [pool.priority]; known are client_header, clamp, default, age_step"),
        (
            &format!("{header}\nclamp = [2, 6]\ndefault = ¦7"),
            "`default` is 7, outside of `clamp` [2, 6]; set `default`",
        ),
        (&format!("default = ¦1\nclamp = [2, 6]\n{header}"), "to a number from 2 to 6"),
        (&format!("{header}\nclamp = ¦[4, 6]"), "`default` is 3, outside of `clamp` [4, 6]; set `default` to a number"),
    ] {
        edge_bad(&with(lines), &[want]);
    }
    let bad =
        |lines: &str, want: &str| edge_bad(&with(lines).replacen("[pool.priority]", "¦[pool.priority]", 1), &[want]);
    bad(header, "`clamp` is missing; add clamp = [2, 6]");
    edge_bad(&pool("priority = ¦{ client_header = \"clamp\" }"), &["`clamp` is missing"]);
    edge_bad(&pool("priority = ¦3"), &["`priority` is an integer; write [pool.priority], with single brackets"]);
    edge_bad(&pool("¦[[pool.priority]]"), &["`priority` is a list; write [pool.priority], with single brackets"]);
    edge_bad(&pool("¦default = 3"), &["unknown key `default` in [[pool]]; it belongs in [pool.priority]"]);
    edge_bad(&pool("[¦priority]\ndefault = 3"), &["unknown key `priority` in the top level; it belongs in [[pool]]"]);
    // What follows from a key that cannot be read is not told.
    edge_bad(&with("client_header = ¦1\nclamp = [2, 6]\ndefault = 7"), &["`client_header` is an integer"]);
    edge_bad(&with(&format!("{header}\nclamp = [4, 6]\ndefault = ¦\"3\"")), &["`default` is a string"]);
    edge_bad(&with(&format!("{header}\nclamp = [4, ¦9]")), &["`clamp` is 9"]);

    for (lines, want) in [
        ("clamp = ¦[2, 6]", "warning: `clamp` [2, 6] bounds nothing here; set `client_header` to \"clamp\""),
        ("client_header = \"trust\"\nclamp = ¦[2, 6]", "warning: `clamp` [2, 6] bounds nothing here"),
        ("age_step = ¦\"30s\"", "warning: no request waits for as long as `age_step`, so none becomes more urgent"),
    ] {
        edge_good(&with(lines), &[want]);
    }
    edge_good(&pool("priority.age_step = \"59m\"\nqueue.wait_max = \"1h\""), &[]);
}

#[test]
fn the_rule_tables() {
    let with = |when: &str| pool(&format!("[[pool.rule]]\nmatch = {{ {when} }}\nurgency = 0"));
    let c = |lines: &str| edge_good(&pool(lines), &[]).pools.remove(0).rules;
    assert_eq!(c(""), []);
    assert_eq!(c("rule = []"), []);
    let two = c("[[pool.rule]]\nurgency = 7\nmatch = { method = \"GET\", path = \"/a*\", host = \"APP.example\", \
                 client = \"10.0.0.0/8\", header = { X-Plan = \"gold\", x-user = \"*\" } }\n\
                 [[pool.rule]]\nurgency = 0\n[pool.rule.match]\nmethod = [\"PUT\", \"PURGE\"]\nclient = [\"::1\", \"::2\"]");
    let when = Match {
        methods: vec![Method::GET],
        hosts: vec![HostPattern::parse("app.example").unwrap()],
        paths: vec![PathPattern::parse("/a*").unwrap()],
        clients: vec![Network::parse("10.0.0.0/8").unwrap()],
        headers: vec![
            (HeaderName::from_static("x-plan"), FieldWanted::Exactly(HeaderValue::from_static("gold"))),
            (HeaderName::from_static("x-user"), FieldWanted::Present),
        ],
    };
    let purge = Match {
        methods: vec![Method::PUT, Method::from_bytes(b"PURGE").unwrap()],
        clients: vec![Network::parse("::1").unwrap(), Network::parse("::2").unwrap()],
        ..Match::default()
    };
    assert_eq!(two, [Rule { when, urgency: 7 }, Rule { when: purge, urgency: 0 }]);
    let inline = c("rule = [{ urgency = 1, match = { path = \"/x\" } }, { urgency = 2, match = { path = \"/y\" } }]");
    assert_eq!(inline.iter().map(|rule| rule.urgency).collect::<Vec<_>>(), [1, 2]);

    let long = format!("/{}", "x".repeat(1024));
    for (when, want) in [
        ("method = ¦3", "`method` is an integer; write [\"POST\"]"),
        ("method = ¦[]", "`method` is empty; write [\"POST\"]"),
        ("method = [¦3]", "`method` is an integer; write [\"POST\"]"),
        (
            "method = [\"PUT\", ¦\"post\"]",
            "`method` has \"post\", which no client sends, for case counts; write \"POST\"",
        ),
        ("method = ¦\"GET POST\"", "`method` has \"GET POST\", which is not a method; write [\"POST\"]"),
        ("method = ¦\"\"", "`method` has \"\", which is not a method"),
        ("method = ¦\"CONNECT\"", "`method` has \"CONNECT\", which the edge answers itself, with 405"),
        ("method = [\"PUT\", ¦\"PUT\"]", "`method` has \"PUT\" twice; name it once"),
        ("path = ¦7", "`path` is an integer; write \"/checkout/*\""),
        ("path = ¦\"checkout\"", "`path` has \"checkout\", which begins with neither a slash nor a star; write \"/ch"),
        ("path = [\"/a\", ¦\"/a?b=*\"]", "`path` has \"/a?b=*\", which has a query or a fragment"),
        ("path = ¦\"/a b\"", "which has a character that no request path has"),
        ("path = ¦\"*\"", "`path` has \"*\", which every path matches, so it is no condition"),
        (&format!("path = ¦\"{long}\""), "x…\", which is longer than 1024 bytes; write \"/checkout/*\""),
        ("host = ¦true", "`host` is true or false; write \"app.example.com\" or \"*.example.com\""),
        ("host = ¦\"app.example:80\"", "`host` has \"app.example:80\", which is not a host, without scheme and port"),
        ("host = ¦\"http://app.example\"", "which is an origin, and hosts have no scheme and no port; write \"app.exa"),
        ("host = ¦\"*\"", "`host` has \"*\", which every host matches"),
        ("host = ¦\"b.example\"", "`host` has \"b.example\", which no origin of this pool covers; write a host of its"),
        ("host = [\"*.example\", ¦\"*.example\"]", "`host` has \"*.example\" twice"),
        ("client = ¦1", "`client` is an integer; write [\"10.0.0.0/8\", \"::1\"]"),
        ("client = ¦\"localhost\"", "`client` has \"localhost\", which is neither an IP address nor a network; write"),
        ("client = ¦\"10.0.0.1:80\"", "which is neither an IP address nor a network"),
        ("client = ¦\"10.0.0.0/33\"", "which has a prefix longer than its address"),
        ("client = ¦\"10.0.0.0/255.0.0.0\"", "which has a prefix that is not a number"),
        (
            "client = [\"::1\", ¦\"10.1.2.3/8\"]",
            "\"10.1.2.3/8\", which has bits behind its prefix; write \"10.0.0.0/8\"",
        ),
        ("client = [\"10.0.0.1\", ¦\"::ffff:10.0.0.1\"]", "`client` has \"::ffff:10.0.0.1\" twice"),
        ("header = ¦\"x-plan\"", "`header` is a string; write { x-plan = \"gold\" }, or \"*\" for any value"),
        ("header = ¦{}", "`header` is empty; write { x-plan = \"gold\" }"),
        ("header = { x-plan = ¦1 }", "`header` is an integer; write \"gold\", or \"*\" for any value"),
        ("header = { ¦\"x plan\" = \"gold\" }", "`header` has `x plan`, which is not the name of a field; write {"),
        ("header = { ¦\"\" = \"gold\" }", "`header` has ``, which is not the name of a field"),
        ("header = { ¦Upgrade = \"*\" }", "`header` has `Upgrade`, which is about the connection and ends at the edge"),
        ("header = { ¦host = \"a\" }", "`header` has `host`, which has a condition of its own; use `host` beside"),
        ("header = { x-plan = \"a\", ¦X-PLAN = \"b\" }", ", which is there twice; keep one"),
        ("header = { x-plan = ¦\" gold\" }", "`header` begins or ends with a space, which no field does"),
        ("header = { x-plan = ¦\"a\\nb\" }", "`header` has a control character, which no field has; write \"gold\""),
        (&format!("header = {{ x-plan = ¦\"{long}\" }}"), "`header` is longer than 1024 bytes"),
        ("¦methods = [\"GET\"]", "unknown key `methods` in match; did you mean `method`?"),
        ("¦paths = [\"/\"]", "unknown key `paths` in match; did you mean `path`? `paths` belongs in [[pool]]"),
        ("¦cookie = \"a=b\"", "unknown key `cookie` in match; known are method, host, path, client, header"),
    ] {
        edge_bad(&with(when), &[want]);
    }
    for (lines, want) in [
        (
            "[[pool.rule]]\nurgency = 0\nmatch = ¦{}",
            "`match` is empty and takes every request, so no later rule would co",
        ),
        ("[[pool.rule]]\nurgency = 0\n¦[pool.rule.match]", "name a condition, or set `default` in [pool.priority]"),
        ("[[pool.rule]]\nurgency = 0\nmatch = ¦\"/a\"", "`match` is a string; write { method = [\"POST\"], path ="),
        (
            "¦[[pool.rule]]\nurgency = 0",
            "`match` is missing; add match = { method = [\"POST\"], path = \"/checkout/*\" }",
        ),
        ("¦[[pool.rule]]\nmatch = { path = \"/a\" }", "`urgency` is missing; add urgency = 0"),
        ("[[pool.rule]]\nmatch = { path = \"/a\" }\nurgency = ¦8", "`urgency` is 8; write a number from 0 to 7"),
        ("[[pool.rule]]\nmatch = { path = \"/a\" }\nurgency = ¦\"high\"", "`urgency` is a string; write 3"),
        ("¦[pool.rule]\nurgency = 0", "`rule` is a table; write [[pool.rule]], with double brackets"),
        ("rule = ¦7", "`rule` is an integer; write [[pool.rule]], with double brackets"),
        ("rule = [¦7]", "`rule` is an integer; write [[pool.rule]], with double brackets"),
        (
            "[[pool.rule]]\nmatch = { path = \"/a\" }\nurgency = 0\n¦urgnecy = 0",
            "unknown key `urgnecy` in [[pool.rule]]; did you mean `urgency`?",
        ),
        (
            "[[pool.rule]]\nmatch = { path = \"/a\" }\nurgency = 0\n¦path = \"/b\"",
            "unknown key `path` in [[pool.rule]]; it belongs in match",
        ),
        (
            "[[pool.rule]]\nmatch = { path = \"/a\" }\nurgency = 0\n[[pool.rule]]\nmatch = { method = \"GET\" }\n\
             urgency = 0\n¦[[pool.rule]]\nmatch = { path = [\"/a\"] }\nurgency = 7",
            "this `match` is in an earlier rule already (line 7); remove one of them, the first one wins",
        ),
    ] {
        edge_bad(&pool(lines), &[want]);
    }

    let rules = |count: usize| -> String {
        (0..count).map(|n| format!("[[pool.rule]]\nmatch = {{ path = \"/{n}\" }}\nurgency = 0\n")).collect()
    };
    assert_eq!(c(&rules(limits::RULES_MAX)).len(), 64);
    edge_bad(&pool(&format!("¦{}", rules(65))), &["65 rules; a pool has at most 64"]);
    let paths = |count: usize| -> String { (0..count).map(|n| format!("\"/{n}\", ")).collect() };
    edge_good(&with(&format!("method = \"PUT\", path = [{}]", paths(31))), &[]);
    edge_bad(
        &with(&format!("method = \"PUT\", path = [{}]", paths(32))).replace("match = {", "match = ¦{"),
        &["`match` has 33 conditions, lists counted by their elements; a rule has at most 32"],
    );
    // A pool whose origins cannot be read is not said to lack a host.
    let rule = "[[pool.rule]]\nmatch = { host = \"b.example\" }\nurgency = 0";
    edge_bad(
        &format!("¦{LISTEN}[[pool]]\nname = \"app\"\norigins = [¦\"a:b\"]\n{rule}"),
        &["warning: no [[credential]]", "not an origin"],
    );
}

#[test]
fn the_names_and_origins_of_pools() {
    let pools = |pools: &str| format!("{LISTEN}{pools}[[credential]]\nid = \"web-1\"\n{HASH}origins = [\"*\"]\n");
    let long = "x".repeat(65);
    for (line, want) in [
        ("name = ¦\"\"\norigins = [\"a.example\"]", "`name` is empty; write a name such as \"app\""),
        ("name = ¦\"a/b\"\norigins = [\"a.example\"]", "`name` has a character other than letters"),
        ("name = ¦\"..\"\norigins = [\"a.example\"]", "`name` is a dot segment"),
        (&format!("name = ¦\"{long}\"\norigins = [\"a.example\"]"), "`name` is longer than 64 bytes"),
        ("name = ¦1\norigins = [\"a.example\"]", "`name` is an integer; write \"app\""),
        ("name = \"app\"\norigins = ¦[]", "`origins` is empty; write [\"app.example.com\"]"),
        ("name = \"app\"\norigins = ¦\"a.example\"", "`origins` is a string; write [\"app.example.com\"]"),
        ("name = \"app\"\norigins = [¦1]", "`origins` is an integer"),
        ("name = \"app\"\norigins = [\"a.example\", ¦\"a.example:80\"]", "not an origin, "),
        ("name = \"app\"\norigins = [¦\"http://a.example/\"]", "not an origin, an origin has no path"),
        ("name = \"app\"\norigins = [¦\"http://u:p@a.example\"]", "not an origin, an origin has no user"),
        ("name = \"app\"\norigins = [¦\"ftp://a.example\"]", "not an origin, an origin begins with http://"),
        ("name = \"app\"\norigins = [¦\"a.*.example\"]", "not an origin, a wildcard stands alone"),
        ("name = \"app\"\norigins = [\"http://a.example\", ¦\"http://A.example:80\"]", "has http://a.example twice"),
    ] {
        edge_bad(&pools(&format!("[[pool]]\n{line}\n")), &[want]);
    }
    edge_bad(
        &pools("¦¦[[pool]]\n"),
        &["`name` is missing; add name = \"app\"", "`origins` is missing; add origins = [\"app.example.com\"]"],
    );
    edge_bad(
        &pools(
            "[[pool]]\nname = \"app\"\norigins = [\"a.example\"]\n[[pool]]\nname = ¦\"app\"\norigins = [\"b.example\"]\n",
        ),
        &["pool `app` is there twice (line 5); rename one of them"],
    );
    edge_bad(
        &pools(
            "[[pool]]\nname = \"a\"\norigins = [\"*.example\"]\n[[pool]]\nname = \"b\"\norigins = [¦\"*.EXAMPLE\"]\n",
        ),
        &["*.example with path / is in pool `a` already (line 6); give one of them another path or origin"],
    );
    edge_bad(
        &pools(
            "[[pool]]\nname = \"a\"\norigins = [\"a.example\"]\npaths = [\"/\", \"/x\"]\n\
             [[pool]]\nname = \"b\"\norigins = [\"a.example\"]\npaths = [\"/y\", ¦\"/x\"]\n",
        ),
        &["a.example with path /x is in pool `a` already (line 6)"],
    );
    // The same host as an origin and bare, or with other paths, is no overlap.
    edge_good(
        &pools(
            "[[pool]]\nname = \"a\"\norigins = [\"a.example\"]\n\
             [[pool]]\nname = \"b\"\norigins = [\"http://a.example\", \"*\"]\n\
             [[pool]]\nname = \"c\"\norigins = [\"a.example\"]\npaths = [\"/c\"]\n",
        ),
        &[],
    );
    edge_good(
        &pools("[[pool]]\nname = \"a\"\norigins = [¦\"https://a.example\"]\n"),
        &[
            "warning: no listener for clients has `tls`, and no proxy is trusted, so no request is for https://a.example; write \"a.example\"",
        ],
    );
    let proxied = pools("[[pool]]\nname = \"a\"\norigins = [\"https://a.example\"]\n");
    edge_good(&format!("[edge]\ntrusted_proxies = [\"10.0.0.1\"]\n{proxied}"), &[]);
    let tls = pools("[[pool]]\nname = \"a\"\norigins = [¦\"http://a.example\"]\n")
        .replace("[[pool]]", "tls = { certificate = \"a\", key = \"k\" }\n[[pool]]");
    edge_good(&tls, &["warning: every listener for clients has `tls`, so no request is for http://a.example; write"]);
    let many: String = (0..257)
        .map(|n| format!("{}[[pool]]\nname = \"p{n}\"\norigins = [\"h{n}\"]\n", if n == 0 { "¦" } else { "" }))
        .collect();
    edge_bad(&pools(&many), &["257 pools; an edge has at most 256"]);
}

#[test]
fn the_credential_tables() {
    let with = |lines: &str| format!("{LISTEN}{POOL}[[credential]]\n{lines}\n");
    let own = |line: &str| with(&format!("id = \"web-1\"\n{HASH}origins = [\"app.example\"]\n{line}"));
    let c = |line: &str| edge_good(&own(line), &[]).credentials.remove(0);
    let default = c("");
    assert_eq!((default.id.as_str(), default.links_max, default.expires_unix), ("web-1", 16, None));
    let half = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let hash = SecretHash([half, half].concat().try_into().unwrap());
    assert_eq!(default.proof, Proof::Secrets(vec![hash]));
    assert_eq!(c("links_max = 3").links_max, 3);
    assert!(c("legacy = true").legacy && !default.legacy);
    for expires in
        ["\"2027-01-01T00:00:00Z\"", "2027-01-01T00:00:00Z", "\"2027-01-01T01:00:00+01:00\"", "2027-01-01 00:00:00Z"]
    {
        assert_eq!(c(&format!("expires = {expires}")).expires_unix, Some(1_798_761_600), "{expires}");
    }
    for past in ["2026-01-01T00:00:00Z", "1960-01-01T00:00:00Z"] {
        let marked = own(&format!("expires = ¦\"{past}\""));
        edge_good(&marked, &["warning: credential `web-1` has expired; its workers are refused"]);
    }

    for (lines, want) in [
        ("links_max = ¦0", "`links_max` is 0; write a number from 1 to 10000"),
        ("legacy = ¦1", "`legacy` is an integer; write true or false"),
        ("expires = ¦\"tomorrow\"", "`expires` is not a date with time and offset; write \"2027-01-01T00:00:00Z\""),
        ("expires = ¦\"2027-01-01\"", "`expires` is not a date with time and offset"),
        ("expires = ¦2027-01-01", "`expires` is not a date with time and offset"),
        ("expires = ¦2027-01-01T00:00:00", "`expires` is not a date with time and offset"),
        ("expires = ¦\"2027-02-30T00:00:00Z\"", "`expires` is not a date with time and offset"),
        ("expires = ¦1798761600", "`expires` is an integer; write \"2027-01-01T00:00:00Z\""),
        ("¦name = \"web-1\"", "unknown key `name` in [[credential]]; it belongs in [[pool]]"),
        ("¦secret = \"s3cret\"", "unknown key `secret` in [[credential]]; known are id, secret_hash"),
        ("certificate_name = ¦\"web-1.example\"", "both `secret_hash` and `certificate_name`; keep one"),
    ] {
        edge_bad(&own(lines), &[want]);
    }
    let origins = "origins = [\"app.example\"]";
    for (lines, want) in [
        (format!("id = ¦\"a:b\"\n{HASH}{origins}"), "`id` has a character other than letters"),
        (format!("id = ¦\"\"\n{HASH}{origins}"), "`id` is empty; write a name such as \"web-1\""),
        (format!("id = \"a\"\nsecret_hash = ¦\"s3cret\"\n{origins}"), "`secret_hash` does not begin with \"sha256:\""),
        (format!("id = \"a\"\nsecret_hash = ¦\"sha256:s3cret\"\n{origins}"), "`secret_hash` is not 64 hex digits"),
        (
            format!("id = \"a\"\nsecret_hash = ¦\"sha256:{}\"\n{origins}", "0".repeat(63)),
            "`secret_hash` is not 64 hex digits",
        ),
        (
            format!("id = \"a\"\nsecret_hash = ¦\"sha256:{}g\"\n{origins}", "0".repeat(63)),
            "`secret_hash` is not 64 hex digits",
        ),
        (format!("id = \"a\"\nsecret_hash = ¦[]\n{origins}"), "`secret_hash` is empty; write \"sha256:\" and 64"),
        (format!("id = \"a\"\nsecret_hash = [¦7]\n{origins}"), "`secret_hash` is an integer; write \"sha256:\" and 64"),
        (format!("id = \"a\"\nsecret_hash = [¦\"\"]\n{origins}"), "`secret_hash` does not begin with \"sha256:\""),
        (
            format!("id = \"a\"\nsecret_hash = [\"sha256:{0}\", ¦\"sha256:{0}\"]\n{origins}", "0".repeat(64)),
            "this secret_hash is there already (line 9); make a secret for each",
        ),
        (format!("id = \"a\"\n{HASH}origins = ¦[]"), "`origins` is empty"),
        (format!("id = \"a\"\n{HASH}origins = [¦\"b.example\"]"), "no pool covers b.example; add it to the `origins`"),
        (format!("id = \"a\"\n{HASH}origins = [\"app.example\", ¦\"*.b.example\"]"), "no pool covers *.b.example"),
    ] {
        edge_bad(&with(&lines), &[want]);
    }
    edge_bad(
        &format!("{LISTEN}{POOL}¦¦¦[[credential]]\n"),
        &["`id` is missing", "`secret_hash` is missing; add secret_hash =", "`origins` is missing"],
    );
    edge_bad(
        &format!("{}[[credential]]\nid = ¦\"web-1\"\n{HASH_2}{origins}\n", own("")),
        &["credential `web-1` is there twice (line 8); rename one of them"],
    );
    edge_bad(
        &format!("{}[[credential]]\nid = \"web-2\"\n{}{origins}\n", own(""), HASH.replace("= ", "= ¦")),
        &["this secret_hash is there already (line 9); make a secret for each"],
    );
    let ten: Vec<String> = (0..10).map(|n| format!("\"sha256:{}{n}\"", "0".repeat(63))).collect();
    let (eight, nine) = (ten[..8].join(", "), ten[..9].join(", "));
    let list = edge_good(&with(&format!("id = \"a\"\nsecret_hash = [{eight}]\n{origins}")), &[]).credentials.remove(0);
    assert!(matches!(list.proof, Proof::Secrets(hashes) if hashes.len() == 8));
    edge_bad(
        &with(&format!("id = \"a\"\nsecret_hash = ¦[{nine}]\n{origins}")),
        &["`secret_hash` has 9 secrets; write at most 8"],
    );
    // Any origin that both cover is enough.
    for origins in ["[\"http://app.example\"]", "[\"*.example\"]", "[\"*\"]"] {
        edge_good(&with(&format!("id = \"a\"\n{HASH}origins = {origins}")), &[]);
    }
    edge_good(
        &format!("¦{LISTEN}{POOL}"),
        &["warning: no [[credential]], so no worker can connect; make one with `ptth credential new NAME`"],
    );
    edge_good(
        &format!(
            "{LISTEN}[[pool]]\nname = \"both\"\norigins = [\"a.example\", \"b.example\"]\n\
             [[credential]]\nid = \"web-1\"\n{HASH}origins = [¦\"a.example\"]\n"
        ),
        &["warning: a worker with this credential gets every request of pool `both`; cover all of the pool's origins"],
    );
}

/// A listener that knows certificates of workers, and a credential with these lines.
fn with_certificates(lines: &str) -> String {
    let tls = "tls = { certificate = \"a\", key = \"k\", worker_ca = \"ca\" }\n";
    format!("{LISTEN}{tls}{POOL}[[credential]]\n{lines}\norigins = [\"app.example\"]\n")
}

#[test]
fn the_name_in_a_certificate() {
    let named = |name: &str| format!("id = \"a\"\ncertificate_name = {name}");
    for (name, want) in [("\"web-1.workers.internal\"", "web-1.workers.internal"), ("\"Web-1\"", "web-1")] {
        let credential = edge_good(&with_certificates(&named(name)), &[]).credentials.remove(0);
        assert_eq!(credential.proof, Proof::Certificate { name: want.into(), authority: "ca".into() }, "{name}");
    }
    for name in ["\"\"", "\"*\"", "\"*.workers.internal\"", "\"https://web-1\"", "\"web-1:443\"", "\"a b\""] {
        let want = "`certificate_name` is not a host name; write a DNS name of the certificate";
        edge_bad(&with_certificates(&named(&format!("¦{name}"))), &[want]);
    }
    edge_bad(&with_certificates(&named("¦[\"web-1\"]")), &["`certificate_name` is a list"]);
    let twice = format!(
        "{}[[credential]]\nid = \"b\"\ncertificate_name = ¦\"WEB-1\"\norigins = [\"app.example\"]\n",
        with_certificates(&named("\"web-1\""))
    );
    edge_bad(&twice, &["certificate name `web-1` is there twice (line 10); rename one of them"]);
    for listen in [LISTEN.to_owned(), format!("{LISTEN}tls = {{ certificate = \"a\", key = \"k\" }}\n")] {
        let text = format!("{listen}{POOL}[[credential]]\n{}\norigins = [\"app.example\"]\n", named("¦\"web-1\""));
        edge_bad(&text, &["no [[listen]] for workers has a `worker_ca`, so nobody can show such a certificate; add"]);
    }
}

#[test]
fn secrets_that_cross_a_network_in_the_clear_are_warned_of() {
    let edge = |address: &str, accept: &str, more: &str| {
        let listen = format!("[[listen]]\naddress = ¦\"{address}\"\naccept = [{accept}]\n{more}");
        let rest = "[[listen]]\naddress = \"127.0.0.1:7\"\naccept = [\"clients\", \"workers\"]\n";
        format!("{listen}{rest}{POOL}{}", credential())
    };
    for address in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "[2001:db8::1]:80"] {
        let want = format!(
            "warning: workers come to {address} without TLS, and their secrets can be read on the way; add `tls`"
        );
        edge_good(&edge(address, "\"workers\"", ""), &[&want]);
        edge_good(&edge(address, "\"clients\", \"workers\"", ""), &[&want]);
        edge_good(&edge(address, "\"clients\"", "").replace('¦', ""), &[]);
        let tls = "tls = { certificate = \"a\", key = \"k\" }\n";
        edge_good(&edge(address, "\"workers\"", tls).replace('¦', ""), &[]);
    }
    for address in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        edge_good(&edge(address, "\"workers\"", "").replace('¦', ""), &[]);
    }
}

#[test]
fn where_there_are_several_authorities_a_name_belongs_to_one_of_them() {
    const OTHER: &str = "[[listen]]\naddress = \"0.0.0.0:82\"\naccept = [\"workers\"]\n\
        tls = { certificate = \"a\", key = \"k\", worker_ca = \"other\" }\n";
    let named = |more: &str| format!("id = \"a\"\ncertificate_name = \"web-1\"\n{more}");
    let one = |more: &str| with_certificates(&named(more));
    let two = |more: &str| format!("{OTHER}{}", one(more));
    // A listener for clients alone lets nobody in by a certificate, and one authority may stand in several places.
    let clients = OTHER.replace("workers\"", "clients\"");
    let same = OTHER.replace("\"other\"", "\"ca\"");
    for text in
        [one(""), one("certificate_ca = \"ca\""), clients + &one(""), same + &one(""), two("certificate_ca = \"ca\"")]
    {
        let credential = edge_good(&text, &[]).credentials.remove(0);
        assert_eq!(credential.proof, Proof::Certificate { name: "web-1".into(), authority: "ca".into() }, "{text}");
    }
    edge_bad(
        &two("").replace("= \"web-1\"", "= ¦\"web-1\""),
        &["there are several authorities, and each can make a certificate of this name; say which one is meant by \
           `certificate_ca`: other, ca"],
    );
    edge_bad(
        &two("certificate_ca = ¦\"another\""),
        &["no [[listen]] for workers has this `worker_ca`; name one that is there: other, ca"],
    );
    edge_bad(&one("certificate_ca = ¦7"), &["`certificate_ca` is an integer"]);
    let secret = credential().replace("secret_hash", "certificate_ca = ¦\"ca\"\nsecret_hash");
    edge_bad(&format!("{LISTEN}{POOL}{secret}"), &["`certificate_ca` without `certificate_name`; remove it"]);
    // The same name twice is two workers, where two authorities give it.
    let twice = |ca: &str| {
        let second = format!("[[credential]]\nid = \"b\"\ncertificate_name = ¦\"web-1\"\ncertificate_ca = \"{ca}\"\n");
        format!("{}{second}origins = [\"app.example\"]\n", two("certificate_ca = \"ca\""))
    };
    edge_good(&twice("other").replace('¦', ""), &[]);
    edge_bad(&twice("ca"), &["certificate name `web-1` is there twice"]);
}

#[test]
fn the_rules_for_tokens() {
    let section = |tokens: &str| format!("[edge]\ntokens = {tokens}\n{LISTEN}{POOL}");
    let good = section("{ jwks_file = \"keys/jwks.json\", issuer = \"https://issuer.example\", audience = \"ptth\" }");
    let (config, warnings) = EdgeConfig::parse("/etc/ptth/edge.toml", &good, NOW_UNIX).unwrap();
    assert!(warnings.list().is_empty(), "no [[credential]] is needed then: {warnings}");
    let tokens = config.tokens.unwrap();
    assert_eq!(tokens.jwks_file.value, Path::new("/etc/ptth/keys/jwks.json"));
    assert_eq!((tokens.issuer.as_str(), tokens.audience.as_str()), ("https://issuer.example", "ptth"));
    assert_eq!((tokens.lifetime_ms_max, tokens.denied_file), (86_400_000, None));
    let more = good.replace("\"ptth\" }", "\"ptth\", lifetime_max = \"90m\", denied_file = \"denied.txt\" }");
    let (config, _) = EdgeConfig::parse("/etc/ptth/edge.toml", &more, NOW_UNIX).unwrap();
    let tokens = config.tokens.unwrap();
    assert_eq!((tokens.lifetime_ms_max, tokens.denied_file.unwrap().value), (5_400_000, "/etc/ptth/denied.txt".into()));
    for (tokens, want) in [
        ("¦\"jwks.json\"", "`tokens` is a string; write { jwks_file = \"jwks.json\", issuer ="),
        ("¦{ issuer = \"i\", audience = \"a\" }", "`jwks_file` is missing"),
        ("¦{ jwks_file = \"j\", audience = \"a\" }", "`issuer` is missing"),
        ("¦{ jwks_file = \"j\", issuer = \"i\" }", "`audience` is missing"),
        ("{ jwks_file = ¦\"\", issuer = \"i\", audience = \"a\" }", "`jwks_file` is empty"),
        ("{ jwks_file = \"j\", issuer = ¦1, audience = \"a\" }", "`issuer` is an integer"),
        (
            "{ jwks_file = \"j\", issuer = \"i\", audience = \"a\", lifetime_max = ¦\"59s\" }",
            "`lifetime_max` is \"59s\"; write a duration from \"60s\" to \"168h\"",
        ),
        (
            "{ jwks_file = \"j\", issuer = \"i\", audience = \"a\", denied_file = ¦\"\" }",
            "`denied_file` is empty, or longer than 1024 bytes; write \"denied.txt\"",
        ),
        (
            "{ jwks_file = \"j\", issuer = \"i\", audience = \"a\", ¦jwks_url = \"u\" }",
            "unknown key `jwks_url` in tokens",
        ),
    ] {
        edge_bad(&edge_section(&format!("tokens = {tokens}")), &[want]);
    }
}

#[test]
fn a_folder_of_credentials() {
    let folder = |value: &str| format!("[edge]\ncredentials_dir = {value}\n{LISTEN}{POOL}");
    let config = EdgeConfig::parse("/etc/ptth/edge.toml", &folder("\"credentials\""), NOW_UNIX).unwrap();
    assert_eq!(config.0.credentials_dir.unwrap().value, Path::new("/etc/ptth/credentials"));
    assert!(config.1.list().is_empty(), "no [[credential]] is needed then: {}", config.1);
    for (value, want) in [("\"\"", "is empty; write \"credentials\", a folder"), ("1", "is an integer")] {
        edge_bad(&edge_section(&format!("credentials_dir = ¦{value}")), &[&format!("`credentials_dir` {want}")]);
    }

    let config = edge_good(&folder("\"/etc/ptth/credentials\""), &[]);
    let good = format!("id = \"web-1\"\n{HASH}origins = [\"app.example\"]\n");
    for text in [good.clone(), format!("[[credential]]\n{good}")] {
        let (credential, warnings) = config.parse_credential("web-1.toml", &text, NOW_UNIX).unwrap();
        assert_eq!((credential.id.as_str(), credential.links_max), ("web-1", 16));
        assert!(warnings.list().is_empty(), "{warnings}");
    }
    for (marked, want) in [
        ("¦id = \"web-1\"\n".to_owned(), &["`secret_hash` is missing", "`origins` is missing"][..]),
        (format!("{good}¦name = \"web-1\"\n"), &["unknown key `name` in a credential's file; it belongs in [[pool]]"]),
        (format!("{good}¦zzz = 1\n"), &["unknown key `zzz` in a credential's file; known are id, secret_hash"]),
        ("credential = ¦[]\n".to_owned(), &["0 credentials; give each its own file"]),
        (
            format!("[[credential]]\n{good}[[credential]]\n{}", good.replace(HASH, HASH_2)).replacen("[[", "¦[[", 1),
            &["2 credentials; give each its own file"],
        ),
        (good.replace("[\"app", "[¦\"nobody"), &["no pool covers nobody.example"]),
    ] {
        let (text, _) = unmark(&marked);
        let mistakes = config.parse_credential("web-1.toml", &text, NOW_UNIX).unwrap_err();
        let marks = marked.replacen('¦', &"¦".repeat(want.len()), 1);
        check_lines("web-1.toml", &marks, &mistakes, want);
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_and_in_order() {
    let hash = "secret_hash = \"sha256:short\"";
    edge_bad(
        &format!(
            "# ä file with much to mend\n[edge]\ncores = ¦\"ä\"\n¦drain = 1 # ö\n\
             [[listen]]\naddress = ¦\"x\"\naccept = [¦\"all\"]\ntls = ¦1\n\
             [[pool]]\nname = ¦\"ä b\"\norigins = [¦\"http://ä\", ¦\"x y\"]\nqueue = {{ bytes_max = ¦1, wait_max = ¦2 }}\n\
             [[credential]]\nid = ¦7\n{}\norigins = [\"somewhere.example\"]\n",
            hash.replace("= ", "= ¦")
        ),
        &[
            "`cores`",
            "`drain`",
            "`address`",
            "`accept`",
            "`tls`",
            "`name`",
            "not an origin",
            "not an origin",
            "`bytes_max`",
            "`wait_max`",
            "`id`",
            "`secret_hash`",
        ],
    );
}

#[test]
fn no_message_shows_a_secret() {
    let text = format!(
        "{LISTEN}{POOL}[[credential]]\nid = \"web-1\"\nsecret_hash = \"hunter2\"\norigins = [\"http://me:hunter2@x\"]\n\
         secret = \"hunter2\"\n"
    );
    let mistakes = EdgeConfig::parse("edge.toml", &text, NOW_UNIX).unwrap_err();
    assert_eq!(mistakes.list().len(), 3, "{mistakes}");
    assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    let rule = |value: &str| {
        pool(&format!("[[pool.rule]]\nmatch = {{ header = {{ authorization = \"{value}\" }} }}\nurgency = 0"))
    };
    let mistakes = EdgeConfig::parse("edge.toml", &rule("hunter2 "), NOW_UNIX).unwrap_err().to_string();
    assert!(mistakes.contains("`header`") && !mistakes.contains("hunter2"), "{mistakes}");
    let shown = format!("{:?}", edge_good(&rule("hunter2"), &[]));
    assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    let flags = WorkerFlags {
        edges: vec!["http://me:hunter2@edge.example".into()],
        to: Some("http://me:hunter2@127.0.0.1".into()),
        serve: vec!["http://me:hunter2@app.example".into()],
        ..WorkerFlags::default()
    };
    let mistakes = WorkerConfig::parse(None, &flags).unwrap_err();
    assert_eq!(mistakes.list().len(), 4, "{mistakes}");
    assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");

    let secret = Secret::new("id:hunter2-the-secret\n");
    let config = secret.good("", &[]);
    assert_eq!(config.authorization.as_ref().unwrap().header_value(), "Basic aWQ6aHVudGVyMi10aGUtc2VjcmV0");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("aHVud"), "{shown}");
    for broken in ["hunter2", "hunter2\nhunter2\n", ":hunter2", "\u{7f}:hunter2", ""] {
        let broken = Secret::new(broken);
        let mistakes = WorkerConfig::parse(Some((&broken.toml(), GOOD)), &WorkerFlags::default()).unwrap_err();
        assert_eq!(mistakes.list().len(), 1, "{mistakes}");
        assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    }
}

const GOOD: &str = "edges = [\"http://localhost:8080\"]\nserve = [\"https://app.example\"]\nto = \"http://127.0.0.1:3000\"\n\
    credential_file = \"web-1.secret\"\n";

/// A directory of its own with `web-1.secret` and `web-1.token` in it; gone at the end.
struct Secret(PathBuf);

impl Secret {
    fn new(content: &str) -> Secret {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("ptth-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("web-1.secret"), content).unwrap();
        std::fs::write(directory.join("web-1.token"), "to-ken_1.~+/==\r\n").unwrap();
        Secret(directory)
    }

    fn toml(&self) -> PathBuf {
        self.0.join("worker.toml")
    }

    fn parse(&self, text: &str) -> Result<(WorkerConfig, Mistakes), Mistakes> {
        self.parse_all(text).map(|(services, mistakes)| (only(services), mistakes))
    }

    fn parse_all(&self, text: &str) -> Result<(Services, Mistakes), Mistakes> {
        WorkerConfig::parse(Some((&self.toml(), text)), &WorkerFlags::default())
    }

    /// `GOOD` with one more line.
    #[track_caller]
    fn good(&self, line: &str, warnings: &[&str]) -> WorkerConfig {
        let marked = format!("{GOOD}{line}\n");
        let (config, mistakes) = self.parse(&unmark(&marked).0).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        check_lines(&self.toml().display().to_string(), &marked, &mistakes, warnings);
        config
    }

    #[track_caller]
    fn bad(&self, marked: &str, want: &[&str]) {
        let mistakes = self.parse(&unmark(marked).0).expect_err(marked);
        check_lines(&self.toml().display().to_string(), marked, &mistakes, want);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn only(services: Services) -> WorkerConfig {
    let Ok([service]) = <[WorkerConfig; 1]>::try_from(services.0) else { panic!("more than one service") };
    service
}

#[test]
fn a_worker_has_a_service_for_each_block_and_one_of_its_own() {
    let secret = Secret::new("web-1:s3cret\n");
    let token = "bearer_file = \"web-1.token\"\nhealth = { path = \"/\" }\nconcurrency = 5\n";
    let block = |serve: &str, more: &str| format!("[[service]]\nserve = [\"{serve}\"]\nto = \"http://h:1\"\n{more}");
    let two = format!("{GOOD}concurrency = 9\n{}{}", block("http://b", ""), block("http://c", token));
    let (services, mistakes) = secret.parse_all(&two).unwrap();
    assert_eq!(mistakes.lines().count(), 0, "{mistakes}");
    let [own, b, c] = &services.0[..] else { panic!("{services:?}") };
    assert_eq!((own.concurrency, b.concurrency, c.concurrency), (9, 64, 5));
    assert!(own.edges == b.edges && b.edges == c.edges && own.authorization == b.authorization);
    assert_eq!(c.authorization.as_ref().unwrap().header_value(), "Bearer to-ken_1.~+/==");
    assert!(own.health.is_none() && b.health.is_none() && c.health.is_some());
    // The top level may hold only what they share.
    let shared = "edges = [\"http://edge.example\"]\ncredential_file = \"web-1.secret\"\n";
    let (services, _) = secret.parse_all(&format!("{shared}{}", block("http://b", ""))).unwrap();
    assert_eq!(only(services).to, Target::Http { host: "h".into(), port: 1 });
    let check = |marked: String, want: &[&str]| {
        let mistakes = secret.parse_all(&unmark(&marked).0).expect_err(&marked);
        check_lines(&secret.toml().display().to_string(), &marked, &mistakes, want);
    };
    check(
        format!("{GOOD}¦[[service]]\nto = \"http://h:1\"\n"),
        &["`serve` is missing; add serve = [\"https://app.example.com\"]"],
    );
    check(
        format!("{GOOD}[[service]]\nserve = [\"http://b\"]\nto = ¦\"h\"\n¦links = 3\n"),
        &["not a server's address", "unknown key `links` in [[service]]; it belongs in worker.toml"],
    );
    check(
        format!("{GOOD}¦{}", block("https://app.example", "")),
        &["another service serves the same; put it into one, or start a second worker"],
    );
    // What they share is wrong once.
    let broken = but("edges", "edges = [¦\"edge.example\"]");
    check(format!("{broken}{}", block("http://b", "")), &["not an edge's address"]);
}

/// `GOOD` with the line of one key replaced.
fn but(key: &str, line: &str) -> String {
    let mut out = String::new();
    for old in GOOD.lines() {
        out.push_str(if old.starts_with(key) { line } else { old });
        out.push('\n');
    }
    out
}

#[test]
fn a_worker_warns_of_each_edge_that_gets_its_secret_in_the_clear() {
    let secret = Secret::new("web-1:s3cret\n");
    let edges = |edges: &str| but("edges", &format!("edges = [{edges}]"));
    let check = |edges: &str, want: &[&str]| {
        let (text, _) = unmark(edges);
        let (_, mistakes) = secret.parse_all(&text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
        check_lines(&secret.toml().display().to_string(), edges, &mistakes, want);
    };
    let goes = |edge: &str| {
        format!("warning: the secret goes to {edge} without TLS, and can be read on the way; write https://")
    };
    check(&edges("¦\"http://edge.example\""), &[&goes("edge.example:80")]);
    check(
        &edges("\"http://127.0.0.2\", ¦\"http://10.0.0.1:8080\", ¦\"http://[2001:db8::1]\""),
        &[&goes("10.0.0.1:8080"), &goes("[2001:db8::1]:80")],
    );
    check(&edges("\"http://localhost\", \"http://edge.localhost\", \"http://127.0.0.1\", \"http://[::1]\""), &[]);
    // Nothing is sent that anybody could use.
    let certificate = but("credential_file", "haproxy = true").replace("serve = [\"https://app.example\"]\n", "");
    check(&certificate.replace("localhost", "edge.example"), &[]);
}

#[test]
fn the_worker_file() {
    let secret = Secret::new("web-1:s3cret\n");
    let config = secret.good("", &[]);
    assert_eq!(config.edges, [EdgeAddress { scheme: Scheme::Http, host: "localhost".into(), port: 8080 }]);
    assert_eq!(config.serve, Scope::Origins(vec![Origin::parse("https://app.example").unwrap()]));
    assert_eq!(config.to, Target::Http { host: "127.0.0.1".into(), port: 3000 });
    assert_eq!(config.authorization.as_ref().unwrap().header_value(), "Basic d2ViLTE6czNjcmV0");
    assert_eq!((config.links, config.concurrency), (2, 64));
    assert_eq!(secret.good("links = 5\nconcurrency = 7", &[]).links, 5);
    secret.good("links = 5\nconcurrency = ¦3", &["warning: 3 credits for 5 links leave some links without work"]);

    let c = |text: &str| secret.parse(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}")).0;
    assert_eq!(c(&but("serve", "pool = \"app\"")).serve, Scope::Pool("app".into()));
    assert_eq!(c(&but("to", "to = \"unix:/run/app.sock\"")).to, Target::Unix("/run/app.sock".into()));
    assert_eq!(c(&but("to", "to = \"http://[::1]:3000/\"")).to, Target::Http { host: "::1".into(), port: 3000 });
    assert_eq!(c(&but("to", "to = \"HTTP://Localhost\"")).to, Target::Http { host: "localhost".into(), port: 80 });
    let https = Target::Https { host: "app.local".into(), port: 443 };
    assert_eq!(c(&but("to", "to = \"https://App.local\"")).to, https);
    assert_eq!(c(&but("to", "to = \"H2C://[::1]:81\"")).to, Target::H2c { host: "::1".into(), port: 81 });
    let edge = &c(&but("edges", "edges = [\"https://edge.example\"]")).edges[0];
    assert_eq!((edge.scheme, edge.port), (Scheme::Https, 443));
    let unused = "nobody needs";
    secret.good("ca_file = ¦\"ca.pem\"", &[&format!("warning: no edge is an https:// one, so {unused} `ca_file`")]);
    secret.good(
        "to_ca_file = ¦\"ca.pem\"",
        &[&format!("warning: `to` is no https:// server, so {unused} `to_ca_file`; write https://")],
    );
    secret.good("certificate = ¦\"a.pem\"\nkey = \"a.key\"", &["warning: a certificate is shown over TLS only"]);
    let alone = but("credential_file", "certificate = \"a.pem\"\nkey = \"a.key\"");
    let over_tls = alone.replace("http://localhost", "https://localhost");
    assert_eq!(c(&over_tls).authorization, None);
    secret.bad(&alone.replace("\"a.pem\"", "¦\"a.pem\""), &["a certificate is shown over TLS only, and no edge"]);
    assert_eq!(c(&format!("{GOOD}adaptive = false\n")).adaptive, None);
    assert_eq!(secret.good("adaptive = true", &[]).adaptive, Some(Adaptive { min: 1, max: 1_024 }));
    let bounds =
        secret.good("adaptive = true\nconcurrency = 5\nconcurrency_min = 2\nconcurrency_max = 9", &[]).adaptive;
    assert_eq!(bounds, Some(Adaptive { min: 2, max: 9 }));
    secret.good("concurrency_min = ¦2", &["warning: nobody needs this bound; add adaptive = true"]);
    secret.bad(
        &format!("{GOOD}adaptive = true\nconcurrency_max = ¦63\n"),
        &["`concurrency` is 64, and has to stay from 1 to 63; make concurrency_min <= concurrency"],
    );
    let device = but("credential_file", "haproxy = true").replace("serve", "#serve");
    let device = c(&device);
    assert_eq!((device.haproxy, device.authorization), (true, None));
    secret.bad(
        &format!(
            "{}haproxy = true\n",
            GOOD.replace("serve = [", "serve = [¦").replace("credential_file = ", "credential_file = ¦")
        ),
        &[
            "`serve` is of no use with `haproxy`: its edges know no setup; leave it out",
            "`credential_file` is of no use",
        ],
    );
    let about = secret.good("worker_id = \"w_1.x\"\nlabels = { zone = \"a\", \"rack.1\" = \"7 b\" }", &[]).about;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!((about.id.as_deref(), about.labels), (Some("w_1.x"), vec![label("zone", "a"), label("rack.1", "7 b")]));
    let via = secret.good("via = \"http://[::1]:3128\"\nvia_credential_file = \"web-1.secret\"", &[]).via.unwrap();
    assert_eq!((via.host.as_str(), via.port), ("::1", 3128));
    assert_eq!(via.authorization.unwrap().header_value(), "Basic d2ViLTE6czNjcmV0");
    secret.good("via_credential_file = ¦\"web-1.secret\"", &["warning: there is no proxy that needs this; add via ="]);
    let health = secret.good("health = { path = \"/up?deep\", timeout = \"1s\", fall = 4 }", &[]).health.unwrap();
    assert_eq!((health.path.as_str(), health.every_ms, health.timeout_ms), ("/up?deep", 5_000, 1_000));
    assert_eq!((health.rise, health.fall), (1, 4));
    let edges = c(&but("edges", "edges = [\"http://a.example\", \"http://[::1]:81/\"]")).edges;
    assert_eq!(edges.iter().map(EdgeAddress::to_string).collect::<Vec<_>>(), ["a.example:80", "[::1]:81"]);
    let bearer = c(&but("credential_file", "bearer_file = \"web-1.token\"")).authorization;
    assert_eq!(bearer.unwrap().header_value(), "Bearer to-ken_1.~+/==");

    for (key, line, want) in [
        ("edges", "edges = ¦[]", "`edges` is empty; write [\"https://edge.example:8443\"]"),
        ("edges", "edges = ¦\"http://edge.example\"", "`edges` is a string; write [\"https://edge.example:8443\"]"),
        ("edges", "edges = [¦\"ftp://edge.example\"]", "not an edge's address, it does not begin with http://"),
        ("edges", "edges = [\"http://[::1]:1\", ¦\"https://[::1]:1\"]", "edge [::1]:1 is there twice"),
        ("edges", "edges = [¦\"edge.example:8080\"]", "not an edge's address, it does not begin with http://"),
        ("edges", "edges = [¦\"http://edge.example/x\"]", "not an edge's address, an origin has no path"),
        ("edges", "edges = [¦\"http://edge.example:0\"]", "not an edge's address, "),
        ("edges", "edges = [\"http://localhost\", ¦\"http://Localhost:80/\"]", "edge localhost:80 is there twice"),
        ("serve", "serve = [¦\"app.example\"]", "not an origin, an origin begins with http://"),
        ("serve", "serve = [¦\"https://*.example\"]", "not an origin, "),
        ("serve", "serve = [\"http://a.example\", ¦\"http://a.example:80\"]", "this origin is there twice"),
        ("serve", "serve = [\"http://a.example\"]\npool = ¦\"app\"", "both `serve` and `pool` are there; keep one"),
        ("serve", "pool = ¦\"a/b\"", "\"a/b\" cannot be a pool's name"),
        ("serve", "pool = ¦3", "`pool` is an integer; write \"app\""),
        ("to", "to = ¦\"127.0.0.1:3000\"", "not a server's address, it does not begin with http://"),
        ("to", "to = ¦\"h2c://127.0.0.1:3000/x\"", "not a server's address, an origin has no path"),
        ("to", "to = ¦\"ftp://127.0.0.1\"", "not a server's address, it does not begin with http://"),
        ("to", "to = ¦\"unix:app.sock\"", "a unix: target is an absolute path"),
        ("to", "to = ¦[\"http://a\"]", "`to` is a list; write \"http://127.0.0.1:3000\""),
        (
            "credential_file",
            "credential_file = ¦\"other.secret\"",
            "other.secret cannot be read: no such file or directory",
        ),
        ("credential_file", "credential_file = ¦\"web-1.token\"", "web-1.token is not id:secret"),
        (
            "credential_file",
            "bearer_file = ¦\"web-1.secret\"",
            "web-1.secret is not a bearer token; write the secret alone",
        ),
        (
            "credential_file",
            "credential_file = \"web-1.secret\"\nbearer_file = ¦\"web-1.token\"",
            "both `credential_file` and",
        ),
        ("credential_file", "credential_file = ¦1", "`credential_file` is an integer; write \"web-1.secret\""),
    ] {
        secret.bad(&but(key, line), &[want]);
    }
    for (line, want) in [
        ("links = ¦0", "`links` is 0; write a number from 1 to 64"),
        ("links = ¦\"2\"", "`links` is a string; write 2"),
        ("concurrency = ¦0", "`concurrency` is 0; write a number from 1 to 65536"),
        ("health = ¦true", "`health` is true or false; write { path = \"/healthz\", every = \"5s\" }"),
        ("health = ¦{ every = \"5s\" }", "`path` is missing; add path = \"/healthz\""),
        ("health = { path = ¦\"healthz\" }", "not a path; write what the server answers, such as \"/healthz\""),
        (
            "health = { path = \"/\", every = ¦\"1ms\" }",
            "`every` is \"1ms\"; write a duration from \"100ms\" to \"1h\"",
        ),
        ("health = { path = \"/\", fall = ¦0 }", "`fall` is 0; write a number from 1 to 100"),
        ("health = { path = \"/\", ¦evry = \"1s\" }", "unknown key `evry` in health; did you mean `every`?"),
        ("worker_id = ¦\"a b\"", "\"a b\" cannot be a worker's id; write 1 to 64 letters"),
        ("labels = { ¦Zone = \"a\" }", "\"Zone\" cannot be a label's name; write lower-case letters first"),
        ("labels = { zone = ¦\"ä\" }", "\"ä\" cannot be a label's value; write at most 64 printable"),
        ("labels = { zone = ¦1 }", "`labels` is an integer; write { zone = \"a\" }"),
        ("via = ¦\"proxy:3128\"", "not a proxy's address, it does not begin with http://"),
        ("via = ¦\"https://proxy:3128\"", "a proxy is spoken to without TLS; write \"http://proxy.example:3128\""),
        (
            "via = \"http://proxy\"\nvia_credential_file = ¦\"web-1.token\"",
            "web-1.token is not user:password; write one",
        ),
        ("certificate = ¦\"a.pem\"", "`certificate` without `key`; add key = \"web-1.key\""),
        ("key = ¦\"a.key\"", "`key` without `certificate`; add certificate = \"web-1.pem\""),
        ("ca_file = ¦3", "`ca_file` is an integer; write \"edge-ca.pem\""),
        ("¦edge = \"http://a\"", "unknown key `edge` in worker.toml; did you mean `edges`?"),
        ("¦concurency = 3", "unknown key `concurency` in worker.toml; did you mean `concurrency`?"),
    ] {
        secret.bad(&format!("{GOOD}{line}\n"), &[want]);
    }
    secret.bad(
        "¦¦¦¦# nothing\n",
        &["`edges` is missing; add edges =", "`serve` is missing", "`to` is missing", "`credential_file` is missing"],
    );
}

#[test]
fn a_flag_wins_over_the_file() {
    let secret = Secret::new("web-1:s3cret");
    let parse = |flags: &WorkerFlags| WorkerConfig::parse(Some((&secret.toml(), GOOD)), flags);
    let flags = WorkerFlags {
        edges: vec!["http://other.example:81".into()],
        pool: Some("app".into()),
        to: Some("unix:/run/x".into()),
        bearer_file: Some(secret.0.join("web-1.token")),
        links: Some(3),
        concurrency: Some(9),
        ..WorkerFlags::default()
    };
    let config = only(parse(&flags).unwrap().0);
    assert_eq!(config.edges, [EdgeAddress { scheme: Scheme::Http, host: "other.example".into(), port: 81 }]);
    assert_eq!(config.serve, Scope::Pool("app".into()));
    assert_eq!(config.to, Target::Unix(PathBuf::from("/run/x")));
    assert_eq!(config.authorization.as_ref().unwrap().header_value(), "Bearer to-ken_1.~+/==");
    assert_eq!((config.links, config.concurrency), (3, 9));

    let flags = WorkerFlags {
        adaptive: true,
        concurrency_min: Some(9),
        health: Some("/up".into()),
        worker_id: Some("w".into()),
        labels: vec!["zone=a=b".into()],
        via: Some("http://proxy:1".into()),
        ..WorkerFlags::default()
    };
    let config = only(parse(&flags).unwrap().0);
    assert_eq!(config.adaptive, Some(Adaptive { min: 9, max: 1_024 }));
    assert_eq!(config.health.map(|health| (health.path.to_string(), health.every_ms)), Some(("/up".into(), 5_000)));
    assert_eq!((config.about.id.as_deref(), config.about.labels[0].1.as_str()), (Some("w"), "a=b"));
    assert_eq!(config.via.map(|via| via.host), Some("proxy".into()));
    let flags = WorkerFlags { health: Some("up".into()), ..WorkerFlags::default() };
    assert!(parse(&flags).unwrap_err().to_string().starts_with("--health: not a path; write what the server"));
    let flags = WorkerFlags { to: Some("nowhere".into()), links: Some(0), ..WorkerFlags::default() };
    let lines: Vec<_> = parse(&flags).unwrap_err().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("--links: 0 is out of range; write a number from 1 to 64"), "{lines:?}");
    assert!(lines[1].starts_with("--to: not a server's address"), "{lines:?}");

    let lines: Vec<_> = WorkerConfig::parse(None, &WorkerFlags::default()).unwrap_err().lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with("missing; add it, or name a file with --config")), "{lines:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let secret = Secret::new("");
    let path = secret.0.join("edge.toml");
    let read = |path: &Path| EdgeConfig::read(path, NOW_UNIX).unwrap_err().to_string();
    assert_eq!(read(&path), format!("{}: cannot be read: no such file or directory; check the path", path.display()));
    std::fs::write(&path, b"[edge]\n# \xc3\xa4 then \xff\n").unwrap();
    assert_eq!(read(&path), format!("{}:2:10: this byte is not UTF-8; save the file as UTF-8", path.display()));
    std::fs::write(&path, vec![b'#'; limits::CONFIG_BYTES_MAX + 1]).unwrap();
    assert!(read(&path).contains("larger than 1 MiB"));
    assert!(read(&secret.0).contains("cannot be read: is a directory"));
}

/// The files that the README shows.
#[test]
fn the_samples_are_in_order() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let (edge, mistakes) = EdgeConfig::read(&data.join("edge.toml"), NOW_UNIX).unwrap();
    assert_eq!(mistakes.lines().count(), 0, "{mistakes}");
    let (worker, mistakes) = WorkerConfig::read(Some(&data.join("worker.toml")), &WorkerFlags::default()).unwrap();
    assert_eq!(mistakes.lines().count(), 0, "{mistakes}");
    let worker = only(worker);
    let Scope::Origins(origins) = &worker.serve else { panic!("the sample serves origins") };
    assert!(edge.pools[0].origins[0].covers(&origins[0]) && edge.credentials[0].origins[0].covers(&origins[0]));
}

/// Whatever the bytes are, they become messages: one line each, with a place, and no panic.
#[test]
fn a_broken_file_is_told_and_never_a_panic() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let check = |text: &str| {
        let edge = EdgeConfig::parse("f", text, NOW_UNIX).map_or_else(|m| m, |(_, warnings)| warnings);
        let worker = WorkerConfig::parse(Some((Path::new("f"), text)), &WorkerFlags::default());
        for mistakes in [edge, worker.map_or_else(|m| m, |(_, warnings)| warnings)] {
            for line in mistakes.lines() {
                assert!(line.starts_with("f:") && line.contains("; ") && !line.contains(char::is_control), "{line:?}");
            }
        }
    };
    for file in ["edge.toml", "worker.toml"] {
        let whole = std::fs::read_to_string(data.join(file)).unwrap();
        for cut in 0..whole.len() {
            check(&whole[..cut]);
            let odd = ["\"", "[", "=", "\n", "ä", "\u{0}", "7"][cut % 7];
            check(&format!("{}{odd}{}", &whole[..cut], &whole[cut + 1..]));
        }
    }
    check(&format!("a = {}", "[".repeat(100_000)));
    check(&format!("a = {}", "{ a = ".repeat(10_000)));
    check(&format!("[{}a]", "a.".repeat(10_000)));
}
