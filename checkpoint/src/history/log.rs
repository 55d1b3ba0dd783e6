//! Reading and writing the history: opens it, starts attempts, appends records. Thin: what to do next is decided by the
//! pure parts ([`step`](super::step), [`start`](mod@super::start), [`standing`](super::standing)).

use std::{collections::BTreeMap, sync::Arc};

use env::{Env, FaultPoint, Store};
use types::{AttemptId, CheckpointId, Error, ErrorKind, JobId, Lineage, RecordNumber, Result, Uid};

use super::{
    fallback::{self, Fallback, SinkProof},
    from::From,
    lock::{self, JobLock},
    permit::{CommitPermit, DeletePermit},
    record::{Kind, Record},
    records::Records,
    standing::{Restores, Standing},
    start::{self, Candidate, Decision, Pending, RestorePlan, Source, StartRequest, Started},
    step::{Outcome, StartStep},
    unconfirmed::Unconfirmed,
};
use crate::{
    manifest::{self, Manifest},
    savepoint::SnapshotLocation,
    snapshots,
    storage::probe::probe,
};

/// The newest record of the history in `store`, `None` if there is no history. Changes nothing.
///
/// # Errors
/// `Corrupt` if that record is damaged or a newer one was lost; `Retryable` or `Unavailable`.
pub async fn open(env: &Env, store: Arc<dyn Store>) -> Result<Option<Arc<Record>>> {
    Records::new(env, store).newest().await
}

/// Starts an attempt: appends its start record, which fences every older attempt, and says what to restore.
///
/// # Errors
/// Nothing was changed: `Conflict` (another job's directory), `IncompatibleState` (max parallelism), `InvalidJob`
/// (no history), `Corrupt` (a file that would be needed is damaged or missing), `Fenced` (an automatic restart of a job
/// that was taken over), `Unavailable`. `Retryable` leaves open whether the attempt started; starting again is safe.
pub async fn start(
    env: &Env,
    store: Arc<dyn Store>,
    lock: &JobLock,
    request: &StartRequest,
) -> Result<Started> {
    if !request.automatic {
        probe(env, &*store, "checkpoint directory").await?;
    }
    start_in(Records::new(env, store), lock, request).await
}

/// How often a start begins anew because another process has gone on with the job while this one was reading: it reads
/// many times faster than checkpoints complete.
const OVERTAKEN_MAX: u32 = 16;

/// [`start()`] in given records, without the probe.
///
/// # Errors
/// As [`start()`].
pub async fn start_in(records: Records, lock: &JobLock, request: &StartRequest) -> Result<Started> {
    let env = records.env().clone();
    let store = Arc::clone(records.store());
    let mut starting = records.begin().await?;
    let (mut prepared, mut over, mut overtaken) = (None, None, 0);
    loop {
        match records.advance(&mut starting).await? {
            StartStep::Decide(newest) => {
                let standing = newest.as_ref().map(|newest| &newest.standing);
                let above =
                    newest.as_ref().map_or_else(|| "none".to_owned(), |newest| newest.number.to_string());
                let candidate = Candidate {
                    request,
                    instance: lock.instance,
                    process: &lock.process,
                    directory: store.url(),
                    new_job: JobId(lock::random_u128(&env, "job")),
                    new_lineage: Lineage(lock::random_u128(&env, &format!("lineage above record {above}"))),
                };
                let start = match start::decide(standing, &candidate)? {
                    Decision::Finished(at) => return Ok(Started::Finished { at }),
                    Decision::Start(start) => start,
                };
                over = standing
                    .filter(|it| request.from.continues(standing) && it.starts_over())
                    .map(start::why_over);
                // As it stood before: they are not unconfirmed any more once they are given up.
                let abandoned = match standing {
                    Some(standing) => Unconfirmed::read(&env, &*store, standing, &start.abandons).await?,
                    None => Vec::new(),
                };
                let kind = Kind::AttemptStarted(start);
                let record = Arc::new(Record::after(newest.as_deref(), env.wall(), kind)?);
                let continues =
                    standing.is_some_and(|it| it.attempt.lineage == record.standing.attempt.lineage);
                // All that will be needed is read before anything is written.
                let read = prepare(&env, &store, &record.standing, request).await;
                if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt)
                    && overtaken < OVERTAKEN_MAX
                    && records.newest().await?.map(|found| found.number) != newest.map(|newest| newest.number)
                {
                    // A process that is about to be taken over has deleted meanwhile what it no longer needs.
                    overtaken += 1;
                    starting = records.begin().await?;
                    continue;
                }
                prepared = Some(Prepared { abandoned, continues, ..read? });
                env.fault(FaultPoint::StartRecordBefore)?;
                starting.decided(record);
            }
            StartStep::Started(record) => {
                env.fault(FaultPoint::StartRecordAfter)?;
                records.write_hint(record.number).await?;
                let prepared = prepared.take().ok_or_else(|| Error::internal("started undecided"))?;
                let owed = request.revoke;
                let history = JobHistory { owed, ..JobHistory::owning(records, &record) };
                let mut plan = history.plan(prepared);
                if let Some(why) = over {
                    plan.summary = format!("{}: {why}", plan.summary);
                }
                if let (true, From::Gone { named, .. }) = (plan.continues, &request.from) {
                    plan.summary = format!(
                        "{}, in the line of history that began from {named}, which is there no more",
                        plan.summary
                    );
                }
                if let (true, From::Snapshot(location)) = (plan.continues, &request.from) {
                    plan.summary = format!(
                        "{}, in the line of history that began from checkpoint {} in {} (another one begins from \
                         there with --begin-again)",
                        plan.summary,
                        location.manifest.checkpoint,
                        location.url()
                    );
                }
                return Ok(Started::Running(Box::new(history), Box::new(plan)));
            }
            StartStep::LostRecord { .. } | StartStep::Call(_) => {
                return Err(records
                    .until_decision(&mut starting)
                    .await
                    .err()
                    .unwrap_or_else(|| Error::internal("a start stopped without a reason")));
            }
        }
    }
}

/// What was read for an attempt before its start record was written.
struct Prepared {
    pending: Vec<Pending>,
    abandoned: Vec<Unconfirmed>,
    continues: bool,
    source: Source,
}

/// Reads the manifests that an attempt with this standing will need.
async fn prepare(
    env: &Env,
    store: &Arc<dyn Store>,
    standing: &Standing,
    request: &StartRequest,
) -> Result<Prepared> {
    let read = async |checkpoint: CheckpointId, file| match manifest::read(env, &**store, file).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let choices = snapshots::choices(env, store, standing, checkpoint).await;
            Err(Error::corrupt(format!("checkpoint {checkpoint} cannot be used: {error}; {choices}")))
        }
        result => result.map(Arc::new),
    };
    let mut pending = Vec::new();
    for &checkpoint in standing.unconfirmed.iter().filter(|&&waiting| Some(waiting) != request.revoke) {
        let file = standing.checkpoint(checkpoint).map(|completed| &completed.manifest);
        let file = file.ok_or_else(|| Error::internal(format!("checkpoint {checkpoint} is not retained")))?;
        pending
            .push(Pending { permit: CommitPermit::new(checkpoint), manifest: read(checkpoint, file).await? });
    }
    let source = match &standing.attempt.restores {
        Restores::Empty => Source::Empty,
        Restores::Own(own) => {
            let read_already = pending.iter().find(|pending| pending.permit.checkpoint() == own.checkpoint);
            let manifest = match read_already {
                Some(pending) => Arc::clone(&pending.manifest),
                None => read(own.checkpoint, &own.manifest).await?,
            };
            Source::Own { checkpoint: own.clone(), manifest }
        }
        Restores::Foreign(foreign) => {
            let location = SnapshotLocation::reopen(env, foreign).await?;
            Source::Foreign { store: location.store, manifest: location.manifest }
        }
    };
    Ok(Prepared { pending, abandoned: Vec::new(), continues: false, source })
}

/// The history as the attempt that owns the job sees it. It appends until another attempt starts, and then never again.
pub struct JobHistory {
    records: Records,
    newest: Arc<Record>,
    writer: Writer,
    /// A damaged checkpoint that is to be revoked before anything else is recorded.
    owed: Option<CheckpointId>,
}

/// Whether this attempt may append.
#[derive(Clone, Debug)]
enum Writer {
    Owns,
    /// A record was lost to another attempt.
    Fenced(String),
    /// It is not known whether a record was created, so nobody knows what the next one would follow.
    Unclear,
}

/// A record that this attempt put into the history: the time to act on it is now.
#[derive(Clone, Debug)]
pub struct CreatedRecord {
    record: Arc<Record>,
}

impl CreatedRecord {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> RecordNumber {
        self.record.number
    }

    /// The right to commit, if the record completes a checkpoint.
    #[must_use]
    pub fn commit_permit(&self) -> Option<CommitPermit> {
        match &self.record.kind {
            Kind::CheckpointCompleted(completion) => Some(CommitPermit::new(completion.checkpoint)),
            _ => None,
        }
    }

    /// The right to delete, if the record marks garbage.
    #[must_use]
    pub fn delete_permit(&self) -> Option<DeletePermit> {
        let marks = matches!(self.record.kind, Kind::GarbageMarked(_));
        let mark = self.record.standing.garbage.last().filter(|_| marks);
        mark.map(|mark| DeletePermit::new(mark.clone()))
    }
}

impl JobHistory {
    /// The history of an attempt whose end is recorded, for whoever collects after it: nothing but garbage records can follow,
    /// and whoever starts the job fences both. `None` if its end is not recorded.
    #[must_use]
    pub fn after_end(records: Records, newest: &Arc<Record>) -> Option<Self> {
        newest.standing.end.as_ref().map(|_| Self::owning(records, newest))
    }

    fn owning(records: Records, start: &Arc<Record>) -> Self {
        Self { records, newest: Arc::clone(start), writer: Writer::Owns, owed: None }
    }

    /// Revokes the damaged checkpoint that this start falls back past, if each sink still proves that nothing of it was
    /// committed: `proofs` are to be asked for now, when the start record has fenced whoever could have gone on with it.
    /// Does nothing if the start falls back past none.
    ///
    /// The inner error is the reason why it is not revoked: nothing is changed then but the start record, and a later
    /// start decides anew. Until this has succeeded, nothing else can be appended but the attempt's end.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn revoke(
        &mut self,
        plan: &mut RestorePlan,
        proofs: &BTreeMap<Uid, SinkProof>,
    ) -> Result<Result<(), String>> {
        let Some(damaged) = self.owed else { return Ok(Ok(())) };
        if let Fallback::Refuse(why) = fallback::fallback(self.standing(), damaged, proofs) {
            return Ok(Err(why));
        }
        self.append(Kind::Revoked(damaged)).await?;
        plan.revoked.clone_from(&self.standing().revoked);
        Ok(Ok(()))
    }

    /// Appends a record. When this returns, the record is durable and decided, and acting on it is safe.
    ///
    /// # Errors
    /// `Fenced`: another attempt owns the job; every later call says the same. `Retryable`: it is unclear whether the
    /// record was created, and nothing more can be appended by this attempt: start a new one. `Unavailable`: it was not
    /// created and may be tried again. `Internal`: `kind` contradicts what holds.
    pub async fn append(&mut self, kind: Kind) -> Result<CreatedRecord> {
        match &self.writer {
            Writer::Owns => {}
            Writer::Fenced(why) => return Err(Error::fenced(why.clone())),
            Writer::Unclear => {
                return Err(Error::retryable(
                    "an earlier history record has an unclear fate: this attempt must be restarted",
                ));
            }
        }
        match (self.owed, &kind) {
            (None, _) | (_, Kind::Ended(_)) => {}
            (Some(owed), Kind::Revoked(revoked)) if owed == *revoked => {}
            (Some(owed), _) => {
                return Err(Error::internal(format!(
                    "{} before checkpoint {owed} is revoked, past which the attempt falls back",
                    kind.name()
                )));
            }
        }
        let env = self.records.env().clone();
        let (before, after) = fault_points(&kind);
        let record = Arc::new(Record::after(Some(&*self.newest), env.wall(), kind)?);
        if let Some(before) = before {
            env.fault(before)?;
        }
        // Until the outcome is known, and for good if this future is dropped.
        self.writer = Writer::Unclear;
        let outcome = self.records.append(Arc::clone(&record)).await;
        match outcome {
            Ok(Outcome::Won) => {}
            Ok(Outcome::Lost(newer)) => return Err(self.fenced(&newer)),
            Ok(Outcome::Past) => return Err(self.fenced(&record)),
            Err(error) => {
                if error.kind() == ErrorKind::Unavailable {
                    self.writer = Writer::Owns;
                }
                return Err(error);
            }
        }
        if let Some(after) = after {
            env.fault(after)?;
        }
        self.records.write_hint(record.number).await?;
        self.newest = Arc::clone(&record);
        self.writer = Writer::Owns;
        // Nothing else could be appended while something was owed.
        self.owed = None;
        Ok(CreatedRecord { record })
    }

    fn fenced(&mut self, newer: &Record) -> Error {
        let other = &newer.standing.attempt;
        let by = if other.id == self.attempt() {
            "another attempt".to_owned()
        } else {
            format!("attempt {} ({})", other.id, other.process)
        };
        let why = format!("job {:?} was taken over by {by}: this process must end", self.standing().job_name);
        self.writer = Writer::Fenced(why.clone());
        Error::fenced(why)
    }

    /// What holds.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.newest.standing
    }

    /// The newest record.
    #[must_use]
    pub fn newest(&self) -> &Arc<Record> {
        &self.newest
    }

    /// This attempt.
    #[must_use]
    pub fn attempt(&self) -> AttemptId {
        self.standing().attempt.id
    }

    /// The line of history.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.standing().attempt.lineage
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.standing().job
    }

    /// The records below.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The rights to delete what earlier garbage marks list; this attempt's start record restated them.
    #[must_use]
    pub fn open_garbage(&self) -> Vec<DeletePermit> {
        self.standing().garbage.iter().cloned().map(DeletePermit::new).collect()
    }

    fn plan(&self, prepared: Prepared) -> RestorePlan {
        let (standing, Prepared { pending, abandoned, continues, source }) = (self.standing(), prepared);
        RestorePlan {
            revoked: standing.revoked.clone(),
            summary: summary(standing, &source),
            pending,
            abandoned,
            source,
            continues,
            first_checkpoint: standing.highest_checkpoint.next(),
        }
    }
}

fn summary(standing: &Standing, source: &Source) -> String {
    let (job, attempt) = (&standing.job_name, standing.attempt.id);
    let of =
        |manifest: &Manifest| format!("checkpoint {} of attempt {}", manifest.checkpoint, manifest.attempt);
    match source {
        Source::Empty => format!("job {job:?}, attempt {attempt}: starts fresh"),
        Source::Own { manifest, .. } => {
            format!("job {job:?}, attempt {attempt}: continues from {}", of(manifest))
        }
        Source::Foreign { store, manifest } => {
            format!("job {job:?}, attempt {attempt}: starts from {} in {}", of(manifest), store.url())
        }
    }
}

/// The fault points before and after the creation of a record.
fn fault_points(kind: &Kind) -> (Option<FaultPoint>, Option<FaultPoint>) {
    use FaultPoint as P;
    let (before, after) = match kind {
        Kind::CheckpointCompleted(_) => (P::CompletedRecordBefore, P::CompletedRecordAfter),
        Kind::SinksConfirmed(_) => (P::ConfirmBefore, P::ConfirmAfter),
        Kind::GarbageMarked(_) => (P::GarbageRecordBefore, P::GarbageRecordAfter),
        Kind::Ended(_) => (P::FinishedRecordBefore, P::FinishedRecordAfter),
        Kind::AttemptStarted(_) | Kind::SavepointCompleted(_) | Kind::Revoked(_) | Kind::GarbageDone(_) => {
            return (None, None);
        }
    };
    (Some(before), Some(after))
}
