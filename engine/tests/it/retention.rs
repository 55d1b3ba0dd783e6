//! Whether the checkpoints of a job that was cancelled or has failed stay, as its settings say; what a later start then
//! does; and that no crash and no slow sink makes more of it than that.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use checkpoint::{
    history::{self, Standing},
    snapshots,
};
use env::{
    Env, FaultPoint,
    sim::{Control, FaultAction, StoreCall},
};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    counting::{assert_gapless, counting, endless},
    ledger::{Ledger, Moods},
    numbers::Numbers,
    world::{Row, assert_says, run, simulate, start},
};

const SETTINGS: [(&str, &str); 4] = [
    ("checkpoints.url", "/checkpoints"),
    ("checkpoints.interval", "200ms"),
    // None falls out of retention: what is removed is removed at the end.
    ("checkpoints.retained", "1000"),
    ("restart", "none"),
];

/// Within the checkpoint directory, where what is removed could take it along.
const SAVEPOINT: &str = "/checkpoints/savepoints/mine";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Cancelled,
    Failed,
}

impl Ending {
    const fn setting(self) -> &'static str {
        match self {
            Self::Cancelled => "checkpoints.keep-on-cancel",
            Self::Failed => "checkpoints.keep-on-failure",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

fn job(ledger: &Ledger<Row>, more: &[(&str, &str)]) -> Job {
    counting(&endless(), &[&SETTINGS, more].concat(), ledger)
}

/// The job fails at the first number that comes after a second.
fn failing(ledger: &Ledger<Row>, more: &[(&str, &str)]) -> Job {
    let source = endless().failing(|number| (number > 500).then(|| Error::user("it is bad")));
    counting(&source, &[&SETTINGS, more].concat(), ledger)
}

async fn standing(env: &Env) -> Standing {
    let store = env.open_store("/checkpoints").unwrap();
    history::open(env, store).await.unwrap().unwrap().standing.clone()
}

/// Files of attempts that are left.
async fn left(env: &Env, of: &str) -> Vec<String> {
    let listing = env.open_store("/checkpoints").unwrap().list("").await.unwrap();
    listing.into_iter().map(|entry| entry.path).filter(|path| path.starts_with(of)).collect()
}

/// Runs the job, with a savepoint on the way, until it has ended in this way.
async fn end(sim: &Control, env: &Env, ledger: &Ledger<Row>, ending: Ending, keep: &str) {
    let settings = [(ending.setting(), keep)];
    let job = match ending {
        Ending::Cancelled => job(ledger, &settings),
        Ending::Failed => failing(ledger, &settings),
    };
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_millis(300)).await;
    handle.control().ask(Ask::Savepoint(SAVEPOINT.to_owned())).await.unwrap();
    match ending {
        Ending::Cancelled => {
            env.sleep(Duration::from_millis(700)).await;
            handle.control().ask(Ask::Cancel).await.unwrap();
            assert_eq!(handle.join().await.unwrap().how, "cancelled");
        }
        Ending::Failed => {
            let error = handle.join().await.unwrap_err();
            assert_says(&error, ErrorKind::User, &["it is bad"]);
        }
    }
    process.kill();
}

#[test]
fn checkpoints_stay_or_go_with_the_end_as_the_setting_says() {
    for ending in [Ending::Cancelled, Ending::Failed] {
        for keep in [true, false] {
            simulate(async |sim, env| {
                let ledger = Ledger::default();
                end(sim, &env, &ledger, ending, &keep.to_string()).await;
                let standing = standing(&env).await;
                let place = format!("{ending:?}, {keep}");
                assert_eq!(!standing.completed.is_empty(), keep, "{place}");
                let files = left(&env, "attempt-").await;
                assert_eq!(files.is_empty(), !keep, "{place}: {files:?}");
                let savepoint = env.open_store(SAVEPOINT).unwrap();
                let report = snapshots::verify(&env, savepoint, &mut |_| {}).await.unwrap();
                assert!(report.is_whole() && report.files > 0, "{place}: {:?}", report.problems);
                if !keep {
                    let end = standing.end.as_ref().map(|end| end.kind.name());
                    assert_eq!(end, Some(ending.name()), "{place}");
                    // All that the history had completed was committed before it was forgotten.
                    assert_gapless(&ledger, 100);
                }
                assert_later_start(sim, &env, &ledger, ending, keep).await;
            });
        }
    }
}

/// What a start says and does after that end.
async fn assert_later_start(sim: &Control, env: &Env, ledger: &Ledger<Row>, ending: Ending, keep: bool) {
    let from_of = async |more: &[(&str, &str)], ledger: &Ledger<Row>| {
        let (process, handle) = start(sim, job(ledger, more)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let view = handle.control().view();
        assert!(view.checkpoints.completed > 0, "{:?}", view.failures);
        process.kill();
        view.started_from
    };
    if keep {
        let from = from_of(&[], ledger).await;
        assert!(from.contains("continues from checkpoint"), "{from}");
        return;
    }
    let removed = format!(
        "its checkpoints were removed when the job {}",
        if ending == Ending::Failed { "failed" } else { "was cancelled" }
    );
    // The output of the line that is gone would stand beside that of a new one.
    let error = run(sim, job(ledger, &[])).await.unwrap_err();
    assert_says(
        &error,
        ErrorKind::Conflict,
        &["sink out", "another line of history", &removed, ending.setting()],
    );
    let error = run(sim, job(ledger, &[("from", "latest")])).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidJob, &["--from latest", &removed, "--from SAVEPOINT"]);
    let output = Ledger::default();
    let from = from_of(&[], &output).await;
    assert!(from.contains("starts fresh") && from.contains(&removed), "{from}");
    let from = from_of(&[], &output).await;
    assert!(from.contains("continues from checkpoint"), "{from}");
}

#[test]
fn what_sinks_have_not_committed_is_committed_first_or_kept() {
    for heals in [true, false] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let keep = [("checkpoints.keep-on-cancel", "false")];
            let (process, handle) = start(sim, job(&ledger, &keep)).await.unwrap();
            env.sleep(Duration::from_millis(500)).await;
            ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
            env.sleep(Duration::from_millis(500)).await;
            assert!(!standing(&env).await.unconfirmed.is_empty());
            let committed = ledger.committed().len();
            handle.control().ask(Ask::Cancel).await.unwrap();
            if heals {
                ledger.set_moods(Moods::default());
            }
            assert_eq!(handle.join().await.unwrap().how, "cancelled");
            process.kill();
            assert_eq!(standing(&env).await.completed.is_empty(), heals);
            if heals {
                assert_gapless(&ledger, committed + 1);
                return;
            }
            ledger.set_moods(Moods::default());
            let (_process, handle) = start(sim, job(&ledger, &[])).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            let from = handle.control().view().started_from;
            assert!(from.contains("continues from checkpoint"), "{from}");
            handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
            handle.join().await.unwrap();
            assert_gapless(&ledger, committed + 1);
        });
    }
}

#[test]
fn a_crash_between_record_and_deletes_leaves_nothing_behind_in_the_end() {
    use FaultPoint::{
        DeleteAfter, DeleteBefore, FinishedRecordAfter, GarbageRecordAfter, GarbageRecordBefore,
    };
    let points = [
        // Cancelled, and cancelled again once the sinks are settled.
        (FinishedRecordAfter, 1, true),
        (FinishedRecordAfter, 2, true),
        (GarbageRecordBefore, 1, true),
        (GarbageRecordAfter, 1, false),
        (DeleteBefore, 1, false),
        (DeleteBefore, 2, false),
        (DeleteAfter, 1, false),
        (DeleteAfter, 5, false),
    ];
    for (point, nth, continues) in points {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let keep = [("checkpoints.keep-on-cancel", "false")];
            let (process, handle) = start(sim, job(&ledger, &keep)).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            sim.arm(point, nth, FaultAction::Kill);
            let ended = async {
                let _answer = handle.control().ask(Ask::Cancel).await;
                handle.join().await
            };
            tokio::select! {
                biased;
                () = process.died() => {}
                ended = ended => panic!("{point:?} {nth}: {ended:?}"),
            }
            let place = format!("{point:?} {nth}");
            assert_eq!(standing(&env).await.completed.is_empty(), !continues, "{place}");
            let output = if continues { ledger.clone() } else { Ledger::default() };
            let (_process, handle) = start(sim, job(&output, &keep)).await.unwrap();
            env.sleep(Duration::from_secs(2)).await;
            let view = handle.control().view();
            assert_eq!(
                view.started_from.contains("continues from"),
                continues,
                "{place}: {}",
                view.started_from
            );
            handle.control().ask(Ask::Cancel).await.unwrap();
            handle.join().await.unwrap();
            let left = left(&env, "attempt-").await;
            assert!(left.is_empty(), "{place}: {left:?}");
            assert_gapless(&output, 500);
        });
    }
}

#[test]
fn a_start_whose_sinks_were_asked_before_the_checkpoints_went_asks_them_again() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let keep = [("checkpoints.keep-on-cancel", "false")];
        let (process, handle) = start(sim, job(&ledger, &keep)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        // The second process is about to create its start record when the first one gives up what it goes on from.
        sim.rule_stores(|process, call| match call.starts_with("create probe") && process == "second" {
            true => StoreCall::Waits(Duration::from_secs(5)),
            false => StoreCall::Goes,
        });
        let (_second, own) = sim.process("second");
        let taken_over = job(&ledger, &[("take-over", "true")]).start(&own).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let committed = ledger.committed();
        handle.control().ask(Ask::Cancel).await.unwrap();
        assert_eq!(handle.join().await.unwrap().how, "cancelled");
        process.kill();
        assert!(standing(&env).await.completed.is_empty());
        assert!(taken_over.control().view().attempt.is_none(), "it came too early");
        let ended = env.timeout(Duration::from_secs(30), taken_over.join()).await;
        let error = ended.expect("it starts beside the output").unwrap_err();
        let removed = "its checkpoints were removed when the job was cancelled";
        assert_says(&error, ErrorKind::Conflict, &["sink out", "another line of history", removed]);
        assert!(ledger.committed().len() >= committed.len());
        assert_gapless(&ledger, 100);
    });
}

#[test]
fn a_slow_record_of_what_sinks_committed_does_not_lose_the_end() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let keep = [("checkpoints.keep-on-cancel", "false")];
        let (_process, handle) = start(sim, job(&ledger, &keep)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
        env.sleep(Duration::from_millis(500)).await;
        assert!(!standing(&env).await.unconfirmed.is_empty());
        // The end, the start of what lets go, and what is confirmed then.
        let created = AtomicU32::new(0);
        sim.rule_stores(move |_, call| {
            let is_record = call.starts_with("create history/");
            match is_record && created.fetch_add(1, Ordering::Relaxed) == 2 {
                true => StoreCall::Waits(Duration::from_secs(15)),
                false => StoreCall::Goes,
            }
        });
        handle.control().ask(Ask::Cancel).await.unwrap();
        ledger.set_moods(Moods::default());
        assert_eq!(handle.join().await.unwrap().how, "cancelled");
        let standing = standing(&env).await;
        assert_eq!(standing.end.as_ref().map(|end| end.kind.name()), Some("cancelled"));
        assert!(standing.completed.is_empty(), "{:?}", sim.printed());
        assert_gapless(&ledger, 100);
    });
}

#[test]
fn a_failure_before_anything_runs_removes_nothing_of_earlier_processes() {
    simulate(async |sim, env| {
        let (process, _handle) = start(sim, job(&Ledger::default(), &[])).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        process.kill();
        let before = standing(&env).await.completed;
        let settings =
            [&SETTINGS[..], &[("checkpoints.keep-on-failure", "false"), ("from", "none")]].concat();
        let error = run(sim, counting(&Numbers::away(), &settings, &Ledger::default())).await.unwrap_err();
        assert_says(&error, ErrorKind::Retryable, &["the numbers are away"]);
        assert!(standing(&env).await.attempt.id.0 > 0, "an attempt began");
        assert_eq!(standing(&env).await.completed, before);
    });
}

#[test]
fn checkpoints_that_another_program_may_go_on_from_are_kept() {
    for (kind, kept) in [
        (ErrorKind::User, false),
        (ErrorKind::Retryable, false),
        (ErrorKind::IncompatibleState, true),
        (ErrorKind::InvalidJob, true),
        (ErrorKind::Corrupt, true),
        (ErrorKind::Lost, true),
    ] {
        simulate(async |sim, env| {
            let fails = move |number| (number > 500).then(|| Error::new(kind, "it does not fit"));
            let settings = [&SETTINGS[..], &[("checkpoints.keep-on-failure", "false")]].concat();
            let job = counting(&endless().failing(fails), &settings, &Ledger::default());
            assert_eq!(run(sim, job).await.unwrap_err().kind(), kind);
            assert_eq!(!standing(&env).await.completed.is_empty(), kept, "{kind:?}");
        });
    }
}
