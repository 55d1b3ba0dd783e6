//! Writing a batch of changes.

use types::Result;

use super::{SortedMapStore, WriteBatch};
use crate::store::{Change, successor};

pub(super) fn write(store: &mut SortedMapStore, changes: &WriteBatch) -> Result<()> {
    changes.iter().for_each(|change| make(store, change));
    Ok(())
}

fn make(store: &mut SortedMapStore, change: Change<'_>) {
    match change {
        Change::Put(key, value) => drop(store.entries.insert(key.to_vec(), value.to_vec())),
        Change::Delete(key) => drop(store.entries.remove(key)),
        Change::DeletePrefix(prefix) => {
            let mut cut = store.entries.split_off(prefix);
            if let Some(end) = successor(prefix) {
                store.entries.append(&mut cut.split_off(&end));
            }
        }
    }
}
