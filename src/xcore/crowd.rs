//! Connections of clients, over all cores: how many there are, and how many come from each source. What they say never
//! enters.

use super::sync::{AtomicUsize, Ordering};
use crate::limits::SOURCE_SHARDS;
use crossbeam_utils::CachePadded;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a connection comes from, as far as one customer can choose: an IPv4 address, or the /64 of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    #[must_use]
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.to_bits()),
            IpAddr::V6(address) => Source::V6((address.to_bits() >> 64) as u64),
        }
    }
}

type Shard = CachePadded<Mutex<HashMap<Source, u32>>>;

/// Touched twice in a connection's life, never by a request: so the table is one of locks, held for some 50 ns.
pub struct Crowd {
    /// Partner: the same counter on other cores. Relaxed: a number, nothing is published with it.
    all: CachePadded<AtomicUsize>,
    /// A source is here as long as it has a connection, so there are never more of them than connections.
    shards: Box<[Shard]>,
    /// Random, so that nobody can choose addresses that meet in one place.
    hasher: RandomState,
}

/// One connection. It counts until this is dropped, on whichever core.
pub struct Guest {
    crowd: Arc<Crowd>,
    source: Option<Source>,
}

impl Crowd {
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // a crowd without guests is of no use
    pub fn new() -> Arc<Crowd> {
        Arc::new(Crowd {
            all: CachePadded::new(AtomicUsize::new(0)),
            shards: (0..SOURCE_SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
        })
    }

    /// Connections now. Whoever looks before it accepts may pass its bound by one for each listener.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One more connection, from nobody knows where.
    #[must_use]
    pub fn enter(self: &Arc<Crowd>) -> Guest {
        self.all.fetch_add(1, Ordering::Relaxed);
        Guest { crowd: Arc::clone(self), source: None }
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, HashMap<Source, u32>> {
        // The map inside takes the hash's other bits: its own hasher has other keys.
        let index = self.hasher.hash_one(source) as usize % SOURCE_SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, source: Source) {
        let mut shard = self.shard(source);
        let Entry::Occupied(mut count) = shard.entry(source) else {
            debug_assert!(false, "a source left that was not here");
            return;
        };
        if *count.get() > 1 {
            *count.get_mut() -= 1;
            return;
        }
        count.remove();
        // After a crowd from everywhere its room is given back, in few steps.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
    }
}

impl Guest {
    /// It is one of its source's from now on; false where that has `per_source_max` already. Once only.
    #[must_use]
    pub fn comes_from(&mut self, source: Source, per_source_max: u32) -> bool {
        assert_eq!(self.source, None, "it is counted already");
        match self.crowd.shard(source).entry(source) {
            Entry::Occupied(count) if *count.get() >= per_source_max => return false,
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(place) => {
                place.insert(1);
            }
        }
        self.source = Some(source);
        true
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.crowd.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = self.source {
            self.crowd.leave(source);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    /// A connection from there, if it may be one.
    fn guest(crowd: &Arc<Crowd>, source: Source, per_source_max: u32) -> Option<Guest> {
        let mut guest = crowd.enter();
        guest.comes_from(source, per_source_max).then_some(guest)
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("::1"), Source::V4(0));
    }

    #[test]
    fn a_source_gets_no_more_than_its_share_and_gets_it_back() {
        let crowd = Crowd::new();
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let first = guest(&crowd, one, 2);
        let second = guest(&crowd, one, 2);
        assert!(first.is_some() && second.is_some() && guest(&crowd, one, 2).is_none());
        assert!(guest(&crowd, other, 2).is_some(), "another one has its own share");
        let exempt: Vec<_> = (0..10).map(|_| crowd.enter()).collect();
        assert_eq!(crowd.len(), 12);
        drop(first);
        assert!(guest(&crowd, one, 2).is_some(), "a place came back");
        drop((second, exempt));
        assert!(crowd.is_empty());
        assert!(crowd.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "no source stays behind");
    }

    #[test]
    fn a_table_gives_its_room_back() {
        let crowd = Crowd::new();
        let room = |crowd: &Crowd| crowd.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum::<usize>();
        let guests: Vec<_> = (0..100_000).map(|n| guest(&crowd, Source::V4(n), 1).unwrap()).collect();
        assert!(room(&crowd) >= 100_000);
        drop(guests);
        assert!(room(&crowd) <= SOURCE_SHARDS * 128, "{} entries", room(&crowd));
    }

    #[test]
    fn many_threads_leave_the_count_right() {
        let crowd = Crowd::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let crowd = &crowd;
                scope.spawn(move || {
                    for n in 0..10_000 {
                        let held = [guest(crowd, Source::V4(n % 7), 3), guest(crowd, Source::V6(thread), 3)];
                        assert!(held[1].is_some());
                    }
                });
            }
        });
        assert!(crowd.is_empty());
        assert!(crowd.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
