//! What a migration's function is called with, from several runs with deletes, at another parallelism, on every store: each value
//! that lives, once; and what happens where runs of two types come together: they are refused, whoever reads them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use env::Store;
use statebackend::{
    Declared, KeyRef, ListState, MapState, RunCompression, RunSet, StateDeclarations, ValueState, merge,
    summarize,
};
use types::{CheckpointId, ErrorKind, ExpiryClocks, Run, SubtaskIndex};

use crate::{
    fixture::{Behind, Context, MAX, Subtask, identity, key, simulated, with_and_without_store},
    migration::migrated,
};

const KEYS: u32 = 24;
const INTERVALS: u32 = 7;

/// By state and value, how often a function was called with it.
type Calls = Arc<Mutex<BTreeMap<(&'static str, u32), u32>>>;

struct Before {
    value: ValueState<u32>,
    list: ListState<u32>,
    map: MapState<u8, u32>,
}

struct After {
    value: ValueState<String>,
    list: ListState<String>,
    map: MapState<u8, String>,
}

fn before() -> (Declared, Before) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles = Before { value: states.value("value"), list: states.list("list"), map: states.map("map") };
    (states.finish().unwrap(), handles)
}

fn after(calls: &Calls) -> (Declared, After) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let step = |state: &'static str| {
        let calls = calls.clone();
        move |old: u32| {
            *calls.lock().unwrap().entry((state, old)).or_default() += 1;
            Ok(format!("<{old}>"))
        }
    };
    let handles = After {
        value: states.migrating(step("value")).value("value"),
        list: states.migrating(step("list")).list("list"),
        map: states.migrating(step("map")).map("map"),
    };
    (states.finish().unwrap(), handles)
}

/// What lives of a key.
#[derive(Clone, Default)]
struct Model {
    value: Option<u32>,
    list: Vec<u32>,
    map: BTreeMap<u8, u32>,
}

/// No value is written twice.
fn number(interval: u32, name: u32, place: u32) -> u32 {
    (interval * KEYS + name) * 10 + place
}

fn context<'a>(subtasks: &'a mut [Subtask], key: &'a [u8]) -> Context<'a> {
    let group = KeyRef::new(key, MAX).group;
    let owner = subtasks.iter_mut().find(|it| it.groups.contains(group)).unwrap();
    Context { state: &mut owner.state, key }
}

fn name(number: u32) -> Vec<u8> {
    key(&format!("key-{number}"))
}

/// A job of two subtasks with as many runs each as there are intervals, in all of which something is overwritten and deleted.
async fn written(store: &dyn Store) -> (Vec<Run>, Vec<Model>) {
    let (declared, handles) = before();
    let mut subtasks: Vec<Subtask> = (0..2)
        .map(|index| {
            let groups = MAX.range(SubtaskIndex(index), 2);
            Subtask::of(declared.clone(), &Behind::Nothing, groups, index, CheckpointId(1))
        })
        .collect();
    let mut models = vec![Model::default(); KEYS as usize];
    for interval in 0..INTERVALS {
        for (it, model) in (0..KEYS).zip(&mut models) {
            let bytes = name(it);
            let ctx = &mut context(&mut subtasks, &bytes);
            let [value, element, entry] = [0, 1, 2].map(|place| number(interval, it, place));
            let sub = (interval % 3) as u8;
            match (interval + it) % 5 {
                0 => {
                    handles.value.clear(ctx).unwrap();
                    handles.list.clear(ctx).unwrap();
                    handles.map.clear(ctx).unwrap();
                    *model = Model::default();
                }
                1 => {
                    handles.map.remove(ctx, &sub).unwrap();
                    model.map.remove(&sub);
                }
                _ => {
                    handles.value.set(ctx, value).unwrap();
                    handles.list.append(ctx, element).unwrap();
                    handles.map.put(ctx, &sub, entry).unwrap();
                    model.value = Some(value);
                    model.list.push(element);
                    model.map.insert(sub, entry);
                }
            }
        }
        for subtask in &mut subtasks {
            subtask.state.flip(CheckpointId(u64::from(interval) + 1));
            subtask.seal(store, 4).await;
        }
    }
    let runs: Vec<Run> = subtasks.into_iter().flat_map(|subtask| subtask.runs).collect();
    assert_eq!(runs.len() as u32, 2 * INTERVALS);
    let with: Vec<u64> = runs.iter().map(|run| run.tombstones).collect();
    assert!(
        with.iter().filter(|count| **count > 0).count() as u32 > INTERVALS,
        "too little is deleted: {with:?}"
    );
    (runs, models)
}

#[test]
fn each_value_that_lives_is_migrated_once_whatever_the_runs() {
    for (behind_name, behind) in with_and_without_store(5) {
        for parallelism in [1, 3] {
            simulated(1, async |env, store| {
                let (runs, models) = written(&*store).await;
                let calls = Calls::default();
                let (declared, handles) = after(&calls);
                let mut subtasks = Vec::new();
                for index in 0..parallelism {
                    let groups = MAX.range(SubtaskIndex(index), parallelism);
                    let first = CheckpointId(u64::from(INTERVALS) + 1);
                    let mut subtask = Subtask::of(declared.clone(), &behind, groups, index, first);
                    let path = format!("runs/migrated-{index}.run");
                    let runs = migrated(&env, &*store, &runs, &subtask, &path).await.unwrap();
                    subtask.restore(&env, &*store, &runs).await.unwrap();
                    subtasks.push(subtask);
                }
                let mut expected = BTreeMap::new();
                for (it, model) in (0..KEYS).zip(&models) {
                    expected.extend(model.value.map(|value| (("value", value), 1)));
                    expected.extend(model.list.iter().map(|element| (("list", *element), 1)));
                    expected.extend(model.map.values().map(|entry| (("map", *entry), 1)));
                    let bytes = name(it);
                    let ctx = &mut context(&mut subtasks, &bytes);
                    let text = |number: &u32| format!("<{number}>");
                    assert_eq!(handles.value.get(ctx).unwrap(), model.value.as_ref().map(text));
                    assert_eq!(
                        handles.list.get(ctx).unwrap(),
                        model.list.iter().map(text).collect::<Vec<_>>()
                    );
                    let entries: Vec<_> = model.map.iter().map(|(sub, entry)| (*sub, text(entry))).collect();
                    assert_eq!(handles.map.entries(ctx).unwrap(), entries);
                }
                assert!(expected.len() > KEYS as usize, "too little lives");
                assert_eq!(
                    *calls.lock().unwrap(),
                    expected,
                    "behind {behind_name}, parallelism {parallelism}"
                );
            });
        }
    }
}

/// A list of runs in which an older one still counts for a state that a newer one holds as another type.
#[test]
fn runs_of_two_types_are_refused_by_whoever_reads_them() {
    for (behind_name, behind) in with_and_without_store(5) {
        simulated(1, async |env, store| {
            let (runs, _) = written(&*store).await;
            let (declared, _) = after(&Calls::default());
            let subtask = || Subtask::of(declared.clone(), &behind, MAX.all(), 0, CheckpointId(99));
            let good = migrated(&env, &*store, &runs, &subtask(), "runs/migrated.run").await.unwrap();
            let [new] = &good[..] else { panic!("{good:?}") };
            let mixed = [&runs[..], std::slice::from_ref(new)].concat();
            let none = ExpiryClocks::default();
            let set = RunSet::new(&mixed, &none);
            let (to, zstd) = (identity(0, 77), RunCompression::Zstd);
            let failed = [
                ("restore", subtask().restore(&env, &*store, &mixed).await),
                ("merge", merge(&env, &*store, set, true, to, "runs/mixed.run", zstd).await.map(drop)),
                ("summarize", summarize(&env, &*store, set).await.map(drop)),
                ("migrate", migrated(&env, &*store, &mixed, &subtask(), "runs/again.run").await.map(drop)),
            ];
            for (what, failed) in failed {
                let error = failed.err().unwrap_or_else(|| panic!("{what} takes both, behind {behind_name}"));
                assert_eq!(error.kind(), ErrorKind::IncompatibleState, "{what}: {error}");
                assert!(error.message().contains("\"list\""), "{what}: {error}");
            }
        });
    }
}
