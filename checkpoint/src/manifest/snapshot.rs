//! What one checkpoint holds, operator by operator. Tasks send their part in an acknowledgement; the coordinator puts
//! the parts together into a [`Manifest`].

use serde::{Deserialize, Serialize};
use types::{
    AttemptId, CheckpointId, Error, JobId, KeyGroupRange, Lineage, MaxParallelism, Result, Run, SnapshotFile,
    SubtaskIndex, Timestamp, Uid,
};

use super::ListElements;

/// A task: one parallel instance of a chain. The same chain has the same number in all processes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The chain's place in the physical plan, from 0 on.
    pub chain: u32,
    /// The subtask.
    pub subtask: SubtaskIndex,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {}/{}", self.chain, self.subtask)
    }
}

/// How the elements of an operator list state are dealt out at another parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Redistribution {
    /// Round robin, each element to one subtask.
    Split,
    /// All elements to every subtask.
    Union,
    /// Every subtask holds the same elements. The part of the first one stands for all, and each gets it.
    Broadcast,
}

impl Redistribution {
    /// What such a state is called, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "list",
            Self::Union => "union list",
            Self::Broadcast => "broadcast",
        }
    }
}

/// One subtask's part of an operator list state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListPart {
    /// The state's name.
    pub name: String,
    /// How it is dealt out.
    pub redistribution: Redistribution,
    /// The codec of the elements.
    pub codec: String,
    /// The canonical bytes of the elements' shape.
    pub shape: Vec<u8>,
    /// The elements, encoded, in order.
    pub elements: ListElements,
}

impl ListPart {
    /// Whether one part stands for all subtasks.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.redistribution == Redistribution::Broadcast
    }
}

/// A transaction that a sink prepared and that is committed once the checkpoint is in the history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PreparedTransaction {
    /// The lineage under which it was written.
    pub lineage: Lineage,
    /// The subtask that wrote it.
    pub writer: SubtaskIndex,
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// The checkpoint that sealed it; earlier than the manifest's where that checkpoint failed.
    pub checkpoint: CheckpointId,
    /// What the committer needs to finish it anywhere.
    pub payload: Vec<u8>,
    /// The file that holds its rows, where they are too large for the payload.
    pub file: Option<SnapshotFile>,
}

/// The state of one subtask of one operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubtaskSnapshot {
    /// The subtask.
    pub subtask: SubtaskIndex,
    /// Its key groups; empty for an operator without keyed state.
    pub groups: KeyGroupRange,
    /// The runs of its keyed state, oldest first: between runs this order decides.
    pub runs: Vec<Run>,
    /// Operator list states.
    pub lists: Vec<ListPart>,
    /// Prepared transactions, oldest first.
    pub prepared: Vec<PreparedTransaction>,
    /// The watermark at the cut; of a source, that of the watermark strategy in its chain.
    pub watermark: Timestamp,
    /// The processing time at the cut.
    pub processing_time: Timestamp,
}

/// What one task acknowledges: a part for each of its operators that owns something durable, in chain order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// The task.
    pub task: TaskId,
    /// Its operators' parts.
    pub operators: Vec<(Uid, SubtaskSnapshot)>,
}

/// A declared keyed state, as the manifest remembers it (the run files say the same for what they hold).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateDescription {
    /// Its name.
    pub name: String,
    /// `value`, `list`, `map`, `reducing`, `aggregating`, `timers`.
    pub kind: String,
    /// The codec of its values.
    pub codec: String,
    /// The canonical bytes of the value's shape.
    pub shape: Vec<u8>,
    /// The canonical bytes of the map key's shape; empty where there is none.
    pub map_key_shape: Vec<u8>,
}

/// One operator in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// Its uid.
    pub uid: Uid,
    /// Its kind, for people: `source`, `fold`, `process`, `sink`, ...
    pub kind: String,
    /// Its parallelism.
    pub parallelism: u32,
    /// The canonical bytes of its key's shape; empty if it is not keyed.
    pub key_shape: Vec<u8>,
    /// Its keyed states, sorted by name.
    pub states: Vec<StateDescription>,
    /// Its subtasks, in order, all of them.
    pub subtasks: Vec<SubtaskSnapshot>,
    /// The split enumerator's state, of a source: what is known and not assigned.
    pub enumerator: Option<Vec<u8>>,
}

/// What kind of snapshot a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// Taken and owned by the job.
    Checkpoint,
    /// A copy that belongs to the user.
    Savepoint,
}

/// Everything that a checkpoint or savepoint holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manifest {
    /// Checkpoint or savepoint.
    pub kind: SnapshotKind,
    /// The job's name.
    pub job_name: String,
    /// The job.
    pub job: JobId,
    /// The line of history it belongs to.
    pub lineage: Lineage,
    /// The attempt that took it.
    pub attempt: AttemptId,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// The job's max parallelism.
    pub max_parallelism: MaxParallelism,
    /// Whether the last watermark had been sent: its timers have fired.
    pub drained: bool,
    /// Whether all sources had ended: nothing is left to do.
    pub ended: bool,
    /// The wall-clock time at which it was triggered.
    pub triggered_at: Timestamp,
    /// The operators that own something durable, sorted by uid.
    pub operators: Vec<OperatorSnapshot>,
}

impl Manifest {
    /// The operator of this uid.
    ///
    /// # Errors
    /// `InvalidJob` with those that there are.
    pub fn operator(&self, uid: &str) -> Result<&OperatorSnapshot> {
        self.operators.iter().find(|operator| operator.uid.as_str() == uid).ok_or_else(|| {
            let uids: Vec<&str> = self.operators.iter().map(|operator| operator.uid.as_str()).collect();
            let there = if uids.is_empty() { "none".to_owned() } else { uids.join(", ") };
            Error::invalid_job(format!("the snapshot has no operator {uid:?}; it has {there}"))
        })
    }

    /// Every file that the snapshot needs, each path once, sorted by path.
    #[must_use]
    pub fn files(&self) -> Vec<&SnapshotFile> {
        let subtasks = || self.operators.iter().flat_map(|operator| &operator.subtasks);
        let most = subtasks().map(|subtask| subtask.runs.len() + subtask.prepared.len()).sum();
        // In one piece and without another one for sorting, since what is read may be as large as it likes.
        let mut files = Vec::with_capacity(most);
        for subtask in subtasks() {
            files.extend(subtask.runs.iter().map(|run| &run.file));
            files.extend(subtask.prepared.iter().filter_map(|prepared| prepared.file.as_ref()));
        }
        files.sort_unstable();
        files.dedup();
        files
    }
}
