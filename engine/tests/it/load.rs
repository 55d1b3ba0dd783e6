//! How tasks spend their time, as `/metrics` shows it: all of a second, split into busy, held back and idle.

use std::time::Duration;

use env::Env;
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    prelude::*,
    record::Batch,
};

use crate::{
    numbers::Numbers,
    world::{run, simulate, start, with_settings},
};

/// A sink for which a record takes this long.
#[derive(Clone)]
pub(crate) struct Paced(pub(crate) Duration);

pub(crate) struct PacedWriter {
    env: Env,
    each: Duration,
}

impl Sink for Paced {
    type In = u64;
    type Writer = PacedWriter;

    async fn writer(&self, context: &SinkContext) -> Result<PacedWriter> {
        Ok(PacedWriter { env: context.env.clone(), each: self.0 })
    }
}

impl PlainWriter for PacedWriter {
    type In = u64;

    async fn write(&mut self, mut batch: Batch<u64>) -> Result<()> {
        while batch.next().is_some() {
            self.env.sleep(self.each).await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Milliseconds of each second: busy, held back, idle.
type Times = [u64; 3];

fn times(page: &str, chain: u32) -> Times {
    ["busy", "back_pressured", "idle"].map(|name| {
        let labels = format!("{{job=\"paced\",chain=\"{chain}\",subtask=\"0\"}} ");
        let line = format!("\ntidegate_task_{name}_time_ms_per_second{labels}");
        let value = page.split_once(&line).unwrap_or_else(|| panic!("no {line:?} in {page}")).1;
        value.lines().next().unwrap().parse().unwrap()
    })
}

/// Runs a source and, in a task of its own, a sink; gives their times after a while, and after the job's end.
fn times_of(source: Numbers, sink: Paced) -> ([Times; 2], [Times; 2]) {
    simulate(async |sim, env| {
        let job = with_settings(Job::new("paced"), &[]).unwrap();
        drop(job.source("numbers", source).sink("paced", sink).disable_chaining());
        let (_process, handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(60)).await;
        let metrics = handle.control().metrics().clone();
        let both = || [0, 1].map(|chain| times(&metrics.encode(), chain));
        let running = both();
        handle.control().ask(tidegate_engine::cluster::attempt::Ask::Cancel).await.unwrap();
        handle.join().await.unwrap();
        (running, both())
    })
}

#[test]
fn behind_a_slow_sink_the_source_is_held_back() {
    let (running, ended) = times_of(Numbers::endless(1), Paced(Duration::from_secs(1)));
    assert_eq!(running, [[0, 1_000, 0], [1_000, 0, 0]]);
    assert_eq!(ended, [[0; 3]; 2], "a task that is gone does nothing");
}

#[test]
fn behind_a_slow_source_all_is_idle() {
    let slow = Numbers::endless(1).paced(1, Duration::from_secs(10));
    let (running, _) = times_of(slow, Paced(Duration::ZERO));
    assert_eq!(running, [[0, 0, 1_000]; 2]);
}

#[test]
fn a_sink_may_be_busy_for_a_part_of_its_time() {
    let steady = Numbers::endless(1).paced(1, Duration::from_millis(100));
    let ([source, sink], _) = times_of(steady, Paced(Duration::from_millis(30)));
    assert_eq!(source, [0, 0, 1_000]);
    assert!(sink[0].abs_diff(300) <= 30 && sink[1] == 0, "{sink:?}");
    assert_eq!(sink.iter().sum::<u64>(), 1_000);
}

#[test]
fn a_source_keeps_to_the_records_per_second() {
    // 3,000 records at 300 a second: a second's worth comes before nine more seconds have passed, and never earlier.
    for parallelism in ["1", "3"] {
        simulate(async |sim, env| {
            let settings =
                [("source.records-per-second", "300"), ("parallelism", parallelism), ("batch.records", "64")];
            let job = with_settings(Job::new("paced"), &settings).unwrap();
            drop(job.source("numbers", Numbers::new(6, 500)).sink("paced", Paced(Duration::ZERO)));
            let began = env.now();
            let ended = run(sim, job).await.unwrap();
            let took = env.now().since(began);
            assert_eq!(ended.records, 3_000);
            let about_ten = Duration::from_millis(9_900)..Duration::from_millis(10_300);
            assert!(about_ten.contains(&took), "at parallelism {parallelism}: {took:?}");
        });
    }
}
