//! The memory that tables in front of stores may take, shared by all tasks of a process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// A budget for all tables of a process. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct TableMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: usize,
    shares: AtomicUsize,
    used: AtomicUsize,
    evicted: AtomicU64,
}

impl TableMemory {
    /// About `bytes` for all tables together.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared {
            bytes,
            shares: AtomicUsize::default(),
            used: AtomicUsize::default(),
            evicted: AtomicU64::default(),
        }))
    }

    /// The share of one more subtask: all have the same.
    #[must_use]
    pub fn share(&self) -> TableShare {
        self.0.shares.fetch_add(1, Ordering::Relaxed);
        TableShare { memory: self.clone(), used: 0 }
    }

    /// Bytes that tables take, as far as they have said: for metrics.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Cells that have left for the stores: for metrics.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }
}

/// What the tables of one subtask may take of a [`TableMemory`]; given back when it is dropped.
#[derive(Debug)]
pub struct TableShare {
    memory: TableMemory,
    used: usize,
}

impl TableShare {
    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.0.bytes / self.memory.0.shares.load(Ordering::Relaxed).max(1)
    }

    pub(crate) fn note_evicted(&self, cells: usize) {
        self.memory.0.evicted.fetch_add(cells as u64, Ordering::Relaxed);
    }

    /// Says how many bytes are taken.
    pub(crate) fn set_used(&mut self, bytes: usize) {
        let used = &self.memory.0.used;
        used.fetch_add(bytes, Ordering::Relaxed);
        used.fetch_sub(std::mem::replace(&mut self.used, bytes), Ordering::Relaxed);
    }
}

impl Drop for TableShare {
    fn drop(&mut self) {
        self.set_used(0);
        self.memory.0.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_alike_and_come_back() {
        let memory = TableMemory::new(100);
        let mut first = memory.share();
        assert_eq!(first.bytes(), 100);
        let mut second = memory.share();
        assert_eq!((first.bytes(), second.bytes()), (50, 50));
        first.set_used(30);
        second.set_used(20);
        first.set_used(10);
        assert_eq!(memory.used(), 30);
        drop(first);
        assert_eq!((memory.used(), second.bytes()), (20, 100));
        drop(second);
        assert_eq!(memory.used(), 0);
    }
}
