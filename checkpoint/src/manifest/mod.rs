//! What one checkpoint or savepoint holds, and its file. The coordinator writes a manifest when all tasks have
//! acknowledged; whoever restores, collects, verifies or copies reads it. The [`invariants`] are checked before each
//! write and after each read.

mod elements;
mod expiry;
mod file;
pub mod invariants;
mod place;
mod snapshot;
#[cfg(test)]
mod tests;

pub use elements::ListElements;
#[cfg(feature = "test-util")]
pub(crate) use file::ENVELOPE;
pub use file::{decode, encode, read, write};
pub use snapshot::{
    ListPart, Manifest, OperatorSnapshot, PreparedTransaction, Redistribution, SnapshotKind,
    StateDescription, SubtaskSnapshot, TaskId, TaskSnapshot,
};
