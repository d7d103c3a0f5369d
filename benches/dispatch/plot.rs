//! The plot: response times at each quantile, measured and ideal, as SVG text. One panel for all requests, one for each
//! class. Nothing is computed but places on the page.

use std::fmt::Write as _;

use super::args::Settings;
use super::figures::quantile;
use super::session::{Run, Subject};
use super::trace::Class;

const PANEL_WIDTH: f64 = 460.0;
const PANEL_HEIGHT: f64 = 320.0;
const MARGIN: f64 = 56.0;
/// Where the axis begins, the median: below it stand short services, which tell nothing of dispatch.
const NINES_MIN: f64 = std::f64::consts::LOG10_2;
/// Points of a curve: a step of a pixel or two.
const POINTS: u32 = 240;
const COLOURS: [&str; 7] = ["#888888", "#c02020", "#2060c0", "#109080", "#b07000", "#7030a0", "#404040"];

/// The runs of the first load. A curve is the median over the seeds at each quantile; the ideal is that of the first
/// subject (the others' sends differ by microseconds).
pub fn svg(settings: &Settings, runs: &[Run]) -> String {
    let load = settings.loads.first().copied().unwrap_or_default();
    let runs: Vec<&Run> = runs.iter().filter(|run| run.load == load).collect();
    let mut panels = vec![(0, "all requests")];
    if settings.has_classes {
        panels.extend(Class::ALL.map(|class| (1 + class.index(), class.name())));
    }
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let rows = panels.len().div_ceil(columns);
    let width = columns as f64 * (PANEL_WIDTH + MARGIN) + MARGIN;
    let height = rows as f64 * (PANEL_HEIGHT + 2.0 * MARGIN) + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let Settings { workers, mean_us, dist, requests, .. } = settings;
    let _ = writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">Response time, measured and ideal: {workers} workers, {dist}, mean \
         {mean_us} µs, load {load}, {requests} requests</text>"
    );
    for (place, (curve, name)) in panels.into_iter().enumerate() {
        let left = MARGIN + (place % columns) as f64 * (PANEL_WIDTH + MARGIN);
        let top = MARGIN + (place / columns) as f64 * (PANEL_HEIGHT + 2.0 * MARGIN);
        let lines = lines(settings, &runs, curve);
        let _ = writeln!(out, "<g transform=\"translate({left} {top})\">");
        panel(&mut out, name, &lines, requests_of(&runs, curve));
        out.push_str("</g>\n");
    }
    out + "</svg>\n"
}

/// A curve with its name, as milliseconds at each part.
struct Line {
    name: &'static str,
    colour: &'static str,
    is_ideal: bool,
    points: Vec<(f64, f64)>,
}

fn requests_of(runs: &[&Run], curve: usize) -> usize {
    runs.iter().map(|run| run.curves.measured[curve].len()).max().unwrap_or(0)
}

fn lines(settings: &Settings, runs: &[&Run], curve: usize) -> Vec<Line> {
    let nines_max = nines_max(requests_of(runs, curve));
    let mut lines = Vec::new();
    let mut add = |name, colour, is_ideal, curves: Vec<&Vec<u64>>| {
        let points = (0..=POINTS).filter_map(|step| {
            let nines = NINES_MIN + (nines_max - NINES_MIN) * f64::from(step) / f64::from(POINTS);
            let part = 1.0 - 10_f64.powf(-nines);
            let mut at: Vec<u64> = curves.iter().filter(|own| !own.is_empty()).map(|own| quantile(own, part)).collect();
            at.sort_unstable();
            let ns = *at.get(at.len() / 2)?;
            Some((nines, (ns as f64 / 1e6).max(0.001)))
        });
        lines.push(Line { name, colour, is_ideal, points: points.collect() });
    };
    if let Some(&first) = settings.subjects.first() {
        let ideal = of(runs, first).map(|run| &run.curves.ideal[curve]).collect();
        add("ideal", "#000000", true, ideal);
    }
    for (&subject, &colour) in settings.subjects.iter().zip(COLOURS.iter().cycle()) {
        add(subject.name(), colour, false, of(runs, subject).map(|run| &run.curves.measured[curve]).collect());
    }
    lines
}

fn of<'r>(runs: &'r [&Run], subject: Subject) -> impl Iterator<Item = &'r Run> {
    runs.iter().copied().filter(move |run| run.subject == subject)
}

/// So many nines that ten requests are above the last quantile; at least two.
fn nines_max(requests: usize) -> f64 {
    ((requests.max(1) as f64 / 10.0).log10()).max(2.0)
}

fn panel(out: &mut String, name: &str, lines: &[Line], requests: usize) {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|(_, ms)| *ms));
    let lowest = values().fold(f64::INFINITY, f64::min);
    let highest = values().fold(0.0, f64::max);
    let _ = writeln!(out, "<text y=\"-8\" font-weight=\"bold\">{name}</text>");
    if !lowest.is_finite() {
        let _ = writeln!(out, "<text y=\"20\">nothing was served</text>");
        return;
    }
    // Whole steps of 1, 2, 5 around the values.
    let low = *ticks().iter().rfind(|tick| **tick <= lowest).unwrap_or(&0.001);
    let high = *ticks().iter().find(|tick| **tick >= highest && **tick > low).unwrap_or(&1e6);
    let nines_max = nines_max(requests);
    let x = |nines: f64| PANEL_WIDTH * (nines - NINES_MIN) / (nines_max - NINES_MIN);
    let y = |ms: f64| PANEL_HEIGHT * (1.0 - (ms / low).ln() / (high / low).ln());
    for tick in ticks().into_iter().filter(|tick| (low..=high).contains(tick)) {
        let _ = writeln!(
            out,
            "<line x1=\"0\" x2=\"{PANEL_WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"-6\" y=\"{text:.1}\" text-anchor=\"end\">{tick}</text>",
            at = y(tick),
            text = y(tick) + 4.0
        );
    }
    for part in [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999] {
        let nines = -(1.0_f64 - part).log10();
        if nines <= nines_max {
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{PANEL_HEIGHT}\" stroke=\"#dddddd\"/>\
                 <text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label} %</text>",
                at = x(nines),
                below = PANEL_HEIGHT + 16.0,
                label = (part * 1e7).round() / 1e5
            );
        }
    }
    let _ = writeln!(out, "<text x=\"-6\" y=\"-8\" text-anchor=\"end\">ms</text>");
    // The names stand where no curve goes: they rise from left to right.
    let (names_left, names_top) = (PANEL_WIDTH - 120.0, PANEL_HEIGHT - 16.0 * lines.len() as f64 - 8.0);
    for (place, line) in lines.iter().enumerate() {
        let points: Vec<String> =
            line.points.iter().map(|(nines, ms)| format!("{:.1},{:.1}", x(*nines), y(*ms))).collect();
        let dash = if line.is_ideal { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash} points=\"{points}\"/>\
             <line x1=\"{names_left}\" x2=\"{end}\" y1=\"{at}\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{text}\" y=\"{base}\">{name}</text>",
            points = points.join(" "),
            colour = line.colour,
            name = line.name,
            end = names_left + 24.0,
            text = names_left + 30.0,
            at = names_top + 12.0 + 16.0 * place as f64,
            base = names_top + 16.0 + 16.0 * place as f64
        );
    }
}

/// 1, 2, 5 of each decade, in milliseconds: a microsecond to a quarter of an hour.
fn ticks() -> Vec<f64> {
    (-3..6).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(decade))).chain([1e6]).collect()
}
