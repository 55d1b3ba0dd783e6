//! The canonical form of state: what lives, and nothing of how it came about. Two histories that end in the same state
//! give the same entries, counts and digests.

use std::collections::BTreeMap;

use bytes::Bytes;
use types::{Digest, DigestBuilder, KeyGroupRange, Result, RunIdentity};

use super::{
    block::Home,
    entry::{Entry, EntryKind},
    footer::Totals,
    list_chunk::{CHUNK_ELEMENTS, chunk_number, elements},
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

/// Writes merged entries in canonical form. They must have been merged with the oldest run, so that none is a tombstone.
pub(crate) struct CanonicalWriter {
    pub(crate) writer: RunWriter,
    names: Vec<(String, StateKind)>,
    summary: StateSummary,
    /// The state and key group being written, and what was of them.
    part: Option<(Home, StateCount, DigestBuilder)>,
    last_key: Vec<u8>,
    list: List,
}

/// The elements of the list being written that are not yet in a chunk.
#[derive(Default)]
struct List {
    key: Vec<u8>,
    elements: Vec<u8>,
    count: usize,
    sequence: u32,
}

impl CanonicalWriter {
    pub(crate) fn new(identity: RunIdentity, groups: KeyGroupRange, mut schema: Schema) -> Result<Self> {
        for state in &mut schema.states {
            state.totals = Totals::default();
        }
        let names = schema.states.iter().map(|state| (state.spec.name.clone(), state.spec.kind)).collect();
        Ok(Self {
            writer: RunWriter::new(identity, groups, schema)?,
            names,
            summary: StateSummary::default(),
            part: None,
            last_key: Vec::new(),
            list: List::default(),
        })
    }

    pub(crate) fn push(&mut self, home: Home, entry: &Entry<'_>, bytes: &[u8]) -> Result<()> {
        if self.part.as_ref().is_none_or(|(current, ..)| *current != home) {
            self.close_part()?;
            self.part = Some((home, StateCount::default(), DigestBuilder::default()));
            self.last_key.clear();
        }
        let is_new_key =
            self.part.as_ref().is_some_and(|(_, count, _)| count.keys == 0 || self.last_key != entry.key);
        if is_new_key {
            self.last_key.clear();
            self.last_key.extend_from_slice(entry.key);
        }
        if let Some((_, count, _)) = &mut self.part {
            count.keys += u64::from(is_new_key);
        }
        if self.names[usize::from(home.state)].1 == StateKind::List {
            return self.push_list(home, entry);
        }
        self.count(entry.key, entry.sub, entry.value);
        self.writer.push(home.state, home.group, bytes)
    }

    fn count(&mut self, key: &[u8], sub: &[u8], value: &[u8]) {
        if let Some((_, count, digest)) = &mut self.part {
            count.entries += 1;
            count.bytes += (key.len() + sub.len() + value.len()) as u64;
            for part in [key, sub, value] {
                digest.update(&(part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
    }

    fn push_list(&mut self, home: Home, entry: &Entry<'_>) -> Result<()> {
        if self.list.key != entry.key {
            self.close_chunk(home)?;
            self.list = List { key: entry.key.to_vec(), ..List::default() };
        }
        for element in elements(entry.value) {
            let element = element?;
            self.count(entry.key, &[], element);
            super::list_chunk::push_element(&mut self.list.elements, |out| {
                out.extend_from_slice(element);
                Ok(())
            })?;
            self.list.count += 1;
            if self.list.count == CHUNK_ELEMENTS {
                self.close_chunk(home)?;
            }
        }
        Ok(())
    }

    fn close_chunk(&mut self, home: Home) -> Result<()> {
        if self.list.count > 0 {
            let sub = chunk_number(0, self.list.sequence);
            let List { key, elements, .. } = &self.list;
            let entry = Entry { kind: EntryKind::Put, key, sub: &sub, value: elements };
            self.writer.push_entry(home.state, home.group, &entry)?;
            self.list.sequence += 1;
            self.list.count = 0;
            self.list.elements.clear();
        }
        Ok(())
    }

    /// Ends the state and key group being written.
    fn close_part(&mut self) -> Result<()> {
        let Some((home, mut count, mut digest)) = self.part.take() else { return Ok(()) };
        self.close_chunk(home)?;
        self.list = List::default();
        digest.update(&home.group.0.to_le_bytes());
        count.digest = digest.finish().0;
        let name = self.names[usize::from(home.state)].0.clone();
        self.summary.add(&StateSummary { states: BTreeMap::from([(name, count)]) });
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(Bytes, Written, StateSummary)> {
        self.close_part()?;
        let (last, written) = self.writer.finish()?;
        Ok((last, written, self.summary))
    }
}
