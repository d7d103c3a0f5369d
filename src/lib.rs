//! A reverse-HTTP edge: workers dial out to it, clients' requests wait in it, and the first free worker takes the
//! next one. `ARCHITECTURE.md` draws the floors; this file only names the rooms, lowest floor first.

pub mod clock;
pub mod events;
pub mod fault;
pub mod ids;
pub mod limits;
pub mod pem;
pub mod settings;
pub mod signals;

pub mod io;

pub mod sched;
pub mod wire;
pub mod xcore;

pub mod dispatch;
pub mod exchange;

pub mod client;
pub mod link;

pub mod edge;
#[cfg(any(test, fuzzing))]
pub mod translation;
pub mod worker;

pub mod cli;
pub mod demo;
