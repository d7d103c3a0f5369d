//! A request whose own core has no link for it: it is carried by a core that has one. Between the two cores run two
//! bounded pipes, one for each body; the client stays with its home core, the link with its own.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};

use super::core::{Core, Credit, Offered};
use super::over::{carry_bounds, send_over};
use crate::clock::{self, Now};
use crate::exchange::{Again, Answer, Ask, Back, Heard, Lost, Piece, Replay, Reply, RequestBody, Sink, Source};
use crate::fault::Fault;
use crate::ids::PoolId;
use crate::io::{self, Timer};
use crate::limits::{BODY_STALL_MS_MAX, GONE_LOOK_MS, PIPE_PIECES_MAX};
use crate::sched::Needs;
use crate::xcore::{HomeWakers, PipeRx, PipeTx, pipe};

/// The request as it travels.
pub struct FarAsk {
    ask: Ask,
    pool: PoolId,
    needs: Needs,
    stamp: Now,
    up: PipeRx<Piece>,
    down: PipeTx<Down>,
}

/// What comes back.
enum Down {
    Heard(Heard),
    Piece(Piece),
    Lost(Lost),
}

// ---- at home ----

/// The home core's end: looks like a link.
pub struct FarBack {
    up: FarUp,
    down: FarDown,
    was_told: bool,
}

/// Makes both ends. The first goes with a message, the second stays.
pub fn send_far(core: &Core, ask: Ask, pool: PoolId, needs: Needs, stamp: Now) -> (FarAsk, FarBack) {
    let (up_tx, up_rx) = pipe(PIPE_PIECES_MAX);
    let (down_tx, down_rx) = pipe(PIPE_PIECES_MAX);
    let far = FarAsk { ask, pool, needs, stamp, up: up_rx, down: down_tx };
    let back = FarBack {
        up: FarUp { pipe: up_tx, home: core.home.clone(), waiting: None },
        down: FarDown { pipe: down_rx, home: core.home.clone() },
        was_told: false,
    };
    (far, back)
}

impl FarBack {
    /// Ready once a link over there has the request, or with why it never will.
    pub fn poll_granted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        match ready!(self.down.pipe.poll_recv(cx, &self.down.home)) {
            Some(Down::Heard(Heard::Dispatched)) => Poll::Ready(Ok(())),
            Some(Down::Lost(lost)) => Poll::Ready(Err(lost)),
            Some(Down::Heard(_) | Down::Piece(_)) => unreachable!("Dispatched comes first"),
            None => Poll::Ready(Err(Lost { fault: Fault::LinkLost, again: Again::Untouched })),
        }
    }
}

impl Back for FarBack {
    type Up = FarUp;
    type Down = FarDown;

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
        if !self.was_told {
            self.was_told = true;
            return Poll::Ready(Ok(Heard::Dispatched));
        }
        match ready!(self.down.pipe.poll_recv(cx, &self.down.home)) {
            Some(Down::Heard(heard)) => Poll::Ready(Ok(heard)),
            Some(Down::Lost(lost)) => Poll::Ready(Err(lost)),
            Some(Down::Piece(_)) => unreachable!("a head comes before its body"),
            None => Poll::Ready(Err(Lost { fault: Fault::LinkLost, again: Again::MayHaveRun })),
        }
    }

    fn up(&mut self) -> &mut FarUp {
        &mut self.up
    }

    fn down(&mut self) -> &mut FarDown {
        &mut self.down
    }
}

/// The request's body on its way to the other core.
pub struct FarUp {
    pipe: PipeTx<Piece>,
    home: HomeWakers,
    waiting: Option<Piece>,
}

impl Sink for FarUp {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.waiting.is_none() {
            return Poll::Ready(Ok(()));
        }
        if ready!(self.pipe.poll_ready(cx, &self.home)).is_err() {
            return Poll::Ready(Err(Fault::LinkLost));
        }
        let piece = self.waiting.take().expect("looked at above");
        Poll::Ready(self.pipe.try_send(piece).map_err(|_| Fault::LinkLost))
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        debug_assert!(self.waiting.is_none(), "put without poll_ready");
        self.waiting = Some(piece);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_ready(cx)
    }
}

/// The response's body on its way home.
pub struct FarDown {
    pipe: PipeRx<Down>,
    home: HomeWakers,
}

impl Source for FarDown {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        match ready!(self.pipe.poll_recv(cx, &self.home)) {
            Some(Down::Piece(piece)) => Poll::Ready(Ok(piece)),
            Some(Down::Lost(lost)) => Poll::Ready(Err(lost.fault)),
            Some(Down::Heard(_)) | None => Poll::Ready(Err(Fault::LinkLost)),
        }
    }
}

// ---- over there ----

/// Serves a request of another core: waits for a credit here, carries it, and tells how it was lost if it was.
pub async fn serve_far(core: Rc<Core>, far: FarAsk) {
    let FarAsk { ask, pool, needs, stamp, up, down } = far;
    let mut answer = FarAnswer { pipe: down, home: core.home.clone(), backlog: VecDeque::new(), has_begun: false };
    let mut body = FarBody { pipe: up, home: core.home.clone() };
    let credit = match wait_here(&core, pool, needs, stamp, &mut body).await {
        Ok(Some(credit)) => credit,
        Ok(None) => return, // nobody waits for it any more
        Err(lost) => return answer.tell(Down::Lost(lost)).await,
    };
    answer.backlog.push_back(Down::Heard(Heard::Dispatched));
    let mut timer = Timer::new();
    let mut replay = Replay::new(&mut body);
    let bounds = carry_bounds(&core, pool);
    // The 100 is its home's to answer: it hears that the request was dispatched.
    let ask = Ask { expects_continue: false, ..ask };
    let carried = send_over(credit, &core, &ask, &mut replay, &mut answer, &mut timer, bounds, clock::now()).await;
    if let Err(lost) = carried {
        answer.tell(Down::Lost(lost)).await;
    }
}

async fn wait_here(
    core: &Rc<Core>,
    pool: PoolId,
    needs: Needs,
    stamp: Now,
    body: &mut FarBody,
) -> Result<Option<Credit>, Lost> {
    let gone_again = Lost { fault: Fault::LinkLost, again: Again::Untouched };
    match core.offer_here(pool, needs, stamp) {
        Offered::Granted(credit) => Ok(Some(credit)),
        Offered::Elsewhere(_) => Err(gone_again),
        Offered::Waits(mut waiting) => loop {
            if needs == Needs::Upgrade && core.cannot_upgrade(pool) {
                return Err(Lost { fault: Fault::NoUpgrade, again: Again::Never });
            }
            let given = std::future::poll_fn(|cx| {
                if let Poll::Ready(given) = waiting.poll(cx) {
                    return Poll::Ready(given.map(Some).ok_or(gone_again));
                }
                body.poll_left(cx).map(|()| Ok(None))
            });
            // What the links can carry may be known only later.
            if let Some(given) = io::timeout(GONE_LOOK_MS, given).await {
                return given;
            }
            if core.better_core(pool, needs).is_some() {
                return Err(gone_again);
            }
        },
    }
}

/// The request's body, as it arrives from its home.
struct FarBody {
    pipe: PipeRx<Piece>,
    home: HomeWakers,
}

impl FarBody {
    /// Ready when the home has dropped the request. While it waits its home sends no body.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.pipe.poll_recv(cx, &self.home)) {
            None => Poll::Ready(()),
            Some(_) => unreachable!("no body before the request was dispatched, none after its end"),
        }
    }
}

impl Source for FarBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        Poll::Ready(ready!(self.pipe.poll_recv(cx, &self.home)).ok_or(Fault::ClientGone))
    }
}

impl RequestBody for FarBody {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_left(cx)
    }

    fn read_ahead(&self) -> usize {
        0
    }

    fn go_raw(&mut self) {}
}

/// The way home. Holds what does not fit into the pipe yet: an interim head or two, and one piece.
struct FarAnswer {
    pipe: PipeTx<Down>,
    home: HomeWakers,
    backlog: VecDeque<Down>,
    has_begun: bool,
}

impl FarAnswer {
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while !self.backlog.is_empty() {
            if ready!(self.pipe.poll_ready(cx, &self.home)).is_err() {
                return Poll::Ready(Err(Fault::ClientGone));
            }
            if let Some(next) = self.backlog.pop_front()
                && self.pipe.try_send(next).is_err()
            {
                return Poll::Ready(Err(Fault::ClientGone));
            }
        }
        Poll::Ready(Ok(()))
    }

    async fn tell(&mut self, last: Down) {
        self.backlog.push_back(last);
        // A home that left, or that is stuck with its client, does not need to hear it.
        let _ = io::timeout(BODY_STALL_MS_MAX, std::future::poll_fn(|cx| self.poll_push(cx))).await;
    }
}

impl Answer for FarAnswer {
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        self.backlog.push_back(Down::Heard(Heard::Interim(status, headers.clone())));
        Ok(())
    }

    fn head(&mut self, reply: Reply) -> Result<(), Fault> {
        self.has_begun = true;
        self.backlog.push_back(Down::Heard(Heard::Final(reply)));
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }
}

impl Sink for FarAnswer {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_push(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        self.backlog.push_back(Down::Piece(piece));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_push(cx)
    }
}
