//! A large state of which 1 % changes between two checkpoints: how long from trigger to durable record, and how many
//! bytes. `small_delta --checkpoints DIR`; prints its figures as JSON.

use std::{process::ExitCode, time::Duration};

use checkpoint::coordinator::CheckpointOutcome;
use clap::Parser;
use engine::{cluster::attempt::Ask, prelude::*};
use env::Env;
use tidegate_benches::{
    figures::{Figures, median, millis},
    gaps::{GapSink, Gaps},
    paced::LoadThenPace,
    payload::Padded,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Changes a small part of a large state.
#[derive(Parser)]
struct Args {
    /// Keys
    #[arg(long, default_value_t = 2_000_000)]
    keys: u64,
    /// Checkpoints to take after the load, at most 100
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Where checkpoints go
    #[arg(long)]
    checkpoints: String,
    /// Between two checkpoints, in milliseconds
    #[arg(long, default_value_t = 250)]
    every: u64,
}

/// Subtasks.
const PARALLELISM: u32 = 2;

fn main() -> ExitCode {
    let args: Args = parse_args();
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Error::io("cannot start the runtime", error));
    tidegate_benches::report(
        runtime.and_then(|runtime| runtime.block_on(async { measure(&args, &Env::real()).await })),
    )
}

async fn measure(args: &Args, env: &Env) -> Result<Figures> {
    let rate = args.keys / 100 * 1000 / args.every;
    let job = Job::new("small-delta")
        .parallelism(PARALLELISM)
        .rest(RestAddress::Off)
        .checkpoints(Checkpoints::every(Duration::from_millis(args.every)).to(&args.checkpoints));
    let numbers = LoadThenPace { keys: args.keys, rate, splits: PARALLELISM };
    job.source("numbers", numbers)
        .key_by(|number: &u64| *number)
        .map_with_state("sum", |state: &mut Option<Padded>, number: u64| {
            let sum = state.as_ref().map_or(number, Padded::sum).wrapping_add(1);
            *state = Some(Padded::new(sum));
            sum
        })
        .sink("discard", GapSink::new(Gaps::default()));
    let running = job.args(JobArgs::default()).start(env).await?;

    // The load is over when a checkpoint drained no more than what the steady rate changes.
    let settled = loop {
        let (before, view) = (running.control().view(), after(&running, env, 4).await);
        let cells = view.snapshots.cells - before.snapshots.cells;
        if before.snapshots.cells >= args.keys && cells < 8 * args.keys / 100 {
            break view;
        }
    };
    let end = after(&running, env, args.count).await;
    let durations: Vec<f64> = end
        .checkpoints
        .history
        .iter()
        .filter(|one| one.outcome == CheckpointOutcome::Completed)
        .filter_map(|one| one.duration.map(millis))
        .collect();
    running.control().ask(Ask::Cancel).await?;
    let mut figures = Figures::of(&running.join().await?);
    figures.checkpoints = end.checkpoints.completed - settled.checkpoints.completed;
    figures.cells = end.snapshots.cells - settled.snapshots.cells;
    figures.bytes = end.snapshots.bytes_added - settled.snapshots.bytes_added;
    figures.merged_bytes = end.snapshots.bytes_merged - settled.snapshots.bytes_merged;
    let greatest = durations.iter().copied().fold(0.0, f64::max);
    figures.checkpoint_ms = Some((median(durations), greatest));
    Ok(figures)
}

/// The view after `count` more checkpoints.
async fn after(running: &JobHandle, env: &Env, count: u64) -> engine::cluster::view::JobView {
    let until = running.control().view().checkpoints.completed + count;
    loop {
        let view = running.control().view();
        if view.checkpoints.completed >= until {
            return view;
        }
        env.sleep(Duration::from_millis(5)).await;
    }
}
