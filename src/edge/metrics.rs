//! The Prometheus text of `/metrics`, made of a [`Report`]: which families there are, and what each tells. Escaping, numbers and
//! the order of lines are the Prometheus client's; nothing is measured here.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::report::{Amount, HistogramReport, PoolCoreReport, PoolReport, Report};
use crate::events::{CoreCounters, Family, Kind, PoolCounters, Reading};

/// The type of what [`text`] returns.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The text format 0.0.4.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page::of(report)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a String takes everything");
    text
}

/// Counted by the process, not by a core.
pub const RELOADS: Family = Family {
    field: "reloads",
    metric: "ptth_reloads_total",
    kind: Kind::Counter,
    help: "Orders to read the configuration again.",
};

/// The key in `Report::counters` of answers to requests without a pool.
pub const UNROUTED: &str = "unrouted_requests";

/// A family with its series.
#[derive(Debug)]
struct Shown {
    metric: &'static str,
    kind: Kind,
    help: &'static str,
    series: Vec<(Labels, Value)>,
}

type Labels = Vec<(String, String)>;

#[derive(Debug)]
enum Value {
    Count(u64),
    Real(f64),
    Histogram(HistogramReport),
}

#[derive(Debug)]
struct Page(Vec<Shown>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Shown { metric, kind, help, series } in &self.0 {
            // The encoder writes the end of a counter's name itself.
            let (name, kind) = match kind {
                Kind::Counter => (metric.strip_suffix("_total").unwrap_or(metric), MetricType::Counter),
                Kind::Gauge => (*metric, MetricType::Gauge),
                Kind::Histogram => (*metric, MetricType::Histogram),
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in series {
                let mut one = family.encode_family(labels)?;
                let none: Option<&Exemplar<Labels, f64>> = None;
                match (value, kind) {
                    (Value::Count(count), MetricType::Counter) => one.encode_counter(count, none)?,
                    (Value::Real(real), MetricType::Counter) => one.encode_counter(real, none)?,
                    (Value::Count(count), _) => one.encode_gauge(count)?,
                    (Value::Real(real), _) => one.encode_gauge(real)?,
                    (Value::Histogram(histogram), _) => {
                        let mut before = 0;
                        let own =
                            |&(bound, reached): &(f64, u64)| (bound, reached - std::mem::replace(&mut before, reached));
                        let buckets: Vec<(f64, u64)> = histogram.buckets.iter().map(own).collect();
                        one.encode_histogram::<Labels>(histogram.sum_seconds, histogram.count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> Labels {
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
}

impl Page {
    fn of(report: &Report) -> Page {
        let mut page = Page(Vec::new());
        page.whole(report);
        page.process(report);
        page.cores(report);
        page.pools(&report.pools);
        page.counters(report);
        page
    }

    fn add(&mut self, kind: Kind, metric: &'static str, help: &'static str, series: Vec<(Labels, Value)>) {
        self.0.push(Shown { metric, kind, help, series });
    }

    fn gauge(&mut self, metric: &'static str, help: &'static str, value: Value) {
        self.add(Kind::Gauge, metric, help, vec![(Vec::new(), value)]);
    }

    fn whole(&mut self, report: &Report) {
        let build = vec![(labels([("version", &report.version)]), Value::Count(1))];
        self.add(Kind::Gauge, "ptth_build_info", "1, with the version of the program.", build);
        let mut gauge = |metric, help, value| self.gauge(metric, help, Value::Count(value));
        let limits = &report.limits;
        gauge("ptth_uptime_seconds", "Time since the start.", report.uptime_seconds);
        gauge("ptth_draining", "1 while the edge drains.", u64::from(report.draining));
        gauge("ptth_generation", "Number of the configuration that is in force, from 1.", report.generation);
        gauge(
            "ptth_generations_leaving",
            "Configurations from before that finish what they began.",
            report.leaving.len() as u64,
        );
        gauge(
            "ptth_client_connections_max",
            "Client connections, of all cores, at which accepting pauses.",
            limits.connections_max,
        );
        gauge("ptth_resident_bytes", "Resident memory of the process; 0 without memory_max.", limits.resident_bytes);
        gauge("ptth_memory_max_bytes", "The bound of ptth_resident_bytes; 0: none.", limits.memory_max_bytes);
        #[allow(clippy::cast_precision_loss)] // seconds of this century fit
        let ends = report.certificates.iter().map(|certificate| {
            let labels = labels([("certificate", &certificate.file)]);
            (labels, Value::Real(certificate.not_after_unix as f64))
        });
        self.add(
            Kind::Gauge,
            "ptth_certificate_expiry_timestamp_seconds",
            "When a certificate of the edge expires, in seconds since 1970.",
            ends.collect(),
        );
        let reloads = report.counters.get(RELOADS.field).map(|amount| series(&[], "result", amount));
        self.add(RELOADS.kind, RELOADS.metric, RELOADS.help, reloads.unwrap_or_default());
    }

    /// By the names that all clients of Prometheus use.
    fn process(&mut self, report: &Report) {
        let process = &report.process;
        let mut add = |kind, metric, help, value| self.add(kind, metric, help, vec![(Vec::new(), value)]);
        add(
            Kind::Counter,
            "process_cpu_seconds_total",
            "CPU time of the process, in user mode and in the kernel.",
            Value::Real(process.cpu_seconds),
        );
        add(Kind::Gauge, "process_open_fds", "Descriptors that are open.", Value::Count(process.open_fds));
        add(Kind::Gauge, "process_max_fds", "Descriptors that may be open.", Value::Count(process.max_fds));
        let (resident, virtual_bytes) = (process.resident_bytes, process.virtual_bytes);
        add(Kind::Gauge, "process_resident_memory_bytes", "Resident memory.", Value::Count(resident));
        add(Kind::Gauge, "process_virtual_memory_bytes", "Address space.", Value::Count(virtual_bytes));
        add(
            Kind::Gauge,
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
            Value::Real(process.start_unix_seconds),
        );
        add(Kind::Gauge, "process_threads", "Threads of the process.", Value::Count(process.threads));
    }

    fn cores(&mut self, report: &Report) {
        let of = |value: &dyn Fn(usize) -> Value| {
            let cores = report.cores.iter().enumerate();
            cores.map(|(index, core)| (labels([("core", &core.core.to_string())]), value(index))).collect()
        };
        let connections = of(&|index| Value::Count(report.cores[index].connections));
        let busy = of(&|index| Value::Real(report.cores[index].busy_seconds));
        let lag = of(&|index| Value::Histogram(report.cores[index].lag.clone()));
        self.add(Kind::Gauge, "ptth_client_connections", "Client connections that are open.", connections);
        self.add(
            Kind::Counter,
            "ptth_core_busy_seconds_total",
            "CPU time of the core's thread; begins anew with the threads of a new configuration.",
            busy,
        );
        self.add(
            Kind::Histogram,
            "ptth_core_lag_seconds",
            "How late the core's loop saw a tick of its timers, looked at 20 times a second while it has any: the time of a turn, and whatever kept the thread from its CPU.",
            lag,
        );
    }

    fn pools(&mut self, pools: &[PoolReport]) {
        let of_class = pools.iter().flat_map(|pool| {
            pool.queued_by_class.iter().enumerate().map(|(class, queued)| {
                (labels([("pool", &pool.name), ("class", &class.to_string())]), Value::Count(*queued))
            })
        });
        self.add(Kind::Gauge, "ptth_queue_depth", "Requests that wait in the pool's queue.", of_class.collect());
        let of_pool = |value: fn(&PoolReport) -> Value| {
            pools.iter().map(|pool| (labels([("pool", &pool.name)]), value(pool))).collect()
        };
        self.add(
            Kind::Gauge,
            "ptth_queue_bytes",
            "Bytes of requests that wait in the pool's queue.",
            of_pool(|pool| Value::Count(pool.queued_bytes)),
        );
        self.add(
            Kind::Gauge,
            "ptth_service_seconds",
            "For how long a worker has a request of the pool, estimated over the last seconds; 0: not known.",
            of_pool(|pool| Value::Real(pool.service_seconds)),
        );
        self.add(
            Kind::Gauge,
            "ptth_expected_wait_seconds",
            "How long a request of the least urgent class would wait if it came now, estimated; 0: not at all, or not known.",
            of_pool(|pool| Value::Real(pool.wait_seconds)),
        );
        let of_core = |value: fn(&PoolCoreReport) -> u64| {
            let shares = pools.iter().flat_map(|pool| pool.cores.iter().map(move |share| (pool, share)));
            let one = |(pool, share): (&PoolReport, &PoolCoreReport)| {
                (labels([("pool", &pool.name), ("core", &share.core.to_string())]), Value::Count(value(share)))
            };
            shares.map(one).collect()
        };
        self.add(Kind::Gauge, "ptth_links", "Links of workers that serve the pool.", of_core(|share| share.links));
        self.add(
            Kind::Gauge,
            "ptth_credits",
            "Requests that the pool's links would take now.",
            of_core(|share| share.credits),
        );
        self.add(
            Kind::Gauge,
            "ptth_in_flight",
            "Requests that are with the pool's workers.",
            of_core(|share| share.in_flight),
        );
    }

    /// What cores count.
    fn counters(&mut self, report: &Report) {
        for family in CoreCounters::FAMILIES {
            let amount = report.counters.get(family.field);
            let series = amount.map(|amount| series(&[], label_key(family.field), amount));
            self.add(family.kind, family.metric, family.help, series.unwrap_or_default());
        }
        for family in PoolCounters::FAMILIES {
            let mut all = Vec::new();
            for pool in &report.pools {
                if let Some(amount) = by_class(pool, family).or(pool.counters.get(family.field)) {
                    all.extend(series(&[("pool", &pool.name)], label_key(family.field), amount));
                }
            }
            // An empty label is the same as none: requests that no pool took.
            if family.field == "requests"
                && let Some(amount) = report.counters.get(UNROUTED)
            {
                all.extend(series(&[("pool", ""), ("class", "")], label_key(family.field), amount));
            }
            self.add(family.kind, family.metric, family.help, all);
        }
    }
}

/// A pool's counter that is told by class here, and in sum in `/status`.
fn by_class<'r>(pool: &'r PoolReport, family: &Family) -> Option<&'r Amount> {
    pool.counters.get(&format!("{}{}", family.field, super::report::BY_CLASS))
}

fn series(base: &[(&str, &str)], key: &str, amount: &Amount) -> Vec<(Labels, Value)> {
    let with = |more: &[(&str, &str)]| -> Labels {
        base.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    match amount {
        Amount::Count(count) => vec![(with(&[]), Value::Count(*count))],
        Amount::Seconds(seconds) => vec![(with(&[]), Value::Real(*seconds))],
        Amount::By(counts) => counts.iter().map(|(name, count)| (with(&[(key, name)]), Value::Count(*count))).collect(),
        Amount::Classes(classes) => {
            let rows =
                classes.iter().flat_map(|(class, row)| row.iter().map(move |(name, count)| (class, name, count)));
            rows.map(|(class, name, count)| (with(&[("class", class), (key, name)]), Value::Count(*count))).collect()
        }
        Amount::Histograms(histograms) => {
            let own = |histogram: &HistogramReport| {
                let labels: Vec<_> = histogram.labels.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect();
                (with(&labels), Value::Histogram(histogram.clone()))
            };
            histograms.iter().map(own).collect()
        }
    }
}

/// The label of a tally, by its field.
fn label_key(field: &str) -> &'static str {
    let mut key = "";
    let mut look = |name: &'static str, reading: Reading<'_>| {
        if let Reading::Tally { key: own, .. } | Reading::Classes { key: own, .. } = reading
            && name == field
        {
            key = own;
        }
    };
    CoreCounters::default().read(&mut look);
    PoolCounters::default().read(&mut look);
    key
}
