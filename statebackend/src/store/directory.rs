//! The directory of a store on disk: wiped when it is opened, removed when the store is gone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use env::Files;
use types::{Error, ErrorKind, Result};

/// What to do about a directory that cannot be used.
pub(super) const REMEDY: &str =
    "free some space, make the directory writable or choose another with state.directory";

/// A store keeps it behind everything that uses files in it.
pub(super) struct StoreDirectory {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl StoreDirectory {
    /// Makes `path`, empty.
    pub(super) fn make(files: Arc<dyn Files>, path: &Path) -> Result<Self> {
        files.remove_dir_all(path).map_err(|error| unusable(path, error))?;
        let made = Self { files, path: path.to_owned() };
        made.add(path)?;
        Ok(made)
    }

    /// Makes a directory below it.
    pub(super) fn add(&self, path: &Path) -> Result<()> {
        self.files.create_dir_all(path).map_err(|error| unusable(path, error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::io(path.display(), error)
        .context("cannot make a directory for working state")
        .with_kind(ErrorKind::Unavailable)
        .with_advice(REMEDY)
}

impl Drop for StoreDirectory {
    fn drop(&mut self) {
        // Whoever makes it again wipes it, and a start removes what dead processes left.
        let _left = self.files.remove_dir_all(&self.path);
    }
}
