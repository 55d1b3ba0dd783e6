//! Collection without the job: what a dead job has left in its checkpoint directory, found ([`find`]) and deleted
//! ([`collect_offline`]). Every checkpoint that the history retains stays.
//!
//! An attempt whose end is recorded writes nothing any more: garbage is marked behind its end. One that may have died
//! is fenced first, by a start record that goes on from where the job stands and restates it all. That is a start which
//! died before it did anything: the next one of the job restores what it would have restored, of the same line of
//! history, and commits what is pending.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use env::{Env, Store, StoreEntry};
use types::{Error, JobId, Lineage, RecordNumber, Result};

use super::{Collector, plan};
use crate::{
    history::{
        self, Holder, Instance, JobHistory, JobLock, Kind, Record, Records, Standing, StartRequest, Started,
        start::{self, Candidate, Decision},
    },
    storage::{
        paths::{self, PathKind},
        retry::Retry,
    },
};

/// Why a file may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A garbage mark lists it: the history record with this number.
    Marked(RecordNumber),
    /// No retained checkpoint refers to it, and its attempt is over.
    Orphan,
    /// No retained checkpoint refers to it, and its attempt is the last one, whose end is not recorded: it may go if
    /// the job is dead. A job that runs lists it in its next checkpoint, perhaps.
    OrphanIfDead,
    /// A history record below the last milestone.
    OldRecord,
}

/// A file that may go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage {
    /// Its path below the checkpoint directory.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
    /// Why it may go.
    pub why: Why,
}

/// What may go of a checkpoint directory.
#[derive(Clone, Debug)]
pub struct Found {
    /// The newest record.
    pub newest: Arc<Record>,
    /// The files, sorted by path.
    pub garbage: Vec<Garbage>,
    /// Garbage marks that are open, whether their files are there or not.
    pub open_marks: usize,
    /// The process that runs the job, for people: what its attempt has written is left out.
    pub run_by: Option<String>,
}

impl Found {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.garbage.is_empty() && self.open_marks == 0
    }
}

/// Finds what [`collect_offline`] would delete, and what of that only if the job is dead. Changes nothing.
///
/// # Errors
/// `InvalidJob` if `store` holds no job history; `Corrupt` if the newest record or a manifest that it retains is
/// damaged: nobody knows then what is needed. `Retryable` or `Unavailable`.
pub async fn find(env: &Env, store: &Arc<dyn Store>) -> Result<Found> {
    let records = Records::new(env, Arc::clone(store));
    let newest = records.newest().await?.ok_or_else(|| {
        Error::invalid_job(format!("{} is no checkpoint directory: it holds no job history", store.url()))
    })?;
    let listing = Retry::STORE.run(env, "list files", || store.list("")).await?;
    let run_by = JobLock::holder(env, &**store).await?.process();
    let mut found = BTreeMap::new();
    for mark in &newest.standing.garbage {
        found.extend(mark.files.iter().map(|file| (file.clone(), Why::Marked(mark.number))));
    }
    let standing = standing_then(env, &newest, store.url())?;
    let last = newest.standing.end.is_none().then_some(newest.standing.attempt.id);
    for path in orphans(env, store, &standing, &listing).await? {
        let may_be_needed = last.is_some_and(|last| paths::kind(&path) == PathKind::Attempt(last));
        let why = match (may_be_needed, &run_by) {
            (false, _) => Some(Why::Orphan),
            (true, None) => Some(Why::OrphanIfDead),
            (true, Some(_)) => None,
        };
        found.extend(why.map(|why| (path, why)));
    }
    let old = plan::old_records(&listing, newest.number, records.milestones());
    found.extend(old.into_iter().map(|number| (paths::record(number), Why::OldRecord)));
    let garbage = listing
        .into_iter()
        .filter_map(|StoreEntry { path, len }| Some(Garbage { why: *found.get(&path)?, path, len }))
        .collect();
    Ok(Found { garbage, open_marks: newest.standing.garbage.len(), newest, run_by })
}

/// Deletes what [`find`] finds, and returns what it did delete. `job_is_dead` is the word of whoever asks that no
/// process runs the job, on this machine or another: needed unless the history says that it has ended. A process that
/// does run it is fenced.
///
/// # Errors
/// `Conflict` if a process runs the job, or may; otherwise as [`find`]: nothing was changed. As
/// [`Collector::collect`]: collect again.
pub async fn collect_offline(env: &Env, store: &Arc<dyn Store>, job_is_dead: bool) -> Result<Found> {
    let url = store.url();
    // Where nobody can tell, somebody's word or the recorded end has to do, and the fence makes it true.
    if let Holder::Process(holder) = JobLock::holder(env, &**store).await? {
        return Err(Error::conflict(format!(
            "checkpoint directory {url} is in use by {holder}: a job that runs collects by itself, after its checkpoints, and when \
             asked with tidegate gc --job HOST:PORT"
        )));
    }
    let found = find(env, store).await?;
    let standing = &found.newest.standing;
    if standing.end.is_none() && !job_is_dead {
        return Err(Error::conflict(format!(
            "the end of attempt {} of job {:?} ({}) is not recorded in {url}, so it may run: one that runs is asked with \
             tidegate gc --job HOST:PORT; if it is dead, say so with --job-is-dead, and whatever may still run of it is fenced",
            standing.attempt.id, standing.job_name, standing.attempt.process
        )));
    }
    if found.is_empty() {
        return Ok(found);
    }
    let mut lock = JobLock::acquire(env, &**store, false).await?;
    lock.process = format!("tidegate gc, {}", lock.process);
    let mut history = history(env, store, &lock, &found.newest).await?;
    // All checkpoints that there are.
    let mut collector = Collector::new(env, Arc::clone(store), usize::MAX);
    let mut garbage = Vec::new();
    loop {
        let before = history.newest().number;
        let collected = collector.collect(&mut history, &BTreeSet::new(), true).await?;
        let open = collected.open.into_iter().map(|(mark, entry)| (Why::Marked(mark), entry));
        let marked = collected.marked.into_iter().map(|entry| (Why::Orphan, entry));
        let records = collected.records.into_iter().map(|entry| (Why::OldRecord, entry));
        let gone = open.chain(marked).chain(records);
        garbage.extend(gone.map(|(why, StoreEntry { path, len })| Garbage { path, len, why }));
        if collected.orphans_exhausted {
            garbage.sort();
            let newest = Arc::clone(history.newest());
            return Ok(Found { garbage, open_marks: newest.standing.garbage.len(), newest, run_by: None });
        }
        if history.newest().number == before {
            return Err(unknown(url, history.standing(), &collector));
        }
    }
}

/// The right to append garbage records: after the recorded end of the last attempt, or by fencing it.
async fn history(
    env: &Env,
    store: &Arc<dyn Store>,
    lock: &JobLock,
    newest: &Arc<Record>,
) -> Result<JobHistory> {
    let records = Records::new(env, Arc::clone(store));
    if let Some(history) = JobHistory::after_end(records, newest) {
        return Ok(history);
    }
    match history::start(env, Arc::clone(store), lock, &request(&newest.standing)).await? {
        Started::Running(history, _) => Ok(*history),
        Started::Finished { .. } => {
            Err(Error::retryable(format!("the job in {} has ended meanwhile: collect again", store.url())))
        }
    }
}

/// A start that goes on as the job stands.
fn request(standing: &Standing) -> StartRequest {
    StartRequest::new(&standing.job_name, standing.max_parallelism, standing.attempt.parallelism)
}

/// What will hold when garbage is marked.
fn standing_then(env: &Env, newest: &Record, directory: &str) -> Result<Standing> {
    if newest.standing.end.is_some() {
        return Ok(newest.standing.clone());
    }
    // Whoever that will be: nothing is judged by these names.
    let candidate = Candidate {
        request: &request(&newest.standing),
        instance: Instance(0),
        process: "",
        directory,
        new_job: JobId(0),
        new_lineage: Lineage(0),
    };
    match start::decide(Some(&newest.standing), &candidate)? {
        Decision::Start(start) => {
            Ok(Record::after(Some(newest), env.wall(), Kind::AttemptStarted(start))?.standing)
        }
        Decision::Finished(_) => Ok(newest.standing.clone()),
    }
}

/// All that marks would list, once `standing` holds.
async fn orphans(
    env: &Env,
    store: &Arc<dyn Store>,
    standing: &Standing,
    listing: &[StoreEntry],
) -> Result<Vec<String>> {
    let mut collector = Collector::new(env, Arc::clone(store), usize::MAX);
    collector.learn(standing).await?;
    let found = plan::orphans(standing, collector.files(), listing);
    let found = found.ok_or_else(|| unknown(store.url(), standing, &collector))?;
    Ok(found.into_iter().map(str::to_owned).collect())
}

/// Nobody knows what is needed where a manifest cannot be read.
fn unknown(url: &str, standing: &Standing, collector: &Collector) -> Error {
    let held = standing.held();
    let damaged = held.iter().find(|held| !collector.files().contains_key(&held.checkpoint));
    let which = match damaged {
        Some(held) => format!("{} of checkpoint {}", held.manifest.path, held.checkpoint),
        None => "of a retained checkpoint".to_owned(),
    };
    Error::corrupt(format!(
        "nobody knows which files in {url} are needed, since manifest {which} is missing or damaged: put it back, or start \
         the job, which says what else can be done (tidegate verify {url} tells all that is damaged)"
    ))
}
