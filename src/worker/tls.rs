//! What the worker needs to speak TLS: whom it trusts, what it shows, and why a handshake failed, in words. Sockets and the
//! handshake itself are `io`'s.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, ClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, Connection, Error, RootCertStore};

use super::config::{Identity, Target, WorkerConfig};
use crate::limits::HANDSHAKE_MS_MAX;
use crate::pem::{certificates, certified_key, shown};
use crate::settings::{At, Mistakes, Place};
use crate::wire::Scheme;

/// What to speak to whoever has an https address; `None` where nobody has.
#[derive(Clone, Default)]
pub struct Tls {
    pub edge: Option<Arc<ClientConfig>>,
    /// The certificate that edges are shown.
    pub shown: Option<Vec<u8>>,
    pub origin: Option<Arc<ClientConfig>>,
}

/// Reads the files of `config`. With a mistake among them the result has gaps, and nobody uses it.
pub fn load(config: &WorkerConfig, mistakes: &mut Mistakes) -> Tls {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let files = &config.tls;
    let edge = config.edges.iter().any(|edge| edge.scheme == Scheme::Https).then(|| {
        let trust = Trust { file: files.ca_file.as_ref(), key: "ca_file", place: files.edges_at };
        // A setup is an HTTP/1.1 request; a device of HAProxy's speaks HTTP/2 from its first byte on.
        let protocol: &[u8] = if config.haproxy { b"h2" } else { b"http/1.1" };
        client_config(&provider, &trust, files.identity.as_ref(), protocol, mistakes)
    });
    let origin = matches!(config.to, Target::Https { .. }).then(|| {
        let trust = Trust { file: files.to_ca_file.as_ref(), key: "to_ca_file", place: files.to_at };
        client_config(&provider, &trust, None, b"http/1.1", mistakes)
    });
    let shown = files.identity.as_ref().filter(|_| edge.is_some()).and_then(|identity| {
        // Read a second time: what is wrong with it was said the first time.
        certificates(&identity.certificate, &mut Mistakes::new("")).map(|chain| chain[0].to_vec())
    });
    Tls { edge: edge.flatten(), shown, origin: origin.flatten() }
}

/// What a command speaks to an https address: whom it trusts (`None`: whom the system does), and what it shows.
pub fn of_command(ca_file: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, Mistakes> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut mistakes = Mistakes::new("");
    let at = |path: &Path, flag| At { value: path.to_owned(), place: Place::Flag(flag) };
    let file = ca_file.map(|file| at(file, "--ca-file"));
    let identity = identity
        .map(|(certificate, key)| Identity { certificate: at(certificate, "--certificate"), key: at(key, "--key") });
    let trust = Trust { file: file.as_ref(), key: "--ca-file", place: Place::Flag("--admin") };
    client_config(&provider, &trust, identity.as_ref(), b"http/1.1", &mut mistakes).ok_or(mistakes)
}

/// Whose certificates are believed.
struct Trust<'a> {
    file: Option<&'a At<std::path::PathBuf>>,
    /// Where a file could be named.
    key: &'static str,
    /// Where the address is that needs it.
    place: Place,
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    trust: &Trust<'_>,
    identity: Option<&Identity>,
    protocol: &[u8],
    mistakes: &mut Mistakes,
) -> Option<Arc<ClientConfig>> {
    let roots = match trust.file {
        Some(file) => roots_of(file, mistakes),
        None => system_roots(trust, mistakes),
    };
    let shown = match identity {
        Some(identity) => certified_key(&identity.certificate, &identity.key, provider, mistakes).map(Some),
        None => Some(None),
    };
    let (roots, shown) = (roots?, shown?);
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = builder.expect("the provider has suites for both versions").with_root_certificates(roots);
    let mut client = match shown {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = vec![protocol.to_vec()];
    Some(Arc::new(client))
}

fn roots_of(file: &At<std::path::PathBuf>, mistakes: &mut Mistakes) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, mistakes)? {
        if let Err(error) = roots.add(certificate) {
            let what = format!("{}: not a certificate of an authority: {error}", shown(&file.value));
            mistakes.error(file.place, what, "put the authority's own certificate there");
            return None;
        }
    }
    Some(roots)
}

fn system_roots(trust: &Trust<'_>, mistakes: &mut Mistakes) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Some systems have a few that nobody can read; what is missing then shows in a handshake.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let mend = format!("install the package ca-certificates, or name a PEM file in `{}`", trust.key);
        mistakes.error(trust.place, "this system has no certificates of authorities", mend);
        return None;
    }
    Some(roots)
}

/// A connection's session with `host`, which its certificate has to name. A host has no brackets.
pub fn session(config: &Arc<ClientConfig>, host: &str) -> Result<Connection, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can name {host}"))?;
    ClientConnection::new(config.clone(), name).map(Connection::Client).map_err(|error| error.to_string())
}

/// Makes `conn` speak TLS with `host`, whose authorities could be named in the key `ca_key`.
pub async fn secure(
    conn: &mut crate::io::Conn,
    config: &Arc<ClientConfig>,
    host: &str,
    ca_key: &str,
) -> Result<(), String> {
    let session = session(config, host)?;
    match crate::io::timeout(HANDSHAKE_MS_MAX, conn.secure(session)).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(format!("no TLS with {host}: {}", reason(&error, ca_key))),
        None => Err(format!("no TLS with {host}: the handshake was not answered in time")),
    }
}

/// Why a connection that speaks TLS failed.
#[must_use]
pub fn reason(error: &io::Error, ca_key: &str) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            // The second: an authority of the same name, but with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its certificate comes from an authority that is not known here; name the authority's PEM file in `{ca_key}`"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is this machine's clock right?".into()
            }
            other => format!("its certificate cannot be trusted: {other}"),
        },
        Some(Error::AlertReceived(alert)) => {
            use rustls::AlertDescription as Alert;
            match alert {
                Alert::CertificateRequired => "it wants to see a certificate; look at `certificate` and `key`".into(),
                Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied => {
                    format!("it does not accept our certificate ({alert:?}); look at `certificate` and `key`")
                }
                Alert::NoApplicationProtocol => "it does not speak HTTP/1.1 there".into(),
                other => format!("it gave up with an alert ({other:?})"),
            }
        }
        Some(Error::InvalidMessage(_)) => "what it says is no TLS; is it an http:// address?".into(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closed the connection".into(),
        None => error.to_string(),
    }
}
