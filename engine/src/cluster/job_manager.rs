//! The JobManager: one attempt after the other, until the job has ended or the restart strategy gives up. How an attempt
//! is started is told in [`launch`](super::launch), how it runs in [`attempt`](super::attempt). A cancellation is heard
//! in every state of the job: while its attempt is being started, runs, or is waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use checkpoint::{
    coordinator::{self, Answer, End, Remaining, RequestId},
    history::{self, EndKind, From, JobLock, Kind},
    restart::{RestartDecision, RestartState, RestartStrategy},
};
use env::{Env, Rng, Store};
use rand::RngExt;
use statebackend::RunCompression;
use types::{AttemptId, CheckpointId, Digest, Error, ErrorKind, Result, Timestamp, Uid};

use super::{
    attempt::{AttemptEnd, Ran},
    launch::{Begun, Launch, NO_ATTEMPT},
    link::{LinkReceiver, LinkSender},
    lives::Lives,
    message::{ToJobManager, ToTaskManager},
    requests::Requests,
    retention::Retention,
    status::{
        At,
        job::{Cancelled, Failed, Failing, JobStatus, Live, Suspended, Waiting},
        task::Change,
    },
    view::SharedView,
};
use crate::{
    graph::physical::Plan,
    task::message::{SnapshotStats, TaskTotals},
};

/// What a start was asked for.
#[derive(Clone, Debug)]
pub(crate) struct StartOptions {
    pub(crate) from: From,
    pub(crate) abandon_pending: bool,
    pub(crate) accept_foreign_output: bool,
    pub(crate) allow_dropped_state: BTreeSet<Uid>,
    pub(crate) allow_moved: BTreeSet<Uid>,
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobResult {
    /// Finished, or cancelled (also for stopped).
    pub status: JobStatus,
    /// One word: `finished`, `stopped`, `cancelled`; with the time if an earlier run had finished.
    pub how: String,
    /// Records emitted by the sources in the last attempt that read any. No checkpoint holds it: a process that goes on
    /// with the job of another one counts from there.
    pub records: u64,
    /// The user's accumulators, added up over all subtasks of that attempt.
    pub accumulators: BTreeMap<String, u64>,
    /// From the JobManager's start to the end.
    pub elapsed: Duration,
    /// Checkpoints completed by this process.
    pub checkpoints: u64,
    /// Attempts started after failures.
    pub restarts: u32,
    /// What the snapshots of all tasks cost.
    pub snapshots: SnapshotStats,
    /// The newest checkpoint in the job history.
    pub last_checkpoint: Option<CheckpointId>,
}

/// So long a cancellation waits for the history to say whose the job is.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// So long nothing is said of a failure whose tasks have not ended.
const QUIET: Duration = Duration::from_secs(1);

/// How a job ended that was cancelled, in [`JobResult::how`].
const CANCELLED: &str = "cancelled";

/// The JobManager of one job.
pub(crate) struct JobManager {
    pub(crate) env: Env,
    pub(crate) plan: Arc<Plan>,
    pub(crate) fingerprint: Digest,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: coordinator::Settings,
    pub(crate) restart: RestartStrategy,
    pub(crate) start: StartOptions,
    pub(crate) retention: Retention,
    pub(crate) compression: RunCompression,
    pub(crate) view: SharedView,
    pub(crate) lives: Lives,
    pub(crate) to_tasks: LinkSender<ToTaskManager>,
    pub(crate) from_tasks: LinkReceiver<ToJobManager>,
    /// What the last attempt that did anything has done.
    pub(crate) totals: TaskTotals,
    /// An end of the job that a failed attempt left undone.
    pub(crate) unfinished: Option<Unfinished>,
    /// Damage that the last attempt found: perhaps in the checkpoint that it restored.
    pub(crate) suspicion: Option<Error>,
    /// Where the sources and sinks are that have a place; known from the first start on.
    pub(crate) places: BTreeMap<Uid, String>,
    /// Whether this process has created a start record.
    pub(crate) has_started: bool,
    /// Whether all tasks of an attempt of this process were running at once.
    pub(crate) has_run: bool,
    /// Tasks that do not end: no other attempt may run beside them.
    pub(crate) stuck: Option<Error>,
    /// Where REST listens, to be told once the job goes on.
    pub(crate) rest: Option<String>,
}

/// An end of the job whose checkpoint is in the history, or may be, and whose attempt has failed.
pub(crate) struct Unfinished {
    pub(crate) remaining: Remaining,
    /// What its tasks had done when they failed: nothing is left for others to do.
    totals: TaskTotals,
    /// How the attempt failed.
    why: Error,
}

impl JobManager {
    /// Runs the job to its end, and holds the lock until then.
    ///
    /// # Errors
    /// Why the job failed, was fenced, or could not be started.
    pub(crate) async fn run(mut self, lock: JobLock, mut requests: Requests) -> Result<JobResult> {
        let ended = self.attempts(&lock, &mut requests).await;
        let last_word = match &ended {
            Ok(result) => Error::cancelled(format!("the job is {}", result.how)),
            Err(error) => Error::new(error.kind(), error.to_string()),
        };
        requests.refuse(&last_word);
        ended
    }

    async fn attempts(&mut self, lock: &JobLock, requests: &mut Requests) -> Result<JobResult> {
        let since = self.env.now();
        self.view.update(|view| {
            view.name.clone_from(&self.plan.job_name);
            view.since = since;
        });
        let view = self.view.clone();
        let show = Arc::new(move |status: JobStatus| view.update(|view| view.status = status));
        let mut position = Waiting::New(At::first(show));
        if let Err(error) = self.register().await {
            position.give_up(error.kind());
            return Err(error);
        }
        let mut strategy = RestartState::new(self.restart);
        let mut jitter = self.env.rng("restart-jitter");
        loop {
            let (failing, error) = match self.attempt(position, lock, requests).await {
                Outcome::Ended(result) => return Ok(self.finish(result, since)),
                Outcome::Cancelled(result) => {
                    let result = self.finish(result, since);
                    self.let_go_cancelled(lock).await;
                    return Ok(result);
                }
                Outcome::Refused(error) => {
                    return Err(self.fenced(lock, &error).await.unwrap_or(error));
                }
                Outcome::Suspended(error) => {
                    self.view.failed(self.env.now(), error.to_string());
                    return Err(error);
                }
                Outcome::Failed(failing, error) => (failing, error),
                Outcome::RestartNow(failing) => {
                    position = Waiting::Restarting(failing.become_state());
                    continue;
                }
            };
            self.view.failed(self.env.now(), error.to_string());
            if let Err(unusable) = self.store.check_usable() {
                let _end = failing.become_state::<Failed>();
                return Err(unusable);
            }
            if let Some(stuck) = self.stuck.take() {
                let _end = failing.become_state::<Failed>();
                let remedy =
                    "nothing else can run in this process, start it again to go on from the last checkpoint";
                return Err(Error::new(error.kind(), format!("{error}; {stuck}: {remedy}")));
            }
            if self.to_tasks.is_closed() {
                // No attempt of this process could run.
                let _end = failing.become_state::<Failed>();
                return Err(error);
            }
            let (now, unit) = (self.env.now(), unit(&mut jitter));
            let decision = match self.suspicion {
                Some(_) => strategy.on_damage(now, error, unit),
                None => strategy.on_failure(now, error, unit),
            };
            match decision {
                RestartDecision::Restart { after, description } => {
                    self.env.warn(&format!("job {}: {description}", self.plan.job_name));
                    position = Waiting::Restarting(failing.become_state());
                    let request = tokio::select! {
                        biased;
                        request = requests.cancelled_wait() => Some(request),
                        () = self.env.sleep(after) => None,
                    };
                    if let Some(request) = request {
                        let result = self.cancel(position, None, lock, requests, request).await?;
                        let result = self.finish(result, since);
                        self.let_go_cancelled(lock).await;
                        return Ok(result);
                    }
                    self.view.update(|view| view.restarts += 1);
                }
                RestartDecision::Fail { why: error } => {
                    if let Some(fenced) = self.fenced(lock, &error).await {
                        let _end = failing.become_state::<Suspended>();
                        return Err(fenced);
                    }
                    let error = self.with_choices(error, requests).await;
                    let _end = failing.become_state::<Failed>();
                    self.let_go_failed(lock, &error).await;
                    return Err(error);
                }
            }
        }
    }

    /// The error of a job that ends by damage that its last attempt found: if that is in the checkpoint which every start
    /// would restore, the user learns the choices. To know, all of it is read: whoever cancels does not wait for that.
    async fn with_choices(&mut self, error: Error, requests: &mut Requests) -> Error {
        if self.suspicion.take().is_none() {
            return error;
        }
        let examined = tokio::select! {
            biased;
            // The job has failed already: that is what is answered.
            _request = requests.cancelled_start() => return error,
            examined = self.revocation(true, true) => examined,
        };
        match examined {
            Err(refused) if refused.kind() == ErrorKind::Corrupt => refused,
            _ => error,
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
            snapshots: view.snapshots,
            last_checkpoint: view.last_checkpoint,
            ..result
        }
    }
}

/// How an attempt came out.
enum Outcome {
    /// Finished or stopped.
    Ended(JobResult),
    Cancelled(JobResult),
    /// Nothing was started.
    Refused(Error),
    /// Another process owns the job.
    Suspended(Error),
    Failed(At<Failing>, Error),
    RestartNow(At<Failing>),
}

impl JobManager {
    async fn attempt(&mut self, position: Waiting, lock: &JobLock, requests: &mut Requests) -> Outcome {
        // Until this process has created a start record, each try is a first start.
        let automatic = self.has_started && matches!(position, Waiting::Restarting(_));
        let mut begun = None;
        let launched = tokio::select! {
            biased;
            request = requests.cancelled_start() => Err(request),
            launched = self.launch(lock, automatic, &mut begun) => Ok(launched),
        };
        let attempt = match launched {
            Ok(Ok(Launch::Attempt(attempt))) => attempt,
            Ok(Ok(Launch::Refused(error))) => {
                position.give_up(error.kind());
                return Outcome::Refused(error);
            }
            Ok(Ok(Launch::FinishedEarlier(at))) => return self.finished_earlier(position, at, requests),
            Ok(Err(error)) => {
                self.end_lives();
                return launch_failed(position, error);
            }
            Err(request) => {
                return match self.cancel(position, begun, lock, requests, request).await {
                    Ok(result) => Outcome::Cancelled(result),
                    Err(fenced) => Outcome::Suspended(fenced),
                };
            }
        };
        self.refuse_undone_stop(&attempt.coordinator, requests);
        let live = position.run();
        let id = attempt.info.attempt;
        let ran = attempt.run(live, &mut self.from_tasks, &mut self.lives, requests).await;
        let Ran { end, has_run, remaining } = ran;
        self.has_run |= has_run;
        let cancelled = self.end_tasks(id, &end).await;
        let totals = cancelled.as_ref().cloned().unwrap_or_default();
        if totals != TaskTotals::default() {
            self.totals.clone_from(&totals);
        }
        self.view.update(|view| view.completed_before += std::mem::take(&mut view.checkpoints.completed));
        // An attempt that only ends what an earlier one left undone has no tasks.
        let totals = self.unfinished.take().map_or(totals, |unfinished| unfinished.totals);
        match (end, cancelled) {
            (AttemptEnd::Ended(live, end @ End::Cancelled), _) => {
                Outcome::Cancelled(ended(live, end, std::mem::take(&mut self.totals)))
            }
            (AttemptEnd::Ended(live, end), _) => Outcome::Ended(ended(live, end, totals)),
            (AttemptEnd::Suspended(error), _) => Outcome::Suspended(error),
            (AttemptEnd::Restart(failing, error), Ok(_)) if self.stuck.is_none() => {
                self.env.warn(&format!("restarting from the last checkpoint: {error}"));
                Outcome::RestartNow(failing)
            }
            (AttemptEnd::Failed(failing, error) | AttemptEnd::Restart(failing, error), _) => {
                let why = Error::new(error.kind(), error.to_string());
                if error.kind() == ErrorKind::Corrupt {
                    // The next start finds out whether there is an older checkpoint to go on from.
                    self.suspicion = Some(Error::new(error.kind(), error.to_string()));
                }
                self.unfinished = remaining.map(|remaining| Unfinished { remaining, totals, why });
                Outcome::Failed(failing, error)
            }
        }
    }

    /// A stop whose attempt failed when nobody could know whether its checkpoint was in the history: it was not, and the
    /// job goes on.
    fn refuse_undone_stop(&mut self, next: &coordinator::Coordinator, requests: &mut Requests) {
        let Some(unfinished) = self.unfinished.take_if(|_| next.remaining().is_none()) else { return };
        if let Some(stop) = unfinished.remaining.stop {
            let checkpoint = unfinished.remaining.checkpoint;
            let kind = unfinished.why.kind();
            let error =
                Error::new(kind, format!("checkpoint {checkpoint} of the stop failed: {}", unfinished.why));
            requests.answer(stop.request, Err(error));
        }
    }

    /// The job has finished: before this process began, or as the last thing that a failed attempt of it did.
    fn finished_earlier(&mut self, position: Waiting, at: Timestamp, requests: &mut Requests) -> Outcome {
        let how = match position {
            Waiting::New(_) => {
                let time = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
                format!(
                    "nothing to do: job {} finished at {}; a new run needs another checkpoint directory and another output",
                    self.plan.job_name,
                    humantime::format_rfc3339_seconds(time)
                )
            }
            Waiting::Restarting(_) => "finished".to_owned(),
        };
        position.finished();
        let mut totals = TaskTotals::default();
        if let Some(Unfinished { remaining, totals: done, .. }) = self.unfinished.take() {
            totals = done;
            if let Remaining { checkpoint, stop: Some(stop), savepoint, .. } = remaining {
                let answer = Answer::Ended { end: End::Finished, checkpoint: Some(checkpoint), savepoint };
                requests.answer(stop.request, Ok(answer));
            }
        }
        let TaskTotals { records, accumulators } = totals;
        let status = JobStatus::Finished;
        Outcome::Ended(JobResult { status, how, records, accumulators, ..JobResult::default() })
    }

    /// Ends a job of which no attempt runs. What has begun is ended and recorded as cancelled; the next start goes on
    /// from the last checkpoint, as after every cancellation.
    ///
    /// # Errors
    /// `Fenced`: another process owns the job, and this one cannot cancel it.
    async fn cancel(
        &mut self,
        position: Waiting,
        begun: Option<Begun>,
        lock: &JobLock,
        requests: &mut Requests,
        request: RequestId,
    ) -> Result<JobResult> {
        let cancelling = position.cancel();
        let attempt = begun.as_ref().map_or(NO_ATTEMPT, |begun| begun.info.attempt);
        let mut result = self.cancel_tasks(attempt).await.map(drop);
        if begun.is_none() {
            result = result.and(self.still_owns(lock).await);
        }
        if let (Some(mut begun), Ok(())) = (begun, &result) {
            result = begun.history.append(Kind::Ended(EndKind::Cancelled)).await.map(drop);
        }
        if let Err(error) = result {
            if error.kind() == ErrorKind::Fenced {
                let _end = cancelling.become_state::<Suspended>();
                requests.answer(request, Err(Error::fenced(error.to_string())));
                return Err(error);
            }
            self.env.warn(&error.context("the cancelled job's end is not recorded").to_string());
        }
        let _end = cancelling.become_state::<Cancelled>();
        let answer = Answer::Ended { end: End::Cancelled, checkpoint: None, savepoint: None };
        requests.answer(request, Ok(answer));
        let TaskTotals { records, accumulators } = std::mem::take(&mut self.totals);
        let (status, how) = (JobStatus::Cancelled, CANCELLED.to_owned());
        Ok(JobResult { status, how, records, accumulators, ..JobResult::default() })
    }

    /// What a process says that misses something promised and no longer owns the job: whoever does has it, and goes on.
    async fn fenced(&self, lock: &JobLock, error: &Error) -> Option<Error> {
        if error.kind() != ErrorKind::Lost {
            return None;
        }
        let fenced = self.still_owns(lock).await.err()?;
        self.env.warn(&format!("job {}: {error}", self.plan.job_name));
        Some(fenced)
    }

    /// Whether nobody has taken the job over since this process began an attempt of it. Asked on behalf of somebody who
    /// waits: a store that does not answer soon decides nothing.
    ///
    /// # Errors
    /// `Fenced`.
    async fn still_owns(&self, lock: &JobLock) -> Result<()> {
        if !self.has_started {
            return Ok(());
        }
        let newest = history::open(&self.env, Arc::clone(&self.store));
        let Some(Ok(Some(newest))) = self.env.timeout(LONGEST_LOOK, newest).await else { return Ok(()) };
        let attempt = &newest.standing.attempt;
        if attempt.instance == lock.instance {
            return Ok(());
        }
        Err(Error::fenced(format!(
            "the job was taken over: attempt {} is another process's, and goes on there",
            attempt.id
        )))
    }

    /// Ends the tasks of an attempt that is over. Says why it is, where they take long.
    async fn end_tasks(&mut self, attempt: AttemptId, end: &AttemptEnd) -> Result<TaskTotals> {
        let env = self.env.clone();
        let mut cancelled = pin!(self.cancel_tasks(attempt));
        if let Some(cancelled) = env.timeout(QUIET, cancelled.as_mut()).await {
            return cancelled;
        }
        if let AttemptEnd::Failed(_, error) | AttemptEnd::Restart(_, error) = end {
            env.warn(&format!("attempt {attempt} has failed, and waits for its tasks to end: {error}"));
        }
        cancelled.await
    }

    /// Ends what the TaskManager does for the attempt. Returns what its tasks have done; some may be [`stuck`](Self::stuck).
    pub(super) async fn cancel_tasks(&mut self, attempt: AttemptId) -> Result<TaskTotals> {
        self.lives.change_all(Change::Cancel)?;
        self.to_tasks.send(&ToTaskManager::Cancel { attempt }).await?;
        let of = |message| match message {
            ToJobManager::Cancelled { attempt: of, totals, stuck } if of == attempt => Some((totals, stuck)),
            _ => None,
        };
        let (totals, stuck) = self.answer(of).await?;
        if stuck.is_empty() {
            self.lives.change_all(Change::Cancelled)?;
        } else {
            let stuck = stuck.join(", ");
            let stuck =
                Error::user(format!("{stuck} did not end, since a function of the job does not return"));
            self.env.warn(&format!("job {}: {stuck}", self.plan.job_name));
            self.stuck = Some(stuck);
        }
        Ok(totals)
    }

    /// The tasks of an attempt that was not started were planned only.
    fn end_lives(&mut self) {
        let ended =
            self.lives.change_all(Change::Cancel).and_then(|()| self.lives.change_all(Change::Cancelled));
        if let Err(error) = ended {
            self.env.warn(&error.to_string());
        }
    }

    /// The first message that is wanted; others are of older attempts.
    pub(super) async fn answer<T>(&mut self, wanted: impl Fn(ToJobManager) -> Option<T>) -> Result<T> {
        loop {
            let message = self.from_tasks.recv().await?;
            let message = message.ok_or_else(|| Error::internal("the TaskManager is gone"))?;
            if let Some(found) = wanted(message) {
                return Ok(found);
            }
        }
    }
}

/// Until something runs, a first start that fails is refused; a restart that fails is tried again.
fn launch_failed(position: Waiting, error: Error) -> Outcome {
    match (&position, error.kind()) {
        (Waiting::New(_), ErrorKind::Retryable) => Outcome::Failed(position.fail(), error),
        (Waiting::New(_), kind) => {
            position.give_up(kind);
            Outcome::Refused(error)
        }
        (Waiting::Restarting(_), ErrorKind::Fenced) => {
            position.give_up(ErrorKind::Fenced);
            Outcome::Suspended(error)
        }
        (Waiting::Restarting(_), _) => Outcome::Failed(position.fail(), error),
    }
}

fn ended(live: Live, end: End, totals: TaskTotals) -> JobResult {
    let status = live.end(end);
    let how = match end {
        End::Finished => "finished",
        End::Stopped => "stopped",
        End::Cancelled => CANCELLED,
    };
    let TaskTotals { records, accumulators } = totals;
    JobResult { status, how: how.to_owned(), records, accumulators, ..JobResult::default() }
}

/// Between -1 and 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.random_range(-1.0..=1.0)
}
