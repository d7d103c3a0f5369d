//! Hot. Bodies over an HTTP/2 stream: a source over its receive half, a sink over its send half. Heads, resets and the
//! connection itself are the shells' (`client`, `link`); only DATA and trailers enter here.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::{Piece, Sink, Source};
use crate::fault::Fault;
use crate::wire::Side;

/// A body that arrives. Flow control follows whoever reads: a piece is credited back to the peer when it was taken.
pub struct H2Source {
    stream: Option<RecvStream>,
    side: Side,
    data_is_over: bool,
    is_ended: bool,
}

impl H2Source {
    /// `side` is who sends.
    #[must_use]
    pub fn new(stream: RecvStream, side: Side) -> Self {
        H2Source { stream: Some(stream), side, data_is_over: false, is_ended: false }
    }

    /// A source whose stream is not there yet.
    #[must_use]
    pub fn waiting(side: Side) -> Self {
        H2Source { stream: None, side, data_is_over: false, is_ended: false }
    }

    /// Nothing followed the head.
    #[must_use]
    pub fn has_ended_with_its_head(&self) -> bool {
        self.stream.as_ref().is_some_and(RecvStream::is_end_stream)
    }

    /// Nothing of it is to come, or its stream is no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_ended || self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// Bytes that have arrived and were not taken.
    #[must_use]
    pub fn held_bytes(&mut self) -> usize {
        self.stream.as_mut().map_or(0, |stream| stream.flow_control().used_capacity())
    }

    #[cold]
    fn fault_of(&self, error: &h2::Error) -> Fault {
        match self.side {
            // h2 itself refuses a body that breaks its content-length (RFC 9113 §8.1.1) with PROTOCOL_ERROR.
            Side::Request => Fault::ClientGone,
            Side::Response if error.is_library() => Fault::WorkerMalformed("the response breaks HTTP/2"),
            Side::Response if error.is_reset() => Fault::WorkerReset,
            Side::Response => Fault::LinkLost,
        }
    }
}

impl Source for H2Source {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        if !self.data_is_over {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    self.is_ended = stream.is_end_stream();
                    // A stream that ended gives its window back when it is dropped.
                    if !self.is_ended {
                        let released = stream.flow_control().release_capacity(bytes.len());
                        debug_assert!(released.is_ok(), "what was received can be released");
                    }
                    return Poll::Ready(Ok(Piece::Data { bytes, last: self.is_ended }));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.fault_of(&error))),
                None => self.data_is_over = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx));
        match trailers {
            Ok(trailers) => {
                self.is_ended = true;
                Poll::Ready(Ok(Piece::End { trailers }))
            }
            Err(error) => Poll::Ready(Err(self.fault_of(&error))),
        }
    }
}

/// A body that leaves. Holds one piece until the stream's window takes it.
pub struct H2Sink {
    stream: Option<SendStream<Bytes>>,
    side: Side,
    waiting: Option<Piece>,
    is_ended: bool,
    /// Bytes that the stream's window, and the engine's buffer, took. A peer may give its window back in large steps: half
    /// of it is common (RFC 9113 §6.9.1 leaves it to the receiver).
    taken: u64,
}

impl H2Sink {
    /// `side` is what is written here.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>, side: Side) -> Self {
        H2Sink { stream: Some(stream), side, waiting: None, is_ended: false, taken: 0 }
    }

    /// A sink of a message without a body, or whose stream is not there yet.
    #[must_use]
    pub fn closed(side: Side) -> Self {
        H2Sink { stream: None, side, waiting: None, is_ended: true, taken: 0 }
    }

    pub fn stream(&mut self) -> Option<&mut SendStream<Bytes>> {
        self.stream.as_mut()
    }

    /// Ends the stream without its end, so that the peer never takes it for complete.
    pub fn reset(&mut self, reason: Reason) {
        if let (Some(stream), false) = (&mut self.stream, self.is_ended) {
            stream.send_reset(reason);
            self.is_ended = true;
        }
    }

    #[cold]
    fn gone(&self) -> Fault {
        match self.side {
            Side::Request => Fault::LinkLost,
            Side::Response => Fault::ClientGone,
        }
    }

    /// Hands the waiting piece to the engine as far as the windows allow.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(mut piece) = self.waiting.take() else { return Poll::Ready(Ok(())) };
        let gone = match self.side {
            Side::Request => Fault::LinkLost,
            Side::Response => Fault::ClientGone,
        };
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone)) };
        if let Piece::Data { bytes, last } = &mut piece {
            while !bytes.is_empty() {
                stream.reserve_capacity(bytes.len());
                if stream.capacity() == 0 {
                    match stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(gone)),
                        Poll::Pending => {
                            self.waiting = Some(piece);
                            return Poll::Pending;
                        }
                    }
                }
                let now = stream.capacity().min(bytes.len());
                if now == 0 {
                    continue; // the wake was for a capacity that is gone again; poll_capacity waits on
                }
                let head = bytes.split_to(now);
                let ends = *last && bytes.is_empty();
                self.taken += now as u64;
                stream.send_data(head, ends).map_err(|_| gone)?;
            }
            self.is_ended = *last;
            return Poll::Ready(Ok(()));
        }
        self.is_ended = true;
        if let Piece::End { trailers } = piece {
            let sent = match trailers {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
            sent.map_err(|_| gone)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink for H2Sink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_push(cx)
    }

    fn put(&mut self, piece: Piece) -> Result<(), Fault> {
        debug_assert!(self.waiting.is_none(), "put without poll_ready");
        if self.is_ended {
            let is_empty = match &piece {
                Piece::Data { bytes, .. } => bytes.is_empty(),
                Piece::End { .. } => true,
            };
            return if is_empty { Ok(()) } else { Err(self.gone()) };
        }
        self.waiting = Some(match piece {
            // Nothing to reserve for: an empty last piece is the end itself.
            Piece::Data { bytes, last: true } if bytes.is_empty() => Piece::End { trailers: None },
            piece => piece,
        });
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // The engine's own buffer is bounded (STREAM_SEND_BYTES_MAX) and its connection task writes it.
        self.poll_push(cx)
    }

    fn delivered(&self) -> Option<u64> {
        Some(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::io::{self, Conn, Duplex, Leaves};

    fn duplex(end: UnixStream) -> Duplex {
        Duplex::new(Conn::from_fd(end.into(), Bytes::new()).unwrap(), Leaves::Last)
    }

    #[test]
    fn a_sink_tells_how_much_of_a_piece_the_window_took() {
        let (near, far) = UnixStream::pair().unwrap();
        let told = async {
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(4);
            let (mut send, connection) = h2::client::handshake(duplex(near)).await.unwrap();
            io::spawn(async { drop(connection.await) });
            let mut server = builder.handshake::<_, Bytes>(duplex(far)).await.unwrap();
            let (_response, stream) =
                send.send_request(http::Request::post("http://h/").body(()).unwrap(), false).unwrap();
            let (request, _respond) = server.accept().await.unwrap().unwrap();
            io::spawn(async move { drop(server.accept().await) });
            let mut body = request.into_body();

            let mut sink = H2Sink::new(stream, Side::Request);
            let bytes = Bytes::from_static(b"ten bytes!");
            sink.put(Piece::Data { bytes, last: true }).unwrap();
            let mut took = Vec::new();
            let mut read = 0;
            while read < 10 {
                let piece = std::future::poll_fn(|cx| {
                    if sink.poll_flush(cx).is_pending() && took.last() != Some(&sink.delivered()) {
                        took.push(sink.delivered());
                    }
                    body.poll_data(cx)
                });
                let bytes = piece.await.unwrap().unwrap().len();
                body.flow_control().release_capacity(bytes).unwrap();
                read += bytes;
            }
            assert_eq!((sink.delivered(), sink.is_ended), (Some(10), true));
            took
        };
        let took = io::run(|| io::timeout(30_000, told)).unwrap().expect("it hangs");
        assert!(took.contains(&Some(4)) && took.contains(&Some(8)), "{took:?}");
    }
}
