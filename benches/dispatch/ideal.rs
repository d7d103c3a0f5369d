//! The ideal: one queue in the middle that loses no time, strict classes, the oldest first inside a class, nobody is
//! interrupted. Offers in, each one's fate out; sockets and clocks never enter.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::trace::Class;

/// A request as the queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub arrives_ns: u64,
    pub service_ns: u64,
    pub class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Served {
        start_ns: u64,
        end_ns: u64,
    },
    /// It found `waiting_max` others waiting.
    Refused,
}

/// Lets `workers` serve the offers, which stand in the order of their arrival. A worker that comes free takes the most
/// urgent of those that wait, before it sees what arrives in the same nanosecond.
pub fn central_queue(offers: &[Offer], workers: usize, waiting_max: usize) -> Vec<Fate> {
    assert!(workers > 0, "nobody would ever be served");
    let mut fates = vec![Fate::Refused; offers.len()];
    let mut queue = Queue { waiting: Default::default(), count: 0 };
    let mut busy: BinaryHeap<Reverse<u64>> = BinaryHeap::with_capacity(workers);
    let mut last_ns = 0;
    for (index, offer) in offers.iter().enumerate() {
        assert!(last_ns <= offer.arrives_ns, "offer {index} arrives before its predecessor");
        last_ns = offer.arrives_ns;
        while let Some(&Reverse(free_ns)) = busy.peek()
            && free_ns <= offer.arrives_ns
        {
            busy.pop();
            queue.serve_next(free_ns, offers, &mut busy, &mut fates);
        }
        if busy.len() < workers {
            debug_assert_eq!(queue.count, 0, "a worker is idle while somebody waits");
            serve(index, offer.arrives_ns, offers, &mut busy, &mut fates);
        } else if queue.count < waiting_max {
            queue.waiting[offer.class.index()].push_back(index);
            queue.count += 1;
        }
    }
    while let Some(Reverse(free_ns)) = busy.pop() {
        queue.serve_next(free_ns, offers, &mut busy, &mut fates);
    }
    fates
}

struct Queue {
    /// Places in the offers, by class.
    waiting: [VecDeque<usize>; Class::ALL.len()],
    count: usize,
}

impl Queue {
    fn serve_next(&mut self, now_ns: u64, offers: &[Offer], busy: &mut BinaryHeap<Reverse<u64>>, fates: &mut [Fate]) {
        if let Some(index) = self.waiting.iter_mut().find_map(VecDeque::pop_front) {
            self.count -= 1;
            serve(index, now_ns, offers, busy, fates);
        }
    }
}

fn serve(index: usize, now_ns: u64, offers: &[Offer], busy: &mut BinaryHeap<Reverse<u64>>, fates: &mut [Fate]) {
    let end_ns = now_ns + offers[index].service_ns;
    busy.push(Reverse(end_ns));
    fates[index] = Fate::Served { start_ns: now_ns, end_ns };
}

/// The most that are in the system (served or waiting) at once: so many connections an open loop needs.
pub fn most_at_once(offers: &[Offer], fates: &[Fate]) -> usize {
    let mut ends: Vec<u64> = Vec::with_capacity(fates.len());
    let mut arrivals = Vec::with_capacity(fates.len());
    for (offer, fate) in offers.iter().zip(fates) {
        if let Fate::Served { end_ns, .. } = *fate {
            arrivals.push(offer.arrives_ns);
            ends.push(end_ns);
        }
    }
    ends.sort_unstable();
    let mut left = 0;
    let mut most = 0;
    for (index, &arrives_ns) in arrivals.iter().enumerate() {
        while ends[left] < arrives_ns {
            left += 1;
        }
        most = most.max(index + 1 - left);
    }
    most
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::Class::{Background as B, Normal as N, Urgent as U};
    use super::*;

    const NO_BOUND: usize = usize::MAX;

    fn offers(list: &[(u64, u64, Class)]) -> Vec<Offer> {
        let offer = |&(arrives_ns, service_ns, class)| Offer { arrives_ns, service_ns, class };
        list.iter().map(offer).collect()
    }

    /// `want`: when each starts; `None` where it is refused.
    #[track_caller]
    fn check(list: &[(u64, u64, Class)], workers: usize, waiting_max: usize, want: &[Option<u64>]) {
        let offers = offers(list);
        let got = central_queue(&offers, workers, waiting_max);
        let want = offers.iter().zip(want).map(|(offer, start)| match *start {
            Some(start_ns) => Fate::Served { start_ns, end_ns: start_ns + offer.service_ns },
            None => Fate::Refused,
        });
        assert_eq!(got, want.collect::<Vec<_>>());
        assert_eq!(brute_force(&offers, workers, waiting_max), got, "the slow model says otherwise");
    }

    #[test]
    fn a_free_worker_serves_at_once() {
        check(&[], 1, NO_BOUND, &[]);
        check(&[(5, 10, N)], 1, NO_BOUND, &[Some(5)]);
        check(&[(0, 10, N), (3, 10, N)], 2, NO_BOUND, &[Some(0), Some(3)]);
        check(&[(0, 10, N), (20, 10, N)], 1, NO_BOUND, &[Some(0), Some(20)]);
    }

    #[test]
    fn one_worker_serves_a_class_in_its_order() {
        check(&[(0, 10, N), (1, 5, N), (2, 1, N)], 1, NO_BOUND, &[Some(0), Some(10), Some(15)]);
        check(&[(0, 10, N), (0, 10, N), (0, 10, N)], 1, NO_BOUND, &[Some(0), Some(10), Some(20)]);
    }

    #[test]
    fn the_most_urgent_is_next_and_nobody_is_interrupted() {
        let list = [(0, 10, B), (1, 10, B), (2, 10, N), (3, 10, U), (4, 10, U)];
        check(&list, 1, NO_BOUND, &[Some(0), Some(40), Some(30), Some(10), Some(20)]);
    }

    #[test]
    fn the_worker_that_is_free_first_takes_the_next() {
        // Free at 4 and at 10: the third starts at 4, the fourth at 7.
        check(
            &[(0, 10, N), (0, 4, N), (1, 3, N), (1, 9, N), (2, 1, N)],
            2,
            NO_BOUND,
            &[Some(0), Some(0), Some(4), Some(7), Some(10)],
        );
    }

    #[test]
    fn who_waits_is_before_who_arrives_when_a_worker_comes_free() {
        check(&[(0, 10, N), (5, 10, B), (10, 10, U)], 1, NO_BOUND, &[Some(0), Some(10), Some(20)]);
    }

    #[test]
    fn a_full_queue_refuses_whoever_comes() {
        let list = [(0, 10, N), (1, 10, B), (2, 10, U), (3, 10, U), (10, 10, U), (20, 10, N)];
        check(&list, 1, 1, &[Some(0), Some(10), None, None, Some(20), Some(30)]);
        check(&[(0, 10, N), (1, 10, N), (10, 10, N)], 1, 0, &[Some(0), None, Some(10)]);
    }

    #[test]
    fn a_service_without_length_frees_its_worker_in_the_same_moment() {
        check(&[(0, 0, N), (0, 0, N), (0, 5, N), (0, 0, U)], 1, NO_BOUND, &[Some(0), Some(0), Some(0), Some(5)]);
    }

    #[test]
    #[should_panic(expected = "offer 1 arrives before its predecessor")]
    fn offers_out_of_order_are_our_own_mistake() {
        central_queue(&offers(&[(5, 1, N), (4, 1, N)]), 1, NO_BOUND);
    }

    #[test]
    fn the_connections_that_are_needed_are_counted_while_answers_are_out() {
        let check = |list: &[(u64, u64, Class)], workers, want| {
            let offers = offers(list);
            assert_eq!(most_at_once(&offers, &central_queue(&offers, workers, 1)), want, "{list:?}");
        };
        check(&[], 1, 0);
        check(&[(0, 10, N), (20, 10, N)], 1, 1);
        check(&[(0, 10, N), (10, 10, N)], 1, 2);
        check(&[(0, 10, N), (1, 10, N), (2, 10, N)], 1, 2); // the third is refused
    }

    /// The same rules said by one clock that ticks: free, take, arrive. Knows no heap and no shortcut.
    fn brute_force(offers: &[Offer], workers: usize, waiting_max: usize) -> Vec<Fate> {
        let mut fates = vec![Fate::Refused; offers.len()];
        let mut ends: Vec<u64> = Vec::new();
        let mut waiting: Vec<usize> = Vec::new();
        let mut next = 0;
        let mut now = 0;
        while next < offers.len() || !ends.is_empty() {
            while let Some(place) = ends.iter().position(|&end| end == now) {
                ends.remove(place);
                let first = (0..waiting.len()).min_by_key(|&place| (offers[waiting[place]].class, waiting[place]));
                if let Some(place) = first {
                    let index = waiting.remove(place);
                    ends.push(now + offers[index].service_ns);
                    fates[index] = Fate::Served { start_ns: now, end_ns: now + offers[index].service_ns };
                }
            }
            if next < offers.len() && offers[next].arrives_ns == now {
                if ends.len() < workers {
                    ends.push(now + offers[next].service_ns);
                    fates[next] = Fate::Served { start_ns: now, end_ns: now + offers[next].service_ns };
                } else if waiting.len() < waiting_max {
                    waiting.push(next);
                }
                next += 1;
                continue; // whoever has no length is done before the next arrives
            }
            now += 1;
        }
        fates
    }

    #[test]
    fn the_slow_model_agrees_on_thousands_of_small_traces() {
        for seed in 0..3_000_u64 {
            let mut state = seed;
            let mut below = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let workers = 1 + below(4) as usize;
            let waiting_max = [0, 1, 3, NO_BOUND][below(4) as usize];
            let (gap_max, service_max) = (1 + below(6), 1 + below(20));
            let mut now = 0;
            let mut offer = |_| {
                now += below(gap_max);
                Offer { arrives_ns: now, service_ns: below(service_max), class: Class::ALL[below(3) as usize] }
            };
            let offers: Vec<Offer> = (0..40).map(&mut offer).collect();
            let got = central_queue(&offers, workers, waiting_max);
            assert_eq!(got, brute_force(&offers, workers, waiting_max), "seed {seed}, {workers} workers, {offers:?}");
        }
    }
}
