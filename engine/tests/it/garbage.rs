//! Nothing stays in a checkpoint directory that nothing refers to.

use std::{
    collections::BTreeSet,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use checkpoint::{
    collect::{Collector, FILES_IN_OPEN_MARKS},
    coordinator::Answer,
    history::{self, From, JobLock, Standing, StartRequest, Started},
    snapshots,
    storage::paths,
};
use env::{
    Env, FaultPoint,
    sim::{FaultAction, StoreCall},
};
use tidegate_engine::{cluster::attempt::Ask, prelude::JobHandle};
use types::{AttemptId, ErrorKind, MaxParallelism, Result, SubtaskIndex, Uid};

use crate::{
    counting::{counting, endless},
    ledger::Ledger,
    numbers::Numbers,
    world::{simulate, start},
};

async fn standing(env: &Env) -> Standing {
    let newest = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap();
    newest.unwrap().standing.clone()
}

/// Files that nobody needs, by what `verify` says of the directory at `url`.
async fn needless(env: &Env, url: &str) -> Vec<String> {
    let report = snapshots::verify(env, env.open_store(url).unwrap(), &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    report.problems.iter().map(ToString::to_string).collect()
}

/// Collects all garbage of job "subject", which no process runs, as an attempt of it would; then the retained checkpoint
/// is whole and nothing else is there.
///
/// # Errors
/// A fault that was still armed went off.
pub(crate) async fn collect_all(env: &Env, url: &str) -> Result<()> {
    let store = env.open_store(url)?;
    let lock = JobLock::acquire(env, &*store, true).await?;
    let request = StartRequest { from: From::None, ..StartRequest::new("subject", MaxParallelism(128), 1) };
    let Started::Running(mut history, _) = history::start(env, store.clone(), &lock, &request).await? else {
        panic!("it is started anew")
    };
    let mut collector = Collector::new(env, store, 1);
    loop {
        let before = history.newest().number;
        collector.collect(&mut history, &BTreeSet::new(), true).await?;
        let left = needless(env, url).await;
        if left.is_empty() {
            return Ok(());
        }
        assert!(history.newest().number > before, "nobody collects {left:?}");
    }
}

#[test]
fn what_died_with_an_attempt_goes_after_the_first_checkpoint_of_the_next() {
    simulate(async |sim, env| {
        let settings =
            [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("parallelism", "2")];
        let ledger = Ledger::default();
        let job = || counting(&endless(), &settings, &ledger);
        let (process, handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        sim.arm(FaultPoint::ManifestAfter, 1, FaultAction::Kill);
        tokio::select! {
            biased;
            () = process.died() => {}
            answer = handle.control().ask(Ask::Checkpoint) => panic!("{answer:?}"),
        }
        // Far more than one garbage mark lists.
        let (store, count) = (env.open_store("/checkpoints").unwrap(), Uid::new("count").unwrap());
        for number in 1_000..1_600 {
            let orphan = paths::run(AttemptId(0), &count, SubtaskIndex(0), number);
            store.put(&orphan, vec!["nobody needs it".into()]).await.unwrap();
        }
        assert!(needless(&env, "/checkpoints").await.len() > 600);

        let (_process, handle) = start(sim, job()).await.unwrap();
        for left in [400, 100, 0] {
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            let needless = needless(&env, "/checkpoints").await;
            assert!(needless.len() <= left, "{left}: {needless:?}");
        }
        // All were found: this attempt does not list the whole store for each further checkpoint.
        let orphan = paths::run(AttemptId(0), &count, SubtaskIndex(0), 2_000);
        store.put(&orphan, vec!["nobody needs it".into()]).await.unwrap();
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(needless(&env, "/checkpoints").await.len(), 1);
    });
}

#[test]
fn what_is_marked_and_was_not_deleted_goes_when_the_next_attempt_starts() {
    for action in [FaultAction::Kill, FaultAction::Fail(ErrorKind::Unavailable)] {
        simulate(async |sim, env| {
            let off = ("checkpoints.interval", "off");
            let settings = [("checkpoints.url", "/checkpoints"), off, ("checkpoints.retained", "1")];
            let ledger = Ledger::default();
            let job = || counting(&endless(), &settings, &ledger);
            let (process, handle) = start(sim, job()).await.unwrap();
            sim.arm(FaultPoint::DeleteBefore, 1, action);
            for _ in 0..2 {
                env.sleep(Duration::from_millis(500)).await;
                handle.control().ask(Ask::Checkpoint).await.unwrap();
            }
            env.sleep(Duration::from_secs(1)).await;
            process.kill();
            let store = env.open_store("/checkpoints").unwrap();
            let open = async || {
                let newest = history::open(&env, store.clone()).await.unwrap().unwrap();
                newest.standing.garbage.clone()
            };
            let marks = open().await;
            let [mark] = marks.as_slice() else { panic!("{action:?}: {marks:?}") };
            assert!(store.len(&mark.files[0]).await.unwrap().is_some(), "{action:?}: {mark:?}");

            let (_process, _handle) = start(sim, job()).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            assert_eq!(open().await, [], "{action:?}");
            for file in &mark.files {
                assert_eq!(store.len(file).await.unwrap(), None, "{action:?}: {file}");
            }
        });
    }
}

#[test]
fn what_could_not_be_deleted_is_tried_again_after_the_next_checkpoint() {
    simulate(async |sim, env| {
        let off = ("checkpoints.interval", "off");
        let settings = [("checkpoints.url", "/checkpoints"), off, ("checkpoints.retained", "1")];
        let (_process, handle) =
            start(sim, counting(&endless(), &settings, &Ledger::default())).await.unwrap();
        sim.arm(FaultPoint::DeleteBefore, 1, FaultAction::Fail(ErrorKind::Unavailable));
        let store = env.open_store("/checkpoints").unwrap();
        let mut marked = Vec::new();
        for _ in 0..4 {
            env.sleep(Duration::from_millis(500)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            let newest = history::open(&env, store.clone()).await.unwrap().unwrap();
            assert!(newest.standing.garbage.len() <= 1, "the older mark is done by now");
            marked.extend(newest.standing.garbage.iter().flat_map(|mark| mark.files.clone()));
        }
        assert!(!marked.is_empty(), "every deletion was done at once");
        for file in marked {
            assert_eq!(store.len(&file).await.unwrap(), None, "{file} is still there");
        }
    });
}

/// One checkpoint, and time for what is to be deleted after it.
async fn checkpoint(env: &Env, handle: &JobHandle) {
    env.sleep(Duration::from_millis(500)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    env.sleep(Duration::from_secs(1)).await;
}

const BY_HAND: [(&str, &str); 3] =
    [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("checkpoints.retained", "2")];

#[test]
fn a_file_that_can_never_be_deleted_keeps_no_other_one() {
    simulate(async |sim, env| {
        let (_process, handle) =
            start(sim, counting(&endless(), &BY_HAND, &Ledger::default())).await.unwrap();
        // The first run that is to go: its mark lists a manifest after it.
        let refused = OnceLock::new();
        sim.rule_stores(move |_, call| {
            let is_run = call.starts_with("delete attempt-") && !call.contains("manifest");
            match is_run && refused.get_or_init(|| call.to_owned()) == call {
                true => StoreCall::Fails(ErrorKind::Unavailable),
                false => StoreCall::Goes,
            }
        });
        for _ in 0..20 {
            checkpoint(&env, &handle).await;
            let open = standing(&env).await.garbage;
            let files: usize = open.iter().map(|mark| mark.files.len()).sum();
            assert!(files < FILES_IN_OPEN_MARKS && open.len() <= 1, "{open:?}");
        }
        let standing = standing(&env).await;
        assert_eq!(standing.completed.len(), 2);
        let [open] = standing.garbage.as_slice() else { panic!("{:?}", standing.garbage) };
        let store = env.open_store("/checkpoints").unwrap();
        let mut left = Vec::new();
        for file in &open.files {
            left.extend(store.len(file).await.unwrap().map(|_| file));
        }
        assert!(open.files.len() > 1 && left.len() == 1, "{open:?}: {left:?}");
        let needless = needless(&env, "/checkpoints").await;
        // What was merged last no checkpoint lists yet.
        let (marked, others): (Vec<_>, Vec<_>) =
            needless.iter().partition(|it| it.contains("marked as garbage"));
        assert!(marked.len() <= 1 && others.len() <= 1, "{needless:?}");
    });
}

/// Each open mark stands in every record.
#[test]
fn where_no_file_can_be_deleted_marks_do_not_grow_without_end() {
    simulate(async |sim, env| {
        let settings = [&BY_HAND[..], &[("parallelism", "4")]].concat();
        let (_process, handle) =
            start(sim, counting(&endless(), &settings, &Ledger::default())).await.unwrap();
        sim.rule_stores(|_, call| match call.starts_with("delete attempt-") {
            true => StoreCall::Fails(ErrorKind::Unavailable),
            false => StoreCall::Goes,
        });
        let mut before = 0;
        for _ in 0..400 {
            checkpoint(&env, &handle).await;
            let open: usize = standing(&env).await.garbage.iter().map(|mark| mark.files.len()).sum();
            if open == before && open >= FILES_IN_OPEN_MARKS {
                assert!(open < 2 * FILES_IN_OPEN_MARKS, "{open}");
                return;
            }
            before = open;
        }
        panic!("{before} files in open marks");
    });
}

#[test]
fn a_mark_whose_end_could_not_be_recorded_is_done_after_the_next_checkpoint() {
    simulate(async |sim, env| {
        let (_process, handle) =
            start(sim, counting(&endless(), &BY_HAND, &Ledger::default())).await.unwrap();
        for _ in 0..2 {
            checkpoint(&env, &handle).await;
        }
        // The record after the first deletes.
        let (deleted, refused) = (AtomicBool::new(false), AtomicBool::new(false));
        sim.rule_stores(move |_, call| {
            deleted.fetch_or(call.starts_with("delete attempt-"), Ordering::Relaxed);
            let is_done = call.starts_with("create history/") && deleted.load(Ordering::Relaxed);
            match is_done && !refused.fetch_or(is_done, Ordering::Relaxed) {
                true => StoreCall::Fails(ErrorKind::Unavailable),
                false => StoreCall::Goes,
            }
        });
        checkpoint(&env, &handle).await;
        let open = standing(&env).await.garbage;
        let [mark] = open.as_slice() else { panic!("{open:?}") };
        let store = env.open_store("/checkpoints").unwrap();
        for file in &mark.files {
            assert_eq!(
                store.len(file).await.unwrap(),
                None,
                "{file}: the mark is not done for another reason"
            );
        }
        checkpoint(&env, &handle).await;
        assert_eq!(standing(&env).await.garbage, []);
    });
}

#[test]
fn the_end_of_a_job_waits_for_what_is_being_deleted() {
    for stopped in [false, true] {
        simulate(async |sim, env| {
            let settings = [
                ("checkpoints.url", "/checkpoints"),
                ("checkpoints.interval", "100ms"),
                ("checkpoints.retained", "1"),
            ];
            sim.rule_stores(|_, call| match call.starts_with("delete attempt-") {
                true => StoreCall::Waits(Duration::from_millis(300)),
                false => StoreCall::Goes,
            });
            let numbers =
                if stopped { endless() } else { Numbers::new(2, 200).paced(3, Duration::from_millis(10)) };
            let (_process, handle) =
                start(sim, counting(&numbers, &settings, &Ledger::default())).await.unwrap();
            if stopped {
                env.sleep(Duration::from_secs(1)).await;
                handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
            }
            handle.join().await.unwrap();
            let standing = standing(&env).await;
            assert_eq!(
                standing.end.as_ref().map(|end| end.kind.name()),
                Some(if stopped { "stopped" } else { "finished" })
            );
            assert_eq!((standing.completed.len(), standing.garbage), (1, Vec::new()), "stopped: {stopped}");
            assert_eq!(needless(&env, "/checkpoints").await, [""; 0], "stopped: {stopped}");
        });
    }
}

#[test]
fn the_end_of_a_job_does_not_wait_for_ever_for_a_delete() {
    simulate(async |sim, env| {
        let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "100ms")];
        sim.rule_stores(|_, call| match call.starts_with("delete attempt-") {
            true => StoreCall::Waits(Duration::from_secs(1_000)),
            false => StoreCall::Goes,
        });
        let numbers = Numbers::new(2, 200).paced(3, Duration::from_millis(10));
        let since = env.now();
        let (_process, handle) = start(sim, counting(&numbers, &settings, &Ledger::default())).await.unwrap();
        assert_eq!(handle.join().await.unwrap().how, "finished");
        let took = env.now().since(since);
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
}

#[test]
fn who_asks_has_deleted_what_nobody_looks_for_any_more() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let job = || counting(&endless(), &BY_HAND, &ledger);
        let (process, handle) = start(sim, job()).await.unwrap();
        checkpoint(&env, &handle).await;
        process.kill();
        drop(handle);
        let (_process, handle) = start(sim, job()).await.unwrap();
        checkpoint(&env, &handle).await;
        let (store, count) = (env.open_store("/checkpoints").unwrap(), Uid::new("count").unwrap());
        let orphan = |number| paths::run(AttemptId(0), &count, SubtaskIndex(0), number);
        for number in 1_000..1_600 {
            store.put(&orphan(number), vec!["nobody needs it".into()]).await.unwrap();
        }
        checkpoint(&env, &handle).await;
        assert_eq!(needless(&env, "/checkpoints").await.len(), 600, "this attempt has looked before");

        // One cannot be deleted: whoever asked is told, and the others are gone.
        let kept = orphan(1_007);
        let refused = format!("delete {kept}");
        sim.rule_stores(move |_, call| match call == refused {
            true => StoreCall::Fails(ErrorKind::Unavailable),
            false => StoreCall::Goes,
        });
        let error = handle.control().ask(Ask::Collect).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(store.len(&kept).await.unwrap().is_some());
        sim.rule_stores(|_, _| StoreCall::Goes);
        // Two who ask at once are both answered.
        let mut deleted = 0;
        loop {
            let control = handle.control();
            let (one, other) = futures::join!(control.ask(Ask::Collect), control.ask(Ask::Collect));
            let answers = [one.unwrap(), other.unwrap()];
            let more = answers.iter().map(|answer| match answer {
                Answer::Collected { files, more } => {
                    deleted += files;
                    *more
                }
                other => panic!("{other:?}"),
            });
            if !more.fold(false, |any, more| any | more) {
                break;
            }
        }
        assert_eq!(needless(&env, "/checkpoints").await, [""; 0]);
        assert!(deleted >= 300, "{deleted} files");
        assert_eq!(standing(&env).await.garbage, []);
        let nothing = handle.control().ask(Ask::Collect).await.unwrap();
        assert_eq!(nothing, Answer::Collected { files: 0, more: false });
    });
}

#[test]
fn who_waits_for_a_collection_is_told_when_its_attempt_ends() {
    simulate(async |sim, env| {
        let fails = std::sync::Arc::new(AtomicBool::new(false));
        let asked = std::sync::Arc::clone(&fails);
        let failure =
            move |_| asked.swap(false, Ordering::Relaxed).then(|| types::Error::retryable("for once"));
        let ledger = Ledger::default();
        let (process, handle) = start(sim, counting(&endless(), &BY_HAND, &ledger)).await.unwrap();
        checkpoint(&env, &handle).await;
        process.kill();
        drop(handle);
        let source = endless().failing(failure);
        let (_process, handle) = start(sim, counting(&source, &BY_HAND, &ledger)).await.unwrap();
        checkpoint(&env, &handle).await;
        let store = env.open_store("/checkpoints").unwrap();
        let orphan = paths::run(AttemptId(0), &Uid::new("count").unwrap(), SubtaskIndex(0), 1_000);
        store.put(&orphan, vec!["nobody needs it".into()]).await.unwrap();
        sim.rule_stores(|_, call| match call.starts_with("delete ") {
            true => StoreCall::Waits(Duration::from_secs(5)),
            false => StoreCall::Goes,
        });
        fails.store(true, Ordering::Relaxed);
        let since = env.now();
        let error = handle.control().ask(Ask::Collect).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
        assert!(env.now().since(since) < Duration::from_secs(5));
        env.sleep(Duration::from_secs(30)).await;
        assert_eq!(store.len(&orphan).await.unwrap(), None, "the next attempt goes on with it");
        handle.control().ask(Ask::Cancel).await.unwrap();
    });
}
