#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
use ptth::{edge, worker};
fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let args: Vec<String> = std::env::args().collect();
    let path = std::path::Path::new(&args[3]);
    let r = match args[1].as_str() {
        "edge" => edge::config::EdgeConfig::read(path, 0).map_err(|m| m.to_string()).and_then(|(c, _)| edge::run(c)),
        _ => worker::config::WorkerConfig::read(Some(path), &Default::default())
            .map_err(|m| m.to_string())
            .and_then(|(c, _)| worker::run(c)),
    };
    if let Err(e) = r {
        eprintln!("{e}");
        std::process::exit(1);
    }
}
