//! The watermark of a task by the marks of its inputs: tables of what comes, and what the task makes of it.

use checkpoint::barrier::CheckpointMode;
use env::{Limits, channel, sim::Simulation};
use types::CheckpointId;

use super::*;

/// What an input brings.
#[derive(Clone, Copy, Debug)]
enum Brings {
    Mark(i64),
    Idle,
    Active,
}

use Brings::{Active, Idle, Mark};

const NONE: TimeStep = TimeStep::None;

fn rises(to: i64) -> TimeStep {
    TimeStep::Watermark(Timestamp(to))
}

fn gate(inputs: usize, watermark: Timestamp) -> InputGate {
    let env = Simulation::new(1).env();
    let receivers = (0..inputs).map(|_| channel(&env, Limits::items(1)).1).collect();
    let aligner = Aligner::new(inputs, CheckpointMode::ExactlyOnce, CheckpointId(0));
    let mut gate = InputGate::new(receivers, aligner);
    gate.restore_watermark(watermark);
    gate
}

#[track_caller]
fn check_from(watermark: Timestamp, inputs: usize, table: &[(usize, Brings, TimeStep)]) {
    let mut gate = gate(inputs, watermark);
    for (row, (input, brings, expected)) in table.iter().enumerate() {
        let before = gate.watermark();
        let step = match brings {
            Mark(at) => gate.on_watermark(*input, Timestamp(*at)),
            Idle => gate.on_idle(*input),
            Active => gate.on_active(*input),
        };
        assert_eq!(step, *expected, "row {row}: input {input} brings {brings:?}");
        let shown = if let TimeStep::Watermark(to) = step { to } else { before };
        assert_eq!(gate.watermark(), shown, "row {row}");
        assert!(gate.watermark() >= before, "row {row}: the task's watermark fell");
    }
}

#[track_caller]
fn check(inputs: usize, table: &[(usize, Brings, TimeStep)]) {
    check_from(Timestamp::MIN, inputs, table);
}

#[test]
fn the_watermark_is_the_least_of_all_inputs() {
    check(1, &[(0, Mark(5), rises(5)), (0, Mark(5), NONE), (0, Mark(4), NONE), (0, Mark(6), rises(6))]);
    check(
        3,
        &[
            (0, Mark(10), NONE),
            (1, Mark(20), NONE),
            (2, Mark(5), rises(5)),
            (0, Mark(30), NONE),
            (2, Mark(15), rises(15)),
            (2, Mark(40), rises(20)),
            // An input that takes a promise back changes nothing.
            (1, Mark(1), NONE),
            (1, Mark(25), rises(25)),
            (1, Mark(i64::MAX), rises(30)),
            (0, Mark(i64::MAX), rises(40)),
            (2, Mark(i64::MAX), rises(i64::MAX)),
        ],
    );
}

#[test]
fn after_a_restore_it_goes_on_from_where_it_was() {
    check_from(
        Timestamp(50),
        2,
        &[
            (0, Mark(40), NONE),
            (1, Mark(45), NONE),
            (0, Mark(60), NONE),
            (1, Mark(50), NONE),
            (1, Mark(55), rises(55)),
        ],
    );
}

#[test]
fn an_idle_input_does_not_count() {
    check(
        2,
        &[
            (0, Mark(10), NONE),
            // The one that was waited for falls silent, without ever having said anything.
            (1, Idle, rises(10)),
            (0, Mark(12), rises(12)),
            (1, Idle, NONE),
            // Its watermark wakes it up, and counts again at once.
            (1, Mark(5), NONE),
            (0, Mark(30), NONE),
            (1, Mark(20), rises(20)),
        ],
    );
    check(
        3,
        &[
            (0, Mark(10), NONE),
            (1, Mark(20), NONE),
            (2, Idle, rises(10)),
            (0, Idle, rises(20)),
            (0, Mark(15), NONE),
            (0, Mark(25), NONE),
            (1, Mark(30), rises(25)),
        ],
    );
}

#[test]
fn an_input_that_is_active_again_counts_with_the_watermark_that_it_had() {
    check(
        2,
        &[
            (0, Mark(10), NONE),
            (1, Mark(8), rises(8)),
            (1, Idle, rises(10)),
            (0, Mark(20), rises(20)),
            // The task has said 20 and does not take it back, but says no more until the other has caught up.
            (1, Active, NONE),
            (0, Mark(40), NONE),
            (1, Mark(15), NONE),
            (1, Mark(30), rises(30)),
        ],
    );
}

#[test]
fn a_task_is_idle_when_all_its_inputs_are() {
    check(
        2,
        &[
            (0, Mark(10), NONE),
            (1, Mark(10), rises(10)),
            (0, Idle, NONE),
            (1, Idle, TimeStep::Idle),
            (1, Idle, NONE),
            (0, Active, TimeStep::Active),
            // The other is still idle.
            (0, Mark(20), rises(20)),
            (1, Active, NONE),
            (0, Idle, NONE),
            (1, Idle, TimeStep::Idle),
            // A watermark says, too, that the task is active: one that rises by itself, one that does not by `Active`.
            (1, Mark(30), rises(30)),
            (1, Idle, TimeStep::Idle),
            (1, Mark(30), TimeStep::Active),
        ],
    );
    check(1, &[(0, Idle, TimeStep::Idle), (0, Active, TimeStep::Active), (0, Active, NONE)]);
}

#[test]
fn an_input_that_has_ended_says_nothing_about_one_that_is_idle() {
    let end = i64::MAX;
    let rest = [(1, Mark(20), rises(20)), (1, Mark(end), rises(end))];
    let begin = [(0, Mark(10), NONE), (1, Mark(10), rises(10))];
    let either = [
        [(0, Mark(end), NONE), (1, Idle, TimeStep::Idle)],
        [(1, Idle, NONE), (0, Mark(end), TimeStep::Idle)],
    ];
    for middle in either {
        check(2, &[&begin[..], &middle[..], &rest[..]].concat());
    }
    check(
        3,
        &[
            (0, Idle, NONE),
            (1, Idle, NONE),
            (2, Idle, TimeStep::Idle),
            // The end of one wakes nobody up while the others are idle.
            (2, Mark(end), NONE),
            (2, Idle, NONE),
            (1, Active, TimeStep::Active),
            (1, Mark(end), TimeStep::Idle),
            (0, Mark(7), rises(7)),
            (0, Idle, TimeStep::Idle),
            // Idle or not: when all have ended, so has the task.
            (0, Mark(end), rises(end)),
            (0, Idle, NONE),
        ],
    );
}
