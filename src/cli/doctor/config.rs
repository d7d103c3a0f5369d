//! What follows from a configuration on this host: its mistakes, its addresses and files, the edges that a worker dials; and what a
//! running edge says of itself. What the kernel alone tells never enters.

use super::{Finding, Grade, Stop};
use crate::clock;
use crate::edge::config::{Cores, EdgeConfig};
use crate::edge::report::Report;
use crate::io::bind_listener;
use crate::limits::{CERTIFICATE_EXPIRY_WARNING_S, CORES_MAX};
use crate::pem::certificates;
use crate::settings::{At, Mistakes, Place, Weight, plain};
use crate::worker::config::Services;
use crate::worker::reach::{Tried, Whither, reach};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The threads of the program that is meant.
pub(super) enum Threads {
    OfEdge(Cores),
    OfWorker,
}

impl Threads {
    pub(super) fn of_edge(cores: &Cores) -> Threads {
        Threads::OfEdge(cores.clone())
    }

    /// Nobody says how many: one for each CPU.
    pub(super) fn of_all() -> Threads {
        Threads::OfEdge(Cores::All)
    }

    pub(super) fn are_edges(&self) -> bool {
        matches!(self, Threads::OfEdge(_))
    }

    /// With so many CPUs.
    pub(super) fn count(&self, cpus: usize) -> usize {
        match self {
            Threads::OfEdge(Cores::All) => cpus.clamp(1, usize::from(CORES_MAX)),
            Threads::OfEdge(Cores::Count(count)) => usize::from(*count),
            Threads::OfEdge(Cores::Cpus(cpus)) => cpus.len(),
            Threads::OfWorker => 1,
        }
    }

    /// Those that are named.
    pub(super) fn cpus(&self) -> &[u16] {
        match self {
            Threads::OfEdge(Cores::Cpus(cpus)) => cpus,
            _ => &[],
        }
    }
}

/// As `ptth check` finds them.
pub(super) fn of_mistakes(file: &Path, all: &[Mistakes]) -> Vec<Finding> {
    let about = "configuration";
    let found: Vec<_> = all.iter().flat_map(|mistakes| mistakes.list().iter().zip(mistakes.lines())).collect();
    if found.is_empty() {
        let saw = format!("{}, and all files that it names, are in order", file.display());
        return vec![Finding::good(about, saw)];
    }
    let finding = |(mistake, line): (&crate::settings::Mistake, String)| {
        let (saw, mend) = line.rsplit_once("; ").unwrap_or((&line, "look at the file"));
        match mistake.weight {
            Weight::Error => {
                Finding::wrong(about, saw, "the program does not start, and a reload changes nothing", mend)
            }
            Weight::Warning => Finding::advice(about, saw, "the program starts, and says this first", mend),
        }
    };
    found.into_iter().map(finding).collect()
}

pub(super) fn of_edge(config: &EdgeConfig, edge: Option<&Report>) -> Vec<Finding> {
    let listeners = Listening::read();
    let addresses = config.listens.iter().map(|listen| listen.address).chain(config.admin);
    let mut all: Vec<Finding> = addresses.map(|address| port(address, &listeners, edge)).collect();
    let keys = config.listens.iter().flat_map(|listen| &listen.tls).map(|files| files.key.value.as_path());
    all.extend(keys.filter_map(open_key));
    let certificates = config.listens.iter().flat_map(|listen| &listen.tls).map(|files| &files.certificate.value);
    // What is wrong with one is a mistake of the configuration, and told there.
    let now_unix = clock::unix_seconds();
    all.extend(certificates.filter_map(|path| certificate(path, now_unix)).filter(|found| found.grade == Grade::Good));
    all
}

pub(super) fn of_worker(services: &Services, has_ring: bool) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for config in &services.0 {
        let identity = config.tls.identity.as_ref();
        all.extend(identity.and_then(|identity| open_key(&identity.key.value)));
        all.extend(identity.and_then(|identity| certificate(&identity.certificate.value, clock::unix_seconds())));
        if !has_ring {
            continue; // it is told already, and without one nobody can look
        }
        match reach(config) {
            Ok(tried) => all.extend(tried.into_iter().map(reached)),
            Err(why) => {
                let mend = "mend what is told above first";
                all.push(Finding::wrong("edges", why, "so nobody could look for them", mend));
            }
        }
    }
    // Services that share their edges say the same of them.
    let mut seen = Vec::new();
    all.retain(|finding| {
        !seen.contains(finding) && {
            seen.push(finding.clone());
            true
        }
    });
    all
}

fn reached(tried: Tried) -> Finding {
    let Tried { to, name, outcome } = tried;
    let about = match to {
        Whither::Edge => format!("edge {name}"),
        Whither::Server => format!("server {name}"),
    };
    // Without the number of the error.
    let outcome = outcome.map_err(|why| why.split(" (os error").next().unwrap_or(&why).to_owned());
    match (outcome, to) {
        (Ok(saw), _) => Finding::good(&about, saw),
        (Err(why), Whither::Edge) => {
            let mend = "look at `edges`, at the names (`getent hosts`), and at firewalls on the way out";
            Finding::wrong(&about, why, "the worker has no link to this address, and dials it again and again", mend)
        }
        (Err(why), Whither::Server) => {
            let mend = "start the server, or look at `to`";
            Finding::wrong(&about, why, "requests that come over a link are answered 502", mend)
        }
    }
}

/// How long the first certificate of a file holds; `None` where it cannot be read, which others tell.
fn certificate(path: &Path, now_unix: u64) -> Option<Finding> {
    let file = At { value: path.to_owned(), place: Place::File };
    let chain = certificates(&file, &mut Mistakes::new(""))?;
    let (_, own) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(expiry(path, own.validity().not_after.timestamp(), now_unix))
}

fn expiry(path: &Path, not_after_unix: i64, now_unix: u64) -> Finding {
    let about = format!("certificate {}", path.display());
    let left_s = not_after_unix.saturating_sub(i64::try_from(now_unix).unwrap_or(i64::MAX));
    let until = jiff::Timestamp::from_second(not_after_unix).map_or_else(|_| "?".to_owned(), |until| until.to_string());
    let mend = "renew it and send SIGHUP";
    if left_s <= 0 {
        Finding::wrong(&about, format!("it expired at {until}"), "the other side refuses it", mend)
    } else if left_s < CERTIFICATE_EXPIRY_WARNING_S {
        Finding::advice(&about, format!("it expires at {until}"), "from then on the other side refuses it", mend)
    } else {
        Finding::good(&about, format!("good until {until}"))
    }
}

/// A private key that others may read.
fn open_key(path: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    readable_by_all(path, mode)
}

fn readable_by_all(path: &Path, mode: u32) -> Option<Finding> {
    let saw = format!("{} has mode {:o}", path.display(), mode & 0o777);
    (mode & 0o004 != 0).then(|| {
        let why = "everybody on this machine can read the private key";
        Finding::advice("private key", saw, why, format!("chmod o-r {}", path.display()))
    })
}

/// Whether an address can be had.
fn port(address: SocketAddr, listeners: &Listening, edge: Option<&Report>) -> Finding {
    let about = format!("address {address}");
    if address.port() == 0 {
        return Finding::good(&about, "any port that is free");
    }
    let bound = bind_listener(address).map(drop);
    let holders = listeners.on(address);
    taken(&about, address, bound.map_err(|error| error.kind()), &holders, edge.map(|edge| edge.pid))
}

/// `bound` is what an attempt to have it said; `holders` are those that listen there.
fn taken(
    about: &str,
    address: SocketAddr,
    bound: Result<(), ErrorKind>,
    holders: &[Holder],
    edge: Option<u32>,
) -> Finding {
    let shown = holders.iter().map(Holder::shown).collect::<Vec<_>>().join(", ");
    let strangers = holders.iter().any(|holder| !holder.is_ours(edge));
    let find = format!("`ss -ltnp sport = :{}` as root tells who; end it, or take another port", address.port());
    match bound {
        // Whatever this user might do: it has been done.
        _ if !holders.is_empty() && !strangers => Finding::good(about, format!("taken by {shown}")),
        Err(ErrorKind::PermissionDenied) => {
            let why = "ports below 1024 are for root and for whoever has CAP_NET_BIND_SERVICE";
            let mend =
                "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or a .socket unit, or a port from 1024 on";
            Finding::wrong(about, "may not be opened by this user", why, mend)
        }
        Err(ErrorKind::AddrNotAvailable) => {
            let mend = "write 0.0.0.0 or [::], or an address that `ip address` shows";
            Finding::wrong(about, "is not an address of this machine", "the edge does not start", mend)
        }
        Err(ErrorKind::AddrInUse) => {
            let saw = if holders.is_empty() { "taken".to_owned() } else { format!("taken by {shown}") };
            Finding::wrong(about, saw, "the edge does not start", find)
        }
        Err(other) => Finding::wrong(about, format!("cannot be opened: {other}"), "the edge does not start", find),
        Ok(()) if holders.is_empty() => Finding::good(about, "free"),
        // SO_REUSEPORT: both are of one user, and the kernel divides connections among them.
        Ok(()) => {
            let why = "both would share it, and each would get a part of the connections";
            Finding::wrong(about, format!("taken by {shown}"), why, find)
        }
    }
}

/// Who has a listening socket, as far as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    pid: Option<u32>,
    name: String,
}

impl Holder {
    fn shown(&self) -> String {
        match self.pid {
            Some(pid) => format!("{} ({pid})", plain(&self.name, 50)),
            None => "somebody whom only root can see".into(),
        }
    }

    /// The edge that runs, or systemd, which has opened it for one.
    fn is_ours(&self, edge: Option<u32>) -> bool {
        match self.pid {
            Some(1) => self.name == "systemd",
            Some(pid) => edge.map_or(self.name == "ptth", |edge| edge == pid),
            // An edge answers, and that socket is of another user: nobody can say more.
            None => edge.is_some(),
        }
    }
}

/// The listening sockets of this machine, and whose they are.
#[derive(Default)]
struct Listening {
    sockets: Vec<(SocketAddr, u64)>,
    owners: Vec<(u64, Holder)>,
}

impl Listening {
    fn read() -> Listening {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut sockets = listening(&read("/proc/net/tcp"));
        sockets.extend(listening(&read("/proc/net/tcp6")));
        let mut owners = Vec::new();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        for process in processes {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
            for file in files.filter_map(Result::ok) {
                let target = std::fs::read_link(file.path()).unwrap_or_default();
                let inode =
                    target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
                if let Some(inode) = inode.filter(|inode| sockets.iter().any(|(_, own)| own == inode)) {
                    let name = read(&format!("/proc/{pid}/comm")).trim().to_owned();
                    owners.push((inode, Holder { pid: Some(pid), name }));
                }
            }
        }
        Listening { sockets, owners }
    }

    /// Those whose connections a socket on `address` would get, or that would keep it from being there. None twice.
    fn on(&self, address: SocketAddr) -> Vec<Holder> {
        let overlaps = |own: &SocketAddr| {
            let (one, other) = (own.ip(), address.ip());
            own.port() == address.port()
                && one.is_ipv4() == other.is_ipv4()
                && (one == other || one.is_unspecified() || other.is_unspecified())
        };
        let mut holders: Vec<Holder> = Vec::new();
        for (_, inode) in self.sockets.iter().filter(|(own, _)| overlaps(own)) {
            let known = self.owners.iter().filter(|(own, _)| own == inode).map(|(_, holder)| holder.clone());
            let mut known: Vec<Holder> = known.collect();
            if known.is_empty() {
                known.push(Holder { pid: None, name: String::new() });
            }
            for holder in known {
                if !holders.contains(&holder) {
                    holders.push(holder);
                }
            }
        }
        holders
    }
}

/// `/proc/net/tcp` or `tcp6`: address and inode of each socket that listens (state 0A; proc_net_tcp(5)).
fn listening(text: &str) -> Vec<(SocketAddr, u64)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.nth(1)?;
        (words.nth(1)? == "0A").then_some(())?;
        let inode = words.nth(5)?.parse().ok()?;
        let (ip, port) = address.split_once(':')?;
        Some((SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?), inode))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Words of 32 bits, each as this machine keeps it.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |place: usize| u32::from_str_radix(hex.get(place * 8..place * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (place, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(place)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Somebody has said that an edge runs, and it does not answer.
pub(super) fn no_edge(address: &str, stop: &Stop) -> Finding {
    let why = match stop {
        Stop::Failure(line) => line.clone(),
        _ => "no answer".into(),
    };
    Finding::wrong(&format!("edge {address}"), why, "nobody can look at it", "start it, or look at [admin] in its file")
}

/// What a running edge says of itself.
pub(super) fn of_report(report: &Report) -> Vec<Finding> {
    let about = format!("edge {}", report.pid);
    let mut all = Vec::new();
    let saw =
        format!("version {}, up {} s, configuration {}", report.version, report.uptime_seconds, report.generation);
    if report.draining {
        all.push(Finding::wrong(&about, format!("{saw}, draining"), "it takes nothing new", "start another one"));
    } else {
        all.push(Finding::good(&about, saw));
    }
    for pool in &report.pools {
        let about = format!("pool {}", pool.name);
        let saw = format!("{} links, {} requests wait", pool.links, pool.queued);
        if pool.links == 0 {
            let mend = "start a worker for it, and look at its log: it says why it has no link";
            all.push(Finding::wrong(&about, saw, "nobody serves its requests: they wait, and then get 503", mend));
        } else {
            all.push(Finding::good(&about, saw));
        }
    }
    let panics: u64 = report.cores.iter().map(|core| core.panics).sum();
    if panics > 0 {
        let why = "each was a mistake in ptth that ended a connection";
        all.push(Finding::wrong(
            &about,
            format!("{panics} panics"),
            why,
            "report it, with the log around \"panicked\"",
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Grade::{Advice, Good, Wrong};
    use super::*;
    use crate::edge::report::PoolReport;
    use std::net::TcpListener;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
        \x20  1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n\
        \x20  2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st\n\
        \x20  0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4714 1 0\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn listening_sockets_are_read_as_the_kernel_writes_them() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(listening(TCP), [(at("127.0.0.1:8080"), 4711), (at("0.0.0.0:22"), 4713)]);
        assert_eq!(listening(TCP6), [(at("[::1]:8080"), 4714)]);
        for cut in 0..TCP.len() {
            listening(&TCP[..cut]); // whatever a kernel writes, it is read
        }
        let mut all = Listening { sockets: listening(TCP), owners: Vec::new() };
        all.owners.push((4713, Holder { pid: Some(9), name: "sshd".into() }));
        assert_eq!(
            all.on(at("10.0.0.1:22")),
            [Holder { pid: Some(9), name: "sshd".into() }],
            "0.0.0.0 is all addresses"
        );
        assert_eq!(all.on(at("0.0.0.0:8080")), [Holder { pid: None, name: String::new() }]);
        assert_eq!(all.on(at("127.0.0.2:8080")), []);
        assert_eq!(all.on(at("[::1]:22")), []);
    }

    #[test]
    fn a_socket_of_this_process_is_found_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let holders = Listening::read().on(listener.local_addr().expect("an address"));
        assert_eq!(holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [Some(std::process::id())]);
    }

    #[test]
    fn an_address_is_free_ours_or_somebody_elses() {
        #[track_caller]
        fn check(bound: Result<(), ErrorKind>, holders: &[Holder], edge: Option<u32>, grade: Grade, saw: &str) {
            let got = taken("a", SocketAddr::from(([127, 0, 0, 1], 80)), bound, holders, edge);
            assert!(got.grade == grade && got.saw.contains(saw), "{got:?}, not {grade:?} {saw}");
        }
        let holder = |pid: u32, name: &str| Holder { pid: Some(pid), name: name.into() };
        let unseen = Holder { pid: None, name: String::new() };
        let in_use = || Err(ErrorKind::AddrInUse);
        check(Ok(()), &[], None, Good, "free");
        check(Ok(()), &[holder(7, "ptth")], Some(7), Good, "taken by ptth (7)");
        check(in_use(), &[holder(7, "ptth")], None, Good, "taken by ptth (7)");
        check(in_use(), &[holder(1, "systemd")], None, Good, "systemd");
        check(in_use(), std::slice::from_ref(&unseen), Some(7), Good, "only root");
        check(in_use(), &[unseen], None, Wrong, "only root");
        check(in_use(), &[holder(8, "nginx")], Some(7), Wrong, "taken by nginx (8)");
        check(Ok(()), &[holder(8, "ptth"), holder(9, "ptth")], Some(8), Wrong, "ptth (8), ptth (9)");
        check(in_use(), &[], None, Wrong, "taken");
        check(Err(ErrorKind::PermissionDenied), &[], None, Wrong, "may not be opened");
        check(Err(ErrorKind::PermissionDenied), &[holder(7, "ptth")], Some(7), Good, "taken by ptth (7)");
        check(Err(ErrorKind::AddrNotAvailable), &[], None, Wrong, "not an address of this machine");
    }

    #[test]
    fn a_key_that_everybody_can_read_is_told() {
        let path = Path::new("edge.key");
        assert_eq!(readable_by_all(path, 0o100_600), None);
        assert_eq!(readable_by_all(path, 0o100_640), None);
        let finding = readable_by_all(path, 0o100_644).expect("the last 4");
        assert_eq!((finding.grade, finding.saw.as_str()), (Advice, "edge.key has mode 644"));
    }

    #[test]
    fn a_certificate_is_good_ends_soon_or_has_ended() {
        let (path, day) = (Path::new("web-1.pem"), 86_400);
        let check = |left_days: i64, grade: Grade, saw: &str| {
            let got = expiry(path, 1_800_000_000 + left_days * day, 1_800_000_000);
            assert!(got.grade == grade && got.saw.starts_with(saw) && got.about == "certificate web-1.pem", "{got:?}");
        };
        check(100, Good, "good until 2027-04-25T08:00:00Z");
        check(3, Advice, "it expires at 2027-01-18T08:00:00Z");
        check(0, Wrong, "it expired at 2027-01-15T08:00:00Z");
        check(-1, Wrong, "it expired at 2027-01-14T08:00:00Z");
    }

    #[test]
    fn an_edge_that_runs_says_which_pools_have_nobody() {
        let pool = |name: &str, links| PoolReport { name: name.into(), links, ..PoolReport::default() };
        let report = Report { pools: vec![pool("app", 2), pool("api", 0)], ..Report::default() };
        let grades: Vec<_> = of_report(&report).into_iter().map(|finding| (finding.about, finding.grade)).collect();
        assert_eq!(grades, [("edge 0".into(), Good), ("pool app".into(), Good), ("pool api".into(), Wrong)]);
        let draining = Report { draining: true, ..Report::default() };
        assert_eq!(of_report(&draining)[0].grade, Wrong);
    }
}
