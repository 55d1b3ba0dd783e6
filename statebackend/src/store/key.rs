//! How the place of a cell becomes a key of a store: the order of a run, as one byte string.
//!
//! Parts need no separators: state and key group have two bytes each, and keys in the ordered encoding delimit themselves.

use types::KeyGroup;

/// The length of state and key group.
pub(crate) const HEAD_LEN: usize = 4;

/// A place below a key; all of them, where `sub` is empty.
#[derive(Clone, Copy)]
pub(crate) struct StoreKey<'a> {
    /// The rank of the state's name among those of the operator.
    pub(crate) state: u16,
    pub(crate) group: KeyGroup,
    pub(crate) key: &'a [u8],
    pub(crate) sub: &'a [u8],
}

/// Appends the bytes of a store's key.
pub(crate) fn push_store_key(out: &mut Vec<u8>, place: StoreKey<'_>) {
    out.reserve(HEAD_LEN + place.key.len() + place.sub.len());
    out.extend_from_slice(&place.state.to_be_bytes());
    out.extend_from_slice(&place.group.0.to_be_bytes());
    out.extend_from_slice(place.key);
    out.extend_from_slice(place.sub);
}

/// The least byte string that is greater than all that begin with `prefix`; `None` if there is none. For stores that
/// delete and scan by ranges.
#[must_use]
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_comes_after_everything_with_the_prefix() {
        let check = |prefix: &[u8], expected: Option<&[u8]>| {
            assert_eq!(successor(prefix).as_deref(), expected, "{prefix:?}");
        };
        check(&[], None);
        check(&[1, 2], Some(&[1, 3]));
        check(&[1, 255], Some(&[2]));
        check(&[1, 255, 0], Some(&[1, 255, 1]));
        check(&[255, 255], None);
    }

    #[test]
    fn store_keys_sort_as_the_entries_of_a_run() {
        let bytes = |state: u16, group: u16, key: &[u8], sub: &[u8]| {
            let mut out = Vec::new();
            push_store_key(&mut out, StoreKey { state, group: KeyGroup(group), key, sub });
            out
        };
        let sorted = [
            bytes(0, 0, b"a\0\0", b"\xff"),
            bytes(0, 0, b"b\0\0", b""),
            bytes(0, 0, b"b\0\0", b"x"),
            bytes(0, 256, b"a\0\0", b""),
            bytes(1, 0, b"a\0\0", b""),
            bytes(256, 0, b"a\0\0", b""),
        ];
        assert!(sorted.is_sorted());
    }
}
