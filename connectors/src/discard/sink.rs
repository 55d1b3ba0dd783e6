//! [`DiscardSink`] and its writer.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    record::Batch,
};
use types::Result;

/// How many records were discarded, over all subtasks and attempts in this process.
#[derive(Clone, Debug, Default)]
pub struct Discarded {
    records: Arc<AtomicU64>,
}

impl Discarded {
    /// The number of records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Throws records away and counts them.
pub struct DiscardSink<T> {
    discarded: Discarded,
    records: PhantomData<fn(T)>,
}

impl<T> DiscardSink<T> {
    /// A new sink with its own count.
    #[must_use]
    pub fn new() -> Self {
        Self { discarded: Discarded::default(), records: PhantomData }
    }

    /// The count, which can be read while the job runs.
    #[must_use]
    pub fn discarded(&self) -> Discarded {
        self.discarded.clone()
    }
}

impl<T> Default for DiscardSink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for DiscardSink<T> {
    fn clone(&self) -> Self {
        Self { discarded: self.discarded.clone(), records: PhantomData }
    }
}

impl<T: Send + 'static> Sink for DiscardSink<T> {
    type In = T;
    type Writer = DiscardWriter<T>;

    async fn writer(&self, _context: &SinkContext) -> Result<DiscardWriter<T>> {
        Ok(DiscardWriter { discarded: self.discarded.clone(), records: PhantomData })
    }
}

/// Discards the records of one subtask.
pub struct DiscardWriter<T> {
    discarded: Discarded,
    records: PhantomData<fn(T)>,
}

impl<T: Send + 'static> PlainWriter for DiscardWriter<T> {
    type In = T;

    async fn write(&mut self, batch: Batch<T>) -> Result<()> {
        self.discarded.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
