//! What goes into a store and is asked of it in one call: many small byte strings in one buffer, so that a batch costs
//! no allocation of its own once it has been used.

use types::{KeyGroup, Result};

use super::{HEAD_LEN, StoreKey, push_store_key};
use crate::run::entry::Parts;

/// Keys to look up.
#[derive(Debug, Default)]
pub struct KeyBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyBatch {
    /// Adds a key; its number is how many were there before.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn push_place(&mut self, place: StoreKey<'_>) {
        push_store_key(&mut self.bytes, place);
        self.ends.push(self.bytes.len());
    }

    /// The keys by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let begin = |number: usize| number.checked_sub(1).map_or(0, |before| self.ends[before]);
        (0..self.len()).map(move |number| &self.bytes[begin(number)..self.ends[number]])
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes all keys out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// A change of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key has this value from now on.
    Put(&'a [u8], &'a [u8]),
    /// The key is gone.
    Delete(&'a [u8]),
    /// All keys that begin so are gone.
    DeletePrefix(&'a [u8]),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Delete,
    DeletePrefix,
}

/// Changes to make, in order: a later one of a key wins.
#[derive(Debug, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    /// What, and where its key and its value end.
    changes: Vec<(Kind, usize, usize)>,
}

impl WriteBatch {
    /// Adds a change.
    pub fn push(&mut self, change: Change<'_>) {
        let (kind, key, value): (_, _, &[u8]) = match change {
            Change::Put(key, value) => (Kind::Put, key, value),
            Change::Delete(key) => (Kind::Delete, key, &[]),
            Change::DeletePrefix(key) => (Kind::DeletePrefix, key, &[]),
        };
        self.bytes.extend_from_slice(key);
        self.close(kind, value);
    }

    pub(crate) fn put_place(&mut self, place: StoreKey<'_>, value: &[u8]) {
        push_store_key(&mut self.bytes, place);
        self.close(Kind::Put, value);
    }

    /// Adds a change that puts what `encode` appends. Nothing is added if that fails.
    pub(crate) fn put_encoded(
        &mut self,
        place: StoreKey<'_>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        // Not what is there: something of a change whose encoding panicked.
        let begin = self.changes.last().map_or(0, |change| change.2);
        self.bytes.truncate(begin);
        push_store_key(&mut self.bytes, place);
        let key_end = self.bytes.len();
        if let Err(error) = encode(&mut self.bytes) {
            self.bytes.truncate(begin);
            return Err(error);
        }
        self.changes.push((Kind::Put, key_end, self.bytes.len()));
        Ok(())
    }

    pub(crate) fn delete_place(&mut self, place: StoreKey<'_>) {
        push_store_key(&mut self.bytes, place);
        self.close(Kind::Delete, &[]);
    }

    pub(crate) fn delete_below(&mut self, state: u16, group: KeyGroup, key: &[u8]) {
        push_store_key(&mut self.bytes, StoreKey { state, group, key, sub: &[] });
        self.close(Kind::DeletePrefix, &[]);
    }

    fn close(&mut self, kind: Kind, value: &[u8]) {
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.changes.push((kind, key_end, self.bytes.len()));
    }

    /// The changes in their order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let begins = std::iter::once(0).chain(self.changes.iter().map(|change| change.2));
        begins.zip(&self.changes).map(|(begin, &(kind, key_end, end))| {
            let (key, value) = (&self.bytes[begin..key_end], &self.bytes[key_end..end]);
            match kind {
                Kind::Put => Change::Put(key, value),
                Kind::Delete => Change::Delete(key),
                Kind::DeletePrefix => Change::DeletePrefix(key),
            }
        })
    }

    /// The key of a change.
    fn key(&self, number: usize) -> Option<&[u8]> {
        let begin = number.checked_sub(1).map_or(0, |before| self.changes[before].2);
        Some(&self.bytes[begin..self.changes.get(number)?.1])
    }

    /// The keys of the last two changes.
    fn last_keys(&self) -> Option<(&[u8], &[u8])> {
        let last = self.changes.len().checked_sub(1)?;
        Some((self.key(last.checked_sub(1)?)?, self.key(last)?))
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Bytes of keys, prefixes and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Takes all changes out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
    }
}

/// Entries whose keys ascend.
#[derive(Debug, Default)]
pub struct SortedEntries {
    entries: WriteBatch,
    /// Whether a key came that is not greater than the one before.
    is_out_of_order: bool,
}

impl SortedEntries {
    /// Makes room for so many bytes of keys and values in all.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.entries.bytes.reserve(bytes.saturating_sub(self.entries.bytes.len()));
    }

    /// Adds an entry, whose key is greater than all before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.entries.push(Change::Put(key, value));
        self.compare();
    }

    /// Adds an entry of a run.
    pub(crate) fn push_parts(&mut self, state: u16, group: KeyGroup, parts: Parts<'_>) {
        let WriteBatch { bytes, changes } = &mut self.entries;
        push_store_key(bytes, StoreKey { state, group, key: &[], sub: &[] });
        let key_end = bytes.len() + parts.place_len;
        bytes.extend_from_slice(parts.bytes);
        changes.push((Kind::Put, key_end, bytes.len()));
        self.compare();
    }

    /// Key and place below it, without state and key group, and value of an entry by its number.
    pub(crate) fn place_and_value(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let &(_, key_end, end) = self.entries.changes.get(number)?;
        Some((&self.entries.key(number)?[HEAD_LEN..], &self.entries.bytes[key_end..end]))
    }

    /// Adds all of `more`, whose keys are greater than all before.
    pub(crate) fn append(&mut self, more: &Self) {
        let is_after = self.last_key().is_none_or(|last| more.follows(last));
        self.is_out_of_order |= more.is_out_of_order || !is_after;
        let begin = self.entries.bytes.len();
        self.entries.bytes.extend_from_slice(&more.entries.bytes);
        let moved = more.entries.changes.iter().map(|&(kind, key, end)| (kind, begin + key, begin + end));
        self.entries.changes.extend(moved);
    }

    /// Compares the last two keys, which were just written and need not be fetched again.
    fn compare(&mut self) {
        if let Some((before, last)) = self.entries.last_keys() {
            self.is_out_of_order |= before >= last;
        }
    }

    /// Whether all keys ascend, and come after `before`.
    pub(crate) fn ascend_after(&self, before: &[u8]) -> bool {
        !self.is_out_of_order && self.follows(before)
    }

    fn follows(&self, before: &[u8]) -> bool {
        self.entries.key(0).is_none_or(|first| before < first)
    }

    /// The greatest key.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.entries.key(self.entries.len().checked_sub(1)?)
    }

    /// Keys and values, keys ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().filter_map(|change| match change {
            Change::Put(key, value) => Some((key, value)),
            Change::Delete(_) | Change::DeletePrefix(_) => None,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.is_out_of_order = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(keys: &[u8]) -> SortedEntries {
        let mut entries = SortedEntries::default();
        for key in keys {
            let parts = Parts { bytes: &[*key, 9, 10, 20], key_len: 1, place_len: 2 };
            entries.push_parts(3, KeyGroup(5), parts);
        }
        entries
    }

    #[test]
    fn what_is_appended_is_as_if_it_had_been_pushed() {
        let mut all = entries(&[]);
        for more in [entries(&[1, 2]), entries(&[]), entries(&[4])] {
            all.append(&more);
        }
        let found: Vec<_> = all.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let expected = [1, 2, 4].map(|key| (vec![0, 3, 0, 5, key, 9], vec![10, 20]));
        assert_eq!(found, expected);
        assert_eq!((all.len(), all.bytes()), (3, 3 * 8));
        assert_eq!(all.place_and_value(2), Some((&[4, 9][..], &[10, 20][..])));
        assert_eq!(all.place_and_value(3), None);
        assert!(all.ascend_after(&[0, 3, 0, 5, 0]) && !all.ascend_after(&[0, 3, 0, 5, 1, 9]));
    }

    #[test]
    fn what_does_not_ascend_is_noticed_within_and_between() {
        let ascend = |parts: &[&[u8]]| {
            let mut all = SortedEntries::default();
            parts.iter().for_each(|keys| all.append(&entries(keys)));
            all.ascend_after(&[])
        };
        assert!(ascend(&[&[1, 2], &[3, 7], &[8]]));
        for wrong in
            [&[&[1, 1][..]][..], &[&[2, 1]], &[&[1], &[1, 2]], &[&[1, 5], &[4, 6]], &[&[1], &[3, 2], &[4]]]
        {
            assert!(!ascend(wrong), "{wrong:?}");
        }
    }
}
