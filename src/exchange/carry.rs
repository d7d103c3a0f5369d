//! Carries one request over one link: body up, response down, both at once, with the clocks that watch them. It does not
//! choose the link and does not try again; it says what the loss of a link allows.

use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};

use super::{Again, Answer, Back, Heard, Length, Lost, Pump, PumpEnd, Replay, Reply, RequestBody};
use crate::clock::{self, Now};
use crate::fault::Fault;
use crate::io::Timer;
use crate::limits::INTERIM_MAX;

/// The clocks of one exchange. 0 is none.
#[derive(Clone, Copy, Debug)]
pub struct CarryBounds {
    /// From dispatch to the complete final head; a 1xx does not stop it.
    pub response_head_ms: u64,
    /// A body that makes no progress.
    pub stall_ms: u64,
}

/// How an exchange ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    pub status: StatusCode,
    /// The whole request went up; if not, the response came first and the rest was left where it was.
    pub request_complete: bool,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// The response's side.
///
/// ```text
/// Heading --final head--> Streaming --last byte flushed--> (the exchange is over)
/// Heading --101--> Tunnel --both sides ended--> (over)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Heading,
    Streaming,
    Tunnel,
}

/// One exchange in flight.
pub struct Carry {
    phase: Phase,
    status: StatusCode,
    bounds: CarryBounds,
    head_by: Now,
    /// Bytes that had moved when the stall clock was last looked at, and since when there have been no more.
    moved_before: u64,
    still_since: Now,
    interims: usize,
    owes_continue: bool,
    up: Pump,
    up_is_done: bool,
    /// The link takes no more of the request; its response tells why.
    up_is_refused: bool,
    down: Pump,
    down_is_done: bool,
}

impl Carry {
    /// `length` and `expects_continue` are the request's.
    #[must_use]
    pub fn new(length: Length, expects_continue: bool, bounds: CarryBounds) -> Carry {
        Carry {
            phase: Phase::Heading,
            status: StatusCode::OK,
            bounds,
            head_by: Now::default(),
            moved_before: 0,
            still_since: Now::default(),
            interims: 0,
            owes_continue: expects_continue && length != Length::None,
            up: Pump::new(),
            up_is_done: length == Length::None,
            up_is_refused: false,
            down: Pump::new(),
            down_is_done: false,
        }
    }

    /// Runs the exchange to its end. `timer` is the caller's own, and free again afterwards.
    pub async fn run<B: RequestBody, A: Answer, L: Back>(
        mut self,
        body: &mut Replay<'_, B>,
        answer: &mut A,
        back: &mut L,
        timer: &mut Timer,
        now: Now,
    ) -> Result<Carried, Lost> {
        self.owes_continue &= !body.was_asked_for();
        self.head_by = now.plus_ms(self.bounds.response_head_ms);
        self.still_since = now;
        self.arm(timer);
        let end = std::future::poll_fn(|cx| self.poll(cx, body, answer, back, timer)).await;
        timer.clear();
        end
    }

    fn poll<B: RequestBody, A: Answer, L: Back>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Replay<'_, B>,
        answer: &mut A,
        back: &mut L,
        timer: &mut Timer,
    ) -> Poll<Result<Carried, Lost>> {
        if self.phase == Phase::Heading {
            self.poll_head(cx, body, answer, back)?;
        }
        if self.phase != Phase::Heading && !self.down_is_done {
            match self.down.poll(cx, back.down(), answer) {
                Poll::Ready(Ok(())) => self.down_is_done = true,
                Poll::Ready(Err(PumpEnd::Source(fault) | PumpEnd::Sink(fault))) => return lost(fault, Again::Never),
                Poll::Pending => {}
            }
        }
        if self.down_is_done && self.phase == Phase::Streaming {
            return Poll::Ready(Ok(self.carried()));
        }
        if !self.up_is_done && !self.up_is_refused && !self.owes_continue {
            match self.up.poll(cx, body, back.up()) {
                Poll::Ready(Ok(())) => self.up_is_done = true,
                // A source's fault is the client's; nothing of the response can mend it.
                Poll::Ready(Err(PumpEnd::Source(fault))) => return lost(fault, Again::Never),
                // The worker may have answered before it stopped reading (RFC 9112 §9.5): its answer decides.
                Poll::Ready(Err(PumpEnd::Sink(_))) => self.up_is_refused = true,
                Poll::Pending => {}
            }
        }
        if self.phase == Phase::Tunnel && self.down_is_done && (self.up_is_done || self.up_is_refused) {
            return Poll::Ready(Ok(self.carried()));
        }
        while timer.poll_expired(cx).is_ready() {
            let now = clock::now();
            if let Some(fault) = self.overdue(now) {
                return lost(fault, Again::Never);
            }
            self.arm(timer);
        }
        // While the last of a response goes out, its writing tells whether somebody is there.
        let watches = self.phase != Phase::Tunnel && self.up_is_done && !self.down.is_flushing();
        if watches && body.body().poll_gone(cx).is_ready() {
            return lost(Fault::ClientGone, Again::Never);
        }
        Poll::Pending
    }

    /// Everything up to the final head.
    fn poll_head<B: RequestBody, A: Answer, L: Back>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Replay<'_, B>,
        answer: &mut A,
        back: &mut L,
    ) -> Result<(), Lost> {
        while let Poll::Ready(heard) = back.poll_heard(cx)? {
            match heard {
                Heard::Dispatched => {
                    if std::mem::take(&mut self.owes_continue) {
                        body.ask_for();
                        put(answer.interim(StatusCode::CONTINUE, &HeaderMap::new()))?;
                    }
                }
                // We answer 100 ourselves, and only to a client that asked for it.
                Heard::Interim(StatusCode::CONTINUE, _) => self.count_interim()?,
                Heard::Interim(status, headers) => {
                    self.count_interim()?;
                    put(answer.interim(status, &headers))?;
                }
                Heard::Final(reply) => {
                    body.forget();
                    self.owes_continue = false;
                    self.begin(body, answer, reply)?;
                    return Ok(());
                }
            }
        }
        // Interim responses go out at once; there is no body behind them that would push them.
        let _ = put_poll(answer.poll_flush(cx))?;
        Ok(())
    }

    fn count_interim(&mut self) -> Result<(), Lost> {
        self.interims += 1;
        if self.interims > INTERIM_MAX {
            return Err(Lost { fault: Fault::WorkerMalformed("too many interim responses"), again: Again::Never });
        }
        Ok(())
    }

    fn begin<B: RequestBody, A: Answer>(
        &mut self,
        body: &mut Replay<'_, B>,
        answer: &mut A,
        reply: Reply,
    ) -> Result<(), Lost> {
        self.status = reply.status;
        self.phase = Phase::Streaming;
        self.moved_before = u64::MAX; // a head is progress, too
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            self.phase = Phase::Tunnel;
            self.up_is_done = false;
            body.body().go_raw();
        }
        if reply.length == Length::None {
            self.down = Pump::flushing();
        }
        put(answer.head(reply))
    }

    fn carried(&self) -> Carried {
        Carried {
            status: self.status,
            request_complete: self.up_is_done,
            bytes_up: self.up.bytes(),
            bytes_down: self.down.bytes(),
        }
    }

    /// The next moment at which something could be overdue.
    fn arm(&mut self, timer: &mut Timer) {
        let head_by = (self.phase == Phase::Heading && self.bounds.response_head_ms > 0).then_some(self.head_by);
        let stall_by = (self.bounds.stall_ms > 0).then(|| self.still_since.plus_ms(self.bounds.stall_ms));
        if let Some(by) = head_by.into_iter().chain(stall_by).min() {
            timer.set(by);
        }
    }

    /// Who is late, if somebody is. Called when the timer that [`Carry::arm`] set has passed.
    fn overdue(&mut self, now: Now) -> Option<Fault> {
        if self.phase == Phase::Heading && self.bounds.response_head_ms > 0 && now >= self.head_by {
            return Some(Fault::ResponseTimeout);
        }
        let moved = self.up.bytes() + self.down.bytes();
        if moved != self.moved_before {
            self.moved_before = moved;
            self.still_since = now;
        }
        if self.bounds.stall_ms == 0 || now < self.still_since.plus_ms(self.bounds.stall_ms) {
            return None;
        }
        self.still_since = now; // silence that is nobody's fault is looked at again as late
        let up_runs = !self.up_is_done && !self.up_is_refused && !self.owes_continue;
        match self.phase {
            // Both ways open: silence is a tunnel's right. One way closed: the other gets as long as any body.
            Phase::Tunnel if up_runs && !self.down_is_done => None,
            Phase::Tunnel => Some(if up_runs { Fault::BodyTimeout } else { Fault::WorkerStalled }),
            Phase::Streaming if self.down.waits_for_sink() => Some(Fault::ClientGone),
            Phase::Streaming => Some(Fault::WorkerStalled),
            Phase::Heading if up_runs && self.up.waits_for_sink() => Some(Fault::WorkerStalled),
            Phase::Heading if up_runs => Some(Fault::BodyTimeout),
            Phase::Heading => None,
        }
    }
}

fn lost<T>(fault: Fault, again: Again) -> Poll<Result<T, Lost>> {
    Poll::Ready(Err(Lost { fault, again }))
}

/// What the client's side refuses cannot be mended by another worker.
fn put(result: Result<(), Fault>) -> Result<(), Lost> {
    result.map_err(|fault| Lost { fault, again: Again::Never })
}

fn put_poll(poll: Poll<Result<(), Fault>>) -> Result<Poll<()>, Lost> {
    match poll {
        Poll::Ready(result) => put(result).map(Poll::Ready),
        Poll::Pending => Ok(Poll::Pending),
    }
}
