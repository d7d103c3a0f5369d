//! The thread that writes the access log: it goes round the spools, makes lines, and gives them to their files in large pieces.
//! What a core does meanwhile never enters.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::line::{Clocks, Writer};
use super::record::Record;
use super::rules::Target;
use super::sink::{Sink, Written};
use crate::clock::{self, Now};
use crate::limits::{
    ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_END_MS_MAX, ACCESS_LOG_LOOK_MS, ACCESS_LOG_RECORDS_MAX, ACCESS_LOG_RETRY_MS,
    ACCESS_LOG_TOLD_MS,
};
use crate::xcore::SpoolRx;

/// What the thread is told.
pub enum Order {
    /// One more generation. Where its target is known already, `sink` takes the place of what was open.
    Begin {
        target: Target,
        sink: Sink,
        source: Box<Source>,
    },
    Reopen,
    /// Write what is there and end; whoever sent this is told when it is done.
    End(Sender<()>),
}

/// One generation's records.
pub struct Source {
    /// One for each core.
    pub spools: Vec<SpoolRx<Record>>,
    pub writer: Writer,
}

/// What was counted since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Lines that were written.
    pub written: u64,
    /// Lines that could not be written.
    pub failed: u64,
}

/// An open file with the generations whose lines it has.
struct Output {
    target: Target,
    sink: Sink,
    sources: Vec<Source>,
    /// Lines, from `begun` on: whole ones, but for the first, of which a part may be written.
    lines: Vec<u8>,
    begun: usize,
    /// Lines of `lines` that are not written to their end.
    count: u64,
    /// The file is to be opened anew, from this moment on.
    reopen_at: Option<Now>,
    /// When the last trouble was told.
    told: Option<Now>,
}

/// Until it is told to end, or nobody is left who could tell it.
pub fn scribe(orders: &Receiver<Order>, tally: &Mutex<Tally>) {
    let mut outputs: Vec<Output> = Vec::new();
    let mut is_behind = false;
    let whoever_waits = loop {
        let wait_ms = if is_behind { 0 } else { ACCESS_LOG_LOOK_MS };
        match orders.recv_timeout(Duration::from_millis(wait_ms)) {
            Ok(Order::Begin { target, sink, source }) => begin(&mut outputs, target, sink, *source),
            Ok(Order::Reopen) => {
                let now = clock::now();
                outputs.iter_mut().for_each(|output| output.reopen_at = Some(now));
            }
            Ok(Order::End(told)) => break Some(told),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break None,
        }
        is_behind = false;
        for output in &mut outputs {
            is_behind |= output.go_round(tally);
        }
        outputs.retain(|output| !output.is_over());
    };
    let by = clock::now().plus_ms(ACCESS_LOG_END_MS_MAX);
    for output in &mut outputs {
        while (output.go_round(tally) || output.has_lines()) && clock::now() < by {}
        output.give_up(tally, "the process ends");
    }
    if let Some(told) = whoever_waits {
        let _ = told.send(()); // it may have waited long enough
    }
}

fn begin(outputs: &mut Vec<Output>, target: Target, sink: Sink, source: Source) {
    match outputs.iter_mut().find(|output| output.target == target) {
        Some(output) => {
            output.replace(sink);
            output.sources.push(source);
        }
        None => outputs.push(Output {
            target,
            sink,
            sources: vec![source],
            lines: Vec::with_capacity(ACCESS_LOG_BATCH_BYTES),
            begun: 0,
            count: 0,
            reopen_at: None,
            told: None,
        }),
    }
}

impl Output {
    /// Takes what is in the spools, as far as it can be written. True: there is more than comes in a while, so do not pause.
    fn go_round(&mut self, tally: &Mutex<Tally>) -> bool {
        if self.reopen_at.is_some_and(|at| at <= clock::now()) {
            self.reopen();
        }
        if !self.write(tally) {
            return false; // what more comes waits in the spools
        }
        let clocks = Clocks { now: clock::now(), unix_ms: clock::unix_ms() };
        let mut is_behind = false;
        let mut index = 0;
        while index < self.sources.len() {
            let mut is_left = true;
            for spool in 0..self.sources[index].spools.len() {
                is_left &= self.sources[index].spools[spool].is_left();
                // Bounded, so that orders are heard however busy a core is.
                for taken in 0..ACCESS_LOG_RECORDS_MAX {
                    let source = &mut self.sources[index];
                    let Some(record) = source.spools[spool].take() else { break };
                    source.writer.put(&mut self.lines, &record, clocks);
                    self.count += 1;
                    is_behind |= taken >= ACCESS_LOG_RECORDS_MAX / 4;
                    if self.lines.len() >= ACCESS_LOG_BATCH_BYTES && !self.write(tally) {
                        return false;
                    }
                }
            }
            // Looked at before its last records were taken: nothing is left in it.
            if is_left {
                self.sources.swap_remove(index);
            } else {
                index += 1;
            }
        }
        self.write(tally);
        is_behind
    }

    fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Nobody gives it lines any more, and none is left.
    fn is_over(&self) -> bool {
        self.sources.is_empty() && self.lines.is_empty()
    }

    /// Writes what there is. False: it is not all written, and nothing more is to be put behind it.
    fn write(&mut self, tally: &Mutex<Tally>) -> bool {
        while self.begun < self.lines.len() {
            match self.sink.write(&self.lines[self.begun..]) {
                Ok(Written::Some(bytes @ 1..)) => {
                    let lines = memchr::memchr_iter(b'\n', &self.lines[self.begun..self.begun + bytes]).count() as u64;
                    self.begun += bytes;
                    self.count -= lines;
                    count(tally, |tally| tally.written += lines);
                }
                Ok(Written::Some(0) | Written::Stalled) => return false,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if self.is_amid_a_line() {
                        self.sink.tear();
                    }
                    // A reader that went away, or a file system that is not there any more; a full disk stays the same.
                    if error.raw_os_error() != Some(libc::ENOSPC) {
                        self.reopen_at.get_or_insert(clock::now().plus_ms(ACCESS_LOG_RETRY_MS));
                    }
                    self.give_up(tally, &error.to_string());
                    return true;
                }
            }
        }
        self.lines.clear();
        self.begun = 0;
        true
    }

    fn is_amid_a_line(&self) -> bool {
        self.begun.checked_sub(1).is_some_and(|before| self.lines[before] != b'\n')
    }

    /// What is there is lost.
    fn give_up(&mut self, tally: &Mutex<Tally>, why: &str) {
        let lines = std::mem::take(&mut self.count);
        self.lines.clear();
        self.begun = 0;
        if lines > 0 {
            count(tally, |tally| tally.failed += lines);
            self.tell(why);
        }
    }

    fn tell(&mut self, why: &str) {
        let now = clock::now();
        if self.told.is_none_or(|told| now.ms_since(told) >= ACCESS_LOG_TOLD_MS) {
            self.told = Some(now);
            tracing::error!(file = %self.target, why, "the access log cannot be written; its lines are lost until it can");
        }
    }

    /// What cannot be opened is tried again; until then lines go where they went before.
    fn reopen(&mut self) {
        match Sink::open(&self.target) {
            Ok(sink) => self.replace(sink),
            Err(error) => {
                self.reopen_at = Some(clock::now().plus_ms(ACCESS_LOG_RETRY_MS));
                self.tell(&error.to_string());
            }
        }
    }

    /// A line of which a part is written already is written to the new one once more, whole.
    fn replace(&mut self, sink: Sink) {
        if self.is_amid_a_line() {
            self.begun = memchr::memrchr(b'\n', &self.lines[..self.begun]).map_or(0, |end| end + 1);
        }
        self.sink = sink;
        self.reopen_at = None;
    }
}

fn count(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}
