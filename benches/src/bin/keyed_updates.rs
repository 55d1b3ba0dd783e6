//! Sums a sequence of numbers per key and throws the sums away: the job that the peers run too.
//! `keyed_updates --keys N --records N|--turns N [--payload] [--skew] [--fill] [--rate N]` and the flags of every job. Prints its
//! figures as JSON.

use std::process::ExitCode;

use clap::Parser;
use connectors::generator::GeneratorSource;
use engine::prelude::*;
use tidegate_benches::{
    access::Access,
    figures::Figures,
    gaps::{GapSink, Gaps},
    payload::Padded,
    turns,
};
use tokio::runtime::Runtime;
use types::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// More records than any run reads.
const ENOUGH: u64 = 1 << 50;

/// Sums numbers per key.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    access: Access,
    /// Records per second at the most
    #[arg(long)]
    rate: Option<u32>,
    /// Instead of a number of records: so many turns of a few seconds with a checkpoint each second and a few without any
    #[arg(long)]
    turns: Option<u32>,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let Args { access, rate, turns, job } = parse_args();
    let records = turns.map_or(access.before() + access.records, |_| ENOUGH);
    let mut numbers = GeneratorSource::new(|number| number).count(records);
    if let Some(rate) = rate {
        numbers = numbers.rate(rate);
    }
    let job = Job::new("keyed-updates").args(job);
    let keyed = job.source("numbers", numbers).key_by(move |number: &u64| access.key(*number));
    let gaps = Gaps::after(access.before());
    if access.payload {
        let padded = |state: &mut Option<Padded>, number: u64| {
            let sum = state.as_ref().map_or(0, Padded::sum).wrapping_add(number);
            *state = Some(Padded::new(sum));
            sum
        };
        keyed.map_with_state("sum", padded).sink("discard", GapSink::new(gaps.clone()));
    } else {
        keyed.sum("sum", |number: &u64| *number).sink("discard", GapSink::new(gaps.clone()));
    }
    tidegate_benches::report(match turns {
        None => job.run().map(|result| {
            let (records, seconds) = gaps.counted().unwrap_or((result.records, result.elapsed.as_secs_f64()));
            Figures { records, seconds, gap_ms: gaps.quantile(0.999), ..Figures::of(&result) }
        }),
        Some(count) => in_turns(job, &gaps, count),
    })
}

/// Runs the job until it has taken its turns, on two runtimes as every program does.
fn in_turns(job: Job, gaps: &Gaps, count: u32) -> Result<Figures> {
    let runtime = || Runtime::new().map_err(|error| Error::io("cannot start the runtime", error));
    let (users, control) = (runtime()?, runtime()?);
    control.block_on(async {
        let env = Env::real_with(users.handle().clone());
        let (turns, result) = turns::take(job.start(&env).await?, &env, gaps, count).await?;
        Ok(Figures { turns: Some(turns), gap_ms: gaps.quantile(0.999), ..Figures::of(&result) })
    })
}
