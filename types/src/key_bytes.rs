//! Owned key bytes that are small enough to lie in a hash table: the keys of every keyed state.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// An immutable byte string of 24 bytes: up to [`IN_PLACE`](Self::IN_PLACE) bytes lie in it, more on the heap.
///
/// Equal, ordered and hashed as the slice of its bytes.
#[derive(Clone)]
pub struct KeyBytes(Place);

#[derive(Clone)]
enum Place {
    /// Bytes behind `len` are zero.
    Inline { len: u8, bytes: [u8; KeyBytes::IN_PLACE] },
    /// More than `IN_PLACE` bytes.
    Heap(Box<[u8]>),
}

impl KeyBytes {
    /// How many bytes need no allocation.
    pub const IN_PLACE: usize = 22;

    /// Copies `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        let mut place = [0; Self::IN_PLACE];
        match place.get_mut(..bytes.len()) {
            Some(front) => {
                front.copy_from_slice(bytes);
                Self(Place::Inline { len: bytes.len() as u8, bytes: place })
            }
            None => Self(Place::Heap(bytes.into())),
        }
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            // `len` is at most `IN_PLACE`, so that the empty slice never comes out; without a panic this inlines.
            Place::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Place::Heap(bytes) => bytes,
        }
    }

    /// Whether these are the bytes `other`.
    #[must_use]
    #[inline]
    pub fn is(&self, other: &[u8]) -> bool {
        self.as_slice() == other
    }

    /// How many bytes are on the heap.
    #[must_use]
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Place::Inline { .. } => 0,
            Place::Heap(bytes) => bytes.len(),
        }
    }
}

impl From<&[u8]> for KeyBytes {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

impl From<Vec<u8>> for KeyBytes {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= Self::IN_PLACE { Self::new(&bytes) } else { Self(Place::Heap(bytes.into())) }
    }
}

impl Default for KeyBytes {
    #[inline]
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for KeyBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Borrow<[u8]> for KeyBytes {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for KeyBytes {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // Of fixed size, so that three words are compared and no function is called.
            (Place::Inline { len, bytes }, Place::Inline { len: other_len, bytes: other_bytes }) => {
                len == other_len && bytes == other_bytes
            }
            (Place::Heap(bytes), Place::Heap(other_bytes)) => bytes == other_bytes,
            _ => false,
        }
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for KeyBytes {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({})", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_three_words() {
        assert_eq!(size_of::<KeyBytes>(), 24);
    }

    #[test]
    fn keeps_bytes_of_every_length_around_the_limit() {
        for len in 0..2 * KeyBytes::IN_PLACE as u8 {
            let bytes: Vec<u8> = (0..len).collect();
            let key = KeyBytes::from(bytes.as_slice());
            assert_eq!(key.as_slice(), bytes);
            assert_eq!(key, KeyBytes::from(bytes.clone()));
            assert!(key.is(&bytes));
            assert_eq!(key.heap_bytes() == 0, bytes.len() <= KeyBytes::IN_PLACE);
        }
    }

    #[test]
    fn trailing_zeros_count() {
        assert_ne!(KeyBytes::new(&[1]), KeyBytes::new(&[1, 0]));
        assert_ne!(KeyBytes::new(&[0; 22]), KeyBytes::new(&[0; 23]));
    }

    #[test]
    fn is_found_by_slice() {
        let set: BTreeSet<KeyBytes> = [&b"a"[..], b"bb", &[7; 40]].into_iter().map(KeyBytes::new).collect();
        assert!(set.contains(&b"bb"[..]));
        assert!(set.contains(&[7_u8; 40][..]));
        assert!(!set.contains(&b"b"[..]));
    }

    proptest! {
        #[test]
        fn compares_as_its_bytes(
            a in proptest::collection::vec(0_u8..3, 0..40),
            b in proptest::collection::vec(0_u8..3, 0..40),
        ) {
            let (left, right) = (KeyBytes::new(&a), KeyBytes::new(&b));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(left == right, a == b);
            prop_assert_eq!(left.is(&b), a == b);
        }
    }
}
