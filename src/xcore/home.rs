//! Where messages reach a core: its bounded mailbox, and the one place where it decides to sleep. What the messages mean
//! never enters.
//!
//! A core's bell task does, forever: [`Home::take_orders`], [`Home::pop`] until `None`, [`Home::take_look`], [`Home::run_wakes`],
//! [`Home::prepare_to_sleep`]; if that said true, wait for the doorbell; [`Home::awake`].

use super::bell::{Bell, Defer, Ring, WakeBits};
use super::sync::{ArrayQueue, AtomicBool, AtomicU32, Ordering};
use super::wakers::HomeWakers;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// What everybody holds of a core, to leave it messages. Made before the core's thread, cheap to clone.
pub struct Post<M> {
    shared: Arc<Shared<M>>,
}

/// What the core itself holds: the other end of its [`Post`], and its tasks' wakers. Stays on the thread that made it.
pub struct Home<M> {
    shared: Arc<Shared<M>>,
    wakers: HomeWakers,
    /// Not `Send`.
    stays: PhantomData<Rc<()>>,
}

struct Shared<M> {
    mailbox: ArrayQueue<M>,
    door: Arc<Door>,
    /// Somebody lives here. Partner: the swap of any other thread that tries to; nothing else hangs on it.
    inhabited: AtomicBool,
}

/// The part of a home that does not depend on its messages, so that wakers can hold it.
pub(super) struct Door {
    /// Somebody asked the owner to look for work.
    pub look: AtomicBool,
    /// A bit for each order that the owner has not taken yet.
    pub orders: AtomicU32,
    pub bell: Bell,
    pub bits: WakeBits,
}

impl<M: Send> Post<M> {
    /// A mailbox of `messages_max`, how to ring the core that will read it, and when.
    #[must_use]
    pub fn new(messages_max: usize, ring: Ring, defer: Defer) -> Post<M> {
        let bell = Bell::new(ring, defer);
        let (look, orders) = (AtomicBool::new(false), AtomicU32::new(0));
        let door = Arc::new(Door { look, orders, bell, bits: WakeBits::new() });
        let mailbox = ArrayQueue::new(messages_max);
        Post { shared: Arc::new(Shared { mailbox, door, inhabited: AtomicBool::new(false) }) }
    }

    /// Leaves a message and has the core rung if it sleeps. A full mailbox hands it back.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.shared.mailbox.push(message)?; // partner: the looks in `Home::pop` and `Home::prepare_to_sleep`
        self.shared.door.bell.nudge();
        Ok(())
    }

    /// Asks the core to look for work that waits on other cores: it has an idle credit, as far as the board knows.
    pub fn look(&self) {
        // Partners: the swap in `Home::take_look`, and the load in `Home::prepare_to_sleep`. A swap and no store: when two
        // cores ask at once, the look that answers both must see what either has laid out.
        self.shared.door.look.swap(true, Ordering::AcqRel);
        self.shared.door.bell.nudge();
    }

    /// Gives orders, each a bit: unlike a message none of them is ever refused, however full the mailbox is. One that was given
    /// before and is not taken yet stays one.
    pub fn order(&self, orders: u32) {
        // Partners: the swap in `Home::take_orders`, and the load in `Home::prepare_to_sleep`. Release: who takes an order
        // sees what was written before it was given.
        self.shared.door.orders.fetch_or(orders, Ordering::Release);
        self.shared.door.bell.nudge();
    }

    /// The calling thread becomes the core that reads this mailbox. Once for each mailbox; a second call is our own
    /// mistake.
    #[must_use]
    pub fn move_in(&self) -> Home<M> {
        assert!(!self.shared.inhabited.swap(true, Ordering::Relaxed), "two cores with one mailbox");
        let wakers = HomeWakers::move_in(Arc::clone(&self.shared.door));
        Home { shared: Arc::clone(&self.shared), wakers, stays: PhantomData }
    }
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Post<M> {
        Post { shared: Arc::clone(&self.shared) }
    }
}

impl<M: Send> Home<M> {
    /// The next message; oldest first of each sender.
    pub fn pop(&self) -> Option<M> {
        self.shared.mailbox.pop()
    }

    /// The orders that were given since they were last taken here.
    #[must_use]
    pub fn take_orders(&self) -> u32 {
        let orders = &self.shared.door.orders;
        if orders.load(Ordering::Relaxed) == 0 { 0 } else { orders.swap(0, Ordering::Acquire) } // partner: `Post::order`
    }

    /// Whether somebody asked this core to look for work since it was last asked here.
    #[must_use]
    pub fn take_look(&self) -> bool {
        let look = &self.shared.door.look;
        look.load(Ordering::Relaxed) && look.swap(false, Ordering::Acquire) // partner: `Post::look`
    }

    /// Wakes this core's tasks that other threads asked for.
    pub fn run_wakes(&self) {
        self.wakers.run_wakes();
    }

    /// Announces sleep and looks once more. True: nothing is there, and whatever comes from now on rings. False: there
    /// is something to do, and the core counts as awake again.
    #[must_use]
    pub fn prepare_to_sleep(&self) -> bool {
        let Door { look, orders, bell, bits } = &*self.shared.door;
        bell.prepare_to_sleep();
        let is_asked = look.load(Ordering::Relaxed) || orders.load(Ordering::Relaxed) != 0;
        let nothing = self.shared.mailbox.is_empty() && bits.is_empty() && !is_asked;
        if !nothing {
            bell.awake();
        }
        nothing
    }

    /// The sleep is over, whoever ended it.
    pub fn awake(&self) {
        self.shared.door.bell.awake();
    }

    /// For the tasks of this core; a clone is cheap and stays here as well.
    #[must_use]
    pub fn wakers(&self) -> &HomeWakers {
        &self.wakers
    }
}

impl<M> Drop for Home<M> {
    fn drop(&mut self) {
        self.wakers.move_out();
    }
}
