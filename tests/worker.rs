//! What our own worker promises to the server behind it. How it passes requests on is in `dispatch.rs`.
#![allow(clippy::disallowed_methods)] // peers are no cores: they have a clock of their own and may sleep

mod common;

use common::origin::Origin;
use common::peer::start;
use common::{CORES, QUIET, get, setting};

#[test]
fn the_server_never_sees_more_requests_at_once_than_were_promised_to_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        // Each link has at least one credit, so there are more of them than places.
        let worker = edge.worker_of(origin.address, |config| (config.links, config.concurrency) = (4, 2));
        edge.until_credits(4);
        let mut clients: Vec<_> = (0..4).map(|n| edge.sent(get(&format!("/{n}")))).collect();
        edge.until(|status| status["pools"][0]["in_flight"] == 4);
        let mut servers = [origin.accept(), origin.accept()];
        let mut seen: Vec<String> = servers.iter_mut().map(|server| server.request().target().to_owned()).collect();
        std::thread::sleep(QUIET);
        origin.is_alone();

        servers[0].ok("first");
        seen.push(servers[0].request().target().to_owned());
        std::thread::sleep(QUIET);
        origin.is_alone();
        // What runs and what waits is finished by a drain, too.
        worker.drain();
        servers[1].ok("second");
        seen.push(servers[1].request().target().to_owned());
        servers[0].ok("third");
        servers[1].ok("fourth");
        assert!(clients.iter_mut().all(|client| client.response().status() == 200));
        seen.sort();
        assert_eq!(seen, ["/0", "/1", "/2", "/3"]);
        assert!(worker.wait());
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_for_the_server_does_not_reach_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker_of(origin.address, |config| (config.links, config.concurrency) = (2, 1));
        edge.until_credits(2);
        let mut server = None;
        // That it left may come to the worker behind the answer for which it waits; not every time.
        let was_spared = (0..20).any(|_| {
            let mut first = edge.sent(get("/first"));
            let server = server.get_or_insert_with(|| origin.accept());
            assert_eq!(server.request().target(), "/first");
            let leaves = edge.sent(get("/leaves"));
            edge.until(|status| status["pools"][0]["in_flight"] == 2);
            drop(leaves);
            edge.until(|status| status["pools"][0]["in_flight"] == 1);
            let mut last = edge.sent(get("/last"));
            edge.until(|status| status["pools"][0]["in_flight"] == 2);
            server.ok("first");
            assert_eq!(first.response().text(), "first");
            let next = server.serve("next");
            let was_spared = next.target() == "/last";
            if !was_spared {
                *server = origin.accept(); // the worker gave up the connection together with the request
                assert_eq!(server.serve("next").target(), "/last");
            }
            assert_eq!(last.response().text(), "next");
            edge.until_credits(2);
            was_spared
        });
        assert!(was_spared, "it reaches the server each time");
    }
}

#[test]
fn a_server_that_answers_an_upgrade_like_any_request_opens_no_tunnel() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let origin = Origin::start();
        let _worker = edge.worker(origin.address);
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (protocol, key) in [("websocket", key), ("websocket", ""), ("other/1", "")] {
            let up = start("GET", "/up") + "Connection: upgrade\r\nUpgrade: " + protocol + "\r\n" + key + "\r\n";
            let mut client = edge.sent(up + &get("/next"));
            let mut server = origin.accept();
            assert_eq!(server.request().target(), "/up");
            server.ok("no upgrade");
            let answer = client.response();
            assert_eq!(answer.status(), 502, "{answer:?}");
            // It was never a tunnel, so what stands behind it is a request.
            assert_eq!(origin.accept().serve("next").target(), "/next");
            assert_eq!(client.response().text(), "next");
        }
    }
}
