//! Every path below a checkpoint directory is built and recognised here, and nowhere else.
//!
//! The name of a file carries the attempt that writes it, so that no two attempts ever write the same name.
//!
//! ```text
//! history/<20 digits>                                   a history record
//! latest                                                the hint: the number of a recent record
//! job.lock                                              held by the running process (local directories only)
//! probe/<32 hex digits>                                 left by a start-up probe that died
//! attempt-<n>/manifest-<checkpoint>
//! attempt-<n>/runs/<uid>/<subtask>-<number>.run
//! attempt-<n>/prepared/<uid>/<subtask>-<checkpoint>
//! attempt-<n>/restored/<uid>/<subtask>-<number>.run     copied from a snapshot that the job does not own
//! ```

use types::{AttemptId, CheckpointId, RecordNumber, SubtaskIndex, Uid};

/// The hint that names a recent record of the history.
pub const LATEST: &str = "latest";
/// The lock file beside the objects of a local directory.
pub const LOCK: &str = "job.lock";
/// Where the history's records are.
pub const HISTORY: &str = "history/";
/// Where the start-up probe writes.
pub const PROBE: &str = "probe/";
/// The manifest of a savepoint directory.
pub const SAVEPOINT_MANIFEST: &str = "manifest";
/// Says, in a savepoint directory, that it is not whole yet, and whose it is.
pub const SAVEPOINT_PARTIAL: &str = "partial";
/// Held, in a local savepoint directory, by whoever copies into it.
pub const SAVEPOINT_LOCK: &str = "copy.lock";
/// Says, in a savepoint directory, that the savepoint is being deleted, and what belongs to it.
pub const SAVEPOINT_DELETED: &str = "deleted";
/// Where a savepoint's runs are.
pub const SAVEPOINT_RUNS: &str = "runs/";

const DIGITS: usize = 20;

/// The path of a history record.
#[must_use]
pub fn record(number: RecordNumber) -> String {
    format!("{HISTORY}{:0DIGITS$}", number.0)
}

/// The path of the manifest of a checkpoint that `attempt` takes.
#[must_use]
pub fn manifest(attempt: AttemptId, checkpoint: CheckpointId) -> String {
    format!("attempt-{attempt}/manifest-{checkpoint}")
}

/// The path of the run that a subtask writes as its `number`th in `attempt`.
#[must_use]
pub fn run(attempt: AttemptId, operator: &Uid, subtask: SubtaskIndex, number: u64) -> String {
    format!("attempt-{attempt}/runs/{operator}/{subtask}-{number}.run")
}

/// The path of the rows that a sink's subtask prepared for `checkpoint`.
#[must_use]
pub fn prepared(
    attempt: AttemptId,
    operator: &Uid,
    subtask: SubtaskIndex,
    checkpoint: CheckpointId,
) -> String {
    format!("attempt-{attempt}/prepared/{operator}/{subtask}-{checkpoint}")
}

/// The path of the `number`th file that `attempt` copies from a foreign snapshot for a subtask of that snapshot.
#[must_use]
pub fn restored(attempt: AttemptId, operator: &Uid, subtask: SubtaskIndex, number: usize) -> String {
    format!("attempt-{attempt}/restored/{operator}/{subtask}-{number}.run")
}

/// The path of the `number`th run of a subtask in a savepoint directory, as it is written by one of several tries that
/// may go on at once, if there are such.
#[must_use]
pub fn savepoint_run(operator: &Uid, subtask: SubtaskIndex, number: usize, copy: Option<u64>) -> String {
    let copy = copy.map_or_else(String::new, |copy| format!("-{copy:016x}"));
    format!("{SAVEPOINT_RUNS}{operator}/{subtask}-{number}{copy}.run")
}

/// What a path below a checkpoint directory names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A history record.
    Record(RecordNumber),
    /// A file of an attempt.
    Attempt(AttemptId),
    /// The hint, the lock, or what a probe left.
    Aside,
    /// Not one of ours.
    Unknown,
}

/// Recognises a path found by a listing.
#[must_use]
pub fn kind(path: &str) -> PathKind {
    if path == LATEST || path == LOCK || path.starts_with(PROBE) {
        return PathKind::Aside;
    }
    if path.starts_with(HISTORY) {
        return record_number(path).map_or(PathKind::Unknown, PathKind::Record);
    }
    let attempt = path.strip_prefix("attempt-").and_then(|rest| rest.split_once('/'));
    match attempt.and_then(|(digits, _)| number(digits)) {
        Some(attempt) => PathKind::Attempt(AttemptId(attempt)),
        None => PathKind::Unknown,
    }
}

/// The number of the history record that a path names, if it names one.
#[must_use]
pub fn record_number(path: &str) -> Option<RecordNumber> {
    let digits = path.strip_prefix(HISTORY).filter(|digits| digits.len() == DIGITS)?;
    number(digits).map(RecordNumber)
}

/// Whether a path read from a file may be used: `[0-9a-z._/-]+`, no empty part, no `.` or `..`.
#[must_use]
pub fn is_well_formed(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || b"._-".contains(&byte);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed);
    path.len() <= MAX_PATH && path.split('/').all(part)
}

/// The greatest length of a path, in bytes.
const MAX_PATH: usize = 512;

/// Digits only: `parse` alone would take a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn built_paths_are_well_formed_and_recognised() {
        let uid = Uid::new("count").unwrap();
        let (attempt, subtask, checkpoint) = (AttemptId(12), SubtaskIndex(3), CheckpointId(40));
        assert_eq!(record(RecordNumber(7)), "history/00000000000000000007");
        assert_eq!(record(RecordNumber(u64::MAX)), "history/18446744073709551615");
        assert_eq!(kind(&record(RecordNumber(u64::MAX))), PathKind::Record(RecordNumber(u64::MAX)));
        for (path, text) in [
            (manifest(attempt, checkpoint), "attempt-12/manifest-40"),
            (run(attempt, &uid, subtask, 9), "attempt-12/runs/count/3-9.run"),
            (prepared(attempt, &uid, subtask, checkpoint), "attempt-12/prepared/count/3-40"),
            (restored(attempt, &uid, subtask, 0), "attempt-12/restored/count/3-0.run"),
        ] {
            assert_eq!(path, text);
            assert_eq!(kind(&path), PathKind::Attempt(attempt));
            assert!(is_well_formed(&path));
        }
        for aside in [LATEST, LOCK, "probe/00ff"] {
            assert_eq!(kind(aside), PathKind::Aside);
        }
    }

    #[test]
    fn foreign_and_dangerous_paths_are_refused() {
        for path in ["", "/", "a//b", "../a", "a/..", "./a", "/etc/passwd", "a\\b", "A", "a b", "a\0", "é"] {
            assert!(!is_well_formed(path), "{path:?}");
        }
        for path in
            ["history/7", "history/0000000000000000000x", "history/+0000000000000000007", "attempt-", "x"]
        {
            assert_eq!(kind(path), PathKind::Unknown, "{path}");
        }
        assert_eq!(kind("attempt-+1/x"), PathKind::Unknown);
        assert_eq!(kind("history/99999999999999999999"), PathKind::Unknown, "above u64");
    }
}
