//! Keyed state: an event waits in a map until its time has come, and then changes every state of its key.

use std::{fmt::Display, time::Duration};

use tidegate::prelude::*;
use tidegate_chaos_tests::events::{LONG, MIDDLE, QUIET, SHORT};

use crate::source::Event;

/// Nobody lives to see it.
const FAR: i64 = 1 << 50;

/// Keeps every kind of keyed state.
#[derive(Clone)]
pub(crate) struct Keyed;

/// A sum and how many were added.
#[derive(Clone)]
pub(crate) struct Mean;

impl Aggregate for Mean {
    type In = u64;
    type Accumulator = (u64, u64);
    type Out = u64;

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, (sum, parts): &mut (u64, u64), amount: u64) {
        (*sum, *parts) = (*sum + amount, *parts + 1);
    }

    fn result(&self, (sum, parts): &(u64, u64)) -> u64 {
        sum / parts
    }

    fn merge(&self, (sum, parts): &mut (u64, u64), other: (u64, u64)) {
        (*sum, *parts) = (*sum + other.0, *parts + other.1);
    }
}

pub(crate) struct Cells {
    /// Events whose time has not come: number and amount by time.
    pending: MapState<i64, (u64, u64)>,
    total: ReducingState<u64>,
    count: ValueState<u64>,
    list: ListState<u64>,
    digits: MapState<u64, u64>,
    most: ReducingState<u64>,
    mean: AggregatingState<Mean>,
    alarm: ValueState<i64>,
    short: Expiring<ValueState<u64>>,
    read: Expiring<ValueState<u64>>,
    tail: Expiring<ListState<u64>>,
    entries: Expiring<MapState<u64, u64>>,
    lately: Expiring<ReducingState<u64>>,
    average: Expiring<AggregatingState<Mean>>,
    long: Expiring<ValueState<u64>>,
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl ProcessFunction for Keyed {
    type Key = u32;
    type In = Event;
    type Out = String;
    type State = Cells;

    fn declare(states: &mut Declarations) -> Cells {
        let [short, middle, long] =
            [SHORT, MIDDLE, LONG].map(|millis| Ttl::event_time(Duration::from_millis(millis)));
        Cells {
            pending: states.map("pending"),
            total: states.reducing("total", |a, b| a + b),
            count: states.value("count"),
            list: states.list("list"),
            digits: states.map("digits"),
            most: states.reducing("most", u64::max),
            mean: states.aggregating("mean", Mean),
            alarm: states.value("alarm"),
            short: states.expiring(short).value("short"),
            read: states.expiring(middle.refreshed_by_reads()).value("read"),
            tail: states.expiring(middle).list("tail"),
            entries: states.expiring(middle).map("entries"),
            lately: states.expiring(middle).reducing("lately", u64::max),
            average: states.expiring(short).aggregating("average", Mean),
            long: states.expiring(long).value("long"),
        }
    }

    fn process(&mut self, event: Event, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        // In whatever order they come, a sum is a sum.
        cells.total.add(ctx, event.amount)?;
        cells.pending.put(ctx, &event.time, (event.number, event.amount))?;
        ctx.timers().register(Timestamp(event.time))?;
        ctx.timers().register_processing(Timestamp(FAR + i64::from(event.key)))
    }

    fn on_timer(&mut self, at: Timestamp, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        if let Some((number, amount)) = cells.pending.remove(ctx, &at.0)? {
            let line = step(number, amount, cells, ctx)?;
            ctx.emit(line);
        } else if cells.alarm.get(ctx)? == Some(at.0) {
            cells.alarm.clear(ctx)?;
            let count = cells.count.get(ctx)?.unwrap_or_default();
            ctx.emit(format!("alarm {} {} {count}", ctx.key(), at.0));
        } else {
            return Err(Error::internal(format!("a timer of key {} at {} that nobody set", ctx.key(), at.0)));
        }
        Ok(())
    }
}

/// Changes all states of a key, and says what it saw.
fn step(number: u64, amount: u64, cells: &Cells, ctx: &mut Context<'_, Keyed>) -> Result<String> {
    let mut line = format!("event {} {number}", ctx.key());
    let mut say = |what: &str, value: String| line.push_str(&format!(" {what}={value}"));
    let count = cells.count.get(ctx)?.unwrap_or_default() + 1;
    cells.count.set(ctx, count)?;
    say("count", count.to_string());
    lasting(number, amount, count, cells, ctx, &mut say)?;
    let alarm = ctx.timestamp().0 + QUIET;
    if let Some(earlier) = cells.alarm.replace(ctx, alarm)? {
        ctx.timers().delete(Timestamp(earlier))?;
    }
    ctx.timers().register(Timestamp(alarm))?;
    expiring(number, amount, count, cells, ctx, &mut say)?;
    Ok(line)
}

fn lasting(
    number: u64,
    amount: u64,
    count: u64,
    cells: &Cells,
    ctx: &mut Context<'_, Keyed>,
    say: &mut impl FnMut(&str, String),
) -> Result<()> {
    cells.list.append(ctx, amount)?;
    let list = cells.list.get(ctx)?;
    if list.len() >= 8 {
        let sum: u64 = list.iter().zip(1..).map(|(amount, place)| amount * place).sum();
        say("list", sum.to_string());
        if number.is_multiple_of(3) {
            cells.list.replace(ctx, list[6..].iter().copied())?
        } else {
            cells.list.clear(ctx)?
        }
    }
    cells.digits.update(ctx, &(amount % 10), |sum| *sum.get_or_insert(0) += amount)?;
    if amount.is_multiple_of(5) {
        say("removed", or_dash(cells.digits.remove(ctx, &((amount + 3) % 10))?));
    }
    if amount.is_multiple_of(7) {
        let mut shown = Vec::new();
        cells.digits.for_each(ctx, |digit, sum| shown.push(format!("{digit}:{sum}")))?;
        say("digits", shown.join(","));
    }
    if amount.is_multiple_of(31) {
        cells.digits.clear(ctx)?;
    }
    cells.most.add(ctx, amount)?;
    if count.is_multiple_of(16) {
        say("most", or_dash(cells.most.take(ctx)?));
    }
    cells.mean.add(ctx, amount)?;
    if count.is_multiple_of(4) {
        say("mean", or_dash(cells.mean.get(ctx)?));
    }
    if count.is_multiple_of(64) {
        cells.mean.clear(ctx)?;
    }
    Ok(())
}

fn expiring(
    number: u64,
    amount: u64,
    count: u64,
    cells: &Cells,
    ctx: &mut Context<'_, Keyed>,
    say: &mut impl FnMut(&str, String),
) -> Result<()> {
    say("short", or_dash(cells.short.replace(ctx, number)?));
    if amount.is_multiple_of(2) {
        say("read", or_dash(cells.read.get(ctx)?));
    } else {
        let taken = cells.read.take(ctx)?;
        if taken.is_none() {
            cells.read.set(ctx, number)?;
        }
        say("taken", or_dash(taken));
    }
    cells.tail.append(ctx, number)?;
    let tail = cells.tail.get(ctx)?;
    say("tail", format!("{}:{}", tail.len(), tail.iter().sum::<u64>()));
    if tail.len() > 40 {
        cells.tail.replace(ctx, tail[tail.len() - 10..].iter().copied())?;
    }
    cells.entries.put(ctx, &(amount % 16), number)?;
    if amount.is_multiple_of(9) {
        say("gone", or_dash(cells.entries.remove(ctx, &((amount + 5) % 16))?));
    }
    if count.is_multiple_of(3) {
        let (mut len, mut sum) = (0_u64, 0);
        cells.entries.for_each(ctx, |digit, number| (len, sum) = (len + 1, sum + digit * number))?;
        say("entries", format!("{len}:{sum}"));
    }
    if amount.is_multiple_of(57) {
        cells.entries.clear(ctx)?;
    }
    cells.lately.add(ctx, amount)?;
    say("lately", or_dash(cells.lately.get(ctx)?));
    cells.average.add(ctx, amount)?;
    say("average", or_dash(cells.average.get(ctx)?));
    let long = cells.long.get(ctx)?.unwrap_or_default() + 1;
    cells.long.set(ctx, long)?;
    say("long", long.to_string());
    Ok(())
}
