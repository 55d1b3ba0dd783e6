//! After a restore into memory: values wait in their blocks until they are asked for, or their turn comes. Random jobs in which
//! some wait are in `statebackend::conformance`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use env::{Env, Store};
use serde::{Deserialize, Serialize};
use statebackend::{KeyRef, KeyedState, StateDeclarations, ValueState, restore};
use types::{CheckpointId, Error, ErrorKind, MaxParallelism, Run};

use crate::fixture::{Behind, Subtask, simulated};

const MAX: MaxParallelism = MaxParallelism(16);

/// What may be written and not read, and what its type's own code panics at.
const UNREADABLE: u64 = u64::MAX;
const UNBEARABLE: u64 = u64::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
struct Picky(u64);

impl TryFrom<u64> for Picky {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, &'static str> {
        assert_ne!(number, UNBEARABLE, "a bug of the user's");
        if number == UNREADABLE { Err("not this one") } else { Ok(Self(number)) }
    }
}

fn subtask() -> (Subtask, ValueState<Picky>) {
    let mut states = StateDeclarations::new();
    states.key::<u64>();
    let handle = states.value("number");
    (Subtask::of(states.finish().unwrap(), &Behind::Nothing, MAX.all(), 0, CheckpointId(1)), handle)
}

fn change(state: &mut KeyedState, handle: ValueState<Picky>, key: u64, value: Option<u64>) {
    let bytes = key.to_be_bytes();
    let (table, key) = (state.value_table(handle), KeyRef::new(&bytes, MAX));
    match value {
        Some(value) => table.set(key, Picky(value)),
        None => drop(table.take(key)),
    }
}

/// The runs of changes, each of a checkpoint of its own.
async fn runs(
    store: &dyn Store,
    checkpoints: impl IntoIterator<Item = Box<dyn Iterator<Item = (u64, Option<u64>)>>>,
) -> Vec<Run> {
    let (mut subtask, handle) = subtask();
    for (checkpoint, changes) in (1..).zip(checkpoints) {
        for (key, value) in changes {
            change(&mut subtask.state, handle, key, value);
        }
        subtask.state.flip(CheckpointId(checkpoint));
        subtask.seal(store, 10_000).await;
    }
    subtask.runs
}

/// What `run` wrote: all keys, then some are deleted, then some are replaced.
async fn three_runs(store: &dyn Store, keys: u64) -> Vec<Run> {
    let all = (0..keys).map(|key| (key, Some(key)));
    let deletes = (0..keys).step_by(3).map(|key| (key, None));
    let replaces = (0..keys).step_by(5).map(|key| (key, Some(key + 1)));
    runs(store, [Box::new(all) as _, Box::new(deletes) as _, Box::new(replaces) as _]).await
}

/// What lives of that.
fn expected(key: u64) -> Option<Picky> {
    match key {
        _ if key.is_multiple_of(5) => Some(Picky(key + 1)),
        _ if key.is_multiple_of(3) => None,
        _ => Some(Picky(key)),
    }
}

fn prepare(state: &mut KeyedState, keys: impl IntoIterator<Item = u64>) -> Result<(), Error> {
    let keys: Vec<_> = keys.into_iter().map(u64::to_be_bytes).collect();
    state.prepare(keys.iter().map(|key| KeyRef::new(key, MAX)))
}

/// The value of a key that was prepared.
fn get(state: &mut KeyedState, handle: ValueState<Picky>, key: u64) -> Option<Picky> {
    state.value_table(handle).get(KeyRef::new(&key.to_be_bytes(), MAX)).copied()
}

/// Of the runs behind the first one some replace and some delete.
#[test]
fn the_newest_of_each_key_waits() {
    const KEYS: u64 = 200_000;
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let runs = three_runs(&*store, KEYS).await;
        let (mut into, handle) = subtask();
        let state = &mut into.state;
        let stats = restore(&env, &*store, &runs, state).await.unwrap();
        assert_eq!((stats.runs, stats.entries), (3, KEYS + KEYS.div_ceil(3) + KEYS / 5));
        let lives = (0..KEYS).filter(|key| expected(*key).is_some()).count();
        assert_eq!(state.waiting_cells(), lives, "what was deleted or replaced does not wait");
        assert_eq!(state.cell_count(), lives);
        // Asked for one by one, in a batch, and made unasked.
        state.set_made_per_batch(0);
        for keys in (0..KEYS / 2).collect::<Vec<_>>().chunks(1000) {
            prepare(state, keys.iter().copied()).unwrap();
        }
        let asked = (0..KEYS / 2).filter(|key| expected(*key).is_some()).count();
        assert_eq!(state.waiting_cells(), lives - asked);
        while state.make_waiting(10_000).unwrap() > 0 {}
        assert_eq!(state.made_cells().asked, asked as u64);
        assert_eq!(state.made_cells().unasked, (lives - asked) as u64);
        for key in 0..KEYS {
            assert_eq!(get(state, handle, key), expected(key), "{key}");
        }
        assert_eq!(state.cell_count(), lives, "what was deleted has no cell");
    });
}

/// With each batch some cells are made, until none waits; then the blocks are gone.
#[test]
fn what_waits_comes_to_an_end_and_its_memory_is_let_go() {
    const KEYS: u64 = 50_000;
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let (runs, (mut into, _)) = (three_runs(&*store, KEYS).await, subtask());
        let state = &mut into.state;
        let empty = state.approx_bytes();
        restore(&env, &*store, &runs, state).await.unwrap();
        let waits = state.waiting_bytes();
        assert_eq!(state.approx_bytes(), empty + waits);
        // The blocks, and as much as an entry's place for each.
        let least = KEYS as usize * (8 + 3 + 1);
        assert!((least..4 * least).contains(&waits), "{waits} bytes wait");
        // No key is asked for: each batch makes as many as the least.
        let (mut batches, mut before, all) = (0, state.waiting_cells(), state.waiting_cells());
        while state.waiting_cells() > 0 {
            prepare(state, []).unwrap();
            let left = state.waiting_cells();
            assert!(left < before && before - left <= 64, "{before} to {left}");
            (batches, before) = (batches + 1, left);
            // Those of a key group go when all of it is made, and share blocks with the next.
            let most = waits / 8 + 2 * waits * left / all;
            assert!(
                state.waiting_bytes() < most,
                "{} bytes of {waits} for {left} of {all}",
                state.waiting_bytes()
            );
        }
        assert_eq!(state.waiting_bytes(), 0);
        assert!(batches >= 26_000 / 64, "{batches} batches");
        let all_made = state.approx_bytes();
        let (mut fresh, handle) = subtask();
        for key in (0..KEYS).filter(|key| expected(*key).is_some()) {
            change(&mut fresh.state, handle, key, Some(key));
        }
        assert_eq!(all_made, fresh.state.approx_bytes(), "there is more than the tables");
    });
}

/// A run of what has changed must not take the place of older ones: they hold what waits.
#[test]
fn a_delta_is_not_whole_while_anything_waits() {
    const KEYS: u64 = 1000;
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let runs = runs(&*store, [Box::new((0..KEYS).map(|key| (key, Some(key)))) as _]).await;
        // One key waits; then none.
        for waits in [1, 0] {
            let (mut into, handle) = subtask();
            let state = &mut into.state;
            // From half of what lives on all of it is taken, if all of it can.
            state.set_full_from(1);
            state.set_made_per_batch(0);
            restore(&env, &*store, &runs, state).await.unwrap();
            prepare(state, waits..KEYS).unwrap();
            (waits..KEYS * 3 / 5).for_each(|key| change(state, handle, key, Some(key + 7)));
            state.flip(CheckpointId(1));
            while state.drain(100).unwrap() > 0 {}
            let (_, delta) = state.take_sealed().unwrap();
            let cells = if waits == 0 { KEYS } else { KEYS * 3 / 5 - waits };
            assert_eq!((delta.is_whole(), delta.cells()), (waits == 0, cells));
            // All that have cells were changed: that is not all that lives.
            (waits..KEYS).for_each(|key| change(state, handle, key, Some(key + 8)));
            state.flip(CheckpointId(2));
            while state.drain(100).unwrap() > 0 {}
            let (_, delta) = state.take_sealed().unwrap();
            assert_eq!((delta.is_whole(), delta.cells()), (waits == 0, KEYS - waits));
            // Made when the barrier has passed: that is no change.
            state.make_waiting(usize::MAX).unwrap();
            assert_eq!(state.changed_cells(), 0);
            state.flip(CheckpointId(3));
            assert!(state.take_sealed().unwrap().1.is_empty());
            (0..KEYS).for_each(|key| change(state, handle, key, Some(key)));
            state.flip(CheckpointId(4));
            while state.drain(100).unwrap() > 0 {}
            let (_, delta) = state.take_sealed().unwrap();
            assert!(delta.is_whole() && delta.cells() == KEYS, "each that lives is counted once");
        }
    });
}

/// A key that waits is there: deleting it leaves a tombstone, and only what has changed is written.
#[test]
fn a_waiting_key_is_deleted_by_a_tombstone() {
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let older = runs(&*store, [Box::new((0..100_u64).map(|key| (key, Some(key)))) as _]).await;
        let (mut into, handle) = subtask();
        into.next_run = 100;
        into.state.set_made_per_batch(0);
        into.restore(&env, &*store, &older).await.unwrap();
        prepare(&mut into.state, [7, 8]).unwrap();
        change(&mut into.state, handle, 7, None);
        change(&mut into.state, handle, 8, None);
        change(&mut into.state, handle, 8, Some(9));
        into.state.flip(CheckpointId(1));
        into.seal(&*store, 10).await;
        let newest = into.runs.last().unwrap();
        assert_eq!((newest.entries, newest.tombstones), (2, 1));
        assert_eq!(into.state.waiting_cells(), 98, "barriers make nothing");
        // Again, from both runs: the one that was deleted does not wait.
        let (mut again, _) = subtask();
        again.restore(&env, &*store, &into.runs).await.unwrap();
        assert_eq!(again.state.waiting_cells(), 99);
        prepare(&mut again.state, [7, 8, 9]).unwrap();
        let found = [7, 8, 9].map(|key| get(&mut again.state, handle, key));
        assert_eq!(found, [None, Some(Picky(9)), Some(Picky(9))]);
    });
}

/// Whoever changes a table without asking for the key first would lose what waits, or be overwritten.
#[test]
fn a_change_without_preparing_is_noticed() {
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let runs = runs(&*store, [Box::new((0..10_u64).map(|key| (key, Some(key)))) as _]).await;
        let (mut into, handle) = subtask();
        restore(&env, &*store, &runs, &mut into.state).await.unwrap();
        change(&mut into.state, handle, 3, Some(4));
        let error = into.state.make_waiting(usize::MAX).unwrap_err();
        assert!(error.kind() == ErrorKind::Internal && error.to_string().contains("not prepared"), "{error}");
    });
}

/// Values are decoded when nobody looks at files any more: the error still names the block in which the value stands, whoever
/// asks for it.
#[test]
fn a_value_that_cannot_be_decoded_is_blamed_on_its_block() {
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let numbers = |unreadable| {
            (0..30_000_u64).map(move |key| (key, Some(if key == unreadable { UNREADABLE } else { key })))
        };
        let of_group = |group: u16| {
            (0..30_000_u64).filter(move |key| KeyRef::new(&key.to_be_bytes(), MAX).group.0 == group)
        };
        // The first value of a block is decoded at once.
        let (first, last) = (of_group(0).nth(9).unwrap(), of_group(15).next_back().unwrap());
        let mut offsets = Vec::new();
        for (unreadable, unasked) in [(first, false), (first, true), (last, false), (last, true)] {
            let runs = runs(&*store, [Box::new(numbers(unreadable)) as _]).await;
            let (mut into, _) = subtask();
            restore(&env, &*store, &runs, &mut into.state).await.unwrap();
            into.state.set_made_per_batch(0);
            prepare(&mut into.state, (0..30_000).filter(|key| *key != unreadable).take(9_000)).unwrap();
            let failed = match unasked {
                true => into.state.make_waiting(usize::MAX).map(drop),
                false => prepare(&mut into.state, [unreadable]),
            };
            let error = failed.unwrap_err();
            let message = error.to_string();
            assert!(error.kind() == ErrorKind::Corrupt && message.contains("not this one"), "{message}");
            // Nobody passes over it.
            for _ in 0..2 {
                assert_eq!(into.state.make_waiting(usize::MAX).unwrap_err().to_string(), message);
            }
            let place = message.split_once(&format!("{}, offset ", runs[0].file.path)).unwrap().1;
            offsets.push(place.split_once(':').unwrap().0.parse::<u64>().unwrap());
            assert!(offsets.iter().all(|offset| *offset < runs[0].file.len));
        }
        assert!(
            offsets[0] == offsets[1] && offsets[1] < offsets[2] && offsets[2] == offsets[3],
            "{offsets:?}"
        );
    });
}

/// A function that outlives the panic must not take what waits for absent.
#[test]
fn a_value_whose_decoding_panics_takes_nothing_along() {
    const KEYS: u64 = 1000;
    const BAD: u64 = 500;
    simulated(0, async |env: Env, store: Arc<dyn Store>| {
        let all = (0..KEYS).map(|key| (key, Some(if key == BAD { UNBEARABLE } else { key })));
        let runs = runs(&*store, [Box::new(all) as _]).await;
        let (mut into, handle) = subtask();
        let state = &mut into.state;
        restore(&env, &*store, &runs, state).await.unwrap();
        state.set_made_per_batch(0);
        for _ in 0..2 {
            let asked = catch_unwind(AssertUnwindSafe(|| prepare(state, [BAD - 1, BAD, BAD + 1])));
            assert!(asked.is_err(), "it is asked for again");
        }
        for key in (0..KEYS).filter(|key| *key != BAD) {
            prepare(state, [key]).unwrap();
            assert_eq!(get(state, handle, key), Some(Picky(key)));
        }
        assert_eq!(state.waiting_cells(), 1);
    });
}
