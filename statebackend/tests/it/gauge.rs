//! A store in front of another one, through which a test sees what is asked of it, and lets a write fail.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use statebackend::store::{Answer, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch};
use tempfile::TempDir;
use types::{Error, Result};

/// Counts the calls of a store, and says which write fails. Shared with the test that holds it.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    reads: AtomicU64,
    keys_read: AtomicU64,
    scans: AtomicU64,
    writes: AtomicU64,
    changes: AtomicU64,
    loads: AtomicU64,
    /// The writes that still succeed, plus one; 0 if all do.
    fails_in: AtomicU64,
}

impl Gauge {
    /// Batched reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Keys looked up so far.
    pub(crate) fn keys_read(&self) -> u64 {
        self.keys_read.load(Relaxed)
    }

    /// Scans so far.
    pub(crate) fn scans(&self) -> u64 {
        self.scans.load(Relaxed)
    }

    /// Batched writes so far, failed ones included.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// Changes written so far, those of failed writes included.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Bulk loads so far.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Relaxed)
    }

    /// Lets the `nth` write from now fail, counted from 1, half of its changes made.
    pub(crate) fn fail_write(&self, nth: u64) {
        self.fails_in.store(nth, Relaxed);
    }
}

/// A store that is watched.
pub(crate) struct Gauged {
    store: Box<dyn KeyValueStore>,
    gauge: Arc<Gauge>,
    /// Removed when the store is gone.
    _dir: TempDir,
}

impl Gauged {
    pub(crate) fn new(store: Box<dyn KeyValueStore>, gauge: Arc<Gauge>, dir: TempDir) -> Self {
        Self { store, gauge, _dir: dir }
    }
}

impl KeyValueStore for Gauged {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        self.gauge.reads.fetch_add(1, Relaxed);
        self.gauge.keys_read.fetch_add(keys.len() as u64, Relaxed);
        self.store.read(keys, found)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        self.gauge.scans.fetch_add(1, Relaxed);
        self.store.scan(prefix, order, visit)
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        self.gauge.writes.fetch_add(1, Relaxed);
        self.gauge.changes.fetch_add(changes.len() as u64, Relaxed);
        if self.gauge.fails_in.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) != Ok(1) {
            return self.store.write(changes);
        }
        let mut made = WriteBatch::default();
        changes.iter().take(changes.len() / 2).for_each(|change| made.push(change));
        self.store.write(&made)?;
        Err(Error::unavailable("the store is full: free some space"))
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        self.gauge.loads.fetch_add(1, Relaxed);
        self.store.bulk_load(entries)
    }
}
