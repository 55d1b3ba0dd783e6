//! The checkpoint coordinator of one attempt, pure: the engine feeds it every [`Event`] with the time, and carries out
//! the [`Decision`]s in their order.
//!
//! What it guarantees:
//! * A checkpoint is complete when every task of this attempt has acknowledged it; then its manifest is written, then
//!   its record created; only then is anybody told to commit. All in checkpoint order, one record at a time.
//! * What became of a record is never guessed: where it is not known, the attempt fails, and the next one reads the
//!   history. A record that was certainly not created fails its checkpoint, or is tried again.
//! * No decision ever discards what a failed checkpoint left with the tasks: it is part of the next one.
//! * Every request gets exactly one answer.
//!
//! After [`Decision::Finish`], [`Decision::FailJob`], [`Decision::Restart`], [`Event::JobFailed`] or [`Event::Fenced`] it
//! only refuses requests.

mod abort;
mod completion;
mod ending;
mod event;
mod pending;
mod records;
mod savepoints;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod trigger;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use env::Monotonic;
use types::{CheckpointId, Error, ErrorKind, Result};

use self::{
    abort::refuse_request,
    ending::Ending,
    pending::{Pending, Requests, Stage},
    records::Records,
    savepoints::OpenSavepoint,
    trigger::Schedule,
};
pub use self::{
    ending::{Course, Remaining, StopRequest},
    event::{Answer, Decision, End, Event, Record, RequestId, TaskReport},
    settings::Settings,
    statistics::{CheckpointOutcome, CheckpointStatistics, Statistics},
};
use crate::{
    barrier::{
        commit::Commits,
        complete::{AttemptPlan, Capture},
    },
    manifest::{TaskId, TaskSnapshot},
    restart::is_restartable,
};

/// Between two tries of what must be done in the end.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// So many checkpoints may be in the history whose sinks have not confirmed; further ones wait, so that what sinks
/// hold prepared stays bounded while the outside system is away.
const MAX_UNCONFIRMED: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Deploying,
    Running,
    Cancelling,
    Over,
}

/// All checkpoints of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    settings: Settings,
    plan: Arc<AttemptPlan>,
    phase: Phase,
    /// The newest checkpoint triggered.
    newest: CheckpointId,
    pending: BTreeMap<CheckpointId, Pending>,
    queue: Requests,
    schedule: Schedule,
    /// The failures since the last success.
    failures_in_a_row: u32,
    commits: Commits,
    /// The newest checkpoint in the history whose sinks are known there to have committed.
    confirmed: CheckpointId,
    records: Records,
    savepoints: Vec<OpenSavepoint>,
    sources_reading: BTreeSet<TaskId>,
    ending: Option<Ending>,
    cancels: Vec<RequestId>,
    statistics: Statistics,
}

impl Coordinator {
    /// The coordinator of an attempt whose first checkpoint comes after `newest`, the highest number in the history (0:
    /// there is none). The sinks of all those are confirmed.
    #[must_use]
    pub fn new(settings: Settings, plan: Arc<AttemptPlan>, newest: CheckpointId) -> Self {
        Self {
            settings,
            phase: Phase::Deploying,
            newest,
            pending: BTreeMap::new(),
            queue: Requests::default(),
            schedule: Schedule::default(),
            failures_in_a_row: 0,
            commits: Commits::new(newest),
            confirmed: newest,
            records: Records::default(),
            savepoints: Vec::new(),
            sources_reading: plan.sources.clone(),
            ending: None,
            cancels: Vec::new(),
            statistics: Statistics::default(),
            plan,
        }
    }

    /// The coordinator of an attempt that only does what remains of an end whose checkpoint is in the history and whose
    /// sinks are confirmed. No task need run; the first step, whatever its event, begins.
    #[must_use]
    pub fn resume(settings: Settings, plan: Arc<AttemptPlan>, remaining: Remaining) -> Self {
        let checkpoint = remaining.checkpoint;
        let mut coordinator = Self::new(settings, plan, checkpoint);
        coordinator.ending = Some(Ending::resume(remaining));
        coordinator.on_end_recorded(checkpoint);
        coordinator
    }

    /// Takes in what happened at `now` and says what is to be done.
    pub fn step(&mut self, now: Monotonic, event: Event) -> Vec<Decision> {
        let mut out = Vec::new();
        let step = match self.phase {
            Phase::Deploying | Phase::Running => self.on_event(now, event, &mut out),
            Phase::Cancelling => self.on_event_cancelling(now, event, &mut out),
            Phase::Over => {
                refuse_request(event, &attempt_is_over(), &mut out);
                Ok(())
            }
        };
        if let Err(error) = step.and_then(|()| self.advance(now, &mut out)) {
            self.over(&error, &mut out);
            out.push(Decision::FailJob { error });
        }
        out
    }

    /// When [`Event::TimePassed`] must come if nothing else does before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Monotonic> {
        if self.phase == Phase::Over {
            return None;
        }
        let deadlines = self.pending.values().filter(|pending| self.can_expire(pending));
        let savepoints = self.savepoints.iter().filter_map(OpenSavepoint::retry_at);
        let others = [self.records.retry_at(), self.trigger_at()].into_iter().flatten();
        deadlines.map(|pending| pending.deadline).chain(savepoints).chain(others).min()
    }

    /// Whether splits may be assigned to the source `task` now. If not, [`Decision::ReleaseAssignments`] comes.
    #[must_use]
    pub fn may_assign(&self, task: TaskId) -> bool {
        let ending = self.ending.as_ref().is_some_and(|ending| ending.recorded().is_some());
        !ending && self.pending.values().all(|pending| !pending.not_injected.contains(&task))
    }

    /// The checkpoints that savepoints are being copied from, ascending.
    #[must_use]
    pub fn pinned(&self) -> Vec<CheckpointId> {
        let pinned: BTreeSet<_> = self.savepoints.iter().map(|open| open.checkpoint).collect();
        pinned.into_iter().collect()
    }

    /// What became of the checkpoints so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn on_event(&mut self, now: Monotonic, event: Event, out: &mut Vec<Decision>) -> Result<()> {
        match event {
            Event::TasksRunning => self.on_tasks_running(now),
            Event::TimePassed => {}
            Event::TriggerCheckpoint { request } => self.on_trigger_checkpoint(request, out),
            Event::TriggerSavepoint { request, dir } => self.on_trigger_savepoint(request, dir, out),
            Event::Stop { request, drain, savepoint } => self.on_stop(now, request, drain, savepoint, out),
            Event::Cancel { request } => self.on_cancel(request, out),
            Event::Captured { checkpoint, capture } => self.on_captured(checkpoint, capture),
            Event::Task { attempt, task, report } if attempt == self.plan.attempt => {
                if !self.plan.tasks.contains(&task) {
                    let error = Error::internal(format!("{task} reported and is no task of this job"));
                    out.push(Decision::Alert { error });
                    return Ok(());
                }
                self.on_report(now, task, report, out)?;
            }
            Event::Task { .. } => {}
            Event::ManifestWritten { checkpoint, file } => self.on_manifest_written(checkpoint, file),
            Event::ManifestFailed { checkpoint, error } => {
                return self.on_manifest_failed(now, checkpoint, error, out);
            }
            Event::Recorded => return self.on_recorded(now, out),
            Event::RecordFailed { error } => return self.on_record_failed(now, error, out),
            Event::SavepointCopied { checkpoint, dir, manifest } => {
                self.on_savepoint_copied(checkpoint, dir, manifest);
            }
            Event::SavepointFailed { checkpoint, dir, error } => {
                return self.on_savepoint_failed(now, checkpoint, &dir, error, out);
            }
            Event::JobFailed { kind, reason } => {
                // Where the job may be restarted, it may be asked again.
                let kind = if is_restartable(kind) { ErrorKind::Retryable } else { kind };
                self.over(&Error::new(kind, reason), out);
            }
            Event::Fenced { reason } => self.over(&Error::fenced(reason), out),
        }
        Ok(())
    }

    /// Why no request but to cancel is taken any more, whatever it asks for.
    fn refuse_all(&self) -> Option<Error> {
        match self.phase {
            Phase::Deploying | Phase::Running => None,
            Phase::Cancelling => Some(job_is_being_cancelled()),
            Phase::Over => Some(attempt_is_over()),
        }
    }

    fn on_event_cancelling(&mut self, now: Monotonic, event: Event, out: &mut Vec<Decision>) -> Result<()> {
        match event {
            Event::Cancel { request } => self.on_cancel(request, out),
            Event::Recorded => {
                if let Some(Record::Ended(end)) = self.records.answered() {
                    self.on_ended(end, out);
                }
            }
            Event::RecordFailed { error } => return self.on_record_failed(now, error, out),
            Event::JobFailed { .. } => self.on_cancelled(out),
            Event::Fenced { reason } => self.over(&Error::fenced(reason), out),
            event => refuse_request(event, &job_is_being_cancelled(), out),
        }
        Ok(())
    }

    /// Does what has become possible.
    fn advance(&mut self, now: Monotonic, out: &mut Vec<Decision>) -> Result<()> {
        if matches!(self.phase, Phase::Deploying | Phase::Running) {
            self.expire(now, out)?;
            self.subsume(now, out)?;
            self.complete_oldest(out)?;
            self.copy_savepoints(now, out);
            self.close();
        }
        if self.phase != Phase::Over {
            out.extend(self.records.send(now).map(Decision::Record));
            self.trigger(now, out);
        }
        Ok(())
    }

    fn on_captured(&mut self, checkpoint: CheckpointId, capture: Capture) {
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.capture.get_or_insert(capture);
        }
    }

    fn on_report(
        &mut self,
        now: Monotonic,
        task: TaskId,
        report: TaskReport,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        match report {
            TaskReport::Injected { checkpoint } => self.on_injected(task, checkpoint, out),
            TaskReport::SourceFinished => {
                if self.sources_reading.remove(&task) && self.sources_reading.is_empty() {
                    self.on_all_sources_ended(now);
                }
            }
            TaskReport::Acked { checkpoint, snapshot } => self.on_acked(task, checkpoint, snapshot, out),
            TaskReport::Declined { checkpoint, reason } => {
                let collecting = |pending: &Pending| pending.stage == Stage::Collecting;
                if self.pending.get(&checkpoint).is_some_and(collecting) {
                    let error = Error::retryable(format!("{task} declined it: {reason}"));
                    self.fail_checkpoint(now, checkpoint, &error, out)?;
                }
            }
            TaskReport::Committed { checkpoint } => {
                if let Some(checkpoint) = self.commits.committed(task, checkpoint)? {
                    self.records.push(Record::Confirmed { checkpoint });
                }
            }
        }
        Ok(())
    }

    fn on_injected(&mut self, task: TaskId, checkpoint: CheckpointId, out: &mut Vec<Decision>) {
        let removed =
            self.pending.get_mut(&checkpoint).is_some_and(|pending| pending.not_injected.remove(&task));
        if removed && self.may_assign(task) {
            out.push(Decision::ReleaseAssignments { task });
        }
    }

    fn on_acked(
        &mut self,
        task: TaskId,
        checkpoint: CheckpointId,
        snapshot: TaskSnapshot,
        out: &mut Vec<Decision>,
    ) {
        if !self.pending.contains_key(&checkpoint) {
            return;
        }
        // A cut is acknowledged after it was made, whatever became of the report that it was.
        self.on_injected(task, checkpoint, out);
        let Some(pending) = self.pending.get_mut(&checkpoint) else { return };
        if snapshot.task != task {
            let error =
                Error::internal(format!("{task} acknowledged checkpoint {checkpoint} for {}", snapshot.task));
            out.push(Decision::Alert { error });
            return;
        }
        if pending.acks.missing().contains(&task) {
            self.statistics.on_acked(checkpoint, &snapshot);
        }
        if let Err(error) = pending.acks.add(snapshot) {
            out.push(Decision::Alert { error });
        }
    }
}

fn job_is_being_cancelled() -> Error {
    Error::cancelled("the job is being cancelled")
}

fn attempt_is_over() -> Error {
    Error::retryable("this attempt of the job is over: ask again")
}
