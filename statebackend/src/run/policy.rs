//! Which neighbouring runs to merge. Pure: the same list gives the same answer.
//!
//! Two bounds are kept: the number of runs, so that a restore stays quick, and their size against the live state, so that
//! space does. Within them each byte is rewritten as rarely as possible: of all neighbours that could be merged to remove
//! a run, those with the fewest bytes per removed run are taken, so large runs wait until there are many of them.
//!
//! Both are kept while a merge lasts, too, so it begins before a bound is reached (`docs/0019-room-for-merges.md` has the
//! sums). Checkpoints add runs meanwhile, and a merge of all runs writes the live state once more before any file goes: to
//! hold three times the live state at the most, the runs together must be well below twice.

use std::ops::Range;

use types::Run;

/// The bounds that merging keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// How many runs there should be at the most; at least [`LEAST_RUNS`](Self::LEAST_RUNS). Merging begins when there is
    /// room for one more.
    pub max_runs: usize,
    /// How many neighbours are merged at once, at most; at least 2.
    pub fan_in: usize,
    /// From how many bytes of all runs on for each 100 bytes of live state, estimated, all are merged into one.
    pub max_space_percent: u64,
    /// The same where there is room for [`ROOM`] more runs: such a merge is the longest, and checkpoints go on meanwhile.
    pub good_space_percent: u64,
    /// From how many bytes on a run that holds all that lived replaces the older ones as it is, unmerged. To merge
    /// smaller ones costs nothing worth the trouble.
    pub replace_from: u64,
}

impl MergePolicy {
    /// The least that [`max_runs`](Self::max_runs) may be: two to be merged, and room for one more.
    pub const LEAST_RUNS: usize = 3;
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self {
            max_runs: 12,
            fan_in: 10,
            max_space_percent: 170,
            good_space_percent: 160,
            replace_from: 1 << 20,
        }
    }
}

/// What a run costs to rewrite even if it is tiny: opening and writing files.
const FILE_COST: u64 = 4 << 10;

/// For how many checkpoints there is room during a merge of all runs, if it can be had.
const ROOM: usize = 3;

/// The neighbours to merge now, as a range of `runs` (oldest first); `None` if both bounds are kept.
#[must_use]
pub fn plan_merge(runs: &[Run], policy: &MergePolicy) -> Option<Range<usize>> {
    if runs.len() < 2 {
        return None;
    }
    let has_room = runs.len() + ROOM <= policy.max_runs;
    let percent = if has_room { policy.good_space_percent } else { policy.max_space_percent };
    if wastes_space(runs, percent) {
        return Some(0..runs.len());
    }
    (runs.len() + 1 >= policy.max_runs).then(|| cheapest(runs, policy.fan_in.max(2)))
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

    /// What a play of checkpoints came to.
    #[derive(Debug, Default)]
    struct Played {
        /// The greatest number of runs that a checkpoint listed.
        runs: usize,
        /// The greatest space of the runs that a checkpoint listed, and of all files at once, in per cent of the live state.
        listed: u64,
        peak: u64,
        /// Bytes written for each 100 bytes of deltas.
        written: u64,
        /// Checkpoints for which an acknowledgement waited, and for how many times the pace of checkpoints in all.
        waited: u64,
    }

    /// Plays checkpoints that each change `changed` of `cells` cells of 100 bytes at random. While one comes, merging reads
    /// `pace` bytes. As the engine does: one merge at a time, three checkpoints are retained, and one that would list more
    /// than `max_runs` runs waits for the merge.
    fn play(checkpoints: u64, cells: u64, changed: u64, pace: u64) -> Played {
        let policy = MergePolicy::default();
        let live = cells * 100;
        let mut files = vec![run(cells, 0, live)];
        // By their place in `files`.
        let (mut list, mut retained) = (vec![0], std::collections::VecDeque::new());
        // The neighbours, the file that they become, and how many bytes are still to be read.
        let mut merging: Option<(Range<usize>, usize, u64)> = None;
        let (mut played, mut written) = (Played::default(), 0);
        for _ in 0..checkpoints {
            files.push(run(changed, 0, changed * 100));
            written += changed * 100;
            list.push(files.len() - 1);
            if let Some((_, _, left)) = &mut merging {
                *left = left.saturating_sub(pace);
                while *left > 0 && list.len() > policy.max_runs {
                    *left = left.saturating_sub(pace);
                    played.waited += 1;
                }
            }
            if let Some((range, file, _)) = merging.take_if(|(_, _, left)| *left == 0) {
                list.splice(range, [file]);
            }
            let size =
                |of: &[usize]| of.iter().map(|&file| files[file].plain_bytes).sum::<u64>() * 100 / live;
            played.runs = played.runs.max(list.len());
            played.listed = played.listed.max(size(&list));
            retained.push_back(list.clone());
            let mut there: Vec<usize> = retained.iter().flatten().copied().collect();
            there.extend(merging.iter().map(|(_, file, _)| *file));
            there.sort_unstable();
            there.dedup();
            played.peak = played.peak.max(size(&there));
            if retained.len() > 3 {
                retained.pop_front();
            }
            if merging.is_some() {
                continue;
            }
            let runs: Vec<Run> = list.iter().map(|&file| files[file].clone()).collect();
            if let Some(range) = plan_merge(&runs, &policy) {
                assert!(range.len() >= 2 && range.end <= runs.len());
                let merged = &runs[range.clone()];
                let absent = |run: &Run| 1.0 - (run.plain_bytes as f64 / live as f64).min(1.0);
                let bytes = (live as f64 * (1.0 - merged.iter().map(absent).product::<f64>())) as u64;
                let read = merged.iter().map(|run| run.plain_bytes).sum();
                written += bytes;
                files.push(run(bytes / 100, 0, bytes));
                merging = Some((range, files.len() - 1, read));
            }
        }
        played.written = written * 100 / (checkpoints * changed * 100);
        played
    }

    #[test]
    fn runs_and_space_stay_bounded_and_little_is_rewritten() {
        // 2 M cells of 100 bytes, of which 1 % change: at most four times the deltas are written, at rest the runs hold
        // twice and with all that is not yet deleted three times the live state.
        for pace in [2_000_000, 8_000_000, 30_000_000, 120_000_000, u64::MAX] {
            let played = play(300, 2_000_000, 20_000, pace);
            let Played { runs, listed, peak, written, waited } = played;
            assert!(runs <= 12 && listed <= 180 && peak <= 290 && written <= 380, "pace {pace}: {played:?}");
            // No checkpoint waits where three are taken while all is merged.
            assert!(waited == 0 || pace < 120_000_000, "pace {pace}: {played:?}");
        }
        // Larger deltas take more room while a merge lasts, smaller ones are merged more often.
        for (cells, changed, most) in
            [(2_000_000, 40_000, 360), (2_000_000, 10_000, 500), (2_000_000, 4_000, 700)]
        {
            let played = play(3 * cells / changed, cells, changed, 120_000_000);
            let Played { runs, listed, peak, written, .. } = played;
            assert!(runs <= 12 && listed <= 190 && peak <= 300 && written <= most, "{changed}: {played:?}");
        }
        let played = play(300, 1000, 1000, u64::MAX);
        assert!(played.runs <= 3 && played.listed <= 300, "{played:?}");
        let played = play(1000, 100_000, 1, u64::MAX);
        assert!(played.runs <= 12 && played.listed <= 180, "{played:?}");
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
