//! Connections on which requests go out: an edge's turned links to its workers, and a worker's connections to the server
//! behind it. Queues, credits and clients never enter.

pub mod h1;
pub mod h2;
