//! What an edge thinks is wrong with itself, worst first, for its page, `/status` and `ptth status`. Everything that is judged
//! stands in a [`Report`]; nothing is measured here, and nobody is asked.

use serde::{Deserialize, Serialize};

use crate::edge::report::{Amount, LinkReport, PoolReport, Report};
use crate::limits::{CERTIFICATE_EXPIRY_WARNING_S, MEMORY_TIGHT_PERCENT};

/// One thing, in a sentence for whoever runs the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    pub grade: Grade,
    /// `pool app`, `worker web-1`.
    pub about: String,
    pub text: String,
}

/// In this order they are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Requests fail or wait for it now.
    Bad,
    /// It may come to that.
    Warn,
    #[default]
    Note,
}

/// Percent of a bound from which it is near.
const NEAR_PERCENT: u64 = 90;
/// Requests of a worker that are not answered for so long are worth a look; some work takes that long.
const SILENT_S: u64 = 30;
/// So many times as long as half of the others of its pool, and not shorter than this, is slow.
const SLOW_TIMES: f64 = 4.0;
const SLOW_MS: f64 = 100.0;
/// More than this part of a pool's answers are 5xx.
const FAILED_PERCENT: f64 = 5.0;
/// A queue that grew by less is no trend.
const GROWTH_MIN: i64 = 10;

/// `silent_cores`: those that did not answer when the report was made.
#[must_use]
pub fn findings(report: &Report, silent_cores: usize, now_unix: u64) -> Vec<Finding> {
    let mut found = Found(Vec::new());
    if silent_cores > 0 {
        found.bad("edge", format!("{silent_cores} cores do not answer"));
    }
    for pool in &report.pools {
        of_pool(pool, &mut found);
    }
    of_links(report, &mut found);
    of_bounds(report, &mut found);
    of_certificates(report, now_unix, &mut found);
    of_refusals(report, &mut found);
    let panics: u64 = report.cores.iter().map(|core| core.panics).sum();
    if panics > 0 {
        let text = format!("{panics} connections ended by a defect of the edge since the start; the log has where");
        found.warn("edge", text);
    }
    if report.draining {
        found.note("edge", "drains: it takes nothing new, and ends when what runs is done".to_owned());
    }
    found.0.sort_by_key(|finding| finding.grade); // stable: else in the order of the report
    found.0
}

struct Found(Vec<Finding>);

impl Found {
    fn bad(&mut self, about: &str, text: String) {
        self.0.push(Finding { grade: Grade::Bad, about: about.to_owned(), text });
    }

    fn warn(&mut self, about: &str, text: String) {
        self.0.push(Finding { grade: Grade::Warn, about: about.to_owned(), text });
    }

    fn note(&mut self, about: &str, text: String) {
        self.0.push(Finding { grade: Grade::Note, about: about.to_owned(), text });
    }
}

fn of_pool(pool: &PoolReport, found: &mut Found) {
    let about = format!("pool {}", pool.name);
    let queued = pool.queued;
    match pool.links {
        0 if queued > 0 => found.bad(&about, format!("no worker is linked, and {} {queued}", wait(queued))),
        0 => found.warn(&about, "no worker is linked".to_owned()),
        _ if queued > 0 && pool.credits + pool.in_flight == 0 => {
            found.bad(&about, format!("its workers take nothing, and {} {queued}", wait(queued)));
        }
        _ => {}
    }
    let bound = pool.queue_requests_max;
    if bound > 0 && queued * 100 >= bound * NEAR_PERCENT {
        found.bad(&about, format!("its queue is full, or nearly: {queued} of {bound} requests"));
    }
    let growth = pool.lately.growth;
    if queued > 0 && growth >= GROWTH_MIN && growth.unsigned_abs() * 5 >= queued {
        let text = format!("its queue grew by {growth} to {queued} in half a minute: more comes than its workers take");
        found.warn(&about, text);
    }
    let (failed, answered) = (pool.lately.failed_per_second, pool.lately.answered_per_second);
    if failed * 100.0 > answered * FAILED_PERCENT && failed >= 0.1 {
        found.warn(
            &about,
            format!("{:.0} % of its answers are 5xx, {failed:.1} in a second", failed / answered * 100.0),
        );
    }
}

fn wait(queued: u64) -> &'static str {
    if queued == 1 { "a request waits:" } else { "requests wait:" }
}

fn of_links(report: &Report, found: &mut Found) {
    for link in &report.links {
        let about = format!("worker {}", link.worker);
        let named = |link: &LinkReport| match link.worker_id.as_str() {
            "" => format!("link {}", link.id),
            name => format!("{name}, link {}", link.id),
        };
        let (seconds, in_flight) = (link.silent_seconds, link.in_flight);
        if link.mute {
            let text =
                format!("{}: it answers nothing, for {seconds} s of requests; others are asked first", named(link));
            found.bad(&about, text);
        } else if seconds >= SILENT_S {
            found.warn(&about, format!("{}: none of {in_flight} requests is answered for {seconds} s", named(link)));
        } else if let Some((own, others)) = slower(link, report) {
            let text = format!("{}: it takes {own:.0} ms for a request, where others take {others:.0} ms", named(link));
            found.warn(&about, text);
        }
    }
}

/// How long it takes, and what is usual among the other links of its pools, where that is far less.
fn slower(link: &LinkReport, report: &Report) -> Option<(f64, f64)> {
    let own = link.answer_ms.filter(|own| *own >= SLOW_MS)?;
    let is_like = |other: &&LinkReport| other.id != link.id && other.pools == link.pools;
    let mut others: Vec<f64> = report.links.iter().filter(is_like).filter_map(|other| other.answer_ms).collect();
    others.sort_unstable_by(f64::total_cmp);
    let middle = *others.get(others.len() / 2)?;
    (own > middle * SLOW_TIMES).then_some((own, middle))
}

fn of_bounds(report: &Report, found: &mut Found) {
    let limits = &report.limits;
    let mib = |bytes: u64| bytes >> 20;
    let (held, bound) = (limits.resident_bytes, limits.memory_max_bytes);
    if bound > 0 && held * 100 >= bound * MEMORY_TIGHT_PERCENT {
        let text = format!("{} of {} MiB are used: requests are refused", mib(held), mib(bound));
        found.bad("memory", text);
    } else if bound > 0 && held * 100 >= bound * (NEAR_PERCENT - 5) {
        found.warn("memory", format!("{} of {} MiB are used", mib(held), mib(bound)));
    }
    let near = |used: u64, bound: u64| bound > 0 && used * 100 >= bound * NEAR_PERCENT;
    if near(limits.connections, limits.connections_max) {
        let text = format!(
            "{} of {} connections of clients are open; then they wait",
            limits.connections, limits.connections_max
        );
        found.warn("connections", text);
    }
    let process = &report.process;
    if near(process.open_fds, process.max_fds) {
        found.warn("descriptors", format!("{} of {} are used; raise ulimit -n", process.open_fds, process.max_fds));
    }
}

fn of_certificates(report: &Report, now_unix: u64, found: &mut Found) {
    for certificate in &report.certificates {
        let about = format!("certificate {}", certificate.file);
        let left_s = certificate.not_after_unix.saturating_sub(now_unix);
        if left_s == 0 {
            found.bad(&about, "has expired: clients refuse it; renew it and send SIGHUP".to_owned());
        } else if left_s < CERTIFICATE_EXPIRY_WARNING_S.unsigned_abs() {
            found.warn(&about, format!("expires in {} days; renew it and send SIGHUP", left_s / 86_400));
        }
    }
}

/// What clients do wrong is no trouble of the edge's.
const BY_CLIENTS: &[&str] = &[
    "client_malformed",
    "line_too_long",
    "head_too_large",
    "head_timeout",
    "body_timeout",
    "body_too_slow",
    "unknown_coding",
    "unknown_version",
    "method_refused",
    "unknown_expectation",
    "no_pool",
    "misdirected",
    "would_wait_too_long",
];

fn of_refusals(report: &Report, found: &mut Found) {
    let by_edge = report.lately.refusals.iter().filter(|(reason, _)| !BY_CLIENTS.contains(&reason.as_str()));
    let by_edge: Vec<String> = by_edge.map(|(reason, n)| format!("{} {n}", reason.replace('_', " "))).collect();
    if !by_edge.is_empty() {
        found.warn("requests", format!("refused in the last half minute: {}", by_edge.join(", ")));
    }
    let backoffs = matches!(report.counters.get("accept_backoffs"), Some(Amount::Count(1..)));
    if backoffs {
        found.note("descriptors", "have run out at least once since the start".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::report::CertificateReport;

    fn fine() -> Report {
        let link = |id: &str, answer_ms| LinkReport {
            id: id.into(),
            worker: "web-1".into(),
            pools: vec!["app".into()],
            credits: 4,
            answer_ms: Some(answer_ms),
            ..LinkReport::default()
        };
        let pool =
            PoolReport { name: "app".into(), links: 3, credits: 12, queue_requests_max: 100, ..PoolReport::default() };
        Report {
            pools: vec![pool],
            links: vec![link("0-1", 10.0), link("0-2", 12.0), link("0-3", 11.0)],
            certificates: vec![CertificateReport { file: "edge.pem".into(), not_after_unix: 100 * 86_400 }],
            ..Report::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Report), want: &[(Grade, &str, &str)]) {
        let mut report = fine();
        change(&mut report);
        let found = findings(&report, 0, 0);
        let told: Vec<_> = found.iter().map(|f| (f.grade, f.about.as_str(), f.text.as_str())).collect();
        assert_eq!(told.len(), want.len(), "{told:?}");
        for ((grade, about, text), (wanted, of, what)) in told.iter().zip(want) {
            assert!(grade == wanted && about == of && text.contains(what), "{told:?}");
        }
    }

    #[test]
    fn a_healthy_edge_has_nothing_to_tell() {
        check(|_| {}, &[]);
        check(|report| report.pools[0].queued = 50, &[]);
    }

    #[test]
    fn what_is_wrong_is_found_and_the_worst_comes_first() {
        use Grade::{Bad, Note, Warn};
        let pool = "pool app";
        check(|r| r.pools[0].links = 0, &[(Warn, pool, "no worker")]);
        check(|r| (r.pools[0].links, r.pools[0].queued) = (0, 3), &[(Bad, pool, "requests wait: 3")]);
        check(|r| (r.pools[0].credits, r.pools[0].queued) = (0, 3), &[(Bad, pool, "take nothing")]);
        check(|r| r.pools[0].queued = 90, &[(Bad, pool, "90 of 100")]);
        check(|r| (r.pools[0].queued, r.pools[0].lately.growth) = (40, 30), &[(Warn, pool, "grew by 30 to 40")]);
        check(|r| (r.pools[0].queued, r.pools[0].lately.growth) = (80, 12), &[]);
        let failing = |r: &mut Report| {
            (r.pools[0].lately.failed_per_second, r.pools[0].lately.answered_per_second) = (2.0, 10.0);
        };
        check(failing, &[(Warn, pool, "20 % of its answers")]);
        check(
            |r| (r.links[0].mute, r.links[0].silent_seconds) = (true, 61),
            &[(Bad, "worker web-1", "link 0-1: it answers nothing")],
        );
        check(
            |r| (r.links[0].in_flight, r.links[0].silent_seconds) = (2, 31),
            &[(Warn, "worker web-1", "none of 2 requests")],
        );
        check(
            |r| r.links[0].answer_ms = Some(400.0),
            &[(Warn, "worker web-1", "400 ms for a request, where others take 12 ms")],
        );
        check(|r| r.links[0].answer_ms = Some(99.0), &[]);
        check(|r| (r.limits.resident_bytes, r.limits.memory_max_bytes) = (96, 100), &[(Bad, "memory", "refused")]);
        check(|r| (r.limits.resident_bytes, r.limits.memory_max_bytes) = (86, 100), &[(Warn, "memory", "are used")]);
        check(|r| (r.limits.connections, r.limits.connections_max) = (9, 10), &[(Warn, "connections", "9 of 10")]);
        check(|r| (r.process.open_fds, r.process.max_fds) = (95, 100), &[(Warn, "descriptors", "95 of 100")]);
        check(|r| r.certificates[0].not_after_unix = 0, &[(Bad, "certificate edge.pem", "has expired")]);
        check(|r| r.certificates[0].not_after_unix = 3 * 86_400, &[(Warn, "certificate edge.pem", "in 3 days")]);
        let refusing = |r: &mut Report| {
            r.lately.refusals = [("queue_full".into(), 7), ("no_pool".into(), 9)].into();
            r.draining = true;
            r.pools[0].queued = 95;
        };
        check(refusing, &[(Bad, pool, "95 of 100"), (Warn, "requests", "queue full 7"), (Note, "edge", "drains")]);
        assert_eq!(findings(&fine(), 2, 0)[0].text, "2 cores do not answer");
    }
}
