//! The memory that all RocksDB stores of a process share, and the options that all of them are opened with.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use env::Files;
use rocksdb::{BlockBasedOptions, Cache, LruCacheOptions, Options, WriteBufferManager};
use types::{Error, Result};

use super::{RocksDbStore, layout::Layout};
use crate::store::{KeyValueStore, MemoryUse, stores::StoreKind};

/// Of the shared bytes, this part at most is write buffers; the rest is for blocks that were read.
const BUFFERS_PART: usize = 2;
/// The cache is divided into as many parts with locks of their own as have this much each. Write buffers are charged in pieces of
/// 256 KiB, each to any part: of parts of 512 KiB, RocksDB's least, a quarter would hold nothing but two of them.
const CACHE_PART: usize = 2 << 20;
const CACHE_PARTS_MAX: usize = 32;
/// The least that is of any use: a few blocks and one small write buffer.
const LEAST: usize = 4 << 20;
/// A write buffer is flushed at this size at the latest; smaller ones make files of a few blocks.
const BUFFER_MAX: usize = 64 << 20;
const BUFFER_MIN: usize = 256 << 10;
/// A few stores have buffers of up to this size, where that is more than half of their share: each flush is merged with all that is
/// there, and with larger ones each byte is written again less often. While one is flushed there are two: in the least memory those
/// of two stores leave a fifth for blocks. Of many stores, those that are quiet would leave the others too little.
const BUFFER_SMALL: usize = 768 << 10;
const FEW_STORES: usize = 4;
/// So many flushed files are merged at a time with all that is there: RocksDB's four would write each byte more often, and with many
/// more a look-up asks too many of them.
const FLUSHES: i32 = 6;
/// Files that all databases may keep open: half of what a process may have, as systems are set up.
const OPEN_FILES: usize = 512;
const OPEN_FILES_MIN: usize = 16;
/// Those of a database are in so many parts, as a power of two: in RocksDB's 64 there would be none to four in each.
const OPEN_FILES_PARTS: i32 = 2;
/// What users may not set: it would break what a store promises.
const OURS: &[&str] = &[
    "cf_paths",
    "comparator",
    "compaction_filter",
    "compaction_filter_factory",
    "create_if_missing",
    "db_log_dir",
    "db_paths",
    "error_if_exists",
    "merge_operator",
    "prefix_extractor",
    "ttl",
    "wal_dir",
];
/// A compaction that drops the oldest entries.
const FORGETS: &str = "FIFO";
/// Bits per key of the filters: about one look-up in a hundred finds a block read in vain.
pub(super) const FILTER_BITS: u32 = 10;
/// What can only be said so: what is not on disk at the end is of no use to anybody.
const OWN: &str = "avoid_flush_during_shutdown=true;";
/// How much of a write buffer its filter takes.
const BUFFER_FILTER: f64 = 0.05;
/// Bytes of a block: a missing key costs one block, so small ones.
pub(super) const BLOCK_LEN: usize = 4 << 10;

/// One budget of memory for RocksDB's blocks and write buffers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct RocksDbKind(Arc<Shared>);

struct Shared {
    bytes: usize,
    cache: Cache,
    buffers: WriteBufferManager,
    /// About how many databases there are.
    stores: usize,
    given: String,
}

impl RocksDbKind {
    /// About `bytes` for all of so many `stores` together, at least 4 MiB, and options of RocksDB by their names, which are put over the
    /// default ones: `block_based_table_factory` takes `{name=value;...}`.
    ///
    /// # Errors
    /// `InvalidJob` for an option that RocksDB does not know or that is not the user's, or a value that it does not take.
    pub fn new(bytes: usize, stores: usize, options: &BTreeMap<String, String>) -> Result<Self> {
        let bytes = bytes.max(LEAST);
        let cache = cache(bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            bytes / BUFFERS_PART,
            false,
            cache.clone(),
        );
        // One by one first, so that an error names the option.
        for (name, value) in options {
            if OURS.contains(&name.as_str()) || value.contains(FORGETS) {
                return Err(Error::invalid_job(format!(
                    "option {name:?} of RocksDB cannot be {value:?}: state would be lost, out of order, or at another \
                     place; leave it out"
                )));
            }
            parse(&mut Options::default(), &format!("{name}={value}"))
                .map_err(|error| error.context(format!("option {name:?} of RocksDB cannot be {value:?}")))?;
        }
        let given = options.iter().map(|(name, value)| format!("{name}={value};")).collect();
        let kind = Self(Arc::new(Shared { bytes, cache, buffers, stores: stores.max(1), given }));
        kind.options()?;
        Ok(kind)
    }

    pub(super) fn layout(&self) -> Layout {
        let Shared { bytes, stores, given, .. } = &*self.0;
        Layout::new(bytes / stores, open_files(*stores), given)
    }

    /// Options with others put over them, as a user writes them.
    pub(super) fn changed(options: &mut Options, text: &str) -> Result<Options> {
        parse(options, text)
    }

    /// The options of a store.
    pub(super) fn options(&self) -> Result<Options> {
        let Shared { bytes, cache, buffers, stores, given } = &*self.0;
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_block_size(BLOCK_LEN);
        // Counted, and never evicted for data of lower levels.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(FILTER_BITS.into(), false);
        // Where they are in parts.
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_format_version(5);
        let mut options = Options::default();
        self.layout().begin(given, &mut blocks, &mut options)?;
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(buffers);
        let buffer = write_buffer(*bytes, *stores);
        options.set_write_buffer_size(buffer);
        options.set_arena_block_size(buffer / 8);
        options.set_level_zero_file_num_compaction_trigger(FLUSHES);
        // Most keys that are asked for are not in there, and finding that out costs a search.
        options.set_memtable_prefix_bloom_ratio(BUFFER_FILTER);
        options.set_memtable_whole_key_filtering(true);
        options.set_max_open_files(i32::try_from(open_files(*stores)).unwrap_or(i32::MAX));
        options.set_table_cache_num_shard_bits(OPEN_FILES_PARTS);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_max_background_jobs(2);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_keep_log_file_num(1);
        options.set_log_level(rocksdb::LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        parse(&mut options, &format!("{given}{OWN}"))
    }
}

/// At which size a write buffer of each of so many stores is flushed. A store that is quiet keeps what it has: all together must
/// leave room for those that write.
fn write_buffer(bytes: usize, stores: usize) -> usize {
    let share = bytes / BUFFERS_PART / stores;
    let small = if stores <= FEW_STORES { share.min(BUFFER_SMALL) } else { 0 };
    (share / 2).max(small).clamp(BUFFER_MIN, BUFFER_MAX)
}

/// How many files each of so many stores may keep open.
fn open_files(stores: usize) -> usize {
    (OPEN_FILES / stores).max(OPEN_FILES_MIN)
}

fn cache(bytes: usize) -> Cache {
    let parts = (bytes / CACHE_PART).clamp(1, CACHE_PARTS_MAX);
    let mut options = LruCacheOptions::default();
    options.set_capacity(bytes);
    options.set_num_shard_bits(parts.ilog2().cast_signed());
    Cache::new_lru_cache_opts(&options)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_buffers_leave_room_for_blocks() {
        for megabytes in [4, 5, 8, 16, 32, 64, 128, 1024, 1 << 20] {
            for stores in [1, 2, 3, 4, 5, 8, 16, 64] {
                let bytes = megabytes << 20;
                let buffer = write_buffer(bytes, stores);
                assert!((BUFFER_MIN..=BUFFER_MAX).contains(&buffer));
                let is_least = buffer == BUFFER_MIN;
                let taken = stores * buffer;
                assert!(
                    taken <= bytes / BUFFERS_PART || is_least,
                    "{megabytes} MiB, {stores} stores: {taken} bytes"
                );
                let grows =
                    write_buffer(2 * bytes, stores) >= buffer && write_buffer(bytes, 2 * stores) <= buffer;
                assert!(grows, "{megabytes} MiB, {stores} stores");
            }
        }
        let kibibytes = |megabytes: usize, stores| write_buffer(megabytes << 20, stores) >> 10;
        assert_eq!([kibibytes(4, 1), kibibytes(4, 2), kibibytes(4, 16)], [1024, 768, 256]);
        assert_eq!([kibibytes(8, 4), kibibytes(8, 5), kibibytes(128, 2)], [768, 409, 16 << 10]);
    }
}
