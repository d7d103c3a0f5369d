//! Hot. Since when a link's worker has had requests and answered none of them. What follows from that is its core's.

use std::cell::Cell;

use crate::clock::Now;

/// Of one link. Its requests tell it when they go, and how each ends.
///
/// Clients that leave do not end a silence: many wait for less time than a pool does, and a worker that hangs would never be
/// found by them. Time in which the worker has nothing to answer does not count.
#[derive(Default)]
pub struct Silence {
    /// Requests that have gone and that are neither answered nor over.
    open: Cell<u32>,
    /// Since the last answer, or since there was nothing to answer, the first request went then.
    since: Cell<Option<Now>>,
    /// What had added up before.
    before_ns: Cell<u64>,
    is_mute: Cell<bool>,
}

impl Silence {
    /// A request goes to the worker. It is to end in [`answered`](Self::answered) or [`unanswered`](Self::unanswered).
    pub fn asked(&self, now: Now) {
        self.open.set(self.open.get() + 1);
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    /// The final head of a response has come. True: the link was mute until now.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.open.set(self.open.get() - 1);
        self.since.set(None);
        self.before_ns.set(0);
        self.is_mute.replace(false)
    }

    /// A request has ended without an answer. How long there was none by now.
    pub fn unanswered(&self, now: Now) -> u64 {
        self.open.set(self.open.get() - 1);
        let silent_ns = self.ns(now);
        if self.open.get() == 0 {
            self.before_ns.set(silent_ns);
            self.since.set(None);
        }
        silent_ns
    }

    /// The link is mute from now on. False: it was already.
    #[must_use]
    pub fn mute(&self) -> bool {
        !self.is_mute.replace(true)
    }

    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.is_mute.get()
    }

    /// For how long the worker has had something to answer, and answered nothing.
    #[must_use]
    pub fn ns(&self, now: Now) -> u64 {
        self.before_ns.get() + self.since.get().map_or(0, |since| now.ns_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Now {
        Now(1).plus_ms(ms)
    }

    #[test]
    fn a_silence_lasts_while_something_is_to_be_answered() {
        let silence = Silence::default();
        assert_eq!(silence.ns(at(500)), 0, "nobody has asked");
        silence.asked(at(1_000));
        silence.asked(at(1_090));
        assert_eq!(silence.unanswered(at(1_100)), 100 * MS);
        assert_eq!(silence.unanswered(at(1_120)), 120 * MS);
        assert_eq!(silence.ns(at(9_000)), 120 * MS, "nothing is asked");
        silence.asked(at(9_000));
        assert_eq!(silence.unanswered(at(9_030)), 150 * MS, "it adds up");
        assert!(silence.mute() && !silence.mute() && silence.is_mute());
        silence.asked(at(10_000));
        assert!(silence.answered(), "it was");
        assert_eq!((silence.is_mute(), silence.ns(at(20_000))), (false, 0));
    }

    #[test]
    fn an_answer_to_another_request_ends_a_silence() {
        let silence = Silence::default();
        silence.asked(at(0));
        silence.asked(at(0));
        assert!(!silence.answered());
        assert_eq!(silence.unanswered(at(100)), 0, "the worker answers, only not this one");
        silence.asked(at(110));
        assert_eq!(silence.unanswered(at(200)), 90 * MS);
    }
}
