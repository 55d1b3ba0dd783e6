//! A job without an engine: one operator with one subtask, whose runs are small files. It takes checkpoints, merges its
//! runs, and restores, through the crate's own parts.

use std::{sync::Arc, time::Duration};

use env::{Env, Store};
use tidegate_checkpoint::{
    history::{
        CheckpointKind, Completion, Instance, JobHistory, JobLock, Kind, Milestones, Record, Records,
        RestorePlan, Source, StartRequest, Started,
        log::start_in,
        start::{Candidate, Decision, decide},
    },
    manifest::{self, Manifest, OperatorSnapshot, SnapshotKind, StateDescription, SubtaskSnapshot},
    storage::{paths, retry::Retry},
};
use types::{
    CheckpointId, Digest, JobId, Lineage, MaxParallelism, Result, Run, RunIdentity, SnapshotFile,
    SubtaskIndex, Timestamp, Uid,
};

pub(crate) const MILESTONES_EVERY: u64 = 5;

/// Short enough that a lost cause does not take minutes of virtual time.
pub(crate) const RETRY: Retry = Retry {
    deadline: Duration::from_secs(20),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_secs(1),
};

pub(crate) fn records(env: &Env, store: &Arc<dyn Store>) -> Records {
    Records::new(env, Arc::clone(store)).with(Milestones::every(MILESTONES_EVERY), RETRY)
}

pub(crate) fn request(name: &str) -> StartRequest {
    StartRequest::new(name, MaxParallelism(1), 1)
}

/// The record of a fresh start or a continuation by this instance of a process, which must not be over.
pub(crate) fn start_record(newest: Option<&Record>, life: u8) -> Record {
    let request = StartRequest::new("j", MaxParallelism(1), 1);
    let candidate = Candidate {
        request: &request,
        instance: Instance(u128::from(life)),
        process: "p",
        directory: "d",
        new_job: JobId(1),
        new_lineage: Lineage(1),
    };
    match decide(newest.map(|newest| &newest.standing), &candidate).unwrap() {
        Decision::Start(start) => Record::after(newest, Timestamp(0), Kind::AttemptStarted(start)).unwrap(),
        Decision::Finished(_) => panic!("nothing here finishes"),
    }
}

/// A start that must lead to a running attempt.
pub(crate) async fn started(
    env: &Env,
    store: &Arc<dyn Store>,
    request: &StartRequest,
) -> Result<(JobHistory, RestorePlan)> {
    let lock = JobLock::acquire(env, &**store, true).await?;
    match start_in(records(env, store), &lock, request).await? {
        Started::Running(history, plan) => Ok((*history, *plan)),
        Started::Finished { at } => panic!("the job finished at {at}"),
    }
}

pub(crate) struct Job {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) history: JobHistory,
    pub(crate) runs: Vec<Run>,
    next_run: u64,
    next_checkpoint: CheckpointId,
}

impl Job {
    pub(crate) async fn start(env: &Env, store: &Arc<dyn Store>) -> Result<Self> {
        let (history, plan) = started(env, store, &request("job")).await?;
        let runs = match &plan.source {
            Source::Empty => Vec::new(),
            Source::Own { manifest, .. } | Source::Foreign { manifest, .. } => runs_of(manifest),
        };
        let (env, store) = (env.clone(), Arc::clone(store));
        let mut job = Self { env, store, history, runs, next_run: 1, next_checkpoint: plan.first_checkpoint };
        for pending in &plan.pending {
            job.history.append(Kind::SinksConfirmed(pending.permit.checkpoint())).await?;
        }
        Ok(job)
    }

    /// Writes a run of these bytes and gives its description.
    pub(crate) async fn write_run(&mut self, bytes: &str) -> Result<Run> {
        let operator = uid();
        let number = self.next_run;
        self.next_run += 1;
        let path = paths::run(self.history.attempt(), &operator, SubtaskIndex(0), number);
        self.store.put(&path, vec![bytes.to_owned().into()]).await?;
        let (job, attempt) = (self.history.job(), self.history.attempt());
        Ok(Run {
            file: SnapshotFile { path, len: bytes.len() as u64, digest: Digest::of(bytes.as_bytes()) },
            identity: RunIdentity { job, attempt, operator, subtask: SubtaskIndex(0), number },
            groups: MaxParallelism(1).all(),
            without: Vec::new(),
            entries: 1,
            tombstones: 0,
            plain_bytes: bytes.len() as u64,
        })
    }

    /// One more run in the list, as a task seals it; its checkpoint may still fail.
    pub(crate) async fn seal(&mut self) -> Result<()> {
        let bytes = format!("run {} of attempt {}", self.next_run, self.history.attempt());
        let run = self.write_run(&bytes).await?;
        self.runs.push(run);
        Ok(())
    }

    /// Merges the two oldest runs into one.
    pub(crate) async fn merge(&mut self) -> Result<()> {
        if self.runs.len() >= 2 {
            let merged = self.write_run("a merged run").await?;
            self.runs.splice(..2, [merged]);
        }
        Ok(())
    }

    /// A checkpoint up to its record.
    pub(crate) async fn complete(&mut self) -> Result<CheckpointId> {
        self.seal().await?;
        let checkpoint = self.next_checkpoint;
        let manifest = self.manifest(checkpoint);
        let file = manifest::write(&self.env, &*self.store, &manifest).await?;
        let completion = Completion { checkpoint, manifest: file, kind: CheckpointKind::Ordinary };
        let created = self.history.append(Kind::CheckpointCompleted(completion)).await?;
        assert_eq!(created.commit_permit().unwrap().checkpoint(), checkpoint);
        self.next_checkpoint = checkpoint.next();
        Ok(checkpoint)
    }

    /// A checkpoint whose sinks have committed.
    pub(crate) async fn checkpoint(&mut self) -> Result<CheckpointId> {
        let checkpoint = self.complete().await?;
        self.history.append(Kind::SinksConfirmed(checkpoint)).await?;
        Ok(checkpoint)
    }

    pub(crate) fn manifest(&self, checkpoint: CheckpointId) -> Manifest {
        let standing = self.history.standing();
        Manifest {
            kind: SnapshotKind::Checkpoint,
            job_name: standing.job_name.clone(),
            job: standing.job,
            lineage: standing.attempt.lineage,
            attempt: standing.attempt.id,
            checkpoint,
            max_parallelism: standing.max_parallelism,
            drained: false,
            ended: false,
            triggered_at: Timestamp(0),
            operators: vec![operator(self.runs.clone())],
        }
    }
}

pub(crate) fn uid() -> Uid {
    Uid::new("count").unwrap()
}

pub(crate) fn operator(runs: Vec<Run>) -> OperatorSnapshot {
    let state = StateDescription {
        name: "count".into(),
        kind: "value".into(),
        codec: "bincode2".into(),
        shape: Vec::new(),
        map_key_shape: Vec::new(),
    };
    OperatorSnapshot {
        uid: uid(),
        kind: "fold".into(),
        parallelism: 1,
        key_shape: Vec::new(),
        states: vec![state],
        subtasks: vec![SubtaskSnapshot {
            subtask: SubtaskIndex(0),
            groups: MaxParallelism(1).all(),
            runs,
            lists: Vec::new(),
            prepared: Vec::new(),
            watermark: Timestamp(0),
            processing_time: Timestamp(0),
        }],
        enumerator: None,
    }
}

pub(crate) fn runs_of(manifest: &Manifest) -> Vec<Run> {
    manifest
        .operators
        .iter()
        .flat_map(|operator| &operator.subtasks)
        .flat_map(|part| part.runs.clone())
        .collect()
}
