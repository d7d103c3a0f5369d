//! `cargo bench --bench dispatch -- ARGS`: how near an edge's dispatch comes to one ideal queue, on the user's own
//! machine. It knows the edge by its sockets, its configuration file and its `/metrics`, and nothing of its inside.
//!
//!     trace --> generator --> edge, peer or nothing --> workers --> book --> figures --> report, plot
//!       `-----------------> ideal (with the sends and service times that were measured) ---^
//!
//! The rooms' tests run from `tests/dispatch_bench.rs`. A bench without a harness is compiled with `cfg(test)`, too, but
//! without their functions: hence the `allow` at each.

#![forbid(unsafe_code)]

pub mod args;
mod book;
mod child;
mod clock;
mod edge;
mod figures;
mod generator;
mod h2_link;
mod http;
mod ideal;
mod limits;
mod metrics;
mod peers;
pub mod plot;
mod poll;
pub mod report;
mod rig;
pub mod session;
mod trace;
mod workers;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use args::{Asked, Settings};

pub fn main() -> ExitCode {
    match args::read(std::env::args_os().skip(1)) {
        Ok(Asked::Help(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Asked::Measure(settings)) => match measure(&settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("dispatch: {error}");
                ExitCode::from(1)
            }
        },
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn measure(settings: &Settings) -> Result<(), String> {
    // A signal ends what runs by the ordinary way, so that programs and files that were started and made go, too.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(|error| error.to_string())?;
    }
    let runs = session::session(settings, &stop, |what| eprintln!("{what}"))?;
    print(&report::text(settings, &runs));
    if let Some(path) = &settings.json {
        write(path, &report::json(settings, &runs))?;
    }
    if let Some(path) = &settings.svg {
        write(path, &plot::svg(settings, &runs))?;
    }
    Ok(())
}

/// Whoever reads may stop to; that is no failure of a measurement.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
