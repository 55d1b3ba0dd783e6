//! How indexes and filters of files are stored: whole while all of them fit in the cache, where a look-up then asks it for half as
//! many blocks; in parts of a block each beyond that, where whole ones would be read again and again.

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Options, properties};
use types::{Error, Result};

use super::{
    RocksDbKind, RocksDbStore,
    error::error,
    kind::{BLOCK_LEN, FILTER_BITS},
};

/// Whole ones may take all of the cache, by what they are at about: by measure they are the better ones even then
/// (`benches/README.md`). Of an index, so many bytes are about one block.
const INDEX_ENTRY: u64 = 32;
/// And files may be so many times the cache: those of large values have small indexes, and would be too many to be open.
const CACHE_TIMES: u64 = 32;
/// Bytes of a file, at least and at the most. Those with whole indexes and filters are small, so that those of one are a small part
/// of the cache; but no more of them than may be open.
const FILE_MIN: u64 = 4 << 20;
const FILE_MAX: u64 = 64 << 20;
/// After so many bytes of changes the store is asked for its size.
const ASK_AFTER: usize = 1 << 20;
/// What is changed for parts, each unless a user has set one of the names behind it.
const CHANGES: [(&str, &str, &[&str]); 3] = [
    ("block_based_table_factory", "{index_type=kTwoLevelIndexSearch;partition_filters=true}", &FORMAT),
    ("target_file_size_base", "67108864", &["target_file_size_base"]),
    // RocksDB makes it 25 files when it is opened, and leaves it at that.
    ("max_compaction_bytes", "1677721600", &["target_file_size_base", "max_compaction_bytes"]),
];
const FORMAT: [&str; 2] = [INDEX, FILTERS];
const INDEX: &str = "index_type";
const FILTERS: &str = "partition_filters";
const IN_PARTS: &str = "kTwoLevelIndexSearch";

/// Which of them a store has come to.
pub(super) struct Layout {
    cache: u64,
    file_len: u64,
    /// What has to be changed beyond that.
    changes: Vec<(&'static str, &'static str)>,
    changed: usize,
}

impl Layout {
    /// For a store with so many bytes of a cache that may have so many files open, and what the user has set.
    pub(super) fn new(cache: usize, open_files: usize, given: &str) -> Self {
        let cache = cache as u64;
        let file_len = (cache * CACHE_TIMES / (open_files as u64 / 2).max(1)).clamp(FILE_MIN, FILE_MAX);
        let changes =
            CHANGES.iter().filter(|(.., theirs)| theirs.iter().all(|it| value(given, it).is_none()));
        let changes = changes.map(|&(name, value, _)| (name, value)).collect();
        Self { cache, file_len, changes, changed: 0 }
    }

    /// The options of a store that is empty.
    ///
    /// # Errors
    /// `InvalidJob` for filters in parts with an index that is not: RocksDB takes them, and ends the process when it flushes.
    pub(super) fn begin(
        &self,
        given: &str,
        blocks: &mut BlockBasedOptions,
        options: &mut Options,
    ) -> Result<()> {
        let (index, filters) = (value(given, INDEX), value(given, FILTERS));
        let is_parted = index.map_or(filters.is_some(), |it| it == IN_PARTS);
        if is_parted {
            // What a user does not set of it is as it will be.
            blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            blocks.set_partition_filters(true);
        } else if filters.is_some_and(|it| it != "false" && it != "0") {
            return Err(Error::invalid_job(format!(
                "options of RocksDB: {FILTERS} needs {INDEX}={IN_PARTS}; set that, or leave out one of the two"
            )));
        }
        options.set_target_file_size_base(self.file_len);
        Ok(())
    }

    /// Whether whole indexes and filters of so many bytes of files with so many keys fit.
    fn fits(&self, bytes: u64, keys: u64) -> bool {
        let filters = keys * u64::from(FILTER_BITS) / 8;
        let indexes = bytes / BLOCK_LEN as u64 * INDEX_ENTRY;
        bytes <= self.cache * CACHE_TIMES && filters + indexes <= self.cache
    }

    /// Bytes of a file that is loaded.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }
}

/// What `name` is set to in `name=value;name={name=value;...};...`, the last time.
fn value<'a>(given: &'a str, name: &str) -> Option<&'a str> {
    let set = |it: &'a str| {
        let (key, value) = it.split_once('=')?;
        let last = key.rsplit('.').next()?;
        (last.trim() == name).then_some(value.trim())
    };
    given.split([';', '{', '}']).filter_map(set).next_back()
}

/// Takes note of so many bytes of changes. Files that are written later have the other layout; those that are there go as they are
/// merged.
pub(super) fn on_changed(store: &mut RocksDbStore, bytes: usize) -> Result<()> {
    let layout = &mut store.layout;
    layout.changed += bytes;
    if layout.changes.is_empty() || layout.changed < ASK_AFTER {
        return Ok(());
    }
    layout.changed = 0;
    let failed = |it| error(store.directory.path(), "be asked for its size", &it);
    let bytes = store.db.property_int_value(properties::TOTAL_SST_FILES_SIZE).map_err(failed)?;
    let keys = store.db.property_int_value(properties::ESTIMATE_NUM_KEYS).map_err(failed)?;
    if layout.fits(bytes.unwrap_or_default(), keys.unwrap_or_default()) {
        return Ok(());
    }
    store
        .db
        .set_options(&layout.changes)
        .map_err(|it| error(store.directory.path(), "change its files", &it))?;
    let text: String = layout.changes.iter().map(|(name, value)| format!("{name}={value};")).collect();
    store.options =
        RocksDbKind::changed(&mut store.options, &text).map_err(|it| Error::internal(it.to_string()))?;
    layout.changes.clear();
    layout.file_len = FILE_MAX;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{Change, KeyBatch, KeyValueStore, SortedEntries, WriteBatch, stores::StoreKind};

    const VALUE: [u8; 4096] = [7; 4096];
    const CACHE: usize = 4 << 20;
    /// 148 MB, and 128 MiB are the limit.
    const KEYS: u32 = 36_000;

    /// More than a file of the least length takes.
    const LOADED: usize = 5 << 20;

    fn opened(given: &[(&str, &str)]) -> (RocksDbKind, RocksDbStore, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let given: BTreeMap<_, _> =
            given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let kind = RocksDbKind::new(CACHE, 1, &given).unwrap();
        let store = RocksDbStore::open(&kind, env::real_files(), dir.path()).unwrap();
        (kind, store, dir)
    }

    fn write(store: &mut RocksDbStore, keys: impl Iterator<Item = u32>) {
        for keys in keys.collect::<Vec<_>>().chunks(500) {
            let mut batch = WriteBatch::default();
            keys.iter().for_each(|key| batch.push(Change::Put(&key.to_be_bytes(), &VALUE)));
            store.write(&batch).unwrap();
        }
    }

    fn load(store: &mut RocksDbStore, keys: std::ops::Range<u32>) {
        let mut entries = SortedEntries::default();
        keys.for_each(|key| entries.push(&key.to_be_bytes(), &VALUE));
        store.bulk_load(&entries).unwrap();
    }

    /// Whether there are indexes in parts, and the length of the greatest file.
    fn files(store: &RocksDbStore) -> (bool, usize) {
        let all = store.db.property_value(properties::AGGREGATED_TABLE_PROPERTIES).unwrap().unwrap();
        let greatest = store.db.live_files().unwrap().iter().map(|file| file.size).max();
        (all.contains("index partitions"), greatest.unwrap())
    }

    fn assert_all_there(kind: &RocksDbKind, store: &RocksDbStore) {
        let mut batch = KeyBatch::default();
        (0..KEYS).for_each(|key| batch.push(&key.to_be_bytes()));
        let (mut found, mut most) = (0, 0);
        let mut answer = |_, value: Option<&[u8]>| {
            assert_eq!(value, Some(&VALUE[..]));
            found += 1;
            most = most.max(kind.memory_use().blocks);
            Ok(())
        };
        store.read(&batch, &mut answer).unwrap();
        assert_eq!(found, KEYS);
        assert!(most < CACHE * 5 / 4, "{most} bytes of blocks");
    }

    #[test]
    fn a_store_comes_to_parts_when_it_is_far_above_its_cache() {
        let (kind, mut store, _dir) = opened(&[]);
        write(&mut store, 0..KEYS / 2);
        store.db.flush().unwrap();
        assert!(!files(&store).0);
        write(&mut store, KEYS / 2..KEYS);
        write(&mut store, (0..KEYS).step_by(2));
        store.db.flush().unwrap();
        assert!(files(&store).0);
        assert_all_there(&kind, &store);
    }

    #[test]
    fn what_is_loaded_is_in_files_of_either_length() {
        let (kind, mut store, _dir) = opened(&[]);
        load(&mut store, 0..16_000);
        let (is_parted, greatest) = files(&store);
        assert!(!is_parted && greatest < LOADED, "{greatest}");
        load(&mut store, 16_000..33_000);
        assert!(!files(&store).0);
        load(&mut store, 33_000..KEYS);
        let (is_parted, greatest) = files(&store);
        assert!(is_parted && greatest > LOADED, "{greatest}");
        assert_all_there(&kind, &store);
    }

    #[test]
    fn what_a_user_sets_stays() {
        let whole = ("block_based_table_factory", "{index_type=kBinarySearch}");
        let short = ("target_file_size_base", "1048576");
        let filters = ("block_based_table_factory", "{partition_filters=false}");
        for (given, at_once, parted) in [(whole, false, false), (short, false, true), (filters, true, true)] {
            let (kind, mut store, _dir) = opened(&[given]);
            load(&mut store, 0..1);
            assert_eq!(files(&store).0, at_once, "{given:?}");
            write(&mut store, 0..KEYS);
            write(&mut store, (0..KEYS).step_by(2));
            store.db.flush().unwrap();
            assert_eq!(files(&store).0, parted, "{given:?}");
            assert_all_there(&kind, &store);
        }
    }

    #[test]
    fn filters_in_parts_below_a_whole_index_are_refused() {
        for index in ["kBinarySearch", "kBinarySearchWithFirstKey"] {
            let given = format!("{{partition_filters=true;index_type={index}}}");
            let given = BTreeMap::from([("block_based_table_factory".to_owned(), given)]);
            let error = RocksDbKind::new(CACHE, 1, &given).unwrap_err();
            assert_eq!(error.kind(), types::ErrorKind::InvalidJob);
            assert!(
                error.to_string().contains("partition_filters needs index_type=kTwoLevelIndexSearch"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_what_a_user_leaves_is_changed() {
        let names = |given| -> Vec<_> {
            let changes = Layout::new(CACHE, 512, given).changes;
            changes.into_iter().map(|(name, _)| name).collect()
        };
        let all = ["block_based_table_factory", "target_file_size_base", "max_compaction_bytes"];
        assert_eq!(names(""), all);
        assert_eq!(names("block_based_table_factory={data_block_index_type=kDataBlockBinarySearch};"), all);
        assert_eq!(names("block_based_table_factory={block_size=4096; partition_filters=false};"), all[1..]);
        assert_eq!(names("target_file_size_base=1000000;max_compaction_bytes=1;"), all[..1]);
        assert_eq!(names("max_compaction_bytes=1;"), all[..2]);
    }

    #[test]
    fn whole_indexes_and_filters_may_take_all_of_the_cache() {
        let layout = Layout::new(32 << 20, 512, "");
        let fits = |keys, entry_len| layout.fits(keys * entry_len, keys);
        // 16 bytes of a cell, with state and key group and what RocksDB adds: filters are most of it.
        assert!(fits(22_000_000, 28) && !fits(23_000_000, 28));
        // 100 bytes: about half of the cache, and as many files as may be.
        assert!(fits(9_000_000, 118) && !fits(10_000_000, 118));
        // 10 KB: there are too many files first.
        assert!(fits(100_000, 10_000) && !fits(110_000, 10_000));
        assert!(fits(0, 0));
    }

    #[test]
    fn files_are_as_large_as_the_number_of_open_ones_needs() {
        for megabytes in [1, 4, 64, 1 << 10, 64 << 10] {
            for open in [16, 64, 512] {
                let Layout { cache, file_len, .. } = Layout::new(megabytes << 20, open, "");
                assert!((FILE_MIN..=FILE_MAX).contains(&file_len));
                assert!(
                    file_len == FILE_MAX || cache * CACHE_TIMES / file_len <= open as u64 / 2,
                    "{megabytes} MiB, {open} files"
                );
            }
        }
    }
}
