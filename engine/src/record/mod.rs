//! What flows along an edge: batches of records, and marks (watermarks, barriers, idleness, end of input) in one
//! ordered channel. Order inside a channel is the whole correctness argument.

mod batch;
mod element;

pub use batch::{BATCH_BYTES, Batch, BatchBuilder, Keys, Record};
pub use element::{AnyBatch, Element, Mark};
