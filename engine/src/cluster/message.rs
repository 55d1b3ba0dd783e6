//! What JobManager and TaskManager tell each other: the same inside one process and, later, between machines.

use std::collections::BTreeSet;

use checkpoint::{
    history::CommitPermit,
    manifest::{PreparedTransaction, TaskId},
};
use serde::{Deserialize, Serialize};
use types::{AttemptId, CheckpointId, Digest, JobId, Lineage, Uid};

use crate::{
    api::sink::Marker,
    task::{
        message::{Failure, TaskCommand, TaskReport, TaskTotals},
        restore::OperatorRestore,
    },
};

/// The numbers that name an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptInfo {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its line of history.
    pub lineage: Lineage,
    /// The checkpoint it restores, or the highest number used before: new ones are greater.
    pub restored: CheckpointId,
}

/// A task to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDeployment {
    /// The task.
    pub task: TaskId,
    /// What its operators get back.
    pub restore: Vec<OperatorRestore>,
}

/// A sink whose past is to be settled before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkToResolve {
    /// The sink, by one of its names: a renamed one has several.
    pub uid: Uid,
    /// Transactions of a revoked checkpoint: nobody may be able to commit them any more.
    pub revoke: Vec<PreparedTransaction>,
    /// Transactions that the history completed: commit them.
    pub commit: ToCommit,
}

/// Transactions that the history completed, in the order in which they are to be committed: there are some only where
/// somebody has held the permits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToCommit(Vec<PreparedTransaction>);

impl ToCommit {
    /// Adds what is `prepared` and listed by a checkpoint that may be committed.
    pub(super) fn add(
        &mut self,
        _permit: &CommitPermit,
        prepared: impl IntoIterator<Item = PreparedTransaction>,
    ) {
        self.0.extend(prepared);
        self.0.sort_by_key(|it| (it.checkpoint, it.writer));
        self.0.dedup();
    }

    pub(super) fn as_slice(&self) -> &[PreparedTransaction] {
        &self.0
    }
}

/// From the JobManager to a TaskManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTaskManager {
    /// Say what the two-phase sinks hold. Changes nothing outside.
    AskSinks {
        /// For whom.
        info: AttemptInfo,
    },
    /// Say which sinks do not find all that was prepared. Changes nothing outside.
    FindPrepared {
        /// For whom.
        info: AttemptInfo,
        /// What sinks prepared, each under the name that it had then.
        prepared: Vec<(Uid, Vec<PreparedTransaction>)>,
    },
    /// Commit what the history completed, then shut out what it revoked, then throw away the rest.
    ResolveSinks {
        /// For whom.
        info: AttemptInfo,
        /// The sinks, all of them.
        sinks: Vec<SinkToResolve>,
    },
    /// Start tasks.
    Deploy {
        /// For whom.
        info: AttemptInfo,
        /// The tasks.
        tasks: Vec<TaskDeployment>,
    },
    /// Something for one task.
    Command {
        /// The attempt; commands to another one have no effect.
        attempt: AttemptId,
        /// The task.
        task: TaskId,
        /// What.
        command: TaskCommand,
    },
    /// End all tasks of the attempt now.
    Cancel {
        /// The attempt.
        attempt: AttemptId,
    },
}

/// From a TaskManager to the JobManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToJobManager {
    /// The first message.
    Register {
        /// The fingerprint of the job graph: must be the JobManager's own.
        fingerprint: Digest,
        /// How many parallel slices of the job it can run.
        slots: u32,
    },
    /// The answer to `AskSinks`.
    SinksHold {
        /// For whom.
        attempt: AttemptId,
        /// What each sink holds.
        result: Result<Vec<(Uid, Vec<Marker>)>, Failure>,
    },
    /// The answer to `FindPrepared`.
    SinksLack {
        /// For whom.
        attempt: AttemptId,
        /// The names of those that do not find all of it.
        result: Result<BTreeSet<Uid>, Failure>,
    },
    /// The answer to `ResolveSinks`.
    SinksResolved {
        /// For whom.
        attempt: AttemptId,
        /// Whether all is committed and swept; a sink that has committed something revoked, where nothing is swept.
        result: Result<Option<Uid>, Failure>,
    },
    /// A task is being built.
    Initializing {
        /// The attempt.
        attempt: AttemptId,
        /// The task.
        task: TaskId,
    },
    /// A task reports.
    Report {
        /// The attempt.
        attempt: AttemptId,
        /// The task.
        task: TaskId,
        /// What.
        report: TaskReport,
    },
    /// All tasks of the attempt have ended, but for those that do not.
    Cancelled {
        /// The attempt.
        attempt: AttemptId,
        /// What they have done, all together.
        totals: TaskTotals,
        /// Those that have not: they stay in a function.
        stuck: Vec<String>,
    },
}
