//! The directory of a job's copies, all of it blocking.
//!
//! ```text
//! tidegate-copies-<job>.lock                       held by the process that uses them
//! tidegate-copies-<job>/<path with + for />        a copy of the file at that path of the checkpoint directory
//! tidegate-copies-<job>/<the same>.partial         one that is being written, or was when its process died
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use env::{FileKind, FileLock, Files, ReadFile, WriteFile};
use types::JobId;

use crate::storage::paths::{self, PathKind};

/// What the directories are called, before the job's id.
const PREFIX: &str = "tidegate-copies-";
/// What the name of a directory's lock ends with.
const LOCK: &str = "lock";
/// What the name of a copy that is not whole ends with.
const PARTIAL: &str = ".partial";

/// A directory that this process holds.
pub(super) struct Directory {
    files: Arc<dyn Files>,
    path: PathBuf,
    _lock: Box<dyn FileLock>,
}

/// A copy that is not whole yet. Dropped, it stays below its [`partial`] path.
pub(super) struct Staged {
    files: Arc<dyn Files>,
    name: PathBuf,
    target: PathBuf,
    file: Box<dyn WriteFile>,
}

/// The path at which a copy stands while it is not whole.
pub(super) fn partial(path: &str) -> String {
    format!("{path}{PARTIAL}")
}

/// A copy that was found: the path of the file that it is one of, and its length.
type Found = (String, u64);

impl Directory {
    /// Makes or takes the job's directory below `root`, and removes what dead processes left half written. The copies in
    /// it come along; who holds it, if somebody else does. What other jobs have left, whose processes are gone, may take
    /// `limit` bytes in all.
    pub(super) fn open(
        files: Arc<dyn Files>,
        root: &Path,
        job: JobId,
        holder: &str,
        limit: u64,
    ) -> io::Result<Result<(Self, Vec<Found>), String>> {
        files.create_dir_all(root)?;
        let path = root.join(format!("{PREFIX}{job}"));
        let lock_path = path.with_extension(LOCK);
        let lock = match files.lock(&lock_path, holder)? {
            Ok(lock) => lock,
            Err(other) => return Ok(Err(other)),
        };
        // Whoever held it may have removed the file between its opening and its lock.
        if files.lock_holder(&lock_path)?.as_deref() != Some(holder) {
            return Ok(Err("another process, which has just ended".to_owned()));
        }
        bound_others(&*files, root, &path, holder, limit);
        files.create_dir_all(&path)?;
        let mut found = Vec::new();
        for copy in files.read_dir(&path)? {
            let Some(name) = copy.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(PARTIAL) {
                files.remove_file(&copy)?;
            } else if let Some(path) = path_of(name)
                && let Some(meta) = files.metadata(&copy)?.filter(|meta| meta.kind == FileKind::File)
            {
                found.push((path, meta.len));
            }
        }
        Ok(Ok((Self { files, path, _lock: lock }, found)))
    }

    /// Where the copy of a file is.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.path.join(path.replace('/', "+"))
    }

    pub(super) fn open_copy(&self, path: &str) -> io::Result<Box<dyn ReadFile>> {
        self.files.open(&self.place(path))
    }

    /// Removes a copy. One that stays counts no more, and the next start finds it.
    pub(super) fn remove(&self, path: &str) {
        let _left = self.files.remove_file(&self.place(path));
    }

    /// Begins a copy.
    pub(super) fn stage(&self, path: &str) -> io::Result<Staged> {
        let (target, name) = (self.place(path), self.place(&partial(path)));
        // Nobody else writes here; this process may not have been able to remove one.
        let _none = self.files.remove_file(&name);
        let file = self.files.create_new(&name)?;
        Ok(Staged { files: Arc::clone(&self.files), name, target, file })
    }

    /// Removes all of it.
    pub(super) fn clear(&self) {
        let removed = self.files.remove_dir_all(&self.path);
        let _left = removed.and_then(|()| self.files.remove_file(&self.path.with_extension(LOCK)));
    }
}

impl Staged {
    /// Appends; after an error it is of no use any more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives it its name. Not synced: whoever reads it compares it with its digest.
    pub(super) fn publish(self) -> io::Result<()> {
        let Self { files, name, target, file } = self;
        drop(file);
        files.rename(&name, &target)
    }
}

/// Removes copies of other jobs that no process holds, whole directories, until they take at most `limit` bytes: a job that
/// never starts again would leave its own for ever. What this user may not look at or remove is left to its owner.
fn bound_others(files: &dyn Files, root: &Path, own: &Path, holder: &str, limit: u64) {
    let mut left = 0;
    for path in files.read_dir(root).unwrap_or_default() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path != own && name.starts_with(PREFIX) {
            left += bound(files, &path, holder, limit - left).unwrap_or(0);
        }
    }
}

/// Removes the directory of another job if no process holds it and it takes more than `room`; what it takes, otherwise.
fn bound(files: &dyn Files, path: &Path, holder: &str, room: u64) -> io::Result<u64> {
    if files.metadata(path)?.is_none_or(|it| it.kind != FileKind::Dir) {
        return Ok(0);
    }
    let lock_path = path.with_extension(LOCK);
    let Ok(_lock) = files.lock(&lock_path, holder)? else { return Ok(0) };
    let mut bytes = 0;
    for copy in files.read_dir(path)? {
        bytes += files.metadata(&copy)?.map_or(0, |meta| meta.len);
    }
    if bytes <= room {
        return Ok(bytes);
    }
    files.remove_dir_all(path)?;
    files.remove_file(&lock_path)?;
    Ok(0)
}

/// The path whose copy has this name.
fn path_of(name: &str) -> Option<String> {
    let path = name.replace('+', "/");
    let is_ours = paths::is_well_formed(&path) && matches!(paths::kind(&path), PathKind::Attempt(_));
    is_ours.then_some(path)
}
