//! A TaskManager: runs tasks and their sinks' committers, and decides nothing about checkpoints, histories or restarts. What
//! it is told comes in [`ToTaskManager`], what it finds goes out in [`ToJobManager`].

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
};

use checkpoint::{local_recovery::LocalRecovery, manifest::TaskId};
use env::{Env, Limits, Message, Receiver, Sender, Store, channel};
use futures::FutureExt;
use types::{AttemptId, Digest, Error, Result};

use super::{
    build::{Done, RuntimeOptions, Workshop},
    committers::Committers,
    link::{LinkReceiver, LinkSender},
    message::{AttemptInfo, TaskDeployment, ToJobManager, ToTaskManager},
    user_tasks::UserTasks,
};
use crate::{
    graph::physical::Plan,
    metrics::Metrics,
    operators::cancellation::Cancellation,
    task::{
        guard,
        message::{Failure, TaskCommand, TaskReport, TaskTotals},
        run,
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
    done: Vec<Done>,
    cancellation: Cancellation,
}

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
        let mut tasks = UserTasks::new(&self.env);
        while let Some(message) = inbox.next().await? {
            match message {
                ToTaskManager::AskSinks { info } => {
                    let attempt = info.attempt;
                    let held =
                        tasks.run("asking the sinks what they hold".to_owned(), self.committers(info).held());
                    if let Some(held) = inbox.unless_cancelled(attempt, held).await? {
                        let result = held.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksHold { attempt, result }).await?;
                    }
                }
                ToTaskManager::FindPrepared { info, prepared } => {
                    let attempt = info.attempt;
                    let lack = tasks.run(
                        "asking the sinks what they lack".to_owned(),
                        self.committers(info).lack(prepared),
                    );
                    if let Some(lack) = inbox.unless_cancelled(attempt, lack).await? {
                        let result = lack.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksLack { attempt, result }).await?;
                    }
                }
                ToTaskManager::ResolveSinks { info, sinks } => {
                    let attempt = info.attempt;
                    let resolving = tasks
                        .run("committing what is pending".to_owned(), self.committers(info).resolve(sinks));
                    if let Some(resolved) = inbox.unless_cancelled(attempt, resolving).await? {
                        let result = resolved.map_err(|error| Failure::from(&error));
                        self.to_job_manager.send(&ToJobManager::SinksResolved { attempt, result }).await?;
                    }
                }
                ToTaskManager::Deploy { info, tasks: deployments } => {
                    let attempt = info.attempt;
                    let deployed = deployed.insert(Deployed::new(attempt));
                    let deploying = self.deploy(info, deployments, deployed, &mut tasks);
                    // Cancelled half way, it is ended like any other.
                    inbox.unless_cancelled(attempt, deploying).await?.transpose()?;
                }
                ToTaskManager::Command { attempt, task, command } => {
                    if let (Some(local), TaskCommand::Commit(permitted)) = (&self.options.local, &command) {
                        let (local, checkpoint) = (local.clone(), permitted.checkpoint());
                        let completed = async move { local.completed(checkpoint).await };
                        self.env.spawn_task("local copies", completed);
                    }
                    let to = deployed.as_ref().filter(|it| it.attempt == attempt);
                    if let Some(sender) = to.and_then(|it| it.commands.get(&task)) {
                        // A task that has ended needs no command: its end was reported. One that waits for its sink
                        // takes none for as long.
                        let _ended = inbox.unless_cancelled(attempt, sender.send(Message(command))).await?;
                    }
                }
                ToTaskManager::Cancel { attempt } => {
                    let (totals, stuck) = match &deployed {
                        Some(other) if other.attempt != attempt => Default::default(),
                        _ => self.end(deployed.take(), &mut tasks).await,
                    };
                    self.to_job_manager.send(&ToJobManager::Cancelled { attempt, totals, stuck }).await?;
                }
            }
        }
        self.end(deployed, &mut tasks).await;
        Ok(())
    }

    /// Ends all that runs. Returns what the tasks have done, and which of them have not ended.
    async fn end(&self, deployed: Option<Deployed>, tasks: &mut UserTasks) -> (TaskTotals, Vec<String>) {
        if let Some(deployed) = &deployed {
            deployed.cancellation.cancel();
        }
        let tasks = std::mem::replace(tasks, UserTasks::new(&self.env));
        let stuck = tasks.end(self.options.cancellation_timeout).await;
        let mut totals = TaskTotals::default();
        deployed.iter().flat_map(|it| &it.done).for_each(|done| totals.add(done.totals()));
        (totals, stuck)
    }

    fn committers(&self, info: AttemptInfo) -> Committers {
        let (env, plan, store) = (self.env.clone(), Arc::clone(&self.plan), Arc::clone(&self.store));
        Committers { env, plan, store, info }
    }

    async fn deploy(
        &self,
        info: AttemptInfo,
        tasks: Vec<TaskDeployment>,
        deployed: &mut Deployed,
        running: &mut UserTasks,
    ) -> Result<()> {
        if let Some(local) = &self.options.local {
            let runs = tasks.iter().flat_map(|task| &task.restore).flat_map(|operator| &operator.runs);
            let named = runs.map(|run| &*run.file.path);
            local.begin(info.job, info.attempt, info.restored, named).await;
        }
        let (reports, from_tasks) = channel(&self.env, Limits::items(1024));
        let workshop = Arc::new(Workshop {
            env: self.env.clone(),
            plan: Arc::clone(&self.plan),
            options: self.options.clone(),
            store: Arc::clone(&self.store),
            uploads: Uploads::new(
                self.env.clone(),
                Arc::clone(&self.store),
                self.options.local.clone(),
                self.options.merge.clone(),
                self.options.compression,
            ),
            metrics: self.metrics.clone(),
            info,
            cancellation: deployed.cancellation.clone(),
            reports,
        });
        let (to, local) = (self.to_job_manager.clone(), self.options.local.clone());
        let forward = forward(to, info.attempt, from_tasks, local);
        running.add("the sender of reports".to_owned(), self.env.spawn_task("reports", forward));
        let mut channels = workshop.channels();
        for deployment in tasks {
            let TaskDeployment { task, restore } = deployment;
            self.to_job_manager.send(&ToJobManager::Initializing { attempt: info.attempt, task }).await?;
            let shop = Arc::clone(&workshop);
            let building = async move {
                // User code is guarded where it is called; this is for clones of functions.
                let built = guard::caught(shop.build(task, &mut channels)).await;
                Ok((built, channels))
            };
            let built;
            (built, channels) = running.run(format!("the start of {task}"), building).await?;
            let built = match built {
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
            for handle in built.beside {
                running.add(format!("a helper of {task}"), handle);
            }
            deployed.done.push(built.done);
            let (reports, cancellation) = (workshop.reports.clone(), workshop.cancellation.clone());
            let run = async move {
                // User code is guarded where it is called; this is for what nobody foresaw.
                let ran = AssertUnwindSafe(run::run(built.task, restore)).catch_unwind().await;
                let panicked = |panic: Box<dyn Any + Send>| {
                    Err(Error::internal(format!("{task} panicked: {}", guard::text(&*panic))))
                };
                if cancellation.is_cancelled() {
                    // Nobody asks any more what became of it.
                    return;
                }
                let report = ran.unwrap_or_else(panicked);
                let report = report.unwrap_or_else(|error| TaskReport::Failed(Failure::from(&error)));
                let _gone = reports.send(Message((task, report))).await;
            };
            running.spawn(task.to_string(), run);
        }
        Ok(())
    }
}

impl Deployed {
    fn new(attempt: AttemptId) -> Self {
        let cancellation = Cancellation::default();
        Self { attempt, commands: BTreeMap::new(), done: Vec::new(), cancellation }
    }
}

/// Passes the reports of an attempt's tasks on.
async fn forward(
    to: LinkSender<ToJobManager>,
    attempt: AttemptId,
    mut from_tasks: Receiver<Message<(TaskId, TaskReport)>>,
    local: Option<LocalRecovery>,
) {
    while let Some(Message((task, report))) = from_tasks.recv().await {
        if let (Some(local), TaskReport::Acked { checkpoint, snapshot, .. }) = (&local, &report) {
            // Before the JobManager can know of it: whatever completes was listed here.
            let runs = snapshot.operators.iter().flat_map(|(_, subtask)| &subtask.runs);
            local.listed(*checkpoint, runs.map(|run| &*run.file.path));
        }
        if to.send(&ToJobManager::Report { attempt, task, report }).await.is_err() {
            return;
        }
    }
}
