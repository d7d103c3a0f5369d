//! The worker program: its configuration, and what dials. Nothing of the edge enters.

pub mod config;
