//! One generation of the edge: its cores, their listeners, its start and its end. What a request or a link does is in the rooms
//! below, what follows a generation in `life`.

pub mod admin;
pub mod config;
pub mod credentials;
pub mod history;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod patterns;
pub mod priority;
pub mod process;
pub mod register;
pub mod report;
pub mod routes;
pub mod tls;
pub mod tokens;

mod core;
mod far;
mod gate;
mod handover;
mod inquiry;
mod life;
mod lineage;
mod links;
mod over;
mod rates;
mod roll;
mod service;
mod silence;
mod sockets;
mod streams;
mod supervisor;
mod welcome;

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use pin_project_lite::pin_project;

pub use self::life::{Edge, Reloaded, run};

use self::admin::access::Access;
use self::config::{Cores, EdgeConfig, Limits};
use self::core::{Core, Counted, Keepers, Message, Shared, orders};
use self::lineage::{Lineage, tell_all};
use self::priority::Classifier;
use self::register::Register;
use self::routes::Routes;
use self::sockets::Given;
use self::welcome::{Devices, Door, welcome};
use crate::client::Clocks;
use crate::clock;
use crate::dispatch::{self, Ageing, PoolRules};
use crate::events::AcceptPause;
use crate::exchange::Latch;
use crate::ids::{Class, CoreId, PoolId};
use crate::io::{self, Conn, Doorbell, Listener};
use crate::limits::{
    ACCEPT_BACKOFF_MS, ADMIN_END_MS_MAX, AGE_LOOK_MS, CLIENT_GOODBYE_MS_MAX, CORES_MAX, FDS_CORE, FDS_LINKS_PART,
    FDS_RESERVED, GENERATIONS_LEAVING_MAX, LEAVE_IDLE_MS, LINK_FDS, MAILBOX_MESSAGES_MAX, OVER_MS_MAX, RATE_LOOK_MS,
    TICK_MS, WORKERS_RETURN_MS,
};
use crate::settings::Mistakes;
use crate::xcore::{Attempts, Fill, MemoryGauge, PoolBooks, PoolFlow, Post};

/// A running set of cores with one configuration.
struct Generation {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<bool, String>>>,
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

/// Which socket a listener has.
#[derive(Clone, Copy)]
struct ListenPlace {
    /// Its index in the configuration; `None` is the admin's.
    listen: Option<usize>,
    /// Whoever opened it keeps it when this process ends.
    is_lent: bool,
}

/// A core's part of the boot: everything that its thread needs, made before it.
struct Plan {
    id: CoreId,
    cpu: Option<usize>,
    listeners: Vec<Given>,
    bell: Doorbell,
    /// Its way to the access log.
    book: Option<log::Book>,
}

impl Generation {
    /// Starts all cores. They take no connections until the lineage opens them; nothing runs if one of them cannot.
    fn boot(
        config: EdgeConfig,
        cpus: &[Option<usize>],
        (tls, access): (tls::Addresses, Access),
        listeners: Vec<Vec<Given>>,
        lineage: &Arc<Lineage>,
    ) -> Result<Generation, String> {
        let listens = config.listens.len() + usize::from(config.admin.is_some());
        let connections_max = connections_max(cpus.len(), listens, links_max(&config), &config.limits)?;
        let before = lineage.present();
        let register = match &before {
            Some(before) => before.register.follow(&config, clock::unix_seconds()),
            None => Register::open(&config, clock::unix_seconds()),
        };
        let register = register.map_err(|mistakes| mistakes.to_string())?;
        let (mut plans, posts) = plan(cpus, listeners)?;
        let generation = lineage.next_number();
        if let Some(opened) = log::open(&config)? {
            let pools = config.pools.iter().map(|pool| pool.name.clone()).collect();
            let books = lineage.log.begin(opened, generation, pools, plans.len())?;
            plans.iter_mut().zip(books).for_each(|(plan, book)| plan.book = Some(book));
        }
        let memory_max = memory::bytes_max(config.limits.memory_max);
        let mut dispatch = dispatch::Shared::new(rules_of(&config), cpus.len());
        let mut books: Vec<_> = config.pools.iter().map(|_| PoolBooks::new()).collect();
        if let Some(before) = &before {
            for (pool, name) in (0..).map(PoolId).zip(config.pools.iter().map(|pool| &pool.name)) {
                if let Some(theirs) = before.pool_like(name) {
                    dispatch.share_permits(pool, &before.dispatch, theirs);
                    books[usize::from(pool.0)] = before.books[usize::from(theirs.0)].clone();
                }
            }
        }
        let shared = Arc::new(Shared {
            routes: Routes::new(&config),
            classifiers: config.pools.iter().map(Classifier::new).collect(),
            register,
            dispatch: Arc::new(dispatch),
            books,
            flows: flows_of(&config, before.as_deref()),
            roll: Arc::default(),
            posts,
            tls,
            access,
            clocks: clocks_of(&config.limits),
            crowd: lineage.crowd.clone(),
            attempts: attempts_of(&config.limits, before.as_deref()),
            connections_max,
            memory: MemoryGauge::new(),
            memory_max,
            lineage: lineage.clone(),
            generation,
            workers_due: (before.is_some() || lineage.follows).then(|| clock::now().plus_ms(WORKERS_RETURN_MS)),
            leave: std::sync::OnceLock::new(),
            config,
        });
        // The watch over memory ends with the last core.
        let (runs, cores) = mpsc::channel();
        if let Some(bytes_max) = memory_max {
            memory::watch(shared.memory.clone(), bytes_max, cores)?;
        }
        let (reads, readers) = mpsc::channel();
        // With authorities there is no file to look at, but a core whose box was full has to hear of them later.
        let may_change = shared.config.credentials_dir.is_some() || shared.config.tokens.is_some();
        if may_change || shared.tls.iter().flatten().any(|tls| tls.has_authorities()) {
            let looked = shared.clone();
            Register::watch(readers, move || look_at_credentials(&looked, false))?;
        }
        let (started, starts) = mpsc::channel();
        let mut threads = Vec::new();
        for plan in plans {
            let (own, started, runs) = (shared.clone(), started.clone(), (runs.clone(), reads.clone()));
            let thread = std::thread::Builder::new()
                .name(format!("core-{}", plan.id.0))
                .spawn(move || {
                    let _runs = runs;
                    core_main(plan, own, &started)
                })
                .map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(why) => {
                    tell_all(&shared, orders::DRAIN);
                    return Err(why);
                }
            }
        }
        drop((started, runs, reads));
        let generation = Generation { shared, threads };
        for _ in 0..generation.threads.len() {
            let why = match starts.recv() {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(_) => "a core ended before it had started".into(),
            };
            tell_all(&generation.shared, orders::DRAIN);
            return Err(why);
        }
        Ok(generation)
    }

    /// Until all cores have ended. True: everything was finished in time.
    fn wait(self) -> Result<bool, String> {
        let mut all = Ok(true);
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err("a core ended by a panic".into()));
            all = match (all, ended) {
                (Ok(all), Ok(own)) => Ok(all & own),
                (Err(why), _) | (_, Err(why)) => Err(why),
            };
        }
        all
    }
}

/// A pool that was there before keeps what is known of it.
fn flows_of(config: &EdgeConfig, before: Option<&Shared>) -> Vec<Arc<PoolFlow>> {
    let flow = |pool: &config::Pool| {
        let flow = PoolFlow::new();
        if let Some((before, theirs)) = before.and_then(|before| Some((before, before.pool_like(&pool.name)?))) {
            flow.set_service_ns(before.flows[usize::from(theirs.0)].service_ns());
        }
        flow
    };
    config.pools.iter().map(flow).collect()
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
fn read_certificates(config: &EdgeConfig) -> Result<(tls::Addresses, Access), String> {
    let mut mistakes = Mistakes::new(&config.file);
    let now_unix = clock::unix_seconds();
    let tls = tls::load(config, now_unix, &mut mistakes);
    let access = Access::load(config, now_unix, &mut mistakes);
    if mistakes.has_errors() { Err(mistakes.to_string()) } else { Ok((tls, access)) }
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

/// How many links there may be. Files that come, and tokens, bring any number.
fn links_max(config: &EdgeConfig) -> usize {
    match (&config.credentials_dir, &config.tokens) {
        (None, None) => config.credentials.iter().map(|credential| credential.links_max as usize).sum(),
        _ => usize::MAX,
    }
}

/// How many connections of clients the edge may hold so that descriptors never run out, and so that as many links as
/// credentials allow find one, up to a quarter of all; fewer, where the configuration says so.
fn connections_max(cores: usize, listens: usize, links_max: usize, limits: &Limits) -> Result<usize, String> {
    let limit = io::raise_fd_limit();
    // Those that were told to come again are there a while longer, beside the new ones.
    let for_links = links_max.saturating_mul(2 * LINK_FDS).min(limit / FDS_LINKS_PART);
    let all = limit.saturating_sub(fds_reserved(cores, listens)).saturating_sub(for_links);
    if all / cores < FDS_RESERVED {
        return Err(format!("only {limit} file descriptors for {cores} cores; raise ulimit -n"));
    }
    let wanted = limits.connections_max as usize;
    if wanted > all {
        tracing::warn!(connections_max = wanted, descriptors = limit, for_links, "fewer descriptors; raise ulimit -n");
    }
    Ok(if wanted == 0 { all } else { all.min(wanted) })
}

/// Descriptors that all generations which may live at once need for themselves, were they all like this one.
fn fds_reserved(cores: usize, listens: usize) -> usize {
    // Of each socket one is kept, and one more while a reload deals them out, or an upgrade hands them over.
    let kept = 2 * cores * listens;
    FDS_RESERVED + (GENERATIONS_LEAVING_MAX + 1) * cores * (FDS_CORE + listens) + kept
}

/// Setups by their source count on over a reload, unless their bounds have changed.
fn attempts_of(limits: &Limits, before: Option<&Shared>) -> Arc<Attempts> {
    let bounds = |limits: &Limits| (limits.setups_per_source_max, limits.setup_failures_per_source_max);
    match before {
        Some(before) if bounds(&before.config.limits) == bounds(limits) => before.attempts.clone(),
        _ => Arc::new(Attempts::new(limits.setups_per_source_max, limits.setup_failures_per_source_max)),
    }
}

/// `[limits]`, as the room of clients takes it.
fn clocks_of(limits: &Limits) -> Clocks {
    Clocks { head_ms: limits.head_ms_max, idle_ms: limits.idle_ms_max, stall_ms: limits.body_stall_ms_max }
}

/// A bell and a mailbox for each core, before any core runs.
fn plan(cpus: &[Option<usize>], listeners: Vec<Vec<Given>>) -> Result<(Vec<Plan>, Vec<Post<Message>>), String> {
    let mut plans = Vec::new();
    let mut posts = Vec::new();
    for (index, (&cpu, listeners)) in cpus.iter().zip(listeners).enumerate() {
        let (bell, ring) = io::doorbell().map_err(|error| format!("eventfd: {error}"))?;
        posts.push(Post::new(MAILBOX_MESSAGES_MAX, Arc::new(move || ring.ring()), io::at_turn_end));
        let id = CoreId(u16::try_from(index).map_err(|_| "too many cores")?);
        plans.push(Plan { id, cpu, listeners, bell, book: None });
    }
    Ok((plans, posts))
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
    let Plan { id, cpu, listeners, bell, book } = plan;
    let home = shared.posts[usize::from(id.0)].move_in();
    shared.memory.settle();
    let core = Core::new(id, cpu, shared, home.wakers().clone(), book);
    io::spawn(read_messages(core.clone(), home, bell.hang()));
    let _ = started.send(Ok(()));
    drop(started);
    wait_for(&core.open).await;
    let finished = core.is_abandoned.get() || live(&core, listeners).await;
    end(&core).await;
    Ok(finished)
}

/// True: everything was finished in time.
async fn live(core: &Rc<Core>, listeners: Vec<Given>) -> bool {
    // The admin address answers until the end, so nobody waits for it.
    let waited_for = listeners.iter().filter(|given| given.listen.is_some()).count();
    let accepting = Rc::new(std::cell::Cell::new(waited_for));
    core.listens(listeners.len());
    for Given { listener, listen, is_lent } in listeners {
        let takes = listen.map_or(Takes::Admin, |listen| Takes::Requests(Rc::new(door(core, listen))));
        match Listener::from_std(listener) {
            Ok(listener) => {
                let place = ListenPlace { listen, is_lent };
                io::spawn(accept(core.clone(), listener, takes, place, accepting.clone()));
            }
            Err(error) => {
                tracing::error!(%error, "a listener could not be taken over");
                accepting.set(accepting.get() - usize::from(listen.is_some()));
                core.stops_listening();
            }
        }
    }
    if core.shared.dispatch.rules.iter().any(|rules| rules.ageing.is_some()) {
        io::spawn(until_over(core.clone(), age(core.clone())));
    }
    io::spawn(until_over(core.clone(), tell_rates(core.clone())));
    if core.id == CoreId(0) {
        io::spawn(until_over(core.clone(), history::keep(core.clone())));
    }
    if core.shared.dispatch.has_permits() {
        io::spawn(until_over(core.clone(), look_for_permits(core.clone())));
    }
    wait_for(&core.leave).await;
    if core.shared.leave.get().is_some() {
        io::spawn(until_over(core.clone(), take_leave(core.clone())));
    }
    let is_finished = io::timeout(core.shared.config.drain_ms_max, until_idle(core, &accepting)).await.is_some();
    if is_finished {
        io::timeout(CLIENT_GOODBYE_MS_MAX, until_carriers_have_gone(core)).await;
    }
    is_finished
}

/// As long as generations from before run requests that hold permits, which nobody here hears come back; also while this one
/// leaves: what waits in it for its own workers has nobody else to wake it.
async fn look_for_permits(core: Rc<Core>) {
    while core.shared.lineage.has_elders(core.shared.generation) {
        io::sleep_ms(TICK_MS).await;
        core.look(false);
    }
}

/// While another generation takes the connections: clients that ask get one more answer, then those that do not are told to go;
/// links go over one by one.
async fn take_leave(core: Rc<Core>) {
    let mut keepers: Keepers = core.keepers();
    let until = clock::now().plus_ms(LEAVE_IDLE_MS);
    // A tenth of the time is theirs to close.
    let links_until = clock::now().plus_ms(core.shared.config.drain_ms_max / 10 * 9);
    loop {
        core.send_links_away(&mut keepers, links_until);
        if clock::now() >= until {
            core.drain.set();
            core.admin_drain.set();
        }
        io::sleep_ms(TICK_MS).await;
    }
}

/// Ends what is left, so that nothing of this generation stays in the process.
async fn end(core: &Rc<Core>) {
    core.admin_leaves.set();
    core.admin_drain.set();
    // Answers at the admin address have an end: a browser comes again after one, and complains without.
    let admins = async {
        while core.is_listening() || core.has_admins() {
            io::sleep_ms(TICK_MS).await;
        }
    };
    io::timeout(ADMIN_END_MS_MAX, admins).await;
    core.over.set();
    core.drain.set();
    core.clients_gone.set();
    core.links_drain.set();
    let only_messages = async {
        while io::tasks() > 1 {
            io::sleep_ms(TICK_MS).await;
        }
    };
    io::timeout(OVER_MS_MAX, only_messages).await;
    core.shared.lineage.core_ended(core.shared.generation, core.id, core.report().counters);
    core.silent.set();
    let nothing = async {
        while io::tasks() > 0 {
            io::sleep_ms(TICK_MS).await;
        }
    };
    if io::timeout(OVER_MS_MAX, nothing).await.is_none() {
        tracing::warn!(core = core.id.0, tasks = io::tasks(), "tasks of this core did not end");
    }
}

/// A task that does not outlive its core's time: then it is dropped where it waits. No async fn, which would keep the task
/// twice.
fn until_over<F: Future<Output = ()>>(core: Rc<Core>, task: F) -> UntilOver<F> {
    UntilOver { task, core, place: None }
}

pin_project! {
    struct UntilOver<F> {
        #[pin]
        task: F,
        core: Rc<Core>,
        // In the latch.
        place: Option<usize>,
    }

    impl<F> PinnedDrop for UntilOver<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(place) = this.place {
                this.core.over.leave(place);
            }
        }
    }
}

impl<F: Future<Output = ()>> Future for UntilOver<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.core.over.is_set() {
            return Poll::Ready(());
        }
        // Once is enough: a task has one waker for all its life.
        this.place.get_or_insert_with(|| this.core.over.enter(cx.waker()));
        this.task.poll(cx)
    }
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
    let (lineage, generation) = (&core.shared.lineage, core.shared.generation);
    if core.has_carriers() {
        io::sleep_ms(TICK_MS).await; // until their clients are told to go, nobody counts what these may have asked
    }
    while !core.is_idle() || accepting.get() > 0 || lineage.serves_elders(generation) {
        io::sleep_ms(TICK_MS).await;
    }
    lineage.core_is_idle(generation);
    for post in &core.shared.posts {
        // A full box is read by a core that runs; it will have room.
        while post.send(Message::Idle).is_err() {
            io::sleep_ms(TICK_MS).await;
        }
    }
    wait_for(&core.clients_gone).await;
    while core.links_len() > 0 {
        io::sleep_ms(TICK_MS).await;
    }
}

/// Connections that carried links have been told to go, too, and what was answered on them may be on its way yet. Nothing runs on
/// them: one that stays is no reason to say that something was cut.
async fn until_carriers_have_gone(core: &Core) {
    while !core.is_idle() || core.has_carriers() {
        io::sleep_ms(TICK_MS).await;
    }
}

/// Takes connections until the generation leaves or drains.
async fn accept(
    core: Rc<Core>,
    mut listener: Listener,
    takes: Takes,
    place: ListenPlace,
    accepting: Rc<std::cell::Cell<usize>>,
) {
    let mut told = if takes.is_admin() { core.admin_leaves.wait() } else { core.leave.wait() };
    loop {
        if takes.is_for_clients() {
            until_there_is_room(&core).await;
        }
        let accepted = {
            let mut next = std::pin::pin!(listener.accept());
            std::future::poll_fn(|cx| {
                if told.poll(cx).is_ready() {
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
    let has_heir = core.shared.leave.get().is_some_and(|leave| match place.listen {
        Some(listen) => leave.heirs.listens[listen],
        None => leave.heirs.admin,
    });
    let lives_on = has_heir || place.is_lent;
    let last = if lives_on { listener.leave().await } else { listener.close().await };
    for (conn, peer) in last {
        take(&core, conn, peer, &takes);
    }
    core.stops_listening();
    if !takes.is_admin() {
        accepting.set(accepting.get() - 1);
    }
}

/// At a cap the backlog waits in the kernel; descriptors and memory are left for links, logs, files, and a look from
/// outside.
async fn until_there_is_room(core: &Core) {
    let mut is_counted = false;
    while let Some(reason) = core.shared.is_crowded()
        && !core.leave.is_set()
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
            io::spawn(until_over(core.clone(), welcome(core.clone(), conn, peer, door.clone(), counted)));
        }
        Takes::Admin => {
            // Too many: this one is closed. Clients and links have their own.
            let Some(place) = core.admin() else { return };
            let core = core.clone();
            io::spawn(until_over(core.clone(), async move {
                admin::connection(core, conn).await;
                drop(place);
            }));
        }
    }
}

/// Looks at what waits long, as long as the core lives.
async fn age(core: Rc<Core>) {
    loop {
        io::sleep_ms(AGE_LOOK_MS).await;
        core.age();
    }
}

/// Tells what this core's links do, as long as the core lives.
async fn tell_rates(core: Rc<Core>) {
    loop {
        io::sleep_ms(RATE_LOOK_MS).await;
        core.tell_rates();
    }
}

/// The core's bell task: messages from other cores, and wakes of tasks that wait for one.
async fn read_messages(core: Rc<Core>, home: crate::xcore::Home<Message>, mut bell: io::Bell) {
    let mut has_slept = false;
    let mut silent = core.silent.wait();
    loop {
        obey(&core, home.take_orders());
        while let Some(message) = home.pop() {
            match message {
                Message::Turned(turned) => links::move_in(&core, *turned),
                Message::Adopted(adopted) => {
                    io::spawn(until_over(core.clone(), far::adopt(core.clone(), *adopted)));
                }
                Message::NoLinks(pool) => core.no_links(pool),
                Message::Credentials => links::look_at_credentials(&core),
                Message::Beat(tell) => _ = tell.send(core.id), // whoever asked may have stopped to listen
                Message::Idle => core.core_is_idle(),
                Message::Ask(tell) => tell(&core),
            }
        }
        if home.take_look() {
            core.look(has_slept);
        }
        home.run_wakes();
        has_slept = home.prepare_to_sleep();
        if has_slept {
            let rung = std::future::poll_fn(|cx| {
                if silent.poll(cx).is_ready() {
                    return std::task::Poll::Ready(None);
                }
                bell.poll_wait(cx).map(Some)
            });
            match rung.await {
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    tracing::error!("the doorbell broke: this core hears no other any more");
                    return;
                }
                None => break,
            }
        }
        home.awake();
    }
    // Whoever asked something yet hears that nobody answers.
    while let Some(message) = home.pop() {
        drop(message);
    }
}

fn obey(core: &Rc<Core>, given: u32) {
    if given & orders::OPEN != 0 {
        core.open.set();
    }
    if given & orders::LEAVE != 0 {
        core.takes_leave();
    }
    if given & orders::DRAIN != 0 {
        core.is_abandoned.set(!core.open.is_set() || core.is_abandoned.get());
        if core.workers_are_wanted() {
            io::spawn(until_over(core.clone(), drain_later(core.clone())));
        } else {
            core.drains();
        }
    }
}

/// Behind a reload, what waits has workers that were told to come: without them it would wait in vain.
async fn drain_later(core: Rc<Core>) {
    while core.workers_are_wanted() {
        io::sleep_ms(TICK_MS).await;
    }
    core.drains();
}

/// Reads the files of credentials again, and tells all cores if something has changed, or others vouch for certificates now.
fn look_at_credentials(shared: &Shared, others_vouch: bool) {
    let tell = |core: usize| shared.posts[core].send(Message::Credentials).is_ok();
    shared.register.look(&shared.config, clock::unix_seconds(), others_vouch, shared.posts.len(), tell);
}
