//! What a search came across, so that it is known to have looked where it matters.

use tidegate_checkpoint::history::Instance;

use super::{Budget, World};

/// In how many states these things had happened, so that a search is known to have looked where it matters.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// A process had died.
    pub(super) crashed: usize,
    /// A rival owned the job.
    pub(super) rivalled: usize,
    /// A record of the history was deleted.
    pub(super) deleted: usize,
    /// A checkpoint had failed.
    pub(super) failed: usize,
    /// A user had asked for a checkpoint.
    pub(super) asked: usize,
    /// Readers saw something.
    pub(super) committed: usize,
    /// A process had created a record in the deleted past.
    pub(super) strayed: usize,
    /// All of it, and the job had ended.
    pub(super) all: usize,
}

impl Met {
    pub(super) fn note(&mut self, world: &World, start: &Budget) {
        let left = &world.budget;
        let owner = world.durable.log.newest().map(|newest| newest.standing.attempt.instance);
        let mut all = world.durable.is_over();
        let mut count = |counter: &mut usize, has_happened: bool| {
            *counter += usize::from(has_happened);
            all &= has_happened;
        };
        count(&mut self.crashed, left.crashes < start.crashes);
        count(&mut self.rivalled, owner == Some(Instance(1)));
        count(&mut self.deleted, left.deletions < start.deletions);
        count(&mut self.failed, left.failures < start.failures);
        count(&mut self.asked, left.checkpoints < start.checkpoints);
        count(&mut self.committed, world.durable.has_committed());
        self.all += usize::from(all);
        self.strayed += usize::from(world.durable.log.has_strays());
    }
}
