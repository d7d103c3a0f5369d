//! What is true in a simulation, whatever the cores believe: every request, every link, every permit. It is the cores' hands,
//! so it sees each grant as it happens, and holds it against the rules and against one central queue that looks at all.

use std::collections::BTreeMap;

use ptth::clock::Now;
use ptth::dispatch::{Grant, Granted, Host, PoolRules};
use ptth::ids::{Class, CoreId, LinkId, PoolId, RequestId};
use ptth::limits::{LINK_STREAMS_MAX, WINDOW_REQUESTS};
use ptth::sched::{Facts, Lane, Needs, aged};
use ptth::xcore::Permit;

/// A request, by its place in [`Ledger::requests`].
pub type Name = usize;

pub struct Request {
    pub home: usize,
    pub facts: Facts,
    /// Where it stands now: its waiting may have made it more urgent.
    pub class: Class,
    pub state: State,
    /// Its number at home, as long as its home believes that it waits.
    pub number: Option<RequestId>,
    /// Counts dispatches: an end that belongs to an earlier one is void.
    pub turn: u32,
    pub first_wait_ns: Option<u64>,
    /// Its place in [`Ledger::waiting`], while it is there.
    pub place: usize,
}

pub enum State {
    /// Not yet there, or on its way back from a link.
    Away,
    Waits,
    Served {
        link: usize,
        permit: Option<Permit>,
    },
    Over(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Answered,
    /// Its client left while it waited.
    Cancelled,
    /// Its client left, or its link was lost, while it was served.
    GivenUp,
}

pub struct Link {
    pub core: usize,
    /// Its number on that core, once it is up.
    pub id: Option<LinkId>,
    pub pools: Vec<PoolId>,
    pub carries_upgrades: bool,
    pub streams_max: u32,
    pub takes_more: bool,
    pub is_gone: bool,
    /// Requests in flight, by pool.
    pub in_flight: Vec<u32>,
}

/// What a core's own books must say.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    pub joined: u64,
    pub granted: u64,
    pub taken: u64,
    pub cancelled: u64,
}

/// What the cores had one another do.
pub enum Message {
    Ring(usize),
    Taken {
        home: usize,
        number: RequestId,
    },
    /// A request has a link: its service begins.
    Begun(Name),
}

pub struct Ledger {
    pub now: Now,
    /// The core whose turn it is.
    pub here: usize,
    pub is_traced: bool,
    pub rules: Vec<PoolRules>,
    pub requests: Vec<Request>,
    pub links: Vec<Link>,
    /// Requests that wait and that nobody has taken, in no order.
    pub waiting: Vec<Name>,
    pub counts: Vec<Counts>,
    pub messages: Vec<Message>,
    /// Permits that are out, by pool.
    pub permits: Vec<usize>,
    /// Requests that other cores took and whose homes have not heard of it: their lanes at home.
    pub unheard: BTreeMap<(usize, RequestId), (PoolId, Lane)>,
    /// How many of them there are, by home, pool and lane.
    unheard_of: BTreeMap<(usize, PoolId, usize), usize>,
    /// Rings and words of what was taken arrive before anything else happens: then no grant may differ from the one of
    /// a central queue.
    pub is_strict: bool,
    /// Cores that were asked to look and have not yet.
    pub rings: usize,
    /// Who got a link, and when, in that order.
    pub log: Vec<(Name, Now)>,
    /// Grants that a central queue would have given to another request.
    pub inversions: u64,
    /// Pools of which the cores said that their last link has gone.
    pub last_links: Vec<PoolId>,
}

impl Link {
    /// Requests of a pool that it takes now.
    pub fn free(&self, rules: &[PoolRules], pool: PoolId) -> u32 {
        if !self.takes_more || self.id.is_none() || !self.pools.contains(&pool) {
            return 0;
        }
        let of_pool = self.in_flight[usize::from(pool.0)];
        let streams_max = self.streams_max.min(LINK_STREAMS_MAX);
        let free = streams_max.saturating_sub(self.in_flight.iter().sum());
        free.min(rules[usize::from(pool.0)].per_link_max.saturating_sub(of_pool))
    }

    fn carries(&self, needs: Needs) -> bool {
        self.carries_upgrades || needs == Needs::Any
    }
}

impl Request {
    pub fn lane(&self) -> Lane {
        Lane { class: self.class, needs: self.facts.needs }
    }

    /// What the order goes by: smaller is served first.
    fn rank(&self) -> (Class, Now) {
        (self.class, self.facts.stamp)
    }
}

impl Ledger {
    pub fn new(cores: usize, rules: Vec<PoolRules>, is_strict: bool, is_traced: bool) -> Ledger {
        Ledger {
            now: Now(0),
            here: 0,
            is_traced,
            requests: Vec::new(),
            links: Vec::new(),
            waiting: Vec::new(),
            counts: vec![Counts::default(); cores],
            messages: Vec::new(),
            permits: vec![0; rules.len()],
            rules,
            unheard: BTreeMap::new(),
            unheard_of: BTreeMap::new(),
            is_strict,
            rings: 0,
            log: Vec::new(),
            inversions: 0,
            last_links: Vec::new(),
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            eprintln!("{:>12.3} us  core {}  {}", self.now.0 as f64 / 1e3, self.here, what());
        }
    }

    pub fn has_permit(&self, pool: PoolId) -> bool {
        let max = self.rules[usize::from(pool.0)].concurrency_max;
        max == 0 || self.permits[usize::from(pool.0)] < max
    }

    /// Whether a link could serve a request now.
    fn could_serve(&self, link: &Link, request: &Request) -> bool {
        let Facts { pool, needs, .. } = request.facts;
        link.carries(needs) && link.free(&self.rules, pool) > 0 && self.has_permit(pool)
    }

    /// A request begins to wait.
    pub fn waits(&mut self, name: Name) {
        self.requests[name].state = State::Waits;
        self.requests[name].place = self.waiting.len();
        self.waiting.push(name);
        self.counts[self.here].joined += 1;
    }

    /// It is taken, or its client leaves.
    pub fn waits_no_more(&mut self, name: Name) {
        let place = self.requests[name].place;
        assert_eq!(self.waiting.swap_remove(place), name);
        if let Some(&moved) = self.waiting.get(place) {
            self.requests[moved].place = place;
        }
    }

    /// A link with a credit, and what it needs to be used for such requests now.
    pub fn idle_link(&self, pool: PoolId, needs: Needs) -> Option<usize> {
        let is_idle = |link: &Link| link.carries(needs) && link.free(&self.rules, pool) > 0;
        self.links.iter().position(is_idle).filter(|_| self.has_permit(pool))
    }

    /// A link takes nothing any more. Gives the pools that have no other one, on any core.
    pub fn link_leaves(&mut self, link: usize) -> Vec<PoolId> {
        if !std::mem::replace(&mut self.links[link].takes_more, false) {
            return Vec::new();
        }
        let is_left = |pool: &PoolId| {
            let serves = |other: &Link| other.takes_more && other.id.is_some() && other.pools.contains(pool);
            self.links.iter().any(serves)
        };
        self.links[link].pools.iter().copied().filter(|pool| !is_left(pool)).collect()
    }

    /// Requests of a lane that other cores took and of which its home has not heard.
    pub fn unheard_of(&self, home: usize, pool: PoolId, lane: Lane) -> usize {
        self.unheard_of.get(&(home, pool, lane.index())).copied().unwrap_or(0)
    }

    /// Another core takes a request; its home has yet to hear of it.
    fn taken(&mut self, home: usize, number: RequestId, pool: PoolId, lane: Lane) {
        self.unheard.insert((home, number), (pool, lane));
        *self.unheard_of.entry((home, pool, lane.index())).or_default() += 1;
    }

    /// The home of a request that was taken hears of it.
    pub fn heard(&mut self, home: usize, number: RequestId) {
        if let Some((pool, lane)) = self.unheard.remove(&(home, number)) {
            self.counts[home].taken += 1;
            *self.unheard_of.get_mut(&(home, pool, lane.index())).expect("counted") -= 1;
        }
    }

    /// Waiting makes this core's requests more urgent.
    pub fn age(&mut self) {
        for &name in &self.waiting {
            let request = &mut self.requests[name];
            if request.home != self.here {
                continue;
            }
            if let Some(ageing) = self.rules[usize::from(request.facts.pool.0)].ageing {
                let Facts { class, stamp, .. } = request.facts;
                request.class = aged(class, stamp, ageing.step_ms, ageing.most_urgent, self.now);
            }
        }
    }

    /// A request gets a link: it may have it, and it is the one that should.
    pub fn begin(&mut self, name: Name, grant: Grant, waited: bool) {
        let core = self.here;
        let link = self.links.iter().position(|link| link.core == core && link.id == Some(grant.link));
        let link = link.expect("a link of this core");
        let request = &self.requests[name];
        let Facts { pool, needs, .. } = request.facts;
        let at = usize::from(pool.0);
        self.say(|| format!("request {name} gets link {link}"));
        assert_eq!(grant.pool, pool);
        assert_eq!(grant.class, request.class, "request {name} was taken in another class");
        match request.state {
            State::Away => assert!(!waited, "request {name} was granted while it was with nobody"),
            State::Waits => assert!(waited, "request {name} was given away while it was offered"),
            State::Served { .. } => panic!("request {name} was granted twice"),
            State::Over(end) => panic!("request {name} was granted after it was {end:?}"),
        }
        let its_link = &self.links[link];
        assert!(its_link.takes_more && !its_link.is_gone, "link {link} takes no more");
        assert!(its_link.carries(needs), "link {link} carries no upgrade");
        assert!(its_link.free(&self.rules, pool) > 0, "link {link} has no credit for {pool:?}");
        let concurrency_max = self.rules[at].concurrency_max;
        assert_eq!(grant.permit.is_some(), concurrency_max > 0);
        assert!(self.has_permit(pool), "{pool:?} has more than {concurrency_max} with its workers");
        assert!(grant.ready_since.is_some() == waited && grant.ready_since.unwrap_or_default() <= self.now);
        assert!(!grant.is_inversion, "nothing more urgent was laid out: nobody was in a race here");
        self.check_order(name, link, waited);

        self.log.push((name, self.now));
        self.permits[at] += usize::from(grant.permit.is_some());
        self.links[link].in_flight[at] += 1;
        if waited {
            self.waits_no_more(name);
        }
        let now = self.now;
        let request = &mut self.requests[name];
        request.turn += 1;
        request.first_wait_ns.get_or_insert(now.ns_since(request.facts.stamp));
        request.state = State::Served { link, permit: grant.permit };
        self.messages.push(Message::Begun(name));
    }

    /// One central queue would give this link's credit to the same request. If not, it is an inversion, and there is one
    /// reason for it: the request that was passed over lies behind a window that others have emptied. Less than half of a
    /// window is dead, so more than half of it was taken, and the home has not heard of that yet.
    fn check_order(&mut self, name: Name, link: usize, waited: bool) {
        let request = &self.requests[name];
        let link = &self.links[link];
        let goes_before = |other: &Request| {
            if waited || self.is_strict {
                other.rank() < request.rank()
            } else {
                // What is offered looks at its own pool only, and stands behind its equals.
                other.facts.pool == request.facts.pool && other.class <= request.class
            }
        };
        let passed_over = self
            .waiting
            .iter()
            .map(|&other| (other, &self.requests[other]))
            .filter(|(other, request)| *other != name && goes_before(request) && self.could_serve(link, request));
        let mut is_inversion = false;
        let pool = request.facts.pool;
        for (other, request) in passed_over {
            if request.facts.pool != pool && self.rings > 0 && !self.is_strict {
                continue; // a core that is asked at this moment has a credit for it
            }
            let (home, lane) = (request.home, request.lane());
            let taken = self.unheard_of(home, request.facts.pool, lane);
            assert!(
                taken > WINDOW_REQUESTS / 2 && !self.is_strict,
                "request {name} {:?} overtook request {other} {:?}, of whose lane {taken} are taken and not heard of",
                self.requests[name].facts,
                request.facts,
            );
            is_inversion = true;
        }
        self.inversions += u64::from(is_inversion);
    }
}

impl Host<Name, Name> for Ledger {
    fn granted(&mut self, granted: Granted<Name, Name>) {
        match granted {
            Granted::Own { key: name, grant } => {
                assert_eq!(self.requests[name].home, self.here);
                self.requests[name].number = None;
                self.counts[self.here].granted += 1;
                self.begin(name, grant, true);
            }
            Granted::Foreign { parcel, grant } => {
                let (home, number, name) = (usize::from(parcel.home.0), RequestId(parcel.number), parcel.what);
                let request = &self.requests[name];
                assert!(home != self.here && home == request.home, "request {name} lives on core {}", request.home);
                assert_eq!(request.number, Some(number));
                assert_eq!(parcel.stamp_ns, request.facts.stamp.0);
                let (pool, lane) = (request.facts.pool, request.lane());
                self.taken(home, number, pool, lane);
                self.begin(name, grant, true);
                self.messages.push(Message::Taken { home, number });
            }
        }
    }

    fn ring(&mut self, core: CoreId) {
        self.say(|| format!("rings core {}", core.0));
        self.messages.push(Message::Ring(usize::from(core.0)));
    }

    fn last_link_left(&mut self, pool: PoolId) {
        self.last_links.push(pool);
    }
}
