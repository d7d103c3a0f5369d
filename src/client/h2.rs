//! A connection on which HTTP/2 requests come in, many at once: streams out of the engine, a task for each, the clocks over
//! all of them, GOAWAY. What answers is a [`Service`]; HTTP/1.1 never enters.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::offer::Offering;
use super::watch::{Meter, Watch, Watched};
use super::{Clocks, Offer, Service};
use crate::clock::{self, Now};
use crate::events::Flood;
use crate::exchange::h2::{H2Sink, H2Source};
use crate::exchange::{
    Answer, Ask, FaultAnswer, Latch, Length, Piece, Reply, RequestBody, Sink, Source, Upgrade, fault_answer, flush,
    keepalive,
};
use crate::fault::Fault;
use crate::io::{self, Conn, Duplex, Leaves, Pulse, Timer};
use crate::limits::{
    CLIENT_FRAME_BYTES_MAX, CLIENT_GOODBYE_MS_MAX, CLIENT_LIST_BYTES_MAX, CLIENT_PING_MS, CLIENT_READS_BYTES_MIN,
    CLIENT_RESETS_KEPT, CLIENT_RESETS_PENDING_MAX, CLIENT_SEND_BYTES_MAX, CLIENT_SMALL_FRAMES_BYTES,
    CLIENT_WINDOW_BYTES, CONTENT_LENGTH_MAX, DISCARD_BYTES_MAX, EDGE_RESETS_PENDING_MAX, HEAD_BYTES_MAX,
    HEAD_FIELDS_MAX, HEADER_LIST_BYTES_MAX, HOARD_LOOK_MS, HOARD_MS_MAX, LINE_BYTES_MAX, LINK_FRAME_BYTES_MAX,
    LINK_LEAVE_MS, LINK_PING_MS, LOCAL_RESETS_MAX, SETUP_MS_MAX, SMALL_FRAMES_BYTES, STREAM_SEND_BYTES_MAX,
    STREAM_WINDOW_BYTES, TRAILER_BYTES_MAX, WORKER_CONCURRENCY_LIMIT,
};
use crate::wire::token::{decimal, is_field_name, is_token};
use crate::wire::trailer::may_be_trailer;
use crate::wire::{self, Side};
use crate::xcore::is_memory_tight;

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// All streams were answered; the peer or `drain` closed it.
    Cleanly,
    /// The peer did not answer a PING, broke the protocol, did too much of something, or the socket broke.
    Broken(String),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The edge that this worker has dialed: it has checked what its clients sent, and guards against them.
    Edge,
    Anybody,
}

/// What a connection may cost, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    peer: Peer,
    streams_max: u32,
    window_bytes: u32,
    frame_bytes_max: u32,
    list_bytes_max: u32,
    send_bytes_max: usize,
    small_frames_bytes: usize,
    resets_pending_max: usize,
    resets_kept: usize,
    ping_ms: u64,
    clocks: Clocks,
    /// To go when it was told to.
    goodbye_ms: u64,
}

impl Profile {
    /// A worker's link, on which it offers so many requests at once, for now.
    fn link(streams: u32) -> Profile {
        Profile {
            peer: Peer::Edge,
            // The engine refuses nothing: what it was told to announce at first would be its bound for all time, and an edge
            // may have sent what it had not been told not to. What is too much waits in the worker.
            streams_max: WORKER_CONCURRENCY_LIMIT as u32,
            window_bytes: link_window(streams),
            frame_bytes_max: LINK_FRAME_BYTES_MAX,
            // The largest head that an edge takes from its client, with what it adds, counted HTTP/2's way.
            list_bytes_max: HEADER_LIST_BYTES_MAX,
            send_bytes_max: STREAM_SEND_BYTES_MAX,
            small_frames_bytes: SMALL_FRAMES_BYTES,
            // Its clients may leave in a burst.
            resets_pending_max: EDGE_RESETS_PENDING_MAX,
            resets_kept: CLIENT_RESETS_KEPT,
            ping_ms: LINK_PING_MS,
            clocks: Clocks::USUAL,
            goodbye_ms: CLIENT_GOODBYE_MS_MAX,
        }
    }

    /// A client of the edge, whoever it is, with so many requests at once.
    #[must_use]
    pub fn client(streams_max: u32, clocks: Clocks) -> Profile {
        Profile {
            peer: Peer::Anybody,
            streams_max,
            window_bytes: CLIENT_WINDOW_BYTES,
            frame_bytes_max: CLIENT_FRAME_BYTES_MAX,
            list_bytes_max: CLIENT_LIST_BYTES_MAX,
            send_bytes_max: CLIENT_SEND_BYTES_MAX,
            small_frames_bytes: CLIENT_SMALL_FRAMES_BYTES,
            resets_pending_max: CLIENT_RESETS_PENDING_MAX,
            resets_kept: CLIENT_RESETS_KEPT,
            ping_ms: CLIENT_PING_MS,
            clocks,
            goodbye_ms: CLIENT_GOODBYE_MS_MAX,
        }
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(self.window_bytes)
            .max_frame_size(self.frame_bytes_max)
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(self.list_bytes_max)
            .max_pending_accept_reset_streams(self.resets_pending_max)
            .max_concurrent_reset_streams(self.resets_kept)
            .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
            .data_frame_budget(self.small_frames_bytes)
            .max_send_buffer_size(self.send_bytes_max)
            .enable_connect_protocol();
        builder
    }
}

/// What all requests of one connection share.
struct Shared<S> {
    service: Rc<S>,
    peer: Peer,
    /// Nothing of an answer is taken.
    stall_ms: u64,
    /// What is left of a body that nobody wants.
    discard_ms: u64,
    /// Requests whose task runs.
    running: Cell<usize>,
    /// Those of them that have left HTTP.
    taken: Cell<usize>,
    /// The client was told to go, and may not have heard it.
    may_ask: Cell<bool>,
    hosts: RefCell<KnownHosts>,
    watch: Rc<Watch>,
}

/// A stream that leaves HTTP, with the head that made it leave.
pub struct TakenStream {
    pub head: http::request::Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

/// Every stream's window at once: a body that nobody reads stops its own stream and no other.
fn link_window(streams: u32) -> u32 {
    STREAM_WINDOW_BYTES.saturating_mul(streams.max(1)).min((1 << 31) - 1)
}

/// Serves a client's connection to its end. `drain` sends GOAWAY and finishes what runs.
pub async fn serve<S: Service + 'static>(conn: Conn, service: Rc<S>, profile: Profile, drain: &Latch) -> Ended {
    let (pulse, watch) = (conn.pulse(), Rc::new(Watch::default()));
    let meter = Meter::new(clock::now());
    let watched = Watched::client(Duplex::new(conn, Leaves::Last).thrifty(), watch.clone(), meter);
    serve_watched(watched, pulse, watch, service, profile, None, drain).await
}

/// Serves a worker's link to its end, as [`serve`] does; it carries what `offer` says at any time. An edge that leaves is told
/// of to the service at once; its link ends when it is idle then.
/// `repeats` as in [`Offering::new`].
pub async fn serve_edge<S: Service + 'static>(
    conn: Conn,
    service: Rc<S>,
    offer: &Rc<Offer>,
    repeats: bool,
    drain: &Latch,
) -> Ended {
    let (pulse, watch) = (conn.pulse(), Rc::new(Watch::default()));
    let profile = Profile::link(offer.get());
    let watched = Watched::edge(Duplex::new(conn, Leaves::Last), watch.clone(), Offering::new(offer.clone(), repeats));
    serve_watched(watched, pulse, watch, service, profile, Some(offer), drain).await
}

async fn serve_watched<S: Service + 'static>(
    watched: Watched,
    pulse: Pulse,
    watch: Rc<Watch>,
    service: Rc<S>,
    profile: Profile,
    offer: Option<&Rc<Offer>>,
    drain: &Latch,
) -> Ended {
    let handshake = profile.builder().handshake::<_, Bytes>(watched);
    let mut connection = match io::timeout(SETUP_MS_MAX, handshake).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => return Ended::Broken(format!("HTTP/2 handshake: {error}")),
        None => return Ended::Broken("HTTP/2 handshake: no preface in time".into()),
    };
    let shared = Rc::new(Shared {
        service,
        peer: profile.peer,
        stall_ms: profile.clocks.stall_ms,
        discard_ms: profile.clocks.head_ms,
        running: Cell::new(0),
        taken: Cell::new(0),
        may_ask: Cell::new(false),
        hosts: RefCell::default(),
        watch,
    });
    let ended = drive(&mut connection, &pulse, &shared, &profile, offer, drain).await;
    drop(connection);
    ended
}

async fn drive<S: Service + 'static>(
    connection: &mut Connection<Watched, Bytes>,
    pulse: &Pulse,
    shared: &Rc<Shared<S>>,
    profile: &Profile,
    offer: Option<&Rc<Offer>>,
    drain: &Latch,
) -> Ended {
    let mut keepalive = pin!(keepalive(connection.ping_pong(), profile.ping_ms, || pulse.silent_ms()));
    let mut drained = drain.wait();
    let mut life = Life::new(profile);
    let watch = &*shared.watch;
    let mut window_bytes = profile.window_bytes;
    let mut was_told = false;
    std::future::poll_fn(|cx| {
        if life.stays() && drained.poll(cx).is_ready() {
            life.leave(connection, watch);
        }
        if let Some(offer) = offer {
            offer.listen(cx);
            let wanted = link_window(offer.get());
            if wanted > window_bytes {
                window_bytes = wanted;
                connection.set_target_window_size(wanted);
            }
        }
        loop {
            let accepted = connection.poll_accept(cx);
            if watch.peer_leaves() && !std::mem::replace(&mut was_told, true) {
                shared.service.peer_leaves();
            }
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if watch.flood().is_none() {
                        accept(shared, &life, request, respond);
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        shared.service.flooded(Flood::Engine);
                    }
                    return Poll::Ready(Ended::Broken(error.to_string()));
                }
                Poll::Ready(None) => return Poll::Ready(life.ended()),
                Poll::Pending => {}
            }
            if let (Some(kind), false) = (watch.flood(), life.is_shut()) {
                shared.service.flooded(kind);
                life.shut(connection, Reason::ENHANCE_YOUR_CALM, Some("a flood of frames"));
                continue; // the engine has something to say
            }
            let waits = watch.is_stuck() || (connection.has_streams() && shared.running.get() == 0);
            let seen = Seen { waits_for_reader: waits, is_idle: !connection.has_streams() };
            match life.poll(cx, &seen, watch, pulse) {
                Poll::Pending => break,
                Poll::Ready(Due::Goodbye) if !shared.service.may_go() => life.stays_idle(),
                Poll::Ready(Due::Goodbye) => life.leave(connection, watch),
                Poll::Ready(Due::Heard) => life.hears = None,
                Poll::Ready(Due::Idle) => life.shut(connection, Reason::NO_ERROR, None),
                Poll::Ready(Due::Head) => {
                    life.shut(connection, Reason::ENHANCE_YOUR_CALM, Some("a header block did not end in time"));
                }
                Poll::Ready(Due::Reader) => {
                    life.shut(connection, Reason::ENHANCE_YOUR_CALM, Some("the client does not read"));
                }
                Poll::Ready(Due::End) => return Poll::Ready(life.ended()),
            }
        }
        shared.may_ask(life.may_be_asked(watch));
        keepalive.as_mut().poll(cx).map(|()| Ended::Broken("the peer does not answer PING".into()))
    })
    .await
}

fn accept<S: Service + 'static>(
    shared: &Rc<Shared<S>>,
    life: &Life,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if life.has_waited_for_goodbye() {
        // It was told long ago that nothing new is served here; elsewhere it is (RFC 9113 §8.7).
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    io::spawn(serve_one(Running::new(shared), request, respond));
}

impl<S: Service> Shared<S> {
    /// Another number of requests is under way.
    fn tell(&self) {
        if self.taken.get() > 0 {
            let requests = self.running.get() - self.taken.get();
            self.service.serves_beside(requests + usize::from(self.may_ask.get()));
        }
    }

    fn may_ask(&self, may_ask: bool) {
        if self.may_ask.replace(may_ask) != may_ask {
            self.tell();
        }
    }
}

/// A request whose task runs.
struct Running<S: Service>(Rc<Shared<S>>);

impl<S: Service> Running<S> {
    fn new(shared: &Rc<Shared<S>>) -> Running<S> {
        shared.running.set(shared.running.get() + 1);
        shared.tell();
        Running(shared.clone())
    }
}

impl<S: Service> Drop for Running<S> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.tell();
    }
}

/// A stream that has left HTTP, as long as its task runs.
struct Taken<'a, S: Service>(&'a Shared<S>);

impl<S: Service> Taken<'_, S> {
    fn new(shared: &Shared<S>) -> Taken<'_, S> {
        shared.taken.set(shared.taken.get() + 1);
        shared.tell();
        Taken(shared)
    }
}

impl<S: Service> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.tell();
    }
}

// ---- the clocks of a connection ----

/// What a connection does next because its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It was idle for long enough: its client is told to go.
    Goodbye,
    /// Its client has heard by now that it is told to go, if it hears at all.
    Heard,
    /// Its client was told to go, and has nothing open, and stays.
    Idle,
    Head,
    Reader,
    /// It was shut, and what was said last was not taken.
    End,
}

/// What the engine says about a connection now.
struct Seen {
    /// All that is left to do is the client's: to read.
    waits_for_reader: bool,
    is_idle: bool,
}

/// ```text
/// Staying --drain, idle--> Leaving --idle, and its client does not go--> Shut --said, or not taken in time--> (over)
/// Staying, Leaving --flood, slow head, no reader--> Shut
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Staying,
    /// GOAWAY was sent; what runs is finished.
    Leaving {
        since: Now,
    },
    /// GOAWAY was sent; nothing runs any more.
    Shut {
        since: Now,
        why: Option<&'static str>,
    },
}

/// How far a client had read.
#[derive(Clone, Copy, Debug)]
struct Read {
    since: Now,
    /// When it is looked at next.
    look_at: Now,
    written: u64,
    unacknowledged: u64,
}

struct Life {
    /// `None`: the other end is an edge, which has its own; only PING watches it, and whether it stays idle after it said that
    /// it leaves.
    clocks: Option<Clocks>,
    goodbye_ms: u64,
    stage: Stage,
    /// Its client was told to go, and may not have heard it: it has until then, or answers the PING behind that word (another
    /// one's, if one was under way).
    hears: Option<Hears>,
    idle_since: Option<Now>,
    reader: Option<Read>,
    timer: Timer,
    armed: Option<Now>,
}

#[derive(Clone, Copy)]
struct Hears {
    by: Now,
    /// Of the client, before it was told.
    pongs: u32,
}

impl Life {
    fn new(profile: &Profile) -> Life {
        Life {
            clocks: (profile.peer == Peer::Anybody).then_some(profile.clocks),
            goodbye_ms: profile.goodbye_ms,
            stage: Stage::Staying,
            hears: None,
            idle_since: None,
            reader: None,
            timer: Timer::new(),
            armed: None,
        }
    }

    fn stays(&self) -> bool {
        self.stage == Stage::Staying
    }

    fn is_shut(&self) -> bool {
        matches!(self.stage, Stage::Shut { .. })
    }

    /// It was told to go, has had the time to hear it, and opens streams all the same.
    fn has_waited_for_goodbye(&self) -> bool {
        match (self.clocks, self.stage) {
            (Some(_), Stage::Leaving { since }) => clock::now() >= since.plus_ms(self.goodbye_ms),
            _ => false,
        }
    }

    /// A request may come that its client sent before it heard that it is told to go.
    fn may_be_asked(&mut self, watch: &Watch) -> bool {
        self.hears = self.hears.filter(|hears| hears.pongs == watch.pongs());
        self.hears.is_some()
    }

    fn leave(&mut self, connection: &mut Connection<Watched, Bytes>, watch: &Watch) {
        debug_assert!(self.stays());
        let since = clock::now();
        self.stage = Stage::Leaving { since };
        self.hears = self.clocks.map(|_| Hears { by: since.plus_ms(self.goodbye_ms), pongs: watch.pongs() });
        self.idle_since = None;
        connection.graceful_shutdown();
    }

    /// Its time to go has come, and it may not: it is looked at again after as long.
    fn stays_idle(&mut self) {
        self.idle_since = Some(clock::now());
    }

    fn shut(&mut self, connection: &mut Connection<Watched, Bytes>, reason: Reason, why: Option<&'static str>) {
        debug_assert!(!self.is_shut());
        self.stage = Stage::Shut { since: clock::now(), why };
        self.hears = None;
        connection.abrupt_shutdown(reason);
    }

    fn ended(&self) -> Ended {
        match self.stage {
            Stage::Shut { why: Some(why), .. } => Ended::Broken(why.into()),
            _ => Ended::Cleanly,
        }
    }

    /// Pending: nothing is due, and the task is woken when something is.
    fn poll(&mut self, cx: &mut Context<'_>, seen: &Seen, watch: &Watch, pulse: &Pulse) -> Poll<Due> {
        if self.clocks.is_none() && !watch.peer_leaves() {
            return Poll::Pending;
        }
        let stall_ms = self.clocks.map_or(0, |clocks| clocks.stall_ms);
        match (seen.is_idle, self.idle_since) {
            (true, None) => self.idle_since = Some(clock::now()),
            (false, Some(_)) => self.idle_since = None,
            _ => {}
        }
        match (seen.waits_for_reader, self.reader) {
            (true, None) => self.reader = Some(read(watch, pulse, stall_ms)),
            (false, Some(_)) => self.reader = None,
            _ => {}
        }
        loop {
            let Some((by, due)) = self.next(watch) else { return Poll::Pending };
            // Deadlines move away all the time; the timer is only set anew for an earlier one, and when it has expired.
            if self.armed.is_none_or(|armed| by < armed) {
                self.timer.set(by);
                self.armed = Some(by);
            }
            std::task::ready!(self.timer.poll_expired(cx));
            self.armed = None;
            if clock::now() < by {
                continue;
            }
            if due == Due::Reader && self.may_go_on(watch, pulse, stall_ms) {
                continue;
            }
            return Poll::Ready(due);
        }
    }

    /// What comes next, and when.
    fn next(&self, watch: &Watch) -> Option<(Now, Due)> {
        let Some(clocks) = self.clocks else {
            // An edge that leaves still sends what it has waiting; when it has nothing more, this link is the one to go.
            let idle_since = self.idle_since.filter(|_| self.stays());
            return idle_since.map(|since| (since.plus_ms(LINK_LEAVE_MS), Due::Goodbye));
        };
        let idle = match self.stage {
            Stage::Shut { since, .. } => return Some((since.plus_ms(self.goodbye_ms), Due::End)),
            Stage::Staying => self.idle_since.map(|since| (since.plus_ms(clocks.idle_ms), Due::Goodbye)),
            Stage::Leaving { .. } => self.idle_since.map(|since| (since.plus_ms(self.goodbye_ms), Due::Idle)),
        };
        let head = watch.block_since().map(|since| (since.plus_ms(clocks.head_ms), Due::Head));
        let reader = self.reader.filter(|_| clocks.stall_ms > 0);
        let reader = reader.map(|read| (read.look_at, Due::Reader));
        let heard = self.hears.map(|hears| (hears.by, Due::Heard));
        [idle, head, reader, heard].into_iter().flatten().min_by_key(|(by, _)| *by)
    }

    /// Whether the client has read something in the time that it has; little while memory is short.
    fn may_go_on(&mut self, watch: &Watch, pulse: &Pulse, stall_ms: u64) -> bool {
        let now = read(watch, pulse, stall_ms);
        let Some(before) = &mut self.reader else { return true };
        let is_written = now.written - before.written >= CLIENT_READS_BYTES_MIN;
        // The kernel's buffer empties for long before the socket takes more.
        if is_written || (watch.is_stuck() && now.unacknowledged < before.unacknowledged) {
            *before = now;
            return true;
        }
        before.look_at = now.look_at;
        let bound_ms = if is_memory_tight() { stall_ms.min(HOARD_MS_MAX) } else { stall_ms };
        now.since < before.since.plus_ms(bound_ms)
    }
}

fn read(watch: &Watch, pulse: &Pulse, stall_ms: u64) -> Read {
    let since = clock::now();
    let look_at = since.plus_ms(stall_ms.min(HOARD_LOOK_MS));
    Read { since, look_at, written: watch.written(), unacknowledged: pulse.unacknowledged() }
}

// ---- one request ----

async fn serve_one<S: Service>(running: Running<S>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let shared = &*running.0;
    let mut timer = Timer::new();
    let (head, stream) = request.into_parts();
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    if protocol.is_some_and(|protocol| shared.service.takes_stream(protocol.as_str())) {
        let _taken = Taken::new(shared);
        // Boxed: no request is to be as large as what this becomes.
        let taken = TakenStream { head, body: stream, respond };
        return Box::pin(shared.service.take_stream(taken)).await;
    }
    let is_head = head.method == Method::HEAD;
    let is_tunnel = head.extensions.get::<h2::ext::Protocol>().is_some();
    let send = Rc::new(RefCell::new(Send { respond, body: H2Sink::closed(Side::Response) }));
    let source = H2Source::new(stream, Side::Request);
    let ask = ask_of(head, source.has_ended_with_its_head(), shared.peer, &mut shared.hosts.borrow_mut());
    let mut body = H2Body { source: RefCell::new(source), send: send.clone() };
    let mut answer =
        H2Answer { watch: &shared.watch, send, is_head, is_tunnel, has_begun: false, id: None, retry_after_s: None };
    let fault = match ask {
        Ok(ask) => shared.service.serve(ask, &mut body, &mut answer, &mut timer).await.err(),
        Err(fault) => {
            shared.service.refused(fault);
            Some(fault)
        }
    };
    let is_answered = match fault {
        None => flush(&mut answer, &mut timer, shared.stall_ms).await.is_ok(), // what is left of it is reset
        Some(fault) => refuse(fault, &mut answer, shared, &mut timer).await,
    };
    if is_answered {
        discard(body.source.get_mut(), &mut timer, shared.discard_ms).await;
    }
}

/// Says what went wrong, by an answer or by a reset; true if it was an answer, and its client has it.
async fn refuse<S>(fault: Fault, answer: &mut H2Answer<'_>, shared: &Shared<S>, timer: &mut Timer) -> bool {
    {
        let mut send = answer.send.borrow_mut();
        let reset = match fault {
            _ if answer.has_begun => {
                send.body.reset(Reason::INTERNAL_ERROR);
                return false;
            }
            Fault::ClientGone => Some(Reason::CANCEL),
            // Certainly not processed: an edge may send it to another (RFC 9113 §8.7).
            Fault::NoWorker | Fault::Draining if shared.peer == Peer::Edge => Some(Reason::REFUSED_STREAM),
            _ => None,
        };
        if let Some(reason) = reset {
            send.respond.send_reset(reason);
            return false;
        }
    }
    let FaultAnswer { mut reply, body } = fault_answer(fault, answer.retry_after_s);
    wire::strip_hop_by_hop(&mut reply.headers); // a 426 has an Upgrade
    if answer.head(reply).is_err() {
        return false;
    }
    if answer.is_head {
        return true;
    }
    let put = answer.put(Piece::Data { bytes: body, last: true });
    put.is_ok() && flush(answer, timer, shared.stall_ms).await.is_ok()
}

/// Reads the rest of a body that nobody wanted, some of it and for a while: the engine resets the stream as soon as it is
/// dropped (RFC 9113 §8.1 allows it), and a client that has not read its answer by then may lose it (curl 7.88).
async fn discard(source: &mut H2Source, timer: &mut Timer, max_ms: u64) {
    if source.is_over() {
        return;
    }
    timer.set(clock::now().plus_ms(max_ms));
    let mut left = DISCARD_BYTES_MAX;
    std::future::poll_fn(|cx| {
        while let Poll::Ready(piece) = source.poll_piece(cx) {
            match piece {
                Ok(Piece::Data { bytes, last: false }) if bytes.len() <= left => left -= bytes.len(),
                _ => return Poll::Ready(()),
            }
        }
        timer.poll_expired(cx)
    })
    .await;
}

/// The head as it goes on. RFC 9113 §8.2, §8.3 and §8.5, RFC 8441 §4: what the engine does not check is checked here.
pub(crate) fn ask_of(
    head: http::request::Parts,
    has_no_body: bool,
    peer: Peer,
    hosts: &mut KnownHosts,
) -> Result<Ask, Fault> {
    let mut headers = head.headers;
    let uri = head.uri.into_parts();
    join_cookies(&mut headers);
    if peer == Peer::Anybody {
        check_fields(&headers)?;
    }
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let (method, upgrade) = match (head.method, protocol) {
        (Method::CONNECT, Some(protocol)) => (Method::GET, Some(upgrade_of(protocol, &mut headers)?)),
        (Method::CONNECT | Method::TRACE, None) => return Err(Fault::MethodRefused),
        (method, _) => (method, None),
    };
    let secure = match &uri.scheme {
        // The engine drops it where there is no :authority.
        None => false,
        Some(scheme) if scheme.as_str().eq_ignore_ascii_case("http") => false,
        Some(scheme) if scheme.as_str().eq_ignore_ascii_case("https") => true,
        Some(_) => return Err(Fault::ClientMalformed("a :scheme that is neither http nor https")),
    };
    let path = path_of(uri.path_and_query, &method)?;
    let authority = authority_of(uri.authority, secure, &mut headers, peer, hosts)?;
    wire::strip_hop_by_hop(&mut headers);
    let expects_continue = match headers.remove(EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Fault::UnknownExpectation),
    };
    let length = match (upgrade.is_some() || has_no_body, content_length(&mut headers)?) {
        (true, _) => Length::None,
        (false, None) => Length::Unknown,
        (false, Some(bytes)) => Length::Exact(bytes),
    };
    Ok(Ask {
        method,
        version: http::Version::HTTP_2,
        secure,
        authority,
        path,
        headers,
        length,
        expects_continue,
        upgrade,
    })
}

/// RFC 9113 §8.2.3: HTTP/1.1 knows one Cookie only.
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (all.next(), all.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(all).filter(|value| !value.is_empty()) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(Bytes::from(joined));
    headers.insert(COOKIE, joined.expect("what was a value with what was a value"));
}

/// The same bounds as over HTTP/1.1, and RFC 9113 §8.2.1: no space around a value.
fn check_fields(headers: &HeaderMap) -> Result<(), Fault> {
    let (mut fields, mut bytes) = (0, 0);
    for (name, value) in headers {
        if !is_field_name(name) {
            return Err(Fault::ClientMalformed("a field's name that is not a token"));
        }
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
            return Err(Fault::ClientMalformed("a space around a field's value"));
        }
        let line_bytes = name.as_str().len() + 2 + value.len();
        if line_bytes > LINE_BYTES_MAX {
            return Err(Fault::HeadTooLarge);
        }
        fields += 1;
        bytes += line_bytes + 2;
    }
    if fields > HEAD_FIELDS_MAX || bytes > HEAD_BYTES_MAX { Err(Fault::HeadTooLarge) } else { Ok(()) }
}

/// RFC 8441 §4. What is named becomes `Upgrade` before a link over HTTP/1.1, so it must be no way around this edge.
fn upgrade_of(protocol: &h2::ext::Protocol, headers: &mut HeaderMap) -> Result<Upgrade, Fault> {
    let name = protocol.as_str();
    // RFC 9110 §7.8: a name, and a version if there is one.
    let (kind, version) = name.split_once('/').map_or((name, None), |(kind, version)| (kind, Some(version)));
    let is_protocol = is_token(kind.as_bytes()) && version.is_none_or(|version| is_token(version.as_bytes()));
    if !is_protocol || kind.eq_ignore_ascii_case("h2c") {
        return Err(Fault::ClientMalformed("a :protocol that cannot be served"));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Fault::ClientMalformed("a tunnel with a Content-Length"));
    }
    // §5: neither key nor proof; a link that needs one makes its own.
    headers.remove("sec-websocket-key");
    let protocol = HeaderValue::from_str(name).map_err(|_| Fault::ClientMalformed("a :protocol that is no token"))?;
    Ok(Upgrade { protocol })
}

/// RFC 9113 §8.3.1, as strict as over HTTP/1.1.
fn path_of(path: Option<PathAndQuery>, method: &Method) -> Result<PathAndQuery, Fault> {
    let path = path.ok_or(Fault::ClientMalformed("no :path"))?;
    let text = path.as_str().as_bytes();
    if text.len() > LINE_BYTES_MAX {
        return Err(Fault::LineTooLong);
    }
    match text {
        b"*" if *method == Method::OPTIONS => Ok(path),
        [b'/', ..] if text.iter().all(u8::is_ascii_graphic) => Ok(path),
        _ => Err(Fault::ClientMalformed("a :path that does not begin with a slash, or with an odd character")),
    }
}

/// The host that was asked last on a connection, checked: it is the next request's, too.
#[derive(Default)]
pub(crate) struct KnownHosts(Option<KnownHost>);

struct KnownHost {
    /// As it came.
    text: Authority,
    secure: bool,
    /// In lower case (RFC 9110 §4.2.3).
    authority: Authority,
    host: HeaderValue,
}

/// RFC 9113 §8.3.1: `:authority`, or else Host; it goes on as Host. Where both are there they have to agree: a worker may
/// look at either.
fn authority_of(
    authority: Option<Authority>,
    secure: bool,
    headers: &mut HeaderMap,
    peer: Peer,
    known_hosts: &mut KnownHosts,
) -> Result<Option<Authority>, Fault> {
    let malformed = Fault::ClientMalformed;
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("more than one Host"));
    }
    let text = match (authority, host) {
        (Some(authority), None) => authority,
        (Some(authority), Some(host)) => {
            if authority.as_str().as_bytes() != host.as_bytes() {
                let scheme = if secure { wire::Scheme::Https } else { wire::Scheme::Http };
                let (asked, host) = (parse(authority.as_str().as_bytes())?, parse(host.as_bytes())?);
                if asked.host() != host.host() || asked.port_for(scheme) != host.port_for(scheme) {
                    return Err(malformed("an :authority and a Host that disagree"));
                }
            }
            authority
        }
        (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| malformed("a Host that is none"))?,
        (None, None) if peer == Peer::Edge => return Ok(None),
        (None, None) => return Err(malformed("neither :authority nor Host")),
    };
    let known = match &mut known_hosts.0 {
        Some(known) if known.text.as_str() == text.as_str() && known.secure == secure => known,
        known => {
            parse(text.as_str().as_bytes())?;
            let lower = text.as_str().to_ascii_lowercase();
            let host = HeaderValue::try_from(&lower).map_err(|_| malformed("a host that is no field value"))?;
            let authority = Authority::try_from(lower).map_err(|_| malformed("a host that is none"))?;
            known.insert(KnownHost { text, secure, authority, host })
        }
    };
    headers.insert(HOST, known.host.clone());
    Ok(Some(known.authority.clone()))
}

/// No userinfo, and nothing that no host has.
fn parse(text: &[u8]) -> Result<wire::Authority, Fault> {
    wire::Authority::parse(&Bytes::copy_from_slice(text)).map_err(Fault::ClientMalformed)
}

/// The engine has checked that all that are there agree, and holds the body to them. They go on as one, written as one writes
/// a number.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Fault> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let bytes = decimal(first.as_bytes()).filter(|bytes| *bytes <= CONTENT_LENGTH_MAX);
    let bytes = bytes.ok_or(Fault::ClientMalformed("an impossible Content-Length"))?;
    if all.next().is_some() || matches!(first.as_bytes(), [b'0', _, ..]) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(Some(bytes))
}

/// The send half, which the body also needs: a reset by the peer shows itself there.
struct Send {
    respond: SendResponse<Bytes>,
    body: H2Sink,
}

struct H2Body {
    source: RefCell<H2Source>,
    send: Rc<RefCell<Send>>,
}

impl Source for H2Body {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        match std::task::ready!(self.source.get_mut().poll_piece(cx)) {
            Ok(Piece::End { trailers: Some(trailers) }) => {
                let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
                if bytes > TRAILER_BYTES_MAX {
                    return Poll::Ready(Err(Fault::HeadTooLarge));
                }
                Poll::Ready(Ok(Piece::End { trailers: allowed(trailers) }))
            }
            piece => Poll::Ready(piece),
        }
    }
}

/// What may stand behind a body, and whether that is anything.
fn allowed(mut trailers: HeaderMap) -> Option<HeaderMap> {
    if !trailers.keys().all(may_be_trailer) {
        let never: Vec<_> = trailers.keys().filter(|name| !may_be_trailer(name)).cloned().collect();
        for name in never {
            trailers.remove(name);
        }
    }
    Some(trailers).filter(|trailers| !trailers.is_empty())
}

impl RequestBody for H2Body {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let send = &mut *self.send.borrow_mut();
        match send.body.stream() {
            Some(stream) => stream.poll_reset(cx).map(|_| ()),
            None => send.respond.poll_reset(cx).map(|_| ()),
        }
    }

    /// What the engine holds; bounded by the windows.
    fn read_ahead(&self) -> usize {
        self.source.borrow_mut().held_bytes()
    }

    fn go_raw(&mut self) {
        // An extended CONNECT's DATA is raw already (RFC 8441 §5).
    }
}

struct H2Answer<'a> {
    watch: &'a Watch,
    send: Rc<RefCell<Send>>,
    is_head: bool,
    /// An extended CONNECT: any 2xx says that the tunnel is there (RFC 8441 §5).
    is_tunnel: bool,
    has_begun: bool,
    /// What the request is called.
    id: Option<HeaderValue>,
    retry_after_s: Option<u16>,
}

impl Answer for H2Answer<'_> {
    fn moved(&self) -> Option<u64> {
        let taken = self.send.borrow().body.delivered().unwrap_or_default();
        Some(taken.wrapping_add(self.watch.written() / CLIENT_READS_BYTES_MIN)) // PONGs are no reading
    }

    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        self.send.borrow_mut().respond.send_informational(response).map_err(|_| Fault::ClientGone)
    }

    fn head(&mut self, mut reply: Reply) -> Result<(), Fault> {
        debug_assert!(!self.has_begun);
        // A server that answers an upgrade like any request has not switched, and HTTP/2 has no words for what it said.
        if self.is_tunnel && reply.status.is_success() {
            return Err(Fault::NoUpgrade);
        }
        self.has_begun = true;
        if let Some(id) = self.id.take() {
            reply.headers.insert(&wire::X_REQUEST_ID, id);
        }
        let (response, ends) = response_of(reply, self.is_head);
        let send = &mut *self.send.borrow_mut();
        let stream = send.respond.send_response(response, ends).map_err(|_| Fault::ClientGone)?;
        if !ends {
            send.body = H2Sink::new(stream, Side::Response);
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn tells_id(&mut self, id: HeaderValue) {
        self.id = Some(id);
    }

    fn tells_retry_after(&mut self, seconds: u16) {
        self.retry_after_s = Some(seconds);
    }
}

/// A response's head in HTTP/2's form, to a HEAD or to another method; and whether it is all of the response.
pub(crate) fn response_of(reply: Reply, is_head: bool) -> (Response<()>, bool) {
    let mut response = Response::new(());
    *response.headers_mut() = reply.headers;
    *response.status_mut() = reply.status;
    let mut ends = is_head || reply.length == Length::None || matches!(reply.status.as_u16(), 204 | 304);
    if reply.status == StatusCode::SWITCHING_PROTOCOLS {
        // The tunnel is the stream itself; there is no 101 in HTTP/2 (RFC 9113 §8.6).
        *response.status_mut() = StatusCode::OK;
        wire::strip_hop_by_hop(response.headers_mut());
        ends = false;
    }
    match reply.length {
        // RFC 9110 §8.6.
        _ if reply.status == StatusCode::NO_CONTENT => drop(response.headers_mut().remove(CONTENT_LENGTH)),
        Length::Exact(bytes) => drop(response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes))),
        Length::None | Length::Unknown => {}
    }
    (response, ends)
}

impl Sink for H2Answer<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.send.borrow_mut().body.poll_ready(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        let piece = match piece {
            Piece::End { trailers: Some(trailers) } => Piece::End { trailers: allowed(trailers) },
            piece => piece,
        };
        self.send.borrow_mut().body.put(piece)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.send.borrow_mut().body.poll_flush(cx)
    }

    fn delivered(&self) -> Option<u64> {
        self.send.borrow().body.delivered()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::limits::CLIENT_STREAMS_MAX;
    use crate::wire::frames::{HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};

    const HANG_MS: u64 = 30_000;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    const ENDS: u8 = 5; // the stream and the block
    /// GET, http, / of the static table, and an :authority (RFC 7541, appendix A).
    const BLOCK: &[u8] = b"\x82\x86\x84\x01\x01h";
    const CALM: u8 = 11;

    fn profile() -> Profile {
        let clocks = Clocks { idle_ms: 300, head_ms: 100, stall_ms: 100 };
        Profile { goodbye_ms: 100, ..Profile::client(CLIENT_STREAMS_MAX, clocks) }
    }

    /// Answers with so many bytes after so long, and tells what became of it.
    struct Serves {
        bytes: usize,
        after_ms: u64,
        told: Arc<Mutex<Told>>,
    }

    #[derive(Default)]
    struct Told {
        served: Vec<Result<(), Fault>>,
        floods: Vec<Flood>,
    }

    impl Service for Serves {
        async fn serve(
            &self,
            _: Ask,
            _: &mut impl RequestBody,
            answer: &mut impl Answer,
            timer: &mut Timer,
        ) -> Result<(), Fault> {
            io::sleep_ms(self.after_ms).await;
            answer.head(Reply { status: StatusCode::OK, headers: HeaderMap::new(), length: Length::Unknown })?;
            answer.put(Piece::Data { bytes: vec![b'x'; self.bytes].into(), last: true })?;
            let served = flush(answer, timer, 100).await;
            self.told.lock().unwrap().served.push(served);
            served
        }

        fn flooded(&self, kind: Flood) {
            self.told.lock().unwrap().floods.push(kind);
        }
    }

    /// One who writes and reads frames.
    struct Raw {
        stream: UnixStream,
        ended: mpsc::Receiver<()>,
        answers: bool,
    }

    impl Raw {
        fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            let bytes = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let frame = [&bytes[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
            let _ = self.stream.write_all(&frame); // an end is met by whoever reads
        }

        fn request(&mut self, stream: u32) {
            self.put(HEADERS, ENDS, stream, BLOCK);
        }

        /// All frames up to the end: kind, flags, payload.
        fn rest(&mut self) -> Vec<(u8, u8, Vec<u8>)> {
            let mut all = Vec::new();
            let mut head = [0; 9];
            while self.stream.read_exact(&mut head).is_ok() {
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                self.stream.read_exact(&mut payload).expect("no frame is cut");
                if self.answers && matches!(head[3], PING | SETTINGS) && head[4] & ACK == 0 {
                    let echo = if head[3] == PING { payload.clone() } else { Vec::new() };
                    self.put(head[3], ACK, 0, &echo);
                }
                all.push((head[3], head[4], payload));
            }
            all
        }
    }

    fn codes(frames: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
        frames.iter().filter(|(kind, ..)| *kind == GOAWAY).map(|(.., payload)| payload[7]).collect()
    }

    /// Serves a connection whose other end has sent its preface and `settings`, and then does as it likes.
    fn run(
        bytes: usize,
        after_ms: u64,
        settings: &'static [u8],
        client: impl FnOnce(&mut Raw) + std::marker::Send + 'static,
    ) -> (Ended, Told) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(Duration::from_millis(HANG_MS))).unwrap();
        let (ends, ended) = mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut raw = Raw { stream: far, ended, answers: true };
            raw.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            raw.put(SETTINGS, 0, 0, settings);
            client(&mut raw);
        });
        let told = Arc::new(Mutex::new(Told::default()));
        let tells = told.clone();
        let life = || async {
            let conn = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let drain = Latch::default();
            serve(conn, Rc::new(Serves { bytes, after_ms, told: tells }), profile(), &drain).await
        };
        // A core is a thread: a second one on this would find the first one's timers.
        let ended = std::thread::scope(|scope| {
            let core = scope.spawn(|| io::run(|| io::timeout(HANG_MS, life())).unwrap());
            core.join().unwrap().expect("it does not end")
        });
        drop(ends);
        client.join().unwrap();
        let told = std::mem::take(&mut *told.lock().unwrap());
        (ended, told)
    }

    #[test]
    fn a_client_that_asks_nothing_is_told_to_go_and_goes() {
        let (ended, _) = run(1, 0, b"", |client| assert_eq!(codes(&client.rest())[0], 0));
        assert!(matches!(ended, Ended::Cleanly), "{ended:?}");
        let (ended, told) = run(1, 0, b"", |client| {
            client.request(1);
            assert_eq!(codes(&client.rest())[0], 0, "it was served, and is idle again");
        });
        assert!(matches!(ended, Ended::Cleanly), "{ended:?}");
        assert_eq!(told.served, [Ok(())]);
    }

    #[test]
    fn a_client_that_does_not_listen_goes_all_the_same() {
        let (ended, _) = run(1, 0, b"", |client| {
            client.answers = false;
            client.rest();
        });
        assert!(matches!(ended, Ended::Cleanly), "{ended:?}");
    }

    #[test]
    fn a_request_that_takes_long_is_not_idle() {
        let (ended, told) = run(1, 500, b"", |client| {
            client.request(1);
            let frames = client.rest();
            let answer = frames.iter().position(|(kind, ..)| *kind == HEADERS).expect("an answer");
            let goaway = frames.iter().position(|(kind, ..)| *kind == GOAWAY).expect("a goodbye");
            assert!(answer < goaway, "{frames:?}");
        });
        assert!(matches!(ended, Ended::Cleanly), "{ended:?}");
        assert_eq!(told.served, [Ok(())]);
    }

    #[test]
    fn a_header_block_that_does_not_end_ends_its_connection() {
        let unfinished = |client: &mut Raw| {
            client.answers = false; // nothing else may stand in a block
            client.put(HEADERS, 1, 1, BLOCK);
        };
        let dripping = |client: &mut Raw| {
            let _ = client.stream.write_all(&[0, 0x40, 0, HEADERS, ENDS, 0, 0, 0, 1]);
            while client.ended.recv_timeout(Duration::from_millis(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = client.stream.write_all(b"\x82");
            }
        };
        let (ended, _) = run(1, 0, b"", move |client| {
            unfinished(client);
            assert_eq!(codes(&client.rest()), [CALM]);
        });
        assert!(matches!(&ended, Ended::Broken(why) if why.contains("header block")), "{ended:?}");
        let (ended, _) = run(1, 0, b"", move |client| {
            dripping(client);
            client.rest();
        });
        assert!(matches!(&ended, Ended::Broken(why) if why.contains("header block")), "{ended:?}");
    }

    #[test]
    fn a_hoarder_without_windows_loses_its_streams_and_then_its_connection() {
        // SETTINGS_INITIAL_WINDOW_SIZE 0
        let (ended, told) = run(1_000_000, 0, &[0, 4, 0, 0, 0, 0], |client| {
            for index in 0..CLIENT_STREAMS_MAX {
                client.request(2 * index + 1);
            }
            let frames = client.rest();
            let resets = frames.iter().filter(|(kind, ..)| *kind == RST_STREAM).count();
            assert_eq!(resets, CLIENT_STREAMS_MAX as usize);
            assert_eq!(codes(&frames)[0], 0, "nothing is left, so it is idle");
        });
        assert!(matches!(ended, Ended::Cleanly), "{ended:?}");
        assert_eq!(told.served, [Err(Fault::ClientGone); CLIENT_STREAMS_MAX as usize]);
    }

    #[test]
    fn a_client_that_opens_windows_and_does_not_read_loses_its_connection() {
        // Every answer fits into the engine, so no request waits any more; all of them together fit into no socket.
        let (ended, told) = run(60_000, 0, &[0, 4, 0, 1, 0, 0], |client| {
            client.put(WINDOW_UPDATE, 0, 0, &[0x3f, 0xff, 0xff, 0xff]);
            for index in 0..CLIENT_STREAMS_MAX {
                client.request(2 * index + 1);
            }
            let _ = client.ended.recv();
        });
        assert!(matches!(&ended, Ended::Broken(why) if why.contains("does not read")), "{ended:?}");
        assert_eq!(told.served, [Ok(()); CLIENT_STREAMS_MAX as usize]);
    }

    #[test]
    fn a_flood_is_told_by_its_kind_and_ends_the_connection() {
        let (ended, told) = run(1, 0, b"", |client| {
            for _ in 0..3_000 {
                client.put(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            }
            assert_eq!(codes(&client.rest()), [CALM]);
        });
        assert!(matches!(&ended, Ended::Broken(why) if why.contains("flood")), "{ended:?}");
        assert_eq!(told.floods, [Flood::Priority]);
    }
}
