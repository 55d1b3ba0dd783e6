//! A sink that takes 100 records a second behind a source that offers millions: little is under way, checkpoints pass,
//! and the job can be cancelled at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use checkpoint::coordinator::CheckpointOutcome;
use env::Env;
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    cluster::{attempt::Ask, status::JobStatus},
    prelude::*,
    record::Batch,
};

use crate::{
    numbers::Numbers,
    world::{simulate, start, with_settings},
};

/// Records a second.
const RATE: u64 = 100;
/// Records between source and sink at the most.
const LIMIT: u64 = 6_144;

#[derive(Clone, Default)]
pub(crate) struct Slow {
    taken: Arc<AtomicU64>,
}

pub(crate) struct SlowWriter {
    taken: Arc<AtomicU64>,
    env: Env,
}

impl Sink for Slow {
    type In = u64;
    type Writer = SlowWriter;

    async fn writer(&self, context: &SinkContext) -> Result<SlowWriter> {
        Ok(SlowWriter { taken: Arc::clone(&self.taken), env: context.env.clone() })
    }
}

impl PlainWriter for SlowWriter {
    type In = u64;

    async fn write(&mut self, mut batch: Batch<u64>) -> Result<()> {
        while batch.next().is_some() {
            self.env.sleep(Duration::from_secs(1) / RATE as u32).await;
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How source and sink hang together.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Chained,
    Apart,
    Keyed,
}

fn job(shape: Shape, batch: usize, source: &Numbers, sink: &Slow) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "10s"),
        ("batch.records", &*batch.to_string()),
    ];
    let job = with_settings(Job::new("slow"), &settings).unwrap();
    let numbers = job.source("numbers", source.clone());
    match shape {
        Shape::Chained => drop(numbers.sink("slow", sink.clone())),
        Shape::Apart => drop(numbers.sink("slow", sink.clone()).disable_chaining()),
        Shape::Keyed => {
            let counted = numbers.key_by(|number| number % 10).count("count");
            drop(counted.map(|(_, count)| count).sink("slow", sink.clone()));
        }
    }
    job
}

fn little_is_under_way(shape: Shape, batch: usize) {
    simulate(async |sim, env| {
        let (source, sink) = (Numbers::endless(1), Slow::default());
        let emitted = source.emitted();
        let (_process, handle) = start(sim, job(shape, batch, &source, &sink)).await.unwrap();
        let mut most = 0;
        for _ in 0..240 {
            env.sleep(Duration::from_secs(1)).await;
            let under_way = emitted.load(Ordering::Relaxed) - sink.taken.load(Ordering::Relaxed);
            most = most.max(under_way);
        }
        assert!(most <= LIMIT, "{shape:?}, batches of {batch}: {most} records are under way");
        assert!(sink.taken.load(Ordering::Relaxed) > 200 * RATE, "the sink is kept waiting");

        let view = handle.control().view();
        let allowed = Duration::from_secs(most / RATE + 2);
        let completed: Vec<_> = view
            .checkpoints
            .history
            .iter()
            .filter(|one| one.outcome == CheckpointOutcome::Completed)
            .filter_map(|one| one.duration)
            .collect();
        assert!(completed.len() >= 3, "{shape:?}, batches of {batch}: {:?}", view.checkpoints.history);
        assert!(completed.iter().all(|took| *took <= allowed), "{allowed:?} are allowed: {completed:?}");
        assert_eq!(view.checkpoints.failed, 0);

        let asked = env.now();
        handle.control().ask(Ask::Cancel).await.unwrap();
        let result = handle.join().await.unwrap();
        assert_eq!(result.status, JobStatus::Cancelled);
        let took = env.now().since(asked);
        assert!(took <= Duration::from_secs(1), "cancelling took {took:?}");
    });
}

#[test]
fn chained_with_the_source() {
    for batch in [1, 100, 1_024] {
        little_is_under_way(Shape::Chained, batch);
    }
}

#[test]
fn behind_a_channel() {
    for batch in [1, 100, 1_024] {
        little_is_under_way(Shape::Apart, batch);
    }
}

#[test]
fn behind_a_keyed_exchange() {
    for batch in [1, 100, 1_024] {
        little_is_under_way(Shape::Keyed, batch);
    }
}
