//! The bytes of a run file, pinned: a change here is a new version of the format.

use statebackend::{RunCompression, write_run};
use types::{CheckpointId, Timestamp};

use crate::fixture::{Context, MAX, Subtask, declare, identity, key};

/// A small run with every kind of entry.
pub(crate) fn small_run() -> Vec<u8> {
    let (_, handles) = declare();
    let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
    let keys: Vec<Vec<u8>> = ["apple", "pear", "quince"].into_iter().map(key).collect();
    for (number, key) in (1..).zip(&keys) {
        let mut ctx = Context { state: &mut subtask.state, key };
        handles.value.set(&mut ctx, number * 1000).unwrap();
        handles.list.append(&mut ctx, format!("line {number}")).unwrap();
        handles.map.put(&mut ctx, &7, number).unwrap();
        handles.map.put(&mut ctx, &(number as u32), 99).unwrap();
    }
    subtask.state.flip(CheckpointId(1));
    while subtask.state.drain(1).unwrap() > 0 {}
    let _ = subtask.state.take_sealed().unwrap();
    for key in &keys[..2] {
        let mut ctx = Context { state: &mut subtask.state, key };
        handles.map.clear(&mut ctx).unwrap();
        handles.map.put(&mut ctx, &8, 1).unwrap();
        handles.list.clear(&mut ctx).unwrap();
        handles.list.extend(&mut ctx, ["new".to_owned(), "list".to_owned()]).unwrap();
        handles.value.clear(&mut ctx).unwrap();
    }
    let mut ctx = Context { state: &mut subtask.state, key: &keys[2] };
    handles.map.remove(&mut ctx, &7).unwrap();
    handles.value.update(&mut ctx, |value| *value = value.map(|value| value + 1)).unwrap();
    let key = statebackend::KeyRef::new(&keys[2], MAX);
    subtask.state.register_event_timer(key, Timestamp(-5));
    subtask.state.register_processing_timer(key, Timestamp(1_700_000_000_000));
    subtask.state.flip(CheckpointId(2));
    while subtask.state.drain(100).unwrap() > 0 {}
    let (_, delta) = subtask.state.take_sealed().unwrap();
    write_run(delta, identity(0, 2), MAX.all(), RunCompression::Zstd).unwrap().payload.concat()
}

/// On a difference the new bytes are shown; whoever changes a released format on purpose raises its version.
#[test]
fn run_file_bytes_are_pinned() {
    let expected = include_bytes!("../golden/small-v1.run");
    let found = small_run();
    assert!(found == expected, "the bytes of a run file have changed:\n{}", found.escape_ascii());
}
