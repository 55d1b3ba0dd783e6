//! Where a snapshot is: what `--from PATH` and the command line's SNAPSHOT mean.
//!
//! ```text
//! DIR             a savepoint directory, or a checkpoint directory (its last checkpoint)
//! DIR@N           checkpoint N of a checkpoint directory
//! DIR/history/N   the last checkpoint completed when record N was written
//! ```

use std::{fmt, path::Path, pin::pin, sync::Arc};

use env::{Env, FileKind, Store};
use futures::{StreamExt, stream};
use types::{CheckpointId, Digest, Error, ErrorKind, RecordNumber, Result, SnapshotFile};

use crate::{
    history::{CompletedCheckpoint, ForeignSnapshot, Record, Records, Restores, Standing, Unconfirmed},
    manifest::{self, Manifest},
    snapshots,
    storage::{paths, retry::Retry},
};

/// How many files are asked for at once.
const FILES_AT_ONCE: usize = 16;

/// A snapshot that was found: its manifest is read and checked, its files are not.
#[derive(Clone)]
pub struct SnapshotLocation {
    /// The store that the manifest's paths are relative to.
    pub store: Arc<dyn Store>,
    /// The manifest's file.
    pub file: SnapshotFile,
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// The checkpoints up to this one whose sinks are not known to have committed, oldest first: no start from a copy
    /// commits what they have pending. None for a savepoint, which waited for its sinks.
    pub unconfirmed: Vec<Unconfirmed>,
    /// How the user names it.
    pub named: String,
}

impl fmt::Debug for SnapshotLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotLocation({} in {})", self.file.path, self.url())
    }
}

/// Which snapshot of a directory is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Latest,
    Checkpoint(CheckpointId),
    AtRecord(RecordNumber),
}

impl SnapshotLocation {
    /// Whether its files are there and as long as the manifest says, without reading them.
    ///
    /// # Errors
    /// `Corrupt` naming the first that is not; `Retryable` or `Unavailable` if the store cannot be asked.
    pub async fn check_files(&self, env: &Env) -> Result<()> {
        let check = |file: &SnapshotFile| check(env.clone(), Arc::clone(&self.store), file.clone());
        let checks: Vec<_> = self.manifest.files().into_iter().map(check).collect();
        let mut checks = pin!(stream::iter(checks).buffered(FILES_AT_ONCE));
        while let Some(found) = checks.next().await {
            if let Some(what) = found? {
                return Err(Error::corrupt(format!(
                    "{what}: put the file back, or start from another snapshot"
                )));
            }
        }
        Ok(())
    }

    /// Finds the snapshot that a user names.
    ///
    /// # Errors
    /// `InvalidJob` if there is no such snapshot, `Corrupt` if it is damaged, `Retryable` or `Unavailable`.
    pub async fn resolve(env: &Env, text: &str) -> Result<Self> {
        let (directory, which) = parse(text);
        let store = open_existing(env, directory).await?;
        if which == Which::Latest
            && let Some(savepoint) = Self::savepoint(env, &store).await?
        {
            return Ok(Self { named: text.to_owned(), ..savepoint });
        }
        let none = |what: String| Error::invalid_job(format!("{text}: {what}"));
        let records = Records::new(env, Arc::clone(&store));
        let record = match which {
            Which::AtRecord(number) => records.read(number).await?.map(Arc::new),
            Which::Latest | Which::Checkpoint(_) => records.newest().await?,
        };
        let record = match (record, which) {
            (Some(record), _) => record,
            (None, Which::AtRecord(number)) => {
                return Err(none(no_record(number, records.newest().await?.as_deref())));
            }
            (None, _) => return Err(none(nothing(env, &store).await?)),
        };
        let found = choose(&record.standing, which);
        let found = found.ok_or_else(|| none(no_checkpoint(&record.standing)))?;
        let newest = match which {
            Which::AtRecord(_) => match records.newest().await {
                // An old record is what helps where the newest one is damaged.
                Err(error) if error.kind() == ErrorKind::Corrupt => record,
                newest => newest?.unwrap_or(record),
            },
            Which::Latest | Which::Checkpoint(_) => record,
        };
        if matches!(which, Which::AtRecord(_))
            && let Some(gone) = gone(&newest.standing, &found)
        {
            return Err(none(gone));
        }
        let manifest = match manifest::read(env, &*store, &found.manifest).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let whole = snapshots::whole_before(env, &store, &newest.standing, found.checkpoint).await;
                let instead = match whole {
                    Some(whole) => {
                        format!("take {directory}@{}, the newest before it that is whole", whole.checkpoint)
                    }
                    None => "take another snapshot: none before it is whole".to_owned(),
                };
                return Err(Error::corrupt(format!("{error}; put the file back, or {instead}")));
            }
            manifest => Arc::new(manifest?),
        };
        let waiting = &newest.standing.unconfirmed;
        let waiting: Vec<_> = waiting.iter().copied().filter(|it| *it <= found.checkpoint).collect();
        let unconfirmed = Unconfirmed::read(env, &*store, &newest.standing, &waiting).await?;
        Ok(Self { store, file: found.manifest, manifest, unconfirmed, named: text.to_owned() })
    }

    /// Finds again the snapshot that an attempt started from.
    ///
    /// # Errors
    /// `Corrupt` if it is gone, damaged, or another one now; `Retryable` or `Unavailable`.
    pub async fn reopen(env: &Env, snapshot: &ForeignSnapshot) -> Result<Self> {
        let gone = |error: Error| match error.kind() {
            ErrorKind::InvalidJob => error
                .with_kind(ErrorKind::Corrupt)
                .context("the snapshot that the job started from is needed until its first checkpoint"),
            _ => error,
        };
        let store = open_existing(env, &snapshot.url).await.map_err(gone)?;
        let manifest = Arc::new(manifest::read(env, &*store, &snapshot.manifest).await?);
        // The first start from it has looked at what was pending.
        let (file, named) = (snapshot.manifest.clone(), snapshot.url.clone());
        Ok(Self { store, file, manifest, unconfirmed: Vec::new(), named })
    }

    /// The newest history record of a checkpoint directory, if it is one. Makes nothing.
    ///
    /// # Errors
    /// `InvalidJob` if there is no such directory; as [`Records::newest`].
    pub async fn newest_record(env: &Env, url: &str) -> Result<Option<Arc<Record>>> {
        Records::new(env, open_existing(env, url).await?).newest().await
    }

    /// The savepoint in a directory, if it is one.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged; `Retryable` or `Unavailable`.
    pub async fn savepoint(env: &Env, store: &Arc<dyn Store>) -> Result<Option<Self>> {
        let path = paths::SAVEPOINT_MANIFEST;
        let bytes = Retry::STORE.run(env, "read a savepoint", || store.get(path)).await?;
        bytes
            .map(|bytes| {
                let file =
                    SnapshotFile { path: path.into(), len: bytes.len() as u64, digest: Digest::of(&bytes) };
                let manifest = manifest::decode(path, &bytes).map_err(|error| {
                    let advice = "put the file back, or take another snapshot";
                    Error::corrupt(format!("{}: {error}; {advice}", store.url())).with_kind(error.kind())
                })?;
                Ok(Self {
                    store: Arc::clone(store),
                    file,
                    manifest: Arc::new(manifest),
                    unconfirmed: Vec::new(),
                    named: store.url().to_owned(),
                })
            })
            .transpose()
    }

    /// Whether `text` is written as one snapshot of a directory, `DIR@N` or `DIR/history/N`.
    #[must_use]
    pub fn is_of_one(text: &str) -> bool {
        parse(text).1 != Which::Latest
    }

    /// The URL of the directory.
    #[must_use]
    pub fn url(&self) -> &str {
        self.store.url()
    }
}

fn parse(text: &str) -> (&str, Which) {
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    if let Some((directory, digits)) = text.rsplit_once("/history/")
        && let Some(record) = number(digits)
    {
        return (directory, Which::AtRecord(RecordNumber(record)));
    }
    if let Some((directory, digits)) = text.rsplit_once('@')
        && let Some(checkpoint) = number(digits)
    {
        return (directory, Which::Checkpoint(CheckpointId(checkpoint)));
    }
    (text, Which::Latest)
}

fn choose(standing: &Standing, which: Which) -> Option<CompletedCheckpoint> {
    match which {
        Which::Checkpoint(wanted) => {
            standing.held().into_iter().find(|held| held.checkpoint == wanted).cloned()
        }
        Which::Latest | Which::AtRecord(_) => match standing.restore_point() {
            Restores::Own(own) => Some(own),
            Restores::Empty | Restores::Foreign(_) => None,
        },
    }
}

fn no_checkpoint(standing: &Standing) -> String {
    match held(standing) {
        None => format!("job {:?} has no completed checkpoint", standing.job_name),
        Some(held) => format!("no such checkpoint; retained are {held}"),
    }
}

fn held(standing: &Standing) -> Option<String> {
    let held: Vec<_> = standing.held().iter().map(|held| held.checkpoint.to_string()).collect();
    (!held.is_empty()).then(|| held.join(", "))
}

fn no_record(number: RecordNumber, newest: Option<&Record>) -> String {
    match newest {
        Some(newest) if number < newest.number => {
            format!("history record {number} was removed long ago; the newest is {}", newest.number)
        }
        Some(newest) => format!("there is no history record {number}; the newest is {}", newest.number),
        None => "there is no job history".to_owned(),
    }
}

/// Why the checkpoint that an old record names is there no more, if the history, as it stands now, says so.
fn gone(standing: &Standing, found: &CompletedCheckpoint) -> Option<String> {
    if standing.held().iter().any(|held| held.manifest == found.manifest) {
        return None;
    }
    let checkpoint = found.checkpoint;
    let kept = held(standing).unwrap_or_else(|| "none".to_owned());
    Some(if standing.revoked.contains(&checkpoint) {
        format!("checkpoint {checkpoint} was revoked, since it is damaged (kept: {kept})")
    } else {
        format!("checkpoint {checkpoint} was removed by retention (kept: {kept})")
    })
}

/// What is wrong with a file that need not be read, if anything.
async fn check(env: Env, store: Arc<dyn Store>, file: SnapshotFile) -> Result<Option<String>> {
    let found = snapshots::check_len(&env, &*store, &file).await?;
    Ok(found.map(|what| format!("{} in {} {what}", file.path, store.url())))
}

/// Opens a store to read from: a local directory that does not exist is an error, and is not made.
async fn open_existing(env: &Env, url: &str) -> Result<Arc<dyn Store>> {
    let local = url.strip_prefix("file://").unwrap_or(url);
    if !local.contains(':') || local.starts_with('/') {
        let (files, path) = (env.files(), Path::new(local).to_owned());
        let found = env.blocking("look for a directory", move || files.metadata(&path)).await?;
        match found.map_err(|error| Error::io(url, error))? {
            Some(meta) if meta.kind == FileKind::Dir => {}
            Some(_) => return Err(Error::invalid_job(format!("{url} is not a directory"))),
            None => return Err(Error::invalid_job(format!("{url}: {}", no_directory(url)))),
        }
    }
    env.open_store(url)
}

/// Why there is nothing in a directory without a history and without a savepoint.
async fn nothing(env: &Env, store: &Arc<dyn Store>) -> Result<String> {
    let holds = async |path: &str| Retry::STORE.run(env, "look for a savepoint", || store.len(path)).await;
    Ok(if holds(paths::SAVEPOINT_DELETED).await?.is_some() {
        format!("it holds a savepoint that is half deleted: end that with tidegate delete {}", store.url())
    } else if holds(paths::SAVEPOINT_PARTIAL).await?.is_some() {
        "it holds a savepoint that is not whole: whoever copies that checkpoint there once more begins it anew".to_owned()
    } else {
        "it holds neither a savepoint nor checkpoints: give a directory that does".to_owned()
    })
}

/// A directory that does not exist, or a number that is none.
fn no_directory(text: &str) -> String {
    let number = |(directory, number): (&str, &str), form: &str| {
        if number.parse::<u64>().is_ok() {
            return format!("there is no such directory; of a snapshot, name one number: {directory}{form}");
        }
        format!("{number:?} is no number: a snapshot is written {directory}{form}, with a number for N")
    };
    match (text.rsplit_once("/history/"), text.rsplit_once('@')) {
        (Some(parts), _) => number(parts, "/history/N"),
        (None, Some(parts)) if !parts.1.contains('/') => number(parts, "@N"),
        _ => "there is no such directory: give a savepoint, or a checkpoint directory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_directory_a_checkpoint_or_a_record() {
        for (text, expected) in [
            ("dir", ("dir", Which::Latest)),
            ("/a/b@7", ("/a/b", Which::Checkpoint(CheckpointId(7)))),
            ("/a@b", ("/a@b", Which::Latest)),
            ("/a/history/12", ("/a", Which::AtRecord(RecordNumber(12)))),
            ("/a/history/00000000000000000012", ("/a", Which::AtRecord(RecordNumber(12)))),
            ("/a/history/x", ("/a/history/x", Which::Latest)),
            ("file:///a@3", ("file:///a", Which::Checkpoint(CheckpointId(3)))),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_told() {
        for (text, expected) in [
            ("a/b", "there is no such directory: give a savepoint, or a checkpoint directory"),
            ("a@1/b", "there is no such directory: give a savepoint, or a checkpoint directory"),
            ("a@x", "\"x\" is no number: a snapshot is written a@N, with a number for N"),
            ("a@1", "there is no such directory; of a snapshot, name one number: a@N"),
            ("a@", "\"\" is no number: a snapshot is written a@N, with a number for N"),
            ("/a/history/x", "\"x\" is no number: a snapshot is written /a/history/N, with a number for N"),
        ] {
            assert_eq!(no_directory(text), expected, "{text}");
        }
    }
}
