//! A savepoint is asked for, and the job ends, fails or is taken over while its directory is looked at: whoever asked is told
//! by the kind of the answer what to do.

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use checkpoint::coordinator::Answer;
use env::{
    FaultPoint,
    sim::{Control, FaultAction, StoreCall},
};
use tidegate_engine::{
    cluster::{
        attempt::Ask,
        status::{JobStatus, TaskStatus},
    },
    prelude::*,
};

use crate::{
    counting::{assert_gapless, counting, endless},
    ledger::Ledger,
    numbers::Numbers,
    world::{assert_says, simulate, start},
};

const SETTINGS: [(&str, &str); 3] =
    [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("restart", "fixed-delay:9:1s")];

fn savepoint() -> Ask {
    Ask::Savepoint("/late".to_owned())
}

/// How often the first process has looked at a directory; each look takes so long, and calls that begin like `others` far longer.
fn slow_looks(sim: &Control, others: &'static str, takes: Duration) -> Arc<AtomicUsize> {
    let looked = Arc::new(AtomicUsize::new(0));
    let looks = Arc::clone(&looked);
    sim.rule_stores(move |process, call| {
        let is_look = process == "job" && call.starts_with("create probe/");
        looks.fetch_add(usize::from(is_look), Ordering::Relaxed);
        match is_look {
            true => StoreCall::Waits(takes),
            false if call.starts_with(others) => StoreCall::Waits(takes * 4),
            false => StoreCall::Goes,
        }
    });
    looked
}

#[test]
fn the_attempt_fails_and_then_the_job_is_cancelled() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, counting(&endless(), &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let looked = slow_looks(sim, "none", Duration::from_secs(20));
        let control = handle.control();
        // The attempt fails, and the next one knows nothing of it.
        sim.arm(FaultPoint::PrepareBefore, 1, FaultAction::Fail(ErrorKind::Retryable));
        let (first, _failed) = tokio::join!(control.ask(savepoint()), control.ask(Ask::Checkpoint));
        let texts = ["failed before the savepoint had begun", FaultPoint::PrepareBefore.name()];
        assert_says(&first.unwrap_err(), ErrorKind::Retryable, &texts);
        env.sleep(Duration::from_secs(5)).await;
        assert_eq!(control.view().restarts, 1);
        // Who asks meanwhile for the same directory, with a stop, is told; and then the job is cancelled.
        let cancel = async {
            env.sleep(Duration::from_secs(1)).await;
            let stop = control
                .ask(Ask::Stop { drain: false, savepoint: Some("/late".to_owned()) })
                .await
                .unwrap_err();
            assert_says(&stop, ErrorKind::Conflict, &["/late", "is beginning"]);
            control.ask(Ask::Cancel).await.unwrap();
        };
        let (second, ()) = tokio::join!(control.ask(savepoint()), cancel);
        assert_says(&second.unwrap_err(), ErrorKind::Cancelled, &["ended before the savepoint had begun"]);
        assert_eq!(looked.load(Ordering::Relaxed), 2, "nobody has looked");
        assert_eq!(handle.join().await.unwrap().how, "cancelled");
    });
}

#[test]
fn the_job_finishes() {
    // Before the look is over, and while the last checkpoint is taken.
    for (others, text) in [("none", "ended before the savepoint had begun"), ("create attempt-", "is ending")]
    {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let numbers = Numbers::new(2, 150).paced(3, Duration::from_millis(10));
            let (_process, handle) = start(sim, counting(&numbers, &SETTINGS, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(200)).await;
            let looked = slow_looks(sim, others, Duration::from_secs(5));
            let refused = handle.control().ask(savepoint()).await.unwrap_err();
            assert_says(&refused, ErrorKind::Cancelled, &[text]);
            assert!(looked.load(Ordering::Relaxed) > 0, "nobody has looked");
            assert_eq!(handle.join().await.unwrap().how, "finished");
            assert_gapless(&ledger, 300);
            let is_there = env.files().metadata(Path::new("/late/manifest")).unwrap().is_some();
            assert!(!is_there, "a savepoint that was refused");
        });
    }
}

#[test]
fn the_job_is_taken_over() {
    simulate(async |sim, env| {
        let settings = [SETTINGS[0], ("checkpoints.interval", "1s"), ("take-over", "true")];
        let ledger = Ledger::default();
        let (_first, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        let take_over = async {
            env.sleep(Duration::from_millis(100)).await;
            let (_second, own) = sim.process("second");
            counting(&endless(), &settings, &ledger).start(&own).await.unwrap()
        };
        let looked = slow_looks(sim, "none", Duration::from_secs(20));
        let control = handle.control().clone();
        let (refused, taken_over) = tokio::join!(control.ask(savepoint()), take_over);
        assert_says(&refused.unwrap_err(), ErrorKind::Fenced, &["was taken over"]);
        assert!(looked.load(Ordering::Relaxed) > 0, "nobody has looked");
        assert_says(&handle.join().await.unwrap_err(), ErrorKind::Fenced, &["was taken over"]);
        assert_eq!(taken_over.control().view().status, JobStatus::Running);
    });
}

/// It waits until all tasks run.
#[test]
fn the_attempt_has_not_begun_to_run() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, counting(&endless(), &SETTINGS, &ledger)).await.unwrap();
        let control = handle.control();
        env.sleep(Duration::from_secs(1)).await;
        control.ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        sim.arm(FaultPoint::PrepareBefore, 1, FaultAction::Fail(ErrorKind::Retryable));
        control.ask(Ask::Checkpoint).await.unwrap_err();
        // Its tasks read what they restore.
        let looked = slow_looks(sim, "get attempt-0/runs/", Duration::from_secs(5));
        env.sleep(Duration::from_secs(4)).await;
        assert_eq!((control.view().status, control.view().restarts), (JobStatus::Running, 1));
        let has_run = || {
            let tasks = control.view().tasks;
            tasks.values().all(|task| task.status == TaskStatus::Running)
        };
        let mut answer = pin!(control.ask(savepoint()));
        // The look, which is two calls, is over.
        assert!(env.timeout(Duration::from_secs(11), &mut answer).await.is_none(), "it did not wait");
        assert!(!has_run(), "the tasks ran at once");
        sim.rule_stores(|_, _| StoreCall::Goes);
        let answer = answer.await.unwrap();
        assert!(matches!(&answer, Answer::Savepoint { dir, .. } if dir == "/late"), "{answer:?}");
        assert!(looked.load(Ordering::Relaxed) > 0, "nobody has looked");
        assert!(has_run());
    });
}
