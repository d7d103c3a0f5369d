//! `ptth status` and `ptth drain`: an edge's report as aligned tables. How it is fetched never enters.

use super::Stop;
use super::admin::{self, AdminArgument};
use crate::clock;
use crate::edge::admin::findings::{Finding, Grade};
use crate::edge::report::{Amount, HistogramReport, LeavingReport, LinkReport, PoolReport, Report};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The tables, or the JSON as the edge sent it.
pub(super) fn status(admin: &AdminArgument, json: bool) -> Result<String, Stop> {
    let body = admin::ask(admin, "GET", "/status")?;
    let report = read(&body)?;
    if !json {
        return Ok(tables(&report, clock::unix_seconds()));
    }
    let mut text = String::from_utf8(body).map_err(|_| Stop::Failure("the answer is not UTF-8".into()))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// What the edge says of itself.
pub(super) fn report(admin: &AdminArgument) -> Result<Report, Stop> {
    read(&admin::ask(admin, "GET", "/status")?)
}

fn read(body: &[u8]) -> Result<Report, Stop> {
    serde_json::from_slice(body)
        .map_err(|_| Stop::Failure("the answer is not an edge's status; is it the [admin] address?".into()))
}

/// What to say when the edge has taken the order.
pub(super) fn drain(admin: &AdminArgument) -> Result<String, Stop> {
    admin::ask(admin, "POST", "/drain")?;
    Ok("the edge takes no new work; it exits when what runs is done\n".into())
}

fn tables(report: &Report, now_unix: u64) -> String {
    let draining = if report.draining { ", draining" } else { "" };
    let mut out = format!("ptth {}, up {}{draining}\n", visible(&report.version), duration(report.uptime_seconds));
    for leaving in &report.leaving {
        let LeavingReport { generation, connections, links, queued, in_flight } = leaving;
        let _ = writeln!(
            out,
            "configuration {generation} leaves: {connections} connections, {links} links, {queued} queued, {in_flight} in flight"
        );
    }
    if !report.findings.is_empty() {
        out.push('\n');
    }
    for Finding { grade, about, text } in &report.findings {
        let mark = match grade {
            Grade::Bad => "BAD   ",
            Grade::Warn => "WARN  ",
            Grade::Note => "note  ",
        };
        let _ = writeln!(out, "{mark}{}: {}", visible(about), longer(text));
    }
    let mut pools =
        Table::new(&["POOL", "QUEUED", "BYTES", "LINKS", "CREDITS", "IN FLIGHT", "WAIT P50", "WAIT P99"], 1);
    for pool in &report.pools {
        pools.row(vec![
            visible(&pool.name),
            pool.queued.to_string(),
            bytes(pool.queued_bytes),
            pool.links.to_string(),
            pool.credits.to_string(),
            pool.in_flight.to_string(),
            wait(pool, 0.5),
            wait(pool, 0.99),
        ]);
    }
    let mut links = Table::new(
        &[
            "LINK",
            "WORKER",
            "ID",
            "LABELS",
            "ADDRESS",
            "PROTOCOL",
            "POOLS",
            "CORE",
            "CREDITS",
            "IN FLIGHT",
            "SILENT",
            "UP",
        ],
        7,
    );
    for link in &report.links {
        links.row(vec![
            visible(&link.id),
            visible(&link.worker),
            visible(if link.worker_id.is_empty() { "-" } else { &link.worker_id }),
            visible(&labels(&link.labels)),
            visible(&link.address),
            visible(&link.protocol),
            visible(&link.pools.join(",")),
            link.core.to_string(),
            link.credits.to_string(),
            link.in_flight.to_string(),
            silence(link),
            duration(now_unix.saturating_sub(link.since_unix)),
        ]);
    }
    let mut cores = Table::new(&["CORE", "CPU", "CONNECTIONS", "PANICS"], 0);
    for core in &report.cores {
        let cpu = core.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
        cores.row(vec![core.core.to_string(), cpu, core.connections.to_string(), core.panics.to_string()]);
    }
    for table in [pools, links, cores] {
        out.push('\n');
        table.write(&mut out);
    }
    out
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    let shown: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if shown.is_empty() { "-".into() } else { shown.join(",") }
}

/// Waiting times since the start, as the histogram knows them: at most this.
fn wait(pool: &PoolReport, share: f64) -> String {
    let Some(Amount::Histograms(waits)) = pool.counters.get("queue_wait") else { return "-".into() };
    let Some(waits) = HistogramReport::sum(waits) else { return "-".into() };
    match waits.quantile_seconds(share) {
        Some(seconds) if seconds < 1.0 => format!("≤{:.1}ms", seconds * 1e3),
        Some(seconds) => format!("≤{seconds:.1}s"),
        None if waits.count == 0 => "-".into(),
        None => ">1m".into(),
    }
}

/// Whether its worker answers.
fn silence(link: &LinkReport) -> String {
    match (link.silent_seconds, link.mute) {
        (0, false) => "-".to_owned(),
        (seconds, false) => duration(seconds),
        (seconds, true) => format!("{}, last", duration(seconds)),
    }
}

pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3_600 => format!("{}m{:02}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        s => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        b if b < 1 << 10 => format!("{b}B"),
        b if b < 1 << 20 => format!("{}KiB", b >> 10),
        b if b < 1 << 30 => format!("{}MiB", b >> 20),
        b => format!("{}GiB", b >> 30),
    }
}

/// Text from the network on a terminal: no control characters, no endless names.
pub(super) fn visible(text: &str) -> String {
    let mut out: String = text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

/// As [`visible`], for a sentence.
pub(super) fn longer(text: &str) -> String {
    crate::settings::plain(text, 400)
}

/// Columns as wide as their widest cell: the first `left` of them to the left, numbers to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    pub(super) fn new(head: &[&str], left: usize) -> Table {
        Table { rows: vec![head.iter().map(|&title| title.to_owned()).collect()], left }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each title");
        self.rows.push(cells);
    }

    pub(super) fn write(&self, out: &mut String) {
        let widest = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.rows[0].len()).map(widest).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column < self.left {
                    true => write!(line, "{cell:<width$}  "),
                    false => write!(line, "{cell:>width$}  "),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if self.rows.len() == 1 {
            out.push_str("(none)\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::report::CoreReport;

    #[test]
    fn the_tables_are_aligned() {
        let pool =
            |name: &str, queued| PoolReport { name: name.into(), queued, queued_bytes: 2048, ..Default::default() };
        let report = Report {
            version: "1.2.3".into(),
            uptime_seconds: 3_725,
            pools: vec![pool("app", 12_345), pool("a-longer-name", 0)],
            links: vec![LinkReport {
                id: "0-1".into(),
                worker: "web-1\u{1b}[2J".into(),
                worker_id: "host-1".into(),
                labels: [("rack".into(), "7".into()), ("zone".into(), "a".into())].into(),
                address: "192.0.2.1:4000".into(),
                protocol: "h2".into(),
                pools: vec!["app".into(), "api".into()],
                credits: 60,
                in_flight: 4,
                since_unix: 1_000,
                mute: true,
                silent_seconds: 61,
                answer_ms: None,
                core: 0,
            }],
            cores: vec![CoreReport { cpu: Some(3), ..Default::default() }],
            findings: vec![Finding { grade: Grade::Bad, about: "pool app".into(), text: "no\u{1b} worker".into() }],
            leaving: vec![LeavingReport { generation: 2, connections: 5, links: 1, queued: 0, in_flight: 3 }],
            ..Default::default()
        };
        let want = "\
ptth 1.2.3, up 1h02m
configuration 2 leaves: 5 connections, 1 links, 0 queued, 3 in flight

BAD   pool app: no\\u{1b} worker

POOL           QUEUED  BYTES  LINKS  CREDITS  IN FLIGHT  WAIT P50  WAIT P99
app             12345   2KiB      0        0          0         -         -
a-longer-name       0   2KiB      0        0          0         -         -

LINK  WORKER     ID      LABELS         ADDRESS         PROTOCOL  POOLS    CORE  CREDITS  IN FLIGHT       SILENT     UP
0-1   web-1?[2J  host-1  rack=7,zone=a  192.0.2.1:4000  h2        app,api     0       60          4  1m01s, last  1m00s

CORE  CPU  CONNECTIONS  PANICS
   0    3            0       0
";
        assert_eq!(tables(&report, 1_060), want);
    }

    #[test]
    fn an_empty_edge_has_empty_tables() {
        let text = tables(&Report::default(), 0);
        assert_eq!(text.matches("(none)").count(), 3, "{text}");
    }
}
