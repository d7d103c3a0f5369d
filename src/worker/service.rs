//! A request in the worker: over a connection to the server behind it and back. The queue and the choice of a worker were
//! the edge's.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::task::Poll;

use http::header::{HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::config::Target;
use super::h2c::H2Pool;
use super::origin::{Dialer, Kept, Taken};
use super::places::Places;
use super::shares::Shares;
use super::tuner::Tuner;
use crate::client::Service;
use crate::clock;
use crate::exchange::{
    Again, Answer, Ask, Back, Carry, CarryBounds, Heard, Latch, Length, Lost, Replay, Reply, RequestBody, Watched,
    flush,
};
use crate::fault::Fault;
use crate::io::{self, Timer};
use crate::limits::{BODY_STALL_MS_MAX, ORIGIN_LOOK_MS, ORIGIN_RETRIES_MAX};
use crate::link::h1::H1Back;
use crate::link::h2::H2Back;
use crate::wire::ChannelVersion;

/// The response's head is the edge's to wait for: it knows the pool's patience. And its client is.
const BOUNDS: CarryBounds = CarryBounds { response_head_ms: 0, stall_ms: BODY_STALL_MS_MAX, body_rate_min: 0 };

/// What serves every request of every link.
pub struct WorkerService {
    dialer: Dialer,
    kept: Kept,
    /// Used instead where the server speaks HTTP/2.
    streams: Rc<H2Pool>,
    places: Rc<Places>,
    shares: Rc<Shares>,
    tuner: Rc<Tuner>,
    in_flight: Rc<Cell<usize>>,
}

impl WorkerService {
    /// The server sees at most as many requests at once as there are places. `in_flight` counts those that run, or wait for
    /// a place.
    pub fn new(
        dialer: Dialer,
        places: Rc<Places>,
        shares: Rc<Shares>,
        tuner: Rc<Tuner>,
        in_flight: Rc<Cell<usize>>,
    ) -> WorkerService {
        WorkerService { dialer, kept: Kept::default(), streams: Rc::default(), places, shares, tuner, in_flight }
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Closes what has grown old of the connections to the server, as long as the service is there.
    pub async fn reap(service: Weak<WorkerService>) {
        loop {
            io::sleep_ms(ORIGIN_LOOK_MS).await;
            let Some(service) = service.upgrade() else { return };
            service.kept.reap();
            service.streams.reap();
        }
    }
}

impl Drop for WorkerService {
    fn drop(&mut self) {
        self.streams.end();
    }
}

/// One link's view of it.
pub struct OverLink {
    service: Rc<WorkerService>,
    /// The edge said that it leaves.
    pub leaves: Latch,
    /// Another link has come in the place of this one.
    pub is_replaced: Cell<bool>,
    version: ChannelVersion,
}

impl OverLink {
    pub fn new(service: Rc<WorkerService>, version: ChannelVersion) -> OverLink {
        OverLink { service, leaves: Latch::default(), is_replaced: Cell::new(false), version }
    }
}

impl Service for OverLink {
    async fn serve(
        &self,
        ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Fault> {
        // It was sent before the edge could hear that nothing is offered; over HTTP/2 it goes back to the queue.
        if self.service.shares.is_paused() && self.version == ChannelVersion::H2 {
            return Err(Fault::NoWorker);
        }
        self.service.serve(ask, body, answer, timer).await
    }

    fn peer_leaves(&self) {
        self.leaves.set();
    }

    fn may_go(&self) -> bool {
        self.is_replaced.get()
    }
}

struct Running<'a>(&'a Cell<usize>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl WorkerService {
    async fn serve(
        &self,
        ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Fault> {
        self.in_flight.set(self.in_flight.get() + 1);
        let _running = Running(&self.in_flight);
        let mut take = self.places.take();
        let place = std::future::poll_fn(|cx| match take.poll(cx) {
            Poll::Ready(place) => Poll::Ready(Ok(place)),
            Poll::Pending => body.poll_gone(cx).map(|()| Err(Fault::ClientGone)),
        });
        let place = place.await?;
        let replay = Replay::new(body);
        let since = clock::now();
        let watch = |reply: &mut Reply| {
            // What fails may fail fast; that is no speed.
            if self.tuner.is_on() && !reply.status.is_server_error() {
                self.tuner.answered(since);
            }
        };
        let mut timed = Watched { answer: &mut *answer, watch };
        match self.dialer.target().speaks_h2() {
            true => self.over_h2(ask, replay, &mut timed, timer).await?,
            false => self.over_h1(&ask, replay, &mut timed, timer).await?,
        }
        drop(place); // the server is free for the next one
        flush(answer, timer, 0).await
    }

    /// Asks the server for `path`, over a connection of its own where it speaks HTTP/1.1, and says what it answered.
    pub async fn check(&self, path: &PathAndQuery) -> Result<StatusCode, String> {
        let target = self.dialer.target();
        let authority = target.authority();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(authority.as_str()).map_err(|error| error.to_string())?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("ptth/", env!("CARGO_PKG_VERSION"))));
        let ask = Ask {
            method: Method::GET,
            version: http::Version::HTTP_11,
            secure: matches!(target, Target::Https { .. }),
            authority: Some(authority),
            path: path.clone(),
            headers,
            length: Length::None,
            expects_continue: false,
            upgrade: None,
        };
        let heard = match target.speaks_h2() {
            true => {
                let mut place = self.streams.take(&self.dialer).await.map_err(|fault| fault.to_string())?;
                let back = H2Back::send(&mut place.send, &ask, nameless());
                final_status(&mut back.map_err(|lost| lost.fault.to_string())?).await
            }
            false => {
                let mut conn = self.dialer.connect().await?;
                final_status(&mut H1Back::new(&mut conn, &ask)).await
            }
        };
        heard.map_err(|lost| lost.fault.to_string())
    }

    async fn over_h1<B: RequestBody>(
        &self,
        ask: &Ask,
        mut replay: Replay<'_, B>,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Fault> {
        let mut taken = self.kept.take(&self.dialer).await?;
        loop {
            let was_used = taken.was_used;
            let mut back = H1Back::new(&mut taken.conn, ask);
            let carried = carry(ask, &mut replay, answer, &mut back, timer).await;
            let is_reusable = carried.is_ok() && back.is_reusable();
            drop(back);
            if is_reusable {
                self.kept.give_back(taken.conn);
            }
            let Err(lost) = carried else { return Ok(()) };
            // A server may close a kept connection at the moment we use it; a new one it cannot have.
            if !was_used || !may_repeat(lost, &ask.method) || answer.has_begun() || !replay.rewind() {
                return Err(lost.fault);
            }
            taken = Taken { conn: self.dialer.dial().await?, was_used: false };
        }
    }

    async fn over_h2<B: RequestBody>(
        &self,
        mut ask: Ask,
        mut replay: Replay<'_, B>,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Fault> {
        ask.secure = false; // what this connection is (RFC 9113 §8.3.1); the client's scheme is in X-Forwarded-Proto
        let mut retries = 0;
        loop {
            let mut place = self.streams.take(&self.dialer).await?;
            if ask.upgrade.is_some() && !place.carries_upgrades() {
                return Err(Fault::NoUpgrade);
            }
            let carried = match H2Back::send(&mut place.send, &ask, nameless()) {
                Ok(mut back) => carry(&ask, &mut replay, answer, &mut back, timer).await,
                Err(lost) => Err(lost),
            };
            let Err(lost) = carried else { return Ok(()) };
            retries += 1;
            let is_last = retries > ORIGIN_RETRIES_MAX;
            if is_last || !may_repeat(lost, &ask.method) || answer.has_begun() || !replay.rewind() {
                return Err(lost.fault);
            }
        }
    }
}

async fn final_status(back: &mut impl Back) -> Result<StatusCode, Lost> {
    loop {
        if let Heard::Final(reply) = std::future::poll_fn(|cx| back.poll_heard(cx)).await? {
            return Ok(reply.status);
        }
    }
}

async fn carry<B: RequestBody>(
    ask: &Ask,
    replay: &mut Replay<'_, B>,
    answer: &mut impl Answer,
    back: &mut impl Back,
    timer: &mut Timer,
) -> Result<(), Lost> {
    let carry = Carry::new(ask.length, ask.expects_continue, BOUNDS).sparing_client();
    carry.run(replay, answer, back, timer, clock::now()).await.map(|_| ())
}

/// What stands in `:authority` for a client that named no host; HTTP/2 wants one.
fn nameless() -> &'static Authority {
    static NAMELESS: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(|| Authority::from_static("localhost"));
    &NAMELESS
}

/// RFC 9112 §9.3.1: only what is safe to repeat, and only if nothing came back.
fn may_repeat(lost: Lost, method: &Method) -> bool {
    match lost.again {
        Again::Untouched => true,
        Again::MayHaveRun => method.is_idempotent(),
        Again::Never => false,
    }
}
