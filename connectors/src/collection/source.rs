//! [`CollectionSource`] and its reader.

use std::sync::Arc;

use engine::api::source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader};
use serde::{Deserialize, Serialize};
use types::{Error, Result, Timestamp};

use crate::range::RangeSplit;

/// The greatest number of splits; fewer if there are fewer records.
const SPLITS: u64 = 8;

/// Emits records from memory, at parallelism 1 in their order.
///
/// **Guarantee:** exactly once. A job that goes on from a checkpoint must be given the same records; another number of
/// them is an error.
pub struct CollectionSource<T> {
    records: Arc<[(T, Option<Timestamp>)]>,
}

impl<T> CollectionSource<T> {
    /// Records without event time.
    #[must_use]
    pub fn new(records: impl IntoIterator<Item = T>) -> Self {
        Self { records: records.into_iter().map(|record| (record, None)).collect() }
    }

    /// Records with their event times.
    #[must_use]
    pub fn timed(records: impl IntoIterator<Item = (T, Timestamp)>) -> Self {
        Self { records: records.into_iter().map(|(record, time)| (record, Some(time))).collect() }
    }

    fn len(&self) -> u64 {
        self.records.len() as u64
    }
}

impl<T> Clone for CollectionSource<T> {
    fn clone(&self) -> Self {
        Self { records: Arc::clone(&self.records) }
    }
}

/// A run of the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSplit {
    range: RangeSplit,
    /// How many records the whole collection had.
    total: u64,
}

impl Split for CollectionSplit {
    fn id(&self) -> String {
        self.range.id()
    }

    fn place(&self) -> String {
        self.range.place()
    }
}

impl<T: Clone + Send + Sync + 'static> Source for CollectionSource<T> {
    type Out = T;
    type Split = CollectionSplit;
    type Reader = CollectionReader<T>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<CollectionSplit>> {
        let total = self.len();
        let splits = u32::try_from(total.min(SPLITS)).expect("a small number");
        Ok(RangeSplit::runs(total, splits)
            .into_iter()
            .map(|range| CollectionSplit { range, total })
            .collect())
    }

    async fn open(&self, split: CollectionSplit, _context: &SourceContext) -> Result<CollectionReader<T>> {
        split.range.check()?;
        if split.total != self.len() || split.range.end > split.total {
            return Err(Error::bad_input(format!(
                "the collection has {} records, but had {} when the job first read it: give the same ones, or start \
                 with --from none",
                self.len(),
                split.total
            )));
        }
        Ok(CollectionReader { records: Arc::clone(&self.records), split })
    }
}

/// Emits one run of the records.
pub struct CollectionReader<T> {
    records: Arc<[(T, Option<Timestamp>)]>,
    split: CollectionSplit,
}

impl<T: Clone + Send + Sync + 'static> SplitReader for CollectionReader<T> {
    type Out = T;
    type Split = CollectionSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, T>) -> Result<ReadStatus> {
        let range = &mut self.split.range;
        if range.left() == 0 {
            return Ok(ReadStatus::End);
        }
        for _ in 0..range.left().min(out.room() as u64) {
            let index = usize::try_from(range.next).expect("an index into memory");
            match self.records[index].clone() {
                (record, None) => out.emit(record),
                (record, Some(time)) => out.emit_at(record, time),
            }
            range.next += 1;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> CollectionSplit {
        self.split.clone()
    }
}
