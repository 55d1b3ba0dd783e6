//! The job as it runs: chains of vertices, each chain one task per subtask, and the channels between them.
//! Made from the logical graph by [`plan`]; the same in every process of a job.

use types::{KeyGroupRange, MaxParallelism, Result, SubtaskIndex, Uid};

use super::logical::{Edge, Graph, Partitioning, Port, Vertex, VertexId};

/// A run of vertices that share one task per subtask: a source or an edge's records go in at the front.
#[derive(Clone)]
pub struct Chain {
    /// The vertices, in order. Each but the first has exactly one input: the main output of the one before it.
    pub vertices: Vec<VertexId>,
    /// How many tasks.
    pub parallelism: u32,
    /// The edges into the first vertex; none for a source.
    pub inputs: Vec<ChainInput>,
    /// The edges out of any vertex of the chain.
    pub outputs: Vec<ChainOutput>,
}

/// An edge into a chain.
#[derive(Clone)]
pub struct ChainInput {
    /// The chain it comes from.
    pub from: usize,
    /// Which of that chain's outputs.
    pub output: usize,
}

/// An edge out of a chain.
#[derive(Clone)]
pub struct ChainOutput {
    /// The place in the chain of the vertex that emits.
    pub position: usize,
    /// Which of that vertex's outputs.
    pub port: Port,
    /// The chain it goes to.
    pub to: usize,
    /// The place among that chain's inputs.
    pub input: usize,
    /// The edge.
    pub edge: Edge,
}

/// The whole job as tasks.
#[derive(Clone)]
pub struct Plan {
    /// The job's name.
    pub job_name: String,
    /// The logical graph.
    pub graph: Graph,
    /// The chains, each after those it reads from.
    pub chains: Vec<Chain>,
    /// The job's max parallelism.
    pub max_parallelism: MaxParallelism,
}

impl Plan {
    /// A vertex of the graph.
    #[must_use]
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.graph.vertices[id.0]
    }

    /// The chain's place and the vertex's place in it.
    #[must_use]
    pub fn place_of(&self, uid: &Uid) -> Option<(usize, usize)> {
        self.chains.iter().enumerate().find_map(|(chain, it)| {
            let place = it.vertices.iter().position(|&id| self.vertex(id).uid.as_ref() == Some(uid));
            place.map(|place| (chain, place))
        })
    }

    /// The key groups of a subtask of a chain.
    #[must_use]
    pub fn groups(&self, chain: usize, subtask: SubtaskIndex) -> KeyGroupRange {
        self.max_parallelism.range(subtask, self.chains[chain].parallelism)
    }

    /// How many subtasks keep keyed state.
    #[must_use]
    pub fn keyed_subtasks(&self) -> usize {
        let of_chain = |chain: &Chain| {
            let keyed = chain.vertices.iter().filter(|&&id| !self.vertex(id).key_shape.is_empty()).count();
            keyed * chain.parallelism as usize
        };
        self.chains.iter().map(of_chain).sum()
    }

    /// How many slots the job needs: one for each parallel slice of its widest chain.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.chains.iter().map(|chain| chain.parallelism).max().unwrap_or(0)
    }
}

/// Which downstream subtasks an upstream subtask of an edge sends to, in the order of the exchange's targets.
#[must_use]
pub fn targets(
    partitioning: Partitioning,
    from: SubtaskIndex,
    upstream: u32,
    downstream: u32,
) -> Vec<SubtaskIndex> {
    match partitioning {
        Partitioning::Forward => vec![from],
        Partitioning::Rescale if downstream >= upstream => {
            let start = from.0 * downstream / upstream;
            let end = (from.0 + 1) * downstream / upstream;
            (start..end).map(SubtaskIndex).collect()
        }
        Partitioning::Rescale => vec![SubtaskIndex(from.0 * downstream / upstream)],
        _ => (0..downstream).map(SubtaskIndex).collect(),
    }
}

/// Chains what can be chained: one input, forward, the same parallelism, the upstream's main output used once.
///
/// # Errors
/// `InvalidJob` if the graph cannot be laid out.
pub fn plan(
    job_name: &str,
    graph: Graph,
    default_parallelism: u32,
    max_parallelism: MaxParallelism,
) -> Result<Plan> {
    super::chain::plan(job_name, graph, default_parallelism, max_parallelism)
}
