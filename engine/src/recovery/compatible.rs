//! Whether a snapshot fits the job as it is now: decided before the job starts, naming operator, state, expected, found.

use std::collections::BTreeSet;

use checkpoint::manifest::{ListPart, Manifest, OperatorSnapshot};
use statebackend::{StateSpec, check_compatible};
use types::{Error, Result, Shape, Uid};

use super::describe;
use crate::graph::{
    logical::{Vertex, VertexKind},
    physical::Plan,
};

/// Checks every operator of `manifest` against `plan`.
///
/// # Errors
/// `IncompatibleState`: state that no operator claims and that is not in `dropped`, another shape or codec, another max
/// parallelism. `InvalidJob` if `dropped` names an operator that the snapshot does not hold.
pub(crate) fn check(plan: &Plan, manifest: &Manifest, dropped: &BTreeSet<Uid>, place: &str) -> Result<()> {
    if manifest.max_parallelism != plan.max_parallelism {
        return Err(Error::incompatible(format!(
            "{place} was written with max parallelism {}, the job has {}: it cannot be changed, set it back",
            manifest.max_parallelism.0, plan.max_parallelism.0
        )));
    }
    if let Some(unknown) = dropped.iter().find(|uid| !manifest.operators.iter().any(|it| it.uid == **uid)) {
        return Err(Error::invalid_job(format!(
            "--allow-dropped-state {unknown}: {place} holds no state of that name; it holds {}",
            names(manifest)
        )));
    }
    for operator in &manifest.operators {
        let claims = |vertex: &&Vertex| {
            vertex.uid.as_ref() == Some(&operator.uid) || vertex.formerly.contains(&operator.uid)
        };
        match plan.graph.vertices.iter().find(claims) {
            Some(vertex) => operator_fits(vertex, operator, dropped.contains(&operator.uid), place)?,
            None if dropped.contains(&operator.uid) || is_empty(operator) => {}
            None => {
                return Err(Error::incompatible(format!(
                    "{place} holds state of operator {}, which the job does not have: give an operator that uid, or \
                     name its old one with formerly(), or drop the state with --allow-dropped-state {}",
                    operator.uid, operator.uid
                )));
            }
        }
    }
    plan.graph.vertices.iter().try_for_each(|vertex| one_claim(vertex, manifest, dropped, place))
}

/// A vertex gets the state of one stored operator: of its uid, or else of the first of its old names that is there.
fn one_claim(vertex: &Vertex, manifest: &Manifest, dropped: &BTreeSet<Uid>, place: &str) -> Result<()> {
    let names = vertex.uid.iter().chain(&vertex.formerly);
    let mut stored = names.filter_map(|name| manifest.operators.iter().find(|it| it.uid == *name));
    let Some(restored) = stored.next() else { return Ok(()) };
    match stored.find(|it| it.uid != restored.uid && !is_empty(it) && !dropped.contains(&it.uid)) {
        None => Ok(()),
        Some(lost) => Err(Error::incompatible(format!(
            "{place} holds state of operator {} and of operator {}, and one operator of the job claims both: it would \
             get that of {} alone; give the other an operator of its own, or drop it with --allow-dropped-state {}",
            restored.uid, lost.uid, restored.uid, lost.uid
        ))),
    }
}

fn names(manifest: &Manifest) -> String {
    manifest.operators.iter().map(|it| it.uid.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether nothing would be lost with it (a sink whose transactions are settled before the start).
fn is_empty(operator: &OperatorSnapshot) -> bool {
    operator.enumerator.is_none()
        && operator.subtasks.iter().all(|it| {
            it.runs.is_empty()
                && it.lists.iter().all(|part| part.elements.is_empty() || operator.is_place(part))
        })
}

fn operator_fits(vertex: &Vertex, operator: &OperatorSnapshot, may_drop: bool, place: &str) -> Result<()> {
    let here = |error: Error| error.context(format!("{place}, operator {}", operator.uid));
    if !operator.key_shape.is_empty() && !vertex.key_shape.is_empty() {
        let expected = Shape::from_bytes(&vertex.key_shape)?;
        let found = Shape::from_bytes(&operator.key_shape).map_err(here)?;
        if let Some(difference) = Shape::diff(&expected, &found) {
            return Err(here(Error::incompatible(format!("the type of its key has changed: {difference}"))));
        }
    }
    let found: Vec<StateSpec> =
        operator.states.iter().map(describe::spec).collect::<Result<_>>().map_err(here)?;
    check_compatible(&operator.uid, &vertex.states, may_drop, &found)
        .map_err(|error| error.context(place))?;
    let stored = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
    stored.into_iter().try_for_each(|part| list_fits(vertex, part, may_drop)).map_err(here)
}

/// The list states of sources are their splits, which no spec describes.
fn list_fits(vertex: &Vertex, part: &ListPart, may_drop: bool) -> Result<()> {
    match vertex.lists.iter().find(|list| list.name == part.name) {
        Some(list) => list.accepts(part),
        None if may_drop || !matches!(vertex.kind, VertexKind::Operator(_)) => Ok(()),
        None => Err(Error::incompatible(format!(
            "it holds list state {:?}, which the operator no longer declares: declare it, or drop the operator's state \
             with --allow-dropped-state",
            part.name
        ))),
    }
}
