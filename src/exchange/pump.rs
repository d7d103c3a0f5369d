//! Hot. Moves a body from a source to a sink, one piece at a time, and flushes when the source has to wait. Nothing is
//! stored here: what is between the two sides is one piece at most.

use std::task::{Context, Poll, ready};

use super::{Piece, Sink, Source};
use crate::fault::Fault;

/// Which side a pump is at, and how much went through.
///
/// ```text
/// Moving --last piece put--> Flushing --nothing waits--> Done
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Moving,
    Flushing,
    Done,
}

/// One body on its way.
#[derive(Debug)]
pub struct Pump {
    state: State,
    bytes: u64,
    /// The pump's last wait was for its sink, not for its source.
    waits_for_sink: bool,
}

/// Why a pump ended early, and at which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpEnd {
    Source(Fault),
    Sink(Fault),
}

impl Pump {
    #[must_use]
    pub fn new() -> Pump {
        Pump { state: State::Moving, bytes: 0, waits_for_sink: false }
    }

    /// A pump for a message without a body: only what waits has to go out.
    #[must_use]
    pub fn flushing() -> Pump {
        Pump { state: State::Flushing, bytes: 0, waits_for_sink: true }
    }

    /// Body bytes that went from source to sink.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Who is waited for: the sink (true) or the source.
    #[must_use]
    pub fn waits_for_sink(&self) -> bool {
        self.waits_for_sink
    }

    /// Moves what can be moved now. Ready when the last piece was put; that it also leaves is the caller's to see to. Bounded:
    /// a source holds at most one read's bytes, then it waits for its socket.
    pub fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Poll<Result<(), PumpEnd>> {
        while self.state == State::Moving {
            self.waits_for_sink = true;
            ready!(sink.poll_ready(cx)).map_err(PumpEnd::Sink)?;
            self.waits_for_sink = false;
            let Poll::Ready(piece) = source.poll_piece(cx) else {
                // What came so far goes out now: the first byte of a slow stream is as urgent as its last.
                if sink.poll_flush(cx).map_err(PumpEnd::Sink)?.is_pending() {
                    self.waits_for_sink = true;
                }
                return Poll::Pending;
            };
            let piece = piece.map_err(PumpEnd::Source)?;
            if let Piece::Data { bytes, .. } = &piece {
                self.bytes += bytes.len() as u64;
            }
            if piece.is_last() {
                self.state = State::Flushing;
            }
            sink.put(piece).map_err(PumpEnd::Sink)?;
        }
        Poll::Ready(Ok(()))
    }

    /// As [`Pump::poll_put`], but ready when nothing waits in the sink any more.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Poll<Result<(), PumpEnd>> {
        ready!(self.poll_put(cx, source, sink))?;
        if self.state == State::Flushing {
            self.waits_for_sink = true;
            ready!(sink.poll_flush(cx)).map_err(PumpEnd::Sink)?;
            self.state = State::Done;
        }
        Poll::Ready(Ok(()))
    }
}

impl Default for Pump {
    fn default() -> Self {
        Pump::new()
    }
}
