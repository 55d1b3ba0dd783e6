//! A disk that is full: at the start, where nothing is begun, and in mid-run, where the job goes on and takes checkpoints
//! again once there is room. In both what was completed before stays as it is, and one line says which directory is full
//! and what to do.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use checkpoint::{history, manifest, snapshots};
use env::{Env, FileKind, sim::Control};
use tidegate_engine::{
    cluster::{attempt::Ask, local::JobHandle, status::JobStatus},
    prelude::*,
};

use crate::{
    counting::{assert_gapless, counting},
    ledger::Ledger,
    numbers::Numbers,
    world::{Row, assert_says, simulate, start},
};

const DIRECTORY: &str = "/checkpoints";
/// Long enough for many checkpoints.
const WHILE_FULL: Duration = Duration::from_secs(20);
/// The restart strategy may be waiting when there is room again.
const RECOVERY: Duration = Duration::from_secs(120);

fn job(ledger: &Ledger<Row>, more: &[(&str, &str)]) -> Job {
    let settings = [("checkpoints.url", DIRECTORY), ("checkpoints.interval", "300ms")];
    let source = Numbers::endless(1).paced(1, Duration::from_millis(10));
    counting(&source, &[&settings, more].concat(), ledger)
}

/// How many bytes fit on the disk, one job for each: few steps where few bytes decide.
fn rooms() -> impl Iterator<Item = u64> {
    (0..32).map(|step| 6 * step * step)
}

/// Every file of a directory, none of one that is not there. The lock names the process that looked last.
pub(crate) fn image(env: &Env, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let (files, mut found) = (env.files(), BTreeMap::new());
    let mut open = vec![PathBuf::from(directory)];
    while let Some(dir) = open.pop() {
        for path in files.read_dir(&dir).unwrap_or_default() {
            match files.metadata(&path).unwrap().unwrap().kind {
                FileKind::Dir => open.push(path),
                _ if path.ends_with("job.lock") => {}
                _ => {
                    let file = files.open(&path).unwrap();
                    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                    file.read_full(0, &mut bytes).unwrap();
                    found.insert(path, bytes);
                }
            }
        }
    }
    found
}

async fn assert_whole(env: &Env) {
    let store = env.open_store(DIRECTORY).unwrap();
    let report = snapshots::verify(env, store, &mut |_| {}).await.unwrap();
    assert!(report.is_whole() && report.files > 0, "{:?}", report.problems);
}

/// There is room again: the job takes a checkpoint, can be stopped, and nothing is missing.
async fn recover(sim: &Control, env: &Env, handle: JobHandle, ledger: &Ledger<Row>, told: &str) {
    sim.disk().limit_space(None);
    let control = handle.control().clone();
    let before = control.view().last_checkpoint;
    let end = env.now() + RECOVERY;
    while control.view().last_checkpoint == before || control.view().status != JobStatus::Running {
        assert!(env.now() < end, "{told}: {:?}", control.view());
        env.sleep(Duration::from_millis(100)).await;
    }
    control.ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
    handle.join().await.unwrap();
    assert_gapless(ledger, 250);
    assert_whole(env).await;
}

/// Lines that the job's processes have printed since the first `from` ones.
fn lines(sim: &Control, from: usize) -> Vec<String> {
    sim.printed().into_iter().skip(from).map(|(_, line)| line).collect()
}

/// One of the lines names a file in the directory and the remedy.
fn tells(lines: &[String]) -> bool {
    assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:#?}");
    lines.iter().any(|line| line.contains("/checkpoints/") && line.contains("check space"))
}

#[test]
fn a_start_without_room_changes_nothing_and_says_what_to_do() {
    let (mut refused, mut started) = (0, 0);
    for room in rooms() {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let (process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
            env.sleep(Duration::from_secs(3)).await;
            process.kill();
            drop(handle);
            let before = image(&env, DIRECTORY);
            sim.disk().limit_space(Some(room));
            let handle = match start(sim, job(&ledger, &[])).await {
                Ok((_, handle)) => handle,
                Err(error) => {
                    assert_says(
                        &error,
                        ErrorKind::Unavailable,
                        &["/checkpoints/job.lock", "free some space"],
                    );
                    assert!(before == image(&env, DIRECTORY), "{room}: something has changed");
                    refused += 1;
                    sim.disk().limit_space(None);
                    start(sim, job(&ledger, &[])).await.unwrap().1
                }
            };
            env.sleep(WHILE_FULL).await;
            let told = format!("room for {room} bytes");
            if handle.control().view().attempt.is_none() {
                let error = handle.join().await.unwrap_err();
                assert_says(&error, ErrorKind::Unavailable, &["/checkpoints", "space"]);
                assert!(before == image(&env, DIRECTORY), "{told}: something has changed");
                refused += 1;
                sim.disk().limit_space(None);
                let handle = start(sim, job(&ledger, &[])).await.unwrap().1;
                return recover(sim, &env, handle, &ledger, &told).await;
            }
            started += 1;
            assert_whole(&env).await;
            recover(sim, &env, handle, &ledger, &told).await;
        });
    }
    assert!(refused > 5 && started > 5, "{refused} were refused, {started} began");
}

/// How many runs of one subtask the newest checkpoint lists, at the most.
async fn runs(env: &Env) -> usize {
    let store = env.open_store(DIRECTORY).unwrap();
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let file = &newest.standing.completed.last().unwrap().manifest;
    let manifest = manifest::read(env, &*store, file).await.unwrap();
    let subtasks = manifest.operators.iter().flat_map(|operator| &operator.subtasks);
    subtasks.map(|subtask| subtask.runs.len()).max().unwrap()
}

#[test]
fn what_waits_for_a_full_disk_is_bounded() {
    for parallelism in ["1", "3"] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let more = [
                ("checkpoints.tolerable-failures", "1000000"),
                ("checkpoints.timeout", "300ms"),
                ("parallelism", parallelism),
            ];
            let (_process, handle) = start(sim, job(&ledger, &more)).await.unwrap();
            env.sleep(Duration::from_secs(3)).await;
            sim.disk().limit_space(Some(0));
            let failed = handle.control().view().checkpoints.failed;
            env.sleep(Duration::from_secs(120)).await;
            let view = handle.control().view();
            assert!(view.checkpoints.failed > failed + 100, "{:?}", view.checkpoints);
            sim.disk().limit_space(None);
            while handle.control().view().last_checkpoint == view.last_checkpoint {
                env.sleep(Duration::from_millis(10)).await;
            }
            // Those before, those that waited, and the one that has completed.
            let runs = runs(&env).await;
            assert!(runs <= 12 + 4 + 1, "{runs} runs");
            recover(sim, &env, handle, &ledger, "120 s").await;
        });
    }
}

#[test]
fn a_disk_that_fills_up_in_mid_run_stops_checkpoints_and_not_the_job() {
    // Failed checkpoints are tolerated, or each of them restarts the job.
    for (tolerable, restarts) in [("1000", false), ("0", true)] {
        for room in rooms() {
            simulate(async |sim, env| {
                let ledger = Ledger::default();
                let more = [("checkpoints.tolerable-failures", tolerable)];
                let (_process, handle) = start(sim, job(&ledger, &more)).await.unwrap();
                env.sleep(Duration::from_secs(3)).await;
                let (view, printed) = (handle.control().view(), sim.printed().len());
                assert!(view.checkpoints.completed > 5);
                sim.disk().limit_space(Some(room));
                env.sleep(WHILE_FULL).await;
                let told = format!("room for {room} bytes, {tolerable} tolerable");
                let lines = lines(sim, printed);
                assert!(tells(&lines), "{told}: {lines:#?}");
                assert_whole(&env).await;
                let now = handle.control().view();
                assert_eq!(now.restarts > 0, restarts, "{told}: {:?}", now.failures);
                if !restarts {
                    assert_eq!(now.status, JobStatus::Running, "{told}");
                    // A record of what sinks have committed is tried again and again, old files are collected later.
                    let others = lines.iter().filter(|line| !line.contains(" is tried "));
                    assert_eq!(others.count(), 1, "{lines:#?}");
                }
                recover(sim, &env, handle, &ledger, &told).await;
            });
        }
    }
}
