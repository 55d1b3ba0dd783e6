//! Deltas that hold everything that lived: each of them alone, restored at any parallelism, is the state at its barrier.

use std::collections::{BTreeMap, BTreeSet};

use env::{Env, Payload, Store};
use proptest::{collection::vec, prelude::*};
use statebackend::{
    Declared, KeyRef, KeyedState, ListState, MapState, RunCompression, StateDeclarations, ValueState, run_of,
    write_run,
};
use types::{CheckpointId, Run, SubtaskIndex, Timestamp};

use crate::fixture::{self, Context, MAX, each_store, identity, simulated};

#[derive(Clone, Copy)]
struct Handles {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u8, u64>,
}

fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles = Handles { value: states.value("value"), list: states.list("list"), map: states.map("map") };
    (states.finish().unwrap(), handles)
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u64),
    Remove(u8),
    Append(u8),
    Clear(u8),
    Put(u8, u8),
    ClearMap(u8),
    Register(u8, i64),
    Delete(u8, i64),
    /// A barrier, and how many cells are drained at once, of how many before the next step.
    Barrier,
    Drain(usize),
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..4_u8;
    let step = prop_oneof![
        8 => (key.clone(), any::<u64>()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => key.clone().prop_map(Step::Remove),
        1 => key.clone().prop_map(Step::Append),
        1 => key.clone().prop_map(Step::Clear),
        2 => (key.clone(), 0..2_u8).prop_map(|(key, sub)| Step::Put(key, sub)),
        1 => key.clone().prop_map(Step::ClearMap),
        2 => (key.clone(), 0..2_i64).prop_map(|(key, at)| Step::Register(key, at)),
        2 => (key, 0..2_i64).prop_map(|(key, at)| Step::Delete(key, at)),
        3 => Just(Step::Barrier),
        2 => (1..4_usize).prop_map(Step::Drain),
        2 => Just(Step::Seal),
    ];
    vec(step, 1..60)
}

/// What lives.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<u8, u64>,
    /// How many elements the lists have.
    lists: BTreeMap<u8, usize>,
    maps: BTreeMap<u8, BTreeMap<u8, u64>>,
    timers: BTreeSet<(i64, u8)>,
}

fn key_bytes(key: u8) -> Vec<u8> {
    fixture::key(&format!("key {key}"))
}

/// A delta that was sealed: whether it is whole, its run if there is one, and what lived at its barrier.
type Sealed = (bool, Option<(Run, Payload)>, Model);

struct Subject {
    state: KeyedState,
    handles: Handles,
    model: Model,
    /// At each barrier whose delta is not yet taken.
    barriers: BTreeMap<CheckpointId, Model>,
    next: CheckpointId,
}

impl Subject {
    fn new() -> Self {
        let (declared, handles) = declare();
        Self {
            state: KeyedState::new(declared, MAX.all(), CheckpointId(1)),
            handles,
            model: Model::default(),
            barriers: BTreeMap::new(),
            next: CheckpointId(1),
        }
    }

    /// Returns the deltas that were sealed.
    fn step(&mut self, step: &Step) -> Vec<Sealed> {
        let Handles { value, list, map } = self.handles;
        let Model { values, lists, maps, timers } = &mut self.model;
        let mut on = |key: u8, change: &mut dyn FnMut(&mut Context<'_>)| {
            let key = key_bytes(key);
            change(&mut Context { state: &mut self.state, key: &key });
        };
        match *step {
            Step::Set(key, number) => {
                on(key, &mut |context| value.set(context, number).unwrap());
                values.insert(key, number);
            }
            Step::Remove(key) => {
                on(key, &mut |context| value.clear(context).unwrap());
                values.remove(&key);
            }
            Step::Append(key) => {
                on(key, &mut |context| list.append(context, 1).unwrap());
                *lists.entry(key).or_default() += 1;
            }
            Step::Clear(key) => {
                on(key, &mut |context| list.clear(context).unwrap());
                lists.remove(&key);
            }
            Step::Put(key, sub) => {
                on(key, &mut |context| {
                    assert!(map.put(context, &sub, 1).unwrap().is_none_or(|old| old == 1))
                });
                maps.entry(key).or_default().insert(sub, 1);
            }
            Step::ClearMap(key) => {
                on(key, &mut |context| map.clear(context).unwrap());
                maps.remove(&key);
            }
            Step::Register(key, at) => {
                self.state.register_event_timer(KeyRef::new(&key_bytes(key), MAX), Timestamp(at));
                timers.insert((at, key));
            }
            Step::Delete(key, at) => {
                self.state.delete_event_timer(KeyRef::new(&key_bytes(key), MAX), Timestamp(at));
                timers.remove(&(at, key));
            }
            Step::Barrier => {
                self.state.flip(self.next);
                self.barriers.insert(self.next, self.model.clone());
                self.next = self.next.next();
            }
            Step::Drain(cells) => drop(self.state.drain(cells).unwrap()),
            Step::Seal => return self.seal(),
        }
        Vec::new()
    }

    fn seal(&mut self) -> Vec<Sealed> {
        while self.state.drain(3).unwrap() > 0 {}
        let mut sealed = Vec::new();
        while let Some((checkpoint, delta)) = self.state.take_sealed() {
            let is_whole = delta.is_whole();
            let run = (!delta.is_empty()).then(|| {
                let written =
                    write_run(delta, identity(0, checkpoint.0), MAX.all(), RunCompression::Zstd).unwrap();
                (run_of(&written, &format!("run-{}", checkpoint.0)), written.payload)
            });
            sealed.push((is_whole, run, self.barriers.remove(&checkpoint).unwrap()));
        }
        sealed
    }
}

/// What a run alone holds, restored at a parallelism.
async fn restored(env: &Env, store: &dyn Store, run: &Run, parallelism: u32) -> Model {
    let mut model = Model::default();
    for index in 0..parallelism {
        let groups = MAX.range(SubtaskIndex(index), parallelism);
        let (declared, handles) = declare();
        let mut state = KeyedState::new(declared, groups, CheckpointId(1));
        statebackend::restore(env, store, std::slice::from_ref(run), &mut state).await.unwrap();
        for key in 0..4 {
            let bytes = key_bytes(key);
            if !groups.contains(KeyRef::new(&bytes, MAX).group) {
                continue;
            }
            let mut context = Context { state: &mut state, key: &bytes };
            if let Some(number) = handles.value.get(&mut context).unwrap() {
                model.values.insert(key, number);
            }
            let elements = handles.list.get(&mut context).unwrap().len();
            if elements > 0 {
                model.lists.insert(key, elements);
            }
            let entries = handles.map.entries(&mut context).unwrap();
            if !entries.is_empty() {
                model.maps.insert(key, entries.into_iter().collect());
            }
        }
        while let Some((at, key)) = state.pop_event_timer(Timestamp::MAX) {
            let key = (0..4).find(|number| key_bytes(*number) == *key.bytes).unwrap();
            model.timers.insert((at.0, key));
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_whole_delta_alone_is_the_state(steps in steps(), full in any::<bool>(), parallelism in 1..4_u32) {
        simulated(0, async |env, store| {
            let mut subject = Subject::new();
            if full {
                subject.state.set_full_from(1);
            }
            for step in steps.iter().chain([&Step::Barrier, &Step::Seal]) {
                for (is_whole, run, model) in subject.step(step) {
                    if is_whole && let Some((run, payload)) = run {
                        store.put(&run.file.path, payload).await.unwrap();
                        assert_eq!(restored(&env, &*store, &run, parallelism).await, model);
                    }
                }
            }
        });
    }
}

#[test]
fn only_a_delta_of_all_that_lives_is_whole() {
    let mut subject = Subject::new();
    let mut is_whole = |steps: &[Step]| {
        steps.iter().for_each(|step| assert!(subject.step(step).is_empty()));
        subject.step(&Step::Barrier);
        subject.step(&Step::Seal).pop().unwrap().0
    };
    let all = [Step::Set(0, 1), Step::Set(1, 1), Step::Set(2, 1)];
    assert!(is_whole(&all));
    assert!(!is_whole(&all[..2]), "a cell is missing");
    assert!(is_whole(&all), "all have changed again");
    assert!(!is_whole(&[Step::Set(0, 2), Step::Remove(2)]), "a cell is missing");
    assert!(is_whole(&all), "it is back");
    assert!(is_whole(&[Step::Set(0, 2), Step::Set(1, 2), Step::Remove(2)]), "what was removed does not live");
    assert!(is_whole(&all[..2]), "the removed one is gone");
    assert!(!is_whole(&[]), "nothing has changed");
    assert!(
        !is_whole(&[Step::Set(0, 1), Step::Set(1, 1), Step::Append(0)]),
        "lists may have been longer before"
    );
    assert!(!is_whole(&all[..2]), "a list lives");
    assert!(!is_whole(&[Step::Set(0, 1), Step::Set(1, 1), Step::Clear(0)]));
    assert!(is_whole(&all[..2]), "no list lives any more");
    let map = [Step::Set(0, 1), Step::Set(1, 1), Step::Put(0, 0)];
    assert!(!is_whole(&map), "maps may have had more entries before");
    assert!(!is_whole(&map[..2]), "a map lives");
    assert!(!is_whole(&[Step::Set(0, 1), Step::Set(1, 1), Step::ClearMap(0)]));
    assert!(is_whole(&all[..2]), "no map lives any more");
    let timer = [Step::Set(0, 1), Step::Set(1, 1), Step::Register(0, 1)];
    assert!(!is_whole(&timer), "there may have been timers before");
    assert!(!is_whole(&timer[..2]), "a timer lives");
    let deleted = [Step::Set(0, 1), Step::Set(1, 1), Step::Delete(0, 1)];
    assert!(is_whole(&deleted), "no timer lives any more");
}

#[test]
fn what_was_restored_lives_too() {
    simulated(0, async |env, store| {
        let mut before = Subject::new();
        for step in [Step::Set(0, 1), Step::Set(1, 1), Step::Set(2, 1), Step::Barrier] {
            before.step(&step);
        }
        let (_, run, _) = before.seal().pop().unwrap();
        let (run, payload) = run.unwrap();
        store.put(&run.file.path, payload).await.unwrap();
        let mut subject = Subject::new();
        statebackend::restore(&env, &*store, &[run], &mut subject.state).await.unwrap();
        let mut is_whole = |keys: std::ops::Range<u8>| {
            keys.for_each(|key| drop(subject.step(&Step::Set(key, 2))));
            subject.step(&Step::Barrier);
            subject.seal().pop().unwrap().0
        };
        assert!(!is_whole(3..4), "three more live");
        assert!(!is_whole(0..3), "one more lives");
        assert!(is_whole(0..4));
    });
}

/// What lives is not what is in memory then.
#[test]
fn no_delta_is_called_whole_where_a_store_stands_behind() {
    each_store(|with_cells| {
        let (declared, handles) = declare();
        let mut state = with_cells(1).0.state(declared, MAX.all(), CheckpointId(1));
        for (checkpoint, key) in (1..).zip(0..4) {
            let key = key_bytes(key);
            handles.value.set(&mut Context { state: &mut state, key: &key }, 1).unwrap();
            state.flip(CheckpointId(checkpoint));
            while state.drain(3).unwrap() > 0 {}
            assert!(!state.take_sealed().unwrap().1.is_whole());
        }
    });
}
