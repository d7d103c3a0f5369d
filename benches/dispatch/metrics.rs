//! What an edge counts itself, from two looks at its `/metrics`. Measuring, and the edge's inside, never enter: the names
//! are those that it publishes, and one that it does not publish is simply not there.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::limits::{ADMIN_BYTES_MAX, ADMIN_MS_MAX};

/// The text of `/metrics` (Prometheus, 0.0.4), read.
pub struct Look(Vec<Sample>);

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// What the edge counted between two looks.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Counted {
    pub dispatches: Option<f64>,
    pub inversions: Option<f64>,
    pub idle_while_queued_seconds: Option<f64>,
    /// Dispatches by their kind.
    pub kinds: BTreeMap<String, f64>,
    /// Handoff times by their kind.
    pub handoffs: BTreeMap<String, Handoff>,
}

/// Upper bounds of the histogram's buckets, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Handoff {
    pub count: f64,
    pub p50_us_max: f64,
    pub p99_us_max: f64,
}

const DISPATCHES: &str = "ptth_dispatches_total";
const HANDOFFS: &str = "ptth_handoff_seconds_bucket";

pub fn look(admin: SocketAddr) -> io::Result<Look> {
    let wait_max = Duration::from_millis(ADMIN_MS_MAX);
    let mut stream = TcpStream::connect_timeout(&admin, wait_max)?;
    stream.set_read_timeout(Some(wait_max))?;
    // 1.0: a body without chunks, up to the end.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ADMIN_BYTES_MAX).read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(Look::read(body)),
        _ => Err(io::Error::other(format!("{admin} does not answer /metrics"))),
    }
}

impl Look {
    /// Lines that are no samples are passed over.
    pub fn read(text: &str) -> Look {
        Look(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum over all labels; `None` if there is no such name.
    fn sum(&self, name: &str) -> Option<f64> {
        self.0.iter().filter(|sample| sample.name == name).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// Sums by the values of one label.
    fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.iter().filter(|sample| sample.name == name) {
            if let Some(value) = sample.label(label) {
                *sums.entry(value.to_owned()).or_insert(0.0) += sample.value;
            }
        }
        sums
    }

    /// A histogram's cumulated counts, by kind, each as (bound in seconds, count) in the order of the bounds.
    fn buckets(&self, kind: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.name == HANDOFFS && sample.label("kind") == Some(kind)) {
            let Some(bound) = sample.label("le").and_then(number) else { continue };
            match buckets.iter_mut().find(|(own, _)| *own == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

impl Counted {
    pub fn between(before: &Look, after: &Look) -> Counted {
        let grown = |name| Some(after.sum(name)? - before.sum(name).unwrap_or(0.0));
        let kinds_before = before.by(DISPATCHES, "kind");
        let mut kinds = after.by(DISPATCHES, "kind");
        kinds.iter_mut().for_each(|(kind, count)| *count -= kinds_before.get(kind).copied().unwrap_or(0.0));
        let handoffs = after.by(HANDOFFS, "kind").into_keys().filter_map(|kind| {
            let handoff = handoff(&before.buckets(&kind), &after.buckets(&kind))?;
            Some((kind, handoff))
        });
        Counted {
            dispatches: grown(DISPATCHES),
            inversions: grown("ptth_dispatch_inversions_total"),
            idle_while_queued_seconds: grown("ptth_idle_while_queued_seconds_total"),
            handoffs: handoffs.collect(),
            kinds,
        }
    }
}

/// `None` where nothing came in between.
fn handoff(before: &[(f64, f64)], after: &[(f64, f64)]) -> Option<Handoff> {
    let grown = after.iter().map(|&(bound, count)| {
        let was = before.iter().find(|(own, _)| *own == bound).map_or(0.0, |(_, count)| *count);
        (bound, count - was)
    });
    let grown: Vec<(f64, f64)> = grown.collect();
    let count = grown.last()?.1;
    let bound_us = |part: f64| {
        let found = grown.iter().find(|(_, below)| *below >= part * count);
        found.map_or(f64::INFINITY, |(bound, _)| bound * 1e6)
    };
    (count > 0.0).then(|| Handoff { count, p50_us_max: bound_us(0.5), p99_us_max: bound_us(0.99) })
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// `name value`, or `name{label="value",…} value`; a timestamp may follow.
fn sample(line: &str) -> Option<Sample> {
    let name_len = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_len);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = number(rest.split_whitespace().next()?)?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels behind a brace, and what follows the other one.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &quoted[end + 1..];
    }
}

fn number(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_name_labels_and_a_value() {
        type Parts<'p> = (&'p str, &'p [(&'p str, &'p str)], f64);
        #[track_caller]
        fn check(line: &str, want: Option<Parts<'_>>) {
            let got = sample(line).map(|sample| (sample.name, sample.labels, sample.value));
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let want = want.map(|(name, labels, value)| (name.to_owned(), labels.iter().map(owned).collect(), value));
            assert_eq!(got, want, "{line:?}");
        }
        check("up 1", Some(("up", &[], 1.0)));
        check("a{} 2.5", Some(("a", &[], 2.5)));
        check(r#"a{b="c",d="e"} 3 1700000000"#, Some(("a", &[("b", "c"), ("d", "e")], 3.0)));
        check(r#"a{b="x\"y\\z\n, }"} 4"#, Some(("a", &[("b", "x\"y\\z\n, }")], 4.0)));
        check(r#"a{le="+Inf",} +Inf"#, Some(("a", &[("le", "+Inf")], f64::INFINITY)));
        check(r#"a{b="c"#, None);
        check("a", None);
        check("a x", None);
    }

    #[test]
    fn what_was_counted_is_the_difference_of_two_looks() {
        let before = Look::read(
            "# TYPE ptth_dispatches_total counter\nptth_dispatches_total{pool=\"p\",kind=\"local\"} 10\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"0.001\"} 10\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"0.002\"} 10\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"+Inf\"} 10\n",
        );
        let after = Look::read(
            "ptth_dispatches_total{pool=\"p\",kind=\"local\"} 110\nptth_dispatches_total{pool=\"p\",kind=\"cross\"} 4\n\
             ptth_dispatch_inversions_total{pool=\"p\"} 3\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"0.001\"} 70\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"0.002\"} 108\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"1\",le=\"+Inf\"} 110\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"3\",le=\"0.001\"} 1\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"3\",le=\"0.002\"} 1\n\
             ptth_handoff_seconds_bucket{kind=\"local\",class=\"3\",le=\"+Inf\"} 1\n\
             ptth_handoff_seconds_bucket{kind=\"cross_awake\",class=\"1\",le=\"+Inf\"} 0\n",
        );
        let counted = Counted::between(&before, &after);
        assert_eq!(counted.dispatches, Some(104.0));
        assert_eq!(counted.inversions, Some(3.0));
        assert_eq!(counted.idle_while_queued_seconds, None);
        assert_eq!(counted.kinds, BTreeMap::from([("cross".to_owned(), 4.0), ("local".to_owned(), 100.0)]));
        let local = Handoff { count: 101.0, p50_us_max: 1_000.0, p99_us_max: f64::INFINITY };
        assert_eq!(counted.handoffs, BTreeMap::from([("local".to_owned(), local)]));
    }
}
