//! Connections on which requests come in: an edge's clients, and the turned links of a worker. Which worker or server
//! answers is a [`Service`]'s business and never enters.

pub mod h1;
pub mod h2;
mod offer;
mod watch;

pub use offer::Offer;

use std::future::Future;

use crate::events::Flood;
use crate::exchange::{Answer, Ask, RequestBody};
use crate::fault::Fault;
use crate::io::Timer;
use crate::limits::{BODY_STALL_MS_MAX, HEAD_MS_MAX, IDLE_MS_MAX};
use crate::wire::RequestHead;

/// How long a peer that sends requests may take.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// First byte of a head to its blank line, and what is left of a body that nobody wants.
    pub head_ms: u64,
    /// No request at all.
    pub idle_ms: u64,
    /// Nothing of an answer is taken.
    pub stall_ms: u64,
}

impl Clocks {
    /// Where no configuration says otherwise.
    pub const USUAL: Clocks = Clocks { head_ms: HEAD_MS_MAX, idle_ms: IDLE_MS_MAX, stall_ms: BODY_STALL_MS_MAX };
}

/// What answers requests.
pub trait Service {
    /// Serves one request: puts a whole answer, which the caller flushes if that was not done, or says what went wrong. A fault before the answer has begun is answered
    /// by the caller; one after it cuts the answer, so that it is never taken for complete. `timer` is free to use.
    fn serve(
        &self,
        ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> impl Future<Output = Result<(), Fault>>;

    /// A head was refused before it became a request; the caller has answered it.
    fn refused(&self, _fault: Fault) {}

    /// A client's connection is ended for too many frames of one kind (HTTP/2).
    fn flooded(&self, _kind: Flood) {}

    /// The peer said that it will not stay, and may still send requests: GOAWAY (HTTP/2), or `Connection: close` on a request.
    fn peer_leaves(&self) {}

    /// Whether a connection that has been idle may end for it. Asked of a link whose edge leaves, too.
    fn may_go(&self) -> bool {
        true
    }

    /// This request is not for HTTP: its connection becomes something else (a link). Asked before anything is answered.
    fn takes_over(&self, _head: &RequestHead) -> bool {
        false
    }

    /// As [`Service::takes_over`], for a stream: an extended CONNECT to this `:protocol` (HTTP/2).
    fn takes_stream(&self, _protocol: &str) -> bool {
        false
    }

    /// Beside streams that were taken, the connection serves so many requests now, or is about to: one may be on its way as long as
    /// its client may not have heard that it is told to go. Said whenever that changes, as long as there are such streams.
    fn serves_beside(&self, _requests: usize) {}

    /// Answers a stream that [`Service::takes_stream`] wants, and keeps it to its end.
    fn take_stream(&self, _stream: h2::TakenStream) -> impl Future<Output = ()> {
        async {}
    }
}
