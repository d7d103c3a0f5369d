//! A backend that tells what it understood, on hyper; recorder.py says what: hyper_recorder PORT LOG
//! Nothing of the program's own code enters.
#![allow(clippy::disallowed_methods)] // a peer is no core

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

const RECORD_IN_HEAD_MAX: usize = 6000;

struct Log {
    file: File,
    seen: AtomicU64,
}

impl Log {
    fn number(&self) -> u64 {
        self.seen.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One line in one write, so that lines never mix.
    fn tell(&self, event: &Value) {
        (&self.file).write_all(format!("{event}\n").as_bytes()).expect("the log");
    }
}

/// A request that has begun; one that is dropped before its end was cut.
struct Begun {
    log: Arc<Log>,
    number: u64,
    bytes: u64,
    is_whole: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let how = if self.is_whole { "whole" } else { "cut" };
        self.log.tell(&json!([how, self.number, self.bytes]));
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}

async fn record(log: Arc<Log>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let (method, target) = (head.method.as_str().to_owned(), head.uri.to_string());
    let number = log.number();
    log.tell(&json!(["head", number, method, target]));
    let mut begun = Begun { log, number, bytes: 0, is_whole: false };
    let mut response = Response::new(Full::default());
    response.headers_mut().insert("x-seen", HeaderValue::from(number));
    if target.starts_with("/early") {
        if target.starts_with("/early/close") {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *response.body_mut() = Full::from(format!("early {method} {target}\n"));
        return Ok(response);
    }
    let mut digest = Sha256::new();
    let mut trailers = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data().map_err(|frame| frame.into_trailers())) {
            Ok(Ok(piece)) => {
                begun.bytes += piece.len() as u64;
                digest.update(&piece);
            }
            Ok(Err(Ok(map))) => trailers = fields(&map),
            Ok(Err(Err(_))) => {}
            // The connection ends with it; the answer is never seen.
            Err(_) => return Ok(response),
        }
    }
    begun.is_whole = true;
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let record = json!({
        "method": method, "target": target, "fields": fields(&head.headers), "bytes": begun.bytes, "sha256": digest,
        "trailers": trailers,
    });
    let record = record.to_string();
    if head.method == Method::HEAD {
        let in_head = base64::engine::general_purpose::STANDARD.encode(&record);
        if in_head.len() < RECORD_IN_HEAD_MAX {
            response.headers_mut().insert("x-record", in_head.try_into().expect("base64 is a field value"));
        }
    }
    *response.body_mut() = Full::from(record);
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (port, path) = (arguments.next().expect("PORT"), arguments.next().expect("LOG"));
    let file = OpenOptions::new().create(true).append(true).open(path).expect("the log");
    let log = Arc::new(Log { file, seen: AtomicU64::new(0) });
    let listener = TcpListener::bind(("127.0.0.1", port.parse().expect("a port"))).await.expect("the port");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let log = log.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| record(log.clone(), request));
            // As many fields as an edge lets through, and those that it adds.
            let mut server = http1::Builder::new();
            server.max_buf_size(1 << 16).max_headers(200);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await
                && error.is_parse()
            {
                log.tell(&json!(["bad", log.number(), error.to_string()]));
            }
        });
    }
}
