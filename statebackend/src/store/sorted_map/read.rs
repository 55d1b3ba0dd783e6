//! Reading: a batch of keys, or all keys with a prefix.

use std::ops::Bound;

use types::Result;

use super::{Answer, KeyBatch, Order, SortedMapStore, Visit};
use crate::store::successor;

pub(super) fn read(store: &SortedMapStore, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
    for (number, key) in keys.iter().enumerate() {
        found(number, store.entries.get(key).map(Vec::as_slice))?;
    }
    Ok(())
}

pub(super) fn scan(store: &SortedMapStore, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
    let end = successor(prefix);
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
