//! Ids, ordered key bytes, key groups, event time, codecs, shapes and errors: the words that all crates share.
//!
//! Nothing here does I/O, knows a clock, or is asynchronous.

mod codec;
mod count;
mod error;
mod expiry;
#[cfg(feature = "test-util")]
pub mod hostile;
mod id;
mod key_bytes;
mod key_group;
pub mod ordered;
mod positional;
pub mod rest;
pub mod shape;
mod snapshot_file;
mod time;

pub use codec::{Bincode, Codec};
pub use count::count;
pub use error::{Error, ErrorKind, Result};
pub use expiry::{ExpiryClocks, ExpiryTimes, NOTHING_EXPIRED, TimeDomain};
pub use id::{AttemptId, CheckpointId, JobId, Lineage, RecordNumber, SubtaskIndex, Uid};
pub use key_bytes::KeyBytes;
pub use key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
pub use serde;
pub use shape::{KeyPart, Shape, ShapeReader, ShapedValue};
pub use snapshot_file::{Digest, DigestBuilder, Run, RunIdentity, SnapshotFile};
pub use time::Timestamp;

/// The hash of ordered key bytes that chooses the key group: xxh3-64 with seed 0. Part of the snapshot format.
#[must_use]
#[inline]
pub fn key_hash(ordered_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(ordered_key)
}
