//! Connections over HTTP/2 to the server behind the worker: one as long as it takes another stream, a further one when it does
//! not. What runs in a stream never enters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::origin::Dialer;
use crate::clock::{self, Now};
use crate::exchange::Latch;
use crate::fault::Fault;
use crate::io;
use crate::limits::{CONNECT_MS_MAX, ORIGIN_IDLE_MS_MAX};
use crate::link::h2::{H2Link, H2Sender, News, Preface};

/// All of them. There are as many as the worker's concurrency needs with the streams that the server allows: mostly one.
#[derive(Default)]
pub struct H2Pool {
    conns: RefCell<Vec<Rc<H2Conn>>>,
    /// Somebody dials; whoever needs a stream meanwhile waits for him.
    is_dialing: Cell<bool>,
    /// Dials that failed.
    failures: Cell<u64>,
    /// Set, and replaced, when there may be a stream for somebody who waits.
    changed: RefCell<Rc<Latch>>,
}

/// ```text
/// Fresh --SETTINGS--> Open --GOAWAY, idle for long--> Leaving --last stream ends--> (over)
/// Fresh, Open, Leaving --lost--> (over)
/// ```
/// Fresh is an open one without a credit yet.
struct H2Conn {
    /// `None`: it takes no new stream. Without our own sender the engine closes it after its last one.
    send: RefCell<Option<H2Sender>>,
    streams_max: Cell<u32>,
    carries_upgrades: Cell<bool>,
    running: Cell<u32>,
    idle_since: Cell<Now>,
    leaves: Latch,
}

/// A stream that may be opened. Dropping it makes room for another.
pub struct H2Place {
    pool: Rc<H2Pool>,
    conn: Rc<H2Conn>,
    pub send: H2Sender,
}

impl H2Place {
    /// The server takes extended CONNECT (RFC 8441 §3).
    pub fn carries_upgrades(&self) -> bool {
        self.conn.carries_upgrades.get()
    }
}

impl Drop for H2Place {
    fn drop(&mut self) {
        self.conn.running.set(self.conn.running.get() - 1);
        self.conn.idle_since.set(clock::now());
        self.pool.change();
    }
}

impl H2Pool {
    /// A stream on a connection that has room, or on a new one.
    pub async fn take(self: &Rc<Self>, dialer: &Dialer) -> Result<H2Place, Fault> {
        let failures = self.failures.get();
        loop {
            if let Some(place) = self.free() {
                return Ok(place);
            }
            if !self.is_dialing.replace(true) {
                if let Err(fault) = self.dial(dialer).await {
                    self.failures.set(self.failures.get() + 1); // those who wait look when they are polled next
                    return Err(fault);
                }
                continue;
            }
            let changed = self.changed.borrow().clone();
            let mut wait = changed.wait();
            std::future::poll_fn(|cx| wait.poll(cx)).await;
            if self.failures.get() != failures {
                return Err(Fault::OriginUnreachable); // it would not be there for this request either
            }
        }
    }

    fn free(self: &Rc<Self>) -> Option<H2Place> {
        let conns = self.conns.borrow();
        let conn = conns.iter().find(|conn| conn.running.get() < conn.streams_max.get())?;
        let send = conn.send.borrow().clone()?;
        conn.running.set(conn.running.get() + 1);
        Some(H2Place { pool: self.clone(), conn: conn.clone(), send })
    }

    fn change(&self) {
        self.changed.replace(Rc::default()).set();
    }

    /// A new connection, up to the server's SETTINGS. Dropped early, it leaves a connection that others may use.
    async fn dial(self: &Rc<Self>, dialer: &Dialer) -> Result<(), Fault> {
        let _dialing = Dialing(self);
        let conn = dialer.dial().await?;
        let unreachable = |why: &str| {
            tracing::warn!(to = %dialer.target(), why, "the server does not speak HTTP/2");
            Fault::OriginUnreachable
        };
        let link = H2Link::start(conn, Preface::Ours).await.map_err(|why| unreachable(&why))?;
        let conn = Rc::new(H2Conn {
            send: RefCell::new(Some(link.sender())),
            streams_max: Cell::new(0),
            carries_upgrades: Cell::new(false),
            running: Cell::new(0),
            idle_since: Cell::new(clock::now()),
            leaves: Latch::default(),
        });
        self.conns.borrow_mut().push(conn.clone());
        let settled = Rc::new(Latch::default());
        io::spawn(run(self.clone(), conn.clone(), link, settled.clone()));
        let mut wait = settled.wait();
        if io::timeout(CONNECT_MS_MAX, std::future::poll_fn(|cx| wait.poll(cx))).await.is_none() {
            conn.leaves.set();
            return Err(unreachable("its SETTINGS did not come in time"));
        }
        if conn.send.borrow().is_none() {
            return Err(unreachable("it closed the connection; does it speak HTTP/2 without TLS?"));
        }
        Ok(())
    }

    /// Lets go what nobody used for long.
    pub fn reap(&self) {
        let now = clock::now();
        for conn in self.conns.borrow().iter() {
            if conn.running.get() == 0 && now.ms_since(conn.idle_since.get()) >= ORIGIN_IDLE_MS_MAX {
                conn.leaves.set();
            }
        }
    }

    /// Lets all of them go when they are idle: nobody will use them any more.
    pub fn end(&self) {
        self.conns.borrow().iter().for_each(|conn| conn.leaves.set());
    }
}

/// Whoever dials may go away while he does.
struct Dialing<'a>(&'a H2Pool);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.is_dialing.set(false);
        self.0.change();
    }
}

/// One connection's life. `settled` is set as soon as it is known what it takes, or that it ended.
async fn run(pool: Rc<H2Pool>, conn: Rc<H2Conn>, link: H2Link, settled: Rc<Latch>) {
    let why = link
        .run(&conn.leaves, |news| {
            match news {
                News::Credits { streams_max, carries_upgrades } => {
                    conn.streams_max.set(streams_max);
                    conn.carries_upgrades.set(carries_upgrades);
                }
                News::Drains => {
                    conn.streams_max.set(0);
                    conn.send.borrow_mut().take();
                }
            }
            settled.set();
            pool.change();
        })
        .await;
    tracing::debug!(why, "a connection to the server ended");
    conn.streams_max.set(0);
    conn.send.borrow_mut().take();
    pool.conns.borrow_mut().retain(|other| !Rc::ptr_eq(other, &conn));
    settled.set();
    pool.change();
}
