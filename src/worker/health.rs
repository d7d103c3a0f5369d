//! Whether the server behind the worker is well: it is asked every now and then, and while it is not, the links offer nothing.
//! Requests of clients never enter.

use std::rc::Rc;

use super::config::Health;
use super::links::sleep_or;
use super::service::WorkerService;
use super::shares::Shares;
use crate::exchange::Latch;
use crate::io;

/// ```text
/// Unknown --first answer--> Well, Unwell
/// Well --fall bad answers one after the other--> Unwell;   Unwell --rise good ones--> Well
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Well { bad: u32 },
    Unwell { good: u32 },
}

impl State {
    /// After one more answer.
    fn after(self, is_good: bool, rise: u32, fall: u32) -> State {
        match (self, is_good) {
            (State::Unknown | State::Well { .. }, true) => State::Well { bad: 0 },
            (State::Unknown | State::Unwell { .. }, false) => State::Unwell { good: 0 },
            (State::Well { bad }, false) if bad + 1 >= fall => State::Unwell { good: 0 },
            (State::Well { bad }, false) => State::Well { bad: bad + 1 },
            (State::Unwell { good }, true) if good + 1 >= rise => State::Well { bad: 0 },
            (State::Unwell { good }, true) => State::Unwell { good: good + 1 },
        }
    }

    fn is_well(self) -> bool {
        matches!(self, State::Well { .. })
    }
}

/// Asks until `stop` is set. Nothing is offered until the first answer, unless it `was_watched` before.
pub async fn watch(service: Rc<WorkerService>, shares: Rc<Shares>, health: Health, was_watched: bool, stop: Rc<Latch>) {
    let mut state = match (was_watched, shares.is_paused()) {
        (false, _) => State::Unknown,
        (true, false) => State::Well { bad: 0 },
        (true, true) => State::Unwell { good: 0 },
    };
    while !stop.is_set() {
        let asked = io::timeout(health.timeout_ms, service.check(&health.path)).await;
        let (is_good, why) = match asked {
            Some(Ok(status)) => (status.is_success() || status.is_redirection(), format!("it answered {status}")),
            Some(Err(why)) => (false, why),
            None => (false, "no answer in time".into()),
        };
        if stop.is_set() {
            return; // somebody else asks now, or nobody
        }
        let before = state;
        state = state.after(is_good, health.rise, health.fall);
        shares.pause(!state.is_well());
        match (before, state) {
            (State::Well { .. }, State::Well { .. }) | (State::Unwell { .. }, State::Unwell { .. }) => {}
            (_, State::Well { .. }) => tracing::info!(path = %health.path, "the server is well"),
            _ => tracing::warn!(path = %health.path, why, "the server is not well: nothing is offered"),
        }
        sleep_or(health.every_ms, &[&stop]).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_what_it_was_often_enough() {
        let check = |from: State, answers: &str, want: State| {
            let last = answers.chars().fold(from, |state, answer| state.after(answer == '+', 2, 3));
            assert_eq!(last, want, "{from:?} after {answers}");
        };
        let (well, unwell) = (|bad| State::Well { bad }, |good| State::Unwell { good });
        check(State::Unknown, "+", well(0));
        check(State::Unknown, "-", unwell(0));
        check(well(0), "--", well(2));
        check(well(0), "--+", well(0));
        check(well(0), "--+--", well(2));
        check(well(0), "---", unwell(0));
        check(unwell(0), "+", unwell(1));
        check(unwell(0), "+-+", unwell(1));
        check(unwell(0), "++", well(0));
    }
}
