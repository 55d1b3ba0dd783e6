//! How jobs end and go on: end of input, stop, savepoint, drain, cancellation, and the start of the next one.

use std::{path::Path, time::Duration};

use checkpoint::{
    coordinator::{Answer, End},
    snapshots,
};
use env::{
    FaultPoint,
    sim::{Control, FaultAction, StoreFaults},
};
use tidegate_engine::{
    cluster::{
        attempt::Ask,
        local::JobControl,
        status::{JobStatus, TaskStatus},
    },
    prelude::*,
};

use crate::{
    counting::{KEYS, assert_gapless, counting, endless},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    windows::Windows,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

#[test]
fn the_end_of_input_takes_a_last_checkpoint_also_without_an_interval() {
    simulate(async |sim, _| {
        let source = Numbers::new(3, 50);
        let settings =
            [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("parallelism", "2")];
        let ledger = Ledger::default();
        let result = run(sim, counting(&source, &settings, &ledger)).await.unwrap();
        assert_eq!((result.status, result.checkpoints, result.records), (JobStatus::Finished, 1, 150));
        assert_gapless(&ledger, 150);
        // Started again it says that it had finished, and does nothing.
        let again = run(sim, counting(&source, &settings, &ledger)).await.unwrap();
        assert_eq!((again.status, again.checkpoints, again.records), (JobStatus::Finished, 0, 0));
        assert!(again.how.contains("job subject finished at 2026-01-01T"), "{}", again.how);
    });
}

/// The tasks of the attempt that read the input are gone when another one records the end.
#[test]
fn a_job_that_finishes_over_a_restart_still_tells_what_it_has_done() {
    let points = [
        FaultPoint::CompletedRecordAfter,
        FaultPoint::ConfirmBefore,
        FaultPoint::ConfirmAfter,
        FaultPoint::LastCheckpointAfter,
        FaultPoint::FinishedRecordBefore,
        FaultPoint::FinishedRecordAfter,
    ];
    for (point, more) in points.into_iter().flat_map(|point| [(point, false), (point, true)]) {
        simulate(async |sim, _| {
            let settings = [
                ("checkpoints.url", "/checkpoints"),
                ("checkpoints.interval", "off"),
                ("parallelism", "2"),
                ("restart", "fixed-delay:3:1s"),
            ];
            let ledger = Ledger::default();
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let counted = job.source("numbers", Numbers::new(3, 50)).key_by(|number| number % KEYS);
            counted.process("odd", CountOdd::default()).sink("out", ledger.clone());
            sim.arm(point, 1, FaultAction::Fail(ErrorKind::Retryable));
            if more {
                sim.arm(FaultPoint::StartRecordAfter, 2, FaultAction::Fail(ErrorKind::Retryable));
            }
            let result = run(sim, job).await.unwrap();
            assert_eq!((result.status, &*result.how), (JobStatus::Finished, "finished"), "{point:?}");
            assert!(result.restarts > 0 && sim.faults().contains_key(&point), "{point:?}");
            assert_eq!(result.records, 150, "{point:?}, {more}");
            assert_eq!(result.accumulators.get("odd"), Some(&75), "{point:?}, {more}");
        });
    }
}

/// Passes numbers on and counts the odd ones in an accumulator.
#[derive(Clone, Default)]
struct CountOdd(Option<Accumulator>);

impl ProcessFunction for CountOdd {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = ();

    fn declare(_states: &mut Declarations) {}

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0 = Some(context.accumulators.get("odd"));
        Ok(())
    }

    fn process(&mut self, number: u64, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        if let (Some(odd), 1) = (&self.0, number % 2) {
            odd.add(1);
        }
        ctx.emit(number);
        Ok(())
    }
}

async fn stop(sim: &Control, job: Job, drain: bool, savepoint: Option<&str>) -> Answer {
    let (process, handle) = start(sim, job).await.unwrap();
    let (_clock, clock) = sim.process("clock");
    clock.sleep(Duration::from_secs(2)).await;
    let savepoint = savepoint.map(str::to_owned);
    let answer = handle.control().ask(Ask::Stop { drain, savepoint }).await.unwrap();
    let result = handle.join().await.unwrap();
    assert_eq!((result.status, &*result.how), (JobStatus::Cancelled, "stopped"));
    process.kill();
    answer
}

#[test]
fn a_stopped_job_goes_on_and_its_savepoint_starts_another_at_other_parallelism() {
    simulate(async |sim, env| {
        let first = Ledger::default();
        let settings = [("checkpoints.url", "/first"), ("checkpoints.interval", "300ms")];
        let job = |parallelism, ledger: &Ledger<Row>, more: &[(&str, &str)]| {
            let all = [&[("parallelism", parallelism)], more].concat();
            counting(&endless(), &all, ledger)
        };
        let answer = stop(sim, job("3", &first, &settings), false, Some("/savepoint")).await;
        let Answer::Ended { end: End::Stopped, savepoint: Some(Ok(place)), .. } = answer else {
            panic!("{answer:?}")
        };
        assert!(place.contains("/savepoint"), "{place}");
        assert_gapless(&first, 500);
        let stopped_at = first.committed();

        stop(sim, job("1", &first, &settings), false, None).await;
        assert_gapless(&first, stopped_at.len() + 500);

        // A job of its own: what it commits begins where the savepoint ends.
        let second = Ledger::default();
        let foreign =
            [("checkpoints.url", "/second"), ("checkpoints.interval", "300ms"), ("from", "/savepoint")];
        let (process, handle) = start(sim, job("4", &second, &foreign)).await.unwrap();
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        // Its first checkpoint is whole without the savepoint.
        env.files().remove_dir_all(Path::new("/savepoint")).unwrap();
        let store = env.open_store("/second").unwrap();
        let report = snapshots::verify(&env, store, &mut |_| {}).await.unwrap();
        assert!(report.is_whole() && report.files > 0, "{:?}", report.problems);
        process.kill();
        drop(handle);
        let own = [("checkpoints.url", "/second"), ("checkpoints.interval", "300ms")];
        stop(sim, job("2", &second, &own), false, None).await;
        let mut both = stopped_at;
        for (row, times) in second.committed() {
            *both.entry(row).or_default() += times;
        }
        assert!(both.values().all(|times| *times == 1), "a count came twice");
        let all: Vec<_> =
            (0..KEYS).map(|key| both.keys().filter(|row| row.1 == key).count() as u64).collect();
        assert!(all.iter().zip(0..).all(|(count, key)| both.contains_key(&Row(Kind::Count, key, *count))));
    });
}

#[test]
fn a_job_that_goes_on_shows_the_newest_checkpoint_at_once() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let often = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "200ms")];
        let (process, handle) = start(sim, counting(&endless(), &often, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(1_100)).await;
        let newest = handle.control().view().last_checkpoint;
        assert!(newest.is_some());
        process.kill();
        let never = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off")];
        let (_process, handle) = start(sim, counting(&endless(), &never, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(handle.control().view().last_checkpoint, newest);
    });
}

#[test]
fn a_drain_fires_all_event_time_timers() {
    simulate(async |sim, _| {
        let rows = Ledger::default();
        let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "300ms")];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        job.source("numbers", endless())
            .watermarks(WatermarkStrategy::monotonous())
            .key_by(|number| number % KEYS)
            .process("windows", Windows)
            .sink("rows", rows.clone());
        stop(sim, job, true, None).await;
        let of = |kind| rows.committed().into_keys().filter(move |row| row.0 == kind);
        let seen: u64 = of(Kind::Seen).map(|row| row.2).sum();
        assert_eq!(of(Kind::Seen).count() as u64, KEYS);
        let out = of(Kind::Windowed).count() + of(Kind::Held).count();
        assert!(seen > 500 && seen == out as u64, "{seen} went in, {out} came out");
    });
}

#[test]
fn a_stop_that_fails_says_so_and_the_job_goes_on() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "off"),
            ("checkpoints.tolerable-failures", "100"),
        ];
        let source = endless();
        let (_process, handle) = start(sim, counting(&source, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        sim.set_store_faults(StoreFaults { refuse: 1.0, ..StoreFaults::default() });
        let failed = handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap_err();
        assert!(failed.to_string().contains("checkpoint"), "{failed}");
        sim.set_store_faults(StoreFaults::default());
        env.sleep(Duration::from_secs(5)).await;
        assert_eq!(handle.control().view().status, JobStatus::Running);
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        handle.join().await.unwrap();
        assert_gapless(&ledger, 2_000);
    });
}

/// Whether all tasks are shown in this state.
fn assert_tasks(control: &JobControl, status: TaskStatus) {
    let tasks = control.view().tasks;
    assert!(!tasks.is_empty() && tasks.values().all(|task| task.status == status), "{tasks:?}");
}

#[test]
fn a_cancelled_job_keeps_its_checkpoints_and_goes_on_from_them() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "300ms")];
        let source = Numbers::new(2, 500).paced(3, Duration::from_millis(10));
        let (process, handle) = start(sim, counting(&source, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let control = handle.control().clone();
        assert_tasks(&control, TaskStatus::Running);
        control.ask(Ask::Cancel).await.unwrap();
        assert_eq!(handle.join().await.unwrap().how, "cancelled");
        assert_tasks(&control, TaskStatus::Cancelled);
        process.kill();
        let (_process, handle) = start(sim, counting(&source, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(100)).await;
        let from = handle.control().view().started_from;
        assert!(from.contains("checkpoint"), "{from}");
        handle.join().await.unwrap();
        let each = |(number, _): (u64, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
        assert_eq!(ledger.committed(), counted(source.all().map(each)));
    });
}

/// The process that took the job over has committed everything, and readers have taken it away, before the other one comes
/// to it: nothing is lost.
#[test]
fn a_process_that_was_taken_over_says_so_and_not_that_something_is_lost() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings =
            [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("restart", "none")];
        let job = |more: &[(&str, &str)]| counting(&endless(), &[&settings, more].concat(), &ledger);
        let (_first, first) = start(sim, job(&[])).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
        first.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        ledger.set_moods(Moods::default());
        let (_second, second) = start(sim, job(&[("take-over", "true")])).await.unwrap();
        while ledger.committed().is_empty() {
            env.sleep(Duration::from_millis(1)).await;
        }
        ledger.take_away();
        let fenced = first.join().await.unwrap_err();
        assert_says(&fenced, ErrorKind::Fenced, &["the job was taken over"]);
        assert!(sim.printed().iter().any(|(_, line)| line.contains("records are gone")));
        second.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        second.join().await.unwrap();
    });
}

#[test]
fn two_processes_of_one_job_are_refused_and_one_that_is_taken_over_ends() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "300ms")];
        let job = |more: &[(&str, &str)]| counting(&endless(), &[&settings, more].concat(), &ledger);
        let (_first, first) = start(sim, job(&[])).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let error = run(sim, job(&[])).await.unwrap_err();
        assert_says(&error, ErrorKind::Conflict, &["/checkpoints is in use by pid", "--take-over"]);

        let (process, second) = start(sim, job(&[("take-over", "true")])).await.unwrap();
        let asked = env.now();
        let fenced = first.join().await.unwrap_err();
        assert_says(&fenced, ErrorKind::Fenced, &[]);
        assert!(env.now().since(asked) < Duration::from_secs(10));
        let before = second.control().view().checkpoints.completed;
        env.sleep(Duration::from_secs(2)).await;
        assert!(second.control().view().checkpoints.completed > before);
        second.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        second.join().await.unwrap();
        // What the first prepared after it had been taken over is thrown away by the next start.
        process.kill();
        stop(sim, job(&[]), false, None).await;
        assert_gapless(&ledger, 1_000);
    });
}
