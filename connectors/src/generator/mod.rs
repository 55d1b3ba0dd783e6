//! Records made from their numbers: for tests, demonstrations and measurements.
//!
//! # Guarantee
//! [`GeneratorSource`] is exactly-once: after a failure it makes the records again from the next number on. That holds
//! if the function makes the same record of the same number every time, in every process.

mod random;
mod source;

pub use random::Random;
pub use source::{GeneratorReader, GeneratorSource, random};
