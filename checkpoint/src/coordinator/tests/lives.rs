//! Checkpoints and savepoints that go well: order, time, who is told what and when.

use super::*;

fn every(interval: u64) -> Settings {
    Settings { interval: Some(Duration::from_secs(interval)), ..Settings::default() }
}

#[test]
fn the_life_of_a_periodic_checkpoint() {
    let mut rig = Rig::new(every(10));
    assert_eq!(rig.coordinator.next_wakeup(), None);
    rig.expect(Event::TasksRunning, &[]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(10)));
    rig.expect_at(9, &[]);
    rig.expect_at(10, &["inject 1 Checkpoint"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(610)), "its timeout");
    rig.acknowledge(1, 1);
    rig.now = at(12);
    rig.expect(written(1), &["record completed 1"]);
    assert_eq!(rig.coordinator.next_wakeup(), None, "only the history can tell now");
    rig.expect(Event::Recorded, &["commit 1"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(20)));
    rig.expect(committed(1), &["record confirmed 1"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
    let statistics = rig.coordinator.statistics();
    assert_eq!((statistics.triggered, statistics.completed, statistics.failed), (1, 1, 0));
    let one = statistics.latest_completed().expect("one completed");
    assert_eq!((one.checkpoint, one.acked, one.tasks), (id(1), 3, 3));
    assert_eq!(one.duration, Some(2 * SECOND));
}

#[test]
fn nothing_happens_without_the_capture() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    for (task, released) in [(source(0), vec!["release 0"]), (source(1), vec!["release 1"]), (sink(), vec![])]
    {
        rig.expect(acked(task, 1, 0), &released);
    }
    rig.expect(captured(1), &["manifest 1"]);
}

#[test]
fn a_late_checkpoint_is_triggered_once_and_the_interval_begins_anew() {
    let mut rig = Rig::running(every(10));
    rig.expect_at(10, &["inject 1 Checkpoint"]);
    rig.expect_at(35, &[]);
    rig.acknowledge(1, 0);
    rig.expect(written(1), &["record completed 1"]);
    rig.expect(Event::Recorded, &["commit 1", "record confirmed 1", "inject 2 Checkpoint"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(635)));
}

#[test]
fn the_pause_begins_at_the_end_of_a_checkpoint_good_or_bad() {
    let mut rig = Rig::running(Settings { min_pause: 7 * SECOND, max_concurrent: 2, ..every(10) });
    rig.expect_at(10, &["inject 1 Checkpoint"]);
    rig.expect_at(25, &[]);
    rig.expect(declined(1), &["cancel 1", "release 0", "release 1"]);
    assert_eq!(rig.coordinator.next_wakeup(), Some(at(32)));
    rig.expect_at(31, &[]);
    rig.expect_at(32, &["inject 2 Checkpoint"]);
}

#[test]
fn requests_wait_for_room_and_share_a_checkpoint_but_not_the_pause() {
    let mut rig = Rig::running(Settings { min_pause: 100 * SECOND, ..every(10) });
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &[]);
    rig.expect(savepoint(3, "file:///s"), &[]);
    rig.expect(savepoint(4, "file:///s"), &["refuse 4 conflict"]);
    rig.reach_record(1, 0);
    let first =
        ["commit 1", "answer 1 Checkpoint(CheckpointId(1))", "record confirmed 1", "inject 2 Savepoint"];
    rig.expect(Event::Recorded, &first);
    rig.expect(Event::Recorded, &["collect but 0"]);
    rig.reach_record(2, 1);
    rig.expect(Event::Recorded, &["commit 2", "answer 2 Checkpoint(CheckpointId(2))"]);
    rig.expect(savepoint(5, "file:///s"), &["refuse 5 conflict"]);
    assert_eq!(rig.coordinator.pinned(), [id(2)]);
    // Not before the sinks of 2 are confirmed in the history.
    rig.expect(committed(2), &["record confirmed 2"]);
    rig.expect(Event::Recorded, &["collect but 1", "copy 2 file:///s"]);
    rig.expect(copied(2, "file:///s"), &["record savepoint 2 file:///s"]);
    let done = "answer 3 Savepoint { checkpoint: CheckpointId(2), dir: \"file:///s\" }";
    rig.expect(Event::Recorded, &[done]);
    assert_eq!(rig.coordinator.pinned(), []);
}

#[test]
fn a_savepoint_that_fails_is_answered_and_harms_nothing() {
    let mut rig = Rig::running(Settings::default());
    rig.expect(savepoint(1, "s"), &["inject 1 Savepoint"]);
    rig.reach_record(1, 0);
    rig.expect(Event::Recorded, &["commit 1", "record confirmed 1"]);
    rig.expect(Event::Recorded, &["collect but 1", "copy 1 s"]);
    rig.expect(copy_failed(1, "s", ErrorKind::Retryable), &["refuse 1 retryable"]);
    rig.expect(copied(1, "s"), &[]);
    rig.expect(savepoint(2, "s"), &["inject 2 Savepoint"]);
}

#[test]
fn checkpoints_are_recorded_in_their_order() {
    let mut rig = Rig::running(Settings { max_concurrent: 2, ..Settings::default() });
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.expect(trigger(3), &[]);
    for checkpoint in 1..=2 {
        rig.step(captured(checkpoint));
        for task in [source(0), source(1), sink()] {
            rig.step(acked(task, checkpoint, 1));
        }
    }
    rig.expect(written(2), &[]);
    rig.expect(written(1), &["record completed 1"]);
    let first = ["commit 1", "answer 1 Checkpoint(CheckpointId(1))", "manifest 2", "inject 3 Checkpoint"];
    rig.expect(Event::Recorded, &first);
    rig.expect(committed(1), &["record confirmed 1"]);
    rig.expect(written(2), &[]);
    rig.expect(Event::Recorded, &["collect but 0", "record completed 2"]);
}

#[test]
fn a_whole_checkpoint_gives_up_older_ones_that_are_not_and_serves_their_requests() {
    let mut rig = Rig::running(Settings {
        max_concurrent: 2,
        tolerable_consecutive_failures: 0,
        ..Settings::default()
    });
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.step(captured(2));
    rig.step(acked(source(0), 2, 0));
    rig.step(acked(source(1), 2, 0));
    rig.expect(acked(sink(), 2, 0), &["cancel 1", "release 0", "release 1", "manifest 2"]);
    rig.expect(written(2), &["record completed 2"]);
    let both = ["answer 2 Checkpoint(CheckpointId(2))", "answer 1 Checkpoint(CheckpointId(2))"];
    rig.expect(Event::Recorded, &["commit 2", both[0], both[1], "record confirmed 2"]);
}

#[test]
fn splits_are_held_back_from_the_trigger_until_the_reader_has_injected() {
    let mut rig = Rig::running(Settings { max_concurrent: 2, ..Settings::default() });
    assert!(rig.coordinator.may_assign(source(0)));
    rig.expect(trigger(1), &["inject 1 Checkpoint"]);
    rig.expect(trigger(2), &["inject 2 Checkpoint"]);
    rig.expect(injected(0, 1), &[]);
    assert!(!rig.coordinator.may_assign(source(0)), "2 is triggered too");
    rig.expect(injected(0, 2), &["release 0"]);
    assert!(rig.coordinator.may_assign(source(0)));
    assert!(!rig.coordinator.may_assign(source(1)));
    rig.expect(injected(0, 2), &[]);
    rig.expect(acked(source(1), 1, 0), &[]);
    rig.expect(acked(source(1), 2, 0), &["release 1"]);
}

#[test]
fn new_checkpoints_wait_while_the_sinks_lag_behind() {
    let mut rig = Rig::running(Settings::default());
    for checkpoint in 1..=3 {
        rig.expect(trigger(checkpoint), &[&format!("inject {checkpoint} Checkpoint")]);
        rig.reach_record(checkpoint, 1);
        rig.step(Event::Recorded);
    }
    rig.expect(trigger(4), &[]);
    rig.expect(committed(2), &["record confirmed 2", "inject 4 Checkpoint"]);
}

#[test]
fn a_confirmation_covers_those_that_wait_behind_it() {
    let mut rig = Rig::running(Settings { max_concurrent: 3, ..Settings::default() });
    for checkpoint in 1..=3 {
        rig.expect(trigger(checkpoint), &[&format!("inject {checkpoint} Checkpoint")]);
    }
    for checkpoint in 1..=3 {
        rig.step(captured(checkpoint));
        for task in [source(0), source(1), sink()] {
            rig.step(acked(task, checkpoint, 1));
        }
        rig.step(written(checkpoint));
        if checkpoint < 3 {
            rig.step(Event::Recorded);
        }
    }
    // The record of 3 is on its way: both confirmations wait, and one is enough.
    rig.expect(committed(1), &[]);
    rig.expect(committed(2), &[]);
    rig.expect(Event::Recorded, &["commit 3", "answer 3 Checkpoint(CheckpointId(3))", "record confirmed 2"]);
    rig.expect(Event::Recorded, &["collect but 0"]);
}

#[test]
fn statistics_remember_a_hundred() {
    let mut rig = Rig::running(Settings::default());
    for checkpoint in 1..=120 {
        rig.step(trigger(checkpoint));
        rig.complete_quietly(checkpoint);
    }
    let statistics = rig.coordinator.statistics();
    assert_eq!(statistics.completed, 120);
    assert_eq!(statistics.history.len(), Statistics::REMEMBERED);
    assert_eq!(statistics.history[0].checkpoint, id(21));
}

impl Rig {
    fn complete_quietly(&mut self, checkpoint: u64) {
        self.acknowledge(checkpoint, 0);
        for event in [written(checkpoint), Event::Recorded, Event::Recorded] {
            self.step(event);
        }
    }
}
