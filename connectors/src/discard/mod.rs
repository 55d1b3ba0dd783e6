//! A sink that keeps nothing but a count: for measurements.
//!
//! # Guarantee
//! None is needed. The count is at least once: after a failure, records since the last checkpoint count again.

mod sink;

pub use sink::{DiscardSink, DiscardWriter, Discarded};
