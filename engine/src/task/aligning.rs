//! How long a task's alignments take: from the first barrier of a checkpoint on any input to its cut. Kept by the task
//! loop. One that was given up leaves nothing behind, so that a later one does not count its time.

use std::collections::BTreeMap;

use env::Monotonic;
use types::CheckpointId;

/// When the first barrier of each checkpoint being aligned came. In exactly-once mode never more than one.
#[derive(Debug, Default)]
pub(super) struct Alignments(BTreeMap<CheckpointId, Monotonic>);

impl Alignments {
    /// A barrier came that others must follow.
    pub(super) fn wait(&mut self, checkpoint: CheckpointId, now: Monotonic) {
        self.0.entry(checkpoint).or_insert(now);
    }

    /// The checkpoint will not be cut here.
    pub(super) fn give_up(&mut self, checkpoint: CheckpointId) {
        self.0.remove(&checkpoint);
    }

    /// The checkpoint is cut, and no older one will be. Returns the microseconds since its first barrier.
    pub(super) fn cut(&mut self, checkpoint: CheckpointId, now: Monotonic) -> u64 {
        let since = self.0.remove(&checkpoint).unwrap_or(now);
        self.0 = self.0.split_off(&checkpoint);
        u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_alignment_counts_its_own_time() {
        let mut alignments = Alignments::default();
        let at = |seconds| Monotonic::default() + Duration::from_secs(seconds);
        let id = CheckpointId;
        alignments.wait(id(1), at(0));
        alignments.wait(id(1), at(1));
        assert_eq!(alignments.cut(id(1), at(3)), 3_000_000, "from the first barrier on");
        assert_eq!(alignments.cut(id(2), at(4)), 0, "there is but one input");
        // Given up, and overtaken.
        alignments.wait(id(3), at(5));
        alignments.give_up(id(3));
        alignments.wait(id(4), at(10));
        alignments.wait(id(5), at(20));
        assert_eq!(alignments.cut(id(5), at(21)), 1_000_000);
        assert_eq!(alignments.cut(id(6), at(30)), 0);
        assert!(alignments.0.is_empty());
    }
}
