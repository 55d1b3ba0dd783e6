//! A TaskManager: runs tasks and their sinks' committers, and knows nothing of checkpoints, histories or restarts. What
//! it is told comes in [`ToTaskManager`], what it finds goes out in [`ToJobManager`].

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use checkpoint::manifest::{PreparedTransaction, TaskId};
use env::{Env, Limits, Message, Receiver, Sender, Store, TaskHandle, channel};
use futures::FutureExt;
use types::{AttemptId, Digest, Error, Result, SubtaskIndex, Uid};

use super::{
    build::{Done, RuntimeOptions, Workshop, sinks},
    link::{LinkReceiver, LinkSender},
    message::{AttemptInfo, SinkToResolve, TaskDeployment, ToJobManager, ToTaskManager},
};
use crate::{
    api::{erased::AnyCommitter, sink::Marker},
    graph::physical::Plan,
    metrics::Metrics,
    task::{
        guard,
        message::{Failure, TaskCommand, TaskReport, TaskTotals},
        run,
        sink::{commit_for_ever, transaction_of},
        upload::Uploads,
    },
};

/// A TaskManager and what it needs.
pub(crate) struct TaskManager {
    pub(crate) env: Env,
    pub(crate) plan: Arc<Plan>,
    pub(crate) fingerprint: Digest,
    pub(crate) options: RuntimeOptions,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Metrics,
    pub(crate) slots: u32,
    pub(crate) to_job_manager: LinkSender<ToJobManager>,
}

/// The tasks of one attempt.
struct Deployed {
    attempt: AttemptId,
    commands: BTreeMap<TaskId, Sender<Message<TaskCommand>>>,
    /// With their names.
    handles: Vec<(String, TaskHandle)>,
    done: Vec<Done>,
}

/// So long nothing is said of tasks that do not end.
const QUIET: Duration = Duration::from_secs(2);

/// What the JobManager says. A cancellation is heard in the middle of work: sinks may keep it waiting for ever.
struct Inbox {
    link: LinkReceiver<ToTaskManager>,
    /// What came in the middle of work. Nearly always empty: while an attempt is being started, only its cancellation
    /// is sent; while a task takes no commands, little more than that one checkpoint after the other is given up.
    waiting: VecDeque<ToTaskManager>,
}

impl Inbox {
    async fn next(&mut self) -> Result<Option<ToTaskManager>> {
        match self.waiting.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.link.recv().await,
        }
    }

    /// The result of `work` for `attempt`, or `None` if the attempt is cancelled first; the cancellation is the next
    /// message then.
    async fn unless_cancelled<T>(
        &mut self,
        attempt: AttemptId,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        let mut work = pin!(work);
        loop {
            let message = tokio::select! {
                biased;
                message = self.link.recv() => message?,
                done = &mut work => return Ok(Some(done)),
            };
            match message {
                Some(cancel @ ToTaskManager::Cancel { attempt: of }) if of == attempt => {
                    self.waiting.push_front(cancel);
                    return Ok(None);
                }
                Some(message) => self.waiting.push_back(message),
                None => return Ok(None),
            }
        }
    }
}

impl TaskManager {
    /// Serves until the JobManager is gone.
    ///
    /// # Errors
    /// `Internal` if a message cannot be read.
    pub(crate) async fn run(self, link: LinkReceiver<ToTaskManager>) -> Result<()> {
        let register = ToJobManager::Register { fingerprint: self.fingerprint, slots: self.slots };
        self.to_job_manager.send(&register).await?;
        let mut inbox = Inbox { link, waiting: VecDeque::new() };
        let mut deployed: Option<Deployed> = None;
        while let Some(message) = inbox.next().await? {
            match message {
                ToTaskManager::AskSinks { info } => {
                    let attempt = info.attempt;
                    if let Some(held) = inbox.unless_cancelled(attempt, self.ask_sinks(&info)).await? {
                        let result = held.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksHold { attempt, result }).await?;
                    }
                }
                ToTaskManager::FindPrepared { info, prepared } => {
                    let attempt = info.attempt;
                    if let Some(lack) = inbox.unless_cancelled(attempt, self.lack(&info, prepared)).await? {
                        let result = lack.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksLack { attempt, result }).await?;
                    }
                }
                ToTaskManager::ResolveSinks { info, sinks } => {
                    let attempt = info.attempt;
                    let resolving = self.resolve_sinks(&info, sinks);
                    if let Some(resolved) = inbox.unless_cancelled(attempt, resolving).await? {
                        let result = resolved.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksResolved { attempt, result }).await?;
                    }
                }
                ToTaskManager::Deploy { info, tasks } => {
                    let attempt = info.attempt;
                    let deployed = deployed.insert(Deployed::new(attempt));
                    let deploying = self.deploy(info, tasks, deployed);
                    // Cancelled half way, it is ended like any other.
                    inbox.unless_cancelled(attempt, deploying).await?.transpose()?;
                }
                ToTaskManager::Command { attempt, task, command } => {
                    let to = deployed.as_ref().filter(|it| it.attempt == attempt);
                    if let Some(sender) = to.and_then(|it| it.commands.get(&task)) {
                        // A task that has ended needs no command: its end was reported. One that waits for its sink
                        // takes none for as long.
                        let _ended = inbox.unless_cancelled(attempt, sender.send(Message(command))).await?;
                    }
                }
                ToTaskManager::Cancel { attempt } => {
                    let (totals, stuck) = match deployed.take_if(|it| it.attempt == attempt) {
                        Some(it) => it.end(&self.env, self.options.cancellation_timeout).await,
                        None => Default::default(),
                    };
                    self.to_job_manager.send(&ToJobManager::Cancelled { attempt, totals, stuck }).await?;
                }
            }
        }
        if let Some(it) = deployed {
            it.end(&self.env, self.options.cancellation_timeout).await;
        }
        Ok(())
    }

    async fn committers(
        &self,
        info: &AttemptInfo,
    ) -> Result<Vec<(Uid, Box<dyn AnyCommitter>, crate::api::sink::SinkContext)>> {
        let mut committers = Vec::new();
        for named in sinks(&self.plan) {
            let context = named.context(&self.env, info, SubtaskIndex(0));
            if let Some(committer) = named.sink.committer(context.clone()) {
                let uid = named.uid;
                let committer = committer.await.map_err(|error| error.context(format!("sink {uid}")))?;
                committers.push((uid, committer, context));
            }
        }
        Ok(committers)
    }

    async fn ask_sinks(&self, info: &AttemptInfo) -> Result<Vec<(Uid, Vec<Marker>)>> {
        let mut held = Vec::new();
        for (uid, mut committer, _) in self.committers(info).await? {
            let markers = committer.held().await.map_err(|error| error.context(format!("sink {uid}")))?;
            held.push((uid, markers));
        }
        Ok(held)
    }

    /// The sinks that do not find all that they prepared.
    async fn lack(
        &self,
        info: &AttemptInfo,
        prepared: Vec<(Uid, Vec<PreparedTransaction>)>,
    ) -> Result<BTreeSet<Uid>> {
        let mut lack = BTreeSet::new();
        let mut committers = self.committers(info).await?;
        for (uid, transactions) in prepared {
            let Some((_, committer, context)) = committers.iter_mut().find(|(of, ..)| *of == uid) else {
                lack.insert(uid);
                continue;
            };
            for transaction in &transactions {
                let found =
                    committer.finds(&transaction_of(context, transaction), &transaction.payload).await;
                if !found.map_err(|error| error.context(format!("sink {uid}")))? {
                    lack.insert(uid.clone());
                }
            }
        }
        Ok(lack)
    }

    /// Returns a sink that has committed something revoked, if one has.
    async fn resolve_sinks(&self, info: &AttemptInfo, resolve: Vec<SinkToResolve>) -> Result<Option<Uid>> {
        let mut work: BTreeMap<Uid, SinkToResolve> =
            resolve.into_iter().map(|it| (it.uid.clone(), it)).collect();
        let mut committers = self.committers(info).await?;
        for (uid, committer, context) in &mut committers {
            let (revoke, commit) = work.remove(uid).map(|it| (it.revoke, it.commit)).unwrap_or_default();
            // Commits are in the order of checkpoints, and what is revoked is newer than what is committed.
            for transaction in &commit {
                let id = transaction_of(context, transaction);
                commit_for_ever(&self.env, &mut **committer, &id, &transaction.payload).await?;
            }
            for transaction in &revoke {
                let id = transaction_of(context, transaction);
                if !committer
                    .revoke(&id, &transaction.payload)
                    .await
                    .map_err(|error| error.context(format!("sink {uid}, revoke")))?
                {
                    return Ok(Some(uid.clone()));
                }
            }
        }
        // A renamed sink keeps what it left under all its names in one place: nothing is swept before all is committed.
        for (uid, committer, _) in &mut committers {
            committer.sweep(&[]).await.map_err(|error| error.context(format!("sink {uid}, sweep")))?;
        }
        match work.into_values().find(|it| !it.commit.is_empty() || !it.revoke.is_empty()) {
            None => Ok(None),
            Some(left) => Err(Error::incompatible(format!(
                "sink {} still holds transactions that the job history {}, but the job has no exactly-once sink of that \
                 name: start once with it",
                left.uid,
                if left.commit.is_empty() { "revoked" } else { "completed" }
            ))),
        }
    }

    async fn deploy(
        &self,
        info: AttemptInfo,
        tasks: Vec<TaskDeployment>,
        deployed: &mut Deployed,
    ) -> Result<()> {
        let (reports, from_tasks) = channel(&self.env, Limits::items(1024));
        let workshop = Workshop {
            env: self.env.clone(),
            plan: Arc::clone(&self.plan),
            options: self.options.clone(),
            store: Arc::clone(&self.store),
            uploads: Uploads::new(
                self.env.clone(),
                Arc::clone(&self.store),
                self.options.merge.clone(),
                self.options.compression,
            ),
            metrics: self.metrics.clone(),
            info,
            reports,
        };
        let forward = forward(self.to_job_manager.clone(), info.attempt, from_tasks);
        deployed.handles.push(("the sender of reports".to_owned(), self.env.spawn_task("reports", forward)));
        let mut channels = workshop.channels();
        for deployment in tasks {
            let TaskDeployment { task, restore } = deployment;
            self.to_job_manager.send(&ToJobManager::Initializing { attempt: info.attempt, task }).await?;
            // User code is guarded where it is called; this is for clones of functions.
            let built = match guard::caught(workshop.build(task, &mut channels)).await {
                Ok(built) => built,
                Err(error) => {
                    let report = TaskReport::Failed(Failure::from(&error));
                    self.to_job_manager
                        .send(&ToJobManager::Report { attempt: info.attempt, task, report })
                        .await?;
                    break;
                }
            };
            deployed.commands.insert(task, built.commands);
            deployed
                .handles
                .extend(built.beside.into_iter().map(|handle| (format!("a helper of {task}"), handle)));
            deployed.done.push(built.done);
            let reports = workshop.reports.clone();
            let running = async move {
                // User code is guarded where it is called; this is for what nobody foresaw.
                let ran = AssertUnwindSafe(run::run(built.task, restore)).catch_unwind().await;
                let panicked = |panic: Box<dyn Any + Send>| {
                    Err(Error::internal(format!("{task} panicked: {}", guard::text(&*panic))))
                };
                let report = ran.unwrap_or_else(panicked);
                let report = report.unwrap_or_else(|error| TaskReport::Failed(Failure::from(&error)));
                let _gone = reports.send(Message((task, report))).await;
            };
            deployed.handles.push((task.to_string(), self.env.spawn_task(&task.to_string(), running)));
        }
        Ok(())
    }
}

impl Deployed {
    fn new(attempt: AttemptId) -> Self {
        Self { attempt, commands: BTreeMap::new(), handles: Vec::new(), done: Vec::new() }
    }

    /// Ends everything and waits until it has ended, for so long. Returns what the tasks have done, and which have not
    /// ended: a task ends where it waits, and one that is in a function of the user's does not.
    async fn end(self, env: &Env, limit: Option<Duration>) -> (TaskTotals, Vec<String>) {
        for (_, handle) in &self.handles {
            handle.abort();
        }
        let begin = env.now();
        let left = |until: Duration| until.saturating_sub(env.now().since(begin));
        let mut stuck = Vec::new();
        for (name, handle) in self.handles {
            // Aborted, ended or panicked: it is gone, and a failure was reported by the task itself.
            let mut ended = pin!(handle.join());
            if env.timeout(left(QUIET.min(limit.unwrap_or(QUIET))), ended.as_mut()).await.is_some() {
                continue;
            }
            env.warn(&format!("{name} was told to end, and is still in a function that it has called"));
            let has_ended = match limit {
                None => Some(ended.await),
                Some(limit) => env.timeout(left(limit), ended).await,
            };
            if has_ended.is_some() {
                env.warn(&format!("{name} has ended"));
            } else {
                stuck.push(name);
            }
        }
        let mut totals = TaskTotals::default();
        self.done.iter().for_each(|done| totals.add(done.totals()));
        (totals, stuck)
    }
}

/// Passes the reports of an attempt's tasks on.
async fn forward(
    to: LinkSender<ToJobManager>,
    attempt: AttemptId,
    mut from_tasks: Receiver<Message<(TaskId, TaskReport)>>,
) {
    while let Some(Message((task, report))) = from_tasks.recv().await {
        if to.send(&ToJobManager::Report { attempt, task, report }).await.is_err() {
            return;
        }
    }
}
