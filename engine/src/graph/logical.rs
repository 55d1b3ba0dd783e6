//! The job as the user wrote it: vertices (sources, operators, sinks) and edges, not yet parallel, not yet chained.
//! Built by the streams of `api`, checked by `validate`, turned into tasks by `physical`.

use std::{any::TypeId, sync::Arc};

use checkpoint::manifest::{ListPart, Redistribution};
use statebackend::{Migrations, StateSpec, Version};
use types::{Bincode, Codec, Error, Result, Shape, Uid};

use crate::api::erased::{AnySink, AnySource, Exchange, OperatorFactory};

/// A vertex: its place in [`Graph::vertices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub usize);

/// Which output of a vertex an edge takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The main output.
    Main,
    /// A side output, by the index of its declaration.
    Side(usize),
}

/// How an edge spreads records; the [`Exchange`] does it, this says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// Subtask i to subtask i; only between equal parallelisms. May be chained.
    Forward,
    /// By key group.
    Hash,
    /// Round robin over all.
    Rebalance,
    /// Round robin over the near ones: each upstream subtask serves its own part of the downstream ones.
    Rescale,
    /// At random, seeded.
    Shuffle,
    /// Every record to every subtask.
    Broadcast,
    /// Every record to subtask 0.
    Global,
    /// By the user's function.
    Custom,
}

impl Partitioning {
    /// The name, for people and fingerprints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Hash => "hash",
            Self::Rebalance => "rebalance",
            Self::Rescale => "rescale",
            Self::Shuffle => "shuffle",
            Self::Broadcast => "broadcast",
            Self::Global => "global",
            Self::Custom => "custom",
        }
    }
}

/// An edge into a vertex.
#[derive(Clone)]
pub struct Edge {
    /// The vertex it comes from.
    pub from: VertexId,
    /// Which of that one's outputs.
    pub port: Port,
    /// How records are spread, said.
    pub partitioning: Partitioning,
    /// How records are spread, done.
    pub exchange: Arc<dyn Exchange>,
}

/// Whether a vertex may share a task with its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chaining {
    /// Chained where possible.
    #[default]
    Allowed,
    /// Begins a new chain; others may be chained to it.
    NewChain,
    /// Stands alone.
    Never,
}

/// What a vertex does.
#[derive(Clone)]
pub enum VertexKind {
    /// Reads.
    Source(Arc<dyn AnySource>),
    /// Transforms.
    Operator(Arc<dyn OperatorFactory>),
    /// Writes.
    Sink(Arc<dyn AnySink>),
}

/// A source, an operator or a sink.
#[derive(Clone)]
pub struct Vertex {
    /// The uid; always there for what owns something durable.
    pub uid: Option<Uid>,
    /// Uids under which earlier versions of the job kept this operator's state.
    pub formerly: Vec<Uid>,
    /// What it is, for people and fingerprints: `source`, `map`, `fold`, `process`, `sink`, ...
    pub kind_name: &'static str,
    /// What the user calls it, for people.
    pub name: Option<String>,
    /// What it does.
    pub kind: VertexKind,
    /// Its own parallelism, where it is not the job's.
    pub parallelism: Option<u32>,
    /// The greatest parallelism it allows (1 for a socket).
    pub parallelism_limit: Option<u32>,
    /// Whether it may be chained.
    pub chaining: Chaining,
    /// Its inputs, in order.
    pub inputs: Vec<Edge>,
    /// Its declared keyed states, sorted by name.
    pub states: Vec<StateSpec>,
    /// As which older types they may be stored, too.
    pub migrations: Migrations,
    /// The canonical bytes of its key's shape; empty if it is not keyed.
    pub key_shape: Vec<u8>,
    /// Its operator list states, in order of declaration.
    pub lists: Vec<ListSpec>,
    /// Its side outputs, in order of declaration.
    pub sides: Vec<SideOutputSpec>,
}

/// The kind name of all sinks; manifests tell by it which operators were sinks.
pub(crate) const SINK: &str = "sink";

impl Vertex {
    /// A vertex with nothing set that need not be.
    pub(crate) fn new(kind_name: &'static str, kind: VertexKind, inputs: Vec<Edge>) -> Self {
        Self {
            uid: None,
            formerly: Vec::new(),
            kind_name,
            name: None,
            kind,
            parallelism: None,
            parallelism_limit: None,
            chaining: Chaining::default(),
            inputs,
            states: Vec::new(),
            migrations: Migrations::none(),
            key_shape: Vec::new(),
            lists: Vec::new(),
            sides: Vec::new(),
        }
    }

    /// What people read: the given name, else the uid, else the kind.
    #[must_use]
    pub fn display_name(&self) -> &str {
        let uid = self.uid.as_ref().map(Uid::as_str);
        self.name.as_deref().or(uid).unwrap_or(self.kind_name)
    }
}

/// A declared operator list state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSpec {
    /// Its name, unique in the operator.
    pub name: String,
    /// How its elements are dealt out at another parallelism.
    pub redistribution: Redistribution,
    /// The shape of its elements.
    pub shape: Shape,
    /// The shapes that they may also be stored in, oldest first.
    pub older: Vec<Shape>,
}

impl ListSpec {
    /// As which version of its type it is stored.
    ///
    /// # Errors
    /// `IncompatibleState` with the difference, `Corrupt` if the stored shape is none.
    pub fn accepts(&self, stored: &ListPart) -> Result<Version> {
        if stored.codec != Bincode::ID {
            return Err(Error::incompatible(format!(
                "list state {:?} was stored with codec {}, this program uses {}: restore with a program that has it",
                self.name,
                stored.codec,
                Bincode::ID
            )));
        }
        if stored.redistribution != self.redistribution {
            return Err(Error::incompatible(format!(
                "operator state {:?} was stored as {}, this program declares {}: declare it under a new name, or restore \
                 with the program that wrote it",
                self.name,
                stored.redistribution.name(),
                self.redistribution.name(),
            )));
        }
        let (place, found) = (format!("list state {:?}", self.name), Shape::from_bytes(&stored.shape)?);
        Version::of(&place, &self.shape, &self.older, &found).map_err(|error| {
            error.with_advice(
                "declare it under a new name, register a migration from the type that the snapshot holds, or restore with the \
                 program that wrote it",
            )
        })
    }
}

/// A side output: its name and the type of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideOutputSpec {
    /// Its name, unique in the operator.
    pub name: String,
    /// The type of its records.
    pub type_id: TypeId,
    /// That type's name, for messages.
    pub type_name: &'static str,
}

/// All vertices, each after those it reads from.
#[derive(Clone, Default)]
pub struct Graph {
    /// The vertices.
    pub vertices: Vec<Vertex>,
    /// What was found wrong while the graph was being built; reported by `validate`, all at once.
    pub problems: Vec<String>,
}

impl Graph {
    /// Adds a vertex.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        self.vertices.push(vertex);
        VertexId(self.vertices.len() - 1)
    }
}
