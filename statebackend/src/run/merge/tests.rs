//! Merges against a model that takes every entry apart and knows nothing of ranks, heaps or blocks.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use env::{Env, Payload, Store};
use proptest::prelude::*;
use types::{AttemptId, ExpiryClocks, JobId, KeyGroup, Run, RunIdentity, Shape, SubtaskIndex, Uid};

use super::*;
use crate::{
    declare::{StateKind, StateSpec},
    run::{
        block::RunCompression,
        driver::{RunSet, copy_canonical, merge},
        index::Compression,
        live::{Scan, scan},
        reader::RunReader,
        schema::Schema,
        select::{KeySelection, Selection},
        writer::RunWriter,
    },
};

/// State, group, key, whether it is no range tombstone, and what is below the key: the order of a run.
type At = (u16, u16, Vec<u8>, bool, Vec<u8>);
/// The entries of a run: the value of each place, `None` for a tombstone.
type Entries = BTreeMap<At, Option<Vec<u8>>>;

/// Runs of states that do not expire.
fn set(runs: &[Run]) -> RunSet<'_> {
    static NEVER: std::sync::LazyLock<ExpiryClocks> = std::sync::LazyLock::new(ExpiryClocks::default);
    RunSet::new(runs, &NEVER)
}

const GROUPS: KeyGroupRange = KeyGroupRange { start: 0, end: 2 };

/// Two states; a run may have the second alone, so that places in the merge differ from those in the run.
fn schema(first: u16) -> Schema {
    let spec = |name: &str| {
        let (name, codec) = (name.to_owned(), "bincode-2".to_owned());
        StateSpec {
            name,
            kind: StateKind::Map,
            expiry: None,
            codec,
            shape: Shape::Unit,
            map_key: Some(Shape::Unit),
        }
    };
    Schema::new(None, ["a", "b"][first.into()..].iter().map(|name| spec(name).into()))
}

fn identity(number: u64) -> RunIdentity {
    let (job, attempt, subtask) = (JobId(1), AttemptId(1), SubtaskIndex(0));
    RunIdentity { job, attempt, operator: Uid::new("sum").unwrap(), subtask, number }
}

fn entry_of<'a>(at: &'a At, value: &'a Option<Vec<u8>>) -> Entry<'a> {
    let kind = match value {
        _ if !at.3 => EntryKind::Clear,
        Some(_) => EntryKind::Put,
        None => EntryKind::Delete,
    };
    Entry { kind, key: &at.2, sub: &at.4, value: value.as_deref().unwrap_or_default() }
}

async fn write(store: &dyn Store, number: u64, entries: &Entries, compression: RunCompression) -> Run {
    let first = u16::from(entries.keys().all(|at| at.0 == 1));
    let mut writer = RunWriter::new(identity(number), GROUPS, schema(first), compression).unwrap();
    let mut payload = Payload::new();
    for (at, value) in entries {
        writer.push_entry(at.0 - first, KeyGroup(at.1), &entry_of(at, value)).unwrap();
        payload.extend(writer.take_piece());
    }
    let (last, written) = writer.finish().unwrap();
    payload.push(last);
    let path = format!("run-{number}");
    store.put(&path, payload).await.unwrap();
    written.into_run(&path)
}

async fn read(store: &dyn Store, run: &Run) -> Entries {
    let reader = RunReader::open(store, run).await.unwrap();
    let mut found = Entries::new();
    let names: Vec<_> = reader.schema.states.iter().map(|state| state.spec.name.clone()).collect();
    for window in reader.windows(GROUPS) {
        for block in reader.read(store, window).await.unwrap().into_blocks() {
            let mut block = block.unwrap();
            while let Some((home, entry, _)) = block.next().unwrap() {
                let state = u16::from(names[usize::from(home.state)] == "b");
                let is_no_clear = entry.kind != EntryKind::Clear;
                let at = (state, home.group.0, entry.key.to_vec(), is_no_clear, entry.sub.to_vec());
                assert!(found.last_key_value().is_none_or(|(last, _)| *last < at), "out of order: {at:?}");
                found.insert(at, (entry.kind == EntryKind::Put).then(|| entry.value.to_vec()));
            }
        }
    }
    found
}

/// What the runs (oldest first) come to.
fn model(runs: &[Entries], includes_oldest: bool) -> Entries {
    let mut merged: BTreeMap<At, (usize, Option<Vec<u8>>)> = BTreeMap::new();
    for (age, run) in runs.iter().enumerate() {
        for (at, value) in run {
            merged.insert(at.clone(), (age, value.clone()));
        }
    }
    let cleared = |at: &At| merged.get(&(at.0, at.1, at.2.clone(), false, vec![])).map(|(age, _)| *age);
    let kept = merged.iter().filter(|(at, (age, value))| match cleared(at) {
        Some(_) if !at.3 => !includes_oldest,
        Some(by) => *age >= by && value.is_some(),
        None => value.is_some() || !includes_oldest,
    });
    kept.map(|(at, (_, value))| (at.clone(), value.clone())).collect()
}

/// Keys that are alike for eight bytes or for many, or end in zeros, or are the beginning of another.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let short = proptest::collection::vec(0_u8..2, 0..4);
    let eight = (0_u64..20).prop_map(|number| number.to_be_bytes().to_vec());
    let long = proptest::collection::vec(0_u8..2, 0..3).prop_map(|end| [&[0; 7][..], &end].concat());
    // Alike for more bytes than an index holds.
    let longest = proptest::collection::vec(0_u8..2, 0..3).prop_map(|end| [&[0; 63][..], &end].concat());
    prop_oneof![short, eight, long, longest]
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        // Xorshift: never 0 where it did not begin so.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn entries() -> impl Strategy<Value = Entries> {
    let value = prop_oneof![0_usize..4, 120_usize..140, Just(30_000)];
    // One value in four is noise: what does not compress is stored raw, and soon fills a window.
    let value = (value, any::<u8>(), 0_u8..4).prop_map(|(len, byte, of_four)| match of_four {
        0 => noise(byte.into(), len),
        _ => vec![byte; len],
    });
    let what = prop_oneof![
        8 => value.prop_map(Some),
        2 => Just(None),
    ];
    let below = proptest::collection::vec(0_u8..2, 0..2);
    let at = (0_u16..2, 0_u16..2, key(), prop_oneof![9 => Just(true), 1 => Just(false)], below);
    proptest::collection::vec((at, what), 0..60).prop_map(|entries| {
        let clear_has_nothing = |(at, what): (At, Option<Vec<u8>>)| match at {
            (state, group, key, false, _) => ((state, group, key, false, vec![]), None),
            at => (at, what),
        };
        entries.into_iter().map(clear_has_nothing).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_merge_is_what_the_model_says(runs in proptest::collection::vec(entries(), 1..8)) {
        env::sim::Simulation::new(1).run(async |env: Env| {
            let store = env.open_store("memory:runs").unwrap();
            let mut written = Vec::new();
            for (number, run) in (1..).zip(&runs) {
                // Runs of before and after a change of the setting.
                let compression = [RunCompression::Zstd, RunCompression::None][number as usize % 2];
                written.push(write(&*store, number, run, compression).await);
            }
            let merges = [
                (100, false, RunCompression::Zstd),
                (101, true, RunCompression::Zstd),
                (102, true, RunCompression::None),
            ];
            for (number, includes_oldest, how) in merges {
                let path = format!("run-{number}");
                let merged = merge(&env, &*store, set(&written), includes_oldest, identity(number), &path, how).await.unwrap();
                let expected = model(&runs, includes_oldest);
                assert!(read(&*store, &merged).await == expected, "includes the oldest: {includes_oldest}");
                assert_eq!(merged.entries, expected.len() as u64);
            }
            let mut live = 0;
            scan(&env, &*store, set(&written), |entry| { live += u64::from(!entry.entry.is_tombstone()); Ok(()) }).await.unwrap();
            assert_eq!(live, model(&runs, true).len() as u64);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_selection_is_that_part_of_what_lives(
        runs in proptest::collection::vec(entries(), 1..5), wanted in proptest::collection::vec(key(), 1..6),
    ) {
        env::sim::Simulation::new(1).run(async |env: Env| {
            let store = env.open_store("memory:runs").unwrap();
            let mut written = Vec::new();
            for (number, run) in (1..).zip(&runs) {
                written.push(write(&*store, number, run, RunCompression::Zstd).await);
            }
            let live = model(&runs, true);
            let mut selections = vec![KeySelection::All];
            for key in wanted.iter().chain(live.keys().map(|at| &at.2).take(5)) {
                selections.push(KeySelection::One(key.clone()));
                selections.push(KeySelection::Beginning(key[..key.len() / 2].to_vec()));
                selections.push(KeySelection::Beginning(key.clone()));
            }
            for (state, name) in [(0, "a"), (1, "b"), (2, "c")] {
                for (start, end) in [(0, 1), (1, 2), (0, 2), (0, 9)] {
                    for keys in &selections {
                        let groups = KeyGroupRange { start, end };
                        let selection = Selection { state: name.to_owned(), groups, keys: keys.clone() };
                        let is_wanted = |at: &At| at.0 == state && (start..end).contains(&at.1) && keys.contains(&at.2);
                        let expected: Vec<_> = live.keys().filter(|at| is_wanted(at)).cloned().collect();
                        assert_eq!(selected(&env, &*store, &written, &selection).await, expected, "{selection:?}");
                    }
                }
            }
        });
    }
}

/// The places of what lives of a selection.
async fn selected(env: &Env, store: &dyn Store, runs: &[Run], selection: &Selection) -> Vec<At> {
    let mut scan = Scan::select(store, set(runs), selection).await.unwrap();
    let mut found = Vec::new();
    while let Some(batch) = scan.next(env, store).await.unwrap() {
        found.extend(batch.iter().map(|live| {
            let (state, entry) = (u16::from(live.state.name == "b"), live.entry);
            (state, live.group.0, entry.key.to_vec(), true, entry.sub.to_vec())
        }));
    }
    let (read, all) = scan.progress();
    assert_eq!(read, all, "what is said of the progress ends with all of it");
    found
}

#[test]
fn one_key_costs_a_block_of_each_run() {
    let entries = |from: u64| -> Entries {
        let at = |key: u64| (0, (key % 2) as u16, key.to_be_bytes().to_vec(), true, vec![]);
        (from..from + 2_000).map(|key| (at(key), Some(noise(key, 1000)))).collect()
    };
    env::sim::Simulation::new(1).run(async |env: Env| {
        let store = env.open_store("memory:runs").unwrap();
        let runs = [
            write(&*store, 1, &entries(0), RunCompression::Zstd).await,
            write(&*store, 2, &entries(1_000), RunCompression::Zstd).await,
        ];
        let len: u64 = runs.iter().map(|run| run.file.len).sum();
        for key in [0_u64, 1, 999, 1_500, 2_999, 3_000] {
            let keys = KeySelection::One(key.to_be_bytes().to_vec());
            let group = (key % 2) as u16;
            let groups = KeyGroupRange { start: group, end: group + 1 };
            let selection = Selection { state: "a".to_owned(), groups, keys };
            let (_, read) = Scan::select(&*store, set(&runs), &selection).await.unwrap().progress();
            assert!(read < 4 * (80 << 10), "{read} of {len} bytes for one key");
            let found = selected(&env, &*store, &runs, &selection).await;
            assert_eq!(found.len(), usize::from(key < 3_000), "{key}");
        }
    });
}

#[test]
fn runs_of_several_windows_and_raw_blocks_merge() {
    const LEN: usize = 1000;
    // Every key of the first run is even, every third key is in the second: both run through many windows side by side.
    let run = |step: usize, seed: u64| -> Entries {
        let keys = (0..600).step_by(step);
        let at = |key: usize| (0, 0, (key as u64).to_be_bytes().to_vec(), true, vec![]);
        keys.map(|key| (at(key), Some(noise(seed + key as u64, LEN)))).collect()
    };
    let runs = [run(2, 1), run(3, 10_000)];
    env::sim::Simulation::new(1).run(async |env: Env| {
        let store = env.open_store("memory:runs").unwrap();
        let mut written = Vec::new();
        for (number, run) in (1..).zip(&runs) {
            written.push(write(&*store, number, run, RunCompression::Zstd).await);
        }
        for (run, entries) in written.iter().zip(&runs) {
            let reader = RunReader::open(&*store, run).await.unwrap();
            assert!(reader.windows(GROUPS).len() > 2, "{} windows", reader.windows(GROUPS).len());
            assert!(run.file.len > (entries.len() * LEN) as u64, "noise is stored raw");
        }
        let merged =
            merge(&env, &*store, set(&written), true, identity(100), "run-100", RunCompression::Zstd)
                .await
                .unwrap();
        assert!(read(&*store, &merged).await == model(&runs, true));
    });
}

#[test]
fn what_a_merge_writes_is_compressed_as_it_is_told_whatever_it_reads() {
    let entries = |from: u64| -> Entries {
        let at = |key: u64| (0, 0, key.to_be_bytes().to_vec(), true, vec![]);
        (from..from + 2_000).map(|key| (at(key), Some(vec![7; 100]))).collect()
    };
    let zstd_blocks = async |store: &dyn Store, run: &Run| {
        let index = RunReader::open(store, run).await.unwrap().index;
        let zstd = index.iter().filter(|block| block.compression == Compression::Zstd).count();
        assert!(index.len() > 2);
        (zstd > 0, zstd == index.len())
    };
    env::sim::Simulation::new(1).run(async |env: Env| {
        let store = env.open_store("memory:runs").unwrap();
        let first = write(&*store, 1, &entries(0), RunCompression::Zstd).await;
        let second = write(&*store, 2, &entries(1_000), RunCompression::None).await;
        assert_eq!(zstd_blocks(&*store, &first).await, (true, true));
        assert_eq!(zstd_blocks(&*store, &second).await, (false, false));
        let both = [first, second];
        let mut expected = entries(0);
        expected.extend(entries(1_000));
        for (how, number, zstd) in [(RunCompression::Zstd, 3, true), (RunCompression::None, 4, false)] {
            let path = format!("run-{number}");
            let merged = merge(&env, &*store, set(&both), true, identity(number), &path, how).await.unwrap();
            assert_eq!(zstd_blocks(&*store, &merged).await, (zstd, zstd));
            assert!(read(&*store, &merged).await == expected);
            let path = format!("copy-{number}");
            let (copy, _) = copy_canonical(&env, &*store, set(&both), &*store, &path, identity(number), how)
                .await
                .unwrap();
            assert_eq!(zstd_blocks(&*store, &copy).await, (zstd, zstd));
        }
    });
}
