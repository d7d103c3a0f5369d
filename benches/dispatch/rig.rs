//! One generator and its workers on one thread, and the loop that lets a trace pass. What stands between them never
//! enters.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::book::{Book, Record};
use super::clock::{now_ns, process_cpu_ns};
use super::generator::{self, Generator};
use super::limits::{EVENTS_MAX, SILENCE_MS_MAX, START_MS_MAX};
use super::poll::{Poll, Token};
use super::trace::Planned;
use super::workers::{self, Workers};

pub struct Rig {
    pub poll: Poll,
    pub workers: Workers,
    pub generator: Generator,
    next_number: u64,
    /// Set by a signal: whatever runs ends.
    stop: Arc<AtomicBool>,
}

/// What a pass left behind.
pub struct Passed {
    pub records: Vec<Record>,
    pub took_ns: u64,
    /// CPU time of this process.
    pub cpu_ns: u64,
    pub connections: usize,
    /// Words about requests of an earlier pass.
    pub strays: u64,
    /// Of this pass only.
    pub workers: workers::Troubles,
    pub generator: generator::Troubles,
}

impl Rig {
    pub fn new(poll: Poll, workers: Workers, generator: Generator, stop: Arc<AtomicBool>) -> Rig {
        Rig { poll, workers, generator, next_number: 0, stop }
    }

    /// Lets a trace pass. Before it begins, `connections` stand. It is over when every request's fate is known, or when
    /// nothing was heard for so long that nothing will be.
    pub fn pass(&mut self, planned: &[Planned], connections: usize) -> io::Result<Passed> {
        self.warm(connections)?;
        let (workers, generator) = (self.workers.troubles, self.generator.troubles);
        let longest_us = planned.iter().map(|planned| planned.service_us).max().unwrap_or(0);
        let silence_ns = SILENCE_MS_MAX * 1_000_000 + u64::from(longest_us) * 1_000;
        let cpu_ns = process_cpu_ns();
        let began_ns = now_ns();
        let mut book = Book::new(planned, began_ns, self.next_number);
        let mut next = Next { planned, began_ns, index: 0 };
        let (mut open, mut heard_ns) = (planned.len(), began_ns);
        loop {
            self.serve_due(&mut next, &mut book)?;
            if book.open() == 0 {
                break;
            }
            if open != book.open() || next.due_ns().is_some() {
                (open, heard_ns) = (book.open(), now_ns());
            }
            let silent_ns = heard_ns + silence_ns;
            if now_ns() > silent_ns {
                break;
            }
            let due = [next.due_ns(), self.workers.next_due_ns()].into_iter().flatten().min();
            let events = self.poll.wait(due.unwrap_or(silent_ns))?;
            self.check_stop()?;
            for event in 0..events {
                self.handle(self.poll.event(event), &mut book)?;
                self.serve_due(&mut next, &mut book)?;
            }
        }
        self.next_number += planned.len() as u64;
        let strays = book.strays;
        Ok(Passed {
            records: book.close(),
            took_ns: now_ns() - began_ns,
            cpu_ns: process_cpu_ns() - cpu_ns,
            connections: self.generator.open(),
            strays,
            workers: self.workers.troubles.since(workers),
            generator: self.generator.troubles.since(generator),
        })
    }

    /// Opens connections until there are so many, and until the workers have seen them.
    fn warm(&mut self, connections: usize) -> io::Result<()> {
        let mut nobody = Book::new(&[], 0, self.next_number);
        let by_ns = now_ns() + START_MS_MAX * 1_000_000;
        while !self.generator.grow(connections, &self.poll)? {
            if now_ns() > by_ns {
                return Err(io::Error::other(format!("{connections} connections did not open in time")));
            }
            let events = self.poll.wait(by_ns)?;
            self.check_stop()?;
            for event in 0..events {
                self.handle(self.poll.event(event), &mut nobody)?;
            }
        }
        Ok(())
    }

    /// Sends and answers what is due, in the order in which it is due. After so many it is somebody else's turn: a
    /// thread that falls behind must still read.
    fn serve_due(&mut self, next: &mut Next, book: &mut Book) -> io::Result<()> {
        for _ in 0..EVENTS_MAX {
            let (send, work) = (next.due_ns(), self.workers.next_due_ns());
            let Some(due_ns) = [send, work].into_iter().flatten().min() else { return Ok(()) };
            if due_ns > now_ns() {
                return Ok(());
            }
            if send == Some(due_ns) {
                let number = book.number(next.index);
                next.index += 1;
                self.generator.offer(number, &self.poll, book)?;
            } else {
                self.workers.answer_next(book);
            }
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, book: &mut Book) -> io::Result<()> {
        match token {
            Token::Timer => Ok(()), // whoever waited looks at the clock
            Token::Door(door) => self.workers.accept(door, &self.poll),
            Token::Worker(line) => {
                self.workers.ready(line, book);
                Ok(())
            }
            Token::Client(line) => self.generator.ready(line, &self.poll, book),
        }
    }

    fn check_stop(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("a signal ended it"));
        }
        Ok(())
    }
}

/// What is sent next.
struct Next<'t> {
    planned: &'t [Planned],
    began_ns: u64,
    index: usize,
}

impl Next<'_> {
    fn due_ns(&self) -> Option<u64> {
        self.planned.get(self.index).map(|planned| self.began_ns + planned.due_ns)
    }
}

impl workers::Troubles {
    fn since(self, before: workers::Troubles) -> workers::Troubles {
        workers::Troubles {
            links_lost: self.links_lost - before.links_lost,
            over_credit: self.over_credit - before.over_credit,
            no_orders: self.no_orders - before.no_orders,
        }
    }
}

impl generator::Troubles {
    fn since(self, before: generator::Troubles) -> generator::Troubles {
        generator::Troubles { opened_late: self.opened_late - before.opened_late, broken: self.broken - before.broken }
    }
}
