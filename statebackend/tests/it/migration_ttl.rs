//! States that get, lose or change a time to live between a snapshot and the program that restores it: values live on from the
//! time of the restore, or for ever; what had expired stays away. Written with the snapshot's clocks, whoever restores, at any
//! parallelism and on any store.

use std::{sync::Arc, time::Duration};

use env::{Env, Store};
use statebackend::{
    Declared, Expected, Expiring, KeyRef, KeyedContext, KeyedState, ListState, MapState, Rewriting,
    RunCompression, RunSet, StateDeclarations, StateSummary, Ttl, ValueState, check_compatible,
    plan_migration, summarize,
};
use types::{CheckpointId, ErrorKind, ExpiryClocks, ExpiryTimes, Result, Run, SubtaskIndex, Timestamp, Uid};

use crate::fixture::{Behind, MAX, Subtask, identity, key, simulated, with_and_without_store};

const KEYS: u64 = 20;

/// A context whose key and record are set by hand.
struct Record<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
}

impl KeyedContext for Record<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }

    fn event_time(&self) -> Option<Timestamp> {
        None
    }
}

/// The handles of three states, with a time to live or without.
enum Handles {
    Plain(ValueState<u64>, ListState<u64>, MapState<u32, u64>),
    Expiring(Expiring<ValueState<u64>>, Expiring<ListState<u64>>, Expiring<MapState<u32, u64>>),
    /// The same, of values that were numbers.
    Text(Expiring<ValueState<String>>, Expiring<ListState<String>>, Expiring<MapState<u32, String>>),
}

fn text(number: u64) -> Result<String> {
    Ok(format!("no. {number}"))
}

fn declare(ttl: Option<Ttl>, as_text: bool) -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles = match ttl {
        None => Handles::Plain(states.value("value"), states.list("list"), states.map("map")),
        Some(ttl) if as_text => {
            let mut states = states.expiring(ttl);
            Handles::Text(
                states.migrating(text).value("value"),
                states.migrating(text).list("list"),
                states.migrating(text).map("map"),
            )
        }
        Some(ttl) => {
            let mut states = states.expiring(ttl);
            Handles::Expiring(states.value("value"), states.list("list"), states.map("map"))
        }
    };
    (states.finish().unwrap(), handles)
}

impl Handles {
    fn write(&self, ctx: &mut Record<'_>, number: u64) {
        match self {
            Self::Plain(value, list, map) => {
                value.set(ctx, number).unwrap();
                list.append(ctx, number).unwrap();
                map.put(ctx, &1, number).unwrap();
            }
            Self::Expiring(value, list, map) => {
                value.set(ctx, number).unwrap();
                list.append(ctx, number).unwrap();
                map.put(ctx, &1, number).unwrap();
            }
            Self::Text(..) => panic!("only restored"),
        }
    }

    /// How much shows of a key.
    fn shown(&self, ctx: &mut Record<'_>) -> usize {
        match self {
            Self::Plain(value, list, map) => {
                let value = value.get(ctx).unwrap();
                usize::from(value.is_some()) + list.get(ctx).unwrap().len() + map.entries(ctx).unwrap().len()
            }
            Self::Expiring(value, list, map) => {
                let value = value.get(ctx).unwrap();
                usize::from(value.is_some()) + list.get(ctx).unwrap().len() + map.entries(ctx).unwrap().len()
            }
            Self::Text(value, list, map) => {
                let (value, list) = (value.get(ctx).unwrap(), list.get(ctx).unwrap());
                let texts = value.iter().chain(&list);
                assert!(texts.into_iter().all(|text| text.starts_with("no. ")));
                usize::from(value.is_some()) + list.len() + map.entries(ctx).unwrap().len()
            }
        }
    }
}

fn key_of(number: u64) -> Vec<u8> {
    key(&format!("key-{number}"))
}

fn both(time: i64) -> ExpiryTimes {
    ExpiryTimes { event: Timestamp(time), processing: Timestamp(time) }
}

fn advance(state: &mut KeyedState, time: i64) {
    for domain in [types::TimeDomain::EventTime, types::TimeDomain::ProcessingTime] {
        state.advance(domain, Timestamp(time));
    }
}

/// Writes a key at each of the times from 0 on, in several runs; the runs and the clocks at `cut`.
async fn written(store: &dyn Store, ttl: Option<Ttl>, cut: i64) -> (Vec<Run>, ExpiryClocks) {
    let (declared, handles) = declare(ttl, false);
    let mut subtask = Subtask::of(declared, &Behind::Nothing, MAX.all(), 0, CheckpointId(1));
    for number in 0..KEYS {
        advance(&mut subtask.state, number as i64);
        handles.write(&mut Record { state: &mut subtask.state, key: &key_of(number) }, number);
        if number % 4 == 3 {
            subtask.state.flip(CheckpointId(number + 1));
            subtask.seal(store, 5).await;
        }
    }
    advance(&mut subtask.state, cut);
    let clocks = subtask.state.expiry_clocks().unwrap_or_default();
    (subtask.runs, clocks)
}

/// The subtasks that restore what was written, at a time.
async fn restored(
    (env, store): (&Env, &Arc<dyn Store>),
    (runs, clocks): &(Vec<Run>, ExpiryClocks),
    (ttl, as_text): (Option<Ttl>, bool),
    (behind, parallelism): (&Behind, u32),
    now: ExpiryTimes,
) -> Result<(Vec<Subtask>, Handles)> {
    let (declared, handles) = declare(ttl, as_text);
    let mut subtasks = Vec::new();
    for index in 0..parallelism {
        let groups = MAX.range(SubtaskIndex(index), parallelism);
        let mut subtask = Subtask::of(declared.clone(), behind, groups, index, CheckpointId(100));
        subtask.next_run = 1000;
        subtask.state.restore_expiry_clocks(clocks);
        let mut runs = runs.clone();
        if let Some(plan) = plan_migration(&**store, &runs, &declared, groups).await? {
            let path = format!("runs/migrated-{index}.run");
            store.delete(&path).await?;
            let (identity, compression) = (identity(index, 0), RunCompression::Zstd);
            let how = Rewriting { clocks, now, identity, path: &path, compression, call: |call| call() };
            runs = plan.rewrite(env, &**store, how).await?;
        }
        subtask.restore(env, &**store, &runs).await?;
        subtasks.push(subtask);
    }
    Ok((subtasks, handles))
}

/// The keys that show, each with all that was written of it.
fn shown((subtasks, handles): &mut (Vec<Subtask>, Handles), time: i64) -> Vec<u64> {
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let bytes = key_of(number);
        let group = KeyRef::new(&bytes, MAX).group;
        let owner = subtasks.iter_mut().find(|it| it.groups.contains(group)).unwrap();
        advance(&mut owner.state, time);
        match handles.shown(&mut Record { state: &mut owner.state, key: &bytes }) {
            0 => {}
            3 => keys.push(number),
            other => panic!("{other} of 3 parts of key {number} show at {time}"),
        }
    }
    keys
}

async fn digest(env: &Env, store: &dyn Store, subtasks: &[Subtask]) -> StateSummary {
    let (mut all, none) = (StateSummary::default(), ExpiryClocks::default());
    for subtask in subtasks.iter().filter(|subtask| !subtask.runs.is_empty()) {
        all.add(&summarize(env, store, RunSet::new(&subtask.runs, &none)).await.unwrap());
    }
    all
}

const fn event(millis: u64) -> Option<Ttl> {
    Some(Ttl::event_time(Duration::from_millis(millis)))
}

const fn processing(millis: u64) -> Option<Ttl> {
    Some(Ttl::processing_time(Duration::from_millis(millis)))
}

/// How it was stored and when, how it is restored and when, and from when on how many of the keys show.
type Case = ((Option<Ttl>, i64), (Option<Ttl>, bool, i64), &'static [(i64, std::ops::Range<u64>)]);

const CASES: &[Case] = &[
    // It gets one: all live from the restore on, whenever they were written.
    ((None, 19), (event(10), false, 30), &[(30, 0..20), (39, 0..20), (40, 0..0)]),
    ((None, 19), (processing(10), false, 30), &[(39, 0..20), (40, 0..0)]),
    // It loses one: what lived at the snapshot lives for ever, and the rest stays away.
    ((event(10), 19), (None, false, 30), &[(19, 10..20), (1_000_000, 10..20)]),
    ((processing(10), 24), (None, false, 30), &[(1_000_000, 15..20)]),
    // Another time: what lived lives on from the restore on.
    ((event(10), 24), (processing(5), false, 30), &[(34, 15..20), (35, 0..0)]),
    ((processing(10), 24), (event(5), false, 30), &[(34, 15..20), (35, 0..0)]),
    // Another duration changes what is written from then on.
    ((event(10), 19), (event(1000), false, 30), &[(19, 10..20), (24, 15..20), (29, 0..0)]),
    ((processing(10), 19), (processing(2), false, 30), &[(24, 15..20), (29, 0..0)]),
    // Another type: deadlines stay, or are made.
    ((event(10), 19), (event(10), true, 30), &[(19, 10..20), (24, 15..20), (29, 0..0)]),
    ((None, 19), (event(10), true, 30), &[(39, 0..20), (40, 0..0)]),
    ((processing(10), 24), (event(5), true, 30), &[(34, 15..20), (35, 0..0)]),
];

#[test]
fn values_live_on_from_the_restore_and_what_had_expired_stays_away() {
    for (name, behind) in with_and_without_store(9) {
        for ((stored, cut), (wanted, as_text, now), expected) in CASES {
            let mut digests = Vec::new();
            for parallelism in [1, 3, 4] {
                digests.push(simulated(1, async |env, store| {
                    let written = written(&*store, *stored, *cut).await;
                    let world = (&env, &store);
                    let how = (*wanted, *as_text);
                    let restored = restored(world, &written, how, (&behind, parallelism), both(*now)).await;
                    let mut restored = restored.unwrap();
                    for (time, keys) in *expected {
                        let found = shown(&mut restored, *time);
                        let place = format!("{name}, {stored:?} to {wanted:?}, {parallelism} at {time}");
                        assert_eq!(found, keys.clone().collect::<Vec<_>>(), "{place}");
                    }
                    digest(&env, &*store, &restored.0).await
                }));
            }
            assert!(digests.windows(2).all(|two| two[0] == two[1]), "{name}: it depends on the parallelism");
        }
    }
}

#[test]
fn a_clock_that_is_ahead_of_the_restore_counts() {
    simulated(1, async |env, store| {
        // Stored in processing time up to 24; restored in the same, by a machine whose clock is slow, as another type.
        let written = written(&*store, event(10), 24).await;
        let how = ((processing(5), false), (&Behind::Nothing, 2), both(3));
        let mut restored = restored((&env, &store), &written, how.0, how.1, how.2).await.unwrap();
        // The snapshot's own clock of that time had come to 24.
        assert_eq!(shown(&mut restored, 28), [15, 16, 17, 18, 19]);
        assert_eq!(shown(&mut restored, 29), [0; 0]);
    });
}

#[test]
fn without_an_event_time_there_is_none_to_live_on_from() {
    simulated(1, async |env, store| {
        let written = written(&*store, None, 19).await;
        let now = ExpiryTimes { event: Timestamp::MIN, processing: Timestamp(30) };
        let world = (&env, &store);
        let failed = restored(world, &written, (event(10), false), (&Behind::Nothing, 1), now).await;
        let error = failed.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::IncompatibleState);
        for part in ["\"list\"", "event-time ttl", "processing-time ttl"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        restored(world, &written, (processing(10), false), (&Behind::Nothing, 1), now).await.unwrap();
    });
}

#[test]
fn each_change_is_told() {
    let operator = Uid::new("count").unwrap();
    let ways = [None, event(10), event(20), processing(10)];
    let words = |ttl: &Option<Ttl>| match ttl {
        None => "",
        Some(ttl) if *ttl == Ttl::processing_time(Duration::from_millis(10)) => "processing-time ttl",
        Some(_) => "event-time ttl",
    };
    for stored in &ways {
        for wanted in &ways {
            let (stored_as, wanted_as) = (declare(*stored, false).0, declare(*wanted, false).0);
            let (states, migrations) = (wanted_as.descriptions(), wanted_as.migrations());
            let expected = Expected { states: &states, migrations: &migrations, may_drop: false };
            let actions = check_compatible(&operator, expected, &stored_as.descriptions()).unwrap();
            let change = match (words(stored), words(wanted)) {
                (before, now) if before == now => None,
                ("", now) => Some(format!("gets {now}")),
                (before, "") => Some(format!("loses its {before}")),
                (before, now) => Some(format!("gets {now} for its {before}")),
            };
            for action in actions {
                let told = match action {
                    statebackend::Action::Restore(_) => None,
                    statebackend::Action::Migrate(_, change) => Some(change),
                    other => panic!("{other:?}"),
                };
                assert_eq!(told, change);
            }
        }
    }
}
