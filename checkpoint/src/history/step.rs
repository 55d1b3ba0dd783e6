//! Getting a record into the history, and starting an attempt: pure steppers that say which call to the store comes
//! next and what its answer means. The driver in [`records`](super::Records) and the model search perform the calls.

use std::sync::Arc;

use types::RecordNumber;

use super::{
    record::Record,
    tail::{Milestones, TailSearch, TailStep},
};

/// A call to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Does this record exist?
    Exists(RecordNumber),
    /// Read this record.
    Read(RecordNumber),
    /// Create this record if there is none with its number.
    Create(Arc<Record>),
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To `Exists`.
    Exists(bool),
    /// To `Read`.
    Record(Option<Arc<Record>>),
    /// To `Create`: this call created it.
    Created,
    /// To `Create`: something is there.
    Taken,
    /// To `Create`: none came, or one that does not tell.
    Unclear,
}

/// How an append went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The record is in the history: act on it.
    Won,
    /// Another record has this number.
    Lost(Arc<Record>),
    /// The number lies in the deleted past: whatever was created means nothing.
    Past,
}

/// One record on its way into the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    record: Arc<Record>,
    milestones: Milestones,
    step: AppendStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AppendStep {
    Create,
    /// After a conflict, or an answer that does not tell: what is there?
    ReadBack,
    /// The record is there and ours: is it in the living part of the log?
    LookAbove,
}

impl Append {
    /// Puts `record` where its number says.
    #[must_use]
    pub fn new(record: Arc<Record>, milestones: Milestones) -> Self {
        Self { record, milestones, step: AppendStep::Create }
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// The next call.
    #[must_use]
    pub fn call(&self) -> Call {
        let number = self.record.number;
        match self.step {
            AppendStep::Create => Call::Create(Arc::clone(&self.record)),
            AppendStep::ReadBack => Call::Read(number),
            AppendStep::LookAbove => Call::Exists(self.milestones.above(number)),
        }
    }

    /// Takes the answer to the last [`call`](Self::call); says how it went once that is known. An answer to another
    /// question changes nothing.
    pub fn answer(&mut self, answer: Answer) -> Option<Outcome> {
        self.step = match (self.step, answer) {
            (AppendStep::Create, Answer::Created) => AppendStep::LookAbove,
            (AppendStep::Create, Answer::Taken | Answer::Unclear) => AppendStep::ReadBack,
            (AppendStep::ReadBack, Answer::Record(Some(found))) if found == self.record => {
                AppendStep::LookAbove
            }
            (AppendStep::ReadBack, Answer::Record(Some(found))) => return Some(Outcome::Lost(found)),
            // Not there: the request was lost, or the record was deleted since. Creating again tells.
            (AppendStep::ReadBack, Answer::Record(None)) => AppendStep::Create,
            (AppendStep::LookAbove, Answer::Exists(true)) => return Some(Outcome::Past),
            (AppendStep::LookAbove, Answer::Exists(false)) => return Some(Outcome::Won),
            (same, _) => same,
        };
        None
    }
}

/// An attempt that is starting: finds the newest record, lets its owner decide, appends the start record, and reads on
/// when another was quicker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Starting {
    milestones: Milestones,
    hint: Option<RecordNumber>,
    phase: StartPhase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum StartPhase {
    Finding(TailSearch),
    Reading(RecordNumber),
    Deciding(Option<Arc<Record>>),
    Appending(Append),
    Started(Arc<Record>),
}

/// What a starting attempt does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StartStep {
    /// Make this call and [`answer`](Starting::answer).
    Call(Call),
    /// Decide on the start record that follows this newest one (none: the first), and hand it to
    /// [`decided`](Starting::decided). Reads nothing more until then, so a mere reader stops here.
    Decide(Option<Arc<Record>>),
    /// This start record is in the history: the attempt owns the job.
    Started(Arc<Record>),
    /// A record above the newest one is known to have existed: one was lost.
    LostRecord {
        /// The newest one known of.
        hint: RecordNumber,
        /// What was found.
        tail: Option<RecordNumber>,
    },
}

impl Starting {
    /// Begins to look for the newest record, near `hint` if there is one: the newest known to have existed before.
    #[must_use]
    pub fn new(milestones: Milestones, hint: Option<RecordNumber>) -> Self {
        Self { milestones, hint, phase: StartPhase::Finding(TailSearch::new(milestones, hint)) }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> StartStep {
        match &self.phase {
            StartPhase::Finding(search) => match (search.next(), self.hint) {
                (TailStep::Probe(number), _) => StartStep::Call(Call::Exists(number)),
                (TailStep::Found(tail), Some(hint)) if tail < Some(hint) => {
                    StartStep::LostRecord { hint, tail }
                }
                (TailStep::Found(None), _) => StartStep::Decide(None),
                (TailStep::Found(Some(tail)), _) => StartStep::Call(Call::Read(tail)),
            },
            StartPhase::Reading(number) => StartStep::Call(Call::Read(*number)),
            StartPhase::Deciding(newest) => StartStep::Decide(newest.clone()),
            StartPhase::Appending(append) => StartStep::Call(append.call()),
            StartPhase::Started(record) => StartStep::Started(Arc::clone(record)),
        }
    }

    /// Takes the answer to the last [`StartStep::Call`].
    pub fn answer(&mut self, answer: Answer) {
        match (&mut self.phase, answer) {
            (StartPhase::Finding(search), Answer::Exists(exists)) => {
                search.answer(exists);
                if let TailStep::Found(Some(tail)) = search.next()
                    && self.hint <= Some(tail)
                {
                    self.phase = StartPhase::Reading(tail);
                }
            }
            (StartPhase::Reading(_), Answer::Record(Some(newest))) => {
                self.phase = StartPhase::Deciding(Some(newest));
            }
            // Deleted since it was found: others have gone far ahead.
            (StartPhase::Reading(_), Answer::Record(None)) => self.search_again(),
            (StartPhase::Appending(append), answer) => match append.answer(answer) {
                None => {}
                Some(Outcome::Won) => self.phase = StartPhase::Started(Arc::clone(append.record())),
                Some(Outcome::Lost(newer)) => self.phase = StartPhase::Deciding(Some(newer)),
                Some(Outcome::Past) => self.search_again(),
            },
            _ => {}
        }
    }

    /// Takes the start record that follows the newest record.
    pub fn decided(&mut self, record: Arc<Record>) {
        self.phase = StartPhase::Appending(Append::new(record, self.milestones));
    }

    fn search_again(&mut self) {
        self.phase = StartPhase::Finding(TailSearch::new(self.milestones, self.hint));
    }
}
