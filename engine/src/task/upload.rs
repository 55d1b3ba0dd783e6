//! Run files, written and merged in the background: one write and one merge at a time in a process, so that sorting and
//! compression take little from the tasks and no checkpoint waits for a merge. What fails is tried again: a sealed delta
//! is never given up while its task lives, since the next checkpoint needs it too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use checkpoint::{
    local_recovery::{LocalRecovery, LocalStore},
    storage::paths,
};
use env::{Env, FaultPoint, Message, Sender, Store};
use statebackend::{
    Delta, MergePolicy, MigrationPlan, Refill, Rewriting, RunCompression, RunSet, merge, run_of, write_run,
};
use tokio::sync::Semaphore;
use types::{CheckpointId, Error, ExpiryClocks, ExpiryTimes, KeyGroupRange, Result, Run, RunIdentity};

use super::{guard, snapshot::MergeWork};

/// What the background has done for a task.
#[derive(Debug)]
pub(crate) enum UploadEvent {
    /// The run that holds an operator's changes of one interval is durable.
    Durable { operator: usize, checkpoint: CheckpointId, run: Run },
    /// Writing it failed and is being tried again: decline the checkpoint.
    Failed { checkpoint: CheckpointId, error: Error },
    /// The run cannot be built: the attempt must end.
    Broken { error: Error },
    /// Neighbouring runs became one.
    Merged { operator: usize, replaced: Vec<Run>, run: Run },
    /// A merge failed; the runs stay as they are.
    MergeFailed { operator: usize, error: Error },
}

/// The background worker of one process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uploads {
    env: Env,
    store: Arc<dyn Store>,
    local: Option<LocalRecovery>,
    /// Writing has a turn of its own: a checkpoint never waits for a merge.
    writing: Arc<Semaphore>,
    merging: Arc<Semaphore>,
    /// Whether the write whose turn it is has failed, and is being tried again.
    failing: Arc<AtomicBool>,
    pub(crate) policy: MergePolicy,
    compression: RunCompression,
}

/// A run to be written.
pub(crate) struct RunToWrite {
    pub(crate) operator: usize,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) delta: Delta,
    pub(crate) identity: RunIdentity,
    pub(crate) groups: KeyGroupRange,
}

impl Uploads {
    pub(crate) fn new(
        env: Env,
        store: Arc<dyn Store>,
        local: Option<LocalRecovery>,
        policy: MergePolicy,
        compression: RunCompression,
    ) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        let failing = Arc::new(AtomicBool::new(false));
        Self { env, store, local, writing: one(), merging: one(), failing, policy, compression }
    }

    /// Whether runs wait for a store that fails.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Sorts, compresses and writes a run; reports to `done`. Runs until it has succeeded or the task is gone. The end of
    /// the attempt does not stop it: a file that still appears is in no checkpoint, its path names the attempt, and a later
    /// attempt collects it.
    pub(crate) fn write(&self, work: RunToWrite, done: Sender<Message<UploadEvent>>) {
        let this = self.clone();
        let name = format!("upload {} {}", work.identity.operator, work.checkpoint);
        self.env.spawn_task(&name, async move {
            let (operator, checkpoint) = (work.operator, work.checkpoint);
            let event = match this.write_now(work, &done).await {
                Ok(Some(run)) => UploadEvent::Durable { operator, checkpoint, run },
                Ok(None) => return,
                Err(error) => UploadEvent::Broken { error },
            };
            let _gone = done.send(Message(event)).await;
        });
    }

    async fn write_now(&self, work: RunToWrite, done: &Sender<Message<UploadEvent>>) -> Result<Option<Run>> {
        let _turn = turn(&self.writing).await?;
        let RunToWrite { checkpoint, delta, identity, groups, .. } = work;
        self.env.fault(FaultPoint::RunUploadBefore)?;
        let path = paths::run(identity.attempt, &identity.operator, identity.subtask, identity.number);
        let (of, compression) = (identity.clone(), self.compression);
        let written =
            self.env.blocking("write run", move || write_run(delta, of, groups, compression)).await??;
        let run = run_of(&written, &path);
        let mut pause = Duration::from_millis(50);
        let store = self.store_for(&[]);
        while let Err(error) = store.put(&path, written.payload.clone()).await {
            self.failing.store(true, Ordering::Relaxed);
            let failed = UploadEvent::Failed { checkpoint, error: error.context(format!("writing {path}")) };
            if done.send(Message(failed)).await.is_err() {
                return Ok(None);
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
        self.failing.store(false, Ordering::Relaxed);
        self.env.fault(FaultPoint::RunUploadAfter)?;
        Ok(Some(run))
    }

    /// Writes states anew before they are restored; returns the runs to restore. `clocks` are the snapshot's. The new run is
    /// durable, and no checkpoint names it yet: if the attempt dies before the first one, a later attempt begins anew from the
    /// same snapshot, and collects it.
    pub(crate) async fn migrate(
        &self,
        store: &dyn Store,
        plan: MigrationPlan,
        clocks: &ExpiryClocks,
        now: ExpiryTimes,
        identity: RunIdentity,
    ) -> Result<Vec<Run>> {
        let path = &paths::run(identity.attempt, &identity.operator, identity.subtask, identity.number);
        let compression = self.compression;
        let call = |call: &mut dyn FnMut() -> Result<()>| guard::catch(call);
        let how = Rewriting { clocks, now, identity, path, compression, call };
        plan.rewrite(&self.env, store, how).await
    }

    /// Makes memory ready that draining will soon need.
    pub(crate) fn refill(&self, refill: Refill) {
        let env = self.env.clone();
        self.env.spawn_task("refill", async move {
            // Without it the task makes what it needs itself.
            let _failed = env.blocking("refill", move || refill.run()).await;
        });
    }

    /// Merges neighbouring runs into one; reports to `done`.
    /// What has expired by `clocks` is left out.
    pub(crate) fn merge(&self, work: MergeWork, clocks: ExpiryClocks, done: Sender<Message<UploadEvent>>) {
        let this = self.clone();
        let MergeWork { position: operator, runs, includes_oldest, identity, .. } = work;
        let name = format!("merge {} {}", identity.operator, identity.number);
        self.env.spawn_task(&name, async move {
            let event = match this.merge_now(&runs, includes_oldest, &clocks, identity).await {
                Ok(run) => UploadEvent::Merged { operator, replaced: runs, run },
                Err(error) => UploadEvent::MergeFailed { operator, error },
            };
            let _gone = done.send(Message(event)).await;
        });
    }

    /// The store, to read these runs and to write others: each with a copy on this machine, if there is local recovery.
    fn store_for(&self, runs: &[Run]) -> LocalStore {
        LocalStore::new(Arc::clone(&self.store), self.local.clone(), runs)
    }

    async fn merge_now(
        &self,
        runs: &[Run],
        includes_oldest: bool,
        clocks: &ExpiryClocks,
        identity: RunIdentity,
    ) -> Result<Run> {
        let _turn = turn(&self.merging).await?;
        let path = paths::run(identity.attempt, &identity.operator, identity.subtask, identity.number);
        merge(
            &self.env,
            &self.store_for(runs),
            RunSet::new(runs, clocks),
            includes_oldest,
            identity,
            &path,
            self.compression,
        )
        .await
    }
}

/// One at a time.
async fn turn(semaphore: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>> {
    semaphore.acquire().await.map_err(|_| Error::internal("the upload semaphore is closed"))
}
