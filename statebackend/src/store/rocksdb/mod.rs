//! RocksDB as a store: state far above memory, on local disk.
//!
//! Without a log and without any promise of durability: the directory is wiped at each opening. All stores of a process
//! share one block cache, which their write buffers are charged to, so that they keep one bound together
//! ([`RocksDbKind`]).

mod bulk_load;
mod error;
mod expire;
mod kind;
mod layout;
mod open;
mod read;
mod write;

use std::path::PathBuf;

use rocksdb::{DB, Options};
use types::Result;

pub use kind::RocksDbKind;

use super::{
    Answer, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
    directory::StoreDirectory,
};

/// A store that is a RocksDB database.
pub struct RocksDbStore {
    db: DB,
    options: Options,
    manner: write::Manner,
    layout: layout::Layout,
    /// Where the files of bulk loads are written, and how many there were.
    loads: (PathBuf, u64),
    expiring: expire::Expiring,
    /// Dropped behind the database, as what it uses.
    directory: StoreDirectory,
    _kind: RocksDbKind,
}

impl KeyValueStore for RocksDbStore {
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

    fn expires(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.expiring.add(prefix, rule);
    }
}
