//! A worker's connection from its setup to its end: who it is, what it may serve, on which core it lives, and its life as
//! an h2 or HTTP/1.1 link. Requests never enter; they reach a link through its core's credits.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::core::{Core, Counted, Line, LinkAbout, Message, Shared};
use super::wait_for;
use crate::client::h1::{TakenOver, refuse};
use crate::clock;
use crate::exchange::Latch;
use crate::fault::Fault;
use crate::ids::{CredentialId, LinkId, PoolId};
use crate::io::{self, Conn, Detached};
use crate::limits::{DURATION_MS_MAX, LINK_PING_MS, SETUP_MS_MAX};
use crate::link::h2::{H2Link, News};
use crate::wire::{self, About, ChannelVersion, RequestHead, Scope, Setup};
use crate::xcore::{Placement, Seat};

/// A connection whose setup was accepted, on its way to the core where it will live.
pub struct Turned {
    conn: Detached,
    version: ChannelVersion,
    pools: Vec<PoolId>,
    said: About,
    address: SocketAddr,
    credential: CredentialId,
    seat: Seat,
    /// Counts on the board as long as it lives.
    placement: Placement,
}

/// Answers a setup and, if it is accepted, turns the connection into a link. Until then it is one more client's.
pub async fn set_up(core: Rc<Core>, taken: TakenOver, accepts_workers: bool, counted: Counted) {
    let TakenOver { mut conn, head, mut timer } = taken;
    let setup = match check(&core, &head, accepts_workers) {
        Ok(setup) => setup,
        Err(fault) => {
            core.counters.borrow_mut().setup_refused(fault);
            tracing::info!(peer = ?conn.peer_addr(), status = fault.status(), reason = %fault, "setup refused");
            let is_head = head.method == http::Method::HEAD;
            refuse(&mut conn.writer, fault, is_head, &mut timer, &core.shared.clocks).await;
            conn.close().await;
            return;
        }
    };
    // Bytes behind the setup and before our 101 belong to nobody (wire-formats §7).
    if !conn.reader.buffer().is_empty() {
        tracing::info!(peer = ?conn.peer_addr(), "setup closed: bytes came before the 101");
        conn.close().await;
        return;
    }
    wire::setup::put_setup_accept(conn.writer.buf(), setup.dialect, setup.version);
    timer.set(clock::now().plus_ms(SETUP_MS_MAX));
    let flushed = std::future::poll_fn(|cx| match conn.writer.poll_flush(cx) {
        Poll::Pending => timer.poll_expired(cx).map(|()| false),
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
    });
    if !flushed.await {
        return;
    }
    let Some(address) = conn.peer_addr() else { return };
    let conn = match conn.detach().await {
        Ok(conn) => conn,
        Err(error) => {
            tracing::warn!(%address, %error, "a link was closed: it could not be given to its core");
            return;
        }
    };
    drop(counted); // links are bounded by their credentials
    let Accepted { version, pools, said, credential, seat, .. } = setup;
    let placement = core.shared.dispatch.board.place(&pools, core.id);
    let home = placement.core();
    let turned = Turned { conn, version, pools, said, address, credential, seat, placement };
    if home == core.id {
        live(core, turned).await;
    } else if core.shared.posts[usize::from(home.0)].send(Message::Turned(Box::new(turned))).is_err() {
        tracing::warn!("a link was closed: the core that it was placed on is too busy to take it");
    }
}

/// A setup that may be accepted.
struct Accepted {
    dialect: wire::Dialect,
    version: ChannelVersion,
    pools: Vec<PoolId>,
    said: About,
    credential: CredentialId,
    seat: Seat,
}

/// The checks in their order (interface: syntax, credential, origins, versions, limits).
fn check(core: &Rc<Core>, head: &RequestHead, accepts_workers: bool) -> Result<Accepted, Fault> {
    if !accepts_workers {
        return Err(Fault::NoPool);
    }
    let Setup { dialect, scope, presented, versions } = wire::parse_setup(head)?;
    let said = About::read(&head.headers).map_err(Fault::SetupMalformed)?;
    let shared = &core.shared;
    let checked = shared.credentials.check(presented.as_ref(), clock::unix_seconds());
    let credential = checked.map_err(|_| Fault::SetupUnauthorized)?;
    let pools = pools_of(shared, credential, &scope)?;
    let version = if versions.contains(&ChannelVersion::H2) {
        ChannelVersion::H2
    } else {
        versions.first().copied().ok_or(Fault::SetupVersions)?
    };
    if core.drain.is_set() {
        return Err(Fault::Draining);
    }
    let links_max = shared.credentials.get(credential).links_max;
    let seat = shared.seats[usize::from(credential.0)].try_take(links_max).ok_or(Fault::SetupLimit)?;
    Ok(Accepted { dialect, version, pools, said, credential, seat })
}

/// The pools that this worker will serve. Every origin must be covered by the credential and by a pool.
fn pools_of(shared: &Shared, credential: CredentialId, scope: &Scope) -> Result<Vec<PoolId>, Fault> {
    let mut pools = Vec::new();
    match scope {
        Scope::Origins(origins) => {
            for origin in origins {
                if !shared.credentials.may_register(credential, origin) {
                    return Err(Fault::SetupForbidden);
                }
                let served = shared.routes.pools_for(origin);
                if served.is_empty() {
                    return Err(Fault::SetupForbidden);
                }
                pools.extend(served);
            }
        }
        Scope::Pool(name) => {
            let pool = shared.routes.pool_named(name).ok_or(Fault::SetupForbidden)?;
            let config = &shared.config.pools[usize::from(pool.0)];
            // A pool serves all its origins; so must the credential be allowed to.
            if !shared.credentials.may_register_pool(credential, config) {
                return Err(Fault::SetupForbidden);
            }
            pools.push(pool);
        }
    }
    pools.sort_unstable();
    pools.dedup();
    Ok(pools)
}

/// A link's life on its own core.
pub async fn live(core: Rc<Core>, turned: Turned) {
    let Turned { conn, version, pools, said, address, credential, seat, placement } = turned;
    let conn = match Conn::attach(conn) {
        Ok(conn) => conn,
        Err(error) => return tracing::warn!(%error, "a link could not be taken over"),
    };
    let worker = core.shared.credentials.get(credential).id.clone();
    let about = LinkAbout {
        worker: worker.clone(),
        said,
        address,
        protocol: match version {
            ChannelVersion::H2 => "h2",
            ChannelVersion::H1 => "http/1.1",
        },
        since_unix: clock::unix_seconds(),
        pools,
    };
    let id = about.said.id.clone().unwrap_or_default();
    let labels = about.said.shown();
    tracing::info!(worker, id, labels, %address, core = core.id.0, protocol = about.protocol, "link up");
    let ends = Rc::new(Latch::default());
    io::spawn(watch_end(core.clone(), ends.clone(), core.shared.credentials.get(credential).expires_unix));
    let why = {
        let mut life = std::pin::pin!(async {
            match version {
                ChannelVersion::H2 => live_h2(&core, conn, about, placement, &ends).await,
                ChannelVersion::H1 => live_h1(&core, conn, about, placement, &ends).await,
            }
        });
        let mut cut = std::pin::pin!(async {
            wait_for(&ends).await;
            io::sleep_ms(core.shared.config.drain_ms_max).await;
        });
        std::future::poll_fn(|cx| {
            if let Poll::Ready(why) = life.as_mut().poll(cx) {
                return Poll::Ready(why);
            }
            cut.as_mut().poll(cx).map(|()| "the drain time is over".to_owned())
        })
        .await
    };
    ends.set();
    tracing::info!(worker, id, labels, %address, core = core.id.0, why, "link down");
    drop(seat);
}

/// Sets `ends` when the edge drains or the link's credential expires; ends itself when somebody else has set it.
async fn watch_end(core: Rc<Core>, ends: Rc<Latch>, expires_unix: Option<u64>) {
    let expired = async {
        match expires_unix {
            // A week at a time: no timer lasts longer, and the wall clock may be set meanwhile.
            Some(expires) => loop {
                let left_s = expires.saturating_sub(clock::unix_seconds());
                if left_s == 0 {
                    return;
                }
                io::sleep_ms(left_s.saturating_mul(1_000).min(DURATION_MS_MAX)).await;
            },
            None => std::future::pending().await,
        }
    };
    {
        let mut expired = std::pin::pin!(expired);
        let (mut drained, mut over) = (core.links_drain.wait(), ends.wait());
        std::future::poll_fn(|cx| {
            let any = drained.poll(cx).is_ready() | over.poll(cx).is_ready() | expired.as_mut().poll(cx).is_ready();
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    ends.set();
}

/// Takes the link out of its core when its life ends, also by a panic.
struct Lives {
    core: Rc<Core>,
    link: LinkId,
    /// It counts here until then.
    placement: RefCell<Placement>,
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.core.link_down(self.link);
    }
}

async fn live_h2(core: &Rc<Core>, conn: Conn, about: LinkAbout, placement: Placement, ends: &Latch) -> String {
    let link = match H2Link::start(conn).await {
        Ok(link) => link,
        Err(why) => return why,
    };
    let id = core.link_up(about, false, Line::H2(link.sender()));
    let lives = Lives { core: core.clone(), link: id, placement: RefCell::new(placement) };
    link.run(ends, |news| match news {
        News::Credits { streams_max, carries_upgrades } => {
            lives.placement.borrow_mut().credits(streams_max);
            core.link_credits(id, streams_max, carries_upgrades);
        }
        News::Drains => core.link_drains(id),
    })
    .await
}

/// An HTTP/1.1 link is one credit: its connection is either here or lent to the request that runs.
async fn live_h1(core: &Rc<Core>, conn: Conn, about: LinkAbout, placement: Placement, ends: &Latch) -> String {
    // An idle HTTP/1.1 link has no PING; the kernel's probes find a dead peer within the same time.
    conn.keepalive(LINK_PING_MS);
    let slot = Rc::new(H1Slot::new(conn));
    let id = core.link_up(about, true, Line::H1(slot.clone()));
    let _lives = Lives { core: core.clone(), link: id, placement: RefCell::new(placement) };
    core.link_credits(id, 1, true);
    let mut drained = ends.wait();
    std::future::poll_fn(|cx| {
        if let Poll::Ready(why) = slot.poll_end(cx) {
            return Poll::Ready(why.to_owned());
        }
        if drained.poll(cx).is_ready() {
            core.link_drains(id);
            if slot.is_home() {
                return Poll::Ready("it was told to end".to_owned());
            }
        }
        Poll::Pending
    })
    .await
}

/// Where an HTTP/1.1 link's connection stands while no request has it.
///
/// ```text
/// Home --take--> Lent --give_back--> Home;   Lent --dropped--> Lost;   Home --peer ends, or speaks unasked--> Lost
/// ```
pub struct H1Slot {
    conn: RefCell<Option<Conn>>,
    is_lost: Cell<bool>,
    watcher: RefCell<Option<Waker>>,
}

impl H1Slot {
    fn new(conn: Conn) -> H1Slot {
        H1Slot { conn: RefCell::new(Some(conn)), is_lost: Cell::new(false), watcher: RefCell::new(None) }
    }

    fn is_home(&self) -> bool {
        self.conn.borrow().is_some()
    }

    /// The connection, for one request. `None`: it was lost in the meantime.
    pub fn take(self: &Rc<Self>) -> Option<Lent> {
        let mut conn = self.conn.borrow_mut().take()?;
        if !conn.is_quiet() {
            // Its watcher has not run yet: what came unasked must not answer this request.
            self.is_lost.set(true);
            self.wake();
            return None;
        }
        Some(Lent { conn: Some(conn), slot: self.clone() })
    }

    /// Ready when the link is over. Watches the idle connection: a server has nothing to say unasked.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.is_lost.get() {
            return Poll::Ready("its connection could not be used again");
        }
        *self.watcher.borrow_mut() = Some(cx.waker().clone());
        let mut conn = self.conn.borrow_mut();
        let Some(idle) = conn.as_mut() else { return Poll::Pending };
        if idle.reader.buffer().is_empty() {
            match idle.reader.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => {
                    *conn = None;
                    return Poll::Ready("the worker closed it");
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
        *conn = None;
        Poll::Ready("the worker sent a response that nobody asked for")
    }

    fn wake(&self) {
        if let Some(waker) = self.watcher.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A connection out of its [`H1Slot`]. Dropping it ends the link; [`Lent::give_back`] keeps it.
pub struct Lent {
    conn: Option<Conn>,
    slot: Rc<H1Slot>,
}

impl Lent {
    pub fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("lent until given back")
    }

    pub fn give_back(mut self) {
        *self.slot.conn.borrow_mut() = self.conn.take();
        // Most often the next request takes it before that.
        if let Some(watcher) = self.slot.watcher.borrow_mut().take() {
            io::wake_last(watcher);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            drop(conn);
            self.slot.is_lost.set(true);
            self.slot.wake();
        }
    }
}

/// A link that was set up on another core begins its life on this one.
pub fn move_in(core: &Rc<Core>, turned: Turned) {
    io::spawn(live(core.clone(), turned));
}
