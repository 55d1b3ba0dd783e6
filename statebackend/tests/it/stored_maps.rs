//! Maps of which a table holds a part: walking, clearing, and what is asked of the store.

use statebackend::{RunCompression, write_run};
use types::CheckpointId;

use crate::{
    fixture::{Behind, Context, MAX, Subtask, declare, each_store, identity, key},
    stored::{FIRST, compare, increment, keys, seal, subtask},
};

#[test]
fn a_map_larger_than_the_table_is_walked_and_cleared() {
    each_store(|with_cells| {
        const ENTRIES: u32 = 5000;
        let (behind, gauge) = with_cells(64);
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
        assert_eq!(
            (gauge.reads(), gauge.writes()),
            (reads, writes),
            "clearing asks and tells the store nothing"
        );
        seal(&mut subtask, 2);
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        assert_eq!(handles.map.entries(&mut ctx).unwrap(), [(9, 9)]);
    });
}

/// An entry that changes again is drained by itself; the clearing before it must not come after it.
#[test]
fn a_clearing_that_waits_hides_nothing_that_came_later() {
    each_store(|with_cells| {
        let handles = declare().1;
        let key = key("only");
        // With so few cells that all leave, some, and none.
        for cells in [1, 4, 1000] {
            let (behind, _) = with_cells(cells);
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
                    runs.push(
                        write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd)
                            .unwrap()
                            .payload
                            .concat(),
                    );
                }
                // Other keys push this one out, so that it is read from the store.
                increment(&mut subtask.state, handles, &keys(20));
                increment(&mut subtask.state, handles, &keys(20));
                let entries =
                    handles.map.entries(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
                assert_eq!(entries, [(3, 3), (4, 2)]);
                maps.push(runs);
            }
            assert!(maps[0] == maps[1], "the runs differ with {cells} cells");
        }
    });
}

/// Of a map that was drained early, and not all of it, the store has entries that no run has.
#[test]
fn a_map_half_drained_early_is_cleared() {
    each_store(|with_cells| {
        let handles = declare().1;
        let keys = keys(20);
        let (behind, _) = with_cells(64);
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
            write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd).unwrap().payload.concat()
        });
        assert!(stored.state.evicted_cells() > 0);
        assert!(runs[0] == runs[1], "the runs differ");
        compare(&mut stored, &mut plain, handles, &keys);
    });
}

/// That a map had entries besides those in the table holds until they have been changed, too.
#[test]
fn what_a_map_has_besides_is_asked_anew() {
    each_store(|with_cells| {
        let handles = declare().1;
        let key = key("only");
        let (behind, _) = with_cells(40);
        let (mut stored, mut plain) = (subtask(&behind), subtask(&Behind::Nothing));
        let runs = [&mut stored, &mut plain].map(|subtask| {
            let mut runs = Vec::new();
            let mut seal = |subtask: &mut Subtask, checkpoint| {
                subtask.state.flip(CheckpointId(checkpoint));
                while subtask.state.drain(64).unwrap() > 0 {}
                let (_, delta) = subtask.state.take_sealed().unwrap();
                runs.push(
                    write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd)
                        .unwrap()
                        .payload
                        .concat(),
                );
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
    });
}
