//! Checkpoint directories as a job leaves them, made through the library: operators with keyed state and operator lists at
//! any parallelism.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use checkpoint::{
    history::{self, CheckpointKind, Completion, EndKind, JobHistory, JobLock, Kind, StartRequest, Started},
    manifest::{
        self, ListPart, Manifest, OperatorSnapshot, PreparedTransaction, Redistribution, SnapshotKind,
        StateDescription, SubtaskSnapshot,
    },
    savepoint::{self, RunCopier},
    storage::paths,
};
use env::{Env, Store};
use serde::Serialize;
use statebackend::{
    Declared, KeyRef, KeyedContext, KeyedState, Rewriting, RunCompression, RunSet, StateSpec, copy_canonical,
    plan_migration, restore, run_of, write_run,
};
use types::{
    Bincode, CheckpointId, Codec, ExpiryClocks, ExpiryTimes, KeyGroupRange, MaxParallelism, Result, Run,
    RunIdentity, Shape, SubtaskIndex, TimeDomain, Timestamp, Uid,
};

/// A job that runs as far as a test drives it.
pub(crate) struct Job {
    env: Env,
    store: Arc<dyn Store>,
    history: JobHistory,
    max: MaxParallelism,
    operators: BTreeMap<&'static str, Operator>,
    next: CheckpointId,
}

/// An operator, as the job begins with it.
pub(crate) struct Keyed {
    pub(crate) uid: &'static str,
    pub(crate) declared: Declared,
}

struct Operator {
    declared: Declared,
    subtasks: Vec<Subtask>,
}

struct Subtask {
    groups: KeyGroupRange,
    state: KeyedState,
    runs: Vec<Run>,
    lists: Vec<ListPart>,
}

/// The state of one key.
pub(crate) struct Context<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
    max: MaxParallelism,
}

impl KeyedContext for Context<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, self.max), self.state)
    }
}

impl Context<'_> {
    pub(crate) fn register(&mut self, at: i64) {
        self.state.register_event_timer(KeyRef::new(self.key, self.max), Timestamp(at));
    }

    /// So late is it, in processing time.
    pub(crate) fn at(&mut self, now: i64) {
        self.state.advance(TimeDomain::ProcessingTime, Timestamp(now));
    }

    pub(crate) fn unregister(&mut self, at: i64) {
        self.state.delete_event_timer(KeyRef::new(self.key, self.max), Timestamp(at));
    }
}

/// Where a job lives and how wide it is.
pub(crate) struct Place<'a> {
    pub(crate) url: &'a str,
    pub(crate) max: u16,
    pub(crate) parallelism: u32,
}

/// Runs `work` in the real world.
pub(crate) fn really<T>(work: impl AsyncFnOnce(Env) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { work(Env::real()).await })
}

impl Job {
    pub(crate) async fn start(env: &Env, place: &Place<'_>, operators: Vec<Keyed>) -> Result<Self> {
        let (max, parallelism) = (MaxParallelism(place.max), place.parallelism);
        let store = env.open_store(place.url)?;
        let lock = JobLock::acquire(env, &*store, false).await?;
        let request = StartRequest::new("word-count", max, parallelism);
        let started = history::start(env, Arc::clone(&store), &lock, &request).await?;
        let Started::Running(history, plan) = started else { panic!("the job is new") };
        let next = plan.first_checkpoint;
        let subtask = |declared: &Declared, index| {
            let groups = max.range(SubtaskIndex(index), parallelism);
            let state = KeyedState::new(declared.clone(), groups, next);
            Subtask { groups, state, runs: Vec::new(), lists: Vec::new() }
        };
        let operator = |Keyed { uid, declared }: Keyed| {
            let subtasks = (0..parallelism).map(|index| subtask(&declared, index)).collect();
            (uid, Operator { declared, subtasks })
        };
        let operators = operators.into_iter().map(operator).collect();
        Ok(Self { env: env.clone(), store, history: *history, max, operators, next })
    }

    /// Lets `change` work on the state of a key.
    pub(crate) fn with(&mut self, uid: &str, key: &impl Serialize, change: impl FnOnce(&mut Context<'_>)) {
        let mut bytes = Vec::new();
        types::ordered::encode_into(key, &mut bytes).unwrap();
        let group = self.max.key_group(types::key_hash(&bytes));
        let subtasks = &mut self.operators.get_mut(uid).unwrap().subtasks;
        let owner = self.max.owner(group, subtasks.len() as u32).0 as usize;
        change(&mut Context { state: &mut subtasks[owner].state, key: &bytes, max: self.max });
    }

    /// Gives an operator list state these elements, dealt out round robin, or all to everyone.
    pub(crate) fn list(&mut self, uid: &str, name: &str, redistribution: Redistribution, elements: &[u64]) {
        let subtasks = &mut self.operators.get_mut(uid).unwrap().subtasks;
        let count = subtasks.len();
        for (index, subtask) in subtasks.iter_mut().enumerate() {
            let own = elements
                .iter()
                .enumerate()
                .filter(|(at, _)| redistribution == Redistribution::Broadcast || at % count == index);
            // One copy of what all have stands for all.
            if redistribution == Redistribution::Broadcast && index > 0 {
                continue;
            }
            let encode = |element: &u64| {
                let mut bytes = Vec::new();
                Bincode::encode(element, &mut bytes).unwrap();
                bytes
            };
            subtask.lists.retain(|part| part.name != name);
            subtask.lists.push(ListPart {
                name: name.to_owned(),
                redistribution,
                codec: Bincode::ID.to_owned(),
                shape: Shape::U64.to_bytes(),
                elements: own.map(|(_, element)| encode(element)).collect(),
            });
            subtask.lists.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Lets an operator go on from its runs with other states, into which the stored ones are migrated.
    pub(crate) async fn migrate(&mut self, uid: &str, declared: Declared) -> Result<()> {
        let (job, attempt, clocks) = (self.history.job(), self.history.attempt(), ExpiryClocks::default());
        let operator = self.operators.get_mut(uid).unwrap();
        for (index, Subtask { groups, state, runs, .. }) in (0..).zip(&mut operator.subtasks) {
            let subtask = SubtaskIndex(index);
            let identity = RunIdentity { job, attempt, operator: Uid::new(uid)?, subtask, number: 0 };
            let path = &paths::run(attempt, &identity.operator, subtask, identity.number);
            let now = ExpiryTimes { event: Timestamp(1_000), ..ExpiryTimes::BEGINNING };
            let compression = RunCompression::Zstd;
            let how = Rewriting { clocks: &clocks, now, identity, path, compression, call: |call| call() };
            let plan = plan_migration(&*self.store, runs, &declared, *groups).await?.unwrap();
            *runs = plan.rewrite(&self.env, &*self.store, how).await?;
            *state = KeyedState::new(declared.clone(), *groups, self.next);
            restore(&self.env, &*self.store, runs, state).await?;
        }
        operator.declared = declared;
        Ok(())
    }

    pub(crate) async fn checkpoint(&mut self, kind: CheckpointKind) -> Result<Manifest> {
        let manifest = self.complete(kind, 0).await?;
        self.history.append(Kind::SinksConfirmed(manifest.checkpoint)).await?;
        Ok(manifest)
    }

    /// Up to its record; a sink `out` has prepared so many transactions.
    pub(crate) async fn complete(&mut self, kind: CheckpointKind, prepared: u32) -> Result<Manifest> {
        let checkpoint = self.next;
        self.next = checkpoint.next();
        for uid in self.operators.keys().copied().collect::<Vec<_>>() {
            self.seal(checkpoint, uid).await?;
        }
        let mut manifest = self.manifest(checkpoint);
        manifest.operators.extend((prepared > 0).then(|| self.sink(checkpoint, prepared)));
        manifest.operators.sort_by(|a, b| a.uid.cmp(&b.uid));
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

    /// Writes the runs of an operator, which no checkpoint lists yet.
    pub(crate) async fn seal(&mut self, checkpoint: CheckpointId, uid: &str) -> Result<()> {
        let (job, attempt) = (self.history.job(), self.history.attempt());
        let subtasks = &mut self.operators.get_mut(uid).unwrap().subtasks;
        for (index, Subtask { groups, state, runs, .. }) in (0..).zip(subtasks) {
            state.flip(checkpoint);
            while state.drain(1000)? > 0 {}
            let (_, delta) = state.take_sealed().unwrap();
            if delta.is_empty() {
                continue;
            }
            let operator = Uid::new(uid)?;
            let subtask = SubtaskIndex(index);
            let identity = RunIdentity { job, attempt, operator, subtask, number: checkpoint.0 };
            let path = paths::run(identity.attempt, &identity.operator, identity.subtask, identity.number);
            let written = write_run(delta, identity, *groups, RunCompression::Zstd)?;
            runs.push(run_of(&written, &path));
            self.store.put(&path, written.payload).await?;
        }
        Ok(())
    }

    fn manifest(&self, checkpoint: CheckpointId) -> Manifest {
        let standing = self.history.standing();
        let subtask = |(index, subtask): (u32, &Subtask)| SubtaskSnapshot {
            subtask: SubtaskIndex(index),
            groups: subtask.groups,
            runs: subtask.runs.clone(),
            lists: lists(subtask),
            prepared: Vec::new(),
            watermark: Timestamp::MIN,
            processing_time: Timestamp(0),
        };
        let state = |spec: StateSpec| StateDescription {
            kind: spec.kind_text(),
            name: spec.name,
            codec: spec.codec,
            shape: spec.shape.to_bytes(),
            map_key_shape: spec.map_key.as_ref().map(Shape::to_bytes).unwrap_or_default(),
        };
        let operator = |(uid, operator): (&&'static str, &Operator)| OperatorSnapshot {
            uid: Uid::new(uid).unwrap(),
            kind: (*uid).to_owned(),
            parallelism: operator.subtasks.len() as u32,
            key_shape: operator.declared.key_shape().map(Shape::to_bytes).unwrap_or_default(),
            states: operator.declared.descriptions().into_iter().map(state).collect(),
            subtasks: (0..).zip(&operator.subtasks).map(subtask).collect(),
            enumerator: None,
        };
        Manifest {
            kind: SnapshotKind::Checkpoint,
            job_name: standing.job_name.clone(),
            job: standing.job,
            lineage: standing.attempt.lineage,
            attempt: standing.attempt.id,
            checkpoint,
            max_parallelism: self.max,
            drained: false,
            ended: false,
            triggered_at: Timestamp(1_000_000_000_000),
            operators: self.operators.iter().map(operator).collect(),
        }
    }

    pub(crate) async fn savepoint(&mut self, manifest: &Manifest, url: &str) -> Result<()> {
        let copier = Copier(self.env.clone());
        let written = savepoint::write(&self.env, &*self.store, manifest, url, &copier).await?;
        self.history.append(Kind::SavepointCompleted(written.savepoint)).await.map(drop)
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.history.append(Kind::Ended(EndKind::Stopped)).await.map(drop)
    }
}

fn lists(subtask: &Subtask) -> Vec<ListPart> {
    let mut lists = subtask.lists.clone();
    lists.extend(subtask.state.expiry_clocks().map(|clocks| ListPart::of_expiry_clocks(&clocks).unwrap()));
    lists.sort_by(|a, b| a.name.cmp(&b.name));
    lists
}

struct Copier(Env);

#[async_trait]
impl RunCopier for Copier {
    async fn copy(
        &self,
        from: &dyn Store,
        runs: &[Run],
        clocks: &ExpiryClocks,
        to: &dyn Store,
        path: &str,
        identity: RunIdentity,
    ) -> Result<Option<Run>> {
        if runs.is_empty() {
            return Ok(None);
        }
        copy_canonical(&self.0, from, RunSet::new(runs, clocks), to, path, identity, RunCompression::Zstd)
            .await
            .map(|(run, _)| Some(run))
    }
}
