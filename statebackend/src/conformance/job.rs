//! A job of one keyed operator that does what the machine says: it writes runs, merges them, and restores them. Its
//! state is compared with the model after every change and every restore.

use std::sync::Arc;

use env::{Env, Store, sim::Simulation};
use types::{CheckpointId, ExpiryClocks, KeyGroup, Result, Run, SubtaskIndex};

use super::{
    behind::Behind,
    coverage::Coverage,
    expiring,
    machine::{Reference, Transition},
    model::{Change, KEYS, MAX, Model, Outcome, Timer},
    snapshot::{Snapshot, joined},
    subject::{Handles, Subtask, declare},
};
use crate::{MergePolicy, RunCompression, RunSet, merge, plan_merge, restore, run_of, verify_run, write_run};

/// A job, and what it should be.
struct Job<'a, 'b> {
    env: Env,
    store: Arc<dyn Store>,
    behind: &'a Behind<'b>,
    handles: Handles,
    reference: Reference,
    subtasks: Vec<Subtask>,
    /// Until when state had expired at the barriers whose checkpoints are still being written.
    flipped: Vec<ExpiryClocks>,
    /// Whether cells waited at the newest barrier, and at that of the last completed checkpoint.
    waited: (bool, bool),
    /// The last completed checkpoint.
    completed: Snapshot,
    next: CheckpointId,
    merged: u64,
    /// Changes since the last completed checkpoint's barrier, and since the newest one.
    unsaved: u64,
    unflipped: u64,
    coverage: Coverage,
}

/// Takes a job through `transitions` and compares it with its model.
pub(super) fn live(
    behind: &Behind<'_>,
    reference: Reference,
    transitions: &[Transition],
    applied: &dyn Fn(),
) -> Coverage {
    Simulation::new(reference.seed).run(async |env: Env| {
        let store = env.open_store("memory:state").expect("memory is there");
        let mut job = Job::new(env, store, behind, reference);
        let dropped = behind.dropped();
        let lived = async {
            for transition in transitions {
                applied();
                job.apply(transition).await?;
            }
            job.end().await
        };
        lived.await.unwrap_or_else(|error| panic!("a call failed: {error}"));
        job.coverage.dropped_by_store = behind.dropped() - dropped;
        job.coverage
    })
}

impl<'a, 'b> Job<'a, 'b> {
    fn new(env: Env, store: Arc<dyn Store>, behind: &'a Behind<'b>, reference: Reference) -> Self {
        let next = CheckpointId(1);
        let state = behind.state(MAX.all(), reference.cells, next);
        let mut job = Self {
            env,
            store,
            behind,
            handles: declare().1,
            reference,
            subtasks: vec![Subtask::new(state, 0, 1)],
            flipped: Vec::new(),
            waited: (false, false),
            completed: Snapshot::default(),
            next,
            merged: 0,
            unsaved: 0,
            unflipped: 0,
            coverage: Coverage::default(),
        };
        job.tell();
        job
    }

    async fn apply(&mut self, transition: &Transition) -> Result<()> {
        let before = match transition {
            Transition::Change(..) => self.reference.now.clone(),
            _ => Model::default(),
        };
        let expected = self.reference.make(transition);
        match *transition {
            Transition::Change(index, ref change) => {
                let owner = self.subtasks.iter_mut().find(|subtask| subtask.owns(index));
                let owner = owner.expect("each key group has an owner");
                let asked = owner.state.made_cells().asked;
                let found = owner.change(self.handles, index, change, &before)?;
                self.coverage.note_change(change, owner.state.made_cells().asked - asked);
                assert_eq!(found, expected, "what {change:?} of key {index} gives back");
                self.coverage.changes += 1;
                (self.unsaved, self.unflipped) = (self.unsaved + 1, self.unflipped + 1);
            }
            Transition::Barrier => {
                for subtask in &mut self.subtasks {
                    subtask.state.flip(self.next);
                }
                self.flipped.push(joined(&self.subtasks)?);
                self.waited.0 = self.waiting() > 0;
                self.next = self.next.next();
                self.unflipped = 0;
            }
            Transition::Drain(cells) => {
                for subtask in &mut self.subtasks {
                    subtask.state.drain(cells)?;
                }
            }
            Transition::Complete(slice) => {
                if let Some(clocks) = self.seal(slice).await? {
                    self.completed = Snapshot::of(&self.subtasks, clocks);
                    let model = self.reference.completed.as_deref().expect("there was a barrier");
                    self.completed.compare(&self.env, &*self.store, self.handles, model).await?;
                    self.waited.1 = self.waited.0;
                    self.coverage.completed += 1;
                    self.coverage.completed_waiting += u64::from(self.waiting() > 0);
                    self.unsaved = self.unflipped;
                }
            }
            Transition::Fail(slice) => {
                self.coverage.failed += u64::from(self.seal(slice).await?.is_some());
            }
            Transition::Merge(start, len) => {
                for index in 0..self.subtasks.len() {
                    if start + len <= self.subtasks[index].runs.len() {
                        self.merge(index, start..start + len).await?;
                    }
                }
            }
            Transition::MergeByPolicy => {
                let policy = MergePolicy { max_runs: 4, fan_in: 3, ..MergePolicy::default() };
                for index in 0..self.subtasks.len() {
                    while let Some(range) = plan_merge(&self.subtasks[index].runs, &policy) {
                        self.merge(index, range).await?;
                    }
                }
            }
            Transition::Crash(parallelism) => {
                self.restore(parallelism).await?;
            }
            Transition::Prepare(keys) => {
                for subtask in &mut self.subtasks {
                    let before = subtask.state.cell_count();
                    subtask.prepare(keys)?;
                    if matches!(self.behind, Behind::Nothing) {
                        self.coverage.dropped_cells += (before - subtask.state.cell_count()) as u64;
                    }
                }
            }
            Transition::Make(cells) => {
                for subtask in &mut self.subtasks {
                    subtask.state.make_waiting(cells)?;
                }
            }
            Transition::Advance(..) => self.tell(),
        }
        Ok(())
    }

    /// Tells the subtasks how late it is, if anybody knows.
    fn tell(&mut self) {
        for (subtask, told) in self.subtasks.iter_mut().zip(self.reference.now.clocks.told()) {
            told.into_iter().for_each(|told| subtask.tell(told));
        }
    }

    /// Writes what lies before barriers; the clocks at the newest, if there was one.
    async fn seal(&mut self, slice: usize) -> Result<Option<ExpiryClocks>> {
        for subtask in &mut self.subtasks {
            for (_, delta) in subtask.sealed(slice)? {
                if delta.is_empty() {
                    continue;
                }
                let identity = subtask.next_identity();
                let path = format!("runs/{}-{}.run", subtask.index, identity.number);
                let written = write_run(delta, identity, subtask.groups, RunCompression::Zstd)?;
                let run = run_of(&written, &path);
                self.store.put(&path, written.payload).await?;
                self.coverage.tombstones += run.tombstones;
                subtask.runs.push(run.clone());
                subtask.unmerged.push(run);
            }
        }
        Ok(std::mem::take(&mut self.flipped).pop())
    }

    async fn merge(&mut self, index: usize, range: std::ops::Range<usize>) -> Result<()> {
        self.merged += 1;
        let path = format!("runs/merged-{}.run", self.merged);
        let subtask = &mut self.subtasks[index];
        let identity = subtask.next_identity();
        let (env, store, oldest) = (&self.env, &*self.store, range.start == 0);
        let neighbours = subtask.runs[range.clone()].to_vec();
        // What had not expired at a barrier must be there when its checkpoint completes.
        let clocks =
            self.flipped.first().map_or_else(|| subtask.state.expiry_clocks(), |it| Some(it.clone()));
        let (clocks, zstd) = (clocks.unwrap_or_default(), RunCompression::Zstd);
        let all = RunSet::unexpired(&neighbours);
        let all = merge(env, store, all, oldest, identity.clone(), "all", zstd).await?;
        store.delete("all").await?;
        let living = RunSet::new(&neighbours, &clocks);
        let merged = merge(env, store, living, oldest, identity, &path, zstd).await?;
        verify_run(env, store, &merged, true).await?;
        subtask.runs.splice(range, [merged.clone()]);
        self.coverage.merges += 1;
        let values = |run: &Run| run.entries - run.tombstones;
        self.coverage.left_out += values(&all) - values(&merged);
        self.coverage.hidden += merged.tombstones - all.tombstones;
        if !self.flipped.is_empty() {
            let now = self.subtasks[index].state.expiry_clocks().unwrap_or_default();
            let identity = merged.identity.clone();
            let (env, store) = (&self.env, &*self.store);
            let living =
                merge(env, store, RunSet::new(&neighbours, &now), oldest, identity, "now", zstd).await?;
            store.delete("now").await?;
            self.coverage.kept += values(&merged) - values(&living);
        }
        Ok(())
    }

    async fn restore(&mut self, parallelism: u32) -> Result<()> {
        let next_run = self.subtasks.iter().map(|subtask| subtask.next_run).max().unwrap_or(1);
        self.note_gone();
        let is_rescale = self.subtasks.len() != parallelism as usize;
        self.coverage.rescales += u64::from(is_rescale);
        self.coverage.rescales_of_waiting += u64::from(is_rescale && self.waited.1);
        self.coverage.lost_changes += self.unsaved;
        let has_expired = self.reference.now.living() != self.reference.now.expiring;
        self.coverage.restores_of_expired += u64::from(has_expired);
        (self.unsaved, self.unflipped) = (0, 0);
        // Those that are gone free what they have before others come.
        self.subtasks.clear();
        self.flipped.clear();
        if matches!(self.behind, Behind::Nothing) {
            // Reading all makes all cells, so those that are gone on with are others.
            self.subtasks = self.restored(parallelism, next_run).await?;
            for subtask in &mut self.subtasks {
                while subtask.state.make_waiting(3)? > 0 {}
            }
            let resident: usize = self.subtasks.iter().map(|subtask| subtask.state.resident_cells()).sum();
            let expected = self.reference.now.residents();
            assert!(
                expected.contains(&resident),
                "{resident} cells of {expected:?}: what is gone takes memory"
            );
            self.tell();
            self.compare()?;
        }
        self.subtasks = self.restored(parallelism, next_run).await?;
        for subtask in &self.subtasks {
            self.coverage.restores += 1;
            self.coverage.restores_of_many_runs += u64::from(subtask.runs.len() >= Coverage::MANY_RUNS);
        }
        // Of a checkpoint that is gone on from, nobody has said yet how late it is: what had expired there still has.
        self.tell();
        if matches!(self.behind, Behind::Nothing) { Ok(()) } else { self.compare() }
    }

    /// So many subtasks with the state of the last completed checkpoint.
    async fn restored(&self, parallelism: u32, next_run: u64) -> Result<Vec<Subtask>> {
        let mut subtasks = Vec::new();
        for index in 0..parallelism {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let mut state = self.behind.state(groups, self.reference.cells, self.next);
            if let Some(cells) = self.reference.made_per_batch {
                state.set_made_per_batch(cells);
            }
            state.restore_expiry_clocks(&self.completed.clocks);
            restore(&self.env, &*self.store, &self.completed.runs, &mut state).await?;
            let mut restored = Subtask::new(state, index, next_run);
            let clip = |run: &Run| Some(Run { groups: run.groups.intersect(groups)?, ..run.clone() });
            restored.runs = self.completed.runs.iter().filter_map(clip).collect();
            restored.unmerged = self.completed.unmerged.iter().filter_map(clip).collect();
            subtasks.push(restored);
        }
        Ok(subtasks)
    }

    /// Cells that wait since a restore.
    fn waiting(&self) -> usize {
        self.subtasks.iter().map(|subtask| subtask.state.waiting_cells()).sum()
    }

    /// Takes note of what subtasks have done that are about to go.
    fn note_gone(&mut self) {
        for subtask in &self.subtasks {
            let made = subtask.state.made_cells();
            self.coverage.evicted += subtask.state.evicted_cells();
            self.coverage.made_asked += made.asked;
            self.coverage.made_unasked += made.unasked;
            self.coverage.expired_waiting += made.expired;
        }
    }

    /// Compares everything that can be read.
    fn compare(&mut self) -> Result<()> {
        let model = &self.reference.now;
        for index in 0..KEYS {
            let owner = self.subtasks.iter_mut().find(|subtask| subtask.owns(index));
            owner.expect("each key group has an owner").compare(self.handles, index, model)?;
        }
        for subtask in &self.subtasks {
            let first = |timers: &std::collections::BTreeSet<Timer>| {
                let mut owned = timers.iter().filter(|timer| subtask.groups.contains(KeyGroup(timer.1)));
                owned.next().map(|timer| timer.0)
            };
            let (event, processing) =
                (subtask.state.next_event_timer(), subtask.state.next_processing_timer());
            assert_eq!(event.map(|at| at.0), first(&model.event_timers), "the next event-time timer");
            assert_eq!(
                processing.map(|at| at.0),
                first(&model.processing_timers),
                "the next processing-time timer"
            );
        }
        Ok(())
    }

    /// One more checkpoint, a crash, and then all timers fire.
    async fn end(&mut self) -> Result<()> {
        self.compare()?;
        for last in [Transition::Barrier, Transition::Complete(3), Transition::Crash(3)] {
            self.apply(&last).await?;
        }
        for index in 0..KEYS {
            let read = Change::Expiring(0, expiring::Change::Read);
            self.apply(&Transition::Change(index, read)).await?;
            for change in [Change::Fire(i64::MAX), Change::FireProcessing(i64::MAX)] {
                while self.has_timer(index, &change) {
                    self.apply(&Transition::Change(index, change.clone())).await?;
                }
            }
        }
        let Model { event_timers, processing_timers, .. } = &self.reference.now;
        assert!(event_timers.is_empty() && processing_timers.is_empty(), "a timer did not fire");
        self.note_gone();
        Ok(())
    }

    /// Whether such a change would fire a timer, by the state and by the model.
    fn has_timer(&self, index: usize, change: &Change) -> bool {
        let mut model = self.reference.now.clone();
        let expected = model.change(index, change, self.reference.parallelism) != Outcome::Timer(None);
        let owner = self.subtasks.iter().find(|subtask| subtask.owns(index));
        let state = &owner.expect("each key group has an owner").state;
        let next = match change {
            Change::Fire(_) => state.next_event_timer(),
            _ => state.next_processing_timer(),
        };
        assert_eq!(next.is_some(), expected, "whether a timer is left");
        expected
    }
}
