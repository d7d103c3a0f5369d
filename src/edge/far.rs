//! A request that a link of another core serves: that core carries it. Between the two run two bounded pipes, one for each
//! body; the client stays with its home core, the link with its own.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};

use super::core::{Core, Credit, Got};
use super::gate;
use super::log::record::Grantor;
use super::over::{Terms, send_over};
use crate::clock;
use crate::events::Dispatch;
use crate::exchange::{
    Again, Answer, Ask, Back, CarryBounds, Heard, Lost, Piece, Replay, Reply, RequestBody, Sink, Source, flush,
};
use crate::fault::Fault;
use crate::ids::PoolId;
use crate::io::{self, Timer};
use crate::limits::{GONE_LOOK_MS, PIPE_PIECES_MAX};
use crate::sched::Facts;
use crate::xcore::{HomeWakers, Mail, PipeRx, PipeTx, Portable, pipe};

/// What another core needs of a waiting request.
pub struct FarAsk {
    pub ask: Arc<Ask>,
    pub facts: Facts,
    /// Where the core that has taken it leaves its home the way to it.
    pub mail: Arc<Mail<FarEnds>>,
}

/// The home core's ends of the two pipes.
pub struct FarEnds {
    up: PipeTx<Piece>,
    down: PipeRx<Down>,
    /// Where there is an access log.
    grantor: Option<Grantor>,
}

/// What comes back.
enum Down {
    Heard(Heard),
    Piece(Piece),
    Lost(Lost),
}

// ---- at home ----

/// The home core's end: looks like a link that has just got the request.
pub struct FarBack {
    up: FarUp,
    down: FarDown,
    /// Who carries it, for the access log.
    pub grantor: Option<Grantor>,
    was_told: bool,
}

impl FarBack {
    pub fn new(ends: FarEnds, core: &Core) -> FarBack {
        FarBack {
            up: FarUp { pipe: ends.up, home: core.home.clone(), waiting: None },
            down: FarDown { pipe: ends.down, home: core.home.clone() },
            grantor: ends.grantor,
            was_told: false,
        }
    }
}

impl FarBack {
    /// For somebody else to look at.
    fn into_ends(self) -> FarEnds {
        FarEnds { up: self.up.pipe, down: self.down.pipe, grantor: self.grantor }
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

    fn delivered(&self) -> Option<u64> {
        None // the other core has the socket, and watches it
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

/// Carries a request of another core over the link of `credit`, and tells how it was lost if it was.
pub async fn serve_far(core: &Rc<Core>, what: &FarAsk, credit: Credit, kind: Dispatch) {
    let FarAsk { ask, facts, mail } = what;
    let (up_tx, up_rx) = pipe(PIPE_PIECES_MAX);
    let (down_tx, down_rx) = pipe(PIPE_PIECES_MAX);
    let grantor = core.log.is_some().then(|| core.grantor(&credit, kind));
    if mail.put(FarEnds { up: up_tx, down: down_rx, grantor }).is_err() {
        return; // its client left in this moment
    }
    let mut answer = FarAnswer { pipe: down_tx, home: core.home.clone(), backlog: VecDeque::new(), has_begun: false };
    let mut body = FarBody { pipe: up_rx, home: core.home.clone() };
    let mut timer = Timer::new();
    let mut replay = Replay::new(&mut body);
    // The 100 is its home's to answer: it hears that the request was dispatched.
    let terms = Terms::of(core, facts.pool, ask);
    // So is the pace of its client: here a pipe is waited for, not a socket.
    let bounds = CarryBounds { body_rate_min: 0, ..terms.bounds };
    let terms = Terms { bounds, expects_continue: false };
    let now = clock::now();
    core.count_dispatch(&credit, facts, kind, now);
    let carried = send_over(credit, core, ask, &mut replay, &mut answer, &mut timer, terms, now).await;
    match carried {
        // The link has its next request by now. A client that does not read is its home's to end, and then the pipe is closed.
        Ok(_) => drop(flush(&mut answer, &mut timer, 0).await),
        Err(lost) => answer.tell(Down::Lost(lost), core.shared.clocks.stall_ms).await,
    }
}

/// The request's body, as it arrives from its home.
struct FarBody {
    pipe: PipeRx<Piece>,
    home: HomeWakers,
}

impl FarBody {
    /// Ready when the home has dropped the request, once its body is over.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.pipe.poll_recv(cx, &self.home)) {
            None => Poll::Ready(()),
            Some(_) => unreachable!("nothing follows the end of a body"),
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

    async fn tell(&mut self, last: Down, max_ms: u64) {
        self.backlog.push_back(last);
        // A home that left, or that is stuck with its client, does not need to hear it.
        let _ = io::timeout(max_ms, std::future::poll_fn(|cx| self.poll_push(cx))).await;
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

    fn delivered(&self) -> Option<u64> {
        None // the other core has the socket, and watches it
    }
}

// ---- over to the next generation ----

/// A request of a generation that leaves, on its way to wait in the one that has taken over.
pub struct Adopted {
    what: FarAsk,
    /// Its home still wants it.
    wanted: PipeRx<Never>,
    /// Somebody there waits for it, or says why nobody does.
    waits: PipeTx<Fault>,
}

/// Nobody says anything: a pipe of these only tells when its other end has gone.
enum Never {}

/// What has become of a request that waits in the next generation.
pub enum Fetched {
    /// It has a credit there.
    Carried(FarBack),
    /// It waits there in vain.
    Refused(Fault),
    /// Nobody waits for it there any more: that generation leaves, too.
    Left,
}

/// The home's end: looks like a request that waits on its own core, until a core of the next generation has a credit for it.
pub struct Away {
    mail: Arc<Mail<FarEnds>>,
    portable: Option<Portable>,
    core: Rc<Core>,
    waits: PipeRx<Fault>,
    is_over: bool,
    _wanted: PipeTx<Never>,
}

impl Away {
    /// `pool` is its number there; the rest of `facts` stays what it is, its age before all.
    pub fn send(core: &Rc<Core>, ask: Arc<Ask>, facts: Facts, pool: PoolId) -> (Away, Adopted) {
        let mail = Arc::new(Mail::new());
        let (wanted_tx, wanted) = pipe(1);
        let (waits, waits_rx) = pipe(1);
        let what = FarAsk { ask, facts: Facts { pool, ..facts }, mail: mail.clone() };
        let (portable, core) = (None, core.clone());
        let away = Away { mail, portable, core, waits: waits_rx, is_over: false, _wanted: wanted_tx };
        (away, Adopted { what, wanted, waits })
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fetched> {
        let said = self.waits.poll_recv(cx, &self.core.home);
        // Looked at last: what was left for it was left before its keeper went.
        if let Poll::Ready(ends) = self.mail.poll_take(cx, &self.core.home, &mut self.portable) {
            self.is_over = true;
            return Poll::Ready(Fetched::Carried(FarBack::new(ends, &self.core)));
        }
        said.map(|said| said.map_or(Fetched::Left, Fetched::Refused))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if !self.is_over {
            self.mail.leave();
        }
    }
}

/// Waits here for a request whose client stays where it is. Its home counts it, in the books of the pool, which are these; and
/// its time.
pub async fn adopt(core: Rc<Core>, adopted: Adopted) {
    let Adopted { what, mut wanted, mut waits } = adopted;
    let FarAsk { ask, facts, mail } = &what;
    let _guest = core.guest();
    let place = core.shared.flows[usize::from(facts.pool.0)].line_up(facts.class);
    let mut waiting = core.wait(*facts, ask.clone());
    let (mut left, mut drained) = (core.leave.wait(), core.drain.wait());
    let looks = gate::has_to_look(&core, facts.pool, facts.needs);
    let mut timer = Timer::new();
    let look_again = |timer: &mut Timer| looks.then(|| timer.set(clock::now().plus_ms(GONE_LOOK_MS)));
    look_again(&mut timer);
    let got = std::future::poll_fn(|cx| {
        if let Poll::Ready(got) = waiting.poll(cx) {
            return Poll::Ready(Ok(Some(got)));
        }
        if left.poll(cx).is_ready() && core.has_successor() {
            return Poll::Ready(Ok(None));
        }
        let _ = drained.poll(cx); // a reason to look
        while looks && timer.poll_expired(cx).is_ready() {
            look_again(&mut timer);
        }
        if let Err(fault) = gate::may_wait(&core, facts.pool, facts.needs) {
            return Poll::Ready(Err(fault));
        }
        wanted.poll_recv(cx, &core.home).map(|_| Ok(None))
    })
    .await;
    drop((waiting, place));
    match got {
        Ok(Some(Got::Here(credit))) => serve_far(&core, &what, credit, Dispatch::CrossAwake).await,
        Ok(Some(Got::There(back))) => drop(mail.put(back.into_ends())),
        Ok(None) => {}
        Err(fault) => drop(waits.try_send(fault)), // its home may have gone
    }
}
