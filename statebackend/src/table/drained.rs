//! What draining makes of changed cells: their entries, encoded once, in chunks, in the order in which they were drained.
//! Tables write here; `run::writer` sorts what is here into a run.

use serde::Serialize;
use types::{Bincode, Codec, Error, KeyGroup, Result};

use crate::run::entry::{Entry, EntryKind, MAX_PART, push_entry, push_head};

/// Drained entries of one state and one checkpoint. Each is its key group (two bytes) and the entry as a block holds it.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    chunks: Vec<Vec<u8>>,
    entries: u64,
    tombstones: u64,
    scratch: Vec<u8>,
}

/// Chunks do not grow: a full one is left and the next one begun. The first is small, since most deltas are.
const FIRST_CHUNK: usize = 8 << 10;
const CHUNK: usize = 128 << 10;
/// More than the two bytes of the group, a tag and three lengths.
const HEAD_MAX: usize = 2 + 1 + 3 * 5;

impl Drained {
    /// The chunks; no entry crosses from one to the next.
    pub(crate) fn chunks(&self) -> &[Vec<u8>] {
        &self.chunks
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
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
        self.put_encoded(group, key, sub, |out| Bincode::encode(value, out))
    }

    /// Writes that the place holds what `encode` appends.
    #[inline]
    pub(crate) fn put_encoded(
        &mut self,
        group: KeyGroup,
        key: &[u8],
        sub: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
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
        push_head(chunk, EntryKind::Put, key, sub, value.len());
        chunk.extend_from_slice(&value);
        self.scratch = value;
        self.entries += 1;
        Ok(())
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
        let chunk = self.chunk(HEAD_MAX + key.len() + sub.len());
        chunk.extend_from_slice(&group.0.to_le_bytes());
        push_entry(chunk, &Entry { kind, key, sub, value: &[] });
        self.entries += 1;
        self.tombstones += 1;
    }

    /// The chunk that has room for `len` more bytes without growing.
    #[inline]
    fn chunk(&mut self, len: usize) -> &mut Vec<u8> {
        let has_room = self.chunks.last().is_some_and(|chunk| chunk.capacity() - chunk.len() >= len);
        if !has_room {
            let size = if self.chunks.is_empty() { FIRST_CHUNK } else { CHUNK };
            self.chunks.push(Vec::with_capacity(size.max(len)));
        }
        self.chunks.last_mut().expect("a chunk was pushed if there was none")
    }
}
