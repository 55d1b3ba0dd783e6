//! [`PlainCollectSink`]: the at-least-once collector.

use engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    record::Batch,
};
use types::Result;

use super::sink::Collected;

/// Keeps records in memory as they are written.
///
/// **Guarantee:** at least once.
pub struct PlainCollectSink<T> {
    collected: Collected<T>,
}

impl<T> PlainCollectSink<T> {
    /// A new sink, and what shows its records.
    #[must_use]
    pub fn new() -> (Self, Collected<T>) {
        let collected = Collected::default();
        (Self { collected: collected.clone() }, collected)
    }
}

impl<T> Clone for PlainCollectSink<T> {
    fn clone(&self) -> Self {
        Self { collected: self.collected.clone() }
    }
}

impl<T: Clone + Send + 'static> Sink for PlainCollectSink<T> {
    type In = T;
    type Writer = PlainCollectWriter<T>;

    async fn writer(&self, _context: &SinkContext) -> Result<PlainCollectWriter<T>> {
        Ok(PlainCollectWriter { collected: self.collected.clone() })
    }
}

/// Keeps the records of one subtask.
pub struct PlainCollectWriter<T> {
    collected: Collected<T>,
}

impl<T: Clone + Send + 'static> PlainWriter for PlainCollectWriter<T> {
    type In = T;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<()> {
        let mut records = Vec::with_capacity(batch.len());
        while let Some(record) = batch.next() {
            records.push(record.value);
        }
        self.collected.show(records);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
