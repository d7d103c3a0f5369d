//! HTTP/1.1, the frames of HTTP/2, and the setup of a link as functions over bytes: heads, body framing, hop-by-hop fields,
//! origins. No socket, no clock and nothing asynchronous enters.
//!
//! Everything here reads bytes from outside: a wrong byte becomes a [`Fault`](crate::fault::Fault), never a panic.

pub mod about;
pub mod authority;
pub mod body;
pub mod forwarded;
pub mod frames;
pub mod head;
pub mod hop;
pub mod inverted;
pub mod origin;
pub mod prefer;
pub mod priority;
pub mod proxy;
pub mod request_id;
pub mod scan;
pub mod setup;
pub mod token;
pub mod trace;
pub mod trailer;
pub mod websocket;
pub mod write;

pub use about::About;
pub use authority::{Authority, Scheme};
pub use body::{BodyDecoder, Found, Step, put_chunk, put_chunk_end, put_last_chunk};
pub use forwarded::{Told, told};
pub use frames::{FrameHead, FrameScan};
pub use head::{Asked, BodyPlan, RequestHead, ResponseHead, Version, parse_request, parse_response};
pub use hop::{ForwardedFor, Forwarding, set_forwarding, strip_hop_by_hop};
pub use inverted::{INVERTED, inverted};
pub use origin::{Origin, OriginPattern};
pub use prefer::preferred_wait_s;
pub use proxy::{Introduced, parse_proxy};
pub use request_id::{RequestIds, X_REQUEST_ID, kept_request_id, request_id};
pub use scan::{HeadScan, PREFACE, Side, is_h2_preface};
pub use setup::{
    ChannelVersion, Dialect, OldSetup, Presented, Scope, Setup, SetupAnswer, is_old_setup, is_setup, parse_old_setup,
    parse_setup, parse_stream_setup,
};
pub use trace::drop_malformed_trace;
pub use write::{Framing, Persistence, put_request_head, put_response_head};
