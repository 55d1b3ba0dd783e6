//! Deleting a savepoint, so that a crash at any point leaves it whole, or recognisably none and with a list of what is
//! left:
//!
//! 1. the tombstone `deleted` is created: it lists the files of the savepoint;
//! 2. the manifest goes, and from then on there is no savepoint;
//! 3. the files that the tombstone lists go, and what a copy that died may have left beside them;
//! 4. the tombstone goes.
//!
//! Each step is durable before the next one begins. Whoever deletes again goes on from the tombstone. What is not the
//! savepoint's stays.

use std::sync::Arc;

use env::{Env, FaultPoint, Store};
use serde::{Deserialize, Serialize};
use types::{CheckpointId, Digest, Error, ErrorKind, Result, SnapshotFile};

use super::SnapshotLocation;
use crate::{
    history::Records,
    manifest::SnapshotKind,
    storage::{envelope::Envelope, paths, retry::Retry},
};

const TOMBSTONE: Envelope = Envelope { magic: *b"TGDELE\0\0", version: 1, what: "savepoint tombstone" };

/// What is left to delete once the manifest is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tombstone {
    checkpoint: CheckpointId,
    manifest: SnapshotFile,
    files: Vec<SnapshotFile>,
}

/// A savepoint that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The checkpoint that it was a copy of.
    pub checkpoint: CheckpointId,
    /// How many files it had, its manifest among them.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// An earlier try had got as far as the tombstone.
    pub resumed: bool,
    /// What is left in the directory, since it never belonged to the savepoint; sorted.
    pub left: Vec<String>,
}

/// Deletes the savepoint in the directory behind `store`, or goes on where an earlier try died. Files of others stay.
/// Nobody knows here which jobs have begun from it: one that has no checkpoint of its own yet still needs it. So
/// `may_go` is asked, with the digest of the manifest, before anything changes; not if the manifest is gone, since
/// nobody can start from it then.
///
/// # Errors
/// Nothing was changed: that of `may_go`; `Conflict` if the directory is a job's, or holds a copy that is not whole;
/// `InvalidJob` if it holds no savepoint; `Corrupt` if nobody can tell what belongs to it. `Retryable` or
/// `Unavailable`: delete again.
pub async fn delete(
    env: &Env,
    store: &Arc<dyn Store>,
    may_go: impl AsyncFnOnce(Digest) -> Result<()>,
) -> Result<Deleted> {
    let (tombstone, resumed) = match read(env, &**store).await? {
        Some(tombstone) => {
            if manifest_is_there(env, &**store, &tombstone).await? {
                may_go(tombstone.manifest.digest).await?;
            }
            (tombstone, true)
        }
        None => {
            let tombstone = of_savepoint(env, store).await?;
            may_go(tombstone.manifest.digest).await?;
            let bytes = TOMBSTONE.seal(&tombstone)?;
            Retry::STORE.create_own(env, &**store, paths::SAVEPOINT_DELETED, &bytes).await?;
            (tombstone, false)
        }
    };
    let Tombstone { checkpoint, manifest, files } = tombstone;
    let (count, bytes) = (files.len() + 1, files.iter().map(|file| file.len).sum::<u64>() + manifest.len);
    let mut gone = vec![manifest.path];
    gone.extend(files.into_iter().map(|file| file.path));
    let aside = [paths::SAVEPOINT_PARTIAL, paths::SAVEPOINT_LOCK, paths::SAVEPOINT_DELETED];
    gone.extend(aside.map(str::to_owned));
    for path in &gone {
        env.fault(FaultPoint::DeleteBefore)?;
        Retry::STORE.run(env, "delete a savepoint", || store.delete(path)).await?;
        env.fault(FaultPoint::DeleteAfter)?;
    }
    let left = Retry::STORE.run(env, "list a savepoint directory", || store.list("")).await?;
    // Empty directories do no harm.
    drop(store.tidy().await);
    gone.push(format!("{}any", paths::PROBE));
    drop(store.prune(&gone).await);
    let left = left.into_iter().map(|entry| entry.path).collect();
    Ok(Deleted { checkpoint, files: count, bytes, resumed, left })
}

/// The tombstone, if an earlier try made one.
async fn read(env: &Env, store: &dyn Store) -> Result<Option<Tombstone>> {
    let path = paths::SAVEPOINT_DELETED;
    let bytes = Retry::STORE.run(env, "read a savepoint", || store.get(path)).await?;
    let Some(bytes) = bytes else { return Ok(None) };
    let tombstone: Tombstone =
        TOMBSTONE.open(path, &bytes).map_err(|error| by_hand(store, &error.to_string()))?;
    check_paths(store, &tombstone)?;
    Ok(Some(tombstone))
}

/// What is to be deleted, of a savepoint that is there.
async fn of_savepoint(env: &Env, store: &Arc<dyn Store>) -> Result<Tombstone> {
    let url = store.url();
    if let Some(newest) = Records::new(env, Arc::clone(store)).newest().await? {
        return Err(Error::conflict(format!(
            "{url} is the checkpoint directory of job {:?}: its checkpoints are removed by the job itself \
             (checkpoints.retained), and what a dead job has left by tidegate gc {url}",
            newest.standing.job_name
        )));
    }
    let found = match SnapshotLocation::savepoint(env, store).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Err(by_hand(&**store, &error.to_string()));
        }
        found => found?,
    };
    let Some(found) = found.filter(|it| it.manifest.kind == SnapshotKind::Savepoint) else {
        let partial = Retry::STORE.run(env, "look for a savepoint", || store.len(paths::SAVEPOINT_PARTIAL));
        return Err(match partial.await? {
            Some(_) => Error::conflict(format!(
                "{url} holds a savepoint that is not whole, and whoever copies it may still be at work: if nobody is, \
                 remove the directory"
            )),
            None => Error::invalid_job(format!("{url} holds no savepoint: nothing was deleted")),
        });
    };
    let files = found.manifest.files().into_iter().cloned().collect();
    let tombstone = Tombstone { checkpoint: found.manifest.checkpoint, manifest: found.file, files };
    check_paths(&**store, &tombstone)?;
    Ok(tombstone)
}

/// A tombstone lists nothing but what a savepoint has: damage must not delete anything else.
fn check_paths(store: &dyn Store, tombstone: &Tombstone) -> Result<()> {
    let is_run = |path: &str| path.starts_with(paths::SAVEPOINT_RUNS) && paths::is_well_formed(path);
    let stray = tombstone.files.iter().find(|file| !is_run(&file.path));
    if let Some(stray) = stray {
        return Err(by_hand(store, &format!("no savepoint has a file {:?}", stray.path)));
    }
    if tombstone.manifest.path != paths::SAVEPOINT_MANIFEST {
        return Err(by_hand(store, &format!("its manifest is said to be {:?}", tombstone.manifest.path)));
    }
    Ok(())
}

/// Whether the manifest is there still, which is then the one that the tombstone is about.
async fn manifest_is_there(env: &Env, store: &dyn Store, tombstone: &Tombstone) -> Result<bool> {
    let path = paths::SAVEPOINT_MANIFEST;
    let found = Retry::STORE.run(env, "read a savepoint", || store.get(path)).await?;
    match found {
        Some(bytes) if Digest::of(&bytes) != tombstone.manifest.digest => Err(Error::conflict(format!(
            "{} holds the tombstone of one savepoint and the manifest of another: move one of them away",
            store.url()
        ))),
        found => Ok(found.is_some()),
    }
}

fn by_hand(store: &dyn Store, why: &str) -> Error {
    Error::corrupt(format!(
        "nobody can tell what belongs to the savepoint in {}: {why}; remove the directory if you want none of it",
        store.url()
    ))
}
