//! What users and our own tests need to try functions without a cluster (feature `test-util`).

#[cfg(test)]
pub(crate) mod ends;
mod harness;
mod pipeline;
mod snapshot;

pub use harness::OperatorHarness;
pub use snapshot::HarnessSnapshot;
