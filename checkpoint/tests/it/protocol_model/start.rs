//! How a process gets records into the history: the calls of the production steppers, one step of the search after another.

use std::sync::Arc;

use tidegate_checkpoint::history::{
    Instance, Kind, Record, StartRequest,
    start::{self, Candidate},
    step::{Answer, Append, Call, Outcome, StartStep, Starting},
};
use types::{MaxParallelism, Timestamp};

use super::{
    Guard, World,
    durable::Broken,
    job::{JOB, LINEAGE},
    log::milestones,
    process::Process,
};

impl World {
    /// Whether the search lets others act between two calls.
    ///
    /// Before every create; it is atomic in the store. Not within the search for the newest record: that finds what was the
    /// newest at one of its probes, as its last look for the next milestone proves, so all of it may as well happen then. Not
    /// between a create that was won and the look for the next milestone: a later look can only say no where the first said
    /// yes, and then the process stops or starts anew, as it does when it dies. Between a create that was lost and the reading
    /// of the winner as long as a record may still be deleted. `history_model` has every call by itself.
    fn are_apart(&self, call: &Call, next: &Call) -> bool {
        match next {
            Call::Create(_) => true,
            Call::Read(_) => matches!(call, Call::Create(_)) && self.budget.deletions > 0,
            Call::Exists(_) => false,
        }
    }

    /// Makes the next calls of a start.
    pub(super) fn start(&mut self, index: usize, mut starting: Starting) -> Broken<Process> {
        loop {
            match starting.next() {
                StartStep::LostRecord { .. } => return Err("no hint was ahead".to_owned()),
                StartStep::Decide(newest) => match self.decide(index, newest.as_deref())? {
                    Some(record) => {
                        starting.decided(record);
                        return Ok(Process::Starting(Box::new(starting)));
                    }
                    None => return Ok(Process::Ended),
                },
                StartStep::Started(record) => return self.started(record),
                StartStep::Call(call) => {
                    let answer = self.durable.change(|durable| durable.log.answer(&call))?;
                    starting = self.told(&starting, answer);
                    if let StartStep::Call(next) = starting.next()
                        && self.are_apart(&call, &next)
                    {
                        return Ok(Process::Starting(Box::new(starting)));
                    }
                }
            }
        }
    }

    /// The stepper after an answer; without the milestone check, after the answer that lets it start.
    fn told(&self, starting: &Starting, answer: Answer) -> Starting {
        let told = |answer| {
            let mut starting = starting.clone();
            starting.answer(answer);
            starting
        };
        if !self.has(Guard::MilestoneCheck) && matches!(answer, Answer::Exists(_)) {
            let lied_to = told(Answer::Exists(false));
            if matches!(lied_to.next(), StartStep::Started(_)) {
                return lied_to;
            }
        }
        told(answer)
    }

    /// The start record that follows `newest`; none if nothing is left to do.
    fn decide(&self, index: usize, newest: Option<&Record>) -> Broken<Option<Arc<Record>>> {
        let request = StartRequest::new("model", MaxParallelism(1), 2);
        let candidate = Candidate {
            request: &request,
            instance: Instance(index as u128),
            process: "model",
            directory: "model",
            new_job: JOB,
            new_lineage: LINEAGE,
        };
        let standing = newest.map(|newest| &newest.standing);
        match start::decide(standing, &candidate).map_err(|error| error.to_string())? {
            start::Decision::Finished(_) => Ok(None),
            // Stopped: nobody starts it again.
            start::Decision::Start(_) if standing.is_some_and(|standing| standing.end.is_some()) => Ok(None),
            start::Decision::Start(start) => {
                let kind = Kind::AttemptStarted(start);
                let record = Record::after(newest, Timestamp(0), kind);
                Ok(Some(Arc::new(record.map_err(|error| error.to_string())?)))
            }
        }
    }

    /// A process acts on a record that it believes to be in the history.
    pub(super) fn won(&self, record: &Record) -> Broken {
        let is_true = self.durable.log.holds(record);
        if is_true {
            Ok(())
        } else {
            Err(format!("record {} is acted on and not in the history", record.number))
        }
    }

    /// Makes the next calls of an append; how it went, or the append as it stands.
    pub(super) fn append(&mut self, mut append: Append) -> Broken<Result<Outcome, Append>> {
        loop {
            let call = append.call();
            let answer = self.durable.change(|durable| durable.log.answer(&call))?;
            let lies = !self.has(Guard::MilestoneCheck) && matches!(answer, Answer::Exists(_));
            let answer = if lies { Answer::Exists(false) } else { answer };
            if let Some(outcome) = append.answer(answer) {
                if outcome == Outcome::Won {
                    self.won(append.record())?;
                }
                return Ok(Ok(outcome));
            }
            if self.are_apart(&call, &append.call()) {
                return Ok(Err(append));
            }
        }
    }

    /// The append of a record of this kind after `newest`.
    pub(super) fn append_after(&self, newest: &Record, kind: Kind) -> Broken<Append> {
        let forgets = !self.has(Guard::Restating) && matches!(kind, Kind::SinksConfirmed(_));
        let mut record =
            Record::after(Some(newest), Timestamp(0), kind).map_err(|error| error.to_string())?;
        if forgets {
            record.standing.completed.clear();
        }
        Ok(Append::new(Arc::new(record), milestones()))
    }
}
