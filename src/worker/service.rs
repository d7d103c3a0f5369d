//! A request in the worker: over a connection to the server behind it and back. The queue and the choice of a worker were
//! the edge's.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;

use http::Method;
use http::uri::Authority;

use super::config::Target;
use super::h2c::H2Pool;
use super::origin::{Dialer, Kept, Taken};
use super::places::Places;
use crate::client::Service;
use crate::clock;
use crate::exchange::{Again, Answer, Ask, Back, Carry, CarryBounds, Lost, Replay, RequestBody, flush};
use crate::fault::Fault;
use crate::io::Timer;
use crate::limits::{BODY_STALL_MS_MAX, ORIGIN_RETRIES_MAX};
use crate::link::h1::H1Back;
use crate::link::h2::H2Back;

/// The response's head is the edge's to wait for: it knows the pool's patience. And its client is.
const BOUNDS: CarryBounds = CarryBounds { response_head_ms: 0, stall_ms: BODY_STALL_MS_MAX, body_rate_min: 0 };

/// What serves every request of every link.
pub struct WorkerService {
    dialer: Dialer,
    kept: Kept,
    /// Used instead where the server speaks HTTP/2.
    streams: Rc<H2Pool>,
    places: Places,
    in_flight: Cell<usize>,
}

impl WorkerService {
    /// The server sees at most `concurrency` requests at once.
    pub fn new(dialer: Dialer, concurrency: u32) -> WorkerService {
        WorkerService {
            dialer,
            kept: Kept::default(),
            streams: Rc::default(),
            places: Places::new(concurrency),
            in_flight: Cell::new(0),
        }
    }

    /// Closes what has grown old of the connections to the server. Runs as long as the worker.
    pub async fn reap(&self) {
        match self.dialer.target() {
            Target::H2c { .. } => self.streams.reap().await,
            _ => self.kept.reap().await,
        }
    }

    /// Requests that run now, or wait for a place.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }
}

struct Running<'a>(&'a Cell<usize>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Service for WorkerService {
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
        match self.dialer.target() {
            Target::H2c { .. } => self.over_h2(ask, replay, answer, timer).await?,
            _ => self.over_h1(&ask, replay, answer, timer).await?,
        }
        drop(place); // the server is free for the next one
        flush(answer, timer, 0).await
    }
}

impl WorkerService {
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
