//! What the program counts: every counter with its name, unit and sentence, declared once. Gauges, text formats and
//! sockets never enter.
//!
//! Each core owns one [`Counters`] and counts in plain integers; whoever reports adds the cores up.

use crate::fault::Fault;
use std::fmt;

/// One metric, as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The key in `/status`.
    pub field: &'static str,
    /// The name in `/metrics`, with its unit.
    pub metric: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A counter's value while it is read.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    Count(u64),
    /// One number for each value of the label `key`.
    Tally {
        key: &'static str,
        names: &'static [&'static str],
        counts: &'a [u64],
    },
    Histogram(&'a Histogram),
}

/// What a counter can be made of.
pub trait Counted {
    const KIND: Kind;
    fn add(&mut self, other: &Self);
    fn read(&self) -> Reading<'_>;
}

impl Counted for u64 {
    const KIND: Kind = Kind::Counter;

    fn add(&mut self, other: &u64) {
        *self += other;
    }

    fn read(&self) -> Reading<'_> {
        Reading::Count(*self)
    }
}

/// A label with a fixed set of values.
pub trait Label: Copy {
    const KEY: &'static str;
    const NAMES: &'static [&'static str];
    type Counts: Clone + Default + fmt::Debug + PartialEq + AsRef<[u64]> + AsMut<[u64]>;
    fn index(self) -> usize;
}

/// One number for each value of a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally<L: Label>(L::Counts);

impl<L: Label> Default for Tally<L> {
    fn default() -> Self {
        Tally(L::Counts::default())
    }
}

impl<L: Label> Tally<L> {
    pub fn one(&mut self, label: L) {
        self.many(label, 1);
    }

    pub fn many(&mut self, label: L, n: u64) {
        self.0.as_mut()[label.index()] += n;
    }

    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.0.as_ref()[label.index()]
    }

    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.as_ref().iter().sum()
    }
}

impl<L: Label> Counted for Tally<L> {
    const KIND: Kind = Kind::Counter;

    fn add(&mut self, other: &Self) {
        for (own, other) in self.0.as_mut().iter_mut().zip(other.0.as_ref()) {
            *own += other;
        }
    }

    fn read(&self) -> Reading<'_> {
        Reading::Tally { key: L::KEY, names: L::NAMES, counts: self.0.as_ref() }
    }
}

/// Buckets of a [`Histogram`] with an upper bound; one more has none.
pub const BUCKETS: usize = 19;
/// The first bucket ends at 2^8 µs: shorter waits are noise of the loop. Each next one is twice as long, so the last
/// bound, 2^26 µs, is 67 s, beyond the default `wait_max`.
const FIRST_BUCKET_BITS: u32 = 8;

/// How long something took, in buckets of powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS + 1],
    sum_ns: u64,
}

impl Histogram {
    pub fn observe_ns(&mut self, ns: u64) {
        let us = ns.div_ceil(1_000);
        let bits = u64::BITS - us.saturating_sub(1).leading_zeros(); // 2^bits is the first power at or above us
        let bucket = bits.saturating_sub(FIRST_BUCKET_BITS) as usize;
        self.counts[bucket.min(BUCKETS)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// The upper bound of bucket `index` in microseconds; the bound itself belongs to the bucket.
    #[must_use]
    pub fn bound_us(index: usize) -> u64 {
        1 << (FIRST_BUCKET_BITS as usize + index)
    }

    /// One count for each bucket, the last for what is above all bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS + 1] {
        &self.counts
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

impl Counted for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn add(&mut self, other: &Histogram) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    fn read(&self) -> Reading<'_> {
        Reading::Histogram(self)
    }
}

/// Declares an enum whose values are the values of a Prometheus label.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident $key:literal { $($(#[$about:meta])* $variant:ident $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $label { $($(#[$about])* $variant),* }

        impl Label for $label {
            const KEY: &'static str = $key;
            const NAMES: &'static [&'static str] = &[$($name),*];
            type Counts = [u64; [$($name),*].len()];
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Declares a struct of counters: field, type, metric and sentence, once.
macro_rules! counters {
    ($(#[$doc:meta])* $counters:ident { $($field:ident: $kind:ty, $metric:literal, $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $counters { $(#[doc = $help] pub $field: $kind),* }

        impl $counters {
            pub const FAMILIES: &'static [Family] = &[$(Family {
                field: stringify!($field),
                metric: $metric,
                kind: <$kind as Counted>::KIND,
                help: $help,
            }),*];

            /// Adds what another core counted.
            pub fn add(&mut self, other: &Self) {
                $(Counted::add(&mut self.$field, &other.$field);)*
            }

            /// Every counter by its field, in the order of `FAMILIES`.
            pub fn read(&self, mut each: impl FnMut(&'static str, Reading<'_>)) {
                $(each(stringify!($field), self.$field.read());)*
            }
        }
    };
}

label! {
    /// The first digit of a status. A client that left before its answer counts as 4xx (499).
    StatusClass "status" {
        /// 101, an upgrade.
        Switched "1xx",
        Success "2xx",
        Redirect "3xx",
        Client "4xx",
        Server "5xx",
    }
}

impl StatusClass {
    /// Of a final status; what is no status at all counts as 5xx.
    #[must_use]
    pub fn of(status: u16) -> StatusClass {
        match status {
            100..200 => StatusClass::Switched,
            200..300 => StatusClass::Success,
            300..400 => StatusClass::Redirect,
            400..500 => StatusClass::Client,
            _ => StatusClass::Server,
        }
    }
}

label! {
    /// How a request found its link.
    Dispatch "kind" {
        /// The link is on the core that read the request.
        Local "local",
        /// The link is on another core.
        Cross "cross",
    }
}

label! {
    /// Which way bytes went.
    Direction "direction" {
        /// From clients to workers.
        Request "request",
        /// From workers to clients.
        Response "response",
    }
}

label! {
    /// Why a request went back to its queue.
    Requeue "reason" {
        /// The worker reset the stream with `REFUSED_STREAM`.
        RefusedStream "refused_stream",
        /// The worker sent GOAWAY with a lower stream.
        Goaway "goaway",
        /// The link broke before anything was sent.
        NotSent "not_sent",
        /// The link broke or the stream was reset after sending, and the request is idempotent.
        Retried "retried",
    }
}

label! {
    /// Why the edge answered a request itself; one for each [`Fault`] of a request.
    RefusalReason "reason" {
        ClientMalformed "client_malformed",
        LineTooLong "line_too_long",
        HeadTooLarge "head_too_large",
        HeadTimeout "head_timeout",
        BodyTimeout "body_timeout",
        UnknownCoding "unknown_coding",
        UnknownVersion "unknown_version",
        MethodRefused "method_refused",
        UnknownExpectation "unknown_expectation",
        NoPool "no_pool",
        QueueFull "queue_full",
        WaitedTooLong "waited_too_long",
        NoWorker "no_worker",
        Draining "draining",
        LinkLost "link_lost",
        NotProcessed "not_processed",
        WorkerReset "worker_reset",
        WorkerMalformed "worker_malformed",
        WorkerStalled "worker_stalled",
        ResponseTimeout "response_timeout",
        NoUpgrade "no_upgrade",
    }
}

label! {
    /// Why a worker's setup was refused; one for each [`Fault`] of a setup.
    SetupRefusal "reason" {
        Malformed "malformed",
        Unauthorized "unauthorized",
        Forbidden "forbidden",
        Method "method",
        UpgradeRequired "upgrade_required",
        Versions "versions",
        Limit "limit",
        /// The edge drains.
        Draining "draining",
    }
}

counters! {
    /// What one core counts, apart from its pools.
    CoreCounters {
        accepted_connections: u64, "ptth_accepted_connections_total", "Connections that were accepted.";
        accept_backoffs: u64, "ptth_accept_backoffs_total", "Pauses in accepting for want of file descriptors.";
        connection_panics: u64, "ptth_connection_panics_total", "Connections that ended by a defect of the edge.";
        clients_gone: u64, "ptth_clients_gone_total", "Clients that left before their answer was complete.";
        bytes: Tally<Direction>, "ptth_bytes_total", "Bytes of heads and bodies that were passed on.";
        requeues: Tally<Requeue>, "ptth_requeues_total", "Requests that went back to their queue.";
        refusals: Tally<RefusalReason>, "ptth_refusals_total", "Requests that the edge answered itself.";
        setups: u64, "ptth_setups_total", "Setups of workers that were accepted.";
        setups_refused: Tally<SetupRefusal>, "ptth_setups_refused_total", "Setups of workers that were refused.";
    }
}

counters! {
    /// What one core counts for one pool.
    PoolCounters {
        requests: Tally<StatusClass>, "ptth_requests_total", "Requests that were answered, by class of status.";
        dispatches: Tally<Dispatch>, "ptth_dispatches_total", "Requests that were handed to a link.";
        queue_wait: Histogram, "ptth_queue_wait_seconds", "From head to dispatch; 0 if a credit was free.";
    }
}

/// Everything that one core counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    pub core: CoreCounters,
    /// Indexed by pool.
    pub pools: Vec<PoolCounters>,
    /// Answers to requests that belong to no pool.
    pub unrouted: Tally<StatusClass>,
}

impl Counters {
    #[must_use]
    pub fn new(pools: usize) -> Counters {
        Counters { pools: vec![PoolCounters::default(); pools], ..Counters::default() }
    }

    /// Adds what another core counted with the same configuration.
    pub fn add(&mut self, other: &Counters) {
        if self.pools.len() < other.pools.len() {
            self.pools.resize(other.pools.len(), PoolCounters::default());
        }
        self.core.add(&other.core);
        self.unrouted.add(&other.unrouted);
        for (own, other) in self.pools.iter_mut().zip(&other.pools) {
            own.add(other);
        }
    }

    /// Counts a fault of a request where its reason belongs. Call it once for each answer that the edge makes up.
    pub fn refused(&mut self, fault: Fault) {
        use RefusalReason as R;
        let reason = match fault {
            Fault::ClientMalformed(_) => R::ClientMalformed,
            Fault::LineTooLong => R::LineTooLong,
            Fault::HeadTooLarge => R::HeadTooLarge,
            Fault::HeadTimeout => R::HeadTimeout,
            Fault::BodyTimeout => R::BodyTimeout,
            Fault::UnknownCoding => R::UnknownCoding,
            Fault::UnknownVersion => R::UnknownVersion,
            Fault::MethodRefused => R::MethodRefused,
            Fault::UnknownExpectation => R::UnknownExpectation,
            Fault::NoPool => R::NoPool,
            Fault::QueueFull => R::QueueFull,
            Fault::WaitedTooLong => R::WaitedTooLong,
            Fault::NoWorker => R::NoWorker,
            Fault::Draining => R::Draining,
            Fault::LinkLost => R::LinkLost,
            Fault::NotProcessed => R::NotProcessed,
            Fault::WorkerReset => R::WorkerReset,
            Fault::WorkerMalformed(_) => R::WorkerMalformed,
            Fault::WorkerStalled => R::WorkerStalled,
            Fault::ResponseTimeout => R::ResponseTimeout,
            Fault::NoUpgrade => R::NoUpgrade,
            Fault::ClientGone => {
                self.core.clients_gone += 1;
                return;
            }
            // A worker's own answer; an edge passes it through.
            Fault::OriginUnreachable => return,
            Fault::SetupMalformed(_)
            | Fault::SetupUnauthorized
            | Fault::SetupForbidden
            | Fault::SetupMethod
            | Fault::SetupUpgradeRequired
            | Fault::SetupVersions
            | Fault::SetupLimit => return self.setup_refused(fault),
        };
        self.core.refusals.one(reason);
    }

    /// Counts a fault of a setup. One that is no setup's own is the setup's bytes: a head too large, for example.
    pub fn setup_refused(&mut self, fault: Fault) {
        self.core.setups_refused.one(match fault {
            Fault::SetupUnauthorized => SetupRefusal::Unauthorized,
            Fault::SetupForbidden => SetupRefusal::Forbidden,
            Fault::SetupMethod => SetupRefusal::Method,
            Fault::SetupUpgradeRequired => SetupRefusal::UpgradeRequired,
            Fault::SetupVersions => SetupRefusal::Versions,
            Fault::SetupLimit => SetupRefusal::Limit,
            Fault::Draining => SetupRefusal::Draining,
            _ => SetupRefusal::Malformed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_falls_into_the_first_bucket_that_holds_it() {
        for (ns, want) in [
            (0, 0),
            (1, 0),
            (256_000, 0),
            (256_001, 1),
            (512_000, 1),
            (512_001, 2),
            (1_000_000, 2),
            (67_108_864_000, BUCKETS - 1),
            (67_108_864_001, BUCKETS),
            (u64::MAX, BUCKETS),
        ] {
            let mut histogram = Histogram::default();
            histogram.observe_ns(ns);
            assert_eq!(histogram.counts().iter().position(|&n| n == 1), Some(want), "{ns} ns");
            let above = want == 0 || Histogram::bound_us(want - 1) * 1_000 < ns;
            let below = want == BUCKETS || ns <= Histogram::bound_us(want) * 1_000;
            assert!(above && below, "{ns} ns");
        }
    }

    #[test]
    fn the_cores_add_up() {
        let (mut a, mut b) = (Counters::new(2), Counters::new(2));
        a.core.accepted_connections = 3;
        b.core.accepted_connections = 4;
        b.core.bytes.many(Direction::Response, 10);
        a.pools[1].requests.one(StatusClass::of(200));
        b.pools[1].requests.one(StatusClass::of(204));
        b.pools[0].queue_wait.observe_ns(5);
        b.refused(Fault::QueueFull);
        b.refused(Fault::ClientGone);
        b.refused(Fault::SetupLimit);
        b.unrouted.one(StatusClass::of(404));
        let mut sum = Counters::default();
        sum.add(&a);
        sum.add(&b);
        assert_eq!(sum.core.accepted_connections, 7);
        assert_eq!(sum.core.bytes.get(Direction::Response), 10);
        assert_eq!(sum.pools[1].requests.get(StatusClass::Success), 2);
        assert_eq!((sum.pools[0].queue_wait.count(), sum.pools[0].queue_wait.sum_ns()), (1, 5));
        assert_eq!(sum.core.refusals.get(RefusalReason::QueueFull), 1);
        assert_eq!((sum.core.refusals.sum(), sum.core.clients_gone), (1, 1));
        assert_eq!(sum.core.setups_refused.get(SetupRefusal::Limit), 1);
        assert_eq!(sum.unrouted.get(StatusClass::Client), 1);
    }
}
