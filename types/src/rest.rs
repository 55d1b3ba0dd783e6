//! What goes over REST as JSON: written by a job's server, read by the command line. Both use these types and neither
//! knows the other's code.
//!
//! Fields may be added in later versions and readers skip those that they do not know; none is renamed or removed.
//! Requests are read strictly: a field that the server does not know is a mistake of the caller.

use serde::{Deserialize, Serialize};

/// The answer to `GET /jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs that the process runs.
    pub jobs: Vec<JobSummary>,
}

/// A job of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its name.
    pub name: String,
    /// Its state, in one lower-case word.
    pub state: String,
    /// The running attempt, once there is one.
    pub attempt: Option<u64>,
    /// Since the process began with the job, in milliseconds.
    pub uptime_ms: u64,
    /// Attempts started after failures in this process.
    pub restarts: u32,
    /// Checkpoints completed by this process.
    pub checkpoints: u64,
}

/// The answer to `GET /jobs/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetails {
    /// Its name.
    pub name: String,
    /// Its state, in one lower-case word.
    pub state: String,
    /// The running attempt, once there is one.
    pub attempt: Option<u64>,
    /// The attempt's line of history: 32 hex digits.
    pub lineage: Option<String>,
    /// What the attempt restored, in one line.
    pub started_from: String,
    /// What was read for it.
    #[serde(default)]
    pub restored: RestoredState,
    /// Where checkpoints go, if anywhere.
    pub checkpoint_url: Option<String>,
    /// Since the process began with the job, in milliseconds.
    pub uptime_ms: u64,
    /// Attempts started after failures in this process.
    pub restarts: u32,
    /// The tasks of the running attempt, in the order of the stream.
    pub tasks: Vec<TaskDetails>,
    /// The checkpoints.
    pub checkpoints: CheckpointCounts,
    /// The newest failures, oldest first.
    pub failures: Vec<FailureDetails>,
}

/// What the tasks of an attempt have read of run files to restore their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredState {
    /// Bytes from copies on the tasks' machines; none without local recovery.
    pub local_bytes: Option<u64>,
    /// Bytes from the checkpoint store.
    pub store_bytes: u64,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDetails {
    /// Its chain's place in the plan.
    pub chain: u32,
    /// Its place among the chain's subtasks.
    pub subtask: u32,
    /// The operators of its chain, in order: uid where there is one, or kind.
    pub operators: Vec<String>,
    /// Its state, in one lower-case word.
    pub state: String,
    /// What its last acknowledged checkpoint cost.
    pub last_snapshot: SnapshotCost,
}

/// What a checkpoint cost on one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCost {
    /// Changed cells that were drained.
    pub cells: u64,
    /// Bytes of new files.
    pub bytes_added: u64,
    /// From the first barrier to the last one of the task's inputs, in microseconds.
    pub alignment_us: u64,
    /// The longest single step of snapshot work, in microseconds.
    pub longest_pause_us: u64,
}

/// The checkpoints of a job, as far as its process knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCounts {
    /// Completed by this process.
    pub completed: u64,
    /// Given up by the running attempt.
    pub failed: u64,
    /// Under way.
    pub in_progress: u64,
    /// The newest in the job history.
    pub newest: Option<u64>,
    /// The longest single step of snapshot work on any task, in microseconds.
    pub longest_pause_us: u64,
    /// The newest ones of the running attempt, oldest first.
    pub history: Vec<CheckpointDetails>,
}

/// One checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointDetails {
    /// Its number.
    pub checkpoint: u64,
    /// `checkpoint`, `savepoint`, `stop` or `last`.
    pub kind: String,
    /// `in-progress`, `completed` or `failed`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// How long ago it was triggered, in milliseconds.
    pub triggered_ms_ago: u64,
    /// From the trigger to its end, in milliseconds; none while it is under way.
    pub duration_ms: Option<u64>,
    /// Tasks that have acknowledged it.
    pub acknowledged: u64,
    /// Tasks that must.
    pub tasks: u64,
    /// The length of all files that it refers to, shared ones included.
    pub bytes: u64,
}

/// A failure of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDetails {
    /// How long ago it was seen, in milliseconds.
    pub ms_ago: u64,
    /// What happened, in one line.
    pub message: String,
}

/// The body of `POST /jobs/NAME/checkpoint`, `cancel` and `gc`: nothing, or an empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// The body of `POST /jobs/NAME/savepoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SavepointRequest {
    /// An empty directory or a new one, as the job's process sees it. Without it the job chooses one beside its
    /// checkpoint directory.
    pub dir: Option<String>,
}

/// The body of `POST /jobs/NAME/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Fire all event-time timers first: for a job whose input will not go on.
    pub drain: bool,
    /// Where to copy the last checkpoint, if anywhere.
    pub savepoint: Option<String>,
}

/// The answer to `POST /jobs/NAME/checkpoint`: the checkpoint is in the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointTaken {
    /// Its number.
    pub checkpoint: u64,
}

/// The answer to `POST /jobs/NAME/gc`: what nothing needs any more is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageCollected {
    /// How many files that were.
    pub files: u64,
    /// Whether there are more than are deleted at a time: ask again.
    pub more: bool,
}

/// The answer to `POST /jobs/NAME/savepoint`: the savepoint is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointTaken {
    /// The checkpoint that it is a copy of.
    pub checkpoint: u64,
    /// Where it is.
    pub dir: String,
}

/// The answer to `POST /jobs/NAME/stop` and `POST /jobs/NAME/cancel`: the job has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnded {
    /// `stopped` or `cancelled`; `finished` if the input ended first.
    pub how: String,
    /// The last checkpoint in the history, of a job that stopped or finished.
    pub checkpoint: Option<u64>,
    /// Where the savepoint asked for is.
    pub savepoint: Option<String>,
    /// Why there is no savepoint although one was asked for.
    pub savepoint_failure: Option<String>,
}

/// Any answer but success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorDetails,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetails {
    /// The [name](crate::ErrorKind::name) of its kind.
    pub kind: String,
    /// One line: what is wrong and what to do.
    pub message: String,
}

impl From<&crate::Error> for ErrorAnswer {
    fn from(error: &crate::Error) -> Self {
        Self { error: ErrorDetails { kind: error.kind().name().to_owned(), message: error.to_string() } }
    }
}

impl From<ErrorAnswer> for crate::Error {
    fn from(ErrorAnswer { error }: ErrorAnswer) -> Self {
        let kind = crate::ErrorKind::from_name(&error.kind).unwrap_or(crate::ErrorKind::Internal);
        Self::new(kind, error.message)
    }
}
