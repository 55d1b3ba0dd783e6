//! [`CollectSink`]: the two-phase contract in memory, as short as it can be.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::{
    api::sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
    record::Batch,
};
use serde::{Deserialize, Serialize};
use types::{CheckpointId, Error, JobId, Lineage, Result};

/// What a sink has collected. Cheap to clone.
pub struct Collected<T> {
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    job: Option<JobId>,
    prepared: BTreeMap<TransactionId, Vec<T>>,
    committed: BTreeSet<TransactionId>,
    visible: Vec<T>,
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        let state =
            State { job: None, prepared: BTreeMap::new(), committed: BTreeSet::new(), visible: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<T> Collected<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is made whole or not at all, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(&self, records: Vec<T>) {
        self.lock().visible.extend(records);
    }

    /// How many records are visible.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().visible.len()
    }

    /// Whether no record is visible.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone> Collected<T> {
    /// The visible records, in the order in which they became visible.
    #[must_use]
    pub fn records(&self) -> Vec<T> {
        self.lock().visible.clone()
    }
}

impl<T: Clone + Ord> Collected<T> {
    /// The visible records, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<T> {
        let mut records = self.records();
        records.sort();
        records
    }
}

/// Keeps records in memory; they become visible when their checkpoint is committed.
///
/// **Guarantee:** exactly once within one process.
pub struct CollectSink<T> {
    collected: Collected<T>,
}

impl<T> CollectSink<T> {
    /// A new sink, and what shows its committed records.
    #[must_use]
    pub fn new() -> (Self, Collected<T>) {
        let collected = Collected::default();
        (Self { collected: collected.clone() }, collected)
    }
}

impl<T> Clone for CollectSink<T> {
    fn clone(&self) -> Self {
        Self { collected: self.collected.clone() }
    }
}

/// What a checkpoint stores of a transaction: how many records wait for it in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedRecords {
    /// The number of records.
    pub records: u64,
}

impl<T: Clone + Send + 'static> TwoPhaseSink for CollectSink<T> {
    type In = T;
    type Sealed = Vec<T>;
    type Prepared = PreparedRecords;
    type Writer = CollectWriter<T>;
    type Committer = CollectCommitter<T>;

    async fn writer(&self, _context: &SinkContext) -> Result<CollectWriter<T>> {
        Ok(CollectWriter { open: Vec::new() })
    }

    async fn committer(&self, context: &SinkContext) -> Result<CollectCommitter<T>> {
        Ok(CollectCommitter { collected: self.collected.clone(), context: context.clone() })
    }
}

/// Collects the records of one subtask until the barrier.
pub struct CollectWriter<T> {
    open: Vec<T>,
}

impl<T: Clone + Send + 'static> TwoPhaseWriter for CollectWriter<T> {
    type In = T;
    type Sealed = Vec<T>;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.open.push(record.value);
        }
        Ok(())
    }

    fn seal(&mut self, _id: &TransactionId) -> Result<Option<Vec<T>>> {
        let sealed = mem::take(&mut self.open);
        Ok(if sealed.is_empty() { None } else { Some(sealed) })
    }
}

/// Shows or forgets prepared records.
pub struct CollectCommitter<T> {
    collected: Collected<T>,
    context: SinkContext,
}

impl<T: Clone + Send + 'static> Committer for CollectCommitter<T> {
    type Sealed = Vec<T>;
    type Prepared = PreparedRecords;

    async fn prepare(&mut self, id: &TransactionId, sealed: Vec<T>) -> Result<PreparedRecords> {
        let prepared = PreparedRecords { records: sealed.len() as u64 };
        self.collected.lock().prepared.insert(id.clone(), sealed);
        Ok(prepared)
    }

    async fn commit(&mut self, id: &TransactionId, prepared: &PreparedRecords) -> Result<CommitOutcome> {
        let mut state = self.collected.lock();
        if state.committed.contains(id) {
            return Ok(CommitOutcome::Committed);
        }
        let Some(records) = state.prepared.remove(id) else {
            return Ok(CommitOutcome::Lost(format!(
                "{} records of checkpoint {} were kept in the memory of a process that is gone",
                prepared.records, id.checkpoint
            )));
        };
        state.committed.insert(id.clone());
        state.visible.extend(records);
        Ok(CommitOutcome::Committed)
    }

    async fn revoke(&mut self, id: &TransactionId, _prepared: &PreparedRecords) -> Result<bool> {
        let mut state = self.collected.lock();
        state.prepared.remove(id);
        Ok(!state.committed.contains(id))
    }

    async fn sweep(&mut self, keep: &[TransactionId]) -> Result<()> {
        let mut state = self.collected.lock();
        state.job = Some(self.context.job);
        let attempt = self.context.attempt;
        state.prepared.retain(|id, _| id.attempt >= attempt || keep.contains(id));
        Ok(())
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        let state = self.collected.lock();
        if let Some(other) = state.job.filter(|&job| job != self.context.job) {
            return Err(Error::conflict(format!(
                "this collection belongs to job {other}, not to {}: make another one",
                self.context.job
            )));
        }
        let mut newest: BTreeMap<Lineage, CheckpointId> = BTreeMap::new();
        for id in &state.committed {
            let newest = newest.entry(id.lineage).or_insert(id.checkpoint);
            *newest = id.checkpoint.max(*newest);
        }
        let place = || "memory".to_owned();
        let marker = |(lineage, checkpoint)| Marker { lineage, checkpoint, place: place() };
        Ok(newest.into_iter().map(marker).collect())
    }
}
