//! Garbage collection: which files nothing refers to any more ([`plan`], pure), and their deletion ([`Collector`]); the same
//! where the job is dead ([`collect_offline`]).
//!
//! A file is deleted only if a garbage mark in the history lists it, so that a crash at any point leaves either the file
//! and no mark, or a mark from which the next attempt goes on. A marked file is never referred to again: a task's list of
//! runs only ever loses runs for good, so what the newest checkpoint does not list, no later one will.
//!
//! Files of the living attempt that no checkpoint listed (a failed checkpoint's) are left alone: its tasks may still list
//! them. They become orphans when a newer attempt has started.

mod driver;
mod offline;
mod plan;

pub use driver::{Collected, Collector, Marked};
pub use offline::{Found, Garbage, Why, collect_offline, find};
pub use plan::{FILES_IN_OPEN_MARKS, FILES_PER_MARK, Facts, Plan, everything, old_records, orphans, plan};
