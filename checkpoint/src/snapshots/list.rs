//! What snapshots a directory holds. A damaged manifest is listed as such and stops nothing.

use std::sync::Arc;

use env::{Env, Store};
use types::{Error, Result};

use crate::{
    history::{CompletedCheckpoint, Record, Records, Savepoint},
    manifest::{self, Manifest},
    savepoint::SnapshotLocation,
};

/// What a directory holds.
#[derive(Debug)]
pub enum Listing {
    /// A checkpoint directory.
    Job {
        /// The newest record: job, last attempt, how it ended, savepoints.
        newest: Arc<Record>,
        /// The checkpoints that are retained, or pinned by the running attempt, oldest first.
        checkpoints: Vec<CheckpointInfo>,
        /// The savepoints that the history remembers, oldest first.
        savepoints: Vec<SavepointInfo>,
    },
    /// A savepoint directory.
    Savepoint(SnapshotLocation),
}

/// A checkpoint of a listing.
#[derive(Debug)]
pub struct CheckpointInfo {
    /// What the history says.
    pub completed: CompletedCheckpoint,
    /// Whether its sinks are known to have committed.
    pub confirmed: bool,
    /// Its manifest, or why it cannot be read.
    pub manifest: Result<Manifest>,
}

/// A savepoint that the history remembers.
#[derive(Debug)]
pub struct SavepointInfo {
    /// What the history says.
    pub savepoint: Savepoint,
    /// Whether it is still there, as it was.
    pub present: bool,
}

/// Lists the directory behind `store`.
///
/// # Errors
/// `InvalidJob` if it is neither a checkpoint nor a savepoint directory; `Corrupt` if the newest record is damaged or
/// lost, or the savepoint's manifest is damaged; `Retryable` or `Unavailable`.
pub async fn list(env: &Env, store: Arc<dyn Store>) -> Result<Listing> {
    if let Some(savepoint) = SnapshotLocation::savepoint(env, &store).await? {
        return Ok(Listing::Savepoint(savepoint));
    }
    let newest = Records::new(env, Arc::clone(&store)).newest().await?;
    let newest = newest.ok_or_else(|| {
        Error::invalid_job(format!("{} holds neither checkpoints nor a savepoint", store.url()))
    })?;
    let standing = &newest.standing;
    let mut checkpoints = Vec::new();
    for completed in standing.held() {
        checkpoints.push(CheckpointInfo {
            completed: completed.clone(),
            confirmed: !standing.unconfirmed.contains(&completed.checkpoint),
            manifest: manifest::read(env, &*store, &completed.manifest).await,
        });
    }
    let mut savepoints = Vec::new();
    for savepoint in &standing.savepoints {
        let found = SnapshotLocation::resolve(env, &savepoint.url).await;
        let present = found.is_ok_and(|found| found.file.digest == savepoint.manifest.digest);
        savepoints.push(SavepointInfo { savepoint: savepoint.clone(), present });
    }
    Ok(Listing::Job { newest, checkpoints, savepoints })
}
