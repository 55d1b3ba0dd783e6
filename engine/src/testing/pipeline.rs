//! The operators of a harness, one behind the other, run depth first as a task runs them.

use std::{collections::BTreeMap, sync::Arc};

use env::{Env, Monotonic};
use types::{AttemptId, CheckpointId, MaxParallelism, Result, SubtaskIndex, Timestamp, Uid};

use super::snapshot::HarnessSnapshot;
use crate::{
    api::erased::{AnyOutput, ExchangeContext, OperatorFactory},
    graph::logical::{Graph, Port, SideOutputSpec, Vertex, VertexKind},
    metrics::{Accumulators, Metrics},
    operators::{
        cancellation::Cancellation,
        operator::{Emitted, Operator, Progress, RuntimeContext},
    },
    record::{AnyBatch, BATCH_BYTES, Mark},
    task::restore,
};

/// The vertices of a harness, checked to be a line; the input is not among them.
pub(super) struct Vertices(Vec<Vertex>);

impl Vertices {
    /// # Panics
    /// If the graph cannot be run by a harness.
    pub(super) fn of(graph: Graph) -> Self {
        assert!(graph.problems.is_empty(), "{}", graph.problems.join("; "));
        for (index, vertex) in graph.vertices.iter().enumerate().skip(1) {
            let [edge] = vertex.inputs.as_slice() else {
                panic!("a harness runs operators with one input each")
            };
            let in_line = edge.from.0 + 1 == index && edge.port == Port::Main;
            assert!(in_line, "a harness runs operators in a line, each reading the output of the one before");
        }
        Self(graph.vertices.into_iter().skip(1).collect())
    }

    pub(super) fn uid(&self, index: usize) -> Option<&Uid> {
        self.0[index].uid.as_ref()
    }

    pub(super) fn all(&self) -> &[Vertex] {
        &self.0
    }

    /// The operator that declares a side output, and which of its side outputs that is.
    pub(super) fn side_output(&self, spec: &SideOutputSpec) -> Option<(usize, usize)> {
        self.0
            .iter()
            .enumerate()
            .find_map(|(index, vertex)| Some((index, vertex.sides.iter().position(|side| side == spec)?)))
    }
}

/// An operator with the edge into it.
struct Stage {
    input: Box<dyn AnyOutput>,
    operator: Box<dyn Operator>,
    name: Arc<str>,
    /// The newest watermark that it sent on.
    watermark: Timestamp,
}

/// The running operators.
pub(super) struct Pipeline {
    stages: Vec<Stage>,
    /// What came out at the end.
    pub(super) out: Vec<Box<dyn AnyBatch>>,
    /// What came out at the sides, by operator and side output.
    pub(super) sides: BTreeMap<(usize, usize), Vec<Box<dyn AnyBatch>>>,
    pub(super) last_mark: Option<Mark>,
    pub(super) accumulators: Accumulators,
    /// What the next snapshot builds on: the last one taken or restored.
    pub(super) base: HarnessSnapshot,
}

impl Pipeline {
    pub(super) fn open(vertices: &Vertices, env: Env, first_checkpoint: CheckpointId) -> Result<Self> {
        let metrics = Metrics::default();
        let accumulators = Accumulators::default();
        let context = |name: &str| RuntimeContext {
            operator: name.into(),
            subtask: SubtaskIndex(0),
            parallelism: 1,
            max_parallelism: MaxParallelism::DEFAULT,
            attempt: AttemptId(1),
            groups: MaxParallelism::DEFAULT.all(),
            first_checkpoint,
            batch_records: 1024,
            env: env.clone(),
            metrics: metrics.operator(name, SubtaskIndex(0)),
            accumulators: accumulators.clone(),
            cancellation: Cancellation::default(),
        };
        let mut stages = Vec::new();
        for vertex in vertices.all() {
            let context = context(vertex.display_name());
            let input = vertex.inputs[0].exchange.output(&exchange_context(&context));
            let mut operator = factory(vertex).make(&context)?;
            operator.open(&context)?;
            let (name, watermark) = (context.operator, Timestamp::MIN);
            stages.push(Stage { input, operator, name, watermark });
        }
        let (out, sides, base) = (Vec::new(), BTreeMap::new(), HarnessSnapshot::default());
        Ok(Self { stages, out, sides, last_mark: None, accumulators, base })
    }

    pub(super) fn operator(&mut self, index: usize) -> &mut dyn Operator {
        &mut *self.stages[index].operator
    }

    pub(super) fn watermark(&self, index: usize) -> Timestamp {
        self.stages[index].watermark
    }

    /// Gives back the watermarks that operators had stored, as a task does.
    pub(super) fn restore_watermarks(&mut self, stored: Vec<Option<Timestamp>>) {
        let read: Vec<_> = stored.into_iter().zip(self.stages.iter().map(|it| &*it.operator)).collect();
        let (_, begin) = restore::watermarks(&read, None);
        for (stage, watermark) in self.stages.iter_mut().zip(begin) {
            stage.watermark = watermark;
            stage.operator.restore_watermark(watermark);
        }
    }

    /// Gives records to the first operator.
    pub(super) fn push(&mut self, batch: &mut dyn AnyBatch) -> Result<()> {
        self.forward(0, batch)
    }

    /// Gives a mark to the first operator.
    pub(super) fn mark(&mut self, mark: Mark) -> Result<()> {
        self.pass(0, mark)
    }

    /// Fires processing-time timers due at `now`. As in a task, an operator that has none is not called.
    pub(super) fn processing_time(&mut self, now: Timestamp) -> Result<()> {
        for at in 0..self.stages.len() {
            while self.stages[at].operator.next_processing_timer().is_some_and(|at| at <= now) {
                let (emitted, _) = self.call(at, |operator| operator.on_processing_time(now))?;
                self.deliver(at, emitted)?;
            }
        }
        Ok(())
    }

    /// Lets operators make their own marks.
    pub(super) fn make_marks(&mut self, now: Monotonic, ended: bool) -> Result<()> {
        for at in 0..self.stages.len() {
            if let Some(mark) = self.stages[at].operator.make_mark(now, ended) {
                self.pass_on(at, mark)?;
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self) -> Result<()> {
        (0..self.stages.len()).try_for_each(|at| self.call(at, |operator| operator.close()))
    }

    /// Calls an operator; an error says which.
    fn call<T>(&mut self, at: usize, call: impl FnOnce(&mut dyn Operator) -> Result<T>) -> Result<T> {
        let Stage { operator, name, .. } = &mut self.stages[at];
        call(&mut **operator).map_err(|error| error.context(format!("operator {name}")))
    }

    /// Sends records over the edge into an operator.
    fn forward(&mut self, at: usize, batch: &mut dyn AnyBatch) -> Result<()> {
        let input = &mut self.stages[at].input;
        input.push(batch)?;
        input.flush();
        while let Some((_, mut batch)) = self.stages[at].input.take_ready() {
            while !batch.records.is_empty() {
                let emitted = self.call(at, |operator| operator.process(&mut *batch.records))?;
                self.deliver(at, emitted)?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, at: usize, emitted: Emitted) -> Result<()> {
        for (side, batch) in emitted.sides {
            self.sides.entry((at, side)).or_default().push(batch.records);
        }
        if let Some(mut batch) = emitted.main {
            if at + 1 == self.stages.len() {
                self.out.push(batch.records);
            } else {
                self.forward(at + 1, &mut *batch.records)?;
            }
        }
        emitted.mark.map_or(Ok(()), |mark| self.pass_on(at, mark))
    }

    /// Passes on a mark that leaves the operator `at`.
    fn pass_on(&mut self, at: usize, mark: Mark) -> Result<()> {
        if let Mark::Watermark(watermark) = mark {
            self.stages[at].watermark = self.stages[at].watermark.max(watermark);
        }
        self.pass(at + 1, mark)
    }

    /// Passes a mark through the operators from `at` on.
    fn pass(&mut self, at: usize, mark: Mark) -> Result<()> {
        if at == self.stages.len() {
            self.last_mark = Some(mark);
            return Ok(());
        }
        if let Mark::Watermark(watermark) = mark {
            if watermark <= self.stages[at].watermark {
                return Ok(());
            }
            loop {
                let (emitted, progress) = self.call(at, |operator| operator.on_watermark(watermark))?;
                self.deliver(at, emitted)?;
                match progress {
                    Progress::More => {}
                    Progress::Done => break,
                    Progress::Swallow => return Ok(()),
                }
            }
        }
        if matches!(mark, Mark::Idle | Mark::Active) && self.stages[at].operator.replaces_watermarks() {
            return Ok(());
        }
        self.pass_on(at, mark)
    }
}

fn factory(vertex: &Vertex) -> &dyn OperatorFactory {
    match &vertex.kind {
        VertexKind::Operator(factory) => &**factory,
        VertexKind::Source(_) | VertexKind::Sink(_) => {
            panic!("a harness runs operators, no sources and sinks")
        }
    }
}

fn exchange_context(upstream: &RuntimeContext) -> ExchangeContext {
    ExchangeContext {
        targets: 1,
        max_parallelism: upstream.max_parallelism,
        upstream: upstream.clone(),
        batch_records: upstream.batch_records,
        batch_bytes: BATCH_BYTES,
    }
}
