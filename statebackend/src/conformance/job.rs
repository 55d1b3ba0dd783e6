//! A job of one keyed operator that does what the machine says: it writes runs, merges them, and restores them. Its state is
//! compared with the model after every change and every restore.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    sync::Arc,
};

use env::{Env, Store, sim::Simulation};
use types::{CheckpointId, KeyGroup, KeyGroupRange, Result, Run, SubtaskIndex};

use super::{
    coverage::Coverage,
    machine::{Reference, Transition},
    model::{Change, KEYS, MAX, Model, Outcome, Timer},
    subject::{Handles, Subtask, VALUE, declare, identity},
};
use crate::{
    KeyedState, LiveEntry, MergePolicy, RunCompression, RunSet, StateSummary, copy_canonical, merge,
    plan_merge, restore, run_of, scan, store::KeyValueStore, summarize, verify_run, write_run,
};

/// Opens an empty store in a directory.
type Open<'a> = dyn FnMut(&Path) -> Box<dyn KeyValueStore> + 'a;

/// What stands behind the tables.
pub(super) enum Behind<'a> {
    Nothing,
    /// Stores that are opened in directories of their own below this one.
    Stores {
        dir: PathBuf,
        open: RefCell<&'a mut Open<'a>>,
        opened: Cell<u64>,
    },
}

impl<'a> Behind<'a> {
    pub(super) fn store(dir: &Path, open: &'a mut Open<'a>) -> Self {
        Self::Stores { dir: dir.to_owned(), open: RefCell::new(open), opened: Cell::new(0) }
    }

    /// Empty state of these key groups, with so many cells in the tables if there is a store.
    pub(super) fn state(&self, groups: KeyGroupRange, cells: usize, first: CheckpointId) -> KeyedState {
        let declared = declare().0;
        match self {
            Self::Nothing => KeyedState::new(declared, groups, first),
            Self::Stores { dir, open, opened } => {
                opened.set(opened.get() + 1);
                let store = open.borrow_mut()(&dir.join(opened.get().to_string()));
                KeyedState::with_store(declared, groups, first, store, cells)
            }
        }
    }
}

/// A job, and what it should be.
struct Job<'a, 'b> {
    env: Env,
    store: Arc<dyn Store>,
    behind: &'a Behind<'b>,
    handles: Handles,
    reference: Reference,
    subtasks: Vec<Subtask>,
    /// All runs of the last completed checkpoint.
    completed: Vec<Run>,
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
        let lived = async {
            for transition in transitions {
                applied();
                job.apply(transition).await?;
            }
            job.end().await
        };
        lived.await.unwrap_or_else(|error| panic!("a call failed: {error}"));
        job.coverage
    })
}

impl<'a, 'b> Job<'a, 'b> {
    fn new(env: Env, store: Arc<dyn Store>, behind: &'a Behind<'b>, reference: Reference) -> Self {
        let next = CheckpointId(1);
        let state = behind.state(MAX.all(), reference.cells, next);
        Self {
            env,
            store,
            behind,
            handles: declare().1,
            reference,
            subtasks: vec![Subtask::new(state, 0, 1)],
            completed: Vec::new(),
            next,
            merged: 0,
            unsaved: 0,
            unflipped: 0,
            coverage: Coverage::default(),
        }
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
                let found = owner.change(self.handles, index, change, &before)?;
                assert_eq!(found, expected, "what {change:?} of key {index} gives back");
                self.coverage.changes += 1;
                (self.unsaved, self.unflipped) = (self.unsaved + 1, self.unflipped + 1);
            }
            Transition::Barrier => {
                for subtask in &mut self.subtasks {
                    subtask.state.flip(self.next);
                }
                self.next = self.next.next();
                self.unflipped = 0;
            }
            Transition::Drain(cells) => {
                for subtask in &mut self.subtasks {
                    subtask.state.drain(cells)?;
                }
            }
            Transition::Complete(slice) => {
                if self.seal(slice).await? {
                    self.completed =
                        self.subtasks.iter().flat_map(|subtask| subtask.runs.iter().cloned()).collect();
                    self.coverage.completed += 1;
                    self.unsaved = self.unflipped;
                }
            }
            Transition::Fail(slice) => self.coverage.failed += u64::from(self.seal(slice).await?),
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
                self.compare_snapshot().await?;
                self.restore(parallelism).await?;
            }
            Transition::Prepare(keys) => {
                for subtask in &mut self.subtasks {
                    subtask.prepare(keys)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what lies before barriers; whether there was a barrier.
    async fn seal(&mut self, slice: usize) -> Result<bool> {
        let mut is_sealed = false;
        for subtask in &mut self.subtasks {
            for (_, delta) in subtask.sealed(slice)? {
                is_sealed = true;
                if delta.is_empty() {
                    continue;
                }
                let identity = subtask.next_identity();
                let path = format!("runs/{}-{}.run", subtask.index, identity.number);
                let written = write_run(delta, identity, subtask.groups, RunCompression::Zstd)?;
                let run = run_of(&written, &path);
                self.store.put(&path, written.payload).await?;
                self.coverage.tombstones += run.tombstones;
                subtask.runs.push(run);
            }
        }
        Ok(is_sealed)
    }

    async fn merge(&mut self, index: usize, range: std::ops::Range<usize>) -> Result<()> {
        self.merged += 1;
        let path = format!("runs/merged-{}.run", self.merged);
        let subtask = &mut self.subtasks[index];
        let identity = subtask.next_identity();
        let (env, store, oldest) = (&self.env, &*self.store, range.start == 0);
        let neighbours = &subtask.runs[range.clone()];
        let merged =
            merge(env, store, RunSet::unexpired(neighbours), oldest, identity, &path, RunCompression::Zstd)
                .await?;
        verify_run(env, store, &merged, true).await?;
        subtask.runs.splice(range, [merged]);
        self.coverage.merges += 1;
        Ok(())
    }

    async fn restore(&mut self, parallelism: u32) -> Result<()> {
        let next_run = self.subtasks.iter().map(|subtask| subtask.next_run).max().unwrap_or(1);
        self.note_evicted();
        self.coverage.rescales += u64::from(self.subtasks.len() != parallelism as usize);
        self.coverage.lost_changes += self.unsaved;
        (self.unsaved, self.unflipped) = (0, 0);
        // Those that are gone free what they have before others come.
        self.subtasks.clear();
        for index in 0..parallelism {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let mut state = self.behind.state(groups, self.reference.cells, self.next);
            restore(&self.env, &*self.store, &self.completed, &mut state).await?;
            let mut restored = Subtask::new(state, index, next_run);
            let clip = |run: &Run| Some(Run { groups: run.groups.intersect(groups)?, ..run.clone() });
            restored.runs = self.completed.iter().filter_map(clip).collect();
            self.coverage.restores += 1;
            self.coverage.restores_of_many_runs += u64::from(restored.runs.len() >= Coverage::MANY_RUNS);
            self.subtasks.push(restored);
        }
        if matches!(self.behind, Behind::Nothing) {
            let resident: usize = self.subtasks.iter().map(|subtask| subtask.state.resident_cells()).sum();
            assert_eq!(resident, self.reference.now.residents(), "what was deleted before takes memory");
        }
        self.compare()
    }

    fn note_evicted(&mut self) {
        self.coverage.evicted += self.subtasks.iter().map(|it| it.state.evicted_cells()).sum::<u64>();
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

    /// What lives in the runs of the last completed checkpoint is what a job writes that has done nothing else.
    async fn compare_snapshot(&mut self) -> Result<()> {
        let Some(model) = self.reference.completed.clone() else { return Ok(()) };
        let state = Behind::Nothing.state(MAX.all(), 0, CheckpointId(1));
        let mut fresh = Subtask::new(state, 9, 1);
        fresh.fill(self.handles, &model)?;
        fresh.state.flip(CheckpointId(1));
        let mut runs = Vec::new();
        for (_, delta) in fresh.sealed(1000)? {
            if !delta.is_empty() {
                let written = write_run(delta, identity(9, 1), MAX.all(), RunCompression::None)?;
                runs.push(run_of(&written, "fresh"));
                self.store.put("fresh", written.payload).await?;
            }
        }
        let expected = self.canonical(&runs).await?;
        let found = self.canonical(&self.completed).await?;
        assert_eq!(found, expected, "what the completed checkpoint holds");
        assert_eq!(found.digest(), expected.digest());
        let mut values = 0;
        let visit = |live: LiveEntry<'_>| {
            assert!(!live.entry.is_tombstone(), "a tombstone lives");
            values += usize::from(live.state.name == VALUE);
            Ok(())
        };
        scan(&self.env, &*self.store, RunSet::unexpired(&self.completed), visit).await?;
        assert_eq!(values, model.values.len());
        Ok(())
    }

    async fn canonical(&self, runs: &[Run]) -> Result<StateSummary> {
        let (env, store) = (&self.env, &*self.store);
        let zstd = RunCompression::Zstd;
        let (run, summary) =
            copy_canonical(env, store, RunSet::unexpired(runs), store, "canonical", identity(0, 1), zstd)
                .await?;
        verify_run(env, store, &run, true).await?;
        assert_eq!(run.tombstones, 0);
        assert_eq!(summarize(env, store, RunSet::unexpired(runs)).await?, summary);
        assert_eq!(summarize(env, store, RunSet::unexpired(&[run])).await?, summary);
        store.delete("canonical").await?;
        Ok(summary)
    }

    /// One more checkpoint, a crash, and then all timers fire.
    async fn end(&mut self) -> Result<()> {
        self.compare()?;
        for last in [Transition::Barrier, Transition::Complete(3), Transition::Crash(3)] {
            self.apply(&last).await?;
        }
        for index in 0..KEYS {
            for change in [Change::Fire(i64::MAX), Change::FireProcessing(i64::MAX)] {
                while self.has_timer(index, &change) {
                    self.apply(&Transition::Change(index, change.clone())).await?;
                }
            }
        }
        let Model { event_timers, processing_timers, .. } = &self.reference.now;
        assert!(event_timers.is_empty() && processing_timers.is_empty(), "a timer did not fire");
        self.note_evicted();
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
