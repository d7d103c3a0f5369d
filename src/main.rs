//! The program `ptth`: the allocator, and the three programs handed to the command line. Nothing else stands here.

use std::process::ExitCode;

/// Every core allocates and frees its own requests; mimalloc keeps that without a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ptth::cli::main(ptth::cli::Programs { edge: ptth::edge::run, worker: ptth::worker::run, demo: ptth::demo::run })
}
