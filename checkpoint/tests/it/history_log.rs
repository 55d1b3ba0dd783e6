//! The history's driver in the simulated world: rivals on a store that answers late, loses answers and does things
//! twice; locks, fencing, refused starts, a lost record.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use env::{
    Env, Store,
    sim::{Simulation, StoreFaults},
};
use futures::future;
use rand::RngExt;
use tidegate_checkpoint::{
    history::{
        EndKind, From, Holder, JobLock, Kind, Record, Source, StartRequest, Started,
        fallback::SinkProof,
        fallback::{Fallback, fallback},
        log::start_in,
    },
    savepoint::SnapshotLocation,
    storage::paths,
};
use types::{CheckpointId, ErrorKind, MaxParallelism, RecordNumber, Result};

use crate::fixture::{self, Job, records, request, started};

fn in_store(seed: u64, body: impl AsyncFnOnce(Env, Arc<dyn Store>)) {
    Simulation::new(seed).run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        body(env, store).await;
    });
}

fn kind_of<T>(result: Result<T>) -> ErrorKind {
    result.err().map(|error| error.kind()).expect("an error")
}

#[test]
fn a_continuation_restores_the_last_checkpoint_and_commits_what_is_pending() {
    in_store(1, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        assert_eq!(job.checkpoint().await.unwrap(), CheckpointId(1));
        assert_eq!(job.complete().await.unwrap(), CheckpointId(2));
        let (lineage, runs) = (job.history.lineage(), job.runs.clone());

        let (history, plan) = started(&env, &store, &request("job")).await.unwrap();
        assert_eq!(history.lineage(), lineage);
        assert_eq!(plan.first_checkpoint, CheckpointId(3));
        let pending: Vec<_> = plan.pending.iter().map(|pending| pending.permit.checkpoint()).collect();
        assert_eq!(pending, [CheckpointId(2)]);
        let Source::Own { manifest, .. } = plan.source else { panic!("it restores nothing of its own") };
        assert_eq!(fixture::runs_of(&manifest), runs);

        assert_eq!(kind_of(job.complete().await), ErrorKind::Fenced);
        let again = job.history.append(Kind::SinksConfirmed(CheckpointId(2))).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Fenced);
        assert!(again.message().contains("attempt 4"), "{again}");
        // For good: not even with the other's record gone.
        store.delete(&paths::record(RecordNumber(4))).await.unwrap();
        let again = job.history.append(Kind::SinksConfirmed(CheckpointId(2))).await;
        assert_eq!(kind_of(again), ErrorKind::Fenced);
    });
}

#[test]
fn after_an_answer_that_stays_unclear_an_attempt_appends_nothing_more() {
    let sim = Simulation::new(10);
    sim.run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        let before = job.history.newest().number;
        sim.set_store_faults(StoreFaults { lose_reply: 1.0, ..StoreFaults::default() });
        let unclear = job.history.append(Kind::Ended(EndKind::Stopped)).await.unwrap_err();
        assert_eq!(unclear.kind(), ErrorKind::Retryable);
        assert!(unclear.message().contains("it is unclear whether"), "{unclear}");
        sim.set_store_faults(StoreFaults::default());
        assert_eq!(kind_of(job.complete().await), ErrorKind::Retryable);
        assert_eq!(job.history.newest().number, before);
        // It was created: who starts anew finds it.
        let (history, _) = started(&env, &store, &request("job")).await.unwrap();
        assert_eq!(history.newest().number.0, before.0 + 2);
    });
}

#[test]
fn an_append_that_was_dropped_half_way_is_unclear() {
    in_store(15, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        {
            let append = job.history.append(Kind::Ended(EndKind::Stopped));
            future::select(Box::pin(append), future::ready(())).await;
        }
        assert_eq!(kind_of(job.complete().await), ErrorKind::Retryable);
    });
}

#[test]
fn an_automatic_restart_goes_on_only_if_nobody_took_over() {
    let sim = Simulation::new(2);
    sim.run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
        let automatic = StartRequest { automatic: true, ..request("job") };
        let first = start_in(records(&env, &store), &lock, &request("job")).await.unwrap();
        assert!(matches!(first, Started::Running(..)));
        assert!(start_in(records(&env, &store), &lock, &automatic).await.is_ok());
        let (_rival, other) = sim.process("rival");
        started(&other, &other.open_store("sim:job").unwrap(), &request("job")).await.unwrap();
        let fenced = start_in(records(&env, &store), &lock, &automatic).await;
        assert_eq!(kind_of(fenced), ErrorKind::Fenced);
    });
}

#[test]
fn starts_that_cannot_be_right_are_refused_and_change_nothing() {
    in_store(3, async |env, store| {
        let latest = StartRequest { from: From::Latest, ..request("job") };
        assert_eq!(kind_of(started(&env, &store, &latest).await), ErrorKind::InvalidJob);
        assert!(store.list("").await.unwrap().is_empty());

        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        let before = store.list("").await.unwrap();
        let other = started(&env, &store, &request("other")).await.map(drop).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Conflict);
        assert!(other.message().contains("\"job\"") && other.message().contains("\"other\""), "{other}");
        let wider = StartRequest { max_parallelism: MaxParallelism(2), ..request("job") };
        assert_eq!(kind_of(started(&env, &store, &wider).await), ErrorKind::IncompatibleState);
        let manifest = &job.history.standing().completed[0].manifest.path;
        let intact = store.get(manifest).await.unwrap().unwrap();
        store.put(manifest, vec!["damage".into()]).await.unwrap();
        let damaged = started(&env, &store, &request("job")).await.map(drop).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Corrupt);
        assert!(
            damaged.message().contains(manifest) && damaged.message().contains("; start fresh with another"),
            "{damaged}"
        );
        store.put(manifest, vec![intact]).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), before);
        job.checkpoint().await.expect("nobody took the job over");
    });
}

#[test]
fn a_finished_job_is_not_started_again_and_an_ended_one_goes_on() {
    in_store(4, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        job.history.append(Kind::Ended(EndKind::Stopped)).await.unwrap();
        assert_eq!(kind_of(job.complete().await), ErrorKind::Internal);

        let mut job = Job::start(&env, &store).await.unwrap();
        job.history.append(Kind::Ended(EndKind::Finished)).await.unwrap();
        let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
        let finished = start_in(records(&env, &store), &lock, &request("job")).await.unwrap();
        assert!(matches!(finished, Started::Finished { .. }));
        let fresh = StartRequest { from: From::None, ..request("job") };
        let (history, plan) = started(&env, &store, &fresh).await.unwrap();
        assert!(matches!(plan.source, Source::Empty));
        assert_ne!(history.lineage(), job.history.lineage());
        assert_eq!(plan.first_checkpoint, CheckpointId(2), "numbers are never used twice");
    });
}

#[test]
fn a_fresh_start_commits_or_abandons_what_is_pending_and_is_continued_as_such() {
    in_store(5, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        job.complete().await.unwrap();
        let fresh = StartRequest { from: From::None, ..request("job") };
        let (_, plan) = started(&env, &store, &fresh).await.unwrap();
        assert_eq!(plan.pending.len(), 1);
        // It dies before its first checkpoint: the next one must not fall back to the old line of history.
        let (_, plan) = started(&env, &store, &request("job")).await.unwrap();
        assert!(matches!(plan.source, Source::Empty));
        assert_eq!(plan.pending.len(), 1);
        let abandon = StartRequest { abandon_pending: true, ..fresh };
        let (history, plan) = started(&env, &store, &abandon).await.unwrap();
        assert!(plan.pending.is_empty() && history.standing().unconfirmed.is_empty());
    });
}

#[test]
fn an_older_checkpoint_can_be_chosen_and_is_continued_from() {
    in_store(6, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        for _ in 0..3 {
            job.checkpoint().await.unwrap();
        }
        let location = SnapshotLocation::resolve(&env, "sim:job@2").await.unwrap();
        assert_eq!(location.manifest.checkpoint, CheckpointId(2));
        let older = StartRequest { from: From::Snapshot(location), ..request("job") };
        let (history, plan) = started(&env, &store, &older).await.unwrap();
        assert_ne!(history.lineage(), job.history.lineage());
        assert_eq!(plan.first_checkpoint, CheckpointId(4));
        for plan in [plan, started(&env, &store, &request("job")).await.unwrap().1] {
            let Source::Own { checkpoint, .. } = plan.source else {
                panic!("it restores nothing of its own")
            };
            assert_eq!(checkpoint.checkpoint, CheckpointId(2));
        }
        let record = SnapshotLocation::resolve(&env, "sim:job/history/3").await.unwrap();
        assert_eq!(record.manifest.checkpoint, CheckpointId(2), "the last one when record 3 was written");
        let error = SnapshotLocation::resolve(&env, "sim:job@9").await.unwrap_err();
        assert!(error.message().contains("retained are 1, 2, 3"), "{error}");
    });
}

#[test]
fn falling_back_revokes_the_damaged_checkpoint_first() {
    in_store(7, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        let damaged = job.complete().await.unwrap();
        let standing = job.history.standing();
        let sink = |proof| BTreeMap::from([(fixture::uid(), proof)]);
        for proof in [SinkProof::Committed, SinkProof::Unknown] {
            assert!(matches!(fallback(standing, damaged, &sink(proof)), Fallback::Refuse(_)));
        }
        assert!(matches!(fallback(standing, CheckpointId(1), &BTreeMap::new()), Fallback::Refuse(_)));
        let decided = fallback(standing, damaged, &sink(SinkProof::NothingCommitted));
        let Fallback::RevokeThenRestore { revoke, restore } = decided else { panic!("{decided:?}") };
        assert_eq!((revoke, restore.checkpoint()), (damaged, Some(CheckpointId(1))));

        store.delete(&standing.completed[1].manifest.path).await.unwrap();
        assert_eq!(kind_of(started(&env, &store, &request("job")).await), ErrorKind::Corrupt);
        let stale = StartRequest { revoke: Some(CheckpointId(1)), ..request("job") };
        assert_eq!(
            kind_of(started(&env, &store, &stale).await),
            ErrorKind::Retryable,
            "it is not the newest"
        );
        let back = StartRequest { revoke: Some(damaged), ..request("job") };
        // A sink that commits between the first question and the second: nothing is revoked, and nothing else recorded.
        let (mut history, mut plan) = started(&env, &store, &back).await.unwrap();
        assert!(plan.revoked.is_empty());
        let other = history.append(Kind::SinksConfirmed(damaged)).await.unwrap_err();
        assert!(other.message().contains("before checkpoint 2 is revoked"), "{other}");
        let committed = history.revoke(&mut plan, &sink(SinkProof::Committed)).await.unwrap();
        assert_eq!(committed.unwrap_err(), format!("sink {} has committed output of it", fixture::uid()));
        assert_eq!(history.standing().completed.len(), 2);

        let (mut history, mut plan) = started(&env, &store, &back).await.unwrap();
        let proven = sink(SinkProof::NothingCommitted);
        history.revoke(&mut plan, &proven).await.unwrap().unwrap();
        assert_eq!(plan.revoked, [damaged]);
        assert!(plan.pending.is_empty());
        assert_eq!(history.standing().restore_point().checkpoint(), Some(CheckpointId(1)));
        assert_eq!(history.lineage(), job.history.lineage());
        // A crash before the sinks heard of it: the next attempt revokes again.
        let (_, plan) = started(&env, &store, &request("job")).await.unwrap();
        assert_eq!(plan.revoked, [damaged]);
        assert_eq!(plan.first_checkpoint, CheckpointId(3));
    });
}

#[test]
fn a_hint_ahead_of_the_newest_record_is_a_lost_record() {
    in_store(8, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        let newest = paths::record(job.history.newest().number);
        store.delete(&newest).await.unwrap();
        let lost = started(&env, &store, &request("job")).await.map(drop).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Corrupt);
        assert!(lost.message().contains(&newest), "{lost}");
        // A damaged hint only costs time.
        store.put(paths::LATEST, vec!["?".into()]).await.unwrap();
        assert!(started(&env, &store, &request("job")).await.is_ok());
    });
}

/// Without the hint and with any one record gone, a start must not take an older one for the newest.
#[test]
fn a_hole_in_the_history_never_ends_the_search_early() {
    in_store(10, async |env, store| {
        let mut job = Job::start(&env, &store).await.unwrap();
        for _ in 0..6 {
            job.checkpoint().await.unwrap();
        }
        let records = records(&env, &store);
        let newest = job.history.newest().number;
        let last = records.milestones().at_or_below(newest);
        assert!(last.0 > 0 && newest.0 > last.0 + 1, "record {newest} above milestone {last}");
        store.delete(paths::LATEST).await.unwrap();
        for number in (0..newest.0).map(RecordNumber) {
            let path = paths::record(number);
            let Some(bytes) = store.get(&path).await.unwrap() else { continue };
            store.delete(&path).await.unwrap();
            match records.newest().await {
                Ok(found) => assert_eq!(found.map(|found| found.number), Some(newest), "without {path}"),
                Err(lost) => {
                    assert_eq!(number, last, "only the last milestone is needed: {lost}");
                    let what = format!("history record {path} in {} is missing", store.url());
                    assert!(lost.message().starts_with(&what), "{lost}");
                }
            }
            store.put(&path, vec![bytes]).await.unwrap();
        }
        assert_eq!(records.newest().await.unwrap().unwrap().number, newest);
    });
}

#[test]
fn the_lock_of_a_local_directory_names_its_holder() {
    Simulation::new(9).run(async |env| {
        let store = env.open_store("/jobs/a").unwrap();
        assert_eq!(JobLock::holder(&env, &*store).await.unwrap(), Holder::Nobody);
        let held = JobLock::acquire(&env, &*store, false).await.unwrap();
        assert_eq!(JobLock::holder(&env, &*store).await.unwrap(), Holder::Process(held.process.clone()));
        let refused = JobLock::acquire(&env, &*store, false).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.message().contains(&format!("pid {}", env.process_id())), "{refused}");
        assert!(refused.message().contains("--take-over"), "{refused}");
        let taken = JobLock::acquire(&env, &*store, true).await.unwrap();
        assert_ne!(taken.instance, held.instance);
        // Once the process that was taken over has ended, the other one has it.
        drop(held);
        env.sleep(Duration::from_secs(1)).await;
        let refused = JobLock::acquire(&env, &*store, false).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        drop(taken);
        let held = JobLock::acquire(&env, &*store, false).await.unwrap();
        // One that ends before it had it never takes it.
        let waiting = JobLock::acquire(&env, &*store, true).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        drop(waiting);
        drop(held);
        env.sleep(Duration::from_secs(1)).await;
        JobLock::acquire(&env, &*store, false).await.unwrap();
        // Whoever has died holds nothing, though the file is there.
        assert_eq!(JobLock::holder(&env, &*store).await.unwrap(), Holder::Nobody);
        let memory = env.open_store("memory:a").unwrap();
        assert_eq!(JobLock::holder(&env, &*memory).await.unwrap(), Holder::Unknown);
    });
}

/// What the rivals believe: the records that they acted on.
type Acted = Arc<Mutex<BTreeMap<RecordNumber, Arc<Record>>>>;

/// One life of a rival: takes the job over and appends until it is fenced or killed.
async fn live(env: Env, acted: Acted) {
    let store = env.open_store("sim:job").unwrap();
    let act = |record: &Arc<Record>| {
        let earlier = acted.lock().unwrap().insert(record.number, Arc::clone(record));
        assert!(earlier.is_none_or(|earlier| earlier == *record), "record {} is two records", record.number);
    };
    let Ok(lock) = JobLock::acquire(&env, &*store, true).await else { return };
    let mut automatic = false;
    loop {
        let request = StartRequest { automatic, ..request("job") };
        let mut job = match start_in(records(&env, &store), &lock, &request).await {
            Ok(Started::Running(history, _)) => *history,
            Ok(Started::Finished { .. }) => panic!("nobody finishes"),
            Err(error) if error.kind() == ErrorKind::Retryable => continue,
            Err(error) if error.kind() == ErrorKind::Fenced => return,
            Err(error) => panic!("{error}"),
        };
        act(job.newest());
        loop {
            // Savepoint records carry no files, so that only the history is at work here.
            let savepoint = tidegate_checkpoint::history::Savepoint {
                checkpoint: CheckpointId(0),
                url: format!("of attempt {}", job.attempt()),
                manifest: types::SnapshotFile { path: "m".into(), len: 0, digest: types::Digest(0) },
            };
            match job.append(Kind::SavepointCompleted(savepoint)).await {
                Ok(_) => act(job.newest()),
                Err(error) if error.kind() == ErrorKind::Fenced => return,
                Err(_) => break,
            }
            env.sleep(Duration::from_millis(200)).await;
        }
        automatic = true;
    }
}

#[test]
fn rivals_on_a_bad_store_never_fork_the_history() {
    let mut attempts = 0;
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        let acted = Acted::default();
        sim.run(async |env| {
            let mut random = env.rng("faults");
            sim.set_store_faults(StoreFaults::some(&mut random));
            let lives = ["a", "b"].map(|name| {
                let spans: Vec<u64> = (0..4).map(|_| random.random_range(100..8_000)).collect();
                let (sim, env, acted) = (&sim, &env, &acted);
                async move {
                    for span in spans {
                        let (process, own) = sim.process(name);
                        let _task = own.spawn_task("rival", live(own.clone(), Arc::clone(acted)));
                        env.sleep(Duration::from_millis(span)).await;
                        process.kill();
                    }
                }
            });
            future::join_all(lives).await;
            // Late duplicates have landed; then the history is read as it is.
            env.sleep(Duration::from_secs(60)).await;
            sim.set_store_faults(StoreFaults::default());
            attempts += check(&env, &acted).await;
        });
    }
    assert!(attempts > 200, "only {attempts} attempts: the rivals hardly met");
}

/// The records make one chain, everybody acted on records of it, and only the owner of the time appended.
async fn check(env: &Env, acted: &Acted) -> usize {
    let store = env.open_store("sim:job").unwrap();
    let records = records(env, &store);
    let Some(newest) = records.newest().await.unwrap() else { return 0 };
    let mut attempts = 0;
    let mut before: Option<Record> = None;
    for number in (0..=newest.number.0).map(RecordNumber) {
        let record = records.read(number).await.unwrap().expect("nothing was deleted");
        let expected = Record::after(before.as_ref(), record.at, record.kind.clone()).unwrap();
        assert_eq!(record, expected, "record {number} does not follow the one before it");
        attempts += usize::from(matches!(record.kind, Kind::AttemptStarted(_)));
        if let Kind::SavepointCompleted(savepoint) = &record.kind {
            assert_eq!(savepoint.url, format!("of attempt {}", record.standing.attempt.id));
        }
        if let Some(acted) = acted.lock().unwrap().get(&number) {
            assert_eq!(**acted, record, "somebody acted on another record {number}");
        }
        before = Some(record);
    }
    attempts
}
