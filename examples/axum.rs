//! An axum server that no client can reach: it dials out to an edge and serves what comes from there.
//!
//!     cargo run --release --example axum --features embed -- http://127.0.0.1:8443 http://app.example web-1.secret
//!
//! `http://127.0.0.1:8443` is the edge, `http://app.example` the origin that this server registers there, and the file has one
//! line, `id:secret`, from `ptth credential new web-1`. Ctrl-C ends the links after what runs.

use axum::Router;
use axum::routing::{get, post};
use ptth::worker::{Edges, serve_until};

#[tokio::main]
async fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [edge, origin, credential_file] = &arguments[..] else {
        return Err("three arguments: the edge's URL, an origin, and the file with id:secret".into());
    };
    let app = Router::new()
        .route("/", get(|| async { "Served by axum, from behind an edge.\n" }))
        .route("/echo", post(|body: String| async move { body }));
    let edges = Edges::new([edge]).origin(origin).credential_file(credential_file);
    serve_until(edges, app, async { drop(tokio::signal::ctrl_c().await) }).await
}
