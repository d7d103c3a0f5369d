//! Every order of events that the memory model allows, with the smallest capacities that still meet each other.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use ptth_loom::xcore::{Home, HomeWakers, PipeRx, PipeTx, PoolBooks, Post, Ring, SendError, Spooled, at_once, pipe, spool};
use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Walks up to so many preemptions. Most bugs of this kind need two or three; an order with all of them would take
/// hours. `LOOM_MAX_PREEMPTIONS` says otherwise. The small tests below go without a bound.
fn walk(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut walk = loom::model::Builder::new();
    walk.preemption_bound = walk.preemption_bound.or(Some(preemptions));
    walk.check(test);
}

/// A doorbell as the eventfd is one: a ring between two sleeps ends the next one. It says nothing about memory, so it
/// keeps its ring under a lock of its own; a core that looks before it is rung learns nothing from it.
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
    rings: AtomicUsize,
}

impl Doorbell {
    fn new() -> Arc<Doorbell> {
        Arc::new(Doorbell { rung: Mutex::new(false), changed: Condvar::new(), rings: AtomicUsize::new(0) })
    }

    fn ring(self: &Arc<Doorbell>) -> Ring {
        let bell = Arc::clone(self);
        Arc::new(move || {
            bell.rings.fetch_add(1, Ordering::Relaxed);
            *bell.rung.lock().unwrap() = true;
            bell.changed.notify_one();
        })
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// A core: a home, its doorbell, and one task.
struct Core {
    home: Home<u32>,
    bell: Arc<Doorbell>,
    task: Arc<Task>,
}

/// What a local waker wakes. It must never be woken or dropped away from its thread.
struct Task {
    woken: AtomicBool,
    thread: thread::ThreadId,
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        assert_eq!(thread::current().id(), self.thread, "a local waker was woken on another thread");
        self.woken.store(true, Ordering::Relaxed);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.thread, "a local waker was dropped on another thread");
    }
}

impl Core {
    fn new() -> Core {
        let bell = Doorbell::new();
        Core::with(&Post::new(1, bell.ring(), at_once), bell)
    }

    fn with(post: &Post<u32>, bell: Arc<Doorbell>) -> Core {
        let task = Arc::new(Task { woken: AtomicBool::new(false), thread: thread::current().id() });
        Core { home: post.move_in(), bell, task }
    }

    /// Turns of the bell task until one of the tasks is woken. Sleeps when nothing is there; loom calls it a deadlock
    /// if nobody rings.
    fn turn_until(&self, mut woken: impl FnMut() -> bool) {
        loop {
            self.home.run_wakes();
            if woken() {
                return;
            }
            if self.home.prepare_to_sleep() {
                self.bell.wait();
            }
            self.home.awake();
        }
    }

    fn turn_until_woken(&self) {
        self.turn_until(|| self.task.woken.swap(false, Ordering::Relaxed));
    }

    /// Polls until it is ready; polls again only when the task was woken.
    fn block_on<T>(&self, mut poll: impl FnMut(&mut Context<'_>, &HomeWakers) -> Poll<T>) -> T {
        let waker = Waker::from(Arc::clone(&self.task));
        loop {
            if let Poll::Ready(ready) = poll(&mut Context::from_waker(&waker), self.home.wakers()) {
                return ready;
            }
            self.turn_until_woken();
        }
    }

    fn send(&self, tx: &mut PipeTx<u32>, piece: u32) -> bool {
        let room = self.block_on(|cx, wakers| tx.poll_ready(cx, wakers));
        if room.is_err() {
            return false;
        }
        match tx.try_send(piece) {
            Ok(()) => true,
            Err(SendError::Closed(_)) => false,
            Err(SendError::Full(_)) => panic!("there was room"),
        }
    }

    fn recv(&self, rx: &mut PipeRx<u32>) -> Option<u32> {
        self.block_on(|cx, wakers| rx.poll_recv(cx, wakers))
    }
}

loom::thread_local! {
    /// Bells that this thread will ring when its turn ends.
    static LATER: RefCell<Vec<Ring>> = RefCell::new(Vec::new());
}

fn later(ring: &Ring) {
    LATER.with(|later| later.borrow_mut().push(ring.clone()));
}

fn turn_ends() {
    LATER.with(|later| later.take()).iter().for_each(|ring| ring());
}

/// One producer rings at the end of its turn, the other at the end of its own: each may find that the core was woken by the
/// other, or that it sleeps again.
#[test]
fn no_message_is_slept_over_by_a_core_whose_bell_is_rung_later() {
    walk(3, || {
        let bell = Doorbell::new();
        let post = Post::new(2, bell.ring(), later);
        let producers = [1, 2].map(|message| {
            let post = post.clone();
            thread::spawn(move || {
                post.send(message).expect("room");
                turn_ends();
            })
        });
        let home = post.move_in();
        let mut sum = 0;
        while sum < 3 {
            while let Some(message) = home.pop() {
                sum += message;
            }
            if home.prepare_to_sleep() && sum < 3 {
                bell.wait();
            }
            home.awake();
        }
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn no_message_of_two_producers_is_slept_over() {
    walk(4, || {
        let bell = Doorbell::new();
        let post = Post::new(2, bell.ring(), at_once);
        let producers = [1, 2].map(|message| {
            let post = post.clone();
            thread::spawn(move || post.send(message).expect("room"))
        });
        let home = post.move_in();
        let (mut sum, mut sleeps) = (0, 0);
        while sum < 3 {
            while let Some(message) = home.pop() {
                sum += message;
            }
            sleeps += 1;
            if home.prepare_to_sleep() && sum < 3 {
                bell.wait();
            }
            home.awake();
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(bell.rings.load(Ordering::Relaxed) <= sleeps, "more rings than sleeps");
    });
}

/// Two give orders to a core whose mailbox has no room for a message.
#[test]
fn no_order_is_slept_over_and_each_is_taken_once() {
    walk(3, || {
        let bell = Doorbell::new();
        let post = Post::new(1, bell.ring(), at_once);
        post.send(1).expect("room");
        let givers = [1, 2].map(|order| {
            let post = post.clone();
            thread::spawn(move || post.order(order))
        });
        let home = post.move_in();
        assert_eq!(home.pop(), Some(1));
        let mut sum = 0;
        while sum < 3 {
            sum += home.take_orders();
            if home.prepare_to_sleep() && sum < 3 {
                bell.wait();
            }
            home.awake();
        }
        assert_eq!(sum, 3, "each is taken once");
        for giver in givers {
            giver.join().unwrap();
        }
    });
}

#[test]
fn a_full_mailbox_hands_the_message_back() {
    loom::model(|| {
        let bell = Doorbell::new();
        let post = Post::new(1, bell.ring(), at_once);
        let producer = {
            let post = post.clone();
            thread::spawn(move || u32::from(post.send(1).is_ok()))
        };
        let sent = u32::from(post.send(1).is_ok());
        let home = post.move_in();
        let mut got = u32::from(home.pop().is_some());
        let sent = sent + producer.join().unwrap();
        got += u32::from(home.pop().is_some());
        assert!(sent >= 1 && sent == got, "{sent} sent, {got} got");
    });
}

#[test]
fn a_wake_that_races_with_sleeping_arrives() {
    loom::model(|| {
        let core = Core::new();
        let fact = Arc::new(AtomicBool::new(false));
        let portable = core.home.wakers().portable(&Waker::from(Arc::clone(&core.task)));
        let other = thread::spawn({
            let fact = Arc::clone(&fact);
            move || {
                fact.store(true, Ordering::Relaxed); // the wake publishes it
                portable.wake();
            }
        });
        core.turn_until_woken();
        assert!(fact.load(Ordering::Relaxed), "the task ran before what it was woken for");
        other.join().unwrap();
        core.home.run_wakes();
        assert_eq!(core.home.wakers().slots_taken(), 0, "the dropped waker gave its slot back");
    });
}

#[test]
fn two_threads_wake_two_tasks_through_one_bell() {
    walk(3, || {
        let core = Core::new();
        let pairs = [0, 1].map(|_| {
            let fact = Arc::new(AtomicBool::new(false));
            let task = Arc::new(Task { woken: AtomicBool::new(false), thread: thread::current().id() });
            (fact, task)
        });
        let others = pairs.each_ref().map(|(fact, task)| {
            let (fact, portable) = (Arc::clone(fact), core.home.wakers().portable(&Waker::from(Arc::clone(task))));
            thread::spawn(move || {
                fact.store(true, Ordering::Relaxed);
                portable.wake_by_ref();
            })
        });
        core.turn_until(|| {
            pairs.iter().all(|(fact, task)| {
                let woken = task.woken.load(Ordering::Relaxed);
                assert!(!woken || fact.load(Ordering::Relaxed), "a task ran before what it was woken for");
                woken
            })
        });
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn a_slot_is_reused_only_when_nobody_can_wake_its_former_task() {
    walk(4, || {
        let core = Core::new();
        let first = core.home.wakers().portable(&Waker::from(Arc::clone(&core.task)));
        let other = thread::spawn(move || drop(first));
        core.home.run_wakes();
        let task = Arc::new(Task { woken: AtomicBool::new(false), thread: thread::current().id() });
        let second = core.home.wakers().portable(&Waker::from(Arc::clone(&task)));
        let third = thread::spawn(move || second.wake());
        core.turn_until(|| task.woken.load(Ordering::Relaxed));
        other.join().unwrap();
        third.join().unwrap();
        core.home.run_wakes();
        assert_eq!(core.home.wakers().slots_taken(), 0);
    });
}

#[test]
fn a_pipe_of_one_piece_passes_two_and_the_end() {
    walk(4, || {
        let (mut tx, mut rx) = pipe(1);
        let sender = thread::spawn(move || {
            let core = Core::new();
            assert!(core.send(&mut tx, 1) && core.send(&mut tx, 2));
        });
        let core = Core::new();
        assert_eq!(core.recv(&mut rx), Some(1));
        assert_eq!(core.recv(&mut rx), Some(2));
        assert_eq!(core.recv(&mut rx), None);
        assert!(rx.is_closed());
        sender.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_room_sees_its_receiver_leave() {
    walk(4, || {
        let (mut tx, mut rx) = pipe(1);
        let sender = thread::spawn(move || {
            let core = Core::new();
            while core.send(&mut tx, 1) {}
            assert!(tx.is_closed());
        });
        let core = Core::new();
        assert_eq!(core.recv(&mut rx), Some(1));
        drop(rx);
        sender.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_nothing_sees_its_receiver_leave() {
    loom::model(|| {
        let (mut tx, rx) = pipe::<u32>(1);
        let sender = thread::spawn(move || {
            let core = Core::new();
            core.block_on(|cx, wakers| tx.poll_closed(cx, wakers));
        });
        drop(rx);
        sender.join().unwrap();
    });
}

#[test]
fn a_piece_that_nobody_takes_is_dropped_by_one_of_the_two() {
    loom::model(|| {
        let piece = Arc::new(());
        let (mut tx, rx) = pipe(1);
        let sender = thread::spawn({
            let piece = Arc::clone(&piece);
            move || _ = tx.try_send(piece)
        });
        drop(rx);
        sender.join().unwrap();
        assert_eq!(Arc::strong_count(&piece), 1);
    });
}

/// A record, and what it owns.
struct Line(u32, usize);

impl Spooled for Line {
    fn bytes_beside(&self) -> usize {
        self.1
    }
}

#[test]
fn whoever_sees_that_a_core_has_left_its_spool_sees_all_that_is_in_it() {
    loom::model(|| {
        let (tx, rx) = spool(2, 0);
        let core = thread::spawn(move || assert!(tx.give(Line(1, 0)) && tx.give(Line(2, 0))));
        let is_left = rx.is_left();
        let taken = Vec::from_iter(std::iter::from_fn(|| rx.take().map(|Line(id, _)| id)));
        assert!(taken.is_empty() || taken[0] == 1);
        assert!(!is_left || taken == [1, 2]);
        core.join().unwrap();
    });
}

#[test]
fn what_a_spool_holds_is_never_more_than_it_may_and_all_of_it_comes_back() {
    loom::model(|| {
        let (tx, rx) = spool(2, 3);
        let core = thread::spawn(move || {
            assert!(tx.give(Line(1, 2)), "it is empty");
            let is_second = tx.give(Line(2, 2)); // beside the first it is too much
            let is_third = tx.give(Line(3, 1)); // and this one is not
            (is_second, is_third, tx)
        });
        let taken = [rx.take(), rx.take()];
        let (is_second, is_third, tx) = core.join().unwrap();
        assert!(!is_second || taken.iter().any(Option::is_some), "both were there");
        assert!(is_third, "there was a place, and room beside whichever of the two");
        while rx.take().is_some() {}
        assert!(tx.give(Line(4, 3)), "nothing counts that is gone");
    });
}

#[test]
fn the_books_never_pass_their_bounds_and_balance_in_the_end() {
    loom::model(|| {
        let books = PoolBooks::new();
        let other = thread::spawn({
            let books = Arc::clone(&books);
            move || {
                let held = books.try_take(3, 1, 4);
                assert!(books.requests() <= 1 && books.bytes() <= 4);
                held.is_some()
            }
        });
        let held = books.try_take(2, 1, 4);
        assert!(books.requests() <= 1 && books.bytes() <= 4);
        let here = held.is_some();
        drop(held);
        assert!(other.join().unwrap() || here, "somebody gets the last place");
        assert_eq!((books.requests(), books.bytes()), (0, 0));
    });
}
