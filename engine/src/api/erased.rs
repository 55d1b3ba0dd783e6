//! Sources, sinks and exchanges with their types erased, one dynamic call per batch: what the graph holds and tasks run.
//! The adapters from the public traits stand in `operators/source.rs`, `operators/sink.rs`, `operators/exchange.rs`.

use std::{any::Any, path::Path};

use checkpoint::manifest::ListPart;
use env::{BoxFuture, Env};
use serde::{Deserialize, Serialize};
use types::{MaxParallelism, Result, SubtaskIndex};

use super::{
    sink::{CommitOutcome, Marker, SinkContext, TransactionId},
    source::{Boundedness, SourceContext},
};
use crate::{
    operators::operator::{OutBatch, RuntimeContext},
    record::AnyBatch,
};

/// A split as the runtime handles it: the source's own bytes behind a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SplitState {
    /// Unique within the source; splits are assigned in this order.
    pub id: String,
    /// Whether it was read to its end. Finished splits stay in the state.
    pub finished: bool,
    /// The split, encoded.
    pub split: Vec<u8>,
}

/// A [`Source`](super::source::Source), erased.
pub trait AnySource: Send + Sync {
    /// Whether the source ends.
    fn boundedness(&self) -> Boundedness;
    /// Checks the settings.
    ///
    /// # Errors
    /// `InvalidJob`.
    fn validate(&self) -> Result<()>;
    /// See [`Source::place`](super::source::Source::place).
    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Option<String>>>;
    /// See [`Source::reads`](super::source::Source::reads).
    fn reads(&self, place: &str, path: &Path) -> bool;
    /// See [`Source::moved`](super::source::Source::moved).
    ///
    /// # Errors
    /// Those, and `Corrupt` if the split cannot be read.
    fn moved(&self, split: &SplitState, from: &str, to: &str) -> Result<SplitState>;
    /// Finds the splits, sorted by id.
    fn discover<'a>(&'a self, context: &'a SourceContext) -> BoxFuture<'a, Result<Vec<SplitState>>>;
    /// Makes what reads the splits of one subtask.
    fn reader(&self, context: SourceContext) -> Box<dyn AnyReader>;
}

/// What a reader has for its task.
pub enum ReaderEvent {
    /// Records.
    Batch(OutBatch),
    /// A split has ended. Emitted records of it came before.
    SplitEnded,
}

/// Reads all splits assigned to one subtask of a source.
pub trait AnyReader: Send {
    /// Adds a split to read (or to remember, if it is finished).
    fn add(&mut self, split: SplitState);
    /// How many splits are not yet finished.
    fn open_splits(&self) -> usize;
    /// Waits for records; at most `records` of them. Never ready while no split is open. Cancel-safe.
    fn next(&mut self, records: usize) -> BoxFuture<'_, Result<ReaderEvent>>;
    /// All splits with their positions, as one list state named `splits`.
    ///
    /// # Errors
    /// If a split cannot be encoded.
    fn snapshot(&mut self) -> Result<ListPart>;
    /// Where the reader stands, for messages: split and position. `None` before its first split.
    fn place(&self) -> Option<String>;
}

/// What a sink promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guarantee {
    /// Records may be written again after a failure.
    AtLeastOnce,
    /// Two-phase commit with the checkpoints.
    ExactlyOnce,
}

/// A sink, erased.
pub trait AnySink: Send + Sync {
    /// What it promises.
    fn guarantee(&self) -> Guarantee;
    /// Checks the settings.
    ///
    /// # Errors
    /// `InvalidJob`.
    fn validate(&self) -> Result<()>;
    /// See [`TwoPhaseSink::place`](super::sink::TwoPhaseSink::place).
    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Option<String>>>;
    /// Opens the writer of a subtask.
    fn writer(&self, context: SinkContext) -> BoxFuture<'_, Result<Box<dyn AnyWriter>>>;
    /// Opens a committer; `None` for a sink without transactions.
    fn committer(&self, context: SinkContext) -> Option<BoxFuture<'_, Result<Box<dyn AnyCommitter>>>>;
}

/// A transaction between `seal` and `prepare`.
pub type AnySealed = Box<dyn Any + Send>;

/// A sink's writer, erased.
pub trait AnyWriter: Send {
    /// Writes a batch. Not cancel-safe.
    fn write(&mut self, batch: Box<dyn AnyBatch>) -> BoxFuture<'_, Result<()>>;
    /// Plain sinks: makes everything durable. Two-phase sinks: nothing.
    fn flush(&mut self) -> BoxFuture<'_, Result<()>>;
    /// Two-phase sinks: ends the open transaction. Plain sinks: `None`.
    ///
    /// # Errors
    /// Only a broken invariant.
    fn seal(&mut self, id: &TransactionId) -> Result<Option<AnySealed>>;
}

/// A sink's committer, erased: `Prepared` as bytes (bincode behind a version byte).
pub trait AnyCommitter: Send {
    /// See [`Committer::prepare`](super::sink::Committer::prepare).
    fn prepare<'a>(&'a mut self, id: &'a TransactionId, sealed: AnySealed) -> BoxFuture<'a, Result<Vec<u8>>>;
    /// See [`Committer::commit`](super::sink::Committer::commit).
    fn commit<'a>(
        &'a mut self,
        id: &'a TransactionId,
        prepared: &'a [u8],
    ) -> BoxFuture<'a, Result<CommitOutcome>>;
    /// See [`Committer::revoke`](super::sink::Committer::revoke).
    fn revoke<'a>(&'a mut self, id: &'a TransactionId, prepared: &'a [u8]) -> BoxFuture<'a, Result<bool>>;
    /// See [`Committer::sweep`](super::sink::Committer::sweep).
    fn sweep<'a>(&'a mut self, keep: &'a [TransactionId]) -> BoxFuture<'a, Result<()>>;
    /// See [`Committer::finds`](super::sink::Committer::finds).
    fn finds<'a>(&'a mut self, id: &'a TransactionId, prepared: &'a [u8]) -> BoxFuture<'a, Result<bool>>;
    /// See [`Committer::held`](super::sink::Committer::held).
    fn held(&mut self) -> BoxFuture<'_, Result<Vec<Marker>>>;
}

/// Where the batches of one edge go.
#[derive(Clone)]
pub struct ExchangeContext {
    /// How many downstream subtasks there are.
    pub targets: usize,
    /// The job's max parallelism.
    pub max_parallelism: MaxParallelism,
    /// The upstream operator's instance.
    pub upstream: RuntimeContext,
    /// The greatest number of records in a batch.
    pub batch_records: usize,
    /// The greatest number of known bytes in a batch.
    pub batch_bytes: usize,
}

/// How records of one edge are spread over the downstream subtasks.
pub trait Exchange: Send + Sync {
    /// Makes the sending end for one upstream subtask.
    fn output(&self, context: &ExchangeContext) -> Box<dyn AnyOutput>;
}

/// The sending end of one edge at one upstream subtask: collects partial batches for each target.
pub trait AnyOutput: Send {
    /// Spreads all records of a batch over the targets' partial batches; full ones become ready.
    ///
    /// # Errors
    /// `User` if a key selector or partitioner fails, `InvalidJob` if a key cannot be encoded.
    fn push(&mut self, batch: &mut dyn AnyBatch) -> Result<()>;
    /// Like `push` for a batch that another consumer needs too: the records are cloned.
    ///
    /// # Errors
    /// As `push`.
    fn push_clone(&mut self, batch: &mut dyn AnyBatch) -> Result<()>;
    /// Makes all partial batches ready.
    fn flush(&mut self);
    /// Takes a ready batch and its target, in the order in which they became ready.
    fn take_ready(&mut self) -> Option<(usize, OutBatch)>;
    /// Whether any partial batch holds records.
    fn has_partial(&self) -> bool;
}

/// What makes an operator instance.
pub trait OperatorFactory: Send + Sync {
    /// Makes the instance of one subtask.
    ///
    /// # Errors
    /// `InvalidJob`.
    fn make(&self, context: &RuntimeContext) -> Result<Box<dyn crate::operators::operator::Operator>>;
}

impl<F> OperatorFactory for F
where
    F: Fn(&RuntimeContext) -> Result<Box<dyn crate::operators::operator::Operator>> + Send + Sync,
{
    fn make(&self, context: &RuntimeContext) -> Result<Box<dyn crate::operators::operator::Operator>> {
        self(context)
    }
}

/// For tests and messages: the subtask that a fixed target index stands for.
#[must_use]
pub fn subtask(target: usize) -> SubtaskIndex {
    SubtaskIndex(u32::try_from(target).expect("parallelism fits in 32 bits"))
}
