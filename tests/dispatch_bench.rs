//! The tests of `benches/dispatch`, which cargo runs only here: each room's own, and small traces through the whole tool,
//! over loopback. Nothing is asserted about how fast anything was.

#[allow(dead_code)] // the bench's own entrance is not used here
#[path = "../benches/dispatch/main.rs"]
mod dispatch;

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dispatch::args::{self, Asked, Settings};
use dispatch::session::{Run, Subject, session};
use dispatch::{plot, report};

/// 400 requests for 4 workers, half a millisecond each if nothing else is said, and whatever else is asked for.
fn settings(more: &str) -> Settings {
    let mean = if more.contains("--mean-us") { "" } else { "--mean-us 500" };
    let words = format!("--bench --workers 4 {mean} --requests 400 --path-requests 20 {more}");
    match args::read(words.split_whitespace().map(OsString::from)) {
        Ok(Asked::Measure(settings)) => *settings,
        Ok(Asked::Help(_)) => panic!("{words}: help"),
        Err(error) => panic!("{words}: {error}"),
    }
}

fn runs(settings: &Settings) -> Vec<Run> {
    session(settings, &Arc::new(AtomicBool::new(false)), |_| {}).expect("a session")
}

#[track_caller]
fn check_all_served(runs: &[Run], want: &[Subject]) {
    assert_eq!(runs.iter().map(|run| run.subject).collect::<Vec<_>>(), want);
    for run in runs {
        let counts = run.figures.counts;
        assert_eq!((counts.requests, counts.served, counts.repeated), (400, 400, 0), "{:?}", run.subject);
        let spent: u64 = run.figures.classes.iter().flatten().map(|class| class.served).sum();
        assert_eq!(spent, 400, "every request is of one class");
    }
}

#[test]
fn every_request_is_served_once_by_the_floor_and_by_an_edge_with_links_over_h1() {
    let settings = settings("--no-classes");
    let runs = runs(&settings);
    check_all_served(&runs, &[Subject::Floor, Subject::Edge]);
    let counted = runs[1].counted.as_ref().expect("the edge counts");
    assert_eq!(counted.dispatches, Some(400.0), "the pass that measures the path does not count");
}

#[test]
fn every_request_is_served_once_by_an_edge_with_links_over_h2() {
    let settings = settings("--no-classes --floor false --links h2 --h2-links 3");
    let runs = runs(&settings);
    check_all_served(&runs, &[Subject::Edge]);
    assert!(runs[0].troubles.iter().all(|trouble| !trouble.contains("credit")), "{:?}", runs[0].troubles);
}

#[test]
fn more_than_the_queue_holds_is_refused_and_the_rest_is_served() {
    let settings = settings("--no-classes --overload --queue-max 20 --mean-us 2000");
    let runs = runs(&settings);
    assert_eq!(runs.len(), 6, "floor and edge, at three loads");
    for run in &runs {
        let counts = run.figures.counts;
        assert_eq!((counts.served + counts.refused, counts.lost), (400, 0), "{:?} at {}", run.subject, run.load);
    }
    let refused = |run: &Run| run.figures.counts.refused;
    assert!(runs.iter().filter(|run| run.load == 2.0).all(|run| refused(run) > 0), "twice too much fits nowhere");
}

#[test]
fn the_report_the_json_and_the_plot_have_every_subject() {
    let settings = settings("--no-classes --seeds 3,4");
    let runs = runs(&settings);
    let text = report::text(&settings, &runs);
    for head in ["DQ p50", "idle %", "late p50", "floor", "ptth"] {
        assert!(text.contains(head), "{head} is missing:\n{text}");
    }
    let document: serde_json::Value = serde_json::from_str(&report::json(&settings, &runs)).expect("JSON");
    let listed = document["runs"].as_array().expect("a list");
    let names: Vec<&str> = listed.iter().filter_map(|run| run["subject"].as_str()).collect();
    assert_eq!(names, ["floor", "ptth", "floor", "ptth"], "the subjects take turns within each seed");
    assert!(listed.iter().all(|run| run["dq_over_floor"]["all"][0].is_number()), "{document}");
    let plot = plot::svg(&settings, &runs);
    assert_eq!(plot.matches("<polyline").count(), 3, "the ideal, the floor and the edge:\n{plot}");
}

#[test]
fn a_signal_ends_a_session() {
    let settings = settings("--no-classes");
    let stopped = session(&settings, &Arc::new(AtomicBool::new(true)), |_| {});
    assert!(stopped.is_err_and(|error| error.contains("signal")));
}
