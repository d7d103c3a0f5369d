//! The scheduler against a plain `Vec` that does the same by looking at everything. No shortcut of the real one enters.
//!
//! `PTTH_SEED=7 cargo test sched::model` walks one seed; a failure prints its own.

use super::*;

const POOLS: usize = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 300;

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
    pool: PoolId,
    needs: Needs,
    stamp: Now,
}

#[derive(Debug)]
struct PlainLink {
    id: LinkId,
    pools: Vec<PoolId>,
    carries_upgrades: bool,
    draining: bool,
    streams_max: u32,
    /// Stamps, pools and needs of what it serves.
    serves: Vec<(PoolId, Needs, Now)>,
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

impl PlainLink {
    fn free(&self) -> u32 {
        if self.draining { 0 } else { self.streams_max.saturating_sub(u32::try_from(self.serves.len()).expect("few")) }
    }

    fn fits(&self, pool: PoolId, needs: Needs) -> bool {
        self.pools.contains(&pool) && (needs == Needs::Any || self.carries_upgrades)
    }
}

impl Plain {
    fn next_service(&mut self) -> usize {
        self.services += 1;
        self.services
    }

    /// The position of the link that a request gets: most free, then longest unserved.
    fn best(&self, pool: PoolId, needs: Needs) -> Option<usize> {
        let able = (0..self.links.len()).filter(|&at| self.links[at].fits(pool, needs) && self.links[at].free() > 0);
        able.min_by_key(|&at| (std::cmp::Reverse(self.links[at].free()), self.links[at].last_served))
    }

    fn serve(&mut self, at: usize, pool: PoolId, needs: Needs, stamp: Now) -> LinkId {
        let service = self.next_service();
        let link = &mut self.links[at];
        link.serves.push((pool, needs, stamp));
        link.last_served = service;
        link.id
    }

    /// What an offer should give: a link, or `None` for waiting.
    fn offer(&mut self, pool: PoolId, needs: Needs, stamp: Now) -> Option<LinkId> {
        let at = self.best(pool, needs)?;
        let link = &self.links[at];
        let older = self.waiting.iter().any(|other| other.stamp <= stamp && link.fits(other.pool, other.needs));
        (!older).then(|| self.serve(at, pool, needs, stamp))
    }

    fn next_grant(&mut self) -> Option<Grant> {
        // Positions are in order of arrival here, and `min_by_key` takes the first of equals.
        let able =
            (0..self.waiting.len()).filter(|&at| self.best(self.waiting[at].pool, self.waiting[at].needs).is_some());
        let at = able.min_by_key(|&at| self.waiting[at].stamp)?;
        let PlainRequest { id, pool, needs, stamp } = self.waiting.remove(at);
        let link = self.best(pool, needs).expect("able");
        Some(Grant { request: id, link: self.serve(link, pool, needs, stamp) })
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
    sched: Sched,
    plain: Plain,
    chance: Chance,
    clock: u64,
    /// Every number that was ever given out, the dead ones too.
    requests: Vec<RequestId>,
    links: Vec<LinkId>,
    cancelled: u64,
    taken: u64,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let bounds = |per_link_max| PoolBounds { per_link_max, hold_without_workers: true };
        let per_link_max: Vec<u32> = (0..POOLS).map(|_| [1, 2, 5, 100][chance.below(4)]).collect();
        Walk {
            sched: Sched::new(per_link_max.iter().copied().map(bounds).collect()),
            plain: Plain { per_link_max, ..Plain::default() },
            chance,
            clock: 0,
            requests: Vec::new(),
            links: Vec::new(),
            cancelled: 0,
            taken: 0,
        }
    }

    fn pool(&mut self) -> PoolId {
        PoolId(u16::try_from(self.chance.below(POOLS)).expect("few"))
    }

    fn offer(&mut self, pool: PoolId, needs: Needs, stamp: Now) {
        let want = self.plain.offer(pool, needs, stamp);
        match (self.sched.offer(pool, needs, stamp), want) {
            (Offer::Granted(got), Some(want)) => assert_eq!(got, want),
            (Offer::Waits(id), None) => {
                assert!(!self.requests.contains(&id), "a number was used twice");
                self.requests.push(id);
                self.plain.waiting.push(PlainRequest { id, pool, needs, stamp });
            }
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    fn step(&mut self) {
        match self.chance.below(16) {
            0..=4 => {
                self.clock += self.chance.below(3) as u64;
                let pool = self.pool();
                let needs = if self.chance.one_in(4) { Needs::Upgrade } else { Needs::Any };
                self.offer(pool, needs, Now(self.clock));
            }
            5 => {
                if let Some(id) = self.chance.pick(&self.requests) {
                    let before = self.plain.waiting.len();
                    self.plain.waiting.retain(|request| request.id != id);
                    let was_waiting = self.plain.waiting.len() < before;
                    self.cancelled += u64::from(was_waiting);
                    assert_eq!(self.sched.cancel(id), was_waiting);
                }
            }
            6 => self.link_up(),
            7 => {
                if let Some(id) = self.chance.pick(&self.links) {
                    let asked = u32::try_from(self.chance.below(8)).expect("few");
                    self.sched.link_credits(id, asked);
                    let Plain { per_link_max, links, .. } = &mut self.plain;
                    if let Some(link) = links.iter_mut().find(|link| link.id == id) {
                        let ours = link.pools.iter().map(|pool| per_link_max[usize::from(pool.0)]).max();
                        link.streams_max = asked.min(ours.expect("a pool"));
                    }
                }
            }
            8 => {
                if let Some(id) = self.chance.pick(&self.links) {
                    let carries = self.chance.one_in(2);
                    self.sched.carries_upgrades(id, carries);
                    if let Some(link) = self.plain.link(id) {
                        link.carries_upgrades = carries;
                    }
                }
            }
            9 if self.chance.one_in(4) => {
                if let Some(id) = self.chance.pick(&self.links) {
                    self.sched.link_drains(id);
                    if let Some(link) = self.plain.link(id) {
                        link.draining = true;
                    }
                }
            }
            10 if self.chance.one_in(4) => self.link_down(),
            11 if self.chance.one_in(6) => {
                let (pool, max) = (self.pool(), self.chance.below(4));
                let mut want: Vec<PlainRequest> =
                    self.plain.waiting.iter().copied().filter(|request| request.pool == pool).collect();
                want.sort_by_key(|request| request.stamp); // stable
                let want: Vec<RequestId> = want.into_iter().take(max).map(|request| request.id).collect();
                assert_eq!(self.sched.take_waiting(pool, max), want);
                self.plain.waiting.retain(|request| !want.contains(&request.id));
                self.taken += want.len() as u64;
            }
            _ => self.release(),
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
        let last_served = self.plain.next_service();
        let (draining, streams_max, serves) = (false, 0, Vec::new());
        self.plain.links.push(PlainLink { id, pools, carries_upgrades, draining, streams_max, serves, last_served });
    }

    /// A link goes; its requests go back to their old places, or their clients give up.
    fn link_down(&mut self) {
        let Some(id) = self.chance.pick(&self.links) else { return };
        self.sched.link_down(id);
        let Some(at) = self.plain.links.iter().position(|link| link.id == id) else { return };
        let gone = self.plain.links.remove(at);
        for (pool, needs, stamp) in gone.serves {
            self.sched.release(id); // harmless
            if self.chance.one_in(2) {
                self.offer(pool, needs, stamp);
            }
        }
    }

    /// A request ends, or is refused and comes back.
    fn release(&mut self) {
        let busy: Vec<usize> =
            (0..self.plain.links.len()).filter(|&at| !self.plain.links[at].serves.is_empty()).collect();
        let Some(at) = self.chance.pick(&busy) else { return };
        let nth = self.chance.below(self.plain.links[at].serves.len());
        let (pool, needs, stamp) = self.plain.links[at].serves.swap_remove(nth);
        self.sched.release(self.plain.links[at].id);
        if self.chance.one_in(5) {
            self.offer(pool, needs, stamp);
        }
    }

    fn grants(&mut self) {
        while let Some(want) = self.plain.next_grant() {
            assert_eq!(self.sched.next_grant(), Some(want));
            self.agree();
        }
        assert_eq!(self.sched.next_grant(), None);
    }

    fn agree(&self) {
        self.sched.audit();
        for pool in (0..).map(PoolId).take(POOLS) {
            let waiting = self.plain.waiting.iter().filter(|request| request.pool == pool);
            assert_eq!(self.sched.waiting(pool), waiting.clone().count());
            assert_eq!(self.sched.oldest(pool), waiting.map(|request| request.stamp).min());
            let links = self.plain.links.iter().filter(|link| link.pools.contains(&pool));
            assert_eq!(self.sched.links(pool), links.clone().filter(|link| !link.draining).count());
            assert_eq!(self.sched.pool_credits(pool), links.map(PlainLink::free).sum::<u32>());
        }
        for link in &self.plain.links {
            assert_eq!(self.sched.credits(link.id), link.free());
            assert_eq!(self.sched.in_flight(link.id) as usize, link.serves.len());
        }
        assert_eq!(self.sched.link_ids().count(), self.plain.links.len());
        let Books { offered, granted, cancelled, taken } = self.sched.books();
        assert_eq!((cancelled, taken), (self.cancelled, self.taken));
        assert_eq!(offered, granted + cancelled + taken + self.plain.waiting.len() as u64);
    }
}

impl Sched {
    /// Walks everything that `check` has no time for.
    fn audit(&self) {
        for (at, pool) in (0..).zip(&self.pools) {
            pool.any.audit(&self.waiting);
            pool.upgrade.audit(&self.waiting);
            assert_eq!(self.pending.iter().filter(|&&listed| listed == PoolId(at)).count(), usize::from(pool.pending));
            assert!(pool.pending || pool.oldest_servable(&self.waiting).is_none(), "a grant was forgotten");
            for (carries_upgrades, bench) in [(false, &pool.plain_links), (true, &pool.upgrade_links)] {
                for (place, benched) in (0..).zip(bench.row()) {
                    let link = self.links.at(benched.link);
                    let membership = link.memberships.iter().find(|m| m.pool == PoolId(at)).expect("a member");
                    assert_eq!((membership.place, link.carries_upgrades), (place, carries_upgrades));
                    assert_eq!((benched.free, benched.turn), (link.free(), link.turn));
                }
            }
        }
        for (_, link) in self.links.iter() {
            for membership in &link.memberships {
                assert_eq!(membership.place == STANDING, link.free() == 0);
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
        if !walk.chance.one_in(5) {
            walk.grants();
        }
    }
    // Calm: links for everything, and nothing is left.
    let id = walk.sched.link_up(LinkFacts { pools: (0..).map(PoolId).take(POOLS).collect(), carries_upgrades: true });
    while !walk.plain.waiting.is_empty() {
        walk.sched.link_credits(id, 100);
        while let Some(grant) = walk.sched.next_grant() {
            let at = walk.plain.waiting.iter().position(|request| request.id == grant.request);
            walk.plain.waiting.remove(at.expect("granted once"));
        }
        while walk.sched.in_flight(id) > 0 {
            walk.sched.release(id);
        }
    }
    assert!((0..).map(PoolId).take(POOLS).all(|pool| walk.sched.waiting(pool) == 0));
}

#[test]
fn every_grant_is_the_one_that_a_plain_vec_makes() {
    match std::env::var("PTTH_SEED") {
        Ok(seed) => walk(seed.parse().expect("a number")),
        Err(_) => (0..SEEDS).for_each(walk),
    }
}
