//! Whoever started this process and watches it (systemd): what it is told (sd_notify(3)), how often it wants to hear that the
//! cores run, and the sockets that it has opened for it (sd_listen_fds(3)). Without one, all of this says nothing.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sockets::Kept;
use crate::clock;
use crate::io;
use crate::limits::{INHERITED_SOCKETS_MAX, NOTIFY_MS_MAX};

/// The first descriptor that is passed on, in the words of sd_listen_fds(3).
const LISTEN_FDS_START: i32 = 3;

/// Who is told.
#[derive(Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// Locked while something is said, so that it is heard in order.
    told: Mutex<Told>,
}

/// What it knows of us.
#[derive(Default)]
struct Told {
    /// RELOADING=1, which READY=1 has to follow.
    reloads: bool,
    /// The end has begun; STOPPING=1 is said as soon as no reload is in the way.
    stops: bool,
    /// Another process is the service.
    is_over: bool,
}

impl Supervisor {
    /// As `NOTIFY_SOCKET` says.
    pub fn from_environment() -> Supervisor {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Supervisor::default();
        };
        match connect(&name) {
            Ok(socket) => Supervisor { socket: Some(socket), ..Supervisor::default() },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be reached: systemd will not hear that the edge is ready");
                Supervisor::default()
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All has started.
    pub fn is_ready(&self) {
        let told = self.told();
        if !told.is_over {
            self.tell("READY=1");
        }
    }

    /// Behind it has to come [`Supervisor::has_reloaded`], whatever became of the reload.
    pub fn reloads(&self) {
        let mut told = self.told();
        if told.stops || told.is_over {
            return; // it would wait for a READY=1
        }
        told.reloads = true;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now().0 / 1_000));
    }

    pub fn has_reloaded(&self) {
        let mut told = self.told();
        if !std::mem::take(&mut told.reloads) || told.is_over {
            return;
        }
        self.tell("READY=1");
        if told.stops {
            self.tell("STOPPING=1");
        }
    }

    /// Once. A service that reloads is not heard to stop before it has reloaded.
    pub fn stops(&self) {
        let mut told = self.told();
        told.stops = true;
        if !told.reloads && !told.is_over {
            self.tell("STOPPING=1");
        }
    }

    /// Another process is the service from now on, and this one says nothing any more.
    pub fn goes_on_as(&self, pid: u32) {
        let mut told = self.told();
        told.is_over = true;
        self.tell(&format!("MAINPID={pid}"));
    }

    pub fn lives(&self) {
        if !self.told().is_over {
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(state.as_bytes())) {
            tracing::debug!(%error, state, "systemd does not listen");
        }
    }
}

fn connect(name: &OsString) -> std::io::Result<UnixDatagram> {
    let bytes = name.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(Duration::from_millis(NOTIFY_MS_MAX)))?;
    Ok(socket)
}

/// How long the supervisor waits for a sign of life before it ends the process; `None`: for ever.
pub fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_ours).map(Duration::from_micros)
}

/// The listening sockets that were opened for this process, each with its name. Only once in the life of the process.
pub fn activated() -> Vec<(String, Kept)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    if number("LISTEN_PID") != Some(std::process::id() as usize) {
        return Vec::new(); // they were meant for a process before this one
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(INHERITED_SOCKETS_MAX);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let name = |place: usize| names.get(place).copied().unwrap_or("unknown").to_owned();
    let listeners = io::inherited_listeners(LISTEN_FDS_START, count).into_iter();
    listeners.map(|(place, listener)| (name(place), Kept { listener, is_lent: true })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(says: impl FnOnce(&Supervisor), want: &[&str]) {
        let (socket, hears) = UnixDatagram::pair().expect("two sockets");
        says(&Supervisor { socket: Some(socket), ..Supervisor::default() });
        let mut heard = Vec::new();
        let mut bytes = [0; 256];
        hears.set_nonblocking(true).expect("a socket");
        while let Ok(count) = hears.recv(&mut bytes) {
            if count == 0 {
                break; // whoever spoke has gone
            }
            let text = String::from_utf8(bytes[..count].to_vec()).expect("text");
            heard.push(text.split('\n').next().unwrap_or_default().to_owned());
        }
        assert_eq!(heard, want);
    }

    #[test]
    fn a_reload_is_always_heard_to_end_and_an_end_never_to_reload() {
        check(
            |all| {
                all.is_ready();
                all.reloads();
                all.has_reloaded();
                all.stops();
            },
            &["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"],
        );
        check(
            |all| {
                all.reloads();
                all.stops();
                all.has_reloaded();
            },
            &["RELOADING=1", "READY=1", "STOPPING=1"],
        );
        check(
            |all| {
                all.stops();
                all.reloads();
                all.has_reloaded();
            },
            &["STOPPING=1"],
        );
    }

    #[test]
    fn whoever_was_replaced_says_nothing_any_more() {
        check(
            |all| {
                all.reloads();
                all.goes_on_as(7);
                all.has_reloaded();
                all.stops();
                all.lives();
                all.reloads();
            },
            &["RELOADING=1", "MAINPID=7"],
        );
    }
}
