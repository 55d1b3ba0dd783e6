//! Opening what is on disk without changing it.

use std::{path::Path, sync::Arc};

use checkpoint::savepoint::SnapshotLocation;
use env::{Env, FileKind, Store};
use types::{Error, Result};

/// What a user names.
pub(crate) enum Named {
    /// A checkpoint or savepoint directory, as a whole.
    Directory(Arc<dyn Store>),
    /// Something else: a snapshot in a directory, or nothing that exists.
    Other,
}

/// Finds out whether `text` names a directory. Never makes one.
///
/// # Errors
/// `InvalidJob` for an unknown scheme or a file, `Unavailable` if it cannot be read.
pub(crate) async fn named(env: &Env, text: &str) -> Result<Named> {
    let local = text.strip_prefix("file://").unwrap_or(text);
    if local.contains(':') && !local.starts_with('/') && !exists(env, local).await? {
        // A URL of another scheme: the store says what it knows.
        if SnapshotLocation::is_of_one(text) {
            return Ok(Named::Other);
        }
        return env.open_store(text).map(Named::Directory);
    }
    if !exists(env, local).await? {
        return Ok(Named::Other);
    }
    env.open_store(text).map(Named::Directory)
}

/// Opens the directory that `text` names.
///
/// # Errors
/// `InvalidJob` if there is none.
pub(crate) async fn directory(env: &Env, text: &str) -> Result<Arc<dyn Store>> {
    match named(env, text).await? {
        Named::Directory(store) => Ok(store),
        Named::Other => Err(Error::invalid_job(format!(
            "{text}: there is no such directory: give a savepoint, or a checkpoint directory"
        ))),
    }
}

async fn exists(env: &Env, path: &str) -> Result<bool> {
    let (files, asked) = (env.files(), Path::new(path).to_owned());
    let found = env.blocking("look for a directory", move || files.metadata(&asked)).await?;
    match found.map_err(|error| Error::io(path, error))? {
        None => Ok(false),
        Some(meta) if meta.kind == FileKind::Dir => Ok(true),
        Some(_) => Err(Error::invalid_job(format!("{path} is not a directory"))),
    }
}
