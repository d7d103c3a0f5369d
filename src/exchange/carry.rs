//! Carries one request over one link: body up, response down, both at once, with the clocks that watch them. It does not
//! choose the link and does not try again; it says what the loss of a link allows.

use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};

use super::pace::Pace;
use super::{Again, Answer, Back, Heard, Length, Lost, Pump, PumpEnd, Replay, Reply, RequestBody, Sink};
use crate::clock::{self, Now};
use crate::fault::Fault;
use crate::io::Timer;
use crate::limits::{HOARD_LOOK_MS, HOARD_MS_MAX, INTERIM_MAX};
use crate::xcore::is_memory_tight;

/// The clocks of one exchange. 0 is none.
#[derive(Clone, Copy, Debug)]
pub struct CarryBounds {
    /// From dispatch to the complete final head; a 1xx does not stop it.
    pub response_head_ms: u64,
    /// A body that makes no progress: nothing of it came, and nothing of what waits for its reader went.
    pub stall_ms: u64,
    /// Bytes for each second that a client has to send of its request's body, over each `stall_ms` in which it was waited for,
    /// until the response begins.
    pub body_rate_min: u64,
}

/// How an exchange ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    pub status: StatusCode,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// The response's side.
///
/// ```text
/// Heading --final head--> Streaming --last piece put--> (the exchange is over)
/// Heading --101--> Tunnel --both sides ended, all flushed--> (over)
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
    /// What had moved when the stall clock was last looked at, and since when there has been no more.
    moved_before: Moved,
    still_since: Now,
    /// The next moment at which something of that could be overdue.
    due_at: Option<Now>,
    holds: Option<Holds>,
    /// A client that stalls is somebody else's to end.
    spares_client: bool,
    interims: usize,
    owes_continue: bool,
    up: Pump,
    up_is_done: bool,
    /// The link takes no more of the request; its response tells why.
    up_is_refused: bool,
    pace: Pace,
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
            moved_before: Moved::default(),
            still_since: Now::default(),
            due_at: None,
            holds: None,
            spares_client: false,
            interims: 0,
            owes_continue: expects_continue && length != Length::None,
            up: Pump::new(),
            up_is_done: length == Length::None,
            up_is_refused: false,
            pace: Pace::new(bounds.body_rate_min, bounds.stall_ms),
            down: Pump::new(),
            down_is_done: false,
        }
    }

    /// Leaves a client that stalls to whoever is nearer to it. A worker cannot tell one that reads slowly from one that does
    /// not read: over the link it sees the edge's window, which opens in large steps. The edge sees the client itself, and
    /// resets the stream.
    #[must_use]
    pub fn sparing_client(mut self) -> Carry {
        self.spares_client = true;
        self
    }

    /// Runs the exchange until nothing of it is left on the link: the last of the response is in `answer` then, and
    /// [`flush`] brings it to the client, while the link already has its next request. `timer` is the caller's own, and free
    /// again afterwards.
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
        self.due_at = self.next_due(now);
        self.arm(timer);
        if self.up_is_done {
            answer.request_is_up(now);
        }
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
            let down = match self.phase {
                Phase::Tunnel => self.down.poll(cx, back.down(), answer),
                Phase::Heading | Phase::Streaming => self.down.poll_put(cx, back.down(), answer),
            };
            match down {
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
                Poll::Ready(Ok(())) => {
                    self.up_is_done = true;
                    answer.request_is_up(clock::now());
                }
                // A source's fault is the client's; nothing of the response can mend it.
                Poll::Ready(Err(PumpEnd::Source(fault))) => return lost(fault, Again::Never),
                // The worker may have answered before it stopped reading (RFC 9112 §9.5): its answer decides.
                Poll::Ready(Err(PumpEnd::Sink(_))) => self.up_is_refused = true,
                Poll::Pending if self.watches_pace() => self.pace.waits(!self.up.waits_for_sink(), clock::now()),
                Poll::Pending => {}
            }
        }
        if self.phase == Phase::Tunnel && self.down_is_done && (self.up_is_done || self.up_is_refused) {
            return Poll::Ready(Ok(self.carried()));
        }
        if self.holds.is_none() && self.phase == Phase::Streaming && self.down.waits_for_sink() {
            self.holds = Some(Holds::new(clock::now(), answer.moved()));
            self.arm(timer);
        }
        while timer.poll_expired(cx).is_ready() {
            let now = clock::now();
            if self.hoards(now, answer) {
                return lost(Fault::MemoryFull, Again::Never);
            }
            if self.due_at.is_some_and(|due| due <= now) {
                if let Some(fault) = self.overdue(now, [back.up().delivered(), answer.delivered()]) {
                    return lost(fault, Again::Never);
                }
                self.due_at = self.next_due(now);
            }
            self.arm(timer);
        }
        if self.phase != Phase::Tunnel && self.up_is_done && body.body().poll_gone(cx).is_ready() {
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
        self.moved_before.put = u64::MAX; // a head is progress, too
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
        Carried { status: self.status, bytes_up: self.up.bytes(), bytes_down: self.down.bytes() }
    }

    fn arm(&self, timer: &mut Timer) {
        let look_at = self.holds.as_ref().map(|holds| holds.look_at);
        if let Some(by) = self.due_at.into_iter().chain(look_at).min() {
            timer.set(by);
        }
    }

    /// While memory is short, a client that has taken nothing of its response for a while lets go of it.
    fn hoards(&mut self, now: Now, answer: &impl Answer) -> bool {
        let waits = self.phase == Phase::Streaming && self.down.waits_for_sink();
        let Some(holds) = self.holds.as_mut().filter(|holds| holds.look_at <= now) else { return false };
        if !waits {
            self.holds = None;
            return false;
        }
        let moved = answer.moved();
        if holds.moved != moved {
            *holds = Holds::new(now, moved);
            return false;
        }
        holds.look_at = now.plus_ms(HOARD_LOOK_MS);
        // Who cannot tell leaves it to whoever is nearer to the client.
        let is_told = moved.is_some() && !self.spares_client;
        is_told && now >= holds.since.plus_ms(HOARD_MS_MAX) && is_memory_tight()
    }

    fn next_due(&mut self, now: Now) -> Option<Now> {
        let head_by = (self.phase == Phase::Heading && self.bounds.response_head_ms > 0).then_some(self.head_by);
        let stall_by = (self.bounds.stall_ms > 0).then(|| self.still_since.plus_ms(self.bounds.stall_ms));
        let pace_by = self.watches_pace().then(|| self.pace.look_at(now));
        head_by.into_iter().chain(stall_by).chain(pace_by).min()
    }

    /// Its client's pace is told from the application's only until the response begins: then each may wait for the other.
    fn watches_pace(&self) -> bool {
        self.pace.is_watched() && self.phase == Phase::Heading && !self.up_is_done && !self.up_is_refused
    }

    /// Who is late, if somebody is. Called when `due_at` has passed; `delivered` is what the sinks of the way up and of the
    /// way down say then.
    fn overdue(&mut self, now: Now, delivered: [Option<u64>; 2]) -> Option<Fault> {
        if self.phase == Phase::Heading && self.bounds.response_head_ms > 0 && now >= self.head_by {
            return Some(Fault::ResponseTimeout);
        }
        let slow = (self.watches_pace() && self.pace.is_slow(self.up.bytes(), now)).then_some(Fault::BodyTooSlow);
        let moved = Moved { put: self.up.bytes() + self.down.bytes(), delivered: delivered.map(Some) };
        let before = std::mem::replace(&mut self.moved_before, moved);
        let waits = self.waits_for();
        // A reader that takes what was put long ago is slow, not stalled.
        let reads = match waits {
            WaitsFor::WorkerToRead => moved.delivered[0] != before.delivered[0],
            WaitsFor::ClientToRead => {
                let still_ms = now.ms_since(self.still_since);
                took(before.delivered[1], delivered[1], self.bounds.body_rate_min, still_ms)
            }
            WaitsFor::Worker | WaitsFor::Client | WaitsFor::Answer => false,
        };
        if moved.put != before.put || reads {
            self.still_since = now;
        }
        if self.bounds.stall_ms == 0 || now < self.still_since.plus_ms(self.bounds.stall_ms) {
            return slow;
        }
        self.still_since = now; // silence that is nobody's fault is looked at again as late
        match waits {
            WaitsFor::Answer => slow,
            WaitsFor::Client | WaitsFor::ClientToRead if self.spares_client => None,
            WaitsFor::Client => Some(Fault::BodyTimeout),
            WaitsFor::ClientToRead => delivered[1].map(|_| Fault::ClientGone),
            WaitsFor::Worker => Some(Fault::WorkerStalled),
            WaitsFor::WorkerToRead => delivered[0].map(|_| Fault::WorkerStalled),
        }
    }

    /// What keeps the exchange from going on.
    fn waits_for(&self) -> WaitsFor {
        let up_runs = !self.up_is_done && !self.up_is_refused && !self.owes_continue;
        match (self.phase, up_runs) {
            (Phase::Heading, false) => WaitsFor::Answer,
            // Both ways open: silence is a tunnel's right. One way closed: the other gets as long as any body.
            (Phase::Tunnel, true) if !self.down_is_done => WaitsFor::Answer,
            (Phase::Heading | Phase::Tunnel, true) if self.up.waits_for_sink() => WaitsFor::WorkerToRead,
            (Phase::Heading | Phase::Tunnel, true) => WaitsFor::Client,
            (Phase::Streaming, _) | (Phase::Tunnel, false) if self.down.waits_for_sink() => WaitsFor::ClientToRead,
            (Phase::Streaming, _) | (Phase::Tunnel, false) => WaitsFor::Worker,
        }
    }
}

/// A client took what is due for so many milliseconds: one byte now and then would hold the link's credit for ever. Whoever
/// cannot tell how much that was tells at least whether it was something.
fn took(before: Option<Option<u64>>, after: Option<u64>, rate_min: u64, ms: u64) -> bool {
    let (Some(Some(before)), Some(after)) = (before, after) else { return before != Some(after) };
    let took = after.wrapping_sub(before).cast_signed();
    let due = rate_min.saturating_mul(ms) / 1_000;
    took >= i64::try_from(due.max(1)).unwrap_or(i64::MAX)
}

/// Brings what is in `answer` to its client, as long as that takes some of it within `stall_ms`, and within `HOARD_MS_MAX`
/// while memory is short; 0: for as long as it is there. The timer is free again afterwards.
pub async fn flush(answer: &mut impl Sink, timer: &mut Timer, stall_ms: u64) -> Result<(), Fault> {
    let mut is_armed = false;
    let mut seen: Option<(Option<u64>, Now)> = None;
    let flushed = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(flushed) = answer.poll_flush(cx) {
                return Poll::Ready(flushed);
            }
            if stall_ms == 0 {
                return Poll::Pending;
            }
            if is_armed {
                std::task::ready!(timer.poll_expired(cx));
                let (taken, now) = (answer.delivered(), clock::now());
                match seen {
                    Some((before, _)) if before != taken => seen = Some((taken, now)),
                    None => seen = Some((taken, now)),
                    Some((_, since)) => {
                        let bound_ms = if is_memory_tight() { stall_ms.min(HOARD_MS_MAX) } else { stall_ms };
                        if since.plus_ms(bound_ms) <= now {
                            return Poll::Ready(Err(Fault::ClientGone));
                        }
                    }
                }
            }
            is_armed = true;
            timer.set(clock::now().plus_ms(stall_ms.min(HOARD_LOOK_MS)));
        }
    });
    let flushed = flushed.await;
    timer.clear();
    flushed
}

/// Who an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// Nobody has to do anything now, but answer.
    Answer,
    Client,
    ClientToRead,
    Worker,
    WorkerToRead,
}

/// A client that does not read, since when, and what [`Answer::moved`] said then.
#[derive(Clone, Copy, Debug)]
struct Holds {
    since: Now,
    moved: Option<u64>,
    look_at: Now,
}

impl Holds {
    fn new(now: Now, moved: Option<u64>) -> Holds {
        Holds { since: now, moved, look_at: now.plus_ms(HOARD_LOOK_MS) }
    }
}

/// How far both bodies had come.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    /// Bytes that went into the sinks.
    put: u64,
    /// What [`Sink::delivered`] said, up and down; `None` before it was asked first.
    delivered: [Option<Option<u64>>; 2],
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::*;
    use crate::exchange::{Piece, Source};
    use crate::io;

    const STALL_MS: u64 = 30;
    const BOUNDS: CarryBounds = CarryBounds { response_head_ms: 0, stall_ms: STALL_MS, body_rate_min: 0 };

    /// An exchange in `phase`. Which of its pumps run, and which of those wait for their sink.
    fn carry(phase: Phase, up: Option<bool>, down: Option<bool>) -> Carry {
        let pump = |waits_for_sink| if waits_for_sink { Pump::flushing() } else { Pump::new() };
        let mut carry = Carry::new(Length::Unknown, false, BOUNDS);
        carry.phase = phase;
        carry.up_is_done = up.is_none();
        carry.up = up.map_or_else(Pump::new, pump);
        carry.down_is_done = down.is_none();
        carry.down = down.map_or_else(Pump::new, pump);
        carry
    }

    /// The faults of several looks, one stall time after the other; `delivered` for each.
    fn looks(carry: &mut Carry, delivered: &[[Option<u64>; 2]]) -> Vec<Option<Fault>> {
        let at = |look: usize| Now::default().plus_ms(STALL_MS * (look as u64 + 1));
        delivered.iter().enumerate().map(|(look, delivered)| carry.overdue(at(look), *delivered)).collect()
    }

    #[test]
    fn every_phase_knows_whom_it_waits_for() {
        use {Phase::*, WaitsFor::*};
        for (phase, up, down, want) in [
            (Heading, None, Some(false), Answer),
            (Heading, Some(false), Some(false), Client),
            (Heading, Some(true), Some(false), WorkerToRead),
            (Streaming, None, Some(false), Worker),
            (Streaming, None, Some(true), ClientToRead),
            (Streaming, Some(false), Some(true), ClientToRead),
            (Streaming, Some(true), Some(false), Worker),
            (Tunnel, Some(false), Some(false), Answer),
            (Tunnel, Some(true), Some(true), Answer),
            (Tunnel, Some(false), None, Client),
            (Tunnel, Some(true), None, WorkerToRead),
            (Tunnel, None, Some(false), Worker),
            (Tunnel, None, Some(true), ClientToRead),
        ] {
            assert_eq!(carry(phase, up, down).waits_for(), want, "{phase:?} {up:?} {down:?}");
        }
        let mut asks = carry(Heading, Some(false), Some(false));
        asks.owes_continue = true;
        assert_eq!(asks.waits_for(), Answer, "nobody has told the client to send its body");
    }

    #[test]
    fn a_client_that_reads_a_little_of_what_waits_is_not_stalled() {
        let mut slow = carry(Phase::Streaming, None, Some(true));
        let steps: Vec<_> = (0..1_000).map(|bytes| [None, Some(bytes)]).collect();
        assert!(looks(&mut slow, &steps).iter().all(Option::is_none));
        let mut stalled = carry(Phase::Streaming, None, Some(true));
        let steps = [[None, Some(7)], [None, Some(8)], [None, Some(8)], [None, Some(8)]];
        let gone = Some(Fault::ClientGone);
        assert_eq!(looks(&mut stalled, &steps), [None, None, gone, gone]);
    }

    #[test]
    fn a_client_that_reads_less_than_its_rate_is_gone() {
        let rate = |body_rate_min| {
            let mut reads = carry(Phase::Streaming, None, Some(true));
            reads.bounds.body_rate_min = body_rate_min;
            let steps: Vec<_> = (0..5).map(|look| [None, Some(look * 3)]).collect(); // 100 bytes for each second
            looks(&mut reads, &steps)
        };
        assert_eq!(rate(100), [None; 5]);
        let gone = Some(Fault::ClientGone);
        assert_eq!(rate(134), [None, gone, gone, gone, gone], "the first look finds out what there was");
        let mut back = carry(Phase::Streaming, None, Some(true));
        assert_eq!(
            looks(&mut back, &[[None, Some(9)], [None, Some(8)]]),
            [None, gone],
            "what comes back was not taken"
        );
    }

    #[test]
    fn a_worker_that_reads_a_little_of_what_waits_is_not_stalled() {
        let mut slow = carry(Phase::Heading, Some(true), Some(false));
        let steps: Vec<_> = (0..1_000).map(|bytes| [Some(bytes), None]).collect();
        assert!(looks(&mut slow, &steps).iter().all(Option::is_none));
        let mut stalled = carry(Phase::Heading, Some(true), Some(false));
        let steps = [[Some(7), Some(1)], [Some(7), Some(2)]];
        assert_eq!(looks(&mut stalled, &steps), [None, Some(Fault::WorkerStalled)]);
    }

    #[test]
    fn what_one_side_reads_does_not_excuse_the_other() {
        let steps = [[Some(1), Some(1)], [Some(2), Some(2)]];
        let mut upload = carry(Phase::Heading, Some(false), Some(false));
        assert_eq!(looks(&mut upload, &steps)[0], Some(Fault::BodyTimeout));
        let mut download = carry(Phase::Streaming, None, Some(false));
        assert_eq!(looks(&mut download, &steps)[0], Some(Fault::WorkerStalled));
    }

    #[test]
    fn a_client_that_sends_a_little_is_slow_and_one_that_is_silent_is_stalled() {
        let bounds = CarryBounds { body_rate_min: 1_000, ..BOUNDS };
        let watched = |phase| {
            let mut carry = carry(phase, Some(false), Some(false));
            carry.pace = Pace::new(bounds.body_rate_min, bounds.stall_ms);
            carry.pace.waits(true, Now::default());
            carry
        };
        let none = [[None, None]; 1];
        assert_eq!(looks(&mut watched(Phase::Heading), &none), [Some(Fault::BodyTimeout)], "nothing came");
        let mut slow = watched(Phase::Heading);
        slow.moved_before.put = 1; // as if something had come
        assert_eq!(looks(&mut slow, &none), [Some(Fault::BodyTooSlow)]);
        let mut answered = watched(Phase::Streaming);
        answered.moved_before.put = 1;
        assert_eq!(looks(&mut answered, &none), [None], "its response has begun");
    }

    #[test]
    fn a_sink_that_cannot_tell_is_left_to_whoever_can() {
        let steps = [[None, None]; 3];
        assert_eq!(looks(&mut carry(Phase::Streaming, None, Some(true)), &steps), [None; 3]);
        assert_eq!(looks(&mut carry(Phase::Heading, Some(true), None), &steps), [None; 3]);
    }

    #[test]
    fn a_worker_leaves_a_stalled_client_to_its_edge_and_no_stalled_server() {
        let steps = [[Some(1), Some(1)]; 3];
        let look = |phase, up, down| looks(&mut carry(phase, up, down).sparing_client(), &steps)[2];
        assert_eq!(look(Phase::Streaming, None, Some(true)), None);
        assert_eq!(look(Phase::Heading, Some(false), Some(false)), None);
        assert_eq!(look(Phase::Streaming, None, Some(false)), Some(Fault::WorkerStalled));
        assert_eq!(look(Phase::Heading, Some(true), Some(false)), Some(Fault::WorkerStalled));
    }

    /// Takes whatever is put and sends `takes` of it, one byte each time that it is asked what was delivered.
    #[derive(Default)]
    struct Reluctant {
        pieces: usize,
        takes: Cell<u64>,
        delivered: Cell<u64>,
    }

    impl Sink for Reluctant {
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }

        fn put(&mut self, _: Piece) -> Result<(), Fault> {
            self.pieces += 1;
            Ok(())
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }

        fn delivered(&self) -> Option<u64> {
            let step = u64::from(self.takes.get() > 0);
            self.takes.set(self.takes.get() - step);
            self.delivered.set(self.delivered.get() + step);
            Some(self.delivered.get())
        }
    }

    impl Answer for Reluctant {
        fn interim(&mut self, _: StatusCode, _: &HeaderMap) -> Result<(), Fault> {
            unreachable!("none comes")
        }

        fn head(&mut self, _: Reply) -> Result<(), Fault> {
            Ok(())
        }

        fn has_begun(&self) -> bool {
            true
        }
    }

    /// A link that has answered, with `pieces` in its body.
    struct Answered {
        pieces: usize,
        up: Reluctant,
    }

    impl Source for Answered {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
            self.pieces -= 1;
            Poll::Ready(Ok(Piece::Data { bytes: Bytes::from_static(b"some"), last: self.pieces == 0 }))
        }
    }

    impl Back for Answered {
        type Up = Reluctant;
        type Down = Answered;

        fn poll_heard(&mut self, _: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
            let length = if self.pieces == 0 { Length::None } else { Length::Unknown };
            Poll::Ready(Ok(Heard::Final(Reply { status: StatusCode::OK, headers: HeaderMap::new(), length })))
        }

        fn up(&mut self) -> &mut Reluctant {
            &mut self.up
        }

        fn down(&mut self) -> &mut Answered {
            self
        }
    }

    /// A client that has said all and stays.
    struct Said;

    impl Source for Said {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
            unreachable!("it has no body")
        }
    }

    impl RequestBody for Said {
        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn read_ahead(&self) -> usize {
            0
        }

        fn go_raw(&mut self) {}
    }

    #[test]
    fn a_link_is_free_when_the_response_has_come_whether_or_not_its_client_reads() {
        for pieces in [0, 1, 5] {
            let mut answer = Reluctant::default();
            let mut back = Answered { pieces, up: Reluctant::default() };
            let carried = io::run(|| async {
                let carry = Carry::new(Length::None, false, CarryBounds { stall_ms: 0, ..BOUNDS });
                let (mut said, mut timer) = (Said, Timer::new());
                let mut body = Replay::new(&mut said);
                carry.run(&mut body, &mut answer, &mut back, &mut timer, clock::now()).await
            });
            let bytes_down = 4 * pieces as u64;
            let want = Carried { status: StatusCode::OK, bytes_up: 0, bytes_down };
            assert_eq!((carried.unwrap(), answer.pieces), (Ok(want), pieces));
        }
    }

    #[test]
    fn a_flush_waits_for_a_client_as_long_as_it_takes_something() {
        for takes in [0, 3] {
            let mut answer = Reluctant { takes: Cell::new(takes), ..Reluctant::default() };
            let flushed = io::run(|| async { flush(&mut answer, &mut Timer::new(), STALL_MS).await });
            assert_eq!(flushed.unwrap(), Err(Fault::ClientGone));
            assert_eq!((answer.takes.get(), answer.delivered.get()), (0, takes), "asked until nothing moved");
        }
    }
}
