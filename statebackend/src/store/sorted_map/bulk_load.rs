//! Filling the store at restore.

use types::{Error, Result};

use super::{SortedEntries, SortedMapStore};

/// Refuses keys that do not ascend, as a store that writes sorted files must.
pub(super) fn bulk_load(store: &mut SortedMapStore, entries: &SortedEntries) -> Result<()> {
    for (key, value) in entries.iter() {
        if store.entries.last_key_value().is_some_and(|(last, _)| last.as_slice() >= key) {
            return Err(Error::internal("the entries of a bulk load do not ascend"));
        }
        store.entries.insert(key.to_vec(), value.to_vec());
    }
    Ok(())
}
