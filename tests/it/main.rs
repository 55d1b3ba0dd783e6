//! The house rules as tests: what the compiler and clippy cannot see, these read from the project's own files.
//!
//! Run by `make test`. Each rule is a function from text to complaints, so that a planted offence shows that it works.

// The rules read the source tree itself; nothing here belongs to a job.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used
)]

mod arrows;
mod dependencies;
mod documents;
mod fault_points;
#[cfg(feature = "test-util")]
mod one_crate;
mod shape;
mod stores;
mod tree;
mod wording;
