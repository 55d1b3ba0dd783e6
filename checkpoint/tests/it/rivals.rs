//! Several copies of one checkpoint into one place at once, where no lock keeps them apart: all that end well name one savepoint,
//! which is whole, whoever dies and however badly the store answers.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use env::{
    Env, Store,
    sim::{Simulation, StoreFaults},
};
use futures::future::join;
use rand::RngExt;
use tidegate_checkpoint::{
    history::Savepoint,
    manifest::Manifest,
    savepoint::{self, RunCopier, SnapshotLocation, delete},
    snapshots::verify,
};
use types::{ErrorKind, ExpiryClocks, Result, Run, RunIdentity};

use crate::{fixture::Job, snapshots::Joiner};

const JOB: &str = "sim:job";
const SAVEPOINT: &str = "sim:savepoint";
const RIVALS: usize = 3;

type Outcomes = Arc<Mutex<Vec<Result<Savepoint>>>>;

async fn checkpoint(env: &Env) -> Manifest {
    let store = env.open_store(JOB).unwrap();
    let mut job = Job::start(env, &store).await.unwrap();
    job.checkpoint().await.unwrap();
    let checkpoint = job.checkpoint().await.unwrap();
    job.manifest(checkpoint)
}

async fn copy(env: &Env, manifest: &Manifest) -> Result<Savepoint> {
    let written = savepoint::write(env, &*env.open_store(JOB)?, manifest, SAVEPOINT, &Joiner).await?;
    Ok(written.savepoint)
}

async fn paths(env: &Env) -> BTreeSet<String> {
    let found = env.open_store(SAVEPOINT).unwrap().list("").await.unwrap();
    found.into_iter().map(|entry| entry.path).collect()
}

/// Nothing but one whole savepoint, which is all of these.
async fn check(env: &Env, copied: &[Savepoint], seed: u64) {
    let store = env.open_store(SAVEPOINT).unwrap();
    let whole = SnapshotLocation::savepoint(env, &store).await.unwrap().expect("there is a savepoint");
    for savepoint in copied {
        assert_eq!(savepoint.manifest, whole.file, "seed {seed}: two savepoints");
    }
    let report = verify(env, Arc::clone(&store), &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "seed {seed}: {:?}", report.problems);
    let mut expected: BTreeSet<String> =
        whole.manifest.files().into_iter().map(|file| file.path.clone()).collect();
    assert!(!expected.is_empty(), "nothing was copied");
    expected.insert(whole.file.path);
    assert_eq!(paths(env).await, expected, "seed {seed}: something is left over");
}

#[test]
fn rivals_make_one_savepoint() {
    let (mut several, mut killed) = (0, 0);
    for seed in 0..60 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            let manifest = checkpoint(&env).await;
            let mut random = env.rng("faults");
            let answers_badly = seed % 2 == 0;
            let faults = if answers_badly { StoreFaults::some(&mut random) } else { StoreFaults::default() };
            let latency = Duration::from_millis(random.random_range(1..50));
            sim.set_store_faults(StoreFaults { latency, ..faults });
            let outcomes = Outcomes::default();
            let mut lives = Vec::new();
            for rival in 0..RIVALS {
                let (process, own) = sim.process(&format!("rival {rival}"));
                let (manifest, outcomes, own_env) = (manifest.clone(), Arc::clone(&outcomes), own.clone());
                let late = Duration::from_millis(random.random_range(0..300));
                lives.push((
                    own.spawn_task("copy", async move {
                        own_env.sleep(late).await;
                        let outcome = copy(&own_env, &manifest).await;
                        outcomes.lock().unwrap().push(outcome);
                    }),
                    process,
                ));
            }
            env.sleep(Duration::from_millis(random.random_range(0..700))).await;
            let (_, victim) = &lives[0];
            victim.kill();
            killed += u32::from(outcomes.lock().unwrap().len() < RIVALS);
            env.sleep(Duration::from_secs(300)).await;
            sim.set_store_faults(StoreFaults::default());
            let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
            let mut copied = Vec::new();
            for outcome in outcomes {
                match outcome {
                    Ok(savepoint) => copied.push(savepoint),
                    // The answer to the end of a run was lost, which is for the command to try again.
                    Err(error) if answers_badly && error.message().contains("simulated") => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            several += u32::from(copied.len() > 1);
            // Whatever the last one to die has left, who comes later takes away.
            copied.push(copy(&env, &manifest).await.unwrap());
            check(&env, &copied, seed).await;
        });
    }
    assert!(several > 40 && killed > 20, "{several} seeds with several copies, {killed} kills");
}

/// Where there are locks, who comes second is told who is there, and takes nothing for a dead one's.
#[test]
fn in_a_local_directory_one_copies_at_a_time() {
    Simulation::new(1).run(async |env| {
        let (manifest, dir) = (checkpoint(&env).await, Path::new("/savepoint"));
        let write = async || {
            let job = env.open_store(JOB).unwrap();
            savepoint::write(&env, &*job, &manifest, "/savepoint", &Joiner).await
        };
        env.files().create_dir_all(dir).unwrap();
        let lock = env.files().lock(&dir.join("copy.lock"), "pid 7").unwrap().ok().unwrap();
        let refused = write().await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Retryable, "{refused}");
        assert!(refused.message().contains("/savepoint is being written by pid 7"), "{refused}");
        assert_eq!(env.files().read_dir(dir).unwrap().len(), 1, "nothing was written");
        drop(lock);
        // The file of a dead one stays, and means nothing.
        assert!(!write().await.unwrap().was_there);
        let names = env.files().read_dir(dir).unwrap();
        assert!(names.iter().all(|name| !name.ends_with("copy.lock")), "{names:?}");
    });
}

/// Writes a run and takes its time.
struct Slow(Env);

#[async_trait]
impl RunCopier for Slow {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        let copied = Joiner.copy(from, runs, clocks, to, path, identity).await;
        self.0.sleep(Duration::from_secs(60)).await;
        copied
    }
}

/// Somebody faster has removed them, and what he made has been deleted since.
#[test]
fn a_copy_whose_runs_were_removed_is_no_savepoint() {
    Simulation::new(50).run(async |env| {
        let manifest = checkpoint(&env).await;
        let (job, store) = (env.open_store(JOB).unwrap(), env.open_store(SAVEPOINT).unwrap());
        let copier = Slow(env.clone());
        let faster = async {
            env.sleep(Duration::from_secs(30)).await;
            copy(&env, &manifest).await.unwrap();
            assert_eq!(paths(&env).await.len(), 2, "the runs of the slow one are gone");
            delete(&env, &store, async |_| Ok(())).await.unwrap();
        };
        let slow = savepoint::write(&env, &*job, &manifest, SAVEPOINT, &copier);
        let (slow, ()) = join(slow, faster).await;
        let error = slow.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
        assert!(
            error.message().contains("savepoint directory") && error.message().contains("copy once more"),
            "{error}"
        );
        assert!(SnapshotLocation::savepoint(&env, &store).await.unwrap().is_none());
        let copied = copy(&env, &manifest).await.unwrap();
        check(&env, &[copied], 50).await;
    });
}
