//! The end of a turn: what every ready task of this core has done its part before. Who waits for it, and what for, never
//! enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

thread_local! {
    static TURN: Turn = const {
        let waiting = [const { RefCell::new(Vec::new()) }; 2];
        Turn { count: Cell::new(0), waiting, driver: Cell::new(None) }
    };
}

struct Turn {
    /// Turns that ended.
    count: Cell<u64>,
    /// By [`Leaves`].
    waiting: [RefCell<Vec<Waker>>; 2],
    /// The driver's, while it waits for the first of a turn.
    driver: Cell<Option<Waker>>,
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
            for waiting in &turn.waiting {
                std::mem::swap(&mut *waiting.borrow_mut(), &mut woken);
                woken.drain(..).for_each(Waker::wake);
            }
            turn.driver.set(Some(cx.waker().clone()));
        });
        Poll::<()>::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::io;

    #[test]
    fn requests_leave_before_responses_whoever_was_there_first() {
        let left = io::run(|| async {
            let left = Rc::new(RefCell::new(Vec::new()));
            let ends = [Leaves::Last, Leaves::First, Leaves::Last, Leaves::First].map(|leaves| {
                let (left, end) = (left.clone(), Rc::new(Cell::new(false)));
                let (mut hold, is_over) = (Hold::new(leaves), end.clone());
                io::spawn(async move {
                    std::future::poll_fn(|cx| hold.poll(cx)).await;
                    left.borrow_mut().push(leaves);
                    is_over.set(true);
                });
                end
            });
            while !ends.iter().all(|end| end.get()) {
                io::sleep_ms(1).await;
            }
            left.take()
        });
        assert_eq!(left.unwrap(), [Leaves::First, Leaves::First, Leaves::Last, Leaves::Last]);
    }
}
