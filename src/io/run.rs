//! One core's runtime: building it, and the tasks in it. What runs in the tasks never enters.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use rustix::event::EventfdFlags;

use super::{timer, turn};
use crate::limits::{RING_COMPLETIONS, RING_ENTRIES, TRIM_MS};

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
    static TASKS: Cell<usize> = const { Cell::new(0) };
    static STAFF: RefCell<Rc<Staff>> = RefCell::default();
}

/// The room's own tasks: they run as long as the core.
#[derive(Default)]
struct Staff {
    is_over: Cell<bool>,
    count: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

/// Why a core cannot start. Its text says what is wrong and how to mend it.
#[derive(Debug)]
pub enum BootFault {
    /// The kernel has no io_uring (ENOSYS).
    Missing,
    /// The kernel has it and does not give it to this process (EPERM, EACCES). `disabled` is
    /// `kernel.io_uring_disabled`, where it can be read.
    Forbidden { disabled: Option<u8> },
    /// No memory for the ring (ENOMEM).
    Memory,
    /// No descriptor is left for the ring or its timer (EMFILE, ENFILE).
    Descriptors,
    /// Anything else.
    Other(io::Error),
}

impl BootFault {
    fn from_io(error: io::Error) -> BootFault {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => BootFault::Missing,
            Some(libc::EPERM | libc::EACCES) => {
                let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
                BootFault::Forbidden { disabled: text.and_then(|text| text.trim().parse().ok()) }
            }
            Some(libc::ENOMEM) => BootFault::Memory,
            Some(libc::EMFILE | libc::ENFILE) => BootFault::Descriptors,
            _ => BootFault::Other(error),
        }
    }
}

impl fmt::Display for BootFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootFault::Missing => f.write_str(
                "this kernel has no io_uring: use Linux 5.11 or newer, and in a container a seccomp profile that \
                 allows io_uring_setup, io_uring_enter and io_uring_register",
            ),
            BootFault::Forbidden { disabled: Some(2) } => {
                f.write_str("io_uring is switched off here: set sysctl kernel.io_uring_disabled=0 (it is 2)")
            }
            BootFault::Forbidden { disabled: Some(1) } => f.write_str(
                "io_uring is for privileged processes only here: set sysctl kernel.io_uring_disabled=0 (it is 1), or \
                 run in the group that kernel.io_uring_group names",
            ),
            BootFault::Forbidden { .. } => f.write_str(
                "io_uring is forbidden to this process: in a container use a seccomp profile that allows \
                 io_uring_setup, io_uring_enter and io_uring_register; else look at sysctl kernel.io_uring_disabled",
            ),
            BootFault::Memory => {
                f.write_str("no memory for the io_uring ring: raise the memlock limit (ulimit -l), or free memory")
            }
            BootFault::Descriptors => {
                f.write_str("no descriptor left for io_uring: raise the nofile limit (ulimit -n)")
            }
            BootFault::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for BootFault {}

/// Raises this process's limit of descriptors as far as it may, and says where it is now.
pub fn raise_fd_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused only by a policy of the host; then the old limit stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Runs `main` on this thread in an io_uring runtime of its own, until its future ends. Call it once for each core, on
/// the core's thread. Where every task has ended by then (see [`tasks`]), all that the runtime held is given back. Tasks
/// that still run are never polled again, and their memory and descriptors stay until the process ends. A panic of `main`
/// itself goes on to the caller.
pub fn run<F: Future>(main: impl FnOnce() -> F) -> Result<F::Output, BootFault> {
    let runtime = build().map_err(BootFault::from_io)?;
    let tick = timer::start().map_err(BootFault::from_io)?;
    let staff = Rc::new(Staff::default());
    STAFF.set(staff.clone());
    let before = TASKS.get();
    // Dropping a monoio runtime drops queued tasks outside of it, and the sockets in them panic there. On a panic of
    // `main` it is left alone as well.
    let mut runtime = ManuallyDrop::new(runtime);
    let output = runtime.block_on(async {
        spawn_staff(timer::drive(tick));
        if let Some(trim) = TRIM.get() {
            spawn_staff(give_back(*trim));
        }
        let driven = turn::start();
        let output = main().await;
        drop(driven); // a core that could not end in order has to ring, too
        staff.is_over.set(true);
        staff.wakers.take().into_iter().for_each(Waker::wake);
        settle().await.map_err(BootFault::from_io)?;
        Ok(output)
    });
    timer::end();
    if TASKS.get() == before {
        // Nothing is in flight any more that would need the runtime while it goes.
        let runtime = ManuallyDrop::into_inner(runtime);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(runtime))) {
            count(&*panic);
        }
    }
    output
}

static TRIM: OnceLock<fn()> = OnceLock::new();

/// `trim` gives back to the kernel what the calling thread has freed; each core calls it now and then. Once, by whoever chose
/// the allocator, before the first core runs.
pub fn set_trim(trim: fn()) {
    assert!(TRIM.set(trim).is_ok(), "the allocator is chosen once");
}

async fn give_back(trim: fn()) {
    loop {
        timer::sleep_ms(TRIM_MS).await;
        trim();
    }
}

/// Lets the kernel close what was dropped last: a close is an operation, too, and one that ends another one may ask
/// for a third. Leaves no operation behind.
async fn settle() -> io::Result<()> {
    const TURNS: usize = 4;
    let ring = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let counter = monoio::fs::File::from_std(std::fs::File::from(ring.try_clone()?))?;
    let mut count = Box::new([0u8; 8]);
    for _ in 0..TURNS {
        rustix::io::write(&ring, &1u64.to_ne_bytes())?;
        let (read, buffer) = counter.read_at(count, 0).await;
        count = buffer;
        read?;
    }
    Ok(())
}

fn build() -> io::Result<monoio::Runtime<monoio::IoUringDriver>> {
    // COOP_TASKRUN (5.19) spares the interrupts that completions would send to a running thread, SINGLE_ISSUER (6.0)
    // some locking: 6.0 us of CPU for each relayed request instead of 7.8 (64 connections, nothing but relaying, reads
    // and writes as in this room). DEFER_TASKRUN gave 6.2, and monoio does not reap for it while it is busy.
    let mut flags = io_uring::IoUring::builder();
    flags.setup_cqsize(RING_COMPLETIONS).setup_coop_taskrun().setup_single_issuer();
    match with_flags(flags) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let mut plain = io_uring::IoUring::builder();
            plain.setup_cqsize(RING_COMPLETIONS);
            with_flags(plain)
        }
        built => built,
    }
}

fn with_flags(flags: io_uring::Builder) -> io::Result<monoio::Runtime<monoio::IoUringDriver>> {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(RING_ENTRIES).uring_builder(flags).build()
}

/// Starts a task on this core that nobody waits for. A panic inside ends this task only: it is counted in
/// [`panics`] and logged.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    TASKS.set(TASKS.get() + 1);
    drop(monoio::spawn(Guarded { future: Some(future) }));
}

/// Tasks that were started with [`spawn`] on this thread and have not ended.
#[must_use]
pub fn tasks() -> usize {
    TASKS.get() - STAFF.with_borrow(|staff| staff.count.get())
}

/// Starts a task that lives as long as the core.
pub(super) fn spawn_staff(future: impl Future<Output = ()> + 'static) {
    let staff = STAFF.with_borrow(Rc::clone);
    staff.count.set(staff.count.get() + 1);
    spawn(async move {
        let mut future = std::pin::pin!(future);
        let mut is_known = false;
        std::future::poll_fn(|cx| {
            if staff.is_over.get() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_known, true) {
                staff.wakers.borrow_mut().push(cx.waker().clone());
            }
            future.as_mut().poll(cx)
        })
        .await;
    });
}

/// Tasks of this core that a panic ended.
#[must_use]
pub fn panics() -> u64 {
    PANICS.get()
}

pin_project! {
    /// A future whose panic is its own end and nobody else's. It is dropped as soon as it ends.
    struct Guarded<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.project().future;
        let polled = catch_unwind(AssertUnwindSafe(|| match slot.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Ready(()),
        }));
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(panic) => count(&*panic),
        }
        // What the task held may panic while it goes, too.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| slot.set(None))) {
            count(&*panic);
        }
        TASKS.set(TASKS.get() - 1);
        Poll::Ready(())
    }
}

#[cold]
fn count(panic: &(dyn Any + Send)) {
    PANICS.set(PANICS.get() + 1);
    let text = match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "no text",
    };
    tracing::error!(panic = text, "a task panicked and was ended; the others go on");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(errno: i32, want: &str) {
        let text = BootFault::from_io(io::Error::from_raw_os_error(errno)).to_string();
        assert!(text.contains(want), "{errno}: {text}");
    }

    #[test]
    fn a_boot_fault_says_how_to_mend_it() {
        check(libc::ENOSYS, "Linux 5.11");
        check(libc::EPERM, "kernel.io_uring_disabled");
        check(libc::EACCES, "kernel.io_uring_disabled");
        check(libc::ENOMEM, "memlock");
        check(libc::EMFILE, "nofile");
        check(libc::EINVAL, "cannot be set up");
    }
}
