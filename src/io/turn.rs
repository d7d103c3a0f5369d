//! The end of a turn: what every ready task of this core has done its part before. Who waits for it, and what for, never
//! enters.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

thread_local! {
    static TURN: Turn = const { Turn { waiting: RefCell::new(Vec::new()), driver: Cell::new(None) } };
}

struct Turn {
    waiting: RefCell<Vec<Waker>>,
    /// The driver's, while it waits for the first of a turn.
    driver: Cell<Option<Waker>>,
}

/// Wakes this task again when the tasks that are ready now have run. Small writes of one turn are held until then and
/// leave one behind the other: whoever reads them is woken once and stays awake, which costs both sides less than a wake
/// for each.
pub fn at_end_of_turn(cx: &Context<'_>) {
    TURN.with(|turn| {
        turn.waiting.borrow_mut().push(cx.waker().clone());
        if let Some(driver) = turn.driver.take() {
            driver.wake(); // it comes behind all that is ready
        }
    });
}

/// The core's task for it.
pub(super) async fn drive() {
    let mut woken = Vec::new();
    std::future::poll_fn(|cx| {
        TURN.with(|turn| {
            std::mem::swap(&mut *turn.waiting.borrow_mut(), &mut woken);
            woken.drain(..).for_each(Waker::wake);
            turn.driver.set(Some(cx.waker().clone()));
        });
        Poll::<()>::Pending
    })
    .await;
}
