//! A client's request in the edge: to which pool, how long it waits and for what, over which link, and whether it is sent
//! again. Bytes are carried below; links and credits are its core's.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;

use http::Method;

use super::core::{Core, Credit, Message, Offered, arrival};
use super::far::{FarBack, send_far};
use super::over::{carry, carry_bounds, send_over};
use crate::client::Service;
use crate::clock::{self, Now};
use crate::events::{Direction, Dispatch, Requeue, StatusClass};
use crate::exchange::{Again, Answer, Ask, Carried, CarryBounds, Lost, Replay, RequestBody};
use crate::fault::Fault;
use crate::ids::{CoreId, PoolId};
use crate::io::Timer;
use crate::limits::GONE_LOOK_MS;
use crate::sched::Needs;
use crate::wire::{self, ForwardedFor, RequestHead};
use crate::xcore::Held;

/// What serves one client connection.
pub struct EdgeService {
    pub core: Rc<Core>,
    pub peer: ForwardedFor,
    /// False on an address for workers only.
    pub accepts_clients: bool,
}

/// A request and where it belongs.
struct Request {
    ask: Ask,
    pool: PoolId,
    needs: Needs,
    /// Its arrival; its place in every queue that it ever waits in.
    stamp: Now,
    /// How long it may wait for a link. The time that a worker had it does not count.
    until: Cell<Now>,
}

/// Who carries it.
enum Granted {
    Here(Credit),
    /// A core that has links while ours has none.
    There(Box<FarBack>),
}

impl Service for EdgeService {
    fn takes_over(&self, head: &RequestHead) -> bool {
        wire::is_setup(head)
    }

    fn refused(&self, fault: Fault) {
        let mut counters = self.core.counters.borrow_mut();
        counters.unrouted.one(StatusClass::of(fault.status()));
        counters.refused(fault);
    }

    async fn serve(
        &self,
        mut ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<(), Fault> {
        let stamp = arrival();
        let pool = match self.route(&ask) {
            Ok(pool) => pool,
            Err(fault) => {
                self.count(&ask, None, stamp, &Err(fault));
                return Err(fault);
            }
        };
        self.stamp_headers(&mut ask);
        let needs = if ask.upgrade.is_some() { Needs::Upgrade } else { Needs::Any };
        let wait_ms_max = self.core.shared.config.pools[usize::from(pool.0)].queue.wait_ms_max;
        let until = Cell::new(stamp.plus_ms(wait_ms_max));
        let request = Request { ask, pool, needs, stamp, until };
        let served = self.exchange(&request, body, answer, timer).await;
        self.count(&request.ask, Some(pool), stamp, &served);
        served.map(|_| ())
    }
}

impl EdgeService {
    fn route(&self, ask: &Ask) -> Result<PoolId, Fault> {
        if !self.accepts_clients {
            return Err(Fault::NoPool);
        }
        let (host, port) = match &ask.authority {
            Some(authority) => (authority.host(), authority.port_u16()),
            None => ("", None),
        };
        let (scheme, default_port) = if ask.secure { ("https", 443) } else { ("http", 80) };
        let path = ask.path.path();
        let path = if path == "*" { "/" } else { path };
        self.core.shared.routes.route(scheme, host, port.unwrap_or(default_port), path).ok_or(Fault::NoPool)
    }

    /// What the worker learns about who asked. A client's own words on that are replaced.
    fn stamp_headers(&self, ask: &mut Ask) {
        let forwarding = wire::Forwarding {
            client: &self.peer,
            proto: if ask.secure { "https" } else { "http" },
            host: ask.authority.as_ref().map_or("", |authority| authority.as_str()),
            urgency: 3,
            version: ask.version,
        };
        wire::set_forwarding(&mut ask.headers, &forwarding);
    }

    /// Waits for a link, carries the request, and again if it was lost and may be.
    async fn exchange(
        &self,
        request: &Request,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> Result<Carried, Fault> {
        let core = &self.core;
        let retries_max = core.shared.config.pools[usize::from(request.pool.0)].retries_max;
        let bounds = carry_bounds(core, request.pool);
        let mut replay = Replay::new(body);
        let mut dispatches = 0;
        loop {
            let (granted, now) = self.wait(request, &mut replay, timer).await?;
            dispatches += 1;
            let carried = match granted {
                Granted::Here(credit) => {
                    self.count_dispatch(request, Dispatch::Local, now);
                    send_over(credit, core, &request.ask, &mut replay, answer, timer, bounds, now).await
                }
                Granted::There(mut back) => {
                    self.count_dispatch(request, Dispatch::Cross, now);
                    // The worker's clock runs where the link is; the client's runs here.
                    let bounds = CarryBounds { response_head_ms: 0, ..bounds };
                    carry(&request.ask, &mut replay, answer, &mut *back, timer, bounds, now).await
                }
            };
            let lost = match carried {
                Ok(carried) => return Ok(carried),
                Err(lost) => lost,
            };
            if answer.has_begun() || !may_repeat(lost, &request.ask.method, dispatches <= retries_max) {
                return Err(lost.fault);
            }
            if !replay.rewind() {
                return Err(if lost.again == Again::Untouched { Fault::NotProcessed } else { lost.fault });
            }
            if lost.again == Again::MayHaveRun {
                let ran_ms = clock::now().ms_since(now);
                request.until.set(request.until.get().plus_ms(ran_ms));
            }
            core.counters.borrow_mut().core.requeues.one(match lost {
                Lost { again: Again::Untouched, fault: Fault::NotProcessed } => Requeue::RefusedStream,
                Lost { again: Again::Untouched, .. } => Requeue::NotSent,
                Lost { .. } => Requeue::Retried,
            });
        }
    }

    /// Until some link has a credit for the request, and the moment when it had. Its client may leave, its time may pass.
    async fn wait<B: RequestBody>(
        &self,
        request: &Request,
        replay: &mut Replay<'_, B>,
        timer: &mut Timer,
    ) -> Result<(Granted, Now), Fault> {
        if replay.was_told() {
            // A worker may give it back as often as it likes, but not for longer than any request waits.
            if clock::now() >= request.until.get() {
                return Err(Fault::WaitedTooLong);
            }
        }
        match self.core.offer(request.pool, request.needs, request.stamp) {
            // It was offered as it arrived: the clock need not be read again.
            Offered::Granted(credit) if !replay.was_told() => Ok((Granted::Here(credit), request.stamp)),
            Offered::Granted(credit) => Ok((Granted::Here(credit), clock::now())),
            offered => Ok((self.wait_long(offered, request, replay, timer).await?, clock::now())),
        }
    }

    /// The queueing path: counted, bounded, and left as soon as nobody waits for the answer.
    #[cold]
    async fn wait_long<B: RequestBody>(
        &self,
        mut offered: Offered,
        request: &Request,
        replay: &mut Replay<'_, B>,
        timer: &mut Timer,
    ) -> Result<Granted, Fault> {
        let core = &self.core;
        let shared = &core.shared;
        let pool = &shared.config.pools[usize::from(request.pool.0)];
        let until = request.until.get();
        let bytes_max = pool.queue.bytes_max;
        let mut counted = head_bytes(&request.ask) + replay.held_bytes();
        let books = &shared.books[usize::from(request.pool.0)];
        let mut held: Option<Held> = None;
        let mut drained = core.drain.wait();
        loop {
            if !shared.board.any_links(request.pool) {
                if !pool.hold_without_workers {
                    return Err(Fault::NoWorker);
                }
                if core.drain.is_set() {
                    return Err(Fault::Draining);
                }
            }
            if held.is_none() {
                held = books.try_take(counted, pool.queue.requests_max, bytes_max);
                // In a full queue there is still a way for a request that only goes where a credit is idle.
                let passes =
                    matches!(offered, Offered::Elsewhere(_)) && core.better_core(request.pool, request.needs).is_some();
                if held.is_none() && !passes {
                    return Err(Fault::QueueFull);
                }
            }
            if matches!(offered, Offered::Waits(_))
                && request.needs == Needs::Upgrade
                && core.cannot_upgrade(request.pool)
            {
                return Err(Fault::NoUpgrade);
            }
            let mut far = match &offered {
                Offered::Granted(_) | Offered::Waits(_) => None,
                Offered::Elsewhere(there) => Some(self.send_to(*there, request)?),
            };
            timer.set(until.min(clock::now().plus_ms(GONE_LOOK_MS)));
            let ended = std::future::poll_fn(|cx| {
                let given = match (&mut offered, &mut far) {
                    (Offered::Waits(waiting), _) => waiting.poll(cx).map(Given::Here),
                    (_, Some(far)) => far.poll_granted(cx).map(Given::There),
                    (_, None) => Poll::Ready(Given::Now),
                };
                if let Poll::Ready(given) = given {
                    return Poll::Ready(Ok(given));
                }
                // What still has a link may be served; nobody comes for the others any more.
                if drained.poll(cx).is_ready() && !shared.board.any_links(request.pool) {
                    return Poll::Ready(Err(Fault::Draining));
                }
                while timer.poll_expired(cx).is_ready() {
                    let now = clock::now();
                    if now >= until {
                        return Poll::Ready(Err(Fault::WaitedTooLong));
                    }
                    timer.set(until.min(now.plus_ms(GONE_LOOK_MS)));
                    // In case that the word of a link elsewhere met a full mailbox.
                    core.links_changed(request.pool);
                    if request.needs == Needs::Upgrade && core.cannot_upgrade(request.pool) {
                        return Poll::Ready(Err(Fault::NoUpgrade));
                    }
                    if let (Offered::Waits(_), Some(there)) = (&offered, core.better_core(request.pool, request.needs))
                    {
                        return Poll::Ready(Ok(Given::Move(there)));
                    }
                }
                if replay.body().poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Fault::ClientGone));
                }
                let now_held = head_bytes(&request.ask) + replay.held_bytes();
                if now_held > counted {
                    if held.as_mut().is_some_and(|held| !held.add_bytes(now_held - counted, bytes_max)) {
                        return Poll::Ready(Err(Fault::QueueFull));
                    }
                    counted = now_held;
                }
                Poll::Pending
            })
            .await;
            timer.clear();
            match ended? {
                Given::Now => {}
                Given::Move(there) => {
                    offered = Offered::Elsewhere(there);
                    continue;
                }
                Given::Here(Some(credit)) => offered = Offered::Granted(credit),
                // It has to move, or the other core lost its links: look again from the start, with the old stamp.
                Given::There(Err(Lost { fault, again: Again::Never })) => return Err(fault),
                Given::Here(None) | Given::There(Err(_)) => {
                    offered = core.offer(request.pool, request.needs, request.stamp);
                    continue;
                }
                Given::There(Ok(())) => {
                    if let Some(far) = far {
                        return Ok(Granted::There(far));
                    }
                }
            }
            if let Offered::Granted(credit) = offered {
                return Ok(Granted::Here(credit));
            }
        }
    }

    /// Hands the request to another core.
    fn send_to(&self, there: CoreId, request: &Request) -> Result<Box<FarBack>, Fault> {
        let core = &self.core;
        let (far, back) = send_far(core, request.ask.clone(), request.pool, request.needs, request.stamp);
        let post = &core.shared.posts[usize::from(there.0)];
        match post.send(Message::Far(Box::new(far))) {
            Ok(()) => Ok(Box::new(back)),
            Err(_) => Err(Fault::QueueFull),
        }
    }

    fn count_dispatch(&self, request: &Request, kind: Dispatch, now: Now) {
        let mut counters = self.core.counters.borrow_mut();
        let pool = &mut counters.pools[usize::from(request.pool.0)];
        pool.dispatches.one(kind);
        pool.queue_wait.observe_ns(now.ns_since(request.stamp));
    }

    /// One line and one count for each exchange, at its end.
    fn count(&self, ask: &Ask, pool: Option<PoolId>, stamp: Now, served: &Result<Carried, Fault>) {
        let status = served.map_or_else(|fault| fault.status(), |carried| carried.status.as_u16());
        let mut counters = self.core.counters.borrow_mut();
        let class = StatusClass::of(status);
        match pool {
            Some(pool) => counters.pools[usize::from(pool.0)].requests.one(class),
            None => counters.unrouted.one(class),
        }
        match served {
            Ok(carried) => {
                counters.core.bytes.many(Direction::Request, carried.bytes_up);
                counters.core.bytes.many(Direction::Response, carried.bytes_down);
            }
            Err(fault) => counters.refused(*fault),
        }
        drop(counters);
        tracing::debug!(
            target: "ptth::exchange",
            client = self.peer.address(),
            method = %ask.method,
            authority = ask.authority.as_ref().map_or("", |authority| authority.as_str()),
            path = %ask.path.path(),
            status,
            fault = served.as_ref().err().map(|fault| fault.detail()),
            ms = clock::now().ms_since(stamp),
            "answered"
        );
    }
}

enum Given {
    Now,
    /// It has waited for a while, and this core has an idle credit.
    Move(CoreId),
    Here(Option<Credit>),
    There(Result<(), Lost>),
}

/// RFC 9110 §9.2.2, and what the link knows.
fn may_repeat(lost: Lost, method: &Method, retries_left: bool) -> bool {
    match lost.again {
        Again::Untouched => true,
        Again::MayHaveRun => retries_left && method.is_idempotent(),
        Again::Never => false,
    }
}

/// What a waiting head holds, about.
fn head_bytes(ask: &Ask) -> usize {
    let fields: usize = ask.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    ask.path.as_str().len() + fields
}
