//! A process function with every kind of keyed state and timer, whose output does not depend on the order in which
//! records arrive: each number comes out once, and each key once with its count.

use std::time::Duration;

use statebackend::{ListState, MapState, ValueState};
use tidegate_engine::prelude::*;

use crate::world::{Kind, Row};

/// Every fifth number, read from the side.
pub(crate) const FIFTHS: OutputTag<Row> = OutputTag::new("fifths");

/// Keeps numbers by event-time window, every third one until some processing time has gone by.
#[derive(Clone)]
pub(crate) struct Windows;

pub(crate) struct Cells {
    seen: ValueState<u64>,
    windows: MapState<i64, Vec<u64>>,
    held: ListState<u64>,
    fifths: SideOutput<Row>,
}

/// The length of a window, in milliseconds of event time.
const WINDOW: i64 = 100;
const HOLD: Duration = Duration::from_millis(70);

impl Windows {
    fn release(cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        let key = *ctx.key();
        for number in cells.held.get(ctx)? {
            ctx.emit(Row(Kind::Held, key, number));
        }
        cells.held.clear(ctx)
    }
}

impl ProcessFunction for Windows {
    type Key = u64;
    type In = u64;
    type Out = Row;
    type State = Cells;

    fn declare(states: &mut Declarations) -> Cells {
        Cells {
            seen: states.value("seen"),
            windows: states.map("windows"),
            held: states.list("held"),
            fifths: states.side_output(FIFTHS),
        }
    }

    fn process(&mut self, number: u64, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        let seen = cells.seen.get(ctx)?.unwrap_or(0);
        cells.seen.set(ctx, seen + 1)?;
        ctx.timers().register(Timestamp::MAX)?;
        if number.is_multiple_of(5) {
            let key = *ctx.key();
            ctx.emit_to(cells.fifths, Row(Kind::Fifth, key, number));
        }
        if number.is_multiple_of(3) {
            cells.held.append(ctx, number)?;
            let at = ctx.processing_time() + HOLD;
            return ctx.timers().register_processing(at);
        }
        let end = (ctx.timestamp().0 / WINDOW + 1) * WINDOW;
        let mut window = cells.windows.get(ctx, &end)?.unwrap_or_default();
        window.push(number);
        cells.windows.put(ctx, &end, window)?;
        // One timer more than is needed, and taken back.
        ctx.timers().register(Timestamp(end + 1))?;
        ctx.timers().delete(Timestamp(end + 1))?;
        ctx.timers().register(Timestamp(end))
    }

    fn on_timer(&mut self, at: Timestamp, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        let key = *ctx.key();
        if at == Timestamp::MAX {
            Self::release(cells, ctx)?;
            let seen = cells.seen.take(ctx)?.unwrap_or(0);
            ctx.emit(Row(Kind::Seen, key, seen));
            return Ok(());
        }
        let window = cells.windows.remove(ctx, &at.0)?.unwrap_or_default();
        if window.is_empty() {
            return Err(Error::internal(format!("key {key}: a timer without a window at {at}")));
        }
        for number in window {
            ctx.emit(Row(Kind::Windowed, key, number));
        }
        Ok(())
    }

    fn on_processing_timer(
        &mut self,
        _at: Timestamp,
        cells: &Cells,
        ctx: &mut Context<'_, Self>,
    ) -> Result<()> {
        Self::release(cells, ctx)
    }
}
