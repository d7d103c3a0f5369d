//! Hot. One request over one link that has a credit for it. Whether it is tried again, and where, is decided above.

use std::rc::Rc;

use http::uri::Authority;

use super::core::{Core, Credit, Line};
use super::silence::Silence;
use crate::clock::{self, Now};
use crate::exchange::{
    Again, Answer, Ask, Back, Carried, Carry, CarryBounds, Lost, Replay, Reply, RequestBody, Watch, Watched,
};
use crate::fault::{Blame, Fault};
use crate::ids::{LinkId, PoolId};
use crate::io::{self, Timer};
use crate::limits::RESET_DELAY_MS;
use crate::link::h1::H1Back;
use crate::link::h2::H2Back;

/// On what terms one core carries an exchange.
#[derive(Clone, Copy)]
pub struct Terms {
    pub bounds: CarryBounds,
    /// This core answers the client's `Expect: 100-continue`.
    pub expects_continue: bool,
}

impl Terms {
    /// For the core that has both the client and the link.
    pub fn of(core: &Core, pool: PoolId, ask: &Ask) -> Terms {
        let pool = &core.shared.config.pools[usize::from(pool.0)];
        let limits = &core.shared.config.limits;
        let bounds = CarryBounds {
            response_head_ms: pool.response_head_ms_max,
            stall_ms: limits.body_stall_ms_max,
            body_rate_min: if is_paced_by_its_client(ask) { 0 } else { limits.body_rate_min },
        };
        Terms { bounds, expects_continue: ask.expects_continue }
    }
}

/// Its silences are the application's, and healthy: what was upgraded, extended CONNECT among it, speaks when it has
/// something to say, and so does a gRPC call, whose messages are a stream of their own.
fn is_paced_by_its_client(ask: &Ask) -> bool {
    let is_grpc = |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    ask.upgrade.is_some() || ask.headers.get(http::header::CONTENT_TYPE).is_some_and(is_grpc)
}

/// Sends `ask` over the link of `credit` and carries it to its end. `now` is the moment of its dispatch.
#[allow(clippy::too_many_arguments)] // each is somebody else's
pub async fn send_over<B: RequestBody, A: Answer>(
    credit: Credit,
    core: &Rc<Core>,
    ask: &Ask,
    body: &mut Replay<'_, B>,
    answer: &mut A,
    timer: &mut Timer,
    terms: Terms,
    now: Now,
) -> Result<Carried, Lost> {
    let untouched = Lost { fault: Fault::LinkLost, again: Again::Untouched };
    // A link that cannot take what it was granted is out of the game at once, or it would be granted again and again.
    let unusable = |lost: Lost| {
        if lost.again == Again::Untouched {
            core.link_drains(credit.link);
        }
        lost
    };
    let link = credit.link;
    let (line, silence) = core.line(link).ok_or(untouched)?;
    let speaks = terms.bounds.response_head_ms > 0;
    let watch = Listening { core, link, silence: &silence, speaks, state: State::Sending };
    let answer = &mut Watched { answer, watch };
    match line {
        Line::H2(mut send) => {
            let mut back = H2Back::send(&mut send, ask, nameless()).map_err(unusable)?;
            drop(send); // a link that ends must not wait for what it carries
            let carried = carry(ask, body, answer, &mut back, timer, terms, now).await;
            // Before its credit goes on: a link that turns out to be mute gets nothing more.
            answer.watch.ended(&carried);
            if let Err(lost) = carried
                && lost.fault.blame() == Blame::Client
            {
                give_up(back, credit, now);
            }
            carried
        }
        Line::H1(slot) => {
            let mut lent = slot.take().ok_or(untouched).map_err(unusable)?;
            let mut back = H1Back::new(lent.conn(), ask).hurrying();
            let carried = carry(ask, body, answer, &mut back, timer, terms, now).await;
            answer.watch.ended(&carried);
            if carried.is_ok() && back.is_reusable() {
                drop(back);
                lent.give_back();
            } else {
                core.link_drains(credit.link);
            }
            carried
        }
    }
}

/// What the link's silence hears of the way back.
struct Listening<'a> {
    core: &'a Rc<Core>,
    link: LinkId,
    silence: &'a Silence,
    /// Its pool does not wait for ever.
    speaks: bool,
    state: State,
}

/// ```text
/// Sending --request_is_up--> Asked --head, ended--> Over;   Sending --head, ended--> Over
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its client has not sent all of it.
    Sending,
    /// The worker is waited for.
    Asked,
    /// Answered, or ended without an answer.
    Over,
}

impl Listening<'_> {
    /// The exchange over this link has ended.
    fn ended(&mut self, carried: &Result<Carried, Lost>) {
        let before = std::mem::replace(&mut self.state, State::Over);
        if let (State::Asked, Err(lost)) = (before, carried) {
            self.ended_unanswered(lost.fault);
        }
    }

    /// Its client or its edge gave up. A link that broke, or a worker that refused, has said something.
    #[cold]
    fn ended_unanswered(&self, fault: Fault) {
        let gave_up = matches!(fault, Fault::ResponseTimeout | Fault::ClientGone);
        if self.silence.unanswered(clock::now(), gave_up) {
            self.core.link_mute(self.link);
        }
    }
}

impl Watch for Listening<'_> {
    fn request_is_up(&mut self, now: Now) {
        if self.speaks && self.state == State::Sending {
            self.state = State::Asked;
            self.silence.asked(now);
        }
    }

    fn head(&mut self, _: &mut Reply) {
        if std::mem::replace(&mut self.state, State::Over) == State::Asked {
            self.silence.answered();
        }
        if self.silence.is_over() {
            self.core.link_answers(self.link);
        }
    }
}

/// Ends a request that nobody wants any more, but not before its worker can have seen it. It holds its credit until then.
#[cold]
fn give_up(back: H2Back, credit: Credit, dispatched: Now) {
    if clock::now().ms_since(dispatched) < RESET_DELAY_MS {
        io::spawn(async move {
            io::sleep_ms(RESET_DELAY_MS).await;
            drop((back, credit));
        });
    }
}

/// Runs an exchange over a link of any kind.
#[allow(clippy::too_many_arguments)] // as above
pub async fn carry<B: RequestBody, A: Answer, L: Back>(
    ask: &Ask,
    body: &mut Replay<'_, B>,
    answer: &mut A,
    back: &mut L,
    timer: &mut Timer,
    terms: Terms,
    now: Now,
) -> Result<Carried, Lost> {
    Carry::new(ask.length, terms.expects_continue, terms.bounds).run(body, answer, back, timer, now).await
}

/// What stands in `:authority` for an HTTP/1.0 client that named no host; HTTP/2 wants one.
fn nameless() -> &'static Authority {
    static NAMELESS: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(|| Authority::from_static("localhost"));
    &NAMELESS
}
