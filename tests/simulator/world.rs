//! Cores side by side in one thread, a virtual clock, and what happens next. Which of the things that are due at the same
//! moment comes first is drawn from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ptth::clock::Now;
use ptth::dispatch::{Dispatcher, PoolRules, Shared};
use ptth::ids::{CoreId, LinkId, PoolId, RequestId};
use ptth::limits::WINDOW_REQUESTS;
use ptth::sched::{Books, Facts, LinkFacts, Needs};
use ptth::xcore::Kind;

use super::chance::Chance;
use super::ledger::{Counts, End, Ledger, Link, Message, Name, Request, State};

/// How the cores of a simulation hear of each other, and how long services take.
pub struct Pace {
    /// Nanoseconds from a ring, or from a word of what was taken, to when it is heard. `None`: before anything else.
    pub message_ns: Option<(u64, u64)>,
    pub service_ns: fn(&mut Chance) -> u64,
    /// One service in so many is refused, and the request comes back. 0: none.
    pub refused_one_in: usize,
    /// How often a core looks at what waits long. 0: never.
    pub age_look_ns: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A request reaches its home, for the first time or again.
    Arrives(Name),
    /// Its client leaves.
    Leaves(Name),
    /// Its service on a link is over; void unless `turn` is the request's.
    Ends {
        name: Name,
        turn: u32,
        how: How,
    },
    /// Another core asks this one to look for work.
    Look,
    /// Another core has taken a request of this one.
    Taken(RequestId),
    LinkUp {
        link: usize,
        streams_max: u32,
        carries_upgrades: bool,
    },
    LinkCredits {
        link: usize,
        streams_max: u32,
        carries_upgrades: bool,
    },
    LinkDrains(usize),
    LinkDown(usize),
    Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Answered,
    /// It comes back with its old stamp.
    Returned,
    GivenUp,
}

pub struct World {
    pub ledger: Ledger,
    pub chance: Chance,
    pub pace: Pace,
    pub shared: Arc<Shared<Name>>,
    /// Service times that are not left to chance, by request.
    pub services_ns: Vec<u64>,
    /// Calm: nothing is refused any more.
    pub is_calm: bool,
    /// How often a credit was idle and no core was asked to look: moments at which a lost wakeup would have shown.
    pub idle_looks: u64,
    cores: Vec<Dispatcher<Name, Name>>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    /// Until when a core does nothing, by core.
    busy_until_ns: Vec<u64>,
    /// A core that was asked to look, and has not yet: asking once more changes nothing.
    is_asked: Vec<bool>,
    events_left: usize,
}

/// More than any simulation here needs.
const EVENTS_MAX: usize = 300_000;

impl World {
    pub fn new(cores: usize, rules: Vec<PoolRules>, pace: Pace, chance: Chance, is_traced: bool) -> World {
        let shared = Arc::new(Shared::new(rules.clone(), cores));
        let is_strict = pace.message_ns.is_none();
        let mut world = World {
            ledger: Ledger::new(cores, rules, is_strict, is_traced),
            chance,
            pace,
            cores: (0..cores).map(|core| Dispatcher::new(core_id(core), shared.clone())).collect(),
            shared,
            services_ns: Vec::new(),
            is_calm: false,
            idle_looks: 0,
            events: BTreeMap::new(),
            busy_until_ns: vec![0; cores],
            is_asked: vec![false; cores],
            events_left: EVENTS_MAX,
        };
        if world.pace.age_look_ns > 0 {
            (0..cores).for_each(|core| world.age_later(core));
        }
        world
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Requests of a pool that wait, over all cores, as the cores see it.
    pub fn waiting(&self, pool: PoolId) -> usize {
        self.cores.iter().map(|core| core.sched().waiting(pool)).sum()
    }

    pub fn now(&self) -> Now {
        self.ledger.now
    }

    // ---- what is to happen ----

    pub fn at(&mut self, at: Now, core: usize, event: Event) {
        let mut tie = self.chance.next();
        while self.events.contains_key(&(at.0, tie)) {
            tie = self.chance.next();
        }
        self.events.insert((at.0, tie), (core, event));
    }

    pub fn after(&mut self, ns: u64, core: usize, event: Event) {
        self.at(Now(self.now().0 + ns), core, event);
    }

    /// A request that will arrive at a core; its arrival is its stamp.
    pub fn request(&mut self, at: Now, home: usize, facts: Facts) -> Name {
        let request = Request {
            home,
            facts: Facts { stamp: at, ..facts },
            class: facts.class,
            state: State::Away,
            number: None,
            turn: 0,
            first_wait_ns: None,
            place: 0,
        };
        let name = self.ledger.requests.len();
        self.ledger.requests.push(request);
        self.at(at, home, Event::Arrives(name));
        name
    }

    /// A link that will come up at a core, and say what it takes.
    pub fn link(&mut self, core: usize, pools: Vec<PoolId>, streams_max: u32, carries_upgrades: bool) -> usize {
        let link = self.ledger.links.len();
        self.ledger.links.push(Link {
            core,
            id: None,
            pools,
            carries_upgrades: false,
            streams_max: 0,
            takes_more: true,
            is_gone: false,
            in_flight: vec![0; self.ledger.rules.len()],
        });
        self.after(0, core, Event::LinkUp { link, streams_max, carries_upgrades });
        link
    }

    /// A core does nothing for a while; what is for it waits.
    pub fn stall(&mut self, core: usize, ns: u64) {
        self.busy_until_ns[core] = self.now().0 + ns;
    }

    // ---- what happens ----

    /// Everything that is due until a moment; false when nothing was left to happen.
    pub fn run_until(&mut self, until: Now) -> bool {
        while let Some((&(at, tie), _)) = self.events.first_key_value() {
            if at > until.0 {
                self.ledger.now = until;
                return true;
            }
            let (core, event) = self.events.remove(&(at, tie)).expect("the first one");
            self.ledger.now = Now(at);
            if self.busy_until_ns[core] > at {
                self.at(Now(self.busy_until_ns[core]), core, event);
                continue;
            }
            self.happens(core, event);
            self.check_core(core);
            self.check_over_all();
        }
        false
    }

    fn happens(&mut self, core: usize, event: Event) {
        self.events_left -= 1;
        assert!(self.events_left > 0, "this goes on for ever");
        self.ledger.here = core;
        self.ledger.say(|| format!("{event:?}"));
        match event {
            Event::Arrives(name) => self.arrives(name),
            Event::Leaves(name) => self.leaves(name),
            Event::Ends { name, turn, how } => self.ends(name, turn, how),
            Event::Look => self.look(core),
            Event::Taken(number) => self.taken(core, number),
            Event::LinkUp { link, streams_max, carries_upgrades } => {
                let Link { pools, .. } = &self.ledger.links[link];
                let facts = LinkFacts { pools: pools.clone(), carries_upgrades: false };
                let id = self.cores[core].link_up(facts, &mut self.ledger);
                self.ledger.links[link].id = Some(id);
                self.after(1, core, Event::LinkCredits { link, streams_max, carries_upgrades });
            }
            Event::LinkCredits { link, streams_max, carries_upgrades } => {
                let entry = &mut self.ledger.links[link];
                let Some(id) = entry.id else { return };
                (entry.streams_max, entry.carries_upgrades) = (streams_max, carries_upgrades);
                let now = self.now();
                self.cores[core].link_credits(id, streams_max, carries_upgrades, now, &mut self.ledger);
            }
            Event::LinkDrains(link) => {
                let Some(id) = self.ledger.links[link].id else { return };
                let want = self.ledger.link_leaves(link);
                self.cores[core].link_drains(id, &mut self.ledger);
                assert_eq!(std::mem::take(&mut self.ledger.last_links), want, "pools whose last link has gone");
            }
            Event::LinkDown(link) => self.link_down(core, link),
            Event::Age => {
                self.ledger.age();
                let now = self.now();
                self.cores[core].age(now, &mut self.ledger);
                if !self.is_calm || !self.ledger.waiting.is_empty() {
                    self.age_later(core);
                }
            }
        }
        self.deliver();
    }

    fn arrives(&mut self, name: Name) {
        let request = &mut self.ledger.requests[name];
        if !matches!(request.state, State::Away) {
            return; // its client gave up on the way
        }
        let (home, facts) = (request.home, request.facts);
        request.class = facts.class;
        if let Some(grant) = self.cores[home].offer(facts) {
            return self.ledger.begin(name, grant, false);
        }
        self.ledger.waits(name);
        let now = self.now();
        let number = self.cores[home].wait(facts, name, name, now, &mut self.ledger);
        let request = &mut self.ledger.requests[name];
        if matches!(request.state, State::Waits) {
            request.number = Some(number);
        }
    }

    fn leaves(&mut self, name: Name) {
        let Request { home, number, turn, .. } = self.ledger.requests[name];
        match self.ledger.requests[name].state {
            State::Over(_) => (),
            State::Away => self.ledger.requests[name].state = State::Over(End::GivenUp),
            State::Waits => {
                let number = number.expect("it waits");
                // From here on nobody may have it, whatever the call does.
                self.ledger.requests[name].state = State::Over(End::Cancelled);
                self.ledger.waits_no_more(name);
                self.ledger.counts[home].cancelled += 1;
                assert!(self.cores[home].cancel(number, &mut self.ledger), "nobody has taken request {name}");
                assert!(!self.cores[home].cancel(number, &mut self.ledger), "it is over");
            }
            State::Served { link, .. } => {
                if let Some(number) = number {
                    // Its home may not have heard that it was taken; it does now.
                    self.ledger.heard(home, number);
                    let is_cancelled = self.cores[home].cancel(number, &mut self.ledger);
                    assert!(!is_cancelled, "request {name} is with a link");
                }
                let (core, how) = (self.ledger.links[link].core, How::GivenUp);
                self.after(1, core, Event::Ends { name, turn, how });
            }
        }
    }

    fn ends(&mut self, name: Name, turn: u32, how: How) {
        let request = &mut self.ledger.requests[name];
        if request.turn != turn || !matches!(request.state, State::Served { .. }) {
            return;
        }
        let (home, pool) = (request.home, request.facts.pool);
        let next = match how {
            How::Answered => State::Over(End::Answered),
            How::Returned => State::Away,
            How::GivenUp => State::Over(End::GivenUp),
        };
        let State::Served { link, permit } = std::mem::replace(&mut request.state, next) else { unreachable!() };
        let entry = &mut self.ledger.links[link];
        entry.in_flight[usize::from(pool.0)] -= 1;
        let (core, id) = (entry.core, entry.id.expect("it was up"));
        self.ledger.permits[usize::from(pool.0)] -= usize::from(permit.is_some());
        let now = self.now();
        self.cores[core].release(id, pool, permit, || now, &mut self.ledger);
        if how == How::Returned {
            let ns = self.message_ns();
            self.after(ns, home, Event::Arrives(name));
        }
    }

    /// A link breaks; its requests come back, or their clients are told.
    fn link_down(&mut self, core: usize, link: usize) {
        let Some(id) = self.ledger.links[link].id else { return };
        if self.ledger.links[link].is_gone {
            return self.cores[core].link_down(id, &mut self.ledger);
        }
        let want = self.ledger.link_leaves(link);
        self.ledger.links[link].is_gone = true;
        for name in 0..self.ledger.requests.len() {
            let Request { state, turn, .. } = &self.ledger.requests[name];
            if matches!(*state, State::Served { link: its, .. } if its == link) {
                let how = if self.chance.one_in(3) { How::GivenUp } else { How::Returned };
                let (turn, ns) = (*turn, self.chance.between(0, 20));
                self.after(ns, core, Event::Ends { name, turn, how });
            }
        }
        self.cores[core].link_down(id, &mut self.ledger);
        assert_eq!(std::mem::take(&mut self.ledger.last_links), want, "pools whose last link has gone");
    }

    fn look(&mut self, core: usize) {
        self.is_asked[core] = false;
        self.ledger.rings -= 1;
        let now = self.now();
        self.cores[core].look(now, &mut self.ledger);
    }

    fn taken(&mut self, home: usize, number: RequestId) {
        self.ledger.heard(home, number);
        self.cores[home].taken(number, &mut self.ledger);
    }

    fn age_later(&mut self, core: usize) {
        let ns = self.pace.age_look_ns;
        self.after(ns, core, Event::Age);
    }

    fn message_ns(&mut self) -> u64 {
        let (first, last) = self.pace.message_ns.unwrap_or((0, 0));
        self.chance.between(first, last)
    }

    /// Sends off what the last call had other cores do; without delays it happens now, in an order drawn from the seed.
    fn deliver(&mut self) {
        let mut at_once: Vec<(usize, Event)> = Vec::new();
        for round in 0.. {
            assert!(round < 10_000, "the cores ask one another in a circle");
            for message in std::mem::take(&mut self.ledger.messages) {
                let (core, event) = match message {
                    Message::Begun(name) => {
                        self.service(name);
                        continue;
                    }
                    Message::Ring(core) if std::mem::replace(&mut self.is_asked[core], true) => continue,
                    Message::Ring(core) => {
                        self.ledger.rings += 1;
                        (core, Event::Look)
                    }
                    Message::Taken { home, number } => (home, Event::Taken(number)),
                };
                if self.pace.message_ns.is_none() {
                    at_once.push((core, event));
                } else {
                    let ns = self.message_ns();
                    self.after(ns, core, event);
                }
            }
            if at_once.is_empty() {
                return;
            }
            let (core, event) = at_once.swap_remove(self.chance.below(at_once.len()));
            self.ledger.here = core;
            self.ledger.say(|| format!("{event:?}"));
            match event {
                Event::Look => self.look(core),
                Event::Taken(number) => self.taken(core, number),
                _ => unreachable!("a message"),
            }
            self.check_core(core);
        }
    }

    /// A service begins: its end is drawn now.
    fn service(&mut self, name: Name) {
        let Request { turn, ref state, .. } = self.ledger.requests[name];
        let State::Served { link, .. } = *state else { return };
        let core = self.ledger.links[link].core;
        let ns = match self.services_ns.get(name) {
            Some(&ns) => ns,
            None => (self.pace.service_ns)(&mut self.chance),
        };
        let refused_one_in = if self.is_calm { 0 } else { self.pace.refused_one_in };
        let is_refused = refused_one_in > 0 && self.chance.one_in(refused_one_in);
        let how = if is_refused { How::Returned } else { How::Answered };
        self.after(ns, core, Event::Ends { name, turn, how });
    }

    // ---- what must hold ----

    /// After each event, on the core where it happened: its books, its links' credits, and what the board says of it.
    fn check_core(&self, core: usize) {
        assert!(self.ledger.last_links.is_empty(), "no link has gone");
        let sched = self.cores[core].sched();
        let Books { joined, granted, taken, cancelled } = sched.books();
        assert_eq!(Counts { joined, granted, taken, cancelled }, self.ledger.counts[core], "the books of core {core}");
        let pools = (0..).map(PoolId).take(self.ledger.rules.len());
        let waiting: usize = pools.clone().map(|pool| sched.waiting(pool)).sum();
        assert_eq!(joined, granted + taken + cancelled + waiting as u64, "core {core} lost or found something");
        for link in self.ledger.links.iter().filter(|link| link.core == core && !link.is_gone) {
            let Some(id) = link.id else { continue };
            assert_eq!(sched.in_flight(id), link.in_flight.iter().sum::<u32>());
            let free = link.pools.iter().map(|&pool| link.free(&self.ledger.rules, pool)).max();
            assert_eq!(sched.credits(id), free.expect("a pool"), "credits of {:?}", LinkId(id.0));
        }
        for pool in pools {
            for (kind, needs) in [(Kind::Any, Needs::Any), (Kind::Upgrade, Needs::Upgrade)] {
                let is_known = !sched.has_credit(pool, needs) || self.is_on_board(core, pool, kind);
                assert!(is_known, "core {core} has a credit for {pool:?}, and nobody can know it");
            }
        }
    }

    /// After each event, over all cores.
    fn check_over_all(&mut self) {
        let pools = (0..).map(PoolId).take(self.ledger.rules.len());
        let waiting: usize = pools.map(|pool| self.waiting(pool)).sum();
        let (untaken, unheard) = (self.ledger.waiting.len(), self.ledger.unheard.len());
        assert_eq!(waiting, untaken + unheard, "what the cores believe to wait, and what does or is not heard of");
        if self.ledger.rings == 0 {
            self.check_nobody_sleeps();
        }
    }

    /// Nobody is asked to look at this moment: then no idle credit could serve what is laid out, and what is not laid out is
    /// behind a window that was emptied, of which word is on its way.
    fn check_nobody_sleeps(&mut self) {
        let pools = (0..).map(PoolId).take(self.ledger.rules.len());
        let kinds = pools.flat_map(|pool| [(pool, Needs::Any), (pool, Needs::Upgrade)]);
        let idle = kinds.filter_map(|(pool, needs)| Some((pool, needs, self.ledger.idle_link(pool, needs)?)));
        let idle: Vec<(PoolId, Needs, usize)> = idle.collect();
        self.idle_looks += u64::from(!idle.is_empty());
        if idle.is_empty() {
            return;
        }
        for &name in &self.ledger.waiting {
            let request = &self.ledger.requests[name];
            let Facts { pool, needs, .. } = request.facts;
            let idle_for = idle.iter().find(|(its_pool, its_needs, _)| (*its_pool, *its_needs) == (pool, needs));
            let Some((_, _, link)) = idle_for else { continue };
            let number = request.number.expect("it waits");
            let (_, lane, is_listed) = self.cores[request.home].sched().place(number).expect("it waits");
            assert!(is_listed, "request {name} waits, link {link} has a credit, and nobody is on the way to tell");
            let taken = self.ledger.unheard_of(request.home, pool, lane);
            assert!(taken > WINDOW_REQUESTS / 2, "request {name} waits behind a window that is not empty");
        }
    }

    /// Whether the board names a core as one with an idle credit. It never names the one that asks.
    fn is_on_board(&self, core: usize, pool: PoolId, kind: Kind) -> bool {
        let asks = (core + self.cores() - 1) % self.cores();
        asks == core || self.shared.board.idle_core(pool, kind, core_id(asks), core_id(asks)) == Some(core_id(core))
    }

    /// Everything that came is over, and nothing is left of it: no request, no bit, no permit.
    pub fn check_settled(&mut self) {
        for (name, request) in self.ledger.requests.iter().enumerate() {
            assert!(matches!(request.state, State::Over(_)), "request {name} was lost");
        }
        assert!(self.ledger.waiting.is_empty() && self.ledger.unheard.is_empty());
        for pool in (0..).map(PoolId).take(self.ledger.rules.len()) {
            assert!(!self.shared.shelf.waits(pool, 7, true), "a bit of {pool:?} was left behind");
            assert!((0..self.cores()).all(|core| self.cores[core].sched().waiting(pool) == 0));
            self.check_permits(pool);
        }
        let joined: u64 = self.ledger.counts.iter().map(|counts| counts.joined).sum();
        let left: u64 = self.ledger.counts.iter().map(|counts| counts.granted + counts.taken + counts.cancelled).sum();
        assert_eq!(joined, left, "the books over all cores");
    }

    /// As many permits can be taken as the pool has, and no more.
    fn check_permits(&mut self, pool: PoolId) {
        let max = self.ledger.rules[usize::from(pool.0)].concurrency_max;
        assert_eq!(self.ledger.permits[usize::from(pool.0)], 0);
        if max == 0 {
            return;
        }
        let facts = Facts { pool, class: ptth::ids::Class::of(0), needs: Needs::Any, stamp: self.now() };
        let mut grants = Vec::new();
        for core in 0..self.cores() {
            while let Some(grant) = self.cores[core].offer(facts) {
                grants.push((core, grant));
            }
        }
        assert!(grants.len() <= max, "more than {max} permits of {pool:?}");
        let has_credit = (0..self.cores()).any(|core| self.cores[core].sched().has_credit(pool, Needs::Any));
        assert!(grants.len() == max || !has_credit, "{} permits of {pool:?} instead of {max}", grants.len());
        let now = self.now();
        for (core, grant) in grants {
            self.cores[core].release(grant.link, grant.pool, grant.permit, || now, &mut self.ledger);
        }
        assert!(self.ledger.messages.is_empty(), "nothing waited");
    }
}

fn core_id(core: usize) -> CoreId {
    CoreId(u16::try_from(core).expect("few"))
}
