//! Many checkpoints of a large state, a small part of which changes before each: how many bytes they write, how many the
//! directory holds, how many runs they list. `many_checkpoints --checkpoints DIR --interval 1h` and the flags of every job;
//! a checkpoint is asked for as soon as all changes of its round are in the state, and the next round begins when it is
//! complete. Prints its figures as JSON.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use checkpoint::snapshots::{self, Listing};
use clap::Parser;
use engine::{cluster::attempt::Ask, prelude::*};
use env::Env;
use serde::Serialize;
use tidegate_benches::{
    figures::{median, millis},
    gaps::{GapSink, Gaps},
    payload::Padded,
    rounds::Rounds,
    watch::{Watch, bytes_in},
};
use types::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes many checkpoints of a large state.
#[derive(Parser)]
struct Args {
    /// Keys
    #[arg(long, default_value_t = 2_000_000)]
    keys: u64,
    /// Keys that are changed before each checkpoint, some of them twice
    #[arg(long, default_value_t = 20_000)]
    changed: u64,
    /// Checkpoints
    #[arg(long, default_value_t = 300)]
    count: u64,
    /// At least so many milliseconds from one checkpoint to the next
    #[arg(long, default_value_t = 0)]
    every: u64,
    #[command(flatten)]
    job: JobArgs,
}

/// Subtasks.
const PARALLELISM: u32 = 2;
/// Checkpoints without changes at the end, until nothing is merged and only what is needed is there.
const IDLE: u64 = 8;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(250);

/// What was found. Bytes of the directory are parts of those of a full canonical copy.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Bytes of a full canonical copy.
    live: u64,
    /// What the newest checkpoint needs, the greatest of all checkpoints.
    needed: f64,
    /// All files of the directory right after a checkpoint, the median.
    usual: f64,
    /// All files at the end, after checkpoints without changes.
    end: f64,
    /// All files at any moment.
    peak: f64,
    /// How often the directory was listed to see that.
    listings: u64,
    /// The greatest number of runs of a subtask.
    runs: usize,
    /// All that was written to the bytes of the deltas.
    written: f64,
    /// A delta, the greatest, without merges.
    delta: f64,
    /// From trigger to complete, median and greatest, in ms.
    checkpoint_ms: (f64, f64),
    /// Checkpoints that took five times the median or longer.
    slow: usize,
    /// All checkpoints, in seconds.
    seconds: f64,
    /// The longest step on a task, in ms of processor time.
    longest_step_ms: f64,
}

fn main() -> ExitCode {
    let args: Args = parse_args();
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Error::io("cannot start the runtime", error));
    let found = runtime.and_then(|runtime| runtime.block_on(async { measure(args, &Env::real()).await }));
    tidegate_benches::print(found.and_then(|found| {
        serde_json::to_string(&found).map_err(|error| Error::internal(format!("no line of figures: {error}")))
    }))
}

async fn measure(args: Args, env: &Env) -> Result<Found> {
    let Args { keys, changed, count, every, job } = args;
    let (rounds, gaps) = (Rounds::new(keys, PARALLELISM), Gaps::default());
    let running = Job::new("many-checkpoints").parallelism(PARALLELISM).rest(RestAddress::Off);
    running
        .source("numbers", rounds.clone())
        .key_by(|number: &u64| *number)
        .map_with_state("sum", |state: &mut Option<Padded>, number: u64| {
            let sum = state.as_ref().map_or(number, Padded::sum).wrapping_add(1);
            *state = Some(Padded::new(sum));
            sum
        })
        .sink("discard", GapSink::new(gaps.clone()));
    let running = running.args(job).start(env).await?;
    let url = running.control().checkpoint_url().map(str::to_owned);
    let url = url.ok_or_else(|| Error::invalid_job("name a directory with --checkpoints DIR"))?;
    let directory = PathBuf::from(url.trim_start_matches("file://"));
    let mut taken = Taken { env, running: &running, gaps: &gaps, url, directory: &directory };
    taken.all_in_state(keys).await;
    taken.checkpoint().await?;

    let watch = Watch::begin(&directory).map_err(|error| Error::io("cannot watch", error))?;
    // What is there already was not written by the checkpoints that count.
    env.sleep(PAUSE).await;
    let (before, stats) = (watch.seen().written(), running.control().view().snapshots);
    watch.forget_peak();
    let mut found = Found::default();
    let (mut needed, mut usual, mut took, mut runs, mut greatest) = (vec![], vec![], vec![], 0, 0);
    let began = env.now();
    for round in 0..count {
        let added = running.control().view().snapshots.bytes_added;
        taken.all_in_state(rounds.go_on(changed)).await;
        env.sleep((Duration::from_millis(every) * round as u32).saturating_sub(env.now().since(began))).await;
        let triggered = env.now();
        taken.checkpoint().await?;
        took.push(millis(env.now().since(triggered)));
        greatest = greatest.max(running.control().view().snapshots.bytes_added - added);
        let (bytes, most) = taken.newest().await?;
        needed.push(bytes as f64);
        runs = runs.max(most);
        usual.push(bytes_in(&directory) as f64);
    }
    found.seconds = env.now().since(began).as_secs_f64();
    let (deltas, seen) = (running.control().view().snapshots.bytes_added - stats.bytes_added, watch.seen());
    (found.written, found.listings) = ((seen.written() - before) as f64 / deltas as f64, seen.listings);
    for _ in 0..IDLE {
        env.sleep(PAUSE).await;
        taken.checkpoint().await?;
    }
    env.sleep(PAUSE).await;
    let end = bytes_in(&directory);
    drop(watch);
    found.live = taken.canonical_copy().await?;
    let part = |bytes: f64| bytes / found.live as f64;
    found.needed = part(needed.into_iter().fold(0.0, f64::max));
    found.usual = part(median(usual));
    (found.end, found.peak, found.delta) = (part(end as f64), part(seen.peak as f64), part(greatest as f64));
    found.runs = runs;
    let middle = median(took.iter().copied());
    found.slow = took.iter().filter(|took| **took >= 5.0 * middle).count();
    found.checkpoint_ms = (middle, took.into_iter().fold(0.0, f64::max));
    running.control().ask(Ask::Cancel).await?;
    let result = running.join().await?;
    found.longest_step_ms = millis(Duration::from_micros(result.snapshots.longest_step_us));
    Ok(found)
}

/// Takes checkpoints of the running job and looks at them.
struct Taken<'a> {
    env: &'a Env,
    running: &'a JobHandle,
    gaps: &'a Gaps,
    url: String,
    directory: &'a Path,
}

impl Taken<'_> {
    /// Waits until so many records have come through the state.
    async fn all_in_state(&self, records: u64) {
        while self.gaps.records() < records {
            self.env.sleep(Duration::from_millis(1)).await;
        }
    }

    async fn checkpoint(&mut self) -> Result<()> {
        self.running.control().ask(Ask::Checkpoint).await.map(drop)
    }

    /// The bytes that the newest checkpoint needs, and the greatest number of runs of a subtask.
    async fn newest(&self) -> Result<(u64, usize)> {
        let Listing::Job { checkpoints, .. } =
            snapshots::list(self.env, self.env.open_store(&self.url)?).await?
        else {
            return Err(Error::internal("the job's directory holds a savepoint"));
        };
        let newest = checkpoints.into_iter().next_back();
        let newest = newest.ok_or_else(|| Error::internal("no checkpoint is there"))?;
        let manifest = newest.manifest?;
        let bytes = manifest.files().iter().map(|file| file.len).sum::<u64>() + newest.completed.manifest.len;
        let subtasks = manifest.operators.iter().flat_map(|operator| &operator.subtasks);
        Ok((bytes, subtasks.map(|subtask| subtask.runs.len()).max().unwrap_or_default()))
    }

    /// The bytes of a savepoint.
    async fn canonical_copy(&self) -> Result<u64> {
        let beside = self.directory.with_extension("savepoint");
        self.running.control().ask(Ask::Savepoint(beside.display().to_string())).await?;
        Ok(bytes_in(&beside))
    }
}
