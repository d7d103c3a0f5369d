//! Connections to the server behind the worker: dialed when needed, kept while idle, closed when stale. Requests never
//! enter.

use std::cell::RefCell;
use std::net::SocketAddr;

use super::config::Target;
use super::resolve::Resolver;
use crate::clock::{self, Now};
use crate::fault::Fault;
use crate::io::{self, Conn};
use crate::limits::{CONNECT_MS_MAX, ORIGIN_IDLE_MS_MAX, ORIGIN_LOOK_MS};

/// Where the server is, and what is open to it.
pub struct Origin {
    target: Target,
    resolver: Resolver,
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

impl Origin {
    pub fn new(target: Target, resolver: Resolver) -> Origin {
        Origin { target, resolver, idle: RefCell::new(Vec::new()) }
    }

    /// An idle connection, else a new one. Never one that the server has closed, or on which something came unasked: it
    /// would answer this request.
    pub async fn take(&self) -> Result<Taken, Fault> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(Idle { conn, .. }) = idle else { return self.dial().await };
            if conn.is_silent() {
                return Ok(Taken { conn, was_used: true });
            }
        }
    }

    /// A connection that no server can have closed yet.
    pub async fn dial(&self) -> Result<Taken, Fault> {
        let conn = match io::timeout(CONNECT_MS_MAX, self.connect()).await {
            Some(Ok(conn)) => conn,
            Some(Err(why)) => {
                tracing::warn!(to = %self.target, why, "the server does not take connections");
                return Err(Fault::OriginUnreachable);
            }
            None => {
                tracing::warn!(to = %self.target, "the server does not take connections: no answer in time");
                return Err(Fault::OriginUnreachable);
            }
        };
        Ok(Taken { conn, was_used: false })
    }

    async fn connect(&self) -> Result<Conn, String> {
        match &self.target {
            Target::Unix(path) => Conn::connect_unix(path).await.map_err(|error| error.to_string()),
            Target::Http { host, port } => {
                let found = self.resolver.lookup(host).await?;
                let mut why = "the name has no address".to_owned();
                for ip in found.addresses {
                    match Conn::connect(SocketAddr::new(ip, *port)).await {
                        Ok(conn) => return Ok(conn),
                        Err(error) => why = error.to_string(),
                    }
                }
                Err(why)
            }
        }
    }

    /// Keeps a connection whose exchange ended well.
    pub fn give_back(&self, conn: Conn) {
        self.idle.borrow_mut().push(Idle { conn, since: clock::now() });
    }

    /// Closes what the server has closed, and what nobody used for long. Runs as long as the worker.
    pub async fn reap(&self) {
        loop {
            io::sleep_ms(ORIGIN_LOOK_MS).await;
            let now = clock::now();
            self.idle
                .borrow_mut()
                .retain(|idle| now.ms_since(idle.since) < ORIGIN_IDLE_MS_MAX && idle.conn.is_silent());
        }
    }
}
