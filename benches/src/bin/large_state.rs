//! A large state on disk, and what it takes to get it back. `large_state load` makes it: a job with many keys, a checkpoint, a few
//! more of small changes, savepoints before and after them. `large_state restore` starts the job again where it stopped, and
//! says how long its tasks take until they run, beside reading, checking and decompressing the same bytes and nothing else.
//! `large_state checksum DIR` reads all files and makes their digests, one after the other. Each prints a line of JSON.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use checkpoint::{manifest::Manifest, savepoint::SnapshotLocation};
use clap::{Args, Parser, Subcommand};
use engine::{
    cluster::{attempt::Ask, status::TaskStatus},
    prelude::*,
};
use env::{Env, Store};
use futures::future::try_join_all;
use serde_json::json;
use statebackend::decompress_run;
use tidegate_benches::{
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
        #[command(flatten)]
        job: JobArgs,
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
                What::Restore { state, subtasks, snapshot, job } => {
                    restore(&env, state, subtasks, &snapshot, job).await
                }
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

async fn restore(env: &Env, state: State, subtasks: u32, snapshot: &str, args: JobArgs) -> Result<String> {
    let location = SnapshotLocation::resolve(env, snapshot).await?;
    let parts = parts(&location.manifest, subtasks);
    // The first pass brings the files into memory.
    decompress(env, &location.store, &parts).await?;
    let (bytes, first) = decompress(env, &location.store, &parts).await?;
    let began = env.now();
    let running = job(state, &Rounds::new(0, subtasks), &Gaps::default(), subtasks).args(args);
    let running = running.start(env).await?;
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
    let took = env.now().since(began);
    running.control().ask(Ask::Cancel).await?;
    running.join().await?;
    let (_, second) = decompress(env, &location.store, &parts).await?;
    let floor = (first + second) / 2;
    Ok(json!({
        "bytes": bytes,
        "restore_s": took.as_secs_f64(),
        "decompress_s": floor.as_secs_f64(),
        "ratio": took.as_secs_f64() / floor.as_secs_f64(),
    })
    .to_string())
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

/// Reads, checks and decompresses what the subtasks need, all at once, as they restore it.
async fn decompress(
    env: &Env,
    store: &std::sync::Arc<dyn Store>,
    parts: &[Vec<Run>],
) -> Result<(u64, Duration)> {
    let began = env.now();
    let subtasks = parts.iter().map(async |runs| {
        let mut bytes = 0;
        for run in runs {
            bytes += decompress_run(env, &**store, run).await?.bytes;
        }
        Ok::<_, Error>(bytes)
    });
    let bytes = try_join_all(subtasks).await?.into_iter().sum();
    Ok((bytes, env.now().since(began)))
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
