//! Writing a batch of changes.

use std::{collections::BTreeSet, ops::ControlFlow};

use types::Result;

use super::{Order, RocksDbStore, WriteBatch, error::error};
use crate::store::{Change, successor};

/// Below a prefix, so many keys are deleted one by one. A range that is deleted slows down all reads until it has been
/// compacted away, so it is for what is large.
const SINGLY: usize = 256;

pub(super) fn write(store: &mut RocksDbStore, changes: &WriteBatch) -> Result<()> {
    let mut batch = rocksdb::WriteBatch::default();
    let has_prefixes = changes.iter().any(|change| matches!(change, Change::DeletePrefix(_)));
    // What the batch puts below a prefix before it deletes it is not in the database yet.
    let mut put: BTreeSet<&[u8]> = BTreeSet::new();
    for change in changes.iter() {
        match change {
            Change::Put(key, value) => {
                batch.put(key, value);
                if has_prefixes {
                    put.insert(key);
                }
            }
            Change::Delete(key) => batch.delete(key),
            Change::DeletePrefix(prefix) => {
                delete_stored(store, prefix, &mut batch)?;
                let below: Vec<&[u8]> =
                    put.range(prefix..).take_while(|it| it.starts_with(prefix)).copied().collect();
                for key in below {
                    batch.delete(key);
                    put.remove(key);
                }
            }
        }
    }
    store.db.write_opt(batch, &store.write_options).map_err(|it| error(store.directory.path(), "write", &it))
}

/// Deletes what the database holds below a prefix.
fn delete_stored(store: &RocksDbStore, prefix: &[u8], batch: &mut rocksdb::WriteBatch) -> Result<()> {
    let end = successor(prefix);
    let mut keys = Vec::new();
    super::read::scan(store, prefix, Order::Ascending, &mut |key, _| {
        keys.push(key.to_vec());
        let is_large = keys.len() > SINGLY && end.is_some();
        Ok(if is_large { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    match end {
        Some(end) if keys.len() > SINGLY => batch.delete_range(prefix, &end),
        _ => keys.iter().for_each(|key| batch.delete(key)),
    }
    Ok(())
}
