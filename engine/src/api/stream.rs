//! [`Stream`]: a typed ticket for the output of one or several vertices. Its methods add vertices to the job's graph;
//! what is wrong is noted there and reported, all at once, when the job is planned.

use std::{any::TypeId, marker::PhantomData, rc::Rc, sync::Arc};

use statebackend::{Declared, Migrations, StateSpec};
use types::{Result, Shape, Timestamp, Uid};

use super::{
    data::{Data, Key},
    declare::{Finished, Keyed, OutputTag, declare},
    erased::{Exchange, OperatorFactory},
    function::{Collector, FromFn, RichFunction},
    into_sink::IntoSink,
    job::SharedGraph,
    keyed_stream::KeyedStream,
    process::ProcessFunction,
    sink_stream::SinkStream,
    watermark::WatermarkStrategy,
};
use crate::{
    graph::logical::{
        Chaining, Edge, ListSpec, Partitioning, Port, SINK, SideOutputSpec, Vertex, VertexId, VertexKind,
    },
    operators::{
        apply::Apply,
        exchange,
        operator::{Operator, RuntimeContext},
        process::Process,
        watermark::{AssignTimes, Watermarks},
    },
};

/// Records of type `T` on their way to the next operator.
///
/// A clone is the same stream read once more. Operators that own something durable take a uid first, under which it is
/// kept: `[a-z0-9-]`, unique in the job.
///
/// Closures cannot change what they capture, because no checkpoint would hold it. What must be remembered is state: see
/// [`KeyedStream`] and [`ProcessFunction`].
///
/// ```compile_fail
/// # use tidegate_engine::prelude::*;
/// # fn number(lines: Stream<String>) {
/// let mut count = 0_u64;
/// let numbered = lines.map(move |line| { count += 1; (count, line) });
/// # }
/// ```
#[must_use = "a stream that no sink reads does nothing"]
pub struct Stream<T> {
    graph: SharedGraph,
    /// Where its records come from; several after a union.
    edges: Vec<Edge>,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self { graph: Rc::clone(&self.graph), edges: self.edges.clone(), records: PhantomData }
    }
}

impl<T: Data> Stream<T> {
    /// The stream of a vertex without inputs.
    pub(crate) fn first(graph: &SharedGraph, kind_name: &'static str, kind: VertexKind, uid: &str) -> Self {
        let uid = note(graph, kind_name, Uid::new(uid));
        Self::after(Rc::clone(graph), Vertex { uid, ..Vertex::new(kind_name, kind, Vec::new()) })
    }

    /// The stream of a new vertex's main output.
    fn after(graph: SharedGraph, vertex: Vertex) -> Self {
        let from = graph.borrow_mut().add(vertex);
        Self::of(graph, from, Port::Main)
    }

    fn of(graph: SharedGraph, from: VertexId, port: Port) -> Self {
        let edge =
            Edge { from, port, partitioning: Partitioning::Forward, exchange: exchange::round_robin::<T>() };
        Self { graph, edges: vec![edge], records: PhantomData }
    }

    /// One record for each record.
    pub fn map<U: Data>(self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        self.apply("map", FromFn::new(move |record, out: &mut Collector<'_, U>| out.emit(function(record))))
    }

    /// The records for which `keep` holds.
    pub fn filter(self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.apply(
            "filter",
            FromFn::new(move |record, out: &mut Collector<'_, T>| {
                if keep(&record) {
                    out.emit(record);
                }
            }),
        )
    }

    /// Any number of records for each record.
    pub fn flat_map<I>(self, function: impl Fn(T) -> I + Send + Sync + 'static) -> Stream<I::Item>
    where
        I: IntoIterator + 'static,
        I::Item: Data,
    {
        self.apply(
            "flat-map",
            FromFn::new(move |record, out: &mut Collector<'_, I::Item>| out.extend(function(record))),
        )
    }

    /// Any number of records for each record, put into a collector: saves the collection that `flat_map` returns.
    pub fn flat_map_with<U: Data>(
        self,
        function: impl Fn(T, &mut Collector<'_, U>) + Send + Sync + 'static,
    ) -> Stream<U> {
        self.apply("flat-map", FromFn::new(function))
    }

    /// A function that is opened with its runtime context and closed at the end.
    pub fn rich<F: RichFunction<In = T>>(self, function: F) -> Stream<F::Out> {
        self.apply("rich", function)
    }

    /// A function with operator list state and side outputs; for keyed state and timers, call
    /// [`key_by`](Self::key_by) first.
    pub fn process<F: ProcessFunction<Key = (), In = T>>(self, uid: &str, function: F) -> Stream<F::Out> {
        self.process_vertex(uid, function, Keyed::No)
    }

    /// The same records, all with one key each: what follows keeps state for every key. The key's encoding, a fixed
    /// hash of it and the max parallelism choose the subtask.
    pub fn key_by<K: Key>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> KeyedStream<K, T> {
        self.keyed(exchange::hash(exchange::encode_owned(key)))
    }

    /// Like [`key_by`](Self::key_by) for a key that stands in the record: it is not cloned.
    pub fn key_by_ref<K: Key>(self, key: impl Fn(&T) -> &K + Send + Sync + 'static) -> KeyedStream<K, T> {
        self.keyed(exchange::hash(exchange::encode_borrowed(key)))
    }

    fn keyed<K: Key>(self, exchange: Arc<dyn Exchange>) -> KeyedStream<K, T> {
        KeyedStream::new(self.partitioned(Partitioning::Hash, exchange))
    }

    /// The records of this stream and the `other`, in no order between the two.
    pub fn union(mut self, other: Self) -> Self {
        if !Rc::ptr_eq(&self.graph, &other.graph) {
            self.problem("union: the two streams belong to different jobs");
        }
        self.edges.extend(other.edges);
        self
    }

    /// Gives every record the event time that `time` says. Follow it by [`watermarks`](Self::watermarks).
    pub fn timestamps(self, time: impl Fn(&T) -> Timestamp + Send + Sync + 'static) -> Self {
        let time = Arc::new(time);
        self.then("timestamps", move |_: &RuntimeContext| boxed(AssignTimes::new(Arc::clone(&time))))
    }

    /// Makes watermarks from the records' event times.
    pub fn watermarks(self, strategy: WatermarkStrategy<T>) -> Self {
        self.then("watermarks", move |_: &RuntimeContext| boxed(Watermarks::new(strategy.clone())))
    }

    /// The records that the last operator emitted into a side output.
    pub fn side_output<S: Data>(&self, tag: OutputTag<S>) -> Stream<S> {
        let port = self.side_port(&tag.spec().name, TypeId::of::<S>()).unwrap_or_else(|problem| {
            self.problem(&problem);
            Port::Main
        });
        Stream::of(Rc::clone(&self.graph), self.edges[0].from, port)
    }

    fn side_port(&self, name: &str, type_id: TypeId) -> Result<Port, String> {
        let from = self
            .operator()
            .ok_or_else(|| format!("side output {name:?}: call it on an operator's own output"))?;
        let graph = self.graph.borrow();
        let vertex = &graph.vertices[from.0];
        let found = vertex.sides.iter().position(|side| side.name == name);
        let index = found.ok_or_else(|| {
            format!("{}: side output {name:?} is read but not declared", vertex.display_name())
        })?;
        if vertex.sides[index].type_id != type_id {
            let declared = vertex.sides[index].type_name;
            return Err(format!(
                "{}: side output {name:?} is read as another type than it is declared with: {declared}",
                vertex.display_name()
            ));
        }
        Ok(Port::Side(index))
    }

    /// Spreads records evenly over all subtasks of the next operator, one by one in turn.
    pub fn rebalance(self) -> Self {
        self.partitioned(Partitioning::Rebalance, exchange::round_robin::<T>())
    }

    /// Like [`rebalance`](Self::rebalance), but each subtask serves only its own part of the next operator's subtasks.
    pub fn rescale(self) -> Self {
        self.partitioned(Partitioning::Rescale, exchange::round_robin::<T>())
    }

    /// Spreads records at random.
    pub fn shuffle(self) -> Self {
        self.partitioned(Partitioning::Shuffle, exchange::shuffle::<T>())
    }

    /// Gives every record to every subtask of the next operator.
    pub fn broadcast(self) -> Self {
        self.partitioned(Partitioning::Broadcast, exchange::broadcast::<T>())
    }

    /// Gives all records to the first subtask of the next operator.
    pub fn global(self) -> Self {
        self.partitioned(Partitioning::Global, exchange::global::<T>())
    }

    /// Gives each record to the subtask of the next operator that `partitioner` names, of as many as its second
    /// argument says.
    pub fn partition_custom(self, partitioner: impl Fn(&T, usize) -> usize + Send + Sync + 'static) -> Self {
        self.partitioned(Partitioning::Custom, exchange::custom(partitioner))
    }

    fn partitioned(mut self, partitioning: Partitioning, exchange: Arc<dyn Exchange>) -> Self {
        for edge in &mut self.edges {
            edge.partitioning = partitioning;
            edge.exchange = Arc::clone(&exchange);
        }
        self
    }

    /// Writes the records out. What the sink holds is kept under `uid`.
    pub fn sink<S, Guarantee>(self, uid: &str, sink: S) -> SinkStream
    where
        S: IntoSink<T, Guarantee>,
    {
        let uid = note(&self.graph, "sink", Uid::new(uid));
        let vertex = Vertex { uid, ..Vertex::new(SINK, VertexKind::Sink(sink.into_sink()), self.edges) };
        let id = self.graph.borrow_mut().add(vertex);
        SinkStream::new(self.graph, id)
    }

    /// What people read instead of the uid or the kind of the last operator.
    pub fn name(self, name: &str) -> Self {
        self.edited("name", |vertex| vertex.name = Some(name.to_owned()))
    }

    /// The parallelism of the last operator, instead of the job's.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.edited("parallelism", |vertex| vertex.parallelism = Some(parallelism))
    }

    /// Lets the last operator run in a task of its own.
    pub fn disable_chaining(self) -> Self {
        self.edited("disable_chaining", |vertex| vertex.chaining = Chaining::Never)
    }

    /// Lets a new task begin with the last operator; others may join it.
    pub fn start_new_chain(self) -> Self {
        self.edited("start_new_chain", |vertex| vertex.chaining = Chaining::NewChain)
    }

    /// Takes over state that an earlier version of the job kept under another uid.
    pub fn formerly(self, uid: &str) -> Self {
        let old = note(&self.graph, "formerly", Uid::new(uid));
        self.edited("formerly", |vertex| vertex.formerly.extend(old))
    }

    fn edited(self, setting: &str, change: impl FnOnce(&mut Vertex)) -> Self {
        if self.operator().is_some() {
            self.edit(change);
        } else {
            self.problem(&format!("{setting}: call it right after the operator that it is meant for"));
        }
        self
    }

    /// Changes the vertex that this stream comes from.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Vertex)) {
        change(&mut self.graph.borrow_mut().vertices[self.edges[0].from.0]);
    }

    /// The vertex whose main output this is, untouched by unions and partitioning.
    fn operator(&self) -> Option<VertexId> {
        match self.edges.as_slice() {
            [edge] if edge.port == Port::Main && edge.partitioning == Partitioning::Forward => {
                Some(edge.from)
            }
            _ => None,
        }
    }

    fn apply<F: RichFunction<In = T>>(self, kind_name: &'static str, function: F) -> Stream<F::Out> {
        self.then(kind_name, move |context: &RuntimeContext| boxed(Apply::new(function.clone(), context)))
    }

    /// Adds an operator that owns nothing durable.
    fn then<U: Data>(self, kind_name: &'static str, make: impl OperatorFactory + 'static) -> Stream<U> {
        let vertex = Vertex::new(kind_name, VertexKind::Operator(Arc::new(make)), self.edges);
        Stream::after(self.graph, vertex)
    }

    /// Adds an operator that owns something durable.
    pub(crate) fn then_owning<U: Data>(
        self,
        uid: &str,
        kind_name: &'static str,
        owned: Result<Owned>,
        make: impl OperatorFactory + 'static,
    ) -> Stream<U> {
        let owned = note(&self.graph, uid, owned).unwrap_or_default();
        let vertex = Vertex {
            uid: note(&self.graph, kind_name, Uid::new(uid)),
            states: owned.states,
            migrations: owned.migrations,
            key_shape: owned.key_shape,
            lists: owned.lists,
            sides: owned.sides,
            ..Vertex::new(kind_name, VertexKind::Operator(Arc::new(make)), self.edges)
        };
        Stream::after(self.graph, vertex)
    }

    pub(crate) fn process_vertex<F>(self, uid: &str, function: F, keyed: Keyed) -> Stream<F::Out>
    where
        F: ProcessFunction<In = T>,
    {
        let (_, declarations) = declare::<F>(keyed);
        let owned = declarations.finish(keyed).map(Finished::owned);
        let make = move |context: &RuntimeContext| {
            let process = Process::new(function.clone(), keyed, context)?;
            Ok(Box::new(process) as Box<dyn Operator>)
        };
        self.then_owning(uid, "process", owned, make)
    }

    /// Notes what is wrong, for `validate`.
    pub(crate) fn problem(&self, problem: &str) {
        self.graph.borrow_mut().problems.push(problem.to_owned());
    }
}

/// What an operator's vertex says about the durable things it owns.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) states: Vec<StateSpec>,
    pub(crate) migrations: Migrations,
    pub(crate) key_shape: Vec<u8>,
    pub(crate) lists: Vec<ListSpec>,
    pub(crate) sides: Vec<SideOutputSpec>,
}

impl Owned {
    /// What was declared of keyed state.
    pub(crate) fn keyed(declared: &Declared) -> Self {
        Self {
            states: declared.descriptions(),
            migrations: declared.migrations(),
            key_shape: declared.key_shape().map(Shape::to_bytes).unwrap_or_default(),
            ..Self::default()
        }
    }
}

fn boxed(operator: impl Operator + 'static) -> Result<Box<dyn Operator>> {
    Ok(Box::new(operator))
}

/// Notes an error in the graph, for `validate`.
pub(crate) fn note<V>(graph: &SharedGraph, place: &str, result: Result<V>) -> Option<V> {
    result.map_err(|error| graph.borrow_mut().problems.push(format!("{place}: {error}"))).ok()
}
