//! State with a time to live against a model of sorted maps whose entries have deadlines: whatever merges, evictions, crashes and
//! restores at another parallelism come between, what has expired never shows again, and what lives does. A twin that does the
//! same and never merges has the same canonical state.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use env::{Env, Store};
use proptest::{prelude::*, test_runner::TestRunner};
use statebackend::{
    AggregatingState, Declared, Expiring, KeyRef, KeyedContext, KeyedState, ListState, MapState,
    ReducingState, RunCompression, RunSet, StateDeclarations, StateSummary, Ttl, ValueState, copy_canonical,
    merge, summarize, verify_run,
};
use types::{CheckpointId, ErrorKind, ExpiryClocks, Run, SubtaskIndex, TimeDomain, Timestamp};

use crate::fixture::{Behind, MAX, Mean, Subtask, each_store, identity, key, longer, simulated};

const KEYS: usize = 5;
/// In event time, of all states but one.
const TTL: i64 = 10;

#[derive(Clone, Copy)]
struct Handles {
    /// Refreshed by reads.
    value: Expiring<ValueState<u64>>,
    list: Expiring<ListState<u32>>,
    map: Expiring<MapState<u32, u64>>,
    longest: Expiring<ReducingState<String>>,
    mean: Expiring<AggregatingState<Mean>>,
    /// In processing time.
    clocked: Expiring<ValueState<u64>>,
    /// Lives for ever.
    plain: ValueState<u64>,
}

fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let ttl = Ttl::event_time(Duration::from_millis(TTL as u64));
    let handles = Handles {
        value: states.expiring(ttl.refreshed_by_reads()).value("value"),
        list: states.expiring(ttl).list("list"),
        map: states.expiring(ttl).map("map"),
        longest: states.expiring(ttl).reducing("longest", longer),
        mean: states.expiring(ttl).aggregating("mean", Mean),
        clocked: states.expiring(Ttl::processing_time(Duration::from_millis(TTL as u64))).value("clocked"),
        plain: states.value("plain"),
    };
    (states.finish().unwrap(), handles)
}

fn key_of(index: usize) -> Vec<u8> {
    key(&format!("key-{index}"))
}

/// A context whose key and record are set by hand.
struct Record<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
    time: Option<Timestamp>,
}

impl KeyedContext for Record<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }

    fn event_time(&self) -> Option<Timestamp> {
        self.time
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(u64),
    Add(u64),
    Take,
    Read,
    Append(u32),
    ReplaceList(u32),
    ClearList,
    Put(u32, u64),
    Remove(u32),
    ClearMap,
    Reduce(u8),
    Aggregate(u32),
    SetClocked(u64),
    SetPlain(u64),
}

#[derive(Clone, Debug)]
enum Step {
    /// By a record so much behind the watermark, or ahead of it.
    Change(usize, i64, Change),
    /// Time goes on: event time, processing time.
    Advance(i64, i64),
    /// A batch comes.
    Batch,
    Checkpoint(usize),
    Merge(usize, usize),
    Restore(u32),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any::<u8>().prop_map(|it| Change::Set(it.into())),
        2 => any::<u8>().prop_map(|it| Change::Add(it.into())),
        1 => Just(Change::Take),
        2 => Just(Change::Read),
        4 => any::<u32>().prop_map(Change::Append),
        1 => any::<u32>().prop_map(Change::ReplaceList),
        1 => Just(Change::ClearList),
        4 => (0..6_u32, any::<u64>()).prop_map(|(sub, value)| Change::Put(sub, value)),
        1 => (0..6_u32).prop_map(Change::Remove),
        1 => Just(Change::ClearMap),
        2 => (0..9_u8).prop_map(Change::Reduce),
        2 => (0..99_u32).prop_map(Change::Aggregate),
        2 => any::<u64>().prop_map(Change::SetClocked),
        1 => any::<u64>().prop_map(Change::SetPlain),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0..KEYS, -12..6_i64, changes()).prop_map(|(key, ahead, change)| Step::Change(key, ahead, change)),
        6 => (0..5_i64, 0..5_i64).prop_map(|(event, processing)| Step::Advance(event, processing)),
        4 => Just(Step::Batch),
        5 => (1..6_usize).prop_map(Step::Checkpoint),
        4 => (0..4_usize, 2..4_usize).prop_map(|(start, len)| Step::Merge(start, len)),
        1 => (1..4_u32).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..160)
}

type Stamped<T> = (T, i64);

/// What there is, expired or not.
#[derive(Clone, Default)]
struct Model {
    event: i64,
    processing: i64,
    values: BTreeMap<usize, Stamped<u64>>,
    lists: BTreeMap<usize, Vec<Stamped<u32>>>,
    maps: BTreeMap<(usize, u32), Stamped<u64>>,
    longest: BTreeMap<usize, Stamped<String>>,
    means: BTreeMap<usize, Stamped<Vec<u32>>>,
    clocked: BTreeMap<usize, Stamped<u64>>,
    plain: BTreeMap<usize, u64>,
}

fn live<T: Clone>(found: Option<&Stamped<T>>, now: i64) -> Option<T> {
    found.filter(|(_, deadline)| *deadline > now).map(|(value, _)| value.clone())
}

/// What lives keeps the later deadline, whatever order the writes come in.
fn until<T>(found: Option<&Stamped<T>>, now: i64, deadline: i64) -> i64 {
    found.map(|it| it.1).filter(|before| *before > now).map_or(deadline, |before| before.max(deadline))
}

impl Model {
    fn change(&mut self, subtask: &mut Subtask, handles: Handles, index: usize, ahead: i64, change: &Change) {
        let time = self.event + ahead;
        let deadline = time.max(self.event) + TTL;
        let bytes = key_of(index);
        let mut ctx = Record { state: &mut subtask.state, key: &bytes, time: Some(Timestamp(time)) };
        let now = self.event;
        match *change {
            Change::Set(value) => {
                handles.value.set(&mut ctx, value).unwrap();
                let deadline = until(self.values.get(&index), now, deadline);
                self.values.insert(index, (value, deadline));
            }
            Change::Add(number) => {
                handles.value.update(&mut ctx, |place| *place = Some(place.unwrap_or(0) + number)).unwrap();
                let before = live(self.values.get(&index), now).unwrap_or(0);
                let deadline = until(self.values.get(&index), now, deadline);
                self.values.insert(index, (before + number, deadline));
            }
            Change::Take => {
                assert_eq!(handles.value.take(&mut ctx).unwrap(), live(self.values.get(&index), now));
                self.values.remove(&index);
            }
            Change::Read => {
                assert_eq!(handles.value.get(&mut ctx).unwrap(), live(self.values.get(&index), now));
                if let Some((_, until)) = self.values.get_mut(&index).filter(|(_, until)| *until > now) {
                    *until = deadline.max(*until);
                }
            }
            Change::Append(item) => {
                handles.list.append(&mut ctx, item).unwrap();
                self.lists.entry(index).or_default().push((item, deadline));
            }
            Change::ReplaceList(item) => {
                handles.list.replace(&mut ctx, [item, item / 2]).unwrap();
                self.lists.insert(index, vec![(item, deadline), (item / 2, deadline)]);
            }
            Change::ClearList => {
                handles.list.clear(&mut ctx).unwrap();
                self.lists.remove(&index);
            }
            Change::Put(sub, value) => {
                let before = handles.map.put(&mut ctx, &sub, value).unwrap();
                assert_eq!(before, live(self.maps.get(&(index, sub)), now));
                let deadline = until(self.maps.get(&(index, sub)), now, deadline);
                self.maps.insert((index, sub), (value, deadline));
            }
            Change::Remove(sub) => {
                let before = handles.map.remove(&mut ctx, &sub).unwrap();
                assert_eq!(before, live(self.maps.get(&(index, sub)), now));
                self.maps.remove(&(index, sub));
            }
            Change::ClearMap => {
                handles.map.clear(&mut ctx).unwrap();
                self.maps.retain(|(key, _), _| *key != index);
            }
            Change::Reduce(len) => {
                let text = "x".repeat(len.into());
                handles.longest.add(&mut ctx, text.clone()).unwrap();
                let before = live(self.longest.get(&index), now);
                let deadline = until(self.longest.get(&index), now, deadline);
                let reduced = before.map_or(text.clone(), |before| longer(before, text));
                self.longest.insert(index, (reduced, deadline));
            }
            Change::Aggregate(number) => {
                handles.mean.add(&mut ctx, number).unwrap();
                let mut numbers = live(self.means.get(&index), now).unwrap_or_default();
                numbers.push(number);
                let deadline = until(self.means.get(&index), now, deadline);
                self.means.insert(index, (numbers, deadline));
            }
            Change::SetClocked(value) => {
                handles.clocked.set(&mut ctx, value).unwrap();
                self.clocked.insert(index, (value, self.processing + TTL));
            }
            Change::SetPlain(value) => {
                handles.plain.set(&mut ctx, value).unwrap();
                self.plain.insert(index, value);
            }
        }
    }

    /// Compares all that can be read without changing anything.
    fn compare(&self, subtasks: &mut [Subtask], handles: Handles) {
        for index in 0..KEYS {
            let bytes = key_of(index);
            let group = KeyRef::new(&bytes, MAX).group;
            let owner = subtasks.iter_mut().find(|subtask| subtask.groups.contains(group)).unwrap();
            let mut ctx = Record { state: &mut owner.state, key: &bytes, time: None };
            let now = self.event;
            let list: Vec<u32> =
                self.lists.get(&index).into_iter().flatten().filter(|it| it.1 > now).map(|it| it.0).collect();
            assert_eq!(handles.list.get(&mut ctx).unwrap(), list);
            assert_eq!(handles.list.is_empty(&mut ctx).unwrap(), list.is_empty());
            let map: Vec<(u32, u64)> = self
                .maps
                .range((index, 0)..=(index, u32::MAX))
                .filter(|(_, (_, deadline))| *deadline > now)
                .map(|((_, sub), (value, _))| (*sub, *value))
                .collect();
            assert_eq!(handles.map.len(&mut ctx).unwrap(), map.len());
            assert_eq!(handles.map.is_empty(&mut ctx).unwrap(), map.is_empty());
            assert_eq!(handles.map.first(&mut ctx).unwrap(), map.first().copied());
            assert_eq!(handles.map.last(&mut ctx).unwrap(), map.last().copied());
            for sub in 0..6 {
                let expected = map.iter().find(|it| it.0 == sub).map(|it| it.1);
                assert_eq!(handles.map.get(&mut ctx, &sub).unwrap(), expected);
            }
            assert_eq!(handles.map.entries(&mut ctx).unwrap(), map);
            assert_eq!(handles.longest.get(&mut ctx).unwrap(), live(self.longest.get(&index), now));
            let mean = live(self.means.get(&index), now).map(|numbers| {
                let sum: u64 = numbers.iter().copied().map(u64::from).sum();
                sum as f64 / numbers.len() as f64
            });
            assert_eq!(handles.mean.get(&mut ctx).unwrap(), mean);
            assert_eq!(
                handles.clocked.get(&mut ctx).unwrap(),
                live(self.clocked.get(&index), self.processing)
            );
            assert_eq!(handles.plain.get(&mut ctx).unwrap(), self.plain.get(&index).copied());
        }
    }
}

/// A checkpoint: all runs with the clocks of who wrote them, and the model at its barrier.
#[derive(Clone, Default)]
struct Completed {
    model: Model,
    runs: Vec<(Vec<Run>, ExpiryClocks)>,
}

struct Job {
    env: Env,
    store: Arc<dyn Store>,
    behind: Behind,
    handles: Handles,
    subtasks: Vec<Subtask>,
    model: Model,
    completed: Completed,
    next: CheckpointId,
    files: u64,
    merges: bool,
    /// Entries that merges left out or cut, and cells that the hand dropped.
    dropped: usize,
}

impl Job {
    fn new(env: Env, store: Arc<dyn Store>, behind: Behind, merges: bool) -> Self {
        let first = CheckpointId(1);
        let subtask = Subtask::of(declare().0, &behind, MAX.all(), 0, first);
        let (handles, model, completed) = (declare().1, Model::default(), Completed::default());
        let mut job = Self {
            env,
            store,
            behind,
            handles,
            subtasks: vec![subtask],
            model,
            completed,
            next: first,
            files: 0,
            merges,
            dropped: 0,
        };
        job.tell_time();
        job
    }

    fn tell_time(&mut self) {
        for subtask in &mut self.subtasks {
            subtask.state.advance(TimeDomain::EventTime, Timestamp(self.model.event));
            subtask.state.advance(TimeDomain::ProcessingTime, Timestamp(self.model.processing));
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Change(index, ahead, ref change) => {
                let group = KeyRef::new(&key_of(index), MAX).group;
                let owner = self.subtasks.iter_mut().find(|subtask| subtask.groups.contains(group)).unwrap();
                self.model.change(owner, self.handles, index, ahead, change);
            }
            Step::Advance(event, processing) => {
                self.model.event += event;
                self.model.processing += processing;
                self.tell_time();
            }
            Step::Batch => {
                for subtask in &mut self.subtasks {
                    let before = subtask.state.cell_count();
                    subtask.state.prepare(std::iter::empty()).unwrap();
                    if matches!(self.behind, Behind::Nothing) {
                        self.dropped += before - subtask.state.cell_count();
                    }
                }
            }
            Step::Checkpoint(slice) => {
                let mut runs = Vec::new();
                for subtask in &mut self.subtasks {
                    subtask.state.flip(self.next);
                    let clocks = subtask.state.expiry_clocks().unwrap();
                    subtask.seal(&*self.store, slice).await;
                    runs.push((subtask.runs.clone(), clocks));
                }
                self.completed = Completed { model: self.model.clone(), runs };
                self.next = self.next.next();
            }
            Step::Merge(start, len) if self.merges => {
                for index in 0..self.subtasks.len() {
                    if start + len <= self.subtasks[index].runs.len() {
                        self.merge(index, start..start + len).await;
                    }
                }
            }
            Step::Merge(..) => {}
            Step::Restore(parallelism) => self.restore(parallelism).await,
        }
    }

    async fn merge(&mut self, index: usize, range: std::ops::Range<usize>) {
        self.files += 1;
        let path = format!("runs/merged-{}.run", self.files);
        let subtask = &mut self.subtasks[index];
        let (identity, clocks) = (subtask.next_identity(), subtask.state.expiry_clocks().unwrap());
        let (env, store) = (&self.env, &*self.store);
        let (neighbours, oldest) = (&subtask.runs[range.clone()], range.start == 0);
        let none = ExpiryClocks::default();
        let other = merge(
            env,
            store,
            RunSet::new(neighbours, &none),
            oldest,
            identity.clone(),
            "whole",
            RunCompression::Zstd,
        );
        let kept = other.await.unwrap();
        store.delete("whole").await.unwrap();
        let merged = merge(
            env,
            store,
            RunSet::new(neighbours, &clocks),
            oldest,
            identity,
            &path,
            RunCompression::Zstd,
        );
        let merged = merged.await.unwrap();
        verify_run(env, store, &merged, true).await.unwrap();
        self.dropped += usize::from(merged.plain_bytes < kept.plain_bytes);
        subtask.runs.splice(range, [merged]);
    }

    async fn restore(&mut self, parallelism: u32) {
        let Completed { model, runs } = self.completed.clone();
        let next_run = self.subtasks.iter().map(|subtask| subtask.next_run).max().unwrap();
        let all: Vec<Run> = runs.iter().flat_map(|(runs, _)| runs.iter().cloned()).collect();
        let mut subtasks = Vec::new();
        for index in 0..parallelism {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let mut restored = Subtask::of(declare().0, &self.behind, groups, index, self.next);
            restored.next_run = next_run;
            runs.iter().for_each(|(_, clocks)| restored.state.restore_expiry_clocks(clocks));
            restored.restore(&self.env, &*self.store, &all).await.unwrap();
            subtasks.push(restored);
        }
        self.subtasks = subtasks;
        self.model = model;
        // Nobody has said yet how late it is: what had expired at the checkpoint still has.
        self.model.compare(&mut self.subtasks, self.handles);
        self.tell_time();
    }

    /// The canonical form of the last checkpoint.
    async fn canonical(&mut self) -> StateSummary {
        let mut all = StateSummary::default();
        for (runs, clocks) in &self.completed.runs {
            let (env, store) = (&self.env, &*self.store);
            if runs.is_empty() {
                continue;
            }
            let copied = copy_canonical(
                env,
                store,
                RunSet::new(runs, clocks),
                store,
                "canonical",
                identity(0, 1),
                RunCompression::Zstd,
            );
            let (run, summary) = copied.await.unwrap();
            verify_run(env, store, &run, true).await.unwrap();
            assert_eq!(summarize(env, store, RunSet::new(&[run], clocks)).await.unwrap(), summary);
            store.delete("canonical").await.unwrap();
            all.add(&summary);
        }
        all
    }
}

/// Runs the steps; returns what lives at the end, and whether anything was dropped on the way.
fn run(steps: &[Step], behind: Behind, merges: bool) -> (Vec<StateSummary>, usize) {
    simulated(1, async |env, store| {
        let mut job = Job::new(env, store, behind, merges);
        let mut summaries = Vec::new();
        for step in steps {
            job.step(step).await;
            job.model.compare(&mut job.subtasks, job.handles);
            if matches!(step, Step::Checkpoint(_)) {
                summaries.push(job.canonical().await);
            }
        }
        (summaries, job.dropped)
    })
}

#[test]
fn what_has_expired_never_shows_and_what_lives_does() {
    let mut runner = TestRunner::new(ProptestConfig { cases: 96, ..ProptestConfig::default() });
    let dropped = std::cell::Cell::new(0);
    runner
        .run(&steps(), |steps| {
            let (merged, drops) = run(&steps, Behind::Nothing, true);
            let (unmerged, _) = run(&steps, Behind::Nothing, false);
            assert_eq!(merged, unmerged, "a merge is seen");
            dropped.set(dropped.get() + drops);
            Ok(())
        })
        .unwrap();
    assert!(dropped.get() > 500, "too little was dropped to show anything: {}", dropped.get());
}

#[test]
fn behind_every_store_it_is_the_same() {
    each_store(|behind| {
        let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
        runner
            .run(&steps(), |steps| {
                let (stored, _) = run(&steps, behind(9).0, true);
                let (in_memory, _) = run(&steps, Behind::Nothing, false);
                assert_eq!(stored, in_memory);
                Ok(())
            })
            .unwrap();
    });
}

/// The newest value has expired, and an older one has not: it must not come back, whichever runs are merged.
#[test]
fn what_has_expired_hides_what_is_older() {
    for merged in [0..2, 1..3, 0..3, 2..3] {
        simulated(1, async |env, store| {
            let mut job = Job::new(env, store, Behind::Nothing, true);
            job.model.event = 100;
            job.tell_time();
            let steps = [
                // A record far ahead of the watermark; then what it wrote is removed, and written by one at the watermark.
                Step::Change(0, 50, Change::Put(1, 1)),
                Step::Change(0, 50, Change::Set(1)),
                Step::Checkpoint(9),
                Step::Change(0, 0, Change::Remove(1)),
                Step::Change(0, 0, Change::Put(1, 2)),
                Step::Change(0, 0, Change::Take),
                Step::Change(0, 0, Change::Set(2)),
                Step::Checkpoint(9),
                Step::Change(1, 0, Change::SetPlain(3)),
                Step::Checkpoint(9),
                Step::Advance(TTL, 0),
                Step::Merge(merged.start, merged.len()),
                Step::Change(1, 0, Change::SetPlain(4)),
                Step::Checkpoint(9),
                Step::Restore(2),
                Step::Restore(1),
            ];
            for step in &steps {
                job.step(step).await;
                job.model.compare(&mut job.subtasks, job.handles);
            }
            let bytes = key_of(0);
            let mut ctx = Record { state: &mut job.subtasks[0].state, key: &bytes, time: None };
            assert_eq!(job.handles.map.entries(&mut ctx).unwrap(), [], "merged {merged:?}");
            assert_eq!(job.handles.value.take(&mut ctx).unwrap(), None, "merged {merged:?}");
        });
    }
}

/// Keys that come once and never again: the table holds about those that live.
#[test]
fn memory_follows_what_lives() {
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    let mut most = 0;
    for number in 0..20_000_u64 {
        let bytes = key(&format!("{number}"));
        state.advance(TimeDomain::EventTime, Timestamp(number as i64));
        if number % 50 == 0 {
            state.prepare(std::iter::empty()).unwrap();
            most = most.max(state.cell_count());
        }
        if number % 100 == 0 {
            state.flip(CheckpointId(number / 100 + 1));
            while state.drain(100).unwrap() > 0 {}
            state.take_sealed().unwrap();
        }
        let mut ctx = Record { state: &mut state, key: &bytes, time: None };
        handles.list.extend(&mut ctx, [1, 2, 3]).unwrap();
        handles.map.put(&mut ctx, &1, number).unwrap();
        handles.value.set(&mut ctx, number).unwrap();
    }
    // Five cells and elements for each of the ten keys that live, for those of the batch at hand and those that are to be drained,
    // and as many again.
    assert!(most <= 2 * 5 * (TTL as usize + 50 + 100), "{most} cells");
}

/// No step of dropping is long, however large a map is, and all of it goes.
#[test]
fn a_large_map_is_looked_over_in_steps() {
    const ENTRIES: u32 = 100_000;
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    state.advance(TimeDomain::EventTime, Timestamp(0));
    let bytes = key_of(0);
    for entry in 0..ENTRIES {
        handles.map.put(&mut Record { state: &mut state, key: &bytes, time: None }, &entry, 1).unwrap();
    }
    state.flip(CheckpointId(1));
    while state.drain(1000).unwrap() > 0 {}
    state.advance(TimeDomain::EventTime, Timestamp(TTL));
    state.prepare(std::iter::empty()).unwrap();
    assert_eq!(state.cell_count(), ENTRIES as usize, "nothing goes before what was flipped is taken");
    state.take_sealed().unwrap();
    let mut steps = 0;
    while state.cell_count() > 0 {
        let before = state.cell_count();
        state.prepare(std::iter::empty()).unwrap();
        assert!(before - state.cell_count() <= 4096, "a step of {}", before - state.cell_count());
        steps += 1;
        assert!(steps < 20_000, "{} are left", state.cell_count());
    }
}

/// Cells of several tables, a hand that has stopped amid a map, and flips that take their time: all that has expired goes.
#[test]
fn the_hand_waits_while_a_flip_is_drained() {
    const ENTRIES: u32 = 1000;
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    state.advance(TimeDomain::EventTime, Timestamp(0));
    for index in 0..ENTRIES {
        let bytes = key_of(index as usize);
        handles.value.set(&mut Record { state: &mut state, key: &bytes, time: None }, 1).unwrap();
        let bytes = key_of(0);
        handles.map.put(&mut Record { state: &mut state, key: &bytes, time: None }, &index, 1).unwrap();
    }
    state.flip(CheckpointId(1));
    while state.drain(1000).unwrap() > 0 {}
    state.take_sealed().unwrap();
    state.advance(TimeDomain::EventTime, Timestamp(TTL));
    let mut number = 1;
    // A table, a key group, a place in it and half a map: wherever the hand has come to, it goes on from there.
    while state.cell_count() > 1 {
        let bytes = key_of(0);
        handles.plain.set(&mut Record { state: &mut state, key: &bytes, time: None }, number).unwrap();
        number += 1;
        state.flip(CheckpointId(number));
        let before = state.cell_count();
        for _ in 0..3 {
            state.prepare(std::iter::empty()).unwrap();
        }
        assert_eq!(state.cell_count(), before, "nothing goes before what was flipped is taken");
        while state.drain(1000).unwrap() > 0 {}
        state.take_sealed().unwrap();
        state.prepare(std::iter::empty()).unwrap();
        assert!(number < 2 * u64::from(ENTRIES), "{} are left", state.cell_count());
    }
}

#[test]
fn a_record_without_event_time_cannot_write_what_expires_in_it() {
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    let bytes = key_of(0);
    let mut ctx = Record { state: &mut state, key: &bytes, time: None };
    assert_eq!(handles.value.take(&mut ctx).unwrap(), None);
    assert!(handles.list.get(&mut ctx).unwrap().is_empty());
    let error = handles.list.append(&mut ctx, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("no event time"), "{error}");
    ctx.time = Some(Timestamp(5));
    handles.list.append(&mut ctx, 1).unwrap();
    assert_eq!(handles.list.get(&mut ctx).unwrap(), [1]);
    // The last watermark says that nothing follows, and not that time has passed.
    state.advance(TimeDomain::EventTime, Timestamp::MAX);
    let mut ctx = Record { state: &mut state, key: &bytes, time: None };
    assert_eq!(handles.list.get(&mut ctx).unwrap(), [1]);
}

#[test]
fn a_ttl_of_nothing_is_refused() {
    for too_short in [Duration::ZERO, Duration::from_micros(999)] {
        let mut states = StateDeclarations::new();
        states.expiring(Ttl::event_time(too_short)).value::<u64>("seen");
        let error = states.finish().map(drop).unwrap_err();
        assert!(error.to_string().contains(&format!("a ttl of {too_short:?}")), "{error}");
    }
}
