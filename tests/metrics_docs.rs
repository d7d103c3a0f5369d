//! docs/metrics.md is what a running edge exports: every family with its type, labels, unit and sentence, and no other.

mod common;
mod pages;

use std::collections::{BTreeMap, BTreeSet};

use common::tls::{Authority, Files};
use common::{HOST, get, setting};

const PAGE: &str = "docs/metrics.md";
const HEADER: &str = "| name | type | labels | unit | what it tells |";

/// Type, labels, unit and sentence of a family.
type Told = (String, BTreeSet<String>, String, String);

/// As the text format 0.0.4 has them. Families without a series have no labels to show: there is none.
fn exported(text: &str) -> BTreeMap<String, Told> {
    let mut families: BTreeMap<String, Told> = BTreeMap::new();
    let mut with_series = BTreeSet::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().3 = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = families.get_mut(name).expect("HELP comes first");
            (family.0, family.2) = (kind.to_owned(), unit(name).to_owned());
        } else {
            let name = line.split(['{', ' ']).next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|tail| name.strip_suffix(tail));
            let name = base.filter(|base| families.contains_key(*base)).unwrap_or(name);
            let family = families.get_mut(name).unwrap_or_else(|| panic!("{name} has no HELP"));
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').expect(line).0);
            // No value here has a quotation mark or a comma in it.
            let keys = labels.split(',').filter_map(|label| label.split_once('=')).map(|(key, _)| key.to_owned());
            family.1.extend(keys.filter(|key| key != "le"));
            with_series.insert(name.to_owned());
        }
    }
    let without: Vec<_> = families.keys().filter(|name| !with_series.contains(*name)).collect();
    assert!(without.is_empty(), "nothing happened here that would show {without:?}");
    families
}

fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or("1")
}

fn listed() -> BTreeMap<String, Told> {
    let bare = |text: &str| text.trim_matches('`').to_owned();
    let rows = pages::rows(&pages::read(PAGE), HEADER).into_iter().map(|row| {
        let [name, kind, labels, unit, help] = row.cells.as_slice() else { panic!("{:?}", row.cells) };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(bare).collect();
        (bare(name), (kind.clone(), labels, unit.clone(), help.clone()))
    });
    let rows: Vec<_> = rows.collect();
    let count = rows.len();
    let listed: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(listed.len(), count, "a name stands twice");
    listed
}

#[test]
fn the_page_is_what_an_edge_exports() {
    let (authority, files) = (Authority::new(), Files::new());
    files.issue(&authority, "edge", &[HOST]);
    let tls = format!("[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]\ntls = {}", files.entry("edge"));
    let edge = setting().more(&tls).start();
    let mut client = edge.sent(get("/waits"));
    edge.until_queued(1);
    let mut link = edge.h1_link();
    link.serve("");
    assert_eq!(client.response().status(), 200);
    // Ticks are seen while there are timers.
    edge.until(|status| status["cores"][0]["lag"]["count"].as_u64() > Some(0));
    let (exported, listed) = (exported(edge.admin_get("/metrics").text()), listed());
    let row = |(name, (kind, labels, unit, help)): (&String, &Told)| {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {unit} | {help} |", labels.join(", "))
    };
    let missing: Vec<String> =
        exported.iter().filter(|(name, told)| listed.get(*name) != Some(told)).map(row).collect();
    assert!(missing.is_empty(), "the page lacks, or tells otherwise:\n{}", missing.join("\n"));
    let too_many: Vec<_> = listed.keys().filter(|name| !exported.contains_key(*name)).collect();
    assert!(too_many.is_empty(), "no edge exports {too_many:?}");
}
