//! Hot. How fast a body comes, by the time for which its sender was waited for. Time in which nobody waited for it (the other
//! side did not read, the request had no link yet) never counts against it.

use crate::clock::Now;

/// Counts in windows: a sender that was quick once is not slow for ever, and not quick either.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes for each second; 0: any pace is good.
    rate_min: u64,
    window_ms: u64,
    /// The sender has been waited for since then.
    waits_since: Option<Now>,
    /// And for so long before, in this window.
    waited_ns: u64,
    /// What had come when this window began.
    bytes_before: u64,
}

impl Pace {
    #[must_use]
    pub(super) fn new(rate_min: u64, window_ms: u64) -> Pace {
        Pace { rate_min, window_ms, waits_since: None, waited_ns: 0, bytes_before: 0 }
    }

    #[must_use]
    pub(super) fn is_watched(&self) -> bool {
        self.rate_min > 0 && self.window_ms > 0
    }

    /// From now on the sender is waited for, or it is not.
    pub(super) fn waits(&mut self, for_sender: bool, now: Now) {
        if let Some(since) = self.waits_since {
            self.waited_ns += now.ns_since(since);
        }
        self.waits_since = for_sender.then_some(now);
    }

    /// When a window could be over at the earliest.
    #[must_use]
    pub(super) fn look_at(&self, now: Now) -> Now {
        let waited_ms = self.waited_ns / 1_000_000;
        self.waits_since.unwrap_or(now).plus_ms(self.window_ms.saturating_sub(waited_ms))
    }

    /// A whole window is over, and less came in it than should; `bytes` came in all. Begins the next one.
    #[must_use]
    pub(super) fn is_slow(&mut self, bytes: u64, now: Now) -> bool {
        self.waits(self.waits_since.is_some(), now);
        if self.waited_ns < self.window_ms.saturating_mul(1_000_000) {
            return false;
        }
        // More than a window, where the look was late: as much more had to come.
        let wanted = u128::from(self.rate_min) * u128::from(self.waited_ns) / 1_000_000_000;
        let came = bytes - self.bytes_before;
        (self.waited_ns, self.bytes_before) = (0, bytes);
        u128::from(came) < wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now(0).plus_ms(ms)
    }

    /// 100 bytes for each second, windows of a second.
    fn pace() -> Pace {
        let mut pace = Pace::new(100, 1_000);
        pace.waits(true, at(0));
        pace
    }

    #[test]
    fn a_window_with_enough_is_followed_by_the_next() {
        let mut pace = pace();
        assert_eq!(pace.look_at(at(0)), at(1_000));
        assert!(!pace.is_slow(0, at(999)), "its window is not over");
        assert!(!pace.is_slow(100, at(1_000)));
        assert_eq!(pace.look_at(at(1_000)), at(2_000));
        assert!(!pace.is_slow(200, at(2_000)));
        assert!(pace.is_slow(299, at(3_000)), "a byte is missing");
    }

    #[test]
    fn what_came_in_one_window_does_not_help_in_the_next() {
        let mut pace = pace();
        assert!(!pace.is_slow(1_000_000, at(1_000)));
        assert!(pace.is_slow(1_000_050, at(2_000)));
    }

    #[test]
    fn time_in_which_nobody_waited_for_it_does_not_count() {
        let mut pace = pace();
        pace.waits(false, at(400));
        assert!(!pace.is_slow(0, at(9_000)), "it was waited for during 400 ms");
        assert_eq!(pace.look_at(at(9_000)), at(9_600));
        pace.waits(true, at(10_000));
        assert_eq!(pace.look_at(at(10_000)), at(10_600));
        assert!(!pace.is_slow(0, at(10_599)));
        assert!(pace.is_slow(0, at(10_600)));
    }

    #[test]
    fn a_late_look_wants_as_much_more() {
        let mut one = pace();
        assert!(one.is_slow(149, at(1_500)));
        let mut other = pace();
        assert!(!other.is_slow(150, at(1_500)));
    }

    #[test]
    fn without_a_rate_nothing_is_watched() {
        assert!(!Pace::new(0, 1_000).is_watched() && !Pace::new(1, 0).is_watched() && Pace::new(1, 1).is_watched());
    }
}
