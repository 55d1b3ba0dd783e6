//! Writing a batch of changes.

use std::{collections::BTreeSet, ops::ControlFlow};

use rocksdb::{ErrorKind, WaitForCompactOptions, WriteOptions, properties};
use types::Result;

use super::{Order, RocksDbStore, WriteBatch, error::error, layout};
use crate::store::{Change, successor};

/// Below a prefix, so many keys are deleted one by one. A range that is deleted slows down all reads until it has been
/// compacted away, so it is for what is large.
const SINGLY: usize = 256;

/// Microseconds between two looks at a database that has stopped writes, and at the most at one that slows them down.
const LOOK_AGAIN: u64 = 1_000;
const LOOK_AGAIN_WHEN_SLOW: u64 = 100_000;

/// How batches are written.
pub(super) struct Manner {
    /// Refused where RocksDB would let them wait. Where it has stopped all writes it waits for its background work, and goes on
    /// waiting while that fails: on a full disk until somebody makes room, without a word and past all cancelling.
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

/// Waits as long as RocksDB would, but here, where its errors are seen.
pub(super) fn write(store: &mut RocksDbStore, changes: &WriteBatch) -> Result<()> {
    let mut refusals = 0;
    loop {
        let batch = batch(store, changes)?;
        let bytes = batch.size_in_bytes();
        let turn = wait_turn(store, bytes, refusals)?;
        let Manner { refused, slowed } = &store.manner;
        let options = if turn == Turn::Idle { slowed } else { refused };
        match store.db.write_opt(batch, options) {
            Err(stopped) if stopped.kind() == ErrorKind::Incomplete => (),
            written => {
                written.map_err(|it| error(store.directory.path(), "write", &it))?;
                return layout::on_changed(store, bytes);
            }
        }
        refusals = if turn == Turn::Paced { refusals + 1 } else { 0 };
        is_busy(store, LOOK_AGAIN)?;
    }
}

/// How the database is when it is written to.
#[derive(PartialEq, Eq)]
enum Turn {
    /// It takes all, or nothing.
    Unpaced,
    /// It slows writes down, and this one has waited for its turn.
    Paced,
    /// It slows writes down and has nothing more to do: nothing can fail or stop them meanwhile, so writing may wait.
    Idle,
}

/// Waits as long as so many bytes take at the rate to which RocksDB slows writes down, if it does. What it has refused for being
/// too soon is charged for as well, and takes as long on top.
fn wait_turn(store: &RocksDbStore, bytes: usize, refusals: u64) -> Result<Turn> {
    let mut waited = 0;
    loop {
        // Bytes a second; none where writes are stopped, too.
        let rate = store.db.property_int_value(properties::ACTUAL_DELAYED_WRITE_RATE);
        let rate = rate.map_err(|it| error(store.directory.path(), "write", &it))?.unwrap_or(0);
        let Some(alone) = (bytes as u64 * 1_000_000).checked_div(rate) else { return Ok(Turn::Unpaced) };
        let needed = alone.saturating_mul(refusals + 1);
        if waited >= needed {
            return Ok(Turn::Paced);
        }
        let piece = LOOK_AGAIN_WHEN_SLOW.min(needed - waited);
        if !is_busy(store, piece)? {
            return Ok(Turn::Idle);
        }
        waited += piece;
    }
}

/// Waits so many microseconds, unless the background work of the database ends before; whether some is left.
fn is_busy(store: &RocksDbStore, micros: u64) -> Result<bool> {
    let mut patience = WaitForCompactOptions::default();
    patience.set_timeout(micros);
    match store.db.wait_for_compact(&patience) {
        Ok(()) => Ok(false),
        Err(goes_on) if goes_on.kind() == ErrorKind::TimedOut => Ok(true),
        Err(failed) => Err(error(store.directory.path(), "write", &failed)),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;
    use crate::store::{KeyValueStore, rocksdb::RocksDbKind};

    #[test]
    fn what_is_slowed_down_is_written_all_the_same() {
        let options = [
            ("level0_file_num_compaction_trigger", "2"),
            ("level0_slowdown_writes_trigger", "2"),
            ("level0_stop_writes_trigger", "4"),
            ("delayed_write_rate", "33554432"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let dir = TempDir::new().unwrap();
        let kind = RocksDbKind::new(8 << 20, 1, &BTreeMap::from(options)).unwrap();
        let mut store = RocksDbStore::open(&kind, env::real_files(), dir.path()).unwrap();
        let mut slowed = 0;
        for batch in 0..60_u8 {
            let mut changes = WriteBatch::default();
            for key in 0..16_u8 {
                changes.push(Change::Put(&[1, batch, key], &[key; 4 << 10]));
            }
            let rate = store.db.property_int_value(properties::ACTUAL_DELAYED_WRITE_RATE);
            slowed += u32::from(rate.unwrap().unwrap() > 0);
            store.write(&changes).unwrap();
            store.db.flush().unwrap();
        }
        assert!(slowed > 5, "writes were slowed down {slowed} times: that was not tried");
        let mut found = 0_u16;
        let visit = &mut |key: &[u8], value: &[u8]| {
            assert_eq!((u16::from(key[1]), u16::from(key[2])), (found / 16, found % 16));
            assert_eq!(value, [key[2]; 4 << 10]);
            found += 1;
            Ok(ControlFlow::Continue(()))
        };
        store.scan(&[1], Order::Ascending, visit).unwrap();
        assert_eq!(found, 60 * 16);
    }
}
