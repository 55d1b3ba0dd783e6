//! A barrier costs the same whatever the size of the state.

use statebackend::{KeyRef, KeyedState, StateDeclarations};
use types::{CheckpointId, KeyGroup, MaxParallelism, key_hash};

/// Five million keys, all changed, and the flip looks at none of them; nor where it takes all that lives.
#[test]
fn a_flip_touches_no_cell() {
    let mut states = StateDeclarations::new();
    let count = states.value::<u64>("count");
    let max = MaxParallelism::DEFAULT;
    let mut state = KeyedState::new(states.finish().unwrap(), max.all(), CheckpointId(1));
    let keys = 5_000_000_u64;
    let change = |state: &mut KeyedState, keys: u64| {
        let table = state.value_table(count);
        for key in 0..keys {
            let bytes = key.to_be_bytes();
            let hash = key_hash(&bytes);
            let key = KeyRef { hash, group: KeyGroup((hash % u64::from(max.0)) as u16), bytes: &bytes };
            table.update(key, |count| *count = Some(1));
        }
    };
    change(&mut state, keys);
    let before = state.cells_touched();
    state.flip(CheckpointId(1));
    assert_eq!(state.cells_touched(), before);
    assert_eq!(state.changed_cells(), keys as usize);
    assert_eq!(state.drain(512).unwrap(), keys as usize - 512);
    assert_eq!(state.cells_touched(), before + 512);
    assert!(state.take_sealed().is_none(), "a delta left before it was drained");
    state.set_full_from(1);
    for changed in [1, keys / 2] {
        change(&mut state, changed);
        let before = state.cells_touched();
        state.flip(CheckpointId(1 + changed));
        assert_eq!(state.cells_touched(), before);
    }
    assert!(state.changed_cells() > keys as usize, "all that lives is to be drained");
}
