//! Step 3: the acknowledgements of one checkpoint. Called by the coordinator, which has dropped those of older attempts
//! and of checkpoints that are over. Invariant: a checkpoint is complete when every task of the attempt has said once
//! what it holds, and what a task said first stands.

use std::collections::{BTreeMap, BTreeSet};

use types::{CheckpointId, Error, Result};

use crate::manifest::{TaskId, TaskSnapshot};

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStep {
    /// Others are still missing.
    Added,
    /// It was the last one missing.
    Complete,
    /// The same came before.
    Duplicate,
}

/// The acknowledgements of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acks {
    checkpoint: CheckpointId,
    missing: BTreeSet<TaskId>,
    snapshots: BTreeMap<TaskId, TaskSnapshot>,
}

impl Acks {
    /// None yet of `tasks`.
    #[must_use]
    pub fn new(checkpoint: CheckpointId, tasks: BTreeSet<TaskId>) -> Self {
        Self { checkpoint, missing: tasks, snapshots: BTreeMap::new() }
    }

    /// A task says what it holds.
    ///
    /// # Errors
    /// `Internal` if the task is not part of the job, or said something else before; nothing changes then.
    pub fn add(&mut self, snapshot: TaskSnapshot) -> Result<AckStep> {
        let task = snapshot.task;
        if self.missing.remove(&task) {
            self.snapshots.insert(task, snapshot);
            return Ok(if self.is_complete() { AckStep::Complete } else { AckStep::Added });
        }
        match self.snapshots.get(&task) {
            Some(first) if *first == snapshot => Ok(AckStep::Duplicate),
            Some(_) => Err(Error::internal(format!(
                "{task} acknowledged checkpoint {} twice with different contents: the first one stands",
                self.checkpoint
            ))),
            None => Err(Error::internal(format!(
                "{task} acknowledged checkpoint {} and is no task of this job",
                self.checkpoint
            ))),
        }
    }

    /// Whether all have said it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The tasks that have not, in order.
    #[must_use]
    pub fn missing(&self) -> &BTreeSet<TaskId> {
        &self.missing
    }

    /// What was said so far, by task.
    pub fn snapshots(&self) -> impl ExactSizeIterator<Item = &TaskSnapshot> {
        self.snapshots.values()
    }

    /// The tasks that hold prepared transactions and so must commit once the checkpoint is in the history.
    #[must_use]
    pub fn committers(&self) -> BTreeSet<TaskId> {
        let prepared = |snapshot: &&TaskSnapshot| {
            snapshot.operators.iter().any(|(_, subtask)| !subtask.prepared.is_empty())
        };
        self.snapshots().filter(prepared).map(|snapshot| snapshot.task).collect()
    }
}

#[cfg(test)]
mod tests {
    use types::{AttemptId, KeyGroupRange, Lineage, SubtaskIndex, Timestamp, Uid};

    use super::*;
    use crate::manifest::{PreparedTransaction, SubtaskSnapshot};

    fn task(chain: u32) -> TaskId {
        TaskId { chain, subtask: SubtaskIndex(0) }
    }

    fn empty(chain: u32) -> TaskSnapshot {
        TaskSnapshot { task: task(chain), operators: Vec::new() }
    }

    fn with_transaction(chain: u32) -> Result<TaskSnapshot> {
        let transaction = PreparedTransaction {
            lineage: Lineage(1),
            writer: SubtaskIndex(0),
            attempt: AttemptId(0),
            checkpoint: CheckpointId(1),
            payload: Vec::new(),
            file: None,
        };
        let subtask = SubtaskSnapshot {
            subtask: SubtaskIndex(0),
            groups: KeyGroupRange { start: 0, end: 0 },
            runs: Vec::new(),
            lists: Vec::new(),
            prepared: vec![transaction],
            watermark: Timestamp::MIN,
            processing_time: Timestamp(0),
        };
        Ok(TaskSnapshot { task: task(chain), operators: vec![(Uid::new("sink")?, subtask)] })
    }

    fn acks(tasks: u32) -> Acks {
        Acks::new(CheckpointId(1), (0..tasks).map(task).collect())
    }

    #[test]
    fn complete_with_the_last_of_any_order() -> Result<()> {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut acks = acks(3);
            assert_eq!(acks.add(empty(order[0]))?, AckStep::Added);
            assert_eq!(acks.add(empty(order[1]))?, AckStep::Added);
            assert_eq!(acks.missing().iter().copied().collect::<Vec<_>>(), [task(order[2])]);
            assert_eq!(acks.add(empty(order[2]))?, AckStep::Complete);
            assert!(acks.is_complete());
        }
        Ok(())
    }

    #[test]
    fn the_first_stands_the_same_is_ignored_another_is_an_error() -> Result<()> {
        let mut acks = acks(2);
        assert_eq!(acks.add(with_transaction(0)?)?, AckStep::Added);
        assert_eq!(acks.add(with_transaction(0)?)?, AckStep::Duplicate);
        assert!(acks.add(empty(0)).is_err());
        assert!(acks.add(empty(7)).is_err());
        assert!(!acks.is_complete());
        assert_eq!(acks.add(empty(1))?, AckStep::Complete);
        assert_eq!(acks.committers(), BTreeSet::from([task(0)]));
        Ok(())
    }
}
