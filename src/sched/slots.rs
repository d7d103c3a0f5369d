//! Numbered places for values: a place is used again, its number never is. No meaning of the values enters here.
//!
//! A number is the place's index and how often the place was used, so looking up a number that is over finds nothing
//! instead of somebody else. A place whose uses are spent is never used again.

/// Index bits of a number: 16 million places at once. The other 40 bits count the uses of that one place, which at a
/// million uses a second lasts 12 days; the place then retires, which costs its few bytes.
const INDEX_BITS: u32 = 24;
const USES_MAX: u64 = (1 << (u64::BITS - INDEX_BITS)) - 1;

/// No place: the end of a list of places.
pub(super) const NOWHERE: u32 = u32::MAX;

const _: () = assert!(crate::limits::QUEUE_REQUESTS_LIMIT < 1 << INDEX_BITS);

pub(super) struct Slots<T> {
    places: Vec<Place<T>>,
    free: u32,
    len: usize,
}

struct Place<T> {
    uses: u64,
    /// The next free place, while this one is free.
    next: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub fn new() -> Slots<T> {
        Slots { places: Vec::new(), free: NOWHERE, len: 0 }
    }

    /// Values now here.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The index of a value that is still here.
    pub fn find(&self, number: u64) -> Option<u32> {
        let index = number & ((1 << INDEX_BITS) - 1);
        let place = self.places.get(usize::try_from(index).ok()?)?;
        (place.value.is_some() && place.uses == number >> INDEX_BITS).then(|| u32::try_from(index).expect("24 bits"))
    }

    /// The number of the value at an index.
    pub fn number(&self, index: u32) -> u64 {
        self.places[index as usize].uses << INDEX_BITS | u64::from(index)
    }

    /// The value at the index of a live place; another index is our own mistake.
    pub fn at(&self, index: u32) -> &T {
        self.places[index as usize].value.as_ref().expect("a live place")
    }

    /// As [`at`](Self::at).
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        self.places[index as usize].value.as_mut().expect("a live place")
    }

    /// Takes a place for a value and gives its index.
    pub fn insert(&mut self, value: T) -> u32 {
        self.insert_with(|_| value)
    }

    /// As [`insert`](Self::insert), for a value that knows its own number.
    pub fn insert_with(&mut self, value: impl FnOnce(u64) -> T) -> u32 {
        let index = if self.free == NOWHERE { self.grow() } else { self.free };
        let number = self.number(index);
        let place = &mut self.places[index as usize];
        self.free = place.next;
        place.next = NOWHERE;
        place.value = Some(value(number));
        self.len += 1;
        index
    }

    pub fn remove(&mut self, index: u32) -> T {
        let place = &mut self.places[index as usize];
        let value = place.value.take().expect("a live place");
        self.len -= 1;
        if place.uses < USES_MAX {
            place.uses += 1;
            place.next = self.free;
            self.free = index;
        }
        value
    }

    /// Every value with its index, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| Some((index, place.value.as_ref()?)))
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.places.len()).expect("fewer places than numbers");
        assert!(index < 1 << INDEX_BITS, "more values than numbers");
        self.places.push(Place { uses: 0, next: NOWHERE, value: None });
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_nothing_once_its_value_has_left() {
        let mut slots = Slots::new();
        let a = slots.insert('a');
        let a_number = slots.number(a);
        assert_eq!(slots.find(a_number), Some(a));
        assert_eq!(slots.remove(a), 'a');
        assert_eq!(slots.find(a_number), None);
        let b = slots.insert('b');
        assert_eq!(b, a, "the place is used again");
        assert_ne!(slots.number(b), a_number, "its number is not");
        assert_eq!(slots.find(a_number), None);
        assert_eq!(slots.find(u64::MAX), None);
    }

    #[test]
    fn a_place_whose_uses_are_spent_retires() {
        let mut slots = Slots::new();
        let a = slots.insert(());
        slots.places[a as usize].uses = USES_MAX;
        assert_eq!(slots.find(slots.number(a)), Some(a));
        slots.remove(a);
        assert_ne!(slots.insert(()), a);
        assert_eq!(slots.len(), 1);
    }
}
