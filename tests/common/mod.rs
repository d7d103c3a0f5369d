//! What the end-to-end tests stand on: an edge on loopback, and everybody who speaks with it, each written without the
//! program's own parsers. What a test claims never enters.
//!
//! Nothing here depends on speed: a wait ends when what it waits for has come, and [`HANG`] only keeps a hang from
//! lasting. Silence is the exception: it is looked at for [`QUIET`], and too short a look can only miss a defect.
#![allow(dead_code)] // every test binary uses its own part
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

pub mod frames;
pub mod h2_client;
pub mod h2_worker;
pub mod load;
pub mod origin;
pub mod peer;
pub mod program;
pub mod relay;
pub mod tls;
pub mod worker;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use ptth::edge::config::EdgeConfig;
use ptth::edge::{Edge, Reloaded};
use ptth::worker::Worker;
use ptth::worker::config::{EdgeAddress, Secret, Target, WorkerConfig};
use sha2::{Digest as _, Sha256};

pub use peer::{Message, Peer};

/// Longer than anything that works takes, on the slowest machine.
pub const HANG: Duration = Duration::from_secs(30);
/// How long nothing must happen where nothing may.
pub const QUIET: Duration = Duration::from_millis(150);

/// The host of the pool `app`.
pub const HOST: &str = "app.example";
/// What its workers register.
pub const ORIGIN: &str = "http%3A%2F%2Fapp.example";
pub const SECRET: &str = "s3cret";
/// Shown to every admin address, whether it wants one or not.
pub const ADMIN_TOKEN: &str = "a-token-for-the-admin-address";

/// An edge that is about to start: one listener for both kinds, an admin address, the pool `app` for [`HOST`], and the
/// credential `web-1` with [`SECRET`] for it.
pub struct Setting {
    cores: u16,
    drain_max: String,
    edge: String,
    pool: String,
    credential: String,
    more: String,
    listen: String,
    admin: String,
    address: Option<SocketAddr>,
}

/// Every test of a list runs with each number of cores.
pub const CORES: [u16; 2] = [1, 2];

pub fn setting() -> Setting {
    Setting {
        cores: 1,
        drain_max: "20s".into(),
        edge: String::new(),
        pool: String::new(),
        credential: "links_max = 16".into(),
        more: String::new(),
        listen: String::new(),
        admin: format!("names = [\"admin\", \"{HOST}\", \"a\"]"), // peers ask by names of their own
        address: None,
    }
}

impl Setting {
    pub fn cores(mut self, cores: u16) -> Setting {
        self.cores = cores;
        self
    }

    pub fn drain_max(mut self, drain_max: &str) -> Setting {
        self.drain_max = drain_max.into();
        self
    }

    /// Lines of `[edge]`, apart from its cores and `drain_max`.
    pub fn edge(mut self, lines: &str) -> Setting {
        self.edge = lines.into();
        self
    }

    /// Lines of the pool `app`.
    pub fn pool(mut self, lines: &str) -> Setting {
        self.pool = lines.into();
        self
    }

    /// Lines of the credential `web-1`, apart from its name, secret and origins.
    pub fn credential(mut self, lines: &str) -> Setting {
        self.credential = lines.into();
        self
    }

    /// Lines of the listener, apart from its address and `accept`.
    pub fn listen(mut self, lines: &str) -> Setting {
        self.listen = lines.into();
        self
    }

    /// Lines of `[admin]`, apart from its address.
    pub fn admin(mut self, lines: &str) -> Setting {
        self.admin = lines.into();
        self
    }

    /// More tables.
    pub fn more(mut self, tables: &str) -> Setting {
        self.more = tables.into();
        self
    }

    /// Listen where an earlier edge did.
    pub fn at(mut self, address: SocketAddr) -> Setting {
        self.address = Some(address);
        self
    }

    pub fn start(self) -> TestEdge {
        let Setting { cores, drain_max, edge, pool, credential, more, listen, admin, address } = self;
        let hash = secret_hash(SECRET);
        let text = format!(
            r#"
            [edge]
            cores = {cores}
            drain_max = "{drain_max}"
            {edge}
            [[listen]]
            address = "127.0.0.1:1"
            accept = ["clients", "workers"]
            {listen}
            [admin]
            address = "127.0.0.1:2"
            {admin}
            [[pool]]
            name = "app"
            origins = ["{HOST}"]
            {pool}
            [[credential]]
            id = "web-1"
            secret_hash = "{hash}"
            origins = ["{HOST}"]
            {credential}
            {more}
            "#
        );
        let (mut config, _) = EdgeConfig::parse("edge.toml", &text, unix_seconds()).expect("the test's own TOML");
        // A file cannot ask for any free port; a test has to.
        for listen in &mut config.listens {
            listen.address.set_port(0);
        }
        if let Some(address) = address {
            config.listens[0].address = address;
        }
        if let Some(admin) = &mut config.admin {
            admin.set_port(0);
        }
        let edge = Edge::start(config.clone()).expect("an edge on loopback");
        let (addresses, admin) = (edge.addresses.clone(), edge.admin.expect("it has an admin address"));
        config.admin = Some(admin);
        config.listens.iter_mut().zip(&addresses).for_each(|(listen, address)| listen.address = *address);
        TestEdge { edge: Some(edge), config, address: addresses[0], addresses, admin }
    }
}

/// The number of cores is the only thing that differs.
pub fn edge() -> TestEdge {
    setting().start()
}

pub fn secret_hash(secret: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(secret) {
        text += &format!("{byte:02x}");
    }
    text
}

pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A running edge. When a test has passed, no task of it may have panicked.
pub struct TestEdge {
    edge: Option<Edge>,
    /// As it was started, with the ports that were chosen.
    pub config: EdgeConfig,
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
}

impl TestEdge {
    pub fn client(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// A client that has sent these bytes.
    #[track_caller]
    pub fn sent(&self, bytes: impl AsRef<[u8]>) -> Peer {
        let mut client = self.client();
        client.send(bytes);
        client
    }

    /// A turned HTTP/1.1 link.
    #[track_caller]
    pub fn h1_link(&self) -> Peer {
        let before = setups(&self.status());
        let (link, answer) = self.set_up(&setup(ORIGIN, "http%2F1.1"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        self.until(|status| setups(status) > before);
        link
    }

    /// Sends a setup and reads its answer.
    #[track_caller]
    pub fn set_up(&self, setup: &str) -> (Peer, Message) {
        let mut link = Peer::connect(self.address);
        link.send(setup);
        let answer = link.response();
        (link, answer)
    }

    /// Starts our own worker in front of `origin`.
    pub fn worker(&self, origin: SocketAddr) -> TestWorker {
        self.worker_of(origin, |_| {})
    }

    pub fn worker_of(&self, origin: SocketAddr, change: impl FnOnce(&mut WorkerConfig)) -> TestWorker {
        let before = setups(&self.status());
        let mut links = 0;
        let worker = self.worker_at_once(origin, |config| {
            change(config);
            links = u64::from(config.links);
        });
        self.until(|status| setups(status) >= before + links && credits(status) > 0);
        worker
    }

    /// As [`TestEdge::worker_of`], without waiting for its links.
    pub fn worker_at_once(&self, origin: SocketAddr, change: impl FnOnce(&mut WorkerConfig)) -> TestWorker {
        let mut config = worker_config(self.address, origin, Secret::basic("web-1", SECRET));
        config.serve = ptth::wire::Scope::Origins(vec![format!("http://{HOST}").parse().expect("an origin")]);
        change(&mut config);
        TestWorker(Some(Worker::start(config).expect("a worker on loopback")))
    }

    /// `GET` from the admin address.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Message {
        let mut admin = Peer::connect(self.admin);
        admin.send(admin_request(path));
        admin.response()
    }

    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.admin_get("/status").body).expect("/status is JSON")
    }

    /// Waits until `/status` is as wanted.
    #[track_caller]
    pub fn until(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let from = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(from.elapsed() < HANG, "never came: {status:#}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn until_queued(&self, requests: u64) {
        self.until(|status| status["pools"][0]["queued"] == requests);
    }

    #[track_caller]
    pub fn until_credits(&self, wanted: u64) {
        self.until(|status| credits(status) == wanted);
    }

    #[track_caller]
    pub fn until_links(&self, links: u64) {
        self.until(|status| status["pools"][0]["links"] == links);
    }

    /// As SIGHUP does.
    pub fn reload_files(&self) {
        self.edge.as_ref().expect("it runs").reload_files();
    }

    /// Takes another configuration, and waits until it is in force.
    #[track_caller]
    pub fn reload(&self, change: impl FnOnce(&mut EdgeConfig)) -> u64 {
        let mut config = self.config.clone();
        change(&mut config);
        match self.try_reload(config) {
            Ok(Reloaded::Anew(generation)) => generation,
            other => panic!("not reloaded: {other:?}"),
        }
    }

    pub fn try_reload(&self, config: EdgeConfig) -> Result<Reloaded, String> {
        self.edge.as_ref().expect("it runs").reload(config)
    }

    /// Until no generation from before is left.
    #[track_caller]
    pub fn until_alone(&self) {
        self.until(|status| status["leaving"].as_array().is_some_and(Vec::is_empty));
    }

    pub fn drain(&self) {
        self.edge.as_ref().expect("it runs").drain();
    }

    /// Until it has ended. True: all was finished.
    pub fn wait(mut self) -> bool {
        within_hang(self.edge.take().expect("it runs"), |edge| edge.wait().expect("no core panicked"))
    }
}

/// A worker with one link to `edge` without TLS, for the pool `app`, before an HTTP/1.1 server.
pub fn worker_config(edge: SocketAddr, origin: SocketAddr, authorization: Secret) -> WorkerConfig {
    let edge = EdgeAddress { scheme: ptth::wire::Scheme::Http, host: edge.ip().to_string(), port: edge.port() };
    let to = Target::Http { host: origin.ip().to_string(), port: origin.port() };
    let serve = ptth::wire::Scope::Pool("app".into());
    WorkerConfig { links: 1, ..WorkerConfig::new(vec![edge], serve, to, Some(authorization)) }
}

/// Requests that the pool's links would take now.
pub fn credits(status: &serde_json::Value) -> u64 {
    status["pools"][0]["credits"].as_u64().expect("a number")
}

/// Links that came up since the start.
pub fn setups(status: &serde_json::Value) -> u64 {
    status["counters"]["setups"].as_u64().expect("a number")
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        let Some(edge) = self.edge.take() else { return };
        if !std::thread::panicking() && self.config.admin_access.tls.is_none() {
            let mut admin = Peer::connect(self.admin);
            admin.send(admin_request("/status"));
            let status: serde_json::Value = serde_json::from_slice(&admin.response().body).expect("JSON");
            for core in status["cores"].as_array().expect("a list") {
                assert_eq!(core["panics"], 0, "a task of core {} panicked", core["core"]);
            }
        }
        edge.drain();
    }
}

fn admin_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: close\r\n\r\n")
}

/// Our own worker; a drain ends it.
pub struct TestWorker(Option<Worker>);

impl TestWorker {
    pub fn drain(&self) {
        self.0.as_ref().expect("it runs").drain();
    }

    pub fn wait(mut self) -> bool {
        within_hang(self.0.take().expect("it runs"), |worker| worker.wait().expect("it did not panic"))
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if let Some(worker) = self.0.take() {
            worker.drain();
        }
    }
}

/// Runs `blocking` on a thread, and fails if it hangs.
#[track_caller]
pub fn within_hang<A: Send + 'static, T: Send + 'static>(
    argument: A,
    blocking: impl FnOnce(A) -> T + Send + 'static,
) -> T {
    let (told, tells) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || told.send(blocking(argument)));
    match tells.recv_timeout(HANG) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().expect_err("it told nothing")),
    }
}

pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

/// A setup as wire-formats §1 writes it.
pub fn setup(origins: &str, alpn: &str) -> String {
    format!(
        "GET /.well-known/ptth/{origins}/ HTTP/1.1\r\nHost: edge.example\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\
         Authorization: {}\r\nALPN: {alpn}\r\n\r\n",
        basic("web-1", SECRET)
    )
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// A request with a body whose length is known.
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A plain answer.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Bytes that repeat late, so that a lost, doubled or moved piece shows.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// An answer that the edge made up: its status, and the error token that interface.md names for it.
#[track_caller]
pub fn assert_own(answer: &Message, status: u16, error: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    let proxy_status = answer.field("proxy-status");
    assert!(
        proxy_status.is_some_and(|value| value.split(';').any(|part| part.trim() == format!("error={error}"))),
        "{answer:?}"
    );
    assert!(!answer.body.is_empty() && answer.body.len() < 300, "a short text: {answer:?}");
    let wants_retry_after = matches!(status, 503 | 429);
    assert_eq!(answer.field("retry-after").is_some(), wants_retry_after, "{answer:?}");
}

/// A port of loopback where nobody listens.
pub fn closed_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

fn stream_to(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, HANG).expect("the listener takes connections");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}
