//! `memory:NAME`: a store that is a map in this process and gone with it.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use types::{Error, Result};

use super::{
    Created, Payload, Store, StoreEntry, StoreWriter,
    path::{check_object, check_prefix},
};

/// How much a store in memory may hold.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// The bytes of all objects together. What is put or written must fit; objects that are created (history records and
    /// manifests: small ones, which a job cannot do without) always find room.
    pub bytes: u64,
    /// What to do when it is reached, for the error.
    pub advice: &'static str,
}

/// All objects, and their bytes.
#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Bytes>,
    bytes: u64,
    limit: Option<MemoryLimit>,
}

impl Objects {
    /// Inserts an object or replaces one.
    fn insert(&mut self, path: &str, bytes: Bytes) {
        self.remove(path);
        self.bytes += bytes.len() as u64;
        self.by_path.insert(path.to_owned(), bytes);
    }

    fn remove(&mut self, path: &str) {
        if let Some(gone) = self.by_path.remove(path) {
            self.bytes -= gone.len() as u64;
        }
    }

    /// # Errors
    /// `Unavailable` if an object of `len` bytes at `path` goes beyond the limit.
    fn check_room(&self, path: &str, len: usize) -> Result<()> {
        let Some(limit) = &self.limit else { return Ok(()) };
        let replaced = self.by_path.get(path).map_or(0, Bytes::len) as u64;
        let held = self.bytes - replaced;
        if held + len as u64 <= limit.bytes {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "no room in memory for {len} bytes more: {held} are held, the limit is {}: {}",
            limit.bytes, limit.advice
        )))
    }
}

/// The stores of one process, by name.
#[derive(Default)]
pub(crate) struct MemoryStores {
    stores: Mutex<BTreeMap<String, Arc<MemoryStore>>>,
}

impl MemoryStores {
    /// The store of this name, made at the first call.
    pub(crate) fn open(&self, name: &str) -> Arc<MemoryStore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(stores.entry(name.to_owned()).or_insert_with(|| Arc::new(MemoryStore::new(name))))
    }
}

/// One named map.
pub(crate) struct MemoryStore {
    url: String,
    objects: Arc<Mutex<Objects>>,
}

impl MemoryStore {
    /// An empty store.
    pub(crate) fn new(name: &str) -> Self {
        Self { url: format!("memory:{name}"), objects: Arc::default() }
    }

    /// The same store, with a limit.
    pub(crate) fn with_limit(self, limit: Option<MemoryLimit>) -> Self {
        lock(&self.objects).limit = limit;
        self
    }
}

fn lock(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(objects: &Mutex<Objects>, path: &str, bytes: &Payload) -> Created {
    let mut objects = lock(objects);
    if objects.by_path.contains_key(path) {
        return Created::Exists;
    }
    objects.insert(path, bytes.concat().into());
    Created::New
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        check_object(path)?;
        Ok(create(&self.objects, path, &bytes))
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        check_object(path)?;
        let mut objects = lock(&self.objects);
        objects.check_room(path, bytes.iter().map(Bytes::len).sum())?;
        objects.insert(path, bytes.concat().into());
        Ok(())
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        check_object(path)?;
        let (path, objects) = (path.to_owned(), Arc::clone(&self.objects));
        Ok(Box::new(MemoryWriter { path, objects, pieces: Vec::new() }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        check_object(path)?;
        Ok(lock(&self.objects).by_path.get(path).cloned())
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        Ok(self.get(path).await?.map(|bytes| {
            let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            let (start, end) = (within(range.start), within(range.end));
            bytes.slice(start..end.max(start))
        }))
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        Ok(self.get(path).await?.map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        check_object(path)?;
        lock(&self.objects).remove(path);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        check_prefix(prefix)?;
        let objects = lock(&self.objects);
        let below =
            objects.by_path.range(prefix.to_owned()..).take_while(|(path, _)| path.starts_with(prefix));
        Ok(below.map(|(path, bytes)| StoreEntry { path: path.clone(), len: bytes.len() as u64 }).collect())
    }

    fn local_dir(&self) -> Option<PathBuf> {
        None
    }

    fn limit_memory(&self, limit: MemoryLimit) {
        lock(&self.objects).limit = Some(limit);
    }
}

struct MemoryWriter {
    path: String,
    objects: Arc<Mutex<Objects>>,
    pieces: Payload,
}

#[async_trait]
impl StoreWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.pieces.push(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        lock(&self.objects).check_room(&self.path, self.pieces.iter().map(Bytes::len).sum())?;
        match create(&self.objects, &self.path, &self.pieces) {
            Created::New => Ok(()),
            Created::Exists => Err(super::exists(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn of(len: usize) -> Payload {
        vec![Bytes::from(vec![7; len])]
    }

    #[tokio::test]
    async fn a_limit_holds_for_everything_but_records() -> Result<()> {
        let limit = MemoryLimit { bytes: 100, advice: "buy memory" };
        let store = MemoryStore::new("small").with_limit(Some(limit));
        store.put("run/1", of(60)).await?;
        let error = store.put("run/2", of(41)).await.expect_err("it does not fit");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let expected = "no room in memory for 41 bytes more: 60 are held, the limit is 100: buy memory";
        assert_eq!(error.to_string(), expected);
        assert_eq!(store.len("run/2").await?, None);
        // What is replaced makes room, and so does what is deleted.
        store.put("run/1", of(90)).await?;
        assert_eq!(store.create("record", of(20)).await?, Created::New);
        assert!(store.put("run/2", of(1)).await.is_err());
        store.delete("run/1").await?;
        store.put("run/2", of(80)).await?;

        let mut writer = store.writer("run/3").await?;
        writer.write(Bytes::from_static(b"x")).await?;
        assert!(writer.finish().await.is_err());
        assert_eq!(store.len("run/3").await?, None);
        Ok(())
    }
}
