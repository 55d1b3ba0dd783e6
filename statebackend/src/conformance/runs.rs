//! Subtasks live through the same: one in memory that drains all at once, one in memory that drains at odd times in odd
//! slices, and one that does that with a store behind it. The bytes of their runs are the same.

use types::CheckpointId;

use super::{
    behind::Behind,
    machine::{Reference, Transition},
    model::{MAX, Model},
    subject::{Subtask, declare, identity},
};
use crate::{RunCompression, write_run};

pub(super) fn compare(
    behind: &Behind<'_>,
    reference: &Reference,
    transitions: &[Transition],
    applied: &dyn Fn(),
) {
    let handles = declare().1;
    let mut subtasks = [&Behind::Nothing, &Behind::Nothing, behind]
        .map(|behind| Subtask::new(behind.state(MAX.all(), reference.cells, CheckpointId(1)), 0, 1));
    let mut model = Model::default();
    let mut next = CheckpointId(1);
    // It stays so late: when something is dropped may be seen in the bytes, as a map that is empty before it is cleared.
    for told in model.clocks.told().flatten() {
        subtasks.iter_mut().for_each(|subtask| subtask.tell(told));
    }
    let last = [Transition::Barrier, Transition::Complete(2)];
    for transition in transitions.iter().chain(&last) {
        applied();
        match transition {
            Transition::Change(index, change) => {
                let before = model.clone();
                let expected = model.change(*index, change, 1);
                for subtask in &mut subtasks {
                    let found = done(subtask.change(handles, *index, change, &before));
                    assert_eq!(found, expected, "what {change:?} of key {index} gives back");
                }
            }
            Transition::Barrier => {
                subtasks.iter_mut().for_each(|subtask| subtask.state.flip(next));
                next = next.next();
            }
            Transition::Prepare(keys) => subtasks.iter_mut().for_each(|subtask| done(subtask.prepare(*keys))),
            Transition::Drain(cells) => {
                for subtask in &mut subtasks[1..] {
                    done(subtask.state.drain(*cells));
                }
            }
            Transition::Complete(slice) | Transition::Fail(slice) => {
                let expected = deltas(&mut subtasks[0], usize::MAX);
                assert!(deltas(&mut subtasks[1], *slice) == expected, "slices change the bytes of a run");
                assert!(deltas(&mut subtasks[2], *slice) == expected, "a store changes the bytes of a run");
            }
            Transition::Merge(..)
            | Transition::MergeByPolicy
            | Transition::Crash(_)
            | Transition::Make(_)
            | Transition::Advance(..) => {}
        }
    }
}

/// What was sealed, as the bytes of its runs.
fn deltas(subtask: &mut Subtask, slice: usize) -> Vec<(CheckpointId, Vec<u8>)> {
    let sealed = done(subtask.sealed(slice)).into_iter();
    let bytes = sealed.map(|(checkpoint, delta)| {
        let written = done(write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd));
        (checkpoint, written.payload.concat())
    });
    bytes.collect()
}

fn done<T>(result: types::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("a call failed: {error}"))
}
