//! Opening an empty store.

use std::collections::BTreeMap;

use super::SortedMapStore;

impl SortedMapStore {
    /// An empty store. One that lives on a disk takes its directory, and wipes what it held.
    #[must_use]
    pub fn open() -> Self {
        Self { entries: BTreeMap::new() }
    }
}
