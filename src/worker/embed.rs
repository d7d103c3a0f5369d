//! A server of this process as a worker: it runs on tokio and is asked over pairs of sockets, so that links, credits, drains
//! and redials are the worker program's own. What the server answers never enters.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tower_service::Service;

use super::config::{Services, Target, Within, WorkerConfig, WorkerFlags};
use super::{Order, Worker};
use crate::io;
use crate::xcore::Post;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Which edges a server of this process works for, and as whom. What it takes are the keys of `worker.toml`; mistakes in them
/// are told by [`serve`].
#[derive(Clone, Debug, Default)]
pub struct Edges {
    file: Option<PathBuf>,
    flags: WorkerFlags,
    speaks_h2: bool,
}

impl Edges {
    /// By their URLs: `["https://edge.example:8443"]`.
    #[must_use]
    pub fn new<E: Into<String>>(edges: impl IntoIterator<Item = E>) -> Edges {
        let flags = WorkerFlags { edges: edges.into_iter().map(Into::into).collect(), ..WorkerFlags::default() };
        Edges { flags, ..Edges::default() }
    }

    /// As a `worker.toml` says; its `to` counts for nothing, and may be missing.
    #[must_use]
    pub fn of_file(path: impl Into<PathBuf>) -> Edges {
        Edges { file: Some(path.into()), ..Edges::default() }
    }

    /// One more origin to register: `"https://app.example.com"`.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Edges {
        self.flags.serve.push(origin.into());
        self
    }

    /// A pool to register by its name, instead of origins.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<String>) -> Edges {
        self.flags.pool = Some(pool.into());
        self
    }

    /// A file of one line, `id:secret`.
    #[must_use]
    pub fn credential_file(mut self, path: impl Into<PathBuf>) -> Edges {
        self.flags.credential_file = Some(path.into());
        self
    }

    /// A file with a token.
    #[must_use]
    pub fn bearer_file(mut self, path: impl Into<PathBuf>) -> Edges {
        self.flags.bearer_file = Some(path.into());
        self
    }

    /// A certificate and its key, in PEM, for mutual TLS.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Edges {
        (self.flags.certificate, self.flags.key) = (Some(certificate.into()), Some(key.into()));
        self
    }

    /// Authorities that may speak for the edges, in PEM, instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Edges {
        self.flags.ca_file = Some(path.into());
        self
    }

    /// An HTTP proxy on the way to the edges.
    #[must_use]
    pub fn via(mut self, proxy: impl Into<String>) -> Edges {
        self.flags.via = Some(proxy.into());
        self
    }

    /// Links to each address of each edge.
    #[must_use]
    pub fn links(mut self, links: u32) -> Edges {
        self.flags.links = Some(links);
        self
    }

    /// Requests at once, over all links.
    #[must_use]
    pub fn concurrency(mut self, requests: u32) -> Edges {
        self.flags.concurrency = Some(requests);
        self
    }

    /// The service is asked over HTTP/2, as gRPC wants it, and a WebSocket by extended CONNECT (RFC 8441). Without this it is
    /// HTTP/1.1.
    #[must_use]
    pub fn http2(mut self) -> Edges {
        self.speaks_h2 = true;
        self
    }

    fn read(&self) -> Result<Services, String> {
        let flags = WorkerFlags { to: Some("http://localhost".into()), ..self.flags.clone() };
        let path: Option<&Path> = self.file.as_deref();
        match WorkerConfig::read(path, &flags) {
            Ok((services, _)) => Ok(services),
            Err(mistakes) => Err(mistakes.to_string().trim_end().to_owned()),
        }
    }
}

/// Serves what the edges send with `service`, a tower service such as axum's `Router`, for as long as it is polled; dropped, it
/// tells its links to end, and what runs is finished behind its back.
///
/// Call it on a tokio runtime with I/O. The links live on a thread of their own; lost ones are dialed again. A service that
/// panics or fails answers 502.
///
/// # Errors
/// Mistakes in `edges`, and what keeps the thread from starting.
pub async fn serve<S, B>(edges: Edges, service: S) -> Result<(), String>
where
    S: Service<Request<Incoming>, Response = hyper::Response<B>> + Clone + Send + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    serve_until(edges, service, std::future::pending()).await
}

/// As [`serve`], until `end` is ready: then the links are told to end, what runs is finished, and it returns.
///
/// # Errors
/// As [`serve`]; and where 30 s were not enough to finish what ran.
pub async fn serve_until<S, B>(edges: Edges, service: S, end: impl Future<Output = ()>) -> Result<(), String>
where
    S: Service<Request<Incoming>, Response = hyper::Response<B>> + Clone + Send + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let (dials, mut dialed) = mpsc::unbounded_channel();
    let within = Within::new(edges.speaks_h2, move |end: UnixStream| {
        dials.send(end).map_err(|_| "the service has ended".to_owned())
    });
    let mut services = edges.read()?;
    services.0.iter_mut().for_each(|one| one.to = Target::Within(within.clone()));
    io::raise_fd_limit();
    let worker = Worker::start(services)?;
    let _drains = DrainsAtEnd(worker.post.clone());
    // Ends when the worker has: it holds the other end of the channel.
    tokio::spawn(async move {
        while let Some(end) = dialed.recv().await {
            tokio::spawn(answer(end, service.clone(), edges.speaks_h2));
        }
    });
    let post = worker.post.clone();
    let mut ended = tokio::task::spawn_blocking(move || worker.wait());
    let mut end = pin!(end);
    let mut is_told = false;
    let ended = std::future::poll_fn(|cx| {
        if !is_told && end.as_mut().poll(cx).is_ready() {
            is_told = true;
            let _ = post.send(Order::Drain); // a full box holds one already
        }
        pin!(&mut ended).poll(cx)
    });
    match ended.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("30 s ran out before everything was finished".into()),
        Ok(Err(why)) => Err(why),
        Err(error) => Err(format!("the worker's end could not be waited for: {error}")),
    }
}

struct DrainsAtEnd(Post<Order>);

impl Drop for DrainsAtEnd {
    fn drop(&mut self) {
        let _ = self.0.send(Order::Drain); // a full box holds one already
    }
}

/// One connection of the worker's.
async fn answer<S, B>(end: UnixStream, service: S, speaks_h2: bool)
where
    S: Service<Request<Incoming>, Response = hyper::Response<B>> + Clone + Send + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let stream = end.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(end));
    let stream = match stream {
        Ok(stream) => TokioIo::new(stream),
        Err(error) => return tracing::error!(%error, "a connection to the service could not be made"),
    };
    let service = TowerToHyperService::new(service);
    let served = if speaks_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.enable_connect_protocol().max_concurrent_streams(None);
        builder.serve_connection(stream, service).await
    } else {
        http1::Builder::new().serve_connection(stream, service).with_upgrades().await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the service broke");
    }
}
