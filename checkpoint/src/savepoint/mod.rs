//! Snapshots that stand for themselves: where a path points ([`SnapshotLocation`]), savepoints that belong to the user
//! ([`write()`], [`Changed`], [`delete()`]), and the copying of a snapshot that a job does not own ([`import`]).

mod change;
mod copy;
mod delete;
mod exclusive;
mod import;
mod location;

pub use change::Changed;
pub use copy::{RunCopier, Written, check_directory, write};
pub use delete::{Deleted, delete};
pub use import::import;
pub use location::SnapshotLocation;
