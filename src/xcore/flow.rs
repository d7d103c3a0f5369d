//! What flows through a pool, over all cores: who stands in line in which class, how many requests are with workers, and how
//! long one is with them. Why anybody wants to know never enters.

use super::sync::{AtomicU64, Ordering};
use crate::ids::Class;
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// One for each pool.
///
/// Every number is relaxed: each is a count of its own, and what is made of them is an estimate. Partners: the same calls on
/// other cores. Only requests that wait touch the line, and each core tells of its links once in a while.
pub struct PoolFlow {
    /// By class of arrival; whoever has left is among those who joined.
    line: CachePadded<[ClassLine; Class::COUNT]>,
    /// Requests that workers are done with.
    ended: CachePadded<AtomicU64>,
    /// Requests that are with workers.
    in_flight: AtomicU64,
    /// Those, and as many as the links would take beside them.
    slots: AtomicU64,
    /// How long a request is with a worker; 0: nobody knows yet.
    service_ns: AtomicU64,
}

struct ClassLine {
    joined: AtomicU64,
    left: AtomicU64,
}

/// A request's place in its pool's line. Dropping it leaves the line.
pub struct Place {
    flow: Arc<PoolFlow>,
    class: Class,
    /// Of its class, how many had joined before.
    before: u64,
}

/// What one core told last of one pool. Dropping it takes that back, but for what has ended.
pub struct Teller {
    flow: Arc<PoolFlow>,
    told: Told,
}

/// What a pool's links of one core, or of all, have done and do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub ended: u64,
    pub in_flight: u64,
    pub slots: u64,
}

impl PoolFlow {
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // a flow that nobody shares is of no use
    pub fn new() -> Arc<PoolFlow> {
        let class = || ClassLine { joined: AtomicU64::new(0), left: AtomicU64::new(0) };
        Arc::new(PoolFlow {
            line: CachePadded::new(std::array::from_fn(|_| class())),
            ended: CachePadded::new(AtomicU64::new(0)),
            in_flight: AtomicU64::new(0),
            slots: AtomicU64::new(0),
            service_ns: AtomicU64::new(0),
        })
    }

    /// A request begins to wait.
    #[must_use]
    pub fn line_up(self: &Arc<PoolFlow>, class: Class) -> Place {
        let before = self.line[class.index()].joined.fetch_add(1, Ordering::Relaxed);
        Place { flow: Arc::clone(self), class, before }
    }

    /// How many wait that come before a request of this class which arrives now.
    #[must_use]
    pub fn ahead_of(&self, class: Class) -> u64 {
        self.line[..=class.index()].iter().map(ClassLine::waiting).sum()
    }

    /// One core's word on its links.
    #[must_use]
    pub fn teller(self: &Arc<PoolFlow>) -> Teller {
        Teller { flow: Arc::clone(self), told: Told::default() }
    }

    /// What all cores have told.
    #[must_use]
    pub fn told(&self) -> Told {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Told { ended: read(&self.ended), in_flight: read(&self.in_flight), slots: read(&self.slots) }
    }

    pub fn set_service_ns(&self, service_ns: u64) {
        self.service_ns.store(service_ns, Ordering::Relaxed);
    }

    #[must_use]
    pub fn service_ns(&self) -> u64 {
        self.service_ns.load(Ordering::Relaxed)
    }

    /// How long a request waits with so many ahead of it, when all links are busy and at most `concurrency_max` requests may
    /// run (0: as many as links take). `None`: nobody knows how long one takes, or nobody takes any.
    #[must_use]
    pub fn wait_ns(&self, ahead: u64, concurrency_max: u64) -> Option<u64> {
        let bound = if concurrency_max == 0 { u64::MAX } else { concurrency_max };
        let slots = self.told().slots.min(bound);
        match self.service_ns() {
            0 => None,
            service_ns => service_ns.saturating_mul(ahead.saturating_add(1)).checked_div(slots),
        }
    }
}

impl ClassLine {
    fn waiting(&self) -> u64 {
        // A request may join and leave between the two reads.
        let left = self.left.load(Ordering::Relaxed);
        self.joined.load(Ordering::Relaxed).saturating_sub(left)
    }
}

impl Place {
    /// How many are ahead now. Whoever leaves is taken for one of the oldest of its class.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        let own = self.class.index();
        let urgent: u64 = self.flow.line[..own].iter().map(ClassLine::waiting).sum();
        urgent + self.before.saturating_sub(self.flow.line[own].left.load(Ordering::Relaxed))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flow.line[self.class.index()].left.fetch_add(1, Ordering::Relaxed);
    }
}

impl Teller {
    /// The numbers of now; `ended` only grows.
    pub fn tell(&mut self, now: Told) {
        let move_by = |number: &AtomicU64, from: u64, to: u64| {
            number.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
        };
        move_by(&self.flow.ended, self.told.ended, now.ended);
        move_by(&self.flow.in_flight, self.told.in_flight, now.in_flight);
        move_by(&self.flow.slots, self.told.slots, now.slots);
        self.told = now;
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell(Told { ended: self.told.ended, ..Told::default() });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_moves_up_as_others_leave_and_down_for_the_more_urgent() {
        let flow = PoolFlow::new();
        let class = |urgency| Class::of(urgency);
        let first = flow.line_up(class(3));
        let second = flow.line_up(class(3));
        let third = flow.line_up(class(3));
        assert_eq!((first.ahead(), second.ahead(), third.ahead()), (0, 1, 2));
        let urgent = flow.line_up(class(1));
        let late = flow.line_up(class(7));
        assert_eq!((urgent.ahead(), third.ahead(), late.ahead()), (0, 3, 4));
        assert_eq!((flow.ahead_of(class(0)), flow.ahead_of(class(3)), flow.ahead_of(class(7))), (0, 4, 5));
        drop(first);
        drop(urgent);
        assert_eq!((second.ahead(), third.ahead(), late.ahead()), (0, 1, 2));
        drop((second, third, late));
        assert_eq!(flow.ahead_of(class(7)), 0);
    }

    #[test]
    fn the_cores_words_add_up_and_go_with_them() {
        let flow = PoolFlow::new();
        let (mut a, mut b) = (flow.teller(), flow.teller());
        a.tell(Told { ended: 10, in_flight: 3, slots: 4 });
        b.tell(Told { ended: 1, in_flight: 0, slots: 2 });
        a.tell(Told { ended: 12, in_flight: 1, slots: 4 });
        assert_eq!(flow.told(), Told { ended: 13, in_flight: 1, slots: 6 });
        drop(a);
        assert_eq!(flow.told(), Told { ended: 13, in_flight: 0, slots: 2 });
    }

    #[test]
    fn a_wait_is_the_line_over_what_runs_at_once() {
        let flow = PoolFlow::new();
        let mut core = flow.teller();
        core.tell(Told { ended: 100, in_flight: 4, slots: 4 });
        assert_eq!(flow.wait_ns(7, 0), None, "nobody knows how long one takes");
        flow.set_service_ns(1_000);
        assert_eq!((flow.wait_ns(0, 0), flow.wait_ns(7, 0)), (Some(250), Some(2_000)));
        assert_eq!(flow.wait_ns(7, 2), Some(4_000), "no more than so many at once");
        assert_eq!(flow.wait_ns(7, 100), Some(2_000));
        drop(core);
        assert_eq!(flow.wait_ns(7, 0), None, "nobody takes any");
    }
}
