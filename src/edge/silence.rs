//! Hot. Since when a link's worker has had requests and answered none of them. What follows from that is its core's.

use std::cell::Cell;

use crate::clock::Now;

/// Of one link. Requests that have gone up as a whole, of pools that do not wait for ever, tell it when and how each ends.
///
/// Clients that leave do not end a silence: many wait for less time than a pool does, and a worker that hangs would never be
/// found by them. Time in which the worker has nothing to answer does not count, nor does the time of a request whose client is
/// yet to send the rest of it.
pub struct Silence {
    /// After so long a silence the link is mute: the longest `response_head_max_wait` of its pools. 0: never.
    patience_ms: u64,
    /// Requests that are neither answered nor over.
    open: Cell<u32>,
    /// Since the last answer, or since there was nothing to answer, the first request went then.
    since: Cell<Option<Now>>,
    /// What had added up before.
    before_ns: Cell<u64>,
    is_mute: Cell<bool>,
}

impl Silence {
    #[must_use]
    pub fn new(patience_ms: u64) -> Silence {
        let (open, since, before_ns, is_mute) = Default::default();
        Silence { patience_ms, open, since, before_ns, is_mute }
    }

    /// A request is with the worker. It is to end in [`answered`](Self::answered) or [`unanswered`](Self::unanswered).
    pub fn asked(&self, now: Now) {
        self.open.set(self.open.get() + 1);
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    /// One of them is answered: the final head of its response has come.
    pub fn answered(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// The worker has answered something. True: the link was mute until now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.since.set(None);
        self.before_ns.set(0);
        self.is_mute.replace(false)
    }

    /// A request has ended without an answer. `gave_up`: because somebody did not want to wait any longer. True: the link is mute
    /// from now on.
    #[must_use]
    pub fn unanswered(&self, now: Now, gave_up: bool) -> bool {
        self.open.set(self.open.get() - 1);
        let silent_ns = self.ns(now);
        if self.open.get() == 0 {
            self.before_ns.set(silent_ns);
            self.since.set(None);
        }
        let is_long = self.patience_ms > 0 && silent_ns / 1_000_000 >= self.patience_ms;
        gave_up && is_long && !self.is_mute.replace(true)
    }

    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.is_mute.get()
    }

    /// Nothing is to be answered.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.open.get() == 0
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
        let silence = Silence::new(150);
        assert_eq!(silence.ns(at(500)), 0, "nobody has asked");
        silence.asked(at(1_000));
        silence.asked(at(1_090));
        assert!(!silence.unanswered(at(1_100), true) && !silence.is_free());
        assert!(!silence.unanswered(at(1_120), true) && silence.is_free());
        assert_eq!(silence.ns(at(9_000)), 120 * MS, "nothing is asked");
        silence.asked(at(9_000));
        silence.asked(at(9_000));
        assert!(!silence.unanswered(at(9_030), false), "the link broke, or its worker refused");
        assert!(silence.unanswered(at(9_030), true), "it adds up");
        silence.asked(at(9_100));
        assert!(!silence.unanswered(at(9_200), true) && silence.is_mute(), "it is already");
        silence.asked(at(10_000));
        silence.answered();
        assert!(silence.is_over(), "it was");
        assert_eq!((silence.is_mute(), silence.is_free(), silence.ns(at(20_000))), (false, true, 0));
    }

    #[test]
    fn an_answer_to_another_request_ends_a_silence() {
        let silence = Silence::new(90);
        silence.asked(at(0));
        silence.asked(at(0));
        silence.answered();
        assert!(!silence.is_over());
        assert!(!silence.unanswered(at(100), true), "the worker answers, only not this one");
        silence.asked(at(110));
        assert!(!silence.unanswered(at(199), true));
        silence.asked(at(200));
        assert!(silence.unanswered(at(201), true));
    }

    #[test]
    fn a_worker_whose_pools_wait_for_ever_is_never_mute() {
        let silence = Silence::new(0);
        silence.asked(at(0));
        assert!(!silence.unanswered(at(1_000_000), true));
    }
}
