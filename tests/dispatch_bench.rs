//! The tests of `benches/dispatch`, which cargo runs only here.

#[allow(dead_code)] // the tests are its only callers
#[path = "../benches/dispatch/ideal.rs"]
mod ideal;
#[allow(dead_code)] // as above
#[path = "../benches/dispatch/trace.rs"]
mod trace;
