//! A foreign worker over HTTP/2: tokio and the h2 crate's server behind a setup written by hand. The program's own
//! worker never enters.

use std::sync::{OnceLock, mpsc};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use tokio::runtime::Runtime;
use tokio::sync::mpsc as tokio_mpsc;

use super::{HANG, ORIGIN, TestEdge, setup};

/// One for all foreign peers of a test binary.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a tokio runtime")
    })
}

/// Blocks, but not for longer than anything that works takes.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(async { tokio::time::timeout(HANG, future).await }).expect("nothing comes on the stream")
}

/// A turned link and the requests that come over it.
pub struct H2Worker {
    requests: mpsc::Receiver<Asked>,
    orders: tokio_mpsc::UnboundedSender<Order>,
    ended: mpsc::Receiver<Result<(), String>>,
}

enum Order {
    /// GOAWAY; what runs is finished.
    Goaway,
    /// The connection goes away without a word.
    Drop,
}

/// A request that the edge dispatched.
pub struct Asked {
    pub head: http::request::Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

impl H2Worker {
    /// With `streams` credits.
    #[track_caller]
    pub fn dial(edge: &TestEdge, streams: u32) -> H2Worker {
        H2Worker::with(edge, Builder::new().max_concurrent_streams(streams))
    }

    #[track_caller]
    pub fn with(edge: &TestEdge, builder: &mut Builder) -> H2Worker {
        let before = super::credits(&edge.status());
        let (link, answer) = edge.set_up(&setup(ORIGIN, "h2"));
        assert_eq!((answer.status(), answer.field("alpn")), (101, Some("h2")), "{answer:?}");
        let worker = H2Worker::on(link, builder);
        edge.until(|status| super::credits(status) > before || status["pools"][0]["in_flight"].as_u64() > Some(0));
        worker
    }

    /// As [`H2Worker::dial`], where requests wait for it already.
    #[track_caller]
    pub fn dial_at_once(edge: &TestEdge, streams: u32) -> H2Worker {
        let (link, answer) = edge.set_up(&setup(ORIGIN, "h2"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        H2Worker::on(link, Builder::new().max_concurrent_streams(streams))
    }

    /// On a connection that was turned.
    pub fn on(link: super::Peer, builder: &Builder) -> H2Worker {
        let (stream, left) = link.into_parts();
        H2Worker::on_with(stream, left, builder)
    }

    /// On a connection that was turned; its engine reads `left` first.
    pub fn on_with(stream: std::net::TcpStream, left: Vec<u8>, builder: &Builder) -> H2Worker {
        let (told, requests) = mpsc::channel();
        let (orders, mut ordered) = tokio_mpsc::unbounded_channel();
        let (tell_end, ended) = mpsc::channel();
        let builder = builder.clone();
        runtime().spawn(async move {
            let io = Prefixed::new(stream, left);
            let mut connection = match builder.handshake::<_, Bytes>(io).await {
                Ok(connection) => connection,
                Err(error) => {
                    let _ = tell_end.send(Err(error.to_string()));
                    return;
                }
            };
            let why = loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok((request, respond))) => {
                            let (head, body) = request.into_parts();
                            let _ = told.send(Asked { head, body, respond });
                        }
                        Some(Err(error)) => break Err(error.to_string()),
                        None => break Ok(()),
                    },
                    order = ordered.recv() => match order {
                        Some(Order::Goaway) => connection.graceful_shutdown(),
                        Some(Order::Drop) | None => break Ok(()),
                    },
                }
            };
            drop(connection);
            let _ = tell_end.send(why);
        });
        H2Worker { requests, orders, ended }
    }

    #[track_caller]
    pub fn accept(&self) -> Asked {
        self.requests.recv_timeout(HANG).expect("no request comes")
    }

    /// The next request, if one has come.
    pub fn try_accept(&self) -> Option<Asked> {
        self.requests.try_recv().ok()
    }

    /// For a moment no request comes.
    #[track_caller]
    pub fn is_quiet(&self) {
        if let Ok(asked) = self.requests.recv_timeout(super::QUIET) {
            panic!("came: {:?}", asked.head);
        }
    }

    pub fn goaway(&self) {
        let _ = self.orders.send(Order::Goaway);
    }

    /// Loses the link.
    pub fn lose(&self) {
        let _ = self.orders.send(Order::Drop);
    }

    /// Until the connection has ended, and how.
    #[track_caller]
    pub fn end(&self) -> Result<(), String> {
        self.ended.recv_timeout(HANG).expect("the link does not end")
    }

    /// Whether the connection has ended. Does not wait; ask this or [`H2Worker::end`].
    pub fn has_ended(&self) -> bool {
        self.ended.try_recv() != Err(mpsc::TryRecvError::Empty)
    }

    /// Serves every request with `answer` from now on.
    pub fn serve_all(self, answer: impl Fn(&http::request::Parts) -> String + Send + 'static) {
        let H2Worker { requests, orders, ended } = self;
        std::thread::spawn(move || {
            let _lives = (orders, ended);
            while let Ok(asked) = requests.recv() {
                let body = answer(&asked.head);
                asked.ok(&body);
            }
        });
    }
}

impl Asked {
    pub fn path(&self) -> &str {
        self.head.uri.path_and_query().map_or("", |path| path.as_str())
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// The rest of the body, and its trailers.
    #[track_caller]
    pub fn read_body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        block_on(async {
            let mut bytes = Vec::new();
            while let Some(piece) = self.body.data().await {
                let piece = piece?;
                self.body.flow_control().release_capacity(piece.len())?;
                bytes.extend_from_slice(&piece);
            }
            Ok((bytes, self.body.trailers().await?))
        })
    }

    /// At least one byte of the body.
    #[track_caller]
    pub fn read_some(&mut self) -> Option<Result<Bytes, h2::Error>> {
        loop {
            let piece = block_on(self.body.data());
            match &piece {
                Some(Ok(piece)) if piece.is_empty() => continue, // no more than the end's carrier
                Some(Ok(piece)) => self.body.flow_control().release_capacity(piece.len()).expect("it came"),
                _ => {}
            }
            return piece;
        }
    }

    /// A whole answer. Whether the edge still wants it is not asked.
    pub fn ok(mut self, body: &str) {
        let response = Response::builder().header("content-length", body.len()).body(()).expect("a response");
        if let Ok(mut stream) = self.respond.send_response(response, body.is_empty())
            && !body.is_empty()
        {
            let _ = stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
        }
    }

    /// A head whose body follows.
    #[track_caller]
    pub fn begin(&mut self, response: Response<()>) -> SendStream<Bytes> {
        self.respond.send_response(response, false).expect("the stream is open")
    }

    pub fn reset(mut self, reason: h2::Reason) {
        self.respond.send_reset(reason);
    }

    /// Until the edge resets the stream, and with what.
    #[track_caller]
    pub fn reset_by_edge(&mut self) -> h2::Reason {
        block_on(std::future::poll_fn(|cx| self.respond.poll_reset(cx))).expect("a reset, not the end of the link")
    }
}

/// A stream with bytes that were read too early.
pub struct Prefixed {
    left: Bytes,
    stream: tokio::net::TcpStream,
}

impl Prefixed {
    /// Call it inside of the runtime. `stream` does not block.
    pub fn new(stream: std::net::TcpStream, left: Vec<u8>) -> Prefixed {
        Prefixed { left: left.into(), stream: tokio::net::TcpStream::from_std(stream).expect("a socket") }
    }
}

impl tokio::io::AsyncRead for Prefixed {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            return std::pin::Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let n = this.left.len().min(into.remaining());
        into.put_slice(&this.left.split_to(n));
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Prefixed {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let mut stream = std::pin::Pin::new(&mut self.get_mut().stream);
        std::task::ready!(stream.as_mut().poll_shutdown(cx))?;
        // A close with unread bytes is a reset, and would take back the end of the last response.
        loop {
            let mut thrown = [0; 4096];
            let mut into = tokio::io::ReadBuf::new(&mut thrown);
            match std::task::ready!(tokio::io::AsyncRead::poll_read(stream.as_mut(), cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                _ => return std::task::Poll::Ready(Ok(())),
            }
        }
    }
}
