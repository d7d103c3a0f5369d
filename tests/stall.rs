//! A client that does not read is not waited for without end. The bound is shortened: its default is half a minute.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use std::time::{Duration, Instant};

use common::h2_worker::H2Worker;
use common::{CORES, get, setting};

/// Twice the bound, and a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_client_that_stops_reading_loses_its_credit_to_the_next_one() {
    let both = CORES.map(|cores| std::thread::spawn(move || stops_reading(cores)));
    both.into_iter().for_each(|thread| thread.join().expect("it was cut"));
}

fn stops_reading(cores: u16) {
    let limits = "[limits]\nbody_stall_max = \"3s\"";
    let edge = setting().cores(cores).pool("queue = { wait_max = \"10m\" }").more(limits).start();
    let worker = H2Worker::dial(&edge, 1);
    let _stuck = edge.sent(get("/stuck"));
    let mut asked = worker.accept();
    let mut stream = asked.begin(http::Response::new(()));
    // More than the edge, the client's kernel and the stream's window hold.
    stream.send_data(vec![b'x'; 64 << 20].into(), true).expect("open");
    let mut next = edge.sent(get("/next"));
    let from = Instant::now();
    let served = loop {
        if let Some(asked) = worker.try_accept() {
            break asked;
        }
        assert!(from.elapsed() < PATIENCE, "the credit was never free again, {cores} cores");
        std::thread::sleep(Duration::from_millis(50));
    };
    served.ok("served");
    assert_eq!(next.response().text(), "served", "{cores} cores");
}
