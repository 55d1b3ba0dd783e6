//! What the operators behind closures and rich functions do with records, state and failures, through the harness: as
//! users see it.
#![allow(clippy::unwrap_used)]

use types::ErrorKind;

use super::{apply::Apply, operator::Operator, update};
use crate::{
    api::function::FromFn,
    prelude::*,
    record::{Batch, BatchBuilder},
    testing::{OperatorHarness, ends::runtime_context},
};

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

/// Calls an operator until its input is empty; returns how many records each call emitted.
fn drive<T: Data>(operator: &mut dyn Operator, mut batch: Batch<T>) -> Vec<usize> {
    let mut emitted = Vec::new();
    while !batch.is_empty() {
        emitted.push(operator.process(&mut batch).unwrap().main.map_or(0, |out| out.records.len()));
    }
    emitted
}

#[test]
fn a_call_emits_about_a_batch() {
    let context = runtime_context(0, 4);
    let thrice = |number: u64, out: &mut Collector<'_, u64>| out.extend([number; 3]);
    let mut apply = Apply::new(FromFn::new(thrice), &context);
    assert_eq!(drive(&mut apply, Batch::from(vec![1_u64; 5])), [6, 6, 3]);

    let mut builder = BatchBuilder::default();
    for number in 0..10_u64 {
        builder.push_keyed(number, None, statebackend::KeyRef::new(&[1], context.max_parallelism));
    }
    let (declared, value) = update::declare::<u8, u64>().unwrap();
    let sum =
        |sum: &mut Option<u64>, number: u64, _: statebackend::KeyRef<'_>, out: &mut Collector<'_, u64>| {
            let sum = sum.get_or_insert(0);
            *sum += number;
            out.emit(*sum);
            Ok(())
        };
    let mut update = update::Update::new(std::sync::Arc::new(sum), declared, value, &context);
    assert_eq!(drive(&mut update, builder.build()), [4, 4, 2]);
}
