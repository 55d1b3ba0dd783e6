//! What has happened in random jobs: a suite that passes because nothing happens would prove nothing.

use super::{expiring, model::Change};

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Changes of state.
    pub changes: u64,
    /// Cells that left the tables for the stores.
    pub evicted: u64,
    /// Runs that were merged from several.
    pub merges: u64,
    /// Tombstones in runs: deletes and clears.
    pub tombstones: u64,
    /// Checkpoints that completed.
    pub completed: u64,
    /// Checkpoints that failed after some of their runs were written.
    pub failed: u64,
    /// Subtasks that were restored, by whatever.
    pub restores: u64,
    /// Those of them that read at least [`MANY_RUNS`](Self::MANY_RUNS) runs.
    pub restores_of_many_runs: u64,
    /// Crashes after which there were more subtasks, or fewer.
    pub rescales: u64,
    /// Changes, taken back by a crash, that were in no completed checkpoint.
    pub lost_changes: u64,
    /// Entries and chunks of lists that merges left out, since they had expired.
    pub left_out: u64,
    /// Tombstones that merges wrote for some of them, since older runs may have a value of the same place that lives
    /// longer.
    pub hidden: u64,
    /// Entries and chunks of lists that merges kept for a checkpoint under way, though they had expired since.
    pub kept: u64,
    /// Cells, elements and entries that tables without a store dropped, since they had expired.
    pub dropped_cells: u64,
    /// Entries that the store dropped for that reason. None is no fault: a store may keep them.
    pub dropped_by_store: u64,
    /// Crashes after which something had expired.
    pub restores_of_expired: u64,
    /// Cells that waited after a restore, and were made when their keys were asked for.
    pub made_asked: u64,
    /// Those that were made before anybody asked.
    pub made_unasked: u64,
    /// Those that had expired when their turn came.
    pub expired_waiting: u64,
    /// Deletions of values that waited.
    pub deleted_waiting: u64,
    /// Other changes of such values.
    pub changed_waiting: u64,
    /// Checkpoints that completed while any waited.
    pub completed_waiting: u64,
    /// Crashes, at another parallelism, after which a checkpoint was restored at whose barrier some had waited.
    pub rescales_of_waiting: u64,
}

impl Coverage {
    /// So many runs of one subtask are many: more than a merge reads at once here.
    pub const MANY_RUNS: usize = 5;

    pub(super) fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.evicted += other.evicted;
        self.merges += other.merges;
        self.tombstones += other.tombstones;
        self.completed += other.completed;
        self.failed += other.failed;
        self.restores += other.restores;
        self.restores_of_many_runs += other.restores_of_many_runs;
        self.rescales += other.rescales;
        self.lost_changes += other.lost_changes;
        self.left_out += other.left_out;
        self.hidden += other.hidden;
        self.kept += other.kept;
        self.dropped_cells += other.dropped_cells;
        self.dropped_by_store += other.dropped_by_store;
        self.restores_of_expired += other.restores_of_expired;
        self.made_asked += other.made_asked;
        self.made_unasked += other.made_unasked;
        self.expired_waiting += other.expired_waiting;
        self.deleted_waiting += other.deleted_waiting;
        self.changed_waiting += other.changed_waiting;
        self.completed_waiting += other.completed_waiting;
        self.rescales_of_waiting += other.rescales_of_waiting;
    }

    /// Takes note of a change for which so many values were made that had waited.
    pub(super) fn note_change(&mut self, change: &Change, asked: u64) {
        use expiring::Change as Expiring;
        match change {
            Change::Remove
            | Change::TakeLongest
            | Change::ClearMean
            | Change::Expiring(
                _,
                Expiring::Take | Expiring::TakeLongest | Expiring::ClearMean | Expiring::TakeClocked,
            ) => self.deleted_waiting += asked,
            Change::Set(_)
            | Change::Increment
            | Change::Reduce(_)
            | Change::Aggregate(_)
            | Change::Merge(_)
            | Change::Expiring(_, Expiring::Set(_) | Expiring::Add(_) | Expiring::SetClocked(_)) => {
                self.changed_waiting += asked;
            }
            _ => {}
        }
    }

    /// Whether enough has happened.
    pub(super) fn check(&self, is_full: bool, evicts: bool) -> Result<(), String> {
        if !is_full {
            return Ok(());
        }
        // With a store behind nothing waits.
        let waits = |least| if evicts { 0 } else { least };
        let least = [
            ("changes", self.changes, 5_000),
            ("evicted cells", self.evicted, if evicts { 1_000 } else { 0 }),
            ("merges", self.merges, 50),
            ("tombstones", self.tombstones, 150),
            ("completed checkpoints", self.completed, 100),
            ("failed checkpoints", self.failed, 50),
            ("restores of many runs", self.restores_of_many_runs, 50),
            ("rescales", self.rescales, 50),
            ("lost changes", self.lost_changes, 500),
            ("entries that merges left out", self.left_out, 100),
            ("tombstones for what had expired", self.hidden, 10),
            ("expired entries that merges kept for a checkpoint under way", self.kept, 5),
            ("expired cells dropped by tables", self.dropped_cells, waits(100)),
            ("crashes after which something had expired", self.restores_of_expired, 50),
            ("waiting cells made when asked for", self.made_asked, waits(200)),
            ("waiting cells made unasked", self.made_unasked, waits(100)),
            ("waiting cells that expired", self.expired_waiting, waits(20)),
            ("deletions of waiting values", self.deleted_waiting, waits(5)),
            ("other changes of waiting values", self.changed_waiting, waits(15)),
            ("checkpoints completed while some waited", self.completed_waiting, waits(15)),
            ("rescales from a checkpoint while some waited", self.rescales_of_waiting, waits(5)),
        ];
        let missing = least.into_iter().find(|(_, found, least)| found < least);
        missing.map_or(Ok(()), |(what, found, least)| {
            Err(format!("only {found} {what} of at least {least}: this proves too little ({self:?})"))
        })
    }
}
