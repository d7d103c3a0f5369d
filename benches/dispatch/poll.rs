//! Waiting: epoll over every socket of the tool, and one timer of nanoseconds. What a socket is for never enters.
//!
//! The timer is a timerfd: epoll's own timeout has whole milliseconds, and the kernel adds slack to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::clock::timespec;
use super::limits::EVENTS_MAX;

/// Who an event is for, with its index. An index is used once only, so a late event never meets somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Timer,
    /// A listening socket of the workers.
    Door(u32),
    /// A connection of the workers.
    Worker(u32),
    /// A connection of the generator.
    Client(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    /// Until a connect has succeeded.
    Write,
}

pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed_ns: Option<u64>,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let poll = Poll { epoll, timer, armed_ns: None, events: Vec::with_capacity(EVENTS_MAX) };
        epoll::add(&poll.epoll, &poll.timer, Token::Timer.data(), EventFlags::IN)?;
        Ok(poll)
    }

    /// Until it is closed, `socket` reports as `token`.
    pub fn add(&self, socket: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, token.data(), interest.flags())?)
    }

    pub fn change(&self, socket: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, token.data(), interest.flags())?)
    }

    /// Waits for events, or until the clock has reached `until_ns`. Gives how many [`Poll::event`]s there are.
    pub fn wait(&mut self, until_ns: u64) -> io::Result<usize> {
        if self.armed_ns != Some(until_ns) {
            let value = timespec(until_ns.max(1)); // 0 would disarm it
            let spec = Itimerspec { it_interval: timespec(0), it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.armed_ns = Some(until_ns);
        }
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), None) {
            Ok(_) => Ok(self.events.len()),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    pub fn event(&self, index: usize) -> Token {
        Token::of(self.events[index].data)
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
        }
    }
}

impl Token {
    fn data(self) -> EventData {
        let (kind, index) = match self {
            Token::Timer => (0, 0),
            Token::Door(index) => (1, index),
            Token::Worker(index) => (2, index),
            Token::Client(index) => (3, index),
        };
        EventData::new_u64(kind << 32 | u64::from(index))
    }

    fn of(data: EventData) -> Token {
        let index = data.u64() as u32;
        match data.u64() >> 32 {
            1 => Token::Door(index),
            2 => Token::Worker(index),
            3 => Token::Client(index),
            _ => Token::Timer,
        }
    }
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::super::clock::now_ns;
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was_given() {
        for token in [Token::Timer, Token::Door(0), Token::Worker(7), Token::Client(u32::MAX), Token::Door(u32::MAX)] {
            assert_eq!(Token::of(token.data()), token);
        }
    }

    #[test]
    fn the_timer_never_rings_early_and_rings_again_when_it_is_set_again() {
        let mut poll = Poll::new().unwrap();
        for _ in 0..3 {
            let until_ns = now_ns() + 300_000;
            while now_ns() < until_ns {
                let events = poll.wait(until_ns).unwrap();
                assert!(events == 0 || (poll.event(0) == Token::Timer && now_ns() >= until_ns));
            }
        }
        assert_eq!(poll.wait(0).unwrap(), 1, "a moment that has passed does not wait");
    }
}
