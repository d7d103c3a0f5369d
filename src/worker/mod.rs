//! The worker program: dials out to every address of every edge, keeps its links, and serves what comes over them from
//! the server behind it. One thread; clone the process to scale.

pub mod config;

pub mod tls;

mod h2c;
mod origin;
mod places;
mod resolve;
mod service;
mod setup;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use self::config::{EdgeAddress, WorkerConfig};
use self::origin::Dialer;
use self::resolve::Resolver;
use self::service::WorkerService;
use self::tls::Tls;
use crate::client;
use crate::clock;
use crate::exchange::Latch;
use crate::io::{self, Conn, Doorbell};
use crate::limits::{
    CONNECT_MS_MAX, DRAIN_MS_MAX, LINK_PING_MS, LINK_STEADY_MS, MAILBOX_MESSAGES_MAX, REDIAL_MS_MAX, REDIAL_MS_MIN,
    RESOLVE_AGAIN_MS_MAX, RESOLVE_MS_MIN,
};
use crate::settings::Mistakes;
use crate::wire::{ChannelVersion, Scheme};
use crate::xcore::{HomeWakers, Post};

/// A running worker.
pub struct Worker {
    post: Post<Order>,
    thread: JoinHandle<Result<bool, String>>,
}

/// What the worker's thread can be told.
enum Order {
    Drain,
}

/// What all tasks of the worker share.
struct Work {
    config: WorkerConfig,
    tls: Tls,
    service: Rc<WorkerService>,
    resolver: Resolver,
    drain: Latch,
    /// Links that are wanted now, over all addresses; the concurrency is shared among them.
    links_wanted: Cell<u32>,
    links_alive: Cell<u32>,
}

impl Worker {
    pub fn start(config: WorkerConfig) -> Result<Worker, String> {
        let mut mistakes = Mistakes::new("worker");
        let tls = tls::load(&config, &mut mistakes);
        if mistakes.has_errors() {
            return Err(mistakes.to_string());
        }
        let (bell, ring) = io::doorbell().map_err(|error| format!("eventfd: {error}"))?;
        let post = Post::new(MAILBOX_MESSAGES_MAX, Arc::new(move || ring.ring()), io::at_turn_end);
        let (started, starts) = mpsc::channel();
        let home = post.clone();
        let thread = std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || {
                let told = started.clone();
                match io::run(move || life(config, tls, home, bell, told)) {
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

    /// Until it has ended. True: everything was finished in time.
    pub fn wait(self) -> Result<bool, String> {
        self.thread.join().map_err(|_| "the worker ended by a panic".to_owned())?
    }
}

/// Runs a worker until it was drained.
pub fn run(config: WorkerConfig) -> Result<(), String> {
    let signals = crate::signals::watch()?;
    io::raise_fd_limit();
    let worker = Worker::start(config)?;
    let post = worker.post.clone();
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
    config: WorkerConfig,
    tls: Tls,
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
    let dialer = Dialer::new(config.to.clone(), resolver.clone(), tls.origin.clone());
    let service = Rc::new(WorkerService::new(dialer, config.concurrency));
    let edges = config.edges.clone();
    let work = Rc::new(Work {
        config,
        tls,
        service: service.clone(),
        resolver,
        drain: Latch::default(),
        links_wanted: Cell::new(0),
        links_alive: Cell::new(0),
    });
    for edge in edges {
        io::spawn(follow(work.clone(), edge));
    }
    io::spawn(async move { service.reap().await });
    io::spawn(read_orders(work.clone(), home, bell.hang()));
    let _ = started.send(Ok(()));
    drop(started);
    let mut drained = work.drain.wait();
    std::future::poll_fn(|cx| drained.poll(cx)).await;
    let idle = async {
        while work.links_alive.get() > 0 || work.service.in_flight() > 0 {
            io::sleep_ms(crate::limits::TICK_MS).await;
        }
    };
    io::timeout(DRAIN_MS_MAX, idle).await.is_some()
}

async fn read_orders(work: Rc<Work>, home: crate::xcore::Home<Order>, mut bell: io::Bell) {
    loop {
        while let Some(Order::Drain) = home.pop() {
            work.drain.set();
        }
        home.run_wakes();
        if home.prepare_to_sleep() && bell.wait().await.is_err() {
            tracing::error!("the doorbell broke: only a second signal ends this worker now");
            return;
        }
        home.awake();
    }
}

/// Keeps links to every address behind one edge's name, also while the addresses change.
async fn follow(work: Rc<Work>, edge: EdgeAddress) {
    let mut known: HashMap<IpAddr, Rc<Latch>> = HashMap::new();
    let mut pause = Pause::new();
    loop {
        let next_ms = match work.resolver.lookup(&edge.host).await {
            Ok(found) => {
                pause = Pause::new();
                known.retain(|ip, gone| {
                    let stays = found.addresses.contains(ip);
                    if !stays {
                        tracing::info!(edge = %edge.host, address = %ip, "the name no longer has this address");
                        gone.set();
                        work.links_wanted.set(work.links_wanted.get() - work.config.links);
                    }
                    stays
                });
                let new: Vec<IpAddr> = found.addresses.iter().filter(|ip| !known.contains_key(ip)).copied().collect();
                work.links_wanted.set(work.links_wanted.get() + work.config.links * new.len() as u32);
                for ip in new {
                    let gone = Rc::new(Latch::default());
                    for index in 0..work.config.links {
                        let address = SocketAddr::new(ip, edge.port);
                        io::spawn(keep(work.clone(), edge.clone(), address, index, gone.clone()));
                    }
                    known.insert(ip, gone);
                }
                match found.ttl_ms {
                    Some(ttl_ms) => ttl_ms.clamp(RESOLVE_MS_MIN, RESOLVE_AGAIN_MS_MAX),
                    None => return, // an address is its own name; it never changes
                }
            }
            Err(why) => {
                tracing::warn!(edge = %edge.host, why, "the edge's name could not be resolved");
                pause.next_ms()
            }
        };
        if sleep_or(next_ms, &[&work.drain]).await {
            return;
        }
    }
}

/// Sleeps; true if one of `latches` was set before the time was over.
async fn sleep_or(ms: u64, latches: &[&Latch]) -> bool {
    let mut waits: Vec<_> = latches.iter().map(|latch| latch.wait()).collect();
    let any = std::future::poll_fn(|cx| {
        let is_set = waits.iter_mut().any(|wait| wait.poll(cx).is_ready());
        if is_set { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    io::timeout(ms, any).await.is_some()
}

/// Keeps one link alive: dial, set up, serve, and again after a pause.
async fn keep(work: Rc<Work>, edge: EdgeAddress, address: SocketAddr, index: u32, gone: Rc<Latch>) {
    let mut pause = Pause::new();
    // The link ends by a drain of the worker, or because its edge's name no longer has this address.
    let ends = Rc::new(Latch::default());
    io::spawn(forward(work.clone(), gone.clone(), ends.clone()));
    while !work.drain.is_set() && !gone.is_set() {
        let dialed = clock::now();
        let why = match link(&work, &edge, address, index, &ends).await {
            Ok(why) => why,
            Err(why) => why,
        };
        if work.drain.is_set() || gone.is_set() {
            break;
        }
        if clock::now().ms_since(dialed) >= LINK_STEADY_MS {
            pause = Pause::new();
        }
        let ms = pause.next_ms();
        tracing::warn!(edge = %edge.host, %address, why, redial_ms = ms, "no link");
        sleep_or(ms, &[&work.drain, &gone]).await;
    }
}

/// Either of two reasons to end becomes the one that the link watches.
async fn forward(work: Rc<Work>, gone: Rc<Latch>, ends: Rc<Latch>) {
    {
        let (mut drained, mut left) = (work.drain.wait(), gone.wait());
        std::future::poll_fn(|cx| {
            let either = drained.poll(cx).is_ready() | left.poll(cx).is_ready();
            if either { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    ends.set();
}

/// One link, from its dial to its end. Both sides of the result say why there is none any more.
async fn link(
    work: &Rc<Work>,
    edge: &EdgeAddress,
    address: SocketAddr,
    index: u32,
    ends: &Rc<Latch>,
) -> Result<String, String> {
    let mut conn = match io::timeout(CONNECT_MS_MAX, Conn::connect(address)).await {
        Some(Ok(conn)) => conn,
        Some(Err(error)) => return Err(format!("cannot connect: {error}")),
        None => return Err("cannot connect: no answer in time".into()),
    };
    conn.keepalive(LINK_PING_MS);
    if let (Scheme::Https, Some(config)) = (edge.scheme, &work.tls.edge) {
        tls::secure(&mut conn, config, &edge.host, "ca_file").await?;
    }
    let (conn, version) = setup::set_up(conn, edge, &work.config).await?;
    let streams_max = share(work.config.concurrency, work.links_wanted.get(), index);
    tracing::info!(edge = %edge.host, %address, ?version, streams_max, "link up");
    let _alive = Alive::new(work);
    Ok(match version {
        ChannelVersion::H2 => {
            let profile = client::h2::Profile::link(streams_max);
            match client::h2::serve(conn, work.service.clone(), profile, ends).await {
                client::h2::Ended::Cleanly => "the edge closed it".into(),
                client::h2::Ended::Broken(why) => why,
            }
        }
        ChannelVersion::H1 => {
            client::h1::serve(Box::new(conn), &*work.service, ends, &client::Clocks::USUAL).await;
            "the edge closed it".into()
        }
    })
}

/// This link's part of all credits, by the links that are wanted when it is dialed. Every link gets at least one: a link
/// without credit would be none. What that is too much in all waits in `places`.
fn share(concurrency: u32, links: u32, index: u32) -> u32 {
    let links = links.max(1);
    (concurrency / links + u32::from(index < concurrency % links)).max(1)
}

struct Alive<'a>(&'a Work);

impl<'a> Alive<'a> {
    fn new(work: &'a Work) -> Alive<'a> {
        work.links_alive.set(work.links_alive.get() + 1);
        Alive(work)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.links_alive.set(self.0.links_alive.get() - 1);
    }
}

/// Exponential backoff with full jitter: a random time up to a bound that doubles.
struct Pause {
    up_to_ms: u64,
}

impl Pause {
    fn new() -> Pause {
        Pause { up_to_ms: REDIAL_MS_MIN }
    }

    fn next_ms(&mut self) -> u64 {
        let up_to_ms = self.up_to_ms;
        self.up_to_ms = (up_to_ms * 2).min(REDIAL_MS_MAX);
        // Without randomness all workers would come at once; the clock's nanoseconds still spread them.
        let random = getrandom::u64().unwrap_or(clock::now().0);
        REDIAL_MS_MIN + random % up_to_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_shares_add_up_to_the_concurrency() {
        for links in 1..=7 {
            for concurrency in links..=65 {
                let sum: u32 = (0..links).map(|index| share(concurrency, links, index)).sum();
                assert_eq!(sum, concurrency, "{concurrency} over {links}");
            }
        }
        assert_eq!(share(1, 4, 3), 1, "a link without credit would be none");
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let mut pause = Pause::new();
        for _ in 0..100 {
            let ms = pause.next_ms();
            assert!((REDIAL_MS_MIN..REDIAL_MS_MIN + REDIAL_MS_MAX).contains(&ms), "{ms}");
        }
        assert_eq!(pause.up_to_ms, REDIAL_MS_MAX);
    }
}
