//! State that gets or loses a time to live while the job is down: what it had lives on from the restore, or for ever, and what had
//! expired stays away; at another parallelism, with another backend.

use std::{collections::BTreeSet, time::Duration};

use env::{Env, sim::Control};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

/// Numbers are keys of their own, 10 ms apart in event time.
const KEYS: u64 = 600;
const TTL: Duration = Duration::from_millis(40);
/// Later than every number.
const END: Timestamp = Timestamp(10 * KEYS as i64);

fn numbers() -> Numbers {
    Numbers::new(1, KEYS).paced(5, Duration::from_millis(10))
}

/// Writes each number under its key, and looks at the end whether it is there.
#[derive(Clone)]
struct Forever;

#[derive(Clone)]
struct ForAWhile;

macro_rules! remembering {
    ($name:ident, $handle:ty, |$states:ident| $declare:expr) => {
        impl ProcessFunction for $name {
            type Key = u64;
            type In = u64;
            type Out = Row;
            type State = $handle;

            fn declare($states: &mut Declarations) -> $handle {
                $declare
            }

            fn process(&mut self, number: u64, kept: &$handle, ctx: &mut Context<'_, Self>) -> Result<()> {
                kept.put(ctx, &1, number)?;
                ctx.timers().register(END)
            }

            fn on_timer(
                &mut self,
                _at: Timestamp,
                kept: &$handle,
                ctx: &mut Context<'_, Self>,
            ) -> Result<()> {
                if kept.contains(ctx, &1)? {
                    let key = *ctx.key();
                    ctx.emit(Row(Kind::Held, key, 1));
                }
                Ok(())
            }
        }
    };
}

remembering!(Forever, MapState<u64, u64>, |states| states.map("kept"));
remembering!(ForAWhile, Expiring<MapState<u64, u64>>, |states| {
    states.expiring(Ttl::event_time(TTL)).map("kept")
});

fn job<F>(function: F, watermarks: bool, (parallelism, backend): (&str, &str), ledger: &Ledger<Row>) -> Job
where
    F: ProcessFunction<Key = u64, In = u64, Out = Row> + Clone,
{
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("parallelism", parallelism),
        ("restart", "none"),
        ("state.backend", backend),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let mut numbers = job.source("numbers", numbers());
    if watermarks {
        numbers = numbers.watermarks(WatermarkStrategy::monotonous());
    }
    numbers.key_by(|number| *number).process("remember", function).sink("out", ledger.clone());
    job
}

/// Runs the first job up to a checkpoint half way, and the second to the end; the keys that are there then.
async fn held(sim: &Control, env: &Env, first: Job, second: Job, ledger: &Ledger<Row>) -> BTreeSet<u64> {
    let (process, handle) = start(sim, first).await.unwrap();
    env.sleep(Duration::from_millis(650)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    process.kill();
    run(sim, second).await.unwrap();
    ledger.committed().into_keys().map(|Row(_, key, _)| key).collect()
}

const BEFORE: (&str, &str) = ("2", "filesystem");
const AFTER: (&str, &str) = ("3", "sorted-map");

#[test]
fn state_that_gets_a_ttl_lives_on_from_the_restore() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let (first, second) = (job(Forever, true, BEFORE, &ledger), job(ForAWhile, true, AFTER, &ledger));
        let held = held(sim, &env, first, second, &ledger).await;
        // What was written before the restore has expired long since, as what was written after it.
        let expected = (0..KEYS).filter(|key| Timestamp(10 * *key as i64) + TTL > END);
        assert_eq!(held, expected.collect());
    });
}

#[test]
fn state_that_loses_its_ttl_keeps_what_lived() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let (first, second) = (job(ForAWhile, true, BEFORE, &ledger), job(Forever, true, AFTER, &ledger));
        let held = held(sim, &env, first, second, &ledger).await;
        let oldest = *held.first().unwrap();
        assert_eq!(held, (oldest..KEYS).collect(), "all that lived and all that came after it");
        assert!((100..KEYS * 2 / 3).contains(&oldest), "what had expired is there: from {oldest} on");
    });
}

#[test]
fn without_a_watermark_there_is_no_event_time_to_live_on_from() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let (process, handle) = start(sim, job(Forever, false, BEFORE, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        process.kill();
        let error = run(sim, job(ForAWhile, true, AFTER, &ledger)).await.unwrap_err();
        let texts = ["operator remember", "state \"kept\"", "event-time ttl", "processing-time ttl"];
        assert_says(&error, ErrorKind::IncompatibleState, &texts);
        run(sim, job(Forever, false, BEFORE, &ledger)).await.unwrap();
    });
}
