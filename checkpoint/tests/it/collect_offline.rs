//! Collection without the job: it lists what it deletes, deletes nothing that is needed, and leaves the job where it stood.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use env::{
    Env, Store,
    sim::{Simulation, StoreCall},
};
use tidegate_checkpoint::{
    collect::{FILES_PER_MARK, Found, Why, collect_offline, find},
    history::{self, EndKind, JobLock, Kind, RestorePlan, Savepoint, Source, Standing, Started},
    manifest,
    snapshots::verify,
    storage::paths,
};
use types::{AttemptId, CheckpointId, ErrorKind, Lineage, RecordNumber, Result, SubtaskIndex};

use crate::{
    crashes::Work,
    fixture::{Job, request, uid},
};

const JOB: &str = "/jobs/a";

async fn standing(env: &Env) -> Standing {
    let newest = history::open(env, env.open_store(JOB).unwrap()).await.unwrap();
    newest.unwrap().standing.clone()
}

/// A job that died twice: checkpoints 1 and 2 are committed, 3 is not, and each attempt has left runs that no checkpoint
/// lists.
async fn died(env: &Env) -> Job {
    let store = env.open_store(JOB).unwrap();
    let mut first = Job::start(env, &store).await.unwrap();
    first.checkpoint().await.unwrap();
    orphan(&store, AttemptId(0), 77).await;
    let mut job = Job::start(env, &store).await.unwrap();
    job.checkpoint().await.unwrap();
    job.complete().await.unwrap();
    orphan(&store, job.history.attempt(), 78).await;
    job
}

async fn orphan(store: &Arc<dyn Store>, attempt: AttemptId, number: u64) {
    let path = paths::run(attempt, &uid(), SubtaskIndex(0), number);
    store.put(&path, vec![Bytes::from_static(b"never listed")]).await.unwrap();
}

async fn all(env: &Env) -> BTreeSet<String> {
    let listing = env.open_store(JOB).unwrap().list("").await.unwrap();
    let paths = listing.into_iter().map(|entry| entry.path);
    paths.filter(|path| *path != paths::LOCK && *path != paths::LATEST).collect()
}

fn paths_of(found: &Found) -> Vec<&str> {
    found.garbage.iter().map(|garbage| garbage.path.as_str()).collect()
}

/// What the next start of the job does: restored checkpoint, lineage, what it commits, first checkpoint, revocations.
async fn next_start(env: &Env) -> (CheckpointId, Lineage, Vec<CheckpointId>, CheckpointId, bool, bool) {
    let store = env.open_store(JOB).unwrap();
    let lock = JobLock::acquire(env, &*store, false).await.unwrap();
    let started = history::start(env, store, &lock, &request("job")).await.unwrap();
    let Started::Running(history, plan) = started else { panic!("it has not finished") };
    let RestorePlan { revoked, pending, abandoned, source, continues, first_checkpoint, .. } = *plan;
    let Source::Own { checkpoint, .. } = source else { panic!("it restores its own checkpoint") };
    let pending = pending.iter().map(|pending| pending.permit.checkpoint()).collect();
    let nothing_lost = revoked.is_empty() && abandoned.is_empty();
    (checkpoint.checkpoint, history.lineage(), pending, first_checkpoint, continues, nothing_lost)
}

#[test]
fn the_next_start_is_what_it_would_have_been() {
    let lived = |collects: bool| {
        Simulation::new(71).run(async |env| {
            let mut job = died(&env).await;
            if collects {
                let before = standing(&env).await;
                let store = env.open_store(JOB).unwrap();
                let found = collect_offline(&env, &store, true).await.unwrap();
                assert_eq!(
                    paths_of(&found),
                    ["attempt-0/runs/count/0-77.run", "attempt-3/runs/count/0-78.run"]
                );
                let mut after = standing(&env).await;
                assert_eq!(after.attempt.id, AttemptId(7), "one start record, and it is the last");
                assert!(after.attempt.process.starts_with("tidegate gc, pid "), "{}", after.attempt.process);
                assert_eq!(after.attempt.restores, before.restore_point());
                after.attempt = before.attempt.clone();
                assert_eq!(after, before, "all else is restated, and no mark is open");
                // Whoever still runs it can append nothing more.
                let late = job.history.append(Kind::SinksConfirmed(CheckpointId(3))).await.unwrap_err();
                assert_eq!(late.kind(), ErrorKind::Fenced);
                assert!(late.message().contains("taken over by attempt 7 (tidegate gc, pid"), "{late}");
            }
            next_start(&env).await
        })
    };
    let (left_alone, collected) = (lived(false), lived(true));
    assert_eq!((left_alone.0, &left_alone.2), (CheckpointId(3), &vec![CheckpointId(3)]));
    // Worlds of one seed draw the same names.
    assert_eq!(left_alone, collected);
}

#[test]
fn a_dry_run_lists_what_goes_and_changes_nothing() {
    Simulation::new(72).run(async |env| {
        let job = died(&env).await;
        let store = env.open_store(JOB).unwrap();
        let attempt = job.history.attempt();
        for number in 0..2 * FILES_PER_MARK as u64 + 7 {
            orphan(&store, attempt, 1_000 + number).await;
        }
        store.put("notes", vec!["mine".into()]).await.unwrap();
        let before = all(&env).await;
        let found = find(&env, &store).await.unwrap();
        assert_eq!(all(&env).await, before);
        assert_eq!(found.garbage.len(), 2 * FILES_PER_MARK + 9);
        assert!(found.garbage.iter().all(|garbage| garbage.len == 12));
        for garbage in &found.garbage {
            // The last attempt may go on with what it has written, as far as anybody knows.
            let is_old = garbage.path == "attempt-0/runs/count/0-77.run";
            assert_eq!(garbage.why, if is_old { Why::Orphan } else { Why::OrphanIfDead }, "{}", garbage.path);
        }
        let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
        let living = find(&env, &store).await.unwrap();
        assert_eq!(paths_of(&living), ["attempt-0/runs/count/0-77.run"], "the rest is in use");
        assert_eq!(living.run_by.as_ref(), Some(&lock.process));
        drop(lock);
        let collected = collect_offline(&env, &store, true).await.unwrap();
        let bare =
            |found: &Found| -> Vec<_> { found.garbage.iter().map(|it| (it.path.clone(), it.len)).collect() };
        assert_eq!(bare(&collected), bare(&found));
        assert!(collected.garbage.iter().all(|garbage| garbage.why == Why::Orphan));
        let history = |path: &&String| path.starts_with(paths::HISTORY);
        let after = all(&env).await;
        let gone: Vec<_> = before.difference(&after).map(String::as_str).collect();
        assert_eq!(gone, paths_of(&found));
        assert!(after.difference(&before).all(|path| history(&path)), "only records came");
        let report = verify(&env, Arc::clone(&store), &mut |_| {}).await.unwrap();
        assert!(report.is_whole() && report.problems.len() == 1, "{:?}", report.problems);
        // Once more there is nothing to do, and then nothing is done.
        let records = after.iter().filter(history).count();
        assert!(collect_offline(&env, &store, true).await.unwrap().is_empty());
        assert_eq!(all(&env).await.iter().filter(history).count(), records);
    });
}

/// What is told is what went, also of what came between the look and the fence.
#[test]
fn what_was_deleted_is_told_and_not_what_was_found_before() {
    let sim = Simulation::new(78);
    sim.run(async |env| {
        let job = died(&env).await;
        let attempt = job.history.attempt();
        let store = env.open_store(JOB).unwrap();
        let found = find(&env, &store).await.unwrap();
        // The living attempt goes on until it is fenced: its start record is the third one.
        let (process, collector) = sim.control().process("gc");
        sim.rule_stores(|who, call| match who == "gc" && call.starts_with("create history/") {
            true => StoreCall::Waits(Duration::from_secs(5)),
            false => StoreCall::Goes,
        });
        let told = Arc::new(Mutex::new(None));
        let result = Arc::clone(&told);
        let collecting = env.spawn_task("collect", async move {
            let store = collector.open_store(JOB).unwrap();
            *result.lock().unwrap() = Some(collect_offline(&collector, &store, true).await);
        });
        env.sleep(Duration::from_secs(1)).await;
        orphan(&store, attempt, 79).await;
        collecting.join().await.unwrap();
        let collected = told.lock().unwrap().take().unwrap().unwrap();
        drop(process);
        assert_eq!(paths_of(&found), ["attempt-0/runs/count/0-77.run", "attempt-3/runs/count/0-78.run"]);
        assert_eq!(paths_of(&collected)[2..], ["attempt-3/runs/count/0-79.run"]);
        assert_eq!(collected.newest.standing.attempt.id, AttemptId(7));
    });
}

#[test]
fn a_job_that_may_run_is_refused_and_named() {
    Simulation::new(73).run(async |env| {
        drop(died(&env).await);
        let store = env.open_store(JOB).unwrap();
        let before = all(&env).await;
        let unsure = collect_offline(&env, &store, false).await.unwrap_err();
        assert_eq!(unsure.kind(), ErrorKind::Conflict);
        for text in ["the end of attempt 3 of job \"job\" (pid ", "--job-is-dead"] {
            assert!(unsure.message().contains(text), "{unsure}");
        }
        let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
        let lives = collect_offline(&env, &store, true).await.unwrap_err();
        assert_eq!(lives.kind(), ErrorKind::Conflict);
        let text = format!("is in use by {}: a job that runs collects by itself", lock.process);
        assert!(lives.message().contains(&text), "{lives}");
        drop(lock);
        assert_eq!(all(&env).await, before);
        let none = find(&env, &env.open_store("/empty").unwrap()).await.unwrap_err();
        assert!(none.message().contains("/empty is no checkpoint directory"), "{none}");
    });
}

#[test]
fn nothing_goes_while_nobody_knows_what_is_needed() {
    Simulation::new(74).run(async |env| {
        drop(died(&env).await);
        let store = env.open_store(JOB).unwrap();
        let damaged = standing(&env).await.completed[1].manifest.path.clone();
        store.put(&damaged, vec!["damage".into()]).await.unwrap();
        let before = all(&env).await;
        for refused in [find(&env, &store).await, collect_offline(&env, &store, true).await] {
            let refused = refused.map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
            assert!(
                refused.message().contains(&format!("manifest {damaged} of checkpoint 2 is missing")),
                "{refused}"
            );
        }
        assert_eq!(all(&env).await, before);
    });
}

/// Nobody needs to be fenced, and how it ended is not forgotten.
#[test]
fn after_a_recorded_end_garbage_goes_and_the_end_stays() {
    for end in [EndKind::Finished, EndKind::Stopped, EndKind::Cancelled, EndKind::Failed("it did".to_owned())]
    {
        Simulation::new(75).run(async |env| {
            let mut job = died(&env).await;
            job.history.append(Kind::SinksConfirmed(CheckpointId(3))).await.unwrap();
            job.history.append(Kind::Ended(end.clone())).await.unwrap();
            let store = env.open_store(JOB).unwrap();
            let before = standing(&env).await;
            let found = collect_offline(&env, &store, false).await.unwrap();
            assert_eq!(paths_of(&found), ["attempt-0/runs/count/0-77.run"], "what older attempts have left");
            assert_eq!(standing(&env).await, before, "{end:?}");
            let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
            let started = history::start(&env, store, &lock, &request("job")).await.unwrap();
            assert_eq!(matches!(started, Started::Finished { .. }), end == EndKind::Finished);
        });
    }
}

#[test]
fn open_marks_are_ended() {
    Simulation::new(76).run(async |env| {
        let mut job = died(&env).await;
        let files = vec!["attempt-0/runs/count/0-77.run".to_owned(), "attempt-0/gone".to_owned()];
        let mark = history::GarbageMark { checkpoints: Vec::new(), files };
        job.history.append(Kind::GarbageMarked(mark)).await.unwrap();
        let store = env.open_store(JOB).unwrap();
        let found = collect_offline(&env, &store, true).await.unwrap();
        let why: Vec<_> = found.garbage.iter().map(|garbage| garbage.why).collect();
        assert_eq!(why, [Why::Marked(RecordNumber(7)), Why::Orphan]);
        assert!(standing(&env).await.garbage.is_empty());
    });
}

#[test]
fn history_records_below_the_last_milestone_go() {
    Simulation::new(77).run(async |env| {
        let mut job = died(&env).await;
        for checkpoint in 7..=1_003 {
            let manifest = job.history.standing().completed[0].manifest.clone();
            let savepoint = Savepoint { checkpoint: CheckpointId(checkpoint), url: String::new(), manifest };
            job.history.append(Kind::SavepointCompleted(savepoint)).await.unwrap();
        }
        let store = env.open_store(JOB).unwrap();
        let found = collect_offline(&env, &store, true).await.unwrap();
        let old = found.garbage.iter().filter(|garbage| garbage.why == Why::OldRecord);
        let old: Vec<_> = old.map(|garbage| garbage.path.clone()).collect();
        assert_eq!(old, (1..1_000).map(|number| paths::record(RecordNumber(number))).collect::<Vec<_>>());
        let left = all(&env).await;
        assert!(old.iter().all(|path| !left.contains(path)));
        assert_eq!(next_start(&env).await.0, CheckpointId(3));
    });
}

async fn collect(env: &Env) -> Result<()> {
    collect_offline(env, &env.open_store(JOB)?, true).await.map(drop)
}

#[test]
fn wherever_the_power_fails_nothing_needed_is_lost_and_the_job_goes_on() {
    let work = Work {
        before: |env| Box::pin(async move { drop(died(&env).await) }),
        work: |env| Box::pin(async move { collect(&env).await }),
        check: |env, place| {
            Box::pin(async move {
                let store = env.open_store(JOB).unwrap();
                let now = standing(&env).await;
                assert_eq!(now.unconfirmed, [CheckpointId(3)], "{place}");
                for held in now.held() {
                    let manifest = manifest::read(&env, &*store, &held.manifest).await.expect("it is there");
                    for file in manifest.files() {
                        assert!(
                            store.len(&file.path).await.unwrap().is_some(),
                            "{place}: {} is lost",
                            file.path
                        );
                    }
                }
                collect(&env).await.unwrap();
                let report = verify(&env, Arc::clone(&store), &mut |_| {}).await.unwrap();
                assert!(report.problems.is_empty(), "{place}: {:?}", report.problems);
                assert!(standing(&env).await.garbage.is_empty(), "{place}");
                let (restored, lineage, pending, first, continues, nothing_lost) = next_start(&env).await;
                assert_eq!((restored, first), (CheckpointId(3), CheckpointId(4)), "{place}");
                assert_eq!((lineage, pending), (now.attempt.lineage, vec![CheckpointId(3)]), "{place}");
                assert!(continues && nothing_lost, "{place}");
            })
        },
    };
    for seed in 80..83 {
        let failed = work.at_every_change(seed);
        assert!(failed > 25, "only {failed} changes");
    }
}
