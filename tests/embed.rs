//! A server on tokio that is a worker itself: axum behind a real edge, without the worker program.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message as Frame, WebSocketUpgrade};
use axum::http::{HeaderMap, Request, Version};
use axum::routing::{any, get, post};
use common::{HOST, ORIGIN, SECRET, TestEdge, assert_own, edge, get as asking, pattern, setting};
use ptth::worker::{Edges, serve, serve_until};
use tokio::sync::oneshot;

/// A file with the credential that [`common`]'s edges know.
struct Credential(PathBuf);

impl Credential {
    fn new() -> Credential {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("ptth-embed-{}-{number}", std::process::id()));
        std::fs::write(&file, format!("web-1:{SECRET}\n")).expect("a temporary file");
        Credential(file)
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server on a runtime of its own, until it is told to end.
struct Server {
    ends: Option<oneshot::Sender<()>>,
    thread: JoinHandle<Result<(), String>>,
    _credential: Credential,
}

impl Server {
    fn start(edge: SocketAddr, app: Router, change: impl FnOnce(Edges) -> Edges) -> Server {
        let credential = Credential::new();
        let origin = ORIGIN.replace("%3A", ":").replace("%2F", "/");
        let edges = Edges::new([format!("http://{edge}")]).origin(origin).credential_file(&credential.0);
        let edges = change(edges.links(1).concurrency(8));
        let (ends, end) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve_until(edges, app, async { drop(end.await) }))
        });
        Server { ends: Some(ends), thread, _credential: credential }
    }

    fn end(mut self) -> Result<(), String> {
        drop(self.ends.take());
        self.thread.join().expect("it does not panic")
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { headers["x-forwarded-host"].to_str().unwrap().to_owned() }))
        .route("/version", get(|request: Request<Body>| async move { format!("{:?}", request.version()) }))
        .route("/echo", post(|request: Request<Body>| async move { request.into_body() }))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/panics",
            get(|| async {
                if true {
                    panic!("a handler that is broken")
                }
            }),
        )
        .route(
            "/ws",
            any(|upgrade: WebSocketUpgrade| async move {
                upgrade.on_upgrade(|mut socket| async move {
                    while let Some(Ok(Frame::Text(text))) = socket.recv().await {
                        socket.send(Frame::Text(format!("heard {text}").into())).await.expect("the client is there");
                    }
                })
            }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
}

fn served(change: impl FnOnce(Edges) -> Edges) -> (TestEdge, Server) {
    let edge = edge();
    let server = Server::start(edge.address, app(), change);
    edge.until_links(1);
    (edge, server)
}

#[test]
fn a_router_answers_through_an_edge_over_either_version() {
    for h2 in [false, true] {
        let (edge, server) = served(|edges| if h2 { edges.http2() } else { edges });
        let mut client = edge.client();
        assert_eq!(client.ask("/").text(), HOST);
        let version = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(client.ask("/version").text(), format!("{version:?}"));
        assert_eq!(client.ask("/nowhere").status(), 404);
        let mut large = pattern(3_000_000);
        client.send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", large.len()));
        let mut sends = client.twin();
        let sent = std::mem::take(&mut large);
        let thread = std::thread::spawn(move || {
            sends.send(&sent);
            sent
        });
        let answer = client.response();
        assert!(answer.body == thread.join().unwrap(), "the body was changed");
        client.send(format!("POST /length HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "5");
        assert_eq!(server.end(), Ok(()));
        edge.until_links(0);
    }
}

#[test]
fn a_websocket_runs_to_a_handler() {
    let (edge, server) = served(|edges| edges);
    let mut client = edge.sent(format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    let answer = client.head();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")); // RFC 6455 §1.3
    client.send(b"\x81\x82\0\0\0\0hi"); // text, masked by zeros
    assert_eq!(client.read(10), b"\x81\x08heard hi");
    client.reset();
    assert_eq!(server.end(), Ok(()));
}

#[test]
fn a_handler_that_panics_is_a_502_and_harms_nobody() {
    let (edge, server) = served(|edges| edges);
    assert_own(&edge.sent(asking("/panics")).response(), 502, "connection_terminated");
    assert_eq!(edge.client().ask("/").text(), HOST);
    assert_eq!(server.end(), Ok(()));
}

#[test]
fn as_many_requests_run_at_once_as_were_promised_and_an_end_waits_for_them() {
    let edge = edge();
    let waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>> = Arc::default();
    let waits = waiting.clone();
    let app = Router::new().route(
        "/",
        get(|| async move {
            let (go, goes) = oneshot::channel();
            waits.lock().unwrap().push(go);
            drop(goes.await);
            "served"
        }),
    );
    let server = Server::start(edge.address, app, |edges| edges.concurrency(3));
    edge.until_credits(3);
    let mut clients: Vec<_> = (0..5).map(|_| edge.sent(asking("/"))).collect();
    common::peer::until(|| waiting.lock().unwrap().len() == 3);
    edge.until_queued(2);
    waiting.lock().unwrap().drain(..).for_each(|go| go.send(()).expect("it waits"));
    common::peer::until(|| waiting.lock().unwrap().len() == 2);
    // It is told to end while two of them run.
    let ends = std::thread::spawn(|| server.end());
    waiting.lock().unwrap().drain(..).for_each(|go| go.send(()).expect("it waits"));
    for client in &mut clients {
        assert_eq!(client.response().text(), "served");
    }
    assert_eq!(ends.join().unwrap(), Ok(()));
}

#[test]
fn a_future_that_is_dropped_ends_its_links() {
    let edge = setting().start();
    let credential = Credential::new();
    let edges = Edges::new([format!("http://{}", edge.address)]).pool("app").credential_file(&credential.0).links(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let served = runtime.spawn(serve(edges, app()));
    edge.until_links(1);
    served.abort();
    edge.until_links(0);
}

#[test]
fn mistakes_are_told_before_anything_is_dialed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = |edges: Edges| runtime.block_on(serve(edges, app())).expect_err("a mistake");
    let edges = || Edges::new(["http://127.0.0.1:1"]);
    let why = told(edges());
    assert!(why.contains("--serve") && why.contains("--credential-file"), "{why}");
    let why = told(edges().origin("app.example/x").credential_file("/nowhere/at.all"));
    assert!(why.contains("/nowhere/at.all") && why.contains("--serve: not an origin"), "{why}");
    let why = told(Edges::of_file("/nowhere/worker.toml"));
    assert!(why.contains("/nowhere/worker.toml"), "{why}");
}
