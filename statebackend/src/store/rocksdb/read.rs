//! Reading: a batch of keys, or all keys with a prefix.

use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, ReadOptions};
use types::{Error, Result};

use super::{Answer, KeyBatch, Order, RocksDbStore, Visit, error::error};
use crate::store::successor;

/// So many keys are looked up at once: each value that was found keeps its block in the cache, and those of a whole batch would
/// drive everything else out of a small one. RocksDB itself takes 32 at a time.
const AT_ONCE: usize = 64;

pub(super) fn read(store: &RocksDbStore, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
    let failed = |it: &_| error(store.directory.path(), "read", it);
    let family = store.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
    let family = family.ok_or_else(|| Error::internal("RocksDB has no default family"))?;
    let is_sorted = keys.iter().is_sorted();
    let mut rest = keys.iter();
    let mut numbers = 0..;
    while rest.len() > 0 {
        let values = store.db.batched_multi_get_cf(family, rest.by_ref().take(AT_ONCE), is_sorted);
        for (value, number) in values.into_iter().zip(&mut numbers) {
            found(number, value.map_err(|it| failed(&it))?.as_deref())?;
        }
    }
    Ok(())
}

pub(super) fn scan(store: &RocksDbStore, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(prefix);
    if let Some(end) = successor(prefix) {
        options.set_iterate_upper_bound(end);
    }
    let mut entries = store.db.raw_iterator_opt(options);
    match order {
        Order::Ascending => entries.seek_to_first(),
        Order::Descending => entries.seek_to_last(),
    }
    while let Some((key, value)) = entries.item() {
        if visit(key, value)?.is_break() {
            return Ok(());
        }
        match order {
            Order::Ascending => entries.next(),
            Order::Descending => entries.prev(),
        }
    }
    entries.status().map_err(|it| error(store.directory.path(), "read", &it))
}
