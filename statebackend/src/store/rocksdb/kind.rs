//! The memory that all RocksDB stores of a process share, and the options that all of them are opened with.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use env::Files;
use rocksdb::{BlockBasedOptions, Cache, Options, WriteBufferManager};
use types::{Error, Result};

use super::RocksDbStore;
use crate::store::{KeyValueStore, MemoryUse, stores::StoreKind};

/// Of the shared bytes, this part at most is write buffers; the rest is for blocks that were read.
const BUFFERS_PART: usize = 2;
/// The least that is of any use: a few blocks and one small write buffer.
const LEAST: usize = 4 << 20;
/// A write buffer is flushed at this size at the latest.
const BUFFER_MAX: usize = 64 << 20;
/// Bits per key of the filters: about one look-up in a hundred finds a block read in vain.
const FILTER_BITS: f64 = 10.0;
/// What can only be said so: what is not on disk at the end is of no use to anybody.
const OWN: &str = "avoid_flush_during_shutdown=true;";
/// Bytes of a block: a missing key costs one block, so small ones.
const BLOCK_LEN: usize = 4 << 10;

/// One budget of memory for RocksDB's blocks and write buffers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct RocksDbKind(Arc<Shared>);

struct Shared {
    bytes: usize,
    cache: Cache,
    buffers: WriteBufferManager,
    given: String,
}

impl RocksDbKind {
    /// About `bytes` for all stores together, at least 4 MiB, and options of RocksDB by their names, which are put over the
    /// default ones: `block_based_table_factory` takes `{name=value;...}`.
    ///
    /// # Errors
    /// `InvalidJob` for an option that RocksDB does not know, or a value that it does not take.
    pub fn new(bytes: usize, options: &BTreeMap<String, String>) -> Result<Self> {
        let bytes = bytes.max(LEAST);
        let cache = Cache::new_lru_cache(bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            bytes / BUFFERS_PART,
            false,
            cache.clone(),
        );
        // One by one first, so that an error names the option.
        for (name, value) in options {
            parse(&mut Options::default(), &format!("{name}={value}"))
                .map_err(|error| error.context(format!("option {name:?} of RocksDB cannot be {value:?}")))?;
        }
        let given = options.iter().map(|(name, value)| format!("{name}={value};")).collect();
        let kind = Self(Arc::new(Shared { bytes, cache, buffers, given }));
        kind.options()?;
        Ok(kind)
    }

    /// The options of a store.
    pub(super) fn options(&self) -> Result<Options> {
        let Shared { bytes, cache, buffers, given } = &*self.0;
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_block_size(BLOCK_LEN);
        // Counted, and never evicted for data of lower levels.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(FILTER_BITS, false);
        blocks.set_format_version(5);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(buffers);
        options.set_write_buffer_size((bytes / BUFFERS_PART / 2).min(BUFFER_MAX));
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_max_background_jobs(2);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_keep_log_file_num(1);
        options.set_log_level(rocksdb::LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        parse(&mut options, &format!("{OWN}{given}"))
    }
}

impl StoreKind for RocksDbKind {
    fn open(&self, files: Arc<dyn Files>, dir: &Path) -> Result<Box<dyn KeyValueStore>> {
        Ok(Box::new(RocksDbStore::open(self, files, dir)?))
    }

    fn memory_use(&self) -> MemoryUse {
        let write_buffers = self.0.buffers.get_usage();
        let blocks = self.0.cache.get_usage().saturating_sub(write_buffers);
        MemoryUse { blocks, write_buffers, ..MemoryUse::default() }
    }
}

fn parse(base: &mut Options, text: &str) -> Result<Options> {
    base.get_options_from_string(text).map_err(|error| Error::invalid_job(error.into_string()))
}

impl fmt::Debug for RocksDbKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDbKind").field("bytes", &self.0.bytes).field("given", &self.0.given).finish()
    }
}
