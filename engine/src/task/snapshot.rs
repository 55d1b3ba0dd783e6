//! From the flip at a barrier to the acknowledgement: which pieces of which checkpoint are still missing, and the runs
//! of each operator. Pure: the task loop reports events and sends what [`Snapshots::take_ready`] gives out.
//!
//! A run belongs to its operator's list from the moment its interval is sealed, whether or not that checkpoint
//! completes; an acknowledgement of n waits for every run up to n. The same for prepared transactions.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::manifest::{ListPart, PreparedTransaction, SubtaskSnapshot, TaskId, TaskSnapshot};
use types::{AttemptId, CheckpointId, JobId, KeyGroupRange, Run, RunIdentity, SubtaskIndex, Timestamp, Uid};

use super::message::{SnapshotStats, StepCost};

/// The cut of one operator: everything that is known at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The operator's place among the chain's vertices.
    pub(crate) position: usize,
    pub(crate) uid: Uid,
    /// Whether the task's prepared transactions are this operator's.
    pub(crate) is_sink: bool,
    pub(crate) groups: KeyGroupRange,
    pub(crate) lists: Vec<ListPart>,
    pub(crate) watermark: Timestamp,
    pub(crate) processing_time: Timestamp,
}

#[derive(Debug)]
struct Pending {
    cuts: Vec<Cut>,
    /// A transaction of this checkpoint is being prepared.
    preparing: bool,
    /// A plain sink is being flushed.
    flushing: bool,
    stats: SnapshotStats,
}

/// The runs of one keyed operator, oldest first, each with the newest checkpoint whose changes it holds.
#[derive(Debug)]
struct RunList {
    uid: Uid,
    runs: Vec<(CheckpointId, Run)>,
    /// Everything up to here was sealed.
    sealed: CheckpointId,
    /// Sealed and not yet durable.
    in_flight: BTreeSet<CheckpointId>,
    merging: bool,
    /// How many runs this task has begun to write.
    numbers: u64,
}

/// An acknowledgement to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) snapshot: TaskSnapshot,
    pub(crate) stats: SnapshotStats,
}

/// All snapshots under way in one task.
#[derive(Debug)]
pub(crate) struct Snapshots {
    task: TaskId,
    job: JobId,
    attempt: AttemptId,
    lists: BTreeMap<usize, RunList>,
    prepared: Vec<PreparedTransaction>,
    pending: BTreeMap<CheckpointId, Pending>,
    /// What merges have written since the last cut.
    bytes_merged: u64,
}

impl Snapshots {
    pub(crate) fn new(task: TaskId, job: JobId, attempt: AttemptId) -> Self {
        let (lists, pending) = (BTreeMap::new(), BTreeMap::new());
        Self { task, job, attempt, lists, prepared: Vec::new(), pending, bytes_merged: 0 }
    }

    /// Registers a keyed operator with the runs it was restored from.
    pub(crate) fn add_keyed(&mut self, position: usize, uid: Uid, restored: Vec<Run>) {
        let runs = restored.into_iter().map(|run| (CheckpointId(0), run)).collect();
        let (sealed, in_flight) = (CheckpointId(0), BTreeSet::new());
        self.lists.insert(position, RunList { uid, runs, sealed, in_flight, merging: false, numbers: 0 });
    }

    /// The task has cut: every later event may complete this checkpoint.
    pub(crate) fn begin(&mut self, checkpoint: CheckpointId, cuts: Vec<Cut>, alignment_us: u64) {
        let bytes_merged = std::mem::take(&mut self.bytes_merged);
        let stats = SnapshotStats { alignment_us, bytes_merged, ..SnapshotStats::default() };
        let pending = Pending { cuts, preparing: false, flushing: false, stats };
        self.pending.insert(checkpoint, pending);
    }

    /// The sink sealed a transaction that is now being prepared.
    pub(crate) fn preparing(&mut self, checkpoint: CheckpointId) {
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.preparing = true;
        }
    }

    /// A plain sink is being flushed for this checkpoint.
    pub(crate) fn flushing(&mut self, checkpoint: CheckpointId) {
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.flushing = true;
        }
    }

    /// The plain sink's flush is done: for the one checkpoint that waits for it.
    pub(crate) fn flushed(&mut self) {
        for pending in self.pending.values_mut() {
            pending.flushing = false;
        }
    }

    /// A step of snapshot work was done on the task: for the oldest checkpoint under way, which is drained first.
    pub(crate) fn on_step(&mut self, step: StepCost) {
        if let Some((_, pending)) = self.pending.iter_mut().next() {
            pending.stats.add_step(step);
        }
    }

    /// An operator's changes up to `checkpoint` are sealed. Returns the identity of the run to write; `None` if
    /// nothing changed.
    pub(crate) fn sealed(
        &mut self,
        position: usize,
        checkpoint: CheckpointId,
        empty: bool,
    ) -> Option<RunIdentity> {
        let list = self.lists.get_mut(&position)?;
        list.sealed = checkpoint;
        if empty {
            return None;
        }
        list.in_flight.insert(checkpoint);
        Some(list.identity(self.job, self.attempt, self.task.subtask))
    }

    /// The run of an interval is durable. A newer one never overtakes it in the list.
    pub(crate) fn durable(&mut self, position: usize, checkpoint: CheckpointId, run: Run) {
        let bytes = run.file.len;
        let Some(list) = self.lists.get_mut(&position) else { return };
        list.in_flight.remove(&checkpoint);
        let at = list.runs.partition_point(|(newest, _)| *newest <= checkpoint);
        list.runs.insert(at, (checkpoint, run));
        // The first checkpoint that lists a run pays for it.
        if let Some((_, pending)) = self.pending.range_mut(checkpoint..).next() {
            pending.stats.bytes_added += bytes;
        }
    }

    /// A transaction is durable.
    pub(crate) fn prepared(&mut self, transaction: PreparedTransaction) {
        if let Some(pending) = self.pending.get_mut(&transaction.checkpoint) {
            pending.preparing = false;
        }
        self.prepared.push(transaction);
    }

    /// Everything up to `checkpoint` is committed: later snapshots need not hold it.
    pub(crate) fn committed(&mut self, checkpoint: CheckpointId) {
        self.prepared.retain(|it| it.checkpoint > checkpoint);
    }

    /// The checkpoints under way that need what `checkpoint` must make durable: itself and all later ones.
    pub(crate) fn under_way_from(&self, checkpoint: CheckpointId) -> Vec<CheckpointId> {
        self.pending.range(checkpoint..).map(|(&checkpoint, _)| checkpoint).collect()
    }

    /// This checkpoint is given up. Its runs and transactions stay: the next one needs them.
    pub(crate) fn cancel(&mut self, checkpoint: CheckpointId) {
        self.pending.remove(&checkpoint);
    }

    /// The oldest checkpoint under way, if all of it is durable.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let (&checkpoint, pending) = self.pending.first_key_value()?;
        let durable = |list: &RunList| {
            list.sealed >= checkpoint && list.in_flight.first().is_none_or(|oldest| *oldest > checkpoint)
        };
        if pending.preparing || pending.flushing || !self.lists.values().all(durable) {
            return None;
        }
        let Pending { cuts, stats, .. } = self.pending.remove(&checkpoint)?;
        let operators = cuts.into_iter().map(|cut| self.subtask(checkpoint, cut)).collect();
        Some(Ready { checkpoint, snapshot: TaskSnapshot { task: self.task, operators }, stats })
    }

    fn subtask(&self, checkpoint: CheckpointId, cut: Cut) -> (Uid, SubtaskSnapshot) {
        let list = self.lists.get(&cut.position);
        let runs = list.map_or(&[][..], |list| &list.runs);
        let of_cut = |run: &&(CheckpointId, Run)| run.0 <= checkpoint;
        let mine = |it: &&PreparedTransaction| it.checkpoint <= checkpoint;
        let prepared =
            if cut.is_sink { self.prepared.iter().filter(mine).cloned().collect() } else { Vec::new() };
        let snapshot = SubtaskSnapshot {
            subtask: self.task.subtask,
            groups: cut.groups,
            runs: runs.iter().filter(of_cut).map(|(_, run)| run.clone()).collect(),
            lists: cut.lists,
            prepared,
            watermark: cut.watermark,
            processing_time: cut.processing_time,
        };
        (cut.uid, snapshot)
    }

    /// Which neighbouring runs to merge now, by `plan`, among those that the completed checkpoint holds: no
    /// acknowledgement still to come needs them apart. One merge at a time for each operator.
    pub(crate) fn begin_merge(
        &mut self,
        completed: CheckpointId,
        plan: impl Fn(&[Run]) -> Option<std::ops::Range<usize>>,
    ) -> Vec<MergeWork> {
        let mut works = Vec::new();
        for (&position, list) in &mut self.lists {
            if list.merging {
                continue;
            }
            let settled = list.runs.iter().filter(|(newest, _)| *newest <= completed);
            let settled: Vec<Run> = settled.map(|(_, run)| run.clone()).collect();
            let Some(range) = plan(&settled) else { continue };
            let includes_oldest = range.start == 0;
            let Some(runs) = settled.get(range).map(<[Run]>::to_vec) else { continue };
            list.merging = true;
            let identity = list.identity(self.job, self.attempt, self.task.subtask);
            works.push(MergeWork { position, runs, includes_oldest, identity });
        }
        works
    }

    /// A merge is done: its run takes the place of those it replaces.
    pub(crate) fn merged(&mut self, position: usize, replaced: &[Run], run: Run) {
        let Some(list) = self.lists.get_mut(&position) else { return };
        list.merging = false;
        self.bytes_merged += run.file.len;
        let Some(first) = replaced.first() else { return };
        let Some(at) = list.runs.iter().position(|(_, it)| it == first) else { return };
        let end = at + replaced.len();
        let whole = list.runs.get(at..end).is_some_and(|runs| runs.iter().map(|(_, it)| it).eq(replaced));
        if whole {
            let newest = list.runs[end - 1].0;
            list.runs.splice(at..end, [(newest, run)]);
        }
    }

    /// A merge failed: nothing has changed.
    pub(crate) fn merge_failed(&mut self, position: usize) {
        if let Some(list) = self.lists.get_mut(&position) {
            list.merging = false;
        }
    }
}

impl RunList {
    fn identity(&mut self, job: JobId, attempt: AttemptId, subtask: SubtaskIndex) -> RunIdentity {
        self.numbers += 1;
        RunIdentity { job, attempt, operator: self.uid.clone(), subtask, number: self.numbers }
    }
}

/// Neighbouring runs to be merged.
#[derive(Debug)]
pub(crate) struct MergeWork {
    pub(crate) position: usize,
    pub(crate) runs: Vec<Run>,
    pub(crate) includes_oldest: bool,
    pub(crate) identity: RunIdentity,
}

#[cfg(test)]
mod tests;
