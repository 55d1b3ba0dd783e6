//! Savepoints, imports, listings and verification, on files that are whole and on files that are not.

use std::{collections::BTreeSet, ops::Range, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use env::{
    Created, Env, FaultPoint, Payload, Store, StoreEntry, StoreWriter,
    sim::{FaultAction, Simulation},
};
use tidegate_checkpoint::{
    collect::Collector,
    history::{self, From, Source, StartRequest},
    manifest::PreparedTransaction,
    savepoint::{self, RunCopier, SnapshotLocation},
    snapshots::{Listing, Report, Severity, list, verify},
    storage::paths,
};
use types::{
    AttemptId, CheckpointId, Digest, Error, ErrorKind, ExpiryClocks, Result, Run, RunIdentity, SnapshotFile,
    SubtaskIndex,
};

use crate::fixture::{Job, request, runs_of, started};

/// Joins the bytes of runs: what a merge is to this crate.
pub(crate) struct Joiner;

#[async_trait]
impl RunCopier for Joiner {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        _clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        let mut bytes = Vec::new();
        for run in runs {
            bytes.extend(from.get(&run.file.path).await?.expect("the run is there"));
        }
        let file = SnapshotFile { path: path.into(), len: bytes.len() as u64, digest: Digest::of(&bytes) };
        let mut writer = to.writer(path).await?;
        writer.write(bytes.into()).await?;
        writer.finish().await?;
        Ok(Some(Run { file, identity, ..runs[0].clone() }))
    }
}

/// Writes a file and dies.
struct Dying;

#[async_trait]
impl RunCopier for Dying {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        Joiner.copy(from, runs, clocks, to, path, identity).await?;
        Err(Error::unavailable("died"))
    }
}

const JOB: &str = "/jobs/a";
const SAVEPOINT: &str = "/savepoints/s";

/// A job with two checkpoints, the second of them copied to a savepoint.
async fn job_with_savepoint(env: &Env) -> Job {
    let store = env.open_store(JOB).unwrap();
    let mut job = Job::start(env, &store).await.unwrap();
    job.checkpoint().await.unwrap();
    let checkpoint = job.checkpoint().await.unwrap();
    let manifest = job.manifest(checkpoint);
    savepoint::write(env, &*store, &manifest, SAVEPOINT, &Joiner).await.unwrap();
    job
}

async fn verified(env: &Env, url: &str) -> Report {
    let mut last = 0;
    let mut progress = |progress: tidegate_checkpoint::snapshots::Progress| {
        assert!(last < progress.bytes && progress.bytes <= progress.total, "{progress:?} after {last}");
        last = progress.bytes;
    };
    verify(env, env.open_store(url).unwrap(), &mut progress).await.unwrap()
}

fn needed(report: &Report) -> Vec<&str> {
    let needed = report.problems.iter().filter(|problem| problem.severity == Severity::Needed);
    needed.map(|problem| problem.file.as_str()).collect()
}

#[test]
fn a_savepoint_stands_for_itself_and_starts_another_job() {
    Simulation::new(21).run(async |env| {
        let job = job_with_savepoint(&env).await;
        let names = env.files().read_dir(SAVEPOINT.as_ref()).unwrap();
        let names: Vec<_> = names.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["manifest", "runs"], "nothing else is left in it");
        let again =
            savepoint::write(&env, &*job.store, &job.manifest(CheckpointId(2)), SAVEPOINT, &Joiner).await;
        let again = again.unwrap();
        assert_eq!((again.savepoint.checkpoint, again.was_there), (CheckpointId(2), true));
        let occupied =
            savepoint::write(&env, &*job.store, &job.manifest(CheckpointId(1)), SAVEPOINT, &Joiner).await;
        assert_eq!(occupied.unwrap_err().kind(), ErrorKind::Conflict);
        let in_job = savepoint::write(&env, &*job.store, &job.manifest(CheckpointId(2)), JOB, &Joiner).await;
        assert_eq!(in_job.unwrap_err().kind(), ErrorKind::Conflict);
        env.files().remove_dir_all(JOB.as_ref()).unwrap();

        let location = SnapshotLocation::resolve(&env, SAVEPOINT).await.unwrap();
        let store = env.open_store("/jobs/b").unwrap();
        let from = StartRequest { from: From::Snapshot(location), ..request("b") };
        let (history, plan) = started(&env, &store, &from).await.unwrap();
        assert_eq!(plan.first_checkpoint, CheckpointId(3));
        let Source::Foreign { store: foreign, manifest } = plan.source else { panic!("it is not foreign") };
        let own = savepoint::import(&env, &*foreign, &manifest, &*store, history.attempt()).await.unwrap();
        env.files().remove_dir_all(SAVEPOINT.as_ref()).unwrap();
        for run in runs_of(&own) {
            let bytes = store.get(&run.file.path).await.unwrap().unwrap();
            assert_eq!(Digest::of(&bytes), run.file.digest);
            assert_eq!(paths::kind(&run.file.path), paths::PathKind::Attempt(AttemptId(0)));
        }
        // It died before its first checkpoint, and the snapshot that it needs is gone.
        let gone = started(&env, &store, &request("b")).await.map(drop).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Corrupt);
        assert!(gone.message().contains(SAVEPOINT), "{gone}");
    });
}

#[test]
fn a_savepoint_that_died_half_way_is_none_and_is_copied_anew() {
    for point in
        [FaultPoint::SavepointCopyBefore, FaultPoint::SavepointCopyAmid, FaultPoint::SavepointCopyAfter]
    {
        let sim = Simulation::new(22);
        sim.run(async |env| {
            let store = env.open_store(JOB).unwrap();
            let mut job = Job::start(&env, &store).await.unwrap();
            let manifest = job.checkpoint().await.map(|checkpoint| job.manifest(checkpoint)).unwrap();
            sim.arm(point, 1, FaultAction::Fail(ErrorKind::Unavailable));
            savepoint::write(&env, &*store, &manifest, SAVEPOINT, &Joiner).await.unwrap_err();
            let written = savepoint::write(&env, &*store, &manifest, SAVEPOINT, &Joiner).await.unwrap();
            assert_eq!(written.was_there, point == FaultPoint::SavepointCopyAfter);
            assert!(verified(&env, SAVEPOINT).await.problems.is_empty());
        });
    }
    Simulation::new(23).run(async |env| {
        let job = job_with_savepoint(&env).await;
        let manifest = job.manifest(CheckpointId(2));
        savepoint::write(&env, &*job.store, &manifest, "/savepoints/half", &Dying).await.unwrap_err();
        let half = env.open_store("/savepoints/half").unwrap();
        assert_eq!(half.list("").await.unwrap().len(), 2, "a claim and a file");
        assert!(SnapshotLocation::resolve(&env, "/savepoints/half").await.is_err());
        let other = job.manifest(CheckpointId(1));
        let refused = savepoint::write(&env, &*job.store, &other, "/savepoints/half", &Joiner).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(half.list("").await.unwrap().len(), 2, "somebody else's copy is left alone");
        savepoint::write(&env, &*job.store, &manifest, "/savepoints/half", &Joiner).await.unwrap();
        assert!(verified(&env, "/savepoints/half").await.problems.is_empty());
    });
}

#[test]
fn a_savepoint_holds_no_pending_transaction() {
    Simulation::new(27).run(async |env| {
        let job = job_with_savepoint(&env).await;
        let mut manifest = job.manifest(CheckpointId(2));
        manifest.operators[0].subtasks[0].prepared = vec![PreparedTransaction {
            lineage: manifest.lineage,
            writer: SubtaskIndex(0),
            attempt: manifest.attempt,
            checkpoint: CheckpointId(2),
            payload: Vec::new(),
            file: None,
        }];
        savepoint::write(&env, &*job.store, &manifest, "/savepoints/t", &Joiner).await.unwrap();
        let copy = SnapshotLocation::resolve(&env, "/savepoints/t").await.unwrap();
        assert!(copy.manifest.operators[0].subtasks[0].prepared.is_empty());
    });
}

#[test]
fn a_damaged_file_is_not_imported() {
    Simulation::new(28).run(async |env| {
        job_with_savepoint(&env).await;
        let (from, to) = (env.open_store(SAVEPOINT).unwrap(), env.open_store("/jobs/b").unwrap());
        let manifest = SnapshotLocation::resolve(&env, SAVEPOINT).await.unwrap().manifest;
        let path = &manifest.files()[0].path;
        let mut flipped = from.get(path).await.unwrap().unwrap().to_vec();
        flipped[3] ^= 4;
        let cut = flipped[..flipped.len() - 1].to_vec();
        for (attempt, damage) in [(0, Some(flipped)), (1, Some(cut)), (2, None)] {
            match damage {
                Some(damage) => from.put(path, vec![damage.into()]).await.unwrap(),
                None => from.delete(path).await.unwrap(),
            }
            let error =
                savepoint::import(&env, &*from, &manifest, &*to, AttemptId(attempt)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().contains(path.as_str()), "{error}");
        }
        assert!(to.list("").await.unwrap().is_empty(), "nothing damaged is ever visible");
    });
}

#[test]
fn a_listing_shows_checkpoints_and_goes_on_after_a_damaged_one() {
    Simulation::new(24).run(async |env| {
        let job = job_with_savepoint(&env).await;
        let first = job.history.standing().completed[0].manifest.path.clone();
        job.store.put(&first, vec!["damage".into()]).await.unwrap();
        let listing = list(&env, Arc::clone(&job.store)).await.unwrap();
        let Listing::Job { checkpoints, newest, .. } = listing else { panic!("{listing:?}") };
        assert_eq!(newest.standing.job_name, "job");
        assert!(checkpoints[0].manifest.is_err());
        assert_eq!(checkpoints[1].manifest.as_ref().unwrap().checkpoint, CheckpointId(2));
        assert!(checkpoints.iter().all(|checkpoint| checkpoint.confirmed));
        assert!(matches!(list(&env, env.open_store(SAVEPOINT).unwrap()).await, Ok(Listing::Savepoint(_))));
        let nothing = list(&env, env.open_store("/empty").unwrap()).await.unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::InvalidJob);
        let missing = SnapshotLocation::resolve(&env, "/nowhere").await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::InvalidJob);
        assert!(env.files().metadata("/nowhere".as_ref()).unwrap().is_none(), "looking makes no directory");
    });
}

#[test]
fn verify_names_every_file_that_is_damaged_cut_or_missing() {
    Simulation::new(25).run(async |env| {
        let job = job_with_savepoint(&env).await;
        let newest = paths::record(job.history.newest().number);
        for url in [JOB, SAVEPOINT] {
            let store = env.open_store(url).unwrap();
            let whole = verified(&env, url).await;
            assert!(whole.problems.is_empty(), "{:?}", whole.problems);
            assert!(whole.files > 0 && whole.bytes > 0 && !whole.manifests.is_empty());
            for entry in store.list("").await.unwrap() {
                let path = entry.path.as_str();
                let bytes = store.get(path).await.unwrap().unwrap();
                if path == paths::LOCK || path == paths::LATEST {
                    continue;
                }
                let mut flipped = bytes.to_vec();
                let middle = flipped.len() / 2;
                flipped[middle] ^= 0x10;
                for damage in [Some(flipped), Some(bytes[..bytes.len() - 1].to_vec()), None] {
                    // Of an older record only that it is there is needed.
                    let is_needed = damage.is_none() || path == newest || !path.starts_with("history/");
                    match damage {
                        Some(damage) => store.put(path, vec![damage.into()]).await.unwrap(),
                        // Without its manifest a savepoint is not recognised at all.
                        None if path == paths::SAVEPOINT_MANIFEST => continue,
                        None => store.delete(path).await.unwrap(),
                    }
                    let report = verified(&env, url).await;
                    assert_eq!(needed(&report).contains(&path), is_needed, "{path}: {:?}", report.problems);
                    assert!(
                        report.problems.iter().any(|problem| problem.file == path),
                        "{path} is not named"
                    );
                    assert_eq!(report.is_whole(), !is_needed, "{path}");
                }
                store.put(path, vec![bytes]).await.unwrap();
            }
        }
        assert!(job.store.list("").await.unwrap().len() > 8);
    });
}

#[test]
fn verify_tells_what_may_be_missing_from_what_is_needed() {
    Simulation::new(26).run(async |env| {
        let job = job_with_savepoint(&env).await;
        job.store.delete(paths::LATEST).await.unwrap();
        job.store.put("attempt-0/runs/count/0-99.run", vec!["of a failed checkpoint".into()]).await.unwrap();
        job.store.put("notes", vec!["of somebody".into()]).await.unwrap();
        let report = verified(&env, JOB).await;
        assert!(report.is_whole());
        let files: Vec<_> = report.problems.iter().map(|problem| problem.file.as_str()).collect();
        assert_eq!(files, ["attempt-0/runs/count/0-99.run", "latest", "notes"]);
        // Two files swapped: each is named.
        let runs: Vec<_> = job.runs.iter().map(|run| run.file.path.clone()).collect();
        let mut bytes = Vec::new();
        for path in &runs {
            bytes.push(job.store.get(path).await.unwrap().unwrap());
        }
        job.store.put(&runs[0], vec![bytes[1].clone()]).await.unwrap();
        job.store.put(&runs[1], vec![bytes[0].clone()]).await.unwrap();
        let report = verified(&env, JOB).await;
        assert_eq!(needed(&report), [runs[0].as_str(), runs[1].as_str()]);
    });
}

/// Some checkpoints more, of which the last is retained.
async fn go_on(job: &mut Job, store: &Arc<dyn Store>) {
    let mut collector = Collector::new(&job.env, Arc::clone(store), 1);
    for _ in 0..5 {
        job.merge().await.unwrap();
        job.checkpoint().await.unwrap();
        let permit = collector.mark(&mut job.history, &BTreeSet::new(), false).await.unwrap();
        let permit = permit.permit.expect("there is garbage");
        Collector::delete(&job.env, &**store, &permit).await.unwrap();
        Collector::done(&mut job.history, &permit).await.unwrap();
    }
}

/// What an old record names is no damage once retention has removed it.
#[test]
fn an_old_record_tells_whether_its_checkpoint_is_kept() {
    Simulation::new(30).run(async |env| {
        let mut job = job_with_savepoint(&env).await;
        let store = Arc::clone(&job.store);
        let first = SnapshotLocation::resolve(&env, &format!("{JOB}/history/2")).await.unwrap();
        assert_eq!(first.manifest.checkpoint, CheckpointId(1));
        go_on(&mut job, &store).await;
        let newest = job.history.newest();
        let kept = newest.standing.completed.last().unwrap().clone();
        let (mut gone, mut there) = (0, 0);
        for number in 1..=newest.number.0 {
            let found = SnapshotLocation::resolve(&env, &format!("{JOB}/history/{number}")).await;
            match found {
                Ok(found) => {
                    assert_eq!(found.file, kept.manifest, "{number}");
                    there += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidJob, "{number}: {error}");
                    let text = format!("was removed by retention (kept: {})", kept.checkpoint);
                    assert!(error.message().contains(&text), "{number}: {error}");
                    gone += 1;
                }
            }
        }
        assert!(gone > 3 && there > 0, "{gone} gone, {there} there");
        let above = newest.number.0 + 1;
        let error = SnapshotLocation::resolve(&env, &format!("{JOB}/history/{above}")).await.unwrap_err();
        let text = format!("there is no history record {above}; the newest is {}", newest.number);
        assert!(error.kind() == ErrorKind::InvalidJob && error.message().contains(&text), "{error}");

        // Where the newest record is damaged, an older one is what helps.
        let path = paths::record(newest.number);
        store.put(&path, vec!["damage".into()]).await.unwrap();
        let from = format!("{JOB}/history/{}", newest.number.0 - 1);
        let damaged = history::open(&env, Arc::clone(&store)).await.unwrap_err();
        let texts = [
            &format!("checkpoint directory {JOB}: "),
            &path,
            &"put the record back".to_owned(),
            &format!("--from {from}, "),
        ];
        assert_eq!(damaged.kind(), ErrorKind::Corrupt);
        assert!(texts.iter().all(|text| damaged.message().contains(text.as_str())), "{damaged}");
        assert_eq!(SnapshotLocation::resolve(&env, &from).await.unwrap().file, kept.manifest);
    });
}

/// A store in whose job something happens at the first call of one kind.
struct Living {
    store: Arc<dyn Store>,
    at: Moment,
    job: futures::lock::Mutex<Option<Job>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// All files are listed.
    Listed,
    /// The first file is about to be compared.
    Compared,
}

impl Living {
    /// The job goes on: everything that it had before is collected.
    async fn go_on(&self, moment: Moment) {
        let Some(mut job) = self.job.lock().await.take_if(|_| moment == self.at) else { return };
        go_on(&mut job, &self.store).await;
    }
}

#[async_trait]
impl Store for Living {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        self.store.create(path, bytes).await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        self.store.put(path, bytes).await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        self.store.writer(path).await
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.store.get(path).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.store.get_range(path, range).await
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        self.go_on(Moment::Compared).await;
        self.store.len(path).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.store.delete(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        let listing = self.store.list(prefix).await;
        self.go_on(Moment::Listed).await;
        listing
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.store.local_dir()
    }
}

#[test]
fn a_job_that_goes_on_while_it_is_verified_is_whole() {
    for at in [Moment::Listed, Moment::Compared] {
        Simulation::new(29).run(async |env| {
            let job = job_with_savepoint(&env).await;
            let (store, before) = (Arc::clone(&job.store), job.history.newest().number);
            let living = Living { store, at, job: futures::lock::Mutex::new(Some(job)) };
            let report = verify(&env, Arc::new(living), &mut |_| {}).await.unwrap();
            assert_eq!(needed(&report), [""; 0], "{at:?}: {:?}", report.problems);

            // What is damaged and still needed is told.
            let store = env.open_store(JOB).unwrap();
            let records = crate::fixture::records(&env, &store);
            let newest = records.newest().await.unwrap().unwrap();
            assert!(newest.number.0 > before.0 + 10, "the job did not go on");
            let manifest = newest.standing.completed.last().unwrap().manifest.path.clone();
            store.put(&manifest, vec!["damage".into()]).await.unwrap();
            assert_eq!(needed(&verified(&env, JOB).await), [manifest.as_str()]);
        });
    }
}
