//! Where two cores meet: mailboxes and bells, wakers that travel, pipes, books and boards shared by all. The only wing
//! with atomics; no socket, no HTTP and no dispatch decision ever enters.
//!
//! Each atomic names its partner: the access on another core with which it was designed. The package in `loom/` builds
//! this wing alone on loom's atomics and walks the orders that the memory model allows:
//! `cargo test --release --manifest-path loom/Cargo.toml`.

mod attempts;
mod bell;
mod board;
mod books;
mod crowd;
mod flow;
mod home;
mod mail;
mod memory;
mod pipe;
mod seats;
mod shelf;
mod spool;
mod sync;
mod wakers;

#[cfg(all(test, not(loom)))]
mod threads;

pub use attempts::Attempts;
pub use bell::{Defer, Ring, at_once};
pub use board::{Board, Placement};
pub use books::{Held, Permit, Permits, PoolBooks};
pub use crowd::{Crowd, Guest, Source};
pub use flow::{Place, PoolFlow, Teller, Told};
pub use home::{Home, Post};
pub use mail::Mail;
pub use memory::{Fill, MemoryGauge, is_memory_tight};
pub use pipe::{Closed, PipeRx, PipeTx, SendError, pipe};
pub use seats::{Seat, Seats};
pub use shelf::{Head, Kind, Parcel, Shelf};
pub use spool::{SpoolRx, SpoolTx, Spooled, spool};
pub use wakers::{HomeWakers, Portable};
