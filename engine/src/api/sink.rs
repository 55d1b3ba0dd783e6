//! The contracts of sinks: the plain [`Sink`] (at least once), and [`TwoPhaseSink`] (exactly once).
//!
//! Two-phase commit, per checkpoint: `write`* -> `seal` (at the barrier, no I/O) -> `prepare` (durable before the task
//! acknowledges) -> the checkpoint's record is created in the job history -> `commit`. After a failure the
//! [`Committer`] works without any writer: it commits what the history completed, then revokes what the history revoked,
//! then sweeps the rest.

use std::future::Future;

use env::Env;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use types::{AttemptId, CheckpointId, JobId, Lineage, Result, SubtaskIndex, Uid};

use crate::record::Batch;

/// What a sink knows about where it runs.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The sink's uid. In a committer for what the sink left outside under a former name: that name.
    pub uid: Uid,
    /// All names of the sink, the present one first. A place outside that belongs to any of them is the sink's own.
    pub names: Vec<Uid>,
    /// The way to the world.
    pub env: Env,
    /// The job.
    pub job: JobId,
    /// The line of history that this attempt continues or begins.
    pub lineage: Lineage,
    /// The running attempt; the greatest number there is for a committer that is only asked, before there is an attempt.
    pub attempt: AttemptId,
    /// The writing subtask; 0 for a committer that works without a writer.
    pub subtask: SubtaskIndex,
    /// The sink's parallelism.
    pub parallelism: u32,
    /// Where the job's checkpoints are, for people: an absolute path, or a URL.
    pub checkpoints: String,
}

/// A sink without transactions. After a failure records may be written again: at least once.
pub trait Sink: Clone + Send + Sync + 'static {
    /// The records.
    type In: Send + 'static;
    /// What writes, one for each subtask.
    type Writer: PlainWriter<In = Self::In>;

    /// Checks the settings when the job is built.
    ///
    /// # Errors
    /// `InvalidJob`: what is wrong and what to write instead.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Opens the writer of a subtask.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn writer(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Writer>> + Send;
}

/// Writes records as they come.
pub trait PlainWriter: Send + 'static {
    /// The records.
    type In: Send + 'static;

    /// Writes all records of a batch. Need not be cancel-safe.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn write(&mut self, batch: Batch<Self::In>) -> impl Future<Output = Result<()>> + Send;

    /// Makes everything written visible and durable: called at each barrier, before the acknowledgement, and at the
    /// end. The task reads nothing meanwhile.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Names one transaction of one sink, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId {
    /// The job.
    pub job: JobId,
    /// The sink's uid.
    pub sink: Uid,
    /// The line of history under which it was written.
    pub lineage: Lineage,
    /// The subtask that wrote it.
    pub writer: SubtaskIndex,
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// The checkpoint whose barrier sealed it.
    pub checkpoint: CheckpointId,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Committed, now or earlier.
    Committed,
    /// Unknown or not yet: the same call is made again, with back-off, for ever. The text says why.
    Retry(String),
    /// It can never be committed: the job stops. The text says what is lost.
    Lost(String),
}

/// What a sink holds that was committed: compared with the job history before sources start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Marker {
    /// The line of history.
    pub lineage: Lineage,
    /// The newest committed checkpoint of that line.
    pub checkpoint: CheckpointId,
    /// Where it was found, for messages.
    pub place: String,
}

/// A sink whose output is exactly-once: prepared with a checkpoint, visible once that checkpoint is in the history.
pub trait TwoPhaseSink: Clone + Send + Sync + 'static {
    /// The records.
    type In: Send + 'static;
    /// What a writer hands over at a barrier: not yet durable, still bound to this process.
    type Sealed: Send + 'static;
    /// What a committer needs to finish anywhere. Stored in the checkpoint; keep it under 4 KiB.
    type Prepared: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// What writes, one for each subtask.
    type Writer: TwoPhaseWriter<In = Self::In, Sealed = Self::Sealed>;
    /// What prepares, commits, throws away; one beside each writer, and one at each start without a writer.
    type Committer: Committer<Sealed = Self::Sealed, Prepared = Self::Prepared>;

    /// Checks the settings when the job is built.
    ///
    /// # Errors
    /// `InvalidJob`: what is wrong and what to write instead.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Where it writes, in words that are the same however the place was named: an absolute path, say. `None`: nowhere that
    /// could be confused. Checkpoints remember it, and a start that goes on elsewhere is refused unless the user says so.
    /// Called once in each process, in the JobManager.
    ///
    /// # Errors
    /// As the outside says; the job does not start.
    fn place(&self, env: &Env) -> impl Future<Output = Result<Option<String>>> + Send {
        let _nowhere = env;
        std::future::ready(Ok(None))
    }

    /// Opens the writer of a subtask. Called after the committer has swept.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn writer(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Writer>> + Send;

    /// Opens a committer.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn committer(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Committer>> + Send;
}

/// The half of a two-phase sink that lives on the task.
pub trait TwoPhaseWriter: Send + 'static {
    /// The records.
    type In: Send + 'static;
    /// What is handed over at a barrier.
    type Sealed: Send + 'static;

    /// Writes all records of a batch into the open transaction; nothing may become visible. Need not be cancel-safe.
    ///
    /// # Errors
    /// As the outside says; the attempt fails.
    fn write(&mut self, batch: Batch<Self::In>) -> impl Future<Output = Result<()>> + Send;

    /// Ends the open transaction at the barrier of `id.checkpoint` without I/O; `None` if nothing was written.
    ///
    /// # Errors
    /// Only a broken invariant; the attempt fails.
    fn seal(&mut self, id: &TransactionId) -> Result<Option<Self::Sealed>>;
}

/// The half of a two-phase sink that needs no writer alive.
///
/// All calls are idempotent and may come from another process. Commits of one writer come in checkpoint order. No
/// transaction is thrown away while its attempt runs: one of a checkpoint that failed is part of the next one.
pub trait Committer: Send + 'static {
    /// What a writer sealed.
    type Sealed: Send + 'static;
    /// What is stored in the checkpoint.
    type Prepared: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// Makes a sealed transaction durable: when it returns, a kill loses nothing. Not visible yet.
    ///
    /// # Errors
    /// As the outside says; the attempt fails and the transaction is swept at the next start.
    fn prepare(
        &mut self,
        id: &TransactionId,
        sealed: Self::Sealed,
    ) -> impl Future<Output = Result<Self::Prepared>> + Send;

    /// Makes a prepared transaction visible, all of it at once, and durable. Where that takes several steps outside, it
    /// calls `env.fault` with [`PublishBefore`](env::FaultPoint::PublishBefore) and
    /// [`PublishAfter`](env::FaultPoint::PublishAfter) around each: there a conformance kit kills it. Once a sync has failed,
    /// no later one of this process proves that anything is durable: `Lost`, then, in place of a second try.
    ///
    /// # Errors
    /// Like [`CommitOutcome::Retry`] for `Retryable`; other kinds end the attempt without losing the transaction.
    fn commit(
        &mut self,
        id: &TransactionId,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Result<CommitOutcome>> + Send;

    /// Makes sure that nobody can commit this transaction any more; `false` if it was committed already. Called at a
    /// start, when all that is to be committed is, and before [`sweep`](Self::sweep): it may shut out older transactions
    /// as well.
    ///
    /// # Errors
    /// As the outside says.
    fn revoke(
        &mut self,
        id: &TransactionId,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Throws away everything of this job and sink that an attempt before [`SinkContext::attempt`] left, any writer's,
    /// that is neither committed nor in `keep`. Never anything of this or a later attempt: a rival that started later
    /// may have prepared what the history completes. Called at each start, once for each name of the sink, when all
    /// that is to be committed is, and before any writer opens.
    ///
    /// # Errors
    /// As the outside says.
    fn sweep(&mut self, keep: &[TransactionId]) -> impl Future<Output = Result<()>> + Send;

    /// Whether all of a prepared transaction is here, committed or not. Changes nothing outside. Called before a start
    /// whose [`place`](TwoPhaseSink::place) is not the one that the snapshot remembers: a transaction that was left behind
    /// there would be lost. A sink without a place is never asked.
    ///
    /// # Errors
    /// As the outside says; the job does not start.
    fn finds(
        &mut self,
        id: &TransactionId,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _unknown = (id, prepared);
        std::future::ready(Ok(false))
    }

    /// What the sink holds that was committed under this job and sink, whatever the line of history, and anything
    /// foreign found at its place.
    ///
    /// # Errors
    /// `Conflict` if the place belongs to another job; as the outside says.
    fn held(&mut self) -> impl Future<Output = Result<Vec<Marker>>> + Send;
}
