//! An answer that somebody looks at on its way to whoever asked. What is said and put goes on unchanged, but for what the one who
//! looks does to a head.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Answer, Piece, Reply, Sink};
use crate::clock::Now;
use crate::fault::Fault;

/// What is seen of an answer, each before anybody else has it.
pub trait Watch {
    /// The final head, which may be changed.
    fn head(&mut self, reply: &mut Reply);
    /// A piece of the body.
    fn piece(&mut self, _piece: &Piece) {}
    /// See [`Answer::request_is_up`].
    fn request_is_up(&mut self, _now: Now) {}
}

impl<F: FnMut(&mut Reply)> Watch for F {
    fn head(&mut self, reply: &mut Reply) {
        self(reply);
    }
}

/// `answer`, as `watch` sees it.
pub struct Watched<'a, A, W> {
    pub answer: &'a mut A,
    pub watch: W,
}

impl<A: Answer, W: Watch> Answer for Watched<'_, A, W> {
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        self.answer.interim(status, headers)
    }

    fn head(&mut self, mut reply: Reply) -> Result<(), Fault> {
        self.watch.head(&mut reply);
        self.answer.head(reply)
    }

    fn has_begun(&self) -> bool {
        self.answer.has_begun()
    }

    fn moved(&self) -> Option<u64> {
        self.answer.moved()
    }

    fn tells_id(&mut self, id: HeaderValue) {
        self.answer.tells_id(id);
    }

    fn request_is_up(&mut self, now: Now) {
        self.watch.request_is_up(now);
        self.answer.request_is_up(now);
    }

    fn tells_retry_after(&mut self, seconds: u16) {
        self.answer.tells_retry_after(seconds);
    }
}

impl<A: Sink, W: Watch> Sink for Watched<'_, A, W> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.answer.poll_ready(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        self.watch.piece(&piece);
        self.answer.put(piece)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.answer.poll_flush(cx)
    }

    fn delivered(&self) -> Option<u64> {
        self.answer.delivered()
    }
}
