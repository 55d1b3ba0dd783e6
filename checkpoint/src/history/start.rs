//! How an attempt starts: what it restores is decided here, purely, from what holds and what the user asked for; the
//! driver in [`log`](super::log) makes it so.

use std::{collections::BTreeSet, sync::Arc};

use env::Store;
use types::{CheckpointId, Error, JobId, Lineage, MaxParallelism, Result, Timestamp, Uid};

use super::{
    Instance,
    from::{From, Line},
    log::JobHistory,
    permit::CommitPermit,
    record::{AttemptStart, EndKind},
    standing::{CompletedCheckpoint, ForeignSnapshot, Origin, Restores, Standing},
    unconfirmed::Unconfirmed,
};
use crate::{manifest::Manifest, savepoint::SnapshotLocation};

/// What is to be started.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The job's name.
    pub job_name: String,
    /// Its max parallelism.
    pub max_parallelism: MaxParallelism,
    /// Its parallelism.
    pub parallelism: u32,
    /// What to start from.
    pub from: From,
    /// The line of history for which the sinks were asked what they hold; if another process has changed it since, the
    /// start fails and they are to be asked again.
    pub line: Line,
    /// Whether this is the restart strategy's start: refused as fenced unless the last attempt is this process's own.
    pub automatic: bool,
    /// Fall back past this damaged checkpoint, the newest; [`fallback`](super::fallback) says when that is allowed. The
    /// attempt restores what stood before it, and must then [revoke](JobHistory::revoke) it first of all.
    pub revoke: Option<CheckpointId>,
    /// Give up what an unrestored checkpoint left pending, instead of committing it first.
    pub abandon_pending: bool,
    /// Output of other lines of history may be beside that of this one, from now on.
    pub accept_foreign_output: bool,
    /// Operators whose state is dropped.
    pub dropped: BTreeSet<Uid>,
}

impl StartRequest {
    /// A request with the defaults of the command line.
    #[must_use]
    pub fn new(job_name: impl Into<String>, max_parallelism: MaxParallelism, parallelism: u32) -> Self {
        Self {
            job_name: job_name.into(),
            max_parallelism,
            parallelism,
            from: From::Auto,
            line: Line::Any,
            automatic: false,
            revoke: None,
            abandon_pending: false,
            accept_foreign_output: false,
            dropped: BTreeSet::new(),
        }
    }
}

/// What a start led to.
pub enum Started {
    /// The attempt owns the job.
    Running(Box<JobHistory>, Box<RestorePlan>),
    /// The job finished earlier; nothing was done.
    Finished {
        /// When it finished.
        at: Timestamp,
    },
}

/// What a new attempt has to do before its sources start, in this order: commit, revoke, sweep, restore. A sink may
/// answer a revocation so that nothing older can be committed after it.
pub struct RestorePlan {
    /// Checkpoints to make impossible to commit, at each sink.
    pub revoked: Vec<CheckpointId>,
    /// Completed checkpoints whose sinks may not have committed yet, oldest first.
    pub pending: Vec<Pending>,
    /// Completed checkpoints of which the user gives up what is not committed yet, oldest first.
    pub abandoned: Vec<Unconfirmed>,
    /// What to restore.
    pub source: Source,
    /// Whether a line of history goes on.
    pub continues: bool,
    /// The number of the attempt's first checkpoint.
    pub first_checkpoint: CheckpointId,
    /// One line for people.
    pub summary: String,
}

/// A completed checkpoint that may have to be committed.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The right to commit it.
    pub permit: CommitPermit,
    /// Its manifest, which lists the prepared transactions.
    pub manifest: Arc<Manifest>,
}

/// What an attempt restores.
pub enum Source {
    /// Nothing.
    Empty,
    /// A checkpoint of its own directory.
    Own {
        /// The checkpoint.
        checkpoint: CompletedCheckpoint,
        /// Its manifest.
        manifest: Arc<Manifest>,
    },
    /// A snapshot elsewhere, to be copied by [`import`](crate::savepoint::import) before use.
    Foreign {
        /// Where it is.
        store: Arc<dyn Store>,
        /// Its manifest, with paths below that place.
        manifest: Arc<Manifest>,
    },
}

/// What [`decide`] is asked on behalf of.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What the user asked for.
    pub request: &'a StartRequest,
    /// The process.
    pub instance: Instance,
    /// The process, for people.
    pub process: &'a str,
    /// The directory, for messages.
    pub directory: &'a str,
    /// The name of the job if it is new.
    pub new_job: JobId,
    /// The name of the line of history if it is new.
    pub new_lineage: Lineage,
}

/// What a start comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The job finished at this time: do nothing.
    Finished(Timestamp),
    /// Try to append this.
    Start(Box<AttemptStart>),
}

/// Decides how `candidate` starts on top of `standing` (none: no history yet).
///
/// # Errors
/// `Fenced`, `Conflict`, `IncompatibleState`, `InvalidJob` or `Corrupt`: nothing was changed. `Retryable`: neither, and what
/// the caller has looked at before is no longer so.
pub fn decide(standing: Option<&Standing>, candidate: &Candidate<'_>) -> Result<Decision> {
    let Some(standing) = standing else {
        return first_start(candidate);
    };
    let request = candidate.request;
    own_directory(standing, candidate)?;
    let continues = request.from.continues(Some(standing));
    if let (From::Gone { named, .. }, false) = (&request.from, continues) {
        return Err(gone(named));
    }
    if let (Some(end), true) = (&standing.end, continues)
        && end.kind == EndKind::Finished
    {
        return Ok(Decision::Finished(end.at));
    }
    same_line(Some(standing), candidate)?;
    // Beside a snapshot that the line began from, it was said of what was pending there.
    let is_plain = matches!(request.from, From::Auto | From::Latest);
    if is_plain && request.abandon_pending && !standing.unconfirmed.is_empty() {
        return Err(Error::invalid_job(
            "a continuation commits what is pending, so --abandon-pending gives nothing up: leave it out, or say with \
             --from SNAPSHOT (tidegate snapshots lists them) or --from none where to begin a new line of history",
        ));
    }
    let starts_over = continues && standing.starts_over();
    if starts_over && matches!(request.from, From::Latest) {
        return Err(Error::invalid_job(format!(
            "--from latest needs a checkpoint and {} has none: {}; use --from auto to start fresh, or --from SAVEPOINT",
            candidate.directory,
            why_over(standing)
        )));
    }
    if continues && !starts_over {
        same_max_parallelism(standing.max_parallelism, request.max_parallelism, candidate.directory)?;
    }
    let (lineage, restores) = match (&request.from, request.revoke) {
        _ if starts_over => (candidate.new_lineage, Restores::Empty),
        (from, None) if continues => (standing.attempt.lineage, here(standing.restore_point(), from)),
        (from, Some(revoke)) if continues => {
            if standing.completed.last().is_none_or(|newest| newest.checkpoint != revoke) {
                return Err(Error::retryable(format!(
                    "checkpoint {revoke} is no longer the newest in {}: start again",
                    candidate.directory
                )));
            }
            let restores = before(standing, revoke).ok_or_else(|| {
                Error::corrupt(format!(
                    "no checkpoint before {revoke} is retained in {}",
                    candidate.directory
                ))
            })?;
            (standing.attempt.lineage, here(restores, from))
        }
        (from, _) => match from.snapshot() {
            Some(location) => (candidate.new_lineage, snapshot(Some(standing), location, request)?),
            None => (candidate.new_lineage, Restores::Empty),
        },
    };
    let abandons =
        if request.abandon_pending && !continues { standing.unconfirmed.clone() } else { Vec::new() };
    let begun = Some(&standing.attempt.origin).filter(|_| continues && !starts_over);
    let start = AttemptStart { abandons, ..attempt(candidate, standing.job, lineage, begun, restores) };
    Ok(Decision::Start(Box::new(start)))
}

/// Why there is nothing to go on from, for people.
#[must_use]
pub fn why_over(standing: &Standing) -> &'static str {
    match standing.end.as_ref().map(|end| &end.kind) {
        Some(EndKind::Failed(_)) => {
            "its checkpoints were removed when the job failed (checkpoints.keep-on-failure)"
        }
        _ => "its checkpoints were removed when the job was cancelled (checkpoints.keep-on-cancel)",
    }
}

fn gone(named: &str) -> Error {
    Error::invalid_job(format!(
        "{named} is gone, and no line of history that began from it is there to go on with: give another snapshot, or \
         leave out --from"
    ))
}

fn first_start(candidate: &Candidate<'_>) -> Result<Decision> {
    let (request, directory) = (candidate.request, candidate.directory);
    if request.automatic {
        return Err(Error::corrupt(format!("the history in {directory} is gone")));
    }
    same_line(None, candidate)?;
    let restores = match &request.from {
        From::Latest => {
            return Err(Error::invalid_job(format!(
                "--from latest needs a job history and {directory} has none: check the directory, or use --from auto"
            )));
        }
        From::Auto | From::None => Restores::Empty,
        From::Snapshot(location) | From::Anew(location) => snapshot(None, location, request)?,
        From::Gone { named, .. } => return Err(gone(named)),
    };
    let start = attempt(candidate, candidate.new_job, candidate.new_lineage, None, restores);
    Ok(Decision::Start(Box::new(start)))
}

/// `begun` is the origin of a line that goes on.
fn attempt(
    candidate: &Candidate<'_>,
    job: JobId,
    lineage: Lineage,
    begun: Option<&Origin>,
    restores: Restores,
) -> AttemptStart {
    let request = candidate.request;
    let named = request.from.snapshot().map(|location| location.named.clone());
    let new = || Origin { restored: restores.clone(), named, ..Origin::default() };
    let mut origin = begun.cloned().unwrap_or_else(new);
    origin.accepts_foreign_output |= request.accept_foreign_output;
    let dropped: BTreeSet<Uid> = origin.dropped.into_iter().chain(request.dropped.iter().cloned()).collect();
    origin.dropped = dropped.into_iter().collect();
    AttemptStart {
        job_name: request.job_name.clone(),
        job,
        max_parallelism: request.max_parallelism,
        lineage,
        origin,
        instance: candidate.instance,
        process: candidate.process.to_owned(),
        parallelism: request.parallelism,
        restores,
        abandons: Vec::new(),
    }
}

/// The directory is this job's, and nobody took the job over if this is an automatic restart.
fn own_directory(standing: &Standing, candidate: &Candidate<'_>) -> Result<()> {
    let (found, wanted) = (&standing.job_name, &candidate.request.job_name);
    if found != wanted {
        return Err(Error::conflict(format!(
            "checkpoint directory {} belongs to job {found:?}, not to {wanted:?}: give each job a directory of its own",
            candidate.directory
        )));
    }
    let last = &standing.attempt;
    if candidate.request.automatic && last.instance != candidate.instance {
        return Err(Error::fenced(format!(
            "job {found:?} was taken over by attempt {} ({}): this process must end",
            last.id, last.process
        )));
    }
    Ok(())
}

/// Since the sinks were asked nobody has begun another line of history, or left none to go on with.
fn same_line(standing: Option<&Standing>, candidate: &Candidate<'_>) -> Result<()> {
    let StartRequest { line, from, .. } = candidate.request;
    if *line == Line::Any || *line == Line::of(standing, from) {
        return Ok(());
    }
    Err(Error::retryable(format!(
        "another process has ended the job in {} or begun it anew while this start asked its sinks: start again",
        candidate.directory
    )))
}

fn same_max_parallelism(found: MaxParallelism, wanted: MaxParallelism, place: &str) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::incompatible(format!(
        "the state in {place} was written with max parallelism {}, the job has {}: it cannot be changed, set it back",
        found.0, wanted.0
    )))
}

/// What the user's snapshot is to this history: one of its own checkpoints, or foreign.
fn snapshot(
    standing: Option<&Standing>,
    location: &SnapshotLocation,
    request: &StartRequest,
) -> Result<Restores> {
    same_max_parallelism(location.manifest.max_parallelism, request.max_parallelism, location.url())?;
    let own = standing.and_then(|standing| own(standing, location).cloned());
    Ok(own.map_or_else(|| Restores::Foreign(foreign(location)), Restores::Own))
}

/// A snapshot that is restored once more, at the place where the user has it now.
fn here(restores: Restores, from: &From) -> Restores {
    match (&restores, from.snapshot()) {
        (Restores::Foreign(it), Some(location)) if it.manifest.digest == location.file.digest => {
            Restores::Foreign(foreign(location))
        }
        _ => restores,
    }
}

/// The checkpoint of this history that a user's snapshot is, if it is one.
#[must_use]
pub fn own<'a>(standing: &'a Standing, location: &SnapshotLocation) -> Option<&'a CompletedCheckpoint> {
    standing.held().into_iter().find(|held| held.manifest.digest == location.file.digest)
}

fn foreign(location: &SnapshotLocation) -> ForeignSnapshot {
    ForeignSnapshot {
        url: location.url().to_owned(),
        manifest: location.file.clone(),
        checkpoint: location.manifest.checkpoint,
        max_parallelism: location.manifest.max_parallelism,
    }
}

/// What stood before a damaged checkpoint: an older one of the same line of history. Else what the line began with, if
/// no other checkpoint can have been between: what their sinks committed would be written again. Only what is retained: the
/// files of all else may be deleted at any moment.
pub(super) fn before(standing: &Standing, damaged: CheckpointId) -> Option<Restores> {
    let lineage = standing.attempt.lineage;
    let older = standing.completed.iter().rfind(|held| held.checkpoint < damaged && held.lineage == lineage);
    match (older, &standing.attempt.restores) {
        (Some(older), _) => Some(Restores::Own(older.clone())),
        (None, Restores::Own(own)) if own.checkpoint.next() != damaged || !standing.retains(own) => None,
        (None, Restores::Empty) if damaged != CheckpointId(1) => None,
        (None, Restores::Foreign(foreign)) if foreign.checkpoint.next() != damaged => None,
        (None, first) => Some(first.clone()),
    }
}
