//! The rooms of the edge where two cores meet, and the dispatch that stands on them, built on loom's atomics. Nothing is
//! written here that the edge does not run: only which files belong to it.

#![forbid(unsafe_code)]

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/limits.rs"]
pub mod limits;

#[path = "../../src/sched/mod.rs"]
pub mod sched;
#[path = "../../src/xcore/mod.rs"]
pub mod xcore;

#[path = "../../src/dispatch/mod.rs"]
pub mod dispatch;
