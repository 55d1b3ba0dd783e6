//! `memory:NAME`: a store that is a map in this process and gone with it.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use types::Result;

use super::{
    Created, Payload, Store, StoreEntry, StoreWriter,
    path::{check_object, check_prefix},
};

type Objects = BTreeMap<String, Bytes>;

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
}

fn lock(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(objects: &Mutex<Objects>, path: &str, bytes: &Payload) -> Created {
    let mut objects = lock(objects);
    if objects.contains_key(path) {
        return Created::Exists;
    }
    objects.insert(path.to_owned(), bytes.concat().into());
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
        lock(&self.objects).insert(path.to_owned(), bytes.concat().into());
        Ok(())
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        check_object(path)?;
        let (path, objects) = (path.to_owned(), Arc::clone(&self.objects));
        Ok(Box::new(MemoryWriter { path, objects, pieces: Vec::new() }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        check_object(path)?;
        Ok(lock(&self.objects).get(path).cloned())
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
        let below = objects.range(prefix.to_owned()..).take_while(|(path, _)| path.starts_with(prefix));
        Ok(below.map(|(path, bytes)| StoreEntry { path: path.clone(), len: bytes.len() as u64 }).collect())
    }

    fn local_dir(&self) -> Option<PathBuf> {
        None
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
        match create(&self.objects, &self.path, &self.pieces) {
            Created::New => Ok(()),
            Created::Exists => Err(super::exists(&self.path)),
        }
    }
}
