//! One core's waiting requests and its links: who waits in which order, and which link has a credit. Knows no HTTP, no clock,
//! no chance and no other core; facts come in as arguments and the same calls always give the same answers.
//!
//! A request binds late: it gets a link only when that link has a credit. Until then it stands in a lane: its pool, its
//! class and what it needs, the oldest first. The head of a lane is laid out for all cores ([`Sched::show`]), and which
//! core's credit takes it is decided above, in `dispatch`; the rest of the lane is this core's alone.

mod bench;
mod link;
mod queue;
mod service_time;
mod slots;

#[cfg(test)]
mod model;

use crate::clock::Now;
use crate::ids::{Class, LinkId, PoolId, RequestId};
use crate::limits::LINK_STREAMS_MAX;
use bench::{Bench, Benched, STANDING};
use link::{Link, Membership};
pub use link::{LinkFacts, LinkState, Voice};
use queue::{Queue, Waiting};
pub use service_time::ServiceTime;
use slots::Slots;
use std::rc::Rc;

/// What the configuration says about a pool, as far as one core's links are concerned.
#[derive(Clone, Debug)]
pub struct PoolBounds {
    /// Requests of this pool at once on one link, whatever the link asks for.
    pub per_link_max: u32,
}

/// Which links can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Every link of its pool.
    Any,
    /// Only links that carry upgrades.
    Upgrade,
}

/// What a link offers a request of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOffer {
    /// So many requests now, at least one.
    Credits(u32),
    /// Nothing, for it has as many as it takes.
    Full,
    /// Nothing any more.
    Drains,
    /// Nothing, but on trial: it has taken requests and answered none.
    Mute,
    /// It has not said yet how many it takes.
    Silent,
    /// It does not carry upgrades.
    NoUpgrades,
    /// It does not serve the pool, or is gone.
    Elsewhere,
}

/// All that dispatch knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub pool: PoolId,
    pub class: Class,
    pub needs: Needs,
    /// Its first arrival, however often it comes back.
    pub stamp: Now,
}

impl Facts {
    /// The lane that it joins.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { class: self.class, needs: self.needs }
    }
}

/// One of a pool's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub class: Class,
    pub needs: Needs,
}

impl Lane {
    /// Lanes of one pool.
    pub const COUNT: usize = Class::COUNT * 2;

    #[must_use]
    pub fn index(self) -> usize {
        self.class.index() * 2 + usize::from(self.needs == Needs::Upgrade)
    }

    /// Every lane of a pool, the most urgent first.
    pub fn all() -> impl Iterator<Item = Lane> {
        Class::all().flat_map(|class| [Needs::Any, Needs::Upgrade].map(|needs| Lane { class, needs }))
    }
}

/// How a request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A link of this core serves it.
    Granted,
    /// A link of another core does.
    Taken,
    /// Its client left, or its time is over.
    Cancelled,
}

/// What waited since the core started. `joined = granted + taken + cancelled + waiting`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub joined: u64,
    pub granted: u64,
    pub taken: u64,
    pub cancelled: u64,
}

/// One core's scheduler. `W` is what its holder keeps with each request that waits.
pub struct Sched<W> {
    pools: Vec<Pool>,
    waiting: Slots<Waiting<W>>,
    links: Slots<Link>,
    /// Counts requests that joined, grants and arrivals of links: breaks ties, always upwards.
    turn: u64,
    books: Books,
}

struct Pool {
    bounds: PoolBounds,
    lanes: [Queue; Lane::COUNT],
    /// Requests that wait, laid out or not.
    waiting: usize,
    /// The same by the class in which they do.
    waiting_by_class: [usize; Class::COUNT],
    /// Links with a credit that carry no upgrade, and those that do.
    plain_links: Bench,
    upgrade_links: Bench,
    /// Links that do not drain, with or without a credit.
    links: usize,
}

impl<W> Sched<W> {
    /// An empty scheduler for these pools, numbered in this order.
    #[must_use]
    pub fn new(pools: Vec<PoolBounds>) -> Sched<W> {
        let pools: Vec<Pool> = pools.into_iter().map(Pool::new).collect();
        Sched { pools, waiting: Slots::new(), links: Slots::new(), turn: 0, books: Books::default() }
    }

    // ---- requests ----

    /// A request joins its lane at the place that its stamp gives it, behind equal ones.
    pub fn join(&mut self, facts: Facts, what: impl FnOnce(RequestId) -> W) -> RequestId {
        self.books.joined += 1;
        let turn = self.next_turn();
        let index = self.waiting.insert_with(|number| Waiting::new(facts, facts.lane(), turn, what(RequestId(number))));
        let pool = self.pool_mut(facts.pool);
        pool.waiting += 1;
        pool.waiting_by_class[facts.class.index()] += 1;
        self.list(index);
        self.check();
        RequestId(self.waiting.number(index))
    }

    /// Takes the head of a lane off its list: it is laid out for every core. It waits on, until it [leaves](Self::leave).
    pub fn show(&mut self, pool: PoolId, lane: Lane) -> Option<(RequestId, &W)> {
        let Sched { pools, waiting, .. } = self;
        let queue = &mut pools[usize::from(pool.0)].lanes[lane.index()];
        let index = queue.head()?;
        queue.leave(waiting, index);
        Some((RequestId(waiting.number(index)), &waiting.at(index).what))
    }

    /// Puts a request that was laid out back on its list, at its old place.
    pub fn unshow(&mut self, request: RequestId) {
        if let Some(index) = self.waiting.find(request.0) {
            self.list(index);
        }
        self.check();
    }

    /// A request is over here. `None`: it had left before; safe to repeat.
    pub fn leave(&mut self, request: RequestId, how: Left) -> Option<W> {
        let index = self.waiting.find(request.0)?;
        if self.waiting.at(index).listed {
            self.unlist(index);
        }
        let waiting = self.waiting.remove(index);
        let pool = self.pool_mut(waiting.facts.pool);
        pool.waiting -= 1;
        pool.waiting_by_class[waiting.lane.class.index()] -= 1;
        *match how {
            Left::Granted => &mut self.books.granted,
            Left::Taken => &mut self.books.taken,
            Left::Cancelled => &mut self.books.cancelled,
        } += 1;
        self.check();
        Some(waiting.what)
    }

    /// What its holder keeps with a request that waits.
    #[must_use]
    pub fn what(&self, request: RequestId) -> Option<&W> {
        self.waiting.find(request.0).map(|index| &self.waiting.at(index).what)
    }

    /// As [`what`](Self::what), for every request of a pool that waits, in no order.
    pub fn waiting_in(&self, pool: PoolId) -> impl Iterator<Item = &W> {
        self.waiting.iter().map(|(_, waiting)| waiting).filter(move |one| one.facts.pool == pool).map(|one| &one.what)
    }

    /// Where a request stands now, and whether it is on its lane's list (or laid out).
    #[must_use]
    pub fn place(&self, request: RequestId) -> Option<(Facts, Lane, bool)> {
        let index = self.waiting.find(request.0)?;
        let waiting = self.waiting.at(index);
        Some((waiting.facts, waiting.lane, waiting.listed))
    }

    /// Moves every listed request of a pool to the class that its waiting has earned: one up for each `age_step_ms`, never
    /// above `most_urgent`. The lists of its lanes are made anew, oldest first; what is laid out stays where it is.
    pub fn age(&mut self, pool: PoolId, age_step_ms: u64, most_urgent: Class, now: Now) {
        let mut listed: Vec<u32> = Vec::new();
        for lane in Lane::all() {
            while let Some(index) = self.pool(pool).lanes[lane.index()].head() {
                self.unlist(index);
                listed.push(index);
            }
        }
        listed.sort_unstable_by_key(|&index| self.waiting.at(index).age());
        for index in listed {
            let waiting = self.waiting.at_mut(index);
            let class = aged(waiting.facts.class, waiting.facts.stamp, age_step_ms, most_urgent, now);
            let before = std::mem::replace(&mut waiting.lane.class, class);
            let by_class = &mut self.pool_mut(pool).waiting_by_class;
            by_class[before.index()] -= 1;
            by_class[class.index()] += 1;
            self.list(index); // the youngest so far: no walk
        }
        self.check();
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

    /// The link takes `streams_max` requests at once from now on, [`LINK_STREAMS_MAX`] at most; what it has already stays.
    pub fn link_credits(&mut self, link: LinkId, streams_max: u32) {
        if let Some(index) = self.links.find(link.0) {
            let link = self.links.at_mut(index);
            link.has_asked = true;
            link.streams_max = streams_max.min(LINK_STREAMS_MAX);
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

    /// Whether its worker answers what it takes, or may show that it does. A trial ends with its grant.
    pub fn link_voice(&mut self, link: LinkId, voice: Voice) {
        if let Some(index) = self.links.find(link.0) {
            self.links.at_mut(index).voice = voice;
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

    /// The link that a request of the pool gets now: the one with the most credits, and among equals the one that was not
    /// served for longest.
    #[must_use]
    pub fn link_for(&self, pool: PoolId, needs: Needs) -> Option<LinkId> {
        self.pool(pool).best_link(needs).map(|index| LinkId(self.links.number(index)))
    }

    /// Takes a credit that [`link_for`](Self::link_for) found.
    pub fn grant(&mut self, link: LinkId, pool: PoolId) {
        let turn = self.next_turn();
        let index = self.links.find(link.0).expect("a link that link_for found");
        let link = self.links.at_mut(index);
        debug_assert!(link.free() > 0, "granted without a credit");
        link.in_flight += 1;
        link.turn = turn;
        if link.voice != Voice::Answers {
            link.voice = Voice::Mute { on_trial: false };
        }
        link.membership_mut(pool).in_flight += 1;
        self.seat(index);
        self.check();
    }

    /// One request on the link has ended; once for each grant. Nothing happens when the link is gone.
    pub fn release(&mut self, link: LinkId, pool: PoolId) {
        if let Some(index) = self.links.find(link.0) {
            let link = self.links.at_mut(index);
            assert!(link.in_flight > 0, "released more often than granted");
            link.in_flight -= 1;
            link.ended += 1;
            link.membership_mut(pool).in_flight -= 1;
            self.seat(index);
        }
        self.check();
    }

    // ---- what others read ----

    /// The pools that a link serves; `None` when it is gone.
    #[must_use]
    pub fn pools_of(&self, link: LinkId) -> Option<Rc<[PoolId]>> {
        self.link(link).map(|link| Rc::clone(&link.pools))
    }

    /// Some link of the pool has a credit for a request with these needs.
    #[must_use]
    pub fn has_credit(&self, pool: PoolId, needs: Needs) -> bool {
        let pool = self.pool(pool);
        !pool.upgrade_links.is_empty() || (needs == Needs::Any && !pool.plain_links.is_empty())
    }

    /// Some link of the pool carries upgrades.
    #[must_use]
    pub fn carries_any(&self, pool: PoolId) -> bool {
        self.links_of(pool).any(|link| link.carries_upgrades)
    }

    /// Some link of the pool has not yet said what it takes and carries.
    #[must_use]
    pub fn is_undecided(&self, pool: PoolId) -> bool {
        self.links_of(pool).any(|link| !link.has_asked)
    }

    /// Links of the pool that do not drain, with or without a credit.
    #[must_use]
    pub fn links(&self, pool: PoolId) -> usize {
        self.pool(pool).links
    }

    /// Requests of the pool that wait, laid out or not.
    #[must_use]
    pub fn waiting(&self, pool: PoolId) -> usize {
        self.pool(pool).waiting
    }

    /// Those that wait in each class, the most urgent first. Waiting may have made them more urgent.
    #[must_use]
    pub fn waiting_by_class(&self, pool: PoolId) -> [usize; Class::COUNT] {
        self.pool(pool).waiting_by_class
    }

    /// Requests of a lane that are not laid out.
    #[must_use]
    pub fn listed(&self, pool: PoolId, lane: Lane) -> usize {
        self.pool(pool).lanes[lane.index()].len()
    }

    /// `None` when it is gone.
    #[must_use]
    pub fn voice(&self, link: LinkId) -> Option<Voice> {
        self.link(link).map(|link| link.voice)
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

    /// Requests that have ended on the link since it came up.
    #[must_use]
    pub fn ended(&self, link: LinkId) -> u64 {
        self.link(link).map_or(0, |link| link.ended)
    }

    /// Those of one pool among them.
    #[must_use]
    pub fn in_flight_of(&self, link: LinkId, pool: PoolId) -> u32 {
        self.link(link).and_then(|link| link.membership(pool)).map_or(0, |membership| membership.in_flight)
    }

    /// Requests that the link takes now, of pools that let it.
    #[must_use]
    pub fn credits(&self, link: LinkId) -> u32 {
        let free = |link: &Link| link.memberships.iter().map(|m| self.free(link, m.pool, m.in_flight)).max();
        self.link(link).and_then(free).unwrap_or(0)
    }

    /// Whether this link would serve a request of the pool now, and why not.
    #[must_use]
    pub fn offer_of(&self, link: LinkId, pool: PoolId, needs: Needs) -> LinkOffer {
        let Some(link) = self.link(link) else { return LinkOffer::Elsewhere };
        let Some(membership) = link.membership(pool) else { return LinkOffer::Elsewhere };
        match self.free(link, pool, membership.in_flight) {
            _ if link.draining => LinkOffer::Drains,
            _ if !link.has_asked => LinkOffer::Silent,
            _ if needs == Needs::Upgrade && !link.carries_upgrades => LinkOffer::NoUpgrades,
            0 if link.voice != Voice::Answers => LinkOffer::Mute,
            0 => LinkOffer::Full,
            free => LinkOffer::Credits(free),
        }
    }

    /// Requests that the pool's links here take now. Links of several pools count in each.
    #[must_use]
    pub fn pool_credits(&self, pool: PoolId) -> u32 {
        let pool = self.pool(pool);
        pool.plain_links.row().iter().chain(pool.upgrade_links.row()).map(|benched| benched.free).sum()
    }

    /// Requests that the pool's links here take at once, all in all.
    #[must_use]
    pub fn pool_capacity(&self, pool: PoolId) -> u32 {
        let per_link_max = self.pool(pool).bounds.per_link_max;
        self.links_of(pool).map(|link| link.streams_max.min(per_link_max)).sum()
    }

    /// Every link's seat in every pool that it serves: the pool, its requests in flight there, and what it takes of it now.
    pub fn each_seat(&self, mut each: impl FnMut(PoolId, u32, u32)) {
        for (_, link) in self.links.iter() {
            for membership in &link.memberships {
                each(membership.pool, membership.in_flight, self.free(link, membership.pool, membership.in_flight));
            }
        }
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

    fn links_of(&self, pool: PoolId) -> impl Iterator<Item = &Link> {
        let links = self.links.iter().map(|(_, link)| link);
        links.filter(move |link| !link.draining && link.membership(pool).is_some())
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn list(&mut self, index: u32) {
        let Sched { pools, waiting, .. } = self;
        let (pool, lane) = (waiting.at(index).facts.pool, waiting.at(index).lane);
        pools[usize::from(pool.0)].lanes[lane.index()].join(waiting, index);
    }

    fn unlist(&mut self, index: u32) {
        let Sched { pools, waiting, .. } = self;
        let (pool, lane) = (waiting.at(index).facts.pool, waiting.at(index).lane);
        pools[usize::from(pool.0)].lanes[lane.index()].leave(waiting, index);
    }

    /// What the link takes now of a pool of which it has `in_flight` already.
    fn free(&self, link: &Link, pool: PoolId, in_flight: u32) -> u32 {
        link.free().min(self.pool(pool).bounds.per_link_max.saturating_sub(in_flight))
    }

    /// Brings the link's seat in each of its pools up to date with its credits.
    fn seat(&mut self, index: u32) {
        for at in 0..self.links.at(index).memberships.len() {
            let link = self.links.at(index);
            let Membership { pool, place, in_flight } = link.memberships[at];
            let free = self.free(link, pool, in_flight);
            if free == 0 {
                self.stand(index, at);
                continue;
            }
            let (turn, carries_upgrades) = (link.turn, link.carries_upgrades);
            let bench = self.pool_mut(pool).bench_mut(carries_upgrades);
            let place = bench.sit(place, Benched { link: index, free, turn });
            self.links.at_mut(index).memberships[at].place = place;
        }
    }

    /// Takes the link off every bench.
    fn unseat(&mut self, index: u32) {
        for at in 0..self.links.at(index).memberships.len() {
            self.stand(index, at);
        }
    }

    /// Takes the link off the bench of one of its pools.
    fn stand(&mut self, index: u32, at: usize) {
        let link = self.links.at_mut(index);
        let carries_upgrades = link.carries_upgrades;
        let membership = &mut link.memberships[at];
        let (pool, place) = (membership.pool, std::mem::replace(&mut membership.place, STANDING));
        if place == STANDING {
            return;
        }
        if let Some(moved) = self.pool_mut(pool).bench_mut(carries_upgrades).stand(place) {
            self.links.at_mut(moved).membership_mut(pool).place = place;
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
            let Books { joined, granted, taken, cancelled } = self.books;
            let waiting = u64::try_from(self.waiting.len()).expect("fits");
            assert_eq!(joined, granted + taken + cancelled + waiting, "the books do not balance");
        }
    }
}

/// The class that a request has after it has waited: one more urgent for each step, but not above `most_urgent`. A class that
/// is above it from the start stays.
#[must_use]
pub fn aged(class: Class, stamp: Now, age_step_ms: u64, most_urgent: Class, now: Now) -> Class {
    let steps = now.ms_since(stamp).checked_div(age_step_ms).unwrap_or(0);
    let steps = u8::try_from(steps).unwrap_or(u8::MAX);
    Class::of(class.urgency().saturating_sub(steps).max(most_urgent.urgency().min(class.urgency())))
}

impl Pool {
    fn new(bounds: PoolBounds) -> Pool {
        Pool {
            bounds,
            lanes: [const { Queue::EMPTY }; Lane::COUNT],
            waiting: 0,
            waiting_by_class: [0; Class::COUNT],
            plain_links: Bench::EMPTY,
            upgrade_links: Bench::EMPTY,
            links: 0,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId(0);
    const OTHER: PoolId = PoolId(1);
    const LANE: Lane = Lane { class: Class::of(3), needs: Needs::Any };

    fn two_pools() -> Sched<()> {
        Sched::new([3, 5].map(|per_link_max| PoolBounds { per_link_max }).to_vec())
    }

    fn link(sched: &mut Sched<()>, pools: &[PoolId], credits: u32) -> LinkId {
        let link = sched.link_up(LinkFacts { pools: pools.to_vec(), carries_upgrades: false });
        sched.link_credits(link, credits);
        link
    }

    fn join(sched: &mut Sched<()>, class: u8, stamp_ms: u64) -> RequestId {
        let stamp = Now(0).plus_ms(stamp_ms);
        sched.join(Facts { pool: POOL, class: Class::of(class), needs: Needs::Any, stamp }, |_| ())
    }

    fn show_all(sched: &mut Sched<()>, lane: Lane) -> Vec<RequestId> {
        std::iter::from_fn(|| sched.show(POOL, lane).map(|(request, ())| request)).collect()
    }

    /// The link that the pool's next request gets.
    #[track_caller]
    fn granted(sched: &mut Sched<()>, pool: PoolId) -> LinkId {
        let link = sched.link_for(pool, Needs::Any).expect("a credit");
        sched.grant(link, pool);
        link
    }

    #[test]
    fn a_returned_request_goes_to_its_old_place() {
        let mut sched = two_pools();
        let young: Vec<_> = (5..8).map(|stamp| join(&mut sched, 3, stamp)).collect();
        let second = join(&mut sched, 3, 2);
        let first = join(&mut sched, 3, 1);
        let third = join(&mut sched, 3, 5);
        let last = join(&mut sched, 3, 7);
        let want = [first, second, young[0], third, young[1], young[2], last];
        assert_eq!(show_all(&mut sched, LANE), want);
        for request in [third, first, young[2], second] {
            sched.unshow(request);
        }
        assert_eq!(show_all(&mut sched, LANE), [first, second, third, young[2]], "whatever the order of coming back");
    }

    #[test]
    fn what_is_laid_out_waits_until_it_leaves_and_leaves_once() {
        let mut sched = two_pools();
        let requests = [join(&mut sched, 3, 1), join(&mut sched, 3, 2)];
        assert_eq!(sched.show(POOL, LANE), Some((requests[0], &())));
        assert_eq!((sched.waiting(POOL), sched.listed(POOL, LANE)), (2, 1));
        assert_eq!(sched.leave(requests[0], Left::Taken), Some(()), "laid out");
        assert_eq!(sched.leave(requests[1], Left::Cancelled), Some(()), "on its list");
        assert_eq!((sched.waiting(POOL), sched.listed(POOL, LANE)), (0, 0));
        for request in requests {
            assert_eq!(sched.leave(request, Left::Granted), None);
            sched.unshow(request);
            assert_eq!((sched.place(request), sched.show(POOL, LANE)), (None, None));
        }
        assert_eq!(sched.books(), Books { joined: 2, granted: 0, taken: 1, cancelled: 1 });
    }

    #[test]
    fn ageing_leaves_alone_what_is_laid_out_and_the_order_by_stamp() {
        let mut sched = two_pools();
        let shown = join(&mut sched, 3, 0);
        assert_eq!(sched.show(POOL, LANE), Some((shown, &())));
        let [young, old] = [join(&mut sched, 2, 900), join(&mut sched, 3, 1)];
        sched.age(POOL, 1000, Class::of(1), Now(0).plus_ms(1001));
        let two = Lane { class: Class::of(2), needs: Needs::Any };
        assert_eq!(sched.place(shown).map(|(_, lane, listed)| (lane, listed)), Some((LANE, false)));
        assert_eq!(show_all(&mut sched, two), [old, young]);
    }

    #[test]
    fn a_request_rises_one_class_a_step_as_far_as_the_most_urgent() {
        // class, most urgent, step and time waited, then the class it has
        for (class, most_urgent, step_ms, waited_ms, want) in [
            (7, 2, 1000, 0, 7),
            (7, 2, 1000, 999, 7),
            (7, 2, 1000, 1000, 6),
            (7, 2, 1000, 4999, 3),
            (7, 2, 1000, 5000, 2),
            (7, 2, 1000, u64::MAX / 1_000_000, 2),
            (7, 0, 1, u64::MAX / 1_000_000, 0),
            (2, 2, 1000, 5000, 2),
            (1, 2, 1000, 5000, 1), // above the bound from the start
            (0, 7, 1, 5000, 0),
            (7, 0, 0, 5000, 7), // no step: no ageing
        ] {
            let (stamp, now) = (Now(0), Now(0).plus_ms(waited_ms));
            let got = aged(Class::of(class), stamp, step_ms, Class::of(most_urgent), now);
            assert_eq!(got, Class::of(want), "class {class}, {waited_ms} ms of {step_ms}");
        }
        let before = aged(Class::of(7), Now(0).plus_ms(5), 1, Class::of(0), Now(0));
        assert_eq!(before, Class::of(7), "another core's stamp may be later than now");
    }

    #[test]
    fn work_spreads_over_links_and_goes_round_among_equals() {
        let mut sched = two_pools();
        let links: Vec<_> = (0..3).map(|_| link(&mut sched, &[POOL], 1)).collect();
        for _ in 0..4 {
            for &link in &links {
                assert_eq!(granted(&mut sched, POOL), link);
                sched.release(link, POOL);
            }
        }
        let large = link(&mut sched, &[POOL], 3);
        assert_eq!((granted(&mut sched, POOL), granted(&mut sched, POOL)), (large, large), "most credits first");
        assert_eq!(granted(&mut sched, POOL), links[0]);
    }

    #[test]
    fn per_link_max_holds_for_each_pool_of_a_link() {
        let mut sched = two_pools();
        let both = link(&mut sched, &[POOL, OTHER], 7);
        assert_eq!((sched.pool_credits(POOL), sched.pool_credits(OTHER), sched.credits(both)), (3, 5, 5));
        (0..3).for_each(|_| _ = granted(&mut sched, POOL));
        assert_eq!(sched.link_for(POOL, Needs::Any), None, "its own bound");
        assert_eq!((sched.pool_credits(OTHER), sched.credits(both)), (4, 4), "what the link has left");
        (0..4).for_each(|_| _ = granted(&mut sched, OTHER));
        assert_eq!(sched.link_for(OTHER, Needs::Any), None, "the link's bound");
        sched.release(both, OTHER);
        assert_eq!((sched.link_for(POOL, Needs::Any), sched.link_for(OTHER, Needs::Any)), (None, Some(both)));
        sched.release(both, POOL);
        assert_eq!((sched.pool_credits(POOL), sched.pool_credits(OTHER)), (1, 2));
        assert_eq!((sched.in_flight_of(both, POOL), sched.in_flight_of(both, OTHER)), (2, 3));
    }

    #[test]
    fn a_link_has_at_most_so_many_requests_whatever_it_asks_for() {
        let mut sched = Sched::<()>::new(vec![PoolBounds { per_link_max: u32::MAX }]);
        let link = link(&mut sched, &[POOL], u32::MAX);
        assert_eq!(sched.credits(link), LINK_STREAMS_MAX);
    }

    #[test]
    fn credits_below_what_is_in_flight_mean_none_until_enough_has_ended() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 3);
        (0..3).for_each(|_| _ = granted(&mut sched, POOL));
        sched.link_credits(link, 1);
        for in_flight in [2, 1] {
            sched.release(link, POOL);
            assert_eq!((sched.in_flight(link), sched.credits(link)), (in_flight, 0));
            assert!(!sched.has_credit(POOL, Needs::Any));
        }
        sched.release(link, POOL);
        assert_eq!(sched.link_for(POOL, Needs::Any), Some(link));
    }

    #[test]
    fn an_upgrade_gets_only_a_link_that_carries_it() {
        let mut sched = two_pools();
        let plain = link(&mut sched, &[POOL], 3);
        assert!(sched.has_credit(POOL, Needs::Any) && !sched.has_credit(POOL, Needs::Upgrade));
        assert!(!sched.carries_any(POOL));
        sched.carries_upgrades(plain, true);
        assert_eq!(sched.link_for(POOL, Needs::Upgrade), Some(plain));
        assert!(sched.carries_any(POOL) && !sched.carries_any(OTHER));
        sched.carries_upgrades(plain, false);
        assert_eq!((sched.link_for(POOL, Needs::Upgrade), sched.link_for(POOL, Needs::Any)), (None, Some(plain)));
    }

    #[test]
    fn a_link_is_undecided_until_it_says_what_it_takes() {
        let mut sched = two_pools();
        let link = sched.link_up(LinkFacts { pools: vec![POOL], carries_upgrades: false });
        assert!(sched.is_undecided(POOL) && !sched.is_undecided(OTHER) && sched.links(POOL) == 1);
        sched.link_credits(link, 0);
        assert!(!sched.is_undecided(POOL) && sched.links(POOL) == 1, "a link without credits is a link");
    }

    #[test]
    fn a_mute_link_gets_one_request_with_each_trial() {
        let mut sched = two_pools();
        let mute = link(&mut sched, &[POOL], 3);
        let (quiet, trial) = (Voice::Mute { on_trial: false }, Voice::Mute { on_trial: true });
        granted(&mut sched, POOL);
        sched.link_voice(mute, quiet);
        assert_eq!(sched.link_for(POOL, Needs::Any), None);
        sched.link_voice(mute, trial);
        assert_eq!(sched.credits(mute), 1);
        assert_eq!(granted(&mut sched, POOL), mute, "beside what it has");
        assert_eq!((sched.voice(mute), sched.credits(mute)), (Some(quiet), 0), "a trial is one request");
        sched.link_voice(mute, Voice::Answers);
        assert_eq!(sched.credits(mute), 1);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Grant,
        Release,
        Credits,
        Carries,
        Mute,
        Drains,
        Down,
    }

    /// One request is in flight and one credit is left, then the link comes into the state and the event happens.
    #[track_caller]
    fn check(state: LinkState, event: Event, want: (LinkState, u32, u32)) {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 2);
        granted(&mut sched, POOL);
        match state {
            LinkState::Open => (),
            LinkState::Draining => sched.link_drains(link),
            LinkState::Gone => sched.link_down(link),
        }
        assert_eq!(sched.state(link), state);
        match event {
            Event::Grant => {
                if let Some(link) = sched.link_for(POOL, Needs::Any) {
                    sched.grant(link, POOL);
                }
            }
            Event::Release => sched.release(link, POOL),
            Event::Credits => sched.link_credits(link, 3),
            Event::Carries => sched.carries_upgrades(link, true),
            Event::Mute => sched.link_voice(link, Voice::Mute { on_trial: false }),
            Event::Drains => sched.link_drains(link),
            Event::Down => sched.link_down(link),
        }
        let got = (sched.state(link), sched.in_flight(link), sched.credits(link));
        assert_eq!(got, want, "{state:?} x {event:?}");
        assert_eq!(sched.links(POOL), usize::from(got.0 == LinkState::Open), "{state:?} x {event:?}");
        assert_eq!(sched.pool_credits(POOL), got.2, "{state:?} x {event:?}");
        assert_eq!(sched.pools_of(link).is_some(), got.0 != LinkState::Gone, "{state:?} x {event:?}");
    }

    #[test]
    fn every_event_in_every_state_of_a_link() {
        use {Event::*, LinkState::*};
        // state and event, then state, in flight, credits
        check(Open, Grant, (Open, 2, 0));
        check(Open, Release, (Open, 0, 2));
        check(Open, Credits, (Open, 1, 2));
        check(Open, Carries, (Open, 1, 1));
        check(Open, Mute, (Open, 1, 0));
        check(Open, Drains, (Draining, 1, 0));
        check(Open, Down, (Gone, 0, 0));
        check(Draining, Grant, (Draining, 1, 0));
        check(Draining, Release, (Draining, 0, 0));
        check(Draining, Credits, (Draining, 1, 0));
        check(Draining, Carries, (Draining, 1, 0));
        check(Draining, Mute, (Draining, 1, 0));
        check(Draining, Drains, (Draining, 1, 0));
        check(Draining, Down, (Gone, 0, 0));
        for event in [Grant, Release, Credits, Carries, Mute, Drains, Down] {
            check(Gone, event, (Gone, 0, 0));
        }
    }

    #[test]
    #[should_panic(expected = "released more often than granted")]
    fn a_release_without_a_grant_is_loud() {
        let mut sched = two_pools();
        let link = link(&mut sched, &[POOL], 1);
        sched.release(link, POOL);
    }
}
