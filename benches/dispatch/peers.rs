//! The peers: HAProxy and nginx as ordinary proxies before workers that listen. Each gets what lets it queue best:
//! HAProxy one request at a time for each server and its priority classes, nginx its least busy server.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::child::{Port, Program, Scratch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// HAProxy with one thread.
    Haproxy1,
    /// HAProxy with two threads.
    Haproxy2,
    /// nginx with `least_conn`.
    NginxLeast,
    /// nginx with `random two least_conn`.
    NginxTwo,
}

/// How a peer is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    pub haproxy: &'s Path,
    pub nginx: &'s Path,
    /// CPUs for its threads or processes.
    pub cores: &'s [u16],
    /// Where the workers listen.
    pub workers: &'s [SocketAddr],
    /// Requests that may wait; beyond it: 503. `None`: no bound.
    pub waiting_max: Option<u32>,
    pub has_classes: bool,
    pub connections_max: usize,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Haproxy1 => "haproxy1",
            Peer::Haproxy2 => "haproxy2",
            Peer::NginxLeast => "nginx-least",
            Peer::NginxTwo => "nginx-two",
        }
    }

    /// Starts it, and gives where it listens.
    pub fn start(self, setup: Setup<'_>, scratch: &Scratch) -> io::Result<(Program, Port)> {
        let port = Port::take()?;
        let address = port.address;
        let config = scratch.path().join("peer.conf");
        let mut command = match self {
            Peer::Haproxy1 | Peer::Haproxy2 => {
                std::fs::write(&config, haproxy(self, setup, address))?;
                let mut command = Command::new(setup.haproxy);
                command.arg("-db").arg("-f").arg(&config);
                command
            }
            Peer::NginxLeast | Peer::NginxTwo => {
                std::fs::write(&config, nginx(self, setup, address, scratch.path()))?;
                let mut command = Command::new(setup.nginx);
                command.arg("-p").arg(scratch.path()).arg("-c").arg(&config);
                command
            }
        };
        let mut program = Program::start(&mut command, &scratch.path().join("peer.log"))?;
        program.until_it_listens(address)?;
        Ok((program, port))
    }
}

fn haproxy(peer: Peer, setup: Setup<'_>, address: SocketAddr) -> String {
    let threads = if peer == Peer::Haproxy1 { 1 } else { 2 };
    let cpus: Vec<String> = setup.cores.iter().take(threads).map(u16::to_string).collect();
    let (connections, cpus) = (setup.connections_max, cpus.join(" "));
    let mut text = format!(
        "global\n    nbthread {threads}\n    cpu-map 1/all {cpus}\n    maxconn {connections}\n\
         defaults\n    mode http\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n    \
         timeout queue 1h\n    http-reuse always\n    no option redispatch\n    retries 0\n\
         frontend clients\n    bind {address} backlog 4096\n    maxconn {connections}\n    default_backend workers\n\
         backend workers\n    balance leastconn\n"
    );
    if let Some(waiting_max) = setup.waiting_max {
        let _ = writeln!(text, "    http-request deny deny_status 503 if {{ queue(workers) ge {waiting_max} }}");
    }
    if setup.has_classes {
        for urgency in [1, 3, 6] {
            let rule = "http-request set-priority-class";
            let _ = writeln!(text, "    {rule} int({urgency}) if {{ req.hdr(priority) u={urgency} }}");
        }
    }
    for (index, worker) in setup.workers.iter().enumerate() {
        let _ = writeln!(text, "    server w{index} {worker} maxconn 1");
    }
    text
}

fn nginx(peer: Peer, setup: Setup<'_>, address: SocketAddr, home: &Path) -> String {
    let balance = if peer == Peer::NginxLeast { "least_conn" } else { "random two least_conn" };
    let (processes, home) = (setup.cores.len(), home.display());
    // One mask of CPUs for each process, the lowest CPU rightmost.
    let masks = setup.cores.iter().map(|core| format!(" 1{}", "0".repeat(usize::from(*core)))).collect::<String>();
    let connections = 2 * setup.connections_max + 1024; // each process may get all of them, and their other halves
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let (zone, bound) = match setup.waiting_max {
        Some(waiting_max) => (
            "limit_conn_zone $server_name zone=all:1m;\n  limit_conn_status 503;\n".to_owned(),
            format!("limit_conn all {};", setup.workers.len() + waiting_max as usize),
        ),
        None => (String::new(), String::new()),
    };
    let keep = setup.connections_max.min(4096);
    let servers = setup.workers.iter().map(|worker| format!("    server {worker} max_fails=0;\n")).collect::<String>();
    format!(
        "{user}daemon off;
worker_processes {processes};
worker_cpu_affinity{masks};
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $host;
  proxy_next_upstream off;
  proxy_read_timeout 1h;
  proxy_connect_timeout 10s;
  {zone}
  upstream workers {{
    zone workers 1m;
    {balance};
{servers}
    keepalive {keep};
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen {address} backlog=4096 reuseport;
    server_name all;
    {bound}
    location / {{ proxy_pass http://workers; }}
  }}
}}
"
    )
}
