//! A connection as tokio's traits want it, for the h2 engine. It adds no buffer of its own.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Conn;
use super::timer::Timer;
use super::turn::{Hold, Leaves};
use crate::clock;
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS_MAX, READ_BYTES_SMALL};

/// Reads copy out of the reader's buffer. What is written queues, and goes out together at the end of the turn in which
/// it was flushed; large pieces go to the kernel at once and without a copy.
pub struct Duplex {
    conn: Conn,
    hold: Hold,
    /// Reads are large only while much comes.
    is_thrifty: bool,
    /// After our FIN: until when the peer's is waited for, and what was thrown away meanwhile.
    linger: Option<(Timer, usize)>,
    /// Bytes that the engine writes first and that are not sent.
    unsaid: usize,
    aside: Option<Aside>,
    sent: Option<Sent>,
    /// Of one whose `sent` is told: its peer has ended, or it failed.
    is_over: bool,
}

/// How many bytes of a connection the kernel has taken, for somebody who does not have it: when the engine last read or wrote, and
/// for ever where the peer has ended its side, or either has failed. What waits then is never written: who looks here has
/// taken it for unsent by that time, and has sent it elsewhere.
#[derive(Clone, Default)]
pub struct Sent(Rc<Cell<u64>>);

impl Sent {
    /// Only whether it has moved means something.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }
}

/// Says something between two frames of the engine, which knows nothing of it: whole frames only. It leaves when the engine is
/// polled next.
#[derive(Clone, Default)]
pub struct Aside(Rc<Cell<&'static [u8]>>);

impl Aside {
    /// Takes the place of what was said last, if that has not left yet.
    pub fn say(&self, frames: &'static [u8]) {
        self.0.set(frames);
    }
}

impl Duplex {
    /// `leaves`: before what other connections write in the same turn, or behind it.
    #[must_use]
    pub fn new(mut conn: Conn, leaves: Leaves) -> Duplex {
        // Many streams' frames arrive in one read. Small reads cut them, and each piece costs its stream another wake and
        // its client another segment: 16 us of CPU for each request in the edge instead of 12 (64 clients, 1 KiB).
        conn.reader.large(true);
        Duplex {
            conn,
            hold: Hold::new(leaves),
            is_thrifty: false,
            linger: None,
            unsaid: 0,
            aside: None,
            sent: None,
            is_over: false,
        }
    }

    /// For one of many connections, most of which are idle: a read waits with a small buffer, and a large one follows a read
    /// that brought much.
    #[must_use]
    pub fn thrifty(mut self) -> Duplex {
        self.is_thrifty = true;
        self.conn.reader.large(false);
        self
    }

    /// The first `bytes` are not sent: the engine's preface, where the peer has sent its own. They have to come by themselves.
    #[must_use]
    pub fn unsaid(self, bytes: usize) -> Duplex {
        Duplex { unsaid: bytes, ..self }
    }

    /// With somebody who has a word to say, too.
    #[must_use]
    pub fn beside(mut self, aside: &Aside) -> Duplex {
        self.aside = Some(aside.clone());
        self
    }

    /// Somebody hears how much has left.
    #[must_use]
    pub fn telling(mut self, sent: &Sent) -> Duplex {
        self.sent = Some(sent.clone());
        self
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())); // nobody reads it
        }
        let written = self.conn.writer.poll_write(cx, slices);
        self.tell_sent(matches!(written, Poll::Ready(Err(_))));
        written
    }

    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.conn.writer.poll_flush(cx);
        self.tell_sent(matches!(flushed, Poll::Ready(Err(_))));
        flushed
    }

    fn tell_sent(&mut self, is_over: bool) {
        if let Some(sent) = &self.sent {
            sent.0.set(self.conn.writer.bytes_out());
            self.is_over |= is_over;
        }
    }
}

/// For whoever looks at what arrives before the engine does.
impl Duplex {
    /// What has arrived and was not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.conn.reader.buffer()
    }

    /// Drops the first `n` bytes of [`Duplex::buffer`]; there must be as many.
    pub fn consume(&mut self, n: usize) {
        self.conn.reader.consume(n);
    }

    /// Waits for more bytes behind [`Duplex::buffer`]; 0 says that the peer ended its side.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.conn.reader.poll_fill(cx)
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.conn.reader.buffer().is_empty() {
            let before = this.conn.reader.bytes_in();
            let filled = ready!(this.conn.reader.poll_fill(cx));
            // TLS may have written, too.
            this.tell_sent(!matches!(filled, Ok(1..)));
            filled?;
            let reader = &mut this.conn.reader;
            if this.is_thrifty {
                // The socket had at least as much as was asked for: it may have more.
                reader.large(reader.bytes_in() - before >= READ_BYTES_SMALL as u64);
            }
        }
        let reader = &mut this.conn.reader;
        // Nothing is in it when the peer ended its side; to put nothing says that.
        let n = reader.buffer().len().min(into.remaining());
        into.put_slice(&reader.buffer()[..n]);
        reader.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What requests and responses bring is written vectored, below.
        if this.unsaid > 0 {
            let unsaid = this.unsaid.min(bytes.len());
            this.unsaid -= unsaid;
            return Poll::Ready(Ok(unsaid));
        }
        this.poll_write_slices(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, slices)
    }

    /// h2 then passes a DATA frame's head and payload together, payloads from 256 bytes on uncopied; here a frame of
    /// 16 KiB and more goes to the kernel from where it lies.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The engine flushes after each DATA frame. A call into the kernel for each made a worker's link cost 3 us of CPU for
        // each response that one for each turn does not.
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Ok(()));
        }
        let Duplex { conn, hold, aside, .. } = this;
        let writer = &mut conn.writer;
        // The engine flushes when it has written all of its last frame, and a block of header fields to its end.
        if let Some(aside) = aside
            && !aside.0.get().is_empty()
        {
            writer.put(aside.0.take());
        }
        if writer.queued() > 0 && !writer.is_high() && !writer.is_stuck() && hold.poll(cx).is_pending() {
            return Poll::Ready(Ok(())); // this task is woken at the end of the turn, and flushes again
        }
        this.poll_flush_all(cx)
    }

    /// Sends a FIN behind what waits, and reads on until the peer's comes, as [`Conn::close`] does: a close with unread bytes
    /// (a WINDOW_UPDATE for the last response is enough) is a reset, and that response may still be under way.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            if this.is_over && this.conn.writer.queued() > 0 {
                return Poll::Ready(Ok(())); // a FIN goes behind all that waits
            }
            ready!(this.poll_flush_all(cx))?;
        }
        let Duplex { conn, linger, .. } = this;
        let (timer, thrown) = match linger {
            Some(linger) => linger,
            None => {
                if ready!(conn.writer.poll_shutdown(cx)).is_err() {
                    return Poll::Ready(Ok(())); // ended already
                }
                let mut timer = Timer::new();
                timer.set(clock::now().plus_ms(LINGER_MS_MAX));
                linger.insert((timer, 0))
            }
        };
        while *thrown <= LINGER_BYTES_MAX {
            let waiting = conn.reader.buffer().len();
            conn.reader.consume(waiting);
            *thrown += waiting;
            match conn.reader.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return timer.poll_expired(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::{run, timeout};
    use super::*;

    #[test]
    fn what_waits_when_the_peer_ends_its_side_is_never_sent() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let ended = async {
            let sent = Sent::default();
            let conn = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let mut duplex = Duplex::new(conn, Leaves::First).telling(&sent);
            let mut put = 0;
            while put == sent.bytes() {
                put += duplex.write(&[b'x'; 32_768]).await.unwrap() as u64; // until the socket is full, and some waits
            }
            far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(duplex.read(&mut [0; 1]).await.unwrap(), 0);
            let told = sent.bytes();
            let over = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut duplex).poll_shutdown(cx)));
            assert!(over.await.is_ready(), "it waits for room, to write what was left");
            drop(duplex);
            let mut arrived = Vec::new();
            far.read_to_end(&mut arrived).unwrap();
            assert_eq!(arrived.len() as u64, told);
        };
        run(|| timeout(30_000, ended)).unwrap().expect("it hangs");
    }
}
