//! Stores by name, with what they share and with options of their own.

use std::collections::BTreeMap;

#[cfg(feature = "rocksdb")]
use statebackend::store::{Change, KeyBatch, Order, SortedEntries, WriteBatch};
use statebackend::{
    KeyedState, StateDeclarations,
    store::{StoreSettings, Stores, TableMemory},
};
use types::{CheckpointId, ErrorKind, Result};

use crate::fixture::{Context, MAX, STORES, key};

fn stores(name: &str, memory: usize, options: &[(&str, &str)]) -> Result<Stores> {
    let options: BTreeMap<_, _> =
        options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Stores::new(name, &StoreSettings { memory, stores: 2, options: &options })
}

fn assert_refused(name: &str, options: &[(&str, &str)], texts: &[&str]) {
    let error = stores(name, 1 << 20, options).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob, "{error}");
    assert!(texts.iter().all(|text| error.to_string().contains(text)), "{error}");
}

#[test]
fn a_name_that_is_none_and_options_that_are_none_are_refused() {
    assert_refused("floppy", &[], &["without the state backend floppy", "feature"]);
    for name in STORES {
        assert_refused(name, &[("no_such", "1")], &["no_such"]);
    }
    #[cfg(feature = "rocksdb")]
    {
        assert_refused("rocksdb", &[("max_open_files", "7"), ("no_such", "1")], &["no_such"]);
        assert_refused("rocksdb", &[("max_open_files", "many")], &["max_open_files", "many"]);
        assert_refused("rocksdb", &[("block_based_table_factory", "{no_such=1}")], &["no_such"]);
        let forgets = [("compaction_style", "kCompactionStyleFIFO")];
        assert_refused("rocksdb", &forgets, &["compaction_style", "would be lost"]);
        assert_refused("rocksdb", &[("wal_dir", "/elsewhere")], &["wal_dir", "leave it out"]);
    }
    #[cfg(feature = "sled")]
    {
        assert_refused("sled", &[("mode", "fast")], &["mode", "fast", "high-throughput"]);
        assert_refused("sled", &[("segment_size", "1000")], &["segment_size", "power of two"]);
        assert_refused("sled", &[("cache", "1")], &["cache"]);
    }
}

/// Also where options replace a part of those that the memory stands in.
#[cfg(feature = "rocksdb")]
#[test]
fn all_rocksdb_stores_of_a_process_keep_one_bound() {
    const BOUND: usize = 8 << 20;
    for options in [&[][..], &[("block_based_table_factory", "{block_size=8192}"), ("max_open_files", "64")]]
    {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores("rocksdb", 4 * BOUND, options).unwrap();
        let mut opened: Vec<_> =
            ["one", "two"].map(|name| stores.open(env::real_files(), &dir.path().join(name)).unwrap()).into();
        assert!(stores.memory_use().blocks < 1 << 20, "{:?}", stores.memory_use());
        for store in &mut opened {
            let keys: Vec<_> = (0..20_000_u32).map(u32::to_be_bytes).collect();
            let mut entries = SortedEntries::default();
            keys.iter().for_each(|key| entries.push(key, &[7; 500]));
            store.bulk_load(&entries).unwrap();
            for some in keys.chunks(1000) {
                let mut batch = KeyBatch::default();
                some.iter().for_each(|key| batch.push(key));
                store
                    .read(&batch, &mut |_, value| {
                        assert_eq!(value, Some(&[7; 500][..]));
                        Ok(())
                    })
                    .unwrap();
            }
        }
        let taken = stores.memory_use().blocks;
        assert!((BOUND / 2..BOUND + BOUND / 8).contains(&taken), "{taken} bytes of blocks, {options:?}");
        // What is written is flushed before it takes more than its part.
        let value = vec![3; 1000];
        for round in 0..20_000_u32 {
            let mut batch = WriteBatch::default();
            batch.push(Change::Put(&round.to_be_bytes(), &value));
            opened[round as usize % 2].write(&batch).unwrap();
        }
        let buffers = stores.memory_use().write_buffers;
        assert!((1..BOUND).contains(&buffers), "{buffers} bytes of write buffers, {options:?}");
        drop(opened);
        assert_eq!(
            env::real_files().read_dir(dir.path()).unwrap().len(),
            0,
            "directories go with their stores"
        );
    }
}

/// Each value that is found keeps its block: those of a large batch are more than a small bound allows.
#[cfg(feature = "rocksdb")]
#[test]
fn a_large_batch_is_read_within_a_small_bound() {
    const BOUND: usize = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let stores = stores("rocksdb", 4 * BOUND, &[]).unwrap();
    let mut store = stores.open(env::real_files(), dir.path()).unwrap();
    let mut entries = SortedEntries::default();
    (0..40_000_u32).for_each(|key| entries.push(&key.to_be_bytes(), &[7; 500]));
    store.bulk_load(&entries).unwrap();
    let mut batch = KeyBatch::default();
    // One of each block of 4 KiB.
    (0..40_000_u32).step_by(8).for_each(|key| batch.push(&key.to_be_bytes()));
    let (mut found, mut most) = (0, 0);
    store
        .read(&batch, &mut |number, value| {
            assert_eq!((number, value), (found, Some(&[7; 500][..])));
            found += 1;
            most = most.max(stores.memory_use().blocks);
            Ok(())
        })
        .unwrap();
    assert_eq!(found, batch.len());
    assert!((BOUND / 2..BOUND + BOUND / 8).contains(&most), "{most} bytes of blocks");
}

/// With the least that RocksDB takes, two stores or many: also while buffers are flushed, and when all but one fall silent.
#[cfg(feature = "rocksdb")]
#[test]
fn write_buffers_keep_a_small_bound() {
    const LEAST: usize = 4 << 20;
    for (count, buffer) in [(2, 768 << 10), (16, 256 << 10)] {
        let dir = tempfile::tempdir().unwrap();
        let settings = StoreSettings { memory: 4 * LEAST, stores: count, options: &BTreeMap::new() };
        let stores = Stores::new("rocksdb", &settings).unwrap();
        let open = |number: usize| stores.open(env::real_files(), &dir.path().join(number.to_string()));
        let mut opened: Vec<_> = (0..count).map(|number| open(number).unwrap()).collect();
        let mut most = 0;
        for round in 0..20_000_u32 {
            let mut batch = WriteBatch::default();
            batch.push(Change::Put(&round.to_be_bytes(), &[3; 1000]));
            let last = if round < 10_000 { round as usize % count } else { 0 };
            opened[last].write(&batch).unwrap();
            most = most.max(stores.memory_use().write_buffers);
        }
        // Each has one that is written and one that is flushed, a piece (an eighth) too large at the most; and the thread that
        // flushes lets two of a store go a moment after others have taken their place.
        let bound = (2 * count + 2) * (buffer + buffer / 8);
        assert!((buffer..=bound).contains(&most), "{count} stores: {most} bytes of write buffers");
    }
}

/// What a failing disk gives back is noticed: no value comes that was not written. More is stored than the cache holds.
#[cfg(feature = "rocksdb")]
#[test]
fn a_damaged_file_of_rocksdb_is_noticed() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("values are others", |bytes| bytes.iter_mut().filter(|it| **it == 7).for_each(|it| *it = 8)),
        ("all is another's", |bytes| bytes.fill(0xa5)),
        ("it ends in the middle", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    let files = env::real_files();
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let stores = stores("rocksdb", 1 << 20, &[]).unwrap();
        let mut store = stores.open(files.clone(), &dir).unwrap();
        let keys: Vec<_> = (0..10_000_u32).map(u32::to_be_bytes).collect();
        let mut entries = SortedEntries::default();
        keys.iter().for_each(|key| entries.push(key, &[7; 1000]));
        store.bulk_load(&entries).unwrap();
        let mut damaged = 0;
        for path in files.read_dir(&dir.join("db")).unwrap() {
            if path.extension().is_some_and(|ending| ending == "sst") {
                let file = files.open(&path).unwrap();
                let mut bytes = vec![0; file.len().unwrap().try_into().unwrap()];
                file.read_full(0, &mut bytes).unwrap();
                damage(&mut bytes);
                files.append(&path, 0).unwrap().write_all(&bytes).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "no file was damaged");
        let mut batch = KeyBatch::default();
        keys.iter().for_each(|key| batch.push(key));
        let read = store.read(&batch, &mut |_, value| {
            assert_eq!(value, Some(&[7; 1000][..]), "{what}");
            Ok(())
        });
        let mut all = |_: &[u8], value: &[u8]| {
            assert_eq!(value, [7; 1000], "{what}");
            Ok(std::ops::ControlFlow::Continue(()))
        };
        for error in [read.unwrap_err(), store.scan(&[], Order::Ascending, &mut all).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
            let text = error.to_string();
            let told = [&dir.display().to_string(), "state.directory"].iter().all(|part| text.contains(part));
            assert!(told && !text.contains('\n'), "{what}: {text}");
        }
    }
}

/// Where a share becomes a small part of what it was, cells leave in steps; what came and went is no measure of what stays.
#[test]
fn a_share_that_shrinks_is_left_step_by_step() {
    const CELLS: usize = 20_000;
    let memory = TableMemory::new(64 << 20);
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let total = states.value::<u64>("total");
    let mut state = KeyedState::new(states.finish().unwrap(), MAX.all(), CheckpointId(1));
    let dir = tempfile::tempdir().unwrap();
    let stores = stores("sorted-map", 1, &[]).unwrap();
    state.use_store(stores.open(env::real_files(), dir.path()).unwrap(), memory.share());
    let keys: Vec<_> = (0..CELLS).map(|number| key(&format!("key-{number}"))).collect();
    for bytes in &keys {
        total.set(&mut Context { state: &mut state, key: bytes }, 1).unwrap();
        total.clear(&mut Context { state: &mut state, key: bytes }).unwrap();
    }
    for checkpoint in 1..=2 {
        state.flip(CheckpointId(checkpoint));
        while state.drain(usize::MAX).unwrap() > 0 {}
        state.take_sealed().unwrap();
    }
    for bytes in &keys {
        total.set(&mut Context { state: &mut state, key: bytes }, 1).unwrap();
    }
    assert_eq!((state.evicted_cells(), state.resident_cells()), (0, CELLS));
    let _others: Vec<_> = (0..1000).map(|_| memory.share()).collect();
    let mut steps = 0;
    while state.resident_cells() > 1000 {
        let before = state.evicted_cells();
        total.get(&mut Context { state: &mut state, key: &keys[steps] }).unwrap();
        let left = state.evicted_cells() - before;
        assert!((1..=1100).contains(&left), "{left} cells left in step {steps}");
        steps += 1;
    }
}

/// Cells of text, of which the type says little, and shares that become smaller once others come.
#[test]
fn tables_keep_to_their_share_of_memory_in_bytes() {
    const BUDGET: usize = 4 << 20;
    let stores = stores("sorted-map", 2 * BUDGET, &[]).unwrap();
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let text = states.value::<String>("text");
    let declared = states.finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut subtasks: Vec<_> = (0..4)
        .map(|_| {
            let mut state = KeyedState::new(declared.clone(), MAX.all(), CheckpointId(1));
            state.use_store(stores.open(env::real_files(), dir.path()).unwrap(), stores.tables().share());
            state
        })
        .collect();
    let keys: Vec<_> = (0..3000).map(|number| key(&format!("key-{number}"))).collect();
    for round in 1..=3_u64 {
        for state in &mut subtasks {
            for bytes in &keys {
                let value = round.to_string().repeat(2000);
                text.set(&mut Context { state, key: bytes }, value).unwrap();
            }
            state.flip(CheckpointId(round));
            while state.drain(usize::MAX).unwrap() > 0 {}
            state.take_sealed().unwrap();
        }
    }
    let resident: usize = subtasks.iter().map(KeyedState::resident_cells).sum();
    // Three texts of the least share, which are always there, besides.
    assert!(resident * 2000 < BUDGET * 3 / 2, "{resident} texts of 2,000 bytes are resident");
    assert!(stores.memory_use().tables < BUDGET * 3 / 2, "{:?}", stores.memory_use());
    assert!(stores.memory_use().tables > BUDGET / 4, "{:?}", stores.memory_use());
}
