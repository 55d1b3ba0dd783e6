//! Records kept in memory, for tests of jobs: what the job wrote can be looked at while it runs and afterwards.
//!
//! # Guarantees
//! * [`CollectSink`] is exactly-once within one process: [`Collected`] shows committed records only, across failures and
//!   restarts of the job in that process. Nothing outlives the process; a job that was started by another one finds its
//!   prepared records lost, and says so.
//! * [`PlainCollectSink`] is at least once: records show as they are written, and again after a failure.

mod plain;
mod sink;

pub use plain::{PlainCollectSink, PlainCollectWriter};
pub use sink::{CollectCommitter, CollectSink, CollectWriter, Collected, PreparedRecords};
