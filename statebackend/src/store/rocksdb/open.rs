//! Opening an empty store in a directory that is wiped.

use std::{path::Path, sync::Arc};

use env::Files;
use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind};
use types::{Error, Result};

use super::{RocksDbKind, RocksDbStore, error::error, expire::Expiring, write::Manner};
use crate::store::directory::StoreDirectory;

/// Where the database is, below the directory of the store.
const DATABASE: &str = "db";
/// Where files are written that are to become part of it.
const LOADS: &str = "loads";

impl RocksDbStore {
    /// An empty store in `dir`, which is made if need be, loses all that it held, and goes with the store.
    ///
    /// # Errors
    /// `Unavailable` if the directory cannot be used, with its path and the remedy; `InvalidJob` for options that
    /// contradict each other.
    pub fn open(kind: &RocksDbKind, files: Arc<dyn Files>, dir: &Path) -> Result<Self> {
        let directory = StoreDirectory::make(files, dir)?;
        let loads = dir.join(LOADS);
        directory.add(&loads)?;
        let expiring = Expiring::default();
        let mut options = kind.options()?;
        options.set_compaction_filter_factory(expiring.clone());
        // Named, since only a family with a handle can be asked for many keys at once.
        let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
        let opened = DB::open_cf_descriptors(&options, dir.join(DATABASE), [family]);
        let db = opened.map_err(|it| match it.kind() {
            // Options that contradict each other.
            ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
                Error::invalid_job(format!("state.options: RocksDB cannot be opened with them: {it}"))
            }
            _ => error(dir, "be opened", &it),
        })?;
        let manner = Manner::new();
        let (layout, loads) = (kind.layout(), (loads, 0));
        Ok(Self { db, options, manner, layout, loads, expiring, directory, _kind: kind.clone() })
    }
}
