//! When the next checkpoint is triggered: that of a stop or finish before all others, then what users asked for, then
//! the periodic one.

use std::time::Duration;

use env::Monotonic;
use types::Error;

use super::{
    Coordinator, MAX_UNCONFIRMED, Phase,
    event::{Decision, RequestId},
    pending::{Pending, Requests, SavepointRequest, Stage, refusal},
};
use crate::barrier::{Barrier, BarrierKind, ack::Acks};

/// The times that the next periodic checkpoint depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Schedule {
    /// When the interval is over; none without an interval, and before the tasks run.
    pub(super) next: Option<Monotonic>,
    /// When the last checkpoint ended, well or not.
    pub(super) last_end: Option<Monotonic>,
}

impl Coordinator {
    pub(super) fn on_trigger_checkpoint(&mut self, request: RequestId, out: &mut Vec<Decision>) {
        match self.refuse_ending() {
            Some(why) => out.push(refusal(request, &why)),
            None => self.queue.checkpoints.push(request),
        }
    }

    pub(super) fn on_trigger_savepoint(&mut self, request: RequestId, dir: String, out: &mut Vec<Decision>) {
        match self.refuse_savepoint(&dir) {
            Some(why) => out.push(refusal(request, &why)),
            None => self.queue.savepoints.push(SavepointRequest { request: Some(request), dir }),
        }
    }

    /// Why a savepoint into `dir` would be refused now: `Cancelled` if it comes too late, `Conflict` if one is under
    /// way, `Retryable` if the next attempt may take it.
    #[must_use]
    pub fn refuse_savepoint(&self, dir: &str) -> Option<Error> {
        self.refuse_all().or_else(|| self.refuse_ending()).or_else(|| self.refuse_dir(Some(dir)))
    }

    /// Why no checkpoint can be asked for any more. One may be until that of the end is triggered, which then serves it.
    fn refuse_ending(&self) -> Option<Error> {
        let triggered = self.ending.as_ref().is_some_and(|ending| ending.not_before().is_none());
        triggered.then(|| Error::cancelled("the job is ending and takes no more checkpoints"))
    }

    pub(super) fn refuse_dir(&self, dir: Option<&str>) -> Option<Error> {
        let taken = dir.filter(|dir| self.is_savepoint_dir_taken(dir))?;
        Some(Error::conflict(format!("a savepoint into {taken} is under way: name another directory")))
    }

    pub(super) fn on_tasks_running(&mut self, now: Monotonic) {
        if self.phase == Phase::Deploying {
            self.phase = Phase::Running;
            self.schedule.next = self.settings.interval.map(|interval| now + interval);
            if self.sources_reading.is_empty() {
                self.on_all_sources_ended(now);
            }
        }
    }

    /// Triggers what is due and allowed.
    pub(super) fn trigger(&mut self, now: Monotonic, out: &mut Vec<Decision>) {
        if self.phase != Phase::Running {
            return;
        }
        if let Some(ending) = &mut self.ending {
            if self.pending.is_empty() && ending.not_before().is_some_and(|at| at <= now) {
                let kind = ending.trigger(self.newest.next(), self.sources_reading.is_empty());
                self.inject(now, kind, out);
            }
        } else if self.has_room() && !self.queue.is_empty() {
            let savepoint = !self.queue.savepoints.is_empty();
            self.inject(now, if savepoint { BarrierKind::Savepoint } else { BarrierKind::Checkpoint }, out);
        } else if self.periodic_at().is_some_and(|at| at <= now) {
            self.inject(now, BarrierKind::Checkpoint, out);
        }
    }

    /// When time alone will trigger a checkpoint, if nothing else happens.
    pub(super) fn trigger_at(&self) -> Option<Monotonic> {
        match (&self.ending, self.phase) {
            (_, Phase::Deploying | Phase::Cancelling | Phase::Over) => None,
            (Some(ending), Phase::Running) => ending.not_before().filter(|_| self.pending.is_empty()),
            (None, Phase::Running) => self.periodic_at(),
        }
    }

    /// When the periodic checkpoint is due, unless something must happen first.
    fn periodic_at(&self) -> Option<Monotonic> {
        let pause = self.settings.min_pause;
        if !self.has_room() || (pause > Duration::ZERO && !self.pending.is_empty()) {
            return None;
        }
        let rested = self.schedule.last_end.map_or(Monotonic::default(), |end| end + pause);
        self.schedule.next.map(|next| next.max(rested))
    }

    fn has_room(&self) -> bool {
        self.pending.len() < self.settings.max_concurrent as usize
            && self.commits.waiting().len() < MAX_UNCONFIRMED
    }

    /// Triggers the next checkpoint, which serves all requests that wait.
    fn inject(&mut self, now: Monotonic, kind: BarrierKind, out: &mut Vec<Decision>) {
        self.newest = self.newest.next();
        let barrier = Barrier { checkpoint: self.newest, kind };
        let pending = Pending {
            barrier,
            deadline: now + self.settings.timeout,
            requests: std::mem::take::<Requests>(&mut self.queue),
            stage: Stage::Collecting,
            capture: None,
            not_injected: self.plan.sources.clone(),
            acks: Acks::new(barrier.checkpoint, self.plan.tasks.clone()),
        };
        self.pending.insert(barrier.checkpoint, pending);
        self.schedule.next = self.settings.interval.map(|interval| now + interval);
        self.statistics.on_triggered(now, barrier, self.plan.tasks.len());
        out.push(Decision::Inject(barrier));
    }
}
