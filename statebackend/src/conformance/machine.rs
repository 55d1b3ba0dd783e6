//! The model of a job as a state machine: what may happen to it, how often, and what it should be afterwards.

use std::sync::Arc;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::{
    expiring::{self, Clocks},
    model::{Change, KEYS, Model, Outcome},
};

/// What happens to a job.
#[derive(Clone, Debug)]
pub(super) enum Transition {
    /// To the state of a key.
    Change(usize, Change),
    /// A barrier goes through all subtasks.
    Barrier,
    /// All subtasks drain so many cells.
    Drain(usize),
    /// All that lies before barriers is drained, in slices of so many cells, and written, and the newest checkpoint
    /// completes.
    Complete(usize),
    /// The same, but no checkpoint completes: what was written is part of the next one.
    Fail(usize),
    /// Each subtask merges so many neighbouring runs from this one on, if it has as many.
    Merge(usize, usize),
    /// Each subtask merges what a policy with tiny thresholds says.
    MergeByPolicy,
    /// The job dies, and goes on with so many subtasks from its last completed checkpoint.
    Crash(u32),
    /// The values of some keys are made resident, as those of a batch are; each bit is a key.
    Prepare(u8),
    /// All subtasks make so many cells that wait since a restore, as in an idle moment.
    Make(usize),
    /// Subtasks, whose bits are set, are told how late it is: so much later in event time and in processing time; or
    /// earlier, which must change nothing.
    Advance(u8, i64, i64),
}

/// What a job should be.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    /// The seed of the world in which the job runs.
    pub(super) seed: u64,
    /// The cells that the table of each subtask holds, if there is a store.
    pub(super) cells: usize,
    /// How many cells that wait since a restore are made with each batch, if not as many as the job would.
    pub(super) made_per_batch: Option<usize>,
    pub(super) parallelism: u32,
    pub(super) now: Model,
    /// At the newest barrier of those whose checkpoints are still being written.
    pub(super) flipped: Option<Arc<Model>>,
    /// At the barrier of the last completed checkpoint.
    pub(super) completed: Option<Arc<Model>>,
}

impl Reference {
    fn new(seed: u64, cells: usize, made_per_batch: Option<usize>) -> Self {
        Self {
            seed,
            cells,
            made_per_batch,
            parallelism: 1,
            now: Model::default(),
            flipped: None,
            completed: None,
        }
    }

    /// Makes a transition, and tells what a change gives back.
    pub(super) fn make(&mut self, transition: &Transition) -> Outcome {
        match transition {
            Transition::Change(index, change) => return self.now.change(*index, change, self.parallelism),
            Transition::Barrier => self.flipped = Some(Arc::new(self.now.clone())),
            Transition::Complete(_) => self.completed = self.flipped.take().or(self.completed.take()),
            Transition::Fail(_) => self.flipped = None,
            Transition::Crash(parallelism) => {
                let restored = self.completed.as_deref().map(|completed| completed.restored(*parallelism));
                let fresh = || Model { clocks: Clocks::begun(*parallelism), ..Model::default() };
                let restored = restored.unwrap_or_else(fresh);
                self.now = Model { appended: self.now.appended, ..restored };
                self.flipped = None;
                self.parallelism = *parallelism;
            }
            Transition::Advance(subtasks, event, processing) => {
                self.now.clocks.advance(*subtasks, *event, *processing);
            }
            Transition::Drain(_)
            | Transition::Merge(..)
            | Transition::MergeByPolicy
            | Transition::Prepare(_)
            | Transition::Make(_) => {}
        }
        Outcome::Nothing
    }
}

/// All jobs that may be.
pub(super) struct Jobs;

/// The most cells of a table: a batch does not fit in, so they leave all the time.
const MOST_CELLS: usize = 12;

impl ReferenceStateMachine for Jobs {
    type State = Reference;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Reference> {
        let made_per_batch = proptest::option::weighted(0.9, 0_usize..4);
        (any::<u64>(), 1..MOST_CELLS, made_per_batch)
            .prop_map(|(seed, cells, made_per_batch)| Reference::new(seed, cells, made_per_batch))
            .boxed()
    }

    fn transitions(_: &Reference) -> BoxedStrategy<Transition> {
        prop_oneof![
            60 => (0..KEYS, change()).prop_map(|(key, change)| Transition::Change(key, change)),
            60 => (0..KEYS, expiring::change()).prop_map(|(key, (ahead, change))| {
                Transition::Change(key, Change::Expiring(ahead, change))
            }),
            24 => (any::<u8>(), -2_i64..8, -2_i64..8)
                .prop_map(|(subtasks, event, processing)| Transition::Advance(subtasks, event, processing)),
            16 => Just(Transition::Barrier),
            12 => (1_usize..6).prop_map(Transition::Drain),
            8 => (1_usize..20).prop_map(Transition::Complete),
            4 => (1_usize..20).prop_map(Transition::Fail),
            8 => (0_usize..8, 2_usize..5).prop_map(|(start, len)| Transition::Merge(start, len)),
            3 => Just(Transition::MergeByPolicy),
            2 => (1_u32..5).prop_map(Transition::Crash),
            8 => any::<u8>().prop_map(Transition::Prepare),
            4 => (1_usize..4).prop_map(Transition::Make),
        ]
        .boxed()
    }

    fn apply(mut state: Reference, transition: &Transition) -> Reference {
        state.make(transition);
        state
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u64>().prop_map(Change::Set),
        3 => Just(Change::Increment),
        3 => Just(Change::Remove),
        4 => (1_u8..4).prop_map(Change::Append),
        2 => Just(Change::ClearList),
        1 => (0_u8..3).prop_map(Change::ReplaceList),
        8 => (0_u32..6, any::<u64>()).prop_map(|(sub, value)| Change::Put(sub, value)),
        4 => (0_u32..6).prop_map(Change::RemoveEntry),
        2 => Just(Change::ClearMap),
        3 => (0_u8..9).prop_map(Change::Reduce),
        1 => Just(Change::TakeLongest),
        3 => any::<u32>().prop_map(Change::Aggregate),
        1 => any::<u32>().prop_map(Change::Merge),
        1 => Just(Change::ClearMean),
        4 => (-5_i64..30).prop_map(Change::Register),
        2 => (-5_i64..30).prop_map(Change::Delete),
        1 => (-5_i64..30).prop_map(Change::Fire),
        1 => (-5_i64..30).prop_map(Change::RegisterProcessing),
        1 => (-5_i64..30).prop_map(Change::DeleteProcessing),
        1 => (-5_i64..30).prop_map(Change::FireProcessing),
    ]
}
