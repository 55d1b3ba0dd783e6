//! What the coordinator decides, carried out: messages to the tasks, writes in the background, work for the journal.

use std::{collections::BTreeMap, sync::Arc};

use checkpoint::{
    barrier::{Barrier, BarrierKind, complete::Capture},
    coordinator::{Decision, End, Event, Record, RequestId},
    history::CommitPermit,
    manifest::{self, Manifest, TaskId},
};
use env::{FaultPoint, Message};
use types::{CheckpointId, Error, Result, SubtaskIndex};

use super::{Attempt, Background, Over, Running};
use crate::{
    cluster::{enumerator::Assignment, journal::JournalWork, message::ToTaskManager, status::job::Live},
    recovery::savepoint::copy_savepoint,
    task::message::{Permitted, TaskCommand},
};

impl Running<'_> {
    /// Does what was decided; what follows from it at once comes back.
    pub(super) async fn carry_out(&mut self, decision: Decision) -> Result<Option<Event>> {
        match decision {
            Decision::Inject(barrier) => return self.inject(barrier).await.map(Some),
            Decision::CancelCheckpoint { checkpoint } => {
                self.tell_all(&TaskCommand::CancelCheckpoint(checkpoint)).await?;
            }
            Decision::WriteManifest(manifest) => self.write_manifest(*manifest),
            Decision::Record(record) => self.record(record).await?,
            Decision::Commit { checkpoint } => {
                let permit = self.permits.remove(&checkpoint).ok_or_else(|| {
                    Error::internal(format!(
                        "checkpoint {checkpoint} was to be committed without a record in the history"
                    ))
                })?;
                self.commit(&permit).await?;
            }
            Decision::CopySavepoint { checkpoint, dir } => self.copy_savepoint(checkpoint, dir),
            Decision::ReleaseAssignments { .. } => self.assign().await,
            Decision::Collect { pinned } => self.collect(pinned).await?,
            Decision::Answer { request, result } => self.requests.answer(request, result),
            Decision::Alert { error } => self.attempt.env.warn(&error.to_string()),
            Decision::Finish(end) => self.finish(end).await?,
            Decision::FailJob { error } => self.end = Some(Over::Failed(error)),
            Decision::Restart { error } => self.end = Some(Over::Restart(error)),
        }
        Ok(None)
    }

    async fn inject(&mut self, barrier: Barrier) -> Result<Event> {
        if matches!(barrier.kind, BarrierKind::Last | BarrierKind::Stop { .. }) {
            self.attempt.env.fault(FaultPoint::LastCheckpointBefore)?;
        }
        let mut enumerators = BTreeMap::new();
        for (uid, (_, enumerator)) in &self.attempt.enumerators {
            enumerators.insert(uid.clone(), enumerator.capture()?);
        }
        let capture = Capture { triggered_at: self.attempt.env.wall(), enumerators };
        for task in self.attempt.plan.sources.clone() {
            self.tell(task, TaskCommand::Inject(barrier)).await?;
        }
        Ok(Event::Captured { checkpoint: barrier.checkpoint, capture })
    }

    /// Assigns splits to the readers that want them and may have them now.
    pub(super) async fn assign(&mut self) {
        if !self.waiting_to_run.is_empty() {
            return;
        }
        let mut commands = Vec::new();
        let Attempt { enumerators, coordinator, .. } = &mut self.attempt;
        for (chain, enumerator) in enumerators.values_mut() {
            let task = |subtask: SubtaskIndex| TaskId { chain: *chain, subtask };
            for (subtask, assignment) in enumerator.assign(|subtask| coordinator.may_assign(task(subtask))) {
                let command = match assignment {
                    Assignment::Splits(splits) => TaskCommand::Assign(splits),
                    Assignment::NoMore => TaskCommand::NoMoreSplits,
                };
                commands.push((task(subtask), command));
            }
        }
        for (task, command) in commands {
            if let Err(error) = self.tell(task, command).await {
                self.end.get_or_insert(Over::Failed(error));
            }
        }
    }

    fn write_manifest(&mut self, manifest: Manifest) {
        let (env, store, done) =
            (self.attempt.env.clone(), self.attempt.store.clone(), self.background.0.clone());
        let checkpoint = manifest.checkpoint;
        let manifest = Arc::new(manifest);
        self.attempt.manifests.insert(checkpoint, Arc::clone(&manifest));
        self.attempt.env.spawn_task(&format!("manifest {checkpoint}"), async move {
            let written = manifest::write(&env, &*store, &manifest).await;
            let _gone = done.send(Message(Background::ManifestWritten(checkpoint, written))).await;
        });
    }

    async fn record(&mut self, record: Record) -> Result<()> {
        match &record {
            Record::Completed { checkpoint, .. } => self.completing = Some(*checkpoint),
            Record::Ended(_) => self.attempt.env.fault(FaultPoint::LastCheckpointAfter)?,
            Record::Confirmed { .. } | Record::Savepoint { .. } => {}
        }
        self.work(JournalWork::Append(Box::new(record.into()))).await
    }

    async fn work(&mut self, work: JournalWork) -> Result<()> {
        let sent = self.attempt.journal.work.send(Message(work)).await;
        sent.map_err(|_| Error::internal("the journal is gone"))
    }

    /// Tells all tasks that a checkpoint is in the history. Needs the permit that its record gave out.
    async fn commit(&mut self, permit: &CommitPermit) -> Result<()> {
        let pinned = self.attempt.coordinator.pinned();
        self.attempt.manifests.retain(|it, _| *it >= permit.checkpoint() || pinned.contains(it));
        self.tell_all(&TaskCommand::Commit(Permitted::by(permit))).await
    }

    fn copy_savepoint(&mut self, checkpoint: CheckpointId, dir: String) {
        let (env, store, done) =
            (self.attempt.env.clone(), self.attempt.store.clone(), self.background.0.clone());
        let manifest = self.attempt.manifests.get(&checkpoint).cloned();
        let compression = self.attempt.compression;
        let copying = async move {
            let copied = match manifest {
                Some(manifest) => copy_savepoint(&env, store, &manifest, &dir, compression).await,
                None => {
                    Err(Error::internal(format!("the manifest of checkpoint {checkpoint} is not at hand")))
                }
            };
            let _gone = done.send(Message(Background::SavepointCopied(checkpoint, dir, copied))).await;
        };
        self.copies.push(self.attempt.env.spawn_task(&format!("savepoint {checkpoint}"), copying));
    }

    async fn collect(&mut self, pinned: Vec<CheckpointId>) -> Result<()> {
        self.work(JournalWork::Collect(pinned.into_iter().collect())).await
    }

    /// The same because somebody has asked for it; the journal's worker answers.
    pub(super) async fn collect_for(&mut self, request: RequestId) {
        let running = self.attempt.coordinator.pinned().into_iter().collect();
        match self.work(JournalWork::CollectFor(request, running)).await {
            Ok(()) => drop(self.collecting.insert(request)),
            Err(error) => self.requests.answer(request, Err(error)),
        }
    }

    /// The end is recorded: all tasks end together.
    async fn finish(&mut self, end: End) -> Result<()> {
        if end == End::Cancelled || self.not_finished.is_empty() {
            self.end = Some(Over::Ended(end));
            return Ok(());
        }
        if end == End::Stopped {
            self.go(|live| Live::Cancelling(live.cancel()));
        }
        self.ending = Some(end);
        self.tell_all(&TaskCommand::Finish).await
    }

    async fn tell_all(&mut self, command: &TaskCommand) -> Result<()> {
        for task in self.attempt.plan.tasks.clone() {
            self.tell(task, command.clone()).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, task: TaskId, command: TaskCommand) -> Result<()> {
        let attempt = self.attempt.info.attempt;
        self.attempt.to_tasks.send(&ToTaskManager::Command { attempt, task, command }).await
    }
}
