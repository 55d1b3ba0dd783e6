//! Alerts for sensors that stay too hot for ten seconds of event time; late readings go to a side output. Try `nc -lk 7777`
//! and `cargo run --example socket_alerts`, then write lines `sensor milliseconds degrees`.

use std::{process::ExitCode, time::Duration};
use tidegate::prelude::*;

/// Sensor, event time, degrees.
type Reading = (String, Timestamp, f64);
const LATE: OutputTag<Reading> = OutputTag::new("late");

#[derive(Clone)]
struct TooHot;

impl ProcessFunction for TooHot {
    type Key = String;
    type In = Reading;
    type Out = String;
    /// When the alert is due, empty while the sensor is cool; the side output.
    type State = (ValueState<Timestamp>, SideOutput<Reading>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.value("due"), states.side_output(LATE))
    }

    fn process(&mut self, it: Reading, (due, late): &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        if it.1 <= ctx.watermark() {
            ctx.emit_to(*late, it);
        } else if it.2 <= 80.0 {
            due.take(ctx)?.map_or(Ok(()), |at| ctx.timers().delete(at))?;
        } else if due.get(ctx)?.is_none() {
            due.set(ctx, it.1 + Duration::from_secs(10))?;
            ctx.timers().register(it.1 + Duration::from_secs(10))?;
        }
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, (due, _): &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(format!("{} has been too hot for ten seconds at {at}", ctx.key()));
        due.clear(ctx)
    }
}

fn main() -> ExitCode {
    let job = Job::new("socket-alerts");
    let alerts = job
        .source("lines", SocketSource::lines("127.0.0.1:7777"))
        .flat_map(|line| reading(&line))
        .timestamps(|(_, at, _)| *at)
        .watermarks(WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1)))
        .key_by(|(sensor, ..)| sensor.clone())
        .process("too-hot", TooHot);
    alerts.side_output(LATE).map(|late| format!("too late: {late:?}")).sink("late", PrintSink::new());
    alerts.sink("alerts", PrintSink::new());
    job.main()
}

fn reading(line: &str) -> Option<Reading> {
    let mut fields = line.split_whitespace();
    Some((fields.next()?.into(), Timestamp(fields.next()?.parse().ok()?), fields.next()?.parse().ok()?))
}
