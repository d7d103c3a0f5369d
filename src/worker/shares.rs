//! Who offers how much: the worker's concurrency, shared over its links, and told to each edge whenever it changes. Requests
//! never enter.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use slab::Slab;

use crate::client::Offer;
use crate::exchange::Latch;

/// The shares of all links.
pub struct Shares {
    concurrency: Cell<u32>,
    /// Nothing is offered: the server is not well.
    is_paused: Cell<bool>,
    /// Set when it is paused, and when it is resumed; each is replaced by the other.
    paused: RefCell<Rc<Latch>>,
    resumed: RefCell<Rc<Latch>>,
    parts: RefCell<Slab<Part>>,
}

/// The place of one link, whichever connection it is just now.
struct Part {
    /// It has a link, or will have one soon.
    counts: bool,
    /// Its link, and those that it replaced and that still live: an edge that leaves gets what it is used to.
    offers: Vec<Weak<Offer>>,
}

impl Shares {
    pub fn new(concurrency: u32) -> Shares {
        Shares {
            concurrency: Cell::new(concurrency),
            is_paused: Cell::new(false),
            paused: RefCell::default(),
            resumed: RefCell::default(),
            parts: RefCell::default(),
        }
    }

    pub fn set_concurrency(&self, concurrency: u32) {
        self.concurrency.set(concurrency);
        self.tell();
    }

    /// While it is paused, every link offers nothing.
    pub fn pause(&self, is_paused: bool) {
        if self.is_paused.replace(is_paused) == is_paused {
            return;
        }
        let (now, before) = if is_paused { (&self.paused, &self.resumed) } else { (&self.resumed, &self.paused) };
        before.replace(Rc::default());
        self.tell();
        now.borrow().set();
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused.get()
    }

    /// Set as soon as it is paused.
    pub fn paused(&self) -> Rc<Latch> {
        self.paused.borrow().clone()
    }

    /// Set as soon as it is no longer paused.
    pub fn resumed(&self) -> Rc<Latch> {
        self.resumed.borrow().clone()
    }

    /// A place for one more link.
    pub fn join(self: &Rc<Shares>) -> Share {
        let key = self.parts.borrow_mut().insert(Part { counts: true, offers: Vec::new() });
        self.tell();
        Share { shares: self.clone(), key }
    }

    fn tell(&self) {
        let parts = &mut *self.parts.borrow_mut();
        let count = parts.iter().filter(|(_, part)| part.counts).count();
        let mut index = 0;
        for (_, part) in parts {
            let share = share(self.concurrency.get(), count as u32, index);
            index += u32::from(part.counts);
            part.offers.retain(|offer| offer.strong_count() > 0);
            let streams = if self.is_paused.get() { 0 } else { share };
            part.offers.iter().filter_map(Weak::upgrade).for_each(|offer| offer.set(streams));
        }
    }
}

/// One link's place. Dropping it leaves more for the others.
pub struct Share {
    shares: Rc<Shares>,
    key: usize,
}

impl Share {
    /// Whether a link is there, or expected soon. One that is not leaves its part to the others.
    pub fn counts(&self, counts: bool) {
        let before = std::mem::replace(&mut self.shares.parts.borrow_mut()[self.key].counts, counts);
        if before != counts {
            self.shares.tell();
        }
    }

    /// For a new link.
    pub fn offer(&self) -> Rc<Offer> {
        let offer = Rc::new(Offer::new(0));
        {
            let part = &mut self.shares.parts.borrow_mut()[self.key];
            part.counts = true;
            part.offers.push(Rc::downgrade(&offer));
        }
        self.shares.tell();
        offer
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.parts.borrow_mut().remove(self.key);
        self.shares.tell();
    }
}

/// One link's part. Every link gets at least one: a link without credit would be none. What that is too much in all waits in
/// `places`.
fn share(concurrency: u32, links: u32, index: u32) -> u32 {
    let links = links.max(1);
    (concurrency / links + u32::from(index < concurrency % links)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_shares_add_up_to_the_concurrency() {
        for links in 1..=7 {
            for concurrency in links..=65 {
                let sum: u32 = (0..links).map(|index| share(concurrency, links, index)).sum();
                assert_eq!(sum, concurrency, "{concurrency} over {links}");
            }
        }
        assert_eq!(share(1, 4, 3), 1, "a link without credit would be none");
    }

    #[track_caller]
    fn check(offers: &[&Rc<Offer>], want: &[u32]) {
        let told: Vec<_> = offers.iter().map(|offer| offer.get()).collect();
        assert_eq!(told, want);
    }

    #[test]
    fn offers_follow_whatever_changes() {
        let shares = Rc::new(Shares::new(10));
        let one = shares.join();
        let a = one.offer();
        check(&[&a], &[10]);
        let two = shares.join(); // is expected
        check(&[&a], &[5]);
        let b = two.offer();
        check(&[&a, &b], &[5, 5]);
        shares.set_concurrency(7);
        check(&[&a, &b], &[4, 3]);
        shares.pause(true);
        check(&[&a, &b], &[0, 0]);
        let replaces = one.offer();
        check(&[&a, &replaces, &b], &[0, 0, 0]);
        shares.pause(false);
        check(&[&a, &replaces, &b], &[4, 4, 3]);
        two.counts(false);
        check(&[&replaces], &[7]);
        two.counts(true);
        check(&[&replaces, &b], &[4, 3]);
        drop(one);
        check(&[&b], &[7]);
    }
}
