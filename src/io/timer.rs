//! Deadlines of one core: a wheel, one task that turns it, and the futures that wait for it.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::bell::Counter;
use super::wheel::{Key, Wheel};
use crate::clock::{self, Now};
use crate::events::Durations;
use crate::limits::TICK_MS;

const TICK_NS: u64 = TICK_MS * 1_000_000;

thread_local! {
    static TIMERS: Timers = Timers {
        wheel: RefCell::new(Wheel::new(Now(0))),
        clock: RefCell::new(None),
        ticking: Cell::new(false),
        lag: RefCell::new(Durations::roomy()),
    };
}

/// A timerfd ticks while the wheel holds a timer. With monoio's own timers every turn of the loop would read the clock
/// twice and arm a kernel timer; this costs one wake-up a tick, and none on a core without deadlines.
struct Timers {
    wheel: RefCell<Wheel>,
    clock: RefCell<Option<OwnedFd>>,
    ticking: Cell<bool>,
    lag: RefCell<Durations>,
}

impl Timers {
    /// Ticks fall on multiples of the tick, as the wheel's slots do, so a timer is not late by a second one.
    #[cold]
    fn start_ticking(&self) {
        let into_tick_ns = clock::now().0 % TICK_NS;
        self.tell(Itimerspec { it_value: timespec(TICK_NS - into_tick_ns), it_interval: timespec(TICK_NS) });
        self.ticking.set(true);
    }

    #[cold]
    fn stop_ticking(&self) {
        self.tell(Itimerspec { it_value: timespec(0), it_interval: timespec(0) });
        self.ticking.set(false);
    }

    fn tell(&self, when: Itimerspec) {
        let clock = self.clock.borrow();
        let clock = clock.as_ref().expect("timers need the runtime: io::run");
        rustix::time::timerfd_settime(clock, TimerfdTimerFlags::empty(), &when).expect("a timerfd takes any time");
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

/// Gives this thread an empty wheel; the counter that comes back is what [`drive`] waits for.
pub(super) fn start() -> io::Result<Counter> {
    let clock = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let counter = Counter::new(clock.try_clone()?);
    TIMERS.with(|timers| {
        *timers.wheel.borrow_mut() = Wheel::new(clock::now());
        *timers.clock.borrow_mut() = Some(clock);
        timers.ticking.set(false);
    });
    Ok(counter)
}

/// The core has ended: its clock stops.
pub(super) fn end() {
    TIMERS.with(|timers| {
        timers.clock.take();
        timers.ticking.set(true); // nobody starts what is not there: a timer that outlives its core never expires
    });
}

/// The core's timer task.
pub(super) async fn drive(mut counter: Counter) {
    let mut wake: Vec<Waker> = Vec::new();
    loop {
        let ticks = poll_fn(|cx| counter.poll_wait(cx)).await.expect("a timerfd can be read");
        TIMERS.with(|timers| {
            let mut wheel = timers.wheel.borrow_mut();
            let now = clock::now();
            // Ticks fall on multiples of the tick; those that came before the last one were not seen at all.
            timers.lag.borrow_mut().observe_ns(ticks.saturating_sub(1) * TICK_NS + now.0 % TICK_NS);
            wheel.turn(now, &mut wake);
            if wheel.is_empty() {
                timers.stop_ticking();
            }
        });
        // The wheel is not borrowed here: a waker may be the last owner of a task with timers.
        wake.drain(..).for_each(Waker::wake);
    }
}

/// How late this core's loop was to see each tick of its timers: what its turns took, and what the kernel and other programs
/// took in between.
#[must_use]
pub fn lag() -> Durations {
    TIMERS.with(|timers| timers.lag.borrow().clone())
}

/// One deadline that can be moved cheaply: later, or away and back, is a store. Make one for each connection and keep it.
pub struct Timer {
    key: Option<Key>,
    on_this_thread: PhantomData<*const ()>,
}

impl Timer {
    /// Not set. Costs nothing until it is used.
    #[must_use]
    pub fn new() -> Timer {
        Timer { key: None, on_this_thread: PhantomData }
    }

    /// Expires at `at`, or up to one tick later. Replaces the deadline before, expired or not.
    pub fn set(&mut self, at: Now) {
        TIMERS.with(|timers| {
            let mut wheel = timers.wheel.borrow_mut();
            let key = *self.key.get_or_insert_with(|| wheel.add());
            wheel.set(key, at);
            if !timers.ticking.get() {
                timers.start_ticking();
            }
        });
    }

    /// Never expires.
    pub fn clear(&mut self) {
        if let Some(key) = self.key {
            TIMERS.with(|timers| timers.wheel.borrow_mut().clear(key));
        }
    }

    /// Ready once for each deadline that passed; then it is not set. Wakes the task that polled last, also for a
    /// deadline that is set after the poll.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (expired, replaced) = TIMERS.with(|timers| {
            let mut wheel = timers.wheel.borrow_mut();
            let key = *self.key.get_or_insert_with(|| wheel.add());
            if wheel.take_fired(key) { (true, None) } else { (false, wheel.listen(key, cx.waker())) }
        });
        drop(replaced); // outside of the borrow, see `drive`
        if expired { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for the deadline; forever while none is set. May be dropped and called again.
    pub async fn expired(&mut self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // The thread may be ending, its wheel gone.
            let waker = TIMERS.try_with(|timers| timers.wheel.borrow_mut().remove(key));
            drop(waker);
        }
    }
}

/// Waits `ms`, and up to one tick longer.
pub async fn sleep_ms(ms: u64) {
    let mut timer = Timer::new();
    timer.set(clock::now().plus_ms(ms));
    timer.expired().await;
}

/// What `future` gives, or `None` after `ms` (and up to one tick). The future is dropped then; everything in `io` allows
/// that.
pub async fn timeout<T>(ms: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = Timer::new();
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if timer.key.is_none() {
            timer.set(clock::now().plus_ms(ms)); // what is ready at once needs no timer
        }
        timer.poll_expired(cx).map(|()| None)
    })
    .await
}
