//! Collection, killed at every step: whatever the history still holds is there, and garbage goes in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use env::{
    Env, FaultPoint, Store,
    sim::{FaultAction, Simulation},
};
use tidegate_checkpoint::{
    collect::{Collector, FILES_PER_MARK, Marked},
    history::{EndKind, Kind, Standing},
    manifest,
    storage::paths,
};
use types::{CheckpointId, ErrorKind, Result, SubtaskIndex, Uid};

use crate::fixture::{Job, MILESTONES_EVERY, records};

const RETAIN: usize = 2;

/// Every file that the history still holds.
async fn needed(env: &Env, store: &Arc<dyn Store>, standing: &Standing) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for held in standing.held() {
        let manifest = manifest::read(env, &**store, &held.manifest).await.expect("a held manifest is there");
        needed.extend(manifest.files().into_iter().map(|file| file.path.clone()));
        needed.insert(held.manifest.path.clone());
    }
    needed
}

async fn attempt_files(store: &Arc<dyn Store>) -> BTreeSet<String> {
    let listing = store.list("").await.unwrap();
    listing.into_iter().map(|entry| entry.path).filter(|path| path.starts_with("attempt-")).collect()
}

async fn assert_nothing_needed_is_lost(env: &Env, store: &Arc<dyn Store>, place: &str) {
    let Some(newest) = records(env, store).newest().await.unwrap() else { return };
    let needed = needed(env, store, &newest.standing).await;
    let lost: Vec<_> = needed.difference(&attempt_files(store).await).cloned().collect();
    assert!(lost.is_empty(), "{place}: lost {lost:?}");
}

async fn record_numbers(store: &Arc<dyn Store>) -> Vec<u64> {
    let listing = store.list("history/").await.unwrap();
    listing.iter().map(|entry| entry.path["history/".len()..].parse().unwrap()).collect()
}

/// What is left of a history when all that may go is gone: the milestones, and all above the last one.
fn kept_records(newest: u64) -> Vec<u64> {
    let last = newest - newest % MILESTONES_EVERY;
    (0..=newest).filter(|number| *number >= last || number.is_multiple_of(MILESTONES_EVERY)).collect()
}

/// Some life of a job that merges, fails checkpoints, and collects after each one.
async fn live(env: &Env, store: &Arc<dyn Store>, checkpoints: usize) -> Result<()> {
    let mut job = Job::start(env, store).await?;
    let mut collector = Collector::new(env, Arc::clone(store), RETAIN);
    for round in 0..checkpoints {
        if round % 2 == 1 {
            // A failed checkpoint: its run stays in the list.
            job.seal().await?;
        }
        if round % 3 == 2 {
            job.merge().await?;
        }
        job.checkpoint().await?;
        collector.collect(&mut job.history, &BTreeSet::new(), round == 0).await?;
    }
    Ok(())
}

#[test]
fn killed_anywhere_nothing_needed_is_lost_and_garbage_goes() {
    let hits = run_with(None, 3);
    let points: Vec<_> =
        hits.into_iter().flat_map(|(point, hits)| (1..=hits).map(move |nth| (point, nth))).collect();
    for point in [FaultPoint::GarbageRecordAfter, FaultPoint::DeleteBefore, FaultPoint::DeleteAfter] {
        assert!(points.iter().any(|(hit, _)| *hit == point), "{} is never hit", point.name());
    }
    assert!(points.len() > 60, "only {} places to die at", points.len());
    for fault in points {
        run_with(Some(fault), 4);
    }
}

/// Lives several times, dies once if there is a fault, the last life being whole; returns how often each point was hit.
fn run_with(fault: Option<(FaultPoint, u64)>, lives: usize) -> BTreeMap<FaultPoint, u64> {
    let place = fault.map_or("no fault".into(), |(point, nth)| format!("{} #{nth}", point.name()));
    let sim = Simulation::new(11);
    sim.run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        if let Some((point, nth)) = fault {
            sim.arm(point, nth, FaultAction::Fail(ErrorKind::Unavailable));
        }
        let mut deaths = 0;
        for _ in 0..lives {
            deaths += usize::from(live(&env, &store, 6).await.is_err());
            assert_nothing_needed_is_lost(&env, &store, &place).await;
        }
        assert_eq!(deaths, usize::from(fault.is_some()), "{place}");
        // The files of the last attempt that nothing lists are the living tasks'; all others are gone.
        let newest = records(&env, &store).newest().await.unwrap().unwrap();
        assert!(newest.standing.garbage.is_empty(), "{place}");
        assert_eq!(newest.standing.completed.len(), RETAIN, "{place}");
        let own = format!("attempt-{}/", newest.standing.attempt.id);
        let needed = needed(&env, &store, &newest.standing).await;
        let left = attempt_files(&store).await;
        let stray: Vec<_> = left.difference(&needed).filter(|path| !path.starts_with(&own)).collect();
        assert!(stray.is_empty(), "{place}: left behind {stray:?}");
        assert_eq!(record_numbers(&store).await, kept_records(newest.number.0), "{place}");
    });
    sim.faults()
}

#[test]
fn what_is_being_read_or_waits_for_its_sinks_is_kept() {
    Simulation::new(12).run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let mut job = Job::start(&env, &store).await.unwrap();
        let mut collector = Collector::new(&env, Arc::clone(&store), 1);
        for _ in 0..4 {
            job.complete().await.unwrap();
            job.merge().await.unwrap();
        }
        collector.collect(&mut job.history, &BTreeSet::new(), true).await.unwrap();
        assert_eq!(job.history.standing().completed.len(), 4, "no sink has confirmed");
        let confirmed = Kind::SinksConfirmed(CheckpointId(4));
        job.history.append(confirmed).await.unwrap();
        let copied = BTreeSet::from([CheckpointId(2)]);
        collector.collect(&mut job.history, &copied, true).await.unwrap();
        let left: Vec<_> = job.history.standing().completed.iter().map(|held| held.checkpoint.0).collect();
        assert_eq!(left, [2, 4]);
        assert_nothing_needed_is_lost(&env, &store, "while a savepoint is copied").await;
        collector.collect(&mut job.history, &BTreeSet::new(), true).await.unwrap();
        assert_eq!(job.history.standing().completed.len(), 1);
    });
}

#[test]
fn runs_that_only_a_living_task_lists_are_kept() {
    Simulation::new(14).run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        // Its checkpoint failed; the next one will list it.
        job.seal().await.unwrap();
        let mut collector = Collector::new(&env, Arc::clone(&store), 1);
        collector.collect(&mut job.history, &BTreeSet::new(), true).await.unwrap();
        job.checkpoint().await.unwrap();
        collector.collect(&mut job.history, &BTreeSet::new(), true).await.unwrap();
        assert_nothing_needed_is_lost(&env, &store, "after a failed checkpoint").await;
    });
}

#[test]
fn nothing_is_deleted_while_a_needed_manifest_cannot_be_read() {
    Simulation::new(13).run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let mut job = Job::start(&env, &store).await.unwrap();
        for _ in 0..3 {
            job.checkpoint().await.unwrap();
        }
        let newest = job.history.standing().completed[2].manifest.path.clone();
        store.put(&newest, vec!["damage".into()]).await.unwrap();
        let before = attempt_files(&store).await;
        let mut collector = Collector::new(&env, Arc::clone(&store), 1);
        let marked = collector.mark(&mut job.history, &BTreeSet::new(), true).await.unwrap();
        assert_eq!(
            marked,
            Marked { permit: None, orphans_exhausted: false },
            "nobody knows what is an orphan"
        );
        assert_eq!(attempt_files(&store).await, before);
    });
}

#[test]
fn orphans_are_exhausted_when_a_mark_lists_the_last_of_them() {
    for (orphans, marks) in [(0, 1), (FILES_PER_MARK, 1), (FILES_PER_MARK + 1, 2), (2 * FILES_PER_MARK, 2)] {
        Simulation::new(15).run(async |env| {
            let store = env.open_store("sim:job").unwrap();
            let mut job = Job::start(&env, &store).await.unwrap();
            job.checkpoint().await.unwrap();
            for number in 0..orphans {
                store.create(&format!("attempt-0/orphan-{number}"), vec![]).await.unwrap();
            }
            let mut job = Job::start(&env, &store).await.unwrap();
            let mut collector = Collector::new(&env, Arc::clone(&store), 1);
            for round in 1..=marks {
                // What falls out of retention is listed as well, and says nothing about orphans.
                job.checkpoint().await.unwrap();
                job.merge().await.unwrap();
                let without = collector.mark(&mut job.history, &BTreeSet::new(), false).await.unwrap();
                assert!(!without.orphans_exhausted, "nobody looked");
                let with = collector.mark(&mut job.history, &BTreeSet::new(), true).await.unwrap();
                assert_eq!(with.orphans_exhausted, round == marks, "{orphans} orphans, mark {round}");
            }
            let marked = job.history.standing().garbage.iter().flat_map(|mark| &mark.files);
            assert_eq!(marked.filter(|path| path.contains("orphan-")).count(), orphans);
        });
    }
}

#[test]
fn giving_up_leaves_no_orphan_however_many_there_are() {
    Simulation::new(15).run(async |env| {
        let store = env.open_store("sim:job").unwrap();
        let mut first = Job::start(&env, &store).await.unwrap();
        first.checkpoint().await.unwrap();
        let (uid, attempt) = (Uid::new("count").unwrap(), first.history.attempt());
        for number in 0..2 * FILES_PER_MARK as u64 + 7 {
            let path = paths::run(attempt, &uid, SubtaskIndex(0), 1_000 + number);
            store.put(&path, vec![Bytes::from_static(b"never listed")]).await.unwrap();
        }
        let mut job = Job::start(&env, &store).await.unwrap();
        job.checkpoint().await.unwrap();
        job.history.append(Kind::Ended(EndKind::Cancelled)).await.unwrap();
        Collector::new(&env, Arc::clone(&store), 1).give_up(&mut job.history).await.unwrap();
        assert!(job.history.standing().starts_over());
        assert_eq!(attempt_files(&store).await, BTreeSet::new());
    });
}
