//! Barrier protocol, coordinator, job history, manifests, collection and savepoints.
//!
//! The protocol, pure: [`barrier`] (the steps of a barrier's life), [`coordinator`] (all checkpoints of an
//! attempt), [`restart`] (what follows a failure).
//!
//! What becomes durable, in the order of a checkpoint's life: [`manifest`] (what it holds), [`history`] (whether it
//! happened), [`collect`] (when its files go), [`savepoint`] (copies that belong to the user),
//! [`local_recovery`] (copies that only save time). [`snapshots`] reads all
//! of them for the command line. [`storage`] names the files and guards the bytes.

pub mod barrier;
pub mod collect;
pub mod coordinator;
pub mod history;
#[cfg(feature = "test-util")]
pub mod hostile;
pub mod local_recovery;
pub mod manifest;
pub mod restart;
pub mod savepoint;
pub mod snapshots;
pub mod storage;
