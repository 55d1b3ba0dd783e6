//! Sums a sequence of numbers per key and throws the sums away: the job that the peers run too.
//! `keyed_updates --keys N --records N` and the flags of every job.

use std::process::ExitCode;

use clap::Parser;
use connectors::{discard::DiscardSink, generator::GeneratorSource};
use engine::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sums numbers per key.
#[derive(Parser)]
struct Args {
    /// Keys
    #[arg(long, default_value_t = 500_000)]
    keys: u64,
    /// Records
    #[arg(long, default_value_t = 20_000_000)]
    records: u64,
    /// Records per second at the most
    #[arg(long)]
    rate: Option<u32>,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let Args { keys, records, rate, job } = Args::parse();
    let job = Job::new("keyed-updates").args(job);
    let mut numbers = GeneratorSource::new(|number| number).count(records);
    if let Some(rate) = rate {
        numbers = numbers.rate(rate);
    }
    job.source("numbers", numbers)
        .key_by(move |number: &u64| mix(*number) % keys)
        .sum("sum", |number: &u64| *number)
        .sink("discard", DiscardSink::new());
    job.main()
}

/// The finaliser of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
