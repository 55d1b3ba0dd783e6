//! How snapshot files are described: what a state backend hands out, a manifest stores, and a reader checks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, JobId, KeyGroupRange, SubtaskIndex, Uid};

/// The xxh3-128 (seed 0) of a whole file: against damage, not against forgery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The digest of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct DigestBuilder(xxhash_rust::xxh3::Xxh3);

impl DigestBuilder {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(self.0.digest128())
    }
}

/// An immutable file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Its path below the checkpoint directory, with `/` between parts.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
    /// The digest of all its bytes.
    pub digest: Digest,
}

/// Who wrote a run file: stands in the file's footer and in the manifest, so that swapped files are noticed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The job.
    pub job: JobId,
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// The operator whose state it holds.
    pub operator: Uid,
    /// The subtask that wrote it.
    pub subtask: SubtaskIndex,
    /// Counts the runs of this subtask in this attempt, merged ones included, from 1 on.
    pub number: u64,
}

/// A run as a checkpoint lists it: a sorted file of cells, of which this checkpoint uses the key groups `groups`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The file.
    pub file: SnapshotFile,
    /// Who wrote it.
    pub identity: RunIdentity,
    /// The key groups that count; the file may hold more (after a change of parallelism).
    pub groups: KeyGroupRange,
    /// States in the file that do not count, sorted by name: the user has dropped them.
    pub without: Vec<String>,
    /// The entries in the file, tombstones included.
    pub entries: u64,
    /// The tombstones among them.
    pub tombstones: u64,
    /// The length of the entries before compression, in bytes.
    pub plain_bytes: u64,
}
