//! What all stores of a process share: nothing here. One on disk has its caches in it, and its options.

use std::{path::Path, sync::Arc};

use env::Files;
use types::Result;

use super::SortedMapStore;
use crate::store::{KeyValueStore, MemoryUse, stores::StoreKind};

/// Sorted maps in memory.
#[derive(Debug)]
pub(in crate::store) struct SortedMapKind;

impl StoreKind for SortedMapKind {
    fn open(&self, _: Arc<dyn Files>, _: &Path) -> Result<Box<dyn KeyValueStore>> {
        Ok(Box::new(SortedMapStore::open()))
    }

    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }
}
