//! The program `ptth`: the allocator, and the three programs handed to the command line. Nothing else stands here.

#![deny(unsafe_code)]

use std::process::ExitCode;

/// Every core allocates and frees its own requests; mimalloc keeps that without a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ptth::io::set_trim(trim);
    ptth::cli::main(ptth::cli::Programs { edge: ptth::edge::run, worker: ptth::worker::run, demo: ptth::demo::run })
}

/// What this thread has freed goes back to the kernel. mimalloc itself looks at that only when it needs new pages, so without
/// this an edge would keep what its busiest minute took.
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: it takes no pointer, and may be called at any time on a thread that allocates.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
