//! How checkpoints fail, and how the attempt does.

use env::Monotonic;
use types::{CheckpointId, Error, Result};

use super::{
    Coordinator, Phase,
    event::{Decision, Event},
    pending::{Pending, Requests, Stage, refusal},
};

impl Coordinator {
    /// Whether the checkpoint can still be given up: as soon as its record is on its way, only the history knows.
    pub(super) fn can_expire(&self, pending: &Pending) -> bool {
        !self.records.is_in_flight(pending.barrier.checkpoint)
    }

    /// Gives up the checkpoints that take too long.
    pub(super) fn expire(&mut self, now: Monotonic, out: &mut Vec<Decision>) -> Result<()> {
        let expired = |pending: &&Pending| pending.deadline <= now && self.can_expire(pending);
        let expired: Vec<_> =
            self.pending.values().filter(expired).map(|pending| pending.barrier.checkpoint).collect();
        for checkpoint in expired {
            let Some(pending) = self.pending.get(&checkpoint) else { continue };
            let missing: Vec<_> = pending.acks.missing().iter().take(3).map(ToString::to_string).collect();
            let mut reason = format!("it took longer than {:?}", self.settings.timeout);
            if !missing.is_empty() {
                let count = pending.acks.missing().len();
                reason.push_str(&format!(", missing {count} tasks: {}", missing.join(", ")));
            }
            self.fail_checkpoint(now, checkpoint, &Error::retryable(reason), out)?;
        }
        Ok(())
    }

    /// Gives up the checkpoints that are older than a whole one and not whole. Tasks acknowledge in order, so these
    /// will never be; the whole one serves their requests.
    pub(super) fn subsume(&mut self, now: Monotonic, out: &mut Vec<Decision>) -> Result<()> {
        let whole = self.pending.iter().rev().find(|(_, pending)| pending.is_whole());
        let Some(newest) = whole.map(|(checkpoint, _)| *checkpoint) else { return Ok(()) };
        let older = self.pending.range(..newest).filter(|(_, pending)| !pending.is_whole());
        let older: Vec<_> = older.map(|(checkpoint, _)| *checkpoint).collect();
        for checkpoint in older {
            let error = Error::retryable(format!("checkpoint {newest} was complete before it"));
            let requests = self.give_up(now, checkpoint, &error, out);
            if let Some(pending) = self.pending.get_mut(&newest) {
                pending.requests.append(requests);
            }
        }
        Ok(())
    }

    /// The checkpoint failed: tells the tasks and those who asked for it, and fails the job after too many in a row.
    ///
    /// # Errors
    /// `Retryable` when they were too many.
    pub(super) fn fail_checkpoint(
        &mut self,
        now: Monotonic,
        checkpoint: CheckpointId,
        error: &Error,
        out: &mut Vec<Decision>,
    ) -> Result<()> {
        let kind = error.kind();
        let error = Error::new(kind, format!("checkpoint {checkpoint} failed: {error}"));
        self.failures_in_a_row += 1;
        self.give_up(now, checkpoint, &error, out).refuse(&error, out);
        if self.ending.as_ref().is_some_and(|ending| ending.is_of(checkpoint)) {
            self.on_end_failed(now, &error, out);
        }
        let failures = self.failures_in_a_row;
        let too_many = failures > self.settings.tolerable_consecutive_failures;
        if self.phase != Phase::Over && too_many && self.settings.fail_job_on_failed_checkpoint {
            return Err(Error::retryable(format!(
                "{failures} checkpoints in a row failed, the last one: {error}"
            )));
        }
        Ok(())
    }

    /// Forgets the checkpoint and gives back the requests that it would have served.
    fn give_up(
        &mut self,
        now: Monotonic,
        checkpoint: CheckpointId,
        reason: &Error,
        out: &mut Vec<Decision>,
    ) -> Requests {
        let Some(pending) = self.pending.remove(&checkpoint) else { return Requests::default() };
        if pending.stage == Stage::Recording {
            self.records.withdraw(checkpoint);
        }
        self.schedule.last_end = Some(now);
        self.statistics.on_failed(now, checkpoint, reason.to_string());
        out.push(Decision::CancelCheckpoint { checkpoint });
        for task in pending.not_injected {
            if self.may_assign(task) {
                out.push(Decision::ReleaseAssignments { task });
            }
        }
        pending.requests
    }

    /// The attempt is over: every open request is refused, except a stop whose checkpoint is in the history or may be,
    /// which the next attempt answers.
    pub(super) fn over(&mut self, error: &Error, out: &mut Vec<Decision>) {
        self.phase = Phase::Over;
        if let Some(checkpoint) = self.records.completing() {
            self.on_record_unclear(checkpoint);
        }
        self.refuse_requests(error, out);
        self.pending.clear();
        self.statistics.on_over();
        for request in std::mem::take(&mut self.cancels) {
            out.push(refusal(request, error));
        }
        if self.remaining().is_none()
            && let Some(request) = self.ending.take().and_then(|ending| ending.stop_request())
        {
            out.push(refusal(request, error));
        }
    }

    /// Refuses all that asked for checkpoints and savepoints.
    pub(super) fn refuse_requests(&mut self, error: &Error, out: &mut Vec<Decision>) {
        let mut requests = std::mem::take(&mut self.queue);
        for pending in self.pending.values_mut() {
            requests.append(std::mem::take(&mut pending.requests));
        }
        requests.savepoints.extend(self.savepoints.drain(..).map(|open| open.wanted));
        requests.refuse(error, out);
    }
}

/// Refuses the request that `event` brings, if it brings one.
pub(super) fn refuse_request(event: Event, error: &Error, out: &mut Vec<Decision>) {
    match event {
        Event::TriggerCheckpoint { request }
        | Event::TriggerSavepoint { request, .. }
        | Event::Stop { request, .. }
        | Event::Cancel { request } => out.push(refusal(request, error)),
        _ => {}
    }
}
