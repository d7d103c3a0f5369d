//! The program `ptth`: hands the three programs to the command line. Nothing else stands here.

use std::process::ExitCode;

fn main() -> ExitCode {
    ptth::cli::main(ptth::cli::Programs {
        edge: |_, _| Err("the edge is not built yet".into()),
        worker: |_| Err("the worker is not built yet".into()),
        demo: |_| Err("the demo is not built yet".into()),
    })
}
