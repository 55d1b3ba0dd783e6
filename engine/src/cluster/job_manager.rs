//! The JobManager: one attempt after the other, until the job has ended or the restart strategy gives up. A fresh start,
//! a restart after a failure and a start after the death of the process take the same path: start record, settle the
//! sinks, restore, deploy, run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use checkpoint::{
    barrier::complete::AttemptPlan,
    coordinator::{self, Coordinator, End},
    history::{
        self, CheckpointKind, From, JobHistory, JobLock, Kind, RestorePlan, Source, StartRequest, Started,
    },
    manifest::{Manifest, PreparedTransaction, TaskId},
    restart::{RestartDecision, RestartState, RestartStrategy},
    savepoint,
};
use env::{Env, Message, Receiver, Rng, Store};
use rand::RngExt;
use types::{
    AttemptId, CheckpointId, Digest, Error, ErrorKind, Lineage, Result, SubtaskIndex, Timestamp, Uid,
};

use super::{
    attempt::{Ask, Attempt, AttemptEnd, Request, Totals},
    build::sinks,
    enumerator::Enumerator,
    journal::Journal,
    link::{LinkReceiver, LinkSender},
    message::{AttemptInfo, SinkToResolve, TaskDeployment, ToJobManager, ToTaskManager},
    resolve::Expected,
    status::{
        At, Cancelled, Cancelling, Created, Failed, Failing, Finished, Finishing, JobStatus, Restarting,
        Running, Suspended, TaskStatus,
    },
    view::{SharedView, TaskView},
};
use crate::{
    api::source::SourceContext,
    graph::{logical::VertexKind, physical::Plan},
    recovery::{compatible, describe, plan as deal},
    task::message::Failure,
};

/// What a start was asked for.
#[derive(Clone, Debug)]
pub(crate) struct StartOptions {
    pub(crate) from: From,
    pub(crate) take_over: bool,
    pub(crate) abandon_pending: bool,
    pub(crate) accept_foreign_output: bool,
    pub(crate) allow_dropped_state: BTreeSet<Uid>,
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobResult {
    /// Finished, or cancelled (also for stopped).
    pub status: JobStatus,
    /// One word: `finished`, `stopped`, `cancelled`; with the time if an earlier run had finished.
    pub how: String,
    /// Records emitted by the sources in the last attempt.
    pub records: u64,
    /// The user's accumulators, added up over all subtasks of the last attempt.
    pub accumulators: BTreeMap<String, u64>,
    /// From the JobManager's start to the end.
    pub elapsed: Duration,
    /// Checkpoints completed by this process.
    pub checkpoints: u64,
    /// Attempts started after failures.
    pub restarts: u32,
    /// The longest step of snapshot work on a task.
    pub longest_pause: Duration,
    /// The newest checkpoint in the job history.
    pub last_checkpoint: Option<CheckpointId>,
}

/// The JobManager of one job.
pub(crate) struct JobManager {
    pub(crate) env: Env,
    pub(crate) plan: Arc<Plan>,
    pub(crate) fingerprint: Digest,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: coordinator::Settings,
    pub(crate) restart: RestartStrategy,
    pub(crate) start: StartOptions,
    pub(crate) view: SharedView,
    pub(crate) to_tasks: LinkSender<ToTaskManager>,
    pub(crate) from_tasks: LinkReceiver<ToJobManager>,
    pub(crate) requests: Receiver<Message<Request>>,
}

/// Where the job stands between two attempts.
enum Position {
    New(At<Created>),
    Waiting(At<Restarting>),
}

/// What a start came to.
enum Launch<'a> {
    Attempt(Box<Attempt<'a>>),
    FinishedEarlier(Timestamp),
}

impl JobManager {
    /// Runs the job to its end.
    ///
    /// # Errors
    /// Why the job failed, was fenced, or could not be started.
    pub(crate) async fn run(mut self) -> Result<JobResult> {
        let since = self.env.now();
        self.view.update(|view| {
            view.name.clone_from(&self.plan.job_name);
            view.since = since;
        });
        let view = self.view.clone();
        let show = Arc::new(move |status: JobStatus| view.update(|view| view.status = status));
        let mut position = Position::New(At::created(show));
        self.register().await?;
        let lock = JobLock::acquire(&self.env, &*self.store, self.start.take_over).await?;
        let mut strategy = RestartState::new(self.restart);
        let mut jitter = self.env.rng("restart-jitter");
        loop {
            let automatic = matches!(position, Position::Waiting(_));
            let (failing, error) = match self.attempt(position, &lock, automatic).await {
                Outcome::Ended(result) => return Ok(self.finish(result, since)),
                Outcome::Refused(error) => return Err(error),
                Outcome::Failed(failing, error) => (failing, error),
                Outcome::RestartNow(failing, error) => {
                    self.env.warn(&format!("restarting from the last checkpoint: {error}"));
                    position = Position::Waiting(failing.become_state());
                    continue;
                }
            };
            self.view.failed(self.env.now(), error.to_string());
            match strategy.on_failure(self.env.now(), error, unit(&mut jitter)) {
                RestartDecision::Restart { after, description } => {
                    self.env.warn(&format!("job {}: {description}", self.plan.job_name));
                    let restarting = failing.become_state::<Restarting>();
                    match self.wait(after).await {
                        None => position = Position::Waiting(restarting),
                        Some(reply) => {
                            return Ok(self.finish(cancel_between(restarting, reply), since));
                        }
                    }
                    self.view.update(|view| view.restarts += 1);
                }
                RestartDecision::Fail { why: error } => {
                    if error.kind() == ErrorKind::Fenced {
                        let _end = failing.become_state::<Suspended>();
                    } else {
                        let _end = failing.become_state::<Failed>();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits for the TaskManager and checks that it runs the same job.
    async fn register(&mut self) -> Result<()> {
        match self.from_tasks.recv().await? {
            Some(ToJobManager::Register { fingerprint, slots }) => {
                if fingerprint != self.fingerprint {
                    return Err(Error::invalid_job(
                        "the TaskManager was started with another program or other settings: its job graph differs",
                    ));
                }
                if slots < self.plan.slots() {
                    return Err(Error::invalid_job(format!(
                        "the job needs {} slots and there are {slots}: lower the parallelism or add slots",
                        self.plan.slots()
                    )));
                }
                Ok(())
            }
            _ => Err(Error::internal("the TaskManager did not register")),
        }
    }

    fn finish(&self, result: JobResult, since: env::Monotonic) -> JobResult {
        let view = self.view.get();
        JobResult {
            elapsed: self.env.now().since(since),
            checkpoints: view.completed_before + view.checkpoints.completed,
            restarts: view.restarts,
            longest_pause: view.longest_pause,
            last_checkpoint: view.last_checkpoint,
            ..result
        }
    }
}

/// How an attempt came out.
enum Outcome {
    Ended(JobResult),
    /// Nothing was started.
    Refused(Error),
    Failed(At<Failing>, Error),
    RestartNow(At<Failing>, Error),
}

impl JobManager {
    async fn attempt(&mut self, position: Position, lock: &JobLock, automatic: bool) -> Outcome {
        if !automatic && let Err(error) = self.check_start().await {
            return Outcome::Refused(error);
        }
        let plan = Arc::clone(&self.plan);
        let mut finishing = false;
        let mut on_finishing = || finishing = true;
        // Until something runs, a first start that fails is refused; a restart that fails is tried again.
        let launched = self.launch(lock, automatic, &mut on_finishing).await;
        let (attempt, running) = match (launched, position) {
            (Ok(Launch::Attempt(attempt)), Position::New(at)) => (attempt, at.become_state::<Running>()),
            (Ok(Launch::Attempt(attempt)), Position::Waiting(at)) => (attempt, at.become_state::<Running>()),
            (Ok(Launch::FinishedEarlier(at)), position) => {
                if let Position::New(created) = position {
                    let _end = created.become_state::<Finished>();
                }
                return Outcome::Ended(finished_earlier(&plan, at));
            }
            (Err(error), Position::New(created)) => {
                return if error.kind() == ErrorKind::Retryable {
                    Outcome::Failed(created.become_state(), error)
                } else {
                    Outcome::Refused(error)
                };
            }
            (Err(error), Position::Waiting(at)) => {
                return Outcome::Failed(at.become_state::<Running>().become_state(), error);
            }
        };
        let id = attempt.info.attempt;
        let (end, totals) = attempt.run().await;
        let cancelled = self.cancel_tasks(id).await;
        self.view.update(|view| view.completed_before += std::mem::take(&mut view.checkpoints.completed));
        match (end, cancelled) {
            (AttemptEnd::Ended(end), _) => Outcome::Ended(self.ended(running, finishing, end, totals)),
            (AttemptEnd::Restart(error), Ok(())) => Outcome::RestartNow(failing(running, finishing), error),
            (AttemptEnd::Failed(error) | AttemptEnd::Restart(error), _) => {
                Outcome::Failed(failing(running, finishing), error)
            }
        }
    }

    fn ended(&self, running: At<Running>, finishing: bool, end: End, totals: Totals) -> JobResult {
        let (status, how) = match end {
            End::Finished => {
                let _end =
                    if finishing { running.become_state::<Finishing>() } else { running.become_state() }
                        .become_state::<Finished>();
                (JobStatus::Finished, "finished")
            }
            End::Stopped | End::Cancelled => {
                let _end = running.become_state::<Cancelling>().become_state::<Cancelled>();
                (JobStatus::Cancelled, if end == End::Stopped { "stopped" } else { "cancelled" })
            }
        };
        let Totals { records, accumulators } = totals;
        JobResult { status, how: how.to_owned(), records, accumulators, ..JobResult::default() }
    }

    /// Everything that can be refused before the start record is: sinks, and whether the state fits.
    async fn check_start(&mut self) -> Result<()> {
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        let standing = newest.as_ref().map(|record| &record.standing);
        let continues = matches!(self.start.from, From::Auto | From::Latest);
        let finished = |kind: &history::EndKind| *kind == history::EndKind::Finished;
        if continues && standing.and_then(|it| it.end.as_ref()).is_some_and(|end| finished(&end.kind)) {
            return Ok(());
        }
        let manifest = match (&self.start.from, standing) {
            (From::Snapshot(location), _) => Some((location.manifest.clone(), location.url().to_owned())),
            (From::Auto | From::Latest, Some(standing)) => match standing.restore_point() {
                history::Restores::Own(own) => {
                    let manifest = checkpoint::manifest::read(&self.env, &*self.store, &own.manifest).await?;
                    Some((Arc::new(manifest), format!("checkpoint {}", own.checkpoint)))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((manifest, place)) = manifest {
            compatible::check(&self.plan, &manifest, &self.start.allow_dropped_state, &place)?;
        }
        let expected = Expected::new(standing, &self.start.from, self.start.accept_foreign_output);
        let nobody = (AttemptId(0), Lineage(0));
        let job = standing.map_or(types::JobId(0), |standing| standing.job);
        let info = AttemptInfo { job, attempt: nobody.0, lineage: nobody.1, restored: CheckpointId(0) };
        self.to_tasks.send(&ToTaskManager::AskSinks { info }).await?;
        let held = self
            .answer(|message| match message {
                ToJobManager::SinksHold { result, .. } => Some(result),
                _ => None,
            })
            .await?;
        for (uid, markers) in held.map_err(Failure::into_error)? {
            expected.check(&uid, &markers)?;
        }
        Ok(())
    }

    /// The first message that is wanted; others are of older attempts.
    async fn answer<T>(&mut self, wanted: impl Fn(ToJobManager) -> Option<T>) -> Result<T> {
        loop {
            let message = self.from_tasks.recv().await?;
            let message = message.ok_or_else(|| Error::internal("the TaskManager is gone"))?;
            if let Some(found) = wanted(message) {
                return Ok(found);
            }
        }
    }

    fn show_all(&self, status: TaskStatus) {
        self.tasks().into_iter().for_each(|task| self.view.show(task, status));
    }

    async fn cancel_tasks(&mut self, attempt: AttemptId) -> Result<()> {
        self.show_all(TaskStatus::Cancelling);
        self.to_tasks.send(&ToTaskManager::Cancel { attempt }).await?;
        let of = |message| match message {
            ToJobManager::Cancelled { attempt: of } if of == attempt => Some(()),
            _ => None,
        };
        self.answer(of).await?;
        self.show_all(TaskStatus::Cancelled);
        Ok(())
    }

    /// From the start record to tasks that are being deployed.
    async fn launch<'a>(
        &'a mut self,
        lock: &JobLock,
        automatic: bool,
        on_finishing: &'a mut (dyn FnMut() + Send + Sync),
    ) -> Result<Launch<'a>> {
        let widest = self.plan.slots();
        let mut request = StartRequest::new(self.plan.job_name.clone(), self.plan.max_parallelism, widest);
        request.automatic = automatic;
        if !automatic {
            request.from = self.start.from.clone();
            request.abandon_pending = self.start.abandon_pending;
        }
        let started = history::start(&self.env, Arc::clone(&self.store), lock, &request).await?;
        let (mut history, restore) = match started {
            Started::Finished { at } => return Ok(Launch::FinishedEarlier(at)),
            Started::Running(history, restore) => (*history, restore),
        };
        let restored = CheckpointId(restore.first_checkpoint.0.saturating_sub(1));
        let info = AttemptInfo {
            job: history.job(),
            attempt: history.attempt(),
            lineage: history.lineage(),
            restored,
        };
        self.announce(&info, &restore);
        let last_kind = history.standing().completed.last().map(|it| it.kind);
        self.settle_sinks(&info, &restore, &mut history).await?;
        let manifest = self.manifest(&info, &history, &restore.source).await?;
        if let Some(manifest) = &manifest {
            compatible::check(
                &self.plan,
                manifest,
                &self.start.allow_dropped_state,
                "the snapshot to restore",
            )?;
        }
        let enumerators = self.deploy(&info, manifest.as_deref()).await?;
        let attempt_plan = Arc::new(self.attempt_plan(&info));
        let coordinator = match resumed_stop(automatic, last_kind, &restore) {
            Some(remaining) => {
                Coordinator::resume(self.settings.clone(), Arc::clone(&attempt_plan), remaining)
            }
            None => Coordinator::new(self.settings.clone(), Arc::clone(&attempt_plan), restored),
        };
        let journal =
            Journal::start(&self.env, Arc::clone(&self.store), history, self.settings.retained as usize);
        Ok(Launch::Attempt(Box::new(Attempt {
            env: self.env.clone(),
            store: Arc::clone(&self.store),
            info,
            plan: attempt_plan,
            coordinator,
            enumerators,
            journal,
            view: self.view.clone(),
            to_tasks: &self.to_tasks,
            from_tasks: &mut self.from_tasks,
            requests: &mut self.requests,
            on_finishing,
        })))
    }

    fn announce(&self, info: &AttemptInfo, restore: &RestorePlan) {
        self.env.warn(&format!("job {}: attempt {}: {}", self.plan.job_name, info.attempt, restore.summary));
        let tasks = self.tasks().into_iter().map(|task| (task, TaskView::default())).collect();
        self.view.update(|view| {
            view.attempt = Some((info.attempt, info.lineage));
            view.started_from.clone_from(&restore.summary);
            view.tasks = tasks;
        });
    }

    /// What the history completed is committed, everything else thrown away, before anything runs.
    async fn settle_sinks(
        &mut self,
        info: &AttemptInfo,
        restore: &RestorePlan,
        history: &mut JobHistory,
    ) -> Result<()> {
        let mut work: BTreeMap<Uid, Vec<PreparedTransaction>> = BTreeMap::new();
        for (uid, ..) in sinks(&self.plan) {
            work.entry(uid).or_default();
        }
        for pending in &restore.pending {
            for operator in &pending.manifest.operators {
                let prepared = operator.subtasks.iter().flat_map(|subtask| subtask.prepared.iter().cloned());
                let name = self.current_name(&operator.uid);
                let into = work.entry(name).or_default();
                into.extend(prepared);
            }
        }
        for transactions in work.values_mut() {
            transactions.sort_by_key(|it| (it.checkpoint, it.writer));
            transactions.dedup();
        }
        let sinks = work.into_iter().map(|(uid, commit)| SinkToResolve { uid, commit }).collect();
        self.to_tasks.send(&ToTaskManager::ResolveSinks { info: *info, sinks }).await?;
        let of = info.attempt;
        let resolved = self.answer(|message| match message {
            ToJobManager::SinksResolved { attempt, result } if attempt == of => Some(result),
            _ => None,
        });
        resolved.await?.map_err(Failure::into_error)?;
        if let Some(last) = restore.pending.last() {
            history.append(Kind::SinksConfirmed(last.permit.checkpoint())).await?;
        }
        Ok(())
    }

    /// The uid under which an operator of a snapshot is known now.
    fn current_name(&self, uid: &Uid) -> Uid {
        let renamed = self.plan.graph.vertices.iter().find(|vertex| vertex.formerly.contains(uid));
        renamed.and_then(|vertex| vertex.uid.clone()).unwrap_or_else(|| uid.clone())
    }

    /// The manifest to restore, with all files in the job's own directory.
    async fn manifest(
        &self,
        info: &AttemptInfo,
        history: &JobHistory,
        source: &Source,
    ) -> Result<Option<Arc<Manifest>>> {
        match source {
            Source::Empty => Ok(None),
            Source::Own { manifest, .. } => Ok(Some(Arc::clone(manifest))),
            Source::Foreign { store, manifest } => {
                let _owns_the_job = history;
                let own =
                    savepoint::import(&self.env, &**store, manifest, &*self.store, info.attempt).await?;
                Ok(Some(Arc::new(own)))
            }
        }
    }

    /// Deals the state out and sends the tasks on their way. Returns the split enumerators by source.
    async fn deploy(
        &mut self,
        info: &AttemptInfo,
        manifest: Option<&Manifest>,
    ) -> Result<BTreeMap<Uid, (u32, Enumerator)>> {
        let mut restored = match manifest {
            Some(manifest) => deal::deal(&self.plan, manifest)?,
            None => deal::Restored::default(),
        };
        let mut enumerators = BTreeMap::new();
        for (index, chain) in self.plan.chains.iter().enumerate() {
            let first = self.plan.vertex(chain.vertices[0]);
            let (VertexKind::Source(source), Some(uid)) = (&first.kind, &first.uid) else { continue };
            let splits = match restored.splits.remove(uid) {
                Some(splits) => splits,
                None => {
                    let (env, subtask, parallelism) = (self.env.clone(), SubtaskIndex(0), chain.parallelism);
                    let context = SourceContext { uid: uid.clone(), env, subtask, parallelism };
                    source.discover(&context).await.map_err(|error| error.context(format!("source {uid}")))?
                }
            };
            let enumerator = Enumerator::new(source.boundedness(), chain.parallelism, splits);
            enumerators.insert(uid.clone(), (u32::try_from(index).unwrap_or(u32::MAX), enumerator));
        }
        let deployment =
            |task: TaskId| TaskDeployment { task, restore: restored.tasks.remove(&task).unwrap_or_default() };
        let tasks = self.tasks().into_iter().map(deployment).collect();
        self.show_all(TaskStatus::Scheduled);
        self.to_tasks.send(&ToTaskManager::Deploy { info: *info, tasks }).await?;
        self.show_all(TaskStatus::Deploying);
        Ok(enumerators)
    }

    fn tasks(&self) -> BTreeSet<TaskId> {
        let chains = self.plan.chains.iter().enumerate();
        let of = |(index, chain): (usize, &crate::graph::physical::Chain)| {
            let chain_index = u32::try_from(index).unwrap_or(u32::MAX);
            (0..chain.parallelism)
                .map(move |subtask| TaskId { chain: chain_index, subtask: SubtaskIndex(subtask) })
        };
        chains.flat_map(of).collect()
    }

    fn attempt_plan(&self, info: &AttemptInfo) -> AttemptPlan {
        let is_source = |task: &TaskId| {
            let first = self.plan.chains[task.chain as usize].vertices[0];
            matches!(self.plan.vertex(first).kind, VertexKind::Source(_))
        };
        let tasks = self.tasks();
        AttemptPlan {
            job_name: self.plan.job_name.clone(),
            job: info.job,
            lineage: info.lineage,
            attempt: info.attempt,
            max_parallelism: self.plan.max_parallelism,
            sources: tasks.iter().copied().filter(is_source).collect(),
            tasks,
            operators: describe::operators(&self.plan),
        }
    }

    /// Waits before the next attempt. A cancellation ends the wait; everything else is told to come back.
    async fn wait(&mut self, span: Duration) -> Option<Request> {
        let until = self.env.now() + span;
        loop {
            let left = until.since(self.env.now());
            let request = tokio::select! {
                biased;
                request = self.requests.recv() => request,
                () = self.env.sleep(left) => return None,
            };
            match request {
                None => {
                    self.env.sleep(left).await;
                    return None;
                }
                Some(Message(request)) if request.ask == Ask::Cancel => return Some(request),
                Some(Message(request)) => {
                    let busy = Error::retryable("the job is restarting: ask again when it runs");
                    let _gone = request.reply.send(Err(busy));
                }
            }
        }
    }
}

/// Ends a job that waits for its next attempt. No attempt runs that could say so in the history; the next start goes on
/// from the last checkpoint, as after every cancellation.
fn cancel_between(restarting: At<Restarting>, request: Request) -> JobResult {
    let cancelling = restarting.become_state::<Cancelling>();
    let _end = cancelling.become_state::<Cancelled>();
    let answer = coordinator::Answer::Ended { end: End::Cancelled, checkpoint: None, savepoint: None };
    let _gone = request.reply.send(Ok(answer));
    JobResult { status: JobStatus::Cancelled, how: "cancelled".to_owned(), ..JobResult::default() }
}

fn failing(running: At<Running>, finishing: bool) -> At<Failing> {
    if finishing { running.become_state::<Finishing>().become_state() } else { running.become_state() }
}

/// A stop whose checkpoint is in the history and whose end is not: an automatic restart only does what remains.
fn resumed_stop(
    automatic: bool,
    last: Option<CheckpointKind>,
    restore: &RestorePlan,
) -> Option<coordinator::Remaining> {
    let Source::Own { checkpoint, .. } = &restore.source else { return None };
    let end = match last? {
        CheckpointKind::Stop => End::Stopped,
        _ => return None,
    };
    automatic.then_some(coordinator::Remaining {
        checkpoint: checkpoint.checkpoint,
        end,
        stop: None,
        savepoint: None,
    })
}

fn finished_earlier(plan: &Plan, at: Timestamp) -> JobResult {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    let how = format!("job {} finished at {}", plan.job_name, humantime::format_rfc3339_seconds(time));
    JobResult { status: JobStatus::Finished, how, ..JobResult::default() }
}

/// Between -1 and 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.random_range(-1.0..=1.0)
}
