//! The end of a turn: what every ready task of this core has done its part before. Who waits for it, and what for, never
//! enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

thread_local! {
    static TURN: Turn = const { Turn { count: Cell::new(0), waiting: RefCell::new(Vec::new()), driver: Cell::new(None) } };
}

struct Turn {
    /// Turns that ended.
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    /// The driver's, while it waits for the first of a turn.
    driver: Cell<Option<Waker>>,
}

/// Small writes of one turn are held until its end and leave one behind the other, or as one: whoever reads them is woken
/// once and stays awake, which costs both sides less than a wake for each.
#[derive(Default)]
pub struct Hold {
    /// The turn in which it began.
    since: Option<u64>,
}

impl Hold {
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
                turn.waiting.borrow_mut().push(cx.waker().clone());
                if let Some(driver) = turn.driver.take() {
                    driver.wake(); // it comes behind all that is ready
                }
                Poll::Pending
            }
        })
    }
}

/// The core's task for it.
pub(super) async fn drive() {
    let mut woken = Vec::new();
    std::future::poll_fn(|cx| {
        TURN.with(|turn| {
            turn.count.set(turn.count.get() + 1);
            std::mem::swap(&mut *turn.waiting.borrow_mut(), &mut woken);
            woken.drain(..).for_each(Waker::wake);
            turn.driver.set(Some(cx.waker().clone()));
        });
        Poll::<()>::Pending
    })
    .await;
}
