//! What outlives a configuration: which generations of the edge live in this process, oldest first, and what those that have
//! ended counted. What a generation does enters only as the orders that tell it to open, to leave and to drain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use aws_lc_rs::hmac;

use super::admin::events::News;
use super::core::{Message, Shared, orders};
use super::history::History;
use super::log::AccessLog;
use super::process::Descriptors;
use super::roll::Whose;
use super::supervisor::Supervisor;
use crate::clock::{self, Now};
use crate::events::{Counters, LostLine, Reload, Tally};
use crate::ids::{CoreId, PoolId};
use crate::limits::REPORT_MS_MAX;
use crate::xcore::Crowd;

/// One for a process. Its lock is taken by whoever reloads, drains or reports, never on a request's way.
pub struct Lineage {
    /// Connections of clients, of all generations.
    pub crowd: Arc<Crowd>,
    pub started: Now,
    /// The first generation has taken over from another process: its workers have been told to come.
    pub follows: bool,
    pub supervisor: Supervisor,
    pub log: AccessLog,
    /// Of the process.
    pub descriptors: Descriptors,
    state: Mutex<State>,
    /// Of sessions at the admin address: they live over reloads, and end with the process. `None`: there were
    /// no random bytes, and nobody has a session.
    pub session_key: Option<hmac::Key>,
    /// What the edge was like in the last minutes.
    history: Mutex<History>,
    /// What readers of the page are told.
    news: Mutex<News>,
}

#[derive(Default)]
struct State {
    /// Oldest first. All but the last one leave.
    living: Vec<Arc<Member>>,
    /// The number of the last one.
    last: u64,
    /// Everybody drains, also whoever comes yet.
    drains: bool,
    past: Past,
    reloads: Tally<Reload>,
}

/// A generation as the others know it.
pub struct Member {
    pub shared: Arc<Shared>,
    /// Cores that have no client any more, and get none.
    idle_cores: Mutex<usize>,
    /// What each core had counted when it ended.
    ended: Mutex<Vec<Option<Counters>>>,
}

/// What generations that have ended had counted, with the names of their pools.
#[derive(Clone, Default)]
pub struct Past {
    pub names: Vec<String>,
    pub counters: Counters,
}

/// The whole lineage at one moment.
pub struct Look {
    /// Oldest first, never empty.
    pub living: Vec<Arc<Member>>,
    pub past: Past,
    pub drains: bool,
    pub reloads: Tally<Reload>,
}

/// What becomes of the listening sockets of a generation that leaves, in the order of its configuration. True: they are the
/// next one's, and listen on. False: the address is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heirs {
    pub listens: Vec<bool>,
    pub admin: bool,
}

/// How a generation leaves.
pub struct Leave {
    pub heirs: Heirs,
    pub successor: Successor,
    /// Links that each worker had then, in this generation and in those from before that it had not left yet.
    pub had: HashMap<Whose, u32>,
    /// Hears of each core when it has left its last listener.
    pub left: mpsc::Sender<CoreId>,
    /// Of each pool, links that come first while it leaves, and serve, over all cores.
    kept: Mutex<HashMap<PoolId, u32>>,
}

impl Leave {
    fn kept(&self) -> MutexGuard<'_, HashMap<PoolId, u32>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more link of the pool comes first.
    pub fn keeps(&self, pool: PoolId) {
        *self.kept().entry(pool).or_default() += 1;
    }

    /// One less: it is gone, or its worker takes nothing, or answers nothing.
    pub fn loses(&self, pool: PoolId) {
        if let Some(kept) = self.kept().get_mut(&pool) {
            *kept -= 1;
        }
    }

    pub fn has_kept(&self, pool: PoolId) -> bool {
        self.kept().get(&pool).is_some_and(|kept| *kept > 0)
    }
}

/// Who has taken over from a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// Another generation of this process, for which requests can wait.
    Generation,
    Process,
}

impl Heirs {
    /// Those live on that listen on one of `addresses`.
    pub fn among(listens: &[SocketAddr], admin: Option<SocketAddr>, addresses: &[SocketAddr]) -> Heirs {
        Heirs {
            listens: listens.iter().map(|address| addresses.contains(address)).collect(),
            admin: admin.is_some_and(|address| addresses.contains(&address)),
        }
    }
}

impl State {
    /// Links that each worker has, in all generations.
    fn links(&self) -> HashMap<Whose, u32> {
        let mut sum = HashMap::new();
        self.living.iter().for_each(|member| member.shared.roll.add_to(&mut sum));
        sum
    }
}

impl Lineage {
    pub fn new(follows: bool, supervisor: Supervisor) -> Arc<Lineage> {
        let (crowd, started) = (Crowd::new(), clock::now());
        let log = AccessLog::default();
        Arc::new(Lineage {
            session_key: session_key(),
            news: Mutex::default(),
            crowd,
            started,
            follows,
            supervisor,
            log,
            descriptors: Descriptors::of_process(),
            state: Mutex::default(),
            history: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for one more generation.
    pub fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        state.last
    }

    /// This generation takes connections from now on, and the one before it leaves its sockets as `heirs` says. Returns when
    /// it has; `None`: the process drains, and nothing has changed.
    pub fn open(&self, shared: &Arc<Shared>, heirs: Option<Heirs>) -> Option<()> {
        let mut state = self.state();
        if state.drains {
            return None;
        }
        let before = state.living.last().map(|member| member.shared.clone());
        let had = state.links();
        let ended = Mutex::new(vec![None; shared.posts.len()]);
        state.living.push(Arc::new(Member { shared: shared.clone(), idle_cores: Mutex::default(), ended }));
        // Whoever is told first takes connections first: nobody finds a socket that nobody accepts on.
        tell_all(shared, orders::OPEN);
        let left = before.zip(heirs).and_then(|(before, heirs)| {
            let left = says(&before, heirs, Successor::Generation, had);
            tell_all(&before, orders::LEAVE);
            left
        });
        drop(state);
        left.inspect(Left::wait);
        Some(())
    }

    /// Another process takes over: from now on it cannot be taken back, and everybody knows that the newest generation leaves
    /// its sockets as `heirs` says. `None`: the process drains already. [`Departure::begin`] does it.
    pub fn depart(&self, heirs: &Heirs) -> Option<Departure> {
        let mut state = self.state();
        if std::mem::replace(&mut state.drains, true) {
            return None;
        }
        // Those that had left before have done so for a generation.
        let says = |member: &Arc<Member>| {
            let left = says(&member.shared, heirs.clone(), Successor::Process, state.links())?;
            Some((member.shared.clone(), left))
        };
        Some(Departure(state.living.iter().filter_map(says).collect()))
    }

    /// Everybody drains, and closes what it listens on. Safe to repeat.
    pub fn drain(&self) {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.drains, true);
        for member in &state.living {
            tell_all(&member.shared, orders::DRAIN);
        }
        drop(state);
        if is_first {
            self.supervisor.stops();
        }
    }

    pub fn drains(&self) -> bool {
        self.state().drains
    }

    /// Generations that leave.
    pub fn leaving(&self) -> usize {
        self.state().living.len().saturating_sub(1)
    }

    /// The newest generation; `None` before the first and after the last.
    pub fn present(&self) -> Option<Arc<Shared>> {
        self.state().living.last().map(|member| member.shared.clone())
    }

    /// A core of this generation has no client any more, and gets none.
    pub fn core_is_idle(&self, generation: u64) {
        if let Some(member) = self.state().living.iter().find(|member| member.shared.generation == generation) {
            *member.idle_cores() += 1;
        }
    }

    /// This generation is the newest one, and one from before has clients: their requests come here.
    pub fn serves_elders(&self, generation: u64) -> bool {
        let state = self.state();
        let Some((newest, elders)) = state.living.split_last() else { return false };
        let has_clients = |elder: &Arc<Member>| *elder.idle_cores() < elder.shared.posts.len();
        newest.shared.generation == generation && elders.iter().any(has_clients)
    }

    /// Those that have come after this one, and live.
    pub fn later(&self, generation: u64) -> Vec<Arc<Shared>> {
        let state = self.state();
        let later = state.living.iter().filter(|member| member.shared.generation > generation);
        later.map(|member| member.shared.clone()).collect()
    }

    /// A generation from before this one lives.
    pub fn has_elders(&self, generation: u64) -> bool {
        self.state().living.first().is_some_and(|oldest| oldest.shared.generation < generation)
    }

    /// All cores that have not ended say that they run, and within this time.
    pub fn beats(&self, within: Duration) -> bool {
        let (told, beats) = mpsc::channel();
        let mut asked = 0;
        for member in &self.state().living {
            for (core, post) in member.shared.posts.iter().enumerate() {
                let lives = member.ended_core(core).is_none();
                asked += usize::from(lives);
                // A box that is full is not read.
                let _ = lives && post.send(Message::Beat(told.clone())).is_ok();
            }
        }
        drop(told);
        let by = clock::now().plus_ms(within.as_millis() as u64);
        let left = || Duration::from_millis(by.ms_since(clock::now()));
        (0..asked).all(|_| beats.recv_timeout(left()).is_ok())
    }

    pub fn count(&self, reload: Reload) {
        self.state().reloads.one(reload);
    }

    /// A core has ended; these are its last counters.
    pub fn core_ended(&self, generation: u64, core: CoreId, counters: Counters) {
        let state = self.state();
        let Some(member) = state.living.iter().find(|member| member.shared.generation == generation) else { return };
        member.ended()[usize::from(core.0)] = Some(counters);
    }

    /// All cores of a generation have ended. Whether it was the last one.
    pub fn ended(&self, generation: u64) -> bool {
        let mut state = self.state();
        let Some(index) = state.living.iter().position(|member| member.shared.generation == generation) else {
            return state.living.is_empty();
        };
        let member = state.living.remove(index);
        let names: Vec<String> = member.shared.pool_names().map(str::to_owned).collect();
        for counters in member.ended().iter().flatten() {
            state.past.add(&names, counters);
        }
        let living: Vec<String> =
            state.living.iter().flat_map(|member| member.shared.pool_names()).map(str::to_owned).collect();
        state.past.keep(&living);
        state.living.is_empty()
    }

    /// `None` before the first generation and after the last one.
    pub fn look(&self) -> Option<Look> {
        let state = self.state();
        let (living, mut past) = (state.living.clone(), state.past.clone());
        let told = self.log.tally();
        past.counters.core.access_log_lines += told.written;
        past.counters.core.access_log_dropped_lines.many(LostLine::Failed, told.failed);
        (!living.is_empty()).then(|| Look { living, past, drains: state.drains, reloads: state.reloads.clone() })
    }
}

fn session_key() -> Option<hmac::Key> {
    hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).ok()
}

/// Says how a generation leaves. `None`: that was said before.
fn says(shared: &Shared, heirs: Heirs, successor: Successor, had: HashMap<Whose, u32>) -> Option<Left> {
    let (left, cores) = mpsc::channel();
    shared.leave.set(Leave { heirs, successor, had, left, kept: Mutex::default() }).ok()?;
    Some(Left { cores, count: shared.posts.len() })
}

/// Generations that have been said to leave, and have not been told to.
pub struct Departure(Vec<(Arc<Shared>, Left)>);

impl Departure {
    /// Tells them. Returns when they have left their sockets.
    pub fn begin(self) {
        self.0.iter().for_each(|(shared, _)| tell_all(shared, orders::LEAVE));
        self.0.iter().for_each(|(_, left)| left.wait());
    }
}

/// The cores of a generation that leave their listeners.
struct Left {
    cores: mpsc::Receiver<CoreId>,
    count: usize,
}

impl Left {
    /// Until all have. A core that is too busy to say so is not waited for: it leaves when it can.
    fn wait(&self) {
        let by = clock::now().plus_ms(REPORT_MS_MAX);
        let left = || Duration::from_millis(by.ms_since(clock::now()));
        (0..self.count).all(|_| self.cores.recv_timeout(left()).is_ok());
    }
}

pub fn tell_all(shared: &Shared, orders: u32) {
    shared.posts.iter().for_each(|post| post.order(orders));
}

impl Shared {
    /// The pool of this name.
    pub fn pool_like(&self, name: &str) -> Option<PoolId> {
        self.pool_names().position(|own| own == name).map(|index| PoolId(index as u16))
    }

    pub fn pool_names(&self) -> impl Iterator<Item = &str> {
        self.config.pools.iter().map(|pool| pool.name.as_str())
    }
}

impl Member {
    fn idle_cores(&self) -> MutexGuard<'_, usize> {
        self.idle_cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Option<Counters>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a core had counted, if it has ended.
    pub fn ended_core(&self, core: usize) -> Option<Counters> {
        self.ended().get(core).cloned().flatten()
    }
}

impl Past {
    /// Adds what was counted with pools of these names.
    pub fn add(&mut self, names: &[String], counters: &Counters) {
        let places: Vec<usize> = names.iter().map(|name| self.place(name)).collect();
        self.counters.add(&counters.renumbered(&places, self.names.len()));
    }

    fn place(&mut self, name: &str) -> usize {
        self.names.iter().position(|own| own == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Pools that no living configuration has are forgotten: so there are never more than those have.
    fn keep(&mut self, living: &[String]) {
        let mut pools = std::mem::take(&mut self.counters.pools);
        pools.resize_with(self.names.len(), Default::default);
        let named = std::mem::take(&mut self.names).into_iter().zip(pools);
        for (name, counters) in named.filter(|(name, _)| living.contains(name)) {
            self.names.push(name);
            self.counters.pools.push(counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::StatusClass;
    use crate::ids::Class;

    fn counted(requests: &[u64]) -> Counters {
        let mut counters = Counters::new(requests.len());
        for (pool, n) in counters.pools.iter_mut().zip(requests) {
            pool.requests.many(Class::of(3), StatusClass::Success, *n);
        }
        counters.core.setups = 1;
        counters
    }

    #[test]
    fn what_ended_is_added_up_by_the_names_of_its_pools() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut past = Past::default();
        past.add(&names(&["a", "b"]), &counted(&[1, 2]));
        past.add(&names(&["b", "c", "a"]), &counted(&[10, 20, 30]));
        past.add(&names(&["a"]), &counted(&[]));
        let of = |past: &Past, name: &str| {
            let index = past.names.iter().position(|own| own == name)?;
            Some(past.counters.pools[index].requests.get(StatusClass::Success))
        };
        assert_eq!([of(&past, "a"), of(&past, "b"), of(&past, "c")], [Some(31), Some(12), Some(20)]);
        assert_eq!(past.counters.core.setups, 3);
        past.keep(&names(&["c", "d"]));
        assert_eq!([of(&past, "a"), of(&past, "b"), of(&past, "c")], [None, None, Some(20)]);
        assert_eq!((past.names.len(), past.counters.pools.len(), past.counters.core.setups), (1, 1, 3));
        past.add(&names(&["a"]), &counted(&[5]));
        assert_eq!(of(&past, "a"), Some(5), "a pool that comes again begins anew");
    }

    #[test]
    fn an_address_lives_on_where_the_next_one_has_it() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let heirs = Heirs::among(&[address(1), address(2)], Some(address(3)), &[address(2), address(3)]);
        assert_eq!(heirs, Heirs { listens: vec![false, true], admin: true });
        assert!(!Heirs::among(&[], None, &[address(3)]).admin);
    }
}
