//! The memory of the sled databases of a process, and the options that all of them are opened with.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use env::Files;
use sled::{Config, Mode};
use types::{Error, Result};

use super::SledStore;
use crate::store::{KeyValueStore, MemoryUse, stores::StoreKind};

/// The least cache that is of any use.
const LEAST: usize = 1 << 20;

/// A cache of the same size for each database: sled cannot share one. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct SledKind {
    each: usize,
    open: Arc<AtomicUsize>,
    mode: Mode,
    segment_size: Option<usize>,
}

/// Counts a database as open.
pub(super) struct Open(Arc<AtomicUsize>);

impl SledKind {
    /// About `bytes` for `stores` databases together, at least 1 MiB for each. The options are `mode` (`high-throughput` or
    /// `low-space`) and `segment_size` (bytes, a power of two).
    ///
    /// # Errors
    /// `InvalidJob` for an option that sled does not know, or a value that it does not take.
    pub fn new(bytes: usize, stores: usize, options: &BTreeMap<String, String>) -> Result<Self> {
        let each = (bytes / stores.max(1)).max(LEAST);
        let mut kind = Self { each, open: Arc::default(), mode: Mode::HighThroughput, segment_size: None };
        for (name, value) in options {
            match (name.as_str(), value.as_str()) {
                ("mode", "high-throughput") => kind.mode = Mode::HighThroughput,
                ("mode", "low-space") => kind.mode = Mode::LowSpace,
                ("segment_size", value) if kind.set_segment_size(value) => {}
                _ => {
                    return Err(Error::invalid_job(format!(
                        "option {name:?} of sled cannot be {value:?}: it takes mode (high-throughput or low-space) and \
                         segment_size (bytes, a power of two from 256 to 16777216)"
                    )));
                }
            }
        }
        Ok(kind)
    }

    fn set_segment_size(&mut self, text: &str) -> bool {
        let size = text.parse().ok().filter(|size: &usize| size.is_power_of_two());
        self.segment_size = size.filter(|size| (256..=1 << 24).contains(size));
        self.segment_size.is_some()
    }

    pub(super) fn config(&self) -> Config {
        let config = Config::new().mode(self.mode).cache_capacity(self.each as u64).flush_every_ms(None);
        match self.segment_size {
            Some(size) => config.segment_size(size),
            None => config,
        }
    }

    pub(super) fn opened(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.open))
    }
}

impl StoreKind for SledKind {
    fn open(&self, files: Arc<dyn Files>, dir: &Path) -> Result<Box<dyn KeyValueStore>> {
        Ok(Box::new(SledStore::open(self, files, dir)?))
    }

    /// What the caches may take: sled does not say what they do.
    fn memory_use(&self) -> MemoryUse {
        MemoryUse { blocks: self.each * self.open.load(Ordering::Relaxed), ..MemoryUse::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
