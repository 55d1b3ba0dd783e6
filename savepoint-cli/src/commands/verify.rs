//! `tidegate verify`: whether every byte that is needed is there and is what was written.
//!
//! What stands above the snapshot files first (records, manifests), then the files, several at once and each read once:
//! digest, and of a run identity, sections and blocks, with `--deep` every entry. Ends well only if every file that is needed
//! was read to its end and nothing in it is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use checkpoint::{
    history::{CompletedCheckpoint, EndKind, Restores, Standing, fallback},
    manifest::Manifest,
    savepoint::SnapshotLocation,
    snapshots::{self, Severity},
    storage::paths,
};
use env::{Env, Store};
use futures::{StreamExt, stream};
use serde::Serialize;
use statebackend::{VerifyReport, verify_file};
use types::{CheckpointId, Error, ErrorKind, Result, Run, SnapshotFile, count};

use crate::{
    format::bytes,
    offline::{Named, named},
    output::{Output, Report},
    progress::Bar,
};

/// So many files are read at once: enough to keep a few processors busy, and of each no more than two pieces are in memory.
const AT_ONCE: usize = 4;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A checkpoint or savepoint directory, or one snapshot of it.
    #[arg(value_name = "DIR|SNAPSHOT")]
    place: String,
    /// Decode every entry of every run, too.
    #[arg(long)]
    deep: bool,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let verification = match named(env, &args.place).await? {
        Named::Directory(store) => {
            let mut verification = Verification::of_directory(env, store).await?;
            verification.check_files(env, args.deep).await?;
            verification.judge_again(env).await?;
            verification
        }
        Named::Other => {
            let location = SnapshotLocation::resolve(env, &args.place).await?;
            let mut verification = Verification::of_snapshot(location);
            verification.check_files(env, args.deep).await?;
            verification
        }
    };
    let verified = verification.finish();
    output.show(&verified)?;
    if verified.whole {
        return Ok(());
    }
    let damaged = count(verified.problems.len(), "needed file");
    Err(Error::corrupt(format!("{}: {damaged} missing or damaged: {}", args.place, verified.what_now)))
}

/// What is shown.
#[derive(Serialize)]
struct Verified {
    /// Whether everything that is needed is there and right.
    whole: bool,
    /// History records that were read.
    records: u64,
    manifests: u64,
    /// Snapshot files of which every byte was compared with their digests, and their bytes.
    files: u64,
    bytes: u64,
    /// Those of them that are runs, and were checked inside.
    runs: u64,
    blocks: u64,
    /// Entries that were decoded; only with `--deep`.
    entries: Option<u64>,
    /// The newest checkpoint of a directory of which every file is right.
    newest_whole: Option<u64>,
    /// What a start comes to, where something needed is wrong.
    #[serde(skip)]
    what_now: String,
    /// What is wrong with needed files.
    problems: Vec<Problem>,
    /// Files that may be missing, or need not be there.
    notes: Vec<Problem>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Problem {
    file: String,
    what: String,
}

struct Verification {
    store: Arc<dyn Store>,
    /// By path.
    manifests: BTreeMap<String, Arc<Manifest>>,
    /// What holds in a checkpoint directory.
    standing: Option<Standing>,
    /// What is to be checked.
    files: BTreeMap<String, SnapshotFile>,
    verified: Verified,
}

/// What was found in a file.
enum Found {
    /// All of it is right; what a run holds.
    Right(Option<VerifyReport>),
    Wrong(String),
}

impl Verification {
    fn new(store: Arc<dyn Store>) -> Self {
        let verified = Verified {
            whole: false,
            records: 0,
            manifests: 0,
            files: 0,
            bytes: 0,
            runs: 0,
            blocks: 0,
            entries: None,
            newest_whole: None,
            what_now: String::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        Self { store, manifests: BTreeMap::new(), standing: None, files: BTreeMap::new(), verified }
    }

    async fn of_directory(env: &Env, store: Arc<dyn Store>) -> Result<Self> {
        let survey = snapshots::survey(env, Arc::clone(&store)).await?;
        let mut verification = Self::new(store);
        verification.verified.records = survey.report.records as u64;
        for problem in survey.report.problems {
            let list = match problem.severity {
                Severity::Needed => &mut verification.verified.problems,
                Severity::MayBeMissing => &mut verification.verified.notes,
            };
            list.push(Problem { file: problem.file, what: problem.what });
        }
        verification.verified.notes.sort();
        verification.manifests = survey.report.manifests;
        verification.standing = survey.report.standing;
        verification.files = survey.files;
        Ok(verification)
    }

    /// One snapshot, whose manifest was read and checked.
    fn of_snapshot(location: SnapshotLocation) -> Self {
        let mut verification = Self::new(Arc::clone(&location.store));
        let files = location.manifest.files().into_iter();
        verification.files = files.map(|file| (file.path.clone(), file.clone())).collect();
        verification.manifests = [(location.file.path.clone(), Arc::clone(&location.manifest))].into();
        verification
    }

    /// Checks every byte of every file.
    async fn check_files(&mut self, env: &Env, deep: bool) -> Result<()> {
        let uses = runs(&self.manifests);
        let total = self.files.values().map(|file| file.len).sum();
        let bar = Mutex::new((Bar::new(env, if deep { "decoding files" } else { "checking files" }), 0));
        let progress = |bytes: u64| {
            let (bar, done) = &mut *bar.lock().unwrap_or_else(PoisonError::into_inner);
            *done += bytes;
            bar.at(*done, total);
        };
        let (store, uses, progress) = (&*self.store, &uses, &progress);
        let checks = self.files.values().map(async |file| {
            let uses = uses.get(file.path.as_str()).map_or(&[][..], Vec::as_slice);
            Ok::<_, Error>((file, check(env, store, file, uses, deep, progress).await?))
        });
        let mut checks = stream::iter(checks).buffer_unordered(AT_ONCE);
        let (verified, mut entries) = (&mut self.verified, 0);
        verified.manifests = self.manifests.len() as u64;
        while let Some(checked) = checks.next().await {
            let (file, found) = checked?;
            match found {
                Found::Right(report) => {
                    verified.files += 1;
                    verified.bytes += file.len;
                    verified.runs += u64::from(report.is_some());
                    let report = report.unwrap_or_default();
                    verified.blocks += report.blocks;
                    entries += report.entries;
                }
                Found::Wrong(what) => verified.problems.push(Problem { file: file.path.clone(), what }),
            }
        }
        verified.entries = deep.then_some(entries);
        Ok(())
    }

    /// Takes back what is wrong with files that a running job has collected meanwhile.
    async fn judge_again(&mut self, env: &Env) -> Result<()> {
        let problems = &mut self.verified.problems;
        if !problems.is_empty() {
            let needed = snapshots::needed(env, Arc::clone(&self.store)).await?;
            problems.retain(|problem| needed.contains(&problem.file));
        }
        Ok(())
    }

    /// The newest checkpoint of which every file is right.
    fn newest_whole(&self, standing: &Standing) -> Option<CheckpointId> {
        let wrong: BTreeSet<_> = self.verified.problems.iter().map(|problem| problem.file.as_str()).collect();
        let is_right = |file: &SnapshotFile| !wrong.contains(file.path.as_str());
        let whole = |held: &&&CompletedCheckpoint| {
            let manifest = self.manifests.get(&held.manifest.path);
            is_right(&held.manifest) && manifest.is_some_and(|it| it.files().into_iter().all(is_right))
        };
        standing.held().iter().filter(whole).map(|held| held.checkpoint).max()
    }

    /// What a start comes to, since something needed is wrong.
    fn what_now(&self, standing: &Standing, whole: Option<CheckpointId>) -> String {
        if self.verified.problems.iter().any(|problem| problem.file.starts_with(paths::HISTORY)) {
            return "put the history record back: until then a start may be refused".to_owned();
        }
        if standing.end.as_ref().is_some_and(|end| end.kind == EndKind::Finished) {
            return "the job has finished, so only a start with --from may need them".to_owned();
        }
        let newest = match standing.restore_point() {
            Restores::Own(own) => Some(own.checkpoint),
            Restores::Empty | Restores::Foreign(_) => None,
        };
        match whole {
            Some(whole) if Some(whole) == newest => {
                format!("a start goes on from checkpoint {whole}, the newest, which is whole")
            }
            Some(whole) if newest.is_some_and(|newest| goes_back_to(standing, newest) == Some(whole)) => {
                format!(
                    "the newest checkpoint that is whole is {whole}: a start goes back to it by itself if no sink has \
                 committed anything newer, and says what can be done if one has"
                )
            }
            Some(whole) => {
                format!("the newest checkpoint that is whole is {whole}: a start says what can be done")
            }
            None => "no checkpoint here is whole: a start says what can be done".to_owned(),
        }
    }

    fn finish(self) -> Verified {
        let whole = self.standing.as_ref().and_then(|standing| self.newest_whole(standing));
        let what_now = match &self.standing {
            Some(standing) => self.what_now(standing, whole),
            None => "it cannot be started from; choose another snapshot".to_owned(),
        };
        let mut verified = self.verified;
        verified.newest_whole = whole.map(|checkpoint| checkpoint.0);
        verified.what_now = what_now;
        verified.problems.sort();
        verified.problems.dedup();
        verified.whole = verified.problems.is_empty();
        verified
    }
}

/// Checks every byte of a file. `uses` are those of a run; of other files there are none.
async fn check(
    env: &Env,
    store: &dyn Store,
    file: &SnapshotFile,
    uses: &[&Run],
    deep: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Found> {
    if uses.is_empty() {
        let mut told = 0;
        let mut on_piece = |bytes| {
            progress(bytes - told);
            told = bytes;
        };
        let wrong = snapshots::check_file(env, store, file, &mut on_piece).await?;
        return Ok(wrong.map_or(Found::Right(None), Found::Wrong));
    }
    match verify_file(env, store, uses, deep, progress).await {
        Ok(report) => Ok(Found::Right(Some(report))),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            Ok(Found::Wrong(within(&file.path, &error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Every different use of each run file, by its path: after a change of parallelism, several subtasks use one.
fn runs(manifests: &BTreeMap<String, Arc<Manifest>>) -> BTreeMap<&str, Vec<&Run>> {
    let subtasks = manifests.values().flat_map(|manifest| &manifest.operators).flat_map(|it| &it.subtasks);
    let uses: BTreeSet<&Run> = subtasks.flat_map(|it| &it.runs).collect();
    let mut by_file = BTreeMap::<&str, Vec<&Run>>::new();
    for run in uses {
        by_file.entry(&run.file.path).or_default().push(run);
    }
    by_file
}

/// The message without the file that it begins with: the file stands before it already.
fn within(file: &str, message: &str) -> String {
    message.strip_prefix(file).map_or(message, |rest| rest.trim_start_matches([',', ':', ' '])).to_owned()
}

/// What a start goes back to by itself, if that is possible, where checkpoint `damaged` cannot be restored.
fn goes_back_to(standing: &Standing, damaged: CheckpointId) -> Option<CheckpointId> {
    match fallback::instead(standing, damaged) {
        Some(Restores::Own(own)) => Some(own.checkpoint),
        _ => None,
    }
}

impl Report for Verified {
    fn text(&self) -> String {
        let mut text = String::new();
        for Problem { file, what } in &self.problems {
            text += &format!("{file}: {what}\n");
        }
        for Problem { file, what } in &self.notes {
            text += &format!("note: {file}: {what} (not needed)\n");
        }
        let checked = [
            count(self.records, "history record"),
            count(self.manifests, "manifest"),
            format!("{} of {}", count(self.files, "file"), bytes(self.bytes)),
            format!("{} of {}", count(self.runs, "run"), count(self.blocks, "block")),
        ];
        text += &format!("checked {}", checked.join(", "));
        if let Some(entries) = self.entries {
            text += &format!(", decoded {entries} entries");
        }
        text + if self.whole { ": every needed byte is right\n" } else { "\n" }
    }
}
