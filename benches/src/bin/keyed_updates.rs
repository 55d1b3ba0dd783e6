//! Sums a sequence of numbers per key and throws the sums away: the job that the peers run too.
//! `keyed_updates --keys N --records N [--payload] [--rate N]` and the flags of every job. Prints its figures as JSON.

use std::process::ExitCode;

use clap::Parser;
use connectors::generator::GeneratorSource;
use engine::prelude::*;
use tidegate_benches::{
    figures::Figures,
    gaps::{GapSink, Gaps},
    mix,
    payload::Padded,
};

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
    /// Keep each sum in a value of 100 bytes
    #[arg(long)]
    payload: bool,
    /// Records per second at the most
    #[arg(long)]
    rate: Option<u32>,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let Args { keys, records, payload, rate, job } = parse_args();
    let job = Job::new("keyed-updates").args(job);
    let mut numbers = GeneratorSource::new(|number| number).count(records);
    if let Some(rate) = rate {
        numbers = numbers.rate(rate);
    }
    let keyed = job.source("numbers", numbers).key_by(move |number: &u64| mix(*number) % keys);
    let gaps = Gaps::default();
    if payload {
        let padded = |state: &mut Option<Padded>, number: u64| {
            let sum = state.as_ref().map_or(0, Padded::sum).wrapping_add(number);
            *state = Some(Padded::new(sum));
            sum
        };
        keyed.map_with_state("sum", padded).sink("discard", GapSink::new(gaps.clone()));
    } else {
        keyed.sum("sum", |number: &u64| *number).sink("discard", GapSink::new(gaps.clone()));
    }
    tidegate_benches::report(
        job.run().map(|result| Figures { gap_ms: gaps.quantile(0.999), ..Figures::of(&result) }),
    )
}
