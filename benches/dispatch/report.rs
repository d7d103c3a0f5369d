//! The tables and the JSON. Every figure in a table is the median over the seeds; the JSON has each run. Nothing is
//! measured here.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::Settings;
use super::figures::{ClassFigures, P99, QUANTILES};
use super::metrics::Handoff;
use super::session::{Run, Subject};
use super::trace::Class;
use super::workers::Links;

/// The runs of one subject at one load, one for each seed.
struct Group<'r> {
    subject: Subject,
    runs: Vec<&'r Run>,
    /// The floor's runs with the same seeds, where it was measured.
    floors: Vec<Option<&'r Run>>,
}

pub fn text(settings: &Settings, runs: &[Run]) -> String {
    let mut out = heading(settings);
    for &load in &settings.loads {
        let groups: Vec<Group> = settings.subjects.iter().map(|&subject| group(runs, load, subject)).collect();
        let _ = writeln!(out, "\nload {load}");
        let tables: Vec<Table> = if settings.waiting_max.is_some() {
            vec![overload(&groups), dispatch(&groups), sanity(&groups)]
        } else {
            vec![response(&groups), classes(settings, &groups), dispatch(&groups), sanity(&groups)]
        };
        for table in tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = write!(out, "\n{table}");
        }
        for run in runs.iter().filter(|run| run.load == load) {
            for trouble in &run.troubles {
                let _ = writeln!(out, "! {}, seed {}: {trouble}", run.subject.name(), run.seed);
            }
        }
    }
    out
}

fn heading(settings: &Settings) -> String {
    let Settings { workers, mean_us, dist, requests, has_classes, .. } = settings;
    let links = match settings.links {
        Links::H1 => "each behind a link over HTTP/1.1".to_owned(),
        Links::H2(links) => format!("behind {links} links over HTTP/2"),
    };
    let classes = if *has_classes { "10 % urgent, 30 % normal, 60 % background" } else { "one class" };
    let (seeds, cores) = (list(&settings.seeds), list(&settings.cores));
    let bound = settings.waiting_max.map_or(String::new(), |max| format!("; at most {max} wait"));
    format!(
        "{workers} workers, {links}; service {dist}, mean {mean_us} µs; {requests} requests, {classes}{bound}\n\
         seeds {seeds} (figures are medians over them); CPUs {cores}\n"
    )
}

fn list(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn group(runs: &[Run], load: f64, subject: Subject) -> Group<'_> {
    let of = |subject: Subject| runs.iter().filter(move |run| run.load == load && run.subject == subject);
    let own: Vec<&Run> = of(subject).collect();
    let floors = own.iter().map(|run| of(Subject::Floor).find(|floor| floor.seed == run.seed)).collect();
    Group { subject, runs: own, floors }
}

impl Group<'_> {
    /// All values that are numbers, one for each seed.
    fn each(&self, mut value: impl FnMut(&Run) -> Option<f64>) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(|run| value(run)).filter(|v| !v.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, value: impl FnMut(&Run) -> Option<f64>) -> Option<f64> {
        middle(&self.each(value))
    }

    /// The median of the ratios to the floor's value with the same seed.
    fn over_floor(&self, mut value: impl FnMut(&Run) -> Option<f64>) -> Option<f64> {
        let pairs = self.runs.iter().zip(&self.floors);
        let mut ratios: Vec<f64> = pairs
            .filter_map(|(run, floor)| Some(value(run)? / value((*floor)?)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_by(f64::total_cmp);
        middle(&ratios)
    }
}

fn middle(ascending: &[f64]) -> Option<f64> {
    let half = ascending.len() / 2;
    match ascending.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(ascending[half]),
        _ => Some((ascending[half - 1] + ascending[half]) / 2.0),
    }
}

// ---- the tables ----

fn response(groups: &[Group]) -> Table {
    let mut table = Table::new(
        "All requests: DQ, the response over (ideal + path), and DQ over the floor's",
        "|path µs|DQ p50|p90|p99|(low|high)|p99.9|p99 ms|/ floor p50|p90|p99|p99.9",
    );
    for group in groups {
        let p99 = group.each(|run| Some(run.figures.all.dq[P99]));
        let mut row =
            vec![group.subject.name().to_owned(), us(group.median(|run| Some(run.figures.path.round_ns as f64)))];
        row.extend([0, 1, 2].map(|at| times(group.median(|run| Some(run.figures.all.dq[at])))));
        row.extend([times(p99.first().copied()), times(p99.last().copied())]);
        row.push(times(group.median(|run| Some(run.figures.all.dq[3]))));
        row.push(ms(group.median(|run| Some(run.figures.all.response_ns[P99] as f64))));
        row.extend([0, 1, 2, 3].map(|at| times(group.over_floor(|run| Some(run.figures.all.dq[at])))));
        table.rows.push(row);
    }
    table
}

fn classes(settings: &Settings, groups: &[Group]) -> Table {
    let mut table = Table::new(
        "By class: the same, and the wait for a worker (without the path) over the ideal's",
        "||DQ p50|p90|p99|p99.9|p99 / floor|wait p99 ms|ideal ms|ratio",
    );
    let classes = Class::ALL.into_iter().filter(|_| settings.has_classes);
    for class in classes {
        for group in groups {
            let of =
                |run: &Run, value: fn(&ClassFigures) -> f64| run.figures.classes[class.index()].as_ref().map(value);
            let mut row = vec![class.name().to_owned(), group.subject.name().to_owned()];
            let dq = |run: &Run, at: usize| run.figures.classes[class.index()].as_ref().map(|own| own.dq[at]);
            row.extend([0, 1, 2, 3].map(|at| times(group.median(|run| dq(run, at)))));
            row.push(times(group.over_floor(|run| dq(run, P99))));
            row.push(ms(group.median(|run| of(run, |own| own.wait_p99_ns as f64))));
            row.push(ms(group.median(|run| of(run, |own| own.ideal_wait_p99_ns as f64))));
            row.push(times(group.median(|run| {
                let ratio = of(run, |own| own.wait_p99_ns as f64 / own.ideal_wait_p99_ns as f64)?;
                ratio.is_finite().then_some(ratio)
            })));
            table.rows.push(row);
        }
    }
    table
}

/// Kinds of handoff, in the order of their columns.
const KINDS: [&str; 3] = ["local", "cross_awake", "cross_asleep"];

fn dispatch(groups: &[Group]) -> Table {
    let mut table = Table::new(
        "Dispatch: inversions and idle workers while requests wait, seen from outside and as the edge counts them",
        "|inverted %|certain %|edge's own %|idle %|beyond path %|edge's own %|cross-core %\
         |handoff local µs|(99 %)|awake|(99 %)|asleep|(99 %)",
    );
    for group in groups {
        let starts = |run: &Run| run.figures.all.served.max(1) as f64;
        let mut row = vec![
            group.subject.name().to_owned(),
            percent(group.median(|run| Some(run.figures.inversions as f64 / starts(run)))),
            percent(group.median(|run| Some(run.figures.inversions_certain as f64 / starts(run)))),
            percent(group.median(inverted_by_edge)),
            percent(group.median(|run| Some(run.figures.idle_while_waiting))),
            percent(group.median(|run| Some(run.figures.idle_while_waiting_beyond_path))),
            percent(group.median(idle_by_edge)),
            percent(group.median(cross_core)),
        ];
        for kind in KINDS {
            let of = |run: &Run| run.counted.as_ref()?.handoffs.get(kind).copied();
            let bound = |value: fn(Handoff) -> f64| match group.median(|run| of(run).map(value)) {
                Some(us) if us.is_infinite() => "beyond".to_owned(),
                Some(us) => format!("<={us:.0}"),
                None => String::new(),
            };
            row.push(bound(|handoff| handoff.p50_us_max));
            row.push(bound(|handoff| handoff.p99_us_max));
        }
        table.rows.push(row);
    }
    table
}

fn inverted_by_edge(run: &Run) -> Option<f64> {
    let counted = run.counted.as_ref()?;
    Some(counted.inversions? / counted.dispatches.filter(|count| *count > 0.0)?)
}

fn idle_by_edge(run: &Run) -> Option<f64> {
    Some(run.counted.as_ref()?.idle_while_queued_seconds? / (f64::from(run.workers) * run.seconds))
}

fn cross_core(run: &Run) -> Option<f64> {
    let counted = run.counted.as_ref()?;
    let local = counted.kinds.get("local")?;
    Some(1.0 - local / counted.dispatches.filter(|count| *count > 0.0)?)
}

fn overload(groups: &[Group]) -> Table {
    let mut table = Table::new(
        "Overload: answers for each second, refusals, and how fast they come; beside them the ideal with the same bound",
        "|goodput/s|ideal|urgent p99 ms|ideal|refused %|ideal|urgent refused %|ideal|503 after µs|(99 %)|longest",
    );
    for group in groups {
        let of = |value: fn(&super::figures::Overload) -> Option<f64>| {
            group.median(move |run| run.overload.as_ref().and_then(value))
        };
        table.rows.push(vec![
            group.subject.name().to_owned(),
            whole(of(|own| Some(own.goodput))),
            whole(of(|own| Some(own.ideal_goodput))),
            ms(of(|own| own.urgent_p99_ns.map(|ns| ns as f64))),
            ms(of(|own| own.ideal_urgent_p99_ns.map(|ns| ns as f64))),
            percent(of(|own| Some(own.refused))),
            percent(of(|own| Some(own.ideal_refused))),
            percent(of(|own| Some(own.urgent_refused))),
            percent(of(|own| Some(own.ideal_urgent_refused))),
            us(of(|own| own.refusal_ns.map(|ns| ns[0] as f64))),
            us(of(|own| own.refusal_ns.map(|ns| ns[1] as f64))),
            us(of(|own| own.refusal_ns.map(|ns| ns[2] as f64))),
        ]);
    }
    table
}

fn sanity(groups: &[Group]) -> Table {
    let mut table = Table::new(
        "Whether to believe it: sends behind their due time, holds beyond the service time, CPU in parts of one",
        "|late p50 µs|p99|hold error p50 µs|p99|served|connections|CPU tool|subject|all others",
    );
    for group in groups {
        let of = |value: fn(&Run) -> f64| group.median(move |run| Some(value(run)));
        table.rows.push(vec![
            group.subject.name().to_owned(),
            us(of(|run| run.figures.late_p50_ns as f64)),
            us(of(|run| run.figures.late_p99_ns as f64)),
            us(of(|run| run.figures.timer_error_p50_ns as f64)),
            us(of(|run| run.figures.timer_error_p99_ns as f64)),
            whole(of(|run| run.figures.counts.served as f64)),
            whole(of(|run| run.connections as f64)),
            percent(of(|run| run.cpu_tool)),
            percent(of(|run| run.cpu_subject)),
            percent(of(|run| run.cpu_others)),
        ]);
    }
    table
}

// ---- cells ----

fn cell(value: Option<f64>, show: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(String::new, show)
}

fn times(value: Option<f64>) -> String {
    cell(value, |value| format!("{value:.3}"))
}

fn us(ns: Option<f64>) -> String {
    cell(ns, |ns| format!("{:.0}", ns / 1e3))
}

fn ms(ns: Option<f64>) -> String {
    cell(ns, |ns| format!("{:.2}", ns / 1e6))
}

fn percent(part: Option<f64>) -> String {
    cell(part, |part| format!("{:.2}", 100.0 * part))
}

fn whole(value: Option<f64>) -> String {
    cell(value, |value| format!("{value:.0}"))
}

/// Columns as wide as they need to be; those without any figure are left out.
struct Table {
    title: &'static str,
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Heads are parted by bars. Those that are empty stand above names.
    fn new(title: &'static str, heads: &'static str) -> Table {
        Table { title, heads: heads.split('|').collect(), rows: Vec::new() }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.title)?;
        let is_used = |column: &usize| self.rows.iter().any(|row| !row[*column].is_empty());
        let columns: Vec<usize> = (0..self.heads.len()).filter(is_used).collect();
        let chars = |text: &str| text.chars().count();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| chars(&row[column]));
            cells.max().unwrap_or(0).max(chars(self.heads[column]))
        };
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        for row in [&heads].into_iter().chain(&self.rows) {
            let mut line = String::from(" ");
            for &column in &columns {
                let (cell, width) = (&row[column], width(column));
                // Names to the left, figures to the right.
                let text =
                    if self.heads[column].is_empty() { format!(" {cell:<width$}") } else { format!(" {cell:>width$}") };
                line.push_str(&text);
                line.push(' ');
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

// ---- JSON ----

pub fn json(settings: &Settings, runs: &[Run]) -> String {
    let links = match settings.links {
        Links::H1 => json!({"protocol": "h1", "links": settings.workers}),
        Links::H2(links) => json!({"protocol": "h2", "links": links}),
    };
    let document = json!({
        "workers": settings.workers,
        "links": links,
        "mean_us": settings.mean_us,
        "dist": settings.dist.to_string(),
        "loads": settings.loads,
        "requests": settings.requests,
        "path_requests": settings.path_requests,
        "seeds": settings.seeds,
        "classes": settings.has_classes,
        "cores": settings.cores,
        "waiting_max": settings.waiting_max,
        "quantiles": QUANTILES,
        "runs": runs.iter().map(|run| run_json(run, runs)).collect::<Vec<Value>>(),
    });
    serde_json::to_string_pretty(&document).expect("plain values") + "\n"
}

fn run_json(run: &Run, runs: &[Run]) -> Value {
    let is_floor = |other: &&Run| other.subject == Subject::Floor && other.load == run.load && other.seed == run.seed;
    let over_floor = runs.iter().find(is_floor).map(|floor| {
        let ratios = |own: &ClassFigures, floor: &ClassFigures| -> Vec<f64> {
            own.dq.iter().zip(floor.dq).map(|(own, floor)| own / floor).collect()
        };
        let classes = Class::ALL.iter().filter_map(|class| {
            let (own, floor) = (&run.figures.classes[class.index()], &floor.figures.classes[class.index()]);
            Some((class.name().to_owned(), json!(ratios(own.as_ref()?, floor.as_ref()?))))
        });
        json!({"all": ratios(&run.figures.all, &floor.figures.all), "classes": classes.collect::<serde_json::Map<_, _>>()})
    });
    json!({
        "subject": run.subject.name(),
        "load": run.load,
        "seed": run.seed,
        "seconds": run.seconds,
        "figures": run.figures,
        "dq_over_floor": over_floor,
        "overload": run.overload,
        "counted_by_edge": run.counted,
        "cpu": {"tool": run.cpu_tool, "subject": run.cpu_subject, "others": run.cpu_others},
        "connections": run.connections,
        "troubles": run.troubles,
    })
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_it() {
        for (values, want) in
            [(&[][..], None), (&[3.0], Some(3.0)), (&[1.0, 4.0], Some(2.5)), (&[1.0, 2.0, 9.0], Some(2.0))]
        {
            assert_eq!(middle(values), want, "{values:?}");
        }
    }

    #[test]
    fn a_column_without_figures_is_left_out_and_the_rest_stand_under_their_heads() {
        let mut table = Table::new("title", "|a|bbbb|c");
        table.rows.push(vec!["x".into(), "10.0".into(), String::new(), "µs".into()]);
        table.rows.push(vec!["long".into(), "7".into(), String::new(), String::new()]);
        assert_eq!(table.to_string(), "title\n           a   c\n  x     10.0  µs\n  long     7\n");
    }
}
