//! Everything in one search: a checkpoint that a user asks for and the last one, one of which fails, a process that dies, a
//! rival that takes the job over, and a record of the history that is deleted, each at any moment or never; and this very
//! search, with the same bounds, finds a violation as soon as any of the guards is gone.
//!
//! What bounds it: one record from each source; each of those things once at most; milestones two records apart. And what no
//! other process can notice happens at once ([`World::at_once`]), so that the states between are not states in which others
//! act. Others act between reading the history and creating a record, between losing a create and reading the winner, between
//! a record and its commit, between two commits of a recovery and its sweep, and while a record in somebody's way is deleted.
//!
//! Why nothing is lost by that:
//! * *Tasks among themselves, uploads, manifests, short waits* touch the process alone and files and transactions that bear
//!   its attempt's number, at which others look once a record lists them. So they commute with whatever others do, up to that
//!   record, and a crash among them is a crash before or after them: what an attempt leaves unlisted is forgotten when the
//!   next one starts (`Durable::forget_orphans`), which can only break more. Of their orders among themselves there is one
//!   here; what comes from outside (users, long waits, refusals) does come between any two of them.
//! * *Reads of the history* that are one step: `World::are_apart` has the argument.
//! * *Deletions* count where somebody can notice: `World::old_in_flight`.
//! * *Fenced processes* meet no failures and no users any more: they could have done so before they were fenced.
//!
//! The searches beside this one have every order inside a process, with fewer things at once; `history_model` has every call to
//! the store by itself, longer histories, lost answers, and creates that land late.

use super::{
    Budget, Guard, World,
    search::{Search, search},
};

/// A wider search was made once: with two crashes there are 1.6 million states.
const ONE_OF_EACH: Budget =
    Budget { records: [1, 1], checkpoints: 1, stops: 0, failures: 1, crashes: 1, rivals: 1, deletions: 1 };

fn everything(without: Option<Guard>) -> Search {
    let world = World { at_once: true, ..World::new(ONE_OF_EACH, without) };
    let found = search(world);
    println!("everything, without {without:?}: {} states, {:?}", found.states, found.violation);
    found
}

#[test]
fn everything_at_once_holds() {
    let Search { violation, met, .. } = everything(None);
    assert_eq!(violation, None);
    println!("{met:?}");
    let each = [met.crashed, met.rivalled, met.deleted, met.failed, met.asked, met.committed, met.strayed];
    assert!(each.iter().all(|states| *states > 0), "{met:?}");
    assert!(met.all > 0, "on no way did all of it happen: {met:?}");
}

#[test]
fn everything_at_once_misses_each_guard() {
    let table = [
        (Guard::Alignment, "and was cut after {}"),
        (Guard::RecordBeforeCommit, "leads to 2 lines"),
        (Guard::Fencing, "in the history and its manifest is not there"),
        (Guard::Relisting, "holds {} and was cut after"),
        (Guard::DurableBeforeAck, "is missing"),
        (Guard::CommitAtRecovery, "leads to 0 lines"),
        (Guard::SweepOlder, "lists a transaction that is"),
        (Guard::Retry, "the job cannot end any more"),
        (Guard::MilestoneCheck, "is acted on and not in the history"),
        (Guard::Restating, "is not retained"),
    ];
    for (guard, what) in table {
        let violation = everything(Some(guard)).violation.unwrap_or_default();
        assert!(violation.contains(what), "without {guard:?}: {violation:?}");
    }
}
