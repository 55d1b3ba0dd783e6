//! A store on local disk that fails: its disk is full or broken, at each operation in turn. The task fails with the operator's
//! uid and what the store said, nothing of it gets into a checkpoint, and once the store works again the job goes on as if
//! nothing had happened.

use std::time::Duration;

use env::{FaultPoint, sim::FaultAction};
use tidegate_engine::{cluster::status::JobStatus, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    windows::{FIFTHS, Windows},
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const KEYS: u64 = 50;
const EACH: u64 = 400;
const FULL: FaultAction = FaultAction::Fail(ErrorKind::Unavailable);
const AT_ONCE: &str = "fixed-delay:20:50ms";

/// Which hits of a point fail, one job for each.
const FAILURES: &[(FaultPoint, &[u64])] = &[
    (FaultPoint::StoreOpenBefore, &[1, 2, 4]),
    (FaultPoint::StoreOpenAfter, &[1, 3]),
    (FaultPoint::StoreLoadBefore, &[1, 2]),
    (FaultPoint::StoreLoadAfter, &[1, 2]),
    (FaultPoint::StoreReadBefore, &[1, 2, 10, 100]),
    (FaultPoint::StoreWriteBefore, &[1, 2, 10, 100]),
    (FaultPoint::StoreWriteAfter, &[1, 2, 10, 100]),
];

fn numbers() -> Numbers {
    Numbers::new(2, EACH).paced(3, Duration::from_millis(10))
}

/// Counts, and every kind of keyed state, in stores behind the smallest tables.
fn job(ledger: &Ledger<Row>, restart: &str) -> Job {
    let settings = [
        ("parallelism", "2"),
        ("state.backend", "sorted-map"),
        ("state.memory", "1"),
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("snapshot.merge-fan-in", "2"),
        ("restart", restart),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let numbers = job.source("numbers", numbers());
    let counts = numbers.clone().key_by(|number| number % KEYS).count("count");
    let windows = numbers.watermarks(WatermarkStrategy::monotonous()).key_by(|number| number % KEYS);
    let windows = windows.process("windows", Windows);
    let counts = counts.map(|(key, count)| Row(Kind::Count, key, count));
    windows.side_output(FIFTHS).union(windows).union(counts).sink("rows", ledger.clone());
    job
}

#[track_caller]
fn assert_right(ledger: &Ledger<Row>) {
    let mut seen = std::collections::BTreeMap::<u64, u64>::new();
    let mut rows = Vec::new();
    for (number, _) in numbers().all() {
        let key = number % KEYS;
        let count = seen.entry(key).or_default();
        *count += 1;
        rows.push(Row(Kind::Count, key, *count));
        rows.push(Row(if number % 3 == 0 { Kind::Held } else { Kind::Windowed }, key, number));
        rows.extend(number.is_multiple_of(5).then_some(Row(Kind::Fifth, key, number)));
    }
    rows.extend(seen.into_iter().map(|(key, count)| Row(Kind::Seen, key, count)));
    assert!(ledger.committed() == counted(rows), "the output is not that of a run without failures");
    assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
}

/// The failure of a task names its operator and what failed.
#[track_caller]
fn assert_told(failures: &[String], point: FaultPoint) {
    let told = |line: &&String| {
        line.contains(point.name())
            && ["operator count", "operator windows"].iter().any(|it| line.contains(it))
    };
    assert!(failures.iter().any(|line| told(&line)), "{}: {failures:#?}", point.name());
    assert!(failures.iter().all(|line| !line.contains('\n')), "{failures:#?}");
}

#[test]
fn whatever_a_store_fails_at_the_job_goes_on_from_its_checkpoint() {
    for &(point, hits) in FAILURES {
        for &hit in hits {
            simulate(async |sim, env| {
                let ledger = Ledger::default();
                // A task fails for another reason first, so that stores are filled again.
                sim.arm(FaultPoint::ReadAfter, 500, FaultAction::Fail(ErrorKind::Retryable));
                let (_process, handle) = start(sim, job(&ledger, AT_ONCE)).await.unwrap();
                env.sleep(Duration::from_millis(150)).await;
                sim.arm(point, hit, FULL);
                let before = sim.faults().get(&point).copied().unwrap_or(0);
                let control = handle.control().clone();
                let result = handle.join().await.unwrap();
                let told = format!("{}#{hit}", point.name());
                assert!(sim.faults()[&point] >= before + hit, "{told} was not passed");
                assert_eq!(result.status, JobStatus::Finished, "{told}");
                let failures: Vec<_> = control.view().failures.into_iter().map(|(_, why)| why).collect();
                assert_told(&failures, point);
                assert_right(&ledger);
            });
        }
    }
}

#[test]
fn a_disk_that_stays_full_for_a_while_is_waited_for() {
    for point in [FaultPoint::StoreOpenBefore, FaultPoint::StoreLoadBefore, FaultPoint::StoreWriteBefore] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let restart = "exponential-delay:100ms:1:100ms";
            let (_process, handle) = start(sim, job(&ledger, restart)).await.unwrap();
            env.sleep(Duration::from_millis(300)).await;
            // The first failure; from then on each try fails.
            sim.arm(FaultPoint::StoreWriteBefore, 1, FULL);
            (1..=1_000).for_each(|nth| sim.arm(point, nth, FULL));
            let control = handle.control().clone();
            env.sleep(Duration::from_secs(10)).await;
            let view = control.view();
            assert!(view.restarts > 20 && view.status != JobStatus::Failed, "{}: {view:?}", point.name());
            // There is room again.
            sim.disarm();
            assert_eq!(handle.join().await.unwrap().status, JobStatus::Finished);
            assert_right(&ledger);
        });
    }
}

#[test]
fn without_restarts_the_job_fails_with_what_the_store_said_and_goes_on_when_started_again() {
    for &(point, _) in FAILURES
        .iter()
        .filter(|(point, _)| !matches!(point, FaultPoint::StoreLoadBefore | FaultPoint::StoreLoadAfter))
    {
        simulate(async |sim, _env| {
            let ledger = Ledger::default();
            sim.arm(point, 3, FULL);
            let error = run(sim, job(&ledger, "none")).await.unwrap_err();
            assert_says(&error, ErrorKind::Unavailable, &["operator ", point.name()]);
            assert_eq!(run(sim, job(&ledger, "none")).await.unwrap().status, JobStatus::Finished);
            assert_right(&ledger);
        });
    }
}
