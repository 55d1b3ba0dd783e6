//! One attempt of a job, from the deployment of its tasks to its end: feeds the pure coordinator with what happens and
//! carries out what it decides ([`decisions`]). What users ask of it is in [`asked`]. All durable things go through the
//! [`Journal`]; all tasks are reached by messages.

mod asked;
mod decisions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checkpoint::{
    barrier::complete::AttemptPlan,
    coordinator::{
        self, Answer, CheckpointOutcome, CheckpointStatistics, Coordinator, End, Event, Remaining, RequestId,
        Statistics,
    },
    history::CommitPermit,
    manifest::{Manifest, TaskId},
};
use env::{Env, Limits, Message, Receiver, Sender, Store, TaskHandle, channel};
use futures::future;
use statebackend::RunCompression;
use types::{CheckpointId, Error, ErrorKind, Result, Uid};

use super::{
    enumerator::Enumerator,
    journal::{Journal, JournalDone},
    link::{LinkReceiver, LinkSender},
    lives::Lives,
    message::{AttemptInfo, ToJobManager, ToTaskManager},
    requests::Requests,
    status::{
        At,
        job::{Cancelling, Failing, Live},
        task::Change,
    },
    view::SharedView,
};
use crate::task::message::TaskReport;

/// What a user asks of a running job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Take a checkpoint now.
    Checkpoint,
    /// Copy a checkpoint into this directory, once it was seen that it can take one. What ends the attempt before that overtakes
    /// it: refused as `Cancelled` where the job ends, `Fenced` where it is taken over, `Retryable` where it restarts, and else
    /// by the kind of the failure.
    Savepoint(String),
    /// Delete what nothing needs now, what died with older attempts included.
    Collect,
    /// End with a last checkpoint.
    Stop {
        /// Fire all event-time timers first.
        drain: bool,
        /// Copy the last checkpoint into this directory, looked at before as that of a savepoint is.
        savepoint: Option<String>,
    },
    /// End now.
    Cancel,
}

/// How an attempt ended.
pub(crate) enum AttemptEnd {
    /// The job has ended, and the history says so.
    Ended(Live, End),
    /// Another process owns the job.
    Suspended(Error),
    /// The restart strategy decides.
    Failed(At<Failing>, Error),
    /// Restart without asking.
    Restart(At<Failing>, Error),
}

/// Why an attempt is over.
enum Over {
    Ended(End),
    Failed(Error),
    Restart(Error),
}

/// What an attempt leaves behind.
pub(crate) struct Ran {
    pub(crate) end: AttemptEnd,
    /// All its tasks were running at once.
    pub(crate) has_run: bool,
    /// An end of the job whose checkpoint is in the history, or may be: the next attempt does the rest.
    pub(crate) remaining: Option<Remaining>,
}

/// What happens in the background of an attempt.
enum Background {
    ManifestWritten(CheckpointId, Result<types::SnapshotFile>),
    SavepointCopied(CheckpointId, String, Result<types::SnapshotFile>),
    /// Whether the savepoint that is asked for can be written; what is asked for follows if so.
    DirectoryChecked {
        request: RequestId,
        checked: Result<Event>,
    },
}

/// One attempt, ready to run.
pub(crate) struct Attempt {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) info: AttemptInfo,
    pub(crate) plan: Arc<AttemptPlan>,
    pub(crate) coordinator: Coordinator,
    /// By source: its chain and its splits.
    pub(crate) enumerators: BTreeMap<Uid, (u32, Enumerator)>,
    pub(crate) journal: Journal,
    /// Manifests of completed checkpoints that savepoints may still be copied from.
    pub(crate) manifests: BTreeMap<CheckpointId, Arc<Manifest>>,
    /// Of the runs in savepoints.
    pub(crate) compression: RunCompression,
    pub(crate) view: SharedView,
    pub(crate) to_tasks: LinkSender<ToTaskManager>,
}

struct Running<'a> {
    attempt: Attempt,
    /// Taken only while it goes from one state to the next, and at the end.
    live: Option<Live>,
    from_tasks: &'a mut LinkReceiver<ToJobManager>,
    lives: &'a mut Lives,
    requests: &'a mut Requests,
    background: (Sender<Message<Background>>, Receiver<Message<Background>>),
    permits: BTreeMap<CheckpointId, CommitPermit>,
    /// The completed checkpoint whose record is on its way.
    completing: Option<CheckpointId>,
    /// Savepoints being copied: nobody else may write into their directories once the attempt is over.
    copies: Vec<TaskHandle>,
    checking: asked::Checking,
    /// Those who wait until what nothing needs is deleted.
    collecting: BTreeSet<RequestId>,
    waiting_to_run: BTreeSet<TaskId>,
    has_run: bool,
    not_finished: BTreeSet<TaskId>,
    /// Checkpoints completed and failed when that was looked at last.
    completed: u64,
    failed: u64,
    /// The user knows that checkpoints fail.
    told_failure: bool,
    /// The end is recorded and the tasks are closing.
    ending: Option<End>,
    end: Option<Over>,
}

enum Happened {
    Message(ToJobManager),
    TaskManagerGone,
    Request(RequestId, Ask),
    Journal(JournalDone),
    Background(Background),
    Time,
}

impl Attempt {
    /// Runs the attempt whose tasks were deployed. Its tasks may still run when this returns: cancel them.
    pub(crate) async fn run(
        self,
        live: Live,
        from_tasks: &mut LinkReceiver<ToJobManager>,
        lives: &mut Lives,
        requests: &mut Requests,
    ) -> Ran {
        let tasks = self.plan.tasks.clone();
        let mut running = Running {
            live: Some(live),
            from_tasks,
            lives,
            requests,
            background: channel(&self.env, Limits::items(16)),
            permits: BTreeMap::new(),
            completing: None,
            copies: Vec::new(),
            checking: BTreeMap::new(),
            collecting: BTreeSet::new(),
            waiting_to_run: tasks.clone(),
            has_run: false,
            not_finished: tasks,
            completed: 0,
            failed: 0,
            told_failure: false,
            ending: None,
            end: None,
            attempt: self,
        };
        let end = running.run().await;
        let Running { attempt, copies, checking, collecting, requests, has_run, .. } = running;
        let remaining = attempt.coordinator.remaining();
        asked::refuse_begun(&end, checking, collecting, requests).await;
        for copy in copies {
            copy.abort();
            let _ended = copy.join().await;
        }
        match &end {
            AttemptEnd::Ended(_, End::Finished | End::Stopped) => attempt.journal.finish(&attempt.env).await,
            _ => attempt.journal.end().await,
        }
        Ran { end, has_run, remaining }
    }
}

impl Running<'_> {
    async fn run(&mut self) -> AttemptEnd {
        // Nothing to wait for: the first step of a coordinator that only finishes an old end.
        self.step(Event::TimePassed).await;
        loop {
            if let Some(over) = self.end.take()
                && let Some(live) = self.live.take()
            {
                return self.over(live, over);
            }
            let happened = self.next().await;
            match happened {
                Ok(happened) => self.handle(happened).await,
                Err(error) => self.fail(error).await,
            }
        }
    }

    /// What the end of the attempt makes of the job, shown from now on.
    fn over(&self, live: Live, over: Over) -> AttemptEnd {
        match over {
            Over::Ended(end) => AttemptEnd::Ended(live, end),
            Over::Failed(error) | Over::Restart(error) if error.kind() == ErrorKind::Fenced => {
                live.suspend();
                AttemptEnd::Suspended(error)
            }
            Over::Failed(error) => match live.fail() {
                Ok(failing) => AttemptEnd::Failed(failing, error),
                Err(cancelling) => self.cancelled_all_the_same(cancelling, &error),
            },
            Over::Restart(error) => match live.fail() {
                Ok(failing) => AttemptEnd::Restart(failing, error),
                Err(cancelling) => self.cancelled_all_the_same(cancelling, &error),
            },
        }
    }

    fn cancelled_all_the_same(&self, cancelling: At<Cancelling>, error: &Error) -> AttemptEnd {
        self.attempt.env.warn(&format!("while the job was being cancelled: {error}"));
        AttemptEnd::Ended(Live::Cancelling(cancelling), End::Cancelled)
    }

    /// Goes to another state of the job.
    fn go(&mut self, on: impl FnOnce(Live) -> Live) {
        self.live = self.live.take().map(on);
    }

    async fn next(&mut self) -> Result<Happened> {
        let Attempt { env, coordinator, journal, .. } = &mut self.attempt;
        let now = env.now();
        let wake = coordinator.next_wakeup().map(|at| at.since(now));
        Ok(tokio::select! {
            biased;
            message = self.from_tasks.recv() => match message? {
                Some(message) => Happened::Message(message),
                None => Happened::TaskManagerGone,
            },
            Some(Message(done)) = journal.done.recv() => Happened::Journal(done),
            Some(Message(event)) = self.background.1.recv() => Happened::Background(event),
            (request, ask) = self.requests.next() => Happened::Request(request, ask),
            () = async {
                match wake { Some(span) => env.sleep(span).await, None => future::pending().await }
            } => Happened::Time,
        })
    }

    async fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Message(message) => self.on_message(message).await,
            Happened::TaskManagerGone => self.fail(Error::internal("the TaskManager is gone")).await,
            Happened::Request(request, ask) => self.on_request(request, ask).await,
            Happened::Journal(done) => self.on_journal(done).await,
            Happened::Background(Background::ManifestWritten(checkpoint, Ok(file))) => {
                self.step(Event::ManifestWritten { checkpoint, file }).await;
            }
            Happened::Background(Background::ManifestWritten(checkpoint, Err(error))) => {
                if self.store_is_unusable().await {
                    return;
                }
                self.step(Event::ManifestFailed { checkpoint, error }).await;
            }
            Happened::Background(Background::SavepointCopied(checkpoint, dir, Ok(manifest))) => {
                self.step(Event::SavepointCopied { checkpoint, dir, manifest }).await;
            }
            Happened::Background(Background::SavepointCopied(checkpoint, dir, Err(error))) => {
                self.step(Event::SavepointFailed { checkpoint, dir, error }).await;
            }
            Happened::Background(Background::DirectoryChecked { request, checked }) => {
                self.on_directory_checked(request, checked).await;
            }
            Happened::Time => self.step(Event::TimePassed).await,
        }
    }

    async fn on_message(&mut self, message: ToJobManager) {
        match message {
            ToJobManager::Report { attempt, task, report } if attempt == self.attempt.info.attempt => {
                self.on_report(task, report).await;
            }
            ToJobManager::Initializing { attempt, task } if attempt == self.attempt.info.attempt => {
                if let Err(error) = self.lives.change(task, Change::Initialize) {
                    self.fail(error).await;
                }
            }
            // Of an older attempt, or an answer that came late.
            _ => {}
        }
    }

    async fn on_report(&mut self, task: TaskId, report: TaskReport) {
        let change = match report {
            TaskReport::Running(_) => Some(Change::Run),
            TaskReport::Finished => Some(Change::Finish),
            TaskReport::Failed(_) => Some(Change::Fail),
            _ => None,
        };
        if let Some(change) = change
            && let Err(error) = self.lives.change(task, change)
        {
            return self.fail(error).await;
        }
        let attempt = self.attempt.info.attempt;
        let report = match report {
            TaskReport::Running(restored) => {
                self.waiting_to_run.remove(&task);
                let restored = self.attempt.view.update(|view| {
                    view.restored.add(restored);
                    view.restored
                });
                if self.waiting_to_run.is_empty() {
                    if let Some(read) = restored.text() {
                        self.attempt.env.warn(&format!("job {}: {read}", self.attempt.plan.job_name));
                    }
                    self.has_run = true;
                    self.step(Event::TasksRunning).await;
                    self.assign().await;
                }
                return;
            }
            TaskReport::SplitWanted => {
                let enumerator =
                    self.attempt.enumerators.values_mut().find(|(chain, _)| *chain == task.chain);
                if let Some((_, enumerator)) = enumerator {
                    enumerator.on_wanted(task.subtask);
                }
                return self.assign().await;
            }
            TaskReport::Finished => return self.on_finished(task),
            TaskReport::Failed(failure) if self.ending.is_some() => {
                // The other tasks end as they would.
                self.tell_late(&failure.into_error());
                return self.on_finished(task);
            }
            TaskReport::Failed(failure) => {
                return self.fail(failure.into_error()).await;
            }
            TaskReport::Injected(checkpoint) => coordinator::TaskReport::Injected { checkpoint },
            TaskReport::SourceEnded => coordinator::TaskReport::SourceFinished,
            TaskReport::Acked { checkpoint, snapshot, stats } => {
                self.attempt.view.update(|view| {
                    view.tasks.entry(task).or_default().last_snapshot = stats;
                    view.snapshots.add(&stats);
                });
                coordinator::TaskReport::Acked { checkpoint, snapshot }
            }
            TaskReport::Declined { checkpoint, reason } => {
                if self.store_is_unusable().await {
                    return;
                }
                coordinator::TaskReport::Declined { checkpoint, reason }
            }
            TaskReport::Committed(checkpoint) => coordinator::TaskReport::Committed { checkpoint },
        };
        self.step(Event::Task { attempt, task, report }).await;
    }

    fn on_finished(&mut self, task: TaskId) {
        self.not_finished.remove(&task);
        if self.not_finished.is_empty()
            && let Some(end) = self.ending.take()
        {
            self.end = Some(Over::Ended(end));
        }
    }

    /// The end is in the history: nothing that fails now can change it.
    fn tell_late(&self, error: &Error) {
        self.attempt.env.warn(&format!("after the end of the job: {error}"));
    }

    async fn fail(&mut self, error: Error) {
        if self.ending.is_some() {
            self.tell_late(&error);
            self.end = self.ending.take().map(Over::Ended);
            return;
        }
        let reason = error.to_string();
        let event = match error.kind() {
            // It is the other process that cancels the job, or does not.
            ErrorKind::Fenced => Event::Fenced { reason },
            kind => Event::JobFailed { kind, reason },
        };
        self.step(event).await;
        // A job that is being cancelled, or whose end is recorded, has thereby ended.
        let ended = self.ending.take().map(Over::Ended).or_else(|| self.end.take());
        self.end = Some(ended.unwrap_or(Over::Failed(error)));
    }

    /// Asked when a write of a checkpoint has failed: where none can succeed any more, the attempt fails at once, however
    /// many failures of checkpoints are tolerated.
    async fn store_is_unusable(&mut self) -> bool {
        let Err(unusable) = self.attempt.store.check_usable() else { return false };
        self.fail(unusable).await;
        true
    }

    async fn on_journal(&mut self, done: JournalDone) {
        match done {
            JournalDone::Appended(Ok(permit)) => {
                if let (Some(checkpoint), Some(permit)) = (self.completing.take(), permit) {
                    self.attempt.view.update(|view| view.last_checkpoint = Some(checkpoint));
                    self.permits.insert(checkpoint, permit);
                }
                self.step(Event::Recorded).await;
            }
            JournalDone::Appended(Err(error)) => {
                self.completing = None;
                if self.store_is_unusable().await {
                    return;
                }
                self.step(Event::RecordFailed { error }).await;
            }
            JournalDone::Collected { requests, result: Ok((files, more)) } => {
                for request in requests {
                    self.collecting.remove(&request);
                    self.requests.answer(request, Ok(Answer::Collected { files, more }));
                }
            }
            JournalDone::Collected { requests, result: Err(error) } => {
                for request in requests {
                    let why = Error::new(error.kind(), error.to_string());
                    self.collecting.remove(&request);
                    self.requests.answer(request, Err(why));
                }
                if error.kind() == ErrorKind::Fenced {
                    self.fail(error).await;
                }
            }
            JournalDone::NotCollected(error) => match error.kind() {
                ErrorKind::Fenced => self.fail(error).await,
                // The job has ended: the next start goes on with it.
                _ if self.ending.is_some() => {}
                _ => {
                    if !self.store_is_unusable().await {
                        let later = format!("collecting old files is tried later: {error}");
                        self.attempt.env.warn(&later);
                    }
                }
            },
        }
    }

    /// One step of the coordinator, and everything that follows from it at once.
    async fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let now = self.attempt.env.now();
            let decisions = self.attempt.coordinator.step(now, event);
            // Who is answered below may look at once.
            let statistics = self.attempt.coordinator.statistics().clone();
            self.attempt.view.update(|view| view.checkpoints = statistics);
            if let Some(course) = self.attempt.coordinator.course() {
                self.go(|live| live.follow(course));
            }
            for decision in decisions {
                match self.carry_out(decision).await {
                    Ok(Some(next)) => events.push(next),
                    Ok(None) => {}
                    Err(error) => {
                        // Whoever waits for an answer is told.
                        events.push(Event::JobFailed { kind: error.kind(), reason: error.to_string() });
                        self.end.get_or_insert(Over::Failed(error));
                    }
                }
            }
        }
        let statistics = self.attempt.coordinator.statistics().clone();
        self.tell_failures(&statistics);
    }

    /// One line when checkpoints begin to fail, and one when they complete again: what failed in between is in the view.
    fn tell_failures(&mut self, statistics: &Statistics) {
        let (job, env) = (&self.attempt.plan.job_name, &self.attempt.env);
        if statistics.completed > self.completed {
            if std::mem::take(&mut self.told_failure) {
                env.warn(&format!("job {job}: checkpoints complete again"));
            }
        } else if statistics.failed > self.failed && self.end.is_none() && !self.told_failure {
            let failed = |one: &CheckpointStatistics| match &one.outcome {
                CheckpointOutcome::Failed { reason } => Some(reason.clone()),
                _ => None,
            };
            if let Some(reason) = statistics.history.iter().rev().find_map(failed) {
                env.warn(&format!("job {job} goes on: {reason}"));
                self.told_failure = true;
            }
        }
        (self.completed, self.failed) = (statistics.completed, statistics.failed);
    }
}
