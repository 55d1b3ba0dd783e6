//! From the start record to tasks that are being deployed: fence older attempts, settle the sinks, restore, deploy. A
//! fresh start, a restart and a start after a death come by here alike. It may be dropped at any await, as a kill may
//! end it at any point: the JobManager does so when the job is cancelled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checkpoint::{
    barrier::complete::AttemptPlan,
    coordinator::{Coordinator, Remaining},
    history::{
        self, From, JobHistory, JobLock, Kind, Line, RestorePlan, Source, Standing, StartRequest, Started,
    },
    manifest::{Manifest, PreparedTransaction, TaskId},
    restart::is_restartable,
    savepoint,
};
use types::{
    AttemptId, CheckpointId, Error, ErrorKind, JobId, Lineage, Result, SubtaskIndex, Timestamp, Uid,
};

use super::{
    attempt::Attempt,
    build::sinks,
    enumerator::Enumerator,
    fall_back::Revocation,
    job_manager::JobManager,
    journal::Journal,
    message::{AttemptInfo, SinkToResolve, TaskDeployment, ToCommit, ToJobManager, ToTaskManager},
    places::Snapshot,
    resolve::Expected,
    status::task::Change,
    user_tasks::UserTasks,
};
use crate::{
    api::{
        erased::{AnySource, SplitState},
        sink::Marker,
        source::SourceContext,
    },
    graph::{logical::VertexKind, physical::Chain},
    recovery::{clock, compatible, describe, pending, plan as deal},
    task::message::{Failure, RestoredBytes},
};

/// What a start came to.
pub(super) enum Launch {
    Attempt(Box<Attempt>),
    /// Nothing was changed anywhere.
    Refused(Error),
    FinishedEarlier(Timestamp),
}

/// An attempt whose start record is in the history, and of which nothing runs yet.
pub(super) struct Begun {
    pub(super) info: AttemptInfo,
    pub(super) history: JobHistory,
    pub(super) restore: RestorePlan,
    /// A damaged checkpoint that is to be revoked first.
    pub(super) revocation: Option<Revocation>,
}

/// How often the sinks are asked anew because another process has ended the job or begun it anew meanwhile.
const OVERTAKEN_MAX: u32 = 16;

/// Stands for the attempt while there is none. No start record ever has this number: the first attempt is 0.
pub(super) const NO_ATTEMPT: AttemptId = AttemptId(u64::MAX);

/// Who asks sinks before there is an attempt.
pub(super) fn nobody(job: JobId) -> AttemptInfo {
    AttemptInfo { job, attempt: NO_ATTEMPT, lineage: Lineage(0), restored: CheckpointId(0) }
}

impl JobManager {
    /// From the start record, which is left in `begun` until its attempt is ready, to tasks that are being deployed.
    pub(super) async fn launch(
        &mut self,
        lock: &JobLock,
        automatic: bool,
        begun: &mut Option<Begun>,
    ) -> Result<Launch> {
        let mut overtaken = 0;
        let started = loop {
            let line = match automatic {
                true => Some(Line::Any),
                false => match self.check_start().await {
                    Ok(line) => line,
                    Err(refused) => return Ok(Launch::Refused(refused)),
                },
            };
            let started = match line {
                Some(line) => self.begin(lock, automatic, line).await,
                None => Err(self.overtaken()),
            };
            match started {
                Err(error) if overtaken < OVERTAKEN_MAX && self.is_overtaken(lock, line, &error).await? => {
                    overtaken += 1;
                }
                started => break started?,
            }
        };
        let Begun { info, history, restore, revocation } = match started {
            Ok(started) => {
                self.has_started = true;
                begun.insert(started)
            }
            Err(finished_at) => return Ok(Launch::FinishedEarlier(finished_at)),
        };
        let info = *info;
        let mut revoked = BTreeMap::new();
        if let Some(revocation) = revocation.take() {
            self.revoke(&info, &revocation, restore, history).await?;
            revoked = revocation.into_prepared();
        }
        self.announce(&info, restore, history);
        self.tell_given_up(restore);
        self.settle_sinks(&info, restore, revoked, history).await?;
        confirm(restore, history).await?;
        let manifest = self.manifest(&info, &restore.source).await?;
        let remaining = self.remaining(&restore.source);
        let (plan, enumerators) = match &remaining {
            // Sources never start again; what remains needs no task.
            Some(_) => (self.attempt_plan(&info, BTreeSet::new()), BTreeMap::new()),
            None => {
                if let Some(manifest) = &manifest {
                    let dropped = self.dropped(manifest, Some(history.standing()));
                    compatible::check(&self.plan, manifest, &dropped, "the snapshot to restore")?;
                    self.tell_read_anew(manifest);
                }
                let moved = match manifest.clone() {
                    Some(manifest) => Some(self.moved(manifest).await?),
                    None => None,
                };
                (self.attempt_plan(&info, self.tasks()), self.deploy(&info, moved.as_deref()).await?)
            }
        };
        let plan = Arc::new(plan);
        let copied = remaining.as_ref().map(|remaining| remaining.checkpoint).zip(manifest);
        let settings = self.settings.clone();
        let retained = settings.retained as usize;
        let coordinator = match remaining {
            Some(remaining) => Coordinator::resume(settings, Arc::clone(&plan), remaining),
            None => Coordinator::new(settings, Arc::clone(&plan), info.restored),
        };
        let Some(Begun { history, .. }) = begun.take() else {
            return Err(Error::internal("an attempt that has begun is gone"));
        };
        let journal = Journal::start(&self.env, Arc::clone(&self.store), history, retained);
        Ok(Launch::Attempt(Box::new(Attempt {
            env: self.env.clone(),
            store: Arc::clone(&self.store),
            info,
            plan,
            coordinator,
            enumerators,
            journal,
            manifests: copied.into_iter().collect(),
            compression: self.compression,
            view: self.view.clone(),
            to_tasks: self.to_tasks.clone(),
        })))
    }

    /// Whether a start has failed because another process has ended the job or begun it anew since the sinks were asked
    /// on behalf of `line`: they are asked again.
    async fn is_overtaken(&self, lock: &JobLock, line: Option<Line>, error: &Error) -> Result<bool> {
        if line == Some(Line::Any) || error.kind() != ErrorKind::Retryable {
            return Ok(false);
        }
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        let standing = newest.as_ref().map(|record| &record.standing);
        // A start record of which nobody said that it was created is this process's own.
        let is_own = standing.is_some_and(|standing| standing.attempt.instance == lock.instance);
        Ok(!is_own && line != Some(Line::of(standing, &self.start.from)))
    }

    fn overtaken(&self) -> Error {
        Error::retryable(format!(
            "other processes start and end the job in {} all the while: start again",
            self.store.url()
        ))
    }

    /// Creates the start record, if `line` still goes on; the inner error is the time at which the job finished earlier.
    pub(super) async fn begin(
        &mut self,
        lock: &JobLock,
        automatic: bool,
        line: Line,
    ) -> Result<Result<Begun, Timestamp>> {
        let widest = self.plan.slots();
        let mut request = StartRequest::new(self.plan.job_name.clone(), self.plan.max_parallelism, widest);
        (request.automatic, request.line) = (automatic, line);
        if !automatic {
            request.from = self.start.from.clone();
            request.abandon_pending = self.start.abandon_pending;
            request.accept_foreign_output = self.start.accept_foreign_output;
            request.dropped = self.start.allow_dropped_state.clone();
        }
        let suspicion = self.suspicion.take();
        let revocation = self.revocation(automatic, suspicion.is_some()).await?;
        if let Some(revocation) = &revocation {
            self.env.warn(&format!("job {}: {}", self.plan.job_name, revocation.summary));
            request.revoke = Some(revocation.checkpoint());
        } else if let Some(found) = suspicion {
            return Err(found);
        } else if !automatic {
            self.check_sinks().await?;
        }
        let started = history::start(&self.env, Arc::clone(&self.store), lock, &request).await?;
        let (history, restore) = match started {
            Started::Finished { at } => return Ok(Err(at)),
            Started::Running(history, restore) => (*history, *restore),
        };
        let info = AttemptInfo {
            job: history.job(),
            attempt: history.attempt(),
            lineage: history.lineage(),
            restored: CheckpointId(restore.first_checkpoint.0.saturating_sub(1)),
        };
        Ok(Ok(Begun { info, history, restore, revocation }))
    }

    /// What this process has still to do of an end of the job, if its checkpoint is in the history indeed.
    fn remaining(&self, source: &Source) -> Option<Remaining> {
        let Source::Own { checkpoint, .. } = source else { return None };
        let unfinished = self.unfinished.as_ref().map(|unfinished| &unfinished.remaining);
        unfinished.filter(|remaining| remaining.checkpoint == checkpoint.checkpoint).cloned()
    }

    /// Everything that can be refused before the start record is: sinks, and whether the state fits. The line of history
    /// for which all that was looked at comes back; none if another process has changed it meanwhile.
    async fn check_start(&mut self) -> Result<Option<Line>> {
        self.find_places().await?;
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        let standing = newest.as_ref().map(|record| &record.standing);
        let line = Line::of(standing, &self.start.from);
        let finished = |kind: &history::EndKind| *kind == history::EndKind::Finished;
        if standing.is_some_and(|it| it.job_name != self.plan.job_name) {
            // Another job's directory is refused as such when the attempt begins.
            return Ok(Some(line));
        }
        if let Some(standing) = standing.filter(|it| it.end.as_ref().is_some_and(|end| finished(&end.kind)))
            && self.start.from.continues(Some(standing))
        {
            return self.check_finished_places(standing).await.map(|()| Some(line));
        }
        self.check_left_behind(standing)?;
        self.check_unfinished(standing).await?;
        match self.to_restore(standing).await? {
            Some(snapshot) => {
                let Snapshot { manifest, name, .. } = &snapshot;
                let goes_on = standing.filter(|_| self.start.from.continues(standing));
                compatible::check(&self.plan, manifest, &self.dropped(manifest, goes_on), name)?;
                if let Some(location) = self.start.from.snapshot().filter(|_| goes_on.is_none()) {
                    location.check_files(&self.env).await?;
                }
                self.check_places(&snapshot, standing).await?;
            }
            None => {
                self.check_pending(standing).await?;
                self.check_sources().await?;
            }
        }
        let continues = self.start.from.continues(standing);
        let over = standing.filter(|it| continues && it.starts_over());
        if over.is_some() && matches!(self.start.from, From::Latest) {
            // Refused as such when the attempt begins.
            return Ok(Some(line));
        }
        let fresh =
            over.map(|standing| format!("a fresh start, since {}", history::start::why_over(standing)));
        let job = standing.map_or(JobId(0), |standing| standing.job);
        let held = self.held(&nobody(job)).await?;
        // In this order: a process that is about to be taken over completes checkpoints all the while, and what its sinks
        // have committed, the history knew before.
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        let standing = newest.as_ref().map(|record| &record.standing);
        if Line::of(standing, &self.start.from) != line {
            return Ok(None);
        }
        let expected =
            Expected::new(standing, &self.start.from, self.start.accept_foreign_output, self.store.url());
        let fits = held.iter().try_for_each(|(uid, markers)| expected.check(uid, markers));
        fits.map_err(|error| match fresh {
            Some(fresh) => error.context(fresh),
            None => error,
        })?;
        self.check_beside(standing).await?;
        Ok(Some(line))
    }

    /// Says which sources begin again beside state that is restored: what they had read already would count twice.
    fn tell_read_anew(&self, manifest: &Manifest) {
        for vertex in self.plan.graph.vertices.iter().filter(|it| compatible::reads_anew(it, manifest)) {
            let uid = vertex.uid.as_ref().map_or("", Uid::as_str);
            self.env.warn(&format!(
                "job {}: source {uid} is not in the snapshot: it reads its input from the beginning, and what is restored \
                 stays; if it has another uid there, name that with formerly()",
                self.plan.job_name
            ));
        }
    }

    /// The operators whose state may be dropped from `manifest`, on top of `standing` if that line of history goes on: those
    /// that it dropped before, too, where they are still there, and they need not be there.
    pub(super) fn dropped(&self, manifest: &Manifest, standing: Option<&Standing>) -> BTreeSet<Uid> {
        let before = standing.map(|it| &*it.attempt.origin.dropped).unwrap_or_default();
        compatible::dropped(&self.start.allow_dropped_state, before, manifest)
    }

    async fn check_held(&mut self, info: &AttemptInfo, expected: &Expected) -> Result<()> {
        let held = self.held(info).await?;
        held.iter().try_for_each(|(uid, markers)| expected.check(uid, markers))
    }

    /// What the two-phase sinks hold.
    pub(super) async fn held(&mut self, info: &AttemptInfo) -> Result<Vec<(Uid, Vec<Marker>)>> {
        self.to_tasks.send(&ToTaskManager::AskSinks { info: *info }).await?;
        let held = self.answer(|message| match message {
            ToJobManager::SinksHold { result, .. } => Some(result),
            _ => None,
        });
        held.await?.map_err(Failure::into_error)
    }

    /// A fresh start whose input is not there leaves nothing behind.
    async fn check_sources(&self) -> Result<()> {
        for (_, chain, uid, source) in self.sources() {
            match self.discover(uid, source, chain.parallelism).await {
                Err(error) if !is_restartable(error.kind()) => return Err(error),
                // What passes is tried again once the job runs.
                _ => {}
            }
        }
        Ok(())
    }

    /// The sources: the places of their chains, the chains, uids.
    fn sources(&self) -> impl Iterator<Item = (usize, &Chain, &Uid, &Arc<dyn AnySource>)> {
        self.plan.chains.iter().enumerate().filter_map(|(index, chain)| {
            let first = self.plan.vertex(chain.vertices[0]);
            match (&first.kind, &first.uid) {
                (VertexKind::Source(source), Some(uid)) => Some((index, chain, uid, source)),
                _ => None,
            }
        })
    }

    /// All splits that a source finds.
    async fn discover(
        &self,
        uid: &Uid,
        source: &Arc<dyn AnySource>,
        parallelism: u32,
    ) -> Result<Vec<SplitState>> {
        let (env, subtask) = (self.env.clone(), SubtaskIndex(0));
        let context = SourceContext { uid: uid.clone(), env, subtask, parallelism };
        let source = Arc::clone(source);
        // A function of the user's: whoever cancels does not wait for it.
        let mut tasks = UserTasks::new(&self.env);
        let discovered = tasks.run(format!("discover {uid}"), async move { source.discover(&context).await });
        discovered.await.map_err(|error| error.context(format!("source {uid}")))
    }

    fn announce(&mut self, info: &AttemptInfo, restore: &RestorePlan, history: &JobHistory) {
        self.env.warn(&restore.summary);
        if let Some(rest) = self.rest.take() {
            self.env.warn(&format!("job {}: {rest}", self.plan.job_name));
        }
        self.view.update(|view| {
            view.attempt = Some((info.attempt, info.lineage));
            view.started_from.clone_from(&restore.summary);
            view.restored = RestoredBytes::default();
            view.last_checkpoint = history.standing().completed.last().map(|newest| newest.checkpoint);
        });
        self.lives.plan([]);
    }

    /// What the history completed is committed, then what it revoked is shut out, then everything else is thrown away,
    /// before anything runs. Changes nothing in the history, so that it may be dropped: [`confirm`] comes next.
    pub(super) async fn settle_sinks(
        &mut self,
        info: &AttemptInfo,
        restore: &RestorePlan,
        mut revoked: BTreeMap<Uid, Vec<PreparedTransaction>>,
        history: &JobHistory,
    ) -> Result<()> {
        let names = sinks(&self.plan).into_iter().map(|sink| sink.uid);
        let mut work: BTreeMap<Uid, ToCommit> =
            names.chain(revoked.keys().cloned()).map(|uid| (uid, ToCommit::default())).collect();
        for pending in &restore.pending {
            for operator in &pending.manifest.operators {
                let prepared = operator.subtasks.iter().flat_map(|subtask| subtask.prepared.iter().cloned());
                // What is committed already may have been taken away since.
                let open = prepared.filter(|it| !history.standing().has_committed(it.lineage, it.checkpoint));
                work.entry(operator.uid.clone()).or_default().add(&pending.permit, open);
            }
        }
        let to_resolve = |(uid, commit)| {
            let revoke = revoked.remove(&uid).unwrap_or_default();
            SinkToResolve { uid, revoke, commit }
        };
        let sinks = work.into_iter().map(to_resolve).collect();
        self.to_tasks.send(&ToTaskManager::ResolveSinks { info: *info, sinks }).await?;
        let of = info.attempt;
        let resolved = self.answer(|message| match message {
            ToJobManager::SinksResolved { attempt, result } if attempt == of => Some(result),
            _ => None,
        });
        let too_late = resolved.await?.map_err(|failure| {
            let flags = pending::giving_up(history.standing(), true, self.store.url());
            pending::or_give_up(failure.into_error(), &flags)
        })?;
        let expected = Expected::new(Some(history.standing()), &From::Latest, true, self.store.url());
        if let Some(uid) = too_late {
            return Err(expected.too_late(&uid));
        }
        if !restore.revoked.is_empty() {
            // A process that this start has fenced could still commit until its sinks were told.
            self.check_held(info, &expected).await?;
        }
        Ok(())
    }

    /// The manifest to restore, with all files in the job's own directory.
    async fn manifest(&self, info: &AttemptInfo, source: &Source) -> Result<Option<Arc<Manifest>>> {
        match source {
            Source::Empty => Ok(None),
            Source::Own { manifest, .. } => Ok(Some(Arc::clone(manifest))),
            Source::Foreign { store, manifest } => {
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
        let tasks = self.tasks();
        self.lives.plan(tasks.iter().copied());
        if let Some(behind) = manifest.map(|it| clock::behind(&it.operators, self.env.wall())).transpose()? {
            behind.iter().for_each(|line| self.env.warn(&format!("job {}: {line}", self.plan.job_name)));
        }
        let mut restored = match manifest {
            Some(manifest) => deal::deal(&self.plan, manifest, self.env.wall())?,
            None => deal::Restored::default(),
        };
        let mut enumerators = BTreeMap::new();
        for (index, chain, uid, source) in self.sources() {
            let splits = match restored.splits.remove(uid) {
                Some(splits) => splits,
                None => self.discover(uid, source, chain.parallelism).await?,
            };
            let enumerator = Enumerator::new(source.boundedness(), chain.parallelism, splits);
            enumerators.insert(uid.clone(), (u32::try_from(index).unwrap_or(u32::MAX), enumerator));
        }
        let deployment =
            |task: TaskId| TaskDeployment { task, restore: restored.tasks.remove(&task).unwrap_or_default() };
        let tasks = tasks.into_iter().map(deployment).collect();
        // Whoever registered has slots for all of them.
        self.lives.change_all(Change::Schedule)?;
        self.lives.change_all(Change::Deploy)?;
        self.to_tasks.send(&ToTaskManager::Deploy { info: *info, tasks }).await?;
        Ok(enumerators)
    }

    fn tasks(&self) -> BTreeSet<TaskId> {
        let chains = self.plan.chains.iter().enumerate();
        let of = |(index, chain): (usize, &Chain)| {
            let chain_index = u32::try_from(index).unwrap_or(u32::MAX);
            (0..chain.parallelism)
                .map(move |subtask| TaskId { chain: chain_index, subtask: SubtaskIndex(subtask) })
        };
        chains.flat_map(of).collect()
    }

    fn attempt_plan(&self, info: &AttemptInfo, tasks: BTreeSet<TaskId>) -> AttemptPlan {
        let is_source = |task: &TaskId| {
            let first = self.plan.chains[task.chain as usize].vertices[0];
            matches!(self.plan.vertex(first).kind, VertexKind::Source(_))
        };
        AttemptPlan {
            job_name: self.plan.job_name.clone(),
            job: info.job,
            lineage: info.lineage,
            attempt: info.attempt,
            max_parallelism: self.plan.max_parallelism,
            sources: tasks.iter().copied().filter(is_source).collect(),
            tasks,
            operators: describe::operators(&self.plan, &self.places),
        }
    }
}

/// Records that the sinks have committed what the history completed.
pub(super) async fn confirm(restore: &RestorePlan, history: &mut JobHistory) -> Result<()> {
    if let Some(last) = restore.pending.last() {
        history.append(Kind::SinksConfirmed(last.permit.checkpoint())).await?;
    }
    Ok(())
}
