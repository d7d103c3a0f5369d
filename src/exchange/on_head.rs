//! An answer that somebody looks at on its way: its final head, before anybody else has it. Bodies pass unseen.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Answer, Piece, Reply, Sink};
use crate::fault::Fault;

/// `look` sees the final head, and may change it.
pub struct OnHead<'a, A, F> {
    pub answer: &'a mut A,
    pub look: F,
}

impl<A: Answer, F: FnMut(&mut Reply)> Answer for OnHead<'_, A, F> {
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        self.answer.interim(status, headers)
    }

    fn head(&mut self, mut reply: Reply) -> Result<(), Fault> {
        (self.look)(&mut reply);
        self.answer.head(reply)
    }

    fn moved(&self) -> Option<u64> {
        self.answer.moved()
    }

    fn has_begun(&self) -> bool {
        self.answer.has_begun()
    }

    fn tells_id(&mut self, id: HeaderValue) {
        self.answer.tells_id(id);
    }

    fn tells_retry_after(&mut self, seconds: u16) {
        self.answer.tells_retry_after(seconds);
    }
}

impl<A: Answer, F> Sink for OnHead<'_, A, F> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.answer.poll_ready(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        self.answer.put(piece)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.answer.poll_flush(cx)
    }

    fn delivered(&self) -> Option<u64> {
        self.answer.delivered()
    }
}
