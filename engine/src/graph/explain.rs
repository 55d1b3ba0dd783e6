//! The plan for people (`--explain`) and as JSON: tasks, their operators with uid and state, and the edges between them.

use std::fmt::{self, Write};

use serde_json::{Value, json};
use types::{Shape, count};

use super::{
    logical::{Port, Vertex},
    physical::{Chain, ChainOutput, Plan},
};

impl Plan {
    /// The plan as text: a task per paragraph, in the order of the stream.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing into a string cannot fail");
        text
    }

    /// The plan as JSON.
    #[must_use]
    pub fn explain_json(&self) -> Value {
        let tasks = self.chains.iter().enumerate().map(|(index, chain)| self.task_json(index, chain));
        json!({
            "job": self.job_name,
            "max_parallelism": self.max_parallelism.0,
            "slots": self.slots(),
            "fingerprint": self.fingerprint().to_string(),
            "tasks": tasks.collect::<Vec<_>>(),
        })
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "job {}: {}, {}, max parallelism {}",
            self.job_name,
            count(self.chains.iter().map(|chain| chain.parallelism).sum::<u32>(), "task"),
            count(self.slots(), "slot"),
            self.max_parallelism.0
        )?;
        for (index, chain) in self.chains.iter().enumerate() {
            writeln!(text, "\nchain {index}, parallelism {}", chain.parallelism)?;
            for (position, &id) in chain.vertices.iter().enumerate() {
                writeln!(text, "  {}", describe(self.vertex(id)))?;
                for output in chain.outputs.iter().filter(|output| output.position == position) {
                    writeln!(text, "    -> chain {}, {}", output.to, self.edge(chain, output))?;
                }
            }
        }
        Ok(())
    }

    fn edge(&self, chain: &Chain, output: &ChainOutput) -> String {
        let partitioning = output.edge.partitioning.name();
        match self.side(chain, output) {
            Some(side) => format!("{partitioning}, side output {side}"),
            None => partitioning.to_owned(),
        }
    }

    fn side(&self, chain: &Chain, output: &ChainOutput) -> Option<&str> {
        match output.port {
            Port::Main => None,
            Port::Side(index) => Some(&self.vertex(chain.vertices[output.position]).sides[index].name),
        }
    }

    fn task_json(&self, index: usize, chain: &Chain) -> Value {
        let operators = chain.vertices.iter().map(|&id| {
            let vertex = self.vertex(id);
            let states = states(vertex)
                .map(|(name, kind, shape)| json!({ "name": name, "kind": kind, "shape": shape.to_string() }));
            json!({
                "kind": vertex.kind_name,
                "name": vertex.display_name(),
                "uid": vertex.uid.as_ref().map(|uid| uid.as_str()),
                "states": states.collect::<Vec<_>>(),
                "side_outputs": vertex.sides.iter().map(|side| &side.name).collect::<Vec<_>>(),
            })
        });
        let outputs = chain.outputs.iter().map(|output| {
            json!({
                "from_operator": output.position,
                "to": output.to,
                "input": output.input,
                "partitioning": output.edge.partitioning.name(),
                "side_output": self.side(chain, output),
            })
        });
        json!({
            "chain": index,
            "parallelism": chain.parallelism,
            "operators": operators.collect::<Vec<_>>(),
            "outputs": outputs.collect::<Vec<_>>(),
        })
    }
}

/// `process "alerts" (uid alerts), states: count value u64`
fn describe(vertex: &Vertex) -> String {
    let mut text = vertex.kind_name.to_owned();
    if let Some(name) = &vertex.name {
        let _ = write!(text, " {name:?}");
    }
    if let Some(uid) = &vertex.uid {
        let _ = write!(text, " (uid {uid})");
    }
    for (index, (name, kind, shape)) in states(vertex).enumerate() {
        let lead = if index == 0 { ", state" } else { "," };
        let _ = write!(text, "{lead} {name}: {kind} of {shape}");
    }
    text
}

/// Name, kind and shape of all states of a vertex.
fn states(vertex: &Vertex) -> impl Iterator<Item = (&str, &'static str, &Shape)> {
    let keyed = vertex.states.iter().map(|state| (state.name.as_str(), state.kind.name(), &state.shape));
    keyed.chain(vertex.lists.iter().map(|list| (list.name.as_str(), "operator list", &list.shape)))
}
