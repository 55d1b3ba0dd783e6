//! A sorted map in memory as a store: what the path through a store is tested with, and the folder to copy for a new one.
//!
//! [`Gauge`] counts what is asked of it, and lets a write fail.

mod bulk_load;
mod open;
mod read;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use types::Result;

use super::{Answer, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch};
pub use open::Gauge;

/// A store that is a sorted map.
#[derive(Debug, Default)]
pub struct SortedMapStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    gauge: Arc<Gauge>,
}

impl KeyValueStore for SortedMapStore {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        read::read(self, keys, found)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        read::scan(self, prefix, order, visit)
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        write::write(self, changes)
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        bulk_load::bulk_load(self, entries)
    }
}
