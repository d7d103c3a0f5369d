//! What a reload changes, and what it must not: a new configuration on the same sockets, while clients ask and workers serve.
#![allow(clippy::disallowed_methods)] // the program under test is another process, and is waited for

mod common;

use std::net::SocketAddr;

use common::frames::{self, Frames};
use common::h2_client::H2Client;
use common::h2_worker::H2Worker;
use common::load::Load;
use common::peer::until;
use common::program::{Program, Text, descriptors, until_no_more_than};
use common::relay::Relay;
use common::{
    CORES, HOST, ORIGIN, Peer, SECRET, TestEdge, assert_own, edge, get, origin, post, setting, setup, worker_config,
};
use ptth::edge::Reloaded;
use ptth::edge::config::{Cores, EdgeConfig, Listen, Pool};
use ptth::worker::Worker;
use ptth::worker::config::Secret;
use rustix::process::Signal;

/// Our own worker, in front of a server that answers everything.
fn worker(edge: SocketAddr, server: SocketAddr) -> Worker {
    let mut config = worker_config(edge, server, Secret::basic("web-1", SECRET));
    config.serve = ptth::wire::Scope::Origins(vec![format!("http://{HOST}").parse().expect("an origin")]);
    config.links = 2;
    config.concurrency = 16;
    Worker::start(config).expect("a worker on loopback")
}

fn links(status: &serde_json::Value) -> usize {
    status["links"].as_array().expect("a list").len()
}

fn is_alone(status: &serde_json::Value) -> bool {
    status["leaving"].as_array().expect("a list").is_empty()
}

// ---- the program ----

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    const RELOADS: u64 = 20;
    let text = |round: u64| if round.is_multiple_of(2) { "cores = 2\n" } else { "cores = 1\n" };
    let mut program = Program::start("reload", Text { edge: text(0), ..Text::default() });
    let server = origin::serving(|_| common::ok("served"));
    let relays = [(); 2].map(|()| Relay::start(program.address));
    let workers = [0, 1].map(|index: usize| worker(relays[index].address, server));
    program.until(|status| links(status) == 4);
    relays.iter().for_each(|relay| relay.guard(2));
    let idle = descriptors(program.pid());

    let load = Load::start(program.address, 2, "/");
    load.wait_for(100);
    let mut counted = 0;
    for round in 1..=RELOADS {
        program.write(Text { edge: text(round), pool: &format!("retries_max = {}", round % 5), ..Text::default() });
        program.signal(Signal::HUP);
        program.until(|status| {
            let now = status["pools"][0]["counters"]["requests"]["2xx"].as_u64().expect("a number");
            assert!(now >= counted, "{now} requests after {counted}");
            counted = now;
            status["generation"] == round + 1
        });
        load.wait_for(30);
    }
    let (answers, failures) = load.end();
    // Neither refused nor reset, nor anything but a 200.
    assert_eq!(failures, Vec::<String>::new(), "of {answers}\n{}", program.log());

    let status = program.until(|status| is_alone(status) && links(status) == 4);
    for relay in &relays {
        assert_eq!(relay.losses(), Vec::<String>::new(), "a link was lost before it was replaced\n{}", program.log());
        assert!(relay.all() >= 4, "{} links: none has moved", relay.all());
    }
    assert_eq!(status["generation"], RELOADS + 1);
    assert_eq!(
        status["pools"][0]["counters"]["requests"]["2xx"], answers,
        "each is counted once, over all generations"
    );
    until_no_more_than(program.pid(), &idle);

    program.signal(Signal::TERM);
    assert_eq!(program.end(), Some(0), "{}", program.log());
    for worker in workers {
        worker.drain();
        assert_eq!(worker.wait(), Ok(true));
    }
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported() {
    let program = Program::start("bad", Text { edge: "cores = 1", ..Text::default() });
    let mut client = Peer::connect(program.address);
    client.get("/");
    program.until(|status| status["pools"][0]["queued"] == 1);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("an address");
    let listen = format!("[[listen]]\naddress = \"{taken}\"\naccept = [\"clients\"]\n");
    let cases: [(&dyn Fn(), &str); 3] = [
        (&|| program.write_raw("[edge]\ncores = \"some\"\n"), ":2:9: `cores`"),
        (&|| program.write(Text { more: &listen, ..Text::default() }), "cannot listen on"),
        (
            &|| program.write(Text { edge: "cores = [8191]", ..Text::default() }),
            "cores: CPU 8191 is not among those this process may use",
        ),
    ];
    for (index, (write, wanted)) in cases.iter().enumerate() {
        write();
        program.signal(Signal::HUP);
        let failed = index as u64 + 1;
        let status = program.until(|status| status["counters"]["reloads"]["failed"] == failed);
        assert_eq!((&status["generation"], is_alone(&status)), (&1.into(), true));
        assert!(program.log().contains(wanted), "{wanted}: {}", program.log());
    }
    // The file as it was: the certificates alone.
    program.write(Text { edge: "cores = 1", ..Text::default() });
    program.signal(Signal::HUP);
    let status = program.until(|status| status["counters"]["reloads"]["done"] == 1);
    assert_eq!((&status["generation"], &status["pools"][0]["queued"]), (&1.into(), &1.into()));
}

#[test]
fn reloads_find_descriptors_when_clients_have_all_that_they_may() {
    const CORES: usize = 4;
    let text = |pool| Text { edge: "cores = 4", pool, ..Text::default() };
    let program = Program::start_as("full", text(""), |_, file| {
        let mut command = std::process::Command::new("sh");
        let line = "ulimit -n 450; exec \"$0\" --log text edge --config \"$1\"";
        command.arg("-c").arg(line).arg(env!("CARGO_BIN_EXE_ptth")).arg(file);
        command
    });
    let connections_max = program.status()["limits"]["connections_max"].as_u64().expect("a number");
    let connections = |status: &serde_json::Value| status["limits"]["connections"].as_u64().expect("a number");
    // They wait for a worker; a few more than there may be, for each core has an accept in flight.
    let clients: Vec<Peer> = (0..connections_max as usize + CORES)
        .map(|_| {
            let mut client = Peer::connect(program.address);
            client.get("/");
            client
        })
        .collect();
    program.until(|status| connections(status) >= connections_max);
    for (generation, pool) in [(2, "retries_max = 3"), (3, "retries_max = 4")] {
        program.write(text(pool));
        program.signal(Signal::HUP);
        program.until(|status| status["generation"] == generation || program.log().contains("nothing changes"));
    }
    assert!(!program.log().contains("nothing changes"), "{}", program.log());
    let status = program.status();
    assert_eq!((&status["generation"], status["leaving"].as_array().map(Vec::len)), (&3.into(), Some(2)));
    drop(clients);
}

#[test]
fn what_does_not_end_in_time_is_cut_and_leaves_nothing_behind() {
    let text = |edge| Text { edge, pool: "retries_max = 1", ..Text::default() };
    let program = Program::start("cut", text("cores = 1\ndrain_max = \"300ms\""));
    let before = descriptors(program.pid());
    let mut stuck: Vec<Peer> = (0..5)
        .map(|_| {
            let mut client = Peer::connect(program.address);
            client.get("/"); // waits for a worker
            client
        })
        .collect();
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    link.request(); // and is never answered
    let mut half = Peer::connect(program.address);
    half.send("GET / HT");
    program.until(|status| status["cores"][0]["connections"] == 6 && status["pools"][0]["queued"] == 4);
    program.write(text("cores = 1\ndrain_max = \"301ms\""));
    program.signal(Signal::HUP);
    program.until(|status| status["generation"] == 2 && is_alone(status));
    for client in &mut stuck {
        client.end();
    }
    half.end();
    link.end();
    until_no_more_than(program.pid(), &before);
    assert!(program.log().contains("drain_max ran out"), "{}", program.log());
    let status = program.status();
    assert_eq!((&status["cores"][0]["panics"], &status["limits"]["connections"]), (&0.into(), &0.into()));
}

// ---- what is new ----

#[test]
fn a_reload_brings_pools_and_takes_pools() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let _link = edge.h1_link();
        assert_eq!(edge.sent("GET / HTTP/1.1\r\nHost: new.example\r\n\r\n").response().status(), 404);
        edge.reload(|config| config.pools[0] = Pool::new("new", vec!["new.example".parse().expect("a host")]));
        assert_eq!(edge.sent(get("/")).response().status(), 404);
        let client = edge.sent("GET / HTTP/1.1\r\nHost: new.example\r\n\r\n");
        let status = edge.until(|status| status["pools"][0]["queued"] == 1);
        assert_eq!(status["pools"][0]["name"], "new");
        edge.until_alone();
        let pools = edge.status()["pools"].as_array().map(Vec::len);
        assert_eq!(pools, Some(1), "nobody has the old one any more");
        edge.reload(|_| {});
        assert_eq!(edge.sent("GET / HTTP/1.1\r\nHost: new.example\r\n\r\n").response().status(), 404);
        client.leave();
    }
}

#[test]
fn a_withdrawn_credential_loses_its_links_and_gets_no_other() {
    let edge = edge();
    let mut link = edge.h1_link();
    edge.reload(|config| config.credentials.clear());
    link.ends();
    assert_eq!(edge.set_up(&setup(ORIGIN, "h2")).1.status(), 401);
}

#[test]
fn addresses_come_and_go() {
    for cores in CORES {
        let edge =
            setting().cores(cores).more("[[listen]]\naddress = \"127.0.0.1:3\"\naccept = [\"clients\"]\n").start();
        let (kept, gone) = (edge.addresses[0], edge.addresses[1]);
        let fresh = common::closed_port();
        edge.reload(|config| config.listens[1] = Listen::new(fresh, true, false));
        let mut waiting: Vec<Peer> = [kept, fresh].map(Peer::connect).into();
        waiting.iter_mut().for_each(|client| client.get("/"));
        edge.until_queued(2);
        until(|| std::net::TcpStream::connect(gone).is_err());
        let mut link = edge.h1_link();
        (0..2).for_each(|_| drop(link.serve("here")));
        assert!(waiting.iter_mut().all(|client| client.response().text() == "here"));
    }
}

#[test]
fn the_number_of_cores_may_change() {
    let edge = setting().cores(2).start();
    for cores in [1, 3, 1, 2] {
        edge.reload(|config| config.cores = Cores::Count(cores));
        edge.until_alone();
        let status = edge.status();
        assert_eq!(status["cores"].as_array().map(Vec::len), Some(usize::from(cores)), "{status:#}");
        // Each socket of the address is somebody's: a connection that nobody accepts would never be answered.
        let mut clients: Vec<Peer> = (0..20).map(|_| edge.sent(get("/"))).collect();
        edge.until_queued(20);
        let mut link = edge.h1_link();
        (0..20).for_each(|_| drop(link.serve("here")));
        assert!(clients.iter_mut().all(|client| client.response().text() == "here"));
        link.finish();
        edge.until_links(0);
    }
}

// ---- what goes on ----

#[test]
fn what_runs_ends_where_it_runs_and_what_waits_goes_over() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut runs = edge.sent(post("/runs", "a body"));
        assert_eq!(link.request().target(), "/runs");
        let mut waits = edge.sent(post("/waits", "another body"));
        edge.until_queued(1);
        let generation = edge.reload(|config| {
            config.cores = Cores::Count(3 - cores);
            config.pools.insert(0, Pool::new("other", vec!["other.example".parse().expect("a host")]));
        });
        let status = edge.until(|status| status["generation"] == generation && status["pools"][1]["queued"] == 1);
        assert_eq!(status["leaving"][0]["generation"], 1, "{status:#}");
        let mut late = edge.sent(get("/late"));
        edge.until(|status| status["pools"][1]["queued"] == 2);
        let mut again = Peer::connect(edge.address);
        again.send(setup(ORIGIN, "http%2F1.1"));
        assert_eq!(again.response().status(), 101);
        let request = again.serve("waited");
        assert_eq!((request.target(), request.text()), ("/waits", "another body"), "the older one comes first");
        let answer = waits.response();
        assert_eq!((answer.text(), answer.connection("close")), ("waited", true));
        assert_eq!(again.serve("new").target(), "/late");
        assert_eq!(late.response().text(), "new");
        link.ok("ran");
        let answer = runs.response();
        assert_eq!((answer.text(), answer.connection("close")), ("ran", true));
        link.ends();
        edge.until_alone();
    }
}

#[test]
fn what_went_over_is_bounded_and_may_leave() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { wait_max = \"2s\" }").start();
        let mut late = edge.sent(get("/"));
        let leaves = edge.sent(get("/"));
        edge.until_queued(2);
        for retries_max in 5..7 {
            edge.reload(|config| config.pools[0].retries_max = retries_max);
        }
        edge.until_queued(2);
        drop(leaves);
        edge.until_queued(1);
        assert_own(&late.response(), 503, "connection_timeout");
        edge.until_queued(0);
        edge.until_alone();
        let answered = edge.status()["pools"][0]["counters"]["requests"].clone();
        assert_eq!((&answered["4xx"], &answered["5xx"]), (&1.into(), &1.into()), "{answered}");
    }
}

#[test]
fn what_comes_late_goes_over_to_a_generation_that_drains() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut old = edge.h1_link();
        // A head that has begun keeps its client where it is.
        let request = get("/late");
        let (begun, rest) = request.split_at(7);
        let mut late = edge.sent(begun);
        edge.until(|status| status["limits"]["connections"] == 1);
        edge.reload(|_| {});
        old.ends();
        let mut new = edge.h1_link();
        edge.drain();
        new.is_quiet();
        late.send(rest);
        assert_eq!(new.serve("served").target(), "/late");
        let answer = late.response();
        assert_eq!((answer.text(), answer.connection("close")), ("served", true));
        new.ends();
        assert!(edge.wait());
    }
}

#[test]
fn a_drain_behind_a_reload_waits_for_workers_that_have_been_told_to_come() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut runs = edge.sent(get("/runs"));
        link.request();
        let mut waits = edge.sent(get("/waits"));
        edge.until_queued(1);
        edge.reload(|_| {});
        edge.drain();
        assert_eq!(edge.admin_get("/health/ready").status(), 503);
        link.ok("ran");
        assert_eq!(runs.response().text(), "ran");
        link.ends();
        let (mut again, answer) = edge.set_up(&setup(ORIGIN, "http%2F1.1"));
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(again.serve("waited").target(), "/waits");
        assert_eq!(waits.response().text(), "waited");
        again.ends();
        assert!(edge.wait());
    }
}

#[test]
fn a_full_queue_is_full_for_all_generations_and_keeps_whom_it_has() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("queue = { requests_max = 2 }").start();
        let mut waiting: Vec<Peer> = (0..2).map(|_| edge.sent(get("/waits"))).collect();
        edge.until_queued(2);
        let request = get("/late");
        let (begun, rest) = request.split_at(7);
        let mut late: Vec<Peer> = (0..2).map(|_| edge.sent(begun)).collect();
        edge.until(|status| status["limits"]["connections"] == 4);
        // Were it the pool that had shrunk, nobody would be sent away.
        edge.reload(|config| config.pools[0].queue.requests_max = 1);
        edge.until_queued(2);
        late[0].send(rest);
        assert_own(&late[0].response(), 503, "connection_limit_reached");
        let mut new = edge.sent(get("/new"));
        assert_own(&new.response(), 503, "connection_limit_reached");
        edge.until_queued(2);
        waiting.pop().expect("two").leave();
        edge.until_queued(1);
        late[1].send(rest); // as many as it may have where it is
        edge.until_queued(2);
        let mut link = edge.h1_link();
        assert_eq!(link.serve("1").target(), "/waits");
        assert_eq!(link.serve("2").target(), "/late");
        assert_eq!((waiting[0].response().text(), late[1].response().text()), ("1", "2"));
        edge.until_queued(0);
    }
}

#[test]
fn what_went_over_waits_for_nothing_that_cannot_come() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut client =
            edge.sent("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        edge.until_queued(1);
        edge.reload(|_| {});
        let _plain = Frames::dial(&edge, 1); // its worker has not announced extended CONNECT
        assert_eq!(client.response().status(), 502);
        edge.until_alone();
    }
}

#[test]
fn a_queue_longer_than_a_mailbox_goes_over() {
    const STREAMS: usize = 1_000;
    const { assert!(5 * STREAMS > ptth::limits::MAILBOX_MESSAGES_MAX) };
    let edge = setting().listen("h2c = true").more(&format!("[limits]\nstreams_max = {STREAMS}\n")).start();
    let mut clients: Vec<H2Client> = (0..5).map(|_| H2Client::connect(edge.address)).collect();
    let mut sent: Vec<_> =
        clients.iter_mut().flat_map(|client| (0..STREAMS).map(|_| client.get("/")).collect::<Vec<_>>()).collect();
    edge.until_queued(5 * STREAMS as u64);
    edge.reload(|_| {});
    H2Worker::dial_at_once(&edge, 100).serve_all(|_| "served".into());
    assert!(sent.iter_mut().all(|sent| sent.whole().text() == "served"));
    edge.until_alone();
}

#[test]
fn what_waits_goes_over_as_often_as_it_takes() {
    // No generation lives long enough to see a worker but the last one.
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut clients = Vec::new();
        for round in 0..4 {
            clients.push(edge.sent(get("/")));
            edge.until_queued(round + 1);
            edge.until(|status| status["leaving"].as_array().is_some_and(|leaving| leaving.len() < 2));
            edge.reload(|config| config.pools[0].retries_max = round as u32);
            clients.iter_mut().for_each(|client| assert!(!client.has_some(), "{}", client.response().line));
            if round == 1 {
                // Two leave, and stay as long as their clients: one of these has to go first.
                clients.remove(0).leave();
                edge.until_queued(1);
                clients.insert(0, edge.sent(get("/")));
                edge.until_queued(2);
            }
            if round == 2 {
                clients.remove(0).leave();
                clients.remove(0).leave();
                edge.until_queued(1);
                (0..2).for_each(|_| clients.insert(0, edge.sent(get("/"))));
                edge.until_queued(3);
            }
        }
        let mut link = edge.h1_link();
        (0..4).for_each(|_| drop(link.serve("at last")));
        assert!(clients.iter_mut().all(|client| client.response().text() == "at last"));
    }
}

#[test]
fn a_pool_that_is_gone_serves_what_waits_in_it() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut clients: Vec<Peer> = (0..3).map(|_| edge.sent(get("/"))).collect();
        link.request();
        edge.until_queued(2);
        edge.reload(|config| config.pools[0] = Pool::new("new", vec!["new.example".parse().expect("a host")]));
        let status = edge.until(|status| status["pools"][1]["name"] == "app");
        assert_eq!(status["pools"][1]["queued"], 2, "nobody else would serve it");
        link.ok("first");
        link.serve("second");
        link.serve("third");
        let texts: Vec<_> = clients.iter_mut().map(|client| client.response().text().to_owned()).collect();
        assert_eq!(texts.len(), 3);
        link.ends();
        edge.until_alone();
        assert_eq!(edge.status()["pools"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn a_client_that_keeps_its_connection_is_told_with_the_next_answer() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut link = edge.h1_link();
        let mut client = edge.client();
        client.get("/");
        link.serve("first");
        assert!(!client.response().connection("close"));
        let request = get("/");
        let (begun, rest) = request.split_at(7);
        client.send(begun);
        edge.reload(|_| {});
        link.ends();
        client.send(rest);
        edge.until_queued(1);
        let mut link = edge.h1_link();
        link.serve("second");
        let answer = client.response();
        assert_eq!((answer.text(), answer.connection("close")), ("second", true));
        client.ends();
    }
}

#[test]
fn clients_without_a_request_are_told_to_go() {
    let edge = edge();
    let mut idle = edge.client();
    edge.until(|status| status["cores"][0]["connections"] == 1);
    edge.reload(|_| {});
    idle.ends();
    edge.until_alone();
}

#[test]
fn a_worker_hears_that_it_is_to_come_again_before_its_link_ends() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut busy = Frames::dial(&edge, 1);
        let mut client = edge.sent(get("/"));
        assert_eq!(busy.request(), 1);
        let mut idle = Frames::dial(&edge, 1);
        edge.reload(|_| {});
        for worker in [&mut busy, &mut idle] {
            let goaway = worker.next(|frame| frame.kind == frames::GOAWAY);
            assert_eq!((goaway.goaway_code(), &goaway.payload[..4]), (frames::NO_ERROR, &[0; 4][..]));
        }
        idle.peer.is_quiet(); // as long as it is not replaced
        let mut again = Frames::dial(&edge, 1);
        assert!(!busy.peer.has_some(), "what runs has its time");
        idle.peer.leave(); // it has dialed another, and ends this one itself
        busy.ok(1, "to the end");
        assert_eq!(client.response().text(), "to the end");
        let _other = Frames::dial(&edge, 0);
        busy.ends(); // its worker has as many as it had
        edge.until_alone();
        let mut client = edge.sent(get("/"));
        let stream = again.request();
        again.ok(stream, "from the new one");
        assert_eq!(client.response().text(), "from the new one");
    }
}

#[test]
fn an_idle_link_ends_when_its_worker_has_as_many_others() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let mut old: Vec<Frames> = (0..2).map(|_| Frames::dial(&edge, 1)).collect();
        edge.reload(|_| {});
        for link in &mut old {
            link.next(|frame| frame.kind == frames::GOAWAY);
        }
        let mut new = vec![Frames::dial(&edge, 1)];
        old.iter_mut().for_each(|link| link.peer.is_quiet());
        new.push(Frames::dial(&edge, 1));
        old.iter_mut().for_each(Frames::ends);
        edge.until_alone();
        assert!(new.iter_mut().all(|link| !link.peer.has_some()));
    }
}

#[test]
fn an_idle_link_that_is_not_replaced_ends_within_drain_max() {
    let edge = setting().drain_max("1s").start();
    let mut link = Frames::dial(&edge, 1);
    edge.reload(|_| {});
    link.next(|frame| frame.kind == frames::GOAWAY);
    link.peer.is_quiet();
    link.ends();
    edge.until_alone();
}

#[test]
fn requests_do_not_wait_for_long_for_a_worker_that_does_not_hear() {
    let edge = setting().drain_max("1h").start();
    let mut deaf = Frames::dial(&edge, 1);
    edge.reload(|_| {});
    deaf.next(|frame| frame.kind == frames::GOAWAY);
    let mut client = edge.sent(get("/"));
    edge.until_queued(1);
    deaf.ends(); // so that it comes again
    let mut link = edge.h1_link();
    link.serve("here");
    assert_eq!(client.response().text(), "here");
    edge.until_alone();
}

#[test]
fn a_pool_that_does_not_hold_waits_for_workers_that_are_on_their_way() {
    let edge = setting().pool("hold_without_workers = false").start();
    assert_own(&edge.sent(get("/")).response(), 503, "destination_unavailable");
    let _old = edge.h1_link();
    edge.reload(|_| {});
    let mut client = edge.sent(get("/"));
    edge.until_queued(1);
    let mut link = edge.h1_link();
    link.serve("here");
    assert_eq!(client.response().text(), "here");
}

// ---- bounds, and what is told ----

#[test]
fn two_generations_may_leave_and_one_more_reload_waits() {
    let edge = edge();
    let mut links = Vec::new();
    let mut clients = Vec::new();
    for round in 0..3 {
        links.push(edge.h1_link());
        clients.push(edge.sent(get("/")));
        links[round].request();
        let reloaded = edge.try_reload(EdgeConfig { drain_ms_max: 30_000 + round as u64, ..edge.config.clone() });
        let wanted = if round < 2 { Reloaded::Anew(round as u64 + 2) } else { Reloaded::Later };
        assert_eq!(reloaded, Ok(wanted));
    }
    let status = edge.status();
    let leaving: Vec<_> = status["leaving"].as_array().expect("a list").iter().collect();
    assert_eq!(leaving.len(), 2);
    for (index, leaving) in leaving.into_iter().enumerate() {
        let told = (&leaving["generation"], &leaving["connections"], &leaving["links"], &leaving["in_flight"]);
        assert_eq!(told, (&(index + 1).into(), &1.into(), &1.into(), &1.into()), "{status:#}");
    }
    assert_eq!(status["pools"][0]["links"], 3, "of all generations");
    let ids: Vec<_> = status["links"].as_array().expect("a list").iter().map(|link| &link["id"]).collect();
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
    for (link, client) in links.iter_mut().zip(&mut clients) {
        link.ok("done");
        assert_eq!(client.response().text(), "done");
    }
    edge.until_alone();
}

#[test]
fn bounds_hold_over_all_generations() {
    let lines = "[limits]\nconnections_per_source_max = 2\nsources_exempt = []\n";
    let edge = setting().more(lines).start();
    let old = edge.sent(get("/"));
    edge.until_queued(1);
    edge.reload(|_| {});
    let _new = edge.sent(get("/"));
    edge.until_queued(2);
    edge.client().ends(); // the third
    assert_eq!(edge.status()["limits"]["connections"], 2);
    old.leave();
    edge.until(|status| status["limits"]["connections"] == 1);
    let _third = edge.sent(get("/"));
    edge.until_queued(2);
}

#[test]
fn a_pool_runs_no_more_than_it_may_over_all_generations() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("concurrency_max = 1").start();
        let mut old = edge.h1_link();
        let mut first = edge.sent(get("/first"));
        old.request();
        edge.reload(|config| config.pools[0].retries_max = 7);
        let mut new = edge.h1_link();
        let mut second = edge.sent(get("/second"));
        edge.until_queued(1);
        new.is_quiet();
        old.ok("one");
        assert_eq!(first.response().text(), "one");
        new.serve("two");
        assert_eq!(second.response().text(), "two");
    }
}

#[test]
fn a_permit_that_comes_back_late_is_seen_by_a_generation_that_leaves() {
    for cores in CORES {
        let edge = setting().cores(cores).pool("concurrency_max = 1").start();
        let mut oldest = edge.h1_link();
        let mut first = edge.sent(get("/first"));
        oldest.request();
        edge.reload(|config| config.pools[0].retries_max = 7);
        let mut older = edge.h1_link();
        let mut second = edge.sent(get("/second"));
        edge.until_queued(1);
        // The newest one does not have the pool, so its requests stay where they are.
        edge.reload(|config| config.pools[0] = Pool::new("new", vec!["new.example".parse().expect("a host")]));
        edge.until(|status| status["pools"][1]["queued"] == 1);
        older.is_quiet();
        oldest.ok("one");
        assert_eq!(first.response().text(), "one");
        older.serve("two");
        assert_eq!(second.response().text(), "two");
        edge.until_alone();
    }
}

#[test]
fn counters_never_go_backwards() {
    for cores in CORES {
        let edge = setting().cores(cores).start();
        let requests = |edge: &TestEdge| {
            let status = edge.status();
            let of = |pool: &str, field: &str| {
                let pools = status["pools"].as_array().expect("a list");
                let pool = pools.iter().find(|own| own["name"] == pool).expect("it is there");
                pool["counters"][field]["2xx"].as_u64().expect("a number")
            };
            (of("app", "requests"), status["counters"]["setups"].as_u64().expect("a number"))
        };
        for round in 0..3 {
            let mut link = edge.h1_link();
            let mut client = edge.sent(get("/"));
            link.serve("here");
            assert_eq!(client.response().status(), 200);
            drop(client);
            assert_eq!(requests(&edge), (round + 1, round + 1));
            edge.reload(|config| {
                let more = Pool::new("other", vec![format!("{round}.example").parse().expect("a host")]);
                config.pools.insert((round % 2) as usize, more); // the numbers of the pools change, too
            });
            assert_eq!(requests(&edge), (round + 1, round + 1));
            link.ends();
            edge.until_alone();
            assert_eq!(requests(&edge), (round + 1, round + 1));
        }
    }
}

#[test]
fn a_reader_of_the_admin_address_is_led_to_the_new_generation() {
    let edge = edge();
    let held = edge.sent(get("/"));
    edge.until_queued(1);
    let mut admin = Peer::connect(edge.admin);
    let ask = "GET /status HTTP/1.1\r\nHost: admin\r\n\r\n";
    admin.send(ask);
    assert!(!admin.response().connection("close"));
    edge.reload(|_| {});
    admin.ends();
    let status = edge.status();
    assert_eq!((&status["generation"], &status["pools"][0]["queued"]), (&2.into(), &1.into()));
    assert_eq!(edge.admin_get("/health/ready").status(), 200, "another one leaves, the edge does not");
    held.leave();
}

#[test]
fn a_drain_ends_all_generations() {
    let edge = edge();
    let mut old = edge.h1_link();
    let mut first = edge.sent(get("/"));
    old.request();
    edge.reload(|_| {});
    let mut new = edge.h1_link();
    let mut second = edge.sent(get("/"));
    new.request();
    edge.drain();
    assert!(edge.try_reload(edge.config.clone()).is_err(), "too late");
    old.ok("one");
    new.ok("two");
    assert_eq!((first.response().text(), second.response().text()), ("one", "two"));
    assert!(edge.wait());
}
