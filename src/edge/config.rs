//! `edge.toml`: what it may say, and every mistake in it. Opening a socket or reading a clock never enters.

use super::log::rules as access_log;
use super::patterns::{HostPattern, Network, NotNetwork, PathPattern, meet, shares};
use crate::limits;
use crate::settings::{At, Document, Entry, Mistakes, Place, Section, Shape, plain, read_text};
use crate::wire::authority::Scheme;
use crate::wire::origin::OriginPattern;
use http::{HeaderName, HeaderValue, Method};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// A checked `edge.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// The file that it came from, as it is shown.
    pub file: String,
    pub cores: Cores,
    /// How long a drain may take.
    pub drain_ms_max: u64,
    pub limits: Limits,
    /// What comes from here is believed about who asked. None of them twice.
    pub trusted_proxies: Vec<Network>,
    /// At least one; one of them takes clients, one takes workers (maybe the same).
    pub listens: Vec<Listen>,
    pub admin: Option<SocketAddr>,
    /// Who may ask there.
    pub admin_access: AdminAccess,
    /// In the order of the file: the index is the [`crate::ids::PoolId`]. 1 to `limits::POOLS_MAX`.
    pub pools: Vec<Pool>,
    pub credentials: Vec<Credential>,
    /// More of them, one in each file of a folder, that come and go while the edge runs.
    pub credentials_dir: Option<At<PathBuf>>,
    /// Whose signed tokens are credentials, too.
    pub tokens: Option<TokenRules>,
    /// A line for each request, and where it goes. `None`: there is none.
    pub access_log: Option<access_log::Rules>,
}

/// `[admin]`, apart from its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    pub token: Option<AdminToken>,
    /// Its `worker_ca` is `client_ca`.
    pub tls: Option<CertificateFiles>,
    /// By which names the edge may be asked where nobody has to prove anything. In lower case.
    pub names: Vec<String>,
}

/// What whoever asks the admin address has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminToken {
    Hash(SecretHash),
    /// A file with one line.
    File(At<PathBuf>),
}

/// `tokens`: signed by a key of this file, and with these words in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    pub jwks_file: At<PathBuf>,
    pub issuer: String,
    pub audience: String,
    /// How far the end of a token may be ahead.
    pub lifetime_ms_max: u64,
    /// Names (`sub`) whose tokens are not good, whoever signed them.
    pub denied_file: Option<At<PathBuf>>,
}

/// `cores`: the threads of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One for each CPU that the process may use, at most `limits::CORES_MAX`.
    All,
    /// So many, on the first CPUs that the process may use.
    Count(u16),
    /// One on each of these CPUs; no CPU twice. Whether they exist is known at the start only.
    Cpus(Vec<u16>),
}

/// `[limits]`: what clients may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub head_ms_max: u64,
    pub idle_ms_max: u64,
    pub handshake_ms_max: u64,
    pub body_stall_ms_max: u64,
    /// Bytes for each second of a request's body. 0: no bound.
    pub body_rate_min: u64,
    /// Over all cores. 0: what the descriptors allow, which is never passed.
    pub connections_max: u32,
    /// Over all cores, from one address. 0: no bound.
    pub connections_per_source_max: u32,
    /// Setups of workers, in a minute, from one address. 0: no bound.
    pub setups_per_source_max: u32,
    /// Those of them that are refused. 0: no bound.
    pub setup_failures_per_source_max: u32,
    /// Whose connections are not counted by their source: what stands in front of the edge and speaks for many.
    pub sources_exempt: Vec<Network>,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    pub memory_max: MemoryMax,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMax {
    /// Nothing is watched.
    Unbounded,
    /// In percent of what the machine or its cgroup has.
    Share(u8),
    Bytes(u64),
}

impl Default for Limits {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1"].map(|network| Network::parse(network).expect("a network"));
        Limits {
            head_ms_max: limits::HEAD_MS_MAX,
            idle_ms_max: limits::IDLE_MS_MAX,
            handshake_ms_max: limits::HANDSHAKE_MS_MAX,
            body_stall_ms_max: limits::BODY_STALL_MS_MAX,
            body_rate_min: limits::BODY_RATE_MIN,
            connections_max: 0,
            connections_per_source_max: limits::CONNECTIONS_PER_SOURCE_MAX,
            setups_per_source_max: limits::SETUPS_PER_SOURCE_MAX,
            setup_failures_per_source_max: limits::SETUP_FAILURES_PER_SOURCE_MAX,
            sources_exempt: loopback.to_vec(),
            streams_max: limits::CLIENT_STREAMS_MAX,
            memory_max: MemoryMax::Share(limits::MEMORY_SHARE),
        }
    }
}

/// `[[listen]]`. At least one of `clients` and `workers` is set, or `haproxy_workers` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub clients: bool,
    pub workers: bool,
    /// Devices that speak HAProxy's reverse HTTP.
    pub haproxy_workers: bool,
    /// Whoever comes to an address for them has this credential; `None`: what their certificates say.
    pub credential: Option<At<String>>,
    /// In the order of the file; the first one is for clients that ask for no name. Empty: no TLS here.
    pub tls: Vec<CertificateFiles>,
    /// HTTP/2 without TLS, for clients that begin with its preface. Not with TLS, where it is negotiated.
    pub h2c: bool,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
}

/// One entry of `tls`. The paths already have the configuration's folder in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: At<PathBuf>,
    pub key: At<PathBuf>,
    /// Whoever shows a certificate has to have one from here; nobody has to show one.
    pub worker_ca: Option<At<PathBuf>>,
}

impl Listen {
    /// An address with every other key at its default.
    #[must_use]
    pub fn new(address: SocketAddr, clients: bool, workers: bool) -> Listen {
        Listen {
            address,
            clients,
            workers,
            haproxy_workers: false,
            credential: None,
            tls: Vec::new(),
            h2c: false,
            proxy_protocol: false,
        }
    }

    /// Whose certificates workers may show here.
    fn authorities(&self) -> impl Iterator<Item = &PathBuf> {
        let files = if self.workers || self.haproxy_workers { &self.tls[..] } else { &[] };
        files.iter().filter_map(|files| Some(&files.worker_ca.as_ref()?.value))
    }
}

/// `[[pool]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub origins: Vec<OriginPattern>,
    /// Path prefixes, each with its first slash.
    pub paths: Vec<String>,
    pub queue: QueueBounds,
    pub hold_without_workers: bool,
    /// Requests at once over all links and cores. 0: what the links allow.
    pub concurrency_max: u32,
    pub per_link_max: u32,
    /// 0: no bound.
    pub response_head_ms_max: u64,
    pub retries_max: u32,
    /// Responses tell how long their requests waited.
    pub server_timing: bool,
    pub priority: PoolPriority,
    /// In the order of the file: the first one that takes a request decides its class.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    pub requests_max: usize,
    pub bytes_max: usize,
    pub wait_ms_max: u64,
}

/// `[pool.priority]`: the class of a request that no rule takes. Classes are 0, the most urgent, to
/// `limits::URGENCY_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPriority {
    pub client_header: ClientHeader,
    pub clamp: Clamp,
    /// Of a request whose client says nothing, says garbage, or is not heard. Within `clamp` where that is for clients.
    pub default: u8,
    /// A waiting request becomes one class more urgent each time that it has waited so long again, up to `clamp.min`;
    /// one that is more urgent already stays what it is. `None`: never.
    pub age_step_ms: Option<u64>,
}

/// What a client's own `Priority` (RFC 9218) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHeader {
    Ignore,
    /// Brought into `PoolPriority::clamp`.
    Clamp,
    Trust,
}

/// Two classes and what lies between them. `min` is the most urgent one, and never above `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    pub min: u8,
    pub max: u8,
}

impl Clamp {
    /// Every class.
    pub const WIDE: Clamp = Clamp { min: 0, max: limits::URGENCY_MAX };
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.min, self.max)
    }
}

/// `[[pool.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub when: Match,
    pub urgency: u8,
}

/// What a request has to be like for a rule; at least one condition. An empty list is no condition. Of `headers` all
/// must hold, of any other list one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub methods: Vec<Method>,
    pub hosts: Vec<HostPattern>,
    pub paths: Vec<PathPattern>,
    pub clients: Vec<Network>,
    /// No name twice.
    pub headers: Vec<(HeaderName, FieldWanted)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldWanted {
    /// With any value.
    Present,
    /// One of its lines is this, to the byte. `Debug` does not show it: it may be a token.
    Exactly(HeaderValue),
}

/// `[[credential]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub proof: Proof,
    pub origins: Vec<OriginPattern>,
    pub links_max: u32,
    /// Seconds since 1970. From this second on the credential is refused.
    pub expires_unix: Option<u64>,
    /// Its worker may set up as devices did before the drafts (`Upgrade: PTTH/1.0`).
    pub legacy: bool,
}

/// How a worker shows that a credential is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It knows one of these secrets: at least one, at most `limits::SECRETS_MAX`.
    Secrets(Vec<SecretHash>),
    /// Its TLS client certificate has this DNS name, in lower case, and comes from this `worker_ca`, the path as a listener has
    /// it: what other authorities say of the name counts for nothing.
    Certificate { name: String, authority: PathBuf },
}

/// SHA-256 of a secret. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// The hash of a secret, without its id.
    #[must_use]
    pub fn of(secret: &[u8]) -> SecretHash {
        SecretHash(Sha256::digest(secret).into())
    }
}

/// As `secret_hash` has it: `sha256:` and 64 hex digits.
impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl Default for QueueBounds {
    fn default() -> Self {
        QueueBounds {
            requests_max: limits::QUEUE_REQUESTS_MAX,
            bytes_max: limits::QUEUE_BYTES_MAX,
            wait_ms_max: limits::QUEUE_WAIT_MS_MAX,
        }
    }
}

impl Default for PoolPriority {
    fn default() -> Self {
        PoolPriority {
            client_header: ClientHeader::Ignore,
            clamp: Clamp::WIDE,
            default: limits::URGENCY_DEFAULT,
            age_step_ms: None,
        }
    }
}

impl Pool {
    /// A pool with every key at its default.
    #[must_use]
    pub fn new(name: &str, origins: Vec<OriginPattern>) -> Pool {
        Pool {
            name: name.into(),
            origins,
            paths: vec!["/".into()],
            queue: QueueBounds::default(),
            hold_without_workers: true,
            concurrency_max: 0,
            per_link_max: limits::PER_LINK_MAX,
            response_head_ms_max: limits::RESPONSE_HEAD_MS_MAX,
            retries_max: limits::RETRIES_MAX,
            server_timing: false,
            priority: PoolPriority::default(),
            rules: Vec::new(),
        }
    }
}

const TOP: Shape =
    Shape { name: "the top level", keys: &["edge", "limits", "listen", "admin", "access_log", "pool", "credential"] };
const EDGE: Shape =
    Shape { name: "[edge]", keys: &["cores", "drain_max", "trusted_proxies", "credentials_dir", "tokens"] };
const TOKENS: Shape =
    Shape { name: "tokens", keys: &["jwks_file", "issuer", "audience", "lifetime_max", "denied_file"] };
const LIMITS: Shape = Shape {
    name: "[limits]",
    keys: &[
        "head_max_wait",
        "idle_max_wait",
        "handshake_max_wait",
        "body_stall_max",
        "body_rate_min",
        "connections_max",
        "connections_per_source_max",
        "setups_per_source_max",
        "setup_failures_per_source_max",
        "sources_exempt",
        "streams_max",
        "memory_max",
    ],
};
const LISTEN: Shape =
    Shape { name: "[[listen]]", keys: &["address", "accept", "credential", "tls", "h2c", "proxy_protocol"] };
const TLS: Shape = Shape { name: "tls", keys: &["certificate", "key", "worker_ca"] };
const ADMIN: Shape = Shape { name: "[admin]", keys: &["address", "token_file", "token_hash", "tls", "names"] };
const ADMIN_TLS: Shape = Shape { name: "tls of [admin]", keys: &["certificate", "key", "client_ca"] };
const POOL: Shape = Shape {
    name: "[[pool]]",
    keys: &[
        "name",
        "origins",
        "paths",
        "queue",
        "hold_without_workers",
        "concurrency_max",
        "per_link_max",
        "response_head_max_wait",
        "retries_max",
        "server_timing",
        "priority",
        "rule",
    ],
};
const PRIORITY: Shape = Shape { name: "[pool.priority]", keys: &["client_header", "clamp", "default", "age_step"] };
const RULE: Shape = Shape { name: "[[pool.rule]]", keys: &["match", "urgency"] };
const MATCH: Shape = Shape { name: "match", keys: &["method", "host", "path", "client", "header"] };
const QUEUE: Shape = Shape { name: "queue", keys: &["requests_max", "bytes_max", "wait_max"] };
const CREDENTIAL: Shape = Shape {
    name: "[[credential]]",
    keys: &["id", "secret_hash", "certificate_name", "certificate_ca", "origins", "links_max", "expires", "legacy"],
};
/// A file of `credentials_dir`, in its two forms.
const CREDENTIAL_FILE: Shape = Shape { name: "a credential's file", keys: CREDENTIAL.keys };
const CREDENTIAL_TABLE: Shape = Shape { name: "a credential's file", keys: &["credential"] };
const SHAPES: &[Shape] = &[
    TOP,
    EDGE,
    TOKENS,
    LIMITS,
    LISTEN,
    TLS,
    ADMIN,
    ADMIN_TLS,
    access_log::SHAPE,
    POOL,
    QUEUE,
    PRIORITY,
    RULE,
    MATCH,
    CREDENTIAL,
];

/// Whether a top-level key belongs to this kind of file (`pool` is in both kinds, and tells nothing).
#[must_use]
pub fn is_edge_key(key: &str) -> bool {
    key != "pool" && TOP.keys.contains(&key)
}

const ACCEPT: &str = r#"["clients", "workers"]"#;
const ORIGINS: &str = r#"["app.example.com"]"#;

impl EdgeConfig {
    /// Reads and checks a file. `now_unix` tells which credentials have expired. The `Mistakes` beside a good
    /// configuration are warnings.
    ///
    /// # Errors
    /// Every mistake of the file, with the warnings.
    pub fn read(path: &Path, now_unix: u64) -> Result<(EdgeConfig, Mistakes), Mistakes> {
        EdgeConfig::parse(&path.display().to_string(), &read_text(path)?, now_unix)
    }

    /// As [`EdgeConfig::read`]. Paths in it are relative to the folder of `file`, which is not read again.
    ///
    /// # Errors
    /// Every mistake of the text, with the warnings.
    pub fn parse(file: &str, text: &str, now_unix: u64) -> Result<(EdgeConfig, Mistakes), Mistakes> {
        let mut mistakes = Mistakes::new(file);
        let Some(document) = Document::parse(text, &mut mistakes) else {
            return Err(mistakes);
        };
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        let mut config = config(&document.root(), folder, now_unix, &mut mistakes);
        config.file = file.into();
        if mistakes.has_errors() { Err(mistakes) } else { Ok((config, mistakes)) }
    }

    /// Whether what comes from this address is believed about who asked.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

/// With mistakes, the result has defaults and gaps, and nobody sees it.
fn config(root: &Section, folder: &Path, now_unix: u64, mistakes: &mut Mistakes) -> EdgeConfig {
    root.check_keys(&TOP, SHAPES, mistakes);
    let edge = root.entry("edge").and_then(|entry| entry.table("[edge], with single brackets", mistakes));
    let credentials_dir = edge.and_then(|edge| credentials_dir(&edge, folder, mistakes));
    let tokens = edge.and_then(|edge| tokens(&edge, folder, mistakes));
    let (cores, drain_ms_max, trusted_proxies) = edge.map_or((Cores::All, limits::DRAIN_MS_MAX, Vec::new()), |edge| {
        edge.check_keys(&EDGE, SHAPES, mistakes);
        let cores = edge.entry("cores").and_then(|entry| cores(&entry, mistakes));
        let drain =
            edge.entry("drain_max").and_then(|e| e.duration_ms(0..=limits::DURATION_MS_MAX, "\"30s\"", mistakes));
        let trusted = trusted_proxies(&edge, mistakes);
        (cores.unwrap_or(Cores::All), drain.unwrap_or(limits::DRAIN_MS_MAX), trusted)
    });
    let limits = limits_of(root, mistakes);
    let listens = listens(root, folder, mistakes);
    if trusted_proxies.is_empty() {
        listens.iter().for_each(|listen| warn_of_any_proxy(listen, mistakes));
    }
    let (admin, admin_access) = admin(root, &listens, folder, mistakes);
    let access_log = access_log::read(root, SHAPES, folder, mistakes);
    let schemes = Schemes::of(&listens, !trusted_proxies.is_empty());
    let (pools, pools_whole) = pools(root, schemes, mistakes);
    let terms = Terms {
        pools: pools_whole.then_some(&pools),
        folder,
        authorities: (!listens.is_empty()).then(|| authorities(listens.iter().map(|listen| &listen.value))),
        now_unix,
    };
    let credentials = credentials(root, &terms, credentials_dir.is_some() || tokens.is_some(), mistakes);
    check_devices(&listens, &credentials, credentials_dir.is_some(), mistakes);
    let listens = listens.into_iter().map(|listen| listen.value).collect();
    EdgeConfig {
        file: String::new(),
        cores,
        drain_ms_max,
        trusted_proxies,
        limits,
        listens,
        admin,
        admin_access,
        pools,
        credentials,
        credentials_dir,
        tokens,
        access_log,
    }
}

fn cores(entry: &Entry, mistakes: &mut Mistakes) -> Option<Cores> {
    const EXAMPLE: &str = "\"all\", a number such as 4, or a list of CPU numbers such as [0, 1]";
    match entry.value() {
        DeValue::String(text) if text == "all" => Some(Cores::All),
        DeValue::Integer(_) => {
            let count = entry.number(1..=u64::from(limits::CORES_MAX), EXAMPLE, mistakes)?;
            u16::try_from(count).ok().map(Cores::Count)
        }
        DeValue::Array(items) => {
            if items.is_empty() {
                entry.refuse("is empty", EXAMPLE, mistakes);
            }
            if items.len() > usize::from(limits::CORES_MAX) {
                entry.refuse("names more than 64 CPUs", EXAMPLE, mistakes);
            }
            let mut cpus = Vec::new();
            for item in entry.items() {
                let number = item.number(0..=u64::from(limits::CPU_ID_MAX), "a CPU number such as 0", mistakes);
                let Some(cpu) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
                if cpus.contains(&cpu) {
                    let what = format!("`cores` names CPU {cpu} twice");
                    mistakes.error(item.place(), what, "name each CPU once");
                }
                cpus.push(cpu);
            }
            Some(Cores::Cpus(cpus))
        }
        _ => {
            entry.refuse("is none of the three forms", EXAMPLE, mistakes);
            None
        }
    }
}

fn limits_of(root: &Section, mistakes: &mut Mistakes) -> Limits {
    let mut limits = Limits::default();
    let table = root.entry("limits").and_then(|entry| entry.table("[limits], with single brackets", mistakes));
    let Some(table) = table else { return limits };
    table.check_keys(&LIMITS, SHAPES, mistakes);
    let mut wait = |key, example, wait_ms: &mut u64| {
        let range = limits::TICK_MS..=limits::DURATION_MS_MAX; // shorter than a tick cannot be kept
        if let Some(ms) = table.entry(key).and_then(|e| e.duration_ms(range, example, mistakes)) {
            *wait_ms = ms;
        }
    };
    wait("head_max_wait", "\"10s\"", &mut limits.head_ms_max);
    wait("idle_max_wait", "\"60s\"", &mut limits.idle_ms_max);
    wait("handshake_max_wait", "\"10s\"", &mut limits.handshake_ms_max);
    wait("body_stall_max", "\"30s\"", &mut limits.body_stall_ms_max);
    let entry = table.entry("body_rate_min");
    if let Some(rate) =
        entry.and_then(|e| e.size_bytes(0..=limits::BODY_RATE_LIMIT, "\"240B\", for each second", mistakes))
    {
        limits.body_rate_min = rate;
    }
    let mut count = |key, range, example, count: &mut u32| {
        let number = table.entry(key).and_then(|e| e.number(range, example, mistakes));
        *count = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(*count);
    };
    count("connections_max", 0..=limits::CONNECTIONS_LIMIT, "10000", &mut limits.connections_max);
    let per_source = &mut limits.connections_per_source_max;
    count("connections_per_source_max", 0..=limits::CONNECTIONS_LIMIT, "1000", per_source);
    let setups = &mut limits.setups_per_source_max;
    count("setups_per_source_max", 0..=limits::ATTEMPTS_LIMIT, "1000", setups);
    let failures = &mut limits.setup_failures_per_source_max;
    count("setup_failures_per_source_max", 0..=limits::ATTEMPTS_LIMIT, "50", failures);
    count("streams_max", 1..=u64::from(limits::LINK_STREAMS_MAX), "100", &mut limits.streams_max);
    if table.has("sources_exempt") {
        let (max, example) = (limits::SOURCES_EXEMPT_MAX, r#"["127.0.0.0/8", "::1"], or []"#);
        limits.sources_exempt = networks(&table, "sources_exempt", max, example, mistakes);
    }
    if let Some(memory) = table.entry("memory_max").and_then(|e| memory_max(&e, mistakes)) {
        limits.memory_max = memory;
    }
    limits
}

/// One or more addresses and networks, none of them twice, or an empty list. Without the key: none.
fn networks(section: &Section, key: &'static str, max: usize, example: &str, mistakes: &mut Mistakes) -> Vec<Network> {
    let Some(entry) = section.entry(key) else { return Vec::new() };
    if matches!(entry.value(), DeValue::Array(items) if items.is_empty()) {
        return Vec::new();
    }
    let networks = each(section, key, example, mistakes, network).unwrap_or_default();
    if networks.len() > max {
        let what = format!("`{key}` has {} networks", networks.len());
        mistakes.error(entry.place(), what, format_args!("it takes at most {max}"));
    }
    networks
}

fn memory_max(entry: &Entry, mistakes: &mut Mistakes) -> Option<MemoryMax> {
    const EXAMPLE: &str = r#""75%", "2GiB", or "0" for no bound"#;
    let text = entry.text(EXAMPLE, mistakes)?;
    if text.value == "0" {
        return Some(MemoryMax::Unbounded);
    }
    let Some(digits) = text.value.strip_suffix('%') else {
        let range = limits::MEMORY_BYTES_MIN..=limits::MEMORY_BYTES_LIMIT;
        return entry.size_bytes(range, EXAMPLE, mistakes).map(MemoryMax::Bytes);
    };
    let share = digits.parse().ok().filter(|share| (1..=100).contains(share) && !digits.starts_with('+'));
    if share.is_none() {
        entry.refuse("is not a whole number of percent from 1 to 100", EXAMPLE, mistakes);
    }
    share.map(MemoryMax::Share)
}

fn trusted_proxies(edge: &Section, mistakes: &mut Mistakes) -> Vec<Network> {
    const KEY: &str = "trusted_proxies";
    let Some(entry) = edge.entry(KEY) else { return Vec::new() };
    let networks = networks(edge, KEY, limits::TRUSTED_PROXIES_MAX, r#"["10.0.0.0/8", "2001:db8::/32"]"#, mistakes);
    if let Some(everybody) = networks.iter().find(|network| network.is_everybody()) {
        let what = format!("`{KEY}` has {everybody}, so every client may say who it is");
        mistakes.warning(entry.place(), what, "name the addresses of the proxies alone");
    }
    networks
}

fn credentials_dir(edge: &Section, folder: &Path, mistakes: &mut Mistakes) -> Option<At<PathBuf>> {
    const EXAMPLE: &str = "\"credentials\", a folder with a file for each";
    let entry = edge.entry("credentials_dir")?;
    let text = entry.text(EXAMPLE, mistakes)?;
    if text.value.is_empty() {
        entry.refuse("is empty", EXAMPLE, mistakes);
        return None;
    }
    Some(At { value: folder.join(text.value), place: text.place })
}

fn tokens(edge: &Section, folder: &Path, mistakes: &mut Mistakes) -> Option<TokenRules> {
    const EXAMPLE: &str = r#"{ jwks_file = "jwks.json", issuer = "https://issuer.example", audience = "ptth" }"#;
    let table = edge.entry("tokens")?.table(EXAMPLE, mistakes)?;
    table.check_keys(&TOKENS, SHAPES, mistakes);
    let word_of = |entry: Entry, example: &str, mistakes: &mut Mistakes| {
        let text = entry.text(example, mistakes)?;
        if !(1..=limits::TOKEN_PARTY_BYTES_MAX).contains(&text.value.len()) {
            entry.refuse("is empty, or longer than 1024 bytes", example, mistakes);
            return None;
        }
        Some(At { value: text.value.to_owned(), place: text.place })
    };
    let mut word = |key, example: &str| word_of(table.required(key, example, mistakes)?, example, mistakes);
    let file = word("jwks_file", "\"jwks.json\"");
    let (issuer, audience) = (word("issuer", "\"https://issuer.example\""), word("audience", "\"ptth\""));
    let in_folder = |file: At<String>| At { value: folder.join(file.value), place: file.place };
    let denied = table.entry("denied_file").and_then(|entry| word_of(entry, "\"denied.txt\"", mistakes));
    let range = limits::TOKEN_LIFETIME_MS_MIN..=limits::DURATION_MS_MAX;
    let lifetime = table.entry("lifetime_max").and_then(|entry| entry.duration_ms(range, "\"24h\"", mistakes));
    Some(TokenRules {
        jwks_file: in_folder(file?),
        issuer: issuer?.value,
        audience: audience?.value,
        lifetime_ms_max: lifetime.unwrap_or(limits::TOKEN_LIFETIME_MS_MAX),
        denied_file: denied.map(in_folder),
    })
}

/// A listener that believes whoever connects.
fn warn_of_any_proxy(listen: &At<Listen>, mistakes: &mut Mistakes) {
    let Listen { address, proxy_protocol, .. } = listen.value;
    if proxy_protocol && !address.ip().to_canonical().is_loopback() {
        let what = format!("whoever reaches {address} can claim any address, for `trusted_proxies` is empty");
        mistakes.warning(listen.place, what, "name the proxies in [edge], as in trusted_proxies = [\"10.0.0.0/8\"]");
    }
}

/// Each with the place of its address.
fn listens(root: &Section, folder: &Path, mistakes: &mut Mistakes) -> Vec<At<Listen>> {
    let Some(entry) = root.entry("listen") else {
        let mend = format!("add [[listen]] with address = \"0.0.0.0:8080\" and accept = {ACCEPT}");
        mistakes.error(Place::TOP, "no [[listen]]", mend);
        return Vec::new();
    };
    let tables = entry.tables("[[listen]]", mistakes);
    let mut whole = !tables.is_empty();
    let mut listens: Vec<At<Listen>> = Vec::new();
    for table in tables {
        table.check_keys(&LISTEN, SHAPES, mistakes);
        let example = "\"0.0.0.0:8080\"";
        let address = table.required("address", example, mistakes).and_then(|e| socket_address(&e, example, mistakes));
        let accept = table.required("accept", ACCEPT, mistakes).and_then(|e| accept(&e, mistakes));
        let tls = table.entry("tls").map_or(Vec::new(), |entry| tls(&entry, folder, mistakes));
        let h2c = table.entry("h2c").and_then(|entry| entry.flag(mistakes)).unwrap_or(false);
        if let (true, Some(_), Some(entry)) = (h2c, table.entry("tls"), table.entry("h2c")) {
            entry.refuse("is for addresses without TLS; with TLS clients negotiate HTTP/2", "h2c = false", mistakes);
        }
        let proxy_protocol = table.entry("proxy_protocol").and_then(|entry| entry.flag(mistakes)).unwrap_or(false);
        whole &= accept.is_some();
        let (Some(address), Some(accept)) = (address, accept) else {
            continue;
        };
        let Accept { clients, workers, haproxy_workers } = accept;
        if workers && !table.has("tls") && !address.value.ip().to_canonical().is_loopback() {
            let what =
                format!("workers come to {} without TLS, and their secrets can be read on the way", address.value);
            mistakes.warning(address.place, what, "add `tls`, or `workers` to an address of loopback alone");
        }
        let credential = devices(&table, haproxy_workers, &tls, mistakes);
        if let (true, true, Some(entry)) = (h2c, haproxy_workers, table.entry("h2c")) {
            entry.refuse("is for clients, and haproxy-workers speak HTTP/2 without it", "h2c = false", mistakes);
        }
        if let Some(first) = listens.iter().find(|l| l.value.address == address.value) {
            let what = format!("{} is listened on twice{}", address.value, line_of(first.place));
            mistakes.error(address.place, what, "put both into one `accept`, or take another port");
        }
        let address_of = address.value;
        let listen = Listen {
            haproxy_workers,
            credential,
            tls,
            h2c,
            proxy_protocol,
            ..Listen::new(address_of, clients, workers)
        };
        listens.push(At { value: listen, place: address.place });
    }
    if whole {
        let for_workers = |listen: &At<Listen>| listen.value.workers || listen.value.haproxy_workers;
        for (who, some) in
            [("clients", listens.iter().any(|l| l.value.clients)), ("workers", listens.iter().any(for_workers))]
        {
            if !some && !listens.is_empty() {
                let what = format!("no [[listen]] accepts {who}");
                mistakes.error(entry.place(), what, format_args!("add \"{who}\" to the `accept` of one"));
            }
        }
    }
    listens
}

/// One certificate, or a list of them. What the files hold is for [`super::tls`] to look at.
fn tls(entry: &Entry, folder: &Path, mistakes: &mut Mistakes) -> Vec<CertificateFiles> {
    const EXAMPLE: &str = "{ certificate = \"edge.pem\", key = \"edge.key\" }, or a list of such";
    let tables: Vec<Section> = match entry.value() {
        DeValue::Array(items) if items.is_empty() => {
            entry.refuse("is empty", EXAMPLE, mistakes);
            Vec::new()
        }
        DeValue::Array(_) => entry.items().filter_map(|item| item.table(EXAMPLE, mistakes)).collect(),
        _ => entry.table(EXAMPLE, mistakes).into_iter().collect(),
    };
    let mut files = Vec::with_capacity(tables.len());
    for table in tables {
        table.check_keys(&TLS, SHAPES, mistakes);
        let path = |entry: Option<Entry>, example, mistakes: &mut Mistakes| {
            let text = entry?.text(example, mistakes)?;
            Some(At { value: folder.join(text.value), place: text.place })
        };
        let certificate = table.required("certificate", "\"edge.pem\"", mistakes);
        let certificate = path(certificate, "\"edge.pem\"", mistakes);
        let key = table.required("key", "\"edge.key\"", mistakes);
        let key = path(key, "\"edge.key\"", mistakes);
        let worker_ca = path(table.entry("worker_ca"), "\"workers-ca.pem\"", mistakes);
        if let (Some(certificate), Some(key)) = (certificate, key) {
            files.push(CertificateFiles { certificate, key, worker_ca });
        }
    }
    files
}

/// Whom an address is for.
struct Accept {
    clients: bool,
    workers: bool,
    haproxy_workers: bool,
}

fn accept(entry: &Entry, mistakes: &mut Mistakes) -> Option<Accept> {
    let (mut clients, mut workers, mut haproxy_workers, mut good) = (false, false, false, true);
    for who in entry.texts(ACCEPT, mistakes)? {
        match who.value {
            "clients" if !clients => clients = true,
            "workers" if !workers => workers = true,
            "haproxy-workers" if !haproxy_workers => haproxy_workers = true,
            "clients" | "workers" | "haproxy-workers" => {
                let what = format!("`accept` names {} twice", who.value);
                mistakes.error(who.place, what, "name it once");
                good = false;
            }
            other => {
                let what = format!("`accept` names \"{}\"", plain(other, 40));
                mistakes.error(who.place, what, "known are \"clients\", \"workers\" and \"haproxy-workers\"");
                good = false;
            }
        }
    }
    if haproxy_workers && (clients || workers) {
        let what = "`accept` names haproxy-workers and others, who cannot be told apart";
        mistakes.error(entry.place(), what, "give haproxy-workers an address of their own");
        good = false;
    }
    good.then_some(Accept { clients, workers, haproxy_workers })
}

/// Who a device is that says nothing about it: by the address that it comes to, or by its certificate.
fn devices(
    table: &Section,
    haproxy_workers: bool,
    tls: &[CertificateFiles],
    mistakes: &mut Mistakes,
) -> Option<At<String>> {
    let entry = table.entry("credential");
    let credential = entry.and_then(|entry| name(&entry, "web-1", mistakes));
    let knows_certificates = tls.iter().any(|files| files.worker_ca.is_some());
    match entry {
        Some(entry) if !haproxy_workers => {
            let what = "`credential` is for addresses that accept haproxy-workers; others present their own";
            mistakes.error(entry.place(), what, "remove it");
        }
        Some(entry) if knows_certificates => {
            let what = "both `credential` and a `worker_ca`";
            mistakes.error(entry.place(), what, "keep one: everybody here, or whoever shows a certificate");
        }
        None if haproxy_workers && !knows_certificates => {
            let what = "haproxy-workers say nothing about who they are";
            let mend = "add credential = \"web-1\", the id of a [[credential]], or a `worker_ca` to `tls`";
            mistakes.error(table.place, what, mend);
        }
        _ => {}
    }
    credential.filter(|_| haproxy_workers)
}

/// What a listener's credential has to be: there, and with origins that can be registered without being named.
fn check_devices(listens: &[At<Listen>], credentials: &[Credential], has_others: bool, mistakes: &mut Mistakes) {
    for id in listens.iter().filter_map(|listen| listen.value.credential.as_ref()) {
        match credentials.iter().find(|credential| credential.id == id.value) {
            None if has_others => {}
            None => {
                let what = format!("there is no credential `{}`", id.value);
                mistakes.error(id.place, what, "make one with `ptth credential new NAME`");
            }
            Some(own) if !own.origins.iter().any(|origin| matches!(origin, OriginPattern::Origin(_))) => {
                let what =
                    format!("credential `{}` has no whole origin, and these workers name none themselves", id.value);
                mistakes.error(id.place, what, "write one in its `origins`, such as \"https://app.example.com\"");
            }
            Some(_) => {}
        }
    }
}

fn socket_address(entry: &Entry, example: &str, mistakes: &mut Mistakes) -> Option<At<SocketAddr>> {
    let text = entry.text(example, mistakes)?;
    match text.value.parse::<SocketAddr>() {
        // Each core opens its own socket, and the kernel would give each another port.
        Ok(address) if address.port() == 0 => {
            entry.refuse("has port 0", &format!("a port, as in {example}"), mistakes);
            None
        }
        Ok(value) => Some(At { value, place: text.place }),
        Err(_) => {
            entry.refuse("is not an IP address with a port", &format!("{example} or \"[::1]:8080\""), mistakes);
            None
        }
    }
}

fn admin(
    root: &Section,
    listens: &[At<Listen>],
    folder: &Path,
    mistakes: &mut Mistakes,
) -> (Option<SocketAddr>, AdminAccess) {
    const EXAMPLE: &str = "\"127.0.0.1:9090\"";
    let table = root.entry("admin").and_then(|entry| entry.table("[admin], with single brackets", mistakes));
    let Some(table) = table else { return (None, AdminAccess::default()) };
    table.check_keys(&ADMIN, SHAPES, mistakes);
    let access = admin_access(&table, folder, mistakes);
    let address = table.required("address", EXAMPLE, mistakes).and_then(|e| socket_address(&e, EXAMPLE, mistakes));
    let Some(address) = address else { return (None, access) };
    if let Some(listen) = listens.iter().find(|l| l.value.address == address.value) {
        let what = format!("[admin] and a [[listen]] share {}{}", address.value, line_of(listen.place));
        mistakes.error(address.place, what, "give [admin] a port of its own");
    }
    if !address.value.ip().to_canonical().is_loopback() {
        let has_certificates = access.tls.as_ref().is_some_and(|files| files.worker_ca.is_some());
        let has_token = table.has("token_file") || table.has("token_hash");
        if !has_token && !has_certificates {
            let what = format!("[admin] at {} can be reached from outside, and asks nobody who he is", address.value);
            let mend = "add token_file = \"admin.token\", or tls with a client_ca, or listen on 127.0.0.1";
            mistakes.error(address.place, what, mend);
        } else if !table.has("tls") {
            let what =
                format!("[admin] at {} has a token and no tls: whoever listens on the way learns it", address.value);
            let mend = "add tls = { certificate = \"edge.pem\", key = \"edge.key\" }";
            mistakes.warning(address.place, what, mend);
        }
    }
    (Some(address.value), access)
}

fn admin_access(table: &Section, folder: &Path, mistakes: &mut Mistakes) -> AdminAccess {
    let file = table.entry("token_file").and_then(|entry| path_in(&entry, folder, "\"admin.token\"", mistakes));
    let hash = table.entry("token_hash").and_then(|entry| {
        const EXAMPLE: &str = "\"sha256:\" and the 64 hex digits that sha256sum prints for the token";
        let text = entry.text(EXAMPLE, mistakes)?;
        secret_hash(text.value)
            .map_err(|reason| {
                mistakes.error(text.place, format_args!("`token_hash` {reason}"), format_args!("write {EXAMPLE}"))
            })
            .ok()
    });
    if let (Some(entry), true) = (table.entry("token_hash"), table.has("token_file")) {
        mistakes.error(entry.place(), "both `token_file` and `token_hash`", "keep one of them");
    }
    let tls = table.entry("tls").and_then(|entry| {
        let table = entry.table("{ certificate = \"edge.pem\", key = \"edge.key\" }", mistakes)?;
        table.check_keys(&ADMIN_TLS, SHAPES, mistakes);
        let mut file = |key, example| {
            let entry = table.required(key, example, mistakes)?;
            path_in(&entry, folder, example, mistakes)
        };
        let (certificate, key) = (file("certificate", "\"edge.pem\""), file("key", "\"edge.key\""));
        let client_ca = table.entry("client_ca");
        let worker_ca = client_ca.and_then(|entry| path_in(&entry, folder, "\"clients-ca.pem\"", mistakes));
        Some(CertificateFiles { certificate: certificate?, key: key?, worker_ca })
    });
    let mut names = Vec::new();
    for name in table.entry("names").and_then(|e| e.texts("[\"edge.internal\"]", mistakes)).unwrap_or_default() {
        match OriginPattern::parse(name.value) {
            Ok(OriginPattern::Host(host)) => names.push(host),
            _ => {
                let what = format!("`names` has \"{}\"", plain(name.value, 80));
                mistakes.error(name.place, what, "write a host without a port, such as \"edge.internal\"");
            }
        }
    }
    AdminAccess { token: hash.map(AdminToken::Hash).or(file.map(AdminToken::File)), tls, names }
}

fn path_in(entry: &Entry, folder: &Path, example: &str, mistakes: &mut Mistakes) -> Option<At<PathBuf>> {
    let text = entry.text(example, mistakes)?;
    Some(At { value: folder.join(text.value), place: text.place })
}

/// The pools, and whether their names and origins were all readable.
fn pools(root: &Section, schemes: Schemes, mistakes: &mut Mistakes) -> (Vec<Pool>, bool) {
    let Some(entry) = root.entry("pool") else {
        let mend = format!("add [[pool]] with name = \"app\" and origins = {ORIGINS}");
        mistakes.error(Place::TOP, "no [[pool]]", mend);
        return (Vec::new(), false);
    };
    let tables = entry.tables("[[pool]]", mistakes);
    if tables.len() > limits::POOLS_MAX {
        let what = format!("{} pools", tables.len());
        mistakes.error(entry.place(), what, format_args!("an edge has at most {}", limits::POOLS_MAX));
    }
    let mut pools = Vec::new();
    let mut whole = !tables.is_empty();
    let mut names = HashMap::new();
    let mut taken = HashMap::new();
    for table in tables {
        table.check_keys(&POOL, SHAPES, mistakes);
        let name = table.required("name", "\"app\"", mistakes).and_then(|e| name(&e, "app", mistakes));
        if let Some(name) = &name {
            claim(&mut names, name, "pool", mistakes);
        }
        let origins = table.required("origins", ORIGINS, mistakes).and_then(|e| patterns(&e, mistakes));
        let paths = match table.entry("paths") {
            Some(entry) => paths(&entry, mistakes),
            None => Some(vec![At { value: "/".to_owned(), place: table.place }]),
        };
        for origin in origins.iter().flatten() {
            schemes.warn_of(origin, mistakes);
        }
        whole &= name.is_some() && origins.is_some();
        let name = name.map_or_else(String::new, |name| name.value);
        let origins = origins.unwrap_or_default();
        for (origin, path) in origins.iter().flat_map(|o| paths.iter().flatten().map(move |path| (o, path))) {
            let key = (origin.value.to_string(), path.value.clone());
            let place = if table.has("paths") { path.place } else { origin.place };
            if let Some((other, at)) = taken.insert(key, (name.clone(), origin.place)) {
                let what = format!(
                    "{} with path {} is in pool `{}` already{}",
                    plain(&origin.value.to_string(), 80),
                    plain(&path.value, 80),
                    plain(&other, 80),
                    line_of(at)
                );
                mistakes.error(place, what, "give one of them another path or origin");
            }
        }
        let mut pool = Pool::new(&name, origins.into_iter().map(|o| o.value).collect());
        pool.paths = paths.unwrap_or_default().into_iter().map(|path| path.value).collect();
        rest_of_pool(&table, &mut pool, mistakes);
        pools.push(pool);
    }
    (pools, whole)
}

/// Which schemes requests can have: with TLS it is https, without it http, unless a trusted proxy says https. An origin of a
/// pool with another scheme would wait for nobody.
#[derive(Clone, Copy)]
struct Schemes {
    http: bool,
    https: bool,
}

impl Schemes {
    fn of(listens: &[At<Listen>], has_proxies: bool) -> Schemes {
        let clients = || listens.iter().filter(|listen| listen.value.clients);
        Schemes {
            http: clients().any(|listen| listen.value.tls.is_empty()),
            https: has_proxies || clients().any(|listen| !listen.value.tls.is_empty()),
        }
    }

    fn warn_of(self, origin: &At<OriginPattern>, mistakes: &mut Mistakes) {
        let OriginPattern::Origin(exact) = &origin.value else { return };
        let what = match exact.scheme {
            Scheme::Https if self.http && !self.https => {
                format!("no listener for clients has `tls`, and no proxy is trusted, so no request is for {exact}")
            }
            Scheme::Http if self.https && !self.http => {
                format!("every listener for clients has `tls`, so no request is for {exact}")
            }
            Scheme::Http | Scheme::Https => return,
        };
        let mend = format!("write \"{}\", any scheme and port of this host", exact.host);
        mistakes.warning(origin.place, what, mend);
    }
}

fn rest_of_pool(table: &Section, pool: &mut Pool, mistakes: &mut Mistakes) {
    let queue = table
        .entry("queue")
        .and_then(|e| e.table(r#"{ requests_max = 10000, bytes_max = "64MiB", wait_max = "30s" }"#, mistakes));
    if let Some(queue) = queue {
        queue.check_keys(&QUEUE, SHAPES, mistakes);
        let entry = queue.entry("requests_max");
        if let Some(n) = entry.and_then(|e| e.number(1..=limits::QUEUE_REQUESTS_LIMIT, "10000", mistakes)) {
            pool.queue.requests_max = usize::try_from(n).unwrap_or(usize::MAX);
        }
        let range = limits::HEAD_BYTES_MAX as u64..=limits::QUEUE_BYTES_LIMIT; // one head always fits
        if let Some(n) = queue.entry("bytes_max").and_then(|e| e.size_bytes(range, "\"64MiB\"", mistakes)) {
            pool.queue.bytes_max = usize::try_from(n).unwrap_or(usize::MAX);
        }
        let range = limits::TICK_MS..=limits::DURATION_MS_MAX; // shorter than a tick cannot be kept
        if let Some(n) = queue.entry("wait_max").and_then(|e| e.duration_ms(range, "\"30s\"", mistakes)) {
            pool.queue.wait_ms_max = n;
        }
    }
    if let Some(hold) = table.entry("hold_without_workers").and_then(|e| e.flag(mistakes)) {
        pool.hold_without_workers = hold;
    }
    let entry = table.entry("concurrency_max");
    if let Some(n) = entry.and_then(|e| e.number(0..=limits::CONCURRENCY_LIMIT, "0", mistakes)) {
        pool.concurrency_max = u32::try_from(n).unwrap_or(u32::MAX);
    }
    let entry = table.entry("per_link_max");
    if let Some(n) = entry.and_then(|e| e.number(1..=u64::from(limits::LINK_STREAMS_MAX), "100", mistakes)) {
        pool.per_link_max = u32::try_from(n).unwrap_or(u32::MAX);
    }
    let entry = table.entry("response_head_max_wait");
    if let Some(n) = entry.and_then(|e| e.duration_ms(0..=limits::DURATION_MS_MAX, "\"60s\"", mistakes)) {
        pool.response_head_ms_max = n;
    }
    let entry = table.entry("retries_max");
    if let Some(n) = entry.and_then(|e| e.number(0..=limits::RETRIES_LIMIT, "2", mistakes)) {
        pool.retries_max = u32::try_from(n).unwrap_or(u32::MAX);
    }
    if let Some(timing) = table.entry("server_timing").and_then(|e| e.flag(mistakes)) {
        pool.server_timing = timing;
    }
    let entry = table.entry("priority");
    if let Some(table) = entry.and_then(|e| e.table("[pool.priority], with single brackets", mistakes)) {
        pool.priority = priority(&table, pool.queue.wait_ms_max, mistakes);
    }
    pool.rules = rules(table, &pool.origins, mistakes);
}

fn priority(table: &Section, wait_ms_max: u64, mistakes: &mut Mistakes) -> PoolPriority {
    let mut priority = PoolPriority::default();
    table.check_keys(&PRIORITY, SHAPES, mistakes);
    let header = table.entry("client_header").map(|e| client_header(&e, mistakes));
    priority.client_header = header.flatten().unwrap_or(priority.client_header);
    // Without its bounds "clamp" would be "trust", which nobody means who writes it.
    let bounds = match priority.client_header {
        ClientHeader::Clamp => table.required("clamp", "[2, 6]", mistakes),
        ClientHeader::Ignore | ClientHeader::Trust => table.entry("clamp"),
    };
    let bounds = bounds.and_then(|e| clamp(&e, mistakes));
    let default = table.entry("default").map(|e| urgency(&e, mistakes));
    if let Some(bounds) = bounds {
        priority.clamp = bounds.value;
    }
    if let Some(Some(default)) = default {
        priority.default = default.value;
    }
    if let Some(entry) = table.entry("age_step") {
        let range = limits::AGE_STEP_MS_MIN..=limits::DURATION_MS_MAX;
        priority.age_step_ms = entry.duration_ms(range, "\"10s\"", mistakes);
        if priority.age_step_ms.is_some_and(|step_ms| step_ms >= wait_ms_max) {
            let what = "no request waits for as long as `age_step`, so none becomes more urgent";
            mistakes.warning(entry.place(), what, "shorten it, or raise the `wait_max` of the queue");
        }
    }
    // A key that could not be read has been told already, and nothing is said about what would follow from it.
    let (Some(bounds), false, false) = (bounds, header == Some(None), default == Some(None)) else { return priority };
    let Clamp { min, max } = bounds.value;
    if priority.client_header == ClientHeader::Clamp {
        // Else a client that says nothing would be served before one that asks for the most urgent class that it can
        // have, or after one that asks for the least.
        if !(min..=max).contains(&priority.default) {
            let place = default.flatten().map_or(bounds.place, |default| default.place);
            let what = format!("`default` is {}, outside of `clamp` {}", priority.default, bounds.value);
            mistakes.error(place, what, format_args!("set `default` to a number from {min} to {max}"));
        }
    } else if !table.has("age_step") && bounds.value != Clamp::WIDE {
        let what = format!("`clamp` {} bounds nothing here", bounds.value);
        mistakes.warning(bounds.place, what, "set `client_header` to \"clamp\" to bound what clients ask for");
    }
    priority
}

fn client_header(entry: &Entry, mistakes: &mut Mistakes) -> Option<ClientHeader> {
    const EXAMPLE: &str = "\"ignore\", \"clamp\" or \"trust\"";
    match entry.text(EXAMPLE, mistakes)?.value {
        "ignore" => Some(ClientHeader::Ignore),
        "clamp" => Some(ClientHeader::Clamp),
        "trust" => Some(ClientHeader::Trust),
        _ => {
            entry.refuse("is none of the three words", EXAMPLE, mistakes);
            None
        }
    }
}

fn clamp(entry: &Entry, mistakes: &mut Mistakes) -> Option<At<Clamp>> {
    const EXAMPLE: &str = "[2, 6], the most urgent and the least urgent class that a client can choose";
    let items: Vec<Entry> = entry.items().collect();
    let [min, max] = items.as_slice() else {
        entry.refuse("is not a list of two numbers", EXAMPLE, mistakes);
        return None;
    };
    let (min, max) = (urgency(min, mistakes), urgency(max, mistakes));
    let clamp = Clamp { min: min?.value, max: max?.value };
    if clamp.min > clamp.max {
        let what = format!("`clamp` {clamp} has the less urgent class first");
        mistakes.error(entry.place(), what, format_args!("write [{}, {}]; 0 is the most urgent", clamp.max, clamp.min));
        return None;
    }
    Some(At { value: clamp, place: entry.place() })
}

fn urgency(entry: &Entry, mistakes: &mut Mistakes) -> Option<At<u8>> {
    let number = entry.number(0..=u64::from(limits::URGENCY_MAX), "3", mistakes)?;
    u8::try_from(number).ok().map(|value| At { value, place: entry.place() })
}

const MATCH_EXAMPLE: &str = r#"{ method = ["POST"], path = "/checkout/*" }"#;

/// `origins` are the pool's, as far as they could be read.
fn rules(table: &Section, origins: &[OriginPattern], mistakes: &mut Mistakes) -> Vec<Rule> {
    let Some(entry) = table.entry("rule") else { return Vec::new() };
    let tables = entry.tables("[[pool.rule]]", mistakes);
    if tables.len() > limits::RULES_MAX {
        let what = format!("{} rules", tables.len());
        mistakes.error(entry.place(), what, format_args!("a pool has at most {}", limits::RULES_MAX));
    }
    let mut rules = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for table in tables {
        table.check_keys(&RULE, SHAPES, mistakes);
        let urgency = table.required("urgency", "0", mistakes).and_then(|e| urgency(&e, mistakes));
        let section = table.required("match", MATCH_EXAMPLE, mistakes).and_then(|e| e.table(MATCH_EXAMPLE, mistakes));
        let Some(when) = section.and_then(|section| conditions(&section, origins, mistakes)) else { continue };
        if let Some(index) = rules.iter().position(|rule: &Rule| rule.when == when) {
            let what = format!("this `match` is in an earlier rule already{}", line_of(places[index]));
            mistakes.error(table.place, what, "remove one of them, the first one wins");
        }
        rules.push(Rule { when, urgency: urgency.map_or(limits::URGENCY_DEFAULT, |urgency| urgency.value) });
        places.push(table.place);
    }
    rules
}

/// `None` where one of them is wrong.
fn conditions(section: &Section, origins: &[OriginPattern], mistakes: &mut Mistakes) -> Option<Match> {
    section.check_keys(&MATCH, SHAPES, mistakes);
    if section.keys().next().is_none() {
        let what = "`match` is empty and takes every request, so no later rule would count";
        mistakes.error(section.place, what, "name a condition, or set `default` in [pool.priority]");
    }
    let methods = each(section, "method", r#"["POST"]"#, mistakes, method);
    let hosts = each(section, "host", r#""app.example.com" or "*.example.com""#, mistakes, |text| {
        let host = HostPattern::parse(text).map_err(Wrong::of)?;
        if origins.is_empty() || origins.iter().any(|origin| host.meets(origin)) {
            return Ok(host);
        }
        Err(Wrong { reason: "no origin of this pool covers", instead: Some("a host of its `origins`".into()) })
    });
    let paths = each(section, "path", r#""/checkout/*""#, mistakes, |text| PathPattern::parse(text).map_err(Wrong::of));
    let clients = each(section, "client", r#"["10.0.0.0/8", "::1"]"#, mistakes, network);
    let headers = match section.entry("header") {
        Some(entry) => fields(&entry, mistakes),
        None => Some(Vec::new()),
    };
    let when = Match { methods: methods?, hosts: hosts?, paths: paths?, clients: clients?, headers: headers? };
    let count = when.methods.len() + when.hosts.len() + when.paths.len() + when.clients.len() + when.headers.len();
    if count > limits::RULE_CONDITIONS_MAX {
        let what = format!("`match` has {count} conditions, lists counted by their elements");
        let mend =
            format_args!("a rule has at most {}, put the others into a rule of their own", limits::RULE_CONDITIONS_MAX);
        mistakes.error(section.place, what, mend);
    }
    (count > 0).then_some(when)
}

/// What is wrong with an element of a condition.
struct Wrong {
    /// Continues "…, which".
    reason: &'static str,
    /// What to write, where that is known better than by an example.
    instead: Option<String>,
}

impl Wrong {
    fn of(reason: &'static str) -> Wrong {
        Wrong { reason, instead: None }
    }
}

/// The elements of one condition: none where its key is not there.
fn each<T: PartialEq>(
    section: &Section,
    key: &'static str,
    example: &str,
    mistakes: &mut Mistakes,
    mut read: impl FnMut(&str) -> Result<T, Wrong>,
) -> Option<Vec<T>> {
    let Some(entry) = section.entry(key) else { return Some(Vec::new()) };
    let texts = entry.one_or_more(example, mistakes)?;
    let (mut list, count) = (Vec::new(), texts.len());
    for text in texts {
        let read = match text.value.len() {
            0..=limits::RULE_TEXT_BYTES_MAX => read(text.value),
            _ => Err(Wrong::of("is longer than 1024 bytes")),
        };
        let shown = plain(text.value, 60);
        match read {
            Ok(value) if list.contains(&value) => {
                mistakes.error(text.place, format_args!("`{key}` has \"{shown}\" twice"), "name it once");
            }
            Ok(value) => list.push(value),
            Err(Wrong { reason, instead }) => {
                let what = format!("`{key}` has \"{shown}\", which {reason}");
                mistakes.error(text.place, what, format_args!("write {}", instead.as_deref().unwrap_or(example)));
            }
        }
    }
    (list.len() == count).then_some(list)
}

fn network(text: &str) -> Result<Network, Wrong> {
    Network::parse(text).map_err(|error| match error {
        NotNetwork::Malformed(reason) => Wrong::of(reason),
        NotNetwork::Loose(meant) => {
            Wrong { reason: "has bits behind its prefix", instead: Some(format!("\"{meant}\"")) }
        }
    })
}

fn method(text: &str) -> Result<Method, Wrong> {
    const USUAL: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let upper = text.to_ascii_uppercase();
    if USUAL.contains(&upper.as_str()) && upper != text {
        return Err(Wrong { reason: "no client sends, for case counts", instead: Some(format!("\"{upper}\"")) });
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(Wrong::of("the edge answers itself, with 405")),
        Ok(method) => Ok(method),
        Err(_) => Err(Wrong::of("is not a method")),
    }
}

fn fields(entry: &Entry, mistakes: &mut Mistakes) -> Option<Vec<(HeaderName, FieldWanted)>> {
    const EXAMPLE: &str = r#"{ x-plan = "gold" }, or "*" for any value"#;
    const VALUE: &str = r#""gold", or "*" for any value"#;
    /// They are about the connection, and gone when rules are looked at.
    const GONE: [&str; 8] = [
        "connection",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let section = entry.table(EXAMPLE, mistakes)?;
    let (mut fields, mut count) = (Vec::new(), 0);
    for (name, value) in section.members("header") {
        count += 1;
        let wanted = field_wanted(&value, VALUE, mistakes);
        let shown = plain(name.value, 60);
        let known = HeaderName::from_bytes(name.value.as_bytes()).ok();
        let known = known.filter(|name| name.as_str().len() <= limits::RULE_TEXT_BYTES_MAX);
        let (reason, mend) = match &known {
            None => ("is not the name of a field", "write { x-plan = \"gold\" }"),
            Some(name) if GONE.contains(&name.as_str()) => {
                ("is about the connection and ends at the edge", "remove it")
            }
            Some(name) if *name == http::header::HOST => ("has a condition of its own", "use `host` beside `header`"),
            Some(name) if fields.iter().any(|(other, _)| other == name) => {
                ("is there twice", "keep one, case is no matter")
            }
            Some(name) => {
                fields.extend(wanted.map(|wanted| (name.clone(), wanted)));
                continue;
            }
        };
        mistakes.error(name.place, format_args!("`header` has `{shown}`, which {reason}"), mend);
    }
    if count == 0 {
        entry.refuse("is empty", EXAMPLE, mistakes);
    }
    (count > 0 && fields.len() == count).then_some(fields)
}

/// The text never enters a message: tokens stand in fields, too.
fn field_wanted(entry: &Entry, example: &str, mistakes: &mut Mistakes) -> Option<FieldWanted> {
    let text = entry.text(example, mistakes)?;
    if text.value == "*" {
        return Some(FieldWanted::Present);
    }
    let reason = match HeaderValue::from_bytes(text.value.as_bytes()) {
        Err(_) => "has a control character, which no field has",
        Ok(_) if text.value.trim_ascii() != text.value => "begins or ends with a space, which no field does",
        Ok(_) if text.value.len() > limits::RULE_TEXT_BYTES_MAX => "is longer than 1024 bytes",
        Ok(mut value) => {
            value.set_sensitive(true);
            return Some(FieldWanted::Exactly(value));
        }
    };
    entry.refuse(reason, example, mistakes);
    None
}

/// A name that can be a label, a part of a path and the left side of `id:secret`.
fn name(entry: &Entry, example: &str, mistakes: &mut Mistakes) -> Option<At<String>> {
    let example = format!("\"{example}\"");
    let text = entry.text(&example, mistakes)?;
    match check_name(text.value) {
        Ok(()) => Some(At { value: text.value.to_owned(), place: text.place }),
        Err(reason) => {
            entry.refuse(reason, &format!("a name such as {example}"), mistakes);
            None
        }
    }
}

/// Whether `name` can name a pool or a credential.
///
/// # Errors
/// Continues "`key` …".
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name {
        "" => Err("is empty"),
        name if name.len() > limits::NAME_BYTES_MAX => Err("is longer than 64 bytes"),
        name if !name.bytes().all(known) => Err("has a character other than letters, digits, '.', '_' and '-'"),
        "." | ".." => Err("is a dot segment, which a path loses"),
        _ => Ok(()),
    }
}

/// Reports a name that is taken.
fn claim(names: &mut HashMap<String, Place>, name: &At<String>, kind: &str, mistakes: &mut Mistakes) {
    if let Some(first) = names.insert(name.value.clone(), name.place) {
        let what = format!("{kind} `{}` is there twice{}", name.value, line_of(first));
        mistakes.error(name.place, what, "rename one of them");
    }
}

fn patterns(entry: &Entry, mistakes: &mut Mistakes) -> Option<Vec<At<OriginPattern>>> {
    let mut patterns: Vec<At<OriginPattern>> = Vec::new();
    let mut good = true;
    for text in entry.texts(ORIGINS, mistakes)? {
        match OriginPattern::parse(text.value) {
            Ok(value) => {
                if patterns.iter().any(|p| p.value == value) {
                    let what = format!("`origins` has {} twice", plain(&value.to_string(), 80));
                    mistakes.error(text.place, what, "name it once");
                } else {
                    patterns.push(At { value, place: text.place });
                }
            }
            Err(reason) => {
                let mend = r#"write "http://app.example.com", "app.example.com", "*.example.com" or "*""#;
                mistakes.error(text.place, format_args!("not an origin, {reason}"), mend);
                good = false;
            }
        }
    }
    good.then_some(patterns)
}

fn paths(entry: &Entry, mistakes: &mut Mistakes) -> Option<Vec<At<String>>> {
    let mut paths: Vec<At<String>> = Vec::new();
    let mut good = true;
    for text in entry.texts(r#"["/"]"#, mistakes)? {
        let reason = match text.value {
            path if !path.starts_with('/') => Some("does not begin with a slash"),
            path if path.contains(['?', '#']) => Some("has a query or a fragment"),
            path if path.contains('*') => Some("has a star, and every path is a prefix already"),
            path if !path.bytes().all(|b| b.is_ascii_graphic()) => Some("has a character that no request path has"),
            path if path.len() > limits::LINE_BYTES_MAX => Some("is longer than a request line"),
            path if paths.iter().any(|p| p.value == path) => Some("is there twice"),
            _ => None,
        };
        if let Some(reason) = reason {
            let what = format!("path \"{}\" {reason}", plain(text.value, 60));
            mistakes.error(text.place, what, "write a prefix such as \"/api\"");
            good = false;
        } else {
            paths.push(At { value: text.value.to_owned(), place: text.place });
        }
    }
    good.then_some(paths)
}

/// What a credential is held against.
struct Terms<'a> {
    /// `None` when their origins are not all known, so that nothing wrong is said about them.
    pools: Option<&'a Vec<Pool>>,
    /// Of the configuration's file.
    folder: &'a Path,
    /// Every `worker_ca` of an address for workers, each once. `None` when the addresses are not known.
    authorities: Option<Vec<PathBuf>>,
    now_unix: u64,
}

fn authorities<'a>(listens: impl Iterator<Item = &'a Listen>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in listens.flat_map(Listen::authorities) {
        if !all.contains(path) {
            all.push(path.clone());
        }
    }
    all
}

/// What the credentials of one file have taken already; each belongs to one of them.
#[derive(Default)]
struct Taken {
    ids: HashMap<String, Place>,
    hashes: Vec<(SecretHash, Place)>,
    /// Each with its authority.
    names: HashMap<(String, PathBuf), Place>,
}

fn credentials(root: &Section, terms: &Terms, has_others: bool, mistakes: &mut Mistakes) -> Vec<Credential> {
    let Some(entry) = root.entry("credential") else {
        if !has_others {
            let mend = "make one with `ptth credential new NAME`";
            mistakes.warning(Place::TOP, "no [[credential]], so no worker can connect", mend);
        }
        return Vec::new();
    };
    let tables = entry.tables("[[credential]]", mistakes);
    if tables.len() > limits::CREDENTIALS_MAX {
        let what = format!("{} credentials", tables.len());
        mistakes.error(entry.place(), what, format_args!("an edge has at most {}", limits::CREDENTIALS_MAX));
    }
    let mut taken = Taken::default();
    tables.iter().map(|table| credential(table, &CREDENTIAL, terms, &mut taken, mistakes)).collect()
}

impl EdgeConfig {
    /// Reads a file of `credentials_dir`: the keys of one `[[credential]]`, with this line above them or without. `file` is
    /// how it is shown. Whether another file has its id or its secret already is not known here.
    ///
    /// # Errors
    /// Every mistake of the text, with the warnings.
    pub fn parse_credential(&self, file: &str, text: &str, now_unix: u64) -> Result<(Credential, Mistakes), Mistakes> {
        let mut mistakes = Mistakes::new(file);
        let Some(document) = Document::parse(text, &mut mistakes) else {
            return Err(mistakes);
        };
        let terms = Terms {
            pools: Some(&self.pools),
            folder: Path::new(&self.file).parent().unwrap_or(Path::new("")),
            authorities: Some(authorities(self.listens.iter())),
            now_unix,
        };
        let root = document.root();
        let (table, shape) = match root.entry("credential") {
            None => (Some(root), &CREDENTIAL_FILE),
            Some(entry) => {
                root.check_keys(&CREDENTIAL_TABLE, SHAPES, &mut mistakes);
                let tables = entry.tables("[[credential]]", &mut mistakes);
                if tables.len() != 1 {
                    mistakes.error(
                        entry.place(),
                        format_args!("{} credentials", tables.len()),
                        "give each its own file",
                    );
                }
                (tables.into_iter().next(), &CREDENTIAL)
            }
        };
        let credential = table.map(|table| credential(&table, shape, &terms, &mut Taken::default(), &mut mistakes));
        match credential {
            Some(credential) if !mistakes.has_errors() => Ok((credential, mistakes)),
            _ => Err(mistakes),
        }
    }
}

fn credential(table: &Section, shape: &Shape, terms: &Terms, taken: &mut Taken, mistakes: &mut Mistakes) -> Credential {
    table.check_keys(shape, SHAPES, mistakes);
    let id = table.required("id", "\"web-1\"", mistakes).and_then(|e| name(&e, "web-1", mistakes));
    if let Some(id) = &id {
        claim(&mut taken.ids, id, "credential", mistakes);
    }
    let proof = proof(table, terms, taken, mistakes);
    let origins = table.required("origins", ORIGINS, mistakes).and_then(|e| patterns(&e, mistakes));
    for origin in origins.iter().flatten() {
        let served =
            terms.pools.is_none_or(|pools| pools.iter().flat_map(|p| &p.origins).any(|p| meet(p, &origin.value)));
        if !served {
            let what = format!("no pool covers {}", plain(&origin.value.to_string(), 80));
            mistakes.error(origin.place, what, "add it to the `origins` of a [[pool]], or remove it here");
        }
    }
    for (origin, pool) in partly_served(origins.as_deref().unwrap_or_default(), terms.pools) {
        let what = format!("a worker with this credential gets every request of pool `{}`", pool.name);
        let mend = "cover all of the pool's origins here, or give this origin a [[pool]] of its own";
        mistakes.warning(origin, what, mend);
    }
    let entry = table.entry("links_max");
    let links_max = entry.and_then(|e| e.number(1..=limits::CREDENTIAL_LINKS_LIMIT, "16", mistakes));
    let expires = table.entry("expires").and_then(|e| expires(&e, mistakes));
    let id = id.map_or_else(String::new, |id| id.value);
    if let Some(expires) = &expires
        && expires.value <= terms.now_unix
    {
        let what = format!("credential `{id}` has expired");
        mistakes.warning(expires.place, what, "its workers are refused, make a new one or move the date");
    }
    Credential {
        id,
        proof,
        origins: origins.unwrap_or_default().into_iter().map(|origin| origin.value).collect(),
        links_max: links_max.and_then(|n| u32::try_from(n).ok()).unwrap_or(limits::CREDENTIAL_LINKS),
        expires_unix: expires.map(|expires| expires.value),
        legacy: table.entry("legacy").and_then(|entry| entry.flag(mistakes)).unwrap_or(false),
    }
}

/// Secrets, or the name in a certificate: one of the two, for "and" would be as likely to be meant as "or".
fn proof(table: &Section, terms: &Terms, taken: &mut Taken, mistakes: &mut Mistakes) -> Proof {
    const SECRET: &str = "\"sha256:…\", the hash that `ptth credential new NAME` prints";
    let certificate = table.entry("certificate_name");
    let secret = match (&certificate, table.entry("secret_hash")) {
        (Some(_), None) => None,
        (Some(entry), Some(_)) => {
            let what = "both `secret_hash` and `certificate_name`";
            mistakes.error(entry.place(), what, "keep one; a second [[credential]] takes the other");
            return Proof::Secrets(Vec::new());
        }
        (None, Some(entry)) => Some(entry),
        (None, None) => table.required("secret_hash", SECRET, mistakes),
    };
    let authority = table.entry("certificate_ca");
    if let Some(entry) = certificate {
        let name = certificate_name(&entry, mistakes);
        let authority = certificate_ca(authority.as_ref(), entry.place(), terms, mistakes).unwrap_or_default();
        let Some(name) = name else { return Proof::Certificate { name: String::new(), authority } };
        if let Some(first) = taken.names.insert((name.value.clone(), authority.clone()), name.place) {
            let what = format!("certificate name `{}` is there twice{}", name.value, line_of(first));
            mistakes.error(name.place, what, "rename one of them");
        }
        return Proof::Certificate { name: name.value, authority };
    }
    if let Some(entry) = authority {
        mistakes.error(entry.place(), "`certificate_ca` without `certificate_name`", "remove it");
    }
    let hashes = secret.map(|entry| secret_hashes(&entry, mistakes)).unwrap_or_default();
    for hash in &hashes {
        match taken.hashes.iter().find(|(other, _)| *other == hash.value) {
            Some((_, first)) => {
                let what = format!("this secret_hash is there already{}", line_of(*first));
                mistakes.error(hash.place, what, "make a secret for each with `ptth credential new NAME`");
            }
            None => taken.hashes.push((hash.value, hash.place)),
        }
    }
    Proof::Secrets(hashes.into_iter().map(|hash| hash.value).collect())
}

/// The `worker_ca` that a certificate has to come from. Where there are several, each of them could make a certificate of any
/// name; which one is meant nobody but the operator knows, and a warning would be read after somebody else's worker had
/// come in. So it has to be said.
fn certificate_ca(entry: Option<&Entry>, name: Place, terms: &Terms, mistakes: &mut Mistakes) -> Option<PathBuf> {
    const EXAMPLE: &str = "\"workers-ca.pem\"";
    let wanted = match entry {
        Some(entry) => {
            let text = entry.text(EXAMPLE, mistakes)?;
            Some(At { value: terms.folder.join(text.value), place: text.place })
        }
        None => None,
    };
    let shown = |all: &[PathBuf]| {
        let names: Vec<String> = all.iter().map(|path| plain(&path.display().to_string(), 80)).collect();
        names.join(", ")
    };
    match (wanted, terms.authorities.as_deref()?) {
        (_, []) => {
            let what = "no [[listen]] for workers has a `worker_ca`, so nobody can show such a certificate";
            mistakes.error(name, what, "add worker_ca = \"workers-ca.pem\" to the `tls` of one");
            None
        }
        (Some(wanted), all) if all.contains(&wanted.value) => Some(wanted.value),
        (Some(wanted), all) => {
            let what = "no [[listen]] for workers has this `worker_ca`";
            mistakes.error(wanted.place, what, format_args!("name one that is there: {}", shown(all)));
            None
        }
        (None, [only]) => Some(only.clone()),
        (None, all) => {
            let what = "there are several authorities, and each can make a certificate of this name";
            let mend = format_args!("say which one is meant by `certificate_ca`: {}", shown(all));
            mistakes.error(name, what, mend);
            None
        }
    }
}

/// A host, without port; a certificate's wildcard is no worker's name.
fn certificate_name(entry: &Entry, mistakes: &mut Mistakes) -> Option<At<String>> {
    const EXAMPLE: &str = "a DNS name of the certificate, such as \"web-1.workers.internal\"";
    let text = entry.text(EXAMPLE, mistakes)?;
    match OriginPattern::parse(text.value) {
        Ok(OriginPattern::Host(host)) => Some(At { value: host, place: text.place }),
        _ => {
            entry.refuse("is not a host name", EXAMPLE, mistakes);
            None
        }
    }
}

/// The pools that these origins open, and that take requests for others: all requests of a pool wait in one queue, for all of
/// its workers.
fn partly_served<'p>(origins: &[At<OriginPattern>], pools: Option<&'p Vec<Pool>>) -> Vec<(Place, &'p Pool)> {
    let mut partly = Vec::new();
    for pool in pools.into_iter().flatten() {
        let opens = origins.iter().find(|own| pool.origins.iter().any(|wanted| meet(&own.value, wanted)));
        let covered = |wanted| origins.iter().any(|own| shares(&own.value, wanted));
        if let Some(own) = opens
            && !pool.origins.iter().all(covered)
        {
            partly.push((own.place, pool));
        }
    }
    partly
}

/// One, or several that are good at once, while workers go over from one to the other. Their texts never enter a message:
/// somebody may have written the secret itself here.
fn secret_hashes(entry: &Entry, mistakes: &mut Mistakes) -> Vec<At<SecretHash>> {
    const EXAMPLE: &str = "\"sha256:\" and 64 hex digits, as `ptth credential new NAME` prints them, or a list of such";
    let texts = entry.one_or_more(EXAMPLE, mistakes).unwrap_or_default();
    if texts.len() > limits::SECRETS_MAX {
        entry.refuse(
            format_args!("has {} secrets", texts.len()),
            &format!("at most {}", limits::SECRETS_MAX),
            mistakes,
        );
    }
    let mut hashes = Vec::with_capacity(texts.len());
    for text in texts {
        match secret_hash(text.value) {
            Ok(value) => hashes.push(At { value, place: text.place }),
            Err(reason) => {
                mistakes.error(text.place, format_args!("`secret_hash` {reason}"), format_args!("write {EXAMPLE}"));
            }
        }
    }
    hashes
}

/// # Errors
/// Continues "`secret_hash` …".
fn secret_hash(text: &str) -> Result<SecretHash, &'static str> {
    let digits = text.strip_prefix("sha256:").ok_or("does not begin with \"sha256:\"")?;
    let mut hash = [0_u8; 32];
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    let good = pairs.len() == hash.len()
        && odd.is_empty()
        && pairs.iter().zip(&mut hash).all(|([high, low], byte)| match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        });
    if good { Ok(SecretHash(hash)) } else { Err("is not 64 hex digits after \"sha256:\"") }
}

/// RFC 3339, as a string or as a TOML date. Any offset names a moment; none does not.
fn expires(entry: &Entry, mistakes: &mut Mistakes) -> Option<At<u64>> {
    const EXAMPLE: &str = "\"2027-01-01T00:00:00Z\"";
    let text = match entry.value() {
        DeValue::Datetime(date) => date.to_string(),
        _ => entry.text(EXAMPLE, mistakes)?.value.to_owned(),
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => Some(At { value: u64::try_from(moment.as_second()).unwrap_or(0), place: entry.place() }),
        Err(_) => {
            entry.refuse("is not a date with time and offset", EXAMPLE, mistakes);
            None
        }
    }
}

fn line_of(place: Place) -> String {
    match place {
        Place::Line { line, .. } => format!(" (line {line})"),
        _ => String::new(),
    }
}
