//! One request's life: its head, its body on the way up, its response on the way down, and what becomes of it when
//! something breaks. Sockets, pools and queues never enter; both sides are traits, so that the same exchange runs
//! between a client and a link, between two cores, and between a link and the server behind a worker.

mod answer;
mod carry;
pub mod h1;
pub mod h2;
mod keepalive;
mod latch;
mod pace;
mod pump;
mod replay;
mod watched;

pub use answer::{FaultAnswer, fault_answer};
pub use carry::{Carried, Carry, CarryBounds, flush};
pub use keepalive::keepalive;
pub use latch::{Latch, LatchWait};
pub use pump::{Pump, PumpEnd};
pub use replay::Replay;
pub use watched::{Watch, Watched};

use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::clock::Now;
use crate::fault::Fault;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is none; the message ends with its head.
    None,
    /// So many bytes.
    Exact(u64),
    /// As long as it takes.
    Unknown,
}

/// A request that wants to leave HTTP (RFC 9110 §7.8, RFC 8441).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The token, as in `Upgrade` or `:protocol`.
    pub protocol: HeaderValue,
}

/// A request's head on its way, in no version's framing. `headers` holds only what goes end to end, Host among
/// it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    /// In which it was received; only `Via` tells it on.
    pub version: http::Version,
    pub secure: bool,
    /// `None` only where an HTTP/1.0 client sent no Host.
    pub authority: Option<Authority>,
    pub path: PathAndQuery,
    pub headers: HeaderMap,
    pub length: Length,
    /// The client waits for a 100 (Continue) before it sends its body.
    pub expects_continue: bool,
    pub upgrade: Option<Upgrade>,
}

/// A response's head on its way.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub length: Length,
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// `last` where it is already known that nothing follows.
    Data { bytes: Bytes, last: bool },
    /// The end, with trailers if there were some.
    End { trailers: Option<HeaderMap> },
}

impl Piece {
    /// Nothing comes after this piece.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Piece::Data { last, .. } => *last,
            Piece::End { .. } => true,
        }
    }
}

/// Where a body comes from. Cancel-safe: what was not returned is still there.
pub trait Source {
    /// The next piece; not to be called again after one that [`Piece::is_last`].
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>>;
}

/// Where a body goes.
pub trait Sink {
    /// Room for one more piece. A sink that is full pushes on its own account here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;
    /// Takes a piece, after [`Sink::poll_ready`] said yes.
    fn put(&mut self, piece: Piece) -> Result<(), Fault>;
    /// Pushes out what waits; ready when nothing of it is left here.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;
    /// A number that changes whenever the peer has taken some of what was put: only whether it moved means something. Asked
    /// when a clock has run out, and may cost a system call. `None` where only somebody behind this sink can tell (another
    /// core), who then watches it, too.
    fn delivered(&self) -> Option<u64>;
}

/// The body of a request that came in.
pub trait RequestBody: Source {
    /// Ready as soon as it is known that nobody waits for the answer any more. Reads ahead at most
    /// `READ_AHEAD_BYTES_MAX`.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Bytes of it that were read and not taken.
    fn read_ahead(&self) -> usize;
    /// From now on raw bytes, until the peer ends: the protocol was switched.
    fn go_raw(&mut self);
}

/// The way back to whoever asked.
pub trait Answer: Sink {
    /// A 1xx other than 101.
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault>;
    /// The final head, or 101; its body follows as pieces unless its length is [`Length::None`].
    fn head(&mut self, reply: Reply) -> Result<(), Fault>;
    /// A final head was put: nothing else can be answered any more.
    fn has_begun(&self) -> bool;
    /// As [`Sink::delivered`], but also changed by what its client takes of other answers on the same connection: whoever takes
    /// those is no hoarder.
    fn moved(&self) -> Option<u64> {
        self.delivered()
    }
    /// What the request is called: the final head tells it (`X-Request-Id`), whoever makes it. Called before it, or never.
    fn tells_id(&mut self, _id: HeaderValue) {}
    /// The whole request is on its way to the worker: from now on it is the worker who is waited for.
    fn request_is_up(&mut self, _now: Now) {}
    /// When it makes sense to ask again, in seconds, should the request be answered by the fault that it is about to end in.
    fn tells_retry_after(&mut self, _seconds: u16) {}
}

/// What a link says before the body of a response.
#[derive(Debug)]
pub enum Heard {
    /// The request is with the worker; a client that waits to be asked for its body may be asked now.
    Dispatched,
    Interim(StatusCode, HeaderMap),
    Final(Reply),
}

/// May a request that was lost be sent again? Answered by what the link knows (architecture rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Certainly not processed: REFUSED_STREAM, above a GOAWAY's last id, or nothing was sent.
    Untouched,
    /// Sent, and nothing came back: only if the method is idempotent.
    MayHaveRun,
    /// Answered in part, or the fault would only repeat itself.
    Never,
}

/// How a link lost a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub fault: Fault,
    pub again: Again,
}

/// One request on its way to a worker, after its head was put.
pub trait Back {
    type Up: Sink;
    type Down: Source;
    /// The next thing that is said before the response's body; not to be called after [`Heard::Final`].
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>>;
    /// The request's body goes here.
    fn up(&mut self) -> &mut Self::Up;
    /// The response's body comes from here, after [`Heard::Final`].
    fn down(&mut self) -> &mut Self::Down;
}
