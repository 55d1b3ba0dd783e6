//! From a deployment to tasks that can run: operators, channels between them, readers and writers at the ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use checkpoint::{
    barrier::{CheckpointMode, align::Aligner, inject::Injector},
    local_recovery::LocalRecovery,
    manifest::TaskId,
};
use env::{Env, Limits, Message, Receiver, Sender, Store, TaskHandle, channel};
use statebackend::{MergePolicy, RunCompression};
use types::{CheckpointId, Error, KeyGroupRange, Result, SubtaskIndex, Uid};

use super::message::AttemptInfo;
use crate::{
    api::{
        erased::{AnySink, AnySource, ExchangeContext},
        pace::Pace,
        sink::SinkContext,
        source::SourceContext,
    },
    graph::{
        logical::{Port, Vertex, VertexKind},
        physical::{Chain as PlanChain, Plan, targets},
    },
    metrics::{Accumulators, Metrics},
    operators::{cancellation::Cancellation, operator::RuntimeContext},
    record::Element,
    task::{
        chain::{Chain, ChainedOperator, TaskOutput},
        guard,
        input::InputGate,
        load::Load,
        message::{TaskCommand, TaskReport, TaskTotals},
        run::{DurableVertex, Head, Reports, Role, Task, TaskOptions},
        sink::{SinkTail, spawn_committer},
        source::SourceHead,
        upload::Uploads,
        waiting::WaitingCells,
        working::Working,
    },
};

/// How tasks of a job run; from the job's settings.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeOptions {
    pub(crate) task: TaskOptions,
    pub(crate) mode: CheckpointMode,
    /// Records that one channel holds at the most.
    pub(crate) channel_records: usize,
    /// Bytes that one channel holds at the most.
    pub(crate) channel_bytes: usize,
    pub(crate) merge: MergePolicy,
    /// The stores behind keyed state, if it is not all in memory.
    pub(crate) working: Option<Arc<Working>>,
    /// Copies of run files on this machine, if there are to be any.
    pub(crate) local: Option<LocalRecovery>,
    pub(crate) compression: RunCompression,
    /// How long a task that is told to end may stay in a function.
    pub(crate) cancellation_timeout: Option<Duration>,
}

/// What all tasks of one attempt in this process share.
pub(crate) struct Workshop {
    pub(crate) env: Env,
    pub(crate) plan: Arc<Plan>,
    pub(crate) options: RuntimeOptions,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) uploads: Uploads,
    pub(crate) metrics: Metrics,
    pub(crate) info: AttemptInfo,
    pub(crate) cancellation: Cancellation,
    pub(crate) reports: Sender<Message<(TaskId, TaskReport)>>,
}

/// The ends of all channels, until their tasks take them.
pub(crate) struct Channels {
    /// By chain, output and upstream subtask: one sender for each target.
    senders: BTreeMap<(usize, usize, SubtaskIndex), Vec<Sender<Element>>>,
    /// By chain and subtask.
    receivers: BTreeMap<(usize, SubtaskIndex), Vec<Receiver<Element>>>,
}

/// A task about to run.
pub(crate) struct BuiltTask {
    pub(crate) task: Task,
    pub(crate) commands: Sender<Message<TaskCommand>>,
    /// What runs beside it and ends with it.
    pub(crate) beside: Vec<TaskHandle>,
    /// What it does, counted as long as it runs.
    pub(crate) done: Done,
}

/// What a task has done so far: for whoever ends it, since a task that is ended says nothing any more.
#[derive(Default)]
pub(crate) struct Done {
    records: Arc<AtomicU64>,
    accumulators: Accumulators,
}

impl Done {
    pub(crate) fn totals(&self) -> TaskTotals {
        let records = self.records.load(Ordering::Relaxed);
        TaskTotals { records, accumulators: self.accumulators.sums() }
    }
}

impl Workshop {
    /// All channels of the job.
    pub(crate) fn channels(&self) -> Channels {
        let mut channels = Channels { senders: BTreeMap::new(), receivers: BTreeMap::new() };
        let limits = Limits {
            records: self.options.channel_records,
            bytes: self.options.channel_bytes,
            // Marks take no room among records; they are few, and bounded all the same.
            items: self.options.channel_records + 64,
        };
        for (index, chain) in self.plan.chains.iter().enumerate() {
            for (output_index, output) in chain.outputs.iter().enumerate() {
                let downstream = self.plan.chains[output.to].parallelism;
                for from in (0..chain.parallelism).map(SubtaskIndex) {
                    let mut senders = Vec::new();
                    for to in targets(output.edge.partitioning, from, chain.parallelism, downstream) {
                        let (sender, receiver) = channel(&self.env, limits);
                        senders.push(sender);
                        channels.receivers.entry((output.to, to)).or_default().push(receiver);
                    }
                    channels.senders.insert((index, output_index, from), senders);
                }
            }
        }
        channels
    }

    /// Builds one task.
    ///
    /// # Errors
    /// What factories and sinks say; the error names the operator.
    pub(crate) async fn build(&self, id: TaskId, channels: &mut Channels) -> Result<BuiltTask> {
        let chain_index = id.chain as usize;
        let chain = &self.plan.chains[chain_index];
        let groups = self.plan.groups(chain_index, id.subtask);
        let done = Done::default();
        let context = |vertex: &Vertex| self.context(vertex, chain, id, groups, &done.accumulators);

        let receivers = channels.receivers.remove(&(chain_index, id.subtask)).unwrap_or_default();
        let first = self.plan.vertex(chain.vertices[0]);
        let restored = self.info.restored;
        let head = match &first.kind {
            VertexKind::Source(source) => self.source(&**source, first, chain, id, restored, &done)?,
            _ => {
                let aligner = Aligner::new(receivers.len(), self.options.mode, restored);
                Head::Input(InputGate::new(receivers, aligner))
            }
        };
        let mut operators = Vec::new();
        let mut durable = Vec::new();
        let mut sink = None;
        for (position, &vertex_id) in chain.vertices.iter().enumerate() {
            let vertex = self.plan.vertex(vertex_id);
            let role = match &vertex.kind {
                VertexKind::Source(_) => Role::Source,
                VertexKind::Operator(factory) => {
                    let context = context(vertex);
                    let here = |error: Error| error.context(format!("operator {}", context.operator));
                    let operator = guard::catch(|| factory.make(&context)).map_err(here)?;
                    operators.push(ChainedOperator::new(context, operator));
                    Role::Operator(operators.len() - 1)
                }
                VertexKind::Sink(found) => {
                    sink = Some((found, vertex));
                    Role::Sink
                }
            };
            if let Some(uid) = &vertex.uid {
                durable.push(DurableVertex { position, uid: uid.clone(), role });
            }
        }
        let outputs = self.outputs(chain, chain_index, id.subtask, &context, channels);
        let (events, committer_done) = channel(&self.env, Limits::items(64));
        let mut beside = Vec::new();
        let sink = match sink {
            Some((sink, vertex)) => Some(self.sink(sink, vertex, chain, id, events, &mut beside).await?),
            None => None,
        };
        let (commands, command_receiver) = channel(&self.env, Limits::items(256));
        let task = Task {
            env: self.env.clone(),
            id,
            job: self.info.job,
            attempt: self.info.attempt,
            groups,
            head,
            chain: Chain::new(operators, outputs, sink.is_some()),
            sink,
            durable,
            commands: command_receiver,
            committer_done,
            reports: Reports { id, sender: self.reports.clone() },
            store: Arc::clone(&self.store),
            uploads: self.uploads.clone(),
            local: self.options.local.clone(),
            working: self.options.working.clone(),
            options: self.options.task.clone(),
            cancellation: self.cancellation.clone(),
            load: Load::new(&self.metrics, &self.plan.job_name, id, self.env.now()),
            waiting: WaitingCells::new(&self.metrics, &self.plan.job_name, id),
        };
        Ok(BuiltTask { task, commands, beside, done })
    }

    fn context(
        &self,
        vertex: &Vertex,
        chain: &PlanChain,
        id: TaskId,
        groups: KeyGroupRange,
        accumulators: &Accumulators,
    ) -> RuntimeContext {
        let uid = vertex.uid.as_ref().map(Uid::as_str);
        let name: Arc<str> = uid.or(vertex.name.as_deref()).unwrap_or(vertex.kind_name).into();
        RuntimeContext {
            metrics: self.metrics.operator(&name, id.subtask),
            operator: name,
            subtask: id.subtask,
            parallelism: chain.parallelism,
            max_parallelism: self.plan.max_parallelism,
            attempt: self.info.attempt,
            groups,
            first_checkpoint: self.info.restored.next(),
            batch_records: self.options.task.batch_records,
            env: self.env.clone(),
            accumulators: accumulators.clone(),
            cancellation: self.cancellation.clone(),
        }
    }

    fn source(
        &self,
        source: &dyn AnySource,
        vertex: &Vertex,
        chain: &PlanChain,
        id: TaskId,
        restored: CheckpointId,
        done: &Done,
    ) -> Result<Head> {
        let uid = uid_of(vertex)?;
        let metrics = self.metrics.operator(uid.as_str(), id.subtask);
        let context =
            SourceContext { uid, env: self.env.clone(), subtask: id.subtask, parallelism: chain.parallelism };
        let reader = source.reader(context);
        let rate = self.options.task.source_rate;
        let pace = rate.map(|rate| Pace::new(&self.env, f64::from(rate) / f64::from(chain.parallelism)));
        let (injector, records) = (Injector::new(restored), Arc::clone(&done.records));
        Ok(Head::Source(SourceHead::new(reader, injector, pace, source.boundedness(), records, metrics)))
    }

    async fn sink(
        &self,
        sink: &Arc<dyn AnySink>,
        vertex: &Vertex,
        chain: &PlanChain,
        id: TaskId,
        done: Sender<Message<crate::task::sink::CommitterEvent>>,
        beside: &mut Vec<TaskHandle>,
    ) -> Result<SinkTail> {
        let present = named(vertex, sink, chain.parallelism).into_iter().next();
        let present = present.ok_or_else(|| Error::internal(format!("a {} has no uid", vertex.kind_name)))?;
        let context = present.context(&self.env, &self.info, id.subtask, &*self.store);
        let here = |error: Error| error.context(format!("sink {}", context.uid));
        let metrics = self.metrics.operator(context.uid.as_str(), id.subtask);
        let writer = sink.writer(context.clone()).await.map_err(here)?;
        let committer = match sink.committer(context.clone()) {
            None => None,
            Some(committer) => {
                let committer = committer.await.map_err(here)?;
                let (work, handle) = spawn_committer(&self.env, context.clone(), committer, done);
                beside.push(handle);
                Some(work)
            }
        };
        Ok(SinkTail::new(writer, context, committer, metrics))
    }

    fn outputs(
        &self,
        chain: &PlanChain,
        chain_index: usize,
        subtask: SubtaskIndex,
        context: &dyn Fn(&Vertex) -> RuntimeContext,
        channels: &mut Channels,
    ) -> Vec<TaskOutput> {
        // A source takes no place among the operators of its chain.
        let first_is_source = matches!(self.plan.vertex(chain.vertices[0]).kind, VertexKind::Source(_));
        let before = usize::from(first_is_source);
        let make = |(index, output): (usize, &crate::graph::physical::ChainOutput)| {
            let senders = channels.senders.remove(&(chain_index, index, subtask)).unwrap_or_default();
            let exchange = ExchangeContext {
                targets: senders.len(),
                max_parallelism: self.plan.max_parallelism,
                upstream: context(self.plan.vertex(chain.vertices[output.position])),
                batch_records: self.options.task.batch_records,
                batch_bytes: self.options.channel_bytes / 4,
            };
            let RuntimeContext { operator, subtask, .. } = &exchange.upstream;
            TaskOutput {
                upstream: format!("operator {operator}, subtask {subtask}"),
                records: 0,
                position: if output.port == Port::Main { usize::MAX } else { output.position - before },
                port: output.port,
                output: output.edge.exchange.output(&exchange),
                senders,
            }
        };
        chain.outputs.iter().enumerate().map(make).collect()
    }
}

/// A sink of a plan, under one of its names.
pub(crate) struct NamedSink {
    pub(crate) uid: Uid,
    /// All its names, the present one first.
    names: Vec<Uid>,
    pub(crate) sink: Arc<dyn AnySink>,
    parallelism: u32,
}

impl NamedSink {
    /// What the sink's writer or committer is told about where it runs.
    pub(crate) fn context(
        &self,
        env: &Env,
        info: &AttemptInfo,
        subtask: SubtaskIndex,
        store: &dyn Store,
    ) -> SinkContext {
        let Self { uid, names, parallelism, .. } = self;
        let AttemptInfo { job, attempt, lineage, .. } = *info;
        let (uid, names, env) = (uid.clone(), names.clone(), env.clone());
        let checkpoints =
            store.local_dir().map_or_else(|| store.url().to_owned(), |dir| dir.display().to_string());
        SinkContext {
            uid,
            names,
            env,
            job,
            lineage,
            attempt,
            subtask,
            parallelism: *parallelism,
            checkpoints,
        }
    }
}

fn uid_of(vertex: &Vertex) -> Result<Uid> {
    vertex.uid.clone().ok_or_else(|| Error::internal(format!("a {} has no uid", vertex.kind_name)))
}

/// The sinks of a plan; a renamed one under each of its names, since what it left pending outside bears the name that it
/// had then.
pub(crate) fn sinks(plan: &Plan) -> Vec<NamedSink> {
    let mut sinks = Vec::new();
    for chain in &plan.chains {
        for &id in &chain.vertices {
            let vertex = plan.vertex(id);
            if let VertexKind::Sink(sink) = &vertex.kind {
                sinks.extend(named(vertex, sink, chain.parallelism));
            }
        }
    }
    sinks
}

/// A sink under each of its names, the present one first.
fn named(vertex: &Vertex, sink: &Arc<dyn AnySink>, parallelism: u32) -> Vec<NamedSink> {
    let names: Vec<Uid> = vertex.uid.iter().chain(&vertex.formerly).cloned().collect();
    let under =
        |uid: &Uid| NamedSink { uid: uid.clone(), names: names.clone(), sink: Arc::clone(sink), parallelism };
    names.iter().map(under).collect()
}
