//! Writing a savepoint: a checkpoint whose sinks are confirmed is copied into a directory of the user's, run by run, the
//! manifest last, so that a directory without a manifest is no savepoint. All paths are relative: the directory may be
//! moved. A copy that died is begun anew by whoever copies the same checkpoint there. The command line copies in the same
//! way what it has [`Changed`](super::Changed), and what a job has not copied itself.
//!
//! In a local directory one copies at a time ([`Exclusive`]). Elsewhere nobody can be kept out who is only slow: each try
//! gives its runs names of its own, deletes nothing, and is the savepoint if it creates the manifest. That one then removes
//! what others have written, and is none itself if its own runs are not all there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use env::{Env, FaultPoint, Store, StoreEntry};
use rand::Rng;
use serde::{Deserialize, Serialize};
use types::{
    CheckpointId, Digest, Error, ExpiryClocks, JobId, Lineage, Result, Run, RunIdentity, SnapshotFile,
};

use super::{SnapshotLocation, exclusive::Exclusive};
use crate::{
    history::Savepoint,
    manifest::{self, Manifest, SnapshotKind, SubtaskSnapshot},
    storage::{envelope::Envelope, paths, probe::probe, retry::Retry},
};

const PARTIAL: Envelope = Envelope { magic: *b"TGPART\0\0", version: 1, what: "savepoint claim" };

/// Merges and copies runs; the state backend can, this crate cannot.
#[async_trait]
pub trait RunCopier: Send + Sync {
    /// Merges `runs` of one subtask, oldest first, each as far as its key groups, into one run at `path` in `to`,
    /// written as `identity`, without what has expired by `clocks`. `None` if nothing is left of them; nothing is written then.
    ///
    /// # Errors
    /// `Corrupt` naming the file if a run is damaged; `Retryable` or `Unavailable` if a store fails.
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>>;
}

/// A savepoint that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The savepoint.
    pub savepoint: Savepoint,
    /// Somebody else's try got as far as the manifest: it is not what was copied now.
    pub was_there: bool,
}

/// Whose copy a directory without a manifest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    job: JobId,
    lineage: Lineage,
    checkpoint: CheckpointId,
}

/// Copies the checkpoint of `manifest`, whose files are in `from`, to the directory at `url`, but for what its sinks had
/// prepared: that is committed, or given up. If an earlier try got as far as the manifest, that savepoint is the answer.
///
/// # Errors
/// `Conflict` if the directory holds anything else; `Retryable` if somebody else is copying into it, where that can be known;
/// otherwise as [`RunCopier::copy`].
pub async fn write(
    env: &Env,
    from: &dyn Store,
    manifest: &Manifest,
    url: &str,
    copier: &dyn RunCopier,
) -> Result<Written> {
    env.fault(FaultPoint::SavepointCopyBefore)?;
    let to = env.open_store(url)?;
    let exclusive = Exclusive::take(env, &*to).await?;
    if let Some(whole) = claim_directory(env, &to, manifest).await? {
        return Ok(Written { savepoint: savepoint(url, manifest.checkpoint, whole.file), was_there: true });
    }
    let name =
        to.local_dir().is_none().then(|| env.rng(&format!("savepoint copy at {:?}", env.now())).next_u64());
    let (copied, was_there) = match copy_as(env, from, manifest, &*to, name, copier).await {
        Err(error) if name.is_some() => (copied_by_another(env, manifest, &to).await?.ok_or(error)?, true),
        copied => (copied?, false),
    };
    Retry::STORE.run(env, "end a savepoint", || to.delete(paths::SAVEPOINT_PARTIAL)).await?;
    drop(exclusive);
    // The savepoint is whole, and an empty directory in it does no harm.
    drop(to.tidy().await);
    env.fault(FaultPoint::SavepointCopyAfter)?;
    Ok(Written { savepoint: savepoint(url, manifest.checkpoint, copied), was_there })
}

/// Writes the runs, and then the manifest.
async fn copy_as(
    env: &Env,
    from: &dyn Store,
    manifest: &Manifest,
    to: &dyn Store,
    name: Option<u64>,
    copier: &dyn RunCopier,
) -> Result<SnapshotFile> {
    let mut copy = Manifest { kind: SnapshotKind::Savepoint, ..manifest.clone() };
    for operator in &mut copy.operators {
        for subtask in &mut operator.subtasks {
            let identity = RunIdentity {
                job: manifest.job,
                attempt: manifest.attempt,
                operator: operator.uid.clone(),
                subtask: subtask.subtask,
                number: 0,
            };
            copy_subtask(from, to, subtask, identity, name, copier).await?;
            env.fault(FaultPoint::SavepointCopyAmid)?;
        }
    }
    let bytes = manifest::encode(&copy)?;
    Retry::STORE.create_own(env, to, paths::SAVEPOINT_MANIFEST, &bytes).await?;
    if name.is_some() {
        let found = list_runs(env, to).await?;
        check_runs(env, to, &copy, &found).await?;
        remove_others(env, to, &copy, &found).await?;
    }
    Ok(describe(&bytes))
}

/// Refuses a savepoint, new and just written, of which a run is gone: somebody else was faster, has removed it, and what he
/// made has been deleted since.
async fn check_runs(env: &Env, to: &dyn Store, copy: &Manifest, found: &[StoreEntry]) -> Result<()> {
    let Some(gone) = missing(copy, found) else { return Ok(()) };
    Retry::STORE.run(env, "take a savepoint back", || to.delete(paths::SAVEPOINT_MANIFEST)).await?;
    Err(Error::retryable(format!(
        "{} was removed from savepoint directory {} while others were written: copy once more",
        gone.path,
        to.url()
    )))
}

/// A run of this copy that is not there.
fn missing<'a>(copy: &'a Manifest, found: &[StoreEntry]) -> Option<&'a SnapshotFile> {
    let is_there = |file: &SnapshotFile| found.iter().any(|it| it.path == file.path && it.len == file.len);
    copy.files().into_iter().find(|file| !is_there(file))
}

/// Removes the runs of other copies than this one.
async fn remove_others(env: &Env, to: &dyn Store, copy: &Manifest, found: &[StoreEntry]) -> Result<()> {
    let files = copy.files();
    for entry in found.iter().filter(|entry| files.iter().all(|file| file.path != entry.path)) {
        Retry::STORE.run(env, "remove an unfinished copy", || to.delete(&entry.path)).await?;
    }
    Ok(())
}

async fn list_runs(env: &Env, to: &dyn Store) -> Result<Vec<StoreEntry>> {
    Retry::STORE.run(env, "list a savepoint", || to.list(paths::SAVEPOINT_RUNS)).await
}

/// What has become the savepoint of this checkpoint in the meantime, if anything has, without the runs of a try that is not it.
async fn copied_by_another(
    env: &Env,
    manifest: &Manifest,
    to: &Arc<dyn Store>,
) -> Result<Option<SnapshotFile>> {
    let whole = SnapshotLocation::savepoint(env, to).await?.filter(|it| is_copy(&it.manifest, manifest));
    let Some(whole) = whole else { return Ok(None) };
    let found = list_runs(env, &**to).await?;
    if missing(&whole.manifest, &found).is_some() {
        // Whoever wrote it is about to take it back.
        return Ok(None);
    }
    remove_others(env, &**to, &whole.manifest, &found).await?;
    Ok(Some(whole.file))
}

/// Whether a savepoint can be written to the directory at `url`: asked while a refusal does no harm yet.
///
/// # Errors
/// `Conflict` if the directory holds anything; `Unavailable` or `Retryable` if it cannot be written.
pub async fn check_directory(env: &Env, url: &str) -> Result<()> {
    let to = env.open_store(url)?;
    let found = list(env, &*to).await?;
    let holds = |path: &str| found.iter().any(|entry| entry.path == path);
    if holds(paths::SAVEPOINT_MANIFEST) {
        return Err(occupied(&*to, "another savepoint"));
    }
    if holds(paths::SAVEPOINT_PARTIAL) {
        // Only who copies the same checkpoint may begin it anew, and each savepoint takes one of its own.
        return Err(occupied(&*to, "an unfinished savepoint"));
    }
    if holds(paths::SAVEPOINT_DELETED) {
        return Err(half_deleted(&*to));
    }
    if !found.is_empty() {
        return Err(occupied(&*to, "other files"));
    }
    probe(env, &*to, "savepoint directory").await
}

async fn copy_subtask(
    from: &dyn Store,
    to: &dyn Store,
    subtask: &mut SubtaskSnapshot,
    identity: RunIdentity,
    name: Option<u64>,
    copier: &dyn RunCopier,
) -> Result<()> {
    // Its checkpoint's sinks are confirmed: nothing is pending.
    subtask.prepared.clear();
    if subtask.runs.is_empty() {
        return Ok(());
    }
    let path = paths::savepoint_run(&identity.operator, subtask.subtask, 0, name);
    let run = copier.copy(from, &subtask.runs, &subtask.expiry_clocks()?, to, &path, identity).await?;
    subtask.runs = run.into_iter().collect();
    Ok(())
}

/// Makes the directory ours and empty, or finds that the savepoint is whole already.
async fn claim_directory(
    env: &Env,
    to: &Arc<dyn Store>,
    manifest: &Manifest,
) -> Result<Option<SnapshotLocation>> {
    let found = list(env, &**to).await?;
    let holds = |path: &str| found.iter().any(|entry| entry.path == path);
    if holds(paths::SAVEPOINT_DELETED) {
        return Err(half_deleted(&**to));
    }
    if holds(paths::SAVEPOINT_MANIFEST) {
        let whole = SnapshotLocation::savepoint(env, to).await?;
        let ours = whole.filter(|whole| is_copy(&whole.manifest, manifest));
        let ours = ours.ok_or_else(|| occupied(&**to, "another savepoint"))?;
        // Whoever wrote that manifest may have died before this.
        if to.local_dir().is_none() {
            let found = list_runs(env, &**to).await?;
            if let Some(gone) = missing(&ours.manifest, &found) {
                return Err(occupied(&**to, &format!("this savepoint without its {}", gone.path)));
            }
            remove_others(env, &**to, &ours.manifest, &found).await?;
        }
        Retry::STORE.run(env, "end a savepoint", || to.delete(paths::SAVEPOINT_PARTIAL)).await?;
        return Ok(Some(ours));
    }
    let claim = Claim { job: manifest.job, lineage: manifest.lineage, checkpoint: manifest.checkpoint };
    let bytes = PARTIAL.seal(&claim)?;
    if !found.is_empty() {
        let earlier = Retry::STORE.run(env, "read a savepoint", || to.get(paths::SAVEPOINT_PARTIAL)).await?;
        if earlier != Some(bytes.clone()) {
            return Err(occupied(&**to, "other files"));
        }
        if to.local_dir().is_some() {
            remove_partial_copy(env, &**to, &found).await?;
        }
    }
    claim_with(env, &**to, &bytes).await?;
    Ok(None)
}

/// What a savepoint directory holds. A probe is nobody's: whoever tried the directory may have died; a lock says nothing.
async fn list(env: &Env, to: &dyn Store) -> Result<Vec<StoreEntry>> {
    let mut found = Retry::STORE.run(env, "list a savepoint directory", || to.list("")).await?;
    found.retain(|entry| !entry.path.starts_with(paths::PROBE) && entry.path != paths::SAVEPOINT_LOCK);
    Ok(found)
}

async fn claim_with(env: &Env, to: &dyn Store, bytes: &Bytes) -> Result<()> {
    Retry::STORE.create_own(env, to, paths::SAVEPOINT_PARTIAL, bytes).await
}

async fn remove_partial_copy(env: &Env, to: &dyn Store, found: &[StoreEntry]) -> Result<()> {
    for entry in found.iter().filter(|entry| entry.path != paths::SAVEPOINT_PARTIAL) {
        Retry::STORE.run(env, "clear a partial savepoint", || to.delete(&entry.path)).await?;
    }
    Ok(())
}

/// Whether a savepoint is a copy of `manifest`: the same in all but the files, so that none in which something was changed
/// passes for the checkpoint itself.
fn is_copy(savepoint: &Manifest, manifest: &Manifest) -> bool {
    let copy = Manifest { kind: SnapshotKind::Savepoint, ..without_files(manifest) };
    without_files(savepoint) == copy
}

fn without_files(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for subtask in manifest.operators.iter_mut().flat_map(|operator| &mut operator.subtasks) {
        subtask.runs.clear();
        subtask.prepared.clear();
    }
    manifest
}

fn occupied(to: &dyn Store, what: &str) -> Error {
    Error::conflict(format!("savepoint directory {} holds {what}: choose an empty or a new one", to.url()))
}

fn half_deleted(to: &dyn Store) -> Error {
    let url = to.url();
    Error::conflict(format!(
        "savepoint directory {url} holds a savepoint that is half deleted: end that with tidegate delete {url}, or choose \
         another directory"
    ))
}

fn describe(bytes: &Bytes) -> SnapshotFile {
    let path = paths::SAVEPOINT_MANIFEST.to_owned();
    SnapshotFile { path, len: bytes.len() as u64, digest: Digest::of(bytes) }
}

fn savepoint(url: &str, checkpoint: CheckpointId, manifest: SnapshotFile) -> Savepoint {
    Savepoint { checkpoint, url: url.to_owned(), manifest }
}
