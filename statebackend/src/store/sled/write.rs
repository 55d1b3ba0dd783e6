//! Writing a batch of changes.

use std::{collections::BTreeMap, ops::ControlFlow};

use types::Result;

use super::{Order, SledStore, WriteBatch, error::error};
use crate::store::Change;

/// In the order of the keys: sled finds neighbours quicker. Of a key the last change counts.
pub(super) fn write(store: &mut SledStore, changes: &WriteBatch) -> Result<()> {
    let mut last: BTreeMap<Vec<u8>, Option<&[u8]>> = BTreeMap::new();
    for change in changes.iter() {
        match change {
            Change::Put(key, value) => drop(last.insert(key.to_vec(), Some(value))),
            Change::Delete(key) => drop(last.insert(key.to_vec(), None)),
            Change::DeletePrefix(prefix) => {
                let below = last.range_mut(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
                below.for_each(|(_, value)| *value = None);
                super::read::scan(store, prefix, Order::Ascending, &mut |key, _| {
                    last.insert(key.to_vec(), None);
                    Ok(ControlFlow::Continue(()))
                })?;
            }
        }
    }
    for (key, value) in last {
        let changed = match value {
            Some(value) => store.db.insert(key, value),
            None => store.db.remove(key),
        };
        changed.map_err(|it| error(store.directory.path(), "write", &it))?;
    }
    Ok(())
}
