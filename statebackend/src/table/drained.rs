//! What draining makes of changed cells: their entries, encoded once, in chunks, in the order in which they were drained.
//! Tables write here; `run::writer` sorts what is here into a run.

use serde::Serialize;
use types::{Bincode, Codec, Error, KeyGroup, Result};

use super::chunks::{CHUNK, Chunks};
use crate::run::entry::{Entry, EntryKind, Head, MAX_PART, decode, push_entry, push_put};

/// Drained entries of one state and one checkpoint. Each is its key group (two bytes) and the entry as a block holds it.
#[derive(Debug)]
pub(crate) struct Drained {
    chunks: Vec<Vec<u8>>,
    entries: u64,
    tombstones: u64,
    /// Whether it holds everything of the state that lived at the end of its interval.
    is_whole: bool,
    scratch: Vec<u8>,
    /// Bytes of notes, which are no entries.
    note_bytes: usize,
    /// Where full chunks come from, and go when the run is written.
    source: Chunks,
}

/// What stands before an entry: its key group.
pub(crate) const GROUP_LEN: usize = 2;
/// Set in the key group of what is no entry of the run, but helps to find which are (`run::resolve`).
const NOTE: u16 = 1 << 15;

/// An entry or a note, in the order in which they were written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) group: KeyGroup,
    /// A note with a deletion says that the place was empty, one with a range tombstone that nothing older than the
    /// interval was there to be cleared.
    pub(crate) is_note: bool,
    pub(crate) entry: Entry<'a>,
    /// The encoded entry.
    pub(crate) bytes: &'a [u8],
}

/// Chunks do not grow: a full one is left and the next one begun. The first is small, since most deltas are.
const FIRST_CHUNK: usize = 8 << 10;
/// Chunks that a delta's list has room for at least, once it has more than the first.
const MANY_CHUNKS: usize = 1024;
/// More than the two bytes of the group, a tag and three lengths.
const HEAD_MAX: usize = 2 + 1 + 3 * 5;

impl<'a> Line<'a> {
    /// The line whose encoded entry begins at `at` in a chunk, behind its key group.
    pub(crate) fn read(chunk: &'a [u8], at: usize) -> Result<Self> {
        let before = at.checked_sub(GROUP_LEN).and_then(|begin| chunk.get(begin..at));
        let Some(&[low, high]) = before else {
            return Err(Error::internal("a drained entry has no key group"));
        };
        let group = u16::from_le_bytes([low, high]);
        let bytes = &chunk[at..][..Head::read(&chunk[at..])?.item_len()];
        Ok(Self { group: key_group(group), is_note: group & NOTE != 0, entry: decode(bytes), bytes })
    }
}

/// The key group of a line, of the two bytes before it.
#[inline]
pub(crate) fn key_group(bytes: u16) -> KeyGroup {
    KeyGroup(bytes & !NOTE)
}

impl Default for Drained {
    fn default() -> Self {
        Self::new(Chunks::default())
    }
}

impl Drained {
    /// Bytes that a small entry takes, roughly.
    pub(super) const LEAST: usize = 24;

    /// Nothing yet; chunks will come from `source`.
    pub(crate) fn new(source: Chunks) -> Self {
        Self {
            chunks: Vec::new(),
            entries: 0,
            tombstones: 0,
            is_whole: false,
            scratch: Vec::new(),
            note_bytes: 0,
            source,
        }
    }

    /// The chunks; no entry crosses from one to the next.
    pub(crate) fn chunks(&self) -> &[Vec<u8>] {
        &self.chunks
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// How many of the entries have a value.
    pub(crate) fn values(&self) -> u64 {
        self.entries - self.tombstones
    }

    /// Whether it holds everything of the state that lived at the end of its interval.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) fn set_whole(&mut self, is_whole: bool) {
        self.is_whole = is_whole;
    }

    /// Bytes that an entry with a value of a type takes, roughly: with the head and the key, which are short.
    pub(super) const fn of_value<T>() -> usize {
        Self::LEAST - size_of::<u64>() + size_of::<T>()
    }

    /// What an entry takes, where there are enough to tell.
    pub(super) fn entry_bytes(&self) -> Option<usize> {
        let (entries, chunks) = (self.entries as usize, self.chunks.len());
        (chunks > 2 && entries >= chunks).then(|| (chunks * CHUNK).saturating_sub(self.note_bytes) / entries)
    }

    /// Bytes that `cells` more will take, roughly: as those before, or where these are few, `each` of them.
    pub(super) fn estimate(&self, cells: usize, each: usize) -> usize {
        cells.saturating_mul(self.entry_bytes().unwrap_or(each))
    }

    /// How many of the entries are tombstones.
    #[cfg(test)]
    pub(crate) fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Writes that the place holds `value`.
    #[inline]
    pub(crate) fn put<T: Serialize>(
        &mut self,
        group: KeyGroup,
        key: &[u8],
        sub: &[u8],
        value: &T,
    ) -> Result<()> {
        self.put_encoded(group, key, sub, |out| Bincode::encode(value, out)).map(drop)
    }

    /// Writes that the place holds what `encode` appends, and gives that back.
    #[inline]
    pub(crate) fn put_encoded(
        &mut self,
        group: KeyGroup,
        key: &[u8],
        sub: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<&[u8]> {
        self.scratch.clear();
        encode(&mut self.scratch)?;
        if key.len().max(sub.len()).max(self.scratch.len()) > MAX_PART {
            return Err(Error::user(format!(
                "a key, map key or value of over {MAX_PART} bytes cannot be kept in a snapshot: split it"
            )));
        }
        let len = HEAD_MAX + key.len() + sub.len() + self.scratch.len();
        let value = std::mem::take(&mut self.scratch);
        let chunk = self.chunk(len);
        chunk.extend_from_slice(&group.0.to_le_bytes());
        push_put(chunk, key, sub, &value);
        self.scratch = value;
        self.entries += 1;
        Ok(&self.scratch)
    }

    /// Writes that the place is empty.
    pub(crate) fn delete(&mut self, group: KeyGroup, key: &[u8], sub: &[u8]) {
        self.tombstone(group, EntryKind::Delete, key, sub);
    }

    /// Writes that everything of the key in older runs is gone.
    pub(crate) fn clear(&mut self, group: KeyGroup, key: &[u8]) {
        self.tombstone(group, EntryKind::Clear, key, &[]);
    }

    fn tombstone(&mut self, group: KeyGroup, kind: EntryKind, key: &[u8], sub: &[u8]) {
        self.push(group.0, kind, key, sub);
        self.entries += 1;
        self.tombstones += 1;
    }

    /// Notes that the place is empty before what is written next of it.
    pub(crate) fn note_empty(&mut self, group: KeyGroup, key: &[u8], sub: &[u8]) {
        self.note_bytes += HEAD_MAX + key.len() + sub.len();
        self.push(group.0 | NOTE, EntryKind::Delete, key, sub);
    }

    /// Writes that everything of the key in this interval is gone, where older runs hold nothing of it.
    pub(crate) fn reset(&mut self, group: KeyGroup, key: &[u8]) {
        self.note_bytes += HEAD_MAX + key.len();
        self.push(group.0 | NOTE, EntryKind::Clear, key, &[]);
    }

    fn push(&mut self, group: u16, kind: EntryKind, key: &[u8], sub: &[u8]) {
        let chunk = self.chunk(HEAD_MAX + key.len() + sub.len());
        chunk.extend_from_slice(&group.to_le_bytes());
        push_entry(chunk, &Entry { kind, key, sub, value: &[] });
    }

    /// The chunk that has room for `len` more bytes without growing.
    #[inline]
    fn chunk(&mut self, len: usize) -> &mut Vec<u8> {
        let has_room = self.chunks.last().is_some_and(|chunk| chunk.capacity() - chunk.len() >= len);
        if !has_room {
            self.begin_chunk(len);
        }
        self.chunks.last_mut().expect("a chunk was pushed if there was none")
    }

    #[inline(never)]
    fn begin_chunk(&mut self, len: usize) {
        if self.chunks.len() == 1 {
            // The delta is not small. Growing this list frees memory, which an allocator may take for the time to clean up.
            let list = std::mem::replace(&mut self.chunks, self.source.take_list());
            self.chunks.reserve(MANY_CHUNKS);
            self.chunks.extend(list);
        }
        self.chunks.push(match len {
            _ if self.chunks.is_empty() => Vec::with_capacity(FIRST_CHUNK.max(len)),
            0..=CHUNK => self.source.take(),
            _ => Vec::with_capacity(len),
        });
    }
}

/// The run is written, or nobody wants it any more: its chunks serve the next interval.
impl Drop for Drained {
    fn drop(&mut self) {
        let chunks = std::mem::take(&mut self.chunks);
        if self.entries == 0 { self.source.keep(chunks) } else { self.source.give_back(chunks) }
    }
}
