//! A job under backpressure: a source that offers whatever is taken, counts by key, and a sink that takes a fixed number
//! of records a second. About once a second the sink prints how many records were between source and sink at the most,
//! as `taken=N most=M`. Started by `tests/it/backpressure.rs`.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use env::{Env, Monotonic};
use tidegate::{
    engine::{
        api::sink::{PlainWriter, Sink, SinkContext},
        record::Batch,
    },
    prelude::*,
};

/// As in the word count: what is measured here is what users get.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Offers numbers to a sink that takes few.
#[derive(Parser)]
struct Args {
    /// How many records the sink takes a second.
    #[arg(long, value_name = "RECORDS", default_value_t = 100)]
    rate: u32,
    #[command(flatten)]
    job: JobArgs,
}

/// Takes records at a fixed rate and notes how many are under way.
#[derive(Clone)]
struct SlowSink {
    rate: u32,
    emitted: Arc<AtomicU64>,
}

struct SlowWriter {
    env: Env,
    rate: u32,
    emitted: Arc<AtomicU64>,
    taken: u64,
    most: u64,
    /// When the next record may be taken: counted on from the first, so that late wake-ups add up to nothing.
    next: Option<Monotonic>,
}

impl Sink for SlowSink {
    type In = u64;
    type Writer = SlowWriter;

    async fn writer(&self, context: &SinkContext) -> Result<SlowWriter> {
        let (env, emitted) = (context.env.clone(), Arc::clone(&self.emitted));
        Ok(SlowWriter { env, rate: self.rate, emitted, taken: 0, most: 0, next: None })
    }
}

impl PlainWriter for SlowWriter {
    type In = u64;

    async fn write(&mut self, mut batch: Batch<u64>) -> Result<()> {
        while batch.next().is_some() {
            let now = self.env.now();
            let next = *self.next.get_or_insert(now);
            self.env.sleep(next.since(now)).await;
            self.next = Some(next + Duration::from_secs(1) / self.rate);
            self.most = self.most.max(self.emitted.load(Ordering::Relaxed) - self.taken);
            self.taken += 1;
            if self.taken.is_multiple_of(self.rate.into()) {
                self.env.print(&format!("taken={} most={}", self.taken, self.most))?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let args: Args = parse_args();
    let emitted = Arc::<AtomicU64>::default();
    let sink = SlowSink { rate: args.rate, emitted: Arc::clone(&emitted) };
    let numbers = GeneratorSource::new(move |number| {
        emitted.fetch_add(1, Ordering::Relaxed);
        number
    });
    let job = Job::new("slow-sink").args(args.job);
    job.source("numbers", numbers)
        .key_by(|number| number % 1_000)
        .count("count")
        .map(|(_, count)| count)
        .sink("slow", sink);
    job.main()
}
