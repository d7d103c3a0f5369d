//! Tables of bytes and what `wire` makes of them. Every parser runs whole, then cut at each byte: a verdict may come
//! early, it never differs.

mod bodies;
mod fields;
mod forwarded;
mod frames;
mod heads;
mod origins;
mod priorities;
mod proxies;
mod setups;
mod traces;
