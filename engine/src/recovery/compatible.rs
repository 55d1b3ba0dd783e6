//! Whether a snapshot fits the job as it is now: decided before the job starts, naming operator, state, expected, found.

use std::collections::BTreeSet;

use checkpoint::manifest::{ListPart, Manifest, OperatorSnapshot};
use statebackend::{Action, Expected, StateSpec, Version, check_compatible};
use types::{Error, Result, Shape, Uid};

use super::{describe, migrate};
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
    max_parallelism_fits(plan, manifest, place)?;
    dropped_is_there(manifest, dropped, place)?;
    for operator in &manifest.operators {
        let Some(vertex) = plan.graph.vertices.iter().find(|vertex| claims(vertex, operator)) else {
            unclaimed_fits(operator, dropped, place)?;
            continue;
        };
        match shadowed_by(vertex, operator, manifest) {
            Some(restored) => shadowed_fits(operator, restored, dropped, place)?,
            None => operator_fits(vertex, operator, dropped.contains(&operator.uid), place)?,
        }
    }
    Ok(())
}

/// The operators whose state may be dropped from `manifest`: those that a user has `asked` for, and of those that the line of
/// history which goes on has dropped `before`, what is still there; these need not be there when they are asked for again.
pub(crate) fn dropped(asked: &BTreeSet<Uid>, before: &[Uid], manifest: &Manifest) -> BTreeSet<Uid> {
    let is_there = |uid: &Uid| manifest.operators.iter().any(|it| it.uid == *uid);
    let asked = asked.iter().filter(|uid| is_there(uid) || !before.contains(uid));
    asked.chain(before.iter().filter(|uid| is_there(uid))).cloned().collect()
}

pub(super) fn max_parallelism_fits(plan: &Plan, manifest: &Manifest, place: &str) -> Result<()> {
    if manifest.max_parallelism == plan.max_parallelism {
        return Ok(());
    }
    Err(Error::incompatible(format!(
        "{place} was written with max parallelism {}, the job has {}: it cannot be changed, set it back",
        manifest.max_parallelism.0, plan.max_parallelism.0
    )))
}

/// Whether the snapshot holds what is to be dropped.
pub(super) fn dropped_is_there(manifest: &Manifest, dropped: &BTreeSet<Uid>, place: &str) -> Result<()> {
    match dropped.iter().find(|uid| !manifest.operators.iter().any(|it| it.uid == **uid)) {
        None => Ok(()),
        Some(unknown) => Err(Error::invalid_job(format!(
            "--allow-dropped-state {unknown}: {place} holds no state of that name; it holds {}",
            names(manifest)
        ))),
    }
}

/// Whether a vertex has, or had, the uid of a stored operator.
pub(super) fn claims(vertex: &Vertex, operator: &OperatorSnapshot) -> bool {
    vertex.uid.as_ref() == Some(&operator.uid) || vertex.formerly.contains(&operator.uid)
}

/// What the snapshot holds for a vertex: the operator of its uid, or else of the first of its old names that is there.
pub(super) fn stored<'a>(vertex: &Vertex, manifest: &'a Manifest) -> Option<&'a OperatorSnapshot> {
    let mut names = vertex.uid.iter().chain(&vertex.formerly);
    names.find_map(|name| manifest.operators.iter().find(|it| it.uid == *name))
}

/// Whether a vertex is a source of which the snapshot holds nothing.
pub(crate) fn reads_anew(vertex: &Vertex, manifest: &Manifest) -> bool {
    matches!(vertex.kind, VertexKind::Source(_)) && stored(vertex, manifest).is_none()
}

/// Whether a stored operator that no vertex claims may be left out.
pub(super) fn unclaimed_fits(
    operator: &OperatorSnapshot,
    dropped: &BTreeSet<Uid>,
    place: &str,
) -> Result<()> {
    if dropped.contains(&operator.uid) || is_empty(operator) {
        return Ok(());
    }
    Err(Error::incompatible(format!(
        "{place} holds state of operator {}, which the job does not have: give an operator that uid, or name its old one \
         with formerly(), or drop the state with --allow-dropped-state {}",
        operator.uid, operator.uid
    )))
}

/// The operator whose state a vertex gets in place of that of `operator`, which it claims, too: it gets that of one alone.
pub(super) fn shadowed_by<'a>(
    vertex: &Vertex,
    operator: &OperatorSnapshot,
    manifest: &'a Manifest,
) -> Option<&'a Uid> {
    stored(vertex, manifest).map(|restored| &restored.uid).filter(|restored| **restored != operator.uid)
}

/// Whether an operator may be left out whose vertex gets the state of `restored`. Nobody asks whether it would fit.
pub(super) fn shadowed_fits(
    operator: &OperatorSnapshot,
    restored: &Uid,
    dropped: &BTreeSet<Uid>,
    place: &str,
) -> Result<()> {
    let lost = &operator.uid;
    if dropped.contains(lost) || is_empty(operator) {
        return Ok(());
    }
    Err(Error::incompatible(format!(
        "{place} holds state of operator {restored} and of operator {lost}, and one operator of the job claims both: it would \
         get that of {restored} alone; give the other an operator of its own, or drop it with --allow-dropped-state {lost}"
    )))
}

fn names(manifest: &Manifest) -> String {
    manifest.operators.iter().map(|it| it.uid.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether nothing would be lost with it (a sink whose transactions are settled before the start).
fn is_empty(operator: &OperatorSnapshot) -> bool {
    operator.enumerator.is_none()
        && operator.subtasks.iter().all(|it| {
            it.runs.is_empty()
                && it.lists.iter().all(|part| part.elements.is_empty() || !operator.is_list_state(part))
        })
}

fn operator_fits(vertex: &Vertex, operator: &OperatorSnapshot, may_drop: bool, place: &str) -> Result<()> {
    let here = |error: Error| error.context(format!("{place}, operator {}", operator.uid));
    key_fits(vertex, operator).map_err(here)?;
    for description in &operator.states {
        let found = describe::spec(description).map_err(here)?;
        state_fits(vertex, operator, &found, may_drop).map_err(|error| error.context(place))?;
    }
    let stored = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
    let mut states = stored.filter(|part| !part.is_expiry_clocks());
    states.try_for_each(|part| list_fits(vertex, part, may_drop).map(drop)).map_err(here)
}

/// What restoring does with a keyed state.
pub(super) fn state_fits(
    vertex: &Vertex,
    operator: &OperatorSnapshot,
    found: &StateSpec,
    may_drop: bool,
) -> Result<Action> {
    let expected = Expected { states: &vertex.states, migrations: &vertex.migrations, may_drop };
    let actions = check_compatible(&operator.uid, expected, std::slice::from_ref(found))?;
    if let Some(declared) = vertex.states.iter().find(|spec| spec.name == found.name) {
        migrate::has_event_time(operator, declared, found)?;
    }
    actions
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("a state was compared, and nothing is said of it"))
}

/// Whether the keys are still of the same type.
pub(super) fn key_fits(vertex: &Vertex, operator: &OperatorSnapshot) -> Result<()> {
    if operator.key_shape.is_empty() || vertex.key_shape.is_empty() {
        return Ok(());
    }
    let expected = Shape::from_bytes(&vertex.key_shape)?;
    let found = Shape::from_bytes(&operator.key_shape)?;
    match Shape::diff(&expected, &found) {
        None => Ok(()),
        Some(difference) => Err(Error::incompatible(format!(
            "the type of its key has changed: {difference}; keys cannot be migrated: restore with the program that wrote the \
                 snapshot, or give the operator another uid"
        ))),
    }
}

/// As which version of its type a list state is stored. Those of sources are their splits, which no spec describes.
pub(super) fn list_fits(vertex: &Vertex, part: &ListPart, may_drop: bool) -> Result<Version> {
    match vertex.lists.iter().find(|list| list.name == part.name) {
        Some(list) => list.accepts(part),
        None if may_drop || !matches!(vertex.kind, VertexKind::Operator(_)) => Ok(Version::Declared),
        None => Err(Error::incompatible(format!(
            "it holds list state {:?}, which the operator no longer declares: declare it, or drop the operator's state \
             with --allow-dropped-state",
            part.name
        ))),
    }
}
