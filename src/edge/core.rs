//! One core's house: its links, its waiting requests, its counters, and the messages that reach it from other cores.
//! Bytes of requests and responses never enter; they are with the tasks that carry them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll, Waker};

use super::admin::access::Access;
use super::config::EdgeConfig;
use super::far::{self, Adopted, Away, FarAsk, FarBack, FarEnds};
use super::history::{ByClass, LinkNow, PoolNow, Told};
use super::lineage::{Leave, Lineage, Successor};
use super::links::{H1Slot, Holders, Turned};
use super::log::Book;
use super::log::record::{Grantor, LinkName};
use super::priority::Classifier;
use super::process::ProcessReport;
use super::rates::Rates;
use super::register::Register;
use super::report::{CertificateReport, CorePart, LinkPart, PoolPart};
use super::roll::{self, Roll, Whose};
use super::routes::Routes;
use super::silence::Silence;
use super::tls;
use crate::client::Clocks;
use crate::clock::{self, Now};
use crate::dispatch::{self, Dispatcher, Grant, Granted, Host, Own};
use crate::events::{ConnectionRefusal, Counters, Dispatch};
use crate::exchange::{Ask, Latch};
use crate::ids::{Class, CoreId, LinkId, PoolId, RequestId};
use crate::io;
use crate::limits::{ADMIN_CONNECTIONS_MAX, LINK_UNHEARD_MS, LINK_WANTED_MS, MUTE_LOOK_MS, UNBOOKED_REQUESTS_MAX};
use crate::link::h2::H2Sender;
use crate::sched::{Facts, LinkFacts, LinkOffer, Needs, Sched};
use crate::wire::{About, RequestIds};
use crate::xcore::{
    Attempts, Crowd, Guest, HomeWakers, Mail, MemoryGauge, Parcel, Permit, PoolBooks, PoolFlow, Portable, Post, Source,
};

/// What all cores share. Nothing here is written on the way of a request that finds a credit on its own core.
pub struct Shared {
    pub config: EdgeConfig,
    pub routes: Routes,
    pub register: Register,
    /// How urgent a request is; one for each pool.
    pub classifiers: Vec<Classifier>,
    /// What waits, which cores have links of a pool, and which have idle credits.
    pub dispatch: Arc<dispatch::Shared<FarAsk>>,
    /// Waiting requests and their bytes, over all cores, and over all generations that have the pool; one for each pool.
    pub books: Vec<Arc<PoolBooks>>,
    /// Who waits in which class, and how long requests take; one for each pool.
    pub flows: Vec<Arc<PoolFlow>>,
    /// Whose links there are, over all cores.
    pub roll: Arc<Roll>,
    /// One for each core, in the order of `CoreId`.
    pub posts: Vec<Post<Message>>,
    pub tls: tls::Addresses,
    /// Who may ask the admin address.
    pub access: Access,
    /// `[limits]`, as the room of clients takes it.
    pub clocks: Clocks,
    /// Connections of clients, over all cores.
    pub crowd: Arc<Crowd>,
    /// Setups of workers by their source, over all cores.
    pub attempts: Arc<Attempts>,
    pub connections_max: usize,
    pub memory: Arc<MemoryGauge>,
    /// In bytes; `None`: nobody watches it.
    pub memory_max: Option<u64>,
    /// What outlives this configuration.
    pub lineage: Arc<Lineage>,
    /// Which of the process's configurations this is, from 1.
    pub generation: u64,
    /// Until then workers of the generation before may still be on their way here. `None`: there was none.
    pub workers_due: Option<Now>,
    /// How it leaves. Said before it is told to.
    pub leave: OnceLock<Leave>,
}

impl Shared {
    /// A pool without links may have some in a moment: its workers have been told to come again.
    pub fn awaits_workers(&self) -> bool {
        self.workers_due.is_some_and(|due| clock::now() < due)
    }
}

impl Shared {
    /// Those that its addresses show.
    fn certificates(&self) -> Vec<CertificateReport> {
        let mut all: Vec<CertificateReport> = Vec::new();
        for (file, not_after_unix) in self.tls.iter().flatten().chain(&self.access.tls).flat_map(|tls| tls.ends()) {
            if all.iter().all(|known| known.file != file) {
                all.push(CertificateReport { file, not_after_unix });
            }
        }
        all
    }

    /// Whose doing it is what comes from there, where that is counted.
    #[must_use]
    pub fn source_of(&self, address: IpAddr) -> Option<Source> {
        // A proxy's connections are those of many.
        let is_exempt = self.config.trusts(address)
            || self.config.limits.sources_exempt.iter().any(|network| network.contains(address));
        (!is_exempt).then(|| Source::of(address))
    }
}

/// What one core tells another.
pub enum Message {
    /// A worker's connection, set up elsewhere, is to live here.
    Turned(Box<Turned>),
    /// A request of a generation that leaves is to wait here.
    Adopted(Box<Adopted>),
    /// The last link of this pool, over all cores, has gone.
    NoLinks(PoolId),
    /// The credentials have changed, or who vouches for certificates.
    Credentials,
    /// Say that this core's loop runs.
    Beat(mpsc::Sender<CoreId>),
    /// A core that drains has no client left, and will send no request over another's links.
    Idle,
    /// Say something about yourself.
    Ask(Box<dyn FnOnce(&Core) + Send>),
}

/// What a core is told once in its life, a bit each: no full mailbox loses one. Obeyed in this order.
pub mod orders {
    /// All cores have started: take connections.
    pub const OPEN: u32 = 1;
    /// Another generation has taken over, as [`super::Shared::leave`] says: no new connections, finish what runs, end.
    pub const LEAVE: u32 = 2;
    /// Stop taking new work, finish what runs, end.
    pub const DRAIN: u32 = 4;
}

/// How to send over a link of this core.
#[derive(Clone)]
pub enum Line {
    H2(H2Sender),
    H1(Rc<H1Slot>),
}

/// A link as its core knows it.
struct LinkEntry {
    /// `None` as soon as nothing new may be sent.
    line: Option<Line>,
    silence: Rc<Silence>,
    about: LinkAbout,
    /// As lines of the access log have it.
    name: Arc<LinkName>,
    /// Announced: its worker is to dial another one. Set: it ends as soon as nothing runs on it.
    ends: Rc<Latch>,
    /// When its worker was told to dial another one, because the generation leaves.
    told: Option<Now>,
    /// It has no credit, unless the links fail that come before it.
    rests: bool,
    in_roll: roll::Entry,
}

/// What becomes of a link of a generation that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    Stays,
    /// Its worker is told; requests of this generation go over it as before.
    Told,
    /// As `Told`, and no request goes over it any more, or only where the others have failed. It stays open: its worker ends it
    /// when it has another.
    Retired,
    Ends,
}

/// Who is at the other end of a link.
#[derive(Clone, Debug)]
pub struct LinkAbout {
    pub worker: String,
    /// What it says about itself.
    pub said: About,
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
    /// All cores of the generation have started.
    pub open: Latch,
    /// Another core of the generation could not start: nothing here ever runs.
    pub is_abandoned: Cell<bool>,
    /// No new connections: clients are told to go.
    pub leave: Latch,
    /// Listeners of this core, the admin's among them.
    listening: Cell<usize>,
    /// Clients that have not gone without being told go now; what runs, and what waits, is finished. Announced when it is
    /// near.
    pub drain: Latch,
    /// The admin address is somebody else's.
    pub admin_leaves: Latch,
    /// As `drain`, for readers of the admin address, who see a drain to its end.
    pub admin_drain: Latch,
    /// The time is up: whatever is left ends here and now.
    pub over: Latch,
    /// Nothing is left that would wait for another core.
    pub silent: Latch,
    /// No core has a client any more, nor gets a request of one.
    pub clients_gone: Latch,
    /// The links may go.
    pub links_drain: Latch,
    /// It was told to drain: nobody comes after it for whom a link would have to be kept.
    is_last: Cell<bool>,
    idle_cores: Cell<usize>,
    /// Whose the links are.
    pub holders: Holders,
    pub counters: RefCell<Counters>,
    /// `None`: nobody wants an access log.
    pub log: Option<Book>,
    pub connections: Cell<usize>,
    /// Connections with streams that are links.
    carriers: Cell<usize>,
    /// Requests that wait here for a generation that leaves.
    guests: Cell<usize>,
    /// Connections to the admin address.
    admins: Cell<usize>,
    /// Requests that wait and are in no pool's books.
    unbooked: Cell<usize>,
    pub request_ids: RefCell<RequestIds>,
    /// What was told the last time, to whoever keeps the history.
    pub told: RefCell<Told>,
    dispatcher: RefCell<Dispatcher<FarAsk, Rc<Ticket>>>,
    links: RefCell<HashMap<LinkId, LinkEntry>>,
    rates: RefCell<Rates>,
    /// This core looks for work because it was woken for that.
    was_asleep: Cell<bool>,
}

/// Links that stay while a generation leaves.
#[derive(Default)]
pub struct Keepers(HashMap<LinkId, Keeper>);

#[derive(Default)]
struct Keeper {
    /// Of one of its pools.
    is_only: bool,
    /// For which it comes first.
    pools: Vec<PoolId>,
    /// Its worker takes requests, and answers: others of its pools may rest.
    serves: bool,
}

/// What a waiting request gets.
#[derive(Default)]
struct Ticket {
    given: Cell<Option<Grant>>,
    waker: Cell<Option<Waker>>,
}

/// What one core would do for a request.
pub struct Chance {
    /// It would find a credit here at once.
    pub has_credit: bool,
    /// Requests of its pool that wait here, by class.
    pub queued: ByClass<usize>,
    /// The links of its pool, and what each offers.
    pub offers: Vec<(LinkOffer, LinkPart)>,
}

/// A granted credit. Dropping it gives the credit back.
pub struct Credit {
    core: Rc<Core>,
    pub link: LinkId,
    /// Since when both the request and the credit had been there. `None`: the request did not wait.
    pub ready_since: Option<Now>,
    pub is_inversion: bool,
    /// In which it was taken.
    pub class: Class,
    pool: PoolId,
    permit: Option<Permit>,
}

/// A request in this core's queue. Dropping it leaves the queue.
pub struct Waiting {
    core: Rc<Core>,
    request: RequestId,
    ticket: Rc<Ticket>,
    mail: Arc<Mail<FarEnds>>,
    portable: Option<Portable>,
    is_over: bool,
}

/// Who serves a request that waited.
pub enum Got {
    /// A link of this core.
    Here(Credit),
    /// A link of another core.
    There(FarBack),
}

impl Core {
    pub fn new(id: CoreId, cpu: Option<usize>, shared: Arc<Shared>, home: HomeWakers, log: Option<Book>) -> Rc<Core> {
        let counters = Counters::new(shared.config.pools.len());
        let dispatcher = Dispatcher::new(id, shared.dispatch.clone());
        let rates = Rates::new(id, &shared.flows);
        Rc::new(Core {
            id,
            cpu,
            shared,
            home,
            open: Latch::default(),
            is_abandoned: Cell::new(false),
            leave: Latch::default(),
            listening: Cell::new(0),
            drain: Latch::default(),
            admin_leaves: Latch::default(),
            admin_drain: Latch::default(),
            over: Latch::default(),
            silent: Latch::default(),
            clients_gone: Latch::default(),
            links_drain: Latch::default(),
            is_last: Cell::new(false),
            idle_cores: Cell::new(0),
            holders: Holders::default(),
            counters: RefCell::new(counters),
            log,
            connections: Cell::new(0),
            carriers: Cell::new(0),
            admins: Cell::new(0),
            guests: Cell::new(0),
            unbooked: Cell::new(0),
            request_ids: RefCell::new(RequestIds::new(random_keys(id))),
            told: RefCell::default(),
            dispatcher: RefCell::new(dispatcher),
            links: RefCell::new(HashMap::new()),
            rates: RefCell::new(rates),
            was_asleep: Cell::new(false),
        })
    }

    // ---- requests ----

    /// A credit of this core, if the request may have one at once.
    pub fn offer(self: &Rc<Self>, facts: Facts) -> Option<Credit> {
        let grant = self.dispatcher.borrow_mut().offer(facts)?;
        Some(self.credit(grant))
    }

    /// The request waits for the first credit of any core. The same stamp again after a loss brings it back to its old
    /// place.
    pub fn wait(self: &Rc<Self>, facts: Facts, ask: Arc<Ask>) -> Waiting {
        let mail = Arc::new(Mail::new());
        let ticket = Rc::new(Ticket::default());
        let far = FarAsk { ask, facts, mail: mail.clone() };
        let key = ticket.clone();
        let request = self.dispatcher.borrow_mut().wait(facts, far, key, clock::now(), &mut Hands(self));
        Waiting { core: self.clone(), request, ticket, mail, portable: None, is_over: false }
    }

    /// The generation of this process that has taken over, and serves what waits here; also while both drain.
    fn successor(&self) -> Option<Arc<Shared>> {
        let is_here = |leave: &Leave| leave.successor == Successor::Generation;
        if !self.leave.is_set() || !self.shared.leave.get().is_some_and(is_here) {
            return None;
        }
        self.shared.lineage.present().filter(|next| next.generation > self.shared.generation)
    }

    pub fn has_successor(&self) -> bool {
        self.successor().is_some()
    }

    /// The request waits in the generation that has taken over, if that has its pool, too.
    pub fn send_away(self: &Rc<Self>, facts: Facts, ask: Arc<Ask>) -> Option<Away> {
        let next = self.successor()?;
        let pool = next.pool_like(&self.shared.config.pools[usize::from(facts.pool.0)].name)?;
        let (away, adopted) = Away::send(self, ask, facts, pool);
        let post = &next.posts[usize::from(self.id.0) % next.posts.len()];
        post.send(Message::Adopted(Box::new(adopted))).ok()?;
        Some(away)
    }

    /// The generation that has taken over has this pool, too.
    pub fn may_send_away(&self, pool: PoolId) -> bool {
        let name = &self.shared.config.pools[usize::from(pool.0)].name;
        self.successor().is_some_and(|next| next.pool_like(name).is_some())
    }

    /// One that waits here for a client of another generation: this one does not end before.
    pub fn guest(self: &Rc<Self>) -> Visit {
        self.guests.set(self.guests.get() + 1);
        Visit(self.clone())
    }

    /// A place for one more connection to the admin address.
    pub fn admin(self: &Rc<Self>) -> Option<AdminPlace> {
        if self.admins.get() >= ADMIN_CONNECTIONS_MAX {
            return None;
        }
        self.admins.set(self.admins.get() + 1);
        Some(AdminPlace(self.clone()))
    }

    /// Somebody is connected to the admin address.
    pub fn has_admins(&self) -> bool {
        self.admins.get() > 0
    }

    /// Nobody here has a client.
    pub fn is_idle(&self) -> bool {
        self.connections.get() == 0 && self.guests.get() == 0
    }

    /// Some connection of a client carries links.
    pub fn has_carriers(&self) -> bool {
        self.carriers.get() > 0
    }

    /// Room beside a full queue, for a request that may be served at once.
    pub fn unbooked(self: &Rc<Self>) -> Option<Unbooked> {
        if self.unbooked.get() >= UNBOOKED_REQUESTS_MAX {
            return None;
        }
        self.unbooked.set(self.unbooked.get() + 1);
        Some(Unbooked(self.clone()))
    }

    /// A request for the pool would not wait for long.
    #[must_use]
    pub fn is_idle_somewhere(&self, pool: PoolId, needs: Needs) -> bool {
        self.dispatcher.borrow().is_idle_somewhere(pool, needs)
    }

    /// Another core asks for help with what waits there. `was_asleep`: this core had to be woken for it.
    pub fn look(self: &Rc<Self>, was_asleep: bool) {
        self.was_asleep.set(was_asleep);
        self.dispatcher.borrow_mut().look(clock::now(), &mut Hands(self));
        self.was_asleep.set(false);
    }

    /// Waiting makes requests more urgent, where the pool wants it so.
    pub fn age(self: &Rc<Self>) {
        self.dispatcher.borrow_mut().age(clock::now(), &mut Hands(self));
    }

    /// How long a request of the pool waits with so many ahead of it, should all links be busy; `None`: nobody knows.
    #[must_use]
    pub fn wait_ns(&self, pool: PoolId, ahead: u64) -> Option<u64> {
        let concurrency_max = self.shared.config.pools[usize::from(pool.0)].concurrency_max;
        self.shared.flows[usize::from(pool.0)].wait_ns(ahead, u64::from(concurrency_max))
    }

    /// Others may know what this core's links do.
    pub fn tell_rates(&self) {
        let (dispatcher, counters) = (self.dispatcher.borrow(), self.counters.borrow());
        self.rates.borrow_mut().look(dispatcher.sched(), &counters, &self.shared.flows, clock::now());
    }

    /// A request goes to its link now.
    pub fn count_dispatch(&self, credit: &Credit, facts: &Facts, kind: Dispatch, now: Now) {
        let mut counters = self.counters.borrow_mut();
        let pool = &mut counters.pools[usize::from(facts.pool.0)];
        pool.dispatches.one(kind);
        let class = facts.class;
        let Some(ready_since) = credit.ready_since else { return pool.queue_wait.at_once(class) };
        pool.inversions += u64::from(credit.is_inversion);
        let handoff_ns = now.ns_since(ready_since);
        pool.queue_wait.observe_ns(class, now.ns_since(facts.stamp));
        pool.handoff.observe_ns(class, kind, handoff_ns);
        pool.idle_while_queued.0 += handoff_ns;
    }

    fn credit(self: &Rc<Self>, grant: Grant) -> Credit {
        let Grant { link, pool, permit, is_inversion, ready_since, class } = grant;
        Credit { core: self.clone(), link, ready_since, is_inversion, class, pool, permit }
    }

    /// The pool has no link any more: what waits for one looks whether it may go on waiting.
    pub fn no_links(&self, pool: PoolId) {
        for ticket in self.dispatcher.borrow().waiting_in(pool) {
            ticket.wake();
        }
    }

    // ---- links ----

    /// How to send over a link, and what is to hear of its answers; `None` when it went away in the meantime.
    pub fn line(&self, link: LinkId) -> Option<(Line, Rc<Silence>)> {
        let links = self.links.borrow();
        let entry = links.get(&link)?;
        Some((entry.line.clone()?, entry.silence.clone()))
    }

    /// Whose link the credit is for, for a line of the access log.
    pub fn grantor(&self, credit: &Credit, kind: Dispatch) -> Grantor {
        let link = self.links.borrow().get(&credit.link).map(|entry| entry.name.clone());
        Grantor { link, kind, class: credit.class }
    }

    /// A link begins its life here, without credits.
    pub fn link_up(self: &Rc<Self>, about: LinkAbout, carries_upgrades: bool, line: Line, ends: Rc<Latch>) -> LinkId {
        let facts = LinkFacts { pools: about.pools.clone(), carries_upgrades };
        let link = self.dispatcher.borrow_mut().link_up(facts, &mut Hands(self));
        let name = Arc::new(LinkName {
            generation: self.shared.generation,
            core: self.id,
            link,
            worker: about.worker.clone(),
            worker_id: about.said.id.clone().unwrap_or_default(),
        });
        let (credential, id, from) = (about.worker.clone(), about.said.id.clone(), about.address.ip());
        let in_roll = self.shared.roll.enter(Whose { credential, id, from });
        let pools = about.pools.iter().map(|pool| &self.shared.config.pools[usize::from(pool.0)]);
        let patience_ms = pools.map(|pool| pool.response_head_ms_max).max().unwrap_or_default();
        let silence = Rc::new(Silence::new(patience_ms));
        let entry = LinkEntry { line: Some(line), silence, about, name, ends, told: None, rests: false, in_roll };
        self.links.borrow_mut().insert(link, entry);
        self.counters.borrow_mut().core.setups += 1;
        link
    }

    /// The worker said how many requests it takes at once.
    pub fn link_credits(self: &Rc<Self>, link: LinkId, streams_max: u32, carries_upgrades: bool) {
        let mut dispatcher = self.dispatcher.borrow_mut();
        dispatcher.link_credits(link, streams_max, carries_upgrades, clock::now(), &mut Hands(self));
    }

    /// The link's worker has taken requests and answered none of them for as long as a pool of its waits: it comes last.
    #[cold]
    pub fn link_mute(self: &Rc<Self>, link: LinkId) {
        self.dispatcher.borrow_mut().link_mute(link);
        self.counters.borrow_mut().core.links_mute += 1;
        self.tell_of(link, |worker, id, address| {
            tracing::warn!(worker, id, %address, "a worker answers nothing: what waits goes to its link last, one at a time");
        });
        let Some((_, silence)) = self.line(link) else { return };
        let core = self.clone();
        io::spawn(async move {
            loop {
                io::sleep_ms(MUTE_LOOK_MS).await;
                let Some(rests) = core.rests(link) else { return };
                let may_try = silence.is_free() && !rests;
                let is_mute = silence.is_mute();
                if !is_mute
                    || may_try && !core.dispatcher.borrow_mut().link_trial(link, clock::now(), &mut Hands(&core))
                {
                    return;
                }
            }
        });
    }

    /// It has no credit, whether its worker answers or not. `None`: it is gone.
    fn rests(&self, link: LinkId) -> Option<bool> {
        self.links.borrow().get(&link).map(|entry| entry.rests)
    }

    /// The worker of a mute link has answered. One that rests does so on: it has its credits when it does not any more.
    #[cold]
    pub fn link_answers(self: &Rc<Self>, link: LinkId) {
        if self.rests(link) == Some(false) {
            self.dispatcher.borrow_mut().link_answers(link, clock::now(), &mut Hands(self));
        }
        self.tell_of(link, |worker, id, address| tracing::info!(worker, id, %address, "a worker answers again"));
    }

    fn tell_of(&self, link: LinkId, tell: impl FnOnce(&str, &str, SocketAddr)) {
        if let Some(LinkEntry { about, .. }) = self.links.borrow().get(&link) {
            tell(&about.worker, about.said.id.as_deref().unwrap_or_default(), about.address);
        }
    }

    /// Nothing new may be sent over this link; what runs goes on. Safe to repeat.
    pub fn link_drains(self: &Rc<Self>, link: LinkId) {
        self.dispatcher.borrow_mut().link_drains(link, &mut Hands(self));
        if let Some(entry) = self.links.borrow_mut().get_mut(&link) {
            entry.line = None;
        }
    }

    /// The link is gone.
    pub fn link_down(self: &Rc<Self>, link: LinkId) {
        self.dispatcher.borrow_mut().link_down(link, &mut Hands(self));
        self.links.borrow_mut().remove(&link);
    }

    /// While the generation leaves: which links still come first for requests that its clients may send. One of each pool,
    /// on the lowest core that has links of it.
    ///
    /// None where another generation of this process has taken over: requests wait there.
    pub fn keepers(&self) -> Keepers {
        let (links, dispatcher) = (self.links.borrow(), self.dispatcher.borrow());
        let mut keepers = Keepers::default();
        if self.shared.leave.get().is_none() || self.has_successor() {
            return keepers;
        }
        for pool in (0..self.shared.config.pools.len()).map(|pool| PoolId(pool as u16)) {
            let mut cores = self.shared.dispatch.board.linked_cores(pool);
            if cores.next() != Some(self.id) {
                continue;
            }
            let of_pool =
                || links.iter().filter(|(_, entry)| entry.line.is_some() && entry.about.pools.contains(&pool));
            // One that answers nothing serves none of them, and one whose credits are taken none for as long as they are, which may
            // be hours; one over HTTP/2 serves more.
            let is_full = |id| !matches!(dispatcher.sched().offer_of(id, pool, Needs::Any), LinkOffer::Credits(_));
            let best = of_pool().min_by_key(|&(&id, entry)| {
                (entry.silence.is_mute(), is_full(id), matches!(entry.line, Some(Line::H1(_))), id.0)
            });
            let Some((&id, _)) = best else { continue };
            let is_only = cores.next().is_none() && of_pool().count() == 1;
            let keeper = keepers.0.entry(id).or_default();
            keeper.is_only |= is_only;
            keeper.pools.push(pool);
        }
        keepers
    }

    /// Of those that are to stay, some may have gone, or serve nobody now: their workers answer nothing, or take nothing.
    fn look_at_keepers(&self, keepers: &mut Keepers) {
        let (Some(leave), links) = (self.shared.leave.get(), self.links.borrow()) else { return };
        let dispatcher = self.dispatcher.borrow();
        let sched = dispatcher.sched();
        keepers.0.retain(|&id, keeper| {
            let entry = links.get(&id).filter(|entry| entry.line.is_some());
            let takes = sched.credits(id) > 0 || sched.in_flight(id) > 0;
            let serves = takes && entry.is_some_and(|entry| !entry.silence.is_mute());
            match (std::mem::replace(&mut keeper.serves, serves), serves) {
                (false, true) => keeper.pools.iter().for_each(|pool| leave.keeps(*pool)),
                (true, false) => keeper.pools.iter().for_each(|pool| leave.loses(*pool)),
                (true, true) | (false, false) => {}
            }
            entry.is_some()
        });
    }

    /// While the generation leaves: links are told to, one of each pool last. Called again and again. A worker may take that
    /// for the end of its link as soon as it is idle, so nothing is built on one that was told; but it stays open until its
    /// worker has another, as far as that is known here, and `until` at most. Where requests have nowhere else to go, to another
    /// process, it takes them while its pool has no other.
    pub fn send_links_away(self: &Rc<Self>, keepers: &mut Keepers, until: Now) {
        self.look_at_keepers(keepers);
        let (now, next) = (clock::now(), self.successor());
        let parting =
            |(id, entry): (&LinkId, &LinkEntry)| (*id, self.parting(*id, entry, keepers, next.as_deref(), now, until));
        let all: Vec<(LinkId, Parting)> = self.links.borrow().iter().map(parting).collect();
        for (id, parting) in all {
            let ends = match self.links.borrow_mut().get_mut(&id) {
                Some(entry) if parting != Parting::Stays => {
                    entry.told.get_or_insert(now);
                    entry.ends.clone()
                }
                _ => continue,
            };
            if parting == Parting::Ends {
                ends.set();
                continue;
            }
            ends.announce();
            let goes_nowhere = self.shared.leave.get().is_some_and(|leave| leave.successor == Successor::Process);
            match parting {
                Parting::Retired if goes_nowhere => self.link_rests(id),
                Parting::Retired => self.link_drains(id),
                _ => self.link_wakes(id, now),
            }
        }
    }

    /// It comes behind all others of its pools, as one that answers nothing would. Safe to repeat.
    fn link_rests(&self, link: LinkId) {
        if let Some(entry) = self.links.borrow_mut().get_mut(&link) {
            entry.rests = true;
            self.dispatcher.borrow_mut().link_mute(link);
        }
    }

    /// There are no others.
    fn link_wakes(self: &Rc<Self>, link: LinkId, now: Now) {
        let wakes = self
            .links
            .borrow_mut()
            .get_mut(&link)
            .is_some_and(|entry| std::mem::take(&mut entry.rests) && !entry.silence.is_mute());
        if wakes {
            self.dispatcher.borrow_mut().link_answers(link, now, &mut Hands(self));
        }
    }

    fn parting(
        &self,
        id: LinkId,
        entry: &LinkEntry,
        keepers: &Keepers,
        next: Option<&Shared>,
        now: Now,
        until: Now,
    ) -> Parting {
        // Of this generation's own requests; a pool's books are those of all.
        let all = Class::COUNT - 1;
        let has_kept = |pool| self.shared.leave.get().is_some_and(|leave| leave.has_kept(pool));
        let is_wanted = entry
            .about
            .pools
            .iter()
            .any(|&pool| self.shared.dispatch.shelf.waits(pool, all, true) && !(entry.rests && has_kept(pool)));
        let keeps = keepers.0.get(&id).map(|keeper| keeper.is_only);
        let gone = self.clients_gone.is_set();
        match keeps {
            None => {}
            // Its pool's other links have gone where clients are served now: this one can stay to the end.
            Some(false) if !gone => return Parting::Stays,
            Some(true) if !self.drain.is_set() => return Parting::Stays,
            Some(_) => {}
        }
        if matches!(entry.line, Some(Line::H1(_))) {
            // Nothing can be said on it: its end is all that its worker hears.
            return if is_wanted { Parting::Told } else { Parting::Ends };
        }
        if entry.line.is_some() && (is_wanted || (keeps.is_some() && !gone)) {
            return Parting::Told;
        }
        let Some(told) = entry.told else { return Parting::Retired };
        let is_over = now >= until || self.links_drain.is_set();
        let whose = &entry.in_roll.whose;
        let has_come = match next {
            Some(next) => {
                let had = self.shared.leave.get().and_then(|leave| leave.had.get(whose)).copied().unwrap_or(0);
                next.roll.count(whose) >= had || self.is_missed(next, &entry.about.pools, now.ms_since(told))
            }
            // What waits there for this worker, nobody here knows.
            None => now >= told.plus_ms(LINK_UNHEARD_MS),
        };
        if is_over || has_come { Parting::Ends } else { Parting::Retired }
    }

    /// Requests wait for a worker in the next generation, and this one seems not to have heard that it is to come.
    fn is_missed(&self, next: &Shared, pools: &[PoolId], told_ms: u64) -> bool {
        pools.iter().filter_map(|pool| next.pool_like(&self.shared.config.pools[usize::from(pool.0)].name)).any(
            |pool| {
                let has_links = next.dispatch.board.any_links(pool);
                let patience_ms = if has_links { LINK_UNHEARD_MS } else { LINK_WANTED_MS };
                told_ms >= patience_ms && next.books[usize::from(pool.0)].requests() > 0
            },
        )
    }

    #[must_use]
    pub fn links_len(&self) -> usize {
        self.links.borrow().len()
    }

    // ---- the core itself ----

    /// This core has so many listeners.
    pub fn listens(&self, listeners: usize) {
        self.listening.set(listeners);
    }

    /// Some connection may still come.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.get() > 0
    }

    /// It has one less.
    pub fn stops_listening(&self) {
        self.listening.set(self.listening.get() - 1);
        self.tell_left();
    }

    /// Whoever takes over wants to know when the last listener has been left.
    fn tell_left(&self) {
        if self.listening.get() == 0
            && let Some(leave) = self.shared.leave.get()
        {
            let _ = leave.left.send(self.id); // nobody waits for long
        }
    }

    /// Another generation has taken over.
    pub fn takes_leave(&self) {
        self.tell_left();
        self.drain.announce();
        self.admin_drain.announce();
        self.leave.set();
        self.admin_leaves.set();
    }

    /// A core has no client left; links drain after the last one.
    pub fn core_is_idle(&self) {
        self.idle_cores.set(self.idle_cores.get() + 1);
        if self.idle_cores.get() >= self.shared.posts.len() {
            self.clients_gone.set();
            if self.is_last.get() || self.shared.leave.get().is_none() {
                self.links_drain.set();
            }
        }
    }

    /// Stop taking new work, finish what runs, end.
    pub fn drains(&self) {
        self.is_last.set(true);
        if self.clients_gone.is_set() {
            self.links_drain.set();
        }
        self.leave.set();
        self.open.set();
        self.drain.set();
    }

    /// Something waits in vain unless workers come that have been told to.
    pub fn workers_are_wanted(&self) -> bool {
        let shared = &self.shared;
        let is_wanted = |(pool, books): (u16, &Arc<PoolBooks>)| {
            books.requests() > 0 && !shared.dispatch.board.any_links(PoolId(pool))
        };
        self.open.is_set() && !self.leave.is_set() && shared.awaits_workers() && (0..).zip(&shared.books).any(is_wanted)
    }

    /// What this core's pools and links are at this moment, in numbers alone.
    pub fn moment(&self) -> (Vec<PoolNow>, Vec<LinkNow>) {
        let dispatcher = self.dispatcher.borrow();
        let sched = dispatcher.sched();
        let ids = (0..self.shared.config.pools.len()).map(|pool| PoolId(pool as u16));
        let mut pools: Vec<PoolNow> =
            ids.map(|pool| PoolNow { queued: sched.waiting_by_class(pool), ..PoolNow::default() }).collect();
        let mut parts = Vec::new();
        for (&link, entry) in self.links.borrow().iter() {
            let credits = sched.credits(link);
            for pool in &entry.about.pools {
                let now = &mut pools[usize::from(pool.0)];
                now.links += 1;
                now.credits += credits;
                now.in_flight += sched.in_flight_of(link, *pool);
            }
            parts.push(LinkNow { link, in_flight: sched.in_flight(link), ended: sched.ended(link) });
        }
        (pools, parts)
    }

    /// What would become of a request that this core read now, as far as it is this core's.
    pub fn chance_of(&self, facts: Facts) -> Chance {
        let dispatcher = self.dispatcher.borrow();
        let sched = dispatcher.sched();
        let links = self.links.borrow();
        let offers = links.iter().filter(|(_, entry)| entry.about.pools.contains(&facts.pool)).map(|(&id, entry)| {
            let part = link_part(id, entry, sched);
            (sched.offer_of(id, facts.pool, facts.needs), part)
        });
        Chance {
            has_credit: dispatcher.would_offer(facts),
            queued: sched.waiting_by_class(facts.pool),
            offers: offers.collect(),
        }
    }

    /// What this core holds now.
    pub fn report(&self) -> CorePart {
        let dispatcher = self.dispatcher.borrow();
        let sched = dispatcher.sched();
        let links = self.links.borrow();
        let mut pools = vec![PoolPart::default(); self.shared.config.pools.len()];
        let mut parts = Vec::with_capacity(links.len());
        for (&id, entry) in links.iter() {
            let link = link_part(id, entry, sched);
            for pool in &entry.about.pools {
                let part = &mut pools[usize::from(pool.0)];
                part.links += 1;
                part.credits += link.credits;
                part.in_flight += u64::from(sched.in_flight_of(id, *pool));
            }
            parts.push(link);
        }
        for (pool, part) in (0..).map(PoolId).zip(&mut pools) {
            part.queued_by_class = sched.waiting_by_class(pool).map(|waiting| waiting as u64);
        }
        // What waits is counted once for all cores; one of them tells it.
        if self.id == CoreId(0) {
            // Books that a generation after this one has, too, are told there.
            let later = self.shared.lineage.later(self.shared.generation);
            let is_told = |books: &Arc<PoolBooks>| {
                later.iter().any(|later| later.books.iter().any(|theirs| Arc::ptr_eq(theirs, books)))
            };
            for (pool, part) in (0..).map(PoolId).zip(&mut pools) {
                let at = usize::from(pool.0);
                let (books, flow) = (&self.shared.books[at], &self.shared.flows[at]);
                if is_told(books) {
                    continue;
                }
                part.queued = books.requests() as u64;
                part.queued_bytes = books.bytes() as u64;
                part.service_ns = flow.service_ns();
                part.wait_ns = self.wait_ns(pool, flow.ahead_of(Class::of(u8::MAX))).unwrap_or_default();
            }
        }
        let lineage = &self.shared.lineage;
        let mut counters = self.counters.borrow().clone();
        counters.core.connection_panics = crate::io::panics();
        counters.core.accept_backoffs = crate::io::accept_backoffs();
        CorePart {
            generation: self.shared.generation,
            core: self.id,
            cpu: self.cpu.and_then(|cpu| u16::try_from(cpu).ok()),
            connections: self.connections.get() as u64,
            busy_ns: clock::thread_cpu_ns(),
            lag: crate::io::lag(),
            process: (self.id == CoreId(0)).then(|| ProcessReport::look(lineage.started, &lineage.descriptors)),
            certificates: if self.id == CoreId(0) { self.shared.certificates() } else { Vec::new() },
            counters,
            pools,
            links: parts,
        }
    }
}

fn link_part(id: LinkId, entry: &LinkEntry, sched: &Sched<Own<FarAsk, Rc<Ticket>>>) -> LinkPart {
    LinkPart {
        id,
        worker: entry.about.worker.clone(),
        said: entry.about.said.clone(),
        address: entry.about.address,
        protocol: entry.about.protocol,
        pools: entry.about.pools.clone(),
        credits: u64::from(sched.credits(id)),
        in_flight: u64::from(sched.in_flight(id)),
        since_unix: entry.about.since_unix,
        is_mute: entry.silence.is_mute(),
        silent_seconds: entry.silence.ns(clock::now()) / 1_000_000_000,
    }
}

/// For names that nobody has to guess: without random bytes the clock has to do.
fn random_keys(id: CoreId) -> [u64; 2] {
    let mut keys = [[0; 8]; 2];
    let _ = keys.iter_mut().try_for_each(|key| getrandom::fill(key));
    keys.map(|key| u64::from_ne_bytes(key) ^ clock::now().0 ^ u64::from(id.0))
}

/// What the dispatcher has this core do.
struct Hands<'a>(&'a Rc<Core>);

impl Host<FarAsk, Rc<Ticket>> for Hands<'_> {
    fn granted(&mut self, granted: Granted<FarAsk, Rc<Ticket>>) {
        let core = self.0;
        match granted {
            Granted::Own { key, grant } => {
                key.given.set(Some(grant));
                key.wake();
            }
            Granted::Foreign { parcel, grant } => {
                let kind = if core.was_asleep.get() { Dispatch::CrossAsleep } else { Dispatch::CrossAwake };
                io::spawn(serve_foreign(parcel, core.credit(grant), kind));
            }
        }
    }

    fn ring(&mut self, core: CoreId) {
        self.0.shared.posts[usize::from(core.0)].look();
    }

    fn last_link_left(&mut self, pool: PoolId) {
        for post in &self.0.shared.posts {
            // Lost where the box is full: whoever waits looks for itself once in a while.
            let _ = post.send(Message::NoLinks(pool));
        }
    }
}

async fn serve_foreign(parcel: Arc<Parcel<FarAsk>>, credit: Credit, kind: Dispatch) {
    let core = credit.core.clone();
    far::serve_far(&core, &parcel.what, credit, kind).await;
}

impl Ticket {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Waiting {
    /// Ready when some core's credit is the request's.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Got> {
        if let Some(grant) = self.ticket.given.take() {
            self.is_over = true;
            return Poll::Ready(Got::Here(self.core.credit(grant)));
        }
        if let Poll::Ready(ends) = self.mail.poll_take(cx, &self.core.home, &mut self.portable) {
            self.is_over = true;
            self.core.dispatcher.borrow_mut().taken(self.request, &mut Hands(&self.core));
            return Poll::Ready(Got::There(FarBack::new(ends, &self.core)));
        }
        self.ticket.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Given but not taken: whoever waited has left, and the next one gets it.
        if let Some(grant) = self.ticket.given.take() {
            drop(self.core.credit(grant));
        } else if !self.core.dispatcher.borrow_mut().cancel(self.request, &mut Hands(&self.core)) {
            self.mail.leave();
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let (core, permit) = (&self.core, self.permit.take());
        core.dispatcher.borrow_mut().release(self.link, self.pool, permit, clock::now, &mut Hands(core));
    }
}

/// One of [`Core::guest`], until it is dropped.
pub struct Visit(Rc<Core>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get() - 1);
    }
}

/// One of [`Core::admin`], until it is dropped.
pub struct AdminPlace(Rc<Core>);

impl Drop for AdminPlace {
    fn drop(&mut self) {
        self.0.admins.set(self.0.admins.get() - 1);
    }
}

/// One of [`Core::unbooked`], until it is dropped.
pub struct Unbooked(Rc<Core>);

impl Drop for Unbooked {
    fn drop(&mut self) {
        self.0.unbooked.set(self.0.unbooked.get() - 1);
    }
}

/// A connection's count in its core's own number, for which a drain waits, and in that of all cores, which has bounds; given
/// back when it ends.
pub struct Counted {
    core: Rc<Core>,
    guest: Guest,
    /// Streams of it that are links: they end after the last client, so no drain waits for a connection that has nothing
    /// beside them. In the bounds it stays what it was, a connection that anybody could open.
    links: u32,
    /// Requests beside links: each is waited for as any other.
    beside: usize,
}

/// A stream's link in the count of its connection, until it is dropped.
pub struct CarriesLink<'a>(&'a Cell<Option<Counted>>);

impl CarriesLink<'_> {
    /// A connection that is over counts nowhere.
    pub fn new(counted: &Cell<Option<Counted>>) -> CarriesLink<'_> {
        Counted::change(counted, |counted| counted.links += 1);
        CarriesLink(counted)
    }
}

impl Drop for CarriesLink<'_> {
    fn drop(&mut self) {
        Counted::change(self.0, |counted| counted.links -= 1);
    }
}

impl Counted {
    pub fn connection(core: &Rc<Core>) -> Counted {
        let own = Counted { core: core.clone(), guest: core.shared.crowd.enter(), links: 0, beside: 0 };
        own.counts(true);
        own
    }

    /// Of a connection that is over nothing changes.
    pub fn change(counted: &Cell<Option<Counted>>, change: impl FnOnce(&mut Counted)) {
        let Some(mut own) = counted.take() else { return };
        own.counts(false);
        change(&mut own);
        own.counts(true);
        counted.set(Some(own));
    }

    fn counts(&self, counts: bool) {
        let change = |number: &Cell<usize>| number.set(if counts { number.get() + 1 } else { number.get() - 1 });
        if self.is_waited_for() {
            change(&self.core.connections);
        }
        if self.links > 0 {
            change(&self.core.carriers);
        }
    }

    /// So many requests are under way on it beside its links.
    pub fn serves_beside(&mut self, requests: usize) {
        self.beside = requests;
    }

    fn is_waited_for(&self) -> bool {
        self.links == 0 || self.beside > 0
    }

    /// It is known now whose connection this is. False: that one has its share, and the connection is to be closed.
    #[must_use]
    pub fn comes_from(&mut self, address: IpAddr) -> bool {
        let max = self.core.shared.config.limits.connections_per_source_max;
        let Some(source) = self.core.shared.source_of(address).filter(|_| max > 0) else { return true };
        let enters = self.guest.comes_from(source, max);
        if !enters {
            self.core.counters.borrow_mut().core.connections_refused.one(ConnectionRefusal::PerSource);
        }
        enters
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts(false);
    }
}
