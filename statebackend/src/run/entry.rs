//! How one entry of a run looks in bytes: written once when a cell is drained, copied from then on.
//!
//! An entry is a tag, the lengths of its parts as varints, and the parts. State and key group are not in it: in a block
//! they stand in a mark before the entries they are true for.

use types::{Error, KeyGroup, Result};

/// What an entry says about its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// The place holds this value.
    Put,
    /// The place is empty: a tombstone over the same place in older runs.
    Delete,
    /// Everything of this key is gone: a range tombstone over all its places in older runs, never in its own.
    Clear,
}

/// An entry as it stands in a run, borrowed from a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it says.
    pub kind: EntryKind,
    /// The ordered bytes of the key.
    pub key: &'a [u8],
    /// The place below the key: a map key, a timer's time, the number of a list's chunk; empty for values.
    pub sub: &'a [u8],
    /// The encoded value; empty for tombstones.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// Whether it only hides entries of older runs.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.kind != EntryKind::Put
    }
}

/// The tags in front of entries, and of the mark that says which state and key group follow.
mod tag {
    pub(super) const MARK: u8 = 0;
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
    pub(super) const PUT_SUB: u8 = 3;
    pub(super) const DELETE_SUB: u8 = 4;
    pub(super) const CLEAR: u8 = 5;
}

/// The greatest length of a key, a sub key or a value: 1 GiB.
pub(crate) const MAX_PART: usize = 1 << 30;

#[inline]
fn push_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends an entry without its value; `value_len` bytes must follow if it is a `Put`.
#[inline]
pub(crate) fn push_head(out: &mut Vec<u8>, kind: EntryKind, key: &[u8], sub: &[u8], value_len: usize) {
    out.push(match (kind, sub.is_empty()) {
        (EntryKind::Put, true) => tag::PUT,
        (EntryKind::Put, false) => tag::PUT_SUB,
        (EntryKind::Delete, true) => tag::DELETE,
        (EntryKind::Delete, false) => tag::DELETE_SUB,
        (EntryKind::Clear, _) => tag::CLEAR,
    });
    push_varint(out, key.len());
    if !sub.is_empty() && kind != EntryKind::Clear {
        push_varint(out, sub.len());
    }
    if kind == EntryKind::Put {
        push_varint(out, value_len);
    }
    out.extend_from_slice(key);
    if kind != EntryKind::Clear {
        out.extend_from_slice(sub);
    }
}

/// Whether the encoded entry `bytes` is a tombstone.
#[inline]
pub(crate) fn is_tombstone(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(&tag::PUT | &tag::PUT_SUB))
}

/// The entry whose encoded bytes are at the front of `bytes`, where they were read as one before.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Entry<'_> {
    first(bytes).0
}

/// The entry at the front of `bytes`, where it was read as one before, and its encoded bytes.
#[inline]
pub(crate) fn first(bytes: &[u8]) -> (Entry<'_>, &[u8]) {
    let mut items = Items::new(bytes, 0);
    match items.next() {
        Ok(Some(Item::Entry(entry))) => (entry, &bytes[..items.position()]),
        _ => unreachable!("the bytes were read as an entry before"),
    }
}

/// Appends a whole entry.
pub(crate) fn push_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    push_head(out, entry.kind, entry.key, entry.sub, entry.value.len());
    if entry.kind == EntryKind::Put {
        out.extend_from_slice(entry.value);
    }
}

/// Appends the mark that the entries after it belong to `state` (its place among the run's states) and `group`.
pub(crate) fn push_mark(out: &mut Vec<u8>, state: u16, group: KeyGroup) {
    out.push(tag::MARK);
    out.extend_from_slice(&state.to_le_bytes());
    out.extend_from_slice(&group.0.to_le_bytes());
}

/// An entry or a mark, as read.
pub(crate) enum Item<'a> {
    Mark { state: u16, group: KeyGroup },
    Entry(Entry<'a>),
}

/// Reads entries and marks from the front of `rest`, which is moved on. Never panics, whatever the bytes are.
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next item begins.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or_else(cut)?;
        let part = self.bytes.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(part)
    }

    #[inline]
    fn varint(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if number <= MAX_PART {
                    Ok(number)
                } else {
                    Err(Error::corrupt("length out of range"))
                };
            }
        }
        Err(Error::corrupt("length out of range"))
    }

    /// The next item, `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Item<'a>>> {
        if let Some(entry) = self.short() {
            return Ok(Some(Item::Entry(entry)));
        }
        self.any()
    }

    /// The next item if it is of the kind that most are: a value under a key, each of less than 128 bytes.
    #[inline]
    fn short(&mut self) -> Option<Entry<'a>> {
        let &[tag::PUT, key_len @ 0..0x80, value_len @ 0..0x80] = self.bytes.get(self.at..)?.first_chunk()?
        else {
            return None;
        };
        let (begin, key_len) = (self.at + 3, usize::from(key_len));
        let end = begin + key_len + usize::from(value_len);
        let (key, value) = self.bytes.get(begin..end)?.split_at(key_len);
        self.at = end;
        Some(Entry { kind: EntryKind::Put, key, sub: &[], value })
    }

    /// The next item, whatever it is.
    fn any(&mut self) -> Result<Option<Item<'a>>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.byte()?;
        let (kind, has_sub) = match tag {
            tag::MARK => return self.mark().map(Some),
            tag::PUT => (EntryKind::Put, false),
            tag::DELETE => (EntryKind::Delete, false),
            tag::PUT_SUB => (EntryKind::Put, true),
            tag::DELETE_SUB => (EntryKind::Delete, true),
            tag::CLEAR => (EntryKind::Clear, false),
            other => return Err(Error::corrupt(format!("unknown entry tag {other}"))),
        };
        let key_len = self.varint()?;
        let sub_len = if has_sub { self.varint()? } else { 0 };
        let value_len = if kind == EntryKind::Put { self.varint()? } else { 0 };
        let (key, sub, value) = (self.take(key_len)?, self.take(sub_len)?, self.take(value_len)?);
        Ok(Some(Item::Entry(Entry { kind, key, sub, value })))
    }

    fn mark(&mut self) -> Result<Item<'a>> {
        let state = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let group = KeyGroup(u16::from_le_bytes([self.byte()?, self.byte()?]));
        Ok(Item::Mark { state, group })
    }
}

#[cold]
fn cut() -> Error {
    Error::corrupt("an entry goes beyond the end of its block")
}
