//! What a completed checkpoint holds: compared with what a job would write that has done nothing else, and with what
//! the runs would hold that were never merged.

use env::{Env, Store};
use types::{CheckpointId, ExpiryClocks, KeyGroup, NOTHING_EXPIRED, Result, Run};

use super::{
    behind::Behind,
    model::{MAX, Model},
    subject::{Handles, Subtask, VALUE, identity},
};
use crate::{
    LiveEntry, RunCompression, RunSet, StateSummary, copy_canonical, run_of, scan, summarize, verify_run,
    write_run,
};

/// All subtasks' parts.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) runs: Vec<Run>,
    /// The same, had there never been a merge.
    pub(super) unmerged: Vec<Run>,
    /// Until when state had expired at the barrier.
    pub(super) clocks: ExpiryClocks,
}

/// The clocks of all subtasks, joined as a restore joins them.
pub(super) fn joined(subtasks: &[Subtask]) -> Result<ExpiryClocks> {
    let clocks = subtasks.iter().filter_map(|subtask| subtask.state.expiry_clocks());
    let elements = clocks.map(|clocks| clocks.to_elements()).collect::<Result<Vec<_>>>()?.concat();
    ExpiryClocks::from_elements(elements.iter().map(Vec::as_slice))
}

impl Snapshot {
    pub(super) fn of(subtasks: &[Subtask], clocks: ExpiryClocks) -> Self {
        let all = |runs: fn(&Subtask) -> &Vec<Run>| subtasks.iter().flat_map(runs).cloned().collect();
        Self { runs: all(|it| &it.runs), unmerged: all(|it| &it.unmerged), clocks }
    }

    /// Compares it with `model`, the one at its barrier.
    pub(super) async fn compare(
        &self,
        env: &Env,
        store: &dyn Store,
        handles: Handles,
        model: &Model,
    ) -> Result<()> {
        for group in (0..MAX.0).map(KeyGroup) {
            assert_eq!(self.clocks.at(group), model.clocks.at(group), "the clock of key group {group:?}");
        }
        let mut fresh = Subtask::new(Behind::Nothing.state(MAX.all(), 0, CheckpointId(1)), 9, 1);
        fresh.fill(handles, model)?;
        fresh.state.flip(CheckpointId(1));
        let mut runs = Vec::new();
        for (_, delta) in fresh.sealed(1000)? {
            if !delta.is_empty() {
                let written = write_run(delta, identity(9, 1), MAX.all(), RunCompression::None)?;
                runs.push(run_of(&written, "fresh"));
                store.put("fresh", written.payload).await?;
            }
        }
        let expected = canonical(env, store, RunSet::new(&runs, &NOTHING_EXPIRED)).await?;
        let of = RunSet::new(&self.runs, &self.clocks);
        let found = canonical(env, store, of).await?;
        assert_eq!(found, expected, "what the completed checkpoint holds");
        assert_eq!(found.digest(), expected.digest());
        let unmerged = canonical(env, store, RunSet::new(&self.unmerged, &self.clocks)).await?;
        assert_eq!(unmerged, found, "what the completed checkpoint would hold without merges");
        let mut values = 0;
        let visit = |live: LiveEntry<'_>| {
            assert!(!live.entry.is_tombstone(), "a tombstone lives");
            values += usize::from(live.state.name == VALUE);
            Ok(())
        };
        scan(env, store, of, visit).await?;
        assert_eq!(values, model.values.len());
        Ok(())
    }
}

async fn canonical(env: &Env, store: &dyn Store, of: RunSet<'_>) -> Result<StateSummary> {
    let (identity, zstd) = (identity(0, 1), RunCompression::Zstd);
    let (run, summary) = copy_canonical(env, store, of, store, "canonical", identity, zstd).await?;
    verify_run(env, store, &run, true).await?;
    assert_eq!(run.tombstones, 0);
    assert_eq!(summarize(env, store, of).await?, summary);
    assert_eq!(summarize(env, store, RunSet::new(&[run], of.clocks)).await?, summary);
    store.delete("canonical").await?;
    Ok(summary)
}
