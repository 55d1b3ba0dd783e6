//! [`SinkStream`]: the end of a stream, for the settings of its sink.

use types::Uid;

use super::{job::SharedGraph, stream::note};
use crate::graph::logical::{Chaining, Vertex, VertexId};

/// A stream that has its sink.
pub struct SinkStream {
    graph: SharedGraph,
    sink: VertexId,
}

impl SinkStream {
    pub(crate) fn new(graph: SharedGraph, sink: VertexId) -> Self {
        Self { graph, sink }
    }

    /// What people read instead of the uid.
    pub fn name(self, name: &str) -> Self {
        self.edited(|vertex| vertex.name = Some(name.to_owned()))
    }

    /// The parallelism of the sink, instead of the job's.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.edited(|vertex| vertex.parallelism = Some(parallelism))
    }

    /// Lets the sink run in a task of its own.
    pub fn disable_chaining(self) -> Self {
        self.edited(|vertex| vertex.chaining = Chaining::Never)
    }

    /// Takes over what an earlier version of the job kept under another uid.
    pub fn formerly(self, uid: &str) -> Self {
        let old = note(&self.graph, "formerly", Uid::new(uid));
        self.edited(|vertex| vertex.formerly.extend(old))
    }

    fn edited(self, change: impl FnOnce(&mut Vertex)) -> Self {
        change(&mut self.graph.borrow_mut().vertices[self.sink.0]);
        self
    }
}
