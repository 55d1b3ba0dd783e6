//! A job with every kind of state, each used all the time: value, list, map, reducing, aggregating, all of them with a time
//! to live, too, timers in both times, operator list, union list, broadcast, and a count. What it writes and keeps
//! depends on its input alone: keyed state is touched in the order of event times, by timers, so that no watermark comes
//! too early or too late. Killed by `tests/it/every_kind.rs`; the oracle is `chaos-tests/src/expected.rs`.

use std::process::ExitCode;

use clap::Parser;
use tidegate::prelude::*;

mod keyed;
mod shared;
mod source;

/// As in the word count.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps every kind of state.
#[derive(Parser)]
struct Args {
    /// How many events there are. The job does not end behind them: stop it.
    #[arg(long, value_name = "N")]
    events: u64,
    /// The directory for the lines.
    #[arg(long, value_name = "DIR")]
    output: String,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let args: Args = parse_args();
    let job = Job::new("all-kinds").args(args.job);
    let events = job
        .source("events", source::Events { total: args.events })
        .parallelism(1)
        .watermarks(WatermarkStrategy::punctuated(|event: &source::Event| event.watermark().map(Timestamp)))
        .parallelism(1);
    // Through several subtasks, so that those behind have several inputs to align.
    let spread = events.clone().rebalance().map(|event| event);
    let counts =
        spread.clone().key_by(|event| event.key).count("count").map(|(key, count)| format!("{key} {count}"));
    let keyed = spread.key_by(|event| event.key).process("keyed", keyed::Keyed);
    let shared = events.broadcast().process("shared", shared::Shared::default());
    counts.sink("counts", FileSink::lines(format!("{}/counts", args.output)));
    keyed.union(shared).sink("lines", FileSink::lines(format!("{}/lines", args.output)));
    job.main()
}
