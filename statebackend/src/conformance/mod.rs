//! What every store must make of state: whatever happens to a job, its state is that of a model of sorted maps, and so
//! is what its snapshots hold. An author of a store calls [`store()`] from a test of their own crate:
//!
//! ```no_run
//! use std::path::Path;
//! use tidegate_statebackend::{conformance, store::sorted_map::SortedMapStore};
//!
//! conformance::store(Path::new("a/directory/for/it"), |_| Box::new(SortedMapStore::open()));
//! ```
//!
//! First comes the store alone ([`store::conformance`](crate::store::conformance)). Then random jobs: changes of every
//! kind of state, with and without a time to live, clocks that each subtask is told by itself, barriers, slices,
//! checkpoints that complete and that fail, merges with tiny thresholds, crashes that lose everything that is in no
//! completed checkpoint, restores at another parallelism; all of it behind tables of so few cells that some leave all
//! the time. What each change gives back, all state after each restore, and the counts and digests of each completed
//! checkpoint must be the model's, and the digests must be the same without any merge. Of what was written to states
//! that expire a store may drop what has expired, and nothing else. At last, the bytes of each run must be those that
//! state in memory gives.
//!
//! `machine` is the model as a state machine of `proptest-state-machine`, which makes the jobs and shrinks those that fail;
//! `model` says what a change means, `subject` makes it, `job` does the rest, `snapshot` looks at what was written and `watched` at
//! what the store drops, `coverage` says whether enough has happened. Each kind of state has its entries in
//! `model::Change`; those of state with a time to live, and how late it is, are in `expiring`.

mod behind;
mod coverage;
mod expiring;
mod job;
mod machine;
mod model;
mod runs;
mod snapshot;
mod subject;
mod watched;

use std::{cell::RefCell, path::Path};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

pub use self::coverage::Coverage;
use self::{
    behind::Behind,
    machine::{Jobs, Reference, Transition},
};
use crate::store::{self, KeyValueStore};

/// How many jobs are tried, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Random jobs of up to 300 steps for each property.
    pub cases: u32,
    /// What they follow from.
    pub seed: u64,
}

impl Default for Settings {
    /// 96 jobs, the same ones each time. `TIDEGATE_CASES` and `TIDEGATE_SEED` say otherwise.
    #[expect(clippy::disallowed_methods, reason = "a test's own variables")]
    fn default() -> Self {
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let cases = variable("TIDEGATE_CASES").and_then(|cases| u32::try_from(cases).ok());
        Self { cases: cases.unwrap_or(96), seed: variable("TIDEGATE_SEED").unwrap_or(0x7164_6567) }
    }
}

/// From so many cases on it is an error if too little has happened in them.
const CASES_THAT_COVER: u32 = 64;

/// The steps of a job.
const STEPS: std::ops::Range<usize> = 1..300;

/// Holds a store to all that is asked of one. `open` opens an empty one in a directory, which it makes and wipes if
/// need be; directories are below `dir`, where nothing else may be. A store in memory has no use for them. Takes some
/// seconds.
///
/// # Panics
/// If the store does anything else, with the shortest job that was found to show it, and how it is replayed; or if too
/// little has happened for the result to mean anything.
pub fn store(dir: &Path, open: impl FnMut(&Path) -> Box<dyn KeyValueStore>) -> Coverage {
    store_with(Settings::default(), dir, open).unwrap_or_else(|failure| panic!("{failure}"))
}

/// As [`store()`], with other settings.
///
/// # Errors
/// A text that says what the store does wrong, with the shortest job that was found to show it.
///
/// # Panics
/// If the store alone breaks its contract.
pub fn store_with(
    settings: Settings,
    dir: &Path,
    mut open: impl FnMut(&Path) -> Box<dyn KeyValueStore>,
) -> Result<Coverage, String> {
    store::conformance(&dir.join("alone"), &mut open);
    let behind = Behind::store(&dir.join("state"), &mut open);
    let coverage = state_is_what_the_model_says(settings, &behind)?;
    bytes_depend_on_the_cut_alone(settings, &behind)?;
    coverage.check(settings.cases >= CASES_THAT_COVER, true)?;
    Ok(coverage)
}

/// Holds state in memory, without a store, to the same.
///
/// # Panics
/// As [`store()`].
pub fn memory() -> Coverage {
    let settings = Settings::default();
    let checked = state_is_what_the_model_says(settings, &Behind::Nothing).and_then(|coverage| {
        bytes_depend_on_the_cut_alone(settings, &Behind::Nothing)?;
        coverage.check(settings.cases >= CASES_THAT_COVER, false)?;
        Ok(coverage)
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"))
}

fn state_is_what_the_model_says(settings: Settings, behind: &Behind<'_>) -> Result<Coverage, String> {
    let coverage = RefCell::new(Coverage::default());
    each_job(settings, |reference, transitions, applied| {
        let lived = job::live(behind, reference, transitions, applied);
        coverage.borrow_mut().add(&lived);
    })?;
    Ok(coverage.into_inner())
}

fn bytes_depend_on_the_cut_alone(settings: Settings, behind: &Behind<'_>) -> Result<(), String> {
    each_job(settings, |reference, transitions, applied| {
        runs::compare(behind, &reference, transitions, applied)
    })
}

/// Runs `test` with random jobs. It calls back before each transition, panics if something is wrong, and is then given
/// shorter ones.
fn each_job(settings: Settings, test: impl Fn(Reference, &[Transition], &dyn Fn())) -> Result<(), String> {
    let Settings { cases, seed } = settings;
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let run = runner.run(&Jobs::sequential_strategy(STEPS), |(reference, transitions, seen)| {
        // What is counted here was tried: the rest of a failing job is left out at once.
        let applied = || {
            if let Some(seen) = &seen {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        };
        test(reference, &transitions, &applied);
        Ok::<(), TestCaseError>(())
    });
    run.map_err(|failure| {
        format!("{failure}\nreplay: TIDEGATE_SEED={seed} TIDEGATE_CASES={cases} and this test")
    })
}
