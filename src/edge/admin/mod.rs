//! The admin address: what all cores hold, as `/status` (JSON) and `/metrics` (Prometheus text), health, and the order
//! to drain. Reads other cores only by asking them.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub mod access;
pub mod explain;
mod form;

use self::access::Refused;
use super::core::{Core, Shared};
use super::inquiry;
use super::lineage::{Look, Member};
use super::metrics;
use super::report::{CorePart, EdgePart, LimitsReport, Report};
use super::tls::Certificate;
use super::welcome::shake_hands;
use crate::client::{Clocks, Service, h1};
use crate::clock;
use crate::exchange::{Answer, Ask, Length, Piece, Reply, RequestBody};
use crate::fault::Fault;
use crate::ids::CoreId;
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
        match shared.access.admits(ask, is_vouched, shared.lineage.session_key.as_ref(), now_unix) {
            Ok(()) => None,
            Err(Refused::Stranger) if matches!(ask.path.path(), "/health/live" | "/health/ready" | "/login") => None,
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
                Page::text(StatusCode::UNAUTHORIZED, "this is not the token\n")
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
            "/login" => Page::only("POST"),
            _ if !reads => Page::only("GET, HEAD"),
            "/status" => {
                let report = self.report().await.0;
                Page::json(&report)
            }
            "/metrics" => {
                let text = self.report().await.0.prometheus();
                Page::new(metrics::CONTENT_TYPE, text)
            }
            // Every core has answered: its loop beats.
            "/health/live" if self.report().await.1 > 0 => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "a core does not answer\n")
            }
            "/health/live" => Page::text(StatusCode::OK, "live\n"),
            "/health/ready" if self.core.shared.lineage.drains() => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/health/ready" => Page::text(StatusCode::OK, "ready\n"),
            "/" => Page::text(
                StatusCode::OK,
                "ptth edge: /status /metrics /explain /health/live /health/ready, POST /drain\n",
            ),
            _ => Page::text(StatusCode::NOT_FOUND, "there are /status /metrics /explain /health/live /health/ready\n"),
        }
    }

    async fn explain(&self, asked: &[u8]) -> Page {
        match explain::explain(&self.core, asked).await {
            Ok(explanation) => Page::json(&explanation),
            Err(why) => Page::text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        }
    }

    /// Asks every core of every generation what it holds. Also how many did not answer.
    async fn report(&self) -> (Report, usize) {
        let shared = &self.core.shared;
        let Some(mut look) = shared.lineage.look() else { return (Report::default(), 0) };
        let present = look.living.last().expect("never empty").shared.clone();
        let mut names: Vec<String> = present.pool_names().map(str::to_owned).collect();
        let mut parts = Vec::new();
        let mut silent = 0;
        for member in look.living.iter().rev() {
            let places = places(&mut names, member.shared.pool_names());
            for core in 0..member.shared.posts.len() {
                match self.part(member, core).await {
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
        (Report::gather(edge, parts), silent)
    }

    /// What one core holds, or had counted when it ended. `None`: it hangs.
    async fn part(&self, member: &Member, index: usize) -> Option<CorePart> {
        let ended = || {
            let counters = member.ended_core(index)?;
            Some(CorePart::ended(member.shared.generation, CoreId(index as u16), counters))
        };
        if let Some(part) = ended() {
            return Some(part);
        }
        inquiry::ask(&self.core, member, index, Core::report).await.or_else(ended)
    }
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
