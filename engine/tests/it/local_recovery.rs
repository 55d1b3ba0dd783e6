//! Local recovery: a restart on the same machine reads its state from copies there, as far as they are the files that the
//! checkpoint names, and from the store otherwise; the result is the same. The store is far away, so that whatever the disk
//! here does, it does to the copies alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use checkpoint::{history, manifest};
use env::{
    Env,
    sim::{Control, StoreCall},
};
use tidegate_engine::{
    cluster::{attempt::Ask, local::JobHandle, status::JobStatus},
    prelude::*,
};

use crate::{
    counting::{assert_gapless, counting, endless},
    full_disk::image,
    ledger::Ledger,
    numbers::Numbers,
    world::{Row, simulate, start},
};

const STORE: &str = "sim:far";
const ROOT: &str = "/local";

fn job_of(source: &Numbers, ledger: &Ledger<Row>, more: &[(&str, &str)]) -> Job {
    let settings = [
        ("checkpoints.url", STORE),
        ("checkpoints.interval", "100ms"),
        ("state.local-recovery", "16MiB"),
        ("state.directory", ROOT),
    ];
    counting(source, &[&settings, more].concat(), ledger)
}

fn job(ledger: &Ledger<Row>, more: &[(&str, &str)]) -> Job {
    job_of(&endless(), ledger, more)
}

/// Notes each read of a run in the store.
#[derive(Clone, Default)]
struct Reads(Arc<Mutex<Vec<String>>>);

impl Reads {
    fn watch(sim: &Control) -> Self {
        let reads = Self::default();
        let noted = reads.clone();
        sim.rule_stores(move |_, call| {
            if call.starts_with("get ") && call.contains("/runs/") {
                noted.0.lock().unwrap().push(call.to_owned());
            }
            StoreCall::Goes
        });
        reads
    }

    /// Those since the last look.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The copies, and those that are not whole yet, without the locks.
fn copies(env: &Env) -> Vec<PathBuf> {
    let files = env.files();
    let found = files.read_dir(Path::new(ROOT)).unwrap_or_default().into_iter();
    let dirs = found.filter(|path| path.extension().is_none());
    dirs.flat_map(|dir| files.read_dir(&dir).unwrap()).collect()
}

/// The paths of which there are copies.
fn copied(env: &Env) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().replace('+', "/");
    copies(env).iter().map(name).collect()
}

/// The runs that the newest completed checkpoint lists.
async fn listed(env: &Env) -> BTreeSet<String> {
    let store = env.open_store(STORE).unwrap();
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let file = &newest.standing.completed.last().unwrap().manifest;
    let manifest = manifest::read(env, &*store, file).await.unwrap();
    let subtasks = manifest.operators.iter().flat_map(|operator| &operator.subtasks);
    subtasks.flat_map(|subtask| &subtask.runs).map(|run| run.file.path.clone()).collect()
}

/// Until all its tasks run, and so have their state.
async fn until_running(env: &Env, handle: &JobHandle) {
    while handle.control().view().status != JobStatus::Running {
        env.sleep(Duration::from_millis(1)).await;
    }
}

async fn stop(handle: JobHandle) {
    handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
    handle.join().await.unwrap();
}

/// What the job's processes have said about copies.
fn said(sim: &Control) -> Vec<String> {
    let about = |line: &String| line.contains("local copy") || line.contains("local recovery");
    sim.printed().into_iter().map(|(_, line)| line).filter(about).collect()
}

/// One life of `job` that is killed after a while: it leaves a checkpoint and copies of its runs.
async fn killed(sim: &Control, env: &Env, job: Job) {
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_secs(3)).await;
    assert!(handle.control().view().checkpoints.completed > 10);
    process.kill();
    drop(handle);
}

#[test]
fn a_new_process_at_any_parallelism_reads_nothing_from_the_store() {
    for backend in ["filesystem", "sorted-map"] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let with =
                |parallelism| job(&ledger, &[("state.backend", backend), ("parallelism", parallelism)]);
            killed(sim, &env, with("2")).await;
            for parallelism in ["2", "3", "1", "4"] {
                let reads = Reads::watch(sim);
                let (process, handle) = start(sim, with(parallelism)).await.unwrap();
                until_running(&env, &handle).await;
                let restored = handle.control().view().restored;
                assert!(restored.local.unwrap() > 1000 && restored.store == 0, "{restored:?}");
                assert_eq!(reads.take(), [""; 0], "{backend}, parallelism {parallelism}");
                env.sleep(Duration::from_secs(2)).await;
                process.kill();
            }
            let (_process, handle) = start(sim, with("2")).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            stop(handle).await;
            assert_gapless(&ledger, 600);
            assert_eq!(said(sim), [""; 0]);
            let told = sim
                .printed()
                .iter()
                .filter(|(_, line)| line.contains(", 0 from the checkpoint store"))
                .count();
            assert_eq!(told, 5, "each restore says what it read: {:#?}", sim.printed());
        });
    }
}

#[test]
fn a_restart_in_the_process_reads_nothing_from_the_store() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let fails = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&fails);
        let failure = move |_| asked.swap(false, Ordering::Relaxed).then(|| Error::retryable("for once"));
        let (_process, handle) = start(sim, job_of(&endless().failing(failure), &ledger, &[])).await.unwrap();
        env.sleep(Duration::from_secs(3)).await;
        let reads = Reads::watch(sim);
        fails.store(true, Ordering::Relaxed);
        while handle.control().view().restarts == 0 {
            env.sleep(Duration::from_millis(10)).await;
        }
        until_running(&env, &handle).await;
        let restored = handle.control().view().restored;
        assert!(restored.local.unwrap() > 0 && restored.store == 0, "{restored:?}");
        assert_eq!(reads.take(), [""; 0]);
        stop(handle).await;
        assert_gapless(&ledger, 300);
    });
}

/// What happens to the bytes of a copy, by its place among them.
type Harm = fn(usize, &mut Vec<u8>, &[Vec<u8>]);

#[test]
fn copies_that_are_not_what_the_checkpoint_names_are_dropped_and_never_used() {
    let harms: [(&str, Harm); 4] = [
        ("a bit is flipped in each", |_, bytes, _| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("each is cut", |_, bytes, _| bytes.truncate(bytes.len() - 1)),
        ("each is longer", |_, bytes, _| bytes.push(0)),
        ("each is another one", |at, bytes, all| bytes.clone_from(&all[(at + 1) % all.len()])),
    ];
    for (what, harm) in harms {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            killed(sim, &env, job(&ledger, &[])).await;
            let before = copies(&env);
            let contents: Vec<_> =
                image(&env, ROOT).into_iter().filter(|(path, _)| before.contains(path)).collect();
            let contents: Vec<Vec<u8>> = contents.into_iter().map(|(_, bytes)| bytes).collect();
            assert!(contents.len() > 1);
            for (at, path) in before.iter().enumerate() {
                sim.disk().damage(path, |bytes| harm(at, bytes, &contents)).unwrap();
            }
            let reads = Reads::watch(sim);
            let (process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
            until_running(&env, &handle).await;
            let restored = handle.control().view().restored;
            assert!(restored.local == Some(0) && restored.store > 1000, "{what}: {restored:?}");
            assert!(!reads.take().is_empty());
            let lines = said(sim);
            assert_eq!(lines.len(), 1, "{what}: {lines:#?}");
            assert!(
                !lines[0].contains('\n')
                    && lines[0].contains("/local/tidegate-copies-")
                    && lines[0].contains("nothing is to be done")
            );
            // What was read from the store has a copy again.
            process.kill();
            drop(handle);
            let (_process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
            until_running(&env, &handle).await;
            let restored = handle.control().view().restored;
            assert!(restored.local.unwrap() > 1000 && restored.store == 0, "{what}: {restored:?}");
            env.sleep(Duration::from_secs(1)).await;
            stop(handle).await;
            assert_gapless(&ledger, 300);
        });
    }
}

#[test]
fn a_full_disk_costs_copies_and_nothing_else() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        sim.disk().limit_space(Some(700));
        let before = handle.control().view().checkpoints;
        env.sleep(Duration::from_secs(5)).await;
        let after = handle.control().view().checkpoints;
        assert!(after.completed > before.completed + 20 && after.failed == 0, "{after:?}");
        let lines = said(sim);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("/local/") && lines[0].contains("free some space"), "{lines:#?}");
        assert!(copied(&env).iter().all(|name| !name.ends_with(".partial")));
        // A restart while it is full.
        process.kill();
        drop(handle);
        let (_process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
        until_running(&env, &handle).await;
        assert!(handle.control().view().restored.store > 0);
        sim.disk().limit_space(None);
        env.sleep(Duration::from_secs(2)).await;
        let listed = listed(&env).await;
        assert!(copied(&env).iter().any(|path| listed.contains(path)), "there is room again");
        stop(handle).await;
        assert_gapless(&ledger, 300);
    });
}

#[test]
fn copies_never_take_more_than_they_may() {
    // A run has about 600 bytes; of the last, none fits.
    for limit in [4096_u64, 1500, 100] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let text = limit.to_string();
            let bounded = || job(&ledger, &[("state.local-recovery", &text)]);
            let (mut most, mut lives) = (0, Vec::new());
            for _ in 0..3 {
                let (process, handle) = start(sim, bounded()).await.unwrap();
                for _ in 0..400 {
                    env.sleep(Duration::from_millis(5)).await;
                    let sizes =
                        copies(&env).into_iter().filter_map(|path| env.files().metadata(&path).unwrap());
                    let bytes: u64 = sizes.map(|meta| meta.len).sum();
                    assert!(bytes <= limit, "{bytes} bytes of {limit}");
                    most = most.max(bytes);
                }
                lives.push(handle.control().view().restored);
                process.kill();
            }
            assert_eq!(most > 0, limit > 100, "{most}");
            assert!(lives[1..].iter().all(|read| (read.local.unwrap() > 0) == (limit > 100)), "{lives:?}");
            let (_process, handle) = start(sim, bounded()).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            stop(handle).await;
            assert_gapless(&ledger, 600);
            assert_eq!(said(sim), [""; 0]);
        });
    }
}

#[test]
fn what_no_checkpoint_to_come_needs_goes() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, job(&ledger, &[("snapshot.merge-fan-in", "2")])).await.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        stop(handle).await;
        env.sleep(Duration::from_secs(1)).await;
        let (copied, listed) = (copied(&env), listed(&env).await);
        let more: Vec<_> = copied.difference(&listed).collect();
        assert!(listed.is_subset(&copied) && listed.len() > 3, "{listed:?} {copied:?}");
        assert!(
            more.len() <= 1,
            "but for the last merge, which the next checkpoint would have listed: {more:?}"
        );
    });
}

#[test]
fn a_job_that_finishes_leaves_nothing() {
    simulate(async |sim, env| {
        let numbers = Numbers::new(2, 300).paced(3, Duration::from_millis(10));
        let (_process, handle) = start(sim, job_of(&numbers, &Ledger::default(), &[])).await.unwrap();
        env.sleep(Duration::from_millis(700)).await;
        assert!(!copies(&env).is_empty());
        handle.join().await.unwrap();
        assert_eq!(env.files().read_dir(Path::new(ROOT)).unwrap(), [""; 0].map(PathBuf::from));
    });
}

#[test]
fn copies_of_another_job_or_another_line_of_history_are_not_used() {
    simulate(async |sim, env| {
        let (one, two) = (Ledger::default(), Ledger::default());
        let other = || job(&two, &[("checkpoints.url", "sim:other")]);
        killed(sim, &env, job(&one, &[])).await;
        let of_one = copies(&env);
        killed(sim, &env, other()).await;
        let of_two: Vec<_> = copies(&env).into_iter().filter(|path| !of_one.contains(path)).collect();
        // Under the names of the one job lies what the other has written, as far as both have such a file.
        let find = |path: &PathBuf| of_two.iter().find(|it| it.file_name() == path.file_name());
        let before = image(&env, ROOT);
        let mixed: Vec<_> = of_one.iter().filter_map(|path| Some((path, &before[find(path)?]))).collect();
        assert!(!mixed.is_empty(), "{of_one:?} {of_two:?}");
        for (path, bytes) in mixed {
            sim.disk().damage(path, |copy| copy.clone_from(bytes)).unwrap();
        }
        let (_process, handle) = start(sim, job(&one, &[])).await.unwrap();
        until_running(&env, &handle).await;
        assert!(handle.control().view().restored.store > 0);
        env.sleep(Duration::from_secs(1)).await;
        stop(handle).await;
        assert_gapless(&one, 300);

        // Another line of history of the other job: none of the copies is of it, and they go.
        let before = copied(&env);
        let ledger = Ledger::default();
        let anew = [("checkpoints.url", "sim:other"), ("from", "none"), ("accept-foreign-output", "true")];
        let (_process, handle) = start(sim, job(&ledger, &anew)).await.unwrap();
        until_running(&env, &handle).await;
        assert_eq!(handle.control().view().restored.local, Some(0));
        assert!(of_two.iter().all(|path| !copies(&env).contains(path)), "{before:?}");
        env.sleep(Duration::from_secs(1)).await;
        stop(handle).await;
        assert_gapless(&ledger, 100);
    });
}

#[test]
fn a_directory_that_another_process_holds_is_left_alone() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (first, fenced) = start(sim, job(&ledger, &[])).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        // It takes the job over; the directory is free only once the process that had it is gone.
        let (_second, handle) = start(sim, job(&ledger, &[("take-over", "true")])).await.unwrap();
        until_running(&env, &handle).await;
        let lines = said(sim);
        assert!(lines[0].contains("in use by pid") && lines[0].contains("state.directory"), "{lines:#?}");
        assert_eq!(fenced.join().await.unwrap_err().kind(), ErrorKind::Fenced);
        first.kill();
        env.sleep(Duration::from_secs(1)).await;
        let listed = listed(&env).await;
        assert!(copied(&env).iter().any(|path| listed.contains(path)), "it is free now");
        assert_eq!(ledger.breaches(), [""; 0]);
        stop(handle).await;
    });
}
