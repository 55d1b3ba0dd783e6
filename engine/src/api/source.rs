//! The contract of sources: splits with positions, read by one reader each. A source that keeps it is exactly-once.
//!
//! The JobManager asks [`Source::discover`] for the splits; each is assigned to one subtask, which opens a
//! [`SplitReader`] for it. At a barrier the runtime stores [`SplitReader::position`]; after a failure the reader is
//! opened again from there.

use std::{fmt::Debug, future::Future, path::Path};

use env::Env;
use serde::{Serialize, de::DeserializeOwned};
use types::{Result, SubtaskIndex, Timestamp, Uid};

use crate::record::BatchBuilder;

/// Whether a source ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundedness {
    /// Every split ends; when all have, the job takes a last checkpoint and finishes.
    Bounded,
    /// The job runs until it is stopped, even if every split has ended.
    Unbounded,
}

/// A part of a source with a position in it. Stored in checkpoints.
pub trait Split: Serialize + DeserializeOwned + Clone + Send + Sync + Debug + 'static {
    /// A name that is unique within the source and the same in every run.
    fn id(&self) -> String;

    /// Where it stands, for people: part of messages about what it reads.
    fn place(&self) -> String {
        self.id()
    }
}

/// What a source knows about where it runs.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The source's uid.
    pub uid: Uid,
    /// The way to the world.
    pub env: Env,
    /// The subtask that reads; 0 for discovery.
    pub subtask: SubtaskIndex,
    /// The source's parallelism.
    pub parallelism: u32,
}

/// A stream of records from outside, in splits.
pub trait Source: Clone + Send + Sync + 'static {
    /// The records.
    type Out: Send + 'static;
    /// The splits.
    type Split: Split;
    /// What reads one split.
    type Reader: SplitReader<Out = Self::Out, Split = Self::Split>;

    /// Whether the source ends.
    fn boundedness(&self) -> Boundedness;

    /// The greatest parallelism it can be read with; `None` if there is no limit.
    fn parallelism_limit(&self) -> Option<u32> {
        None
    }

    /// Checks the settings when the job is built, before anything runs.
    ///
    /// # Errors
    /// `InvalidJob`: what is wrong and what to write instead.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Where it reads, in words that are the same however the place was named: an absolute path, say. `None`: nowhere that
    /// could be confused. Checkpoints remember it, and a start that gives another place is refused, since the positions
    /// mean nothing there. Called once in each process, in the JobManager.
    ///
    /// # Errors
    /// As the outside says; the job does not start.
    fn place(&self, env: &Env) -> impl Future<Output = Result<Option<String>>> + Send {
        let _nowhere = env;
        std::future::ready(Ok(None))
    }

    /// Whether a start would read what is at `path`, a file or a directory, where the source is at `place`, as
    /// [`place`](Self::place) said: no job may write there.
    fn reads(&self, place: &str, path: &Path) -> bool {
        let _nothing = (place, path);
        false
    }

    /// A split as it is after everything at the place `from` has moved to `to`: what [`place`](Self::place) said when the
    /// snapshot was taken, and now. Called at a restore, when the user says so.
    ///
    /// # Errors
    /// `BadInput` if that cannot be told.
    fn moved(&self, split: Self::Split, from: &str, to: &str) -> Result<Self::Split> {
        let _places = (from, to);
        Ok(split)
    }

    /// Finds the splits. Called in the JobManager at a fresh start, not at a restore. Splits are sorted by id and
    /// assigned in that order.
    ///
    /// # Errors
    /// `BadInput` or `Unavailable`: the job does not start.
    fn discover(&self, context: &SourceContext) -> impl Future<Output = Result<Vec<Self::Split>>> + Send;

    /// Opens a split at its position.
    ///
    /// # Errors
    /// `BadInput` if the outside no longer holds what the position refers to (never skip, never start over).
    fn open(
        &self,
        split: Self::Split,
        context: &SourceContext,
    ) -> impl Future<Output = Result<Self::Reader>> + Send;
}

/// What a [`SplitReader::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// Read on.
    More,
    /// The split has ended; the reader is not called again.
    End,
}

/// Reads one split.
pub trait SplitReader: Send + 'static {
    /// The records.
    type Out: Send + 'static;
    /// The split.
    type Split: Split;

    /// Waits until there is something to read, then emits at most [`SourceOutput::room`] records.
    ///
    /// Must be cancel-safe: the returned future may be dropped at any await and the call made again; nothing may be
    /// lost or emitted twice. So emit only after the last await, and move the position together with the emission.
    ///
    /// # Errors
    /// `BadInput` names the split and the offset; `Retryable` restarts the job by its strategy.
    fn read(
        &mut self,
        out: &mut SourceOutput<'_, Self::Out>,
    ) -> impl Future<Output = Result<ReadStatus>> + Send;

    /// The split with the position after the last emitted record. Must be quick: called at each barrier.
    fn position(&self) -> Self::Split;
}

/// Where a reader puts its records.
pub struct SourceOutput<'a, T> {
    pub(crate) batch: &'a mut BatchBuilder<T>,
    pub(crate) limit: usize,
    pub(crate) byte_limit: usize,
}

impl<'a, T> SourceOutput<'a, T> {
    /// An output that takes at most `limit` records, and none once the bytes noted reach `byte_limit`.
    #[must_use]
    pub fn new(batch: &'a mut BatchBuilder<T>, limit: usize, byte_limit: usize) -> Self {
        Self { batch, limit, byte_limit }
    }

    /// How many more records may be emitted in this call. 0 also when the bytes noted reach the batch's limit.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        if self.batch.bytes() >= self.byte_limit { 0 } else { self.limit.saturating_sub(self.batch.len()) }
    }

    /// Emits a record without event time.
    #[inline]
    pub fn emit(&mut self, value: T) {
        self.batch.push(value, None);
    }

    /// Emits a record with its event time.
    #[inline]
    pub fn emit_at(&mut self, value: T, time: Timestamp) {
        self.batch.push(value, Some(time));
    }

    /// Notes that the emitted records hold `bytes` on the heap, so that channels are bounded by them.
    #[inline]
    pub fn add_bytes(&mut self, bytes: usize) {
        self.batch.add_bytes(bytes);
    }
}
