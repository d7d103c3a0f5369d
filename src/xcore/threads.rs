//! The wing on real threads: what loom shows for two pieces, here with many. No order of events is forced.

use super::{Home, HomeWakers, PipeRx, PipeTx, Post, Ring, SendError, at_once, pipe};
use crate::limits::{PIPE_PIECES_MAX, WAKE_BITS};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
    rings: AtomicU32,
}

impl Doorbell {
    fn ring(self: &Arc<Doorbell>) -> Ring {
        let bell = Arc::clone(self);
        Arc::new(move || {
            bell.rings.fetch_add(1, Ordering::Relaxed);
            *bell.rung.lock().unwrap() = true;
            bell.changed.notify_one();
        })
    }

    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, late) = self.changed.wait_timeout_while(rung, Duration::from_secs(20), |rung| !*rung).unwrap();
        assert!(!late.timed_out(), "nobody rang");
        *rung = false;
    }
}

/// What a local waker wakes. It must never be woken or dropped away from its thread.
struct Task {
    wakes: AtomicU32,
    thread: thread::ThreadId,
}

impl Task {
    fn new() -> Arc<Task> {
        Arc::new(Task { wakes: AtomicU32::new(0), thread: thread::current().id() })
    }

    fn wakes(&self) -> u32 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        assert_eq!(thread::current().id(), self.thread, "a local waker was woken on another thread");
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.thread, "a local waker was dropped on another thread");
    }
}

struct Core {
    home: Home<u64>,
    bell: Arc<Doorbell>,
    task: Arc<Task>,
    seen: Cell<u32>,
}

impl Core {
    fn new() -> Core {
        let bell = Arc::new(Doorbell::default());
        Core { home: Post::new(64, bell.ring(), at_once).move_in(), bell, task: Task::new(), seen: Cell::new(0) }
    }

    fn block_on<T>(&self, mut poll: impl FnMut(&mut Context<'_>, &HomeWakers) -> Poll<T>) -> T {
        let waker = Waker::from(Arc::clone(&self.task));
        loop {
            if let Poll::Ready(ready) = poll(&mut Context::from_waker(&waker), self.home.wakers()) {
                return ready;
            }
            self.home.run_wakes();
            while self.task.wakes() == self.seen.get() {
                if self.home.prepare_to_sleep() {
                    self.bell.wait();
                }
                self.home.awake();
                self.home.run_wakes();
            }
            self.seen.set(self.task.wakes());
        }
    }

    fn send(&self, tx: &mut PipeTx<u64>, piece: u64) -> bool {
        if self.block_on(|cx, wakers| tx.poll_ready(cx, wakers)).is_err() {
            return false;
        }
        match tx.try_send(piece) {
            Ok(()) => true,
            Err(SendError::Closed(_)) => false,
            Err(SendError::Full(_)) => panic!("there was room"),
        }
    }

    fn recv(&self, rx: &mut PipeRx<u64>) -> Option<u64> {
        self.block_on(|cx, wakers| rx.poll_recv(cx, wakers))
    }
}

#[test]
fn a_pipe_moves_a_hundred_thousand_pieces_in_order() {
    const PIECES: u64 = 100_000;
    let (mut tx, mut rx) = pipe(PIPE_PIECES_MAX);
    let sender = thread::spawn(move || {
        let core = Core::new();
        assert!((0..PIECES).all(|piece| core.send(&mut tx, piece)));
    });
    let core = Core::new();
    assert!((0..PIECES).all(|piece| core.recv(&mut rx) == Some(piece)));
    assert_eq!(core.recv(&mut rx), None);
    assert_eq!(core.home.wakers().slots_taken(), 1, "one slot for the whole pipe");
    sender.join().unwrap();
}

#[test]
fn a_mailbox_under_four_producers_loses_nothing() {
    const MESSAGES: u64 = 20_000;
    let bell = Arc::new(Doorbell::default());
    let post = Post::new(16, bell.ring(), at_once);
    let producers = [0, 1, 2, 3].map(|producer| {
        let post = post.clone();
        thread::spawn(move || {
            for message in 0..MESSAGES {
                let mut left = post.send((producer, message));
                while let Err(full) = left {
                    thread::yield_now();
                    left = post.send(full);
                }
            }
        })
    });
    let home = post.move_in();
    let mut next = [0; 4];
    while next != [MESSAGES; 4] {
        while let Some((producer, message)) = home.pop() {
            assert_eq!(message, next[producer], "out of order");
            next[producer] += 1;
        }
        if next != [MESSAGES; 4] && home.prepare_to_sleep() {
            bell.wait();
        }
        home.awake();
    }
    for producer in producers {
        producer.join().unwrap();
    }
    assert_eq!(home.pop(), None);
}

#[test]
fn an_order_reaches_a_core_whose_mailbox_is_full() {
    const ORDERS: u32 = 16;
    const ALL: u32 = (1 << ORDERS) - 1;
    let bell = Arc::new(Doorbell::default());
    let post = Post::new(1, bell.ring(), at_once);
    post.send(7).unwrap();
    assert_eq!(post.send(8), Err(8), "a message is refused");
    let givers = [0, 1].map(|giver| {
        let post = post.clone();
        thread::spawn(move || (0..ORDERS).filter(|order| order % 2 == giver).for_each(|order| post.order(1 << order)))
    });
    let home = post.move_in();
    let mut all = 0;
    while all != ALL {
        let orders = home.take_orders();
        assert_eq!(all & orders, 0, "each is taken once");
        all |= orders;
        // A full mailbox is a reason not to sleep; whoever has read it sleeps, and is rung for an order alone.
        let _ = home.pop();
        if home.prepare_to_sleep() && all != ALL {
            bell.wait();
        }
        home.awake();
    }
    givers.into_iter().for_each(|giver| giver.join().unwrap());
    assert!(home.prepare_to_sleep(), "nothing is left");
}

#[test]
fn a_pipe_whose_ends_live_on_one_core_rings_nobody() {
    let core = Core::new();
    let (mut tx, mut rx) = pipe(1);
    let waker = Waker::from(Arc::clone(&core.task));
    let mut cx = Context::from_waker(&waker);
    assert!(rx.poll_recv(&mut cx, core.home.wakers()).is_pending());
    assert!(core.home.prepare_to_sleep());
    tx.try_send(7).unwrap();
    assert_eq!(core.task.wakes(), 1, "woken on the spot");
    assert_eq!(core.bell.rings.load(Ordering::Relaxed), 0);
    assert_eq!(rx.poll_recv(&mut cx, core.home.wakers()), Poll::Ready(Some(7)));
}

#[test]
fn a_pipe_that_is_full_refuses_and_one_that_is_closed_says_so() {
    let (mut tx, rx) = pipe(2);
    assert_eq!((tx.try_send(1), tx.try_send(2), tx.try_send(3)), (Ok(()), Ok(()), Err(SendError::Full(3))));
    assert!(!tx.is_closed() && !rx.is_closed());
    drop(rx);
    assert!(tx.is_closed());
    assert_eq!(tx.try_send(4), Err(SendError::Closed(4)));
}

#[test]
fn a_pipe_end_may_move_to_another_core() {
    let (mut tx, mut rx) = pipe(1);
    let first = Core::new();
    let waker = Waker::from(Arc::clone(&first.task));
    assert!(rx.poll_recv(&mut Context::from_waker(&waker), first.home.wakers()).is_pending());
    let second = thread::spawn(move || {
        let core = Core::new();
        (core.recv(&mut rx), core.recv(&mut rx), core.recv(&mut rx))
    });
    assert!(first.send(&mut tx, 1) && first.send(&mut tx, 2));
    drop(tx);
    assert_eq!(second.join().unwrap(), (Some(1), Some(2), None));
    first.home.run_wakes();
    assert_eq!(first.home.wakers().slots_taken(), 0, "both slots are free again");
}

#[test]
fn slots_come_back_from_wakers_that_are_dropped_elsewhere() {
    let core = Core::new();
    let (to_other, wakers) = mpsc::channel::<Waker>();
    let (to_here, dropped) = mpsc::channel();
    let other = thread::spawn(move || {
        for waker in wakers {
            waker.wake_by_ref();
            let twin = waker.clone();
            drop(waker);
            twin.wake();
            to_here.send(()).unwrap();
        }
    });
    for round in 0..1000 {
        let task = Task::new();
        to_other.send(core.home.wakers().portable(&Waker::from(Arc::clone(&task)))).unwrap();
        dropped.recv().unwrap();
        if round % 2 == 0 {
            core.home.run_wakes();
            assert!(task.wakes() > 0);
            assert_eq!(Arc::strong_count(&task), 1, "the table has let go of it");
        }
        assert!(core.home.wakers().slots_taken() <= 4, "a table that nobody empties finds free slots itself");
    }
    drop(to_other);
    other.join().unwrap();
}

#[test]
fn slots_that_share_a_bit_are_woken_together_and_none_is_lost() {
    let core = Core::new();
    let tasks: Vec<_> = (0..WAKE_BITS + 10).map(|_| Task::new()).collect();
    let portables: Vec<_> =
        tasks.iter().map(|task| core.home.wakers().portable(&Waker::from(Arc::clone(task)))).collect();
    let portables = thread::spawn(move || {
        portables[WAKE_BITS + 7].wake_by_ref();
        portables[11].wake_by_ref();
        portables
    });
    let portables = portables.join().unwrap();
    core.home.run_wakes();
    let woken: Vec<_> = (0..tasks.len()).filter(|&at| tasks[at].wakes() > 0).collect();
    assert_eq!(woken, [7, 11, WAKE_BITS + 7]);
    drop(portables);
    core.home.run_wakes();
    assert_eq!(core.home.wakers().slots_taken(), 0);
}

#[test]
fn a_wake_after_the_core_has_ended_is_harmless() {
    let core = Core::new();
    let (task, wakers) = (Arc::clone(&core.task), core.home.wakers().clone());
    let portable = wakers.portable(&Waker::from(Arc::clone(&task)));
    drop(core);
    portable.wake_by_ref();
    thread::spawn(move || portable.wake()).join().unwrap();
    assert_eq!(task.wakes(), 0);
    assert_eq!(Arc::strong_count(&task), 1, "the table let go of it when the core ended");
}

#[test]
#[should_panic(expected = "two cores with one mailbox")]
fn a_mailbox_has_one_reader() {
    let post = Post::<u64>::new(1, Arc::new(|| ()), at_once);
    let _home = post.move_in();
    let _thief = post.move_in();
}

#[test]
fn what_crosses_cores_may_cross() {
    fn crosses<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    crosses::<PipeTx<Cell<u8>>>();
    crosses::<PipeRx<Cell<u8>>>();
    crosses::<super::Held>();
    crosses::<super::Placement>();
    crosses::<super::Guest>();
    is_shared::<Post<Cell<u8>>>();
    is_shared::<super::Board>();
    is_shared::<super::PoolBooks>();
    is_shared::<super::PoolFlow>();
    is_shared::<super::Crowd>();
    is_shared::<super::MemoryGauge>();
}
