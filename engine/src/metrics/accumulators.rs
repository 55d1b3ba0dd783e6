//! Named numbers that user functions add to; the job's result holds their sums over all subtasks. Not state: what a
//! failed attempt had added is gone with it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The accumulators of one operator instance. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Accumulators(Arc<Mutex<BTreeMap<String, Accumulator>>>);

/// A number that is only added to. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Accumulator(Arc<AtomicU64>);

impl Accumulators {
    /// The accumulator called `name`, made at the first call. Get it in `open` and keep it.
    #[must_use]
    pub fn get(&self, name: &str) -> Accumulator {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        named.entry(name.to_owned()).or_default().clone()
    }

    /// All sums, by name.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<String, u64> {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        named.iter().map(|(name, accumulator)| (name.clone(), accumulator.sum())).collect()
    }
}

impl Accumulator {
    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// What this instance has added so far.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_sum() {
        let accumulators = Accumulators::default();
        accumulators.get("lines").add(2);
        accumulators.clone().get("lines").add(3);
        accumulators.get("bytes").add(7);
        let expected = [("bytes".to_owned(), 7), ("lines".to_owned(), 5)];
        assert_eq!(accumulators.sums(), BTreeMap::from(expected));
    }
}
