//! Which neighbouring runs to merge. Pure: the same list gives the same answer.
//!
//! Two bounds are kept: the number of runs, so that a restore stays quick, and their size against the live state, so that
//! space does. Within them each byte is rewritten as rarely as possible: of all neighbours that could be merged to remove
//! a run, those with the fewest bytes per removed run are taken, so large runs wait until there are many of them.

use std::ops::Range;

use types::Run;

/// The bounds that merging keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// Merging begins when there are this many runs.
    pub max_runs: usize,
    /// How many neighbours are merged at once, at most; at least 2.
    pub fan_in: usize,
    /// How many bytes all runs may have for each 100 bytes of live state, estimated.
    pub max_space_percent: u64,
    /// From how many bytes on a run that holds all that lived replaces the older ones as it is, unmerged. To merge
    /// smaller ones costs nothing worth the trouble.
    pub replace_from: u64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { max_runs: 12, fan_in: 10, max_space_percent: 200, replace_from: 1 << 20 }
    }
}

/// What a run costs to rewrite even if it is tiny: opening and writing files.
const FILE_COST: u64 = 4 << 10;

/// The neighbours to merge now, as a range of `runs` (oldest first); `None` if both bounds are kept.
#[must_use]
pub fn plan_merge(runs: &[Run], policy: &MergePolicy) -> Option<Range<usize>> {
    if runs.len() < 2 {
        return None;
    }
    if wastes_space(runs, policy.max_space_percent) {
        return Some(0..runs.len());
    }
    (runs.len() >= policy.max_runs).then(|| cheapest(runs, policy.fan_in.max(2)))
}

/// Whether the runs after the oldest one hide or repeat so much that all should be rewritten. An update hides as much as it
/// adds; a tombstone hides an entry of average size and adds nothing that lives.
fn wastes_space(runs: &[Run], max_percent: u64) -> bool {
    let Some((oldest, newer)) = runs.split_first() else { return false };
    let average = oldest.plain_bytes.checked_div(oldest.entries.max(1)).unwrap_or(0);
    let hidden = newer.iter().map(|run| run.tombstones).sum::<u64>().saturating_mul(average);
    let added = newer.iter().map(|run| run.plain_bytes).sum::<u64>();
    let live = oldest.plain_bytes.saturating_sub(hidden);
    let all = oldest.plain_bytes.saturating_add(added);
    // The live state is at least what the oldest run keeps; small states are not worth the trouble.
    all > live.max(FILE_COST).saturating_mul(max_percent) / 100 && newer.len() > 1
}

/// The neighbours whose merging costs least per run that it removes; of equals the oldest, so that sizes stay sorted.
fn cheapest(runs: &[Run], fan_in: usize) -> Range<usize> {
    let mut best = (0..2, u64::MAX);
    for start in 0..runs.len() - 1 {
        let mut bytes = cost(&runs[start]);
        for (removed, run) in (1_u64..).zip(&runs[start + 1..]).take(fan_in - 1) {
            bytes += cost(run);
            let each = bytes / removed;
            if each < best.1 {
                best = (start..start + removed as usize + 1, each);
            }
        }
    }
    best.0
}

fn cost(run: &Run) -> u64 {
    run.plain_bytes.saturating_add(FILE_COST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use types::{AttemptId, Digest, JobId, KeyGroupRange, RunIdentity, SnapshotFile, SubtaskIndex, Uid};

    use super::*;

    fn run(entries: u64, tombstones: u64, plain_bytes: u64) -> Run {
        let identity = RunIdentity {
            job: JobId(1),
            attempt: AttemptId(1),
            operator: Uid::new("a").unwrap(),
            subtask: SubtaskIndex(0),
            number: 1,
        };
        let file = SnapshotFile { path: "r".to_owned(), len: plain_bytes, digest: Digest(0) };
        let groups = KeyGroupRange { start: 0, end: 1 };
        Run { file, identity, groups, without: Vec::new(), entries, tombstones, plain_bytes }
    }

    /// Plays `checkpoints` checkpoints that each change `changed` of `cells` cells of 100 bytes. Returns the greatest
    /// number of runs, the greatest space in per cent of the live state, and the bytes written per checkpoint.
    fn play(checkpoints: u64, cells: u64, changed: u64) -> (usize, u64, u64) {
        let policy = MergePolicy::default();
        let live = cells * 100;
        let mut runs = vec![run(cells, 0, live)];
        let (mut most, mut space, mut written) = (0, 0, 0);
        for _ in 0..checkpoints {
            runs.push(run(changed, 0, changed * 100));
            written += changed * 100;
            while let Some(range) = plan_merge(&runs, &policy) {
                assert!(range.len() >= 2 && range.end <= runs.len());
                // Uniform changes: merged runs overlap little until they are as large as the state.
                let bytes = runs[range.clone()].iter().map(|run| run.plain_bytes).sum::<u64>().min(live);
                written += bytes;
                runs.splice(range, [run(bytes / 100, 0, bytes)]);
            }
            most = most.max(runs.len());
            space = space.max(runs.iter().map(|run| run.plain_bytes).sum::<u64>() * 100 / live);
        }
        (most, space, written / checkpoints)
    }

    #[test]
    fn runs_and_space_stay_bounded_and_little_is_rewritten() {
        // The small-delta goal: 2 M cells of 100 bytes, 1 % changed; at most 10 MB written per checkpoint of 2 MB.
        let (most, space, written) = play(100, 2_000_000, 20_000);
        assert!(
            most < 12 && space <= 200 && written <= 10_000_000,
            "{most} runs, {space} %, {written} bytes"
        );
        let (most, space, _) = play(300, 1000, 1000);
        assert!(most <= 2 && space <= 200, "{most} runs, {space} %");
        let (most, space, _) = play(1000, 100_000, 1);
        assert!(most < 12 && space <= 200, "{most} runs, {space} %");
    }

    #[test]
    fn deletions_make_the_oldest_run_worth_rewriting() {
        let policy = MergePolicy::default();
        let oldest = run(1_000_000, 0, 100_000_000);
        let kept = [oldest.clone(), run(100_000, 100_000, 1_000_000), run(1, 1, 10)];
        assert_eq!(plan_merge(&kept, &policy), None);
        let deleted = [oldest, run(600_000, 600_000, 6_000_000), run(1, 1, 10)];
        assert_eq!(plan_merge(&deleted, &policy), Some(0..3));
    }

    #[test]
    fn nothing_is_merged_alone() {
        assert_eq!(plan_merge(&[], &MergePolicy::default()), None);
        assert_eq!(plan_merge(&[run(1, 1, 100)], &MergePolicy::default()), None);
    }
}
