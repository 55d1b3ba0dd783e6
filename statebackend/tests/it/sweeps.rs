//! Deltas that take all that lives where half of it has changed: whatever is drained when, records change and tables grow
//! in between, each run holds what lived at its barrier, and its bytes depend on that alone.

use std::collections::BTreeMap;

use env::{Env, Store};
use proptest::{collection::vec, prelude::*};
use statebackend::{
    Declared, KeyRef, KeyedState, MapState, RunCompression, StateDeclarations, ValueState, WrittenRun,
    restore, run_of, write_run,
};
use types::{CheckpointId, Run, SubtaskIndex};

use crate::fixture::{Context, MAX, identity, simulated};

#[derive(Clone, Copy)]
struct Handles {
    value: ValueState<u64>,
    /// Of the first few keys.
    other: ValueState<u64>,
    /// Of the first few keys: nearly always empty, since a state that has any is never drained in full.
    map: MapState<u8, u64>,
}

fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<u16>();
    let handles =
        Handles { value: states.value("value"), other: states.value("other"), map: states.map("map") };
    (states.finish().unwrap(), handles)
}

/// So many keys there are at most.
const KEYS: u16 = 1200;
/// So many of them have a map and another value at most.
const FEW: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Sets each `step`-th key from the first on, so many of them.
    Set(u16, u16, u16),
    Remove(u16, u16, u16),
    Other(u16),
    Put(u16),
    Clear(u16, bool),
    Barrier,
    Drain(usize),
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || (0..KEYS, 1..8_u16, 1..600_u16);
    let step = prop_oneof![
        5 => keys().prop_map(|(first, step, count)| Step::Set(first, step, count)),
        2 => keys().prop_map(|(first, step, count)| Step::Remove(first, step, count)),
        1 => (0..FEW).prop_map(Step::Other),
        1 => (0..FEW).prop_map(Step::Put),
        2 => (0..FEW, any::<bool>()).prop_map(|(key, at_once)| Step::Clear(key, at_once)),
        4 => Just(Step::Barrier),
        5 => (1..200_usize).prop_map(Step::Drain),
        1 => Just(Step::Seal),
    ];
    vec(step, 1..50)
}

/// By state, then by key. A map has one map key at most.
type Model = BTreeMap<(&'static str, u16), u64>;

/// The run of a delta, whether that was whole, and what lived at its barrier.
struct Sealed {
    run: Option<WrittenRun>,
    is_whole: bool,
    lived: Model,
    /// How many cells had changed before it.
    changed: u64,
}

/// State, and what it should be.
struct Subject {
    state: KeyedState,
    handles: Handles,
    model: Model,
    /// What lived and how many cells had changed at each barrier whose delta is not yet taken.
    barriers: BTreeMap<CheckpointId, (Model, u64)>,
    next: CheckpointId,
    sealed: Vec<Sealed>,
    changes: u64,
    /// Whether everything is drained at once.
    at_once: bool,
}

impl Subject {
    fn new(at_once: bool) -> Self {
        let (declared, handles) = declare();
        let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
        state.set_full_from(1);
        Self {
            state,
            handles,
            model: Model::new(),
            barriers: BTreeMap::new(),
            next: CheckpointId(1),
            sealed: Vec::new(),
            changes: 0,
            at_once,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Set(first, step, count) => self.each(first, step, count, Some),
            Step::Remove(first, step, count) => self.each(first, step, count, |_| None),
            Step::Other(key) => {
                self.changes += 1;
                let number = self.changes;
                self.on(key, |handles, context| handles.other.set(context, number).unwrap());
                self.model.insert(("other", key), number);
            }
            Step::Put(key) => {
                self.on(key, |handles, context| assert!(handles.map.put(context, &0, 1).is_ok()));
                self.model.insert(("map", key), 1);
            }
            Step::Clear(key, at_once) => {
                self.on(key, |handles, context| match at_once {
                    true => handles.map.clear(context).unwrap(),
                    false => assert!(handles.map.remove(context, &0).is_ok()),
                });
                self.model.remove(&("map", key));
            }
            Step::Barrier => {
                let changed = self.state.changed_since_barrier() as u64;
                self.state.flip(self.next);
                self.barriers.insert(self.next, (self.model.clone(), changed));
                self.next = self.next.next();
                if self.at_once {
                    self.seal();
                }
            }
            Step::Drain(cells) => drop(self.state.drain(cells).unwrap()),
            Step::Seal => self.seal(),
        }
    }

    fn on(&mut self, key: u16, change: impl Fn(Handles, &mut Context<'_>)) {
        change(self.handles, &mut Context { state: &mut self.state, key: &key.to_be_bytes() });
    }

    fn each(&mut self, first: u16, step: u16, count: u16, value: impl Fn(u64) -> Option<u64>) {
        for key in (first..KEYS).step_by(step.into()).take(count.into()) {
            self.changes += 1;
            let new = value(self.changes);
            let (bytes, table) = (key.to_be_bytes(), self.state.value_table(self.handles.value));
            let place = KeyRef::new(&bytes, MAX);
            match new {
                Some(new) => drop(self.model.insert(("value", key), new)),
                None => drop(self.model.remove(&("value", key))),
            }
            // Both ways to remove a value, and to put one.
            match new {
                None if key % 2 == 0 => drop(table.take(place)),
                Some(new) if key % 2 == 0 => table.set(place, new),
                _ => table.update(place, |there| *there = new),
            }
        }
    }

    fn seal(&mut self) {
        while self.state.drain(97).unwrap() > 0 {}
        while let Some((checkpoint, delta)) = self.state.take_sealed() {
            let is_whole = delta.is_whole();
            // The number is that of the checkpoint, so that the bytes of twins are the same.
            let identity = identity(0, checkpoint.0);
            let run = (!delta.is_empty())
                .then(|| write_run(delta, identity, MAX.all(), RunCompression::Zstd).unwrap());
            let (lived, changed) = self.barriers.remove(&checkpoint).unwrap();
            self.sealed.push(Sealed { run, is_whole, lived, changed });
        }
        assert!(self.barriers.is_empty(), "a delta was not sealed");
        assert_eq!(self.state.changed_cells(), self.state.changed_since_barrier());
    }
}

/// What `runs` hold, restored at a parallelism.
async fn restored(env: &Env, store: &dyn Store, runs: &[Run], parallelism: u32) -> Model {
    let mut model = Model::new();
    for index in 0..parallelism {
        let groups = MAX.range(SubtaskIndex(index), parallelism);
        let (declared, handles) = declare();
        let mut state = KeyedState::new(declared, groups, CheckpointId(1));
        restore(env, store, runs, &mut state).await.unwrap();
        for key in 0..KEYS {
            let bytes = key.to_be_bytes();
            if !groups.contains(KeyRef::new(&bytes, MAX).group) {
                continue;
            }
            let mut context = Context { state: &mut state, key: &bytes };
            let map = handles.map.get(&mut context, &0).unwrap();
            let other = handles.other.get(&mut context).unwrap();
            let value = handles.value.get(&mut context).unwrap();
            let found = [("map", map), ("other", other), ("value", value)];
            model.extend(found.into_iter().filter_map(|(state, value)| Some(((state, key), value?))));
        }
    }
    model
}

/// Plays the steps, drained bit by bit and at once, and compares the runs with each other and with what lived. Returns how
/// many deltas were whole of which not all had changed.
fn check(steps: &[Step], parallelism: u32) -> usize {
    let [slowly, at_once] = [false, true].map(|at_once| {
        let mut subject = Subject::new(at_once);
        steps.iter().chain([&Step::Barrier, &Step::Seal]).for_each(|step| subject.step(step));
        subject
    });
    assert_eq!(slowly.sealed.len(), at_once.sealed.len());
    let mut swept = 0;
    simulated(0, async |env, store| {
        let mut runs: Vec<Run> = Vec::new();
        for (number, (slow, quick)) in slowly.sealed.iter().zip(&at_once.sealed).enumerate() {
            assert_eq!(slow.run.as_ref().map(WrittenRun::digest), quick.run.as_ref().map(WrittenRun::digest));
            let Some(written) = &slow.run else { continue };
            let run = run_of(written, &format!("run-{number}"));
            store.put(&run.file.path, written.payload.clone()).await.unwrap();
            // Of two that hold the same, one may be known to be whole and the other not: by what was drained before it.
            if slow.is_whole || quick.is_whole {
                assert_eq!(
                    restored(&env, &*store, std::slice::from_ref(&run), parallelism).await,
                    slow.lived
                );
                swept += usize::from(written.entries() > slow.changed);
            }
            runs.push(run);
            assert_eq!(restored(&env, &*store, &runs, parallelism).await, slow.lived);
        }
    });
    swept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_run_is_what_lived_at_its_barrier_whatever_is_drained_when(steps in steps(), parallelism in 1..4_u32) {
        check(&steps, parallelism);
    }
}

/// Half of the keys change; then some go, many come, so that the tables grow, and others change, while a little is drained.
#[test]
fn a_sweep_takes_what_did_not_change_while_tables_grow() {
    // Of one state nothing changes afterwards.
    let load = [Step::Set(0, 1, 400), Step::Other(0), Step::Other(1), Step::Barrier, Step::Seal];
    let beside = |drained| {
        [
            Step::Set(0, 2, 210),
            Step::Barrier,
            Step::Drain(drained),
            Step::Remove(1, 4, 30),
            Step::Set(400, 1, 800),
            Step::Set(3, 4, 40),
            Step::Drain(60),
            Step::Barrier,
            Step::Drain(3),
            Step::Remove(300, 1, 900),
            Step::Set(300, 1, 900),
            Step::Seal,
        ]
    };
    for drained in [1, 50, 130, 400] {
        let swept = check(&[&load[..], &beside(drained)].concat(), 2);
        assert!(
            swept >= 2,
            "{swept} deltas took what had not changed, where {drained} were drained at first"
        );
    }
}

/// With fewer changes than half, only those are drained; and always so where nothing else was asked for.
#[test]
fn a_small_delta_holds_changes_only() {
    let steps = [Step::Set(0, 1, 1000), Step::Barrier, Step::Seal, Step::Set(0, 1, 499)];
    assert_eq!(check(&steps, 1), 0);
    let steps = [&steps[..3], &[Step::Set(0, 1, 500)]].concat();
    assert_eq!(check(&steps, 1), 1);
    let mut subject = Subject::new(true);
    subject.state.set_full_from(u64::MAX);
    steps.iter().chain([&Step::Barrier]).for_each(|step| subject.step(step));
    let last = subject.sealed.last().unwrap();
    assert!(!last.is_whole && last.run.as_ref().unwrap().entries() == 500);
}

/// A map that was emptied counts for nothing, whether or not its deletion is drained; and of the interval in which it was
/// emptied the delta holds changes only, since it is not known what else would have to be there.
#[test]
fn an_empty_map_is_in_nobodys_way() {
    let begin = [Step::Set(0, 1, 4), Step::Put(0), Step::Barrier, Step::Seal];
    for at_once in [false, true] {
        let emptied = [Step::Set(0, 1, 2), Step::Clear(0, at_once), Step::Barrier];
        assert_eq!(check(&[&begin[..], &emptied, &[Step::Seal]].concat(), 1), 0);
        let after = [Step::Set(0, 1, 2), Step::Barrier, Step::Seal];
        assert_eq!(check(&[&begin[..], &emptied, &after].concat(), 1), 1);
    }
}
