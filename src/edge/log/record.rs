//! Hot. What one exchange leaves behind for its line in the access log, and what is noted on the way there. How a line looks
//! never enters.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, Version};

use crate::clock::Now;
use crate::edge::priority::DecidedBy;
use crate::events::Dispatch;
use crate::exchange::Ask;
use crate::fault::Fault;
use crate::ids::{Class, CoreId, LinkId, PoolId};
use crate::limits::{ACCESS_LOG_TEXT_BYTES, HEAD_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use crate::wire;
use crate::xcore::Spooled;

/// Which link, and whose. One for each link; requests share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName {
    pub generation: u64,
    pub core: CoreId,
    pub link: LinkId,
    /// The id of its credential.
    pub worker: String,
    /// What it calls itself; empty if it does not.
    pub worker_id: String,
}

/// To what a request was granted.
#[derive(Clone, Debug)]
pub struct Grantor {
    /// `None`: the link went away in that moment.
    pub link: Option<Arc<LinkName>>,
    pub kind: Dispatch,
    /// In which it was taken, which waiting may have changed.
    pub class: Class,
}

/// What is noted while an exchange runs. Moments are in the order of the fields, as far as there are any.
#[derive(Debug, Default)]
pub struct Course {
    /// It began to wait in the queue, or had a link at once.
    pub left: Option<Now>,
    /// It went to the link that it had last.
    pub granted: Option<Now>,
    /// The response's head was there.
    pub began: Option<Now>,
    /// Of that response; 0: there was none.
    pub status: u16,
    /// How often it went to a link.
    pub attempts: u32,
    pub grantor: Option<Grantor>,
}

/// Where a request belongs, and why it is as urgent as it is.
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    pub pool: PoolId,
    pub class: Class,
    /// `None`: because it had waited.
    pub by: Option<DecidedBy>,
}

/// One line to be.
pub struct Record {
    pub core: CoreId,
    pub client: IpAddr,
    pub received: Now,
    pub left: Option<Now>,
    pub granted: Option<Now>,
    pub began: Option<Now>,
    pub ended: Now,
    pub routed: Option<Routed>,
    /// Generation, core and number of the link.
    pub link: Option<(u64, CoreId, LinkId)>,
    /// And how it was found.
    pub dispatch: Option<Dispatch>,
    pub attempts: u32,
    pub status: u16,
    pub fault: Option<Fault>,
    /// `None` where nothing of the request could be read.
    pub version: Option<Version>,
    pub is_secure: bool,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub texts: Texts,
}

// What limits.rs says of a spool's memory.
const _: () = assert!(size_of::<Record>() <= 560);

impl Spooled for Record {
    fn bytes_beside(&self) -> usize {
        self.texts.bytes_elsewhere()
    }
}

/// The texts of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Method,
    Host,
    Path,
    RequestId,
    Traceparent,
    UserAgent,
    Worker,
    WorkerId,
}

const TEXTS: usize = Text::WorkerId as usize + 1;

// The longest texts together: nearly a whole head, and the names of a worker.
const _: () = assert!(HEAD_BYTES_MAX + 2 * TOKEN_ID_BYTES_MAX <= u16::MAX as usize);

/// Texts one behind the other. Those of most requests lie in the record itself; an empty one is none.
pub struct Texts {
    ends: [u16; TEXTS],
    held: Held,
}

#[allow(clippy::large_enum_variant)] // the large one is the usual one, and lies in a spool
enum Held {
    Here([u8; ACCESS_LOG_TEXT_BYTES]),
    Elsewhere(Box<[u8]>),
}

impl Texts {
    /// In the order of [`Text`].
    #[must_use]
    pub fn of(texts: [&[u8]; TEXTS]) -> Texts {
        let mut ends = [0; TEXTS];
        let mut end = 0;
        for (text, place) in texts.iter().zip(&mut ends) {
            end += text.len();
            *place = u16::try_from(end).unwrap_or(u16::MAX);
        }
        if end > ACCESS_LOG_TEXT_BYTES {
            return Texts { ends, held: elsewhere(&texts) };
        }
        let mut here = [0; ACCESS_LOG_TEXT_BYTES];
        let mut at = 0;
        for text in texts {
            here[at..at + text.len()].copy_from_slice(text);
            at += text.len();
        }
        Texts { ends, held: Held::Here(here) }
    }

    #[must_use]
    pub fn get(&self, text: Text) -> &[u8] {
        let index = text as usize;
        let begin = index.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        let held: &[u8] = match &self.held {
            Held::Here(here) => here,
            Held::Elsewhere(elsewhere) => elsewhere,
        };
        held.get(begin..usize::from(self.ends[index])).unwrap_or_default()
    }
}

impl Texts {
    /// What they take beside the record: 0, or all of them.
    fn bytes_elsewhere(&self) -> usize {
        match &self.held {
            Held::Here(_) => 0,
            Held::Elsewhere(elsewhere) => elsewhere.len(),
        }
    }
}

#[cold]
fn elsewhere(texts: &[&[u8]; TEXTS]) -> Held {
    Held::Elsewhere(texts.concat().into())
}

/// What of a request is told that not everybody wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tells {
    /// The path with its query, which may carry secrets.
    pub query: bool,
    pub user_agent: bool,
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `ask` is `None` where nothing of the request could be read.
#[must_use]
pub fn texts_of(ask: Option<&Ask>, link: Option<&LinkName>, tells: Tells) -> Texts {
    let (worker, worker_id) = link.map_or(("", ""), |link| (link.worker.as_str(), link.worker_id.as_str()));
    let Some(ask) = ask else {
        return Texts::of([b"", b"", b"", b"", b"", b"", worker.as_bytes(), worker_id.as_bytes()]);
    };
    let authority = ask.authority.as_ref().map_or("", |authority| authority.as_str());
    // What stands before an @ is a secret, wherever it comes from.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = if tells.query { ask.path.as_str() } else { ask.path.path() };
    let field = |name: &HeaderName| ask.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    Texts::of([
        ask.method.as_str().as_bytes(),
        host.as_bytes(),
        path.as_bytes(),
        field(&wire::X_REQUEST_ID),
        field(&TRACEPARENT),
        if tells.user_agent { field(&http::header::USER_AGENT) } else { b"" },
        worker.as_bytes(),
        worker_id.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were_wherever_they_lie() {
        let long = vec![b'x'; ACCESS_LOG_TEXT_BYTES + 1];
        for path in [&b""[..], b"/", &long[..ACCESS_LOG_TEXT_BYTES - 11], &long[..ACCESS_LOG_TEXT_BYTES - 10], &long] {
            let texts = Texts::of([b"GET", b"", path, b"id", b"", b"", b"web-1", b""]);
            let is_here = 3 + path.len() + 2 + 5 <= ACCESS_LOG_TEXT_BYTES;
            assert_eq!(matches!(texts.held, Held::Here(_)), is_here, "{}", path.len());
            assert_eq!(texts.bytes_elsewhere(), if is_here { 0 } else { 3 + path.len() + 2 + 5 }, "{}", path.len());
            let want = [
                (Text::Method, &b"GET"[..]),
                (Text::Host, b""),
                (Text::Path, path),
                (Text::RequestId, b"id"),
                (Text::Traceparent, b""),
                (Text::UserAgent, b""),
                (Text::Worker, b"web-1"),
                (Text::WorkerId, b""),
            ];
            for (text, want) in want {
                assert_eq!(texts.get(text), want, "{text:?} with {} bytes", path.len());
            }
        }
    }
}
