//! The key of a record as state sees it: ordered key bytes with the hash and key group that travel with them.

use types::{KeyBytes, KeyGroup, MaxParallelism, key_hash};

/// The current key of a record, borrowed from the batch it travels in.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    /// [`key_hash`] of `bytes`.
    pub hash: u64,
    /// The key group that the hash chose.
    pub group: KeyGroup,
    /// The key in the ordered encoding.
    pub bytes: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// The key with these ordered bytes, in a job with this max parallelism. Hashes: not for the record path.
    #[must_use]
    pub fn new(bytes: &'a [u8], max: MaxParallelism) -> Self {
        let hash = key_hash(bytes);
        Self { hash, group: max.key_group(hash), bytes }
    }
}

/// A key that stands on its own: what a timer that fires gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedKey {
    /// [`key_hash`] of `bytes`.
    pub hash: u64,
    /// The key group that the hash chose.
    pub group: KeyGroup,
    /// The key in the ordered encoding.
    pub bytes: KeyBytes,
}

impl OwnedKey {
    /// The same key, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, group: self.group, bytes: &self.bytes }
    }
}

/// The bits by which a key group's table is indexed: never those that chose the group, which are equal in all its keys
/// and would make every look-up several times slower.
#[inline]
pub(crate) const fn index_hash(hash: u64) -> u64 {
    hash.rotate_right(32)
}

/// Whether `key` is `bytes`. Compares words that may overlap, so that short keys need no call: this is the innermost step
/// of every look-up.
#[inline]
pub(crate) fn is_same(key: &KeyBytes, bytes: &[u8]) -> bool {
    let key = key.as_slice();
    if key.len() != bytes.len() {
        return false;
    }
    match (key.first_chunk::<8>(), bytes.first_chunk::<8>(), key.last_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(a), Some(b), Some(c), Some(d)) if key.len() <= 16 => a == b && c == d,
        _ => key == bytes,
    }
}
