//! The output directory of a file sink: who owns it, and how files get from `.pending` to their readers.
//!
//! ```text
//! DIR/.tidegate              whose directory this is: one job, one sink
//! DIR/.pending/open-...      being written
//! DIR/.pending/part-...      prepared: whole and durable, waiting for its checkpoint
//! DIR/part-...               published: committed, never changed again
//! ```
//!
//! All calls block; the sink makes them away from the tasks. The invariant: a file gets its place under `part-...` by one
//! rename that never replaces anything, and only [`publish`](OutputDir::publish) renames there.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use engine::api::sink::{CommitOutcome, Marker, SinkContext, TransactionId};
use env::{Env, FaultPoint, FileKind, Files, WriteFile};
use serde::{Deserialize, Serialize};
use types::{AttemptId, CheckpointId, Digest, DigestBuilder, Error, ErrorKind, Lineage, Result, Uid};

use super::{
    naming::{self, PART, PENDING, PartName},
    owner::{Holder, Owner},
};

/// A whole file of a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedFile {
    /// Its length in bytes.
    pub len: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// What a checkpoint stores of a file sink's transaction. The names of the files follow from its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedFiles {
    /// The files, in the order in which they were written.
    pub files: Vec<PreparedFile>,
}

/// Where a file of a prepared transaction is.
enum Found {
    Pending,
    Published,
    /// Nowhere, or not as it was written. The text says what is lost.
    Lost(String),
}

pub(super) struct OutputDir {
    env: Env,
    files: Arc<dyn Files>,
    path: PathBuf,
    pending: PathBuf,
    owner: Owner,
    /// The names that the sink had before.
    formerly: Vec<Uid>,
    /// Whether a sync of the directory has failed in this process: what it should have made durable may be lost, though
    /// readers see it and later syncs report success.
    broken: Arc<AtomicBool>,
}

impl OutputDir {
    pub(super) fn new(path: &Path, context: &SinkContext, broken: &Arc<AtomicBool>) -> Self {
        // Whatever name a committer works under, the directory belongs to the present one.
        let mut names = context.names.iter().cloned();
        let sink = names.next().unwrap_or_else(|| context.uid.clone());
        Self {
            env: context.env.clone(),
            files: context.env.files(),
            path: path.to_owned(),
            pending: path.join(PENDING),
            owner: Owner::new(context.job, sink, &context.checkpoints),
            formerly: names.collect(),
            broken: Arc::clone(broken),
        }
    }

    /// Makes the directory if need be and takes it for this job and sink, durably; a renamed sink takes it over from its
    /// former name, and a job whose checkpoints have moved says where they are now.
    ///
    /// # Errors
    /// `Conflict` if it is another's, `Unavailable` if it cannot be made.
    pub(super) fn claim(&self, claimant: &str) -> Result<()> {
        let holder = self.owner.holder(&*self.files, &self.path, &self.formerly)?;
        if holder != Holder::This || self.look_at(&self.pending)?.is_none() {
            self.make()?;
        }
        match holder {
            Holder::This => Ok(()),
            Holder::Nobody => {
                self.owner.claim(&*self.files, &self.path, &self.pending, &self.formerly, claimant)?;
                self.sync_for_good(&self.path)
            }
            Holder::Before => {
                self.owner.take_over(&*self.files, &self.path, &self.pending, claimant)?;
                self.sync_for_good(&self.path)
            }
        }
    }

    fn make(&self) -> Result<()> {
        self.files.create_dir_all(&self.pending).map_err(|error| self.not_made(error))?;
        let dir = self.files.canonical(&self.path).map_err(|error| self.not_made(error))?;
        for above in dir.ancestors() {
            match self.files.sync_dir(above) {
                // Somebody else's directory, in which this process cannot have made anything.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) => {}
                other => other.map_err(|error| self.not_durable(above, error))?,
            }
        }
        Ok(())
    }

    /// Begins a file.
    pub(super) fn create_open(&self, name: &str) -> Result<Box<dyn WriteFile>> {
        let path = self.pending.join(name);
        self.files.create_new(&path).map_err(|error| failed("create", &path, error))
    }

    /// Names the place of a pending file in messages.
    pub(super) fn pending_place(&self, name: &str) -> String {
        self.pending.join(name).display().to_string()
    }

    /// Gives a whole, durable file the name under which it waits. Durable after [`sync_pending`](Self::sync_pending).
    pub(super) fn promote(&self, open: &str, name: &PartName) -> Result<()> {
        let from = self.pending.join(open);
        self.files
            .rename_new(&from, &self.pending.join(name.to_string()))
            .map_err(|error| not_renamed("rename", &from, error))
    }

    /// Makes the names in `.pending` durable.
    pub(super) fn sync_pending(&self) -> Result<()> {
        self.sync(&self.pending)
    }

    /// Publishes all files of a prepared transaction, in their order, durably. `known_good`: this process wrote them and
    /// nothing has been published yet, so they need not be read again.
    pub(super) fn publish(
        &self,
        id: &TransactionId,
        prepared: &PreparedFiles,
        known_good: bool,
    ) -> Result<CommitOutcome> {
        let names = || (0..).map(|place| PartName::new(id, place)).zip(&prepared.files);
        if !known_good {
            // Before the first file becomes visible, so that a transaction that cannot be whole is not begun.
            for (name, file) in names() {
                if let Found::Lost(text) = self.find(&name, file)? {
                    return Ok(CommitOutcome::Lost(text));
                }
            }
        }
        for (name, file) in names() {
            if let Some(lost) = self.publish_file(&name, file)? {
                return Ok(CommitOutcome::Lost(lost));
            }
        }
        // Also when another process published them: it may have died before it came to this.
        self.sync_for_good(&self.path)?;
        self.sync_emptied()?;
        Ok(CommitOutcome::Committed)
    }

    /// Publishes one file; returns what is lost if it cannot be.
    fn publish_file(&self, name: &PartName, file: &PreparedFile) -> Result<Option<String>> {
        let (from, to) = (self.pending.join(name.to_string()), self.path.join(name.to_string()));
        self.env.fault(FaultPoint::PublishBefore)?;
        match self.files.rename_new(&from, &to) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                match self.check_published(name, file)? {
                    Found::Published => self.remove(&from).map(drop)?,
                    Found::Lost(text) => return Ok(Some(text)),
                    Found::Pending => return Err(failed("publish", &from, error)),
                }
            }
            Err(error) => return Err(not_renamed("publish", &from, error)),
        }
        self.env.fault(FaultPoint::PublishAfter)?;
        Ok(None)
    }

    /// Whether every file of a prepared transaction is here as it was written, published or not.
    pub(super) fn holds(&self, id: &TransactionId, prepared: &PreparedFiles) -> Result<bool> {
        for (place, file) in prepared.files.iter().enumerate() {
            if let Found::Lost(_) = self.find(&PartName::new(id, place), file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn find(&self, name: &PartName, file: &PreparedFile) -> Result<Found> {
        let pending = self.pending.join(name.to_string());
        match self.digest(&pending)? {
            None => self.check_published(name, file),
            Some(found) if found == *file => Ok(Found::Pending),
            Some(found) => Ok(Found::Lost(differs(&pending, file, &found, "was prepared"))),
        }
    }

    fn check_published(&self, name: &PartName, file: &PreparedFile) -> Result<Found> {
        let path = self.path.join(name.to_string());
        Ok(match self.digest(&path)? {
            Some(found) if found == *file => Found::Published,
            Some(found) => Found::Lost(differs(&path, file, &found, "was committed")),
            None => Found::Lost(format!(
                "{name} of {} bytes is neither in {} nor in {PENDING} below it: it was removed before its checkpoint \
                 was committed by all sinks; put it back where it was",
                file.len,
                self.path.display()
            )),
        })
    }

    /// Removes the files of a transaction that is not published, so that nobody can publish it. `false`: it is
    /// published, at least in part, and nothing was removed.
    pub(super) fn withdraw(&self, id: &TransactionId, prepared: &PreparedFiles) -> Result<bool> {
        for place in 0..prepared.files.len() {
            let name = PartName::new(id, place).to_string();
            let published = || Ok::<_, Error>(self.look_at(&self.path.join(&name))?.is_some());
            // Files are published in their order: whoever removes the first one has shut out every other process.
            if published()? || (!self.remove(&self.pending.join(&name))? && published()?) {
                return Ok(false);
            }
        }
        self.sync_emptied()?;
        Ok(true)
    }

    /// Removes every file in `.pending` that an attempt before `attempt` left and that is in no transaction in `keep`.
    /// A rival that started later may be at work already: what is its own stays.
    pub(super) fn sweep(&self, attempt: AttemptId, keep: &[TransactionId]) -> Result<()> {
        let in_keep = |part: PartName| {
            keep.iter().any(|id| id.job == self.owner.job && self.is_named(&id.sink) && part.is_of(id))
        };
        let kept = |name: &str| {
            naming::attempt_of(name).is_some_and(|of| of >= attempt)
                || PartName::parse(name).is_some_and(in_keep)
        };
        for path in self.list(&self.pending)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if naming::is_pending(name) && !kept(name) {
                self.remove(&path)?;
            }
        }
        self.sync_emptied()
    }

    fn is_named(&self, sink: &Uid) -> bool {
        *sink == self.owner.sink || self.formerly.contains(sink)
    }

    /// The newest published checkpoint of each lineage.
    ///
    /// # Errors
    /// `Conflict` if the directory is another's, or nobody's and holds files that readers would take for ours.
    pub(super) fn held(&self) -> Result<Vec<Marker>> {
        let owned = self.owner.holder(&*self.files, &self.path, &self.formerly)? != Holder::Nobody;
        let mut newest: BTreeMap<Lineage, (CheckpointId, PathBuf)> = BTreeMap::new();
        for path in self.list(&self.path)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match PartName::parse(name) {
                Some(part) => {
                    let newest = newest.entry(part.lineage).or_insert((part.checkpoint, path.clone()));
                    if newest.0 < part.checkpoint {
                        *newest = (part.checkpoint, path);
                    }
                }
                None if name.starts_with(PART) && !owned => {
                    return Err(Error::conflict(format!(
                        "{} was not written by this sink, but readers of {PART}* would read it: empty the directory \
                         or choose another one",
                        path.display()
                    )));
                }
                None => {}
            }
        }
        let marker = |(lineage, (checkpoint, path)): (_, (_, PathBuf))| Marker {
            lineage,
            checkpoint,
            place: path.display().to_string(),
        };
        Ok(newest.into_iter().map(marker).collect())
    }

    /// What is in a directory; nothing if it is not there.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        match self.files.read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::invalid_job(format!(
                "the output {} is no directory: give an empty or a new one",
                self.path.display()
            ))),
            other => other.map_err(|error| failed("list", dir, error)),
        }
    }

    fn look_at(&self, path: &Path) -> Result<Option<FileKind>> {
        let meta = self.files.metadata(path).map_err(|error| failed("look at", path, error))?;
        Ok(meta.map(|meta| meta.kind))
    }

    /// Removes a file; `false` if there was none.
    fn remove(&self, path: &Path) -> Result<bool> {
        match self.files.remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", path, error)),
        }
    }

    /// Makes durable what was taken out of `.pending`. Where it is missing (a copy of the output may leave an empty
    /// directory out) nothing can come back.
    fn sync_emptied(&self) -> Result<()> {
        match self.files.sync_dir(&self.pending) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| failed("sync", &self.pending, error)),
        }
    }

    /// Makes what readers see durable. Once that has failed nothing is believed any more: a second sync would take what the
    /// first one has lost for its own success.
    fn sync_for_good(&self, dir: &Path) -> Result<()> {
        self.files.sync_dir(dir).map_err(|error| self.not_durable(dir, error))?;
        // One that failed beside this one may have lost what this one should have made durable.
        if self.broken.load(Ordering::Relaxed) {
            return Err(self.not_durable(dir, io::Error::other("an earlier sync failed")));
        }
        Ok(())
    }

    fn not_durable(&self, dir: &Path, error: io::Error) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        let place = format!(
            "cannot sync {}, so that what is in the output directory {} may not outlast a power failure: check the disk, \
             then start again",
            dir.display(),
            self.path.display()
        );
        // Trying again would succeed, and prove nothing.
        Error::io(place, error).with_kind(ErrorKind::Lost)
    }

    fn sync(&self, dir: &Path) -> Result<()> {
        self.files.sync_dir(dir).map_err(|error| failed("sync", dir, error))
    }

    /// Length and digest of a file; `None` if there is none.
    fn digest(&self, path: &Path) -> Result<Option<PreparedFile>> {
        match digest(&*self.files, path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path, error)),
        }
    }

    fn not_made(&self, error: io::Error) -> Error {
        let place = format!(
            "cannot make the output directory {}: mend its permissions or choose another one",
            self.path.display()
        );
        Error::io(place, error).with_kind(ErrorKind::Unavailable)
    }
}

fn digest(files: &dyn Files, path: &Path) -> io::Result<PreparedFile> {
    /// Bytes read at a time.
    const PIECE: usize = 1 << 20;
    let file = files.open(path)?;
    let (mut len, mut digest) = (0, DigestBuilder::default());
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.read_full(len, &mut piece)?;
        digest.update(&piece[..read]);
        len += read as u64;
        if read < PIECE {
            return Ok(PreparedFile { len, digest: digest.finish() });
        }
    }
}

fn differs(path: &Path, expected: &PreparedFile, found: &PreparedFile, past: &str) -> String {
    format!(
        "{} is not what {past}: expected {} bytes with digest {}, found {} bytes with digest {}",
        path.display(),
        expected.len,
        expected.digest,
        found.len,
        found.digest
    )
}

/// An error of an output file. A file or directory that is missing or in the way is the machine's doing, not bad input.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    let refused = matches!(error.kind(), NotFound | UnexpectedEof | NotADirectory | IsADirectory);
    let error = Error::io(format!("cannot {what} {}", path.display()), error);
    if refused { error.with_kind(ErrorKind::Unavailable) } else { error }
}

/// An error of a rename that must not replace anything, which not every file system can do.
pub(super) fn not_renamed(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{InvalidInput, Unsupported};
    if !matches!(error.kind(), InvalidInput | Unsupported) {
        return failed(what, path, error);
    }
    let place = format!(
        "cannot {what} {}: the file system cannot rename without replacing (NFS and CIFS cannot): choose an output \
         directory on a local one (ext4, XFS, Btrfs)",
        path.display()
    );
    // It never will.
    Error::io(place, error).with_kind(ErrorKind::InvalidJob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_cannot_rename_without_replacing_is_named_and_not_tried_again() {
        for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported] {
            let error = not_renamed("create", Path::new("/out/.tidegate"), kind.into());
            assert_eq!(error.kind(), ErrorKind::InvalidJob);
            assert!(error.message().starts_with("cannot create /out/.tidegate: the file system"), "{error}");
        }
        let full = not_renamed("create", Path::new("/out/.tidegate"), io::ErrorKind::StorageFull.into());
        assert_eq!(full.kind(), ErrorKind::Unavailable);
    }
}
