//! One process after another: an edge starts its program's file anew, hands its listening sockets over, and hears whether that
//! one runs. What each of the two then does never enters.
//!
//! ```text
//! older: {"handover":1,"batches":n}, n times {"lent":[..]} with as many sockets (SCM_RIGHTS)
//! newer: {"ready":true,"addresses":[..],"says_open":true}  its cores have started; it takes no connections yet
//! older: {"go":true}    it may
//! newer: {"open":true}  it does, and nothing is left that could fail
//! older: {"left":true}  it has told its supervisor, and leaves its sockets now
//! ```
//!
//! Until it has heard the last but one, the older one gives nothing up: should the newer one end, it goes on. One that does not say
//! `says_open` is from before that word, and has taken over with `go`. A newer one whose older one has ended takes connections
//! without any word: there is nobody else.
//!
//! One message each on a socket that keeps them apart (SOCK_SEQPACKET), the newer process's standard input. Members that are
//! not known are skipped; what a reader could not skip gets another number.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::sockets::{Kept, Sockets};
use crate::clock;
use crate::limits::{HANDOVER_BATCH_SOCKETS, HANDOVER_BYTES_MAX, INHERITED_SOCKETS_MAX, TICK_MS, UPGRADE_MS_MAX};

/// Says, in the newer one's environment, whose standard input it has: the older one's process id.
const NAME: &str = "PTTH_HANDOVER";

/// Why an upgrade ends that nobody wants any more.
pub const DRAINS: &str = "the edge drains";

/// What is written here can be read by everybody who knows this number.
const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Greeting {
    handover: u32,
    batches: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Batch {
    /// One for each socket: whoever opened it keeps it.
    lent: Vec<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Word {
    #[serde(skip_serializing_if = "is_false")]
    ready: bool,
    /// Where it listens: what the older one gave it, and what it has opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<SocketAddr>,
    /// It will say when it takes connections.
    #[serde(skip_serializing_if = "is_false")]
    says_open: bool,
    #[serde(skip_serializing_if = "is_false")]
    go: bool,
    #[serde(skip_serializing_if = "is_false")]
    open: bool,
    #[serde(skip_serializing_if = "is_false")]
    left: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The program as it was started.
pub struct Program {
    /// Its file; what lies there now may be newer than what runs.
    file: PathBuf,
    arguments: Vec<OsString>,
}

/// A newer process on its way.
pub struct Successor {
    child: Child,
    channel: OwnedFd,
    /// Where it listens, once it is ready.
    pub addresses: Vec<SocketAddr>,
    says_open: bool,
}

/// The older process that started this one.
pub struct Predecessor {
    channel: OwnedFd,
}

impl Program {
    /// To be asked at the start: later the file may have another name.
    pub fn here() -> Result<Program, String> {
        let file = std::env::current_exe().map_err(|error| format!("the program's own file: {error}"))?;
        let mut arguments = std::env::args_os();
        let named = arguments.next().and_then(|name| named(&name, std::env::var_os("PATH").as_deref()));
        // A name may lead elsewhere by then, and is followed anew; but only one that leads here now.
        let is_ours = |named: &PathBuf| named.canonicalize().is_ok_and(|found| found == file);
        Ok(Program { file: named.filter(is_ours).unwrap_or(file), arguments: arguments.collect() })
    }

    /// Starts it once more, with these sockets.
    pub fn start(&self, sockets: &[Kept]) -> Result<Successor, String> {
        if std::process::id() == 1 {
            return Err("this is process 1: when it ends, all of its container ends; start it by an init, as in \
                        `docker run --init`"
                .into());
        }
        let (channel, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| format!("no channel to a new process: {error}"))?;
        let batches = sockets.chunks(HANDOVER_BATCH_SOCKETS);
        let greeting = Greeting { handover: VERSION, batches: batches.len() };
        let said = say(&channel, &greeting, &[])
            .and_then(|()| batches.into_iter().try_for_each(|batch| say(&channel, &Batch::of(batch), batch)));
        said.map_err(|error| format!("the sockets could not be handed over: {error}"))?;
        let mut command = Command::new(&self.file);
        command.args(&self.arguments).stdin(Stdio::from(other)).env(NAME, std::process::id().to_string());
        // The supervisor's sockets and its watch were meant for this process; by its id it would not know the other one.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        crate::io::only_standard_descriptors(&mut command);
        let child = command.spawn().map_err(|error| format!("{} cannot be started: {error}", self.file.display()))?;
        Ok(Successor { child, channel, addresses: Vec::new(), says_open: false })
    }
}

/// Where a program of this name is, as a shell finds it.
fn named(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let candidates = std::env::split_paths(path?).map(|folder| folder.join(name));
    candidates.filter(|candidate| candidate.is_file()).find_map(|candidate| std::path::absolute(candidate).ok())
}

impl Successor {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until its cores have started. Otherwise it has ended afterwards, as soon as the older one `drains`.
    pub fn wait(mut self, drains: impl Fn() -> bool) -> Result<Successor, String> {
        match self.hear(drains) {
            Ok(Word { ready: true, addresses, says_open, .. }) => Ok(Successor { addresses, says_open, ..self }),
            Ok(_) => Err(self.end("it says what nobody understands")),
            Err(why) => Err(self.end(why)),
        }
    }

    /// Its next word. In steps: who is told to end meanwhile waits for nothing more.
    fn hear(&self, drains: impl Fn() -> bool) -> Result<Word, &'static str> {
        let by = clock::now().plus_ms(UPGRADE_MS_MAX);
        loop {
            match hear(&self.channel, TICK_MS) {
                Ok((word, _)) => return Ok(word),
                Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err("it has ended"),
                Err(_) if drains() => return Err(DRAINS),
                Err(_) if clock::now() >= by => return Err("it did not become ready in time"),
                Err(_) => {}
            }
        }
    }

    /// It is not wanted any more, and nobody is with it. What is to be told about it.
    pub fn end(&mut self, why: &str) -> String {
        let _ = self.child.kill(); // it may have ended
        self.ended(why)
    }

    /// As [`Successor::end`], where it may take connections already: it has so long to finish what they ask. Only for one that
    /// drains itself: the newer one shuts sockets down as it ends, and they are those of both.
    pub fn drain(&mut self, why: &str, max_ms: u64) -> String {
        self.is_left_alone(); // it waits for that
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let by = clock::now().plus_ms(max_ms);
        let (_never, nothing) = mpsc::channel::<()>();
        while matches!(self.child.try_wait(), Ok(None)) {
            if clock::now() >= by {
                return self.end(why);
            }
            let _ = nothing.recv_timeout(Duration::from_millis(TICK_MS));
        }
        self.ended(why)
    }

    fn ended(&mut self, why: &str) -> String {
        match self.child.wait() {
            Ok(status) => format!("the new process did not start: {why} ({status})"),
            Err(error) => format!("the new process did not start: {why} ({error})"),
        }
    }

    /// It may take connections. Returns when it does, and goes on whatever happens here. Otherwise it has ended afterwards.
    ///
    /// One that fails is killed, with the few clients that it may have taken: told to end, it would shut down the sockets that
    /// this one goes on with. Where this one `drains` they are not needed, and those clients have `drain_ms_max`.
    pub fn go(&mut self, drain_ms_max: u64, drains: impl Fn() -> bool) -> Result<(), String> {
        if say(&self.channel, &Word { go: true, ..Word::default() }, &[]).is_err() {
            return Err(self.end("it has ended"));
        }
        if !self.says_open {
            return Ok(());
        }
        match self.hear(&drains) {
            Ok(Word { open: true, .. }) => Ok(()),
            Err(why) if why == DRAINS => Err(self.drain(why, drain_ms_max)),
            Ok(_) => Err(self.end("it says what nobody understands")),
            Err(why) => Err(self.end(why)),
        }
    }

    /// It is the edge from now on: whoever watches this process knows, and nobody is taken here any more.
    pub fn is_left_alone(&self) {
        let _ = say(&self.channel, &Word { left: true, ..Word::default() }, &[]); // it would go on without this word, too
    }
}

impl Predecessor {
    /// Whoever started this process for that; `None` where nobody did.
    pub fn from_environment() -> Result<Option<Predecessor>, String> {
        let Some(pid) = std::env::var(NAME).ok().and_then(|pid| pid.parse::<i32>().ok()) else { return Ok(None) };
        if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(pid) {
            return Ok(None); // it is a stranger's
        }
        let failed = |error: io::Error| format!("no sockets were handed over: {error}");
        let channel = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let nothing = std::fs::File::open("/dev/null").map_err(failed)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
        Ok(Some(Predecessor { channel }))
    }

    pub fn sockets(&self) -> Result<Sockets, String> {
        let failed = |error: io::Error| format!("no sockets were handed over: {error}");
        let (greeting, _) = hear::<Greeting>(&self.channel, UPGRADE_MS_MAX).map_err(failed)?;
        if greeting.handover != VERSION {
            let theirs = greeting.handover;
            return Err(format!(
                "sockets are handed over in version {theirs}, and this program knows {VERSION}; restart"
            ));
        }
        let mut all = Vec::new();
        for _ in 0..greeting.batches.min(INHERITED_SOCKETS_MAX) {
            let (batch, sockets) = hear::<Batch>(&self.channel, UPGRADE_MS_MAX).map_err(failed)?;
            let (said, came) = (batch.lent.len(), sockets.len());
            if said != came {
                return Err(format!("{said} sockets were handed over, and {came} came; raise ulimit -n"));
            }
            let kept = sockets.into_iter().zip(batch.lent);
            all.extend(kept.map(|(fd, is_lent)| Kept { listener: fd.into(), is_lent }));
        }
        Ok(Sockets::of(all))
    }

    /// This one could take connections, there. Returns when it is to, or when the other one has gone.
    pub fn tell_ready(&self, addresses: Vec<SocketAddr>) {
        self.tell(&Word { ready: true, addresses, says_open: true, ..Word::default() });
    }

    /// This one takes connections. Returns when the other one takes none any more, or has gone.
    pub fn tell_open(self) {
        self.tell(&Word { open: true, ..Word::default() });
    }

    /// Says something, and waits for what is said to it.
    fn tell(&self, word: &Word) {
        if say(&self.channel, word, &[]).is_ok() {
            let _ = hear::<Word>(&self.channel, UPGRADE_MS_MAX);
        }
    }
}

impl Batch {
    fn of(sockets: &[Kept]) -> Batch {
        Batch { lent: sockets.iter().map(|kept| kept.is_lent).collect() }
    }
}

/// One message, with these sockets beside it.
fn say(channel: &OwnedFd, message: &impl Serialize, sockets: &[Kept]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let fds: Vec<_> = sockets.iter().map(|kept| kept.listener.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_BATCH_SOCKETS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    let sent = rustix::net::sendmsg(channel, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The next message, and what came beside it.
fn hear<T: for<'de> Deserialize<'de>>(channel: &OwnedFd, max_ms: u64) -> io::Result<(T, Vec<OwnedFd>)> {
    let by = clock::now().plus_ms(max_ms);
    loop {
        let left_ms = by.ms_since(clock::now());
        let left = rustix::time::Timespec {
            tv_sec: (left_ms / 1_000).cast_signed(),
            tv_nsec: (left_ms % 1_000 * 1_000_000).cast_signed(),
        };
        match rustix::event::poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut text = vec![0; HANDOVER_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_BATCH_SOCKETS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut text)], &mut beside, flags)?;
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // recvmsg(2): what had no room, or no descriptor free for it, the kernel has closed.
    if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
        return Err(io::Error::other("not everything has come; raise ulimit -n"));
    }
    Ok((serde_json::from_slice(&text[..received.bytes])?, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn channel() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn kept(count: usize) -> Vec<Kept> {
        let any = || TcpListener::bind("127.0.0.1:0").expect("a port");
        (0..count).map(|index| Kept { listener: any(), is_lent: index % 2 == 1 }).collect()
    }

    #[test]
    fn sockets_arrive_as_they_were_sent() {
        let (older, newer) = channel();
        let sockets = kept(HANDOVER_BATCH_SOCKETS + 2);
        let batches = sockets.chunks(HANDOVER_BATCH_SOCKETS);
        say(&older, &Greeting { handover: VERSION, batches: batches.len() }, &[]).unwrap();
        for batch in batches {
            say(&older, &Batch::of(batch), batch).unwrap();
        }
        let newer = Predecessor { channel: newer };
        let arrived = newer.sockets().expect("all of them");
        let told = |kept: &Kept| (kept.listener.local_addr().unwrap(), kept.is_lent);
        assert_eq!(arrived.iter().map(told).collect::<Vec<_>>(), sockets.iter().map(told).collect::<Vec<_>>());
        let listens: Vec<SocketAddr> = sockets.iter().map(|kept| told(kept).0).take(100).collect();
        let says = listens.clone();
        let other = std::thread::spawn(move || newer.tell_ready(says));
        let (word, _) = hear::<Word>(&older, UPGRADE_MS_MAX).unwrap();
        assert!(word.ready && word.addresses == listens);
        say(&older, &Word { go: true, ..Word::default() }, &[]).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn words_of_later_versions_are_skipped_or_refused() {
        let check = |text: &[u8], want: Result<usize, &str>| {
            let (older, newer) = channel();
            rustix::net::send(&older, text, SendFlags::empty()).unwrap();
            drop(older);
            let got = Predecessor { channel: newer }.sockets();
            match want {
                Ok(count) => assert_eq!(got.expect("readable").iter().count(), count),
                Err(why) => {
                    let told = got.err().expect("unreadable");
                    assert!(told.contains(why), "{told}");
                }
            }
        };
        check(br#"{"handover":1,"batches":0,"colour":"green"}"#, Ok(0));
        check(br#"{"handover":1,"batches":1}"#, Err("no sockets were handed over"));
        check(br#"{"handover":2}"#, Err("version 2, and this program knows 1"));
        check(b"{}", Err("version 0"));
        check(b"\xff", Err("no sockets were handed over"));
        let (older, newer) = channel();
        drop(older);
        assert!(Predecessor { channel: newer }.sockets().is_err());
    }

    #[test]
    fn a_name_is_found_as_a_shell_finds_it() {
        let named = |name: &str, path: &str| named(OsStr::new(name), Some(OsStr::new(path)));
        assert_eq!(named("sh", "/nowhere:/bin"), Some("/bin/sh".into()));
        assert_eq!(named("sh", "/nowhere"), None);
        assert_eq!(named("/opt/x/ptth", ""), Some("/opt/x/ptth".into()));
        assert_eq!(named("./ptth", "/bin"), Some(std::env::current_dir().unwrap().join("ptth")));
    }

    #[test]
    fn a_socket_that_did_not_come_is_missed() {
        let (older, newer) = channel();
        let sockets = kept(3);
        say(&older, &Greeting { handover: VERSION, batches: 1 }, &[]).unwrap();
        say(&older, &Batch::of(&sockets), &sockets[..2]).unwrap();
        let why = Predecessor { channel: newer }.sockets().err().expect("one is missing");
        assert!(why.contains("3 sockets were handed over, and 2 came"), "{why}");
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_missed() {
        let (older, newer) = channel();
        // More than a batch may have, and all that the kernel takes (SCM_MAX_FD).
        let sockets = kept(HANDOVER_BATCH_SOCKETS + 3);
        let fds: Vec<_> = sockets.iter().map(|kept| kept.listener.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_BATCH_SOCKETS + 3))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        let text = serde_json::to_vec(&Batch::of(&sockets)).unwrap();
        rustix::net::sendmsg(&older, &[IoSlice::new(&text)], &mut beside, SendFlags::empty()).unwrap();
        let told = hear::<Batch>(&newer, UPGRADE_MS_MAX).expect_err("not all came").to_string();
        assert!(told.contains("not everything has come"), "{told}");
        let long = vec![b' '; HANDOVER_BYTES_MAX + 1];
        rustix::net::send(&older, &long, SendFlags::empty()).unwrap();
        assert!(hear::<Word>(&newer, UPGRADE_MS_MAX).is_err());
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let (_older, newer) = channel();
        assert_eq!(hear::<Word>(&newer, 1).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
