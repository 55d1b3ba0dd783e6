//! One record of the history and its file. Written by [`JobHistory`](super::JobHistory), read by everyone. A record that
//! is read is checked against its name and against itself before anything is done with it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{
    CheckpointId, Error, JobId, Lineage, MaxParallelism, RecordNumber, Result, SnapshotFile, Timestamp,
};

use super::{
    Instance,
    standing::{Origin, Restores, Standing},
};
use crate::storage::{envelope::Envelope, paths};

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"TGHIST\0\0", version: 2, what: "history record" };
pub(crate) const HINT: Envelope = Envelope { magic: *b"TGHINT\0\0", version: 1, what: "hint" };

/// Above any number that a history can reach, and far enough below the end of `u64` that arithmetic is safe.
pub(super) const HIGHEST: RecordNumber = RecordNumber(1 << 62);

/// A record of the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the log.
    pub number: RecordNumber,
    /// The wall-clock time at which it was written, for people.
    pub at: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// What holds after it.
    pub standing: Standing,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An attempt began; every older one is fenced.
    AttemptStarted(Box<AttemptStart>),
    /// The commit point of a checkpoint.
    CheckpointCompleted(Completion),
    /// All sinks have committed this checkpoint and every one before it.
    SinksConfirmed(CheckpointId),
    /// A savepoint is whole.
    SavepointCompleted(Savepoint),
    /// This checkpoint, the newest, will never be restored or committed again.
    Revoked(CheckpointId),
    /// Files that nothing refers to are about to be deleted.
    GarbageMarked(GarbageMark),
    /// The files of the garbage mark with this number are gone.
    GarbageDone(RecordNumber),
    /// The attempt ended.
    Ended(EndKind),
}

/// How an attempt begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptStart {
    /// The job's name.
    pub job_name: String,
    /// The job.
    pub job: JobId,
    /// Its max parallelism.
    pub max_parallelism: MaxParallelism,
    /// The line of history: kept by a continuation, new otherwise.
    pub lineage: Lineage,
    /// How that line began.
    pub origin: Origin,
    /// The process.
    pub instance: Instance,
    /// The process, for people: "pid 12 on host-a".
    pub process: String,
    /// The job's parallelism.
    pub parallelism: u32,
    /// What it restores.
    pub restores: Restores,
    /// Completed checkpoints whose pending transactions the user gave up.
    pub abandons: Vec<CheckpointId>,
}

/// A completed checkpoint, as the coordinator reports it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Completion {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Its manifest.
    pub manifest: SnapshotFile,
    /// Why it was taken.
    pub kind: CheckpointKind,
}

/// Why a checkpoint was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CheckpointKind {
    /// At its interval, or on request.
    Ordinary,
    /// To be copied to a savepoint.
    Savepoint,
    /// The last one before a stop.
    Stop,
    /// The last one, after all sources ended.
    Last,
}

/// A savepoint that was completed. It belongs to the user and may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Savepoint {
    /// The checkpoint that it is a copy of.
    pub checkpoint: CheckpointId,
    /// Where it is.
    pub url: String,
    /// Its manifest, relative to `url`.
    pub manifest: SnapshotFile,
}

/// Files that are about to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GarbageMark {
    /// The checkpoints that are retained no longer.
    pub checkpoints: Vec<CheckpointId>,
    /// Paths below the checkpoint directory.
    pub files: Vec<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndKind {
    /// All input was processed and committed: there is nothing left to do.
    Finished,
    /// Stopped on request, after a last checkpoint.
    Stopped,
    /// Cancelled on request.
    Cancelled,
    /// The restart strategy gave up, for this reason.
    Failed(String),
}

impl EndKind {
    /// One word for people and JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }
}

impl Kind {
    /// One word or two for people and JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AttemptStarted(_) => "attempt started",
            Self::CheckpointCompleted(_) => "checkpoint completed",
            Self::SinksConfirmed(_) => "sinks confirmed",
            Self::SavepointCompleted(_) => "savepoint completed",
            Self::Revoked(_) => "revoked",
            Self::GarbageMarked(_) => "garbage marked",
            Self::GarbageDone(_) => "garbage done",
            Self::Ended(end) => end.name(),
        }
    }
}

impl Record {
    /// The record that follows `before`, or the first of a new history.
    ///
    /// # Errors
    /// `Internal` if `kind` contradicts what holds.
    pub fn after(before: Option<&Self>, at: Timestamp, kind: Kind) -> Result<Self> {
        let number = RecordNumber(before.map_or(0, |record| record.number.0 + 1));
        let standing = Standing::after(before.map(|record| &record.standing), number, at, &kind)?;
        Ok(Self { number, at, kind, standing })
    }

    /// The bytes of the record's file.
    ///
    /// # Errors
    /// `Internal` if it is too long.
    pub fn encode(&self) -> Result<Bytes> {
        ENVELOPE.seal(self)
    }

    /// The record in the bytes of the file with this number.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not an intact record with this number, or a newer version wrote it.
    pub fn decode(number: RecordNumber, bytes: &[u8]) -> Result<Self> {
        let path = paths::record(number);
        let record: Self = ENVELOPE.open(&path, bytes)?;
        record.check(number).map_err(|what| {
            Error::corrupt(format!("history record {path} is damaged or not in its place: {what}"))
        })?;
        Ok(record)
    }

    /// The record in the bytes of a file, whatever its number.
    #[cfg(feature = "test-util")]
    pub(crate) fn decode_any(bytes: &[u8]) -> Result<Self> {
        let record: Self = ENVELOPE.open("of any number", bytes)?;
        Self::decode(record.number, bytes)
    }

    fn check(&self, number: RecordNumber) -> Result<(), String> {
        if self.number != number {
            return Err(format!("it is record {}", self.number));
        }
        if number > HIGHEST {
            return Err("no history is that long".into());
        }
        let attempt = self.standing.attempt.id.0;
        let is_start = matches!(self.kind, Kind::AttemptStarted(_));
        if attempt > number.0 || is_start != (attempt == number.0) {
            return Err(format!("attempt {attempt} cannot have written it"));
        }
        self.standing.check()
    }
}

/// The bytes of the hint that names record `number`.
///
/// # Errors
/// Never in practice; `Internal` as all encoding.
pub fn encode_hint(number: RecordNumber) -> Result<Bytes> {
    HINT.seal(&number)
}

/// The record that a hint names.
///
/// # Errors
/// `Corrupt` if it is damaged.
pub fn decode_hint(bytes: &[u8]) -> Result<RecordNumber> {
    let number = HINT.open(paths::LATEST, bytes)?;
    if number > HIGHEST {
        return Err(Error::corrupt(format!(
            "hint {} names record {number}: no history is that long",
            paths::LATEST
        )));
    }
    Ok(number)
}
