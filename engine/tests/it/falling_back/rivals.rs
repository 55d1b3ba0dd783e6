//! Another process of the job that commits while a start falls back.

use checkpoint::history;
use tidegate_engine::prelude::*;

use super::{Part, SETTINGS, assert_exact, damage, flip, job, leave_uncommitted, numbers, rows, standing};
use crate::counting::counting;
use crate::ledger::Ledger;
use crate::world::{assert_says, run, simulate};

/// Sinks are asked before the start record and after it: what a process commits that this start fences only then.
#[test]
fn what_a_rival_commits_meanwhile_is_noticed_and_nothing_is_revoked() {
    for (questions, part) in [(1, Part::Manifest), (1, Part::Run), (2, Part::Manifest), (2, Part::Run)] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (file, before) = damage(sim, &env, part).await;
            let records = history::open(&env, env.open_store("/checkpoints").unwrap()).await.unwrap();
            ledger.commit_late(questions);
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let older = format!("--from /checkpoints@{}", before.checkpoint);
                let texts =
                    [&*file, "does not fall back", "sink out has committed", "put the file back", &older];
                assert_says(&error, ErrorKind::Corrupt, &texts);
            }
            let standing = standing(&env).await;
            assert_eq!((standing.revoked.len(), standing.unconfirmed.len()), (0, 1));
            // The second question comes after the start record, and only one start got so far.
            let starts = standing.attempt.id.0 - records.unwrap().standing.attempt.id.0;
            assert_eq!(starts > 0, questions == 2, "{starts}");
            flip(sim, &file);
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

/// After the second question nobody can help it any more: the user decides, and the job can be started.
#[test]
fn what_a_rival_commits_at_the_last_moment_is_told_with_choices_that_work() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (_file, before) = damage(sim, &env, part).await;
            ledger.commit_late(3);
            ledger.leave_behind();
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let choice = format!("--from /checkpoints@{} --accept-foreign-output", before.checkpoint);
                let texts =
                    ["sink out", "was revoked", &*choice, "start fresh with another checkpoint directory"];
                assert_says(&error, ErrorKind::Conflict, &texts);
                // Without its manifest nobody knows what is to be revoked: all that is not committed was thrown away.
                let left = usize::from(matches!(part, Part::Run));
                assert_eq!(ledger.pending(), left, "{part:?}: what is left is for the user to decide on");
            }
            let from = format!("/checkpoints@{}", before.checkpoint);
            let choice = [&SETTINGS[..], &[("from", &*from), ("accept-foreign-output", "true")]].concat();
            assert_eq!(run(sim, counting(&numbers(), &choice, &ledger)).await.unwrap().how, "finished");
            assert!(rows().iter().all(|row| ledger.committed().contains_key(row)), "nothing is missing");
        });
    }
}
