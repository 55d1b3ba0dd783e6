//! The inside of an operator as a task sees it: batches in, batches out, with hooks for time and state. Barriers and
//! alignment never reach an operator: the task owns them.

use std::sync::Arc;

use checkpoint::manifest::ListPart;
use env::Env;
use statebackend::KeyedState;
use types::{AttemptId, CheckpointId, KeyGroupRange, MaxParallelism, Result, SubtaskIndex, Timestamp};

use super::cancellation::Cancellation;
use crate::{
    metrics::{Accumulators, OperatorMetrics},
    record::{AnyBatch, Batch, BatchBuilder, Mark},
};

/// What an operator instance knows about where it runs. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeContext {
    /// The operator's uid, or its display name if it owns no state.
    pub operator: Arc<str>,
    /// Which of the parallel instances this is.
    pub subtask: SubtaskIndex,
    /// How many there are.
    pub parallelism: u32,
    /// The job's max parallelism.
    pub max_parallelism: MaxParallelism,
    /// The running attempt.
    pub attempt: AttemptId,
    /// The key groups this instance owns.
    pub groups: KeyGroupRange,
    /// The first checkpoint that this instance will take part in: changes of state before its barrier belong to it.
    pub first_checkpoint: CheckpointId,
    /// About how many records an operator emits before it returns.
    pub batch_records: usize,
    /// The way to the world. User functions should not need it.
    pub env: Env,
    /// Counters, gauges and histograms of this instance, shown at `/metrics`.
    pub metrics: OperatorMetrics,
    /// Numbers added up over all subtasks and returned with the job's result.
    pub accumulators: Accumulators,
    /// Whether the attempt is over.
    pub cancellation: Cancellation,
}

/// A batch leaving an operator, with the bytes it is known to hold on the heap.
pub struct OutBatch {
    /// The records.
    pub records: Box<dyn AnyBatch>,
    /// The bytes they are known to hold on the heap.
    pub bytes: usize,
}

impl OutBatch {
    /// A batch on its way out.
    #[must_use]
    pub fn new<T: Send + 'static>(batch: Batch<T>) -> Self {
        Self { bytes: batch.heap_bytes(), records: Box::new(batch) }
    }
}

/// What one call emitted.
#[derive(Default)]
pub struct Emitted {
    /// Records for the next operator.
    pub main: Option<OutBatch>,
    /// Records for side outputs, by the index of the side output's declaration.
    pub sides: Vec<(usize, OutBatch)>,
    /// A mark that goes on behind these records: a punctuated watermark, the end of idleness.
    pub mark: Option<Mark>,
}

impl Emitted {
    /// Takes what `out` holds as the records for the next operator.
    pub(crate) fn records<T: Send + 'static>(out: &mut BatchBuilder<T>) -> Self {
        let main = (!out.is_empty()).then(|| OutBatch::new(out.take()));
        Self { main, ..Self::default() }
    }
}

/// How far a time hook got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The output is full: deliver it and call again.
    More,
    /// Done; the mark goes on to the next operator.
    Done,
    /// Done; the mark ends here.
    Swallow,
}

/// One instance of an operator.
///
/// Call order: `open`, then `restore_lists` and (through [`keyed`](Self::keyed)) keyed state, then any number of
/// `process` and time hooks, then `close`. Every output is bounded: a call that has emitted about a batch returns, and
/// is called again with what is left of its input.
pub trait Operator: Send {
    /// Called once, before everything else.
    ///
    /// # Errors
    /// What the user's `open` says; the attempt fails.
    fn open(&mut self, _context: &RuntimeContext) -> Result<()> {
        Ok(())
    }

    /// Takes records from the front of `batch` until it is empty or about a batch was emitted.
    ///
    /// # Errors
    /// What the user's function says; the attempt fails.
    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted>;

    /// The watermark rose to `watermark`: fire event-time timers up to it, in order.
    ///
    /// # Errors
    /// What the user's function says; the attempt fails.
    fn on_watermark(&mut self, _watermark: Timestamp) -> Result<(Emitted, Progress)> {
        Ok((Emitted::default(), Progress::Done))
    }

    /// Fires processing-time timers up to `now`, in order.
    ///
    /// # Errors
    /// What the user's function says; the attempt fails.
    fn on_processing_time(&mut self, _now: Timestamp) -> Result<(Emitted, Progress)> {
        Ok((Emitted::default(), Progress::Done))
    }

    /// When [`on_processing_time`](Self::on_processing_time) is due next.
    fn next_processing_timer(&self) -> Option<Timestamp> {
        None
    }

    /// Called every watermark interval, and with `ended` when the input has ended: the marks that this operator itself
    /// makes (watermarks, idleness). Only watermark strategies make any.
    fn make_mark(&mut self, _now: env::Monotonic, _ended: bool) -> Option<Mark> {
        None
    }

    /// The operator's keyed state: the task flips, drains, uploads and restores it.
    fn keyed(&mut self) -> Option<&mut KeyedState> {
        None
    }

    /// The operator's list states at this moment, called at a barrier; must be short.
    ///
    /// # Errors
    /// If an element cannot be encoded.
    fn lists(&mut self) -> Result<Vec<ListPart>> {
        Ok(Vec::new())
    }

    /// Gives back list states, already dealt out for this subtask.
    ///
    /// # Errors
    /// `IncompatibleState` if an element cannot be decoded.
    fn restore_lists(&mut self, _lists: Vec<ListPart>) -> Result<()> {
        Ok(())
    }

    /// Gives back the watermark that the operator had reached at the cut, before any record. It never says less again.
    fn restore_watermark(&mut self, _watermark: Timestamp) {}

    /// Whether the operator makes the watermarks of what follows it, so that those from further up end here, as their
    /// idleness does.
    fn replaces_watermarks(&self) -> bool {
        false
    }

    /// Called once after the last record of a job that finishes; not after failures.
    ///
    /// # Errors
    /// What the user's `close` says; the attempt fails.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
