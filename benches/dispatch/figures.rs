//! Numbers from records: quantiles, their ratio to the ideal's, waits, inversions, idle workers. How records come about, and
//! how numbers are shown, never enters.

use serde::Serialize;

use super::book::{Fate, Record};
use super::ideal::{self, Offer, central_queue};
use super::limits::INVERSION_NS_MIN;
use super::trace::Class;

/// The quantiles that are reported.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// The place of 0.99 among them.
pub const P99: usize = 2;

/// What a request needs besides waiting and service, as the median at a load where nothing waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PathTime {
    /// From the generator's send to its answer, without the service.
    pub round_ns: u64,
    /// From the send to the worker.
    pub there_ns: u64,
}

/// Everything that a pass says about dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub path: PathTime,
    pub all: ClassFigures,
    /// By `Class::index`; `None` for a class without requests.
    pub classes: [Option<ClassFigures>; Class::ALL.len()],
    /// Dispatches while a more urgent request had waited for longer than 1 ms and the path.
    pub inversions: u64,
    /// Those of them in which the more urgent one went on waiting for longer than the path: no matter of two dispatches
    /// in flight at once.
    pub inversions_certain: u64,
    /// Of all worker-time: a worker was idle while a request waited. The path's time is in it.
    pub idle_while_waiting: f64,
    /// The same, for a worker that was idle, and a request that waited, for longer than the path.
    pub idle_while_waiting_beyond_path: f64,
    /// Sent minus due, the generator's own delay.
    pub late_p50_ns: u64,
    pub late_p99_ns: u64,
    /// What a worker held a request beyond its service time.
    pub timer_error_p50_ns: u64,
    pub timer_error_p99_ns: u64,
    pub counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub requests: u64,
    /// 200 from a worker.
    pub served: u64,
    /// 503.
    pub refused: u64,
    /// Any other status.
    pub failed: u64,
    pub lost: u64,
    pub unsent: u64,
    /// Dispatched more than once.
    pub repeated: u64,
}

/// A class, or all of them together.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFigures {
    pub served: u64,
    pub response_ns: [u64; QUANTILES.len()],
    pub ideal_response_ns: [u64; QUANTILES.len()],
    /// Response over the ideal's response and the path.
    pub dq: [f64; QUANTILES.len()],
    pub wait_p99_ns: u64,
    pub ideal_wait_p99_ns: u64,
}

/// Response times in ascending order, for a plot: all, then the classes.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    pub measured: [Vec<u64>; 1 + Class::ALL.len()],
    pub ideal: [Vec<u64>; 1 + Class::ALL.len()],
}

/// A pass under more load than the workers can carry, with a bound on what waits.
#[derive(Clone, Debug, Serialize)]
pub struct Overload {
    /// Answers of workers for each second, up to the last of them.
    pub goodput: f64,
    pub ideal_goodput: f64,
    pub urgent_p99_ns: Option<u64>,
    pub ideal_urgent_p99_ns: Option<u64>,
    pub urgent_refused: f64,
    pub ideal_urgent_refused: f64,
    pub refused: f64,
    pub ideal_refused: f64,
    /// From the send to the 503: half of them, 99 % of them, all of them.
    pub refusal_ns: Option<[u64; 3]>,
}

/// The value at rank ceil(part * n) of ascending values; 0 of none.
pub fn quantile(ascending: &[u64], part: f64) -> u64 {
    let rank = (part * ascending.len() as f64).ceil().max(1.0) as usize;
    ascending.get(rank.min(ascending.len()).wrapping_sub(1)).copied().unwrap_or(0)
}

fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

/// A request that a worker served to its end.
#[derive(Clone, Copy, Debug)]
struct Served {
    class: Class,
    due_ns: u64,
    sent_ns: u64,
    start_ns: u64,
    end_ns: u64,
    answered_ns: u64,
    service_ns: u64,
    seat: Option<u32>,
}

impl Served {
    fn of(record: &Record) -> Option<Served> {
        let Fate::Answered { at_ns, status: 200 } = record.fate else { return None };
        Some(Served {
            class: record.planned.class,
            due_ns: record.due_ns,
            sent_ns: record.sent_ns?,
            start_ns: record.start_ns?,
            end_ns: record.end_ns?,
            answered_ns: at_ns,
            service_ns: u64::from(record.planned.service_us) * 1_000,
            seat: record.seat,
        })
    }

    fn response_ns(&self) -> u64 {
        self.answered_ns.saturating_sub(self.sent_ns)
    }

    fn hold_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    fn offer(&self) -> Offer {
        Offer { arrives_ns: self.sent_ns, service_ns: self.hold_ns(), class: self.class }
    }
}

/// In the order in which they were sent.
fn served(records: &[Record]) -> Vec<Served> {
    let mut served: Vec<Served> = records.iter().filter_map(Served::of).collect();
    served.sort_by_key(|one| one.sent_ns);
    served
}

/// The path, from a pass in which nothing waited.
pub fn path_time(records: &[Record]) -> PathTime {
    let served = served(records);
    PathTime {
        round_ns: quantile(&sorted(served.iter().map(|s| s.response_ns().saturating_sub(s.hold_ns()))), 0.5),
        there_ns: quantile(&sorted(served.iter().map(|s| s.start_ns.saturating_sub(s.sent_ns))), 0.5),
    }
}

pub fn figures(records: &[Record], workers: u32, path: PathTime) -> (Figures, Curves) {
    let served = served(records);
    let offers: Vec<Offer> = served.iter().map(Served::offer).collect();
    let fates = central_queue(&offers, workers as usize, usize::MAX);
    let of = |class: Option<Class>| class_figures(&served, &offers, &fates, class, path);
    let mut curves = Curves::default();
    let (all, measured, ideal) = of(None);
    (curves.measured[0], curves.ideal[0]) = (measured, ideal);
    let classes = Class::ALL.map(|class| {
        let (figures, measured, ideal) = of(Some(class));
        (curves.measured[1 + class.index()], curves.ideal[1 + class.index()]) = (measured, ideal);
        (figures.served > 0).then_some(figures)
    });
    let late = sorted(served.iter().map(|s| s.sent_ns.saturating_sub(s.due_ns)));
    let error = sorted(served.iter().map(|s| s.hold_ns().saturating_sub(s.service_ns)));
    let figures = Figures {
        path,
        all,
        classes,
        inversions: inversions(&served, INVERSION_NS_MIN + path.round_ns, 0),
        inversions_certain: inversions(&served, INVERSION_NS_MIN + path.round_ns, path.round_ns),
        idle_while_waiting: idle_while_waiting(&served, workers, PathTime::default()),
        idle_while_waiting_beyond_path: idle_while_waiting(&served, workers, path),
        late_p50_ns: quantile(&late, 0.5),
        late_p99_ns: quantile(&late, 0.99),
        timer_error_p50_ns: quantile(&error, 0.5),
        timer_error_p99_ns: quantile(&error, 0.99),
        counts: counts(records),
    };
    (figures, curves)
}

fn counts(records: &[Record]) -> Counts {
    let mut counts = Counts { requests: records.len() as u64, ..Counts::default() };
    for record in records {
        counts.repeated += u64::from(record.starts > 1);
        *match record.fate {
            Fate::Answered { status: 200, .. } => &mut counts.served,
            Fate::Answered { status: 503, .. } => &mut counts.refused,
            Fate::Answered { .. } => &mut counts.failed,
            Fate::Lost | Fate::Open => &mut counts.lost,
            Fate::Unsent => &mut counts.unsent,
        } += 1;
    }
    counts
}

/// With the response times, measured and ideal, in ascending order.
fn class_figures(
    served: &[Served],
    offers: &[Offer],
    fates: &[ideal::Fate],
    class: Option<Class>,
    path: PathTime,
) -> (ClassFigures, Vec<u64>, Vec<u64>) {
    let is_in = |own: Class| class.is_none_or(|class| class == own);
    let own = || served.iter().filter(|one| is_in(one.class));
    let ideal = || {
        offers.iter().zip(fates).filter(|(offer, _)| is_in(offer.class)).filter_map(|(offer, fate)| match *fate {
            ideal::Fate::Served { start_ns, end_ns } => Some((start_ns - offer.arrives_ns, end_ns - offer.arrives_ns)),
            ideal::Fate::Refused => None,
        })
    };
    let measured = sorted(own().map(Served::response_ns));
    let ideal_response = sorted(ideal().map(|(_, response_ns)| response_ns));
    let wait = sorted(own().map(|one| one.start_ns.saturating_sub(one.sent_ns + path.there_ns)));
    let ideal_wait = sorted(ideal().map(|(wait_ns, _)| wait_ns));
    let response_ns = QUANTILES.map(|part| quantile(&measured, part));
    let ideal_response_ns = QUANTILES.map(|part| quantile(&ideal_response, part));
    let figures = ClassFigures {
        served: measured.len() as u64,
        response_ns,
        ideal_response_ns,
        dq: std::array::from_fn(|at| ratio(response_ns[at], ideal_response_ns[at] + path.round_ns)),
        wait_p99_ns: quantile(&wait, 0.99),
        ideal_wait_p99_ns: quantile(&ideal_wait, 0.99),
    };
    (figures, measured, ideal_response)
}

/// NaN where there is nothing to compare with.
pub fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { f64::NAN } else { a as f64 / b as f64 }
}

/// How often a worker began with a request while a more urgent one had been waiting for `waited_ns`, and still waited
/// `margin_ns` later.
fn inversions(served: &[Served], waited_ns: u64, margin_ns: u64) -> u64 {
    // By time; in one moment who comes and goes is counted before who looks.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Leaves(usize),
        HasWaited(usize),
        Begins(usize),
    }
    let mut events: Vec<(u64, Event)> = Vec::with_capacity(3 * served.len());
    for one in served {
        let (class, long_ns) = (one.class.index(), one.sent_ns + waited_ns);
        let until_ns = one.start_ns.saturating_sub(margin_ns);
        if long_ns < until_ns {
            events.push((long_ns, Event::HasWaited(class)));
            events.push((until_ns, Event::Leaves(class)));
        }
        events.push((one.start_ns, Event::Begins(class)));
    }
    events.sort_unstable();
    let mut waiting = [0_u64; Class::ALL.len()];
    let mut found = 0;
    for (_, event) in events {
        match event {
            Event::Leaves(class) => waiting[class] -= 1,
            Event::HasWaited(class) => waiting[class] += 1,
            Event::Begins(class) => found += u64::from(waiting[..class].iter().any(|&count| count > 0)),
        }
    }
    found
}

/// The part of all worker-time in which a worker was idle while a request waited for it. A worker counts as idle when it
/// has been so for `path.round_ns`, and a request as waiting when it has been out for `path.there_ns`.
fn idle_while_waiting(served: &[Served], workers: u32, path: PathTime) -> f64 {
    let (Some(begin), Some(end)) = (served.iter().map(|s| s.sent_ns).min(), served.iter().map(|s| s.end_ns).max())
    else {
        return 0.0;
    };
    // (moment, change of idle workers, change of waiting requests)
    let mut changes: Vec<(u64, i64, i64)> = Vec::with_capacity(4 * served.len());
    let mut spell = |from_ns: u64, to_ns: u64, idle: i64, waiting: i64| {
        if from_ns < to_ns {
            changes.push((from_ns, idle, waiting));
            changes.push((to_ns, -idle, -waiting));
        }
    };
    let mut free_since: Vec<u64> = vec![begin; workers as usize];
    let mut by_start: Vec<&Served> = served.iter().collect();
    by_start.sort_by_key(|one| one.start_ns);
    for one in by_start {
        spell(one.sent_ns + path.there_ns, one.start_ns, 0, 1);
        if let Some(free) = one.seat.and_then(|seat| free_since.get_mut(seat as usize)) {
            spell(*free + path.round_ns, one.start_ns, 1, 0);
            *free = one.end_ns;
        }
    }
    for free in free_since {
        spell(free + path.round_ns, end, 1, 0);
    }
    changes.sort_unstable();
    let (mut idle, mut waiting, mut since, mut wasted) = (0_i64, 0_i64, begin, 0_u128);
    for (at_ns, idle_change, waiting_change) in changes {
        wasted += u128::from(at_ns - since.min(at_ns)) * idle.min(waiting).max(0) as u128;
        (idle, waiting, since) = (idle + idle_change, waiting + waiting_change, at_ns);
    }
    wasted as f64 / (f64::from(workers) * (end - begin).max(1) as f64)
}

/// The same trace against the ideal with the same bound. What was refused keeps its drawn service time there.
pub fn overload(records: &[Record], workers: u32, waiting_max: usize) -> Overload {
    let mut sent: Vec<(u64, &Record)> = records.iter().filter_map(|record| Some((record.sent_ns?, record))).collect();
    sent.sort_by_key(|(sent_ns, _)| *sent_ns);
    let offers: Vec<Offer> = sent
        .iter()
        .map(|&(sent_ns, record)| {
            Served::of(record).map_or_else(
                || Offer {
                    arrives_ns: sent_ns,
                    service_ns: u64::from(record.planned.service_us) * 1_000,
                    class: record.planned.class,
                },
                |served| served.offer(),
            )
        })
        .collect();
    let fates = central_queue(&offers, workers as usize, waiting_max);
    let ideal: Vec<(Offer, Option<u64>)> = offers
        .iter()
        .zip(fates)
        .map(|(&offer, fate)| match fate {
            ideal::Fate::Served { end_ns, .. } => (offer, Some(end_ns)),
            ideal::Fate::Refused => (offer, None),
        })
        .collect();
    let measured: Vec<(Offer, Option<u64>)> = offers
        .iter()
        .zip(&sent)
        .map(|(&offer, (_, record))| (offer, Served::of(record).map(|s| s.answered_ns)))
        .collect();
    let refusals = sorted(sent.iter().filter_map(|(sent_ns, record)| match record.fate {
        Fate::Answered { at_ns, status: 503 } => Some(at_ns.saturating_sub(*sent_ns)),
        _ => None,
    }));
    let refused_of = |list: &[(Offer, Option<u64>)], class: Option<Class>| {
        let own: Vec<_> = list.iter().filter(|(offer, _)| class.is_none_or(|class| class == offer.class)).collect();
        own.iter().filter(|(_, end)| end.is_none()).count() as f64 / own.len().max(1) as f64
    };
    Overload {
        goodput: goodput(&measured),
        ideal_goodput: goodput(&ideal),
        urgent_p99_ns: urgent_p99(&measured),
        ideal_urgent_p99_ns: urgent_p99(&ideal),
        urgent_refused: refused_of(&measured, Some(Class::Urgent)),
        ideal_urgent_refused: refused_of(&ideal, Some(Class::Urgent)),
        refused: refused_of(&measured, None),
        ideal_refused: refused_of(&ideal, None),
        refusal_ns: (!refusals.is_empty()).then(|| [0.5, 0.99, 1.0].map(|part| quantile(&refusals, part))),
    }
}

fn goodput(list: &[(Offer, Option<u64>)]) -> f64 {
    let begin = list.first().map_or(0, |(offer, _)| offer.arrives_ns);
    let ends: Vec<u64> = list.iter().filter_map(|(_, end)| *end).collect();
    let took_ns = ends.iter().max().map_or(0, |end| end.saturating_sub(begin));
    if took_ns == 0 { 0.0 } else { ends.len() as f64 * 1e9 / took_ns as f64 }
}

fn urgent_p99(list: &[(Offer, Option<u64>)]) -> Option<u64> {
    let urgent = list.iter().filter(|(offer, _)| offer.class == Class::Urgent);
    let responses = sorted(urgent.filter_map(|(offer, end)| Some(end.as_ref()?.saturating_sub(offer.arrives_ns))));
    (!responses.is_empty()).then(|| quantile(&responses, 0.99))
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::super::trace::Planned;
    use super::Class::{Background as B, Normal as N, Urgent as U};
    use super::*;

    #[test]
    fn a_quantile_is_the_value_at_its_rank() {
        let ten: Vec<u64> = (1..=10).collect();
        for (part, want) in
            [(0.0, 1), (0.01, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.9, 9), (0.91, 10), (0.999, 10), (1.0, 10)]
        {
            assert_eq!(quantile(&ten, part), want, "{part}");
        }
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[7], 0.5), 7);
    }

    /// (class, sent, start, end, seat), each answered as it ended.
    fn records(list: &[(Class, u64, u64, u64, u32)]) -> Vec<Record> {
        let record = |&(class, sent_ns, start_ns, end_ns, seat): &(Class, u64, u64, u64, u32)| Record {
            planned: Planned { due_ns: sent_ns, service_us: 1, class },
            due_ns: sent_ns,
            sent_ns: Some(sent_ns),
            start_ns: Some(start_ns),
            end_ns: Some(end_ns),
            fate: Fate::Answered { at_ns: end_ns, status: 200 },
            seat: Some(seat),
            starts: 1,
        };
        list.iter().map(record).collect()
    }

    #[track_caller]
    fn check_inversions(list: &[(Class, u64, u64, u64, u32)], waited_ns: u64, margin_ns: u64, want: u64) {
        assert_eq!(inversions(&served(&records(list)), waited_ns, margin_ns), want);
    }

    #[test]
    fn an_inversion_is_a_start_that_passes_over_somebody_more_urgent() {
        check_inversions(&[(B, 0, 50, 60, 0), (U, 10, 60, 70, 0)], 10, 0, 1);
        check_inversions(&[(B, 0, 50, 60, 0), (U, 10, 60, 70, 0)], 50, 0, 0); // not for so long
        check_inversions(&[(B, 0, 50, 60, 0), (U, 10, 50, 70, 1)], 10, 0, 0); // in the same moment
        check_inversions(&[(B, 0, 50, 60, 0), (U, 10, 53, 70, 1)], 10, 5, 0); // nearly so
        check_inversions(&[(B, 0, 50, 60, 0), (U, 10, 56, 70, 1)], 10, 5, 1);
        check_inversions(&[(U, 0, 50, 60, 0), (B, 10, 60, 70, 0)], 0, 0, 0);
        check_inversions(&[(N, 0, 50, 60, 0), (N, 10, 40, 50, 0)], 0, 0, 0); // its own class does not count
        check_inversions(&[(B, 0, 50, 60, 0), (B, 0, 55, 65, 1), (N, 5, 58, 70, 2), (U, 10, 60, 70, 0)], 10, 0, 3);
    }

    #[track_caller]
    fn check_idle(list: &[(Class, u64, u64, u64, u32)], workers: u32, path: (u64, u64), want: f64) {
        let path = PathTime { round_ns: path.0, there_ns: path.1 };
        let got = idle_while_waiting(&served(&records(list)), workers, path);
        assert!((got - want).abs() < 1e-9, "{got} is not {want}");
    }

    #[test]
    fn idle_time_counts_only_while_somebody_waits() {
        check_idle(&[], 2, (0, 0), 0.0);
        check_idle(&[(N, 0, 0, 100, 0)], 1, (0, 0), 0.0);
        check_idle(&[(N, 0, 0, 40, 0), (N, 60, 60, 100, 0)], 1, (0, 0), 0.0); // idle, nobody waits
        check_idle(&[(N, 0, 0, 50, 0), (N, 10, 50, 100, 0)], 1, (0, 0), 0.0); // waits, nobody is idle
        check_idle(&[(N, 0, 0, 50, 0), (N, 10, 60, 100, 0)], 1, (0, 0), 0.1); // 10 of 100 after the first
        check_idle(&[(N, 0, 0, 50, 0), (N, 10, 60, 100, 0)], 1, (10, 10), 0.0); // which is the path
        check_idle(&[(N, 0, 0, 50, 0), (N, 10, 60, 100, 0)], 2, (0, 0), 0.25); // the second idles from 10 to 60 meanwhile
        check_idle(&[(N, 0, 0, 100, 0), (N, 0, 30, 100, 0), (N, 0, 30, 100, 0)], 4, (0, 0), 0.15); // two wait
    }

    #[test]
    fn a_measured_run_that_is_the_ideal_has_ratio_one() {
        let list = [(B, 0, 0, 10, 0), (B, 1, 30, 40, 0), (N, 2, 20, 30, 0), (U, 3, 10, 20, 0)];
        let (figures, curves) = figures(&records(&list), 1, PathTime::default());
        assert_eq!(figures.all.dq, [1.0; 4]);
        assert!(figures.classes.iter().flatten().all(|class| class.dq == [1.0; 4]));
        assert_eq!(curves.measured, curves.ideal);
        assert_eq!((figures.inversions, figures.idle_while_waiting), (0, 0.0));
        assert_eq!(figures.classes.map(|class| class.map(|class| class.wait_p99_ns)), [Some(7), Some(18), Some(29)]);
    }

    #[test]
    fn the_path_is_taken_from_waits_and_added_to_the_ideal() {
        let mut list = records(&[(N, 100, 130, 230, 0)]);
        list[0].fate = Fate::Answered { at_ns: 250, status: 200 };
        let path = path_time(&list);
        assert_eq!(path, PathTime { round_ns: 50, there_ns: 30 });
        let (figures, _) = figures(&list, 1, path);
        assert_eq!((figures.all.dq, figures.all.wait_p99_ns), ([1.0; 4], 0));
    }

    #[test]
    fn each_request_is_counted_by_its_fate() {
        let mut list = records(&[(N, 0, 0, 1, 0); 7]);
        list[1].fate = Fate::Answered { at_ns: 1, status: 503 };
        list[2].fate = Fate::Answered { at_ns: 1, status: 502 };
        list[3].fate = Fate::Lost;
        list[4].fate = Fate::Unsent;
        list[5].starts = 2;
        let want = Counts { requests: 7, served: 3, refused: 1, failed: 1, lost: 1, unsent: 1, repeated: 1 };
        assert_eq!(counts(&list), want);
    }

    #[test]
    fn overload_compares_with_the_ideal_that_refuses_too() {
        // One worker, one place: the third finds it taken, here and in the ideal; 2,000 ns of service as drawn for it.
        let mut list = records(&[(N, 0, 0, 1_000, 0), (U, 10, 1_100, 2_100, 0), (U, 20, 20, 20, 0)]);
        list[1].fate = Fate::Answered { at_ns: 2_200, status: 200 };
        list[2].fate = Fate::Answered { at_ns: 45, status: 503 };
        let overload = overload(&list, 1, 1);
        assert_eq!(overload.refusal_ns, Some([25, 25, 25]));
        assert_eq!((overload.urgent_p99_ns, overload.ideal_urgent_p99_ns), (Some(2_190), Some(1_990)));
        assert_eq!((overload.urgent_refused, overload.ideal_urgent_refused), (0.5, 0.5));
        assert!((overload.goodput - 2.0 * 1e9 / 2_200.0).abs() < 1e-3, "{}", overload.goodput);
        assert!((overload.ideal_goodput - 2.0 * 1e9 / 2_000.0).abs() < 1e-3, "{}", overload.ideal_goodput);
    }
}
