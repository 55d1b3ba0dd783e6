//! Opening an empty store in a directory that is wiped.

use std::{path::Path, sync::Arc};

use env::Files;
use types::Result;

use super::{SledKind, SledStore, error::error, expire};
use crate::store::directory::StoreDirectory;

/// Where the database is, below the directory of the store.
const DATABASE: &str = "db";

impl SledStore {
    /// An empty store in `dir`, which is made if need be, loses all that it held, and goes with the store.
    ///
    /// # Errors
    /// `Unavailable` if the directory cannot be used, with its path and the remedy.
    pub fn open(kind: &SledKind, files: Arc<dyn Files>, dir: &Path) -> Result<Self> {
        let directory = StoreDirectory::make(files, dir)?;
        let config = kind.config().path(dir.join(DATABASE));
        let db = config.open().map_err(|it| error(dir, "be opened", &it))?;
        Ok(Self { db, hand: expire::Hand::default(), directory, _open: kind.opened() })
    }
}
