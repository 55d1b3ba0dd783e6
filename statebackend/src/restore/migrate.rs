//! Writing states anew that a snapshot holds as older types, or with another time to live, before they are restored: what lives
//! of them is read from all runs, entry by entry and in order, each value is migrated, and goes into one new run. The older runs
//! do not count for these states any more ([`Run::without`]), and are as they were.
//!
//! Invariant: in the list of runs that comes out, every state has one shape, the declared one. So tables, merges, checkpoints
//! and whoever reads a snapshot know nothing of migrations, and a start that fails leaves a file that nobody names.

use std::sync::Arc;

use env::{Env, FaultPoint, Store, StoreWriter};
use types::{
    Error, ErrorKind, ExpiryClocks, ExpiryTimes, KeyGroup, KeyGroupRange, Result, Run, RunIdentity, Shape,
    ShapedValue, Timestamp, Uid,
};

use super::clip;
use crate::{
    compatible::version_of,
    declare::{Declared, StateKind, StateSpec},
    expiry::{Ttl, deadline_of},
    migration::{Recode, Version},
    run::{
        KeySelection, LiveBatch, LiveEntry, RunCompression, RunSet, Scan, Selection,
        entry::{Entry, EntryKind, MAX_PART},
        list_chunk::push_element,
        reader::RunReader,
        schema::{Schema, StateSection},
        writer::RunWriter,
    },
};

/// How a user's function is called: so that a panic in it becomes an error.
pub type CallUser = fn(&mut dyn FnMut() -> Result<()>) -> Result<()>;

/// What the new run needs besides what it is made of.
#[derive(Clone, Debug)]
pub struct Rewriting<'a> {
    /// Until when the state of the snapshot had expired.
    pub clocks: &'a ExpiryClocks,
    /// What time it is for values that have had no deadline. The same for all subtasks, so that it shows nowhere how many
    /// there are.
    pub now: ExpiryTimes,
    /// The new run's.
    pub identity: RunIdentity,
    /// Where it is put.
    pub path: &'a str,
    /// How it is compressed.
    pub compression: RunCompression,
    /// How the migration's functions are called.
    pub call: CallUser,
}

/// The states that must be written anew before some runs can be restored.
pub struct MigrationPlan {
    declared: Declared,
    groups: KeyGroupRange,
    /// The parts that hold these key groups, oldest first.
    runs: Vec<Run>,
    /// The same as they are listed afterwards, without those that hold nothing else.
    left: Vec<Run>,
    /// Sorted by name.
    changed: Vec<Changed>,
}

/// A state that must be written anew.
#[derive(Clone)]
struct Changed {
    found: Arc<StateSpec>,
    declared: Arc<StateSpec>,
    /// There if its values are of an older type.
    recode: Option<Recode>,
    /// There if its values get deadlines.
    ttl: Option<Ttl>,
}

impl Changed {
    /// `None` if it is stored as it is declared, or not declared.
    fn of(operator: &Uid, declared: &Declared, found: Arc<StateSpec>) -> Result<Option<Self>> {
        let mut states = declared.states.iter();
        let Some(state) = states.find(|state| state.spec.name == found.name) else { return Ok(None) };
        let shapes: Vec<_> = state.older.iter().map(|older| older.shape.clone()).collect();
        let version = version_of(operator, &state.spec, &shapes, &found)?;
        let recode = match version {
            Version::Declared if state.spec.expiry == found.expiry => return Ok(None),
            Version::Declared => None,
            Version::Older(older) => Some(Arc::clone(&state.older[older].recode)),
        };
        let ttl = state.ttl.filter(|_| state.spec.expiry != found.expiry);
        Ok(Some(Self { found, declared: Arc::clone(&state.spec), recode, ttl }))
    }
}

/// Finds what must be written anew of `runs` (oldest first, all runs of one or more subtasks of an operator) to restore the key
/// groups `groups` of `declared`. `None` if all can be restored as it is.
///
/// # Errors
/// `IncompatibleState` if a state is neither what is declared nor of an older type of it; `Corrupt` for a damaged, missing or
/// swapped file. Reading errors of the store as they are.
pub async fn plan_migration(
    store: &dyn Store,
    runs: &[Run],
    declared: &Declared,
    groups: KeyGroupRange,
) -> Result<Option<MigrationPlan>> {
    let runs = clip(runs, groups);
    let mut left = Vec::new();
    let mut changed: Vec<Changed> = Vec::new();
    for mut run in runs.iter().cloned() {
        let mut holds_more = false;
        let schema = RunReader::open(store, &run).await?.schema;
        for StateSection { spec: found, totals } in schema.states {
            if run.without.contains(&found.name) {
                continue;
            }
            let Some(state) = Changed::of(&run.identity.operator, declared, found)? else {
                holds_more |= totals.entries > 0;
                continue;
            };
            run.without.push(state.found.name.clone());
            // All runs hold it alike: reading them together sees to it.
            if changed.iter().all(|it| it.found.name != state.found.name) {
                changed.push(state);
            }
        }
        if holds_more {
            run.without.sort();
            left.push(run);
        }
    }
    changed.sort_by(|a, b| a.found.name.cmp(&b.found.name));
    let plan = MigrationPlan { declared: declared.clone(), groups, runs, left, changed };
    Ok(Some(plan).filter(|plan| !plan.changed.is_empty()))
}

impl MigrationPlan {
    /// Writes the new run, if anything lives of the states, and returns the runs to restore, oldest first. Holds a window of each
    /// run and a piece of the new one, however large they are.
    ///
    /// # Errors
    /// `IncompatibleState` naming state and key if a value cannot be decoded, or its migration fails: no file is there then.
    /// Otherwise as [`merge`](crate::merge).
    pub async fn rewrite(self, env: &Env, store: &dyn Store, how: Rewriting<'_>) -> Result<Vec<Run>> {
        let Self { declared, groups, runs, left, changed } = self;
        let Rewriting { clocks, now, identity, path, compression, call } = how;
        let schema = Schema::new(declared.key.clone(), changed.iter().map(|state| state.declared.clone()));
        let mut writer = RunWriter::new(identity, groups, schema, compression)?;
        let mut file: Option<Box<dyn StoreWriter>> = None;
        for (place, state) in (0..).zip(changed) {
            let selection = Selection { state: state.found.name.clone(), groups, keys: KeySelection::All };
            let times = (clocks.clone(), now);
            let mut work = Work { place, state, times, declared: declared.clone(), call, writer, next: 0 };
            let mut scan = Scan::select(store, RunSet::new(&runs, clocks), &selection).await?;
            while let Some(mut batch) = scan.next(env, store).await? {
                let mut done = false;
                while !done {
                    let turn =
                        env.blocking("migrate", move || work.take(&batch).map(|done| (work, batch, done)));
                    (work, batch, done) = turn.await??;
                    while let Some(piece) = work.writer.take_piece() {
                        open(&mut file, store, path).await?.write(piece).await?;
                    }
                }
                env.fault(FaultPoint::RestoreAmid)?;
            }
            writer = work.writer;
        }
        let (last, written) = writer.finish()?;
        if written.totals.entries == 0 {
            return Ok(left);
        }
        open(&mut file, store, path).await?.write(last).await?;
        if let Some(file) = file {
            file.finish().await?;
        }
        Ok([left, vec![written.into_run(path)]].concat())
    }
}

async fn open<'a>(
    file: &'a mut Option<Box<dyn StoreWriter>>,
    store: &dyn Store,
    path: &str,
) -> Result<&'a mut Box<dyn StoreWriter>> {
    match file {
        Some(file) => Ok(file),
        None => Ok(file.insert(store.writer(path).await?)),
    }
}

/// One state on its way into the new run.
struct Work {
    place: u16,
    state: Changed,
    /// Until when state had expired, and what time it is.
    times: (ExpiryClocks, ExpiryTimes),
    declared: Declared,
    call: CallUser,
    writer: RunWriter,
    /// Where in the batch it goes on.
    next: usize,
}

impl Work {
    /// Goes on in `batch` until a piece of the file is there (`false`) or the batch is done (`true`).
    fn take(&mut self, batch: &LiveBatch) -> Result<bool> {
        while let Some(live) = batch.get(self.next) {
            if self.writer.has_piece() {
                return Ok(false);
            }
            self.next += 1;
            self.entry(live).map_err(|error| self.blame(live, error))?;
        }
        self.next = 0;
        Ok(true)
    }

    fn entry(&mut self, live: LiveEntry<'_>) -> Result<()> {
        let is_list = self.state.found.kind == StateKind::List;
        let mut value = Vec::with_capacity(live.entry.value.len());
        for old in live.values() {
            let old = old?;
            match is_list {
                true => push_element(&mut value, |out| self.value(live.group, old, out))?,
                false => self.value(live.group, old, &mut value)?,
            }
        }
        if value.len() > MAX_PART {
            return Err(Error::incompatible(format!(
                "a value of over {MAX_PART} bytes, or so many of a list that were written together, cannot be kept in a snapshot"
            )));
        }
        let Entry { key, sub, .. } = live.entry;
        let migrated = Entry { kind: EntryKind::Put, key, sub, value: &value };
        self.writer.push_entry(self.place, live.group, &migrated)
    }

    /// A value or element with its deadline, if it has one then.
    fn value(&self, group: KeyGroup, old: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Changed { found, declared, recode, .. } = &self.state;
        let bare = found.without_deadline(old)?;
        if declared.expiry.is_some() {
            let deadline =
                if found.expiry == declared.expiry { deadline_of(old)? } else { self.deadline(group)? };
            out.extend_from_slice(&deadline.0.to_le_bytes());
        }
        match recode {
            None => out.extend_from_slice(bare),
            // Whatever kind of error it is: a restart would come to the same end, and the snapshot is not damaged.
            Some(recode) => (self.call)(&mut || recode(bare, out))
                .map_err(|error| error.with_kind(ErrorKind::IncompatibleState))?,
        }
        Ok(())
    }

    /// Until when lives what is written now.
    fn deadline(&self, group: KeyGroup) -> Result<Timestamp> {
        let Some(ttl) = self.state.ttl else {
            return Err(Error::internal("a state gets deadlines and has no time to live"));
        };
        let (clocks, now) = &self.times;
        match now.max(clocks.at(group)).of(ttl.domain) {
            Timestamp::MIN => Err(Error::incompatible(
                "it gets an event-time ttl, and the snapshot knows no event time from which its values could live on: give it a \
                 processing-time ttl",
            )),
            now => Ok(now + ttl.duration),
        }
    }

    /// The error with its state and key.
    fn blame(&self, live: LiveEntry<'_>, error: Error) -> Error {
        let found = &self.state.found;
        let mut place =
            format!("state {:?}, key {}", found.name, shown(self.declared.key_shape(), live.entry.key));
        if found.kind == StateKind::Map {
            place += &format!(", map key {}", shown(found.map_key.as_ref(), live.entry.sub));
        }
        let error = error.context(format!("{place}: its migration"));
        match error.kind() {
            ErrorKind::IncompatibleState => error.with_advice(
                "nothing was changed: mend the migration, or start the program that wrote the snapshot",
            ),
            _ => error,
        }
    }
}

/// A key, as far as its shape is known.
fn shown(shape: Option<&Shape>, key: &[u8]) -> String {
    let read = shape.and_then(|shape| ShapedValue::decode_key(shape, key).ok());
    let hex = || key.iter().map(|byte| format!("{byte:02x}")).collect();
    read.map_or_else(hex, |key| key.to_string())
}
