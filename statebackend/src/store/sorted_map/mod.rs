//! A sorted map in memory as a store: what the path through a store is tested with, and the folder to copy for a new one.

mod bulk_load;
mod kind;
mod open;
mod read;
mod write;

use std::collections::BTreeMap;

use types::Result;

pub(super) use kind::SortedMapKind;

use super::{Answer, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch};

/// A store that is a sorted map.
#[derive(Debug)]
pub struct SortedMapStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
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
