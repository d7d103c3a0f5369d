//! What `ptth top` shows, from one report of an edge and the one before it: rows, rates, and what the keys have changed. Terminals and
//! sockets never enter.

use crate::clock::Now;
use crate::edge::admin::findings::Grade;
use crate::edge::report::{Amount, HistogramReport, LeavingReport, LinkReport, PoolReport, Report};
use crate::limits::TOP_SAMPLES;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::super::status::{labels, longer, visible};

/// The tables, in the order of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Pools,
    Links,
    Reasons,
}

impl Tab {
    pub(super) const ALL: [Tab; 3] = [Tab::Pools, Tab::Links, Tab::Reasons];

    /// The orders of its rows, the first one at the start.
    fn orders(self) -> &'static [Order] {
        match self {
            Tab::Pools => &[Order::AsTold, Order::Queued, Order::Rate, Order::Running, Order::Name],
            Tab::Links => &[Order::AsTold, Order::Running, Order::Credits, Order::Silent, Order::Newest, Order::Name],
            Tab::Reasons => &[Order::Rate, Order::Total, Order::Name],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As the edge tells them: pools as in its configuration, links by their cores.
    AsTold,
    Queued,
    Rate,
    Running,
    Credits,
    Silent,
    Newest,
    Total,
    Name,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::AsTold => "as told",
            Order::Queued => "queued",
            Order::Rate => "rate",
            Order::Running => "in flight",
            Order::Credits => "credits",
            Order::Silent => "silent",
            Order::Newest => "newest",
            Order::Total => "total",
            Order::Name => "name",
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    NextTab,
    TabBefore,
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    NextOrder,
    Pause,
    Help,
}

/// A wait as a histogram knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wait {
    /// Nothing was sent, or the edge has begun to count anew.
    Unknown,
    AtMostSeconds(f64),
    /// Above every bound.
    Longer,
}

#[derive(Clone, Debug)]
pub(super) struct PoolRow {
    pub name: String,
    pub queued: u64,
    pub queued_bytes: u64,
    pub links: u64,
    pub credits: u64,
    pub in_flight: u64,
    /// Answered in a second; `None`: there is nothing to compare with.
    pub rate: Option<f64>,
    pub p50: Wait,
    pub p99: Wait,
    /// The queue's depths of the last minute, oldest first.
    pub depths: Vec<u64>,
    /// Class and how many of it wait, the most urgent first; those that have any.
    pub classes: Vec<(usize, u64)>,
}

#[derive(Clone, Debug)]
pub(super) struct LinkRow {
    pub id: String,
    pub worker: String,
    pub worker_id: String,
    pub pools: String,
    pub labels: String,
    pub address: String,
    pub core: u16,
    pub protocol: String,
    pub credits: u64,
    pub in_flight: u64,
    pub answer_ms: Option<f64>,
    pub silent_seconds: u64,
    pub is_mute: bool,
    pub up_seconds: u64,
}

/// Why the edge answered, sent again or turned away, and how often.
#[derive(Clone, Debug)]
pub(super) struct ReasonRow {
    pub what: &'static str,
    pub reason: String,
    pub rate: Option<f64>,
    pub total: u64,
}

/// One answer of the edge, as it is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub version: String,
    pub up_seconds: u64,
    pub generation: u64,
    pub is_draining: bool,
    pub rate: Option<f64>,
    pub queued: u64,
    pub in_flight: u64,
    pub clients: u64,
    /// What is wrong, worst first; behind it the configurations that leave.
    pub notes: Vec<(Grade, String)>,
    pub pools: Vec<PoolRow>,
    pub links: Vec<LinkRow>,
    pub reasons: Vec<ReasonRow>,
    /// How many answers there were: where a minute is drawn in fewer columns, it moves by whole ones.
    pub answers: u64,
}

/// Depths of the queues, by pool, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths {
    of: BTreeMap<String, VecDeque<u64>>,
    answers: u64,
}

impl Depths {
    fn note(&mut self, report: &Report) {
        self.answers += 1;
        self.of.retain(|name, _| report.pools.iter().any(|pool| pool.name == *name));
        for pool in &report.pools {
            let depths = self.of.entry(pool.name.clone()).or_default();
            depths.push_back(pool.queued);
            if depths.len() > TOP_SAMPLES {
                depths.pop_front();
            }
        }
    }
}

impl Shown {
    /// `previous` is an earlier report of the same process, and how long ago it came.
    pub(super) fn of(previous: Option<(&Report, u64)>, report: &Report, depths: &Depths, now_unix: u64) -> Shown {
        let findings = report
            .findings
            .iter()
            .map(|finding| (finding.grade, format!("{}: {}", visible(&finding.about), longer(&finding.text))));
        let leaving = report.leaving.iter().map(|leaving| {
            let LeavingReport { generation, connections, links, queued, in_flight } = leaving;
            let text = format!(
                "configuration {generation} leaves: {connections} connections, {links} links, {queued} queued, \
                 {in_flight} in flight"
            );
            (Grade::Note, text)
        });
        let pool_before = |pool: &PoolReport| {
            let (before, ms) = previous?;
            Some((before.pools.iter().find(|old| old.name == pool.name)?, ms))
        };
        let answered = |report: &Report| {
            let unrouted = by(&report.counters, "unrouted_requests").map(|(_, count)| count).sum::<u64>();
            report.pools.iter().map(|pool| counted(&pool.counters, "requests")).sum::<u64>() + unrouted
        };
        Shown {
            version: visible(&report.version),
            up_seconds: report.uptime_seconds,
            generation: report.generation,
            is_draining: report.draining,
            rate: previous.and_then(|(before, ms)| per_second(answered(before), answered(report), ms)),
            queued: report.pools.iter().map(|pool| pool.queued).sum(),
            in_flight: report.pools.iter().map(|pool| pool.in_flight).sum(),
            clients: report.cores.iter().map(|core| core.connections).sum(),
            notes: findings.chain(leaving).collect(),
            pools: report.pools.iter().map(|pool| pool_row(pool_before(pool), pool, depths)).collect(),
            links: report.links.iter().map(|link| link_row(link, now_unix)).collect(),
            reasons: reason_rows(previous, report),
            answers: depths.answers,
        }
    }

    fn rows(&self, tab: Tab) -> usize {
        match tab {
            Tab::Pools => self.pools.len(),
            Tab::Links => self.links.len(),
            Tab::Reasons => self.reasons.len(),
        }
    }

    /// Which row is where on the screen. Equal rows stay in the order in which the edge tells them.
    fn places(&self, tab: Tab, order: Order) -> Vec<usize> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a rate is never below 0
        let tenths = |rate: Option<f64>| (rate.unwrap_or(0.0) * 10.0) as u64;
        let mut places: Vec<usize> = (0..self.rows(tab)).collect();
        let (pools, links, reasons) = (&self.pools, &self.links, &self.reasons);
        match (tab, order) {
            (Tab::Pools, Order::Queued) => places.sort_by_key(|&n| Reverse(pools[n].queued)),
            (Tab::Pools, Order::Rate) => places.sort_by_key(|&n| Reverse(tenths(pools[n].rate))),
            (Tab::Pools, Order::Running) => places.sort_by_key(|&n| Reverse(pools[n].in_flight)),
            (Tab::Pools, Order::Name) => places.sort_by_key(|&n| &pools[n].name),
            (Tab::Links, Order::Running) => places.sort_by_key(|&n| Reverse(links[n].in_flight)),
            (Tab::Links, Order::Credits) => places.sort_by_key(|&n| Reverse(links[n].credits)),
            (Tab::Links, Order::Silent) => {
                places.sort_by_key(|&n| Reverse((links[n].is_mute, links[n].silent_seconds)));
            }
            (Tab::Links, Order::Newest) => places.sort_by_key(|&n| links[n].up_seconds),
            (Tab::Links, Order::Name) => places.sort_by_key(|&n| (&links[n].worker, &links[n].worker_id)),
            (Tab::Reasons, Order::Rate) => {
                places.sort_by_key(|&n| Reverse((tenths(reasons[n].rate), reasons[n].total)));
            }
            (Tab::Reasons, Order::Total) => places.sort_by_key(|&n| Reverse(reasons[n].total)),
            (Tab::Reasons, Order::Name) => places.sort_by_key(|&n| (reasons[n].what, &reasons[n].reason)),
            (_, _) => {} // as told
        }
        places
    }
}

fn pool_row(before: Option<(&PoolReport, u64)>, pool: &PoolReport, depths: &Depths) -> PoolRow {
    let requests = |pool: &PoolReport| counted(&pool.counters, "requests");
    let waits = before.and_then(|(before, _)| waits_between(before, pool));
    let wait = |share| waits.as_ref().map_or(Wait::Unknown, |waits| wait(waits, share));
    PoolRow {
        name: visible(&pool.name),
        queued: pool.queued,
        queued_bytes: pool.queued_bytes,
        links: pool.links,
        credits: pool.credits,
        in_flight: pool.in_flight,
        rate: before.and_then(|(before, ms)| per_second(requests(before), requests(pool), ms)),
        p50: wait(0.5),
        p99: wait(0.99),
        depths: depths.of.get(&pool.name).map(|depths| depths.iter().copied().collect()).unwrap_or_default(),
        classes: pool.queued_by_class.iter().copied().enumerate().filter(|(_, queued)| *queued > 0).collect(),
    }
}

fn link_row(link: &LinkReport, now_unix: u64) -> LinkRow {
    LinkRow {
        id: visible(&link.id),
        worker: visible(&link.worker),
        worker_id: visible(if link.worker_id.is_empty() { "-" } else { &link.worker_id }),
        pools: visible(&link.pools.join(",")),
        labels: visible(&labels(&link.labels)),
        address: visible(&link.address),
        core: link.core,
        protocol: visible(&link.protocol),
        credits: link.credits,
        in_flight: link.in_flight,
        answer_ms: link.answer_ms.filter(|ms| ms.is_finite()),
        silent_seconds: link.silent_seconds,
        is_mute: link.mute,
        up_seconds: now_unix.saturating_sub(link.since_unix),
    }
}

/// Those that happened since the start.
fn reason_rows(previous: Option<(&Report, u64)>, report: &Report) -> Vec<ReasonRow> {
    let kinds = [("refused", "refusals"), ("sent again", "requeues"), ("setup refused", "setups_refused")];
    let rows = kinds.iter().flat_map(|&(what, field)| {
        by(&report.counters, field).filter(|(_, total)| *total > 0).map(move |(reason, total)| {
            let rate = previous.and_then(|(before, ms)| {
                let old = by(&before.counters, field).find(|(own, _)| *own == reason).map_or(0, |(_, count)| count);
                per_second(old, total, ms)
            });
            ReasonRow { what, reason: visible(reason), rate, total }
        })
    });
    rows.collect()
}

/// The values of a counter that has a label.
fn by<'r>(counters: &'r BTreeMap<String, Amount>, field: &str) -> impl Iterator<Item = (&'r str, u64)> {
    let amounts = match counters.get(field) {
        Some(Amount::By(amounts)) => Some(amounts),
        _ => None,
    };
    amounts.into_iter().flatten().map(|(name, count)| (name.as_str(), *count))
}

fn counted(counters: &BTreeMap<String, Amount>, field: &str) -> u64 {
    by(counters, field).map(|(_, count)| count).sum()
}

/// `None` where the edge counts anew, or no time has passed.
fn per_second(before: u64, count: u64, ms: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)] // what a second brings is far below 2^53
    (ms > 0).then_some(count.checked_sub(before)? as f64 * 1e3 / ms as f64)
}

/// The waits of what was sent between two reports; `None` where the edge counts anew.
fn waits_between(before: &PoolReport, pool: &PoolReport) -> Option<HistogramReport> {
    let waits = |pool: &PoolReport| match pool.counters.get("queue_wait") {
        Some(Amount::Histograms(waits)) => HistogramReport::sum(waits),
        _ => None,
    };
    let mut since = waits(pool)?;
    let Some(old) = waits(before) else { return Some(since) }; // nothing was sent before
    since.count = since.count.checked_sub(old.count)?;
    for (bucket, old) in since.buckets.iter_mut().zip(&old.buckets) {
        bucket.1 = bucket.1.checked_sub(old.1)?;
    }
    Some(since)
}

fn wait(waits: &HistogramReport, share: f64) -> Wait {
    match waits.quantile_seconds(share) {
        Some(seconds) => Wait::AtMostSeconds(seconds),
        None if waits.count == 0 => Wait::Unknown,
        None => Wait::Longer,
    }
}

/// No answer, since when and why.
#[derive(Clone, Debug)]
struct Trouble {
    since: Now,
    text: String,
}

/// Everything that is on the screen.
#[derive(Debug)]
pub(super) struct State {
    newest: Shown,
    /// What is shown instead of the newest while it is paused.
    held: Option<Shown>,
    before: Option<(Report, Now)>,
    depths: Depths,
    trouble: Option<Trouble>,
    now: Now,
    pub(super) tab: Tab,
    orders: [usize; Tab::ALL.len()],
    offsets: [usize; Tab::ALL.len()],
    /// Rows of the table in front that the screen has room for.
    page: usize,
    pub(super) has_help: bool,
    pub(super) has_colours: bool,
}

impl State {
    pub(super) fn new(has_colours: bool, now: Now) -> State {
        State {
            newest: Shown::default(),
            held: None,
            before: None,
            depths: Depths::default(),
            trouble: None,
            now,
            tab: Tab::Pools,
            orders: [0; Tab::ALL.len()],
            offsets: [0; Tab::ALL.len()],
            page: 1,
            has_help: true,
            has_colours,
        }
    }

    /// What the edge answered, or why it did not. Rates are those since the answer before, if the same process gave it.
    pub(super) fn take(&mut self, answer: Result<Report, String>, now: Now, now_unix: u64) {
        self.now = now;
        let report = match answer {
            Ok(report) => report,
            Err(text) => {
                let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
                self.trouble = Some(Trouble { since, text: longer(&text) });
                return;
            }
        };
        self.trouble = None;
        self.depths.note(&report);
        let before = self.before.as_ref().filter(|(before, _)| before.pid == report.pid);
        let before = before.map(|(before, came)| (before, now.ms_since(*came)));
        self.newest = Shown::of(before, &report, &self.depths, now_unix);
        self.before = Some((report, now));
    }

    /// Time has passed.
    pub(super) fn at(&mut self, now: Now) {
        self.now = now;
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        let place = self.tab as usize;
        let step = |by: usize| Tab::ALL[(place + by) % Tab::ALL.len()];
        match wish {
            Wish::NextTab => self.tab = step(1),
            Wish::TabBefore => self.tab = step(Tab::ALL.len() - 1),
            Wish::Up => self.offsets[place] = self.offsets[place].saturating_sub(1),
            Wish::Down => self.offsets[place] += 1,
            Wish::PageUp => self.offsets[place] = self.offsets[place].saturating_sub(self.page),
            Wish::PageDown => self.offsets[place] += self.page,
            Wish::Top => self.offsets[place] = 0,
            Wish::Bottom => self.offsets[place] = usize::MAX / 2,
            Wish::NextOrder => {
                self.orders[place] = (self.orders[place] + 1) % self.tab.orders().len();
                self.offsets[place] = 0;
            }
            Wish::Pause => {
                self.held = match self.held {
                    Some(_) => None,
                    None => Some(self.newest.clone()),
                };
            }
            Wish::Help => self.has_help = !self.has_help,
        }
        if self.tab as usize == place {
            self.clamp();
        }
    }

    /// The screen has room for so many rows of the table in front.
    pub(super) fn has_room(&mut self, rows: usize) {
        self.page = rows.max(1);
        self.clamp();
    }

    fn clamp(&mut self) {
        let last = self.shown().rows(self.tab).saturating_sub(self.page);
        let offset = &mut self.offsets[self.tab as usize];
        *offset = last.min(*offset);
    }

    pub(super) fn shown(&self) -> &Shown {
        self.held.as_ref().unwrap_or(&self.newest)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn order(&self, tab: Tab) -> Order {
        tab.orders()[self.orders[tab as usize]]
    }

    /// The rows of a table, in their order.
    pub(super) fn places(&self, tab: Tab) -> Vec<usize> {
        self.shown().places(tab, self.order(tab))
    }

    pub(super) fn offset(&self, tab: Tab) -> usize {
        self.offsets[tab as usize]
    }

    /// For how many seconds there has been no answer, and why.
    pub(super) fn trouble(&self) -> Option<(u64, &str)> {
        self.trouble.as_ref().map(|trouble| (self.now.ms_since(trouble.since) / 1_000, trouble.text.as_str()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::edge::admin::findings::Finding;
    use crate::edge::report::CoreReport;

    fn tally(counts: &[(&str, u64)]) -> Amount {
        Amount::By(counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    /// So many waits of at most a millisecond, and so many of up to 131.
    fn waits(short: u64, long: u64) -> Amount {
        let buckets = vec![(0.001_024, short), (0.131_072, short + long)];
        let count = short + long;
        Amount::Histograms(vec![HistogramReport { labels: BTreeMap::new(), count, sum_seconds: 0.0, buckets }])
    }

    /// Two pools, one of them full, and forty links; `second` counts from 0.
    pub(in super::super) fn loaded(second: u64) -> Report {
        let full = PoolReport {
            name: "app".into(),
            queued: 12_345 * second,
            queued_by_class: vec![12_000 * second, 0, 0, 345 * second],
            queued_bytes: 3 << 20,
            links: 40,
            in_flight: 64,
            counters: [
                ("requests".to_owned(), tally(&[("2xx", 5_000 + 290 * second), ("5xx", 10 * second)])),
                ("queue_wait".to_owned(), waits(9_000 + 200 * second, 1_000 + 100 * second)),
            ]
            .into(),
            ..PoolReport::default()
        };
        let other = PoolReport { name: "a-name-that-is-rather-long".into(), queued: 5, in_flight: 6, ..full.clone() };
        let other = PoolReport { counters: BTreeMap::new(), queued_by_class: vec![5], ..other };
        let link = |number: u64| LinkReport {
            id: format!("0-{number}"),
            worker: format!("web-{number}\u{1b}[2J"),
            worker_id: format!("host-{number}"),
            protocol: "h2".into(),
            address: "192.0.2.1:40000".into(),
            pools: vec!["app".into()],
            in_flight: number % 3,
            silent_seconds: number % 7,
            mute: number == 2,
            since_unix: 1_000 + number,
            ..LinkReport::default()
        };
        let finding = Finding {
            grade: Grade::Bad,
            about: "pool app".into(),
            text: "its queue is full, or nearly: 12345 of 12400 requests, and the text is too long for one line".into(),
        };
        Report {
            version: "1.2.3".into(),
            pid: 7,
            uptime_seconds: 3_725,
            generation: 3,
            pools: vec![full, other],
            links: (0..40).map(link).collect(),
            cores: vec![CoreReport { connections: 200, ..CoreReport::default() }],
            counters: [
                ("refusals".to_owned(), tally(&[("queue_full", 1_000 + 7 * second), ("no_pool", 3), ("draining", 0)])),
                ("requeues".to_owned(), tally(&[("retried", 2 * second)])),
            ]
            .into(),
            findings: vec![finding],
            ..Report::default()
        }
    }

    /// Nothing waits, and nothing is wrong.
    pub(in super::super) fn quiet() -> Report {
        Report { findings: Vec::new(), ..loaded(0) }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_and_waits_are_those_between_two_answers() {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(0)), Now(0), 0);
        let first = &state.shown().pools[0];
        assert_eq!((first.rate, first.p50, state.shown().rate), (None, Wait::Unknown, None));
        state.take(Ok(loaded(1)), Now(SECOND / 2), 0);
        let shown = state.shown();
        assert_eq!((shown.rate, shown.pools[0].rate, shown.pools[1].rate), (Some(600.0), Some(600.0), Some(0.0)));
        // 200 of 300 were short; since the start it was nine of ten.
        assert_eq!(shown.pools[0].p50, Wait::AtMostSeconds(0.001_024));
        assert_eq!(shown.pools[0].p99, Wait::AtMostSeconds(0.131_072));
        assert_eq!(shown.pools[1].p99, Wait::Unknown);
        assert_eq!(shown.pools[0].depths, [0, 12_345]);
        assert_eq!(shown.pools[0].classes, [(0, 12_000), (3, 345)]);
        let reasons: Vec<_> = shown.reasons.iter().map(|row| (row.what, row.reason.as_str(), row.rate)).collect();
        let want = [
            ("refused", "no_pool", Some(0.0)),
            ("refused", "queue_full", Some(14.0)),
            ("sent again", "retried", Some(4.0)),
        ];
        assert_eq!(reasons, want); // "draining" never happened
    }

    #[test]
    fn another_process_begins_anew_and_the_minute_goes_on() {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(1)), Now(0), 0);
        state.take(Ok(Report { pid: 8, ..loaded(0) }), Now(SECOND), 0);
        assert_eq!((state.shown().rate, state.shown().pools[0].p99), (None, Wait::Unknown));
        assert_eq!(state.shown().pools[0].depths, [12_345, 0]);
        state.take(Ok(Report { pid: 8, ..loaded(1) }), Now(2 * SECOND), 0);
        assert_eq!(state.shown().rate, Some(300.0));
    }

    #[test]
    fn counters_that_went_back_have_no_rate() {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(1)), Now(0), 0);
        state.take(Ok(loaded(0)), Now(SECOND), 0);
        let shown = state.shown();
        assert_eq!((shown.pools[0].rate, shown.pools[0].p50, shown.reasons[1].rate), (None, Wait::Unknown, None));
        state.take(Ok(loaded(1)), Now(SECOND), 0); // at the same moment
        assert_eq!(state.shown().rate, None);
    }

    #[test]
    fn the_minute_is_bounded_and_forgets_pools_that_have_gone() {
        let mut state = State::new(false, Now(0));
        for second in 0..100 {
            state.take(Ok(loaded(second)), Now(second * SECOND), 0);
        }
        assert_eq!(state.shown().pools[0].depths.len(), TOP_SAMPLES);
        assert_eq!(state.shown().pools[0].depths.last(), Some(&(99 * 12_345)));
        state.take(Ok(Report { pools: Vec::new(), ..loaded(0) }), Now(100 * SECOND), 0);
        assert!(state.depths.of.is_empty());
    }

    #[test]
    fn each_order_sorts_by_what_it_says_and_the_last_leads_to_the_first() {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(1)), Now(0), 2_000);
        let told: Vec<usize> = (0..40).collect();
        for tab in Tab::ALL {
            assert_eq!(state.tab, tab);
            for _ in tab.orders() {
                let (order, places) = (state.order(tab), state.places(tab));
                let mut sorted = places.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, told[..places.len()], "{tab:?} {order:?}");
                let (first, shown) = (places[0], state.shown());
                match (tab, order) {
                    (Tab::Pools, Order::Queued | Order::Running) => assert_eq!(shown.pools[first].name, "app"),
                    (Tab::Pools, Order::Name) => assert_eq!(first, 1),
                    (Tab::Links, Order::Silent) => assert!(shown.links[first].is_mute),
                    (Tab::Links, Order::Running) => assert_eq!(shown.links[first].in_flight, 2),
                    (Tab::Links, Order::Newest) => assert_eq!(shown.links[first].id, "0-39"),
                    (Tab::Reasons, Order::Total) => assert_eq!(shown.reasons[first].reason, "queue_full"),
                    (Tab::Reasons, Order::Name) => assert_eq!(shown.reasons[first].reason, "no_pool"),
                    (_, Order::AsTold) => assert_eq!(places, told[..places.len()]),
                    _ => {}
                }
                state.wish(Wish::NextOrder);
            }
            assert_eq!(state.order(tab), tab.orders()[0]);
            state.wish(Wish::NextTab);
        }
        assert_eq!(state.tab, Tab::Pools);
        state.wish(Wish::TabBefore);
        assert_eq!(state.tab, Tab::Reasons);
    }

    #[test]
    fn what_is_paused_stands_still_and_misses_nothing() {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(0)), Now(0), 0);
        state.wish(Wish::Pause);
        state.take(Ok(loaded(1)), Now(SECOND), 0);
        assert!(state.is_paused() && state.shown().queued == 5);
        state.wish(Wish::Pause);
        assert!(!state.is_paused() && state.shown().queued == 12_350);
        assert_eq!(state.shown().rate, Some(300.0));
    }
}
