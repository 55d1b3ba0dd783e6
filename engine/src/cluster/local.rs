//! Everything in one process: a JobManager and a TaskManager joined by links, REST beside them. The one place where a
//! job's settings become a running cluster.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use checkpoint::{
    history::{From, JobLock},
    local_recovery::LocalRecovery,
    savepoint::SnapshotLocation,
    storage::{
        paths::{SAVEPOINT_MANIFEST, SAVEPOINT_PARTIAL},
        retry::Retry,
    },
};
use env::{Env, Limits, MemoryLimit, Message, Sender, Store, StoreRequests, TaskHandle, channel};
use statebackend::{
    MergePolicy,
    store::{MemoryUse, StoreSettings, Stores},
};
use tokio::sync::oneshot;
use types::{Error, Result};

use super::{
    attempt::Ask,
    build::RuntimeOptions,
    job_manager::{JobManager, JobResult, StartOptions},
    link::link,
    lives::Lives,
    message::{ToJobManager, ToTaskManager},
    requests::{Request, Requests},
    retention::Retention,
    status::JobStatus,
    task_manager::TaskManager,
    view::{JobView, SharedView},
};
use crate::{
    config::{RestAddress, Settings},
    graph::{physical::Plan, validate::exactly_once_sinks},
    metrics::Metrics,
    rest::RestServer,
    task::{message::TaskTotals, run::TaskOptions, working::Working},
};

/// A running job.
pub struct JobHandle {
    env: Env,
    control: JobControl,
    result: oneshot::Receiver<Result<JobResult>>,
    tasks: Vec<TaskHandle>,
    rest: Option<RestServer>,
}

/// Asks a running job for things and shows its state. Cheap to clone.
#[derive(Clone)]
pub struct JobControl {
    env: Env,
    requests: Sender<Message<Request>>,
    view: SharedView,
    metrics: Metrics,
    plan: Arc<Plan>,
    checkpoint_url: Option<Arc<str>>,
    stores: Option<Stores>,
    checkpoints: Arc<dyn Store>,
}

impl JobControl {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Why it could not be done; `Retryable` if the job is just restarting, `Cancelled` if it has ended.
    pub async fn ask(&self, ask: Ask) -> Result<checkpoint::coordinator::Answer> {
        let ask = self.with_absolute_dirs(ask)?;
        let (reply, answer) = oneshot::channel();
        let ended = || Error::cancelled("the job has ended");
        self.requests.send(Message(Request { ask, reply })).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// The same with directories whose names mean the same to whoever reads them later, wherever that is.
    fn with_absolute_dirs(&self, ask: Ask) -> Result<Ask> {
        let absolute = |dir: String| env::absolute(&*self.env.files(), &dir);
        Ok(match ask {
            Ask::Savepoint(dir) => Ask::Savepoint(absolute(dir)?),
            Ask::Stop { drain, savepoint } => {
                Ask::Stop { drain, savepoint: savepoint.map(absolute).transpose()? }
            }
            other => other,
        })
    }

    /// The job's state now.
    #[must_use]
    pub fn view(&self) -> JobView {
        self.view.get()
    }

    /// The numbers of this process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The memory of working state, where it is not all in memory.
    #[must_use]
    pub fn memory_use(&self) -> Option<MemoryUse> {
        self.stores.as_ref().map(Stores::memory_use)
    }

    /// The requests to the checkpoint directory, where it is behind a network.
    #[must_use]
    pub fn store_requests(&self) -> Vec<StoreRequests> {
        self.checkpoints.requests()
    }

    /// The job's plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where checkpoints go, if anywhere: an absolute path where it is a directory.
    #[must_use]
    pub fn checkpoint_url(&self) -> Option<&str> {
        self.checkpoint_url.as_deref()
    }
}

impl JobHandle {
    /// Asks the job for things.
    #[must_use]
    pub fn control(&self) -> &JobControl {
        &self.control
    }

    /// Where REST listens, with the real port where 0 was asked for; `None` if it is off.
    #[must_use]
    pub fn rest_address(&self) -> Option<&str> {
        self.rest.as_ref().map(RestServer::address)
    }

    /// Waits for the job's end, and until those who asked for it over REST know.
    ///
    /// A function of the user's that does not return keeps a thread of its runtime beyond the end of its job: nothing else
    /// should be started in a process that is told so.
    ///
    /// # Errors
    /// Why the job failed or could not be started.
    pub async fn join(self) -> Result<JobResult> {
        let result = self.result.await;
        if let Some(rest) = self.rest {
            rest.end(&self.env).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        result.unwrap_or_else(|_| Err(Error::internal("the JobManager ended without a result")))
    }
}

/// Starts `plan` in this process.
///
/// # Errors
/// `InvalidJob` for settings that do not go together; `Conflict` if another process runs the job; `Unavailable` if the
/// checkpoint directory or the REST address cannot be used.
pub(crate) async fn start(env: &Env, plan: Plan, settings: Settings) -> Result<JobHandle> {
    check_guarantees(&plan, &settings)?;
    let stores = stores(&settings, &plan)?;
    let plan = Arc::new(plan);
    // Opening the store makes its directory.
    let from = from(env, &settings).await?;
    // Without a URL the history of the job lives and dies with it: one path for all jobs.
    let store = match settings.checkpoint_url.as_deref() {
        None => env.private_store(memory_limit(&settings)),
        Some(url) => {
            let store = env.open_store(url)?;
            check_no_savepoint(env, &*store).await?;
            if let Some(limit) = memory_limit(&settings) {
                store.limit_memory(limit);
            }
            store
        }
    };
    if settings.is_volatile() {
        env.warn(&format!("job {}: checkpoints are kept in memory and die with this process", plan.job_name));
    }
    let checkpoint_url = settings.checkpoint_url.as_deref().map(|url| env::absolute(&*env.files(), url));
    let checkpoint_url = checkpoint_url.transpose()?.map(Arc::from);
    // Before the REST address is asked for, which another process of this job would hold as well: what is in the way is
    // that process, not its port.
    let lock = JobLock::acquire(env, &*store, settings.take_over).await?;
    let metrics = Metrics::default();
    let view = SharedView::default();
    let (to_tasks, from_job_manager) = link::<ToTaskManager>(env);
    let (to_job_manager, from_tasks) = link::<ToJobManager>(env);
    let (requests, request_receiver) = channel(env, Limits::items(64));
    let fingerprint = plan.fingerprint();
    let working = match &stores {
        Some(stores) => Some(working(env, &settings, stores.clone(), &plan).await?),
        None => None,
    };
    let local = local_recovery(env, &settings, &plan);
    let task_manager = TaskManager {
        env: env.clone(),
        plan: Arc::clone(&plan),
        fingerprint,
        options: options(&settings, working, local.clone()),
        store: Arc::clone(&store),
        metrics: metrics.clone(),
        slots: plan.slots(),
        to_job_manager,
    };
    let checkpoints = Arc::clone(&store);
    let warn = env.clone();
    let task_manager = env.spawn_task("task manager", async move {
        if let Err(error) = task_manager.run(from_job_manager).await {
            warn.warn(&format!("TaskManager: {error}"));
        }
    });
    let mut job_manager = JobManager {
        env: env.clone(),
        plan: Arc::clone(&plan),
        fingerprint,
        store,
        settings: settings.checkpoints.clone(),
        restart: settings.restart_strategy(),
        start: StartOptions {
            from,
            abandon_pending: settings.abandon_pending,
            accept_foreign_output: settings.accept_foreign_output,
            allow_dropped_state: settings.allow_dropped_state.clone(),
            allow_moved: settings.allow_moved.clone(),
        },
        retention: Retention {
            keep_on_cancel: settings.keep_on_cancel,
            keep_on_failure: settings.keep_on_failure,
        },
        compression: settings.compression,
        view: view.clone(),
        lives: Lives::new(view.clone()),
        to_tasks,
        from_tasks,
        totals: TaskTotals::default(),
        unfinished: None,
        suspicion: None,
        places: BTreeMap::new(),
        has_started: false,
        has_run: false,
        stuck: None,
        rest: None,
    };
    let open_requests = Requests::new(request_receiver);
    let control =
        JobControl { env: env.clone(), requests, view, metrics, plan, checkpoint_url, stores, checkpoints };
    let rest = match &settings.rest {
        RestAddress::At(address) => {
            // The process that is taken over holds it until it finds itself fenced.
            let may_wait = settings.take_over;
            let rest = RestServer::start(env, address, control.clone(), may_wait).await?;
            job_manager.rest = rest.announcement();
            Some(rest)
        }
        RestAddress::Off => None,
    };
    let Settings { keep_on_cancel, keep_on_failure, .. } = settings;
    let (done, result) = oneshot::channel();
    let job_manager = env.spawn_task("job manager", async move {
        let result = job_manager.run(lock, open_requests).await;
        // What no start will restore needs no copies.
        let is_over = match result.as_ref().map(|result| result.status) {
            Ok(JobStatus::Finished) => true,
            Ok(JobStatus::Cancelled) => !keep_on_cancel,
            Ok(_) => false,
            Err(_) => !keep_on_failure,
        };
        if let Some(local) = local.filter(|_| is_over) {
            local.clear().await;
        }
        // Whoever started the job may have gone.
        let _gone = done.send(result);
    });
    Ok(JobHandle { env: env.clone(), control, result, tasks: vec![task_manager, job_manager], rest })
}

/// A savepoint is its user's, and none of a job's own checkpoints could be seen beside it.
async fn check_no_savepoint(env: &Env, store: &dyn Store) -> Result<()> {
    let look = |file| Retry::STORE.run(env, "look for a savepoint", move || store.len(file));
    let what = match futures::try_join!(look(SAVEPOINT_MANIFEST), look(SAVEPOINT_PARTIAL))? {
        (None, None) => return Ok(()),
        (Some(_), _) => "is a savepoint",
        (None, Some(_)) => "holds a savepoint that is not whole",
    };
    let url = store.url();
    Err(Error::invalid_job(format!(
        "--checkpoints {url}: {url} {what}, and no place for checkpoints: give them a directory of their own, and --from \
         {url} to start from it"
    )))
}

/// What a job may promise under its settings.
fn check_guarantees(plan: &Plan, settings: &Settings) -> Result<()> {
    let exactly_once = exactly_once_sinks(&plan.graph);
    let Some(uid) = exactly_once.first() else { return Ok(()) };
    if !settings.takes_checkpoints() {
        return Err(Error::invalid_job(format!(
            "sink {uid} is exactly-once and commits with checkpoints, and the job takes none: add --checkpoints DIR"
        )));
    }
    if settings.is_volatile() && !settings.allow_volatile {
        return Err(Error::invalid_job(format!(
            "sink {uid} is exactly-once, but checkpoints in memory die with the process: use --state filesystem \
             --checkpoints DIR, or accept that with --allow-volatile"
        )));
    }
    Ok(())
}

/// Checkpoints that people want in memory are limited; a job without checkpoints has nothing there but its end.
fn memory_limit(settings: &Settings) -> Option<MemoryLimit> {
    settings.is_volatile().then_some(MemoryLimit {
        bytes: settings.memory_max_size as u64,
        advice: "raise checkpoints.memory-max-size, or keep them in a directory with --state filesystem \
                 --checkpoints DIR",
    })
}

async fn from(env: &Env, settings: &Settings) -> Result<From> {
    match &*settings.from {
        from @ ("auto" | "latest") if settings.begin_again => Err(Error::invalid_job(format!(
            "--begin-again begins once more from a checkpoint or savepoint, and --from {from} names none: add --from \
             SNAPSHOT, or start fresh with --from none"
        ))),
        "auto" => Ok(From::Auto),
        "latest" => Ok(From::Latest),
        "none" => Ok(From::None),
        path if settings.begin_again => {
            let found = SnapshotLocation::resolve(env, path).await;
            found.map(From::Anew).map_err(|error| error.context("--from"))
        }
        path => {
            let found = From::named(env, path, settings.checkpoint_url.as_deref()).await;
            found.map_err(|error| error.context("--from"))
        }
    }
}

/// The stores behind keyed state, for backends that have them.
fn stores(settings: &Settings, plan: &Plan) -> Result<Option<Stores>> {
    let Some(name) = settings.backend.store() else { return Ok(None) };
    let (memory, options) = (settings.state_memory, &settings.state_options);
    let stores = Stores::new(name, &StoreSettings { memory, stores: plan.keyed_subtasks(), options });
    stores.map(Some).map_err(|error| error.context(format!("--state {name}")))
}

/// Where the working state and the copies of this process are.
fn state_directory(env: &Env, settings: &Settings) -> PathBuf {
    let temporary = || env.var("TMPDIR").unwrap_or_else(|| "/var/tmp".to_owned());
    PathBuf::from(settings.state_directory.clone().unwrap_or_else(temporary))
}

/// Copies of what checkpoints hold; none of those that die with this process.
fn local_recovery(env: &Env, settings: &Settings, plan: &Plan) -> Option<LocalRecovery> {
    let limit =
        settings.local_recovery.filter(|_| settings.takes_checkpoints() && !settings.is_volatile())?;
    Some(LocalRecovery::new(env, &plan.job_name, state_directory(env, settings), limit as u64))
}

/// A place for them.
async fn working(env: &Env, settings: &Settings, stores: Stores, plan: &Plan) -> Result<Arc<Working>> {
    let root = state_directory(env, settings);
    let (world, job) = (env.clone(), plan.job_name.clone());
    let start = move || Working::start(&world, &root, stores, &job);
    Ok(Arc::new(env.blocking("make a directory for working state", start).await??))
}

fn options(
    settings: &Settings,
    working: Option<Arc<Working>>,
    local: Option<LocalRecovery>,
) -> RuntimeOptions {
    RuntimeOptions {
        task: TaskOptions {
            batch_records: settings.batch_records,
            source_rate: settings.source_rate,
            flush: settings.batch_flush,
            watermark_interval: settings.watermark_interval,
            slice_cells: settings.slice_cells,
        },
        mode: settings.checkpoints.mode,
        channel_records: settings.channel_records,
        channel_bytes: settings.channel_bytes,
        local,
        working,
        compression: settings.compression,
        cancellation_timeout: settings.cancellation_timeout,
        merge: MergePolicy {
            fan_in: settings.merge_fan_in,
            max_runs: settings.max_runs,
            replace_from: settings.replace_from as u64,
            ..MergePolicy::default()
        },
    }
}
