//! How long the files of a snapshot are, and how many of those bytes the snapshot before it has, too. Called by
//! `snapshots` and `inspect`, which thus never disagree.

use std::collections::BTreeMap;

use checkpoint::manifest::Manifest;
use serde::Serialize;
use types::SnapshotFile;

/// Files of a snapshot: lengths by path.
pub(crate) type Files = BTreeMap<String, u64>;

/// All files of a snapshot, the one of its manifest among them.
pub(crate) fn files(manifest: &Manifest, own: &SnapshotFile) -> Files {
    lengths(manifest.files().into_iter().chain([own]))
}

pub(crate) fn lengths<'a>(files: impl Iterator<Item = &'a SnapshotFile>) -> Files {
    files.map(|file| (file.path.clone(), file.len)).collect()
}

/// What some files of a snapshot add to the snapshot before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// In files that the one before does not have; unknown where that one is.
    pub(crate) added_bytes: Option<u64>,
    /// In files that the one before has, too.
    pub(crate) shared_bytes: Option<u64>,
}

impl Size {
    /// `before`: all files of the snapshot before, none if there was no such snapshot, `None` if nobody knows.
    pub(crate) fn of(files: &Files, before: Option<&Files>) -> Self {
        let bytes = files.values().sum();
        let shared_bytes = before.map(|before| {
            files.iter().filter(|(path, _)| before.contains_key(*path)).map(|(_, len)| len).sum::<u64>()
        });
        Self {
            files: files.len() as u64,
            bytes,
            added_bytes: shared_bytes.map(|shared| bytes - shared),
            shared_bytes,
        }
    }
}
