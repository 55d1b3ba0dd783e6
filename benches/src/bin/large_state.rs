//! A large state on disk, and what it takes to get it back. `large_state load` makes it: a job with many keys, a checkpoint, a few
//! more of small changes, savepoints before and after them. `large_state restore` starts the job again where it stopped, and
//! says how long its tasks take until they run, beside reading, checking and decompressing the same bytes and nothing else, and
//! how long until no cell waits to be made.
//! `large_state checksum DIR` reads all files and makes their digests, one after the other, `large_state touch` makes memory ready.
//! Each prints a line of JSON.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use checkpoint::{manifest::Manifest, savepoint::SnapshotLocation};
use clap::{Args, Parser, Subcommand};
use engine::{
    cluster::{attempt::Ask, status::TaskStatus},
    prelude::*,
};
use env::{Env, Monotonic, Store};
use futures::future::try_join_all;
use serde_json::json;
use statebackend::decompress_run;
use tidegate_benches::{
    figures::{process_cpu, system_cpu},
    gaps::{GapSink, Gaps},
    payload::Padded,
    rounds::Rounds,
    watch::{bytes_in, list},
};
use types::{DigestBuilder, Error, Result, Run, SubtaskIndex};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What it takes to get a large state back.
#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Makes the state: two subtasks, savepoints DIR-before and DIR-after beside the directory for checkpoints
    Load {
        #[command(flatten)]
        state: State,
        /// Checkpoints, each after a change of 1 % of the keys
        #[arg(long, default_value_t = 5)]
        count: u64,
        #[command(flatten)]
        job: JobArgs,
    },
    /// Starts the job again from --checkpoints DIR, with --from latest
    Restore {
        #[command(flatten)]
        state: State,
        /// Subtasks
        #[arg(long, default_value_t = 4)]
        subtasks: u32,
        /// The same place, as the command names snapshots
        #[arg(long)]
        snapshot: String,
        /// Records for random keys right after it, while cells wait, and as many again when all are made
        #[arg(long, default_value_t = 0)]
        records: u64,
        /// So many GiB are used right before: what the machine has given away in the seconds since the last use
        #[arg(long, default_value_t = 0)]
        touch: usize,
        /// Checkpoints of 1 % of the keys that it was made with
        #[arg(long, default_value_t = 5)]
        count: u64,
        #[command(flatten)]
        job: JobArgs,
    },
    /// Uses memory for the first time: what a virtual machine has given away it must fetch again, so do it before restores are
    /// measured; the second time it says what first use costs on this machine
    Touch {
        /// How many GiB
        #[arg(default_value_t = 6)]
        gib: usize,
    },
    /// Makes the digests of all files
    Checksum {
        /// Where they are
        directory: PathBuf,
    },
}

#[derive(Args, Clone, Copy)]
struct State {
    /// Keys
    #[arg(long, default_value_t = 9_600_000)]
    keys: u64,
    /// Values of hexadecimal digits, which can be compressed to half their length
    #[arg(long)]
    digits: bool,
}

/// Subtasks that make the state.
const PARALLELISM: u32 = 2;
/// How much a checksum pass reads at once.
const PIECE: u64 = 4 << 20;

fn main() -> ExitCode {
    let Command { what } = parse_args();
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Error::io("cannot start the runtime", error));
    let line = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let env = Env::real();
            match what {
                What::Load { state, count, job } => load(&env, state, count, job).await,
                What::Restore { state, subtasks, snapshot, records, touch: gib, count, job } => {
                    let given = state.keys + count * (state.keys / 100);
                    restore(&env, (state, given, subtasks), &snapshot, (records, gib), job).await
                }
                What::Touch { gib } => Ok(touch(&env, gib)),
                What::Checksum { directory } => checksum(&env, &directory).await,
            }
        })
    });
    tidegate_benches::print(line)
}

/// The job, which adds 1 to a number for each key.
fn job(state: State, rounds: &Rounds, gaps: &Gaps, parallelism: u32) -> Job {
    let value = if state.digits { Padded::digits } else { Padded::new };
    let job = Job::new("large-state").parallelism(parallelism).rest(RestAddress::Off);
    job.source("numbers", rounds.clone())
        .key_by(|number: &u64| *number)
        .map_with_state("sum", move |state: &mut Option<Padded>, number: u64| {
            let sum = state.as_ref().map_or(number, Padded::sum).wrapping_add(1);
            *state = Some(value(sum));
            sum
        })
        .sink("discard", GapSink::new(gaps.clone()));
    job
}

async fn load(env: &Env, state: State, count: u64, args: JobArgs) -> Result<String> {
    let (rounds, gaps) = (Rounds::new(state.keys, PARALLELISM), Gaps::default());
    let running = job(state, &rounds, &gaps, PARALLELISM).args(args).start(env).await?;
    let url = running.control().checkpoint_url().unwrap_or_default().to_owned();
    let beside = |name: &str| format!("{}-{name}", url.trim_start_matches("file://"));
    let ask = async |ask| running.control().ask(ask).await;
    let all_in_state = async |records| {
        while gaps.records() < records {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    all_in_state(state.keys).await;
    ask(Ask::Savepoint(beside("before"))).await?;
    for _ in 0..count {
        all_in_state(rounds.go_on(state.keys / 100)).await;
        ask(Ask::Checkpoint).await?;
    }
    ask(Ask::Stop { drain: false, savepoint: Some(beside("after")) }).await?;
    running.join().await?;
    let bytes = |directory: &str| bytes_in(Path::new(directory));
    Ok(json!({ "before": bytes(&beside("before")), "after": bytes(&beside("after")) }).to_string())
}

async fn restore(
    env: &Env,
    (state, given, subtasks): (State, u64, u32),
    snapshot: &str,
    (records, gib): (u64, usize),
    args: JobArgs,
) -> Result<String> {
    let location = SnapshotLocation::resolve(env, snapshot).await?;
    let parts = parts(&location.manifest, subtasks);
    // The first pass brings the files into memory.
    decompress(env, &location.store, &parts).await?;
    let (bytes, first) = decompress(env, &location.store, &parts).await?;
    touch(env, gib);
    let began = Took::now(env);
    let (rounds, gaps) = (Rounds::new(state.keys, subtasks), Gaps::default());
    let running = job(state, &rounds, &gaps, subtasks).args(args).start(env).await?;
    let is_running = || {
        let tasks = running.control().view().tasks;
        !tasks.is_empty() && tasks.values().all(|task| task.status == TaskStatus::Running)
    };
    while !is_running() {
        if let Some((_, why)) = running.control().view().failures.pop() {
            return Err(Error::internal(format!("the job failed: {why}")));
        }
        env.sleep(Duration::from_millis(1)).await;
    }
    let took = began.until_now(env);
    // As many as were given before there was the snapshot are passed over.
    let handled = async |count: u64| {
        let (began, before) = (env.now(), gaps.records());
        rounds.go_on(count);
        while gaps.records() < before + records {
            env.sleep(Duration::from_millis(1)).await;
        }
        records as f64 / env.now().since(began).as_secs_f64()
    };
    let while_waiting = handled(given - state.keys + records).await;
    while waiting_cells(&running.control().metrics().encode()) > 0 {
        env.sleep(Duration::from_millis(1)).await;
    }
    let made = began.until_now(env);
    let when_made = handled(records).await;
    running.control().ask(Ask::Cancel).await?;
    running.join().await?;
    let (_, second) = decompress(env, &location.store, &parts).await?;
    let floor = Took {
        clock: (first.clock + second.clock) / 2,
        processors: (first.processors + second.processors) / 2,
        system: (first.system + second.system) / 2,
    };
    let program = |it: &Took| it.processors.saturating_sub(it.system);
    let ratio = |of: fn(&Took) -> Duration| of(&took).as_secs_f64() / of(&floor).as_secs_f64();
    Ok(json!({
        "bytes": bytes,
        "compressed_to": compressed_to(&location.manifest),
        "restore_s": took.clock.as_secs_f64(),
        "restore_cpu_s": took.processors.as_secs_f64(),
        "restore_system_s": took.system.as_secs_f64(),
        "all_made_s": made.clock.as_secs_f64(),
        "all_made_cpu_s": made.processors.as_secs_f64(),
        "records_per_s_while_waiting": while_waiting,
        "records_per_s_when_made": when_made,
        "decompress_s": floor.clock.as_secs_f64(),
        "decompress_cpu_s": floor.processors.as_secs_f64(),
        "ratio": ratio(|it| it.clock),
        "cpu_ratio": ratio(|it| it.processors),
        "program_ratio": program(&took).as_secs_f64() / program(&floor).as_secs_f64(),
    })
    .to_string())
}

/// How many cells wait, as the metrics of all tasks say.
fn waiting_cells(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("tidegate_task_waiting_cells{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// What a part of the work took, or when it began.
#[derive(Clone, Copy)]
struct Took {
    /// By the clock.
    clock: Duration,
    /// Processor time of all threads.
    processors: Duration,
    /// What the operating system took of it.
    system: Duration,
}

impl Took {
    fn now(env: &Env) -> Self {
        Self { clock: env.now().since(Monotonic::default()), processors: process_cpu(), system: system_cpu() }
    }

    fn until_now(self, env: &Env) -> Self {
        let now = Self::now(env);
        let (clock, processors) = (now.clock - self.clock, now.processors - self.processors);
        Self { clock, processors, system: now.system - self.system }
    }
}

/// The runs of each of so many subtasks, clipped to its key groups.
fn parts(manifest: &Manifest, subtasks: u32) -> Vec<Vec<Run>> {
    let part = |subtask| {
        let groups = manifest.max_parallelism.range(SubtaskIndex(subtask), subtasks);
        let runs = manifest.operators.iter().flat_map(|operator| &operator.subtasks).flat_map(|it| &it.runs);
        runs.filter_map(|run| Some(Run { groups: run.groups.intersect(groups)?, ..run.clone() })).collect()
    };
    (0..subtasks).map(part).collect()
}

/// The bytes of the runs to what they hold.
fn compressed_to(manifest: &Manifest) -> f64 {
    let runs = || manifest.operators.iter().flat_map(|operator| &operator.subtasks).flat_map(|it| &it.runs);
    let plain: u64 = runs().map(|run| run.plain_bytes).sum();
    runs().map(|run| run.file.len).sum::<u64>() as f64 / plain.max(1) as f64
}

/// Reads, checks and decompresses what the subtasks need, all at once, as they restore it.
async fn decompress(env: &Env, store: &Arc<dyn Store>, parts: &[Vec<Run>]) -> Result<(u64, Took)> {
    let began = Took::now(env);
    let subtasks = parts.iter().map(async |runs| {
        let mut bytes = 0;
        for run in runs {
            bytes += decompress_run(env, &**store, run).await?.bytes;
        }
        Ok::<_, Error>(bytes)
    });
    let bytes = try_join_all(subtasks).await?.into_iter().sum();
    Ok((bytes, began.until_now(env)))
}

/// Writes to each page of so much memory. The end of the process gives it back.
fn touch(env: &Env, gib: usize) -> String {
    let began = Took::now(env);
    let pieces: Vec<Vec<u8>> = (0..gib).map(|_| vec![1; 1 << 30]).collect();
    std::hint::black_box(&pieces);
    let Took { clock, processors, .. } = began.until_now(env);
    json!({ "gib": gib, "seconds": clock.as_secs_f64(), "cpu_seconds": processors.as_secs_f64() }).to_string()
}

/// A single pass over all files, which lie in memory from the pass before it.
async fn checksum(env: &Env, directory: &Path) -> Result<String> {
    let store = env.open_store(&directory.display().to_string())?;
    let (mut took, mut bytes) = (Duration::MAX, 0);
    for _ in 0..2 {
        let began = env.now();
        bytes = 0;
        for (path, len) in list(directory) {
            let path = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
            let (mut digest, mut at) = (DigestBuilder::default(), 0);
            while at < len {
                let end = len.min(at + PIECE);
                let piece = store.get_range(&path, at..end).await?.unwrap_or_default();
                digest = env
                    .blocking("checksum", move || {
                        digest.update(&piece);
                        digest
                    })
                    .await?;
                at = end;
            }
            bytes += len;
            std::hint::black_box(digest.finish());
        }
        took = env.now().since(began);
    }
    Ok(json!({ "bytes": bytes, "seconds": took.as_secs_f64() }).to_string())
}
