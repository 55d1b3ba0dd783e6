//! State against a model of sorted maps, over random changes, barriers, slices, merges, restores and rescalings; in
//! memory alone, and with a store behind and so few cells in front that some leave all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use env::{Env, Store};
use proptest::{prelude::*, test_runner::TestRunner};
use statebackend::{
    KeyRef, LiveEntry, MergePolicy, RunCompression, RunSet, StateSummary, copy_canonical, merge, plan_merge,
    scan, summarize, verify_run, write_run,
};
use types::{CheckpointId, ExpiryClocks, KeyGroup, Run, SubtaskIndex, Timestamp};

use crate::{
    fixture::{
        AllHandles, Behind, Context, Handles, MAX, Subtask, declare_all, each_store, identity, key, longer,
        simulated,
    },
    one_hash,
};

const KEYS: usize = 7;

/// What happens to a subtask's state.
#[derive(Clone, Debug)]
enum Change {
    Set(u64),
    Increment,
    Remove,
    Append(u8),
    ClearList,
    ReplaceList(u8),
    Put(u32, u64),
    RemoveEntry(u32),
    ClearMap,
    Reduce(u8),
    TakeLongest,
    Aggregate(u32),
    Merge(u32),
    ClearMean,
    Register(i64),
    Delete(i64),
    Fire(i64),
    RegisterProcessing(i64),
}

/// What happens to the job.
#[derive(Clone, Debug)]
enum Step {
    Change(usize, Change),
    Barrier,
    Drain(usize),
    Seal(usize),
    Merge(usize, usize),
    MergeByPolicy,
    Restore(u32),
    Prepare(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u64>().prop_map(Change::Set),
        3 => Just(Change::Increment),
        3 => Just(Change::Remove),
        4 => (1_u8..4).prop_map(Change::Append),
        2 => Just(Change::ClearList),
        1 => (0_u8..3).prop_map(Change::ReplaceList),
        8 => (0_u32..6, any::<u64>()).prop_map(|(sub, value)| Change::Put(sub, value)),
        4 => (0_u32..6).prop_map(Change::RemoveEntry),
        2 => Just(Change::ClearMap),
        3 => (0_u8..9).prop_map(Change::Reduce),
        1 => Just(Change::TakeLongest),
        3 => any::<u32>().prop_map(Change::Aggregate),
        1 => any::<u32>().prop_map(Change::Merge),
        1 => Just(Change::ClearMean),
        4 => (-5_i64..30).prop_map(Change::Register),
        2 => (-5_i64..30).prop_map(Change::Delete),
        1 => (-5_i64..30).prop_map(Change::Fire),
        1 => (-5_i64..30).prop_map(Change::RegisterProcessing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..KEYS, change()).prop_map(|(key, change)| Step::Change(key, change)),
        6 => Just(Step::Barrier),
        6 => (1_usize..6).prop_map(Step::Drain),
        3 => (1_usize..20).prop_map(Step::Seal),
        2 => (0_usize..8, 2_usize..5).prop_map(|(start, len)| Step::Merge(start, len)),
        1 => Just(Step::MergeByPolicy),
        1 => (1_u32..5).prop_map(Step::Restore),
        3 => any::<u8>().prop_map(Step::Prepare),
    ]
}

/// What all state should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<usize, u64>,
    lists: BTreeMap<usize, Vec<String>>,
    maps: BTreeMap<usize, BTreeMap<u32, u64>>,
    longest: BTreeMap<usize, String>,
    means: BTreeMap<usize, Vec<u32>>,
    event_timers: BTreeSet<(i64, u16, Vec<u8>)>,
    processing_timers: BTreeSet<(i64, u16, Vec<u8>)>,
    appended: usize,
}

fn key_of(index: usize) -> Vec<u8> {
    match index {
        // Too long to lie in place.
        0 => key("a key of more than twenty-two bytes"),
        1..=4 => one_hash::pairs().as_flattened()[index - 1].clone(),
        _ => key(&format!("key-{index}")),
    }
}

impl Model {
    fn lines(&mut self, count: u8) -> Vec<String> {
        let first = self.appended;
        self.appended += usize::from(count);
        (first..self.appended).map(|line| format!("line {line}")).collect()
    }

    /// Makes a change here and in `state`, comparing what they give back.
    fn change(&mut self, subtask: &mut Subtask, handles: AllHandles, index: usize, change: &Change) {
        let AllHandles { basic: handles, longest, mean } = handles;
        let bytes = key_of(index);
        let key = KeyRef::new(&bytes, MAX);
        let timer = |at: i64| (at, key.group.0, bytes.clone());
        let mut ctx = Context { state: &mut subtask.state, key: &bytes };
        match *change {
            Change::Set(value) => {
                assert_eq!(handles.value.replace(&mut ctx, value).unwrap(), self.values.insert(index, value));
            }
            Change::Increment => {
                let count = self.values.entry(index).or_default();
                *count = count.wrapping_add(1);
                let update = |value: &mut Option<u64>| *value = Some(value.unwrap_or(0).wrapping_add(1));
                handles.value.update(&mut ctx, update).unwrap();
            }
            Change::Remove => assert_eq!(handles.value.take(&mut ctx).unwrap(), self.values.remove(&index)),
            Change::Append(count) => {
                let lines = self.lines(count);
                self.lists.entry(index).or_default().extend(lines.iter().cloned());
                handles.list.extend(&mut ctx, lines).unwrap();
            }
            Change::ClearList => {
                self.lists.remove(&index);
                handles.list.clear(&mut ctx).unwrap();
            }
            Change::ReplaceList(count) => {
                let lines = self.lines(count);
                self.lists.remove(&index);
                if !lines.is_empty() {
                    self.lists.insert(index, lines.clone());
                }
                handles.list.replace(&mut ctx, lines).unwrap();
            }
            Change::Put(sub, value) => {
                let before = self.maps.entry(index).or_default().insert(sub, value);
                assert_eq!(handles.map.put(&mut ctx, &sub, value).unwrap(), before);
            }
            Change::RemoveEntry(sub) => {
                let before = self.maps.get_mut(&index).and_then(|map| map.remove(&sub));
                self.maps.retain(|_, map| !map.is_empty());
                assert_eq!(handles.map.remove(&mut ctx, &sub).unwrap(), before);
            }
            Change::ClearMap => {
                self.maps.remove(&index);
                handles.map.clear(&mut ctx).unwrap();
            }
            Change::Reduce(length) => {
                let new = self.lines(1).remove(0) + &"-".repeat(length.into());
                let expected =
                    self.longest.remove(&index).map_or_else(|| new.clone(), |it| longer(it, new.clone()));
                self.longest.insert(index, expected);
                longest.add(&mut ctx, new).unwrap();
            }
            Change::TakeLongest => {
                assert_eq!(longest.take(&mut ctx).unwrap(), self.longest.remove(&index));
            }
            Change::Aggregate(number) => {
                self.means.entry(index).or_default().push(number);
                mean.add(&mut ctx, number).unwrap();
            }
            Change::Merge(number) => {
                self.means.entry(index).or_default().extend([number, 7]);
                mean.merge(&mut ctx, (u64::from(number) + 7, 2)).unwrap();
            }
            Change::ClearMean => {
                self.means.remove(&index);
                mean.clear(&mut ctx).unwrap();
            }
            Change::Register(at) => {
                self.event_timers.insert(timer(at));
                subtask.state.register_event_timer(key, Timestamp(at));
            }
            Change::Delete(at) => {
                self.event_timers.remove(&timer(at));
                subtask.state.delete_event_timer(key, Timestamp(at));
            }
            Change::Fire(until) => self.fire(subtask, until),
            Change::RegisterProcessing(at) => {
                self.processing_timers.insert(timer(at));
                subtask.state.register_processing_timer(key, Timestamp(at));
            }
        }
    }

    /// Fires the first timer of the subtask that is due.
    fn fire(&mut self, subtask: &mut Subtask, until: i64) {
        let owned = |timer: &&(i64, u16, Vec<u8>)| subtask.groups.contains(KeyGroup(timer.1));
        let expected = self.event_timers.iter().find(owned).filter(|timer| timer.0 <= until).cloned();
        let found = subtask.state.pop_event_timer(Timestamp(until));
        assert_eq!(found.map(|(at, key)| (at.0, key.group.0, key.bytes.to_vec())), expected);
        if let Some(timer) = expected {
            self.event_timers.remove(&timer);
        }
    }

    /// Cells, elements and entries, timers not counted.
    fn residents(&self) -> usize {
        let lists: usize = self.lists.values().map(|list| 1 + list.len()).sum();
        let maps: usize = self.maps.values().map(|map| 1 + map.len()).sum();
        self.values.len() + self.longest.len() + self.means.len() + lists + maps
    }

    /// Puts all of it into fresh state.
    fn fill(&self, subtask: &mut Subtask, handles: AllHandles) {
        let AllHandles { basic: handles, longest, mean } = handles;
        for index in 0..KEYS {
            let bytes = key_of(index);
            let mut ctx = Context { state: &mut subtask.state, key: &bytes };
            if let Some(value) = self.values.get(&index) {
                handles.value.set(&mut ctx, *value).unwrap();
            }
            if let Some(text) = self.longest.get(&index) {
                longest.add(&mut ctx, text.clone()).unwrap();
            }
            for number in self.means.get(&index).into_iter().flatten() {
                mean.add(&mut ctx, *number).unwrap();
            }
            for line in self.lists.get(&index).into_iter().flatten() {
                handles.list.append(&mut ctx, line.clone()).unwrap();
            }
            for (sub, value) in self.maps.get(&index).into_iter().flatten() {
                handles.map.put(&mut ctx, sub, *value).unwrap();
            }
        }
        for (at, _, bytes) in &self.event_timers {
            subtask.state.register_event_timer(KeyRef::new(bytes, MAX), Timestamp(*at));
        }
        for (at, _, bytes) in &self.processing_timers {
            subtask.state.register_processing_timer(KeyRef::new(bytes, MAX), Timestamp(*at));
        }
    }
}

/// A job of one keyed operator.
struct Job {
    env: Env,
    store: Arc<dyn Store>,
    handles: AllHandles,
    behind: Behind,
    /// Cells evicted by subtasks that are gone.
    evicted: u64,
    subtasks: Vec<Subtask>,
    /// For each checkpoint that every subtask has sealed: the model at its barrier, and all runs.
    completed: Option<(Model, Vec<Run>)>,
    /// The model at the barriers that are not yet sealed.
    barriers: BTreeMap<CheckpointId, Model>,
    model: Model,
    next: CheckpointId,
    files: u64,
}

impl Job {
    fn new(env: Env, store: Arc<dyn Store>, behind: Behind) -> Self {
        let first = CheckpointId(1);
        Self {
            env,
            store,
            handles: declare_all().1,
            subtasks: vec![Subtask::of(declare_all().0, &behind, MAX.all(), 0, first)],
            behind,
            evicted: 0,
            completed: None,
            barriers: BTreeMap::new(),
            model: Model::default(),
            next: first,
            files: 0,
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Change(index, ref change) => {
                let group = KeyRef::new(&key_of(index), MAX).group;
                let owner = self.subtasks.iter_mut().find(|subtask| subtask.groups.contains(group)).unwrap();
                self.model.change(owner, self.handles, index, change);
            }
            Step::Barrier => {
                for subtask in &mut self.subtasks {
                    subtask.state.flip(self.next);
                }
                self.barriers.insert(self.next, self.model.clone());
                self.next = self.next.next();
            }
            Step::Drain(cells) => {
                for subtask in &mut self.subtasks {
                    subtask.state.drain(cells).unwrap();
                }
            }
            Step::Seal(slice) => self.seal(slice).await,
            Step::Merge(start, len) => {
                for index in 0..self.subtasks.len() {
                    let runs = self.subtasks[index].runs.len();
                    if start + len <= runs {
                        self.merge(index, start..start + len).await;
                    }
                }
            }
            Step::MergeByPolicy => {
                let policy = MergePolicy { max_runs: 4, fan_in: 3, ..MergePolicy::default() };
                for index in 0..self.subtasks.len() {
                    while let Some(range) = plan_merge(&self.subtasks[index].runs, &policy) {
                        self.merge(index, range).await;
                    }
                }
            }
            Step::Restore(parallelism) => self.restore(parallelism).await,
            Step::Prepare(keys) => {
                for subtask in &mut self.subtasks {
                    prepare(subtask, keys);
                }
            }
        }
    }

    async fn seal(&mut self, slice: usize) {
        let mut last = None;
        for subtask in &mut self.subtasks {
            last = subtask.seal(&*self.store, slice).await.last().copied();
        }
        if let Some(last) = last {
            let runs = self.subtasks.iter().flat_map(|subtask| subtask.runs.iter().cloned()).collect();
            self.completed = Some((self.barriers[&last].clone(), runs));
            self.barriers.clear();
        }
    }

    async fn merge(&mut self, index: usize, range: std::ops::Range<usize>) {
        self.files += 1;
        let path = format!("runs/merged-{}.run", self.files);
        let subtask = &mut self.subtasks[index];
        let identity = subtask.next_identity();
        let neighbours = &subtask.runs[range.clone()];
        let merged = merge(
            &self.env,
            &*self.store,
            RunSet::new(neighbours, &ExpiryClocks::default()),
            range.start == 0,
            identity,
            &path,
            RunCompression::Zstd,
        )
        .await
        .unwrap();
        verify_run(&self.env, &*self.store, &merged, true).await.unwrap();
        subtask.runs.splice(range, [merged]);
    }

    async fn restore(&mut self, parallelism: u32) {
        let (model, runs) = self.completed.clone().unwrap_or_default();
        let next_run = self.subtasks.iter().map(Subtask::next_run).max().unwrap();
        let mut subtasks = Vec::new();
        for index in 0..parallelism {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let mut restored = Subtask::of(declare_all().0, &self.behind, groups, index, self.next);
            restored.next_run = next_run;
            restored.restore(&self.env, &*self.store, &runs).await.unwrap();
            subtasks.push(restored);
        }
        self.evicted = self.evicted();
        self.subtasks = subtasks;
        // Lines appended after the checkpoint must not be mistaken for those before.
        self.model = Model { appended: self.model.appended, ..model };
        self.barriers.clear();
        if matches!(self.behind, Behind::Nothing) {
            let resident: usize = self.subtasks.iter().map(|subtask| subtask.state.resident_cells()).sum();
            assert_eq!(resident, self.model.residents(), "what was deleted before takes memory");
        }
        self.compare();
    }

    /// How many cells have left for the stores.
    fn evicted(&self) -> u64 {
        self.evicted + self.subtasks.iter().map(|subtask| subtask.state.evicted_cells()).sum::<u64>()
    }

    /// Compares everything that can be read.
    fn compare(&mut self) {
        for index in 0..KEYS {
            let bytes = key_of(index);
            let group = KeyRef::new(&bytes, MAX).group;
            let owner = self.subtasks.iter_mut().find(|subtask| subtask.groups.contains(group)).unwrap();
            let mut ctx = Context { state: &mut owner.state, key: &bytes };
            let AllHandles { basic: Handles { value, list, map }, longest, mean } = self.handles;
            assert_eq!(longest.get(&mut ctx).unwrap().as_ref(), self.model.longest.get(&index));
            let expected = self.model.means.get(&index).map(|numbers| {
                let sum: u64 = numbers.iter().copied().map(u64::from).sum();
                sum as f64 / numbers.len() as f64
            });
            assert_eq!(mean.get(&mut ctx).unwrap(), expected);
            assert_eq!(value.get(&mut ctx).unwrap(), self.model.values.get(&index).copied());
            let expected = self.model.lists.get(&index).cloned().unwrap_or_default();
            assert_eq!(list.get(&mut ctx).unwrap(), expected);
            let expected = self.model.maps.get(&index).cloned().unwrap_or_default();
            assert_eq!(map.len(&mut ctx).unwrap(), expected.len());
            assert_eq!(map.is_empty(&mut ctx).unwrap(), expected.is_empty());
            assert_eq!(map.first(&mut ctx).unwrap(), expected.first_key_value().map(|(k, v)| (*k, *v)));
            assert_eq!(map.last(&mut ctx).unwrap(), expected.last_key_value().map(|(k, v)| (*k, *v)));
            assert_eq!(map.entries(&mut ctx).unwrap(), expected.into_iter().collect::<Vec<_>>());
        }
        for subtask in &self.subtasks {
            let mut owned =
                self.model.event_timers.iter().filter(|timer| subtask.groups.contains(KeyGroup(timer.1)));
            assert_eq!(subtask.state.next_event_timer().map(|at| at.0), owned.next().map(|timer| timer.0));
        }
    }

    /// What lives in the runs of the last completed checkpoint is what a job writes that has done nothing else.
    async fn compare_snapshots(&mut self) {
        let Some((model, runs)) = self.completed.clone() else { return };
        let mut fresh = Subtask::of(declare_all().0, &Behind::Nothing, MAX.all(), 9, CheckpointId(1));
        model.fill(&mut fresh, self.handles);
        fresh.state.flip(CheckpointId(1));
        fresh.seal(&*self.store, 1000).await;
        let expected = self.canonical(&fresh.runs).await;
        let found = self.canonical(&runs).await;
        assert_eq!(found, expected);
        assert_eq!(found.digest(), expected.digest());
        let mut values = BTreeMap::new();
        let visit = |live: LiveEntry<'_>| {
            assert!(!live.entry.is_tombstone());
            if live.state.name == "total" {
                values.insert(live.entry.key.to_vec(), live.entry.value.to_vec());
            }
            Ok(())
        };
        scan(&self.env, &*self.store, RunSet::new(&runs, &ExpiryClocks::default()), visit).await.unwrap();
        assert_eq!(values.len(), model.values.len());
    }

    async fn canonical(&mut self, runs: &[Run]) -> StateSummary {
        let (env, store, none) = (&self.env, &*self.store, ExpiryClocks::default());
        let (run, summary) = copy_canonical(
            env,
            store,
            RunSet::new(runs, &none),
            store,
            "canonical",
            identity(0, 1),
            RunCompression::Zstd,
        )
        .await
        .unwrap();
        verify_run(env, store, &run, true).await.unwrap();
        assert_eq!(run.tombstones, 0);
        assert_eq!(summarize(env, store, RunSet::new(runs, &none)).await.unwrap(), summary);
        assert_eq!(summarize(env, store, RunSet::new(&[run], &none)).await.unwrap(), summary);
        store.delete("canonical").await.unwrap();
        summary
    }
}

/// Makes the values of some keys resident, as the keys of a batch.
fn prepare(subtask: &mut Subtask, keys: u8) {
    let keys: Vec<Vec<u8>> = (0..KEYS).filter(|index| keys >> index & 1 == 1).map(key_of).collect();
    let keys = keys.iter().map(|bytes| KeyRef::new(bytes, MAX));
    let owned: Vec<_> = keys.filter(|key| subtask.groups.contains(key.group)).collect();
    subtask.state.prepare(owned.into_iter()).unwrap();
}

/// Takes a job through `steps` and compares it with its model. Returns how many cells were evicted.
async fn live(env: Env, store: Arc<dyn Store>, behind: Behind, steps: &[Step]) -> u64 {
    let mut job = Job::new(env, store, behind);
    for step in steps {
        job.step(step).await;
    }
    job.compare();
    job.step(&Step::Barrier).await;
    job.step(&Step::Seal(3)).await;
    job.compare_snapshots().await;
    job.step(&Step::Restore(3)).await;
    // Timers last, since looking at them removes them.
    for index in 0..job.subtasks.len() {
        while job.subtasks[index].state.next_event_timer().is_some() {
            let Job { model, subtasks, .. } = &mut job;
            model.fire(&mut subtasks[index], i64::MAX);
        }
    }
    assert_eq!(job.model.event_timers, BTreeSet::new());
    job.evicted()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The cells of the smallest tables: a batch does not fit in, so they leave all the time.
const FEW: usize = 4;

#[test]
fn state_behind_a_small_table_is_what_the_model_says() {
    each_store(|with_cells| {
        let evicted = std::cell::Cell::new(0);
        let cases = (proptest::collection::vec(step(), 1..250), any::<u64>(), 1..3 * FEW);
        let run = TestRunner::new(config(96)).run(&cases, |(steps, seed, cells)| {
            let (behind, _) = with_cells(cells);
            let went = simulated(seed, async |env, store| live(env, store, behind, &steps).await);
            evicted.set(evicted.get() + went);
            Ok(())
        });
        run.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(evicted.get() > 1000, "only {} cells were evicted: the store was not used", evicted.get());
    });
}

/// The deltas of a subtask, as the bytes of their runs; everything is drained, in slices.
fn deltas(subtask: &mut Subtask, slice: usize) -> Vec<(CheckpointId, Vec<u8>)> {
    while subtask.state.drain(slice).unwrap() > 0 {}
    let mut found = Vec::new();
    while let Some((checkpoint, delta)) = subtask.state.take_sealed() {
        let run = write_run(delta, identity(0, 1), MAX.all(), RunCompression::Zstd).unwrap();
        found.push((checkpoint, run.payload.concat()));
    }
    found
}

/// Subtasks live through the same; one drains all at once at the end, one at odd times in odd slices, and one does that
/// with a store behind, too. Their runs are the same.
#[test]
fn the_bytes_of_a_run_depend_on_the_cut_alone() {
    each_store(|with_cells| {
        let evicted = std::cell::Cell::new(0);
        let cases = (proptest::collection::vec(step(), 1..200), 1..3 * FEW);
        let run = TestRunner::new(config(128)).run(&cases, |(steps, cells)| {
            let (declared, handles) = declare_all();
            let behind = [Behind::Nothing, Behind::Nothing, with_cells(cells).0];
            let mut subtasks =
                behind.map(|behind| Subtask::of(declared.clone(), &behind, MAX.all(), 0, CheckpointId(1)));
            let mut models = [(); 3].map(|()| Model::default());
            let mut next = CheckpointId(1);
            for step in steps.iter().chain([&Step::Barrier, &Step::Seal(2)]) {
                match step {
                    Step::Change(index, change) => {
                        for (model, subtask) in models.iter_mut().zip(&mut subtasks) {
                            model.change(subtask, handles, *index, change);
                        }
                    }
                    Step::Barrier => {
                        subtasks.iter_mut().for_each(|subtask| subtask.state.flip(next));
                        next = next.next();
                    }
                    Step::Prepare(keys) => subtasks.iter_mut().for_each(|subtask| prepare(subtask, *keys)),
                    Step::Drain(cells) => {
                        for subtask in &mut subtasks[1..] {
                            subtask.state.drain(*cells).unwrap();
                        }
                    }
                    Step::Seal(slice) => {
                        let expected = deltas(&mut subtasks[0], usize::MAX);
                        prop_assert_eq!(&deltas(&mut subtasks[1], *slice), &expected, "in slices");
                        prop_assert_eq!(&deltas(&mut subtasks[2], *slice), &expected, "with a store");
                    }
                    _ => {}
                }
            }
            evicted.set(evicted.get() + subtasks[2].state.evicted_cells());
            Ok(())
        });
        run.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(evicted.get() > 1000, "only {} cells were evicted: the store was not used", evicted.get());
    });
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn state_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..250), seed: u64) {
        simulated(seed, async |env, store| live(env, store, Behind::Nothing, &steps).await);
    }
}
