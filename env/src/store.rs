//! Durable objects under relative paths: where checkpoints live. A local directory, or an object store.
//!
//! A path is made of parts of `[A-Za-z0-9._-]`, joined by `/`; no part is empty, `.` or `..`.

#[cfg(any(test, feature = "test-util"))]
mod conformance;
mod dir;
mod directory;
mod memory;
mod path;
#[cfg(feature = "s3")]
mod s3;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use types::{Error, Result};

#[cfg(any(test, feature = "test-util"))]
pub use self::conformance::store_conformance;
#[cfg(not(feature = "s3"))]
pub(crate) use self::path::without_s3;
#[cfg(all(feature = "s3", any(test, feature = "test-util")))]
pub use self::s3::{S3Proxy, S3Request, S3Server, Treatment};
#[cfg(feature = "s3")]
pub(crate) use self::s3::{S3Store, Spawn};
pub(crate) use self::{
    dir::{Blocking, DirStore},
    memory::{MemoryStore, MemoryStores},
    path::{Location, locate},
};
pub use self::{
    memory::MemoryLimit,
    path::{absolute, is_volatile},
};

/// The bytes of an object, in pieces, so that nothing large must be copied together.
pub type Payload = Vec<Bytes>;

/// What a conditional create did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// This call created the object.
    New,
    /// An object was there; it is unchanged.
    Exists,
}

/// An object found by a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreEntry {
    /// Its path below the store's URL.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
}

/// How many requests of one kind a store has sent over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreRequests {
    /// The kind, such as `get` or `upload-part`.
    pub kind: &'static str,
    /// How many were sent, repeated ones included.
    pub sent: u64,
    /// How many of them got no answer that says yes or no: they were sent again, or the caller got an error.
    pub unanswered: u64,
}

/// An object being written piece by piece. Nothing is visible before [`finish`](StoreWriter::finish); dropping the
/// writer leaves at most rubbish that no listing shows.
#[async_trait]
pub trait StoreWriter: Send {
    /// Appends a piece.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`; the writer must then be dropped.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// Makes the object visible and durable. Fails if the path exists.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`; the object then exists wholly or not at all.
    async fn finish(self: Box<Self>) -> Result<()>;
}

/// A store with read-after-write consistency and conditional create. Every write is atomic, and durable when the call
/// returns (local: file and directory are synced). Calls are not retried inside, since the caller knows its deadline; what
/// goes over a network and may be repeated is sent a few times, a create never.
#[async_trait]
pub trait Store: Send + Sync {
    /// The URL under which the store was opened, for messages.
    fn url(&self) -> &str;
    /// Creates an object if there is none: exactly one of several racing callers gets [`Created::New`].
    ///
    /// # Errors
    /// `Retryable`: it is unknown whether the object was created; read it back. `Unavailable`: it was not created.
    async fn create(&self, path: &str, bytes: Payload) -> Result<Created>;
    /// Writes an object, replacing one that is there. Only for names that nobody else writes, and for hints.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn put(&self, path: &str, bytes: Payload) -> Result<()>;
    /// Begins to write a large object under a name that nobody else writes.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>>;
    /// The whole object, `None` if there is none.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn get(&self, path: &str) -> Result<Option<Bytes>>;
    /// The bytes `range` of the object, fewer where it ends earlier; `None` if there is none.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>>;
    /// The object's length, `None` if there is none.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn len(&self, path: &str) -> Result<Option<u64>>;
    /// Deletes an object; succeeds if there is none.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn delete(&self, path: &str) -> Result<()>;
    /// All objects whose path begins with `prefix` (a whole number of parts, ended by `/`; empty for all), sorted.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`.
    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>>;
    /// Removes what only helped to write and is empty now, before a directory is handed to its user. May be called at any
    /// time.
    ///
    /// # Errors
    /// As the operating system says; nothing is lost.
    async fn tidy(&self) -> Result<()> {
        Ok(())
    }
    /// Removes the directories that held these objects, as far as they hold nothing any more, and the store's own likewise:
    /// when what was there is deleted for good. Whoever writes at this moment makes them again.
    ///
    /// # Errors
    /// As the operating system says; nothing is lost.
    async fn prune(&self, _deleted: &[String]) -> Result<()> {
        Ok(())
    }
    /// The local directory behind the store, if it is one: lets the caller take a file lock beside it.
    fn local_dir(&self) -> Option<std::path::PathBuf>;
    /// The requests that this handle has sent, by kind in a fixed order; empty where there is no network between.
    fn requests(&self) -> Vec<StoreRequests> {
        Vec::new()
    }
    /// Bounds what the store may hold from now on, where that is this process's memory; elsewhere it has no effect.
    fn limit_memory(&self, _limit: MemoryLimit) {}
    /// Whether this handle can still be used. If not, it never will be: a job that restarts inside its process asks
    /// this first, and ends instead.
    ///
    /// # Errors
    /// `Unavailable`: why not, and what to do.
    fn check_usable(&self) -> Result<()> {
        Ok(())
    }
}

/// What a writer says when its path is taken.
fn exists(path: &str) -> Error {
    Error::conflict(format!("{path} exists already, and objects are never replaced"))
}
