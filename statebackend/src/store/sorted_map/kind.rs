//! What all stores of a process share: nothing here. One on disk has its caches in it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use env::Files;
use types::{Error, Result};

use super::SortedMapStore;
use crate::store::{KeyValueStore, MemoryUse, stores::StoreKind};

/// Sorted maps in memory.
#[derive(Debug)]
pub(in crate::store) struct SortedMapKind;

impl SortedMapKind {
    /// Maps take what their entries take, and there are no options.
    ///
    /// # Errors
    /// `InvalidJob` for any option.
    pub(in crate::store) fn new(options: &BTreeMap<String, String>) -> Result<Self> {
        match options.iter().next() {
            Some((name, value)) => Err(Error::invalid_job(format!(
                "option {name:?} of sorted-map cannot be {value:?}: it takes none"
            ))),
            None => Ok(Self),
        }
    }
}

impl StoreKind for SortedMapKind {
    fn open(&self, _: Arc<dyn Files>, _: &Path) -> Result<Box<dyn KeyValueStore>> {
        Ok(Box::new(SortedMapStore::open()))
    }

    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }
}
