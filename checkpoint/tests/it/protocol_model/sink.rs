//! The task with two inputs: counts records and writes the counts through a two-phase-commit sink.

use std::collections::{BTreeSet, VecDeque};

use tidegate_checkpoint::{
    barrier::{
        Barrier, CheckpointMode,
        align::{Align, Aligner},
    },
    coordinator::TaskReport,
    manifest::{Manifest, PreparedTransaction, SubtaskSnapshot, TaskSnapshot},
    storage::paths,
};
use types::{
    AttemptId, CheckpointId, Digest, KeyGroupRange, Lineage, Run, RunIdentity, SnapshotFile, SubtaskIndex,
    Timestamp,
};

use super::{
    Guard,
    durable::{Broken, Counts, Durable, Line, prepared, transaction_id},
    job::{JOB, sink_task, sink_uid},
    running::Item,
};
use crate::mixer::Shared;

/// What the coordinator told the task and the task has not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Inject(Barrier),
    Cancel(CheckpointId),
    Commit(CheckpointId),
}

/// A cut on its way to the store: what becomes durable, then what is acknowledged.
#[derive(Clone, Debug, Hash)]
struct Upload {
    checkpoint: CheckpointId,
    run: Option<(String, Counts)>,
    lines: Vec<Line>,
    snapshot: Shared<TaskSnapshot>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Sink {
    attempt: AttemptId,
    lineage: Lineage,
    aligner: Aligner,
    runs: Vec<Run>,
    /// Counted since the last cut.
    changed: Counts,
    count: u8,
    /// Written since the last cut.
    open: Vec<Line>,
    /// Sealed and not committed, oldest first.
    pending: Vec<PreparedTransaction>,
    uploads: VecDeque<Upload>,
    pub(super) commands: VecDeque<Command>,
}

impl Sink {
    pub(super) fn restore(
        attempt: AttemptId,
        lineage: Lineage,
        newest: CheckpointId,
        aligned: bool,
        from: Option<(&Manifest, Counts)>,
    ) -> Self {
        let mode = if aligned { CheckpointMode::ExactlyOnce } else { CheckpointMode::AtLeastOnce };
        let (mut runs, mut count) = (Vec::new(), 0);
        if let Some((manifest, counts)) = from {
            runs =
                manifest.operators.iter().flat_map(|operator| &operator.subtasks[0].runs).cloned().collect();
            count = counts.values().sum();
        }
        Self {
            attempt,
            lineage,
            aligner: Aligner::new(2, mode, newest),
            runs,
            changed: Counts::new(),
            count,
            open: Vec::new(),
            pending: Vec::new(),
            uploads: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    pub(super) fn can_read(&self, input: usize) -> bool {
        !self.aligner.is_blocked(input)
    }

    pub(super) fn uploading(&self) -> Option<CheckpointId> {
        self.uploads.front().map(|upload| upload.checkpoint)
    }

    /// Takes in what a channel holds; says what the coordinator must hear.
    pub(super) fn read(&mut self, input: usize, item: Item) -> Broken<Vec<TaskReport>> {
        let broken = |error: types::Error| error.to_string();
        match item {
            Item::Record(input) => {
                self.count += 1;
                *self.changed.entry(input).or_default() += 1;
                self.open.push(Line { input, count: self.count });
            }
            Item::End => {
                self.aligner.on_end(input).map_err(broken)?;
            }
            Item::Barrier(barrier) => {
                let step = self.aligner.on_barrier(input, barrier.checkpoint).map_err(broken)?;
                if step.then == Align::Cut {
                    self.cut(barrier.checkpoint);
                }
                let declined = |checkpoint| TaskReport::Declined { checkpoint, reason: "overtaken".into() };
                return Ok(step.aborted.into_iter().map(declined).collect());
            }
        }
        Ok(Vec::new())
    }

    fn cut(&mut self, checkpoint: CheckpointId) {
        let changed = std::mem::take(&mut self.changed);
        let run = (!changed.is_empty()).then(|| {
            let path = paths::run(self.attempt, &sink_uid(), SubtaskIndex(0), checkpoint.0);
            self.runs.push(run(self.attempt, checkpoint.0, path.clone()));
            (path, changed)
        });
        let lines = std::mem::take(&mut self.open);
        if !lines.is_empty() {
            self.pending.push(PreparedTransaction {
                lineage: self.lineage,
                writer: SubtaskIndex(0),
                attempt: self.attempt,
                checkpoint,
                payload: Vec::new(),
                file: None,
            });
        }
        let mut part = part(SubtaskIndex(0));
        part.runs.clone_from(&self.runs);
        part.prepared.clone_from(&self.pending);
        let snapshot = TaskSnapshot { task: sink_task(), operators: vec![(sink_uid(), part)] };
        self.uploads.push_back(Upload { checkpoint, run, lines, snapshot: Shared::of(snapshot) });
    }

    /// Makes the oldest cut durable and acknowledges it.
    pub(super) fn upload(&mut self, durable: &mut Durable) -> Option<TaskReport> {
        let upload = self.uploads.pop_front()?;
        if let Some((path, counts)) = upload.run {
            durable.runs.insert(path, counts);
        }
        if !upload.lines.is_empty() {
            durable.prepare((self.attempt, upload.checkpoint), upload.lines);
        }
        let snapshot = TaskSnapshot::clone(&upload.snapshot);
        Some(TaskReport::Acked { checkpoint: upload.checkpoint, snapshot })
    }

    /// The acknowledgement of the oldest cut, without making it durable: what the guard forbids.
    pub(super) fn acknowledge_early(&mut self) -> Option<TaskReport> {
        let upload = self.uploads.pop_front()?;
        let snapshot = TaskSnapshot::clone(&upload.snapshot);
        Some(TaskReport::Acked { checkpoint: upload.checkpoint, snapshot })
    }

    pub(super) fn command(
        &mut self,
        command: Command,
        durable: &mut Durable,
        without: Option<Guard>,
    ) -> Broken<Option<TaskReport>> {
        match command {
            Command::Inject(_) => Err("a task with inputs was asked to inject".to_owned()),
            Command::Cancel(checkpoint) => {
                self.aligner.on_cancel(checkpoint);
                if without == Some(Guard::Relisting) {
                    let of = |number| move |run: &Run| run.identity.attempt.0 == number;
                    let attempt = self.attempt.0;
                    self.runs.retain(|run| !(of(attempt)(run) && run.identity.number == checkpoint.0));
                    self.pending.retain(|prepared| prepared.checkpoint != checkpoint);
                }
                Ok(None)
            }
            Command::Commit(checkpoint) => {
                self.commit(checkpoint, durable)?;
                Ok(Some(TaskReport::Committed { checkpoint }))
            }
        }
    }

    /// Commits what was sealed up to `checkpoint`, all of which it lists.
    pub(super) fn commit(&mut self, checkpoint: CheckpointId, durable: &mut Durable) -> Broken {
        let (ready, later) = self.pending.drain(..).partition(|prepared| prepared.checkpoint <= checkpoint);
        self.pending = later;
        let ready: Vec<PreparedTransaction> = ready;
        ready.iter().try_for_each(|prepared| durable.commit(transaction_id(prepared)))
    }
}

/// What a new attempt must keep: all that the unconfirmed checkpoints list.
pub(super) fn to_commit(
    durable: &Durable,
    unconfirmed: &[CheckpointId],
) -> Broken<Vec<(AttemptId, CheckpointId)>> {
    let mut all = BTreeSet::new();
    for checkpoint in unconfirmed {
        all.extend(prepared(durable.manifest(*checkpoint)?).map(transaction_id));
    }
    Ok(all.into_iter().collect())
}

fn run(attempt: AttemptId, number: u64, path: String) -> Run {
    Run {
        file: SnapshotFile { path, len: 1, digest: Digest(0) },
        identity: RunIdentity { job: JOB, attempt, operator: sink_uid(), subtask: SubtaskIndex(0), number },
        groups: KeyGroupRange { start: 0, end: 1 },
        without: Vec::new(),
        entries: 1,
        tombstones: 0,
        plain_bytes: 1,
    }
}

/// A subtask's part with nothing in it.
pub(super) fn part(subtask: SubtaskIndex) -> SubtaskSnapshot {
    SubtaskSnapshot {
        subtask,
        groups: KeyGroupRange { start: 0, end: 0 },
        runs: Vec::new(),
        lists: Vec::new(),
        prepared: Vec::new(),
        watermark: Timestamp::MIN,
        processing_time: Timestamp(0),
    }
}
