//! `tidegate verify`: whether every byte that is needed is there and is what was written.
//!
//! File by file first (records, manifests, digests), then inside each run that is whole as a file (identity, sections,
//! blocks; with `--deep` every entry). Ends well only if nothing that is needed is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checkpoint::{
    history::{CompletedCheckpoint, EndKind, Restores, Standing, fallback},
    manifest::Manifest,
    savepoint::SnapshotLocation,
    snapshots::{self, Progress, Severity},
    storage::paths,
};
use env::{Env, Store};
use serde::Serialize;
use statebackend::verify_run;
use types::{CheckpointId, Error, ErrorKind, Result, Run, SnapshotFile, count};

use crate::{
    format::bytes,
    offline::{Named, named},
    output::{Output, Report},
    progress::Bar,
};

/// What takes its time first.
const COMPARING: &str = "comparing files";

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
            verification.runs(env, args.deep).await?;
            verification.judge_again(env).await?;
            verification
        }
        Named::Other => {
            let location = SnapshotLocation::resolve(env, &args.place).await?;
            let mut verification = Verification::of_snapshot(env, location).await?;
            verification.runs(env, args.deep).await?;
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
    /// Snapshot files compared with their digests, and their bytes.
    files: u64,
    bytes: u64,
    /// Runs that were checked inside.
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
    verified: Verified,
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
        Self { store, manifests: BTreeMap::new(), standing: None, verified }
    }

    async fn of_directory(env: &Env, store: Arc<dyn Store>) -> Result<Self> {
        let mut bar = Bar::new(env, COMPARING);
        let mut progress = |Progress { bytes, total }| bar.at(bytes, total);
        let report = snapshots::verify(env, Arc::clone(&store), &mut progress).await?;
        drop(bar);
        let mut verification = Self::new(store);
        let verified = &mut verification.verified;
        verified.records = report.records as u64;
        (verified.files, verified.bytes) = (report.files as u64, report.bytes);
        for problem in report.problems {
            let list = match problem.severity {
                Severity::Needed => &mut verified.problems,
                Severity::MayBeMissing => &mut verified.notes,
            };
            list.push(Problem { file: problem.file, what: problem.what });
        }
        verification.manifests = report.manifests;
        verification.standing = report.standing;
        Ok(verification)
    }

    /// One snapshot, whose manifest was read and checked: its files.
    async fn of_snapshot(env: &Env, location: SnapshotLocation) -> Result<Self> {
        let mut verification = Self::new(Arc::clone(&location.store));
        verification.manifests = [(location.file.path.clone(), Arc::clone(&location.manifest))].into();
        let files = location.manifest.files();
        let total = files.iter().map(|file| file.len).sum();
        let (mut done, mut bar) = (0, Bar::new(env, COMPARING));
        for file in files {
            let mut on_piece = |bytes| bar.at(done + bytes, total);
            let what = snapshots::check_file(env, &*location.store, file, &mut on_piece).await?;
            done += file.len;
            if let Some(what) = what {
                verification.verified.problems.push(Problem { file: file.path.clone(), what });
            } else {
                verification.verified.files += 1;
                verification.verified.bytes += file.len;
            }
        }
        Ok(verification)
    }

    /// Looks into every run whose file is whole.
    async fn runs(&mut self, env: &Env, deep: bool) -> Result<()> {
        let verified = &mut self.verified;
        verified.manifests = self.manifests.len() as u64;
        let wrong: BTreeSet<_> = verified.problems.iter().map(|problem| problem.file.clone()).collect();
        let mut runs = runs(&self.manifests);
        runs.retain(|run| !wrong.contains(&run.file.path));
        let total = runs.iter().map(|run| run.file.len).sum();
        let (mut done, mut entries) = (0, 0);
        let mut bar = Bar::new(env, if deep { "decoding runs" } else { "checking runs" });
        for run in runs {
            match verify_run(env, &*self.store, run, deep).await {
                Ok(report) => {
                    verified.runs += 1;
                    verified.blocks += report.blocks;
                    entries += report.entries;
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    let what = within(&run.file.path, &error.to_string());
                    verified.problems.push(Problem { file: run.file.path.clone(), what });
                }
                Err(error) => return Err(error),
            }
            done += run.file.len;
            bar.at(done, total);
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

/// Every different use of a run file: after a change of parallelism, several subtasks use one.
fn runs(manifests: &BTreeMap<String, Arc<Manifest>>) -> Vec<&Run> {
    let subtasks = manifests.values().flat_map(|manifest| &manifest.operators).flat_map(|it| &it.subtasks);
    let by_use: BTreeMap<&Run, ()> = subtasks.flat_map(|it| &it.runs).map(|run| (run, ())).collect();
    by_use.into_keys().collect()
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
