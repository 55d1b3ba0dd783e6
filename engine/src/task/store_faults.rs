//! The store of a subtask as its task uses it: each call passes a fault point, where tests kill the process or let the disk
//! under the store fail. The points cost one call for each batch; in production they do nothing.

use env::{Env, FaultPoint};
use statebackend::store::{
    Answer, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
};
use types::Result;

/// A store whose calls pass fault points.
pub(crate) struct StoreWithFaults {
    store: Box<dyn KeyValueStore>,
    env: Env,
}

impl StoreWithFaults {
    /// `store` with points around its calls.
    pub(crate) fn around(store: Box<dyn KeyValueStore>, env: &Env) -> Box<dyn KeyValueStore> {
        Box::new(Self { store, env: env.clone() })
    }
}

impl KeyValueStore for StoreWithFaults {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        self.env.fault(FaultPoint::StoreReadBefore)?;
        self.store.read(keys, found)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        self.env.fault(FaultPoint::StoreReadBefore)?;
        self.store.scan(prefix, order, visit)
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        self.env.fault(FaultPoint::StoreWriteBefore)?;
        self.store.write(changes)?;
        self.env.fault(FaultPoint::StoreWriteAfter)
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        self.env.fault(FaultPoint::StoreLoadBefore)?;
        self.store.bulk_load(entries)?;
        self.env.fault(FaultPoint::StoreLoadAfter)
    }

    fn expires(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.store.expires(prefix, rule);
    }
}
