//! `ptth top`: an edge's report once a second on a terminal, which is left as it was. What is shown stands in [`model`], how in [`draw`];
//! only the keys, the clock and the two threads stand here.

mod draw;
mod model;

use super::Stop;
use super::admin::AdminArgument;
use super::status;
use crate::clock::{self, now};
use crate::edge::report::Report;
use crate::limits::{TOP_KEY_MS, TOP_MS};
use crate::settings::io_reason;
use model::{State, Wish};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{IsTerminal as _, stdin, stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Ends with a key or a signal. Before the screen is taken the edge has answered once: what is wrong with the arguments is told as
/// every command tells it.
pub(super) fn top(admin: AdminArgument) -> Result<(), Stop> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Stop::usage("top needs a terminal; `ptth status` prints the same once, and --json for programs"));
    }
    let first = status::report(&admin)?;
    let mut state = State::new(std::env::var_os("NO_COLOR").is_none(), now());
    state.take(Ok(first), now(), clock::unix_seconds());
    let failed = |what: &str, error: std::io::Error| Stop::Failure(format!("{what}: {}", io_reason(&error)));
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| failed("signals cannot be caught", error))?;
    let (answer, answers) = sync_channel(1);
    let (_ends_with_us, end) = sync_channel(0);
    std::thread::Builder::new()
        .name("asks".into())
        .spawn(move || ask(&admin, &answer, &end))
        .map_err(|error| failed("a thread could not be started", error))?;
    let screen = Screen;
    let mut terminal = ratatui::try_init().map_err(|error| failed("the terminal cannot be used", error))?;
    loop {
        let mut room = 0;
        terminal
            .draw(|frame| room = draw::draw(frame, &state))
            .map_err(|error| failed("the terminal takes nothing", error))?;
        state.has_room(room);
        if wait(&mut state, &answers, &mut signals)? == Next::End {
            drop(screen);
            return Ok(());
        }
    }
}

/// The terminal is as it was when this has gone. A panic has put it back by then, and has written where the cursor was: to put it back
/// twice would move the cursor there.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Draw,
    End,
}

/// Until there is something to draw: a key, another size, an answer, and without one a second that has passed.
fn wait(state: &mut State, answers: &Receiver<Answer>, signals: &mut Signals) -> Result<Next, Stop> {
    let broken = |error: std::io::Error| Stop::Failure(format!("the terminal cannot be read: {}", io_reason(&error)));
    let from = now();
    while now().ms_since(from) < TOP_MS {
        if event::poll(Duration::from_millis(TOP_KEY_MS)).map_err(broken)? {
            match event::read().map_err(broken)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match meaning(key) {
                    Meaning::End => return Ok(Next::End),
                    Meaning::Wish(wish) => {
                        state.wish(wish);
                        return Ok(Next::Draw);
                    }
                    Meaning::Nothing => {}
                },
                Event::Resize(..) => return Ok(Next::Draw),
                _ => {}
            }
        }
        if signals.pending().next().is_some() {
            return Ok(Next::End);
        }
        match answers.try_recv() {
            Ok(answer) => {
                state.take(answer, now(), clock::unix_seconds());
                return Ok(Next::Draw);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(Stop::Failure("the thread that asks has ended".into())),
        }
    }
    state.at(now());
    Ok(Next::Draw)
}

type Answer = Result<Report, String>;

/// Asks until nobody listens. An edge that does not answer is asked again: it may be back.
fn ask(admin: &AdminArgument, answer: &SyncSender<Answer>, end: &Receiver<()>) {
    let mut asked = now();
    loop {
        let left = Duration::from_millis(TOP_MS.saturating_sub(now().ms_since(asked)));
        if end.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        asked = now();
        if answer.send(status::report(admin).map_err(Stop::into_text)).is_err() {
            return;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    End,
    Wish(Wish),
    Nothing,
}

fn meaning(key: KeyEvent) -> Meaning {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Meaning::End } else { Meaning::Nothing };
    }
    Meaning::Wish(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Meaning::End,
        KeyCode::Tab => Wish::NextTab,
        KeyCode::BackTab => Wish::TabBefore,
        KeyCode::Up => Wish::Up,
        KeyCode::Down => Wish::Down,
        KeyCode::PageUp => Wish::PageUp,
        KeyCode::PageDown => Wish::PageDown,
        KeyCode::Home => Wish::Top,
        KeyCode::End => Wish::Bottom,
        KeyCode::Char('s') => Wish::NextOrder,
        KeyCode::Char('p') => Wish::Pause,
        KeyCode::Char('?') => Wish::Help,
        _ => return Meaning::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_keys_end_it_and_others_do_not() {
        let plain = |code| meaning(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |c| meaning(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
        for ends in [plain(KeyCode::Char('q')), plain(KeyCode::Esc), control('c')] {
            assert_eq!(ends, Meaning::End);
        }
        for nothing in [plain(KeyCode::Char('c')), plain(KeyCode::Enter), control('q'), control('s'), control('p')] {
            assert_eq!(nothing, Meaning::Nothing);
        }
        for (key, wish) in [('s', Wish::NextOrder), ('p', Wish::Pause), ('?', Wish::Help)] {
            assert_eq!(plain(KeyCode::Char(key)), Meaning::Wish(wish));
        }
        for (code, wish) in [
            (KeyCode::Tab, Wish::NextTab),
            (KeyCode::Down, Wish::Down),
            (KeyCode::PageDown, Wish::PageDown),
            (KeyCode::Up, Wish::Up),
            (KeyCode::PageUp, Wish::PageUp),
        ] {
            assert_eq!(plain(code), Meaning::Wish(wish));
        }
    }
}
