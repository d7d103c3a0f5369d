//! A request in the worker: over a connection to the server behind it and back. The queue and the choice of a worker were
//! the edge's.

use std::cell::Cell;
use std::task::Poll;

use http::Method;

use super::origin::{Origin, Taken};
use super::places::Places;
use crate::client::Service;
use crate::clock;
use crate::exchange::{Again, Answer, Ask, Carry, CarryBounds, Lost, Replay, RequestBody, flush};
use crate::fault::Fault;
use crate::io::Timer;
use crate::limits::BODY_STALL_MS_MAX;
use crate::link::h1::H1Back;

/// The response's head is the edge's to wait for: it knows the pool's patience. And its client is.
const BOUNDS: CarryBounds = CarryBounds { response_head_ms: 0, stall_ms: BODY_STALL_MS_MAX, body_rate_min: 0 };

/// What serves every request of every link.
pub struct WorkerService {
    origin: Origin,
    places: Places,
    in_flight: Cell<usize>,
}

impl WorkerService {
    /// The server sees at most `concurrency` requests at once.
    pub fn new(origin: Origin, concurrency: u32) -> WorkerService {
        WorkerService { origin, places: Places::new(concurrency), in_flight: Cell::new(0) }
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
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
        let mut replay = Replay::new(body);
        let mut taken = self.origin.take().await?;
        loop {
            let was_used = taken.was_used;
            let lost = match self.over(taken, &ask, &mut replay, answer, timer).await {
                Ok(()) => break,
                Err(lost) => lost,
            };
            // A server may close a kept connection at the moment we use it; a new one it cannot have.
            if !was_used || !may_repeat(lost, &ask.method) || answer.has_begun() || !replay.rewind() {
                return Err(lost.fault);
            }
            taken = self.origin.dial().await?;
        }
        drop(place); // the server is free for the next one
        flush(answer, timer, 0).await
    }
}

impl WorkerService {
    async fn over<B: RequestBody>(
        &self,
        mut taken: Taken,
        ask: &Ask,
        replay: &mut Replay<'_, B>,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Lost> {
        let mut back = H1Back::new(&mut taken.conn, ask);
        let carry = Carry::new(ask.length, ask.expects_continue, BOUNDS).sparing_client();
        let carried = carry.run(replay, answer, &mut back, timer, clock::now()).await;
        let is_reusable = carried.is_ok() && back.is_reusable();
        drop(back);
        if is_reusable {
            self.origin.give_back(taken.conn);
        }
        carried.map(|_| ())
    }
}

/// RFC 9112 §9.3.1: only what is safe to repeat, and only if nothing came back.
fn may_repeat(lost: Lost, method: &Method) -> bool {
    match lost.again {
        Again::Untouched => true,
        Again::MayHaveRun => method.is_idempotent(),
        Again::Never => false,
    }
}
