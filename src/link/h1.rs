//! Sends requests over an HTTP/1.1 connection, one at a time, and reads their responses. Whether the connection may carry
//! another one afterwards is said here; who gets it next is the caller's.

use std::task::{Context, Poll, ready};

use http::header::UPGRADE;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::clock;
use crate::exchange::h1::{Frame, H1Sink, H1Source};
use crate::exchange::{Again, Ask, Back, Heard, Length, Lost, Reply};
use crate::fault::Fault;
use crate::io::{Conn, Reader};
use crate::wire::{self, Asked, BodyPlan, Framing, HeadScan, Persistence, ResponseHead, Side};

/// One request on an HTTP/1.1 connection.
///
/// ```text
/// Dispatched --told--> Heading --final head--> Body
/// ```
pub struct H1Back<'a> {
    up: H1Sink<'a>,
    down: H1Source<'a>,
    scan: HeadScan,
    asked: Asked,
    was_told: bool,
    was_heard: bool,
    keeps_alive: bool,
    /// Bytes that had arrived when the request was put; what comes in addition is the response.
    bytes_in_before: u64,
    /// Bytes that had left when it was put.
    bytes_out_before: u64,
    /// For a WebSocket whose other side has no key: the `Sec-WebSocket-Accept` that a 101 must carry (RFC 6455 §4.1), and that
    /// nobody else has to see.
    accept: Option<HeaderValue>,
}

impl<'a> H1Back<'a> {
    /// Puts the request's head; it goes out with the body's first piece, or when the exchange waits for the response.
    pub fn new(conn: &'a mut Conn, ask: &Ask) -> Self {
        let accept = put_head(conn.writer.buf(), ask);
        let (bytes_in_before, bytes_out_before) = (conn.reader.bytes_in(), conn.writer.bytes_out());
        let asked = match (&ask.method, &ask.upgrade) {
            (_, Some(_)) => Asked::Connect,
            (&Method::HEAD, None) => Asked::Head,
            _ => Asked::Other,
        };
        H1Back {
            up: H1Sink::new(&mut conn.writer, Frame::of(ask.length, true), Side::Request),
            down: H1Source::new(&mut conn.reader, BodyPlan::Empty, Side::Response),
            scan: HeadScan::response(),
            asked,
            was_told: false,
            was_heard: false,
            keeps_alive: true,
            bytes_in_before,
            bytes_out_before,
            accept,
        }
    }

    /// For a worker that is idle until it has the request. A server that has many at once is better woken for several.
    #[must_use]
    pub fn hurrying(mut self) -> Self {
        self.up.hurry();
        self
    }

    /// After the exchange ended well: the connection may carry the next request.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        // Bytes behind the response belong to nobody; the next request's answer must never begin with them. And a request that
        // was answered before it had left would stand before the next one, at a worker that may not read it.
        let is_clean = self.down.read_ahead() == 0 && self.up.writer.queued() == 0;
        self.was_heard && self.keeps_alive && self.up.is_complete() && self.down.is_ended() && is_clean
    }

    fn reader(&mut self) -> &mut Reader {
        self.down.reader()
    }

    #[cold]
    fn lost(&mut self) -> Lost {
        let again = match self.reader().bytes_in() == self.bytes_in_before {
            true if self.up.writer.bytes_out() == self.bytes_out_before => Again::Untouched,
            true => Again::MayHaveRun,
            false => Again::Never,
        };
        Lost { fault: Fault::LinkLost, again }
    }

    fn take_head(&mut self, range: std::ops::Range<usize>) -> Result<Heard, Fault> {
        let reader = self.down.reader();
        reader.consume(range.start);
        let head = reader.take(range.len());
        let head = wire::parse_response(head, self.asked)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.become_tunnel();
        } else if head.status.is_informational() {
            self.scan.reset();
        } else {
            self.was_heard = true;
            self.keeps_alive = head.keep_alive && head.body != BodyPlan::UntilClose;
            self.down.plan(head.body);
        }
        heard_of(head, self.accept.as_ref())
    }

    fn become_tunnel(&mut self) {
        self.was_heard = true;
        self.keeps_alive = false;
        self.up.set_frame(Frame::UntilClose);
        self.down.plan(BodyPlan::UntilClose);
    }
}

impl<'a> Back for H1Back<'a> {
    type Up = H1Sink<'a>;
    type Down = H1Source<'a>;

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
        use crate::exchange::Sink;
        if !self.was_told {
            self.was_told = true;
            return Poll::Ready(Ok(Heard::Dispatched));
        }
        // A write that failed shows itself in the read, together with an answer that came before it.
        let _ = self.up.poll_flush(cx);
        loop {
            let scanned = match self.scan.scan(self.down.reader().buffer()) {
                Ok(Some(range)) => Some(self.take_head(range)),
                Ok(None) => None,
                Err(fault) => Some(Err(fault)),
            };
            match scanned {
                Some(Ok(heard)) => return Poll::Ready(Ok(heard)),
                Some(Err(fault)) => return Poll::Ready(Err(Lost { fault, again: Again::Never })),
                None => {}
            }
            match ready!(self.reader().poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(self.lost())),
                Ok(_) => {}
            }
        }
    }

    fn up(&mut self) -> &mut H1Sink<'a> {
        &mut self.up
    }

    fn down(&mut self) -> &mut H1Source<'a> {
        &mut self.down
    }
}

/// Writes a request's head. What comes back is the answer that the key of a WebSocket has to get, if one was made here.
pub(crate) fn put_head(out: &mut Vec<u8>, ask: &Ask) -> Option<HeaderValue> {
    let framing = match ask.length {
        Length::Exact(bytes) => Framing::ContentLength(bytes),
        Length::Unknown => Framing::Chunked,
        // RFC 9110 §8.6: these methods mean a body, so its absence is said.
        Length::None if matches!(ask.method, Method::POST | Method::PUT | Method::PATCH) => Framing::ContentLength(0),
        Length::None => Framing::None,
    };
    let persistence = match &ask.upgrade {
        Some(upgrade) => Persistence::Upgrade(&upgrade.protocol),
        None => Persistence::Default,
    };
    let Some(key) = websocket_key_for(ask) else {
        wire::put_request_head(out, &ask.method, ask.path.as_str(), &ask.headers, framing, persistence);
        return None;
    };
    let mut headers = ask.headers.clone();
    let accept = wire::websocket::accept_of(key.as_bytes());
    headers.insert(&WEBSOCKET_KEY, key);
    wire::put_request_head(out, &ask.method, ask.path.as_str(), &headers, framing, persistence);
    Some(accept)
}

/// A response's head as it goes on. `accept`: what a 101 has to carry, and nobody else has to see.
pub(crate) fn heard_of(mut head: ResponseHead, accept: Option<&HeaderValue>) -> Result<Heard, Fault> {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if let (Some(accept), true) = (accept, switches)
        && head.headers.remove("sec-websocket-accept").as_ref() != Some(accept)
    {
        return Err(Fault::WorkerMalformed("the WebSocket was accepted without reading its key"));
    }
    wire::strip_hop_by_hop(&mut head.headers);
    if switches {
        if let Some(upgrade) = head.upgrade {
            head.headers.insert(UPGRADE, upgrade);
        }
        return Ok(Heard::Final(Reply { status: head.status, headers: head.headers, length: Length::Unknown }));
    }
    if head.status.is_informational() {
        return Ok(Heard::Interim(head.status, head.headers));
    }
    let length = match head.body {
        BodyPlan::Empty | BodyPlan::Exact { bytes: 0 } => Length::None,
        BodyPlan::Exact { bytes } => Length::Exact(bytes),
        BodyPlan::Chunked | BodyPlan::UntilClose => Length::Unknown,
    };
    Ok(Heard::Final(Reply { status: head.status, headers: head.headers, length }))
}

static WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// A WebSocket that came over HTTP/2 has no key (RFC 8441 §5); an HTTP/1.1 server wants one, and proves that it read it.
fn websocket_key_for(ask: &Ask) -> Option<HeaderValue> {
    let upgrade = ask.upgrade.as_ref()?;
    let is_websocket = upgrade.protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    (ask.version == http::Version::HTTP_2 && is_websocket && !ask.headers.contains_key(&WEBSOCKET_KEY))
        .then(websocket_key)
}

/// 16 random bytes (RFC 6455 §4.1). They guard against caches, not against attackers.
#[cold]
fn websocket_key() -> HeaderValue {
    use base64::Engine;
    let mut key = [0u8; 16];
    if getrandom::fill(&mut key).is_err() {
        key[..8].copy_from_slice(&clock::now().0.to_ne_bytes());
    }
    let text = base64::engine::general_purpose::STANDARD.encode(key);
    HeaderValue::try_from(text).expect("base64 is a field value")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;

    use super::*;
    use crate::exchange::Sink as _;
    use crate::io;

    /// What becomes of a POST whose server ends before its head has left, or behind it.
    fn lost(has_left: bool) -> Lost {
        let (near, far) = UnixStream::pair().unwrap();
        let mut far = Some(far);
        let ask = Ask {
            method: Method::POST,
            version: http::Version::HTTP_11,
            secure: false,
            authority: None,
            path: "/".parse().unwrap(),
            headers: http::HeaderMap::new(),
            length: Length::None,
            expects_continue: false,
            upgrade: None,
        };
        let lost = async move {
            let mut conn = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let mut back = H1Back::new(&mut conn, &ask).hurrying();
            if !has_left {
                far = None;
            }
            std::future::poll_fn(|cx| {
                loop {
                    let _ = back.up().poll_flush(cx); // its failure shows below
                    if let Some(mut far) = far.take() {
                        assert!(far.read(&mut [0; 64]).unwrap() > 0);
                    }
                    match ready!(back.poll_heard(cx)) {
                        Ok(Heard::Dispatched) => {}
                        Ok(_) => panic!("nobody answers"),
                        Err(lost) => return Poll::Ready(lost),
                    }
                }
            })
            .await
        };
        io::run(|| io::timeout(30_000, lost)).unwrap().expect("it hangs")
    }

    #[test]
    fn a_request_that_never_left_was_not_sent() {
        let fault = Fault::LinkLost;
        assert_eq!(lost(false), Lost { fault, again: Again::Untouched });
        assert_eq!(lost(true), Lost { fault, again: Again::MayHaveRun });
    }
}
