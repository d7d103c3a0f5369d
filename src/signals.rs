//! SIGTERM and SIGINT: the first drains, the second ends the process at once with exit code 1. SIGHUP reads files again, SIGUSR2
//! starts a new process in place of this one. Runs on a thread of its own, so that no core has to look for signals.

use std::sync::{Arc, Mutex};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

type Action = Box<dyn FnMut() + Send>;

/// Signals are caught from the moment that this exists; one that came early is kept for [`Watch::on_end`].
pub struct Watch {
    state: Arc<Mutex<State>>,
    on_hangup: Place,
    on_upgrade: Place,
}

/// Where an action is put down.
type Place = Arc<Mutex<Option<Action>>>;

/// ```text
/// Running --signal--> Ending --signal--> exit(1)
/// ```
enum State {
    Running(Option<Action>),
    Ending,
}

/// Starts to watch.
pub fn watch() -> Result<Watch, String> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])
        .map_err(|error| format!("signals cannot be caught: {error}"))?;
    let state = Arc::new(Mutex::new(State::Running(None)));
    let watched = state.clone();
    let (on_hangup, on_upgrade) = (Place::default(), Place::default());
    let (hung_up, upgraded) = (on_hangup.clone(), on_upgrade.clone());
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => {
                        if !is_done(&hung_up) {
                            tracing::warn!("SIGHUP: there is nothing here that is read again; restart instead");
                        }
                        continue;
                    }
                    SIGUSR2 => {
                        if !is_done(&upgraded) {
                            tracing::warn!("SIGUSR2: nothing here can go on in a new process; restart instead");
                        }
                        continue;
                    }
                    _ => {}
                }
                let mut state = watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match std::mem::replace(&mut *state, State::Ending) {
                    State::Running(on_end) => {
                        if let Some(mut on_end) = on_end {
                            on_end();
                        }
                    }
                    State::Ending => std::process::exit(1),
                }
            }
        })
        .map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
    Ok(Watch { state, on_hangup, on_upgrade })
}

/// What somebody wants done. False: nobody wants anything.
fn is_done(place: &Place) -> bool {
    let mut place = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    place.as_mut().map(|action| action()).is_some()
}

impl Watch {
    /// What to do on every SIGHUP from now on.
    pub fn on_hangup(&self, on_hangup: impl FnMut() + Send + 'static) {
        *self.on_hangup.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Box::new(on_hangup));
    }

    /// What to do on every SIGUSR2 from now on. It must not wait: no other signal is heard meanwhile.
    pub fn on_upgrade(&self, on_upgrade: impl FnMut() + Send + 'static) {
        *self.on_upgrade.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Box::new(on_upgrade));
    }

    /// What to do on the first signal; at once if it has come already.
    pub fn on_end(&self, mut on_end: impl FnMut() + Send + 'static) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut *state {
            State::Running(place) => *place = Some(Box::new(on_end)),
            State::Ending => on_end(),
        }
    }
}
