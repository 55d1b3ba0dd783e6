//! Stops, drains, finishes and cancellations.

use super::*;

fn finished(subtask: u32) -> Event {
    report(source(subtask), TaskReport::SourceFinished)
}

fn cancel(request: u64) -> Event {
    Event::Cancel { request: RequestId(request) }
}

/// The tasks run and the stop's barrier is out.
fn stopping(drain: bool, savepoint: Option<&str>) -> Rig {
    let mut rig = Rig::running(Settings { interval: Some(10 * SECOND), ..Settings::default() });
    rig.expect(stop(1, drain, savepoint), &[&format!("inject 1 Stop {{ drain: {drain} }}")]);
    rig
}

#[test]
fn a_stop_commits_its_checkpoint_and_is_recorded_last() {
    let mut rig = stopping(false, None);
    rig.expect(trigger(2), &["refuse 2 cancelled"]);
    rig.expect(savepoint(3, "s"), &["refuse 3 cancelled"]);
    rig.expect(stop(4, false, None), &["refuse 4 cancelled"]);
    rig.reach_record(1, 1);
    rig.expect_at(50, &[]);
    rig.expect(Event::Recorded, &["commit 1"]);
    assert!(!rig.coordinator.may_assign(source(0)), "sources never start again");
    rig.expect(committed(1), &["record confirmed 1"]);
    rig.expect(Event::Recorded, &["collect but 0", "record Stopped"]);
    let answer = "answer 1 Ended { end: Stopped, checkpoint: Some(CheckpointId(1)), savepoint: None }";
    rig.expect(Event::Recorded, &[answer, "finish Stopped"]);
    rig.expect_at(1000, &[]);
    rig.expect(trigger(5), &["refuse 5 retryable"]);
}

#[test]
fn a_stop_waits_for_what_runs_and_serves_what_waits() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &[]);
    rig.expect(stop(3, false, Some("t")), &[]);
    rig.expect(savepoint(4, "t"), &["refuse 4 conflict"]);
    rig.expect(savepoint(5, "u"), &[]);
    rig.reach_record(1, 0);
    let first = ["commit 1", "answer 1 Checkpoint(CheckpointId(1))", "record confirmed 1"];
    rig.expect(Event::Recorded, &[first[0], first[1], first[2], "inject 2 Stop { drain: false }"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
    rig.reach_record(2, 0);
    let second = ["commit 2", "answer 2 Checkpoint(CheckpointId(2))", "record confirmed 2"];
    rig.expect(Event::Recorded, &second);
    rig.expect(Event::Recorded, &["collect but 1", "copy 2 u", "copy 2 t"]);
    rig.expect(copied(2, "t"), &["record savepoint 2 t"]);
    rig.expect(Event::Recorded, &[]);
    rig.expect(copied(2, "u"), &["record savepoint 2 u"]);
    let user = "answer 5 Savepoint { checkpoint: CheckpointId(2), dir: \"u\" }";
    rig.expect(Event::Recorded, &[user, "record Stopped"]);
    let ended =
        "answer 3 Ended { end: Stopped, checkpoint: Some(CheckpointId(2)), savepoint: Some(Ok(\"t\")) }";
    rig.expect(Event::Recorded, &[ended, "finish Stopped"]);
}

#[test]
fn a_stop_that_fails_before_its_record_is_undone() {
    let mut rig = stopping(false, Some("s"));
    rig.expect(declined(1), &["cancel 1", "release 0", "release 1", "refuse 1 retryable"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.reach_record(2, 0);
    rig.expect(Event::Recorded, &["commit 2", "answer 2 Checkpoint(CheckpointId(2))", "record confirmed 2"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
    rig.expect(stop(3, false, Some("s")), &["inject 3 Stop { drain: false }"]);
    rig.reach_record(3, 0);
    rig.expect(record_failed(ErrorKind::Unavailable), &["cancel 3", "refuse 3 unavailable"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(10)));
}

#[test]
fn a_drain_that_fails_restarts_the_job_without_asking() {
    let mut rig = stopping(true, None);
    rig.expect(declined(1), &["cancel 1", "release 0", "release 1", "refuse 1 retryable", "restart"]);
    rig.expect_at(1000, &[]);
}

#[test]
fn the_savepoint_of_a_stop_is_tried_again_or_told() {
    let mut rig = stopping(false, Some("s"));
    rig.reach_record(1, 0);
    rig.expect(Event::Recorded, &["commit 1", "record confirmed 1"]);
    rig.expect(Event::Recorded, &["collect but 1", "copy 1 s"]);
    for second in [0, 1] {
        rig.expect(copy_failed(1, "s", ErrorKind::Unavailable), &["alert"]);
        assert_eq!(rig.coordinator.next_wakeup(), Some(at(second + 1)));
        rig.expect_at(second + 1, &["copy 1 s"]);
    }
    rig.expect(copy_failed(1, "s", ErrorKind::Conflict), &["record Stopped"]);
    let why = "savepoint: Some(Err(\"no luck\"))";
    let ended = format!("answer 1 Ended {{ end: Stopped, checkpoint: Some(CheckpointId(1)), {why} }}");
    rig.expect(Event::Recorded, &[&ended, "finish Stopped"]);
}

#[test]
fn what_remains_of_a_stop_is_done_by_the_next_attempt() {
    let mut rig = stopping(false, Some("s"));
    rig.reach_record(1, 1);
    rig.expect(Event::Recorded, &["commit 1"]);
    rig.expect(job_failed("a task died"), &[]);
    let remaining = rig.coordinator.remaining().expect("the stop is in the history");
    let stop = StopRequest { request: RequestId(1), savepoint: Some("s".into()) };
    let expected = Remaining { checkpoint: id(1), end: End::Stopped, stop: Some(stop), savepoint: None };
    assert_eq!(remaining, expected);

    let coordinator = Coordinator::resume(Settings::default(), plan(), remaining);
    let mut rig = Rig { coordinator, now: at(0) };
    assert_eq!(rig.coordinator.pinned(), [id(1)]);
    rig.expect(Event::TasksRunning, &["copy 1 s"]);
    rig.expect(copied(1, "s"), &["record savepoint 1 s"]);
    rig.expect(Event::Recorded, &["record Stopped"]);
    rig.expect(job_failed("again"), &[]);
    let remaining = rig.coordinator.remaining().expect("the end may not be recorded");
    assert_eq!(remaining.savepoint, Some(Ok("s".into())));

    let coordinator = Coordinator::resume(Settings::default(), plan(), remaining);
    let mut rig = Rig { coordinator, now: at(0) };
    rig.expect(Event::TimePassed, &["record Stopped"]);
    rig.expect(record_failed(ErrorKind::Unavailable), &["alert"]);
    rig.expect_at(1, &["record Stopped"]);
    let ended =
        "answer 1 Ended { end: Stopped, checkpoint: Some(CheckpointId(1)), savepoint: Some(Ok(\"s\")) }";
    rig.expect(Event::Recorded, &[ended, "finish Stopped"]);
}

#[test]
fn a_stop_whose_record_has_an_unclear_fate_is_answered_by_the_next_attempt() {
    for event in [record_failed(ErrorKind::Retryable), job_failed("a task died")] {
        let fails = matches!(event, Event::RecordFailed { .. });
        let mut rig = stopping(false, Some("s"));
        rig.reach_record(1, 1);
        rig.expect(event, if fails { &["fail retryable"] } else { &[] });
        let remaining = rig.coordinator.remaining().expect("the stop may be in the history");
        let stop = StopRequest { request: RequestId(1), savepoint: Some("s".into()) };
        assert_eq!((remaining.checkpoint, remaining.stop), (id(1), Some(stop)));
    }
    // Before its record is on its way it has failed for certain.
    let mut rig = stopping(false, None);
    rig.acknowledge(1, 1);
    rig.expect(job_failed("a task died"), &["refuse 1 retryable"]);
    assert_eq!(rig.coordinator.remaining(), None);
}

#[test]
fn a_stop_before_the_tasks_run_waits_for_them() {
    let mut rig = Rig::new(Settings::default());
    rig.expect(stop(1, true, None), &[]);
    assert_eq!(rig.coordinator.next_wakeup(), None);
    rig.expect(Event::TasksRunning, &["inject 1 Stop { drain: true }"]);
}

#[test]
fn a_job_whose_sources_end_takes_a_last_checkpoint_until_it_holds() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(finished(0), &[]);
    rig.expect(finished(0), &[]);
    rig.expect(finished(1), &["inject 1 Last"]);
    rig.expect(declined(1), &["cancel 1", "release 0", "release 1"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(1)));
    rig.expect_at(1, &["inject 2 Last"]);
    rig.reach_record(2, 1);
    rig.expect(Event::Recorded, &["commit 2"]);
    rig.expect(committed(2), &["record confirmed 2"]);
    rig.expect(Event::Recorded, &["collect but 0", "record Finished"]);
    rig.expect(Event::Recorded, &["finish Finished"]);
}

#[test]
fn the_last_checkpoint_waits_for_one_that_runs() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(finished(0), &[]);
    rig.expect(finished(1), &[]);
    rig.reach_record(1, 0);
    let first = ["commit 1", "answer 1 Checkpoint(CheckpointId(1))", "record confirmed 1", "inject 2 Last"];
    rig.expect(Event::Recorded, &first);
}

#[test]
fn the_last_checkpoint_that_never_holds_fails_the_job() {
    let mut rig = Rig::running(Settings::default());
    rig.step(finished(0));
    rig.step(finished(1));
    for checkpoint in 1..=3 {
        rig.expect(declined(checkpoint), &[&format!("cancel {checkpoint}"), "release 0", "release 1"]);
        rig.expect_at(checkpoint, &[&format!("inject {} Last", checkpoint + 1)]);
    }
    rig.expect(declined(4), &["cancel 4", "release 0", "release 1", "fail retryable"]);
}

#[test]
fn a_stop_of_a_job_that_ends_meanwhile_finishes_it() {
    // Before its barrier.
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(stop(2, true, None), &[]);
    rig.step(finished(0));
    rig.step(finished(1));
    rig.reach_record(1, 0);
    let first = ["commit 1", "answer 1 Checkpoint(CheckpointId(1))", "record confirmed 1", "inject 2 Last"];
    rig.expect(Event::Recorded, &first);
    // After the last one is under way.
    let mut rig = Rig::running(Settings::default());
    rig.step(finished(0));
    rig.expect(finished(1), &["inject 1 Last"]);
    rig.expect(stop(3, false, Some("s")), &[]);
    rig.reach_record(1, 0);
    rig.expect(stop(4, false, None), &["refuse 4 cancelled"]);
    rig.expect(Event::Recorded, &["commit 1", "record confirmed 1"]);
    rig.expect(Event::Recorded, &["collect but 1", "copy 1 s"]);
    rig.expect(copied(1, "s"), &["record savepoint 1 s"]);
    rig.expect(Event::Recorded, &["record Finished"]);
    let ended =
        "answer 3 Ended { end: Finished, checkpoint: Some(CheckpointId(1)), savepoint: Some(Ok(\"s\")) }";
    rig.expect(Event::Recorded, &[ended, "finish Finished"]);
}

#[test]
fn a_stop_when_the_end_is_in_the_history_only_waits_for_it() {
    let mut rig = Rig::running(Settings::default());
    rig.step(finished(0));
    rig.expect(finished(1), &["inject 1 Last"]);
    rig.reach_record(1, 0);
    rig.expect(Event::Recorded, &["commit 1", "record confirmed 1"]);
    rig.expect(stop(1, false, Some("s")), &["refuse 1 cancelled"]);
    rig.expect(stop(2, false, None), &[]);
    rig.expect(Event::Recorded, &["collect but 0", "record Finished"]);
    let ended = "answer 2 Ended { end: Finished, checkpoint: Some(CheckpointId(1)), savepoint: None }";
    rig.expect(Event::Recorded, &[ended, "finish Finished"]);
}

#[test]
fn sources_that_end_behind_a_stop_that_fails_finish_the_job() {
    let mut rig = stopping(false, None);
    rig.step(finished(0));
    rig.step(finished(1));
    let failed = ["cancel 1", "release 0", "release 1", "refuse 1 retryable", "inject 2 Last"];
    rig.expect(declined(1), &failed);
}

#[test]
fn a_cancellation_drops_everything_but_the_record_on_its_way() {
    let mut rig = Rig::running(Settings { max_concurrent: 2, ..Settings::default() });
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.step(captured(1));
    for task in [source(0), source(1), sink()] {
        rig.step(acked(task, 1, 1));
    }
    rig.expect(written(1), &["record completed 1"]);
    rig.expect(stop(3, false, None), &[]);
    rig.expect(cancel(4), &["refuse 1 cancelled", "refuse 2 cancelled", "refuse 3 cancelled"]);
    rig.expect(cancel(5), &[]);
    rig.expect(trigger(6), &["refuse 6 cancelled"]);
    rig.expect(declined(2), &[]);
    // It holds, and the next start commits it.
    rig.expect(Event::Recorded, &["record Cancelled"]);
    let ended =
        |request| format!("answer {request} Ended {{ end: Cancelled, checkpoint: None, savepoint: None }}");
    rig.expect(Event::Recorded, &[&ended(4), &ended(5), "finish Cancelled"]);
}

#[test]
fn a_cancellation_ends_also_where_it_cannot_be_recorded() {
    let ended = "answer 1 Ended { end: Cancelled, checkpoint: None, savepoint: None }";
    for kind in [ErrorKind::Unavailable, ErrorKind::Retryable] {
        let mut rig = Rig::running(Settings::default());
        rig.expect(cancel(1), &["record Cancelled"]);
        rig.expect(record_failed(kind), &["alert", ended, "finish Cancelled"]);
    }
    let mut rig = Rig::running(Settings::default());
    rig.expect(cancel(1), &["record Cancelled"]);
    rig.expect(record_failed(ErrorKind::Fenced), &["refuse 1 fenced", "fail fenced"]);
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.reach_record(1, 0);
    rig.expect(cancel(2), &["refuse 1 cancelled"]);
    rig.expect(record_failed(ErrorKind::Unavailable), &["alert", "record Cancelled"]);
}

/// A stop whose checkpoint and savepoint are whole, and whose end is being recorded.
fn closing() -> Rig {
    let mut rig = stopping(false, Some("s"));
    rig.reach_record(1, 0);
    rig.step(Event::Recorded);
    rig.expect(Event::Recorded, &["collect but 1", "copy 1 s"]);
    rig.expect(copied(1, "s"), &["record savepoint 1 s"]);
    rig.expect(Event::Recorded, &["record Stopped"]);
    rig
}

#[test]
fn a_cancellation_while_another_end_is_recorded_learns_which_it_was() {
    let mut rig = closing();
    rig.expect(cancel(2), &[]);
    rig.expect(trigger(3), &["refuse 3 cancelled"]);
    let ended = |request| {
        format!(
            "answer {request} Ended {{ end: Stopped, checkpoint: Some(CheckpointId(1)), savepoint: Some(Ok(\"s\")) }}"
        )
    };
    rig.expect(Event::Recorded, &[&ended(1), &ended(2), "finish Stopped"]);

    let cancelled = "answer 2 Ended { end: Cancelled, checkpoint: None, savepoint: None }";
    for kind in [ErrorKind::Unavailable, ErrorKind::Retryable] {
        let mut rig = closing();
        rig.expect(cancel(2), &[]);
        rig.expect(record_failed(kind), &["alert", "refuse 1 cancelled", cancelled, "finish Cancelled"]);
    }
    let mut rig = closing();
    rig.expect(cancel(2), &[]);
    rig.expect(job_failed("a task died"), &["refuse 1 cancelled", cancelled, "finish Cancelled"]);
}

#[test]
fn a_fenced_attempt_cancels_nothing() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(cancel(1), &["record Cancelled"]);
    rig.expect(Event::Fenced { reason: "it was taken over".into() }, &["refuse 1 fenced"]);
    rig.expect(Event::Recorded, &[]);
}
