//! A connection on which HTTP/2 requests come in, many at once: streams out of the engine, a task for each, keepalive,
//! GOAWAY. What answers is a [`Service`]; HTTP/1.1 never enters.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::Service;
use crate::exchange::h2::{H2Sink, H2Source};
use crate::exchange::{
    Answer, Ask, FaultAnswer, Latch, Length, Piece, Reply, RequestBody, Sink, Source, Upgrade, fault_answer, flush,
    keepalive,
};
use crate::fault::Fault;
use crate::io::{self, Conn, Duplex, Leaves, Pulse, Timer};
use crate::limits::{
    BODY_STALL_MS_MAX, EDGE_RESETS_PENDING_MAX, HEADER_LIST_BYTES_MAX, LINK_PING_MS, LOCAL_RESETS_MAX,
    SMALL_FRAMES_BYTES, STREAM_SEND_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::wire::{self, Side};

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// All streams were answered; the peer or `drain` closed it.
    Cleanly,
    /// The peer did not answer a PING, broke the protocol, or the socket broke.
    Broken(String),
}

/// Serves a connection to its end: `streams_max` requests at once. `drain` sends GOAWAY and finishes what runs.
pub async fn serve<S: Service + 'static>(conn: Conn, service: Rc<S>, streams_max: u32, drain: &Latch) -> Ended {
    let pulse = conn.pulse();
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        // Every stream's window at once: a body that nobody reads stops its own stream and no other.
        .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(streams_max.max(1)).min((1 << 31) - 1))
        .max_concurrent_streams(streams_max)
        // The largest head that an edge takes from its client, with what it adds, counted HTTP/2's way.
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        // The peer is the edge that we dialed, and its clients may leave in a burst; it is not the one to guard against.
        .max_pending_accept_reset_streams(EDGE_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .max_send_buffer_size(STREAM_SEND_BYTES_MAX)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(Duplex::new(conn, Leaves::Last));
    let mut connection = match io::timeout(crate::limits::SETUP_MS_MAX, handshake).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => return Ended::Broken(format!("HTTP/2 handshake: {error}")),
        None => return Ended::Broken("HTTP/2 handshake: no preface in time".into()),
    };
    let ended = drive(&mut connection, &pulse, &service, drain).await;
    drop(connection);
    ended
}

async fn drive<S: Service + 'static>(
    connection: &mut Connection<Duplex, Bytes>,
    pulse: &Pulse,
    service: &Rc<S>,
    drain: &Latch,
) -> Ended {
    let mut keepalive = pin!(keepalive(connection.ping_pong(), LINK_PING_MS, || pulse.silent_ms()));
    let mut drained = drain.wait();
    let mut is_draining = false;
    std::future::poll_fn(|cx| {
        if !is_draining && drained.poll(cx).is_ready() {
            is_draining = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    io::spawn(serve_one(service.clone(), request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Broken(error.to_string())),
                Poll::Ready(None) => return Poll::Ready(Ended::Cleanly),
                Poll::Pending => break,
            }
        }
        keepalive.as_mut().poll(cx).map(|()| Ended::Broken("the peer does not answer PING".into()))
    })
    .await
}

async fn serve_one<S: Service>(service: Rc<S>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let mut timer = Timer::new();
    let (head, stream) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let send = Rc::new(RefCell::new(Send { respond, body: H2Sink::closed(Side::Response) }));
    let mut body = H2Body { source: H2Source::new(stream, Side::Request), send: send.clone() };
    let mut answer = H2Answer { send, is_head, has_begun: false };
    let fault = match ask_of(head, &body.source) {
        Ok(ask) => service.serve(ask, &mut body, &mut answer, &mut timer).await.err(),
        Err(fault) => Some(fault),
    };
    if fault.is_none() {
        // A peer that is gone needs no answer; what is left of it is reset.
        let _ = flush(&mut answer, &mut timer, BODY_STALL_MS_MAX).await;
    }
    let mut send = answer.send.borrow_mut();
    match fault {
        None => {}
        Some(_) if answer.has_begun => send.body.reset(Reason::INTERNAL_ERROR),
        Some(Fault::ClientGone) => send.respond.send_reset(Reason::CANCEL),
        // Certainly not processed: the peer may send it to another (RFC 9113 §8.7).
        Some(Fault::NoWorker | Fault::Draining) => send.respond.send_reset(Reason::REFUSED_STREAM),
        Some(fault) => {
            drop(send);
            let FaultAnswer { reply, body: text } = fault_answer(fault);
            if answer.head(reply).is_ok() && !is_head {
                let _ = answer.put(Piece::Data { bytes: text, last: true });
                let _ = flush(&mut answer, &mut timer, BODY_STALL_MS_MAX).await; // a peer that is gone needs no answer
            }
        }
    }
}

/// The head as it goes on. RFC 9113 §8.3 and §8.5, RFC 8441 §4: what h2 does not check is checked here.
fn ask_of(head: http::request::Parts, body: &H2Source) -> Result<Ask, Fault> {
    let mut headers = head.headers;
    let uri = head.uri.into_parts();
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let (method, upgrade) = match (head.method, protocol) {
        (Method::CONNECT, Some(protocol)) => {
            let protocol = HeaderValue::from_str(protocol.as_str());
            let protocol = protocol.map_err(|_| Fault::ClientMalformed("the :protocol is not a token"))?;
            (Method::GET, Some(Upgrade { protocol }))
        }
        (Method::CONNECT | Method::TRACE, None) => return Err(Fault::MethodRefused),
        (method, _) => (method, None),
    };
    let authority = match uri.authority {
        Some(authority) => Some(authority),
        None => match headers.get(HOST) {
            Some(host) => {
                Some(host.as_bytes().try_into().map_err(|_| Fault::ClientMalformed("the Host is not an authority"))?)
            }
            None => None,
        },
    };
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(Fault::ClientMalformed("more than one Host"));
    }
    // RFC 9113 §8.3.1: :authority is what counts; it goes on as Host.
    if let Some(authority) = &authority {
        let host = HeaderValue::from_str(authority.as_str());
        headers.insert(HOST, host.map_err(|_| Fault::ClientMalformed("the :authority is not a field value"))?);
    }
    wire::strip_hop_by_hop(&mut headers);
    let expects_continue = match headers.remove(http::header::EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Fault::UnknownExpectation),
    };
    let length = match (upgrade.is_some(), body.has_ended_with_its_head(), headers.get(CONTENT_LENGTH)) {
        (true, _, _) | (false, true, _) => Length::None,
        (false, false, None) => Length::Unknown,
        (false, false, Some(value)) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            Length::Exact(length.ok_or(Fault::ClientMalformed("the Content-Length is not a number"))?)
        }
    };
    Ok(Ask {
        method,
        version: http::Version::HTTP_2,
        secure: uri.scheme.as_ref() == Some(&http::uri::Scheme::HTTPS),
        authority,
        path: uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
        headers,
        length,
        expects_continue,
        upgrade,
    })
}

/// The send half, which the body also needs: a reset by the peer shows itself there.
struct Send {
    respond: SendResponse<Bytes>,
    body: H2Sink,
}

struct H2Body {
    source: H2Source,
    send: Rc<RefCell<Send>>,
}

impl Source for H2Body {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        self.source.poll_piece(cx)
    }
}

impl RequestBody for H2Body {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let send = &mut *self.send.borrow_mut();
        match send.body.stream() {
            Some(stream) => stream.poll_reset(cx).map(|_| ()),
            None => send.respond.poll_reset(cx).map(|_| ()),
        }
    }

    fn read_ahead(&self) -> usize {
        0 // what arrived is in the engine, bounded by the stream's window
    }

    fn go_raw(&mut self) {
        // An extended CONNECT's DATA is raw already (RFC 8441 §5).
    }
}

struct H2Answer {
    send: Rc<RefCell<Send>>,
    is_head: bool,
    has_begun: bool,
}

impl Answer for H2Answer {
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        self.send.borrow_mut().respond.send_informational(response).map_err(|_| Fault::ClientGone)
    }

    fn head(&mut self, reply: Reply) -> Result<(), Fault> {
        debug_assert!(!self.has_begun);
        self.has_begun = true;
        let mut response = Response::new(());
        *response.headers_mut() = reply.headers;
        *response.status_mut() = reply.status;
        let mut ends = self.is_head || reply.length == Length::None || matches!(reply.status.as_u16(), 204 | 304);
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            // The tunnel is the stream itself; there is no 101 in HTTP/2 (RFC 9113 §8.6).
            *response.status_mut() = StatusCode::OK;
            wire::strip_hop_by_hop(response.headers_mut());
            ends = false;
        }
        if let Length::Exact(bytes) = reply.length {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        }
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
}

impl Sink for H2Answer {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.send.borrow_mut().body.poll_ready(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        self.send.borrow_mut().body.put(piece)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.send.borrow_mut().body.poll_flush(cx)
    }

    fn delivered(&self) -> Option<u64> {
        self.send.borrow().body.delivered()
    }
}
