//! Sources and sinks that do nothing, and the context of an operator that stands alone: for tests of plans and operators.

use std::marker::PhantomData;

use env::sim::Simulation;
use serde::{Deserialize, Serialize};
use types::{AttemptId, CheckpointId, Error, MaxParallelism, Result, SubtaskIndex};

use crate::{
    api::{
        data::Data,
        sink::{
            CommitOutcome, Committer, Marker, PlainWriter, Sink, SinkContext, TransactionId, TwoPhaseSink,
            TwoPhaseWriter,
        },
        source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
    },
    metrics::{Accumulators, Metrics},
    operators::{cancellation::Cancellation, operator::RuntimeContext},
    record::Batch,
};

/// One of two subtasks of the operator `op`.
pub(crate) fn runtime_context(subtask: u32, batch_records: usize) -> RuntimeContext {
    let (subtask, max_parallelism) = (SubtaskIndex(subtask), MaxParallelism::DEFAULT);
    RuntimeContext {
        operator: "op".into(),
        subtask,
        parallelism: 2,
        max_parallelism,
        attempt: AttemptId(1),
        groups: max_parallelism.all(),
        first_checkpoint: CheckpointId(1),
        batch_records,
        env: Simulation::new(1).env(),
        metrics: Metrics::default().operator("op", subtask),
        accumulators: Accumulators::default(),
        cancellation: Cancellation::default(),
    }
}

/// A bounded source without splits.
#[derive(Clone)]
pub(crate) struct NoRecords<T> {
    /// Its greatest parallelism.
    pub(crate) limit: Option<u32>,
    /// What is wrong with its settings.
    pub(crate) invalid: Option<&'static str>,
    pub(crate) records: PhantomData<fn() -> T>,
}

impl<T> Default for NoRecords<T> {
    fn default() -> Self {
        Self { limit: None, invalid: None, records: PhantomData }
    }
}

/// The split of which there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum NoSplit {}

impl Split for NoSplit {
    fn id(&self) -> String {
        match *self {}
    }
}

pub(crate) struct NoReader<T>(NoSplit, PhantomData<fn() -> T>);

impl<T: Data> SplitReader for NoReader<T> {
    type Out = T;
    type Split = NoSplit;

    async fn read(&mut self, _out: &mut SourceOutput<'_, T>) -> Result<ReadStatus> {
        match self.0 {}
    }

    fn position(&self) -> NoSplit {
        match self.0 {}
    }
}

impl<T: Data> Source for NoRecords<T> {
    type Out = T;
    type Split = NoSplit;
    type Reader = NoReader<T>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn parallelism_limit(&self) -> Option<u32> {
        self.limit
    }

    fn validate(&self) -> Result<()> {
        self.invalid.map_or(Ok(()), |problem| Err(Error::invalid_job(problem)))
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<NoSplit>> {
        Ok(Vec::new())
    }

    async fn open(&self, split: NoSplit, _context: &SourceContext) -> Result<NoReader<T>> {
        match split {}
    }
}

/// A plain sink that forgets.
pub(crate) struct Discard<T>(PhantomData<fn(T)>);

impl<T> Discard<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Discard<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: Data> Sink for Discard<T> {
    type In = T;
    type Writer = Self;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<T: Data> PlainWriter for Discard<T> {
    type In = T;

    async fn write(&mut self, _batch: Batch<T>) -> Result<()> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A two-phase sink that forgets.
pub(crate) struct Staged<T>(PhantomData<fn(T)>);

impl<T> Staged<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Staged<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: Data> TwoPhaseSink for Staged<T> {
    type In = T;
    type Sealed = ();
    type Prepared = ();
    type Writer = Self;
    type Committer = Self;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(self.clone())
    }

    async fn committer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<T: Data> TwoPhaseWriter for Staged<T> {
    type In = T;
    type Sealed = ();

    async fn write(&mut self, _batch: Batch<T>) -> Result<()> {
        Ok(())
    }

    fn seal(&mut self, _id: &TransactionId) -> Result<Option<()>> {
        Ok(None)
    }
}

impl<T: Data> Committer for Staged<T> {
    type Sealed = ();
    type Prepared = ();

    async fn prepare(&mut self, _id: &TransactionId, (): ()) -> Result<()> {
        Ok(())
    }

    async fn commit(&mut self, _id: &TransactionId, (): &()) -> Result<CommitOutcome> {
        Ok(CommitOutcome::Committed)
    }

    async fn revoke(&mut self, _id: &TransactionId, (): &()) -> Result<bool> {
        Ok(true)
    }

    async fn sweep(&mut self, _keep: &[TransactionId]) -> Result<()> {
        Ok(())
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        Ok(Vec::new())
    }
}
