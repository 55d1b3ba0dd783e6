//! The canonical form of state: what lives, and nothing of how it came about. Two histories that end in the same state
//! give the same entries, counts and digests.

use std::collections::BTreeMap;

use bytes::Bytes;
use types::{Digest, DigestBuilder, KeyGroupRange, Result, RunIdentity};

use super::{
    block::{Home, RunCompression},
    entry::{Entry, EntryKind},
    list_chunk::{CHUNK_ELEMENTS, chunk_number, elements, push_element},
    schema::Schema,
    writer::{RunWriter, Written},
};
use crate::declare::StateKind;

/// What lives in some key groups of an operator, by state name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSummary {
    /// Every state that has entries.
    pub states: BTreeMap<String, StateCount>,
}

/// What lives of one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCount {
    /// Keys that have anything.
    pub keys: u64,
    /// Values, elements of lists, entries of maps, timers.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The sum of the digests of its key groups, so that those of disjoint key groups can be added: the same at every
    /// parallelism.
    pub digest: u128,
}

impl StateSummary {
    /// Adds what lives in other key groups.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.states {
            let sum = self.states.entry(name.clone()).or_default();
            sum.keys += count.keys;
            sum.entries += count.entries;
            sum.bytes += count.bytes;
            sum.digest = sum.digest.wrapping_add(count.digest);
        }
    }

    /// One digest over all states.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut digest = DigestBuilder::default();
        for (name, count) in &self.states {
            digest.update(&(name.len() as u64).to_le_bytes());
            digest.update(name.as_bytes());
            digest.update(&count.digest.to_le_bytes());
        }
        digest.finish()
    }
}

/// Counts and digests merged entries. They must have been merged with the oldest run, so that none is a tombstone.
pub(crate) struct Summarizer {
    states: Vec<(String, StateKind)>,
    summary: StateSummary,
    part: Option<Part>,
}

/// The state and key group being counted, and what was of them.
struct Part {
    home: Home,
    count: StateCount,
    digest: DigestBuilder,
    last_key: Vec<u8>,
}

impl Part {
    fn new(home: Home) -> Self {
        let (count, digest) = (StateCount::default(), DigestBuilder::default());
        Self { home, count, digest, last_key: Vec::new() }
    }

    fn count(&mut self, key: &[u8], sub: &[u8], value: &[u8]) {
        if self.count.entries == 0 || self.last_key != key {
            self.count.keys += 1;
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.count.entries += 1;
        self.count.bytes += (key.len() + sub.len() + value.len()) as u64;
        for part in [key, sub, value] {
            self.digest.update(&(part.len() as u64).to_le_bytes());
            self.digest.update(part);
        }
    }
}

impl Summarizer {
    pub(crate) fn new(schema: &Schema) -> Self {
        let states = schema.states.iter().map(|state| (state.spec.name.clone(), state.spec.kind)).collect();
        Self { states, summary: StateSummary::default(), part: None }
    }

    fn is_list(&self, home: Home) -> bool {
        self.states[usize::from(home.state)].1 == StateKind::List
    }

    /// Of a list only the elements count, not how they were cut into chunks.
    pub(crate) fn push(&mut self, home: Home, entry: &Entry<'_>) -> Result<()> {
        if self.part.as_ref().is_some_and(|part| part.home != home) {
            self.close_part();
        }
        let is_list = self.is_list(home);
        let part = self.part.get_or_insert_with(|| Part::new(home));
        if is_list {
            for element in elements(entry.value) {
                part.count(entry.key, &[], element?);
            }
        } else {
            part.count(entry.key, entry.sub, entry.value);
        }
        Ok(())
    }

    fn close_part(&mut self) {
        let Some(Part { home, mut count, mut digest, .. }) = self.part.take() else { return };
        digest.update(&home.group.0.to_le_bytes());
        count.digest = digest.finish().0;
        let name = self.states[usize::from(home.state)].0.clone();
        self.summary.add(&StateSummary { states: BTreeMap::from([(name, count)]) });
    }

    pub(crate) fn finish(mut self) -> StateSummary {
        self.close_part();
        self.summary
    }
}

/// Writes merged entries in canonical form. They must have been merged with the oldest run, so that none is a tombstone.
pub(crate) struct CanonicalWriter {
    pub(crate) writer: RunWriter,
    summarizer: Summarizer,
    list: Option<List>,
}

/// The list being written.
struct List {
    home: Home,
    key: Vec<u8>,
    /// The elements that are not yet in a chunk.
    elements: Vec<u8>,
    count: usize,
    sequence: u32,
}

impl List {
    fn new(home: Home, key: &[u8]) -> Self {
        Self { home, key: key.to_vec(), elements: Vec::new(), count: 0, sequence: 0 }
    }

    fn push(&mut self, element: &[u8], writer: &mut RunWriter) -> Result<()> {
        push_element(&mut self.elements, |out| {
            out.extend_from_slice(element);
            Ok(())
        })?;
        self.count += 1;
        if self.count == CHUNK_ELEMENTS { self.close_chunk(writer) } else { Ok(()) }
    }

    fn close_chunk(&mut self, writer: &mut RunWriter) -> Result<()> {
        if self.count > 0 {
            let sub = chunk_number(0, self.sequence);
            let entry = Entry { kind: EntryKind::Put, key: &self.key, sub: &sub, value: &self.elements };
            writer.push_entry(self.home.state, self.home.group, &entry)?;
            self.sequence += 1;
            self.count = 0;
            self.elements.clear();
        }
        Ok(())
    }
}

impl CanonicalWriter {
    pub(crate) fn new(
        identity: RunIdentity,
        groups: KeyGroupRange,
        schema: Schema,
        compression: RunCompression,
    ) -> Result<Self> {
        let summarizer = Summarizer::new(&schema);
        let writer = RunWriter::new(identity, groups, schema, compression)?;
        Ok(Self { writer, summarizer, list: None })
    }

    pub(crate) fn push(&mut self, home: Home, entry: &Entry<'_>, bytes: &[u8]) -> Result<()> {
        self.summarizer.push(home, entry)?;
        let is_next = |list: &List| list.home != home || list.key != entry.key;
        if self.list.as_ref().is_some_and(is_next) {
            self.close_list()?;
        }
        if !self.summarizer.is_list(home) {
            return self.writer.push(home.state, home.group, bytes);
        }
        let list = self.list.get_or_insert_with(|| List::new(home, entry.key));
        elements(entry.value).try_for_each(|element| list.push(element?, &mut self.writer))
    }

    fn close_list(&mut self) -> Result<()> {
        self.list.take().map_or(Ok(()), |mut list| list.close_chunk(&mut self.writer))
    }

    pub(crate) fn finish(mut self) -> Result<(Bytes, Written, StateSummary)> {
        self.close_list()?;
        let (last, written) = self.writer.finish()?;
        Ok((last, written, self.summarizer.finish()))
    }
}
