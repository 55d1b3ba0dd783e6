//! [`OperatorHarness`]: a piece of a job, from one stream to the next, driven by hand: records, watermarks, timers,
//! snapshots and restores, without threads and without a runtime.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use env::sim::Simulation;
use types::{CheckpointId, Result, Timestamp};

use super::{
    pipeline::{Pipeline, Vertices},
    snapshot::{self, HarnessSnapshot},
};
use crate::{
    api::{data::Data, declare::OutputTag, job::Job, stream::Stream},
    graph::logical::VertexKind,
    operators::operator::{Operator, RuntimeContext},
    record::{AnyBatch, BatchBuilder, Mark},
};

/// Runs a piece of a job in a test: the very operators, key encoding, state tables and snapshot files of a real job,
/// one subtask of each.
///
/// Calls panic when the functions under test fail, with the message a job would print; those that begin with `try`
/// return the error instead. Not usable inside of an asynchronous test.
///
/// ```
/// use tidegate_engine::{prelude::*, testing::OperatorHarness};
///
/// let mut counts = OperatorHarness::new(|words: Stream<String>| words.key_by(String::clone).count("count"));
/// counts.push("tide".to_owned(), Timestamp(0));
/// counts.push("gate".to_owned(), Timestamp(1));
/// let snapshot = counts.snapshot();
/// counts.push("tide".to_owned(), Timestamp(2));
/// assert_eq!(counts.out().last(), Some(&("tide".to_owned(), 2)));
///
/// counts.restore(&snapshot);
/// counts.push("gate".to_owned(), Timestamp(3));
/// assert_eq!(counts.out(), [("gate".to_owned(), 2)]);
/// ```
pub struct OperatorHarness<In, Out> {
    vertices: Vertices,
    simulation: Simulation,
    pipeline: Pipeline,
    next_checkpoint: CheckpointId,
    types: PhantomData<fn(In) -> Out>,
}

impl<In: Data, Out: Data> OperatorHarness<In, Out> {
    /// The operators that `build` puts behind a stream, started fresh.
    ///
    /// # Panics
    /// If they could not be part of a job, or if they are not a single line from the stream given to the one returned.
    #[must_use]
    pub fn new(build: impl FnOnce(Stream<In>) -> Stream<Out>) -> Self {
        let job = Job::new("harness");
        let no_input = |_: &RuntimeContext| -> Result<Box<dyn Operator>> {
            Err(types::Error::internal("the harness is the input of what it runs"))
        };
        let input =
            Stream::first(&job.graph, "input", VertexKind::Operator(Arc::new(no_input)), "harness-input");
        drop(build(input));
        let vertices = Vertices::of(job.graph.borrow().clone());
        let simulation = Simulation::new(0);
        let first = CheckpointId(1);
        let pipeline = succeed(Pipeline::open(&vertices, simulation.env(), first));
        Self { vertices, simulation, pipeline, next_checkpoint: first, types: PhantomData }
    }

    /// Gives a record with an event time.
    ///
    /// # Panics
    /// If a function fails.
    pub fn push(&mut self, record: In, at: Timestamp) {
        succeed(self.try_push(record, Some(at)));
    }

    /// Gives a record without an event time.
    ///
    /// # Panics
    /// If a function fails.
    pub fn push_untimed(&mut self, record: In) {
        succeed(self.try_push(record, None));
    }

    /// Gives a record.
    ///
    /// # Errors
    /// What the function says.
    pub fn try_push(&mut self, record: In, at: Option<Timestamp>) -> Result<()> {
        let mut batch = BatchBuilder::default();
        batch.push(record, at);
        self.pipeline.push(&mut batch.build())
    }

    /// Says that no record with this event time or an earlier one follows: fires event-time timers.
    ///
    /// # Panics
    /// If a function fails.
    pub fn watermark(&mut self, at: Timestamp) {
        succeed(self.try_watermark(at));
    }

    /// As [`watermark`](Self::watermark).
    ///
    /// # Errors
    /// What a function says.
    pub fn try_watermark(&mut self, at: Timestamp) -> Result<()> {
        self.pipeline.mark(Mark::Watermark(at))
    }

    /// Sets the wall clock: fires processing-time timers.
    ///
    /// # Panics
    /// If a function fails.
    pub fn processing_time(&mut self, at: Timestamp) {
        self.simulation.jump_wall(at.0 - self.simulation.env().wall().0);
        succeed(self.pipeline.processing_time(at));
    }

    /// Lets `span` of the watermark interval go by: watermark strategies make their marks.
    ///
    /// # Panics
    /// If a function fails.
    pub fn make_watermarks(&mut self, span: Duration) {
        let now = self.simulation.run(async |env| {
            env.sleep(span).await;
            env.now()
        });
        succeed(self.pipeline.make_marks(now, false));
    }

    /// Ends the input as a job that finishes does: the last watermark, then `close`.
    ///
    /// # Panics
    /// If a function fails.
    pub fn finish(&mut self) {
        let now = self.simulation.env().now();
        succeed(self.pipeline.make_marks(now, true));
        succeed(self.try_watermark(Timestamp::MAX));
        succeed(self.pipeline.close());
    }

    /// Takes the records emitted since the last call.
    pub fn out(&mut self) -> Vec<Out> {
        self.out_with_times().into_iter().map(|(record, _)| record).collect()
    }

    /// Takes the records emitted since the last call, with their event times.
    pub fn out_with_times(&mut self) -> Vec<(Out, Option<Timestamp>)> {
        records(std::mem::take(&mut self.pipeline.out))
    }

    /// Takes the records emitted into a side output since the last call.
    ///
    /// # Panics
    /// If no operator declares it.
    pub fn side_output<T: Data>(&mut self, tag: OutputTag<T>) -> Vec<T> {
        let place = self.vertices.side_output(&tag.spec());
        let place = place.unwrap_or_else(|| panic!("no operator declares the side output {:?}", tag.name()));
        let batches = self.pipeline.sides.remove(&place).unwrap_or_default();
        records(batches).into_iter().map(|(record, _)| record).collect()
    }

    /// The last mark that came out behind the records: watermarks and idleness.
    #[must_use]
    pub fn last_mark(&self) -> Option<Mark> {
        self.pipeline.last_mark
    }

    /// What was added to accumulators since the last start or restore.
    #[must_use]
    pub fn accumulators(&self) -> BTreeMap<String, u64> {
        self.pipeline.accumulators.sums()
    }

    /// What a checkpoint would hold now.
    ///
    /// # Panics
    /// If a value cannot be encoded.
    pub fn snapshot(&mut self) -> HarnessSnapshot {
        let checkpoint = self.next_checkpoint;
        self.next_checkpoint = checkpoint.next();
        succeed(snapshot::take(&mut self.pipeline, &self.vertices, checkpoint))
    }

    /// Throws the running operators away, as a failure does, and starts them again from a snapshot: one of this harness,
    /// or of another with an older version of the functions.
    ///
    /// # Panics
    /// If the snapshot does not fit.
    pub fn restore(&mut self, snapshot: &HarnessSnapshot) {
        succeed(self.try_restore(snapshot));
    }

    /// As [`restore`](Self::restore).
    ///
    /// # Errors
    /// `IncompatibleState` if the snapshot does not fit.
    pub fn try_restore(&mut self, snapshot: &HarnessSnapshot) -> Result<()> {
        self.next_checkpoint = self.next_checkpoint.max(snapshot.next_checkpoint());
        let mut pipeline = Pipeline::open(&self.vertices, self.simulation.env(), self.next_checkpoint)?;
        self.simulation
            .run(async |env| snapshot::restore(snapshot, &mut pipeline, &self.vertices, &env).await)?;
        self.pipeline = pipeline;
        Ok(())
    }
}

fn records<T: Data>(batches: Vec<Box<dyn AnyBatch>>) -> Vec<(T, Option<Timestamp>)> {
    let mut all = Vec::new();
    for mut batch in batches {
        let batch = batch.typed::<T>();
        while let Some(record) = batch.next() {
            all.push((record.value, record.time));
        }
    }
    all
}

fn succeed<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
