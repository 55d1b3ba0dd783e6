//! sled as a store: a tree in pure Rust, on local disk. Beta by its authors' own word, so the least trusted store.

mod bulk_load;
mod error;
mod expire;
mod kind;
mod open;
mod read;
mod write;

use types::Result;

pub use kind::SledKind;

use super::{
    Answer, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
    directory::StoreDirectory,
};

/// A store that is a sled database.
pub struct SledStore {
    db: sled::Db,
    hand: expire::Hand,
    /// Dropped behind the database, as what it uses.
    directory: StoreDirectory,
    _open: kind::Open,
}

impl KeyValueStore for SledStore {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        read::read(self, keys, found)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        read::scan(self, prefix, order, visit)
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        write::write(self, changes)?;
        expire::go_on(self, changes.len())
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        bulk_load::bulk_load(self, entries)
    }

    fn expires(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.hand.add(prefix, rule);
    }
}
