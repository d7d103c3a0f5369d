//! The command line: what `ptth` is asked to do, and its exit code. What the programs do then is given in by `main.rs`,
//! and never enters.

mod admin;
mod check;
mod credential;
mod doctor;
mod explain;
mod log;
mod pages;
mod status;
mod top;

use self::admin::{AdminArgument, Proof};
use crate::clock;
use crate::edge::config::EdgeConfig;
use crate::edge::tls;
use crate::limits;
use crate::settings::Mistakes;
use crate::worker;
use crate::worker::config::{Services, WorkerFlags};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The three programs. Each returns when it is done; its error is one line, and exit code 1.
#[derive(Clone, Copy)]
pub struct Programs {
    pub edge: fn(EdgeConfig) -> Result<(), String>,
    pub worker: fn(worker::Source, Services) -> Result<(), String>,
    pub demo: fn(DemoOptions) -> Result<(), String>,
}

/// `ptth demo`.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// Where the edge listens for clients and for its worker
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub address: SocketAddr,
    /// Where the admin page listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
}

/// Why a command ended early: bad arguments or configuration (2), or anything else (1).
#[derive(Debug)]
pub(crate) enum Stop {
    /// Lines for stderr.
    Usage(Vec<String>),
    Failure(String),
    /// Exit code 1; why has been printed already.
    Told,
    /// Whoever read our output went away, and does not want to hear about it.
    OutputClosed,
}

impl Stop {
    /// Exit code 2, with one line.
    fn usage(line: impl Display) -> Stop {
        Stop::Usage(vec![format!("ptth: {line}")])
    }

    fn mistakes(mistakes: &Mistakes) -> Stop {
        Stop::Usage(mistakes.lines().collect())
    }

    /// As a part of a screen.
    fn into_text(self) -> String {
        match self {
            Stop::Usage(lines) => lines.join("; "),
            Stop::Failure(line) => line,
            Stop::Told | Stop::OutputClosed => String::new(),
        }
    }
}

#[derive(Parser)]
#[command(
    name = "ptth",
    version,
    about = "A reverse-HTTP edge: workers dial out to it, and it hands them the requests of its clients.",
    long_about = "A reverse-HTTP edge.\n\n\
        The edge stands where clients can reach it. A worker stands next to an HTTP server that nobody can\n\
        reach, dials out to the edge, and gets the requests that the server has time for; the others wait in\n\
        the edge's queue. So the server needs no open port, and one more server is one more worker.",
    after_help = EXAMPLE,
    subcommand_required = true
)]
struct Cli {
    /// Format of log lines on stderr [default: text on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT", global = true)]
    log: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example, all on one machine:
  ptth demo                                                see it work; nothing to set up

Example, an edge and one worker:
  ptth credential new web-1 --origin http://app.example    the secret line goes into web-1.secret,
                                                           the [[credential]] block into edge.toml
  ptth check --config edge.toml                            says nothing when all is well
  ptth doctor --config edge.toml                           says what this host lacks for it
  ptth edge --config edge.toml
  ptth worker --edge http://edge.example:8080 --serve http://app.example \\
              --to http://127.0.0.1:3000 --credential-file web-1.secret
  ptth status --admin 127.0.0.1:9090                       once, and with `top` for `status` every second

RUST_LOG sets log levels, for example RUST_LOG=debug.
Exit codes: 0 fine, 2 bad arguments or configuration, 1 anything else.";

#[derive(Subcommand)]
enum Command {
    /// See it work: edge, worker and a sample server in one process, on this machine only
    ///
    /// Prints a curl line and the address of the admin page. Ctrl-C ends it.
    Demo(DemoOptions),
    /// Run the reverse proxy that clients and workers connect to
    ///
    /// SIGTERM finishes what runs and ends; a second SIGTERM ends at once. SIGHUP takes the configuration as it is now, and
    /// opens the access log anew; SIGUSR2 takes the program's file. Neither loses a connection, and if either does not work
    /// nothing changes.
    Edge {
        /// The configuration, such as edge.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Connect an HTTP server to one or more edges
    ///
    /// Everything may stand in a file, or in flags; a flag wins over the file. SIGHUP reads the file again; with a mistake in
    /// it nothing changes.
    Worker(Box<WorkerArguments>),
    /// Say what is wrong with a configuration, with file:line:column
    ///
    /// Knows edge.toml and worker.toml by their keys. Silent, and exit code 0, when all is well.
    Check {
        /// The file to check
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what this host, a configuration and a running edge lack, why it matters and how to mend it
    ///
    /// Looks at the kernel, at limits, cgroups and the network; with --config at the file, the files that it names, its
    /// addresses, and, for a worker, whether its edges and its server can be reached. Changes nothing. Exit code 0 when nothing is
    /// wrong; what could only be better does not count.
    Doctor {
        /// An edge.toml or a worker.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The address of a running edge's [admin], such as 127.0.0.1:9090
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        #[command(flatten)]
        proof: Proof,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make credentials for workers
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Show an edge's pools, queues and links as a table
    Status {
        #[command(flatten)]
        admin: AdminArgument,
        /// Print the JSON of /status instead
        #[arg(long)]
        json: bool,
    },
    /// Watch an edge's pools, queues and links, asked once a second
    ///
    /// Requests in a second and waits are those since the answer before. Needs a terminal. q ends it, tab goes to the next table,
    /// s changes its order, p pauses. It goes on by itself after a reload or an upgrade of the edge.
    Top {
        #[command(flatten)]
        admin: AdminArgument,
    },
    /// Say what an edge would do with a request, and why; nothing is sent
    ///
    /// Which pool it belongs to, its class and whose word that is, whether a link has a credit for it, what waits ahead of it
    /// and for how long, or what refuses it.
    Explain {
        #[command(flatten)]
        request: explain::RequestArguments,
        #[command(flatten)]
        admin: AdminArgument,
        /// Print the JSON of /explain instead
        #[arg(long)]
        json: bool,
    },
    /// Tell an edge to take no new work, finish what runs, and exit
    Drain {
        #[command(flatten)]
        admin: AdminArgument,
    },
    /// Print what a shell needs to complete commands
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Write a man page for each command into a folder
    #[command(hide = true)]
    Manual {
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum CredentialCommand {
    /// Make a new secret; it is printed once and kept nowhere
    ///
    /// The first line is the whole content of the worker's credential file. The rest belongs into edge.toml, which
    /// holds only the secret's hash.
    New {
        /// The worker's name: letters, digits, '.', '_' and '-'
        name: String,
        /// An origin that the worker may register, such as https://app.example.com; may be given again
        #[arg(long = "origin", value_name = "ORIGIN")]
        origins: Vec<String>,
    },
}

#[derive(Args)]
struct WorkerArguments {
    /// The configuration, such as worker.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An edge to dial, such as https://edge.example:8443; may be given again
    #[arg(long = "edge", visible_alias = "edges", value_name = "URL")]
    edges: Vec<String>,
    /// An origin to serve, such as https://app.example.com; may be given again
    #[arg(long, value_name = "ORIGIN")]
    serve: Vec<String>,
    /// Serve a pool of the edge by its name, instead of --serve
    #[arg(long, value_name = "NAME", conflicts_with = "serve")]
    pool: Option<String>,
    /// The server behind this worker: http://127.0.0.1:3000 (or https://, h2c://) or unix:/run/app.sock
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// A file with one line, id:secret
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,
    /// A file with one line, a bearer token, instead of --credential-file
    #[arg(long, value_name = "FILE", conflicts_with = "credential_file")]
    bearer_file: Option<PathBuf>,
    /// A PEM file with a certificate to show to the edge, beside or instead of a credential
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// A PEM file with its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A PEM file with the authorities of the edge's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A PEM file with the authorities of the server's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    to_ca_file: Option<PathBuf>,
    /// An HTTP proxy to reach edges through, such as http://proxy.example:3128
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// A file with one line, user:password, for that proxy
    #[arg(long, value_name = "FILE")]
    via_credential_file: Option<PathBuf>,
    /// What edges show this worker as [default: the host's name]
    #[arg(long, value_name = "NAME")]
    worker_id: Option<String>,
    /// What edges show beside it, such as zone=a; may be given again
    #[arg(long = "label", visible_alias = "labels", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Connections to each address of an edge [default: 2]
    #[arg(long, value_name = "N")]
    links: Option<u32>,
    /// Requests that the server takes at a time, over all links [default: 64]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// The edges are HAProxy's (reverse HTTP, `attach-srv`): nothing is registered, and no credential is sent
    #[arg(long)]
    haproxy: bool,
    /// Let the concurrency follow the server's latency, from --concurrency on
    #[arg(long)]
    adaptive: bool,
    /// How low --adaptive may go [default: 1]
    #[arg(long, value_name = "N")]
    concurrency_min: Option<u32>,
    /// How high --adaptive may go [default: 1024]
    #[arg(long, value_name = "N")]
    concurrency_max: Option<u32>,
    /// Ask the server for this path every 5 s, and offer nothing while it does not answer well
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
}

const _: () = assert!(limits::WORKER_LINKS == 2 && limits::WORKER_CONCURRENCY == 64 && limits::HEALTH_MS == 5_000);
const _: () = assert!(limits::ADAPT_MIN == 1 && limits::ADAPT_MAX == 1_024); // the help above says so

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The whole program: reads the arguments, runs the command, tells how it went.
pub fn main(programs: Programs) -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli, programs),
        Err(error) => arguments(&error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(lines)) => {
            complain(&lines);
            ExitCode::from(2)
        }
        Err(Stop::Failure(line)) => {
            complain(&[format!("ptth: {line}")]);
            ExitCode::from(1)
        }
        Err(Stop::Told | Stop::OutputClosed) => ExitCode::from(1),
    }
}

fn run(cli: Cli, programs: Programs) -> Result<(), Stop> {
    match cli.command {
        Command::Demo(options) => {
            log::start(cli.log)?;
            (programs.demo)(options).map_err(Stop::Failure)
        }
        Command::Edge { config: file } => {
            log::start(cli.log)?;
            let now_unix = clock::unix_seconds();
            let read = EdgeConfig::read(&file, now_unix).and_then(|(config, mut mistakes)| {
                tls::load(&config, now_unix, &mut mistakes);
                crate::edge::admin::access::Access::load(&config, now_unix, &mut mistakes);
                crate::edge::log::look(&config, &mut mistakes);
                if mistakes.has_errors() { Err(mistakes) } else { Ok((config, mistakes)) }
            });
            let config = read.and_then_warn()?;
            (programs.edge)(config).map_err(Stop::Failure)
        }
        Command::Worker(arguments) => {
            log::start(cli.log)?;
            let source = worker::Source { file: arguments.config.clone(), flags: arguments.into_flags() };
            let config = source.read().and_then_warn()?;
            (programs.worker)(source, config).map_err(Stop::Failure)
        }
        Command::Check { config: file } => check::check(&file),
        Command::Doctor { config, admin, proof, json } => doctor::doctor(&doctor::Asked { config, admin, proof, json }),
        Command::Credential(CredentialCommand::New { name, origins }) => print(&credential::new(&name, &origins)?),
        Command::Status { admin, json } => print(&status::status(&admin, json)?),
        Command::Top { admin } => top::top(admin),
        Command::Explain { request, admin, json } => print(&explain::explain(&admin, &request, json)?),
        Command::Drain { admin } => print(&status::drain(&admin)?),
        Command::Completions { shell } => pages::completions(shell),
        Command::Manual { folder } => pages::manual(&folder),
    }
}

impl WorkerArguments {
    fn into_flags(self) -> WorkerFlags {
        let WorkerArguments {
            config: _,
            edges,
            serve,
            pool,
            to,
            credential_file,
            bearer_file,
            haproxy,
            certificate,
            key,
            ca_file,
            to_ca_file,
            via,
            via_credential_file,
            worker_id,
            labels,
            links,
            concurrency,
            adaptive,
            concurrency_min,
            concurrency_max,
            health,
        } = self;
        WorkerFlags {
            edges,
            serve,
            pool,
            to,
            credential_file,
            bearer_file,
            haproxy,
            ca_file,
            certificate,
            key,
            to_ca_file,
            via,
            via_credential_file,
            worker_id,
            labels,
            links,
            concurrency,
            adaptive,
            concurrency_min,
            concurrency_max,
            health,
        }
    }
}

/// A checked configuration: its warnings are logged, its errors end the program.
trait AndThenWarn<T> {
    fn and_then_warn(self) -> Result<T, Stop>;
}

impl<T> AndThenWarn<T> for Result<(T, Mistakes), Mistakes> {
    fn and_then_warn(self) -> Result<T, Stop> {
        let (config, warnings) = self.map_err(|mistakes| Stop::mistakes(&mistakes))?;
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

/// Help and version go to stdout; what is wrong with the arguments goes to stderr, on one line.
fn arguments(error: &clap::Error) -> Result<(), Stop> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(&text),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Stop::usage("no command; try `ptth demo`, or `ptth --help` for all of them"))
        }
        _ => {
            let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
            let told: Vec<_> = told.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
            let told = told.join(" ").replace(" tip: ", "; ");
            let told = told.strip_prefix("error: ").unwrap_or(&told);
            Err(Stop::usage(format_args!("{told}; `ptth --help` shows what there is")))
        }
    }
}

fn print(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| Stop::OutputClosed)
}

fn complain(lines: &[String]) {
    let mut out = std::io::stderr().lock();
    for line in lines {
        let _ = writeln!(out, "{line}"); // nobody is left to tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_in_order() {
        Cli::command().debug_assert();
    }
}
