//! Copying a snapshot that a job does not own into its checkpoint directory, before it is restored: its owner may delete
//! it at any time. Every byte is checked on the way.

use std::collections::BTreeMap;

use env::{Env, Store};
use types::{AttemptId, DigestBuilder, Error, Result, SnapshotFile};

use crate::{
    manifest::Manifest,
    storage::{paths, retry::Retry},
};

/// How much is read and written at once, in bytes.
const PIECE: u64 = 4 << 20;

/// Copies all files of `manifest` from `from` to `to`, under names of `attempt`, and returns the manifest with the new
/// names. A crash leaves orphans, and the next attempt copies again.
///
/// # Errors
/// `Corrupt` naming the file if one is missing or damaged; `Retryable` or `Unavailable` if a store fails.
pub async fn import(
    env: &Env,
    from: &dyn Store,
    manifest: &Manifest,
    to: &dyn Store,
    attempt: AttemptId,
) -> Result<Manifest> {
    let mut own = manifest.clone();
    // After a change of parallelism several subtasks share a file.
    let mut copied = BTreeMap::new();
    for operator in &mut own.operators {
        for subtask in &mut operator.subtasks {
            let runs = subtask.runs.iter_mut().map(|run| &mut run.file);
            let rows = subtask.prepared.iter_mut().filter_map(|prepared| prepared.file.as_mut());
            for (number, file) in runs.chain(rows).enumerate() {
                let path = paths::restored(attempt, &operator.uid, subtask.subtask, number);
                if let Some(path) = copied.get(&file.path) {
                    file.path = String::clone(path);
                    continue;
                }
                copy(env, from, file, to, &path).await?;
                copied.insert(std::mem::replace(&mut file.path, path.clone()), path);
            }
        }
    }
    Ok(own)
}

async fn copy(env: &Env, from: &dyn Store, file: &SnapshotFile, to: &dyn Store, path: &str) -> Result<()> {
    let damaged = |what: String| {
        let url = from.url();
        Error::corrupt(format!(
            "{} in {url} is damaged: {what}; put the file back, or start from another snapshot (tidegate verify {url} tells \
             all that is damaged)",
            file.path
        ))
    };
    let mut writer = to.writer(path).await?;
    let mut digest = DigestBuilder::default();
    let mut at = 0;
    while at < file.len {
        let end = file.len.min(at + PIECE);
        let read = || from.get_range(&file.path, at..end);
        let piece = Retry::STORE.run(env, "read a snapshot", read).await?;
        let piece = piece.ok_or_else(|| damaged("it is missing".into()))?;
        if piece.len() as u64 != end - at {
            return Err(damaged(format!(
                "it ends at {}, expected {} bytes",
                at + piece.len() as u64,
                file.len
            )));
        }
        digest.update(&piece);
        writer.write(piece).await?;
        at = end;
    }
    let found = digest.finish();
    if found != file.digest {
        return Err(damaged(format!("its digest is {found}, expected {}", file.digest)));
    }
    writer.finish().await
}
