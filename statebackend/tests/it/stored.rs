//! The table as a cache in front of a store: what is read when, what stays in memory, and what a store that fails does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use statebackend::{KeyRef, KeyedState, RunCompression, StateDeclarations, store, write_run};
use types::{CheckpointId, ErrorKind, Result, SubtaskIndex, Timestamp};

use crate::fixture::{
    Behind, Context, Handles, MAX, STORES, Subtask, declare, each_store, identity, key, open, simulated,
};

pub(crate) const FIRST: CheckpointId = CheckpointId(1);

pub(crate) fn subtask(behind: &Behind) -> Subtask {
    Subtask::before(behind, MAX.all(), 0, FIRST)
}

pub(crate) fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| key(&format!("key-{index}"))).collect()
}

/// Prepares the keys as a batch and adds one to each of their values.
pub(crate) fn increment(state: &mut KeyedState, handles: Handles, keys: &[Vec<u8>]) {
    state.prepare(keys.iter().map(|bytes| KeyRef::new(bytes, MAX))).unwrap();
    let table = state.value_table(handles.value);
    for bytes in keys {
        table.update(KeyRef::new(bytes, MAX), |value| *value = Some(value.unwrap_or(0) + 1));
    }
}

pub(crate) fn seal(subtask: &mut Subtask, checkpoint: u64) {
    subtask.state.flip(CheckpointId(checkpoint));
    while subtask.state.drain(64).unwrap() > 0 {}
    assert_eq!(subtask.state.take_sealed().unwrap().0, CheckpointId(checkpoint));
}

#[test]
fn every_store_conforms() {
    for name in STORES {
        let dir = tempfile::tempdir().unwrap();
        let checked = || store::conformance(dir.path(), |dir| open(name, dir));
        assert!(catch_unwind(AssertUnwindSafe(checked)).is_ok(), "{name} does not do what the contract says");
    }
}

#[test]
fn a_batch_costs_one_read_of_what_is_missing() {
    each_store(|with_cells| {
        let (behind, gauge) = with_cells(1000);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        let keys = keys(10);
        increment(&mut subtask.state, handles, &keys[..6]);
        assert_eq!((gauge.reads(), gauge.keys_read()), (1, 6));
        // Resident ones are not read again, though they are not in the store; each missing one is read once.
        let twice: Vec<_> = keys.iter().chain(&keys).cloned().collect();
        increment(&mut subtask.state, handles, &twice);
        assert_eq!((gauge.reads(), gauge.keys_read()), (2, 10));
        increment(&mut subtask.state, handles, &twice);
        assert_eq!(gauge.reads(), 2);
        // A key of which nobody told is read singly, and remembered as absent.
        let other = key("other");
        for _ in 0..2 {
            let mut ctx = Context { state: &mut subtask.state, key: &other };
            assert_eq!(handles.value.get(&mut ctx).unwrap(), None);
            assert_eq!((gauge.reads(), gauge.keys_read()), (3, 11));
        }
    });
}

#[test]
fn a_table_keeps_its_bound_and_loses_nothing() {
    each_store(|with_cells| {
        const BOUND: usize = 64;
        const BATCH: usize = 16;
        let (behind, gauge) = with_cells(BOUND);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        let keys = keys(1000);
        // All in one interval: changed cells must leave, too.
        for _ in 0..3 {
            for batch in keys.chunks(BATCH) {
                increment(&mut subtask.state, handles, batch);
                let resident = subtask.state.resident_cells();
                assert!(resident <= BOUND + BATCH, "{resident} cells are resident");
            }
        }
        assert!(gauge.writes() < 1000, "{} writes: cells leave one by one", gauge.writes());
        for bytes in &keys {
            let value = handles.value.get(&mut Context { state: &mut subtask.state, key: bytes }).unwrap();
            assert_eq!(value, Some(3));
        }
        // Hot keys stay while others pass by.
        let hot = &keys[..8];
        for batch in keys[8..].chunks(BATCH) {
            let read = gauge.keys_read();
            increment(&mut subtask.state, handles, &[hot, batch].concat());
            assert!(gauge.keys_read() - read <= BATCH as u64 + 8);
        }
        let read = gauge.keys_read();
        increment(&mut subtask.state, handles, hot);
        assert_eq!(gauge.keys_read(), read, "hot keys were evicted");
    });
}

#[test]
fn a_flip_touches_no_cell_and_no_store() {
    each_store(|with_cells| {
        let (behind, gauge) = with_cells(200_000);
        let mut subtask = subtask(&behind);
        increment(&mut subtask.state, declare().1, &keys(100_000));
        let before = (subtask.state.cells_touched(), gauge.reads(), gauge.writes());
        subtask.state.flip(FIRST);
        assert_eq!((subtask.state.cells_touched(), gauge.reads(), gauge.writes()), before);
        assert_eq!(subtask.state.drain(512).unwrap(), 100_000 - 512);
        assert_eq!(gauge.writes(), before.2, "what stays in the table is not written to the store");
    });
}

#[test]
fn what_came_and_went_or_left_early_is_sealed() {
    each_store(|with_cells| {
        let (behind, _) = with_cells(1);
        let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
        let handles = declare().1;
        for subtask in [&mut stored, &mut plain] {
            let (one, two) = (key("one"), key("two"));
            handles.map.put(&mut Context { state: &mut subtask.state, key: &one }, &1, 1).unwrap();
            handles.map.clear(&mut Context { state: &mut subtask.state, key: &one }).unwrap();
            handles.value.set(&mut Context { state: &mut subtask.state, key: &two }, 2).unwrap();
            handles.value.clear(&mut Context { state: &mut subtask.state, key: &two }).unwrap();
            handles.value.get(&mut Context { state: &mut subtask.state, key: &one }).unwrap();
            subtask.state.flip(FIRST);
            assert!(subtask.state.is_undrained());
            while subtask.state.drain(1).unwrap() > 0 {}
            assert!(!subtask.state.is_undrained());
            let (_, delta) = subtask.state.take_sealed().unwrap();
            assert!(write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd).unwrap().is_empty());
        }
        assert!(stored.state.evicted_cells() > 0);
    });
}

#[test]
fn appending_reads_nothing() {
    each_store(|with_cells| {
        let (behind, gauge) = with_cells(4);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        let keys = keys(20);
        for round in 0..3 {
            for bytes in &keys {
                let mut ctx = Context { state: &mut subtask.state, key: bytes };
                handles.list.append(&mut ctx, round.to_string()).unwrap();
            }
            if round == 1 {
                seal(&mut subtask, 1);
            }
        }
        assert_eq!((gauge.reads(), gauge.scans()), (0, 0));
        assert!(subtask.state.evicted_cells() > 0);
        for bytes in &keys {
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            assert_eq!(handles.list.get(&mut ctx).unwrap(), ["0", "1", "2"]);
        }
    });
}

/// What was drained because the list changed again is read back, though no drain has told the store of it yet.
#[test]
fn a_list_is_whole_while_two_intervals_append_to_it() {
    each_store(|with_cells| {
        let (behind, _) = with_cells(100);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        let key = key("only");
        for (round, line) in (1..).zip(["a", "b", "c"]) {
            handles
                .list
                .append(&mut Context { state: &mut subtask.state, key: &key }, line.to_owned())
                .unwrap();
            subtask.state.flip(CheckpointId(round));
        }
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        assert_eq!(handles.list.get(&mut ctx).unwrap(), ["a", "b", "c"]);
        handles.list.append(&mut ctx, "d".to_owned()).unwrap();
        assert_eq!(handles.list.get(&mut ctx).unwrap(), ["a", "b", "c", "d"]);
    });
}

pub(crate) fn compare(stored: &mut Subtask, plain: &mut Subtask, handles: Handles, keys: &[Vec<u8>]) {
    for bytes in keys {
        let [stored, plain] = [&mut *stored, &mut *plain].map(|subtask| {
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            let value = handles.value.get(&mut ctx).unwrap();
            (value, handles.map.get(&mut ctx, &1).unwrap(), handles.map.entries(&mut ctx).unwrap())
        });
        assert_eq!(stored, plain);
    }
}

/// A hot key is written to the store when it leaves the table, and not at each checkpoint.
#[test]
fn what_stays_is_never_written_and_what_leaves_is_written_once() {
    each_store(|with_cells| {
        let (behind, gauge) = with_cells(32);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        let keys = keys(200);
        for checkpoint in 1..=5 {
            for _ in 0..3 {
                increment(&mut subtask.state, handles, &keys[..16]);
            }
            seal(&mut subtask, checkpoint);
        }
        assert_eq!((gauge.writes(), gauge.changes()), (0, 0));
        increment(&mut subtask.state, handles, &keys[16..]);
        let left = subtask.state.evicted_cells();
        increment(&mut subtask.state, handles, &keys[..1]);
        assert!(left == 0 && gauge.changes() == subtask.state.evicted_cells() && gauge.changes() >= 150);
        // They come back and leave again as they were.
        let changes = gauge.changes();
        for bytes in keys.iter().cycle().take(600) {
            handles.value.get(&mut Context { state: &mut subtask.state, key: bytes }).unwrap();
        }
        assert!(gauge.changes() <= changes + 64, "cells are written again that have not changed");
        assert!(subtask.state.evicted_cells() > changes + 300);
    });
}

/// A session that begins and ends while its cell is in the table is nothing to the store.
#[test]
fn what_came_and_went_is_never_written() {
    each_store(|with_cells| {
        let (behind, gauge) = with_cells(8);
        let mut subtask = subtask(&behind);
        let handles = declare().1;
        for (number, bytes) in (1..).zip(&keys(100)) {
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            handles.value.set(&mut ctx, 1).unwrap();
            handles.value.clear(&mut ctx).unwrap();
            handles.map.put(&mut ctx, &1, 1).unwrap();
            handles.map.remove(&mut ctx, &1).unwrap();
            if number % 20 == 0 {
                seal(&mut subtask, number / 20);
            }
        }
        // A few leave between two operations.
        assert!(subtask.state.evicted_cells() > 100 && gauge.changes() < 20, "{} changes", gauge.changes());
    });
}

/// Does it again until the store takes what it must be told; says how often it did not.
fn insist<R>(mut work: impl FnMut() -> Result<R>, expected: &str) -> u64 {
    let mut failures = 0;
    while let Err(error) = work() {
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, expected));
        failures += 1;
    }
    failures
}

const FULL: &str =
    "cannot write changed state to the store behind the table: the store is full: free some space";

/// Whatever was to be told when a write failed, in the middle of which half was made, is told again.
#[test]
fn a_write_that_fails_loses_nothing() {
    each_store(|with_cells| {
        let handles = declare().1;
        let keys = keys(100);
        for nth in 1..=6 {
            let (behind, gauge) = with_cells(24);
            let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
            gauge.fail_write(7 * nth);
            let mut failures = 0;
            let runs = [&mut stored, &mut plain].map(|subtask| {
                let mut runs = Vec::new();
                for round in 1..=2 {
                    for (number, bytes) in (0_u64..).zip(&keys) {
                        let mut ctx = Context { state: &mut subtask.state, key: bytes };
                        failures += insist(|| handles.value.set(&mut ctx, round), FULL);
                        failures += insist(|| handles.list.append(&mut ctx, round.to_string()), FULL);
                        failures += insist(|| handles.map.put(&mut ctx, &1, round), FULL);
                        if round == 2 && number % 3 == 0 {
                            failures += insist(|| handles.value.clear(&mut ctx), FULL);
                            failures += insist(|| handles.map.remove(&mut ctx, &1), FULL);
                            failures += insist(|| handles.list.clear(&mut ctx), FULL);
                        }
                        if round == 2 && number % 3 == 1 {
                            failures += insist(|| handles.map.clear(&mut ctx), FULL);
                            failures += insist(|| handles.map.put(&mut ctx, &2, number), FULL);
                        }
                    }
                    subtask.state.flip(CheckpointId(round));
                    failures += insist(
                        || {
                            while subtask.state.drain(25)? > 0 {}
                            Ok(())
                        },
                        FULL,
                    );
                    let (_, delta) = subtask.state.take_sealed().unwrap();
                    let written = write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd).unwrap();
                    runs.push(written.payload.concat());
                }
                runs
            });
            assert!(runs[0] == runs[1], "the runs differ");
            compare(&mut stored, &mut plain, handles, &keys);
            assert_eq!(failures, 1, "write {nth} did not fail");
        }
    });
}

/// Under pressure, a store that fails fails the operation that needs room; when it works again, all is there.
#[test]
fn a_write_that_fails_under_pressure_loses_nothing() {
    each_store(|with_cells| {
        let handles = declare().1;
        let (behind, gauge) = with_cells(8);
        let mut subtask = subtask(&behind);
        let keys = keys(40);
        let mut failures = 0;
        gauge.fail_write(3);
        for (number, bytes) in (0..).zip(&keys) {
            let mut set =
                || handles.value.set(&mut Context { state: &mut subtask.state, key: bytes }, number);
            while let Err(error) = set() {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                failures += 1;
            }
        }
        assert_eq!(failures, 1);
        for (number, bytes) in (0..).zip(&keys) {
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            assert_eq!(handles.value.get(&mut ctx).unwrap(), Some(number));
        }
    });
}

/// Six runs with deletions of every kind, written by two subtasks, restored by three, with stores and without.
#[test]
fn many_runs_are_loaded_at_another_parallelism() {
    load_many_runs("");
}

/// So many bytes that merging and loading take turns, some states end within a batch, and timers come in the last one.
#[test]
fn many_batches_are_loaded_at_another_parallelism() {
    load_many_runs(&"many bytes ".repeat(40_000));
}

/// With elements of lists that end so.
fn load_many_runs(ending: &str) {
    each_store(|with_cells| {
        simulated(5, async |env, files| {
            let handles = declare().1;
            let keys = keys(40);
            let mut runs = Vec::new();
            for (index, first) in [(0, 1), (1, 1)] {
                let groups = MAX.range(SubtaskIndex(index), 2);
                let (behind, _) = with_cells(8);
                let mut writer = Subtask::before(&behind, groups, index, CheckpointId(first));
                for round in 0..6_u64 {
                    for (number, bytes) in (0_u64..).zip(&keys) {
                        if !groups.contains(KeyRef::new(bytes, MAX).group) {
                            continue;
                        }
                        let at = Timestamp((number * 10 + round) as i64);
                        writer.state.register_event_timer(KeyRef::new(bytes, MAX), at);
                        let mut ctx = Context { state: &mut writer.state, key: bytes };
                        if (number + round) % 3 == 0 {
                            handles.value.clear(&mut ctx).unwrap();
                            handles.map.clear(&mut ctx).unwrap();
                            handles.list.clear(&mut ctx).unwrap();
                        } else {
                            handles.value.set(&mut ctx, round).unwrap();
                            handles.map.put(&mut ctx, &(round as u32), number).unwrap();
                            handles.map.remove(&mut ctx, &(round as u32 / 2)).unwrap();
                            handles.list.append(&mut ctx, format!("{round}{ending}")).unwrap();
                        }
                    }
                    writer.state.flip(CheckpointId(round + 1));
                    writer.seal(&*files, 7).await;
                }
                assert_eq!(writer.runs.len(), 6);
                assert!(writer.runs[1..].iter().all(|run| run.tombstones > 0));
                runs.extend(writer.runs);
            }
            for index in 0..3 {
                let groups = MAX.range(SubtaskIndex(index), 3);
                let (behind, gauge) = with_cells(8);
                let mut stored = Subtask::before(&behind, groups, index, CheckpointId(7));
                stored.restore(&env, &*files, &runs).await.unwrap();
                assert!(gauge.loads() > 0 && gauge.writes() == 0, "runs are loaded, not written");
                assert_eq!(stored.state.resident_cells(), 0);
                let mut plain = Subtask::new(groups, index, CheckpointId(7));
                plain.restore(&env, &*files, &runs).await.unwrap();
                for bytes in keys.iter().filter(|bytes| groups.contains(KeyRef::new(bytes, MAX).group)) {
                    let [first, second] = [&mut stored, &mut plain].map(|subtask| {
                        let mut ctx = Context { state: &mut subtask.state, key: bytes };
                        let value = handles.value.get(&mut ctx).unwrap();
                        (value, handles.map.entries(&mut ctx).unwrap(), handles.list.get(&mut ctx).unwrap())
                    });
                    assert_eq!(first, second);
                }
                let [first, second] = [&mut stored, &mut plain].map(|subtask| {
                    std::iter::from_fn(|| subtask.state.pop_event_timer(Timestamp::MAX)).collect::<Vec<_>>()
                });
                assert!(!first.is_empty() && first == second, "timers: {first:?}, {second:?}");
            }
        });
    });
}

/// What does not fit is refused before anything is loaded.
#[test]
fn another_shape_is_refused() {
    each_store(|with_cells| {
        simulated(6, async |env, files| {
            let mut writer = subtask(&Behind::Nothing);
            increment(&mut writer.state, declare().1, &keys(3));
            writer.state.flip(FIRST);
            writer.seal(&*files, 10).await;
            let mut states = StateDeclarations::new();
            states.key::<String>();
            states.value::<String>("total");
            let mut state = with_cells(10).0.state(states.finish().unwrap(), MAX.all(), FIRST);
            let refused = statebackend::restore(&env, &*files, &writer.runs, &mut state).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::IncompatibleState);
        });
    });
}
