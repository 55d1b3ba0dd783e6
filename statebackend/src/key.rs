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

/// A key that is looked up, read into two words once, so that comparing it with the short keys of a table needs no call:
/// the innermost step of every look-up.
#[derive(Clone, Copy)]
pub(crate) struct ShortKey {
    len: usize,
    words: (u64, u64),
}

impl ShortKey {
    /// `None` for keys of over 16 bytes.
    #[inline(always)]
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        Some(Self { len: bytes.len(), words: words(bytes)? })
    }

    /// Whether it is `key`.
    #[inline(always)]
    pub(crate) fn is(self, key: &KeyBytes) -> bool {
        key.len() == self.len && words(key) == Some(self.words)
    }
}

/// Two words that differ where two byte strings of one length up to 16 differ. They may overlap.
#[inline(always)]
fn words(bytes: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return (bytes.len() <= 16).then(|| (u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return Some((u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()));
    }
    Some((bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_keys_compare_as_their_bytes(
            a in proptest::collection::vec(0_u8..3, 0..20),
            b in proptest::collection::vec(0_u8..3, 0..20),
            change in any::<prop::sample::Index>(),
        ) {
            let mut near = a.clone();
            if !a.is_empty() {
                near[change.index(a.len())] ^= 1;
            }
            for other in [&a, &b, &near] {
                match ShortKey::new(other) {
                    Some(short) => prop_assert_eq!(short.is(&KeyBytes::new(&a)), *other == a),
                    None => prop_assert!(other.len() > 16),
                }
            }
        }
    }
}
