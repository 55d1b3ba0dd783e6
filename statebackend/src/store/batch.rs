//! What goes into a store and is asked of it in one call: many small byte strings in one buffer, so that a batch costs
//! no allocation of its own once it has been used.

use types::{KeyGroup, Result};

use super::{StoreKey, push_store_key};

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
    /// Adds an entry, whose key is greater than all before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.entries.push(Change::Put(key, value));
        self.compare();
    }

    pub(crate) fn push_place(&mut self, place: StoreKey<'_>, value: &[u8]) {
        self.entries.put_place(place, value);
        self.compare();
    }

    /// Compares the last two keys, which were just written and need not be fetched again.
    fn compare(&mut self) {
        if let Some((before, last)) = self.entries.last_keys() {
            self.is_out_of_order |= before >= last;
        }
    }

    /// Whether all keys ascend, and come after `before`.
    pub(crate) fn ascend_after(&self, before: &[u8]) -> bool {
        !self.is_out_of_order && self.iter().next().is_none_or(|(first, _)| before < first)
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
