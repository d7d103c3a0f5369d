//! `edge.toml`: what it may say, and every mistake in it. Opening a socket or reading a clock never enters.

use super::patterns::{includes_hosts, meet};
use crate::limits;
use crate::settings::{At, Document, Entry, Mistakes, Place, Section, Shape, plain, read_text};
use crate::wire::authority::Scheme;
use crate::wire::origin::OriginPattern;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use toml::de::DeValue;

/// A checked `edge.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    pub cores: Cores,
    /// How long a drain may take.
    pub drain_ms_max: u64,
    /// At least one; one of them takes clients, one takes workers (maybe the same).
    pub listens: Vec<Listen>,
    pub admin: Option<SocketAddr>,
    /// In the order of the file: the index is the [`crate::ids::PoolId`]. 1 to `limits::POOLS_MAX`.
    pub pools: Vec<Pool>,
    pub credentials: Vec<Credential>,
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

/// `[[listen]]`. At least one of the two flags is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub clients: bool,
    pub workers: bool,
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
    pub per_link_max: u32,
    /// 0: no bound.
    pub response_head_ms_max: u64,
    pub retries_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    pub requests_max: usize,
    pub bytes_max: usize,
    pub wait_ms_max: u64,
}

/// `[[credential]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub secret_hash: SecretHash,
    pub origins: Vec<OriginPattern>,
    pub links_max: u32,
    /// Seconds since 1970. From this second on the credential is refused.
    pub expires_unix: Option<u64>,
}

/// SHA-256 of a secret. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
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
            per_link_max: limits::PER_LINK_MAX,
            response_head_ms_max: limits::RESPONSE_HEAD_MS_MAX,
            retries_max: limits::RETRIES_MAX,
        }
    }
}

const TOP: Shape =
    Shape { name: "the top level", keys: &["edge", "listen", "admin", "pool", "credential"], later: &[] };
const EDGE: Shape = Shape { name: "[edge]", keys: &["cores", "drain_max"], later: &[] };
const LISTEN: Shape = Shape {
    name: "[[listen]]",
    keys: &["address", "accept"],
    later: &[
        ("tls", "remove the key and end TLS in front of this address, for example with HAProxy or stunnel"),
        ("proxy_protocol", "remove the key; log lines then show the address of the proxy in front"),
    ],
};
const ADMIN: Shape = Shape { name: "[admin]", keys: &["address"], later: &[] };
const POOL: Shape = Shape {
    name: "[[pool]]",
    keys: &[
        "name",
        "origins",
        "paths",
        "queue",
        "hold_without_workers",
        "per_link_max",
        "response_head_max_wait",
        "retries_max",
    ],
    later: &[
        ("priority", "remove the table; the requests of a pool are served oldest first"),
        ("rule", "remove the table; the requests of a pool are served oldest first"),
        ("concurrency_max", "remove the key and bound each link with `per_link_max`"),
        ("server_timing", "remove the key; /metrics has the waiting times of each pool"),
    ],
};
const QUEUE: Shape = Shape { name: "queue", keys: &["requests_max", "bytes_max", "wait_max"], later: &[] };
const CREDENTIAL: Shape = Shape {
    name: "[[credential]]",
    keys: &["id", "secret_hash", "origins", "links_max", "expires"],
    later: &[("certificate_name", "remove the key and use `secret_hash`, from `ptth credential new NAME`")],
};
const SHAPES: &[Shape] = &[TOP, EDGE, LISTEN, ADMIN, POOL, QUEUE, CREDENTIAL];

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

    /// As [`EdgeConfig::read`]; `file` is only shown.
    ///
    /// # Errors
    /// Every mistake of the text, with the warnings.
    pub fn parse(file: &str, text: &str, now_unix: u64) -> Result<(EdgeConfig, Mistakes), Mistakes> {
        let mut mistakes = Mistakes::new(file);
        let Some(document) = Document::parse(text, &mut mistakes) else {
            return Err(mistakes);
        };
        let config = config(&document.root(), now_unix, &mut mistakes);
        if mistakes.has_errors() { Err(mistakes) } else { Ok((config, mistakes)) }
    }
}

/// With mistakes, the result has defaults and gaps, and nobody sees it.
fn config(root: &Section, now_unix: u64, mistakes: &mut Mistakes) -> EdgeConfig {
    root.check_keys(&TOP, SHAPES, mistakes);
    let edge = root.entry("edge").and_then(|entry| entry.table("[edge], with single brackets", mistakes));
    let (cores, drain_ms_max) = edge.map_or((Cores::All, limits::DRAIN_MS_MAX), |edge| {
        edge.check_keys(&EDGE, SHAPES, mistakes);
        let cores = edge.entry("cores").and_then(|entry| cores(&entry, mistakes));
        let drain =
            edge.entry("drain_max").and_then(|e| e.duration_ms(0..=limits::DURATION_MS_MAX, "\"30s\"", mistakes));
        (cores.unwrap_or(Cores::All), drain.unwrap_or(limits::DRAIN_MS_MAX))
    });
    let listens = listens(root, mistakes);
    let admin = admin(root, &listens, mistakes);
    let (pools, pools_whole) = pools(root, mistakes);
    let credentials = credentials(root, pools_whole.then_some(&pools), now_unix, mistakes);
    let listens = listens.into_iter().map(|listen| listen.value).collect();
    EdgeConfig { cores, drain_ms_max, listens, admin, pools, credentials }
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

/// Each with the place of its address.
fn listens(root: &Section, mistakes: &mut Mistakes) -> Vec<At<Listen>> {
    let Some(entry) = root.entry("listen") else {
        let mend = format!("add [[listen]] with address = \"0.0.0.0:8080\" and accept = {ACCEPT}");
        mistakes.error(Place::TOP, "no [[listen]]", mend);
        return Vec::new();
    };
    let tables = entry.tables(mistakes);
    let mut whole = !tables.is_empty();
    let mut listens: Vec<At<Listen>> = Vec::new();
    for table in tables {
        table.check_keys(&LISTEN, SHAPES, mistakes);
        let example = "\"0.0.0.0:8080\"";
        let address = table.required("address", example, mistakes).and_then(|e| socket_address(&e, example, mistakes));
        let accept = table.required("accept", ACCEPT, mistakes).and_then(|e| accept(&e, mistakes));
        whole &= accept.is_some();
        let (Some(address), Some((clients, workers))) = (address, accept) else {
            continue;
        };
        if let Some(first) = listens.iter().find(|l| l.value.address == address.value) {
            let what = format!("{} is listened on twice{}", address.value, line_of(first.place));
            mistakes.error(address.place, what, "put both into one `accept`, or take another port");
        }
        let listen = Listen { address: address.value, clients, workers };
        listens.push(At { value: listen, place: address.place });
    }
    if whole {
        for (who, some) in
            [("clients", listens.iter().any(|l| l.value.clients)), ("workers", listens.iter().any(|l| l.value.workers))]
        {
            if !some && !listens.is_empty() {
                let what = format!("no [[listen]] accepts {who}");
                mistakes.error(entry.place(), what, format_args!("add \"{who}\" to the `accept` of one"));
            }
        }
    }
    listens
}

fn accept(entry: &Entry, mistakes: &mut Mistakes) -> Option<(bool, bool)> {
    let (mut clients, mut workers, mut good) = (false, false, true);
    for who in entry.texts(ACCEPT, mistakes)? {
        match who.value {
            "clients" if !clients => clients = true,
            "workers" if !workers => workers = true,
            "clients" | "workers" => {
                let what = format!("`accept` names {} twice", who.value);
                mistakes.error(who.place, what, "name it once");
                good = false;
            }
            "haproxy-workers" => {
                let mend = "use \"workers\" and connect with `ptth worker`";
                mistakes.error(who.place, "`haproxy-workers` is not available in this version", mend);
                good = false;
            }
            other => {
                let what = format!("`accept` names \"{}\"", plain(other, 40));
                mistakes.error(who.place, what, "known are \"clients\" and \"workers\"");
                good = false;
            }
        }
    }
    good.then_some((clients, workers))
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

fn admin(root: &Section, listens: &[At<Listen>], mistakes: &mut Mistakes) -> Option<SocketAddr> {
    const EXAMPLE: &str = "\"127.0.0.1:9090\"";
    let table = root.entry("admin")?.table("[admin], with single brackets", mistakes)?;
    table.check_keys(&ADMIN, SHAPES, mistakes);
    let address = socket_address(&table.required("address", EXAMPLE, mistakes)?, EXAMPLE, mistakes)?;
    if let Some(listen) = listens.iter().find(|l| l.value.address == address.value) {
        let what = format!("[admin] and a [[listen]] share {}{}", address.value, line_of(listen.place));
        mistakes.error(address.place, what, "give [admin] a port of its own");
    }
    if !address.value.ip().to_canonical().is_loopback() {
        let what = format!("[admin] has no password, and {} can be reached from outside", address.value);
        mistakes.warning(address.place, what, "listen on 127.0.0.1, or let a firewall decide who may drain the edge");
    }
    Some(address.value)
}

/// The pools, and whether their names and origins were all readable.
fn pools(root: &Section, mistakes: &mut Mistakes) -> (Vec<Pool>, bool) {
    let Some(entry) = root.entry("pool") else {
        let mend = format!("add [[pool]] with name = \"app\" and origins = {ORIGINS}");
        mistakes.error(Place::TOP, "no [[pool]]", mend);
        return (Vec::new(), false);
    };
    let tables = entry.tables(mistakes);
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
            warn_of_https(origin, mistakes);
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

/// Without TLS every request is one for http, and an https origin of a pool would wait for nobody.
fn warn_of_https(origin: &At<OriginPattern>, mistakes: &mut Mistakes) {
    if let OriginPattern::Origin(https) = &origin.value
        && https.scheme == Scheme::Https
    {
        let what = format!("listeners have no TLS in this version, so no request is for {https}");
        mistakes.warning(
            origin.place,
            what,
            format_args!("write \"{}\", any scheme and port of this host", https.host),
        );
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

/// `pools` is `None` when their origins are not all known, so that nothing wrong is said about them.
fn credentials(root: &Section, pools: Option<&Vec<Pool>>, now_unix: u64, mistakes: &mut Mistakes) -> Vec<Credential> {
    let Some(entry) = root.entry("credential") else {
        let mend = "make one with `ptth credential new NAME`";
        mistakes.warning(Place::TOP, "no [[credential]], so no worker can connect", mend);
        return Vec::new();
    };
    let mut credentials = Vec::new();
    let mut ids = HashMap::new();
    let mut hashes: Vec<(SecretHash, Place)> = Vec::new();
    for table in entry.tables(mistakes) {
        table.check_keys(&CREDENTIAL, SHAPES, mistakes);
        let id = table.required("id", "\"web-1\"", mistakes).and_then(|e| name(&e, "web-1", mistakes));
        if let Some(id) = &id {
            claim(&mut ids, id, "credential", mistakes);
        }
        let entry = if table.has("certificate_name") {
            table.entry("secret_hash") // the key that is not available has been reported
        } else {
            table.required("secret_hash", "\"sha256:…\", the hash that `ptth credential new NAME` prints", mistakes)
        };
        let secret_hash = entry.and_then(|e| secret_hash(&e, mistakes));
        if let Some(hash) = &secret_hash {
            match hashes.iter().find(|(other, _)| *other == hash.value) {
                Some((_, first)) => {
                    let what = format!("another credential has this secret_hash{}", line_of(*first));
                    mistakes.error(hash.place, what, "make a secret for each with `ptth credential new NAME`");
                }
                None => hashes.push((hash.value, hash.place)),
            }
        }
        let origins = table.required("origins", ORIGINS, mistakes).and_then(|e| patterns(&e, mistakes));
        for origin in origins.iter().flatten() {
            let served =
                pools.is_none_or(|pools| pools.iter().flat_map(|p| &p.origins).any(|p| meet(p, &origin.value)));
            if !served {
                let what = format!("no pool covers {}", plain(&origin.value.to_string(), 80));
                mistakes.error(origin.place, what, "add it to the `origins` of a [[pool]], or remove it here");
            }
        }
        for (origin, pool) in partly_served(origins.as_deref().unwrap_or_default(), pools) {
            let what = format!("a worker with this credential gets every request of pool `{}`", pool.name);
            let mend = "cover all of the pool's origins here, or give this origin a [[pool]] of its own";
            mistakes.warning(origin, what, mend);
        }
        let entry = table.entry("links_max");
        let links_max = entry.and_then(|e| e.number(1..=limits::CREDENTIAL_LINKS_LIMIT, "16", mistakes));
        let expires = table.entry("expires").and_then(|e| expires(&e, mistakes));
        let id = id.map_or_else(String::new, |id| id.value);
        if let Some(expires) = &expires
            && expires.value <= now_unix
        {
            let what = format!("credential `{id}` has expired");
            mistakes.warning(expires.place, what, "its workers are refused, make a new one or move the date");
        }
        credentials.push(Credential {
            id,
            secret_hash: secret_hash.map_or(SecretHash([0; 32]), |hash| hash.value),
            origins: origins.unwrap_or_default().into_iter().map(|origin| origin.value).collect(),
            links_max: links_max.and_then(|n| u32::try_from(n).ok()).unwrap_or(limits::CREDENTIAL_LINKS),
            expires_unix: expires.map(|expires| expires.value),
        });
    }
    credentials
}

/// The pools that these origins open, and that take requests for hosts outside of them: all requests of a pool wait in
/// one queue, for all of its workers.
fn partly_served<'p>(origins: &[At<OriginPattern>], pools: Option<&'p Vec<Pool>>) -> Vec<(Place, &'p Pool)> {
    let mut partly = Vec::new();
    for pool in pools.into_iter().flatten() {
        let opens = origins.iter().find(|own| pool.origins.iter().any(|wanted| meet(&own.value, wanted)));
        let covered = |wanted| origins.iter().any(|own| includes_hosts(&own.value, wanted));
        if let Some(own) = opens
            && !pool.origins.iter().all(covered)
        {
            partly.push((own.place, pool));
        }
    }
    partly
}

/// The text never enters a message: somebody may have written the secret itself here.
fn secret_hash(entry: &Entry, mistakes: &mut Mistakes) -> Option<At<SecretHash>> {
    const EXAMPLE: &str = "\"sha256:\" and 64 hex digits, as `ptth credential new NAME` prints them";
    let text = entry.text(EXAMPLE, mistakes)?;
    let Some(digits) = text.value.strip_prefix("sha256:") else {
        entry.refuse("does not begin with \"sha256:\"", EXAMPLE, mistakes);
        return None;
    };
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
    if !good {
        entry.refuse("is not 64 hex digits after \"sha256:\"", EXAMPLE, mistakes);
    }
    good.then_some(At { value: SecretHash(hash), place: text.place })
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
