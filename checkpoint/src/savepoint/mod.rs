//! Snapshots that stand for themselves: where a path points ([`SnapshotLocation`]), savepoints that belong to the user
//! ([`write()`]), and the copying of a snapshot that a job does not own ([`import`]).

mod copy;
mod import;
mod location;

pub use copy::{RunCopier, check_directory, write};
pub use import::import;
pub use location::SnapshotLocation;
