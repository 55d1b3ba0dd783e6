//! What is true of every manifest: predicates with names, run before each write and after each read. A violation
//! before a write is a bug of ours; after a read it is damage.

use std::fmt;

use types::{KeyGroupRange, MaxParallelism, Run, SubtaskIndex, Uid};

use super::{Manifest, OperatorSnapshot, SnapshotKind, StateDescription, SubtaskSnapshot};
use crate::storage::paths;

/// A predicate that a manifest breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The predicate's name.
    pub name: &'static str,
    /// Where it is broken, and how.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.name)
    }
}

/// A predicate: says what is wrong, or nothing.
type Predicate = fn(&Manifest) -> Result<(), String>;

const PREDICATES: &[(&str, Predicate)] = &[
    // First: what the others say may name any path.
    ("paths-well-formed", paths_well_formed),
    ("numbers-in-range", numbers_in_range),
    ("uids-in-order", uids_in_order),
    ("subtasks-complete", |manifest| each_operator(manifest, subtasks_complete)),
    ("states-in-order", |manifest| each_operator(manifest, states_in_order)),
    ("broadcast-in-first", |manifest| each_subtask(manifest, broadcast_in_first)),
    ("groups-partition", groups_partition),
    ("expiring-has-clocks", |manifest| each_operator(manifest, expiring_has_clocks)),
    ("run-of-one-operator", run_of_one_operator),
    ("runs-in-own-range", |manifest| each_subtask(manifest, runs_in_own_range)),
    ("dropped-states-in-order", |manifest| each_subtask(manifest, dropped_states_in_order)),
    ("run-counts", |manifest| each_subtask(manifest, run_counts)),
    ("prepared-in-order", prepared_in_order),
    ("savepoint-holds-no-transaction", savepoint_holds_no_transaction),
    ("one-description-per-file", one_description_per_file),
];

/// The first predicate that `manifest` breaks.
#[must_use]
pub fn violation(manifest: &Manifest) -> Option<Violation> {
    PREDICATES
        .iter()
        .find_map(|&(name, predicate)| predicate(manifest).err().map(|detail| Violation { name, detail }))
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn each_operator(
    manifest: &Manifest,
    check: impl Fn(&OperatorSnapshot) -> Result<(), String>,
) -> Result<(), String> {
    manifest
        .operators
        .iter()
        .try_for_each(|operator| check(operator).map_err(|what| format!("operator {}: {what}", operator.uid)))
}

fn each_subtask(
    manifest: &Manifest,
    check: impl Fn(&OperatorSnapshot, &SubtaskSnapshot) -> Result<(), String>,
) -> Result<(), String> {
    each_operator(manifest, |operator| {
        operator.subtasks.iter().try_for_each(|subtask| {
            check(operator, subtask).map_err(|what| format!("subtask {}: {what}", subtask.subtask))
        })
    })
}

fn ascends<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    items.into_iter().is_sorted_by(|a, b| a < b)
}

fn numbers_in_range(manifest: &Manifest) -> Result<(), String> {
    let max = manifest.max_parallelism.0;
    require((1..=MaxParallelism::LIMIT).contains(&max), || format!("max parallelism is {max}"))?;
    require(manifest.checkpoint.0 > 0, || "checkpoint 0 does not exist".into())?;
    require(!manifest.job_name.is_empty(), || "the job has no name".into())
}

fn uids_in_order(manifest: &Manifest) -> Result<(), String> {
    let uids = manifest.operators.iter().map(|operator| &operator.uid);
    require(ascends(uids), || "the operators are not sorted by uid, or one stands there twice".into())
}

fn subtasks_complete(operator: &OperatorSnapshot) -> Result<(), String> {
    let (found, expected) = (operator.subtasks.len(), operator.parallelism as usize);
    require(found == expected && found > 0, || format!("it has {found} subtasks of {expected}"))?;
    let in_order = (0..).zip(&operator.subtasks).all(|(index, part)| part.subtask == SubtaskIndex(index));
    require(in_order, || "its subtasks are not in order".into())
}

fn states_in_order(operator: &OperatorSnapshot) -> Result<(), String> {
    let names = operator.states.iter().map(|state| &state.name);
    require(ascends(names), || "its states are not sorted by name, or one stands there twice".into())?;
    operator.subtasks.iter().try_for_each(|subtask| {
        let names = subtask.lists.iter().map(|list| &list.name);
        require(ascends(names), || format!("the list states of subtask {} are not sorted", subtask.subtask))
    })
}

/// One copy of a broadcast state stands for all.
fn broadcast_in_first(_: &OperatorSnapshot, subtask: &SubtaskSnapshot) -> Result<(), String> {
    let copy = subtask.lists.iter().find(|part| part.is_broadcast() && subtask.subtask.0 > 0);
    copy.map_or(Ok(()), |part| Err(format!("it has a copy of broadcast state {:?} of its own", part.name)))
}

/// The subtasks of a keyed operator own all key groups, each once, in order; those of another own none.
fn groups_partition(manifest: &Manifest) -> Result<(), String> {
    let all = manifest.max_parallelism.all();
    each_operator(manifest, |operator| {
        let ranges = || operator.subtasks.iter().map(|subtask| subtask.groups);
        let keyed = !operator.states.is_empty() || !operator.key_shape.is_empty();
        if !keyed && ranges().all(KeyGroupRange::is_empty) {
            return Ok(());
        }
        let end = ranges().try_fold(all.start, |next, range| {
            (range.start == next && range.end >= next).then_some(range.end)
        });
        require(end == Some(all.end), || format!("the key groups of its subtasks do not make up {all}"))
    })
}

/// Without them what has expired would be back.
fn expiring_has_clocks(operator: &OperatorSnapshot) -> Result<(), String> {
    let expires = operator.states.iter().any(StateDescription::expires);
    operator.subtasks.iter().try_for_each(|subtask| match subtask.clocks_problem(expires) {
        None => Ok(()),
        Some(problem) => Err(format!("subtask {}: {problem}", subtask.subtask)),
    })
}

fn dropped_states_in_order(_: &OperatorSnapshot, subtask: &SubtaskSnapshot) -> Result<(), String> {
    let unsorted = subtask.runs.iter().find(|run| !run.without.is_sorted_by(|a, b| a < b));
    require(unsorted.is_none(), || "the dropped states of a run are not in order".into())
}

fn runs_in_own_range(_: &OperatorSnapshot, subtask: &SubtaskSnapshot) -> Result<(), String> {
    let own = subtask.groups;
    let stray = subtask.runs.iter().find(|run| run.groups.is_empty() || !own.covers(run.groups));
    stray.map_or(Ok(()), |run| {
        Err(format!("run {} counts for key groups {}, the subtask has {own}", run.file.path, run.groups))
    })
}

fn run_counts(_: &OperatorSnapshot, subtask: &SubtaskSnapshot) -> Result<(), String> {
    let wrong = subtask.runs.iter().find(|run| run.tombstones > run.entries);
    wrong.map_or(Ok(()), |run| Err(format!("run {} has more tombstones than entries", run.file.path)))
}

/// Transactions are committed in the order of their checkpoints, and none is from a later one.
fn prepared_in_order(manifest: &Manifest) -> Result<(), String> {
    each_subtask(manifest, |_, subtask| {
        let checkpoints = || subtask.prepared.iter().map(|prepared| prepared.checkpoint);
        require(checkpoints().is_sorted(), || "its prepared transactions are not in order".into())?;
        let last = checkpoints().next_back();
        require(last <= Some(manifest.checkpoint), || {
            "a prepared transaction is from a later checkpoint".into()
        })
    })
}

fn savepoint_holds_no_transaction(manifest: &Manifest) -> Result<(), String> {
    if manifest.kind != SnapshotKind::Savepoint {
        return Ok(());
    }
    each_subtask(manifest, |_, subtask| {
        require(subtask.prepared.is_empty(), || "a savepoint holds a prepared transaction".into())
    })
}

fn paths_well_formed(manifest: &Manifest) -> Result<(), String> {
    let bad = manifest.files().into_iter().find(|file| !paths::is_well_formed(&file.path));
    bad.map_or(Ok(()), |file| {
        let shown: String = file.path.chars().take(100).collect();
        Err(format!("path {shown:?} is not allowed"))
    })
}

/// All runs with the operators that list them, by path: in one piece, since a manifest that is read may hold any number.
fn runs_by_path(manifest: &Manifest) -> Vec<(&Run, &Uid)> {
    let runs_of = |operator: &OperatorSnapshot| -> usize {
        operator.subtasks.iter().map(|subtask| subtask.runs.len()).sum()
    };
    let mut runs = Vec::with_capacity(manifest.operators.iter().map(runs_of).sum());
    for operator in &manifest.operators {
        let listed = operator.subtasks.iter().flat_map(|subtask| &subtask.runs);
        runs.extend(listed.map(|run| (run, &operator.uid)));
    }
    runs.sort_unstable_by(|(a, _), (b, _)| a.file.path.cmp(&b.file.path));
    runs
}

/// No two operators share a run. Its identity may name another uid: the operator was renamed since.
fn run_of_one_operator(manifest: &Manifest) -> Result<(), String> {
    let runs = runs_by_path(manifest);
    let shared =
        runs.windows(2).find(|pair| pair[0].0.file.path == pair[1].0.file.path && pair[0].1 != pair[1].1);
    shared.map_or(Ok(()), |pair| {
        let (run, first, other) = (pair[0].0, pair[0].1, pair[1].1);
        Err(format!("run {} belongs to operators {first} and {other}", run.file.path))
    })
}

/// A file that stands in several lists is described the same in each.
fn one_description_per_file(manifest: &Manifest) -> Result<(), String> {
    // Sorted by path, and of each path every description once.
    let files = manifest.files();
    let two = files.windows(2).find(|pair| pair[0].path == pair[1].path);
    if let Some(pair) = two {
        return Err(format!("file {} is described in two ways", pair[0].path));
    }
    drop(files);
    let runs = runs_by_path(manifest);
    let same_path = |pair: &&[(&Run, &Uid)]| pair[0].0.file.path == pair[1].0.file.path;
    let mut twice = runs.windows(2).filter(same_path);
    let two = twice.find(|pair| pair[0].0.identity != pair[1].0.identity);
    two.map_or(Ok(()), |pair| Err(format!("run {} has two identities", pair[0].0.file.path)))
}
