//! What the tests share: the records that jobs write, and one life of a job in one simulated process.

use std::time::Duration;

use env::{
    Env,
    sim::{Control, Options, Process, Simulation},
};
use serde::{Deserialize, Serialize};
use tidegate_engine::{
    cluster::job_manager::JobResult,
    cluster::local::JobControl,
    prelude::{Job, JobHandle},
};
use types::{Error, ErrorKind, Result};

/// What a row says about its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The running count of a key.
    Count,
    /// A number whose window has ended.
    Windowed,
    /// A number that was held back for a while.
    Held,
    /// Every fifth number.
    Fifth,
    /// How many numbers of a key there were in all.
    Seen,
}

/// A record of a sink: what, key, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Row(pub(crate) Kind, pub(crate) u64, pub(crate) u64);

/// How one life of a job ended.
pub(crate) enum Death {
    /// The process is gone.
    Killed,
    /// The job has ended, and its process still lives.
    Ended(Result<JobResult>),
}

/// Applies settings by their names in the configuration file.
pub(crate) fn with_settings(job: Job, settings: &[(&str, &str)]) -> Result<Job> {
    settings.iter().try_fold(job.set("rest", "off")?, |job, (name, value)| job.set(name, value))
}

/// Runs `job` in `process` until it ends or the process dies.
pub(crate) async fn live(job: Job, env: &Env, process: &Process) -> Death {
    live_watched(job, env, process, |_| {}).await
}

/// The same, and whoever watches is given what controls the job.
pub(crate) async fn live_watched(
    job: Job,
    env: &Env,
    process: &Process,
    watch: impl FnOnce(&JobControl),
) -> Death {
    let run = async {
        let handle = job.start(env).await?;
        watch(handle.control());
        handle.join().await
    };
    let ended = tokio::select! {
        biased;
        () = process.died() => return Death::Killed,
        ended = run => ended,
    };
    if process.is_alive() { Death::Ended(ended) } else { Death::Killed }
}

/// A simulation without unkindness, in which `body` runs.
pub(crate) fn simulate<T>(body: impl AsyncFnOnce(&Control, Env) -> T) -> T {
    let sim = Simulation::new(1).with_limit(Duration::from_secs(6 * 3_600));
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let control = sim.control();
    sim.run(async |env| body(&control, env).await)
}

/// Starts `job` in a new process of the simulation.
pub(crate) async fn start(sim: &Control, job: Job) -> Result<(Process, JobHandle)> {
    let (process, env) = sim.process("job");
    let handle = job.start(&env).await?;
    Ok((process, handle))
}

/// Runs `job` in a new process to its end.
pub(crate) async fn run(sim: &Control, job: Job) -> Result<JobResult> {
    let (process, handle) = start(sim, job).await?;
    let ended = handle.join().await;
    process.kill();
    ended
}

/// The error that starting or running `job` ends with: of this kind, in one line, and with all of these texts.
#[track_caller]
pub(crate) fn assert_says(error: &Error, kind: ErrorKind, texts: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(!message.contains('\n'), "more than one line: {message}");
    for text in texts {
        assert!(message.contains(text), "{text:?} is missing in: {message}");
    }
}
