//! Hot. Bodies over an HTTP/1.1 connection: a source over its reader, a sink over its writer. Heads are parsed and
//! written elsewhere (`wire`, `client`, `link`); only what stands between them enters here.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::{Length, Piece, Sink, Source};
use crate::fault::Fault;
use crate::io::{Hold, Leaves, Reader, Writer};
use crate::limits::{
    GATHER_BYTES_MAX, READ_AHEAD_BYTES_MAX, READ_BYTES_SMALL, TAKE_COPY_BYTES_MAX, WRITE_COPY_BYTES_MAX,
};
use crate::wire::{self, BodyDecoder, BodyPlan, Found, Side};

/// A body that arrives.
pub struct H1Source<'a> {
    reader: &'a mut Reader,
    decoder: BodyDecoder,
    side: Side,
    is_ended: bool,
    /// The end, met while small pieces were gathered in front of it.
    end: Option<Option<HeaderMap>>,
}

impl<'a> H1Source<'a> {
    /// `side` is who sends: its malformed bytes and its leaving are its fault.
    pub fn new(reader: &'a mut Reader, plan: BodyPlan, side: Side) -> Self {
        let mut source =
            H1Source { reader, decoder: BodyDecoder::new(BodyPlan::Empty, side), side, is_ended: false, end: None };
        source.plan(plan);
        source
    }

    /// What the head said about the body, where it became known after [`H1Source::new`].
    pub fn plan(&mut self, plan: BodyPlan) {
        self.decoder = BodyDecoder::new(plan, self.side);
        self.is_ended = matches!(plan, BodyPlan::Empty | BodyPlan::Exact { bytes: 0 });
        let is_large = match plan {
            BodyPlan::Empty => false,
            BodyPlan::Exact { bytes } => bytes > READ_BYTES_SMALL as u64,
            BodyPlan::Chunked | BodyPlan::UntilClose => true,
        };
        self.reader.large(is_large);
    }

    /// The last byte of the body was taken.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Bytes of the body that were not taken; `None` where only its end will tell.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Bytes that arrived and were not taken.
    #[must_use]
    pub fn read_ahead(&self) -> usize {
        self.reader.buffer().len()
    }

    pub fn reader(&mut self) -> &mut Reader {
        self.reader
    }

    /// Ready once the peer has ended its side. Reads ahead a little; what stands beyond that stays in the kernel.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.reader.buffer().len() < READ_AHEAD_BYTES_MAX {
            match ready!(self.reader.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        // No read is in flight that could tell: ask the socket itself whenever somebody looks.
        if self.reader.peer_gone() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Small chunks that arrived together, as one piece: each would else cost its own frame, and far more memory than its
    /// bytes wherever it waits.
    fn gather(&mut self, first_bytes: usize) -> Result<Piece, Fault> {
        let mut gathered = Vec::with_capacity(self.reader.buffer().len().min(GATHER_BYTES_MAX));
        let mut bytes = first_bytes;
        loop {
            gathered.extend_from_slice(&self.reader.buffer()[..bytes]);
            self.reader.consume(bytes);
            if gathered.len() >= GATHER_BYTES_MAX {
                break;
            }
            let step = self.decoder.step(self.reader.buffer())?;
            self.reader.consume(step.skip);
            match step.found {
                Found::Data { bytes: more } => bytes = more,
                Found::End { trailers } => {
                    self.end = Some(trailers);
                    break;
                }
                Found::NeedMore => break,
            }
        }
        Ok(Piece::Data { bytes: Bytes::from(gathered), last: false })
    }

    #[cold]
    fn gone(&self) -> Fault {
        match self.side {
            Side::Request => Fault::ClientGone,
            Side::Response => Fault::LinkLost,
        }
    }
}

impl Source for H1Source<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        if let Some(trailers) = self.end.take() {
            self.is_ended = true;
            return Poll::Ready(Ok(Piece::End { trailers }));
        }
        loop {
            let step = self.decoder.step(self.reader.buffer())?;
            self.reader.consume(step.skip);
            match step.found {
                Found::Data { bytes } => {
                    let is_small = bytes < TAKE_COPY_BYTES_MAX && self.reader.buffer().len() > bytes;
                    if is_small && !self.decoder.is_ended() {
                        return Poll::Ready(self.gather(bytes));
                    }
                    let bytes = self.reader.take(bytes);
                    self.is_ended = self.decoder.is_ended();
                    return Poll::Ready(Ok(Piece::Data { bytes, last: self.is_ended }));
                }
                Found::End { trailers } => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(Piece::End { trailers }));
                }
                Found::NeedMore => match ready!(self.reader.poll_fill(cx)) {
                    Ok(0) if self.decoder.at_eof().is_ok() => {
                        self.is_ended = true;
                        return Poll::Ready(Ok(Piece::End { trailers: None }));
                    }
                    Ok(0) | Err(_) => return Poll::Ready(Err(self.gone())),
                    Ok(_) => {}
                },
            }
        }
    }
}

/// How a body is framed on its way out.
///
/// ```text
/// Nothing | Exact | Chunked --last piece--> Ended
/// UntilClose --last piece--> Closing --all flushed--> Shut
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// No body may follow the head.
    Nothing,
    Exact {
        left: u64,
    },
    Chunked,
    /// Raw bytes; the end of the connection's side is the end of the body.
    UntilClose,
    Ended,
    /// Our side of the connection ends as soon as the kernel has all.
    Closing,
    Shut,
}

impl Frame {
    /// Chunks where the length is not known; a peer that cannot read chunks gets the close.
    #[must_use]
    pub fn of(length: Length, chunks: bool) -> Frame {
        match length {
            Length::None => Frame::Nothing,
            Length::Exact(left) => Frame::Exact { left },
            Length::Unknown if chunks => Frame::Chunked,
            Length::Unknown => Frame::UntilClose,
        }
    }
}

/// A body that leaves.
pub struct H1Sink<'a> {
    pub writer: &'a mut Writer,
    frame: Frame,
    side: Side,
    hold: Hold,
    /// A whole message leaves at once.
    hurries: bool,
}

impl<'a> H1Sink<'a> {
    /// `side` is what is written here: a request to a worker, or a response to a client.
    pub fn new(writer: &'a mut Writer, frame: Frame, side: Side) -> Self {
        let leaves = match side {
            Side::Request => Leaves::First,
            Side::Response => Leaves::Last,
        };
        H1Sink { writer, frame, side, hold: Hold::new(leaves), hurries: false }
    }

    /// A whole message leaves when it is flushed, and not at the end of the turn: its reader is idle.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    pub fn set_frame(&mut self, frame: Frame) {
        self.frame = frame;
    }

    /// The message was ended as its frame wants it, so that another may follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.frame, Frame::Nothing | Frame::Ended | Frame::Exact { left: 0 })
    }

    fn put_data(&mut self, bytes: Bytes, last: bool) -> Result<(), Fault> {
        match &mut self.frame {
            Frame::Exact { left } => {
                let Some(rest) = left.checked_sub(bytes.len() as u64) else { return Err(self.wrong_length()) };
                *left = rest;
                if last && rest > 0 {
                    return Err(self.wrong_length());
                }
                self.writer.put_bytes(bytes);
            }
            Frame::Chunked => {
                // An empty chunk would be the last one (RFC 9112 §7.1).
                if !bytes.is_empty() {
                    wire::put_chunk(self.writer.buf(), bytes.len());
                    self.writer.put_bytes(bytes);
                    wire::put_chunk_end(self.writer.buf());
                }
                if last {
                    wire::put_last_chunk(self.writer.buf(), None);
                }
            }
            Frame::UntilClose => self.writer.put_bytes(bytes),
            Frame::Nothing | Frame::Ended | Frame::Closing | Frame::Shut => {
                if !bytes.is_empty() {
                    return Err(self.wrong_length());
                }
            }
        }
        if last {
            self.end();
        }
        Ok(())
    }

    fn end(&mut self) {
        self.frame = match self.frame {
            Frame::UntilClose | Frame::Closing => Frame::Closing,
            Frame::Shut => Frame::Shut,
            Frame::Nothing | Frame::Exact { .. } | Frame::Chunked | Frame::Ended => Frame::Ended,
        };
    }

    /// The body does not keep what its head promised: whoever sent it is to blame.
    #[cold]
    fn wrong_length(&self) -> Fault {
        match self.side {
            Side::Request => Fault::ClientMalformed("the body's length is not what the head said"),
            Side::Response => Fault::WorkerMalformed("the body's length is not what the head said"),
        }
    }

    #[cold]
    fn gone(&self) -> Fault {
        match self.side {
            Side::Request => Fault::LinkLost,
            Side::Response => Fault::ClientGone,
        }
    }
}

impl Sink for H1Sink<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !self.writer.is_high() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        match piece {
            Piece::Data { bytes, last } => self.put_data(bytes, last),
            Piece::End { trailers } => {
                self.put_end(trailers.as_ref())?;
                self.end();
                Ok(())
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let queued = self.writer.queued();
        let leaves_now = self.hurries && self.is_complete();
        if queued > 0 && queued < WRITE_COPY_BYTES_MAX && !leaves_now && !self.writer.is_stuck() {
            ready!(self.hold.poll(cx));
        }
        let flushed = ready!(self.writer.poll_flush(cx));
        if flushed.is_err() {
            return Poll::Ready(Err(self.gone()));
        }
        if self.frame == Frame::Closing {
            // A peer that is gone already does not need the end of its stream.
            let _ = ready!(self.writer.poll_shutdown(cx));
            self.frame = Frame::Shut;
        }
        Poll::Ready(Ok(()))
    }

    fn delivered(&self) -> Option<u64> {
        Some(self.writer.delivered())
    }
}

impl H1Sink<'_> {
    fn put_end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Fault> {
        match self.frame {
            Frame::Exact { left } if left > 0 => Err(self.wrong_length()),
            Frame::Chunked => {
                wire::put_last_chunk(self.writer.buf(), trailers);
                Ok(())
            }
            Frame::Exact { .. } | Frame::UntilClose | Frame::Nothing | Frame::Ended | Frame::Closing | Frame::Shut => {
                Ok(())
            }
        }
    }
}
