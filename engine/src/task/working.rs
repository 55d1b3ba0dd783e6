//! Working state outside of memory: the stores of this process and the directory that they are in.
//!
//! Each process has a directory of its own, held by a lock that dies with it; so two processes of a job never share one,
//! and a start removes what dead processes left. Nothing in it is needed by anybody else: it is filled from a checkpoint.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use env::{Env, FaultPoint, FileLock, Files};
use rand::RngExt;
use statebackend::store::{KeyValueStore, Stores, TableShare};
use types::{AttemptId, Error, ErrorKind, Result, SubtaskIndex, Uid};

use super::store_faults::StoreWithFaults;

/// What the directories of processes are called, before a number.
const PREFIX: &str = "tidegate-state-";
/// What the name of a directory's lock ends with.
const LOCK: &str = "lock";
/// How often another name is tried.
const TRIES: u32 = 10;

/// The stores of a process, in its directory.
#[derive(Debug)]
pub(crate) struct Working {
    env: Env,
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
        let unusable = |error: std::io::Error| {
            Error::io(root.display(), error)
                .context("cannot make a directory for working state")
                .with_kind(ErrorKind::Unavailable)
                .with_advice("make its directory writable, or choose another with state.directory")
        };
        files.create_dir_all(root).map_err(unusable)?;
        let holder = format!("pid {}, job {job}", env.process_id());
        remove_dead(env, root, &holder)?;
        for tried in 0..TRIES {
            let name = format!("working state of pid {} at {}, try {tried}", env.process_id(), env.wall());
            let path = root.join(format!("{PREFIX}{:016x}", env.rng(&name).random::<u64>()));
            if let Some(dir) = ProcessDirectory::make(&files, &path, &holder).map_err(unusable)? {
                return Ok(Self { env: env.clone(), stores, dir });
            }
        }
        Err(Error::unavailable(format!(
            "others remove every directory for working state in {} at once; choose another with state.directory",
            root.display()
        )))
    }

    /// Opens the store of an operator's subtask; blocks.
    pub(crate) fn open(
        &self,
        attempt: AttemptId,
        operator: &Uid,
        subtask: SubtaskIndex,
    ) -> Result<(Box<dyn KeyValueStore>, TableShare)> {
        let dir = self.dir.path.join(format!("{attempt}-{operator}-{subtask}"));
        self.env.fault(FaultPoint::StoreOpenBefore)?;
        let store = self.stores.open(Arc::clone(&self.dir.files), &dir)?;
        self.env.fault(FaultPoint::StoreOpenAfter)?;
        Ok((StoreWithFaults::around(store, &self.env), self.stores.tables().share()))
    }
}

impl ProcessDirectory {
    /// Makes it, its lock first; `None` if another process took it for dead meanwhile.
    fn make(files: &Arc<dyn Files>, path: &Path, holder: &str) -> std::io::Result<Option<Self>> {
        let place = lock_of(path);
        let Ok(lock) = files.lock(&place, holder)? else { return Ok(None) };
        // Whoever looked between the file's creation and its lock has removed it.
        if !matches!(files.lock_holder(&place), Ok(Some(found)) if found == holder) {
            return Ok(None);
        }
        files.create_dir_all(path)?;
        Ok(Some(Self { files: Arc::clone(files), path: path.to_owned(), lock: Some(lock) }))
    }
}

/// The file beside a directory that is locked as long as its process lives: made before and removed after it, so that
/// nothing is ever left that nobody may remove.
fn lock_of(path: &Path) -> PathBuf {
    path.with_extension(LOCK)
}

/// Removes the directories of processes that live no more. What cannot be locked belongs to the living, or to somebody
/// else.
fn remove_dead(env: &Env, root: &Path, holder: &str) -> Result<()> {
    let files = env.files();
    for lock in files.read_dir(root).unwrap_or_default() {
        let name = lock.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_lock = name.starts_with(PREFIX) && lock.extension().is_some_and(|it| it == LOCK);
        if is_lock && let Ok(Ok(held)) = files.lock(&lock, holder) {
            env.fault(FaultPoint::DeadStateBefore)?;
            // Another user's, perhaps.
            let removed = files.remove_dir_all(&lock.with_extension(""));
            env.fault(FaultPoint::DeadStateAfter)?;
            let _left = removed.and_then(|()| files.remove_file(&lock));
            drop(held);
        }
    }
    Ok(())
}

impl Drop for ProcessDirectory {
    fn drop(&mut self) {
        // The next start would do it as well.
        let removed = self.files.remove_dir_all(&self.path);
        let _left = removed.and_then(|()| self.files.remove_file(&lock_of(&self.path)));
        drop(self.lock.take());
    }
}
