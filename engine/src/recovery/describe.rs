//! Declared states as a manifest describes them, and back. The manifest's types know nothing of state backends, and
//! those nothing of manifests: here they meet.

use std::collections::BTreeMap;

use checkpoint::{barrier::complete::OperatorPlan, manifest::StateDescription};
use statebackend::StateSpec;
use types::{Error, Result, Shape, Uid};

use crate::graph::{
    logical::{Vertex, VertexKind},
    physical::Plan,
};

/// The operators of `plan` that own something durable, and where those are that have a place.
pub(crate) fn operators(plan: &Plan, places: &BTreeMap<Uid, String>) -> Vec<OperatorPlan> {
    let mut operators = Vec::new();
    for chain in &plan.chains {
        for &id in &chain.vertices {
            let vertex = plan.vertex(id);
            let Some(uid) = &vertex.uid else { continue };
            operators.push(OperatorPlan {
                uid: uid.clone(),
                kind: vertex.kind_name.to_owned(),
                parallelism: chain.parallelism,
                key_shape: vertex.key_shape.clone(),
                states: states(vertex),
                enumerator: matches!(vertex.kind, VertexKind::Source(_)),
                place: places.get(uid).cloned(),
            });
        }
    }
    operators
}

fn states(vertex: &Vertex) -> Vec<StateDescription> {
    vertex.states.iter().map(describe).collect()
}

fn describe(spec: &StateSpec) -> StateDescription {
    StateDescription {
        name: spec.name.clone(),
        kind: spec.kind_text(),
        codec: spec.codec.clone(),
        shape: spec.shape.to_bytes(),
        map_key_shape: spec.map_key.as_ref().map(Shape::to_bytes).unwrap_or_default(),
    }
}

/// Reads what `describe` wrote.
///
/// # Errors
/// `IncompatibleState` if the kind is unknown, `Corrupt` if a shape cannot be read.
pub(crate) fn spec(description: &StateDescription) -> Result<StateSpec> {
    let (kind, expiry) = StateSpec::kind_of_text(&description.kind).ok_or_else(|| {
        Error::incompatible(format!(
            "state {:?} is of kind {:?}, which this version does not know: restore with a newer one",
            description.name, description.kind
        ))
    })?;
    let map_key =
        (!description.map_key_shape.is_empty()).then(|| Shape::from_bytes(&description.map_key_shape));
    Ok(StateSpec {
        name: description.name.clone(),
        kind,
        expiry,
        codec: description.codec.clone(),
        shape: Shape::from_bytes(&description.shape)?,
        map_key: map_key.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use statebackend::StateKind;
    use types::TimeDomain;

    use super::*;

    #[test]
    fn a_manifest_says_whether_a_state_expires_as_it_was_declared() {
        for expiry in [None, Some(TimeDomain::EventTime), Some(TimeDomain::ProcessingTime)] {
            let declared = StateSpec {
                name: "count".to_owned(),
                kind: StateKind::Value,
                expiry,
                codec: "bincode2".to_owned(),
                shape: Shape::U64,
                map_key: None,
            };
            let described = describe(&declared);
            assert_eq!(described.expires(), expiry.is_some(), "{}", described.kind);
            assert_eq!(spec(&described).unwrap().expiry, expiry);
        }
    }
}
