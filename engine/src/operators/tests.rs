//! What every operator does with records, time and failures, through the harness: as users see it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use types::ErrorKind;

use crate::{prelude::*, record::Mark, testing::OperatorHarness};

type Sale = (String, i64);

fn sale(of: &str, amount: i64) -> Sale {
    (of.to_owned(), amount)
}

/// Runs `build` over sales of two keys and compares what comes out with `expect`.
fn check<Out: Data + PartialEq + std::fmt::Debug>(
    build: impl FnOnce(Stream<Sale>) -> Stream<Out>,
    expect: impl IntoIterator<Item = Out>,
) {
    let mut harness = OperatorHarness::new(build);
    for (index, (of, amount)) in [("a", 3), ("b", 5), ("a", 1), ("a", 4), ("b", 5)].into_iter().enumerate() {
        harness.push(sale(of, amount), Timestamp(index as i64));
    }
    assert_eq!(harness.out(), expect.into_iter().collect::<Vec<_>>());
}

fn by_name(sales: Stream<Sale>) -> KeyedStream<String, Sale> {
    sales.key_by(|(of, _)| of.clone())
}

fn totals(amounts: [i64; 5]) -> impl Iterator<Item = (String, i64)> {
    ["a", "b", "a", "a", "b"].into_iter().map(str::to_owned).zip(amounts)
}

#[test]
fn stateless_functions() {
    check(|sales| sales.map(|(_, amount)| amount * 2), [6, 10, 2, 8, 10]);
    check(|sales| sales.filter(|(of, _)| of == "b").map(|(_, amount)| amount), [5, 5]);
    check(|sales| sales.flat_map(|(_, amount)| 0..amount % 3), [0, 1, 0, 0, 0, 1]);
    check(
        |sales| {
            sales.flat_map_with(|(_, amount), out: &mut Collector<'_, i64>| {
                if amount > 3 {
                    out.emit(amount);
                    out.emit(-amount);
                }
            })
        },
        [5, -5, 4, -4, 5, -5],
    );
}

#[test]
fn rolling_aggregates_emit_after_each_record() {
    check(
        |sales| by_name(sales).fold("op", 100, |sum, (_, amount)| *sum += amount),
        totals([103, 105, 104, 108, 110]),
    );
    check(|sales| by_name(sales).sum("op", |sale| sale.1), totals([3, 5, 4, 8, 10]));
    check(|sales| by_name(sales).min("op", |sale| sale.1), totals([3, 5, 1, 1, 5]));
    check(|sales| by_name(sales).max("op", |sale| sale.1), totals([3, 5, 3, 4, 5]));
    check(|sales| by_name(sales).count("op").map(|(of, count)| (of, count as i64)), totals([1, 1, 2, 3, 2]));
}

#[test]
fn min_by_and_max_by_keep_the_first_of_equals() {
    let numbered = |sales: Stream<Sale>, by: i64| {
        sales
            .map_with_index()
            .key_by(|(_, (of, _))| of.clone())
            .max_by("op", move |(_, (_, amount))| amount * by)
    };
    check(|sales| numbered(sales, 1).map(|(index, _)| index), [0, 1, 0, 3, 1]);
    check(|sales| numbered(sales, -1).map(|(index, _)| index), [0, 1, 2, 2, 1]);
    check(|sales| by_name(sales).min_by("op", |sale| sale.1), totals([3, 5, 1, 1, 5]));
}

/// Numbers records in the order of arrival.
trait WithIndex {
    fn map_with_index(self) -> Stream<(u64, Sale)>;
}

impl WithIndex for Stream<Sale> {
    fn map_with_index(self) -> Stream<(u64, Sale)> {
        self.key_by(|_| 0_u8).map_with_state("index", |next: &mut Option<u64>, sale| {
            let index = next.unwrap_or(0);
            *next = Some(index + 1);
            (index, sale)
        })
    }
}

#[test]
fn reduce_joins_records() {
    check(
        |sales| by_name(sales).reduce("op", |(of, sum), (_, amount)| (of, sum * 10 + amount)),
        totals([3, 5, 31, 314, 55]),
    );
}

#[test]
fn functions_with_state_may_drop_it() {
    // Emits the sum of every two sales of a key.
    let pairs = |first: &mut Option<i64>, (_, amount): Sale| match first.take() {
        Some(first) => Some(first + amount),
        None => {
            *first = Some(amount);
            None
        }
    };
    check(move |sales| by_name(sales).flat_map_with_state("op", pairs), [4, 10]);
}

#[test]
fn key_by_ref_is_key_by() {
    check(|sales| sales.key_by_ref(|(of, _)| of).sum("op", |sale| sale.1), totals([3, 5, 4, 8, 10]));
}

#[test]
fn results_carry_the_time_of_their_record() {
    let mut harness =
        OperatorHarness::new(|sales| by_name(sales).sum("op", |sale| sale.1).map(|(_, sum)| sum));
    harness.push(sale("a", 1), Timestamp(7));
    harness.push_untimed(sale("a", 1));
    assert_eq!(harness.out_with_times(), [(1, Some(Timestamp(7))), (2, None)]);
}

#[derive(Clone, Default)]
struct Noisy {
    seen: Option<Accumulator>,
}

impl RichFunction for Noisy {
    type In = i64;
    type Out = String;

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.seen = Some(context.accumulators.get("seen"));
        Ok(())
    }

    fn call(&mut self, record: i64, out: &mut Collector<'_, String>) -> Result<()> {
        if record < 0 {
            return Err(Error::user("below zero"));
        }
        self.seen.as_ref().unwrap().add(1);
        out.emit(record.to_string());
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.seen.as_ref().unwrap().add(100);
        Ok(())
    }
}

#[test]
fn rich_functions_live_from_open_to_close() {
    let mut harness =
        OperatorHarness::new(|numbers: Stream<i64>| numbers.rich(Noisy::default()).name("noisy"));
    harness.push(1, Timestamp(0));
    let error = harness.try_push(-1, None).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::User, "operator noisy: below zero"));
    harness.finish();
    assert_eq!(harness.out(), ["1"]);
    assert_eq!(harness.accumulators()["seen"], 101);
}

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

#[test]
fn a_renamed_operator_takes_over_its_state() {
    let count = |uid: &'static str| {
        move |words: Stream<String>| {
            words.key_by(String::clone).count(uid).formerly("old").map(|(_, count)| count)
        }
    };
    let mut old = OperatorHarness::new(|words: Stream<String>| {
        words.key_by(String::clone).count("old").map(|(_, count)| count)
    });
    old.push_untimed("a".to_owned());
    let mut new = OperatorHarness::new(count("new"));
    new.restore(&old.snapshot());
    new.push_untimed("a".to_owned());
    let again = new.snapshot();
    new.restore(&again);
    new.push_untimed("a".to_owned());
    assert_eq!(new.out(), [3]);
}

#[test]
fn state_of_another_shape_is_refused() {
    let mut old = OperatorHarness::new(|words: Stream<String>| words.key_by(String::clone).count("op"));
    old.push_untimed("a".to_owned());
    let mut new = OperatorHarness::new(|words: Stream<String>| {
        words.key_by(String::clone).fold("op", String::new(), |text, word| text.push_str(&word))
    });
    let error = new.try_restore(&old.snapshot()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IncompatibleState);
    assert!(error.message().starts_with("operator op: "), "{error}");
}

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
