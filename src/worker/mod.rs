//! The worker program: dials out to every address of every edge, keeps its links, and serves what comes over them from
//! the server behind it. One thread; clone the process to scale.

pub mod config;
#[cfg(feature = "embed")]
mod embed;
pub mod reach;
pub mod tls;

mod h2c;
mod health;
mod links;
mod origin;
mod places;
mod resolve;
mod service;
mod setup;
mod shares;
mod tuner;
mod via;

#[cfg(feature = "embed")]
pub use embed::{Edges, serve, serve_until};

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use self::config::{Adaptive, Health, Services, WorkerConfig, WorkerFlags};
use self::links::Links;
use self::origin::Dialer;
use self::places::Places;
use self::resolve::Resolver;
use self::service::WorkerService;
use self::shares::Shares;
use self::tls::Tls;
use self::tuner::Tuner;
use crate::clock;
use crate::exchange::Latch;
use crate::io::{self, Doorbell};
use crate::limits::{DRAIN_MS_MAX, MAILBOX_MESSAGES_MAX, REPLACE_MS_MAX, TICK_MS};
use crate::settings::Mistakes;
use crate::xcore::{HomeWakers, Post};

/// A running worker.
pub struct Worker {
    post: Post<Order>,
    thread: JoinHandle<Result<bool, String>>,
}

/// What the worker's thread can be told.
enum Order {
    Drain,
    Change(Vec<Checked>),
}

/// A configuration without mistakes, and what its files hold.
struct Checked {
    config: WorkerConfig,
    tls: Tls,
}

impl Checked {
    fn all(services: Services) -> Result<Vec<Checked>, String> {
        let mut mistakes = Mistakes::new("worker");
        let mut checked = Vec::with_capacity(services.0.len());
        for config in services.0 {
            let tls = tls::load(&config, &mut mistakes);
            checked.push(Checked { config, tls });
        }
        if mistakes.has_errors() { Err(mistakes.to_string()) } else { Ok(checked) }
    }
}

/// Where a worker's configuration comes from; it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub file: Option<PathBuf>,
    pub flags: WorkerFlags,
}

impl Source {
    /// The `Mistakes` beside a good configuration are warnings. All its files are looked at, too.
    ///
    /// # Errors
    /// Every mistake, with the warnings.
    pub fn read(&self) -> Result<(Services, Mistakes), Mistakes> {
        let (services, mut mistakes) = WorkerConfig::read(self.file.as_deref(), &self.flags)?;
        for config in &services.0 {
            tls::load(config, &mut mistakes);
        }
        if mistakes.has_errors() { Err(mistakes) } else { Ok((services, mistakes)) }
    }
}

/// The services of a worker, and what they share.
struct All {
    drain: Latch,
    in_flight: Rc<Cell<usize>>,
    alive: Rc<Cell<u32>>,
    resolver: Resolver,
    /// In the order of the configuration.
    services: RefCell<Vec<Rc<Work>>>,
}

impl All {
    /// Each service changes, in their order; those that are new begin, and those that are no longer there end.
    fn change(&self, checked: Vec<Checked>) {
        let services = &mut *self.services.borrow_mut();
        for gone in services.drain(checked.len().min(services.len())..) {
            gone.drain();
        }
        let mut known = services.clone().into_iter();
        for checked in checked {
            match known.next() {
                Some(work) => work.change(checked),
                None => services.push(Work::start(self, checked)),
            }
        }
    }

    fn drain(&self) {
        self.drain.set();
        self.services.borrow().iter().for_each(|work| work.drain());
    }
}

/// What outlives every configuration of one service.
struct Work {
    places: Rc<Places>,
    shares: Rc<Shares>,
    tuner: Rc<Tuner>,
    in_flight: Rc<Cell<usize>>,
    alive: Rc<Cell<u32>>,
    resolver: Resolver,
    /// What holds now.
    now: RefCell<Option<Now>>,
    /// Set, and replaced, where somebody else watches over the server's health from then on.
    health_stop: RefCell<Option<Rc<Latch>>>,
}

/// What one configuration asked for.
#[derive(Clone)]
struct Now {
    /// Older ones end when these are there.
    links: Rc<Links>,
    /// The certificate that they show.
    shown: Option<Vec<u8>>,
    health: Option<Health>,
    /// How many requests, or between which bounds.
    takes: (u32, Option<Adaptive>),
}

impl Worker {
    pub fn start(services: impl Into<Services>) -> Result<Worker, String> {
        let checked = Checked::all(services.into())?;
        let (bell, ring) = io::doorbell().map_err(|error| format!("eventfd: {error}"))?;
        let post = Post::new(MAILBOX_MESSAGES_MAX, Arc::new(move || ring.ring()), io::at_turn_end);
        let (started, starts) = mpsc::channel();
        let home = post.clone();
        let thread = std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || {
                let told = started.clone();
                match io::run(move || life(checked, home, bell, told)) {
                    Ok(finished) => Ok(finished),
                    Err(fault) => {
                        let _ = started.send(Err(fault.to_string()));
                        Err(fault.to_string())
                    }
                }
            })
            .map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
        match starts.recv() {
            Ok(Ok(())) => Ok(Worker { post, thread }),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("the worker ended before it had started".into()),
        }
    }

    /// GOAWAY on every link, finish what runs, end. Safe to repeat.
    pub fn drain(&self) {
        let _ = self.post.send(Order::Drain); // a full box holds nothing but earlier drains
    }

    /// From now on this configuration, without losing a request: what only concerns the server takes effect at once, links are
    /// replaced by new ones first.
    ///
    /// # Errors
    /// Nothing changes: a file cannot be used, or the worker is too busy to hear it.
    pub fn change(&self, services: impl Into<Services>) -> Result<(), String> {
        change(&self.post, services.into())
    }

    /// Until it has ended. True: everything was finished in time.
    pub fn wait(self) -> Result<bool, String> {
        self.thread.join().map_err(|_| "the worker ended by a panic".to_owned())?
    }
}

fn change(post: &Post<Order>, services: Services) -> Result<(), String> {
    let checked = Checked::all(services)?;
    post.send(Order::Change(checked)).map_err(|_| "the worker has too many orders already".to_owned())
}

/// Runs a worker until it was drained. SIGHUP reads its configuration again.
pub fn run(source: Source, services: Services) -> Result<(), String> {
    let signals = crate::signals::watch()?;
    io::raise_fd_limit();
    let worker = Worker::start(services)?;
    let (post, changed) = (worker.post.clone(), worker.post.clone());
    signals.on_hangup(move || {
        let (read, warnings) = match source.read() {
            Ok((services, warnings)) => (change(&changed, services), warnings),
            Err(mistakes) => (Err("there are mistakes in it".into()), mistakes),
        };
        warnings.lines().for_each(|line| tracing::warn!("{line}"));
        match read {
            Ok(()) => tracing::info!("SIGHUP: the configuration was read again"),
            Err(why) => tracing::error!(why, "SIGHUP: the configuration stays as it was"),
        }
    });
    signals.on_end(move || {
        tracing::info!("draining: links are told to end, what runs is finished");
        let _ = post.send(Order::Drain);
    });
    match worker.wait()? {
        true => Ok(()),
        false => Err("30 s ran out before everything was finished".into()),
    }
}

async fn life(
    checked: Vec<Checked>,
    post: Post<Order>,
    bell: Doorbell,
    started: mpsc::Sender<Result<(), String>>,
) -> bool {
    let home = post.move_in();
    let wakers: HomeWakers = home.wakers().clone();
    let resolver = match Resolver::start(wakers) {
        Ok(resolver) => resolver,
        Err(why) => {
            let _ = started.send(Err(why));
            return false;
        }
    };
    let all = Rc::new(All {
        drain: Latch::default(),
        in_flight: Rc::default(),
        alive: Rc::default(),
        resolver,
        services: RefCell::default(),
    });
    all.change(checked);
    io::spawn(read_orders(all.clone(), home, bell.hang()));
    let _ = started.send(Ok(()));
    drop(started);
    let mut drained = all.drain.wait();
    std::future::poll_fn(|cx| drained.poll(cx)).await;
    let idle = async {
        while all.alive.get() > 0 || all.in_flight.get() > 0 {
            io::sleep_ms(TICK_MS).await;
        }
    };
    io::timeout(DRAIN_MS_MAX, idle).await.is_some()
}

impl Work {
    fn start(all: &All, checked: Checked) -> Rc<Work> {
        let places = Rc::new(Places::new(checked.config.concurrency));
        let shares = Rc::new(Shares::new(checked.config.concurrency));
        let tuner = Rc::new(Tuner::new(places.clone(), shares.clone()));
        tuner.set(checked.config.concurrency, checked.config.adaptive);
        let work = Rc::new(Work {
            places,
            shares,
            tuner,
            in_flight: all.in_flight.clone(),
            alive: all.alive.clone(),
            resolver: all.resolver.clone(),
            now: RefCell::default(),
            health_stop: RefCell::default(),
        });
        work.replace(checked);
        work
    }

    /// Takes a configuration that differs from the one that holds, or may differ.
    fn change(self: &Rc<Work>, checked: Checked) {
        let Some(now) = self.now.borrow().clone() else { return self.replace(checked) };
        let takes = (checked.config.concurrency, checked.config.adaptive);
        if takes != now.takes {
            self.tuner.set(takes.0, takes.1);
            self.now.replace(Some(Now { takes, ..now.clone() }));
        }
        if !now.links.config.links_as(&checked.config) || now.shown != checked.tls.shown {
            return self.replace(checked);
        }
        // What was renewed in a file counts from the next dial on.
        now.links.tls.replace(checked.tls.edge);
        now.links.service.dialer().set_tls(checked.tls.origin);
        if now.health != checked.config.health {
            self.watch_health(&now.links.service, checked.config.health.clone());
            self.now.replace(Some(Now { takes, health: checked.config.health, ..now }));
        }
    }

    /// From now on so, or not at all.
    fn watch_health(&self, service: &Rc<WorkerService>, health: Option<Health>) {
        let before = self.health_stop.take();
        let was_watched = before.is_some();
        if let Some(stop) = before {
            stop.set();
        }
        match health {
            Some(health) => {
                if !was_watched {
                    self.shares.pause(true); // until the first answer
                }
                let stop = Rc::<Latch>::default();
                self.health_stop.replace(Some(stop.clone()));
                io::spawn(health::watch(service.clone(), self.shares.clone(), health, was_watched, stop));
            }
            None => self.shares.pause(false),
        }
    }

    /// New links; those that there were end when these are there.
    fn replace(self: &Rc<Work>, checked: Checked) {
        let Checked { config, tls } = checked;
        let dialer = Dialer::new(config.to.clone(), self.resolver.clone(), tls.origin);
        let service = Rc::new(WorkerService::new(
            dialer,
            self.places.clone(),
            self.shares.clone(),
            self.tuner.clone(),
            self.in_flight.clone(),
        ));
        io::spawn(WorkerService::reap(Rc::downgrade(&service)));
        let (health, takes) = (config.health.clone(), (config.concurrency, config.adaptive));
        self.watch_health(&service, health.clone());
        let links = Rc::new(Links {
            authorization: RefCell::new(config.authorization.clone()),
            config: Rc::new(config),
            tls: RefCell::new(tls.edge),
            service,
            resolver: self.resolver.clone(),
            shares: self.shares.clone(),
            ends: Rc::default(),
            alive: self.alive.clone(),
            wanted: Cell::new(0),
            up: Cell::new(0),
        });
        links.start();
        let before = self.now.replace(Some(Now { links: links.clone(), shown: tls.shown, health, takes }));
        if let Some(Now { links: before, .. }) = before {
            tracing::info!("links are replaced: the old ones end when the new ones are there");
            io::spawn(succeed(before, links));
        }
    }

    fn drain(&self) {
        if let Some(now) = &*self.now.borrow() {
            now.links.ends.set();
        }
        if let Some(stop) = &*self.health_stop.borrow() {
            stop.set();
        }
    }
}

/// Ends old links when the new ones are there: all of them, or after a while as many as there will be. Without any the old ones
/// stay; they serve what was right until now.
async fn succeed(old: Rc<Links>, new: Rc<Links>) {
    let since = clock::now();
    loop {
        let has_waited = clock::now().ms_since(since) >= REPLACE_MS_MAX;
        if new.ends.is_set() || new.are_up() || (has_waited && new.up.get() > 0) {
            return old.ends.set();
        }
        io::sleep_ms(TICK_MS).await;
    }
}

async fn read_orders(all: Rc<All>, home: crate::xcore::Home<Order>, mut bell: io::Bell) {
    loop {
        while let Some(order) = home.pop() {
            match order {
                Order::Drain => all.drain(),
                Order::Change(_) if all.drain.is_set() => {}
                Order::Change(checked) => all.change(checked),
            }
        }
        home.run_wakes();
        if home.prepare_to_sleep() && bell.wait().await.is_err() {
            tracing::error!("the doorbell broke: only a second signal ends this worker now");
            return;
        }
        home.awake();
    }
}
