//! Making a new savepoint out of a snapshot, without the job: what `convert`, `rename-uid` and `drop-state` have in
//! common. The snapshot itself is only read. Before the manifest makes the copy a savepoint, every run of it is read
//! back and compared with what it was made of; where that savepoint was there already, its runs are.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use checkpoint::{
    history::{JobLock, Unconfirmed},
    manifest::Manifest,
    savepoint::{self, Changed, RunCopier, SnapshotLocation},
};
use env::{Env, Store};
use serde::Serialize;
use statebackend::{RunCompression, RunSet, VerifiedCopy, copy_verified, verify_copy};
use types::{Error, ErrorKind, ExpiryClocks, Result, Run, RunIdentity, count};

use crate::{
    format::bytes,
    output::{Output, Report},
    progress::{Bar, waiting},
    size::{Files, Size, files},
    state::Kept,
};

/// Where the savepoint goes.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// An empty directory or a new one, not within that of the snapshot.
    dir: String,
    /// Leave behind what the checkpoint's sinks have prepared and are not known to have committed: it is not in the
    /// savepoint.
    #[arg(long)]
    abandon_pending: bool,
}

/// Makes the savepoint of what `change` makes of the snapshot, and shows it.
///
/// # Errors
/// As `change`; `Conflict` if the directory is not empty, or sinks have not committed yet; `Corrupt` if a file is
/// damaged.
pub(crate) async fn make(
    env: &Env,
    output: &mut Output,
    snapshot: &str,
    target: &Target,
    change: impl FnOnce(Arc<Manifest>) -> Result<Changed>,
) -> Result<()> {
    let found = SnapshotLocation::resolve(env, snapshot);
    let location = waiting(env, "looking for the snapshot", found).await?;
    let changed = change(Arc::clone(&location.manifest)).map_err(|error| error.context(snapshot))?;
    let left_behind = left_behind(env, &location, target.abandon_pending).await?;
    let url = env::absolute(&*env.files(), &target.dir)?;
    check_target(env, &location, &url).await?;
    let copier = Copier::new(env, &changed);
    let (was_there, whole) = match copier.write(&location, &url).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => return Err(explain(env, snapshot, error).await),
        written => written?,
    };
    drop(copier);
    output.show(&Made {
        checkpoint: whole.manifest.checkpoint.0,
        dir: url,
        was_there,
        operators: whole.manifest.operators.len() as u64,
        size: Size::of(&files(&whole.manifest, &whole.file), Some(&Files::new())),
        left_behind,
    })
}

/// What is shown.
#[derive(Serialize)]
struct Made {
    /// The checkpoint that it is a copy of.
    checkpoint: u64,
    dir: String,
    /// An earlier call had made it: it was compared all the same.
    was_there: bool,
    operators: u64,
    #[serde(flatten)]
    size: Size,
    /// What sinks had prepared, and nobody may commit any more; none unless that was allowed.
    left_behind: Option<String>,
}

impl Report for Made {
    fn text(&self) -> String {
        let Self { checkpoint, dir, was_there, operators, size, left_behind } = self;
        let is = if *was_there { "was there already" } else { "is complete" };
        let mut text = format!(
            "savepoint of checkpoint {checkpoint} {is}: {dir}\n{}, {} of {}, compared with what they were made of\n",
            count(*operators, "operator"),
            count(size.files, "file"),
            bytes(size.bytes)
        );
        if let Some(left_behind) = left_behind {
            text += &format!("left behind: {left_behind}, unless already committed\n");
        }
        text + &format!("start from it with --from {dir}\n")
    }
}

/// What sinks have yet to commit, if it may be left behind.
async fn left_behind(env: &Env, location: &SnapshotLocation, may: bool) -> Result<Option<String>> {
    let waiting: Vec<_> = location.unconfirmed.iter().filter(|it| !it.is_empty()).cloned().collect();
    let Some(newest) = waiting.last() else { return Ok(None) };
    let total = Unconfirmed::total(&waiting);
    if may {
        return Ok(Some(total));
    }
    let (checkpoint, url) = (newest.checkpoint, location.url());
    let instead = match JobLock::holder(env, &*location.store).await?.process() {
        Some(holder) => format!("wait until {holder}, which runs the job, has committed it"),
        None => format!("start the job in {url} once, which commits it"),
    };
    Err(Error::conflict(format!(
        "checkpoint {checkpoint} in {url} has output that its sinks have not committed yet ({total}), and no savepoint holds \
         that: {instead}, or leave it behind with --abandon-pending"
    )))
}

/// The directory outlives the command, and is not a part of the snapshot's.
async fn check_target(env: &Env, location: &SnapshotLocation, url: &str) -> Result<()> {
    if env::is_volatile(url) {
        return Err(Error::invalid_job(format!("{url} is gone with this command: give a directory")));
    }
    let within = || {
        Err(Error::conflict(format!(
            "{url} is within {}, which is only read: choose a directory elsewhere",
            location.url()
        )))
    };
    let Some(source) = location.store.local_dir() else {
        let directory = |url: &str| format!("{}/", url.trim_end_matches('/'));
        return if directory(url).starts_with(&directory(location.url())) { within() } else { Ok(()) };
    };
    let (files, named) = (env.files(), Path::new(url.strip_prefix("file://").unwrap_or(url)).to_owned());
    let is_within = move || {
        let mut above = named.ancestors().filter_map(|dir| files.canonical(dir).ok());
        above.next().is_some_and(|dir| dir.starts_with(&source))
    };
    if env.blocking("look for a directory", is_within).await? {
        return within();
    }
    Ok(())
}

/// A running job may have removed the checkpoint meanwhile, which is no damage.
async fn explain(env: &Env, snapshot: &str, error: Error) -> Error {
    match SnapshotLocation::resolve(env, snapshot).await {
        Err(gone) if gone.kind() == ErrorKind::InvalidJob => gone.with_advice(
            "it went while it was copied: let the job that runs copy one itself with tidegate savepoint",
        ),
        _ => error,
    }
}

/// Copies what was changed, and compares each copy with what it was made of.
struct Copier<'a> {
    env: &'a Env,
    changed: &'a Changed,
    progress: Mutex<Progress>,
}

struct Progress {
    bar: Bar,
    done: u64,
    total: u64,
}

impl<'a> Copier<'a> {
    fn new(env: &'a Env, changed: &'a Changed) -> Self {
        let runs = changed.manifest().operators.iter().flat_map(|it| &it.subtasks).flat_map(|it| &it.runs);
        let (bar, total) = (Bar::new(env, "copying runs"), runs.map(|run| run.file.len).sum());
        Self { env, changed, progress: Mutex::new(Progress { bar, done: 0, total }) }
    }

    /// Makes the savepoint, or compares it where it was there already, which is said with it.
    async fn write(&self, from: &SnapshotLocation, url: &str) -> Result<(bool, SnapshotLocation)> {
        let written = savepoint::write(self.env, &*from.store, self.changed.manifest(), url, self).await?;
        let whole = SnapshotLocation::savepoint(self.env, &self.env.open_store(url)?).await?;
        let whole =
            whole.ok_or_else(|| Error::retryable(format!("the savepoint in {url} went away meanwhile")))?;
        if written.was_there {
            self.compare(&*from.store, &whole).await?;
        }
        Ok((written.was_there, whole))
    }

    /// Compares each subtask of a savepoint that was not copied now: but for its runs it is what was changed.
    async fn compare(&self, from: &dyn Store, made: &SnapshotLocation) -> Result<()> {
        let operators = self.changed.manifest().operators.iter().zip(&made.manifest.operators);
        for (operator, made_operator) in operators {
            for (subtask, made_subtask) in operator.subtasks.iter().zip(&made_operator.subtasks) {
                let (uid, kept) = (&operator.uid, Kept::of(subtask)?);
                let before = self.changed.runs_before(uid, subtask.subtask);
                let dropped = self.changed.dropped(uid);
                let copy = VerifiedCopy { from, runs: kept.runs(), before, dropped: &dropped };
                verify_copy(self.env, &copy, &*made.store, &made_subtask.runs, uid).await?;
                self.advance(&subtask.runs);
            }
        }
        Ok(())
    }

    /// These are done.
    fn advance(&self, runs: &[Run]) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.done += runs.iter().map(|run| run.file.len).sum::<u64>();
        let Progress { done, total, .. } = *progress;
        progress.bar.at(done, total);
    }
}

#[async_trait]
impl RunCopier for Copier<'_> {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        let before = self.changed.runs_before(&identity.operator, identity.subtask);
        let dropped = self.changed.dropped(&identity.operator);
        let copy = VerifiedCopy { from, runs: RunSet::new(runs, clocks), before, dropped: &dropped };
        let copied = copy_verified(self.env, &copy, to, path, identity, RunCompression::Zstd).await?;
        self.advance(runs);
        Ok(copied)
    }
}
