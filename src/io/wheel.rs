//! The timer wheel: deadlines in, wakers out. A plain structure that is told the time; clocks, descriptors and tasks never
//! enter.
#![forbid(unsafe_code)]

use std::task::Waker;

use crate::clock::Now;
use crate::limits::{TICK_MS, WHEEL_SLOTS};

const TICK_NS: u64 = TICK_MS * 1_000_000;
const SLOT_MASK: u64 = WHEEL_SLOTS as u64 - 1;
const NONE: u32 = u32::MAX;

/// One timer of one wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u32);

/// Unset --set--> Set --turn--> Fired --set--> Set;   Set, Fired --clear--> Unset;   every state --remove--> free
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unset,
    /// Fires in the turn of this tick.
    Set {
        due: u64,
    },
    Fired,
}

struct Entry {
    state: State,
    /// The tick whose slot holds this entry. It is never later than `due`: a deadline that moved away stays where it
    /// is and is moved when its old slot is visited, so that moving it costs a store.
    linked: Option<u64>,
    previous: u32,
    next: u32, // of its slot, or of the free list
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
struct Slot {
    first: u32,
    last: u32,
}

/// Hashed by tick into a ring of slots, each a list in order of arrival.
pub(super) struct Wheel {
    slots: Box<[Slot]>,
    entries: Vec<Entry>,
    free: u32,
    /// Ticks up to this one have fired.
    done: u64,
    linked_count: usize,
}

impl Wheel {
    pub(super) fn new(now: Now) -> Wheel {
        Wheel {
            slots: vec![Slot { first: NONE, last: NONE }; WHEEL_SLOTS].into_boxed_slice(),
            entries: Vec::new(),
            free: NONE,
            done: now.0 / TICK_NS,
            linked_count: 0,
        }
    }

    /// No timer is in any slot, so nobody has to turn it.
    pub(super) fn is_empty(&self) -> bool {
        self.linked_count == 0
    }

    pub(super) fn add(&mut self) -> Key {
        let fresh = Entry { state: State::Unset, linked: None, previous: NONE, next: NONE, waker: None };
        if self.free == NONE {
            self.entries.push(fresh);
            Key(u32::try_from(self.entries.len() - 1).expect("fewer timers than descriptors"))
        } else {
            let key = Key(self.free);
            self.free = self.entry(key).next;
            *self.entry(key) = fresh;
            key
        }
    }

    /// Frees the timer. The caller drops its waker when it does not borrow the wheel any more: a waker may hold the last
    /// reference to a task with timers of its own.
    #[must_use]
    pub(super) fn remove(&mut self, key: Key) -> Option<Waker> {
        self.unlink(key);
        let free = self.free;
        let entry = self.entry(key);
        entry.next = free;
        entry.state = State::Unset;
        let waker = entry.waker.take();
        self.free = key.0;
        waker
    }

    /// Fires once in the first turn at or after `at`; an `at` in the past fires in the next turn.
    pub(super) fn set(&mut self, key: Key, at: Now) {
        let due = at.0.div_ceil(TICK_NS).max(self.done + 1);
        let entry = self.entry(key);
        entry.state = State::Set { due };
        match entry.linked {
            Some(tick) if tick <= due => {}
            Some(_) => {
                self.unlink(key);
                self.link(key, due);
            }
            None => self.link(key, due),
        }
    }

    /// It stays in its slot until that is visited: most cleared timers are set again before.
    pub(super) fn clear(&mut self, key: Key) {
        self.entry(key).state = State::Unset;
    }

    #[cfg(test)]
    fn is_set(&self, key: Key) -> bool {
        matches!(self.entries[key.0 as usize].state, State::Set { .. })
    }

    /// True once for each time that it fired.
    pub(super) fn take_fired(&mut self, key: Key) -> bool {
        let entry = self.entry(key);
        let fired = entry.state == State::Fired;
        if fired {
            entry.state = State::Unset;
        }
        fired
    }

    /// Who is woken when it fires. Hands back a waker that this one replaces; see [`Wheel::remove`].
    #[must_use]
    pub(super) fn listen(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let entry = self.entry(key);
        match &entry.waker {
            Some(old) if old.will_wake(waker) => None,
            _ => entry.waker.replace(waker.clone()),
        }
    }

    /// Fires what is due and puts its wakers behind `wake`, earlier ticks first.
    pub(super) fn turn(&mut self, now: Now, wake: &mut Vec<Waker>) {
        let until = now.0 / TICK_NS;
        if self.linked_count > 0 {
            // After a stall of more than a round each slot still needs one visit only.
            let from = (self.done + 1).max((until + 1).saturating_sub(WHEEL_SLOTS as u64));
            for tick in from..=until {
                self.visit(tick, wake);
            }
        }
        self.done = self.done.max(until);
        self.check();
    }

    fn visit(&mut self, tick: u64, wake: &mut Vec<Waker>) {
        let mut at = self.slots[slot_of(tick)].first;
        while at != NONE {
            let key = Key(at);
            let entry = self.entry(key);
            at = entry.next;
            match entry.state {
                State::Set { due } if due <= tick => {
                    entry.state = State::Fired;
                    wake.extend(entry.waker.take());
                    self.unlink(key);
                }
                State::Set { due } if slot_of(due) == slot_of(tick) => entry.linked = Some(due), // a later round
                State::Set { due } => {
                    self.unlink(key);
                    self.link(key, due);
                }
                State::Unset | State::Fired => self.unlink(key),
            }
        }
    }

    fn link(&mut self, key: Key, tick: u64) {
        let slot = &mut self.slots[slot_of(tick)];
        let last = std::mem::replace(&mut slot.last, key.0);
        if last == NONE {
            slot.first = key.0;
        } else {
            self.entries[last as usize].next = key.0;
        }
        let entry = self.entry(key);
        entry.linked = Some(tick);
        entry.previous = last;
        entry.next = NONE;
        self.linked_count += 1;
    }

    fn unlink(&mut self, key: Key) {
        let entry = self.entry(key);
        let Some(tick) = entry.linked.take() else { return };
        let (previous, next) = (entry.previous, entry.next);
        if previous == NONE {
            self.slots[slot_of(tick)].first = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NONE {
            self.slots[slot_of(tick)].last = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        self.linked_count -= 1;
    }

    fn entry(&mut self, key: Key) -> &mut Entry {
        &mut self.entries[key.0 as usize]
    }

    /// Every set timer is in a slot that is visited no later than it is due, and the count agrees with the lists.
    fn check(&self) {
        if cfg!(not(test)) {
            return; // it walks every timer
        }
        let mut linked_count = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            if let State::Set { due } = entry.state {
                let linked = entry.linked.expect("a set timer is in a slot");
                assert!(self.done < due && linked <= due, "timer {index}");
            }
            linked_count += usize::from(entry.linked.is_some());
        }
        assert_eq!(linked_count, self.linked_count);
    }
}

fn slot_of(tick: u64) -> usize {
    (tick & SLOT_MASK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::task::Wake;

    struct Named(usize, Arc<Mutex<Vec<usize>>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn at_ms(ms: u64) -> Now {
        Now(ms * 1_000_000)
    }

    fn turn(wheel: &mut Wheel, now: Now) {
        let mut wake = Vec::new();
        wheel.turn(now, &mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    /// splitmix64; the seed is in every failure's message.
    struct Dice(u64);
    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % below
        }
    }

    #[test]
    fn a_timer_fires_once_and_within_a_tick() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut wheel = Wheel::new(at_ms(0));
        let key = wheel.add();
        assert!(wheel.listen(key, &Waker::from(Arc::new(Named(7, woken.clone())))).is_none());
        wheel.set(key, at_ms(120));
        turn(&mut wheel, at_ms(119));
        assert!(wheel.is_set(key) && !wheel.take_fired(key));
        turn(&mut wheel, at_ms(120 + TICK_MS));
        assert!(!wheel.is_set(key) && wheel.take_fired(key) && !wheel.take_fired(key));
        assert_eq!(*woken.lock().unwrap(), [7]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_fires_in_the_next_turn() {
        let mut wheel = Wheel::new(at_ms(1000));
        let key = wheel.add();
        wheel.set(key, at_ms(10));
        turn(&mut wheel, at_ms(1000));
        assert!(!wheel.take_fired(key));
        turn(&mut wheel, at_ms(1000 + TICK_MS));
        assert!(wheel.take_fired(key));
    }

    #[test]
    fn a_plain_list_agrees_with_the_wheel() {
        for seed in 0..200 {
            against_a_list(seed);
        }
    }

    /// The model: `None` is free, `Some(None)` unset, `Some(Some(tick))` due in the turn of that tick.
    fn against_a_list(seed: u64) {
        let mut dice = Dice(seed);
        let start = dice.roll(1 << 20);
        let mut now = at_ms(start);
        let mut done = start / TICK_MS;
        let mut wheel = Wheel::new(now);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut model: Vec<(Key, Option<Option<u64>>)> = Vec::new();
        for step in 0..400 {
            let what = format!("seed {seed} step {step}");
            match dice.roll(10) {
                0 | 1 => {
                    let key = wheel.add();
                    let waker = Waker::from(Arc::new(Named(model.len(), woken.clone())));
                    drop(wheel.listen(key, &waker));
                    assert!(model.iter().all(|(k, state)| *k != key || state.is_none()), "{what}");
                    model.push((key, Some(None)));
                }
                2 => {
                    let live: Vec<usize> = (0..model.len()).filter(|&i| model[i].1.is_some()).collect();
                    if !live.is_empty() {
                        let i = live[dice.roll(live.len() as u64) as usize];
                        drop(wheel.remove(model[i].0));
                        model[i].1 = None;
                    }
                }
                3..=6 => {
                    let range = [100, 1_000, 60_000, 300_000][dice.roll(4) as usize];
                    let at = now.plus_ms(dice.roll(range));
                    for (i, (key, state)) in model.iter_mut().enumerate() {
                        if state.is_some() && dice.roll(3) == 0 {
                            wheel.set(*key, at);
                            drop(wheel.listen(*key, &Waker::from(Arc::new(Named(i, woken.clone())))));
                            *state = Some(Some(at.0.div_ceil(TICK_NS).max(done + 1)));
                        }
                    }
                }
                7 => {
                    for (key, state) in &mut model {
                        if state.is_some() && dice.roll(4) == 0 {
                            wheel.clear(*key);
                            *state = Some(None);
                        }
                    }
                }
                _ => {
                    let range = [60, 60, 5_000, 200_000][dice.roll(4) as usize];
                    now = now.plus_ms(dice.roll(range));
                    done = now.0 / TICK_NS;
                    turn(&mut wheel, now);
                    let mut want = Vec::new();
                    for (i, (key, state)) in model.iter_mut().enumerate() {
                        if let Some(Some(due)) = *state
                            && due <= done
                        {
                            want.push(i);
                            *state = Some(None);
                            assert!(wheel.take_fired(*key), "{what} timer {i}");
                        }
                    }
                    let mut got = std::mem::take(&mut *woken.lock().unwrap());
                    got.sort_unstable();
                    assert_eq!(got, want, "{what}");
                }
            }
            for (i, (key, state)) in model.iter().enumerate() {
                if let Some(state) = state {
                    assert_eq!(wheel.is_set(*key), state.is_some(), "{what} timer {i}");
                }
            }
        }
    }

    #[test]
    fn earlier_deadlines_wake_first() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut wheel = Wheel::new(at_ms(0));
        for (name, ms) in [(0, 900), (1, 100), (2, 500), (3, 100)] {
            let key = wheel.add();
            drop(wheel.listen(key, &Waker::from(Arc::new(Named(name, woken.clone())))));
            wheel.set(key, at_ms(ms));
        }
        turn(&mut wheel, at_ms(2_000));
        assert_eq!(*woken.lock().unwrap(), [1, 3, 2, 0]);
    }
}
