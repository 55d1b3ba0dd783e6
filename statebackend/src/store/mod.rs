//! The stores of bytes that may stand behind the typed table: one folder each, with the same files (`kind open
//! read write bulk_load`), each an implementation of [`KeyValueStore`].
//!
//! Only [`KeyedState`](crate::KeyedState) calls them. A store is a working copy: it holds what left the table, without a
//! log, and is thrown away at recovery, when it is filled again from the runs. So the one promise it must keep is that
//! it gives back what was written to it while its process lives; the conformance check holds it to that.

mod batch;
#[cfg(feature = "test-util")]
mod conformance;
#[cfg(any(feature = "rocksdb", feature = "sled"))]
mod directory;
mod expired;
mod key;
mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
#[cfg(feature = "sled")]
pub mod sled;
#[cfg(feature = "test-util")]
pub mod sorted_map;
mod stores;

use std::ops::ControlFlow;

use types::Result;

pub use batch::{Change, KeyBatch, SortedEntries, WriteBatch};
#[cfg(feature = "test-util")]
pub use conformance::conformance;
pub use expired::{ExpiredUntil, ExpiryRule};
pub use key::successor;
pub(crate) use key::{HEAD_LEN, StoreKey, push_store_key};
pub use memory::{TableMemory, TableShare};
pub use stores::{MemoryUse, StoreSettings, Stores};

/// The direction of a [`KeyValueStore::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the least key to the greatest.
    Ascending,
    /// From the greatest key to the least.
    Descending,
}

/// Takes the number of a key and its value.
pub type Answer<'a> = dyn FnMut(usize, Option<&[u8]>) -> Result<()> + 'a;

/// Takes a key and its value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'a;

/// A sorted map of byte strings, ordered as slices are. Keys are those of the run format: state, key group, key, and
/// the place below the key.
///
/// First comes [`expires`](Self::expires), at most once for a prefix, then [`bulk_load`](Self::bulk_load) as often as need be, then
/// the other calls, in any order. All but loads are made on the thread of the task, which waits for them: a read from disk may block,
/// whatever takes longer is for a thread of the store's own.
///
/// # Errors
/// All calls: `Unavailable` with path and remedy, also where the store finds its own files damaged. `Corrupt` is what a
/// checkpoint is, and a store can be filled again.
pub trait KeyValueStore: Send {
    /// Looks up all of `keys` at once and calls `found` with the number and the value of each, in any order. An error of
    /// `found` ends the call and is returned.
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()>;

    /// Calls `visit` with the entries whose keys begin with `prefix`, in order of their keys, until it breaks. An error
    /// of `visit` ends the call and is returned.
    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()>;

    /// Makes the changes in their order. After an error some of them may have been made: the caller makes all of them
    /// again before it reads any of these places.
    fn write(&mut self, changes: &WriteBatch) -> Result<()>;

    /// Puts many entries into a store that is being filled. Keys ascend, from call to call, too.
    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()>;

    /// Says how values under keys that begin with `prefix` expire. Nobody sees what has expired any more, and the store may drop
    /// it, at any time: it should, little by little, or it grows for ever where nothing else is deleted. By default it does not.
    fn expires(&mut self, _prefix: &[u8], _rule: &ExpiryRule) {}
}
