//! Places at the server behind the worker: so many requests at once, over all links, the others in the order of their
//! arrival. Links, their shares and the requests themselves never enter.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What `concurrency` promises to the server.
///
/// Each link offers its share of it to its edge. The shares add up to more when there are more links than places, where a link
/// speaks HTTP/1.1, while a link is replaced, and for the time that an edge needs to hear of a smaller one. What is too much
/// waits here. REFUSED_STREAM would be no better: the edge still counts a credit on this link, so the request would come back
/// at once, again and again, and be lost as soon as its body is not at hand.
pub struct Places {
    limit: Cell<u32>,
    taken: Cell<u32>,
    /// By arrival. Somebody waits here only while all are taken.
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    arrivals: Cell<u64>,
}

struct Waiting {
    waker: Waker,
    given: Rc<Cell<bool>>,
}

impl Places {
    pub fn new(concurrency: u32) -> Places {
        Places {
            limit: Cell::new(concurrency),
            taken: Cell::new(0),
            waiting: RefCell::default(),
            arrivals: Cell::new(0),
        }
    }

    /// Whoever asks has arrived when it is first polled.
    pub fn take(&self) -> Take<'_> {
        Take { places: self, waits: None }
    }

    /// From now on. More than that may be taken already: they are given back when they are.
    pub fn set_limit(&self, concurrency: u32) {
        self.limit.set(concurrency);
        self.give();
    }

    /// Requests that the server has now.
    pub fn taken(&self) -> u32 {
        self.taken.get()
    }

    fn has_free(&self) -> bool {
        self.taken.get() < self.limit.get()
    }

    fn release(&self) {
        self.taken.set(self.taken.get() - 1);
        self.give();
    }

    /// To those who wait, as far as there are some. Each turn gives one away.
    fn give(&self) {
        while self.has_free() {
            let next = self.waiting.borrow_mut().pop_first(); // whoever is woken may look here at once
            let Some((_, Waiting { waker, given })) = next else { return };
            self.taken.set(self.taken.get() + 1);
            given.set(true);
            waker.wake();
        }
    }
}

/// A place that is being waited for. Dropping it leaves the queue.
pub struct Take<'a> {
    places: &'a Places,
    waits: Option<(u64, Rc<Cell<bool>>)>,
}

/// A place that is taken. Dropping it gives it to the next.
pub struct Place<'a>(&'a Places);

impl<'a> Take<'a> {
    /// Not to be called again after it was ready.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Place<'a>> {
        let places = self.places;
        match &self.waits {
            Some((_, given)) if given.get() => {
                self.waits = None;
                return Poll::Ready(Place(places));
            }
            Some((arrival, _)) => {
                if let Some(waiting) = places.waiting.borrow_mut().get_mut(arrival) {
                    waiting.waker.clone_from(cx.waker());
                }
            }
            None if places.has_free() => {
                places.taken.set(places.taken.get() + 1);
                return Poll::Ready(Place(places));
            }
            None => {
                let arrival = places.arrivals.get();
                places.arrivals.set(arrival + 1);
                let given = Rc::new(Cell::new(false));
                let waiting = Waiting { waker: cx.waker().clone(), given: given.clone() };
                places.waiting.borrow_mut().insert(arrival, waiting);
                self.waits = Some((arrival, given));
            }
        }
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        match &self.waits {
            Some((_, given)) if given.get() => self.places.release(), // given, but nobody is here to take it
            Some((arrival, _)) => _ = self.places.waiting.borrow_mut().remove(arrival),
            None => {}
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<'a>(take: &mut Take<'a>) -> Option<Place<'a>> {
        match take.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    fn at_once(places: &Places) -> Place<'_> {
        poll(&mut places.take()).expect("one is free")
    }

    #[test]
    fn there_are_as_many_places_as_were_promised() {
        let places = Places::new(3);
        let taken: Vec<_> = (0..3).map(|_| at_once(&places)).collect();
        assert!(poll(&mut places.take()).is_none());
        drop(taken);
        let _again: Vec<_> = (0..3).map(|_| at_once(&places)).collect();
        assert!(poll(&mut places.take()).is_none());
    }

    #[test]
    fn a_place_goes_to_whoever_came_first_and_is_still_there() {
        let places = Places::new(1);
        let place = at_once(&places);
        let mut takes: Vec<_> = (0..4).map(|_| places.take()).collect();
        assert!(takes.iter_mut().all(|take| poll(take).is_none()));
        drop(takes.remove(0)); // leaves while it waits
        drop(place);
        assert!(poll(&mut places.take()).is_none(), "a new one overtakes those that wait");
        assert!(poll(&mut takes[2]).is_none() && poll(&mut takes[1]).is_none());
        drop(takes.remove(0)); // leaves with a place in its hands
        assert!(poll(&mut takes[1]).is_none());
        let place = poll(&mut takes[0]).expect("it is its turn");
        drop(place);
        drop(poll(&mut takes[1]).expect("it is its turn"));
        assert_eq!((places.taken.get(), places.waiting.borrow().len()), (0, 0));
    }

    #[test]
    fn fewer_places_take_none_away_and_more_are_given_at_once() {
        let places = Places::new(3);
        let mut taken: Vec<_> = (0..3).map(|_| at_once(&places)).collect();
        let mut takes: Vec<_> = (0..3).map(|_| places.take()).collect();
        assert!(takes.iter_mut().all(|take| poll(take).is_none()));
        places.set_limit(1);
        taken.truncate(1);
        assert!(takes.iter_mut().all(|take| poll(take).is_none()), "one is taken, and there is one");
        places.set_limit(3);
        taken.extend(takes.drain(..2).map(|mut take| poll(&mut take).expect("there are three")));
        assert!(poll(&mut takes[0]).is_none());
        places.set_limit(0);
        taken.clear();
        assert!(poll(&mut takes[0]).is_none(), "there are none");
        places.set_limit(1);
        drop(poll(&mut takes[0]).expect("there is one"));
    }

    /// Draws like the queue of a shop: a plain list beside it must agree.
    #[test]
    fn places_agree_with_a_plain_list() {
        let places = Places::new(2);
        let mut seed = 7u64;
        let mut roll = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut taken = Vec::new();
        let mut waiting: Vec<Take> = Vec::new();
        for turn in 0..10_000 {
            match roll(4) {
                0 | 1 => {
                    let mut take = places.take();
                    match poll(&mut take) {
                        Some(place) => taken.push(place),
                        None => waiting.push(take),
                    }
                }
                2 if !taken.is_empty() => drop(taken.swap_remove(roll(taken.len() as u64) as usize)),
                _ if !waiting.is_empty() => drop(waiting.remove(roll(waiting.len() as u64) as usize)),
                _ => {}
            }
            // Whoever has come first has the place, and nobody else.
            while taken.len() < 2 && !waiting.is_empty() {
                taken.push(poll(&mut waiting.remove(0)).unwrap_or_else(|| panic!("turn {turn}: it is its turn")));
            }
            assert!(waiting.iter_mut().all(|take| poll(take).is_none()), "turn {turn}");
            assert_eq!(places.waiting.borrow().len(), waiting.len(), "turn {turn}");
        }
    }
}
