//! `ptth demo`: an edge, a worker and a small server in one process, on loopback, so that a newcomer sees a request go all
//! the way. The three are the real ones, and talk over real sockets; only their configuration is made here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::cli::DemoOptions;
use crate::client::{Clocks, Service, h1};
use crate::edge::Edge;
use crate::edge::config::{AdminAccess, Cores, Credential, EdgeConfig, Limits, Listen, Pool, Proof, SecretHash};
use crate::exchange::{Answer, Ask, Latch, Length, Piece, Reply, RequestBody};
use crate::fault::Fault;
use crate::io::{self, Listener, Timer};
use crate::limits::{DRAIN_MS_MAX, LISTEN_BACKLOG};
use crate::wire::origin::Origin;
use crate::wire::setup::Scope;
use crate::wire::{OriginPattern, Scheme};
use crate::worker::Worker;
use crate::worker::config::{EdgeAddress, Secret, Target, WorkerConfig};

const WORKER_ID: &str = "demo";

/// Runs until a signal ends it.
pub fn run(options: DemoOptions) -> Result<(), String> {
    let signals = crate::signals::watch()?;
    io::raise_fd_limit();
    let hidden = start_server()?;
    let secret = random_secret()?;
    let edge = Edge::start(edge_config(options, &secret))
        .map_err(|why| format!("{why} (other addresses: ptth demo --address 127.0.0.1:0 --admin 127.0.0.1:0)"))?;
    let address = edge.addresses[0];
    let worker = Worker::start(worker_config(address, hidden, &secret)?)?;
    println!("A server that nobody can reach listens on {hidden}; a worker has dialed out to the edge for it.");
    println!("Ask the edge:\n\n    curl -i http://{address}/hello\n");
    if let Some(admin) = edge.admin {
        println!("What it holds:  http://{admin}/status  http://{admin}/metrics");
    }
    println!("Ctrl-C ends it.");
    let (ended, ends) = mpsc::channel();
    signals.on_end(move || {
        let _ = ended.send(()); // nobody listens any more only after the end
    });
    let _ = ends.recv();
    worker.drain();
    edge.drain();
    let finished = worker.wait()? & edge.wait()?;
    if finished { Ok(()) } else { Err("30 s ran out before everything was finished".into()) }
}

fn random_secret() -> Result<String, String> {
    use base64::Engine as _;
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

fn edge_config(options: DemoOptions, secret: &str) -> EdgeConfig {
    EdgeConfig {
        file: "demo".into(),
        cores: Cores::All,
        drain_ms_max: DRAIN_MS_MAX,
        limits: Limits::default(),
        trusted_proxies: Vec::new(),
        listens: vec![Listen::new(options.address, true, true)],
        admin: Some(options.admin),
        admin_access: AdminAccess::default(),
        pools: vec![Pool::new("demo", vec![OriginPattern::Any])],
        credentials: vec![Credential {
            id: WORKER_ID.into(),
            proof: Proof::Secrets(vec![SecretHash::of(secret.as_bytes())]),
            origins: vec![OriginPattern::Any],
            links_max: 16,
            expires_unix: None,
            legacy: false,
        }],
        credentials_dir: None,
        tokens: None,
        access_log: None,
    }
}

fn worker_config(edge: SocketAddr, hidden: SocketAddr, secret: &str) -> Result<WorkerConfig, String> {
    let edges = vec![EdgeAddress { scheme: Scheme::Http, host: edge.ip().to_string(), port: edge.port() }];
    let serve = Scope::Origins(vec![Origin::parse("http://localhost")?]);
    let to = Target::Http { host: hidden.ip().to_string(), port: hidden.port() };
    Ok(WorkerConfig::new(edges, serve, to, Some(Secret::basic(WORKER_ID, secret))))
}

/// The server behind the worker. It ends with the process.
fn start_server() -> Result<SocketAddr, String> {
    let (told, tells) = mpsc::channel();
    std::thread::Builder::new()
        .name("server".into())
        .spawn(move || {
            let here = SocketAddr::from(([127, 0, 0, 1], 0));
            let served = io::run(|| serve(here, told.clone()));
            if let Err(fault) = served {
                let _ = told.send(Err(fault.to_string()));
            }
        })
        .map_err(|error| format!("a thread could not be started: {error}"))?;
    tells.recv().map_err(|_| "the sample server ended".to_owned())?
}

async fn serve(here: SocketAddr, told: mpsc::Sender<Result<SocketAddr, String>>) {
    let opened = Listener::bind(here, LISTEN_BACKLOG).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let mut listener = match opened {
        Ok((address, listener)) => {
            let _ = told.send(Ok(address));
            listener
        }
        Err(error) => {
            let _ = told.send(Err(format!("the sample server cannot listen on {here}: {error}")));
            return;
        }
    };
    let never = Rc::new(Latch::default());
    let page = Arc::new(Page);
    while let Ok((conn, _)) = listener.accept().await {
        let (never, page) = (never.clone(), page.clone());
        io::spawn(async move {
            h1::serve(Box::new(conn), &*page, &never, &Clocks::USUAL).await;
        });
    }
}

/// Says what it was asked, and by whom.
struct Page;

impl Service for Page {
    async fn serve(
        &self,
        ask: Ask,
        _body: &mut impl RequestBody,
        answer: &mut impl Answer,
        _timer: &mut Timer,
    ) -> Result<(), Fault> {
        let mut text = format!("Hello from behind the worker.\n\n{} {}\n", ask.method, ask.path);
        for (name, value) in &ask.headers {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let body = Bytes::from(text);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer.head(Reply { status: StatusCode::OK, headers, length: Length::Exact(body.len() as u64) })?;
        if ask.method != Method::HEAD {
            answer.put(Piece::Data { bytes: body, last: true })?;
        }
        Ok(())
    }
}
