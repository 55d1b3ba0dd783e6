//! The job history: the append-only log that decides which checkpoints happened and who may go on.
//!
//! Record `k` is the object `history/<k>`, created exactly once; whoever creates it decides what it is. Every record
//! restates all that still holds (its [`Standing`]), so that the newest one alone is enough to start from. Safety rests
//! on conditional create alone: no overwrite, no listing, no clock, no lock.
//!
//! * Only the attempt whose start record is the last start in the log appends. Losing a create means being fenced for
//!   good; an attempt that is still starting reads on and decides anew.
//! * Milestones (multiples of 1,000) are never deleted; another record only when the next milestone above it exists.
//!   After winning a create, and before acting on it, the writer looks for that milestone: if it exists, the record lay
//!   in the deleted past and means nothing.
//!
//! [`step`] and [`tail`] hold these rules as pure steppers, [`start`](mod@start) what a starting attempt restores, [`standing`] what
//! each record changes; [`log`] only performs their calls. `tests/it/history_model.rs` searches all interleavings of the
//! pure parts.

pub mod fallback;
pub mod from;
pub mod lock;
pub mod log;
pub mod permit;
pub mod record;
mod records;
pub mod standing;
pub mod start;
pub mod step;
pub mod tail;
#[cfg(test)]
mod tests;
mod unconfirmed;

pub use from::{From, Line};
pub use lock::{Holder, Instance, JobLock};
pub use log::{CreatedRecord, JobHistory, open, start};
pub use permit::{CommitPermit, DeletePermit};
pub use record::{AttemptStart, CheckpointKind, Completion, EndKind, GarbageMark, Kind, Record, Savepoint};
pub use records::Records;
pub use standing::{
    Attempt, CompletedCheckpoint, End, ForeignSnapshot, OpenMark, Origin, Restores, Standing,
};
pub use start::{Pending, RestorePlan, Source, StartRequest, Started};
pub use tail::Milestones;
pub use unconfirmed::Unconfirmed;
