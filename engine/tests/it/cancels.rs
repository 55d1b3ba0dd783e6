//! A cancellation is heard in every state of a job, within a second, whatever its sinks are doing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use checkpoint::history::{self, EndKind};
use env::{
    Env,
    sim::{Control, StoreCall},
};
use tidegate_engine::{
    cluster::{attempt::Ask, status::JobStatus},
    prelude::*,
};

use crate::{
    counting::{KEYS, assert_gapless, counting, endless},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start},
};

const SETTINGS: [(&str, &str); 3] =
    [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "200ms"), ("restart", "fixed-delay:9:1s")];

fn bounded() -> Numbers {
    Numbers::new(2, 300).paced(3, Duration::from_millis(10))
}

/// Commits are refused for ever.
fn refusing() -> Moods {
    Moods { retry: 1.0, ..Moods::default() }
}

/// Cancels the job, which is being started, and whose status meanwhile is this.
async fn cancel_start(env: &Env, handle: JobHandle, status: JobStatus) {
    let control = handle.control().clone();
    assert_eq!(control.view().status, status);
    let asked = env.now();
    // Whatever else is asked for waits for an attempt, and is told when there will be none.
    let (checkpoint, cancelled) =
        futures::join!(control.ask(Ask::Checkpoint), async { control.ask(Ask::Cancel).await });
    cancelled.unwrap();
    assert_says(&checkpoint.unwrap_err(), ErrorKind::Cancelled, &["the job is cancelled"]);
    let result = handle.join().await.unwrap();
    assert_eq!((result.status, &*result.how), (JobStatus::Cancelled, "cancelled"));
    assert_eq!(control.view().status, JobStatus::Cancelled);
    let took = env.now().since(asked);
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

/// What the history says of the end of the last attempt.
async fn recorded_end(env: &Env) -> Option<EndKind> {
    let newest = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap().unwrap();
    newest.standing.end.clone().map(|end| end.kind)
}

/// The sinks are well again: the next start finishes, and everything is there once.
async fn finishes(sim: &Control, ledger: &Ledger<Row>) {
    ledger.set_moods(Moods::default());
    assert_eq!(run(sim, counting(&bounded(), &SETTINGS, ledger)).await.unwrap().how, "finished");
    let each = |(number, _): (u64, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
    assert_eq!(ledger.committed(), counted(bounded().all().map(each)));
    assert_gapless(ledger, 600);
}

#[test]
fn while_a_start_commits_what_the_history_completed() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, counting(&bounded(), &SETTINGS, &ledger)).await.unwrap();
        ledger.set_moods(refusing());
        env.sleep(Duration::from_secs(1)).await;
        process.kill();
        let (process, handle) = start(sim, counting(&bounded(), &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(60)).await;
        assert!(handle.control().view().started_from.contains("checkpoint"));
        cancel_start(&env, handle, JobStatus::Created).await;
        assert_eq!(recorded_end(&env).await, Some(EndKind::Cancelled));
        process.kill();
        finishes(sim, &ledger).await;
    });
}

#[test]
fn while_sinks_are_asked_what_they_hold() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        ledger.set_moods(Moods { latency: Duration::from_secs(1_000_000), ..Moods::default() });
        let (process, handle) = start(sim, counting(&bounded(), &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        cancel_start(&env, handle, JobStatus::Created).await;
        process.kill();
        finishes(sim, &ledger).await;
    });
}

#[test]
fn while_a_restart_commits_what_the_history_completed() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let failing = bounded().failing(|number| (number == 400).then(|| Error::retryable("it is away")));
        let (process, handle) = start(sim, counting(&failing, &SETTINGS, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(100)).await;
        ledger.set_moods(refusing());
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!(handle.control().view().restarts, 1);
        cancel_start(&env, handle, JobStatus::Restarting).await;
        assert_eq!(recorded_end(&env).await, Some(EndKind::Cancelled));
        process.kill();
        finishes(sim, &ledger).await;
    });
}

#[test]
fn a_cancelled_job_says_what_it_has_done() {
    simulate(async |sim, env| {
        for interval in ["off", "100ms"] {
            let ledger = Ledger::default();
            let url = format!("/{interval}");
            let settings = [("checkpoints.url", &*url), ("checkpoints.interval", interval)];
            let source = endless();
            let emitted = source.emitted();
            let (process, handle) = start(sim, counting(&source, &settings, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(2_050)).await;
            handle.control().ask(Ask::Cancel).await.unwrap();
            let result = handle.join().await.unwrap();
            assert_eq!((&*result.how, result.records), ("cancelled", emitted.load(Ordering::Relaxed)));
            assert!(result.records > 500, "{}", result.records);
            process.kill();
        }
        // While it waits for a restart.
        let ledger = Ledger::default();
        let settings = [
            ("checkpoints.url", "/failing"),
            ("checkpoints.interval", "off"),
            ("restart", "fixed-delay:9:1m"),
        ];
        let failing = endless().failing(|number| (number == 500).then(|| Error::user("it is bad")));
        let emitted = failing.emitted();
        let (_process, handle) = start(sim, counting(&failing, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(30)).await;
        assert_eq!(handle.control().view().status, JobStatus::Restarting);
        handle.control().ask(Ask::Cancel).await.unwrap();
        let records = handle.join().await.unwrap().records;
        let (most, last) = (emitted.load(Ordering::Relaxed), 2 * 3);
        assert!(
            (most - last..=most).contains(&records),
            "{records} of {most}: what was read with the failure is not emitted"
        );
    });
}

/// Each checkpoint that fails meanwhile is another command for a task that takes none.
#[test]
fn while_a_sink_takes_nothing_for_hours() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "1s"),
            ("checkpoints.timeout", "2s"),
            ("checkpoints.fail-job", "false"),
        ];
        let endless = Numbers::endless(1).paced(1, Duration::from_millis(100));
        let (process, handle) = start(sim, counting(&endless, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        ledger.set_moods(refusing());
        env.sleep(Duration::from_secs(3_600)).await;
        let control = handle.control().clone();
        assert!(control.view().checkpoints.failed > 1_000, "{:?}", control.view().checkpoints.failed);
        let asked = env.now();
        control.ask(Ask::Cancel).await.unwrap();
        let ended = env.timeout(Duration::from_secs(60), handle.join()).await;
        assert_eq!(ended.expect("the process ends").unwrap().how, "cancelled");
        assert!(env.now().since(asked) <= Duration::from_secs(1));
        process.kill();
    });
}

/// It is told so with a record that is on its way before that of the cancellation.
#[test]
fn a_process_that_was_fenced_cancels_nothing() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "off"),
            ("checkpoints.retained", "1"),
            ("take-over", "true"),
        ];
        let (_first, own) = sim.process("first");
        let handle = counting(&endless(), &settings, &ledger).start(&own).await.unwrap();
        let deleted = AtomicBool::new(false);
        sim.rule_stores(move |process, call| {
            deleted.fetch_or(call.starts_with("delete attempt-"), Ordering::Relaxed);
            let is_done = process == "first" && call.starts_with("create history/");
            match is_done && deleted.load(Ordering::Relaxed) {
                true => StoreCall::Waits(Duration::from_secs(5)),
                false => StoreCall::Goes,
            }
        });
        for _ in 0..2 {
            env.sleep(Duration::from_millis(500)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
        }
        env.sleep(Duration::from_millis(500)).await;
        let (_second, own) = sim.process("second");
        let taken_over = counting(&endless(), &settings, &ledger).start(&own).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(taken_over.control().view().status, JobStatus::Running);
        let control = handle.control().clone();
        assert_eq!(control.view().status, JobStatus::Running, "it knows already");
        let answer = control.ask(Ask::Cancel).await.unwrap_err();
        assert_says(&answer, ErrorKind::Fenced, &["was taken over"]);
        let error = handle.join().await.unwrap_err();
        assert_says(&error, ErrorKind::Fenced, &["was taken over"]);
        assert_eq!(control.view().status, JobStatus::Suspended);
        assert_eq!(recorded_end(&env).await, None);
        assert_eq!(taken_over.control().view().status, JobStatus::Running);
    });
}

#[test]
fn a_process_that_was_taken_over_while_it_waits_for_its_restart_cancels_nothing() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "100ms"),
            ("restart", "fixed-delay:9:1m"),
            ("take-over", "true"),
        ];
        let failing = endless().failing(|number| (number > 500).then(|| Error::user("it is bad")));
        let (_first, own) = sim.process("first");
        let handle = counting(&failing, &settings, &ledger).start(&own).await.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        assert_eq!(handle.control().view().status, JobStatus::Restarting);
        let (_second, own) = sim.process("second");
        let taken_over = counting(&endless(), &settings, &ledger).start(&own).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(taken_over.control().view().status, JobStatus::Running);
        let control = handle.control().clone();
        let answer = control.ask(Ask::Cancel).await.unwrap_err();
        assert_says(&answer, ErrorKind::Fenced, &["was taken over"]);
        assert_says(&handle.join().await.unwrap_err(), ErrorKind::Fenced, &["was taken over"]);
        assert_eq!(control.view().status, JobStatus::Suspended);
        assert_eq!(taken_over.control().view().status, JobStatus::Running);
    });
}
