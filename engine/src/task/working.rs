//! Working state outside of memory: the stores of this process and the directory that they are in.
//!
//! Each process has a directory of its own, held by a lock that dies with it; so two processes of a job never share one,
//! and a start removes what dead processes left. Nothing in it is needed by anybody else: it is filled from a checkpoint.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use env::{Env, FileLock, Files};
use rand::RngExt;
use statebackend::store::{KeyValueStore, MemoryUse, Stores, TableShare};
use types::{AttemptId, Error, ErrorKind, Result, SubtaskIndex, Uid};

/// What the directories of processes are called, before a number.
const PREFIX: &str = "tidegate-state-";
/// Locked as long as the process lives.
const LOCK: &str = "process.lock";

/// The stores of a process, in its directory.
#[derive(Debug)]
pub(crate) struct Working {
    stores: Stores,
    dir: ProcessDirectory,
}

struct ProcessDirectory {
    files: Arc<dyn Files>,
    path: PathBuf,
    lock: Option<Box<dyn FileLock>>,
}

impl fmt::Debug for ProcessDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Working {
    /// Makes the directory of this process below `root`, and removes those of dead ones.
    ///
    /// # Errors
    /// `Unavailable` if no directory can be made there.
    pub(crate) fn start(env: &Env, root: &Path, stores: Stores, job: &str) -> Result<Self> {
        let files = env.files();
        let unusable = |path: &Path, error: std::io::Error| {
            Error::io(path.display(), error)
                .context("cannot make a directory for working state")
                .with_kind(ErrorKind::Unavailable)
                .with_advice("make its directory writable, or choose another with state.directory")
        };
        files.create_dir_all(root).map_err(|error| unusable(root, error))?;
        remove_dead(&*files, root);
        let name = format!("working state of pid {} at {}", env.process_id(), env.wall());
        let path = root.join(format!("{PREFIX}{:016x}", env.rng(&name).random::<u64>()));
        files.create_dir_all(&path).map_err(|error| unusable(&path, error))?;
        let holder = format!("pid {}, job {job}", env.process_id());
        let lock = files.lock(&path.join(LOCK), &holder).map_err(|error| unusable(&path, error))?;
        let lock = lock.map_err(|holder| {
            Error::conflict(format!("{} is held by another process ({holder})", path.display()))
        })?;
        Ok(Self { stores, dir: ProcessDirectory { files, path, lock: Some(lock) } })
    }

    /// Opens the store of an operator's subtask; blocks.
    pub(crate) fn open(
        &self,
        attempt: AttemptId,
        operator: &Uid,
        subtask: SubtaskIndex,
    ) -> Result<(Box<dyn KeyValueStore>, TableShare)> {
        let dir = self.dir.path.join(format!("{attempt}-{operator}-{subtask}"));
        let store = self.stores.open(Arc::clone(&self.dir.files), &dir)?;
        Ok((store, self.stores.tables().share()))
    }

    /// The memory that it takes.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        self.stores.memory_use()
    }
}

/// Removes the directories of processes that live no more. What cannot be looked at belongs to somebody else.
fn remove_dead(files: &dyn Files, root: &Path) {
    for path in files.read_dir(root).unwrap_or_default() {
        let is_ours =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let lock = path.join(LOCK);
        // One that has none yet is being made.
        if is_ours
            && matches!(files.metadata(&lock), Ok(Some(_)))
            && matches!(files.lock_holder(&lock), Ok(None))
        {
            let _other_users = files.remove_dir_all(&path);
        }
    }
}

impl Drop for ProcessDirectory {
    fn drop(&mut self) {
        // The next start would do it as well.
        let _left = self.files.remove_dir_all(&self.path);
        drop(self.lock.take());
    }
}
