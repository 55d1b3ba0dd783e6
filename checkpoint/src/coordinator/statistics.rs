//! What became of the job's checkpoints, for REST and metrics.

use std::{collections::VecDeque, time::Duration};

use env::Monotonic;
use types::CheckpointId;

use crate::{
    barrier::{Barrier, BarrierKind},
    manifest::TaskSnapshot,
};

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckpointOutcome {
    /// It is under way.
    InProgress,
    /// It is in the history.
    Completed,
    /// It was given up.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckpointStatistics {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// What its barrier asked for.
    pub kind: BarrierKind,
    /// What became of it.
    pub outcome: CheckpointOutcome,
    /// When it was triggered.
    pub triggered: Monotonic,
    /// From the trigger to its record or its failure; none while under way.
    pub duration: Option<Duration>,
    /// The tasks that have acknowledged it.
    pub acked: usize,
    /// The tasks that must.
    pub tasks: usize,
    /// The length of the runs that the acknowledged parts refer to, shared ones included.
    pub bytes: u64,
}

/// The counts since the attempt began, and the newest checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statistics {
    /// All that were triggered.
    pub triggered: u64,
    /// Those in the history.
    pub completed: u64,
    /// Those given up.
    pub failed: u64,
    /// Oldest first, at most [`Statistics::REMEMBERED`].
    pub history: VecDeque<CheckpointStatistics>,
}

impl Statistics {
    /// The number of checkpoints that are remembered.
    pub const REMEMBERED: usize = 100;

    /// The newest one in the history.
    #[must_use]
    pub fn latest_completed(&self) -> Option<&CheckpointStatistics> {
        self.history.iter().rev().find(|one| one.outcome == CheckpointOutcome::Completed)
    }

    pub(super) fn on_triggered(&mut self, now: Monotonic, barrier: Barrier, tasks: usize) {
        self.triggered += 1;
        if self.history.len() == Self::REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(CheckpointStatistics {
            checkpoint: barrier.checkpoint,
            kind: barrier.kind,
            outcome: CheckpointOutcome::InProgress,
            triggered: now,
            duration: None,
            acked: 0,
            tasks,
            bytes: 0,
        });
    }

    /// A task acknowledged the checkpoint with this part for the first time.
    pub(super) fn on_acked(&mut self, checkpoint: CheckpointId, part: &TaskSnapshot) {
        if let Some(one) = self.find(checkpoint) {
            let runs = part.operators.iter().flat_map(|(_, subtask)| &subtask.runs);
            one.bytes += runs.map(|run| run.file.len).sum::<u64>();
            one.acked += 1;
        }
    }

    pub(super) fn on_completed(&mut self, now: Monotonic, checkpoint: CheckpointId) {
        self.completed += 1;
        self.close(now, checkpoint, CheckpointOutcome::Completed);
    }

    pub(super) fn on_failed(&mut self, now: Monotonic, checkpoint: CheckpointId, reason: String) {
        self.failed += 1;
        self.close(now, checkpoint, CheckpointOutcome::Failed { reason });
    }

    /// Nothing that is under way is waited for any more. None of it was given up, so that none counts as failed.
    pub(super) fn on_over(&mut self) {
        for one in self.history.iter_mut().filter(|one| one.outcome == CheckpointOutcome::InProgress) {
            let reason = "the attempt ended before it was known to be complete".to_owned();
            one.outcome = CheckpointOutcome::Failed { reason };
        }
    }

    fn close(&mut self, now: Monotonic, checkpoint: CheckpointId, outcome: CheckpointOutcome) {
        if let Some(one) = self.find(checkpoint) {
            one.duration = Some(now.since(one.triggered));
            one.outcome = outcome;
        }
    }

    fn find(&mut self, checkpoint: CheckpointId) -> Option<&mut CheckpointStatistics> {
        self.history.iter_mut().rev().find(|one| one.checkpoint == checkpoint)
    }
}
