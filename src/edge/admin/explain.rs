//! What would become of a request that a client sent now: asked with the same head, read by the same parser, decided by the same
//! rooms as one on its way ([`gate`], routes, priority, dispatch). Nothing is sent, counted or logged.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::Uri;
use serde::{Deserialize, Serialize};

use super::form;
use crate::client::h1::{LastHost, ask_of};
use crate::clock;
use crate::edge::core::{Chance, Core, Shared};
use crate::edge::gate;
use crate::edge::history::ByClass;
use crate::edge::inquiry;
use crate::edge::priority::DecidedBy;
use crate::edge::report::LinkPart;
use crate::exchange::Ask;
use crate::fault::Fault;
use crate::ids::{Class, CoreId, PoolId};
use crate::sched::{Facts, LinkOffer, Needs};
use crate::wire::{self, HeadScan};

/// What was found out. Unknown fields are skipped when it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    pub method: String,
    pub url: String,
    /// The edge drains: no new connection is taken, and this is about a request on one that is open.
    pub draining: bool,
    pub verdict: Verdict,
    /// What refuses it, or would while it waits.
    pub refusal: Option<Refusal>,
    /// The entry of `origins` that covers it, and the prefix of `paths`.
    pub entry: Option<String>,
    pub path: Option<String>,
    pub pool: Option<String>,
    pub class: Option<u8>,
    /// `rule 1` (counted from 1), `header`, `clamp` or `default`.
    pub class_by: Option<String>,
    /// Only a link that carries upgrades may have it.
    pub needs_upgrade: bool,
    pub queue: Option<QueueReport>,
    /// The links of its pool.
    pub links: Vec<OfferReport>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A link has a credit for it.
    AtOnce,
    Waits,
    #[default]
    Refused,
}

/// What the client would see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    pub status: u16,
    /// The token of `Proxy-Status`.
    pub error: Option<String>,
    pub text: String,
}

/// The queue that it would join.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// More urgent ones, and those of its class.
    pub ahead: u64,
    pub queued_by_class: ByClass<u64>,
    pub queued: u64,
    pub requests_max: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    pub wait_max_seconds: f64,
    /// How long a request is with a worker, as it was measured. `None`: none has ended yet.
    pub service_seconds: Option<f64>,
    /// If nothing more urgent comes, and all links are busy. `None`: unknown.
    pub wait_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferReport {
    pub id: String,
    pub worker: String,
    pub worker_id: String,
    pub core: u16,
    pub protocol: String,
    pub in_flight: u64,
    /// Requests of this pool that it takes now.
    pub credits: u64,
    /// `credits`, `full`, `drains`, `mute` (its worker answers nothing: on trial), `silent` (its worker has not said yet what it
    /// takes) or `no_upgrades`.
    pub offers: String,
}

/// What is asked about.
struct Question {
    method: String,
    url: String,
    head: Bytes,
    client: Option<IpAddr>,
    /// With https: the name that the connection was made for.
    server_name: Option<String>,
}

/// The request that `form` names (`method`, `url`, any number of `header`, `client`, `server_name`), explained. The error says
/// what of it cannot be read.
pub async fn explain(core: &Rc<Core>, asked: &[u8]) -> Result<Explanation, &'static str> {
    let question = Question::read(asked)?;
    let lineage = &core.shared.lineage;
    let Some(present) = lineage.look().and_then(|mut look| look.living.pop()) else {
        return Err("the edge has ended");
    };
    let shared = &present.shared;
    let mut told = Explanation {
        method: question.method.clone(),
        url: question.url.clone(),
        draining: lineage.drains(),
        ..Explanation::default()
    };
    let mut ask = match read(&question.head) {
        Ok(ask) => ask,
        Err(fault) => return Ok(told.refused(fault)),
    };
    ask.secure = question.server_name.is_some();
    if let Some(found) = gate::find(shared, &ask) {
        told.entry = Some(found.entry.to_string());
        told.path = found.place.map(|(path, _)| path.to_owned());
    }
    let pool = match gate::route(shared, &ask, question.server_name.as_deref()) {
        Ok(pool) => pool,
        Err(fault) => return Ok(told.refused(fault)),
    };
    let config = &shared.config.pools[usize::from(pool.0)];
    let classified = shared.classifiers[usize::from(pool.0)].classify(&ask, question.client);
    let needs = gate::needs_of(&ask);
    told.pool = Some(config.name.clone());
    told.class = Some(classified.urgency);
    told.class_by = Some(match classified.by {
        DecidedBy::Rule(index) => format!("rule {}", usize::from(index) + 1),
        DecidedBy::Header => "header".to_owned(),
        DecidedBy::Clamp => "clamp".to_owned(),
        DecidedBy::Default => "default".to_owned(),
    });
    told.needs_upgrade = needs == Needs::Upgrade;
    let facts = Facts { pool, class: Class::of(classified.urgency), needs, stamp: clock::now() };
    let mut has_credit = false;
    let mut queued = ByClass::<u64>::default();
    let mut may_wait = Ok(());
    let mut wait_ns = None;
    let ahead = shared.flows[usize::from(pool.0)].ahead_of(facts.class);
    for index in 0..shared.posts.len() {
        let question =
            move |core: &Core| (core.chance_of(facts), gate::may_wait(core, pool, needs), core.wait_ns(pool, ahead));
        let Some((chance, waits, wait)) = inquiry::ask(core, &present, index, question).await else { continue };
        wait_ns = wait;
        let Chance { has_credit: own, queued: waiting, offers } = chance;
        has_credit |= own;
        may_wait = may_wait.and(waits);
        queued.iter_mut().zip(waiting).for_each(|(all, own)| *all += own as u64);
        let core = CoreId(u16::try_from(index).unwrap_or(u16::MAX));
        told.links.extend(offers.into_iter().map(|(offer, link)| offer_report(core, offer, link)));
    }
    told.links.sort_by(|a, b| (a.core, &a.id).cmp(&(b.core, &b.id)));
    let queue = queue_report(shared, pool, ahead, wait_ns, queued);
    let books = &shared.books[usize::from(pool.0)];
    let has_room = books.has_room(gate::head_bytes(&ask), config.queue.requests_max, config.queue.bytes_max);
    told.queue = Some(queue);
    let refused = match may_wait {
        _ if has_credit => None,
        Err(fault) => Some(fault),
        Ok(()) if !has_room => Some(Fault::QueueFull),
        Ok(()) if is_longer(wait_ns, wire::preferred_wait_s(&ask.headers)) => Some(Fault::WouldWaitTooLong),
        Ok(()) => None,
    };
    Ok(match refused {
        Some(fault) => told.refused(fault),
        None => Explanation { verdict: if has_credit { Verdict::AtOnce } else { Verdict::Waits }, ..told },
    })
}

impl Explanation {
    fn refused(self, fault: Fault) -> Explanation {
        let refusal = Refusal {
            status: fault.status(),
            error: fault.proxy_error().map(str::to_owned),
            text: fault.detail().to_owned(),
        };
        Explanation { verdict: Verdict::Refused, refusal: Some(refusal), ..self }
    }
}

/// As a connection reads it: the bounds of a head, its grammar, and what is no request for anybody.
fn read(head: &Bytes) -> Result<Ask, Fault> {
    let range = HeadScan::request().scan(head)?.ok_or(Fault::ClientMalformed("a head without an end"))?;
    if range != (0..head.len()) {
        return Err(Fault::ClientMalformed("a header with a line end in it"));
    }
    let head = wire::parse_request(head.clone())?;
    if wire::is_setup(&head) {
        return Err(Fault::SetupMalformed("this is a worker's setup, and no request of a client"));
    }
    Ok(ask_of(head, &mut LastHost::default()))
}

fn offer_report(core: CoreId, offer: LinkOffer, link: LinkPart) -> OfferReport {
    let (credits, offers) = match offer {
        LinkOffer::Credits(credits) => (credits, "credits"),
        LinkOffer::Full => (0, "full"),
        LinkOffer::Drains => (0, "drains"),
        LinkOffer::Mute => (0, "mute"),
        LinkOffer::Silent => (0, "silent"),
        LinkOffer::NoUpgrades => (0, "no_upgrades"),
        LinkOffer::Elsewhere => (0, "elsewhere"),
    };
    OfferReport {
        id: format!("{}-{}", core.0, link.id.0),
        worker: link.worker,
        worker_id: link.said.id.unwrap_or_default(),
        core: core.0,
        protocol: link.protocol.to_owned(),
        in_flight: link.in_flight,
        credits: u64::from(credits),
        offers: offers.to_owned(),
    }
}

/// Its client would not wait for so long.
fn is_longer(wait_ns: Option<u64>, prefers_s: Option<u32>) -> bool {
    wait_ns.zip(prefers_s).is_some_and(|(ns, seconds)| ns > u64::from(seconds) * 1_000_000_000)
}

fn queue_report(
    shared: &Shared,
    pool: PoolId,
    ahead: u64,
    wait_ns: Option<u64>,
    queued_by_class: ByClass<u64>,
) -> QueueReport {
    let config = &shared.config.pools[usize::from(pool.0)];
    let books = &shared.books[usize::from(pool.0)];
    #[allow(clippy::cast_precision_loss)] // a week has 2^50 nanoseconds
    let seconds = |ns: u64| ns as f64 / 1e9;
    QueueReport {
        ahead,
        queued_by_class,
        queued: books.requests() as u64,
        requests_max: config.queue.requests_max as u64,
        bytes: books.bytes() as u64,
        bytes_max: config.queue.bytes_max as u64,
        wait_max_seconds: seconds(config.queue.wait_ms_max.saturating_mul(1_000_000)),
        service_seconds: Some(shared.flows[usize::from(pool.0)].service_ns()).filter(|ns| *ns > 0).map(seconds),
        wait_seconds: wait_ns.map(seconds),
    }
}

impl Question {
    fn read(asked: &[u8]) -> Result<Question, &'static str> {
        let (mut method, mut url, mut client, mut server_name) = (None, None, None, None);
        let mut fields: Vec<Vec<u8>> = Vec::new();
        let text = |value: Vec<u8>| String::from_utf8(value).map_err(|_| "a value that is not UTF-8");
        for (name, value) in form::pairs(asked) {
            match name.as_slice() {
                b"method" => method = Some(text(value)?),
                b"url" => url = Some(text(value)?),
                b"header" => fields.push(value),
                b"client" => {
                    let parsed = text(value)?.parse().map_err(|_| "`client` is an IP address, such as 192.0.2.1")?;
                    client = Some(parsed);
                }
                b"server_name" => server_name = Some(text(value)?),
                _ => return Err("known are method, url, header, client and server_name"),
            }
        }
        let method = method.unwrap_or_else(|| "GET".to_owned());
        let url = url.ok_or("`url` is missing; write url=http://app.example.com/")?;
        let odd = "`url` is no URL; write http://app.example.com/ or https://app.example.com/";
        let uri: Uri = url.parse().map_err(|_| odd)?;
        let authority = uri.authority().ok_or(odd)?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(odd),
        };
        if !is_secure && server_name.is_some() {
            return Err("`server_name` is for https alone");
        }
        let server_name =
            is_secure.then(|| server_name.unwrap_or_else(|| authority.host().trim_matches(['[', ']']).to_owned()));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        for field in fields {
            head.extend(field);
            head.extend(b"\r\n");
        }
        head.extend(b"\r\n");
        Ok(Question { method, url, head: head.into(), client, server_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: &str, want: Result<&str, &str>) {
        let got = Question::read(asked.as_bytes());
        match want {
            Ok(head) => assert_eq!(got.map(|question| question.head), Ok(Bytes::from(head.to_owned())), "{asked}"),
            Err(what) => assert!(got.as_ref().is_err_and(|why| why.contains(what)), "{asked}: {:?}", got.err()),
        }
    }

    #[test]
    fn a_question_becomes_the_head_that_a_client_would_send() {
        check("url=http://a.example", Ok("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        check(
            "method=POST&url=https%3A%2F%2Fa.example:8443%2Fx%3Fy%3D1&header=X-Plan:+gold&header=b%3A2",
            Ok("POST /x?y=1 HTTP/1.1\r\nHost: a.example:8443\r\nX-Plan: gold\r\nb:2\r\n\r\n"),
        );
        check("method=GET", Err("`url` is missing"));
        check("url=/x", Err("no URL"));
        check("url=ftp://a.example/", Err("no URL"));
        check("url=http://a.example&uri=x", Err("known are"));
        check("url=http://a.example&client=me", Err("IP address"));
        check("url=http://a.example&server_name=b", Err("https alone"));
        check("url=http://a.example&method=%ff", Err("UTF-8"));
    }

    #[test]
    fn no_header_ends_the_head_or_begins_another_one() {
        for header in ["a: b\r\n\r\nGET /other HTTP/1.1\r\nHost: x", "a: b\r\n", "a: b\nc: d", "a"] {
            let asked = format!("url=http://a.example&header={}", header.replace('\r', "%0d").replace('\n', "%0a"));
            let question = Question::read(asked.as_bytes()).expect("a question");
            assert!(matches!(read(&question.head), Err(Fault::ClientMalformed(_))), "{header:?}");
        }
    }
}
