//! Alerts for sensors too hot for ten seconds of event time; late and unreadable lines stand apart. Try `nc -lk 7777` and
//! `cargo run --example socket_alerts` (SENSORS names another HOST:PORT), then write lines `sensor milliseconds degrees`.

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

#[expect(clippy::disallowed_methods, reason = "a program of a user reads its own environment")]
fn main() -> ExitCode {
    let job = Job::new("socket-alerts");
    let address = std::env::var("SENSORS").unwrap_or("127.0.0.1:7777".into());
    let readings = job.source("lines", SocketSource::lines(address)).map(|line| {
        let mut words = line.split_whitespace();
        let mut next = || words.next();
        let mut reading = || Some((next()?.into(), Timestamp(next()?.parse().ok()?), next()?.parse().ok()?));
        reading().unwrap_or((line, Timestamp::MIN, 0.0))
    });
    let in_order = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1));
    let sensors = readings.timestamps(|it| it.1).watermarks(in_order).key_by(|it| it.0.clone());
    let alerts = sensors.process("too-hot", TooHot);
    alerts.side_output(LATE).map(|it| format!("late or unreadable: {it:?}")).sink("late", PrintSink::new());
    alerts.sink("alerts", PrintSink::new());
    job.main()
}
