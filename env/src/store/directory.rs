//! What the local store does in its directory, all of it blocking. Called by `dir` alone, which says what it promises.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use types::{Error, ErrorKind, Result, Timestamp};

use super::{Created, Payload, StoreEntry, path::is_part};
use crate::{FileKind, Files, WriteFile};

/// Where objects lie until they are whole.
const STAGING: &str = "staging~";
/// Staged files older than this were left by a dead process: no write takes so long.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The blocking half: what is done in the directory.
pub(super) struct Directory {
    files: Arc<dyn Files>,
    root: PathBuf,
    nonce: u64,
    opened: Timestamp,
    staged: AtomicU64,
    /// A directory could not be synced.
    broken: AtomicBool,
    /// Directories that this process knows to be there durably.
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Directory {
    pub(super) fn open(
        url: &str,
        path: &Path,
        files: Arc<dyn Files>,
        nonce: u64,
        now: Timestamp,
    ) -> Result<Self> {
        let root = open_root(&*files, path).map_err(|error| {
            let place = format!(
                "cannot use {url} as a store: {} cannot be made or read: check the path and its permissions",
                path.display()
            );
            Error::io(place, error).with_kind(ErrorKind::Unavailable)
        })?;
        Ok(Self {
            files,
            root,
            nonce,
            opened: now,
            staged: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            durable: Mutex::default(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn usable(&self) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::unavailable(format!(
                "a directory below {} could not be synced, so what it holds is not known to be durable: check the \
                 disk, then start again",
                self.root.display()
            )));
        }
        Ok(())
    }

    /// An error after which the object is known not to exist through this call.
    pub(super) fn not_created(&self, path: &str, error: io::Error) -> Error {
        let place =
            format!("cannot write {}: check space, permission and disk", self.root.join(path).display());
        Error::io(place, error).with_kind(ErrorKind::Unavailable)
    }

    /// An error of which nobody knows how far the call came; where the machine refuses, it came nowhere.
    fn failed(&self, what: &str, path: &Path, error: io::Error) -> Error {
        let error = Error::io(format!("cannot {what} {}", path.display()), error);
        // The store has been there: a missing file or directory is the machine's doing.
        if error.kind() == ErrorKind::BadInput { error.with_kind(ErrorKind::Unavailable) } else { error }
    }

    pub(super) fn discard(&self, staged: &Path, path: &str, error: io::Error) -> Error {
        // Rubbish is removed after a day anyhow; the first error is what matters.
        let _ = self.files.remove_file(staged);
        self.not_created(path, error)
    }

    /// Begins an object under a staged name.
    pub(super) fn open_staged(&self, path: &str) -> Result<(PathBuf, Box<dyn WriteFile>)> {
        let staging = self.root.join(STAGING);
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            self.prepare_staging(&staging).map_err(|error| self.not_created(path, error))?;
        }
        let name = staging.join(format!("{:016x}-{number}", self.nonce));
        let file = match self.files.create_new(&name) {
            // Another thread is still making the directory, or somebody has removed it, perhaps with the empty root.
            Err(error) if error.kind() == io::ErrorKind::NotFound => open_root(&*self.files, &self.root)
                .and_then(|_| self.files.create_dir_all(&staging))
                .and_then(|()| self.files.create_new(&name)),
            other => other,
        };
        Ok((name, file.map_err(|error| self.not_created(path, error))?))
    }

    /// Makes the staging directory and clears what dead processes left in it.
    fn prepare_staging(&self, staging: &Path) -> io::Result<()> {
        self.files.create_dir_all(staging)?;
        for path in self.files.read_dir(staging)? {
            if self.files.metadata(&path)?.is_some_and(|meta| meta.modified < self.opened - STALE) {
                let _ = self.files.remove_file(&path);
            }
        }
        Ok(())
    }

    /// Writes and syncs a whole object under a staged name.
    pub(super) fn stage(&self, path: &str, bytes: &Payload) -> Result<PathBuf> {
        let (staged, mut file) = self.open_staged(path)?;
        let written = bytes.iter().try_for_each(|piece| file.write_all(piece)).and_then(|()| file.sync_all());
        match written {
            Ok(()) => Ok(staged),
            Err(error) => Err(self.discard(&staged, path, error)),
        }
    }

    pub(super) fn publish_new(&self, staged: PathBuf, path: &str) -> Result<Created> {
        let target = self.root.join(path);
        let renamed = self.rename_into(&target, path, || self.files.rename_new(&staged, &target))?;
        let created = match renamed {
            Ok(()) => Created::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = self.files.remove_file(&staged);
                Created::Exists
            }
            Err(error) => return Err(self.failed("create", &target, error)),
        };
        // Also when it exists: its creator may not have come so far yet, and our caller will rely on it.
        self.sync_parent(&target)?;
        Ok(created)
    }

    pub(super) fn publish_over(&self, staged: &Path, path: &str) -> Result<()> {
        let target = self.root.join(path);
        self.rename_into(&target, path, || self.files.rename(staged, &target))?
            .map_err(|error| self.failed("replace", &target, error))?;
        self.sync_parent(&target)
    }

    /// Runs `rename` when the directory of `target` is durably there.
    fn rename_into(
        &self,
        target: &Path,
        path: &str,
        rename: impl Fn() -> io::Result<()>,
    ) -> Result<io::Result<()>> {
        let parent = target.parent().unwrap_or(&self.root);
        self.ensure_dir(parent).map_err(|error| self.not_created(path, error))?;
        let renamed = rename();
        if !matches!(&renamed, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Ok(renamed);
        }
        // Somebody has removed the empty directory meanwhile.
        self.known().remove(parent);
        self.ensure_dir(parent).map_err(|error| self.not_created(path, error))?;
        Ok(rename())
    }

    fn ensure_dir(&self, dir: &Path) -> io::Result<()> {
        if dir == self.root || self.known().contains(dir) {
            return Ok(());
        }
        self.files.create_dir_all(dir)?;
        for above in dir.ancestors().skip(1) {
            self.files.sync_dir(above)?;
            if above == self.root {
                break;
            }
        }
        self.known().insert(dir.to_owned());
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_parent(&self, target: &Path) -> Result<()> {
        let parent = target.parent().unwrap_or(&self.root);
        self.files.sync_dir(parent).map_err(|error| {
            self.broken.store(true, Ordering::Relaxed);
            Error::io(format!("cannot sync the directory {}", parent.display()), error)
                .with_kind(ErrorKind::Retryable)
        })
    }

    pub(super) fn read(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let target = self.root.join(path);
        self.read_file(&target, range).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Ok(None),
            _ => Err(self.failed("read", &target, error)),
        })
    }

    fn read_file(&self, target: &Path, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let file = self.files.open(target)?;
        let len = file.len()?;
        let (start, end) = (range.start.min(len), range.end.min(len));
        let wanted = usize::try_from(end.saturating_sub(start)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(wanted).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(wanted, 0);
        let filled = file.read_full(start, &mut bytes)?;
        bytes.truncate(filled);
        Ok(Some(bytes.into()))
    }

    pub(super) fn len(&self, path: &str) -> Result<Option<u64>> {
        let target = self.root.join(path);
        let meta = self.files.metadata(&target).map_err(|error| self.failed("look at", &target, error))?;
        Ok(meta.filter(|meta| meta.kind == FileKind::File).map(|meta| meta.len))
    }

    pub(super) fn delete(&self, path: &str) -> Result<()> {
        let target = self.root.join(path);
        match self.files.remove_file(&target) {
            Ok(()) => self.sync_parent(&target),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(())
            }
            Err(error) => Err(self.failed("delete", &target, error)),
        }
    }

    /// Removes the staging directory if nothing is in it. Whoever begins an object at this moment makes it again.
    pub(super) fn tidy(&self) -> Result<()> {
        let staging = self.root.join(STAGING);
        self.files.remove_dir(&staging).map(drop).map_err(|error| self.failed("remove", &staging, error))
    }

    /// Removes the directories above these objects that hold nothing, from the inside out.
    pub(super) fn prune(&self, deleted: &[String]) -> Result<()> {
        let above = |path: &String| {
            let target = self.root.join(path);
            let dirs: Vec<_> = target.ancestors().skip(1).map(Path::to_owned).collect();
            dirs.into_iter().take_while(|dir| *dir != self.root)
        };
        let below: BTreeSet<PathBuf> = deleted.iter().flat_map(above).collect();
        // A directory stands before those in it.
        for dir in below.iter().rev().chain([&self.root]) {
            if self.files.remove_dir(dir).map_err(|error| self.failed("remove", dir, error))? {
                self.known().remove(dir);
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        let mut found = Vec::new();
        let mut open = vec![prefix.to_owned()];
        while let Some(prefix) = open.pop() {
            let dir = self.root.join(&prefix);
            let paths = match self.files.read_dir(&dir) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                other => other.map_err(|error| self.failed("list", &dir, error))?,
            };
            for path in paths {
                let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_part(name))
                else {
                    continue;
                };
                let meta =
                    self.files.metadata(&path).map_err(|error| self.failed("look at", &path, error))?;
                match meta.map(|meta| (meta.kind, meta.len)) {
                    Some((FileKind::File, len)) => {
                        found.push(StoreEntry { path: format!("{prefix}{name}"), len })
                    }
                    Some((FileKind::Dir, _)) => open.push(format!("{prefix}{name}/")),
                    _ => {}
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Makes the directory, and its name and those above it durable.
fn open_root(files: &dyn Files, path: &Path) -> io::Result<PathBuf> {
    match files.metadata(path)?.map(|meta| meta.kind) {
        Some(FileKind::Dir) => {}
        Some(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory")),
        None => files.create_dir_all(path)?,
    }
    let root = files.canonical(path)?;
    for above in root.ancestors().skip(1) {
        match files.sync_dir(above) {
            // Somebody else's directory, in which this process cannot have made anything.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => {}
            other => other?,
        }
    }
    Ok(root)
}
