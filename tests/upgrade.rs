//! One process after another on the same sockets, and whoever started the first: upgrades, and what systemd is told. The
//! processes are real, and so is everybody who asks them.
#![allow(clippy::disallowed_methods)] // the programs under test are other processes, and are waited for

mod common;

use std::io::{IoSlice, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::frames::{self, Frames};
use common::load::Load;
use common::peer::until;
use common::program::{Program, Text, descriptors, until_no_more_than};
use common::relay::Relay;
use common::{HANG, HOST, ORIGIN, Peer, SECRET, get, origin, setup, worker_config};
use ptth::worker::Worker;
use ptth::worker::config::Secret;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, Signal, kill_process};

/// Our own worker, in front of a server that answers everything.
fn worker(edge: SocketAddr, server: SocketAddr) -> Worker {
    let mut config = worker_config(edge, server, Secret::basic("web-1", SECRET));
    config.serve = ptth::wire::Scope::Origins(vec![format!("http://{HOST}").parse().expect("an origin")]);
    config.links = 2;
    config.concurrency = 16;
    Worker::start(config).expect("a worker on loopback")
}

const TEXT: Text<'static> = Text { edge: "cores = 2", pool: "", more: "" };

/// As [`TEXT`], for clients that begin a head and end it when another process has started, however long that takes.
const PATIENT: Text<'static> = Text { more: "[limits]\nhead_max_wait = \"1h\"\n", ..TEXT };

// ---- upgrades ----

#[test]
fn ten_upgrades_under_load_lose_nothing() {
    const UPGRADES: usize = 10;
    let mut program = Program::start("upgrade", TEXT);
    let server = origin::serving(|_| common::ok("served"));
    let relays = [(); 2].map(|()| Relay::start(program.address));
    let workers = [0, 1].map(|index: usize| worker(relays[index].address, server));
    program.until(|status| status["links"].as_array().is_some_and(|links| links.len() == 4));
    relays.iter().for_each(|relay| relay.guard(2));
    let idle = descriptors(program.newest());
    let load = Load::start(program.address, 2, "/");
    load.wait_for(100);
    for upgrade in 1..=UPGRADES {
        let before = program.newest();
        kill_process(Pid::from_raw(before as i32).expect("a pid"), Signal::USR2).expect("it lives");
        until(|| program.log().matches("has been replaced").count() == upgrade || load.has_failed());
        load.wait_for(30);
        until(|| !is_running(before));
    }
    let (answers, failures) = load.end();
    // Neither refused nor reset, nor anything but a 200.
    assert_eq!(failures, Vec::<String>::new(), "of {answers}\n{}", program.log());
    assert_eq!(program.end(), Some(0), "the first one ended well\n{}", program.log());
    program.until(|status| status["links"].as_array().is_some_and(|links| links.len() == 4));
    for relay in &relays {
        assert_eq!(relay.losses(), Vec::<String>::new(), "a link was lost before it was replaced\n{}", program.log());
        assert!(relay.all() >= 4, "{} links: none has moved", relay.all());
    }
    until_no_more_than(program.newest(), &idle);
    let last = program.newest();
    kill_process(Pid::from_raw(last as i32).expect("a pid"), Signal::TERM).expect("it lives");
    until(|| !is_running(last));
    for worker in workers {
        worker.drain();
        assert_eq!(worker.wait(), Ok(true));
    }
}

/// A process that has ended and was not waited for counts as ended.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn what_runs_is_finished_by_the_older_process() {
    let mut program = Program::start("older", TEXT);
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    let mut runs = Peer::connect(program.address);
    runs.get("/runs");
    link.request();
    let mut waits = Peer::connect(program.address);
    waits.get("/waits");
    program.until(|status| status["pools"][0]["queued"] == 1);
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    let mut late = Peer::connect(program.address);
    late.get("/late");
    program.until(|status| status["pools"][0]["queued"] == 1 && status["links"].as_array().is_some_and(Vec::is_empty));
    link.ok("ran");
    assert_eq!(runs.response().text(), "ran");
    link.serve("waited");
    assert_eq!(waits.response().text(), "waited");
    link.ends();
    assert_eq!(program.end(), Some(0), "{}", program.log());
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    assert_eq!(link.serve("new").target(), "/late");
    assert_eq!(late.response().text(), "new");
}

#[test]
fn a_link_of_each_pool_stays_for_clients_that_have_not_gone() {
    let program = Program::start("keeper", PATIENT);
    let mut links: Vec<Frames> = (0..2).map(|_| link(&program, 1)).collect();
    program.until(|status| status["pools"][0]["credits"] == 2);
    // A head that has begun keeps its client here, and is answered here.
    let request = get("/");
    let (begun, rest) = request.split_at(7);
    let mut late = Peer::connect(program.address);
    late.send(begun);
    program.until(|status| {
        let cores = status["cores"].as_array().expect("a list");
        cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum::<u64>() == 1
    });
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    until(|| links.iter_mut().any(|link| link.peer.has_some()));
    if links[1].peer.has_some() {
        links.swap(0, 1);
    }
    let goaway = links[0].next(|frame| frame.kind == frames::GOAWAY);
    assert_eq!(goaway.goaway_code(), frames::NO_ERROR);
    links[0].peer.is_quiet(); // whether it is replaced only its worker knows
    links[0].peer.leave();
    late.send(rest);
    let stream = links[1].request();
    links[1].ok(stream, "here");
    let answer = late.response();
    assert_eq!((answer.text(), answer.connection("close")), ("here", true));
    links[1].next(|frame| frame.kind == frames::GOAWAY);
    links[1].ends();
}

#[test]
fn links_that_were_told_take_the_place_of_one_that_was_kept_and_is_lost() {
    let mut program = Program::start("lost-keeper", PATIENT);
    let mut links: Vec<Frames> = (0..3).map(|_| link(&program, 1)).collect();
    program.until(|status| status["pools"][0]["credits"] == 3);
    let request = get("/");
    let (begun, rest) = request.split_at(7);
    let mut late = Peer::connect(program.address);
    late.send(begun);
    program.until(|status| {
        let cores = status["cores"].as_array().expect("a list");
        cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum::<u64>() == 1
    });
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    until(|| links.iter_mut().filter_map(|link| link.peer.has_some().then_some(())).count() == 2);
    let kept = links.iter_mut().position(|link| !link.peer.has_some()).expect("one of three");
    links.remove(kept).peer.leave();
    for link in &mut links {
        link.next(|frame| frame.kind == frames::GOAWAY);
    }
    late.send(rest);
    until(|| links.iter_mut().any(|link| link.peer.has_some()));
    let serves = usize::from(links[1].peer.has_some());
    let stream = links[serves].request();
    links[serves].ok(stream, "after all");
    assert_eq!(late.response().text(), "after all");
    links.iter_mut().for_each(Frames::ends);
    assert_eq!(program.end(), Some(0), "{}", program.log());
}

#[test]
fn links_that_were_told_serve_while_the_one_that_was_kept_takes_nothing() {
    let program = Program::start("full-keeper", PATIENT);
    let mut links: Vec<Frames> = (0..2).map(|_| link(&program, 1)).collect();
    program.until(|status| status["pools"][0]["credits"] == 2);
    let request = get("/");
    let (begun, rest) = request.split_at(7);
    let mut late = Peer::connect(program.address);
    late.send(begun);
    program.until(|status| {
        let cores = status["cores"].as_array().expect("a list");
        cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum::<u64>() == 1
    });
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    until(|| links.iter_mut().any(|link| link.peer.has_some()));
    let told = usize::from(links[1].peer.has_some());
    links[told].next(|frame| frame.kind == frames::GOAWAY);
    links[1 - told].credits(0);
    late.send(rest);
    let stream = links[told].request();
    links[told].ok(stream, "by the other");
    assert_eq!(late.response().text(), "by the other");
}

#[test]
fn a_mute_link_that_was_told_is_not_tried_while_the_one_that_was_kept_serves() {
    // Once it is waited for, and then nobody may need as long.
    let program =
        Program::start("mute-rests", Text { edge: "cores = 1", pool: "response_head_max_wait = \"10s\"", ..PATIENT });
    let mut mute = link(&program, 1);
    program.until(|status| status["pools"][0]["credits"] == 1);
    let mut client = Peer::connect(program.address);
    client.get("/never-answered");
    mute.request();
    assert_eq!(client.response().status(), 504);
    drop(client);
    mute.next(|frame| frame.kind == frames::RST_STREAM); // behind a PING, which is answered on the way
    program.until(|status| status["links"][0]["mute"] == true);
    let mut kept = link(&program, 1);
    program.until(|status| status["pools"][0]["credits"] == 1);
    let (runs, waits) = (get("/runs"), get("/waits"));
    let mut clients = [&runs, &waits].map(|request| {
        let mut client = Peer::connect(program.address);
        client.send(&request[..7]);
        client
    });
    program.until(|status| {
        let cores = status["cores"].as_array().expect("a list");
        cores.iter().map(|core| core["connections"].as_u64().expect("a number")).sum::<u64>() == 2
    });
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    mute.next(|frame| frame.kind == frames::GOAWAY);
    clients[0].send(&runs[7..]);
    let stream = kept.request();
    kept.head(stream, &[(":status", "200")], false); // it has one credit, and keeps that
    clients[0].wait_for_some();
    clients[1].send(&waits[7..]);
    mute.ends(); // and no request has come over it
    kept.data(stream, b"ran", true);
    assert_eq!(clients[0].response().text(), "ran");
    let stream = kept.request();
    kept.ok(stream, "waited");
    assert_eq!(clients[1].response().text(), "waited");
}

#[test]
fn a_link_with_a_free_credit_stays_rather_than_one_that_is_full() {
    let program = Program::start("full", Text { edge: "cores = 1", ..PATIENT });
    let mut full = link(&program, 1);
    program.until(|status| status["pools"][0]["credits"] == 1);
    let mut runs = Peer::connect(program.address);
    runs.get("/runs");
    let stream = full.request();
    let mut free = link(&program, 1);
    program.until(|status| status["pools"][0]["credits"] == 1);
    let request = get("/late");
    let (begun, rest) = request.split_at(7);
    let mut late = Peer::connect(program.address);
    late.send(begun);
    program.until(|status| status["cores"][0]["connections"] == 2);
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    full.next(|frame| frame.kind == frames::GOAWAY);
    late.send(rest);
    let asked = free.request();
    free.ok(asked, "here");
    assert_eq!(late.response().text(), "here");
    full.ok(stream, "ran");
    assert_eq!(runs.response().text(), "ran");
}

/// A link over HTTP/2.
#[track_caller]
fn link(program: &Program, streams: u32) -> Frames {
    let mut peer = Peer::connect(program.address);
    peer.send(setup(ORIGIN, "h2"));
    let answer = peer.response();
    assert_eq!(answer.status(), 101, "{answer:?}");
    let mut frames = Frames::on(peer, &[(frames::MAX_CONCURRENT_STREAMS, streams)]);
    frames.settled();
    frames
}

/// What an older process does, done here.
struct Older {
    channel: OwnedFd,
    address: SocketAddr,
    /// Dropping it leaves the socket to the newer one.
    _listener: std::net::TcpListener,
}

impl Older {
    fn start(name: &str) -> (Older, Program) {
        Older::start_by(name, |_| {})
    }

    /// `change` sees the newer one's command before it runs.
    fn start_by(name: &str, change: impl Fn(&mut Command)) -> (Older, Program) {
        let mut older = None;
        let program = Program::start_unready(name, TEXT, |address, file| {
            let (channel, theirs) =
                rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                    .expect("a channel");
            let listener = std::net::TcpListener::bind(address).expect("a port");
            say(&channel, r#"{"handover":1,"batches":1}"#, &[]);
            say(&channel, r#"{"lent":[true]}"#, &[listener.as_fd()]);
            let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
            command.args(["--log", "text", "edge", "--config", file]);
            command.env("PTTH_HANDOVER", std::process::id().to_string());
            change(&mut command);
            older = Some(Older { channel, address, _listener: listener });
            (command, Stdio::from(theirs))
        });
        (older.expect("it was started"), program)
    }

    /// Until the newer one is ready.
    fn hears_ready(&self) {
        let text = self.hears();
        assert!(text.contains("\"ready\":true") && text.contains(&self.address.to_string()), "{text}");
        assert!(text.contains("\"says_open\":true"), "{text}");
    }

    fn hears(&self) -> String {
        let mut bytes = [0; 4096];
        let (count, _) = rustix::net::recv(&self.channel, &mut bytes, RecvFlags::empty()).expect("it lives");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }
}

fn say(channel: &OwnedFd, text: &str, sockets: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(sockets.is_empty() || beside.push(SendAncillaryMessage::ScmRights(sockets)));
    let text = [IoSlice::new(text.as_bytes())];
    rustix::net::sendmsg(channel, &text, &mut beside, SendFlags::empty()).expect("it lives");
}

#[test]
fn a_newer_process_takes_no_connection_before_it_is_told_to() {
    let (older, program) = Older::start("go");
    older.hears_ready();
    let mut clients: Vec<Peer> = (0..4).map(|_| Peer::connect(older.address)).collect();
    let unknown = "GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n";
    clients.iter_mut().for_each(|client| client.send(unknown));
    clients[0].is_quiet(); // it can still be taken back, and nobody would be cut
    assert!(clients.iter_mut().all(|client| !client.has_some()));
    say(&older.channel, r#"{"go":true}"#, &[]);
    assert_eq!(older.hears(), r#"{"open":true}"#);
    assert!(clients.iter_mut().all(|client| client.response().status() == 404));
    drop(program);
}

#[test]
fn a_newer_process_is_the_service_when_the_older_one_has_said_so() {
    let systemd = Systemd::at_path("left");
    let path = systemd.path.clone().expect("it has one");
    let (older, program) = Older::start_by("left", |command| _ = command.env("NOTIFY_SOCKET", &path));
    older.hears_ready();
    say(&older.channel, r#"{"go":true}"#, &[]);
    assert_eq!(older.hears(), r#"{"open":true}"#);
    systemd.hears_nothing(); // READY=1 of a process that is not known to be the service is lost
    say(&older.channel, r#"{"left":true}"#, &[]);
    assert_eq!(systemd.hears(), "READY=1");
    drop(program);
}

/// Another program for the next upgrade, by the name that the first one was started with.
struct Named {
    folder: PathBuf,
    name: PathBuf,
}

impl Named {
    fn start(name: &str) -> (Named, Program) {
        let folder = std::env::temp_dir().join(format!("ptth-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let named = Named { name: folder.join("ptth"), folder };
        named.is_the_program();
        let program = Program::start_as(name, TEXT, |_, file| {
            let mut command = Command::new(&named.name);
            command.args(["--log", "text", "edge", "--config", file]);
            command
        });
        (named, program)
    }

    fn is_the_program(&self) {
        let _ = std::fs::remove_file(&self.name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ptth"), &self.name).expect("a link");
    }

    /// A newer process that takes what it is given, and then does as these lines of sh say.
    fn is_a_script(&self, lines: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let _ = std::fs::remove_file(&self.name);
        let hear = "hear() { dd bs=4096 count=1 > /dev/null 2> /dev/null; }\nsay() { printf %s \"$1\" >&0; }\n";
        let next = self.folder.join("next");
        std::fs::write(&next, format!("#!/bin/sh\n{hear}hear; hear\n{lines}\n")).expect("a file");
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).expect("its own file");
        std::fs::rename(&next, &self.name).expect("a name");
    }

    /// A line of a script: it waits for [`Named::may`].
    fn waits(&self) -> String {
        format!("until [ -e '{}' ]; do sleep 0.01; done", self.folder.join("may").display())
    }

    fn may(&self) {
        std::fs::write(self.folder.join("may"), "").expect("a file");
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn an_older_process_goes_on_where_the_newer_one_fails_after_it_was_told_to_go() {
    let (named, mut program) = Named::start("late");
    let mut client = Peer::connect(program.address);
    client.get("/waits");
    program.until(|status| status["pools"][0]["queued"] == 1);
    let (older, idle) = (program.pid(), descriptors(program.pid()));
    let ready = r#"say '{"ready":true,"says_open":true}'"#;
    for (index, (lines, why)) in [
        (format!("{ready}; hear; exit 3"), "it has ended (exit status: 3)"),
        (format!("{ready}; hear; say '{{}}'; hear"), "it says what nobody understands"),
        ("exit 4".to_owned(), "it has ended (exit status: 4)"),
    ]
    .iter()
    .enumerate()
    {
        named.is_a_script(lines);
        program.signal(Signal::USR2);
        until(|| program.log().matches("SIGUSR2: nothing changes").count() == index + 1 || !is_running(older));
        assert!(program.log().contains(why), "{lines}: {}", program.log());
    }
    // One from before the word `open`, which has ended before the older one can tell it to go.
    named.is_a_script(&format!("{}; say '{{\"ready\":true}}'; exit 5", named.waits()));
    program.signal(Signal::USR2);
    until(|| program.successors().len() == 1);
    let newer = program.successors()[0];
    program.signal(Signal::STOP);
    named.may();
    until(|| !is_running(newer));
    program.signal(Signal::CONT);
    until(|| program.log().matches("SIGUSR2: nothing changes").count() == 4 || !is_running(older));
    assert!(program.log().contains("it has ended (exit status: 5)"), "{}", program.log());
    assert_eq!((program.newest(), program.successors()), (older, Vec::new()));
    until_no_more_than(older, &idle);
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    assert_eq!(link.serve("as before").target(), "/waits");
    assert_eq!(client.response().text(), "as before");
    // One from before that word takes over with the word to go.
    named.is_a_script("say '{\"ready\":true}'; hear; hear");
    program.signal(Signal::USR2);
    until(|| program.log().contains("this process has been replaced"));
    link.ends();
    drop(client);
    assert_eq!(program.end(), Some(0), "{}", program.log());
}

#[test]
fn a_newer_process_that_does_not_get_ready_ends_with_the_older_one() {
    let (named, mut program) = Named::start("ends-first");
    let heard = named.folder.join("heard");
    named.is_a_script(&format!("dd bs=4096 count=1 of='{}' 2> /dev/null", heard.display()));
    program.signal(Signal::USR2);
    until(|| program.successors().len() == 1 && heard.exists());
    let newer = program.successors()[0];
    program.signal(Signal::TERM);
    assert_eq!(program.end(), Some(0), "{}", program.log());
    assert!(!is_running(newer), "{}", program.log());
    assert_eq!(std::fs::read_to_string(&heard).expect("it was there"), "", "and was never told to go");
    assert!(program.log().contains("the edge drains"), "{}", program.log());
}

#[test]
fn a_reload_of_a_process_that_was_replaced_is_the_newer_ones() {
    let program = Program::start("forwarded", TEXT);
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    let mut runs = Peer::connect(program.address);
    runs.get("/runs");
    link.request();
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older && program.log().contains("this process has been replaced"));
    program.write(Text { edge: "cores = 1", ..TEXT });
    program.signal(Signal::HUP); // whoever sent it knows the older one
    // With those of the generation before, as long as that leaves.
    program.until(|status| status["generation"] == 2 && status["cores"].as_array().map(Vec::len) == Some(1));
    link.ok("ran");
    assert_eq!(runs.response().text(), "ran");
}

#[test]
fn reloads_beside_upgrades_lose_nothing_and_the_newest_configuration_counts() {
    let program = Program::start("beside", TEXT);
    let server = origin::serving(|_| common::ok("served"));
    let workers = [0, 1].map(|_| worker(program.address, server));
    program.until(|status| status["links"].as_array().is_some_and(|links| links.len() == 4));
    let load = Load::start(program.address, 2, "/");
    load.wait_for(100);
    let cores = |round: usize| 1 + round % 2;
    for round in 0..4 {
        let before = program.newest();
        let pid = Pid::from_raw(before as i32).expect("a pid");
        let write = || program.write(Text { edge: &format!("cores = {}", cores(round)), ..TEXT });
        let send = |signal| kill_process(pid, signal).expect("it lives");
        if round % 2 == 0 {
            write();
            send(Signal::HUP);
            send(Signal::USR2);
        } else {
            send(Signal::USR2);
            write(); // whether the newer one has read the file already or not
            send(Signal::HUP);
        }
        program.until(|status| {
            let is_anew = status["pid"] != before && status["cores"].as_array().map(Vec::len) == Some(cores(round));
            is_anew || load.has_failed()
        });
        load.wait_for(30);
        until(|| !is_running(before) || load.has_failed());
    }
    let (answers, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {answers}\n{}", program.log());
    for worker in workers {
        worker.drain();
        assert_eq!(worker.wait(), Ok(true));
    }
}

#[test]
fn a_newer_process_goes_on_when_the_older_one_has_ended() {
    let (older, program) = Older::start("gone-before");
    older.hears_ready();
    let address = older.address;
    drop(older);
    let mut client = Peer::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
    assert_eq!(client.response().status(), 404);
    drop(program);
}

#[test]
fn the_name_that_the_program_was_started_with_is_followed_anew() {
    let folder = std::env::temp_dir().join(format!("ptth-named-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (name, next) = (folder.join("ptth"), folder.join("ptth-next"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ptth"), &name).expect("a link");
    std::fs::copy(env!("CARGO_BIN_EXE_ptth"), &next).expect("a copy");
    let program = Program::start_as("named", TEXT, |_, file| {
        let mut command = Command::new(&name);
        command.args(["--log", "text", "edge", "--config", file]);
        command
    });
    std::fs::remove_file(&name).expect("the link");
    std::os::unix::fs::symlink(&next, &name).expect("another link");
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    let runs = std::fs::read_link(format!("/proc/{}/exe", program.newest())).expect("it lives");
    assert_eq!(runs, next.canonicalize().expect("it is there"));
    drop(program);
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn an_address_that_the_newer_process_does_not_want_is_closed() {
    let gone = common::closed_port();
    let more = format!("[[listen]]\naddress = \"{gone}\"\naccept = [\"clients\"]\n");
    let mut program = Program::start("gone", Text { more: &more, ..TEXT });
    let mut client = Peer::connect(gone);
    client.get("/");
    program.until(|status| status["pools"][0]["queued"] == 1);
    let older = program.pid();
    program.write(TEXT);
    program.signal(Signal::USR2);
    until(|| std::net::TcpStream::connect(gone).is_err());
    assert_ne!(program.newest(), older, "another one answers");
    client.leave();
    assert_eq!(program.end(), Some(0), "{}", program.log());
}

#[test]
fn a_newer_process_that_does_not_start_changes_nothing() {
    let program = Program::start("fails", TEXT);
    let mut client = Peer::connect(program.address);
    client.get("/");
    program.until(|status| status["pools"][0]["queued"] == 1);
    let idle = descriptors(program.pid());
    for (index, text) in ["[edge]\ncores = \"some\"\n", "nonsense"].iter().enumerate() {
        program.write_raw(text);
        program.signal(Signal::USR2);
        until(|| program.log().matches("SIGUSR2: nothing changes").count() == index + 1);
    }
    assert!(
        program.log().contains("the new process did not start: it has ended (exit status: 2)"),
        "{}",
        program.log()
    );
    assert!(program.log().contains(":2:9: `cores`"), "its own words are in the same log: {}", program.log());
    assert_eq!(program.status()["pools"][0]["queued"], 1);
    assert_eq!(program.newest(), program.pid());
    until_no_more_than(program.pid(), &idle);
    // And then it does.
    program.write(TEXT);
    program.signal(Signal::USR2);
    until(|| program.newest() != program.pid());
}

#[test]
fn a_process_that_is_told_to_end_while_it_is_replaced_leaves_nobody_behind() {
    for ms in [0, 3, 10, 30, 60, 120] {
        let mut program = Program::start("both", TEXT);
        program.signal(Signal::USR2);
        std::thread::sleep(std::time::Duration::from_millis(ms));
        program.signal(Signal::TERM);
        assert_eq!(program.end(), Some(0), "{}", program.log());
        // Whichever came first counts.
        let was_replaced = program.log().contains("this process has been replaced");
        let left: Vec<u32> = program.successors().into_iter().filter(|pid| is_running(*pid)).collect();
        assert_eq!(left.len(), usize::from(was_replaced), "after {ms} ms {left:?} run: {}", program.log());
    }
}

// ---- systemd ----

/// Hears what a service tells.
struct Systemd {
    socket: UnixDatagram,
    path: Option<PathBuf>,
}

impl Systemd {
    fn at_path(name: &str) -> Systemd {
        let path = std::env::temp_dir().join(format!("ptth-notify-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Systemd { socket: UnixDatagram::bind(&path).expect("a socket"), path: Some(path) }.ready()
    }

    fn in_the_abstract(name: &str) -> Systemd {
        let address = UnixAddr::from_abstract_name(abstract_name(name)).expect("a name");
        Systemd { socket: UnixDatagram::bind_addr(&address).expect("a socket"), path: None }.ready()
    }

    fn ready(self) -> Systemd {
        self.socket.set_read_timeout(Some(HANG)).expect("a timeout");
        self
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("nobody says anything");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    /// For a moment nothing is said.
    #[track_caller]
    fn hears_nothing(&self) {
        self.socket.set_read_timeout(Some(common::QUIET)).expect("a timeout");
        let heard = self.socket.recv(&mut [0; 4096]);
        assert!(heard.is_err(), "something was said");
        self.socket.set_read_timeout(Some(HANG)).expect("a timeout");
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn abstract_name(name: &str) -> String {
    format!("ptth-{name}-{}", std::process::id())
}

#[test]
fn systemd_hears_of_start_reload_upgrade_and_end() {
    let systemd = Systemd::at_path("life");
    let path = systemd.path.clone().expect("it has one");
    let mut program = Program::start_by("notify", TEXT, |command| _ = command.env("NOTIFY_SOCKET", &path));
    assert_eq!(systemd.hears(), "READY=1");
    for (edge, wanted) in [("cores = 1", "in force"), ("cores = none", "SIGHUP: nothing changes")] {
        program.write(Text { edge, ..TEXT });
        program.signal(Signal::HUP);
        let told = systemd.hears();
        let usec = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both in one message");
        assert!(usec.parse::<u64>().is_ok_and(|usec| usec > 0), "{told}");
        assert_eq!(systemd.hears(), "READY=1");
        assert!(program.log().contains(wanted), "{}", program.log());
    }
    program.write(TEXT);
    program.signal(Signal::USR2);
    let told = systemd.hears();
    let newest: u32 = told.strip_prefix("MAINPID=").and_then(|pid| pid.parse().ok()).expect("a pid");
    assert_eq!(systemd.hears(), "READY=1", "the new one's, which is the service now");
    until(|| program.newest() == newest); // the older one may answer once more
    assert_eq!(program.end(), Some(0));
    kill_process(Pid::from_raw(newest as i32).expect("a pid"), Signal::TERM).expect("it lives");
    assert_eq!(systemd.hears(), "STOPPING=1", "and nothing from the one that was replaced");
}

#[test]
fn the_watchdog_is_fed_as_long_as_all_cores_run() {
    let systemd = Systemd::in_the_abstract("watchdog");
    let name = format!("@{}", abstract_name("watchdog"));
    let program = Program::start_by("watchdog", TEXT, |command| {
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    });
    assert_eq!(systemd.hears(), "READY=1");
    for _ in 0..5 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
    }
    program.signal(Signal::TERM);
    while systemd.hears() != "STOPPING=1" {}
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let systemd = Systemd::in_the_abstract("other");
    let name = format!("@{}", abstract_name("other"));
    let program = Program::start_by("other", TEXT, |command| {
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    });
    assert_eq!(systemd.hears(), "READY=1");
    for _ in 0..20 {
        program.status();
    }
    program.signal(Signal::TERM);
    assert_eq!(systemd.hears(), "STOPPING=1");
}

#[test]
fn news_of_the_older_process_end_well_and_the_newer_one_tells_them_on() {
    let mut program = Program::start("news", TEXT);
    let (older, admin) = (program.pid(), program.admin);
    let read = || {
        let mut reader = Peer::connect(admin);
        reader.send("GET /events HTTP/1.1\r\nHost: admin\r\n\r\n");
        reader
    };
    let mut reader = read();
    let mut rest = vec![0; 15];
    reader.stream.read_exact(&mut rest).expect("an answer");
    assert_eq!(rest, b"HTTP/1.1 200 OK");
    program.signal(Signal::USR2);
    reader.stream.read_to_end(&mut rest).expect("it ends, and is not cut");
    let rest = String::from_utf8(rest).expect("ASCII");
    assert!(rest.contains(&format!("\"pid\":{older}")) && rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    assert_eq!(program.end(), Some(0), "{}", program.log());
    let newest = program.newest();
    assert_ne!(newest, older);
    let mut again = read();
    let mut told = String::new();
    while !told.contains(&format!("\"pid\":{newest}")) {
        told += &String::from_utf8(again.read(1)).expect("ASCII");
    }
}

/// Starts the program as systemd would, with one socket that listens already.
fn activated(name: &str, address: SocketAddr, file: &str) -> Command {
    let script = "import os, socket, sys\n\
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
        host, port = sys.argv[1].rsplit(':', 1)\n\
        s.bind((host, int(port))); s.listen(64)\n\
        os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES=sys.argv[2])\n\
        os.execv(sys.argv[3], sys.argv[3:])\n";
    let mut command = Command::new("python3");
    command.args(["-c", script, &address.to_string(), name, env!("CARGO_BIN_EXE_ptth")]);
    command.args(["--log", "text", "edge", "--config", file]);
    command
}

#[test]
fn a_socket_that_systemd_opened_is_used_and_survives() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3 to stand for systemd");
        return;
    }
    let mut program = Program::start_as("activated", TEXT, |address, file| activated("web", address, file));
    // Nothing else could listen there: this socket is nobody's to share.
    let mut clients: Vec<Peer> = (0..8).map(|_| Peer::connect(program.address)).collect();
    clients.iter_mut().for_each(|client| client.get("/"));
    program.until(|status| status["pools"][0]["queued"] == 8);
    let older = program.pid();
    program.signal(Signal::USR2);
    until(|| program.newest() != older);
    let mut link = Peer::connect(program.address);
    link.send(setup(ORIGIN, "http%2F1.1"));
    assert_eq!(link.response().status(), 101);
    let mut late = Peer::connect(program.address);
    late.send(get("/late"));
    link.serve("over the same socket");
    assert_eq!(late.response().text(), "over the same socket");
    drop(clients);
    assert_eq!(program.end(), Some(0), "{}", program.log());
}
