//! The store in a local directory, over [`Files`]: the real one and the simulated one run this same code.
//!
//! An object is written under a name of its own in `staging~/` (no object path can contain `~`), synced, renamed to its
//! path (without replacing, for a create), and then the directory is synced: it is there wholly or not at all, and
//! durable when the call returns. `docs/0001-local-store.md` says why this is not `object_store`'s local store.
//!
//! A failed sync is never tried again. If a file cannot be synced, its object does not come to be. If a directory
//! cannot, nobody can know what of it is durable: this store then answers every call with an error until it is opened
//! anew by another process. Whoever restarts a job inside its process asks [`Store::check_usable`] first, and ends.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use types::{Error, Result, Timestamp};

use super::{
    Created, Payload, Store, StoreEntry, StoreWriter,
    directory::Directory,
    exists,
    path::{check_object, check_prefix},
};
use crate::{BoxFuture, Files, WriteFile};

/// Runs work that blocks; the work goes on when the future is dropped.
pub(crate) type Blocking =
    Arc<dyn Fn(&str, Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A local directory as a store.
pub(crate) struct DirStore {
    url: String,
    dir: Arc<Directory>,
    blocking: Blocking,
}

impl DirStore {
    /// Opens the directory, making it if need be. `nonce` keeps the names of staged files of rival processes apart;
    /// `now` is the wall clock, by which rubbish is told from work.
    pub(crate) fn open(
        url: &str,
        path: &Path,
        files: Arc<dyn Files>,
        blocking: Blocking,
        nonce: u64,
        now: Timestamp,
    ) -> Result<Self> {
        let dir = Arc::new(Directory::open(url, path, files, nonce, now)?);
        Ok(Self { url: url.to_owned(), dir, blocking })
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        run(&self.dir, &self.blocking, name, work).await
    }
}

async fn run<T: Send + 'static>(
    dir: &Arc<Directory>,
    blocking: &Blocking,
    name: &str,
    work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let dir = Arc::clone(dir);
    let work = Box::new(move || drop(sender.send(dir.usable().and_then(|()| work(&dir)))));
    blocking(name, work).await?;
    receiver.await.map_err(|_| Error::internal(format!("{name} ended without a result")))?
}

#[async_trait]
impl Store for DirStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        check_object(path)?;
        let path = path.to_owned();
        self.run("store create", move |dir| {
            let staged = dir.stage(&path, &bytes)?;
            dir.publish_new(staged, &path)
        })
        .await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        check_object(path)?;
        let path = path.to_owned();
        self.run("store put", move |dir| {
            let staged = dir.stage(&path, &bytes)?;
            dir.publish_over(&staged, &path)
        })
        .await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        check_object(path)?;
        let object = path.to_owned();
        let (staged, file) = self.run("store writer", move |dir| dir.open_staged(&object)).await?;
        let (dir, blocking) = (Arc::clone(&self.dir), Arc::clone(&self.blocking));
        Ok(Box::new(DirWriter {
            path: path.to_owned(),
            staged,
            file: Some(file),
            unsynced: 0,
            dir,
            blocking,
        }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.get_range(path, 0..u64::MAX).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        check_object(path)?;
        let path = path.to_owned();
        self.run("store get", move |dir| dir.read(&path, range)).await
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        check_object(path)?;
        let path = path.to_owned();
        self.run("store len", move |dir| dir.len(&path)).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        check_object(path)?;
        let path = path.to_owned();
        self.run("store delete", move |dir| dir.delete(&path)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.run("store list", move |dir| dir.list(&prefix)).await
    }

    async fn tidy(&self) -> Result<()> {
        self.run("store tidy", |dir| dir.tidy()).await
    }

    async fn prune(&self, deleted: &[String]) -> Result<()> {
        deleted.iter().try_for_each(|path| check_object(path))?;
        let deleted = deleted.to_vec();
        self.run("store prune", move |dir| dir.prune(&deleted)).await
    }

    fn local_dir(&self) -> Option<PathBuf> {
        Some(self.dir.root().to_owned())
    }

    fn check_usable(&self) -> Result<()> {
        self.dir.usable()
    }
}

struct DirWriter {
    path: String,
    staged: PathBuf,
    /// `None` after a failed write.
    file: Option<Box<dyn WriteFile>>,
    /// Bytes written and not yet synced.
    unsynced: usize,
    dir: Arc<Directory>,
    blocking: Blocking,
}

/// A long object is synced each time it has grown by so many bytes: a file system may let a short object beside it wait
/// for all that it has not written yet, and that short object is what a checkpoint waits for.
const SYNC_LEN: usize = 8 << 20;

impl DirWriter {
    fn take_file(&mut self) -> Result<Box<dyn WriteFile>> {
        self.file
            .take()
            .ok_or_else(|| Error::unavailable(format!("an earlier write of {} failed", self.path)))
    }
}

#[async_trait]
impl StoreWriter for DirWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut file = self.take_file()?;
        let (path, staged) = (self.path.clone(), self.staged.clone());
        self.unsynced += bytes.len();
        let syncs = self.unsynced >= SYNC_LEN;
        if syncs {
            self.unsynced = 0;
        }
        let written = run(&self.dir, &self.blocking, "store write", move |dir| {
            let written = file.write_all(&bytes);
            let synced = written.and_then(|()| if syncs { file.sync_all() } else { Ok(()) });
            // On a full disk what was written takes the room that others need.
            synced.map_err(|error| dir.discard(&staged, &path, error))?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let mut file = self.take_file()?;
        let Self { path, staged, dir, blocking, .. } = *self;
        run(&dir, &blocking, "store finish", move |dir| {
            if let Err(error) = file.sync_all() {
                return Err(dir.discard(&staged, &path, error));
            }
            drop(file);
            match dir.publish_new(staged, &path)? {
                Created::New => Ok(()),
                Created::Exists => Err(exists(&path)),
            }
        })
        .await
    }
}
