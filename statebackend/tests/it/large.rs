//! One key with much under it: maps and lists that are drained over many slices, and cleared meanwhile.

use statebackend::KeyedState;
use types::CheckpointId;

use crate::fixture::{Context, Handles, MAX, Subtask, declare, key, simulated};

const ENTRIES: u32 = 10_000;

/// A map whose entries an older checkpoint still needs is cleared, filled again and cleared again.
#[test]
fn a_large_map_is_cleared_while_it_is_drained() {
    simulated(1, async |env, store| {
        let handles = declare().1;
        let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
        let key = key("only");
        let put = |state: &mut KeyedState, from: u32, value: u64| {
            let mut ctx = Context { state, key: &key };
            for sub in from..ENTRIES {
                handles.map.put(&mut ctx, &sub, value).unwrap();
            }
        };
        put(&mut subtask.state, 0, 1);
        subtask.state.flip(CheckpointId(1));
        assert_eq!(subtask.state.drain(100).unwrap(), ENTRIES as usize - 100);
        put(&mut subtask.state, ENTRIES - 3, 2);
        let touched = subtask.state.cells_touched();
        handles.map.clear(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
        assert_eq!(subtask.state.cells_touched(), touched + 1);
        put(&mut subtask.state, ENTRIES - 2, 3);
        subtask.state.flip(CheckpointId(2));
        handles.map.clear(&mut Context { state: &mut subtask.state, key: &key }).unwrap();
        put(&mut subtask.state, ENTRIES - 1, 4);
        subtask.state.flip(CheckpointId(3));

        // What each checkpoint holds is what was there at its barrier.
        assert_eq!(subtask.seal(&*store, 64).await, [1, 2, 3].map(CheckpointId));
        let expected = [(ENTRIES as usize, 1), (2, 3), (1, 4)];
        for (runs, (len, last)) in (1..).zip(expected) {
            let runs = &subtask.runs[..runs];
            let first = CheckpointId(4);
            let restored = Subtask::restored(&env, &*store, MAX.all(), 0, runs, first, 10).await;
            let mut restored = restored.unwrap();
            let mut ctx = Context { state: &mut restored.state, key: &key };
            assert_eq!(handles.map.len(&mut ctx).unwrap(), len);
            assert_eq!(handles.map.last(&mut ctx).unwrap(), Some((ENTRIES - 1, last)));
        }
        assert_eq!(subtask.state.cell_count(), 1);
        assert_eq!(subtask.state.changed_cells(), 0);
    });
}

/// A list is drained in slices of one chunk, appended to in between, and comes back whole and in order.
#[test]
fn a_large_list_is_appended_to_while_it_is_drained() {
    simulated(2, async |env, store| {
        let handles = declare().1;
        let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
        let key = key("only");
        let mut expected: Vec<String> = Vec::new();
        let mut append = |state: &mut KeyedState, Handles { list, .. }: Handles| {
            let lines: Vec<String> = (0..1000).map(|line| format!("{} {line}", expected.len())).collect();
            list.extend(&mut Context { state, key: &key }, lines.clone()).unwrap();
            expected.extend(lines);
        };
        for checkpoint in 1..=3 {
            append(&mut subtask.state, handles);
            subtask.state.flip(CheckpointId(checkpoint));
            subtask.state.drain(1).unwrap();
        }
        append(&mut subtask.state, handles);
        subtask.state.flip(CheckpointId(4));
        subtask.seal(&*store, 1).await;
        // A new job counts its checkpoints from 1 again; what it appends still comes last.
        let restored =
            Subtask::restored(&env, &*store, MAX.all(), 0, &subtask.runs, CheckpointId(1), 10).await;
        let mut restored = restored.unwrap();
        append(&mut restored.state, handles);
        restored.state.flip(CheckpointId(1));
        restored.seal(&*store, 1).await;
        let again = Subtask::restored(&env, &*store, MAX.all(), 0, &restored.runs, CheckpointId(2), 20).await;
        let mut again = again.unwrap();
        assert_eq!(handles.list.get(&mut Context { state: &mut again.state, key: &key }).unwrap(), expected);
    });
}
