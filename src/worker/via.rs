//! Through an HTTP proxy to an edge (CONNECT, RFC 9110 §9.3.6). What is said in the tunnel never enters.

use std::net::SocketAddr;

use super::config::{EdgeAddress, Via};
use super::origin::connect_any;
use super::resolve::Resolver;
use super::setup::read_head;
use crate::io::{self, Conn};
use crate::limits::{CONNECT_MS_MAX, SETUP_MS_MAX};
use crate::wire::{Asked, parse_response};

/// A connection to `edge`, whose name the proxy resolves.
pub async fn connect(via: &Via, edge: &EdgeAddress, resolver: &Resolver) -> Result<Conn, String> {
    let proxy = async {
        let found = resolver.lookup(&via.host).await?;
        connect_any(found.addresses.into_iter().map(|ip| SocketAddr::new(ip, via.port))).await
    };
    let mut conn = match io::timeout(CONNECT_MS_MAX, proxy).await {
        Some(Ok(conn)) => conn,
        Some(Err(why)) => return Err(format!("cannot connect to the proxy: {why}")),
        None => return Err("cannot connect to the proxy: no answer in time".into()),
    };
    let out = conn.writer.buf();
    out.extend_from_slice(format!("CONNECT {edge} HTTP/1.1\r\nHost: {edge}\r\n").as_bytes());
    if let Some(authorization) = &via.authorization {
        out.extend_from_slice(b"Proxy-Authorization: ");
        out.extend_from_slice(authorization.header_value().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let answered = async {
        conn.writer.flush().await.map_err(|error| format!("the proxy took no request: {error}"))?;
        read_head(&mut conn, "proxy").await
    };
    let head = io::timeout(SETUP_MS_MAX, answered).await.ok_or("the proxy did not answer in time")??;
    let answer = parse_response(head, Asked::Other).map_err(|fault| format!("this is no proxy: {fault}"))?;
    match answer.status.as_u16() {
        200..=299 => Ok(conn),
        407 => Err("the proxy wants a user and a password (407); look at via_credential_file".into()),
        403 | 405 => Err(format!("the proxy does not connect to {edge} ({}); its rules forbid it", answer.status)),
        _ => Err(format!("the proxy does not connect to {edge} ({})", answer.status)),
    }
}
