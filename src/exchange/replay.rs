//! Keeps the first pieces of a request's body until the first response byte, so that the request can be sent again.
//! What it keeps is bounded by `REPLAY_BYTES_MAX` and `REPLAY_PIECES_MAX`; a body that outgrew them can no longer be replayed.

use std::task::{Context, Poll};

use super::{Piece, RequestBody, Source};
use crate::fault::Fault;
use crate::limits::{REPLAY_BYTES_MAX, REPLAY_PIECES_MAX};

/// ```text
/// Keeping --rewind--> Keeping (from the first piece)
/// Keeping --outgrown, or forget--> Passing
/// ```
#[derive(Debug, PartialEq, Eq)]
enum State {
    Keeping,
    Passing,
}

/// A request's body that can be told from the start again, as long as it is at hand.
pub struct Replay<'a, B> {
    body: &'a mut B,
    state: State,
    kept: Vec<Piece>,
    kept_bytes: usize,
    /// Pieces of `kept` that this attempt has already got.
    told: usize,
    /// Bytes that came from its client.
    received: u64,
    /// How often it was rewound.
    attempts: u32,
    /// The client was told to send it.
    was_asked_for: bool,
}

impl<'a, B: RequestBody> Replay<'a, B> {
    pub fn new(body: &'a mut B) -> Self {
        Replay {
            body,
            state: State::Keeping,
            kept: Vec::new(),
            kept_bytes: 0,
            told: 0,
            received: 0,
            attempts: 0,
            was_asked_for: false,
        }
    }

    /// The client waits for a 100 and is sent one now; one only, however often the request is sent.
    pub fn ask_for(&mut self) {
        self.was_asked_for = true;
    }

    /// A client that waited for a 100 was sent one.
    #[must_use]
    pub fn was_asked_for(&self) -> bool {
        self.was_asked_for
    }

    /// There was an attempt before this one.
    #[must_use]
    pub fn was_told(&self) -> bool {
        self.attempts > 0
    }

    /// The next attempt starts with the first piece. False: too much is gone, the request cannot be sent again.
    #[must_use]
    pub fn rewind(&mut self) -> bool {
        self.attempts += 1;
        self.told = 0;
        self.state == State::Keeping
    }

    /// The response has begun: nothing needs to be kept. What this attempt was not told yet still will be.
    pub fn forget(&mut self) {
        if self.state == State::Keeping {
            self.kept.drain(..self.told);
            self.told = 0;
            self.state = State::Passing;
        }
    }

    /// Bytes of the body that are held here or below.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.kept_bytes + self.body.read_ahead()
    }

    /// Bytes that its client has sent and somebody has taken, however often they were passed on.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// The body underneath.
    pub fn body(&mut self) -> &mut B {
        self.body
    }

    fn keep(&mut self, piece: &Piece) {
        let bytes = match piece {
            Piece::Data { bytes, .. } => bytes.len(),
            Piece::End { .. } => 0,
        };
        if self.kept_bytes + bytes > REPLAY_BYTES_MAX || self.kept.len() >= REPLAY_PIECES_MAX {
            self.kept = Vec::new();
            self.kept_bytes = 0;
            self.told = 0;
            self.state = State::Passing;
            return;
        }
        self.kept_bytes += bytes;
        self.kept.push(piece.clone());
        self.told += 1;
    }
}

impl<B: RequestBody> Source for Replay<'_, B> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        if self.told < self.kept.len() {
            if self.state == State::Passing {
                return Poll::Ready(Ok(self.kept.remove(0)));
            }
            self.told += 1;
            return Poll::Ready(Ok(self.kept[self.told - 1].clone()));
        }
        let piece = std::task::ready!(self.body.poll_piece(cx))?;
        if let Piece::Data { bytes, .. } = &piece {
            self.received += bytes.len() as u64;
        }
        if self.state == State::Keeping {
            self.keep(&piece);
        }
        Poll::Ready(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::VecDeque;

    struct Script(VecDeque<Piece>);

    impl Source for Script {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
            self.0.pop_front().map_or(Poll::Pending, |piece| Poll::Ready(Ok(piece)))
        }
    }

    impl RequestBody for Script {
        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
        fn read_ahead(&self) -> usize {
            0
        }
        fn go_raw(&mut self) {}
    }

    fn data(bytes: usize) -> Piece {
        Piece::Data { bytes: Bytes::from(vec![b'x'; bytes]), last: false }
    }

    fn read(replay: &mut Replay<'_, Script>) -> Vec<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut lengths = Vec::new();
        while let Poll::Ready(piece) = replay.poll_piece(&mut cx) {
            match piece.unwrap() {
                Piece::Data { bytes, .. } => lengths.push(bytes.len()),
                Piece::End { .. } => break,
            }
        }
        lengths
    }

    #[test]
    fn a_small_body_is_told_again_from_its_first_piece() {
        let mut script = Script([data(3), data(5), Piece::End { trailers: None }].into());
        let mut replay = Replay::new(&mut script);
        assert_eq!(read(&mut replay), [3, 5]);
        assert!(replay.rewind());
        assert_eq!(read(&mut replay), [3, 5]);
    }

    #[test]
    fn a_body_over_the_bound_cannot_be_told_again() {
        let mut script = Script([data(REPLAY_BYTES_MAX), data(1), Piece::End { trailers: None }].into());
        let mut replay = Replay::new(&mut script);
        assert_eq!(read(&mut replay), [REPLAY_BYTES_MAX, 1]);
        assert!(!replay.rewind());
    }

    #[test]
    fn forgetting_in_the_middle_of_a_second_telling_loses_no_piece() {
        let mut script = Script([data(1), data(2), data(3), Piece::End { trailers: None }].into());
        let mut replay = Replay::new(&mut script);
        assert_eq!(read(&mut replay), [1, 2, 3]);
        assert!(replay.rewind());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(replay.poll_piece(&mut cx), Poll::Ready(Ok(Piece::Data { bytes, .. })) if bytes.len() == 1));
        replay.forget();
        assert_eq!(read(&mut replay), [2, 3]);
        assert!(!replay.rewind());
    }
}
