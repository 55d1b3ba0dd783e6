//! The table as a cache in front of a store: what is read when, what stays in memory, and what a store that fails does.

use statebackend::{KeyRef, KeyedState, StateDeclarations, store, write_run};
use types::{CheckpointId, ErrorKind, SubtaskIndex, Timestamp};

use crate::fixture::{Behind, Context, Handles, MAX, Subtask, declare, identity, key, simulated};

const FIRST: CheckpointId = CheckpointId(1);

fn subtask(behind: &Behind) -> Subtask {
    Subtask::before(behind, MAX.all(), 0, FIRST)
}

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| key(&format!("key-{index}"))).collect()
}

/// Prepares the keys as a batch and adds one to each of their values.
fn increment(state: &mut KeyedState, handles: Handles, keys: &[Vec<u8>]) {
    state.prepare(keys.iter().map(|bytes| KeyRef::new(bytes, MAX))).unwrap();
    let table = state.value_table(handles.value);
    for bytes in keys {
        table.update(KeyRef::new(bytes, MAX), |value| *value = Some(value.unwrap_or(0) + 1));
    }
}

fn seal(subtask: &mut Subtask, checkpoint: u64) {
    subtask.state.flip(CheckpointId(checkpoint));
    while subtask.state.drain(64).unwrap() > 0 {}
    assert_eq!(subtask.state.take_sealed().unwrap().0, CheckpointId(checkpoint));
}

#[test]
fn the_sorted_map_conforms() {
    store::conformance(|| Box::new(store::sorted_map::SortedMapStore::default()));
}

#[test]
fn a_batch_costs_one_read_of_what_is_missing() {
    let (behind, gauge) = Behind::sorted_map(1000);
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
}

#[test]
fn a_table_keeps_its_bound_and_loses_nothing() {
    const BOUND: usize = 64;
    const BATCH: usize = 16;
    let (behind, gauge) = Behind::sorted_map(BOUND);
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
}

#[test]
fn a_flip_touches_no_cell_and_no_store() {
    let (behind, gauge) = Behind::sorted_map(200_000);
    let mut subtask = subtask(&behind);
    increment(&mut subtask.state, declare().1, &keys(100_000));
    let before = (subtask.state.cells_touched(), gauge.reads(), gauge.writes());
    subtask.state.flip(FIRST);
    assert_eq!((subtask.state.cells_touched(), gauge.reads(), gauge.writes()), before);
    assert_eq!(subtask.state.drain(512).unwrap(), 100_000 - 512);
    assert_eq!(gauge.writes(), before.2 + 1, "a slice is one write");
}

#[test]
fn what_came_and_went_or_left_early_is_sealed() {
    let (behind, _) = Behind::sorted_map(1);
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
        assert!(write_run(delta, identity(0, 1), MAX.all()).unwrap().is_empty());
    }
    assert!(stored.state.evicted_cells() > 0);
}

#[test]
fn appending_reads_nothing() {
    let (behind, gauge) = Behind::sorted_map(4);
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
}

/// What was drained because the list changed again is read back, though no drain has told the store of it yet.
#[test]
fn a_list_is_whole_while_two_intervals_append_to_it() {
    let (behind, _) = Behind::sorted_map(100);
    let mut subtask = subtask(&behind);
    let handles = declare().1;
    let key = key("only");
    for (round, line) in (1..).zip(["a", "b", "c"]) {
        handles.list.append(&mut Context { state: &mut subtask.state, key: &key }, line.to_owned()).unwrap();
        subtask.state.flip(CheckpointId(round));
    }
    let mut ctx = Context { state: &mut subtask.state, key: &key };
    assert_eq!(handles.list.get(&mut ctx).unwrap(), ["a", "b", "c"]);
    handles.list.append(&mut ctx, "d".to_owned()).unwrap();
    assert_eq!(handles.list.get(&mut ctx).unwrap(), ["a", "b", "c", "d"]);
}

#[test]
fn a_map_larger_than_the_table_is_walked_and_cleared() {
    const ENTRIES: u32 = 5000;
    let (behind, gauge) = Behind::sorted_map(64);
    let mut subtask = subtask(&behind);
    let handles = declare().1;
    let key = key("only");
    for sub in 0..ENTRIES {
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        handles.map.put(&mut ctx, &sub, 1).unwrap();
        if sub == ENTRIES / 2 {
            seal(&mut subtask, 1);
        }
    }
    let mut ctx = Context { state: &mut subtask.state, key: &key };
    handles.map.remove(&mut ctx, &17).unwrap();
    handles.map.put(&mut ctx, &(ENTRIES - 1), 2).unwrap();
    let mut found = Vec::new();
    handles.map.for_each(&mut ctx, |sub, value| found.push((sub, *value))).unwrap();
    let expected: Vec<_> = (0..ENTRIES)
        .filter(|sub| *sub != 17)
        .map(|sub| (sub, if sub == ENTRIES - 1 { 2 } else { 1 }))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(handles.map.len(&mut ctx).unwrap(), expected.len());
    assert_eq!(handles.map.first(&mut ctx).unwrap(), Some((0, 1)));
    assert_eq!(handles.map.last(&mut ctx).unwrap(), Some((ENTRIES - 1, 2)));
    assert!(subtask.state.resident_cells() <= 64 + 2, "walking a map makes it resident");

    let (reads, writes) = (gauge.reads(), gauge.writes());
    let mut ctx = Context { state: &mut subtask.state, key: &key };
    handles.map.clear(&mut ctx).unwrap();
    handles.map.put(&mut ctx, &9, 9).unwrap();
    assert_eq!(handles.map.get(&mut ctx, &8).unwrap(), None);
    assert_eq!(handles.map.entries(&mut ctx).unwrap(), [(9, 9)]);
    assert_eq!((gauge.reads(), gauge.writes()), (reads, writes), "clearing is for the drain to tell");
    seal(&mut subtask, 2);
    let mut ctx = Context { state: &mut subtask.state, key: &key };
    assert_eq!(handles.map.entries(&mut ctx).unwrap(), [(9, 9)]);
}

/// An entry that changes again is drained by itself; the clearing before it must not come after it.
#[test]
fn a_clearing_that_waits_hides_nothing_that_came_later() {
    let handles = declare().1;
    let key = key("only");
    // With so few cells that all leave, some, and none.
    for cells in [1, 4, 1000] {
        let (behind, _) = Behind::sorted_map(cells);
        let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
        let mut maps = Vec::new();
        for subtask in [&mut stored, &mut plain] {
            handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &0, 1).unwrap();
            subtask.state.flip(CheckpointId(1));
            handles.map.clear(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
            handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &3, 2).unwrap();
            handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &4, 2).unwrap();
            subtask.state.flip(CheckpointId(2));
            handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &3, 3).unwrap();
            subtask.state.flip(CheckpointId(3));
            let mut runs = Vec::new();
            while subtask.state.drain(1).unwrap() > 0 {}
            while let Some((_, delta)) = subtask.state.take_sealed() {
                runs.push(write_run(delta, identity(0, 1), MAX.all()).unwrap().payload.concat());
            }
            // Other keys push this one out, so that it is read from the store.
            increment(&mut subtask.state, handles, &keys(20));
            increment(&mut subtask.state, handles, &keys(20));
            let entries = handles.map.entries(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
            assert_eq!(entries, [(3, 3), (4, 2)]);
            maps.push(runs);
        }
        assert!(maps[0] == maps[1], "the runs differ with {cells} cells");
    }
}

/// Of a map that was drained early, and not all of it, the store has entries that no run has.
#[test]
fn a_map_half_drained_early_is_cleared() {
    let handles = declare().1;
    let keys = keys(20);
    let (behind, _) = Behind::sorted_map(64);
    let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
    let runs = [&mut stored, &mut plain].map(|subtask| {
        for bytes in &keys {
            for sub in 0..10 {
                handles.map.put(&mut Context { state: &mut subtask.state, key: bytes }, &sub, 1).unwrap();
            }
        }
        for bytes in keys.iter().rev() {
            handles.map.clear(&mut Context { state: &mut subtask.state, key: bytes }).unwrap();
        }
        increment(&mut subtask.state, handles, &keys);
        subtask.state.flip(FIRST);
        while subtask.state.drain(64).unwrap() > 0 {}
        let (_, delta) = subtask.state.take_sealed().unwrap();
        write_run(delta, identity(0, 1), MAX.all()).unwrap().payload.concat()
    });
    assert!(stored.state.evicted_cells() > 0);
    assert!(runs[0] == runs[1], "the runs differ");
    compare(&mut stored, &mut plain, handles, &keys);
}

/// That a map had entries besides those in the table holds until they have been changed, too.
#[test]
fn what_a_map_has_besides_is_asked_anew() {
    let handles = declare().1;
    let key = key("only");
    let (behind, _) = Behind::sorted_map(40);
    let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
    let runs = [&mut stored, &mut plain].map(|subtask| {
        let mut runs = Vec::new();
        let mut seal = |subtask: &mut Subtask, checkpoint| {
            subtask.state.flip(CheckpointId(checkpoint));
            while subtask.state.drain(64).unwrap() > 0 {}
            let (_, delta) = subtask.state.take_sealed().unwrap();
            runs.push(write_run(delta, identity(0, 1), MAX.all()).unwrap().payload.concat());
        };
        handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &1, 1).unwrap();
        seal(subtask, 1);
        keys(200).chunks(10).for_each(|others| increment(&mut subtask.state, handles, others));
        handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &2, 2).unwrap();
        seal(subtask, 2);
        handles.map.remove(&mut Context { state: &mut subtask.state, key: &key }, &1).unwrap();
        handles.map.remove(&mut Context { state: &mut subtask.state, key: &key }, &2).unwrap();
        seal(subtask, 3);
        handles.map.put(&mut Context { state: &mut subtask.state, key: &key }, &3, 3).unwrap();
        handles.map.clear(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
        seal(subtask, 4);
        runs
    });
    assert!(stored.state.evicted_cells() > 0);
    assert!(runs[0] == runs[1], "the runs differ");
}

fn compare(stored: &mut Subtask, plain: &mut Subtask, handles: Handles, keys: &[Vec<u8>]) {
    for bytes in keys {
        let [stored, plain] = [&mut *stored, &mut *plain].map(|subtask| {
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            let value = handles.value.get(&mut ctx).unwrap();
            (value, handles.map.get(&mut ctx, &1).unwrap(), handles.map.entries(&mut ctx).unwrap())
        });
        assert_eq!(stored, plain);
    }
}

#[test]
fn a_write_that_fails_fails_the_drain_and_loses_nothing() {
    let handles = declare().1;
    let keys = keys(100);
    for nth in 1..=6 {
        let (behind, gauge) = Behind::sorted_map(1000);
        let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
        for subtask in [&mut stored, &mut plain] {
            increment(&mut subtask.state, handles, &keys);
            for bytes in &keys {
                handles.map.put(&mut Context { state: &mut subtask.state, key: bytes }, &1, 1).unwrap();
            }
            seal(subtask, 1);
            for bytes in &keys[..30] {
                let mut ctx = Context { state: &mut subtask.state, key: bytes };
                handles.value.clear(&mut ctx).unwrap();
                handles.map.remove(&mut ctx, &1).unwrap();
            }
            increment(&mut subtask.state, handles, &keys[20..]);
            subtask.state.flip(CheckpointId(2));
        }
        gauge.fail_write(nth);
        let mut failures = 0;
        loop {
            match stored.state.drain(25) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    assert_eq!(
                        error.to_string(),
                        "cannot write changed state to the store behind the table: the sorted map is full: free some space"
                    );
                    assert!(
                        stored.state.take_sealed().is_none(),
                        "a delta left that the store does not have"
                    );
                    compare(&mut stored, &mut plain, handles, &keys);
                }
            }
        }
        assert_eq!(failures, 1, "write {nth} did not fail");
        while plain.state.drain(usize::MAX).unwrap() > 0 {}
        let [stored_run, plain_run] = [&mut stored, &mut plain].map(|subtask| {
            let (_, delta) = subtask.state.take_sealed().unwrap();
            write_run(delta, identity(0, 1), MAX.all()).unwrap().payload.concat()
        });
        assert_eq!(stored_run, plain_run);
        compare(&mut stored, &mut plain, handles, &keys);
    }
}

/// Under pressure, a store that fails fails the operation that needs room; when it works again, all is there.
#[test]
fn a_write_that_fails_under_pressure_loses_nothing() {
    let handles = declare().1;
    let (behind, gauge) = Behind::sorted_map(8);
    let mut subtask = subtask(&behind);
    let keys = keys(40);
    let mut failures = 0;
    gauge.fail_write(3);
    for (number, bytes) in (0..).zip(&keys) {
        let mut set = || handles.value.set(&mut Context { state: &mut subtask.state, key: bytes }, number);
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
}

/// Six runs with deletions of every kind, written by two subtasks, restored by three, with stores and without.
#[test]
fn many_runs_are_loaded_at_another_parallelism() {
    simulated(5, async |env, files| {
        let handles = declare().1;
        let keys = keys(40);
        let mut runs = Vec::new();
        for (index, first) in [(0, 1), (1, 1)] {
            let groups = MAX.range(SubtaskIndex(index), 2);
            let (behind, _) = Behind::sorted_map(8);
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
                        handles.list.append(&mut ctx, format!("{round}")).unwrap();
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
            let (behind, gauge) = Behind::sorted_map(8);
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
}

/// What does not fit is refused before anything is loaded.
#[test]
fn another_shape_is_refused() {
    simulated(6, async |env, files| {
        let mut writer = subtask(&Behind::Nothing);
        increment(&mut writer.state, declare().1, &keys(3));
        writer.state.flip(FIRST);
        writer.seal(&*files, 10).await;
        let mut states = StateDeclarations::new();
        states.key::<String>();
        states.value::<String>("total");
        let store = Box::new(store::sorted_map::SortedMapStore::default());
        let mut state = KeyedState::with_store(states.finish().unwrap(), MAX.all(), FIRST, store, 10);
        let refused = statebackend::restore(&env, &*files, &writer.runs, &mut state).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::IncompatibleState);
    });
}
