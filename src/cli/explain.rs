//! `ptth explain`: what an edge would do with a request, in words. How it is asked never enters.

use super::Stop;
use super::admin::{self, AdminArgument};
use super::status::{Table, visible};
use crate::edge::admin::explain::{Explanation, OfferReport, QueueReport, Verdict};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;

/// The request, as a client would send it.
#[derive(clap::Args)]
pub(super) struct RequestArguments {
    /// The request's method
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its URL, such as https://app.example.com/checkout
    #[arg(value_name = "URL")]
    url: String,
    /// A header line, such as 'Priority: u=1'; may be given again
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// The client's address, for rules that ask for one
    #[arg(long, value_name = "IP")]
    client: Option<std::net::IpAddr>,
    /// The name that a connection over TLS was made for [default: the URL's host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// The explanation as text, or the JSON as the edge sent it.
pub(super) fn explain(admin: &AdminArgument, request: &RequestArguments, json: bool) -> Result<String, Stop> {
    let body = admin::post_form(admin, "/explain", &form(request))?;
    let explanation: Explanation = serde_json::from_slice(&body)
        .map_err(|_| Stop::Failure("the answer is not an edge's explanation; is it the [admin] address?".into()))?;
    if json {
        return String::from_utf8(body).map_err(|_| Stop::Failure("the answer is not UTF-8".into()));
    }
    Ok(words(&explanation))
}

fn form(request: &RequestArguments) -> String {
    let mut form = String::new();
    let mut put = |name: &str, value: &str| {
        let join = if form.is_empty() { "" } else { "&" };
        let _ = write!(form, "{join}{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    };
    put("method", &request.method);
    put("url", &request.url);
    request.headers.iter().for_each(|line| put("header", line));
    if let Some(client) = request.client {
        put("client", &client.to_string());
    }
    if let Some(name) = &request.server_name {
        put("server_name", name);
    }
    form
}

fn words(told: &Explanation) -> String {
    let mut out = format!("{} {}\n\n", visible(&told.method), visible(&told.url));
    let mut line = |what: &str, text: &str| {
        let _ = writeln!(out, "{what:<8} {text}");
    };
    if told.draining {
        line("edge", "drains: it takes no new connection, and this is about a request on one that is open");
    }
    let entry = told.entry.as_deref().map(visible);
    match (&told.pool, &entry, &told.path) {
        (Some(pool), Some(entry), Some(path)) => {
            line("pool", &format!("{}: origin {entry}, path {}", visible(pool), visible(path)));
        }
        (None, Some(entry), None) => line("pool", &format!("none: origin {entry} covers it, and no path there")),
        (None, None, _) if told.refusal.as_ref().is_some_and(|refusal| matches!(refusal.status, 404 | 421)) => {
            line("pool", "none: no origin covers it");
        }
        _ => {}
    }
    if let (Some(class), Some(by)) = (told.class, &told.class_by) {
        let by = match by.as_str() {
            "header" => "by its Priority".to_owned(),
            "clamp" => "by its Priority, as far as the pool's clamp lets it".to_owned(),
            "default" => "the pool's default".to_owned(),
            rule => format!("by {} of the pool", visible(rule)),
        };
        line("class", &format!("{class}, {by}"));
    }
    if told.needs_upgrade {
        line("link", "one that carries upgrades");
    }
    line("verdict", &verdict(told));
    if let Some(queue) = &told.queue {
        line("queue", &waiting(queue));
        if told.verdict != Verdict::AtOnce {
            line("wait", &expected(queue));
        }
    }
    if told.pool.is_some() {
        out.push('\n');
        links(&told.links).write(&mut out);
    }
    out
}

fn verdict(told: &Explanation) -> String {
    match (&told.verdict, &told.refusal, &told.queue) {
        (Verdict::AtOnce, ..) => "sent at once".to_owned(),
        (Verdict::Waits, _, Some(queue)) => format!("waits, {} ahead of it", queue.ahead),
        (Verdict::Waits, _, None) => "waits".to_owned(),
        (Verdict::Refused, Some(refusal), _) => format!("refused, {}: {}", refusal.status, visible(&refusal.text)),
        (Verdict::Refused, None, _) => "refused".to_owned(),
    }
}

fn waiting(queue: &QueueReport) -> String {
    let classes = queue.queued_by_class.iter().enumerate().filter(|(_, queued)| **queued > 0);
    let classes: Vec<String> = classes.map(|(class, queued)| format!("{queued} of class {class}")).collect();
    let of = if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    let QueueReport { queued, requests_max, bytes, bytes_max, .. } = queue;
    format!("{queued} of {requests_max} requests{of}, {bytes} of {bytes_max} bytes")
}

fn expected(queue: &QueueReport) -> String {
    let most = format!("at most {:.1}s", queue.wait_max_seconds);
    match (queue.wait_seconds, queue.service_seconds) {
        (Some(wait), Some(service)) => format!("some {wait:.1}s, if one takes {service:.3}s; {most}"),
        (_, None) => format!("unknown, for no worker has answered yet; {most}"),
        (None, _) => format!("unknown, for no worker takes any; {most}"),
    }
}

fn links(links: &[OfferReport]) -> Table {
    let mut table = Table::new(&["LINK", "WORKER", "ID", "PROTOCOL", "OFFERS", "CORE", "CREDITS", "IN FLIGHT"], 5);
    for link in links {
        let offers = match link.offers.as_str() {
            "credits" => "takes it".to_owned(),
            "silent" => "has not said what it takes".to_owned(),
            "mute" => "answers nothing".to_owned(),
            "no_upgrades" => "no upgrades".to_owned(),
            other => visible(other),
        };
        table.row(vec![
            visible(&link.id),
            visible(&link.worker),
            visible(if link.worker_id.is_empty() { "-" } else { &link.worker_id }),
            visible(&link.protocol),
            offers,
            link.core.to_string(),
            link.credits.to_string(),
            link.in_flight.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::admin::explain::Refusal;

    fn waits() -> Explanation {
        Explanation {
            method: "GET".into(),
            url: "http://app.example/x".into(),
            verdict: Verdict::Waits,
            entry: Some("app.example".into()),
            path: Some("/".into()),
            pool: Some("app".into()),
            class: Some(2),
            class_by: Some("rule 1".into()),
            queue: Some(QueueReport {
                ahead: 3,
                queued_by_class: [1, 0, 2, 0, 0, 4, 0, 0],
                queued: 7,
                requests_max: 100,
                bytes: 700,
                bytes_max: 65_536,
                wait_max_seconds: 30.0,
                service_seconds: Some(0.5),
                wait_seconds: Some(2.0),
            }),
            links: vec![OfferReport {
                id: "0-1".into(),
                worker: "web-1".into(),
                protocol: "h2".into(),
                in_flight: 8,
                offers: "full".into(),
                ..OfferReport::default()
            }],
            ..Explanation::default()
        }
    }

    #[test]
    fn an_explanation_in_words() {
        let want = "GET http://app.example/x

pool     app: origin app.example, path /
class    2, by rule 1 of the pool
verdict  waits, 3 ahead of it
queue    7 of 100 requests (1 of class 0, 2 of class 2, 4 of class 5), 700 of 65536 bytes
wait     some 2.0s, if one takes 0.500s; at most 30.0s

LINK  WORKER  ID  PROTOCOL  OFFERS  CORE  CREDITS  IN FLIGHT
0-1   web-1   -   h2        full       0        0          8
";
        assert_eq!(words(&waits()), want);
    }

    #[test]
    fn a_refusal_in_words_has_no_control_character_of_a_worker() {
        let refusal = Refusal { status: 404, error: None, text: "nothing\u{1b}[2J".into() };
        let told = Explanation { verdict: Verdict::Refused, refusal: Some(refusal), ..Explanation::default() };
        assert_eq!(words(&told), " \n\npool     none: no origin covers it\nverdict  refused, 404: nothing?[2J\n");
    }

    #[test]
    fn a_question_is_a_form() {
        let request = RequestArguments {
            method: "GET".into(),
            url: "http://a/?x&y".into(),
            headers: vec!["a: b".into(), "c: d".into()],
            client: Some("::1".parse().unwrap()),
            server_name: None,
        };
        assert_eq!(
            form(&request),
            "method=GET&url=http%3A%2F%2Fa%2F%3Fx%26y&header=a%3A%20b&header=c%3A%20d&client=%3A%3A1"
        );
    }
}
