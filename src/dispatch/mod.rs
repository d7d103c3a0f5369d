//! Which waiting request, of all cores, a free credit takes: one core's [`Sched`] put together with what all cores have laid
//! out and with the board of idle credits. No socket, no HTTP and no clock enters; a simulator runs the same code.
//!
//! A credit takes the most urgent class that waits on any core, and in it the oldest. A request that finds a credit on its
//! own core, and nothing at least as urgent in its pool, goes straight to its link: it reads two cache lines that nobody
//! writes while the pool has no waiting request, and writes none that another core reads.
//!
//! No wakeup is lost, because everybody publishes first and looks afterwards, with a SeqCst fence in between: a home lays
//! its request out, then looks for idle credits, here and on the board; a core with a credit left over says so on the
//! board, then looks once more for what waits. A core that was asked in vain takes its bit off the board and asks the next
//! one, so that a stale bit costs one wake and no request its turn.

use std::sync::Arc;

use crate::clock::Now;
use crate::ids::{Class, CoreId, LinkId, PoolId, RequestId};
use crate::limits::{INVERSION_NS_MIN, WINDOW_REQUESTS};
use crate::sched::{Facts, Lane, Left, LinkFacts, Needs, PoolBounds, Sched};
use crate::xcore::{Board, Head, Kind, Parcel, Permit, Permits, Shelf};

/// What the configuration says about a pool, as far as dispatch is concerned.
#[derive(Clone, Debug)]
pub struct PoolRules {
    /// Requests of the pool at once on one link, whatever the link asks for.
    pub per_link_max: u32,
    /// Requests of the pool with its workers at once, over all cores; 0: what the links' credits allow.
    pub concurrency_max: usize,
    /// Waiting makes a request more urgent.
    pub ageing: Option<Ageing>,
}

/// One class up for each step that a request has waited, but not above `most_urgent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ageing {
    pub step_ms: u64,
    pub most_urgent: Class,
}

/// What all cores of an edge share for dispatch. `T` is what a taker needs to serve a request of another core.
pub struct Shared<T> {
    pub rules: Vec<PoolRules>,
    pub shelf: Arc<Shelf<T>>,
    pub board: Arc<Board>,
    permits: Vec<Arc<Permits>>,
}

impl<T> Shared<T> {
    #[must_use]
    pub fn new(rules: Vec<PoolRules>, cores: usize) -> Shared<T> {
        let shelf = Shelf::new(rules.len(), cores);
        let board = Board::new(rules.len(), cores);
        let permits = rules.iter().map(|_| Permits::new()).collect();
        Shared { rules, shelf, board, permits }
    }

    fn concurrency_max(&self, pool: PoolId) -> usize {
        self.rules[usize::from(pool.0)].concurrency_max
    }

    /// `None`: the pool has none left. `Some(None)`: it needs none.
    fn permit(&self, pool: PoolId) -> Option<Option<Permit>> {
        match self.concurrency_max(pool) {
            0 => Some(None),
            max => self.permits[usize::from(pool.0)].try_take(max).map(Some),
        }
    }

    fn has_permit(&self, pool: PoolId) -> bool {
        let max = self.concurrency_max(pool);
        max == 0 || self.permits[usize::from(pool.0)].any_left(max)
    }
}

/// A credit that was taken. Whoever holds it gives it back by [`Dispatcher::release`], once.
#[must_use]
pub struct Grant {
    pub link: LinkId,
    pub pool: PoolId,
    pub permit: Option<Permit>,
    /// The class in which it was taken.
    pub class: Class,
    /// A more urgent request had waited for at least `INVERSION_NS_MIN` where this credit could have taken it.
    pub is_inversion: bool,
    /// Since when both the request and the credit had been there. `None`: it did not wait.
    pub ready_since: Option<Now>,
}

/// A request that waited gets a link of this core.
pub enum Granted<T, K> {
    /// It waits here, under this key.
    Own { key: K, grant: Grant },
    /// It waits on another core, which hears of it by what is in the parcel.
    Foreign { parcel: Arc<Parcel<T>>, grant: Grant },
}

/// What a dispatcher has its core do. Called while the dispatcher is borrowed.
pub trait Host<T, K> {
    fn granted(&mut self, granted: Granted<T, K>);
    /// Has another core look for work: [`Dispatcher::look`].
    fn ring(&mut self, core: CoreId);
    /// The pool's last link, over all cores, has gone.
    fn last_link_left(&mut self, pool: PoolId);
}

/// One core's part of dispatch. `K` is how its holder knows a request of its own that waits.
pub struct Dispatcher<T, K> {
    here: CoreId,
    shared: Arc<Shared<T>>,
    sched: Sched<Own<T, K>>,
    pools: Vec<PoolState>,
}

/// A request of this core that waits.
pub struct Own<T, K> {
    parcel: Arc<Parcel<T>>,
    key: K,
}

/// What this core knows of its own windows and bits, by pool.
#[derive(Clone)]
struct PoolState {
    /// By kind: what the board says of this core.
    is_idle: [bool; 2],
    /// By lane: the youngest stamp that was laid out.
    laid_out: [Now; Lane::COUNT],
    /// By lane: requests that may lie in the window although their clients have left.
    withdrawn: [usize; Lane::COUNT],
}

impl<T, K> Dispatcher<T, K> {
    #[must_use]
    pub fn new(here: CoreId, shared: Arc<Shared<T>>) -> Dispatcher<T, K> {
        let bounds = shared.rules.iter().map(|rules| PoolBounds { per_link_max: rules.per_link_max });
        let state = PoolState { is_idle: [false; 2], laid_out: [Now(0); Lane::COUNT], withdrawn: [0; Lane::COUNT] };
        Dispatcher { here, sched: Sched::new(bounds.collect()), pools: vec![state; shared.rules.len()], shared }
    }

    /// This core's links and waiting requests, to read.
    #[must_use]
    pub fn sched(&self) -> &Sched<Own<T, K>> {
        &self.sched
    }

    /// The keys of this core's requests of a pool that wait, in no order.
    pub fn waiting_in(&self, pool: PoolId) -> impl Iterator<Item = &K> {
        self.sched.waiting_in(pool).map(|own| &own.key)
    }

    // ---- requests ----

    /// A request arrives, or comes back: it gets a link of this core at once if one has a credit and nothing that it could
    /// serve, and that is at least as urgent, waits on any core. Else it has to [`wait`](Self::wait).
    pub fn offer(&mut self, facts: Facts) -> Option<Grant> {
        let Facts { pool, class, needs, .. } = facts;
        let link = self.sched.link_for(pool, needs)?;
        let upgrades = self.sched.has_credit(pool, Needs::Upgrade);
        if self.shared.shelf.waits(pool, class.index(), upgrades) {
            return None;
        }
        let permit = self.shared.permit(pool)?;
        self.sched.grant(link, pool);
        Some(Grant { link, pool, permit, class, is_inversion: false, ready_since: None })
    }

    /// A request joins the queue and is served at once if that is possible after all, here or on another core.
    pub fn wait(&mut self, facts: Facts, what: T, key: K, now: Now, host: &mut impl Host<T, K>) -> RequestId {
        let home = self.here;
        let request = self.sched.join(facts, |request| {
            let parcel = Arc::new(Parcel::new(home, request.0, facts.stamp.0, now.0, what));
            Own { parcel, key }
        });
        let lane = facts.lane();
        if facts.stamp < self.pools[usize::from(facts.pool.0)].laid_out[lane.index()] {
            self.recall(facts.pool, lane); // it comes back to its old place, which is in the window
        }
        self.refill(facts.pool, lane);
        self.serve(&[facts.pool], None, now, host);
        self.pass_on(facts.pool, host);
        request
    }

    /// Some core seems to have an idle credit for such a request, this one or another.
    #[must_use]
    pub fn is_idle_somewhere(&self, pool: PoolId, needs: Needs) -> bool {
        self.sched.has_credit(pool, needs) || self.shared.board.idle_core(pool, kind(needs), self.here).is_some()
    }

    /// The request's client left, or its time is over. False: it has been taken, here or by another core; safe to repeat.
    pub fn cancel(&mut self, request: RequestId, host: &mut impl Host<T, K>) -> bool {
        let Some(own) = self.sched.what(request) else { return false };
        if !own.parcel.withdraw() {
            self.taken(request, host);
            return false;
        }
        let (facts, lane, is_listed) = self.sched.place(request).expect("it waits");
        self.sched.leave(request, Left::Cancelled);
        if !is_listed {
            let withdrawn = &mut self.pools[usize::from(facts.pool.0)].withdrawn[lane.index()];
            *withdrawn += 1;
            if *withdrawn >= WINDOW_REQUESTS / 2 {
                // Half of the window would hold up nobody but its memory.
                self.recall(facts.pool, lane);
                self.refill(facts.pool, lane);
                self.pass_on(facts.pool, host);
            }
        }
        true
    }

    /// Another core has taken a request of this one. Safe to repeat.
    pub fn taken(&mut self, request: RequestId, host: &mut impl Host<T, K>) {
        let Some((facts, lane, _)) = self.sched.place(request) else { return };
        self.sched.leave(request, Left::Taken);
        if self.refill(facts.pool, lane) {
            self.pass_on(facts.pool, host);
        }
    }

    /// Waiting has made requests more urgent, in pools that want it so. Called every `AGE_LOOK_MS`.
    pub fn age(&mut self, now: Now, host: &mut impl Host<T, K>) {
        for pool in self.pool_ids() {
            let Some(Ageing { step_ms, most_urgent }) = self.shared.rules[usize::from(pool.0)].ageing else { continue };
            if self.sched.waiting(pool) == 0 {
                continue;
            }
            for lane in Lane::all() {
                self.recall(pool, lane);
            }
            self.sched.age(pool, step_ms, most_urgent, now);
            for lane in Lane::all() {
                self.refill(pool, lane);
            }
            self.serve(&[pool], None, now, host);
            self.pass_on(pool, host);
        }
    }

    /// Another core asked this one to look for work. What it cannot serve it passes on.
    pub fn look(&mut self, now: Now, host: &mut impl Host<T, K>) {
        for pool in self.pool_ids() {
            if !self.pools[usize::from(pool.0)].is_idle.contains(&true) {
                continue;
            }
            self.serve(&[pool], None, now, host);
            for kind in KINDS {
                if self.pools[usize::from(pool.0)].is_idle[kind as usize] && !self.sched.has_credit(pool, needs(kind)) {
                    self.publish_idle(pool, kind, false);
                    self.pass_on(pool, host);
                }
            }
        }
    }

    // ---- links ----

    /// A link is ready. It has no credit until [`link_credits`](Self::link_credits).
    pub fn link_up(&mut self, facts: LinkFacts, host: &mut impl Host<T, K>) -> LinkId {
        let pools = facts.pools.clone();
        let link = self.sched.link_up(facts);
        self.publish_links(&pools, host);
        link
    }

    /// The link takes so many requests at once from now on, and does or does not carry upgrades.
    pub fn link_credits(
        &mut self,
        link: LinkId,
        streams_max: u32,
        carries_upgrades: bool,
        now: Now,
        host: &mut impl Host<T, K>,
    ) {
        let Some(pools) = self.sched.pools_of(link) else { return };
        self.sched.carries_upgrades(link, carries_upgrades);
        self.sched.link_credits(link, streams_max);
        self.publish_links(&pools, host);
        self.serve(&pools, Some(now), now, host);
    }

    /// The link takes no more requests; it finishes what it has. Safe to repeat.
    pub fn link_drains(&mut self, link: LinkId, host: &mut impl Host<T, K>) {
        let Some(pools) = self.sched.pools_of(link) else { return };
        self.sched.link_drains(link);
        self.publish_links(&pools, host);
    }

    /// The link is gone. Its requests still in flight are their holders' to bring back, and to release.
    pub fn link_down(&mut self, link: LinkId, host: &mut impl Host<T, K>) {
        let Some(pools) = self.sched.pools_of(link) else { return };
        self.sched.link_down(link);
        self.publish_links(&pools, host);
    }

    /// A credit comes back; the most urgent request that waits for it takes it. `clock` is read only if there is one.
    pub fn release(
        &mut self,
        link: LinkId,
        pool: PoolId,
        permit: Option<Permit>,
        clock: impl FnOnce() -> Now,
        host: &mut impl Host<T, K>,
    ) {
        self.sched.release(link, pool);
        let had_permit = permit.is_some();
        drop(permit);
        let pools = self.sched.pools_of(link);
        let pools: &[PoolId] = pools.as_deref().unwrap_or(std::slice::from_ref(&pool));
        if pools.iter().all(|&pool| self.is_quiet(pool)) {
            return;
        }
        let now = clock();
        self.serve(pools, Some(now), now, host);
        if had_permit {
            self.pass_on(pool, host); // the permit may be all that a core with an idle credit waits for
        }
    }

    // ---- what stands behind all of that ----

    /// Hands out this core's credits for `pools` until none is left or nothing waits for them. A credit that is left over is
    /// on the board then. `free_since`: when the credits came that there were none of before.
    fn serve(&mut self, pools: &[PoolId], free_since: Option<Now>, now: Now, host: &mut impl Host<T, K>) {
        loop {
            while let Some((pool, head)) = self.most_urgent(pools, host) {
                // Somebody else may be faster, with the permit or with the request: then look again.
                let Some(permit) = self.shared.permit(pool) else { continue };
                let Some(parcel) = self.shared.shelf.take(pool, head.class, head.kind, head.core) else {
                    drop(permit);
                    continue;
                };
                let ready_since = Now(parcel.offered_ns).max(free_since.unwrap_or_default());
                let is_inversion = self.is_inversion(pool, head, now);
                let link = self.sched.link_for(pool, needs(head.kind));
                let link = link.expect("a credit was there, and it is this core's alone");
                self.sched.grant(link, pool);
                let (class, ready_since) = (lane(head).class, Some(ready_since));
                let grant = Grant { link, pool, permit, class, is_inversion, ready_since };
                self.hand_over(head, parcel, grant, host);
            }
            let mut again = false;
            for &pool in pools {
                again |= self.admit_idle(pool);
            }
            if !again {
                return;
            }
        }
    }

    /// The request that a credit of this core takes next, as it seems from outside of the windows.
    fn most_urgent(&mut self, pools: &[PoolId], host: &mut impl Host<T, K>) -> Option<(PoolId, Head)> {
        let mut best: Option<(PoolId, Head)> = None;
        let rank = |head: &Head| (head.class, head.stamp_ns, head.core != self.here);
        for &pool in pools {
            if !self.sched.has_credit(pool, Needs::Any) || !self.shared.has_permit(pool) {
                continue;
            }
            let upgrades = self.sched.has_credit(pool, Needs::Upgrade);
            let mut was_hidden = false;
            let head = self.shared.shelf.head(pool, upgrades, self.here, || was_hidden = true);
            if was_hidden {
                self.pass_on(pool, host);
            }
            if let Some(head) = head
                && best.as_ref().is_none_or(|(_, other)| rank(&head) < rank(other))
            {
                best = Some((pool, head));
            }
        }
        best
    }

    fn hand_over(&mut self, head: Head, parcel: Arc<Parcel<T>>, grant: Grant, host: &mut impl Host<T, K>) {
        if parcel.home != self.here {
            return host.granted(Granted::Foreign { parcel, grant });
        }
        let own = self.sched.leave(RequestId(parcel.number), Left::Granted).expect("laid out, so it waits");
        self.refill(grant.pool, lane(head));
        host.granted(Granted::Own { key: own.key, grant });
    }

    /// A more urgent request had been there for a while. Only a core that was slow to lay it out, or a race, makes one.
    fn is_inversion(&self, pool: PoolId, head: Head, now: Now) -> bool {
        let upgrades = self.sched.has_credit(pool, Needs::Upgrade);
        self.shared.shelf.waited(pool, head.class, upgrades, now.0.saturating_sub(INVERSION_NS_MIN))
    }

    /// Says on the board what is left over. True: it was not there before, so what waits has to be looked at once more.
    fn admit_idle(&mut self, pool: PoolId) -> bool {
        let mut again = false;
        for kind in KINDS {
            if self.sched.has_credit(pool, needs(kind)) && !self.pools[usize::from(pool.0)].is_idle[kind as usize] {
                self.publish_idle(pool, kind, true);
                again = true;
            }
        }
        again
    }

    fn publish_idle(&mut self, pool: PoolId, kind: Kind, is_idle: bool) {
        self.pools[usize::from(pool.0)].is_idle[kind as usize] = is_idle;
        self.shared.board.publish_idle(self.here, pool, kind, is_idle);
    }

    /// Nothing waits, and the board knows of every credit that is left over.
    fn is_quiet(&self, pool: PoolId) -> bool {
        let is_idle = &self.pools[usize::from(pool.0)].is_idle;
        let known = |kind: Kind| is_idle[kind as usize] || !self.sched.has_credit(pool, needs(kind));
        known(Kind::Any) && known(Kind::Upgrade) && !self.shared.shelf.waits(pool, Class::COUNT - 1, true)
    }

    /// Something may wait that this core has no credit for: whoever has one is asked to look.
    fn pass_on(&self, pool: PoolId, host: &mut impl Host<T, K>) {
        if !self.shared.has_permit(pool) {
            return;
        }
        for kind in KINDS {
            if self.shared.shelf.waits_for(pool, kind)
                && let Some(core) = self.shared.board.idle_core(pool, kind, self.here)
            {
                host.ring(core);
            }
        }
    }

    /// Lays out what the lane's window has room for. True: something was.
    fn refill(&mut self, pool: PoolId, lane: Lane) -> bool {
        let (class, kind) = (lane.class.index(), kind(lane.needs));
        let mut any = false;
        while self.sched.listed(pool, lane) > 0 && self.shared.shelf.has_room(pool, class, kind, self.here) {
            let Some((_, own)) = self.sched.show(pool, lane) else { break };
            let stamp = Now(own.parcel.stamp_ns);
            self.shared.shelf.lay_out(pool, class, kind, Arc::clone(&own.parcel));
            self.pools[usize::from(pool.0)].laid_out[lane.index()] = stamp;
            any = true;
        }
        any
    }

    /// Takes back what the lane's window holds.
    fn recall(&mut self, pool: PoolId, lane: Lane) {
        let (class, kind) = (lane.class.index(), kind(lane.needs));
        for parcel in self.shared.shelf.recall(pool, class, kind, self.here) {
            if parcel.is_waiting() {
                self.sched.unshow(RequestId(parcel.number));
            }
        }
        let state = &mut self.pools[usize::from(pool.0)];
        (state.laid_out[lane.index()], state.withdrawn[lane.index()]) = (Now(0), 0);
    }

    fn publish_links(&self, pools: &[PoolId], host: &mut impl Host<T, K>) {
        for &pool in pools {
            let (any, carriers) = (self.sched.links(pool) > 0, self.sched.carries_any(pool));
            let undecided = self.sched.is_undecided(pool);
            if self.shared.board.publish_links(self.here, pool, any, carriers, undecided) {
                host.last_link_left(pool);
            }
        }
    }

    fn pool_ids(&self) -> impl Iterator<Item = PoolId> + use<T, K> {
        (0..self.pools.len()).map(|pool| PoolId(u16::try_from(pool).expect("bounded by the configuration")))
    }
}

const KINDS: [Kind; 2] = [Kind::Any, Kind::Upgrade];

fn kind(needs: Needs) -> Kind {
    match needs {
        Needs::Any => Kind::Any,
        Needs::Upgrade => Kind::Upgrade,
    }
}

fn needs(kind: Kind) -> Needs {
    match kind {
        Kind::Any => Needs::Any,
        Kind::Upgrade => Needs::Upgrade,
    }
}

fn lane(head: Head) -> Lane {
    let class = Class::of(u8::try_from(head.class).expect("a class"));
    Lane { class, needs: needs(head.kind) }
}
