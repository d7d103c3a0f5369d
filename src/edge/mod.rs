//! The edge program: its cores, their listeners, its start and its end. What a request or a link does is in the rooms
//! below.

pub mod config;
pub mod credentials;
pub mod patterns;
pub mod priority;
pub mod register;
pub mod report;
pub mod routes;
pub mod tls;
pub mod tokens;

mod admin;
mod core;
mod far;
mod links;
mod memory;
mod over;
mod service;
mod streams;
mod welcome;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use self::config::{Cores, EdgeConfig, Limits};
use self::core::{Core, Counted, Message, Shared};
use self::priority::Classifier;
use self::register::Register;
use self::routes::Routes;
use self::welcome::{Devices, Door, welcome};
use crate::client::Clocks;
use crate::clock;
use crate::dispatch::{self, Ageing, PoolRules};
use crate::events::AcceptPause;
use crate::exchange::Latch;
use crate::ids::{Class, CoreId};
use crate::io::{self, Conn, Doorbell, Listener};
use crate::limits::{
    ACCEPT_BACKOFF_MS, AGE_LOOK_MS, CORES_MAX, FDS_LINKS_PART, FDS_RESERVED, LISTEN_BACKLOG, MAILBOX_MESSAGES_MAX,
    TICK_MS,
};
use crate::settings::Mistakes;
use crate::xcore::{Attempts, Crowd, Fill, MemoryGauge, PoolBooks, Post};

/// A running edge. Dropping it does not end it; [`Edge::drain`] and [`Edge::wait`] do.
pub struct Edge {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<bool, String>>>,
    /// Where it really listens, in the order of the configuration; a port 0 is resolved here.
    pub addresses: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// What one listener takes.
#[derive(Clone)]
enum Takes {
    Requests(Rc<Door>),
    Admin,
}

impl Takes {
    fn is_admin(&self) -> bool {
        matches!(self, Takes::Admin)
    }

    /// Where clients are too many, workers are wanted: an address of their own goes on.
    fn is_for_clients(&self) -> bool {
        matches!(self, Takes::Requests(door) if door.clients)
    }
}

/// A core's part of the boot: everything that its thread needs, made before it.
struct Plan {
    id: CoreId,
    cpu: Option<usize>,
    /// Each with its index in the configuration; `None` is the admin's.
    listeners: Vec<(std::net::TcpListener, Option<usize>)>,
    bell: Doorbell,
}

impl Edge {
    /// Opens all listeners and starts all cores. Nothing runs if one of them cannot.
    pub fn start(config: EdgeConfig) -> Result<Edge, String> {
        let cpus = cpus_of(&config.cores)?;
        let links_max = config.credentials.iter().map(|credential| credential.links_max as usize).sum();
        let connections_max = connections_max(cpus.len(), links_max, &config.limits)?;
        let tls = read_certificates(&config)?;
        let register = Register::open(&config, clock::unix_seconds()).map_err(|mistakes| mistakes.to_string())?;
        let (plans, posts, addresses, admin) = plan(&config, &cpus)?;
        let memory_max = memory::bytes_max(config.limits.memory_max);
        let shared = Arc::new(Shared {
            routes: Routes::new(&config),
            classifiers: config.pools.iter().map(Classifier::new).collect(),
            register,
            dispatch: Arc::new(dispatch::Shared::new(rules_of(&config), cpus.len())),
            books: config.pools.iter().map(|_| PoolBooks::new()).collect(),
            posts,
            tls,
            clocks: clocks_of(&config.limits),
            crowd: Crowd::new(),
            attempts: Arc::new(Attempts::new(
                config.limits.setups_per_source_max,
                config.limits.setup_failures_per_source_max,
            )),
            connections_max,
            memory: MemoryGauge::new(),
            memory_max,
            started: clock::now(),
            config,
        });
        // The watch over memory ends with the last core.
        let (runs, cores) = mpsc::channel();
        if let Some(bytes_max) = memory_max {
            memory::watch(shared.memory.clone(), bytes_max, cores)?;
        }
        let (reads, readers) = mpsc::channel();
        if shared.config.credentials_dir.is_some() || shared.config.tokens.is_some() {
            let looked = shared.clone();
            Register::watch(readers, move || look_at_credentials(&looked))?;
        }
        let (started, starts) = mpsc::channel();
        let mut threads = Vec::new();
        for plan in plans {
            let (shared, started, runs) = (shared.clone(), started.clone(), (runs.clone(), reads.clone()));
            let thread = std::thread::Builder::new()
                .name(format!("core-{}", plan.id.0))
                .spawn(move || {
                    let _runs = runs;
                    core_main(plan, shared, &started)
                })
                .map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
            threads.push(thread);
        }
        drop((started, runs, reads));
        let edge = Edge { shared, threads, addresses, admin };
        let count = edge.threads.len();
        for _ in 0..count {
            match starts.recv() {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    edge.drain();
                    return Err(why);
                }
                Err(_) => {
                    edge.drain();
                    return Err("a core ended before it had started".into());
                }
            }
        }
        Ok(edge)
    }

    /// Stop taking new work, finish what runs, end. Safe to repeat.
    pub fn drain(&self) {
        drain_all(&self.shared);
    }

    /// Reads the certificates again, and the files of credentials. With a mistake among the certificates none of them changes,
    /// and the log says why.
    pub fn reload_files(&self) {
        reload_files(&self.shared);
    }

    /// Until all cores have ended. True: everything was finished in time.
    pub fn wait(self) -> Result<bool, String> {
        let mut all = true;
        for thread in self.threads {
            match thread.join() {
                Ok(result) => all &= result?,
                Err(_) => return Err("a core ended by a panic".into()),
            }
        }
        Ok(all)
    }
}

/// What the pools mean for dispatch.
fn rules_of(config: &EdgeConfig) -> Vec<PoolRules> {
    let rules = |pool: &config::Pool| PoolRules {
        per_link_max: pool.per_link_max,
        concurrency_max: pool.concurrency_max as usize,
        ageing: pool.priority.age_step_ms.map(|step_ms| Ageing {
            step_ms,
            // Never above the clamp: what clients may not ask for, waiting does not give them.
            most_urgent: Class::of(pool.priority.clamp.min),
        }),
    };
    config.pools.iter().map(rules).collect()
}

/// The certificates of all addresses, or everything that is wrong with them.
fn read_certificates(config: &EdgeConfig) -> Result<tls::Addresses, String> {
    let mut mistakes = Mistakes::new(&config.file);
    let tls = tls::load(config, clock::unix_seconds(), &mut mistakes);
    if mistakes.has_errors() { Err(mistakes.to_string()) } else { Ok(tls) }
}

/// Tells every core to drain.
fn drain_all(shared: &Shared) {
    for post in &shared.posts {
        // The box of a core that already ended, or is full of other messages: it is asked again by the next signal.
        let _ = post.send(Message::Drain);
    }
}

/// The CPUs to pin to, one for each core; `None` pins nothing (a machine that does not tell).
fn cpus_of(cores: &Cores) -> Result<Vec<Option<usize>>, String> {
    let here: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    Ok(match cores {
        Cores::All if here.is_empty() => vec![None],
        Cores::All => {
            if here.len() > usize::from(CORES_MAX) {
                tracing::warn!(
                    cpus = here.len(),
                    cores = CORES_MAX,
                    "more CPUs than an edge has cores; the first are used"
                );
            }
            here.iter().take(usize::from(CORES_MAX)).map(|&cpu| Some(cpu)).collect()
        }
        Cores::Count(count) => (0..usize::from(*count)).map(|index| here.get(index).copied()).collect(),
        Cores::Cpus(cpus) => {
            let cpus: Vec<usize> = cpus.iter().map(|&cpu| usize::from(cpu)).collect();
            if let Some(cpu) = cpus.iter().find(|cpu| !here.is_empty() && !here.contains(cpu)) {
                return Err(format!("cores: CPU {cpu} is not among those this process may use ({here:?})"));
            }
            cpus.into_iter().map(Some).collect()
        }
    })
}

/// How many connections of clients the edge may hold so that descriptors never run out, and so that as many links as
/// credentials allow find one, up to a quarter of all; fewer, where the configuration says so.
fn connections_max(cores: usize, links_max: usize, limits: &Limits) -> Result<usize, String> {
    let limit = io::raise_fd_limit();
    let all = limit.saturating_sub(FDS_RESERVED).saturating_sub(links_max.min(limit / FDS_LINKS_PART));
    if all / cores < FDS_RESERVED {
        return Err(format!("only {limit} file descriptors for {cores} cores; raise ulimit -n"));
    }
    let wanted = limits.connections_max as usize;
    if wanted > all {
        tracing::warn!(connections_max = wanted, descriptors = limit, links_max, "fewer descriptors; raise ulimit -n");
    }
    Ok(if wanted == 0 { all } else { all.min(wanted) })
}

/// `[limits]`, as the room of clients takes it.
fn clocks_of(limits: &Limits) -> Clocks {
    Clocks { head_ms: limits.head_ms_max, idle_ms: limits.idle_ms_max, stall_ms: limits.body_stall_ms_max }
}

type Planned = (Vec<Plan>, Vec<Post<Message>>, Vec<SocketAddr>, Option<SocketAddr>);

/// Opens every core's own socket for every address, before any core runs.
fn plan(config: &EdgeConfig, cpus: &[Option<usize>]) -> Result<Planned, String> {
    let mut plans = Vec::new();
    let mut posts = Vec::new();
    let mut addresses: Vec<SocketAddr> = config.listens.iter().map(|listen| listen.address).collect();
    let mut admin = config.admin;
    for (index, &cpu) in cpus.iter().enumerate() {
        let (bell, ring) = io::doorbell().map_err(|error| format!("eventfd: {error}"))?;
        posts.push(Post::new(MAILBOX_MESSAGES_MAX, Arc::new(move || ring.ring()), io::at_turn_end));
        let mut listeners = Vec::new();
        for (listen, address) in addresses.iter_mut().enumerate() {
            listeners.push((open(address)?, Some(listen)));
        }
        // One core answers for all: the admin's reader is a person or a scraper.
        if let (0, Some(address)) = (index, &mut admin) {
            listeners.push((open(address)?, None));
        }
        let id = CoreId(u16::try_from(index).map_err(|_| "too many cores")?);
        plans.push(Plan { id, cpu, listeners, bell });
    }
    Ok((plans, posts, addresses, admin))
}

fn open(address: &mut SocketAddr) -> Result<std::net::TcpListener, String> {
    let listener = io::open_listener(*address, LISTEN_BACKLOG).map_err(|error| {
        format!("cannot listen on {address}: {error}; is another program there, or the port below 1024?")
    })?;
    if address.port() == 0 {
        *address = listener.local_addr().map_err(|error| format!("{address}: {error}"))?;
    }
    Ok(listener)
}

/// One core, from its pinning to its end. True: everything was finished in time.
fn core_main(plan: Plan, shared: Arc<Shared>, started: &mpsc::Sender<Result<(), String>>) -> Result<bool, String> {
    if let Some(cpu) = plan.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
    {
        tracing::warn!(cpu, "a core could not be pinned; it runs where the kernel puts it");
    }
    let told = started.clone();
    let result = io::run(move || core_life(plan, shared, told));
    match result {
        Ok(result) => result,
        Err(fault) => {
            let why = fault.to_string();
            let _ = started.send(Err(why.clone()));
            Err(why)
        }
    }
}

async fn core_life(plan: Plan, shared: Arc<Shared>, started: mpsc::Sender<Result<(), String>>) -> Result<bool, String> {
    let Plan { id, cpu, listeners, bell } = plan;
    let home = shared.posts[usize::from(id.0)].move_in();
    let drain_ms_max = shared.config.drain_ms_max;
    shared.memory.settle();
    let core = Core::new(id, cpu, shared, home.wakers().clone());
    // The admin address answers until the end, so nobody waits for it.
    let waited_for = listeners.iter().filter(|(_, listen)| listen.is_some()).count();
    let accepting = Rc::new(std::cell::Cell::new(waited_for));
    for (listener, listen) in listeners {
        let takes = listen.map_or(Takes::Admin, |listen| Takes::Requests(Rc::new(door(&core, listen))));
        let listener = Listener::from_std(listener).map_err(|error| error.to_string())?;
        io::spawn(accept(core.clone(), listener, takes, accepting.clone()));
    }
    io::spawn(read_messages(core.clone(), home, bell.hang()));
    if core.shared.dispatch.rules.iter().any(|rules| rules.ageing.is_some()) {
        io::spawn(age(core.clone()));
    }
    let _ = started.send(Ok(()));
    drop(started);
    wait_for(&core.drain).await;
    let finished = io::timeout(drain_ms_max, until_idle(&core, &accepting)).await;
    Ok(finished.is_some())
}

/// What the address with this index in the configuration takes.
fn door(core: &Core, listen: usize) -> Door {
    let config = &core.shared.config.listens[listen];
    let tls = core.shared.tls[listen].clone();
    let (clients, workers) = (config.clients, config.workers);
    let credential = config.credential.as_ref().map(|id| id.value.clone());
    let devices = config.haproxy_workers.then_some(Devices { credential });
    Door { clients, workers, devices, h2c: config.h2c, proxy_protocol: config.proxy_protocol, tls }
}

async fn wait_for(latch: &Latch) {
    let mut wait = latch.wait();
    std::future::poll_fn(|cx| wait.poll(cx)).await;
}

/// Until nothing runs on this core. Looked at in steps: a drain may be late by one.
async fn until_idle(core: &Core, accepting: &std::cell::Cell<usize>) {
    while core.connections.get() > 0 || accepting.get() > 0 {
        io::sleep_ms(TICK_MS).await;
    }
    for post in &core.shared.posts {
        // A full box is read by a core that runs; it will have room.
        while post.send(Message::Idle).is_err() {
            io::sleep_ms(TICK_MS).await;
        }
    }
    wait_for(&core.links_drain).await;
    while core.links_len() > 0 {
        io::sleep_ms(TICK_MS).await;
    }
}

/// Takes connections until the core drains.
async fn accept(core: Rc<Core>, mut listener: Listener, takes: Takes, accepting: Rc<std::cell::Cell<usize>>) {
    let mut drained = core.drain.wait();
    loop {
        if takes.is_for_clients() {
            until_there_is_room(&core).await;
        }
        let accepted = {
            let mut next = std::pin::pin!(listener.accept());
            std::future::poll_fn(|cx| {
                if !takes.is_admin() && drained.poll(cx).is_ready() {
                    return std::task::Poll::Ready(None);
                }
                std::future::Future::poll(next.as_mut(), cx).map(Some)
            })
            .await
        };
        match accepted {
            Some(Ok((conn, peer))) => take(&core, conn, peer, &takes),
            Some(Err(error)) => {
                tracing::error!(%error, "a listener broke and is closed");
                break;
            }
            None => break,
        }
    }
    for (conn, peer) in listener.close().await {
        take(&core, conn, peer, &takes);
    }
    accepting.set(accepting.get() - 1);
}

/// At a cap the backlog waits in the kernel; descriptors and memory are left for links, logs, files, and a look from
/// outside.
async fn until_there_is_room(core: &Core) {
    let mut is_counted = false;
    while let Some(reason) = core.shared.is_crowded()
        && !core.drain.is_set()
    {
        if !is_counted {
            is_counted = true;
            core.counters.borrow_mut().core.accept_pauses.one(reason);
        }
        io::sleep_ms(ACCEPT_BACKOFF_MS).await;
    }
}

impl Shared {
    /// Why no connection is taken now, if none is.
    fn is_crowded(&self) -> Option<AcceptPause> {
        if self.crowd.len() >= self.connections_max {
            return Some(AcceptPause::Connections);
        }
        (self.memory.fill() == Fill::Full).then_some(AcceptPause::Memory)
    }
}

fn take(core: &Rc<Core>, conn: Conn, peer: SocketAddr, takes: &Takes) {
    core.counters.borrow_mut().core.accepted_connections += 1;
    match takes {
        Takes::Requests(door) => {
            // Counted before its task runs: a drain that looks in between would find nobody.
            let counted = Counted::connection(core);
            io::spawn(welcome(core.clone(), conn, peer, door.clone(), counted));
        }
        Takes::Admin => io::spawn(admin::connection(core.clone(), conn)),
    }
}

/// Looks at what waits long, as long as the core lives.
async fn age(core: Rc<Core>) {
    loop {
        io::sleep_ms(AGE_LOOK_MS).await;
        core.age();
    }
}

/// The core's bell task: messages from other cores, and wakes of tasks that wait for one.
async fn read_messages(core: Rc<Core>, home: crate::xcore::Home<Message>, mut bell: io::Bell) {
    let mut has_slept = false;
    loop {
        while let Some(message) = home.pop() {
            match message {
                Message::Turned(turned) => links::move_in(&core, *turned),
                Message::NoLinks(pool) => core.no_links(pool),
                Message::Credentials => links::look_at_credentials(&core),
                Message::Drain => core.drain.set(),
                Message::Idle => core.core_is_idle(),
                Message::Report(tell) => tell(core.report()),
            }
        }
        if home.take_look() {
            core.look(has_slept);
        }
        home.run_wakes();
        has_slept = home.prepare_to_sleep();
        if has_slept && bell.wait().await.is_err() {
            tracing::error!("the doorbell broke: this core hears no other any more");
            return;
        }
        home.awake();
    }
}

/// Reads the files of credentials again, and tells all cores if something has changed.
fn look_at_credentials(shared: &Shared) {
    let tell = |core: usize| shared.posts[core].send(Message::Credentials).is_ok();
    shared.register.look(&shared.config, clock::unix_seconds(), shared.posts.len(), tell);
}

/// What SIGHUP asks for. With a mistake among the certificates none of them changes.
fn reload_files(shared: &Shared) {
    look_at_credentials(shared);
    let mut mistakes = Mistakes::new(&shared.config.file);
    tls::reload(&shared.tls, &shared.config, clock::unix_seconds(), &mut mistakes);
    for line in mistakes.lines() {
        tracing::warn!("{line}");
    }
    match mistakes.has_errors() {
        true => tracing::error!("SIGHUP: the certificates stay as they were"),
        false => tracing::info!("SIGHUP: certificates and files of credentials were read again; all else is as it was"),
    }
}

/// Runs an edge until it was drained. SIGTERM and SIGINT drain; a second one stops at once.
pub fn run(config: EdgeConfig) -> Result<(), String> {
    let signals = crate::signals::watch()?;
    let edge = Edge::start(config)?;
    for address in &edge.addresses {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = edge.admin {
        tracing::info!(%address, "admin: /status /metrics /health/live /health/ready");
    }
    let shared = edge.shared.clone();
    let reloaded = edge.shared.clone();
    signals.on_hangup(move || reload_files(&reloaded));
    signals.on_end(move || {
        tracing::info!("draining: no new connections, what runs is finished");
        drain_all(&shared);
    });
    match edge.wait()? {
        true => Ok(()),
        false => Err("drain_max ran out before everything was finished".into()),
    }
}
