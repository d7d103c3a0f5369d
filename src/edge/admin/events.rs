//! The page's news: one event a second, made once for all who listen, and streams that carry it (`text/event-stream`). A reader
//! that does not take its events is cut; what is told never enters.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use crate::clock::{self, Now};
use crate::edge::core::Core;
use crate::edge::history::HistoryReport;
use crate::edge::lineage::Lineage;
use crate::edge::report::Report;
use crate::exchange::{Answer, Length, Piece, Reply, RequestBody, Sink};
use crate::fault::Fault;
use crate::io;
use crate::limits::{
    EVENT_BEAT_MS, EVENT_LINKS_MAX, EVENT_LOOK_MS, EVENT_STREAMS_MAX, EVENT_TAKE_MS_MAX, HISTORY_SAMPLES,
};

/// What was told last. One for a process, behind a lock that only readers of the page and the task that tells take.
#[derive(Default)]
pub struct News {
    readers: usize,
    number: u64,
    event: Bytes,
}

/// A reader, until it is dropped.
pub struct Reader(Arc<Lineage>);

impl Reader {
    /// `None`: there are as many as may be.
    pub fn enter(lineage: &Arc<Lineage>) -> Option<Reader> {
        let mut news = lineage.news();
        if news.readers >= EVENT_STREAMS_MAX {
            return None;
        }
        news.readers += 1;
        Some(Reader(lineage.clone()))
    }

    /// The number of the last event, and the event, if it is not this one.
    fn look(&self, seen: u64) -> Option<(u64, Bytes)> {
        let news = self.0.news();
        (news.number != seen).then(|| (news.number, news.event.clone()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.news().readers -= 1;
    }
}

#[derive(Serialize)]
struct Moment<'m> {
    report: &'m Report,
    history: &'m HistoryReport,
}

fn event(report: &Report, history: &HistoryReport) -> Bytes {
    // JSON has no line end in it, so one line is the whole event.
    let json = serde_json::to_string(&Moment { report, history }).unwrap_or_default();
    Bytes::from(format!("data: {json}\n\n"))
}

/// Tells all readers what is so now; nothing is made where nobody reads.
pub async fn publish(core: &Rc<Core>) {
    let lineage = &core.shared.lineage;
    if lineage.news().readers == 0 {
        return;
    }
    let report = super::report(core).await.0.brief(EVENT_LINKS_MAX);
    let event = event(&report, &lineage.history().report(1));
    let mut news = lineage.news();
    news.number += 1;
    news.event = event;
}

/// Carries news until the edge or this generation of it ends, or the reader leaves or may read no more. It begins with all that is remembered.
pub async fn stream(
    core: &Rc<Core>,
    reader: Reader,
    may_read: impl Fn() -> bool,
    body: &mut impl RequestBody,
    answer: &mut impl Answer,
) -> Result<(), Fault> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer.head(Reply { status: StatusCode::OK, headers, length: Length::Unknown })?;
    let mut seen = reader.look(0).map_or(0, |(number, _)| number);
    let report = super::report(core).await.0.brief(EVENT_LINKS_MAX);
    let all = core.shared.lineage.history().report(HISTORY_SAMPLES);
    let mut owed = Owed::default();
    give(answer, Bytes::from_static(b"retry: 1000\n"), &mut owed).await?;
    give(answer, event(&report, &all), &mut owed).await?;
    let mut quiet_ms = 0;
    let mut drained = core.admin_drain.wait();
    // Where another generation or another process answers, the browser comes again, and finds that one.
    while !core.admin_drain.is_announced() && may_read() {
        let mut look = pin!(io::sleep_ms(EVENT_LOOK_MS));
        poll_fn(|cx| {
            let _ = drained.poll(cx); // wakes when it is announced, too
            if core.admin_drain.is_announced() { Poll::Ready(()) } else { look.as_mut().poll(cx) }
        })
        .await;
        if poll_fn(|cx| Poll::Ready(body.poll_gone(cx).is_ready())).await {
            return Err(Fault::ClientGone);
        }
        if owed.is_overdue(answer, clock::now()) {
            return Err(Fault::ClientGone);
        }
        quiet_ms += EVENT_LOOK_MS;
        if let Some((number, event)) = reader.look(seen) {
            (seen, quiet_ms) = (number, 0);
            give(answer, event, &mut owed).await?;
        } else if quiet_ms >= EVENT_BEAT_MS {
            quiet_ms = 0;
            give(answer, Bytes::from_static(b":\n\n"), &mut owed).await?;
        }
    }
    answer.put(Piece::End { trailers: None })
}

/// Since when a reader has taken nothing of what it was given, and what [`Sink::delivered`] said then. A small event is with the
/// kernel at once, and there thousands of them would find room, so this is what tells of a reader that does not read.
#[derive(Default)]
struct Owed(Option<(Option<u64>, Now)>);

impl Owed {
    fn is_given(&mut self, answer: &impl Sink, now: Now) {
        self.0.get_or_insert_with(|| (answer.delivered(), now));
    }

    fn is_overdue(&mut self, answer: &impl Sink, now: Now) -> bool {
        let Some((delivered, since)) = self.0 else { return false };
        if answer.delivered() != delivered {
            self.0 = None;
        }
        self.0.is_some() && now.ms_since(since) >= EVENT_TAKE_MS_MAX
    }
}

/// The whole piece is with the kernel, or the reader is gone.
async fn give(answer: &mut impl Sink, bytes: Bytes, owed: &mut Owed) -> Result<(), Fault> {
    owed.is_given(answer, clock::now());
    let taken = io::timeout(EVENT_TAKE_MS_MAX, async {
        poll_fn(|cx| answer.poll_ready(cx)).await?;
        answer.put(Piece::Data { bytes, last: false })?;
        poll_fn(|cx| answer.poll_flush(cx)).await
    });
    taken.await.unwrap_or(Err(Fault::ClientGone))
}
