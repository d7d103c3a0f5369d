//! `worker.toml` and the flags of `ptth worker`: what they may say, and every mistake in them. Nothing is dialled here.

use crate::limits;
use crate::settings::{At, Document, Mistakes, Place, Section, Shape, io_reason, plain, read_bounded, read_text};
use crate::wire::Scheme;
use crate::wire::about::{About, is_label_name, is_label_value, is_worker_id};
use crate::wire::origin::Origin;
use crate::wire::setup::{Scope, basic_authorization};
use http::uri::{Authority, PathAndQuery};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a checked `worker.toml`, flags included, asks for: at least one service, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services(pub Vec<WorkerConfig>);

impl From<WorkerConfig> for Services {
    fn from(config: WorkerConfig) -> Services {
        Services(vec![config])
    }
}

/// One server behind the worker, and the edges that it is offered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// At least one, none twice.
    pub edges: Vec<EdgeAddress>,
    /// What the worker registers; no origin twice.
    pub serve: Scope,
    pub to: Target,
    /// `None`: the certificate alone says who this is.
    pub authorization: Option<Secret>,
    /// Where it came from. Whoever dials reads it again: a token is renewed while the worker runs.
    pub secret_file: Option<SecretFile>,
    /// The edges are HAProxy's (`attach-srv`): there is no setup, so nothing is registered, and the certificate or the address alone
    /// says who this is.
    pub haproxy: bool,
    /// What edges are told about this worker.
    pub about: About,
    pub tls: TlsFiles,
    /// Edges are reached through this proxy.
    pub via: Option<Via>,
    /// For each address behind each edge.
    pub links: u32,
    /// Credits in all, shared over the links.
    pub concurrency: u32,
    /// `concurrency` is only where it begins.
    pub adaptive: Option<Adaptive>,
    /// How the server is asked whether it is well.
    pub health: Option<Health>,
}

impl Health {
    /// Every other key at its default.
    #[must_use]
    pub fn of(path: PathAndQuery) -> Health {
        Health {
            path,
            every_ms: limits::HEALTH_MS,
            timeout_ms: limits::HEALTH_TIMEOUT_MS,
            rise: limits::HEALTH_RISE,
            fall: limits::HEALTH_FALL,
        }
    }
}

/// Between what the concurrency may move with the server's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    pub min: u32,
    pub max: u32,
}

/// How the server is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: PathAndQuery,
    pub every_ms: u64,
    pub timeout_ms: u64,
    /// So many good answers one after the other make a server well, and so many bad ones unwell.
    pub rise: u32,
    pub fall: u32,
}

/// What TLS needs, as files; [`super::tls`] reads them. The paths already have the configuration's folder in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that may speak for an edge; `None`: the system's.
    pub ca_file: Option<At<PathBuf>>,
    /// What this worker shows to its edges.
    pub identity: Option<Identity>,
    /// Authorities that may speak for the server; `None`: the system's.
    pub to_ca_file: Option<At<PathBuf>>,
    /// Where the first edge is named, and where the server is: what is wrong with the system's authorities is said there.
    pub edges_at: Place,
    pub to_at: Place,
}

impl TlsFiles {
    /// No files at all.
    pub const NONE: TlsFiles =
        TlsFiles { ca_file: None, identity: None, to_ca_file: None, edges_at: Place::File, to_at: Place::File };
}

/// An HTTP proxy that connects to edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// A name or an IP address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
    /// `Proxy-Authorization`.
    pub authorization: Option<Secret>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: At<PathBuf>,
    pub key: At<PathBuf>,
}

impl WorkerConfig {
    /// Every other key at its default.
    #[must_use]
    pub fn new(edges: Vec<EdgeAddress>, serve: Scope, to: Target, authorization: Option<Secret>) -> WorkerConfig {
        WorkerConfig {
            edges,
            serve,
            to,
            authorization,
            secret_file: None,
            haproxy: false,
            about: About::default(),
            tls: TlsFiles::NONE,
            via: None,
            links: limits::WORKER_LINKS,
            concurrency: limits::WORKER_CONCURRENCY,
            adaptive: None,
            health: None,
        }
    }
}

impl WorkerConfig {
    /// Whether links of the one are as good as links of the other, and their server is the same: all but `concurrency`,
    /// `adaptive` and `health`.
    #[must_use]
    pub fn links_as(&self, other: &WorkerConfig) -> bool {
        let files = |config: &WorkerConfig| {
            let tls = &config.tls;
            let path = |at: &At<PathBuf>| at.value.clone();
            (tls.ca_file.as_ref().map(path), tls.to_ca_file.as_ref().map(path))
        };
        self.edges == other.edges
            && self.serve == other.serve
            && self.to == other.to
            && self.authorization == other.authorization
            && self.secret_file == other.secret_file
            && self.haproxy == other.haproxy
            && self.links == other.links
            && self.via == other.via
            && self.about == other.about
            && files(self) == files(other)
    }
}

/// An edge to dial. The name is resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeAddress {
    /// `https`: over TLS.
    pub scheme: Scheme,
    /// A name or an IP address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
}

impl EdgeAddress {
    /// Nobody but this machine sees what goes there.
    fn is_here(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        // RFC 6761 §6.3.
        self.host == "localhost" || self.host.ends_with(".localhost") || self.host.parse().is_ok_and(is_loopback)
    }
}

/// `host:port`, with the brackets that an IPv6 address needs in `Host` and in a log line.
impl fmt::Display for EdgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_authority(f, &self.host, self.port)
    }
}

/// The server behind the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// HTTP/1.1 over TCP. An IPv6 address has no brackets.
    Http {
        host: String,
        port: u16,
    },
    /// HTTP/1.1 over TLS.
    Https {
        host: String,
        port: u16,
    },
    /// HTTP/2 over TCP, from its preface on.
    H2c {
        host: String,
        port: u16,
    },
    /// HTTP/1.1 over a Unix socket.
    Unix(PathBuf),
    Within(Within),
}

/// A server in this process: each connection to it is one end of a pair of sockets.
#[derive(Clone)]
pub struct Within {
    speaks_h2: bool,
    takes: Arc<Takes>,
}

/// Takes the server's end of a connection; the error says why not.
type Takes = dyn Fn(UnixStream) -> Result<(), String> + Send + Sync;

impl Within {
    /// `takes` hands the server its end of a new connection.
    pub fn new(speaks_h2: bool, takes: impl Fn(UnixStream) -> Result<(), String> + Send + Sync + 'static) -> Within {
        Within { speaks_h2, takes: Arc::new(takes) }
    }

    /// Our end of a new connection.
    ///
    /// # Errors
    /// The server has ended, or there is no descriptor left.
    pub fn connect(&self) -> Result<UnixStream, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        (self.takes)(theirs)?;
        Ok(ours)
    }
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("speaks_h2", &self.speaks_h2).finish_non_exhaustive()
    }
}

/// The same server.
impl PartialEq for Within {
    fn eq(&self, other: &Within) -> bool {
        Arc::ptr_eq(&self.takes, &other.takes)
    }
}

impl Eq for Within {}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Http { host, port } => write_url(f, "http", host, *port),
            Target::Https { host, port } => write_url(f, "https", host, *port),
            Target::H2c { host, port } => write_url(f, "h2c", host, *port),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Within(_) => f.write_str("a server in this process"),
        }
    }
}

impl Target {
    /// HTTP/2 from the first byte on.
    #[must_use]
    pub fn speaks_h2(&self) -> bool {
        matches!(self, Target::H2c { .. } | Target::Within(Within { speaks_h2: true, .. }))
    }

    /// What stands in `Host` where nobody asked for another.
    #[must_use]
    pub fn authority(&self) -> Authority {
        let (Target::Http { host, port } | Target::Https { host, port } | Target::H2c { host, port }) = self else {
            return Authority::from_static("localhost");
        };
        let text = EdgeAddress { scheme: Scheme::Http, host: host.clone(), port: *port }.to_string();
        Authority::try_from(text).unwrap_or(Authority::from_static("localhost"))
    }
}

fn write_url(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    write!(f, "{scheme}://")?;
    write_authority(f, host, port)
}

fn write_authority(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

/// The value of the `Authorization` field. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `Basic`, from an id and its secret.
    #[must_use]
    pub fn basic(id: &str, secret: &str) -> Secret {
        Secret(basic_authorization(id, secret))
    }

    /// `Bearer`, from a token.
    #[must_use]
    pub fn bearer(token: &str) -> Secret {
        Secret(format!("Bearer {token}"))
    }

    /// For the setup request, and for nothing else.
    #[must_use]
    pub fn header_value(&self) -> &str {
        &self.0
    }
}

/// `credential_file` or `bearer_file`. The path already has the configuration's folder in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFile {
    /// `id:secret`.
    Credential(PathBuf),
    /// A token.
    Bearer(PathBuf),
}

impl SecretFile {
    /// What is in it now. Blocks: not for a core.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(&self) -> Result<Secret, String> {
        let mut mistakes = Mistakes::new("");
        let (SecretFile::Credential(path) | SecretFile::Bearer(path)) = self;
        let file = At { value: path.clone(), place: Place::File };
        let secret = secret_line(&file, &mut mistakes).and_then(|line| match self {
            SecretFile::Credential(_) => basic(&line, &file, &mut mistakes),
            SecretFile::Bearer(_) => bearer(&line, &file, &mut mistakes),
        });
        secret.ok_or_else(|| mistakes.list().iter().map(|mistake| mistake.text.as_str()).collect::<Vec<_>>().join("; "))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The flags of `ptth worker`, each as it was given. A flag replaces the key of the file, and its alternative
/// (`--pool` also replaces `serve`, `--bearer-file` also `credential_file`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerFlags {
    pub edges: Vec<String>,
    pub serve: Vec<String>,
    pub pool: Option<String>,
    pub to: Option<String>,
    pub credential_file: Option<PathBuf>,
    pub bearer_file: Option<PathBuf>,
    pub haproxy: bool,
    pub ca_file: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub to_ca_file: Option<PathBuf>,
    pub via: Option<String>,
    pub via_credential_file: Option<PathBuf>,
    pub worker_id: Option<String>,
    /// Each `name=value`.
    pub labels: Vec<String>,
    pub links: Option<u32>,
    pub concurrency: Option<u32>,
    pub adaptive: bool,
    pub concurrency_min: Option<u32>,
    pub concurrency_max: Option<u32>,
    /// The path of `health`, with its other keys at their defaults.
    pub health: Option<String>,
}

const TOP: Shape = Shape {
    name: "worker.toml",
    keys: &[
        "edges",
        "serve",
        "pool",
        "to",
        "credential_file",
        "bearer_file",
        "haproxy",
        "certificate",
        "key",
        "ca_file",
        "to_ca_file",
        "via",
        "via_credential_file",
        "worker_id",
        "labels",
        "links",
        "concurrency",
        "adaptive",
        "concurrency_min",
        "concurrency_max",
        "health",
        "service",
    ],
};

/// What else a block needs it has from the top level.
const SERVICE: Shape = Shape {
    name: "[[service]]",
    keys: &[
        "serve",
        "pool",
        "to",
        "credential_file",
        "bearer_file",
        "certificate",
        "key",
        "to_ca_file",
        "concurrency",
        "adaptive",
        "concurrency_min",
        "concurrency_max",
        "health",
    ],
};

const SHAPES: &[Shape] = &[TOP, SERVICE, HEALTH];

const HEALTH: Shape = Shape { name: "health", keys: &["path", "every", "timeout", "rise", "fall"] };
const HEALTH_EXAMPLE: &str = "{ path = \"/healthz\", every = \"5s\" }";

/// Whether a top-level key belongs to this kind of file (`pool` is in both kinds, and tells nothing).
#[must_use]
pub fn is_worker_key(key: &str) -> bool {
    key != "pool" && TOP.keys.contains(&key)
}

const VIA: &str = "\"http://proxy.example:3128\"";
const EDGES: &str = r#"["https://edge.example:8443"]"#;
const SERVE: &str = r#"["https://app.example.com"]"#;
const TO: &str = "\"http://127.0.0.1:3000\" (or https://, h2c://), or \"unix:/run/app.sock\"";

impl WorkerConfig {
    /// Reads and checks a file and the flags; either may be missing. Opens the secret's file too. The `Mistakes`
    /// beside a good configuration are warnings. A relative path in the file starts at the file's own directory.
    ///
    /// # Errors
    /// Every mistake, with the warnings.
    pub fn read(path: Option<&Path>, flags: &WorkerFlags) -> Result<(Services, Mistakes), Mistakes> {
        match path {
            Some(path) => WorkerConfig::parse(Some((path, &read_text(path)?)), flags),
            None => WorkerConfig::parse(None, flags),
        }
    }

    /// As [`WorkerConfig::read`], with the file's text at hand.
    ///
    /// # Errors
    /// Every mistake, with the warnings.
    pub fn parse(file: Option<(&Path, &str)>, flags: &WorkerFlags) -> Result<(Services, Mistakes), Mistakes> {
        let mut mistakes = Mistakes::new(&file.map_or_else(String::new, |(path, _)| path.display().to_string()));
        let mut given = Given::default();
        let mut blocks = Vec::new();
        match file {
            Some((path, text)) => {
                let Some(document) = Document::parse(text, &mut mistakes) else {
                    return Err(mistakes);
                };
                let directory = path.parent().unwrap_or(Path::new(""));
                given.take_table(&document.root(), &TOP, directory, &mut mistakes);
                given.take_flags(flags);
                let tables = document.root().entry("service").map(|entry| entry.tables("[[service]]", &mut mistakes));
                for table in tables.unwrap_or_default() {
                    let mut block = given.inherited(table.place);
                    block.take_table(&table, &SERVICE, directory, &mut mistakes);
                    blocks.push(block);
                }
            }
            None => given.take_flags(flags),
        }
        // The top level is a service of its own, unless it only holds what the blocks share.
        if blocks.is_empty() || given.serve.is_some() || given.pool.is_some() || given.to.is_some() {
            blocks.insert(0, given);
        }
        if blocks.len() > limits::WORKER_SERVICES_MAX {
            let what = format!("{} services", blocks.len());
            let mend = format!("a worker has at most {}; start another one", limits::WORKER_SERVICES_MAX);
            mistakes.error(blocks[0].at, what, mend);
        }
        let mut services: Vec<WorkerConfig> = Vec::new();
        for block in &blocks {
            let Some(service) = block.check(file.is_some(), &mut mistakes) else { continue };
            if services.iter().any(|other| other.serve == service.serve && other.edges == service.edges) {
                let what = "another service serves the same";
                mistakes.error(block.at, what, "put it into one, or start a second worker for a second server");
            }
            services.push(service);
        }
        if mistakes.has_errors() { Err(mistakes) } else { Ok((Services(services), mistakes)) }
    }
}

/// Every key with the place that it came from, before any value is looked at.
#[derive(Clone)]
struct Given {
    /// Where what is missing is reported.
    at: Place,
    edges: Option<Vec<At<String>>>,
    serve: Option<Vec<At<String>>>,
    pool: Option<At<String>>,
    to: Option<At<String>>,
    credential_file: Option<At<PathBuf>>,
    bearer_file: Option<At<PathBuf>>,
    ca_file: Option<At<PathBuf>>,
    certificate: Option<At<PathBuf>>,
    key: Option<At<PathBuf>>,
    to_ca_file: Option<At<PathBuf>>,
    via: Option<At<String>>,
    via_credential_file: Option<At<PathBuf>>,
    worker_id: Option<At<String>>,
    labels: Vec<(At<String>, At<String>)>,
    links: Option<At<u64>>,
    concurrency: Option<At<u64>>,
    haproxy: Option<At<bool>>,
    adaptive: Option<At<bool>>,
    concurrency_min: Option<At<u64>>,
    concurrency_max: Option<At<u64>>,
    health: Option<Health>,
    /// From the command line, instead of it.
    health_path: Option<At<String>>,
    /// Keys that were there and had a wrong type: reported, and not missing.
    broken: Vec<&'static str>,
}

impl Default for Given {
    fn default() -> Given {
        Given {
            at: Place::TOP,
            edges: None,
            serve: None,
            pool: None,
            to: None,
            credential_file: None,
            bearer_file: None,
            haproxy: None,
            ca_file: None,
            certificate: None,
            key: None,
            to_ca_file: None,
            via: None,
            via_credential_file: None,
            worker_id: None,
            labels: Vec::new(),
            links: None,
            concurrency: None,
            adaptive: None,
            concurrency_min: None,
            concurrency_max: None,
            health: None,
            health_path: None,
            broken: Vec::new(),
        }
    }
}

impl Given {
    /// What a block at this place has from the top level before it says anything itself.
    fn inherited(&self, at: Place) -> Given {
        Given {
            at,
            serve: None,
            pool: None,
            to: None,
            to_ca_file: None,
            concurrency: None,
            adaptive: None,
            concurrency_min: None,
            concurrency_max: None,
            health: None,
            health_path: None,
            ..self.clone()
        }
    }

    fn take_table(&mut self, root: &Section, shape: &Shape, directory: &Path, mistakes: &mut Mistakes) {
        root.check_keys(shape, SHAPES, mistakes);
        let owned = |at: At<&str>| At { value: at.value.to_owned(), place: at.place };
        let mut broken = Vec::new();
        let mut text = |key, example: &str, mistakes: &mut Mistakes| {
            let entry = root.entry(key)?;
            let text = entry.text(example, mistakes).map(owned);
            if text.is_none() {
                broken.push(key);
            }
            text
        };
        for (key, example, place) in [
            ("pool", "\"app\"", &mut self.pool),
            ("to", TO, &mut self.to),
            ("via", VIA, &mut self.via),
            ("worker_id", "\"host-1\"", &mut self.worker_id),
        ] {
            if root.has(key) {
                *place = text(key, example, mistakes);
            }
        }
        let path = |at: At<String>| At { value: directory.join(at.value), place: at.place };
        // A block's own credential is not put beside the one of the top level, but in its place.
        if root.has("credential_file") || root.has("bearer_file") {
            (self.credential_file, self.bearer_file) = (None, None);
        }
        if root.has("certificate") || root.has("key") {
            (self.certificate, self.key) = (None, None);
        }
        for (key, example, place) in [
            ("credential_file", "\"web-1.secret\"", &mut self.credential_file),
            ("bearer_file", "\"web-1.token\"", &mut self.bearer_file),
            ("ca_file", "\"edge-ca.pem\"", &mut self.ca_file),
            ("certificate", "\"web-1.pem\"", &mut self.certificate),
            ("key", "\"web-1.key\"", &mut self.key),
            ("to_ca_file", "\"server-ca.pem\"", &mut self.to_ca_file),
            ("via_credential_file", "\"proxy.secret\"", &mut self.via_credential_file),
        ] {
            if root.has(key) {
                *place = text(key, example, mistakes).map(path);
            }
        }
        for (key, example, list) in [("edges", EDGES, &mut self.edges), ("serve", SERVE, &mut self.serve)] {
            let Some(entry) = root.entry(key) else { continue };
            *list = entry.texts(example, mistakes).map(|texts| texts.into_iter().map(owned).collect());
            if list.is_none() {
                broken.push(key);
            }
        }
        for (key, limit, example, number) in [
            ("links", limits::WORKER_LINKS_LIMIT, "2", &mut self.links),
            ("concurrency", limits::WORKER_CONCURRENCY_LIMIT, "64", &mut self.concurrency),
            ("concurrency_min", limits::WORKER_CONCURRENCY_LIMIT, "1", &mut self.concurrency_min),
            ("concurrency_max", limits::WORKER_CONCURRENCY_LIMIT, "1000", &mut self.concurrency_max),
        ] {
            let Some(entry) = root.entry(key) else { continue };
            *number = entry.number(1..=limit, example, mistakes).map(|value| At { value, place: entry.place() });
        }
        self.broken.extend(broken);
        let labels = root.entry("labels").and_then(|entry| entry.table("{ zone = \"a\" }", mistakes));
        for (name, entry) in labels.iter().flat_map(|labels| labels.members("labels")) {
            if let Some(value) = entry.text("{ zone = \"a\" }", mistakes) {
                self.labels.push((owned(name), owned(value)));
            }
        }
        self.haproxy = root.entry("haproxy").and_then(|entry| {
            let value = entry.flag(mistakes)?;
            Some(At { value, place: entry.place() })
        });
        self.adaptive = root.entry("adaptive").and_then(|entry| {
            let value = entry.flag(mistakes)?;
            Some(At { value, place: entry.place() })
        });
        let health = root.entry("health").and_then(|entry| entry.table(HEALTH_EXAMPLE, mistakes));
        self.health = health.and_then(|health| read_health(&health, mistakes));
    }

    fn take_flags(&mut self, flags: &WorkerFlags) {
        let list = |texts: &[String], flag| {
            let at = |text: &String| At { value: text.clone(), place: Place::Flag(flag) };
            (!texts.is_empty()).then(|| texts.iter().map(at).collect())
        };
        if let Some(edges) = list(&flags.edges, "--edge") {
            self.edges = Some(edges);
        }
        let serve = list(&flags.serve, "--serve");
        let pool = flags.pool.clone().map(|value| At { value, place: Place::Flag("--pool") });
        if serve.is_some() || pool.is_some() {
            (self.serve, self.pool) = (serve, pool);
        }
        if let Some(value) = flags.to.clone() {
            self.to = Some(At { value, place: Place::Flag("--to") });
        }
        let path = |path: &Option<PathBuf>, flag| path.clone().map(|value| At { value, place: Place::Flag(flag) });
        let credential = path(&flags.credential_file, "--credential-file");
        let bearer = path(&flags.bearer_file, "--bearer-file");
        if credential.is_some() || bearer.is_some() {
            (self.credential_file, self.bearer_file) = (credential, bearer);
        }
        for (own, given, flag) in [
            (&mut self.ca_file, &flags.ca_file, "--ca-file"),
            (&mut self.certificate, &flags.certificate, "--certificate"),
            (&mut self.key, &flags.key, "--key"),
            (&mut self.to_ca_file, &flags.to_ca_file, "--to-ca-file"),
            (&mut self.via_credential_file, &flags.via_credential_file, "--via-credential-file"),
        ] {
            if let Some(given) = path(given, flag) {
                *own = Some(given);
            }
        }
        if let Some(value) = flags.via.clone() {
            self.via = Some(At { value, place: Place::Flag("--via") });
        }
        if let Some(value) = flags.worker_id.clone() {
            self.worker_id = Some(At { value, place: Place::Flag("--worker-id") });
        }
        if !flags.labels.is_empty() {
            let at = |value: &str| At { value: value.to_owned(), place: Place::Flag("--label") };
            let label =
                |text: &String| text.split_once('=').map_or((at(text), at("")), |(name, value)| (at(name), at(value)));
            self.labels = flags.labels.iter().map(label).collect();
        }
        if let Some(links) = flags.links {
            self.links = Some(At { value: links.into(), place: Place::Flag("--links") });
        }
        for (own, given, flag) in [
            (&mut self.concurrency, flags.concurrency, "--concurrency"),
            (&mut self.concurrency_min, flags.concurrency_min, "--concurrency-min"),
            (&mut self.concurrency_max, flags.concurrency_max, "--concurrency-max"),
        ] {
            if let Some(given) = given {
                *own = Some(At { value: given.into(), place: Place::Flag(flag) });
            }
        }
        if flags.haproxy {
            self.haproxy = Some(At { value: true, place: Place::Flag("--haproxy") });
        }
        if flags.adaptive {
            self.adaptive = Some(At { value: true, place: Place::Flag("--adaptive") });
        }
        if let Some(value) = flags.health.clone() {
            self.health_path = Some(At { value, place: Place::Flag("--health") });
        }
    }

    fn check(&self, with_file: bool, mistakes: &mut Mistakes) -> Option<WorkerConfig> {
        let missing = |key: &'static str, flag, example: &str, mistakes: &mut Mistakes| {
            if self.broken.contains(&key) {
                return;
            }
            if with_file {
                mistakes.error(self.at, format_args!("`{key}` is missing"), format_args!("add {key} = {example}"));
            } else {
                mistakes.error(Place::Flag(flag), "missing", "add it, or name a file with --config");
            }
        };

        let edges = self.edges.as_ref().map(|edges| edge_addresses(edges, mistakes));
        if edges.is_none() {
            missing("edges", "--edge", EDGES, mistakes);
        }
        let haproxy = self.haproxy.as_ref().is_some_and(|at| at.value);
        for (name, place) in self.for_setups().into_iter().filter(|_| haproxy) {
            let what = format!("`{name}` is of no use with `haproxy`: its edges know no setup");
            mistakes.error(place, what, "leave it out; a certificate or the address says who a device is");
        }
        let scope = match (&self.serve, &self.pool) {
            _ if haproxy => Some(Scope::Origins(Vec::new())),
            (Some(_), Some(pool)) => {
                mistakes.error(pool.place, "both `serve` and `pool` are there", "keep one: origins, or a pool's name");
                None
            }
            (Some(serve), None) => Some(Scope::Origins(origins(serve, mistakes))),
            (None, Some(pool)) => Some(Scope::Pool(pool_name(pool, mistakes))),
            (None, None) if self.broken.contains(&"pool") => None,
            (None, None) => {
                missing("serve", "--serve", SERVE, mistakes);
                None
            }
        };
        let to = match &self.to {
            Some(to) => target(to, mistakes),
            None => {
                missing("to", "--to", TO, mistakes);
                None
            }
        };
        let authorization = match (&self.credential_file, &self.bearer_file) {
            _ if haproxy => Some(None),
            (Some(_), Some(bearer)) => {
                let what = "both `credential_file` and `bearer_file` are there";
                mistakes.error(bearer.place, what, "keep the one that the edge's operator gave you");
                None
            }
            (Some(file), None) => secret_line(file, mistakes).and_then(|line| basic(&line, file, mistakes)).map(Some),
            (None, Some(file)) => secret_line(file, mistakes).and_then(|line| bearer(&line, file, mistakes)).map(Some),
            (None, None) if self.certificate.is_some() => Some(None),
            (None, None) if self.broken.contains(&"bearer_file") || self.broken.contains(&"certificate") => None,
            (None, None) => {
                missing("credential_file", "--credential-file", "\"web-1.secret\", a file with id:secret", mistakes);
                None
            }
        };
        if let (Some(Some(_)), Some(edges), Some(places)) = (&authorization, &edges, &self.edges)
            && edges.len() == places.len()
        {
            for (edge, at) in
                edges.iter().zip(places).filter(|(edge, _)| edge.scheme == Scheme::Http && !edge.is_here())
            {
                let what = format!("the secret goes to {edge} without TLS, and can be read on the way");
                mistakes.warning(at.place, what, "write https:// in `edges`");
            }
        }
        let secret_file = match (&self.credential_file, &self.bearer_file) {
            _ if haproxy => None,
            (Some(file), _) => Some(SecretFile::Credential(file.value.clone())),
            (None, file) => file.as_ref().map(|file| SecretFile::Bearer(file.value.clone())),
        };
        let tls = self.tls_files(edges.as_deref(), to.as_ref(), mistakes);
        let links = number(self.links.as_ref(), limits::WORKER_LINKS_LIMIT, limits::WORKER_LINKS, mistakes);
        let concurrency =
            number(self.concurrency.as_ref(), limits::WORKER_CONCURRENCY_LIMIT, limits::WORKER_CONCURRENCY, mistakes);
        if concurrency < links {
            let place = self.concurrency.as_ref().or(self.links.as_ref()).map_or(Place::File, |at| at.place);
            let what = format!("{concurrency} credits for {links} links leave some links without work");
            mistakes.warning(place, what, "make `concurrency` at least `links`");
        }
        let (via, about) = (self.via_proxy(mistakes), self.about(mistakes));
        let adaptive = self.adaptive_bounds(concurrency, mistakes);
        Some(WorkerConfig {
            edges: edges?,
            serve: scope?,
            to: to?,
            authorization: authorization?,
            secret_file,
            haproxy,
            about,
            tls: tls?,
            via,
            links,
            concurrency,
            adaptive,
            health: match &self.health_path {
                Some(path) => health_path(path, mistakes).map(Health::of),
                None => self.health.clone(),
            },
        })
    }

    /// What a setup would tell an edge.
    fn for_setups(&self) -> Vec<(&'static str, Place)> {
        let first = |list: &Option<Vec<At<String>>>| Some(list.as_ref()?.first()?.place);
        let files = [("credential_file", &self.credential_file), ("bearer_file", &self.bearer_file)];
        let files = files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?.place)));
        let pool = self.pool.as_ref().map(|pool| ("pool", pool.place));
        first(&self.serve).map(|place| ("serve", place)).into_iter().chain(pool).chain(files).collect()
    }

    fn about(&self, mistakes: &mut Mistakes) -> About {
        let id = match &self.worker_id {
            Some(id) if is_worker_id(&id.value) => Some(id.value.clone()),
            Some(id) => {
                let what = format!("\"{}\" cannot be a worker's id", plain(&id.value, 80));
                mistakes.error(id.place, what, "write 1 to 64 letters, digits, '.', '_' or '-'");
                None
            }
            None => host_name().filter(|name| is_worker_id(name)),
        };
        if let Some((name, _)) = self.labels.get(limits::LABELS_MAX) {
            mistakes.error(name.place, "too many labels", format_args!("a worker has at most {}", limits::LABELS_MAX));
        }
        for (index, (name, value)) in self.labels.iter().enumerate() {
            if !is_label_name(&name.value) {
                let what = format!("\"{}\" cannot be a label's name", plain(&name.value, 80));
                mistakes.error(
                    name.place,
                    what,
                    "write lower-case letters first, then also digits, '_', '-', '.' or '*'",
                );
            } else if self.labels[..index].iter().any(|(other, _)| other.value == name.value) {
                mistakes.error(name.place, format_args!("label {} is there twice", name.value), "name it once");
            }
            if !is_label_value(&value.value) {
                let what = format!("\"{}\" cannot be a label's value", plain(&value.value, 80));
                mistakes.error(value.place, what, "write at most 64 printable ASCII characters");
            }
        }
        let labels = self.labels.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
        About { id, labels }
    }

    fn via_proxy(&self, mistakes: &mut Mistakes) -> Option<Via> {
        let authorization = self.via_credential_file.as_ref().and_then(|file| {
            let line = secret_line(file, mistakes)?;
            let Some((user, password)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
                let what = format!("{} is not user:password", plain(&file.value.display().to_string(), 200));
                mistakes.error(file.place, what, "write one line, as the proxy's operator gave it to you");
                return None;
            };
            Some(Secret::basic(user, password))
        });
        match (&self.via, &self.via_credential_file) {
            (Some(via), _) => match address(&via.value) {
                Ok((Scheme::Http, host, port)) => Some(Via { host, port, authorization }),
                Ok((Scheme::Https, ..)) => {
                    mistakes.error(via.place, "a proxy is spoken to without TLS", format_args!("write {VIA}"));
                    None
                }
                Err(reason) => {
                    mistakes.error(
                        via.place,
                        format_args!("not a proxy's address, {reason}"),
                        format_args!("write {VIA}"),
                    );
                    None
                }
            },
            (None, Some(file)) => {
                mistakes.warning(file.place, "there is no proxy that needs this", format_args!("add via = {VIA}"));
                None
            }
            (None, None) => None,
        }
    }

    fn adaptive_bounds(&self, concurrency: u32, mistakes: &mut Mistakes) -> Option<Adaptive> {
        let bounds = [&self.concurrency_min, &self.concurrency_max];
        if !self.adaptive.is_some_and(|adaptive| adaptive.value) {
            for at in bounds.into_iter().flatten() {
                mistakes.warning(at.place, "nobody needs this bound", "add adaptive = true, or remove the key");
            }
            return None;
        }
        let limit = limits::WORKER_CONCURRENCY_LIMIT;
        let min = number(self.concurrency_min.as_ref(), limit, limits::ADAPT_MIN, mistakes);
        let max = number(self.concurrency_max.as_ref(), limit, limits::ADAPT_MAX.max(concurrency), mistakes);
        let place =
            bounds.into_iter().flatten().next().or(self.concurrency.as_ref()).map_or(Place::File, |at| at.place);
        if !(min..=max).contains(&concurrency) {
            let what = format!("`concurrency` is {concurrency}, and has to stay from {min} to {max}");
            mistakes.error(place, what, "make concurrency_min <= concurrency <= concurrency_max");
        }
        Some(Adaptive { min, max })
    }

    fn tls_files(
        &self,
        edges: Option<&[EdgeAddress]>,
        to: Option<&Target>,
        mistakes: &mut Mistakes,
    ) -> Option<TlsFiles> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate: certificate.clone(), key: key.clone() }),
            (Some(lonely), None) if !self.broken.contains(&"key") => {
                mistakes.error(lonely.place, "`certificate` without `key`", "add key = \"web-1.key\"");
                return None;
            }
            (None, Some(lonely)) if !self.broken.contains(&"certificate") => {
                mistakes.error(lonely.place, "`key` without `certificate`", "add certificate = \"web-1.pem\"");
                return None;
            }
            _ => None,
        };
        if edges.is_some_and(|edges| edges.iter().all(|edge| edge.scheme == Scheme::Http)) {
            let mend = "write https:// in `edges`, or remove the key";
            if let Some(certificate) = &self.certificate {
                let what = "a certificate is shown over TLS only, and no edge is an https:// one";
                if self.credential_file.is_none() && self.bearer_file.is_none() {
                    mistakes.error(certificate.place, what, mend);
                } else {
                    mistakes.warning(certificate.place, what, mend);
                }
            }
            if let Some(ca_file) = &self.ca_file {
                mistakes.warning(ca_file.place, "no edge is an https:// one, so nobody needs `ca_file`", mend);
            }
        }
        if let (Some(ca_file), Some(to)) = (&self.to_ca_file, to)
            && !matches!(to, Target::Https { .. })
        {
            let what = "`to` is no https:// server, so nobody needs `to_ca_file`";
            mistakes.warning(ca_file.place, what, "write https:// in `to`, or remove the key");
        }
        Some(TlsFiles {
            ca_file: self.ca_file.clone(),
            identity,
            to_ca_file: self.to_ca_file.clone(),
            edges_at: self.edges.as_ref().and_then(|edges| edges.first()).map_or(Place::File, |edge| edge.place),
            to_at: self.to.as_ref().map_or(Place::File, |to| to.place),
        })
    }
}

fn health_path(text: &At<String>, mistakes: &mut Mistakes) -> Option<PathAndQuery> {
    let path = PathAndQuery::try_from(text.value.as_str()).ok().filter(|_| text.value.starts_with('/'));
    if path.is_none() {
        mistakes.error(text.place, "not a path", "write what the server answers, such as \"/healthz\"");
    }
    path
}

fn read_health(health: &Section, mistakes: &mut Mistakes) -> Option<Health> {
    health.check_keys(&HEALTH, SHAPES, mistakes);
    let path = health.required("path", "\"/healthz\"", mistakes);
    let path = path.and_then(|entry| {
        let text = entry.text("\"/healthz\"", mistakes)?;
        health_path(&At { value: text.value.to_owned(), place: text.place }, mistakes)
    });
    let range = limits::HEALTH_MS_MIN..=limits::HEALTH_MS_LIMIT;
    let every = match health.entry("every") {
        Some(entry) => entry.duration_ms(range.clone(), "\"5s\"", mistakes),
        None => Some(limits::HEALTH_MS),
    };
    let timeout = match health.entry("timeout") {
        Some(entry) => entry.duration_ms(range, "\"2s\"", mistakes),
        None => Some(limits::HEALTH_TIMEOUT_MS),
    };
    let mut count = |key, default: u32| match health.entry(key) {
        None => Some(default),
        Some(entry) => entry.number(1..=limits::HEALTH_COUNT_LIMIT, "3", mistakes).map(|number| number as u32),
    };
    let (rise, fall) = (count("rise", limits::HEALTH_RISE), count("fall", limits::HEALTH_FALL));
    Some(Health { path: path?, every_ms: every?, timeout_ms: timeout?, rise: rise?, fall: fall? })
}

/// What this machine is called.
fn host_name() -> Option<String> {
    let name = read_bounded(Path::new("/proc/sys/kernel/hostname"), limits::SECRET_FILE_BYTES_MAX).ok()??;
    Some(String::from_utf8(name).ok()?.trim_end().to_owned())
}

/// A number out of its range is reported for a flag here; for a file it was reported when it was read.
fn number(given: Option<&At<u64>>, limit: u64, default: u32, mistakes: &mut Mistakes) -> u32 {
    let Some(at) = given else { return default };
    if !(1..=limit).contains(&at.value) {
        mistakes.error(
            at.place,
            format_args!("{} is out of range", at.value),
            format_args!("write a number from 1 to {limit}"),
        );
    }
    u32::try_from(at.value).unwrap_or(default)
}

/// No message shows an address: it may hold a password.
fn edge_addresses(texts: &[At<String>], mistakes: &mut Mistakes) -> Vec<EdgeAddress> {
    if texts.len() > limits::WORKER_EDGES_MAX {
        let what = format!("{} edges", texts.len());
        mistakes.error(texts[0].place, what, format_args!("a worker has at most {}", limits::WORKER_EDGES_MAX));
    }
    let mut edges: Vec<EdgeAddress> = Vec::new();
    for text in texts {
        match address(&text.value) {
            Ok((scheme, host, port)) => {
                let edge = EdgeAddress { scheme, host, port };
                if edges.iter().any(|other| other.host == edge.host && other.port == edge.port) {
                    mistakes.error(text.place, format_args!("edge {edge} is there twice"), "name it once");
                }
                edges.push(edge);
            }
            Err(reason) => {
                mistakes.error(
                    text.place,
                    format_args!("not an edge's address, {reason}"),
                    "write \"https://edge.example:8443\"",
                );
            }
        }
    }
    edges
}

fn origins(texts: &[At<String>], mistakes: &mut Mistakes) -> Vec<Origin> {
    let mut origins: Vec<Origin> = Vec::new();
    for text in texts {
        match Origin::parse(&text.value) {
            Ok(origin) if origins.contains(&origin) => {
                mistakes.error(text.place, "this origin is there twice", "name it once");
            }
            Ok(origin) => origins.push(origin),
            Err(reason) => {
                let mend = "write what clients ask for, such as \"https://app.example.com\"";
                mistakes.error(text.place, format_args!("not an origin, {reason}"), mend);
            }
        }
    }
    origins
}

/// The edge knows which names exist; this only keeps out what could not stand in a path.
fn pool_name(pool: &At<String>, mistakes: &mut Mistakes) -> String {
    let good = (1..=limits::NAME_BYTES_MAX).contains(&pool.value.len())
        && pool.value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !good {
        let what = format!("\"{}\" cannot be a pool's name", plain(&pool.value, 40));
        mistakes.error(pool.place, what, "write the name from the edge's [[pool]], such as \"app\"");
    }
    pool.value.clone()
}

fn target(to: &At<String>, mistakes: &mut Mistakes) -> Option<Target> {
    if let Some(path) = to.value.strip_prefix("unix:") {
        // sockaddr_un has 108 bytes, the last of them 0.
        if !path.starts_with('/') || path.len() > 107 || path.contains('\0') {
            let what = "a unix: target is an absolute path of at most 107 bytes";
            mistakes.error(to.place, what, "write \"unix:/run/app.sock\"");
            return None;
        }
        return Some(Target::Unix(PathBuf::from(path)));
    }
    // As http://, but for the version.
    let h2c = to.value.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("h2c"));
    let read = match h2c {
        Some((_, rest)) => address(&format!("http://{rest}")).map(|(_, host, port)| Target::H2c { host, port }),
        None => address(&to.value).map(|(scheme, host, port)| match scheme {
            Scheme::Http => Target::Http { host, port },
            Scheme::Https => Target::Https { host, port },
        }),
    };
    if let Err(reason) = read {
        mistakes.error(to.place, format_args!("not a server's address, {reason}"), format_args!("write {TO}"));
    }
    read.ok()
}

/// Scheme, host and port of a URL without a path; one final slash is forgiven.
fn address(text: &str) -> Result<(Scheme, String, u16), &'static str> {
    let known = ["http", "https"];
    if !text.split_once("://").is_some_and(|(scheme, _)| known.iter().any(|known| scheme.eq_ignore_ascii_case(known))) {
        return Err("it does not begin with http:// or https://");
    }
    let origin = Origin::parse(text.strip_suffix('/').unwrap_or(text))?;
    let host = origin.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&origin.host);
    Ok((origin.scheme, host.to_owned(), origin.port))
}

/// The one line of a secret's file, without its line end. No message shows any of it.
fn secret_line(file: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<String> {
    let shown = plain(&file.value.display().to_string(), 200);
    let bytes = match read_bounded(&file.value, limits::SECRET_FILE_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            mistakes.error(file.place, format_args!("{shown} is larger than 4 KiB"), "it has one line, the secret");
            return None;
        }
        Err(error) => {
            let what = format!("{shown} cannot be read: {}", io_reason(&error));
            mistakes.error(file.place, what, "check the path and who may read it");
            return None;
        }
    };
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).ok().filter(|line| !line.is_empty() && !line.contains(char::is_control));
    if line.is_none() {
        let what = format!("{shown} is not one line of text");
        mistakes.error(file.place, what, "write the one line that `ptth credential new NAME` printed");
    }
    line.map(str::to_owned)
}

fn basic(line: &str, file: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<Secret> {
    match line.split_once(':') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => Some(Secret::basic(id, secret)),
        _ => {
            let what = format!("{} is not id:secret", plain(&file.value.display().to_string(), 200));
            mistakes.error(file.place, what, "write the one line that `ptth credential new NAME` printed");
            None
        }
    }
}

/// RFC 6750 §2.1: a token is letters, digits and `-._~+/`, then maybe `=`.
fn bearer(line: &str, file: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<Secret> {
    let token = line.trim_end_matches('=');
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b)) {
        return Some(Secret::bearer(line));
    }
    let what = format!("{} is not a bearer token", plain(&file.value.display().to_string(), 200));
    mistakes.error(file.place, what, "write the secret alone, without its id");
    None
}
