//! Which state of one snapshot is compared with which of the other: those of the same operator and name.

use std::collections::BTreeSet;

use checkpoint::{
    manifest::{ListPart, OperatorSnapshot, Redistribution, StateDescription},
    savepoint::SnapshotLocation,
};
use statebackend::{KeySelection, Selection, StateKind, is_timers};
use types::{MaxParallelism, Result, Shape};

use super::Sides;
use crate::{
    compare::Side,
    state::{self, StateReader},
};

/// A state of an operator, on both sides or on one.
pub(super) struct Pair<'a> {
    pub(super) uid: &'a str,
    pub(super) state: &'a str,
    pub(super) kind: String,
    pub(super) before: Option<&'a OperatorSnapshot>,
    pub(super) after: Option<&'a OperatorSnapshot>,
    pub(super) states: States<'a>,
    /// Whether entries of either side have a time to live.
    pub(super) expires: bool,
    /// Not worth a line where neither side has an entry.
    pub(super) is_optional: bool,
    /// Bytes of files that are read for it, about.
    pub(super) len: u64,
    is_in: [bool; 2],
}

/// What is compared.
pub(super) enum States<'a> {
    Keyed(StateKind),
    /// Operator lists: the parts of either side.
    Lists(Vec<&'a ListPart>, Vec<&'a ListPart>),
    /// Nothing: it is another kind, or its values or keys are of another shape.
    Different(String),
}

/// The states of either snapshot, by operator and name; those of one operator or one name where these are given.
///
/// # Errors
/// `InvalidJob` if neither snapshot has such an operator or state, `Corrupt` if a shape or kind cannot be read.
pub(super) fn pairs<'a>(
    before: &'a SnapshotLocation,
    after: &'a SnapshotLocation,
    uid: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Pair<'a>>> {
    let operators = [before, after].map(|location| &location.manifest.operators);
    let find = |side: usize, uid: &str| operators[side].iter().find(|operator| operator.uid.as_str() == uid);
    if let Some(uid) = uid
        && find(0, uid).is_none()
    {
        // It may be new.
        let operator = after.manifest.operator(uid).map_err(|error| error.context(&after.named))?;
        name.map_or(Ok(()), |name| state::find(operator, name, &after.named).map(drop))?;
    } else if let (Some(uid), Some(name)) = (uid, name)
        && find(1, uid).is_none_or(|operator| !state::names(operator).contains(name))
    {
        let operator = before.manifest.operator(uid).map_err(|error| error.context(&before.named))?;
        state::find(operator, name, &before.named)?;
    }
    let uids: BTreeSet<&str> =
        operators.into_iter().flatten().map(|operator| operator.uid.as_str()).collect();
    let mut pairs = Vec::new();
    for one in uids.into_iter().filter(|one| uid.is_none_or(|uid| uid == *one)) {
        let (old, new) = (find(0, one), find(1, one));
        let names: BTreeSet<&str> = [old, new].into_iter().flatten().flat_map(state::names).collect();
        for state in names.into_iter().filter(|one| name.is_none_or(|name| name == *one)) {
            pairs.push(pair(one, state, old, new)?);
        }
    }
    Ok(pairs)
}

fn pair<'a>(
    uid: &'a str,
    state: &'a str,
    before: Option<&'a OperatorSnapshot>,
    after: Option<&'a OperatorSnapshot>,
) -> Result<Pair<'a>> {
    let sides = [before, after];
    let kind = |side: Option<&OperatorSnapshot>| {
        side.map(|operator| state::keyed_kind(operator, state)).transpose().map(Option::flatten)
    };
    let kinds = [kind(before)?, kind(after)?];
    let lists = sides.map(|side| {
        let parts = side.map(|operator| state::list_parts(operator, state)).unwrap_or_default();
        parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>()
    });
    let names = [0, 1].map(|side| match kinds[side] {
        Some(kind) => Some(kind.name()),
        None => lists[side].first().map(|part| match part.redistribution {
            Redistribution::Split => "operator list",
            Redistribution::Union => "operator union list",
            Redistribution::Broadcast => "operator broadcast list",
        }),
    });
    let states = match (difference(sides, names, &lists, state)?, kinds[0].or(kinds[1])) {
        (Some(difference), _) => States::Different(difference),
        (None, Some(kind)) => States::Keyed(kind),
        (None, None) => {
            let [before, after] = lists;
            States::Lists(before, after)
        }
    };
    let runs = sides.into_iter().flatten().flat_map(|operator| &operator.subtasks).flat_map(|it| &it.runs);
    let len = if matches!(states, States::Keyed(_)) { runs.map(|run| run.file.len).sum() } else { 0 };
    Ok(Pair {
        uid,
        state,
        kind: names[1].or(names[0]).unwrap_or_default().to_owned(),
        before,
        after,
        states,
        expires: sides.into_iter().flatten().any(|operator| state::expires(operator, state)),
        is_optional: is_timers(state),
        len,
        is_in: names.map(|name| name.is_some()),
    })
}

/// Why the states of two sides cannot be compared, if so: what was, and what is.
fn difference(
    [before, after]: [Option<&OperatorSnapshot>; 2],
    kinds: [Option<&str>; 2],
    lists: &[Vec<&ListPart>; 2],
    name: &str,
) -> Result<Option<String>> {
    let ([Some(old_kind), Some(new_kind)], Some(before), Some(after)) = (kinds, before, after) else {
        return Ok(None);
    };
    if old_kind != new_kind {
        return Ok(Some(format!("the kind was {old_kind} and is {new_kind}")));
    }
    if let ([old, ..], [new, ..]) = (lists[0].as_slice(), lists[1].as_slice()) {
        return values((&old.codec, &old.shape), (&new.codec, &new.shape));
    }
    if let Some(difference) = shapes(&before.key_shape, &after.key_shape)? {
        return Ok(Some(format!("the keys have changed: {difference}")));
    }
    let described =
        |operator: &'_ OperatorSnapshot| operator.states.iter().find(|it| it.name == name).cloned();
    let (Some(old), Some(new)) = (described(before), described(after)) else { return Ok(None) };
    // Values with a time to live have deadlines before them.
    if old.kind != new.kind {
        return Ok(Some(format!("the kind was {} and is {}", old.kind, new.kind)));
    }
    let StateDescription { codec, shape, map_key_shape, .. } = &old;
    if let Some(difference) = shapes(map_key_shape, &new.map_key_shape)? {
        return Ok(Some(format!("the map keys have changed: {difference}")));
    }
    values((codec, shape), (&new.codec, &new.shape))
}

/// The first difference between codecs and shapes of values.
fn values(
    (old_codec, old): (&String, &Vec<u8>),
    (new_codec, new): (&String, &Vec<u8>),
) -> Result<Option<String>> {
    if old_codec != new_codec {
        return Ok(Some(format!("the codec was {old_codec} and is {new_codec}")));
    }
    Ok(shapes(old, new)?.map(|difference| format!("the shape has changed: {difference}")))
}

/// The first difference between two shapes, as far as both are known.
fn shapes(old: &[u8], new: &[u8]) -> Result<Option<String>> {
    match (state::shape(old)?, state::shape(new)?) {
        (Some(old), Some(new)) => Ok(Shape::diff(&old, &new)),
        _ => Ok(None),
    }
}

impl<'a> Pair<'a> {
    /// What differs about the state itself.
    pub(super) fn note(&self, before: &str, after: &str) -> Option<String> {
        match (&self.states, self.is_in) {
            (States::Different(difference), _) => Some(difference.clone()),
            // Timers stand in no list of states.
            _ if self.is_optional => None,
            (_, [true, false]) => Some(format!("only in {before}")),
            (_, [false, true]) => Some(format!("only in {after}")),
            _ => None,
        }
    }

    /// The two sides of a keyed state.
    pub(super) fn sides<'s>(&self, sides: &Sides<'s>) -> [Side<'s>; 2]
    where
        'a: 's,
    {
        [(self.before, sides.before), (self.after, sides.after)].map(|(operator, location)| {
            let MaxParallelism(max) = location.manifest.max_parallelism;
            let groups = MaxParallelism(max).all();
            let selection = Selection { state: self.state.to_owned(), groups, keys: KeySelection::All };
            let reader = |operator| StateReader::new(sides.env, &*location.store, operator, selection);
            Side::new(operator.map(reader), sides.progress)
        })
    }
}
