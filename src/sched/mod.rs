//! Who gets the next credit: one core's waiting requests and its links. Knows no HTTP, no clock, no chance and no other
//! core; facts come in as arguments and the same calls always give the same grants.
//!
//! A request binds late: it gets a link only when that link has a credit. Until then it waits in its pool, the oldest
//! first. What stands here is plain: one order for each pool and core. Classes will stand inside [`queue`] (a list for
//! each class), a pool's own bound on concurrency beside the benches.
//!
//! Whoever calls this asks [`Sched::next_grant`] until `None` after every call that could free a credit or add a waiting
//! request; between such rounds no request waits that a link with a credit could serve.

mod bench;
mod link;
mod queue;
mod slots;

#[cfg(test)]
mod model;

use crate::clock::Now;
use crate::ids::{LinkId, PoolId, RequestId};
use crate::limits::LINK_STREAMS_MAX;
use bench::{Bench, Benched, STANDING};
use link::Link;
pub use link::{LinkFacts, LinkState};
use queue::{Queue, Waiting};
use slots::Slots;

/// What the configuration says about a pool, as far as dispatch is concerned.
#[derive(Clone, Debug)]
pub struct PoolBounds {
    /// Requests at once on one link of this pool, whatever the link asks for.
    pub per_link_max: u32,
    /// Whether requests wait for a worker to arrive; false makes [`Sched::stranded`] point them out.
    pub hold_without_workers: bool,
}

/// Which links can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Every link of its pool.
    Any,
    /// Only links that carry upgrades.
    Upgrade,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// This link serves it now; its credit is taken.
    Granted(LinkId),
    /// It waits under this number, until a grant names it or it is cancelled.
    Waits(RequestId),
}

/// A waiting request meets a link; the credit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub request: RequestId,
    pub link: LinkId,
}

/// What went in and out since the core started. `offered = granted + cancelled + taken + waiting`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub offered: u64,
    pub granted: u64,
    pub cancelled: u64,
    /// Left by [`Sched::take_waiting`].
    pub taken: u64,
}

/// One core's scheduler.
pub struct Sched {
    pools: Vec<Pool>,
    waiting: Slots<Waiting>,
    links: Slots<Link>,
    /// Pools in which a grant may be possible. Each at most once, so it never grows beyond `pools`.
    pending: Vec<PoolId>,
    /// Counts offers, grants and arrivals of links: breaks ties, always upwards.
    turn: u64,
    books: Books,
}

struct Pool {
    bounds: PoolBounds,
    any: Queue,
    upgrade: Queue,
    /// Links with a credit that carry no upgrade, and those that do.
    plain_links: Bench,
    upgrade_links: Bench,
    /// Links that do not drain, with or without a credit.
    links: usize,
    /// Listed in `Sched::pending`.
    pending: bool,
}

impl Sched {
    /// An empty scheduler for these pools, numbered in this order.
    #[must_use]
    pub fn new(pools: Vec<PoolBounds>) -> Sched {
        let pools: Vec<Pool> = pools.into_iter().map(Pool::new).collect();
        Sched {
            pending: Vec::with_capacity(pools.len()),
            pools,
            waiting: Slots::new(),
            links: Slots::new(),
            turn: 0,
            books: Books::default(),
        }
    }

    // ---- requests ----

    /// A request arrives, or comes back with the stamp that it first arrived with. It gets a link at once if one has a
    /// credit and nothing at least as old waits for that link; else it takes its place by stamp, behind equal ones.
    pub fn offer(&mut self, pool: PoolId, needs: Needs, stamp: Now) -> Offer {
        self.books.offered += 1;
        let offer = match self.pool(pool).best_link(needs) {
            Some(link) if !self.keeps_waiting(link, stamp) => Offer::Granted(self.grant(link)),
            _ => {
                let turn = self.next_turn();
                let Sched { pools, waiting, .. } = self;
                let queue = pools[usize::from(pool.0)].queue_mut(needs);
                let request = queue.insert(waiting, Waiting::new(pool, needs, stamp, turn));
                self.look_at(pool);
                Offer::Waits(request)
            }
        };
        self.check();
        offer
    }

    /// The request's client left, or its time is over. True: it was waiting and is now forgotten. False: it had been
    /// granted, taken or cancelled before; safe to repeat.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let found = self.waiting.find(request.0);
        if let Some(index) = found {
            self.unqueue(index);
            self.books.cancelled += 1;
        }
        self.check();
        found.is_some()
    }

    /// Takes up to `max` requests of a pool out of the queue, the oldest first, so that another core or an answer of
    /// the edge can have them.
    pub fn take_waiting(&mut self, pool: PoolId, max: usize) -> Vec<RequestId> {
        let mut taken = Vec::with_capacity(max.min(self.waiting(pool)));
        while taken.len() < max {
            let Some(index) = self.pool(pool).oldest(&self.waiting, true, true) else { break };
            taken.push(RequestId(self.waiting.number(index)));
            self.unqueue(index);
            self.books.taken += 1;
        }
        self.check();
        taken
    }

    /// The next request that some link with a credit can serve, the oldest over all pools. Call it until `None`.
    pub fn next_grant(&mut self) -> Option<Grant> {
        let mut oldest: Option<u32> = None;
        let mut at = 0;
        while at < self.pending.len() {
            let pool = self.pending[at];
            let Some(index) = self.pool(pool).oldest_servable(&self.waiting) else {
                self.pending.swap_remove(at);
                self.pool_mut(pool).pending = false;
                continue;
            };
            if oldest.is_none_or(|other| self.waiting.at(index).age() < self.waiting.at(other).age()) {
                oldest = Some(index);
            }
            at += 1;
        }
        let grant = oldest.map(|index| {
            let request = RequestId(self.waiting.number(index));
            let waiting = self.unqueue(index);
            let link = self.pool(waiting.pool).best_link(waiting.needs).expect("it was servable");
            Grant { request, link: self.grant(link) }
        });
        self.check();
        grant
    }

    // ---- links ----

    /// A link is ready. It has no credit until [`link_credits`](Self::link_credits).
    pub fn link_up(&mut self, facts: LinkFacts) -> LinkId {
        let turn = self.next_turn();
        let index = self.links.insert(Link::new(facts, turn));
        for membership in &self.links.at(index).memberships {
            self.pools[usize::from(membership.pool.0)].links += 1;
        }
        self.check();
        LinkId(self.links.number(index))
    }

    /// The link takes `streams_max` requests at once from now on; what it has already stays. Ours is the last word:
    /// [`LINK_STREAMS_MAX`], and the largest `per_link_max` among its pools.
    pub fn link_credits(&mut self, link: LinkId, streams_max: u32) {
        if let Some(index) = self.links.find(link.0) {
            self.links.at_mut(index).asked = streams_max;
            let Sched { links, pools, .. } = self;
            let link = links.at_mut(index);
            let per_link_max = link.memberships.iter().map(|m| pools[usize::from(m.pool.0)].bounds.per_link_max);
            link.streams_max = link.asked.min(LINK_STREAMS_MAX).min(per_link_max.max().unwrap_or(0));
            self.seat(index);
        }
        self.check();
    }

    /// Learned late (SETTINGS of an h2 link): whether it serves requests that need an upgrade.
    pub fn carries_upgrades(&mut self, link: LinkId, carries: bool) {
        if let Some(index) = self.links.find(link.0) {
            self.unseat(index);
            self.links.at_mut(index).carries_upgrades = carries;
            self.seat(index);
        }
        self.check();
    }

    /// The link takes no more requests (GOAWAY, drain); it finishes what it has. Safe to repeat.
    pub fn link_drains(&mut self, link: LinkId) {
        if let Some(index) = self.links.find(link.0) {
            self.leave_pools(index);
            self.links.at_mut(index).draining = true;
            self.seat(index);
        }
        self.check();
    }

    /// The link is gone. Its requests still in flight are its holder's to bring back; releasing them is harmless.
    pub fn link_down(&mut self, link: LinkId) {
        if let Some(index) = self.links.find(link.0) {
            self.leave_pools(index);
            self.unseat(index);
            self.links.remove(index);
        }
        self.check();
    }

    /// One request on the link has ended; once for each grant. Nothing happens when the link is gone.
    pub fn release(&mut self, link: LinkId) {
        if let Some(index) = self.links.find(link.0) {
            let link = self.links.at_mut(index);
            assert!(link.in_flight > 0, "released more often than granted");
            link.in_flight -= 1;
            self.seat(index);
        }
        self.check();
    }

    // ---- what others read ----

    /// Some link of the pool carries upgrades.
    #[must_use]
    pub fn carries_any(&self, pool: PoolId) -> bool {
        let links = self.links.iter().map(|(_, link)| link);
        links
            .filter(|link| !link.draining && link.carries_upgrades)
            .any(|link| link.memberships.iter().any(|m| m.pool == pool))
    }

    /// The pool has links, every one of them has said how much it takes, and none can carry an upgrade.
    #[must_use]
    pub fn cannot_upgrade(&self, pool: PoolId) -> bool {
        let links = self.links.iter().map(|(_, link)| link);
        let mut links = links.filter(|link| !link.draining && link.memberships.iter().any(|m| m.pool == pool));
        self.links(pool) > 0 && links.all(|link| !link.carries_upgrades && link.asked > 0)
    }

    /// Links of the pool that do not drain, with or without a credit.
    #[must_use]
    pub fn links(&self, pool: PoolId) -> usize {
        self.pool(pool).links
    }

    /// Requests of the pool that wait.
    #[must_use]
    pub fn waiting(&self, pool: PoolId) -> usize {
        let pool = self.pool(pool);
        pool.any.len() + pool.upgrade.len()
    }

    /// When the pool's oldest waiting request arrived.
    #[must_use]
    pub fn oldest(&self, pool: PoolId) -> Option<Now> {
        self.pool(pool).oldest(&self.waiting, true, true).map(|index| self.waiting.at(index).stamp)
    }

    /// Requests wait although no link serves the pool here and the pool does not hold. The caller sends them to a core
    /// that has links, or answers them.
    #[must_use]
    pub fn stranded(&self, pool: PoolId) -> bool {
        !self.pool(pool).bounds.hold_without_workers && self.links(pool) == 0 && self.waiting(pool) > 0
    }

    #[must_use]
    pub fn state(&self, link: LinkId) -> LinkState {
        self.link(link).map_or(LinkState::Gone, Link::state)
    }

    /// Requests now on the link; 0 when it is gone.
    #[must_use]
    pub fn in_flight(&self, link: LinkId) -> u32 {
        self.link(link).map_or(0, |link| link.in_flight)
    }

    /// Requests that the link takes now.
    #[must_use]
    pub fn credits(&self, link: LinkId) -> u32 {
        self.link(link).map_or(0, Link::free)
    }

    /// Requests that the link takes at once, all in all.
    #[must_use]
    pub fn streams_max(&self, link: LinkId) -> u32 {
        self.link(link).map_or(0, |link| link.streams_max)
    }

    /// Requests that the pool's links here take now. Links of several pools count in each.
    #[must_use]
    pub fn pool_credits(&self, pool: PoolId) -> u32 {
        let pool = self.pool(pool);
        pool.plain_links.row().iter().chain(pool.upgrade_links.row()).map(|benched| benched.free).sum()
    }

    /// The links of this core that are not gone, in no order; for status pages.
    pub fn link_ids(&self) -> impl Iterator<Item = LinkId> {
        self.links.iter().map(|(index, _)| LinkId(self.links.number(index)))
    }

    #[must_use]
    pub fn books(&self) -> Books {
        self.books
    }

    // ---- helpers ----

    fn pool(&self, pool: PoolId) -> &Pool {
        &self.pools[usize::from(pool.0)]
    }

    fn pool_mut(&mut self, pool: PoolId) -> &mut Pool {
        &mut self.pools[usize::from(pool.0)]
    }

    fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.find(link.0).map(|index| self.links.at(index))
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Whether something at least as old as `stamp` waits that this link could serve, in any of its pools.
    fn keeps_waiting(&self, link: u32, stamp: Now) -> bool {
        let link = self.links.at(link);
        link.memberships.iter().any(|membership| {
            let oldest = self.pool(membership.pool).oldest(&self.waiting, true, link.carries_upgrades);
            oldest.is_some_and(|index| self.waiting.at(index).stamp <= stamp)
        })
    }

    /// Takes one credit of the link for a request that leaves the queue or never entered it.
    fn grant(&mut self, index: u32) -> LinkId {
        let turn = self.next_turn();
        self.books.granted += 1;
        let link = self.links.at_mut(index);
        debug_assert!(link.free() > 0, "granted without a credit");
        link.in_flight += 1;
        link.turn = turn;
        self.seat(index);
        LinkId(self.links.number(index))
    }

    fn unqueue(&mut self, index: u32) -> Waiting {
        let Sched { pools, waiting, .. } = self;
        let (pool, needs) = (waiting.at(index).pool, waiting.at(index).needs);
        pools[usize::from(pool.0)].queue_mut(needs).remove(waiting, index)
    }

    /// Notes that a grant may be possible in the pool.
    fn look_at(&mut self, pool: PoolId) {
        let entry = self.pool_mut(pool);
        if !entry.pending && entry.any.len() + entry.upgrade.len() > 0 {
            entry.pending = true;
            self.pending.push(pool);
        }
    }

    /// Brings the link's seat in each of its pools up to date with its credits.
    fn seat(&mut self, index: u32) {
        let link = self.links.at(index);
        let (free, turn, carries_upgrades) = (link.free(), link.turn, link.carries_upgrades);
        if free == 0 {
            self.unseat(index);
            return;
        }
        for at in 0..link.memberships.len() {
            let membership = &mut self.links.at_mut(index).memberships[at];
            let bench = self.pools[usize::from(membership.pool.0)].bench_mut(carries_upgrades);
            membership.place = bench.sit(membership.place, Benched { link: index, free, turn });
            let pool = membership.pool;
            self.look_at(pool);
        }
    }

    /// Takes the link off every bench.
    fn unseat(&mut self, index: u32) {
        let carries_upgrades = self.links.at(index).carries_upgrades;
        for at in 0..self.links.at(index).memberships.len() {
            let membership = &mut self.links.at_mut(index).memberships[at];
            let (pool, place) = (membership.pool, std::mem::replace(&mut membership.place, STANDING));
            if place == STANDING {
                continue;
            }
            if let Some(moved) = self.pool_mut(pool).bench_mut(carries_upgrades).stand(place) {
                let moved = &mut self.links.at_mut(moved).memberships;
                moved.iter_mut().find(|m| m.pool == pool).expect("it sits there").place = place;
            }
        }
    }

    /// The link stops counting as one that serves its pools.
    fn leave_pools(&mut self, index: u32) {
        let link = self.links.at(index);
        if link.draining {
            return; // it left when it began to drain
        }
        for membership in &link.memberships {
            self.pools[usize::from(membership.pool.0)].links -= 1;
        }
    }

    /// What must hold after each call and can be seen without a walk. The tests walk as well.
    fn check(&self) {
        if cfg!(debug_assertions) {
            let Books { offered, granted, cancelled, taken } = self.books;
            let waiting = u64::try_from(self.waiting.len()).expect("fits");
            assert_eq!(offered, granted + cancelled + taken + waiting, "the books do not balance");
            assert!(self.pending.len() <= self.pools.len(), "a pool is pending twice");
        }
    }
}

impl Pool {
    fn new(bounds: PoolBounds) -> Pool {
        Pool {
            bounds,
            any: Queue::EMPTY,
            upgrade: Queue::EMPTY,
            plain_links: Bench::EMPTY,
            upgrade_links: Bench::EMPTY,
            links: 0,
            pending: false,
        }
    }

    fn queue_mut(&mut self, needs: Needs) -> &mut Queue {
        match needs {
            Needs::Any => &mut self.any,
            Needs::Upgrade => &mut self.upgrade,
        }
    }

    fn bench_mut(&mut self, carries_upgrades: bool) -> &mut Bench {
        if carries_upgrades { &mut self.upgrade_links } else { &mut self.plain_links }
    }

    /// The link that a request gets now.
    fn best_link(&self, needs: Needs) -> Option<u32> {
        let upgrade = self.upgrade_links.best();
        let plain = if needs == Needs::Any { self.plain_links.best() } else { None };
        let best = match (plain, upgrade) {
            (Some(a), Some(b)) => Some(if b.beats(a) { b } else { a }),
            (a, b) => a.or(b),
        };
        best.map(|benched| benched.link)
    }

    /// The oldest request that some link with a credit can serve.
    fn oldest_servable(&self, slots: &Slots<Waiting>) -> Option<u32> {
        let upgrade = !self.upgrade_links.is_empty();
        self.oldest(slots, upgrade || !self.plain_links.is_empty(), upgrade)
    }

    /// The oldest request in one or both queues.
    fn oldest(&self, slots: &Slots<Waiting>, any: bool, upgrade: bool) -> Option<u32> {
        let any = self.any.head().filter(|_| any);
        let upgrade = self.upgrade.head().filter(|_| upgrade);
        match (any, upgrade) {
            (Some(a), Some(b)) => Some(if slots.at(b).age() < slots.at(a).age() { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId(0);
    const OTHER: PoolId = PoolId(1);

    fn two_pools() -> Sched {
        let bounds = |per_link_max| PoolBounds { per_link_max, hold_without_workers: per_link_max == 3 };
        Sched::new(vec![bounds(3), bounds(5)])
    }

    fn link(sched: &mut Sched, pools: &[PoolId], credits: u32) -> LinkId {
        let link = sched.link_up(LinkFacts { pools: pools.to_vec(), carries_upgrades: false });
        sched.link_credits(link, credits);
        link
    }

    #[track_caller]
    fn waits(sched: &mut Sched, pool: PoolId, needs: Needs, stamp: u64) -> RequestId {
        match sched.offer(pool, needs, Now(stamp)) {
            Offer::Waits(request) => request,
            Offer::Granted(link) => panic!("granted to {link:?}"),
        }
    }

    #[track_caller]
    fn granted(sched: &mut Sched, pool: PoolId, stamp: u64) -> LinkId {
        match sched.offer(pool, Needs::Any, Now(stamp)) {
            Offer::Granted(link) => link,
            Offer::Waits(_) => panic!("waits"),
        }
    }

    fn grants(sched: &mut Sched) -> Vec<RequestId> {
        std::iter::from_fn(|| sched.next_grant()).map(|grant| grant.request).collect()
    }

    #[test]
    fn a_request_that_finds_a_credit_never_waits() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 1);
        assert_eq!(granted(&mut sched, POOL, 1), link);
        let second = waits(&mut sched, POOL, Needs::Any, 2);
        assert_eq!(grants(&mut sched), [], "nothing is parked on a busy link");
        sched.release(link);
        assert_eq!(sched.next_grant(), Some(Grant { request: second, link }));
    }

    #[test]
    fn a_new_request_does_not_overtake_one_that_waits_for_the_same_credit() {
        let mut sched = two_pools();
        let first = waits(&mut sched, POOL, Needs::Any, 1);
        let link = link(&mut sched, &[POOL, OTHER], 1);
        let second = waits(&mut sched, OTHER, Needs::Any, 1);
        assert_eq!(grants(&mut sched), [first]);
        sched.release(link);
        assert_eq!(grants(&mut sched), [second]);
    }

    #[test]
    fn a_returned_request_goes_to_its_old_place() {
        let mut sched = two_pools();
        let young: Vec<_> = (5..8).map(|stamp| waits(&mut sched, POOL, Needs::Any, stamp)).collect();
        let second = waits(&mut sched, POOL, Needs::Any, 2);
        let first = waits(&mut sched, POOL, Needs::Any, 1);
        let third = waits(&mut sched, POOL, Needs::Any, 5);
        let last = waits(&mut sched, POOL, Needs::Any, 7);
        link(&mut sched, &[POOL], 3);
        link(&mut sched, &[POOL], 3);
        link(&mut sched, &[POOL], 3);
        assert_eq!(grants(&mut sched), [first, second, young[0], third, young[1], young[2], last]);
    }

    #[test]
    fn a_returned_request_takes_a_credit_before_younger_ones_see_it() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 1);
        assert_eq!(granted(&mut sched, POOL, 1), link);
        waits(&mut sched, POOL, Needs::Any, 9);
        sched.release(link);
        assert_eq!(granted(&mut sched, POOL, 1), link, "older than all that waits: no queue");
    }

    #[test]
    fn an_upgrade_waits_for_a_link_that_carries_it_and_stops_nobody_else() {
        let mut sched = two_pools();
        let plain = link(&mut sched, &[POOL], 3);
        let upgrade = waits(&mut sched, POOL, Needs::Upgrade, 1);
        assert_eq!(granted(&mut sched, POOL, 2), plain);
        assert_eq!(grants(&mut sched), []);
        sched.carries_upgrades(plain, true);
        assert_eq!(grants(&mut sched), [upgrade]);
    }

    #[test]
    fn a_link_of_two_pools_serves_the_older_request_first() {
        let mut sched = two_pools();
        let b = waits(&mut sched, OTHER, Needs::Any, 2);
        let c = waits(&mut sched, POOL, Needs::Any, 3);
        let a = waits(&mut sched, POOL, Needs::Any, 1);
        link(&mut sched, &[POOL, OTHER], 5);
        assert_eq!(grants(&mut sched), [a, b, c]);
    }

    #[test]
    fn work_spreads_over_links_and_goes_round_among_equals() {
        let mut sched = two_pools();
        let links: Vec<_> = (0..3).map(|_| link(&mut sched, &[POOL], 1)).collect();
        for round in 0..4 {
            for &link in &links {
                assert_eq!(granted(&mut sched, POOL, round), link);
                sched.release(link);
            }
        }
        let large = link(&mut sched, &[POOL], 3);
        assert_eq!((granted(&mut sched, POOL, 9), granted(&mut sched, POOL, 9)), (large, large), "most credits first");
        assert_eq!(granted(&mut sched, POOL, 9), links[0]);
    }

    #[test]
    fn credits_keep_within_the_largest_bound_of_the_pools() {
        let mut sched = two_pools();
        let one = link(&mut sched, &[POOL], u32::MAX);
        let both = link(&mut sched, &[POOL, OTHER], u32::MAX);
        assert_eq!((sched.credits(one), sched.credits(both)), (3, 5));
        sched.link_credits(both, 2);
        assert_eq!((sched.streams_max(both), sched.pool_credits(POOL), sched.pool_credits(OTHER)), (2, 5, 2));
    }

    #[test]
    fn credits_below_what_is_in_flight_mean_none_until_enough_has_ended() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 3);
        (0..3).for_each(|stamp| _ = granted(&mut sched, POOL, stamp));
        sched.link_credits(link, 1);
        let request = waits(&mut sched, POOL, Needs::Any, 4);
        sched.release(link);
        sched.release(link);
        assert_eq!((sched.in_flight(link), sched.credits(link)), (1, 0));
        assert_eq!(grants(&mut sched), []);
        sched.release(link);
        assert_eq!(grants(&mut sched), [request]);
    }

    #[test]
    fn requests_of_a_pool_that_does_not_hold_are_stranded_without_a_link() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL, OTHER], 0);
        let requests = [waits(&mut sched, OTHER, Needs::Any, 1), waits(&mut sched, OTHER, Needs::Upgrade, 2)];
        waits(&mut sched, POOL, Needs::Any, 1);
        assert!(!sched.stranded(OTHER), "a link without credits is a link");
        sched.link_drains(link);
        assert!(sched.stranded(OTHER) && !sched.stranded(POOL));
        assert_eq!(sched.take_waiting(OTHER, 9), requests);
        assert!(!sched.stranded(OTHER));
        assert!(!sched.cancel(requests[0]), "what was taken is not here any more");
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Offer,
        Release,
        Credits,
        Carries,
        Drains,
        Down,
    }

    /// One request is in flight and one credit is left, then the link comes into the state and the event happens.
    #[track_caller]
    fn check(state: LinkState, event: Event, want: (LinkState, u32, u32)) {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 2);
        granted(&mut sched, POOL, 0);
        match state {
            LinkState::Open => (),
            LinkState::Draining => sched.link_drains(link),
            LinkState::Gone => sched.link_down(link),
        }
        assert_eq!(sched.state(link), state);
        match event {
            Event::Offer => _ = sched.offer(POOL, Needs::Any, Now(1)),
            Event::Release => sched.release(link),
            Event::Credits => sched.link_credits(link, 3),
            Event::Carries => sched.carries_upgrades(link, true),
            Event::Drains => sched.link_drains(link),
            Event::Down => sched.link_down(link),
        }
        let got = (sched.state(link), sched.in_flight(link), sched.credits(link));
        assert_eq!(got, want, "{state:?} x {event:?}");
        assert_eq!(sched.links(POOL), usize::from(got.0 == LinkState::Open), "{state:?} x {event:?}");
        assert_eq!(sched.pool_credits(POOL), got.2, "{state:?} x {event:?}");
    }

    #[test]
    fn every_event_in_every_state_of_a_link() {
        use {Event::*, LinkState::*};
        // state and event, then state, in flight, credits
        check(Open, Offer, (Open, 2, 0));
        check(Open, Release, (Open, 0, 2));
        check(Open, Credits, (Open, 1, 2));
        check(Open, Carries, (Open, 1, 1));
        check(Open, Drains, (Draining, 1, 0));
        check(Open, Down, (Gone, 0, 0));
        check(Draining, Offer, (Draining, 1, 0));
        check(Draining, Release, (Draining, 0, 0));
        check(Draining, Credits, (Draining, 1, 0));
        check(Draining, Carries, (Draining, 1, 0));
        check(Draining, Drains, (Draining, 1, 0));
        check(Draining, Down, (Gone, 0, 0));
        for event in [Offer, Release, Credits, Carries, Drains, Down] {
            check(Gone, event, (Gone, 0, 0));
        }
    }

    #[test]
    #[should_panic(expected = "released more often than granted")]
    fn a_release_without_a_grant_is_loud() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 1);
        sched.release(link);
    }
}
