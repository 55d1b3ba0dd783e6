//! Reading: a batch of keys, or all keys with a prefix.

use std::{ops::Bound, sync::atomic::Ordering::Relaxed};

use types::Result;

use super::{KeyBatch, Order, SortedMapStore};
use crate::store::{Answer, Visit};

pub(super) fn read(store: &SortedMapStore, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
    store.gauge.reads.fetch_add(1, Relaxed);
    store.gauge.keys_read.fetch_add(keys.len() as u64, Relaxed);
    for (number, key) in keys.iter().enumerate() {
        found(number, store.entries.get(key).map(Vec::as_slice))?;
    }
    Ok(())
}

pub(super) fn scan(store: &SortedMapStore, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
    store.gauge.scans.fetch_add(1, Relaxed);
    let end = crate::store::successor(prefix);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut range = store.entries.range::<[u8], _>((Bound::Included(prefix), end));
    while let Some((key, value)) = match order {
        Order::Ascending => range.next(),
        Order::Descending => range.next_back(),
    } {
        if visit(key, value)?.is_break() {
            break;
        }
    }
    Ok(())
}
