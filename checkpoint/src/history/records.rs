//! The records of one checkpoint directory: performs the calls of the steppers on a store. Called by the log, the
//! collector and the readers; holds no state of its own.

use std::{sync::Arc, time::Duration};

use env::{Created, Env, Store};
use types::{Error, ErrorKind, RecordNumber, Result};

use super::{
    record::{self, Record},
    step::{Answer, Append, Call, Outcome, StartStep, Starting},
    tail::Milestones,
};
use crate::storage::{paths, retry::Retry};

/// How long writing the hint may take: it only speeds up the next start.
const HINT_PATIENCE: Duration = Duration::from_secs(2);

/// The records below `history/` in a store, and the hint.
#[derive(Clone)]
pub struct Records {
    env: Env,
    store: Arc<dyn Store>,
    milestones: Milestones,
    retry: Retry,
}

impl Records {
    /// The records in `store`.
    #[must_use]
    pub fn new(env: &Env, store: Arc<dyn Store>) -> Self {
        Self { env: env.clone(), store, milestones: Milestones::default(), retry: Retry::STORE }
    }

    /// The same with other milestones and another patience, for tests.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn with(mut self, milestones: Milestones, retry: Retry) -> Self {
        (self.milestones, self.retry) = (milestones, retry);
        self
    }

    /// The way to the world.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Which records are milestones.
    #[must_use]
    pub fn milestones(&self) -> Milestones {
        self.milestones
    }

    /// The newest record, `None` if there is no history.
    ///
    /// # Errors
    /// `Corrupt` if the newest record is damaged, or the hint says that there was a newer one.
    pub async fn newest(&self) -> Result<Option<Arc<Record>>> {
        let mut starting = self.begin().await?;
        self.until_decision(&mut starting).await
    }

    /// Begins a search for the newest record, which must find what the hint names and what is listed: both are read
    /// first. The search needs neither, but a record that has vanished would end it early, and so a job would go on
    /// from an old checkpoint.
    pub(super) async fn begin(&self) -> Result<Starting> {
        let list = || self.store.list(paths::HISTORY);
        let listing = self.retry.run(&self.env, "list the history", list).await?;
        let listed = listing.iter().filter_map(|entry| paths::record_number(&entry.path)).max();
        Ok(Starting::new(self.milestones, listed.max(self.hint().await?.ok())))
    }

    /// Goes on until `starting` asks for a decision on the newest record.
    pub(super) async fn until_decision(&self, starting: &mut Starting) -> Result<Option<Arc<Record>>> {
        match self.advance(starting).await? {
            StartStep::Decide(newest) => Ok(newest),
            StartStep::LostRecord { hint, tail } => Err(self.lost_record(hint, tail).await?),
            step @ (StartStep::Call(_) | StartStep::Started(_)) => {
                Err(Error::internal(format!("a search for the newest record ended with {step:?}")))
            }
        }
    }

    /// Performs the calls of `starting` until it wants something else.
    pub(super) async fn advance(&self, starting: &mut Starting) -> Result<StartStep> {
        let mut patience = Patience::new(self);
        loop {
            match starting.next() {
                StartStep::Call(call) => starting.answer(patience.perform(call).await?),
                step => return Ok(step),
            }
        }
    }

    /// Puts a record into the history.
    pub(super) async fn append(&self, record: Arc<Record>) -> Result<Outcome> {
        let mut append = Append::new(record, self.milestones);
        let mut patience = Patience::new(self);
        loop {
            let answer = patience.perform(append.call()).await?;
            if let Some(outcome) = append.answer(answer) {
                return Ok(outcome);
            }
        }
    }

    /// The record with this number, if it is there.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged; `Retryable` or `Unavailable` if the store cannot be reached.
    pub async fn read(&self, number: RecordNumber) -> Result<Option<Record>> {
        let path = paths::record(number);
        let bytes = self.retry.run(&self.env, "read the history", || self.store.get(&path)).await?;
        bytes.map(|bytes| Record::decode(number, &bytes)).transpose()
    }

    /// What the hint says; the inner error tells that it is missing or damaged, which only costs time.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable` if the store cannot be reached.
    pub async fn hint(&self) -> Result<Result<RecordNumber>> {
        let read = || self.store.get(paths::LATEST);
        Ok(match self.retry.run(&self.env, "read the history", read).await? {
            Some(bytes) => record::decode_hint(&bytes),
            None => Err(Error::corrupt(format!("hint {} is missing", paths::LATEST))),
        })
    }

    /// Overwrites the hint. Without success it is merely old: nothing depends on it.
    pub(super) async fn write_hint(&self, number: RecordNumber) -> Result<()> {
        let put = self.store.put(paths::LATEST, vec![record::encode_hint(number)?]);
        drop(self.env.timeout(HINT_PATIENCE, put).await);
        Ok(())
    }

    /// A record without which nobody knows where the job stands.
    fn damaged(&self, number: RecordNumber, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        let url = self.store.url();
        let older = match number.0.checked_sub(1) {
            Some(before) => {
                format!("start from what the one before it knows with --from {url}/history/{before}")
            }
            None => "start fresh".to_owned(),
        };
        Error::corrupt(format!(
            "checkpoint directory {url}: {error}; put the record back, or {older}, with another checkpoint directory and \
             another output"
        ))
    }

    /// The error that names what has vanished: the newest record that is known of, or the milestone that leads to it.
    async fn lost_record(&self, known: RecordNumber, tail: Option<RecordNumber>) -> Result<Error> {
        let path = paths::record(known);
        let len = self.retry.run(&self.env, "search the history", || self.store.len(&path)).await?;
        let (lost, why) = match len {
            None => (known, format!("{} says that it existed, or it was listed just now", paths::LATEST)),
            Some(_) => (self.milestones.at_or_below(known), format!("{path} cannot be found without it")),
        };
        let found = tail.map_or_else(|| "none".to_owned(), paths::record);
        Ok(Error::corrupt(format!(
            "history record {} in {} is missing: {why}, the newest one found is {found}; put it back, or start from a \
             checkpoint with --from into an empty checkpoint directory",
            paths::record(lost),
            self.store.url(),
        )))
    }
}

/// One append or start: performs its calls, and says how long a record that stays unclear is pursued.
struct Patience<'a> {
    records: &'a Records,
    /// The record whose creation was asked for last.
    creating: Option<RecordNumber>,
    /// How often that was asked.
    tries: u32,
}

impl<'a> Patience<'a> {
    fn new(records: &'a Records) -> Self {
        Self { records, creating: None, tries: 0 }
    }

    /// # Errors
    /// `Unavailable` only if no record was created, nor will be by a call made here.
    async fn perform(&mut self, call: Call) -> Result<Answer> {
        let asked_before = self.tries > 0;
        let result = self.try_perform(call).await;
        result.map_err(|error| match (error.kind(), self.creating) {
            (ErrorKind::Retryable, Some(number)) => unclear(number, error),
            (ErrorKind::Unavailable, Some(number)) if asked_before => unclear(number, error),
            _ => error,
        })
    }

    async fn try_perform(&mut self, call: Call) -> Result<Answer> {
        let Records { env, store, retry, .. } = self.records;
        Ok(match call {
            Call::Exists(number) => {
                let path = paths::record(number);
                let len = retry.run(env, "search the history", || store.len(&path)).await?;
                Answer::Exists(len.is_some())
            }
            Call::Read(number) => {
                let read = self.records.read(number).await;
                let read = read.map_err(|error| self.records.damaged(number, error))?;
                Answer::Record(read.map(Arc::new))
            }
            Call::Create(record) => self.create(&record).await?,
        })
    }

    /// One try to create a record.
    async fn create(&mut self, record: &Record) -> Result<Answer> {
        let Records { env, store, retry, .. } = self.records;
        if self.creating != Some(record.number) {
            (self.creating, self.tries) = (Some(record.number), 0);
        }
        if self.tries > 0 {
            env.sleep((retry.first_pause * 2_u32.saturating_pow(self.tries)).min(retry.longest_pause)).await;
        }
        self.tries += 1;
        let path = paths::record(record.number);
        match env.timeout(retry.deadline, store.create(&path, vec![record.encode()?])).await {
            Some(Ok(Created::New)) => Ok(Answer::Created),
            Some(Ok(Created::Exists)) => Ok(Answer::Taken),
            Some(Err(error)) if error.kind() != ErrorKind::Retryable => Err(error),
            Some(Err(error)) if self.tries >= MAX_TRIES => Err(error),
            None | Some(Err(_)) => Ok(Answer::Unclear),
        }
    }
}

fn unclear(number: RecordNumber, error: Error) -> Error {
    let path = paths::record(number);
    let error = error.with_kind(ErrorKind::Retryable);
    error.context(format!("it is unclear whether history record {path} was created"))
}

/// How often a create without a clear answer is made again before the attempt gives up.
const MAX_TRIES: u32 = 8;
