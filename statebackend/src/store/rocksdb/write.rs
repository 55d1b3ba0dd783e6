//! Writing a batch of changes.

use std::{collections::BTreeSet, ops::ControlFlow};

use rocksdb::{ErrorKind, WaitForCompactOptions, WriteOptions, properties};
use types::Result;

use super::{Order, RocksDbStore, WriteBatch, error::error};
use crate::store::{Change, successor};

/// Below a prefix, so many keys are deleted one by one. A range that is deleted slows down all reads until it has been
/// compacted away, so it is for what is large.
const SINGLY: usize = 256;

/// Microseconds between two looks at a database that has stopped writes.
const LOOK_AGAIN: u64 = 1_000;

/// How batches are written.
pub(super) struct Manner {
    /// Refused where RocksDB has stopped all writes, since it waits for its background work then, and goes on waiting while
    /// that fails: on a full disk until somebody makes room, without a word and past all cancelling.
    refused: WriteOptions,
    /// Slowed down as far as RocksDB thinks right.
    slowed: WriteOptions,
}

impl Manner {
    pub(super) fn new() -> Self {
        let without_log = || {
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            options
        };
        let (mut refused, slowed) = (without_log(), without_log());
        refused.set_no_slowdown(true);
        Self { refused, slowed }
    }
}

pub(super) fn write(store: &mut RocksDbStore, changes: &WriteBatch) -> Result<()> {
    let failed = |it| error(store.directory.path(), "write", &it);
    loop {
        // What is refused for being too fast is charged for all the same: whoever asks so again and again is never let in.
        let is_slow =
            store.db.property_int_value(properties::ACTUAL_DELAYED_WRITE_RATE).map_err(failed)? != Some(0);
        let options = if is_slow { &store.manner.slowed } else { &store.manner.refused };
        match store.db.write_opt(batch(store, changes)?, options) {
            Err(stopped) if stopped.kind() == ErrorKind::Incomplete => (),
            written => return written.map_err(failed),
        }
        let mut patience = WaitForCompactOptions::default();
        patience.set_timeout(LOOK_AGAIN);
        match store.db.wait_for_compact(&patience) {
            Err(goes_on) if goes_on.kind() == ErrorKind::TimedOut => (),
            ended => ended.map_err(failed)?,
        }
    }
}

fn batch(store: &RocksDbStore, changes: &WriteBatch) -> Result<rocksdb::WriteBatch> {
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
    Ok(batch)
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
