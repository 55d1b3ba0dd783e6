//! Which copies there are, and which go. Pure: who calls touches the disk.
//!
//! Invariant: what is there or being written never takes more than the limit.

use std::collections::{BTreeMap, BTreeSet};

use types::{AttemptId, CheckpointId};

use crate::storage::paths::{self, PathKind};

/// What a copy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A file that is being written: older copies make room for it.
    Written,
    /// A file of the checkpoint that is being restored: no copy makes room for it, since a restore needs all that there are.
    Fetched,
}

/// The copies of one job on one machine.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    limit: u64,
    bytes: u64,
    attempt: AttemptId,
    restored: CheckpointId,
    files: BTreeMap<String, LocalCopy>,
    /// Counts the copies.
    made: u64,
}

#[derive(Clone, Debug)]
struct LocalCopy {
    len: u64,
    /// Whether it is whole.
    is_whole: bool,
    /// The newest checkpoint that lists it; one that none has listed yet is about to be.
    listed: Option<CheckpointId>,
    /// Its place among all copies, by age.
    made: u64,
}

impl LocalCopy {
    /// The least goes first: what only old checkpoints need, and of that the oldest.
    fn rank(&self) -> (bool, Option<CheckpointId>, u64) {
        (self.listed.is_none(), self.listed, self.made)
    }
}

impl Copies {
    /// None, of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The bytes that they take, those that are reserved included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is a whole copy of the file.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.files.get(path).is_some_and(|copy| copy.is_whole)
    }

    /// A whole copy was found on the disk.
    pub fn found(&mut self, path: String, len: u64) {
        let made = self.next();
        self.bytes += len;
        self.files.insert(path, LocalCopy { len, is_whole: true, listed: None, made });
    }

    /// An attempt begins with checkpoint `restored`, which lists `named`. All other copies go, and those for which there is
    /// no room (the limit may have been greater); they come back.
    pub fn begin<'a>(
        &mut self,
        attempt: AttemptId,
        restored: CheckpointId,
        named: impl Iterator<Item = &'a str>,
    ) -> Vec<String> {
        (self.attempt, self.restored) = (attempt, restored);
        let named: BTreeSet<&str> = named.collect();
        for copy in self.files.values_mut() {
            copy.listed = None;
        }
        for path in &named {
            self.listed(restored, path);
        }
        let mut gone = self.drop_where(|path, _| !named.contains(path));
        gone.extend(self.make_room(0).unwrap_or_default());
        gone
    }

    /// A checkpoint lists a file.
    pub fn listed(&mut self, checkpoint: CheckpointId, path: &str) {
        if let Some(copy) = self.files.get_mut(path) {
            copy.listed = copy.listed.max(Some(checkpoint));
        }
    }

    /// A checkpoint is in the history, so that no older one will be restored. The copies that go come back.
    pub fn completed(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        let attempt = self.attempt;
        self.drop_where(|path, copy| match copy.listed {
            Some(listed) => listed < checkpoint,
            // An older attempt's, that was written for longer than that lived.
            None => !is_of(attempt, path),
        })
    }

    /// Whether a file that is being written is to be copied: those of the living attempt.
    #[must_use]
    pub fn wants(&self, path: &str) -> bool {
        is_of(self.attempt, path) && !self.files.contains_key(path)
    }

    /// Makes room for so many more bytes of a copy that is being made. The copies that must go for it come back; `None` if
    /// there is no room.
    pub fn reserve(&mut self, path: &str, bytes: u64, purpose: Purpose) -> Option<Vec<String>> {
        let listed = (purpose == Purpose::Fetched).then_some(self.restored);
        if listed.is_some() && self.bytes.saturating_add(bytes) > self.limit {
            return None;
        }
        let gone = self.make_room(bytes)?;
        let made = self.next();
        let copy = LocalCopy { len: 0, is_whole: false, listed, made };
        self.files.entry(path.to_owned()).or_insert(copy).len += bytes;
        self.bytes += bytes;
        Some(gone)
    }

    /// A copy is whole.
    pub fn written(&mut self, path: &str) {
        if let Some(copy) = self.files.get_mut(path) {
            copy.is_whole = true;
        }
    }

    /// There is no such copy any more, or it will not be finished.
    pub fn forget(&mut self, path: &str) {
        if let Some(copy) = self.files.remove(path) {
            self.bytes -= copy.len;
        }
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn drop_where(&mut self, goes: impl Fn(&str, &LocalCopy) -> bool) -> Vec<String> {
        // What is being written is given up by its writer alone.
        let gone = self.files.iter().filter(|(path, copy)| copy.is_whole && goes(path, copy));
        let gone: Vec<String> = gone.map(|(path, _)| path.clone()).collect();
        gone.iter().for_each(|path| self.forget(path));
        gone
    }

    /// `None` if even without all that may go there would be no room; then all stays.
    fn make_room(&mut self, bytes: u64) -> Option<Vec<String>> {
        let being_written: u64 = self.files.values().filter(|copy| !copy.is_whole).map(|copy| copy.len).sum();
        if being_written.saturating_add(bytes) > self.limit {
            return None;
        }
        let mut whole: Vec<_> = self.files.iter().filter(|(_, copy)| copy.is_whole).collect();
        whole.sort_by_key(|(_, copy)| copy.rank());
        let (mut left, mut gone) = (self.bytes, Vec::new());
        for (path, copy) in whole {
            if left + bytes <= self.limit {
                break;
            }
            left -= copy.len;
            gone.push(path.clone());
        }
        gone.iter().for_each(|path| self.forget(path));
        Some(gone)
    }
}

fn is_of(attempt: AttemptId, path: &str) -> bool {
    paths::kind(path) == PathKind::Attempt(attempt)
}
