//! How a job ends. Three ways: all sources end (a last checkpoint, then "finished"), a stop (its checkpoint, then
//! "stopped"), a cancellation ("cancelled" at once).
//!
//! Until the checkpoint of a stop or finish is in the history, a failure undoes the stop, or tries the last checkpoint
//! again. After that there is no way back: sources never start again, and what remains (commit, copy the savepoint,
//! record the end) is tried until it is done, by this attempt or by the next one through [`Coordinator::resume`].

use env::Monotonic;
use types::{CheckpointId, Error, ErrorKind, Result};

use super::{
    Coordinator, Phase, RETRY_PAUSE,
    event::{Answer, Decision, End, Record, RequestId},
    pending::{SavepointRequest, refusal},
    savepoints::OpenSavepoint,
};
use crate::barrier::BarrierKind;

/// What a user asked for with a stop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StopRequest {
    /// The request.
    pub request: RequestId,
    /// Where to copy the last checkpoint, if anywhere.
    pub savepoint: Option<String>,
}

/// An end whose checkpoint is in the history: what a later attempt must still do. After an attempt that failed while the
/// checkpoint's record was on its way the history says whether it is there; if it is not, the stop has failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remaining {
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
    /// `Stopped` or `Finished`.
    pub end: End,
    /// The stop that asked for it; its savepoint is left out once it is recorded or cannot be made.
    pub stop: Option<StopRequest>,
    /// What became of the stop's savepoint, if that is known: its place, or why there is none.
    pub savepoint: Option<Result<String, String>>,
}

/// Where an attempt is on the way to the job's end. It only ever goes on to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Course {
    /// No end is in sight, or that of a stop which may still fail.
    Running,
    /// All sources have ended, or the checkpoint of a stop is in the history: sources never start again.
    Finishing,
    /// The job was cancelled.
    Cancelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Waits until no checkpoint is under way, and for this time.
    Wanted { not_before: Monotonic },
    /// Its checkpoint is under way.
    Triggered(CheckpointId),
    /// The attempt is over, and only the history knows whether its checkpoint is there.
    Unclear(CheckpointId),
    /// Its checkpoint is in the history.
    Recorded(CheckpointId),
    /// The record of the end is under way.
    Closing(CheckpointId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ending {
    end: End,
    drain: bool,
    stop: Option<StopRequest>,
    savepoint: Option<Result<String, String>>,
    stage: Stage,
}

impl Ending {
    fn new(now: Monotonic, end: End) -> Self {
        Self { end, drain: false, stop: None, savepoint: None, stage: Stage::Wanted { not_before: now } }
    }

    pub(super) fn resume(remaining: Remaining) -> Self {
        let Remaining { checkpoint, end, stop, savepoint } = remaining;
        Self { end, drain: false, stop, savepoint, stage: Stage::Recorded(checkpoint) }
    }

    /// When its checkpoint may be triggered, if it has not been.
    pub(super) fn not_before(&self) -> Option<Monotonic> {
        match self.stage {
            Stage::Wanted { not_before } => Some(not_before),
            Stage::Triggered(_) | Stage::Unclear(_) | Stage::Recorded(_) | Stage::Closing(_) => None,
        }
    }

    /// Its checkpoint, if it is in the history.
    pub(super) fn recorded(&self) -> Option<CheckpointId> {
        match self.stage {
            Stage::Wanted { .. } | Stage::Triggered(_) | Stage::Unclear(_) => None,
            Stage::Recorded(checkpoint) | Stage::Closing(checkpoint) => Some(checkpoint),
        }
    }

    /// Its checkpoint, unless it certainly is not in the history.
    fn perhaps_recorded(&self) -> Option<CheckpointId> {
        match self.stage {
            Stage::Unclear(checkpoint) => Some(checkpoint),
            _ => self.recorded(),
        }
    }

    pub(super) fn is_of(&self, checkpoint: CheckpointId) -> bool {
        self.stage == Stage::Triggered(checkpoint)
    }

    /// Where the stop's savepoint is to be.
    pub(super) fn stop_savepoint(&self) -> Option<&str> {
        self.stop.as_ref()?.savepoint.as_deref()
    }

    pub(super) fn stop_request(&self) -> Option<RequestId> {
        self.stop.as_ref().map(|stop| stop.request)
    }

    /// Its checkpoint is triggered; the answer is what the barrier asks for.
    pub(super) fn trigger(&mut self, checkpoint: CheckpointId, all_sources_ended: bool) -> BarrierKind {
        self.stage = Stage::Triggered(checkpoint);
        if all_sources_ended {
            self.end = End::Finished;
            return BarrierKind::Last;
        }
        BarrierKind::Stop { drain: self.drain }
    }
}

impl Coordinator {
    /// Why a stop, perhaps with a savepoint in this directory, would be refused now: `Cancelled` if it comes too late.
    #[must_use]
    pub fn refuse_stop(&self, savepoint: Option<&str>) -> Option<Error> {
        let late = self.refuse_all();
        match &self.ending {
            _ if late.is_some() => late,
            Some(ending) if ending.stop.is_some() => {
                Some(Error::cancelled("the job is being stopped already"))
            }
            Some(ending) if ending.recorded().is_some() && savepoint.is_some() => {
                Some(Error::cancelled("the job is finishing and takes no more savepoints"))
            }
            _ => self.refuse_dir(savepoint),
        }
    }

    pub(super) fn on_stop(
        &mut self,
        now: Monotonic,
        request: RequestId,
        drain: bool,
        savepoint: Option<String>,
        out: &mut Vec<Decision>,
    ) {
        if let Some(why) = self.refuse_stop(savepoint.as_deref()) {
            out.push(refusal(request, &why));
            return;
        }
        let ending = self.ending.get_or_insert_with(|| Ending::new(now, End::Stopped));
        ending.drain = drain;
        ending.stop = Some(StopRequest { request, savepoint });
    }

    /// All input has been read: the job finishes, unless it is being stopped already.
    pub(super) fn on_all_sources_ended(&mut self, now: Monotonic) {
        self.ending.get_or_insert_with(|| Ending::new(now, End::Finished));
    }

    /// The checkpoint of the end is in the history.
    pub(super) fn on_end_recorded(&mut self, checkpoint: CheckpointId) {
        let Some(ending) = &mut self.ending else { return };
        ending.stage = Stage::Recorded(checkpoint);
        if let Some(dir) = ending.stop_savepoint().map(str::to_owned) {
            let wanted = SavepointRequest { request: None, dir };
            self.savepoints.push(OpenSavepoint::new(checkpoint, wanted));
        }
    }

    /// Nobody will learn in this attempt what became of the record of `checkpoint`.
    pub(super) fn on_record_unclear(&mut self, checkpoint: CheckpointId) {
        if let Some(ending) = self.ending.as_mut().filter(|ending| ending.is_of(checkpoint)) {
            ending.stage = Stage::Unclear(checkpoint);
        }
    }

    /// The checkpoint of the end failed before it was in the history.
    pub(super) fn on_end_failed(&mut self, now: Monotonic, error: &Error, out: &mut Vec<Decision>) {
        let Some(ending) = &mut self.ending else { return };
        if ending.end == End::Finished {
            ending.stage = Stage::Wanted { not_before: now + RETRY_PAUSE };
            return;
        }
        let drain = ending.drain;
        if let Some(request) = ending.stop_request() {
            out.push(refusal(request, error));
        }
        self.ending = None;
        if drain {
            let error = Error::retryable(format!("the drain is undone by a restart: {error}"));
            self.over(&error, out);
            out.push(Decision::Restart { error });
        } else if self.sources_reading.is_empty() {
            self.on_all_sources_ended(now);
        }
    }

    /// Records the end when nothing else remains to be done.
    pub(super) fn close(&mut self) {
        let done = self.commits.waiting().len() == 0 && self.savepoints.is_empty() && self.records.is_empty();
        let Some(ending) = &mut self.ending else { return };
        if let (Stage::Recorded(checkpoint), true) = (ending.stage, done) {
            ending.stage = Stage::Closing(checkpoint);
            self.records.push(Record::Ended(ending.end));
        }
    }

    pub(super) fn note_stop_savepoint(&mut self, result: Result<String, String>) {
        if let Some(ending) = &mut self.ending {
            ending.savepoint = Some(result);
            if let Some(stop) = &mut ending.stop {
                stop.savepoint = None;
            }
        }
    }

    /// The record of the end is in the history.
    pub(super) fn on_ended(&mut self, end: End, out: &mut Vec<Decision>) {
        let ending = self.ending.take();
        let checkpoint = ending.as_ref().and_then(Ending::recorded);
        let request = ending.as_ref().and_then(Ending::stop_request);
        let savepoint = ending.and_then(|ending| ending.savepoint);
        for request in request.into_iter().chain(std::mem::take(&mut self.cancels)) {
            let answer = Answer::Ended { end, checkpoint, savepoint: savepoint.clone() };
            out.push(Decision::Answer { request, result: Ok(answer) });
        }
        self.over(&Error::cancelled("the job has ended"), out);
        out.push(Decision::Finish(end));
    }

    /// Drops everything but the record on its way, and records the cancellation after it. If that is the record of another
    /// end, it decides how the job ends, and its stop is answered then.
    pub(super) fn on_cancel(&mut self, request: RequestId, out: &mut Vec<Decision>) {
        self.cancels.push(request);
        if self.phase == Phase::Cancelling {
            return;
        }
        self.refuse_requests(&Error::cancelled("the job was cancelled"), out);
        self.pending.clear();
        self.phase = Phase::Cancelling;
        self.records.clear_queue();
        if !self.records.is_ending() {
            self.refuse_ended_stop(out);
            self.records.push(Record::Ended(End::Cancelled));
        }
    }

    /// The cancellation has come before the end that was under way.
    fn refuse_ended_stop(&mut self, out: &mut Vec<Decision>) {
        if let Some(request) = self.ending.take().and_then(|ending| ending.stop_request()) {
            out.push(refusal(request, &Error::cancelled("the job was cancelled")));
        }
    }

    /// The job is cancelled, whether the history says so or not.
    pub(super) fn on_cancelled(&mut self, out: &mut Vec<Decision>) {
        self.refuse_ended_stop(out);
        self.on_ended(End::Cancelled, out);
    }

    /// A record failed while the job is being cancelled. The cancellation goes on, recorded or not.
    pub(super) fn on_record_failed_cancelling(
        &mut self,
        record: &Record,
        error: Error,
        out: &mut Vec<Decision>,
    ) {
        let history_usable = error.kind() == ErrorKind::Unavailable && !matches!(record, Record::Ended(_));
        out.push(Decision::Alert { error: error.context("the cancelled job's history") });
        if !history_usable {
            self.on_cancelled(out);
        }
    }

    /// Where the attempt is on the way to the job's end; none once the coordinator is done.
    #[must_use]
    pub fn course(&self) -> Option<Course> {
        let finishing = |ending: &Ending| ending.end == End::Finished || ending.recorded().is_some();
        match self.phase {
            Phase::Over => None,
            Phase::Cancelling => Some(Course::Cancelling),
            _ if self.ending.as_ref().is_some_and(finishing) => Some(Course::Finishing),
            Phase::Deploying | Phase::Running => Some(Course::Running),
        }
    }

    /// What a later attempt must do instead of starting sources, once the coordinator is done with
    /// [`Decision::FailJob`] or [`Event::JobFailed`](super::Event::JobFailed).
    #[must_use]
    pub fn remaining(&self) -> Option<Remaining> {
        let ending = self.ending.as_ref()?;
        Some(Remaining {
            checkpoint: ending.perhaps_recorded()?,
            end: ending.end,
            stop: ending.stop.clone(),
            savepoint: ending.savepoint.clone(),
        })
    }
}
