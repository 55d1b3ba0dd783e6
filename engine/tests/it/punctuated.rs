//! Watermarks that records carry, through a whole job: each comes behind its record and before the next one, and none is
//! forgotten by a restart.

use std::{marker::PhantomData, time::Duration};

use env::{Env, sim::Control};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Death, Kind, Row, live, run, simulate, start, with_settings},
};

const NUMBERS: u64 = 100;

/// Says of each number how many watermarks came before it.
#[derive(Clone, Default)]
struct WatermarksSeen<K>(PhantomData<fn() -> K>);

impl<K: Key> ProcessFunction for WatermarksSeen<K> {
    type Key = K;
    type In = u64;
    type Out = Row;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, number: u64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let seen = ctx.watermark().0.max(-1) + 1;
        ctx.emit(Row(Kind::Seen, number, seen.try_into().expect("it is 0 or more")));
        Ok(())
    }
}

#[test]
fn a_punctuated_watermark_comes_behind_the_record_that_carries_it() {
    // Records come alone, and many in one batch.
    for at_once in [1, 10] {
        let ledger = Ledger::default();
        simulate(async |sim, _env| {
            let settings = [("checkpoints.url", "/checkpoints")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let each = WatermarkStrategy::punctuated(|&number: &u64| Some(Timestamp(number as i64)));
            job.source("numbers", Numbers::new(1, NUMBERS).paced(at_once, Duration::from_millis(10)))
                .watermarks(each)
                .process("seen", WatermarksSeen::default())
                .sink("out", ledger.clone());
            assert_eq!(run(sim, job).await.unwrap().how, "finished");
        });
        let expected = (0..NUMBERS).map(|number| Row(Kind::Seen, number, number));
        assert_eq!(ledger.committed(), counted(expected), "{at_once} at once");
    }
}

/// A number in so many carries a watermark.
const EVERY: u64 = 7;

/// One number every 10 ms, the watermarks seen by an operator in the source's chain or behind an exchange.
fn job(parallelism: u32, keyed: bool, ledger: &Ledger<Row>) -> Job {
    job_over(Numbers::new(1, NUMBERS), parallelism, keyed, ledger)
}

fn job_over(numbers: Numbers, parallelism: u32, keyed: bool, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "50ms"),
        ("parallelism", &*parallelism.to_string()),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let some = |&number: &u64| number.is_multiple_of(EVERY).then_some(Timestamp(number as i64));
    let numbers = job
        .source("numbers", numbers.paced(1, Duration::from_millis(10)))
        .watermarks(WatermarkStrategy::punctuated(some));
    let seen = match keyed {
        true => numbers.key_by(|number| number % 5).process("seen", WatermarksSeen::default()),
        false => numbers.process("seen", WatermarksSeen::default()),
    };
    seen.sink("out", ledger.clone());
    job
}

/// What a job without a failure says of a number.
fn expected(number: u64) -> Row {
    Row(Kind::Seen, number, number.checked_sub(1).map_or(0, |before| before / EVERY * EVERY + 1))
}

/// Kills the job so many milliseconds after its start.
async fn killed_after(millis: u64, job: Job, (sim, observer): (&Control, &Env)) {
    let (process, env) = sim.process("job");
    let life = observer.timeout(Duration::from_millis(millis), live(job, &env, &process)).await;
    assert!(life.is_none(), "it ended by itself");
    process.kill();
}

async fn finishes(job: Job, sim: &Control) {
    let (process, env) = sim.process("job");
    let Death::Ended(ended) = live(job, &env, &process).await else { panic!("it was killed") };
    assert_eq!(ended.unwrap().how, "finished");
}

#[test]
fn a_restart_forgets_no_watermark_at_any_parallelism() {
    for keyed in [false, true] {
        for parallelisms in [[1, 1, 1], [1, 2, 3], [3, 2, 1]] {
            // The restarts come at other distances from the last number that carried a watermark.
            for first in [230, 270] {
                let ledger = Ledger::default();
                simulate(async |sim, env| {
                    let [before, between, after] = parallelisms.map(|it| job(it, keyed, &ledger));
                    killed_after(first, before, (sim, &env)).await;
                    killed_after(280, between, (sim, &env)).await;
                    finishes(after, sim).await;
                });
                let case = format!("keyed: {keyed}, {parallelisms:?}, killed after {first} ms");
                assert_eq!(ledger.committed(), counted((0..NUMBERS).map(expected)), "{case}");
            }
        }
    }
}

#[test]
fn subtasks_that_have_nothing_to_read_take_no_watermark_back() {
    let ledger = Ledger::default();
    let endless = |parallelism| job_over(Numbers::endless(1), parallelism, false, &ledger);
    simulate(async |sim, env| {
        for parallelism in [2, 2, 3] {
            killed_after(280, endless(parallelism), (sim, &env)).await;
        }
        let (_process, handle) = start(sim, endless(2)).await.unwrap();
        env.sleep(Duration::from_millis(200)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        handle.join().await.unwrap();
    });
    let rows = ledger.committed();
    assert!(rows.len() > 60, "{}", rows.len());
    assert_eq!(rows, counted((0..rows.len() as u64).map(expected)));
}

#[test]
fn event_time_begins_anew_after_a_drain() {
    for keyed in [false, true] {
        let ledger = Ledger::default();
        simulate(async |sim, env| {
            let (process, handle) = start(sim, job(2, keyed, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(330)).await;
            handle.control().ask(Ask::Stop { drain: true, savepoint: None }).await.unwrap();
            handle.join().await.unwrap();
            process.kill();
            finishes(job(1, keyed, &ledger), sim).await;
        });
        let rows = ledger.committed();
        assert!(rows.keys().map(|row| row.1).eq(0..NUMBERS), "{rows:?}");
        let new: Vec<_> = rows.keys().filter(|row| **row != expected(row.1)).collect();
        // Until the first number that carries a watermark again.
        assert!(new.iter().all(|row| row.2 == 0) && (1..EVERY as usize).contains(&new.len()), "{new:?}");
    }
}
