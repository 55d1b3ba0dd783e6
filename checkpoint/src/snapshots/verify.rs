//! Whether a directory is whole, file by file: every record, manifest and snapshot file is there with its length and
//! digest. Never stops at the first problem. The job may run meanwhile. What lies inside the runs is the state backend's to check.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use env::{Env, Store, StoreEntry};
use types::{DigestBuilder, Error, ErrorKind, RecordNumber, Result, SnapshotFile};

use crate::{
    history::{Milestones, Record, Records, Standing},
    manifest::{self, Manifest},
    savepoint::SnapshotLocation,
    storage::{
        paths::{self, PathKind},
        retry::Retry,
    },
};

/// How much is read at once, in bytes.
const PIECE: u64 = 4 << 20;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is needed and is missing or not what was written.
    Needed,
    /// Nothing is lost: the file may be missing, or nobody reads it, or it should not be there and does no harm.
    MayBeMissing,
}

/// A file with something wrong about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as a path below the directory.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// What was verified, and what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// History records that were read.
    pub records: usize,
    /// Manifests that were read and are whole, by path; whoever verifies deeper goes on from here.
    pub manifests: BTreeMap<String, Arc<Manifest>>,
    /// What holds in a checkpoint directory, after the newest record that can be read.
    pub standing: Option<Standing>,
    /// Snapshot files whose bytes were compared with their digest.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is wrong, what matters first.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether everything that is needed is there and as it was written.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity != Severity::Needed)
    }

    fn problem(&mut self, severity: Severity, file: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { severity, file: file.into(), what: what.into() });
    }
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of snapshot files compared so far.
    pub bytes: u64,
    /// Bytes to compare in all.
    pub total: u64,
}

/// What there is to verify in a directory: what stands above the snapshot files was read, the files themselves were not.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// What was read, and what is wrong about it.
    pub report: Report,
    /// The snapshot files that it names, by path.
    pub files: BTreeMap<String, SnapshotFile>,
}

/// Reads what stands above the snapshot files in the directory behind `store`. For those who look into the files themselves
/// with [`check_file`] or deeper, several at once; what is wrong then is wrong only if it is [`needed`] still.
///
/// # Errors
/// As [`verify`].
pub async fn survey(env: &Env, store: Arc<dyn Store>) -> Result<Survey> {
    let mut verification = Verification::new(env, store).await?;
    let files = verification.files().await?;
    Ok(Survey { report: verification.report, files })
}

/// Verifies the directory behind `store`; `progress` is called after each piece of a file.
///
/// # Errors
/// `InvalidJob` if it is neither a checkpoint nor a savepoint directory; `Retryable` or `Unavailable` if the store cannot
/// be read. Damage is no error but a [`Problem`].
pub async fn verify(
    env: &Env,
    store: Arc<dyn Store>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report> {
    let mut verification = Verification::new(env, store).await?;
    let files = verification.files().await?;
    verification.compare(files, progress).await?;
    let mut report = verification.report;
    if !report.is_whole() {
        let needed = needed(env, verification.store).await?;
        report.problems.retain(|it| it.severity != Severity::Needed || needed.contains(&it.file));
    }
    report.problems.sort();
    Ok(report)
}

/// The files that are needed as the history is now, in the directory behind `store`: those that are there, and those
/// that should be. A job that runs collects files while they are verified: what was missing then is wrong only if it is
/// needed still.
///
/// # Errors
/// As [`verify`].
pub async fn needed(env: &Env, store: Arc<dyn Store>) -> Result<BTreeSet<String>> {
    let mut verification = Verification::new(env, store).await?;
    let files = verification.files().await?;
    let problems = verification.report.problems.into_iter();
    let wrong = problems.filter(|problem| problem.severity == Severity::Needed).map(|problem| problem.file);
    Ok(files.into_keys().chain(wrong).collect())
}

struct Verification<'a> {
    env: &'a Env,
    store: Arc<dyn Store>,
    listing: Vec<StoreEntry>,
    report: Report,
}

impl<'a> Verification<'a> {
    async fn new(env: &'a Env, store: Arc<dyn Store>) -> Result<Self> {
        let listing = Retry::STORE.run(env, "list files", || store.list("")).await?;
        Ok(Self { env, store, listing, report: Report::default() })
    }

    /// Reads what stands above the snapshot files, and gives the files.
    async fn files(&mut self) -> Result<BTreeMap<String, SnapshotFile>> {
        if self.lists(paths::SAVEPOINT_MANIFEST) { self.savepoint().await } else { self.job().await }
    }

    fn lists(&self, path: &str) -> bool {
        self.listing.binary_search_by(|entry| entry.path.as_str().cmp(path)).is_ok()
    }

    /// A savepoint directory: its manifest and the files that it names.
    async fn savepoint(&mut self) -> Result<BTreeMap<String, SnapshotFile>> {
        let manifest_path = paths::SAVEPOINT_MANIFEST;
        let found = SnapshotLocation::savepoint(self.env, &self.store).await;
        let Some(found) = self.damage(manifest_path, found)?.flatten() else {
            return Ok(BTreeMap::new());
        };
        let files = files_of(&found.manifest);
        self.report.manifests.insert(manifest_path.into(), found.manifest);
        for entry in &self.listing {
            if entry.path != manifest_path && !files.contains_key(&entry.path) {
                let what = "does not belong to the savepoint";
                self.report.problem(Severity::MayBeMissing, &entry.path, what);
            }
        }
        Ok(files)
    }

    /// A checkpoint directory: the history, the manifests that it holds, the files that they name.
    async fn job(&mut self) -> Result<BTreeMap<String, SnapshotFile>> {
        let records = Records::new(self.env, Arc::clone(&self.store));
        let Some(newest) = self.history(&records).await? else {
            return Ok(BTreeMap::new());
        };
        let mut files = BTreeMap::new();
        for held in newest.standing.held() {
            let path = &held.manifest.path;
            let read = manifest::read(self.env, &*self.store, &held.manifest).await;
            if let Some(manifest) = self.damage(path, read)? {
                files.append(&mut files_of(&manifest));
                self.report.manifests.insert(path.clone(), Arc::new(manifest));
            }
        }
        self.strays(&newest.standing, &files);
        self.report.standing = Some(newest.standing.clone());
        Ok(files)
    }

    /// Reads every record that should be there; returns the newest that can be read.
    async fn history(&mut self, records: &Records) -> Result<Option<Record>> {
        let listed: BTreeSet<_> =
            self.listing.iter().filter_map(|entry| paths::record_number(&entry.path)).collect();
        let hint = records.hint().await?;
        let named = hint.as_ref().ok().copied();
        if listed.is_empty() && named.is_none() {
            let url = self.store.url();
            return Err(Error::invalid_job(format!("{url} holds neither checkpoints nor a savepoint")));
        }
        if let Err(error) = &hint {
            self.report.problem(Severity::MayBeMissing, paths::LATEST, error.to_string());
        }
        if let Some(named) = named.filter(|named| listed.last() < Some(named)) {
            let what = format!("the history record is missing: {} says that it existed", paths::LATEST);
            self.report.problem(Severity::Needed, paths::record(named), what);
        }
        let mut newest = None;
        for number in expected_records(records.milestones(), &listed) {
            let path = paths::record(number);
            match records.read(number).await {
                Ok(Some(record)) => {
                    self.report.records += 1;
                    newest = Some(record);
                }
                Ok(None) => {
                    let what =
                        "the history record is missing: a process that was taken over could write it anew";
                    self.report.problem(Severity::Needed, path, what);
                }
                // The newest record restates what holds. Of the others it matters that they are there.
                Err(error) if error.kind() == ErrorKind::Corrupt && Some(&number) != listed.last() => {
                    self.report.problem(
                        Severity::MayBeMissing,
                        path,
                        format!("{error}; a start does not read it"),
                    );
                }
                other => {
                    self.damage(&path, other)?;
                }
            }
        }
        Ok(newest)
    }

    /// Files that nothing refers to.
    fn strays(&mut self, standing: &Standing, files: &BTreeMap<String, SnapshotFile>) {
        let manifests: BTreeSet<&str> =
            standing.held().iter().map(|held| held.manifest.path.as_str()).collect();
        let marked: BTreeSet<&String> = standing.garbage.iter().flat_map(|mark| &mark.files).collect();
        for entry in &self.listing {
            let path = &entry.path;
            let what = match paths::kind(path) {
                PathKind::Record(_) | PathKind::Aside => continue,
                PathKind::Attempt(_) if manifests.contains(path.as_str()) || files.contains_key(path) => {
                    continue;
                }
                PathKind::Attempt(_) if marked.contains(path) => {
                    "is marked as garbage and about to be deleted"
                }
                PathKind::Attempt(attempt) if attempt < standing.attempt.id => {
                    "is an orphan: no retained checkpoint refers to it"
                }
                PathKind::Attempt(_) => "belongs to the last attempt and to no completed checkpoint",
                PathKind::Unknown => "is not a file of Tidegate's",
            };
            self.report.problem(Severity::MayBeMissing, path, what);
        }
    }

    /// Compares the bytes of all files with their digests.
    async fn compare(
        &mut self,
        files: BTreeMap<String, SnapshotFile>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<()> {
        let total = files.values().map(|file| file.len).sum();
        let mut done = 0;
        for file in files.values() {
            let mut on_piece = |bytes| progress(Progress { bytes: done + bytes, total });
            match check_file(self.env, &*self.store, file, &mut on_piece).await? {
                None => {
                    self.report.files += 1;
                    self.report.bytes += file.len;
                }
                Some(what) => self.report.problem(Severity::Needed, &file.path, what),
            }
            done += file.len;
        }
        Ok(())
    }

    /// Notes damage as a problem and lets other errors through.
    fn damage<T>(&mut self, path: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.report.problem(Severity::Needed, path, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The records that must be there: those that are, all above the last milestone, and the first milestone that is not.
fn expected_records(milestones: Milestones, listed: &BTreeSet<RecordNumber>) -> BTreeSet<RecordNumber> {
    let Some(&last) = listed.last() else {
        return BTreeSet::new();
    };
    let living = milestones.at_or_below(last).0..=last.0;
    let mut milestone = RecordNumber(0);
    while milestone < last && listed.contains(&milestone) {
        milestone = milestones.above(milestone);
    }
    let gone = Some(milestone).filter(|milestone| *milestone < last);
    listed.iter().copied().chain(living.map(RecordNumber)).chain(gone).collect()
}

fn files_of(manifest: &Manifest) -> BTreeMap<String, SnapshotFile> {
    manifest.files().into_iter().map(|file| (file.path.clone(), file.clone())).collect()
}

/// What is wrong with a file that need not be read, if anything.
///
/// # Errors
/// `Retryable` or `Unavailable` if the store cannot be asked.
pub(crate) async fn check_len(env: &Env, store: &dyn Store, file: &SnapshotFile) -> Result<Option<String>> {
    Ok(match Retry::STORE.run(env, "read a file", || store.len(&file.path)).await? {
        None => Some("is missing".into()),
        Some(len) if len != file.len => Some(format!("has {len} bytes, expected {}", file.len)),
        Some(_) => None,
    })
}

/// What is wrong with a file as a whole, if anything; `on_piece` hears how many of its bytes are compared.
///
/// # Errors
/// `Retryable` or `Unavailable` if the store cannot be read.
pub async fn check_file(
    env: &Env,
    store: &dyn Store,
    file: &SnapshotFile,
    on_piece: &mut (dyn FnMut(u64) + Send),
) -> Result<Option<String>> {
    if let Some(what) = check_len(env, store, file).await? {
        return Ok(Some(what));
    }
    let mut digest = DigestBuilder::default();
    let mut at = 0;
    while at < file.len {
        let end = file.len.min(at + PIECE);
        let piece = Retry::STORE.run(env, "read a file", || store.get_range(&file.path, at..end)).await?;
        let Some(piece) = piece.filter(|piece| piece.len() as u64 == end - at) else {
            return Ok(Some("changed while it was read".into()));
        };
        digest.update(&piece);
        at = end;
        on_piece(at);
    }
    let found = digest.finish();
    Ok((found != file.digest).then(|| format!("is damaged: its digest is {found}, expected {}", file.digest)))
}
