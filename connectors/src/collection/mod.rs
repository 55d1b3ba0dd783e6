//! Records from memory, for tests and examples.
//!
//! # Guarantee
//! [`CollectionSource`] is exactly-once, as long as every start of the job is given the same records.

mod source;

pub use source::{CollectionReader, CollectionSource, CollectionSplit};
