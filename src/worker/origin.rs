//! Connections to the server behind the worker: dialed when needed, kept while idle, closed when stale. Requests never
//! enter.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::ClientConfig;

use super::config::Target;
use super::resolve::Resolver;
use super::tls;
use crate::clock::{self, Now};
use crate::fault::Fault;
use crate::io::{self, Conn};
use crate::limits::{CONNECT_MS_MAX, ORIGIN_IDLE_MS_MAX};

/// Where the server is, and how to get there.
pub struct Dialer {
    target: Target,
    resolver: Resolver,
    /// For an https server.
    tls: RefCell<Option<Arc<ClientConfig>>>,
}

impl Dialer {
    pub fn new(target: Target, resolver: Resolver, tls: Option<Arc<ClientConfig>>) -> Dialer {
        Dialer { target, resolver, tls: RefCell::new(tls) }
    }

    /// From the next connection on.
    pub fn set_tls(&self, tls: Option<Arc<ClientConfig>>) {
        self.tls.replace(tls);
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A connection that no server can have closed yet.
    pub async fn dial(&self) -> Result<Conn, Fault> {
        let why = match io::timeout(CONNECT_MS_MAX, self.connect()).await {
            Some(Ok(conn)) => return Ok(conn),
            Some(Err(why)) => why,
            None => "no answer in time".to_owned(),
        };
        tracing::warn!(to = %self.target, why, "the server does not take connections");
        Err(Fault::OriginUnreachable)
    }

    /// As [`Dialer::dial`], without a bound on time, and without a word to the log.
    pub async fn connect(&self) -> Result<Conn, String> {
        let (host, port) = match &self.target {
            Target::Unix(path) => return Conn::connect_unix(path).await.map_err(|error| error.to_string()),
            Target::Within(within) => {
                let ours = within.connect()?;
                return Conn::from_fd(ours.into(), Bytes::new()).map_err(|error| error.to_string());
            }
            Target::Http { host, port } | Target::Https { host, port } | Target::H2c { host, port } => (host, *port),
        };
        let found = self.resolver.lookup(host).await?;
        let mut conn = connect_any(found.addresses.into_iter().map(|ip| SocketAddr::new(ip, port))).await?;
        let tls = self.tls.borrow().clone();
        if let Some(config) = &tls {
            tls::secure(&mut conn, config, host, "to_ca_file").await?;
        }
        Ok(conn)
    }
}

/// The first of several addresses that takes a connection.
pub async fn connect_any(addresses: impl Iterator<Item = SocketAddr>) -> Result<Conn, String> {
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match Conn::connect(address).await {
            Ok(conn) => return Ok(conn),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Kept connections over HTTP/1.1.
#[derive(Default)]
pub struct Kept {
    /// The last one used is taken first, so that those that are not needed grow old.
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    conn: Conn,
    since: Now,
}

/// A connection, and whether it has carried a request before.
pub struct Taken {
    pub conn: Conn,
    pub was_used: bool,
}

impl Kept {
    /// An idle connection, else a new one. Never one that the server has closed, or on which something came unasked: it
    /// would answer this request.
    pub async fn take(&self, dialer: &Dialer) -> Result<Taken, Fault> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(Idle { conn, .. }) = idle else {
                return Ok(Taken { conn: dialer.dial().await?, was_used: false });
            };
            if conn.is_silent() {
                return Ok(Taken { conn, was_used: true });
            }
        }
    }

    /// Keeps a connection whose exchange ended well.
    pub fn give_back(&self, conn: Conn) {
        self.idle.borrow_mut().push(Idle { conn, since: clock::now() });
    }

    /// Closes what the server has closed, and what nobody used for long.
    pub fn reap(&self) {
        let now = clock::now();
        self.idle.borrow_mut().retain(|idle| now.ms_since(idle.since) < ORIGIN_IDLE_MS_MAX && idle.conn.is_silent());
    }
}
