//! Writing a batch of changes; here a failure comes out that a test has asked for.

use std::sync::atomic::Ordering::Relaxed;

use types::{Error, Result};

use super::{SortedMapStore, WriteBatch};
use crate::store::{Change, successor};

pub(super) fn write(store: &mut SortedMapStore, changes: &WriteBatch) -> Result<()> {
    store.gauge.writes.fetch_add(1, Relaxed);
    let fails = store.gauge.fails_in.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1);
    let made = if fails { changes.len() / 2 } else { changes.len() };
    changes.iter().take(made).for_each(|change| make(store, change));
    if fails {
        return Err(Error::unavailable("the sorted map is full: free some space"));
    }
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
