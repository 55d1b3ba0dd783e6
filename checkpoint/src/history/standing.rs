//! What holds after a record: all that an attempt needs in order to start, restated by every record. [`Standing::after`]
//! is the one place that says what each kind of record changes, and refuses records that contradict what holds.

use serde::{Deserialize, Serialize};
use types::{
    AttemptId, CheckpointId, Digest, Error, JobId, Lineage, MaxParallelism, RecordNumber, Result,
    SnapshotFile, Timestamp, Uid,
};

use super::{
    Instance,
    record::{AttemptStart, CheckpointKind, Completion, EndKind, GarbageMark, Kind, Savepoint},
};
use crate::storage::paths::{self, PathKind};

/// How many completed savepoints are remembered, for listings: they belong to the user and nothing depends on them.
const SAVEPOINTS_REMEMBERED: usize = 16;

/// What holds after a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// The job's name.
    pub job_name: String,
    /// The job.
    pub job: JobId,
    /// Its max parallelism.
    pub max_parallelism: MaxParallelism,
    /// The last attempt: the only one that may append.
    pub attempt: Attempt,
    /// The highest number a checkpoint of this history, or one that it started from, ever had; 0 if there was none.
    pub highest_checkpoint: CheckpointId,
    /// The completed checkpoints that are retained, oldest first.
    pub completed: Vec<CompletedCheckpoint>,
    /// Those of them whose sinks are not known to have committed, oldest first.
    pub unconfirmed: Vec<CheckpointId>,
    /// Revoked checkpoints, until a later one is confirmed: the sinks may not have been told yet.
    pub revoked: Vec<CheckpointId>,
    /// The newest savepoints.
    pub savepoints: Vec<Savepoint>,
    /// Garbage marks whose files may not be gone yet, oldest first.
    pub garbage: Vec<OpenMark>,
    /// How the last attempt ended, if it is known to have.
    pub end: Option<End>,
}

/// One deployment of the job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of its start record.
    pub id: AttemptId,
    /// Its line of history.
    pub lineage: Lineage,
    /// Its process.
    pub instance: Instance,
    /// Its process, for people.
    pub process: String,
    /// The job's parallelism.
    pub parallelism: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// What it restores: pinned until its first completed checkpoint.
    pub restores: Restores,
    /// How its line of history began.
    pub origin: Origin,
}

/// How a line of history began, and what its user has accepted for it since: every attempt that goes on with it says it
/// again, so that nobody has to be asked twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// What its first attempt restored. Nothing of it is needed any more once that has completed a checkpoint.
    pub restored: Restores,
    /// How the user named that, if at all.
    pub named: Option<String>,
    /// Whether output of other lines may be beside its own.
    pub accepts_foreign_output: bool,
    /// Operators whose state was dropped, in their order.
    pub dropped: Vec<Uid>,
}

/// What an attempt restores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Restores {
    /// Nothing: a fresh start.
    #[default]
    Empty,
    /// A checkpoint of this history.
    Own(CompletedCheckpoint),
    /// A snapshot that the job does not own; it is copied before use.
    Foreign(ForeignSnapshot),
}

/// A completed checkpoint of this history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CompletedCheckpoint {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// The attempt that took it.
    pub attempt: AttemptId,
    /// Its line of history.
    pub lineage: Lineage,
    /// Its manifest.
    pub manifest: SnapshotFile,
    /// Why it was taken.
    pub kind: CheckpointKind,
    /// When it was completed.
    pub completed_at: Timestamp,
}

/// A snapshot outside the checkpoint directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForeignSnapshot {
    /// The URL of the directory.
    pub url: String,
    /// Its manifest, relative to `url`.
    pub manifest: SnapshotFile,
    /// The number of the checkpoint that it is, or is a copy of.
    pub checkpoint: CheckpointId,
    /// The max parallelism of the job that took it.
    pub max_parallelism: MaxParallelism,
}

/// A garbage mark that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenMark {
    /// The number of the record that made it.
    pub number: RecordNumber,
    /// What is to be deleted.
    pub files: Vec<String>,
}

/// How and when an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub kind: EndKind,
    /// When.
    pub at: Timestamp,
    /// All checkpoints of the job were given up after it: the next start has nothing to go on from.
    pub gave_up: bool,
}

impl Standing {
    /// The standing after a record of `kind` with this number, `before` being that of the record below it.
    ///
    /// # Errors
    /// `Internal` if `kind` contradicts what holds.
    pub fn after(before: Option<&Self>, number: RecordNumber, at: Timestamp, kind: &Kind) -> Result<Self> {
        let mut standing = match (before, kind) {
            (None, Kind::AttemptStarted(start)) => return Ok(Self::first(number, at, start)),
            (None, _) => return Err(Error::internal("a history begins with the start of an attempt")),
            (Some(before), _) => before.clone(),
        };
        standing
            .apply(number, at, kind)
            .map_err(|what| Error::internal(format!("history record {number} ({}): {what}", kind.name())))?;
        Ok(standing)
    }

    fn first(number: RecordNumber, at: Timestamp, start: &AttemptStart) -> Self {
        Self {
            job_name: start.job_name.clone(),
            job: start.job,
            max_parallelism: start.max_parallelism,
            attempt: Attempt::new(number, at, start),
            highest_checkpoint: start.restores.checkpoint().unwrap_or_default(),
            completed: Vec::new(),
            unconfirmed: Vec::new(),
            revoked: Vec::new(),
            savepoints: Vec::new(),
            garbage: Vec::new(),
            end: None,
        }
    }

    fn apply(&mut self, number: RecordNumber, at: Timestamp, kind: &Kind) -> Result<(), String> {
        let may_follow = match kind {
            Kind::AttemptStarted(_) | Kind::GarbageDone(_) => true,
            // Nothing of an attempt that has ended is given up by what lists no checkpoint.
            Kind::GarbageMarked(mark) => mark.checkpoints.is_empty() || self.may_give_up(),
            _ => false,
        };
        if let Some(end) = self.end.as_ref().filter(|_| !may_follow) {
            return Err(format!("the attempt has {} already", end.kind.name()));
        }
        match kind {
            Kind::AttemptStarted(start) => self.start(number, at, start),
            Kind::CheckpointCompleted(completion) => self.complete(at, completion),
            Kind::SinksConfirmed(checkpoint) => self.confirm(*checkpoint),
            Kind::SavepointCompleted(savepoint) => {
                self.savepoints.push(savepoint.clone());
                let excess = self.savepoints.len().saturating_sub(SAVEPOINTS_REMEMBERED);
                self.savepoints.drain(..excess);
                Ok(())
            }
            Kind::Revoked(checkpoint) => self.revoke(*checkpoint),
            Kind::GarbageMarked(mark) => self.mark(number, mark),
            Kind::GarbageDone(mark) => {
                let open = self.garbage.len();
                self.garbage.retain(|open| open.number != *mark);
                require(self.garbage.len() < open, || format!("garbage mark {mark} is not open"))
            }
            Kind::Ended(kind) => {
                self.end = Some(End { kind: kind.clone(), at, gave_up: false });
                Ok(())
            }
        }
    }

    fn start(&mut self, number: RecordNumber, at: Timestamp, start: &AttemptStart) -> Result<(), String> {
        require(self.job == start.job && self.job_name == start.job_name, || "it is another job's".into())?;
        if let Restores::Own(own) = &start.restores {
            let gone = || format!("checkpoint {} is not retained and cannot be restored", own.checkpoint);
            require(self.retains(own), gone)?;
        }
        self.max_parallelism = start.max_parallelism;
        self.attempt = Attempt::new(number, at, start);
        self.highest_checkpoint =
            self.highest_checkpoint.max(start.restores.checkpoint().unwrap_or_default());
        self.unconfirmed.retain(|checkpoint| !start.abandons.contains(checkpoint));
        self.end = None;
        Ok(())
    }

    fn complete(&mut self, at: Timestamp, completion: &Completion) -> Result<(), String> {
        let (checkpoint, highest) = (completion.checkpoint, self.highest_checkpoint);
        require(checkpoint > highest, || format!("checkpoint {checkpoint} is not above {highest}"))?;
        self.highest_checkpoint = checkpoint;
        self.unconfirmed.push(checkpoint);
        self.completed.push(CompletedCheckpoint {
            checkpoint,
            attempt: self.attempt.id,
            lineage: self.attempt.lineage,
            manifest: completion.manifest.clone(),
            kind: completion.kind,
            completed_at: at,
        });
        Ok(())
    }

    fn confirm(&mut self, checkpoint: CheckpointId) -> Result<(), String> {
        require(self.unconfirmed.contains(&checkpoint), || {
            format!("checkpoint {checkpoint} is not waiting for its sinks")
        })?;
        self.unconfirmed.retain(|&waiting| waiting > checkpoint);
        self.revoked.retain(|&revoked| revoked > checkpoint);
        Ok(())
    }

    fn revoke(&mut self, checkpoint: CheckpointId) -> Result<(), String> {
        let newest = self.completed.pop_if(|newest| newest.checkpoint == checkpoint);
        require(newest.is_some(), || format!("checkpoint {checkpoint} is not the newest"))?;
        self.unconfirmed.retain(|&waiting| waiting != checkpoint);
        self.revoked.push(checkpoint);
        Ok(())
    }

    fn mark(&mut self, number: RecordNumber, mark: &GarbageMark) -> Result<(), String> {
        for &checkpoint in &mark.checkpoints {
            require(!self.needs(checkpoint), || format!("checkpoint {checkpoint} is still needed"))?;
            let retained = self.completed.len();
            self.completed.retain(|completed| completed.checkpoint != checkpoint);
            require(self.completed.len() < retained, || format!("checkpoint {checkpoint} is not retained"))?;
        }
        if self.may_give_up()
            && !mark.checkpoints.is_empty()
            && let Some(end) = &mut self.end
        {
            require(self.completed.is_empty(), || "a part of the checkpoints cannot be given up".into())?;
            end.gave_up = true;
            // Nothing of this line of history can go on: the next start begins another one.
            self.attempt.restores = Restores::Empty;
            self.attempt.origin = Origin::default();
            self.revoked.clear();
        }
        check_garbage(&mark.files)?;
        self.garbage.push(OpenMark { number, files: mark.files.clone() });
        Ok(())
    }

    /// Whether the job was cancelled or has failed: nothing runs, and its user may want no checkpoint of it any more.
    #[must_use]
    pub fn may_give_up(&self) -> bool {
        let given_up = |end: &End| matches!(end.kind, EndKind::Cancelled | EndKind::Failed(_));
        self.end.as_ref().is_some_and(given_up)
    }

    /// Whether all checkpoints of a job that was cancelled or has failed were given up: the next start has nothing to go
    /// on from.
    #[must_use]
    pub fn starts_over(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.gave_up)
    }

    /// Whether what was prepared for this checkpoint is committed for sure: a later one of its line of history, or itself,
    /// is confirmed.
    #[must_use]
    pub fn has_committed(&self, lineage: Lineage, checkpoint: CheckpointId) -> bool {
        let confirmed = |it: &CompletedCheckpoint| !self.unconfirmed.contains(&it.checkpoint);
        let mut since =
            self.completed.iter().filter(|it| it.lineage == lineage && it.checkpoint >= checkpoint);
        since.any(confirmed)
    }

    /// The newest confirmed checkpoint, while later ones are not: it tells what of theirs is committed already.
    fn floor(&self) -> Option<&CompletedCheckpoint> {
        let oldest = *self.unconfirmed.first()?;
        self.completed.iter().rfind(|it| it.checkpoint < oldest)
    }

    /// Whether a checkpoint must be retained whatever the settings say: one whose sinks are not confirmed, and, unless
    /// the job was cancelled or has failed, the one before those, the newest, and one that the last attempt restores.
    #[must_use]
    pub fn needs(&self, checkpoint: CheckpointId) -> bool {
        if self.may_give_up() {
            return self.unconfirmed.contains(&checkpoint);
        }
        let restored = |restores: &Restores| match restores {
            Restores::Own(own) => own.checkpoint == checkpoint,
            Restores::Empty | Restores::Foreign(_) => false,
        };
        self.unconfirmed.contains(&checkpoint)
            || self.floor().is_some_and(|floor| floor.checkpoint == checkpoint)
            || self.completed.last().is_some_and(|newest| newest.checkpoint == checkpoint)
            || self.pinned().is_some_and(|pinned| pinned.checkpoint == checkpoint)
            || restored(&self.restore_point())
    }

    /// What a continuation restores: the newest checkpoint of the current line of history, else what its first attempt
    /// restored.
    #[must_use]
    pub fn restore_point(&self) -> Restores {
        let newest = self.completed.iter().rfind(|completed| completed.lineage == self.attempt.lineage);
        newest.map_or_else(|| self.attempt.restores.clone(), |newest| Restores::Own(newest.clone()))
    }

    /// Whether the last attempt's line of history began from the snapshot whose manifest has this digest: that is a snapshot's
    /// identity, wherever it lies and however its place is written.
    #[must_use]
    pub fn began_from(&self, manifest: Digest) -> bool {
        let restored = self.attempt.origin.restored.manifest();
        restored.is_some_and(|restored| restored.digest == manifest)
    }

    /// The own checkpoint that the last attempt restores, until it has completed one itself.
    #[must_use]
    pub fn pinned(&self) -> Option<&CompletedCheckpoint> {
        let completed_one = self.completed.iter().any(|completed| completed.attempt == self.attempt.id);
        match &self.attempt.restores {
            Restores::Own(own) if !completed_one => Some(own),
            _ => None,
        }
    }

    /// The retained checkpoint with this number.
    #[must_use]
    pub fn checkpoint(&self, checkpoint: CheckpointId) -> Option<&CompletedCheckpoint> {
        self.completed.iter().find(|completed| completed.checkpoint == checkpoint)
    }

    /// Whether this checkpoint is retained: no garbage mark has listed it.
    pub(super) fn retains(&self, own: &CompletedCheckpoint) -> bool {
        self.checkpoint(own.checkpoint) == Some(own)
    }

    /// Every own checkpoint whose files must be there: the retained ones and the pinned one, oldest first.
    #[must_use]
    pub fn held(&self) -> Vec<&CompletedCheckpoint> {
        let pinned = self.pinned().filter(|pinned| self.checkpoint(pinned.checkpoint).is_none());
        pinned.into_iter().chain(&self.completed).collect()
    }

    /// What is true of every standing that is read.
    pub(super) fn check(&self) -> Result<(), String> {
        let numbers = || self.completed.iter().map(|completed| completed.checkpoint);
        require(numbers().is_sorted_by(|a, b| a < b), || "its checkpoints are not in order".into())?;
        require(numbers().next_back() <= Some(self.highest_checkpoint), || {
            "a checkpoint is too high".into()
        })?;
        let waiting = &self.unconfirmed;
        require(waiting.is_sorted_by(|a, b| a < b), || {
            "its unconfirmed checkpoints are not in order".into()
        })?;
        let known = |checkpoint| self.checkpoint(checkpoint).is_some();
        require(waiting.iter().all(|&waiting| known(waiting)), || {
            "an unconfirmed checkpoint is unknown".into()
        })?;
        let nothing_left = || self.completed.is_empty() && self.attempt.restores == Restores::Empty;
        require(!self.starts_over() || (self.may_give_up() && nothing_left()), || {
            "it gave up what it has".into()
        })?;
        let bad = self.held().into_iter().find(|held| !paths::is_well_formed(&held.manifest.path));
        require(bad.is_none(), || "the path of a manifest is not allowed".into())?;
        self.garbage.iter().try_for_each(|mark| check_garbage(&mark.files))
    }
}

/// Only files of attempts are ever marked: a damaged mark must not delete the history.
fn check_garbage(files: &[String]) -> Result<(), String> {
    let stray = files
        .iter()
        .find(|path| !paths::is_well_formed(path) || !matches!(paths::kind(path), PathKind::Attempt(_)));
    let shown = |path: &String| path.chars().take(100).collect::<String>();
    stray
        .map(shown)
        .map_or(Ok(()), |path| Err(format!("{path:?} is no file of an attempt and cannot be garbage")))
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Attempt {
    fn new(number: RecordNumber, at: Timestamp, start: &AttemptStart) -> Self {
        Self {
            id: AttemptId(number.0),
            lineage: start.lineage,
            instance: start.instance,
            process: start.process.clone(),
            parallelism: start.parallelism,
            started_at: at,
            restores: start.restores.clone(),
            origin: start.origin.clone(),
        }
    }
}

impl Restores {
    /// The number of the checkpoint that is restored.
    #[must_use]
    pub fn checkpoint(&self) -> Option<CheckpointId> {
        match self {
            Self::Empty => None,
            Self::Own(own) => Some(own.checkpoint),
            Self::Foreign(foreign) => Some(foreign.checkpoint),
        }
    }

    /// The manifest of what is restored.
    #[must_use]
    pub fn manifest(&self) -> Option<&SnapshotFile> {
        match self {
            Self::Empty => None,
            Self::Own(own) => Some(&own.manifest),
            Self::Foreign(foreign) => Some(&foreign.manifest),
        }
    }
}
