//! Hot. What a worker offers its edge while a link lives: so many requests at once. The HTTP/2 engine has no call for it after its
//! handshake, so one SETTINGS frame is put between two of its frames, and the one ACK that answers it is taken out; and so is
//! the edge's GOAWAY, with which the engine would end a link that its edge still uses. What a frame carries beside that never enters.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncWrite, ReadBuf};

use crate::io::Duplex;
use crate::limits::LINK_FRAME_BYTES_MAX;
use crate::wire::frames::{ACK, FRAME_HEAD_BYTES, GOAWAY, PREFACE_BYTES, SETTINGS};
use crate::wire::{FrameHead, FrameScan};

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// One setting: its id and its value.
const SETTING_BYTES: usize = 6;
/// GOAWAY's last stream and its code (RFC 9113 §6.8).
const GOAWAY_BYTES: usize = 8;

/// Requests at once that a link is offered to carry. Whoever changes it wakes the link, which tells its edge.
pub struct Offer {
    streams: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

impl Offer {
    #[must_use]
    pub fn new(streams: u32) -> Offer {
        Offer { streams: Cell::new(streams), waker: RefCell::new(None) }
    }

    #[must_use]
    pub fn get(&self) -> u32 {
        self.streams.get()
    }

    /// From now on; 0 is a pause. What runs above it goes on.
    pub fn set(&self, streams: u32) {
        if self.streams.replace(streams) != streams
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Wakes the task that asked last.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// Whose SETTINGS the next ACK answers. There is never more than one without its ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    Nobodys,
    Engines,
    Ours,
}

/// Between the engine and the connection of a link.
pub(super) struct Offering {
    offer: Rc<Offer>,
    /// What the edge was told last.
    told: u32,
    unanswered: Unanswered,
    /// The engine's first SETTINGS, while it is not whole. It leaves with the offer in it.
    first: Option<Vec<u8>>,
    /// Where the engine's frames end.
    out: FrameScan,
    /// A frame that is ours, or was changed here, on its way.
    own: Vec<u8>,
    own_sent: usize,
    /// Bytes of the frame under way, or of the preface, that the engine still gets.
    passes: usize,
    /// Bytes of the frame under way that it does not get.
    drops: usize,
    has_goaway: bool,
    /// The offer is told once more behind the first ACK.
    repeats: bool,
}

impl Offering {
    /// `repeats`: the edge forgets what it was told before it has acknowledged it, as HAProxy does (3.0 takes no notice of what a
    /// device sends before the roles turn).
    pub fn new(offer: Rc<Offer>, repeats: bool) -> Offering {
        Offering {
            told: offer.get(),
            offer,
            unanswered: Unanswered::Nobodys,
            first: Some(Vec::new()),
            out: FrameScan::server(),
            own: Vec::new(),
            own_sent: 0,
            passes: PREFACE_BYTES,
            drops: 0,
            has_goaway: false,
            repeats,
        }
    }

    /// The edge said that it leaves (GOAWAY without an error). It may go on opening streams (RFC 9113 §6.8).
    pub fn has_goaway(&self) -> bool {
        self.has_goaway
    }

    // ---- what leaves ----

    pub fn poll_write(
        &mut self,
        inner: &mut Duplex,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = &mut self.first {
            let taken = collect(first, slices);
            if is_whole(first) {
                let mut frame = self.first.take().unwrap_or_default();
                self.told = self.offer.get();
                put_streams(&mut frame, self.told);
                self.own = frame;
                self.unanswered = Unanswered::Engines;
            }
            return Poll::Ready(Ok(taken));
        }
        ready!(self.poll_own(inner, cx))?;
        let taken = ready!(Pin::new(inner).poll_write_vectored(cx, slices))?;
        let mut left = taken;
        for slice in slices {
            let mut piece = &slice[..left.min(slice.len())];
            left -= piece.len();
            while self.out.next(&mut piece).is_some() {}
        }
        Poll::Ready(Ok(taken))
    }

    pub fn poll_flush(&mut self, inner: &mut Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(inner, cx))?;
        Pin::new(inner).poll_flush(cx)
    }

    /// Ready when nothing of ours waits: neither a frame under way, nor one that may leave now.
    fn poll_own(&mut self, inner: &mut Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.own_sent < self.own.len() {
                self.own_sent += ready!(Pin::new(&mut *inner).poll_write(cx, &self.own[self.own_sent..]))?;
            }
            self.own.clear();
            self.own_sent = 0;
            let streams = self.offer.get();
            let is_news = streams != self.told || self.repeats;
            let is_due = is_news && self.unanswered == Unanswered::Nobodys && self.first.is_none();
            if !is_due || !self.out.is_between_frames() {
                return Poll::Ready(Ok(())); // it is looked at again with the next frame, and with the ACK
            }
            self.own.extend_from_slice(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
            put_streams(&mut self.own, streams);
            (self.told, self.repeats) = (streams, false);
            self.unanswered = Unanswered::Ours;
        }
    }

    // ---- what comes ----

    pub fn poll_read(
        &mut self,
        inner: &mut Duplex,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            let buffer = inner.buffer();
            if self.drops > 0 && !buffer.is_empty() {
                let bytes = self.drops.min(buffer.len());
                inner.consume(bytes);
                self.drops -= bytes;
                continue;
            }
            if self.passes > 0 && !buffer.is_empty() {
                let bytes = self.passes.min(buffer.len()).min(into.remaining());
                into.put_slice(&buffer[..bytes]);
                inner.consume(bytes);
                self.passes -= bytes;
                if into.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.drops == 0 && self.passes == 0 && self.begin(buffer) {
                continue;
            }
            if into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if ready!(inner.poll_more(cx))? == 0 {
                // A frame that was cut is the engine's to judge, and then the end.
                let bytes = inner.buffer().len().min(into.remaining());
                into.put_slice(&inner.buffer()[..bytes]);
                inner.consume(bytes);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Looks at the frame that `buffer` begins with, and says where it goes. False: too little of it is there.
    fn begin(&mut self, buffer: &[u8]) -> bool {
        let Some(head) = FrameHead::read(buffer) else { return false };
        let payload_bytes = head.payload_bytes as usize;
        let bytes = FRAME_HEAD_BYTES + payload_bytes;
        let is_answer = head.kind == SETTINGS && head.flags & ACK != 0;
        if is_answer && std::mem::replace(&mut self.unanswered, Unanswered::Nobodys) == Unanswered::Ours {
            self.drops = bytes;
            return true;
        }
        let is_fit = (GOAWAY_BYTES..=LINK_FRAME_BYTES_MAX as usize).contains(&payload_bytes);
        if head.kind == GOAWAY && is_fit {
            let Some(code) = buffer.get(FRAME_HEAD_BYTES + 4..FRAME_HEAD_BYTES + GOAWAY_BYTES) else { return false };
            if code == [0; 4] {
                self.has_goaway = true;
                self.drops = bytes;
                return true;
            }
        }
        self.passes = bytes;
        true
    }
}

/// Takes bytes until a frame is whole; says how many.
fn collect(frame: &mut Vec<u8>, slices: &[IoSlice<'_>]) -> usize {
    let mut taken = 0;
    for slice in slices {
        let mut rest = &slice[..];
        while !rest.is_empty() && !is_whole(frame) {
            let bytes = (wanted(frame) - frame.len()).min(rest.len());
            frame.extend_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            taken += bytes;
        }
    }
    taken
}

/// Bytes of a frame's head, or, when that is there, of all of it.
fn wanted(frame: &[u8]) -> usize {
    FRAME_HEAD_BYTES + FrameHead::read(frame).map_or(0, |head| head.payload_bytes as usize)
}

fn is_whole(frame: &[u8]) -> bool {
    frame.len() >= FRAME_HEAD_BYTES && frame.len() == wanted(frame)
}

/// Puts the setting into a SETTINGS frame, in the place of one that is there.
fn put_streams(frame: &mut Vec<u8>, streams: u32) {
    let settings = frame[FRAME_HEAD_BYTES..].chunks_exact_mut(SETTING_BYTES);
    for setting in settings {
        if setting[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes() {
            return setting[2..].copy_from_slice(&streams.to_be_bytes());
        }
    }
    frame.extend_from_slice(&MAX_CONCURRENT_STREAMS.to_be_bytes());
    frame.extend_from_slice(&streams.to_be_bytes());
    // Some ten settings of six bytes: the length has one byte.
    debug_assert!(frame.len() - FRAME_HEAD_BYTES < 256);
    frame[2] = (frame.len() - FRAME_HEAD_BYTES) as u8;
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;

    use super::*;
    use crate::io::{self as core_io, Conn, Leaves};
    use crate::wire::frames::{DATA, END_HEADERS, HEADERS, PING};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&bytes[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// What an edge sends, and what of it the engine gets.
    fn conversation() -> (Vec<u8>, Vec<u8>) {
        let ack = frame(SETTINGS, ACK, 0, b"");
        let leaves = frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0and why");
        let breaks = frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x01");
        // Frames in a body are none.
        let body = frame(DATA, 0, 1, &[&ack[..], &leaves, &ack].concat());
        let first = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])].concat();
        let last = [body, frame(PING, 0, 0, b"01234567"), frame(HEADERS, END_HEADERS, 3, b"block"), breaks].concat();
        let sent = [&first[..], &ack, &leaves, &last, &ack].concat();
        // The second answer answers nothing of ours, so the engine judges it.
        let got = [&first[..], &last, &ack].concat();
        (sent, got)
    }

    /// Reads as an engine does, so many bytes at a time; the second part arrives by a read of its own.
    async fn read(parts: [&[u8]; 2], room: usize) -> (Vec<u8>, bool) {
        let (near, mut far) = UnixStream::pair().unwrap();
        let conn = Conn::from_fd(near.into(), Bytes::copy_from_slice(parts[0])).unwrap();
        far.write_all(parts[1]).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let mut inner = Duplex::new(conn, Leaves::Last);
        let mut offering = Offering::new(Rc::new(Offer::new(1)), false);
        offering.unanswered = Unanswered::Ours;
        let (mut got, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            let mut into = ReadBuf::new(&mut buffer);
            std::future::poll_fn(|cx| offering.poll_read(&mut inner, cx, &mut into)).await.unwrap();
            if into.filled().is_empty() {
                return (got, offering.has_goaway());
            }
            got.extend_from_slice(into.filled());
        }
    }

    #[test]
    fn the_engine_gets_all_but_what_is_ours_however_it_arrives() {
        let (sent, want) = conversation();
        core_io::run(|| async {
            for room in [1, 7, 4_096] {
                assert_eq!(read([&sent, b""], room).await, (want.clone(), true), "whole, {room} bytes at a time");
            }
            for cut in 0..sent.len() {
                let (got, has_goaway) = read([&sent[..cut], &sent[cut..]], 4_096).await;
                assert!(has_goaway && got == want, "cut {cut}: {got:?}");
            }
        })
        .unwrap();
    }

    #[test]
    fn a_frame_that_is_cut_by_the_end_is_the_engines_to_judge() {
        let (sent, _) = conversation();
        core_io::run(|| async {
            for cut in 0..sent.len() {
                // Nothing is lost but what is ours, and the end always comes.
                let (got, _) = read([&sent[..cut], b""], 4_096).await;
                assert!(got.len() <= cut, "cut {cut}");
            }
        })
        .unwrap();
    }

    #[test]
    fn the_offer_stands_in_the_first_settings_in_the_place_of_the_engines() {
        for (settings, want) in [
            (&[][..], &[0, 3, 0, 0, 0, 9][..]),
            (&[0, 3, 0, 1, 0, 0], &[0, 3, 0, 0, 0, 9]),
            (&[0, 4, 0, 0, 0, 7], &[0, 4, 0, 0, 0, 7, 0, 3, 0, 0, 0, 9]),
            (&[0, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7], &[0, 3, 0, 0, 0, 9, 0, 4, 0, 0, 0, 7]),
        ] {
            let whole = frame(SETTINGS, 0, 0, settings);
            let rest = frame(PING, 0, 0, b"01234567");
            for cut in 0..whole.len() {
                let mut first = Vec::new();
                let taken = collect(&mut first, &[IoSlice::new(&whole[..cut])]);
                assert!(taken == cut && !is_whole(&first), "cut {cut}");
                let taken = collect(&mut first, &[IoSlice::new(&whole[cut..]), IoSlice::new(&rest)]);
                assert!(taken == whole.len() - cut && is_whole(&first), "cut {cut}: no byte of the next frame");
                put_streams(&mut first, 9);
                assert_eq!(first, frame(SETTINGS, 0, 0, want));
            }
        }
    }
}
