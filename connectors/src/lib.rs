//! Sources and two-phase-commit sinks, one folder per outside system.
//!
//! Each folder's `mod.rs` says what the connector promises end to end. Sources keep the contract of
//! [`engine::api::source`], sinks that of [`engine::api::sink`]; the kits in `conformance` (feature `test-util`) check
//! both, for connectors outside this crate too.

pub mod file;

pub use file::{FileSink, FileSource};
