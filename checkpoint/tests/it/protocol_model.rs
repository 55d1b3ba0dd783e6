//! A breadth-first search over the production step functions: coordinator, barriers, history, in a job of two source
//! tasks in front of one task that counts records and writes each count through a two-phase-commit sink. Everything
//! that can be late is late in every way: commands to tasks, records in channels, uploads, manifests, history records,
//! commits. A process may die at any moment, and a second one may take the job over while the first goes on.
//!
//! What must hold in every state: the committed lines are an exactly-once result of a prefix of the input; every
//! checkpoint in the history holds exactly the effect of the records before its cut, and its transactions can be
//! committed; nothing is committed that is not in the history; no invariant of the code itself breaks. And from every
//! state the job can still finish.
//!
//! With one [`Guard`] removed the search finds a violation: it would notice if the code lost it. Each search here has a few
//! of these things in every order; `whole` has all of them at once, deleted history records among them.

#![allow(clippy::disallowed_macros, reason = "the search prints how many states there were")]

mod durable;
mod enabled;
mod job;
mod log;
mod met;
mod process;
mod running;
mod search;
mod sink;
mod start;
mod steps;
mod whole;

use self::{
    durable::Durable,
    process::Process,
    search::{Search, search},
};
use crate::mixer::Shared;

/// What keeps the job right; each can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Guard {
    /// An input that delivered a barrier waits for the others.
    Alignment,
    /// A sink commits only what is in the history.
    RecordBeforeCommit,
    /// Whoever loses a history record stops.
    Fencing,
    /// Runs and transactions of a failed checkpoint are part of the next one.
    Relisting,
    /// Runs and transactions are durable before they are acknowledged.
    DurableBeforeAck,
    /// A new attempt commits what the history completed before it starts sources.
    CommitAtRecovery,
    /// It aborts what older attempts prepared besides, and nothing of newer ones: it may itself be fenced by then.
    SweepOlder,
    /// What failed after the sources ended is tried again.
    Retry,
    /// Whoever has created a record looks whether it lies in the deleted past.
    MilestoneCheck,
    /// Every record restates the completed checkpoints.
    Restating,
}

/// How often the things may happen that make the search large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    /// The records of each source.
    records: [u8; 2],
    /// Checkpoints that a user asks for.
    checkpoints: u8,
    /// Stops that a user asks for.
    stops: u8,
    /// Checkpoints that a task declines, or that time out.
    failures: u8,
    /// Processes that die.
    crashes: u8,
    /// Processes that take the job over.
    rivals: u8,
    /// Superfluous history records that are deleted.
    deletions: u8,
}

/// The whole world in one state.
#[derive(Clone, Hash)]
struct World {
    durable: Shared<Durable>,
    processes: [Shared<Process>; 2],
    budget: Budget,
    max_concurrent: u32,
    /// Whether all that no other process can notice happens at once and in one order: `whole` says why.
    at_once: bool,
    without: Option<Guard>,
}

impl World {
    fn new(budget: Budget, without: Option<Guard>) -> Self {
        Self {
            durable: Shared::default(),
            processes: [Process::Dead, Process::Absent].map(Shared::of),
            budget,
            max_concurrent: 1,
            at_once: false,
            without,
        }
    }

    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}

fn assert_holds(name: &str, world: World) {
    let Search { states, violation, .. } = search(world);
    println!("{name}: {states} states");
    if let Some(violation) = violation {
        panic!("{name}: {violation}");
    }
}

fn assert_found(budget: Budget, without: Guard) {
    let Search { states, violation, .. } = search(World::new(budget, Some(without)));
    println!("without {without:?}: {states} states, {violation:?}");
    assert!(violation.is_some(), "nothing goes wrong without {without:?}");
}

const SMALL: Budget =
    Budget { records: [1, 1], checkpoints: 1, stops: 0, failures: 0, crashes: 0, rivals: 0, deletions: 0 };

#[test]
fn two_checkpoints_at_once_hold() {
    let world = World::new(Budget { records: [2, 1], checkpoints: 2, ..SMALL }, None);
    assert_holds("two checkpoints at once", World { max_concurrent: 2, ..world });
}

#[test]
fn a_failed_checkpoint_holds() {
    assert_holds("a failed checkpoint", World::new(Budget { failures: 1, ..SMALL }, None));
}

#[test]
fn a_failed_checkpoint_and_a_crash_hold() {
    let budget = Budget { checkpoints: 0, failures: 1, crashes: 1, ..SMALL };
    assert_holds("a failed checkpoint and a crash", World::new(budget, None));
}

#[test]
fn a_crash_holds() {
    let budget = Budget { records: [2, 1], crashes: 1, ..SMALL };
    assert_holds("a crash", World::new(budget, None));
}

#[test]
fn a_stop_that_fails_holds() {
    assert_holds(
        "a stop that fails",
        World::new(Budget { checkpoints: 0, stops: 1, failures: 1, ..SMALL }, None),
    );
}

#[test]
fn a_stop_and_a_crash_hold() {
    assert_holds("a stop and a crash", World::new(Budget { stops: 1, crashes: 1, ..SMALL }, None));
}

#[test]
fn a_rival_holds() {
    assert_holds("a rival", World::new(Budget { rivals: 1, ..SMALL }, None));
}

#[test]
fn a_rival_and_a_crash_hold() {
    let budget = Budget { checkpoints: 0, rivals: 1, crashes: 1, ..SMALL };
    assert_holds("a rival and a crash", World::new(budget, None));
}

#[test]
fn without_alignment_a_checkpoint_holds_too_much() {
    assert_found(SMALL, Guard::Alignment);
}

#[test]
fn without_the_record_before_the_commit_lines_come_twice() {
    assert_found(Budget { crashes: 1, ..SMALL }, Guard::RecordBeforeCommit);
}

#[test]
fn without_fencing_two_processes_write() {
    assert_found(Budget { rivals: 1, ..SMALL }, Guard::Fencing);
}

#[test]
fn without_the_runs_of_failed_checkpoints_state_is_lost() {
    assert_found(Budget { checkpoints: 0, failures: 1, ..SMALL }, Guard::Relisting);
}

#[test]
fn without_durability_before_the_acknowledgement_a_checkpoint_is_hollow() {
    assert_found(SMALL, Guard::DurableBeforeAck);
}

#[test]
fn without_commits_at_recovery_lines_are_lost() {
    assert_found(Budget { crashes: 1, ..SMALL }, Guard::CommitAtRecovery);
}

#[test]
fn without_another_try_of_the_last_checkpoint_the_job_never_ends() {
    assert_found(Budget { checkpoints: 0, failures: 1, ..SMALL }, Guard::Retry);
}

#[test]
fn without_care_for_newer_attempts_a_late_sweep_takes_what_they_prepared() {
    assert_found(Budget { rivals: 1, ..SMALL }, Guard::SweepOlder);
}
