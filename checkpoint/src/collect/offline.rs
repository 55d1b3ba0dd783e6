//! Collection without the job: what a dead job has left in its checkpoint directory, found ([`find`]) and deleted
//! ([`collect_offline`]). Every checkpoint that the history retains stays.
//!
//! An attempt whose end is recorded writes nothing any more: garbage is marked behind its end. One that may have died is
//! fenced first, by a start record that goes on from where the job stands and restates it all. That is a start which died
//! before it did anything: the next one of the job restores what it would have restored, of the same line of history, and
//! commits what is pending.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use env::{Env, Store, StoreEntry};
use types::{Error, JobId, Lineage, RecordNumber, Result};

use super::{
    Collector,
    plan::{self, Facts, Plan},
};
use crate::{
    history::{
        self, Instance, JobHistory, JobLock, Kind, Record, Records, Standing, StartRequest, Started,
        start::{self, Candidate, Decision},
    },
    storage::{paths, retry::Retry},
};

/// Why a file may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A garbage mark lists it: the history record with this number.
    Marked(RecordNumber),
    /// No retained checkpoint refers to it, and its attempt is over.
    Orphan,
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
}

impl Found {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.garbage.is_empty() && self.open_marks == 0
    }
}

/// Finds what [`collect_offline`] would delete. Changes nothing.
///
/// # Errors
/// `InvalidJob` if `store` holds no job history; `Corrupt` if the newest record or a manifest that it retains is damaged:
/// nobody knows then what is needed. `Retryable` or `Unavailable`.
pub async fn find(env: &Env, store: &Arc<dyn Store>) -> Result<Found> {
    let records = Records::new(env, Arc::clone(store));
    let newest = records.newest().await?.ok_or_else(|| {
        Error::invalid_job(format!("{} is no checkpoint directory: it holds no job history", store.url()))
    })?;
    let listing = Retry::STORE.run(env, "list files", || store.list("")).await?;
    let mut found = BTreeMap::new();
    for mark in &newest.standing.garbage {
        found.extend(mark.files.iter().map(|file| (file.clone(), Why::Marked(mark.number))));
    }
    let standing = standing_then(env, &newest, store.url())?;
    found.extend(orphans(env, store, standing, &listing).await?.into_iter().map(|path| (path, Why::Orphan)));
    let old = plan::old_records(&listing, newest.number, records.milestones());
    found.extend(old.into_iter().map(|number| (paths::record(number), Why::OldRecord)));
    let garbage = listing
        .into_iter()
        .filter_map(|StoreEntry { path, len }| Some(Garbage { why: *found.get(&path)?, path, len }))
        .collect();
    Ok(Found { garbage, open_marks: newest.standing.garbage.len(), newest })
}

/// Deletes what [`find`] finds, and returns it. `job_is_dead` is the word of whoever asks that no process runs the job, on
/// this machine or another: needed unless the history says that it has ended. A process that does run it is fenced.
///
/// # Errors
/// `Conflict` if a process runs the job, or may; otherwise as [`find`]: nothing was changed. As
/// [`Collector::collect`]: collect again.
pub async fn collect_offline(env: &Env, store: &Arc<dyn Store>, job_is_dead: bool) -> Result<Found> {
    let url = store.url();
    if let Some(holder) = JobLock::holder(env, &**store).await? {
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
    loop {
        let before = history.newest().number;
        if collector.collect(&mut history, &BTreeSet::new(), true).await? {
            return Ok(found);
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

/// All that [`plan`](plan::plan) would mark, one mark after the other.
async fn orphans(
    env: &Env,
    store: &Arc<dyn Store>,
    mut standing: Standing,
    listing: &[StoreEntry],
) -> Result<BTreeSet<String>> {
    let mut collector = Collector::new(env, Arc::clone(store), usize::MAX);
    collector.learn(&standing).await?;
    let mut orphans = BTreeSet::new();
    loop {
        let facts = Facts {
            standing: &standing,
            retain: usize::MAX,
            files: collector.files(),
            running: &BTreeSet::new(),
            listing: Some(listing),
        };
        let Plan { mark, orphans_exhausted } = plan::plan(&facts);
        match (mark, orphans_exhausted) {
            (None, false) => return Err(unknown(store.url(), &standing, &collector)),
            (None, true) => return Ok(orphans),
            (Some(mark), exhausted) => {
                orphans.extend(mark.files.iter().cloned());
                if exhausted {
                    return Ok(orphans);
                }
                // The number of no other mark.
                let number = RecordNumber(u64::MAX - orphans.len() as u64);
                standing = Standing::after(Some(&standing), number, env.wall(), &Kind::GarbageMarked(mark))?;
            }
        }
    }
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
