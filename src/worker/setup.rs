//! The worker's half of a setup (wire-formats §1): the request that turns the connection, and the edge's answer to it.
//! What is served over the link afterwards never enters.

use bytes::Bytes;

use super::config::{EdgeAddress, Secret, WorkerConfig};
use super::tls;
use crate::io::{self, Conn};
use crate::limits::{RETRY_AFTER_MS_MAX, SETUP_MS_MAX};
use crate::wire::PREFACE;
use crate::wire::{self, ChannelVersion, Dialect, HeadScan, SetupAnswer};

/// Why there is no link.
pub struct NoLink {
    pub why: String,
    /// How long the edge wants to be left alone.
    pub wait_ms: u64,
}

impl From<String> for NoLink {
    fn from(why: String) -> NoLink {
        NoLink { why, wait_ms: 0 }
    }
}

impl From<&str> for NoLink {
    fn from(why: &str) -> NoLink {
        NoLink::from(why.to_owned())
    }
}

/// Sends the setup and reads its answer. What comes behind the 101 stays in the connection: it belongs to the channel.
pub async fn set_up(
    mut conn: Conn,
    edge: &EdgeAddress,
    config: &WorkerConfig,
    authorization: Option<&Secret>,
) -> Result<(Conn, ChannelVersion), NoLink> {
    let versions = [ChannelVersion::H2, ChannelVersion::H1];
    let out = conn.writer.buf();
    let authorization = authorization.map(Secret::header_value);
    let (host, about) = (edge.to_string(), &config.about);
    wire::setup::put_setup_request(out, &host, &config.serve, authorization, about, &versions, Dialect::Ptth);
    let answered = async {
        let sent = conn.writer.flush().await;
        sent.map_err(|error| format!("the setup could not be sent: {}", tls::reason(&error, "ca_file")))?;
        read_head(&mut conn, "edge").await
    };
    let head = io::timeout(SETUP_MS_MAX, answered).await.ok_or("the setup was not answered in time")??;
    match wire::setup::parse_setup_answer(head) {
        Ok(SetupAnswer::Accepted(version)) => Ok((conn, version)),
        Ok(SetupAnswer::Refused { status, retry_after_s, .. }) => {
            // After a 503 another edge may be there at once; 429 is about this worker, and its neighbours.
            let wait_ms = retry_after_s.filter(|_| status == 429).map_or(0, |s| u64::from(s) * 1_000);
            Err(NoLink { why: refused(status), wait_ms: wait_ms.min(RETRY_AFTER_MS_MAX) })
        }
        Err(fault) => Err(format!("this is no edge: {fault}").into()),
    }
}

/// HAProxy's reverse HTTP has no setup (its documentation of `rhttp@`, wire-formats §3): a device begins like any client, and is asked
/// as soon as its SETTINGS are acknowledged. So the engine, a server from the first byte on, finds the preface that nobody sends, and
/// ours leaves in front of its first frame.
pub fn as_device(mut conn: Conn) -> Conn {
    conn.writer.put(PREFACE);
    conn.reader.unread(Bytes::from_static(PREFACE));
    conn
}

/// The head of what `who` answers. What comes behind it stays in the connection.
pub async fn read_head(conn: &mut Conn, who: &str) -> Result<Bytes, String> {
    let mut scan = HeadScan::response();
    loop {
        match scan.scan(conn.reader.buffer()) {
            Ok(Some(range)) => {
                conn.reader.consume(range.start);
                return Ok(conn.reader.take(range.len()));
            }
            Ok(None) => {}
            Err(fault) => return Err(format!("this is no {who}: {fault}")),
        }
        match conn.reader.fill().await {
            Ok(0) => return Err(format!("the {who} closed the connection instead of an answer")),
            Ok(_) => {}
            Err(error) => return Err(format!("the {who} did not answer: {}", tls::reason(&error, "ca_file"))),
        }
    }
}

/// What an operator can do about it.
fn refused(status: u16) -> String {
    let hint = match status {
        400 => "it did not understand the setup; is `serve` right?",
        401 => "the credential is missing, wrong or expired; look at credential_file and the edge's [[credential]]",
        403 => "this credential may not serve these origins, or no pool has them",
        404 => "this address does not accept workers; look at `accept` in its [[listen]]",
        406 => "no HTTP version in common",
        426 => "something between here and the edge does not pass the upgrade on",
        429 => "this credential holds as many links as it may (links_max), or too many setups came from this address",
        503 => "it is draining",
        _ => "is this an edge?",
    };
    format!("the edge refused the setup with {status}: {hint}")
}
