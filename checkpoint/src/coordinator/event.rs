//! The words between the coordinator and the engine: what happened ([`Event`]), what is to be done ([`Decision`]).

use serde::{Deserialize, Serialize};
use types::{AttemptId, CheckpointId, Error, ErrorKind, Result, SnapshotFile};

use crate::{
    barrier::{Barrier, BarrierKind, complete::Capture},
    history::{CheckpointKind, Completion, EndKind, Kind, Savepoint},
    manifest::{Manifest, TaskId, TaskSnapshot},
};

/// Names a request of a user, chosen by the engine, so that its answer finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What a task reports to the coordinator. This is the message itself; the engine adds attempt and task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskReport {
    /// A source task has cut, and the barrier is on its way into its channels, behind what was pushed there.
    Injected {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// A source task has nothing more to read.
    SourceFinished,
    /// The task's runs and its sink's transactions are durable; what is small comes along in `snapshot` and is durable with
    /// the manifest.
    Acked {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What it holds.
        snapshot: TaskSnapshot,
    },
    /// The task cannot take part in the checkpoint.
    Declined {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why, for people.
        reason: String,
    },
    /// The task's sinks have committed the checkpoint and all before it.
    Committed {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// All tasks of the attempt run: checkpoints may begin.
    TasksRunning,
    /// The time that [`Coordinator::next_wakeup`](super::Coordinator::next_wakeup) named has come.
    TimePassed,
    /// A user asks for a checkpoint.
    TriggerCheckpoint {
        /// The request.
        request: RequestId,
    },
    /// A user asks for a savepoint.
    TriggerSavepoint {
        /// The request.
        request: RequestId,
        /// Where to.
        dir: String,
    },
    /// A user asks the job to stop with a last checkpoint.
    Stop {
        /// The request.
        request: RequestId,
        /// Fire all event-time timers first.
        drain: bool,
        /// Where to copy the last checkpoint, if anywhere.
        savepoint: Option<String>,
    },
    /// A user asks the job to end now; what it did since the last checkpoint is dropped.
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// The answer to [`Decision::Inject`]. What it holds was taken before any source was asked, and nothing was assigned or
    /// discovered meanwhile.
    Captured {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What was taken.
        capture: Capture,
    },
    /// A task reports.
    Task {
        /// The attempt that the task belongs to; reports of other attempts have no effect.
        attempt: AttemptId,
        /// The task.
        task: TaskId,
        /// What it says.
        report: TaskReport,
    },
    /// The manifest is durable.
    ManifestWritten {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The manifest's file.
        file: SnapshotFile,
    },
    /// The manifest could not be written.
    ManifestFailed {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        error: Error,
    },
    /// The record of the last [`Decision::Record`] is in the history.
    Recorded,
    /// The record of the last [`Decision::Record`] was certainly not created (`Unavailable`), or another attempt owns
    /// the history (`Fenced`), or it is not known what became of it (any other kind).
    RecordFailed {
        /// Why.
        error: Error,
    },
    /// A savepoint is whole.
    SavepointCopied {
        /// The checkpoint it is a copy of.
        checkpoint: CheckpointId,
        /// Where it is.
        dir: String,
        /// Its manifest.
        manifest: SnapshotFile,
    },
    /// A savepoint could not be made.
    SavepointFailed {
        /// The checkpoint it would have been a copy of.
        checkpoint: CheckpointId,
        /// Where it would have been.
        dir: String,
        /// Why.
        error: Error,
    },
    /// The attempt failed otherwise (a task, a process): nothing of it goes on. A job that was being cancelled is
    /// cancelled thereby.
    JobFailed {
        /// What kind of failure.
        kind: ErrorKind,
        /// Why, for those whose requests are open.
        reason: String,
    },
    /// Another attempt owns the history: nothing of this one goes on, and it can end nothing, nor cancel.
    Fenced {
        /// Why, for those whose requests are open.
        reason: String,
    },
}

/// How a job ends, as the history says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// All input was read and all output committed.
    Finished,
    /// Stopped on request with a last checkpoint.
    Stopped,
    /// Cancelled on request.
    Cancelled,
}

/// A record to append to the job history, as a [`Kind`]. There is never more than one on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A checkpoint is complete: the commit point.
    Completed {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What its barrier asked for.
        kind: BarrierKind,
        /// Its manifest.
        manifest: SnapshotFile,
    },
    /// All sinks have committed the checkpoint and those before it. Follows every completed checkpoint, also one for
    /// which no sink prepared anything, unless a newer one covers it.
    Confirmed {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// A savepoint is whole.
    Savepoint {
        /// The checkpoint it is a copy of.
        checkpoint: CheckpointId,
        /// Where it is.
        dir: String,
        /// Its manifest.
        manifest: SnapshotFile,
    },
    /// The job has ended.
    Ended(End),
}

impl From<End> for EndKind {
    fn from(end: End) -> Self {
        match end {
            End::Finished => Self::Finished,
            End::Stopped => Self::Stopped,
            End::Cancelled => Self::Cancelled,
        }
    }
}

impl From<BarrierKind> for CheckpointKind {
    fn from(kind: BarrierKind) -> Self {
        match kind {
            BarrierKind::Checkpoint => Self::Ordinary,
            BarrierKind::Savepoint => Self::Savepoint,
            BarrierKind::Stop { .. } => Self::Stop,
            BarrierKind::Last => Self::Last,
        }
    }
}

impl From<Record> for Kind {
    fn from(record: Record) -> Self {
        match record {
            Record::Completed { checkpoint, kind, manifest } => {
                Self::CheckpointCompleted(Completion { checkpoint, manifest, kind: kind.into() })
            }
            Record::Confirmed { checkpoint } => Self::SinksConfirmed(checkpoint),
            Record::Savepoint { checkpoint, dir, manifest } => {
                Self::SavepointCompleted(Savepoint { checkpoint, url: dir, manifest })
            }
            Record::Ended(end) => Self::Ended(end.into()),
        }
    }
}

/// What a request gets when it went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A checkpoint is in the history.
    Checkpoint(CheckpointId),
    /// A savepoint is whole and recorded.
    Savepoint {
        /// The checkpoint it is a copy of.
        checkpoint: CheckpointId,
        /// Where it is.
        dir: String,
    },
    /// What nothing needs any more is deleted.
    Collected {
        /// How many files that were.
        files: u64,
        /// Whether there are more: ask again.
        more: bool,
    },
    /// The job has ended.
    Ended {
        /// How: a job asked to stop may have finished.
        end: End,
        /// The last checkpoint in the history, of a job that stopped or finished.
        checkpoint: Option<CheckpointId>,
        /// What became of the savepoint asked for: its place, or why there is none.
        savepoint: Option<Result<String, String>>,
    },
}

/// What is to be done, in the order given.
#[derive(Debug)]
pub enum Decision {
    /// At once capture the enumerators, then ask every source task to inject; the answer is [`Event::Captured`].
    Inject(Barrier),
    /// Tell all tasks that the checkpoint is given up.
    CancelCheckpoint {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Make the manifest durable.
    WriteManifest(Box<Manifest>),
    /// Append to the history.
    Record(Record),
    /// The checkpoint is in the history: tell all tasks. Those with a two-phase sink commit it and report `Committed`; what
    /// cannot be committed ends the attempt.
    Commit {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Copy the checkpoint into a directory of the user.
    CopySavepoint {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Where to.
        dir: String,
    },
    /// Assignments and discoveries of splits that wait for this source task may go.
    ReleaseAssignments {
        /// The source task.
        task: TaskId,
    },
    /// A good moment to collect garbage.
    Collect {
        /// Checkpoints that must stay whatever their age: savepoints are being copied from them.
        pinned: Vec<CheckpointId>,
    },
    /// Answer a user.
    Answer {
        /// The request.
        request: RequestId,
        /// The answer.
        result: Result<Answer>,
    },
    /// Something is wrong that people should see; the job goes on.
    Alert {
        /// What.
        error: Error,
    },
    /// The end is recorded: end all tasks together. The coordinator is done.
    Finish(End),
    /// The attempt has failed: ask the restart strategy. The coordinator is done.
    FailJob {
        /// Why.
        error: Error,
    },
    /// Restart from the last completed checkpoint without asking the restart strategy: a drain failed, and the last
    /// watermark that it sent cannot be taken back. The coordinator is done.
    Restart {
        /// Why.
        error: Error,
    },
}
