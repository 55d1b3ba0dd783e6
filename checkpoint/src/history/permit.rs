//! The right to do what cannot be undone. A permit comes only from a record that this attempt created or restated, and
//! nothing outside the history can make one.

use types::{CheckpointId, RecordNumber};

use super::standing::OpenMark;

/// The right to commit what the sinks prepared for a checkpoint: its record is in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPermit {
    checkpoint: CheckpointId,
}

impl CommitPermit {
    pub(super) fn new(checkpoint: CheckpointId) -> Self {
        Self { checkpoint }
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }
}

/// The right to delete files: a garbage mark in the history lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletePermit {
    mark: OpenMark,
}

impl DeletePermit {
    pub(super) fn new(mark: OpenMark) -> Self {
        Self { mark }
    }

    /// The number of the garbage mark.
    #[must_use]
    pub fn mark(&self) -> RecordNumber {
        self.mark.number
    }

    /// The files, as paths below the checkpoint directory.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.mark.files
    }
}
