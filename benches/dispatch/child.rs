//! A program that the tool started: its ports, its log, its CPU time, and its end, which comes with the value's own.
//! What the program does never enters.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::{now_ns, pause_ms};
use super::limits::{END_MS_MAX, LOG_LINES_SHOWN, START_MS_MAX};

/// A directory for configurations and logs. It is removed with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> io::Result<Scratch> {
        let name = format!("ptth-dispatch-{}-{}", std::process::id(), now_ns());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what stays is in the directory for temporary files
    }
}

pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with stdout and stderr in `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Program> {
        let out = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} does not start: {error}", command.get_program().display()))
        })?;
        Ok(Program { child, log: log.to_owned() })
    }

    /// Waits until it accepts connections on `address`.
    pub fn until_it_listens(&mut self, address: SocketAddr) -> io::Result<()> {
        let by_ns = now_ns() + START_MS_MAX * 1_000_000;
        while TcpStream::connect(address).is_err() {
            self.check_alive()?;
            if now_ns() > by_ns {
                return Err(self.failure("did not listen in time"));
            }
            pause_ms(10);
        }
        self.check_alive() // else somebody else's port answered
    }

    pub fn check_alive(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended by itself ({status})"))),
        }
    }

    /// An error with the end of its log.
    fn failure(&self, what: &str) -> io::Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        io::Error::other(format!("the program {what}; its last words:\n{shown}"))
    }

    /// CPU time of all threads of the program and of the processes that it started, as the scheduler counts it.
    pub fn cpu_ns(&self) -> u64 {
        let own = self.child.id();
        let children = tasks(own).into_iter().flat_map(|task| {
            let text = std::fs::read_to_string(task.join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        });
        let processes: Vec<u32> = children.chain([own]).collect();
        processes.into_iter().flat_map(tasks).map(|task| on_cpu_ns(&task)).sum()
    }
}

impl Drop for Program {
    /// Asks it to end, and kills it if it does not.
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::TERM);
            let by_ns = now_ns() + END_MS_MAX * 1_000_000;
            while now_ns() < by_ns && matches!(self.child.try_wait(), Ok(None)) {
                pause_ms(10);
            }
            let _ = self.child.kill(); // refuses when it has ended
        }
        let _ = self.child.wait();
    }
}

/// `/proc/PID/task/TID` of each thread.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// proc(5): the first number of schedstat is the time on a CPU.
fn on_cpu_ns(task: &Path) -> u64 {
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Linux counts /proc/stat in hundredths of a second, whatever the kernel's own clock does.
const TICK_NS: u64 = 10_000_000;

/// Time that all CPUs were busy, with the time that a host took away from this machine.
pub fn machine_busy_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = text.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { return 0 };
    (user + nice + system + irq + softirq + steal) * TICK_NS
}

/// A port of loopback that nobody else gets while this value lives. The socket only holds it: it does not listen, and
/// whoever does so with SO_REUSEPORT, as all the programs here, shares it.
pub struct Port {
    pub address: SocketAddr,
    _held: Socket,
}

impl Port {
    pub fn take() -> io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a port has no number"))?;
        Ok(Port { address, _held: socket })
    }
}
