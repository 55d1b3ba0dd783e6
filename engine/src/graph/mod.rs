//! From the method chain of a program to the subtasks that run. All that can be wrong with a job is found here, before
//! anything runs.
//!
//! [`logical`] is the graph as written; [`validate`] finds what is wrong with it; [`chain`] lays it out as tasks, in the
//! form of [`physical`]; [`explain`] prints that; [`fingerprint`] tells whether two processes have built the same.

mod chain;
mod explain;
mod fingerprint;
pub mod logical;
pub mod physical;
pub mod validate;

pub use validate::{exactly_once_names, exactly_once_sinks, parallelism_of};

#[cfg(test)]
mod tests;
