//! What the scheduler knows of one link: its pools, its credits, whether it drains. Sockets, protocols and the requests
//! themselves never enter.

use super::bench::STANDING;
use crate::ids::PoolId;
use std::rc::Rc;

/// What a link brings when it comes up.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// The pools that it serves, at least one; one named twice counts once.
    pub pools: Vec<PoolId>,
    /// Whether it serves requests that need an upgrade. An h1 link does; an h2 link says so in its SETTINGS, later.
    pub carries_upgrades: bool,
}

/// ```text
///         up                     drains                    down
///  (new) ----> Open { credits } --------> Draining ----------------> Gone
///               |    ^ credits               ^ | credits, release      ^ any event
///               |    | grant, release        +-+ drains                +-+
///               +---------------------------------------------------> Gone
///                                    down
/// ```
/// Grants happen in `Open` alone. `Gone` is a number that finds nothing: whatever still arrives for it is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Takes requests, as far as its credits go.
    Open,
    /// Takes no more; finishes what it has.
    Draining,
    /// Not known (any more) on this core.
    Gone,
}

/// Whether a link's worker answers what it takes.
///
/// ```text
/// Answers --mute--> Mute { on_trial: false } --trial--> Mute { on_trial: true } --grant, trial over--> back
///    ^                                |
///    +----------- answers ------------+   from either
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    Answers,
    /// It has taken requests and answered none of them: it gets no other, but for one with each trial.
    Mute {
        on_trial: bool,
    },
}

/// A link that is not gone.
pub(super) struct Link {
    /// The pools of `memberships`, for whoever goes on to change the link.
    pub pools: Rc<[PoolId]>,
    pub memberships: Vec<Membership>,
    pub carries_upgrades: bool,
    pub draining: bool,
    pub voice: Voice,
    /// The worker has said how many requests it takes at once.
    pub has_asked: bool,
    /// What it may have at once: what it asked for, within our own bounds.
    pub streams_max: u32,
    pub in_flight: u32,
    /// Requests that have ended on it.
    pub ended: u64,
    /// Counts grants: when it last got one, or came up.
    pub turn: u64,
}

/// A link's seat in one of its pools.
#[derive(Clone, Copy)]
pub(super) struct Membership {
    pub pool: PoolId,
    /// Its place on that pool's bench, or [`STANDING`].
    pub place: u32,
    /// Requests of this pool among those in flight.
    pub in_flight: u32,
}

impl Link {
    pub fn new(facts: LinkFacts, turn: u64) -> Link {
        let mut pools = facts.pools;
        pools.sort_unstable();
        pools.dedup();
        assert!(!pools.is_empty(), "a link serves at least one pool");
        Link {
            pools: Rc::from(&*pools),
            memberships: pools.into_iter().map(|pool| Membership { pool, place: STANDING, in_flight: 0 }).collect(),
            carries_upgrades: facts.carries_upgrades,
            draining: false,
            voice: Voice::Answers,
            has_asked: false,
            streams_max: 0,
            in_flight: 0,
            ended: 0,
            turn,
        }
    }

    pub fn membership(&self, pool: PoolId) -> Option<&Membership> {
        self.memberships.iter().find(|membership| membership.pool == pool)
    }

    /// Its seat in a pool that it serves; another pool is our own mistake.
    pub fn membership_mut(&mut self, pool: PoolId) -> &mut Membership {
        self.memberships.iter_mut().find(|membership| membership.pool == pool).expect("a pool of this link")
    }

    pub fn state(&self) -> LinkState {
        if self.draining { LinkState::Draining } else { LinkState::Open }
    }

    /// Requests that it takes now. A worker may lower its bound below what it has; then none until enough have ended.
    pub fn free(&self) -> u32 {
        match (self.state(), self.voice) {
            (LinkState::Open, Voice::Answers) => self.streams_max.saturating_sub(self.in_flight),
            (LinkState::Open, Voice::Mute { on_trial: true }) => self.streams_max.saturating_sub(self.in_flight).min(1),
            (LinkState::Open, Voice::Mute { on_trial: false }) | (LinkState::Draining | LinkState::Gone, _) => 0,
        }
    }
}
