//! From the flip at a barrier to the acknowledgement: which pieces of which checkpoint are still missing, and the runs
//! of each operator. Pure: the task loop reports events and sends what [`Snapshots::take_ready`] gives out.
//!
//! A run belongs to its operator's list from the moment its interval is sealed, whether or not that checkpoint
//! completes; an acknowledgement of n waits for every run up to n. The same for prepared transactions.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::manifest::{ListPart, PreparedTransaction, SubtaskSnapshot, TaskId, TaskSnapshot};
use statebackend::{Delta, MergePolicy};
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
    /// A plain sink is being flushed.
    flushing: bool,
    stats: SnapshotStats,
}

impl Pending {
    /// Until when state of the operator had expired at the cut.
    fn clocks(&self, position: usize) -> Option<ListPart> {
        let cut = self.cuts.iter().find(|cut| cut.position == position)?;
        cut.lists.iter().find(|part| part.is_expiry_clocks()).cloned()
    }
}

/// The runs of one keyed operator, oldest first.
#[derive(Debug)]
struct RunList {
    uid: Uid,
    runs: Vec<Listed>,
    /// Everything up to here was sealed.
    sealed: CheckpointId,
    /// Sealed and not yet durable.
    in_flight: BTreeSet<CheckpointId>,
    /// Those whose run holds all that lived, so that it needs no older one beside it.
    whole: BTreeSet<CheckpointId>,
    /// While neighbours are being merged: how many runs a checkpoint may list meanwhile.
    merging: Option<usize>,
    /// How many runs this task has begun to write.
    numbers: u64,
}

/// How much a sealed interval holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Nothing changed: there is no run.
    Nothing,
    /// What changed.
    Changes,
    /// Everything that lived: older runs have nothing to add.
    Whole,
}

impl Extent {
    pub(crate) fn of(delta: &Delta, policy: &MergePolicy) -> Self {
        match delta {
            _ if delta.is_empty() => Self::Nothing,
            _ if delta.is_whole() && delta.bytes() >= policy.replace_from => Self::Whole,
            _ => Self::Changes,
        }
    }
}

/// A run in the list.
#[derive(Debug)]
struct Listed {
    run: Run,
    /// The newest checkpoint whose changes it holds.
    newest: CheckpointId,
    /// The first checkpoint that listed it. A run leaves the list when such a checkpoint is complete, and not before:
    /// the files that a job no longer needs are found by what its checkpoints listed.
    since: Option<CheckpointId>,
}

impl Listed {
    fn is_settled(&self, completed: CheckpointId) -> bool {
        self.since.is_some_and(|since| since <= completed)
    }
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
    /// A checkpoint that would list more runs of an operator waits for the merge that is under way there.
    max_runs: usize,
    /// By position.
    run_lists: BTreeMap<usize, RunList>,
    /// Checkpoints whose transaction is being prepared; also of those that were given up: what they hold goes into the
    /// next one, which waits for it.
    preparing: BTreeSet<CheckpointId>,
    prepared: Vec<PreparedTransaction>,
    pending: BTreeMap<CheckpointId, Pending>,
    /// What merges have written since the last cut.
    bytes_merged: u64,
}

impl Snapshots {
    pub(crate) fn new(task: TaskId, job: JobId, attempt: AttemptId, max_runs: usize) -> Self {
        Self {
            task,
            job,
            attempt,
            max_runs,
            run_lists: BTreeMap::new(),
            preparing: BTreeSet::new(),
            prepared: Vec::new(),
            pending: BTreeMap::new(),
            bytes_merged: 0,
        }
    }

    /// The identity of the run in which a restore writes states of an operator anew. Those of checkpoints follow.
    pub(crate) fn migrated(&self, operator: Uid) -> RunIdentity {
        RunIdentity { job: self.job, attempt: self.attempt, operator, subtask: self.task.subtask, number: 0 }
    }

    /// Registers a keyed operator with the runs it was restored from.
    pub(crate) fn add_keyed(&mut self, position: usize, uid: Uid, restored: Vec<Run>) {
        let restored = restored.into_iter();
        let runs = restored.map(|run| Listed { run, newest: CheckpointId(0), since: Some(CheckpointId(0)) });
        let list = RunList {
            uid,
            runs: runs.collect(),
            sealed: CheckpointId(0),
            in_flight: BTreeSet::new(),
            whole: BTreeSet::new(),
            merging: None,
            numbers: 0,
        };
        self.run_lists.insert(position, list);
    }

    /// The task has cut, with so many changed `cells`: every later event may complete this checkpoint.
    pub(crate) fn begin(&mut self, checkpoint: CheckpointId, cuts: Vec<Cut>, alignment_us: u64, cells: u64) {
        let bytes_merged = std::mem::take(&mut self.bytes_merged);
        let stats = SnapshotStats { alignment_us, bytes_merged, cells, ..SnapshotStats::default() };
        let pending = Pending { cuts, flushing: false, stats };
        self.pending.insert(checkpoint, pending);
    }

    /// The sink sealed a transaction that is now being prepared.
    pub(crate) fn preparing(&mut self, checkpoint: CheckpointId) {
        self.preparing.insert(checkpoint);
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
        extent: Extent,
    ) -> Option<RunIdentity> {
        let list = self.run_lists.get_mut(&position)?;
        list.sealed = checkpoint;
        match extent {
            Extent::Nothing => return None,
            Extent::Changes => {}
            Extent::Whole => drop(list.whole.insert(checkpoint)),
        }
        list.in_flight.insert(checkpoint);
        Some(list.identity(self.job, self.attempt, self.task.subtask))
    }

    /// The run of an interval is durable. A newer one never overtakes it in the list.
    pub(crate) fn durable(&mut self, position: usize, checkpoint: CheckpointId, run: Run) {
        let bytes = run.file.len;
        let Some(list) = self.run_lists.get_mut(&position) else { return };
        list.in_flight.remove(&checkpoint);
        let at = list.runs.partition_point(|listed| listed.newest <= checkpoint);
        list.runs.insert(at, Listed { run, newest: checkpoint, since: None });
        // The first checkpoint that lists a run pays for it.
        if let Some((_, pending)) = self.pending.range_mut(checkpoint..).next() {
            pending.stats.bytes_added += bytes;
        }
    }

    /// A transaction is durable.
    pub(crate) fn prepared(&mut self, transaction: PreparedTransaction) {
        self.preparing.remove(&transaction.checkpoint);
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

    /// How many sealed intervals of an operator are not durable yet, at the most.
    pub(crate) fn waiting(&self) -> usize {
        self.run_lists.values().map(|list| list.in_flight.len()).max().unwrap_or_default()
    }

    /// This checkpoint is given up. Its runs and transactions stay: the next one needs them. No other waits for a merge that
    /// it has waited for in vain: where merges take longer than checkpoints may, nothing would be completed any more.
    pub(crate) fn cancel(&mut self, checkpoint: CheckpointId) {
        self.pending.remove(&checkpoint);
        for list in self.run_lists.values_mut().filter(|list| list.waits_for_merge(checkpoint)) {
            list.merging = Some(usize::MAX);
        }
    }

    /// The oldest checkpoint under way, if all of it is durable and it lists no more runs than a list may have. What is
    /// merged shortens the list, so it is waited for, which slows down checkpoints that come faster than merging can keep
    /// up with; a merge that fails is not waited for any longer.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let (&checkpoint, pending) = self.pending.first_key_value()?;
        let durable = |list: &RunList| {
            list.sealed >= checkpoint && list.in_flight.first().is_none_or(|oldest| *oldest > checkpoint)
        };
        let is_preparing = self.preparing.first().is_some_and(|oldest| *oldest <= checkpoint);
        if is_preparing || pending.flushing || !self.run_lists.values().all(durable) {
            return None;
        }
        if self.run_lists.values().any(|list| list.waits_for_merge(checkpoint)) {
            return None;
        }
        let Pending { cuts, stats, .. } = self.pending.remove(&checkpoint)?;
        let operators = cuts.into_iter().map(|cut| self.subtask(checkpoint, cut)).collect();
        Some(Ready { checkpoint, snapshot: TaskSnapshot { task: self.task, operators }, stats })
    }

    fn subtask(&mut self, checkpoint: CheckpointId, cut: Cut) -> (Uid, SubtaskSnapshot) {
        let list = self.run_lists.get_mut(&cut.position);
        let runs = list.map_or_else(Vec::new, |list| list.list_for(checkpoint));
        let mine = |it: &&PreparedTransaction| it.checkpoint <= checkpoint;
        let prepared =
            if cut.is_sink { self.prepared.iter().filter(mine).cloned().collect() } else { Vec::new() };
        let snapshot = SubtaskSnapshot {
            subtask: self.task.subtask,
            groups: cut.groups,
            runs,
            lists: cut.lists,
            prepared,
            watermark: cut.watermark,
            processing_time: cut.processing_time,
        };
        (cut.uid, snapshot)
    }

    /// Which neighbouring runs to merge now, by `plan`, among those that the completed checkpoint holds: no
    /// acknowledgement still to come needs them apart. One merge at a time for each operator. Runs before one that holds
    /// all that lived are not merged but left out from now on.
    pub(crate) fn begin_merge(
        &mut self,
        completed: CheckpointId,
        plan: impl Fn(&[Run]) -> Option<std::ops::Range<usize>>,
    ) -> Vec<MergeWork> {
        let mut works = Vec::new();
        for (&position, list) in &mut self.run_lists {
            if list.merging.is_some() {
                continue;
            }
            list.forget(completed);
            let settled = list.runs.iter().take_while(|listed| listed.is_settled(completed));
            let settled: Vec<Run> = settled.map(|listed| listed.run.clone()).collect();
            let Some(range) = plan(&settled) else { continue };
            let includes_oldest = range.start == 0;
            let Some(runs) = settled.get(range).map(<[Run]>::to_vec) else { continue };
            list.merging = Some(list.allowed(self.max_runs));
            let identity = list.identity(self.job, self.attempt, self.task.subtask);
            let clocks = self.pending.first_key_value().and_then(|(_, pending)| pending.clocks(position));
            works.push(MergeWork { position, runs, includes_oldest, identity, clocks });
        }
        works
    }

    /// A merge is done: its run takes the place of those it replaces.
    pub(crate) fn merged(&mut self, position: usize, replaced: &[Run], run: Run) {
        let Some(list) = self.run_lists.get_mut(&position) else { return };
        list.merging = None;
        self.bytes_merged += run.file.len;
        let Some(first) = replaced.first() else { return };
        let Some(at) = list.runs.iter().position(|listed| listed.run == *first) else { return };
        let end = at + replaced.len();
        let are_there = list.runs.get(at..end).is_some_and(|runs| runs.iter().map(|it| &it.run).eq(replaced));
        if are_there {
            let newest = list.runs[end - 1].newest;
            list.runs.splice(at..end, [Listed { run, newest, since: None }]);
        }
    }

    /// A merge failed: nothing has changed.
    pub(crate) fn merge_failed(&mut self, position: usize) {
        if let Some(list) = self.run_lists.get_mut(&position) {
            list.merging = None;
        }
    }
}

impl RunList {
    /// How many runs a checkpoint may list during a merge that begins now. A list that is longer already, after a restore or
    /// failed checkpoints, grows by one run: otherwise nothing would be completed until it is short.
    fn allowed(&self, max_runs: usize) -> usize {
        if self.runs.len() <= max_runs { max_runs } else { self.runs.len() + 1 }
    }

    /// Whether this checkpoint should not list the runs before the merge that is under way has made them fewer.
    fn waits_for_merge(&self, checkpoint: CheckpointId) -> bool {
        let listed = || self.runs.iter().take_while(|listed| listed.newest <= checkpoint).count();
        self.merging.is_some_and(|allowed| listed() > allowed)
    }

    /// The runs that a checkpoint lists. All of its own and of those before are durable.
    fn list_for(&mut self, checkpoint: CheckpointId) -> Vec<Run> {
        let of_it = self.runs.iter_mut().filter(|listed| listed.newest <= checkpoint);
        of_it
            .map(|listed| {
                listed.since.get_or_insert(checkpoint);
                listed.run.clone()
            })
            .collect()
    }

    /// Forgets the oldest runs before the newest one that holds all that lived, if the completed checkpoint has it. None
    /// that comes after one that stays: its tombstones hide what is in there.
    fn forget(&mut self, completed: CheckpointId) {
        if let Some(&begin) = self.whole.range(..=completed).next_back() {
            let goes = |listed: &&Listed| listed.newest < begin && listed.is_settled(completed);
            let gone = self.runs.iter().take_while(goes).count();
            self.runs.drain(..gone);
            self.whole.retain(|checkpoint| *checkpoint >= begin);
        }
    }

    fn identity(&mut self, job: JobId, attempt: AttemptId, subtask: SubtaskIndex) -> RunIdentity {
        self.numbers += 1;
        RunIdentity { job, attempt, operator: self.uid.clone(), subtask, number: self.numbers }
    }
}

/// Neighbouring runs to be merged.
#[derive(Debug)]
pub(crate) struct MergeWork {
    /// The operator's place among the chain's vertices.
    pub(crate) position: usize,
    pub(crate) runs: Vec<Run>,
    pub(crate) includes_oldest: bool,
    pub(crate) identity: RunIdentity,
    /// Until when state had expired at the cut of the oldest checkpoint under way, which may list the merged run: what has
    /// expired since still lives there. `None` if none is under way: those to come are behind what the task says now.
    pub(crate) clocks: Option<ListPart>,
}

#[cfg(test)]
mod tests;
