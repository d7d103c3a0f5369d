//! One core's house: its links, its waiting requests, its counters, and the messages that reach it from other cores.
//! Bytes of requests and responses never enter; they are with the tasks that carry them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::SendRequest;

use super::config::EdgeConfig;
use super::credentials::Credentials;
use super::far::FarAsk;
use super::links::{H1Slot, Turned};
use super::report::{CorePart, LinkPart, PoolPart};
use super::routes::Routes;
use crate::clock::{self, Now};
use crate::events::Counters;
use crate::exchange::Latch;
use crate::ids::{CoreId, LinkId, PoolId, RequestId};
use crate::sched::{LinkFacts, Needs, Offer, PoolBounds, Sched};
use crate::xcore::{Board, HomeWakers, PoolBooks, Post, Seats};

/// What all cores share. Nothing here is written on the way of a request that finds a credit on its own core.
pub struct Shared {
    pub config: EdgeConfig,
    pub routes: Routes,
    pub credentials: Credentials,
    /// How many links each core has for each pool.
    pub board: Arc<Board>,
    /// Waiting requests and their bytes, over all cores; one for each pool.
    pub books: Vec<Arc<PoolBooks>>,
    /// Links that each credential holds, over all cores.
    pub seats: Vec<Arc<Seats>>,
    /// One for each core, in the order of `CoreId`.
    pub posts: Vec<Post<Message>>,
    pub started: Now,
}

/// What one core tells another.
pub enum Message {
    /// A worker's connection, set up elsewhere, is to live here.
    Turned(Box<Turned>),
    /// A request whose home has no link for it.
    Far(Box<FarAsk>),
    /// A core got its first link of this pool, or lost its last.
    LinksChanged(PoolId),
    /// Stop taking new work, finish what runs, end.
    Drain,
    /// A core that drains has no client left, and will send no request over another's links.
    Idle,
    /// Tell what you hold.
    Report(Box<dyn FnOnce(CorePart) + Send>),
}

/// How to send over a link of this core.
#[derive(Clone)]
pub enum Line {
    /// A clone for each request: the engine's handle holds on to the stream that it opened last.
    H2(SendRequest<Bytes>),
    H1(Rc<H1Slot>),
}

/// A link as its core knows it.
struct LinkEntry {
    /// `None` as soon as nothing new may be sent.
    line: Option<Line>,
    about: LinkAbout,
}

/// Who is at the other end of a link.
#[derive(Clone, Debug)]
pub struct LinkAbout {
    pub worker: String,
    pub address: SocketAddr,
    pub protocol: &'static str,
    pub since_unix: u64,
    pub pools: Vec<PoolId>,
}

/// One core. Everything in it is touched by this core alone.
pub struct Core {
    pub id: CoreId,
    pub cpu: Option<usize>,
    pub shared: Arc<Shared>,
    pub home: HomeWakers,
    /// No new clients; what runs, and what waits, is finished.
    pub drain: Latch,
    /// No core has a client any more: the links may go.
    pub links_drain: Latch,
    idle_cores: Cell<usize>,
    pub counters: RefCell<Counters>,
    pub connections: Cell<usize>,
    sched: RefCell<Sched>,
    /// By pool: the board says that this core has idle credits.
    idle: RefCell<Vec<bool>>,
    links: RefCell<HashMap<LinkId, LinkEntry>>,
    waiting: RefCell<HashMap<RequestId, Rc<Ticket>>>,
}

/// What a waiting request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Link(LinkId),
    /// Another core has links of the pool and this one has none.
    Elsewhere,
}

#[derive(Default)]
struct Ticket {
    given: Cell<Option<Given>>,
    waker: Cell<Option<Waker>>,
}

/// A granted credit. Dropping it gives the credit back.
pub struct Credit {
    core: Rc<Core>,
    pub link: LinkId,
}

/// Where a request that was offered stands.
pub enum Offered {
    Granted(Credit),
    /// Send it to this core, which has what is missing here.
    Elsewhere(CoreId),
    Waits(Waiting),
}

/// A request in this core's queue. Dropping it leaves the queue.
pub struct Waiting {
    core: Rc<Core>,
    request: RequestId,
    ticket: Rc<Ticket>,
}

impl Core {
    pub fn new(id: CoreId, cpu: Option<usize>, shared: Arc<Shared>, home: HomeWakers) -> Rc<Core> {
        let bounds = shared.config.pools.iter().map(|pool| PoolBounds {
            per_link_max: pool.per_link_max,
            hold_without_workers: pool.hold_without_workers,
        });
        let sched = Sched::new(bounds.collect());
        let counters = Counters::new(shared.config.pools.len());
        let idle = RefCell::new(vec![false; shared.config.pools.len()]);
        Rc::new(Core {
            id,
            cpu,
            shared,
            home,
            drain: Latch::default(),
            links_drain: Latch::default(),
            idle_cores: Cell::new(0),
            counters: RefCell::new(counters),
            connections: Cell::new(0),
            sched: RefCell::new(sched),
            idle,
            links: RefCell::new(HashMap::new()),
            waiting: RefCell::new(HashMap::new()),
        })
    }

    /// Offers a request with its arrival stamp; the same stamp again after a loss brings it back to its old place.
    pub fn offer(self: &Rc<Self>, pool: PoolId, needs: Needs, stamp: Now) -> Offered {
        let offered = self.offer_here(pool, needs, stamp);
        let Offered::Waits(_) = &offered else { return offered };
        // An idle credit elsewhere is used at once, and so is the only link that carries an upgrade.
        let board = &self.shared.board;
        let elsewhere = match needs {
            Needs::Any => board.core_with_credit(pool, self.id),
            Needs::Upgrade if self.cannot_upgrade(pool) => board.core_that_carries(pool, self.id),
            Needs::Upgrade => None,
        };
        elsewhere.map_or(offered, Offered::Elsewhere)
    }

    /// Where a request that has waited here for a while would find its link at once.
    #[must_use]
    pub fn better_core(&self, pool: PoolId, needs: Needs) -> Option<CoreId> {
        match needs {
            Needs::Any => self.shared.board.core_with_credit(pool, self.id),
            Needs::Upgrade => self.shared.board.core_that_carries(pool, self.id),
        }
    }

    /// As [`Core::offer`], for a request that came from another core: it waits here as long as there is a link.
    pub fn offer_here(self: &Rc<Self>, pool: PoolId, needs: Needs, stamp: Now) -> Offered {
        let mut sched = self.sched.borrow_mut();
        if sched.links(pool) == 0
            && let Some(core) = self.shared.board.core_with_links(pool, stamp.0)
        {
            return Offered::Elsewhere(core);
        }
        match sched.offer(pool, needs, stamp) {
            Offer::Granted(link) => {
                let was_last = sched.credits(link) == 0;
                drop(sched);
                if was_last {
                    self.publish_idle(link);
                }
                Offered::Granted(Credit { core: self.clone(), link })
            }
            Offer::Waits(request) => {
                let ticket = Rc::new(Ticket::default());
                self.waiting.borrow_mut().insert(request, ticket.clone());
                Offered::Waits(Waiting { core: self.clone(), request, ticket })
            }
        }
    }

    /// Tells the other cores whether the pools of a link have idle credits here. Called where a link's last credit went or
    /// its first one came.
    fn publish_idle(&self, link: LinkId) {
        let links = self.links.borrow();
        let Some(entry) = links.get(&link) else { return };
        let sched = self.sched.borrow();
        let mut idle = self.idle.borrow_mut();
        for &pool in &entry.about.pools {
            let is_idle = sched.pool_credits(pool) > 0;
            if std::mem::replace(&mut idle[usize::from(pool.0)], is_idle) != is_idle {
                self.shared.board.publish_idle(self.id, pool, is_idle);
            }
        }
    }

    /// How to send over a link; `None` when it went away in the meantime.
    pub fn line(&self, link: LinkId) -> Option<Line> {
        self.links.borrow().get(&link).and_then(|entry| entry.line.clone())
    }

    /// This core has links of the pool, all have said what they take, and none can carry an upgrade.
    #[must_use]
    pub fn cannot_upgrade(&self, pool: PoolId) -> bool {
        self.sched.borrow().cannot_upgrade(pool)
    }

    /// A link begins its life here, without credits.
    pub fn link_up(&self, about: LinkAbout, carries_upgrades: bool, line: Line) -> LinkId {
        let pools = about.pools.clone();
        let link = self.sched.borrow_mut().link_up(LinkFacts { pools: pools.clone(), carries_upgrades });
        self.links.borrow_mut().insert(link, LinkEntry { line: Some(line), about });
        self.publish(&pools);
        self.counters.borrow_mut().core.setups += 1;
        link
    }

    /// The worker said how many requests it takes at once.
    pub fn link_credits(&self, link: LinkId, streams_max: u32, carries_upgrades: bool) {
        {
            let mut sched = self.sched.borrow_mut();
            sched.carries_upgrades(link, carries_upgrades);
            sched.link_credits(link, streams_max);
        }
        self.settle();
        self.publish_idle(link);
        self.publish_carriers(link);
    }

    /// Nothing new may be sent over this link; what runs goes on. Safe to repeat.
    pub fn link_drains(&self, link: LinkId) {
        self.sched.borrow_mut().link_drains(link);
        self.publish_idle(link);
        self.publish_carriers(link);
        let pools = self.links.borrow_mut().get_mut(&link).map(|entry| {
            entry.line = None;
            entry.about.pools.clone()
        });
        self.publish(&pools.unwrap_or_default());
    }

    /// The link is gone.
    pub fn link_down(&self, link: LinkId) {
        self.link_drains(link);
        self.sched.borrow_mut().link_down(link);
        let entry = self.links.borrow_mut().remove(&link);
        if let Some(entry) = entry {
            self.publish(&entry.about.pools);
        }
    }

    #[must_use]
    pub fn links_len(&self) -> usize {
        self.links.borrow().len()
    }

    /// Hands out credits until there are none, or nobody waits for them.
    pub fn settle(&self) {
        loop {
            let grant = self.sched.borrow_mut().next_grant();
            let Some(grant) = grant else { return };
            let ticket = self.waiting.borrow_mut().remove(&grant.request);
            let ticket = ticket.expect("a granted request waits with a ticket");
            ticket.give(Given::Link(grant.link));
        }
    }

    /// Links of `pool` came or went: what waits here without one may have to move to another core, or to learn that the
    /// pool does not hold it.
    pub fn links_changed(&self, pool: PoolId) {
        let moved = {
            let mut sched = self.sched.borrow_mut();
            let holds = self.shared.config.pools[usize::from(pool.0)].hold_without_workers;
            let nowhere_to_go = holds && !self.shared.board.any_links(pool);
            if sched.links(pool) > 0 || sched.waiting(pool) == 0 || nowhere_to_go {
                return;
            }
            sched.take_waiting(pool, usize::MAX)
        };
        for request in moved {
            let ticket = self.waiting.borrow_mut().remove(&request);
            ticket.expect("a waiting request has a ticket").give(Given::Elsewhere);
        }
    }

    fn publish_carriers(&self, link: LinkId) {
        let links = self.links.borrow();
        let Some(entry) = links.get(&link) else { return };
        for &pool in &entry.about.pools {
            self.shared.board.publish_carrier(self.id, pool, self.sched.borrow().carries_any(pool));
        }
    }

    /// Tells the other cores where this one's links of `pools` stand, if that changed whether there are some.
    fn publish(&self, pools: &[PoolId]) {
        for &pool in pools {
            let links = self.sched.borrow().links(pool);
            let before = self.shared.board.links(self.id, pool);
            self.shared.board.publish_links(self.id, pool, links as u32);
            if (before == 0) == (links == 0) {
                continue;
            }
            for (core, post) in self.shared.posts.iter().enumerate() {
                if core != usize::from(self.id.0) {
                    // A full box belongs to a core that will look at the board when it next offers.
                    let _ = post.send(Message::LinksChanged(pool));
                }
            }
            self.links_changed(pool);
        }
    }

    /// A core has no client left; links drain after the last one.
    pub fn core_is_idle(&self) {
        self.idle_cores.set(self.idle_cores.get() + 1);
        if self.idle_cores.get() >= self.shared.posts.len() {
            self.links_drain.set();
        }
    }

    /// What this core holds now.
    pub fn report(&self) -> CorePart {
        let sched = self.sched.borrow();
        let links = self.links.borrow();
        let mut pools = vec![PoolPart::default(); self.shared.config.pools.len()];
        let mut parts = Vec::with_capacity(links.len());
        for (&id, entry) in links.iter() {
            let credits = u64::from(sched.credits(id));
            let in_flight = u64::from(sched.in_flight(id));
            for pool in &entry.about.pools {
                let part = &mut pools[usize::from(pool.0)];
                part.links += 1;
                part.credits += credits;
                part.in_flight += in_flight;
            }
            parts.push(LinkPart {
                id,
                worker: entry.about.worker.clone(),
                address: entry.about.address,
                protocol: entry.about.protocol,
                pools: entry.about.pools.clone(),
                credits,
                in_flight,
                since_unix: entry.about.since_unix,
            });
        }
        // What waits is counted once for all cores; one of them tells it.
        if self.id == CoreId(0) {
            for (part, books) in pools.iter_mut().zip(&self.shared.books) {
                part.queued = books.requests() as u64;
                part.queued_bytes = books.bytes() as u64;
            }
        }
        let mut counters = self.counters.borrow().clone();
        counters.core.connection_panics = crate::io::panics();
        counters.core.accept_backoffs = crate::io::accept_backoffs();
        CorePart {
            core: self.id,
            cpu: self.cpu.and_then(|cpu| u16::try_from(cpu).ok()),
            connections: self.connections.get() as u64,
            loops: None,
            counters,
            pools,
            links: parts,
        }
    }
}

impl Ticket {
    fn give(&self, given: Given) {
        self.given.set(Some(given));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Waiting {
    /// Ready with a credit, or with `None` where the request has to go to another core.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Credit>> {
        match self.ticket.given.take() {
            Some(Given::Link(link)) => Poll::Ready(Some(Credit { core: self.core.clone(), link })),
            Some(Given::Elsewhere) => Poll::Ready(None),
            None => {
                self.ticket.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Given but not taken: whoever waited has left, and the next one gets it.
        if let Some(Given::Link(link)) = self.ticket.given.take() {
            drop(Credit { core: self.core.clone(), link });
            return;
        }
        if self.core.waiting.borrow_mut().remove(&self.request).is_some() {
            self.core.sched.borrow_mut().cancel(self.request);
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let is_first = {
            let mut sched = self.core.sched.borrow_mut();
            sched.release(self.link);
            sched.credits(self.link) == 1
        };
        self.core.settle();
        if is_first {
            self.core.publish_idle(self.link);
        }
    }
}

/// A request's or a link's count in a core's own number, given back when it ends.
pub struct Counted(Rc<Core>);

impl Counted {
    pub fn connection(core: &Rc<Core>) -> Counted {
        core.connections.set(core.connections.get() + 1);
        Counted(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// This moment; the one place where dispatch reads the clock.
#[must_use]
pub fn arrival() -> Now {
    clock::now()
}
