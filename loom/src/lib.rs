//! The rooms of the edge where two cores meet, built on loom's atomics. Nothing is written here that the edge does not
//! run: only which files belong to it.

#![forbid(unsafe_code)]

#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/xcore/mod.rs"]
pub mod xcore;
