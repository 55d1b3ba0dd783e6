//! A stop and a failure at the same time. Whether the stop's checkpoint is in the job history decides: if it is not, the
//! job goes on and the stop reports why; if it is, sources never start again, what remains is done by a restart, and the
//! stop is answered as if nothing had happened.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use checkpoint::coordinator::{Answer, End};
use env::{FaultPoint, sim::FaultAction};
use tidegate_engine::{
    cluster::{attempt::Ask, status::JobStatus},
    prelude::*,
};
use types::CheckpointId;

use crate::{
    counting::{assert_gapless, counting, endless},
    ledger::Ledger,
    world::{assert_says, simulate, start},
};

const SETTINGS: [(&str, &str); 3] =
    [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("restart", "fixed-delay:9:1s")];

fn stop_into(dir: &str) -> Ask {
    Ask::Stop { drain: false, savepoint: Some(dir.to_owned()) }
}

fn stop() -> Ask {
    stop_into("/savepoint")
}

#[test]
fn before_its_record_a_failure_ends_the_stop_and_the_job_goes_on() {
    for point in [FaultPoint::PrepareBefore, FaultPoint::PrepareAfter, FaultPoint::CompletedRecordBefore] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let (_process, handle) = start(sim, counting(&endless(), &SETTINGS, &ledger)).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            sim.arm(point, 1, FaultAction::Fail(ErrorKind::Retryable));
            let refused = handle.control().ask(stop()).await.unwrap_err();
            assert!(refused.to_string().contains(point.name()), "{point:?}: {refused}");
            env.sleep(Duration::from_secs(5)).await;
            let view = handle.control().view();
            assert_eq!((view.status, view.restarts), (JobStatus::Running, 1), "{point:?}");
            handle.control().ask(stop()).await.unwrap();
            assert_eq!(handle.join().await.unwrap().how, "stopped");
            assert_gapless(&ledger, 2_000);
        });
    }
}

#[test]
fn after_its_record_a_failure_keeps_neither_the_savepoint_nor_the_answer() {
    let points = [
        (FaultPoint::CompletedRecordAfter, 1),
        (FaultPoint::ConfirmBefore, 1),
        (FaultPoint::ConfirmAfter, 1),
        (FaultPoint::SavepointCopyBefore, 0),
        (FaultPoint::SavepointCopyAfter, 0),
        (FaultPoint::LastCheckpointAfter, 1),
        (FaultPoint::FinishedRecordBefore, 1),
        (FaultPoint::FinishedRecordAfter, 1),
    ];
    for (point, restarts) in points {
        simulate(async |sim, env| {
            let (ledger, source) = (Ledger::default(), endless());
            let (_process, handle) = start(sim, counting(&source, &SETTINGS, &ledger)).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            sim.arm(point, 1, FaultAction::Fail(ErrorKind::Retryable));
            let answer = handle.control().ask(stop()).await.unwrap();
            let Answer::Ended { end: End::Stopped, savepoint: Some(Ok(place)), .. } = answer else {
                panic!("{point:?}: {answer:?}")
            };
            assert_eq!(place, "/savepoint");
            assert!(env.files().metadata(Path::new("/savepoint")).unwrap().is_some());
            let result = handle.join().await.unwrap();
            assert_eq!((&*result.how, result.restarts), ("stopped", restarts), "{point:?}");
            assert_gapless(&ledger, 500);
            let emitted = source.emitted().load(Ordering::Relaxed);
            assert_eq!(emitted, ledger.committed().len() as u64, "{point:?}: a source started again");
            assert!(sim.faults().contains_key(&point), "{point:?}");
        });
    }
}

#[test]
fn a_restart_that_fails_as_well_still_answers_the_stop() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, counting(&endless(), &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        for (point, nth) in [
            (FaultPoint::CompletedRecordAfter, 1),
            (FaultPoint::StartRecordAfter, 1),
            (FaultPoint::ConfirmBefore, 1),
            (FaultPoint::LastCheckpointAfter, 1),
        ] {
            sim.arm(point, nth, FaultAction::Fail(ErrorKind::Retryable));
        }
        let answer = handle.control().ask(stop()).await.unwrap();
        assert!(
            matches!(answer, Answer::Ended { end: End::Stopped, savepoint: Some(Ok(_)), .. }),
            "{answer:?}"
        );
        assert_eq!(handle.join().await.unwrap().restarts, 4);
        assert_gapless(&ledger, 500);
    });
}

#[test]
fn a_stop_that_no_restart_completes_says_why() {
    simulate(async |sim, env| {
        let settings = [SETTINGS[0], SETTINGS[1], ("restart", "none")];
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        sim.arm(FaultPoint::ConfirmBefore, 1, FaultAction::Fail(ErrorKind::Retryable));
        let refused = handle.control().ask(stop()).await.unwrap_err();
        assert!(refused.to_string().contains(FaultPoint::ConfirmBefore.name()), "{refused}");
        handle.join().await.unwrap_err();
    });
}

#[test]
fn a_savepoint_that_cannot_be_written_is_refused_and_the_job_goes_on() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (_process, handle) = start(sim, counting(&endless(), &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        let write = |path: &str| env.files().create_new(Path::new(path)).unwrap().write_all(b"mine").unwrap();
        write("/file");
        env.files().create_dir_all(Path::new("/mine")).unwrap();
        write("/mine/letter");
        // What an earlier copy has left when it died.
        env.files().create_dir_all(Path::new("/begun")).unwrap();
        write("/begun/partial");
        // And what an earlier look has.
        env.files().create_dir_all(Path::new("/new/probe")).unwrap();
        write("/new/probe/1");
        for (dir, kind, text) in [
            ("/file", ErrorKind::Unavailable, "cannot be made or read"),
            ("/file/below", ErrorKind::Unavailable, "cannot be made or read"),
            ("/mine", ErrorKind::Conflict, "holds other files"),
            ("/begun", ErrorKind::Conflict, "holds an unfinished savepoint"),
        ] {
            for ask in [stop_into(dir), Ask::Savepoint(dir.to_owned())] {
                let error = handle.control().ask(ask).await.unwrap_err();
                assert_says(&error, kind, &["the job goes on", text]);
            }
        }
        let seen = ledger.committed().len();
        env.sleep(Duration::from_millis(100)).await;
        // Nothing was triggered, which would push out what is retained.
        let first = handle.control().ask(Ask::Checkpoint).await.unwrap();
        assert!(matches!(first, Answer::Checkpoint(CheckpointId(1))), "{first:?}");
        env.sleep(Duration::from_millis(100)).await;
        assert_eq!(handle.control().view().status, JobStatus::Running);
        assert!(ledger.committed().len() > seen);
        let one = || Ask::Savepoint("/one".to_owned());
        let (first, second) = tokio::join!(handle.control().ask(one()), handle.control().ask(one()));
        let Ok(Answer::Savepoint { checkpoint: CheckpointId(2), dir }) = first else { panic!("{first:?}") };
        assert_eq!(dir, "/one");
        assert_says(&second.unwrap_err(), ErrorKind::Conflict, &["/one"]);
        let stop = || stop_into("/new");
        let (first, second) = tokio::join!(handle.control().ask(stop()), handle.control().ask(stop()));
        let Ok(Answer::Ended { end: End::Stopped, savepoint: Some(savepoint), .. }) = first else {
            panic!("{first:?}")
        };
        assert_eq!(savepoint.unwrap(), "/new");
        assert_says(&second.unwrap_err(), ErrorKind::Conflict, &["/new"]);
        assert_eq!(handle.join().await.unwrap().how, "stopped");
    });
}
