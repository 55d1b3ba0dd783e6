//! The job history at work beside the JobManager's loop: appends one record at a time, collects garbage in between.
//! While tasks run, records are appended and permits to commit come into being only here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use checkpoint::{
    collect::{Collector, FILES_IN_OPEN_MARKS, Marked},
    coordinator::RequestId,
    history::{CommitPermit, DeletePermit, JobHistory, Kind},
};
use env::{Env, Limits, Message, Receiver, Sender, Store, TaskHandle, channel};
use types::{CheckpointId, Error, ErrorKind, RecordNumber, Result};

/// So long the end of a job waits for the deletion of files that nothing needs: nobody else deletes them, if it never starts
/// again.
const LONGEST_DELETES: Duration = Duration::from_secs(5);

/// Fewer open marks than this are never too many, however large.
const MANY_MARKS: usize = 4;

/// What to do.
#[derive(Debug)]
pub(crate) enum JournalWork {
    /// Append this record.
    Append(Box<Kind>),
    /// Delete what nothing needs; these checkpoints are being copied from.
    Collect(BTreeSet<CheckpointId>),
    /// The same for somebody who asked and waits; what died with older attempts is looked for once more.
    CollectFor(RequestId, BTreeSet<CheckpointId>),
}

/// What was done.
#[derive(Debug)]
pub(crate) enum JournalDone {
    /// The record is in the history; for a completed checkpoint, with the right to commit it.
    Appended(Result<Option<CommitPermit>>),
    /// What is to go could not be marked, or files of a mark could not be deleted for the first time.
    NotCollected(Error),
    /// What these requests asked for: how many files were deleted, and whether there are more.
    Collected { requests: Vec<RequestId>, result: Result<(u64, bool)> },
}

/// The handle of the history's worker.
pub(crate) struct Journal {
    pub(crate) work: Sender<Message<JournalWork>>,
    pub(crate) done: Receiver<Message<JournalDone>>,
    handle: TaskHandle,
}

impl Journal {
    /// Starts the worker; `retained` completed checkpoints are kept.
    pub(crate) fn start(env: &Env, store: Arc<dyn Store>, history: JobHistory, retained: usize) -> Self {
        let (work, todo) = channel(env, Limits::items(64));
        let (report, done) = channel(env, Limits::items(64));
        let collector = Collector::new(env, Arc::clone(&store), retained);
        let worker = Worker {
            env: env.clone(),
            store,
            history,
            collector,
            swept_orphans: false,
            under_way: 0,
            told: BTreeSet::new(),
            sweep: Sweep::default(),
            asked: Asked::default(),
        };
        let handle = env.spawn_task("journal", worker.serve(todo, report));
        Self { work, done, handle }
    }

    /// Ends the worker of a job that has ended, once the deletes that are under way are done, or have taken too long.
    pub(crate) async fn finish(self, env: &Env) {
        let Self { work, mut done, handle } = self;
        drop(work);
        let ended = async { while done.recv().await.is_some() {} };
        let _in_time = env.timeout(LONGEST_DELETES, ended).await;
        handle.abort();
        let _ended = handle.join().await;
    }

    /// Ends the worker. What it was doing is decided by the history alone.
    pub(crate) async fn end(self) {
        self.handle.abort();
        let _ended = self.handle.join().await;
    }
}

/// What goes on beside the appends: it is slow, and needs no history.
enum Aside {
    /// The deletion of a mark's files has ended.
    Deleted(DeletePermit, Result<()>),
    /// That of the records below this milestone has.
    Swept(RecordNumber, Result<()>),
}

struct Worker {
    env: Env,
    store: Arc<dyn Store>,
    history: JobHistory,
    collector: Collector,
    /// No file of an older attempt is left that nothing refers to.
    swept_orphans: bool,
    /// How many marks are being deleted.
    under_way: usize,
    /// Marks of which a failure was told.
    told: BTreeSet<RecordNumber>,
    sweep: Sweep,
    asked: Asked,
}

/// Those who wait until what may go is gone.
#[derive(Default)]
struct Asked {
    requests: Vec<RequestId>,
    /// Files deleted since the first of them asked.
    files: u64,
}

impl Asked {
    fn take(&mut self, result: Result<bool>) -> JournalDone {
        let Self { requests, files } = std::mem::take(self);
        JournalDone::Collected { requests, result: result.map(|more| (files, more)) }
    }
}

/// The deletion of old history records.
#[derive(Default)]
struct Sweep {
    /// The milestone below which all are gone.
    swept: Option<RecordNumber>,
    /// One at a time.
    is_under_way: bool,
    told_failure: bool,
}

impl Worker {
    async fn serve(mut self, mut todo: Receiver<Message<JournalWork>>, report: Sender<Message<JournalDone>>) {
        let (aside, mut beside) = channel::<Message<Aside>>(&self.env, Limits::items(16));
        for permit in self.history.open_garbage() {
            self.delete(permit, aside.clone());
        }
        // Marked, and not to be deleted so far, or not recorded as gone: tried again with each collection.
        let mut undone: Vec<DeletePermit> = Vec::new();
        let mut is_over = false;
        while !is_over || self.under_way > 0 {
            let done = tokio::select! {
                biased;
                work = todo.recv(), if !is_over => match work {
                    None => {
                        is_over = true;
                        continue;
                    }
                    Some(Message(JournalWork::Append(kind))) => JournalDone::Appended(self.append(*kind).await),
                    Some(Message(JournalWork::Collect(running))) => {
                        match self.collect(&running, &mut undone, &aside).await {
                            Ok(()) => continue,
                            Err(error) => JournalDone::NotCollected(error),
                        }
                    }
                    Some(Message(JournalWork::CollectFor(request, running))) => {
                        self.asked.requests.push(request);
                        self.swept_orphans = false;
                        match self.collect(&running, &mut undone, &aside).await {
                            Ok(()) if self.under_way > 0 => continue,
                            Ok(()) => self.asked.take(Ok(!self.swept_orphans)),
                            Err(error) => self.asked.take(Err(error)),
                        }
                    }
                },
                Some(Message(ended)) = beside.recv() => match ended {
                    Aside::Deleted(permit, result) => match self.on_deleted(&permit, result).await {
                        Ok(()) if self.asked.requests.is_empty() => continue,
                        Ok(()) => {
                            self.asked.files += permit.files().len() as u64;
                            if self.under_way > 0 {
                                continue;
                            }
                            self.asked.take(Ok(!self.swept_orphans))
                        }
                        Err(error) if !self.asked.requests.is_empty() => {
                            let is_fenced = error.kind() == ErrorKind::Fenced;
                            undone.extend(Some(permit).filter(|_| !is_fenced));
                            self.asked.take(Err(error))
                        }
                        Err(error) => {
                            let is_fenced = error.kind() == ErrorKind::Fenced;
                            let is_new = self.told.insert(permit.mark());
                            if !is_fenced {
                                undone.push(permit);
                            }
                            if !is_fenced && !is_new {
                                continue;
                            }
                            JournalDone::NotCollected(error)
                        }
                    },
                    Aside::Swept(milestone, result) => {
                        self.on_swept(milestone, result);
                        continue;
                    }
                },
            };
            if report.send(Message(done)).await.is_err() {
                return;
            }
        }
    }

    /// Begins to delete what may go now.
    async fn collect(
        &mut self,
        running: &BTreeSet<CheckpointId>,
        undone: &mut Vec<DeletePermit>,
        aside: &Sender<Message<Aside>>,
    ) -> Result<()> {
        for permit in undone.drain(..) {
            self.delete(permit, aside.clone());
        }
        self.sweep(aside);
        let permit = self.mark(running).await?;
        permit.into_iter().for_each(|permit| self.delete(permit, aside.clone()));
        Ok(())
    }

    /// The files of a mark are gone, or some are not.
    async fn on_deleted(&mut self, permit: &DeletePermit, result: Result<()>) -> Result<()> {
        self.under_way -= 1;
        result?;
        Collector::done(&mut self.history, permit).await?;
        self.told.remove(&permit.mark());
        Ok(())
    }

    async fn append(&mut self, kind: Kind) -> Result<Option<CommitPermit>> {
        let created = self.history.append(kind).await?;
        Ok(created.commit_permit())
    }

    /// From the attempt's first completed checkpoint on, what died with older attempts is looked for until all is found.
    async fn mark(&mut self, running: &BTreeSet<CheckpointId>) -> Result<Option<DeletePermit>> {
        // Each open mark stands in every record. One that is large does not end all collection.
        let open = &self.history.standing().garbage;
        let files = open.iter().map(|mark| mark.files.len()).sum::<usize>();
        if files >= FILES_IN_OPEN_MARKS && open.len() >= MANY_MARKS {
            return Ok(None);
        }
        let Marked { permit, orphans_exhausted } =
            self.collector.mark(&mut self.history, running, !self.swept_orphans).await?;
        self.swept_orphans |= orphans_exhausted;
        Ok(permit)
    }

    fn delete(&mut self, permit: DeletePermit, aside: Sender<Message<Aside>>) {
        self.under_way += 1;
        let (env, store) = (self.env.clone(), Arc::clone(&self.store));
        self.env.spawn_task("delete", async move {
            let result = Collector::delete(&env, &*store, &permit).await;
            let _gone = aside.send(Message(Aside::Deleted(permit, result))).await;
        });
    }

    /// Begins to delete the records that a new milestone has made superfluous.
    fn sweep(&mut self, aside: &Sender<Message<Aside>>) {
        let (records, newest) = (self.history.records().clone(), self.history.newest().number);
        let milestone = records.milestones().at_or_below(newest);
        if milestone.0 == 0 || self.sweep.is_under_way || self.sweep.swept == Some(milestone) {
            return;
        }
        self.sweep.is_under_way = true;
        let aside = aside.clone();
        self.env.spawn_task("sweep", async move {
            let result = Collector::sweep_records(&records, newest).await.map(drop);
            let _gone = aside.send(Message(Aside::Swept(milestone, result))).await;
        });
    }

    /// Old records cost a little space and no start reads them: a failure is told once, and tried again.
    fn on_swept(&mut self, milestone: RecordNumber, result: Result<()>) {
        self.sweep.is_under_way = false;
        match result {
            Ok(()) => self.sweep.swept = Some(milestone),
            Err(error) if !self.sweep.told_failure => {
                self.sweep.told_failure = true;
                self.env.warn(&format!("deleting old history records is tried again: {error}"));
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
