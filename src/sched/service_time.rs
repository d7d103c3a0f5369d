//! How long a pool's requests are with its workers, from counts that are looked at once in a while. No request is followed.

/// Little's law: while `in_flight` requests are with workers for a time, and `ended` of them end in it, one takes
/// `in_flight` * time / `ended`. Counts of the last five looks or of the last twenty requests, whichever is longer: a pool
/// whose requests take minutes has few.
#[derive(Clone, Debug, Default)]
pub struct ServiceTime {
    busy_ns: f64,
    ended: f64,
    /// Of all times, at the last look.
    ended_before: Option<u64>,
    in_flight_before: u64,
}

/// How much of what was counted is still there after another look.
const KEPT: f64 = 0.8;
/// But not so much is forgotten that fewer requests than this are left.
const ENDED_MIN: f64 = 20.0;

impl ServiceTime {
    /// `ended` requests have ended by now, over all times, and `in_flight` are with workers; the last look was `ns` ago. Gives
    /// the time of one in nanoseconds; `None` until one has ended.
    pub fn look(&mut self, ended: u64, in_flight: u64, ns: u64) -> Option<u64> {
        // Both ends of the time stand for what lies between.
        let between = (self.in_flight_before + in_flight) as f64 / 2.0;
        self.in_flight_before = in_flight;
        let before = self.ended_before.replace(ended)?;
        self.busy_ns += between * ns as f64;
        self.ended += ended.saturating_sub(before) as f64;
        if self.ended > ENDED_MIN {
            let kept = KEPT.max(ENDED_MIN / self.ended);
            self.busy_ns *= kept;
            self.ended *= kept;
        }
        (self.ended >= 1.0).then(|| (self.busy_ns / self.ended).max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_steady_pool_is_known_after_a_few_looks() {
        // 8 in flight, 40 a second: each takes 200 ms.
        let mut time = ServiceTime::default();
        let told: Vec<_> = (0..20).map(|s| time.look(s * 40, 8, S)).collect();
        assert_eq!(told[0], None);
        assert!(told[3..].iter().all(|told| told.is_some_and(|ns| ns.abs_diff(S / 5) < S / 20)), "{told:?}");
    }

    #[test]
    fn what_takes_minutes_is_known_when_the_first_has_ended() {
        let mut time = ServiceTime::default();
        for s in 0..120 {
            assert_eq!(time.look(0, 2, S), None, "{s}");
        }
        let told = time.look(2, 2, S).expect("two have ended");
        assert!(told.abs_diff(120 * S) < 2 * S, "{told}");
        // A worker that hangs makes it longer, one that idles does not make it shorter.
        let hung = (0..60).filter_map(|_| time.look(2, 2, S)).last().expect("known");
        assert!(hung > 170 * S, "{hung}");
        let mut idle = ServiceTime::default();
        idle.look(0, 0, S);
        idle.look(10, 10, S);
        let before = idle.look(20, 10, S).expect("known");
        let after = (0..100).filter_map(|_| idle.look(20, 0, S)).last().expect("known");
        assert!(after <= before + S, "{before} {after}");
    }

    #[test]
    fn a_change_is_seen_within_some_looks() {
        let mut time = ServiceTime::default();
        let mut ended = 0;
        for _ in 0..100 {
            ended += 1_000;
            time.look(ended, 10, S);
        }
        // Ten times slower.
        let told: Vec<u64> = (0..40)
            .filter_map(|_| {
                ended += 100;
                time.look(ended, 10, S)
            })
            .collect();
        assert!(told[39] > S / 10 * 9 / 10, "{told:?}");
        assert!(told[0] < S / 50, "{told:?}");
    }
}
