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

use std::cell::Cell;
use std::sync::Arc;

use crate::clock::Now;
use crate::ids::{Class, CoreId, LinkId, PoolId, RequestId};
use crate::limits::{INVERSION_NS_MIN, WINDOW_REQUESTS};
use crate::sched::{Facts, Lane, Left, LinkFacts, Needs, PoolBounds, Sched, Voice};
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

    /// Before anybody runs on either: this pool's bound counts together with that of another edge. Neither hears when the
    /// other gives a permit back; whoever has to know looks once in a while.
    pub fn share_permits(&mut self, pool: PoolId, other: &Shared<T>, theirs: PoolId) {
        self.permits[usize::from(pool.0)] = other.permits[usize::from(theirs.0)].clone();
    }

    /// Some pool counts permits.
    #[must_use]
    pub fn has_permits(&self) -> bool {
        self.rules.iter().any(|rules| rules.concurrency_max > 0)
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
    /// Has a core look for work, this one at times: [`Dispatcher::look`], once this call is over.
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
    /// By kind: the core that was asked last for an idle credit, so that a burst asks one after the other.
    asked: [Cell<CoreId>; 2],
    /// By lane: the youngest stamp that was laid out.
    laid_out: [Now; Lane::COUNT],
    /// By lane: requests that may lie in the window although their clients have left.
    withdrawn: [usize; Lane::COUNT],
}

impl<T, K> Dispatcher<T, K> {
    #[must_use]
    pub fn new(here: CoreId, shared: Arc<Shared<T>>) -> Dispatcher<T, K> {
        let bounds = shared.rules.iter().map(|rules| PoolBounds { per_link_max: rules.per_link_max });
        let asked = [const { Cell::new(CoreId(0)) }; 2];
        asked.iter().for_each(|asked| asked.set(here));
        let state =
            PoolState { is_idle: [false; 2], asked, laid_out: [Now(0); Lane::COUNT], withdrawn: [0; Lane::COUNT] };
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
        let Facts { pool, class, .. } = facts;
        let link = self.link_at_once(facts)?;
        let permit = self.shared.permit(pool)?;
        self.sched.grant(link, pool);
        Some(Grant { link, pool, permit, class, is_inversion: false, ready_since: None })
    }

    /// Whether [`offer`](Self::offer) would find a credit now.
    #[must_use]
    pub fn would_offer(&self, facts: Facts) -> bool {
        self.link_at_once(facts).is_some() && self.shared.has_permit(facts.pool)
    }

    #[inline]
    fn link_at_once(&self, facts: Facts) -> Option<LinkId> {
        let Facts { pool, class, needs, .. } = facts;
        let link = self.sched.link_for(pool, needs)?;
        let upgrades = self.sched.has_credit(pool, Needs::Upgrade);
        let is_behind =
            self.shared.shelf.waits(pool, class.index(), upgrades) || self.lists(pool, class.index(), upgrades);
        (!is_behind).then_some(link)
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
        let elsewhere = || self.shared.board.idle_core(pool, kind(needs), self.here, self.here).is_some();
        self.shared.has_permit(pool) && (self.sched.has_credit(pool, needs) || elsewhere())
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
            // Half of a window would hold up nobody but its memory; and nobody comes for the last ones of a pool.
            if *withdrawn >= WINDOW_REQUESTS / 2 || self.sched.waiting(facts.pool) == 0 {
                self.recall(facts.pool, lane);
                self.refill(facts.pool, lane);
                self.ask_all(facts.pool, host);
            }
        }
        true
    }

    /// Another core has taken a request of this one. Safe to repeat.
    pub fn taken(&mut self, request: RequestId, host: &mut impl Host<T, K>) {
        let Some((facts, lane, _)) = self.sched.place(request) else { return };
        self.sched.leave(request, Left::Taken);
        if self.refill(facts.pool, lane) {
            self.ask_all(facts.pool, host);
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

    /// Another core asked this one to look for work. What it cannot serve it passes on. All pools at once, because a credit
    /// may be for several.
    pub fn look(&mut self, now: Now, host: &mut impl Host<T, K>) {
        let is_idle = |pool: &PoolId| self.pools[usize::from(pool.0)].is_idle.contains(&true);
        let idle: Vec<PoolId> = self.pool_ids().filter(is_idle).collect();
        let waits = |pool: &PoolId| self.shared.shelf.waits(*pool, Class::COUNT - 1, true);
        let asked: Vec<PoolId> = idle.iter().copied().filter(waits).collect();
        self.serve(&asked, None, now, host);
        for pool in idle {
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

    /// The link's worker takes requests and answers none: no other goes there, but by [`link_trial`](Self::link_trial).
    pub fn link_mute(&mut self, link: LinkId) {
        self.sched.link_voice(link, Voice::Mute { on_trial: false });
    }

    /// The link's worker has answered.
    pub fn link_answers(&mut self, link: LinkId, now: Now, host: &mut impl Host<T, K>) {
        let Some(pools) = self.sched.pools_of(link) else { return };
        self.sched.link_voice(link, Voice::Answers);
        self.serve(&pools, Some(now), now, host);
    }

    /// A mute link may show that it answers, with a request that waits now and that nobody else has taken. False: the link is
    /// gone, or answers.
    pub fn link_trial(&mut self, link: LinkId, now: Now, host: &mut impl Host<T, K>) -> bool {
        let is_mute = self.sched.voice(link).is_some_and(|voice| voice != Voice::Answers);
        let Some(pools) = self.sched.pools_of(link).filter(|_| is_mute) else { return false };
        if !pools.iter().any(|&pool| self.waits(pool)) {
            return true;
        }
        self.sched.link_voice(link, Voice::Mute { on_trial: true });
        self.serve(&pools, Some(now), now, host);
        // Not used: a credit that was only lent must not be found by the next request.
        self.sched.link_voice(link, Voice::Mute { on_trial: false });
        true
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
        if pools.iter().all(|&pool| self.is_quiet(pool, had_permit)) {
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
        for &pool in pools {
            self.lay_out_all(pool, host);
        }
        let mut given_back: Vec<PoolId> = Vec::new(); // almost always empty, and then it allocates nothing
        loop {
            while let Some((pool, head)) = self.most_urgent(pools, host) {
                // Somebody else may be faster, with the permit or with the request, or the request's client has left: then
                // look again.
                let Some(permit) = self.shared.permit(pool) else { continue };
                let Some(parcel) = self.shared.shelf.take(pool, head.class, head.kind, head.core) else {
                    if permit.is_some() && !given_back.contains(&pool) {
                        given_back.push(pool);
                    }
                    drop(permit);
                    continue;
                };
                // Where permits are counted it may have been a permit that both waited for; since when, nobody notes.
                let free_since = if permit.is_some() { Some(now) } else { free_since };
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
                break;
            }
        }
        // While this core held a permit that it did not need, another may have seen none.
        given_back.into_iter().for_each(|pool| self.pass_on(pool, host));
    }

    /// Some request of the pool waits, on any core.
    fn waits(&self, pool: PoolId) -> bool {
        self.sched.waiting(pool) > 0 || self.shared.shelf.waits(pool, Class::COUNT - 1, true)
    }

    /// Others may have emptied this core's windows, and the word of it is on its way: what is behind must not be overtaken.
    fn lay_out_all(&mut self, pool: PoolId, host: &mut impl Host<T, K>) {
        if self.sched.waiting(pool) == 0 {
            return;
        }
        let mut any = false;
        for lane in Lane::all() {
            any |= self.refill(pool, lane);
        }
        if any {
            self.pass_on(pool, host);
        }
    }

    /// Something that waits here behind a full window, or one that others have emptied, is in `class` or a more urgent one and
    /// a credit could serve it.
    fn lists(&self, pool: PoolId, class: usize, upgrades: bool) -> bool {
        self.sched.waiting(pool) > 0
            && Lane::all().any(|lane| {
                let serves = lane.class.index() <= class && (upgrades || lane.needs == Needs::Any);
                serves && self.sched.listed(pool, lane) > 0
            })
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
            let head = loop {
                let mut was_hidden = false;
                let head = self.shared.shelf.head(pool, upgrades, self.here, || was_hidden = true);
                if !was_hidden {
                    break head;
                }
                // Its home saw no bit, and asked nobody: this core asks, and looks once more itself. Each round means that
                // somebody has laid something out.
                self.pass_on(pool, host);
            };
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

    /// A more urgent request had been laid out for a while. Only a race makes one. What lies behind a window that others have
    /// emptied, of which its home has not heard, is not seen.
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
    /// Upgrades count only where what has come back could help one, here or elsewhere: a withdrawn one lies there until a
    /// credit that carries upgrades looks, and such a credit may never come.
    fn is_quiet(&self, pool: PoolId, had_permit: bool) -> bool {
        let is_idle = &self.pools[usize::from(pool.0)].is_idle;
        let known = |kind: Kind| is_idle[kind as usize] || !self.sched.has_credit(pool, needs(kind));
        let upgrades = had_permit || self.sched.has_credit(pool, Needs::Upgrade);
        let all = Class::COUNT - 1;
        let waits = self.shared.shelf.waits(pool, all, upgrades) || self.lists(pool, all, upgrades);
        known(Kind::Any) && known(Kind::Upgrade) && !waits
    }

    /// Something may wait that this core has no credit for: whoever has one is asked to look.
    fn pass_on(&self, pool: PoolId, host: &mut impl Host<T, K>) {
        if !self.shared.has_permit(pool) {
            return;
        }
        for kind in KINDS {
            let asked = &self.pools[usize::from(pool.0)].asked[kind as usize];
            if self.shared.shelf.waits_for(pool, kind)
                && let Some(core) = self.shared.board.idle_core(pool, kind, self.here, asked.get())
            {
                asked.set(core);
                host.ring(core);
            }
        }
    }

    /// As [`pass_on`](Self::pass_on), and this core looks, too: a credit of its own may have found an emptied window.
    fn ask_all(&self, pool: PoolId, host: &mut impl Host<T, K>) {
        if self.pools[usize::from(pool.0)].is_idle.contains(&true) {
            host.ring(self.here);
        }
        self.pass_on(pool, host);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::limits::AGE_LOOK_MS;

    const POOL: PoolId = PoolId(0);
    const OTHER: PoolId = PoolId(1);

    /// Cores side by side, and what they have one another do. Nothing of it happens before somebody says so.
    struct Cores {
        shared: Arc<Shared<u64>>,
        cores: Vec<Dispatcher<u64, u64>>,
        hands: Hands,
        now: Now,
    }

    #[derive(Default)]
    struct Hands {
        here: usize,
        /// Requests that have a link, in the order in which they got it. A request's name is its stamp.
        served: Vec<Served>,
        rings: Vec<usize>,
        /// Homes that have yet to hear that a request of theirs was taken.
        taken: Vec<(usize, RequestId)>,
        last_links: Vec<PoolId>,
    }

    struct Served {
        stamp: u64,
        core: usize,
        grant: Grant,
    }

    impl Host<u64, u64> for Hands {
        fn granted(&mut self, granted: Granted<u64, u64>) {
            let core = self.here;
            match granted {
                Granted::Own { key, grant } => self.served.push(Served { stamp: key, core, grant }),
                Granted::Foreign { parcel, grant } => {
                    assert!(parcel.home.0 != u16::try_from(core).expect("few"), "its own is not foreign");
                    self.taken.push((usize::from(parcel.home.0), RequestId(parcel.number)));
                    self.served.push(Served { stamp: parcel.what, core, grant });
                }
            }
        }

        fn ring(&mut self, core: CoreId) {
            self.rings.push(usize::from(core.0));
        }

        fn last_link_left(&mut self, pool: PoolId) {
            self.last_links.push(pool);
        }
    }

    fn facts(class: u8, stamp: u64) -> Facts {
        Facts { pool: POOL, class: Class::of(class), needs: Needs::Any, stamp: Now(stamp) }
    }

    fn upgrade(class: u8, stamp: u64) -> Facts {
        Facts { needs: Needs::Upgrade, ..facts(class, stamp) }
    }

    fn lane_of(class: u8) -> Lane {
        facts(class, 0).lane()
    }

    impl Cores {
        fn new(cores: u16) -> Cores {
            Cores::with(cores, PoolRules { per_link_max: 200, concurrency_max: 0, ageing: None })
        }

        fn with(cores: u16, rules: PoolRules) -> Cores {
            let shared = Arc::new(Shared::new(vec![rules.clone(), rules], usize::from(cores)));
            let cores = (0..cores).map(|core| Dispatcher::new(CoreId(core), shared.clone())).collect();
            Cores { shared, cores, hands: Hands::default(), now: Now(1_000_000) }
        }

        fn on<R>(&mut self, core: usize, act: impl FnOnce(&mut Dispatcher<u64, u64>, &mut Hands, Now) -> R) -> R {
            self.hands.here = core;
            act(&mut self.cores[core], &mut self.hands, self.now)
        }

        fn link(&mut self, core: usize, streams_max: u32, carries_upgrades: bool) -> LinkId {
            self.link_of(core, &[POOL], streams_max, carries_upgrades)
        }

        fn link_of(&mut self, core: usize, pools: &[PoolId], streams_max: u32, carries_upgrades: bool) -> LinkId {
            let facts = LinkFacts { pools: pools.to_vec(), carries_upgrades };
            self.on(core, |dispatcher, hands, now| {
                let link = dispatcher.link_up(facts, hands);
                dispatcher.link_credits(link, streams_max, carries_upgrades, now, hands);
                link
            })
        }

        /// False: it would have to wait.
        fn offer(&mut self, core: usize, facts: Facts) -> bool {
            let grant = self.cores[core].offer(facts);
            let is_granted = grant.is_some();
            self.hands.served.extend(grant.map(|grant| Served { stamp: facts.stamp.0, core, grant }));
            is_granted
        }

        fn wait(&mut self, core: usize, facts: Facts) -> RequestId {
            let name = facts.stamp.0;
            self.on(core, |dispatcher, hands, now| dispatcher.wait(facts, name, name, now, hands))
        }

        fn cancel(&mut self, core: usize, request: RequestId) -> bool {
            self.on(core, |dispatcher, hands, _| dispatcher.cancel(request, hands))
        }

        /// A request is over, and its credit comes back.
        #[track_caller]
        fn end(&mut self, stamp: u64) {
            let at = self.hands.served.iter().position(|served| served.stamp == stamp).expect("it has a link");
            let Served { core, grant, .. } = self.hands.served.remove(at);
            self.on(core, |dispatcher, hands, now| {
                dispatcher.release(grant.link, grant.pool, grant.permit, || now, hands);
            });
        }

        /// Who was asked to look since this was last called.
        fn rings(&mut self) -> Vec<usize> {
            std::mem::take(&mut self.hands.rings)
        }

        fn look(&mut self, core: usize) {
            self.on(core, |dispatcher, hands, now| dispatcher.look(now, hands));
        }

        /// Every home hears what was taken of it.
        fn hear(&mut self) {
            for (home, request) in std::mem::take(&mut self.hands.taken) {
                self.on(home, |dispatcher, hands, _| dispatcher.taken(request, hands));
            }
        }

        /// All that the cores have one another do, until nothing is left.
        fn settle(&mut self) {
            while !self.hands.rings.is_empty() || !self.hands.taken.is_empty() {
                self.rings().into_iter().for_each(|core| self.look(core));
                self.hear();
            }
        }

        /// Names and cores of what has a link now, in the order of getting it.
        fn served(&self) -> Vec<(u64, usize)> {
            self.hands.served.iter().map(|served| (served.stamp, served.core)).collect()
        }

        fn waiting(&self, core: usize) -> usize {
            self.cores[core].sched().waiting(POOL)
        }

        fn listed(&self, core: usize, class: u8) -> usize {
            self.cores[core].sched().listed(POOL, lane_of(class))
        }
    }

    #[test]
    fn a_request_that_finds_a_credit_never_waits() {
        let mut cores = Cores::new(2);
        cores.link(0, 1, false);
        assert!(cores.offer(0, facts(3, 1)));
        assert_eq!(cores.cores[0].sched().books().joined, 0, "it was never in the queue");
        assert!(!cores.shared.shelf.waits(POOL, 7, true), "nor laid out");
        assert!(!cores.offer(0, facts(0, 2)), "nothing is parked on a busy link, however urgent");
        cores.wait(0, facts(0, 2));
        assert_eq!(cores.served(), [(1, 0)]);
        cores.end(1);
        assert_eq!(cores.served(), [(2, 0)]);
    }

    #[test]
    fn a_mute_link_gets_what_nobody_else_takes_and_one_with_each_trial() {
        for home in [0, 1] {
            let mut cores = Cores::new(2);
            let mute = cores.link(0, 8, false);
            assert!(cores.offer(0, facts(3, 1)));
            cores.on(0, |dispatcher, _, _| dispatcher.link_mute(mute));
            cores.end(1);
            let trial = |cores: &mut Cores| {
                let is_mute = cores.on(0, |dispatcher, hands, now| dispatcher.link_trial(mute, now, hands));
                cores.settle();
                is_mute
            };
            assert!(trial(&mut cores), "nothing waits");
            assert!(!cores.offer(0, facts(3, 2)), "the trial is over");
            cores.wait(home, facts(3, 2));
            cores.wait(home, facts(3, 3));
            cores.settle();
            assert!(cores.served().is_empty());
            assert!(trial(&mut cores));
            assert_eq!(cores.served(), [(2, 0)], "one with each");
            cores.link(1, 1, false);
            cores.settle();
            assert_eq!(cores.served(), [(2, 0), (3, 1)], "another link serves at once");
            cores.end(2);
            assert!(trial(&mut cores));
            cores.on(0, |dispatcher, hands, now| dispatcher.link_answers(mute, now, hands));
            assert!(!trial(&mut cores), "it answers");
            for stamp in 4..12 {
                assert!(cores.offer(0, facts(3, stamp)), "all its credits are back");
            }
        }
    }

    #[test]
    fn nothing_at_least_as_urgent_is_overtaken() {
        let mut cores = Cores::new(2);
        cores.link(0, 3, false);
        cores.wait(1, facts(3, 1));
        assert_eq!(cores.rings(), [0], "core 0 is on its way to it");
        assert!(!cores.offer(0, facts(3, 2)) && !cores.offer(0, facts(4, 3)));
        assert!(cores.offer(0, facts(2, 4)), "this is more urgent");
        cores.wait(0, facts(3, 2));
        assert_eq!(cores.served(), [(4, 0), (1, 0), (2, 0)], "the other core's came first");
    }

    #[test]
    fn a_credit_takes_the_most_urgent_class_on_any_core_then_the_oldest_then_its_own() {
        let mut cores = Cores::new(3);
        for (core, class, stamp) in [(0, 5, 1), (0, 3, 9), (1, 3, 8), (2, 3, 7), (1, 2, 11), (2, 6, 0)] {
            assert!(!cores.offer(core, facts(class, stamp)));
            cores.wait(core, facts(class, stamp));
        }
        assert!(cores.rings().is_empty(), "nobody has a credit");
        cores.link(1, 4, false);
        assert_eq!(cores.served(), [(11, 1), (7, 1), (8, 1), (9, 1)]);
        cores.link(0, 2, false);
        assert_eq!(cores.served()[4..], [(1, 0), (0, 0)]);

        let mut cores = Cores::new(2);
        (0..2).for_each(|core| _ = cores.wait(core, facts(3, 5)));
        cores.link(1, 1, false);
        assert_eq!((cores.waiting(0), cores.waiting(1)), (1, 0), "its own among equals");
    }

    #[test]
    fn an_idle_credit_on_another_core_is_asked_at_once_and_one_only() {
        let mut cores = Cores::new(4);
        (1..4).for_each(|core| _ = cores.link(core, 1, false));
        assert!(!cores.offer(0, facts(3, 1)));
        let request = cores.wait(0, facts(3, 1));
        assert_eq!(cores.rings(), [1]);
        cores.look(1);
        assert_eq!((cores.served(), cores.waiting(0)), (vec![(1, 1)], 1), "its home has not heard of it");
        assert!(cores.rings().is_empty(), "nobody is woken for what has just been taken");
        cores.hear();
        assert_eq!(cores.waiting(0), 0);
        assert!(!cores.cancel(0, request));
        let books = cores.cores[0].sched().books();
        assert_eq!((books.joined, books.taken), (1, 1), "taken once, however often it is said");
    }

    #[test]
    fn a_burst_asks_one_idle_core_after_the_other() {
        let mut cores = Cores::new(4);
        (1..4).for_each(|core| _ = cores.link(core, 1, false));
        (1..4).for_each(|stamp| _ = cores.wait(0, facts(3, stamp)));
        assert_eq!(cores.rings(), [1, 2, 3]);
        (1..4).for_each(|core| cores.look(core));
        assert_eq!(cores.served(), [(1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn what_stands_behind_a_window_that_others_have_emptied_is_not_overtaken() {
        let mut cores = Cores::new(2);
        cores.link(0, 1, false);
        assert!(cores.offer(0, facts(3, 1)));
        (2..102).for_each(|stamp| _ = cores.wait(0, facts(3, stamp)));
        cores.link(1, 65, false);
        assert_eq!(cores.served().len(), 65, "the window is empty, and its home has not heard of it");
        cores.end(1); // the credit of its own
        let stamps: Vec<u64> = cores.served().iter().map(|&(stamp, _)| stamp).collect();
        assert!(stamps.contains(&(2 + WINDOW_REQUESTS as u64)), "the oldest that is left: {stamps:?}");
        for class in [3, 7] {
            assert!(!cores.offer(0, facts(class, 999)), "{class} comes after 34 older ones");
        }
        assert!(!cores.offer(1, facts(3, 999)), "its window is full again");
    }

    #[test]
    fn a_core_asked_in_vain_takes_its_bit_off_and_asks_the_next() {
        let mut cores = Cores::new(4);
        (1..4).for_each(|core| _ = cores.link(core, 1, false));
        assert!(cores.offer(1, facts(3, 1)) && cores.offer(2, facts(3, 2)), "their bits are stale now");
        cores.wait(0, facts(3, 3));
        for (asked, next) in [(1, 2), (2, 3)] {
            assert_eq!(cores.rings(), [asked]);
            cores.look(asked);
            assert_eq!(cores.hands.rings, [next]);
        }
        cores.look(3);
        assert_eq!(cores.served(), [(1, 1), (2, 2), (3, 3)]);
        cores.settle();
        cores.wait(0, facts(3, 4));
        assert!(cores.rings().is_empty(), "no bit is left");
        cores.end(2);
        assert_eq!(cores.served().last(), Some(&(4, 2)));
    }

    /// 100 requests wait on core 0 with even stamps from 200, then one comes back; a core with credits for all takes them.
    #[track_caller]
    fn check_return(stamp: u64) {
        let mut cores = Cores::new(2);
        let mut want: Vec<u64> = (100..200).map(|half| half * 2).collect();
        for &stamp in &want {
            cores.wait(0, facts(3, stamp));
        }
        assert_eq!(cores.listed(0, 3), 100 - WINDOW_REQUESTS, "the window is full");
        cores.wait(0, facts(3, stamp));
        assert_eq!(cores.listed(0, 3), 101 - WINDOW_REQUESTS);
        cores.link(1, 200, false);
        cores.settle();
        want.push(stamp);
        want.sort_unstable();
        assert_eq!(cores.served().into_iter().map(|(stamp, _)| stamp).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_returned_request_comes_back_to_its_old_place() {
        check_return(1); // before all
        check_return(201); // in the window
        check_return(200 + 2 * 64 - 3); // at its end
        check_return(200 + 2 * 64 - 1); // right behind it
        check_return(399); // among those that nobody else sees

        let mut cores = Cores::new(1);
        let link = cores.link(0, 1, false);
        assert!(cores.offer(0, facts(3, 1)));
        (2..5).for_each(|stamp| _ = cores.wait(0, facts(3, stamp)));
        cores.on(0, |dispatcher, hands, _| dispatcher.link_down(link, hands));
        cores.end(1);
        assert!(!cores.offer(0, facts(3, 1)));
        cores.wait(0, facts(3, 1));
        cores.link(0, 2, false);
        assert_eq!(cores.served(), [(1, 0), (2, 0)], "its link was lost before it was served");
    }

    #[test]
    fn a_returned_request_takes_the_credit_that_it_finds_if_it_is_more_urgent_than_all_that_waits() {
        let mut cores = Cores::new(1);
        let link = cores.link(0, 1, false);
        cores.offer(0, facts(3, 1));
        cores.wait(0, facts(4, 0));
        cores.on(0, |dispatcher, hands, now| dispatcher.link_credits(link, 0, false, now, hands));
        cores.end(1);
        assert_eq!(cores.served(), [], "the credit was withdrawn");
        cores.on(0, |dispatcher, hands, now| dispatcher.link_credits(link, 1, false, now, hands));
        assert_eq!(cores.served(), [(0, 0)]);
        cores.wait(0, facts(3, 2));
        cores.end(0);
        cores.wait(0, facts(3, 1));
        cores.end(2);
        assert_eq!(cores.served(), [(1, 0)]);
    }

    #[test]
    fn a_window_that_others_emptied_is_refilled_when_its_home_hears_of_it() {
        let mut cores = Cores::new(3);
        (0..150).for_each(|stamp| _ = cores.wait(0, facts(3, stamp)));
        cores.link(1, 100, false);
        assert_eq!((cores.served().len(), cores.listed(0, 3)), (64, 86), "all that core 1 can see");
        assert_eq!(cores.waiting(0), 150, "no word has come");
        cores.rings();
        cores.hear();
        assert_eq!(cores.waiting(0), 86);
        assert_eq!(cores.rings().iter().collect::<std::collections::BTreeSet<_>>(), [&1].into(), "it has credits left");
        cores.look(1);
        cores.hear();
        assert_eq!((cores.served().len(), cores.waiting(0)), (100, 50));
        cores.link(2, 100, false);
        cores.settle();
        assert_eq!(cores.served().iter().map(|&(stamp, _)| stamp).collect::<Vec<_>>(), (0..150).collect::<Vec<_>>());
    }

    #[test]
    fn a_credit_of_its_own_that_found_an_emptied_window_is_not_forgotten() {
        let mut cores = Cores::new(2);
        (0..150).for_each(|stamp| _ = cores.wait(0, facts(3, stamp)));
        cores.link(1, 64, false);
        assert_eq!((cores.served().len(), cores.waiting(0)), (64, 150), "no word has come");
        cores.link(0, 5, false);
        cores.settle();
        assert_eq!(cores.served()[64..], [(64, 0), (65, 0), (66, 0), (67, 0), (68, 0)]);
    }

    #[test]
    fn concurrency_max_holds_over_all_cores() {
        let mut cores = Cores::with(3, PoolRules { per_link_max: 100, concurrency_max: 2, ageing: None });
        cores.link(0, 5, false);
        cores.link(1, 5, false);
        assert!(cores.offer(0, facts(3, 1)) && cores.offer(1, facts(3, 2)));
        for core in 0..3 {
            let stamp = 3 + core as u64;
            assert!(!cores.offer(core, facts(3, stamp)));
            cores.wait(core, facts(3, stamp));
        }
        cores.settle();
        assert_eq!(cores.served().len(), 2, "credits alone are not enough");
        for ended in 1..4 {
            cores.end(ended);
            cores.settle();
            let stamps: Vec<u64> = cores.served().iter().map(|&(stamp, _)| stamp).collect();
            assert_eq!(stamps, [ended + 1, ended + 2], "one for one, the oldest first");
        }
        let other = Facts { pool: OTHER, ..facts(3, 9) };
        cores.link_of(0, &[OTHER], 1, false);
        assert!(cores.offer(0, other), "each pool has its own");
    }

    #[test]
    fn a_permit_given_back_on_a_core_without_a_credit_reaches_a_core_with_one() {
        let mut cores = Cores::with(3, PoolRules { per_link_max: 100, concurrency_max: 1, ageing: None });
        let link = cores.link(0, 5, false);
        cores.link(1, 5, false);
        assert!(cores.offer(0, facts(3, 1)));
        cores.on(0, |dispatcher, hands, _| dispatcher.link_down(link, hands));
        cores.wait(1, facts(3, 2)); // where a credit is idle
        cores.wait(2, facts(3, 3)); // and where none is
        cores.settle();
        cores.end(1);
        assert_eq!(cores.rings(), [1]);
        cores.look(1);
        cores.end(2);
        cores.settle();
        assert_eq!(cores.served(), [(3, 1)]);
    }

    #[test]
    fn an_upgrade_waits_for_a_link_that_carries_it_and_stops_nobody_else() {
        let mut cores = Cores::new(2);
        let plain = cores.link(0, 2, false);
        assert!(!cores.offer(0, upgrade(0, 1)));
        cores.wait(0, upgrade(0, 1));
        cores.wait(1, upgrade(0, 2));
        assert!(cores.rings().is_empty(), "no idle credit could serve it");
        assert!(cores.offer(0, facts(7, 3)), "a plain one passes");
        cores.wait(1, facts(7, 4));
        cores.settle();
        assert_eq!(cores.served(), [(3, 0), (4, 0)]);
        cores.on(0, |dispatcher, hands, now| dispatcher.link_credits(plain, 3, true, now, hands));
        assert_eq!(cores.served().last(), Some(&(1, 0)), "it was learned late what the link carries");
        cores.link(0, 1, true);
        cores.settle();
        assert_eq!(cores.served().last(), Some(&(2, 0)));
    }

    #[test]
    fn an_idle_credit_that_carries_upgrades_is_asked_for_one_and_a_plain_one_is_not() {
        let mut cores = Cores::new(4);
        cores.link(1, 1, false);
        cores.link(2, 1, true);
        cores.wait(0, upgrade(3, 1));
        assert_eq!(cores.rings(), [2]);
        cores.look(2);
        assert_eq!(cores.served(), [(1, 2)]);
    }

    #[test]
    fn a_link_of_two_pools_serves_the_more_urgent_then_the_older_of_both() {
        let mut cores = Cores::new(2);
        let other = |facts| Facts { pool: OTHER, ..facts };
        cores.wait(0, facts(3, 3));
        cores.wait(1, other(facts(3, 2)));
        cores.wait(1, facts(3, 1));
        cores.wait(0, other(facts(2, 9)));
        cores.link_of(0, &[POOL, OTHER], 4, false);
        assert_eq!(cores.served(), [(9, 0), (1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn a_core_that_is_asked_for_two_pools_looks_at_both_before_it_chooses() {
        let mut cores = Cores::new(2);
        cores.link_of(0, &[POOL, OTHER], 1, false);
        cores.wait(1, facts(3, 1));
        cores.wait(1, Facts { pool: OTHER, ..facts(2, 2) });
        cores.settle();
        assert_eq!(cores.served(), [(2, 0)]);
    }

    #[test]
    fn a_withdrawn_request_is_never_granted_and_a_granted_one_never_withdrawn() {
        let mut cores = Cores::new(2);
        let requests: Vec<RequestId> = (0..4).map(|stamp| cores.wait(0, facts(3, stamp))).collect();
        assert!(cores.cancel(0, requests[0]) && cores.cancel(0, requests[2]));
        assert!(!cores.cancel(0, requests[0]), "once");
        assert_eq!(cores.waiting(0), 2, "their places are free at once");
        cores.link(1, 1, false);
        assert_eq!(cores.served(), [(1, 1)]);
        assert!(!cores.cancel(0, requests[1]), "it was taken, though its home has not heard of it");
        assert_eq!(cores.waiting(0), 1);
        cores.hear();
        assert_eq!(cores.waiting(0), 1, "once");
        assert!(cores.cancel(0, requests[3]));
        cores.end(1);
        assert_eq!((cores.served(), cores.waiting(0)), (vec![], 0));
        assert!(!cores.shared.shelf.waits(POOL, 7, true), "and nothing is left lying");
    }

    #[test]
    fn who_leaves_gives_no_younger_one_a_better_place() {
        let mut cores = Cores::new(3);
        let gone = cores.wait(0, facts(3, 1));
        cores.wait(0, facts(3, 9));
        cores.wait(1, facts(3, 5));
        assert!(cores.cancel(0, gone));
        cores.link(2, 2, false);
        assert_eq!(cores.served(), [(5, 2), (9, 2)]);
    }

    #[test]
    fn an_upgrade_whose_client_left_costs_plain_links_nothing() {
        let mut cores = Cores::new(1);
        cores.link(0, 1, false);
        let gone = cores.wait(0, upgrade(3, 1));
        assert!(cores.cancel(0, gone));
        assert!(cores.offer(0, facts(3, 2)));
        let Served { grant, .. } = cores.hands.served.pop().expect("served");
        cores.on(0, |dispatcher, hands, _| {
            dispatcher.release(grant.link, grant.pool, grant.permit, || panic!("nothing waits for this credit"), hands);
        });
    }

    #[test]
    fn half_a_window_of_withdrawn_requests_is_cleared() {
        let mut cores = Cores::new(2);
        let requests: Vec<RequestId> = (0..100).map(|stamp| cores.wait(0, facts(3, stamp))).collect();
        for (left, request) in requests[..31].iter().enumerate() {
            assert!(cores.cancel(0, *request));
            assert_eq!(cores.listed(0, 3), 36, "{left} lie there dead");
        }
        assert!(cores.cancel(0, requests[31]));
        assert_eq!((cores.listed(0, 3), cores.waiting(0)), (4, 68), "the window holds only what waits");
        cores.link(1, 64, false);
        assert_eq!(cores.served().iter().map(|&(stamp, _)| stamp).collect::<Vec<_>>(), (32..96).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_makes_a_request_more_urgent_where_its_pool_wants_it_so() {
        let ageing = Some(Ageing { step_ms: 10_000, most_urgent: Class::of(2) });
        let mut cores = Cores::with(2, PoolRules { per_link_max: 100, concurrency_max: 0, ageing });
        let start = cores.now;
        let at = |ms| start.plus_ms(ms).0;
        cores.wait(0, facts(4, at(0)));
        cores.wait(0, facts(1, at(1)));
        (0..80).for_each(|ms| _ = cores.wait(0, facts(6, at(100 + ms))));
        cores.wait(1, facts(3, at(9_000)));
        for ms in (0..=11_000).step_by(usize::try_from(AGE_LOOK_MS).expect("small")) {
            cores.now = Now(at(ms));
            (0..2).for_each(|core| cores.on(core, |dispatcher, hands, now| dispatcher.age(now, hands)));
        }
        assert_eq!((cores.listed(0, 6), cores.listed(0, 5)), (0, 80 - WINDOW_REQUESTS), "one step up, all of them");
        cores.link(1, 4, false);
        let served = cores.served().into_iter().map(|(stamp, _)| stamp).collect::<Vec<_>>();
        assert_eq!(served, [at(1), at(0), at(9_000), at(100)], "class 4 has become class 3, and is older");
        assert_eq!(cores.hands.served[1].grant.class, Class::of(3));

        cores.now = Now(at(1_000_000));
        (0..2).for_each(|core| cores.on(core, |dispatcher, hands, now| dispatcher.age(now, hands)));
        cores.link(1, 1, false);
        assert_eq!(cores.hands.served.last().expect("one more").grant.class, Class::of(2), "and no further");
    }

    #[test]
    fn a_grant_says_since_when_both_were_there() {
        let mut cores = Cores::new(2);
        cores.link(1, 1, false);
        assert!(cores.offer(1, facts(3, 1)));
        assert_eq!(cores.hands.served[0].grant.ready_since, None, "it did not wait");
        cores.now = Now(5_000_000);
        cores.wait(0, facts(3, 2));
        cores.now = Now(7_000_000);
        cores.end(1);
        assert_eq!(cores.hands.served[0].grant.ready_since, Some(cores.now), "since the credit came");
        cores.end(2);
        cores.now = Now(8_000_000);
        cores.wait(0, facts(3, 3));
        cores.now = Now(9_000_000);
        cores.look(1);
        let last = cores.hands.served.last().expect("served");
        assert_eq!(last.grant.ready_since, Some(Now(8_000_000)), "since the request came");
    }

    #[test]
    fn the_last_link_of_a_pool_over_all_cores_is_noticed() {
        let mut cores = Cores::new(2);
        let a = cores.link(0, 1, false);
        let b = cores.link_of(1, &[POOL, OTHER], 1, false);
        cores.on(0, |dispatcher, hands, _| dispatcher.link_drains(a, hands));
        assert_eq!(cores.hands.last_links, []);
        cores.on(1, |dispatcher, hands, _| dispatcher.link_down(b, hands));
        assert_eq!(cores.hands.last_links, [POOL, OTHER]);
        cores.on(1, |dispatcher, hands, _| dispatcher.link_down(b, hands));
        cores.on(0, |dispatcher, hands, _| dispatcher.link_down(a, hands));
        assert_eq!(cores.hands.last_links.len(), 2, "once");
    }
}
