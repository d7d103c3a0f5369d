//! What can go wrong with a request or a setup: who is to blame, what, and what the client sees. No text from
//! outside, and nothing from inside the edge, ever enters an answer made from it.

use std::fmt;

/// Who made the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Client,
    Worker,
    Edge,
}

/// One fault. The `&'static str` says what is wrong in a few words and goes into the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    // ---- the client's bytes ----
    /// Malformed or ambiguous; 400 and a close.
    ClientMalformed(&'static str),
    /// Request line over its bound; 414.
    LineTooLong,
    /// Head or trailers over a bound; 431.
    HeadTooLarge,
    /// The head did not end in time; 408.
    HeadTimeout,
    /// The body made no progress; 408.
    BodyTimeout,
    /// The body came more slowly than `body_rate_min`; 408.
    BodyTooSlow,
    /// A transfer coding that is not known; 501.
    UnknownCoding,
    /// A version that is not HTTP/1.0 or HTTP/1.1; 505.
    UnknownVersion,
    /// CONNECT or TRACE; 405.
    MethodRefused,
    /// An expectation other than 100-continue; 417.
    UnknownExpectation,
    /// The client went away; nobody is left to answer.
    ClientGone,

    // ---- routing and dispatch ----
    /// No pool serves the request's origin; 404.
    NoPool,
    /// No pool serves it, and its connection was made for another name (RFC 9110 §7.4); 421.
    Misdirected,
    /// The pool's count or bytes are used up; 503.
    QueueFull,
    /// The edge holds nearly all that `memory_max` lets it; 503.
    MemoryFull,
    /// `wait_max` passed; 503.
    WaitedTooLong,
    /// Its client would not wait for as long as it takes (RFC 7240 §4.3), and hears so at once; 503.
    WouldWaitTooLong,
    /// No link, and the pool does not hold requests; 503.
    NoWorker,
    /// The edge drains; 503.
    Draining,

    // ---- the worker's side ----
    /// The link broke after the request could have had an effect; 502.
    LinkLost,
    /// The worker gave the request back and its body is no longer at hand, or too often; 502.
    NotProcessed,
    /// The worker reset the stream; 502.
    WorkerReset,
    /// The worker's response is malformed or over a bound; 502.
    WorkerMalformed(&'static str),
    /// The response stopped making progress; 502, or a cut if it had begun.
    WorkerStalled,
    /// No complete response head in `response_head_max_wait`; 504.
    ResponseTimeout,
    /// An upgrade, and no link of the pool can carry it; 502.
    NoUpgrade,
    /// The server behind a worker does not take connections; 502.
    OriginUnreachable,

    // ---- a worker's setup ----
    /// A setup that cannot be read; 400.
    SetupMalformed(&'static str),
    /// No credential, a wrong one or an expired one; 401.
    SetupUnauthorized,
    /// An origin or pool that this credential may not serve, or that no pool has; 403.
    SetupForbidden,
    /// Not GET; 405.
    SetupMethod,
    /// Not HTTP/1.1, or without Upgrade or Connection; 426.
    SetupUpgradeRequired,
    /// No HTTP version in common; 406.
    SetupVersions,
    /// The credential holds `links_max` links already; 429.
    SetupLimit,
    /// Too many setups, or too many that failed, from one address; 429.
    SetupsTooMany { retry_after_s: u16 },
}

impl Fault {
    #[must_use]
    pub fn blame(self) -> Blame {
        use Fault::*;
        match self {
            ClientMalformed(_) | LineTooLong | HeadTooLarge | HeadTimeout | BodyTimeout | BodyTooSlow
            | UnknownCoding | UnknownVersion | MethodRefused | UnknownExpectation | ClientGone => Blame::Client,
            NoPool | Misdirected | QueueFull | MemoryFull | WaitedTooLong | WouldWaitTooLong | NoWorker | Draining => {
                Blame::Edge
            }
            LinkLost | NotProcessed | WorkerReset | WorkerMalformed(_) | WorkerStalled | ResponseTimeout
            | NoUpgrade | OriginUnreachable => Blame::Worker,
            SetupMalformed(_)
            | SetupUnauthorized
            | SetupForbidden
            | SetupMethod
            | SetupUpgradeRequired
            | SetupVersions
            | SetupLimit
            | SetupsTooMany { .. } => Blame::Worker,
        }
    }

    /// The status that the client (or the worker, for a setup) sees. `ClientGone` has 499 for logs only.
    #[must_use]
    pub fn status(self) -> u16 {
        use Fault::*;
        match self {
            ClientMalformed(_) | SetupMalformed(_) => 400,
            SetupUnauthorized => 401,
            SetupForbidden => 403,
            NoPool => 404,
            MethodRefused | SetupMethod => 405,
            SetupVersions => 406,
            HeadTimeout | BodyTimeout | BodyTooSlow => 408,
            LineTooLong => 414,
            UnknownExpectation => 417,
            Misdirected => 421,
            SetupUpgradeRequired => 426,
            SetupLimit | SetupsTooMany { .. } => 429,
            HeadTooLarge => 431,
            ClientGone => 499,
            UnknownCoding => 501,
            LinkLost | NotProcessed | WorkerReset | WorkerMalformed(_) | WorkerStalled | NoUpgrade
            | OriginUnreachable => 502,
            QueueFull | MemoryFull | WaitedTooLong | WouldWaitTooLong | NoWorker | Draining => 503,
            ResponseTimeout => 504,
            UnknownVersion => 505,
        }
    }

    /// The error token of `Proxy-Status` (RFC 9209 §2.3); setups and gone clients have none.
    #[must_use]
    pub fn proxy_error(self) -> Option<&'static str> {
        use Fault::*;
        Some(match self {
            ClientMalformed(_) | LineTooLong | HeadTooLarge | HeadTimeout | BodyTimeout | BodyTooSlow
            | UnknownCoding | UnknownVersion | MethodRefused | UnknownExpectation => "http_request_error",
            NoPool | Misdirected => "destination_not_found",
            QueueFull | MemoryFull => "connection_limit_reached",
            WaitedTooLong | WouldWaitTooLong => "connection_timeout",
            NoWorker | Draining => "destination_unavailable",
            LinkLost | NotProcessed | WorkerReset => "connection_terminated",
            OriginUnreachable => "connection_refused",
            WorkerMalformed(_) | NoUpgrade => "http_protocol_error",
            WorkerStalled | ResponseTimeout => "http_response_timeout",
            ClientGone
            | SetupMalformed(_)
            | SetupUnauthorized
            | SetupForbidden
            | SetupMethod
            | SetupUpgradeRequired
            | SetupVersions
            | SetupLimit
            | SetupsTooMany { .. } => return None,
        })
    }

    /// One short sentence for the answer's body.
    #[must_use]
    pub fn detail(self) -> &'static str {
        use Fault::*;
        match self {
            ClientMalformed(what) | SetupMalformed(what) | WorkerMalformed(what) => what,
            LineTooLong => "the request line is longer than 8 KiB",
            HeadTooLarge => "the head is larger than 16 KiB, a line longer than 8 KiB, or more than 100 fields",
            HeadTimeout => "the request head took too long",
            BodyTimeout => "the request body stopped",
            BodyTooSlow => "the request body came too slowly",
            UnknownCoding => "only the chunked transfer coding is known",
            UnknownVersion => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            MethodRefused => "this method is not served here",
            UnknownExpectation => "only 100-continue can be expected",
            ClientGone => "the client went away",
            NoPool => "nothing here serves this origin",
            Misdirected => "nothing here serves this origin; this connection was made for another name",
            QueueFull => "the queue is full",
            MemoryFull => "the edge has no memory left for another request",
            WaitedTooLong => "no worker took the request in time",
            WouldWaitTooLong => "no worker would take the request within the time that it prefers to wait",
            NoWorker => "no worker is connected",
            Draining => "the edge is shutting down",
            LinkLost => "the connection to the worker was lost",
            NotProcessed => "the worker gave the request back and it cannot be sent again",
            WorkerReset => "the worker aborted the request",
            WorkerStalled => "the worker stopped sending",
            ResponseTimeout => "the worker did not answer in time",
            OriginUnreachable => "the server behind the worker does not take connections",
            NoUpgrade => "no worker can carry this upgrade",
            SetupUnauthorized => "the credential is missing, wrong or expired",
            SetupForbidden => "this credential may not serve this origin or pool, or no pool has it",
            SetupMethod => "a setup is a GET request",
            SetupUpgradeRequired => "a setup is HTTP/1.1 with Connection: upgrade and Upgrade: ptth",
            SetupVersions => "no version in common; supported are h2 and http%2F1.1",
            SetupLimit => "this credential holds as many links as it may",
            SetupsTooMany { .. } => "too many setups from this address, or too many that failed",
        }
    }

    /// What belongs into the answer as `Retry-After`, in seconds, where nobody knows better: long against a round trip, short
    /// against `wait_max`.
    #[must_use]
    pub fn retry_after_s(self) -> Option<u16> {
        match self {
            Fault::SetupsTooMany { retry_after_s } => Some(retry_after_s),
            fault => matches!(fault.status(), 503 | 429).then_some(1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Fault {}
