//! Wakers that may be woken and dropped on any thread, for tasks that must not. A task's own waker stays in its core's
//! table; what leaves the core is a slot number.
//!
//! monoio's wakers are tied to their thread (waking or dropping one elsewhere frees the task on the wrong thread), so a
//! [portable](HomeWakers::portable) waker carries none: woken at home it wakes the table's entry, woken elsewhere it sets
//! the slot's bit and rings the bell.

use super::bell::WakeBits;
use super::home::Door;
use super::sync::{Ordering, fence, thread_local};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

thread_local! {
    /// The tables of the homes on this thread: one, but for tests.
    #[allow(clippy::missing_const_for_thread_local)] // loom's macro takes no const block
    static HERE: RefCell<Vec<Rc<Table>>> = RefCell::new(Vec::new());
}

/// One core's table of wakers, for the tasks of that core. Stays on its thread.
#[derive(Clone)]
pub struct HomeWakers {
    table: Rc<Table>,
}

/// A portable waker that its holder keeps for long and points at whichever task polls now. It may travel; a new home
/// gives it a new slot.
pub struct Portable {
    seat: Arc<Seat>,
    waker: Waker,
}

/// A slot of some home's table, owned by everybody who may wake it.
struct Seat {
    door: Arc<Door>,
    slot: u32,
}

/// Wakers are foreign code: they are woken and dropped while nothing in here is borrowed.
struct Table {
    door: Arc<Door>,
    slots: RefCell<Slots>,
    /// Kept for its memory.
    woken: Cell<Vec<Waker>>,
}

struct Slots {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    local: Option<Waker>,
    /// Without an owner, the slot is free to be used again. A wake for its former owner may still be under way; it then
    /// wakes the new one for nothing.
    seat: Weak<Seat>,
}

impl HomeWakers {
    pub(super) fn move_in(door: Arc<Door>) -> HomeWakers {
        let slots = RefCell::new(Slots { entries: Vec::new(), free: Vec::new() });
        let table = Rc::new(Table { door, slots, woken: Cell::default() });
        HERE.with(|here| here.borrow_mut().push(Rc::clone(&table)));
        HomeWakers { table }
    }

    /// The core ends: its tasks' wakers are dropped, and later wakes find nobody.
    pub(super) fn move_out(&self) {
        // A thread that is ending has forgotten the list already.
        let _ = HERE.try_with(|here| here.borrow_mut().retain(|table| !Rc::ptr_eq(table, &self.table)));
        let locals: Vec<Option<Waker>> =
            self.table.slots.borrow_mut().entries.iter_mut().map(|entry| entry.local.take()).collect();
        drop(locals);
    }

    /// A waker for any thread that wakes `local` on this one. `local` is dropped here, some time after the last clone of
    /// the answer is gone.
    #[must_use]
    pub fn portable(&self, local: &Waker) -> Waker {
        Waker::from(self.take_slot(local))
    }

    /// As [`portable`](Self::portable), for one who asks at every poll: the slot is taken once for each home, and the
    /// task in it exchanged where it changed.
    pub(super) fn refresh<'a>(&self, local: &Waker, kept: &'a mut Option<Portable>) -> &'a Waker {
        match kept {
            Some(portable) if Arc::ptr_eq(&portable.seat.door, &self.table.door) => {
                let mut slots = self.table.slots.borrow_mut();
                let entry = &mut slots.entries[portable.seat.slot as usize];
                if !entry.local.as_ref().is_some_and(|known| known.will_wake(local)) {
                    let old = entry.local.replace(local.clone());
                    drop(slots);
                    drop(old);
                }
            }
            _ => {
                let seat = self.take_slot(local);
                *kept = Some(Portable { waker: Waker::from(Arc::clone(&seat)), seat });
            }
        }
        &kept.as_ref().expect("just filled").waker
    }

    /// Wakes the tasks whose bits were set by other threads, and frees the slots that lost their owners.
    pub fn run_wakes(&self) {
        let mut woken = self.table.woken.take();
        let mut slots = self.table.slots.borrow_mut();
        self.table.door.bits.take(|bit| {
            let mut slot = bit;
            while slot < slots.entries.len() {
                woken.extend(slots.wake(slot));
                slot += WakeBits::COUNT;
            }
        });
        drop(slots);
        woken.drain(..).for_each(Waker::wake);
        self.table.woken.set(woken);
    }

    /// Slots now taken, or not yet found to be free.
    #[must_use]
    pub fn slots_taken(&self) -> usize {
        let slots = self.table.slots.borrow();
        slots.entries.len() - slots.free.len()
    }

    fn take_slot(&self, local: &Waker) -> Arc<Seat> {
        let grows = |slots: &Slots| slots.free.is_empty() && slots.entries.len() == slots.entries.capacity();
        if grows(&self.table.slots.borrow()) {
            self.run_wakes(); // first see who has left
        }
        let mut slots = self.table.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| slots.grow());
        let seat = Arc::new(Seat { door: Arc::clone(&self.table.door), slot });
        slots.entries[slot as usize] = Entry { local: Some(local.clone()), seat: Arc::downgrade(&seat) };
        seat
    }
}

impl Slots {
    fn grow(&mut self) -> u32 {
        self.entries.push(Entry { local: None, seat: Weak::new() });
        u32::try_from(self.entries.len() - 1).expect("fewer tasks than numbers")
    }

    /// The waker of a slot whose bit was set. A slot without an owner becomes free, but its waker is woken all the same:
    /// whoever dropped the last owner may have woken it first, and the two set the same bit.
    fn wake(&mut self, slot: usize) -> Option<Waker> {
        let entry = &mut self.entries[slot];
        if entry.seat.strong_count() > 0 {
            return entry.local.clone();
        }
        fence(Ordering::Acquire); // partner: the release of each owner as it was dropped, and the wakes before it
        let local = entry.local.take()?;
        self.free.push(u32::try_from(slot).expect("fewer tasks than numbers"));
        Some(local)
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Seat>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Seat>) {
        match self.local() {
            Some(local) => local.wake(),
            None => {
                self.door.bits.set(self.slot);
                self.door.bell.nudge();
            }
        }
    }
}

impl Seat {
    /// The task's own waker, if this thread is its home.
    fn local(&self) -> Option<Waker> {
        let find = |here: &RefCell<Vec<Rc<Table>>>| {
            let here = here.borrow();
            let table = here.iter().find(|table| Arc::ptr_eq(&table.door, &self.door))?;
            table.slots.borrow().entries[self.slot as usize].local.clone()
        };
        HERE.try_with(find).ok().flatten()
    }
}

impl Drop for Seat {
    /// The home frees the slot when it next looks at its bits. That can wait, so nobody rings.
    fn drop(&mut self) {
        self.door.bits.set(self.slot);
    }
}
