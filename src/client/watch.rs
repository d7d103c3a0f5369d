//! Hot. What an HTTP/2 client does to its connection beside asking: frames by kind against budgets that refill with time and
//! with what the client reads, how long a header block has been open, and whether the client reads at all. Requests and
//! what follows from all of this never enter.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::offer::Offering;
use crate::clock::{self, Now};
use crate::events::{Flood, Label};
use crate::io::Duplex;
use crate::limits::{
    CONTROL_FRAME_PAID_BYTES, CONTROL_FRAMES_BURST, CONTROL_FRAMES_PAID_MAX, CONTROL_FRAMES_PER_S, RARE_FRAMES_BURST,
    RARE_FRAMES_PER_S, RESET_FRAME_PAID_REQUESTS, RESET_FRAMES_BURST, RESET_FRAMES_PER_S,
};
use crate::wire::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::wire::{FrameHead, FrameScan};

/// What is known of a connection from outside of the engine.
#[derive(Default)]
pub struct Watch {
    flood: Cell<Option<Flood>>,
    block_since: Cell<Option<Now>>,
    written: Cell<u64>,
    is_stuck: Cell<bool>,
    peer_leaves: Cell<bool>,
    pongs: Cell<u32>,
}

impl Watch {
    /// An edge said that it leaves (GOAWAY), though it may still send requests.
    pub fn peer_leaves(&self) -> bool {
        self.peer_leaves.get()
    }

    /// There were too many frames of this kind; nothing is read any more.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// Since when a header block has been open.
    pub fn block_since(&self) -> Option<Now> {
        self.block_since.get()
    }

    /// Bytes that the engine has written.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Answers to PING that a client has sent: it has read what was sent before that.
    pub fn pongs(&self) -> u32 {
        self.pongs.get()
    }

    /// The socket takes no more of them now.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }
}

/// A connection under the engine that is watched.
pub struct Watched {
    inner: Duplex,
    watch: Rc<Watch>,
    /// `None`: its frames are not counted.
    meter: Option<Meter>,
    /// The other end is an edge.
    offering: Option<Offering>,
}

impl Watched {
    /// A client, whose frames are counted.
    pub fn client(inner: Duplex, watch: Rc<Watch>, meter: Meter) -> Watched {
        Watched { inner, watch, meter: Some(meter), offering: None }
    }

    /// An edge, which is told what this worker takes.
    pub fn edge(inner: Duplex, watch: Rc<Watch>, offering: Offering) -> Watched {
        Watched { inner, watch, meter: None, offering: Some(offering) }
    }

    fn wrote<T>(&self, result: &Poll<io::Result<T>>) {
        self.watch.is_stuck.set(result.is_pending());
    }

    fn took(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.wrote(&result);
        if let Poll::Ready(Ok(bytes)) = &result {
            let bytes = *bytes as u64;
            self.watch.written.set(self.watch.written.get() + bytes);
            if let Some(meter) = &mut self.meter {
                meter.paid(bytes);
            }
        }
        result
    }
}

impl AsyncRead for Watched {
    /// After a flood nothing comes any more, and nobody is woken: whoever polls the engine looks at [`Watch::flood`] next.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Watched { inner, watch, meter, offering } = self.get_mut();
        if let Some(offering) = offering {
            let read = offering.poll_read(inner, cx, into);
            watch.peer_leaves.set(offering.has_goaway());
            return read;
        }
        if watch.flood.get().is_some() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        ready!(Pin::new(inner).poll_read(cx, into))?;
        if let Some(meter) = meter {
            if let Err(flood) = meter.see(&into.filled()[before..], clock::now()) {
                into.set_filled(before);
                watch.flood.set(Some(flood));
                return Poll::Pending;
            }
            watch.block_since.set(meter.block_since);
            watch.pongs.set(meter.pongs);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let taken = match &mut this.offering {
            Some(offering) => offering.poll_write(&mut this.inner, cx, &[IoSlice::new(bytes)]),
            None => Pin::new(&mut this.inner).poll_write(cx, bytes),
        };
        this.took(taken)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let taken = match &mut this.offering {
            Some(offering) => offering.poll_write(&mut this.inner, cx, slices),
            None => Pin::new(&mut this.inner).poll_write_vectored(cx, slices),
        };
        this.took(taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.offering {
            Some(offering) => offering.poll_flush(&mut this.inner, cx),
            None => Pin::new(&mut this.inner).poll_flush(cx),
        };
        this.wrote(&flushed);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The kinds that are counted here; the engine's own bounds are its own.
const COUNTED: [Flood; 8] = [
    Flood::EmptyData,
    Flood::Priority,
    Flood::RstStream,
    Flood::Settings,
    Flood::Ping,
    Flood::WindowUpdate,
    Flood::Continuation,
    Flood::Unknown,
];

/// What time alone allows.
#[derive(Clone, Copy)]
struct Terms {
    burst: u32,
    per_s: u32,
}

fn terms_of(kind: Flood) -> Terms {
    let (burst, per_s) = match kind {
        Flood::Settings | Flood::EmptyData => (RARE_FRAMES_BURST, RARE_FRAMES_PER_S),
        Flood::RstStream => (RESET_FRAMES_BURST, RESET_FRAMES_PER_S),
        _ => (CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_S),
    };
    Terms { burst, per_s }
}

/// Frames of one kind that may still come.
#[derive(Clone, Copy)]
struct Bucket {
    left: u32,
    /// Up to when time has refilled it.
    filled: Now,
}

impl Bucket {
    /// False: it is empty.
    fn take(&mut self, terms: Terms, now: Now) -> bool {
        let per_s = u64::from(terms.per_s);
        let due = now.ms_since(self.filled).saturating_mul(per_s) / 1_000;
        if due > 0 {
            self.filled = self.filled.plus_ms(due * 1_000 / per_s);
            // What is paid for in advance may stand above the burst; time adds nothing there.
            let room = terms.burst.saturating_sub(self.left);
            self.left += u32::try_from(due).unwrap_or(u32::MAX).min(room);
        }
        let has_some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_some
    }
}

/// Counts a client's frames.
pub struct Meter {
    scan: FrameScan,
    /// By [`Flood`].
    buckets: [Bucket; Flood::NAMES.len()],
    /// Written bytes that have not paid for anything yet.
    bytes: u64,
    /// Requests that have not paid for anything yet.
    requests: u64,
    block_since: Option<Now>,
    pongs: u32,
}

impl Meter {
    /// For a client whose preface has not been read yet.
    pub fn new(now: Now) -> Meter {
        let mut buckets = [Bucket { left: 0, filled: now }; Flood::NAMES.len()];
        for kind in COUNTED {
            buckets[kind.index()].left = terms_of(kind).burst;
        }
        Meter { scan: FrameScan::client(), buckets, bytes: 0, requests: 0, block_since: None, pongs: 0 }
    }

    /// Counts the frames that begin in `bytes`, the next ones that arrived.
    ///
    /// # Errors
    /// The first kind whose budget is used up.
    fn see(&mut self, mut bytes: &[u8], now: Now) -> Result<(), Flood> {
        let (mut has_begun, mut seen) = (false, Ok(()));
        while let Some(head) = self.scan.next(&mut bytes) {
            match kind_of(head) {
                None if head.kind == HEADERS => {
                    has_begun = true;
                    self.asked();
                }
                None => {}
                Some(kind) => {
                    let is_pong = head.kind == PING && head.flags & ACK != 0;
                    self.pongs = self.pongs.wrapping_add(u32::from(is_pong));
                    let has_some = self.buckets[kind.index()].take(terms_of(kind), now);
                    seen = seen.and(has_some.then_some(()).ok_or(kind));
                }
            }
        }
        self.block_since = match (self.scan.is_in_block(), has_begun) {
            (false, _) => None,
            (true, true) => Some(now),
            // A slow byte does not renew it.
            (true, false) => self.block_since.or(Some(now)),
        };
        seen
    }

    /// So many bytes were written to the client.
    fn paid(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes < CONTROL_FRAME_PAID_BYTES {
            return;
        }
        let frames = u32::try_from(self.bytes / CONTROL_FRAME_PAID_BYTES).unwrap_or(u32::MAX);
        self.bytes %= CONTROL_FRAME_PAID_BYTES;
        for kind in [Flood::Ping, Flood::WindowUpdate] {
            let left = &mut self.buckets[kind.index()].left;
            *left = left.saturating_add(frames).min(CONTROL_FRAMES_PAID_MAX);
        }
    }

    /// The client has sent a request, or trailers. With it may come a word on its priority (RFC 9218 §7.1), or a frame of a
    /// kind that nobody knows.
    fn asked(&mut self) {
        for kind in [Flood::Priority, Flood::Unknown] {
            let left = &mut self.buckets[kind.index()].left;
            *left = (*left + 1).min(terms_of(kind).burst);
        }
        self.requests += 1;
        if self.requests < RESET_FRAME_PAID_REQUESTS {
            return;
        }
        self.requests = 0;
        let left = &mut self.buckets[Flood::RstStream.index()].left;
        *left = (*left + 1).min(RESET_FRAMES_BURST);
    }
}

/// Whose budget a frame is on. `None`: it is a request or a part of a body, which are bounded elsewhere.
fn kind_of(head: FrameHead) -> Option<Flood> {
    match head.kind {
        DATA if head.payload_bytes == 0 && head.flags & END_STREAM == 0 => Some(Flood::EmptyData),
        DATA | HEADERS => None,
        PRIORITY => Some(Flood::Priority),
        RST_STREAM => Some(Flood::RstStream),
        SETTINGS => Some(Flood::Settings),
        PING => Some(Flood::Ping),
        WINDOW_UPDATE => Some(Flood::WindowUpdate),
        CONTINUATION => Some(Flood::Continuation),
        _ => Some(Flood::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frames::{END_HEADERS, PUSH_PROMISE};

    const ACK: u8 = 1;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&bytes[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// After the preface.
    fn meter() -> Meter {
        let mut meter = Meter::new(Now(0));
        assert_eq!(meter.see(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Now(0)), Ok(()));
        meter
    }

    /// How many of them pass at one moment.
    fn passes(meter: &mut Meter, frame: &[u8], now: Now) -> u32 {
        (0..).find(|_| meter.see(frame, now).is_err()).unwrap()
    }

    #[test]
    fn each_kind_has_its_own_budget_which_time_refills() {
        let cases: &[(u8, u8, &[u8], Flood)] = &[
            (DATA, 0, b"", Flood::EmptyData),
            (PRIORITY, 0, &[0; 5], Flood::Priority),
            (RST_STREAM, 0, &[0; 4], Flood::RstStream),
            (SETTINGS, 0, b"", Flood::Settings),
            (SETTINGS, ACK, b"", Flood::Settings),
            (PUSH_PROMISE, END_HEADERS, b"", Flood::Unknown),
            (PING, 0, &[0; 8], Flood::Ping),
            (PING, ACK, &[0; 8], Flood::Ping),
            (7, 0, &[0; 8], Flood::Unknown),
            (WINDOW_UPDATE, 0, &[0; 4], Flood::WindowUpdate),
            (CONTINUATION, 0, b"", Flood::Continuation),
            (16, 0, b"priority update", Flood::Unknown),
            (255, 255, b"", Flood::Unknown),
        ];
        for (kind, flags, payload, flood) in cases {
            let (mut meter, bytes, terms) = (meter(), frame(*kind, *flags, payload), terms_of(*flood));
            assert_eq!(passes(&mut meter, &bytes, Now(0)), terms.burst, "{flood:?}");
            assert_eq!(meter.see(&bytes, Now(0)), Err(*flood));
            let after = Now(0).plus_ms(1_000);
            assert_eq!(passes(&mut meter, &bytes, after), terms.per_s, "{flood:?}");
            assert_eq!(passes(&mut meter, &bytes, after.plus_ms(3_600_000)), terms.burst, "{flood:?}, an hour later");
            for other in COUNTED.into_iter().filter(|other| other != flood) {
                assert_eq!(meter.buckets[other.index()].left, terms_of(other).burst, "{flood:?} on {other:?}'s budget");
            }
        }
    }

    #[test]
    fn a_second_of_frames_in_small_steps_is_a_second_of_frames() {
        let (mut meter, ping) = (meter(), frame(PING, 0, &[0; 8]));
        passes(&mut meter, &ping, Now(0));
        let passed: u32 = (1..=1_000).map(|ms| passes(&mut meter, &ping, Now(0).plus_ms(ms))).sum();
        assert_eq!(passed, CONTROL_FRAMES_PER_S);
    }

    #[test]
    fn requests_and_their_bodies_are_on_nobodys_budget() {
        let mut meter = meter();
        for _ in 0..10_000 {
            let request = frame(HEADERS, END_HEADERS, b"block");
            let body = [frame(DATA, 0, b"x"), frame(DATA, END_STREAM, b"")].concat();
            assert_eq!(meter.see(&[request, body].concat(), Now(0)), Ok(()));
        }
    }

    #[test]
    fn whoever_reads_may_give_windows_back_and_no_more_than_that() {
        let (mut meter, update) = (meter(), frame(WINDOW_UPDATE, 0, &[0; 4]));
        for _ in 0..100_000 {
            // Two for a DATA frame of a hundred bytes; its head is written with it.
            meter.paid(109);
            assert_eq!(meter.see(&[&update[..], &update].concat(), Now(0)), Ok(()));
        }
        meter.paid(1 << 40);
        assert_eq!(passes(&mut meter, &update, Now(0)), CONTROL_FRAMES_PAID_MAX);
        assert_eq!(passes(&mut meter, &frame(SETTINGS, 0, b""), Now(0)), RARE_FRAMES_BURST);
        assert_eq!(passes(&mut meter, &frame(RST_STREAM, 0, &[0; 4]), Now(0)), RESET_FRAMES_BURST);
    }

    #[test]
    fn a_pong_does_not_pay_for_its_ping() {
        let (mut meter, ping) = (meter(), frame(PING, 0, &[0; 8]));
        let mut pings = 0;
        while meter.see(&ping, Now(0)).is_ok() {
            meter.paid(ping.len() as u64);
            pings += 1;
        }
        assert!((CONTROL_FRAMES_BURST..2 * CONTROL_FRAMES_BURST).contains(&pings), "{pings}");
    }

    #[test]
    fn a_quarter_of_all_requests_may_be_given_up_and_not_all_of_them() {
        let (request, reset) = (frame(HEADERS, END_HEADERS, b"block"), frame(RST_STREAM, 0, &[0; 4]));
        let mut busy = meter();
        for _ in 0..10_000 {
            assert_eq!(busy.see(&[&request.repeat(4)[..], &reset].concat(), Now(0)), Ok(()));
        }
        let mut rapid = meter();
        let pairs = passes(&mut rapid, &[request, reset].concat(), Now(0));
        assert!((RESET_FRAMES_BURST..2 * RESET_FRAMES_BURST).contains(&pairs), "{pairs}");
    }

    #[test]
    fn a_header_block_is_open_from_its_first_byte_and_a_slow_byte_does_not_renew_it() {
        let at = |ms| Now(0).plus_ms(ms);
        let mut meter = meter();
        let head = [frame(HEADERS, 0, b"some"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, END_HEADERS, b"end")]
            .concat();
        for (index, byte) in head.iter().enumerate() {
            assert_eq!(meter.see(&[*byte], at(index as u64)), Ok(()));
            // A frame's kind is known with the last byte of its head.
            let want = (8..head.len() - 1).contains(&index).then(|| at(8));
            assert_eq!(meter.block_since, want, "after byte {index}");
        }
        let whole = frame(HEADERS, END_HEADERS, b"block");
        assert_eq!(meter.see(&[&whole[..], &whole[..12]].concat(), at(100)), Ok(()));
        assert_eq!(meter.block_since, Some(at(100)));
        assert_eq!(meter.see(&[&whole[12..], &whole[..12]].concat(), at(200)), Ok(()));
        assert_eq!(meter.block_since, Some(at(200)), "this is the next one");
        assert_eq!(meter.see(&whole[12..], at(300)), Ok(()));
        assert_eq!(meter.block_since, None);
        assert_eq!(meter.see(&frame(DATA, 0, b"data")[..11], at(400)), Ok(()));
        assert_eq!(meter.block_since, None, "a body is on another clock");
    }
}
