//! A checkpoint directory as a job leaves it, made through the library: a keyed count on two subtasks, two checkpoints
//! that share runs, a savepoint, and the end.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use checkpoint::{
    history::{
        self, CheckpointKind, Completion, EndKind, JobHistory, JobLock, Kind, Savepoint, StartRequest,
        Started,
    },
    manifest::{
        self, Manifest, OperatorSnapshot, PreparedTransaction, SnapshotKind, StateDescription,
        SubtaskSnapshot,
    },
    savepoint::{self, RunCopier},
    storage::paths,
};
use env::{Env, Files, Store};
use statebackend::{
    Declared, KeyRef, KeyedContext, KeyedState, RunCompression, StateDeclarations, ValueState,
    copy_canonical, run_of, write_run,
};
use tempfile::TempDir;
use types::{
    CheckpointId, KeyGroupRange, MaxParallelism, Result, Run, RunIdentity, Shape, SubtaskIndex, Timestamp,
    Uid,
};

const MAX: MaxParallelism = MaxParallelism(8);
const SUBTASKS: u32 = 2;

/// The directories, in a folder that goes with it: `ck`, a checkpoint directory, and `sp`, a savepoint.
pub(crate) struct Directory {
    pub(crate) folder: TempDir,
    pub(crate) files: Arc<dyn Files>,
}

impl Directory {
    /// 100 words counted in checkpoint 1, ten of them again in checkpoint 2, which is copied to the savepoint.
    pub(crate) fn new() -> Self {
        Self::of(async |mut job, savepoint| {
            job.count(0..100);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            job.count(0..10);
            let manifest = job.checkpoint(CheckpointKind::Savepoint).await.unwrap();
            job.savepoint(&manifest, savepoint).await.unwrap();
            job.history.append(Kind::Ended(EndKind::Stopped)).await.unwrap();
        })
    }

    /// The same, but for the savepoint and the end: the job has died with output of checkpoint 2 that its sink `out` has not
    /// committed, and with a run that no checkpoint lists.
    pub(crate) fn died() -> Self {
        Self::of(async |mut job, _| {
            job.count(0..100);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            job.count(0..10);
            job.complete(CheckpointKind::Ordinary, 1).await.unwrap();
            job.count(0..10);
            job.seal(CheckpointId(3), 0).await.unwrap();
        })
    }

    fn of(live: impl AsyncFnOnce(Job, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let files = runtime.block_on(async {
            let (checkpoints, savepoint) = (folder.path().join("ck"), folder.path().join("sp"));
            let env = Env::real();
            let job = Job::start(&env, checkpoints.to_str().unwrap()).await.unwrap();
            live(job, savepoint.to_str().unwrap()).await;
            env.files()
        });
        Self { folder, files }
    }

    /// A file below the checkpoint directory.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("ck").join(path)
    }
}

struct Job {
    env: Env,
    store: Arc<dyn Store>,
    history: JobHistory,
    count: ValueState<u64>,
    subtasks: Vec<Subtask>,
    next: CheckpointId,
}

struct Subtask {
    groups: KeyGroupRange,
    state: KeyedState,
    runs: Vec<Run>,
}

struct Context<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
}

impl KeyedContext for Context<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }
}

fn declare() -> (Declared, ValueState<u64>) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let count = states.value("count");
    (states.finish().unwrap(), count)
}

impl Job {
    async fn start(env: &Env, url: &str) -> Result<Self> {
        let store = env.open_store(url)?;
        let lock = JobLock::acquire(env, &*store, false).await?;
        let request = StartRequest::new("word-count", MAX, SUBTASKS);
        let started = history::start(env, Arc::clone(&store), &lock, &request).await?;
        let Started::Running(history, plan) = started else { panic!("the job is new") };
        let next = plan.first_checkpoint;
        let (_, count) = declare();
        let subtask = |index| {
            let groups = MAX.range(SubtaskIndex(index), SUBTASKS);
            Subtask { groups, state: KeyedState::new(declare().0, groups, next), runs: Vec::new() }
        };
        let subtasks = (0..SUBTASKS).map(subtask).collect();
        Ok(Self { env: env.clone(), store, history: *history, count, subtasks, next })
    }

    /// Counts words with these numbers once more.
    fn count(&mut self, words: std::ops::Range<u64>) {
        for word in words {
            let mut key = Vec::new();
            types::ordered::encode_into(&format!("word {word}"), &mut key).unwrap();
            let group = MAX.key_group(types::key_hash(&key));
            let owner = MAX.owner(group, SUBTASKS).0 as usize;
            let mut context = Context { state: &mut self.subtasks[owner].state, key: &key };
            let count = self.count.get(&mut context).unwrap().unwrap_or(0);
            self.count.set(&mut context, count + 1).unwrap();
        }
    }

    async fn checkpoint(&mut self, kind: CheckpointKind) -> Result<Manifest> {
        let manifest = self.complete(kind, 0).await?;
        self.history.append(Kind::SinksConfirmed(manifest.checkpoint)).await?;
        Ok(manifest)
    }

    /// Up to its record; the sink has prepared so many transactions.
    async fn complete(&mut self, kind: CheckpointKind, prepared: u32) -> Result<Manifest> {
        let checkpoint = self.next;
        self.next = checkpoint.next();
        for index in 0..self.subtasks.len() {
            self.seal(checkpoint, index).await?;
        }
        let mut manifest = self.manifest(checkpoint);
        manifest.operators.extend((prepared > 0).then(|| self.sink(checkpoint, prepared)));
        let file = manifest::write(&self.env, &*self.store, &manifest).await?;
        let completed = Kind::CheckpointCompleted(Completion { checkpoint, manifest: file, kind });
        self.history.append(completed).await?;
        Ok(manifest)
    }

    fn sink(&self, checkpoint: CheckpointId, prepared: u32) -> OperatorSnapshot {
        let (lineage, attempt) = (self.history.lineage(), self.history.attempt());
        let transaction = |writer| PreparedTransaction {
            lineage,
            writer: SubtaskIndex(writer),
            attempt,
            checkpoint,
            payload: Vec::new(),
            file: None,
        };
        let subtask = SubtaskSnapshot {
            subtask: SubtaskIndex(0),
            groups: KeyGroupRange { start: 0, end: 0 },
            runs: Vec::new(),
            lists: Vec::new(),
            prepared: (0..prepared).map(transaction).collect(),
            watermark: Timestamp::MIN,
            processing_time: Timestamp(0),
        };
        OperatorSnapshot {
            uid: Uid::new("out").unwrap(),
            kind: "sink".to_owned(),
            parallelism: 1,
            key_shape: Vec::new(),
            states: Vec::new(),
            subtasks: vec![subtask],
            enumerator: None,
        }
    }

    async fn seal(&mut self, checkpoint: CheckpointId, index: usize) -> Result<()> {
        let Subtask { groups, state, runs } = &mut self.subtasks[index];
        state.flip(checkpoint);
        while state.drain(1000)? > 0 {}
        let (_, delta) = state.take_sealed().unwrap();
        let identity = RunIdentity {
            job: self.history.job(),
            attempt: self.history.attempt(),
            operator: Uid::new("count")?,
            subtask: SubtaskIndex(u32::try_from(index).unwrap()),
            number: checkpoint.0,
        };
        let path = paths::run(identity.attempt, &identity.operator, identity.subtask, identity.number);
        let written = write_run(delta, identity, *groups, RunCompression::Zstd)?;
        runs.push(run_of(&written, &path));
        self.store.put(&path, written.payload).await
    }

    fn manifest(&self, checkpoint: CheckpointId) -> Manifest {
        let standing = self.history.standing();
        let subtask = |(index, subtask): (usize, &Subtask)| SubtaskSnapshot {
            subtask: SubtaskIndex(u32::try_from(index).unwrap()),
            groups: subtask.groups,
            runs: subtask.runs.clone(),
            lists: Vec::new(),
            prepared: Vec::new(),
            watermark: Timestamp::MIN,
            processing_time: Timestamp(0),
        };
        let count = StateDescription {
            name: "count".to_owned(),
            kind: "value".to_owned(),
            codec: "bincode-2".to_owned(),
            shape: Shape::U64.to_bytes(),
            map_key_shape: Vec::new(),
        };
        Manifest {
            kind: SnapshotKind::Checkpoint,
            job_name: standing.job_name.clone(),
            job: standing.job,
            lineage: standing.attempt.lineage,
            attempt: standing.attempt.id,
            checkpoint,
            max_parallelism: MAX,
            drained: false,
            ended: false,
            triggered_at: Timestamp(1_000_000_000_000),
            operators: vec![OperatorSnapshot {
                uid: Uid::new("count").unwrap(),
                kind: "count".to_owned(),
                parallelism: SUBTASKS,
                key_shape: Shape::Str.to_bytes(),
                states: vec![count],
                subtasks: self.subtasks.iter().enumerate().map(subtask).collect(),
                enumerator: None,
            }],
        }
    }

    async fn savepoint(&mut self, manifest: &Manifest, url: &str) -> Result<()> {
        let copier = Copier(self.env.clone());
        let Savepoint { checkpoint, manifest, .. } =
            savepoint::write(&self.env, &*self.store, manifest, url, &copier).await?;
        let record = Savepoint { checkpoint, url: url.to_owned(), manifest };
        self.history.append(Kind::SavepointCompleted(record)).await?;
        Ok(())
    }
}

struct Copier(Env);

#[async_trait]
impl RunCopier for Copier {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        copy_canonical(&self.0, from, runs, to, path, identity, RunCompression::Zstd)
            .await
            .map(|(run, _)| Some(run))
    }
}
