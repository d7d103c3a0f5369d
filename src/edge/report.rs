//! What an edge says about itself: the JSON of `/status`, from which `super::metrics` makes the text of `/metrics`. Nothing is
//! measured here.

use super::admin::findings::Finding;
use super::metrics::{self, RELOADS, UNROUTED};
use super::process::ProcessReport;
use crate::events::{Counted as _, Counters, Durations, Reading, Reload, Tally};
use crate::ids::{Class, CoreId, LinkId, PoolId};
use crate::wire::About;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The whole edge at one moment. Unknown fields are skipped when it is read, so that an older `ptth status` can read a
/// newer edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub version: String,
    /// The process that answers.
    pub pid: u32,
    pub uptime_seconds: u64,
    pub draining: bool,
    /// The number of the configuration that is in force: 1 at the start, and one more with each reload that took over.
    pub generation: u64,
    /// Those from before that still finish what they began, oldest first.
    pub leaving: Vec<LeavingReport>,
    /// What is held against `[limits]`.
    pub limits: LimitsReport,
    pub process: ProcessReport,
    /// Those that the edge shows, in the order of the configuration.
    pub certificates: Vec<CertificateReport>,
    pub cores: Vec<CoreReport>,
    /// In the order of the configuration; behind them those that only a generation from before has.
    pub pools: Vec<PoolReport>,
    pub links: Vec<LinkReport>,
    /// As many as there are, where `links` is only some of them.
    pub links_total: u64,
    /// All cores together, by `Family::field`.
    pub counters: BTreeMap<String, Amount>,
    pub lately: Lately,
    /// What the edge thinks is wrong, worst first.
    pub findings: Vec<Finding>,
}

/// What happened in the last half minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lately {
    /// Requests that the edge answered itself, by reason; those that happened.
    pub refusals: BTreeMap<String, u64>,
}

/// What a pool did in the last half minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolLately {
    pub dispatched_per_second: f64,
    pub answered_per_second: f64,
    /// Of those, the ones with 5xx.
    pub failed_per_second: f64,
    /// How many more wait now than then.
    pub growth: i64,
    /// The longest of all classes in the last second that had any, by buckets each twice as wide. `None`: nothing was sent.
    pub wait_p50_us: Option<u32>,
    pub wait_p99_us: Option<u32>,
}

/// What the whole edge holds, and may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsReport {
    /// Of clients, and of workers until their setup is accepted.
    pub connections: u64,
    pub connections_max: u64,
    /// 0 where nobody watches it.
    pub resident_bytes: u64,
    /// 0: no bound.
    pub memory_max_bytes: u64,
}

/// A certificate of the edge's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateReport {
    pub file: String,
    pub not_after_unix: u64,
}

/// A generation that a reload has replaced, and that has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeavingReport {
    pub generation: u64,
    /// Of clients.
    pub connections: u64,
    pub links: u64,
    pub queued: u64,
    pub in_flight: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreReport {
    pub core: u16,
    /// The CPU that the thread is pinned to.
    pub cpu: Option<u16>,
    /// Client connections that are open.
    pub connections: u64,
    pub panics: u64,
    /// CPU time of its thread.
    pub busy_seconds: f64,
    /// How late its loop saw the ticks of its timers.
    pub lag: HistogramReport,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolReport {
    pub name: String,
    pub queued: u64,
    /// The most urgent class first.
    pub queued_by_class: Vec<u64>,
    pub queued_bytes: u64,
    /// `queue.requests_max`; 0 for a pool that only a configuration from before has.
    pub queue_requests_max: u64,
    pub links: u64,
    /// Requests that the links would take now.
    pub credits: u64,
    pub in_flight: u64,
    pub lately: PoolLately,
    /// How long a request is with a worker, as of late; 0: nobody knows yet.
    pub service_seconds: f64,
    /// How long one of the least urgent class that came now would wait, should all links be busy; 0: nobody knows.
    pub wait_seconds: f64,
    pub cores: Vec<PoolCoreReport>,
    /// All cores together, by `Family::field`.
    pub counters: BTreeMap<String, Amount>,
}

/// A pool's share on one core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolCoreReport {
    pub core: u16,
    pub links: u64,
    pub credits: u64,
    pub in_flight: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkReport {
    /// Core and number: `2-17`; `1/2-17` is one of generation 1, which leaves.
    pub id: String,
    /// The id of its credential.
    pub worker: String,
    /// What it calls itself; empty if it does not.
    pub worker_id: String,
    pub labels: BTreeMap<String, String>,
    pub address: String,
    pub core: u16,
    /// `h2` or `http/1.1`.
    pub protocol: String,
    pub pools: Vec<String>,
    pub credits: u64,
    pub in_flight: u64,
    pub since_unix: u64,
    /// Its worker has answered nothing for as long as a pool of its waits: requests go there last, one at a time.
    pub mute: bool,
    /// For how long it has had requests and answered none; 0 where it answers.
    pub silent_seconds: u64,
    /// How long a request is with the worker, over some ten seconds; `None`: none has ended lately.
    pub answer_ms: Option<f64>,
}

/// A counter in JSON: a number, seconds, histograms with their labels, or numbers by a label's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    Count(u64),
    Seconds(f64),
    Histograms(Vec<HistogramReport>),
    By(BTreeMap<String, u64>),
    /// By class, and then by a label's value.
    Classes(BTreeMap<String, BTreeMap<String, u64>>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramReport {
    pub labels: BTreeMap<String, String>,
    pub count: u64,
    pub sum_seconds: f64,
    /// Upper bound in seconds, and how many were at most so long (cumulative, as Prometheus has it).
    pub buckets: Vec<(f64, u64)>,
}

impl HistogramReport {
    /// All of them as one, without labels; `None` when there are none.
    #[must_use]
    pub fn sum(histograms: &[HistogramReport]) -> Option<HistogramReport> {
        let (first, others) = histograms.split_first()?;
        let mut sum = HistogramReport { labels: BTreeMap::new(), ..first.clone() };
        for other in others {
            sum.count += other.count;
            sum.sum_seconds += other.sum_seconds;
            sum.buckets.iter_mut().zip(&other.buckets).for_each(|(own, other)| own.1 += other.1);
        }
        Some(sum)
    }

    /// The bound below which `share` (0 to 1) of all lie; `None` when there are none, or it is above every bound.
    #[must_use]
    pub fn quantile_seconds(&self, share: f64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // beyond 2^53 requests a quantile may be off by one
        let wanted = self.count as f64 * share;
        #[allow(clippy::cast_precision_loss)]
        let reached = |count: u64| count as f64 >= wanted;
        if self.count == 0 {
            return None;
        }
        self.buckets.iter().find(|(_, count)| reached(*count)).map(|(bound, _)| *bound)
    }
}

/// What one core contributes, in its own terms.
#[derive(Clone, Debug)]
pub struct CorePart {
    pub generation: u64,
    pub core: CoreId,
    pub cpu: Option<u16>,
    pub connections: u64,
    /// CPU time of its thread.
    pub busy_ns: u64,
    pub lag: Durations,
    /// What is the process's, told by one core of each generation.
    pub process: Option<ProcessReport>,
    pub certificates: Vec<CertificateReport>,
    pub counters: Counters,
    /// Indexed by pool.
    pub pools: Vec<PoolPart>,
    pub links: Vec<LinkPart>,
}

impl CorePart {
    /// The same with other numbers of the pools: pool `n` of these is pool `places[n]` of `pools`.
    #[must_use]
    pub fn renumbered(mut self, places: &[usize], pools: usize) -> CorePart {
        self.counters = self.counters.renumbered(places, pools);
        let own = std::mem::replace(&mut self.pools, vec![PoolPart::default(); pools]);
        for (part, place) in own.into_iter().zip(places) {
            self.pools[*place] = part;
        }
        for pool in self.links.iter_mut().flat_map(|link| &mut link.pools) {
            *pool = PoolId(places[usize::from(pool.0)] as u16);
        }
        self
    }

    /// A core that has ended: nothing is left of it but what it counted.
    #[must_use]
    pub fn ended(generation: u64, core: CoreId, counters: Counters) -> CorePart {
        CorePart {
            generation,
            core,
            cpu: None,
            connections: 0,
            busy_ns: 0,
            lag: Durations::default(),
            process: None,
            certificates: Vec::new(),
            counters,
            pools: Vec::new(),
            links: Vec::new(),
        }
    }

    /// Two generations' parts of one core, as one. The CPU is the later one's.
    fn add(&mut self, other: CorePart) {
        if other.generation > self.generation {
            (self.generation, self.cpu) = (other.generation, other.cpu);
        }
        self.connections += other.connections;
        self.busy_ns += other.busy_ns;
        self.lag.add(&other.lag);
        self.counters.add(&other.counters);
        self.pools.resize(self.pools.len().max(other.pools.len()), PoolPart::default());
        for (own, other) in self.pools.iter_mut().zip(other.pools) {
            own.queued += other.queued;
            own.queued_bytes += other.queued_bytes;
            own.queued_by_class.iter_mut().zip(other.queued_by_class).for_each(|(own, other)| *own += other);
            own.service_ns = own.service_ns.max(other.service_ns);
            own.wait_ns = own.wait_ns.max(other.wait_ns);
            own.links += other.links;
            own.credits += other.credits;
            own.in_flight += other.in_flight;
        }
    }
}

/// One pool on one core. What the cores share (a queue, its bytes) is told by one of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolPart {
    pub queued: u64,
    pub queued_bytes: u64,
    pub links: u64,
    pub credits: u64,
    pub in_flight: u64,
    /// Of this core alone.
    pub queued_by_class: [u64; Class::COUNT],
    /// Of the whole pool, too.
    pub service_ns: u64,
    pub wait_ns: u64,
}

#[derive(Clone, Debug)]
pub struct LinkPart {
    pub id: LinkId,
    pub worker: String,
    pub said: About,
    pub address: SocketAddr,
    /// `h2` or `http/1.1`.
    pub protocol: &'static str,
    pub pools: Vec<PoolId>,
    pub credits: u64,
    pub in_flight: u64,
    pub since_unix: u64,
    pub is_mute: bool,
    /// For how long it has had requests and answered none.
    pub silent_seconds: u64,
}

/// The whole edge, apart from its cores.
#[derive(Clone, Debug)]
pub struct EdgePart<'a> {
    pub uptime_seconds: u64,
    pub draining: bool,
    pub limits: LimitsReport,
    /// Those of the present configuration in its order, then those that only older ones have.
    pub pool_names: &'a [String],
    /// All that live, oldest first; the last one is the present one.
    pub generations: &'a [u64],
    /// What generations that have ended had counted, by `pool_names`.
    pub past: &'a Counters,
    pub reloads: &'a Tally<Reload>,
}

impl Report {
    /// Puts the cores' parts together, those of all generations. The order of `parts` does not matter.
    #[must_use]
    pub fn gather(edge: EdgePart<'_>, mut parts: Vec<CorePart>) -> Report {
        parts.sort_by_key(|part| (part.generation, part.core));
        let mut counters = Counters::new(edge.pool_names.len());
        counters.add(edge.past);
        for part in &parts {
            counters.add(&part.counters);
        }
        let mut whole = BTreeMap::new();
        counters.core.read(|field, reading| {
            whole.insert(field.to_owned(), amount(reading));
        });
        whole.insert(UNROUTED.to_owned(), amount(counters.unrouted.read()));
        whole.insert(RELOADS.field.to_owned(), amount(edge.reloads.read()));
        let (generation, leaving) =
            edge.generations.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        let leaving = leaving.iter().map(|&generation| leaving_report(generation, &parts)).collect();
        let links: Vec<_> = parts.iter().flat_map(|part| link_reports(part, generation, edge.pool_names)).collect();
        let mut cores: Vec<CorePart> = Vec::new();
        let (mut process, mut certificates) = (ProcessReport::default(), Vec::new());
        for mut part in parts {
            // In the order of their generations: the last one's word counts.
            if let Some(own) = part.process.take() {
                (process, certificates) = (own, std::mem::take(&mut part.certificates));
            }
            match cores.iter_mut().find(|own| own.core == part.core) {
                Some(own) => own.add(part),
                None => cores.push(part),
            }
        }
        cores.sort_by_key(|part| part.core);
        let pools = edge.pool_names.iter().enumerate().map(|(index, name)| {
            let mut own = BTreeMap::new();
            counters.pools[index].read(|field, reading| {
                if let Some(classes) = classes(&reading) {
                    own.insert(format!("{field}{BY_CLASS}"), classes);
                }
                own.insert(field.to_owned(), amount(reading));
            });
            pool_report(name, index, &cores, own)
        });
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: edge.uptime_seconds,
            draining: edge.draining,
            generation,
            leaving,
            limits: edge.limits,
            process,
            certificates,
            pools: pools.collect(),
            links_total: links.len() as u64,
            links,
            cores: cores.iter().map(core_report).collect(),
            counters: whole,
            lately: Lately::default(),
            findings: Vec::new(),
        }
    }

    /// Without what is only for machines, and with at most so many links: those that have most to tell.
    #[must_use]
    pub fn brief(mut self, links_max: usize) -> Report {
        let is_brief = |amount: &Amount| !matches!(amount, Amount::Histograms(_));
        self.counters.retain(|_, amount| is_brief(amount));
        self.pools.iter_mut().for_each(|pool| pool.counters.clear());
        self.cores.iter_mut().for_each(|core| core.lag = HistogramReport::default());
        if self.links.len() > links_max {
            self.links.sort_by_key(|link| std::cmp::Reverse((link.mute, link.silent_seconds, link.in_flight)));
            self.links.truncate(links_max);
        }
        self
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn prometheus(&self) -> String {
        metrics::text(self)
    }
}

/// Behind the key of a counter: the same by class.
pub const BY_CLASS: &str = "_by_class";

fn leaving_report(generation: u64, parts: &[CorePart]) -> LeavingReport {
    let mut report = LeavingReport { generation, ..LeavingReport::default() };
    for part in parts.iter().filter(|part| part.generation == generation) {
        report.connections += part.connections;
        report.links += part.links.len() as u64;
        report.queued += part.pools.iter().map(|pool| pool.queued).sum::<u64>();
        report.in_flight += part.links.iter().map(|link| link.in_flight).sum::<u64>();
    }
    report
}

fn core_report(part: &CorePart) -> CoreReport {
    CoreReport {
        core: part.core.0,
        cpu: part.cpu,
        connections: part.connections,
        panics: part.counters.core.connection_panics,
        busy_seconds: seconds(part.busy_ns),
        lag: histogram_report(&[], &part.lag),
    }
}

fn pool_report(name: &str, index: usize, parts: &[CorePart], counters: BTreeMap<String, Amount>) -> PoolReport {
    let queued_by_class = vec![0; Class::COUNT];
    let mut report = PoolReport { name: name.to_owned(), queued_by_class, counters, ..PoolReport::default() };
    for part in parts {
        let Some(own) = part.pools.get(index) else { continue };
        report.queued += own.queued;
        report.queued_bytes += own.queued_bytes;
        report.queued_by_class.iter_mut().zip(own.queued_by_class).for_each(|(sum, own)| *sum += own);
        report.service_seconds = report.service_seconds.max(seconds(own.service_ns));
        report.wait_seconds = report.wait_seconds.max(seconds(own.wait_ns));
        report.links += own.links;
        report.credits += own.credits;
        report.in_flight += own.in_flight;
        let (links, credits, in_flight) = (own.links, own.credits, own.in_flight);
        report.cores.push(PoolCoreReport { core: part.core.0, links, credits, in_flight });
    }
    report
}

fn link_reports<'p>(
    part: &'p CorePart,
    present: u64,
    pool_names: &'p [String],
) -> impl Iterator<Item = LinkReport> + 'p {
    part.links.iter().map(move |link| LinkReport {
        id: match part.generation {
            own if own == present => format!("{}-{}", part.core.0, link.id.0),
            own => format!("{own}/{}-{}", part.core.0, link.id.0),
        },
        worker: link.worker.clone(),
        worker_id: link.said.id.clone().unwrap_or_default(),
        labels: link.said.labels.iter().cloned().collect(),
        address: link.address.to_string(),
        core: part.core.0,
        protocol: link.protocol.to_owned(),
        pools: link.pools.iter().filter_map(|pool| pool_names.get(usize::from(pool.0)).cloned()).collect(),
        credits: link.credits,
        in_flight: link.in_flight,
        since_unix: link.since_unix,
        mute: link.is_mute,
        silent_seconds: link.silent_seconds,
        answer_ms: None,
    })
}

/// A counter that is told by class, too, if there is something to tell.
fn classes(reading: &Reading<'_>) -> Option<Amount> {
    let Reading::Classes { names, rows, .. } = reading else { return None };
    let row = |counts: &[u64]| names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let classes = rows.iter().map(|(class, counts)| ((*class).to_owned(), row(counts)));
    (!rows.is_empty()).then(|| Amount::Classes(classes.collect()))
}

fn amount(reading: Reading<'_>) -> Amount {
    match reading {
        Reading::Count(count) => Amount::Count(count),
        Reading::Tally { names, counts, .. } => {
            Amount::By(names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), *count)).collect())
        }
        Reading::Classes { names, rows, .. } => {
            let sum = |index: usize| rows.iter().map(|(_, counts)| counts[index]).sum();
            Amount::By(names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), sum(index))).collect())
        }
        Reading::Nanoseconds(ns) => Amount::Seconds(seconds(ns)),
        Reading::Histograms(histograms) => Amount::Histograms(
            histograms.iter().map(|(labels, durations)| histogram_report(labels, durations)).collect(),
        ),
    }
}

#[allow(clippy::cast_precision_loss)] // a sum beyond 100 days loses nanoseconds
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn histogram_report(labels: &[(&str, &str)], durations: &Durations) -> HistogramReport {
    HistogramReport {
        labels: labels.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect(),
        count: durations.count(),
        sum_seconds: seconds(durations.sum_ns()),
        buckets: durations.cumulated().iter().map(|(bound_ns, count)| (seconds(*bound_ns), *count)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{AcceptPause, Direction, Dispatch, StatusClass};
    use crate::fault::Fault;
    use std::collections::{BTreeSet, HashMap};

    fn sample() -> Report {
        let names = ["app".to_owned(), "od\"d\\na\nme".to_owned()];
        let part = |core: u16| {
            let mut counters = Counters::new(2);
            counters.core.accepted_connections = 10;
            counters.core.bytes.many(Direction::Request, 100);
            counters.refused(Fault::QueueFull);
            counters.core.accept_pauses.one(AcceptPause::Memory);
            counters.unrouted.one(StatusClass::of(404));
            counters.pools[0].requests.one(Class::of(3), StatusClass::of(200));
            counters.pools[0].dispatches.one(Dispatch::CrossAwake);
            counters.pools[0].queue_wait.observe_ns(Class::of(3), 1_000_000);
            counters.pools[0].idle_while_queued.0 = 250_000_000;
            counters.pools[0].handoff.observe_ns(Class::of(3), Dispatch::CrossAwake, 1_500);
            counters.pools[1].queue_wait.observe_ns(Class::of(0), 100_000_000_000);
            CorePart {
                generation: 3,
                core: CoreId(core),
                cpu: Some(core * 2),
                connections: 3,
                busy_ns: 500_000_000,
                lag: Durations::default(),
                process: Some(ProcessReport { open_fds: 7, ..ProcessReport::default() }),
                certificates: vec![CertificateReport { file: "edge.pem".into(), not_after_unix: 1_800_000_000 }],
                counters,
                pools: vec![
                    PoolPart {
                        queued: 1,
                        queued_by_class: [0, 0, 0, 1, 0, 0, 0, 0],
                        queued_bytes: 500,
                        links: 1,
                        credits: 4,
                        in_flight: 2,
                        ..PoolPart::default()
                    };
                    2
                ],
                links: vec![LinkPart {
                    id: LinkId(7),
                    worker: "web-1".into(),
                    said: About { id: Some("host-1".into()), labels: vec![("zone".into(), "a".into())] },
                    address: "192.0.2.1:4000".parse().unwrap(),
                    protocol: "h2",
                    pools: vec![PoolId(0)],
                    credits: 4,
                    in_flight: 2,
                    since_unix: 1_000,
                    is_mute: false,
                    silent_seconds: 0,
                }],
            }
        };
        let limits =
            LimitsReport { connections: 6, connections_max: 100, resident_bytes: 5_000, memory_max_bytes: 9_000 };
        let (past, reloads) = (Counters::default(), Tally::default());
        let edge = EdgePart {
            uptime_seconds: 5,
            draining: true,
            limits,
            pool_names: &names,
            generations: &[3],
            past: &past,
            reloads: &reloads,
        };
        Report::gather(edge, vec![part(1), part(0)])
    }

    /// One sample of the text, read without any code of the writer.
    type Sample = (String, BTreeSet<(String, String)>, f64);

    /// The text format 0.0.4, as its page says it: HELP and TYPE once before the samples of their metric.
    fn parse(text: &str) -> (HashMap<String, String>, Vec<Sample>) {
        let (mut helps, mut types, mut samples) = (HashMap::new(), HashMap::new(), Vec::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && helps.insert(name.to_owned(), help).is_none(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                samples.push(parse_sample(line));
            }
        }
        assert_eq!(helps.keys().collect::<BTreeSet<_>>(), types.keys().collect::<BTreeSet<_>>());
        (types, samples)
    }

    fn parse_sample(line: &str) -> Sample {
        let name_ends = line.find(['{', ' ']).expect(line);
        let (name, mut rest) = line.split_at(name_ends);
        let mut labels = BTreeSet::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (key, value) = rest.split_once("=\"").expect(line);
                let mut text = String::new();
                let mut chars = value.char_indices();
                let end = loop {
                    match chars.next().expect(line) {
                        (_, '\\') => text.push(match chars.next().expect(line).1 {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            c => panic!("escaped {c:?} in {line}"),
                        }),
                        (end, '"') => break end,
                        (_, c) => text.push(c),
                    }
                };
                assert!(labels.insert((key.to_owned(), text)), "{line}");
                rest = &value[end + 1..];
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').expect(line);
        }
        (name.to_owned(), labels, rest.strip_prefix(' ').expect(line).parse().expect(line))
    }

    #[test]
    fn every_series_has_help_and_type_and_a_name_of_ours() {
        let (types, samples) = parse(&sample().prometheus());
        let mut seen = BTreeSet::new();
        for (name, labels, value) in &samples {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|tail| {
                name.strip_suffix(tail).filter(|base| types.get(*base).is_some_and(|kind| kind == "histogram"))
            });
            let family = family.unwrap_or(name);
            let kind = types.get(family).unwrap_or_else(|| panic!("{name} has no TYPE"));
            assert!(["ptth_", "process_"].iter().any(|prefix| family.starts_with(prefix)), "{name}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{name} is a {kind}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(value.is_finite() && *value >= 0.0, "{name}");
            assert!(seen.insert((name, labels)), "{name} {labels:?} twice");
        }
        for family in types.keys() {
            assert!(samples.iter().any(|(name, ..)| name.starts_with(family.as_str())), "{family} has no sample");
        }
    }

    #[track_caller]
    fn check(samples: &[Sample], name: &str, labels: &[(&str, &str)], want: f64) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = samples.iter().find(|(n, l, _)| n == name && *l == labels);
        let value = found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2;
        assert!((value - want).abs() < 1e-9, "{name} {labels:?} is {value}, not {want}");
    }

    #[test]
    fn the_samples_are_the_sums_of_the_cores() {
        let odd = "od\"d\\na\nme";
        let (_, samples) = parse(&sample().prometheus());
        for (name, labels, want) in [
            ("ptth_accepted_connections_total", &[][..], 20.0),
            ("ptth_bytes_total", &[("direction", "request")], 200.0),
            ("ptth_bytes_total", &[("direction", "response")], 0.0),
            ("ptth_refusals_total", &[("reason", "queue_full")], 2.0),
            ("ptth_requests_total", &[("pool", "app"), ("class", "3"), ("status", "2xx")], 2.0),
            ("ptth_requests_total", &[("pool", ""), ("class", ""), ("status", "4xx")], 2.0),
            ("ptth_dispatches_total", &[("pool", "app"), ("kind", "cross_awake")], 2.0),
            ("ptth_queue_depth", &[("pool", odd), ("class", "3")], 2.0),
            ("ptth_core_busy_seconds_total", &[("core", "1")], 0.5),
            ("ptth_core_lag_seconds_count", &[("core", "1")], 0.0),
            ("process_open_fds", &[], 7.0),
            ("ptth_certificate_expiry_timestamp_seconds", &[("certificate", "edge.pem")], 1_800_000_000.0),
            ("ptth_queue_bytes", &[("pool", "app")], 1000.0),
            ("ptth_credits", &[("pool", "app"), ("core", "1")], 4.0),
            ("ptth_client_connections", &[("core", "0")], 3.0),
            ("ptth_draining", &[], 1.0),
            ("ptth_client_connections_max", &[], 100.0),
            ("ptth_resident_bytes", &[], 5_000.0),
            ("ptth_memory_max_bytes", &[], 9_000.0),
            ("ptth_accept_pauses_total", &[("reason", "memory_max")], 2.0),
            ("ptth_queue_wait_seconds_bucket", &[("pool", "app"), ("class", "3"), ("le", "0.000512")], 0.0),
            ("ptth_queue_wait_seconds_bucket", &[("pool", "app"), ("class", "3"), ("le", "0.001024")], 2.0),
            ("ptth_queue_wait_seconds_bucket", &[("pool", "app"), ("class", "3"), ("le", "67.108864")], 2.0),
            ("ptth_queue_wait_seconds_bucket", &[("pool", odd), ("class", "0"), ("le", "67.108864")], 0.0),
            ("ptth_queue_wait_seconds_bucket", &[("pool", odd), ("class", "0"), ("le", "+Inf")], 2.0),
            ("ptth_idle_while_queued_seconds_total", &[("pool", "app")], 0.5),
            ("ptth_idle_while_queued_seconds_total", &[("pool", odd)], 0.0),
            (
                "ptth_handoff_seconds_bucket",
                &[("pool", "app"), ("class", "3"), ("kind", "cross_awake"), ("le", "2e-06")],
                2.0,
            ),
            ("ptth_queue_wait_seconds_sum", &[("pool", "app"), ("class", "3")], 0.002),
            ("ptth_queue_wait_seconds_count", &[("pool", "app"), ("class", "3")], 2.0),
        ] {
            check(&samples, name, labels, want);
        }
    }

    #[test]
    fn a_report_survives_its_json() {
        let report = sample();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        assert_eq!(report.links[0].id, "0-7");
        assert_eq!((report.links[0].worker_id.as_str(), report.links[0].labels["zone"].as_str()), ("host-1", "a"));
        assert_eq!((report.cores[1].core, report.cores[1].cpu), (1, Some(2)));
        let newer = json.replacen("{", "{\"not_yet\":{},", 1);
        assert_eq!(serde_json::from_str::<Report>(&newer).unwrap(), report);
    }

    #[test]
    fn a_quantile_is_the_bound_that_holds_its_share() {
        let mut durations = Durations::default();
        for ms in [1, 1, 1, 100] {
            durations.observe_ns(ms * 1_000_000);
        }
        let report = histogram_report(&[], &durations);
        assert_eq!(report.quantile_seconds(0.5), Some(0.001_024));
        assert_eq!(report.quantile_seconds(0.99), Some(0.131_072));
        durations.observe_ns(u64::MAX / 4);
        assert_eq!(histogram_report(&[], &durations).quantile_seconds(1.0), None);
        assert_eq!(histogram_report(&[], &Durations::default()).quantile_seconds(0.5), None);
        let sum = HistogramReport::sum(&[report.clone(), report]).expect("two of them");
        assert_eq!((sum.count, sum.quantile_seconds(0.5)), (8, Some(0.001_024)));
    }

    #[test]
    fn generations_add_up_and_keep_their_names() {
        // Generation 1 had pools `old` and `app`, with a core that has ended; generation 2 has `app` and `new`.
        let names = ["app", "new", "old"].map(str::to_owned);
        let counted = |pools: &[u64]| {
            let mut counters = Counters::new(pools.len());
            counters.core.setups = 1;
            for (pool, n) in counters.pools.iter_mut().zip(pools) {
                pool.requests.many(Class::of(3), StatusClass::Success, *n);
            }
            counters
        };
        let link = |pool: u16| LinkPart {
            id: LinkId(4),
            worker: "web-1".into(),
            said: About::default(),
            address: "192.0.2.1:4000".parse().unwrap(),
            protocol: "h2",
            pools: vec![PoolId(pool)],
            credits: 1,
            in_flight: 2,
            since_unix: 0,
            is_mute: true,
            silent_seconds: 61,
        };
        let part = |generation, core, connections, counters, pool| CorePart {
            cpu: Some(core),
            connections,
            pools: vec![
                PoolPart {
                    queued: 3,
                    queued_by_class: [3, 0, 0, 0, 0, 0, 0, 0],
                    links: 1,
                    ..PoolPart::default()
                };
                2
            ],
            links: vec![link(pool)],
            ..CorePart::ended(generation, CoreId(core), counters)
        };
        let old = part(1, 0, 5, counted(&[10, 20]), 1).renumbered(&[2, 0], 3);
        let ended = CorePart::ended(1, CoreId(1), counted(&[100, 200])).renumbered(&[2, 0], 3);
        let new = part(2, 0, 7, counted(&[1, 2]), 0).renumbered(&[0, 1], 3);
        let past = counted(&[1000, 0, 0]);
        let mut reloads = Tally::default();
        reloads.one(Reload::Done);
        let edge = EdgePart {
            uptime_seconds: 1,
            draining: false,
            limits: LimitsReport::default(),
            pool_names: &names,
            generations: &[1, 2],
            past: &past,
            reloads: &reloads,
        };
        let report = Report::gather(edge, vec![new, ended, old]);
        assert_eq!((report.generation, report.cores.len()), (2, 2));
        let leaving = LeavingReport { generation: 1, connections: 5, links: 1, queued: 6, in_flight: 2 };
        assert_eq!(report.leaving, [leaving]);
        assert_eq!((report.cores[0].connections, report.cores[0].cpu), (12, Some(0)));
        let ids: Vec<_> = report.links.iter().map(|link| (link.id.as_str(), link.pools.clone())).collect();
        assert_eq!(ids, [("1/0-4", vec!["app".to_owned()]), ("0-4", vec!["app".to_owned()])]);
        let (_, samples) = parse(&report.prometheus());
        for (pool, requests, queued) in [("app", 1221.0, 6.0), ("new", 2.0, 3.0), ("old", 110.0, 3.0)] {
            check(&samples, "ptth_requests_total", &[("pool", pool), ("class", "3"), ("status", "2xx")], requests);
            check(&samples, "ptth_queue_depth", &[("pool", pool), ("class", "0")], queued);
        }
        check(&samples, "ptth_setups_total", &[], 4.0);
        check(&samples, "ptth_client_connections", &[("core", "0")], 12.0);
        check(&samples, "ptth_generation", &[], 2.0);
        check(&samples, "ptth_generations_leaving", &[], 1.0);
        check(&samples, "ptth_reloads_total", &[("result", "done")], 1.0);
        check(&samples, "ptth_reloads_total", &[("result", "failed")], 0.0);
    }
}
