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
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { max_runs: 12, fan_in: 10, max_space_percent: 200 }
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
