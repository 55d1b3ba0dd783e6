//! Savepoints that wait for their checkpoint's sinks, are being copied, or are being recorded.
//!
//! A savepoint that a user asked for fails once and is answered. That of a stop belongs to an end that cannot be taken
//! back: a passing fault is tried again, anything else is told in the stop's answer.

use env::Monotonic;
use types::{CheckpointId, Error, ErrorKind, Result, SnapshotFile};

use super::{
    Coordinator, RETRY_PAUSE,
    event::{Answer, Decision, Record},
    pending::{SavepointRequest, refusal},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The checkpoint's sinks have not confirmed.
    Unconfirmed,
    Copying,
    /// A copy failed and is tried again then.
    Retry(Monotonic),
    Recording,
}

/// A savepoint whose checkpoint is in the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenSavepoint {
    pub(super) checkpoint: CheckpointId,
    pub(super) wanted: SavepointRequest,
    stage: Stage,
}

impl OpenSavepoint {
    pub(super) fn new(checkpoint: CheckpointId, wanted: SavepointRequest) -> Self {
        Self { checkpoint, wanted, stage: Stage::Unconfirmed }
    }

    pub(super) fn retry_at(&self) -> Option<Monotonic> {
        match self.stage {
            Stage::Retry(at) => Some(at),
            Stage::Unconfirmed | Stage::Copying | Stage::Recording => None,
        }
    }
}

impl Coordinator {
    /// Begins the copies whose checkpoint is confirmed, and those that are to be tried again.
    pub(super) fn copy_savepoints(&mut self, now: Monotonic, out: &mut Vec<Decision>) {
        for open in &mut self.savepoints {
            let begin = match open.stage {
                Stage::Unconfirmed => open.checkpoint <= self.confirmed,
                Stage::Retry(at) => at <= now,
                Stage::Copying | Stage::Recording => false,
            };
            if begin {
                open.stage = Stage::Copying;
                out.push(Decision::CopySavepoint {
                    checkpoint: open.checkpoint,
                    dir: open.wanted.dir.clone(),
                });
            }
        }
    }

    pub(super) fn on_savepoint_copied(
        &mut self,
        checkpoint: CheckpointId,
        dir: String,
        manifest: SnapshotFile,
    ) {
        if let Some(index) = self.find_savepoint(checkpoint, &dir, Stage::Copying) {
            self.savepoints[index].stage = Stage::Recording;
            self.records.push(Record::Savepoint { checkpoint, dir, manifest });
        }
    }

    pub(super) fn on_savepoint_failed(
        &mut self,
        now: Monotonic,
        checkpoint: CheckpointId,
        dir: &str,
        error: Error,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        let Some(index) = self.find_savepoint(checkpoint, dir, Stage::Copying) else { return Ok(()) };
        if error.kind() == ErrorKind::Fenced {
            return Err(error);
        }
        if let Some(request) = self.savepoints[index].wanted.request {
            self.savepoints.remove(index);
            out.push(refusal(request, &error));
        } else if matches!(error.kind(), ErrorKind::Retryable | ErrorKind::Unavailable) {
            self.savepoints[index].stage = Stage::Retry(now + RETRY_PAUSE);
            out.push(Decision::Alert { error: error.context("the stop's savepoint is tried again") });
        } else {
            self.savepoints.remove(index);
            self.note_stop_savepoint(Err(error.to_string()));
        }
        Ok(())
    }

    pub(super) fn on_savepoint_recorded(
        &mut self,
        checkpoint: CheckpointId,
        dir: String,
        out: &mut Vec<Decision>,
    ) {
        let Some(index) = self.find_savepoint(checkpoint, &dir, Stage::Recording) else { return };
        match self.savepoints.remove(index).wanted.request {
            Some(request) => {
                out.push(Decision::Answer { request, result: Ok(Answer::Savepoint { checkpoint, dir }) });
            }
            None => self.note_stop_savepoint(Ok(dir)),
        }
    }

    /// Whether a savepoint into `dir` waits or is under way.
    pub(super) fn is_savepoint_dir_taken(&self, dir: &str) -> bool {
        let stop = self.ending.as_ref().and_then(|ending| ending.stop_savepoint());
        let waiting = self.pending.values().map(|pending| &pending.requests).chain([&self.queue]);
        let mut wanted = waiting
            .flat_map(|requests| &requests.savepoints)
            .chain(self.savepoints.iter().map(|open| &open.wanted));
        stop == Some(dir) || wanted.any(|wanted| wanted.dir == dir)
    }

    fn find_savepoint(&self, checkpoint: CheckpointId, dir: &str, stage: Stage) -> Option<usize> {
        self.savepoints
            .iter()
            .position(|open| open.checkpoint == checkpoint && open.wanted.dir == dir && open.stage == stage)
    }
}
