//! Whether the states found in a snapshot are those that the program declares. Decided before anything is restored.

use types::{Error, Result, Shape, TimeDomain, Uid};

use crate::{
    declare::{Declared, EVENT_TIMERS, PROCESSING_TIMERS, StateKind, StateSpec},
    migration::{Migrations, Version},
};

/// What restoring does with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its entries go into the table of the same name.
    Restore(String),
    /// The same, once its values are written anew; and how they change, in words.
    Migrate(String, String),
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

/// What a program declares of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its states.
    pub states: &'a [StateSpec],
    /// As which older types they may be stored, too.
    pub migrations: &'a Migrations,
    /// Whether the user allowed states to be dropped that are not declared any more.
    pub may_drop: bool,
}

/// Compares what a snapshot of `operator` holds with what the program declares.
///
/// # Errors
/// `IncompatibleState` naming operator, state, field, what was expected and what was found.
pub fn check_compatible(operator: &Uid, expected: Expected<'_>, found: &[StateSpec]) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for spec in found {
        actions.push(check_state(operator, expected, spec)?);
    }
    let begins = |spec: &&StateSpec| !found.iter().any(|found| found.name == spec.name);
    actions.extend(expected.states.iter().filter(begins).map(|spec| Action::Begin(spec.name.clone())));
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

fn check_state(operator: &Uid, expected: Expected<'_>, found: &StateSpec) -> Result<Action> {
    let name = &found.name;
    if is_timers(name) && found.kind == StateKind::Timers {
        return Ok(Action::Restore(name.clone()));
    }
    let Some(declared) = expected.states.iter().find(|spec| spec.name == *name) else {
        if expected.may_drop {
            return Ok(Action::Drop(name.clone()));
        }
        return Err(Error::incompatible(format!(
            "operator {operator}: the snapshot holds a {} state {name:?} that the program does not declare: declare it, \
             or drop it with --allow-dropped-state {operator}",
            found.kind.name()
        )));
    };
    let version = version_of(operator, declared, expected.migrations.of_state(name), found)?;
    if version == Version::Declared && declared.expiry == found.expiry {
        return Ok(Action::Restore(name.clone()));
    }
    Ok(Action::Migrate(name.clone(), change(version, declared, found)))
}

/// As which of its versions a state is stored. Its time to live may be another one.
///
/// # Errors
/// `IncompatibleState` as [`check_compatible`] says.
pub(crate) fn version_of(
    operator: &Uid,
    declared: &StateSpec,
    older: &[Shape],
    found: &StateSpec,
) -> Result<Version> {
    let name = &found.name;
    let differs = |what: &str, expected: &str, found: &str| {
        Err(Error::incompatible(format!(
            "operator {operator}, state {name:?}: {what} is {expected:?} in the program and {found:?} in the snapshot: \
             restore with the program that wrote it, or give the new state another name"
        )))
    };
    if declared.kind != found.kind {
        return differs("kind", declared.kind.name(), found.kind.name());
    }
    if declared.codec != found.codec {
        return differs("codec", &declared.codec, &found.codec);
    }
    match (&declared.map_key, &found.map_key) {
        (Some(expected), Some(found)) => {
            check_shape(operator, &format!("state {name:?}, map key"), expected, found)?;
        }
        (None, None) => {}
        _ => return differs("map key", "missing or not", "the other way round"),
    }
    let place = format!("operator {operator}, state {name:?}");
    Version::of(&place, &declared.shape, older, &found.shape).map_err(|error| {
        error.with_advice(
            "restore with the program that wrote the snapshot, register a migration from the type that it holds, or give the new \
             state another name",
        )
    })
}

/// What is not the same, in words.
fn change(version: Version, declared: &StateSpec, found: &StateSpec) -> String {
    let shapes =
        (version != Version::Declared).then(|| format!("from {} to {}", found.shape, declared.shape));
    let ttl = |domain: TimeDomain| format!("{} ttl", domain.name());
    let expiry = match (found.expiry, declared.expiry) {
        (None, Some(now)) => Some(format!("gets {}", ttl(now))),
        (Some(before), None) => Some(format!("loses its {}", ttl(before))),
        (Some(before), Some(now)) if before != now => {
            Some(format!("gets {} for its {}", ttl(now), ttl(before)))
        }
        _ => None,
    };
    shapes.into_iter().chain(expiry).collect::<Vec<_>>().join(", ")
}

fn check_shape(operator: &Uid, place: &str, expected: &Shape, found: &Shape) -> Result<()> {
    match Shape::diff(expected, found) {
        None => Ok(()),
        Some(difference) => Err(Error::incompatible(format!(
            "operator {operator}, {place}: the type has changed: {difference}; keys cannot be migrated: restore with the program \
             that wrote the snapshot, or give the new state another name"
        ))),
    }
}
