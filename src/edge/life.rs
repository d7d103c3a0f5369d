//! The life of an edge over its configurations: the first generation, those that follow it on the same sockets, and the end of
//! all. What a generation does with its connections never enters.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::config::EdgeConfig;
use super::core::{Shared, orders};
use super::handover::{DRAINS, Predecessor, Program};
use super::lineage::{Heirs, Lineage, tell_all};
use super::sockets::{Dealt, Kept, Sockets};
use super::supervisor::{self, Supervisor};
use super::{Generation, cpus_of, look_at_credentials, read_certificates, tls};
use crate::clock;
use crate::events::Reload;
use crate::ids::PoolId;
use crate::limits::{GENERATIONS_LEAVING_MAX, TICK_MS};
use crate::settings::Mistakes;

/// A running edge. Dropping it does not end it; [`Edge::drain`] and [`Edge::wait`] do.
pub struct Edge {
    life: Arc<Life>,
    /// Listened to by whoever waits; the lock is for `Sync` alone.
    ends: Mutex<mpsc::Receiver<Ended>>,
    /// Where it listened at its start, in the order of the configuration; a port 0 is resolved here.
    pub addresses: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// This generation has taken over.
    Anew(u64),
    /// The configuration is what it was; the files that it names were read again, and no connection noticed.
    Files,
    /// As many generations leave as may, or another process takes over: not now.
    Later,
}

/// What reloads, and what ends.
struct Life {
    lineage: Arc<Lineage>,
    /// Locked by whoever reloads, from its beginning to its end.
    present: Mutex<Present>,
    told: mpsc::Sender<Ended>,
}

/// Where the newest generation listens.
struct Present {
    sockets: Sockets,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    /// A reload waits for a generation's end, or for that of an upgrade.
    is_wanted_anew: bool,
    /// Another process is about to take over.
    is_upgrading: bool,
    /// This one has. Nobody waits for its end, so that its id is nobody else's as long as this process lives.
    successor: Option<Pid>,
}

/// A generation's last word.
struct Ended {
    result: Result<bool, String>,
    was_last: bool,
}

impl Edge {
    /// Opens all listeners and starts all cores. Nothing runs if one of them cannot.
    pub fn start(config: EdgeConfig) -> Result<Edge, String> {
        Edge::start_on(config, &Sockets::default(), Lineage::new(false, Supervisor::default()), None)
    }

    /// As [`Edge::start`], on sockets that are open already as far as the configuration wants them, and, where another process
    /// has them, not before that one says so.
    fn start_on(
        config: EdgeConfig,
        sockets: &Sockets,
        lineage: Arc<Lineage>,
        predecessor: Option<Predecessor>,
    ) -> Result<Edge, String> {
        let cpus = cpus_of(&config.cores)?;
        let files = read_certificates(&config)?;
        let Dealt { sockets, cores, addresses, admin } = sockets.deal(&config, cpus.len())?;
        let (told, ends) = mpsc::channel();
        let addresses_now = addresses.clone();
        let present = Present {
            sockets,
            addresses: addresses_now,
            admin,
            is_wanted_anew: false,
            is_upgrading: false,
            successor: None,
        };
        let life = Arc::new(Life { lineage, present: Mutex::new(present), told });
        let generation = Generation::boot(config, &cpus, files, cores, &life.lineage)?;
        let shared = life.watch(generation)?;
        if let Some(predecessor) = &predecessor {
            predecessor.tell_ready(addresses.iter().copied().chain(admin).collect());
        }
        life.open(&shared, &life.present().sockets, None)?;
        if let Some(predecessor) = predecessor {
            predecessor.tell_open();
        }
        Ok(Edge { life, ends: Mutex::new(ends), addresses, admin })
    }

    /// Stop taking new work, finish what runs, end. Safe to repeat.
    pub fn drain(&self) {
        self.life.lineage.drain();
    }

    /// Takes this configuration from now on. No connection is lost: a new generation takes over the sockets, and the one
    /// before finishes what it began. An error changes nothing.
    pub fn reload(&self, config: EdgeConfig) -> Result<Reloaded, String> {
        self.life.reload(&mut self.life.present(), config)
    }

    /// Opens the access log anew, and reads the certificates again, and the files of credentials. With a mistake among the certificates none of them changes,
    /// and the log says why.
    pub fn reload_files(&self) {
        let Some(present) = self.life.lineage.present() else { return };
        self.life.lineage.log.reopen();
        if let Err(why) = reload_files(&present) {
            why.lines().for_each(|line| tracing::error!("{line}"));
        }
    }

    /// Until all cores have ended. True: everything was finished in time.
    pub fn wait(self) -> Result<bool, String> {
        let mut all = true;
        let mut failure = None;
        let ends = self.ends.into_inner().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Ended { result, was_last }) = ends.recv() {
            match result {
                Ok(finished) => all &= finished || !self.life.lineage.drains(),
                Err(why) => failure = failure.or(Some(why)),
            }
            if was_last {
                break;
            }
        }
        self.life.lineage.log.end();
        failure.map_or(Ok(all), Err)
    }
}

impl Present {
    /// The file may have changed since the process that has taken over read it. False: none has.
    fn hang_up_successor(&self) -> bool {
        let Some(pid) = self.successor else { return false };
        let _ = kill_process(pid, Signal::HUP); // it may have ended
        true
    }

    /// What becomes of its sockets when the next one listens on these addresses.
    fn heirs(&self, living: &[SocketAddr]) -> Heirs {
        Heirs::among(&self.addresses, self.admin, living)
    }
}

impl Life {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for a generation's end.
    fn watch(self: &Arc<Life>, generation: Generation) -> Result<Arc<Shared>, String> {
        let shared = generation.shared.clone();
        let number = shared.generation;
        let life = self.clone();
        let watch = move || {
            let result = generation.wait();
            if let Ok(false) = result {
                tracing::warn!(generation = number, "drain_max ran out: what was left of this generation was cut");
            }
            let was_last = life.lineage.ended(number);
            let _ = life.told.send(Ended { result, was_last }); // nobody has to listen
            if std::mem::take(&mut life.present().is_wanted_anew) {
                life.hang_up();
            }
        };
        let watched = std::thread::Builder::new().name(format!("generation-{number}")).spawn(watch);
        if let Err(error) = watched {
            tell_all(&shared, orders::DRAIN);
            return Err(format!("a thread could not be started: {error}; see ulimit -u"));
        }
        Ok(shared)
    }

    /// Opens a generation that is watched. Its error leaves the one before as it was.
    fn open(&self, shared: &Arc<Shared>, sockets: &Sockets, heirs: Option<Heirs>) -> Result<(), String> {
        if let Err(why) = sockets.listen() {
            tell_all(shared, orders::DRAIN);
            return Err(why);
        }
        if self.lineage.open(shared, heirs).is_none() {
            tell_all(shared, orders::DRAIN);
            return Err("the edge drains".into());
        }
        Ok(())
    }

    fn reload(self: &Arc<Life>, present: &mut Present, config: EdgeConfig) -> Result<Reloaded, String> {
        let before = self.lineage.present().ok_or("the edge has ended")?;
        if self.lineage.drains() {
            return Err("the edge drains".into());
        }
        if before.config == config {
            return reload_files(&before).map(|()| Reloaded::Files);
        }
        if self.lineage.leaving() >= GENERATIONS_LEAVING_MAX || present.is_upgrading {
            return Ok(Reloaded::Later);
        }
        let cpus = cpus_of(&config.cores)?;
        let files = read_certificates(&config)?;
        tls::keep_tickets(&files.0, &config.listens, &before.tls, &before.config.listens);
        let Dealt { sockets, cores, addresses, admin } = present.sockets.deal(&config, cpus.len())?;
        let living: Vec<SocketAddr> = sockets.addresses().collect();
        let heirs = present.heirs(&living);
        let generation = Generation::boot(config, &cpus, files, cores, &self.lineage)?;
        let shared = self.watch(generation)?;
        self.open(&shared, &sockets, Some(heirs))?;
        for address in addresses.iter().filter(|address| !present.addresses.contains(address)) {
            tracing::info!(%address, "listening");
        }
        let is_here = |address: &&SocketAddr| addresses.contains(address) || admin == Some(**address);
        for address in present.addresses.iter().filter(|address| !is_here(address)) {
            tracing::info!(%address, "closed: nobody new is taken here");
        }
        *present = Present { sockets, addresses, admin, is_wanted_anew: false, is_upgrading: false, successor: None };
        Ok(Reloaded::Anew(shared.generation))
    }

    /// What SIGHUP asks for: the file is read again, and with a mistake in it nothing changes.
    fn hang_up(self: &Arc<Life>) {
        let Some(before) = self.lineage.present() else { return };
        self.lineage.log.reopen(); // also where the file is bad: whoever has renamed a log waits for that
        // Before the file is read: of two who do this, the one that reads later is in force later.
        let mut present = self.present();
        if present.hang_up_successor() {
            return tracing::info!("SIGHUP: it was told to the process that has taken over");
        }
        if present.is_upgrading {
            present.is_wanted_anew = true;
            return tracing::info!("SIGHUP: it is done when it is known whether another process takes over");
        }
        self.lineage.supervisor.reloads();
        let result = match EdgeConfig::read(Path::new(&before.config.file), clock::unix_seconds()) {
            Ok((config, warnings)) => {
                warnings.lines().for_each(|line| tracing::warn!("{line}"));
                let reloaded = self.reload(&mut present, config);
                present.is_wanted_anew = reloaded == Ok(Reloaded::Later);
                reloaded
            }
            Err(mistakes) => Err(mistakes.to_string()),
        };
        drop(present);
        match result {
            Ok(Reloaded::Anew(generation)) => {
                self.lineage.count(Reload::Done);
                tracing::info!(generation, "SIGHUP: the configuration was read again, and is in force");
            }
            Ok(Reloaded::Files) => {
                self.lineage.count(Reload::Done);
                tracing::info!(
                    "SIGHUP: the configuration is as it was; certificates and files of credentials were read again"
                );
            }
            Ok(Reloaded::Later) => tracing::warn!(
                leaving = GENERATIONS_LEAVING_MAX,
                "SIGHUP: it is done when one of the configurations from before has finished what it began"
            ),
            Err(why) => {
                why.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!("SIGHUP: nothing changes");
                self.lineage.count(Reload::Failed); // who sees it finds the reason in the log
            }
        }
        self.lineage.supervisor.has_reloaded();
    }

    /// What SIGUSR2 asks for: the program's file is started once more, takes over the sockets, and this process ends when
    /// what runs is done. If it does not start, nothing changes.
    fn upgrade(self: &Arc<Life>, program: &Program) {
        match self.try_upgrade(program) {
            Ok(pid) => tracing::info!(pid, "SIGUSR2: this process has been replaced, and ends when what runs is done"),
            Err(why) => {
                tracing::error!("{why}");
                tracing::error!("SIGUSR2: nothing changes");
            }
        }
    }

    fn try_upgrade(self: &Arc<Life>, program: &Program) -> Result<u32, String> {
        let sockets = {
            let mut present = self.present();
            if self.lineage.drains() {
                return Err(DRAINS.into());
            }
            if std::mem::replace(&mut present.is_upgrading, true) {
                return Err("another process is about to take over".into());
            }
            present.sockets.iter().map(Kept::twin).collect::<std::io::Result<Vec<_>>>()
        };
        let sockets = sockets.map_err(|error| format!("the sockets cannot be handed over: {error}"));
        self.wait_for_workers();
        let drains = || self.lineage.drains();
        let sockets = if drains() { Err(DRAINS.into()) } else { sockets };
        let replaced = sockets.and_then(|sockets| program.start(&sockets)?.wait(drains)).and_then(|mut successor| {
            let heirs = self.present().heirs(&successor.addresses);
            if drains() {
                return Err(successor.end(DRAINS)); // nobody new is taken, neither here nor there
            }
            let drain_ms_max = self.lineage.present().map_or(0, |present| present.config.drain_ms_max);
            // Before this one leaves its sockets: nobody finds one that nobody accepts on.
            successor.go(drain_ms_max, drains)?;
            let Some(departure) = self.lineage.depart(&heirs) else {
                return Err(successor.drain(DRAINS, drain_ms_max));
            };
            self.lineage.supervisor.goes_on_as(successor.pid());
            successor.is_left_alone();
            departure.begin();
            Ok(successor.pid())
        });
        let mut present = self.present();
        let is_wanted_anew = std::mem::take(&mut present.is_wanted_anew);
        match &replaced {
            Ok(pid) => {
                // Should the other process end, its sockets end with it, and whoever binds anew has them alone.
                present.sockets = Sockets::of(Vec::new());
                // It may have read the file before that was changed.
                present.successor = i32::try_from(*pid).ok().and_then(Pid::from_raw);
                if is_wanted_anew {
                    present.hang_up_successor();
                }
            }
            Err(_) => {
                present.is_upgrading = false;
                drop(present);
                if is_wanted_anew {
                    self.hang_up();
                }
            }
        }
        replaced
    }

    /// Requests do not go over to another process, so those that wait here for workers that are on their way have to see them.
    fn wait_for_workers(&self) {
        let (_never, nothing) = mpsc::channel::<()>();
        while let Some(present) = self.lineage.present()
            && !self.lineage.drains()
            && present.awaits_workers()
            && (0..present.config.pools.len()).any(|pool| !present.dispatch.board.any_links(PoolId(pool as u16)))
        {
            let _ = nothing.recv_timeout(Duration::from_millis(TICK_MS));
        }
    }

    /// Tells the supervisor that all cores run, as often as it wants to hear it, from the moment that it is given a life.
    fn keep_watch(every: Duration) -> Result<mpsc::Sender<Arc<Life>>, String> {
        let (begins, begun) = mpsc::channel::<Arc<Life>>();
        let watch = move || {
            let Ok(life) = begun.recv() else { return };
            let (_never, nothing) = mpsc::channel::<()>();
            // sd_watchdog_enabled(3): at half of the time.
            while life.lineage.present().is_some() {
                if life.lineage.beats(every / 4) {
                    life.lineage.supervisor.lives();
                } else {
                    tracing::warn!("a core does not say that it runs");
                }
                let _ = nothing.recv_timeout(every / 4);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(watch);
        thread.map(|_| begins).map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))
    }
}

/// The files that the configuration names. With a mistake among the certificates none of them changes.
fn reload_files(shared: &Shared) -> Result<(), String> {
    let mut mistakes = Mistakes::new(&shared.config.file);
    let others_vouch = tls::reload(&shared.tls, &shared.config, clock::unix_seconds(), &mut mistakes);
    shared.access.reload(&shared.config, clock::unix_seconds(), &mut mistakes);
    look_at_credentials(shared, others_vouch);
    if mistakes.has_errors() {
        return Err(mistakes.to_string());
    }
    mistakes.lines().for_each(|line| tracing::warn!("{line}"));
    Ok(())
}

/// Runs an edge until it was drained. SIGHUP reads its file again, SIGUSR2 starts its program's file anew in its place. SIGTERM
/// and SIGINT drain; a second one stops at once.
pub fn run(config: EdgeConfig) -> Result<(), String> {
    let program = Program::here()?;
    let signals = crate::signals::watch()?;
    let (hung_up, early) = mpsc::channel();
    signals.on_hangup(move || _ = hung_up.send(()));
    let predecessor = Predecessor::from_environment()?;
    let sockets = match &predecessor {
        Some(predecessor) => predecessor.sockets()?,
        None => activated(&config),
    };
    let lineage = Lineage::new(predecessor.is_some(), Supervisor::from_environment());
    // Whatever may fail does so before another process gives up.
    let watchdog = supervisor::watchdog().map(Life::keep_watch).transpose()?;
    let edge = Edge::start_on(config, &sockets, lineage.clone(), predecessor)?;
    drop(sockets); // those that no configuration wants are closed, unless they are lent
    for address in &edge.addresses {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = edge.admin {
        tracing::info!(%address, "admin: /status /metrics /health/live /health/ready");
    }
    let life = edge.life.clone();
    signals.on_hangup(move || life.hang_up());
    if early.try_recv().is_ok() {
        edge.life.hang_up(); // the file may have changed after it was read
    }
    let (life, program) = (edge.life.clone(), Arc::new(program));
    let upgrades = Arc::new(Mutex::new(Vec::new()));
    let begun = upgrades.clone();
    signals.on_upgrade(move || {
        let (life, program) = (life.clone(), program.clone());
        match std::thread::Builder::new().name("upgrade".into()).spawn(move || life.upgrade(&program)) {
            Ok(upgrade) => {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                begun.retain(|upgrade: &JoinHandle<()>| !upgrade.is_finished());
                begun.push(upgrade);
            }
            Err(error) => tracing::error!(%error, "SIGUSR2: a thread could not be started; nothing changes"),
        }
    });
    let ends = lineage.clone();
    signals.on_end(move || {
        tracing::info!("draining: no new connections, what runs is finished");
        ends.drain();
    });
    lineage.supervisor.is_ready();
    if let Some(watchdog) = watchdog {
        let _ = watchdog.send(edge.life.clone()); // it waits for nothing else
    }
    let finished = edge.wait();
    // A process that is about to take over from one that was told to end is ended by whoever started it, and by nobody else.
    let begun = std::mem::take(&mut *upgrades.lock().unwrap_or_else(PoisonError::into_inner));
    begun.into_iter().for_each(|upgrade| drop(upgrade.join())); // one that panicked has said so
    match finished? {
        true => Ok(()),
        false => Err("drain_max ran out before everything was finished".into()),
    }
}

/// What the supervisor has opened. Sockets without a place in the configuration are named, for nobody accepts on them as long
/// as it is so.
fn activated(config: &EdgeConfig) -> Sockets {
    let mut kept = Vec::new();
    for (name, socket) in supervisor::activated() {
        let address = socket.listener.local_addr().ok();
        let is_wanted = |own| config.listens.iter().any(|listen| listen.address == own) || config.admin == Some(own);
        if !address.is_some_and(is_wanted) {
            tracing::warn!(name, ?address, "a socket was passed on that no [[listen]] and no [admin] names");
        }
        kept.push(socket);
    }
    Sockets::of(kept)
}
