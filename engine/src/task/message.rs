//! What a task is told and what it reports: the same messages whether its JobManager is in this process or not.

use checkpoint::{barrier::Barrier, history::CommitPermit, manifest::TaskSnapshot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{CheckpointId, Error, ErrorKind};

use crate::api::erased::SplitState;

/// From the JobManager to one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskCommand {
    /// Sources: send this barrier.
    Inject(Barrier),
    /// This checkpoint is given up.
    CancelCheckpoint(CheckpointId),
    /// Sources: read these splits.
    Assign(Vec<SplitState>),
    /// Sources: no further split will come.
    NoMoreSplits,
    /// The checkpoint is in the job history: sinks commit it.
    Commit(Permitted),
    /// The last checkpoint is committed: close and end.
    Finish,
}

/// A checkpoint whose commit is permitted: there is one only where somebody has held its permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permitted {
    checkpoint: CheckpointId,
}

impl Permitted {
    /// What the permit permits.
    #[must_use]
    pub fn by(permit: &CommitPermit) -> Self {
        Self { checkpoint: permit.checkpoint() }
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(self) -> CheckpointId {
        self.checkpoint
    }
}

/// From one task to the JobManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskReport {
    /// State restored, operators opened, reading.
    Running(RestoredBytes),
    /// Sources: cut, and the barrier is on its way into the channels, behind what was pushed there.
    Injected(CheckpointId),
    /// The task's runs and its sink's transactions are durable; what is small comes along in `snapshot` and is durable with
    /// the manifest.
    Acked {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The state.
        snapshot: TaskSnapshot,
        /// What it cost.
        stats: SnapshotStats,
    },
    /// This checkpoint cannot be taken; the next one may.
    Declined {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// Sources: a split was read to its end, or none was there: assign the next.
    SplitWanted,
    /// Sources: everything assigned was read, and no more will come.
    SourceEnded,
    /// Sinks: everything up to this checkpoint is committed.
    Committed(CheckpointId),
    /// Closed and ended.
    Finished,
    /// Ended by an error.
    Failed(Failure),
}

/// What one task, or an attempt, has read of run files to restore its state, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredBytes {
    /// From copies on the task's machine; `None` without local recovery.
    pub local: Option<u64>,
    /// From the checkpoint store.
    pub store: u64,
}

impl RestoredBytes {
    /// Adds what another task has read.
    pub(crate) fn add(&mut self, other: Self) {
        self.local = self.local.max(other.local).map(|_| self.local.unwrap_or(0) + other.local.unwrap_or(0));
        self.store += other.store;
    }

    /// In words, where there is local recovery and something was restored.
    pub(crate) fn text(self) -> Option<String> {
        let Self { local, store } = self;
        let local = local.filter(|local| local + store > 0)?;
        Some(format!(
            "its state is restored: {local} bytes read from copies on this machine, {store} from the checkpoint store"
        ))
    }
}

/// What one task, or a job, has done in one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTotals {
    /// Records that its sources emitted.
    pub records: u64,
    /// The user's accumulators.
    pub accumulators: BTreeMap<String, u64>,
}

impl TaskTotals {
    /// Adds those of another task.
    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        for (name, value) in other.accumulators {
            *self.accumulators.entry(name).or_default() += value;
        }
    }
}

/// What a checkpoint cost on one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStats {
    /// From the first barrier to the last one of the task's inputs, in microseconds.
    pub alignment_us: u64,
    /// The longest single step of snapshot work on the processing task, in microseconds of wall-clock time.
    pub longest_pause_us: u64,
    /// Bytes of new runs.
    pub bytes_added: u64,
    /// Bytes of runs that merges wrote since the checkpoint before.
    pub bytes_merged: u64,
    /// Cells that had changed since the checkpoint before.
    pub cells: u64,
    /// Single steps of snapshot work on the processing task.
    pub steps: u64,
    /// Those that took over [`LONG_STEP_US`](Self::LONG_STEP_US) of processor time.
    pub long_steps: u64,
    /// The longest of them, in microseconds of processor time.
    pub longest_step_us: u64,
}

impl SnapshotStats {
    /// What a step should not take, in microseconds of processor time.
    pub const LONG_STEP_US: u64 = 300;

    /// Counts a step of snapshot work.
    pub(crate) fn add_step(&mut self, step: StepCost) {
        self.longest_pause_us = self.longest_pause_us.max(step.wall_us);
        self.longest_step_us = self.longest_step_us.max(step.cpu_us);
        self.steps += 1;
        self.long_steps += u64::from(step.cpu_us > Self::LONG_STEP_US);
    }

    /// Adds what another task's or checkpoint's snapshot cost.
    pub(crate) fn add(&mut self, other: &Self) {
        self.alignment_us = self.alignment_us.max(other.alignment_us);
        self.longest_pause_us = self.longest_pause_us.max(other.longest_pause_us);
        self.longest_step_us = self.longest_step_us.max(other.longest_step_us);
        self.bytes_added += other.bytes_added;
        self.bytes_merged += other.bytes_merged;
        self.cells += other.cells;
        self.steps += other.steps;
        self.long_steps += other.long_steps;
    }
}

/// What one step of snapshot work took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepCost {
    pub(crate) wall_us: u64,
    pub(crate) cpu_us: u64,
}

/// An error on its way between processes: kind and text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    kind: String,
    message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind().name().to_owned(), message: error.to_string() }
    }
}

impl Failure {
    /// The error as it was, but for its causes, whose texts are in its own.
    pub(crate) fn into_error(self) -> Error {
        let kind = ErrorKind::from_name(&self.kind).unwrap_or(ErrorKind::Internal);
        Error::new(kind, self.message)
    }
}
