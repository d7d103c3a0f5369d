//! A client over HTTP/2: tokio and the h2 crate over cleartext, with prior knowledge. The program's own engine room never
//! enters.

use std::net::SocketAddr;
use std::sync::mpsc;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};

use super::h2_worker::{block_on, runtime};
use super::{HANG, HOST};

/// A connection.
#[derive(Debug)]
pub struct H2Client {
    pub send: SendRequest<Bytes>,
    ended: mpsc::Receiver<Result<(), String>>,
}

/// A request under way.
#[derive(Debug)]
pub struct Sent {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// A response, its body on the way.
#[derive(Debug)]
pub struct Begun {
    pub head: http::response::Parts,
    pub body: RecvStream,
}

/// A whole response.
#[derive(Debug)]
pub struct Whole {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl H2Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> H2Client {
        H2Client::with(address, &Builder::new())
    }

    #[track_caller]
    pub fn with(address: SocketAddr, builder: &Builder) -> H2Client {
        block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("the listener takes connections");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let (send, connection) = builder.handshake(stream).await.expect("a handshake");
            let (tell_end, ended) = mpsc::channel();
            tokio::spawn(async move { tell_end.send(connection.await.map_err(|error| error.to_string())) });
            H2Client { send, ended }
        })
    }

    /// Sends a head; the body follows unless the stream ends with it.
    #[track_caller]
    pub fn start(&mut self, request: Request<()>, ends: bool) -> Sent {
        self.try_start(request, ends).expect("the connection is open")
    }

    pub fn try_start(&mut self, request: Request<()>, ends: bool) -> Result<Sent, h2::Error> {
        block_on(std::future::poll_fn(|cx| self.send.poll_ready(cx)))?;
        let (response, body) = self.send.send_request(request, ends)?;
        Ok(Sent { response, body })
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Sent {
        self.start(asking("GET", path), true)
    }

    /// Until the connection has ended, and how.
    #[track_caller]
    pub fn end(&self) -> Result<(), String> {
        self.ended.recv_timeout(HANG).expect("the connection does not end")
    }
}

/// A head without more fields.
pub fn asking(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://{HOST}{path}")).body(()).expect("a request")
}

impl Sent {
    /// Sends a piece as the windows allow.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8], ends: bool) {
        self.try_send(bytes, ends).expect("the stream is open");
    }

    pub fn try_send(&mut self, bytes: &[u8], ends: bool) -> Result<(), h2::Error> {
        block_on(send(&mut self.body, Bytes::copy_from_slice(bytes), ends))
    }

    /// The next interim response.
    #[track_caller]
    pub fn interim(&mut self) -> (StatusCode, HeaderMap) {
        let interim = block_on(std::future::poll_fn(|cx| self.response.poll_informational(cx)));
        let (head, ()) = interim.expect("an interim response").expect("the stream is open").into_parts();
        (head.status, head.headers)
    }

    #[track_caller]
    pub fn begun(&mut self) -> Begun {
        self.try_begun().expect("a response")
    }

    pub fn try_begun(&mut self) -> Result<Begun, h2::Error> {
        let (head, body) = block_on(&mut self.response)?.into_parts();
        Ok(Begun { head, body })
    }

    #[track_caller]
    pub fn whole(&mut self) -> Whole {
        self.begun().whole().expect("the rest of the response")
    }
}

impl Begun {
    /// The next bytes; `None` at their end.
    #[track_caller]
    pub fn some(&mut self) -> Option<Result<Bytes, h2::Error>> {
        block_on(next(&mut self.body))
    }

    pub fn whole(mut self) -> Result<Whole, h2::Error> {
        block_on(async {
            let mut body = Vec::new();
            while let Some(piece) = next(&mut self.body).await {
                body.extend_from_slice(&piece?);
            }
            let trailers = self.body.trailers().await?;
            Ok(Whole { head: self.head, body, trailers })
        })
    }
}

impl Whole {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// Sends a piece as the windows allow.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, ends: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        if stream.capacity() == 0 {
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(capacity) => drop(capacity?),
                None => stream.send_data(Bytes::new(), false)?, // says why
            }
            continue;
        }
        let now = bytes.split_to(stream.capacity().min(bytes.len()));
        stream.send_data(now, ends && bytes.is_empty())?;
        if bytes.is_empty() {
            return Ok(());
        }
    }
    if ends { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// The next bytes of a body, given back to the window at once.
pub async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let piece = match body.data().await? {
            Ok(piece) if piece.is_empty() => continue, // no more than the end's carrier
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        return Some(body.flow_control().release_capacity(piece.len()).map(|()| piece));
    }
}

/// Runs on the same threads as all foreign peers.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    runtime().spawn(task);
}
