//! What is garbage: pure functions of the history, the manifests, and what is being read right now.

use std::collections::{BTreeMap, BTreeSet};

use env::StoreEntry;
use types::{CheckpointId, RecordNumber};

use crate::{
    history::{GarbageMark, Milestones, Standing},
    storage::paths::{self, PathKind},
};

/// How many files a garbage mark lists before no further checkpoint is added to it: every record restates the mark until
/// its files are gone. Of orphans it takes as many again.
pub const FILES_PER_MARK: usize = 256;

/// So many files may stand in open marks before nothing more is marked, unless these are but a few large marks: a file that
/// cannot be deleted keeps its mark open, and every record restates it.
pub const FILES_IN_OPEN_MARKS: usize = 4 * FILES_PER_MARK;

/// All that [`plan`] judges by.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What holds.
    pub standing: &'a Standing,
    /// How many completed checkpoints are to be retained.
    pub retain: usize,
    /// The files of each held checkpoint, its manifest included; a checkpoint whose manifest cannot be read is missing.
    pub files: &'a BTreeMap<CheckpointId, BTreeSet<String>>,
    /// Checkpoints that are being copied or read.
    pub running: &'a BTreeSet<CheckpointId>,
    /// All files in the store, if orphans are to be found.
    pub listing: Option<&'a [StoreEntry]>,
}

/// What [`plan`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What may be deleted now; nothing also where a manifest that is needed cannot be read, so that nobody knows.
    pub mark: Option<GarbageMark>,
    /// The listing holds no further orphan than those that are marked: this attempt need not look for more.
    pub orphans_exhausted: bool,
}

/// What may be deleted now.
#[must_use]
pub fn plan(facts: &Facts<'_>) -> Plan {
    find(facts).unwrap_or_default()
}

/// `None` if a manifest that is needed cannot be read.
fn find(facts: &Facts<'_>) -> Option<Plan> {
    let standing = facts.standing;
    let (dropped, kept) = dropped_and_kept(facts);
    let of_all = |checkpoints: &[CheckpointId]| -> Option<BTreeSet<&str>> {
        let files: Option<Vec<_>> =
            checkpoints.iter().map(|checkpoint| facts.files.get(checkpoint)).collect();
        Some(files?.into_iter().flatten().map(String::as_str).collect())
    };
    let referenced = of_all(&kept)?;
    let marked = marked(standing);

    let mut mark = GarbageMark::default();
    let mut garbage = BTreeSet::new();
    for checkpoint in dropped {
        if garbage.len() >= FILES_PER_MARK {
            break;
        }
        // Nobody knows the files of a checkpoint whose manifest is damaged: they are orphans one day.
        let manifest = standing.checkpoint(checkpoint).map(|completed| completed.manifest.path.as_str());
        let files = facts.files.get(&checkpoint).into_iter().flatten().map(String::as_str).chain(manifest);
        garbage.extend(files.filter(|file| !referenced.contains(file) && !marked.contains(file)));
        mark.checkpoints.push(checkpoint);
    }
    // Dropped checkpoints that did not fit into this mark keep their files until the next one.
    let mut orphans_exhausted = false;
    if let Some(orphans) = facts.listing.and_then(|listing| orphans(standing, facts.files, listing)) {
        let mut orphans = orphans.into_iter();
        garbage.extend(orphans.by_ref().take(FILES_PER_MARK));
        orphans_exhausted = orphans.next().is_none();
    }
    mark.files = garbage.into_iter().map(str::to_owned).collect();
    let found = !mark.checkpoints.is_empty() || !mark.files.is_empty();
    Some(Plan { mark: found.then_some(mark), orphans_exhausted })
}

/// The files of a listing that died with older attempts: neither a held checkpoint nor an open mark lists them. `None` if a
/// manifest that is needed cannot be read. `files` as those of [`Facts`].
#[must_use]
pub fn orphans<'a>(
    standing: &Standing,
    files: &BTreeMap<CheckpointId, BTreeSet<String>>,
    listing: &'a [StoreEntry],
) -> Option<Vec<&'a str>> {
    let held: Option<Vec<_>> = standing.held().iter().map(|held| files.get(&held.checkpoint)).collect();
    let (held, marked) = (held?, marked(standing));
    let is_known = |path: &str| marked.contains(path) || held.iter().any(|files| files.contains(path));
    let paths = listing.iter().map(|entry| entry.path.as_str());
    Some(paths.filter(|path| is_of_older_attempt(path, standing) && !is_known(path)).collect())
}

fn marked(standing: &Standing) -> BTreeSet<&str> {
    standing.garbage.iter().flat_map(|mark| &mark.files).map(String::as_str).collect()
}

/// The checkpoints that fall out of retention, oldest first, and all others.
fn dropped_and_kept(facts: &Facts<'_>) -> (Vec<CheckpointId>, Vec<CheckpointId>) {
    let standing = facts.standing;
    let excess = standing.completed.len().saturating_sub(facts.retain.max(1));
    let old: BTreeSet<_> = standing.completed.iter().take(excess).map(|held| held.checkpoint).collect();
    let held = standing.held().into_iter().map(|held| held.checkpoint);
    held.partition(|checkpoint| {
        old.contains(checkpoint) && !standing.needs(*checkpoint) && !facts.running.contains(checkpoint)
    })
}

/// All retained checkpoints of a job that was cancelled or has failed, in one mark, so that no crash leaves a part of
/// them. `None` if there is none, or sinks have yet to commit one.
#[must_use]
pub fn everything(
    standing: &Standing,
    files: &BTreeMap<CheckpointId, BTreeSet<String>>,
) -> Option<GarbageMark> {
    let checkpoints: Vec<_> = standing.completed.iter().map(|held| held.checkpoint).collect();
    if checkpoints.is_empty() || checkpoints.iter().any(|&checkpoint| standing.needs(checkpoint)) {
        return None;
    }
    let marked: BTreeSet<&String> = standing.garbage.iter().flat_map(|mark| &mark.files).collect();
    let manifests = standing.completed.iter().map(|held| &held.manifest.path);
    let garbage: BTreeSet<_> =
        files.values().flatten().chain(manifests).filter(|file| !marked.contains(file)).cloned().collect();
    Some(GarbageMark { checkpoints, files: garbage.into_iter().collect() })
}

fn is_of_older_attempt(path: &str, standing: &Standing) -> bool {
    match paths::kind(path) {
        PathKind::Attempt(attempt) => attempt < standing.attempt.id && paths::is_well_formed(path),
        PathKind::Record(_) | PathKind::Aside | PathKind::Unknown => false,
    }
}

/// The records of a listing that may be deleted when `newest` exists: those below the last milestone that are none
/// themselves.
#[must_use]
pub fn old_records(
    listing: &[StoreEntry],
    newest: RecordNumber,
    milestones: Milestones,
) -> Vec<RecordNumber> {
    let last = milestones.at_or_below(newest);
    let records = listing.iter().filter_map(|entry| paths::record_number(&entry.path));
    records.filter(|&number| number < last && !milestones.contain(number)).collect()
}
