//! What the command line makes and removes without the job: jobs start from a savepoint that it has made, renamed or without a
//! state, at another parallelism, and go on after it has collected what they left.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use checkpoint::{
    collect::collect_offline,
    history,
    manifest::Manifest,
    savepoint::{self, Changed, RunCopier, SnapshotLocation, delete},
    snapshots,
};
use env::{
    Env, FaultPoint, Store,
    sim::{Control, FaultAction},
};
use statebackend::{RunCompression, RunSet, VerifiedCopy, copy_verified};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};
use types::{ExpiryClocks, Run, RunIdentity};

use crate::{
    counting::{KEYS, assert_gapless},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

type Committed = BTreeMap<Row, u64>;

fn numbers() -> Numbers {
    Numbers::new(2, 600).paced(3, Duration::from_millis(10))
}

/// Counts the numbers by key, in an operator of this uid.
fn job(uid: &str, settings: &[(&str, &str)], ledger: &Ledger<Row>) -> Job {
    let settings = [&[("checkpoints.interval", "off")], settings].concat();
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let counts = job.source("numbers", numbers()).key_by(|number| number % KEYS).count(uid);
    counts.map(|(key, count)| Row(Kind::Count, key, count)).sink("out", ledger.clone());
    job
}

fn whole() -> Committed {
    counted(numbers().all().map(|(number, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1)))
}

/// As the command copies.
struct Copier<'a>(&'a Env, &'a Changed);

#[async_trait]
impl RunCopier for Copier<'_> {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        let Self(env, changed) = self;
        let before = changed.runs_before(&identity.operator, identity.subtask);
        let dropped = changed.dropped(&identity.operator);
        let copy = VerifiedCopy { from, runs: RunSet::new(runs, clocks), before, dropped: &dropped };
        copy_verified(env, &copy, to, path, identity, RunCompression::Zstd).await
    }
}

/// A job of parallelism 2 in `/first` that has died after a checkpoint: what it had committed.
async fn first_job(sim: &Control, env: &Env) -> Committed {
    let ledger = Ledger::default();
    let settings = [("checkpoints.url", "/first"), ("parallelism", "2")];
    let (process, handle) = start(sim, job("count", &settings, &ledger)).await.unwrap();
    env.sleep(Duration::from_millis(900)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    env.sleep(Duration::from_millis(100)).await;
    process.kill();
    ledger.committed()
}

/// Makes a savepoint of what `change` makes of that job's checkpoint; then the job's own directory is gone.
async fn make(env: &Env, dir: &str, change: impl FnOnce(Arc<Manifest>) -> Result<Changed>) {
    let location = SnapshotLocation::resolve(env, "/first").await.unwrap();
    assert!(location.unconfirmed.is_empty());
    let changed = change(location.manifest).unwrap();
    let copier = Copier(env, &changed);
    savepoint::write(env, &*location.store, changed.manifest(), dir, &copier).await.unwrap();
    env.files().remove_dir_all("/first".as_ref()).unwrap();
}

/// Runs the job that starts from `dir` to its end: what it has committed.
async fn second_job(sim: &Control, uid: &str, dir: &str, parallelism: &str) -> Committed {
    let ledger = Ledger::default();
    let settings = [("checkpoints.url", "/second"), ("from", dir), ("parallelism", parallelism)];
    run(sim, job(uid, &settings, &ledger)).await.unwrap();
    assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
    ledger.committed()
}

/// All rows of both, how often they came in all.
fn sum(mut first: Committed, second: Committed) -> Committed {
    for (row, times) in second {
        *first.entry(row).or_default() += times;
    }
    first
}

#[test]
fn a_job_goes_on_from_a_converted_checkpoint_at_another_parallelism() {
    for parallelism in ["1", "3"] {
        simulate(async |sim, env| {
            let first = first_job(sim, &env).await;
            make(&env, "/savepoint", |manifest| Ok(Changed::nothing(manifest))).await;
            let second = second_job(sim, "count", "/savepoint", parallelism).await;
            assert!(first.len() > 200 && second.len() > 200, "{} and {}", first.len(), second.len());
            assert_eq!(sum(first, second), whole());
            // It has a checkpoint of its own, and needs the savepoint no more.
            delete(&env, &env.open_store("/savepoint").unwrap(), async |_| Ok(())).await.unwrap();
            let again =
                job("count", &[("checkpoints.url", "/second"), ("from", "/savepoint")], &Ledger::default());
            run(sim, again).await.unwrap();
        });
    }
}

#[test]
fn a_job_goes_on_under_the_new_uid_alone() {
    simulate(async |sim, env| {
        let first = first_job(sim, &env).await;
        make(&env, "/renamed", |manifest| Changed::rename_uid(manifest, "count", "tally")).await;
        let old = job("count", &[("checkpoints.url", "/second"), ("from", "/renamed")], &Ledger::default());
        let refused = run(sim, old).await.unwrap_err();
        assert_says(&refused, ErrorKind::IncompatibleState, &["/renamed holds state of operator tally"]);
        let second = second_job(sim, "tally", "/renamed", "3").await;
        assert_eq!(sum(first, second), whole());
    });
}

#[test]
fn a_state_that_was_dropped_begins_anew_and_all_else_goes_on() {
    for whole_operator in [false, true] {
        simulate(async |sim, env| {
            let first = first_job(sim, &env).await;
            make(&env, "/dropped", |manifest| {
                let count = manifest.operators.iter().find(|it| it.uid.as_str() == "count").unwrap();
                let state = count.states[0].name.clone();
                Changed::drop_state(manifest, "count", (!whole_operator).then_some(&*state))
            })
            .await;
            let second = second_job(sim, "count", "/dropped", "3").await;
            // The source goes on where it stood: each number is counted once, by one of the two.
            assert_eq!(first.len() + second.len(), whole().len());
            for key in 0..KEYS {
                let of_key = second.iter().filter(|(row, _)| row.1 == key);
                let expected = of_key.clone().zip(1..).map(|(_, count)| (Row(Kind::Count, key, count), 1));
                assert!(of_key.map(|(row, times)| (*row, *times)).eq(expected), "key {key}");
            }
        });
    }
}

#[test]
fn a_job_goes_on_after_its_garbage_was_collected_as_if_nothing_had_been() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = |parallelism| [("checkpoints.url", "/checkpoints"), ("parallelism", parallelism)];
        let (process, handle) = start(sim, job("count", &settings("2"), &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        let store = env.open_store("/checkpoints").unwrap();
        let lives = collect_offline(&env, &store, true).await.unwrap_err();
        assert_says(&lives, ErrorKind::Conflict, &["is in use by pid", "a job that runs collects by itself"]);
        sim.arm(FaultPoint::RunUploadAfter, 2, FaultAction::Kill);
        tokio::select! {
            biased;
            () = process.died() => {}
            answer = handle.control().ask(Ask::Checkpoint) => panic!("{answer:?}"),
        }
        ledger.set_moods(Moods::default());
        let standing = async || {
            let newest = history::open(&env, store.clone()).await.unwrap().unwrap();
            newest.standing.clone()
        };
        let before = standing().await;
        assert_eq!((before.unconfirmed.len(), ledger.committed().len()), (1, 0));

        let found = collect_offline(&env, &store, true).await.unwrap();
        assert!(found.garbage.len() >= 2, "the runs of a checkpoint that was not: {:?}", found.garbage);
        let report = snapshots::verify(&env, store.clone(), &mut |_| {}).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let after = standing().await;
        assert_eq!(
            (after.attempt.lineage, &after.unconfirmed),
            (before.attempt.lineage, &before.unconfirmed)
        );

        let (process, handle) = start(sim, job("count", &settings("3"), &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(200)).await;
        let from = format!("continues from checkpoint 1 of attempt {}", before.attempt.id);
        let told = handle.control().view().started_from;
        assert!(told.ends_with(&from), "{told}");
        handle.join().await.unwrap();
        process.kill();
        assert_eq!(ledger.committed(), whole());
        assert_gapless(&ledger, whole().len());
    });
}
