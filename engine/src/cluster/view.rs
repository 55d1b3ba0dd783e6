//! What people may see of a running job: written by the JobManager, read by REST, metrics and the handle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use checkpoint::{coordinator::Statistics, manifest::TaskId};
use env::Monotonic;
use types::{AttemptId, CheckpointId, Lineage};

use super::status::{JobStatus, TaskStatus};
use crate::task::message::{RestoredBytes, SnapshotStats};

/// The state of one task, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskView {
    /// Where it is in its life.
    pub status: TaskStatus,
    /// What its last acknowledged checkpoint cost.
    pub last_snapshot: SnapshotStats,
}

/// The state of a job, for people.
#[derive(Clone, Debug, Default)]
pub struct JobView {
    /// The job's name.
    pub name: String,
    /// Where it is in its life.
    pub status: JobStatus,
    /// The running attempt and its line of history, once there is one.
    pub attempt: Option<(AttemptId, Lineage)>,
    /// What the attempt restored, in one line.
    pub started_from: String,
    /// What the attempt has read of run files to restore its state.
    pub restored: RestoredBytes,
    /// The tasks of the newest attempt.
    pub tasks: BTreeMap<TaskId, TaskView>,
    /// The checkpoints of the running attempt.
    pub checkpoints: Statistics,
    /// Completed checkpoints of earlier attempts of this process.
    pub completed_before: u64,
    /// The newest checkpoint in the job history.
    pub last_checkpoint: Option<CheckpointId>,
    /// Attempts started after failures in this process.
    pub restarts: u32,
    /// Newest failures, oldest first, with the time at which they were seen.
    pub failures: Vec<(Monotonic, String)>,
    /// What the snapshots of all tasks have cost so far.
    pub snapshots: SnapshotStats,
    /// When the JobManager began.
    pub since: Monotonic,
}

/// Failures that are remembered.
const FAILURES: usize = 20;

/// The shared view. Locked for moments only.
#[derive(Clone, Debug, Default)]
pub struct SharedView(Arc<Mutex<JobView>>);

impl SharedView {
    /// A copy of the state now.
    #[must_use]
    pub fn get(&self) -> JobView {
        self.lock().clone()
    }

    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut JobView) -> R) -> R {
        change(&mut self.lock())
    }

    pub(crate) fn failed(&self, at: Monotonic, why: String) {
        self.update(|view| {
            if view.failures.len() == FAILURES {
                view.failures.remove(0);
            }
            view.failures.push((at, why));
        });
    }

    fn lock(&self) -> MutexGuard<'_, JobView> {
        // Every change is whole even if a reader panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
