//! A worker's setup over HTTP/2: one stream of its connection becomes the channel of a link (draft-kazuho-ptth-ptth-01, by the
//! extended CONNECT of RFC 8441). What is said on the channel never enters.
//!
//! A link is made for a socket, with both versions of HTTP on it, and is placed on the core that needs it; a stream belongs to
//! the core of its connection. So the link gets one end of a pair of sockets, as any other link, and the other end's bytes go
//! to the stream and back here. That costs such a link two more copies and a wake each way. In return nothing that carries a
//! request knows that there are streams.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Response, StatusCode};

use super::core::{CarriesLink, Core, Counted};
use super::links::{self, Visitor};
use crate::client::h2::TakenStream;
use crate::clock::{self, Now};
use crate::exchange::h1::{Frame, H1Sink, H1Source};
use crate::exchange::h2::{H2Sink, H2Source};
use crate::exchange::{FaultAnswer, Pump, fault_answer};
use crate::fault::Fault;
use crate::io::{Conn, Timer};
use crate::limits::GONE_LOOK_MS;
use crate::wire::{self, BodyPlan, Side};

/// Answers a setup and, if it is accepted, carries the channel to its end. `counted` is the connection's count among those of
/// clients, where it stays: its other streams may be anybody's.
pub async fn set_up(
    core: Rc<Core>,
    taken: TakenStream,
    visitor: &Visitor,
    address: SocketAddr,
    counted: &Cell<Option<Counted>>,
) {
    let TakenStream { head, body, mut respond } = taken;
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let checked = links::admit(&core, Some(address), visitor.accepts_workers, |gate| {
        if body.is_end_stream() {
            return Err(Fault::SetupMalformed("a setup that has ended is no channel"));
        }
        links::check_setup(&core, gate, visitor, &head.headers, || wire::parse_stream_setup(&head.headers, path))
    });
    let (version, accepted) = match checked {
        Ok((answer, accepted)) => (answer.version(), accepted),
        Err(fault) => return refuse(&mut respond, fault),
    };
    // Without descriptors it is as if the edge had ended: another one may have some.
    let Ok((near, far)) = Conn::pair() else { return refuse(&mut respond, Fault::Draining) };
    let mut response = Response::new(());
    response.headers_mut().insert("alpn", HeaderValue::from_static(version.id()));
    let Ok(send) = respond.send_response(response, false) else { return };
    let _link = CarriesLink::new(counted);
    links::place(&core, far, address, accepted);
    carry(near, body, H2Sink::new(send, Side::Response), core.shared.clocks.stall_ms).await;
}

/// Until the link has ended, or its stream has. A stream whose worker takes nothing hides the link's end behind what waits for
/// it: then it has `stall_ms` to take the rest, and is reset.
async fn carry(mut near: Conn, body: RecvStream, mut down: H2Sink, stall_ms: u64) {
    let pulse = near.pulse();
    let mut looks = Timer::new();
    let mut until: Option<Now> = None;
    let Conn { reader, writer, .. } = &mut near;
    let mut up = H2Source::new(body, Side::Request);
    let mut to_link = H1Sink::new(writer, Frame::UntilClose, Side::Request);
    let mut from_link = H1Source::new(reader, BodyPlan::UntilClose, Side::Response);
    let (mut upwards, mut downwards) = (Pump::new(), Pump::new());
    let mut has_ended = false;
    std::future::poll_fn(|cx| {
        // The worker may end its side first; the link hears that, and ends its own.
        if !has_ended && let Poll::Ready(ended) = upwards.poll(cx, &mut up, &mut to_link) {
            if ended.is_err() {
                return Poll::Ready(());
            }
            has_ended = true;
        }
        if downwards.poll(cx, &mut from_link, &mut down).is_ready() {
            return Poll::Ready(());
        }
        if !downwards.waits_for_sink() {
            looks.clear();
            until = None;
            return Poll::Pending;
        }
        if until.is_none() {
            until = Some(clock::now().plus_ms(stall_ms));
            looks.set(clock::now().plus_ms(GONE_LOOK_MS));
        }
        while looks.poll_expired(cx).is_ready() {
            let now = clock::now();
            if !pulse.peer_gone() {
                until = Some(now.plus_ms(stall_ms)); // the link's own clocks watch over it
            } else if until.is_some_and(|until| now >= until) {
                return Poll::Ready(());
            }
            looks.set(now.plus_ms(GONE_LOOK_MS.min(stall_ms)));
        }
        Poll::Pending
    })
    .await;
}

/// As over HTTP/1.1, but for what belongs to a connection.
fn refuse(respond: &mut SendResponse<Bytes>, fault: Fault) {
    let FaultAnswer { reply, body } = fault_answer(fault, None);
    let mut response = Response::new(());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    wire::strip_hop_by_hop(response.headers_mut());
    debug_assert_ne!(reply.status, StatusCode::SWITCHING_PROTOCOLS);
    // A peer that is gone needs no answer.
    if let Ok(mut send) = respond.send_response(response, false) {
        let _ = send.send_data(body, true);
    }
}
