//! The one file that reads the clock. Everything else gets a [`Now`] as an argument.

/// A moment: nanoseconds of the kernel's monotonic clock. Comparable between cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// This moment and `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Now {
        Now(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    #[must_use]
    pub fn plus_ns(self, ns: u64) -> Now {
        Now(self.0.saturating_add(ns))
    }

    /// Whole milliseconds from `earlier` to this moment; 0 if it was later.
    #[must_use]
    pub fn ms_since(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }

    /// Nanoseconds from `earlier` to this moment; 0 if it was later.
    #[must_use]
    pub fn ns_since(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads the monotonic clock (vDSO, some 30 ns).
#[must_use]
pub fn now() -> Now {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Now(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// CPU time of the calling thread, in nanoseconds (some 200 ns: a system call).
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Milliseconds since 1970, for the moments in log lines; never for measuring.
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the file that the rule sends everybody to
pub fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since 1970, for expiry dates and log lines; never for measuring.
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the file that the rule sends everybody to
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
