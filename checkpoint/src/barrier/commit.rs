//! Step 5: who must commit a checkpoint that is in the history, and who has. Called by the coordinator: `recorded` after
//! the "checkpoint completed" record was created, `committed` for each confirmation. Invariant: sinks of n are confirmed
//! only when every task that prepared something for n or earlier has committed it; a commit of n covers all before n.

use std::collections::{BTreeMap, BTreeSet};

use types::{CheckpointId, Error, Result};

use crate::manifest::TaskId;

/// The checkpoints in the history whose sinks have not all confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commits {
    /// The newest checkpoint in the history.
    recorded: CheckpointId,
    waiting: BTreeMap<CheckpointId, BTreeSet<TaskId>>,
}

impl Commits {
    /// Nothing waits; `newest` is the newest checkpoint in the history, its sinks are confirmed.
    #[must_use]
    pub fn new(newest: CheckpointId) -> Self {
        Self { recorded: newest, waiting: BTreeMap::new() }
    }

    /// Checkpoint `checkpoint` is in the history; `committers` must commit it. The answer is whether its sinks are
    /// confirmed at once: there are none, and none waits for an older one.
    ///
    /// # Errors
    /// `Internal` if it is not newer than the one before.
    pub fn recorded(&mut self, checkpoint: CheckpointId, committers: BTreeSet<TaskId>) -> Result<bool> {
        if checkpoint <= self.recorded {
            return Err(Error::internal(format!(
                "checkpoint {checkpoint} was recorded after checkpoint {}",
                self.recorded
            )));
        }
        self.recorded = checkpoint;
        if committers.is_empty() && self.waiting.is_empty() {
            return Ok(true);
        }
        self.waiting.insert(checkpoint, committers);
        Ok(false)
    }

    /// `task` has committed what it prepared for `checkpoint` and all before. The answer is the newest checkpoint whose
    /// sinks are thereby confirmed, if there is one.
    ///
    /// # Errors
    /// `Internal` if the checkpoint is not in the history: something was committed without a permit.
    pub fn committed(&mut self, task: TaskId, checkpoint: CheckpointId) -> Result<Option<CheckpointId>> {
        if checkpoint > self.recorded {
            return Err(Error::internal(format!(
                "{task} committed checkpoint {checkpoint}, which is not in the job history"
            )));
        }
        for (_, committers) in self.waiting.range_mut(..=checkpoint) {
            committers.remove(&task);
        }
        let mut confirmed = None;
        while let Some(oldest) = self.waiting.first_entry().filter(|oldest| oldest.get().is_empty()) {
            confirmed = Some(*oldest.key());
            oldest.remove();
        }
        Ok(confirmed)
    }

    /// The checkpoints that wait, ascending, each with the tasks that have not confirmed.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = (CheckpointId, &BTreeSet<TaskId>)> {
        self.waiting.iter().map(|(checkpoint, tasks)| (*checkpoint, tasks))
    }
}

#[cfg(test)]
mod tests {
    use types::SubtaskIndex;

    use super::*;

    fn task(subtask: u32) -> TaskId {
        TaskId { chain: 1, subtask: SubtaskIndex(subtask) }
    }

    fn tasks(subtasks: &[u32]) -> BTreeSet<TaskId> {
        subtasks.iter().copied().map(task).collect()
    }

    fn id(checkpoint: u64) -> CheckpointId {
        CheckpointId(checkpoint)
    }

    #[test]
    fn confirmed_when_all_have_committed() -> Result<()> {
        let mut commits = Commits::new(id(0));
        assert!(!commits.recorded(id(1), tasks(&[0, 1]))?);
        assert_eq!(commits.committed(task(0), id(1))?, None);
        assert_eq!(commits.committed(task(0), id(1))?, None);
        assert_eq!(commits.committed(task(1), id(1))?, Some(id(1)));
        assert_eq!(commits.committed(task(1), id(1))?, None);
        Ok(())
    }

    #[test]
    fn a_newer_commit_covers_the_older_ones() -> Result<()> {
        let mut commits = Commits::new(id(0));
        assert!(!commits.recorded(id(1), tasks(&[0, 1]))?);
        assert!(!commits.recorded(id(3), tasks(&[0, 1]))?);
        assert_eq!(commits.committed(task(0), id(3))?, None);
        assert_eq!(commits.committed(task(1), id(1))?, Some(id(1)));
        assert_eq!(commits.committed(task(1), id(3))?, Some(id(3)));
        assert_eq!(commits.waiting().len(), 0);
        Ok(())
    }

    #[test]
    fn an_empty_one_waits_for_the_older_ones() -> Result<()> {
        let mut commits = Commits::new(id(0));
        assert!(commits.recorded(id(1), tasks(&[]))?);
        assert!(!commits.recorded(id(2), tasks(&[0]))?);
        assert!(!commits.recorded(id(3), tasks(&[]))?);
        assert_eq!(commits.committed(task(0), id(2))?, Some(id(3)));
        Ok(())
    }

    #[test]
    fn numbers_that_cannot_be_are_errors() -> Result<()> {
        let mut commits = Commits::new(id(4));
        assert!(commits.recorded(id(4), tasks(&[])).is_err());
        assert!(commits.committed(task(0), id(5)).is_err());
        assert_eq!(commits.committed(task(0), id(4))?, None);
        Ok(())
    }
}
