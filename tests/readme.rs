//! What README.md says is so: every command in it is run by a machine, and every key in its tables is one that the
//! configuration takes. A `sh` block says who runs it: `ci` is a line of `.ci/run` itself, `once` and
//! `stays` are run in their order on loopback by tests/interop/readme.py, which `.ci/run` calls.

use std::path::Path;

use ptth::edge::config::EdgeConfig;
use ptth::settings::{Mistakes, Place};
use ptth::worker::config::{WorkerConfig, WorkerFlags};

const LISTEN: &str = "address = \"127.0.0.1:8080\"\naccept = [\"clients\", \"workers\"]\n";
const POOL: &str = "name = \"app\"\norigins = [\"app.example\"]\n";
const CREDENTIAL: &str = "id = \"web-1\"\norigins = [\"app.example\"]\n\
    secret_hash = \"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n";
const WORKER: &str = "edges = [\"http://127.0.0.1:8080\"]\nserve = [\"http://app.example\"]\n\
    to = \"http://127.0.0.1:3000\"\ncredential_file = \"web-1.secret\"\n";

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks: what stands behind the fence, and the lines.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(info) if !is_open => blocks.push((info.to_owned(), Vec::new())),
            Some(_) => {}
            None if is_open => blocks.last_mut().expect("a block is open").1.push(line.to_owned()),
            None => continue,
        }
        is_open ^= line.starts_with("```");
    }
    assert!(!is_open, "a block does not end");
    blocks
}

/// The keys of each table: first cells, without their backticks. Lists of keys that are not there come last.
fn tables(text: &str) -> Vec<Vec<(String, String)>> {
    let mut tables = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines().chain([""]) {
        match line.strip_prefix("| `") {
            Some(row) => {
                let mut cells = row.split(" | ").map(|cell| cell.trim_end_matches(" |").trim_matches('`').to_owned());
                rows.push((cells.next().unwrap_or_default(), cells.next().unwrap_or_default()));
            }
            None if !line.starts_with('|') && !rows.is_empty() => tables.push(std::mem::take(&mut rows)),
            None => {}
        }
    }
    tables
}

/// An `edge.toml` with one more line in the table that `key` begins with; it replaces the table's own line.
fn edge_with(key: &str, value: &str) -> Result<EdgeConfig, Mistakes> {
    let (table, key) = key.split_once('.').expect("a table and a key");
    let lines = |name: &str, base: &str| {
        let kept = base.lines().filter(|line| name != table || !line.starts_with(&format!("{key} =")));
        let kept: Vec<&str> = kept.collect();
        let more = if name == table { format!("{key} = {value}\n") } else { String::new() };
        format!("{}\n{more}", kept.join("\n"))
    };
    let admin = if table == "admin" { format!("[admin]\n{}", lines("admin", "")) } else { String::new() };
    let edge = lines("edge", "");
    let limits = if table == "limits" { format!("[limits]\n{}", lines("limits", "")) } else { String::new() };
    let (mut listen, pool, mut credential) =
        (lines("listen", LISTEN), lines("pool", POOL), lines("credential", CREDENTIAL));
    if (table, key) == ("listen", "credential") {
        // It is for an address of its own, and clients want one, too.
        listen = format!("address = \"127.0.0.1:8081\"\naccept = [\"clients\"]\n[[listen]]\n{listen}")
            .replace("[\"clients\", \"workers\"]", "[\"haproxy-workers\"]");
        credential = credential.replace("\"app.example\"", "\"http://app.example\"");
    }
    if key == "certificate_name" {
        // It stands instead of a secret, and somebody has to be able to show one.
        listen += "tls = { certificate = \"edge.pem\", key = \"edge.key\", worker_ca = \"ca.pem\" }\n";
        credential = credential.lines().filter(|line| !line.starts_with("secret_hash")).collect::<Vec<_>>().join("\n");
    }
    let text = format!("[edge]\n{edge}{limits}{admin}[[listen]]\n{listen}[[pool]]\n{pool}[[credential]]\n{credential}");
    EdgeConfig::parse("edge.toml", &text, 0).map(|(config, _)| config)
}

fn worker_with(key: &str, value: &str) -> Result<WorkerConfig, Mistakes> {
    let replaced = match key {
        "pool" => "serve",
        "bearer_file" => "credential_file",
        key => key,
    };
    let kept: Vec<&str> = WORKER.lines().filter(|line| !line.starts_with(&format!("{replaced} ="))).collect();
    let other = match key {
        "certificate" => "key = \"web-1.key\"",
        "key" => "certificate = \"web-1.pem\"",
        "concurrency_min" | "concurrency_max" => "adaptive = true",
        _ => "",
    };
    let text = format!("{}\n{key} = {value}\n{other}\n", kept.join("\n"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/worker.toml"); // its secret lies beside it
    let (mut services, _) = WorkerConfig::parse(Some((&file, &text)), &WorkerFlags::default())?;
    let mut config = services.0.remove(0);
    // Where a key stands makes no other worker.
    (config.tls.edges_at, config.tls.to_at) = (Place::File, Place::File);
    Ok(config)
}

fn token_file() -> String {
    let path = std::env::temp_dir().join(format!("ptth-readme-{}.token", std::process::id()));
    std::fs::write(&path, "a-token\n").expect("a temporary file");
    path.display().to_string()
}

/// What stands for a key that has no default.
fn example(key: &str, default: &str) -> String {
    let own = match key {
        "listen.address" => "\"0.0.0.0:8080\"",
        "listen.accept" => "[\"clients\", \"workers\"]",
        "listen.tls" => "{ certificate = \"edge.pem\", key = \"edge.key\" }",
        "listen.credential" => "\"web-1\"",
        "admin.address" => "\"127.0.0.1:9090\"",
        "pool.name" | "pool" => "\"app\"",
        "pool.origins" | "credential.origins" => "[\"app.example\"]",
        "credential.id" => "\"web-1\"",
        "credential.secret_hash" => return format!("\"sha256:{}\"", "0a".repeat(32)),
        "credential.certificate_name" => "\"web-1.workers.internal\"",
        "edge.credentials_dir" => "\"credentials\"",
        "edge.tokens" => "{ jwks_file = \"jwks.json\", issuer = \"https://issuer.example\", audience = \"ptth\" }",
        "credential.expires" => "\"2099-01-01T00:00:00Z\"",
        "pool.priority.age_step" => "\"10s\"",
        "edges" => "[\"http://edge.example:8080\"]",
        "serve" => "[\"http://app.example.com\"]",
        "to" => "\"http://127.0.0.1:3000\"",
        "credential_file" => "\"web-1.secret\"",
        "worker_id" => "\"host-1\"",
        "service" => "[{ pool = \"api\", to = \"http://127.0.0.1:3001\" }]",
        "labels" => "{ zone = \"a\" }",
        "via" => "\"http://proxy.example:3128\"",
        "via_credential_file" => "\"web-1.secret\"",
        "health" => "{ path = \"/healthz\" }",
        "certificate" | "key" | "ca_file" | "to_ca_file" => "\"some.pem\"",
        "bearer_file" => return format!("\"{}\"", token_file()),
        _ => default,
    };
    own.to_owned()
}

#[test]
fn every_command_has_a_machine_that_runs_it() {
    let (readme, ci, runner) = (read("README.md"), read(".ci/run"), read("tests/interop/readme.py"));
    let run: Vec<&str> = ci.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let mut seen = (0, 0);
    for (info, lines) in blocks(&readme) {
        match info.as_str() {
            "sh ci" => {
                for line in lines {
                    assert!(run.iter().any(|runs| runs.contains(&line)), ".ci/run does not run: {line}");
                    seen.0 += 1;
                }
            }
            "sh once" | "sh stays" => {
                assert!(lines.iter().any(|line| line.contains("ptth") || line.contains("curl")), "{lines:?}");
                seen.1 += 1;
            }
            "text" | "toml" => {}
            other => panic!("who runs a block of {other:?}?"),
        }
    }
    assert!(seen.0 >= 5 && seen.1 >= 4, "{seen:?}");
    assert!(ci.contains("tests/interop/") && runner.contains("sh once") && runner.contains("sh stays"));
}

#[test]
fn every_key_that_is_listed_as_there_is_taken_with_its_default() {
    let tables = tables(&read("README.md"));
    let [edge, worker, priority, conditions] = tables.as_slice() else { panic!("{} tables", tables.len()) };
    assert!(edge.len() == 43 && worker.len() == 22, "{} and {} keys", edge.len(), worker.len());
    assert!(priority.len() == 6 && conditions.len() == 5, "{} and {} keys", priority.len(), conditions.len());
    for (key, default) in edge.iter().chain(&of_pools(priority)) {
        let value = example(key, default);
        edge_with(key, &value).unwrap_or_else(|mistakes| panic!("{key} = {value}\n{mistakes}"));
    }
    for (key, default) in worker {
        let value = example(key, default);
        worker_with(key, &value).unwrap_or_else(|mistakes| panic!("{key} = {value}\n{mistakes}"));
    }
    for (condition, example) in conditions {
        rule_with(condition, example).unwrap_or_else(|mistakes| panic!("{condition} = {example}\n{mistakes}"));
    }
}

/// The keys of the table on priority that stand alone in a pool; those of a rule need each other.
fn of_pools(priority: &[(String, String)]) -> Vec<(String, String)> {
    priority.iter().filter(|(key, _)| !key.starts_with("pool.rule.")).cloned().collect()
}

/// A pool with one rule of one condition. Its origins cover every host.
fn rule_with(condition: &str, value: &str) -> Result<EdgeConfig, Mistakes> {
    edge_with("pool.origins", &format!("[\"*\"]\nrule = [{{ urgency = 0, match = {{ {condition} = {value} }} }}]"))
}

#[test]
fn no_key_is_left_out() {
    let tables = tables(&read("README.md"));
    let check = |mistakes: Mistakes, mut listed: Vec<&str>| {
        listed.sort_unstable();
        let mistakes = mistakes.to_string();
        let (_, known) = mistakes.split_once("known are ").expect(&mistakes);
        let known = known.lines().next().unwrap_or_default();
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        assert_eq!(listed, known);
    };
    for table in ["edge", "limits", "listen", "admin", "pool", "credential"] {
        let keys = tables[0].iter().filter_map(|(key, _)| key.strip_prefix(table)?.strip_prefix('.'));
        check(edge_with(&format!("{table}.qqqqqqqq"), "1").expect_err(table), keys.collect());
    }
    let keys_of =
        |table: &'static str| tables[2].iter().filter_map(move |(key, _)| key.strip_prefix(table)).collect::<Vec<_>>();
    check(edge_with("pool.priority", "{ qqqqqqqq = 1 }").expect_err("[pool.priority]"), keys_of("pool.priority."));
    let rule = "[{ qqqqqqqq = 1, urgency = 0, match = { path = \"/\" } }]";
    check(edge_with("pool.rule", rule).expect_err("[[pool.rule]]"), keys_of("pool.rule."));
    let conditions = tables[3].iter().map(|(condition, _)| condition.as_str());
    check(rule_with("qqqqqqqq", "1").expect_err("match"), conditions.collect());
    let keys = tables[1].iter().map(|(key, _)| key.as_str());
    check(worker_with("qqqqqqqq", "1").expect_err("worker.toml"), keys.collect());
}

#[test]
fn a_default_in_the_tables_is_the_real_one() {
    let tables = tables(&read("README.md"));
    let plain = edge_with("pool.name", "\"app\"").expect("the smallest configuration");
    for (key, default) in tables[0].iter().chain(&of_pools(&tables[2])) {
        if example(key, default) == *default {
            assert_eq!(edge_with(key, default).as_ref().ok(), Some(&plain), "{key} = {default}");
        }
    }
    let plain = worker_with("to", "\"http://127.0.0.1:3000\"").expect("the smallest configuration");
    let adaptive = worker_with("adaptive", "true").expect("another one");
    for (key, default) in &tables[1] {
        if example(key, default) == *default {
            let plain = if key.starts_with("concurrency_") { &adaptive } else { &plain };
            assert_eq!(worker_with(key, default).as_ref().ok(), Some(plain), "{key} = {default}");
        }
    }
}

#[test]
fn the_configuration_files_of_the_readme_are_good() {
    let readme = read("README.md");
    let (start, end) = (readme.find("<<'EOF'\n").expect("edge.toml"), readme.find("\nEOF\n").expect("its end"));
    let text = format!("{}\n[[credential]]\n{CREDENTIAL}", &readme[start + 8..end]);
    let text = text.replace("app.example\"", "http://app.example.com\"");
    EdgeConfig::parse("edge.toml", &text, 0).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
}

#[test]
fn the_pools_that_the_readme_shows_are_good() {
    let samples: Vec<String> = blocks(&read("README.md"))
        .into_iter()
        .filter(|(info, _)| info == "toml")
        .map(|(_, lines)| lines.join("\n"))
        .collect();
    assert!(!samples.is_empty(), "no block of TOML");
    for sample in samples {
        let text = format!("[[listen]]\n{LISTEN}\n{sample}\n[[credential]]\n{CREDENTIAL}")
            .replace("origins = [\"app.example\"]", "origins = [\"app.example.com\"]");
        let (_, mistakes) =
            EdgeConfig::parse("edge.toml", &text, 0).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
        assert_eq!(mistakes.lines().count(), 0, "{text}\n{mistakes}");
    }
}
