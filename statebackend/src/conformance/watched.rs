//! The author's store with an eye on it: a store may drop what has expired, at any time, and nothing else. After each
//! write what it has of states that expire is compared with what was written to it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use types::Result;

use crate::store::{
    Answer, Change, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
};

pub(super) struct Watched {
    store: Box<dyn KeyValueStore>,
    /// What keys of states that expire begin with.
    rules: Vec<(Vec<u8>, ExpiryRule)>,
    /// What was written below these, and was there when it was last looked at.
    written: BTreeMap<Vec<u8>, Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Watched {
    /// Adds to `dropped` how many entries the store has dropped.
    pub(super) fn new(store: Box<dyn KeyValueStore>, dropped: Arc<AtomicU64>) -> Self {
        Self { store, rules: Vec::new(), written: BTreeMap::new(), dropped }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        if self.rules.iter().any(|(prefix, _)| key.starts_with(prefix)) {
            self.written.insert(key.to_vec(), value.to_vec());
        }
    }

    fn look(&mut self) -> Result<()> {
        for (prefix, rule) in &self.rules {
            let mut found = BTreeMap::new();
            self.store.scan(prefix, Order::Ascending, &mut |key, value| {
                found.insert(key.to_vec(), value.to_vec());
                Ok(ControlFlow::Continue(()))
            })?;
            for (key, value) in &found {
                assert_eq!(Some(value), self.written.get(key), "what the store has under {key:?}");
            }
            let before = self.written.len();
            self.written.retain(|key, value| {
                let is_there = !key.starts_with(prefix) || found.contains_key(key);
                assert!(
                    is_there || rule.has_expired(value),
                    "the store has dropped what lives, under {key:?}"
                );
                is_there
            });
            self.dropped.fetch_add((before - self.written.len()) as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl KeyValueStore for Watched {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        self.store.read(keys, found)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        self.store.scan(prefix, order, visit)
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        self.store.write(changes)?;
        for change in changes.iter() {
            match change {
                Change::Put(key, value) => self.note(key, value),
                Change::Delete(key) => drop(self.written.remove(key)),
                Change::DeletePrefix(prefix) => self.written.retain(|key, _| !key.starts_with(prefix)),
            }
        }
        self.look()
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        entries.iter().for_each(|(key, value)| self.note(key, value));
        self.store.bulk_load(entries)
    }

    fn expires(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.rules.push((prefix.to_vec(), rule.clone()));
        self.store.expires(prefix, rule);
    }
}
