//! Reading: a batch of keys, or all keys with a prefix.

use types::Result;

use super::{Answer, KeyBatch, Order, SledStore, Visit, error::error};

pub(super) fn read(store: &SledStore, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
    for (number, key) in keys.iter().enumerate() {
        let value = store.db.get(key).map_err(|it| error(store.directory.path(), "read", &it))?;
        found(number, value.as_deref())?;
    }
    Ok(())
}

pub(super) fn scan(store: &SledStore, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
    let mut entries = store.db.scan_prefix(prefix);
    while let Some(entry) = match order {
        Order::Ascending => entries.next(),
        Order::Descending => entries.next_back(),
    } {
        let (key, value) = entry.map_err(|it| error(store.directory.path(), "read", &it))?;
        if visit(&key, &value)?.is_break() {
            break;
        }
    }
    Ok(())
}
