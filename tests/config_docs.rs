//! docs/configuration.md is made from what the program takes: each table has exactly its keys, and each type, default and bound
//! that stands there is tried. Sentences beside the tables are compared with `limits.rs` where they have figures.

mod pages;

use std::collections::BTreeSet;
use std::path::PathBuf;

use pages::Row;
use ptth::edge::config::EdgeConfig;
use ptth::limits;
use ptth::settings::{Mistakes, Place, parse_duration_ms, parse_size_bytes};
use ptth::worker::config::{Services, WorkerConfig, WorkerFlags};

const PAGE: &str = "docs/configuration.md";
const HEADER: &str = "| key | type | default | bounds | what it does |";

/// The tables of an `edge.toml` in their order, by their headings on the page, with the lines that each needs.
const EDGE: &[(&str, &str)] = &[
    ("[edge]", ""),
    ("edge.tokens", "jwks_file = \"jwks.json\"\nissuer = \"https://issuer.example\"\naudience = \"ptth\""),
    ("[limits]", ""),
    ("[admin]", "address = \"127.0.0.1:9090\""),
    ("admin.tls", "certificate = \"edge.pem\"\nkey = \"edge.key\""),
    ("[access_log]", "file = \"access.log\""),
    ("[[listen]]", "address = \"127.0.0.1:8080\"\naccept = [\"clients\", \"workers\"]"),
    ("listen.tls", "certificate = \"edge.pem\"\nkey = \"edge.key\"\nworker_ca = \"ca.pem\""),
    ("[[pool]]", "name = \"app\"\norigins = [\"*\"]"),
    ("pool.queue", ""),
    ("[pool.priority]", ""),
    ("[[pool.rule]]", "urgency = 0"),
    ("pool.rule.match", "path = \"/first\""),
    (
        "[[credential]]",
        "id = \"web-1\"\norigins = [\"http://app.example\"]\n\
         secret_hash = \"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"",
    ),
];

const WORKER: &[(&str, &str)] = &[
    (
        "worker.toml",
        "edges = [\"http://127.0.0.1:8080\"]\nserve = [\"http://app.example\"]\nto = \"http://127.0.0.1:3000\"\n\
         credential_file = \"web-1.secret\"",
    ),
    ("health", "path = \"/healthz\""),
    ("[[service]]", "serve = [\"http://api.example\"]\nto = \"http://127.0.0.1:3001\""),
];

/// One line of the page.
struct Key {
    table: String,
    key: String,
    kind: String,
    default: String,
    bounds: String,
}

fn keys() -> Vec<Key> {
    let rows = pages::rows(&pages::read(PAGE), HEADER);
    let key = |Row { heading, cells }: Row| {
        let [key, kind, default, bounds, what] = cells.as_slice() else { panic!("{heading}: {cells:?}") };
        assert!(!what.is_empty() && !kind.is_empty(), "{heading}: {key}");
        let key = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')).expect(key).to_owned();
        Key { table: heading, key, kind: kind.clone(), default: default.clone(), bounds: bounds.clone() }
    };
    rows.into_iter().map(key).collect()
}

impl Key {
    fn name(&self) -> String {
        format!("{} {}", self.table, self.key)
    }

    /// A default that is written as it stands in a file.
    fn literal(&self) -> Option<&str> {
        self.default.strip_prefix('`')?.strip_suffix('`')
    }

    fn is_of_edge(&self) -> bool {
        EDGE.iter().any(|(table, _)| *table == self.table)
    }

    /// A value of the right type: the default, or another where that is none.
    fn sample(&self) -> String {
        if let Some(literal) = self.literal() {
            return literal.to_owned();
        }
        let sample = match (self.table.as_str(), self.key.as_str()) {
            ("[[listen]]" | "[admin]", "address") => "\"127.0.0.1:8085\"",
            ("[[listen]]", "accept") => "[\"workers\", \"clients\"]",
            ("[admin]", "names") => "[\"edge.internal\"]",
            ("[admin]", "token_hash") => return format!("\"sha256:{}\"", "0a".repeat(32)),
            ("[[listen]]" | "[admin]", "tls") => "{ certificate = \"edge.pem\", key = \"edge.key\" }",
            ("[[pool]]", "origins") => "[\"app.example\", \"*.example\", \"https://api.example\", \"*\"]",
            ("[[pool]]", "queue") => "{ requests_max = 1 }",
            ("[[pool]]", "priority") => "{ default = 1 }",
            ("[[pool.rule]]", "match") => "{ method = \"GET\" }",
            ("[edge]", "tokens") => "{ jwks_file = \"jwks.json\", issuer = \"i\", audience = \"a\" }",
            ("pool.rule.match", "method") => "[\"POST\", \"PUT\"]",
            ("pool.rule.match", "host") => "\"*.example.com\"",
            ("pool.rule.match", "path") => "\"/checkout/*\"",
            ("pool.rule.match", "client") => "[\"10.0.0.0/8\", \"::1\"]",
            ("pool.rule.match", "header") => "{ x-plan = \"gold\", x-user = \"*\" }",
            ("[[credential]]", "origins") => "[\"http://app.example\"]",
            ("[[credential]]", "certificate_name") => "\"web-1.workers.internal\"",
            ("[[credential]]", "certificate_ca") => "\"ca.pem\"",
            ("[[credential]]", "expires") => "\"2099-01-01T00:00:00Z\"",
            ("[[credential]]", "secret_hash") => return format!("\"sha256:{}\"", "0a".repeat(32)),
            (_, "edges") => "[\"https://edge.example:8443\", \"http://other.example\"]",
            (_, "serve") => "[\"http://app.example.com\"]",
            (_, "to") => "\"unix:/run/app.sock\"",
            (_, "via") => "\"http://proxy.example:3128\"",
            (_, "labels") => "{ zone = \"a\" }",
            (_, "health") => "{ path = \"/\" }",
            ("health", "path") => "\"/healthz\"",
            (_, "credential_file" | "via_credential_file") => "\"web-1.secret\"",
            (_, "bearer_file") => "\"web-1.token\"",
            _ => match self.kind.as_str() {
                "name" => "\"web-1\"",
                "text" => "\"some\"",
                "file" => "\"some.pem\"",
                "folder" => "\"some\"",
                "duration" => "\"10s\"",
                "number" => "1",
                other => panic!("{}: no sample of {other}", self.name()),
            },
        };
        sample.to_owned()
    }

    /// A value that is of no type of this key's.
    fn wrong(&self) -> &'static str {
        match self.kind.as_str() {
            "number" | "flag" => "\"1\"",
            kind if kind.contains("number") && !kind.starts_with("list") => "true",
            _ => "1",
        }
    }

    /// The file with this key set, or without it.
    fn file(&self, value: Option<&str>) -> String {
        document(&self.table, &self.key, value)
    }

    /// What the program makes of that file, as text, or its mistakes.
    fn read(&self, value: Option<&str>) -> Result<String, Mistakes> {
        read(self.is_of_edge(), &self.file(value))
    }

    #[track_caller]
    fn takes(&self, value: &str) {
        if let Err(mistakes) = self.read(Some(value)) {
            let shown: String = value.chars().take(200).collect();
            panic!("{} = {shown}\n{mistakes}", self.name());
        }
    }

    #[track_caller]
    fn refuses(&self, value: &str) {
        let shown: String = value.chars().take(200).collect();
        let Err(mistakes) = self.read(Some(value)) else { panic!("{} = {shown} is taken", self.name()) };
        assert!(mistakes.has_errors(), "{} = {shown}\n{mistakes}", self.name());
    }
}

/// `[[pool.rule]]` is `pool.rule`.
fn path(table: &str) -> &str {
    match table.trim_matches(['[', ']']) {
        "worker.toml" => "",
        path => path,
    }
}

/// A file with everything that it needs, and `key` as it is wanted. What stands instead of the key, or has to stand beside it, is
/// changed with it.
fn document(table: &str, key: &str, value: Option<&str>) -> String {
    let is_of_edge = EDGE.iter().any(|(name, _)| *name == table);
    let own = match path(table) {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    let needs_tls = table == "listen.tls" || key.starts_with("certificate_");
    let mut text = String::new();
    for (name, lines) in if is_of_edge { EDGE } else { WORKER } {
        let is_below = path(name) == own || path(name).starts_with(&format!("{own}."));
        let is_left_out = match *name {
            "listen.tls" => !needs_tls,
            // Not beside what is asked about the top level.
            "[[service]]" | "health" => *name != table,
            _ => false,
        };
        if is_below || is_left_out {
            continue;
        }
        match *name {
            "worker.toml" => {}
            name if name.starts_with('[') => text += &format!("{name}\n"),
            name => text += &format!("[{name}]\n"),
        }
        let is_here = *name == table;
        let instead: &[&str] = match (is_here, key) {
            (true, "pool") => &["serve"],
            (true, "bearer_file") => &["credential_file"],
            (true, "certificate_name" | "certificate_ca") => &["secret_hash"],
            (true, "credential") => &["accept"],
            (true, _) if table == "pool.rule.match" && value.is_some() => &["path"],
            _ => &[],
        };
        for line in lines.lines() {
            let line_key = line.split(" = ").next().unwrap_or_default();
            if !(is_here && line_key == key || instead.contains(&line_key)) {
                text += &format!("{line}\n");
            }
        }
        if is_here {
            text += match key {
                "certificate" if !is_of_edge && value.is_some() => "key = \"some.key\"\n",
                "key" if !is_of_edge && value.is_some() => "certificate = \"some.pem\"\n",
                "concurrency_min" if !is_of_edge => "adaptive = true\nconcurrency = 65536\nconcurrency_max = 65536\n",
                "concurrency_max" if !is_of_edge => "adaptive = true\nconcurrency = 1\n",
                "path" if table == "pool.rule.match" && value.is_none() => "method = \"GET\"\n", // some condition
                "certificate_ca" => "certificate_name = \"web-1.internal\"\n",
                "credential" => "accept = [\"haproxy-workers\"]\n",
                _ => "",
            };
            text += &value.map_or("# not here\n".to_owned(), |value| format!("{key} = {value}\n"));
            if key == "credential" {
                text += "[[listen]]\naddress = \"127.0.0.1:8081\"\naccept = [\"clients\"]\n"; // somebody has to
                text = text.replace("[edge]\n", "[edge]\ncredentials_dir = \"more\"\n"); // where any name may be
            }
        }
    }
    text
}

fn read(is_of_edge: bool, text: &str) -> Result<String, Mistakes> {
    if is_of_edge {
        return EdgeConfig::parse("edge.toml", text, 0).map(|(config, _)| format!("{config:#?}"));
    }
    let file = folder().join("worker.toml");
    let (Services(mut services), _) = WorkerConfig::parse(Some((&file, text)), &WorkerFlags::default())?;
    for service in &mut services {
        // Where a key stands makes no other worker.
        (service.tls.edges_at, service.tls.to_at) = (Place::File, Place::File);
    }
    Ok(format!("{services:#?}"))
}

/// What a worker's file names lies here.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ptth-config-docs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for (name, text) in [("web-1.secret", "web-1:secret\n"), ("web-1.token", "a-token\n")] {
        if !folder.join(name).exists() {
            // Tests run beside each other: a file is there whole, or not at all.
            let own = folder.join(format!("{name}.{:?}", std::thread::current().id()));
            std::fs::write(&own, text).and_then(|()| std::fs::rename(&own, folder.join(name))).expect("a file");
        }
    }
    folder
}

#[test]
fn each_table_of_the_page_has_the_keys_that_the_program_knows() {
    let keys = keys();
    let headings: BTreeSet<&str> = keys.iter().map(|key| key.table.as_str()).collect();
    let ours: BTreeSet<&str> = EDGE.iter().chain(WORKER).map(|(name, _)| *name).collect();
    assert_eq!(headings, ours);
    let known = |mistakes: Mistakes| -> BTreeSet<String> {
        let mistakes = mistakes.to_string();
        let (_, known) = mistakes.split_once("known are ").expect(&mistakes);
        known.lines().next().unwrap_or_default().split(", ").map(str::to_owned).collect()
    };
    for table in headings {
        let listed: BTreeSet<String> =
            keys.iter().filter(|key| key.table == table).map(|key| key.key.clone()).collect();
        let is_of_edge = EDGE.iter().any(|(name, _)| *name == table);
        let text = document(table, "qqqqqqqq", Some("1"));
        let mistakes = read(is_of_edge, &text).expect_err(table);
        assert_eq!(listed, known(mistakes), "{table}");
        let rows = keys.iter().filter(|key| key.table == table).count();
        assert_eq!(rows, listed.len(), "a key stands twice in {table}");
    }
    // Every top-level table of an edge.toml has its heading.
    let top = read(true, "[qqqqqqqq]\n").expect_err("a table that is not known");
    let top_here: BTreeSet<String> =
        EDGE.iter().map(|(name, _)| path(name)).filter(|path| !path.contains('.')).map(str::to_owned).collect();
    assert_eq!(known(top), top_here);
    // And so has every table in a table, but those whose keys are the user's own.
    for key in keys.iter().filter(|key| key.kind.contains("table") && !["header", "labels"].contains(&key.key.as_str()))
    {
        let own = format!("{}.{}", path(&key.table), key.key);
        let own = own.trim_start_matches('.').trim_start_matches("service.").to_owned();
        assert!(ours.iter().any(|name| path(name) == own), "no table of {own}");
    }
}

/// The table for those who know others names keys that are there.
#[test]
fn keys_that_the_concepts_name_are_there() {
    let keys: BTreeSet<String> = keys().iter().map(|key| format!("{}.{}", path(&key.table), key.key)).collect();
    let rows = pages::rows(&pages::read("docs/concepts.md"), "| there | here |");
    let mut seen = 0;
    for row in rows {
        for span in row.cells[1].split('`').skip(1).step_by(2).filter(|span| !span.contains(' ')) {
            // A worker's keys stand at its top level.
            let is_there = keys.contains(span) || keys.contains(&format!(".{span}"));
            assert!(is_there, "docs/concepts.md: {span}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn each_key_takes_its_type_and_no_other() {
    for key in keys() {
        let sample = key.sample();
        let first = sample.chars().next().unwrap_or_default();
        let fits = match first {
            '"' => ["text", "name", "file", "folder", "duration", "size", "\"all\""]
                .iter()
                .any(|kind| key.kind.contains(kind)),
            '0'..='9' => key.kind.contains("number"),
            't' | 'f' => key.kind == "flag",
            '[' => key.kind.contains("list of"),
            '{' => key.kind.contains("table"),
            _ => false,
        };
        assert!(fits, "{} is {}, not {sample}", key.name(), key.kind);
        key.takes(&sample);
        let mistakes = key.read(Some(key.wrong())).expect_err(&key.name());
        let named = mistakes.list().iter().any(|mistake| mistake.text.contains(&format!("`{}`", key.key)));
        assert!(named, "{} = {}\n{mistakes}", key.name(), key.wrong());
    }
}

#[test]
fn each_default_of_the_page_is_the_real_one() {
    for key in keys() {
        let without = key.read(None);
        match (key.literal(), key.default.as_str()) {
            (Some(literal), _) => {
                let without = without.unwrap_or_else(|mistakes| panic!("{}\n{mistakes}", key.name()));
                let with = key.read(Some(literal)).unwrap_or_else(|mistakes| panic!("{}\n{mistakes}", key.name()));
                assert_eq!(with, without, "{} = {literal}", key.name());
            }
            (None, default) if default.starts_with("required") => {
                let mistakes = without.expect_err(&key.name());
                let named =
                    mistakes.list().iter().any(|mistake| mistake.text.contains(&format!("`{}` is missing", key.key)));
                assert!(named, "{}\n{mistakes}", key.name());
            }
            (None, "for `haproxy-workers`") => {
                let mistakes = without.expect_err(&key.name());
                assert!(mistakes.to_string().contains("haproxy-workers say nothing about who they are"), "{mistakes}");
            }
            (None, default) => {
                let known = ["none", "below", "the host's name", "the top level's"];
                assert!(known.contains(&default) || default.starts_with("instead of"), "{}: {default}", key.name());
                if !default.starts_with("instead of") {
                    without.unwrap_or_else(|mistakes| panic!("{}\n{mistakes}", key.name()));
                }
            }
        }
    }
}

#[test]
fn each_bound_of_the_page_is_the_real_one() {
    let mut tried = 0;
    for key in keys() {
        let number = |text: &str| -> Option<u64> {
            match key.kind.as_str() {
                "duration" => parse_duration_ms(text).ok(),
                "size" => parse_size_bytes(text).ok(),
                _ => text.parse().ok(),
            }
        };
        let written = |number: u64| match key.kind.as_str() {
            "duration" => format!("\"{number}ms\""),
            "size" => format!("\"{number}B\""),
            _ => number.to_string(),
        };
        let most =
            |what: &str| -> Option<usize> { key.bounds.strip_prefix("at most ")?.strip_suffix(what)?.parse().ok() };
        if let Some((low, high)) = key.bounds.split_once(" to ") {
            let (low, high) = (number(low), number(high));
            let (Some(low), Some(high)) = (low, high) else { panic!("{}: {}", key.name(), key.bounds) };
            key.takes(&written(low));
            key.takes(&written(high));
            key.refuses(&written(high + 1));
            if low > 0 {
                key.refuses(&written(low - 1));
            }
        } else if let Some(count) = most(" entries") {
            key.takes(&entries(&key, count));
            key.refuses(&entries(&key, count + 1));
        } else if let Some(bytes) = most(" bytes") {
            key.takes(&format!("\"{}\"", "a".repeat(bytes)));
            key.refuses(&format!("\"{}\"", "a".repeat(bytes + 1)));
        } else {
            assert!(["", "below"].contains(&key.bounds.as_str()), "{}: nobody tries {}", key.name(), key.bounds);
            let numeric = ["number", "duration", "size"].contains(&key.kind.as_str());
            assert!(!numeric, "{} has a bound, and none stands here", key.name());
            continue;
        }
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
}

/// So many different elements.
fn entries(key: &Key, count: usize) -> String {
    let element = |i: usize| match (key.table.as_str(), key.key.as_str()) {
        ("[edge]", _) | ("[limits]", _) | (_, "client") => format!("\"10.0.{}.{}\"", i / 256, i % 256),
        (_, "method") => format!("\"M{i}\""),
        (_, "host") => format!("\"h{i}.example\""),
        (_, "path") => format!("\"/p{i}\""),
        (_, "secret_hash") => format!("\"sha256:{i:064x}\""),
        (_, "rule") => format!("{{ urgency = 0, match = {{ path = \"/p{i}\" }} }}"),
        (_, "edges") => format!("\"http://e{i}.example\""),
        (_, "service") => format!("{{ serve = [\"http://s{i}.example\"], to = \"http://127.0.0.1:3001\" }}"),
        (_, "labels") => format!("l{i} = \"a\""),
        _ => panic!("{}: no elements", key.name()),
    };
    let elements: Vec<String> = (0..count).map(element).collect();
    match key.key.as_str() {
        "labels" => format!("{{ {} }}", elements.join(", ")),
        _ => format!("[{}]", elements.join(", ")),
    }
}

#[test]
fn bounds_that_stand_in_sentences_are_the_real_ones() {
    let page = pages::read(PAGE).split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |sentence: String| assert!(page.contains(&sentence), "the page does not say: {sentence}");
    let all = keys();
    let key = |table: &str, name: &str| all.iter().find(|key| key.table == table && key.key == name).expect(name);

    says(format!("`cores` is 1 to {} threads; a CPU's number is 0 to {}", limits::CORES_MAX, limits::CPU_ID_MAX));
    let cores = key("[edge]", "cores");
    let cpus = |count: usize| format!("{:?}", (0..count).collect::<Vec<_>>());
    for good in ["1", "64", "[0, 8191]", &cpus(64)] {
        cores.takes(good);
    }
    for bad in ["0", "65", "[8192]", "[1, 1]", "[]", "\"some\"", &cpus(65)] {
        cores.refuses(bad);
    }

    says("`memory_max` is `\"1%\"` to `\"100%\"`, or `\"64MiB\"` to `\"65536GiB\"`".into());
    let memory = key("[limits]", "memory_max");
    for good in ["\"1%\"", "\"100%\"", "\"64MiB\"", "\"65536GiB\"", "\"0\""] {
        memory.takes(good);
    }
    for bad in ["\"0%\"", "\"101%\"", "\"65535KiB\"", "\"65537GiB\"", "\"\""] {
        memory.refuses(bad);
    }
    assert_eq!((limits::MEMORY_BYTES_MIN, limits::MEMORY_BYTES_LIMIT), (64 << 20, 65536 << 30));

    says(format!("At least one, at most {}", limits::POOLS_MAX));
    let pools = |count: usize| -> String {
        (0..count).map(|i| format!("[[pool]]\nname = \"p{i}\"\norigins = [\"h{i}.example\"]\n")).collect()
    };
    let rest = document("[edge]", "drain_max", None);
    read(true, &format!("{rest}{}", pools(limits::POOLS_MAX - 1))).expect("as many pools as there may be");
    read(true, &format!("{rest}{}", pools(limits::POOLS_MAX))).expect_err("one too many");

    says(format!("A `format` has at most {} bytes", limits::ACCESS_LOG_FORMAT_BYTES_MAX));
    says(format!("A rule has at most {} conditions", limits::RULE_CONDITIONS_MAX));
    says(format!("At most {}, those of `credentials_dir` among them", limits::CREDENTIALS_MAX));
    says(format!("a worker has at most {}", limits::WORKER_SERVICES_MAX));
    says(format!("`max_links` ({}, over all tokens", limits::CREDENTIAL_LINKS));
    says(format!("letters, digits and `-._~:+/=@`, at most {}", limits::REQUEST_ID_BYTES_MAX));
    says(format!("Without a header within {} seconds", limits::PROXY_MS_MAX / 1000));
    says(format!("From {} % of it new requests", limits::MEMORY_TIGHT_PERCENT));
    says(format!("from {} % on no connection", limits::MEMORY_FULL_PERCENT));
    says(format!("nothing of its response for {} seconds", limits::HOARD_MS_MAX / 1000));
    says(format!(
        "a random pause of up to {} s, of up to {} s",
        limits::REDIAL_MS_MAX / 1000,
        limits::REDIAL_MS_LONG / 1000
    ));
    assert_eq!(limits::REDIALS_SHORT, 30); // "thirty times"
    says(format!(
        "a line of a head has at most {} KiB (414 or 431), a head {} KiB and {} fields (431), a chunk's line {} bytes, trailers {} KiB; \
         a worker may send {} interim responses",
        limits::LINE_BYTES_MAX / 1024,
        limits::HEAD_BYTES_MAX / 1024,
        limits::HEAD_FIELDS_MAX,
        limits::CHUNK_LINE_BYTES_MAX,
        limits::TRAILER_BYTES_MAX / 1024,
        limits::INTERIM_MAX
    ));
    says(format!("Of a request's body {} KiB are kept", limits::REPLAY_BYTES_MAX / 1024));
}
