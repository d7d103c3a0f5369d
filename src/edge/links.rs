//! A worker's connection from its setup to its end: who it is, what it may serve, on which core it lives, and its life as
//! an h2 or HTTP/1.1 link. Requests never enter; they reach a link through its core's credits.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderMap;
use slab::Slab;

use super::core::{Core, Counted, Line, LinkAbout, Message, Shared};
use super::credentials::{Badge, Refusal, Shown, Standing};
use super::tls::Certificate;
use super::welcome::Devices;
use super::{until_over, wait_for};
use crate::client::h1::{TakenOver, refuse};
use crate::clock;
use crate::exchange::Latch;
use crate::fault::Fault;
use crate::ids::{LinkId, PoolId};
use crate::io::{self, Conn, Detached, Pulse};
use crate::limits::{CERTIFICATES_LOOK_MAX, DURATION_MS_MAX, LINK_PING_MS, SETUP_MS_MAX, TICK_MS};
use crate::link::h2::{H2Link, News, Preface};
use crate::wire::{self, About, ChannelVersion, OldSetup, Origin, Presented, RequestHead, Scope, Setup};
use crate::xcore::{Placement, Seat, Source};

/// What a turned connection speaks, from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    H1,
    H2(Preface),
}

impl From<ChannelVersion> for Channel {
    fn from(version: ChannelVersion) -> Channel {
        match version {
            ChannelVersion::H1 => Channel::H1,
            ChannelVersion::H2 => Channel::H2(Preface::Ours),
        }
    }
}

/// A connection whose setup was accepted, on its way to the core where it will live.
pub struct Turned {
    conn: Detached,
    channel: Channel,
    pools: Vec<PoolId>,
    said: About,
    address: SocketAddr,
    badge: Badge,
    /// What has proved the badge, if a certificate has.
    certificate: Option<Arc<Certificate>>,
    seat: Seat,
    /// Counts on the board as long as it lives.
    placement: Placement,
}

/// What is known of a worker's connection before its setup.
pub struct Visitor {
    /// Its address takes workers.
    pub accepts_workers: bool,
    /// What it has shown in its TLS handshake. Each setup looks anew what that is worth.
    pub certificate: Option<Arc<Certificate>>,
}

/// Answers a setup and, if it is accepted, turns the connection into a link. Until then it is one more client's.
pub async fn set_up(core: Rc<Core>, taken: TakenOver, visitor: Visitor, counted: Counted) {
    let TakenOver { mut conn, head, mut timer } = taken;
    let address = conn.peer_addr();
    let admitted = admit(&core, address, visitor.accepts_workers, |gate| check(&core, gate, &head, &visitor));
    let (answer, accepted) = match admitted {
        Ok(accepted) => accepted,
        Err(fault) => {
            let is_head = head.method == http::Method::HEAD;
            refuse(&mut conn.writer, fault, is_head, &mut timer, &core.shared.clocks).await;
            conn.close().await;
            return;
        }
    };
    // Bytes behind the setup and before our 101 belong to nobody (wire-formats §7).
    if !conn.reader.buffer().is_empty() {
        tracing::info!(?address, "setup closed: bytes came before the 101");
        conn.close().await;
        return;
    }
    match answer {
        Answer::Draft(dialect, version) => wire::setup::put_setup_accept(conn.writer.buf(), dialect, version),
        Answer::Old => wire::setup::put_old_setup_accept(conn.writer.buf()),
    }
    timer.set(clock::now().plus_ms(SETUP_MS_MAX));
    let flushed = std::future::poll_fn(|cx| match conn.writer.poll_flush(cx) {
        Poll::Pending => timer.poll_expired(cx).map(|()| false),
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
    });
    if flushed.await {
        turn(core, conn, accepted, counted).await;
    }
}

/// A connection whose TLS handshake has turned its roles (draft-thomson-ptth-potato): whose it is, its certificate says, and
/// what it serves, the credential. Nothing is answered; who may not is closed.
pub async fn invert(core: Rc<Core>, conn: Conn, version: ChannelVersion, visitor: Visitor, counted: Counted) {
    let accepted = admit(&core, conn.peer_addr(), visitor.accepts_workers, |gate| {
        let badge = authenticate(gate, None, &visitor)?;
        let pools = pools_of(&core.shared, &badge, None)?;
        accept(&core, &visitor, badge, pools, version.into())
    });
    match accepted {
        Ok(accepted) => turn(core, conn, accepted, counted).await,
        Err(_) => conn.close().await,
    }
}

/// A device that speaks HAProxy's reverse HTTP: it begins as a client of HTTP/2, and with its SETTINGS the roles are turned.
/// Nothing is answered; who may not is closed.
pub async fn attach(core: Rc<Core>, mut conn: Conn, devices: Devices, visitor: Visitor, counted: Counted) {
    let began = io::timeout(SETUP_MS_MAX, has_preface(&mut conn)).await;
    if began != Some(true) {
        tracing::debug!(peer = ?conn.peer_addr(), "a device did not begin with HTTP/2's preface");
        return conn.close().await;
    }
    let accepted = admit(&core, conn.peer_addr(), true, |gate| {
        let badge = match &devices.credential {
            Some(id) => gate.pass(core.shared.register.now().of_listener(id, clock::unix_seconds()))?,
            None => authenticate(gate, None, &visitor)?,
        };
        let pools = pools_of(&core.shared, &badge, None)?;
        accept(&core, &visitor, badge, pools, Channel::H2(Preface::Theirs))
    });
    match accepted {
        Ok(accepted) => turn(core, conn, accepted, counted).await,
        Err(_) => conn.close().await,
    }
}

/// Takes HTTP/2's preface off the connection; false where something else came.
async fn has_preface(conn: &mut Conn) -> bool {
    loop {
        match wire::is_h2_preface(conn.reader.buffer()) {
            Some(true) => {
                conn.reader.consume(wire::PREFACE.len());
                return true;
            }
            Some(false) => return false,
            None => {}
        }
        if !matches!(conn.reader.fill().await, Ok(1..)) {
            return false;
        }
    }
}

/// The connection is a worker's from here on: it goes to the core that needs it most.
async fn turn(core: Rc<Core>, conn: Conn, accepted: Accepted, counted: Counted) {
    let Some(address) = conn.peer_addr() else { return };
    let conn = match conn.detach().await {
        Ok(conn) => conn,
        Err(error) => {
            tracing::warn!(%address, %error, "a link was closed: it could not be given to its core");
            return;
        }
    };
    drop(counted); // links are bounded by their credentials
    place(&core, conn, address, accepted);
}

/// A link begins its life on the core that has the fewest credits of its pools.
pub fn place(core: &Rc<Core>, conn: Detached, address: SocketAddr, accepted: Accepted) {
    let Accepted { channel, pools, said, badge, certificate, seat } = accepted;
    let placement = core.shared.dispatch.board.place(&pools, core.id);
    let home = placement.core();
    let turned = Turned { conn, channel, pools, said, address, badge, certificate, seat, placement };
    if home == core.id {
        move_in(core, turned);
    } else if core.shared.posts[usize::from(home.0)].send(Message::Turned(Box::new(turned))).is_err() {
        tracing::warn!("a link was closed: the core that it was placed on is too busy to take it");
    }
}

/// A setup that may be accepted.
pub struct Accepted {
    channel: Channel,
    pools: Vec<PoolId>,
    said: About,
    badge: Badge,
    certificate: Option<Arc<Certificate>>,
    seat: Seat,
}

/// In which terms a setup is answered.
pub enum Answer {
    Draft(wire::Dialect, ChannelVersion),
    /// Those from before the drafts.
    Old,
}

impl Answer {
    /// What is spoken on the channel.
    pub fn version(&self) -> ChannelVersion {
        match self {
            Answer::Draft(_, version) => *version,
            Answer::Old => ChannelVersion::H1,
        }
    }
}

/// Checks a setup. A refusal is counted and told. What comes to an address that takes no workers is a client's mistake: nobody
/// guesses anything there, and its neighbours must not pay for it.
pub fn admit<T>(
    core: &Core,
    address: Option<SocketAddr>,
    accepts_workers: bool,
    check: impl FnOnce(&Gate<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let source = address.filter(|_| accepts_workers).and_then(|address| core.shared.source_of(address.ip()));
    let begun = source.map_or(Ok(()), |source| core.shared.attempts.begin(source, clock::now()));
    let gate = Gate { shared: &core.shared, source, wait_ms: begun.err() };
    let checked = if accepts_workers { check(&gate) } else { Err(Fault::NoPool) };
    if let Err(fault) = &checked {
        let is_guess = matches!(fault, Fault::SetupUnauthorized | Fault::SetupForbidden);
        if let (Some(source), None, true) = (source, gate.wait_ms, is_guess) {
            core.shared.attempts.failed(source, clock::now());
        }
        core.counters.borrow_mut().setup_refused(*fault);
        // Anybody can have the others said, as often as he likes.
        match gate.wait_ms {
            None if *fault != Fault::NoPool => {
                tracing::info!(peer = ?address, status = fault.status(), reason = %fault, "setup refused");
            }
            _ => tracing::debug!(peer = ?address, status = fault.status(), reason = %fault, "setup refused"),
        }
    }
    checked
}

/// What a setup has to pass where too many came from its address lately, or too many that were refused: a right credential
/// does, for behind one address there are several, and the others' failures are not its own.
///
/// That leaves whoever guesses as many guesses as there is load for; but a secret has 256 random bits, a signature is no easier,
/// and there is nothing to be guessed. The bound is about load and log lines. So each look costs little (a hash; of what costs more
/// there are [`crate::limits::ATTEMPT_PROOFS_MAX`]), a wrong credential is answered as if nobody had looked, and a right one
/// has its own bound.
pub struct Gate<'a> {
    shared: &'a Shared,
    /// `None`: nobody counts what comes from there.
    source: Option<Source>,
    /// Until its source may try again. `None`: it may.
    wait_ms: Option<u64>,
}

impl Gate<'_> {
    /// A signature may be checked for this setup.
    fn may_look(&self) -> bool {
        self.wait_ms.is_none() || self.source.is_none_or(|source| self.shared.attempts.may_look(source, clock::now()))
    }

    /// What follows from the look at its credential. The worker never learns what was wrong.
    fn pass(&self, checked: Result<Badge, Refusal>) -> Result<Badge, Fault> {
        let too_many = |wait_ms: u64| {
            let retry_after_s = u16::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u16::MAX);
            Fault::SetupsTooMany { retry_after_s }
        };
        let badge = checked.map_err(|why| {
            tracing::debug!(%why, "a worker is not known");
            self.wait_ms.map_or(Fault::SetupUnauthorized, too_many)
        })?;
        if let (Some(source), Some(_)) = (self.source, self.wait_ms) {
            self.shared.attempts.proved(source, &badge.id, clock::now()).map_err(too_many)?;
        }
        Ok(badge)
    }
}

/// The checks of a setup over HTTP/1.1 in their order (interface: syntax, credential, origins, versions, limits).
fn check(core: &Rc<Core>, gate: &Gate<'_>, head: &RequestHead, visitor: &Visitor) -> Result<(Answer, Accepted), Fault> {
    if !wire::is_old_setup(head) || wire::is_setup(head) {
        return check_setup(core, gate, visitor, &head.headers, || wire::parse_setup(head));
    }
    let shared = &core.shared;
    let OldSetup { id, presented } = wire::parse_old_setup(head)?;
    let badge = authenticate(gate, presented.as_ref(), visitor)?;
    if !badge.legacy || badge.id != id {
        return Err(Fault::SetupForbidden);
    }
    let badge = badge.sets_up_as_before_the_drafts();
    let pools = pools_of(shared, &badge, None)?;
    Ok((Answer::Old, accept(core, visitor, badge, pools, Channel::H1)?))
}

/// The checks of a draft's setup, over either version of HTTP.
pub fn check_setup(
    core: &Core,
    gate: &Gate<'_>,
    visitor: &Visitor,
    headers: &HeaderMap,
    parse: impl FnOnce() -> Result<Setup, Fault>,
) -> Result<(Answer, Accepted), Fault> {
    let shared = &core.shared;
    let Setup { dialect, scope, presented, versions } = parse()?;
    let said = About::read(headers).map_err(Fault::SetupMalformed)?;
    let badge = authenticate(gate, presented.as_ref(), visitor)?;
    let pools = pools_of(shared, &badge, scope.as_ref())?;
    let version = preferred(&versions)?;
    let accepted = accept(core, visitor, badge, pools, version.into())?;
    Ok((Answer::Draft(dialect, version), Accepted { said, ..accepted }))
}

/// HTTP/2 if the worker takes it, else what it named first.
fn preferred(versions: &[ChannelVersion]) -> Result<ChannelVersion, Fault> {
    if versions.contains(&ChannelVersion::H2) {
        return Ok(ChannelVersion::H2);
    }
    versions.first().copied().ok_or(Fault::SetupVersions)
}

/// Who a worker is.
fn authenticate(gate: &Gate<'_>, presented: Option<&Presented>, visitor: &Visitor) -> Result<Badge, Fault> {
    let now_unix = clock::unix_seconds();
    // A worker that presents a secret is judged by it alone.
    let certificate = visitor.certificate.as_ref().filter(|_| presented.is_none() && gate.may_look());
    let vouched = certificate.and_then(|certificate| certificate.vouched(now_unix));
    let shown = Shown { presented, certificate: vouched.as_ref() };
    gate.pass(gate.shared.register.now().check(shown, now_unix, || gate.may_look()))
}

/// The last checks: whether another link may come now.
fn accept(
    core: &Core,
    visitor: &Visitor,
    badge: Badge,
    pools: Vec<PoolId>,
    channel: Channel,
) -> Result<Accepted, Fault> {
    if core.leave.is_set() {
        return Err(Fault::Draining);
    }
    let seat = badge.take_seat().ok_or(Fault::SetupLimit)?;
    let certificate = visitor.certificate.clone().filter(|_| badge.is_by_certificate());
    Ok(Accepted { channel, pools, said: About::default(), badge, certificate, seat })
}

/// The pools that this worker will serve. Every origin must be covered by the credential and by a pool. Without a scope they are
/// the credential's own: those of its origins that are no patterns.
fn pools_of(shared: &Shared, badge: &Badge, scope: Option<&Scope>) -> Result<Vec<PoolId>, Fault> {
    let mut pools = Vec::new();
    let mut register = |origin: &Origin| {
        let served = if badge.may_register(origin) { shared.routes.pools_for(origin) } else { Vec::new() };
        pools.extend_from_slice(&served);
        let may_share = |pool: &PoolId| badge.may_share(&shared.config.pools[usize::from(pool.0)]);
        if served.is_empty() || !served.iter().all(may_share) { Err(Fault::SetupForbidden) } else { Ok(()) }
    };
    match scope {
        Some(Scope::Origins(origins)) => origins.iter().try_for_each(&mut register)?,
        None => badge.own_origins().try_for_each(&mut register)?,
        Some(Scope::Pool(name)) => {
            let pool = shared.routes.pool_named(name).ok_or(Fault::SetupForbidden)?;
            let config = &shared.config.pools[usize::from(pool.0)];
            // A pool serves all its origins; so must the credential be allowed to.
            if !badge.may_register_pool(config) {
                return Err(Fault::SetupForbidden);
            }
            pools.push(pool);
        }
    }
    pools.sort_unstable();
    pools.dedup();
    if pools.is_empty() { Err(Fault::SetupForbidden) } else { Ok(pools) }
}

/// A link's life on its own core.
pub async fn live(core: Rc<Core>, turned: Turned) {
    let Turned { conn, channel, pools, said, address, badge, certificate, seat, placement } = turned;
    let conn = match Conn::attach(conn) {
        Ok(conn) => conn,
        Err(error) => return tracing::warn!(%error, "a link could not be taken over"),
    };
    let worker = badge.id.clone();
    let about = LinkAbout {
        worker: worker.clone(),
        said,
        address,
        protocol: match channel {
            Channel::H2(_) => "h2",
            Channel::H1 => "http/1.1",
        },
        since_unix: clock::unix_seconds(),
        pools,
    };
    let (id, labels) = (about.said.id.clone().unwrap_or_default(), about.said.shown());
    let proof = badge.proof();
    tracing::info!(worker, id, labels, %address, core = core.id.0, protocol = about.protocol, proof, "link up");
    let holder = Rc::new(Holder::new(badge, certificate));
    let _place = core.holders.enter(&holder);
    // Between its setup and its place here the credential may have been withdrawn; from now on this core hears of it.
    holder.look(&core.shared);
    let ends = &holder.ends;
    io::spawn(watch_end(core.clone(), holder.clone()));
    let why = {
        let mut life = std::pin::pin!(async {
            match channel {
                Channel::H2(preface) => live_h2(&core, conn, preface, about, placement, ends).await,
                Channel::H1 => live_h1(&core, conn, about, placement, ends).await,
            }
        });
        let mut cut = std::pin::pin!(async {
            wait_for(ends).await;
            io::sleep_ms(core.shared.config.drain_ms_max).await;
        });
        let mut seat = Some(seat);
        std::future::poll_fn(|cx| {
            // Who is to come again must not be refused for the link that he has yet.
            if core.leave.is_set() && ends.is_announced() {
                seat = None;
            }
            if let Poll::Ready(why) = life.as_mut().poll(cx) {
                return Poll::Ready(why);
            }
            cut.as_mut().poll(cx).map(|()| "the drain time is over".to_owned())
        })
        .await
    };
    holder.ends.set();
    tracing::info!(worker, id, labels, %address, core = core.id.0, why, "link down");
}

/// The links of one core with what they were set up for, so that they hear of it when that is withdrawn.
#[derive(Default)]
pub struct Holders(RefCell<Slab<Rc<Holder>>>);

/// A link's worker, as long as the link lives.
struct Holder {
    badge: Badge,
    /// What has proved it, if a certificate has.
    certificate: Option<Arc<Certificate>>,
    expires_unix: Cell<Option<u64>>,
    /// Set when `expires_unix` moves, and another one is put in its place.
    moved: RefCell<Rc<Latch>>,
    /// Announced: its worker is to come again. Set: the link is to end.
    ends: Rc<Latch>,
}

/// A place among the holders, until it is dropped.
struct HolderPlace<'a> {
    holders: &'a Holders,
    index: usize,
}

impl Holders {
    fn enter(&self, holder: &Rc<Holder>) -> HolderPlace<'_> {
        HolderPlace { holders: self, index: self.0.borrow_mut().insert(holder.clone()) }
    }
}

impl Drop for HolderPlace<'_> {
    fn drop(&mut self) {
        self.holders.0.borrow_mut().remove(self.index);
    }
}

/// The credentials have changed, or who vouches for certificates: each link of this core looks whether its own is still good.
pub fn look_at_credentials(core: &Rc<Core>) {
    let all: Vec<Rc<Holder>> = core.holders.0.borrow().iter().map(|(_, holder)| holder.clone()).collect();
    let (slow, quick): (Vec<_>, Vec<_>) = all.into_iter().partition(|holder| holder.certificate.is_some());
    quick.iter().for_each(|holder| holder.look(&core.shared));
    if !slow.is_empty() {
        io::spawn(until_over(core.clone(), look_at_certificates(core.clone(), slow)));
    }
}

/// A few in each turn: a signature takes as long as some requests, which would have to wait for all of them.
async fn look_at_certificates(core: Rc<Core>, holders: Vec<Rc<Holder>>) {
    for some in holders.chunks(CERTIFICATES_LOOK_MAX) {
        some.iter().for_each(|holder| holder.look(&core.shared));
        io::sleep_ms(TICK_MS).await;
    }
}

impl Holder {
    fn new(badge: Badge, certificate: Option<Arc<Certificate>>) -> Holder {
        let expires_unix = Cell::new(badge.expires_unix);
        Holder { badge, certificate, expires_unix, moved: RefCell::default(), ends: Rc::default() }
    }

    fn look(&self, shared: &Shared) {
        let vouched = self.certificate.as_ref().and_then(|certificate| certificate.vouched(clock::unix_seconds()));
        match shared.register.now().standing(&self.badge, vouched.as_ref()) {
            Standing::Good(expires_unix) if expires_unix == self.expires_unix.get() => {}
            Standing::Good(expires_unix) => {
                self.expires_unix.set(expires_unix);
                self.moved.take().set();
            }
            Standing::Withdrawn if self.ends.is_set() => {}
            Standing::Withdrawn => {
                tracing::info!(
                    worker = self.badge.id,
                    "a link ends: its credential was withdrawn or changed, or nobody vouches for its certificate"
                );
                self.ends.set();
            }
        }
    }
}

/// Ends a link when the edge drains or its credential expires; ends itself when somebody else has done that.
async fn watch_end(core: Rc<Core>, holder: Rc<Holder>) {
    let (mut drained, mut over) = (core.links_drain.wait(), holder.ends.wait());
    loop {
        let moved = holder.moved.borrow().clone();
        let mut moved = moved.wait();
        let left_s = holder.expires_unix.get().map(|expires| expires.saturating_sub(clock::unix_seconds()));
        if left_s == Some(0) {
            break;
        }
        // A week at a time: no timer lasts longer, and the wall clock may be set meanwhile.
        let left_ms = left_s.unwrap_or(u64::MAX).saturating_mul(1_000).min(DURATION_MS_MAX);
        let mut passed = std::pin::pin!(io::sleep_ms(left_ms));
        let is_over = std::future::poll_fn(|cx| {
            if drained.poll(cx).is_ready() | over.poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            let looks = moved.poll(cx).is_ready() | passed.as_mut().poll(cx).is_ready();
            if looks { Poll::Ready(false) } else { Poll::Pending }
        });
        if is_over.await {
            break;
        }
    }
    holder.ends.set();
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

async fn live_h2(
    core: &Rc<Core>,
    conn: Conn,
    preface: Preface,
    about: LinkAbout,
    placement: Placement,
    ends: &Rc<Latch>,
) -> String {
    let link = match H2Link::start(conn, preface).await {
        Ok(link) => link,
        Err(why) => return why,
    };
    let id = core.link_up(about, false, Line::H2(link.sender()), ends.clone());
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
async fn live_h1(core: &Rc<Core>, conn: Conn, about: LinkAbout, placement: Placement, ends: &Rc<Latch>) -> String {
    // An idle HTTP/1.1 link has no PING; the kernel's probes find a dead peer within the same time.
    conn.keepalive(LINK_PING_MS);
    let slot = Rc::new(H1Slot::new(conn));
    let _over = Over(&slot);
    let id = core.link_up(about, true, Line::H1(slot.clone()), ends.clone());
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
    /// Of the connection, wherever it is.
    pulse: Pulse,
    is_lost: Cell<bool>,
    watcher: RefCell<Option<Waker>>,
}

impl H1Slot {
    fn new(conn: Conn) -> H1Slot {
        let pulse = conn.pulse();
        H1Slot { conn: RefCell::new(Some(conn)), pulse, is_lost: Cell::new(false), watcher: RefCell::new(None) }
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

/// The link's life, at whose end nothing runs on its connection: where the time to finish is over, a request still has it.
struct Over<'a>(&'a H1Slot);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if !self.0.is_home() {
            self.0.pulse.cut();
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
    io::spawn(until_over(core.clone(), live(core.clone(), turned)));
}
