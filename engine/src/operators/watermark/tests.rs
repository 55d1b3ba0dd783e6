//! Watermarks and idleness as they leave the operator, through the harness.

use std::time::Duration;

use crate::{prelude::*, record::Mark, testing::OperatorHarness};

#[test]
fn watermarks_follow_the_strategy() {
    let table = [
        (WatermarkStrategy::monotonous(), [Some(8), Some(19)]),
        (WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(5)), [Some(3), Some(14)]),
        (WatermarkStrategy::punctuated(|&at: &i64| (at > 15).then_some(Timestamp(at))), [None, Some(20)]),
    ];
    for (strategy, expect) in table {
        let case = format!("{strategy:?}");
        let mut harness = OperatorHarness::new(|times: Stream<i64>| {
            times.timestamps(|&at| Timestamp(at)).watermarks(strategy)
        });
        let mut found = Vec::new();
        for times in [[9, 7], [20, 3]] {
            times.into_iter().for_each(|at| harness.push_untimed(at));
            harness.make_watermarks(Duration::from_millis(200));
            found.push(harness.last_mark());
        }
        let expect = expect.map(|at| at.map(|at| Mark::Watermark(Timestamp(at))));
        assert_eq!(found, expect, "{case}");
        // Marks from further up end here, except for the last one.
        harness.watermark(Timestamp(50));
        assert_eq!(found.last(), Some(&harness.last_mark()), "{case}");
        harness.watermark(Timestamp::MAX);
        assert_eq!(harness.last_mark(), Some(Mark::Watermark(Timestamp::MAX)), "{case}");
    }
}

#[test]
fn a_silent_stream_becomes_idle_and_wakes_up() {
    let strategy = WatermarkStrategy::monotonous().idle_after(Duration::from_secs(1));
    let mut harness = OperatorHarness::new(|times: Stream<i64>| times.watermarks(strategy));
    let tick = Duration::from_millis(500);
    harness.push(1, Timestamp(1));
    let mut marks = Vec::new();
    for _ in 0..4 {
        harness.make_watermarks(tick);
        marks.push(harness.last_mark());
    }
    let watermark = Some(Mark::Watermark(Timestamp(0)));
    assert_eq!(marks, [watermark, watermark, watermark, Some(Mark::Idle)]);
    harness.push(1, Timestamp(1));
    assert_eq!(harness.last_mark(), Some(Mark::Active));
}

/// Keeps nothing but what it has heard of event time.
#[derive(Clone)]
struct Passes;

impl ProcessFunction for Passes {
    type Key = ();
    type In = i64;
    type Out = i64;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, at: i64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(at);
        Ok(())
    }
}

#[test]
fn after_a_restore_a_strategy_says_nothing_less_than_what_those_behind_it_had_heard() {
    let mut harness = OperatorHarness::new(|times: Stream<i64>| {
        times.watermarks(WatermarkStrategy::monotonous()).process("first", Passes).process("second", Passes)
    });
    harness.push(1, Timestamp(21));
    harness.make_watermarks(Duration::from_millis(200));
    assert_eq!(harness.last_mark(), Some(Mark::Watermark(Timestamp(20))));
    let snapshot = harness.snapshot();
    harness.restore(&snapshot);
    for (at, says) in [(11, None), (21, None), (22, Some(Mark::Watermark(Timestamp(21))))] {
        harness.push(1, Timestamp(at));
        harness.make_watermarks(Duration::from_millis(200));
        assert_eq!(harness.last_mark(), says, "after {at}");
    }
}
