//! The life of an edge over its configurations: the first generation, those that follow it on the same sockets, and the end of
//! all. What a generation does with its connections never enters.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use super::config::EdgeConfig;
use super::core::Shared;
use super::lineage::{Heirs, Lineage};
use super::sockets::{Dealt, Sockets};
use super::{Generation, cpus_of, drain_all, look_at_credentials, read_certificates, tls};
use crate::clock;
use crate::events::Reload;
use crate::limits::GENERATIONS_LEAVING_MAX;
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
    /// As many generations leave as may: not now.
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
    /// A reload waits for a generation's end.
    is_wanted_anew: bool,
}

/// A generation's last word.
struct Ended {
    result: Result<bool, String>,
    was_last: bool,
}

impl Edge {
    /// Opens all listeners and starts all cores. Nothing runs if one of them cannot.
    pub fn start(config: EdgeConfig) -> Result<Edge, String> {
        let cpus = cpus_of(&config.cores)?;
        let tls = read_certificates(&config)?;
        let Dealt { sockets, cores, addresses, admin } = Sockets::default().deal(&config, cpus.len())?;
        let (told, ends) = mpsc::channel();
        let addresses_now = addresses.clone();
        let present = Present { sockets, addresses: addresses_now, admin, is_wanted_anew: false };
        let life = Arc::new(Life { lineage: Lineage::new(), present: Mutex::new(present), told });
        let generation = Generation::boot(config, &cpus, tls, cores, &life.lineage)?;
        life.begin(generation, None)?;
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

    /// Reads the certificates again, and the files of credentials. With a mistake among the certificates none of them changes,
    /// and the log says why.
    pub fn reload_files(&self) {
        let Some(present) = self.life.lineage.present() else { return };
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
        failure.map_or(Ok(all), Err)
    }
}

impl Present {
    /// What becomes of its sockets when the next one listens on these addresses.
    fn heirs(&self, living: &[SocketAddr]) -> Heirs {
        Heirs::among(&self.addresses, self.admin, living)
    }
}

impl Life {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a generation, and watches for its end. Its error leaves the one before as it was.
    fn begin(self: &Arc<Life>, generation: Generation, heirs: Option<Heirs>) -> Result<u64, String> {
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
            drain_all(&shared);
            return Err(format!("a thread could not be started: {error}; see ulimit -u"));
        }
        if self.lineage.open(&shared, heirs).is_none() {
            drain_all(&shared);
            return Err("the edge drains".into());
        }
        Ok(number)
    }

    fn reload(self: &Arc<Life>, present: &mut Present, config: EdgeConfig) -> Result<Reloaded, String> {
        let before = self.lineage.present().ok_or("the edge has ended")?;
        if self.lineage.drains() {
            return Err("the edge drains".into());
        }
        if before.config == config {
            return reload_files(&before).map(|()| Reloaded::Files);
        }
        if self.lineage.leaving() >= GENERATIONS_LEAVING_MAX {
            return Ok(Reloaded::Later);
        }
        let cpus = cpus_of(&config.cores)?;
        let tls = read_certificates(&config)?;
        tls::keep_tickets(&tls, &config.listens, &before.tls, &before.config.listens);
        let Dealt { sockets, cores, addresses, admin } = present.sockets.deal(&config, cpus.len())?;
        let living: Vec<SocketAddr> = sockets.addresses().collect();
        let heirs = present.heirs(&living);
        let generation = Generation::boot(config, &cpus, tls, cores, &self.lineage)?;
        let number = self.begin(generation, Some(heirs))?;
        for address in addresses.iter().filter(|address| !present.addresses.contains(address)) {
            tracing::info!(%address, "listening");
        }
        for address in present.addresses.iter().filter(|address| !living.contains(address)) {
            tracing::info!(%address, "closed: nobody new is taken here");
        }
        *present = Present { sockets, addresses, admin, is_wanted_anew: false };
        Ok(Reloaded::Anew(number))
    }

    /// What SIGHUP asks for: the file is read again, and with a mistake in it nothing changes.
    fn hang_up(self: &Arc<Life>) {
        let Some(before) = self.lineage.present() else { return };
        let result = match EdgeConfig::read(Path::new(&before.config.file), clock::unix_seconds()) {
            Ok((config, warnings)) => {
                warnings.lines().for_each(|line| tracing::warn!("{line}"));
                let mut present = self.present();
                let reloaded = self.reload(&mut present, config);
                present.is_wanted_anew = reloaded == Ok(Reloaded::Later);
                reloaded
            }
            Err(mistakes) => Err(mistakes.to_string()),
        };
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
                self.lineage.count(Reload::Failed);
                why.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!("SIGHUP: nothing changes");
            }
        }
    }
}

/// The files that the configuration names. With a mistake among the certificates none of them changes.
fn reload_files(shared: &Shared) -> Result<(), String> {
    look_at_credentials(shared);
    let mut mistakes = Mistakes::new(&shared.config.file);
    tls::reload(&shared.tls, &shared.config, clock::unix_seconds(), &mut mistakes);
    if mistakes.has_errors() {
        return Err(mistakes.to_string());
    }
    mistakes.lines().for_each(|line| tracing::warn!("{line}"));
    Ok(())
}

/// Runs an edge until it was drained. SIGHUP reads its file again. SIGTERM and SIGINT drain; a second one stops at once.
pub fn run(config: EdgeConfig) -> Result<(), String> {
    let signals = crate::signals::watch()?;
    let edge = Edge::start(config)?;
    for address in &edge.addresses {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = edge.admin {
        tracing::info!(%address, "admin: /status /metrics /health/live /health/ready");
    }
    let life = edge.life.clone();
    signals.on_hangup(move || life.hang_up());
    let lineage = edge.life.lineage.clone();
    signals.on_end(move || {
        tracing::info!("draining: no new connections, what runs is finished");
        lineage.drain();
    });
    match edge.wait()? {
        true => Ok(()),
        false => Err("drain_max ran out before everything was finished".into()),
    }
}
