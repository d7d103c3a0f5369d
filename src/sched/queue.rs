//! Hot. The requests of one pool that wait, oldest first. No link, no credit and no clock enters here: only stamps.
//!
//! A list through the places of [`Slots`]: append, take the head and leave from the middle touch three places, whatever
//! waits. A request that comes back with an old stamp walks from whichever end is nearer.

use super::slots::{NOWHERE, Slots};
use super::{Needs, RequestId};
use crate::clock::Now;
use crate::ids::PoolId;

/// A request that waits.
pub(super) struct Waiting {
    pub pool: PoolId,
    pub needs: Needs,
    /// When it arrived, not when it came into this queue.
    pub stamp: Now,
    /// Counts offers: among equal stamps, who was offered first goes first.
    pub turn: u64,
    prev: u32,
    next: u32,
}

impl Waiting {
    pub fn new(pool: PoolId, needs: Needs, stamp: Now, turn: u64) -> Waiting {
        Waiting { pool, needs, stamp, turn, prev: NOWHERE, next: NOWHERE }
    }

    /// What the order goes by: smaller is older.
    pub fn age(&self) -> (Now, u64) {
        (self.stamp, self.turn)
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
    pub fn insert(&mut self, slots: &mut Slots<Waiting>, waiting: Waiting) -> RequestId {
        let (prev, next) = self.gap(slots, waiting.age());
        let index = slots.insert(Waiting { prev, next, ..waiting });
        match prev {
            NOWHERE => self.head = index,
            _ => slots.at_mut(prev).next = index,
        }
        match next {
            NOWHERE => self.tail = index,
            _ => slots.at_mut(next).prev = index,
        }
        self.len += 1;
        RequestId(slots.number(index))
    }

    /// Takes a request out, wherever it stands in this list.
    pub fn remove(&mut self, slots: &mut Slots<Waiting>, index: u32) -> Waiting {
        let waiting = slots.remove(index);
        match waiting.prev {
            NOWHERE => self.head = waiting.next,
            prev => slots.at_mut(prev).next = waiting.next,
        }
        match waiting.next {
            NOWHERE => self.tail = waiting.prev,
            next => slots.at_mut(next).prev = waiting.prev,
        }
        self.len -= 1;
        waiting
    }

    /// The two neighbours between which `age` belongs, looked for from both ends at once.
    fn gap(&self, slots: &Slots<Waiting>, age: (Now, u64)) -> (u32, u32) {
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
    pub fn audit(&self, slots: &Slots<Waiting>) {
        let (mut prev, mut here, mut count) = (NOWHERE, self.head, 0);
        while here != NOWHERE {
            let waiting = slots.at(here);
            assert_eq!(waiting.prev, prev);
            assert!(prev == NOWHERE || slots.at(prev).age() < waiting.age());
            (prev, here, count) = (here, waiting.next, count + 1);
        }
        assert_eq!((self.tail, self.len), (prev, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stamps: &[u64]) {
        let (mut slots, mut queue, mut plain) = (Slots::new(), Queue::EMPTY, Vec::new());
        for (&stamp, turn) in stamps.iter().zip(0..) {
            queue.insert(&mut slots, Waiting::new(PoolId(0), Needs::Any, Now(stamp), turn));
            plain.push((Now(stamp), turn));
            queue.audit(&slots);
        }
        plain.sort_unstable();
        for want in plain {
            let head = queue.head().expect("as many as went in");
            assert_eq!(queue.remove(&mut slots, head).age(), want, "{stamps:?}");
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
