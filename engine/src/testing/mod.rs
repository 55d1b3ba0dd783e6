//! What users and our own tests need to try functions without a cluster (feature `test-util`).

mod harness;
mod pipeline;
mod snapshot;

pub use harness::OperatorHarness;
pub use snapshot::HarnessSnapshot;
