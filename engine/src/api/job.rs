//! [`Job`]: where a program begins. It collects the graph that its streams describe; nothing runs before `run`.

use std::{cell::RefCell, rc::Rc};

use types::{Error, MaxParallelism, Result};

use super::{data::Data, source::Source, stream::Stream};
use crate::{
    config::{JobArgs, Settings},
    graph::{
        logical::{Graph, VertexKind},
        physical::{self, Plan},
    },
    operators,
};

/// The graph under construction, shared by a job and its streams.
pub(crate) type SharedGraph = Rc<RefCell<Graph>>;

/// A job under construction.
///
/// Every process of a job builds the same graph, so build it from the program's arguments alone and never from the
/// clock, randomness or the machine.
pub struct Job {
    pub(crate) name: String,
    pub(crate) graph: SharedGraph,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
    /// What the code says; file, environment and command line come above it.
    pub(crate) settings: Settings,
    pub(crate) args: Option<JobArgs>,
}

impl Job {
    /// A job without operators.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            graph: SharedGraph::default(),
            parallelism: 1,
            max_parallelism: MaxParallelism::DEFAULT.0.into(),
            settings: Settings::default(),
            args: None,
        }
    }

    /// How many subtasks every operator has that says nothing else. 1 if never set.
    #[must_use]
    pub fn parallelism(mut self, parallelism: u32) -> Self {
        self.parallelism = parallelism;
        self
    }

    /// The number of key groups: the greatest parallelism that the job can ever have. Fixed by its first checkpoint.
    /// 128 if never set.
    #[must_use]
    pub fn max_parallelism(mut self, max_parallelism: u32) -> Self {
        self.max_parallelism = max_parallelism;
        self
    }

    /// Adds a source. Its positions are kept under `uid`.
    pub fn source<S>(&self, uid: &str, source: S) -> Stream<S::Out>
    where
        S: Source,
        S::Out: Data,
    {
        let parallelism_limit = source.parallelism_limit();
        let kind = VertexKind::Source(operators::source::erase(source));
        let stream = Stream::first(&self.graph, "source", kind, uid);
        stream.edit(|vertex| vertex.parallelism_limit = parallelism_limit);
        stream
    }

    /// The job as it will run, at the parallelism set in code.
    ///
    /// # Errors
    /// `InvalidJob` with everything that is wrong with the graph.
    pub fn plan(&self) -> Result<Plan> {
        self.plan_with(self.parallelism, self.max_parallelism)
    }

    /// The job as it will run at another parallelism than the one set in code.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub(crate) fn plan_with(&self, parallelism: u32, max_parallelism: u32) -> Result<Plan> {
        physical::plan(&self.name, self.graph.borrow().clone(), parallelism, checked_max(max_parallelism)?)
    }
}

fn checked_max(max_parallelism: u32) -> Result<MaxParallelism> {
    match u16::try_from(max_parallelism) {
        Ok(max @ 1..=MaxParallelism::LIMIT) => Ok(MaxParallelism(max)),
        _ => Err(Error::invalid_job(format!(
            "max parallelism {max_parallelism} is not allowed: use 1 to {}",
            MaxParallelism::LIMIT
        ))),
    }
}
