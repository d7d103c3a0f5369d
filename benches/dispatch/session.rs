//! One session: which program stands between the generator and its workers, and which traces pass. Floor, edge and peers
//! take turns within each seed, so that a machine that drifts does so for all of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::args::Settings;
use super::child::{Port, Program, Scratch, machine_busy_ns};
use super::clock::pause_ms;
use super::edge;
use super::figures::{self, Curves, Figures, Overload, PathTime};
use super::generator::Generator;
use super::ideal::{Fate, Offer, central_queue, most_at_once};
use super::limits::{CONNECTIONS_SPARE, FDS_RESERVED, LATE_PART_MAX, OTHERS_CPU_MAX, PATH_LOAD, QUEUE_UNBOUNDED};
use super::metrics::{Counted, look};
use super::peers::{self, Peer};
use super::poll::Poll;
use super::rig::{Passed, Rig};
use super::trace::{Planned, Shape, plan};
use super::workers::Workers;

/// What stands between the generator and the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing: the queue is in the generator.
    Floor,
    Edge,
    Peer(Peer),
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Floor => "floor",
            Subject::Edge => "ptth",
            Subject::Peer(peer) => peer.name(),
        }
    }
}

/// One trace through one subject.
pub struct Run {
    pub subject: Subject,
    pub workers: u32,
    pub load: f64,
    pub seed: u64,
    pub figures: Figures,
    pub curves: Curves,
    /// With `--overload` only.
    pub overload: Option<Overload>,
    /// The edge only.
    pub counted: Option<Counted>,
    pub seconds: f64,
    /// In parts of one CPU.
    pub cpu_tool: f64,
    pub cpu_subject: f64,
    pub cpu_others: f64,
    pub connections: usize,
    /// What went wrong, in words.
    pub troubles: Vec<String>,
}

/// Runs everything that the settings ask for. `tell` hears how it goes.
pub fn session(settings: &Settings, stop: &Arc<AtomicBool>, mut tell: impl FnMut(&str)) -> Result<Vec<Run>, String> {
    let connections_max = connections_max(settings);
    let mut runs = Vec::new();
    for &load in &settings.loads {
        for &seed in &settings.seeds {
            let planned = plan(&shape(settings, load, settings.requests), seed);
            for &subject in &settings.subjects {
                tell(&format!("load {load}, seed {seed}: {}", subject.name()));
                let one = One { settings, subject, load, seed, connections_max, stop };
                runs.push(one.run(&planned).map_err(|error| format!("{}: {error}", subject.name()))?);
            }
        }
    }
    Ok(runs)
}

/// A client connection takes a descriptor here, and one more in a worker or in the proxy.
fn connections_max(settings: &Settings) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Programs that are started inherit it; if it cannot be raised, fewer connections will do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let kept = FDS_RESERVED + 4 * u64::from(settings.workers);
    let may = descriptors.saturating_sub(kept) / 2;
    usize::try_from(may).unwrap_or(usize::MAX).min(settings.connections_max as usize)
}

fn shape(settings: &Settings, load: f64, requests: u32) -> Shape {
    Shape {
        requests: requests as usize,
        workers: settings.workers,
        mean_us: settings.mean_us,
        load,
        dist: settings.dist,
        has_classes: settings.has_classes,
    }
}

/// One run, before it began.
struct One<'s> {
    settings: &'s Settings,
    subject: Subject,
    load: f64,
    seed: u64,
    connections_max: usize,
    stop: &'s Arc<AtomicBool>,
}

/// The subject and its rig, ready. Fields are dropped in this order: connections, then the program, then its files.
struct Stage {
    rig: Rig,
    program: Option<Program>,
    admin: Option<SocketAddr>,
    _ports: Vec<Port>,
    _scratch: Scratch,
}

impl One<'_> {
    fn run(&self, planned: &[Planned]) -> io::Result<Run> {
        let mut stage = self.set_up()?;
        // Another seed: the path has nothing to do with the trace.
        let path_trace = plan(&shape(self.settings, PATH_LOAD, self.settings.path_requests), !self.seed);
        let path_pass = stage.rig.pass(&path_trace, CONNECTIONS_SPARE)?;
        let path = figures::path_time(&path_pass.records);
        let connections = self.connections(planned);
        let before = stage.admin.map(look).transpose()?;
        let cpu = (stage.cpu_ns(), machine_busy_ns());
        let passed = stage.rig.pass(planned, connections)?;
        let (subject_ns, machine_ns) = (stage.cpu_ns() - cpu.0, machine_busy_ns() - cpu.1);
        if let Some(program) = &mut stage.program {
            program.check_alive()?;
        }
        let counted = match (before, stage.admin) {
            (Some(before), Some(admin)) => Some(Counted::between(&before, &look(admin)?)),
            _ => None,
        };
        let others_ns = machine_ns.saturating_sub(subject_ns + passed.cpu_ns);
        Ok(self.told(passed, path, counted, subject_ns, others_ns))
    }

    fn told(&self, passed: Passed, path: PathTime, counted: Option<Counted>, subject_ns: u64, others_ns: u64) -> Run {
        let workers = self.settings.workers;
        let (figures, curves) = figures::figures(&passed.records, workers, path);
        let part = |ns: u64| ns as f64 / passed.took_ns.max(1) as f64;
        let waiting_max = self.settings.waiting_max.map(|max| max as usize);
        let mut troubles = troubles(&passed, &figures, waiting_max.is_some());
        if part(others_ns) > OTHERS_CPU_MAX {
            troubles.push(format!("something else used {:.0} % of a CPU", 100.0 * part(others_ns)));
        }
        if figures.late_p99_ns as f64 > LATE_PART_MAX * 1e3 * f64::from(self.settings.mean_us) {
            troubles.push(format!("1 % of the sends were late by {} µs or more", figures.late_p99_ns / 1_000));
        }
        Run {
            subject: self.subject,
            workers,
            load: self.load,
            seed: self.seed,
            overload: waiting_max.map(|max| figures::overload(&passed.records, workers, max)),
            seconds: passed.took_ns as f64 / 1e9,
            cpu_tool: part(passed.cpu_ns),
            cpu_subject: part(subject_ns),
            cpu_others: part(others_ns),
            connections: passed.connections,
            troubles,
            figures,
            curves,
            counted,
        }
    }

    fn set_up(&self) -> io::Result<Stage> {
        let Settings { workers: count, has_classes, waiting_max, .. } = *self.settings;
        let scratch = Scratch::new()?;
        let poll = Poll::new()?;
        let (workers, generator, program, admin, ports) = match self.subject {
            Subject::Floor => {
                let workers = Workers::listening(count, &poll)?;
                let bound = waiting_max.map_or(usize::MAX, |max| max as usize);
                let generator = Generator::central_queue(&workers.addresses()?, bound, &poll)?;
                (workers, generator, None, None, Vec::new())
            }
            Subject::Edge => {
                let setup = edge::Setup {
                    program: &self.settings.edge,
                    cores: &self.settings.cores,
                    workers: count,
                    waiting_max: waiting_max.unwrap_or(QUEUE_UNBOUNDED),
                    has_classes,
                };
                let edge = edge::start(setup, &scratch)?;
                let workers = Workers::dialed(count, self.settings.links, edge.links.address, &edge.credential, &poll)?;
                let generator = Generator::open_loop(edge.clients.address, self.connections_max);
                let admin = Some(edge.admin.address);
                (workers, generator, Some(edge.program), admin, vec![edge.clients, edge.links, edge.admin])
            }
            Subject::Peer(peer) => {
                let workers = Workers::listening(count, &poll)?;
                let setup = peers::Setup {
                    haproxy: &self.settings.haproxy,
                    nginx: &self.settings.nginx,
                    cores: &self.settings.cores,
                    workers: &workers.addresses()?,
                    waiting_max,
                    has_classes,
                    connections_max: self.connections_max,
                };
                let (program, port) = peer.start(setup, &scratch)?;
                let generator = Generator::open_loop(port.address, self.connections_max);
                (workers, generator, Some(program), None, vec![port])
            }
        };
        pause_ms(50); // links that were just turned move to their cores
        let rig = Rig::new(poll, workers, generator, self.stop.clone());
        Ok(Stage { rig, program, admin, _ports: ports, _scratch: scratch })
    }

    /// So many connections stand before the trace begins: what the ideal needs at once, and half as many again.
    fn connections(&self, planned: &[Planned]) -> usize {
        let offers: Vec<Offer> = planned
            .iter()
            .map(|p| Offer { arrives_ns: p.due_ns, service_ns: u64::from(p.service_us) * 1_000, class: p.class })
            .collect();
        let waiting_max = self.settings.waiting_max.map_or(usize::MAX, |max| max as usize);
        let fates: Vec<Fate> = central_queue(&offers, self.settings.workers as usize, waiting_max);
        most_at_once(&offers, &fates) * 3 / 2 + CONNECTIONS_SPARE
    }
}

impl Stage {
    fn cpu_ns(&self) -> u64 {
        self.program.as_ref().map_or(0, Program::cpu_ns)
    }
}

/// What a reader must know before he believes the figures.
fn troubles(passed: &Passed, figures: &Figures, may_refuse: bool) -> Vec<String> {
    let counts = figures.counts;
    let mut told = Vec::new();
    let mut tell = |count: u64, what: &str| {
        if count > 0 {
            told.push(format!("{count} {what}"));
        }
    };
    tell(if may_refuse { 0 } else { counts.refused }, "requests were refused (503)");
    tell(counts.failed, "requests got another status than 200 and 503");
    tell(counts.lost, "requests were never answered");
    tell(counts.unsent, "requests were not sent for want of connections (--connections-max, ulimit -n)");
    tell(counts.repeated, "requests were dispatched more than once");
    tell(passed.generator.opened_late, "requests waited for their connection to open");
    tell(passed.generator.broken, "client connections ended while a request was out");
    tell(passed.workers.links_lost, "links were lost");
    tell(passed.workers.over_credit, "requests came to a worker that had no credit left");
    tell(passed.workers.no_orders, "requests came that were not the generator's");
    tell(passed.strays, "words about requests of an earlier pass");
    told
}
