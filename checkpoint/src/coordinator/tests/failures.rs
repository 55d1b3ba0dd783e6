//! Checkpoints that fail, records of unknown fate, reports that come late, twice, or from elsewhere.

use super::*;

fn tolerating(failures: u32) -> Settings {
    Settings { tolerable_consecutive_failures: failures, ..Settings::default() }
}

#[test]
fn a_checkpoint_that_takes_too_long_is_given_up() {
    let mut rig = Rig::running(Settings { timeout: 5 * SECOND, ..Settings::default() });
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(acked(source(0), 1, 0), &["release 0"]);
    rig.expect_at(4, &[]);
    rig.expect_at(5, &["cancel 1", "release 1", "refuse 1 retryable"]);
    let CheckpointOutcome::Failed { reason } = &rig.coordinator.statistics().history[0].outcome else {
        panic!("it failed")
    };
    assert!(reason.contains("longer than 5s, missing 2 tasks: task 0/1, task 1/0"), "{reason}");
    // Everything that still comes of it is late.
    for event in [captured(1), acked(sink(), 1, 1), declined(1), written(1), injected(1, 1)] {
        rig.expect(event, &[]);
    }
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
}

#[test]
fn a_record_on_its_way_is_waited_for_and_one_that_is_not_is_withdrawn() {
    let settings = Settings { timeout: 5 * SECOND, max_concurrent: 2, ..Settings::default() };
    let mut rig = Rig::running(settings);
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.reach_record(1, 1);
    rig.expect_at(99, &[]);
    rig.expect(Event::Recorded, &["commit 1", "answer 1 Checkpoint(CheckpointId(1))"]);
    rig.expect(committed(1), &["record confirmed 1"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.acknowledge(2, 0);
    rig.expect(written(2), &[]);
    rig.expect_at(104, &["cancel 2", "refuse 2 retryable"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
}

#[test]
fn too_many_failures_in_a_row_fail_the_job() {
    let mut rig = Rig::running(tolerating(1));
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(declined(1), &["cancel 1", "release 0", "release 1", "refuse 1 retryable"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.reach_record(2, 0);
    rig.step(Event::Recorded);
    rig.step(Event::Recorded);
    for checkpoint in 3..=4 {
        rig.expect(trigger(checkpoint), &[&format!("inject {checkpoint} Checkpoint")]);
        let failed = format!("cancel {checkpoint}");
        let refused = format!("refuse {checkpoint} retryable");
        let mut decisions = vec![failed.as_str(), "release 0", "release 1", refused.as_str()];
        if checkpoint == 4 {
            decisions.push("fail retryable");
        }
        rig.expect(declined(checkpoint), &decisions);
    }
    rig.expect(trigger(5), &["refuse 5 retryable"]);
    assert_eq!(rig.coordinator.next_wakeup(), None);
}

#[test]
fn failures_without_end_where_they_do_not_fail_the_job() {
    let mut rig = Rig::running(Settings { fail_job_on_failed_checkpoint: false, ..tolerating(0) });
    for checkpoint in 1..=20 {
        rig.expect(trigger(checkpoint), &[&format!("inject {checkpoint} Checkpoint")]);
        rig.acknowledge(checkpoint, 0);
        let error = Error::unavailable("disk full");
        let refused = format!("refuse {checkpoint} unavailable");
        let failed = Event::ManifestFailed { checkpoint: id(checkpoint), error };
        rig.expect(failed, &[&format!("cancel {checkpoint}"), &refused]);
    }
}

#[test]
fn a_record_that_was_not_created_fails_its_checkpoint_or_is_tried_again() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.reach_record(1, 1);
    rig.expect(record_failed(ErrorKind::Unavailable), &["cancel 1", "refuse 1 unavailable"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.reach_record(2, 1);
    rig.expect(Event::Recorded, &["commit 2", "answer 2 Checkpoint(CheckpointId(2))"]);
    rig.expect(committed(2), &["record confirmed 2"]);
    rig.expect(record_failed(ErrorKind::Unavailable), &["alert"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(1)));
    rig.expect_at(1, &["record confirmed 2"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
}

#[test]
fn a_record_of_unknown_fate_fails_the_attempt() {
    for kind in [ErrorKind::Retryable, ErrorKind::Internal, ErrorKind::Corrupt] {
        let mut rig = Rig::running(Settings::default());
        rig.expect(trigger(1), &["inject 1 Checkpoint"]);
        rig.reach_record(1, 1);
        rig.expect(
            record_failed(kind),
            &[&format!("refuse 1 {}", kind.name()), &format!("fail {}", kind.name())],
        );
        rig.expect(Event::Recorded, &[]);
    }
}

#[test]
fn fenced_is_fenced_wherever_it_is_learned() {
    let fenced = || Error::fenced("attempt 9 owns the job");
    let learn: [fn(Error) -> Event; 2] =
        [|error| Event::ManifestFailed { checkpoint: id(1), error }, |error| Event::RecordFailed { error }];
    for (place, learn) in learn.into_iter().enumerate() {
        let mut rig = Rig::running(Settings::default());
        rig.expect(trigger(1), &["inject 1 Checkpoint"]);
        rig.acknowledge(1, 1);
        if place == 1 {
            rig.expect(written(1), &["record completed 1"]);
        }
        rig.expect(learn(fenced()), &["refuse 1 fenced", "fail fenced"]);
    }
}

#[test]
fn a_commit_without_a_record_fails_the_job() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.reach_record(1, 1);
    rig.expect(Event::Recorded, &["commit 1", "answer 1 Checkpoint(CheckpointId(1))"]);
    rig.expect(committed(2), &["fail internal"]);
}

#[test]
fn reports_of_others_have_no_effect() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.step(captured(1));
    let before = rig.coordinator.clone();
    let stale = TaskReport::Declined { checkpoint: id(1), reason: String::new() };
    rig.expect(Event::Task { attempt: AttemptId(2), task: sink(), report: stale.clone() }, &[]);
    let stranger = TaskId { chain: 7, subtask: SubtaskIndex(0) };
    rig.expect(report(stranger, stale), &["alert"]);
    let other = TaskSnapshot { task: sink(), operators: Vec::new() };
    rig.expect(injected(0, 1), &["release 0"]);
    rig.expect(injected(0, 7), &[]);
    let wrong = TaskReport::Acked { checkpoint: id(1), snapshot: other };
    rig.expect(report(source(0), wrong), &["alert"]);
    assert_eq!(before.pending[&id(1)].acks, rig.coordinator.pending[&id(1)].acks);
}

#[test]
fn the_first_acknowledgement_stands() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.step(captured(1));
    rig.expect(acked(sink(), 1, 1), &[]);
    rig.expect(acked(sink(), 1, 1), &[]);
    rig.expect(acked(sink(), 1, 0), &["alert"]);
    rig.step(acked(source(0), 1, 0));
    rig.expect(acked(source(1), 1, 0), &["release 1", "manifest 1"]);
    rig.expect(acked(sink(), 1, 1), &[]);
    rig.expect(declined(1), &[]);
    rig.expect(written(1), &["record completed 1"]);
    rig.expect(Event::Recorded, &["commit 1", "answer 1 Checkpoint(CheckpointId(1))"]);
    assert_eq!(rig.coordinator.statistics().history[0].acked, 3);
}

#[test]
fn a_part_that_is_missing_in_the_end_is_a_broken_invariant() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.step(captured(1));
    rig.step(acked(source(0), 1, 0));
    rig.step(acked(source(1), 1, 0));
    let empty = TaskSnapshot { task: sink(), operators: Vec::new() };
    let lacking = report(sink(), TaskReport::Acked { checkpoint: id(1), snapshot: empty });
    rig.expect(lacking, &["refuse 1 internal", "fail internal"]);
}

#[test]
fn when_the_attempt_fails_every_request_is_refused_once() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(savepoint(1, "a"), &["inject 1 Savepoint"]);
    rig.reach_record(1, 1);
    rig.expect(Event::Recorded, &["commit 1"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.expect(trigger(3), &[]);
    rig.expect(savepoint(4, "b"), &[]);
    rig.expect(stop(5, false, None), &[]);
    let refused: Vec<_> = [3, 2, 4, 1, 5].map(|request| format!("refuse {request} retryable")).into();
    let refused: Vec<_> = refused.iter().map(String::as_str).collect();
    rig.expect(job_failed("a task died"), &refused);
    assert_eq!(rig.coordinator.remaining(), None);
    let outcomes = &rig.coordinator.statistics().history;
    let open = outcomes.iter().find(|one| one.outcome == CheckpointOutcome::InProgress);
    assert_eq!((outcomes.len(), open), (2, None), "none is under way any more");
    rig.expect(job_failed("again"), &[]);
    rig.expect(Event::Cancel { request: RequestId(6) }, &["refuse 6 retryable"]);

    // A failure that ends the job for good is no reason to ask again.
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    let failed = Event::JobFailed { kind: ErrorKind::BadInput, reason: "line 7 is none".into() };
    rig.expect(failed, &["refuse 1 bad-input"]);
}
