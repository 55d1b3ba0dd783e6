//! Process functions: keyed state, both kinds of timers, side outputs and operator lists, through the harness.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use types::ErrorKind;

use super::*;
use crate::{
    prelude::*,
    record::Mark,
    testing::{OperatorHarness, ends::runtime_context},
};

const LATE: OutputTag<String> = OutputTag::new("late");

/// Emits a word's count once no more of it arrived for `gap` of event time; words behind the watermark go aside.
#[derive(Clone)]
struct CountUntilQuiet {
    gap: Duration,
}

struct Cells {
    count: ValueState<u64>,
    deadline: ValueState<Timestamp>,
    late: SideOutput<String>,
}

impl ProcessFunction for CountUntilQuiet {
    type Key = String;
    type In = String;
    type Out = (String, u64);
    type State = Cells;

    fn declare(states: &mut Declarations) -> Cells {
        Cells {
            count: states.value("count"),
            deadline: states.value("deadline"),
            late: states.side_output(LATE),
        }
    }

    fn process(&mut self, word: String, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        if ctx.timestamp() <= ctx.watermark() {
            ctx.emit_to(cells.late, word);
            return Ok(());
        }
        cells.count.update(ctx, |count| *count.get_or_insert(0) += 1)?;
        let deadline = ctx.timestamp() + self.gap;
        if let Some(earlier) = cells.deadline.replace(ctx, deadline)? {
            ctx.timers().delete(earlier)?;
        }
        ctx.timers().register(deadline)
    }

    fn on_timer(&mut self, _at: Timestamp, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        cells.deadline.clear(ctx)?;
        let Some(count) = cells.count.take(ctx)? else { return Ok(()) };
        ctx.emit((ctx.key().clone(), count));
        Ok(())
    }
}

fn quiet() -> OperatorHarness<String, (String, u64)> {
    OperatorHarness::new(|words: Stream<String>| {
        words.key_by(String::clone).process("quiet", CountUntilQuiet { gap: Duration::from_millis(10) })
    })
}

#[test]
fn timers_fire_in_time_order_once_the_watermark_has_come() {
    let mut harness = quiet();
    for (word, at) in [("b", 5), ("a", 1), ("b", 6), ("a", 2), ("c", 1)] {
        harness.push(word.to_owned(), Timestamp(at));
    }
    harness.watermark(Timestamp(10));
    assert_eq!(harness.out(), []);
    harness.watermark(Timestamp(12));
    assert_eq!(
        harness.out_with_times(),
        [(("c".to_owned(), 1), Some(Timestamp(11))), (("a".to_owned(), 2), Some(Timestamp(12)))]
    );
    assert_eq!(harness.last_mark(), Some(Mark::Watermark(Timestamp(12))));
    harness.push("a".to_owned(), Timestamp(12));
    assert_eq!(harness.side_output(LATE), ["a"]);
    harness.finish();
    assert_eq!(harness.out(), [("b".to_owned(), 2)]);
}

#[test]
fn state_and_timers_survive_a_restore() {
    let mut harness = quiet();
    harness.push("a".to_owned(), Timestamp(1));
    let first = harness.snapshot();
    harness.push("a".to_owned(), Timestamp(2));
    harness.push("b".to_owned(), Timestamp(3));
    let second = harness.snapshot();
    harness.push("b".to_owned(), Timestamp(4));

    harness.restore(&second);
    harness.watermark(Timestamp(99));
    assert_eq!(harness.out(), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let third = harness.snapshot();
    harness.restore(&third);
    harness.watermark(Timestamp::MAX);
    assert_eq!(harness.out(), [], "fired timers and taken values are gone in a snapshot too");

    harness.restore(&first);
    harness.watermark(Timestamp(99));
    assert_eq!(harness.out(), [("a".to_owned(), 1)]);
}

/// Wakes a key up on the wall clock, once.
#[derive(Clone)]
struct Echo;

impl ProcessFunction for Echo {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, after: u64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let now = ctx.processing_time();
        ctx.timers().register_processing(now + Duration::from_millis(after))?;
        ctx.timers().register_processing(now + Duration::from_millis(after))?;
        if after == 0 {
            ctx.timers().delete_processing(now)?;
        }
        Ok(())
    }

    fn on_processing_timer(&mut self, _at: Timestamp, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(*ctx.key());
        Ok(())
    }
}

#[test]
fn processing_timers_follow_the_wall_clock() {
    let mut harness =
        OperatorHarness::new(|delays: Stream<u64>| delays.key_by(|&delay| delay).process("echo", Echo));
    harness.processing_time(Timestamp(1_000_000));
    for delay in [30, 0, 10, 20] {
        harness.push(delay, Timestamp(0));
    }
    harness.processing_time(Timestamp(1_000_020));
    assert_eq!(harness.out_with_times(), [(10, None), (20, None)]);
    let snapshot = harness.snapshot();
    harness.restore(&snapshot);
    harness.processing_time(Timestamp(1_000_050));
    assert_eq!(harness.out(), [30], "an overdue timer fires after a restore");
}

/// Keeps what it saw in operator list state and hands it out in threes.
#[derive(Clone)]
struct Threes;

impl ProcessFunction for Threes {
    type Key = ();
    type In = u64;
    type Out = Vec<u64>;
    type State = OperatorListState<u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_list("seen")
    }

    fn process(&mut self, number: u64, seen: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        seen.get(ctx).push(number);
        if seen.get(ctx).len() == 3 {
            let three = std::mem::take(seen.get(ctx));
            ctx.emit(three);
        }
        Ok(())
    }
}

#[test]
fn operator_lists_work_without_a_key() {
    let mut harness = OperatorHarness::new(|numbers: Stream<u64>| numbers.process("threes", Threes));
    (1..=5).for_each(|number| harness.push_untimed(number));
    assert_eq!(harness.out(), [[1, 2, 3]]);
    let snapshot = harness.snapshot();
    harness.push_untimed(99);
    assert_eq!(harness.out(), [[4, 5, 99]]);
    harness.restore(&snapshot);
    harness.push_untimed(6);
    assert_eq!(harness.out(), [[4, 5, 6]]);
}

/// [`Threes`] of other elements.
#[derive(Clone)]
struct Words;

impl ProcessFunction for Words {
    type Key = ();
    type In = u64;
    type Out = Vec<u64>;
    type State = OperatorListState<String>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_list("seen")
    }

    fn process(&mut self, _: u64, _: &Self::State, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn operator_lists_of_another_shape_are_refused() {
    let mut numbers = OperatorHarness::new(|numbers: Stream<u64>| numbers.process("op", Threes));
    numbers.push_untimed(1);
    let mut words = OperatorHarness::new(|numbers: Stream<u64>| numbers.process("op", Words));
    let error = words.try_restore(&numbers.snapshot()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IncompatibleState);
    assert!(
        error.message().starts_with("operator op: list state \"seen\": the type has changed: "),
        "{error}"
    );
}

/// Adds up and lists numbers.
#[derive(Clone)]
struct Adding;

impl ProcessFunction for Adding {
    type Key = u64;
    type In = u64;
    type Out = String;
    type State = (ValueState<u64>, OperatorListState<u64>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.value("sum"), states.operator_list("seen"))
    }

    fn process(&mut self, number: u64, kept: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let sum = kept.0.get(ctx)?.unwrap_or(0) + number;
        kept.1.get(ctx).push(number);
        kept.0.set(ctx, sum)
    }
}

/// The same of texts, and tells what there is.
#[derive(Clone)]
struct Joining;

impl ProcessFunction for Joining {
    type Key = u64;
    type In = u64;
    type Out = String;
    type State = (ValueState<String>, OperatorListState<String>);

    fn declare(states: &mut Declarations) -> Self::State {
        let text = |number: u64| Ok(number.to_string());
        (states.migrating(text).value("sum"), states.migrating(text).operator_list("seen"))
    }

    fn process(&mut self, number: u64, kept: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        kept.1.get(ctx).push(number.to_string());
        let sum = kept.0.get(ctx)?.unwrap_or_default() + "+" + &number.to_string();
        kept.0.set(ctx, sum.clone())?;
        let seen = kept.1.get(ctx).join(",");
        ctx.emit(format!("{sum} of {seen}"));
        Ok(())
    }
}

#[test]
fn a_snapshot_of_an_older_version_is_migrated_once() {
    let mut before = OperatorHarness::new(|it: Stream<u64>| it.key_by(|n| n % 2).process("op", Adding));
    for number in [1, 2, 3] {
        before.push_untimed(number);
    }
    let snapshot = before.snapshot();
    let mut after = OperatorHarness::new(|it: Stream<u64>| it.key_by(|n| n % 2).process("op", Joining));
    for _ in 0..2 {
        after.restore(&snapshot);
        after.push_untimed(5);
        assert_eq!(after.out(), ["4+5 of 1,2,3,5"]);
    }
    let snapshot = after.snapshot();
    after.restore(&snapshot);
    after.push_untimed(4);
    after.push_untimed(7);
    assert_eq!(after.out(), ["2+4 of 1,2,3,5,4", "4+5+7 of 1,2,3,5,4,7"]);
}

/// What `fold` and its like had kept, as a text.
#[derive(Clone)]
struct Folded;

impl ProcessFunction for Folded {
    type Key = u64;
    type In = u64;
    type Out = String;
    type State = ValueState<String>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.migrating(|sum: u64| Ok(format!("it was {sum}"))).value("value")
    }

    fn process(&mut self, _number: u64, kept: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let text = kept.get(ctx)?.unwrap_or_default();
        ctx.emit(text);
        Ok(())
    }
}

#[test]
fn what_a_rolling_aggregate_kept_is_migrated_by_a_function_under_its_uid() {
    type Build = fn(Stream<u64>) -> Stream<(u64, u64)>;
    let rolling: [Build; 3] = [
        |it| it.key_by(|n| n % 2).fold("op", 0_u64, |sum, n| *sum += n),
        |it| it.key_by(|n| n % 2).sum("op", |n| *n),
        |it| it.key_by(|n| n % 2).reduce("op", |a, b| a + b).map(|n| (0, n)),
    ];
    for build in rolling {
        let mut before = OperatorHarness::new(build);
        for number in [1, 2, 3] {
            before.push_untimed(number);
        }
        let mut after = OperatorHarness::new(|it: Stream<u64>| it.key_by(|n| n % 2).process("op", Folded));
        after.restore(&before.snapshot());
        after.push_untimed(5);
        assert_eq!(after.out(), ["it was 4"]);
    }
}

/// Counts numbers by their last digit, in a map that all subtasks have.
#[derive(Clone)]
struct Digits;

impl ProcessFunction for Digits {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = BroadcastState<u64, u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_broadcast("digits")
    }

    fn process(&mut self, number: u64, digits: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        *digits.get_mut(ctx).entry(number % 10).or_insert(0) += 1;
        let count = digits.get(ctx)[&(number % 10)];
        ctx.emit(count);
        Ok(())
    }
}

#[test]
fn a_broadcast_state_is_a_map_that_is_restored() {
    let mut harness = OperatorHarness::new(|numbers: Stream<u64>| numbers.process("digits", Digits));
    [1, 11, 2].into_iter().for_each(|number| harness.push_untimed(number));
    let snapshot = harness.snapshot();
    [21, 31].into_iter().for_each(|number| harness.push_untimed(number));
    assert_eq!(harness.out(), [1, 2, 1, 3, 4]);
    harness.restore(&snapshot);
    [41, 2].into_iter().for_each(|number| harness.push_untimed(number));
    assert_eq!(harness.out(), [3, 2]);
}

/// Says of each word how often it came within ten milliseconds of the one before.
macro_rules! again {
    ($name:ident, $ttl:expr) => {
        #[derive(Clone)]
        struct $name;

        impl ProcessFunction for $name {
            type Key = String;
            type In = String;
            type Out = u64;
            type State = Expiring<ValueState<u64>>;

            fn declare(states: &mut Declarations) -> Self::State {
                states.expiring($ttl).value("times")
            }

            fn process(&mut self, _: String, times: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
                let times = times.update(ctx, |times| *times.insert(times.unwrap_or(0) + 1))?;
                ctx.emit(times);
                Ok(())
            }
        }
    };
}

again!(AgainInEventTime, Ttl::event_time(LIFE));
again!(AgainInProcessingTime, Ttl::processing_time(LIFE));

const LIFE: Duration = Duration::from_millis(10);

#[test]
fn state_expires_in_event_time_also_after_a_restore() {
    let mut harness = OperatorHarness::new(|words: Stream<String>| {
        words.key_by(String::clone).process("again", AgainInEventTime)
    });
    let push = |harness: &mut OperatorHarness<String, u64>, at: i64| {
        harness.push("a".to_owned(), Timestamp(at));
        harness.out()
    };
    assert_eq!(push(&mut harness, 100), [1]);
    assert_eq!(push(&mut harness, 140), [2], "no watermark says that time has passed");
    harness.watermark(Timestamp(149));
    assert_eq!(push(&mut harness, 140), [3], "the watermark is later than the record: it lives until 159");
    let snapshot = harness.snapshot();
    harness.watermark(Timestamp(159));
    assert_eq!(push(&mut harness, 160), [1]);
    harness.restore(&snapshot);
    assert_eq!(push(&mut harness, 150), [4]);
    harness.watermark(Timestamp(160));
    let expired = harness.snapshot();
    harness.restore(&expired);
    assert_eq!(push(&mut harness, 155), [1], "what had expired has, whatever records come");
    harness.finish();
    let ended = harness.snapshot();
    harness.restore(&ended);
    assert_eq!(push(&mut harness, 161), [2], "the end of the input is no time");
}

#[test]
fn state_expires_in_processing_time_which_never_goes_back() {
    let mut harness = OperatorHarness::new(|words: Stream<String>| {
        words.key_by(String::clone).process("again", AgainInProcessingTime)
    });
    let push = |harness: &mut OperatorHarness<String, u64>, at: i64| {
        harness.processing_time(Timestamp(at));
        harness.push_untimed("a".to_owned());
        harness.out()
    };
    assert_eq!(push(&mut harness, 1000), [1]);
    assert_eq!(push(&mut harness, 1009), [2]);
    assert_eq!(push(&mut harness, 1019), [1]);
    assert_eq!(push(&mut harness, 1028), [2]);
    let snapshot = harness.snapshot();
    assert_eq!(push(&mut harness, 1038), [1]);
    harness.restore(&snapshot);
    assert_eq!(push(&mut harness, 5), [3], "a clock that is slow");
    assert_eq!(push(&mut harness, 1037), [4], "written at 1028, when the clock of the snapshot stood there");
    assert_eq!(push(&mut harness, 1047), [1]);
}

/// Notes at a timer that it has fired, and tells each record whether that is noted.
#[derive(Clone)]
struct Noted;

impl ProcessFunction for Noted {
    type Key = String;
    type In = String;
    type Out = bool;
    type State = Expiring<ValueState<u64>>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.expiring(Ttl::processing_time(LIFE)).value("noted")
    }

    fn process(&mut self, _: String, noted: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let is_noted = noted.get(ctx)?.is_some();
        ctx.emit(is_noted);
        let at = ctx.timestamp();
        ctx.timers().register(at)
    }

    fn on_timer(&mut self, _: Timestamp, noted: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        noted.set(ctx, 1)
    }
}

/// However long no record has come.
#[test]
fn timers_of_event_time_know_how_late_it_is_in_processing_time() {
    let mut harness =
        OperatorHarness::new(|words: Stream<String>| words.key_by(String::clone).process("noted", Noted));
    harness.processing_time(Timestamp(1000));
    harness.push("a".to_owned(), Timestamp(1));
    harness.processing_time(Timestamp(5000));
    harness.watermark(Timestamp(1));
    harness.processing_time(Timestamp(5009));
    harness.push("a".to_owned(), Timestamp(2));
    harness.processing_time(Timestamp(5010));
    harness.push("a".to_owned(), Timestamp(3));
    assert_eq!(harness.out(), [false, true, false]);
}

/// Registers a timer for each record and lets it echo.
#[derive(Clone)]
struct Alarm;

impl ProcessFunction for Alarm {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, at: u64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.timers().register(Timestamp(at as i64))
    }

    fn on_timer(&mut self, at: Timestamp, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(at.0 as u64);
        Ok(())
    }
}

#[test]
fn the_watermark_survives_a_restore() {
    let mut harness = quiet();
    let fresh = harness.snapshot();
    harness.watermark(Timestamp(20));
    let snapshot = harness.snapshot();
    harness.restore(&snapshot);
    harness.push("a".to_owned(), Timestamp(20));
    assert_eq!(harness.side_output(LATE), ["a"], "what was late would come in time");
    // The marks of those further up begin anew, and say nothing new.
    harness.watermark(Timestamp(10));
    assert_eq!(harness.last_mark(), None);
    harness.push("b".to_owned(), Timestamp(15));
    assert_eq!(harness.side_output(LATE), ["b"], "the watermark fell");
    harness.watermark(Timestamp(21));
    assert_eq!(harness.last_mark(), Some(Mark::Watermark(Timestamp(21))));
    harness.finish();
    let ended = harness.snapshot();
    for beginning in [fresh, ended] {
        harness.restore(&beginning);
        harness.push("c".to_owned(), Timestamp(5));
        assert_eq!(harness.side_output(LATE), [""; 0], "event time begins anew");
    }
}

#[test]
fn a_timer_behind_the_watermark_waits_for_the_next_rise_also_after_a_restore() {
    let mut harness =
        OperatorHarness::new(|times: Stream<u64>| times.key_by(|&at| at).process("alarm", Alarm));
    harness.watermark(Timestamp(50));
    harness.push_untimed(40);
    harness.push_untimed(60);
    let snapshot = harness.snapshot();
    harness.restore(&snapshot);
    for (watermark, fires) in [(45, vec![]), (50, vec![]), (51, vec![40]), (60, vec![60])] {
        harness.watermark(Timestamp(watermark));
        assert_eq!(harness.out(), fires, "at {watermark}");
    }
}

#[test]
fn many_timers_fire_in_slices() {
    let context = runtime_context(0, 4);
    let mut alarms = Process::new(Alarm, Keyed::Yes, &context).unwrap();
    let mut builder = BatchBuilder::default();
    for at in (0..10_u64).rev() {
        builder.push_keyed(at, None, KeyRef::new(&at.to_be_bytes(), context.max_parallelism));
    }
    assert!(alarms.process(&mut builder.build()).unwrap().main.is_none());
    let mut slices = Vec::new();
    loop {
        let (emitted, progress) = alarms.on_watermark(Timestamp(8)).unwrap();
        slices.extend(emitted.main.map(|mut out| out.records.typed::<u64>().as_slice().to_vec()));
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(slices, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
}
