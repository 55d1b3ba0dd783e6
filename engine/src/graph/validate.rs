//! Everything that is wrong with a graph, found before anything runs and reported all at once.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::manifest::Redistribution;
use types::{Error, MaxParallelism, Result, Uid};

use super::logical::{Edge, Graph, Partitioning, Vertex, VertexKind};
use crate::api::erased::Guarantee;

/// How many subtasks a vertex gets: its own number, else the job's, as far as its source allows.
#[must_use]
pub fn parallelism_of(vertex: &Vertex, default_parallelism: u32) -> u32 {
    let limit = vertex.parallelism_limit.unwrap_or(u32::MAX);
    vertex.parallelism.unwrap_or(default_parallelism.min(limit))
}

/// The sinks that commit with the checkpoints: a job without checkpoints cannot have any.
#[must_use]
pub fn exactly_once_sinks(graph: &Graph) -> Vec<&Uid> {
    let exactly_once = |vertex: &&Vertex| match &vertex.kind {
        VertexKind::Sink(sink) => sink.guarantee() == Guarantee::ExactlyOnce,
        _ => false,
    };
    graph.vertices.iter().filter(exactly_once).filter_map(|vertex| vertex.uid.as_ref()).collect()
}

/// All names, former ones too, of the sinks that commit with checkpoints.
pub fn exactly_once_names(graph: &Graph) -> BTreeSet<&Uid> {
    let exactly_once = exactly_once_sinks(graph);
    let is_one = |vertex: &&Vertex| vertex.uid.as_ref().is_some_and(|uid| exactly_once.contains(&uid));
    graph.vertices.iter().filter(is_one).flat_map(|it| it.uid.iter().chain(&it.formerly)).collect()
}

/// # Errors
/// `InvalidJob` with all problems in one line, each naming its place.
pub(super) fn validate(
    job_name: &str,
    graph: &Graph,
    default_parallelism: u32,
    max_parallelism: MaxParallelism,
) -> Result<()> {
    let mut problems = graph.problems.clone();
    problems.extend(name_problem("the job's name", job_name));
    problems.extend(uid_problems(graph));
    problems.extend(connection_problems(graph));
    problems.extend(broadcast_problems(graph, default_parallelism));
    // One mistake may be wrong at many operators.
    let mut of_places: Vec<(String, Vec<String>)> = Vec::new();
    for vertex in &graph.vertices {
        let place = vertex.display_name().escape_debug();
        let own = parallelism_problem(vertex, default_parallelism, max_parallelism);
        let settings = settings_of(vertex).err().map(|error| error.to_string());
        let name = vertex.name.as_ref().and_then(|name| name_problem("the name", name));
        for problem in own.into_iter().chain(name).chain(settings) {
            match of_places.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, places)) => places.push(place.to_string()),
                None => of_places.push((problem, vec![place.to_string()])),
            }
        }
    }
    let of_places = of_places.into_iter();
    problems.extend(of_places.map(|(problem, places)| format!("{}: {problem}", places.join(", "))));
    match problems.as_slice() {
        [] => Ok(()),
        [problem] => Err(Error::invalid_job(format!("job {job_name:?}: {problem}"))),
        many => {
            let listed: Vec<_> =
                many.iter().zip(1..).map(|(problem, number)| format!("({number}) {problem}")).collect();
            Err(Error::invalid_job(format!(
                "job {job_name:?}, {} problems: {}",
                many.len(),
                listed.join("; ")
            )))
        }
    }
}

/// The longest name of a job or an operator, in bytes: it stands in every history record, and in lines of text.
const MAX_NAME: usize = 128;

fn name_problem(what: &str, name: &str) -> Option<String> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    (!fits).then(|| format!("{what} {name:?} must have 1 to {MAX_NAME} bytes and no control characters"))
}

fn uid_problems(graph: &Graph) -> Vec<String> {
    let mut owners: BTreeMap<&Uid, Vec<&Vertex>> = BTreeMap::new();
    for vertex in &graph.vertices {
        let own: BTreeSet<_> = vertex.uid.iter().chain(&vertex.formerly).collect();
        for uid in own {
            owners.entry(uid).or_default().push(vertex);
        }
    }
    let twice = owners.into_iter().filter(|(_, vertices)| vertices.len() > 1);
    twice
        .map(|(uid, vertices)| {
            let kinds: Vec<_> = vertices.iter().map(|vertex| vertex.kind_name).collect();
            format!("uid \"{uid}\" is used {} times ({}): give each its own", kinds.len(), kinds.join(", "))
        })
        .collect()
}

fn connection_problems(graph: &Graph) -> Vec<String> {
    let mut read = vec![false; graph.vertices.len()];
    for edge in graph.vertices.iter().flat_map(|vertex| &vertex.inputs) {
        read[edge.from.0] = true;
    }
    let mut problems = Vec::new();
    let has = |kind: fn(&VertexKind) -> bool| graph.vertices.iter().any(|vertex| kind(&vertex.kind));
    if !has(|kind| matches!(kind, VertexKind::Source(_))) {
        problems.push("it has no source: begin with job.source(..)".to_owned());
    } else if !has(|kind| matches!(kind, VertexKind::Sink(_))) {
        problems.push("it has no sink: end a stream with .sink(..)".to_owned());
    } else {
        for (vertex, _) in graph.vertices.iter().zip(read).filter(|(_, read)| !read) {
            if !matches!(vertex.kind, VertexKind::Sink(_)) {
                problems.push(format!(
                    "{}: nothing reads its output: give the stream a sink, or drop the operator",
                    vertex.display_name()
                ));
            }
        }
    }
    problems
}

/// Operators with broadcast state whose subtasks do not all get every record.
fn broadcast_problems(graph: &Graph, default: u32) -> Vec<String> {
    // Vertices stand after those they read from.
    let mut reaches_all: Vec<bool> = Vec::with_capacity(graph.vertices.len());
    let mut problems = Vec::new();
    for vertex in &graph.vertices {
        let parallelism = parallelism_of(vertex, default);
        let is_whole = |edge: &Edge| match edge.partitioning {
            Partitioning::Broadcast => true,
            Partitioning::Forward => {
                reaches_all[edge.from.0]
                    && parallelism_of(&graph.vertices[edge.from.0], default) == parallelism
            }
            _ => false,
        };
        let is_alone = parallelism == 1;
        let every = is_alone || (!vertex.inputs.is_empty() && vertex.inputs.iter().all(is_whole));
        let state = vertex.lists.iter().find(|list| list.redistribution == Redistribution::Broadcast);
        if let (Some(state), false) = (state, every) {
            problems.push(format!(
                "{}: it declares broadcast state {:?}, and not every record reaches all of its subtasks: put .broadcast() \
                 before it",
                vertex.display_name().escape_debug(),
                state.name
            ));
        }
        reaches_all.push(every);
    }
    problems
}

fn parallelism_problem(vertex: &Vertex, default: u32, max: MaxParallelism) -> Option<String> {
    let parallelism = parallelism_of(vertex, default);
    let limit = vertex.parallelism_limit.unwrap_or(u32::MAX);
    if parallelism == 0 {
        Some("parallelism 0: use at least 1".to_owned())
    } else if parallelism > u32::from(max.0) {
        Some(format!(
            "parallelism {parallelism} is above the max parallelism {max}: lower it{flag}, or raise --max-parallelism \
             before the first checkpoint",
            max = max.0,
            flag = if vertex.parallelism.is_none() { " (--parallelism)" } else { "" },
        ))
    } else if parallelism > limit {
        Some(format!("parallelism {parallelism}, but this source can be read by {limit} at most"))
    } else {
        None
    }
}

fn settings_of(vertex: &Vertex) -> Result<()> {
    match &vertex.kind {
        VertexKind::Source(source) => source.validate(),
        VertexKind::Sink(sink) => sink.validate(),
        VertexKind::Operator(_) => Ok(()),
    }
}
