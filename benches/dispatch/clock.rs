//! The clock of the tool: nanoseconds since some moment, the CPU time of this process, and a pause. Nothing else reads
//! one.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Monotonic. It is the clock of every record and of the timer.
pub fn now_ns() -> u64 {
    ns_of(clock_gettime(ClockId::Monotonic))
}

/// CPU time of all threads of this process.
pub fn process_cpu_ns() -> u64 {
    ns_of(clock_gettime(ClockId::ProcessCPUTime))
}

/// Outside of a pass only: nothing is handled meanwhile.
pub fn pause_ms(ms: u64) {
    let _ = rustix::event::poll(&mut [], Some(&timespec(ms * 1_000_000))); // a signal may shorten it
}

pub fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as _ }
}

fn ns_of(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
