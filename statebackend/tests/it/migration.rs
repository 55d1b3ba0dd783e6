//! States whose values were stored as an older type: whatever had come before (deletes, merges, any store, any parallelism), what
//! is restored is what a twin has that had the new type all along, to the digest; and so it stays through changes, merges and
//! restores after that. What cannot be migrated changes nothing.

use std::sync::Arc;

use env::{Env, Store};
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Deserialize, Serialize};
use statebackend::{
    Action, Aggregate, AggregatingState, Data, Declared, Expected, KeyRef, ListState, MapState, Migration,
    ReducingState, Rewriting, RunCompression, RunSet, StateDeclarations, StateSummary, ValueState,
    check_compatible, copy_canonical, merge, plan_migration, summarize, verify_run,
};
use types::{
    Bincode, CheckpointId, Codec, Error, ErrorKind, ExpiryClocks, ExpiryTimes, Result, Run, SubtaskIndex,
    Timestamp, Uid,
};

use crate::fixture::{Behind, Context, MAX, Subtask, identity, key, simulated, with_and_without_store};

const KEYS: usize = 6;

/// A type that holds an amount, in one version or another.
trait Money: Data + Sync {
    fn of(amount: u32) -> Self;
    fn plus(self, other: Self) -> Self;
}

macro_rules! version {
    ($name:ident { $($field:ident: $type:ty = $of:expr),* }, $first:ident) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct $name {
            $($field: $type),*
        }

        impl Money for $name {
            fn of(amount: u32) -> Self {
                $(let $field: fn(u32) -> $type = $of;)*
                Self { $($field: $field(amount)),* }
            }

            fn plus(mut self, other: Self) -> Self {
                self.$first += other.$first;
                self
            }
        }
    };
}

version!(V1 { euros: u32 = |amount| amount }, euros);
version!(V2 { cents: u64 = |amount| u64::from(amount) * 100 }, cents);
version!(V3 { note: String = |_| "eur".to_owned(), cents: u64 = |amount| u64::from(amount) * 100 }, cents);

fn first(old: V1) -> Result<V2> {
    Ok(V2 { cents: u64::from(old.euros) * 100 })
}

fn second(old: V2) -> Result<V3> {
    Ok(V3 { note: "eur".to_owned(), cents: old.cents })
}

/// What is added up.
#[derive(Clone, Copy)]
struct Total<T>(std::marker::PhantomData<fn() -> T>);

impl<T> Total<T> {
    fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: Money> Aggregate for Total<T> {
    type In = u32;
    type Accumulator = T;
    type Out = T;

    fn create(&self) -> T {
        T::of(0)
    }

    fn add(&self, accumulator: &mut T, amount: u32) {
        *accumulator = accumulator.clone().plus(T::of(amount));
    }

    fn result(&self, accumulator: &T) -> T {
        accumulator.clone()
    }

    fn merge(&self, accumulator: &mut T, other: T) {
        *accumulator = accumulator.clone().plus(other);
    }
}

#[derive(Clone)]
struct Handles<T: Money> {
    value: ValueState<T>,
    list: ListState<T>,
    map: MapState<u32, T>,
    sum: ReducingState<T>,
    total: AggregatingState<Total<T>>,
    /// Never changes its type.
    plain: ValueState<u64>,
}

fn new_states() -> StateDeclarations {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    states
}

/// As if there had been no other version.
fn declare<T: Money>() -> (Declared, Handles<T>) {
    let mut states = new_states();
    let handles = Handles {
        value: states.value("value"),
        list: states.list("list"),
        map: states.map("map"),
        sum: states.reducing("sum", T::plus),
        total: states.aggregating("total", Total::new()),
        plain: states.value("plain"),
    };
    (states.finish().unwrap(), handles)
}

/// From either older version.
fn declare_migrating() -> (Declared, Handles<V3>) {
    let mut states = new_states();
    let handles = Handles {
        value: states.migrating(first).then(second).value("value"),
        list: states.migrating(first).then(second).list("list"),
        map: states.migrating(first).then(second).map("map"),
        sum: states.migrating_by(Migration::from(first).then(second)).reducing("sum", V3::plus),
        total: states.migrating(first).then(second).aggregating("total", Total::new()),
        plain: states.value("plain"),
    };
    (states.finish().unwrap(), handles)
}

#[derive(Clone, Debug)]
enum Change {
    Set(u32),
    Unset,
    Append(u32),
    ReplaceList(u32),
    ClearList,
    Put(u32, u32),
    Remove(u32),
    ClearMap,
    Add(u32),
    Aggregate(u32),
    ClearSums,
    SetPlain(u64),
    Timer(i64),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..1000_u32).prop_map(Change::Set),
        2 => Just(Change::Unset),
        5 => (0..1000_u32).prop_map(Change::Append),
        1 => (0..1000_u32).prop_map(Change::ReplaceList),
        1 => Just(Change::ClearList),
        5 => (0..6_u32, 0..1000_u32).prop_map(|(sub, amount)| Change::Put(sub, amount)),
        2 => (0..6_u32).prop_map(Change::Remove),
        1 => Just(Change::ClearMap),
        2 => (0..99_u32).prop_map(Change::Add),
        2 => (0..99_u32).prop_map(Change::Aggregate),
        1 => Just(Change::ClearSums),
        1 => any::<u64>().prop_map(Change::SetPlain),
        1 => (0..9_i64).prop_map(Change::Timer),
    ]
}

/// What happens between two barriers, and which runs are merged then.
type Interval = (Vec<(usize, Change)>, Option<(usize, usize)>);

#[derive(Clone, Debug)]
struct Life {
    before: Vec<Interval>,
    after: Vec<Interval>,
    /// The parallelism before, at the migration, and at a restore after it.
    parallelism: [u32; 3],
}

fn lives() -> impl Strategy<Value = Life> {
    let interval = || {
        let merges = prop::option::weighted(0.4, (0..4_usize, 2..4_usize));
        (prop::collection::vec((0..KEYS, changes()), 1..16), merges)
    };
    let before = prop::collection::vec(interval(), 5..8);
    let after = prop::collection::vec(interval(), 1..4);
    (before, after, prop::array::uniform3(1..4_u32)).prop_map(|(before, after, parallelism)| Life {
        before,
        after,
        parallelism,
    })
}

struct Job<T: Money> {
    env: Env,
    store: Arc<dyn Store>,
    handles: Handles<T>,
    subtasks: Vec<Subtask>,
    next: CheckpointId,
    files: u64,
}

impl<T: Money> Job<T> {
    async fn restored(
        (env, store): (&Env, &Arc<dyn Store>),
        (declared, handles): (Declared, Handles<T>),
        behind: &Behind,
        parallelism: u32,
        (runs, next, mut files): (&[Run], CheckpointId, u64),
    ) -> Self {
        let mut subtasks = Vec::new();
        for index in 0..parallelism {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let mut subtask = Subtask::of(declared.clone(), behind, groups, index, next);
            subtask.next_run = 1000 * (next.0 + 1);
            files += 1;
            let runs = migrated(env, &**store, runs, &subtask, &format!("runs/migrated-{files}.run")).await;
            subtask.restore(env, &**store, &runs.unwrap()).await.unwrap();
            subtasks.push(subtask);
        }
        Self { env: env.clone(), store: store.clone(), handles, subtasks, next, files }
    }

    fn runs(&self) -> Vec<Run> {
        self.subtasks.iter().flat_map(|subtask| subtask.runs.iter().cloned()).collect()
    }

    fn change(&mut self, index: usize, change: &Change) {
        let bytes = key(&format!("key-{index}"));
        let reference = KeyRef::new(&bytes, MAX);
        let owner = self.subtasks.iter_mut().find(|it| it.groups.contains(reference.group)).unwrap();
        let mut ctx = Context { state: &mut owner.state, key: &bytes };
        let Handles { value, list, map, sum, total, plain } = &self.handles;
        match *change {
            Change::Set(amount) => value.set(&mut ctx, T::of(amount)).unwrap(),
            Change::Unset => value.clear(&mut ctx).unwrap(),
            Change::Append(amount) => list.append(&mut ctx, T::of(amount)).unwrap(),
            Change::ReplaceList(amount) => {
                list.replace(&mut ctx, [T::of(amount), T::of(amount + 1)]).unwrap();
            }
            Change::ClearList => list.clear(&mut ctx).unwrap(),
            Change::Put(sub, amount) => drop(map.put(&mut ctx, &sub, T::of(amount)).unwrap()),
            Change::Remove(sub) => drop(map.remove(&mut ctx, &sub).unwrap()),
            Change::ClearMap => map.clear(&mut ctx).unwrap(),
            Change::Add(amount) => sum.add(&mut ctx, T::of(amount)).unwrap(),
            Change::Aggregate(amount) => total.add(&mut ctx, amount).unwrap(),
            Change::ClearSums => {
                sum.clear(&mut ctx).unwrap();
                total.clear(&mut ctx).unwrap();
            }
            Change::SetPlain(number) => plain.set(&mut ctx, number).unwrap(),
            Change::Timer(at) => owner.state.register_event_timer(reference, Timestamp(at)),
        }
    }

    async fn live(&mut self, intervals: &[Interval]) {
        for (changes, merges) in intervals {
            changes.iter().for_each(|(index, change)| self.change(*index, change));
            for subtask in &mut self.subtasks {
                subtask.state.flip(self.next);
                subtask.seal(&*self.store, 3).await;
            }
            self.next = self.next.next();
            if let Some((start, len)) = *merges {
                for index in 0..self.subtasks.len() {
                    if start + len <= self.subtasks[index].runs.len() {
                        self.merge(index, start..start + len).await;
                    }
                }
            }
        }
    }

    async fn merge(&mut self, index: usize, range: std::ops::Range<usize>) {
        self.files += 1;
        let path = format!("runs/merged-{}.run", self.files);
        let subtask = &mut self.subtasks[index];
        let identity = subtask.next_identity();
        let (env, store, none) = (&self.env, &*self.store, ExpiryClocks::default());
        let neighbours = RunSet::new(&subtask.runs[range.clone()], &none);
        let (oldest, zstd) = (range.start == 0, RunCompression::Zstd);
        let merged = merge(env, store, neighbours, oldest, identity, &path, zstd).await.unwrap();
        verify_run(env, store, &merged, true).await.unwrap();
        subtask.runs.splice(range, [merged]);
    }

    /// The canonical form of what the runs hold.
    async fn canonical(&self) -> StateSummary {
        let (mut all, none) = (StateSummary::default(), ExpiryClocks::default());
        for subtask in self.subtasks.iter().filter(|subtask| !subtask.runs.is_empty()) {
            let (env, store) = (&self.env, &*self.store);
            let of = RunSet::new(&subtask.runs, &none);
            let (to, compression) = ("canonical", RunCompression::Zstd);
            let copied = copy_canonical(env, store, of, store, to, identity(0, 1), compression).await;
            let (run, summary) = copied.unwrap();
            verify_run(env, store, &run, true).await.unwrap();
            assert_eq!(summarize(env, store, of).await.unwrap(), summary);
            store.delete("canonical").await.unwrap();
            all.add(&summary);
        }
        all
    }

    /// What the handles show, key by key.
    fn shown(&mut self) -> Vec<Vec<u8>> {
        let of = |index: usize| {
            let bytes = key(&format!("key-{index}"));
            let group = KeyRef::new(&bytes, MAX).group;
            let owner = self.subtasks.iter_mut().find(|it| it.groups.contains(group)).unwrap();
            let ctx = &mut Context { state: &mut owner.state, key: &bytes };
            let Handles { value, list, map, sum, total, plain } = &self.handles;
            let (value, list, map) =
                (value.get(ctx).unwrap(), list.get(ctx).unwrap(), map.entries(ctx).unwrap());
            encoded(&(
                value,
                list,
                map,
                sum.get(ctx).unwrap(),
                total.get(ctx).unwrap(),
                plain.get(ctx).unwrap(),
            ))
        };
        (0..KEYS).map(of).collect()
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    Bincode::encode(value, &mut bytes).unwrap();
    bytes
}

/// The runs that `subtask` restores.
pub(crate) async fn migrated(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    subtask: &Subtask,
    path: &str,
) -> Result<Vec<Run>> {
    match plan_migration(store, runs, subtask.state.declared(), subtask.groups).await? {
        None => Ok(runs.to_vec()),
        Some(plan) => {
            let how = Rewriting {
                clocks: &ExpiryClocks::default(),
                now: ExpiryTimes::BEGINNING,
                identity: identity(subtask.index, 0),
                path,
                compression: RunCompression::Zstd,
                call: |call| call(),
            };
            plan.rewrite(env, store, how).await
        }
    }
}

/// Lives as `A` and then as `V3`; returns the canonical forms at the migration's restore and at the end, and what shows then.
fn live<A: Money>(
    life: &Life,
    behind: &Behind,
    declared: (Declared, Handles<A>),
    then: (Declared, Handles<V3>),
) -> (Vec<StateSummary>, Vec<Vec<Vec<u8>>>) {
    simulated(1, async |env, store| {
        let [first, second, third] = life.parallelism;
        let world = (&env, &store);
        let mut job = Job::restored(world, declared, behind, first, (&[], CheckpointId(1), 0)).await;
        job.live(&life.before).await;
        let runs = job.runs();
        let stored = (&runs[..], job.next, job.files);
        let mut job = Job::restored(world, then.clone(), behind, second, stored).await;
        let mut summaries = vec![job.canonical().await];
        let mut shown = vec![job.shown()];
        job.live(&life.after).await;
        summaries.push(job.canonical().await);
        shown.push(job.shown());
        // From now on all of it is as it is declared.
        let (declared, _) = declare::<V3>();
        for run in job.runs() {
            assert!(plan_migration(&*store, &[run], &declared, MAX.all()).await.unwrap().is_none());
        }
        let runs = job.runs();
        let stored = (&runs[..], job.next, job.files);
        let mut job = Job::restored(world, then, behind, third, stored).await;
        summaries.push(job.canonical().await);
        shown.push(job.shown());
        (summaries, shown)
    })
}

#[test]
fn it_is_as_if_the_type_had_always_been_the_new_one() {
    for (name, behind) in with_and_without_store(7) {
        let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
        runner
            .run(&lives(), |life| {
                let twin = live(&life, &Behind::Nothing, declare::<V3>(), declare::<V3>());
                let one = live(&life, &behind, declare::<V2>(), declare_migrating());
                prop_assert_eq!(&one, &twin, "from the newer type, behind {}", name);
                let two = live(&life, &behind, declare::<V1>(), declare_migrating());
                prop_assert_eq!(&two, &twin, "from the oldest type, behind {}", name);
                Ok(())
            })
            .unwrap();
    }
}

/// A job of one key, `b` among others, with a value state; and its runs.
async fn amounts<T: Money>(store: &Arc<dyn Store>, amounts: &[(&str, u32)]) -> Vec<Run> {
    let mut states = new_states();
    let value = states.value::<T>("value");
    let declared = states.finish().unwrap();
    let mut subtask = Subtask::of(declared, &Behind::Nothing, MAX.all(), 0, CheckpointId(1));
    for (name, amount) in amounts {
        let bytes = key(name);
        value.set(&mut Context { state: &mut subtask.state, key: &bytes }, T::of(*amount)).unwrap();
    }
    subtask.state.flip(CheckpointId(1));
    subtask.seal(&**store, 9).await;
    subtask.runs
}

/// Restores `runs` with a value state that is migrated from `O` by `step`.
async fn restored<O: Data>(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    step: impl Fn(O) -> Result<V2> + Send + Sync + 'static,
) -> Result<Vec<Run>> {
    let mut states = new_states();
    states.migrating(step).value("value");
    let subtask = Subtask::of(states.finish().unwrap(), &Behind::Nothing, MAX.all(), 0, CheckpointId(2));
    migrated(env, store, runs, &subtask, "runs/migrated.run").await
}

/// Looks like the oldest version and stores another amount.
#[derive(Clone, Deserialize)]
#[serde(rename = "V1")]
struct Shifting {
    euros: u32,
}

impl Serialize for Shifting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        V1 { euros: self.euros + 1 }.serialize(serializer)
    }
}

/// Looks like it and does not take all amounts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "V1")]
struct Picky {
    #[serde(deserialize_with = "not_seven")]
    euros: u32,
}

fn not_seven<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        7 => Err(serde::de::Error::custom("seven is not taken")),
        other => Ok(other),
    }
}

#[test]
fn a_migration_that_fails_names_state_and_key_and_changes_nothing() {
    simulated(1, async |env, store| {
        let runs = amounts::<V1>(&store, &[("a", 1), ("b", 7), ("c", 2)]).await;
        let files = store.list("").await.unwrap();
        let fails = |old: V1| match old.euros {
            7 => Err(Error::retryable("no such currency any more")),
            _ => first(old),
        };
        let failed: [(Result<Vec<Run>>, &str); 3] = [
            (restored(&env, &*store, &runs, fails).await, "no such currency any more"),
            (restored(&env, &*store, &runs, |_: Shifting| Ok(V2::of(1))).await, "does not come out"),
            (restored(&env, &*store, &runs, |_: Picky| Ok(V2::of(1))).await, "seven is not taken"),
        ];
        for (failed, why) in failed {
            let error = failed.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IncompatibleState, "{error}");
            for part in ["state \"value\"", why, "nothing was changed"] {
                assert!(error.message().contains(part), "{part}: {error}");
            }
        }
        let error = restored(&env, &*store, &runs, fails).await.unwrap_err();
        assert!(error.message().contains("key \"b\""), "{error}");
        assert_eq!(store.list("").await.unwrap(), files, "a file is left");
        let migrated = restored(&env, &*store, &runs, first).await.unwrap();
        assert_eq!(migrated.iter().map(|run| run.entries).collect::<Vec<_>>(), [3]);
    });
}

#[test]
fn what_is_stored_as_another_type_is_refused_with_all_that_were_expected() {
    simulated(1, async |env, store| {
        let runs = amounts::<V3>(&store, &[("a", 1)]).await;
        let error = restored(&env, &*store, &runs, first).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IncompatibleState);
        for part in ["operator count", "state \"value\"", "V2", "V3", "euros", "register a migration"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        // The newest version needs nothing.
        let runs = amounts::<V2>(&store, &[("a", 1)]).await;
        assert_eq!(restored(&env, &*store, &runs, first).await.unwrap(), runs);
    });
}

/// Runs of which nothing counts any more are not listed; others are, without the state.
#[test]
fn only_runs_that_hold_something_else_stay() {
    simulated(1, async |env, store| {
        let (declared, handles) = declare::<V1>();
        let world = (&env, &store);
        let fresh: (&[Run], _, _) = (&[], CheckpointId(1), 0);
        let mut job = Job::restored(world, (declared, handles), &Behind::Nothing, 1, fresh).await;
        job.live(&[
            (vec![(0, Change::Set(1))], None),
            (vec![(0, Change::Set(2)), (1, Change::SetPlain(5))], None),
        ])
        .await;
        let runs = job.runs();
        let subtask = Subtask::of(declare_migrating().0, &Behind::Nothing, MAX.all(), 0, CheckpointId(9));
        let listed = migrated(&env, &*store, &runs, &subtask, "runs/migrated.run").await.unwrap();
        let [left, new] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(left.file, runs[1].file);
        assert_eq!(left.without, ["list", "map", "sum", "total", "value"]);
        assert_eq!((new.entries, new.identity.number), (1, 0));
        assert_eq!(new.without, [""; 0]);
    });
}

#[test]
fn each_state_is_said_to_be_restored_or_migrated() {
    let operator = Uid::new("count").unwrap();
    let (declared, _) = declare_migrating();
    let (states, migrations) = (declared.descriptions(), declared.migrations());
    let expected = Expected { states: &states, migrations: &migrations, may_drop: false };
    let of = |found: &Declared| check_compatible(&operator, expected, &found.descriptions()).unwrap();
    let is_migrated = |action: &Action| matches!(action, Action::Migrate(name, _) if name != "plain");
    assert_eq!(of(&declare::<V1>().0).iter().filter(|it| is_migrated(it)).count(), 5);
    assert_eq!(of(&declare::<V2>().0).iter().filter(|it| is_migrated(it)).count(), 5);
    assert!(of(&declare::<V3>().0).iter().all(|it| matches!(it, Action::Restore(_))));
    let actions = of(&declare::<V1>().0);
    let Some(Action::Migrate(_, change)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(change, "from struct V1 { euros: u32 } to struct V3 { note: str, cents: u64 }");
    // Keys of maps cannot be.
    let mut stored = new_states();
    stored.map::<u64, V1>("map");
    let error = check_compatible(&operator, expected, &stored.finish().unwrap().descriptions()).unwrap_err();
    for part in ["operator count", "\"map\", map key", "keys cannot be migrated", "another name"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

#[test]
fn types_that_look_alike_are_refused_where_they_are_declared() {
    let mut states = new_states();
    states.migrating(|old: V2| Ok(V2 { cents: old.cents * 100 })).list("lines");
    let error = states.finish().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    for part in ["\"lines\"", "look alike", "cents"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
}
