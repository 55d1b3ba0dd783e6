//! Records on standard output, for people.
//!
//! # Guarantee
//! [`PrintSink`] is at least once: after a failure, records since the last checkpoint are printed again.

mod sink;

pub use sink::{PrintSink, PrintWriter};
