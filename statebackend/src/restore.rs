//! Reading runs back into tables. A fresh start is a restore of no runs.
//!
//! Runs are read oldest first, and the newest wins; only the blocks that may hold key groups of the new owner are read, in
//! windows, and each is checked before its first entry is used (`restore::gather`). Values then stay in their blocks until they
//! are asked for, or their turn comes (`table::waiting`). With a store behind the tables, the runs are merged instead, and what lives is loaded into the store, in order
//! (`restore::load`). States that are stored as older types are written anew before (`restore::migrate`).

mod gather;
mod load;
mod load_batch;
mod migrate;

use std::sync::Arc;

use env::{Env, FaultPoint, Store};
use gather::{Gathered, Source};
use types::{Error, KeyGroupRange, Result, Run};

pub use migrate::{CallUser, MigrationPlan, Rewriting, plan_migration};

use crate::{
    compatible::{Action, Expected, check_compatible, check_key},
    declare::StateSpec,
    migration::Migrations,
    run::reader::RunReader,
    table::{KeyedState, TablePlace},
};

/// What a restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreStats {
    /// Runs of which anything was read.
    pub runs: usize,
    /// Stored bytes of blocks that were read.
    pub bytes_read: u64,
    /// Entries applied, tombstones included; with a store behind, those that live.
    pub entries: u64,
}

/// Puts the entries of `runs` (oldest first) that belong to the key groups of `into` into its tables, which must be empty, or
/// has them [wait](KeyedState#after-a-restore) beside them. Computes in slices away from the tasks. After an error `into` must be thrown away.
///
/// # Errors
/// `Corrupt` for a damaged, missing or swapped file, `IncompatibleState` if a state is of another kind, codec or shape
/// than declared, or has another time to live ([`plan_migration`] comes first), or if stored values do not survive decoding
/// and encoding. Reading errors of the store as they are.
pub async fn restore(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    into: &mut KeyedState,
) -> Result<RestoreStats> {
    if into.has_store() {
        return load::load(env, store, runs, into).await;
    }
    let mut gathered = Gathered::new(into.take(), RestoreStats::default());
    for run in runs {
        let Some(wanted) = run.groups.intersect(gathered.state.groups()) else { continue };
        let reader = RunReader::open(store, run).await?;
        let places = places(run, &reader, &gathered.state)?;
        let source = Arc::new(Source { run: run.clone(), places, wanted });
        gathered.stats.runs += 1;
        let mut windows = reader.windows(wanted).into_iter();
        let mut window = reader.read_next(store, &mut windows).await?;
        // One window is taken in while the next one is read.
        while let Some(this) = window {
            gathered.stats.bytes_read += this.bytes().len() as u64;
            let source = Arc::clone(&source);
            let taken = env.blocking("restore", move || gathered.take(this, &source).map(|()| gathered));
            let (taken, next) = futures::join!(taken, reader.read_next(store, &mut windows));
            (gathered, window) = (taken??, next?);
            env.fault(FaultPoint::RestoreAmid)?;
        }
        gathered.finish_run();
    }
    let (mut merging, mut more) = (gathered.into_merging(), true);
    while more {
        let turn = env.blocking("restore", move || {
            let more = merging.go_on();
            (merging, more)
        });
        (merging, more) = turn.await?;
    }
    let stats;
    (*into, stats) = merging.finish();
    Ok(stats)
}

/// The parts of the runs that hold key groups of `groups`.
fn clip(runs: &[Run], groups: KeyGroupRange) -> Vec<Run> {
    let clipped = |run: &Run| Some(Run { groups: run.groups.intersect(groups)?, ..run.clone() });
    runs.iter().filter_map(clipped).collect()
}

/// Where the entries of each state of a run go; `None` for those that are left out.
fn places(run: &Run, reader: &RunReader, into: &KeyedState) -> Result<Vec<Option<TablePlace>>> {
    let operator = &run.identity.operator;
    check_key(operator, into.declared(), reader.schema.key.as_deref())?;
    let counts = |name: &String| !run.without.contains(name);
    let states = reader.schema.states.iter();
    let occupied = states.filter(|state| state.totals.entries > 0 && counts(&state.spec.name));
    let found: Vec<StateSpec> = occupied.map(|state| StateSpec::clone(&state.spec)).collect();
    // What is stored in another way was written anew before.
    let declared = into.declared().descriptions();
    let expected = Expected { states: &declared, migrations: &Migrations::none(), may_drop: false };
    let actions = check_compatible(operator, expected, &found)?;
    if let Some(Action::Migrate(name, change)) = actions.iter().find(|it| matches!(it, Action::Migrate(..))) {
        return Err(Error::incompatible(format!(
            "operator {operator}, state {name:?} is restored from {} and was not migrated before: {change}",
            run.file.path
        )));
    }
    let restores =
        |name: &str| actions.iter().any(|action| matches!(action, Action::Restore(kept) if kept == name));
    let place = |name: &str| restores(name).then(|| into.place_of(name)).flatten();
    Ok(reader.schema.states.iter().map(|state| place(&state.spec.name)).collect())
}

/// Decodes and encodes a value: other bytes mean that the type has changed in a way that its shape does not show.
fn check_value(state: &mut KeyedState, place: TablePlace, run: &Run, value: &[u8]) -> Result<()> {
    let same = state.check_value(place, value);
    if same.as_ref().is_ok_and(|same| *same) {
        return Ok(());
    }
    let why = same.err().map_or_else(String::new, |error| format!(" ({error})"));
    Err(Error::incompatible(format!(
        "operator {}, state {:?}: a stored value does not come out of decoding and encoding as it went in{why}: the \
         type or its serialization has changed since {} was written; restore with the program that wrote it",
        run.identity.operator,
        state.name_of(place),
        run.file.path,
    )))
}
