//! The edge as a child process: its configuration, its start, and the worker links to it.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::child::{Port, Program, Scratch};
use super::http::HOST;

/// How the edge is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    pub program: &'s Path,
    /// CPUs, a thread each.
    pub cores: &'s [u16],
    pub workers: u32,
    /// Requests that may wait; beyond it: 503.
    pub waiting_max: u32,
    pub has_classes: bool,
}

/// An edge that listens.
pub struct Edge {
    pub program: Program,
    pub clients: Port,
    pub links: Port,
    pub admin: Port,
    /// `id:secret` of its workers.
    pub credential: String,
}

pub fn start(setup: Setup<'_>, scratch: &Scratch) -> io::Result<Edge> {
    let (clients, links, admin) = (Port::take()?, Port::take()?, Port::take()?);
    let addresses = [clients.address, links.address, admin.address];
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no random bytes: {error}")))?;
    let secret = hex(&bytes);
    let config = scratch.path().join("edge.toml");
    std::fs::write(&config, configuration(setup, addresses, &secret))?;
    let mut command = Command::new(setup.program);
    command.arg("edge").arg("--config").arg(&config).env("RUST_LOG", "warn");
    let mut program = Program::start(&mut command, &scratch.path().join("edge.log"))?;
    for address in addresses {
        program.until_it_listens(address)?;
    }
    Ok(Edge { program, clients, links, admin, credential: format!("dispatch:{secret}") })
}

fn configuration(setup: Setup<'_>, [clients, links, admin]: [SocketAddr; 3], secret: &str) -> String {
    let Setup { cores, workers, waiting_max, .. } = setup;
    let priority = if setup.has_classes { "\n[pool.priority]\nclient_header = \"trust\"\n" } else { "" };
    let hash = hex(&Sha256::digest(secret.as_bytes()));
    format!(
        r#"[edge]
cores = {cores:?}
drain_max = "1s"

[[listen]]
address = "{clients}"
accept = ["clients"]

[[listen]]
address = "{links}"
accept = ["workers"]

[admin]
address = "{admin}"

[[pool]]
name = "dispatch"
origins = ["http://{HOST}"]
queue = {{ requests_max = {waiting_max}, bytes_max = "8GiB", wait_max = "1h" }}
per_link_max = {workers}
response_head_max_wait = "0s"
{priority}
[[credential]]
id = "dispatch"
secret_hash = "sha256:{hash}"
origins = ["http://{HOST}"]
links_max = {workers}
"#
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
