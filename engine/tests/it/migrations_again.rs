//! Migrations that are cut short at each step of a start, by a failure that is tried again, a kill or a crash, before any checkpoint
//! holds what they made; and migrations on real disks, from each backend to each.

use std::time::Duration;

use checkpoint::history;
use env::{Env, FaultPoint, sim::FaultAction};
use tidegate_engine::{
    cluster::{attempt::Ask, status::TaskStatus},
    prelude::*,
};
use types::Run;

use crate::{
    ledger::Ledger,
    migrations::{Always, First, Second, Third, job, kept, settings},
    world::{Death, Row, live, run, simulate, start},
};

/// The attempt whose checkpoint is the newest.
async fn newest(env: &Env) -> u64 {
    let history = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap().unwrap();
    history.standing.completed.last().unwrap().attempt.0
}

/// The files that migrations have left, of whatever attempt.
async fn migrated(env: &Env) -> Vec<String> {
    let files = env.open_store("/checkpoints").unwrap().list("").await.unwrap();
    let files = files.into_iter().map(|entry| entry.path);
    files.filter(|path| path.contains("/runs/bank/") && path.ends_with("-0.run")).collect()
}

/// Where a start is cut short: while values are migrated, when all is restored, and right before its first checkpoint counts.
const STEPS: [(FaultPoint, u64); 6] = [
    (FaultPoint::RestoreAmid, 1),
    (FaultPoint::RestoreAmid, 4),
    (FaultPoint::RestoreAmid, 9),
    (FaultPoint::RestoreAfter, 2),
    (FaultPoint::ManifestAfter, 1),
    (FaultPoint::CompletedRecordBefore, 1),
];

#[test]
fn a_migration_that_is_cut_short_is_done_again_from_the_same_snapshot() {
    let actions = [FaultAction::Fail(ErrorKind::Retryable), FaultAction::Kill, FaultAction::Crash];
    let twin = simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        run(sim, job(Always, &settings("/twin", "2", "filesystem"), &ledger)).await.unwrap();
        let (summary, lists, _) = kept(&env, "/twin").await;
        (ledger.committed(), summary, lists)
    });
    for (nth, (point, hit)) in STEPS.into_iter().enumerate() {
        for action in actions {
            let backend = ["filesystem", "sorted-map"][nth % 2];
            simulate(async |sim, env: Env| {
                let ledger = Ledger::default();
                let (process, handle) =
                    start(sim, job(First, &settings("/checkpoints", "2", backend), &ledger)).await.unwrap();
                env.sleep(Duration::from_millis(700)).await;
                handle.control().ask(Ask::Checkpoint).await.unwrap();
                process.kill();
                let before = newest(&env).await;

                sim.arm(point, hit, action);
                if action == FaultAction::Fail(ErrorKind::Retryable) {
                    // In the same process, which tries again.
                    let (process, handle) =
                        start(sim, job(Second, &settings("/checkpoints", "3", backend), &ledger))
                            .await
                            .unwrap();
                    while newest(&env).await == before {
                        env.sleep(Duration::from_millis(10)).await;
                    }
                    drop(handle);
                    process.kill();
                } else {
                    let (process, own) = sim.process("job");
                    let second = job(Second, &settings("/checkpoints", "3", backend), &ledger);
                    assert!(
                        matches!(live(second, &own, &process).await, Death::Killed),
                        "{point:?}, {action:?}"
                    );
                    assert_eq!(
                        newest(&env).await,
                        before,
                        "{point:?}: it was to die before its first checkpoint"
                    );
                }
                run(sim, job(Third, &settings("/checkpoints", "1", backend), &ledger)).await.unwrap();
                assert_eq!(ledger.committed(), twin.0, "{point:?}, {action:?}");
                let (summary, lists, runs) = kept(&env, "/checkpoints").await;
                assert_eq!((&summary, &lists), (&twin.1, &twin.2), "{point:?}, {action:?}");
                // What was cut short is collected: no file is left that nobody names.
                let named: Vec<&str> = runs.iter().map(|run| run.file.path.as_str()).collect();
                let left = migrated(&env).await;
                assert!(left.iter().all(|path| named.contains(&path.as_str())), "{left:?}, named {named:?}");
            });
        }
    }
}

/// The backends that this build has.
const BACKENDS: &[&str] = &[
    "filesystem",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "sled")]
    "sled",
];

fn is_running(handle: &JobHandle) -> bool {
    let tasks = handle.control().view().tasks;
    !tasks.is_empty() && tasks.values().all(|task| task.status == TaskStatus::Running)
}

/// Runs `job` until it has taken a checkpoint of which `enough` is true.
async fn until(env: &Env, url: &str, job: Job, enough: impl Fn(&[Run]) -> bool) {
    let handle = job.start(env).await.unwrap();
    loop {
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        if enough(&kept(env, url).await.2) {
            break;
        }
    }
    handle.control().ask(Ask::Cancel).await.unwrap();
    handle.join().await.unwrap();
}

#[test]
fn what_one_backend_wrote_is_migrated_into_each_other() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let twin = Ledger::default();
        job(Always, &settings(&path("twin"), "2", "filesystem"), &twin)
            .start(&env)
            .await
            .unwrap()
            .join()
            .await
            .unwrap();
        let expected = kept(&env, &path("twin")).await;
        for (nth, backend) in BACKENDS.iter().enumerate() {
            let (url, state) = (path(&format!("checkpoints-{backend}")), path("state"));
            let (next, last) = (BACKENDS[(nth + 1) % BACKENDS.len()], BACKENDS[(nth + 2) % BACKENDS.len()]);
            let ledger = Ledger::<Row>::default();
            let more = [
                // Checkpoints are asked for.
                ("checkpoints.interval", "1h"),
                ("snapshot.merge-fan-in", "10"),
                ("state.directory", state.as_str()),
                ("state.memory", "64KiB"),
            ];
            let with = |parallelism, backend| [&settings(&url, parallelism, backend)[..], &more].concat();
            let of_subtask =
                |runs: &[Run], subtask| runs.iter().filter(|run| run.identity.subtask.0 == subtask).count();
            // Five runs of each subtask at least, in which something is deleted.
            let enough = |runs: &[Run]| {
                (0..2).all(|subtask| of_subtask(runs, subtask) >= 5)
                    && runs.iter().any(|run| run.tombstones > 0)
            };
            until(&env, &url, job(First, &with("2", backend), &ledger), enough).await;
            let (_, _, runs) = kept(&env, &url).await;
            // It ends before it has taken a checkpoint: what it migrated is lost.
            let handle = job(Second, &with("3", next), &ledger).start(&env).await.unwrap();
            while !is_running(&handle) {
                env.yield_now().await;
            }
            handle.control().ask(Ask::Cancel).await.unwrap();
            handle.join().await.unwrap();
            assert!(kept(&env, &url).await.2 == runs, "{backend}: there is a checkpoint more");
            until(&env, &url, job(Second, &with("1", next), &ledger), |runs| runs.len() >= 3).await;
            let third = job(Third, &with("4", last), &ledger);
            third.start(&env).await.unwrap().join().await.unwrap();
            assert_eq!(ledger.committed(), twin.committed(), "{backend}, {next}, {last}");
            let migrated = kept(&env, &url).await;
            assert_eq!((&migrated.0, &migrated.1), (&expected.0, &expected.1), "{backend}");
        }
    });
}
