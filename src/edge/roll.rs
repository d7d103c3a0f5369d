//! Whose links a generation has, over all its cores: so that the one before it knows which of its own have been replaced. The
//! links themselves never enter.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose a link is: a worker's, as far as it can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Whose {
    pub credential: String,
    /// What it calls itself.
    pub id: Option<String>,
    pub from: IpAddr,
}

/// How many links each worker has. Its lock is taken when a link comes or goes, and by whoever leaves; there are no more workers
/// here than links.
#[derive(Default)]
pub struct Roll(Mutex<HashMap<Whose, u32>>);

/// A link in the roll, until it is dropped.
pub struct Entry {
    roll: Arc<Roll>,
    pub whose: Whose,
}

impl Roll {
    fn counts(&self) -> MutexGuard<'_, HashMap<Whose, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(self: &Arc<Roll>, whose: Whose) -> Entry {
        *self.counts().entry(whose.clone()).or_default() += 1;
        Entry { roll: self.clone(), whose }
    }

    /// Adds up what each worker has here.
    pub fn add_to(&self, sum: &mut HashMap<Whose, u32>) {
        for (whose, count) in &*self.counts() {
            *sum.entry(whose.clone()).or_default() += count;
        }
    }

    /// Links of this worker.
    pub fn count(&self, whose: &Whose) -> u32 {
        self.counts().get(whose).copied().unwrap_or(0)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.roll.counts();
        if let Some(count) = counts.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_known_as_long_as_it_has_a_link() {
        let whose = |credential: &str, id: Option<&str>, last: u8| Whose {
            credential: credential.into(),
            id: id.map(str::to_owned),
            from: IpAddr::from([127, 0, 0, last]),
        };
        let roll = Arc::new(Roll::default());
        let entries = [whose("a", None, 1), whose("a", None, 1), whose("a", Some("x"), 1), whose("a", None, 2)];
        let mut entries: Vec<Entry> = entries.into_iter().map(|whose| roll.enter(whose)).collect();
        assert_eq!((roll.count(&whose("a", None, 1)), roll.count(&whose("b", None, 1))), (2, 0));
        let mut sum = HashMap::from([(whose("a", None, 1), 3), (whose("b", None, 1), 1)]);
        roll.add_to(&mut sum);
        assert_eq!((sum[&whose("a", None, 1)], sum[&whose("a", None, 2)], sum[&whose("b", None, 1)]), (5, 1, 1));
        entries.remove(0);
        assert_eq!((roll.count(&whose("a", None, 1)), roll.count(&whose("a", Some("x"), 1))), (1, 1));
        drop(entries);
        assert!(roll.counts().is_empty(), "nothing is left behind");
    }
}
