//! The admin address: what all cores hold, as `/status` (JSON) and `/metrics` (Prometheus text), health, and the order
//! to drain. Reads other cores only by asking them.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub mod access;
pub mod events;
pub mod explain;
pub mod findings;
mod form;

use self::access::Refused;
use self::events::Reader;
use super::core::{Core, Shared};
use super::inquiry;
use super::lineage::{Look, Member};
use super::metrics;
use super::report::{CorePart, EdgePart, LimitsReport, PoolLately, Report};
use super::tls::Certificate;
use super::welcome::shake_hands;
use crate::client::{Clocks, Service, h1};
use crate::clock;
use crate::exchange::{Answer, Ask, Length, Piece, Reply, RequestBody};
use crate::fault::Fault;
use crate::ids::{CoreId, LinkId};
use crate::io::{self, Conn, Timer};
use crate::limits::ADMIN_WRONG_MS;

/// Serves one connection to the admin address.
pub async fn connection(core: Rc<Core>, mut conn: Conn) {
    let mut certificate = None;
    if let Some(tls) = &core.shared.access.tls {
        let secured;
        (conn, secured) = match Box::pin(shake_hands(&core, conn, tls, false)).await {
            Some(shaken) => shaken,
            None => return,
        };
        certificate = Certificate::shown(secured.certificates, tls);
    }
    // Not counted as a connection: it must not keep a drain from ending. It does not end by a drain either, but where another
    // generation answers for all.
    let service = AdminService { core: core.clone(), certificate };
    h1::serve(Box::new(conn), &service, &core.admin_drain, &Clocks::USUAL).await;
}

/// What answers there.
pub struct AdminService {
    core: Rc<Core>,
    /// What its client has shown.
    certificate: Option<Certificate>,
}

/// Nothing but what this address has itself; no style or script in a page; in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HTML: &str = include_str!("../page/page.html");
const LOGIN: &str = include_str!("../page/login.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");

struct Page {
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
    more: Vec<(HeaderName, HeaderValue)>,
}

impl Page {
    fn new(kind: &'static str, body: impl Into<Bytes>) -> Page {
        Page { status: StatusCode::OK, kind, body: body.into(), more: Vec::new() }
    }

    fn text(status: StatusCode, text: &str) -> Page {
        Page { status, ..Page::new("text/plain; charset=utf-8", text.to_owned()) }
    }

    fn json(told: &impl serde::Serialize) -> Page {
        let text = serde_json::to_string_pretty(told).unwrap_or_else(|error| error.to_string());
        Page::new("application/json", text + "\n")
    }

    fn html(status: StatusCode, html: &'static str) -> Page {
        let page = Page { status, ..Page::new("text/html; charset=utf-8", html) };
        let page = page.with(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        page.with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
    }

    fn only(allow: &'static str) -> Page {
        let page = Page::text(StatusCode::METHOD_NOT_ALLOWED, "another method is wanted; Allow names it\n");
        page.with(ALLOW, HeaderValue::from_static(allow))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Page {
        self.more.push((name, value));
        self
    }
}

impl Service for AdminService {
    async fn serve(
        &self,
        ask: Ask,
        body: &mut impl RequestBody,
        answer: &mut impl Answer,
        _timer: &mut Timer,
    ) -> Result<(), Fault> {
        let page = match self.refusal(&ask) {
            Some(page) => page,
            None if ask.path.path() == "/events" && ask.method == Method::GET => {
                match Reader::enter(&self.core.shared.lineage) {
                    Some(reader) => {
                        let may_read = || self.refusal(&ask).is_none();
                        return events::stream(&self.core, reader, may_read, body, answer).await;
                    }
                    None => Page::text(StatusCode::SERVICE_UNAVAILABLE, "too many read already\n"),
                }
            }
            None => self.page(&ask, body, answer).await,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.extend(page.more);
        answer.head(Reply { status: page.status, headers, length: Length::Exact(page.body.len() as u64) })?;
        if ask.method != Method::HEAD {
            answer.put(Piece::Data { bytes: page.body, last: true })?;
        }
        Ok(())
    }
}

impl AdminService {
    /// What whoever may not ask is told. Health is told to anybody: probes have no secrets.
    fn refusal(&self, ask: &Ask) -> Option<Page> {
        let shared = &self.core.shared;
        let now_unix = clock::unix_seconds();
        let is_vouched = self.certificate.as_ref().is_some_and(|own| own.vouched(now_unix).is_some());
        // A cookie goes to every port of its host, and so may reach a server behind a worker: it may look, and order nothing.
        let key = shared.lineage.session_key.as_ref().filter(|_| ask.path.path() != "/drain");
        match shared.access.admits(ask, is_vouched, key, now_unix) {
            Ok(()) => None,
            Err(Refused::WrongName) if ask.path.path().starts_with("/health/") => None,
            Err(Refused::Stranger) if is_for_strangers(ask.path.path()) => None,
            // A browser is shown where the token is asked for.
            Err(Refused::Stranger) if ask.path.path() == "/" && shared.access.has_token() => {
                let page = Page::text(StatusCode::SEE_OTHER, "log in\n");
                Some(page.with(LOCATION, HeaderValue::from_static("/login")))
            }
            Err(Refused::Stranger) => {
                let text = "this address wants its token (Authorization: Bearer …) or a certificate\n";
                let page = Page::text(StatusCode::UNAUTHORIZED, text);
                Some(page.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ptth admin\"")))
            }
            Err(Refused::WrongName) => {
                let text = "by this name nobody is told anything; ask by an address or localhost, or add it to `names` in [admin]\n";
                Some(Page::text(StatusCode::MISDIRECTED_REQUEST, text))
            }
        }
    }

    /// A browser shows the token once, and has a cookie from then on.
    async fn log_in(&self, ask: &Ask, body: &mut impl RequestBody, answer: &mut impl Answer) -> Page {
        let shared = &self.core.shared;
        let form = form::body_of(ask, body, answer).await.unwrap_or_default();
        let said = form::pairs(&form).into_iter().find(|(name, _)| name == b"token").unwrap_or_default().1;
        let key = shared.lineage.session_key.as_ref();
        match key.and_then(|key| shared.access.log_in(&said, key, clock::unix_seconds())) {
            Some(cookie) => Page::text(StatusCode::SEE_OTHER, "logged in\n")
                .with(LOCATION, HeaderValue::from_static("/"))
                .with(SET_COOKIE, cookie),
            None => {
                io::sleep_ms(ADMIN_WRONG_MS).await;
                Page::html(StatusCode::UNAUTHORIZED, LOGIN)
            }
        }
    }

    async fn page(&self, ask: &Ask, body: &mut impl RequestBody, answer: &mut impl Answer) -> Page {
        let reads = matches!(ask.method, Method::GET | Method::HEAD);
        match ask.path.path() {
            // A page that a browser shows may post here, too; only a tool leaves out where it comes from.
            "/drain" if ask.headers.contains_key(ORIGIN) || ask.headers.contains_key("sec-fetch-site") => {
                Page::text(StatusCode::FORBIDDEN, "not from a web page\n")
            }
            "/drain" if ask.method == Method::POST => {
                self.core.shared.lineage.drain();
                Page::text(StatusCode::ACCEPTED, "draining\n")
            }
            "/drain" => Page::only("POST"),
            "/explain" if ask.method == Method::POST => match form::body_of(ask, body, answer).await {
                Some(asked) => self.explain(&asked).await,
                None => Page::text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too long, or does not arrive\n"),
            },
            "/explain" if reads => self.explain(ask.path.query().unwrap_or("").as_bytes()).await,
            "/explain" => Page::only("GET, HEAD, POST"),
            "/login" if ask.method == Method::POST => self.log_in(ask, body, answer).await,
            _ if !reads => Page::only("GET, HEAD"),
            "/login" => Page::html(StatusCode::OK, LOGIN),
            "/status" => {
                let report = report(&self.core).await.0;
                Page::json(&report)
            }
            // Without a core's part the counters would fall, which Prometheus takes for a new beginning.
            "/metrics" => match report(&self.core).await {
                (report, 0) => Page::new(metrics::CONTENT_TYPE, report.prometheus()),
                (_, _) => Page::text(StatusCode::SERVICE_UNAVAILABLE, "a core does not answer\n"),
            },
            // Every core has answered: its loop beats.
            "/health/live" if !beats(&self.core).await => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "a core does not answer\n")
            }
            "/health/live" => Page::text(StatusCode::OK, "live\n"),
            "/health/ready" if self.core.shared.lineage.drains() => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/health/ready" => Page::text(StatusCode::OK, "ready\n"),
            "/" => Page::html(StatusCode::OK, HTML),
            "/page.css" => Page::new("text/css; charset=utf-8", STYLE),
            "/page.js" => Page::new("text/javascript; charset=utf-8", SCRIPT),
            "/events" => Page::only("GET"),
            _ => Page::text(
                StatusCode::NOT_FOUND,
                "there are / /status /metrics /explain /events /health/live /health/ready\n",
            ),
        }
    }

    async fn explain(&self, asked: &[u8]) -> Page {
        match explain::explain(&self.core, asked).await {
            Ok(explanation) => Page::json(&explanation),
            Err(why) => Page::text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        }
    }
}

/// Every core that has not ended answers.
async fn beats(core: &Rc<Core>) -> bool {
    let Some(look) = core.shared.lineage.look() else { return true };
    for member in &look.living {
        for index in 0..member.shared.posts.len() {
            let beat = inquiry::ask(core, member, index, |_| ()).await;
            if beat.is_none() && member.ended_core(index).is_none() {
                return false;
            }
        }
    }
    true
}

/// Asks every core of every generation what it holds. Also how many did not answer.
async fn report(core: &Rc<Core>) -> (Report, usize) {
    let shared = &core.shared;
    let Some(mut look) = shared.lineage.look() else { return (Report::default(), 0) };
    let present = look.living.last().expect("never empty").shared.clone();
    let mut names: Vec<String> = present.pool_names().map(str::to_owned).collect();
    let mut parts = Vec::new();
    let mut silent = 0;
    for member in look.living.iter().rev() {
        let places = places(&mut names, member.shared.pool_names());
        for index in 0..member.shared.posts.len() {
            match part(core, member, index).await {
                Some(part) => parts.push((part, places.clone())),
                None => silent += 1,
            }
        }
    }
    let past_places = places(&mut names, look.past.names.iter().map(String::as_str));
    let past = look.past.counters.renumbered(&past_places, names.len());
    let parts = parts.into_iter().map(|(part, places)| part.renumbered(&places, names.len())).collect();
    let generations: Vec<u64> = look.living.drain(..).map(|member| member.shared.generation).collect();
    let Look { drains, reloads, .. } = look;
    let edge = EdgePart {
        uptime_seconds: clock::now().ms_since(shared.lineage.started) / 1000,
        draining: drains,
        limits: limits_of(&present),
        pool_names: &names,
        generations: &generations,
        past: &past,
        reloads: &reloads,
    };
    let mut report = Report::gather(edge, parts);
    add_lately(&mut report, &present);
    report.findings = findings::findings(&report, silent, clock::unix_seconds());
    (report, silent)
}

/// What one core holds, or had counted when it ended. `None`: it hangs.
async fn part(core: &Rc<Core>, member: &Member, index: usize) -> Option<CorePart> {
    let ended = || {
        let counters = member.ended_core(index)?;
        Some(CorePart::ended(member.shared.generation, CoreId(index as u16), counters))
    };
    if let Some(part) = ended() {
        return Some(part);
    }
    inquiry::ask(core, member, index, Core::report).await.or_else(ended)
}

/// What the history knows beside what is so now.
fn add_lately(report: &mut Report, present: &Shared) {
    let history = present.lineage.history();
    report.lately.refusals = history.refused();
    for pool in &mut report.pools {
        let pace = history.pace(&pool.name);
        pool.lately = PoolLately {
            dispatched_per_second: pace.per_s,
            answered_per_second: pace.answered_per_s,
            failed_per_second: pace.failed_per_s,
            growth: pace.growth,
            wait_p50_us: pace.wait_p50_us,
            wait_p99_us: pace.wait_p99_us,
        };
        let own = present.pool_like(&pool.name);
        let queue = own.map(|own| present.config.pools[usize::from(own.0)].queue);
        pool.queue_requests_max = queue.map_or(0, |queue| queue.requests_max as u64);
    }
    for link in &mut report.links {
        let (generation, rest) = link.id.split_once('/').unwrap_or(("", &link.id));
        let generation = generation.parse().unwrap_or(report.generation);
        let number = rest.split_once('-').and_then(|(_, number)| number.parse().ok());
        let track = number.and_then(|number| history.link(generation, CoreId(link.core), LinkId(number)));
        link.answer_ms = track.and_then(|track| track.answer_ms);
    }
}

/// Health, and what a browser needs to show the token.
fn is_for_strangers(path: &str) -> bool {
    matches!(path, "/health/live" | "/health/ready" | "/login" | "/page.css")
}

/// Where these names stand among `names`; those that are new come behind.
fn places<'n>(names: &mut Vec<String>, wanted: impl Iterator<Item = &'n str>) -> Vec<usize> {
    let place = |wanted: &str| {
        names.iter().position(|name| name == wanted).unwrap_or_else(|| {
            names.push(wanted.to_owned());
            names.len() - 1
        })
    };
    wanted.map(place).collect()
}

fn limits_of(shared: &Shared) -> LimitsReport {
    LimitsReport {
        connections: shared.crowd.len() as u64,
        connections_max: shared.connections_max as u64,
        resident_bytes: shared.memory.resident_bytes(),
        memory_max_bytes: shared.memory_max.unwrap_or(0),
    }
}
