//! The command line: what is measured. Doing it never enters.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedI64ValueParser;

use super::limits::{
    CONNECTIONS_MAX, LIST_MAX, LOAD_MAX, MEAN_US_MAX, MEAN_US_MIN, PATH_LOAD, QUEUE_UNBOUNDED, REQUESTS_MAX,
    REQUESTS_MIN, TRACE_SECONDS_MAX, WORKERS_MAX,
};
use super::peers::Peer;
use super::session::Subject;
use super::trace::Dist;
use super::workers::Links;

/// What the command line asks for.
pub enum Asked {
    /// Text to print, and nothing else to do.
    Help(String),
    Measure(Box<Settings>),
}

/// What a session measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub workers: u32,
    pub links: Links,
    pub mean_us: u32,
    pub dist: Dist,
    pub loads: Vec<f64>,
    pub requests: u32,
    pub path_requests: u32,
    pub seeds: Vec<u64>,
    pub has_classes: bool,
    pub cores: Vec<u16>,
    /// In the order in which they take turns; the floor first, if it is measured.
    pub subjects: Vec<Subject>,
    pub edge: PathBuf,
    pub haproxy: PathBuf,
    pub nginx: PathBuf,
    pub connections_max: u32,
    /// Requests that may wait, with `--overload`.
    pub waiting_max: Option<u32>,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

#[derive(Parser)]
#[command(
    name = "cargo bench --bench dispatch --",
    about = "Measures how near the edge's dispatch comes to one ideal queue, on this machine and on loopback only.",
    after_help = "Example:\n  cargo bench --bench dispatch -- --requests 200000 --seeds 1,2,3 --svg dispatch.svg\n\n\
        benches/README.md tells what is measured and how to read the tables."
)]
struct Arguments {
    /// Workers, each with one credit
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = between(1, WORKERS_MAX))]
    workers: u32,
    /// How the workers are linked to the edge: a link each over HTTP/1.1, or some links over HTTP/2
    #[arg(long, value_enum, default_value = "h1")]
    links: LinkKind,
    /// Links over HTTP/2, which share the workers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = between(1, WORKERS_MAX))]
    h2_links: u32,
    /// Mean service time in microseconds
    #[arg(long, value_name = "US", default_value_t = 5_000, value_parser = between(MEAN_US_MIN, MEAN_US_MAX))]
    mean_us: u32,
    /// Distribution of the service times
    #[arg(long, value_enum, default_value = "exp")]
    dist: Dist,
    /// Offered work in parts of what the workers can do; a list is possible
    #[arg(long, value_name = "LOAD", value_delimiter = ',', default_value = "0.9")]
    load: Vec<f64>,
    /// Requests of each trace
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = between(REQUESTS_MIN, REQUESTS_MAX))]
    requests: u32,
    /// Requests of the pass at 5 % load that measures the path
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = between(REQUESTS_MIN, REQUESTS_MAX))]
    path_requests: u32,
    /// Seeds of the traces, a run for each
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// All requests are of one class, and nobody is told of any
    #[arg(long)]
    no_classes: bool,
    /// CPUs of the edge, a thread each, and of the peers [default: the first two that this process may use]
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    cores: Vec<u16>,
    /// Proxies that are measured beside the edge
    #[arg(long, value_enum, value_name = "PEERS", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Measure the tool's own floor: the queue in the generator, and nothing between it and the workers
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(default_value_t = true, default_missing_value = "true")]
    floor: bool,
    /// Loads 0.9, 1.0 and 2.0 with a bounded queue: goodput and refusals
    #[arg(long, conflicts_with = "load")]
    overload: bool,
    /// Requests that may wait, with --overload
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = between(1, QUEUE_UNBOUNDED))]
    queue_max: u32,
    /// Client connections at once, at most
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX, value_parser = between(1, CONNECTIONS_MAX))]
    connections_max: u32,
    /// The edge's program [default: the one that cargo has built for this bench]
    #[arg(long, value_name = "FILE")]
    edge: Option<PathBuf>,
    /// HAProxy's program
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    haproxy: PathBuf,
    /// nginx's program
    #[arg(long, value_name = "FILE", default_value = "nginx")]
    nginx: PathBuf,
    /// Write every run as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw measured and ideal response times
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn between(lowest: u32, highest: u32) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(lowest)..=i64::from(highest))
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LinkKind {
    H1,
    H2,
}

/// Reads the arguments behind the program's name. Only `cargo bench` says `--bench`: without it a test runner asks, and
/// gets the help; so it is when nothing else is said.
///
/// # Errors
/// What is wrong, for stderr.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    let mut is_bench = false;
    let mut own: Vec<OsString> = vec!["dispatch".into()];
    for argument in arguments {
        if argument == "--bench" {
            is_bench = true;
        } else {
            own.push(argument);
        }
    }
    if !is_bench || own.len() == 1 {
        own = vec!["dispatch".into(), "--help".into()];
    }
    match Arguments::try_parse_from(own) {
        Ok(arguments) => settings(arguments).map(|settings| Asked::Measure(Box::new(settings))),
        Err(error) if error.use_stderr() => Err(error.to_string()),
        Err(help) => Ok(Asked::Help(help.to_string())),
    }
}

fn settings(arguments: Arguments) -> Result<Settings, String> {
    let Arguments { workers, h2_links, load, seeds, mut cores, overload, .. } = arguments;
    if cores.is_empty() {
        let own = core_affinity::get_core_ids().unwrap_or_default();
        cores = own.iter().take(2).filter_map(|core| u16::try_from(core.id).ok()).collect();
    }
    let loads = if overload { vec![0.9, 1.0, 2.0] } else { load };
    let is_load = |load: &f64| *load > 0.0 && *load <= LOAD_MAX;
    if !loads.iter().all(is_load) {
        return Err(format!("--load must be above 0 and at most {LOAD_MAX}"));
    }
    let seconds = |requests: u32, load: f64| {
        f64::from(requests) * f64::from(arguments.mean_us) / (load * f64::from(workers) * 1e6)
    };
    let slowest = loads.iter().map(|load| seconds(arguments.requests, *load)).fold(0.0, f64::max);
    let longest = slowest.max(seconds(arguments.path_requests, PATH_LOAD));
    if longest > TRACE_SECONDS_MAX {
        return Err(format!(
            "a trace would take {longest:.0} s, more than {TRACE_SECONDS_MAX} s: take fewer --requests"
        ));
    }
    for (name, count) in [("--load", loads.len()), ("--seeds", seeds.len()), ("--cores", cores.len())] {
        if count == 0 || count > LIST_MAX {
            return Err(format!("{name} must name 1 to {LIST_MAX} values"));
        }
    }
    if cores.iter().any(|core| usize::from(*core) >= 1024) {
        return Err("--cores must name CPUs below 1024".into());
    }
    let links = match arguments.links {
        LinkKind::H1 => Links::H1,
        LinkKind::H2 if h2_links > workers => return Err("--h2-links must not be more than --workers".into()),
        LinkKind::H2 => Links::H2(h2_links),
    };
    let peers = arguments.peers.into_iter().map(Subject::Peer);
    let subjects = arguments.floor.then_some(Subject::Floor).into_iter().chain([Subject::Edge]).chain(peers);
    Ok(Settings {
        workers,
        links,
        mean_us: arguments.mean_us,
        dist: arguments.dist,
        loads,
        requests: arguments.requests,
        path_requests: arguments.path_requests,
        seeds,
        has_classes: !arguments.no_classes,
        cores,
        subjects: subjects.collect(),
        edge: arguments.edge.unwrap_or_else(|| env!("CARGO_BIN_EXE_ptth").into()),
        haproxy: arguments.haproxy,
        nginx: arguments.nginx,
        connections_max: arguments.connections_max,
        waiting_max: overload.then_some(arguments.queue_max),
        json: arguments.json,
        svg: arguments.svg,
    })
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn asked(arguments: &[&str]) -> Result<Asked, String> {
        read(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_definitions_are_in_order() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_cargo_bench_or_without_arguments_there_is_only_help() {
        for arguments in [&[][..], &["--bench"], &["--workers", "4"], &["--nocapture", "x"], &["--bench", "--help"]] {
            match asked(arguments) {
                Ok(Asked::Help(text)) => assert!(text.contains("--workers"), "{text}"),
                _ => panic!("{arguments:?} would measure"),
            }
        }
    }

    #[test]
    fn lists_and_bounds_are_read() {
        let list = "--bench --load 0.5,0.9 --seeds 1,2,3 --cores 1 --peers haproxy1,nginx-two --floor false --links h2";
        let Ok(Asked::Measure(settings)) = asked(&list.split(' ').collect::<Vec<_>>()) else { panic!("it measures") };
        assert_eq!(
            (settings.loads.as_slice(), settings.seeds.as_slice()),
            ([0.5, 0.9].as_slice(), [1, 2, 3].as_slice())
        );
        assert_eq!((settings.cores.as_slice(), settings.links), ([1].as_slice(), Links::H2(2)));
        let peers = [Peer::Haproxy1, Peer::NginxTwo].map(Subject::Peer);
        assert_eq!(settings.subjects, [&[Subject::Edge], peers.as_slice()].concat());
        assert_eq!(settings.waiting_max, None);
    }

    #[test]
    fn overload_has_loads_and_a_bound_of_its_own() {
        let Ok(Asked::Measure(settings)) = asked(&["--bench", "--overload"]) else { panic!("it measures") };
        assert_eq!((settings.loads.as_slice(), settings.waiting_max), ([0.9, 1.0, 2.0].as_slice(), Some(1_000)));
        assert_eq!(settings.subjects, [Subject::Floor, Subject::Edge]);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for wrong in [
            "--workers 0",
            "--workers 100000",
            "--mean-us 1",
            "--load 0",
            "--load -1",
            "--load NaN",
            "--load 11",
            "--requests 1",
            "--requests 2000000 --mean-us 60000000",
            "--peers apache",
            "--overload --load 0.5",
            "--links h2 --h2-links 17",
            "--cores 4096",
            "--wrokers 4",
        ] {
            let arguments: Vec<&str> = ["--bench"].into_iter().chain(wrong.split(' ')).collect();
            assert!(asked(&arguments).is_err(), "{wrong}");
        }
    }
}
