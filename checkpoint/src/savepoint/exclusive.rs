//! The lock of a savepoint directory while somebody copies into it: two who make the same copy at once would take each
//! other's files for what an earlier try has left. On a local directory alone; the file goes with the lock, and one that a
//! dead process has left means nothing.

use std::{path::PathBuf, sync::Arc};

use env::{Env, FileLock, Files, Store};
use types::{Error, Result};

use crate::storage::paths;

/// Held until dropped.
pub(super) struct Exclusive {
    files: Arc<dyn Files>,
    path: PathBuf,
    lock: Option<Box<dyn FileLock>>,
}

impl Exclusive {
    /// Takes the lock of the directory; none where there is nothing to lock, or locks do not work: they only keep people
    /// from a mistake.
    ///
    /// # Errors
    /// `Retryable` if somebody else holds it: nothing was changed.
    pub(super) async fn take(env: &Env, to: &dyn Store) -> Result<Option<Self>> {
        let Some(dir) = to.local_dir() else { return Ok(None) };
        let (files, path) = (env.files(), dir.join(paths::SAVEPOINT_LOCK));
        let holder = format!("pid {}", env.process_id());
        let lock = move || {
            let taken = files.lock(&path, &holder);
            let Ok(Ok(lock)) = taken else { return taken.map(|held| held.map(|_| None)) };
            // Whoever held it may have removed the file between its opening and its lock.
            if !matches!(files.lock_holder(&path), Ok(Some(found)) if found == holder) {
                return Ok(Err("another process, which has just ended".to_owned()));
            }
            Ok(Ok(Some(Self { files, path, lock: Some(lock) })))
        };
        match env.blocking("lock a savepoint directory", lock).await? {
            Ok(Ok(exclusive)) => Ok(exclusive),
            Ok(Err(holder)) => Err(Error::retryable(format!(
                "savepoint directory {} is being written by {}: wait for it, or choose another",
                to.url(),
                holder.trim()
            ))),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        let _left = self.files.remove_file(&self.path);
        drop(self.lock.take());
    }
}
