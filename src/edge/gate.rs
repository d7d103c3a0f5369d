//! Whether a request enters, and where to: its pool by its origin and path, its class, and whether there is anything to wait
//! for. Its connection, its links and the waiting itself never enter. Who explains a request asks the same functions.

use super::core::{Core, Shared};
use super::routes::Found;
use crate::exchange::Ask;
use crate::fault::Fault;
use crate::ids::PoolId;
use crate::sched::Needs;
use crate::xcore::Fill;

/// The pool of a request. `server_name` is, with TLS, the name that its connection was made for; empty where none was named.
pub fn route(shared: &Shared, ask: &Ask, server_name: Option<&str>) -> Result<PoolId, Fault> {
    if shared.memory.fill() != Fill::Normal {
        return Err(Fault::MemoryFull);
    }
    let place = find(shared, ask).and_then(|found| found.place);
    place.map(|(_, pool)| pool).ok_or_else(|| match server_name {
        Some(name) if !name.is_empty() && !name.eq_ignore_ascii_case(host_of(ask)) => Fault::Misdirected,
        _ => Fault::NoPool,
    })
}

/// What of the configuration takes the request.
pub fn find<'s>(shared: &'s Shared, ask: &Ask) -> Option<Found<'s>> {
    let port = ask.authority.as_ref().and_then(|authority| authority.port_u16());
    let (scheme, default_port) = if ask.secure { ("https", 443) } else { ("http", 80) };
    let path = ask.path.path();
    let path = if path == "*" { "/" } else { path };
    shared.routes.find(scheme, host_of(ask), port.unwrap_or(default_port), path)
}

fn host_of(ask: &Ask) -> &str {
    ask.authority.as_ref().map_or("", |authority| authority.host())
}

/// Which links the request can use.
pub fn needs_of(ask: &Ask) -> Needs {
    if ask.upgrade.is_some() { Needs::Upgrade } else { Needs::Any }
}

/// Whether there is anything to wait for.
pub fn may_wait(core: &Core, pool: PoolId, needs: Needs) -> Result<(), Fault> {
    let shared = &core.shared;
    let board = &shared.dispatch.board;
    if !board.any_links(pool) {
        if core.may_send_away(pool) {
            return Ok(()); // its links have gone there
        }
        if !shared.config.pools[usize::from(pool.0)].hold_without_workers && !shared.awaits_workers() {
            return Err(Fault::NoWorker);
        }
        if core.drain.is_set() {
            return Err(Fault::Draining); // what still has a link may be served; nobody comes for the others any more
        }
    }
    if needs == Needs::Upgrade && board.cannot_upgrade(pool) {
        return Err(Fault::NoUpgrade);
    }
    Ok(())
}

/// Whether a request that waits has to look once in a while if there still is.
pub fn has_to_look(core: &Core, pool: PoolId, needs: Needs) -> bool {
    needs == Needs::Upgrade || !core.shared.config.pools[usize::from(pool.0)].hold_without_workers
}

/// What a waiting head holds, about.
pub fn head_bytes(ask: &Ask) -> usize {
    let fields: usize = ask.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    ask.path.as_str().len() + fields
}
