//! The store of the history as the model has it: calls of the production steppers one at a time, and the deletion of old
//! records. A record that is created where the true one was deleted lies there and is not in the history.

use std::{collections::BTreeMap, sync::Arc};

use env::StoreEntry;
use tidegate_checkpoint::{
    collect::old_records,
    history::{
        Milestones, Record,
        step::{Answer, Call},
    },
    storage::paths,
};
use types::RecordNumber;

use super::durable::Broken;
use crate::mixer::Shared;

/// So close together that a history of three records has a deleted past.
pub(super) fn milestones() -> Milestones {
    Milestones::every(2)
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Log {
    /// For each number the record that was created first: the true history.
    truth: Vec<Shared<Record>>,
    /// The records that are there.
    store: BTreeMap<u64, Shared<Record>>,
}

impl Log {
    pub(super) fn newest(&self) -> Option<&Shared<Record>> {
        self.truth.last()
    }

    /// Whether this record is in the history.
    pub(super) fn holds(&self, record: &Record) -> bool {
        self.truth.get(record.number.0 as usize).is_some_and(|there| &**there == record)
    }

    /// Whether a record lies where the true one was deleted.
    pub(super) fn has_strays(&self) -> bool {
        self.store.values().any(|record| !self.holds(record))
    }

    pub(super) fn answer(&mut self, call: &Call) -> Broken<Answer> {
        Ok(match call {
            Call::Exists(number) => Answer::Exists(self.store.contains_key(&number.0)),
            Call::Read(number) => {
                Answer::Record(self.store.get(&number.0).map(|record| Arc::clone(record.arc())))
            }
            Call::Create(record) => self.create(record)?,
        })
    }

    fn create(&mut self, record: &Arc<Record>) -> Broken<Answer> {
        let number = record.number.0;
        if self.store.contains_key(&number) {
            return Ok(Answer::Taken);
        }
        let next = self.truth.len() as u64;
        if number > next {
            return Err(format!("record {number} leaves a gap after {next} records"));
        }
        let record = Shared::new(Arc::clone(record));
        if number == next {
            self.truth.push(record.clone());
        }
        self.store.insert(number, record);
        Ok(Answer::Created)
    }

    /// What a process whose newest record is `newest` may delete.
    pub(super) fn old(&self, newest: RecordNumber) -> Vec<RecordNumber> {
        let entry = |number: &u64| StoreEntry { path: paths::record(RecordNumber(*number)), len: 1 };
        let listing: Vec<_> = self.store.keys().map(entry).collect();
        old_records(&listing, newest, milestones())
    }

    pub(super) fn delete(&mut self, number: RecordNumber) {
        self.store.remove(&number.0);
    }
}
