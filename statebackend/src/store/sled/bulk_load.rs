//! Filling the store at restore.

use types::Result;

use super::{SledStore, SortedEntries, error::error};

pub(super) fn bulk_load(store: &mut SledStore, entries: &SortedEntries) -> Result<()> {
    for (key, value) in entries.iter() {
        store
            .db
            .insert(key, value)
            .map_err(|it| error(store.directory.path(), "load restored state", &it))?;
    }
    Ok(())
}
