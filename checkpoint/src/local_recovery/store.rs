//! The checkpoint store with the copies of this machine in front of it: what is written through it is copied as well, and
//! files that a manifest names are read from their copies where those are good.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use env::{Created, MemoryLimit, Payload, Store, StoreEntry, StoreRequests, StoreWriter};
use types::{Result, Run, SnapshotFile};

use super::{LocalRecovery, copying::Copying, plan::Purpose};

/// Bytes that were read: from copies that were there, and from the store.
#[derive(Debug, Default)]
pub struct ReadBytes {
    local: AtomicU64,
    store: AtomicU64,
}

impl ReadBytes {
    /// From copies on this machine.
    pub fn local(&self) -> u64 {
        self.local.load(Ordering::Relaxed)
    }

    /// From the store.
    pub fn store(&self) -> u64 {
        self.store.load(Ordering::Relaxed)
    }

    pub(super) fn add_local(&self, bytes: u64) {
        self.local.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_store(&self, bytes: u64) {
        self.store.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// See the file's head.
pub struct LocalStore {
    inner: Arc<dyn Store>,
    local: Option<LocalRecovery>,
    /// What may be read from a copy, by path: as the manifest names it.
    files: BTreeMap<String, SnapshotFile>,
    fetches: bool,
    counts: Arc<ReadBytes>,
}

impl LocalStore {
    /// The store `inner`, through which files are written and `runs` read; without `local` nothing is copied.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, local: Option<LocalRecovery>, runs: &[Run]) -> Self {
        let files = runs.iter().map(|run| (run.file.path.clone(), run.file.clone())).collect();
        Self { inner, local, files, fetches: false, counts: Arc::default() }
    }

    /// The same for a restore: what has no copy yet gets one, and what is read is added to `counts`.
    #[must_use]
    pub fn restoring(self, counts: &Arc<ReadBytes>) -> Self {
        Self { fetches: true, counts: Arc::clone(counts), ..self }
    }

    /// The copy of a new file, if it is to have one.
    async fn copy(&self, path: &str) -> Option<Copying> {
        let local = self.local.as_ref().filter(|local| local.wants(path))?;
        Copying::begin(local, path, Purpose::Written, 0).await
    }
}

#[async_trait]
impl Store for LocalStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        self.inner.create(path, bytes).await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        let pieces = bytes.clone();
        let copying = async {
            let mut copy = self.copy(path).await?;
            for piece in pieces {
                copy = copy.write(piece).await?;
            }
            Some(copy.publish().await)
        };
        // A file that the store refuses is put again, under the same name and with the same bytes.
        let (put, _copied) = futures::join!(self.inner.put(path, bytes), copying);
        put
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        let inner = self.inner.writer(path).await?;
        Ok(Box::new(CopyingWriter { inner, copy: self.copy(path).await }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        if let (Some(local), Some(file)) = (&self.local, self.files.get(path)) {
            let store = self.fetches.then_some(&*self.inner);
            if let Some(bytes) = local.read(file, range.clone(), store, &self.counts).await {
                return Ok(Some(bytes));
            }
        }
        let found = self.inner.get_range(path, range).await?;
        self.counts.add_store(found.as_ref().map_or(0, |bytes| bytes.len() as u64));
        Ok(found)
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        self.inner.len(path).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.inner.delete(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        self.inner.list(prefix).await
    }

    async fn tidy(&self) -> Result<()> {
        self.inner.tidy().await
    }

    async fn prune(&self, deleted: &[String]) -> Result<()> {
        self.inner.prune(deleted).await
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.inner.local_dir()
    }

    fn limit_memory(&self, limit: MemoryLimit) {
        self.inner.limit_memory(limit);
    }

    fn check_usable(&self) -> Result<()> {
        self.inner.check_usable()
    }

    fn requests(&self) -> Vec<StoreRequests> {
        self.inner.requests()
    }
}

/// Writes into the store and into a copy, as long as there is one.
struct CopyingWriter {
    inner: Box<dyn StoreWriter>,
    copy: Option<Copying>,
}

#[async_trait]
impl StoreWriter for CopyingWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if let Some(copy) = self.copy.take() {
            self.copy = copy.write(bytes.clone()).await;
        }
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        let Self { inner, copy } = *self;
        let finished = inner.finish().await;
        if let (Some(copy), Ok(())) = (copy, &finished) {
            copy.publish().await;
        }
        finished
    }
}
