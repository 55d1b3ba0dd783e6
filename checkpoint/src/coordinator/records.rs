//! The records on their way into the history: one at a time, in order, so that a record is only created when what
//! became of the one before is known.

use std::collections::VecDeque;

use env::Monotonic;
use types::CheckpointId;

use super::event::Record;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Records {
    in_flight: Option<Record>,
    queue: VecDeque<Record>,
    /// The first of the queue was refused and is tried again then.
    retry_at: Option<Monotonic>,
}

impl Records {
    pub(super) fn push(&mut self, record: Record) {
        // A confirmation covers those before it.
        if matches!(record, Record::Confirmed { .. }) {
            self.queue.retain(|queued| !matches!(queued, Record::Confirmed { .. }));
        }
        self.queue.push_back(record);
    }

    /// The record to create now, if there is one and none is on its way.
    pub(super) fn send(&mut self, now: Monotonic) -> Option<Record> {
        if self.in_flight.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.in_flight = self.queue.pop_front();
        self.in_flight.clone()
    }

    /// What became of the record on its way is known.
    pub(super) fn answered(&mut self) -> Option<Record> {
        self.in_flight.take()
    }

    /// Tries `record`, the one just answered, again at `at`.
    pub(super) fn retry(&mut self, record: Record, at: Monotonic) {
        self.queue.push_front(record);
        self.retry_at = Some(at);
    }

    pub(super) fn retry_at(&self) -> Option<Monotonic> {
        self.retry_at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_none() && self.queue.is_empty()
    }

    /// Whether the record of an end is on its way.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.in_flight, Some(Record::Ended(_)))
    }

    pub(super) fn is_in_flight(&self, checkpoint: CheckpointId) -> bool {
        self.completing() == Some(checkpoint)
    }

    /// The checkpoint whose record is on its way.
    pub(super) fn completing(&self) -> Option<CheckpointId> {
        match &self.in_flight {
            Some(Record::Completed { checkpoint, .. }) => Some(*checkpoint),
            _ => None,
        }
    }

    /// The checkpoint is given up before its record was on its way.
    pub(super) fn withdraw(&mut self, checkpoint: CheckpointId) {
        self.queue.retain(|record| !completes(record, checkpoint));
    }

    /// Nothing that has not been sent is sent any more.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
        self.retry_at = None;
    }
}

fn completes(record: &Record, of: CheckpointId) -> bool {
    matches!(record, Record::Completed { checkpoint, .. } if *checkpoint == of)
}
