//! The certificates of an address: read from their files, checked, chosen by the name that a client asks for, and read again
//! while connections come and go. A handshake itself is `io`'s.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, ServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Connection, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::config::{CertificateFiles, EdgeConfig, Listen};
use crate::limits::{CERTIFICATE_EXPIRY_WARNING_S, CHAIN_ENDS_MAX};
use crate::pem::{certificates, certified_key, shown};
use crate::settings::{Mistakes, Place};
use crate::wire::INVERTED;

/// What the addresses of an edge speak, in the order of the configuration; `None` speaks no TLS.
pub type Addresses = Vec<Option<Arc<Tls>>>;

/// One address with TLS. Its certificates may change at any time; a handshake that has begun keeps what it began with.
pub struct Tls {
    now: RwLock<Arc<Served>>,
}

/// What an address speaks at one moment.
struct Served {
    server: Arc<ServerConfig>,
    /// As `server`, for an address where workers may turn the roles by the handshake (inverted HTTP).
    inverting: Option<Arc<ServerConfig>>,
    /// Who vouches for the certificates that workers show.
    authorities: Option<Arc<Authorities>>,
    /// Each file of a certificate, and the second since 1970 at which that expires.
    ends: Vec<(String, u64)>,
}

/// Every `worker_ca` of an address.
struct Authorities {
    /// For handshakes: whoever one of them vouches for.
    any: Arc<dyn ClientCertVerifier>,
    each: Vec<Authority>,
}

/// One `worker_ca`. The path is its name: what a credential says is held against it.
struct Authority {
    file: PathBuf,
    verifier: Arc<dyn ClientCertVerifier>,
    /// What it was made of.
    certificates: Vec<CertificateDer<'static>>,
}

/// A certificate that a peer has shown, and where. As long as its connection lives, others may come to vouch for it, or nobody.
pub struct Certificate {
    /// The peer's own first. Not empty.
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<Tls>,
}

impl Certificate {
    /// What a handshake at this address has brought. `None`: nothing was shown.
    #[must_use]
    pub fn shown(chain: Vec<CertificateDer<'static>>, tls: &Arc<Tls>) -> Option<Certificate> {
        (!chain.is_empty()).then(|| Certificate { chain, tls: tls.clone() })
    }

    /// What it says. It was checked in its handshake; but since then its authority may be gone, or it may have expired, and a
    /// session that is taken up again brings the certificate of its first one. `None`: nobody vouches for it now.
    ///
    /// Costs a signature or two, some 100 us, and as much again where a certificate between it and its authority expires first: for
    /// a setup, and for a link when authorities change.
    #[must_use]
    pub fn vouched(&self, now_unix: u64) -> Option<Vouched> {
        let (own, between) = self.chain.split_first()?;
        let served = self.tls.now();
        let each = &served.authorities.as_ref()?.each;
        // Most know by a name that it is not theirs.
        let vouch: Vec<&Authority> = each.iter().filter(|one| one.vouches(own, between, now_unix)).collect();
        let said = Said::of(own).filter(|_| !vouch.is_empty())?;
        let own_end = said.not_after_unix();
        let until = |one: &Authority| (one.file.clone(), one.end_unix(own, between, now_unix, own_end));
        Some(Vouched { names: said.names, authorities: vouch.into_iter().map(until).collect() })
    }
}

impl Authority {
    fn vouches(&self, own: &CertificateDer<'_>, between: &[CertificateDer<'_>], now_unix: u64) -> bool {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix));
        self.verifier.verify_client_cert(own, between, now).is_ok()
    }

    /// Until when it vouches for a certificate that it vouches for now, at most until `own_end`. Which of the others stand between the
    /// two is not told, and there may be two ways; so it is asked about the moments behind their ends.
    fn end_unix(&self, own: &CertificateDer<'_>, between: &[CertificateDer<'_>], now_unix: u64, own_end: u64) -> u64 {
        let ends = between.iter().filter_map(Said::of).map(|said| said.not_after_unix());
        let mut ends: Vec<u64> = ends.filter(|end| (now_unix..own_end).contains(end)).collect();
        ends.sort_unstable();
        ends.dedup();
        if ends.len() > CHAIN_ENDS_MAX {
            return ends[0]; // nobody has such a chain
        }
        ends.into_iter().find(|end| !self.vouches(own, between, end + 1)).unwrap_or(own_end)
    }
}

/// What a peer's certificate says that `worker_ca` vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Its DNS names, in lower case.
    pub names: Vec<String>,
    /// Who vouches for it: each a `worker_ca` of the address where it was shown, with the second since 1970 from which on that one
    /// does not any more: it has expired, or one between the two.
    pub authorities: Vec<(PathBuf, u64)>,
}

impl Vouched {
    /// Until which second since 1970 this `worker_ca` vouches for it. `None`: it does not.
    #[must_use]
    pub fn until_unix(&self, authority: &Path) -> Option<u64> {
        self.authorities.iter().find(|(file, _)| file == authority).map(|(_, until)| *until)
    }
}

impl Tls {
    /// For one more connection. `inverts`: it may turn its roles, where that is possible at all.
    pub fn session(&self, inverts: bool) -> Result<Connection, rustls::Error> {
        let now = self.now();
        let server = now.inverting.as_ref().filter(|_| inverts).unwrap_or(&now.server);
        ServerConnection::new(server.clone()).map(Connection::Server)
    }

    /// The files of its certificates, and when each expires, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, u64)> {
        self.now().ends.clone()
    }

    /// Somebody vouches for workers' certificates here.
    #[must_use]
    pub fn has_authorities(&self) -> bool {
        self.now().authorities.is_some()
    }

    fn now(&self) -> Arc<Served> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the certificates of all addresses. With a mistake among them the result has gaps, and nobody uses it. `now_unix`
/// tells which certificates have expired or soon will; those are warnings.
pub fn load(config: &EdgeConfig, now_unix: u64, mistakes: &mut Mistakes) -> Addresses {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut addresses = Vec::with_capacity(config.listens.len());
    for listen in &config.listens {
        let server = (!listen.tls.is_empty()).then(|| server_config(listen, &provider, None, now_unix, mistakes));
        addresses.push(server.flatten().map(|server| Arc::new(Tls { now: RwLock::new(Arc::new(server)) })));
    }
    addresses
}

/// An address for HTTP/1.1 alone, such as the admin's. Its `worker_ca` vouches for whoever asks.
pub fn load_one(files: &CertificateFiles, now_unix: u64, mistakes: &mut Mistakes) -> Option<Arc<Tls>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let served = server_for_one(files, &provider, None, now_unix, mistakes)?;
    Some(Arc::new(Tls { now: RwLock::new(Arc::new(served)) }))
}

/// Reads it again. With a mistake, here or before, nothing changes.
pub fn reload_one(tls: &Tls, files: &CertificateFiles, now_unix: u64, mistakes: &mut Mistakes) {
    let before = tls.now();
    let tickets = Some(before.server.ticketer.clone());
    let served = server_for_one(files, before.server.crypto_provider(), tickets, now_unix, mistakes);
    if let Some(served) = served.filter(|_| !mistakes.has_errors()) {
        *tls.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }
}

fn server_for_one(
    files: &CertificateFiles,
    provider: &Arc<CryptoProvider>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    now_unix: u64,
    mistakes: &mut Mistakes,
) -> Option<Served> {
    let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let listen = Listen { tls: vec![files.clone()], ..Listen::new(nowhere, false, false) };
    let mut served = server_config(&listen, provider, tickets, now_unix, mistakes)?;
    let mut server = ServerConfig::clone(&served.server);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    served.server = Arc::new(server);
    Some(served)
}

/// Reads them again. With a mistake nothing changes. True: others vouch for workers' certificates now.
pub fn reload(addresses: &Addresses, config: &EdgeConfig, now_unix: u64, mistakes: &mut Mistakes) -> bool {
    let mut fresh = Vec::new();
    for (tls, listen) in addresses.iter().zip(&config.listens) {
        let Some(tls) = tls else { continue };
        let before = tls.now();
        // Tickets from before are good afterwards.
        let tickets = Some(before.server.ticketer.clone());
        let server = server_config(listen, before.server.crypto_provider(), tickets, now_unix, mistakes);
        fresh.extend(server.map(|server| (tls, server)));
    }
    if mistakes.has_errors() {
        return false;
    }
    let certificates = |served: &Served| -> Vec<Vec<CertificateDer<'static>>> {
        served.authorities.iter().flat_map(|own| own.each.iter().map(|one| one.certificates.clone())).collect()
    };
    let mut are_others = false;
    for (tls, server) in fresh {
        are_others |= certificates(&tls.now()) != certificates(&server);
        *tls.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
    }
    are_others
}

/// Tickets that an address gave out under another configuration are good under this one, too.
pub fn keep_tickets(addresses: &Addresses, listens: &[Listen], before: &Addresses, listens_before: &[Listen]) {
    for (tls, listen) in addresses.iter().zip(listens) {
        let same = before.iter().zip(listens_before).find(|(_, before)| before.address == listen.address);
        let (Some(tls), Some((Some(before), _))) = (tls, same) else { continue };
        let (now, ticketer) = (tls.now(), before.now().server.ticketer.clone());
        let with_tickets = |server: &Arc<ServerConfig>| {
            let mut server = ServerConfig::clone(server);
            server.ticketer = ticketer.clone();
            Arc::new(server)
        };
        let (server, inverting) = (with_tickets(&now.server), now.inverting.as_ref().map(with_tickets));
        let served = Served { server, inverting, authorities: now.authorities.clone(), ends: now.ends.clone() };
        *tls.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }
}

fn server_config(
    listen: &Listen,
    provider: &Arc<CryptoProvider>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    now_unix: u64,
    mistakes: &mut Mistakes,
) -> Option<Served> {
    let names = Names::load(&listen.tls, provider, now_unix, mistakes);
    let workers = authorities(&listen.tls, provider, mistakes);
    let (mut names, workers) = (names?, workers?);
    let ends = std::mem::take(&mut names.ends);
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = builder.expect("the provider has suites for both versions");
    let builder = match &workers {
        Some(authorities) => builder.with_client_cert_verifier(authorities.any.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(names));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // What a session needs is in its ticket, so that any core can take it up again, and nothing is kept here. One ticket
    // for each full handshake is what a browser uses. No 0-RTT: its bytes can be replayed (RFC 8470 §3).
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    server.ticketer = match tickets {
        Some(tickets) => tickets,
        None => match rustls::crypto::aws_lc_rs::Ticketer::new() {
            Ok(tickets) => tickets,
            Err(error) => {
                let place = listen.tls[0].certificate.place;
                mistakes.error(place, format_args!("no random bytes for session tickets: {error}"), "try again");
                return None;
            }
        },
    };
    // Who a worker is that asks for nothing, only its certificate says.
    let inverting = (listen.workers && workers.is_some()).then(|| {
        let mut inverting = server.clone();
        let ids = INVERTED.iter().map(|(id, _)| id.to_vec());
        inverting.alpn_protocols = ids.chain(server.alpn_protocols.iter().cloned()).collect();
        Arc::new(inverting)
    });
    Some(Served { server: Arc::new(server), inverting, authorities: workers.map(Arc::new), ends })
}

/// Who may show a certificate of his own. It is asked of everybody and demanded of nobody.
fn authorities(
    files: &[CertificateFiles],
    provider: &Arc<CryptoProvider>,
    mistakes: &mut Mistakes,
) -> Option<Option<Authorities>> {
    let mut each: Vec<Authority> = Vec::new();
    let mut all = RootCertStore::empty();
    for path in files.iter().filter_map(|files| files.worker_ca.as_ref()) {
        if each.iter().any(|other| other.file == path.value) {
            continue;
        }
        let mut roots = RootCertStore::empty();
        let certificates = certificates(path, mistakes)?;
        for certificate in &certificates {
            if let Err(error) = roots.add(certificate.clone()) {
                let what = format!("{}: not a certificate of an authority: {error}", shown(&path.value));
                mistakes.error(path.place, what, "put the authority's own certificate there");
                return None;
            }
        }
        all.roots.extend(roots.roots.iter().cloned());
        let verifier = verifier_of(roots, path.place, provider, mistakes)?;
        each.push(Authority { file: path.value.clone(), verifier, certificates });
    }
    let any = match each.as_slice() {
        [] => return Some(None),
        [only] => only.verifier.clone(),
        _ => verifier_of(all, Place::File, provider, mistakes)?,
    };
    Some(Some(Authorities { any, each }))
}

fn verifier_of(
    roots: RootCertStore,
    place: Place,
    provider: &Arc<CryptoProvider>,
    mistakes: &mut Mistakes,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    match builder.allow_unauthenticated().build() {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            mistakes.error(place, format_args!("`worker_ca` cannot be used: {error}"), "look at the file");
            None
        }
    }
}

/// Certificates by the names in them.
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For whoever asks for no name, or for one that is not there: the first of the file.
    first: Arc<CertifiedKey>,
    /// As in [`Served`].
    ends: Vec<(String, u64)>,
}

impl Names {
    fn load(
        files: &[CertificateFiles],
        provider: &CryptoProvider,
        now_unix: u64,
        mistakes: &mut Mistakes,
    ) -> Option<Names> {
        let mut names: Option<Names> = None;
        let mut all_good = true;
        for files in files {
            let Some(key) = certified_key(&files.certificate, &files.key, provider, mistakes) else {
                all_good = false;
                continue;
            };
            let said = Said::of(&key.cert[0]);
            let Some(said) = said else {
                let what = format!("{}: the first certificate cannot be read", shown(&files.certificate.value));
                mistakes.error(files.certificate.place, what, "write it anew from its authority's answer");
                all_good = false;
                continue;
            };
            said.check_time(files, now_unix, mistakes);
            let key = Arc::new(key);
            let names = names.get_or_insert_with(|| Names {
                exact: HashMap::new(),
                wildcard: HashMap::new(),
                first: key.clone(),
                ends: Vec::new(),
            });
            let file = files.certificate.value.display().to_string();
            names.ends.push((file, said.not_after_unix()));
            for name in said.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut names.wildcard, parent.to_owned()),
                    None => (&mut names.exact, name),
                };
                map.entry(name).or_insert_with(|| key.clone()); // the first one of a name wins
            }
        }
        names.filter(|_| all_good)
    }

    fn choose(&self, asked: Option<&str>) -> Arc<CertifiedKey> {
        let Some(asked) = asked.map(str::to_ascii_lowercase) else { return self.first.clone() };
        let parent = || asked.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(&asked).or_else(parent).unwrap_or(&self.first).clone()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.exact.keys()).entries(self.wildcard.keys()).finish()
    }
}

/// What a certificate says.
struct Said {
    /// In lower case.
    names: Vec<String>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Said {
    fn of(certificate: &CertificateDer<'_>) -> Option<Said> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            }),
            Ok(None) | Err(_) => return Some(Said::named(&certificate, Vec::new())),
        };
        let names = names.collect();
        Some(Said::named(&certificate, names))
    }

    fn named(certificate: &X509Certificate<'_>, names: Vec<String>) -> Said {
        let validity = certificate.validity();
        Said { names, not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }

    fn not_after_unix(&self) -> u64 {
        u64::try_from(self.not_after).unwrap_or(0)
    }

    fn check_time(&self, files: &CertificateFiles, now_unix: u64, mistakes: &mut Mistakes) {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let (place, file) = (files.certificate.place, shown(&files.certificate.value));
        let at = |unix: i64| jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |at| at.to_string());
        if now >= self.not_after {
            let what = format!("{file}: the certificate expired at {}", at(self.not_after));
            mistakes.warning(place, what, "clients refuse it; renew it and send SIGHUP");
        } else if now < self.not_before {
            let what = format!("{file}: the certificate is not valid before {}", at(self.not_before));
            mistakes.warning(place, what, "clients refuse it until then; is this host's clock right?");
        } else if self.not_after - now < CERTIFICATE_EXPIRY_WARNING_S {
            let what = format!("{file}: the certificate expires at {}", at(self.not_after));
            mistakes.warning(place, what, "renew it and send SIGHUP");
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    const NOW_UNIX: u64 = 1_767_225_600;
    const OWN_END: u64 = NOW_UNIX + 1_000;

    fn authority(name: &str, end_unix: u64) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        valid_until(params, end_unix)
    }

    fn valid_until(mut params: CertificateParams, end_unix: u64) -> CertificateParams {
        let at = |unix: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
        (params.not_before, params.not_after) = (at(NOW_UNIX - 1_000), at(end_unix));
        params
    }

    /// The end of a worker's certificate behind certificates of its authority that end then, all of one key, with `others` shown
    /// beside them that have nothing to do with it.
    fn end_behind(between: &[u64], others: &[u64]) -> u64 {
        let (root_key, middle_key, own_key) =
            (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        // A root's own end is not looked at: whoever put it into the file trusts it.
        let root = authority("root", NOW_UNIX + 10).self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(authority("root", NOW_UNIX + 10), &root_key);
        let middle = |end: &u64| authority("middle", *end).signed_by(&middle_key, &root_issuer).unwrap().der().clone();
        let other = |end: &u64| authority("other", *end).self_signed(&own_key).unwrap().der().clone();
        let middles: Vec<_> = between.iter().map(middle).chain(others.iter().map(other)).collect();
        let own = valid_until(CertificateParams::new(["web-1".to_owned()]).unwrap(), OWN_END);
        let own = own.signed_by(&own_key, &Issuer::new(authority("middle", OWN_END), &middle_key)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = verifier_of(roots, Place::File, &provider, &mut Mistakes::new("edge.toml")).unwrap();
        let authority = Authority { file: "workers.pem".into(), verifier, certificates: Vec::new() };
        assert!(authority.vouches(own.der(), &middles, NOW_UNIX));
        authority.end_unix(own.der(), &middles, NOW_UNIX, OWN_END)
    }

    #[test]
    fn each_authority_vouches_until_its_own_chain_ends() {
        let keys = [(); 4].map(|()| KeyPair::generate().unwrap());
        let [root_key, other_key, middle_key, own_key] = &keys;
        let own = valid_until(CertificateParams::new(["web-1".to_owned()]).unwrap(), OWN_END);
        let own = own.signed_by(own_key, &Issuer::new(authority("middle", OWN_END), middle_key)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut each = Vec::new();
        let mut chain = vec![own.der().clone()];
        // Two roots have signed the one that has signed the worker's own, for different times.
        for (name, key, end_unix) in [("long", root_key, OWN_END + 1), ("short", other_key, NOW_UNIX + 300)] {
            let root = authority(name, OWN_END).self_signed(key).unwrap();
            let issuer = Issuer::new(authority(name, OWN_END), key);
            chain.push(authority("middle", end_unix).signed_by(middle_key, &issuer).unwrap().der().clone());
            let mut roots = RootCertStore::empty();
            roots.add(root.der().clone()).unwrap();
            let verifier = verifier_of(roots, Place::File, &provider, &mut Mistakes::new("edge.toml")).unwrap();
            each.push(Authority { file: name.into(), verifier, certificates: Vec::new() });
        }
        let said = each.iter().map(|one| (one.file.clone(), one.end_unix(&chain[0], &chain[1..], NOW_UNIX, OWN_END)));
        let vouched = Vouched { names: Vec::new(), authorities: said.collect() };
        for (name, want) in [("long", Some(OWN_END)), ("short", Some(NOW_UNIX + 300)), ("none", None)] {
            assert_eq!(vouched.until_unix(Path::new(name)), want, "{name}");
        }
    }

    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates_that_it_cannot_do_without() {
        let at = |s: u64| NOW_UNIX + s;
        for (between, others, want) in [
            (&[at(5_000)][..], &[][..], OWN_END),
            (&[at(300)], &[], at(300)),
            (&[at(0)], &[], at(0)),
            (&[at(300), at(700)], &[], at(700)), // another way is good for longer
            (&[at(300), at(5_000)], &[], OWN_END),
            (&[at(700)], &[at(300)], at(700)), // was shown, and is in no way
            (&[at(700)], &[NOW_UNIX - 1, at(5_000)], at(700)),
            (&[at(700)], &[at(1), at(2), at(3), at(4)], at(1)), // more than there are in any chain
        ] {
            assert_eq!(end_behind(between, others), want, "{between:?} {others:?}");
        }
    }
}
