//! Whether a worker's edges and its server can be reached from here, by the ways that the worker itself goes: names, TCP, the
//! proxy, TLS. A setup never enters: nothing is registered, and no server is asked for anything.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::config::{EdgeAddress, WorkerConfig};
use super::origin::Dialer;
use super::resolve::Resolver;
use super::tls::{self, Tls};
use super::via;
use crate::io::{self, Conn, Doorbell};
use crate::limits::{CONNECT_MS_MAX, REACH_ADDRESSES_MAX, REACH_MS_MAX, TICK_MS};
use crate::settings::Mistakes;
use crate::wire::Scheme;
use crate::xcore::{Home, Post};

/// One way that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub to: Whither,
    /// As the configuration has it, and the address behind it where there are several.
    pub name: String,
    /// What it speaks, or why it cannot be reached.
    pub outcome: Result<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whither {
    Edge,
    Server,
}

/// Tries every address of every edge, and the server, all at once. Takes `REACH_MS_MAX` at most.
///
/// # Errors
/// There is no io_uring, or no thread, or a file that TLS needs cannot be used.
pub fn reach(config: &WorkerConfig) -> Result<Vec<Tried>, String> {
    let config = config.clone();
    let mut mistakes = Mistakes::new("worker");
    let tls = tls::load(&config, &mut mistakes);
    if mistakes.has_errors() {
        return Err(mistakes.to_string());
    }
    let thread = std::thread::Builder::new().name("reach".into()).spawn(move || {
        let (bell, ring) = io::doorbell().map_err(|error| format!("eventfd: {error}"))?;
        let post = Post::new(1, Arc::new(move || ring.ring()), io::at_turn_end);
        io::run(|| all(config, tls, post, bell)).map_err(|fault| fault.to_string())?
    });
    let thread = thread.map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
    thread.join().unwrap_or_else(|_| Err("looking for the edges ended by a panic".into()))
}

async fn all(config: WorkerConfig, tls: Tls, post: Post<()>, bell: Doorbell) -> Result<Vec<Tried>, String> {
    let home = post.move_in();
    let resolver = Resolver::start(home.wakers().clone())?;
    io::spawn(run_wakes(home, bell.hang()));
    let config = Rc::new(config);
    let found = Rc::new(RefCell::new(Vec::new()));
    let mut open: Vec<(Whither, String)> = Vec::new();
    for edge in config.edges.clone() {
        open.push((Whither::Edge, edge.to_string()));
        let (config, tls, resolver, found) = (config.clone(), tls.clone(), resolver.clone(), found.clone());
        io::spawn(async move {
            let tried = to_edge(&config, &edge, &tls, &resolver).await;
            found.borrow_mut().push((Whither::Edge, edge.to_string(), tried));
        });
    }
    let server = config.to.to_string();
    open.push((Whither::Server, server.clone()));
    let dialer = Dialer::new(config.to.clone(), resolver, tls.origin);
    let ends = found.clone();
    io::spawn(async move {
        let outcome = match io::timeout(CONNECT_MS_MAX, dialer.connect()).await {
            Some(outcome) => outcome.map(|_| "it takes connections".to_owned()),
            None => Err("no answer in time".into()),
        };
        let tried = vec![Tried { to: Whither::Server, name: server.clone(), outcome }];
        ends.borrow_mut().push((Whither::Server, server, tried));
    });
    let finished = async {
        while found.borrow().len() < open.len() {
            io::sleep_ms(TICK_MS).await;
        }
    };
    let _ = io::timeout(REACH_MS_MAX, finished).await; // who has not answered by then is told below
    // In the order of the configuration.
    let mut answered = found.take();
    let tried = open.into_iter().flat_map(|(to, name)| {
        match answered.iter().position(|(whither, asked, _)| (*whither, asked) == (to, &name)) {
            Some(index) => answered.swap_remove(index).2,
            None => vec![Tried { to, name, outcome: Err("no answer in time".into()) }],
        }
    });
    Ok(tried.collect())
}

/// Every address behind the edge's name.
async fn to_edge(config: &WorkerConfig, edge: &EdgeAddress, tls: &Tls, resolver: &Resolver) -> Vec<Tried> {
    let tried = |name: String, outcome| Tried { to: Whither::Edge, name, outcome };
    if let Some(via) = &config.via {
        let outcome = match via::connect(via, edge, resolver).await {
            Ok(conn) => speaks(conn, edge, tls).await,
            Err(why) => Err(why),
        };
        return vec![tried(format!("{edge} (via the proxy {}:{})", via.host, via.port), outcome)];
    }
    let addresses = match resolver.lookup(&edge.host).await {
        Ok(found) => found.addresses,
        Err(why) => return vec![tried(edge.to_string(), Err(format!("its name leads nowhere: {why}")))],
    };
    let mut all = Vec::new();
    for ip in addresses.into_iter().take(REACH_ADDRESSES_MAX) {
        let address = SocketAddr::new(ip, edge.port);
        let outcome = match io::timeout(CONNECT_MS_MAX, Conn::connect(address)).await {
            Some(Ok(conn)) => speaks(conn, edge, tls).await,
            Some(Err(error)) => Err(format!("cannot connect: {error}")),
            None => Err("cannot connect: no answer in time".into()),
        };
        let (name, shown) = (edge.to_string(), address.to_string());
        all.push(tried(if name == shown { name } else { format!("{name} ({shown})") }, outcome));
    }
    all
}

async fn speaks(mut conn: Conn, edge: &EdgeAddress, tls: &Tls) -> Result<String, String> {
    match (edge.scheme, &tls.edge) {
        (Scheme::Https, Some(config)) => {
            tls::secure(&mut conn, config, &edge.host, "ca_file").await?;
            Ok("it takes connections, and its certificate is good".into())
        }
        _ => Ok("it takes connections".into()),
    }
}

/// The resolver's answers come from another thread.
async fn run_wakes(home: Home<()>, mut bell: io::Bell) {
    loop {
        while home.pop().is_some() {}
        home.run_wakes();
        if home.prepare_to_sleep() && bell.wait().await.is_err() {
            return; // every wait has its bound
        }
        home.awake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Scheme, Scope};
    use crate::worker::config::Target;
    use std::net::TcpListener;

    fn config(edges: &[(&str, u16)], to: u16) -> WorkerConfig {
        let edge = |(host, port): &(&str, u16)| EdgeAddress { scheme: Scheme::Http, host: (*host).into(), port: *port };
        let to = Target::Http { host: "127.0.0.1".into(), port: to };
        WorkerConfig::new(edges.iter().map(edge).collect(), Scope::Pool("app".into()), to, None)
    }

    /// A port on which nobody listens, while the listener that had it lives elsewhere.
    fn closed_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
    }

    #[test]
    fn who_listens_is_reached_and_who_does_not_is_told_in_the_order_of_the_file() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let open = listener.local_addr().expect("an address").port();
        let closed = closed_port();
        let config = config(&[("127.0.0.1", closed), ("127.0.0.1", open), ("localhost", open)], open);
        let tried = reach(&config).expect("io_uring");
        let shown: Vec<_> = tried.iter().map(|tried| (tried.to, tried.name.as_str(), tried.outcome.is_ok())).collect();
        assert_eq!(shown[0], (Whither::Edge, format!("127.0.0.1:{closed}").as_str(), false));
        assert_eq!(shown[1], (Whither::Edge, format!("127.0.0.1:{open}").as_str(), true));
        assert!(
            shown[2..].iter().any(|(_, name, good)| *good && *name == format!("localhost:{open} (127.0.0.1:{open})"))
        );
        let (to, name, good) = shown[shown.len() - 1];
        assert_eq!((to, name, good), (Whither::Server, format!("http://127.0.0.1:{open}").as_str(), true));
        let why = tried[0].outcome.as_ref().expect_err("nobody listens");
        assert!(why.starts_with("cannot connect: "), "{why}");
    }
}
