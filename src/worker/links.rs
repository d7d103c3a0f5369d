//! The links of a worker: to every address of every edge, dialed again after every loss, and replaced before an edge that
//! leaves has closed them. What comes over a link is the service's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::client::ClientConfig;

use super::config::{EdgeAddress, Secret, WorkerConfig};
use super::resolve::Resolver;
use super::service::{OverLink, WorkerService};
use super::setup::{self, NoLink};
use super::shares::{Share, Shares};
use super::{tls, via};
use crate::client;
use crate::clock;
use crate::exchange::Latch;
use crate::io::{self, Conn};
use crate::limits::{
    CONNECT_MS_MAX, DURATION_MS_MAX, LINK_PING_MS, LINK_STEADY_MS, REDIAL_MS_LONG, REDIAL_MS_MAX, REDIAL_MS_MIN,
    REDIALS_SHORT, RESOLVE_AGAIN_MS_MAX, RESOLVE_MS_MIN,
};
use crate::wire::{ChannelVersion, Scheme};

/// Links that belong together: what one configuration asks for.
pub struct Links {
    pub config: Rc<WorkerConfig>,
    /// What setups present: the configuration's, or what its file held when somebody dialed last.
    pub authorization: RefCell<Option<Secret>>,
    /// For https edges; what is dialed next takes it.
    pub tls: RefCell<Option<Arc<ClientConfig>>>,
    pub service: Rc<WorkerService>,
    pub resolver: Resolver,
    pub shares: Rc<Shares>,
    /// Set once: no link is dialed any more, and those that live finish what they have.
    pub ends: Rc<Latch>,
    /// Of all links of the worker.
    pub alive: Rc<Cell<u32>>,
    /// Links that are wanted, and those of them that are there.
    pub wanted: Cell<u32>,
    pub up: Cell<u32>,
}

impl Links {
    /// All links are there that are wanted.
    pub fn are_up(&self) -> bool {
        self.wanted.get() > 0 && self.up.get() >= self.wanted.get()
    }

    /// What a setup presents now. A file that cannot be read changes nothing: what it held may be good yet.
    async fn authorization(&self) -> Option<Secret> {
        if let Some(file) = &self.config.secret_file {
            match self.resolver.read(file).await {
                Ok(secret) => drop(self.authorization.replace(Some(secret))),
                Err(why) => tracing::warn!(why, "the secret's file cannot be used; what it held before is"),
            }
        }
        self.authorization.borrow().clone()
    }

    /// Dials all edges, until `ends` is set.
    pub fn start(self: &Rc<Links>) {
        for edge in &self.config.edges {
            match self.config.via {
                Some(_) => through_proxy(self.clone(), edge.clone()),
                None => io::spawn(follow(self.clone(), edge.clone(), Wanted::new(self))),
            }
        }
    }
}

/// A link that is wanted, or an edge of which it is not known how many are.
struct Wanted(Rc<Links>);

impl Wanted {
    fn new(links: &Rc<Links>) -> Wanted {
        links.wanted.set(links.wanted.get() + 1);
        Wanted(links.clone())
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.wanted.set(self.0.wanted.get() - 1);
    }
}

/// Behind a proxy there is one way to an edge, whatever addresses its name has: the proxy resolves it.
fn through_proxy(links: Rc<Links>, edge: EdgeAddress) {
    for _ in 0..links.config.links {
        let never = Rc::<Latch>::default();
        io::spawn(keep(Wanted::new(&links), edge.clone(), Way::Proxy, links.shares.join(), never));
    }
}

/// Where a link is dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Address(SocketAddr),
    /// The one of the configuration.
    Proxy,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Address(address) => address.fmt(f),
            Way::Proxy => f.write_str("via the proxy"),
        }
    }
}

/// Keeps links to every address behind one edge's name, also while the addresses change.
async fn follow(links: Rc<Links>, edge: EdgeAddress, unknown: Wanted) {
    let mut unknown = Some(unknown);
    let mut known: HashMap<IpAddr, Rc<Latch>> = HashMap::new();
    let mut pause = Pause::new();
    loop {
        let next_ms = match links.resolver.lookup(&edge.host).await {
            Ok(found) => {
                pause = Pause::new();
                known.retain(|ip, gone| {
                    let stays = found.addresses.contains(ip);
                    if !stays {
                        tracing::info!(edge = %edge.host, address = %ip, "the name no longer has this address");
                        gone.set();
                    }
                    stays
                });
                for ip in found.addresses {
                    if known.contains_key(&ip) || links.ends.is_set() {
                        continue;
                    }
                    let gone = Rc::new(Latch::default());
                    for _ in 0..links.config.links {
                        let way = Way::Address(SocketAddr::new(ip, edge.port));
                        io::spawn(keep(Wanted::new(&links), edge.clone(), way, links.shares.join(), gone.clone()));
                    }
                    known.insert(ip, gone);
                }
                drop(unknown.take());
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
        if sleep_or(next_ms, &[&links.ends]).await {
            return;
        }
    }
}

/// Sleeps; true if one of `latches` was set before the time was over.
pub async fn sleep_or(ms: u64, latches: &[&Latch]) -> bool {
    io::timeout(ms, any_of(latches)).await.is_some()
}

/// Until one of them is set.
async fn any_of(latches: &[&Latch]) {
    let mut waits: Vec<_> = latches.iter().map(|latch| latch.wait()).collect();
    std::future::poll_fn(|cx| {
        let is_set = waits.iter_mut().any(|wait| wait.poll(cx).is_ready());
        if is_set { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Keeps one link alive: dial, set up, serve, and again after a pause, or at once when the edge has said that it leaves.
///
/// ```text
/// Dialing --set up--> Linked --the edge leaves--> Dialing, without a pause, while the old link lives on in a task of its own
/// (it ends when it is replaced, and idle)
/// Dialing --failed--> Pausing --over--> Dialing;   Linked --lost--> Pausing
/// every state --ends, or the address is gone--> (over)
/// ```
async fn keep(wanted: Wanted, edge: EdgeAddress, way: Way, share: Share, gone: Rc<Latch>) {
    let links = &wanted.0;
    let mut pause = Pause::new();
    // A link ends by a drain of the worker, or because its edge's name no longer has this address.
    let ends = Rc::new(Latch::default());
    io::spawn(forward(links.ends.clone(), gone.clone(), ends.clone()));
    // An edge that leaves again and again, as soon as a link is up, is dialed with pauses.
    let mut may_hurry = true;
    let mut was_http1 = false;
    // A link whose edge leaves, until there is another.
    let mut leaving: Option<Rc<Life>> = None;
    while !ends.is_set() {
        if was_http1 && links.shares.is_paused() {
            // There a link is a credit, and nothing is offered now.
            any_of(&[&links.shares.resumed(), &ends]).await;
            continue;
        }
        let dialed = clock::now();
        let (why, leaves, wait_ms) = match dial(links, &edge, way, &share).await {
            Ok(life) => {
                if let Some(before) = leaving.take() {
                    before.over.is_replaced.set(true);
                }
                io::spawn(serve(links.clone(), life.clone(), ends.clone()));
                let _up = Counted::new(&links.up);
                any_of(&[&life.over.leaves, &life.is_over]).await;
                was_http1 = life.was_http1;
                let leaves = life.over.leaves.is_set() || (life.was_http1 && life.ended_well.get());
                let why = life.why.borrow().clone();
                leaving = leaves.then_some(life);
                (why, leaves, 0)
            }
            Err(NoLink { why, wait_ms }) => (why, false, wait_ms),
        };
        if ends.is_set() {
            break;
        }
        if was_http1 && links.shares.is_paused() {
            continue; // that was why
        }
        if clock::now().ms_since(dialed) >= LINK_STEADY_MS {
            pause = Pause::new();
            may_hurry = true;
        }
        if leaves && may_hurry {
            may_hurry = false;
            tracing::info!(edge = %edge.host, address = %way, "the edge leaves: a new link is dialed");
            continue;
        }
        let ms = wait_ms + pause.next_ms();
        // While it is worth waiting for, its share is kept.
        share.counts(pause.is_short());
        tracing::warn!(edge = %edge.host, address = %way, serves = %links.config.serve, why, redial_ms = ms, "no link");
        sleep_or(ms, &[&ends]).await;
    }
}

/// Either of two reasons to end becomes the one that the link watches.
async fn forward(drained: Rc<Latch>, gone: Rc<Latch>, ends: Rc<Latch>) {
    any_of(&[&drained, &gone]).await;
    ends.set();
}

/// A link from its setup to its end.
struct Life {
    conn: RefCell<Option<Conn>>,
    version: ChannelVersion,
    was_http1: bool,
    offer: Rc<client::Offer>,
    over: Rc<OverLink>,
    is_over: Latch,
    /// Over HTTP/1.1: nobody broke anything.
    ended_well: Cell<bool>,
    why: RefCell<String>,
}

/// A connection to the edge, turned. The error says why there is none.
async fn dial(links: &Rc<Links>, edge: &EdgeAddress, way: Way, share: &Share) -> Result<Rc<Life>, NoLink> {
    let authorization = links.authorization().await;
    let mut conn = match (way, &links.config.via) {
        (Way::Address(address), _) => match io::timeout(CONNECT_MS_MAX, Conn::connect(address)).await {
            Some(Ok(conn)) => conn,
            Some(Err(error)) => return Err(format!("cannot connect: {error}").into()),
            None => return Err("cannot connect: no answer in time".into()),
        },
        (Way::Proxy, Some(via)) => via::connect(via, edge, &links.resolver).await?,
        (Way::Proxy, None) => return Err("there is no proxy".into()),
    };
    conn.keepalive(LINK_PING_MS);
    let config = links.tls.borrow().clone();
    if let (Scheme::Https, Some(config)) = (edge.scheme, &config) {
        tls::secure(&mut conn, config, &edge.host, "ca_file").await?;
    }
    let (conn, version) = match links.config.haproxy {
        false => setup::set_up(conn, edge, &links.config, authorization.as_ref()).await?,
        true => (setup::as_device(conn), ChannelVersion::H2),
    };
    let offer = share.offer();
    tracing::info!(edge = %edge.host, address = %way, serves = %links.config.serve, ?version, credits = offer.get(), "link up");
    Ok(Rc::new(Life {
        conn: RefCell::new(Some(conn)),
        version,
        was_http1: version == ChannelVersion::H1,
        offer,
        over: Rc::new(OverLink::new(links.service.clone(), version)),
        is_over: Latch::default(),
        ended_well: Cell::new(false),
        why: RefCell::new("the edge leaves".into()),
    }))
}

/// An HTTP/1.1 link that has nothing to do is as good as any: its edge, or a dead peer's silence, ends it.
const LINK_CLOCKS: client::Clocks = client::Clocks { idle_ms: DURATION_MS_MAX, ..client::Clocks::USUAL };

/// Serves a link to its end.
async fn serve(links: Rc<Links>, life: Rc<Life>, ends: Rc<Latch>) {
    let Some(conn) = life.conn.borrow_mut().take() else { return };
    let _alive = Counted::new(&links.alive);
    let _over = SetsAtEnd(&life.is_over);
    let why = match life.version {
        ChannelVersion::H2 => {
            match client::h2::serve_edge(conn, life.over.clone(), &life.offer, links.config.haproxy, &ends).await {
                client::h2::Ended::Cleanly => "the edge closed it".into(),
                client::h2::Ended::Broken(why) => why,
            }
        }
        ChannelVersion::H1 => {
            let over = Rc::new(Latch::default());
            let (ends, paused, linked, told) = (ends.clone(), links.shares.paused(), life.clone(), over.clone());
            io::spawn(async move {
                any_of(&[&ends, &paused, &linked.is_over]).await;
                told.set();
            });
            client::h1::serve(Box::new(conn), &*life.over, &over, &LINK_CLOCKS).await;
            life.ended_well.set(true);
            "the edge closed it".into()
        }
    };
    tracing::debug!(why, "link down");
    *life.why.borrow_mut() = why;
}

/// Also when its task ends by a panic.
struct SetsAtEnd<'a>(&'a Latch);

impl Drop for SetsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// One of those that a number counts, as long as it is there.
struct Counted<'a>(&'a Cell<u32>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<u32>) -> Counted<'a> {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Backoff with full jitter: a random time up to a bound that doubles. The bound stays short for as long as an edge takes to
/// start again, and grows only when it seems to be gone for good.
struct Pause {
    up_to_ms: u64,
    count: u32,
}

impl Pause {
    fn new() -> Pause {
        Pause { up_to_ms: REDIAL_MS_MIN, count: 0 }
    }

    /// The next pause is a short one.
    fn is_short(&self) -> bool {
        self.count <= REDIALS_SHORT
    }

    fn next_ms(&mut self) -> u64 {
        let up_to_ms = self.up_to_ms;
        self.count = self.count.saturating_add(1);
        self.up_to_ms = (up_to_ms * 2).min(if self.is_short() { REDIAL_MS_MAX } else { REDIAL_MS_LONG });
        // Without randomness all workers would come at once; the clock's nanoseconds still spread them.
        let random = getrandom::u64().unwrap_or(clock::now().0);
        REDIAL_MS_MIN + random % up_to_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_for_a_while_then_grow_and_stay_within_their_bounds() {
        let mut pause = Pause::new();
        for _ in 0..REDIALS_SHORT {
            assert!(pause.is_short());
            let ms = pause.next_ms();
            assert!((REDIAL_MS_MIN..REDIAL_MS_MIN + REDIAL_MS_MAX).contains(&ms), "{ms}");
        }
        for _ in 0..100 {
            let ms = pause.next_ms();
            assert!((REDIAL_MS_MIN..REDIAL_MS_MIN + REDIAL_MS_LONG).contains(&ms), "{ms}");
        }
        assert!(!pause.is_short());
        assert_eq!(pause.up_to_ms, REDIAL_MS_LONG);
    }
}
