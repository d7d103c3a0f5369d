//! The admin address: what all cores hold, as `/status` (JSON) and `/metrics` (Prometheus text), health, and the order
//! to drain. Reads other cores only by asking them.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::core::{Core, Message, Shared};
use super::report::{CorePart, EdgePart, LimitsReport, Report};
use crate::client::{Clocks, Service, h1};
use crate::clock;
use crate::exchange::{Answer, Ask, Latch, Length, Piece, Reply, RequestBody};
use crate::fault::Fault;
use crate::io::{self, Conn, Timer};
use crate::limits::REPORT_MS_MAX;
use crate::xcore::{PipeRx, pipe};

/// Serves one connection to the admin address.
pub async fn connection(core: Rc<Core>, conn: Conn) {
    // Not counted as a connection: it must not keep a drain from ending. It does not end by a drain either.
    let never = Latch::default();
    let service = AdminService { core };
    h1::serve(Box::new(conn), &service, &never, &Clocks::USUAL).await;
}

/// What answers there.
pub struct AdminService {
    core: Rc<Core>,
}

struct Page {
    status: StatusCode,
    kind: &'static str,
    text: String,
    allow: Option<&'static str>,
}

impl Page {
    fn text(status: StatusCode, text: &str) -> Page {
        Page { status, kind: "text/plain; charset=utf-8", text: text.to_owned(), allow: None }
    }

    fn only(allow: &'static str) -> Page {
        let page = Page::text(StatusCode::METHOD_NOT_ALLOWED, "another method is wanted; Allow names it\n");
        Page { allow: Some(allow), ..page }
    }
}

impl Service for AdminService {
    async fn serve(
        &self,
        ask: Ask,
        _body: &mut impl RequestBody,
        answer: &mut impl Answer,
        _timer: &mut Timer,
    ) -> Result<(), Fault> {
        let page = self.page(&ask).await;
        let body = Bytes::from(page.text);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if let Some(allow) = page.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer.head(Reply { status: page.status, headers, length: Length::Exact(body.len() as u64) })?;
        if ask.method != Method::HEAD {
            answer.put(Piece::Data { bytes: body, last: true })?;
        }
        Ok(())
    }
}

impl AdminService {
    async fn page(&self, ask: &Ask) -> Page {
        let reads = matches!(ask.method, Method::GET | Method::HEAD);
        match ask.path.path() {
            // A page that a browser shows may post here, too; only a tool leaves out where it comes from.
            "/drain" if ask.headers.contains_key(ORIGIN) || ask.headers.contains_key("sec-fetch-site") => {
                Page::text(StatusCode::FORBIDDEN, "not from a web page\n")
            }
            "/drain" if ask.method == Method::POST => {
                super::drain_all(&self.core.shared);
                Page::text(StatusCode::ACCEPTED, "draining\n")
            }
            "/drain" => Page::only("POST"),
            _ if !reads => Page::only("GET, HEAD"),
            "/status" => {
                let report = self.report().await;
                let text = serde_json::to_string_pretty(&report).unwrap_or_else(|error| error.to_string());
                Page { status: StatusCode::OK, kind: "application/json", text: text + "\n", allow: None }
            }
            "/metrics" => {
                let text = self.report().await.prometheus();
                Page { status: StatusCode::OK, kind: "text/plain; version=0.0.4; charset=utf-8", text, allow: None }
            }
            // Every core has answered: its loop beats.
            "/health/live" if self.report().await.cores.len() < self.core.shared.posts.len() => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "a core does not answer\n")
            }
            "/health/live" => Page::text(StatusCode::OK, "live\n"),
            "/health/ready" if self.core.drain.is_set() => Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/health/ready" => Page::text(StatusCode::OK, "ready\n"),
            "/" => Page::text(StatusCode::OK, "ptth edge: /status /metrics /health/live /health/ready, POST /drain\n"),
            _ => Page::text(StatusCode::NOT_FOUND, "there are /status /metrics /health/live /health/ready\n"),
        }
    }

    /// Asks every core what it holds.
    async fn report(&self) -> Report {
        let core = &self.core;
        let mut cores = vec![core.report()];
        for (index, post) in core.shared.posts.iter().enumerate() {
            if index == usize::from(core.id.0) {
                continue;
            }
            let (mut tx, rx): (_, PipeRx<CorePart>) = pipe(1);
            let tell = Box::new(move |report| {
                let _ = tx.try_send(report); // an admin that left does not need it
            });
            if post.send(Message::Report(tell)).is_err() {
                continue;
            }
            let mut rx = rx;
            // A core that has ended, or hangs, is missing from the report.
            let told = io::timeout(REPORT_MS_MAX, std::future::poll_fn(|cx| rx.poll_recv(cx, &core.home))).await;
            cores.extend(told.flatten());
        }
        let names: Vec<String> = core.shared.config.pools.iter().map(|pool| pool.name.clone()).collect();
        let edge = EdgePart {
            uptime_seconds: clock::now().ms_since(core.shared.started) / 1000,
            draining: core.drain.is_set(),
            limits: limits_of(&core.shared),
            pool_names: &names,
        };
        Report::gather(edge, cores)
    }
}

fn limits_of(shared: &Shared) -> LimitsReport {
    LimitsReport {
        connections: shared.crowd.len() as u64,
        connections_max: shared.connections_max as u64,
        resident_bytes: shared.memory.resident_bytes(),
        memory_max_bytes: shared.memory_max.unwrap_or(0),
    }
}
