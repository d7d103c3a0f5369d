//! What the edge was like in the last minutes: one sample a second, for charts, for the pace of queues, and for links that do
//! not answer. Taken by one task, from all cores of all generations; bounds are in `limits`. What a sample means for whoever
//! runs the edge never enters.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::admin::events;
use super::core::Core;
use super::inquiry;
use crate::clock::{self, Now};
use crate::events::{Counters, Durations, Label as _, RefusalReason, StatusClass};
use crate::ids::{Class, CoreId, LinkId};
use crate::io;
use crate::limits::{DURATION_BUCKETS, HISTORY_SAMPLES, PACE_SAMPLES, SAMPLE_MS};

/// A number for each class, the most urgent first.
pub type ByClass<T> = [T; Class::COUNT];

/// What one core has to tell of the time since it was asked last, and of this moment.
#[derive(Debug)]
pub struct Pulse {
    /// Indexed by pool.
    pools: Vec<PoolPulse>,
    links: Vec<LinkPulse>,
    /// By `RefusalReason`.
    refused: Vec<u64>,
    requeued: u64,
}

#[derive(Clone, Debug, Default)]
struct PoolPulse {
    queued: ByClass<u32>,
    links: u32,
    credits: u32,
    in_flight: u32,
    dispatched: u32,
    answered: u32,
    failed: u32,
    waits: Vec<(usize, Waits)>,
}

#[derive(Clone, Copy, Debug)]
struct LinkPulse {
    link: LinkId,
    in_flight: u32,
    ended: u64,
}

/// How many waited at most as long as each bound, as `Durations::cumulated` has them; the last one counts all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waits([u32; DURATION_BUCKETS], u32);

/// What a core had counted when it was asked last.
#[derive(Default)]
pub struct Told {
    pools: Vec<PoolTold>,
    refused: Vec<u64>,
    requeued: u64,
}

#[derive(Clone, Default)]
struct PoolTold {
    dispatched: u64,
    answered: u64,
    failed: u64,
    /// By class; none where nothing was ever counted.
    waits: ByClass<Option<Box<Waits>>>,
}

/// How a link has been doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Track {
    ended: u64,
    /// How long a request is with the worker, in milliseconds: what was in flight by what ended, over some ten seconds.
    /// `None`: nothing has ended.
    pub answer_ms: Option<f64>,
    in_flight: f64,
    ends_per_s: f64,
    seen: u64,
}

/// The last samples of all pools.
#[derive(Default)]
pub struct History {
    /// Seconds since 1970, oldest first; at most `HISTORY_SAMPLES`.
    at_unix: VecDeque<u64>,
    /// Seconds that each sample is about: a busy core takes one late, and a reload takes its time.
    spans_s: VecDeque<f64>,
    /// When the last one was taken.
    taken: Option<Now>,
    /// By name. A pool that came later has fewer samples; its last is everybody's last.
    pools: Vec<(String, VecDeque<Sample>)>,
    whole: VecDeque<WholeSample>,
    /// By generation, core and link.
    links: HashMap<(u64, CoreId, LinkId), Track>,
    rounds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    queued: ByClass<u32>,
    wait_p50_us: ByClass<Option<u32>>,
    wait_p99_us: ByClass<Option<u32>>,
    links: u32,
    credits: u32,
    in_flight: u32,
    dispatched: u32,
    answered: u32,
    failed: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct WholeSample {
    /// By `RefusalReason`.
    refused: Vec<u32>,
    requeued: u32,
}

/// Samples as they are shown: columns, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryReport {
    pub at_unix: Vec<u64>,
    /// Requests that the edge answered itself, and that went back to their queue.
    pub refused: Vec<u32>,
    pub requeued: Vec<u32>,
    pub pools: Vec<PoolHistory>,
}

/// Each column has at most as many samples as `at_unix`, and ends with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolHistory {
    pub name: String,
    pub links: Vec<u32>,
    pub credits: Vec<u32>,
    pub in_flight: Vec<u32>,
    /// Since the sample before: handed to links, answered, and answered with 5xx.
    pub dispatched: Vec<u32>,
    pub answered: Vec<u32>,
    pub failed: Vec<u32>,
    /// Those that had anything.
    pub classes: Vec<ClassHistory>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassHistory {
    pub class: u8,
    pub queued: Vec<u32>,
    /// Of those that were dispatched since the sample before: at most so long, by buckets each twice as wide. `None`: there were none.
    pub wait_p50_us: Vec<Option<u32>>,
    pub wait_p99_us: Vec<Option<u32>>,
}

/// What a pool did lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Dispatches in a second, answers, and those among them with 5xx, over the time that lay between the samples.
    pub per_s: f64,
    pub answered_per_s: f64,
    pub failed_per_s: f64,
    /// How many more wait than `PACE_SAMPLES` ago, or than at the first sample.
    pub growth: i64,
    /// The longest of the waits' p50 and p99, all classes, in the last of those samples that had any.
    pub wait_p50_us: Option<u32>,
    pub wait_p99_us: Option<u32>,
}

/// Takes a sample every `SAMPLE_MS`, as long as this generation is the newest one.
pub async fn keep(core: Rc<Core>) {
    while !core.has_successor() {
        io::sleep_ms(SAMPLE_MS).await;
        sample(&core).await;
        events::publish(&core).await;
    }
}

async fn sample(core: &Rc<Core>) {
    let lineage = &core.shared.lineage;
    let Some(look) = lineage.look() else { return };
    if look.living.last().is_none_or(|present| present.shared.generation != core.shared.generation) {
        return;
    }
    let tick = Tick { at_unix: clock::unix_seconds(), now: clock::now(), started: lineage.started };
    let mut pulses = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for member in look.living.iter().rev() {
        let own: Vec<String> = member.shared.pool_names().map(str::to_owned).collect();
        for index in (0..member.shared.posts.len()).filter(|index| member.ended_core(*index).is_none()) {
            if let Some(pulse) = inquiry::ask(core, member, index, Core::pulse).await {
                let id = CoreId(u16::try_from(index).unwrap_or(u16::MAX));
                pulses.push(CorePulse { generation: member.shared.generation, core: id, names: own.clone(), pulse });
            }
        }
        names.extend(own.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    lineage.history().note(tick, &names, pulses);
}

/// When a sample is taken.
#[derive(Clone, Copy, Debug)]
struct Tick {
    at_unix: u64,
    now: Now,
    /// The first sample is about the time since then.
    started: Now,
}

/// A pulse, and whose it is.
struct CorePulse {
    generation: u64,
    core: CoreId,
    /// Of its pools.
    names: Vec<String>,
    pulse: Pulse,
}

/// What a core tells now, given what it had told before.
pub fn pulse(counters: &Counters, told: &mut Told, pools: Vec<PoolNow>, links: Vec<LinkNow>) -> Pulse {
    let since = |now: u64, then: &mut u64| now.saturating_sub(std::mem::replace(then, now));
    told.pools.resize(pools.len(), PoolTold::default());
    let mut parts = Vec::with_capacity(pools.len());
    for (index, now) in pools.into_iter().enumerate() {
        let (counted, told) = (&counters.pools[index], &mut told.pools[index]);
        let failed = counted.requests.get(StatusClass::Server);
        let waits = Class::all().filter_map(|class| {
            let waits = since_then(counted.queue_wait.of(class), &mut told.waits[class.index()])?;
            Some((class.index(), waits))
        });
        parts.push(PoolPulse {
            waits: waits.collect(),
            queued: now.queued.map(narrow_usize),
            links: now.links,
            credits: now.credits,
            in_flight: now.in_flight,
            dispatched: narrow(since(counted.dispatches.sum(), &mut told.dispatched)),
            answered: narrow(since(counted.requests.sum(), &mut told.answered)),
            failed: narrow(since(failed, &mut told.failed)),
        });
    }
    let refusals = counters.core.refusals.counts();
    told.refused.resize(refusals.len(), 0);
    let links = links.into_iter().map(|LinkNow { link, in_flight, ended }| LinkPulse { link, in_flight, ended });
    Pulse {
        pools: parts,
        links: links.collect(),
        refused: refusals.iter().zip(&mut told.refused).map(|(now, told)| since(*now, told)).collect(),
        requeued: since(counters.core.requeues.sum(), &mut told.requeued),
    }
}

/// A pool on one core at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolNow {
    pub queued: ByClass<usize>,
    pub links: u32,
    pub credits: u32,
    pub in_flight: u32,
}

/// A link at this moment.
#[derive(Clone, Copy, Debug)]
pub struct LinkNow {
    pub link: LinkId,
    pub in_flight: u32,
    /// Requests that have ended on it, since it came up.
    pub ended: u64,
}

/// What was counted since; `None`: nothing.
fn since_then(durations: &Durations, told: &mut Option<Box<Waits>>) -> Option<Waits> {
    let count = wrapped(durations.count());
    let before = told.as_ref().map_or(Waits::default(), |told| **told);
    if count == before.1 {
        return None; // and nobody walks through a histogram for it
    }
    let now = Waits(durations.cumulated().map(|(_, count)| wrapped(count)), count);
    *told = Some(Box::new(now));
    Some(now.without(&before))
}

impl Waits {
    fn without(&self, before: &Waits) -> Waits {
        let buckets = std::array::from_fn(|index| self.0[index].wrapping_sub(before.0[index]));
        Waits(buckets, self.1.wrapping_sub(before.1))
    }

    fn add(&mut self, other: &Waits) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own = own.wrapping_add(other));
        self.1 = self.1.wrapping_add(other.1);
    }

    /// The bound in microseconds below which `percent` of all lie.
    fn quantile_us(&self, percent: u64) -> Option<u32> {
        let wanted = (u64::from(self.1) * percent).div_ceil(100);
        if self.1 == 0 {
            return None;
        }
        let bounds = Durations::default().cumulated();
        let index = self.0.iter().position(|count| u64::from(*count) >= wanted);
        // Above every bound: twice the last one stands for it.
        let ns = index.map_or(bounds[DURATION_BUCKETS - 1].0 * 2, |index| if index == 0 { 0 } else { bounds[index].0 });
        Some(narrow(ns / 1_000))
    }
}

impl History {
    fn note(&mut self, tick: Tick, names: &[String], pulses: Vec<CorePulse>) {
        self.rounds += 1;
        let since = self.taken.replace(tick.now).unwrap_or(tick.started);
        #[allow(clippy::cast_precision_loss)] // milliseconds of a process
        let span_s = tick.now.ms_since(since).max(1) as f64 / 1e3;
        let mut samples = vec![(Sample::default(), [Waits::default(); Class::COUNT]); names.len()];
        let mut whole = WholeSample::default();
        for CorePulse { generation, core, names: own, pulse } in pulses {
            for (name, part) in own.iter().zip(&pulse.pools) {
                let Some(place) = names.iter().position(|known| known == name) else { continue };
                let (sample, waits) = &mut samples[place];
                sample.queued.iter_mut().zip(part.queued).for_each(|(all, own)| *all += own);
                sample.links += part.links;
                sample.credits = sample.credits.saturating_add(part.credits);
                sample.in_flight += part.in_flight;
                sample.dispatched += part.dispatched;
                sample.answered += part.answered;
                sample.failed += part.failed;
                part.waits.iter().for_each(|(class, own)| waits[*class].add(own));
            }
            whole.refused.resize(pulse.refused.len(), 0);
            whole.refused.iter_mut().zip(&pulse.refused).for_each(|(all, own)| *all += narrow(*own));
            whole.requeued += narrow(pulse.requeued);
            for link in pulse.links {
                self.follow((generation, core, link.link), link, span_s);
            }
        }
        let rounds = self.rounds;
        self.links.retain(|_, track| track.seen == rounds);
        self.pools.retain(|(name, _)| names.contains(name));
        for (name, (mut sample, waits)) in names.iter().zip(samples) {
            sample.wait_p50_us = waits.map(|waits| waits.quantile_us(50));
            sample.wait_p99_us = waits.map(|waits| waits.quantile_us(99));
            let place = self.pools.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
                self.pools.push((name.clone(), VecDeque::new()));
                self.pools.len() - 1
            });
            push(&mut self.pools[place].1, sample);
        }
        push(&mut self.at_unix, tick.at_unix);
        push(&mut self.spans_s, span_s);
        push(&mut self.whole, whole);
    }

    fn follow(&mut self, key: (u64, CoreId, LinkId), pulse: LinkPulse, span_s: f64) {
        let track = self.links.entry(key).or_insert(Track {
            ended: pulse.ended,
            answer_ms: None,
            in_flight: 0.0,
            ends_per_s: 0.0,
            seen: 0,
        });
        let ended = pulse.ended.saturating_sub(std::mem::replace(&mut track.ended, pulse.ended));
        // A tenth of each second's: some ten seconds are in it.
        #[allow(clippy::cast_precision_loss)] // a second's
        let ends_per_s = ended as f64 / span_s;
        let part = (span_s / 10.0).min(1.0);
        track.in_flight += (f64::from(pulse.in_flight) - track.in_flight) * part;
        track.ends_per_s += (ends_per_s - track.ends_per_s) * part;
        // Little's law; fewer than one in ten seconds tell nothing.
        track.answer_ms = (track.ends_per_s > 0.1).then(|| track.in_flight / track.ends_per_s * 1e3);
        track.seen = self.rounds;
    }

    /// How a link has been doing. `None`: it is not known yet.
    #[must_use]
    pub fn link(&self, generation: u64, core: CoreId, link: LinkId) -> Option<Track> {
        self.links.get(&(generation, core, link)).copied()
    }

    /// What a pool has done over the last `PACE_SAMPLES`.
    #[must_use]
    pub fn pace(&self, pool: &str) -> Pace {
        let Some((_, samples)) = self.pools.iter().find(|(name, _)| name == pool) else { return Pace::default() };
        let last: Vec<&Sample> = samples.iter().rev().take(PACE_SAMPLES).collect();
        let depth = |sample: &Sample| sample.queued.iter().map(|class| i64::from(*class)).sum::<i64>();
        let longest = |of: fn(&Sample) -> &ByClass<Option<u32>>| {
            last.iter().find_map(|sample| of(sample).iter().flatten().max().copied())
        };
        let seconds: f64 = self.spans_s.iter().rev().take(last.len()).sum();
        // Without a sample there is nothing, in no time.
        let per_s =
            |of: fn(&Sample) -> u32| last.iter().map(|sample| f64::from(of(sample))).sum::<f64>() / seconds.max(1e-3);
        Pace {
            per_s: per_s(|sample| sample.dispatched),
            answered_per_s: per_s(|sample| sample.answered),
            failed_per_s: per_s(|sample| sample.failed),
            growth: last.first().zip(last.last()).map_or(0, |(newest, oldest)| depth(newest) - depth(oldest)),
            wait_p50_us: longest(|sample| &sample.wait_p50_us),
            wait_p99_us: longest(|sample| &sample.wait_p99_us),
        }
    }

    /// Requests that the edge answered itself over the last `PACE_SAMPLES`, by reason; those that happened.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for whole in self.whole.iter().rev().take(PACE_SAMPLES) {
            for (reason, count) in RefusalReason::NAMES.iter().zip(&whole.refused).filter(|(_, count)| **count > 0) {
                *all.entry((*reason).to_owned()).or_default() += u64::from(*count);
            }
        }
        all
    }

    /// The last `samples` of everything.
    #[must_use]
    pub fn report(&self, samples: usize) -> HistoryReport {
        HistoryReport {
            at_unix: last_of(&self.at_unix, samples).copied().collect(),
            refused: last_of(&self.whole, samples).map(|whole| whole.refused.iter().sum()).collect(),
            requeued: last_of(&self.whole, samples).map(|whole| whole.requeued).collect(),
            pools: self.pools.iter().map(|(name, all)| pool_history(name, last_of(all, samples))).collect(),
        }
    }
}

fn pool_history<'s>(name: &str, samples: impl Iterator<Item = &'s Sample> + Clone) -> PoolHistory {
    let column = |of: fn(&Sample) -> u32| samples.clone().map(of).collect();
    let classes = Class::all().map(Class::index).filter(|class| {
        samples.clone().any(|sample| sample.queued[*class] > 0 || sample.wait_p99_us[*class].is_some())
    });
    PoolHistory {
        name: name.to_owned(),
        links: column(|sample| sample.links),
        credits: column(|sample| sample.credits),
        in_flight: column(|sample| sample.in_flight),
        dispatched: column(|sample| sample.dispatched),
        answered: column(|sample| sample.answered),
        failed: column(|sample| sample.failed),
        classes: classes
            .map(|class| ClassHistory {
                class: u8::try_from(class).unwrap_or(u8::MAX),
                queued: samples.clone().map(|sample| sample.queued[class]).collect(),
                wait_p50_us: samples.clone().map(|sample| sample.wait_p50_us[class]).collect(),
                wait_p99_us: samples.clone().map(|sample| sample.wait_p99_us[class]).collect(),
            })
            .collect(),
    }
}

fn last_of<T>(list: &VecDeque<T>, samples: usize) -> impl Iterator<Item = &T> + Clone {
    list.iter().skip(list.len().saturating_sub(samples))
}

fn push<T>(list: &mut VecDeque<T>, sample: T) {
    if list.len() == HISTORY_SAMPLES {
        list.pop_front();
    }
    list.push_back(sample);
}

fn narrow(count: u64) -> u32 {
    // A wait of a week, or four billion in a second, are not told apart from more.
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Of a count that only differences are made of.
#[allow(clippy::cast_possible_truncation)] // on purpose
fn wrapped(count: u64) -> u32 {
    count as u32
}

fn narrow_usize(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What the core tells of its pools and links.
impl Core {
    pub fn pulse(&self) -> Pulse {
        let (pools, links) = self.moment();
        pulse(&self.counters.borrow(), &mut self.told.borrow_mut(), pools, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Dispatch;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// At this second of a process.
    fn at(second: u64) -> Tick {
        at_ms(1_000 * (second + 1), second)
    }

    fn at_ms(since_start_ms: u64, at_unix: u64) -> Tick {
        let started = Now(5_000_000_000);
        Tick { at_unix, now: started.plus_ms(since_start_ms), started }
    }

    /// One core of generation 1 that has counted so, with this many waiting in class 3 and these links.
    fn told(told: &mut Told, counters: &Counters, queued: usize, links: Vec<LinkNow>) -> CorePulse {
        let mut now = PoolNow::default();
        now.queued[3] = queued;
        let pulse = pulse(counters, told, vec![now; counters.pools.len()], links);
        CorePulse { generation: 1, core: CoreId(0), names: names(&["app"]), pulse }
    }

    #[test]
    fn a_sample_tells_what_happened_since_the_last_one() {
        let (mut history, mut before, mut counters) = (History::default(), Told::default(), Counters::new(1));
        let class = Class::of(3);
        for second in 0..3_u64 {
            for _ in 0..10 {
                counters.pools[0].dispatches.one(Dispatch::Local);
                counters.pools[0].requests.one(class, StatusClass::of(200));
                counters.pools[0].queue_wait.at_once(class);
            }
            counters.pools[0].queue_wait.observe_ns(class, 1_000_000 << second);
            counters.pools[0].requests.one(class, StatusClass::of(502));
            let pulse = told(&mut before, &counters, 5 * second as usize, Vec::new());
            history.note(at(second), &names(&["app"]), vec![pulse]);
        }
        let report = history.report(2);
        assert_eq!(report.at_unix, [1, 2]);
        let pool = &report.pools[0];
        assert_eq!(
            (&pool.dispatched[..], &pool.answered[..], &pool.failed[..]),
            (&[10, 10][..], &[11, 11][..], &[1, 1][..])
        );
        assert_eq!(pool.classes.len(), 1);
        let own = &pool.classes[0];
        assert_eq!((own.class, &own.queued[..], &own.wait_p50_us[..]), (3, &[5, 10][..], &[Some(0), Some(0)][..]));
        assert_eq!(own.wait_p99_us, [Some(2_048), Some(4_096)], "the bucket that holds it");
        let pace = history.pace("app");
        assert_eq!((pace.per_s, pace.growth), (10.0, 10));
        assert_eq!((pace.wait_p50_us, pace.wait_p99_us), (Some(0), Some(4_096)));
        assert_eq!(history.pace("other"), Pace::default());
    }

    /// Ten requests a second, whenever somebody looks.
    #[test]
    fn a_sample_that_is_late_makes_no_peak_and_no_hole() {
        let (mut history, mut before, mut counters) = (History::default(), Told::default(), Counters::new(1));
        let (class, link) = (Class::of(3), LinkId(7));
        let mut counted = 0;
        for (second, since_start_ms) in [1_000, 2_000, 5_000, 5_100, 6_000, 36_000, 37_000].into_iter().enumerate() {
            let due = since_start_ms / 100;
            for _ in counted..due {
                counters.pools[0].dispatches.one(Dispatch::Local);
                counters.pools[0].requests.one(class, StatusClass::of(502));
            }
            counted = due;
            let links = vec![LinkNow { link, in_flight: 4, ended: due }];
            let pulse = told(&mut before, &counters, 0, links);
            history.note(at_ms(since_start_ms, second as u64), &names(&["app"]), vec![pulse]);
            let pace = history.pace("app");
            for per_s in [pace.per_s, pace.answered_per_s, pace.failed_per_s] {
                assert!((per_s - 10.0).abs() < 1e-6, "{since_start_ms} ms: {pace:?}");
            }
        }
        let answer_ms = history.link(1, CoreId(0), link).and_then(|track| track.answer_ms).expect("requests end");
        assert!((answer_ms - 400.0).abs() < 1.0, "4 in flight and 10 ends in a second: {answer_ms}");
    }

    #[test]
    fn what_a_second_has_not_seen_has_no_wait() {
        let (mut history, mut before, counters) = (History::default(), Told::default(), Counters::new(1));
        let pulse = told(&mut before, &counters, 1, Vec::new());
        history.note(at(0), &names(&["app"]), vec![pulse]);
        assert_eq!(history.report(9).pools[0].classes[0].wait_p99_us, [None]);
    }

    #[test]
    fn so_many_samples_are_kept_and_a_pool_that_is_gone_is_forgotten() {
        let (mut history, mut before, counters) = (History::default(), Told::default(), Counters::new(1));
        for second in 0..HISTORY_SAMPLES as u64 + 7 {
            let pulse = told(&mut before, &counters, 0, Vec::new());
            history.note(at(second), &names(&["app"]), vec![pulse]);
        }
        let report = history.report(usize::MAX);
        assert_eq!((report.at_unix.len(), report.at_unix[0]), (HISTORY_SAMPLES, 7));
        assert_eq!(report.pools[0].links.len(), HISTORY_SAMPLES);
        history.note(at(999), &names(&["new"]), Vec::new());
        let report = history.report(usize::MAX);
        assert_eq!((report.pools.len(), &*report.pools[0].name, report.pools[0].links.len()), (1, "new", 1));
    }

    #[test]
    fn a_link_is_followed_while_it_lives() {
        let (mut history, mut before, counters) = (History::default(), Told::default(), Counters::new(1));
        let link = LinkId(7);
        let mut note = |history: &mut History, second: u64, links: &[(u32, u64)]| {
            let links = links.iter().map(|&(in_flight, ended)| LinkNow { link, in_flight, ended }).collect();
            let pulse = told(&mut before, &counters, 0, links);
            history.note(at(second), &names(&["app"]), vec![pulse]);
        };
        for second in 0..60 {
            note(&mut history, second, &[(4, 2 * second)]);
        }
        let answer_ms = history.link(1, CoreId(0), link).and_then(|track| track.answer_ms).expect("requests end");
        assert!((1_900.0..2_100.0).contains(&answer_ms), "4 in flight and 2 ends in a second: {answer_ms}");
        note(&mut history, 61, &[]);
        assert_eq!(history.link(1, CoreId(0), link), None);
    }
}
