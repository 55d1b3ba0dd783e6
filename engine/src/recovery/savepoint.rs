//! Savepoints: the files of a checkpoint merged into a directory of the user. What is copied is `checkpoint`'s to say,
//! how runs are merged is `statebackend`'s; here they meet.

use std::sync::Arc;

use async_trait::async_trait;
use checkpoint::{
    manifest::Manifest,
    savepoint::{self, RunCopier},
};
use env::{Env, Store};
use statebackend::{RunCompression, RunSet, copy_canonical};
use types::{ExpiryClocks, Result, Run, RunIdentity, SnapshotFile};

/// Copies `manifest`, a completed checkpoint in `store`, into the directory `dir`. Returns the savepoint's manifest.
///
/// # Errors
/// `Conflict` if the directory holds anything; `Unavailable` if it cannot be written; `Corrupt` if a run is damaged.
pub(crate) async fn copy_savepoint(
    env: &Env,
    store: Arc<dyn Store>,
    manifest: &Manifest,
    dir: &str,
    compression: RunCompression,
) -> Result<SnapshotFile> {
    let copier = Copier { env: env.clone(), compression };
    let written = savepoint::write(env, &*store, manifest, dir, &copier).await?;
    Ok(written.savepoint.manifest)
}

struct Copier {
    env: Env,
    compression: RunCompression,
}

#[async_trait]
impl RunCopier for Copier {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        let copied =
            copy_canonical(&self.env, from, RunSet::new(runs, clocks), to, path, identity, self.compression);
        let (run, _summary) = copied.await?;
        Ok(Some(run))
    }
}
