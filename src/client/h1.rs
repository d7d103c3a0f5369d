//! A connection on which HTTP/1.1 requests come in, one after the other: heads in, answers out, keep-alive, the timers
//! between them. What answers is a [`Service`]; which bytes are a head is `wire`'s.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::{EXPECT, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{Clocks, Service};
use crate::clock::{self, Now};
use crate::exchange::h1::{Frame, H1Sink, H1Source};
use crate::exchange::{
    Answer, Ask, FaultAnswer, Latch, LatchWait, Length, Piece, Reply, RequestBody, Sink, Source, Upgrade, fault_answer,
    flush,
};
use crate::fault::Fault;
use crate::io::{Conn, Timer, Writer};
use crate::limits::{DISCARD_BYTES_MAX, PARK_MS};
use crate::wire::{self, BodyPlan, Framing, HeadScan, Persistence, RequestHead, Side, Version};

/// How a connection left this room.
pub enum Ended {
    /// It is closed, or about to be.
    Closed,
    /// [`Service::takes_over`] wants it: the head was read, nothing was answered.
    TakenOver(Box<TakenOver>),
}

/// A connection that leaves HTTP, with the head that made it leave.
pub struct TakenOver {
    pub conn: Conn,
    pub head: RequestHead,
    pub timer: Timer,
}

/// Serves a connection to its end. Once `drain` is announced, the next answer is the last one; once it is set, a connection
/// without a request ends at once, and one that comes later still gets an answer to what it has sent already.
///
/// ```text
/// Idle --first byte--> Head --blank line--> Request --answered--> Idle
/// Idle --for a while--> Parked --first byte--> Head
/// Idle, Parked --peer ends, idle too long, drain--> closed
/// Head --malformed, too slow--> answered, closed
/// Request --not reusable--> closed;  --fault after the answer began--> cut
/// ```
pub async fn serve<S: Service>(mut conn: Box<Conn>, service: &S, drain: &Latch, clocks: &Clocks) -> Ended {
    // Out of a listener's backlog: nobody has read what it sent, and a close would look like a crash. With TLS its handshake has
    // just ended, and its request is on its way.
    let mut speaks = drain.is_set() && (conn.is_secure() || !conn.is_silent());
    let mut idle_by = None;
    loop {
        // Boxed: a request takes kilobytes, and most connections are idle.
        let by = match Box::pin(serve_while_busy(conn, speaks, idle_by, service, drain, clocks)).await {
            Busy::Over(ended) => return ended,
            Busy::Parked(parked, by) => {
                conn = parked;
                by
            }
        };
        match parked(&conn, by, drain).await {
            Next::Speaks => (speaks, idle_by) = (drain.is_set(), Some(by)),
            Next::Ends => {
                Box::pin(conn.close()).await;
                return Ended::Closed;
            }
        }
    }
}

/// How a connection stopped being busy.
enum Busy {
    Over(Ended),
    /// It asks nothing, and holds no buffer; and when that has been long enough.
    Parked(Box<Conn>, Now),
}

/// Serves a connection until it is over or has been idle for `PARK_MS`. `speaks`: its first request is on its way, drain or not.
/// `idle_by`: when it has been idle for too long, if it is so already.
async fn serve_while_busy<S: Service>(
    mut conn: Box<Conn>,
    mut speaks: bool,
    mut idle_by: Option<Now>,
    service: &S,
    drain: &Latch,
    clocks: &Clocks,
) -> Busy {
    let mut timer = Timer::new();
    let mut scan = HeadScan::request();
    let mut hosts = LastHost::default();
    let mut drained = drain.wait();
    loop {
        let until = if std::mem::take(&mut speaks) { None } else { Some(&mut drained) };
        let head = match read_head(&mut conn, &mut scan, &mut timer, until, &mut idle_by, clocks).await {
            Ok(Heading::Head(head)) => head,
            Ok(Heading::End) => break,
            Ok(Heading::Idle(by)) => {
                // Empty lines behind the last request are all that is there: anything else would begin a head.
                let bytes = conn.reader.buffer().len();
                conn.reader.consume(bytes);
                match conn.park().await {
                    Ok(true) => return Busy::Parked(conn, by),
                    Ok(false) => {}
                    Err(_) => break,
                }
                continue;
            }
            Err(Refused { fault, is_head }) => {
                service.refused(fault);
                refuse(&mut conn.writer, fault, is_head, &mut timer, clocks).await;
                break;
            }
        };
        if service.takes_over(&head) {
            return Busy::Over(Ended::TakenOver(Box::new(TakenOver { conn: *conn, head, timer })));
        }
        if !head.keep_alive {
            service.peer_leaves();
        }
        match serve_one(&mut conn, head, &mut hosts, service, drain, &mut timer, clocks).await {
            After::Next => idle_by = None,
            After::Close => break,
            After::Cut => {
                conn.abort();
                return Busy::Over(Ended::Closed);
            }
        }
    }
    conn.close().await;
    Busy::Over(Ended::Closed)
}

/// What ends a connection's rest.
enum Next {
    /// Something has arrived, or its peer has ended.
    Speaks,
    Ends,
}

/// Waits for the next request of a connection that rests, until `by` at the latest.
async fn parked(conn: &Conn, by: Now, drain: &Latch) -> Next {
    let mut drained = drain.wait();
    let mut readable = pin!(conn.readable());
    let mut timer = Timer::new();
    timer.set(by);
    std::future::poll_fn(|cx| {
        if readable.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::Speaks);
        }
        if drained.poll(cx).is_ready() {
            // What has come in this moment is answered.
            return Poll::Ready(if conn.is_silent() { Next::Ends } else { Next::Speaks });
        }
        timer.poll_expired(cx).map(|()| Next::Ends)
    })
    .await
}

/// A head that did not become a request.
struct Refused {
    fault: Fault,
    /// Its method could be read, and is HEAD.
    is_head: bool,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused { fault, is_head: false }
    }
}

/// Writes the answer to `fault` on a connection that closes after it. Used for setups too. The answer to a HEAD has no body
/// (RFC 9110 §9.3.2): whoever asked would take it for the next answer.
pub async fn refuse(writer: &mut Writer, fault: Fault, is_head: bool, timer: &mut Timer, clocks: &Clocks) {
    if fault == Fault::ClientGone {
        return;
    }
    let FaultAnswer { reply, body } = fault_answer(fault, None);
    let framing = Framing::ContentLength(body.len() as u64);
    let persistence = match reply.headers.get(UPGRADE) {
        Some(protocol) => Persistence::UpgradeNext(protocol), // a 426
        None => Persistence::Close,
    };
    wire::put_response_head(writer.buf(), reply.status, &reply.headers, framing, persistence);
    if !is_head {
        writer.put_bytes(body);
    }
    // A peer that is gone needs no answer.
    let _ = flush(&mut H1Sink::new(writer, Frame::Nothing, Side::Response), timer, clocks.stall_ms).await;
}

/// What [`read_head`] found.
#[allow(clippy::large_enum_variant)] // nearly always the largest
enum Heading {
    Head(RequestHead),
    /// The connection ends between two requests, or `until` was set there.
    End,
    /// Nothing came for `PARK_MS`, and nothing has to before this moment.
    Idle(Now),
}

/// The next head. Without `until` something has arrived. `idle_by` is when the connection has been idle for too long; it is found
/// here where it is not known yet.
async fn read_head(
    conn: &mut Conn,
    scan: &mut HeadScan,
    timer: &mut Timer,
    mut until: Option<&mut LatchWait<'_>>,
    idle_by: &mut Option<Now>,
    clocks: &Clocks,
) -> Result<Heading, Refused> {
    scan.reset();
    let mut is_idle = true;
    let mut is_armed = false;
    std::future::poll_fn(move |cx| {
        loop {
            let input = conn.reader.buffer();
            if let Some(range) = scan.scan(input)? {
                conn.reader.consume(range.start);
                let head = conn.reader.take(range.len());
                timer.clear();
                let is_head = head.starts_with(b"HEAD ");
                let parsed = wire::parse_request(head).map(Heading::Head);
                return Poll::Ready(parsed.map_err(|fault| Refused { fault, is_head }));
            }
            // An empty line behind the last request is no head yet (RFC 9112 §2.2).
            if is_idle && scan.has_begun() {
                is_idle = false;
                is_armed = false;
            }
            if !is_armed {
                let now = clock::now();
                timer.set(match is_idle && until.is_some() {
                    true => now.plus_ms(PARK_MS).min(*idle_by.get_or_insert(now.plus_ms(clocks.idle_ms))),
                    false => now.plus_ms(clocks.head_ms),
                });
                is_armed = true;
            }
            match conn.reader.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Heading::End)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    if is_idle && until.as_mut().is_some_and(|until| until.poll(cx).is_ready()) {
                        return Poll::Ready(Ok(Heading::End));
                    }
                    std::task::ready!(timer.poll_expired(cx));
                    let rests = until.as_ref().and(*idle_by).filter(|by| *by > clock::now());
                    return Poll::Ready(match (is_idle, rests) {
                        (true, Some(by)) => Ok(Heading::Idle(by)),
                        (true, None) => Ok(Heading::End),
                        (false, _) => Err(Fault::HeadTimeout.into()),
                    });
                }
            }
        }
    })
    .await
}

enum After {
    Next,
    Close,
    /// The answer broke in its middle; the peer must not take it for complete.
    Cut,
}

async fn serve_one<S: Service>(
    conn: &mut Conn,
    head: RequestHead,
    hosts: &mut LastHost,
    service: &S,
    drain: &Latch,
    timer: &mut Timer,
    clocks: &Clocks,
) -> After {
    let Conn { reader, writer, .. } = conn;
    let plan = head.body;
    let mut answer = H1Answer {
        sink: H1Sink::new(writer, Frame::Nothing, Side::Response),
        version: head.version,
        is_head: head.method == Method::HEAD,
        keeps_alive: head.keep_alive,
        owes_continue: head.expect_continue && plan != BodyPlan::Empty,
        has_begun: false,
        id: None,
        retry_after_s: None,
        drain,
    };
    let mut body = H1Body { source: H1Source::new(reader, plan, Side::Request) };
    let served = service.serve(ask_of(head, hosts), &mut body, &mut answer, timer).await;
    if let Err(fault) = served {
        if answer.has_begun {
            answer.show();
            return After::Cut;
        }
        if fault == Fault::ClientGone {
            return After::Close;
        }
        // A request whose bytes cannot be trusted is the connection's last one.
        if fault.blame() == crate::fault::Blame::Client {
            answer.keeps_alive = false;
        }
        // Nobody reads so much of it, and then the connection ends: the next request has to know.
        if body.source.left().is_some_and(|left| left > DISCARD_BYTES_MAX as u64) {
            answer.keeps_alive = false;
        }
        let FaultAnswer { reply, body: text } = fault_answer(fault, answer.retry_after_s);
        let put = answer.head(reply);
        debug_assert!(put.is_ok(), "nothing was put before");
        if !answer.is_head {
            let _ = answer.put(Piece::Data { bytes: text, last: true });
        }
    }
    if flush(&mut answer, timer, clocks.stall_ms).await.is_err() {
        return After::Cut; // a FIN would look like the end of it
    }
    if !(answer.keeps_alive && answer.has_begun && answer.sink.is_complete()) {
        return After::Close;
    }
    if !body.source.is_ended() && !discard(&mut body.source, timer, clocks).await {
        return After::Close;
    }
    After::Next
}

/// Reads the rest of a body that nobody wanted. False: too long, too slow, or broken.
async fn discard(source: &mut H1Source<'_>, timer: &mut Timer, clocks: &Clocks) -> bool {
    timer.set(clock::now().plus_ms(clocks.head_ms));
    let mut left = DISCARD_BYTES_MAX;
    std::future::poll_fn(|cx| {
        while let Poll::Ready(piece) = source.poll_piece(cx) {
            match piece {
                Err(_) => return Poll::Ready(false),
                Ok(piece) if piece.is_last() => return Poll::Ready(true),
                Ok(Piece::Data { bytes, .. }) if bytes.len() <= left => left -= bytes.len(),
                Ok(_) => return Poll::Ready(false),
            }
        }
        timer.poll_expired(cx).map(|()| false)
    })
    .await
}

/// The head as it goes on: framing and hop-by-hop fields end here.
pub(crate) fn ask_of(mut head: RequestHead, hosts: &mut LastHost) -> Ask {
    let length = match head.body {
        BodyPlan::Empty | BodyPlan::Exact { bytes: 0 } => Length::None,
        BodyPlan::Exact { bytes } => Length::Exact(bytes),
        BodyPlan::Chunked | BodyPlan::UntilClose => Length::Unknown,
    };
    // The parser has checked Host, and that an absolute target agrees with it.
    let authority = match (head.headers.get(HOST), &head.authority) {
        (Some(host), _) => hosts.authority(host),
        // RFC 9112 §3.2.2: an absolute target counts, also where an HTTP/1.0 client sends no Host.
        (None, Some(target)) => HeaderValue::try_from(target.to_string()).ok().and_then(|host| {
            let authority = hosts.authority(&host);
            head.headers.insert(HOST, host);
            authority
        }),
        (None, None) => None,
    };
    wire::strip_hop_by_hop(&mut head.headers);
    if head.headers.keys().any(|name| *name == EXPECT) {
        head.headers.remove(EXPECT);
    }
    Ask {
        method: head.method,
        version: match head.version {
            Version::H10 => http::Version::HTTP_10,
            Version::H11 => http::Version::HTTP_11,
        },
        secure: false,
        authority,
        path: head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
        headers: head.headers,
        length,
        expects_continue: head.expect_continue,
        upgrade: head.upgrade.map(|protocol| Upgrade { protocol }),
    }
}

/// How a response is framed for a client of this version, to a HEAD or to another method.
pub(crate) fn frame_of(reply: &Reply, is_head: bool, version: Version) -> (Frame, Framing) {
    // RFC 9110 §6.4.1: these never have a body, whatever their fields describe.
    match (is_head, reply.status.as_u16(), reply.length) {
        (false, 204, _) => (Frame::Nothing, Framing::None),
        (true, _, _) | (false, 304, _) => (Frame::Nothing, Framing::Described),
        (false, _, Length::None) => (Frame::Nothing, Framing::ContentLength(0)),
        (false, _, Length::Exact(bytes)) => (Frame::Exact { left: bytes }, Framing::ContentLength(bytes)),
        (false, _, Length::Unknown) if version == Version::H11 => (Frame::Chunked, Framing::Chunked),
        (false, _, Length::Unknown) => (Frame::UntilClose, Framing::None),
    }
}

/// The host that was asked last on a connection, read: it is the next request's, too.
#[derive(Default)]
pub(crate) struct LastHost(Option<Authority>);

impl LastHost {
    /// In lower case (RFC 9110 §4.2.3). `None` only for an empty Host.
    fn authority(&mut self, host: &HeaderValue) -> Option<Authority> {
        match &self.0 {
            Some(last) if last.as_str().as_bytes() == host.as_bytes() => {}
            _ => self.0 = Authority::try_from(host.as_bytes().to_ascii_lowercase()).ok(),
        }
        self.0.clone()
    }
}

struct H1Body<'a> {
    source: H1Source<'a>,
}

impl Source for H1Body<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        self.source.poll_piece(cx)
    }
}

impl RequestBody for H1Body<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_gone(cx)
    }

    fn read_ahead(&self) -> usize {
        self.source.read_ahead()
    }

    fn go_raw(&mut self) {
        self.source.plan(BodyPlan::UntilClose);
    }
}

struct H1Answer<'a> {
    sink: H1Sink<'a>,
    version: Version,
    is_head: bool,
    keeps_alive: bool,
    /// The client was not asked for its body yet, so nobody knows whether it will come.
    owes_continue: bool,
    has_begun: bool,
    /// What the request is called.
    id: Option<HeaderValue>,
    retry_after_s: Option<u16>,
    drain: &'a Latch,
}

impl H1Answer<'_> {
    fn may_persist(&self) -> bool {
        self.keeps_alive && !self.owes_continue && !self.drain.is_announced()
    }

    /// What was answered before it broke leaves as far as the socket takes it now. Whoever sees nothing of an answer on a
    /// connection that was kept may send even a POST again (browsers do), as if nobody had had it.
    #[cold]
    fn show(&mut self) {
        if !self.sink.is_complete() {
            let _ = self.sink.writer.poll_flush(&mut Context::from_waker(Waker::noop())); // what is left is cut
        }
    }
}

impl Answer for H1Answer<'_> {
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        debug_assert!(!self.has_begun && status.is_informational());
        if status == StatusCode::CONTINUE {
            self.owes_continue = false;
        }
        // RFC 9110 §15.2: never to an HTTP/1.0 client.
        if self.version == Version::H11 {
            let out = self.sink.writer.buf();
            wire::put_response_head(out, status, headers, Framing::None, Persistence::Default);
        }
        Ok(())
    }

    fn head(&mut self, mut reply: Reply) -> Result<(), Fault> {
        debug_assert!(!self.has_begun);
        self.has_begun = true;
        if let Some(id) = self.id.take() {
            reply.headers.insert(&wire::X_REQUEST_ID, id);
        }
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            self.keeps_alive = false;
            self.sink.set_frame(Frame::UntilClose);
            let no_protocol = Fault::WorkerMalformed("a 101 without Upgrade");
            let protocol = reply.headers.get(UPGRADE).ok_or(no_protocol)?;
            let out = self.sink.writer.buf();
            let persistence = Persistence::Upgrade(protocol);
            wire::put_response_head(out, reply.status, &reply.headers, Framing::None, persistence);
            return Ok(());
        }
        let (frame, framing) = frame_of(&reply, self.is_head, self.version);
        self.keeps_alive = self.may_persist() && frame != Frame::UntilClose;
        let persistence = match (self.keeps_alive, self.version) {
            (false, _) => Persistence::Close,
            (true, Version::H11) => Persistence::Default,
            (true, Version::H10) => Persistence::KeepAlive,
        };
        self.sink.set_frame(frame);
        wire::put_response_head(self.sink.writer.buf(), reply.status, &reply.headers, framing, persistence);
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

impl Sink for H1Answer<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.sink.poll_ready(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        self.sink.put(piece)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.sink.poll_flush(cx)
    }

    fn delivered(&self) -> Option<u64> {
        self.sink.delivered()
    }
}
