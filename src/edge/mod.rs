//! The edge program: its configuration, its tables and its report. The life of a connection or a link never enters.

pub mod config;
pub mod credentials;
pub mod patterns;
pub mod report;
pub mod routes;
