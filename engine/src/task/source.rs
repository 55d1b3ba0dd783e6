//! The reading end of a source task: splits come from the JobManager, records go into the chain, barriers are put
//! between two batches. A source may be told to keep a pace.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use checkpoint::barrier::{
    Barrier,
    inject::{InjectStep, Injector},
};
use checkpoint::manifest::ListPart;
use types::Result;

use super::message::TaskReport;
use crate::{
    api::{
        erased::{AnyReader, ReaderEvent, SplitState},
        pace::Pace,
        source::Boundedness,
    },
    metrics::OperatorMetrics,
    operators::source::decode_splits,
};

/// A source's reader with what it still expects.
pub(crate) struct SourceHead {
    pub(crate) reader: Box<dyn AnyReader>,
    injector: Injector,
    pace: Option<Pace>,
    bounded: bool,
    /// Asked for a split and not answered yet.
    asked: bool,
    no_more: bool,
    ended: bool,
    /// Records emitted in this attempt.
    records: Arc<AtomicU64>,
    metrics: OperatorMetrics,
}

impl SourceHead {
    pub(crate) fn new(
        reader: Box<dyn AnyReader>,
        injector: Injector,
        pace: Option<Pace>,
        boundedness: Boundedness,
        records: Arc<AtomicU64>,
        metrics: OperatorMetrics,
    ) -> Self {
        Self {
            reader,
            injector,
            pace,
            bounded: boundedness == Boundedness::Bounded,
            asked: false,
            no_more: false,
            ended: false,
            records,
            metrics,
        }
    }

    /// Whether to read now.
    pub(crate) fn reads(&self) -> bool {
        self.injector.may_emit() && self.reader.open_splits() > 0
    }

    /// Waits for the next records, at most `records`, and not before the pace allows one. Cancel-safe.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) async fn next(&mut self, records: usize) -> Result<ReaderEvent> {
        let records = match &mut self.pace {
            Some(pace) => records.min(usize::try_from(pace.due().await).unwrap_or(records)),
            None => records,
        };
        self.reader.next(records).await
    }

    /// Notes that so many records came.
    pub(crate) fn emitted(&mut self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.metrics.records_in(records);
        self.metrics.records_out(records);
        if let Some(pace) = &mut self.pace {
            pace.emitted(records);
        }
    }

    /// Whether the watermark strategies behind this source may make marks.
    pub(crate) fn may_emit(&self) -> bool {
        self.injector.may_emit()
    }

    pub(crate) fn assign(&mut self, splits: Vec<SplitState>) {
        self.asked = false;
        for split in splits {
            self.reader.add(split);
        }
    }

    /// Gives back the splits of a snapshot.
    ///
    /// # Errors
    /// `IncompatibleState` if they cannot be decoded.
    pub(crate) fn restore(&mut self, lists: Vec<ListPart>) -> Result<()> {
        for list in &lists {
            for split in decode_splits(list)? {
                self.reader.add(split);
            }
        }
        Ok(())
    }

    pub(crate) fn no_more_splits(&mut self) {
        self.asked = false;
        self.no_more = true;
    }

    /// What to tell the JobManager now that nothing is left to read, if anything. `SourceEnded` comes once.
    ///
    /// # Errors
    /// Only a broken invariant.
    pub(crate) fn wants(&mut self) -> Result<Option<TaskReport>> {
        if !self.bounded || self.ended || !self.injector.may_emit() || self.reader.open_splits() > 0 {
            return Ok(None);
        }
        if self.no_more {
            self.ended = true;
            self.injector.on_end()?;
            return Ok(Some(TaskReport::SourceEnded));
        }
        if std::mem::replace(&mut self.asked, true) {
            return Ok(None);
        }
        Ok(Some(TaskReport::SplitWanted))
    }

    /// A barrier is asked for.
    ///
    /// # Errors
    /// Only a broken invariant.
    pub(crate) fn on_inject(&mut self, barrier: Barrier) -> Result<InjectStep> {
        self.injector.on_request(barrier)
    }

    pub(crate) fn on_cancel(&mut self, checkpoint: types::CheckpointId) {
        self.injector.on_cancel(checkpoint);
    }
}
