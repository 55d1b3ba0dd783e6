//! Which stores can stand behind the tables of a process, by name, and what all of one process share.

use std::{collections::BTreeMap, fmt::Debug, path::Path, sync::Arc};

use env::Files;
use types::{Error, Result};

use super::{KeyValueStore, TableMemory};

/// A kind of store, with what all stores of a process share. Each store's folder has one.
pub(super) trait StoreKind: Debug + Send + Sync {
    /// Opens an empty store in `dir`, which belongs to it alone, loses what it held, and goes with the store.
    fn open(&self, files: Arc<dyn Files>, dir: &Path) -> Result<Box<dyn KeyValueStore>>;
    /// The memory that they take, that of the tables not counted.
    fn memory_use(&self) -> MemoryUse;
}

/// The stores of a process: of one kind, with one budget of memory.
#[derive(Clone, Debug)]
pub struct Stores {
    kind: Arc<dyn StoreKind>,
    tables: TableMemory,
}

/// What the stores of a process are made with.
#[derive(Clone, Copy, Debug)]
pub struct StoreSettings<'a> {
    /// Bytes of memory that all tables and stores of the process may take together.
    pub memory: usize,
    /// About how many stores there will be.
    pub stores: usize,
    /// Options of the store by its own names.
    pub options: &'a BTreeMap<String, String>,
}

/// The memory that working state takes, in bytes: for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Cells in the tables.
    pub tables: usize,
    /// Blocks that stores have read.
    pub blocks: usize,
    /// What stores have not yet written to disk.
    pub write_buffers: usize,
    /// Cells that have left the tables for the stores, since the beginning.
    pub evicted_cells: u64,
}

/// What part of the memory is for the store behind the tables. A cell that the table holds costs no look-up, no decoding and no
/// write; a store's own index and filters take a hundredth of what is in it.
const STORE_PART: usize = 4;

impl Stores {
    /// Stores of the kind `name`.
    ///
    /// # Errors
    /// `InvalidJob` if the program was built without this store, or for an option that it does not know.
    pub fn new(name: &str, settings: &StoreSettings<'_>) -> Result<Self> {
        // Most of it for decoded cells, which are the quickest to use; the rest for what the store keeps.
        let of_store = settings.memory / STORE_PART;
        let kind: Option<Arc<dyn StoreKind>> = match name {
            #[cfg(feature = "test-util")]
            "sorted-map" => Some(Arc::new(super::sorted_map::SortedMapKind::new(settings.options)?)),
            #[cfg(feature = "rocksdb")]
            "rocksdb" => {
                Some(Arc::new(super::rocksdb::RocksDbKind::new(of_store, settings.stores, settings.options)?))
            }
            #[cfg(feature = "sled")]
            "sled" => {
                Some(Arc::new(super::sled::SledKind::new(of_store, settings.stores, settings.options)?))
            }
            _ => None,
        };
        let kind = kind.ok_or_else(|| {
            Error::invalid_job(format!(
                "this program was built without the state backend {name}: add the feature {name:?} of the crate tidegate"
            ))
        })?;
        Ok(Self { kind, tables: TableMemory::new(settings.memory - of_store) })
    }

    /// Opens an empty store in `dir`, which belongs to it alone, loses what it held, and goes with the store.
    ///
    /// # Errors
    /// `Unavailable` if the directory cannot be used, with its path and the remedy.
    pub fn open(&self, files: Arc<dyn Files>, dir: &Path) -> Result<Box<dyn KeyValueStore>> {
        self.kind.open(files, dir)
    }

    /// The memory of the tables in front of the stores.
    #[must_use]
    pub fn tables(&self) -> &TableMemory {
        &self.tables
    }

    /// What is taken now.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        let (tables, evicted_cells) = (self.tables.used(), self.tables.evicted());
        MemoryUse { tables, evicted_cells, ..self.kind.memory_use() }
    }
}
