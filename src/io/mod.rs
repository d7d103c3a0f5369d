//! Sockets, timers and tasks of one core: the only place that names monoio. No protocol enters here.
//!
//! What the other rooms may rely on, because monoio 0.2.4 alone does not give it: every future here may be dropped at
//! any await and called again, and nothing is lost; a panic ends its own task only; dropping a connection sends a FIN
//! and frees the descriptor; nothing wakes itself.

#![deny(unsafe_code)]

mod bell;
mod conn;
mod duplex;
mod listen;
mod read;
mod run;
mod socket;
mod timer;
mod tls;
mod turn;
mod wheel;
mod write;

pub use bell::{Bell, Doorbell, Ring, bell, doorbell};
pub use conn::{Conn, Detached, Pulse};
pub use duplex::{Aside, Duplex, Sent};
pub use listen::{Listener, accept_backoffs, bind_listener, open_listener, start_listening};
pub use read::Reader;
pub use run::{BootFault, panics, raise_fd_limit, run, set_trim, spawn, tasks};
pub use socket::{inherited_listeners, only_standard_descriptors};
pub use timer::{Timer, lag, sleep_ms, timeout};
pub use tls::Secured;
pub use turn::{Hold, Leaves, at_turn_end, wake_last};
pub use write::Writer;
