//! `ptth doctor`: what this host, a configuration and a running edge lack, each with what was seen, why it matters and how to
//! mend it. The rules over what the kernel tells are in `host`, those over a configuration in `config`; nothing is changed.

mod config;
mod host;

use super::admin::{self, AdminArgument, Proof};
use super::{Stop, check, print};
use crate::edge::report::Report;
use crate::settings::plain;
use config::Threads;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    /// It runs; it could run better.
    Advice,
    /// It does not run, or stops or refuses where it should not.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    about: String,
    grade: Grade,
    saw: String,
    /// These two only where something is not good.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

impl Finding {
    fn good(about: &str, saw: impl Into<String>) -> Finding {
        Finding::new(about, Grade::Good, saw.into(), String::new(), String::new())
    }

    fn advice(about: &str, saw: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding::new(about, Grade::Advice, saw.into(), why.into(), mend.into())
    }

    fn wrong(about: &str, saw: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding::new(about, Grade::Wrong, saw.into(), why.into(), mend.into())
    }

    fn new(about: &str, grade: Grade, saw: String, why: String, mend: String) -> Finding {
        // Names of files and of others' processes are in it.
        let line = |text: String| plain(&text, 1_000);
        Finding { about: plain(about, 100), grade, saw: line(saw), why: line(why), mend: line(mend) }
    }
}

/// What is looked at.
pub(super) struct Asked {
    pub config: Option<PathBuf>,
    pub admin: Option<String>,
    pub proof: Proof,
    pub json: bool,
}

/// Exit code 1 where something is wrong; what it is has been printed by then.
pub(super) fn doctor(asked: &Asked) -> Result<(), Stop> {
    let mut findings = Vec::new();
    let (mistakes, kind) = match &asked.config {
        Some(file) => check::look(file),
        None => (Vec::new(), check::Kind::Unknown),
    };
    let mut edge = None;
    if let Some(address) = &asked.admin {
        match running(address, &asked.proof) {
            Ok(report) => edge = Some(report),
            Err(Stop::Usage(lines)) => return Err(Stop::Usage(lines)),
            Err(stop) => findings.push(config::no_edge(address, &stop)),
        }
    } else if let check::Kind::Edge(config) = &kind {
        // Nobody said that one runs, so it is no finding that none does.
        edge = config.admin.and_then(|address| running(&address.to_string(), &asked.proof).ok());
    }
    let process = edge.as_ref().map(|report| report.pid).filter(|pid| host::is_edge(Path::new("/"), *pid));
    let threads = match &kind {
        check::Kind::Edge(config) => Threads::of_edge(&config.cores),
        check::Kind::Worker(_) => Threads::OfWorker,
        check::Kind::Unknown => Threads::of_all(),
    };
    findings.extend(host::look(Path::new("/"), process, &threads));
    let takes = host::takes_io_uring();
    let has_ring = takes.is_ok();
    findings.insert(0, host::io_uring(takes, Path::new("/")));
    if let Some(file) = &asked.config {
        findings.extend(config::of_mistakes(file, &mistakes));
    }
    match &kind {
        check::Kind::Edge(config) => findings.extend(config::of_edge(config, edge.as_ref())),
        check::Kind::Worker(services) => findings.extend(config::of_worker(services, has_ring)),
        check::Kind::Unknown => {}
    }
    if let Some(report) = &edge {
        findings.extend(config::of_report(report));
    }
    print(&if asked.json { as_json(&findings) } else { as_text(&findings) })?;
    if findings.iter().any(|finding| finding.grade == Grade::Wrong) { Err(Stop::Told) } else { Ok(()) }
}

fn running(address: &str, proof: &Proof) -> Result<Report, Stop> {
    let body = admin::ask(&AdminArgument::new(address, proof.clone()), "GET", "/status")?;
    serde_json::from_slice(&body).map_err(|_| Stop::Failure("the answer is not an edge's status".into()))
}

fn count(findings: &[Finding], grade: Grade) -> usize {
    findings.iter().filter(|finding| finding.grade == grade).count()
}

/// What is wrong comes last, where a terminal shows it.
fn as_text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.grade);
    let mut out = String::new();
    for Finding { about, grade, saw, why, mend } in sorted {
        let mark = match grade {
            Grade::Good => "ok    ",
            Grade::Advice => "advice",
            Grade::Wrong => "WRONG ",
        };
        let _ = writeln!(out, "{mark}  {about}: {saw}");
        if *grade != Grade::Good {
            let _ = writeln!(out, "          why:  {why}\n          mend: {mend}");
        }
    }
    let (wrong, advice) = (count(findings, Grade::Wrong), count(findings, Grade::Advice));
    let better = if advice == 1 { "1 thing could be better" } else { &format!("{advice} things could be better") };
    let _ = match wrong {
        0 => writeln!(out, "\nNothing is wrong; {better}."),
        wrong => writeln!(out, "\n{wrong} wrong; {better}."),
    };
    out
}

fn as_json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        wrong: usize,
        advice: usize,
        findings: &'a [Finding],
    }
    let all = All { wrong: count(findings, Grade::Wrong), advice: count(findings, Grade::Advice), findings };
    serde_json::to_string_pretty(&all).expect("plain values") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_last_and_counted() {
        let findings = [
            Finding::wrong("a", "seen", "because", "do this"),
            Finding::good("b\u{1b}[31m", "fine"),
            Finding::advice("c", "seen", "because", "do that"),
        ];
        let text = as_text(&findings);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ok      b") && !lines[0].contains('\u{1b}'), "{text}");
        assert_eq!(lines[1..4], ["advice  c: seen", "          why:  because", "          mend: do that"]);
        assert_eq!(lines[4], "WRONG   a: seen");
        assert_eq!(*lines.last().unwrap(), "1 wrong; 1 thing could be better.");
        let json: serde_json::Value = serde_json::from_str(&as_json(&findings)).unwrap();
        assert_eq!((&json["wrong"], &json["advice"]), (&1.into(), &1.into()));
        assert_eq!(json["findings"][0]["grade"], "wrong");
        assert_eq!(json["findings"][1].get("why"), None);
    }
}
