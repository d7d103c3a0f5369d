//! Hot. One lane: requests of one pool, class and need that wait, the oldest first. No link, no credit and no clock enters
//! here: only stamps.
//!
//! A list through the places of [`Slots`]: append, take the head and leave from the middle touch three places, whatever
//! waits. A request that comes back with an old stamp walks from whichever end is nearer.

use super::slots::{NOWHERE, Slots};
use super::{Facts, Lane};
use crate::clock::Now;

/// A request that waits, and what its holder keeps with it.
pub(super) struct Waiting<W> {
    pub facts: Facts,
    /// Where it stands now: its class may have grown more urgent since it came.
    pub lane: Lane,
    /// Counts offers: among equal stamps, who was offered first goes first.
    pub turn: u64,
    /// In the lane's list, or laid out for everybody ([`super::Sched::show`]).
    pub listed: bool,
    pub what: W,
    prev: u32,
    next: u32,
}

impl<W> Waiting<W> {
    pub fn new(facts: Facts, lane: Lane, turn: u64, what: W) -> Waiting<W> {
        Waiting { facts, lane, turn, listed: false, what, prev: NOWHERE, next: NOWHERE }
    }

    /// What the order goes by: smaller is older.
    pub fn age(&self) -> (Now, u64) {
        (self.facts.stamp, self.turn)
    }
}

/// One list. Its places belong to the core's `Slots`, which every call gets.
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: usize,
}

impl Queue {
    pub const EMPTY: Queue = Queue { head: NOWHERE, tail: NOWHERE, len: 0 };

    pub fn len(&self) -> usize {
        self.len
    }

    /// The oldest one's index.
    pub fn head(&self) -> Option<u32> {
        (self.head != NOWHERE).then_some(self.head)
    }

    /// Puts a request at its place by age. New arrivals are the youngest and go behind the tail without a walk; the
    /// walk of any other is bounded by half of what waits.
    pub fn join<W>(&mut self, slots: &mut Slots<Waiting<W>>, index: u32) {
        let (prev, next) = self.gap(slots, slots.at(index).age());
        let waiting = slots.at_mut(index);
        debug_assert!(!waiting.listed, "it stands here already");
        (waiting.prev, waiting.next, waiting.listed) = (prev, next, true);
        match prev {
            NOWHERE => self.head = index,
            _ => slots.at_mut(prev).next = index,
        }
        match next {
            NOWHERE => self.tail = index,
            _ => slots.at_mut(next).prev = index,
        }
        self.len += 1;
    }

    /// Takes a request off, wherever it stands in this list; its place stays.
    pub fn leave<W>(&mut self, slots: &mut Slots<Waiting<W>>, index: u32) {
        let waiting = slots.at_mut(index);
        debug_assert!(waiting.listed, "it stands here");
        waiting.listed = false;
        let (before, behind) = (waiting.prev, waiting.next);
        match before {
            NOWHERE => self.head = behind,
            prev => slots.at_mut(prev).next = behind,
        }
        match behind {
            NOWHERE => self.tail = before,
            next => slots.at_mut(next).prev = before,
        }
        self.len -= 1;
    }

    /// The two neighbours between which `age` belongs, looked for from both ends at once.
    fn gap<W>(&self, slots: &Slots<Waiting<W>>, age: (Now, u64)) -> (u32, u32) {
        let (mut older, mut younger) = (self.tail, self.head);
        loop {
            if older == NOWHERE || slots.at(older).age() < age {
                let next = if older == NOWHERE { self.head } else { slots.at(older).next };
                return (older, next);
            }
            if slots.at(younger).age() > age {
                return (slots.at(younger).prev, younger);
            }
            older = slots.at(older).prev;
            younger = slots.at(younger).next;
        }
    }

    /// Walks the whole list: order, neighbours and length agree.
    #[cfg(test)]
    pub fn audit<W>(&self, slots: &Slots<Waiting<W>>) {
        let (mut prev, mut here, mut count) = (NOWHERE, self.head, 0);
        while here != NOWHERE {
            let waiting = slots.at(here);
            assert!(waiting.listed);
            assert_eq!(waiting.prev, prev);
            assert!(prev == NOWHERE || slots.at(prev).age() < waiting.age());
            (prev, here, count) = (here, waiting.next, count + 1);
        }
        assert_eq!((self.tail, self.len), (prev, count));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Needs;
    use super::*;
    use crate::ids::{Class, PoolId};

    fn check(stamps: &[u64]) {
        let (mut slots, mut queue, mut plain) = (Slots::new(), Queue::EMPTY, Vec::new());
        for (&stamp, turn) in stamps.iter().zip(0..) {
            let facts = Facts { pool: PoolId(0), class: Class::of(3), needs: Needs::Any, stamp: Now(stamp) };
            let index = slots.insert(Waiting::new(facts, facts.lane(), turn, ()));
            queue.join(&mut slots, index);
            plain.push((Now(stamp), turn));
            queue.audit(&slots);
        }
        plain.sort_unstable();
        for want in plain {
            let head = queue.head().expect("as many as went in");
            queue.leave(&mut slots, head);
            assert_eq!(slots.remove(head).age(), want, "{stamps:?}");
            queue.audit(&slots);
        }
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn every_order_of_arrival_leaves_oldest_first() {
        check(&[]);
        check(&[1, 2, 3]);
        check(&[3, 2, 1]);
        check(&[5, 5, 5]);
        check(&[1, 5, 9, 5, 1, 9, 0, 10, 4, 6]);
        check(&[7, 1, 7, 2, 7, 3, 6, 6, 2]);
    }
}
