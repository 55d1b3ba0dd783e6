//! [`Files`] over a simulated disk, as one process sees it: a dead process changes nothing any more.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    disk::{DiskState, Node},
    world::ProcessState,
};
use crate::{FileLock, FileMeta, Files, ReadFile, Rng, WriteFile};

/// A simulated disk. It outlives the processes on its machine.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<DiskState>>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(Mutex::new(DiskState::new())) }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn crash(&self, rng: &mut Rng) {
        self.lock().crash(rng);
    }

    pub(super) fn free_locks(&self, process: u32) {
        self.lock().locks.retain(|_, (holder, _)| *holder != process);
    }

    /// Makes the `n`-th sync from now on (of a file or a directory; the first is 1) fail for good.
    pub fn fail_sync(&self, n: u64) {
        self.lock().failing_sync = Some(n);
    }

    /// How many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many bytes of a file were read so far, by all processes.
    ///
    /// # Errors
    /// There is no such file.
    pub fn bytes_read(&self, path: &Path) -> io::Result<u64> {
        self.lock().bytes_read(path)
    }

    /// Makes the power of the machine fail just before the `n`-th change or sync from now on (the first is 1): in the
    /// middle of what a caller does in one go.
    pub fn crash_at(&self, n: u64) {
        self.lock().crash_in = Some(n);
    }

    /// Lets only `bytes` more be written before the disk is full; `None`: as many as you like.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.lock().space = bytes;
    }

    /// How many files, directories and unsettled changes are kept.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.lock().remembered()
    }

    /// Changes the bytes of a file at rest, behind everybody's back.
    ///
    /// # Errors
    /// There is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.lock().damage(path, change)
    }
}

/// The disk as seen by one process.
#[derive(Clone)]
pub(super) struct SimFiles {
    pub(super) process: Arc<ProcessState>,
}

impl SimFiles {
    fn disk(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        if !self.process.is_alive() {
            return Err(io::Error::other("this process is dead"));
        }
        Ok(self.process.machine.disk.lock())
    }

    /// The disk, to be changed or synced; the power may fail first.
    fn change(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let mut disk = self.disk()?;
        if disk.power_fails() {
            drop(disk);
            self.process.crash_machine();
            return Err(io::Error::other("the power has failed"));
        }
        Ok(disk)
    }

    fn handle(&self, node: Node) -> Handle {
        Handle { files: self.clone(), node }
    }
}

/// An open file.
struct Handle {
    files: SimFiles,
    node: Node,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.files.disk() {
            disk.close(self.node);
        }
    }
}

impl ReadFile for Handle {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.files.disk()?.read(self.node, offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        self.files.disk()?.len(self.node)
    }
}

impl WriteFile for Handle {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = self.files.process.wall();
        self.files.change()?.write(self.node, bytes, now)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.files.change()?.sync_file(self.node)
    }
}

struct SimLock {
    handle: Handle,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.handle.files.disk() {
            disk.locks.remove(&self.handle.node);
        }
    }
}

impl Files for SimFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let node = self.disk()?.open(path)?;
        Ok(Box::new(self.handle(node)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let now = self.process.wall();
        let node = self.change()?.create_new(path, now)?;
        Ok(Box::new(self.handle(node)))
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn WriteFile>> {
        let node = self.disk()?.open(path)?;
        let handle = self.handle(node);
        self.change()?.truncate(node, len)?;
        Ok(Box::new(handle))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.rename(from, to, false)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.rename(from, to, true)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change()?.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change()?.remove_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<bool> {
        self.change()?.remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change()?.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.disk()?.names(path)?.into_iter().map(|name| path.join(name)).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        self.disk()?.metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?.sync_dir(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn FileLock>, String>> {
        let now = self.process.wall();
        let mut disk = self.disk()?;
        let node = match disk.create_new(path, now) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(path)?,
            other => other?,
        };
        if let Some((_, other)) = disk.locks.get(&node) {
            let other = other.clone();
            disk.close(node);
            return Ok(Err(other));
        }
        disk.truncate(node, 0)?;
        disk.write(node, holder.as_bytes(), now)?;
        disk.locks.insert(node, (self.process.number, holder.to_owned()));
        drop(disk);
        Ok(Ok(Box::new(SimLock { handle: self.handle(node) })))
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        let mut disk = self.disk()?;
        let node = match disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let holder = disk.locks.get(&node).map(|(_, holder)| holder.clone());
        disk.close(node);
        Ok(holder)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let disk = self.disk()?;
        disk.metadata(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(disk.canonical(path))
    }
}
