//! What wakes a core: whether it sleeps, how to ring it, and a bit for each of its tasks that somebody else wants woken.
//! No message and no waker of a task enters here.

use super::sync::{AtomicBool, AtomicU64, Ordering, fence};
use crate::limits::WAKE_BITS;
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// Rings a core's doorbell: called on any thread, at most once for each time that the core went to sleep. It must not
/// block, and a ring between two sleeps must end the next one.
pub type Ring = Arc<dyn Fn() + Send + Sync>;

/// When a bell is rung that has to be: calls the ring, soon, on this thread. Until then everybody else may ring instead, so
/// that a thread which puts it off, or never comes to it, stands in nobody's way.
pub type Defer = fn(&Ring);

/// [`Defer`] for whoever has nothing better to do first.
pub fn at_once(ring: &Ring) {
    ring();
}

/// One core's bell. Its owner sleeps by it, everybody else rings it.
pub(super) struct Bell {
    gate: Arc<Gate>,
    /// Rings if the owner still sleeps.
    ring: Ring,
    defer: Defer,
}

struct Gate {
    /// The owner waits for the ring, or is about to.
    ///
    /// Partners, in the manner of Dekker: the owner swaps to true, fences, and looks at its mailbox and its wake bits;
    /// everybody else pushes (or sets a bit), fences, and loads this. One of the two sees the other: the SeqCst fences
    /// order them. Whoever saw true rings, now or a little later; the swap to false picks one of those who do. All writes are AcqRel swaps, so that everybody sees them in
    /// one order: a late ring for the last sleep stands before the next sleep.
    asleep: CachePadded<AtomicBool>,
    ring: Ring,
}

impl Gate {
    fn ring(&self) {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            (self.ring)();
        }
    }
}

impl Bell {
    pub fn new(ring: Ring, defer: Defer) -> Bell {
        let gate = Arc::new(Gate { asleep: CachePadded::new(AtomicBool::new(false)), ring });
        let rung = gate.clone();
        Bell { gate, ring: Arc::new(move || rung.ring()), defer }
    }

    /// Something was left for the owner: if it sleeps, this thread will ring, unless somebody else does or it wakes by
    /// itself before.
    pub fn nudge(&self) {
        fence(Ordering::SeqCst); // partner: the fence in `prepare_to_sleep`
        if self.gate.asleep.load(Ordering::Relaxed) {
            (self.defer)(&self.ring);
        }
    }

    /// The owner is about to sleep. Whatever it waits for it must look at after this call, not before.
    pub fn prepare_to_sleep(&self) {
        self.gate.asleep.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst); // partner: the fence in `nudge`
    }

    /// The owner is awake again: no rings until it sleeps.
    pub fn awake(&self) {
        self.gate.asleep.swap(false, Ordering::AcqRel); // partner: `Gate::ring`; who reads the old value rings once too often
    }
}

/// Words of 64 wake bits. loom walks few.
const WORDS: usize = if cfg!(loom) { 1 } else { WAKE_BITS / 64 };
const SUMMARIES: usize = WORDS.div_ceil(64);

/// A set of slot numbers that anybody adds to and the owner empties. It is never full: numbers that are equal modulo
/// [`WakeBits::COUNT`] share a bit, and whoever shares one is woken for nothing, now and then.
pub(super) struct WakeBits {
    /// A bit for each word that may hold a bit.
    summaries: Box<[AtomicU64]>,
    words: Box<[AtomicU64]>,
}

impl WakeBits {
    pub const COUNT: usize = WORDS * 64;

    pub fn new() -> WakeBits {
        WakeBits {
            summaries: (0..SUMMARIES).map(|_| AtomicU64::new(0)).collect(),
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn set(&self, slot: u32) {
        let bit = slot as usize % Self::COUNT;
        let word = bit / 64;
        // Release: what the waker's caller wrote before is visible to the task. Partner: the swaps in `take`.
        self.words[word].fetch_or(1 << (bit % 64), Ordering::Release);
        // Release: whoever takes this bit also sees the one above. Partner: the swap of the summary in `take`.
        self.summaries[word / 64].fetch_or(1 << (word % 64), Ordering::Release);
    }

    /// Only behind a fence (`Bell::prepare_to_sleep`) is the answer no older than that fence.
    pub fn is_empty(&self) -> bool {
        self.summaries.iter().all(|summary| summary.load(Ordering::Relaxed) == 0) // partner: `set`
    }

    /// Empties the set. The loops are bounded by its size.
    pub fn take(&self, mut found: impl FnMut(usize)) {
        for (at, summary) in self.summaries.iter().enumerate() {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            for word in ones(summary.swap(0, Ordering::Acquire)) {
                let word = at * 64 + word;
                for bit in ones(self.words[word].swap(0, Ordering::Acquire)) {
                    found(word * 64 + bit);
                }
            }
        }
    }
}

/// The numbers of the bits that are set, lowest first.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_bit_that_was_set_is_found_once() {
        let bits = WakeBits::new();
        assert!(bits.is_empty());
        for slot in [0, 63, 64, 4095, 4096, 65_535, 63] {
            bits.set(slot);
        }
        assert!(!bits.is_empty());
        let mut found = Vec::new();
        bits.take(|bit| found.push(bit));
        assert_eq!(found, [0, 63, 64, 4095, 4096, 65_535]);
        assert!(bits.is_empty());
        bits.set(65_536 + 7); // shares the bit of slot 7
        bits.take(|bit| found.push(bit));
        assert_eq!(found.last(), Some(&7));
    }

    #[test]
    fn one_sleep_gets_one_ring() {
        let rings = Arc::new(AtomicUsize::new(0));
        let bell = Bell::new(
            {
                let rings = Arc::clone(&rings);
                Arc::new(move || _ = rings.fetch_add(1, Ordering::Relaxed))
            },
            at_once,
        );
        bell.nudge();
        assert_eq!(rings.load(Ordering::Relaxed), 0, "nobody rings where the owner is awake");
        bell.prepare_to_sleep();
        bell.nudge();
        bell.nudge();
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        bell.awake();
        bell.nudge();
        assert_eq!(rings.load(Ordering::Relaxed), 1);
    }
}
