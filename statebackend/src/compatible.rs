//! Whether the states found in a snapshot are those that the program declares. Decided before anything is restored.

use types::{Error, Result, Shape, Uid};

use crate::declare::{Declared, EVENT_TIMERS, PROCESSING_TIMERS, StateKind, StateSpec};

/// What restoring does with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its entries go into the table of the same name.
    Restore(String),
    /// It was declared after the snapshot: it begins empty.
    Begin(String),
    /// The program does not declare it any more, and the user allowed it to be dropped.
    Drop(String),
}

/// Whether a state of this name holds timers: every keyed operator has them, nobody declares them.
#[must_use]
pub fn is_timers(name: &str) -> bool {
    [EVENT_TIMERS, PROCESSING_TIMERS].contains(&name)
}

/// Compares what a snapshot of `operator` holds with what the program declares.
///
/// # Errors
/// `IncompatibleState` naming operator, state, field, what was expected and what was found.
pub fn check_compatible(
    operator: &Uid,
    declared: &[StateSpec],
    may_drop: bool,
    found: &[StateSpec],
) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for spec in found {
        actions.push(check_state(operator, declared, may_drop, spec)?);
    }
    let begins = |spec: &&StateSpec| !found.iter().any(|found| found.name == spec.name);
    actions.extend(declared.iter().filter(begins).map(|spec| Action::Begin(spec.name.clone())));
    Ok(actions)
}

/// Compares the shape of the stream's keys, where both are known.
///
/// # Errors
/// `IncompatibleState` naming operator, field, what was expected and what was found.
pub fn check_key(operator: &Uid, declared: &Declared, found: Option<&Shape>) -> Result<()> {
    match (declared.key_shape(), found) {
        (Some(expected), Some(found)) => check_shape(operator, "the key of the stream", expected, found),
        _ => Ok(()),
    }
}

fn check_state(operator: &Uid, declared: &[StateSpec], may_drop: bool, found: &StateSpec) -> Result<Action> {
    let name = &found.name;
    if is_timers(name) && found.kind == StateKind::Timers {
        return Ok(Action::Restore(name.clone()));
    }
    let Some(expected) = declared.iter().find(|spec| spec.name == *name) else {
        if may_drop {
            return Ok(Action::Drop(name.clone()));
        }
        return Err(Error::incompatible(format!(
            "operator {operator}: the snapshot holds a {} state {name:?} that the program does not declare: declare it, \
             or drop it with --allow-dropped-state {operator}",
            found.kind.name()
        )));
    };
    let differs = |what: &str, expected: &str, found: &str| {
        Err(Error::incompatible(format!(
            "operator {operator}, state {name:?}: {what} is {expected:?} in the program and {found:?} in the snapshot: \
             restore with the program that wrote it, or give the new state another name"
        )))
    };
    if expected.kind != found.kind {
        return differs("kind", expected.kind.name(), found.kind.name());
    }
    if expected.expiry != found.expiry {
        return differs("kind", &expected.kind_text(), &found.kind_text());
    }
    if expected.codec != found.codec {
        return differs("codec", &expected.codec, &found.codec);
    }
    check_shape(operator, &format!("state {name:?}"), &expected.shape, &found.shape)?;
    match (&expected.map_key, &found.map_key) {
        (Some(expected), Some(found)) => {
            check_shape(operator, &format!("state {name:?}, map key"), expected, found)?;
        }
        (None, None) => {}
        _ => return differs("map key", "missing or not", "the other way round"),
    }
    Ok(Action::Restore(name.clone()))
}

fn check_shape(operator: &Uid, place: &str, expected: &Shape, found: &Shape) -> Result<()> {
    match Shape::diff(expected, found) {
        None => Ok(()),
        Some(difference) => Err(Error::incompatible(format!(
            "operator {operator}, {place}: the type has changed: {difference}; restore with the program that wrote the \
             snapshot, or give the new state another name"
        ))),
    }
}
