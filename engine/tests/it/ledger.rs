//! A sink with true transactions in doubt: a server far away that outlives every process of a simulation, answers late,
//! and sometimes does what it was asked without saying so. It notes every breach of the two-phase contract.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use env::{Rng, sim::Control};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tidegate_engine::{
    api::sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
    record::Batch,
};
use types::{CheckpointId, Error, Lineage, Result, SubtaskIndex};

/// What goes wrong with calls to the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moods {
    /// The longest time before and after the deed.
    pub(crate) latency: Duration,
    /// How often a commit is refused for now.
    pub(crate) retry: f64,
    /// How often a commit is done and the answer lost.
    pub(crate) lose_reply: f64,
}

/// The server. Cheap to clone.
pub(crate) struct Ledger<T> {
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    moods: Moods,
    prepared: BTreeMap<TransactionId, Vec<T>>,
    committed: BTreeMap<TransactionId, Vec<T>>,
    newest: BTreeMap<(Lineage, SubtaskIndex), CheckpointId>,
    /// The newest revoked checkpoints.
    revoked: BTreeMap<(Lineage, SubtaskIndex), CheckpointId>,
    breaches: Vec<String>,
    lost: bool,
    retries: u64,
    /// Commits that were refused for now: their last requests may still be on their way.
    refused: BTreeMap<TransactionId, Records>,
    /// How many questions what it holds are answered before those requests arrive.
    late: Option<u32>,
    trace: Option<(&'static str, Control)>,
}

impl<T> Clone for Ledger<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        let state = State {
            moods: Moods::default(),
            prepared: BTreeMap::new(),
            committed: BTreeMap::new(),
            newest: BTreeMap::new(),
            revoked: BTreeMap::new(),
            breaches: Vec::new(),
            lost: false,
            retries: 0,
            refused: BTreeMap::new(),
            late: None,
            trace: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl<T> Ledger<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_moods(&self, moods: Moods) {
        self.lock().moods = moods;
    }

    /// Notes seals, prepared transactions and commits in the simulation's trace.
    pub(crate) fn trace(&self, name: &'static str, sim: &Control) {
        self.lock().trace = Some((name, sim.clone()));
    }

    /// From now on the server has forgotten all that was prepared.
    pub(crate) fn lose(&self) {
        self.lock().lost = true;
    }

    /// Readers take away all that is committed.
    pub(crate) fn take_away(&self) {
        self.lock().committed.clear();
    }

    /// Once the server has said so many times what it holds, what dead or fenced processes asked for last arrives: all
    /// commits that were refused.
    pub(crate) fn commit_late(&self, after_questions: u32) {
        self.lock().late = Some(after_questions);
    }

    /// The server holds one more transaction that was prepared and that no checkpoint knows: of the writer whose commit
    /// was refused last.
    pub(crate) fn leave_behind(&self) {
        let mut state = self.lock();
        let (id, _) = state.refused.last_key_value().expect("a commit was refused");
        let id = TransactionId { checkpoint: CheckpointId(id.checkpoint.0 + 1), ..id.clone() };
        state.prepared.insert(id, Vec::new());
    }

    /// Transactions that are prepared and neither committed nor thrown away.
    pub(crate) fn pending(&self) -> usize {
        self.lock().prepared.len()
    }

    /// How often a commit was refused for now.
    pub(crate) fn retries(&self) -> u64 {
        self.lock().retries
    }

    /// What was done against the contract.
    pub(crate) fn breaches(&self) -> Vec<String> {
        self.lock().breaches.clone()
    }
}

impl<T: Clone + Ord> Ledger<T> {
    /// What was committed, and how often.
    pub(crate) fn committed(&self) -> BTreeMap<T, u64> {
        counted(self.lock().committed.values().flatten().cloned())
    }
}

/// How often each thing occurs.
pub(crate) fn counted<T: Ord>(things: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

impl<T: Clone + Send + 'static> TwoPhaseSink for Ledger<T> {
    type In = T;
    type Sealed = Vec<T>;
    type Prepared = Records;
    type Writer = LedgerWriter<T>;
    type Committer = LedgerCommitter<T>;

    async fn writer(&self, _context: &SinkContext) -> Result<LedgerWriter<T>> {
        Ok(LedgerWriter { ledger: self.clone(), open: Vec::new() })
    }

    async fn committer(&self, context: &SinkContext) -> Result<LedgerCommitter<T>> {
        let rng = context.env.rng(&format!("ledger {} {}", context.uid, context.subtask));
        Ok(LedgerCommitter { ledger: self.clone(), context: context.clone(), rng })
    }
}

/// What a checkpoint holds of a transaction.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Records(u64);

pub(crate) struct LedgerWriter<T> {
    ledger: Ledger<T>,
    open: Vec<T>,
}

impl<T: Send + 'static> TwoPhaseWriter for LedgerWriter<T> {
    type In = T;
    type Sealed = Vec<T>;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.open.push(record.value);
        }
        Ok(())
    }

    fn seal(&mut self, id: &TransactionId) -> Result<Option<Vec<T>>> {
        self.ledger.lock().note("seals", id);
        let sealed = std::mem::take(&mut self.open);
        Ok((!sealed.is_empty()).then_some(sealed))
    }
}

pub(crate) struct LedgerCommitter<T> {
    ledger: Ledger<T>,
    context: SinkContext,
    rng: Rng,
}

impl<T> LedgerCommitter<T> {
    fn moods(&self) -> Moods {
        self.ledger.lock().moods
    }

    async fn travel(&mut self) {
        let longest = self.moods().latency.as_micros() as u64;
        let span = Duration::from_micros(self.rng.random_range(0..=longest));
        self.context.env.sleep(span).await;
    }
}

impl<T: Clone + Send + 'static> Committer for LedgerCommitter<T> {
    type Sealed = Vec<T>;
    type Prepared = Records;

    async fn prepare(&mut self, id: &TransactionId, sealed: Vec<T>) -> Result<Records> {
        self.travel().await;
        let records = Records(sealed.len() as u64);
        self.ledger.lock().prepare(id, sealed);
        self.travel().await;
        Ok(records)
    }

    async fn commit(&mut self, id: &TransactionId, prepared: &Records) -> Result<CommitOutcome> {
        self.travel().await;
        let moods = self.moods();
        if self.rng.random_bool(moods.retry) {
            let mut state = self.ledger.lock();
            state.retries += 1;
            state.refused.insert(id.clone(), *prepared);
            return Ok(CommitOutcome::Retry("the server is busy".to_owned()));
        }
        let outcome = self.ledger.lock().commit(id, *prepared);
        self.travel().await;
        if self.rng.random_bool(moods.lose_reply) {
            return Err(Error::retryable("the answer was lost"));
        }
        Ok(outcome)
    }

    async fn revoke(&mut self, id: &TransactionId, _prepared: &Records) -> Result<bool> {
        self.travel().await;
        let mut state = self.ledger.lock();
        state.prepared.remove(id);
        state.revoked.insert((id.lineage, id.writer), id.checkpoint);
        Ok(!state.committed.contains_key(id))
    }

    async fn sweep(&mut self, keep: &[TransactionId]) -> Result<()> {
        self.travel().await;
        let uid = self.context.uid.clone();
        self.ledger.lock().prepared.retain(|id, _| id.sink != uid || keep.contains(id));
        Ok(())
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        self.travel().await;
        let mut newest: BTreeMap<Lineage, CheckpointId> = BTreeMap::new();
        let mut state = self.ledger.lock();
        for ((lineage, _), checkpoint) in &state.newest {
            let entry = newest.entry(*lineage).or_insert(*checkpoint);
            *entry = (*checkpoint).max(*entry);
        }
        state.late = state.late.map(|questions| questions.saturating_sub(1));
        if state.late == Some(0) {
            state.late = None;
            for (id, prepared) in std::mem::take(&mut state.refused) {
                state.commit(&id, prepared);
            }
        }
        drop(state);
        let place = || "the ledger".to_owned();
        let marker = |(lineage, checkpoint)| Marker { lineage, checkpoint, place: place() };
        Ok(newest.into_iter().map(marker).collect())
    }
}

impl<T> State<T> {
    fn note(&self, what: &str, id: &TransactionId) {
        if let Some((name, sim)) = &self.trace {
            sim.trace(format_args!("sink {name} {what} its transaction of checkpoint {}", id.checkpoint));
        }
    }

    fn prepare(&mut self, id: &TransactionId, records: Vec<T>) {
        self.note("prepares", id);
        if self.prepared.insert(id.clone(), records).is_some() || self.committed.contains_key(id) {
            self.breaches.push(format!("prepared twice: {id:?}"));
        }
    }

    fn commit(&mut self, id: &TransactionId, prepared: Records) -> CommitOutcome {
        if self.committed.contains_key(id) {
            return CommitOutcome::Committed;
        }
        let found = self.prepared.remove(id).filter(|_| !self.lost);
        let Some(records) = found else {
            return CommitOutcome::Lost(format!("{} records are gone", prepared.0));
        };
        self.note("commits", id);
        if let Some(revoked) = self.revoked.get(&(id.lineage, id.writer)).filter(|it| **it > id.checkpoint) {
            self.breaches.push(format!("committed after checkpoint {revoked} was revoked: {id:?}"));
        }
        let newest = self.newest.entry((id.lineage, id.writer)).or_default();
        if *newest > id.checkpoint {
            self.breaches.push(format!("committed out of order, after {newest}: {id:?}"));
        }
        *newest = id.checkpoint.max(*newest);
        self.committed.insert(id.clone(), records);
        CommitOutcome::Committed
    }
}
