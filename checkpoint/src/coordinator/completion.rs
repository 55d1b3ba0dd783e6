//! From the last acknowledgement to the commit: manifest, record, then telling the tasks.

use env::Monotonic;
use types::{CheckpointId, Error, ErrorKind, Result, SnapshotFile};

use super::{
    Coordinator, Phase, RETRY_PAUSE,
    event::{Answer, Decision, Record},
    pending::{Pending, Stage},
    savepoints::OpenSavepoint,
};
use crate::barrier::{BarrierKind, complete};

impl Coordinator {
    /// Writes the manifest of the oldest checkpoint when it is whole: a newer one waits for it.
    pub(super) fn complete_oldest(&mut self, out: &mut Vec<Decision>) -> Result<()> {
        let Some(mut oldest) = self.pending.first_entry() else { return Ok(()) };
        let pending = oldest.get_mut();
        if pending.stage != Stage::Collecting || !pending.acks.is_complete() {
            return Ok(());
        }
        if let Some(capture) = &pending.capture {
            let manifest = complete::manifest(
                &self.plan,
                self.settings.mode,
                pending.barrier,
                capture,
                pending.acks.snapshots(),
            )?;
            pending.stage = Stage::Writing;
            out.push(Decision::WriteManifest(Box::new(manifest)));
        }
        Ok(())
    }

    pub(super) fn on_manifest_written(&mut self, checkpoint: CheckpointId, file: SnapshotFile) {
        let Some(pending) = self.pending.get_mut(&checkpoint) else { return };
        if pending.stage == Stage::Writing {
            pending.stage = Stage::Recording;
            self.records.push(Record::Completed { checkpoint, kind: pending.barrier.kind, manifest: file });
        }
    }

    pub(super) fn on_manifest_failed(
        &mut self,
        now: Monotonic,
        checkpoint: CheckpointId,
        error: Error,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        if error.kind() == ErrorKind::Fenced {
            return Err(error);
        }
        let writing = |pending: &Pending| pending.stage == Stage::Writing;
        if self.pending.get(&checkpoint).is_some_and(writing) {
            self.fail_checkpoint(now, checkpoint, &error.context("its manifest was not written"), out)?;
        }
        Ok(())
    }

    pub(super) fn on_recorded(&mut self, now: Monotonic, out: &mut Vec<Decision>) -> Result<()> {
        match self.records.answered() {
            Some(Record::Completed { checkpoint, .. }) => self.on_completed(now, checkpoint, out),
            Some(Record::Confirmed { checkpoint }) => {
                self.on_confirmed(checkpoint, out);
                Ok(())
            }
            Some(Record::Savepoint { checkpoint, dir, .. }) => {
                self.on_savepoint_recorded(checkpoint, dir, out);
                Ok(())
            }
            Some(Record::Ended(end)) => {
                self.on_ended(end, out);
                Ok(())
            }
            None => Err(Error::internal("a record was reported as created that was not asked for")),
        }
    }

    /// The checkpoint is in the history: from here on it is never given up.
    pub(super) fn on_completed(
        &mut self,
        now: Monotonic,
        checkpoint: CheckpointId,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        let Some(pending) = self.pending.remove(&checkpoint) else {
            return Err(Error::internal(format!("checkpoint {checkpoint} was recorded and is not pending")));
        };
        self.failures_in_a_row = 0;
        self.statistics.on_completed(now, checkpoint);
        self.schedule.last_end = Some(now);
        let confirmed = self.commits.recorded(checkpoint, pending.acks.committers())?;
        out.push(Decision::Commit { checkpoint });
        for request in pending.requests.checkpoints {
            out.push(Decision::Answer { request, result: Ok(Answer::Checkpoint(checkpoint)) });
        }
        let savepoints = pending.requests.savepoints.into_iter();
        self.savepoints.extend(savepoints.map(|wanted| OpenSavepoint::new(checkpoint, wanted)));
        if matches!(pending.barrier.kind, BarrierKind::Stop { .. } | BarrierKind::Last) {
            self.on_end_recorded(checkpoint);
        }
        if confirmed {
            self.records.push(Record::Confirmed { checkpoint });
        }
        Ok(())
    }

    pub(super) fn on_confirmed(&mut self, checkpoint: CheckpointId, out: &mut Vec<Decision>) {
        self.confirmed = checkpoint;
        out.push(Decision::Collect { pinned: self.pinned() });
    }

    pub(super) fn on_record_failed(
        &mut self,
        now: Monotonic,
        error: Error,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        let Some(record) = self.records.answered() else {
            return Err(Error::internal("a record was reported as failed that was not asked for"));
        };
        match error.kind() {
            ErrorKind::Fenced => Err(error),
            _ if self.phase == Phase::Cancelling => {
                self.on_record_failed_cancelling(&record, error, out);
                Ok(())
            }
            ErrorKind::Unavailable => match record {
                Record::Completed { checkpoint, .. } => {
                    let error = error.context("its history record was not created");
                    self.fail_checkpoint(now, checkpoint, &error, out)
                }
                record => {
                    self.records.retry(record, now + RETRY_PAUSE);
                    out.push(Decision::Alert { error: error.context("a history record is tried again") });
                    Ok(())
                }
            },
            _ => {
                if let Record::Completed { checkpoint, .. } = record {
                    self.on_record_unclear(checkpoint);
                }
                Err(error.context("it is not known whether a history record was created"))
            }
        }
    }
}
