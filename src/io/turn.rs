//! The end of a turn: what every ready task of this core has done its part before. First leave requests, then other cores
//! are rung, then responses leave. Who waits for it, and what for, never enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Rings another core's bell, if that is still to be done.
type Ring = Arc<dyn Fn() + Send + Sync>;

thread_local! {
    static TURN: Turn = const {
        let waiting = [const { RefCell::new(Vec::new()) }; 2];
        Turn {
            count: Cell::new(0),
            waiting,
            rings: RefCell::new(Vec::new()),
            is_driven: Cell::new(false),
            driver: Cell::new(None),
            ringer: Cell::new(None),
        }
    };
}

struct Turn {
    /// Turns that ended.
    count: Cell<u64>,
    /// By [`Leaves`].
    waiting: [RefCell<Vec<Waker>>; 2],
    /// Bells to be rung.
    rings: RefCell<Vec<Ring>>,
    /// This thread is a core that has turns.
    is_driven: Cell<bool>,
    /// The driver's, while it waits for the first of a turn.
    driver: Cell<Option<Waker>>,
    ringer: Cell<Option<Waker>>,
}

impl Turn {
    fn will_end(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake(); // it comes behind all that is ready
        }
    }
}

/// Which writes leave first at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// What somebody needs before he can begin to work: a request.
    First,
    /// What ends work: a response.
    Last,
}

/// Small writes of one turn are held until its end and leave one behind the other, or as one: whoever reads them is woken
/// once and stays awake, which costs both sides less than a wake for each.
pub struct Hold {
    leaves: Leaves,
    /// The turn in which it began.
    since: Option<u64>,
}

impl Hold {
    #[must_use]
    pub fn new(leaves: Leaves) -> Hold {
        Hold { leaves, since: None }
    }

    /// Pending for the rest of the turn in which it is first polled, ready once in a later one. Wakes the task that polled
    /// first when all tasks that are ready now have run.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        TURN.with(|turn| match self.since {
            Some(since) if since == turn.count.get() => Poll::Pending,
            Some(_) => {
                self.since = None;
                Poll::Ready(())
            }
            None => {
                self.since = Some(turn.count.get());
                turn.waiting[self.leaves as usize].borrow_mut().push(cx.waker().clone());
                turn.will_end();
                Poll::Pending
            }
        })
    }
}

/// Wakes a task at the end of the turn, when nobody waits for what it does.
pub fn wake_last(waker: Waker) {
    TURN.with(|turn| {
        turn.waiting[Leaves::Last as usize].borrow_mut().push(waker);
        turn.will_end();
    });
}

/// Rings at the end of the turn, behind the requests that leave: a ring is a system call, and on a virtual machine it makes
/// the other CPU's host come, while a worker waits. At once on a thread that is no core.
pub fn at_turn_end(ring: &Ring) {
    let deferred = TURN.try_with(|turn| {
        if turn.is_driven.get() {
            let mut rings = turn.rings.borrow_mut();
            if !rings.iter().any(|other| Arc::ptr_eq(other, ring)) {
                rings.push(Arc::clone(ring)); // one for each other core at most
            }
            turn.will_end();
        }
        turn.is_driven.get()
    });
    if deferred != Ok(true) {
        ring(); // also where this thread is about to end
    }
}

/// A core's tasks for it. They run as long as the core.
#[must_use]
pub(super) fn start() -> Driven {
    TURN.with(|turn| turn.is_driven.set(true));
    super::run::spawn_staff(drive());
    super::run::spawn_staff(ring_on());
    Driven
}

/// The core has turns until this is dropped. From then on bells are rung at once.
pub(super) struct Driven;

impl Drop for Driven {
    fn drop(&mut self) {
        TURN.with(|turn| {
            turn.is_driven.set(false);
            turn.rings.take().iter().for_each(|ring| ring());
        });
    }
}

async fn ring_on() {
    let mut rings = Vec::new();
    std::future::poll_fn(|cx| {
        TURN.with(|turn| {
            std::mem::swap(&mut *turn.rings.borrow_mut(), &mut rings);
            rings.drain(..).for_each(|ring: Ring| ring());
            turn.ringer.set(Some(cx.waker().clone()));
        });
        Poll::<()>::Pending
    })
    .await;
}

async fn drive() {
    let mut woken = Vec::new();
    std::future::poll_fn(|cx| {
        TURN.with(|turn| {
            turn.count.set(turn.count.get() + 1);
            let mut wake = |leaves: Leaves| {
                std::mem::swap(&mut *turn.waiting[leaves as usize].borrow_mut(), &mut woken);
                woken.drain(..).for_each(Waker::wake);
            };
            wake(Leaves::First);
            if !turn.rings.borrow().is_empty()
                && let Some(ringer) = turn.ringer.take()
            {
                ringer.wake();
            }
            wake(Leaves::Last);
            turn.driver.set(Some(cx.waker().clone()));
        });
        Poll::<()>::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::io;

    /// A bell that counts how often it is rung.
    fn counting() -> (Ring, Arc<AtomicU32>) {
        let rung = Arc::new(AtomicU32::new(0));
        let counter = rung.clone();
        (Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)), rung)
    }

    #[test]
    fn a_thread_that_is_no_core_rings_at_once() {
        let (ring, rung) = counting();
        at_turn_end(&ring);
        assert_eq!(rung.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_bell_is_rung_once_a_turn_and_also_in_the_last_one() {
        let (ring, rung) = counting();
        let (again, late) = (ring.clone(), rung.clone());
        io::run(|| async move {
            (0..3).for_each(|_| at_turn_end(&again));
            assert_eq!(late.load(Ordering::Relaxed), 0);
            io::sleep_ms(1).await;
            assert_eq!(late.load(Ordering::Relaxed), 1);
            at_turn_end(&again);
        })
        .unwrap();
        assert_eq!(rung.load(Ordering::Relaxed), 2, "the core ended in the turn that it was rung in");
    }

    #[test]
    fn requests_leave_then_bells_are_rung_then_responses_leave() {
        let (ring, rung) = counting();
        let left = io::run(|| async {
            let left = Rc::new(RefCell::new(Vec::new()));
            io::sleep_ms(1).await; // the core's own tasks have begun
            let ends = [Leaves::Last, Leaves::First, Leaves::Last, Leaves::First].map(|leaves| {
                let (left, end) = (left.clone(), Rc::new(Cell::new(false)));
                let (mut hold, is_over, rung) = (Hold::new(leaves), end.clone(), rung.clone());
                io::spawn(async move {
                    std::future::poll_fn(|cx| hold.poll(cx)).await;
                    left.borrow_mut().push((leaves, rung.load(Ordering::Relaxed)));
                    is_over.set(true);
                });
                end
            });
            at_turn_end(&ring);
            while !ends.iter().all(|end| end.get()) {
                io::sleep_ms(1).await;
            }
            left.take()
        });
        let (first, last) = ((Leaves::First, 0), (Leaves::Last, 1));
        assert_eq!(left.unwrap(), [first, first, last, last]);
    }
}
