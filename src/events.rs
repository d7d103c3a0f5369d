//! What the program counts: every counter with its name, unit and sentence, declared once. Gauges, text formats and
//! sockets never enter.
//!
//! Each core owns one [`Counters`] and counts in plain integers; whoever reports adds the cores up.

use crate::fault::Fault;
use crate::ids::Class;
use crate::limits::{DURATION_BUCKETS, DURATION_DIGITS};
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
#[derive(Clone, Debug)]
pub enum Reading<'a> {
    Count(u64),
    /// One number for each value of the label `key`.
    Tally {
        key: &'static str,
        names: &'static [&'static str],
        counts: &'a [u64],
    },
    Nanoseconds(u64),
    /// One number for each value of `key`, for each class that has any.
    Classes {
        key: &'static str,
        names: &'static [&'static str],
        rows: Vec<(&'static str, &'a [u64])>,
    },
    /// One histogram for each set of labels, but for those that are empty.
    Histograms(Vec<(Vec<(&'static str, &'static str)>, &'a Durations)>),
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

    /// In the order of the label's `NAMES`.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        self.0.as_ref()
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

/// Time that added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nanoseconds(pub u64);

impl Counted for Nanoseconds {
    const KIND: Kind = Kind::Counter;

    fn add(&mut self, other: &Nanoseconds) {
        self.0 = self.0.saturating_add(other.0);
    }

    fn read(&self) -> Reading<'_> {
        Reading::Nanoseconds(self.0)
    }
}

/// Where the first bucket ends in which [`Durations`] are told.
const FIRST_BUCKET_NS: u64 = 250;

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Those that took no time; no histogram is kept where there are no others.
    at_once: u64,
    sum_ns: u64,
    others: Option<Box<hdrhistogram::Histogram<u32>>>,
}

impl Durations {
    /// With room for every duration that is told: what is observed later allocates nothing. Some 12 KiB.
    #[must_use]
    pub fn roomy() -> Durations {
        let longest_ns = FIRST_BUCKET_NS << (DURATION_BUCKETS - 1);
        let mut others =
            hdrhistogram::Histogram::new_with_max(longest_ns, DURATION_DIGITS).expect("a number of digits");
        others.auto(true);
        Durations { others: Some(Box::new(others)), ..Durations::default() }
    }

    pub fn observe_ns(&mut self, ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(ns);
        // It grows with its largest value; a count of 4 billion stays there.
        let _ = self.others_mut().record(ns);
    }

    /// It took no time.
    pub fn at_once(&mut self) {
        self.at_once += 1;
    }

    /// How many were at most as long as each bound in nanoseconds, shortest bound first.
    #[must_use]
    pub fn cumulated(&self) -> [(u64, u64); DURATION_BUCKETS] {
        let mut buckets = std::array::from_fn(|index| (FIRST_BUCKET_NS << index, self.at_once));
        for recorded in self.others.iter().flat_map(|others| others.iter_recorded()) {
            let ns = self.others.as_ref().map_or(0, |others| others.lowest_equivalent(recorded.value_iterated_to()));
            for (_, count) in buckets.iter_mut().rev().take_while(|(bound_ns, _)| *bound_ns >= ns) {
                *count += recorded.count_at_value() as u64;
            }
        }
        buckets
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.at_once + self.others.as_ref().map_or(0, |others| others.len())
    }

    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Adds what was observed elsewhere.
    pub fn add(&mut self, other: &Durations) {
        self.at_once += other.at_once;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        if let Some(others) = &other.others {
            let _ = self.others_mut().add(&**others); // both grow, so each takes the other's values
        }
    }

    fn others_mut(&mut self) -> &mut hdrhistogram::Histogram<u32> {
        self.others
            .get_or_insert_with(|| Box::new(hdrhistogram::Histogram::new(DURATION_DIGITS).expect("a number of digits")))
    }
}

/// The values of the label `class`.
const CLASSES: [&str; Class::COUNT] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// One number for each class and value of a label.
#[derive(Clone, Debug, PartialEq)]
pub struct TallyByClass<L: Label>([Tally<L>; Class::COUNT]);

impl<L: Label> Default for TallyByClass<L> {
    fn default() -> Self {
        TallyByClass(std::array::from_fn(|_| Tally::default()))
    }
}

impl<L: Label> TallyByClass<L> {
    pub fn one(&mut self, class: Class, label: L) {
        self.many(class, label, 1);
    }

    pub fn many(&mut self, class: Class, label: L, n: u64) {
        self.0[class.index()].many(label, n);
    }

    /// Of all classes.
    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.0.iter().map(|tally| tally.get(label)).sum()
    }

    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().map(Tally::sum).sum()
    }
}

impl<L: Label> Counted for TallyByClass<L> {
    const KIND: Kind = Kind::Counter;

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| own.add(other));
    }

    fn read(&self) -> Reading<'_> {
        let some = CLASSES.into_iter().zip(&self.0).filter(|(_, tally)| tally.sum() > 0);
        let rows = some.map(|(class, tally)| (class, tally.0.as_ref())).collect();
        Reading::Classes { key: L::KEY, names: L::NAMES, rows }
    }
}

/// Durations by class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByClass([Durations; Class::COUNT]);

impl ByClass {
    pub fn observe_ns(&mut self, class: Class, ns: u64) {
        self.0[class.index()].observe_ns(ns);
    }

    /// One that took no time.
    pub fn at_once(&mut self, class: Class) {
        self.0[class.index()].at_once();
    }

    #[must_use]
    pub fn of(&self, class: Class) -> &Durations {
        &self.0[class.index()]
    }
}

impl Counted for ByClass {
    const KIND: Kind = Kind::Histogram;

    fn add(&mut self, other: &ByClass) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| own.add(other));
    }

    fn read(&self) -> Reading<'_> {
        let known = CLASSES.into_iter().zip(&self.0).filter(|(_, durations)| durations.count() > 0);
        Reading::Histograms(known.map(|(class, durations)| (vec![("class", class)], durations)).collect())
    }
}

/// Durations by class and kind of dispatch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByClassAndKind([ByClass; Dispatch::NAMES.len()]);

impl ByClassAndKind {
    pub fn observe_ns(&mut self, class: Class, kind: Dispatch, ns: u64) {
        self.0[kind.index()].observe_ns(class, ns);
    }

    #[must_use]
    pub fn of(&self, class: Class, kind: Dispatch) -> &Durations {
        self.0[kind.index()].of(class)
    }
}

impl Counted for ByClassAndKind {
    const KIND: Kind = Kind::Histogram;

    fn add(&mut self, other: &ByClassAndKind) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| own.add(other));
    }

    fn read(&self) -> Reading<'_> {
        let mut all = Vec::new();
        for (kind, of_kind) in Dispatch::NAMES.iter().zip(&self.0) {
            if let Reading::Histograms(of_kind) = of_kind.read() {
                all.extend(of_kind.into_iter().map(|(mut labels, durations)| {
                    labels.push((Dispatch::KEY, *kind));
                    (labels, durations)
                }));
            }
        }
        Reading::Histograms(all)
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
        /// The link is on another core, which came for it by itself.
        CrossAwake "cross_awake",
        /// The link is on another core, whose bell had to be rung for it.
        CrossAsleep "cross_asleep",
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
        /// The worker reset the stream with `REFUSED_STREAM`, or sent GOAWAY with a lower one.
        RefusedStream "refused_stream",
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
        BodyTooSlow "body_too_slow",
        UnknownCoding "unknown_coding",
        UnknownVersion "unknown_version",
        MethodRefused "method_refused",
        UnknownExpectation "unknown_expectation",
        NoPool "no_pool",
        Misdirected "misdirected",
        QueueFull "queue_full",
        MemoryFull "memory_full",
        WaitedTooLong "waited_too_long",
        WouldWaitTooLong "would_wait_too_long",
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

impl RefusalReason {
    /// `None`: the edge had nobody to answer, or answered a setup.
    #[must_use]
    pub fn of(fault: Fault) -> Option<RefusalReason> {
        use RefusalReason as R;
        Some(match fault {
            Fault::ClientMalformed(_) => R::ClientMalformed,
            Fault::LineTooLong => R::LineTooLong,
            Fault::HeadTooLarge => R::HeadTooLarge,
            Fault::HeadTimeout => R::HeadTimeout,
            Fault::BodyTimeout => R::BodyTimeout,
            Fault::BodyTooSlow => R::BodyTooSlow,
            Fault::UnknownCoding => R::UnknownCoding,
            Fault::UnknownVersion => R::UnknownVersion,
            Fault::MethodRefused => R::MethodRefused,
            Fault::UnknownExpectation => R::UnknownExpectation,
            Fault::NoPool => R::NoPool,
            Fault::Misdirected => R::Misdirected,
            Fault::QueueFull => R::QueueFull,
            Fault::MemoryFull => R::MemoryFull,
            Fault::WaitedTooLong => R::WaitedTooLong,
            Fault::WouldWaitTooLong => R::WouldWaitTooLong,
            Fault::NoWorker => R::NoWorker,
            Fault::Draining => R::Draining,
            Fault::LinkLost => R::LinkLost,
            Fault::NotProcessed => R::NotProcessed,
            Fault::WorkerReset => R::WorkerReset,
            Fault::WorkerMalformed(_) => R::WorkerMalformed,
            Fault::WorkerStalled => R::WorkerStalled,
            Fault::ResponseTimeout => R::ResponseTimeout,
            Fault::NoUpgrade => R::NoUpgrade,
            Fault::ClientGone
            | Fault::OriginUnreachable
            | Fault::SetupMalformed(_)
            | Fault::SetupUnauthorized
            | Fault::SetupForbidden
            | Fault::SetupMethod
            | Fault::SetupUpgradeRequired
            | Fault::SetupVersions
            | Fault::SetupLimit
            | Fault::SetupsTooMany { .. } => return None,
        })
    }

    /// What a fault is called in log lines: its reason, where it has one.
    #[must_use]
    pub fn word(fault: Fault) -> &'static str {
        match (RefusalReason::of(fault), fault) {
            (Some(reason), _) => RefusalReason::NAMES[reason.index()],
            (None, Fault::ClientGone) => "client_gone",
            (None, Fault::OriginUnreachable) => "origin_unreachable",
            (None, _) => "setup",
        }
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
        /// Too many, or too many that failed, from one source.
        Rate "rate",
        /// The edge drains.
        Draining "draining",
    }
}

label! {
    /// Why a connection was closed before anything was said on it.
    ConnectionRefusal "reason" {
        /// Its source has `connections_per_source_max` already.
        PerSource "connections_per_source_max",
    }
}

label! {
    /// Why a listener took no connection for a while; what comes then waits in the kernel.
    AcceptPause "reason" {
        /// `connections_max` is reached.
        Connections "connections_max",
        /// Nearly all of `memory_max` is held.
        Memory "memory_max",
    }
}

label! {
    /// What a connection's PROXY header said, or why the connection ended without one.
    Introduction "result" {
        /// The client's address.
        Client "client",
        /// That it is the load balancer's own connection, or that it does not know the client.
        Itself "itself",
        Malformed "malformed",
        TimedOut "timed_out",
        /// The peer is not among `trusted_proxies`.
        Untrusted "untrusted",
    }
}

label! {
    /// How a TLS handshake ended.
    Handshake "result" {
        Done "done",
        /// No version, cipher, or certificate in common, or no TLS at all.
        Failed "failed",
        TimedOut "timed_out",
    }
}

label! {
    /// What came of an order to read the configuration again.
    Reload "result" {
        /// A new generation took over, or the certificates alone were read again.
        Done "done",
        /// Nothing changed.
        Failed "failed",
    }
}

label! {
    /// Why a line of the access log was lost.
    LostLine "reason" {
        /// The disk, or whoever reads the log, is slower than the requests.
        Slow "slow",
        /// The system refused it: a full disk, a reader that went away.
        Failed "failed",
    }
}

label! {
    /// Frames that a client sent too many of, over HTTP/2.
    Flood "frame" {
        EmptyData "empty_data",
        Priority "priority",
        RstStream "rst_stream",
        Settings "settings",
        Ping "ping",
        WindowUpdate "window_update",
        Continuation "continuation",
        /// Of a kind that is not known, or that no client sends.
        Unknown "unknown",
        /// The HTTP/2 engine lost patience first: streams opened and reset at once, resets provoked, small DATA that nobody
        /// has read, a compressed head that is far too large.
        Engine "engine",
    }
}

counters! {
    /// What one core counts, apart from its pools.
    CoreCounters {
        accepted_connections: u64, "ptth_accepted_connections_total", "Connections that were accepted.";
        accept_backoffs: u64, "ptth_accept_backoffs_total", "Pauses in accepting for want of file descriptors.";
        accept_pauses: Tally<AcceptPause>, "ptth_accept_pauses_total", "Pauses in accepting, of one listener each, because a limit was reached.";
        connections_refused: Tally<ConnectionRefusal>, "ptth_connections_refused_total", "Connections that were closed at once.";
        proxy_headers: Tally<Introduction>, "ptth_proxy_headers_total", "Connections to addresses with proxy_protocol.";
        tls_handshakes: Tally<Handshake>, "ptth_tls_handshakes_total", "TLS handshakes with clients and workers.";
        client_floods: Tally<Flood>, "ptth_client_floods_total", "HTTP/2 connections of clients that were ended for too many frames of a kind.";
        connection_panics: u64, "ptth_connection_panics_total", "Connections that ended by a defect of the edge.";
        clients_gone: u64, "ptth_clients_gone_total", "Clients that left before their answer was complete.";
        bytes: Tally<Direction>, "ptth_bytes_total", "Bytes of bodies, and of what was upgraded, that came from one side and were passed on to the other.";
        requeues: Tally<Requeue>, "ptth_requeues_total", "Requests that went back to their queue.";
        refusals: Tally<RefusalReason>, "ptth_refusals_total", "Requests that the edge answered itself.";
        access_log_lines: u64, "ptth_access_log_lines_total", "Lines of the access log that were written.";
        access_log_dropped_lines: Tally<LostLine>, "ptth_access_log_dropped_lines_total", "Lines of the access log that were lost.";
        setups: u64, "ptth_setups_total", "Setups of workers that were accepted.";
        links_mute: u64, "ptth_links_mute_total", "Links whose workers took requests and answered none for as long as their pool waits.";
        setups_refused: Tally<SetupRefusal>, "ptth_setups_refused_total", "Setups of workers that were refused.";
    }
}

counters! {
    /// What one core counts for one pool.
    PoolCounters {
        requests: TallyByClass<StatusClass>, "ptth_requests_total", "Requests that were answered, by urgency and by class of status.";
        dispatches: Tally<Dispatch>, "ptth_dispatches_total", "Requests that were handed to a link.";
        queue_wait: ByClass, "ptth_queue_wait_seconds", "From head to dispatch; 0 if a credit was free.";
        handoff: ByClassAndKind, "ptth_handoff_seconds", "From the moment when a waiting request and a credit for it were both there to its dispatch.";
        idle_while_queued: Nanoseconds, "ptth_idle_while_queued_seconds_total", "Time that credits were idle while a request that they could serve waited; the sum of all handoffs.";
        inversions: u64, "ptth_dispatch_inversions_total", "Dispatches while a more urgent request of the pool had waited for over 50 us.";
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

    /// The same with other numbers of the pools: pool `n` of these is pool `places[n]` of `pools`.
    #[must_use]
    pub fn renumbered(&self, places: &[usize], pools: usize) -> Counters {
        let mut renumbered = Counters::new(pools);
        renumbered.core = self.core.clone();
        renumbered.unrouted = self.unrouted.clone();
        for (own, place) in self.pools.iter().zip(places) {
            renumbered.pools[*place].add(own);
        }
        renumbered
    }

    /// Counts a fault of a request where its reason belongs. Call it once for each answer that the edge makes up.
    pub fn refused(&mut self, fault: Fault) {
        match RefusalReason::of(fault) {
            Some(reason) => self.core.refusals.one(reason),
            None if fault == Fault::ClientGone => self.core.clients_gone += 1,
            // A worker's own answer; an edge passes it through.
            None if fault == Fault::OriginUnreachable => {}
            None => self.setup_refused(fault),
        }
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
            Fault::SetupsTooMany { .. } => SetupRefusal::Rate,
            Fault::Draining => SetupRefusal::Draining,
            _ => SetupRefusal::Malformed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_every_bucket_that_holds_it() {
        for (ns, want) in [
            (0, Some(0)),
            (250, Some(0)),
            (260, Some(1)),
            (256_000, Some(10)),
            (260_000, Some(11)),
            (1_000_000, Some(12)),
            (67_108_864_000, Some(DURATION_BUCKETS - 1)),
            (68_000_000_000, None),
            (u64::MAX / 4, None),
        ] {
            let mut durations = Durations::default();
            durations.observe_ns(ns);
            let cumulated = durations.cumulated();
            assert_eq!(cumulated.iter().position(|(_, count)| *count == 1), want, "{ns} ns");
            assert!(cumulated.is_sorted_by_key(|(bound_ns, count)| (*bound_ns, *count)), "{ns} ns");
            assert_eq!((durations.count(), durations.sum_ns()), (1, ns));
        }
    }

    #[test]
    fn what_took_no_time_is_in_every_bucket_and_needs_no_histogram() {
        let mut durations = Durations::default();
        durations.at_once();
        assert!(durations.others.is_none());
        assert!(durations.cumulated().iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn one_with_room_for_all_tells_the_same() {
        let (mut roomy, mut usual) = (Durations::roomy(), Durations::default());
        for ns in [0, 250, 260, 256_000, 67_108_864_000, 68_000_000_000] {
            roomy.observe_ns(ns);
            usual.observe_ns(ns);
        }
        assert_eq!(roomy.cumulated(), usual.cumulated());
        assert_eq!((roomy.count(), roomy.sum_ns()), (usual.count(), usual.sum_ns()));
        usual.add(&roomy);
        assert_eq!(usual.count(), 12);
    }

    #[test]
    fn the_cores_add_up() {
        let (mut a, mut b) = (Counters::new(2), Counters::new(2));
        a.core.accepted_connections = 3;
        b.core.accepted_connections = 4;
        b.core.bytes.many(Direction::Response, 10);
        a.pools[1].requests.one(Class::of(3), StatusClass::of(200));
        b.pools[1].requests.one(Class::of(6), StatusClass::of(204));
        b.pools[0].queue_wait.observe_ns(Class::of(2), 5);
        a.pools[0].queue_wait.at_once(Class::of(2));
        b.pools[1].handoff.observe_ns(Class::of(7), Dispatch::CrossAsleep, 9);
        b.pools[1].idle_while_queued.0 += 9;
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
        let waits = sum.pools[0].queue_wait.of(Class::of(2));
        assert_eq!((waits.count(), waits.sum_ns()), (2, 5));
        assert_eq!(sum.pools[1].handoff.of(Class::of(7), Dispatch::CrossAsleep).count(), 1);
        assert_eq!(sum.pools[1].idle_while_queued, Nanoseconds(9));
        assert_eq!(sum.core.refusals.get(RefusalReason::QueueFull), 1);
        assert_eq!((sum.core.refusals.sum(), sum.core.clients_gone), (1, 1));
        assert_eq!(sum.core.setups_refused.get(SetupRefusal::Limit), 1);
        assert_eq!(sum.unrouted.get(StatusClass::Client), 1);
    }
}
