//! Event time: [`AssignTimes`] writes it on records, [`Watermarks`] makes watermarks and idleness by a
//! [`WatermarkStrategy`]. Both pass batches on as they are. A watermark never falls.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use env::Monotonic;
use types::{Result, Timestamp};

use super::operator::{Emitted, Operator, OutBatch, Progress};
use crate::{
    api::{
        data::Data,
        watermark::{Punctuation, Rule, WatermarkStrategy},
    },
    record::{AnyBatch, Batch, BatchBuilder, Mark},
};

pub(crate) struct AssignTimes<T, F> {
    time: Arc<F>,
    records: PhantomData<fn(T)>,
}

impl<T, F> AssignTimes<T, F> {
    pub(crate) fn new(time: Arc<F>) -> Self {
        Self { time, records: PhantomData }
    }
}

impl<T: Data, F: Fn(&T) -> Timestamp + Send + Sync> Operator for AssignTimes<T, F> {
    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted> {
        let batch = batch.typed::<T>();
        batch.assign_times(&*self.time);
        Ok(pass(batch))
    }
}

/// Emits all of a batch as it is.
fn pass<T: Data>(batch: &mut Batch<T>) -> Emitted {
    Emitted { main: Some(OutBatch::new(std::mem::take(batch))), ..Emitted::default() }
}

pub(crate) struct Watermarks<T> {
    strategy: WatermarkStrategy<T>,
    /// What the records so far allow.
    allowed: Timestamp,
    /// The last one that was sent on.
    sent: Timestamp,
    activity: Activity,
    out: BatchBuilder<T>,
}

/// Whether records come, judged whenever marks are made.
#[derive(Default)]
struct Activity {
    seen: bool,
    quiet_since: Option<Monotonic>,
    idle: bool,
}

impl Activity {
    /// Notes a record; says whether it ends idleness.
    fn record(&mut self) -> bool {
        self.seen = true;
        std::mem::take(&mut self.idle)
    }

    /// Whether idleness begins now.
    fn becomes_idle(&mut self, now: Monotonic, after: Duration) -> bool {
        if std::mem::take(&mut self.seen) {
            self.quiet_since = None;
        }
        let since = *self.quiet_since.get_or_insert(now);
        let idle = now.since(since) >= after;
        idle && !std::mem::replace(&mut self.idle, idle)
    }
}

impl<T: Data> Watermarks<T> {
    pub(crate) fn new(strategy: WatermarkStrategy<T>) -> Self {
        Self {
            strategy,
            allowed: Timestamp::MIN,
            sent: Timestamp::MIN,
            activity: Activity::default(),
            out: BatchBuilder::default(),
        }
    }

    /// The watermark that is due, if it rose.
    fn rise(&mut self) -> Option<Mark> {
        if self.allowed <= self.sent {
            return None;
        }
        self.sent = self.allowed;
        Some(Mark::Watermark(self.sent))
    }

    /// Passes records on up to the first that carries a watermark.
    fn process_punctuated(
        &mut self,
        batch: &mut Batch<T>,
        found: &Punctuation<T>,
    ) -> (Emitted, Option<Mark>) {
        self.out.reserve(batch.len());
        let mut mark = None;
        while mark.is_none()
            && let Some(record) = batch.next()
        {
            if let Some(watermark) = found(&record.value) {
                self.allowed = self.allowed.max(watermark);
                mark = self.rise();
            }
            self.out.push(record.value, record.time);
        }
        (Emitted::records(&mut self.out), mark)
    }
}

impl<T: Data> Operator for Watermarks<T> {
    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted> {
        let batch = batch.typed::<T>();
        let active = self.activity.record().then_some(Mark::Active);
        let (emitted, mark) = match self.strategy.rule.clone() {
            Rule::Behind(bound) => {
                if let Some(time) = batch.max_time() {
                    self.allowed = self.allowed.max(time - bound - Duration::from_millis(1));
                }
                (pass(batch), None)
            }
            Rule::Punctuated(found) => self.process_punctuated(batch, &*found),
        };
        // A watermark says, too, that the stream is active.
        Ok(Emitted { mark: mark.or(active), ..emitted })
    }

    /// The strategy's watermarks replace those from further up; but the last one of all ends every stream.
    fn on_watermark(&mut self, watermark: Timestamp) -> Result<(Emitted, Progress)> {
        let last = watermark == Timestamp::MAX && self.sent != Timestamp::MAX;
        if last {
            self.sent = watermark;
        }
        Ok((Emitted::default(), if last { Progress::Done } else { Progress::Swallow }))
    }

    fn restore_watermark(&mut self, watermark: Timestamp) {
        (self.allowed, self.sent) = (watermark, watermark);
    }

    fn replaces_watermarks(&self) -> bool {
        true
    }

    fn make_mark(&mut self, now: Monotonic, ended: bool) -> Option<Mark> {
        if ended {
            self.allowed = Timestamp::MAX;
        }
        if let Some(watermark) = self.rise() {
            return Some(watermark);
        }
        let after = self.strategy.idle_after?;
        self.activity.becomes_idle(now, after).then_some(Mark::Idle)
    }
}

#[cfg(test)]
mod tests;
