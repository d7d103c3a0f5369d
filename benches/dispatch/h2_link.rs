//! A worker's link over HTTP/2: the h2 engine's server side on a socket that somebody else watches. It is asked, and
//! never wakes anybody, so that the tool's own timers stay as precise as they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http::{BODY, NUMBER, Order, SERVICE};

pub struct H2Link {
    state: State,
    /// The same socket, for whoever watches it.
    stream: TcpStream,
}

/// Handshake --preface--> Open --end, error--> Over;   Handshake --end, error--> Over
enum State {
    Handshake(Box<Handshake<Socket, Bytes>>),
    Open(Box<Connection<Socket, Bytes>>),
    Over,
}

/// A request out of the engine: its order, if it has one, and the way back.
type Asked = (Option<Order>, SendResponse<Bytes>);

impl H2Link {
    /// On a turned connection; `seen` is what the edge said already.
    pub fn new(stream: TcpStream, seen: Vec<u8>, credits: u32) -> H2Link {
        let socket = Socket { stream: stream.try_clone().expect("a descriptor is free"), seen };
        let handshake = Builder::new().max_concurrent_streams(credits).handshake(socket);
        H2Link { state: State::Handshake(Box::new(handshake)), stream }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Reads and writes until the socket has no more.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> Vec<Asked> {
        let mut asked = Vec::new();
        loop {
            let next = match &mut self.state {
                State::Handshake(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(connection)) => State::Open(Box::new(connection)),
                    Poll::Ready(Err(_)) => State::Over,
                    Poll::Pending => return asked,
                },
                State::Open(connection) => match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        asked.push((order(request.headers()), respond));
                        continue;
                    }
                    Poll::Ready(Some(Err(_)) | None) => State::Over,
                    Poll::Pending => return asked,
                },
                State::Over => return asked,
            };
            self.state = next;
        }
    }

    /// The bytes leave when the link is driven next.
    pub fn answer(mut respond: SendResponse<Bytes>) {
        let head = Response::builder().header(http::header::CONTENT_LENGTH, BODY.len()).body(());
        // A stream that the edge reset, or a link that ended, has nobody to tell.
        if let Ok(mut stream) = respond.send_response(head.expect("a plain head"), false) {
            let _ = stream.send_data(Bytes::from_static(BODY), true);
        }
    }
}

fn order(fields: &HeaderMap) -> Option<Order> {
    let text = |name| fields.get(name).and_then(|value| value.to_str().ok());
    Some(Order { number: text(NUMBER)?.parse().ok()?, service_us: text(SERVICE)?.parse().ok()? })
}

/// The socket as the engine knows it. It never blocks; a `Pending` is asked again by whoever watches the socket. Answers
/// are so small that a write finds room unless the edge has stopped to read, and then its next bytes ask again.
struct Socket {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.seen.is_empty() {
            let bytes = self.seen.len().min(buffer.remaining());
            buffer.put_slice(&self.seen[..bytes]);
            self.seen.drain(..bytes);
            return Poll::Ready(Ok(()));
        }
        match self.stream.read(buffer.initialize_unfilled()) {
            Ok(bytes) => {
                buffer.advance(bytes);
                Poll::Ready(Ok(()))
            }
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.stream.write(bytes) {
            Err(error) if would_block(&error) => Poll::Pending,
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.stream.shutdown(std::net::Shutdown::Write))
    }
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
