//! A client's request in the edge: to which pool, how long it waits and for what, over which link, and whether it is sent
//! again. Bytes are carried below; links and credits are its core's.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, Method};

use super::core::{Core, Counted, Credit, Got};
use super::far::{Away, FarBack, Fetched};
use super::gate;
use super::links::Visitor;
use super::log::record::{Course, Record, Routed, texts_of};
use super::over::{Terms, carry, send_over};
use super::priority::Classified;
use super::streams;
use crate::client::Service;
use crate::client::h2::TakenStream;
use crate::clock::{self, Now};
use crate::events::{Direction, Dispatch, Flood, LostLine, Requeue, StatusClass};
use crate::exchange::{
    Again, Answer, Ask, Carried, CarryBounds, Lost, Piece, Replay, Reply, RequestBody, Watch, Watched, flush,
};
use crate::fault::Fault;
use crate::ids::{Class, PoolId};
use crate::io::Timer;
use crate::limits::{GONE_LOOK_MS, READ_AHEAD_BYTES_MAX, RETRY_AFTER_S_MAX, RETRY_PAUSE_MS, TICK_MS};
use crate::sched::Facts;
use crate::wire::{self, ForwardedFor, RequestHead, Scheme, Told};
use crate::xcore::Held;

/// What serves one client connection.
pub struct EdgeService {
    pub core: Rc<Core>,
    /// Of whoever connected, or was introduced: a client, or a proxy.
    pub address: IpAddr,
    /// The same, with its port.
    pub peer_addr: SocketAddr,
    /// What it says about who asked is believed.
    pub is_trusted: bool,
    pub peer: ForwardedFor,
    /// False on an address for workers only.
    pub accepts_clients: bool,
    /// What is known of it if it is a worker.
    pub visitor: Visitor,
    /// Of the connection, which is a client's until it is turned; one whose streams are links is one yet.
    pub counted: Cell<Option<Counted>>,
    /// With TLS: the name that the connection was made for, empty where its client named none.
    pub server_name: Option<Box<str>>,
}

/// A request and where it belongs.
struct Request<'a> {
    ask: &'a mut HeldAsk,
    facts: Facts,
    /// When it began to wait, the first time; for the access log.
    queued: Option<Now>,
    /// How long it may wait for a link. The time that a worker had it does not count.
    until: Now,
    wish: Wish,
}

/// For how long its client would wait (`Prefer: wait`), looked at when it has to.
#[derive(Clone, Copy)]
enum Wish {
    Unread,
    Nothing,
    Seconds(u32),
}

impl Request<'_> {
    /// Its client's wish, if it has one, is a bound from now on. True: it has.
    fn heed(&mut self) -> bool {
        if let Wish::Unread = self.wish {
            self.wish = match wire::preferred_wait_s(&self.ask.headers) {
                Some(seconds) => {
                    self.until = self.until.min(self.facts.stamp.plus_ms(u64::from(seconds) * 1_000));
                    Wish::Seconds(seconds)
                }
                None => Wish::Nothing,
            };
        }
        matches!(self.wish, Wish::Seconds(_))
    }
}

/// A head that its client's task owns, until it waits and other cores may read it.
#[allow(clippy::large_enum_variant)] // the large one is the usual one, and lies in the task itself
enum HeldAsk {
    Own(Ask),
    Shared(Arc<Ask>),
    /// For the moment between the two.
    Moving,
}

impl HeldAsk {
    /// From now on other cores may hold it, too.
    fn share(&mut self) -> Arc<Ask> {
        let shared = match std::mem::replace(self, HeldAsk::Moving) {
            HeldAsk::Own(ask) => Arc::new(ask),
            HeldAsk::Shared(ask) => ask,
            HeldAsk::Moving => unreachable!("nobody else is here"),
        };
        *self = HeldAsk::Shared(shared.clone());
        shared
    }
}

impl Deref for HeldAsk {
    type Target = Ask;

    fn deref(&self) -> &Ask {
        match self {
            HeldAsk::Own(ask) => ask,
            HeldAsk::Shared(ask) => ask,
            HeldAsk::Moving => unreachable!("nobody else is here"),
        }
    }
}

/// Who carries it.
enum Granted {
    Here(Credit),
    /// A link of another core.
    There(Box<FarBack>),
}

impl Service for EdgeService {
    fn takes_over(&self, head: &RequestHead) -> bool {
        wire::is_setup(head)
            || (self.visitor.accepts_workers
                && wire::is_old_setup(head)
                && self.core.shared.register.now().has_legacy())
    }

    fn takes_stream(&self, protocol: &str) -> bool {
        wire::setup::is_stream_setup(protocol)
    }

    async fn take_stream(&self, stream: TakenStream) {
        streams::set_up(self.core.clone(), stream, &self.visitor, self.peer_addr, &self.counted).await;
    }

    fn serves_beside(&self, requests: usize) {
        Counted::change(&self.counted, |counted| counted.serves_beside(requests));
    }

    fn refused(&self, fault: Fault) {
        let mut counters = self.core.counters.borrow_mut();
        counters.unrouted.one(StatusClass::of(fault.status()));
        counters.refused(fault);
        drop(counters);
        let served = Err(fault);
        let now = if self.core.log.is_some() { clock::now() } else { Now::default() };
        let ended = Ended { ask: None, client: self.address, routed: None, stamp: now, served: &served, bytes: [0; 2] };
        self.log(&ended, &Course::default());
    }

    fn flooded(&self, kind: Flood) {
        self.core.counters.borrow_mut().core.client_floods.one(kind);
        tracing::debug!(
            client = %self.address.to_canonical(),
            ?kind,
            "a client's HTTP/2 connection was ended for too many frames"
        );
    }

    // No async fn: such a one keeps room for its arguments beside its variables, and every client's task is as large as that.
    fn serve(
        &self,
        mut ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        timer: &mut Timer,
    ) -> impl Future<Output = Result<(), Fault>> {
        let stamp = clock::now();
        let told = self.is_trusted.then(|| wire::told(&ask.headers, |hop| self.core.shared.config.trusts(hop)));
        let client = told.as_ref().and_then(Told::client).unwrap_or(self.address);
        // Two answers to who asked: then no rule about clients holds, least of all one about the proxy.
        let is_disputed = told.as_ref().is_some_and(|told| told.contradicts);
        // What a client claims about its own scheme counts for nothing. A proxy that ends TLS in front of us is believed: its
        // clients asked for an https origin. One that begins TLS behind clients without it makes no request an http one.
        ask.secure = self.server_name.is_some() || told.as_ref().is_some_and(|told| told.scheme == Some(Scheme::Https));
        let id = self.id_of(&ask.headers);
        answer.tells_id(id.clone());
        let routed = match self.route(&ask) {
            Ok(pool) => {
                let classified =
                    self.core.shared.classifiers[usize::from(pool.0)].classify(&ask, (!is_disputed).then_some(client));
                self.stamp_headers(&mut ask, told.as_ref(), &id, classified);
                let (needs, class) = (gate::needs_of(&ask), Class::of(classified.urgency));
                Ok((Facts { pool, class, needs, stamp }, classified.by))
            }
            Err(fault) => {
                // For its line in the access log, which has nothing of a client that is not what it says it is.
                ask.headers.insert(&wire::X_REQUEST_ID, id);
                wire::drop_malformed_trace(&mut ask.headers);
                Err(fault)
            }
        };
        let mut ask = HeldAsk::Own(ask);
        async move {
            let (facts, by) = match routed {
                Ok(routed) => routed,
                Err(fault) => {
                    let served = Err(fault);
                    let (ask, bytes) = (Some(&*ask), [0; 2]);
                    self.count(&Ended { ask, client, routed: None, stamp, served: &served, bytes }, &Course::default());
                    return Err(fault);
                }
            };
            let config = &self.core.shared.config.pools[usize::from(facts.pool.0)];
            let until = stamp.plus_ms(config.queue.wait_ms_max);
            let mut request = Request { ask: &mut ask, facts, queued: None, until, wish: Wish::Unread };
            let is_logged = self.core.log.is_some();
            let (shows, course) = (config.server_timing, Course::default());
            let watch = Timing { shows, queued_ns: 0, bytes: 0, is_logged, course };
            let mut answer = Watched { answer: &mut *answer, watch };
            let mut replay = Replay::new(body);
            let mut served = self.exchange(&mut request, &mut replay, &mut answer, timer).await;
            if served.is_ok()
                && let Err(fault) = flush(&mut answer, timer, self.core.shared.clocks.stall_ms).await
            {
                served = Err(fault);
            }
            let wish = request.wish;
            if let Err(fault) = served
                && fault.status() == 503
            {
                answer.tells_retry_after(self.retry_after_s(fault, facts, wish));
            }
            let Timing { bytes, mut course, .. } = answer.watch;
            course.left = request.queued.or(course.left);
            let routed = Some(Routed { pool: facts.pool, class: facts.class, by: Some(by) });
            let bytes = [replay.received_bytes(), bytes];
            self.count(&Ended { ask: Some(&*ask), client, routed, stamp, served: &served, bytes }, &course);
            served.map(|_| ())
        }
    }
}

impl EdgeService {
    fn route(&self, ask: &Ask) -> Result<PoolId, Fault> {
        if wire::setup::is_setup_target(ask.path.path()) {
            return Err(self.no_setup(&ask.method));
        }
        if !self.accepts_clients {
            return Err(Fault::NoPool);
        }
        gate::route(&self.core.shared, ask, self.server_name.as_deref())
    }

    /// For a request over HTTP/2 with a setup's target, where only CONNECT sets up (HTTP/1.1 has taken it over already). It may
    /// have a worker's credential with it, so no worker ever sees it. The answer is the one that HTTP/1.1 has for it.
    #[cold]
    fn no_setup(&self, method: &Method) -> Fault {
        match (self.visitor.accepts_workers, method) {
            (false, _) => Fault::NoPool,
            (true, &Method::GET) => Fault::SetupUpgradeRequired,
            (true, _) => Fault::SetupMethod,
        }
    }

    /// What the request is called: as a trusted proxy calls it, else by a new name.
    fn id_of(&self, headers: &HeaderMap) -> HeaderValue {
        let kept = if self.is_trusted { wire::kept_request_id(headers) } else { None };
        kept.unwrap_or_else(|| self.core.request_ids.borrow_mut().next_id())
    }

    /// What the worker learns about who asked. A client's own words on that are replaced.
    fn stamp_headers(&self, ask: &mut Ask, told: Option<&Told>, id: &HeaderValue, classified: Classified) {
        let forwarding = wire::Forwarding {
            peer: &self.peer,
            told,
            proto: if self.server_name.is_some() { "https" } else { "http" },
            host: ask.authority.as_ref().map_or("", |authority| authority.as_str()),
            urgency: classified.urgency,
            incremental: classified.incremental,
            version: ask.version,
            id,
        };
        wire::set_forwarding(&mut ask.headers, &forwarding);
    }

    /// Waits for a link, carries the request, and again if it was lost and may be.
    async fn exchange(
        &self,
        request: &mut Request<'_>,
        replay: &mut Replay<'_, impl RequestBody>,
        answer: &mut Watched<'_, impl Answer, Timing>,
        timer: &mut Timer,
    ) -> Result<Carried, Fault> {
        let core = &self.core;
        let pool = request.facts.pool;
        let retries_max = core.shared.config.pools[usize::from(pool.0)].retries_max;
        let terms = Terms::of(core, pool, request.ask);
        let (mut dispatches, mut losses) = (0, 0);
        loop {
            let (granted, now) = self.wait(request, replay, timer).await?;
            dispatches += 1;
            answer.watch.queued_ns = now.ns_since(request.facts.stamp);
            if answer.watch.is_logged {
                let course = &mut answer.watch.course;
                course.left.get_or_insert(now);
                (course.granted, course.attempts) = (Some(now), dispatches);
                course.grantor = match &granted {
                    Granted::Here(credit) => Some(core.grantor(credit, Dispatch::Local)),
                    Granted::There(back) => back.grantor.clone(),
                };
            }
            let carried = match granted {
                Granted::Here(credit) => {
                    core.count_dispatch(&credit, &request.facts, Dispatch::Local, now);
                    send_over(credit, core, request.ask, replay, answer, timer, terms, now).await
                }
                Granted::There(mut back) => {
                    // The worker's clock runs where the link is; the client's run here.
                    let bounds = CarryBounds { response_head_ms: 0, ..terms.bounds };
                    let terms = Terms { bounds, ..terms };
                    carry(request.ask, replay, answer, &mut *back, timer, terms, now).await
                }
            };
            let lost = match carried {
                Ok(carried) => return Ok(carried),
                Err(lost) => lost,
            };
            // What certainly did not run goes back as often as it has to.
            losses += u32::from(lost.again == Again::MayHaveRun);
            if answer.has_begun() || !may_repeat(lost, &request.ask.method, losses <= retries_max) {
                return Err(lost.fault);
            }
            if !replay.rewind() {
                return Err(if lost.again == Again::Untouched { Fault::NotProcessed } else { lost.fault });
            }
            if lost.again == Again::MayHaveRun {
                if losses > 1 {
                    self.hold_back(replay, timer).await?;
                }
                let ran_ms = clock::now().ms_since(now);
                request.until = request.until.plus_ms(ran_ms);
            }
            core.counters.borrow_mut().core.requeues.one(match lost {
                Lost { again: Again::Untouched, fault: Fault::NotProcessed } => Requeue::RefusedStream,
                Lost { again: Again::Untouched, .. } => Requeue::NotSent,
                Lost { .. } => Requeue::Retried,
            });
        }
    }

    /// What was lost twice with workers that had it was most likely lost in one fall of many: the rest of that is given time to show
    /// itself, or the request would be spent on it.
    #[cold]
    async fn hold_back<B: RequestBody>(&self, replay: &mut Replay<'_, B>, timer: &mut Timer) -> Result<(), Fault> {
        timer.set(clock::now().plus_ms(RETRY_PAUSE_MS));
        let passed = std::future::poll_fn(|cx| match timer.poll_expired(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => replay.body().poll_gone(cx).map(|()| Err(Fault::ClientGone)),
        });
        let passed = passed.await;
        timer.clear();
        passed
    }

    /// Until some link has a credit for the request, and the moment when it had. Its client may leave, its time may pass.
    async fn wait<B: RequestBody>(
        &self,
        request: &mut Request<'_>,
        replay: &mut Replay<'_, B>,
        timer: &mut Timer,
    ) -> Result<(Granted, Now), Fault> {
        // A worker may give it back as often as it likes, but not for longer than any request waits.
        if replay.was_told() && clock::now() >= request.until {
            return Err(Fault::WaitedTooLong);
        }
        match self.core.offer(request.facts) {
            // It was offered as it arrived: the clock need not be read again.
            Some(credit) if !replay.was_told() => Ok((Granted::Here(credit), request.facts.stamp)),
            Some(credit) => Ok((Granted::Here(credit), clock::now())),
            None => Ok((self.wait_long(request, replay, timer).await?, clock::now())),
        }
    }

    /// The queueing path: counted, bounded, and left as soon as nobody waits for the answer.
    #[cold]
    async fn wait_long<B: RequestBody>(
        &self,
        request: &mut Request<'_>,
        replay: &mut Replay<'_, B>,
        timer: &mut Timer,
    ) -> Result<Granted, Fault> {
        let core = &self.core;
        let Facts { pool, needs, .. } = request.facts;
        if core.log.is_some() && request.queued.is_none() {
            request.queued = Some(clock::now());
        }
        gate::may_wait(core, pool, needs)?;
        let queue = &core.shared.config.pools[usize::from(pool.0)].queue;
        let books = &core.shared.books[usize::from(pool.0)];
        let mut counted = gate::head_bytes(request.ask) + replay.held_bytes();
        let mut held = books.try_take(counted, queue.requests_max, queue.bytes_max);
        // In a full queue there is still a way for a request that only goes where a credit is idle, but it must be quick.
        let mut unbooked = None;
        if held.is_none() {
            if !core.is_idle_somewhere(pool, needs) {
                return Err(Fault::QueueFull);
            }
            unbooked = Some(core.unbooked().ok_or(Fault::QueueFull)?);
        }
        let place = core.shared.flows[usize::from(pool.0)].line_up(request.facts.class);
        let wishes = request.heed();
        let until = request.until;
        let would_wait_too_long = || {
            let is_idle = || core.is_idle_somewhere(pool, needs);
            let ns = core.wait_ns(pool, place.ahead());
            wishes && ns.is_some_and(|ns| clock::now().plus_ns(ns) > until) && !is_idle()
        };
        // Before anybody can take it.
        if would_wait_too_long() {
            return Err(Fault::WouldWaitTooLong);
        }
        let ask = request.ask.share();
        let mut waiting = core.wait(request.facts, ask);
        let mut drained = core.drain.wait();
        let mut left = core.leave.wait();
        // Most requests have nothing to look at while they wait: thousands of them would keep their core busy with looking.
        let mut looks = wishes || gate::has_to_look(core, pool, needs);
        timer.set(match (&held, looks) {
            (None, _) => until.min(clock::now().plus_ms(TICK_MS)),
            (Some(_), true) => until.min(clock::now().plus_ms(GONE_LOOK_MS)),
            (Some(_), false) => until,
        });
        let got = std::future::poll_fn(|cx| {
            if let Poll::Ready(got) = waiting.poll(cx) {
                return Poll::Ready(Ok(Some(got)));
            }
            if left.poll(cx).is_ready() && core.may_send_away(pool) {
                return Poll::Ready(Ok(None));
            }
            let _ = drained.poll(cx); // a reason to look
            if let Err(fault) = gate::may_wait(core, pool, needs) {
                return Poll::Ready(Err(fault));
            }
            while timer.poll_expired(cx).is_ready() {
                let now = clock::now();
                if now >= until {
                    return Poll::Ready(Err(Fault::WaitedTooLong));
                }
                if would_wait_too_long() {
                    return Poll::Ready(Err(Fault::WouldWaitTooLong));
                }
                if held.is_none() {
                    held = books.try_take(counted, queue.requests_max, queue.bytes_max);
                    if held.is_none() {
                        return Poll::Ready(Err(Fault::QueueFull));
                    }
                    unbooked = None;
                }
                timer.set(if looks { until.min(now.plus_ms(GONE_LOOK_MS)) } else { until });
            }
            if replay.body().poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Fault::ClientGone));
            }
            if !looks && held.is_some() && replay.body().read_ahead() >= READ_AHEAD_BYTES_MAX {
                looks = true; // no read is in flight that could tell that the client left
                timer.set(until.min(clock::now().plus_ms(GONE_LOOK_MS)));
            }
            let now_held = gate::head_bytes(request.ask) + replay.held_bytes();
            if now_held > counted {
                if held.as_mut().is_some_and(|held| !held.add_bytes(now_held - counted, queue.bytes_max)) {
                    return Poll::Ready(Err(Fault::QueueFull));
                }
                counted = now_held;
            }
            Poll::Pending
        })
        .await;
        timer.clear();
        match got? {
            Some(Got::Here(credit)) => Ok(Granted::Here(credit)),
            Some(Got::There(back)) => Ok(Granted::There(Box::new(back))),
            None => {
                drop((waiting, unbooked));
                let held = held.or_else(|| books.try_take(counted, queue.requests_max, queue.bytes_max));
                let held = held.ok_or(Fault::QueueFull)?;
                let away = Box::pin(self.wait_away(request, replay, timer, held)); // not room in every client's task
                Ok(Granted::There(Box::new(away.await?)))
            }
        }
    }

    /// Workers go over to the generation that has taken over, and so does what waits for them. It keeps its place in the books,
    /// which are that generation's, too: who has waited in bounds is not refused there.
    #[cold]
    async fn wait_away<B: RequestBody>(
        &self,
        request: &mut Request<'_>,
        replay: &mut Replay<'_, B>,
        timer: &mut Timer,
        held: Held,
    ) -> Result<FarBack, Fault> {
        let _held = held;
        let (core, until, pool) = (&self.core, request.until, request.facts.pool);
        let ask = request.ask.share();
        let mut away: Option<Away> = None;
        timer.set(until.min(clock::now().plus_ms(GONE_LOOK_MS)));
        let got = std::future::poll_fn(|cx| {
            loop {
                match away.as_mut().map(|away| away.poll(cx)) {
                    Some(Poll::Ready(Fetched::Carried(back))) => return Poll::Ready(Ok(back)),
                    Some(Poll::Ready(Fetched::Refused(fault))) => return Poll::Ready(Err(fault)),
                    // That one leaves, too, or has no room in its mailbox yet.
                    Some(Poll::Ready(Fetched::Left)) | None if !core.may_send_away(pool) => {
                        return Poll::Ready(Err(Fault::Draining));
                    }
                    Some(Poll::Ready(Fetched::Left)) | None => away = core.send_away(request.facts, ask.clone()),
                    Some(Poll::Pending) => break,
                }
                if away.is_none() {
                    timer.set(until.min(clock::now().plus_ms(TICK_MS)));
                    break;
                }
            }
            while timer.poll_expired(cx).is_ready() {
                let now = clock::now();
                if now >= until {
                    return Poll::Ready(Err(Fault::WaitedTooLong));
                }
                timer.set(until.min(now.plus_ms(if away.is_some() { GONE_LOOK_MS } else { TICK_MS })));
            }
            replay.body().poll_gone(cx).map(|()| Err(Fault::ClientGone))
        })
        .await;
        timer.clear();
        got
    }

    /// When a client that hears `fault` may ask again. Spread out, so that those who hear it together do not come together.
    #[cold]
    fn retry_after_s(&self, fault: Fault, facts: Facts, wish: Wish) -> u16 {
        let wait_ns = match fault {
            Fault::QueueFull | Fault::WaitedTooLong | Fault::WouldWaitTooLong => {
                let ahead = self.core.shared.flows[usize::from(facts.pool.0)].ahead_of(facts.class);
                self.core.wait_ns(facts.pool, ahead)
            }
            _ => None, // nobody knows when a worker comes, or memory is free
        };
        let wait_s = wait_ns.unwrap_or_default().div_ceil(1_000_000_000);
        let wait_s = match (fault, wish) {
            // Then its turn would come in the time that it gives.
            (Fault::WouldWaitTooLong, Wish::Seconds(seconds)) => wait_s.saturating_sub(u64::from(seconds)),
            _ => wait_s,
        };
        let least_s = wait_s.clamp(1, RETRY_AFTER_S_MAX);
        let spread_s = clock::now().0 / 1_000 % (least_s / 4 + 2); // microseconds are as good as chance here
        u16::try_from(least_s + spread_s).unwrap_or(u16::MAX)
    }

    /// One line and one count for each exchange, at its end.
    fn count(&self, ended: &Ended<'_>, course: &Course) {
        let mut counters = self.core.counters.borrow_mut();
        let status = StatusClass::of(ended.status());
        match ended.routed {
            Some(routed) => counters.pools[usize::from(routed.pool.0)].requests.one(routed.class, status),
            None => counters.unrouted.one(status),
        }
        let [up, down] = ended.bytes();
        counters.core.bytes.many(Direction::Request, up);
        counters.core.bytes.many(Direction::Response, down);
        if let Err(fault) = ended.served {
            counters.refused(*fault);
        }
        drop(counters);
        self.log(ended, course);
    }

    fn log(&self, ended: &Ended<'_>, course: &Course) {
        let Some(book) = &self.core.log else { return };
        let link = course.grantor.as_ref().and_then(|grantor| grantor.link.as_deref());
        let mut routed = ended.routed;
        if let (Some(routed), Some(grantor)) = (&mut routed, &course.grantor)
            && grantor.class != routed.class
        {
            (routed.class, routed.by) = (grantor.class, None);
        }
        let [bytes_up, bytes_down] = ended.bytes();
        let is_told = book.put(Record {
            core: self.core.id,
            client: ended.client.to_canonical(),
            received: ended.stamp,
            left: course.left,
            granted: course.granted,
            began: course.began,
            ended: clock::now(),
            routed,
            link: link.map(|link| (link.generation, link.core, link.link)),
            dispatch: course.grantor.as_ref().map(|grantor| grantor.kind),
            attempts: course.attempts,
            // What its client saw, also where something went wrong behind it.
            status: if course.status > 0 { course.status } else { ended.status() },
            fault: ended.served.err(),
            version: ended.ask.map(|ask| ask.version),
            is_secure: ended.ask.is_some_and(|ask| ask.secure),
            bytes_up,
            bytes_down,
            texts: texts_of(ended.ask, link, book.tells),
        });
        if !is_told {
            self.core.counters.borrow_mut().core.access_log_dropped_lines.one(LostLine::Slow);
        }
    }
}

/// An exchange at its end.
struct Ended<'a> {
    /// `None` where its head could not be read.
    ask: Option<&'a Ask>,
    client: IpAddr,
    routed: Option<Routed>,
    stamp: Now,
    served: &'a Result<Carried, Fault>,
    /// Of its bodies, up and down, as far as they were seen here.
    bytes: [u64; 2],
}

impl Ended<'_> {
    fn status(&self) -> u16 {
        self.served.map_or_else(|fault| fault.status(), |carried| carried.status.as_u16())
    }

    fn bytes(&self) -> [u64; 2] {
        self.served.map_or(self.bytes, |carried| [carried.bytes_up, carried.bytes_down])
    }
}

/// Tells the client how long its request waited for a link (`Server-Timing`), where its pool wants that; and notes what the access
/// log tells of a response.
struct Timing {
    shows: bool,
    queued_ns: u64,
    /// Of the body.
    bytes: u64,
    is_logged: bool,
    course: Course,
}

impl Watch for Timing {
    fn head(&mut self, reply: &mut Reply) {
        if self.shows {
            put_server_timing(&mut reply.headers, self.queued_ns);
        }
        if self.is_logged {
            (self.course.began, self.course.status) = (Some(clock::now()), reply.status.as_u16());
        }
    }

    fn piece(&mut self, piece: &Piece) {
        if let Piece::Data { bytes, .. } = piece {
            self.bytes += bytes.len() as u64;
        }
    }
}

/// A line of its own beside what the worker says there; milliseconds, to the microsecond.
#[cold]
fn put_server_timing(headers: &mut HeaderMap, queued_ns: u64) {
    let (ms, us) = (queued_ns / 1_000_000, queued_ns / 1_000 % 1_000);
    let value = HeaderValue::try_from(format!("queue;dur={ms}.{us:03}"));
    headers.append("server-timing", value.expect("digits and a word"));
}

/// RFC 9110 §9.2.2, and what the link knows.
fn may_repeat(lost: Lost, method: &Method, retries_left: bool) -> bool {
    match lost.again {
        Again::Untouched => true,
        Again::MayHaveRun => retries_left && method.is_idempotent(),
        Again::Never => false,
    }
}
