//! Running a job: [`Job::main`] for programs, [`Job::run`] for the result, [`Job::start`] for a handle.

use std::{
    ffi::OsString,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::Duration,
};

use checkpoint::{barrier::CheckpointMode, restart::RestartStrategy, savepoint::SnapshotLocation};
use env::Env;
use statebackend::RunCompression;
use tokio::runtime::{Builder, Runtime};
use types::{Error, ErrorKind, Result, count};

use super::job::Job;
use crate::{
    cluster::{
        job_manager::JobResult,
        local::{self, JobHandle},
        status::JobStatus,
    },
    config::{self, Backend, JobArgs, RestAddress, VERSION},
    recovery::dry_run::{self, RestoreReport},
    task::guard,
};

/// Threads for the blocking work of checkpoints at least; more on a machine of more cores.
const BLOCKING_MIN: usize = 4;
/// How many there are for that of sources, sinks and functions at the most: it may wait for a disk or a network that does
/// not answer, and must not keep the checkpoints waiting.
const USERS_BLOCKING: usize = 64;
/// How long such a thread waits for more: it stays.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// When and where checkpoints are taken, for [`Job::checkpoints`].
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    interval: Option<Duration>,
    url: Option<String>,
    mode: CheckpointMode,
    retained: Option<u32>,
    compression: RunCompression,
}

impl Checkpoints {
    /// One every `interval`.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval: Some(interval), ..Self::default() }
    }

    /// Stored at `url`: a directory, or `file:///DIR`.
    #[must_use]
    pub fn to(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Without alignment: state counts every record at least once.
    #[must_use]
    pub fn at_least_once(mut self) -> Self {
        self.mode = CheckpointMode::AtLeastOnce;
        self
    }

    /// How what is written from now on is stored: compressed by zstd if never set.
    #[must_use]
    pub fn compression(mut self, compression: RunCompression) -> Self {
        self.compression = compression;
        self
    }

    /// How many completed ones are kept.
    #[must_use]
    pub fn retained(mut self, count: u32) -> Self {
        self.retained = Some(count);
        self
    }
}

impl Job {
    /// The flags of the command line, for programs that have flags of their own. Without this, [`Job::main`] and
    /// [`Job::run`] read the command line themselves; with `JobArgs::default()` nobody reads it, as a test wants.
    #[must_use]
    pub fn args(mut self, args: JobArgs) -> Self {
        self.args = Some(args);
        self
    }

    /// When and where checkpoints are taken.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        let settings = &mut self.settings;
        settings.checkpoints.interval = checkpoints.interval;
        settings.interval_set = checkpoints.interval.is_some();
        settings.checkpoints.mode = checkpoints.mode;
        settings.checkpoints.retained = checkpoints.retained.unwrap_or(settings.checkpoints.retained);
        settings.checkpoint_url = checkpoints.url;
        settings.compression = checkpoints.compression;
        self
    }

    /// What happens after a failure.
    #[must_use]
    pub fn restarts(mut self, strategy: RestartStrategy) -> Self {
        self.settings.restart = Some(strategy);
        self
    }

    /// Where state is kept while the job runs.
    #[must_use]
    pub fn state_backend(mut self, backend: Backend) -> Self {
        self.settings.backend = backend;
        self
    }

    /// Where REST listens.
    #[must_use]
    pub fn rest(mut self, address: RestAddress) -> Self {
        self.settings.rest = address;
        self
    }

    /// Any setting by its name in the configuration file.
    ///
    /// # Errors
    /// `InvalidJob` if the name or the value is unknown.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        self.settings.set(name, value, "set in code")?;
        Ok(self)
    }

    /// Runs the job and ends the program: one line with the result, or one line with the error, and the exit code of
    /// its kind. With `--explain` prints the plan instead, with `--check-restore` what a restore would do.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let name = self.name.clone();
        match self.run_or_explain(words()) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some((env, result))) => {
                // The job has ended as it did, whoever can read of it.
                let _unread = env.print(&summary(&name, &result));
                ExitCode::SUCCESS
            }
            Err(error) => {
                let kind = error.kind();
                // No world was made if the runtime could not be.
                warn(&format!("error: {error}"));
                ExitCode::from(kind.exit_code())
            }
        }
    }

    /// Runs the job to its end, on a runtime of its own. With `--explain` prints the plan instead, and the result says
    /// `explained`.
    ///
    /// # Errors
    /// What [`start`](Self::start) says, and why the job failed; `InvalidJob` for a mistake in the command line.
    pub fn run(self) -> Result<JobResult> {
        let ran = self.run_or_explain(words())?;
        Ok(ran.map_or_else(|| JobResult { how: "explained".to_owned(), ..JobResult::default() }, |ran| ran.1))
    }

    /// `None` if the job was explained, or a restore was tried.
    fn run_or_explain(self, line: impl Iterator<Item = OsString>) -> Result<Option<(Env, JobResult)>> {
        let args = self.args.clone().map_or_else(|| command_line(line), Ok)?;
        with_runtime(async move |env| {
            if args.explain {
                let settings = config::resolve(&env, self.settings.clone(), &args)?;
                let plan = self.plan_for(&settings)?;
                plan.explain().lines().try_for_each(|line| env.print(line))?;
                return Ok(None);
            }
            if let Some(snapshot) = args.check_restore.clone() {
                let report = self.args(args).check_restore(&env, &snapshot).await?;
                report.to_string().lines().try_for_each(|line| env.print(line))?;
                report.verdict()?;
                return Ok(None);
            }
            let result = self.args(args).start(&env).await?.join().await?;
            Ok(Some((env, result)))
        })
    }

    /// Starts the job on the runtime in whose context this is called. Does not read the command line.
    ///
    /// # Errors
    /// `InvalidJob` with everything that is wrong with graph and settings; `Conflict` if another process runs the job;
    /// `Unavailable` if the checkpoint directory or the REST address cannot be used.
    pub async fn start(self, env: &Env) -> Result<JobHandle> {
        let args = self.args.clone().unwrap_or_default();
        let settings = config::resolve(env, self.settings.clone(), &args)?;
        let plan = self.plan_for(&settings)?;
        drop(self);
        // Large, and waited for once.
        Box::pin(local::start(env, plan, settings)).await
    }

    /// What a start from a checkpoint or savepoint would do with each state, without doing it. Reads its manifest, looks
    /// whether its files are there and as long as they should be, and reads the newest record of the job's own history, if there is one: a job that would restore this snapshot anyhow goes
    /// on from it.
    ///
    /// # Errors
    /// `InvalidJob` with everything that is wrong with graph and settings, or if there is no snapshot; `Corrupt` if its
    /// manifest is damaged, or the job's history. What does not fit is in the report.
    pub async fn check_restore(self, env: &Env, snapshot: &str) -> Result<RestoreReport> {
        let args = self.args.clone().unwrap_or_default();
        let settings = config::resolve(env, self.settings.clone(), &args)?;
        let plan = self.plan_for(&settings)?;
        drop(self);
        let location = Box::pin(SnapshotLocation::resolve(env, snapshot)).await?;
        let newest = match &settings.checkpoint_url {
            Some(url) => match SnapshotLocation::newest_record(env, url).await {
                // There is no directory yet.
                Err(error) if error.kind() == ErrorKind::InvalidJob => None,
                newest => newest?,
            },
            None => None,
        };
        let standing = newest.as_ref().map(|record| &record.standing);
        // Another job's directory says nothing about this one.
        let standing = standing.filter(|it| it.job_name == plan.job_name);
        let mut report = dry_run::report(&plan, &location, &settings, standing, snapshot);
        match location.check_files(env).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => report.refuse("(files)", &error),
            checked => checked?,
        }
        Ok(report)
    }

    fn plan_for(&self, settings: &config::Settings) -> Result<crate::graph::physical::Plan> {
        let parallelism = settings.parallelism.unwrap_or(self.parallelism);
        let max_parallelism = settings.max_parallelism.unwrap_or(self.max_parallelism);
        self.plan_with(parallelism, max_parallelism)
    }
}

/// The real world on two tokio runtimes: one for the tasks, with a thread for each core, and one for everything that has
/// to go on whatever the user's functions do.
fn with_runtime<T>(work: impl AsyncFnOnce(Env) -> Result<T>) -> Result<T> {
    guard::one_line_panics();
    let users = started(
        Builder::new_multi_thread()
            .thread_name("tidegate-task")
            .max_blocking_threads(USERS_BLOCKING)
            .thread_keep_alive(KEEP_ALIVE),
    )?;
    let control = started(
        Builder::new_multi_thread()
            .thread_name("tidegate")
            .worker_threads(1)
            .max_blocking_threads(blocking_threads())
            .thread_keep_alive(KEEP_ALIVE),
    )?;
    start_blocking_threads(&control);
    let result = control.block_on(async { work(Env::real_with(users.handle().clone())).await });
    // What still runs in the background (an upload of an attempt that has ended) is of no use to anybody.
    users.shutdown_timeout(Duration::from_millis(100));
    control.shutdown_timeout(Duration::from_millis(100));
    result
}

fn started(builder: &mut Builder) -> Result<Runtime> {
    builder.enable_all().build().map_err(|error| Error::io("cannot start the runtime", error))
}

fn blocking_threads() -> usize {
    available_parallelism().map_or(BLOCKING_MIN, |cores| cores.get().max(BLOCKING_MIN))
}

/// Starts all threads for the blocking work of checkpoints. Each keeps some memory of what it has done, and work goes round: so a job's memory
/// is after a few checkpoints what it stays, however many requests wait for a disk at the same time later.
#[expect(clippy::disallowed_methods, reason = "the world itself is being made")]
fn start_blocking_threads(runtime: &Runtime) {
    let gate = Arc::new(Mutex::new(()));
    // Held, so that none is free for the next one's work.
    let closed = gate.lock();
    for _ in 0..blocking_threads() {
        let gate = Arc::clone(&gate);
        runtime.spawn_blocking(move || drop(gate.lock()));
    }
    drop(closed);
}

/// Reads the command line of a program that has flags of its own. A mistake ends the program: one line that says what is
/// wrong, and the exit code of [`InvalidJob`](ErrorKind::InvalidJob).
#[must_use]
pub fn parse_args<A: clap::Parser>() -> A {
    let line: Vec<_> = words().collect();
    let parsed = named(A::command(), line.first()).try_get_matches_from(line);
    parsed.and_then(|matches| A::from_arg_matches(&matches)).unwrap_or_else(|error| refuse(&error))
}

/// The command with the name that the program was called by, if it says that it is a job and nothing else.
fn named(command: clap::Command, program: Option<&OsString>) -> clap::Command {
    let name = program.and_then(|program| Path::new(program).file_name());
    match name.and_then(|name| name.to_str()) {
        // A program has one command line: the name is kept once.
        Some(name) if command.get_version() == Some(VERSION) => {
            let name: &'static str = name.to_owned().leak();
            command.name(name).display_name(name)
        }
        _ => command,
    }
}

/// What the program was started with.
#[expect(clippy::disallowed_methods, reason = "a job is a program, and this is its command line")]
fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os()
}

/// The program's own command line, when it has no flags of its own. Whoever asks for help gets it, and the program ends.
fn command_line(line: impl Iterator<Item = OsString>) -> Result<JobArgs> {
    use clap::{Args, FromArgMatches};
    let line: Vec<_> = line.collect();
    let command = named(JobArgs::augment_args(clap::Command::new("job")), line.first());
    let parsed = command.try_get_matches_from(line).and_then(|matches| JobArgs::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let said = mistake(&error.to_string());
        Error::invalid_job(said.strip_prefix("error: ").unwrap_or(&said))
    })
}

/// Ends the program with what clap says: help as it is, a mistake as one line.
#[expect(clippy::disallowed_methods, reason = "the command line was wrong, and nothing has begun")]
fn refuse(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    warn(&mistake(&error.to_string()));
    std::process::exit(ErrorKind::InvalidJob.exit_code().into());
}

/// The first paragraph of what clap says and what is similar, in one line: how the program is called stands in its help.
fn mistake(said: &str) -> String {
    let mut paragraphs = said.split("\n\n");
    let first = paragraphs.next().unwrap_or(said);
    let similar = paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: "));
    let similar = similar.filter(|tip| tip.contains("similar"));
    let parts: Vec<_> = [first]
        .into_iter()
        .chain(similar)
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    format!("{}; see --help", parts.join("; "))
}

#[expect(clippy::disallowed_macros, reason = "the program's last words; no world may be there to say them")]
fn warn(line: &str) {
    eprintln!("{line}");
}

fn summary(name: &str, result: &JobResult) -> String {
    if result.status == JobStatus::Finished && result.how != "finished" {
        return result.how.clone();
    }
    let seconds = result.elapsed.as_secs_f64();
    format!(
        "{name} {}: {} in {seconds:.2} s, {:.0} records/s, {}, {}, longest checkpoint pause {:.3} ms",
        result.how,
        count(result.records, "record"),
        result.records as f64 / seconds.max(1e-9),
        count(result.checkpoints, "checkpoint"),
        count(result.restarts, "restart"),
        Duration::from_micros(result.snapshots.longest_pause_us).as_secs_f64() * 1e3,
    )
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;
    use crate::task::message::SnapshotStats;

    #[test]
    fn the_last_line_says_what_the_job_has_done() {
        let snapshots = SnapshotStats { longest_pause_us: 1_234, ..SnapshotStats::default() };
        let finished = JobResult {
            status: JobStatus::Finished,
            how: "finished".to_owned(),
            records: 3_000,
            elapsed: Duration::from_millis(1_500),
            checkpoints: 4,
            restarts: 2,
            snapshots,
            ..JobResult::default()
        };
        assert_eq!(
            summary("word-count", &finished),
            "word-count finished: 3000 records in 1.50 s, 2000 records/s, 4 checkpoints, 2 restarts, longest checkpoint \
             pause 1.234 ms"
        );
        let stopped =
            JobResult { status: JobStatus::Cancelled, how: "stopped".to_owned(), ..finished.clone() };
        assert!(summary("word-count", &stopped).starts_with("word-count stopped: 3000 records in 1.50 s, "));
        let once = JobResult { records: 1, checkpoints: 1, restarts: 1, ..finished.clone() };
        assert!(summary("word-count", &once).contains(": 1 record in "));
        assert!(summary("word-count", &once).contains("/s, 1 checkpoint, 1 restart, longest"));
        // One that had finished before says so, and nothing of itself.
        let earlier = JobResult { how: "nothing to do: it finished".to_owned(), ..finished.clone() };
        assert_eq!(summary("word-count", &earlier), "nothing to do: it finished");
        // Nothing was done in no time.
        let instant = JobResult { records: 0, elapsed: Duration::ZERO, ..finished };
        assert!(summary("word-count", &instant).contains(": 0 records in 0.00 s, 0 records/s, "));
    }

    #[test]
    fn functions_that_stay_keep_threads_of_their_own_only() {
        let (release, stay) = std::sync::mpsc::sync_channel::<()>(0);
        let stay = std::sync::Arc::new(std::sync::Mutex::new(stay));
        with_runtime(async |env| {
            for _ in 0..100 {
                let stay = std::sync::Arc::clone(&stay);
                env.spawn_user("stays", async move { drop(stay.lock().map(|stay| stay.recv())) });
            }
            env.spawn_task("control", async {}).join().await
        })
        .expect("control goes on");
        drop(release);
    }

    #[test]
    fn the_help_lists_every_setting() {
        let help = JobArgs::augment_args(Command::new("job")).render_help().to_string();
        for setting in config::settings::SETTINGS {
            let line = help.lines().find(|line| line.starts_with(&format!("  {} ", setting.name)));
            assert!(line.is_some_and(|line| line.ends_with(setting.help)), "{}: {help}", setting.name);
        }
    }

    #[test]
    fn a_job_tells_its_version() {
        #[derive(clap::Parser)]
        #[command(name = "own", version = "7.8")]
        struct Own {
            #[command(flatten)]
            _job: JobArgs,
        }
        let shown = |command: Command| {
            let shown = command.try_get_matches_from(["job", "--version"]).expect_err("it ends the program");
            assert_eq!(shown.kind(), clap::error::ErrorKind::DisplayVersion);
            shown.to_string()
        };
        let called = OsString::from("/a/b/word_count");
        let job = shown(named(JobArgs::augment_args(Command::new("job")), Some(&called)));
        assert_eq!(job.trim_end(), format!("word_count (a job of tidegate {})", env!("CARGO_PKG_VERSION")));
        let own = named(<Own as clap::CommandFactory>::command(), Some(&called));
        assert_eq!(shown(own).trim_end(), "own 7.8");
    }

    #[test]
    fn a_mistake_in_the_command_line_is_one_line() {
        let said = |args: &[&str]| {
            let parsed = JobArgs::augment_args(Command::new("job")).try_get_matches_from(args);
            mistake(&parsed.expect_err("it is a mistake").to_string())
        };
        assert_eq!(said(&["job", "--bogus"]), "error: unexpected argument '--bogus' found; see --help");
        assert_eq!(
            said(&["job", "--chekpoints=c"]),
            "error: unexpected argument '--chekpoints' found; a similar argument exists: '--checkpoints'; see --help"
        );
        assert!(said(&["job", "--rest"]).starts_with("error: a value is required for '--rest <ADDR|off>'"));
        assert!(!said(&["job", "--rest=off", "--rest=off"]).contains('\n'));
    }

    #[test]
    fn the_command_line_is_read_unless_the_program_gives_its_flags() {
        let line = |flag: &str| ["program", flag].map(OsString::from).into_iter();
        let ran = |job: Job, flag: &str| job.run_or_explain(line(flag)).map(|ran| ran.is_some());
        let job = || Job::new("job").rest(RestAddress::Off);
        let read = ran(job(), "--parallelism=0").expect_err("no subtask");
        assert!(read.to_string().starts_with("--parallelism: parallelism = \"0\""), "{read}");
        let bogus = ran(job(), "--bogus").expect_err("no such flag");
        assert_eq!(
            (bogus.kind(), bogus.message()),
            (ErrorKind::InvalidJob, "unexpected argument '--bogus' found; see --help")
        );
        let given = ran(job().args(JobArgs::default()), "--bogus").expect_err("a job without operators");
        assert!(!given.to_string().contains("bogus"), "{given}");
    }
}
