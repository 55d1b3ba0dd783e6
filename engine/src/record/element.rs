//! The items of a channel: batches whose record type is erased, and marks.

use std::any::Any;

use checkpoint::barrier::Barrier;
use env::Weight;
use serde::{Deserialize, Serialize};
use types::Timestamp;

use super::Batch;

/// Everything in a channel that is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// No record with an earlier event time follows.
    Watermark(Timestamp),
    /// A checkpoint's cut.
    Barrier(Barrier),
    /// Nothing may come for a while: do not wait for this input's watermark.
    Idle,
    /// The input is no longer idle.
    Active,
    /// No record follows. Barriers still do.
    EndOfInput,
}

/// A [`Batch`] of any record type. Downcast once per batch.
pub trait AnyBatch: Send {
    /// How many records are left.
    fn len(&self) -> usize;
    /// Whether all records were taken.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// For the downcast.
    fn as_any(&mut self) -> &mut dyn Any;
    /// The size of the records left, in memory, without what they hold on the heap.
    fn shallow_bytes(&self) -> usize;
}

impl<T: Send + 'static> AnyBatch for Batch<T> {
    fn len(&self) -> usize {
        Batch::len(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
    fn shallow_bytes(&self) -> usize {
        Batch::len(self) * size_of::<T>()
    }
}

impl dyn AnyBatch + '_ {
    /// The typed batch.
    ///
    /// # Panics
    /// If it holds other records: the graph was wired wrongly, which its types exclude.
    pub fn typed<T: Send + 'static>(&mut self) -> &mut Batch<T> {
        self.as_any().downcast_mut().expect("an edge carries records of one type")
    }
}

/// An item of a channel.
pub enum Element {
    /// Records, and the bytes they are known to hold.
    Batch(Box<dyn AnyBatch>, usize),
    /// A mark.
    Mark(Mark),
}

impl Weight for Element {
    fn records(&self) -> usize {
        match self {
            Self::Batch(batch, _) => batch.len(),
            Self::Mark(_) => 0,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Batch(_, bytes) => *bytes,
            Self::Mark(_) => 0,
        }
    }
}
