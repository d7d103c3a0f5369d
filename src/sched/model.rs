//! The scheduler against a plain `Vec` that does the same by looking at everything. No shortcut of the real one enters.
//!
//! `PTTH_SEED=7 cargo test sched::model` walks one seed; a failure prints its own.

use super::*;

const POOLS: usize = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 300;
/// One step of ageing in these walks, whose clock moves a few milliseconds at a time.
const AGE_STEP_MS: u64 = 40;

/// Marsaglia's xorshift64*, enough for a walk.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).expect("31 bits") % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

#[derive(Clone, Copy, Debug)]
struct PlainRequest {
    id: RequestId,
    facts: Facts,
    /// Where it stands now.
    class: Class,
    /// On its lane's list, or laid out.
    listed: bool,
    /// What its holder keeps with it.
    what: u64,
}

#[derive(Debug)]
struct PlainLink {
    id: LinkId,
    pools: Vec<PoolId>,
    carries_upgrades: bool,
    has_asked: bool,
    draining: bool,
    voice: Voice,
    streams_max: u32,
    /// Facts of what it serves.
    serves: Vec<Facts>,
    last_served: usize,
}

/// Everything in Vecs, in order of arrival; every question is a look at all of it.
#[derive(Default)]
struct Plain {
    waiting: Vec<PlainRequest>,
    links: Vec<PlainLink>,
    per_link_max: Vec<u32>,
    services: usize,
}

impl PlainRequest {
    fn is_listed_in(&self, pool: PoolId, lane: Lane) -> bool {
        let stands = (self.facts.pool, self.class, self.facts.needs) == (pool, lane.class, lane.needs);
        self.listed && stands
    }
}

impl PlainLink {
    fn serves_of(&self, pool: PoolId) -> u32 {
        count(self.serves.iter().filter(|facts| facts.pool == pool).count())
    }

    /// What it takes of all its pools together.
    fn free(&self) -> u32 {
        let free = self.streams_max.saturating_sub(count(self.serves.len()));
        match self.voice {
            _ if self.draining => 0,
            Voice::Answers => free,
            Voice::Mute { on_trial: true } => free.min(1),
            Voice::Mute { on_trial: false } => 0,
        }
    }

    fn is_open_to(&self, pool: PoolId) -> bool {
        !self.draining && self.pools.contains(&pool)
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).expect("few")
}

impl Plain {
    fn next_service(&mut self) -> usize {
        self.services += 1;
        self.services
    }

    /// What a link takes of one of its pools.
    fn free(&self, link: &PlainLink, pool: PoolId) -> u32 {
        let per_link_max = self.per_link_max[usize::from(pool.0)];
        if link.pools.contains(&pool) { link.free().min(per_link_max.saturating_sub(link.serves_of(pool))) } else { 0 }
    }

    /// The position of the link that a request gets: most free, then longest unserved.
    fn best(&self, pool: PoolId, needs: Needs) -> Option<usize> {
        let free = |at: usize| self.free(&self.links[at], pool);
        let carries = |at: usize| needs == Needs::Any || self.links[at].carries_upgrades;
        let able = (0..self.links.len()).filter(|&at| carries(at) && free(at) > 0);
        able.min_by_key(|&at| (std::cmp::Reverse(free(at)), self.links[at].last_served))
    }

    /// What the lane's list holds, in the order in which it leaves: by stamp, and among equals by joining.
    fn lane(&self, pool: PoolId, lane: Lane) -> Vec<PlainRequest> {
        let listed = self.waiting.iter().filter(|request| request.is_listed_in(pool, lane));
        let mut listed: Vec<PlainRequest> = listed.copied().collect();
        listed.sort_by_key(|request| request.facts.stamp); // stable, and they stand in the order of joining
        listed
    }

    fn request(&mut self, id: RequestId) -> Option<&mut PlainRequest> {
        self.waiting.iter_mut().find(|request| request.id == id)
    }

    fn link(&mut self, id: LinkId) -> Option<&mut PlainLink> {
        self.links.iter_mut().find(|link| link.id == id)
    }
}

/// Prints the seed of a walk that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this walk again: PTTH_SEED={} cargo test sched::model", self.0);
        }
    }
}

struct Walk {
    sched: Sched<u64>,
    plain: Plain,
    chance: Chance,
    clock: Now,
    /// Every number that was ever given out, the dead ones too.
    requests: Vec<RequestId>,
    links: Vec<LinkId>,
    books: Books,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let per_link_max: Vec<u32> = (0..POOLS).map(|_| [1, 2, 5, 100][chance.below(4)]).collect();
        Walk {
            sched: Sched::new(per_link_max.iter().map(|&per_link_max| PoolBounds { per_link_max }).collect()),
            plain: Plain { per_link_max, ..Plain::default() },
            chance,
            clock: Now(0),
            requests: Vec::new(),
            links: Vec::new(),
            books: Books::default(),
        }
    }

    fn pool(&mut self) -> PoolId {
        PoolId(u16::try_from(self.chance.below(POOLS)).expect("few"))
    }

    /// Few classes, so that lanes hold more than one.
    fn facts(&mut self) -> Facts {
        let class = Class::of([1, 3, 4, 7][self.chance.below(4)]);
        let needs = if self.chance.one_in(4) { Needs::Upgrade } else { Needs::Any };
        Facts { pool: self.pool(), class, needs, stamp: self.clock }
    }

    fn lane(&mut self) -> Lane {
        self.facts().lane()
    }

    fn join(&mut self, facts: Facts) {
        let what = self.books.joined;
        self.books.joined += 1;
        let mut told = None;
        let id = self.sched.join(facts, |id| {
            told = Some(id);
            what
        });
        assert_eq!(told, Some(id), "its holder hears its number in time");
        assert!(!self.requests.contains(&id), "a number was used twice");
        self.requests.push(id);
        self.plain.waiting.push(PlainRequest { id, facts, class: facts.class, listed: true, what });
    }

    fn step(&mut self) {
        self.clock = self.clock.plus_ms(self.chance.below(5) as u64);
        match self.chance.below(21) {
            0..=4 => {
                let facts = self.facts();
                self.join(facts);
            }
            5..=7 => self.show(),
            8 => self.unshow(),
            9..=10 => self.leave(),
            11 if self.chance.one_in(2) => self.age(),
            12 if self.plain.links.len() < 6 => self.link_up(),
            13 => {
                if let Some(id) = self.chance.pick(&self.links) {
                    let streams_max = count(self.chance.below(8));
                    self.sched.link_credits(id, streams_max);
                    if let Some(link) = self.plain.link(id) {
                        (link.streams_max, link.has_asked) = (streams_max, true);
                    }
                }
            }
            14 => {
                if let Some(id) = self.chance.pick(&self.links) {
                    let carries = self.chance.one_in(2);
                    self.sched.carries_upgrades(id, carries);
                    if let Some(link) = self.plain.link(id) {
                        link.carries_upgrades = carries;
                    }
                }
            }
            15 if self.chance.one_in(4) => {
                if let Some(id) = self.chance.pick(&self.links) {
                    self.sched.link_drains(id);
                    if let Some(link) = self.plain.link(id) {
                        link.draining = true;
                    }
                }
            }
            16 if self.chance.one_in(4) => self.link_down(),
            17 => self.release(),
            18 => {
                if let Some(id) = self.chance.pick(&self.links) {
                    let voice = match self.chance.below(4) {
                        0 => Voice::Mute { on_trial: false },
                        1 => Voice::Mute { on_trial: true },
                        _ => Voice::Answers,
                    };
                    self.sched.link_voice(id, voice);
                    if let Some(link) = self.plain.link(id) {
                        link.voice = voice;
                    }
                }
            }
            _ => self.grant(),
        }
    }

    fn show(&mut self) {
        let (pool, lane) = (self.pool(), self.lane());
        let want = self.plain.lane(pool, lane).first().map(|request| (request.id, request.what));
        assert_eq!(self.sched.show(pool, lane).map(|(id, &what)| (id, what)), want);
        if let Some((id, _)) = want {
            self.plain.request(id).expect("it waits").listed = false;
        }
    }

    fn unshow(&mut self) {
        let Some(id) = self.chance.pick(&self.requests) else { return };
        match self.plain.request(id) {
            Some(request) if request.listed => (), // not laid out: nobody does this
            Some(request) => {
                request.listed = true;
                self.sched.unshow(id);
            }
            None => self.sched.unshow(id), // harmless
        }
    }

    fn leave(&mut self) {
        let Some(id) = self.chance.pick(&self.requests) else { return };
        let how = [Left::Granted, Left::Taken, Left::Cancelled][self.chance.below(3)];
        let at = self.plain.waiting.iter().position(|request| request.id == id);
        let want = at.map(|at| self.plain.waiting.remove(at).what);
        assert_eq!(self.sched.leave(id, how), want);
        if want.is_some() {
            *match how {
                Left::Granted => &mut self.books.granted,
                Left::Taken => &mut self.books.taken,
                Left::Cancelled => &mut self.books.cancelled,
            } += 1;
        }
    }

    fn age(&mut self) {
        let (pool, most_urgent, now) = (self.pool(), Class::of(2), self.clock);
        self.sched.age(pool, AGE_STEP_MS, most_urgent, now);
        for request in self.plain.waiting.iter_mut().filter(|request| request.facts.pool == pool && request.listed) {
            let steps = now.ms_since(request.facts.stamp) / AGE_STEP_MS;
            let risen = i64::from(request.facts.class.urgency()) - i64::try_from(steps).expect("few");
            let ceiling = i64::from(request.facts.class.urgency().min(most_urgent.urgency()));
            request.class = Class::of(u8::try_from(risen.max(ceiling)).expect("a class"));
        }
    }

    fn link_up(&mut self) {
        let mut pools = vec![self.pool()];
        while self.chance.one_in(3) {
            pools.push(self.pool()); // twice the same one counts once
        }
        let carries_upgrades = self.chance.one_in(3);
        let id = self.sched.link_up(LinkFacts { pools: pools.clone(), carries_upgrades });
        assert!(!self.links.contains(&id), "a number was used twice");
        self.links.push(id);
        pools.sort_unstable();
        pools.dedup();
        let last_served = self.plain.next_service();
        let (has_asked, draining, streams_max, serves) = (false, false, 0, Vec::new());
        let voice = Voice::Answers;
        let link =
            PlainLink { id, pools, carries_upgrades, has_asked, draining, voice, streams_max, serves, last_served };
        self.plain.links.push(link);
    }

    /// A link goes; its requests go back to their old places, or their clients give up.
    fn link_down(&mut self) {
        let Some(id) = self.chance.pick(&self.links) else { return };
        self.sched.link_down(id);
        let Some(at) = self.plain.links.iter().position(|link| link.id == id) else { return };
        let gone = self.plain.links.remove(at);
        for facts in gone.serves {
            self.sched.release(id, facts.pool); // harmless
            if self.chance.one_in(2) {
                self.join(facts);
            }
        }
    }

    /// A credit goes to a request, if there is one.
    fn grant(&mut self) {
        let facts = self.facts();
        let want = self.plain.best(facts.pool, facts.needs);
        let link = self.sched.link_for(facts.pool, facts.needs);
        assert_eq!(link, want.map(|at| self.plain.links[at].id));
        if let (Some(link), Some(at)) = (link, want) {
            self.sched.grant(link, facts.pool);
            let last_served = self.plain.next_service();
            let link = &mut self.plain.links[at];
            link.serves.push(facts);
            link.last_served = last_served;
            if link.voice != Voice::Answers {
                link.voice = Voice::Mute { on_trial: false };
            }
        }
    }

    /// A request ends, or is refused and comes back.
    fn release(&mut self) {
        let busy: Vec<usize> =
            (0..self.plain.links.len()).filter(|&at| !self.plain.links[at].serves.is_empty()).collect();
        let Some(at) = self.chance.pick(&busy) else { return };
        let nth = self.chance.below(self.plain.links[at].serves.len());
        let facts = self.plain.links[at].serves.swap_remove(nth);
        self.sched.release(self.plain.links[at].id, facts.pool);
        if self.chance.one_in(5) {
            self.join(facts);
        }
    }

    fn agree(&self) {
        self.sched.audit();
        self.agree_on_requests();
        self.agree_on_links();
        let waiting = self.plain.waiting.len() as u64;
        let Books { joined, granted, taken, cancelled } = self.sched.books();
        assert_eq!(self.sched.books(), self.books);
        assert_eq!(joined, granted + taken + cancelled + waiting);
    }

    fn agree_on_requests(&self) {
        for request in &self.plain.waiting {
            let lane = Lane { class: request.class, needs: request.facts.needs };
            assert_eq!(self.sched.place(request.id), Some((request.facts, lane, request.listed)));
            assert_eq!(self.sched.what(request.id), Some(&request.what));
        }
        let (mut waiting, mut listed) = ([0; POOLS], [[0; Lane::COUNT]; POOLS]);
        for request in &self.plain.waiting {
            let pool = usize::from(request.facts.pool.0);
            let lane = Lane { class: request.class, needs: request.facts.needs };
            waiting[pool] += 1;
            listed[pool][lane.index()] += usize::from(request.listed);
        }
        for pool in (0..).map(PoolId).take(POOLS) {
            let at = usize::from(pool.0);
            assert_eq!(self.sched.waiting(pool), waiting[at]);
            assert_eq!(Lane::all().map(|lane| self.sched.listed(pool, lane)).collect::<Vec<_>>(), listed[at]);
            let of_pool = self.plain.waiting.iter().filter(|request| request.facts.pool == pool);
            let whats = of_pool.map(|request| request.what).sum::<u64>();
            assert_eq!(self.sched.waiting_in(pool).sum::<u64>(), whats, "the same ones");
        }
    }

    fn agree_on_links(&self) {
        for pool in (0..).map(PoolId).take(POOLS) {
            for needs in [Needs::Any, Needs::Upgrade] {
                let best = self.plain.best(pool, needs).map(|at| self.plain.links[at].id);
                assert_eq!(self.sched.link_for(pool, needs), best);
                assert_eq!(self.sched.has_credit(pool, needs), best.is_some());
            }
            let free = self.plain.links.iter().map(|link| self.plain.free(link, pool)).sum::<u32>();
            assert_eq!(self.sched.pool_credits(pool), free);
            let open: Vec<&PlainLink> = self.plain.links.iter().filter(|link| link.is_open_to(pool)).collect();
            let per_link_max = self.plain.per_link_max[usize::from(pool.0)];
            assert_eq!(self.sched.links(pool), open.len());
            assert_eq!(self.sched.carries_any(pool), open.iter().any(|link| link.carries_upgrades));
            assert_eq!(self.sched.is_undecided(pool), open.iter().any(|link| !link.has_asked));
            let capacity = open.iter().map(|link| link.streams_max.min(per_link_max)).sum::<u32>();
            assert_eq!(self.sched.pool_capacity(pool), capacity);
        }
        let mut seats = Vec::new();
        self.sched.each_seat(|pool, in_flight, free| seats.push((pool, in_flight, free)));
        let plain = self.plain.links.iter();
        let mut want: Vec<_> = plain
            .flat_map(|link| link.pools.iter().map(|&pool| (pool, link.serves_of(pool), self.plain.free(link, pool))))
            .collect();
        seats.sort_unstable();
        want.sort_unstable();
        assert_eq!(seats, want);
        for link in &self.plain.links {
            let frees = link.pools.iter().map(|&pool| self.plain.free(link, pool));
            assert_eq!(self.sched.credits(link.id), frees.max().expect("a pool"));
            assert_eq!(self.sched.in_flight(link.id), count(link.serves.len()));
            for pool in (0..).map(PoolId).take(POOLS) {
                let free = if link.pools.contains(&pool) { self.plain.free(link, pool) } else { 0 };
                let offered = match self.sched.offer_of(link.id, pool, Needs::Any) {
                    LinkOffer::Credits(free) => free,
                    _ => 0,
                };
                assert_eq!(offered, free);
                assert_eq!(self.sched.in_flight_of(link.id, pool), link.serves_of(pool));
            }
            let state = if link.draining { LinkState::Draining } else { LinkState::Open };
            assert_eq!(self.sched.state(link.id), state);
            assert_eq!(self.sched.voice(link.id), Some(link.voice));
            assert_eq!(self.sched.pools_of(link.id).as_deref(), Some(&*link.pools));
        }
        let mut ids: Vec<LinkId> = self.sched.link_ids().collect();
        let mut want: Vec<LinkId> = self.plain.links.iter().map(|link| link.id).collect();
        ids.sort_unstable();
        want.sort_unstable();
        assert_eq!(ids, want);
    }
}

impl<W> Sched<W> {
    /// Walks everything that `check` has no time for.
    fn audit(&self) {
        for (at, pool) in (0..).zip(&self.pools) {
            let of_pool = self.waiting.iter().filter(|(_, waiting)| waiting.facts.pool == PoolId(at));
            let mut by_class = [0; Class::COUNT];
            of_pool.for_each(|(_, waiting)| by_class[waiting.lane.class.index()] += 1);
            assert_eq!((pool.waiting, pool.waiting_by_class), (by_class.iter().sum(), by_class));
            for queue in &pool.lanes {
                queue.audit(&self.waiting);
            }
            for (carries_upgrades, bench) in [(false, &pool.plain_links), (true, &pool.upgrade_links)] {
                for (place, benched) in (0..).zip(bench.row()) {
                    let link = self.links.at(benched.link);
                    let membership = link.membership(PoolId(at)).expect("a member");
                    assert_eq!((membership.place, link.carries_upgrades), (place, carries_upgrades));
                    let free = self.free(link, PoolId(at), membership.in_flight);
                    assert_eq!((benched.free, benched.turn), (free, link.turn));
                }
            }
        }
        for (_, link) in self.links.iter() {
            for membership in &link.memberships {
                let free = self.free(link, membership.pool, membership.in_flight);
                assert_eq!(membership.place == STANDING, free == 0);
            }
        }
    }
}

fn walk(seed: u64) {
    let _seed = Seed(seed);
    let mut walk = Walk::new(seed);
    for _ in 0..STEPS {
        walk.step();
        walk.agree();
    }
    // Calm: every lane is laid out to its end, in its order, and nothing is left.
    for pool in (0..).map(PoolId).take(POOLS) {
        for lane in Lane::all() {
            let want: Vec<RequestId> = walk.plain.lane(pool, lane).iter().map(|request| request.id).collect();
            let got: Vec<RequestId> =
                std::iter::from_fn(|| walk.sched.show(pool, lane).map(|(request, _)| request)).collect();
            assert_eq!(got, want);
        }
    }
    for request in std::mem::take(&mut walk.plain.waiting) {
        assert_eq!(walk.sched.leave(request.id, Left::Granted), Some(request.what));
        walk.books.granted += 1;
    }
    walk.agree();
}

#[test]
fn every_answer_is_the_one_that_a_plain_vec_gives() {
    match std::env::var("PTTH_SEED") {
        Ok(seed) => walk(seed.parse().expect("a number")),
        Err(_) => (0..SEEDS).for_each(walk),
    }
}
