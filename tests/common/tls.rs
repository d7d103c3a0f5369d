//! A test's own certificate authority, and clients that speak TLS: rustls over a blocking socket. What a test claims never
//! enters.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{HANG, TestEdge};

/// A folder that goes when the test ends.
pub struct Files(pub PathBuf);

impl Files {
    pub fn new() -> Files {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ptth-tls-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Files(folder)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn issue(&self, authority: &Authority, name: &str, hosts: &[&str]) {
        let (certificate, key) = authority.issue(hosts);
        self.write(&format!("{name}.pem"), &certificate);
        self.write(&format!("{name}.key"), &key);
    }

    /// The entry of `tls` for what [`Files::issue`] wrote.
    pub fn entry(&self, name: &str) -> String {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        format!("{{ certificate = \"{certificate}\", key = \"{key}\" }}")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, as PEM.
    pub fn issue(&self, hosts: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

pub const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
pub const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

pub struct Client {
    pub config: ClientConfig,
}

impl Client {
    pub fn new(authority: &Authority) -> Client {
        Client::of(authority, TLS13)
    }

    pub fn of(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> Client {
        let config = builder(versions).with_root_certificates(authority.roots()).with_no_client_auth();
        Client { config }
    }

    pub fn with_certificate(authority: &Authority, shown: (String, String)) -> Client {
        use rustls::pki_types::pem::PemObject as _;
        let chain = vec![CertificateDer::from_pem_slice(shown.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(shown.1.as_bytes()).unwrap();
        let config = builder(TLS13).with_root_certificates(authority.roots()).with_client_auth_cert(chain, key);
        Client { config: config.unwrap() }
    }

    pub fn offering(mut self, protocols: &[&str]) -> Client {
        self.config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// A connection that asks for `name`; its handshake has not begun.
    pub fn dial(&self, edge: &TestEdge, name: &str) -> Stream {
        self.dial_to(edge.address, name)
    }

    pub fn dial_to(&self, edge: SocketAddr, name: &str) -> Stream {
        let stream = TcpStream::connect(edge).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Stream(StreamOwned::new(ClientConnection::new(Arc::new(self.config.clone()), name).unwrap(), stream))
    }

    #[track_caller]
    pub fn connect(&self, edge: &TestEdge, name: &str) -> Stream {
        self.connect_to(edge.address, name)
    }

    #[track_caller]
    pub fn connect_to(&self, address: SocketAddr, name: &str) -> Stream {
        let mut stream = self.dial_to(address, name);
        stream.0.flush().expect("a handshake"); // completes it
        assert!(!stream.0.conn.is_handshaking());
        stream
    }
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap()
}

pub struct Stream(pub StreamOwned<ClientConnection, TcpStream>);

impl Stream {
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("the edge reads");
        self.0.flush().expect("the edge reads");
    }

    /// Reads one answer that has a Content-Length; head and body.
    #[track_caller]
    pub fn answer(&mut self) -> (String, Vec<u8>) {
        let mut seen = Vec::new();
        let end = loop {
            let mut piece = [0; 4096];
            let n = self.0.read(&mut piece).expect("an answer");
            assert!(n > 0, "it ended after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..n]);
            if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8(seen[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = seen.split_off(end);
        let missing = length.parse::<usize>().unwrap() - body.len();
        let from = body.len();
        body.resize(from + missing, 0);
        self.0.read_exact(&mut body[from..]).expect("the rest of the body");
        (head, body)
    }

    #[track_caller]
    pub fn ask(&mut self, request: &str) -> (u16, String) {
        self.send(request);
        let (head, body) = self.answer();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// The certificate that the edge showed.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().expect("a chain")[0].clone().into_owned()
    }
}
