//! How one entry of a run looks in bytes: written once when a cell is drained, copied from then on.
//!
//! An entry is a tag, the lengths of its parts as varints, and the parts. State and key group are not in it: in a block
//! they stand in a mark before the entries they are true for.

use types::{Error, KeyGroup, Result};

use super::copy::append;

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
    append(out, key);
    if kind != EntryKind::Clear {
        append(out, sub);
    }
}

/// Appends that a place has a value.
#[inline]
pub(crate) fn push_put(out: &mut Vec<u8>, key: &[u8], sub: &[u8], value: &[u8]) {
    match <&[u8; 8]>::try_from(key) {
        // A number as a key is the most frequent one.
        Ok(key) if sub.is_empty() && value.len() < 0x80 => {
            out.extend_from_slice(&[tag::PUT, 8, value.len() as u8]);
            out.extend_from_slice(key);
        }
        _ => push_head(out, EntryKind::Put, key, sub, value.len()),
    }
    append(out, value);
}

/// Whether the encoded entry `bytes` is a tombstone.
#[inline]
pub(crate) fn is_tombstone(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(&tag::PUT | &tag::PUT_SUB))
}

/// The entry whose encoded bytes are at the front of `bytes`, where they were read as one before.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Entry<'_> {
    match Items::new(bytes, 0).next() {
        Ok(Some(Item::Entry(entry))) => entry,
        _ => unreachable!("the bytes were read as an entry before"),
    }
}

/// Key, place below it and value of an entry, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) bytes: &'a [u8],
    /// The length of the key, and of key and place below it together.
    pub(crate) key_len: usize,
    pub(crate) place_len: usize,
}

impl<'a> Parts<'a> {
    /// Those of the entry whose encoded bytes are at the front of `bytes`, where they were read as one before.
    #[inline]
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        match Head::read(bytes) {
            Ok(head) => {
                let bytes = &bytes[head.len..head.item_len()];
                Self { bytes, key_len: head.key, place_len: head.place() }
            }
            Err(_) => unreachable!("the bytes were read as an entry before"),
        }
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

/// What stands before the parts of an item: which they are, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    tag: u8,
    /// The length of the head itself; of a mark, of all of it.
    pub(crate) len: usize,
    pub(crate) key: usize,
    sub: usize,
    pub(crate) value: usize,
}

/// A mark: tag, state, key group.
const MARK_LEN: usize = 5;

impl Head {
    /// The head of the item at the front of `bytes`, which holds all of it.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let head = Self::read_only(bytes)?;
        if head.item_len() > bytes.len() { Err(cut()) } else { Ok(head) }
    }

    /// The head at the front of `bytes`, whatever comes after it.
    #[inline(always)]
    pub(crate) fn read_only(bytes: &[u8]) -> Result<Self> {
        match bytes.first_chunk() {
            // Most: a value under a key, each of less than 128 bytes.
            Some(&[tag::PUT, key @ 0..0x80, value @ 0..0x80]) => {
                Ok(Self { tag: tag::PUT, len: 3, key: key.into(), sub: 0, value: value.into() })
            }
            _ => Self::read_any(bytes),
        }
    }

    #[inline(never)]
    fn read_any(bytes: &[u8]) -> Result<Self> {
        let (&tag, mut rest) = bytes.split_first().ok_or_else(cut)?;
        let (has_sub, has_value) = match tag {
            tag::MARK if bytes.len() < MARK_LEN => return Err(cut()),
            tag::MARK => return Ok(Self { tag, len: MARK_LEN, key: 0, sub: 0, value: 0 }),
            tag::PUT => (false, true),
            tag::DELETE | tag::CLEAR => (false, false),
            tag::PUT_SUB => (true, true),
            tag::DELETE_SUB => (true, false),
            other => return Err(Error::corrupt(format!("unknown entry tag {other}"))),
        };
        let key = take_varint(&mut rest)?;
        let sub = if has_sub { take_varint(&mut rest)? } else { 0 };
        let value = if has_value { take_varint(&mut rest)? } else { 0 };
        Ok(Self { tag, len: bytes.len() - rest.len(), key, sub, value })
    }

    /// Whether it is a mark and no entry.
    #[inline]
    pub(crate) fn is_mark(self) -> bool {
        self.tag == tag::MARK
    }

    /// The length of key and sub together.
    #[inline]
    pub(crate) fn place(self) -> usize {
        self.key + self.sub
    }

    /// The length of the whole item.
    #[inline]
    pub(crate) fn item_len(self) -> usize {
        self.len + self.place() + self.value
    }

    fn kind(self) -> EntryKind {
        match self.tag {
            tag::PUT | tag::PUT_SUB => EntryKind::Put,
            tag::CLEAR => EntryKind::Clear,
            _ => EntryKind::Delete,
        }
    }
}

fn take_varint(bytes: &mut &[u8]) -> Result<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(cut)?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 && number <= MAX_PART {
            return Ok(number);
        }
        if byte < 0x80 {
            break;
        }
    }
    Err(Error::corrupt("length out of range"))
}

/// An entry of the kind that most are: a value under a key, each of less than 128 bytes.
pub(crate) struct Short<'a> {
    pub(crate) key: &'a [u8],
    value: &'a [u8],
    /// Where the entry ends.
    pub(crate) end: usize,
}

impl<'a> Short<'a> {
    /// The entry at `at`, if it is one.
    #[inline(always)]
    pub(crate) fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let &[tag::PUT, key_len @ 0..0x80, value_len @ 0..0x80] = bytes.get(at..)?.first_chunk()? else {
            return None;
        };
        let (begin, key_len) = (at + 3, usize::from(key_len));
        let end = begin + key_len + usize::from(value_len);
        let (key, value) = bytes.get(begin..end)?.split_at(key_len);
        Some(Self { key, value, end })
    }
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

    /// The next item, `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Item<'a>>> {
        if let Some(entry) = self.short() {
            return Ok(Some(Item::Entry(entry)));
        }
        self.any()
    }

    #[inline]
    fn short(&mut self) -> Option<Entry<'a>> {
        let Short { key, value, end } = Short::read(self.bytes, self.at)?;
        self.at = end;
        Some(Entry { kind: EntryKind::Put, key, sub: &[], value })
    }

    /// The next item, whatever it is.
    fn any(&mut self) -> Result<Option<Item<'a>>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let head = Head::read(rest)?;
        self.at += head.item_len();
        if let (true, Some(&[_, s0, s1, g0, g1])) = (head.is_mark(), rest.first_chunk::<MARK_LEN>()) {
            let group = KeyGroup(u16::from_le_bytes([g0, g1]));
            return Ok(Some(Item::Mark { state: u16::from_le_bytes([s0, s1]), group }));
        }
        let (key, rest) = rest[head.len..].split_at(head.key);
        let (sub, rest) = rest.split_at(head.sub);
        Ok(Some(Item::Entry(Entry { kind: head.kind(), key, sub, value: &rest[..head.value] })))
    }
}

#[cold]
fn cut() -> Error {
    Error::corrupt("an entry goes beyond the end of its block")
}
