//! Snapshots of a job with a state of each kind, whose content follows from a model: how it came about, at which parallelism
//! and in how many runs, must not be seen.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::{history::CheckpointKind, manifest::Redistribution};
use serde::{Deserialize, Serialize};
use statebackend::{
    Aggregate, AggregatingState, ListState, MapState, ReducingState, StateDeclarations, ValueState,
};
use tempfile::TempDir;

use crate::job::{Context, Job, Keyed, Place, really};

pub(crate) const MAX: u16 = 16;

/// A key of several parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) user: String,
    pub(crate) day: u32,
}

/// What there is, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) totals: BTreeMap<String, i64>,
    pub(crate) lines: BTreeMap<String, Vec<String>>,
    pub(crate) by_hour: BTreeMap<String, BTreeMap<u32, f64>>,
    pub(crate) timers: BTreeMap<String, BTreeSet<i64>>,
    pub(crate) visits: BTreeMap<Visit, Option<u64>>,
    /// Operator list state.
    pub(crate) offsets: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Handles {
    total: ValueState<i64>,
    longest: ReducingState<String>,
    sum: AggregatingState<Sum>,
    lines: ListState<String>,
    by_hour: MapState<u32, f64>,
    visits: ValueState<Option<u64>>,
}

#[derive(Clone, Copy)]
struct Sum;

impl Aggregate for Sum {
    type In = i64;
    type Accumulator = (i64, u32);
    type Out = i64;

    fn create(&self) -> (i64, u32) {
        (0, 0)
    }

    fn add(&self, (sum, count): &mut (i64, u32), number: i64) {
        *sum += number;
        *count += 1;
    }

    fn result(&self, (sum, _): &(i64, u32)) -> i64 {
        *sum
    }

    fn merge(&self, (sum, count): &mut (i64, u32), other: (i64, u32)) {
        *sum += other.0;
        *count += other.1;
    }
}

fn declare() -> (Vec<Keyed>, Handles) {
    let mut shop = StateDeclarations::new();
    shop.key::<String>();
    let (total, lines, by_hour) = (shop.value("total"), shop.list("lines"), shop.map("by-hour"));
    let (longest, sum) = (
        shop.reducing("longest", |a: String, b| if b.len() > a.len() { b } else { a }),
        shop.aggregating("sum", Sum),
    );
    let mut visit = StateDeclarations::new();
    visit.key::<Visit>();
    let visits = visit.value("visits");
    let keyed = |uid, states: StateDeclarations| Keyed { uid, declared: states.finish().unwrap() };
    (
        vec![keyed("shop", shop), keyed("visit", visit)],
        Handles { total, longest, sum, lines, by_hour, visits },
    )
}

/// A folder with snapshots.
pub(crate) struct Shop {
    pub(crate) folder: TempDir,
}

impl Shop {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Makes the checkpoint directory `name` with one checkpoint for each model, the last of which is copied to the savepoint
    /// `name-sp`.
    pub(crate) fn make(&self, name: &str, parallelism: u32, models: &[Model]) {
        let (url, savepoint) = (self.folder.path().join(name), self.folder.path().join(format!("{name}-sp")));
        really(async |env| {
            let (operators, handles) = declare();
            let place = Place { url: url.to_str().unwrap(), max: MAX, parallelism };
            let mut job = Job::start(&env, &place, operators).await.unwrap();
            let (mut before, mut newest) = (Model::default(), None);
            for model in models {
                change(&mut job, handles, &before, model);
                newest = Some(job.checkpoint(CheckpointKind::Ordinary).await.unwrap());
                before = model.clone();
            }
            job.savepoint(&newest.unwrap(), savepoint.to_str().unwrap()).await.unwrap();
            job.stop().await.unwrap();
        });
    }
}

/// All keys of either.
fn keys<'a, K: Ord, V>(before: &'a BTreeMap<K, V>, after: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    before.keys().chain(after.keys()).collect()
}

/// Makes the job's state that of `after`.
fn change(job: &mut Job, handles: Handles, before: &Model, after: &Model) {
    for key in keys(&before.totals, &after.totals) {
        job.with("shop", key, |context| {
            total(context, handles, before.totals.get(key), after.totals.get(key))
        });
    }
    for key in keys(&before.lines, &after.lines) {
        let (old, new) = (before.lines.get(key), after.lines.get(key));
        let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.map_or(&[][..], Vec::as_slice));
        job.with("shop", key, |context| match new.strip_prefix(old) {
            Some(more) => handles.lines.extend(context, more.iter().cloned()).unwrap(),
            None => {
                handles.lines.clear(context).unwrap();
                handles.lines.extend(context, new.iter().cloned()).unwrap();
            }
        });
    }
    let nothing = BTreeMap::new();
    for key in keys(&before.by_hour, &after.by_hour) {
        let (old, new) = (before.by_hour.get(key), after.by_hour.get(key));
        job.with("shop", key, |context| {
            if new.is_none() {
                return handles.by_hour.clear(context).unwrap();
            }
            let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
            for hour in keys(old, new) {
                match new.get(hour) {
                    Some(value) => drop(handles.by_hour.put(context, hour, *value).unwrap()),
                    None => drop(handles.by_hour.remove(context, hour).unwrap()),
                }
            }
        });
    }
    let never = BTreeSet::new();
    for key in keys(&before.timers, &after.timers) {
        let old = before.timers.get(key).unwrap_or(&never);
        let new = after.timers.get(key).unwrap_or(&never);
        job.with("shop", key, |context| {
            new.difference(old).for_each(|at| context.register(*at));
            old.difference(new).for_each(|at| context.unregister(*at));
        });
    }
    for key in keys(&before.visits, &after.visits) {
        job.with("visit", key, |context| match after.visits.get(key) {
            Some(value) => handles.visits.set(context, *value).unwrap(),
            None => handles.visits.clear(context).unwrap(),
        });
    }
    job.list("shop", "offsets", Redistribution::Split, &after.offsets);
    job.list("shop", "rules", Redistribution::Broadcast, &[7]);
}

/// The states with one value per key say the same in three ways.
fn total(context: &mut Context<'_>, handles: Handles, before: Option<&i64>, after: Option<&i64>) {
    if before == after {
        return;
    }
    handles.longest.clear(context).unwrap();
    handles.sum.clear(context).unwrap();
    match after {
        None => handles.total.clear(context).unwrap(),
        Some(number) => {
            handles.total.set(context, *number).unwrap();
            handles.longest.add(context, format!("{number}")).unwrap();
            handles.sum.add(context, *number).unwrap();
        }
    }
}
