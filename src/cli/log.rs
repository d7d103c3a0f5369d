//! Where log lines go and how they look. What is logged never enters.

use super::{LogFormat, Stop};
use std::io::{IsTerminal as _, stderr};
use tracing_subscriber::EnvFilter;

/// Levels without `RUST_LOG`.
const LEVELS: &str = "info";

/// Log lines go to stderr: text on a terminal, JSON elsewhere, unless the user said.
pub(super) fn start(format: Option<LogFormat>) -> Result<(), Stop> {
    let levels = match std::env::var("RUST_LOG") {
        Ok(levels) if !levels.is_empty() => levels,
        _ => LEVELS.to_owned(),
    };
    let filter = EnvFilter::try_new(&levels).map_err(|_| {
        Stop::usage("RUST_LOG is not a list of levels; write for example RUST_LOG=info or RUST_LOG=ptth=debug,info")
    })?;
    let terminal = stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => {
            lines.with_target(false).with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).init()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}
