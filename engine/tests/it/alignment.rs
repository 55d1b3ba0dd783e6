//! What a task says of its alignments counts those of checkpoints that came about, and no other.

use std::time::Duration;

use env::{Env, Monotonic};
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    cluster::attempt::Ask,
    prelude::*,
    record::Batch,
};

use crate::{
    numbers::Numbers,
    world::{assert_says, simulate, start, with_settings},
};

/// A sink that takes nothing before this time of its life, and everything after it.
#[derive(Clone)]
struct Shut(Duration);

struct ShutWriter {
    env: Env,
    until: Monotonic,
}

impl Sink for Shut {
    type In = u64;
    type Writer = ShutWriter;

    async fn writer(&self, context: &SinkContext) -> Result<ShutWriter> {
        Ok(ShutWriter { env: context.env.clone(), until: context.env.now() + self.0 })
    }
}

impl PlainWriter for ShutWriter {
    type In = u64;

    async fn write(&mut self, batch: Batch<u64>) -> Result<()> {
        drop(batch);
        self.env.sleep(self.until.since(self.env.now())).await;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn the_time_of_a_checkpoint_that_was_given_up_does_not_count() {
    simulate(async |sim, env| {
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "off"),
            ("checkpoints.timeout", "1s"),
            ("checkpoints.tolerable-failures", "9"),
        ];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        let left = job.source("left", Numbers::endless(1).paced(1, Duration::from_millis(10)));
        let right = job.source("right", Numbers::endless(1).paced(100, Duration::from_millis(10)));
        // It holds the right source back, so that one of the two barriers does not come.
        right.clone().sink("shut", Shut(Duration::from_secs(10)));
        left.union(right).sink("out", Shut(Duration::ZERO));
        let (_process, handle) = start(sim, job).await.unwrap();
        let control = handle.control();
        env.sleep(Duration::from_secs(1)).await;
        let refused = control.ask(Ask::Checkpoint).await.unwrap_err();
        assert_says(&refused, refused.kind(), &["1s"]);
        env.sleep(Duration::from_secs(10)).await;
        control.ask(Ask::Checkpoint).await.unwrap();
        let longest = control.view().tasks.values().map(|task| task.last_snapshot.alignment_us).max();
        assert!(longest < Some(1_000_000), "an alignment took {longest:?} us");
    });
}
