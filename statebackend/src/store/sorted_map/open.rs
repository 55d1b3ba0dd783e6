//! Opening an empty store, and what tests see and do to it from outside.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::SortedMapStore;

/// Counts the calls of a store, and says which write fails. Shared with the test that holds it.
#[derive(Debug, Default)]
pub struct Gauge {
    pub(super) reads: AtomicU64,
    pub(super) keys_read: AtomicU64,
    pub(super) scans: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) loads: AtomicU64,
    /// The writes that still succeed, plus one; 0 if all do.
    pub(super) fails_in: AtomicU64,
}

impl Gauge {
    /// Batched reads so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Keys looked up so far.
    pub fn keys_read(&self) -> u64 {
        self.keys_read.load(Relaxed)
    }

    /// Scans so far.
    pub fn scans(&self) -> u64 {
        self.scans.load(Relaxed)
    }

    /// Batched writes so far, failed ones included.
    pub fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// Bulk loads so far.
    pub fn loads(&self) -> u64 {
        self.loads.load(Relaxed)
    }

    /// Lets the `nth` write from now fail, counted from 1, half of its changes made.
    pub fn fail_write(&self, nth: u64) {
        self.fails_in.store(nth, Relaxed);
    }
}

impl SortedMapStore {
    /// An empty store, watched through `gauge`.
    #[must_use]
    pub fn open(gauge: Arc<Gauge>) -> Self {
        Self { gauge, ..Self::default() }
    }
}
