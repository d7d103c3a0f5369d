//! Sends requests over a turned HTTP/2 link, many at once: the connection's own task, its credits, GOAWAY and PING, and
//! one stream for each request. Which request comes next never enters.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use crate::exchange::h2::{H2Sink, H2Source};
use crate::exchange::{Again, Ask, Back, Heard, Latch, Length, Lost, Piece, Reply, Source, keepalive};
use crate::fault::Fault;
use crate::io::{self, Aside, Conn, Duplex, Leaves, Pulse, Sent};
use crate::limits::{
    CONTENT_LENGTH_MAX, LINK_FRAME_BYTES_MAX, LINK_PING_MS, LINK_STREAMS_MAX, LINK_WINDOW_BYTES, LOCAL_RESETS_MAX,
    RESPONSE_LIST_BYTES_MAX, SETUP_MS_MAX, SMALL_FRAMES_BYTES, STREAM_SEND_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::wire::token::{decimal, is_field_name, is_token};
use crate::wire::{self, PREFACE, Side};

/// What a link has learned from its worker since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// SETTINGS_MAX_CONCURRENT_STREAMS, and whether extended CONNECT is on.
    Credits { streams_max: u32, carries_upgrades: bool },
    /// GOAWAY: what runs may finish, nothing new.
    Drains,
}

/// Opens streams on a link, one for each clone: the engine's handle holds on to the stream that it opened last.
#[derive(Clone)]
pub struct H2Sender {
    engine: SendRequest<Bytes>,
    /// Of the link's connection.
    sent: Sent,
}

/// A link after its preface was sent.
pub struct H2Link {
    send: H2Sender,
    connection: Connection<Duplex, Bytes>,
    pulse: Pulse,
    aside: Aside,
}

/// Who begins a turned connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// We do, as HTTP/2's client.
    Ours,
    /// The worker has: it dialed as a client, and becomes the server without a word (HAProxy). Its preface is off the
    /// connection already, and its SETTINGS come next.
    Theirs,
}

/// GOAWAY: last stream 0, NO_ERROR. A client's says only that it will end the connection; streams may still be opened
/// (RFC 9113 §6.8). The stream is 0 and not 2^31-1, for a server may count only streams of its own kind: nghttp2 ends the
/// connection over any other. The engine's own GOAWAY, at the end, says the same.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl H2Link {
    /// Starts HTTP/2 as the client on a turned connection. Until the worker's SETTINGS arrive there is no credit.
    pub async fn start(conn: Conn, preface: Preface) -> Result<H2Link, String> {
        let pulse = conn.pulse();
        let unsaid = match preface {
            Preface::Ours => 0,
            Preface::Theirs => PREFACE.len(),
        };
        let (aside, sent) = (Aside::default(), Sent::default());
        let duplex = Duplex::new(conn, Leaves::First).unsaid(unsaid).beside(&aside).telling(&sent);
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(LINK_WINDOW_BYTES)
            .max_frame_size(LINK_FRAME_BYTES_MAX)
            .max_header_list_size(RESPONSE_LIST_BYTES_MAX)
            .max_send_buffer_size(STREAM_SEND_BYTES_MAX)
            .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .initial_max_send_streams(0)
            .enable_push(false)
            .handshake(duplex);
        match io::timeout(SETUP_MS_MAX, handshake).await {
            Some(Ok((engine, connection))) => Ok(H2Link { send: H2Sender { engine, sent }, connection, pulse, aside }),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the preface could not be sent in time".into()),
        }
    }

    /// For [`H2Back::send`], as often as there are credits.
    #[must_use]
    pub fn sender(&self) -> H2Sender {
        self.send.clone()
    }

    /// Drives the connection until it ends, and says why. `news` hears every change. When `drain` is announced, the worker
    /// hears GOAWAY, so that it can dial another link, and requests go on; when it is set, the link ends as soon as nothing
    /// runs on it.
    pub async fn run(mut self, drain: &Latch, mut news: impl FnMut(News)) -> String {
        let mut keepalive = pin!(keepalive(self.connection.ping_pong(), LINK_PING_MS, || self.pulse.silent_ms()));
        let mut drained = drain.wait();
        let mut send = Some(self.send.engine);
        let mut known = News::Credits { streams_max: 0, carries_upgrades: false };
        let mut says_goodbye = false;
        std::future::poll_fn(|cx| {
            if !says_goodbye && drain.is_announced() {
                says_goodbye = true;
                self.aside.say(&GOAWAY); // the engine flushes it below
            }
            loop {
                match std::pin::Pin::new(&mut self.connection).poll(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready("the worker closed it".to_owned()),
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => {}
                }
                let Some(sender) = &mut send else { break };
                let heard = if drained.poll(cx).is_ready() { News::Drains } else { learn(cx, sender) };
                if heard != known {
                    known = heard;
                    news(heard);
                }
                if heard != News::Drains {
                    break;
                }
                // Without our own sender the engine closes the connection after its last stream: let it look again.
                send = None;
            }
            keepalive.as_mut().poll(cx).map(|()| "the worker does not answer PING".to_owned())
        })
        .await
    }
}

/// What the engine knows now. Its lock is this core's alone.
fn learn(cx: &mut Context<'_>, send: &mut SendRequest<Bytes>) -> News {
    match send.poll_ready(cx) {
        Poll::Ready(Err(_)) => News::Drains,
        _ => News::Credits {
            streams_max: send.current_max_send_streams().min(LINK_STREAMS_MAX as usize) as u32,
            carries_upgrades: send.is_extended_connect_protocol_enabled(),
        },
    }
}

/// One request on an HTTP/2 link.
///
/// ```text
/// Dispatched --told--> Heading --final head--> Body
/// Heading --final head that no body may follow--> Held --END_STREAM--> Body
/// Held --DATA that is not empty--> lost
/// ```
pub struct H2Back {
    response: ResponseFuture,
    /// A final head that is told only when it is known that no body follows it.
    held: Option<Reply>,
    is_head: bool,
    up: H2Sink,
    down: H2Source,
    was_told: bool,
    /// For a WebSocket whose other side speaks HTTP/1.1: the answer to its key.
    accept: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
    sent: Sent,
    /// What `sent` said before the request's head was put.
    sent_before: u64,
}

impl H2Back {
    /// Opens a stream with the request's head. [`Again::Untouched`]: the link takes nothing any more; other losses are about
    /// this request alone.
    pub fn send(send: &mut H2Sender, ask: &Ask, host_fallback: &Authority) -> Result<H2Back, Lost> {
        let (request, accept) = request_of(ask, host_fallback)?;
        let ends = ask.length == Length::None && ask.upgrade.is_none();
        // Refused before a byte of it was written: the link is ending.
        let untouched = |_| Lost { fault: Fault::LinkLost, again: Again::Untouched };
        let (response, stream) = send.engine.send_request(request, ends).map_err(untouched)?;
        let up = if ends { H2Sink::closed(Side::Request) } else { H2Sink::new(stream, Side::Request) };
        Ok(H2Back {
            response,
            held: None,
            is_head: ask.method == Method::HEAD,
            up,
            down: H2Source::waiting(Side::Response),
            was_told: false,
            accept,
            protocol: ask.upgrade.as_ref().map(|upgrade| upgrade.protocol.clone()),
            sent: send.sent.clone(),
            sent_before: send.sent.bytes(),
        })
    }

    /// What an error of its stream says about the request. Its head waited, perhaps behind others', and where nothing has left
    /// since it was put it is there yet.
    #[cold]
    fn lost(&self, error: &h2::Error) -> Lost {
        match lost(error) {
            Lost { fault: Fault::LinkLost, .. } if self.sent.bytes() == self.sent_before => {
                Lost { fault: Fault::LinkLost, again: Again::Untouched }
            }
            lost => lost,
        }
    }

    fn take_head(&mut self, response: Response<RecvStream>) -> Result<Reply, Fault> {
        let (head, stream) = response.into_parts();
        self.down = H2Source::new(stream, Side::Response);
        let switched = Switched { protocol: self.protocol.take(), accept: self.accept.take() };
        reply_of(head, self.down.has_ended_with_its_head(), switched)
    }

    /// Whether no body may follow this head (RFC 9110 §6.4.1), though its stream goes on.
    fn may_break_its_promise(&self, reply: &Reply) -> bool {
        let has_no_body = self.is_head || matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        has_no_body && reply.length != Length::None
    }

    /// Until the stream of a held head ends. RFC 9113 §8.1 lets the end come in an empty DATA frame or in trailers; bytes
    /// of a body make the response malformed (§8.1.1), and then nothing of it may have gone on. (The engine is stricter: it
    /// refuses a 304 that has a Content-Length and does not end with its head.)
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        loop {
            let never = |fault| Lost { fault, again: Again::Never };
            match ready!(self.down.poll_piece(cx)).map_err(never)? {
                Piece::Data { bytes, .. } if !bytes.is_empty() => {
                    return Poll::Ready(Err(never(Fault::WorkerMalformed("a body behind a head that has none"))));
                }
                piece if piece.is_last() => return Poll::Ready(Ok(())),
                _ => {} // an empty frame; the engine bounds how many wait
            }
        }
    }
}

impl Back for H2Back {
    type Up = H2Sink;
    type Down = H2Source;

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
        if !self.was_told {
            self.was_told = true;
            return Poll::Ready(Ok(Heard::Dispatched));
        }
        if self.held.is_some() {
            ready!(self.poll_end(cx))?;
            let reply = self.held.take().expect("looked at above");
            return Poll::Ready(Ok(Heard::Final(Reply { length: Length::None, ..reply })));
        }
        // Interim responses first: the engine drops those that a final one overtakes.
        if let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            let interim = interim.map_err(|error| self.lost(&error))?;
            let (head, ()) = interim.into_parts();
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(no_switch()));
            }
            let headers = own_fields(head.headers).map_err(|fault| Lost { fault, again: Again::Never })?;
            return Poll::Ready(Ok(Heard::Interim(head.status, headers)));
        }
        let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx)).map_err(|error| self.lost(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err(no_switch()));
        }
        if response.status().as_u16() > 599 {
            let fault = Fault::WorkerMalformed("an impossible status");
            return Poll::Ready(Err(Lost { fault, again: Again::Never }));
        }
        let never = |fault| Lost { fault, again: Again::Never };
        let reply = self.take_head(response).map_err(never)?;
        if self.may_break_its_promise(&reply) {
            self.held = Some(reply);
            return self.poll_heard(cx);
        }
        Poll::Ready(Ok(Heard::Final(reply)))
    }

    fn up(&mut self) -> &mut H2Sink {
        &mut self.up
    }

    fn down(&mut self) -> &mut H2Source {
        &mut self.down
    }
}

impl Drop for H2Back {
    fn drop(&mut self) {
        // A request that was not finished must not look finished.
        self.up.reset(Reason::CANCEL);
    }
}

/// RFC 9113 §8.6: there is no 101 in HTTP/2.
#[cold]
fn no_switch() -> Lost {
    Lost { fault: Fault::WorkerMalformed("a 101 over HTTP/2"), again: Again::Never }
}

/// What a stream's error says about its request (RFC 9113 §8.7).
fn lost(error: &h2::Error) -> Lost {
    if error.is_remote() && error.is_go_away() {
        // The engine gives a peer's GOAWAY only to streams above its last id.
        return Lost { fault: Fault::NotProcessed, again: Again::Untouched };
    }
    if error.is_remote() && error.is_reset() {
        return match error.reason() {
            Some(Reason::REFUSED_STREAM) => Lost { fault: Fault::NotProcessed, again: Again::Untouched },
            _ => Lost { fault: Fault::WorkerReset, again: Again::MayHaveRun },
        };
    }
    if error.is_library() && error.is_go_away() {
        // The worker broke the connection itself: this request may be as good as any.
        return Lost { fault: Fault::WorkerMalformed("the worker breaks HTTP/2"), again: Again::MayHaveRun };
    }
    if error.is_library() {
        return Lost { fault: Fault::WorkerMalformed("the response breaks HTTP/2"), again: Again::Never };
    }
    Lost { fault: Fault::LinkLost, again: Again::MayHaveRun }
}

/// The head in HTTP/2's form; for a WebSocket also the answer to its key.
pub(crate) fn request_of(ask: &Ask, host_fallback: &Authority) -> Result<(Request<()>, Option<HeaderValue>), Lost> {
    let mut parts = Parts::default();
    parts.scheme = Some(if ask.secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(ask.authority.clone().unwrap_or_else(|| host_fallback.clone()));
    parts.path_and_query = Some(ask.path.clone());
    let malformed = Lost { fault: Fault::ClientMalformed("the target is not a URI"), again: Again::Never };
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed)?;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = ask.method.clone();
    *request.headers_mut() = ask.headers.clone();
    request.headers_mut().remove(HOST); // it is :authority here
    let Some(upgrade) = &ask.upgrade else { return Ok((request, None)) };
    // RFC 8441 §4 puts CONNECT where the method was, and whoever reads it takes GET for what was meant. A POST (Docker,
    // Kubernetes) would reach its server as another request.
    if ask.method != Method::GET {
        return Err(Lost { fault: Fault::NoUpgrade, again: Again::Never });
    }
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(CONTENT_LENGTH); // of nothing: an upgrade has no body, and a tunnel no length
    let malformed = Lost { fault: Fault::ClientMalformed("the Upgrade is not a token"), again: Again::Never };
    let protocol = upgrade.protocol.to_str().map_err(|_| malformed)?.to_ascii_lowercase();
    // One has to be chosen here, and whoever could choose is behind the worker; HTTP/1.1 takes the whole list to him.
    let (kind, version) = protocol.split_once('/').unwrap_or((&protocol, "1"));
    if !is_token(kind.as_bytes()) || !is_token(version.as_bytes()) {
        return Err(Lost { fault: Fault::NoUpgrade, again: Again::Never });
    }
    request.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
    let accept = take_websocket_key(request.headers_mut());
    Ok((request, accept))
}

/// What a tunnel's client has to hear when it is open.
#[derive(Default)]
pub(crate) struct Switched {
    /// As it asked for it; `None`: it asked for no tunnel.
    pub protocol: Option<HeaderValue>,
    /// The answer to its WebSocket's key.
    pub accept: Option<HeaderValue>,
}

/// A response's head as it goes on.
pub(crate) fn reply_of(head: http::response::Parts, has_no_body: bool, switched: Switched) -> Result<Reply, Fault> {
    let mut headers = own_fields(head.headers)?;
    if let (Some(protocol), true) = (switched.protocol, head.status.is_success()) {
        headers.insert(UPGRADE, protocol);
        headers.remove(CONTENT_LENGTH);
        if let Some(accept) = switched.accept {
            headers.insert("sec-websocket-accept", accept);
        }
        return Ok(Reply { status: StatusCode::SWITCHING_PROTOCOLS, headers, length: Length::Unknown });
    }
    // The engine holds a body to it; where none follows it is a word to the client, and has to be one (RFC 9110 §8.6).
    let length = match (has_no_body, content_length(&mut headers)?) {
        (true, _) => Length::None,
        (false, Some(bytes)) => Length::Exact(bytes),
        (false, None) => Length::Unknown,
    };
    Ok(Reply { status: head.status, headers, length })
}

/// The fields that go on.
fn own_fields(mut headers: HeaderMap) -> Result<HeaderMap, Fault> {
    if !headers.keys().all(is_field_name) {
        return Err(Fault::WorkerMalformed("a field's name that is not a token"));
    }
    wire::strip_hop_by_hop(&mut headers);
    Ok(headers)
}

/// What all Content-Lengths say. They go on as one.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Fault> {
    let mut all = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .map(|value| decimal(value.as_bytes()).filter(|bytes| *bytes <= CONTENT_LENGTH_MAX));
    let Some(first) = all.next() else { return Ok(None) };
    let Some(bytes) = first else { return Err(Fault::WorkerMalformed("an impossible Content-Length")) };
    let mut others = 0;
    for other in all {
        if other != first {
            return Err(Fault::WorkerMalformed("two Content-Lengths that differ"));
        }
        others += 1;
    }
    if others > 0 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(Some(bytes))
}

/// RFC 8441 §5: an HTTP/2 WebSocket has no key; what the HTTP/1.1 side has to hear is made here.
fn take_websocket_key(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let key = headers.remove("sec-websocket-key")?;
    Some(wire::websocket::accept_of(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use super::*;

    /// A link whose other end is the test's, and that has a credit. Nothing runs on it until the test waits.
    async fn link() -> (H2Sender, UnixStream) {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let link = H2Link::start(Conn::from_fd(near.into(), Bytes::new()).unwrap(), Preface::Ours).await.unwrap();
        let sender = link.sender();
        let credits = Rc::new(Cell::new(0));
        let known = credits.clone();
        io::spawn(async move {
            let news = |news| match news {
                News::Credits { streams_max, .. } => known.set(streams_max),
                News::Drains => {}
            };
            link.run(&Latch::default(), news).await;
        });
        far.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9]).unwrap(); // MAX_CONCURRENT_STREAMS: 9
        while credits.get() == 0 {
            io::sleep_ms(1).await;
        }
        (sender, far)
    }

    fn ask() -> Ask {
        Ask {
            method: Method::POST,
            version: Version::HTTP_11,
            secure: false,
            authority: None,
            path: "/".parse().unwrap(),
            headers: HeaderMap::new(),
            length: Length::None,
            expects_continue: false,
            upgrade: None,
        }
    }

    async fn lost_of(mut back: H2Back) -> Lost {
        loop {
            match std::future::poll_fn(|cx| back.poll_heard(cx)).await {
                Ok(Heard::Dispatched) => {}
                Ok(_) => panic!("nobody answers"),
                Err(lost) => return lost,
            }
        }
    }

    /// A HEADERS frame is among what the edge sent, its preface and what it said about itself.
    fn has_headers(sent: &[u8]) -> bool {
        let mut frames = sent.get(PREFACE.len()..).unwrap_or_default();
        while let [a, b, c, kind, rest @ ..] = frames {
            if *kind == 1 {
                return true;
            }
            let bytes = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            frames = rest.get(5 + bytes..).unwrap_or_default();
        }
        false
    }

    #[test]
    fn a_request_that_waited_when_its_link_was_lost_was_not_sent() {
        let authority = Authority::from_static("localhost");
        let lost = io::run(|| {
            io::timeout(30_000, async move {
                let (mut sender, far) = link().await;
                drop(far);
                let waited = lost_of(H2Back::send(&mut sender, &ask(), &authority).unwrap()).await;

                let (mut sender, mut far) = link().await;
                let back = H2Back::send(&mut sender, &ask(), &authority).unwrap();
                let (mut sent, mut buffer) = (Vec::new(), [0; 1024]);
                while !has_headers(&sent) {
                    match far.read(&mut buffer) {
                        Ok(bytes) => sent.extend_from_slice(&buffer[..bytes]),
                        Err(_) => io::sleep_ms(1).await,
                    }
                }
                drop(far);
                [waited, lost_of(back).await]
            })
        });
        let fault = Fault::LinkLost;
        let want = [Lost { fault, again: Again::Untouched }, Lost { fault, again: Again::MayHaveRun }];
        assert_eq!(lost.unwrap().expect("it hangs"), want);
    }

    #[test]
    fn lengths_that_agree_go_on_as_one_and_others_not_at_all() {
        let differ = Fault::WorkerMalformed("two Content-Lengths that differ");
        let odd = Fault::WorkerMalformed("an impossible Content-Length");
        for (lengths, want) in [
            (&[][..], Ok(None)),
            (&["5"], Ok(Some("5"))),
            (&["5", "5", "5"], Ok(Some("5"))),
            (&["5", "05"], Ok(Some("5"))),
            (&["5", "6"], Err(differ)),
            (&["5", "x"], Err(differ)),
            (&["x"], Err(odd)),
            (&["5, 5"], Err(odd)),
            (&["9223372036854775808"], Err(odd)),
            (&["-1"], Err(odd)),
            (&[""], Err(odd)),
        ] {
            let mut response = Response::builder().status(200);
            for length in lengths {
                response = response.header(CONTENT_LENGTH, *length);
            }
            let (head, ()) = response.body(()).unwrap().into_parts();
            let reply = reply_of(head, true, Switched::default());
            let told = reply.map(|reply| {
                let all: Vec<_> = reply.headers.get_all(CONTENT_LENGTH).iter().cloned().collect();
                assert!(all.len() <= 1, "{lengths:?}: {all:?}");
                all.first().map(|length| length.to_str().unwrap().to_owned())
            });
            assert_eq!(told, want.map(|length| length.map(str::to_owned)), "{lengths:?}");
        }
    }
}
