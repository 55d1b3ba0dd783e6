//! Laying out the graph as tasks: what can share a task does, so that records pass as values and no channel is crossed.

use types::{MaxParallelism, Result};

use super::{
    logical::{Chaining, Edge, Graph, Partitioning, Port, VertexId},
    physical::{Chain, ChainInput, ChainOutput, Plan},
    validate::{parallelism_of, validate},
};

/// See [`plan`](super::physical::plan).
pub(super) fn plan(
    job_name: &str,
    graph: Graph,
    default_parallelism: u32,
    max_parallelism: MaxParallelism,
) -> Result<Plan> {
    validate(job_name, &graph, default_parallelism, max_parallelism)?;
    let layout = Layout::new(&graph, default_parallelism);
    let chains = layout.chains();
    Ok(Plan { job_name: job_name.to_owned(), graph, chains, max_parallelism })
}

struct Layout<'a> {
    graph: &'a Graph,
    /// Of each vertex.
    parallelism: Vec<u32>,
    /// How many edges take each vertex's main output.
    readers: Vec<usize>,
    /// The chain of each vertex, and its place in it.
    places: Vec<(usize, usize)>,
}

impl<'a> Layout<'a> {
    fn new(graph: &'a Graph, default_parallelism: u32) -> Self {
        let parallelism =
            graph.vertices.iter().map(|vertex| parallelism_of(vertex, default_parallelism)).collect();
        let mut readers = vec![0; graph.vertices.len()];
        for edge in graph.vertices.iter().flat_map(|vertex| &vertex.inputs) {
            if edge.port == Port::Main {
                readers[edge.from.0] += 1;
            }
        }
        Self { graph, parallelism, readers, places: Vec::new() }
    }

    fn chains(mut self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Vec::new();
        for index in 0..self.graph.vertices.len() {
            let place = match self.joins(index) {
                Some(upstream) => {
                    let (chain, position) = self.places[upstream.0];
                    (chain, position + 1)
                }
                None => (chains.len(), 0),
            };
            if place.0 == chains.len() {
                let parallelism = self.parallelism[index];
                chains.push(Chain {
                    vertices: Vec::new(),
                    parallelism,
                    inputs: Vec::new(),
                    outputs: Vec::new(),
                });
            }
            chains[place.0].vertices.push(VertexId(index));
            self.places.push(place);
        }
        self.connect(&mut chains);
        chains
    }

    /// The vertex whose task this one joins.
    fn joins(&self, index: usize) -> Option<VertexId> {
        let vertex = &self.graph.vertices[index];
        let [edge] = vertex.inputs.as_slice() else { return None };
        let upstream = &self.graph.vertices[edge.from.0];
        let together = vertex.chaining == Chaining::Allowed
            && upstream.chaining != Chaining::Never
            && edge.port == Port::Main
            && self.readers[edge.from.0] == 1
            && self.partitioning(edge, index) == Partitioning::Forward;
        together.then_some(edge.from)
    }

    /// How an edge spreads records: a forward edge between different parallelisms becomes a rebalance.
    fn partitioning(&self, edge: &Edge, to: usize) -> Partitioning {
        match edge.partitioning {
            Partitioning::Forward if self.parallelism[edge.from.0] != self.parallelism[to] => {
                Partitioning::Rebalance
            }
            partitioning => partitioning,
        }
    }

    fn connect(&self, chains: &mut [Chain]) {
        for to in 0..chains.len() {
            let head = chains[to].vertices[0].0;
            for (input, edge) in self.graph.vertices[head].inputs.iter().enumerate() {
                let edge = Edge { partitioning: self.partitioning(edge, head), ..edge.clone() };
                let (from, position) = self.places[edge.from.0];
                let output = chains[from].outputs.len();
                chains[to].inputs.push(ChainInput { from, output });
                chains[from].outputs.push(ChainOutput { position, port: edge.port, to, input, edge });
            }
        }
    }
}
